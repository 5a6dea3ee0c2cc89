//! The traits that callers depend on: stores of installations, tokens, OAuth states and requests.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use thiserror::Error;

use crate::forward::forward;
use crate::installation::{Home, Installation, Revision, StoredInstallation};
use crate::secret::{AccessToken, WebhookUrl};
use crate::tenant::{AppId, BotId, InstallationKey, UserId};

mod audit;
mod chain;
mod figures;
mod in_time;
mod lifecycle;
mod notice;
mod rows;
mod seen;
mod threshold;
mod witness;

pub use audit::{
    AuditStore, Batch, FoundRuns, Part, Plain, PublicPart, Registry, RunEntry, RunId, StoredBatch,
};
#[cfg(test)]
pub(crate) use chain::SUSPECT;
pub use chain::{Chain, ChainKey, Credential, InstallId, Lease, Mark, RotationStore, StoredChain};
pub(crate) use chain::{HARD, is_suspect};
pub use figures::{ChainFigures, Figures};
pub(crate) use in_time::in_time;
pub(crate) use lifecycle::MAX_REASON;
pub use lifecycle::{Access, Departure, LifecycleStore, PendingDeparture};
pub use notice::{Ending, Notice, PendingNotice, Subject};
pub use rows::{RowPage, StoredRow, StoredRows};
pub use seen::{Claim, SeenId, SeenStore};
pub use threshold::{RefreshThreshold, ThresholdError};
pub use witness::{Act, ActKind, AuditContext, Witness};

/// Everything that an app stores: the five traits of one store. Every type that implements all
/// five implements this trait too.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
pub trait Store: LifecycleStore + RotationStore + SeenStore + StateStore {}

impl<S> Store for S where S: LifecycleStore + RotationStore + SeenStore + StateStore {}

/// Stores, fetches and deletes installations by `(enterprise_id, team_id)`.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. `fetch` returns what `store` was given for the same key, unless newer data is stored (rule
///    8). A `store` writes the bot, the user and the webhooks together or not at all.
/// 2. Each credential is stored once. A later `store` replaces the bot's token for all callers,
///    and the user's token for that user. If it has no bot or no user, the stored one stays
///    unchanged.
/// 3. `fetch` returns the bot, and the token and the metadata of exactly the user that the caller
///    names. If the caller names no user, it returns no user's token and no person's metadata.
/// 4. A workspace is found by its team id, with or without an enterprise id in the key. An org-wide
///    installation is found by `(Some(enterprise), None)` only.
/// 5. `delete` removes exactly what it names. If that is already deleted, it is a no-op. If the
///    caller limits it to a revision or a token, it never removes anything newer. A webhook or a
///    metadata that it removed does not come back when the same installation, or an earlier one, is
///    stored again. A later installation brings its own.
/// 6. Concurrent calls take effect one after the other.
/// 7. A `store` without metadata leaves the stored metadata unchanged: the tenant's, and each
///    person's. The later installation's metadata wins, also if it is stored first.
/// 8. Newer data wins. Storing a pair that was already replaced, such as the pair of an
///    installation that was fetched before a refresh, changes nothing. Storing the current pair
///    keeps its rotation state. Otherwise the later `installed_at` wins; on a tie, the later call.
///    The older installation's refresh token is kept as an alternate.
///
/// # Consistency
///
/// Linearizable per installation. A change is durable when the call returns.
///
/// # Cancel safety
///
/// If you drop a call of `store` or `delete`, it is applied fully or not at all.
///
/// # Errors
///
/// An absent installation is `Ok(None)`. An installation that does not open is
/// [`Error::Unreadable`], never `None`. If the database does not respond, the error is
/// [`Error::Unavailable`], and the operation may have been applied.
///
/// # Example
///
/// ```no_run
/// # async fn example(
/// #     store: &dyn slack_installs::InstallationStore,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::{InstallationKey, TeamId};
///
/// let key = InstallationKey::new(None, Some(TeamId::new("T0ALPHA0001")?))?;
/// if let Some(installation) = store.fetch(&key, None).await? {
///     println!("{:?}", installation.bot.as_ref().map(|bot| &bot.grant.scopes));
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait InstallationStore: fmt::Debug + Send + Sync + 'static {
    /// Makes sure that an installation could be stored now, as far as that can be told without
    /// writing. It is called before a code from Slack is used, because the tokens that Slack
    /// issues for it exist nowhere else.
    ///
    /// [`EncryptedStore`](crate::EncryptedStore) makes sure of the key that seals, and keeps this
    /// key until the flow ends, so that an outage of the key provider in between loses no token.
    /// The default does nothing.
    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Stores this installation, unless a newer one is stored. Returns the revision of the
    /// installation that is stored afterwards.
    async fn store(&self, installation: &Installation) -> Result<Revision, Error>;

    /// Returns the installation of this key. If `user` is given, includes that user's token.
    async fn fetch(
        &self,
        key: &InstallationKey,
        user: Option<&UserId>,
    ) -> Result<Option<StoredInstallation>, Error>;

    /// Adds facts that became known after the installation was stored. Changes no token. Returns
    /// whether an installation of this revision exists.
    async fn note(
        &self,
        key: &InstallationKey,
        revision: Revision,
        facts: &Facts,
    ) -> Result<bool, Error>;

    /// Deletes the installation of this key, or a part of it. Returns whether anything was deleted.
    async fn delete(&self, key: &InstallationKey, delete: &Delete) -> Result<bool, Error>;

    /// Returns a page of all installations, from their metadata. Decrypts nothing, so the result is
    /// not authenticated.
    async fn list(&self, from: Option<ListCursor>, limit: usize) -> Result<Listing, Error>;
}

