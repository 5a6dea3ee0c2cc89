//! Stores used OAuth states as rows, one partition each. The caller that writes the row consumes the
//! state.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;

use super::EncryptedStore;
use super::driver::Step;
use super::names::{STATE, state};
use super::record::{Draft, Record};
use crate::backend::{Backend, Lane};
use crate::store::{Error, StateId, StateStore};

/// The facts of a state, which has none.
#[derive(Serialize)]
struct StateFacts {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> StateStore for EncryptedStore<B> {
    async fn consume(&self, id: &StateId, until: SystemTime) -> Result<bool, Error> {
        let decide = |records: &[Option<Record>]| {
            // A row that is due is kept until the sweep removes it. It does no harm.
            let is_used = records.iter().any(Option::is_some);
            let steps = if is_used {
                Vec::new()
            } else {
                let draft = Draft::new(STATE, &StateFacts {}).due(Lane::State, until);
                vec![Step::Put(state().slot, draft)]
            };
            Ok((steps, !is_used))
        };
        let partition = self.driver.app.state(id);
        let (_, is_first) = self.driver.update(&partition, &[state()], decide).await?;
        self.sweep_now_and_then();
        Ok(is_first)
    }

    async fn release(&self, id: &StateId) -> Result<(), Error> {
        let decide = |_: &[Option<Record>]| Ok((vec![Step::Delete(state().slot)], ()));
        let partition = self.driver.app.state(id);
        self.driver.update(&partition, &[state()], decide).await?;
        Ok(())
    }
}
