//! What was handled already, so that it is handled once.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::Error;
use crate::installation::Revision;

/// Remembers which requests were handled.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. Of concurrent `claim`s of one id, exactly one is [`Claim::Taken`].
/// 2. A claim that is neither finished nor released ends by itself at its time; then the id may
///    be claimed again.
/// 3. After `finish`, the id is [`Claim::Finished`] until that time.
/// 4. `finish` and `release` change nothing if the claim has passed to another.
///
/// # Consistency
///
/// Linearizable per id, durable when a call returns.
///
/// # Cancel safety
///
/// Dropping a call leaves it done or not done.
///
/// # Errors
///
/// As [`InstallationStore`](super::InstallationStore). After an [`Error::Unavailable`] from
/// `claim` the id may be claimed, until its time.
///
/// # Example
///
/// ```no_run
/// # async fn example(
/// #     store: &dyn slack_installs::store::SeenStore,
/// #     id: slack_installs::store::SeenId,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::{Duration, SystemTime};
///
/// use slack_installs::store::Claim;
///
/// let now = SystemTime::now();
/// if let Claim::Taken(claim) = store.claim(&id, now, now + Duration::from_secs(60)).await? {
///     // … handle it …
///     store.finish(&id, claim, now + Duration::from_secs(25 * 3600)).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait SeenStore: fmt::Debug + Send + Sync + 'static {
    /// Claims this id for its handling, until then.
    async fn claim(&self, id: &SeenId, now: SystemTime, until: SystemTime) -> Result<Claim, Error>;

    /// Remembers the id as handled, until then. Answers whether the claim stood.
    async fn finish(&self, id: &SeenId, claim: Revision, until: SystemTime) -> Result<bool, Error>;

    /// Forgets the id: its handling failed. Answers whether the claim stood.
    async fn release(&self, id: &SeenId, claim: Revision) -> Result<bool, Error>;
}

/// The name of one request: a hash, since a trigger id is a ticket.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SeenId(pub [u8; 32]);

impl fmt::Debug for SeenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenId(…)")
    }
}

/// Whether a request is to be handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// It was handled.
    Finished,
    /// Somebody handles it now.
    InProgress,
    /// It is the caller's to handle, and then to finish or to release.
    Taken(Revision),
}

forward!(SeenStore {
    fn claim(id: &SeenId, now: SystemTime, until: SystemTime) -> Claim;
    fn finish(id: &SeenId, claim: Revision, until: SystemTime) -> bool;
    fn release(id: &SeenId, claim: Revision) -> bool;
});
