//! One chain of tokens as it is stored, and the port through which it is moved on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ring::digest;

use super::{Error, ListCursor};
use crate::clock::from_epoch;
use crate::installation::Grant;
use crate::secret::{AccessToken, RefreshToken};
use crate::tenant::{AppId, InstallationKey, UserId};

#[cfg(test)]
mod tests;

/// Moves stored chains of tokens on: by one atomic step that a pure function decides.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. `update` shows the chain that stands to `decide`, and writes what it answers only if that
///    chain still stands; otherwise it asks again. The last answer of `decide` is the one that
///    was carried out.
/// 2. A chain that is not there is shown as `None`, and nothing is ever written in its place: a
///    chain comes into being by [`InstallationStore::store`](super::InstallationStore::store) only.
/// 3. A written chain has the tokens that its [`Mark`]s name, out of those that stood and those
///    offered. The primary token and the access token of one pair stay together.
/// 4. `due` names chains whose `due_at` has come, page by page; a page may have none and still
///    not be the last. It is a hint: it may lag, and may name a chain
///    that has moved on.
///
/// # Consistency
///
/// Linearizable per chain, durable when a call returns.
///
/// # Cancel safety
///
/// Dropping `update` leaves it done or not done, never half done.
///
/// # Errors
///
/// As [`InstallationStore`](super::InstallationStore). After [`Error::Unavailable`] from `update`
/// the step may have been taken; a pure step may be tried again.
///
/// # Example
///
/// ```no_run
/// # async fn example(
/// #     store: &dyn slack_installs::store::RotationStore,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::store::{ChainKey, Credential};
/// use slack_installs::{InstallationKey, TeamId};
///
/// let tenant = InstallationKey::workspace(TeamId::new("T0ALPHA0001")?);
/// let key = ChainKey { tenant, credential: Credential::Bot };
/// if let Some(stored) = store.chain(&key).await? {
///     println!("generation {}", stored.chain.generation);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait RotationStore: fmt::Debug + Send + Sync + 'static {
    /// The chain of this key.
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error>;

    /// Shows the chain to `decide` and writes what it answers; `None` leaves it. Answers the
    /// chain as it stands afterwards.
    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error>;

    /// A page of all chains, in no promised order, and where the next one begins.
    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;

    /// A page of the chains that somebody should look at, the earliest first, and where the next
    /// one begins.
    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;

    /// Removes what has expired and nobody will come for. Answers how much.
    async fn sweep(&self) -> Result<usize, Error>;
}

/// Whose token: the bot's, or one user's.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Credential {
    /// The app's bot.
    Bot,
    /// This user's own.
    User(UserId),
}

/// Which chain: one tenant's bot, or one of its users.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ChainKey {
    /// Whose token in the tenant.
    pub credential: Credential,
    /// The tenant.
    pub tenant: InstallationKey,
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credential {
            Credential::Bot => write!(f, "{}/bot", self.tenant),
            Credential::User(user) => write!(f, "{}/{user}", self.tenant),
        }
    }
}

/// A chain without its secrets: all that the refresh protocol decides by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Chain {
    /// Which installation it is from. A reinstall begins another.
    pub install: InstallId,
    /// How many times this installation's pair was replaced.
    pub generation: u64,
    /// The refresh token to use first; `None` for a token that does not rotate.
    pub refresh: Option<Mark>,
    /// Refresh tokens that Slack also handed over, oldest first.
    pub alternates: Vec<Mark>,
    /// When the access token was issued, on Slack's clock.
    pub issued_at: SystemTime,
    /// When it ends; `None` if it does not.
    pub expires_at: Option<SystemTime>,
    /// Who is refreshing it now.
    pub lease: Option<Lease>,
    /// Calls to Slack with the present refresh token whose outcome nobody knows.
    pub attempts: u32,
    /// When the last one was begun.
    pub attempted_at: Option<SystemTime>,
    /// Not before then.
    pub retry_at: Option<SystemTime>,
    /// Refreshes in a row that did not succeed.
    pub failures: u32,
    /// Slack's, or our own, name for the last failure.
    pub last_error: Option<Arc<str>>,
    /// Slack refused every refresh token of the chain: only a reinstall helps.
    pub is_dead: bool,
    /// Pairs in a row, the present one included, that nobody has asked for.
    pub idle: u32,
    /// When a worker should look at it.
    pub due_at: Option<SystemTime>,
}

