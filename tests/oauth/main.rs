//! The install flow, from the install link to the stored installation.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod anonymous;
mod bound;
mod config;
mod failed;
mod flood;
mod hosts;
mod keys;
mod metadata;
mod outcome;
mod overlap;
mod pages;
mod policies;
mod refused;
mod sealed;
mod speculative;
mod states;
mod unusable;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_SECURITY_POLICY, SET_COOKIE};
use http::{Method, StatusCode};
use proptest::prelude::*;
use slack_installs::backend::{Backend, Scope};
use slack_installs::oauth::{
    Candidate, Decision, FailedFlow, InstallHooks, InstallPolicy, Installed,
};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{AppId, InstallOptions, InstallProvider, RedirectUri, Scopes, TeamId};
use support::app::{
    ADA, ALPHA, App, BEN, BRAVO, Browser, ORG, OTHER_REDIRECT, REDIRECT, SALES, installed,
    location, parameter, with_parameter,
};
use tokio::sync::Semaphore;
use url::Url;

use crate::support::app::{user_only, user_scopes};

fn options() -> InstallOptions {
    InstallOptions::default()
}

#[tokio::test]
async fn a_bot_is_installed_and_its_token_stored() {
    let app = App::new().await;
    let page = app.install(ADA).await;
    assert!(installed(&page), "{}", page.body());
    let installation = app.stored(ALPHA, Some(ADA)).await.installation;
    let bot = installation.bot.expect("a bot");
    let token = app.fake.bot_token(ALPHA).expect("a bot token");
    assert_eq!(bot.grant.access_token.expose(), token.expose());
    assert_eq!(bot.user_id, app.fake.bot_user(ALPHA));
    assert!(bot.id.is_some(), "`auth.test` returned the bot's id");
    assert_eq!(
        bot.grant.scopes,
        Scopes::from("chat:write,commands,users:read")
    );
    assert_eq!(installation.installed_by.expect("known").as_str(), ADA);
    assert!(
        installation
            .url
            .as_deref()
            .expect("from auth.test")
            .starts_with("https://")
    );
    assert!(installation.user.is_none(), "no user scopes were asked for");
}

#[tokio::test]
async fn bot_user_and_webhook_are_stored_together() {
    let app = App::new().await;
    let mut options = user_scopes("search:read");
    options.scopes = Some(Scopes::from("incoming-webhook,commands"));
    assert!(installed(&app.install_with(options, ADA).await));
    let installation = app.stored(ALPHA, Some(ADA)).await;
    assert!(installation.bot.is_some());
    assert_eq!(installation.incoming_webhooks.len(), 1);
    assert_eq!(
        installation.installation.user.expect("a user").id.as_str(),
        ADA
    );
}

#[tokio::test]
async fn a_user_only_install_needs_no_bot() {
    let app = App::new().await;
    assert!(installed(
        &app.install_with(user_only("search:read"), BEN).await
    ));
    let installation = app.stored(ALPHA, Some(BEN)).await;
    assert!(installation.bot.is_none());
    assert!(installation.user.is_some());
}

#[tokio::test]
async fn a_workspace_inside_an_organisation_is_not_taken_for_an_org_wide_install() {
    let app = App::new().await;
    assert!(installed(&app.install("U0GRIDUSR02").await));
    let installation = app.stored(SALES, None).await;
    assert_eq!(
        installation.home.enterprise().expect("known").id.as_str(),
        ORG
    );
    assert!(!installation.home.is_enterprise_install());
    assert!(app.fetch(ORG, None).await.is_none());
}

