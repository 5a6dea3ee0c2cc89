//! States, cookies and callbacks, each with one defect at a time.

use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, Response, StatusCode};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::testing::{Fault, Faults, Flaky};
use slack_installs::{InstallOptions, RedirectUri, Scopes};
use url::Url;

use super::support::app::{
    ADA, ALPHA, App, Browser, REDIRECT, installed, location, parameter, user_only, with_parameter,
    world,
};
use super::{Heard, options};

const LOOPBACK: &str = "http://localhost:3000/slack/oauth_redirect";

/// Requests a callback with these headers.
async fn open(app: &App, callback: &Url, headers: &HeaderMap) -> Response<String> {
    let uri = callback[url::Position::BeforePath..].parse();
    let uri = uri.expect("a path");
    let get = &Method::GET;
    app.provider.callback_response(get, &uri, headers).await
}

#[tokio::test]
async fn a_flow_may_take_as_long_as_is_configured_and_no_longer() {
    let app = App::configured(|config| config.state_lifetime = Duration::from_secs(60)).await;
    let cookie = app
        .provider
        .start(options())
        .await
        .expect("begun")
        .set_cookie;
    assert!(
        cookie.expose().contains("; Max-Age=60;"),
        "{}",
        cookie.expose()
    );
    for (after, ends) in [(59, true), (60, false), (61, false)] {
        let browser = Browser::default();
        let callback = app.allowed(&browser, options(), ADA).await;
        let exchanges = app.exchanges();
        app.fake.advance(Duration::from_secs(after));
        let page = browser.open(&app.provider, &callback).await;
        assert_eq!(installed(&page), ends, "{after} s: {}", page.body());
        if !ends {
            assert_eq!(page.status(), StatusCode::BAD_REQUEST);
            assert!(page.body().contains("took too long"), "{}", page.body());
            assert_eq!(app.exchanges(), exchanges);
        }
    }
}

#[tokio::test]
async fn on_this_machine_a_flow_works_without_https() {
    for (redirect, is_plain) in [(REDIRECT, false), (LOOPBACK, true)] {
        let app = App::configured(|config| {
            config.redirect_uris = vec![RedirectUri::new(redirect).expect("a redirect URL")];
        })
        .await;
        let browser = Browser::default();
        let options = InstallOptions {
            redirect_uri: Some(RedirectUri::new(redirect).expect("a redirect URL")),
            ..options()
        };
        let response = app.provider.start_response(options).await;
        browser.keep_cookies(&response);
        let cookie = response.headers()[SET_COOKIE].clone();
        assert!(cookie.is_sensitive(), "frameworks do not log it");
        let cookie = cookie.to_str().expect("visible ASCII");
        assert_eq!(cookie.starts_with("slack-oauth-"), is_plain, "{cookie}");
        assert_eq!(
            cookie.starts_with("__Host-slack-oauth-"),
            !is_plain,
            "{cookie}"
        );
        assert_eq!(cookie.contains("; Secure"), !is_plain, "{cookie}");
        let callback = app.fake.allow(&location(&response), ADA).expect("allowed");
        let page = browser.open(&app.provider, &callback).await;
        assert!(installed(&page), "{}", page.body());
    }
}

#[tokio::test]
async fn a_cookie_is_found_in_whichever_header_it_comes() {
    // HTTP/2 may send each cookie in its own header.
    let app = App::new().await;
    for at in 0..3 {
        let browser = Browser::default();
        let callback = app.allowed(&browser, options(), ADA).await;
        let ours = browser.cookies()[0].clone();
        let mut headers = HeaderMap::new();
        for number in 0..3 {
            let cookie = if number == at {
                ours.as_str()
            } else {
                "a=b; c=d"
            };
            headers.append(COOKIE, cookie.parse().expect("visible ASCII"));
        }
        headers.append(
            COOKIE,
            http::HeaderValue::from_bytes(b"\xff").expect("a value"),
        );
        assert!(installed(&open(&app, &callback, &headers).await), "{at}");
    }
}

