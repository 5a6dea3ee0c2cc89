//! Pages of a migration that fail between the list and the last exchange.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::rotation::Error as RotationError;
use slack_installs::store::{
    Chain, ChainKey, Delete, Error, ListCursor, RotationStore, StoredChain,
};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{Grant, InstallationStore as _, TokenRotator};
use tokio::time::Instant;

use super::support::hooked_chains::Way;
use super::support::rotation::{Stage, Store, settle};

const EXCHANGE: &str = "oauth.v2.exchange";

/// Returns tenants with long-lived tokens, of an app that has just turned rotation on, and their
/// chains in the order of a page.
async fn unrotated(size: usize) -> (Stage, Vec<ChainKey>) {
    let stage = Stage::unrotated().await;
    stage.fleet(size).await;
    stage.fake.rotate_tokens(Rotation::default());
    let (keys, _) = stage.store.chains(None, 100).await.expect("available");
    assert_eq!(keys.len(), size);
    (stage, keys)
}

/// A store in which one chain cannot be read.
struct Unread(Store, ChainKey);

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread")
    }
}

#[async_trait]
impl RotationStore for Unread {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        if *key == self.1 {
            return Err(Error::Unavailable("down".into()));
        }
        self.0.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        self.0.update(key, offered, decide).await
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.0.chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.0.due(now, from, limit).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.0.sweep().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_removed_after_its_page_was_listed_is_passed_over() {
    let (stage, keys) = unrotated(3).await;
    let (rotator, held) = (stage.rotator(), Fault::delay(Duration::from_secs(5)));
    stage.fake.inject(EXCHANGE, held);
    let page = tokio::spawn(async move { rotator.migrate(None, 100).await });
    // The first exchange is in progress.
    settle().await;
    assert_eq!(stage.fake.calls(EXCHANGE), 1);
    let deleted = stage.store.delete(&keys[1].tenant, &Delete::all()).await;
    assert!(deleted.expect("available"));
    let page = page.await.expect("no panic").expect("a page");
    assert_eq!((page.exchanged, page.already, page.kept.len()), (2, 0, 0));
    assert_eq!(stage.fake.calls(EXCHANGE), 2);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_cannot_be_read_is_named_and_the_rest_of_its_page_is_exchanged() {
    let (stage, keys) = unrotated(3).await;
    let store = Unread(stage.store.clone(), keys[1].clone());
    let rotator = TokenRotator::new(stage.config(), stage.slack(), store);
    let rotator = rotator.with_clock(stage.fake.clock());
    let page = rotator.migrate(None, 100).await.expect("a page");
    assert_eq!((page.exchanged, page.already, page.kept.len()), (2, 0, 1));
    let (key, error) = &page.kept[0];
    assert_eq!(*key, keys[1]);
    assert!(matches!(error, RotationError::Store(_)), "{error:?}");
    let stored = stage.store.chain(&keys[1]).await.expect("available");
    assert_eq!(stored.expect("installed").chain.refresh, None);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_task_dies_ends_the_page() {
    let (stage, _) = unrotated(2).await;
    // The task dies at the intent of the first tenant.
    let page = stage.dying(0).migrate(None, 100).await;
    assert!(matches!(page, Err(RotationError::Interrupted)), "{page:?}");
    assert_eq!(stage.fake.calls(EXCHANGE), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_exchange_died_with_its_process_is_named_so_and_never_exchanged_again() {
    let (stage, _) = unrotated(1).await;
    // The task dies at the save.
    let page = stage.dying(1).migrate(None, 100).await;
    assert!(matches!(page, Err(RotationError::Interrupted)), "{page:?}");
    assert_eq!(stage.fake.calls(EXCHANGE), 1);
    stage.fake.advance(Duration::from_secs(16));
    let page = stage.rotator().migrate(None, 100).await.expect("a page");
    let (_, error) = &page.kept[0];
    assert!(
        matches!(error, RotationError::NotExchanged { code }
            if code.as_str() == "exchange_had_no_answer"),
        "{error:?}"
    );
    assert_eq!(stage.fake.calls(EXCHANGE), 1);
}

#[tokio::test(start_paused = true)]
async fn a_page_waits_a_minute_for_an_exchange_whose_pair_cannot_be_saved() {
    let (stage, keys) = unrotated(1).await;
    let rotator = stage.rotator_with_updates(|number| match number {
        1..40 => Way::Failed,
        _ => Way::Done,
    });
    let begun = Instant::now();
    let page = rotator.migrate(None, 100).await.expect("a page");
    assert_eq!(begun.elapsed().as_secs(), 60);
    let (_, error) = &page.kept[0];
    assert!(matches!(error, RotationError::Busy), "{error:?}");
    // The exchange continues, and its pair is saved when the database is back.
    assert!(rotator.shutdown(Duration::from_secs(600)).await);
    let stored = stage.store.chain(&keys[0]).await.expect("available");
    assert!(stored.expect("installed").chain.refresh.is_some());
}
