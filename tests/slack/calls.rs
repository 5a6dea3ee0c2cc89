//! The requests that are sent, and the meaning of a response's envelope.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use serde_json::json;
use slack_installs::secret::{AccessToken, ClientSecret, Code, RefreshToken};
use slack_installs::slack::{ClientCredentials, Error, ErrorClass};
use slack_installs::{ClientId, Clock, Scopes, UserId};

use super::answers::{exchanged, renewed};
use super::canned::Canned;
use super::{credentials, token};

/// Returns a request's method, path, form and authorization.
fn parts(request: &Request<Bytes>) -> (Method, String, String, String) {
    let header = |name| request.headers()[name].to_str().expect("visible ASCII");
    assert_eq!(header(&CONTENT_TYPE), "application/x-www-form-urlencoded");
    assert!(
        request.headers()[AUTHORIZATION].is_sensitive(),
        "HTTP libraries do not log it"
    );
    let body = String::from_utf8(request.body().to_vec()).expect("text");
    let authorization = header(&AUTHORIZATION).to_owned();
    let path = request.uri().to_string();
    (request.method().clone(), path, body, authorization)
}

#[tokio::test]
async fn each_method_is_called_with_its_own_form_and_credential() {
    const BASIC: &str = "Basic MTAwMDAwMDAwMDAxLjIwMDAwMDAwMDAwMjpDQU5BUlktc2VjcmV0";
    const BEARER: &str = "Bearer xoxb-CANARY-token";
    let sent = |canned: &Canned, method: &str, form: &str, authorization: &str| {
        let path = format!("https://slack.com/api/{method}");
        let expected = (Method::POST, path, form.into(), authorization.into());
        assert_eq!(parts(&canned.asked()), expected);
    };
    let app = credentials();

    let canned = Canned::json(&exchanged());
    let code = Code::new("the-code").expect("a code");
    let slack = canned.client();
    let issued = slack
        .oauth_v2_access(&app, &code, "https://a.example/cb")
        .await;
    issued.expect("issued");
    let form = "grant_type=authorization_code&code=the-code\
        &redirect_uri=https%3A%2F%2Fa.example%2Fcb";
    sent(&canned, "oauth.v2.access", form, BASIC);

    let canned = Canned::json(&renewed());
    let refresh = RefreshToken::new("xoxe-1-old").expect("a token");
    canned
        .client()
        .refresh(&app, &refresh)
        .await
        .expect("renewed");
    let form = "grant_type=refresh_token&refresh_token=xoxe-1-old";
    sent(&canned, "oauth.v2.access", form, BASIC);

    let canned = Canned::json(&renewed());
    let pair = canned.client().oauth_v2_exchange(&app, &token()).await;
    pair.expect("exchanged");
    sent(
        &canned,
        "oauth.v2.exchange",
        "token=xoxb-CANARY-token",
        BASIC,
    );

    let ok = json!({"ok": true});
    let canned = Canned::json(&ok);
    canned.client().auth_test(&token()).await.expect("known");
    sent(&canned, "auth.test", "", BEARER);

    let canned = Canned::json(&ok);
    canned
        .client()
        .auth_revoke(&token())
        .await
        .expect("revoked");
    sent(&canned, "auth.revoke", "", BEARER);

    let canned = Canned::json(&ok);
    let revoked = canned.client().auth_revoke_refresh_token(&refresh).await;
    revoked.expect("revoked");
    sent(&canned, "auth.revoke", "", "Bearer xoxe-1-old");

    let canned = Canned::json(&ok);
    let gone = canned.client().apps_uninstall(&app, &token()).await;
    gone.expect("uninstalled");
    let form = "client_id=100000000001.200000000002&client_secret=CANARY-secret";
    sent(&canned, "apps.uninstall", form, BEARER);

    let canned = Canned::json(&json!({"ok": true, "user": {"id": "U1"}}));
    let ben = UserId::new("U0MEMBER002").expect("an id");
    let person = canned.client().users_info(&token(), &ben).await;
    person.expect("known");
    sent(&canned, "users.info", "user=U0MEMBER002", BEARER);
}

#[tokio::test]
async fn basic_credentials_are_form_encoded_before_they_are_joined() {
    // RFC 6749, 2.3.1 requires the encoding. Otherwise a colon in a secret would move the
    // separator.
    let app = ClientCredentials {
        client_id: ClientId::new("1.2").expect("an id"),
        client_secret: ClientSecret::new("a:b+c%").expect("a secret"),
    };
    let canned = Canned::json(&renewed());
    let refresh = RefreshToken::new("xoxe-1-old").expect("a token");
    canned
        .client()
        .refresh(&app, &refresh)
        .await
        .expect("renewed");
    // Base64 of "1.2:a%3Ab%2Bc%25".
    assert_eq!(parts(&canned.asked()).3, "Basic MS4yOmElM0FiJTJCYyUyNQ==");
}

