//! An axum app behind the layer: which requests reach its handlers, and which do not.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod install;
mod mounting;
mod refused;
mod routes;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use slack_installs::layer::SlackLayer;
use slack_installs::request::{Kind, Verifier};
use slack_installs::testing::{Delivery, Who};
use slack_installs::web::{Authorized, Verified, install_routes};
use slack_installs::{Authorizer, Lifecycle, RedirectUri};
use support::app::{ADA, ALPHA, App, BEN, BRAVO, OLGA, ORG, SALES, user_scopes};
use tower_service::Service as _;
use url::Url;

/// Responds with what it received. The tokens reach the test and no log.
async fn handler(auth: Authorized, request: Verified, body: Bytes) -> String {
    let token = |token: Option<&slack_installs::secret::AccessToken>| {
        token.map_or_else(|| "none".to_owned(), |token| token.expose().to_owned())
    };
    assert_eq!(
        *request.body(),
        body,
        "the body reaches the handler unchanged"
    );
    format!(
        "bot={} user={}",
        token(auth.bot_token()),
        token(auth.user_token())
    )
}

fn layer(app: &App) -> SlackLayer {
    SlackLayer::new(
        Verifier::new(&app.fake.signing_secret()).with_clock(app.fake.clock()),
        Authorizer::new(app.store.clone()).with_clock(app.fake.clock()),
        Lifecycle::new(app.store.clone(), app.slack.clone()),
    )
}

fn router(app: &App) -> Router {
    Router::new()
        .route("/slack/command", post(handler))
        .route("/slack/events", post(handler))
        .layer(layer(app))
        .merge(install_routes(&app.provider))
}

async fn send(router: &Router, request: Request<Bytes>) -> (StatusCode, String) {
    let request = request.map(Body::from);
    let response: Response<Body> = router.clone().call(request).await.expect("infallible");
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn to(path: &str, delivery: &Delivery) -> Request<Bytes> {
    let url = Url::parse(&format!("https://bot.example.com{path}")).expect("a URL");
    delivery.request(&url)
}

async fn command(router: &Router, app: &App, who: impl Into<Who>) -> (StatusCode, String) {
    let command = app.fake.slash_command(who, "/hello", "");
    send(router, to("/slack/command", &command)).await
}

fn expected(app: &App, tenant: &str, user: Option<(&str, &str)>) -> String {
    let bot = app.fake.bot_token(tenant).expect("installed");
    let user = user.map_or_else(
        || "none".to_owned(),
        |(tenant, user)| {
            app.fake
                .user_token(tenant, user)
                .expect("authorised")
                .expose()
                .to_owned()
        },
    );
    format!("bot={} user={user}", bot.expose())
}

#[tokio::test]
async fn a_handler_gets_the_tokens_of_its_workspace_and_of_the_acting_user() {
    let app = App::new().await;
    app.install_with(user_scopes("search:read"), ADA).await;
    app.install_with(user_scopes("search:read"), "U0BRAVO0001")
        .await;
    let router = router(&app);
    let answer = command(&router, &app, ADA).await;
    assert_eq!(
        answer,
        (StatusCode::OK, expected(&app, ALPHA, Some((ALPHA, ADA))))
    );
    let answer = command(&router, &app, "U0BRAVO0001").await;
    assert_eq!(
        answer,
        (
            StatusCode::OK,
            expected(&app, BRAVO, Some((BRAVO, "U0BRAVO0001")))
        )
    );
    // Ben authorised nothing, so he gets the bot's token and not Ada's.
    let answer = command(&router, &app, BEN).await;
    assert_eq!(answer, (StatusCode::OK, expected(&app, ALPHA, None)));
}

#[tokio::test]
async fn an_org_wide_install_serves_the_organisations_workspaces() {
    let app = App::new().await;
    app.install(Who::user(OLGA).at(ORG)).await;
    let router = router(&app);
    let answer = command(&router, &app, Who::user("U0GRIDUSR02").at(SALES)).await;
    assert_eq!(answer, (StatusCode::OK, expected(&app, ORG, None)));
}

#[tokio::test]
async fn a_command_with_ssl_check_appended_is_no_probe() {
    let app = App::new().await;
    app.install(ADA).await;
    let abuse = app
        .fake
        .slash_command(ADA, "/hello", "")
        .with_field("ssl_check", "1");
    let mut request = to("/slack/command", &abuse);
    request.headers_mut().remove("x-slack-signature");
    assert_eq!(
        send(&router(&app), request).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_handler_without_the_layer_does_not_run() {
    let app = App::new().await;
    let bare = Router::new().route("/slack/command", post(handler));
    let answer = command(&bare, &app, ADA).await;
    assert_eq!(answer.0, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn the_install_routes_begin_and_end_a_flow() {
    let app = App::new().await;
    let router = router(&app);
    let start = Request::get("/slack/install?team=T0ALPHA0001").body(Bytes::new());
    let response: Response<Body> = router
        .clone()
        .call(start.expect("a request").map(Body::from))
        .await
        .expect("infallible");
    assert_eq!(response.status(), StatusCode::FOUND);
    let to = response.headers()["location"]
        .to_str()
        .expect("visible ASCII");
    let callback = app
        .fake
        .allow(&Url::parse(to).expect("a URL"), ADA)
        .expect("allowed");
    let cookie = response.headers()["set-cookie"]
        .to_str()
        .expect("visible ASCII");
    let finish = Request::get(&callback[url::Position::BeforePath..])
        .header("cookie", cookie.split(';').next().expect("a pair"))
        .body(Bytes::new());
    let (status, page) = send(&router, finish.expect("a request")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(app.fetch(ALPHA, None).await.is_some());
}

#[tokio::test]
async fn every_redirect_url_has_a_route_that_answers_to_get_only() {
    let paths = ["/slack/eu/oauth_redirect", "/slack/oauth_redirect", "/a/b"];
    let app = App::configured(|config| {
        for path in paths {
            for host in ["bot.example.com", "eu.example.com"] {
                let uri = RedirectUri::new(&format!("https://{host}{path}"));
                config.redirect_uris.push(uri.expect("a redirect URL"));
            }
        }
    })
    .await;
    let routes: Router = install_routes(&app.provider);
    let ask = async |method: &Method, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Bytes::new()).expect("a request");
        send(&routes, request).await.0
    };
    for path in paths {
        let garbled = format!("{path}?state=garbled");
        assert_eq!(ask(&Method::GET, &garbled).await, StatusCode::BAD_REQUEST);
        // A link preview sends such a request.
        let none = StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(ask(&Method::HEAD, &garbled).await, none);
        let unread = ask(&Method::POST, &garbled).await;
        assert_eq!(unread, none, "{path}");
    }
    assert_eq!(ask(&Method::GET, "/slack/install").await, StatusCode::FOUND);
    assert_eq!(ask(&Method::GET, "/other").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_interactive_payload_is_authorized_like_a_command() {
    let app = App::new().await;
    app.install(ADA).await;
    let action = app.fake.block_action(ADA, "approve");
    let answer = send(&router(&app), to("/slack/events", &action)).await;
    assert_eq!(answer, (StatusCode::OK, expected(&app, ALPHA, None)));
    let kind = Kind::BlockActions;
    assert_eq!(kind.name(), "block_actions");
}
