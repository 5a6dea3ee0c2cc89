//! The cookie that carries a flow: who can open it, how often it counts, and how long it may be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode, Uri};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::oauth::{Error, InstallHooks};
use slack_installs::secret::ClientSecret;
use slack_installs::slack::ClientCredentials;
use slack_installs::{
    EncryptedStore, EnterpriseId, InstallConfig, InstallOptions, InstallProvider, LocalKeyProvider,
    MasterKey, RedirectUri, Scopes, TeamId,
};
use url::Url;

use super::options;
use super::support::app::{
    ADA, ALPHA, App, Browser, ORG, REDIRECT, credentials, installed, location,
};

/// Returns another process of this app, with this secret and this old one, over this database.
async fn process(
    app: &App,
    backend: &Arc<dyn Backend>,
    key: &str,
    secrets: (&ClientCredentials, Option<&ClientCredentials>),
) -> InstallProvider {
    let keys = LocalKeyProvider::new(MasterKey::parse(key).expect("a key"));
    let store = EncryptedStore::open(Arc::clone(backend), keys, app.fake.client_id()).await;
    let store = store.expect("opens").with_clock(app.fake.clock());
    let redirect = RedirectUri::new(REDIRECT).expect("a redirect URL");
    let config = InstallConfig::new(secrets.0.clone(), redirect, Scopes::from("commands"));
    let slack = match secrets.1 {
        Some(old) => app.slack.clone().with_old_credentials(old.clone()),
        None => app.slack.clone(),
    };
    let provider = InstallProvider::new(config, slack, store.clone(), store);
    provider.expect("it works").with_clock(app.fake.clock())
}

/// Returns two processes of one app, over one database.
async fn two_processes(app: &App) -> [InstallProvider; 2] {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let key = "22".repeat(32);
    let ours = credentials(&app.fake);
    [
        process(app, &backend, &key, (&ours, None)).await,
        process(app, &backend, &key, (&ours, None)).await,
    ]
}

/// Starts a flow in this process, and returns the callback.
async fn allowed(app: &App, provider: &InstallProvider, browser: &Browser) -> Url {
    let begun = provider.start_response(options()).await;
    browser.keep_cookies(&begun);
    app.fake.allow(&location(&begun), ADA).expect("allowed")
}

#[tokio::test]
async fn of_callbacks_to_two_processes_at_once_one_exchanges() {
    let app = App::new().await;
    let [one, other] = two_processes(&app).await;
    for _ in 0..20 {
        let browser = Browser::default();
        let callback = allowed(&app, &one, &browser).await;
        let exchanges = app.exchanges();
        let (first, second) = tokio::join!(
            browser.request(&one, &Method::GET, &callback),
            browser.request(&other, &Method::GET, &callback),
        );
        assert!(installed(&first) != installed(&second));
        assert_eq!(app.exchanges(), exchanges + 1);
    }
}

#[tokio::test]
async fn a_cookie_that_was_used_is_used_in_every_process_until_it_expires() {
    let app = App::new().await;
    let [one, other] = two_processes(&app).await;
    let browser = Browser::default();
    let callback = allowed(&app, &one, &browser).await;
    assert!(installed(&browser.open(&one, &callback).await));
    for (seconds, says) in [
        (0, "used before"),
        (599, "used before"),
        (1, "took too long"),
    ] {
        app.fake.advance(Duration::from_secs(seconds));
        for provider in [&one, &other] {
            let page = browser.request(provider, &Method::GET, &callback).await;
            assert!(page.body().contains(says), "{}", page.body());
        }
    }
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test]
async fn a_flow_ends_only_where_its_app_and_one_of_its_secrets_are_known() {
    let app = App::new().await;
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let key = "22".repeat(32);
    let current = credentials(&app.fake);
    let with = |secret: &str| ClientCredentials {
        client_secret: ClientSecret::new(secret).expect("a secret"),
        ..current.clone()
    };
    let (old, next, foreign) = (with("old"), with("next"), with("foreign"));
    let mut processes = Vec::new();
    for (names, secret, before) in [
        ("current", &current, None),
        ("current old", &current, Some(&old)),
        ("next current", &next, Some(&current)),
        ("old", &old, None),
        ("next", &next, None),
        ("foreign", &foreign, None),
    ] {
        let provider = process(&app, &backend, &key, (secret, before)).await;
        processes.push((names, provider));
    }
    for (ours, started) in &processes {
        for (theirs, ended) in &processes {
            let browser = Browser::default();
            let callback = allowed(&app, started, &browser).await;
            let exchanges = app.exchanges();
            let page = browser.open(ended, &callback).await;
            let mut names = ours.split(' ');
            let is_known = names.any(|name| theirs.split(' ').any(|other| other == name));
            // Slack decides whether the exchange succeeds: it knows only one of the secrets.
            let is_exchanged = app.exchanges() > exchanges;
            assert_eq!(is_exchanged, is_known, "{ours}, {theirs}: {}", page.body());
        }
    }
}