#[tokio::test]
async fn what_is_wrong_with_a_state_is_found_before_anything_is_consumed() {
    let app = App::configured(|config| {
        config
            .redirect_uris
            .push(RedirectUri::new(OTHER_REDIRECT).expect("a redirect URL"));
    })
    .await;
    let foreign = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let state = parameter(&callback, "state");

    let mut tampered = state.clone();
    tampered.replace_range(40..41, if &state[40..41] == "A" { "B" } else { "A" });
    let foreign_client = foreign.allowed(&browser, options(), ADA).await;
    let mut foreign_redirect = callback.clone();
    foreign_redirect.set_path("/slack/eu/oauth_redirect");
    let refused = [
        (
            "tampered",
            with_parameter(&callback, "state", Some(&tampered)),
            &browser,
        ),
        (
            "not a state",
            with_parameter(&callback, "state", Some("../../etc/passwd")),
            &browser,
        ),
        (
            "NUL",
            with_parameter(&callback, "state", Some("\0")),
            &browser,
        ),
        (
            "10 kB",
            with_parameter(&callback, "state", Some(&"A".repeat(10_240))),
            &browser,
        ),
        ("foreign client", foreign_client, &browser),
        ("foreign redirect", foreign_redirect, &browser),
        ("other browser", callback.clone(), &Browser::default()),
    ];
    for (what, url, browser) in refused {
        let page = browser.request(&app.provider, &Method::GET, &url).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{what}");
    }
    assert_eq!(app.exchanges(), 0);
    assert!(
        installed(&browser.open(&app.provider, &callback).await),
        "the state was not consumed"
    );
}

#[tokio::test]
async fn a_cookie_of_another_flow_does_not_open_this_one() {
    let app = App::new().await;
    let (mine, theirs) = (Browser::default(), Browser::default());
    let callback = app.allowed(&mine, options(), ADA).await;
    app.begin(&theirs, options()).await;
    let name = mine.cookies()[0]
        .split_once('=')
        .expect("a value")
        .0
        .to_owned();
    let value = theirs.cookies()[0]
        .split_once('=')
        .expect("a value")
        .1
        .to_owned();
    let mut headers = mine.headers(&callback);
    headers.insert(
        "cookie",
        format!("{name}={value}").parse().expect("visible ASCII"),
    );
    let uri = callback[url::Position::BeforePath..]
        .parse()
        .expect("a path");
    let page = app
        .provider
        .callback_response(&Method::GET, &uri, &headers)
        .await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(
        installed(&mine.open(&app.provider, &callback).await),
        "the state was not consumed"
    );
}

#[tokio::test]
async fn a_cookie_that_a_sibling_domain_could_set_does_not_open_a_flow() {
    // Over plain http, or from a sibling domain, an attacker can set any cookie whose name lacks
    // the prefix `__Host-`.
    let app = App::new().await;
    let attacker = Browser::default();
    let callback = app.allowed(&attacker, options(), ADA).await;
    let tossed = attacker.cookies()[0].replace("__Host-", "");
    let mut headers = Browser::default().headers(&callback);
    headers.insert("cookie", tossed.parse().expect("visible ASCII"));
    let uri = callback[url::Position::BeforePath..]
        .parse()
        .expect("a path");
    let page = app
        .provider
        .callback_response(&Method::GET, &uri, &headers)
        .await;
    assert_eq!(
        (page.status(), app.exchanges()),
        (StatusCode::BAD_REQUEST, 0)
    );
}

#[tokio::test]
async fn a_flow_comes_back_to_the_host_where_it_began() {
    let app = App::configured(|config| {
        config
            .redirect_uris
            .push(RedirectUri::new(OTHER_REDIRECT).expect("a redirect URL"));
    })
    .await;
    for (host, redirect) in [
        ("eu.example.com", OTHER_REDIRECT),
        ("bot.example.com", REDIRECT),
        ("elsewhere.example.com", REDIRECT),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", host.parse().expect("a host"));
        let uri = "/slack/install".parse().expect("a path");
        let response = app.provider.install_response(&uri, &headers).await;
        assert_eq!(
            parameter(&location(&response), "redirect_uri"),
            redirect,
            "{host}"
        );
        // A flow that began at Slack restarts as our own flow, with the same redirect URL.
        let uri = "/slack/eu/oauth_redirect?code=1".parse().expect("a path");
        let restarted = app.provider.callback_response(&Method::GET, &uri, &headers);
        let to = location(&restarted.await);
        assert_eq!(parameter(&to, "redirect_uri"), redirect, "{host}");
        // In HTTP/2 the request target contains the host name.
        let uri = format!("https://{host}/slack/install");
        let uri = uri.parse().expect("a URL");
        let none = http::HeaderMap::new();
        let to = location(&app.provider.install_response(&uri, &none).await);
        assert_eq!(parameter(&to, "redirect_uri"), redirect, "{host}");
    }
}

