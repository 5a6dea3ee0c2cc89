//! Verifies Slack's signature, version 0.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};
use ring::hmac;

use super::VerifiedRequest;
use super::error::VerifyError;
use super::form::Form;
use super::read::{self, MediaType};
use crate::clock::{Clock, to_epoch};
use crate::secret::SigningSecret;
use crate::tenant::AppId;

/// Verifies that a request is from Slack, and reads its tenant.
///
/// Slack signs the body and a timestamp with the app's signing secret
/// (<https://docs.slack.dev/authentication/verifying-requests-from-slack>). One secret serves all
/// workspaces. So only the signed body names the tenant; headers and URLs have no influence.
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
    /// Creates a verifier that accepts requests signed with this secret.
    #[must_use]
    pub fn new(secret: &SigningSecret) -> Self {
        Self {
            app_id: None,
            body_limit: DEFAULT_BODY_LIMIT,
            clock: Clock::default(),
            keys: vec![key(secret)],
        }
    }

    /// Refuses requests that name another app. Requests that name no app are accepted, because
    /// Slack omits the app's id in some.
    #[must_use]
    pub fn with_app_id(mut self, app_id: AppId) -> Self {
        self.app_id = Some(app_id);
        self
    }

    /// Refuses bodies larger than this, in bytes. The default is [`DEFAULT_BODY_LIMIT`]. axum's
    /// extractors behind the tower layer then have the same limit.
    #[must_use]
    pub fn with_body_limit(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Also accepts requests signed with this secret. Set the old secret and the new one while you
    /// replace the signing secret: Slack documents no grace period.
    #[must_use]
    pub fn with_secret(mut self, another: &SigningSecret) -> Self {
        self.keys.push(key(another));
        self
    }

    /// Returns the largest accepted body, in bytes. A server should stop reading at this size.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        self.body_limit
    }

    /// Checks what the headers alone show: whether the signature and the time are present and have
    /// Slack's format, the time is current, the `Content-Length` is within the limit, and the
    /// content type is known. Call this before you read the body, so that a stranger cannot make
    /// you read it. [`verify`](Self::verify) checks the same again.
    ///
    /// # Errors
    ///
    /// [`VerifyError`], which has the status for the response. If [`is_ssl_check`] is `true` for
    /// the body, the request is Slack's probe all the same.
    pub fn check_headers(&self, headers: &HeaderMap) -> Result<(), VerifyError> {
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        if lengths.any(|length| announces_more(length, self.body_limit)) {
            return Err(VerifyError::TooLarge);
        }
        self.signature(headers)?;
        MediaType::of(headers).map(drop)
    }

    /// Checks a request's size, time and signature, then reads its body. Pass the body exactly as
    /// received.
    ///
    /// A request can be replayed within 5 minutes of its time. To act only once, store
    /// [`VerifiedRequest::event_id`] or [`VerifiedRequest::trigger_id`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`], which has the status for the response. The body is parsed only after its
    /// signature was verified.
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

    /// Returns the time, which is current, and the signature.
    fn signature<'a>(&self, headers: &'a HeaderMap) -> Result<(&'a [u8], [u8; 32]), VerifyError> {
        let timestamp = only(headers, TIMESTAMP)?.as_bytes();
        let signature = signature(only(headers, SIGNATURE)?.as_bytes())?;
        let signed_at = seconds(timestamp)?;
        if signed_at.abs_diff(to_epoch(self.clock.now())) > WINDOW.as_secs() {
            return Err(VerifyError::Stale);
        }
        Ok((timestamp, signature))
    }

    fn authenticate(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), VerifyError> {
        if body.len() > self.body_limit {
            return Err(VerifyError::TooLarge);
        }
        let (timestamp, signature) = self.signature(headers)?;
        // One buffer, because only the one-shot function compares in constant time.
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

/// Returns whether this is Slack's certificate probe and nothing else, signed or not.
///
/// Slack sends the probe (`ssl_check=1` and the deprecated `token`) to command URLs, and does not
/// document whether it is signed. Your app may respond with 200 and an empty body, and must do
/// nothing else. A command with `ssl_check=1` appended is not a probe.
#[must_use]
pub fn is_ssl_check(headers: &HeaderMap, body: &[u8]) -> bool {
    body.len() <= MAX_PROBE
        && matches!(MediaType::of(headers), Ok(MediaType::Form))
        && Form::parse(body).is_ok_and(|form| form.is_ssl_check())
}

/// If a request with these headers, and a body of at most this many bytes, may be Slack's
/// certificate probe, returns how much of the body to read.
#[cfg(feature = "tower")]
pub(crate) fn may_be_ssl_check(headers: &HeaderMap, at_most: Option<u64>) -> Option<usize> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_small = match lengths.next() {
        Some(length) => !announces_more(length, MAX_PROBE),
        None => at_most.is_some_and(|most| most <= MAX_PROBE as u64),
    };
    (is_small && matches!(MediaType::of(headers), Ok(MediaType::Form))).then_some(MAX_PROBE)
}

/// Returns whether a `Content-Length` is a number over this limit. A malformed one is the server's
/// to refuse.
fn announces_more(length: &HeaderValue, limit: usize) -> bool {
    let digits = length.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = length.to_str().ok().and_then(|text| text.parse().ok());
    is_number && number.is_none_or(|number: usize| number > limit)
}

/// How far a request's time may be from the current time, in both directions. Slack recommends this
/// value.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// The default size of the largest accepted body: 1 MiB.
///
/// Slack documents no limit. Its payloads are a few kilobytes. A modal's state can have 100 blocks
/// of 3,000 characters, and percent-encoding turns one byte into three.
pub const DEFAULT_BODY_LIMIT: usize = 1024 * 1024;

const MAX_PROBE: usize = 1024;

const RETRY_NUM: &str = "x-slack-retry-num";
const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

/// Twelve digits are enough for 30,000 years.
const MAX_TIMESTAMP_LEN: usize = 12;

fn key(secret: &SigningSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

/// Returns the single value of this header. With two values, a proxy may have checked the other
/// one.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a HeaderValue, VerifyError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(VerifyError::NotSigned),
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(VerifyError::MalformedHeader),
    }
}

/// Returns the retry number that Slack sends. The header is not signed.
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

/// Returns the signature's bytes. The header is `v0=` and 64 lower-case hexadecimal digits.
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
