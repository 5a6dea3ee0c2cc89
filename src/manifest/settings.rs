//! The rules for the form of the manifest, and for the settings of the app.

use std::net::Ipv4Addr;

use super::App;
use super::finding::shown;
use super::place::Place;
use super::report::Report;
use crate::wording::counted;

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    check_form(root, report);
    check_lengths(root, report);
    check_addresses(root, report);
    let settings = root.key("settings");
    check_modes(&settings, app, report);
    check_org(&settings, app, report);
    check_pkce(root, app, report);
}

const BLOCKS: [&str; 12] = [
    "_metadata",
    "app_directory",
    "display_information",
    "features",
    "oauth_config",
    "oauth_config.scopes",
    "settings",
    "settings.event_subscriptions",
    "settings.incoming_webhooks",
    "settings.interactivity",
    "settings.siws_links",
    "compliance",
];

const LISTS: [(&str, usize); 10] = [
    ("app_directory.app_directory_categories", 3),
    ("app_directory.supported_languages", usize::MAX),
    ("oauth_config.redirect_urls", 1000),
    ("oauth_config.scopes.bot", 255),
    ("oauth_config.scopes.bot_optional", 255),
    ("oauth_config.scopes.user", 255),
    ("oauth_config.scopes.user_optional", 255),
    ("settings.allowed_ip_address_ranges", 10),
    ("settings.event_subscriptions.bot_events", 100),
    ("settings.event_subscriptions.user_events", 100),
];

const FLAGS: [&str; 10] = [
    "app_directory.use_direct_install",
    "oauth_config.pkce_enabled",
    "oauth_config.token_management_enabled",
    "settings.incoming_webhooks.incoming_webhooks_enabled",
    "settings.interactivity.is_enabled",
    "settings.is_hosted",
    "settings.is_mcp_enabled",
    "settings.org_deploy_enabled",
    "settings.socket_mode_enabled",
    "settings.token_rotation_enabled",
];

/// The shortest and the longest text, in characters.
const LENGTHS: [(&str, usize, usize); 3] = [
    ("display_information.name", 1, 35),
    ("display_information.description", 0, 140),
    ("display_information.long_description", 174, 4000),
];

fn at<'a>(root: &Place<'a>, path: &str) -> Place<'a> {
    let keys = path.split('.');
    keys.fold(root.clone(), |place, key| place.key(key))
}

fn check_form(root: &Place<'_>, report: &mut Report) {
    for path in BLOCKS {
        let place = at(root, path);
        if place.is_set() && !place.is_map() {
            report.error(&place, "this must be a block of keys", "Write it as one");
        }
    }
    for (path, most) in LISTS {
        let place = at(root, path);
        if place.is_set() && !place.is_list() {
            report.error(&place, "this must be a list", "Write it as a list");
        }
        let items = place.items();
        if items.len() > most {
            report.error(
                &place,
                format!(
                    "the list has {}, and Slack allows {most}",
                    counted(items.len(), "item")
                ),
                "Remove some",
            );
        }
        for item in items.iter().filter(|item| item.filled().is_none()) {
            report.error(item, "this must be a text", "Write a text");
        }
    }
    for path in FLAGS {
        let place = at(root, path);
        if place.is_set() && place.flag().is_none() {
            report.error(
                &place,
                "this must be true or false",
                "Write true or false, without quotes",
            );
        }
    }
    let version = at(root, "_metadata.major_version");
    if version.is_set() && !matches!(version.text(), Some("1" | "2")) {
        report.error(&version, "Slack knows the versions 1 and 2", "Write 1 or 2");
    }
}

fn check_lengths(root: &Place<'_>, report: &mut Report) {
    let name = at(root, "display_information.name");
    if name.text().is_none() {
        report.error(
            &name,
            "the app has no name",
            "Add a name of at most 35 characters",
        );
    }
    for (path, least, most) in LENGTHS {
        let place = at(root, path);
        let Some(text) = place.text() else {
            continue;
        };
        let length = text.chars().count();
        if length > most {
            report.error(
                &place,
                format!(
                    "the text has {}, and Slack allows {most}",
                    counted(length, "character")
                ),
                "Shorten it",
            );
        } else if length < least {
            report.error(
                &place,
                format!(
                    "the text has {}, and Slack requires {least}",
                    counted(length, "character")
                ),
                "Write more",
            );
        }
    }
}

fn check_addresses(root: &Place<'_>, report: &mut Report) {
    for item in at(root, "settings.allowed_ip_address_ranges").items() {
        let Some(text) = item.filled() else {
            continue;
        };
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let is_range =
            address.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32);
        if !is_range {
            report.error(
                &item,
                format!("{} is not an IPv4 address or a range of them", shown(text)),
                "Write it as `203.0.113.7` or `203.0.113.0/24`",
            );
        }
    }
}

fn check_modes(settings: &Place<'_>, app: &App<'_>, report: &mut Report) {
    if app.has_socket_mode && app.is_reviewed {
        report.error(
            &settings.key("socket_mode_enabled"),
            "the Marketplace does not accept an app with Socket Mode",
            "Turn it off, and give Slack the URLs of the app's routes",
        );
    }
    let rotation = settings.key("token_rotation_enabled");
    // The tokens of a desktop app always rotate.
    if !rotation.is_true() && !app.is_desktop {
        report.warning(
            &rotation,
            "token rotation is off, so a token that leaks stays valid until it is revoked",
            "Set it to true. It cannot be turned off again",
        );
    }
}

fn check_org(settings: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let place = settings.key("org_deploy_enabled");
    let events = settings.key("event_subscriptions").key("bot_events");
    let is_for_orgs = |item: &Place<'_>| {
        let event = item.text();
        event.is_some_and(|event| event.starts_with("team_access_"))
    };
    match app.expected.is_org_wide {
        Some(true) if !app.is_org_wide => report.error(
            &place,
            "organisations are to install the app, and the manifest does not allow it",
            "Set it to true. Workspaces that have the app must install it again",
        ),
        Some(false) if app.is_org_wide => report.warning(
            &place,
            "organisations can install the app, and its configuration does not expect it",
            "Set it to false, or prepare the app for org-wide installations",
        ),
        None if !app.is_org_wide && events.items().iter().any(is_for_orgs) => report.warning(
            &place,
            "the app subscribes to events of org-wide installations, which it does not allow",
            "Set it to true, or remove the events `team_access_granted` and `team_access_revoked`",
        ),
        _ => {}
    }
}

fn check_pkce(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let place = root.key("oauth_config").key("pkce_enabled");
    match app.expected.is_pkce_app {
        Some(true) if !app.has_pkce => report.warning(
            &place,
            "the app expects PKCE, and the manifest does not enable it",
            "Set it to true, or do not call `pkce_app`",
        ),
        Some(false) if app.has_pkce => report.error(
            &place,
            "PKCE is enabled, and the app does not know it: the refresh tokens of idle customers \
             expire after 30 days",
            "Call `SlackAppBuilder::pkce_app`, or set it to false before PKCE is enabled at Slack",
        ),
        _ => {}
    }
}
