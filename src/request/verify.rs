//! Slack's signature, version 0.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ring::hmac;

use super::VerifiedRequest;
use super::error::VerifyError;
use super::form::Form;
use super::read::{self, MediaType};
use crate::clock::{Clock, to_epoch};
use crate::secret::SigningSecret;
use crate::tenant::AppId;

/// Checks that a request is Slack's, and reads whose it is.
///
/// Slack signs the body and a timestamp with the app's signing secret
/// (<https://docs.slack.dev/authentication/verifying-requests-from-slack>). One secret serves all
/// workspaces, so the tenant is what the signed body says and nothing else: no header and no URL
/// takes part.
///
/// ```
/// use bytes::Bytes;
/// use http::HeaderMap;
/// use slack_installs::request::{Verifier, VerifyError};
/// use slack_installs::secret::SigningSecret;
///
/// let verifier = Verifier::new(&SigningSecret::new("8f742231b10e8888abcd99yyyzzz85a5")?);
/// let unsigned = verifier.verify(&HeaderMap::new(), Bytes::from_static(b"team_id=T0ALPHA0001"));
/// assert_eq!(unsigned.err(), Some(VerifyError::NotSigned));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Verifier {
    app_id: Option<AppId>,
    body_limit: usize,
    clock: Clock,
    keys: Vec<hmac::Key>,
}

impl Verifier {
    /// Takes requests that are signed with this secret.
    #[must_use]
    pub fn new(secret: &SigningSecret) -> Self {
        Self {
            app_id: None,
            body_limit: DEFAULT_BODY_LIMIT,
            clock: Clock::default(),
            keys: vec![key(secret)],
        }
    }

    /// Refuses requests that name another app. Those that name none are taken: Slack leaves the
    /// app's id out of some.
    #[must_use]
    pub fn with_app_id(self, app_id: AppId) -> Self {
        Self {
            app_id: Some(app_id),
            ..self
        }
    }

    /// Refuses bodies of more than this many bytes, instead of [`DEFAULT_BODY_LIMIT`]. axum's
    /// extractors behind the tower layer then have the same limit.
    #[must_use]
    pub fn with_body_limit(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Also takes requests that are signed with this secret: the old one and the new one, while
    /// the signing secret is being replaced. Slack documents no grace period for it.
    #[must_use]
    pub fn with_secret(mut self, another: &SigningSecret) -> Self {
        self.keys.push(key(another));
        self
    }

    /// The largest body that is taken, in bytes. A server should stop reading there.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        self.body_limit
    }

    /// Checks a request's size, time and signature, and then reads its body, exactly as it was
    /// received.
    ///
    /// A request can be replayed within 5 minutes of its time; to act once, remember
    /// [`VerifiedRequest::event_id`] or [`VerifiedRequest::trigger_id`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`], with the status to answer. Nothing of a body is parsed before its
    /// signature was found good.
    pub fn verify(&self, headers: &HeaderMap, body: Bytes) -> Result<VerifiedRequest, VerifyError> {
        self.authenticate(headers, &body)?;
        let contents = read::http(MediaType::of(headers)?, &body)?;
        match (&self.app_id, &contents.app_id) {
            (Some(ours), Some(named)) if ours != named => Err(VerifyError::OtherApp),
            _ => Ok(VerifiedRequest {
                body,
                contents,
                envelope_id: None,
                retry_num: retry_num(headers),
            }),
        }
    }

    fn authenticate(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), VerifyError> {
        if body.len() > self.body_limit {
            return Err(VerifyError::TooLarge);
        }
        let timestamp = only(headers, TIMESTAMP)?.as_bytes();
        let signature = signature(only(headers, SIGNATURE)?.as_bytes())?;
        let signed_at = seconds(timestamp)?;
        if signed_at.abs_diff(to_epoch(self.clock.now())) > WINDOW.as_secs() {
            return Err(VerifyError::Stale);
        }
        // One buffer, since the comparison in constant time comes with the one-shot function.
        let mut signed = Vec::with_capacity(b"v0::".len() + timestamp.len() + body.len());
        for part in [b"v0:", timestamp, b":", body] {
            signed.extend_from_slice(part);
        }
        if self
            .keys
            .iter()
            .any(|key| hmac::verify(key, &signed, &signature).is_ok())
        {
            Ok(())
        } else {
            Err(VerifyError::Forged)
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("app_id", &self.app_id)
            .field("body_limit", &self.body_limit)
            .field("secrets", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// Whether this is Slack's certificate probe and nothing else, signed or not.
///
/// Slack does not say whether it signs the probe (`ssl_check=1` and the deprecated `token`) that
/// it sends to command URLs. A host may answer it with 200 and an empty body, and must do nothing
/// else. A command with `ssl_check=1` appended is no probe.
#[must_use]
pub fn is_ssl_check(headers: &HeaderMap, body: &[u8]) -> bool {
    body.len() <= MAX_PROBE
        && matches!(MediaType::of(headers), Ok(MediaType::Form))
        && Form::parse(body).is_ok_and(|form| form.is_ssl_check())
}

/// How far a request's time may be from now, either way. Slack's own advice.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// The largest body that is taken unless set otherwise, in bytes: 1 MiB.
///
/// Slack documents no size. Its payloads are a few kilobytes; a modal's state can have 100 blocks
/// of 3,000 characters, and percent-encoding makes three bytes of one.
pub const DEFAULT_BODY_LIMIT: usize = 1024 * 1024;

const MAX_PROBE: usize = 1024;

const RETRY_NUM: &str = "x-slack-retry-num";
const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

/// Twelve digits last for 30,000 years.
const MAX_TIMESTAMP_LEN: usize = 12;

fn key(secret: &SigningSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

/// The one value of this header. Of two values, a proxy may have checked the other.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a HeaderValue, VerifyError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(VerifyError::NotSigned),
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(VerifyError::MalformedHeader),
    }
}

/// The number that Slack says this delivery has. The header is not signed.
fn retry_num(headers: &HeaderMap) -> Option<u32> {
    only(headers, RETRY_NUM).ok()?.to_str().ok()?.parse().ok()
}

fn seconds(timestamp: &[u8]) -> Result<u64, VerifyError> {
    if (1..=MAX_TIMESTAMP_LEN).contains(&timestamp.len())
        && timestamp.iter().all(u8::is_ascii_digit)
    {
        Ok(timestamp
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    } else {
        Err(VerifyError::MalformedHeader)
    }
}

/// The signature's bytes: `v0=` and 64 lower-case hexadecimal digits.
fn signature(header: &[u8]) -> Result<[u8; 32], VerifyError> {
    let digits = header
        .strip_prefix(b"v0=")
        .ok_or(VerifyError::MalformedHeader)?;
    let mut signature = [0; 32];
    if digits.len() != 2 * signature.len() {
        return Err(VerifyError::MalformedHeader);
    }
    for (byte, pair) in signature.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(signature)
}

fn nibble(digit: u8) -> Result<u8, VerifyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(VerifyError::MalformedHeader),
    }
}
