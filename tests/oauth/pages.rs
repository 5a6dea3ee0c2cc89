//! The pages that a user sees after a flow.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use slack_installs::oauth::{DefaultPages, Error, FailedFlow, Installed, PageResponse, Pages};
use slack_installs::slack::{self, ErrorCode, TransportError};
use slack_installs::testing::Who;
use slack_installs::{InstallOptions, store};
use url::Url;

use super::options;
use super::support::app::{ADA, ALPHA, App, Browser, OLGA, ORG, REDIRECT, SALES, installed};
use super::support::hooked_transport::Rewritten;

fn exchange(code: &str) -> Error {
    Error::Exchange(slack::Error::Api {
        code: ErrorCode::new(code),
        needed: "".into(),
    })
}

fn stored(unavailable: bool) -> Error {
    Error::Store(if unavailable {
        store::Error::Unavailable("away".into())
    } else {
        store::Error::Unreadable("changed".into())
    })
}

/// Returns every error with its name, its status, whether it is transient, and words of its page.
pub(super) fn errors() -> Vec<(Error, &'static str, u16, bool, &'static str)> {
    let lost = Error::Exchange(TransportError::Lost("cut".into()).into());
    let not_ours = "Nothing is wrong on your side";
    let again = "Slack no longer accepts this installation";
    let incomplete = "not complete, or not from this app";
    let denied = |code| Error::Denied(ErrorCode::new(code));
    let refused = Error::Refused {
        reason: "Ask your admin.".into(),
    };
    vec![
        (
            denied("access_denied"),
            "denied",
            200,
            false,
            "You chose not",
        ),
        (
            denied("server_error"),
            "denied",
            200,
            false,
            "not allow it: server_error",
        ),
        (exchange("invalid_code"), "exchange", 502, false, again),
        (exchange("code_already_used"), "exchange", 502, false, again),
        (
            exchange("bad_client_secret"),
            "exchange",
            502,
            false,
            not_ours,
        ),
        (exchange("internal_error"), "exchange", 502, true, not_ours),
        (lost, "exchange", 502, true, not_ours),
        (Error::Hook, "hook", 500, false, not_ours),
        (Error::Interrupted, "interrupted", 503, true, not_ours),
        (Error::InvalidState, "invalid_state", 400, false, incomplete),
        (Error::NoCode, "no_code", 400, false, incomplete),
        (Error::NoState, "no_state", 400, false, incomplete),
        (
            Error::NothingGranted,
            "nothing_granted",
            400,
            false,
            "granted nothing",
        ),
        (Error::OtherApp, "other_app", 400, false, not_ours),
        (
            Error::OtherBrowser,
            "other_browser",
            400,
            false,
            "in another browser",
        ),
        (
            Error::OtherSession,
            "other_session",
            400,
            false,
            "signed in with another account",
        ),
        (
            Error::OtherTeam,
            "other_team",
            400,
            false,
            "in another workspace",
        ),
        (refused, "refused", 403, false, "Ask your admin."),
        (
            Error::StateExpired,
            "state_expired",
            400,
            true,
            "took too long",
        ),
        (stored(true), "store", 503, true, not_ours),
        (stored(false), "store", 503, false, not_ours),
        (Error::UsedState, "used_state", 400, true, "used before"),
    ]
}

#[test]
fn every_failure_has_its_name_its_status_and_its_page() {
    for (error, name, status, transient, words) in errors() {
        assert_eq!(error.name(), name, "{error}");
        assert_eq!(error.status().as_u16(), status, "{error}");
        assert_eq!(error.is_transient(), transient, "{error}");
        let error = FailedFlow::new(error);
        let PageResponse::Html(page) = DefaultPages::new().failed(&error) else {
            panic!("{error}: a redirect");
        };
        assert!(page.contains(words), "{error}: {page}");
        // The page contains no other error's words.
        for (other, .., others) in errors() {
            if others != words {
                assert!(!page.contains(others), "{error} like {other}: {page}");
            }
        }
    }
}

