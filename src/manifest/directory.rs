//! The rules for the app's entry in the Marketplace.

use super::App;
use super::finding::shown;
use super::place::Place;
use super::report::Report;
use super::urls::check_public;

/// Slack requires these if the block exists (<https://docs.slack.dev/reference/app-manifest>).
const REQUIRED: [&str; 6] = [
    "installation_landing_page",
    "pricing",
    "privacy_policy_url",
    "support_email",
    "support_url",
    "supported_languages",
];

const URLS: [&str; 4] = [
    "direct_install_url",
    "installation_landing_page",
    "privacy_policy_url",
    "support_url",
];

pub(super) fn check(root: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let directory = root.key("app_directory");
    if !directory.is_map() {
        return;
    }
    for key in REQUIRED {
        let place = directory.key(key);
        if place.filled().is_none() && place.items().is_empty() {
            report.error(
                &place,
                "it is missing, and Slack requires it for an entry in the Marketplace",
                "Add it",
            );
        }
    }
    for key in URLS {
        check_public(&directory.key(key), report);
    }
    let email = directory.key("support_email");
    if let Some(text) = email.filled().filter(|text| !is_email(text)) {
        report.error(
            &email,
            format!("{} is not an e-mail address", shown(text)),
            "Write the address of the app's support",
        );
    }
    check_direct_install(&directory, app, report);
}

fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    let is_part = |part: &str| !part.is_empty() && !part.contains(['@', ' ', '/']);
    parts.is_some_and(|(name, host)| is_part(name) && is_part(host))
}

fn check_direct_install(directory: &Place<'_>, app: &App<'_>, report: &mut Report) {
    let place = directory.key("direct_install_url");
    let is_used = directory.key("use_direct_install").is_true();
    let own = app.expected.install_url.as_ref().map(url::Url::as_str);
    match place.filled() {
        None if is_used => report.error(
            &place,
            "the direct installation is on, and it has no URL",
            match own {
                Some(url) => format!("Set it to {}", shown(url)),
                None => "Set it to the app's install URL".into(),
            },
        ),
        Some(text) => {
            if let Some(own) = own.filter(|own| *own != text) {
                report.warning(
                    &place,
                    format!(
                        "{} is not the app's install URL, {}: Slack expects a redirect to its \
                         authorize page there",
                        shown(text),
                        shown(own)
                    ),
                    "Use the app's install URL",
                );
            }
        }
        None => {}
    }
}
