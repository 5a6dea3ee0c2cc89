//! What a worker does without any caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationStore as _, RotationConfig};
use tokio::time::Instant;

use super::support::hooked_chains::Way;
use super::support::rotation::{BotToken as _, HOUR, REFRESH, Stage, secs, settle, spawn_worker};

const DAY: Duration = secs(24 * 60 * 60);

#[tokio::test(start_paused = true)]
async fn a_chain_that_nobody_uses_and_that_cannot_be_refreshed_is_tried_ever_more_rarely() {
    let stage = Stage::installed().await;
    stage.inject(Fault::error("some_future_error").always());
    let calls = stage.fake.calls(REFRESH);
    let worker = spawn_worker(&stage.rotator());
    tokio::time::sleep(3 * DAY).await;
    let spent = stage.fake.calls(REFRESH) - calls;
    assert!((20..100).contains(&spent), "{spent} calls in three days");
    worker.abort();
    // A caller does not wait for the worker's next try.
    stage.fake.clear_faults();
    let rotator = stage.rotator();
    let asked = rotator.bot_token().await;
    if let Err(error) = asked {
        let Error::TryAgain { at, .. } = error else {
            panic!("{error:?}")
        };
        let wait = at.duration_since(stage.fake.clock().now());
        assert!(wait.unwrap_or_default() <= secs(90));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_was_parked_before_the_app_had_pkce_is_kept_alive_all_the_same() {
    let stage = Stage::installed().await;
    let worker = spawn_worker(&stage.rotator());
    tokio::time::sleep(30 * HOUR).await;
    assert_eq!(stage.refreshes(), 2, "a day of refreshes without a caller");
    // The worker reads the chain, and leaves it to processes that know more.
    stage.fake.advance(20 * DAY);
    tokio::time::sleep(HOUR).await;
    let due_at = stage
        .bot_chain()
        .await
        .chain
        .due_at
        .expect("the chain is due again");
    let wait = due_at.duration_since(stage.fake.clock().now());
    assert!(
        wait.is_ok_and(|wait| wait > 20 * HOUR),
        "the chain is due once a day"
    );
    assert_eq!(stage.refreshes(), 2);
    worker.abort();
    let worker = spawn_worker(&stage.rotator_with(RotationConfig {
        is_pkce_app: true,
        ..stage.config()
    }));
    stage.fake.advance(DAY);
    tokio::time::sleep(HOUR).await;
    assert_eq!(
        stage.refreshes(),
        3,
        "refreshed before the refresh token expires"
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn while_slack_asks_to_wait_only_those_refresh_who_cannot() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(3).await;
    stage.soften();
    let calls = stage.fake.calls(REFRESH);
    let wait = secs(60);
    stage.inject(Fault::rate_limited(wait));
    let rotator = stage.rotator();
    for _ in 0..10 {
        for tenant in &tenants {
            let token = rotator.token_for(tenant, Credential::Bot).await;
            token.expect("the token is still valid");
            settle().await;
        }
    }
    assert_eq!(stage.fake.calls(REFRESH), calls + 1);
    tokio::time::sleep(wait).await;
    stage.inject(Fault::rate_limited(wait));
    for tenant in &tenants[1..] {
        let token = rotator.token_for(tenant, Credential::Bot).await;
        token.expect("the token is still valid");
        settle().await;
    }
    assert_eq!(stage.fake.calls(REFRESH), calls + 2, "the pause was over");
    // Slack's clock moves, but the pause lasts: this token has expired.
    stage.fake.advance(2 * HOUR);
    let token = rotator.token_for(&tenants[2], Credential::Bot).await;
    token.expect("a new one");
    assert_eq!(stage.fake.calls(REFRESH), calls + 3);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_meets_all_its_tenants_at_once_notes_them_few_by_few() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(40).await;
    let updates = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&updates);
    let rotator = stage.rotator_with_updates(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Way::Done
    });
    let mut fetched = Vec::new();
    for tenant in &tenants {
        let found = stage.store.fetch(tenant, None).await;
        fetched.push(found.expect("available").expect("installed"));
    }
    // All callers have asked before the first task runs that notes a use.
    for installation in fetched {
        let refreshed = rotator.refreshed(installation).await;
        assert!(refreshed.bot_error.is_none());
    }
    settle().await;
    assert_eq!(updates.load(Ordering::SeqCst), 16);
    for _ in 0..2 {
        for tenant in &tenants {
            let found = stage.store.fetch(tenant, None).await;
            let installation = found.expect("available").expect("installed");
            rotator.refreshed(installation).await;
        }
        settle().await;
    }
    assert_eq!(updates.load(Ordering::SeqCst), 40, "each once");
}

#[tokio::test(start_paused = true)]
async fn the_worker_refreshes_ahead_for_tenants_that_are_used_and_parks_the_others() {
    let stage = Stage::installed().await;
    let rotator = stage.rotator();
    let worker = spawn_worker(&rotator);
    // Without a caller, the pair is replaced for about a day, and then no longer.
    for _ in 0..100 {
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(stage.refreshes(), 2);
    let due_at = stage.bot_chain().await.chain.due_at.expect("a far time");
    assert!(due_at > stage.fake.clock().now() + 15 * 24 * HOUR, "parked");
    rotator.bot_token().await.expect("refreshed on demand");
    assert_eq!(stage.refreshes(), 3);
    // A caller asks from time to time, and never waits.
    for _ in 0..40 {
        tokio::time::sleep(HOUR).await;
        let asked = Instant::now();
        rotator.bot_token().await.expect("a token");
        assert_eq!(Instant::now(), asked, "the token was refreshed in advance");
    }
    assert!(stage.refreshes() >= 6);
    assert!(rotator.shutdown(secs(10)).await);
    worker.await.expect("the worker ends with the rotator");
}

#[tokio::test(start_paused = true)]
async fn a_pkce_apps_idle_chain_is_kept_alive() {
    let stage = Stage::installed().await;
    let rotator = stage.rotator_with(RotationConfig {
        is_pkce_app: true,
        ..stage.config()
    });
    let worker = spawn_worker(&rotator);
    for _ in 0..30 {
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(stage.refreshes(), 2, "a day of refreshes without a caller");
    stage.fake.advance(19 * 24 * HOUR);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.refreshes(), 2);
    stage.fake.advance(24 * HOUR);
    tokio::time::sleep(HOUR).await;
    assert_eq!(
        stage.refreshes(),
        3,
        "refreshed before the 30 days are over"
    );
    worker.abort();
}
