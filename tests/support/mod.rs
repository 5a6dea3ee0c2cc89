//! Helpers that the tests share.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, clippy::clone_on_ref_ptr)]

#[cfg(feature = "testing")]
pub mod app;
pub(crate) mod attacker;
pub(crate) mod backends;
#[macro_use]
pub mod checks;
pub mod copying;
pub(crate) mod hooked;
#[cfg(feature = "testing")]
pub(crate) mod hooked_chains;
pub(crate) mod hooked_transport;
pub(crate) mod installs;
#[cfg(feature = "testing")]
pub mod life;
pub(crate) mod log;
pub(crate) mod meddling;
pub(crate) mod providers;
#[cfg(feature = "testing")]
pub mod rotation;
#[cfg(feature = "testing")]
pub mod script;
#[cfg(feature = "testing")]
pub mod serving;
#[cfg(feature = "testing")]
pub(crate) mod told;

use std::sync::Arc;

use slack_installs::backend::{Backend, Change, Cursor, Expect, Key, Row, Scope, Version};
use slack_installs::{ClientId, Clock, EncryptedStore, KeyProvider};

use checks::Database;
use installs::noon;
use providers::master_key;
use tokio::sync::OnceCell;

/// A database, and an app that no other check uses, so that checks can share a database.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) app: ClientId,
    database: Database,
    /// With a cache, all stores of one master key belong to one process.
    process: Arc<OnceCell<Store>>,
}

/// The store that most tests use.
pub(crate) type Store = EncryptedStore<Arc<dyn Backend>>;

impl Db {
    pub(crate) fn new(database: impl Into<Database>) -> Self {
        let unique = u128::from_str_radix(&format!("{:?}", Version::mint()), 16);
        let app = format!("{}.2", unique.expect("a version is hex digits"));
        let app = ClientId::new(app).expect("two numbers");
        Self::of(app, database)
    }

    /// Returns the database of this app.
    pub(crate) fn of(app: ClientId, database: impl Into<Database>) -> Self {
        let database = database.into();
        Self {
            backend: Arc::clone(&database.backend),
            app,
            database,
            process: Arc::default(),
        }
    }

    /// Returns the same database, with another app whose id begins with this app's id.
    pub(crate) fn look_alike(&self) -> Self {
        let app = ClientId::new(format!("{}1", self.app)).expect("a digit is allowed");
        Self {
            app,
            process: Arc::default(),
            ..self.clone()
        }
    }

    /// Opens the store in a new process of the app. With a cache, returns the same process's store.
    pub(crate) async fn store(&self) -> Store {
        match self.database.cache {
            None => self.store_with(master_key()).await,
            Some(_) => {
                let open = || self.store_with(master_key());
                self.process.get_or_init(open).await.clone()
            }
        }
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

    /// Opens a store of this app over a wrapper of this backend.
    pub(crate) async fn store_over<B: Backend>(
        &self,
        backend: B,
        provider: impl KeyProvider,
    ) -> EncryptedStore<B> {
        let opened = EncryptedStore::open(backend, provider, self.app.clone()).await;
        // A store sweeps by its clock. The system's clock is past noon, so these tests' states
        // would be deleted.
        let store = opened.expect("the database is up and the master key fits");
        self.database
            .process(store)
            .with_clock(Clock::from_fn(noon))
    }

    /// Waits until every cached row has expired.
    async fn pass_caches(&self) {
        if let Some(options) = self.database.cache {
            tokio::time::sleep(options.max_age).await;
        }
    }

    /// Returns all rows of this app, in the order of their keys.
    pub(crate) async fn rows(&self) -> Vec<(Key, Row)> {
        let ours = format!("{}/", self.app);
        let mut rows = all_rows(&*self.backend).await;
        rows.retain(|(key, _)| key.partition.as_str().starts_with(&ours));
        rows
    }

    /// Returns the rows of one partition of this app, by slot.
    pub(crate) async fn rows_of(&self, partition: &str) -> Vec<(String, Row)> {
        let partition = format!("{}/{partition}", self.app);
        let rows = self.rows().await.into_iter();
        rows.filter(|(key, _)| key.partition.as_str() == partition)
            .map(|(key, row)| (key.slot.to_string(), row))
            .collect()
    }

    /// Returns the slots of one partition of this app.
    pub(crate) async fn slots_of(&self, partition: &str) -> Vec<String> {
        let rows = self.rows_of(partition).await.into_iter();
        rows.map(|(slot, _)| slot).collect()
    }

    /// Returns one row of this app.
    pub(crate) async fn row(&self, partition: &str, slot: &str) -> (Key, Row) {
        let partition = format!("{}/{partition}", self.app);
        let mut rows = self.rows().await.into_iter();
        let found =
            rows.find(|(key, _)| key.partition.as_str() == partition && key.slot.as_str() == slot);
        found.expect("the row was written")
    }

    /// Returns the row of the primary data key.
    pub(crate) async fn primary_key(&self) -> (Key, Row) {
        let (_, manifest) = self.row("keyring", "manifest").await;
        let id = &manifest.sealed.as_bytes()[4..20];
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.row("keyring", &format!("key/{id}")).await
    }

    /// Writes a row without the store, as anyone can who has write access to the database.
    pub(crate) async fn overwrite(&self, key: &Key, row: Row) {
        let put = Change::Put {
            slot: key.slot.clone(),
            row,
            expect: Expect::Any,
        };
        self.backend
            .commit(&key.partition, &[put])
            .await
            .expect("the database is up");
        self.pass_caches().await;
    }

    /// Deletes a row without the store, as anyone can who has write access to the database.
    pub(crate) async fn remove(&self, key: &Key) {
        let delete = Change::Delete {
            slot: key.slot.clone(),
            only: None,
        };
        self.backend
            .commit(&key.partition, &[delete])
            .await
            .expect("the database is up");
        self.pass_caches().await;
    }
}

/// Returns all rows of a backend, in the order of their keys.
pub(crate) async fn all_rows(backend: &dyn Backend) -> Vec<(Key, Row)> {
    let mut rows = Vec::new();
    let mut from: Option<Cursor> = None;
    loop {
        let page = backend.scan(&Scope::Everything, from, 100).await;
        let page = page.expect("the database is up");
        rows.extend(page.rows);
        from = page.next;
        if from.is_none() {
            rows.sort_by(|(one, _), (other, _)| one.cmp(other));
            return rows;
        }
    }
}