#[tokio::test]
async fn without_its_cookie_or_with_two_of_them_a_flow_is_another_browsers() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let ours = browser.cookies()[0].clone();
    let (name, value) = ours.split_once('=').expect("a pair");
    for cookies in [
        String::new(),
        format!("{name}="),
        format!("{name}={value}x"),
        format!("{name}={}", &value[1..]),
        format!("x{ours}"),
        format!("{ours}; {ours}"),
        format!("{ours}; {name}=other"),
        format!("{name}={}", "a".repeat(100)),
        format!("{name}={}", "a".repeat(5000)),
        name.to_owned(),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookies.parse().expect("visible ASCII"));
        let page = open(&app, &callback, &headers).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{cookies}");
        assert!(
            page.body().contains("another browser"),
            "{cookies}: {}",
            page.body()
        );
    }
    assert_eq!(app.exchanges(), 0);
    assert!(installed(&browser.open(&app.provider, &callback).await));
}

#[tokio::test]
async fn only_a_get_ends_a_flow() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    for method in [
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::OPTIONS,
        Method::DELETE,
    ] {
        let page = browser.request(&app.provider, &method, &callback).await;
        assert_eq!(page.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(page.body(), "", "{method}");
    }
    assert_eq!(app.exchanges(), 0);
    assert!(installed(&browser.open(&app.provider, &callback).await));
}

#[tokio::test]
async fn a_callback_without_a_usable_code_exchanges_nothing_and_spends_nothing() {
    let app = App::new().await;
    let too_long = "a".repeat(8 * 1024 - 200);
    for code in [
        None,
        Some(""),
        Some("two words"),
        Some("\u{fc}"),
        Some("\n"),
    ] {
        let heard = Heard::default();
        let provider = app.provider.clone().with_hooks(heard.clone());
        let browser = Browser::default();
        let callback = app.allowed(&browser, options(), ADA).await;
        let without = with_parameter(&callback, "code", code);
        let page = browser.open(&provider, &without).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{code:?}");
        assert!(
            page.body().contains("not complete"),
            "{code:?}: {}",
            page.body()
        );
        let exchanges = app.exchanges();
        assert!(installed(&browser.open(&provider, &callback).await));
        assert_eq!(app.exchanges(), exchanges + 1);
        let again = browser.open(&provider, &callback).await;
        assert!(again.body().contains("used before"), "{}", again.body());
        assert_eq!(
            *heard.0.lock().expect("no panic"),
            ["no_code", "installed", "used_state"]
        );
    }
    // A long code is sent to Slack, which refuses it.
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let long = with_parameter(&callback, "code", Some(&too_long[..7000]));
    let page = browser.open(&app.provider, &long).await;
    assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
    assert!(page.body().contains("no longer accepts"), "{}", page.body());
}

#[tokio::test]
async fn a_state_whose_code_slack_did_not_take_is_not_spent_and_any_other_is() {
    for (fault, is_spent) in [
        (Fault::error("invalid_code"), false),
        (Fault::rate_limited(Duration::from_secs(30)), false),
        (Fault::error("code_already_used"), true),
        (Fault::error("internal_error"), true),
        (Fault::unavailable(), true),
        (Fault::lost(), true),
        (Fault::lost().after_effect(), true),
    ] {
        let app = App::new().await;
        let browser = Browser::default();
        let callback = app.allowed(&browser, options(), ADA).await;
        let what = format!("{fault:?}");
        app.fake.inject("oauth.v2.access", fault);
        let page = browser.open(&app.provider, &callback).await;
        assert_eq!(page.status(), StatusCode::BAD_GATEWAY, "{what}");
        let page = browser.open(&app.provider, &callback).await;
        assert_eq!(installed(&page), !is_spent, "{what}");
        assert_eq!(page.body().contains("used before"), is_spent, "{what}");
        assert_eq!(app.exchanges(), if is_spent { 1 } else { 2 }, "{what}");
    }
}

#[tokio::test]
async fn a_refusal_at_slack_counts_more_than_a_code() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let both = with_parameter(&callback, "error", Some("access_denied"));
    let page = browser.open(&app.provider, &both).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.body().contains("You chose not"), "{}", page.body());
    assert_eq!(app.exchanges(), 0);
}

#[tokio::test]
async fn a_refusal_without_a_state_is_shown_and_begins_no_flow() {
    let app = App::new().await;
    let heard = Heard::default();
    let provider = app.provider.clone().with_hooks(heard.clone());
    let mut denied = Url::parse(REDIRECT).expect("a URL");
    denied
        .query_pairs_mut()
        .append_pair("error", "access_denied");
    let page = Browser::default().open(&provider, &denied).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.body().contains("You chose not"), "{}", page.body());
    assert!(page.headers().get(SET_COOKIE).is_none());
    // A callback with only a code is also no failure: it restarts as our own flow.
    let mut begun = Url::parse(REDIRECT).expect("a URL");
    begun.query_pairs_mut().append_pair("code", "a-code");
    let page = Browser::default().open(&provider, &begun).await;
    assert_eq!(page.status(), StatusCode::FOUND);
    assert_eq!(*heard.0.lock().expect("no panic"), [""; 0]);
}

