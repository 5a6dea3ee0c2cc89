//! A backend between a store and its database, with hooks before and after each call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};

/// One call of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call<'a> {
    Read(&'a Partition),
    Commit(&'a [Change]),
    /// A scan, with its page limit.
    Scan(&'a Scope, usize),
    /// A listing of due rows, with its page limit.
    Due(&'a Queue, usize),
}

/// Hooks around the calls of a [`Hooked`] backend. The defaults pass every call on.
#[async_trait]
pub(crate) trait Hooks: Send + Sync + 'static {
    /// Runs before a call. An error is returned to the caller, and the database does not get the
    /// call.
    async fn before(&self, _: Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Runs after a call. An error replaces the database's response.
    async fn after(&self, _: Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the longest page of a scan.
    fn longest_page(&self) -> usize {
        usize::MAX
    }

    /// Returns a page that replaces the database's.
    fn page(&self, _: Call<'_>) -> Option<Page> {
        None
    }
}

/// A backend with hooks. Clones share both.
pub(crate) struct Hooked<H> {
    inner: Arc<dyn Backend>,
    hooks: Arc<H>,
}

impl<H> Hooked<H> {
    pub(crate) fn over(inner: Arc<dyn Backend>, hooks: H) -> Self {
        let hooks = Arc::new(hooks);
        Self { inner, hooks }
    }
}

impl<H: Default> Hooked<H> {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Self {
        Self::over(inner, H::default())
    }
}

impl<H> Clone for Hooked<H> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            hooks: Arc::clone(&self.hooks),
        }
    }
}

impl<H: Hooks> Hooked<H> {
    async fn call<T>(
        &self,
        call: Call<'_>,
        effect: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.hooks.before(call).await?;
        let outcome = effect.await;
        self.hooks.after(call).await?;
        outcome
    }
}

impl<H> Deref for Hooked<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hooks
    }
}

impl<H> fmt::Debug for Hooked<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

#[async_trait]
impl<H: Hooks> Backend for Hooked<H> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let read = self.inner.read(partition, slots);
        self.call(Call::Read(partition), read).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        let commit = self.inner.commit(partition, changes);
        self.call(Call::Commit(changes), commit).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let shorter = limit.min(self.hooks.longest_page());
        let scan = self.inner.scan(scope, from, shorter);
        self.call(Call::Scan(scope, limit), scan).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let call = Call::Due(queue, limit);
        if let Some(page) = self.hooks.page(call) {
            return Ok(page);
        }
        let due = self.inner.due(queue, now, from, limit);
        self.call(call, due).await
    }
}

/// Returns the error of a call that a test lost.
pub(crate) fn lost() -> Error {
    Error::Unavailable("lost on purpose".into())
}
