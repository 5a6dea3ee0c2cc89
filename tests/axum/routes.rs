//! The routes of the install flow, and an extractor's error if the layer is missing.

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use slack_installs::web::{Authorized, Verified, install_routes};
use slack_installs::{InstallOptions, RedirectUri};
use tower_service::Service as _;
use url::{Position, Url};

use super::support::app::{
    ADA, ALPHA, App, Browser, OTHER_REDIRECT, REDIRECT, location, parameter,
};
use super::{send, to};
use crate::support::log::Log;

/// Another host with the path of the first redirect URL.
const THIRD_REDIRECT: &str = "https://us.example.com/slack/oauth_redirect";

const REDIRECTS: [&str; 3] = [REDIRECT, OTHER_REDIRECT, THIRD_REDIRECT];

async fn app_of_three_hosts() -> App {
    App::configured(|config| {
        let others = [OTHER_REDIRECT, THIRD_REDIRECT];
        let others = others.map(|url| RedirectUri::new(url).expect("a redirect URL"));
        config.redirect_uris.extend(others);
    })
    .await
}

pub(super) fn request(method: Method, url: &Url, browser: &Browser) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = url[Position::BeforePath..].parse().expect("a path");
    *request.headers_mut() = browser.headers(url);
    request
}

#[tokio::test]
async fn each_redirect_url_is_a_callback_whichever_of_them_share_a_path() {
    let app = app_of_three_hosts().await;
    let router: Router = install_routes(&app.provider);
    for (nth, redirect) in REDIRECTS.into_iter().enumerate() {
        let browser = Browser::default();
        let options = InstallOptions {
            redirect_uri: Some(RedirectUri::new(redirect).expect("a redirect URL")),
            ..InstallOptions::default()
        };
        let callback = app.allowed(&browser, options, ADA).await;
        // A link preview requests the callback first.
        send(&router, request(Method::HEAD, &callback, &browser)).await;
        assert_eq!(app.exchanges(), nth, "{redirect}");
        let posted = send(&router, request(Method::POST, &callback, &browser)).await;
        assert_eq!(posted.0, StatusCode::METHOD_NOT_ALLOWED, "{redirect}");
        let (status, page) = send(&router, request(Method::GET, &callback, &browser)).await;
        assert_eq!(status, StatusCode::OK, "{redirect} {page}");
        assert_eq!(app.exchanges(), nth + 1, "{redirect}");
    }
    assert!(app.fetch(ALPHA, None).await.is_some());
}

#[tokio::test]
async fn the_install_route_begins_a_flow_at_the_host_that_was_asked() {
    let app = app_of_three_hosts().await;
    let router: Router = install_routes(&app.provider);
    for redirect in REDIRECTS {
        let mut install = Url::parse(redirect).expect("a URL");
        install.set_path("/slack/install");
        let asked = request(Method::GET, &install, &Browser::default());
        let response = router.clone().call(asked.map(Body::from)).await;
        let response = response.expect("infallible").map(|_| String::new());
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(parameter(&location(&response), "redirect_uri"), redirect);
    }
}

async fn authorized(_: Authorized) -> &'static str {
    "it ran"
}

async fn verified(_: Verified) -> &'static str {
    "it ran"
}

#[tokio::test]
async fn each_extractor_without_the_layer_is_a_500_and_says_why() {
    let app = App::new().await;
    app.install(ADA).await;
    let command = app.fake.slash_command(ADA, "/hello", "");
    for bare in [post(authorized), post(verified)] {
        let bare = Router::new().route("/slack/command", bare);
        let (log, logging) = Log::of_this_thread();
        let (status, body) = send(&bare, to("/slack/command", &command)).await;
        drop(logging);
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("app.layer()"), "{body}");
        let log = log.text();
        assert!(log.contains("ERROR") && log.contains("SlackLayer"), "{log}");
    }
}

#[tokio::test]
async fn each_extractor_works_by_itself_behind_the_layer() {
    let app = App::new().await;
    app.install(ADA).await;
    let command = app.fake.slash_command(ADA, "/hello", "");
    for alone in [post(authorized), post(verified)] {
        let router = Router::new().route("/slack/command", alone);
        let router = router.layer(super::layer(&app));
        let answer = send(&router, to("/slack/command", &command)).await;
        assert_eq!(answer, (StatusCode::OK, "it ran".to_owned()));
    }
}
