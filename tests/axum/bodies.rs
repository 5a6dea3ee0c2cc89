//! How large a body may be. The layer's limit also applies to the extractors behind it.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form};
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use slack_installs::layer::SlackLayer;
use slack_installs::request::Verifier;
use slack_installs::{Authorizer, Lifecycle};

use super::support::app::{ADA, App};
use super::{send, to};

const MIB: usize = 1024 * 1024;

async fn raw(body: Bytes) -> String {
    body.len().to_string()
}

async fn form(Form(fields): Form<Vec<(String, String)>>) -> String {
    let length = |(name, value): &(String, String)| name.len() + value.len() + 2;
    (fields.iter().map(length).sum::<usize>() - 1).to_string()
}

fn router(app: &App, limit: usize) -> Router {
    let verifier = Verifier::new(&app.fake.signing_secret()).with_clock(app.fake.clock());
    let layer = SlackLayer::new(
        verifier.with_body_limit(limit),
        Authorizer::new(app.store.clone()).with_clock(app.fake.clock()),
        Lifecycle::new(app.store.clone(), app.slack.clone()),
    );
    Router::new()
        .route("/raw", post(raw))
        .route("/form", post(form))
        .route("/small", post(raw).layer(DefaultBodyLimit::max(MIB)))
        .layer(layer)
}

#[tokio::test]
async fn a_handler_gets_each_body_that_the_layer_lets_through_and_no_larger_one() {
    let app = App::new().await;
    app.install(ADA).await;
    let command = app.fake.slash_command(ADA, "/hello", "");
    let of = |length: usize| {
        let mut body = command.body().to_vec();
        body.extend_from_slice(b"&x=");
        body.resize(length, b'x');
        command
            .clone()
            .with_body("application/x-www-form-urlencoded", body)
    };
    for (limit, length, status) in [
        (4 * MIB, 3 * MIB, StatusCode::OK),
        (4 * MIB, 4 * MIB, StatusCode::OK),
        (4 * MIB, 4 * MIB + 1, StatusCode::PAYLOAD_TOO_LARGE),
        (MIB, MIB, StatusCode::OK),
        (MIB, MIB + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let router = router(&app, limit);
        let answer = send(&router, to("/raw", &of(length))).await;
        assert_eq!(answer.0, status, "{limit} {length}: {}", answer.1);
        if status == StatusCode::OK {
            assert_eq!(answer.1, length.to_string());
        }
        let answer = send(&router, to("/form", &of(length))).await;
        assert_eq!(answer.0, status, "{limit} {length}: {}", answer.1);
    }
    // A route's own limit behind the layer still applies.
    let answer = send(&router(&app, 4 * MIB), to("/small", &of(3 * MIB))).await;
    assert_eq!(answer.0, StatusCode::PAYLOAD_TOO_LARGE);
}
