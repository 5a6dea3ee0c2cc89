//! What an operator does: freeze, revoke and reconcile.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod given_up;
mod heal;
mod holds;
mod keys;
mod reconcile;
mod revoke;
mod told;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use slack_installs::backend::MemoryBackend;
use slack_installs::operate::{OperateError, Operator, ReconcileConfig, RevokeOutcome, Verdict};
use slack_installs::slack::SlackClient;
use slack_installs::testing::{Fault, Person, Who, Workspace, World};
use slack_installs::{AuthorizeError, Handled};
use support::all_rows;
use support::app::{ADA, ALPHA, BEN, BRAVO, OLGA, ORG, SALES, key, world};
use support::life::{Host, Life, lifecycle};

use crate::support::app::credentials;

const BOB: &str = "U0BRAVO0001";

fn operator(life: &Life) -> Operator {
    operator_over(life, &life.app.slack)
}

/// Returns an operator that calls Slack with this client.
fn operator_over(life: &Life, slack: &SlackClient) -> Operator {
    let credentials = credentials(&life.app.fake);
    let (store, slack) = (life.app.store.clone(), slack.clone());
    Operator::new(store, slack, life.lifecycle.clone(), credentials)
        .with_clock(life.app.fake.clock())
}

async fn refusal(life: &Life, team: &str) -> String {
    match life.authorize(&life.mention(team)).await {
        Ok(_) => "served".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_tenant_on_hold_keeps_its_data_and_gets_nothing() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install(BOB).await;
    let operator = operator(&life);
    operator
        .freeze(&key(ALPHA), "ticket 1: taken over")
        .await
        .expect("installed");
    operator
        .freeze(&key(ALPHA), "ticket 2")
        .await
        .expect("repeatable");
    let refused = life
        .authorize(&life.mention(ALPHA))
        .await
        .expect_err("on hold");
    assert_matches!(refused, AuthorizeError::OnHold);
    assert_eq!(refusal(&life, BRAVO).await, "served");
    let kept = life.app.stored(ALPHA, Some(ADA)).await;
    assert!(kept.bot.is_some() && kept.user.is_some() && kept.is_on_hold());
    assert_eq!(kept.hold.expect("a hold").reason, "ticket 1: taken over");
    let facts = all_rows(&*life.backend).await.into_iter();
    let facts: String = facts
        .map(|(_, row)| row.metadata.as_str().to_owned())
        .collect();
    assert!(
        facts.contains("ticket 1: taken over"),
        "the reason is readable in the row"
    );

    // Installing again does not end the hold.
    life.install(BEN).await;
    assert_eq!(refusal(&life, ALPHA).await, "the tenant is on hold");

    operator
        .unfreeze(&key(ALPHA), "ticket 1: solved")
        .await
        .expect("installed");
    operator
        .unfreeze(&key(ALPHA), "once more")
        .await
        .expect("repeatable");
    assert_eq!(refusal(&life, ALPHA).await, "served");
    let hold = life
        .app
        .stored(ALPHA, None)
        .await
        .hold
        .expect("its end is kept");
    assert_eq!(
        (hold.is_on, hold.reason.as_str()),
        (false, "ticket 1: solved")
    );
    let nobody = operator
        .freeze(&key("T0NOBODY001"), "x")
        .await
        .expect_err("not installed");
    assert_matches!(nobody, OperateError::NotInstalled);
}

#[tokio::test]
async fn a_workspace_on_hold_is_not_served_by_its_organisation_either() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    operator(&life)
        .freeze(&key(SALES), "ticket 3")
        .await
        .expect("installed");
    for flagged in [false, true] {
        let event = life.mention(SALES).edit(|event| {
            event["authorizations"][0] = json!({"enterprise_id": ORG, "team_id": SALES,
                "user_id": "U0BOT", "is_bot": true, "is_enterprise_install": flagged});
        });
        let outcome = life.authorize(&event).await;
        assert_matches!(outcome, Err(AuthorizeError::OnHold), "{flagged}");
    }
}

