//! Key providers that count, fail and wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use slack_installs::{DataKey, KeyContext, KeyError, KeyProvider, LocalKeyProvider, MasterKey};

/// Returns the master key of most tests.
pub(crate) fn master_key() -> MasterKey {
    master_key_of(0x11)
}

/// Returns a master key that repeats this byte 32 times.
pub(crate) fn master_key_of(byte: u8) -> MasterKey {
    MasterKey::parse(&format!("{byte:02x}").repeat(32)).expect("64 hex digits")
}

/// A local provider that counts its calls and can be set to fail. Clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    inner: Arc<LocalKeyProvider>,
    calls: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl Remote {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(LocalKeyProvider::new(master_key())),
            calls: Arc::default(),
            down: Arc::default(),
        }
    }

    /// Returns how many keys it had to unwrap.
    pub(crate) fn unwraps(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Sets whether every call fails.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Simulates a call over a network: it takes 50 ms on a clock that the test moves.
    async fn answer(&self) -> Result<(), KeyError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.down.load(Ordering::SeqCst) {
            Err(KeyError::Unavailable("down on purpose".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl KeyProvider for Remote {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.answer().await?;
        self.inner.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.answer().await?;
        self.inner.unwrap(wrapped, context).await
    }
}
