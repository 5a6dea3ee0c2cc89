//! Unwrapped data keys, kept in memory for a limited time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::envelope;
use super::key::{DataKey, KeyId};
use super::{Sealed, Undecryptable};
use crate::random;

/// Unwrapped data keys. One of them is the primary, which seals.
///
/// Keeps a key for [`HARD_AGE`] at most, and then drops it. So if the key provider is shut off,
/// this process stops reading and writing too. The caller stores and loads the wrapped keys.
#[derive(Default)]
pub(crate) struct Keyring {
    keys: Arc<RwLock<Keys>>,
}

#[derive(Default)]
struct Keys {
    primary: Option<(KeyId, Instant)>,
    by_id: HashMap<KeyId, Entry>,
    /// The part of [`JITTER`], in 65,536ths, that a repeatable test has set.
    share: Option<u16>,
}

struct Entry {
    held: Held,
    /// When a caller is asked to fetch the key again.
    refresh_after: Instant,
}

/// A data key that the provider unwrapped.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) key: Arc<DataKey>,
    /// The epoch that the provider bound the wrapped key to.
    pub(crate) epoch: u64,
    /// When it was unwrapped.
    pub(crate) since: Instant,
}

/// The result of looking up a data key.
pub(crate) enum Lookup {
    /// A key that may be used.
    Fresh(KeyId, Arc<DataKey>),
    /// A key that may be used, and that this caller must fetch again in the background. No other
    /// caller is asked to do so for [`REFRESH_RETRY`].
    Ageing(KeyId, Arc<DataKey>),
    /// No usable key.
    Missing,
}

impl Keyring {
    /// Makes the times at which keys are fetched again repeatable.
    #[cfg(feature = "testing")]
    pub(crate) fn set_share(&self, share: u16) {
        let mut keys = self.write();
        keys.share = Some(share);
        let jitter = keys.jitter();
        for entry in keys.by_id.values_mut() {
            entry.refresh_after = entry.held.since + SOFT_AGE + jitter;
        }
    }

    /// Returns the key that seals.
    pub(crate) fn primary(&self, now: Instant) -> Lookup {
        let primary = self.read().primary;
        match primary {
            Some((id, confirmed)) if now.duration_since(confirmed) < HARD_AGE => self.get(id, now),
            _ => Lookup::Missing,
        }
    }

    /// Returns whether [`primary`](Self::primary) would return a key.
    pub(crate) fn has_primary(&self, now: Instant) -> bool {
        let primary = self.read().primary;
        primary.is_some_and(|(id, confirmed)| {
            now.duration_since(confirmed) < HARD_AGE && self.held(id, now).is_some()
        })
    }

    /// Records that this key was the primary at this time.
    pub(crate) fn confirm_primary(&self, id: KeyId, then: Instant) {
        let mut keys = self.write();
        let last = keys.primary.map_or(then, |(_, last)| last.max(then));
        keys.primary = Some((id, last));
    }

    /// Returns the key of this id.
    pub(crate) fn get(&self, id: KeyId, now: Instant) -> Lookup {
        let keys = self.read();
        match keys.by_id.get(&id) {
            Some(entry) if !entry.held.is_usable(now) => Lookup::Missing,
            Some(entry) if now >= entry.refresh_after => {
                drop(keys);
                self.begin_refresh(id, now)
            }
            Some(entry) => Lookup::Fresh(id, Arc::clone(&entry.held.key)),
            None => Lookup::Missing,
        }
    }

    /// Returns the key of this id, and asks for no refresh.
    pub(crate) fn held(&self, id: KeyId, now: Instant) -> Option<Held> {
        let keys = self.read();
        let held = keys.by_id.get(&id).map(|entry| entry.held.clone());
        held.filter(|held| held.is_usable(now))
    }

    /// Adds a key that the provider has just unwrapped.
    pub(crate) fn insert(&self, id: KeyId, epoch: u64, key: Arc<DataKey>, now: Instant) {
        self.forget_at(now + HARD_AGE);
        let mut keys = self.write();
        keys.forget(now);
        let since = now;
        let entry = Entry {
            held: Held { key, epoch, since },
            refresh_after: now + SOFT_AGE + keys.jitter(),
        };
        keys.by_id.insert(id, entry);
    }