#[test]
fn whatever_a_reason_has_in_it_is_shown_as_text() {
    let reason = r#"<b>&amp;"it's"</b>"#.to_owned();
    let refused = FailedFlow::new(Error::Refused { reason });
    let PageResponse::Html(page) = DefaultPages::new().failed(&refused) else {
        panic!("a redirect");
    };
    let text = "<p>&lt;b&gt;&amp;amp;&quot;it&#39;s&quot;&lt;/b&gt;</p>";
    assert!(page.contains(text), "{page}");
}

#[test]
fn every_failure_page_leads_back_to_the_install_path_and_to_the_apps_site() {
    let pages = DefaultPages::new()
        .with_app_name("Stand & Deliver")
        .with_site(Url::parse("https://app.example.com/?a=1&b='2'").expect("a URL"))
        .with_install_path("/bot/install");
    for (error, ..) in errors() {
        let error = FailedFlow::new(error);
        let PageResponse::Html(page) = pages.failed(&error) else {
            panic!("{error}: a redirect");
        };
        let again = links(&page, "/bot/install");
        assert!(again == ["Start again"] || again == ["Try again"], "{page}");
        let site = links(&page, "https://app.example.com/?a=1&amp;b=%272%27");
        assert_eq!(site, ["Back to Stand &amp; Deliver"], "{page}");
        assert_eq!(page.matches("<a ").count(), 2, "{page}");
        let PageResponse::Html(page) = DefaultPages::default().failed(&error) else {
            panic!("{error}: a redirect");
        };
        assert_eq!(links(&page, "/slack/install").len(), 1, "{page}");
        assert_eq!(page.matches("<a ").count(), 1, "{page}");
    }
}

/// Returns the texts of the links to this URL.
fn links<'a>(page: &'a str, href: &str) -> Vec<&'a str> {
    let to = format!("href=\"{href}\">");
    let texts = page.split(&to).skip(1);
    texts
        .map(|text| text.split("</a>").next().expect("it ends"))
        .collect()
}

#[tokio::test]
async fn the_success_page_opens_the_app_in_its_workspace() {
    let app = App::new().await;
    let app_id = app.fake.app_id();
    let page = app.install(ADA).await;
    let page = page.body();
    assert!(page.contains("<p>The app is installed in Alpha "), "{page}");
    let to = format!("https://slack.com/app_redirect?app={app_id}&amp;team={ALPHA}");
    assert_eq!(links(page, &to), ["Open in Slack"], "{page}");
    // A workspace of an organisation is handled like any other workspace.
    let page = app.install("U0GRIDUSR02").await;
    let page = page.body();
    let to = format!("https://slack.com/app_redirect?app={app_id}&amp;team={SALES}");
    assert_eq!(links(page, &to), ["Open in Slack"], "{page}");
    assert_eq!(page.matches("<a ").count(), 1, "{page}");
}

#[tokio::test]
async fn the_success_page_of_an_organisation_leads_to_adding_workspaces() {
    let app = App::new().await;
    let page = app.install(Who::user(OLGA).at(ORG)).await;
    let page = page.body();
    let app_id = app.fake.app_id();
    let to =
        format!("https://app.slack.com/manage/{ORG}/integrations/profile/{app_id}/workspaces/add");
    assert_eq!(links(page, &to), ["Add workspaces"], "{page}");
    assert_eq!(page.matches("<a ").count(), 1, "{page}");
}

