//! The client secret is replaced while flows are under way.

use slack_installs::secret::ClientSecret;
use slack_installs::slack::ClientCredentials;
use slack_installs::{InstallConfig, InstallProvider, RedirectUri, Scopes};

use super::options;
use super::support::app::{ADA, App, Browser, REDIRECT, installed, location};
use crate::support::app::credentials;

/// Returns a process of this app that has this secret and this old one.
fn process(app: &App, new: &ClientCredentials, old: Option<&ClientCredentials>) -> InstallProvider {
    let config = InstallConfig::new(
        new.clone(),
        RedirectUri::new(REDIRECT).expect("a redirect URL"),
        Scopes::from("commands"),
    );
    let slack = match old {
        Some(old) => app.slack.clone().with_old_credentials(old.clone()),
        None => app.slack.clone(),
    };
    InstallProvider::new(config, slack, app.store.clone(), app.store.clone())
        .expect("the configuration is valid")
        .with_clock(app.fake.clock())
}

fn with_secret(app: &App, secret: &str) -> ClientCredentials {
    ClientCredentials {
        client_secret: ClientSecret::new(secret).expect("a secret"),
        ..credentials(&app.fake)
    }
}

/// Runs a flow that starts in one process and ends in another.
async fn ends(app: &App, started: &InstallProvider, ended: &InstallProvider) -> bool {
    let browser = Browser::default();
    let begun = started.start_response(options()).await;
    browser.keep_cookies(&begun);
    let callback = app.fake.allow(&location(&begun), ADA).expect("allowed");
    installed(&browser.open(ended, &callback).await)
}

#[tokio::test]
async fn processes_with_the_old_secret_and_with_both_end_each_others_flows() {
    let app = App::new().await;
    // Slack still accepts only the old secret, so the new one is refused at the exchange.
    let (old, new) = (credentials(&app.fake), with_secret(&app, "new"));
    let before = process(&app, &old, None);
    let during = process(&app, &new, Some(&old));
    for (started, ended) in [(&before, &during), (&during, &before), (&during, &during)] {
        assert!(ends(&app, started, ended).await);
    }
}

#[tokio::test]
async fn processes_with_both_secrets_and_with_the_new_one_end_each_others_flows() {
    let app = App::new().await;
    let (old, new) = (with_secret(&app, "old"), credentials(&app.fake));
    let during = process(&app, &new, Some(&old));
    let after = process(&app, &new, None);
    for (started, ended) in [(&during, &after), (&after, &during), (&during, &during)] {
        assert!(ends(&app, started, ended).await);
    }
    // Without an overlap, a flow of the old secret is not this app's.
    let before = process(&app, &old, None);
    assert!(!ends(&app, &before, &after).await);
    assert!(ends(&app, &before, &during).await);
}
