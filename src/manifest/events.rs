//! The rules for event subscriptions.

use std::collections::BTreeSet;

use super::App;
use super::finding::{listed, shown};
use super::place::Place;
use super::report::Report;

/// Without them, the app does not notice that a workspace has removed it.
pub(super) const OF_EVERY_APP: [&str; 2] = ["app_uninstalled", "tokens_revoked"];

/// Without them, the app does not notice that an organisation changed.
pub(super) const OF_AN_ORGANISATION: [&str; 3] = [
    "grid_migration_finished",
    "team_access_granted",
    "team_access_revoked",
];

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let events = root.key("settings").key("event_subscriptions");
    let bot = events.key("bot_events");
    let items = bot.items();
    for list in [&items, &events.key("user_events").items()] {
        let mut seen = BTreeSet::new();
        for item in list {
            if let Some(event) = item.text().filter(|event| !seen.insert(*event)) {
                report.warning(
                    item,
                    format!("{} is listed twice", shown(event)),
                    "Remove one of them",
                );
            }
        }
    }
    if app.is_desktop {
        // Such an app has no server that could receive an event.
        return;
    }
    let listed_events: BTreeSet<_> = items.iter().filter_map(Place::text).collect();
    let of_an_organisation = OF_AN_ORGANISATION.iter().filter(|_| app.is_org_wide);
    let needed = OF_EVERY_APP.iter().chain(of_an_organisation);
    let missing = needed.filter(|event| !listed_events.contains(**event));
    let missing: Vec<_> = missing.copied().collect();
    if !missing.is_empty() {
        report.error(
            &bot,
            format!(
                "the app does not subscribe to {}: it would keep tokens and data of customers who \
                 have left, which reviewers of the Marketplace refuse",
                listed(missing)
            ),
            "Add it to `bot_events`. It needs no scope",
        );
    }
}
