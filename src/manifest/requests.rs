//! The rules for the URLs that Slack calls.

use std::collections::BTreeSet;

use super::App;
use super::finding::shown;
use super::place::Place;
use super::report::Report;
use super::urls::check_public;

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let settings = root.key("settings");
    let events = settings.key("event_subscriptions");
    let lists = ["bot_events", "user_events"].map(|list| events.key(list).items());
    let has_events = lists.iter().any(|items| !items.is_empty());
    let url = events.key("request_url");
    require(&url, has_events, "events", app, report);

    let interactivity = settings.key("interactivity");
    let is_enabled = interactivity.key("is_enabled").is_true();
    let url = interactivity.key("request_url");
    require(&url, is_enabled, "interactions", app, report);
    check_public(&interactivity.key("message_menu_options_url"), report);

    let mut seen = BTreeSet::new();
    for command in root.key("features").key("slash_commands").items() {
        require(&command.key("url"), true, "the command", app, report);
        let name = command.key("command");
        check_command(&name, report);
        if let Some(text) = name.text().filter(|text| !seen.insert(*text)) {
            report.warning(
                &name,
                format!("the command {} is listed twice", shown(text)),
                "Remove one of them",
            );
        }
    }
}

/// Checks the name of a slash command
/// (<https://docs.slack.dev/reference/app-manifest#features>).
fn check_command(name: &Place<'_>, report: &mut Report) {
    let text = name.text().unwrap_or_default();
    let word = text.strip_prefix('/').unwrap_or_default();
    if word.is_empty() || word.contains(char::is_whitespace) {
        report.error(
            name,
            format!("{} is not a slash command", shown(text)),
            "Write a `/` and one word, such as `/standup`",
        );
    } else if text.chars().count() > LONGEST {
        report.error(
            name,
            format!("{} is longer than Slack allows", shown(text)),
            "Write at most 32 characters",
        );
    }
}

/// The longest name of a slash command, with its `/`.
const LONGEST: usize = 32;

/// Checks a URL, and that it is set if it is needed.
fn require(url: &Place<'_>, is_needed: bool, what: &str, app: &App<'_>, report: &mut Report) {
    let is_set = check_public(url, report);
    if !is_set && is_needed && !app.has_socket_mode {
        report.error(
            url,
            format!("there is no URL to which Slack could send {what}"),
            "Set it to the app's route, with https",
        );
    }
}
