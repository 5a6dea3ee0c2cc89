//! [`SlackClient`]: calls the Web API methods that this crate uses.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::answers::{self, AuthTest, Issued, Renewed, Unusable, UserInfo};
use super::member::Member;
use super::{Environment, Error, HttpTransport, Transport};
use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::secret::{AccessToken, ClientSecret, Code, RefreshToken};
use crate::tenant::{ClientId, TeamId, UserId};
use crate::wipe::{Wiped, wiped};

/// The credentials that identify the app to Slack.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The client id, from *Basic Information*.
    pub client_id: ClientId,
    /// The client secret, from *Basic Information*.
    pub client_secret: ClientSecret,
}

/// Calls Slack's Web API. Cheap to clone.
#[derive(Clone)]
pub struct SlackClient {
    environment: Environment,
    transport: Arc<dyn Transport>,
    clock: Clock,
    old_credentials: Option<Arc<ClientCredentials>>,
}

impl SlackClient {
    /// Creates a client that uses the network.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self::with_transport(environment, HttpTransport::new())
    }

    /// Creates a client that uses another transport.
    #[must_use]
    pub fn with_transport(environment: Environment, transport: impl Transport) -> Self {
        Self {
            environment,
            transport: Arc::new(transport),
            clock: Clock::default(),
            old_credentials: None,
        }
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets the app's previous client secret, for the time of a rotation of the secret.
    ///
    /// Slack accepts the previous secret for 24 hours after a new one was made. If Slack refuses
    /// the secret of a call, the call is repeated with this one. An
    /// [`InstallProvider`](crate::InstallProvider) with this client also accepts the states of
    /// processes that have only one of the two secrets. Without the app's client id, the
    /// credentials have no effect.
    #[must_use]
    pub fn with_old_credentials(self, old: ClientCredentials) -> Self {
        let old_credentials = Some(Arc::new(old));
        Self {
            old_credentials,
            ..self
        }
    }

    /// Returns the previous credentials of this app.
    pub(crate) fn old_credentials(&self, app: &ClientCredentials) -> Option<&ClientCredentials> {
        let old = self.old_credentials.as_deref();
        old.filter(|old| old.client_id == app.client_id)
    }

    /// Returns the Slack that this client calls.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Exchanges the code of a callback for tokens (`oauth.v2.access`, HTTP Basic).
    ///
    /// The client never repeats this call, because the first call spends the code, even if it
    /// fails. The only exception is a refused client secret, if there is an
    /// [old one](Self::with_old_credentials).
    ///
    /// If the response does not name the owner of a token, the client also calls `auth.test`.
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails, or if the response cannot be stored as an
    /// installation. Its tokens are then lost, and not revoked.
    pub async fn oauth_v2_access(
        &self,
        app: &ClientCredentials,
        code: &Code,
        redirect_uri: &str,
    ) -> Result<Issued, Error> {
        let exchanged = self.exchange_code(app, code, redirect_uri).await?;
        exchanged.map_err(|unusable| unusable.error())
    }

    /// Does the same, and returns the tokens of a response that cannot be stored.
    pub(crate) async fn exchange_code(
        &self,
        app: &ClientCredentials,
        code: &Code,
        redirect_uri: &str,
    ) -> Result<Result<Issued, Box<Unusable>>, Error> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
        ];
        let sent_at = self.clock.now();
        let answer = self.call_as("oauth.v2.access", app, &form).await?;
        let slack_time = answer.slack_time().unwrap_or(sent_at);
        let mut exchanged = match answers::exchanged(&answer.body, slack_time)? {
            Ok(exchanged) => exchanged,
            Err(unusable) => return Ok(Err(unusable)),
        };
        while let Some(token) = exchanged.ownerless().cloned() {
            let test = self.auth_test(&token).await;
            match test.ok().and_then(|test| test.user_id) {
                Some(owner) => exchanged.set_owner(owner),
                None => break,
            }
        }
        Ok(exchanged.issued())
    }

    /// Exchanges a refresh token for a new pair of a bot or a user (`oauth.v2.access`, HTTP Basic).
    ///
    /// Slack accepts a refresh token once, and once more within a short, unpublished time. So the
    /// client does not repeat the call, and a caller that lost the response must repeat it
    /// promptly.
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error). If its class is
    /// [`Ambiguous`](super::ErrorClass::Ambiguous), Slack may have issued a pair.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the refresh token may be spent and the new pair lost.
    pub async fn refresh(
        &self,
        app: &ClientCredentials,
        refresh_token: &RefreshToken,
    ) -> Result<Renewed, Error> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        self.renew("oauth.v2.access", app, &form).await
    }

    /// Exchanges a long-lived token for a rotating pair (`oauth.v2.exchange`).
    ///
    /// Slack does this once per token, and allows 50 calls a minute (tier 3). The old token is
    /// valid until the first refresh of the new pair. Never revoke the old token: that uninstalls
    /// the app.
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error). If its class is
    /// [`Ambiguous`](super::ErrorClass::Ambiguous), Slack may have issued a pair.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the token may be exchanged and the pair lost.
    pub async fn oauth_v2_exchange(
        &self,
        app: &ClientCredentials,
        token: &AccessToken,
    ) -> Result<Renewed, Error> {
        let form = [("token", token.expose())];
        self.renew("oauth.v2.exchange", app, &form).await
    }

    async fn renew(
        &self,
        method: &'static str,
        app: &ClientCredentials,
        form: &[(&str, &str)],
    ) -> Result<Renewed, Error> {
        let sent_at = self.clock.now();
        let answer = self.call_as(method, app, form).await?;
        answers::renewed(&answer.body, answer.slack_time().unwrap_or(sent_at))
    }

    /// Returns the owner of a token (`auth.test`).
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails.
    pub async fn auth_test(&self, token: &AccessToken) -> Result<AuthTest, Error> {
        let answer = self.call("auth.test", bearer(token), &[]).await?;
        answers::auth_test(&answer.body)
    }

    /// Returns a page of the workspaces to which an org-wide installation was added, and the cursor
    /// of the next page (`auth.teams.list`, no scope).
    pub(crate) async fn auth_teams_list(
        &self,
        token: &AccessToken,
        cursor: &str,
    ) -> Result<(Vec<TeamId>, Option<String>), Error> {
        let form = [("limit", "1000"), ("cursor", cursor)];
        let answer = self.call("auth.teams.list", bearer(token), &form).await?;
        answers::teams(&answer.body)
    }

    /// Revokes an access token (`auth.revoke`).
    ///
    /// With token rotation, revokes only this token. Without it, the call can uninstall the app.
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails.
    pub async fn auth_revoke(&self, token: &AccessToken) -> Result<(), Error> {
        self.call("auth.revoke", bearer(token), &[]).await.map(drop)
    }

    /// Revokes a refresh token (`auth.revoke`), and no other token.
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails.
    pub async fn auth_revoke_refresh_token(&self, token: &RefreshToken) -> Result<(), Error> {
        let header = sensitive(format!("Bearer {}", token.expose()));
        self.call("auth.revoke", header, &[]).await.map(drop)
    }

    /// Uninstalls the app from the token's workspace or organisation (`apps.uninstall`).
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails. Slack is reported to return `no_permission`
    /// for some bot tokens.
    pub async fn apps_uninstall(
        &self,
        app: &ClientCredentials,
        token: &AccessToken,
    ) -> Result<(), Error> {
        let mut outcome = self.uninstall_as(app, token).await;
        if let Some(old) = self.old_to_try(app, outcome.as_ref().err()) {
            outcome = self.uninstall_as(old, token).await;
        }
        outcome.map(drop)
    }

    async fn uninstall_as(
        &self,
        app: &ClientCredentials,
        token: &AccessToken,
    ) -> Result<Answer, Error> {
        let form = [
            ("client_id", app.client_id.as_str()),
            ("client_secret", app.client_secret.expose()),
        ];
        self.call("apps.uninstall", bearer(token), &form).await
    }

    /// Makes a call with the app's credentials (HTTP Basic). Tries the old secret if Slack refuses
    /// the new one.
    async fn call_as(
        &self,
        method: &'static str,
        app: &ClientCredentials,
        form: &[(&str, &str)],
    ) -> Result<Answer, Error> {
        let outcome = self.call(method, basic(app), form).await;
        match self.old_to_try(app, outcome.as_ref().err()) {
            Some(old) => self.call(method, basic(old), form).await,
            None => outcome,
        }
    }

    /// Returns the old credentials if this error says that Slack refuses the client secret. Slack
    /// checks the secret before it spends anything.
    fn old_to_try(
        &self,
        app: &ClientCredentials,
        error: Option<&Error>,
    ) -> Option<&ClientCredentials> {
        let Some(Error::Api { code, .. }) = error else {
            return None;
        };
        let old = self.old_credentials(app);
        let old = old.filter(|_| code.as_str() == "bad_client_secret")?;
        tracing::warn!("Slack refused the client secret; the call is repeated with the old one");
        Some(old)
    }

    /// Returns a user's flags and workspaces (`users.info`, scope `users:read`).
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if the call fails.
    pub async fn users_info(&self, token: &AccessToken, user: &UserId) -> Result<UserInfo, Error> {
        let answer = self
            .call("users.info", bearer(token), &[("user", user.as_str())])
            .await?;
        answers::person(&answer.body)
    }

    /// Asks Slack for its time, without a token (`api.test`).
    ///
    /// # Errors
    ///
    /// Returns [`Error`](enum@Error) if no response arrives. A response with an error code is not
    /// an error, because it shows that Slack can be reached.
    pub async fn probe(&self) -> Result<Probe, Error> {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(self.environment.api_url("api.test").as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::new())
            .map_err(|_| Error::Malformed {
                what: "there is none, because the environment's base URL is not a valid URI",
            })?;
        let sent_at = self.clock.now();
        let response = self.transport.send(request).await?;
        let received_at = self.clock.now();
        let skew =
            slack_time(response.headers()).map(|slack| Skew::of(slack, sent_at, received_at));
        Ok(Probe {
            status: response.status().as_u16(),
            skew,
        })
    }

    async fn call(
        &self,
        method: &'static str,
        authorization: HeaderValue,
        form: &[(&str, &str)],
    ) -> Result<Answer, Error> {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(self.environment.api_url(method).as_str())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(encoded(form))
            .map_err(|_| Error::Malformed {
                what: "there is none, because the environment's base URL is not a valid URI",
            })?;
        let sent_at = self.clock.now();
        let response = self.transport.send(request).await?;
        self.warn_of_clock_skew(method, response.headers(), sent_at);
        let outcome = Answer::new(response);
        match &outcome {
            Ok(_) => tracing::debug!(method, "Slack responded"),
            Err(error) => tracing::debug!(
                method,
                error = error_chain(error),
                "the call to Slack failed"
            ),
        }
        outcome
    }

    /// Logs a warning if this machine's clock differs from Slack's.
    ///
    /// A token's expiry is a time on Slack's clock, and is compared with this machine's clock. A
    /// difference of minutes is tolerated. A larger one would hand out expired tokens.
    fn warn_of_clock_skew(&self, method: &str, headers: &HeaderMap, sent_at: SystemTime) {
        let Some(slack_time) = slack_time(headers) else {
            return;
        };
        let skew = Skew::of(slack_time, sent_at, self.clock.now());
        if skew.is_large() {
            let (skew_s, is_behind) = (skew.by.as_secs(), skew.is_behind);
            tracing::warn!(
                method,
                skew_s,
                is_behind,
                "this machine's clock differs from Slack's; check its time synchronisation (NTP)"
            );
        }
    }
}