#[tokio::test]
async fn the_envelope_decides_whether_a_call_did_it() {
    // Each case: status, body, and the result: the error code, or the kind of error.
    let cases = [
        (200, r#"{"ok":true}"#, "ok"),
        (201, r#"{"ok":true}"#, "ok"),
        // `ok: true` with an error status is not a success.
        (500, r#"{"ok":true}"#, "HTTP 500"),
        (302, r#"{"ok":true}"#, "HTTP 302"),
        (200, r#"{"ok":false}"#, "HTTP 200"),
        (200, "{}", "HTTP 200"),
        (
            200,
            r#"{"ok":false,"error":"invalid_auth"}"#,
            "invalid_auth",
        ),
        // An error code counts whatever the status is.
        (
            400,
            r#"{"ok":false,"error":"invalid_auth"}"#,
            "invalid_auth",
        ),
        (503, r#"{"ok":false,"error":"fatal_error"}"#, "fatal_error"),
        // An error in the form of RFC 6749 has no `ok`.
        (400, r#"{"error":"invalid_grant"}"#, "invalid_grant"),
        (200, r#"{"error":"invalid_grant"}"#, "invalid_grant"),
        (
            200,
            r#"{"ok":false,"error":"NOT a code"}"#,
            "unprintable_error",
        ),
        (200, r#"{"ok":false,"error":"ratelimited"}"#, "limited"),
        (429, r#"{"ok":false,"error":"invalid_auth"}"#, "limited"),
        (429, "", "limited"),
        (429, "<html>", "limited"),
        (503, "<html>", "HTTP 503"),
        (500, "", "HTTP 500"),
        (302, "", "HTTP 302"),
        (404, "[]", "HTTP 404"),
        (200, "<html>", "malformed"),
        (200, "", "malformed"),
        (200, r#"{"ok":true"#, "malformed"),
        (200, r#"{"ok":"true"}"#, "malformed"),
        (200, r#"[true]"#, "malformed"),
        (200, r#"{"ok":false,"error":7}"#, "malformed"),
    ];
    for (status, body, expected) in cases {
        let canned = Canned::of(status, &[], body);
        let counts_as = match canned.client().auth_revoke(&token()).await {
            Ok(()) => "ok".to_owned(),
            Err(Error::Api { code, .. }) => code.as_str().to_owned(),
            Err(Error::Http { status }) => format!("HTTP {status}"),
            Err(Error::Malformed { .. }) => "malformed".to_owned(),
            Err(Error::RateLimited { .. }) => "limited".to_owned(),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(counts_as, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn the_content_type_of_an_answer_decides_nothing() {
    let headers = [("content-type", "text/html")];
    let canned = Canned::of(200, &headers, r#"{"ok":false,"error":"token_revoked"}"#);
    let error = canned.client().auth_test(&token()).await;
    assert_eq!(error.expect_err("refused").class(), ErrorClass::Revoked);
    let canned = Canned::of(200, &headers, r#"{"ok":true,"user_id":"U1"}"#);
    let test = canned.client().auth_test(&token()).await.expect("known");
    assert_eq!(test.user_id.expect("read").as_str(), "U1");
}

#[tokio::test]
async fn retry_after_is_read_as_whole_seconds_or_not_at_all() {
    let limited = r#"{"ok":false,"error":"ratelimited"}"#;
    for (status, body) in [(429, ""), (429, limited), (200, limited)] {
        for (header, expected) in [
            (Some("30"), Some(30)),
            (Some("0"), Some(0)),
            (Some("18446744073709551615"), Some(u64::MAX)),
            (Some("18446744073709551616"), None),
            (Some("-1"), None),
            (Some("1.5"), None),
            (Some("soon"), None),
            (Some(""), None),
            (Some("Sat, 21 Nov 2026 12:00:00 GMT"), None),
            (None, None),
        ] {
            let headers: Vec<_> = header.map(|it| ("retry-after", it)).into_iter().collect();
            let canned = Canned::of(status, &headers, body);
            match canned.client().auth_test(&token()).await {
                Err(Error::RateLimited { retry_after }) => {
                    let expected = expected.map(Duration::from_secs);
                    assert_eq!(retry_after, expected, "{status} {body} {header:?}");
                }
                other => panic!("{status} {body} {header:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_scopes_that_were_needed_are_told_if_slack_says() {
    for (more, needed) in [
        (
            r#","needed":"users:read,team:read""#,
            "users:read,team:read",
        ),
        ("", ""),
    ] {
        let body = format!(r#"{{"ok":false,"error":"missing_scope"{more}}}"#);
        match Canned::of(200, &[], &body)
            .client()
            .auth_test(&token())
            .await
        {
            Err(Error::Api { needed: told, .. }) => assert_eq!(told, Scopes::from(needed)),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns a clock that advances by a minute each time it is read.
fn hasty() -> Clock {
    let minutes = AtomicU64::new(0);
    Clock::from_fn(move || at(60 * minutes.fetch_add(1, Ordering::SeqCst)))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

#[tokio::test]
async fn without_a_date_a_token_counts_from_when_it_was_asked_for() {
    // A later time would be wrong, because the token would be handed out after it expired.
    let refresh = RefreshToken::new("xoxe-1-old").expect("a token");
    let code = Code::new("the-code").expect("a code");
    let date = httpdate::fmt_http_date(at(5000));
    let app = credentials();
    for (headers, expected) in [
        (vec![], at(0)),
        (vec![("date", "yesterday")], at(0)),
        (vec![("date", date.as_str())], at(5000)),
    ] {
        let canned = Canned::of(200, &headers, &renewed().to_string());
        let slack = canned.client().with_clock(hasty());
        let pair = slack.refresh(&app, &refresh).await;
        assert_eq!(pair.expect("renewed").at, expected);
        let canned = Canned::of(200, &headers, &exchanged().to_string());
        let slack = canned.client().with_clock(hasty());
        let issued = slack
            .oauth_v2_access(&app, &code, "https://a.example/cb")
            .await;
        assert_eq!(issued.expect("issued").at, expected);
    }
}

#[tokio::test]
async fn what_comes_back_as_a_token_is_never_shown() {
    let token = AccessToken::new("xoxb-CANARY-token").expect("a token");
    let canned = Canned::json(&exchanged());
    assert!(!format!("{:?} {token:?}", canned.client()).contains("CANARY"));
}
