//! Where a flow begins, where it ends, and for which workspace it is meant.

use http::header::HOST;
use http::{HeaderMap, Method, StatusCode, Uri};
use slack_installs::oauth::Callback;
use slack_installs::testing::Who;
use slack_installs::{InstallOptions, RedirectUri};
use url::Url;

use super::options;
use super::support::app::{
    ADA, ALPHA, App, BRAVO, Browser, OLGA, ORG, OTHER_REDIRECT, REDIRECT, installed, location,
    parameter,
};
use crate::support::log::Log;

/// Has the path of [`REDIRECT`] at another host.
const SAME_PATH: &str = "https://eu.example.com/slack/oauth_redirect";
/// Has the host of [`REDIRECT`], but another path.
const SAME_HOST: &str = "https://bot.example.com/slack/second/oauth_redirect";

async fn at(redirects: &[&str]) -> App {
    App::configured(|config| {
        let uri = |uri: &&str| RedirectUri::new(uri).expect("a redirect URL");
        config.redirect_uris.extend(redirects.iter().map(uri));
    })
    .await
}

fn to(redirect: &str) -> InstallOptions {
    InstallOptions {
        redirect_uri: Some(RedirectUri::new(redirect).expect("a redirect URL")),
        ..options()
    }
}

/// Returns the same callback at another URL.
fn moved(callback: &Url, to: &str) -> Url {
    let mut url = Url::parse(to).expect("a URL");
    url.set_query(callback.query());
    url
}

#[tokio::test]
async fn a_flow_begun_at_one_redirect_url_does_not_end_at_another() {
    let app = at(&[SAME_PATH, SAME_HOST]).await;
    for begun in [REDIRECT, SAME_PATH, SAME_HOST] {
        let browser = Browser::default();
        let callback = app.allowed(&browser, to(begun), ADA).await;
        for other in [REDIRECT, SAME_PATH, SAME_HOST] {
            if other == begun {
                continue;
            }
            let there = moved(&callback, other);
            let exchanges = app.exchanges();
            let page = browser.request(&app.provider, &Method::GET, &there).await;
            assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{begun} at {other}");
            assert!(page.body().contains("not from this app"), "{}", page.body());
            assert_eq!(app.exchanges(), exchanges, "{begun} at {other}");
        }
        assert!(installed(&browser.open(&app.provider, &callback).await));
    }
}

#[tokio::test]
async fn a_path_or_host_that_is_not_known_says_nothing_and_what_is_known_still_counts() {
    // A router that strips a prefix, and a proxy that puts its own name into the header.
    let app = at(&[SAME_PATH, SAME_HOST]).await;
    for (by, ends) in [
        ("https://bot.example.com/oauth_redirect", true),
        ("https://10.0.0.1:8080/slack/oauth_redirect", true),
        ("https://10.0.0.1:8080/oauth_redirect", true),
        ("https://bot.example.com:444/slack/oauth_redirect", true),
        ("https://eu.example.com/oauth_redirect", false),
        ("https://10.0.0.1:8080/slack/second/oauth_redirect", false),
    ] {
        let browser = Browser::default();
        let callback = app.allowed(&browser, to(REDIRECT), ADA).await;
        let page = browser.open(&app.provider, &moved(&callback, by)).await;
        assert_eq!(installed(&page), ends, "{by}: {}", page.body());
    }
}

#[tokio::test]
async fn a_callback_of_which_neither_path_nor_host_is_known_ends_its_flow() {
    let app = at(&[SAME_PATH, SAME_HOST]).await;
    for begun in [REDIRECT, SAME_PATH, SAME_HOST] {
        let browser = Browser::default();
        let url = app.allowed(&browser, to(begun), ADA).await;
        let (state, code) = (parameter(&url, "state"), parameter(&url, "code"));
        let cookies = browser.cookies().join("; ");
        let mut callback = Callback::default();
        callback.state = Some(&state);
        callback.code = Some(&code);
        callback.cookies = &cookies;
        app.provider.finish(&callback).await.expect("it ends");
    }
}

#[tokio::test]
async fn the_host_header_goes_before_the_requests_target_and_a_port_is_part_of_it() {
    let app = at(&[
        OTHER_REDIRECT,
        "https://bot.example.com:8443/slack/oauth_redirect",
    ])
    .await;
    for (uri, host, redirect) in [
        (
            "https://proxy/slack/install",
            Some("eu.example.com"),
            OTHER_REDIRECT,
        ),
        (
            "https://eu.example.com/slack/install",
            Some("bot.example.com"),
            REDIRECT,
        ),
        ("https://eu.example.com/slack/install", None, OTHER_REDIRECT),
        ("/slack/install", Some("bot.example.com"), REDIRECT),
        (
            "/slack/install",
            Some("bot.example.com:8443"),
            "https://bot.example.com:8443/slack/oauth_redirect",
        ),
        ("/slack/install", None, REDIRECT),
        ("/slack/install", Some("\u{fc}.example.com"), REDIRECT),
    ] {
        let uri: Uri = uri.parse().expect("a URI");
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            let host = http::HeaderValue::from_bytes(host.as_bytes());
            headers.insert(HOST, host.expect("a header"));
        }
        let response = app.provider.install_response(&uri, &headers).await;
        let to = parameter(&location(&response), "redirect_uri");
        assert_eq!(to, redirect, "{uri} {host:?}");
    }
}