impl fmt::Debug for SlackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackClient")
            .field("environment", &self.environment.base().as_str())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// A response of Slack to a call without a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Probe {
    /// The HTTP status.
    pub status: u16,
    /// The difference of the clocks; `None` if the response has no time.
    pub skew: Option<Skew>,
}

/// How much this machine's clock differs from Slack's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Skew {
    /// The difference. It is at least this much: Slack's time has whole seconds, and was current at
    /// some moment of the call.
    pub by: Duration,
    /// Whether this machine's clock is behind Slack's.
    pub is_behind: bool,
}

impl Skew {
    fn of(slack_time: SystemTime, sent_at: SystemTime, received_at: SystemTime) -> Self {
        let behind = slack_time.duration_since(received_at).unwrap_or_default();
        let ahead = sent_at.duration_since(slack_time).unwrap_or_default();
        Self {
            by: behind.max(ahead),
            is_behind: !behind.is_zero(),
        }
    }

    /// Returns whether the difference is larger than clocks with NTP have.
    #[must_use]
    pub fn is_large(self) -> bool {
        self.by > SKEW
    }
}

/// A response with `ok: true`.
struct Answer {
    headers: HeaderMap,
    body: Wiped,
}

impl Answer {
    fn new(response: http::Response<Bytes>) -> Result<Self, Error> {
        let (parts, body) = response.into_parts();
        let body = Wiped::new(body);
        if parts.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Error::RateLimited {
                retry_after: retry_after(&parts.headers),
            });
        }
        // Most of Slack's errors have status 200. Proxies and outages may send HTML.
        let Ok(Member::<Envelope>::Object(envelope)) = serde_json::from_slice(&body) else {
            return Err(if parts.status.is_success() {
                Error::Malformed {
                    what: "it is not a JSON object with the field `ok`",
                }
            } else {
                Error::Http {
                    status: parts.status.as_u16(),
                }
            });
        };
        let has_error = !envelope.error.is_absent();
        match (envelope.ok, envelope.error.text()) {
            (true, _) if parts.status.is_success() => Ok(Self {
                headers: parts.headers,
                body,
            }),
            (_, Some(code)) => {
                let needed = envelope.needed.text().unwrap_or_default();
                Err(Error::refused(&code, &needed, retry_after(&parts.headers)))
            }
            (_, None) if parts.status.is_success() && has_error => Err(Error::Malformed {
                what: "`error` is not a text",
            }),
            (_, None) => Err(Error::Http {
                status: parts.status.as_u16(),
            }),
        }
    }

    fn slack_time(&self) -> Option<SystemTime> {
        slack_time(&self.headers)
    }
}

