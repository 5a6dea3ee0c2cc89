//! One refresh under the lease: the call, what its outcome means, and the save.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Error;
use super::engine::{self, Engine, Outage};
use super::guard::WINDOW;
use super::protocol::{self, CALL, Committed, Fresh, LEASE, Refused, Released, SAVE, Ticket};
use super::prove::is_ended;
use crate::secret::{RefreshToken, same};
use crate::slack::{Error as SlackError, ErrorClass, ErrorCode, Renewed, TransportError};
use crate::store::{Chain, ChainKey, Credential, Mark, StoredChain};
use crate::tenant::AppId;

/// What a refresh came to, if not to an error.
pub(super) enum Step {
    /// The chain has moved on meanwhile: look again.
    Again,
    /// This is the chain now.
    Done(Arc<StoredChain>),
}

/// What the answer to one call means for the refresh token that was sent.
enum Answer {
    /// Another time; certainly nothing was issued.
    Later { after: Option<Duration> },
    /// Our own configuration is wrong.
    Ours(ErrorCode),
    /// This refresh token is refused for good.
    Refused,
    /// A pair may have been issued.
    Unknown,
}

impl Engine {
    /// Tries the ticket's refresh tokens one after the other until one buys a pair.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        key: &ChainKey,
        ticket: &Ticket,
        stored: StoredChain,
        begun: Instant,
        is_ahead: bool,
    ) -> Result<Step, Error> {
        if let Err(code) = self.breaker.check() {
            let now = Some(Duration::ZERO);
            self.release(key, ticket, 1, now, code.as_str()).await;
            return Err(Error::Configuration { code });
        }
        let mut refused = Vec::new();
        let mut error: Arc<str> = "unknown".into();
        // Calls that the record tells of, and those of them whose outcome nobody knows.
        let (mut noted, mut unknown) = (1, 0);
        for mark in &ticket.candidates {
            let token = stored.refresh_token(*mark);
            let token = token.expect("a ticket names tokens of the chain that it was made for");
            for is_retry in [false, true] {
                if unknown == noted {
                    if !self.note_repeat(key, ticket).await {
                        return Ok(Step::Again);
                    }
                    noted += 1;
                }
                // Stalled since, as under a debugger or a full swap: the lease may be another's
                // by the time the answer comes.
                if begun.elapsed() > LEASE - CALL - SAVE {
                    let after = Some(Duration::ZERO);
                    let at = self
                        .release(key, ticket, noted - unknown, after, "stalled")
                        .await;
                    return Err(again(at, "stalled"));
                }
                let sent = Instant::now();
                let failure = match self.ask_slack(key, ticket, &stored.app_id, token).await {
                    Ok(renewed) => {
                        self.breaker.reset();
                        if let Err(what) = self.fits(key, &stored.app_id, &renewed) {
                            return self.mismatched(key, ticket, &renewed, what).await;
                        }
                        return self.save(key, ticket, &renewed, is_ahead).await;
                    }
                    Err(failure) => failure,
                };
                error = engine::name(&failure);
                self.heed(key, &failure);
                match answer(&failure) {
                    Answer::Refused => {
                        self.breaker.reset();
                        refused.push(*mark);
                        break;
                    }
                    Answer::Later { after } => {
                        let at = self
                            .release(key, ticket, noted - unknown, after, &error)
                            .await;
                        return Err(again(at, &error));
                    }
                    Answer::Ours(code) => {
                        self.breaker.trip(&code, sent);
                        let now = Some(Duration::ZERO);
                        self.release(key, ticket, noted - unknown, now, code.as_str())
                            .await;
                        return Err(Error::Configuration { code });
                    }
                    // Once more, at once, and with the same token: Slack takes it for a while.
                    Answer::Unknown if !is_retry => unknown += 1,
                    Answer::Unknown => {
                        let at = self.release(key, ticket, 0, None, &error).await;
                        return Err(again(at, &error));
                    }
                }
            }
        }
        self.all_refused(key, ticket, &refused, noted - unknown, &error)
            .await
    }

    /// Notes one more call. `false` if there is no need of it any more.
    async fn note_repeat(&self, key: &ChainKey, ticket: &Ticket) -> bool {
        let mut is_ours = false;
        let mut decide = |chain: Option<&Chain>| {
            let next = protocol::repeat(chain, ticket, self.clock.now());
            is_ours = next.is_some();
            next.map(|next| self.scheduled(next))
        };
        match self.store.update(key, None, &mut decide).await {
            Ok(_) => is_ours,
            // The pair that the lost answer had is worth more than the note.
            Err(error) => {
                tracing::warn!(chain = %key, %error, "a repeated refresh could not be noted");
                true
            }
        }
    }

    /// What an answer tells beside what it means for its refresh token.
    fn heed(&self, key: &ChainKey, error: &SlackError) {
        match (error, error.class()) {
            (SlackError::RateLimited { retry_after }, _) => {
                self.pace
                    .hold(retry_after.unwrap_or(UNSAID).min(LONGEST_WAIT));
            }
            (SlackError::Api { code, .. }, ErrorClass::Configuration | ErrorClass::CallerBug)
                if !is_of_the_app(code) =>
            {
                tracing::error!(
                    chain = %key, %code,
                    "Slack takes this chain's refresh token for another app's, or of another kind"
                );
            }
            _ => {}
        }
    }

    /// Calls Slack.
    async fn ask_slack(
        self: &Arc<Self>,
        key: &ChainKey,
        ticket: &Ticket,
        app_id: &AppId,
        token: &RefreshToken,
    ) -> Result<Renewed, SlackError> {
        let engine = Arc::clone(self);
        let token = RefreshToken::new(token.expose());
        let token = token.expect("a stored token was checked when it was taken");
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.refresh(app, &token).await
        };
        self.in_time(key, ticket, app_id, call).await
    }

    /// The answer to a call that brings a pair. One that comes too late for the lease is not thrown
    /// away: its pair is saved, or kept beside the one that was saved first, when it comes.
    pub(super) async fn in_time<F>(
        self: &Arc<Self>,
        key: &ChainKey,
        ticket: &Ticket,
        app_id: &AppId,
        call: F,
    ) -> Result<Renewed, SlackError>
    where
        F: Future<Output = Result<Renewed, SlackError>> + Send + 'static,
    {
        let mut call = tokio::spawn(call);
        let lost = |cause| SlackError::Transport(TransportError::Lost(cause));
        match tokio::time::timeout(CALL, &mut call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(interrupted)) => Err(lost(interrupted.into())),
            Err(late) => {
                let engine = Arc::clone(self);
                let (key, ticket, app_id) = (key.clone(), ticket.clone(), app_id.clone());
                let straggler = self.flights.straggler();
                drop(tokio::spawn(async move {
                    let _straggler = straggler;
                    if let Ok(Ok(renewed)) = call.await
                        && engine.fits(&key, &app_id, &renewed).is_ok()
                        && let Err(error) = engine.save(&key, &ticket, &renewed, false).await
                    {
                        tracing::error!(chain = %key, %error, "a late pair is lost");
                    }
                }));
                Err(lost(late.into()))
            }
        }
    }

    /// Whether a pair is one of this chain. What Slack does not say is not held against it.
    pub(super) fn fits(
        &self,
        key: &ChainKey,
        app_id: &AppId,
        renewed: &Renewed,
    ) -> Result<(), &'static str> {
        if renewed.app_id != *app_id {
            return Err("other_app");
        }
        let is_same_user = match &key.credential {
            Credential::Bot => !renewed.is_user,
            Credential::User(user) => {
                renewed.is_user && renewed.user_id.as_ref().is_none_or(|id| id == user)
            }
        };
        if !is_same_user {
            return Err("other_token_type");
        }
        let is_same_place = match key.tenant.team() {
            Some(team) => renewed.team_id.as_ref().is_none_or(|id| id == team),
            None => {
                let named = renewed.enterprise_id.as_ref();
                named.is_none_or(|id| Some(id) == key.tenant.enterprise())
            }
        };
        is_same_place.then_some(()).ok_or("other_team")
    }

    /// A pair that is not this chain's is not stored, and not dropped without a word: the refresh
    /// token that bought it is spent, and is tried once more while Slack takes it.
    pub(super) async fn mismatched(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        renewed: &Renewed,
        what: &'static str,
    ) -> Result<Step, Error> {
        let refresh_token = renewed.grant.refresh_token.as_ref().map(Mark::of);
        tracing::error!(
            chain = %key, what, ?refresh_token,
            "Slack answered a refresh with a token of another place; it is not stored"
        );
        let at = self.release(key, ticket, 0, None, what).await;
        Err(again(at, what))
    }

    /// Until the pair is saved, or kept beside the one that is, or revoked because nothing is
    /// there that it belongs to. Slack has handed it over, and it is nowhere else.
    pub(super) async fn save(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        renewed: &Renewed,
        is_ahead: bool,
    ) -> Result<Step, Error> {
        let refresh_token = renewed.grant.refresh_token.as_ref();
        let fresh = Fresh {
            refresh: Mark::of(refresh_token.expect("an answer without one is malformed")),
            issued_at: renewed.at,
            expires_at: renewed.grant.expires_at,
            is_ahead,
        };
        let give_up = Instant::now() + KEEP_TRYING;
        let mut pause = FIRST_PAUSE;
        let mut is_doubtful = false;
        loop {
            let mut committed = Committed::Orphan;
            let mut decide = |chain: Option<&Chain>| {
                let now = self.clock.now();
                let (next, answer) = protocol::commit(chain, ticket, &fresh, now);
                committed = answer;
                // An earlier call with this refresh token may have bought the pair that lives.
                is_doubtful |= next.is_some() && chain.is_some_and(|chain| chain.attempts > 1);
                next.map(|next| self.scheduled(next))
            };
            let saved = self
                .store
                .update(key, Some(&renewed.grant), &mut decide)
                .await;
            match saved {
                Ok(stored) => {
                    let step = self.saved(key, renewed, stored, committed).await;
                    return Ok(match step {
                        Step::Done(stored) if is_doubtful => self.proven(key, stored).await,
                        step => step,
                    });
                }
                Err(error) if Instant::now() >= give_up => {
                    tracing::error!(chain = %key, %error, "a pair that Slack issued is lost");
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::error!(chain = %key, %error, "a pair could not be saved yet");
                    tokio::time::sleep(self.jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn saved(
        &self,
        key: &ChainKey,
        renewed: &Renewed,
        stored: Option<StoredChain>,
        committed: Committed,
    ) -> Step {
        match (committed, stored) {
            (Committed::Saved, Some(stored)) => {
                tracing::info!(chain = %key, generation = stored.chain.generation, "refreshed");
                Step::Done(Arc::new(stored))
            }
            (Committed::Alternate, standing) => {
                tracing::warn!(chain = %key, "another pair was saved first; both are kept");
                if let Some(standing) = standing {
                    self.confirm(key, &standing).await;
                }
                Step::Again
            }
            (_, standing) => {
                tracing::info!(chain = %key, "the installation changed; its new pair is revoked");
                self.revoke(key, renewed, standing.as_ref()).await;
                Step::Again
            }
        }
    }

    /// Asks Slack whether the pair that stands beside an alternate is the one that lives. Without an
    /// answer it stays under suspicion.
    async fn confirm(&self, key: &ChainKey, standing: &StoredChain) {
        let test = self.slack.auth_test(&standing.grant.access_token);
        let is_alive = match tokio::time::timeout(CALL, test).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) if is_ended(&error) => false,
            _ => return,
        };
        let generation = standing.chain.generation;
        let mut decide = |chain: Option<&Chain>| {
            let next = protocol::confirm(chain, generation, is_alive);
            next.map(|next| self.scheduled(next))
        };
        if let Err(error) = self.store.update(key, None, &mut decide).await {
            tracing::warn!(chain = %key, %error, "a suspicion could not be ended");
        }
    }

    /// Ends a pair that belongs to nothing. With token rotation `auth.revoke` ends one token and
    /// leaves the installation; a token that the new installation has too is left alone.
    async fn revoke(&self, key: &ChainKey, renewed: &Renewed, standing: Option<&StoredChain>) {
        let is_standing =
            |token: &str| standing.is_some_and(|it| same(it.grant.access_token.expose(), token));
        let access_token = &renewed.grant.access_token;
        if let Some(token) = &renewed.grant.refresh_token
            && let Err(error) = self.slack.auth_revoke_refresh_token(token).await
        {
            tracing::warn!(chain = %key, %error, "a refresh token could not be revoked");
        }
        if !is_standing(access_token.expose())
            && let Err(error) = self.slack.auth_revoke(access_token).await
        {
            tracing::warn!(chain = %key, %error, "an access token could not be revoked");
        }
    }

    async fn all_refused(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        refused: &[Mark],
        fruitless: u32,
        error: &Arc<str>,
    ) -> Result<Step, Error> {
        if !self.deaths.allow() {
            tracing::error!(chain = %key, "too many chains are refused at once; none is given up");
            let at = self
                .release(key, ticket, fruitless, Some(WINDOW), error)
                .await;
            return Err(again(at, error));
        }
        let mut answer = Refused::Moved;
        let mut decide = |chain: Option<&Chain>| {
            let (next, refused) = protocol::refuse(chain, ticket, refused, error);
            answer = refused;
            next.map(|next| self.scheduled(next))
        };
        let updated = self.store.update(key, None, &mut decide).await;
        if updated.is_err() || answer == Refused::Moved {
            self.deaths.spare();
        }
        updated?;
        match answer {
            Refused::Dead => Err(Error::ReinstallNeeded {
                code: ErrorCode::new(error),
            }),
            Refused::Moved => Ok(Step::Again),
        }
    }

    /// Gives the lease back, and answers when the next try may be. If the database does not
    /// take it for long, the lease lapses by itself.
    pub(super) async fn release(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        fruitless: u32,
        after: Option<Duration>,
        error: &str,
    ) -> SystemTime {
        let now = self.clock.now();
        let share = 0.5 + self.memo.random();
        let mut retry_at = now;
        let mut decide = |chain: Option<&Chain>| {
            let failures = chain.map_or(0, |chain| chain.failures);
            retry_at = now + after.unwrap_or_else(|| backoff(failures).mul_f64(share));
            let released = Released {
                fruitless,
                retry_at,
                error: error.into(),
            };
            let next = protocol::release(chain, ticket, &released);
            next.map(|next| self.scheduled(next))
        };
        let mut outage = Outage::default();
        while let Err(error) = self.store.update(key, None, &mut decide).await {
            if let Err(error) = self.sit_out(&mut outage, error).await {
                tracing::warn!(chain = %key, %error, "a lease could not be given back");
                return retry_at + LEASE;
            }
        }
        retry_at
    }
}

fn answer(error: &SlackError) -> Answer {
    match (error, error.class()) {
        (SlackError::RateLimited { retry_after }, _) => Answer::Later {
            after: retry_after.map(|after| after.min(LONGEST_WAIT)),
        },
        // As a refresh token's state; `invalid_auth` can be our own address, and says nothing.
        (_, class) if class.ends_token() => Answer::Refused,
        (SlackError::Api { code, .. }, _) if is_of_the_app(code) => Answer::Ours(code.clone()),
        (
            _,
            ErrorClass::CallerBug
            | ErrorClass::Configuration
            | ErrorClass::Migrating
            | ErrorClass::Policy
            | ErrorClass::Retry,
        ) => Answer::Later { after: None },
        _ => Answer::Unknown,
    }
}

/// Whether Slack says this of the app, whichever token was sent. What it says of one token, as
/// that it is another app's, must not stop the others.
pub(super) fn is_of_the_app(code: &ErrorCode) -> bool {
    matches!(
        code.as_str(),
        "accesslimited"
            | "bad_client_secret"
            | "bad_redirect_uri"
            | "invalid_client_id"
            | "invalid_grant_type"
            | "oauth_authorization_url_mismatch"
            | "pkce_not_allowed"
            | "token_rotation_not_enabled"
            | "unknown_method"
    )
}

/// 1 s, doubled by each failure, up to a minute.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(Duration::from_secs(60))
}

fn again(at: SystemTime, code: &str) -> Error {
    Error::TryAgain {
        at,
        code: ErrorCode::new(code),
    }
}

/// Of Slack's `Retry-After`; its own are seconds to a minute.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// If Slack asks to wait and does not say how long.
const UNSAID: Duration = Duration::from_secs(30);

/// A database that is restarted or fails over is back by then.
const KEEP_TRYING: Duration = Duration::from_secs(10 * 60);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Scopes;

    fn api(code: &str) -> SlackError {
        SlackError::Api {
            code: ErrorCode::new(code),
            needed: Scopes::default(),
        }
    }

    fn meaning(error: &SlackError) -> String {
        match answer(error) {
            Answer::Later { after: None } => "later".to_owned(),
            Answer::Later { after: Some(after) } => format!("in {} s", after.as_secs()),
            Answer::Ours(code) => format!("ours: {code}"),
            Answer::Refused => "refused".to_owned(),
            Answer::Unknown => "unknown".to_owned(),
        }
    }

    /// Codes that Slack returns for the app itself, whichever token was sent.
    const OF_THE_APP: [&str; 9] = [
        "accesslimited",
        "bad_client_secret",
        "bad_redirect_uri",
        "invalid_client_id",
        "invalid_grant_type",
        "oauth_authorization_url_mismatch",
        "pkce_not_allowed",
        "token_rotation_not_enabled",
        "unknown_method",
    ];

    #[test]
    fn only_the_end_of_an_authorisation_refuses_a_refresh_token() {
        for code in [
            "account_inactive",
            "authorization_not_found",
            "invalid_grant",
            "invalid_refresh_token",
            "token_expired",
            "token_revoked",
        ] {
            assert_eq!(meaning(&api(code)), "refused", "{code}");
        }
        for code in [
            // Also what an address gets that is not on the app's allow-list.
            "invalid_auth",
            "invalid_token",
            // These say nothing about a refresh token, and the call may have bought a pair.
            "code_already_used",
            "fatal_error",
            "internal_error",
            "invalid_code",
            "missing_scope",
            "no_permission",
            "no_scopes",
            "some_future_error",
            "team_access_not_granted",
        ] {
            assert_eq!(meaning(&api(code)), "unknown", "{code}");
        }
    }

    #[test]
    fn what_slack_says_of_the_app_is_told_from_what_it_says_of_one_token() {
        for code in OF_THE_APP {
            assert_eq!(meaning(&api(code)), format!("ours: {code}"));
            assert!(is_of_the_app(&ErrorCode::new(code)), "{code}");
        }
        for code in [
            "access_denied",
            "client_id_token_mismatch",
            "ekm_access_denied",
            "enterprise_is_restricted",
            "invalid_arguments",
            "invalid_form_data",
            "not_allowed_token_type",
            "not_authed",
            "org_login_required",
            "request_timeout",
            "service_unavailable",
            "team_added_to_org",
            "two_factor_setup_required",
        ] {
            assert_eq!(meaning(&api(code)), "later", "{code}");
            assert!(!is_of_the_app(&ErrorCode::new(code)), "{code}");
        }
    }

    #[test]
    fn a_call_that_slack_did_not_take_is_told_from_one_whose_response_is_lost() {
        let limited = |retry_after: Option<u64>| SlackError::RateLimited {
            retry_after: retry_after.map(Duration::from_secs),
        };
        let not_sent = SlackError::Transport(TransportError::NotSent("refused".into()));
        let lost = SlackError::Transport(TransportError::Lost("reset".into()));
        for (error, expected) in [
            (limited(None), "later"),
            (limited(Some(0)), "in 0 s"),
            (limited(Some(30)), "in 30 s"),
            (limited(Some(300)), "in 300 s"),
            (limited(Some(301)), "in 300 s"),
            (limited(Some(u64::MAX)), "in 300 s"),
            (not_sent, "later"),
            (lost, "unknown"),
            (SlackError::Http { status: 503 }, "unknown"),
            (SlackError::Malformed { what: "a field" }, "unknown"),
        ] {
            assert_eq!(meaning(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn what_fails_is_tried_again_after_a_second_and_after_a_minute_at_most() {
        let waits = [0, 1, 2, 3, 4, 5, 6, 7, 40, u32::MAX].map(|it| backoff(it).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }
}
