//! The lifecycle of tenants: purges with a note for your app, holds, and the workspaces that an
//! org-wide installation may serve.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::notice::{Ending, PendingNotice, Subject};
use super::{Error, InstallationStore, Summary};
use crate::forward::forward;
use crate::installation::{Hold, Revision};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

/// Purges tenants, puts them on hold, and limits org-wide installations.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. `purge` removes every row of the tenant except a hold in one commit, and only if the stored
///    installation has revision `only`. Otherwise it returns [`Error::Conflict`] and removes
///    nothing.
/// 2. With `tell_at`, the same commit writes a note of the departure. Its only secret is
///    the flow's metadata, sealed. The note is kept until `settle`, even if the app is installed
///    again. From `tell_at` on, `due_departures` returns it. A later purge, or a `delete` of
///    everything, removes the note; a purge with `tell_at` writes a new one.
/// 3. `postpone` and `settle` change only the exact note that they are given.
/// 4. A hold that is on stays until `hold` lifts it, whatever is installed, purged or deleted. It
///    changes no token. A stored hold that cannot be read is on.
/// 5. `set_enterprise` changes the organisation of a workspace's installation of that revision,
///    and nothing else.
/// 6. Of the changes to one workspace's access, the latest wins; on a tie, the revocation. If no
///    org-wide installation exists, nothing is stored.
/// 7. A notice is written in the same commit as the change that it reports: the end of an
///    authorization ([`Delete::telling`](super::Delete::telling)), a workspace that loses its
///    access (`set_access_telling`), and a chain that becomes dead
///    ([`RotationStore::update`](super::RotationStore::update)). It names who installed the app,
///    and has the flow's metadata, sealed.
/// 8. Each credential and each workspace has at most one notice; a later one replaces it. A commit
///    that restores the subject (a new grant, a chain that is alive again, a regained access)
///    removes its notice, and so does a purge. The other rules for a notice are those for the note
///    of a departure: `due_notices`, `postpone_notice`, `settle_notice`.
///
/// # Consistency
///
/// As [`InstallationStore`]. `due_departures` and `due_notices` are hints: they may lag behind the
/// change.
///
/// # Cancel safety
///
/// If you drop a call, it is applied fully or not at all. An exception is `set_access` of many
/// workspaces, which may be applied to some of them.
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
///     println!("{} has departed", pending.departure.key);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LifecycleStore: InstallationStore {
    /// Returns the revision and the metadata of the stored installation without opening it. The
    /// metadata is not authenticated. Use it to judge an installation that does not open.
    async fn glance(
        &self,
        key: &InstallationKey,
    ) -> Result<Option<(Revision, Option<Summary>)>, Error>;

    /// Removes everything that is stored for the departing tenant.
    async fn purge(
        &self,
        departure: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>,
    ) -> Result<Option<PendingDeparture>, Error>;

    /// Returns the note of this tenant's departure, if one exists.
    async fn departure(&self, key: &InstallationKey) -> Result<Option<PendingDeparture>, Error>;

    /// Returns the notes that are due, earliest first, at most `limit`.
    async fn due_departures(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingDeparture>, Error>;

    /// Puts a note off until the given time, so that only one of several workers notifies your
    /// app. Returns the changed note; `None` if this exact note no longer exists.
    async fn postpone(
        &self,
        pending: &PendingDeparture,
        until: SystemTime,
    ) -> Result<Option<PendingDeparture>, Error>;

    /// Removes a note, because your app was notified. Returns whether the note existed.
    async fn settle(&self, pending: &PendingDeparture) -> Result<bool, Error>;

    /// Puts a tenant on hold, or lifts its hold. Returns whether the tenant has an installation or
    /// a hold. If the tenant is already in that state, its reason and its time stay unchanged.
    async fn hold(&self, key: &InstallationKey, hold: &Hold) -> Result<bool, Error>;

    /// Returns the hold on a tenant, also if it has no installation.
    async fn held(&self, key: &InstallationKey) -> Result<Option<Hold>, Error>;

    /// Stores which organisation a workspace belongs to; `None` for none. Returns whether the
    /// workspace has an installation of this revision.
    async fn set_enterprise(
        &self,
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>,
    ) -> Result<bool, Error>;

    /// Stores that an org-wide installation was granted workspaces or lost them. Returns whether
    /// the org-wide installation exists.
    async fn set_access(&self, org: &EnterpriseId, access: &Access) -> Result<bool, Error>;

    /// As `set_access`. Also writes a notice of each workspace that had access and loses it.
    async fn set_access_telling(
        &self,
        org: &EnterpriseId,
        access: &Access,
        ending: &Ending,
    ) -> Result<bool, Error>;

    /// Returns whether an org-wide installation may serve this workspace. It may, unless its access
    /// to the workspace was revoked.
    async fn has_access(&self, org: &EnterpriseId, team: &TeamId) -> Result<bool, Error>;

    /// Returns the users of this tenant who have a token. Reads only this tenant's rows.
    async fn users(&self, key: &InstallationKey) -> Result<Vec<UserId>, Error>;

    /// Returns the notices of these subjects that exist.
    async fn notices(
        &self,
        key: &InstallationKey,
        subjects: &[Subject],
    ) -> Result<Vec<PendingNotice>, Error>;

    /// Returns the notices that are due, earliest first, at most `limit`.
    async fn due_notices(&self, now: SystemTime, limit: usize)
    -> Result<Vec<PendingNotice>, Error>;

    /// Puts a notice off until the given time. Returns the changed notice; `None` if this exact
    /// notice no longer exists.
    async fn postpone_notice(
        &self,
        pending: &PendingNotice,
        until: SystemTime,
    ) -> Result<Option<PendingNotice>, Error>;

    /// Removes a notice, because your app was told. Returns whether this exact notice existed.
    async fn settle_notice(&self, pending: &PendingNotice) -> Result<bool, Error>;
}

