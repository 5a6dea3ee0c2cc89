//! How a store finds its due rows behind the rows of other apps.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Key, MemoryBackend, Page, Partition, Row, Slot,
};
use slack_installs::store::RotationStore;

use crate::support::Db;
use crate::support::installs::noon;
use crate::support::meddling::Meddling;
use crate::support::providers::master_key;

/// A database with any number of due rows, all of another app.
struct Crowded {
    inner: MemoryBackend,
    row: (Key, Row),
}

impl fmt::Debug for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crowded")
    }
}

#[async_trait]
impl Backend for Crowded {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(from, limit).await
    }

    async fn due(&self, _: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        // Limited, so that a search without a limit fails the test and not the machine.
        Ok(vec![self.row.clone(); limit.min(100_000)])
    }
}

#[tokio::test]
async fn a_crowd_of_others_rows_ends_the_search_at_fifty_thousand() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    db.look_alike().store().await;
    let (key, row) = db.look_alike().row("keyring", "primary").await;
    let crowded = Crowded {
        inner: MemoryBackend::default(),
        row: (key, row),
    };
    let backend = Arc::new(Meddling::new(Arc::new(crowded)));
    let provider = slack_installs::LocalKeyProvider::from(master_key());
    let store = db.store_over(Arc::clone(&backend), provider).await;
    let due = RotationStore::due(&store, noon(), 5).await;
    assert_eq!(due.expect("the store answers"), []);
    // 5, 20, 80, 320, 1280, 5120, 20480 and 50000.
    assert_eq!((backend.dues(), backend.most_asked()), (8, 50_000));
}

#[tokio::test]
async fn a_page_that_is_not_full_is_the_last_one_asked_for() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let backend = Arc::new(Meddling::new(Arc::clone(&db.backend)));
    let provider = slack_installs::LocalKeyProvider::from(master_key());
    let store = db.store_over(Arc::clone(&backend), provider).await;
    let due = RotationStore::due(&store, noon(), 5).await;
    assert_eq!(due.expect("the store answers"), []);
    assert_eq!(backend.dues(), 1);
}
