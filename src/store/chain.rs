//! A stored chain of tokens, and the port that reads and updates it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ring::digest;

use super::{Error, Figures, ListCursor, RefreshThreshold};
use crate::clock::from_epoch;
use crate::forward::forward;
use crate::installation::{Grant, Scopes};
use crate::secret::{AccessToken, RefreshToken, WebhookUrl};
use crate::tenant::{AppId, InstallationKey, UserId};

#[cfg(test)]
mod tests;

/// Reads and updates stored chains of tokens. A pure function decides each update, and the update
/// is atomic.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend.
///
/// # Contract
///
/// 1. `update` passes the stored chain to `decide` and writes the chain that `decide` returns. If
///    the stored chain changed in between, `update` calls `decide` again with the new one. The
///    last result of `decide` is the one that was applied.
/// 2. If the chain does not exist, `update` passes `None` to `decide` and writes nothing. Only
///    [`InstallationStore::store`](super::InstallationStore::store) creates a chain.
/// 3. A written chain has the tokens that its [`Mark`]s name. They come from the stored chain and
///    from the offered grant. A pair's access token and refresh token are replaced together.
/// 4. If an update marks the chain dead, the same commit writes a
///    [`Notice`](super::Notice) of it; if it clears the mark, the same commit removes the notice.
/// 5. `due` returns the chains whose `due_at` has passed, page by page. A page can be empty
///    without being the last. `due` is a hint: it may lag, and may return a chain that has
///    changed since.
///
/// # Consistency
///
/// Linearizable per chain, durable when a call returns.
///
/// # Cancel safety
///
/// If the future of `update` is dropped, the update is applied completely or not at all.
///
/// # Errors
///
/// The same as for [`InstallationStore`](super::InstallationStore). After [`Error::Unavailable`]
/// the update may have been applied. You can call `update` again if `decide` is pure.
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
    /// Returns the stored chain of this key.
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error>;

    /// Passes the stored chain to `decide` and writes the chain that it returns. If `decide`
    /// returns `None`, writes nothing. Returns the chain that is stored afterwards.
    ///
    /// `offered` is a grant whose tokens the new chain may name.
    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error>;

    /// Returns a page of all chains, in no particular order, and the cursor of the next page.
    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;

    /// Returns a page of the chains that are due at `now`, the earliest first, and the cursor of
    /// the next page.
    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;

    /// Deletes expired rows that no caller can use again, such as the states of abandoned install
    /// flows. Returns how many it deleted.
    async fn sweep(&self) -> Result<usize, Error>;

    /// Counts what is stored for the app at `now`. `requested` are the bot's scopes that the app
    /// requests.
    ///
    /// The default counts nothing.
    async fn figures(&self, now: SystemTime, requested: &Scopes) -> Result<Figures, Error> {
        let _ = (now, requested);
        Ok(Figures::default())
    }
}

/// The owner of a token within a tenant: the bot or one user.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Credential {
    /// The app's bot token.
    Bot,
    /// This user's token.
    User(UserId),
}

impl Credential {
    /// Returns whose tokens these are, without an id: `bot` or `user`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::User(_) => "user",
        }
    }
}

impl fmt::Display for Credential {
    /// Writes `bot`, or the user's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bot => "bot",
            Self::User(id) => id.as_str(),
        })
    }
}

/// Identifies a chain: the tokens of a tenant's bot or of one of its users.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ChainKey {
    /// The owner of the tokens within the tenant.
    pub credential: Credential,
    /// The tenant.
    pub tenant: InstallationKey,
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.credential)
    }
}

