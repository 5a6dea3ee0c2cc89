//! Key providers that count, fail and wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slack_installs::{
    DataKey, KeyContext, KeyError, KeyId, KeyProvider, LocalKeyProvider, MasterKey,
};

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
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The fault of every call.
    all: Option<Fault>,
    /// The fault of every call that unwraps.
    unwraps: Option<Fault>,
    /// The faults of calls that unwrap these keys.
    of: HashMap<KeyId, Fault>,
    unwrapped: HashMap<KeyId, usize>,
}

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Down,
    /// It never responds.
    Hangs,
    Refused,
    /// It returns another key.
    Wrong,
}

impl Remote {
    pub(crate) fn new() -> Self {
        Self::over(LocalKeyProvider::new(master_key()))
    }

    pub(crate) fn over(inner: LocalKeyProvider) -> Self {
        Self {
            inner: Arc::new(inner),
            calls: Arc::default(),
            state: Arc::default(),
        }
    }

    /// Returns how many keys it had to unwrap.
    pub(crate) fn unwraps(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns how often it had to unwrap this key.
    pub(crate) fn unwraps_of(&self, id: KeyId) -> usize {
        self.state().unwrapped.get(&id).copied().unwrap_or_default()
    }

    /// Returns the ids of the keys that it had to unwrap.
    pub(crate) fn unwrapped(&self) -> Vec<KeyId> {
        self.state().unwrapped.keys().copied().collect()
    }

    /// Sets whether every call fails.
    pub(crate) fn set_down(&self, down: bool) {
        self.set(down.then_some(Fault::Down));
    }

    /// Sets the fault of every call.
    pub(crate) fn set(&self, fault: impl Into<Option<Fault>>) {
        self.state().all = fault.into();
    }

    /// Sets the fault of every call that unwraps.
    pub(crate) fn set_unwraps(&self, fault: impl Into<Option<Fault>>) {
        self.state().unwraps = fault.into();
    }

    /// Sets the fault of calls that unwrap this key.
    pub(crate) fn set_of(&self, id: KeyId, fault: impl Into<Option<Fault>>) {
        match fault.into() {
            Some(fault) => self.state().of.insert(id, fault),
            None => self.state().of.remove(&id),
        };
    }

    /// Simulates a call over a network: it takes 50 ms on a clock that the test moves. Returns
    /// whether its result is right.
    async fn answer(
        &self,
        fault: impl Fn(&State) -> Option<Fault> + Send,
    ) -> Result<bool, KeyError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let fault = fault(&self.state());
        match fault {
            None => Ok(true),
            Some(Fault::Wrong) => Ok(false),
            Some(Fault::Down) => Err(KeyError::Unavailable("down on purpose".into())),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Refused) => Err(KeyError::Refused {
                reason: "on purpose".to_owned(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyProvider for Remote {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.answer(|state| state.all).await?;
        self.inner.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let id = context.key_id;
        self.calls.fetch_add(1, Ordering::SeqCst);
        *self.state().unwrapped.entry(id).or_default() += 1;
        let own = |state: &State| {
            let of = || state.of.get(&id).copied();
            state.all.or(state.unwraps).or_else(of)
        };
        if self.answer(own).await? {
            self.inner.unwrap(wrapped, context).await
        } else {
            Ok(DataKey::from_bytes([0x77; 32]))
        }
    }
}
