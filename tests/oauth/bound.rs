//! Where a flow is to install the app, and for whom: the workspace or organisation, and the session
//! of the app.

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::json;
use slack_installs::oauth::{DefaultPages, Error, InstallHooks};
use slack_installs::testing::Who;
use slack_installs::{Enterprise, Home, InstallOptions, InstallationStore as _, Scopes};

use super::support::app::{
    ADA, ALPHA, App, BRAVO, Browser, OLGA, ORG, SALES, installed, location, parameter,
    with_parameter,
};

/// Starts a flow at the install path with this query, and returns the page at its end.
async fn installs(app: &App, query: &str, who: impl Into<Who>) -> http::Response<String> {
    let uri = format!("/slack/install{query}").parse().expect("a path");
    let begun = app.provider.install_response(&uri, &HeaderMap::new()).await;
    let browser = Browser::default();
    browser.keep_cookies(&begun);
    let callback = app.fake.allow(&location(&begun), who).expect("allowed");
    browser.open(&app.provider, &callback).await
}

#[tokio::test]
async fn an_org_wide_install_that_covers_the_workspace_is_the_one_that_was_meant() {
    let app = App::new().await;
    let page = installs(&app, &format!("?team={SALES}"), Who::user(OLGA).at(ORG)).await;
    assert!(installed(&page), "{}", page.body());
    assert!(app.fetch(ORG, None).await.is_some());
    assert_eq!(app.fake.calls("auth.revoke"), 0);
}

#[tokio::test]
async fn a_workspace_that_is_already_known_to_be_in_the_organisation_is_covered() {
    let app = App::new().await;
    assert!(installed(&app.install("U0GRIDUSR02").await));
    // Without `users:read`, only the stored installation says where the workspace belongs.
    let options = InstallOptions {
        scopes: Some(Scopes::from("commands")),
        team: Some(SALES.try_into().expect("an id")),
        ..InstallOptions::default()
    };
    let page = app.install_with(options, Who::user(OLGA).at(ORG)).await;
    assert!(installed(&page), "{}", page.body());
}

/// Returns the page at the end of an org-wide flow that was to install the app in this workspace,
/// and that requests no scope by which the app could read the organisation's people.
async fn org_wide_for(app: &App, team: &str) -> http::Response<String> {
    let options = InstallOptions {
        scopes: Some(Scopes::from("commands")),
        team: Some(team.try_into().expect("an id")),
        ..InstallOptions::default()
    };
    app.install_with(options, Who::user(OLGA).at(ORG)).await
}

#[tokio::test]
async fn a_workspace_that_is_known_to_be_in_another_organisation_is_not_covered() {
    let app = App::new().await;
    assert!(installed(&app.install(ADA).await));
    let mut stored = app.stored(ALPHA, None).await.installation;
    let team = stored.home.team().cloned();
    let other = Enterprise {
        id: "E0OTHER0001".try_into().expect("an id"),
        name: None,
    };
    stored.home = Home::new(Some(other), team, false).expect("a workspace");
    app.store.store(&stored).await.expect("stored");
    let page = org_wide_for(&app, ALPHA).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{}", page.body());
    assert!(app.fetch(ORG, None).await.is_none());
}

#[tokio::test]
async fn only_the_people_of_the_organisation_say_which_workspaces_it_has() {
    for (organisation, is_covered) in [(ORG, true), ("E0OTHER0001", false)] {
        let app = App::new().await;
        app.fake.respond(
            "users.info",
            json!({"ok": true, "user": {"id": OLGA, "enterprise_user": {
                "enterprise_id": organisation, "teams": [SALES],
            }}}),
        );
        let page = installs(&app, &format!("?team={SALES}"), Who::user(OLGA).at(ORG)).await;
        assert_eq!(installed(&page), is_covered, "{}", page.body());
    }
}

#[tokio::test]
async fn a_workspace_that_any_page_of_the_organisations_list_names_is_covered() {
    for (pages, is_covered) in [
        (vec![vec![SALES]], true),
        (vec![vec!["T0OTHER0001", SALES]], true),
        (vec![vec!["T0OTHER0001"], vec![SALES]], true),
        (vec![vec!["T0OTHER0001"], vec![]], false),
        (vec![vec![]], false),
    ] {
        let app = App::new().await;
        let listed = pages.clone();
        app.fake.respond_with("auth.teams.list", move |call| {
            let cursor = call.args["cursor"].as_str().unwrap_or_default();
            let page: usize = cursor.parse().unwrap_or(0);
            let teams = listed[page].iter().map(|id| json!({"id": id}));
            let is_last = page + 1 == listed.len();
            let next = if is_last {
                String::new()
            } else {
                (page + 1).to_string()
            };
            json!({
                "ok": true,
                "teams": teams.collect::<Vec<_>>(),
                "response_metadata": {"next_cursor": next},
            })
        });
        let page = org_wide_for(&app, SALES).await;
        assert_eq!(installed(&page), is_covered, "{pages:?}: {}", page.body());
    }
}