/// Facts that `auth.test` reports of an installation. `None` leaves the stored value unchanged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The bot's id.
    pub bot_id: Option<BotId>,
    /// The workspace's or the organisation's URL.
    pub url: Option<String>,
}

/// Selects what [`InstallationStore::delete`] deletes, and on which conditions.
///
/// ```
/// use slack_installs::{Delete, UserId};
///
/// let everything = Delete::all();
/// let one_users_token = Delete::user(UserId::new("U0ADMIN0001")?);
/// let one_webhook = Delete::webhook_of("C0GENERAL01");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delete {
    /// The part to delete.
    pub what: DeleteWhat,
    /// Deletes only if the stored installation has this revision. Otherwise the call returns
    /// [`Error::Conflict`] and deletes nothing.
    pub only: Option<Revision>,
    /// Deletes only if this access token is the stored one. Otherwise the call returns
    /// [`Error::Conflict`]. A refresh replaces the token and does not change the revision, so
    /// `only` does not detect it. Has no effect on parts that have no token.
    pub holding: Option<Mark>,
    /// Writes a [`Notice`] that the authorization ended, in the same commit. Has no effect on parts
    /// that have no token, nor if the part is not stored.
    pub ending: Option<Ending>,
}

/// The part of an installation that a [`Delete`] deletes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeleteWhat {
    /// Everything that is stored for the tenant.
    All,
    /// The bot and its token.
    Bot,
    /// One user's token and metadata.
    User(UserId),
    /// One fact. It stays away: a `store` of the same installation or of an earlier one does not
    /// bring it back. A later installation may have such a fact again.
    Fact(DeleteFact),
}

/// The fact of an installation that a [`Delete`] deletes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeleteFact {
    /// The tenant's metadata. The metadata of each person stays.
    Metadata,
    /// One person's metadata. Their token and the tenant's metadata stay.
    UserMetadata(UserId),
    /// The webhook whose URL has this mark.
    Webhook(Mark),
    /// The webhook of the channel with this id.
    WebhookOf(String),
}

impl Delete {
    /// Selects everything that is stored for the tenant.
    #[must_use]
    pub fn all() -> Self {
        Self {
            what: DeleteWhat::All,
            only: None,
            holding: None,
            ending: None,
        }
    }

