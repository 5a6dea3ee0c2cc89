//! An axum app behind the layer: what reaches its handlers, and what does not.

#[macro_use]
mod support;

#[path = "axum/bodies.rs"]
mod bodies;
#[path = "axum/mounting.rs"]
mod mounting;
#[path = "axum/routes.rs"]
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
use slack_installs::{Authorizer, InstallOptions, Lifecycle, RedirectUri, Scopes};
use support::app::{ADA, ALPHA, App, BEN, BRAVO, OLGA, ORG, SALES, SUPPORT};
use tower_service::Service as _;
use url::Url;

/// Answers with what it was given: the tokens go to the test, not to a log.
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

fn with_user_scopes() -> InstallOptions {
    InstallOptions {
        user_scopes: Some(Scopes::from("search:read")),
        ..InstallOptions::default()
    }
}

#[tokio::test]
async fn a_handler_gets_the_tokens_of_its_workspace_and_of_the_acting_user() {
    let app = App::new().await;
    app.install_with(with_user_scopes(), ADA).await;
    app.install_with(with_user_scopes(), "U0BRAVO0001").await;
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
    // Ben authorised nothing: he gets the bot's token, and not Ada's.
    let answer = command(&router, &app, BEN).await;
    assert_eq!(answer, (StatusCode::OK, expected(&app, ALPHA, None)));
}

