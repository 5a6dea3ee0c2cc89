//! The scopes that Slack knows, by the kind of token that can have them.
//!
//! Slack publishes the list as a web page, <https://docs.slack.dev/reference/scopes>, and not in a
//! form that a program can read. So this list is kept by hand. It was last compared in November
//! 2026 with the scopes that Slack's method reference requires, and with lists in public SDKs.
//!
//! To update it: look the scope up on that page, copy its name, and put it in the list of its token
//! types. Do not add a scope because some code uses it: the fake exists to find such mistakes.
//! Where sources disagree about the kind of token, the scope is in [`BOTH`]. Nothing is ever
//! removed, because Slack still grants old scopes to old apps.

use crate::installation::Scopes;

/// The kind of token that an app requests a scope for.
#[derive(Clone, Copy)]
pub(super) enum TokenKind {
    Bot,
    User,
}

/// Returns whether Slack grants all these scopes to this kind of token. `added` are the scopes that
/// the test declared in addition to the list.
pub(super) fn are_known(scopes: &Scopes, kind: TokenKind, added: &Scopes) -> bool {
    let own = match kind {
        TokenKind::Bot => BOT,
        TokenKind::User => USER,
    };
    scopes
        .iter()
        .all(|scope| BOTH.contains(&scope) || own.contains(&scope) || added.contains(scope))
}

/// The scopes of bot tokens and of user tokens.
const BOTH: &[&str] = &[
    "app_configurations:read",
    "app_configurations:write",
    "assistant:write",
    "bookmarks:read",
    "bookmarks:write",
    "calls:read",
    "calls:write",
    "canvases:read",
    "canvases:write",
    "channels:history",
    "channels:join",
    "channels:manage",
    "channels:read",
    "channels:write.invites",
    "channels:write.topic",
    "chat:write",
    "commands",
    "conversations.connect:manage",
    "conversations.connect:read",
    "conversations.connect:write",
    "conversations:write.invites",
    "conversations:write.topic",
    "dnd:read",
    "emoji:read",
    "files:read",
    "files:write",
    "groups:history",
    "groups:read",
    "groups:write",
    "groups:write.invites",
    "groups:write.topic",
    "im:history",
    "im:read",
    "im:write",
    "im:write.invites",
    "im:write.topic",
    "incoming-webhook",
    "links.embed:write",
    "links:read",
    "links:write",
    "lists:read",
    "lists:write",
    "metadata.message:read",
    "mpim:history",
    "mpim:read",
    "mpim:write",
    "mpim:write.invites",
    "mpim:write.topic",
    "none",
    "pins:read",
    "pins:write",
    "reactions:read",
    "reactions:write",
    "reminders:read",
    "reminders:write",
    "remote_files:read",
    "remote_files:share",
    "remote_files:write",
    "search:read.enterprise",
    "search:read.files",
    "search:read.im",
    "search:read.mpim",
    "search:read.private",
    "search:read.public",
    "search:read.users",
    "team.billing:read",
    "team.preferences:read",
    "team:read",
    "tokens.basic",
    "triggers:read",
    "triggers:write",
    "usergroups:read",
    "usergroups:write",
    "users.profile:read",
    "users:read",
    "users:read.email",
    "users:write",
    "workflows.templates:read",
    "workflows.templates:write",
];

/// The scopes of bot tokens only.
const BOT: &[&str] = &[
    "app_mentions:read",
    // Of classic apps. The fake refuses it for an org-wide installation.
    "apps.requests.write",
    "bot",
    "chat:write.customize",
    "chat:write.public",
    "datastore:read",
    "datastore:write",
    "workflow.steps:execute",
];

/// The scopes of user tokens only.
const USER: &[&str] = &[
    "admin",
    "admin.analytics:read",
    "admin.app_activities:read",
    "admin.apps:read",
    "admin.apps:write",
    "admin.barriers:read",
    "admin.barriers:write",
    "admin.chat:read",
    "admin.chat:write",
    "admin.conversations:manage_objects",
    "admin.conversations:read",
    "admin.conversations:write",
    "admin.invites:read",
    "admin.invites:write",
    "admin.roles:read",
    "admin.roles:write",
    "admin.teams:read",
    "admin.teams:write",
    "admin.usergroups:read",
    "admin.usergroups:write",
    "admin.users:read",
    "admin.users:write",
    "admin.workflows:read",
    "admin.workflows:write",
    "apps.requests:write",
    "auditlogs:read",
    "channels:write",
    "dnd:write",
    "email",
    "hosting:read",
    "hosting:write",
    "identify",
    "identity.avatar",
    "identity.basic",
    "identity.email",
    "identity.team",
    "identity:read",
    "openid",
    "profile",
    "search:read",
    "stars:read",
    "stars:write",
    "users.profile:write",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_is_in_one_list_and_the_lists_are_sorted() {
        for list in [BOTH, BOT, USER] {
            assert!(list.is_sorted());
        }
        let mut all: Vec<_> = [BOTH, BOT, USER].concat();
        let total = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), total);
    }

    #[test]
    fn a_scope_of_another_kind_of_token_is_unknown_and_a_declared_one_is_known() {
        let are_known = |scopes: &str, kind| are_known(&scopes.into(), kind, &"new:read".into());
        assert!(are_known("chat:write,app_mentions:read", TokenKind::Bot));
        assert!(!are_known("chat:write,app_mentions:read", TokenKind::User));
        assert!(are_known("search:read,new:read", TokenKind::User));
        assert!(!are_known("search:read", TokenKind::Bot));
        assert!(!are_known("chat:wrtie", TokenKind::Bot));
        assert!(are_known("", TokenKind::Bot));
    }
}
