//! Checks a Slack app manifest, and writes a starter.
//!
//! [`check`] reports what Slack, or a reviewer of its Marketplace, would refuse. It also reports
//! where the manifest differs from the app's own configuration. Each [`Finding`] has the line, the
//! reason and a remedy. [`Starter`] writes a manifest for an app that has none.
//!
//! ```
//! use slack_installs::RedirectUri;
//! use slack_installs::manifest::{Expected, Starter, check};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let expected = Expected {
//!     redirect_urls: vec![RedirectUri::new("https://bot.example.com/slack/oauth_redirect")?],
//!     scopes: Some("commands,chat:write".into()),
//!     ..Expected::default()
//! };
//! let starter = Starter::new("Standup", &expected).to_yaml();
//! assert!(check(&starter, &expected).is_empty());
//!
//! let changed = starter.replace("token_rotation_enabled: true", "token_rotation_enabled: false");
//! let findings = check(&changed, &expected);
//! assert_eq!(findings[0].path, "settings.token_rotation_enabled");
//! # Ok(())
//! # }
//! ```
//!
//! The rules come from Slack's reference of manifests
//! (<https://docs.slack.dev/reference/app-manifest>), its guidelines for the Marketplace
//! (<https://docs.slack.dev/slack-marketplace/slack-marketplace-app-guidelines-and-requirements>)
//! and its pages about OAuth, token rotation, PKCE and organisations. A key that is not in these
//! rules is ignored. No manifest was ever sent to Slack.

mod directory;
mod events;
mod expected;
mod finding;
mod place;
mod redirects;
mod report;
mod requests;
mod scopes;
mod settings;
mod starter;
mod tree;
mod urls;

pub use expected::{Distribution, Expected};
pub use finding::{Finding, Grade};
pub use starter::Starter;

use place::Place;
use report::Report;

/// Checks a manifest in YAML or JSON. Returns the findings, sorted by line.
///
/// A text that begins with `{` is JSON. If the text cannot be read, the only finding says why.
/// Texts of more than 1 MiB are refused, and so are YAML aliases. Returns at most 1,000 findings.
#[must_use]
pub fn check(text: &str, expected: &Expected) -> Vec<Finding> {
    let (root, repeated) = match tree::parse(text) {
        Ok(read) => read,
        Err(finding) => return vec![finding],
    };
    let mut report = Report::new(repeated);
    let root = Place::root(&root);
    let app = App::of(&root, expected);
    settings::check(&root, &app, &mut report);
    redirects::check(&root, &app, &mut report);
    scopes::check(&root, &app, &mut report);
    events::check(&root, &app, &mut report);
    requests::check(&root, &app, &mut report);
    directory::check(&root, &app, &mut report);
    report.findings()
}

/// What several rules need to know.
struct App<'a> {
    expected: &'a Expected,
    /// The rules of the Marketplace apply.
    is_reviewed: bool,
    has_mcp: bool,
    has_pkce: bool,
    has_socket_mode: bool,
    is_org_wide: bool,
    /// A public client on people's own machines: PKCE, and no redirect URL on a server.
    is_desktop: bool,
}

impl<'a> App<'a> {
    fn of(root: &Place<'_>, expected: &'a Expected) -> Self {
        let settings = root.key("settings");
        let oauth = root.key("oauth_config");
        let has_pkce = oauth.key("pkce_enabled").is_true();
        let redirects = oauth.key("redirect_urls").items();
        let is_desktop = |place: &Place<'_>| place.text().is_some_and(urls::is_desktop);
        Self {
            expected,
            is_reviewed: expected.distribution == Distribution::Marketplace,
            has_mcp: settings.key("is_mcp_enabled").is_true(),
            has_pkce,
            has_socket_mode: settings.key("socket_mode_enabled").is_true(),
            is_org_wide: settings.key("org_deploy_enabled").is_true(),
            is_desktop: has_pkce && !redirects.is_empty() && redirects.iter().all(is_desktop),
        }
    }
}
