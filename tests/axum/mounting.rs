//! Install routes at any path: in a nested router, behind a proxy, and the paths that fail at
//! startup.

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use http::StatusCode;
use slack_installs::web::{MountError, install_routes, install_routes_under};
use slack_installs::{InstallOptions, RedirectUri, SlackApp};
use tower_service::Service as _;
use url::Url;

use super::routes::request;
use super::send;
use super::support::app::{ADA, ALPHA, App, Browser, location};
use crate::support::app::credentials;

const REDIRECT: &str = "https://bot.example.com/bot/slack/oauth_redirect";

async fn app(install_path: &str, redirects: &[&str]) -> App {
    App::configured(|config| {
        config.install_path = install_path.into();
        let uri = |uri: &&str| RedirectUri::new(uri).expect("a redirect URL");
        config.redirect_uris = redirects.iter().map(uri).collect();
    })
    .await
}

/// Installs the app as a user through these routes. `seen` maps each URL of the browser to the one
/// that the router receives.
async fn flow(app: &App, router: &Router, install: &str, seen: impl Fn(&Url) -> Url) -> String {
    let browser = Browser::default();
    let install = Url::parse(install).expect("a URL");
    let asked = request(Method::GET, &seen(&install), &browser);
    let response = router.clone().call(asked.map(Body::from)).await;
    let response = response.expect("infallible").map(|_| String::new());
    assert_eq!(response.status(), StatusCode::FOUND, "{install}");
    browser.keep_cookies(&response);
    let callback = app.fake.allow(&location(&response), ADA).expect("allowed");
    let asked = request(Method::GET, &seen(&callback), &browser);
    let (status, page) = send(router, asked).await;
    assert_eq!(status, StatusCode::OK, "{callback}: {page}");
    assert!(app.fetch(ALPHA, None).await.is_some(), "{callback}");
    callback.into()
}

/// Returns the URL as a proxy forwards it that strips `/bot`.
fn stripped(url: &Url) -> Url {
    let mut seen = url.clone();
    seen.set_path(url.path().strip_prefix("/bot").expect("it is for the app"));
    seen
}

#[tokio::test]
async fn a_flow_ends_in_a_nested_router() {
    for prefix in ["/bot", "/bot/"] {
        let app = app("/bot/install", &[REDIRECT]).await;
        let routes = install_routes_under(&app.provider, prefix).expect("under the prefix");
        let router = Router::new().nest("/bot", routes);
        flow(
            &app,
            &router,
            "https://bot.example.com/bot/install",
            Url::clone,
        )
        .await;
    }
}

#[tokio::test]
async fn a_flow_ends_in_a_router_of_which_each_path_is_the_prefix_itself() {
    let app = app("/bot", &["https://bot.example.com/bot/done"]).await;
    let routes = install_routes_under(&app.provider, "/bot").expect("under the prefix");
    let router = Router::new().nest("/bot", routes);
    flow(&app, &router, "https://bot.example.com/bot", Url::clone).await;
}

#[tokio::test]
async fn a_flow_ends_behind_a_proxy_that_strips_a_prefix() {
    let app = app("/bot/install", &[REDIRECT]).await;
    let router: Router = install_routes_under(&app.provider, "/bot").expect("under it");
    flow(
        &app,
        &router,
        "https://bot.example.com/bot/install",
        stripped,
    )
    .await;
}

#[tokio::test]
async fn a_flow_ends_behind_a_proxy_that_strips_a_prefix_and_changes_the_host() {
    let app = app("/bot/install", &[REDIRECT]).await;
    let router: Router = install_routes_under(&app.provider, "/bot").expect("under it");
    let seen = |url: &Url| {
        let mut seen = stripped(url);
        seen.set_host(Some("10.0.0.1")).expect("a host");
        seen.set_port(Some(8080)).expect("a port");
        seen
    };
    flow(&app, &router, "https://bot.example.com/bot/install", seen).await;
}

#[tokio::test]
async fn a_flow_ends_behind_a_proxy_that_changes_the_host() {
    let app = app("/install", &["https://bot.example.com/done"]).await;
    let router: Router = install_routes(&app.provider);
    let seen = |url: &Url| {
        let mut seen = url.clone();
        seen.set_host(Some("internal")).expect("a host");
        seen
    };
    flow(&app, &router, "https://bot.example.com/install", seen).await;
}