#[tokio::test]
async fn an_organisation_may_be_what_was_meant() {
    let org = format!("?team={ORG}");
    let app = App::new().await;
    let uri = format!("/slack/install{org}").parse().expect("a path");
    let begun = app.provider.install_response(&uri, &HeaderMap::new()).await;
    assert_eq!(parameter(&location(&begun), "team"), ORG);
    assert!(installed(
        &installs(&app, &org, Who::user(OLGA).at(ORG)).await
    ));
    // A workspace of the organisation is inside it, and any other is not.
    assert!(installed(&installs(&app, &org, "U0GRIDUSR02").await));
    let page = installs(&app, &org, ADA).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{}", page.body());
    assert!(app.fetch(ALPHA, None).await.is_none());
    assert!(!app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn an_install_outside_of_what_was_meant_is_still_refused() {
    for (team, who) in [(BRAVO, Who::user(ADA)), (ALPHA, Who::user(OLGA).at(ORG))] {
        let app = App::new().await;
        let page = installs(&app, &format!("?team={team}"), who).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{}", page.body());
        assert_eq!(app.fake.calls("auth.revoke"), 1, "{team}");
    }
}

#[tokio::test]
async fn a_page_before_the_flow_is_shown_only_if_the_app_wants_it_and_keeps_the_query() {
    let app = App::new().await;
    let none = HeaderMap::new();
    let uri: Uri = "/slack/install?team=T0BRAVO0002&x=%22%3E%3Cb%3E"
        .parse()
        .expect("a path");
    let direct = app.provider.install_response(&uri, &none).await;
    assert_eq!(direct.status(), StatusCode::FOUND);
    let pages = DefaultPages::new()
        .with_app_name("<i>Bot</i>")
        .with_install_page();
    let provider = app.provider.clone().with_pages(pages);
    let page = provider.install_response(&uri, &none).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers().get("set-cookie").is_none());
    let body = page.body();
    assert!(body.contains("Install &lt;i&gt;Bot&lt;/i&gt;"), "{body}");
    assert!(body.contains("<li>send messages</li>"), "{body}");
    assert!(!body.contains("<b>"), "{body}");
    let start = body.split("href=\"").nth(1).expect("a link");
    let start = start
        .split('"')
        .next()
        .expect("it ends")
        .replace("&amp;", "&");
    assert!(
        start.starts_with("/slack/install?team=T0BRAVO0002&"),
        "{start}"
    );
    let begun = provider
        .install_response(&start.parse().expect("a path"), &none)
        .await;
    assert_eq!(begun.status(), StatusCode::FOUND);
    assert_eq!(parameter(&location(&begun), "team"), BRAVO);
}

/// An app whose signed-in user, and plan, are in the header `x-session`.
#[derive(Debug)]
struct Sessions;

#[async_trait]
impl InstallHooks for Sessions {
    async fn starting(
        &self,
        options: InstallOptions,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> InstallOptions {
        let session = self.session(headers).await;
        InstallOptions {
            metadata: session
                .as_ref()
                .map(|session| format!("{session} at {}", uri.path())),
            session,
            ..options
        }
    }

    async fn session(&self, headers: &HeaderMap) -> Option<String> {
        let session = headers.get("x-session")?;
        assert_ne!(session, "panic");
        Some(session.to_str().expect("visible ASCII").to_owned())
    }
}

fn signed_in(mut headers: HeaderMap, session: Option<&str>) -> HeaderMap {
    if let Some(session) = session {
        headers.insert("x-session", session.parse().expect("visible ASCII"));
    }
    headers
}

#[tokio::test]
async fn a_flow_ends_only_in_the_session_in_which_it_started() {
    let app = App::new().await;
    let provider = app.provider.clone().with_hooks(Sessions);
    let install = "/slack/install".parse().expect("a path");
    for (started, ended, ends) in [
        (Some("ada"), Some("ada"), true),
        (Some("ada"), Some("bob"), false),
        (Some("ada"), None, false),
        (None, None, true),
        (None, Some("ada"), true),
    ] {
        let browser = Browser::default();
        let headers = signed_in(HeaderMap::new(), started);
        let begun = provider.install_response(&install, &headers).await;
        browser.keep_cookies(&begun);
        let authorize = location(&begun);
        assert!(!authorize.as_str().contains("ada"), "{authorize}");
        let callback = app.fake.allow(&authorize, ADA).expect("allowed");
        let uri: Uri = callback[url::Position::BeforePath..]
            .parse()
            .expect("a path");
        let exchanges = app.exchanges();
        let headers = signed_in(browser.headers(&callback), ended);
        let page = provider
            .callback_response(&Method::GET, &uri, &headers)
            .await;
        assert_eq!(
            installed(&page),
            ends,
            "{started:?} {ended:?}: {}",
            page.body()
        );
        if ends {
            let metadata = app.stored(ALPHA, None).await.installation.metadata;
            if let Some(started) = started {
                assert_eq!(metadata, Some(format!("{started} at /slack/install")));
            }
            continue;
        }
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        assert!(page.body().contains("another account"), "{}", page.body());
        assert_eq!(app.exchanges(), exchanges);
        // The state was not consumed: back in the right session, the flow ends.
        let headers = signed_in(browser.headers(&callback), started);
        let page = provider
            .callback_response(&Method::GET, &uri, &headers)
            .await;
        assert!(installed(&page), "{}", page.body());
    }
}

#[tokio::test]
async fn a_flow_that_begins_at_slack_has_the_options_of_the_app() {
    let app = App::new().await;
    let provider = app.provider.clone().with_hooks(Sessions);
    let browser = Browser::default();
    let headers = signed_in(HeaderMap::new(), Some("ada"));
    let at_slack = "/slack/oauth_redirect?code=1".parse().expect("a path");
    let begun = provider
        .callback_response(&Method::GET, &at_slack, &headers)
        .await;
    assert_eq!(begun.status(), StatusCode::FOUND);
    browser.keep_cookies(&begun);
    let callback = app.fake.allow(&location(&begun), ADA).expect("allowed");
    let uri: Uri = callback[url::Position::BeforePath..]
        .parse()
        .expect("a path");
    let headers = signed_in(browser.headers(&callback), Some("ada"));
    let page = provider
        .callback_response(&Method::GET, &uri, &headers)
        .await;
    assert!(installed(&page), "{}", page.body());
    let metadata = app.stored(ALPHA, None).await.installation.metadata;
    assert_eq!(metadata.as_deref(), Some("ada at /slack/oauth_redirect"));
}

#[tokio::test]
async fn a_hook_that_panics_before_a_flow_spends_nothing() {
    let app = App::new().await;
    let provider = app.provider.clone().with_hooks(Sessions);
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    let uri: Uri = callback[url::Position::BeforePath..]
        .parse()
        .expect("a path");
    let headers = signed_in(browser.headers(&callback), Some("panic"));
    let page = provider
        .callback_response(&Method::GET, &uri, &headers)
        .await;
    assert_eq!(page.status().as_u16(), Error::Hook.status().as_u16());
    let install = "/slack/install".parse().expect("a path");
    let page = provider.install_response(&install, &headers).await;
    assert_eq!(page.status().as_u16(), Error::Hook.status().as_u16());
    assert_eq!(app.exchanges(), 0);
    let headers = signed_in(browser.headers(&callback), None);
    let page = provider
        .callback_response(&Method::GET, &uri, &headers)
        .await;
    assert!(installed(&page), "{}", page.body());
}

#[tokio::test]
async fn options_that_cannot_work_are_not_shown_as_a_wrong_link() {
    let app = App::new().await;
    let options = InstallOptions {
        metadata: Some("m".repeat(2049)),
        ..InstallOptions::default()
    };
    let page = app.provider.start_response(options).await;
    assert_eq!(page.status(), StatusCode::BAD_REQUEST);
    assert!(
        page.body().contains("could not be started"),
        "{}",
        page.body()
    );
    assert!(!page.body().contains("not complete"), "{}", page.body());
    assert!(!page.body().contains("2 KiB"), "{}", page.body());
    assert!(
        page.body().contains("href=\"/slack/install\""),
        "{}",
        page.body()
    );
}

#[tokio::test]
async fn the_page_of_an_expired_state_leads_back_to_the_start() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    app.fake.advance(std::time::Duration::from_secs(601));
    // With its cookie, and without: browsers delete it when it expires.
    for url in [callback.clone(), with_parameter(&callback, "code", None)] {
        let page = browser.open(&app.provider, &url).await;
        assert!(page.body().contains("took too long"), "{}", page.body());
        assert!(
            page.body().contains("href=\"/slack/install\""),
            "{}",
            page.body()
        );
        let page = Browser::default().open(&app.provider, &url).await;
        assert!(page.body().contains("took too long"), "{}", page.body());
    }
}