/// The departure of a tenant, as your app is notified of it.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Departure {
    /// The workspace or organisation.
    pub key: InstallationKey,
    /// The reason: an event's type, or an operator's words. At most 500 characters, stored in plain
    /// text.
    pub reason: String,
    /// When the tenant was purged, in whole seconds, rounded down. Compare it with times in whole
    /// seconds. Data that you stored within the same second belongs to the departed tenant too.
    pub at: SystemTime,
    /// The user who had installed the app. `None` if the stored installation could not be read.
    pub installed_by: Option<UserId>,
    /// The metadata that your app passed to the install flow. Sealed like a token. `None` if the
    /// stored installation could not be read.
    pub metadata: Option<String>,
}

impl Departure {
    /// Makes a departure without an installer and without metadata. Truncates `reason` to 500
    /// characters.
    #[must_use]
    pub fn new(key: InstallationKey, reason: &str, at: SystemTime) -> Self {
        Self {
            key,
            reason: reason.chars().take(MAX_REASON).collect(),
            at,
            installed_by: None,
            metadata: None,
        }
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure")
            .field("key", &self.key)
            .field("reason", &self.reason)
            .field("at", &self.at)
            .field("installed_by", &self.installed_by)
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// A departure of which your app has not been notified yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingDeparture {
    /// The departure.
    pub departure: Departure,
    /// How often the note was put off.
    pub attempts: u32,
    /// The revision of the note.
    pub revision: Revision,
}

impl PendingDeparture {
    /// Makes a note, for implementations of the store.
    #[must_use]
    pub fn new(departure: Departure, attempts: u32, revision: Revision) -> Self {
        Self {
            departure,
            attempts,
            revision,
        }
    }
}

/// Workspaces that an org-wide installation was granted or lost.
#[derive(Clone, Debug)]
pub struct Access {
    /// The workspaces.
    pub teams: Vec<TeamId>,
    /// Whether they were granted (`true`) or lost (`false`).
    pub is_granted: bool,
    /// When, in microseconds since 1970 on Slack's clock.
    pub at_micros: u64,
}

/// The longest reason, in characters: an operator writes a sentence or two.
pub(crate) const MAX_REASON: usize = 500;

forward!(LifecycleStore for [Arc] {
    fn glance(key: &InstallationKey) -> Result<Option<(Revision, Option<Summary>)>, Error>;
    fn purge(
        departure: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>
    ) -> Result<Option<PendingDeparture>, Error>;
    fn departure(key: &InstallationKey) -> Result<Option<PendingDeparture>, Error>;
    fn due_departures(now: SystemTime, limit: usize) -> Result<Vec<PendingDeparture>, Error>;
    fn postpone(
        pending: &PendingDeparture,
        until: SystemTime
    ) -> Result<Option<PendingDeparture>, Error>;
    fn settle(pending: &PendingDeparture) -> Result<bool, Error>;
    fn hold(key: &InstallationKey, hold: &Hold) -> Result<bool, Error>;
    fn held(key: &InstallationKey) -> Result<Option<Hold>, Error>;
    fn set_enterprise(
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>
    ) -> Result<bool, Error>;
    fn set_access(org: &EnterpriseId, access: &Access) -> Result<bool, Error>;
    fn set_access_telling(
        org: &EnterpriseId,
        access: &Access,
        ending: &Ending
    ) -> Result<bool, Error>;
    fn has_access(org: &EnterpriseId, team: &TeamId) -> Result<bool, Error>;
    fn users(key: &InstallationKey) -> Result<Vec<UserId>, Error>;
    fn notices(
        key: &InstallationKey,
        subjects: &[Subject]
    ) -> Result<Vec<PendingNotice>, Error>;
    fn due_notices(now: SystemTime, limit: usize) -> Result<Vec<PendingNotice>, Error>;
    fn postpone_notice(
        pending: &PendingNotice,
        until: SystemTime
    ) -> Result<Option<PendingNotice>, Error>;
    fn settle_notice(pending: &PendingNotice) -> Result<bool, Error>;
});
