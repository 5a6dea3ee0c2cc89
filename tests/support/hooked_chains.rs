//! A store of refresh chains between a rotator and its database. It has a hook for each call that
//! changes a chain or lists due chains.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::Grant;
use slack_installs::store::{Chain, ChainKey, Error, ListCursor, RotationStore, StoredChain};
use tokio::time::{Instant, sleep};

use super::rotation::Store;

/// The fate of an update.
pub(crate) enum Way {
    Done,
    /// The update is not applied.
    Failed,
    /// The update is applied, and its response is lost.
    Lost,
    /// The update is applied, and its result arrives after this time.
    Slow(Duration),
    /// The update is not applied, because the row does not open.
    Unreadable,
    /// The task panics.
    Dies,
}

/// How long a look for due chains takes, and what it finds. `None` means the store's own result, or
/// a failure.
pub(crate) type Look = (Duration, Option<Vec<ChainKey>>);

/// Counts updates, looks and sweeps. Hooks decide the fate of each one by its number. Clones share
/// all of this.
#[derive(Clone)]
pub(crate) struct HookedChains(Arc<Inner>);

struct Inner {
    store: Store,
    way: Box<dyn Fn(usize) -> Way + Send + Sync>,
    look: Box<dyn Fn(usize) -> Look + Send + Sync>,
    updates: AtomicUsize,
    looks: Mutex<Vec<(Instant, usize)>>,
    sweeps: Mutex<Vec<Instant>>,
}

impl HookedChains {
    pub(crate) fn new(
        store: Store,
        way: impl Fn(usize) -> Way + Send + Sync + 'static,
        look: impl Fn(usize) -> Look + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            way: Box::new(way),
            look: Box::new(look),
            updates: AtomicUsize::new(0),
            looks: Mutex::default(),
            sweeps: Mutex::default(),
        }))
    }

    /// Returns the number of updates that were requested.
    pub(crate) fn updates(&self) -> usize {
        self.0.updates.load(Ordering::SeqCst)
    }

    /// Returns when due chains were listed, each with its limit.
    pub(crate) fn looks(&self) -> Vec<(Instant, usize)> {
        self.0.looks.lock().expect("no panic").clone()
    }

    /// Returns when sweeps ran.
    pub(crate) fn sweeps(&self) -> Vec<Instant> {
        self.0.sweeps.lock().expect("no panic").clone()
    }
}

impl fmt::Debug for HookedChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedChains")
    }
}

#[async_trait]
impl RotationStore for HookedChains {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        self.0.store.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let away = || Err(Error::Unavailable("down".into()));
        let way = (self.0.way)(self.0.updates.fetch_add(1, Ordering::SeqCst));
        match way {
            Way::Failed => return away(),
            Way::Unreadable => return Err(Error::Unreadable("changed".into())),
            // Panics on purpose, without a message.
            Way::Dies => std::panic::resume_unwind(Box::new("the task dies")),
            Way::Done | Way::Lost | Way::Slow(_) => {}
        }
        let updated = self.0.store.update(key, offered, decide).await;
        match way {
            Way::Lost => updated.and_then(|_| away()),
            Way::Slow(wait) => {
                sleep(wait).await;
                updated
            }
            _ => updated,
        }
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.0.store.chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        let number = {
            let mut looks = self.0.looks.lock().expect("no panic");
            looks.push((Instant::now(), limit));
            looks.len() - 1
        };
        let (takes, found) = (self.0.look)(number);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        match found {
            Some(found) => Ok((found, None)),
            None if takes.is_zero() => self.0.store.due(now, from, limit).await,
            None => Err(Error::Unavailable("down".into())),
        }
    }

    async fn sweep(&self) -> Result<usize, Error> {
        let swept = self.0.store.sweep().await;
        let mut sweeps = self.0.sweeps.lock().expect("no panic");
        sweeps.push(Instant::now());
        swept
    }
}
