//! A database in trouble: it refuses commits, rows are locked, or a node has no free connection.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slack_installs::backend::{Change, Error, Slot};
use tokio::time::{Instant, sleep};

use crate::sky::{Link, Sky};
use crate::weather::{CALM, Weather};

/// How often a trouble begins, of 1,000 calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Troubles {
    /// Every commit of every node fails for a while, as on a full disk.
    pub(crate) refuses: u32,
    /// A row is locked for a while. Its commits wait, and fail if the lock stays.
    pub(crate) locks: u32,
    /// A node's pool is empty for a while. Its calls wait, and fail if it stays empty.
    pub(crate) drains: u32,
}

pub(crate) const NONE: Troubles = Troubles {
    refuses: 0,
    locks: 0,
    drains: 0,
};

pub(crate) const WEATHERS: [Weather; 3] = [
    Weather {
        name: "refusing",
        database: Troubles {
            refuses: 60,
            ..NONE
        },
        ..CALM
    },
    Weather {
        name: "locking",
        database: Troubles { locks: 200, ..NONE },
        ..CALM
    },
    Weather {
        name: "draining",
        database: Troubles { drains: 60, ..NONE },
        ..CALM
    },
];

impl Troubles {
    pub(crate) fn is_none(&self) -> bool {
        self.refuses == 0 && self.locks == 0 && self.drains == 0
    }
}

/// When each trouble ends.
#[derive(Default)]
pub(crate) struct Ends {
    refusal: Option<Instant>,
    /// By the row's slot.
    locks: HashMap<Slot, Instant>,
    /// By the number of the node's life.
    drains: HashMap<usize, Instant>,
}

impl Link {
    /// Waits for a connection to the database.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        if !self.has_started.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.sky.begins(self.sky.weather.database.drains) {
            let end = self.sky.end_of_trouble();
            self.sky.ends().drains.insert(self.life, end);
        }
        let end = self.sky.ends().drains.get(&self.life).copied();
        self.sky
            .wait(end, ACQUIRE_TIMEOUT, "no connection is free")
            .await
    }

    /// Waits until no row of this commit is locked.
    pub(crate) async fn lock(&self, changes: &[Change]) -> Result<(), Error> {
        if !self.has_started.load(Ordering::SeqCst) {
            return Ok(());
        }
        let Troubles { refuses, locks, .. } = self.sky.weather.database;
        let slots: Vec<_> = changes.iter().filter_map(Change::slot).collect();
        if self.sky.begins(refuses) {
            let end = self.sky.end_of_trouble();
            self.sky.ends().refusal = Some(end);
        }
        if self.sky.begins(locks) {
            let end = self.sky.end_of_trouble();
            let slots = slots.iter().map(|slot| ((*slot).clone(), end));
            self.sky.ends().locks.extend(slots);
        }
        let (refusal, lock) = {
            let ends = self.sky.ends();
            let locks = slots.iter().filter_map(|slot| ends.locks.get(*slot));
            (ends.refusal, locks.max().copied())
        };
        self.sky
            .wait(lock, LOCK_TIMEOUT, "the row is locked")
            .await?;
        self.sky
            .wait(refusal, Duration::ZERO, "the disk is full")
            .await
    }
}

impl Sky {
    /// Rolls the dice only in weathers that have this trouble.
    fn begins(&self, per_mille: u32) -> bool {
        per_mille > 0 && !self.is_clear() && self.dice(|dice| dice.hits(per_mille))
    }

    fn end_of_trouble(&self) -> Instant {
        let millis = |from, to| self.dice(|dice| dice.millis(from, to));
        // Half of the troubles are over before the first call gives up.
        let is_short = self.dice(|dice| dice.hits(500));
        Instant::now()
            + if is_short {
                millis(1, 2_000)
            } else {
                millis(2_000, 90_000)
            }
    }

    /// Waits for the end of a trouble, and fails if it lasts longer than a call waits.
    async fn wait(&self, end: Option<Instant>, most: Duration, why: &str) -> Result<(), Error> {
        let left = end.map_or(Duration::ZERO, |end| {
            end.saturating_duration_since(Instant::now())
        });
        if left.is_zero() || self.is_clear() {
            return Ok(());
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        sleep(left.min(most)).await;
        if left > most {
            return Err(Error::Unavailable(why.into()));
        }
        Ok(())
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.trouble.lock().expect("no panic")
    }
}

/// The times of `PostgresOptions` by default.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