#[tokio::test]
async fn no_changed_cookie_ends_a_flow_or_spends_it() {
    let app = App::new().await;
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let ours = browser.cookies()[0].clone();
    let (name, value) = ours.split_once('=').expect("a pair");
    let uri: Uri = callback[url::Position::BeforePath..]
        .parse()
        .expect("a path");
    let open = async |value: &str| {
        let mut headers = HeaderMap::new();
        let cookie = format!("{name}={value}").parse().expect("visible ASCII");
        headers.insert(COOKIE, cookie);
        let get = &Method::GET;
        app.provider.callback_response(get, &uri, &headers).await
    };
    for at in 0..value.len() {
        let other = if &value[at..=at] == "A" { "B" } else { "A" };
        for changed in [
            format!("{}{other}{}", &value[..at], &value[at + 1..]),
            value[..at].to_owned(),
            format!("{}{other}{}", &value[..at], &value[at..]),
        ] {
            let page = open(&changed).await;
            assert_eq!(page.status(), StatusCode::BAD_REQUEST, "{changed}");
            assert!(page.body().contains("another browser"), "{}", page.body());
        }
    }
    assert_eq!(app.exchanges(), 0);
    assert!(installed(&open(value).await));
}

fn large(metadata: usize) -> InstallOptions {
    InstallOptions {
        session: Some("ada".repeat(100)),
        team: Some(TeamId::new(ALPHA).expect("an id")),
        enterprise: Some(EnterpriseId::new(ORG).expect("an id")),
        metadata: Some("\"\u{0}\u{e9}".chars().cycle().take(metadata).collect()),
        ..options()
    }
}

#[tokio::test]
async fn metadata_of_2_kib_fits_and_one_byte_more_is_refused_at_the_start() {
    let app = App::new().await;
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let (key, current) = ("22".repeat(32), credentials(&app.fake));
    let old = ClientCredentials {
        client_secret: ClientSecret::new("old").expect("a secret"),
        ..current.clone()
    };
    let alone = process(&app, &backend, &key, (&current, None)).await;
    let both = process(&app, &backend, &key, (&current, Some(&old))).await;
    for provider in [alone, both] {
        // A third of the characters have two bytes.
        let options = large(1536);
        let metadata = options.metadata.clone().expect("it is set");
        assert_eq!(metadata.len(), 2048);
        let started = provider.start(options).await.expect("started");
        let cookie = started.set_cookie.expose();
        assert!(cookie.len() <= 4096, "{}", cookie.len());
        let text = InstallOptions {
            metadata: Some(format!("{metadata}x")),
            ..InstallOptions::default()
        };
        let refused = provider.start(text).await.expect_err("too large");
        assert!(matches!(refused, Error::Options(_)));
        let says = refused.to_string();
        for words in ["larger than 2 KiB", "pass the id of a record"] {
            assert!(says.contains(words), "{says}");
        }
    }
    let largest = InstallOptions {
        metadata: large(1536).metadata,
        ..options()
    };
    let metadata = largest.metadata.clone();
    assert!(installed(&app.install_with(largest, ADA).await));
    assert_eq!(
        app.stored(ALPHA, None).await.installation.metadata,
        metadata
    );
}

fn some_scopes(count: usize) -> String {
    let scopes: Vec<_> = (0..count)
        .map(|nth| format!("some:scope{nth:04}"))
        .collect();
    scopes.join(",")
}

#[tokio::test]
async fn scopes_that_do_not_fit_beside_the_metadata_are_refused_at_the_start() {
    let app = App::new().await;
    let with = |scopes: usize, metadata: usize| InstallOptions {
        user_scopes: Some(Scopes::from(&*some_scopes(scopes))),
        metadata: Some("m".repeat(metadata)),
        ..options()
    };
    // Each of these scopes has 15 characters.
    assert!(app.provider.start(with(40, 2048)).await.is_ok());
    assert!(app.provider.start(with(150, 0)).await.is_ok());
    for options in [with(60, 2048), with(190, 0)] {
        let refused = app.provider.start(options.clone()).await;
        let says = refused.expect_err("too long").to_string();
        assert!(says.contains("too long together for a cookie"), "{says}");
        let page = app.provider.start_response(options).await;
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        assert!(page.headers().get(SET_COOKIE).is_none());
    }
}

/// Starts each flow with as much metadata as possible.
#[derive(Debug)]
struct Large;

#[async_trait]
impl InstallHooks for Large {
    async fn starting(&self, options: InstallOptions, _: &Uri, _: &HeaderMap) -> InstallOptions {
        InstallOptions {
            metadata: Some("m".repeat(2048)),
            ..options
        }
    }
}

#[tokio::test]
async fn a_browser_keeps_the_newest_flows_and_its_cookies_stay_within_7_kib() {
    let app = App::new().await;
    let large = app.provider.clone().with_hooks(Large);
    // How many flows a browser starts, and how many of them end.
    for (provider, started, ended) in [
        (&large, 6, 2),
        (&app.provider, 8, 8),
        (&app.provider, 60, 20),
    ] {
        let browser = Browser::default();
        let mut callbacks = Vec::new();
        for _ in 0..started {
            let install = Url::parse("https://bot.example.com/slack/install").expect("a URL");
            let uri = "/slack/install".parse().expect("a path");
            let headers = browser.headers(&install);
            let begun = provider.install_response(&uri, &headers).await;
            browser.keep_cookies(&begun);
            callbacks.push(app.fake.allow(&location(&begun), ADA).expect("allowed"));
            let together = browser.cookies().join("; ").len();
            assert!(together <= 7 * 1024, "{together}");
        }
        let mut installs = Vec::new();
        for callback in &callbacks {
            installs.push(installed(&browser.open(provider, callback).await));
        }
        let oldest = installs.iter().take_while(|ends| !**ends).count();
        assert!(installs[oldest..].iter().all(|ends| *ends), "{installs:?}");
        assert!(started - oldest >= ended, "{installs:?}");
    }
}