    /// Drops the keys that are too old at this time, then. So no key stays in memory because no
    /// other key is added. Without a runtime, the next key that is added does it.
    fn forget_at(&self, then: Instant) {
        let keys = Arc::downgrade(&self.keys);
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(async move {
                tokio::time::sleep_until(then).await;
                if let Some(keys) = keys.upgrade() {
                    let mut keys = keys.write().unwrap_or_else(PoisonError::into_inner);
                    keys.forget(then);
                }
            }));
        }
    }

    fn begin_refresh(&self, id: KeyId, now: Instant) -> Lookup {
        match self.write().by_id.get_mut(&id) {
            Some(entry) if now >= entry.refresh_after => {
                entry.refresh_after = now + REFRESH_RETRY;
                Lookup::Ageing(id, Arc::clone(&entry.held.key))
            }
            Some(entry) => Lookup::Fresh(id, Arc::clone(&entry.held.key)),
            None => Lookup::Missing,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Returns a random part of [`JITTER`], so that the processes of an app, and the keys of one
    /// process, do not all call the provider at the same time.
    fn jitter(&self) -> Duration {
        let share = self
            .share
            .unwrap_or_else(|| u16::from_be_bytes(random::bytes()));
        JITTER.mul_f64(f64::from(share) / 65536.0)
    }

    /// Drops, and so wipes, the keys that are too old to be used.
    fn forget(&mut self, now: Instant) {
        self.by_id.retain(|_, entry| entry.held.is_usable(now));
    }
}

impl Held {
    fn is_usable(&self, now: Instant) -> bool {
        now.duration_since(self.since) < HARD_AGE
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("primary", &self.read().primary.map(|(id, _)| id))
            .finish()
    }
}

/// How long an unwrapped key may be used. After that, nothing is read or written without the
/// provider. This limits how long a process can use a revoked key.
pub(crate) const HARD_AGE: Duration = Duration::from_secs(15 * 60);

/// The age from which a key is fetched again in the background. Even the oldest key then outlives
/// an outage of the provider of ten minutes.
const SOFT_AGE: Duration = Duration::from_secs(4 * 60);

/// A key is fetched again up to this long after [`SOFT_AGE`].
const JITTER: Duration = Duration::from_secs(30);

/// How long one background fetch counts as in progress, and the pause after a failed one. So a
/// provider that is down gets one call per pause, not one for every request.
const REFRESH_RETRY: Duration = Duration::from_secs(10);

impl Sealed {
    /// Returns the id of the data key that sealed this.
    pub(crate) fn key_id(&self) -> Result<KeyId, Undecryptable> {
        envelope::key_id(&self.0).ok_or(Undecryptable)
    }

    /// Frames a key provider's wrapped key, so that a row can store it.
    pub(crate) fn from_wrapped_key(wrapped: &[u8]) -> Self {
        envelope::wrapped_key(wrapped)
    }

    /// Returns the key provider's wrapped key.
    pub(crate) fn wrapped_key(&self) -> Result<&[u8], Undecryptable> {
        envelope::unwrapped(&self.0).ok_or(Undecryptable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<DataKey> {
        Arc::new(DataKey::generate())
    }

    #[test]
    fn an_id_is_read_in_the_form_in_which_it_is_shown_and_in_no_other() {
        let id = KeyId::from_bytes([0xab; 16]);
        let shown = id.to_string();
        assert_eq!(KeyId::parse(&shown), Some(id));
        for other in [
            shown.to_uppercase(),
            format!("+{shown}"),
            format!("0{shown}"),
            shown[1..].to_owned(),
            String::new(),
        ] {
            assert_eq!(KeyId::parse(&other), None, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_too_old_to_be_used_leaves_memory_although_no_other_one_comes() {
        let ring = Keyring::default();
        let id = KeyId::from_bytes([1; 16]);
        let (old, fresh) = (key(), key());
        ring.insert(id, 1, Arc::clone(&old), Instant::now());
        tokio::time::sleep(SOFT_AGE).await;
        assert_eq!(Arc::strong_count(&old), 2);
        ring.insert(id, 1, Arc::clone(&fresh), Instant::now());
        assert_eq!(Arc::strong_count(&old), 1, "it was replaced");
        tokio::time::sleep(HARD_AGE - SOFT_AGE).await;
        assert_eq!(Arc::strong_count(&fresh), 2, "it may still be used");
        tokio::time::sleep(HARD_AGE).await;
        assert_eq!(Arc::strong_count(&fresh), 1, "it is dropped and wiped");
    }

    #[test]
    fn a_key_that_is_too_old_to_be_used_leaves_memory_with_the_next_one_that_comes() {
        let (ring, now) = (Keyring::default(), Instant::now());
        let (old, new) = (key(), key());
        let ids = [1, 2, 3].map(|byte| KeyId::from_bytes([byte; 16]));
        ring.insert(ids[0], 1, Arc::clone(&old), now);
        ring.insert(ids[1], 2, Arc::clone(&new), now + SOFT_AGE);
        assert_eq!(Arc::strong_count(&old), 2, "the retired key is still kept");
        ring.insert(ids[2], 3, key(), now + HARD_AGE);
        assert_eq!(
            Arc::strong_count(&old),
            1,
            "the old key is dropped and wiped"
        );
        assert_eq!(Arc::strong_count(&new), 2);
    }
}