#[tokio::test]
async fn a_person_who_cancels_sees_a_friendly_page_and_may_still_allow() {
    let app = App::new().await;
    let browser = Browser::default();
    let authorize = app.begin(&browser, options()).await;
    let cancelled = app.fake.cancel(&authorize).expect("cancelled");
    // Loaded again, the page is the same.
    for _ in 0..2 {
        let page = browser.open(&app.provider, &cancelled).await;
        assert_eq!(page.status(), StatusCode::OK);
        let body = page.body();
        assert!(body.contains("You chose not to install"), "{body}");
    }
    // The person goes back, and allows the installation.
    let allowed = app.fake.allow(&authorize, ADA).expect("allowed");
    assert!(installed(&browser.open(&app.provider, &allowed).await));
    let page = browser.open(&app.provider, &allowed).await;
    assert!(page.body().contains("used before"), "{}", page.body());
}

#[tokio::test]
async fn a_callback_without_a_state_restarts_our_own_flow_and_exchanges_nothing() {
    let app = App::new().await;
    let redirect = Url::parse(REDIRECT).expect("a URL");
    let unsolicited = app
        .fake
        .unsolicited(&redirect, "commands", ADA)
        .expect("allowed");
    for url in [
        unsolicited.clone(),
        with_parameter(&unsolicited, "state", None),
    ] {
        let browser = Browser::default();
        let exchanges = app.exchanges();
        let response = browser.open(&app.provider, &url).await;
        assert_eq!(response.status(), StatusCode::FOUND);
        let authorize = location(&response);
        assert!(
            authorize
                .as_str()
                .starts_with(app.fake.environment().authorize_url().as_str())
        );
        assert_eq!(app.exchanges(), exchanges);
        let callback = app.fake.allow(&authorize, ADA).expect("allowed");
        assert!(installed(&browser.open(&app.provider, &callback).await));
    }
}

#[tokio::test]
async fn a_link_preview_does_not_use_the_state_up() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let page = browser
        .request(&app.provider, &Method::HEAD, &callback)
        .await;
    assert_eq!(page.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(installed(&browser.open(&app.provider, &callback).await));
}

#[tokio::test]
async fn a_page_that_is_loaded_again_says_that_it_was_used() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    assert!(installed(&browser.open(&app.provider, &callback).await));
    let page = browser.open(&app.provider, &callback).await;
    assert!(page.body().contains("used before"), "{}", page.body());
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn two_tabs_of_one_browser_do_not_meet() {
    let app = App::new().await;
    let browser = Browser::default();
    let one = app.allowed(&browser, options(), ADA).await;
    let other = app.allowed(&browser, options(), "U0BRAVO0001").await;
    assert!(installed(&browser.open(&app.provider, &one).await));
    assert!(installed(&browser.open(&app.provider, &other).await));
    assert!(app.fetch(ALPHA, None).await.is_some());
    assert!(app.fetch(BRAVO, None).await.is_some());
}

#[tokio::test]
async fn the_redirect_url_of_the_flow_is_repeated_at_the_exchange() {
    // Regression: slackapi/java-slack-sdk#491, #714, #1404.
    let app = App::configured(|config| {
        config
            .redirect_uris
            .push(RedirectUri::new(OTHER_REDIRECT).expect("a redirect URL"));
    })
    .await;
    let mut options = options();
    options.redirect_uri = Some(RedirectUri::new(OTHER_REDIRECT).expect("a redirect URL"));
    let browser = Browser::default();
    let callback = app.allowed(&browser, options, ADA).await;
    assert!(callback.as_str().starts_with(OTHER_REDIRECT));
    assert!(installed(&browser.open(&app.provider, &callback).await));
}

#[tokio::test]
async fn a_redirect_url_that_is_not_configured_is_refused() {
    let app = App::new().await;
    let mut options = options();
    options.redirect_uri = Some(RedirectUri::new(OTHER_REDIRECT).expect("a redirect URL"));
    assert!(app.provider.start(options).await.is_err());
}

#[tokio::test]
async fn nothing_that_the_caller_supplied_travels_in_the_url() {
    let app = App::new().await;
    let browser = Browser::default();
    let mut options = options();
    options.metadata = Some("account-canary-42".into());
    let callback = app.allowed(&browser, options, ADA).await;
    assert!(!callback.as_str().contains("canary"));
    let cookie = browser.cookies().join("; ");
    let (_, value) = cookie.split_once('=').expect("a pair");
    let value = URL_SAFE_NO_PAD.decode(value).expect("base64url");
    let value = value.escape_ascii().to_string();
    assert!(!value.contains("canary"), "the cookie is sealed");
    assert_eq!(parameter(&callback, "state").len(), 119);
    assert!(installed(&browser.open(&app.provider, &callback).await));
    let installation = app.stored(ALPHA, None).await;
    assert_eq!(installation.metadata.as_deref(), Some("account-canary-42"));
    let rows = app
        .store
        .backend()
        .scan(&Scope::Everything, None, 100)
        .await
        .expect("a scan")
        .rows;
    assert!(!format!("{rows:?}").contains("canary"), "the row is sealed");
}

