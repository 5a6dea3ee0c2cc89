//! Master keys from a source that may change while the process runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{KeySetupError, invalid};
use super::lines::master_keys;
use super::source::Source;
use crate::seal::{DataKey, KeyContext, KeyError, KeyProvider, LocalKeyProvider};

/// A local key provider that reads its source again if a master key is missing.
#[derive(Debug)]
pub(crate) struct MasterKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    current: RwLock<Arc<LocalKeyProvider>>,
    /// When the source was last read.
    read_at: Mutex<Instant>,
}

impl MasterKeys {
    pub(crate) async fn open(source: Source) -> Result<Self, KeySetupError> {
        let keys = read(&source).await?;
        Ok(Self(Arc::new(Inner {
            source,
            current: RwLock::new(Arc::new(keys)),
            read_at: Mutex::new(Instant::now()),
        })))
    }
}

impl Inner {
    fn current(&self) -> Arc<LocalKeyProvider> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the source again, unless that was done a moment ago.
    async fn refresh(&self) {
        let mut read_at = self.read_at.lock().await;
        if read_at.elapsed() < READ_AGAIN {
            return;
        }
        *read_at = Instant::now();
        match read(&self.source).await {
            Ok(keys) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(keys);
            }
            Err(error) => {
                let error = crate::error_chain::error_chain(&error);
                tracing::warn!(error, "the master keys cannot be read again");
            }
        }
    }
}

async fn read(source: &Source) -> Result<LocalKeyProvider, KeySetupError> {
    let text = source.read().await?;
    master_keys(&text).map_err(|source| {
        let text = "the source of the master key holds no master key; each line is one key, the \
                    first is the primary";
        invalid(text).with_source(source)
    })
}

#[async_trait]
impl KeyProvider for MasterKeys {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.0.current().wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let unwrapped = self.0.current().unwrap(wrapped, context).await;
        if !matches!(unwrapped, Err(KeyError::UnknownKey { .. })) || !self.0.source.may_change() {
            return unwrapped;
        }
        // In a task of its own, so that the reading ends even if the caller has a shorter deadline.
        let inner = Arc::clone(&self.0);
        let refreshed = tokio::spawn(async move { inner.refresh().await }).await;
        if refreshed.is_err() {
            return unwrapped;
        }
        self.0.current().unwrap(wrapped, context).await
    }
}

/// How often a source is read again at most. Someone who can write to the database can plant
/// data keys of unknown master keys.
const READ_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