#[tokio::test]
async fn a_revoked_tenant_is_uninstalled_at_slack_and_purged_and_the_host_told() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install(BOB).await;
    let operator = operator(&life);
    let outcome = operator
        .revoke(&key(ALPHA), "ticket 4")
        .await
        .expect("uninstalled");
    assert_eq!(outcome, RevokeOutcome::Uninstalled);
    assert!(!life.app.fake.is_installed(ALPHA));
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(
        life.host.departures(),
        [(ALPHA.to_owned(), "ticket 4".to_owned(), false)]
    );
    assert_eq!(refusal(&life, BRAVO).await, "served");
    let again = operator
        .revoke(&key(ALPHA), "ticket 4")
        .await
        .expect("repeatable");
    assert_eq!(again, RevokeOutcome::NotInstalled);
    for event in life.app.fake.take_events() {
        assert_eq!(life.handled(&event).await, Handled::Ignored);
    }
    assert_eq!(life.host.tenants(), [ALPHA]);
}

fn sweep(repairs: bool) -> ReconcileConfig {
    ReconcileConfig {
        repairs,
        pause: Duration::ZERO,
        ..ReconcileConfig::default()
    }
}

/// Returns a world with twenty workspaces in addition to Alpha.
fn many_world() -> World {
    let mut world = world();
    for number in 0..20 {
        world = world.with_workspace(
            Workspace::new(&format!("T0MANY{number}"), "Many")
                .with_person(Person::admin(&format!("U0MANY{number}"), "mo")),
        );
    }
    world
}

/// Installs the app in Alpha and in the twenty other workspaces.
async fn many() -> Life {
    let life = Life::with(many_world(), Arc::new(MemoryBackend::default())).await;
    life.install(ADA).await;
    for number in 0..20 {
        life.install(format!("U0MANY{number}").as_str()).await;
    }
    life
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_events_were_lost_is_found_and_purged() {
    let life = many().await;
    life.app.fake.uninstall(ALPHA);
    drop(life.app.fake.take_events());
    let operator = operator(&life);
    let report = operator
        .reconcile(&sweep(false))
        .await
        .expect("the database responds");
    assert_eq!((report.examined, report.purged), (21, 0));
    let [found] = &report.findings[..] else {
        panic!("expected one finding: {report:?}")
    };
    assert_eq!((&found.key, &found.verdict), (&key(ALPHA), &Verdict::Gone));
    assert!(
        life.bot_token(ALPHA).await.is_some(),
        "the sweep only reports"
    );

    let report = operator
        .reconcile(&sweep(true))
        .await
        .expect("the database responds");
    assert_eq!(report.purged, 1);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ALPHA]);
    let report = operator
        .reconcile(&sweep(true))
        .await
        .expect("the database responds");
    assert_eq!((report.examined, report.findings.len()), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_asks_no_faster_than_it_is_told_and_waits_when_slack_says_so() {
    let life = many().await;
    let config = ReconcileConfig {
        pause: Duration::from_secs(1),
        ..ReconcileConfig::default()
    };
    life.app
        .fake
        .inject("auth.test", Fault::rate_limited(Duration::from_secs(7)));
    let before = life.app.fake.calls("auth.test");
    let begun = tokio::time::Instant::now();
    let report = operator(&life).reconcile(&config).await.expect("responds");
    assert!(report.findings.is_empty());
    let calls = life.app.fake.calls("auth.test") - before;
    assert_eq!(calls, 2 * 21 + 1);
    // The clock is paused, so the elapsed time is the time waited, not the real duration.
    assert_eq!(begun.elapsed().as_secs(), 43 + 7);
}

#[tokio::test]
async fn a_process_without_hooks_leaves_nothing_to_tell() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    let without = slack_installs::Lifecycle::new(life.app.store.clone(), life.app.slack.clone());
    let request = life.request(&life.app.fake.app_uninstalled(ALPHA));
    assert_eq!(
        without.handle(&request).await.expect("handled"),
        Handled::Purged
    );
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    let with = lifecycle(&life.app, &life.app.store, &Host::default());
    assert_eq!(with.resume_pending().await.expect("responds"), 0);
}

