//! For each data key: one call to the provider at a time, and a memory of its last failure.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::encrypted::KeyringError;
use crate::error_chain::error_chain;
use crate::seal::{KeyError, KeyId};

/// The calls to the provider that run, and those that just failed. A fault of one key delays no
/// caller of another one.
#[derive(Default)]
pub(super) struct Flights(std::sync::Mutex<HashMap<KeyId, Flight>>);

/// Locked while the key is fetched.
pub(super) type Flight = Arc<Mutex<Option<Failure>>>;

impl Flights {
    pub(super) fn of(&self, id: KeyId) -> Flight {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A destroyed key is never fetched again.
        if flights.len() >= MANY {
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        }
        Arc::clone(flights.entry(id).or_default())
    }
}

/// Why the keyring could not be used a moment ago.
pub(super) struct Failure {
    at: Instant,
    error: KeyringError,
}

impl Failure {
    /// Remembers this error, unless the database failed: it has its own retries.
    pub(super) fn of(error: &KeyringError) -> Option<Self> {
        let at = Instant::now();
        again(error).map(|error| Self { at, error })
    }

    /// Returns the error for a caller who asks so soon after it.
    pub(super) fn fresh(&self) -> Option<KeyringError> {
        (self.at.elapsed() < FAILURE_IS_FRESH).then(|| again(&self.error))?
    }
}

/// Returns the same error once more.
fn again(error: &KeyringError) -> Option<KeyringError> {
    Some(match error {
        KeyringError::Key(error) => KeyringError::Key(match error {
            KeyError::Changed => KeyError::Changed,
            KeyError::Refused { reason } => KeyError::Refused {
                reason: reason.clone(),
            },
            KeyError::UnknownKey { reason } => KeyError::UnknownKey {
                reason: reason.clone(),
            },
            KeyError::Unavailable(source) => KeyError::Unavailable(error_chain(&**source).into()),
        }),
        KeyringError::RolledBack => KeyringError::RolledBack,
        KeyringError::Unreadable => KeyringError::Unreadable,
        _ => return None,
    })
}

/// How long no caller calls the key provider again after a failed call for this key. All callers
/// that waited for that call return within this time, and a provider that recovers is noticed soon.
const FAILURE_IS_FRESH: Duration = Duration::from_secs(1);

/// More keys than an app has.
const MANY: usize = 64;
