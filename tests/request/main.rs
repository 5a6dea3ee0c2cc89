//! To which tenant a request belongs: signatures, kinds and tenants.

mod fixtures;
mod parsing;
mod properties;
mod signature;
mod tenants;
mod world;

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ring::hmac;
use slack_installs::request::{SocketModeConnection, VerifiedRequest, Verifier, VerifyError};
use slack_installs::secret::SigningSecret;
use slack_installs::{AppId, Clock, Tenant};

const SECRET: &str = "fixture-signing-secret-not-real";
const NOW: u64 = 1_790_000_000;
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn secret(text: &str) -> SigningSecret {
    SigningSecret::new(text).expect("a secret")
}

fn clock_at(seconds: u64) -> Clock {
    Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(seconds))
}

fn verifier() -> Verifier {
    Verifier::new(&secret(SECRET)).with_clock(clock_at(NOW))
}

fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &[b"v0:", timestamp.as_bytes(), b":", body].concat());
    let digits: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("v0={digits}")
}

fn headers(content_type: &str, timestamp: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", content_type),
        ("x-slack-request-timestamp", timestamp),
        ("x-slack-signature", signature),
    ] {
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
    }
    headers
}

fn signed(content_type: &str, body: &[u8]) -> HeaderMap {
    let timestamp = NOW.to_string();
    headers(content_type, &timestamp, &sign(SECRET, &timestamp, body))
}

/// Signs this body and verifies it.
fn verify(content_type: &str, body: impl AsRef<[u8]>) -> Result<VerifiedRequest, VerifyError> {
    let body = Bytes::copy_from_slice(body.as_ref());
    verifier().verify(&signed(content_type, &body), body)
}

fn verify_event(event: &serde_json::Value) -> Result<VerifiedRequest, VerifyError> {
    verify(JSON, event.to_string())
}

fn verify_interactive(payload: &serde_json::Value) -> Result<VerifiedRequest, VerifyError> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    verify(
        FORM,
        form.append_pair("payload", &payload.to_string()).finish(),
    )
}

fn connection() -> SocketModeConnection {
    SocketModeConnection::opened_with_app_token(AppId::new("A0FAKEAPP01").expect("an id"))
}

fn fixture(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/slack")
        .join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .into()
}

fn content_type(file: &str) -> &'static str {
    if file.ends_with(".form") { FORM } else { JSON }
}

/// Returns a tenant as a short text: `T1`, `E1+T1`, `org E1`, `org E1+T1`, or `-`.
fn word(tenant: Option<&Tenant>) -> String {
    let Some(tenant) = tenant else {
        return "-".to_owned();
    };
    let ids: Vec<&str> = tenant
        .enterprise()
        .map(|id| id.as_str())
        .into_iter()
        .chain(tenant.team().map(|id| id.as_str()))
        .collect();
    if tenant.is_enterprise_install() {
        format!("org {}", ids.join("+"))
    } else {
        ids.join("+")
    }
}

/// Returns the tenant of a request that must be accepted, as a short text.
fn tenant_of(request: Result<VerifiedRequest, VerifyError>) -> String {
    word(request.expect("an accepted request").tenant())
}
