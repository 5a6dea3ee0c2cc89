//! Fuzz targets: requests to the app.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use ring::hmac;

use super::form::Form;
use super::{Kind, SocketModeConnection, VerifiedRequest, Verifier, VerifyError, is_ssl_check};
use crate::clock::{Clock, from_epoch};
use crate::secret::SigningSecret;
use crate::tenant::AppId;

const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const NOW: u64 = 1_790_000_000;

fn verifier() -> Verifier {
    let secret = SigningSecret::new(SECRET).expect("a secret");
    Verifier::new(&secret).with_clock(Clock::from_fn(|| from_epoch(NOW)))
}

fn sign(headers: &mut HeaderMap, body: &[u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [format!("v0:{NOW}:").as_bytes(), body].concat();
    let digits = hmac::sign(&key, &signed);
    let digits = digits.as_ref().iter().map(|byte| format!("{byte:02x}"));
    let signature = format!("v0={}", digits.collect::<String>());
    let value = |text: &str| HeaderValue::from_str(text).expect("ASCII");
    headers.insert("x-slack-signature", value(&signature));
    headers.insert("x-slack-request-timestamp", value(&NOW.to_string()));
}

/// The first byte says whether the request is signed. Lines of headers follow, then an empty line,
/// then the body.
pub(crate) fn verify(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let at = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match at {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (&b""[..], rest),
    };
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|it| HeaderName::from_bytes(it).ok());
        let value = parts.next().and_then(|it| HeaderValue::from_bytes(it).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let is_signed = *first == b's';
    if is_signed {
        sign(&mut headers, body);
    }
    let verifier = verifier();
    let early = verifier.check_headers(&headers);
    let outcome = verifier.verify(&headers, Bytes::copy_from_slice(body));
    assert!(is_signed || outcome.is_err(), "an unsigned request passes");
    if early.is_err() && early != Err(VerifyError::TooLarge) {
        assert!(
            outcome.is_err(),
            "the headers are refused, and the request is not"
        );
    }
    let is_probe = is_ssl_check(&headers, body);
    if let Ok(request) = outcome {
        assert_eq!(is_probe, matches!(request.kind(), Kind::SslCheck));
        read(&request);
    }
}

/// The first byte selects JSON, a form with a payload, a form, or a frame of Socket Mode.
pub(crate) fn payload(input: &[u8]) {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let app = AppId::new("A0FAKEAPP01").expect("an id");
    let (content_type, body) = match first {
        b'j' => ("application/json", Cow::Borrowed(body)),
        b'p' => {
            let json: String = url::form_urlencoded::byte_serialize(body).collect();
            (FORM, Cow::Owned(format!("payload={json}").into_bytes()))
        }
        b's' => {
            let connection = SocketModeConnection::opened_with_app_token(app);
            if let Ok(Some(request)) = connection.receive(Bytes::copy_from_slice(body)) {
                read(&request);
            }
            return;
        }
        _ => (FORM, Cow::Borrowed(body)),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    sign(&mut headers, &body);
    let verify = |verifier: Verifier| verifier.verify(&headers, body.to_vec().into());
    if let Ok(request) = verify(verifier()) {
        read(&request);
        let is_ours = request.app_id().is_none_or(|id| *id == app);
        let again = verify(verifier().with_app_id(app));
        assert_eq!(again.is_ok(), is_ours, "the app's id decides");
        let tenants = again.ok().map(|it| it.tenant().cloned());
        assert!(tenants.is_none_or(|it| it.as_ref() == request.tenant()));
    }
}

/// Reads everything of a request. Each id of the tenant is in the body as it is, unless something
/// in the body is encoded.
fn read(request: &VerifiedRequest) {
    let json = request.payload::<serde_json::Value>();
    drop((json, format!("{request:?}")));
    let _ = (request.actor(), request.authorizing_user(), request.user());
    let _ = (
        request.event_id(),
        request.event_time(),
        request.event_type(),
    );
    let _ = (
        request.envelope_id(),
        request.retry_num(),
        request.trigger_id(),
    );
    let body = request.body();
    let Some(tenant) = request.tenant() else {
        return;
    };
    if !body.iter().any(|byte| b"\\%+".contains(byte)) {
        let ids = [
            tenant.team().map(|id| id.as_str()),
            tenant.enterprise().map(|id| id.as_str()),
        ];
        for id in ids.into_iter().flatten() {
            let mut places = body.windows(id.len());
            assert!(
                places.any(|place| place == id.as_bytes()),
                "{id} is invented"
            );
        }
    }
}

/// A form that is accepted has one meaning: another decoder reads the same.
pub(crate) fn form(input: &[u8]) {
    let Ok(form) = Form::parse(input) else {
        return;
    };
    let is_probe = form.is_ssl_check();
    let ours = form.into_fields();
    let theirs: Vec<_> = url::form_urlencoded::parse(input).collect();
    assert_eq!(ours, theirs);
    for (at, (name, _)) in ours.iter().enumerate() {
        assert!(ours[..at].iter().all(|(other, _)| other != name), "{name}");
    }
    assert!(!is_probe || ours.len() <= 2);
}

const FORM: &str = "application/x-www-form-urlencoded";