impl Chain {
    /// The chain of a grant that was just issued.
    #[must_use]
    pub fn new(grant: &Grant, issued_at: SystemTime) -> Self {
        let chain = Self {
            install: InstallId::of(grant),
            generation: 0,
            refresh: grant.refresh_token.as_ref().map(Mark::of),
            alternates: Vec::new(),
            issued_at,
            expires_at: grant.expires_at,
            lease: None,
            attempts: 0,
            attempted_at: None,
            retry_at: None,
            failures: 0,
            last_error: None,
            is_dead: false,
            idle: 0,
            due_at: None,
        };
        Self {
            due_at: chain.soft_at(),
            ..chain
        }
    }

    /// From when on the pair is to be replaced, while the access token still serves: two hours
    /// before its end, as Slack's SDKs do, give or take half an hour that is the same for every
    /// process. Never in the first half of its life: Slack keeps two access tokens alive and
    /// revokes the oldest, so of two refreshes within one life the first costs somebody theirs.
    #[must_use]
    pub fn soft_at(&self) -> Option<SystemTime> {
        let expires_at = self.expires_at.filter(|_| self.refresh.is_some())?;
        let early = before(expires_at, SOFT + SPREAD);
        let wanted = early + SPREAD.mul_f64(2.0 * self.jitter());
        Some(wanted.max(self.issued_at + self.life()? / 2))
    }

    /// From when on the access token is not handed out without trying to replace it: minutes
    /// before its end, since clocks differ, and work that begins with it takes its time.
    #[must_use]
    pub fn hard_at(&self) -> Option<SystemTime> {
        Some(before(self.expires_at?, HARD.min(self.life()? / 4)))
    }

    /// How long the access token lives in all; `None` if it does not end.
    fn life(&self) -> Option<Duration> {
        let life = self.expires_at?.duration_since(self.issued_at);
        Some(life.unwrap_or_default())
    }

    /// Whether Slack may have ended the access token before its time: two calls of unknown outcome
    /// may each have bought a pair, and Slack keeps two access tokens alive.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        is_suspect(self.attempts, self.is_dead)
    }

    /// 0 to 1, by the pair.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.install.0.to_be_bytes());
        bytes[16..].copy_from_slice(&self.generation.to_be_bytes());
        f64::from(u16::from_be_bytes(hash(&bytes))) / 65536.0
    }
}

/// The time that long before, and not before 1970.
fn before(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_sub(by).unwrap_or_else(|| from_epoch(0))
}

/// From this long before its end on a token is replaced, give or take [`SPREAD`]; the figure of
/// Slack's SDKs (`minutes_before_expiration=120`).
pub(crate) const SOFT: Duration = Duration::from_secs(2 * 60 * 60);

/// Of a life of 12 h; at most a quarter of shorter ones.
pub(crate) const HARD: Duration = Duration::from_secs(5 * 60);

/// Parts the refreshes of tenants that installed together.
pub(crate) const SPREAD: Duration = Duration::from_secs(30 * 60);

/// So many calls of unknown outcome, and the stored pair may be the third that lives.
pub(crate) const SUSPECT: u32 = 2;

/// The rule of [`Chain::is_suspect`].
pub(crate) fn is_suspect(attempts: u32, is_dead: bool) -> bool {
    attempts >= SUSPECT && !is_dead
}

