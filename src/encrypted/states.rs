//! OAuth states as rows: a partition each, taken away by whoever deletes it first.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::driver::{Draft, Place, Record, Step};
use super::{EncryptedStore, partition, records, slot};
use crate::backend::{Backend, Due, Lane, Partition};
use crate::error_chain::error_chain;
use crate::store::{Error, StateId, StatePayload, StateStore};

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
                kind: records::STATE,
                metadata: r#"{"v":1,"kind":"state"}"#.into(),
                plaintext: Zeroizing::new(payload.to_vec()),
                due: Some(Due {
                    lane: Lane::State,
                    at: expires_at,
                }),
            };
            Ok((vec![Step::Put(state().slot, draft)], ()))
        };
        self.driver.update(&self.of(id), &[state()], decide).await?;
        self.sweep_now_and_then();
        Ok(())
    }

    async fn consume(&self, id: &StateId, now: SystemTime) -> Result<Option<StatePayload>, Error> {
        let partition = self.of(id);
        let decide = |records: &[Option<Record>]| {
            let [Some(record)] = records else {
                return Ok((Vec::new(), None));
            };
            // An expired one is left for the sweep.
            match record.row.due.is_some_and(|due| now < due.at) {
                true => Ok((
                    vec![Step::Delete(state().slot)],
                    Some(record.plaintext.clone()),
                )),
                false => Ok((Vec::new(), None)),
            }
        };
        Ok(self.driver.update(&partition, &[state()], decide).await?.1)
    }
}

impl<B: Backend> EncryptedStore<B> {
    fn of(&self, id: &StateId) -> Partition {
        partition(self.driver.app(), &format!("{STATES}{}", hex(&id.0)))
    }

    /// Removes expired states in the background, at most once in [`SWEEP_EVERY`]: a crawler that
    /// opens the install page again and again leaves nothing behind.
    pub(super) fn sweep_now_and_then(&self) {
        let now = Instant::now();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        *swept = Some(now);
        let store = self.clone();
        drop(tokio::spawn(async move {
            if let Err(error) = store.sweep_expired_states().await {
                tracing::warn!(
                    error = error_chain(&error),
                    "expired OAuth states could not be removed"
                );
            }
        }));
    }

    /// Removes OAuth states that expired without a callback, and requests whose time of being
    /// remembered is over. Starting a flow and remembering a request do this by themselves now
    /// and then; an app with little traffic has no need to call it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the database does not answer. Some may be gone then.
    pub async fn sweep_expired_states(&self) -> Result<usize, Error> {
        let states = self.sweep(Lane::State).await?;
        Ok(states + self.sweep(Lane::Handled).await?)
    }

    async fn sweep(&self, lane: Lane) -> Result<usize, Error> {
        let now = self.clock.now();
        let (mut swept, mut from) = (0, None);
        for _ in 0..SWEEPS {
            let page = self.driver.due(lane, now, from, SWEEP_AT_ONCE).await?;
            for (key, row) in page.rows {
                // One that moved was swept by somebody else.
                match self.driver.remove(key, row.version).await {
                    Err(error) if error.is_transient() => return Err(error.into()),
                    outcome => swept += usize::from(outcome.unwrap_or_default()),
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        Ok(swept)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

fn state() -> Place {
    Place {
        slot: slot("state"),
        kind: records::STATE,
    }
}

const STATES: &str = "state/";

/// Ten times in the life of a state, so that the dead are few beside the living.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Rows asked for at once.
const SWEEP_AT_ONCE: usize = 1000;

/// A bound on one sweep's work; the next one takes the rest.
const SWEEPS: usize = 10;
