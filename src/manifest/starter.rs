//! Writes a starter manifest.

use std::fmt::Write as _;

use super::expected::Expected;
use super::{events, urls};
use crate::wording::{printable_json, printable_yaml};

/// A manifest for an app that has none yet. [`check`](super::check) finds nothing in it, if the
/// redirect URLs are on https, and the scopes are not known or at least one is requested.
///
/// It turns token rotation on, and subscribes to the events that the crate handles. It has
/// placeholders: for a redirect URL and a scope if the app requests none, and for a slash command
/// if the app requests the scope `commands` and none is named.
#[derive(Clone, Debug)]
pub struct Starter {
    expected: Expected,
    name: String,
    commands: Vec<String>,
    commands_path: String,
    events_path: String,
}

impl Starter {
    /// Creates a starter from the app's name and its own configuration.
    #[must_use]
    pub fn new(name: impl Into<String>, expected: &Expected) -> Self {
        Self {
            expected: expected.clone(),
            name: name.into(),
            commands: Vec::new(),
            commands_path: "/slack/command".into(),
            events_path: "/slack/events".into(),
        }
    }

    /// Adds a slash command, such as `/standup`.
    #[must_use]
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    /// Sets the path of the app's route for slash commands: `/slack/command` by default.
    #[must_use]
    pub fn with_commands_path(mut self, path: impl Into<String>) -> Self {
        self.commands_path = path.into();
        self
    }

    /// Sets the path of the app's route for events: `/slack/events` by default.
    #[must_use]
    pub fn with_events_path(mut self, path: impl Into<String>) -> Self {
        self.events_path = path.into();
        self
    }

    /// Writes the manifest as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut text = String::from(
            "# A starter for the app's page App Manifest at https://api.slack.com/apps.\n\
             # Token rotation cannot be turned off again.\n",
        );
        write_yaml(&mut text, &self.manifest(), 0);
        printable_yaml(&text)
    }

    /// Writes the manifest as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        write_json(&mut text, &self.manifest(), 0);
        let lines = text.lines().map(|line| printable_json(line) + "\n");
        lines.collect()
    }

    fn manifest(&self) -> Part {
        let expected = &self.expected;
        let redirects: Vec<_> = expected
            .redirect_urls
            .iter()
            .map(|it| it.as_str())
            .collect();
        let redirects = if redirects.is_empty() {
            vec![PLACEHOLDER]
        } else {
            redirects
        };
        let (bot, user) = (&expected.scopes, &expected.user_scopes);
        let mut bot: Vec<_> = bot.iter().flat_map(|scopes| scopes.iter()).collect();
        let user: Vec<_> = user.iter().flat_map(|scopes| scopes.iter()).collect();
        if bot.is_empty() && user.is_empty() {
            bot.push(self.placeholder_scope());
        }
        let origin = url::Url::parse(redirects[0]).map(|url| url.origin().ascii_serialization());
        let origin = origin.unwrap_or_default();

        let mut features = Vec::new();
        if !bot.is_empty() {
            let name = ("display_name", Part::text(&self.name));
            let online = ("always_online", Part::Flag(false));
            features.push(("bot_user", Part::Map(vec![name, online])));
        }
        let commands = self.commands(bot.iter().chain(&user).any(|it| *it == "commands"));
        if !commands.is_empty() {
            let url = format!("{origin}{}", self.commands_path);
            let command = |name: &String| {
                Part::Map(vec![
                    ("command", Part::text(name)),
                    ("url", Part::text(&url)),
                    ("description", Part::text("What the command does")),
                ])
            };
            let commands = commands.iter().map(command).collect();
            features.push(("slash_commands", Part::List(commands)));
        }
        let mut scopes = Vec::new();
        for (key, list) in [("bot", bot), ("user", user)] {
            if !list.is_empty() {
                scopes.push((key, Part::texts(list)));
            }
        }
        let mut oauth = vec![
            ("redirect_urls", Part::texts(redirects.iter().copied())),
            ("scopes", Part::Map(scopes)),
        ];
        if expected.is_pkce_app == Some(true) {
            oauth.push(("pkce_enabled", Part::Flag(true)));
        }
        let name = ("name", Part::text(&self.name));
        let mut manifest = vec![("display_information", Part::Map(vec![name]))];
        if !features.is_empty() {
            manifest.push(("features", Part::Map(features)));
        }
        manifest.push(("oauth_config", Part::Map(oauth)));
        let is_desktop =
            expected.is_pkce_app == Some(true) && redirects.iter().all(|url| urls::is_desktop(url));
        manifest.push(("settings", self.settings(&origin, is_desktop)));
        Part::Map(manifest)
    }

    /// Returns the scope of an app that requests none: an app without scopes cannot be installed.
    fn placeholder_scope(&self) -> &'static str {
        if self.commands.is_empty() {
            "chat:write"
        } else {
            "commands"
        }
    }

    /// Returns the slash commands, or a placeholder.
    fn commands(&self, has_scope: bool) -> Vec<String> {
        if self.commands.is_empty() && has_scope {
            vec!["/rename-me".into()]
        } else {
            self.commands.clone()
        }
    }

    fn settings(&self, origin: &str, is_desktop: bool) -> Part {
        let is_org_wide = self.expected.is_org_wide == Some(true);
        let of_orgs = events::OF_AN_ORGANISATION.into_iter();
        let of_orgs = of_orgs.filter(|_| is_org_wide);
        let names = events::OF_EVERY_APP.into_iter().chain(of_orgs);
        let url = format!("{origin}{}", self.events_path);
        let mut settings = Vec::new();
        if !is_desktop {
            let subscriptions = vec![
                ("request_url", Part::text(&url)),
                ("bot_events", Part::texts(names)),
            ];
            settings.push(("event_subscriptions", Part::Map(subscriptions)));
        }
        settings.extend([
            ("org_deploy_enabled", Part::Flag(is_org_wide)),
            ("socket_mode_enabled", Part::Flag(false)),
            ("token_rotation_enabled", Part::Flag(true)),
        ]);
        Part::Map(settings)
    }
}