#[tokio::test]
async fn a_name_with_html_in_it_is_shown_as_text() {
    let app = App::new().await;
    let page = app.install(ADA).await;
    assert!(!page.body().contains("<script>"), "{}", page.body());
    assert!(page.body().contains("&lt;script&gt;"), "{}", page.body());
    let policy = page.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .expect("visible ASCII");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
}

#[tokio::test]
async fn on_https_the_cookie_is_bound_to_the_host() {
    let app = App::new().await;
    let response = app.provider.start_response(options()).await;
    let cookie = response.headers()[SET_COOKIE]
        .to_str()
        .expect("visible ASCII");
    assert!(cookie.starts_with("__Host-"), "{cookie}");
    for flag in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
}

#[tokio::test]
async fn an_install_somewhere_else_than_meant_is_refused_and_its_tokens_revoked() {
    let app = App::new().await;
    let mut options = options();
    options.team = Some(TeamId::new(BRAVO).expect("an id"));
    let page = app.install_with(options, ADA).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(app.fetch(ALPHA, None).await.is_none());
    assert_eq!(app.fake.calls("auth.revoke"), 1);
    assert!(!app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn tokens_for_another_app_are_refused() {
    let other = AppId::new("A0OTHER0001").expect("an id");
    let app = App::configured(|config| config.app_id = Some(other)).await;
    let page = app.install(ADA).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(app.fetch(ALPHA, None).await.is_none());
}

#[tokio::test]
async fn sign_in_with_slack_is_not_stored_as_an_installation() {
    let app = App::new().await;
    let page = app
        .install_with(user_only("identity.basic,identity.email"), ADA)
        .await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(app.fetch(ALPHA, None).await.is_none());
}

#[tokio::test]
async fn an_installation_is_stored_before_auth_test_is_asked() {
    // Slack's SDKs for Python and JavaScript lose the installation if `auth.test` fails.
    let app = App::new().await;
    app.fake.inject("auth.test", Fault::unavailable().always());
    assert!(installed(&app.install(ADA).await));
    let bot = app
        .stored(ALPHA, None)
        .await
        .installation
        .bot
        .expect("a bot");
    assert!(bot.id.is_none());
}

#[tokio::test]
async fn an_exchange_is_never_repeated() {
    for fault in [
        Fault::lost(),
        Fault::lost().after_effect(),
        Fault::unavailable(),
        Fault::error("internal_error"),
        Fault::rate_limited(Duration::from_secs(30)),
    ] {
        let app = App::new().await;
        app.fake.inject("oauth.v2.access", fault);
        let page = app.install(ADA).await;
        assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(app.exchanges(), 1);
        assert!(app.fetch(ALPHA, None).await.is_none());
        assert!(installed(&app.install(ADA).await), "a new flow succeeds");
    }
}

/// Refuses every installation.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl InstallPolicy for Nobody {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        Decision::Refuse {
            reason: "Ask <b>your</b> admin.".into(),
        }
    }
}

#[tokio::test]
async fn a_refused_install_is_not_stored_and_its_tokens_are_revoked() {
    let app = App::new().await;
    let provider = app.provider.clone().with_policy(Nobody);
    let browser = Browser::default();
    let callback = app.allowed(&browser, user_scopes("search:read"), ADA).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    assert!(
        page.body().contains("Ask &lt;b&gt;your&lt;/b&gt; admin."),
        "{}",
        page.body()
    );
    assert!(app.fetch(ALPHA, Some(ADA)).await.is_none());
    assert!(!app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn of_a_refused_install_that_rotates_no_refresh_token_stays_alive() {
    let app = App::new().await;
    app.fake.rotate_tokens(Rotation::default());
    let provider = app.provider.clone().with_policy(Nobody);
    let browser = Browser::default();
    let callback = app.allowed(&browser, user_scopes("search:read"), ADA).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    let secrets = app.fake.secrets();
    let refresh_tokens: Vec<_> = secrets
        .iter()
        .filter(|it| it.starts_with("xoxe-1-"))
        .collect();
    assert_eq!(refresh_tokens.len(), 2, "the bot's and the user's tokens");
    assert!(refresh_tokens.iter().all(|it| !app.fake.is_refreshable(it)));
}

/// A policy that panics.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl InstallPolicy for Broken {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        panic!("a bug of the app")
    }
}

