//! Slack's responses, good and bad, over real HTTP.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod calls;
mod canned;
mod clocks;
mod codes;
#[cfg(feature = "testing")]
mod overlap;
mod refresh;
#[cfg(feature = "testing")]
mod wire;

use std::time::Duration;

use slack_installs::secret::{AccessToken, ClientSecret, Code};
use slack_installs::slack::{
    ClientCredentials, Environment, Error, ErrorClass, HttpTransport, SlackClient, TransportError,
};
use slack_installs::{ClientId, Home};
use wiremock::matchers::{body_string_contains, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const CANARY: &str = "xoxb-CANARY-token";

/// Returns a client with each of the transports: the crate's own, and your app's.
fn clients(environment: &Environment) -> [SlackClient; 2] {
    let yours = reqwest::Client::builder().user_agent(YOURS).no_proxy();
    let yours = HttpTransport::with_client(yours.build().expect("no TLS is needed"));
    [
        SlackClient::new(environment.clone()),
        SlackClient::with_transport(environment.clone(), yours),
    ]
}

const YOURS: &str = "your-app";

async fn client(answer: ResponseTemplate) -> (MockServer, SlackClient) {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(answer)
        .mount(&server)
        .await;
    let environment = Environment::at(&server.uri()).expect("loopback");
    (server, SlackClient::new(environment))
}

fn credentials() -> ClientCredentials {
    ClientCredentials {
        client_id: ClientId::new("100000000001.200000000002").expect("an id"),
        client_secret: ClientSecret::new("CANARY-secret").expect("a secret"),
    }
}

fn token() -> AccessToken {
    AccessToken::new(CANARY).expect("a token")
}

async fn exchange(answer: ResponseTemplate) -> Result<slack_installs::slack::Issued, Error> {
    let (_server, slack) = client(answer).await;
    let code = Code::new("CANARY-code").expect("a code");
    slack
        .oauth_v2_access(&credentials(), &code, "https://a.example/cb")
        .await
}

fn json(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body, "application/json")
}

#[tokio::test]
async fn the_exchange_uses_http_basic_and_repeats_the_redirect_url() {
    let server = MockServer::start().await;
    Mock::given(path("/api/oauth.v2.access"))
        .and(header(
            "authorization",
            "Basic MTAwMDAwMDAwMDAxLjIwMDAwMDAwMDAwMjpDQU5BUlktc2VjcmV0",
        ))
        .and(body_string_contains("code=CANARY-code"))
        .and(body_string_contains(
            "redirect_uri=https%3A%2F%2Fa.example%2Fcb",
        ))
        .respond_with(json(BOT_ONLY))
        .expect(1)
        .mount(&server)
        .await;
    let slack = SlackClient::new(Environment::at(&server.uri()).expect("loopback"));
    let code = Code::new("CANARY-code").expect("a code");
    let issued = slack
        .oauth_v2_access(&credentials(), &code, "https://a.example/cb")
        .await;
    assert!(issued.expect("issued").bot.is_some());
}

#[tokio::test]
async fn every_documented_form_of_the_answer_is_read() {
    for (name, body, org_wide, bot, user, webhook) in [
        ("bot only", BOT_ONLY, false, true, false, false),
        ("rotating bot and user", ROTATING, false, true, true, false),
        ("org-wide", ORG_WIDE, true, true, false, false),
        ("user only", USER_ONLY, false, false, true, false),
        ("webhook and warning", WEBHOOK, false, true, false, true),
    ] {
        let issued = exchange(json(body)).await.expect(name);
        assert_eq!(matches!(issued.home, Home::Org(_)), org_wide, "{name}");
        assert_eq!(issued.bot.is_some(), bot, "{name}");
        assert_eq!(issued.user.is_some(), user, "{name}");
        assert_eq!(issued.incoming_webhook.is_some(), webhook, "{name}");
    }
}

#[tokio::test]
async fn expiry_counts_from_slacks_own_clock() {
    let answer = json(ROTATING).insert_header("date", "Sat, 21 Nov 2026 12:00:00 GMT");
    let issued = exchange(answer).await.expect("issued");
    let expires_at = issued
        .bot
        .expect("a bot")
        .grant
        .expires_at
        .expect("it rotates");
    assert_eq!(expires_at, issued.at + Duration::from_secs(43_200));
    assert_eq!(
        httpdate::fmt_http_date(issued.at),
        "Sat, 21 Nov 2026 12:00:00 GMT"
    );
}

