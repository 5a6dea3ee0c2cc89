//! What one tenant's trouble is to the others, and what a mistake at Slack's is to all.

use std::time::Duration;

use slack_installs::rotation::{Error, WorkerConfig};
use slack_installs::store::{Credential, RotationStore as _};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationStore as _, TokenRotator};

use super::support::rotation::{Stage, alpha, settle};
use super::{REFRESH, fleet, installed};

#[tokio::test(start_paused = true)]
async fn what_slack_says_of_one_token_stops_nobody_else() {
    for code in [
        "client_id_token_mismatch",
        "not_allowed_token_type",
        "invalid_arguments",
    ] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = fleet(&stage, 2).await;
        stage.expire();
        stage.fake.inject(REFRESH, Fault::error(code));
        let rotator = stage.rotator();
        let calls = stage.fake.calls(REFRESH);
        for _ in 0..5 {
            let error = rotator.token_for(&tenants[0], Credential::Bot).await;
            let error = error.expect_err("refused");
            assert!(
                matches!(&error, Error::TryAgain { code: found, .. } if found.as_str() == code),
                "{error:?}"
            );
        }
        assert_eq!(stage.fake.calls(REFRESH), calls + 1, "it waits by itself");
        let token = rotator.token_for(&tenants[1], Credential::Bot).await;
        token.expect("the other tenant's");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let token = rotator.token_for(&tenants[0], Credential::Bot).await;
        token.expect("nothing was concluded");
    }
}

#[tokio::test(start_paused = true)]
async fn while_refusals_go_on_none_but_the_first_are_given_up() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, 60).await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::error("invalid_refresh_token").always());
    let rotator = stage.rotator();
    let mut dead = 0;
    for tenant in &tenants {
        let error = rotator.token_for(tenant, Credential::Bot).await;
        let error = error.expect_err("refused");
        dead += usize::from(matches!(error, Error::ReinstallNeeded { .. }));
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    assert_eq!(dead, 20, "in twelve minutes of refusals");
}

async fn is_well(rotator: &TokenRotator) -> bool {
    rotator.token_for(&alpha(), Credential::Bot).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_operator_revives_a_chain_that_slack_refused_by_mistake() {
    let stage = installed().await;
    stage.expire();
    stage
        .fake
        .inject(REFRESH, Fault::error("invalid_refresh_token"));
    let rotator = stage.rotator();
    assert!(!is_well(&rotator).await);
    assert!(!is_well(&rotator).await, "it is dead");
    let due = async || {
        let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
        due.expect("answers").0.len()
    };
    assert_eq!(due().await, 0, "only a reinstall helps");
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(revived.expect("answers"), "it was dead");
    assert_eq!(due().await, 1, "a worker serves it, if nobody asks before");
    assert!(is_well(&rotator).await);
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(!revived.expect("answers"), "it was alive");
    let all = slack_installs::Delete::all();
    stage.store.delete(&alpha(), &all).await.expect("answers");
    let error = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(matches!(error, Err(Error::NotInstalled)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revived_chain_is_due_and_a_worker_serves_it_unasked() {
    let stage = installed().await;
    stage.soften();
    stage
        .fake
        .inject(REFRESH, Fault::error("invalid_refresh_token"));
    let rotator = stage.rotator();
    rotator
        .token_for(&alpha(), Credential::Bot)
        .await
        .expect("it serves still");
    settle().await;
    assert!(stage.bot_chain().await.chain.is_dead);
    let due = async || {
        let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
        due.expect("answers").0.len()
    };
    assert_eq!(due().await, 0, "nobody can do anything");
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(revived.expect("answers"));
    assert_eq!(due().await, 1);
    let worker = stage.rotator();
    let work = worker.clone();
    let work = tokio::spawn(async move { work.work(WorkerConfig::default()).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1, "unasked");
    assert!(worker.shutdown(Duration::from_secs(10)).await);
    work.await.expect("no panic");
}
