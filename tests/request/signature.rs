use http::StatusCode;
use http::header::HeaderName;
use slack_installs::request::{DEFAULT_BODY_LIMIT, is_ssl_check};

use super::*;

const BODY: &str = "slash_command__workspace.form";

#[test]
fn a_request_of_the_last_five_minutes_is_taken_and_an_older_or_later_one_is_not() {
    for (signed_at, expected) in [
        (NOW, None),
        (NOW - 300, None),
        (NOW + 300, None),
        (NOW - 301, Some(VerifyError::Stale)),
        (NOW + 301, Some(VerifyError::Stale)),
        (0, Some(VerifyError::Stale)),
        (999_999_999_999, Some(VerifyError::Stale)),
    ] {
        let (body, timestamp) = (fixture(BODY), signed_at.to_string());
        let headers = headers(FORM, &timestamp, &sign(SECRET, &timestamp, &body));
        assert_eq!(
            verifier().verify(&headers, body).err(),
            expected,
            "{signed_at}"
        );
    }
}

#[test]
fn any_changed_bit_of_body_signature_or_time_is_refused() {
    let body = fixture(BODY);
    let headers = signed(FORM, &body);
    for at in 0..body.len() * 8 {
        let mut changed = body.to_vec();
        changed[at / 8] ^= 1 << (at % 8);
        let outcome = verifier().verify(&headers, changed.into());
        assert_eq!(outcome.err(), Some(VerifyError::Forged), "bit {at}");
    }
    for name in ["x-slack-signature", "x-slack-request-timestamp"] {
        let value = headers[name].as_bytes();
        for at in 0..value.len() * 8 {
            let mut changed = value.to_vec();
            changed[at / 8] ^= 1 << (at % 8);
            let mut headers = headers.clone();
            let Ok(changed) = HeaderValue::from_bytes(&changed) else {
                continue;
            };
            headers.insert(HeaderName::from_static(name), changed);
            assert!(
                verifier().verify(&headers, body.clone()).is_err(),
                "{name} bit {at}"
            );
        }
    }
}

#[test]
fn a_truncated_extended_or_reencoded_body_is_refused() {
    let body = fixture(BODY);
    let headers = signed(FORM, &body);
    let pairs: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
    let reordered = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.iter().rev())
        .finish();
    for changed in [
        body.slice(..body.len() - 1),
        body.slice(1..),
        Bytes::new(),
        [&*body, b"\n"].concat().into(),
        [&*body, b"&ssl_check=1"].concat().into(),
        reordered.into(),
        str::from_utf8(&body)
            .expect("ASCII")
            .replace("%2F", "%2f")
            .into(),
    ] {
        let outcome = verifier().verify(&headers, changed);
        assert_eq!(outcome.err(), Some(VerifyError::Forged));
    }
}

#[test]
fn a_missing_signature_or_time_is_refused() {
    for name in ["x-slack-signature", "x-slack-request-timestamp"] {
        let body = fixture(BODY);
        let mut headers = signed(FORM, &body);
        headers.remove(name);
        assert_eq!(
            verifier().verify(&headers, body).err(),
            Some(VerifyError::NotSigned),
            "{name}"
        );
    }
}

#[test]
fn a_repeated_signature_or_time_is_refused_even_if_both_are_good() {
    for name in ["x-slack-signature", "x-slack-request-timestamp"] {
        let body = fixture(BODY);
        let mut headers = signed(FORM, &body);
        headers.append(name, headers[name].clone());
        let outcome = verifier().verify(&headers, body);
        assert_eq!(outcome.err(), Some(VerifyError::MalformedHeader), "{name}");
    }
}

#[test]
fn a_time_that_is_not_plain_digits_is_refused_even_if_signed() {
    for timestamp in [
        "",
        "+1790000000",
        "-1790000000",
        " 1790000000",
        "1790000000 ",
        "1790000000.0",
        "0x6AB13B80",
        "1.79e9",
        "1790000000000",
        "99999999999999999999999",
        "١٧٩٠٠٠٠٠٠٠",
    ] {
        let body = fixture(BODY);
        let headers = headers(FORM, timestamp, &sign(SECRET, timestamp, &body));
        let outcome = verifier().verify(&headers, body);
        assert_eq!(
            outcome.err(),
            Some(VerifyError::MalformedHeader),
            "{timestamp:?}"
        );
    }
}

#[test]
fn a_signature_of_another_form_is_refused() {
    let body = fixture(BODY);
    let timestamp = NOW.to_string();
    let good = sign(SECRET, &timestamp, &body);
    for signature in [
        good[3..].to_owned(),
        good.replace("v0=", "v1="),
        good.replace("v0=", "V0="),
        good.replace("v0=", "v0=v0="),
        good.replace("v0=", "v0= "),
        good.to_uppercase().replace("V0=", "v0="),
        good[..good.len() - 1].to_owned(),
        format!("{good}0"),
        format!("{good},{good}"),
        "v0=".to_owned(),
        String::new(),
    ] {
        let outcome = verifier().verify(&headers(FORM, &timestamp, &signature), body.clone());
        assert_eq!(
            outcome.err(),
            Some(VerifyError::MalformedHeader),
            "{signature}"
        );
    }
}

#[test]
fn header_names_are_taken_in_any_case() {
    let body = fixture(BODY);
    let mut headers = HeaderMap::new();
    for (name, value) in &signed(FORM, &body) {
        let name = name.as_str().to_uppercase();
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.insert(name, value.clone());
    }
    assert!(verifier().verify(&headers, body).is_ok());
}