#[tokio::test]
async fn a_flow_ends_at_any_path() {
    for (install, done) in [
        ("/", "/done"),
        ("/install", "/"),
        ("/a/b/c/install/", "/a/b/c/install"),
        ("/:install", "/*done"),
        ("/slack/oauth_redirect", "/slack/install"),
        ("/inst%C3%A4ll", "/fertig%7Bx%7D"),
    ] {
        let redirect = format!("https://bot.example.com{done}");
        let app = app(install, &[&redirect]).await;
        let router: Router = install_routes(&app.provider);
        let install = format!("https://bot.example.com{install}");
        let callback = flow(&app, &router, &install, Url::clone).await;
        assert!(callback.starts_with(&redirect), "{callback}");
    }
}

#[tokio::test]
async fn each_callback_keeps_its_own_path_although_a_prefix_is_stripped() {
    // After the prefix is stripped, the second path equals the first.
    let first = "https://bot.example.com/bot/done";
    let second = "https://bot.example.com/bot/bot/done";
    for [one, other] in [[first, second], [second, first]] {
        let app = app("/bot/install", &[one, other]).await;
        let router: Router = install_routes_under(&app.provider, "/bot").expect("under it");
        let callback = flow(
            &app,
            &router,
            "https://bot.example.com/bot/install",
            stripped,
        )
        .await;
        assert!(callback.starts_with(one), "{callback}");
        // A flow that began with one redirect URL does not end at the other.
        let browser = Browser::default();
        let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
        let mut moved = Url::parse(other).expect("a URL");
        moved.set_query(callback.query());
        let (status, page) = send(&router, request(Method::GET, &stripped(&moved), &browser)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{page}");
    }
}

async fn refused(install_path: &str, redirects: &[&str], prefix: &str) -> MountError {
    let app = app(install_path, redirects).await;
    let routes = install_routes_under::<()>(&app.provider, prefix);
    routes.expect_err("it cannot be mounted")
}

#[tokio::test]
async fn a_path_that_is_not_under_the_prefix_is_named_with_the_remedy() {
    for path in ["/slack/install", "/bots/install", "/", "/a/bot/install"] {
        let error = refused(path, &[REDIRECT], "/bot").await;
        let expected = format!(
            "the install path {path} is not under /bot: set `install_path` to a path that begins \
             with /bot/, or mount the routes under another prefix"
        );
        assert_eq!(error.to_string(), expected);
    }
    for uri in [
        "https://bot.example.com/slack/oauth_redirect",
        "https://bot.example.com/bots/oauth_redirect",
        "https://bot.example.com",
    ] {
        for redirects in [[REDIRECT, uri], [uri, REDIRECT]] {
            let error = refused("/bot/install", &redirects, "/bot").await;
            let expected = format!(
                "the path of the redirect URL {uri} is not under /bot: add the prefix to the URL, \
                 here and at Slack, or mount the routes under another prefix"
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[tokio::test]
async fn a_prefix_that_is_not_a_path_is_named() {
    let error = refused("/bot/install", &[REDIRECT], "bot").await;
    let expected = "the prefix bot is not a path: it must begin with `/`, such as /bot";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn two_paths_that_are_one_without_the_prefix_are_named() {
    let same = "https://bot.example.com/bot/";
    let error = refused("/bot", &[same], "/bot").await;
    let expected = "/bot and /bot/ are the same path without /bot: change one of them";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn no_prefix_changes_nothing() {
    for prefix in ["", "/"] {
        let app = app("/install", &["https://bot.example.com/done"]).await;
        let router: Router = install_routes_under(&app.provider, prefix).expect("no prefix");
        flow(&app, &router, "https://bot.example.com/install", Url::clone).await;
    }
}

#[tokio::test]
async fn the_front_door_mounts_its_routes_under_a_prefix_too() {
    let app = app("/bot/install", &[REDIRECT]).await;
    let front = SlackApp::builder()
        .credentials(credentials(&app.fake))
        .signing_secret(app.fake.signing_secret())
        .redirect_uri(REDIRECT)
        .install_path("/bot/install")
        .scopes("commands")
        .slack(app.slack.clone())
        .clock(app.fake.clock())
        .store(app.store.clone())
        .build()
        .await
        .expect("nothing is missing");
    let routes = front.install_routes_under("/bot").expect("under it");
    let router = Router::new().nest("/bot", routes);
    let install = "https://bot.example.com/bot/install";
    flow(&app, &router, install, Url::clone).await;
    let error = front.install_routes_under::<()>("/other");
    assert!(error.is_err(), "no path is under the prefix");
}