#[tokio::test]
async fn a_rotator_hands_out_nothing_of_a_tenant_on_hold() {
    use slack_installs::store::Credential;
    use slack_installs::{Hold, LifecycleStore as _, RotationConfig, TokenRotator, rotation};

    let life = Life::new().await;
    life.install(ADA).await;
    let app = &life.app;
    let config = RotationConfig::new(credentials(&app.fake));
    let rotator = TokenRotator::new(config, app.slack.clone(), app.store.clone());
    let alpha = key(ALPHA);
    assert!(rotator.token_for(&alpha, Credential::Bot).await.is_ok());
    let hold = Hold {
        is_on: true,
        reason: "abuse".into(),
        at: app.fake.clock().now(),
    };
    assert!(app.store.hold(&alpha, &hold).await.expect("responds"));
    let outcome = rotator.token_for(&alpha, Credential::Bot).await;
    assert_matches!(outcome, Err(rotation::Error::OnHold));
}

#[tokio::test]
async fn a_purge_asks_slack_nothing_and_tells_the_host() {
    let life = Life::new().await;
    life.install(ADA).await;
    let calls = life.app.fake.call_log().len();
    let operator = operator(&life);
    let purged = operator.purge(&key(ALPHA), "its events were lost").await;
    assert!(purged.expect("responds"));
    assert_eq!(life.app.fake.call_log().len(), calls);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
    assert_eq!(life.host.tenants(), [ALPHA]);
    let again = operator.purge(&key(ALPHA), "once more").await;
    assert!(!again.expect("responds"));
}

#[tokio::test]
async fn a_revocation_ends_every_refresh_token_that_is_kept() {
    use slack_installs::store::{Chain, ChainKey, Credential, Mark, RotationStore as _};

    let life = Life::new().await;
    let fake = &life.app.fake;
    fake.rotate_tokens(slack_installs::testing::Rotation::default());
    life.install(ADA).await;
    let bot = |installation: &slack_installs::Installation| {
        let grant = &installation.bot.as_ref().expect("a bot").grant;
        let token = grant.refresh_token.as_ref().expect("it rotates");
        token.expose().to_owned()
    };
    let first = life.app.stored(ALPHA, None).await;
    // A second pair. Its refresh token is kept as an alternate, as after a lost race.
    life.install(BEN).await;
    let second = life.app.stored(ALPHA, None).await;
    let alternate = &first.bot.as_ref().expect("a bot").grant;
    let chain_key = ChainKey {
        credential: Credential::Bot,
        tenant: key(ALPHA),
    };
    let mut keep = |chain: Option<&Chain>| {
        let mark = alternate.refresh_token.as_ref().map(Mark::of);
        let alternates = mark.into_iter().collect();
        chain.cloned().map(|chain| Chain {
            alternates,
            ..chain
        })
    };
    let kept = life
        .app
        .store
        .update(&chain_key, Some(alternate), &mut keep);
    kept.await.expect("responds").expect("it exists");
    assert!(fake.is_refreshable(&bot(&first)) && fake.is_refreshable(&bot(&second)));
    fake.inject("apps.uninstall", Fault::error("no_permission").always());
    let outcome = operator(&life).revoke(&key(ALPHA), "ticket 8").await;
    assert_eq!(outcome.expect("done"), RevokeOutcome::TokensRevoked);
    assert!(!fake.is_refreshable(&bot(&first)), "the alternate is dead");
    assert!(!fake.is_refreshable(&bot(&second)));
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
}
