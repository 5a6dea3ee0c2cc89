//! The rules for URLs.

use url::{Host, Url};

use super::finding::shown;
use super::place::Place;
use super::report::Report;
use crate::slack::is_loopback;

/// Checks a URL that Slack calls, or that a reviewer opens. Returns whether it is one.
pub(super) fn check_public(place: &Place<'_>, report: &mut Report) -> bool {
    let Some(text) = place.filled() else {
        return false;
    };
    let url = match Url::parse(text) {
        Ok(url) if url.has_host() => url,
        _ => {
            report.error(
                place,
                format!("{} is not a URL", shown(text)),
                "Write a full URL, with https:// and the host",
            );
            return true;
        }
    };
    if url.scheme() != "https" {
        report.error(
            place,
            format!("{} is not https, which Slack requires", shown(text)),
            "Use https",
        );
    } else if is_loopback(&url) {
        report.error(
            place,
            format!("{} leads to the caller's own machine", shown(text)),
            "Use a host that Slack and its reviewers can reach",
        );
    } else if is_private(&url) {
        report.error(
            place,
            format!("{} leads to a private network", shown(text)),
            "Use a host that Slack and its reviewers can reach",
        );
    }
    true
}

/// Returns whether the host is an address that only its own network can reach.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => {
            address.is_private() || address.is_link_local() || address.is_unspecified()
        }
        Some(Host::Ipv6(address)) => {
            address.is_unique_local() || address.is_unicast_link_local() || address.is_unspecified()
        }
        _ => false,
    }
}

/// Returns whether a redirect URL leads to a program on the person's own machine. Slack accepts it
/// with PKCE only.
pub(super) fn is_desktop(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| match url.scheme() {
        "https" => false,
        "http" => is_loopback(&url),
        _ => true,
    })
}

/// Returns whether Slack accepts the first URL if the second one is configured: it is the same, or
/// its sub-path.
pub(super) fn is_covered(url: &str, configured: &str) -> bool {
    let rest = url.strip_prefix(configured);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || configured.ends_with('/'))
}
