//! What happens while nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::rotation::{Error, WorkerConfig};
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationStore as _, RotationConfig, TokenRotator};
use tokio::task::JoinHandle;

use super::support::rotation::{HOUR, Stage, alpha, settle};
use super::{REFRESH, Way, fleet, installed, rotator_over};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn working(rotator: TokenRotator) -> JoinHandle<()> {
    tokio::spawn(async move { rotator.work(WorkerConfig::default()).await })
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_nobody_uses_and_that_cannot_be_refreshed_is_tried_ever_more_rarely() {
    let stage = installed().await;
    stage
        .fake
        .inject(REFRESH, Fault::error("some_future_error").always());
    let calls = stage.fake.calls(REFRESH);
    let worker = working(stage.rotator());
    tokio::time::sleep(3 * DAY).await;
    let spent = stage.fake.calls(REFRESH) - calls;
    assert!((20..100).contains(&spent), "{spent} calls in three days");
    worker.abort();
    // Whoever needs a token does not wait for the worker.
    stage.fake.clear_faults();
    let rotator = stage.rotator();
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    if let Err(error) = asked {
        let Error::TryAgain { at, .. } = error else {
            panic!("{error:?}")
        };
        let wait = at.duration_since(stage.fake.clock().now());
        assert!(wait.unwrap_or_default() <= Duration::from_secs(90));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_was_parked_before_the_app_had_pkce_is_kept_alive_all_the_same() {
    let stage = installed().await;
    let worker = working(stage.rotator());
    tokio::time::sleep(30 * HOUR).await;
    assert_eq!(stage.refreshes(), 2, "a day of pairs that nobody asked for");
    // It is looked at, and left to processes that know more.
    stage.fake.advance(20 * DAY);
    tokio::time::sleep(HOUR).await;
    let due_at = stage
        .bot_chain()
        .await
        .chain
        .due_at
        .expect("looked at again");
    let wait = due_at.duration_since(stage.fake.clock().now());
    assert!(
        wait.is_ok_and(|wait| wait > 20 * HOUR),
        "not again and again"
    );
    assert_eq!(stage.refreshes(), 2);
    worker.abort();
    let worker = working(stage.rotator_with(RotationConfig {
        is_pkce_app: true,
        ..stage.config()
    }));
    stage.fake.advance(DAY);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.refreshes(), 3, "before its refresh token ends");
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn while_slack_asks_to_wait_only_those_refresh_who_cannot() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 3).await;
    stage.soften();
    let calls = stage.fake.calls(REFRESH);
    let wait = Duration::from_secs(60);
    stage.fake.inject(REFRESH, Fault::rate_limited(wait));
    let rotator = stage.rotator();
    for _ in 0..10 {
        for tenant in &tenants {
            let token = rotator.token_for(tenant, Credential::Bot).await;
            token.expect("it serves still");
            settle().await;
        }
    }
    assert_eq!(stage.fake.calls(REFRESH), calls + 1);
    tokio::time::sleep(wait).await;
    stage.fake.inject(REFRESH, Fault::rate_limited(wait));
    for tenant in &tenants[1..] {
        let token = rotator.token_for(tenant, Credential::Bot).await;
        token.expect("it serves still");
        settle().await;
    }
    assert_eq!(stage.fake.calls(REFRESH), calls + 2, "the pause was over");
    // Slack's clock moves, and the pause does not pass: this token is over.
    stage.fake.advance(2 * HOUR);
    let token = rotator.token_for(&tenants[2], Credential::Bot).await;
    token.expect("a new one");
    assert_eq!(stage.fake.calls(REFRESH), calls + 3);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_meets_all_its_tenants_at_once_notes_them_few_by_few() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 40).await;
    let updates = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&updates);
    let rotator = rotator_over(&stage, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Way::Done
    });
    let mut fetched = Vec::new();
    for tenant in &tenants {
        let found = stage.store.fetch(tenant, None).await;
        fetched.push(found.expect("answers").expect("installed"));
    }
    // None of the tasks that note runs before all have asked.
    for installation in fetched {
        let refreshed = rotator.refreshed(installation).await;
        assert!(refreshed.bot_error.is_none());
    }
    settle().await;
    assert_eq!(updates.load(Ordering::SeqCst), 16);
    for _ in 0..2 {
        for tenant in &tenants {
            let found = stage.store.fetch(tenant, None).await;
            let installation = found.expect("answers").expect("installed");
            rotator.refreshed(installation).await;
        }
        settle().await;
    }
    assert_eq!(updates.load(Ordering::SeqCst), 40, "each once");
}