#[tokio::test]
async fn a_request_without_a_user_gets_no_users_token() {
    // slackapi/bolt-python#584
    let app = App::new().await;
    app.install_with(with_user_scopes(), ADA).await;
    let event = app
        .fake
        .event(ALPHA, serde_json::json!({"type": "channel_created"}));
    let answer = send(&router(&app), to("/slack/events", &event)).await;
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
async fn a_workspace_install_never_serves_a_sibling_workspace() {
    // slackapi/bolt-js#1510
    let app = App::new().await;
    app.install("U0GRIDUSR02").await;
    let router = router(&app);
    let (_, text) = command(&router, &app, Who::user(OLGA).at(SUPPORT)).await;
    assert!(text.contains("not installed"), "{text}");
}

#[tokio::test]
async fn a_workspace_that_joins_an_organisation_keeps_its_installation() {
    // seratch/ChatGPT-in-Slack#108
    let app = App::new().await;
    app.install(ADA).await;
    app.fake.join_org(ALPHA, ORG);
    let answer = command(&router(&app), &app, ADA).await;
    assert_eq!(answer, (StatusCode::OK, expected(&app, ALPHA, None)));
}

#[tokio::test]
async fn a_request_that_slack_did_not_sign_looks_nothing_up() {
    let app = App::new().await;
    app.install(ADA).await;
    let router = router(&app);
    let genuine = || to("/slack/command", &app.fake.slash_command(ADA, "/hello", ""));
    let mut unsigned = genuine();
    unsigned.headers_mut().remove("x-slack-signature");
    let mut forged = genuine();
    let zeros = format!("v0={}", "0".repeat(64))
        .parse()
        .expect("visible ASCII");
    forged.headers_mut().insert("x-slack-signature", zeros);
    let changed = genuine().map(|body| [&body[..], b"&x=1"].concat().into());
    for request in [unsigned, forged, changed] {
        assert_eq!(send(&router, request).await.0, StatusCode::UNAUTHORIZED);
    }
    let late = genuine();
    app.fake.advance(std::time::Duration::from_secs(301));
    assert_eq!(send(&router, late).await.0, StatusCode::UNAUTHORIZED);
    let huge = genuine().map(|_| vec![b'a'; 2 * 1024 * 1024].into());
    assert_eq!(send(&router, huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_layer_answers_slacks_own_probes() {
    let app = App::new().await;
    let router = router(&app);
    let challenge = app.fake.url_verification("3eZbrw1aB10FEMAGAZd4FyFQ");
    let answer = send(&router, to("/slack/events", &challenge)).await;
    assert_eq!(
        answer,
        (StatusCode::OK, "3eZbrw1aB10FEMAGAZd4FyFQ".to_owned())
    );
    let probe = app.fake.ssl_check();
    let answer = send(&router, to("/slack/command", &probe)).await;
    assert_eq!(answer, (StatusCode::OK, String::new()));
    let mut unsigned = to("/slack/command", &probe);
    unsigned.headers_mut().remove("x-slack-signature");
    assert_eq!(
        send(&router, unsigned).await,
        (StatusCode::OK, String::new())
    );
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
async fn a_tenant_without_the_app_is_told_so_and_the_handler_does_not_run() {
    let app = App::new().await;
    let router = router(&app);
    let (status, text) = command(&router, &app, ADA).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("not installed"), "{text}");
    let event = app.fake.event(
        ALPHA,
        serde_json::json!({"type": "app_mention", "user": ADA}),
    );
    let answer = send(&router, to("/slack/events", &event)).await;
    assert_eq!(answer, (StatusCode::OK, String::new()));
}

#[tokio::test]
async fn an_uninstallation_purges_its_tenant_and_no_other() {
    let app = App::new().await;
    app.install(ADA).await;
    app.install("U0BRAVO0001").await;
    let router = router(&app);
    app.fake.uninstall(ALPHA);
    for event in app.fake.take_events() {
        let answer = send(&router, to("/slack/events", &event)).await;
        assert_eq!(answer, (StatusCode::OK, String::new()));
    }
    assert!(app.fetch(ALPHA, Some(ADA)).await.is_none());
    assert!(app.fetch(BRAVO, None).await.is_some());
}

#[tokio::test]
async fn a_late_uninstallation_spares_a_newer_install() {
    // slackapi/bolt-js#1558
    let app = App::new().await;
    app.install(ADA).await;
    app.fake.uninstall(ALPHA);
    let late = app.fake.take_events();
    app.fake.advance(std::time::Duration::from_secs(3600));
    app.install(ADA).await;
    let router = router(&app);
    for event in &late {
        let event = event.clone().sent_at(app.fake.clock().now());
        assert_eq!(
            send(&router, to("/slack/events", &event)).await.0,
            StatusCode::OK
        );
    }
    assert!(app.fetch(ALPHA, None).await.expect("spared").bot.is_some());
}

#[tokio::test]
async fn a_revoked_user_loses_their_token_and_the_bot_stays() {
    let app = App::new().await;
    app.install_with(with_user_scopes(), ADA).await;
    app.install_with(with_user_scopes(), BEN).await;
    app.fake.revoke_user(ALPHA, ADA);
    let router = router(&app);
    for event in app.fake.take_events() {
        assert_eq!(
            send(&router, to("/slack/events", &event)).await.0,
            StatusCode::OK
        );
    }
    assert!(
        app.fetch(ALPHA, Some(ADA))
            .await
            .expect("stored")
            .user
            .is_none()
    );
    let ben = app.fetch(ALPHA, Some(BEN)).await.expect("stored");
    assert!(ben.user.is_some() && ben.bot.is_some());
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_not_an_app_that_is_not_installed() {
    let app = App::new().await;
    app.install(ADA).await;
    let rows = app
        .store
        .backend()
        .scan(&slack_installs::backend::Scope::Everything, None, 100)
        .await
        .expect("a scan")
        .rows;
    let (key, row) = rows
        .into_iter()
        .find(|(key, _)| key.slot.as_str() == "bot")
        .expect("a bot");
    let other = slack_installs::backend::Row {
        version: slack_installs::backend::Version::mint(),
        ..row
    };
    let put = slack_installs::backend::Change::Put {
        slot: key.slot,
        row: other,
        expect: slack_installs::backend::Expect::Any,
    };
    app.store
        .backend()
        .commit(&key.partition, &[put])
        .await
        .expect("committed");
    let (status, text) = command(&router(&app), &app, ADA).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("try again"), "{text}");
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
        // A link preview.
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
