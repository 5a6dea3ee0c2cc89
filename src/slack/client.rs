//! The Web API methods that this crate calls.

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

use super::answers::{self, AuthTest, Issued, Renewed, UserInfo};
use super::{Environment, Error, HttpTransport, Transport};
use crate::clock::Clock;
use crate::secret::{AccessToken, ClientSecret, Code, RefreshToken};
use crate::tenant::{ClientId, UserId};

/// What Slack knows the app by.
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
}

impl SlackClient {
    /// A client over the network.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self::with_transport(environment, HttpTransport::new())
    }

    /// A client over another transport.
    #[must_use]
    pub fn with_transport(environment: Environment, transport: impl Transport) -> Self {
        Self {
            environment,
            transport: Arc::new(transport),
            clock: Clock::default(),
        }
    }

    /// The same client, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Which Slack this calls.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Exchanges the code of a callback for tokens (`oauth.v2.access`, HTTP Basic). The code is
    /// spent, whatever comes back, so this is never repeated.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error); also when Slack's answer cannot be kept as an installation.
    pub async fn oauth_v2_access(
        &self,
        app: &ClientCredentials,
        code: &Code,
        redirect_uri: &str,
    ) -> Result<Issued, Error> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
        ];
        let sent_at = self.clock.now();
        let answer = self.call("oauth.v2.access", basic(app), &form).await?;
        let slack_time = answer.slack_time().unwrap_or(sent_at);
        answers::issued(&answer.body, slack_time)
    }

    /// Spends a refresh token (`oauth.v2.access`, HTTP Basic): a new pair for a bot or a user.
    ///
    /// Slack takes a refresh token once, and for a short, unpublished time after that once more;
    /// so nothing here repeats the call, and a caller that lost the answer repeats it promptly.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error); with [`ErrorClass::Ambiguous`](super::ErrorClass::Ambiguous) a pair
    /// may have been issued.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the token may be spent, and the pair that it bought is lost.
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

    /// Exchanges a long-lived token for a rotating pair (`oauth.v2.exchange`, tier 3: 50 calls a
    /// minute), once per token. The old token serves until the new pair is first refreshed; it
    /// must never be revoked, since that uninstalls the app.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error); with [`ErrorClass::Ambiguous`](super::ErrorClass::Ambiguous) a pair
    /// may have been issued.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the token may be exchanged, and the pair is lost.
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
        let answer = self.call(method, basic(app), form).await?;
        answers::renewed(&answer.body, answer.slack_time().unwrap_or(sent_at))
    }

    /// Asks whose token this is (`auth.test`).
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error).
    pub async fn auth_test(&self, token: &AccessToken) -> Result<AuthTest, Error> {
        let answer = self.call("auth.test", bearer(token), &[]).await?;
        answers::auth_test(&answer.body)
    }

    /// Revokes a token (`auth.revoke`). Without token rotation this can uninstall the app; with
    /// it, it ends this one token.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error).
    pub async fn auth_revoke(&self, token: &AccessToken) -> Result<(), Error> {
        self.call("auth.revoke", bearer(token), &[]).await.map(drop)
    }

    /// Revokes a refresh token (`auth.revoke`), and only that one.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error).
    pub async fn auth_revoke_refresh_token(&self, token: &RefreshToken) -> Result<(), Error> {
        let header = sensitive(&Zeroizing::new(format!("Bearer {}", token.expose())));
        self.call("auth.revoke", header, &[]).await.map(drop)
    }

    /// Uninstalls the app where this token is from (`apps.uninstall`).
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error); `no_permission` is reported for some bot tokens.
    pub async fn apps_uninstall(
        &self,
        app: &ClientCredentials,
        token: &AccessToken,
    ) -> Result<(), Error> {
        let form = [
            ("client_id", app.client_id.as_str()),
            ("client_secret", app.client_secret.expose()),
        ];
        self.call("apps.uninstall", bearer(token), &form)
            .await
            .map(drop)
    }

    /// Asks who a user is (`users.info`, scope `users:read`).
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error).
    pub async fn users_info(&self, token: &AccessToken, user: &UserId) -> Result<UserInfo, Error> {
        let answer = self
            .call("users.info", bearer(token), &[("user", user.as_str())])
            .await?;
        answers::person(&answer.body)
    }

    async fn call(
        &self,
        method: &'static str,
        authorization: HeaderValue,
        form: &[(&str, &str)],
    ) -> Result<Answer, Error> {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(self.environment.api_url(method).as_str())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(body))
            .map_err(|_| Error::Malformed {
                what: "the environment's base URL",
            })?;
        let sent_at = self.clock.now();
        let response = self.transport.send(request).await?;
        self.warn_of_clock_skew(method, response.headers(), sent_at);
        let outcome = Answer::new(response);
        match &outcome {
            Ok(_) => tracing::debug!(method, "Slack answered"),
            Err(error) => tracing::debug!(method, %error, "Slack refused"),
        }
        outcome
    }

    /// Ends of tokens are times on Slack's clock, and are compared with ours: minutes are allowed
    /// for, and more would hand out dead tokens.
    fn warn_of_clock_skew(&self, method: &str, headers: &HeaderMap, sent_at: SystemTime) {
        let Some(slack_time) = slack_time(headers) else {
            return;
        };
        let now = self.clock.now();
        // Slack's time is in whole seconds, and was right at some moment of the call.
        let behind = slack_time.duration_since(now).unwrap_or_default();
        let ahead = sent_at.duration_since(slack_time).unwrap_or_default();
        let skew = behind.max(ahead);
        if skew > SKEW {
            let (skew_s, is_behind) = (skew.as_secs(), !behind.is_zero());
            tracing::warn!(
                method,
                skew_s,
                is_behind,
                "this machine's clock is not Slack's"
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

/// An answer that said `ok: true`.
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn new(response: http::Response<Bytes>) -> Result<Self, Error> {
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Error::RateLimited {
                retry_after: retry_after(&parts.headers),
            });
        }
        // Most of Slack's errors come with status 200; some proxies and outages with HTML.
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&body) else {
            return Err(if parts.status.is_success() {
                Error::Malformed {
                    what: "it is not a JSON object with `ok`",
                }
            } else {
                Error::Http {
                    status: parts.status.as_u16(),
                }
            });
        };
        match (envelope.ok, envelope.error) {
            (true, _) if parts.status.is_success() => Ok(Self {
                headers: parts.headers,
                body,
            }),
            (_, Some(code)) => {
                let needed = envelope.needed.unwrap_or_default();
                Err(Error::refused(&code, &needed, retry_after(&parts.headers)))
            }
            (_, None) => Err(Error::Http {
                status: parts.status.as_u16(),
            }),
        }
    }

    fn slack_time(&self) -> Option<SystemTime> {
        slack_time(&self.headers)
    }
}

/// What every answer has.
#[derive(Deserialize)]
struct Envelope {
    /// An RFC 6749 style refusal has an `error` and no `ok`.
    #[serde(default)]
    ok: bool,
    error: Option<String>,
    needed: Option<String>,
}

/// When Slack answered, on its own clock.
fn slack_time(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn basic(app: &ClientCredentials) -> HeaderValue {
    let id = form_urlencoded::byte_serialize(app.client_id.as_str().as_bytes());
    let secret = form_urlencoded::byte_serialize(app.client_secret.expose().as_bytes());
    let pair = Zeroizing::new(format!(
        "{}:{}",
        id.collect::<String>(),
        secret.collect::<String>()
    ));
    sensitive(&Zeroizing::new(format!(
        "Basic {}",
        STANDARD.encode(pair.as_bytes())
    )))
}

fn bearer(token: &AccessToken) -> HeaderValue {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose())))
}

/// A header that no log of an HTTP library shows.
fn sensitive(value: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(value).expect("secrets are visible ASCII");
    value.set_sensitive(true);
    value
}

/// More than this, and an operator should hear of it. Clocks that are kept by NTP agree within one.
const SKEW: Duration = Duration::from_secs(30);
