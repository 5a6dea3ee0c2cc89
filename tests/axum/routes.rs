//! The routes of the install flow, and an extractor's error if the layer is missing.

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use slack_installs::web::{Authorized, BotToken, Rejection, Verified, install_routes};
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

#[tokio::test]
async fn a_handler_can_take_an_event_without_a_token_and_learns_why_there_is_none() {
    async fn event(
        request: Verified,
        auth: Result<Authorized, Rejection>,
        bot: Option<BotToken>,
    ) -> String {
        let why = auth.as_ref().err().and_then(Rejection::error);
        let why = why.map_or_else(|| "a token".to_owned(), ToString::to_string);
        assert!(bot.is_none());
        format!("{:?}: {why}", request.event_type())
    }
    async fn needs_a_token(_: Authorized) -> &'static str {
        "it ran"
    }
    let app = App::new().await;
    app.install_with(super::support::app::user_only("search:read"), ADA)
        .await;
    let router: Router = Router::new()
        .route("/event", post(event))
        .route("/strict", post(needs_a_token))
        .layer(super::layer(&app));
    let of = |user: &str| {
        let event = app
            .fake
            .event(ALPHA, serde_json::json!({"type": "channel_rename"}));
        event.edit(|event| {
            event["authorizations"][0]["user_id"] = serde_json::json!(user);
            event["authorizations"][0]["is_bot"] = serde_json::json!(false);
        })
    };
    let (status, told) = send(&router, to("/event", &of("U0NOBODY001"))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        told.contains("channel_rename") && told.contains("no token"),
        "{told}"
    );
    let (status, told) = send(&router, to("/event", &of(ADA))).await;
    assert_eq!(
        (status, told.ends_with("a token")),
        (StatusCode::OK, true),
        "{told}"
    );
    let strict = send(&router, to("/strict", &of("U0NOBODY001"))).await;
    assert_eq!(
        strict,
        (StatusCode::OK, String::new()),
        "Slack repeats nothing"
    );
    let strict = send(&router, to("/strict", &of(ADA))).await;
    assert_eq!(strict.1, "it ran");
}