#[tokio::test]
async fn a_token_in_the_wrong_place_is_refused() {
    let user_token_as_bot = BOT_ONLY.replace(r#""token_type":"bot""#, r#""token_type":"user""#);
    let bot_token_as_user = USER_ONLY.replace(r#""token_type":"user""#, r#""token_type":"bot""#);
    let session_token = BOT_ONLY.replace("xoxb-", "xoxc-");
    for body in [user_token_as_bot, bot_token_as_user, session_token] {
        assert_matches!(
            exchange(json(&body)).await,
            Err(Error::Malformed { .. }),
            "{body}"
        );
    }
}

#[tokio::test]
async fn no_error_repeats_what_slack_sent() {
    for body in [
        BOT_ONLY.replace("A0FAKEAPP01", CANARY),
        BOT_ONLY.replace("T0ALPHA0001", CANARY),
        BOT_ONLY.replace("xoxb-FIXTURE-0001", &format!("x {CANARY}")),
        format!("[{BOT_ONLY}, \"{CANARY}\"]"),
        format!(r#"{{"ok":true,"access_token":["{CANARY}"]}}"#),
        format!(r#"{{"ok":false,"error":"{CANARY}"}}"#),
        format!("<html>{CANARY}</html>"),
        format!(r#"{{"ok":"{CANARY}"}}"#),
        format!(r#""{CANARY}"#),
        String::new(),
    ] {
        let error = exchange(json(&body)).await.expect_err(&body);
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            shown.push_str(&format!("{inner} {inner:?}"));
            source = inner.source();
        }
        assert!(!shown.contains("CANARY"), "{body}: {shown}");
    }
}

#[tokio::test]
async fn trouble_on_slacks_side_says_nothing_about_the_installation() {
    let html = ResponseTemplate::new(503).set_body_raw("<html>", "text/html");
    let limited = ResponseTemplate::new(429).insert_header("retry-after", "30");
    let limited_json = json(r#"{"ok":false,"error":"ratelimited"}"#);
    let some_day = json(r#"{"ok":false,"error":"some_future_error_code"}"#);
    for (answer, class) in [
        (html, ErrorClass::Ambiguous),
        (limited, ErrorClass::Retry),
        (limited_json, ErrorClass::Retry),
        (some_day, ErrorClass::Unknown),
        (
            json(r#"{"ok":false,"error":"invalid_auth"}"#),
            ErrorClass::InvalidAuth,
        ),
        (
            json(r#"{"ok":false,"error":"bad_client_secret"}"#),
            ErrorClass::Configuration,
        ),
        (
            ResponseTemplate::new(302).insert_header("location", "/"),
            ErrorClass::Ambiguous,
        ),
    ] {
        let (_server, slack) = client(answer).await;
        let error = slack.auth_test(&token()).await.expect_err("refused");
        assert_eq!(error.class(), class, "{error}");
    }
}

#[tokio::test]
async fn a_slack_that_cannot_be_reached_was_certainly_not_asked() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let environment = Environment::at(&format!("http://127.0.0.1:{port}")).expect("loopback");
    for slack in clients(&environment) {
        let error = slack.auth_test(&token()).await.expect_err("not connected");
        assert_matches!(error, Error::Transport(TransportError::NotSent(_)));
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_may_have_carried_the_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut some = [0; 16];
            std::io::Read::read_exact(&mut stream.expect("a client"), &mut some)
                .expect("a request");
        }
    });
    let environment = Environment::at(&format!("http://{address}")).expect("loopback");
    for slack in clients(&environment) {
        let error = slack.auth_test(&token()).await.expect_err("no response");
        assert_matches!(error, Error::Transport(TransportError::Lost(_)));
    }
}

#[tokio::test]
async fn an_apps_own_client_carries_the_calls() {
    let ours = format!("slack-installs/{}", env!("CARGO_PKG_VERSION"));
    let answer = json(r#"{"ok":false,"error":"ratelimited"}"#);
    let (server, _) = client(answer).await;
    let environment = Environment::at(&server.uri()).expect("loopback");
    for slack in clients(&environment) {
        let error = slack.auth_test(&token()).await.expect_err("rate limited");
        assert!(!matches!(error, Error::Transport(_)), "{error:?}");
    }
    let received = server.received_requests().await.expect("recorded");
    let agents: Vec<_> = received.iter().map(|r| &r.headers["user-agent"]).collect();
    assert_eq!(agents, [&*ours, YOURS]);
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let answer = ResponseTemplate::new(200).set_body_bytes(vec![b' '; 2 * 1024 * 1024]);
    let (server, _) = client(answer).await;
    let environment = Environment::at(&server.uri()).expect("loopback");
    for slack in clients(&environment) {
        let error = slack.auth_test(&token()).await.expect_err("too large");
        assert_matches!(error, Error::Transport(TransportError::Lost(_)));
    }
}

#[test]
fn tokens_go_to_https_or_to_this_machine_only() {
    for bad in [
        "http://10.0.0.1",
        "http://[::2]",
        "http://localhost.example",
        "http://notlocalhost",
        "http://slack.example",
        "ftp://localhost",
        "ftp://slack.com",
        "https://slack.com/#f",
        "https://slack.com/?a",
        "slack.com",
    ] {
        assert!(Environment::at(bad).is_err(), "{bad}");
    }
    for (good, called) in [
        ("http://127.0.0.2:81", "http://127.0.0.2:81/api/auth.test"),
        ("http://[::1]:81", "http://[::1]:81/api/auth.test"),
        ("http://localhost", "http://localhost/api/auth.test"),
        ("http://a.localhost/", "http://a.localhost/api/auth.test"),
        (
            "https://a.example/fake",
            "https://a.example/fake/api/auth.test",
        ),
        (
            "https://a.example/fake/",
            "https://a.example/fake/api/auth.test",
        ),
    ] {
        let environment = Environment::at(good).expect(good);
        assert_eq!(environment.api_url("auth.test").as_str(), called);
    }
    let gov = Environment::gov();
    assert_eq!(
        gov.authorize_url().as_str(),
        "https://slack-gov.com/oauth/v2/authorize"
    );
    assert_eq!(
        gov.api_url("auth.test").as_str(),
        "https://slack-gov.com/api/auth.test"
    );
}

const BOT_ONLY: &str = r#"{"ok":true,"app_id":"A0FAKEAPP01","authed_user":{"id":"U0ADMIN0001"},
"scope":"chat:write","token_type":"bot","access_token":"xoxb-FIXTURE-0001",
"bot_user_id":"U0BOTA00001","expires_in":null,"team":{"id":"T0ALPHA0001","name":"Alpha"},
"enterprise":null,"is_enterprise_install":false}"#;

const ROTATING: &str = r#"{"ok":true,"app_id":"A0FAKEAPP01","authed_user":{"id":"U0ADMIN0001",
"scope":"search:read","access_token":"xoxe.xoxp-1-FIXTURE","token_type":"user",
"refresh_token":"xoxe-1-FIXTURE-user","expires_in":43200},"scope":"chat:write","token_type":"bot",
"access_token":"xoxe.xoxb-1-FIXTURE","bot_user_id":"U0BOTA00001",
"refresh_token":"xoxe-1-FIXTURE-bot","expires_in":43200,
"team":{"id":"T0ALPHA0001","name":"Alpha"},"enterprise":null,"is_enterprise_install":false}"#;

const ORG_WIDE: &str = r#"{"ok":true,"app_id":"A0FAKEAPP01","authed_user":{"id":"W0ORGADM001"},
"team":null,"enterprise":{"id":"E0GRID00001","name":"Gridline"},"is_enterprise_install":true,
"scope":"chat:write","token_type":"bot","access_token":"xoxb-FIXTURE-org",
"bot_user_id":"U0BOTG00003"}"#;

const USER_ONLY: &str = r#"{"ok":true,"app_id":"A0FAKEAPP01","authed_user":{"id":"U0PLAIN0002",
"scope":"chat:write","access_token":"xoxp-FIXTURE","token_type":"user"},
"team":{"id":"T0ALPHA0001"},"enterprise":null}"#;

const WEBHOOK: &str = r##"{"ok":true,"app_id":"A0FAKEAPP01","authed_user":{"id":"U0ADMIN0001"},
"incoming_webhook":{"channel":"#general","channel_id":"C0GENERAL01",
"configuration_url":"https://alpha.slack.com/services/B0HOOK00001",
"url":"https://hooks.slack.com/services/T0ALPHA0001/B0HOOK00001/FIXTURE"},
"scope":"incoming-webhook","token_type":"bot","access_token":"xoxb-FIXTURE-0001",
"bot_user_id":"U0BOTA00001","team":{"id":"T0ALPHA0001","name":"Alpha"},"enterprise":null,
"warning":"superfluous_charset","response_metadata":{"warnings":["superfluous_charset"]}}"##;