#[tokio::test]
async fn a_policy_that_panics_refuses_and_its_tokens_are_revoked() {
    let app = App::new().await;
    let heard = Heard::default();
    let provider = app.provider.clone().with_policy(Broken);
    let provider = provider.with_hooks(heard.clone());
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    assert!(app.fetch(ALPHA, None).await.is_none());
    assert!(!app.fake.is_installed(ALPHA));
    assert_eq!(*heard.0.lock().expect("no panic"), ["refused"]);
}

/// Adds a permit when `installed` is called.
#[derive(Debug)]
struct Gate(Arc<Semaphore>);

#[async_trait]
impl InstallHooks for Gate {
    async fn installed(&self, _: &Installed) {
        self.0.add_permits(1);
    }

    async fn failed(&self, _: &FailedFlow) {}
}

#[tokio::test]
async fn a_browser_that_goes_away_changes_nothing_once_the_state_is_consumed() {
    let app = App::new().await;
    let done = Arc::new(Semaphore::new(0));
    let provider = app.provider.clone().with_hooks(Gate(Arc::clone(&done)));
    app.fake
        .inject("oauth.v2.access", Fault::delay(Duration::from_millis(1)));
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    {
        let request = browser.request(&provider, &Method::GET, &callback);
        tokio::pin!(request);
        // Polls until the exchange has begun, then drops the request.
        while app.exchanges() == 0 {
            tokio::select! {
                biased;
                _ = &mut request => panic!("the delayed exchange is not done yet"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let _permit = done.acquire().await.expect("open");
    assert!(app.fetch(ALPHA, None).await.is_some());
}

/// Records which hooks were called.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl InstallHooks for Heard {
    async fn installed(&self, _: &Installed) {
        self.0.lock().expect("no panic").push("installed");
    }

    async fn failed(&self, failed: &FailedFlow) {
        self.0.lock().expect("no panic").push(failed.error.name());
    }
}

#[tokio::test]
async fn hooks_hear_how_each_flow_ended() {
    let app = App::new().await;
    let heard = Heard::default();
    let provider = app.provider.clone().with_hooks(heard.clone());
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    browser.request(&provider, &Method::GET, &callback).await;
    browser.request(&provider, &Method::GET, &callback).await;
    let authorize = app.begin(&browser, options()).await;
    let cancelled = app.fake.cancel(&authorize).expect("cancelled");
    browser.request(&provider, &Method::GET, &cancelled).await;
    assert_eq!(
        *heard.0.lock().expect("no panic"),
        ["installed", "used_state", "denied"]
    );
}

#[tokio::test]
async fn every_state_is_unlike_any_other() {
    let app = App::new().await;
    let mut states = HashSet::new();
    for _ in 0..100 {
        let authorize = app.begin(&Browser::default(), options()).await;
        assert!(states.insert(parameter(&authorize, "state")));
    }
}

fn nothing_panics(provider: &InstallProvider, query: &str, cookies: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let Ok(uri) = format!("/slack/oauth_redirect?{query}").parse() else {
            return;
        };
        let mut headers = http::HeaderMap::new();
        if let Ok(cookies) = cookies.parse() {
            headers.insert("cookie", cookies);
        }
        let response = provider
            .callback_response(&Method::GET, &uri, &headers)
            .await;
        assert!(!installed(&response));
    });
}

#[test]
fn no_callback_makes_the_flow_panic_or_exchange() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let app = runtime.expect("a runtime").block_on(App::new());
    proptest!(ProptestConfig::with_cases(200), |(
        query in "(state|code|error|x)?[=&%a-zA-Z0-9+/.~-]{0,200}",
        cookies in "[ -~]{0,100}",
    )| {
        nothing_panics(&app.provider, &query, &cookies);
    });
    assert_eq!(app.exchanges(), 0);
}
