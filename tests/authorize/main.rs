//! Which installation serves a request and with which tokens, and what a request states about its
//! workspace's organisation.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod hangs;
mod isolation;
mod membership;
mod on_behalf;
mod resolution;
mod serving;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::request::{VerifiedRequest, Verifier};
use slack_installs::testing::Rotation;
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    AuthorizeError, Authorizer, ResolvedVia, RotationConfig, TokenRotator, rotation,
};
use support::app::{ADA, ALPHA, App, ORG, world};
use support::life::Life;

use crate::support::app::credentials;

async fn stored(life: &Life) -> Option<String> {
    let installation = life.app.stored(ALPHA, None).await;
    installation
        .home
        .enterprise()
        .map(|org| org.id.as_str().to_owned())
}

#[tokio::test]
async fn a_workspace_that_joins_and_leaves_an_organisation_keeps_its_install_and_learns_of_it() {
    // Regression: seratch/ChatGPT-in-Slack#108.
    let life = Life::new().await;
    life.install(ADA).await;
    let token = life.bot_token(ALPHA).await;
    life.app.fake.join_org(ALPHA, ORG);
    let served = life
        .authorize(&life.mention(ALPHA))
        .await
        .expect("its own install");
    assert_eq!(served.resolved_via, ResolvedVia::Named);
    assert_eq!(served.enterprise_id().map(|id| id.as_str()), Some(ORG));
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));

    // A form without an organisation says nothing about the membership.
    let silent = life.app.fake.slash_command(ADA, "/x", "");
    let silent = silent.with_body(
        "application/x-www-form-urlencoded",
        format!("command=%2Fx&team_id={ALPHA}&user_id={ADA}"),
    );
    assert!(life.authorize(&silent).await.is_ok());
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));

    let left = life.mention(ALPHA).edit(|event| {
        event["enterprise_id"] = json!(null);
        event["context_enterprise_id"] = json!(null);
        event["authorizations"][0]["enterprise_id"] = json!(null);
    });
    assert!(life.authorize(&left).await.is_ok());
    assert_eq!(stored(&life).await, None);
    assert_eq!(life.bot_token(ALPHA).await, token, "no token was touched");
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn another_companys_organisation_is_never_taken_for_the_workspaces() {
    let life = Life::new().await;
    life.install(ADA).await;
    let shared = life.mention(ALPHA).edit(|event| {
        event["team_id"] = json!("T0XTERN0009");
        event["enterprise_id"] = json!("E0XTERN0009");
        event["is_ext_shared_channel"] = json!(true);
    });
    assert!(life.authorize(&shared).await.is_ok());
    let clicked = life.app.fake.block_action(ADA, "x").edit(|payload| {
        payload["enterprise"] = json!({"id": "E0XTERN0009"});
        payload["user"]["team_id"] = json!("T0XTERN0009");
    });
    assert!(life.authorize(&clicked).await.is_ok());
    assert_eq!(stored(&life).await, None);
}

#[tokio::test]
async fn an_organisation_that_cannot_be_written_down_delays_nobody() {
    let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let life = Life::with(world(), Arc::clone(&backend) as Arc<dyn Backend>).await;
    life.install(ADA).await;
    life.app.fake.join_org(ALPHA, ORG);
    backend.set_faults(Faults {
        lost_commits: 1,
        ..Faults::none()
    });
    assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
    assert_eq!(stored(&life).await, None);
    backend.set_faults(Faults::none());
    assert!(life.authorize(&life.mention(ALPHA)).await.is_ok());
    assert_eq!(stored(&life).await.as_deref(), Some(ORG));
}

fn command(app: &App) -> VerifiedRequest {
    let url = "https://bot.example.com/slack/command"
        .parse()
        .expect("a URL");
    let request = app.fake.slash_command(ADA, "/hello", "").request(&url);
    let verifier = Verifier::new(&app.fake.signing_secret()).with_clock(app.fake.clock());
    verifier
        .verify(request.headers(), request.body().clone())
        .expect("Slack signed it")
}

#[tokio::test]
async fn a_request_gets_a_token_that_is_current_or_the_reason_why_not() {
    let app = App::new().await;
    app.fake.rotate_tokens(Rotation::default());
    app.install(ADA).await;
    let config = RotationConfig::new(credentials(&app.fake));
    let rotator = TokenRotator::new(config, app.slack.clone(), app.store.clone())
        .with_clock(app.fake.clock());
    let bare = Authorizer::new(app.store.clone()).with_clock(app.fake.clock());
    let authorizer = bare.clone().with_rotator(&rotator);

    app.fake.advance(Duration::from_secs(13 * 3600));
    let outcome = bare.authorize(&command(&app)).await;
    assert_matches!(outcome, Err(AuthorizeError::Expired));
    let served = authorizer
        .authorize(&command(&app))
        .await
        .expect("refreshed");
    let token = served.bot_token().expect("a bot");
    assert!(
        app.slack.auth_test(token).await.is_ok(),
        "the token is live"
    );

    app.fake.uninstall(ALPHA);
    app.fake.advance(Duration::from_secs(13 * 3600));
    let outcome = authorizer.authorize(&command(&app)).await;
    let gone = |error: &AuthorizeError| {
        matches!(
            error,
            AuthorizeError::Refresh(rotation::Error::ReinstallNeeded { .. })
        )
    };
    assert!(outcome.as_ref().is_err_and(gone), "{outcome:?}");
}
