//! Keys that are pinned for a flight, so that tokens that Slack issued can be saved although the
//! key provider failed meanwhile.
//!
//! Within a [flight](crate::flight), each key that seals or opens a row is kept until the flight
//! ends. It is used again only if the keyring does not have the key any more. A flight ends within
//! about 11 minutes, so a pin ends too. Outside a flight nothing is pinned: when a key is too old,
//! all other calls fail.

use std::any::Any;
use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::keys::Keys;
use crate::backend::Backend;
use crate::error_chain::error_chain;
use crate::flight::Flight;
use crate::seal::{DataKey, KeyId};
use crate::store::Error;

/// Returns the key that seals. If the keyring fails, returns the key that this flight began with.
pub(super) async fn primary<B: Backend>(
    keys: &Arc<Keys<B>>,
) -> Result<(KeyId, Arc<DataKey>), Error> {
    let pinned = Pinned::of(keys);
    match keys.primary().await {
        Ok((id, key)) => {
            if let Some(pinned) = pinned {
                pinned.pins().primary = Some((id, Arc::clone(&key)));
            }
            Ok((id, key))
        }
        Err(error) => {
            let primary = pinned.and_then(|pinned| pinned.pins().primary.clone());
            instead_of(error, primary, |(id, _)| *id)
        }
    }
}

/// Returns the key of this id, for opening. If the keyring fails, returns the key that this flight
/// has used before.
pub(super) async fn get<B: Backend>(keys: &Arc<Keys<B>>, id: KeyId) -> Result<Arc<DataKey>, Error> {
    let pinned = Pinned::of(keys);
    match keys.get(id).await {
        Ok(key) => {
            if let Some(pinned) = pinned {
                pinned.pins().opening.insert(id, Arc::clone(&key));
            }
            Ok(key)
        }
        Err(error) => {
            let key = pinned.and_then(|pinned| pinned.pins().get(id));
            instead_of(error, key, |_| id)
        }
    }
}

/// Returns what is pinned, or else the error.
fn instead_of<T>(
    error: Error,
    pinned: Option<T>,
    id: impl FnOnce(&T) -> KeyId,
) -> Result<T, Error> {
    let Some(pinned) = pinned else {
        return Err(error);
    };
    tracing::warn!(
        key = %id(&pinned), error = error_chain(&error),
        "a data key cannot be fetched; tokens from Slack are saved with the key that is pinned for \
         them"
    );
    Ok(pinned)
}

/// The keys of one store that one flight has used.
struct Pinned {
    /// The store's keyring. One flight can use two stores.
    keyring: Arc<dyn Any + Send + Sync>,
    pins: Mutex<Pins>,
}

#[derive(Default)]
struct Pins {
    primary: Option<(KeyId, Arc<DataKey>)>,
    opening: HashMap<KeyId, Arc<DataKey>>,
}

impl Pinned {
    /// Returns the pins of the caller's flight.
    fn of<B: Backend>(keys: &Arc<Keys<B>>) -> Option<Arc<Self>> {
        let flight = Flight::current()?;
        let is_own = |it: &Self| ptr::addr_eq(Arc::as_ptr(&it.keyring), Arc::as_ptr(keys));
        Some(flight.keep(is_own, || Self {
            keyring: Arc::clone(keys) as _,
            pins: Mutex::default(),
        }))
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pins {
    fn get(&self, id: KeyId) -> Option<Arc<DataKey>> {
        let sealing = self.primary.as_ref().filter(|(primary, _)| *primary == id);
        let key = sealing
            .map(|(_, key)| key)
            .or_else(|| self.opening.get(&id));
        key.map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryBackend;
    use crate::encrypted::EncryptedStore;
    use crate::flight::fly;
    use crate::seal::{LocalKeyProvider, MasterKey};
    use crate::tenant::ClientId;

    async fn store() -> EncryptedStore<MemoryBackend> {
        let provider = LocalKeyProvider::new(MasterKey::generate());
        let app = ClientId::new("1111.2222").expect("an id");
        let opened = EncryptedStore::open(MemoryBackend::default(), provider, app).await;
        opened.expect("opens")
    }

    /// A row that is sealed with the key of another database would be lost.
    #[tokio::test]
    async fn two_stores_in_one_flight_have_their_own_pins() {
        let (one, other) = (store().await, store().await);
        let keys = [&one, &other].map(|store| Arc::clone(&store.driver.keys));
        let outside = primary(&keys[0]).await;
        outside.expect("a key");
        assert!(Pinned::of(&keys[0]).is_none(), "outside a flight");
        let [keys, others] = keys;
        let pinned = fly(async {
            let (id, _) = primary(&keys).await.expect("a key");
            let pinned = Pinned::of(&keys).expect("in a flight");
            let others = Pinned::of(&others).expect("in a flight");
            assert!(others.pins().primary.is_none() && others.pins().get(id).is_none());
            assert!(pinned.pins().get(id).is_some());
            Arc::downgrade(&pinned)
        });
        assert!(pinned.await.upgrade().is_none(), "the flight has ended");
    }
}