    /// Selects the bot and its token. The users' own tokens stay.
    #[must_use]
    pub fn bot() -> Self {
        Self {
            what: DeleteWhat::Bot,
            only: None,
            holding: None,
            ending: None,
        }
    }

    /// Selects one user's token and metadata. The bot and the tokens of other users stay.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self {
            what: DeleteWhat::User(user),
            only: None,
            holding: None,
            ending: None,
        }
    }

    /// Selects one webhook, by its URL. Use it if Slack responds that the webhook was removed. A
    /// webhook that replaced it meanwhile stays.
    #[must_use]
    pub fn webhook(url: &WebhookUrl) -> Self {
        Self::fact(DeleteFact::Webhook(Mark::of_webhook(url)))
    }

    /// Selects the webhook of the channel with this id.
    #[must_use]
    pub fn webhook_of(channel_id: impl Into<String>) -> Self {
        Self::fact(DeleteFact::WebhookOf(channel_id.into()))
    }

    /// Selects the tenant's metadata. The metadata of each person stays.
    #[must_use]
    pub fn metadata() -> Self {
        Self::fact(DeleteFact::Metadata)
    }

    /// Selects one person's metadata. Their token and the tenant's metadata stay.
    #[must_use]
    pub fn user_metadata(user: UserId) -> Self {
        Self::fact(DeleteFact::UserMetadata(user))
    }

    fn fact(fact: DeleteFact) -> Self {
        Self {
            what: DeleteWhat::Fact(fact),
            only: None,
            holding: None,
            ending: None,
        }
    }

    /// Deletes only if the stored installation has this revision.
    #[must_use]
    pub fn only(mut self, revision: Revision) -> Self {
        self.only = Some(revision);
        self
    }

    /// Deletes only if this access token is the stored one.
    #[must_use]
    pub fn holding(mut self, token: &AccessToken) -> Self {
        self.holding = Some(Mark::of_access_token(token));
        self
    }

    /// Writes a notice for your app in the same commit.
    #[must_use]
    pub fn telling(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }
}

/// The metadata of an installation, read without opening it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The app.
    pub app_id: AppId,
    /// The workspace or organisation.
    pub home: Home,
    /// The user who completed the install flow last.
    pub installed_by: Option<UserId>,
    /// When the app was installed last, on Slack's clock.
    pub installed_at: SystemTime,
}

impl Summary {
    /// Returns the key of the installation.
    #[must_use]
    pub fn key(&self) -> InstallationKey {
        self.home.key()
    }

