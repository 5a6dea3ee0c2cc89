//! What the app hears of a dead credential that a sweep or a call deletes.

use std::sync::Mutex;

use async_trait::async_trait;
use slack_installs::rotation::TokenRotator;
use slack_installs::store::{Credential, Notice};
use slack_installs::{Departure, LifecycleHooks, RotationConfig};

use super::*;
use crate::support::app::user_id;

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(Credential, Notice)>>);

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[async_trait]
impl LifecycleHooks for Heard {
    async fn uninstalled(&self, _: &Departure, _: bool) -> Outcome {
        Ok(())
    }

    async fn authorization_revoked(&self, whose: &Credential, notice: &Notice) -> Outcome {
        let mut heard = self.0.lock().expect("no test panics with it");
        heard.push((whose.clone(), notice.clone()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_app_is_told_of_a_dead_credential_that_a_sweep_deletes() {
    let life = Life::new().await;
    life.install(ADA).await;
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    let heard = Arc::new(Heard::default());
    for repairs in [false, true, true] {
        let lifecycle = life.lifecycle.clone().with_hooks(Arc::clone(&heard));
        let (store, slack) = (life.app.store.clone(), life.app.slack.clone());
        let operator = Operator::new(store, slack, lifecycle, credentials(&life.app.fake));
        let report = operator.reconcile(&sweep(repairs)).await;
        report.expect("the database responds");
        let count = heard.0.lock().expect("no test panics with it").len();
        assert_eq!(count, usize::from(repairs), "only a repair is told, once");
    }
    assert_eq!(life.slots(ALPHA).await, ["bot", "install"]);
    let heard = heard.0.lock().expect("no test panics with it");
    let (whose, notice) = &heard[0];
    assert!(matches!(whose, Credential::User(id) if id.as_str() == ADA));
    assert_eq!(notice.key, key(ALPHA));
    assert_eq!(notice.reason, "reconcile: its token is dead");
}

#[tokio::test(start_paused = true)]
async fn the_app_is_told_of_a_dead_credential_that_its_own_call_deletes() {
    let life = Life::new().await;
    life.install(ADA).await;
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    let heard = Arc::new(Heard::default());
    let lifecycle = life.lifecycle.clone().with_hooks(Arc::clone(&heard));
    let (store, slack) = (life.app.store.clone(), life.app.slack.clone());
    let app = credentials(&life.app.fake);
    let operator = Operator::new(store.clone(), slack.clone(), lifecycle, app.clone());
    let rotator = TokenRotator::new(RotationConfig::new(app), slack.clone(), store)
        .with_clock(life.app.fake.clock());
    let rotator = operator.heal_calls(rotator);
    let (tenant, credential) = (key(ALPHA), Credential::User(user_id(ADA)));
    let called = rotator.call(&tenant, credential, |token| {
        let slack = slack.clone();
        async move { slack.auth_test(&token.access_token).await.map(drop) }
    });
    called.await.expect_err("Slack refuses the token");
    assert!(rotator.shutdown(Duration::from_secs(100)).await);
    assert_eq!(life.slots(ALPHA).await, ["bot", "install"]);
    let heard = heard.0.lock().expect("no test panics with it");
    let [(whose, notice)] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert!(matches!(whose, Credential::User(id) if id.as_str() == ADA));
    assert_eq!(notice.key, tenant);
    assert_eq!(notice.reason, "call: its token is dead");
}