/// A part of the manifest that is written. Keys keep their order.
enum Part {
    Flag(bool),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
    Text(String),
}

impl Part {
    fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }
}

/// Writes a part as block YAML. A text is written as in JSON, which is also YAML.
fn write_yaml(text: &mut String, part: &Part, depth: usize) {
    match part {
        Part::Map(entries) => {
            for (key, value) in entries {
                let _ = write!(text, "{:indent$}{key}:", "", indent = depth * 2);
                write_value(text, value, depth + 1);
            }
        }
        Part::List(items) => {
            for item in items {
                let _ = write!(text, "{:indent$}-", "", indent = depth * 2);
                if let Part::Map(_) = item {
                    // The first key continues the line of the dash.
                    let mut block = String::new();
                    write_yaml(&mut block, item, depth + 1);
                    let _ = writeln!(text, " {}", block.trim());
                } else {
                    write_value(text, item, depth + 1);
                }
            }
        }
        scalar => write_scalar(text, scalar),
    }
}

fn write_value(text: &mut String, value: &Part, depth: usize) {
    match value {
        Part::Flag(_) | Part::Text(_) => {
            text.push(' ');
            write_scalar(text, value);
            text.push('\n');
        }
        Part::Map(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Part::List(items) if items.is_empty() => text.push_str(" []\n"),
        block => {
            text.push('\n');
            write_yaml(text, block, depth);
        }
    }
}

fn write_scalar(text: &mut String, part: &Part) {
    match part {
        Part::Flag(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Part::Text(value) => text.push_str(&serde_json::Value::from(value.as_str()).to_string()),
        Part::List(_) | Part::Map(_) => {}
    }
}

fn write_json(text: &mut String, part: &Part, depth: usize) {
    let indent = "  ".repeat(depth + 1);
    let (open, close, values): (_, _, Vec<(String, &Part)>) = match part {
        Part::Map(entries) => {
            let values = entries.iter();
            let values = values.map(|(key, value)| (format!("\"{key}\": "), value));
            ('{', '}', values.collect())
        }
        Part::List(items) => (
            '[',
            ']',
            items.iter().map(|it| (String::new(), it)).collect(),
        ),
        scalar => return write_scalar(text, scalar),
    };
    text.push(open);
    for (at, (key, value)) in values.iter().enumerate() {
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        text.push_str(&indent);
        text.push_str(key);
        write_json(text, value, depth + 1);
    }
    if !values.is_empty() {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    }
    text.push(close);
}

const PLACEHOLDER: &str = "https://your-app.example.com/slack/oauth_redirect";