#[cfg(any(test, fuzzing))]
/// Reads a response of this status, for the fuzz target.
pub(super) fn fuzz_answer(status: StatusCode, body: &[u8]) {
    let mut response = http::Response::new(Bytes::copy_from_slice(body));
    *response.status_mut() = status;
    let outcome = Answer::new(response);
    assert!(outcome.is_err() || status.is_success());
}

/// The fields that all responses share.
#[derive(Deserialize)]
struct Envelope {
    /// An error in the style of RFC 6749 has an `error` and no `ok`.
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    error: Member,
    #[serde(default)]
    needed: Member,
}

/// Returns the time of the response, on Slack's clock.
fn slack_time(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns a form's body, which is wiped when it is dropped.
fn encoded(form: &[(&str, &str)]) -> Bytes {
    // Each byte becomes three at most. A text that grows would leave copies behind.
    let length: usize = form.iter().map(|(k, v)| 3 * (k.len() + v.len()) + 2).sum();
    let body = String::with_capacity(length);
    let mut body = form_urlencoded::Serializer::new(body);
    wiped(body.extend_pairs(form).finish())
}

fn basic(app: &ClientCredentials) -> HeaderValue {
    let (id, secret) = (app.client_id.as_str(), app.client_secret.expose());
    let pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    let parts = [id, secret].map(|text| form_urlencoded::byte_serialize(text.as_bytes()));
    let [id, secret] = parts;
    let pair = id.chain([":"]).chain(secret).fold(pair, |mut pair, part| {
        pair.push_str(part);
        pair
    });
    let mut header = String::with_capacity("Basic ".len() + 4 * pair.len().div_ceil(3));
    header.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut header);
    sensitive(header)
}

