//! The rotator: hands out tokens, and refreshes them when they are due.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::engine::{Engine, RotationConfig};
use super::error::{CallError, Error, RefusedToken};
#[cfg(feature = "testing")]
use super::jitter::Jitter;
use super::protocol::{self, Demand};
use crate::clock::Clock;
use crate::installation::{Bot, Grant, Installation, Scopes, StoredInstallation, User};
use crate::secret::AccessToken;
use crate::slack::SlackClient;
use crate::store::{ChainKey, Credential, InstallId, RotationStore, StoredChain};
use crate::tenant::InstallationKey;

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
#[derive(Clone, Debug)]
pub struct TokenRotator {
    pub(super) engine: Arc<Engine>,
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
        self.unshared().clock = clock;
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
        self.unshared().jitter = Jitter::new(seed);
        self
    }

    fn unshared(&mut self) -> &mut Engine {
        let engine = Arc::get_mut(&mut self.engine);
        engine.expect("a rotator gets its clock and its seed before it is cloned")
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
        let key = chain_key(tenant, credential);
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
        let key = chain_key(tenant, credential);
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
        let bot = async {
            let bot = bot?;
            let key = chain_key(&tenant, Credential::Bot);
            let grant = self.grant(&key, bot.grant, suspects.bot).await;
            Some(grant.map(|grant| Bot {
                grant,
                id: bot.id,
                user_id: bot.user_id,
            }))
        };
        let user = async {
            let user = user?;
            let key = chain_key(&tenant, Credential::User(user.id.clone()));
            let grant = self.grant(&key, user.grant, suspects.user).await;
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
        let key = chain_key(tenant, credential);
        let revived = self.engine.step(&key, None, |chain| {
            let next = protocol::revive(chain);
            let was_dead = next.is_some();
            (next, was_dead)
        });
        let (stored, was_dead) = revived.await?;
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

    async fn grant(&self, key: &ChainKey, grant: Grant, is_suspect: bool) -> Result<Grant, Error> {
        let engine = &self.engine;
        engine
            .current_grant(key, grant, is_suspect, self.patience)
            .await
    }

    async fn token(&self, key: &ChainKey, demand: Demand) -> Result<Token, Error> {
        let stored = self.engine.current(key, demand, self.patience).await?;
        Ok(Token::of(&stored))
    }
}

impl Token {
    fn of(stored: &StoredChain) -> Self {
        let grant = &stored.grant;
        Self {
            access_token: grant.access_token.clone(),
            expires_at: grant.expires_at,
            scopes: grant.scopes.clone(),
            is_last: stored.chain.is_dead,
            install: stored.chain.install,
            generation: stored.chain.generation,
        }
    }
}

fn chain_key(tenant: &InstallationKey, credential: Credential) -> ChainKey {
    ChainKey {
        credential,
        tenant: tenant.clone(),
    }
}

fn parted<T>(outcome: Option<Result<T, Error>>) -> (Option<T>, Option<Error>) {
    match outcome {
        Some(Ok(it)) => (Some(it), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    }
}