    /// Makes a summary, for implementations of the store.
    #[must_use]
    pub fn new(
        app_id: AppId,
        home: Home,
        installed_by: Option<UserId>,
        installed_at: SystemTime,
    ) -> Self {
        Self {
            app_id,
            home,
            installed_by,
            installed_at,
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The installations. A page can be empty and still not be the last.
    pub installations: Vec<Summary>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// Streams the installations of a store, page by page.
///
/// The stream ends after an error. An installation that is stored or deleted during the listing
/// may be missing. Every other installation is returned once.
///
/// ```
/// # async fn nightly(
/// #     store: &dyn slack_installs::InstallationStore,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::pin::pin;
///
/// use futures_util::TryStreamExt as _;
///
/// let mut installations = pin!(slack_installs::store::installations(store));
/// while let Some(summary) = installations.try_next().await? {
///     println!("{}", summary.key());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error`](enum@Error), if a page cannot be read.
///
/// # Cancel safety
///
/// You can drop the stream at any point.
pub fn installations<S>(store: &S) -> impl Stream<Item = Result<Summary, Error>> + Send + '_
where
    S: InstallationStore + ?Sized,
{
    let pages = stream::try_unfold(Some(None), move |from| async move {
        let Some(from) = from else {
            return Ok::<_, Error>(None);
        };
        let page = store.list(from, AT_ONCE).await?;
        // A page can be empty and still not be the last.
        let installations = stream::iter(page.installations.into_iter().map(Ok::<_, Error>));
        Ok(Some((installations, page.next.map(Some))))
    });
    pages.try_flatten()
}

/// The installations of a page, a few hundred kilobytes.
const AT_ONCE: usize = 200;

/// Where a listing continues. Opaque.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListCursor(pub String);

/// Stores which OAuth states were used. Each can be used once.
///
/// Nothing is stored when a flow starts, because anybody can start flows.
///
/// # Contract
///
/// 1. Of all calls of `consume` with one id until `until`, exactly one returns `true`.
/// 2. After `release`, one more does. Only the caller that got `true` may call it.
///
/// # Consistency
///
/// Linearizable per state. A change is durable when the call returns.
///
/// # Cancel safety
///
/// If you drop a call, the state may be used up. The person must then start again.
///
/// # Errors
///
/// As [`InstallationStore`]. After an [`Error::Unavailable`], the state may be used up.
#[async_trait]
pub trait StateStore: fmt::Debug + Send + Sync + 'static {
    /// Marks this state as used, at least until the given time. Returns `false` if it was already
    /// marked.
    async fn consume(&self, id: &StateId, until: SystemTime) -> Result<bool, Error>;

    /// Takes the mark back, because nothing was done with the state.
    async fn release(&self, id: &StateId) -> Result<(), Error>;
}

/// The id of one OAuth flow. It is a hash of the state's random part, so that a reader of the
/// database learns nothing of the state.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct StateId(pub [u8; 32]);

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateId(…)")
    }
}

forward!(InstallationStore for [Arc] {
    fn ready() -> Result<(), Error>;
    fn store(installation: &Installation) -> Result<Revision, Error>;
    fn fetch(
        key: &InstallationKey,
        user: Option<&UserId>
    ) -> Result<Option<StoredInstallation>, Error>;
    fn note(key: &InstallationKey, revision: Revision, facts: &Facts) -> Result<bool, Error>;
    fn delete(key: &InstallationKey, delete: &Delete) -> Result<bool, Error>;
    fn list(from: Option<ListCursor>, limit: usize) -> Result<Listing, Error>;
});

forward!(StateStore for [Arc] {
    fn consume(id: &StateId, until: SystemTime) -> Result<bool, Error>;
    fn release(id: &StateId) -> Result<(), Error>;
});

/// Why a call to a store failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The stored installation no longer has the revision or the token that the caller named.
    #[error("the stored installation has changed since it was read: fetch it and try again")]
    Conflict,
    /// The data key of the stored data cannot be used: it is missing, or the key provider refused
    /// it or did not respond in time. The data is not damaged, and nothing was overwritten.
    #[error("a data key cannot be used: check the key provider and its keys; no data was changed")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stored data is sealed under a key that the keyring does not list, or the keyring is
    /// older than one that this process has seen. Nothing was overwritten.
    #[error(
        "the keyring of the installation store was rolled back: restore it from the newest backup; \
         no data was changed"
    )]
    KeyringRolledBack(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not respond. The operation may have been applied.
    #[error("the installation store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stored data does not open, or has a format that this version does not know. The error
    /// does not say why, because that would help an attacker who changes rows to find one that
    /// passes.
    #[error(
        "a stored installation cannot be read: it was changed, moved, or sealed under another key"
    )]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Returns whether the same call may succeed later without a change by the caller.
    ///
    /// That includes faults of keys. An operator can repair them while the call is repeated, and
    /// tokens that Slack has just issued exist nowhere else.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Key(_) | Self::KeyringRolledBack(_) | Self::Unavailable(_) => true,
            Self::Conflict | Self::Unreadable(_) => false,
        }
    }

    /// Returns whether this record could not be opened, whereas others perhaps can.
    pub(crate) fn is_of_record(&self) -> bool {
        match self {
            Self::Key(_) | Self::KeyringRolledBack(_) | Self::Unreadable(_) => true,
            Self::Conflict | Self::Unavailable(_) => false,
        }
    }
}