#[tokio::test]
async fn the_success_page_has_the_apps_name_and_its_site_as_text() {
    let app = App::new().await;
    let pages = DefaultPages::new()
        .with_app_name(r#""><b>Bot</b>"#)
        .with_site(Url::parse(r#"https://app.example.com/'><b>?"#).expect("a URL"));
    let provider = app.provider.clone().with_pages(pages);
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let page = browser.open(&provider, &callback).await;
    let page = page.body();
    let name = "&quot;&gt;&lt;b&gt;Bot&lt;/b&gt;";
    assert!(
        page.contains(&format!("<p>{name} is installed in Alpha ")),
        "{page}"
    );
    let site = links(page, "https://app.example.com/&#39;%3E%3Cb%3E?");
    assert_eq!(site, [format!("Back to {name}")], "{page}");
    assert!(!page.contains("<b>"), "{page}");
}

#[tokio::test]
async fn the_default_pages_know_a_changed_install_path() {
    let app = App::configured(|config| config.install_path = "/get-it".into()).await;
    let garbled = Url::parse(&format!("{REDIRECT}?state=x")).expect("a URL");
    let page = Browser::default().open(&app.provider, &garbled).await;
    assert_eq!(
        links(page.body(), "/get-it"),
        ["Start again"],
        "{}",
        page.body()
    );
}

/// Checks the headers that keep a page out of caches, referrers and frames.
fn assert_guarded(response: &Response<String>) {
    let header = |name| response.headers()[name].to_str().expect("visible ASCII");
    assert_eq!(header(&CACHE_CONTROL), "no-store");
    assert_eq!(header(&CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(header(&REFERRER_POLICY), "no-referrer");
    assert_eq!(header(&X_CONTENT_TYPE_OPTIONS), "nosniff");
    let policy = header(&CONTENT_SECURITY_POLICY);
    for rule in [
        "default-src 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
}

#[tokio::test]
async fn every_response_of_a_flow_is_guarded() {
    let app = App::new().await;
    let browser = Browser::default();
    assert_guarded(&app.provider.start_response(options()).await);
    let callback = app.allowed(&browser, options(), ADA).await;
    let head = browser.request(&app.provider, &Method::HEAD, &callback);
    assert_guarded(&head.await);
    assert_guarded(&browser.open(&app.provider, &callback).await);
    assert_guarded(&browser.open(&app.provider, &callback).await);
}

/// Redirects to the app's own pages.
#[derive(Debug)]
struct Elsewhere;

impl Pages for Elsewhere {
    fn installed(&self, installed: &Installed) -> PageResponse {
        let tenant = installed.installation.key();
        let url = format!("https://app.example.com/welcome?to={}", tenant.id());
        PageResponse::Redirect(Url::parse(&url).expect("a URL"))
    }

    fn failed(&self, failed: &FailedFlow) -> PageResponse {
        let url = format!("https://app.example.com/sorry?why={}", failed.error.name());
        PageResponse::Redirect(Url::parse(&url).expect("a URL"))
    }
}

#[tokio::test]
async fn a_hosts_own_pages_are_shown_however_a_flow_ends() {
    let app = App::new().await;
    let provider = app.provider.clone().with_pages(Elsewhere);
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    for to in [
        "https://app.example.com/welcome?to=T0ALPHA0001",
        "https://app.example.com/sorry?why=used_state",
    ] {
        let response = browser.open(&provider, &callback).await;
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.headers()[LOCATION], to);
        assert_guarded(&response);
    }
    // An invalid state, and a query that Slack would not send.
    for query in ["state=x", "state=x&state=x"] {
        let garbled = Url::parse(&format!("{REDIRECT}?{query}")).expect("a URL");
        let response = browser.open(&provider, &garbled).await;
        let to = "https://app.example.com/sorry?why=invalid_state";
        assert_eq!(response.headers()[LOCATION], to, "{query}");
    }
}

#[tokio::test]
async fn the_page_names_what_the_app_was_installed_in() {
    let app = App::new().await;
    let org_wide = app.install(Who::user(OLGA).at(ORG)).await;
    let page = org_wide.body();
    assert!(page.contains("is installed in Gridline Org."), "{page}");
    let page = app.install(ADA).await;
    assert!(
        page.body().contains("is installed in Alpha "),
        "{}",
        page.body()
    );
    // Slack usually names the organisation or the workspace, but not always.
    for (who, id) in [(Who::user(ADA), ALPHA), (Who::user(OLGA).at(ORG), ORG)] {
        let nameless = Rewritten::over(app.fake.transport(), |_: &str, body: Bytes| {
            let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
            for place in ["team", "enterprise"] {
                if answer[place].is_object() {
                    answer[place]["name"] = json!(null);
                }
            }
            answer.to_string().into()
        });
        let provider = app.provider_over(app.store.clone(), nameless);
        let browser = Browser::default();
        let callback = app.allowed(&browser, InstallOptions::default(), who).await;
        let page = browser.open(&provider, &callback).await;
        assert!(installed(&page), "{}", page.body());
        let words = format!("is installed in {id}.");
        assert!(page.body().contains(&words), "{}", page.body());
    }
}
