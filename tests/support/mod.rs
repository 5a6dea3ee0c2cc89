//! What the tests share.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, clippy::clone_on_ref_ptr)]

#[cfg(feature = "testing")]
pub mod app;
pub(crate) mod backends;
#[macro_use]
pub mod checks;
pub mod houses;
pub(crate) mod installs;
#[cfg(feature = "testing")]
pub mod life;
pub(crate) mod meddling;
pub(crate) mod providers;
#[cfg(feature = "testing")]
pub mod rotation;
#[cfg(feature = "testing")]
pub mod script;
#[cfg(feature = "testing")]
pub mod serving;

use std::sync::Arc;

use slack_installs::backend::{Backend, Change, Cursor, Expect, Key, Row, Version};
use slack_installs::{ClientId, Clock, EncryptedStore, KeyProvider};

use installs::noon;
use providers::master_key;

/// A database, and an app in it that nobody else has: so checks can share one database.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) app: ClientId,
}

/// The store as most tests use it.
pub(crate) type Store = EncryptedStore<Arc<dyn Backend>>;

impl Db {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        let app = ClientId::new(format!("{:?}", Version::mint())).expect("hex digits are allowed");
        Self { backend, app }
    }

    /// The same database, and an app whose id only begins like this one's.
    pub(crate) fn look_alike(&self) -> Self {
        let app = ClientId::new(format!("{}1", self.app)).expect("a digit is allowed");
        Self {
            app,
            ..self.clone()
        }
    }

    /// A process of the app that opens the store.
    pub(crate) async fn store(&self) -> Store {
        self.store_with(master_key()).await
    }

    pub(crate) async fn store_with(
        &self,
        provider: impl Into<slack_installs::LocalKeyProvider>,
    ) -> Store {
        self.store_by(provider.into()).await
    }

    pub(crate) async fn store_by(&self, provider: impl KeyProvider) -> Store {
        self.store_over(Arc::clone(&self.backend), provider).await
    }

    /// A store of this app over a wrapper of this backend.
    pub(crate) async fn store_over<B: Backend>(
        &self,
        backend: B,
        provider: impl KeyProvider,
    ) -> EncryptedStore<B> {
        let opened = EncryptedStore::open(backend, provider, self.app.clone()).await;
        // A store sweeps by its clock, so the system's would take these tests' states away.
        opened
            .expect("the database answers and the master key fits")
            .with_clock(Clock::from_fn(noon))
    }

    /// All rows of this app, in the order of their keys.
    pub(crate) async fn rows(&self) -> Vec<(Key, Row)> {
        let ours = format!("{}/", self.app);
        let mut rows = all_rows(&*self.backend).await;
        rows.retain(|(key, _)| key.partition.as_str().starts_with(&ours));
        rows
    }

    /// The rows of one partition of this app, by slot.
    pub(crate) async fn rows_of(&self, partition: &str) -> Vec<(String, Row)> {
        let partition = format!("{}/{partition}", self.app);
        let rows = self.rows().await.into_iter();
        rows.filter(|(key, _)| key.partition.as_str() == partition)
            .map(|(key, row)| (key.slot.to_string(), row))
            .collect()
    }

    /// One row of this app.
    pub(crate) async fn row(&self, partition: &str, slot: &str) -> (Key, Row) {
        let partition = format!("{}/{partition}", self.app);
        let mut rows = self.rows().await.into_iter();
        let found =
            rows.find(|(key, _)| key.partition.as_str() == partition && key.slot.as_str() == slot);
        found.expect("the row was written")
    }

    /// Writes a row as somebody does who can write the database.
    pub(crate) async fn overwrite(&self, key: &Key, row: Row) {
        let put = Change::Put {
            slot: key.slot.clone(),
            row,
            expect: Expect::Any,
        };
        self.backend
            .commit(&key.partition, &[put])
            .await
            .expect("the database answers");
    }

    /// Removes a row as somebody does who can write the database.
    pub(crate) async fn remove(&self, key: &Key) {
        let delete = Change::Delete {
            slot: key.slot.clone(),
            only: None,
        };
        self.backend
            .commit(&key.partition, &[delete])
            .await
            .expect("the database answers");
    }
}

/// All rows of a backend, in the order of their keys.
pub(crate) async fn all_rows(backend: &dyn Backend) -> Vec<(Key, Row)> {
    let mut rows = Vec::new();
    let mut from: Option<Cursor> = None;
    loop {
        let page = backend.scan(from, 100).await.expect("the database answers");
        rows.extend(page.rows);
        from = page.next;
        if from.is_none() {
            rows.sort_by(|(one, _), (other, _)| one.cmp(other));
            return rows;
        }
    }
}
