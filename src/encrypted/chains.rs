//! Chains of tokens as rows, moved on one step at a time.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::driver::{Place, Record, Step};
use super::installations::{bot, install, user};
use super::{EncryptedStore, records, tenant, tenant_of};
use crate::backend::{Backend, Cursor, Key, Lane};
use crate::installation::Grant;
use crate::store::{Chain, ChainKey, Credential, Error, ListCursor, RotationStore, StoredChain};
use crate::tenant::UserId;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> RotationStore for EncryptedStore<B> {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        let partition = tenant(self.driver.app(), &key.tenant);
        let place = place(&key.credential);
        let places = [install(), place.clone()];
        let records = self.driver.read(&partition, &places).await?;
        stored(&place, &records)
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let partition = tenant(self.driver.app(), &key.tenant);
        let place = place(&key.credential);
        let places = [install(), place.clone()];
        // The driver asks one time after the other; the lock only tells the compiler so.
        let decide = Mutex::new(decide);
        let ask = |chain: Option<&Chain>| {
            let mut decide = decide.lock().unwrap_or_else(PoisonError::into_inner);
            (**decide)(chain)
        };
        let step = |records: &[Option<Record>]| {
            let Some(standing) = stored(&place, records)? else {
                ask(None);
                return Ok((Vec::new(), None));
            };
            let Some(next) = ask(Some(&standing.chain)) else {
                return Ok((Vec::new(), Some(standing)));
            };
            let moved = standing.moved(next, offered).ok_or_else(|| {
                Error::Unreadable("a chain was given a token that is not there".into())
            })?;
            let row = records.last().and_then(Option::as_ref);
            let row = row.expect("a chain that stands has a row");
            let draft = records::chain_draft(place.kind, row, &moved)?;
            Ok((vec![Step::Put(place.slot.clone(), draft)], Some(moved)))
        };
        Ok(self.driver.update(&partition, &places, step).await?.1)
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        let (rows, next) = self.tenants(from, limit).await?;
        let keys = rows.iter().filter_map(|(key, _)| chain_key(key));
        Ok((keys.collect(), next))
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        let from = from.map(|cursor| Cursor(cursor.0));
        let page = self.driver.due(Lane::Refresh, now, from, limit).await?;
        let keys = page.rows.iter().filter_map(|(key, _)| chain_key(key));
        Ok((keys.collect(), page.next.map(|cursor| ListCursor(cursor.0))))
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.sweep_expired_states().await
    }
}

/// The chain in these two records. Without the facts of an installation there is none.
fn stored(place: &Place, records: &[Option<Record>]) -> Result<Option<StoredChain>, Error> {
    match records {
        [Some(install), Some(chain)] => records::chain(place.kind, install, chain).map(Some),
        _ => Ok(None),
    }
}

fn place(credential: &Credential) -> Place {
    match credential {
        Credential::Bot => bot(),
        Credential::User(id) => user(id),
    }
}

/// The chain that a row belongs to; `None` for a row of another kind.
fn chain_key(key: &Key) -> Option<ChainKey> {
    let tenant = tenant_of(key.partition.name())?;
    let credential = match key.slot.as_str().split_once('/') {
        None if key.slot == bot().slot => Credential::Bot,
        Some(("user", id)) => Credential::User(UserId::new(id).ok()?),
        _ => return None,
    };
    Some(ChainKey { credential, tenant })
}
