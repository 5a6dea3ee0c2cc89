//! [`TokenRotator`] hands out tokens and refreshes them when they are due.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::engine::{Engine, RotationConfig};
use super::error::{CallError, Error, RefusedToken};
#[cfg(feature = "testing")]
use super::jitter::Jitter;
use super::protocol::{self, Demand};
use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::installation::{Bot, Grant, Installation, Scopes, StoredInstallation, User};
use crate::secret::AccessToken;
use crate::slack::{self, ErrorClass, SlackClient};
use crate::store::{ChainKey, Credential, InstallId, RotationStore, StoredChain};
use crate::tenant::InstallationKey;

/// Hands out current tokens, and refreshes them when they are due.
///
/// Create one per process and app. It is cheap to clone.
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
/// // Waits for 2.5 s at most, because Slack gives a handler 3 s.
/// let hurried = rotator.within(Duration::from_millis(2500));
/// let token = hurried.token_for(&alpha, Credential::Bot).await?;
///
/// // Or wraps a call of your app. It is repeated once if Slack returns `token_expired`.
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
    pub(super) engine: Arc<Engine>,
    judge: Option<Arc<dyn Judge>>,
    patience: Duration,
}

/// Judges a tenant after Slack has refused a token of it in [`TokenRotator::call`].
pub(crate) trait Judge: Send + Sync {
    /// Returns the judgement, which runs on a task of its own, or `None` if this tenant was judged
    /// a short time ago.
    fn judgement(&self, chain: &ChainKey, rotator: &TokenRotator) -> Option<Judgement>;
}

pub(crate) type Judgement = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A token that was current when it was handed out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Token {
    /// The access token.
    pub access_token: AccessToken,
    /// When the token expires. `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
    /// The token's scopes.
    pub scopes: Scopes,
    /// Whether Slack has refused to refresh the token. It is valid until it expires, and then the
    /// app must be installed again.
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
    /// The reason why the bot was removed from the installation.
    pub bot_error: Option<Error>,
    /// The reason why the user's token was removed from the installation.
    pub user_error: Option<Error>,
}

/// The result of [`TokenRotator::rotate_now`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The new token.
    pub token: Token,
    /// Why the old tokens could not be revoked. They may then be valid until the access token
    /// expires, at most 12 hours after it was issued.
    pub unrevoked: Option<slack::Error>,
}

impl TokenRotator {
    /// Creates a rotator over this store.
    #[must_use]
    pub fn new(config: RotationConfig, slack: SlackClient, store: impl RotationStore) -> Self {
        let patience = config.patience;
        let engine = Arc::new(Engine::new(config, slack, Arc::new(store)));
        Self {
            engine,
            judge: None,
            patience,
        }
    }

    /// Returns the same rotator, whose calls make this judge judge a tenant.
    pub(crate) fn with_judge(self, judge: Arc<dyn Judge>) -> Self {
        Self {
            judge: Some(judge),
            ..self
        }
    }