fn bearer(token: &AccessToken) -> HeaderValue {
    sensitive(format!("Bearer {}", token.expose()))
}

/// Returns a header value that HTTP libraries do not log, and that is wiped when it is dropped.
fn sensitive(value: String) -> HeaderValue {
    let value = HeaderValue::from_maybe_shared(wiped(value));
    let mut value = value.expect("a secret is visible ASCII");
    value.set_sensitive(true);
    value
}

/// The largest clock difference without a warning. Clocks with NTP differ by less than a second.
const SKEW: Duration = Duration::from_secs(30);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::wipe::memory::Place;

    #[test]
    fn what_is_sent_to_slack_is_wiped_when_it_was_sent() {
        let secret = "canary+/".repeat(20);
        let app = ClientCredentials {
            client_id: ClientId::new("1.2").expect("an id"),
            client_secret: ClientSecret::new(&*secret).expect("a secret"),
        };
        let form = encoded(&[("refresh_token", &secret), ("a", "b c")]);
        let expected = "canary%2B%2F".repeat(20);
        assert_eq!(form, format!("refresh_token={expected}&a=b+c"));
        let place = Place::of(&form);
        drop(form);
        assert!(!place.has_secret(), "the form");
        let basic = basic(&app);
        let pair = STANDARD.encode(format!("1.2:{expected}"));
        assert_eq!(basic, format!("Basic {pair}"));
        let token = AccessToken::new(&*secret).expect("a token");
        let bearer = bearer(&token);
        assert_eq!(bearer, format!("Bearer {secret}"));
        for header in [basic, bearer] {
            let place = Place::of(header.as_bytes());
            drop(header);
            assert!(!place.has_secret(), "a header");
        }
    }

    #[test]
    fn what_slack_responded_is_wiped_when_it_was_read() {
        for status in [200, 500] {
            let body = Bytes::from(format!(r#"{{"ok":true,"x":"{}"}}"#, "canary".repeat(40)));
            let place = Place::of(&body);
            let mut response = http::Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            drop(Answer::new(response));
            assert!(!place.has_secret(), "{status}");
        }
    }
}
