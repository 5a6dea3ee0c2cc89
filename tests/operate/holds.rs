//! A hold ends when an operator says so, and not when the tenant uninstalls the app.

use slack_installs::store::LifecycleStore as _;

use super::*;

async fn is_held(life: &Life) -> bool {
    let held = life.app.store.held(&key(ALPHA)).await.expect("responds");
    held.is_some_and(|hold| hold.is_on)
}

#[tokio::test]
async fn a_tenant_that_uninstalls_and_installs_again_is_still_on_hold() {
    let life = Life::new().await;
    life.install(ADA).await;
    let operator = operator(&life);
    let frozen = operator.freeze(&key(ALPHA), "ticket 1").await;
    frozen.expect("installed");
    for _ in 0..2 {
        life.advance(3600);
        let uninstalled = life.app.fake.app_uninstalled(ALPHA);
        assert_eq!(life.handled(&uninstalled).await, Handled::Purged);
        assert!(life.app.fetch(ALPHA, None).await.is_none());
        life.advance(3600);
        life.install(ADA).await;
        assert_eq!(refusal(&life, ALPHA).await, "the tenant is on hold");
    }
    let lifted = operator.unfreeze(&key(ALPHA), "solved").await;
    lifted.expect("installed");
    assert_eq!(refusal(&life, ALPHA).await, "served");
}

#[tokio::test]
async fn a_hold_is_lifted_while_the_app_is_not_installed() {
    let life = Life::new().await;
    life.install(ADA).await;
    let operator = operator(&life);
    let frozen = operator.freeze(&key(ALPHA), "ticket 1").await;
    frozen.expect("installed");
    assert!(operator.purge(&key(ALPHA), "left").await.expect("purged"));
    assert!(is_held(&life).await);
    let lifted = operator.unfreeze(&key(ALPHA), "solved").await;
    lifted.expect("it was on hold");
    let again = operator.unfreeze(&key(ALPHA), "solved").await;
    assert_matches!(again, Err(OperateError::NotInstalled));
    life.install(ADA).await;
    assert_eq!(refusal(&life, ALPHA).await, "served");
}

#[tokio::test]
async fn a_revocation_ends_its_own_hold_and_keeps_one_that_was_on_before() {
    for was_on in [false, true] {
        let life = Life::new().await;
        life.install(ADA).await;
        let operator = operator(&life);
        if was_on {
            let frozen = operator.freeze(&key(ALPHA), "ticket 1").await;
            frozen.expect("installed");
        }
        let revoked = operator.revoke(&key(ALPHA), "ticket 2").await;
        assert_eq!(revoked.expect("revoked"), RevokeOutcome::Uninstalled);
        assert_eq!(is_held(&life).await, was_on);
        let again = operator.revoke(&key(ALPHA), "ticket 2").await;
        assert_eq!(again.expect("repeatable"), RevokeOutcome::NotInstalled);
        assert_eq!(is_held(&life).await, was_on);
        life.install(ADA).await;
        let expected = if was_on {
            "the tenant is on hold"
        } else {
            "served"
        };
        assert_eq!(refusal(&life, ALPHA).await, expected);
    }
}

#[tokio::test]
async fn a_workspace_on_hold_is_not_served_by_its_organisation_after_it_uninstalled() {
    let life = Life::new().await;
    life.install("U0GRIDUSR02").await;
    life.install(Who::user(OLGA).at(ORG)).await;
    let operator = operator(&life);
    let frozen = operator.freeze(&key(SALES), "ticket 1").await;
    frozen.expect("installed");
    assert_eq!(refusal(&life, SALES).await, "the tenant is on hold");
    assert!(operator.purge(&key(SALES), "left").await.expect("purged"));
    assert_eq!(refusal(&life, SALES).await, "the tenant is on hold");
    let lifted = operator.unfreeze(&key(SALES), "solved").await;
    lifted.expect("it was on hold");
    assert_eq!(refusal(&life, SALES).await, "served");
}