#[test]
fn while_the_signing_secret_is_replaced_both_are_taken() {
    let body = fixture(BODY);
    let timestamp = NOW.to_string();
    let rotating = verifier()
        .with_secret(&secret("new-secret"))
        .with_secret(&secret("newest"));
    for (signing, taken) in [
        (SECRET, true),
        ("new-secret", true),
        ("newest", true),
        ("no", false),
    ] {
        let headers = headers(FORM, &timestamp, &sign(signing, &timestamp, &body));
        let outcome = rotating.verify(&headers, body.clone());
        assert_eq!(
            outcome.err(),
            (!taken).then_some(VerifyError::Forged),
            "{signing}"
        );
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_its_signature_is_looked_at() {
    let body = fixture(BODY);
    let limited = verifier().with_body_limit(body.len());
    assert!(limited.verify(&signed(FORM, &body), body.clone()).is_ok());
    let limited = verifier().with_body_limit(body.len() - 1);
    let outcome = limited.verify(&HeaderMap::new(), body);
    assert_eq!(outcome.err(), Some(VerifyError::TooLarge));
    let large = vec![b'a'; DEFAULT_BODY_LIMIT + 1];
    assert_eq!(verify(FORM, &large).err(), Some(VerifyError::TooLarge));
    assert_eq!(
        connection().receive(large.into()).err(),
        Some(VerifyError::TooLarge)
    );
}

#[test]
fn nothing_is_parsed_before_the_signature_is_found_good() {
    for body in ["", "{", "{}{}", "%zz", "team_id=T1&team_id=T2", "\u{0}"] {
        let timestamp = NOW.to_string();
        for content_type in [FORM, JSON, "text/plain"] {
            let headers = headers(
                content_type,
                &timestamp,
                &sign("other", &timestamp, body.as_bytes()),
            );
            let outcome = verifier().verify(&headers, Bytes::from(body));
            assert_eq!(outcome.err(), Some(VerifyError::Forged), "{body:?}");
        }
    }
}

#[test]
fn an_unsigned_command_with_ssl_check_appended_is_refused_and_is_no_probe() {
    let body = fixture("ssl_check__abuse.form");
    let mut headers = signed(FORM, &body);
    assert!(!is_ssl_check(&headers, &body));
    headers.remove("x-slack-signature");
    assert!(!is_ssl_check(&headers, &body));
    assert_eq!(
        verifier().verify(&headers, body).err(),
        Some(VerifyError::NotSigned)
    );
}

#[test]
fn a_probe_is_known_as_one_whether_signed_or_not() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(FORM));
    assert!(is_ssl_check(&headers, &fixture("ssl_check.form")));
    for other in [
        "ssl_check=0",
        "ssl_check=1&command=%2Fx",
        "ssl_check=1&payload=%7B%7D",
        "token=1",
        "",
    ] {
        assert!(!is_ssl_check(&headers, other.as_bytes()), "{other}");
    }
    assert!(!is_ssl_check(&HeaderMap::new(), &fixture("ssl_check.form")));
    let large = format!("ssl_check=1&token={}", "a".repeat(1024));
    assert!(!is_ssl_check(&headers, large.as_bytes()));
}

#[test]
fn a_request_for_another_app_is_refused_and_one_that_names_none_is_taken() {
    let app = |id: &str| AppId::new(id).expect("an id");
    let ours = verifier().with_app_id(app("A0FAKEAPP01"));
    let others = verifier().with_app_id(app("A0FAKEAPP0"));
    for (file, named) in [
        ("event__app_mention.json", true),
        ("event__app_rate_limited.json", true),
        ("slash_command__workspace.form", true),
        ("interactive__view_submission.form", true),
        ("interactive__global_shortcut.form", false),
        ("event__url_verification.json", false),
        ("ssl_check.form", false),
    ] {
        let body = fixture(file);
        let headers = signed(content_type(file), &body);
        assert!(ours.verify(&headers, body.clone()).is_ok(), "{file}");
        let outcome = others.verify(&headers, body);
        assert_eq!(
            outcome.err(),
            named.then_some(VerifyError::OtherApp),
            "{file}"
        );
    }
    let stranger = SocketModeConnection::opened_with_app_token(app("A0FAKEAPP0"));
    let outcome = stranger.receive(fixture("socket__events_api.json"));
    assert_eq!(outcome.err(), Some(VerifyError::OtherApp));
}

#[test]
fn each_refusal_has_a_status_to_answer() {
    let malformed = verify(JSON, "[").expect_err("not an object");
    for (error, status) in [
        (VerifyError::Forged, StatusCode::UNAUTHORIZED),
        (VerifyError::NotSigned, StatusCode::UNAUTHORIZED),
        (VerifyError::Stale, StatusCode::UNAUTHORIZED),
        (VerifyError::MalformedHeader, StatusCode::BAD_REQUEST),
        (malformed, StatusCode::BAD_REQUEST),
        (VerifyError::OtherApp, StatusCode::FORBIDDEN),
        (VerifyError::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
        (
            VerifyError::UnsupportedMediaType,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn no_secret_stands_in_debug() {
    let shown = format!("{:?}", verifier().with_secret(&secret("canary")));
    assert!(
        !shown.contains("canary") && !shown.contains(SECRET),
        "{shown}"
    );
}
