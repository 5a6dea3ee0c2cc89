//! Configurations and redirect URLs that cannot work.

use std::time::Duration;

use slack_installs::oauth::ConfigError;
use slack_installs::{InstallConfig, InstallProvider, RedirectUri, Scopes};

use super::support::app::{App, REDIRECT};
use crate::support::app::credentials;

/// Returns the error of a provider with this configuration, if there is one.
async fn refused(configure: impl FnOnce(&mut InstallConfig)) -> Option<ConfigError> {
    let app = App::new().await;
    let mut config = InstallConfig::new(
        credentials(&app.fake),
        RedirectUri::new(REDIRECT).expect("a redirect URL"),
        Scopes::from("commands"),
    );
    configure(&mut config);
    InstallProvider::new(config, app.slack, app.store.clone(), app.store).err()
}

fn uri(text: &str) -> RedirectUri {
    RedirectUri::new(text).expect("a redirect URL")
}

#[tokio::test]
async fn a_configuration_that_cannot_work_makes_no_provider() {
    assert_eq!(refused(|_| {}).await, None);
    let nowhere = refused(|config| config.redirect_uris.clear()).await;
    assert_eq!(nowhere, Some(ConfigError::NoRedirectUri));
    for at in 0..2 {
        let begins = uri("https://eu.example.com/slack/install");
        let circle = refused(|config| config.redirect_uris.insert(at, begins)).await;
        assert_eq!(circle, Some(ConfigError::InstallPath), "{at}");
    }
    for (install, redirect) in [
        ("/install", "https://bot.example.com/install"),
        ("/", "https://bot.example.com"),
    ] {
        let circle = refused(|config| {
            config.install_path = install.into();
            config.redirect_uris.push(uri(redirect));
        });
        assert_eq!(circle.await, Some(ConfigError::InstallPath), "{install}");
    }
    let free = refused(|config| {
        config.install_path = "/install".into();
        let before = uri("https://bot.example.com/slack/install");
        config.redirect_uris.push(before);
    });
    assert_eq!(free.await, None);
    let below = uri("https://bot.example.com/slack/install/done");
    assert_eq!(
        refused(|config| config.redirect_uris.push(below)).await,
        None
    );

    let nothing = refused(|config| config.scopes = Scopes::default()).await;
    assert_eq!(nothing, Some(ConfigError::NoScopes));
    let user_only = refused(|config| {
        config.scopes = Scopes::default();
        config.user_scopes = Scopes::from("search:read");
    });
    assert_eq!(user_only.await, None);
}

#[tokio::test]
async fn a_redirect_url_on_plain_http_next_to_one_on_https_makes_no_provider() {
    let (https, http) = (REDIRECT, "http://localhost:3000/slack/oauth_redirect");
    let mixed = Some(ConfigError::MixedRedirectUris);
    for (uris, expected) in [
        (vec![https, http], mixed),
        (vec![http, https], mixed),
        (vec![https, "http://127.0.0.1:3000/cb"], mixed),
        (vec![https, "http://[::1]:3000/cb"], mixed),
        (vec![https, "http://app.localhost/cb"], mixed),
        (vec!["https://localhost/cb", http], mixed),
        (vec![https, "https://eu.example.com/cb", http], mixed),
        (vec![https, "https://localhost:3000/cb"], None),
        (vec![http, "http://127.0.0.1:3000/cb"], None),
    ] {
        let outcome = refused(|config| {
            config.redirect_uris = uris.iter().copied().map(uri).collect();
        });
        assert_eq!(outcome.await, expected, "{uris:?}");
    }
    let text = ConfigError::MixedRedirectUris.to_string();
    assert!(
        text.contains("start the app with only the URL on http"),
        "{text}"
    );
}

#[tokio::test]
async fn an_install_path_is_a_path_and_no_way_to_another_host() {
    for bad in [
        "",
        "slack/install",
        ".example.net/install",
        "//example.net/install",
        "/\\example.net/install",
        "/install?team=T0ALPHA0001",
        "/install#top",
        "/a/../install",
        "/in stall",
        "/{install}",
        "/inställ",
        "/install\n",
    ] {
        let error = refused(|config| config.install_path = bad.into()).await;
        assert_eq!(error, Some(ConfigError::InstallPathForm), "{bad}");
    }
    for good in ["/", "/install", "/:install", "/a//b", "/inst%C3%A4ll/"] {
        let error = refused(|config| config.install_path = good.into()).await;
        assert_eq!(error, None, "{good}");
    }
}

#[tokio::test]
async fn a_state_lives_for_a_moment_at_least_and_for_ten_minutes_at_most() {
    let lifetime = Some(ConfigError::StateLifetime);
    for (life, expected) in [
        (Duration::ZERO, lifetime),
        (Duration::from_nanos(1), None),
        (Duration::from_secs(600), None),
        (Duration::from_secs(600) + Duration::from_nanos(1), lifetime),
        (Duration::from_secs(6000), lifetime),
    ] {
        let outcome = refused(|config| config.state_lifetime = life).await;
        assert_eq!(outcome, expected, "{life:?}");
    }
}

#[test]
fn a_redirect_url_has_no_fragment_and_no_credentials_and_is_kept_as_it_was_written() {
    for bad in [
        "https://a.example/cb#",
        "https://a.example/cb#f",
        "https://user@a.example/cb",
        "https://:pw@a.example/cb",
        "https:///",
        "http://a.example/cb",
        "http://localhost.example/cb",
        "http://notlocalhost/cb",
        "http://10.0.0.1/cb",
        "http://[::2]/cb",
        "ftp://localhost/cb",
        "localhost:3000/cb",
        "javascript:alert(1)",
        "/slack/oauth_redirect",
        "",
    ] {
        assert!(RedirectUri::new(bad).is_err(), "{bad}");
    }
    for (good, path) in [
        ("https://a.example", "/"),
        ("https://A.example:443/cb", "/cb"),
        ("https://a.example/cb?x=1", "/cb"),
        ("http://localhost:3000/cb", "/cb"),
        ("http://app.localhost/cb", "/cb"),
        ("http://127.9.9.9:80/cb", "/cb"),
        ("http://[::1]:3000/cb", "/cb"),
    ] {
        let uri = RedirectUri::new(good).expect(good);
        assert_eq!((uri.as_str(), uri.path()), (good, path));
    }
}
