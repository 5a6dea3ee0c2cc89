//! The check of app manifests: planted faults are found, and nothing else is.

mod forms;
mod good;
mod planted;
mod read;
mod starter;

use slack_installs::RedirectUri;
use slack_installs::manifest::{Expected, Finding};

/// The example of a manifest, in YAML. `planted.rs` changes one place of it.
const EXAMPLE: &str = include_str!("example.yaml");

/// The configuration of the app with that manifest.
fn expected() -> Expected {
    Expected {
        redirect_urls: vec![redirect_url("https://app.example.com/slack/oauth_redirect")],
        install_url: Some(
            "https://app.example.com/slack/install"
                .parse()
                .expect("a URL"),
        ),
        scopes: Some("app_mentions:read,chat:write,commands,team:read,users:read".into()),
        user_scopes: Some("chat:write".into()),
        is_pkce_app: Some(false),
        is_org_wide: Some(true),
        ..Expected::default()
    }
}

fn redirect_url(text: &str) -> RedirectUri {
    RedirectUri::new(text).expect("a redirect URL")
}

/// Returns the findings as text, for messages.
fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}
