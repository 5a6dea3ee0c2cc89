//! What strangers make the app write: nothing.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Uri};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::oauth::DefaultPages;
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{InstallOptions, InstallProvider};
use url::Url;

use super::options;
use super::support::app::{ADA, App, Browser, installed, location, with_parameter, world};

/// An app that counts the calls to its database.
struct Counted {
    app: App,
    backend: Arc<Flaky<MemoryBackend>>,
}

impl Counted {
    async fn new() -> Self {
        let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let database = Arc::clone(&backend) as Arc<dyn Backend>;
        let app = App::with(world(), database, |_| {}).await;
        Self { app, backend }
    }

    /// Returns how many reads and commits the database was asked for.
    fn calls(&self) -> u64 {
        let counts = self.backend.counts();
        counts.reads + counts.commits
    }
}

async fn get(provider: &InstallProvider, path: &str) -> http::Response<String> {
    let uri: Uri = path.parse().expect("a path");
    provider.install_response(&uri, &HeaderMap::new()).await
}

#[tokio::test]
async fn to_start_a_flow_neither_reads_nor_writes_the_store() {
    let counted = Counted::new().await;
    let provider = &counted.app.provider;
    let before = counted.calls();
    for path in [
        "/slack/install",
        "/slack/install?team=T0ALPHA0001",
        "/slack/install?team=E0GRID00001",
        "/slack/install?x=%00",
    ] {
        assert_eq!(get(provider, path).await.status(), StatusCode::FOUND);
    }
    let page = DefaultPages::new().with_install_page();
    let shown = get(&provider.clone().with_pages(page), "/slack/install").await;
    assert_eq!(shown.status(), StatusCode::OK);
    provider.start(options()).await.expect("started");
    let at_slack: Uri = "/slack/oauth_redirect?code=1".parse().expect("a path");
    let none = HeaderMap::new();
    let restarted = provider.callback_response(&Method::GET, &at_slack, &none);
    assert_eq!(restarted.await.status(), StatusCode::FOUND);
    assert_eq!(counted.calls(), before);
}

#[tokio::test]
async fn a_callback_that_is_not_its_flows_own_neither_reads_nor_writes_the_store() {
    let counted = Counted::new().await;
    let app = &counted.app;
    let before = counted.calls();
    let get = async |browser: &Browser, url: &Url| {
        let page = browser.request(&app.provider, &Method::GET, url).await;
        assert!(!installed(&page), "{url}");
        assert_eq!(counted.calls(), before, "{url}");
    };
    let (ours, theirs) = (Browser::default(), Browser::default());
    let of_session = InstallOptions {
        session: Some("ada".to_owned()),
        ..options()
    };
    let callback = app.allowed(&ours, options(), ADA).await;
    let signed_in = app.allowed(&ours, of_session, ADA).await;
    let other = app.allowed(&theirs, options(), ADA).await;
    let state = super::parameter(&callback, "state");
    for made_up in ["x", &state[1..], &"A".repeat(119), &"A".repeat(162)] {
        let url = with_parameter(&callback, "state", Some(made_up));
        get(&ours, &url).await;
        get(&Browser::default(), &url).await;
    }
    get(&Browser::default(), &callback).await;
    get(&theirs, &callback).await;
    get(&ours, &other).await;
    // Without the session, without a code, and after a refusal.
    get(&ours, &signed_in).await;
    get(&ours, &with_parameter(&callback, "code", None)).await;
    get(&ours, &with_parameter(&callback, "code", Some("two words"))).await;
    get(
        &ours,
        &with_parameter(&callback, "error", Some("access_denied")),
    )
    .await;
    app.fake.advance(Duration::from_secs(600));
    get(&ours, &callback).await;
    assert_eq!(app.exchanges(), 0);
}

#[tokio::test]
async fn a_thousand_callbacks_with_made_up_codes_leave_no_row() {
    let counted = Counted::new().await;
    let app = &counted.app;
    let rows = async || {
        let rows = crate::support::all_rows(counted.backend.inner()).await;
        rows.len()
    };
    assert!(installed(&app.install(ADA).await));
    let before = rows().await;
    for number in 0..1000 {
        let browser = Browser::default();
        let begun = get(&app.provider, "/slack/install").await;
        browser.keep_cookies(&begun);
        let authorize = location(&begun);
        let mut callback = Url::parse(super::REDIRECT).expect("a URL");
        let state = super::parameter(&authorize, "state");
        let code = format!("made-up-{number}");
        callback
            .query_pairs_mut()
            .append_pair("state", &state)
            .append_pair("code", &code);
        let page = browser.open(&app.provider, &callback).await;
        assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
    }
    assert_eq!(rows().await, before);
}