    /// Sets the clock. Call it before the rotator is cloned or used.
    ///
    /// # Panics
    ///
    /// Panics if the rotator was cloned.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.unshared().clock = clock;
        self
    }

    /// Sets the seed of the random pauses, for tests that must be repeatable. Call it before the
    /// rotator is cloned or used.
    ///
    /// # Panics
    ///
    /// Panics if the rotator was cloned.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.unshared().jitter = Jitter::new(seed);
        self
    }

    #[cfg(test)]
    pub(crate) fn threshold(&self) -> super::RefreshThreshold {
        self.engine.config.threshold
    }

    fn unshared(&mut self) -> &mut Engine {
        let engine = Arc::get_mut(&mut self.engine);
        engine.expect("set the rotator's clock and seed before you clone or use it")
    }

    /// Returns whether Slack rejects the app's own configuration, so that refreshes pause.
    pub(crate) fn is_rejected(&self) -> bool {
        self.engine.breaker.code().is_some()
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Returns the same rotator with another waiting time. It covers everything that a caller waits
    /// for: the reads of the store, and the refresh. After `patience`, a caller gets [`Error::Busy`],
    /// or [`Error::Store`] if the store did not respond. The refresh continues without them.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    /// Returns a current token. Reads the store once, and refreshes the token first if necessary.
    /// Takes at most the rotator's patience: 20 s, or the time of [`within`](Self::within).
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no current token. An expired token is never returned instead.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. A refresh that has begun continues.
    pub async fn token_for(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
    ) -> Result<Token, Error> {
        let key = chain_key(tenant, credential);
        self.token(&key, Demand::Current, self.patience).await
    }

    /// Runs an operation with a current token.
    ///
    /// If the operation reports `token_expired`, refreshes the token once and runs the operation
    /// again. If it reports `token_revoked`, first asks Slack about the token (`auth.test`), and
    /// does the same if Slack confirms it.
    ///
    /// Waits for tokens at most as long as [`token_for`](Self::token_for), for both together. The
    /// operation's own time is not limited and does not count.
    ///
    /// If the tenant's authorisation seems to have ended, the tenant is judged in the background,
    /// in an app that is built by [`SlackApp`](crate::SlackApp), or if
    /// [`Operator::heal_calls`](crate::operate::Operator::heal_calls) was called. The call does not
    /// wait for it.
    ///
    /// # Errors
    ///
    /// [`CallError::Token`] if there is no current token, and [`CallError::Operation`] if the
    /// operation fails.
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as the operation. A refresh that has begun continues.
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
        let outcome = self.called(&key, operation).await;
        if outcome.as_ref().is_err_and(seems_to_have_ended) {
            self.judge(&key);
        }
        outcome
    }

    /// Lets the tenant be judged on a task of its own, for which [`shutdown`](Self::shutdown)
    /// waits.
    fn judge(&self, key: &ChainKey) {
        let flights = &self.engine.flights;
        if !flights.is_closed()
            && let Some(judge) = &self.judge
            && let Some(judgement) = judge.judgement(key, self)
        {
            let task = flights.late_task();
            drop(tokio::spawn(async move {
                judgement.await;
                drop(task);
            }));
        }
    }

    async fn called<T, E, F>(
        &self,
        key: &ChainKey,
        operation: impl Fn(Token) -> F,
    ) -> Result<T, CallError<E>>
    where
        E: RefusedToken,
        F: Future<Output = Result<T, E>>,
    {
        let asked = Instant::now();
        let token = self.token(key, Demand::Current, self.patience).await;
        let token = token.map_err(CallError::Token)?;
        let mut left = self.patience.saturating_sub(asked.elapsed());
        let (install, generation) = (token.install, token.generation);
        let demand = match operation(token).await {
            Err(error) if error.is_token_expired() => {
                tracing::info!(
                    tenant = %key.tenant, whose = %key.credential,
                    "Slack returned token_expired; the token is refreshed"
                );
                Demand::NewerThan(install, generation)
            }
            Err(error) if error.is_token_revoked() => {
                let asked = Instant::now();
                let is_over = self.engine.is_over(key, install, generation);
                match tokio::time::timeout(left, is_over).await {
                    Ok(true) => left = left.saturating_sub(asked.elapsed()),
                    _ => return Err(CallError::Operation(error)),
                }
                Demand::Current
            }
            outcome => return outcome.map_err(CallError::Operation),
        };
        let token = self.token(key, demand, left).await;
        let token = token.map_err(CallError::Token)?;
        operation(token).await.map_err(CallError::Operation)
    }

    /// Returns a fetched installation with current tokens. A token that cannot be made current is
    /// removed, with its error in [`Refreshed`].
    ///
    /// Returns at once, without a read of the store, if each token is either not due or still
    /// valid. Waits for the refresh if a token has expired, if it is due and the rotator is strict,
    /// or if Slack may have revoked it. Takes at most the rotator's patience.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. A refresh that has begun continues.
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

    /// Replaces a token that leaked, and revokes it. Returns the new token.
    ///
    /// First, the old token is marked as expired, so that it is not handed out again. (Another
    /// process may hand it out until its cache expires.) Then its access token is revoked at Slack
    /// (`auth.revoke`), the chain is refreshed, and the old refresh token is revoked too. With
    /// token rotation, `auth.revoke` ends only the token itself, and the app stays installed.
    ///
    /// Waits for the store and for the new pair at most as long as
    /// [`token_for`](Self::token_for), and for each call to Slack at most as long as the client does.
    ///
    /// If Slack issues no new pair now, callers get an error until it does. The rotator continues
    /// to try, and you can call this again.
    ///
    /// # Errors
    ///
    /// * [`Error::NotInstalled`] if the token does not exist.
    /// * [`Error::NotRotating`] if the token is long-lived. To revoke it would uninstall the app:
    ///   exchange it with [`migrate`](Self::migrate), and then rotate it.
    /// * [`Error::OnHold`] if the tenant is on hold. Nothing is then changed.
    /// * Otherwise as for [`token_for`](Self::token_for). The old access token is then revoked, and
    ///   the old refresh token is spent by the next refresh.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a refresh that has begun continues. The old token may stay valid
    /// at Slack until it expires.
    pub async fn rotate_now(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
    ) -> Result<Rotated, Error> {
        let (engine, key) = (&self.engine, chain_key(tenant, credential));
        let asked = Instant::now();
        let leaked = engine.condemn(&key, asked + self.patience).await?;
        let left = self.patience.saturating_sub(asked.elapsed());
        let grant = &leaked.grant;
        let mut access = lives_on(engine.slack.auth_revoke(&grant.access_token).await);
        let demand = Demand::NewerThan(leaked.chain.install, leaked.chain.generation);
        let token = self.token(&key, demand, left).await?;
        // Slack accepts a spent refresh token again for a short time.
        let refresh = match &grant.refresh_token {
            Some(token) => lives_on(engine.slack.auth_revoke_refresh_token(token).await)
                // Slack refuses a token that is spent, and the new pair shows that it is.
                .filter(|error| error.class() != ErrorClass::InvalidAuth),
            None => None,
        };
        if access.is_some() {
            access = lives_on(engine.slack.auth_revoke(&grant.access_token).await);
        }
        let unrevoked = access.or(refresh);
        if let Some(error) = &unrevoked {
            tracing::error!(
                tenant = %key.tenant, whose = %key.credential, error = error_chain(error),
                "a leaked token was replaced and could not be revoked; it is valid until it expires"
            );
        }
        Ok(Rotated { token, unrevoked })
    }

    /// Replaces the pair now, although it may not be due, and returns the new token. Revokes
    /// nothing. It is for operators.
    ///
    /// Slack keeps two access tokens of a chain alive. So if this is called twice in a short time,
    /// Slack revokes a token that other processes may use from their caches.
    ///
    /// # Errors
    ///
    /// [`Error::NotRotating`] if the token is long-lived. Otherwise as for
    /// [`token_for`](Self::token_for).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a refresh that has begun continues.
    pub async fn refresh_now(
        &self,
        tenant: &InstallationKey,
        credential: Credential,
    ) -> Result<Token, Error> {
        let key = chain_key(tenant, credential);
        let asked = Instant::now();
        let deadline = asked + self.patience;
        let stored = self.engine.released_current(&key, deadline).await?;
        if stored.chain.refresh.is_none() {
            return Err(Error::NotRotating);
        }
        let demand = Demand::NewerThan(stored.chain.install, stored.chain.generation);
        let left = self.patience.saturating_sub(asked.elapsed());
        self.token(&key, demand, left).await
    }

    /// Clears a chain's dead mark, so that its refresh tokens are tried again. Returns whether the
    /// chain was dead.
    ///
    /// It is for operators, after Slack wrongly refused valid refresh tokens.
    ///
    /// # Errors
    ///
    /// * [`Error::NotInstalled`] if the chain does not exist.
    /// * [`Error::Store`] if the store fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the mark is either cleared or unchanged.
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
        stored.ok_or_else(|| Error::not_installed(&key))?;
        if was_dead {
            tracing::info!(
                tenant = %key.tenant, whose = %key.credential,
                "the dead mark of a chain was cleared; its refresh tokens are tried again"
            );
        }
        Ok(was_dead)
    }

    /// Stops new refreshes and waits for the running ones, so that no pair that Slack issued is
    /// lost. Returns `false` if some still run after `within`.
    ///
    /// Call it before the runtime shuts down, because a runtime drops its unfinished tasks.
    pub async fn shutdown(&self, within: Duration) -> bool {
        self.engine.flights.close(Instant::now() + within).await
    }

    async fn grant(&self, key: &ChainKey, grant: Grant, is_suspect: bool) -> Result<Grant, Error> {
        let engine = &self.engine;
        engine
            .current_grant(key, grant, is_suspect, self.patience)
            .await
    }

    async fn token(
        &self,
        key: &ChainKey,
        demand: Demand,
        patience: Duration,
    ) -> Result<Token, Error> {
        let deadline = Instant::now() + patience;
        let stored = self.engine.current(key, demand, deadline).await?;
        Ok(Token::of(&stored))
    }
}

debug_fields!(TokenRotator: engine, patience);

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

/// Returns whether a call failed because the tenant's authorisation seems to have ended.
fn seems_to_have_ended<E: RefusedToken>(error: &CallError<E>) -> bool {
    match error {
        CallError::Operation(error) => error.is_token_revoked() || error.is_account_inactive(),
        CallError::Token(error) => matches!(error, Error::ReinstallNeeded { .. }),
    }
}

fn chain_key(tenant: &InstallationKey, credential: Credential) -> ChainKey {
    ChainKey {
        credential,
        tenant: tenant.clone(),
    }
}

/// Returns the error of a revocation after which the token may still be valid.
fn lives_on(revoked: Result<(), slack::Error>) -> Option<slack::Error> {
    let error = revoked.err()?;
    let is_over = matches!(
        error.class(),
        ErrorClass::Dead
            | ErrorClass::InvalidToken
            | ErrorClass::Revoked
            | ErrorClass::TokenExpired
    );
    (!is_over).then_some(error)
}

fn parted<T>(outcome: Option<Result<T, Error>>) -> (Option<T>, Option<Error>) {
    match outcome {
        Some(Ok(it)) => (Some(it), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    }
}
