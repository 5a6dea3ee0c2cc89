//! The ports above storage: installations, and OAuth states. What callers depend on.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use thiserror::Error;

use crate::installation::{Home, Installation, Revision, StoredInstallation};
use crate::secret::AccessToken;
use crate::tenant::{AppId, BotId, InstallationKey, UserId};

/// Forwards a port through an [`Arc`].
macro_rules! forward {
    ($port:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $ok:ty;)+ }) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: $port + ?Sized> $port for Arc<S> {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$ok, Error> {
                (**self).$name($($arg),*).await
            })+
        }
    };
}

mod chain;
mod lifecycle;
mod seen;

pub use chain::{Chain, ChainKey, Credential, InstallId, Lease, Mark, RotationStore, StoredChain};
pub(crate) use chain::{HARD, SOFT, SPREAD, SUSPECT, is_suspect};
pub(crate) use lifecycle::MAX_REASON;
pub use lifecycle::{Access, Departure, LifecycleStore, PendingDeparture};
pub use seen::{Claim, SeenId, SeenStore};

/// Everything that an app keeps: the five ports of one store. Any type that has all of them has
/// this one.
///
/// [`EncryptedStore`](crate::EncryptedStore) has it over any backend.
pub trait Store: LifecycleStore + RotationStore + SeenStore + StateStore {}

impl<S> Store for S where S: LifecycleStore + RotationStore + SeenStore + StateStore {}

/// Keeps installations: store, fetch and delete by `(enterprise_id, team_id)`.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. What `store` took, `fetch` gives, for the same key, unless what stands is newer (7). Bot,
///    user and webhooks are stored together or not at all.
/// 2. Each credential is kept once: a later `store` replaces the bot's token for everybody, and
///    the user's token for that user. What it does not carry (no bot, no user) stays as it is.
/// 3. `fetch` gives the bot, and the token of exactly the user asked for. Asked for no user, it
///    gives no user's token.
/// 4. A workspace is found by its team id, whatever enterprise id stands beside it. An org-wide
///    installation is found by `(Some(enterprise), None)` only.
/// 5. `delete` removes exactly what it names, and is content if that is gone already. Told to
///    remove only what was judged, it never removes what has come since.
/// 6. Concurrent calls act as if one came after the other.
/// 7. What is newer stays. Tokens that the stored ones have replaced, as those of an installation
///    that was fetched before a refresh, change nothing; the pair that stands, stored again, goes
///    on being refreshed as before. Other tokens replace those of an installation that was not
///    later (`installed_at`), so of equal times those that are stored last. A later installation
///    keeps its tokens and its facts; the late one's refresh token is kept beside them.
///
/// # Consistency
///
/// Linearizable per installation, durable when a call returns.
///
/// # Cancel safety
///
/// Dropping `store` or `delete` leaves it done or not done, never half done.
///
/// # Errors
///
/// Absent is `Ok(None)`. An installation that does not open is [`Error::Unreadable`], never
/// `None`; a database that does not answer is [`Error::Unavailable`], and what was asked for may
/// have happened.
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
    /// Keeps this installation, over what stood there unless that is newer. Answers the revision
    /// of what stands.
    async fn store(&self, installation: &Installation) -> Result<Revision, Error>;

    /// The installation of this key, with the token of this user if one is named.
    async fn fetch(
        &self,
        key: &InstallationKey,
        user: Option<&UserId>,
    ) -> Result<Option<StoredInstallation>, Error>;

    /// Adds what became known after the installation was stored, and touches no token. Answers
    /// whether there was an installation of this revision to add it to.
    async fn note(
        &self,
        key: &InstallationKey,
        revision: Revision,
        facts: &Facts,
    ) -> Result<bool, Error>;

    /// Removes the installation of this key, or a part of it. Answers whether anything went.
    async fn delete(&self, key: &InstallationKey, delete: &Delete) -> Result<bool, Error>;

    /// A page of all installations, from their metadata: nothing is decrypted, and what it says
    /// is not authenticated.
    async fn list(&self, from: Option<ListCursor>, limit: usize) -> Result<Listing, Error>;
}

/// What `auth.test` tells of an installation. `None` leaves what is stored.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The bot's id.
    pub bot_id: Option<BotId>,
    /// The workspace's or the organisation's URL.
    pub url: Option<String>,
}

/// What to remove.
///
/// ```
/// use slack_installs::{Delete, UserId};
///
/// let everything = Delete::all();
/// let one_users_token = Delete::user(UserId::new("U0ADMIN0001")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delete {
    /// What.
    pub what: DeleteWhat,
    /// Only if the stored installation is still of this revision; otherwise the call is an
    /// [`Error::Conflict`] and nothing goes.
    pub only: Option<Revision>,
    /// Only if this access token is still the stored one: a refresh replaces a token and leaves
    /// the installation's revision as it is. Otherwise an [`Error::Conflict`] too. Of no effect
    /// on [`DeleteWhat::All`].
    pub holding: Option<Mark>,
}