/// A chain without its secrets: everything that the refresh protocol needs to decide.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Chain {
    /// The id of the chain's installation. A reinstall has a new id.
    pub install: InstallId,
    /// How many times the pair was replaced since the installation.
    pub generation: u64,
    /// The primary refresh token, which is tried first. `None` if the token does not rotate.
    pub refresh: Option<Mark>,
    /// Further refresh tokens that Slack issued for this installation, oldest first.
    pub alternates: Vec<Mark>,
    /// When the access token was issued, on Slack's clock.
    pub issued_at: SystemTime,
    /// When the access token expires, on Slack's clock. `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
    /// The lease of the process that is refreshing the chain.
    pub lease: Option<Lease>,
    /// The number of calls to Slack with the current refresh tokens whose outcome is unknown.
    pub attempts: u32,
    /// When the last of these calls was recorded. A call is recorded before it is made.
    pub attempted_at: Option<SystemTime>,
    /// When the last call was recorded whose response a process may still get or hold, although the
    /// process no longer has the lease.
    pub unheard_at: Option<SystemTime>,
    /// The time before which no refresh is tried.
    pub retry_at: Option<SystemTime>,
    /// The number of consecutive refreshes that failed.
    pub failures: u32,
    /// The error code of the last failure, from Slack or from this crate.
    pub last_error: Option<Arc<str>>,
    /// Whether Slack refused every refresh token of the chain. The app must then be installed
    /// again.
    pub is_dead: bool,
    /// Whether Slack may have ended the pair, because another call may have issued a pair too. Slack
    /// is then asked about the pair.
    pub is_unproven: bool,
    /// The alternate that bought the pair: the first one. It is kept until the pair is proven. If
    /// Slack has ended the pair, it may still accept this token.
    pub spent: Option<Mark>,
    /// The number of consecutive pairs, including the current one, that no caller has used.
    pub idle: u32,
    /// When a worker should check the chain.
    pub due_at: Option<SystemTime>,
    /// How long before its expiry the token is refreshed. It is not stored: a stored chain has the
    /// default, and the rotator sets its own.
    pub threshold: RefreshThreshold,
}

impl Chain {
    /// Creates the chain of a grant that was just issued.
    #[must_use]
    pub fn new(grant: &Grant, issued_at: SystemTime) -> Self {
        let install = InstallId::of(grant);
        let refresh = grant.refresh_token.as_ref().map(Mark::of);
        let chain = Self::unused(install, refresh, issued_at, grant.expires_at);
        Self {
            due_at: chain.soft_at(),
            ..chain
        }
    }

    /// Returns a chain that is not due, and whose pair has bought no other pair.
    pub(crate) fn unused(
        install: InstallId,
        refresh: Option<Mark>,
        issued_at: SystemTime,
        expires_at: Option<SystemTime>,
    ) -> Self {
        Self {
            install,
            generation: 0,
            refresh,
            alternates: Vec::new(),
            issued_at,
            expires_at,
            lease: None,
            attempts: 0,
            attempted_at: None,
            unheard_at: None,
            retry_at: None,
            failures: 0,
            last_error: None,
            is_dead: false,
            is_unproven: false,
            spent: None,
            idle: 0,
            due_at: None,
            threshold: RefreshThreshold::default(),
        }
    }

    /// Returns the time from which the pair should be replaced, although the access token is still
    /// valid.
    ///
    /// It is the [`threshold`](Self::threshold) before the token expires, plus or minus up to a
    /// quarter of it. The offset is the same in every process.
    ///
    /// It is always in the second half of the token's life. Slack keeps two access tokens alive and
    /// revokes the oldest, so two refreshes within one life would revoke a token that is in use.
    #[must_use]
    pub fn soft_at(&self) -> Option<SystemTime> {
        let expires_at = self.expires_at.filter(|_| self.refresh.is_some())?;
        let early = before(expires_at, self.threshold.earliest());
        let wanted = early + self.threshold.spread().mul_f64(2.0 * self.jitter());
        Some(wanted.max(self.issued_at + self.life()? / 2))
    }

    /// Returns the time from which a caller waits for a new access token. It is some minutes before
    /// the token expires, because clocks differ and the caller's work with the token takes time.
    #[must_use]
    pub fn hard_at(&self) -> Option<SystemTime> {
        Some(before(self.expires_at?, HARD.min(self.life()? / 4)))
    }

    /// Returns the access token's total lifetime. `None` if it does not expire.
    fn life(&self) -> Option<Duration> {
        let life = self.expires_at?.duration_since(self.issued_at);
        Some(life.unwrap_or_default())
    }

