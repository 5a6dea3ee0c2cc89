//! A process that stands still between the lease and the call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::rotation::Error as RotationError;
use slack_installs::store::{
    Chain, ChainKey, Credential, Error, ListCursor, RotationStore, StoredChain,
};
use slack_installs::{Grant, TokenRotator};

use super::installed;
use super::support::rotation::{Store, alpha};

/// Its first update is carried out, and the answer comes 8 s later: too late to call, since the
/// answer to that might come when the lease is another's.
#[derive(Debug)]
struct Stalling(Store, AtomicBool);

#[async_trait]
impl RotationStore for Stalling {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        self.0.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let answer = self.0.update(key, offered, decide).await;
        if !self.1.swap(true, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
        answer
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
async fn a_process_that_stalled_gives_the_lease_back_and_does_not_call() {
    let stage = installed().await;
    stage.expire();
    let store = Stalling(stage.store.clone(), AtomicBool::new(false));
    let rotator = TokenRotator::new(stage.config(), stage.slack(), store);
    let rotator = rotator.with_clock(stage.fake.clock());
    let outcome = rotator.token_for(&alpha(), Credential::Bot).await;
    let Err(RotationError::TryAgain { code, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((code.as_str(), stage.refreshes()), ("stalled", 0));
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.lease, chain.attempts), (None, 0));
    let token = rotator.token_for(&alpha(), Credential::Bot).await;
    token.expect("it does not stall any more");
    assert_eq!(stage.refreshes(), 1);
}
