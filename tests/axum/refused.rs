//! A handler whose token does not exist: what the person reads, and what the handler can do.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;
use serde_json::json;
use slack_installs::web::{BotToken, Rejection, UserToken};
use slack_installs::{Refusal, RefusalReason, Refusals, Reply};

use super::support::app::{ADA, ALPHA, App, BEN, user_only, user_scopes};
use super::{command, layer, send, to};

async fn as_user(_: UserToken) -> &'static str {
    "it ran"
}

async fn as_bot(_: BotToken) -> &'static str {
    "it ran"
}

/// Returns a router with the handlers, which knows the install link.
fn router(app: &App, handler: axum::routing::MethodRouter) -> Router {
    let layer = layer(app).with_install_url(app.provider.install_url());
    Router::new().route("/slack/command", handler).layer(layer)
}

#[tokio::test]
async fn who_has_not_connected_their_account_is_told_so_with_a_link() {
    let app = App::new().await;
    app.install_with(user_scopes("search:read"), ADA).await;
    let router = router(&app, post(as_user));
    assert_eq!(command(&router, &app, ADA).await.1, "it ran");
    let (status, told) = command(&router, &app, BEN).await;
    assert_eq!(status, StatusCode::OK);
    let link = format!("https://bot.example.com/slack/install?team={ALPHA}");
    let text = "This app is installed here, but you have not connected your account.";
    assert_eq!(told, format!("{text} Connect it: {link}"));
}

#[tokio::test]
async fn whose_workspace_has_the_app_without_its_bot_is_told_so_with_a_link() {
    let app = App::new().await;
    app.install_with(user_only("search:read"), ADA).await;
    let router = router(&app, post(as_bot));
    let (status, told) = command(&router, &app, ADA).await;
    assert_eq!(status, StatusCode::OK);
    assert!(told.contains("installed here without its bot"), "{told}");
    assert!(told.contains("/slack/install?team="), "{told}");
}

/// Counts the refusals, and responds with JSON.
#[derive(Clone, Debug, Default)]
struct Own(Arc<Mutex<Vec<&'static str>>>);

impl Refusals for Own {
    fn respond(&self, refusal: &Refusal<'_>) -> Reply {
        assert!(refusal.error.is_none(), "the request has another token");
        let mut told = self.0.lock().expect("no panic");
        told.push(refusal.reason.name());
        Reply::json(&json!({ "text": refusal.reason.name() }))
    }
}

#[tokio::test]
async fn a_handler_that_takes_the_rejection_decides_whether_the_refusal_is_sent() {
    async fn either(token: Result<UserToken, Rejection>) -> Response {
        let Err(rejection) = token else {
            return "it ran".into_response();
        };
        assert_eq!(rejection.reason(), Some(RefusalReason::NotConnected));
        assert!(rejection.error().is_none());
        "connect your account first".into_response()
    }
    async fn passes_on(token: Result<UserToken, Rejection>) -> Response {
        token.map_or_else(Rejection::into_response, |_| "it ran".into_response())
    }
    async fn optional(token: Option<UserToken>) -> &'static str {
        token.map_or("no token", |_| "it ran")
    }
    let app = App::new().await;
    app.install(ADA).await;
    let own = Own::default();
    let router: Router = Router::new()
        .route("/either", post(either))
        .route("/optional", post(optional))
        .route("/passes-on", post(passes_on))
        .layer(layer(&app).with_refusals(own.clone()));
    let ask = async |path: &str| {
        let command = app.fake.slash_command(BEN, "/hello", "");
        send(&router, to(path, &command)).await
    };
    assert_eq!(ask("/either").await.1, "connect your account first");
    assert_eq!(ask("/optional").await.1, "no token");
    assert_eq!(*own.0.lock().expect("no panic"), [""; 0], "the app decided");
    let reply = (StatusCode::OK, r#"{"text":"not_connected"}"#.to_owned());
    assert_eq!(ask("/passes-on").await, reply);
    assert_eq!(*own.0.lock().expect("no panic"), ["not_connected"]);
}