    /// Returns whether Slack may have revoked the access token early. Two calls of unknown outcome
    /// may have issued two more pairs, and Slack keeps only two access tokens alive. The same holds
    /// for a pair that is not proven.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        is_suspect(self.attempts, self.is_unproven, self.is_dead)
    }

    /// Returns whether there is something to find out about the chain: the outcome of a call, or
    /// whether its pair is alive.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.attempts > 0 || self.is_unproven
    }

    /// Returns a number from 0 to 1 that depends only on the pair.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.install.0.to_be_bytes());
        bytes[16..].copy_from_slice(&self.generation.to_be_bytes());
        f64::from(u16::from_be_bytes(hash(&bytes))) / 65536.0
    }
}

/// Subtracts a duration from a time. If the result cannot be represented, returns 1970.
fn before(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_sub(by).unwrap_or_else(|| from_epoch(0))
}

/// Callers wait for a new token from this long before the old one expires. If a quarter of the
/// token's life is shorter, that applies instead. Slack's tokens live for 12 h.
pub(crate) const HARD: Duration = Duration::from_secs(5 * 60);

/// With this many calls of unknown outcome, Slack may have issued two more pairs and revoked the
/// stored one: Slack keeps two access tokens alive.
pub(crate) const SUSPECT: u32 = 2;

/// Implements [`Chain::is_suspect`].
pub(crate) fn is_suspect(attempts: u32, is_unproven: bool, is_dead: bool) -> bool {
    (attempts >= SUSPECT || is_unproven) && !is_dead
}

/// The right of one process to refresh a chain for a limited time. A lease saves calls to Slack.
/// It does not protect the stored pair: the generation does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Lease {
    /// A random number, new for each attempt.
    pub owner: u128,
    /// When the lease lapses, on the owner's clock.
    pub until: SystemTime,
}

/// Identifies one installation of a chain.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct InstallId(pub u128);

impl InstallId {
    /// Returns the id of the installation that issued this grant.
    ///
    /// Two installations have the same id only if Slack issued the same tokens for both. They are
    /// then the same chain. The id stays the same when the pair is replaced or stored again.
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

/// Identifies a token by a part of its hash, so that the token stays secret.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark(pub u64);

impl Mark {
    /// Returns the mark of a refresh token.
    #[must_use]
    pub fn of(token: &RefreshToken) -> Self {
        Self::of_text(token.expose())
    }

    /// Returns the mark of an access token.
    #[must_use]
    pub fn of_access_token(token: &AccessToken) -> Self {
        Self::of_text(token.expose())
    }

    /// Returns the mark of a webhook's URL.
    #[must_use]
    pub fn of_webhook(url: &WebhookUrl) -> Self {
        Self::of_text(url.expose())
    }

    /// Returns the mark of a text that stays secret.
    pub(crate) fn of_text(text: &str) -> Self {
        Self(u64::from_be_bytes(hash(text.as_bytes())))
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
    /// The id of the app.
    pub app_id: AppId,
    /// Everything except the secrets.
    pub chain: Chain,
    /// Whether an operator has put the installation on hold. No token of it may then be handed
    /// out.
    pub is_on_hold: bool,
    /// The current pair.
    pub grant: Grant,
    /// The refresh tokens of [`Chain::alternates`], in the same order.
    pub alternates: Vec<RefreshToken>,
}

impl StoredChain {
    /// Creates a stored chain that is not on hold. For implementations of [`RotationStore`].
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

    /// Returns the refresh token with this mark, if the chain has one.
    #[must_use]
    pub fn refresh_token(&self, mark: Mark) -> Option<&RefreshToken> {
        self.grant
            .refresh_token
            .iter()
            .chain(&self.alternates)
            .find(|token| Mark::of(token) == mark)
    }

    /// Returns this stored chain, changed to `next`. Finds the tokens of `next` by their marks.
    /// Returns `None` if `next` names a token that is neither stored nor offered.
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

/// Returns the first `N` bytes of the SHA-256 hash.
fn hash<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref()[..N]
        .try_into()
        .expect("N is at most 16 and a SHA-256 hash has 32 bytes")
}

forward!(RotationStore for [Arc] {
    fn chain(key: &ChainKey) -> Result<Option<StoredChain>, Error>;
    fn update(
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send)
    ) -> Result<Option<StoredChain>, Error>;
    fn chains(
        from: Option<ListCursor>,
        limit: usize
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;
    fn due(
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error>;
    fn sweep() -> Result<usize, Error>;
    fn figures(now: SystemTime, requested: &Scopes) -> Result<Figures, Error>;
});
