//! The operator: a process of its own that rotates the data key while the fleet runs.
//!
//! It finds in the database what an earlier operator has done, so a new one continues after a kill.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};
use slack_installs::{Clock, EncryptedStore, KeyChangeError, KeyId, KeyManager, KeyState};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Failure;
use crate::orders::Orders;
use crate::tally::Report;

/// What an operator does.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Operation {
    /// The data key that is replaced, in hex.
    pub(crate) old: String,
    /// Whether the operator also destroys the old key. Its clock is then 31 minutes ahead, because
    /// a key is not destroyed earlier. Every process must have followed the rotation before.
    pub(crate) destroys: bool,
    /// Where the operator waits to be killed.
    pub(crate) place: Option<Place>,
}

/// A call of the database.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Place {
    /// The number of the call, from 1.
    pub(crate) call: usize,
    /// Whether the call is made.
    pub(crate) is_after: bool,
}

pub(crate) async fn run(
    orders: &Orders,
    operation: &Operation,
    backend: Arc<dyn Backend>,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<(), Failure> {
    let backend = Counted {
        inner: backend,
        calls: AtomicUsize::new(0),
        place: operation.place,
        reports: reports.clone(),
    };
    let store = EncryptedStore::open(backend, orders.keys().await?, orders.client_id()?).await?;
    let ahead = if operation.destroys {
        AHEAD
    } else {
        Duration::ZERO
    };
    let store = store.with_clock(Clock::from_fn(move || SystemTime::now() + ahead));
    rotate(&store.keys(), operation, &reports).await
}

/// Carries the rotation on from where it is.
async fn rotate(
    keys: &KeyManager<'_, Counted>,
    operation: &Operation,
    reports: &mpsc::UnboundedSender<Report>,
) -> Result<(), Failure> {
    loop {
        let listed = keys.list().await?.keys;
        let old = listed
            .iter()
            .find(|key| key.id.to_string() == operation.old);
        let Some(old) = old else {
            return Ok(());
        };
        match old.state {
            KeyState::Primary => {
                let added = listed.iter().find(|key| key.state == KeyState::Distributed);
                let new = match added {
                    Some(added) => added.id,
                    None => keys.add().await?,
                };
                // The fleet has run for seconds, and a key may be promoted after 15 minutes.
                keys.promote(new, true).await?;
            }
            _ if operation.destroys => {
                while reseal(keys, reports).await? > 0 {}
                keys.destroy(old.id).await?;
            }
            _ => {
                reseal(keys, reports).await?;
                return is_kept(keys, old.id).await;
            }
        }
    }
}

/// Seals all rows again. Returns how many may still be under the old key.
async fn reseal(
    keys: &KeyManager<'_, Counted>,
    reports: &mpsc::UnboundedSender<Report>,
) -> Result<usize, Failure> {
    let (mut left, mut from) = (0, None);
    loop {
        let began = Instant::now();
        let page = keys.reseal(from, PAGE).await?;
        if !page.skipped.is_empty() {
            return Err(format!("rows do not open: {:?}", page.skipped).into());
        }
        // Fails only if the process is ending.
        let _ = reports.send(Report::Resealed(began.elapsed(), page.resealed));
        left += page.overtaken;
        from = page.next;
        if from.is_none() {
            return Ok(left);
        }
    }
}

/// Checks that a key which was just retired is not destroyed.
async fn is_kept(keys: &KeyManager<'_, Counted>, old: KeyId) -> Result<(), Failure> {
    match keys.destroy(old).await {
        Err(KeyChangeError::TooEarly { .. }) => Ok(()),
        other => Err(format!("a key that was just retired: {other:?}").into()),
    }
}

/// Counts the calls of the database, and stops at one of them.
struct Counted {
    inner: Arc<dyn Backend>,
    calls: AtomicUsize,
    place: Option<Place>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Counted {
    async fn call<T>(&self, call: impl Future<Output = T> + Send) -> T {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let place = self.place.filter(|place| place.call == number);
        match place {
            None => call.await,
            Some(place) => {
                if place.is_after {
                    call.await;
                }
                // Fails only if the process is ending.
                let _ = self.reports.send(Report::Paused);
                std::future::pending().await
            }
        }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

#[async_trait]
impl Backend for Counted {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.call(self.inner.read(partition, slots)).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.call(self.inner.commit(partition, changes)).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.call(self.inner.scan(scope, from, limit)).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.call(self.inner.due(queue, now, from, limit)).await
    }
}

/// More than the time for which a retired key is kept.
const AHEAD: Duration = Duration::from_secs(31 * 60);

const PAGE: usize = 500;