/// The part of an installation that a [`Delete`] removes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeleteWhat {
    /// Everything that is kept for the tenant.
    All,
    /// The bot and its token.
    Bot,
    /// One user's token.
    User(UserId),
}

impl Delete {
    /// Everything that is kept for the tenant.
    #[must_use]
    pub fn all() -> Self {
        Self {
            what: DeleteWhat::All,
            only: None,
            holding: None,
        }
    }

    /// The bot and its token; users' own tokens stay.
    #[must_use]
    pub fn bot() -> Self {
        Self {
            what: DeleteWhat::Bot,
            only: None,
            holding: None,
        }
    }

    /// One user's token; the bot and other users stay.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self {
            what: DeleteWhat::User(user),
            only: None,
            holding: None,
        }
    }

    /// The same, but only while the stored installation is of this revision.
    #[must_use]
    pub fn only(self, revision: Revision) -> Self {
        Self {
            only: Some(revision),
            ..self
        }
    }

    /// The same, but only while this access token is the stored one.
    #[must_use]
    pub fn holding(self, token: &AccessToken) -> Self {
        Self {
            holding: Some(Mark::of_access_token(token)),
            ..self
        }
    }
}

/// What can be seen of an installation without opening it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The app.
    pub app_id: AppId,
    /// Where.
    pub home: Home,
    /// Who went through the flow last.
    pub installed_by: Option<UserId>,
    /// When, on Slack's clock.
    pub installed_at: SystemTime,
}

impl Summary {
    /// Returns the key of the installation.
    #[must_use]
    pub fn key(&self) -> InstallationKey {
        self.home.key()
    }

    /// A summary, for implementations of the store.
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
    /// The installations. A page can have none and still not be the last.
    pub installations: Vec<Summary>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

/// Streams the installations of a store, page by page.
///
/// After an error, the stream ends. An installation that is stored or deleted meanwhile may be
/// missing; every other is there once.
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
/// [`Error`](enum@Error) if a page cannot be read.
///
/// # Cancel safety
///
/// May be dropped at any point.
pub fn installations<S>(store: &S) -> impl Stream<Item = Result<Summary, Error>> + Send + '_
where
    S: InstallationStore + ?Sized,
{
    let pages = stream::try_unfold(Some(None), move |from| async move {
        let Some(from) = from else {
            return Ok::<_, Error>(None);
        };
        let page = store.list(from, AT_ONCE).await?;
        // A page can have none and still not be the last.
        let installations = stream::iter(page.installations.into_iter().map(Ok::<_, Error>));
        Ok(Some((installations, page.next.map(Some))))
    });
    pages.try_flatten()
}

/// Installations of a page: some hundred kilobytes.
const AT_ONCE: usize = 200;

/// Where a listing goes on. Opaque.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListCursor(pub String);

/// Keeps OAuth states between the start of a flow and its callback, each for one use.
///
/// # Contract
///
/// 1. `consume` gives what `issue` took, to exactly one caller, however many come at once.
/// 2. After `expires_at`, `consume` gives nothing.
///
/// # Consistency
///
/// Linearizable per state.
///
/// # Cancel safety
///
/// A dropped `consume` may have used the state up: the person starts again.
///
/// # Errors
///
/// As [`InstallationStore`]. After an [`Error::Unavailable`] from `consume` the state may be used
/// up.
#[async_trait]
pub trait StateStore: fmt::Debug + Send + Sync + 'static {
    /// Keeps this payload under this id until then.
    async fn issue(
        &self,
        id: &StateId,
        payload: &[u8],
        expires_at: SystemTime,
    ) -> Result<(), Error>;

    /// Takes the payload of this id away.
    async fn consume(&self, id: &StateId, now: SystemTime) -> Result<Option<StatePayload>, Error>;
}

/// The name of one OAuth flow: a hash of its state's random part, so that a reader of the
/// database cannot finish a flow.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct StateId(pub [u8; 32]);

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateId(…)")
    }
}

/// What was kept under a state. Wiped when dropped.
pub type StatePayload = zeroize::Zeroizing<Vec<u8>>;

forward!(InstallationStore {
    fn store(installation: &Installation) -> Revision;
    fn fetch(key: &InstallationKey, user: Option<&UserId>) -> Option<StoredInstallation>;
    fn note(key: &InstallationKey, revision: Revision, facts: &Facts) -> bool;
    fn delete(key: &InstallationKey, delete: &Delete) -> bool;
    fn list(from: Option<ListCursor>, limit: usize) -> Listing;
});

forward!(StateStore {
    fn issue(id: &StateId, payload: &[u8], expires_at: SystemTime) -> ();
    fn consume(id: &StateId, now: SystemTime) -> Option<StatePayload>;
});

/// Why a store could not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The stored installation is no longer of the revision that was asked for.
    #[error("the stored installation has changed meanwhile")]
    Conflict,
    /// The database or the key provider did not answer. What was asked for may have happened.
    #[error("the installation store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored does not open, or is of a form that this version does not know. The reason
    /// is not told: it would help whoever changes rows to find one that passes.
    #[error(
        "a stored installation cannot be read: it was changed, moved, or sealed under another key"
    )]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
