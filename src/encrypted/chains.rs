//! Stores chains of tokens as rows.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::driver::Step;
use super::install_facts::InstallFacts;
use super::names::{self, Place, hold, install};
use super::record::Record;
use super::{EncryptedStore, grant_facts, hold_facts, notices};
use crate::backend::{Backend, Key, Lane};
use crate::installation::{Grant, Scopes};
use crate::store::{Chain, ChainKey, Error, Figures, ListCursor, RotationStore, StoredChain};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> RotationStore for EncryptedStore<B> {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        let partition = self.driver.app.tenant(&key.tenant);
        let places = [install(), hold(), names::chain(&key.credential)];
        let records = self.driver.read(&partition, &places).await?;
        stored(&places[2], &records)
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let partition = self.driver.app.tenant(&key.tenant);
        let places = [install(), hold(), names::chain(&key.credential)];
        // The driver never calls `decide` concurrently. The lock only proves that to the compiler.
        let decide = Mutex::new(decide);
        let ask = |chain: Option<&Chain>| {
            let mut decide = decide.lock().unwrap_or_else(PoisonError::into_inner);
            (**decide)(chain)
        };
        let step = |records: &[Option<Record>]| {
            let Place { slot, kind } = places[2].clone();
            let (Some(stored), [_, _, Some(record)]) = (stored(&places[2], records)?, records)
            else {
                ask(None);
                return Ok((Vec::new(), None));
            };
            let Some(next) = ask(Some(&stored.chain)) else {
                return Ok((Vec::new(), Some(stored)));
            };
            let was_dead = stored.chain.is_dead;
            let moved = stored.moved(next, offered).ok_or_else(|| {
                Error::Unreadable("the new chain names a token that is not known".into())
            })?;
            let draft = grant_facts::moved_draft(kind, record, &moved)?;
            let mut steps = vec![Step::Put(slot, draft)];
            let install = records.first().and_then(Option::as_ref);
            steps.extend(notices::of_chain(
                (&key.tenant, &key.credential),
                was_dead,
                &moved.chain,
                install,
                self.clock.now(),
            ));
            Ok((steps, Some(moved)))
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
        let from = from.map(ListCursor::into);
        let page = self.driver.due(Lane::Refresh, now, from, limit).await?;
        let keys = page.rows.iter().filter_map(|(key, _)| chain_key(key));
        Ok((keys.collect(), page.next.map(ListCursor::from)))
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.sweep_expired_states().await
    }

    async fn figures(&self, now: SystemTime, requested: &Scopes) -> Result<Figures, Error> {
        self.counted(now, requested).await
    }
}

/// Returns the chain in these three records. Without an installation's facts, there is no chain.
fn stored(place: &Place, records: &[Option<Record>]) -> Result<Option<StoredChain>, Error> {
    let [Some(install), hold, Some(chain)] = records else {
        return Ok(None);
    };
    let app_id = InstallFacts::read(install)?.app_id;
    let mut stored = grant_facts::chain(place.kind, app_id, chain)?;
    stored.is_on_hold = hold_facts::is_on(hold.as_ref());
    Ok(Some(stored))
}

/// Returns the key of the chain in a row; `None` for a row of another kind.
fn chain_key(key: &Key) -> Option<ChainKey> {
    Some(ChainKey {
        credential: names::credential_of(&key.slot)?,
        tenant: names::tenant_of(&key.partition)?,
    })
}
