//! The rules for scopes.

use std::collections::BTreeSet;

use super::App;
use super::finding::{listed, shown};
use super::place::Place;
use super::report::Report;
use crate::installation::Scopes;

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let scopes = root.key("oauth_config").key("scopes");
    let (bot, user) = (scopes.key("bot"), scopes.key("user"));
    let (bot_items, user_items) = (bot.items(), user.items());
    if bot_items.is_empty() && user_items.is_empty() {
        report.error(
            &scopes,
            "no scope is listed, so an installation fails with `no_scopes`",
            "Add the scopes that the app requests",
        );
        return;
    }
    if app.is_desktop && !bot_items.is_empty() {
        report.error(
            &bot,
            "every redirect URL leads to a person's own machine, and Slack gives such a flow no \
             bot scopes",
            "Add a redirect URL on https, or remove the bot scopes",
        );
    }
    for (list, items, is_user) in [(&bot, &bot_items, false), (&user, &user_items, true)] {
        check_list(items, is_user, app, report);
        compare(list, items, is_user, app, report);
    }
    for (list, of) in [("bot_optional", &bot_items), ("user_optional", &user_items)] {
        check_optional(&scopes.key(list), of, report);
    }
    // What is not a list has its own finding.
    let is_unreadable = |list: &Place<'_>| list.is_set() && !list.is_list();
    if !is_unreadable(&bot) && !is_unreadable(&user) {
        check_use(root, &bot_items, &user_items, report);
    }
}

fn check_list(items: &[Place<'_>], is_user: bool, app: &App<'_>, report: &mut Report) {
    let sign_in = |scope: &str| matches!(scope, "openid" | "email" | "profile");
    let has_others = items.iter().filter_map(Place::text).any(|it| !sign_in(it));
    let mut seen = BTreeSet::new();
    for item in items {
        let Some(scope) = item.text() else {
            continue;
        };
        if scope.is_empty() || scope.contains([',', ' ', '\t', '\n']) {
            report.error(
                item,
                format!("{} is not one scope", shown(scope)),
                "Write one scope in each item",
            );
        } else if is_refused(scope, is_user) && app.is_reviewed && !is_for_mcp(scope, app) {
            report.error(
                item,
                format!(
                    "the review of the Marketplace refuses the scope {}",
                    shown(scope)
                ),
                "Remove it, and the feature that needs it",
            );
        } else if app.is_org_wide && matches!(scope, "bot" | "apps.requests.write") {
            report.error(
                item,
                format!(
                    "an organisation cannot install an app that requests {}: Slack refuses it \
                     with `scope_not_allowed_on_enterprise`",
                    shown(scope)
                ),
                "Remove the scope, or set `org_deploy_enabled` to false",
            );
        } else if sign_in(scope) && has_others {
            report.error(
                item,
                format!(
                    "{} belongs to Sign in with Slack, which Slack does not mix with other \
                     scopes (`invalid_scope`)",
                    shown(scope)
                ),
                "Remove it, or use an app of its own for the sign-in",
            );
        } else if !seen.insert(scope) {
            report.warning(
                item,
                format!("{} is listed twice", shown(scope)),
                "Remove one of them",
            );
        }
    }
}

/// Returns whether the Marketplace accepts no app with this scope.
/// <https://docs.slack.dev/slack-marketplace/slack-marketplace-app-guidelines-and-requirements>
fn is_refused(scope: &str, is_user: bool) -> bool {
    let begins = |start: &str| scope.starts_with(start);
    let refused = [
        "admin",
        "client",
        "post",
        "read",
        "search:read",
        "workflow.steps:execute",
    ];
    refused.contains(&scope)
        || begins("admin.")
        || begins("identity.")
        || begins("triggers:")
        || (is_user && scope.ends_with(":history"))
}

/// An app of Slack's MCP server may justify a user's history.
fn is_for_mcp(scope: &str, app: &App<'_>) -> bool {
    app.has_mcp && scope.ends_with(":history")
}

/// Compares with the scopes that the app requests. A scope that the app does not request takes the
/// place of one that is missing, so that a misspelt scope is one finding.
fn compare(
    list: &Place<'_>,
    items: &[Place<'_>],
    is_user: bool,
    app: &App<'_>,
    report: &mut Report,
) {
    let own = if is_user {
        &app.expected.user_scopes
    } else {
        &app.expected.scopes
    };
    let Some(own) = own else {
        return;
    };
    let whose = if is_user { "user scope" } else { "bot scope" };
    let listed_scopes: Scopes = items.iter().filter_map(Place::text).collect();
    let missing = listed_scopes.missing(own);
    let mut missing = missing.iter();
    for item in items {
        let Some(scope) = item.text().filter(|scope| !own.contains(scope)) else {
            continue;
        };
        match missing.next() {
            Some(other) => report.error(
                item,
                format!(
                    "the app requests the {whose} {} and not {}: Slack refuses that of an app in \
                     its Marketplace with `unapproved_scope`",
                    shown(other),
                    shown(scope)
                ),
                "Write the same scopes in both places",
            ),
            None => report.warning(
                item,
                format!("the app never requests the {whose} {}", shown(scope)),
                "Remove it: Slack reviews each scope. Or request it in the app's configuration",
            ),
        }
    }
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() {
        report.error(
            list,
            format!(
                "the app requests {}, which the manifest does not list as a {whose}: Slack \
                 refuses that of an app in its Marketplace with `unapproved_scope`",
                listed(missing)
            ),
            "Add it, or stop requesting it",
        );
    }
}

fn check_optional(list: &Place<'_>, of: &[Place<'_>], report: &mut Report) {
    let known: BTreeSet<_> = of.iter().filter_map(Place::text).collect();
    for item in list.items() {
        if let Some(scope) = item.text().filter(|scope| !known.contains(scope)) {
            report.error(
                &item,
                format!(
                    "the optional scope {} is not in the main list",
                    shown(scope)
                ),
                "Add it there too",
            );
        }
    }
}

/// Checks the scopes whose use is in the manifest itself.
fn check_use(root: &Place<'_>, bot: &[Place<'_>], user: &[Place<'_>], report: &mut Report) {
    let features = root.key("features");
    let commands = features.key("slash_commands");
    let has_shortcuts = !features.key("shortcuts").items().is_empty();
    let is_commands = |item: &&Place<'_>| item.text() == Some("commands");
    let scope = bot.iter().chain(user).find(is_commands);
    let has_commands = !commands.items().is_empty();
    match scope {
        Some(scope) if !has_commands && !has_shortcuts => report.warning(
            scope,
            "the scope `commands` has no use: the manifest has no slash command and no shortcut",
            "Remove the scope, or add the command",
        ),
        None if has_commands => report.error(
            &commands,
            "slash commands need the scope `commands`",
            "Add `commands` to the bot scopes",
        ),
        _ => {}
    }
    let has_team_read = |items: &[Place<'_>]| {
        let mut texts = items.iter().filter_map(Place::text);
        texts.any(|scope| scope == "team:read")
    };
    let events = root.key("settings").key("event_subscriptions");
    for (list, scopes) in [("bot_events", bot), ("user_events", user)] {
        for item in events.key(list).items() {
            let needs = item.text();
            let needs = needs.filter(|it| matches!(*it, "team_rename" | "team_domain_change"));
            if let Some(event) = needs.filter(|_| !has_team_read(scopes)) {
                report.error(
                    &item,
                    format!("the event {} needs the scope `team:read`", shown(event)),
                    "Add the scope, or remove the event",
                );
            }
        }
    }
}
