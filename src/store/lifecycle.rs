//! What a tenant's life needs of a store besides fetching: purges that the host is told of,
//! tenants on hold, and which workspaces an org-wide installation may serve.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::{Error, InstallationStore, Summary};
use crate::installation::{Hold, Revision};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

/// Ends, holds and limits installations.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. `purge` removes every row of the tenant in one commit, and only if the stored installation
///    is still of that revision; otherwise it is an [`Error::Conflict`] and nothing goes.
/// 2. With `tell_at`, that same commit leaves a note of the departure, without secrets. It stands
///    until `settle`, whatever is installed meanwhile, and `due_departures` finds it from that
///    time on. Another purge of the tenant takes it along, and leaves its own in its place, if it
///    has a `tell_at`; so does a `delete` of all.
/// 3. `postpone` and `settle` change only the very note that they are given.
/// 4. `hold` is kept when the app is installed again, and goes when the tenant is purged. It
///    touches no token.
/// 5. `set_enterprise` changes the organisation of a workspace's installation of that revision,
///    and nothing else of it.
/// 6. Of the changes of one workspace's access, the one of the latest time counts; of two of the
///    same time, the revocation. Without an org-wide installation nothing is kept.
///
/// # Consistency
///
/// As [`InstallationStore`]. `due_departures` is a hint: it may lag behind a `purge`.
///
/// # Cancel safety
///
/// Dropping a call leaves it done or not done, never half done; `set_access` of many workspaces
/// may be done for some of them.
///
/// # Errors
///
/// As [`InstallationStore`].
///
/// # Example
///
/// ```no_run
/// # async fn example(
/// #     store: &dyn slack_installs::store::LifecycleStore,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::SystemTime;
///
/// for pending in store.due_departures(SystemTime::now(), 100).await? {
///     println!("the host is to be told of {}", pending.departure.key);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LifecycleStore: InstallationStore {
    /// What stands there, unopened: its revision, and what its metadata says, which is not
    /// authenticated. To judge an installation that does not open.
    async fn glance(
        &self,
        key: &InstallationKey,
    ) -> Result<Option<(Revision, Option<Summary>)>, Error>;

    /// Removes everything of the departing tenant.
    async fn purge(
        &self,
        departure: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>,
    ) -> Result<Option<PendingDeparture>, Error>;

    /// The note that stands for this tenant.
    async fn departure(&self, key: &InstallationKey) -> Result<Option<PendingDeparture>, Error>;

    /// Notes whose time has come, earliest first, `limit` at most.
    async fn due_departures(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingDeparture>, Error>;

    /// Puts a note off until then, so that of several workers one tells the host. Answers the
    /// note as it stands then; `None` if this very note does not stand any more.
    async fn postpone(
        &self,
        pending: &PendingDeparture,
        until: SystemTime,
    ) -> Result<Option<PendingDeparture>, Error>;

    /// Removes a note: the host was told. Answers whether it stood.
    async fn settle(&self, pending: &PendingDeparture) -> Result<bool, Error>;

    /// Puts a tenant on hold, or ends that. Answers whether it has an installation. A tenant that
    /// is in that state already keeps the reason and the time that it has.
    async fn hold(&self, key: &InstallationKey, hold: &Hold) -> Result<bool, Error>;

    /// Keeps which organisation a workspace belongs to by now; `None` for none. Answers whether
    /// there was a workspace's installation of this revision.
    async fn set_enterprise(
        &self,
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>,
    ) -> Result<bool, Error>;

    /// Keeps that an org-wide installation was granted or lost workspaces. Answers whether there
    /// is one.
    async fn set_access(&self, org: &EnterpriseId, access: &Access) -> Result<bool, Error>;

    /// Whether an org-wide installation may serve this workspace: unless it was taken away.
    async fn has_access(&self, org: &EnterpriseId, team: &TeamId) -> Result<bool, Error>;

    /// Returns the users of this tenant who have a token. Reads the rows of this tenant only.
    async fn users(&self, key: &InstallationKey) -> Result<Vec<UserId>, Error>;
}

/// A tenant that is gone, as the host is told it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Departure {
    /// Which workspace or organisation.
    pub key: InstallationKey,
    /// Why: an event's type, or an operator's words. Stands in the clear; 500 characters at most.
    pub reason: String,
    /// When it was purged, in whole seconds, rounded down. Compare it with times in whole seconds:
    /// what you kept within that second is the departed tenant's too.
    pub at: SystemTime,
}

impl Departure {
    /// A departure; a longer reason is cut.
    #[must_use]
    pub fn new(key: InstallationKey, reason: &str, at: SystemTime) -> Self {
        Self {
            key,
            reason: reason.chars().take(MAX_REASON).collect(),
            at,
        }
    }
}

/// A departure of which the host was not told yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingDeparture {
    /// What to tell.
    pub departure: Departure,
    /// How often it was put off.
    pub attempts: u32,
    /// Which state of the note this is.
    pub revision: Revision,
}

impl PendingDeparture {
    /// A note, for implementations of the store.
    #[must_use]
    pub fn new(departure: Departure, attempts: u32, revision: Revision) -> Self {
        Self {
            departure,
            attempts,
            revision,
        }
    }
}

/// Workspaces that an org-wide installation was granted, or lost.
#[derive(Clone, Debug)]
pub struct Access {
    /// Which ones.
    pub teams: Vec<TeamId>,
    /// Whether they were granted.
    pub is_granted: bool,
    /// When, in microseconds since 1970 on Slack's clock.
    pub at_micros: u64,
}

/// An operator writes a sentence or two.
pub(crate) const MAX_REASON: usize = 500;

forward!(LifecycleStore {
    fn glance(key: &InstallationKey) -> Option<(Revision, Option<Summary>)>;
    fn purge(
        departure: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>
    ) -> Option<PendingDeparture>;
    fn departure(key: &InstallationKey) -> Option<PendingDeparture>;
    fn due_departures(now: SystemTime, limit: usize) -> Vec<PendingDeparture>;
    fn postpone(pending: &PendingDeparture, until: SystemTime) -> Option<PendingDeparture>;
    fn settle(pending: &PendingDeparture) -> bool;
    fn hold(key: &InstallationKey, hold: &Hold) -> bool;
    fn set_enterprise(
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>
    ) -> bool;
    fn set_access(org: &EnterpriseId, access: &Access) -> bool;
    fn has_access(org: &EnterpriseId, team: &TeamId) -> bool;
    fn users(key: &InstallationKey) -> Vec<UserId>;
});
