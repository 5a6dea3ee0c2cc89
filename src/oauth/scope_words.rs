//! What scopes allow, in words for the person who installs the app.

use super::config::Requested;
use crate::html::escape;
use crate::installation::Scopes;

/// Returns what the requested scopes allow, as HTML. A scope without words is shown as it is.
pub(super) fn list(requested: &Requested) -> String {
    let part = |title: &str, scopes: &Scopes| {
        if scopes.is_empty() {
            return String::new();
        }
        let items: String = scopes.iter().map(item).collect();
        format!("<p>{title}</p><ul>{items}</ul>")
    };
    let bot = part("The app will be able to:", &requested.scopes);
    let user = part(
        "On your behalf, it will be able to:",
        &requested.user_scopes,
    );
    bot + &user
}

fn item(scope: &str) -> String {
    let known = WORDS.iter().find(|(known, _)| *known == scope);
    match known {
        Some((_, words)) => format!("<li>{words}</li>"),
        None => format!("<li><code>{}</code></li>", escape(scope)),
    }
}

/// From Slack's list of scopes (<https://docs.slack.dev/reference/scopes>), in our words.
const WORDS: &[(&str, &str)] = &[
    ("app_mentions:read", "see messages that mention it"),
    ("channels:history", "read messages in public channels"),
    ("channels:join", "join public channels"),
    ("channels:manage", "create and change public channels"),
    ("channels:read", "see which public channels there are"),
    ("chat:write", "send messages"),
    (
        "chat:write.public",
        "send messages to channels that it has not joined",
    ),
    ("commands", "add shortcuts and slash commands"),
    ("emoji:read", "see custom emoji"),
    ("files:read", "see files that are shared"),
    ("files:write", "upload, change and delete files"),
    ("groups:history", "read messages in private channels"),
    ("groups:read", "see which private channels it is in"),
    ("im:history", "read direct messages"),
    ("im:read", "see which direct messages there are"),
    ("im:write", "start direct messages"),
    ("incoming-webhook", "post to one channel"),
    ("links:read", "see links in messages"),
    ("mpim:history", "read group direct messages"),
    ("mpim:read", "see which group direct messages there are"),
    ("pins:read", "see pinned messages"),
    ("reactions:read", "see emoji reactions"),
    ("reactions:write", "add and change emoji reactions"),
    ("search:read", "search messages and files"),
    ("team:read", "see the name of your workspace"),
    ("users:read", "see the people in your workspace"),
    ("users:read.email", "see people's e-mail addresses"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_shown_in_words_and_unknown_ones_as_they_are() {
        let requested = Requested {
            scopes: Scopes::from("chat:write,some:<b>"),
            user_scopes: Scopes::from("search:read"),
        };
        let list = list(&requested);
        assert!(list.contains("<li>send messages</li>"), "{list}");
        assert!(
            list.contains("<li><code>some:&lt;b&gt;</code></li>"),
            "{list}"
        );
        assert!(list.contains("On your behalf"), "{list}");
        assert!(
            list.contains("<li>search messages and files</li>"),
            "{list}"
        );
        let nothing = super::list(&Requested::default());
        assert_eq!(nothing, "");
    }
}
