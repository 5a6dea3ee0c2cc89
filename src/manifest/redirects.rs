//! The rules for redirect URLs (<https://docs.slack.dev/authentication/installing-with-oauth>).

use std::collections::BTreeSet;

use url::Url;

use super::App;
use super::finding::shown;
use super::place::Place;
use super::report::Report;
use super::urls::{is_covered, is_desktop};
use crate::slack::is_loopback;

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let place = root.key("oauth_config").key("redirect_urls");
    let items = place.items();
    if items.is_empty() {
        report.error(
            &place,
            "no redirect URL is listed, so Slack refuses the install flow",
            match app.expected.redirect_urls.first() {
                Some(url) => format!("Add {}", shown(url.as_str())),
                None => "Add the URL of the app's callback".into(),
            },
        );
        return;
    }
    let mut seen = BTreeSet::new();
    for item in &items {
        let Some(text) = item.text() else {
            continue;
        };
        check_one(item, text, app, report);
        if !seen.insert(text) {
            report.warning(
                item,
                format!("{} is listed twice", shown(text)),
                "Remove one of them",
            );
        }
    }
    compare(&place, &items, app, report);
}

fn check_one(place: &Place<'_>, text: &str, app: &App<'_>, report: &mut Report) {
    let Ok(url) = Url::parse(text) else {
        report.error(
            place,
            format!("{} is not a URL", shown(text)),
            "Write the full URL of the app's callback",
        );
        return;
    };
    if text.trim() != text || text.contains(char::is_control) {
        report.error(
            place,
            format!(
                "{} has a space or a line break, which Slack takes for a part of it",
                shown(text)
            ),
            "Remove it",
        );
    } else if text.contains('*') {
        report.error(
            place,
            format!(
                "{} has a `*`. Slack accepts a URL that is listed, and its sub-paths, and knows no \
                 placeholder",
                shown(text)
            ),
            "List each URL",
        );
    } else if !url.username().is_empty() || url.password().is_some() {
        report.error(
            place,
            "the URL has a user name or a password",
            "Remove it: everybody who installs the app sees this URL",
        );
    } else if text.contains('#') {
        report.error(
            place,
            format!("{} has a fragment, which Slack refuses", shown(text)),
            "Remove the part that begins with `#`",
        );
    } else if is_desktop(text) && !app.has_pkce {
        report.error(
            place,
            format!(
                "{} is not https. Slack accepts such a URL only from an app with PKCE",
                shown(text)
            ),
            "Use https; for development, use a second app",
        );
    } else if url.scheme() == "http" && !is_loopback(&url) {
        report.error(
            place,
            format!("{} is not https, which Slack requires", shown(text)),
            "Use https",
        );
    } else if url.scheme() == "https" && is_loopback(&url) {
        report.warning(
            place,
            format!("{} leads to the person's own machine", shown(text)),
            "Use the app's public host; for development, use a second app",
        );
    } else if url.query().is_some() {
        report.warning(
            place,
            format!(
                "{} has a query. Slack adds `code` and `state` to it, and documents no other query",
                shown(text)
            ),
            "Remove the query, and pass data of your app as the flow's metadata",
        );
    }
}

/// Compares with the app's own URLs. A URL that differs takes the place of one that is missing, so
/// that a wrong URL is one finding.
fn compare(place: &Place<'_>, items: &[Place<'_>], app: &App<'_>, report: &mut Report) {
    let own = &app.expected.redirect_urls;
    if own.is_empty() {
        return;
    }
    let covers = |item: &Place<'_>, url: &str| {
        item.text()
            .is_some_and(|configured| is_covered(url, configured))
    };
    let missing = own.iter().map(|url| url.as_str());
    let missing = missing.filter(|url| !items.iter().any(|item| covers(item, url)));
    let mut missing: Vec<_> = missing.collect();
    missing.reverse();
    for item in items {
        let is_used = own.iter().any(|url| covers(item, url.as_str()));
        let Some(text) = item.text().filter(|_| !is_used) else {
            continue;
        };
        match missing.pop() {
            Some(url) => report.error(
                item,
                format!(
                    "{} is not a redirect URL of the app, which sends people back to {}: Slack \
                     refuses that with `bad_redirect_uri`",
                    shown(text),
                    shown(url)
                ),
                "Write the same URL in both places",
            ),
            None => report.warning(
                item,
                format!("{} is not a redirect URL of the app", shown(text)),
                "Remove it, or add it to the app's configuration",
            ),
        }
    }
    missing.reverse();
    if let [url, ..] = missing[..] {
        report.error(
            place,
            format!(
                "the app's redirect URL {} is not listed: Slack refuses it with `bad_redirect_uri`",
                shown(url)
            ),
            "Add it",
        );
    }
}
