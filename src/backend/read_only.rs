//! A backend that refuses every change.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot};

/// Passes reads to another backend, and refuses every commit.
///
/// Use it for programs that must change nothing, such as a report, with
/// [`EncryptedStore::open_existing`](crate::EncryptedStore::open_existing), which makes no data key.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use slack_installs::backend::{Backend, Change, MemoryBackend, Partition, ReadOnly, Slot};
///
/// let backend = ReadOnly::new(MemoryBackend::default());
/// let change = Change::Delete { slot: Slot::new("bot")?, only: None };
/// assert!(backend.commit(&Partition::new("app/T1")?, &[change]).await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadOnly<B>(B);

impl<B> ReadOnly<B> {
    /// Wraps a backend.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self(backend)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for ReadOnly<B> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.0.read(partition, slots).await
    }

    async fn commit(&self, _: &Partition, _: &[Change]) -> Result<(), Error> {
        Err(Error::Malformed(REFUSED.into()))
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.0.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.0.due(queue, now, from, limit).await
    }
}

const REFUSED: &str = "the database was opened for reading only, so nothing was changed";
