//! Token rotation: a live token for every caller, and never a refresh token spent twice or lost.
//!
//! A bot's and each user's tokens are chains of their own, refreshed and saved apart. Due but
//! alive, a token is handed out and replaced in the background; at its end callers wait for the
//! next one, or get a typed reason. One task per chain and process calls Slack, and one process of
//! many, by a lease in the chain's record. What no lease can promise (a process that stalls and
//! wakes up late) the record's generation does: `docs/rotation.md` has the protocol, its
//! invariants, and what cannot be promised.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::installation::{Bot, Grant, Installation, Scopes, StoredInstallation, User};
use crate::secret::{AccessToken, RefreshToken};
use crate::slack::{ClientCredentials, ErrorCode, SlackClient};
use crate::store::{Chain, ChainKey, Credential, InstallId, RotationStore, StoredChain};
use crate::tenant::InstallationKey;

mod engine;
mod error;
mod flight;
mod guard;
mod memo;
mod migrate;
#[cfg(test)]
mod model;
mod protocol;
mod prove;
mod refresh;
mod worker;

pub use error::{CallError, Error, RefusedToken};
pub use migrate::Migrated;
pub use worker::WorkerConfig;

use engine::{Engine, Want};
use protocol::{Demand, Freshness};

/// How tokens are kept current.
#[derive(Debug)]
pub struct RotationConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Wait for the refresh of every token that is due, even while it still serves.
    pub strict: bool,
    /// The app has PKCE enabled, so that its refresh tokens end after 30 days
    /// (`docs.slack.dev/authentication/using-pkce`): the worker refreshes idle chains after 20.
    pub is_pkce_app: bool,
    /// How long a caller waits for a refresh, unless it says so itself
    /// ([`TokenRotator::within`]).
    pub patience: Duration,
}

impl RotationConfig {
    /// Lenient, not a PKCE app, and 20 s of patience: more than one lease.
    #[must_use]
    pub fn new(credentials: ClientCredentials) -> Self {
        Self {
            credentials,
            strict: false,
            is_pkce_app: false,
            patience: PATIENCE,
        }
    }
}

/// A lease of 15 s of a process that crashed, and the refresh after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands out tokens that are current. Cheap to clone; one per process and app.
///
/// ```no_run
/// # async fn example(
/// #     store: slack_installs::EncryptedStore<slack_installs::backend::MemoryBackend>,
/// #     credentials: slack_installs::slack::ClientCredentials,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use slack_installs::slack::{Environment, SlackClient};
/// use slack_installs::store::Credential;
/// use slack_installs::{InstallationKey, RotationConfig, TeamId, TokenRotator};
///
/// let slack = SlackClient::new(Environment::commercial());
/// let rotator = TokenRotator::new(RotationConfig::new(credentials), slack.clone(), store);
/// let alpha = InstallationKey::workspace(TeamId::new("T0ALPHA0001")?);
///
/// // Slack gives a handler 3 s.
/// let hurried = rotator.within(Duration::from_millis(2500));
/// let token = hurried.token_for(&alpha, Credential::Bot).await?;
///
/// // Or around a call of the host's own, which is repeated once if Slack says `token_expired`.
/// let slack = &slack;
/// hurried
///     .call(&alpha, Credential::Bot, |token| async move {
///         slack.auth_test(&token.access_token).await
///     })
///     .await?;
///
/// // Before the process ends.
/// rotator.shutdown(Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenRotator {
    engine: Arc<Engine>,
    patience: Duration,
}

/// A token that was current when it was handed out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// When it ends; `None` if it does not.
    pub expires_at: Option<SystemTime>,
    /// What it may do.
    pub scopes: Scopes,
    /// Slack has refused to replace it: it serves until it ends, and then the app must be
    /// installed again.
    pub is_last: bool,
    install: InstallId,
    generation: u64,
}

/// An installation whose tokens are current.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refreshed {
    /// The installation, without the tokens that could not be made current.
    pub installation: Installation,
    /// Why there is no bot, if there was one.
    pub bot_error: Option<Error>,
    /// Why there is no user token, if there was one.
    pub user_error: Option<Error>,
}

impl TokenRotator {
    /// A rotator over this store.
    #[must_use]
    pub fn new(config: RotationConfig, slack: SlackClient, store: impl RotationStore) -> Self {
        let patience = config.patience;
        let engine = Arc::new(Engine::new(config, slack, Arc::new(store)));
        Self { engine, patience }
    }

