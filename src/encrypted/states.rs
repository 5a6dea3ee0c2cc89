//! Stores OAuth states as rows, one partition each. The caller that deletes a state consumes it.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;
use zeroize::Zeroizing;

use super::EncryptedStore;
use super::driver::Step;
use super::names::{STATE, state};
use super::record::{Draft, Record};
use crate::backend::{Backend, Lane};
use crate::store::{Error, StateId, StatePayload, StateStore};

/// The facts of a state, which has none.
#[derive(Serialize)]
struct StateFacts {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> StateStore for EncryptedStore<B> {
    async fn issue(
        &self,
        id: &StateId,
        payload: &[u8],
        expires_at: SystemTime,
    ) -> Result<(), Error> {
        let decide = |_: &[Option<Record>]| {
            let draft = Draft {
                plaintext: Zeroizing::new(payload.to_vec()),
                ..Draft::new(STATE, &StateFacts {}).due(Lane::State, expires_at)
            };
            Ok((vec![Step::Put(state().slot, draft)], ()))
        };
        let partition = self.driver.app.state(id);
        self.driver.update(&partition, &[state()], decide).await?;
        self.sweep_now_and_then();
        Ok(())
    }

    async fn consume(&self, id: &StateId, now: SystemTime) -> Result<Option<StatePayload>, Error> {
        let decide = |records: &[Option<Record>]| {
            // An expired state is left for the sweep.
            let is_live = |record: &&Record| record.row.due.is_some_and(|due| now < due.at);
            Ok(match records.iter().flatten().find(is_live) {
                Some(record) => {
                    let payload = record.plaintext.clone();
                    (vec![Step::Delete(state().slot)], Some(payload))
                }
                None => (Vec::new(), None),
            })
        };
        let partition = self.driver.app.state(id);
        Ok(self.driver.update(&partition, &[state()], decide).await?.1)
    }
}
