//! Times on which processes must agree.

use slack_installs::store::{ChainKey, Credential, RotationStore as _};

use super::support::rotation::{HOUR, Stage, secs};

#[tokio::test(start_paused = true)]
async fn every_process_finds_a_chain_due_at_the_same_time_and_tenants_apart() {
    let stage = Stage::installed().await;
    let mut soft_at = Vec::new();
    for tenant in stage.fleet(20).await {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant,
        };
        let mut seen = Vec::new();
        for _ in 0..5 {
            let stored = stage.store.chain(&key).await.expect("available");
            seen.push(stored.expect("installed").chain.soft_at().expect("it ends"));
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "each reading is a process");
        let chain = stage.store.chain(&key).await.expect("available");
        let ends = chain.expect("installed").chain.expires_at.expect("it ends");
        let before = ends
            .duration_since(seen[0])
            .expect("the time is before the expiry");
        assert!(
            (HOUR * 3 / 2..=HOUR * 5 / 2).contains(&before),
            "{before:?}"
        );
        soft_at.push(seen[0]);
    }
    soft_at.sort();
    let spread = soft_at[19].duration_since(soft_at[0]).expect("sorted");
    assert!(spread > secs(10 * 60), "{spread:?}");
}