    /// The same rotator, with another clock. Before it is cloned or used.
    ///
    /// # Panics
    ///
    /// If it was cloned.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        let engine = Arc::get_mut(&mut self.engine);
        engine
            .expect("a rotator gets its clock before it is cloned")
            .clock = clock;
        self
    }

    /// The same rotator, with its pauses drawn from this seed: for tests that must repeat. Before
    /// it is cloned or used.
    ///
    /// # Panics
    ///
    /// If it was cloned.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        let engine = Arc::get_mut(&mut self.engine);
        let engine = engine.expect("a rotator gets its seed before it is cloned");
        engine.memo = memo::Memo::new(seed);
        self
    }

    /// The same rotator, for callers that wait this long and then get [`Error::Busy`]. The
    /// refresh goes on without them.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        let engine = Arc::clone(&self.engine);
        Self { engine, patience }
    }

    /// A current token, from one read of the store unless it must be refreshed first.
    ///
    /// # Errors
    ///
    /// [`Error`]; never an older token instead.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: a refresh that has begun goes on.
    pub async fn token_for(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
    ) -> Result<Token, Error> {
        let key = ChainKey {
            credential,
            tenant: tenant.clone(),
        };
        self.token(&key, Demand::Current).await
    }

    /// Runs this with a current token; if it says that Slack refused the token as expired,
    /// refreshes once and runs it once more. The same if it says `token_revoked`, and Slack,
    /// asked about that token (`auth.test`), says so too.
    ///
    /// # Errors
    ///
    /// [`CallError`]: the token's, or the operation's own.
    ///
    /// # Cancel safety
    ///
    /// The operation's own. A refresh that has begun goes on.
    pub async fn call<T, E, F>(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
        operation: impl Fn(Token) -> F,
    ) -> Result<T, CallError<E>>
    where
        E: RefusedToken,
        F: Future<Output = Result<T, E>>,
    {
        let key = ChainKey {
            credential,
            tenant: tenant.clone(),
        };
        let token = self
            .token(&key, Demand::Current)
            .await
            .map_err(CallError::Token)?;
        let (install, generation) = (token.install, token.generation);
        let demand = match operation(token).await {
            Err(error) if error.is_token_expired() => {
                tracing::info!(chain = %key, "Slack calls a token expired; refreshing it");
                Demand::NewerThan(install, generation)
            }
            Err(error) if error.is_token_revoked() => {
                let is_over = self.engine.is_over(&key, install, generation);
                match tokio::time::timeout(self.patience, is_over).await {
                    Ok(true) => Demand::Current,
                    _ => return Err(CallError::Operation(error)),
                }
            }
            outcome => return outcome.map_err(CallError::Operation),
        };
        let token = self.token(&key, demand).await.map_err(CallError::Token)?;
        operation(token).await.map_err(CallError::Operation)
    }

    /// The same installation with tokens that are current, and without those that cannot be: for
    /// an installation that was just fetched. Costs nothing while neither token is due, nor in
    /// the hours in which one is due and still serves (unless strict, or Slack may have ended it).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: a refresh that has begun goes on.
    pub async fn refreshed(&self, stored: StoredInstallation) -> Refreshed {
        let (suspects, mut installation) = (stored.suspects, stored.installation);
        let tenant = installation.key();
        let (bot, user) = (installation.bot.take(), installation.user.take());
        let bot_key = ChainKey {
            credential: Credential::Bot,
            tenant: tenant.clone(),
        };
        let user_key = user.as_ref().map(|user| ChainKey {
            credential: Credential::User(user.id.clone()),
            tenant,
        });
        let bot = async {
            let bot = bot?;
            let grant = self.current(&bot_key, bot.grant, suspects.bot).await;
            Some(grant.map(|grant| Bot {
                grant,
                id: bot.id,
                user_id: bot.user_id,
            }))
        };
        let user = async {
            let user = user?;
            let key = user_key.as_ref()?;
            let grant = self.current(key, user.grant, suspects.user).await;
            Some(grant.map(|grant| User { grant, id: user.id }))
        };
        let (bot, user) = tokio::join!(bot, user);
        let (bot, bot_error) = parted(bot);
        let (user, user_error) = parted(user);
        installation.bot = bot;
        installation.user = user;
        Refreshed {
            installation,
            bot_error,
            user_error,
        }
    }

    /// Takes it back that a chain is dead, so that its refresh tokens are tried once more: for an
    /// operator, after Slack refused tokens that it should have taken. Answers whether it was dead.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`], or [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has happened or not.
    pub async fn revive(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
    ) -> Result<bool, Error> {
        let key = ChainKey {
            credential,
            tenant: tenant.clone(),
        };
        let engine = &self.engine;
        let mut was_dead = false;
        let mut decide = |chain: Option<&Chain>| {
            let next = protocol::revive(chain);
            was_dead = next.is_some();
            next.map(|next| engine.scheduled(next))
        };
        let stored = engine.store.update(&key, None, &mut decide).await?;
        stored.ok_or(Error::NotInstalled)?;
        if was_dead {
            tracing::info!(chain = %key, "a dead chain is tried again");
        }
        Ok(was_dead)
    }

    /// Starts no more refreshes and waits for those that run, so that no pair is lost that Slack
    /// handed over. `false` if some still run after that time.
    ///
    /// Call it before the runtime ends: a runtime drops its tasks wherever they are.
    pub async fn shutdown(&self, within: Duration) -> bool {
        self.engine.flights.close(Instant::now() + within).await
    }

    async fn token(&self, key: &ChainKey, demand: Demand) -> Result<Token, Error> {
        Ok(Token::of(&*self.settled(key, demand).await?))
    }

    async fn settled(&self, key: &ChainKey, demand: Demand) -> Result<Arc<StoredChain>, Error> {
        // Its tokens are refreshed all the same, so that it can be let go again.
        let stored = self.released(key).await?;
        let stored = self.settle(key, demand, Arc::new(stored)).await?;
        if stored.is_on_hold {
            // A refresh that others began may have read that before the hold ended.
            self.released(key).await?;
        }
        Ok(stored)
    }

    /// The chain, unless it is on hold.
    async fn released(&self, key: &ChainKey) -> Result<StoredChain, Error> {
        let stored = self.engine.store.chain(key).await?;
        match stored.ok_or(Error::NotInstalled)? {
            stored if stored.is_on_hold => Err(Error::OnHold),
            stored => Ok(stored),
        }
    }

    /// A current grant, given the one that was just read.
    async fn current(
        &self,
        key: &ChainKey,
        grant: Grant,
        is_suspect: bool,
    ) -> Result<Grant, Error> {
        let engine = &self.engine;
        let freshness = engine.guess(&grant);
        let is_soft = freshness == Freshness::Soft && !engine.config.strict;
        let serves_while_due = is_soft && !is_suspect;
        engine.note_use(key, grant.expires_at, serves_while_due);
        if !is_suspect && freshness == Freshness::Fresh || serves_while_due {
            return Ok(grant);
        }
        // A pair is handed out whole: the host may store it again.
        let stored = self.settled(key, Demand::Current).await?;
        let Token {
            access_token,
            expires_at,
            scopes,
            ..
        } = Token::of(&stored);
        let refresh_token = stored.grant.refresh_token.as_ref();
        let refresh_token = refresh_token.map(|token| {
            let token = RefreshToken::new(token.expose());
            token.expect("a stored token was checked when it was taken")
        });
        Ok(Grant {
            access_token,
            refresh_token,
            expires_at,
            scopes,
        })
    }

    /// Waits until the chain has a token that may be handed out.
    async fn settle(
        &self,
        key: &ChainKey,
        demand: Demand,
        mut stored: Arc<StoredChain>,
    ) -> Result<Arc<StoredChain>, Error> {
        let engine = &self.engine;
        let deadline = Instant::now() + self.patience;
        for _ in 0..ROUNDS {
            let chain = &stored.chain;
            let now = engine.clock.now();
            let freshness = protocol::freshness(chain, now);
            let may_serve = freshness < Freshness::Hard && !demand.refuses(chain);
            if chain.idle > 0 {
                engine.note_use(key, chain.expires_at, false);
            }
            if may_serve && !engine.must_wait(chain, freshness) {
                let is_due = freshness > Freshness::Fresh || chain.attempts > 0;
                if is_due && engine.is_free(chain, now) {
                    engine.refresh_quietly(key);
                }
                return Ok(stored);
            }
            if chain.is_dead || chain.refresh.is_none() {
                return Err(engine::reinstall_needed(chain));
            }
            let want = Want {
                demand,
                waits: true,
                is_ahead: false,
            };
            let landing = engine.board(key, want)?.landing(deadline).await;
            stored = match landing {
                Ok(stored) => stored,
                Err(Error::Busy) => return Err(Error::Busy),
                // Nobody knows whether Slack has ended this token meanwhile; it can tell.
                Err(error) if may_serve && !engine.config.strict => {
                    if !engine.is_alive(key, &stored).await {
                        return Err(error);
                    }
                    // This was read before the refresh: a hold may have begun since.
                    self.released(key).await?;
                    return Ok(stored);
                }
                Err(error) => return Err(error),
            };
        }
        Err(Error::TryAgain {
            at: engine.clock.now() + Duration::from_secs(1),
            code: ErrorCode::new("still_expired"),
        })
    }
}

impl fmt::Debug for TokenRotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRotator")
            .field("engine", &self.engine)
            .field("patience", &self.patience)
            .finish()
    }
}

impl Token {
    fn of(stored: &StoredChain) -> Self {
        let grant = &stored.grant;
        Self {
            access_token: AccessToken::new(grant.access_token.expose())
                .expect("a stored token was checked when it was taken"),
            expires_at: grant.expires_at,
            scopes: grant.scopes.clone(),
            is_last: stored.chain.is_dead,
            install: stored.chain.install,
            generation: stored.chain.generation,
        }
    }
}

fn parted<T>(outcome: Option<Result<T, Error>>) -> (Option<T>, Option<Error>) {
    match outcome {
        Some(Ok(it)) => (Some(it), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    }
}

/// A round ends with a new pair, or with one that another process saved; two in a row are a
/// reinstall, more are a clock that is hours off.
const ROUNDS: usize = 4;