/// A right to refresh a chain, for a while. It saves calls; nothing is safe by it alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Lease {
    /// Random, one for each attempt.
    pub owner: u128,
    /// Until when, on the owner's clock.
    pub until: SystemTime,
}

/// Names one installation of a chain.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct InstallId(pub u128);

impl InstallId {
    /// The id of the installation that brought this grant. Two installations share it only if
    /// Slack gave both the same tokens, and then they are the same chain. A chain keeps it however
    /// often its pair is replaced, or stored again.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        let token = match &grant.refresh_token {
            Some(token) => token.expose(),
            None => grant.access_token.expose(),
        };
        Self(u128::from_be_bytes(hash(token.as_bytes())))
    }
}

impl fmt::Debug for InstallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names a token without telling it: a part of its hash.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark(pub u64);

impl Mark {
    /// The mark of this refresh token.
    #[must_use]
    pub fn of(token: &RefreshToken) -> Self {
        Self(u64::from_be_bytes(hash(token.expose().as_bytes())))
    }

    /// The mark of this access token.
    #[must_use]
    pub fn of_access_token(token: &AccessToken) -> Self {
        Self(u64::from_be_bytes(hash(token.expose().as_bytes())))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A chain with its secrets.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredChain {
    /// The app that it belongs to.
    pub app_id: AppId,
    /// All but the secrets.
    pub chain: Chain,
    /// Whether an operator has put the installation on hold: nothing of it may be handed out.
    pub is_on_hold: bool,
    /// The pair in use.
    pub grant: Grant,
    /// The tokens of [`Chain::alternates`], in that order.
    pub alternates: Vec<RefreshToken>,
}

impl StoredChain {
    /// A chain, for implementations of the store.
    #[must_use]
    pub fn new(app_id: AppId, chain: Chain, grant: Grant, alternates: Vec<RefreshToken>) -> Self {
        Self {
            app_id,
            chain,
            is_on_hold: false,
            grant,
            alternates,
        }
    }

    /// The refresh token of this mark, if the chain has it.
    #[must_use]
    pub fn refresh_token(&self, mark: Mark) -> Option<&RefreshToken> {
        self.grant
            .refresh_token
            .iter()
            .chain(&self.alternates)
            .find(|token| Mark::of(token) == mark)
    }

    /// This with the chain that was decided on: its tokens are found by their marks. `None` if
    /// `next` names a token that neither stood nor is offered.
    #[must_use]
    pub fn moved(self, next: Chain, offered: Option<&Grant>) -> Option<Self> {
        let new = offered.and_then(|grant| grant.refresh_token.as_ref());
        let find = |mark: Mark| {
            let stored = self.refresh_token(mark);
            stored
                .or_else(|| new.filter(|token| Mark::of(token) == mark))
                .cloned()
        };
        let alternates = next
            .alternates
            .iter()
            .copied()
            .map(find)
            .collect::<Option<_>>()?;
        let grant = if next.refresh == self.chain.refresh {
            Grant {
                expires_at: next.expires_at,
                ..self.grant
            }
        } else {
            let offered = offered?;
            let has_scopes = !offered.scopes.is_empty();
            Grant {
                access_token: offered.access_token.clone(),
                refresh_token: Some(next.refresh.and_then(find)?),
                expires_at: next.expires_at,
                scopes: if has_scopes {
                    offered.scopes.clone()
                } else {
                    self.grant.scopes.clone()
                },
            }
        };
        Some(Self {
            is_on_hold: self.is_on_hold,
            app_id: self.app_id,
            chain: next,
            grant,
            alternates,
        })
    }
}

/// The first bytes of a SHA-256.
fn hash<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref()[..N]
        .try_into()
        .expect("N is 16 at most, a SHA-256 has 32 bytes")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: RotationStore + ?Sized> RotationStore for Arc<S> {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        (**self).chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        (**self).update(key, offered, decide).await
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        (**self).chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        (**self).due(now, from, limit).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        (**self).sweep().await
    }
}