/// Returns Slack's page to which this install link leads, and the browser that was redirected
/// there.
async fn followed(app: &App, query: &str) -> (Browser, Url) {
    let uri: Uri = format!("/slack/install{query}").parse().expect("a path");
    let browser = Browser::default();
    let response = app.provider.install_response(&uri, &HeaderMap::new()).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    browser.keep_cookies(&response);
    (browser, location(&response))
}

fn hint(authorize: &Url) -> Option<String> {
    let mut pairs = authorize.query_pairs();
    let found = pairs.find(|(name, _)| name == "team");
    found.map(|(_, team)| team.into_owned())
}

#[tokio::test]
async fn a_link_that_names_a_workspace_installs_there_and_nowhere_else() {
    let app = App::new().await;
    for (query, who, ends) in [
        ("?team=T0ALPHA0001", Who::user(ADA), true),
        ("?x=1&team=T0ALPHA0001&y=2", Who::user(ADA), true),
        ("?team=T0ALPHA0001&team=T0BRAVO0002", Who::user(ADA), true),
        ("?team=T0BRAVO0002&team=T0ALPHA0001", Who::user(ADA), false),
        ("?team=T0BRAVO0002", Who::user(ADA), false),
        ("?team=T0ALPHA0001", Who::user("U0BRAVO0001"), false),
        ("?team=T0ALPHA0001", Who::user(OLGA).at(ORG), false),
    ] {
        let (browser, authorize) = followed(&app, query).await;
        let named = query.split("team=").nth(1).expect("a team");
        assert_eq!(hint(&authorize).as_deref(), named.get(..11), "{query}");
        let callback = app.fake.allow(&authorize, who.clone()).expect("allowed");
        let page = browser.open(&app.provider, &callback).await;
        assert_eq!(installed(&page), ends, "{query} {who:?}: {}", page.body());
        if !ends {
            assert!(page.body().contains("another workspace"), "{}", page.body());
        }
    }
    assert!(app.fetch(ALPHA, None).await.is_some());
    assert!(app.fetch(BRAVO, None).await.is_none());
    assert!(app.fetch(ORG, None).await.is_none());
}

#[tokio::test]
async fn a_link_that_names_no_workspace_installs_anywhere() {
    let app = App::new().await;
    for query in [
        "",
        "?",
        "?team=",
        "?team=nonsense",
        "?team=%3Cscript%3E",
        "?Team=T0BRAVO0002",
        "?state=T0BRAVO0002",
    ] {
        let (browser, authorize) = followed(&app, query).await;
        assert_eq!(hint(&authorize), None, "{query}");
        let callback = app.fake.allow(&authorize, ADA).expect("allowed");
        let page = browser.open(&app.provider, &callback).await;
        assert!(installed(&page), "{query}: {}", page.body());
    }
}

/// Returns the log of flows that begin at these hosts, one after another.
async fn log_of(app: &App, hosts: &[&str]) -> String {
    let (log, logging) = Log::of_this_thread();
    for host in hosts {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header"));
        let uri = Uri::from_static("/slack/install");
        let response = app.provider.install_response(&uri, &headers).await;
        assert_eq!(response.status(), StatusCode::FOUND, "{host}");
    }
    drop(logging);
    log.text()
}

async fn at_only(redirect: &str) -> App {
    App::configured(|config| {
        config.redirect_uris = vec![RedirectUri::new(redirect).expect("a redirect URL")];
    })
    .await
}

#[tokio::test]
async fn a_flow_begun_at_another_name_of_this_machine_is_warned_of_once() {
    for (redirect, host) in [
        ("http://localhost:3000/cb", "127.0.0.1:3000"),
        ("http://127.0.0.1:3000/cb", "localhost:3000"),
        ("http://localhost:3000/cb", "[::1]:3000"),
        ("https://localhost:3000/cb", "127.0.0.1"),
    ] {
        let app = at_only(redirect).await;
        let log = log_of(&app, &[host, host]).await;
        assert_eq!(log.matches("WARN").count(), 1, "{redirect} {host}: {log}");
        for words in [
            host,
            redirect,
            "will not receive the flow's cookie",
            "open the install path at",
        ] {
            assert!(log.contains(words), "{words}: {log}");
        }
        // The next process warns again.
        let app = at_only(redirect).await;
        let log = log_of(&app, &[host]).await;
        assert_eq!(log.matches("WARN").count(), 1, "{redirect} {host}: {log}");
    }
}

#[tokio::test]
async fn a_flow_whose_cookie_comes_back_is_not_warned_of() {
    for (redirect, host) in [
        ("http://localhost:3000/cb", "localhost:3000"),
        // Cookies ignore ports.
        ("http://localhost:3000/cb", "localhost:8080"),
        // The proxy changes the header.
        ("https://bot.example.com/cb", "127.0.0.1:3000"),
        ("http://localhost:3000/cb", "bot.example.com"),
        ("http://localhost:3000/cb", "not a host"),
    ] {
        let app = at_only(redirect).await;
        let log = log_of(&app, &[host]).await;
        assert_eq!(log.matches("WARN").count(), 0, "{redirect} {host}: {log}");
    }
}
