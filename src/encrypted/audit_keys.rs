//! The keys of the audit log: one for each tenant, so that a tenant's part of the log can be made
//! unreadable. Each is a sealed row; to destroy a key is to delete its row.
//!
//! One row has the tenant's name and the id of the key. Another row has this id and the key. A sealed
//! part names its key by the id, which is random. So after a key was destroyed, nothing in the log
//! says whose part it was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::EncryptedStore;
use super::driver::{Opening, Step};
use super::names::{AUDIT_KEY, AUDIT_TENANT, audit_key, audit_tenant};
use super::record::{Draft, Record};
use crate::backend::{Backend, Row};
use crate::lru::Lru;
use crate::seal::{DataKey, KeyId};
use crate::store::Error;
use crate::tenant::InstallationKey;

/// The keys that this process has used lately to seal.
pub(super) struct AuditKeys(Mutex<Lru<InstallationKey, Kept>>);

#[derive(Clone)]
struct Kept {
    id: KeyId,
    key: Arc<DataKey>,
    since: Instant,
}

impl Default for AuditKeys {
    fn default() -> Self {
        Self(Mutex::new(Lru::new(CAPACITY)))
    }
}

impl AuditKeys {
    fn lru(&self) -> MutexGuard<'_, Lru<InstallationKey, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, tenant: &InstallationKey) -> Option<(KeyId, Arc<DataKey>)> {
        let kept = self.lru().get(tenant)?;
        (kept.since.elapsed() < MAX_AGE).then_some((kept.id, kept.key))
    }

    fn keep(&self, tenant: &InstallationKey, id: KeyId, key: &Arc<DataKey>) {
        let (key, since) = (Arc::clone(key), Instant::now());
        self.lru().insert(tenant.clone(), Kept { id, key, since });
    }

    fn forget(&self) {
        *self.lru() = Lru::new(CAPACITY);
    }
}

/// Keys that are looked up once for many sealed parts.
pub(super) type Opened = HashMap<KeyId, Option<Arc<DataKey>>>;

/// The facts of the row that a tenant's name leads to.
#[derive(Deserialize, Serialize)]
struct TenantFacts {
    key: String,
}

/// The facts of a key, which has none.
#[derive(Serialize)]
struct KeyFacts {}

impl<B: Backend> EncryptedStore<B> {
    /// Returns the key that seals this tenant's parts. Makes it if there is none.
    pub(super) async fn audit_key_of(
        &self,
        tenant: &InstallationKey,
    ) -> Result<(KeyId, Arc<DataKey>), Error> {
        if let Some(kept) = self.audit_keys.get(tenant) {
            return Ok(kept);
        }
        for _ in 0..ATTEMPTS {
            let named = self.named_audit_key(tenant).await?;
            if let Some(id) = named
                && let Some(key) = self.audit_key(id).await?
            {
                self.audit_keys.keep(tenant, id, &key);
                return Ok((id, key));
            }
            if let Some((id, key)) = self.make_audit_key(tenant, named).await? {
                self.audit_keys.keep(tenant, id, &key);
                return Ok((id, key));
            }
        }
        Err(Error::Unavailable(
            "other processes changed the tenant's audit key 3 times: try again".into(),
        ))
    }