#[tokio::test]
async fn a_query_that_slack_would_not_send_is_refused_and_uses_nothing_up() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let padded = |length: usize| {
        let mut url = callback.clone();
        let used = url.query().expect("a query").len() + "&x=".len();
        url.query_pairs_mut()
            .append_pair("x", &"a".repeat(length - used));
        assert_eq!(url.query().expect("a query").len(), length);
        url
    };
    let twice = |name: &str| {
        let mut url = callback.clone();
        url.query_pairs_mut()
            .append_pair(name, "1")
            .append_pair(name, "1");
        url
    };
    for url in [
        padded(8 * 1024 + 1),
        twice("error"),
        twice("state"),
        twice("code"),
    ] {
        let page = browser.request(&app.provider, &Method::GET, &url).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{url}");
        assert!(page.body().contains("not complete"), "{}", page.body());
    }
    // Parameters that are not read may be repeated.
    let mut largest = padded(8 * 1024 - 8);
    largest
        .query_pairs_mut()
        .append_pair("y", "")
        .append_pair("y", "1");
    assert_eq!(largest.query().expect("a query").len(), 8 * 1024 - 1);
    assert!(installed(
        &browser.open(&app.provider, &padded(8 * 1024)).await
    ));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_begins_flows_and_uses_none_up() {
    let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let app = App::with(world(), Arc::clone(&backend) as Arc<dyn Backend>, |_| {}).await;
    let heard = Heard::default();
    let provider = app.provider.clone().with_hooks(heard.clone());
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    backend.set_faults(Faults {
        lost_commits: 1,
        lost_reads: 1,
        ..Faults::none()
    });
    let page = provider.start_response(options()).await;
    assert_eq!(page.status(), StatusCode::FOUND);
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((app.exchanges(), app.fake.calls("auth.revoke")), (0, 0));
    assert_eq!(*heard.0.lock().expect("no panic"), ["store"]);
    backend.set_faults(Faults::none());
    assert!(installed(&browser.open(&provider, &callback).await));
}

#[tokio::test]
async fn options_that_cannot_work_begin_no_flow() {
    let app = App::new().await;
    let metadata = |length: usize| InstallOptions {
        metadata: Some("m".repeat(length)),
        ..options()
    };
    let nothing = InstallOptions {
        scopes: Some(Scopes::default()),
        ..options()
    };
    for refused in [metadata(2049), nothing] {
        assert!(app.provider.start(refused.clone()).await.is_err());
        let page = app.provider.start_response(refused).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        assert!(page.headers().get(SET_COOKIE).is_none());
    }
    assert!(app.provider.start(metadata(2048)).await.is_ok());
    assert!(app.provider.start(user_only("search:read")).await.is_ok());
}

#[tokio::test]
async fn a_flow_asks_for_what_it_was_told_to_or_else_for_what_is_configured() {
    let app = App::configured(|config| config.user_scopes = Scopes::from("search:read")).await;
    let asked = async |options: InstallOptions| {
        let url = app
            .provider
            .start(options)
            .await
            .expect("begun")
            .authorize_url;
        let names: Vec<_> = url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
        assert_eq!(
            names,
            ["client_id", "scope", "user_scope", "redirect_uri", "state"]
        );
        assert_eq!(parameter(&url, "client_id"), app.fake.client_id().as_str());
        assert_eq!(parameter(&url, "redirect_uri"), REDIRECT);
        (parameter(&url, "scope"), parameter(&url, "user_scope"))
    };
    let (bot, user) = (
        "chat:write,commands,users:read".to_owned(),
        "search:read".to_owned(),
    );
    assert_eq!(asked(options()).await, (bot.clone(), user.clone()));
    let mut other_bot = options();
    other_bot.scopes = Some(Scopes::from("files:read"));
    assert_eq!(asked(other_bot).await, ("files:read".into(), user));
    let mut other_user = options();
    other_user.user_scopes = Some(Scopes::from("files:write"));
    assert_eq!(asked(other_user).await, (bot, "files:write".into()));
    let cookie = app.install(ADA).await;
    assert!(installed(&cookie));
    assert!(app.stored(ALPHA, Some(ADA)).await.user.is_some());
}
