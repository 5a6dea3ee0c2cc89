//! Handled requests, so that each is handled once.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::Error;
use crate::forward::forward;
use crate::installation::Revision;

/// Stores which requests were handled.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. Of concurrent `claim`s of one id, exactly one returns [`Claim::Taken`].
/// 2. A claim that is neither finished nor released expires at its time. Then the id can be claimed
///    again.
/// 3. After `finish`, `claim` returns [`Claim::Finished`] for that id until the given time.
/// 4. If another caller has taken over the claim, `finish` and `release` change nothing.
///
/// # Consistency
///
/// Linearizable per id. A change is durable when the call returns.
///
/// # Cancel safety
///
/// If you drop a call, it is applied fully or not at all.
///
/// # Errors
///
/// As [`InstallationStore`](super::InstallationStore). After an [`Error::Unavailable`] from
/// `claim`, the id may stay claimed until its time.
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
    /// Claims this id until the given time, so that the caller handles the request.
    async fn claim(&self, id: &SeenId, now: SystemTime, until: SystemTime) -> Result<Claim, Error>;

    /// Stores that the id was handled, until the given time. Returns whether the claim was valid.
    async fn finish(&self, id: &SeenId, claim: Revision, until: SystemTime) -> Result<bool, Error>;

    /// Releases the id, because its handling failed. Returns whether the claim was valid.
    async fn release(&self, id: &SeenId, claim: Revision) -> Result<bool, Error>;
}

/// The id of one request. It is a hash, because a trigger id is a credential.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SeenId(pub [u8; 32]);

impl fmt::Debug for SeenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenId(…)")
    }
}

/// The result of [`SeenStore::claim`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// The request was handled.
    Finished,
    /// Another caller is handling the request.
    InProgress,
    /// The caller must handle the request, and then call `finish` or `release`.
    Taken(Revision),
}

forward!(SeenStore for [Arc] {
    fn claim(id: &SeenId, now: SystemTime, until: SystemTime) -> Result<Claim, Error>;
    fn finish(id: &SeenId, claim: Revision, until: SystemTime) -> Result<bool, Error>;
    fn release(id: &SeenId, claim: Revision) -> Result<bool, Error>;
});