    /// Fetches the keys of these tenants at once, so that sealing waits for none of them.
    pub(super) async fn fetch_audit_keys(
        &self,
        tenants: Vec<InstallationKey>,
    ) -> Result<(), Error> {
        stream::iter(tenants)
            .map(|tenant| async move { self.audit_key_of(&tenant).await.map(drop) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Opens the key of this id; `None` if it was destroyed.
    pub(super) async fn audit_key_for_opening(
        &self,
        id: KeyId,
        opened: &mut Opened,
    ) -> Result<Option<Arc<DataKey>>, Error> {
        if let Some(key) = opened.get(&id) {
            return Ok(key.clone());
        }
        let key = self.audit_key(id).await?;
        opened.insert(id, key.clone());
        Ok(key)
    }

    /// Destroys a tenant's key. Its row is deleted first: if the second step fails, the next call
    /// still finds the id, and until then a new key is made for new records.
    pub(super) async fn destroy_audit_key(
        &self,
        tenant: &InstallationKey,
        id: KeyId,
    ) -> Result<bool, Error> {
        // Also if another process has destroyed the key: this one may still have it.
        self.audit_keys.forget();
        let existed = self.audit_key(id).await?.is_some();
        self.remove_audit_key(id).await?;
        let decide = |records: &[Option<Record>], _: &[Option<Row>]| {
            let current = records.iter().flatten().map(named_in).next().transpose()?;
            let is_current = current.flatten() == Some(id);
            let delete = is_current.then(|| Step::Delete(audit_tenant().slot));
            Ok((delete.into_iter().collect(), ()))
        };
        let partition = self.driver.app.audit_tenant(tenant);
        let places = [audit_tenant()];
        self.driver
            .update_with(Opening::All, &partition, &places, decide)
            .await?;
        Ok(existed)
    }

    pub(super) async fn named_audit_key(
        &self,
        tenant: &InstallationKey,
    ) -> Result<Option<KeyId>, Error> {
        let partition = self.driver.app.audit_tenant(tenant);
        let records = self
            .driver
            .read_current(&partition, &[audit_tenant()])
            .await?;
        let named = records.iter().flatten().map(named_in).next().transpose()?;
        Ok(named.flatten())
    }

    async fn audit_key(&self, id: KeyId) -> Result<Option<Arc<DataKey>>, Error> {
        let partition = self.driver.app.audit_key(id);
        let records = self.driver.read_current(&partition, &[audit_key()]).await?;
        let Some(record) = records.into_iter().flatten().next() else {
            return Ok(None);
        };
        let bytes = record.plaintext[..].try_into().map(Zeroizing::new);
        let bytes: Zeroizing<[u8; 32]> = bytes
            .map_err(|_| Error::Unreadable("a key of the audit log has another form".into()))?;
        Ok(Some(Arc::new(DataKey::from_bytes(*bytes))))
    }

    /// Makes a key for a tenant that has none, or whose key was destroyed. Returns `None` if
    /// another process has just made one.
    async fn make_audit_key(
        &self,
        tenant: &InstallationKey,
        named: Option<KeyId>,
    ) -> Result<Option<(KeyId, Arc<DataKey>)>, Error> {
        let (id, key) = (KeyId::generate(), Arc::new(DataKey::generate()));
        let draft = Draft {
            plaintext: Zeroizing::new(key.expose().to_vec()),
            ..Draft::new(AUDIT_KEY, &KeyFacts {})
        };
        // The key first: what is named exists.
        let partition = self.driver.app.audit_key(id);
        self.driver
            .insert(&partition, audit_key().slot, draft)
            .await?;
        let decide = |records: &[Option<Record>]| {
            let current = records.iter().flatten().map(named_in).next().transpose()?;
            let is_unchanged = current.flatten() == named;
            let steps = is_unchanged.then(|| {
                let key = id.to_string();
                let draft = Draft::new(AUDIT_TENANT, &TenantFacts { key });
                Step::Put(audit_tenant().slot, draft)
            });
            Ok((steps.into_iter().collect(), is_unchanged))
        };
        let partition = self.driver.app.audit_tenant(tenant);
        let (_, is_ours) = self
            .driver
            .update(&partition, &[audit_tenant()], decide)
            .await?;
        if !is_ours {
            self.remove_audit_key(id).await?;
        }
        Ok(is_ours.then_some((id, key)))
    }

    async fn remove_audit_key(&self, id: KeyId) -> Result<(), Error> {
        let partition = self.driver.app.audit_key(id);
        let decide = |_: &[Option<Record>]| Ok((vec![Step::Clear], ()));
        self.driver.update(&partition, &[], decide).await?;
        Ok(())
    }
}

fn named_in(record: &Record) -> Result<Option<KeyId>, Error> {
    let TenantFacts { key } = record.facts(AUDIT_TENANT)?;
    Ok(KeyId::parse(&key))
}

/// How long a process seals under a key that it has read. Afterwards it notices that another
/// process has destroyed the key. As for data keys.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// The largest number of tenants. Their keys take a few megabytes.
const CAPACITY: usize = 16_384;

/// How many keys are fetched at once.
const AT_ONCE: usize = 16;

/// How often a key is looked for while other processes change it.
const ATTEMPTS: usize = 3;
