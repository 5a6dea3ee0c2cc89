//! How one tenant's failures affect the other tenants, and how a failure at Slack affects all of
//! them.

use slack_installs::rotation::Error;
use slack_installs::store::{Credential, RotationStore as _};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationStore as _, TokenRotator};

use super::support::rotation::{BotToken as _, REFRESH, Stage, alpha, secs, settle, spawn_worker};

#[tokio::test(start_paused = true)]
async fn what_slack_says_of_one_token_stops_nobody_else() {
    for code in [
        "client_id_token_mismatch",
        "not_allowed_token_type",
        "invalid_arguments",
    ] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = stage.fleet(2).await;
        stage.expire();
        stage.inject(Fault::error(code));
        let rotator = stage.rotator();
        let calls = stage.fake.calls(REFRESH);
        for _ in 0..5 {
            let error = rotator.token_for(&tenants[0], Credential::Bot).await;
            let error = error.expect_err("refused");
            let Error::TryAgain { code: found, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(found.as_str(), code);
        }
        assert_eq!(
            stage.fake.calls(REFRESH),
            calls + 1,
            "the tenant waits alone"
        );
        let token = rotator.token_for(&tenants[1], Credential::Bot).await;
        token.expect("the other tenant gets its token");
        tokio::time::sleep(secs(3)).await;
        let token = rotator.token_for(&tenants[0], Credential::Bot).await;
        token.expect("the chain was not marked dead");
    }
}

#[tokio::test(start_paused = true)]
async fn while_refusals_go_on_none_but_the_first_are_given_up() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(60).await;
    stage.expire();
    stage.inject(Fault::error("invalid_refresh_token").always());
    let rotator = stage.rotator();
    let mut dead = 0;
    for tenant in &tenants {
        let error = rotator.token_for(tenant, Credential::Bot).await;
        let error = error.expect_err("refused");
        dead += usize::from(matches!(error, Error::ReinstallNeeded { .. }));
        tokio::time::sleep(secs(12)).await;
    }
    assert_eq!(dead, 20, "chains that died in twelve minutes of refusals");
}

async fn is_well(rotator: &TokenRotator) -> bool {
    rotator.bot_token().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_operator_revives_a_chain_that_slack_refused_by_mistake() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::error("invalid_refresh_token"));
    let rotator = stage.rotator();
    assert!(!is_well(&rotator).await);
    assert!(!is_well(&rotator).await, "it is dead");
    let due = async || {
        let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
        due.expect("available").0.len()
    };
    assert_eq!(due().await, 0, "only a reinstall helps");
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(revived.expect("available"), "it was dead");
    assert_eq!(
        due().await,
        1,
        "a worker tries the chain if no caller does before"
    );
    assert!(is_well(&rotator).await);
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(!revived.expect("available"), "it was alive");
    let all = slack_installs::Delete::all();
    stage.store.delete(&alpha(), &all).await.expect("available");
    let error = rotator.revive(&alpha(), Credential::Bot).await;
    assert_matches!(error, Err(Error::NotInstalled { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_revived_chain_is_due_and_a_worker_serves_it_unasked() {
    let stage = Stage::installed().await;
    stage.soften();
    stage.inject(Fault::error("invalid_refresh_token"));
    let rotator = stage.rotator();
    rotator.bot_token().await.expect("the token is still valid");
    settle().await;
    assert!(stage.bot_chain().await.chain.is_dead);
    let due = async || {
        let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
        due.expect("available").0.len()
    };
    assert_eq!(due().await, 0, "no process can do anything");
    let revived = rotator.revive(&alpha(), Credential::Bot).await;
    assert!(revived.expect("available"));
    assert_eq!(due().await, 1);
    let worker = stage.rotator();
    let work = spawn_worker(&worker);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1, "unasked");
    assert!(worker.shutdown(secs(10)).await);
    work.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn many_deaths_at_once_are_not_believed() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(40).await;
    stage.expire();
    stage.inject(Fault::error("invalid_refresh_token").always());
    let rotator = stage.rotator();
    let mut dead = 0;
    for tenant in &tenants {
        match rotator.token_for(tenant, Credential::Bot).await {
            Err(Error::ReinstallNeeded { .. }) => dead += 1,
            Err(Error::TryAgain { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dead, 20);
    stage.fake.clear_faults();
    tokio::time::sleep(secs(600)).await;
    let mut well = 0;
    for tenant in &tenants {
        well += usize::from(rotator.token_for(tenant, Credential::Bot).await.is_ok());
    }
    assert_eq!(well, 20, "the other tenants only waited");
}
