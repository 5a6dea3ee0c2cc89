//! `SlackApp`: how it is built, what it serves, how soon it responds, and how it shuts down.

// Clippy inspects all types of an app to check whether a future is `Send`, which needs a deep
// recursion.
#![recursion_limit = "256"]

#[macro_use]
mod support;

use std::future::{Future as _, pending};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::request::{SocketModeConnection, VerifiedRequest};
use slack_installs::slack::SlackClient;
use slack_installs::store::Summary;
use slack_installs::testing::{FakeSlack, Who};
use slack_installs::{
    Bot, DataKey, EncryptedStore, Enterprise, Grant, Home, Installation, InstallationKey,
    InstallationStore as _, KeyContext, KeyError, KeyProvider, LocalKeyProvider, MasterKey,
    Refusal, Refusals, Reply, SlackApp, SlackAppBuilder, Team,
};
use support::app::{ADA, ALPHA, App, Browser, OLGA, ORG, SALES, key, world};
use support::hooked::{Call, Hooked, Hooks};
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use crate::support::app::credentials;

/// Makes a database or a key provider hang when the test switches it on.
#[derive(Clone, Debug)]
struct Hanging(watch::Receiver<bool>);

impl Hanging {
    fn new() -> (Self, watch::Sender<bool>) {
        let (switch, hangs) = watch::channel(false);
        (Self(hangs), switch)
    }

    async fn pass(&self) {
        let hangs = *self.0.borrow();
        if hangs {
            pending::<()>().await;
        }
    }
}

#[async_trait]
impl Hooks for Hanging {
    async fn before(&self, _: Call<'_>) -> Result<(), Error> {
        self.pass().await;
        Ok(())
    }
}

#[derive(Debug)]
struct HangingKeys(Hanging, LocalKeyProvider);

#[async_trait]
impl KeyProvider for HangingKeys {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.0.pass().await;
        self.1.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        self.0.pass().await;
        self.1.unwrap(wrapped, context).await
    }
}

fn builder(fake: &FakeSlack) -> SlackAppBuilder {
    let slack = SlackClient::with_transport(fake.environment(), fake.transport());
    SlackApp::builder()
        .credentials(credentials(fake))
        .signing_secret(fake.signing_secret())
        .redirect_uri(support::app::REDIRECT)
        .scopes("commands,chat:write,users:read")
        .slack(slack)
        .clock(fake.clock())
}

/// Returns an app that is installed in a workspace and receives requests over Socket Mode.
async fn installed() -> (App, SlackApp) {
    let app = App::new().await;
    app.install(ADA).await;
    let front = builder(&app.fake).store(app.store.clone());
    let front = front.build().await.expect("nothing is missing");
    (app, front)
}

fn frame(fake: &FakeSlack, kind: &str, payload: &str) -> VerifiedRequest {
    let frame = format!(r#"{{"envelope_id":"1","type":"{kind}","payload":{payload}}}"#);
    let connection = SocketModeConnection::opened_with_app_token(fake.app_id());
    let request = connection.receive(Bytes::from(frame)).expect("a frame");
    request.expect("a frame with a request")
}

fn command(fake: &FakeSlack, team: &str) -> VerifiedRequest {
    let payload = format!(r#"{{"team_id":"{team}","user_id":"{ADA}","command":"/x"}}"#);
    frame(fake, "slash_commands", &payload)
}

fn event(fake: &FakeSlack, team: &str, kind: &str) -> VerifiedRequest {
    let now = fake.clock().now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let payload = format!(
        r#"{{"type":"event_callback","team_id":"{team}","api_app_id":"{}","event_id":"Ev1",
            "event_time":{now},"event":{{"type":"{kind}","user":"{ADA}"}},
            "authorizations":[{{"enterprise_id":null,"team_id":"{team}","user_id":"{ADA}",
            "is_bot":true,"is_enterprise_install":false}}]}}"#,
        fake.app_id()
    );
    frame(fake, "events_api", &payload)
}

#[tokio::test]
async fn a_job_gets_the_token_that_a_request_of_the_workspace_would_get() {
    let app = App::new().await;
    app.install(Who::user(OLGA).at(ORG)).await;
    let front = builder(&app.fake).store(app.store.clone());
    let front = front.build().await.expect("nothing is missing");
    let org = key(ORG).enterprise().cloned().expect("an organisation");
    let token = front.token_for(&key(SALES).within(org)).await;
    let token = token.expect("the organisation's installation serves it");
    let expected = app.fake.bot_token(ORG).expect("installed");
    assert_eq!(token.access_token.expose(), expected.expose());
    let unknown = front.token_for(&key(SALES)).await;
    let unknown = unknown.expect_err("nothing says that it is of the organisation");
    assert!(unknown.to_string().contains(SALES), "{unknown}");
}

#[tokio::test]
async fn socket_mode_gets_the_tokens_and_the_responses_of_the_layer() {
    let (app, front) = installed().await;
    let admitted = front.serve(command(&app.fake, ALPHA)).await;
    let admitted = admitted.expect("the app is installed there");
    let authorized = admitted.authorization.authorized.as_ref();
    let authorized = authorized.expect("the app has a bot there");
    assert_eq!(authorized.installation_key(), key(ALPHA));
    let stored = app.store.fetch(&key(ALPHA), None).await.expect("opens");
    let stored = stored.expect("installed").installation.bot.expect("a bot");
    let token = authorized.bot_token().expect("a bot's token");
    assert_eq!(token.expose(), stored.grant.access_token.expose());
    admitted.done().await;

    let reply = front.serve(command(&app.fake, "T0NOBODY001")).await;
    let reply = reply.expect_err("not installed there");
    assert_eq!(reply.status, StatusCode::OK);
    let link = "https://bot.example.com/slack/install?team=T0NOBODY001";
    let text = format!("This app is not installed here. Install it: {link}");
    assert_eq!(reply.text, text);

    assert!(app.fake.uninstall(ALPHA), "it was installed");
    let reply = front
        .serve(event(&app.fake, ALPHA, "app_uninstalled"))
        .await;
    let reply = reply.expect_err("the app handles it");
    assert_eq!((reply.status, &*reply.text), (StatusCode::OK, ""));
    let stored = app.store.fetch(&key(ALPHA), None).await.expect("responds");
    assert!(stored.is_none(), "purged");
}

/// Responds with the reason, and with the link.
#[derive(Debug)]
struct Own;

impl Refusals for Own {
    fn respond(&self, refusal: &Refusal<'_>) -> Reply {
        let link = refusal.install_url.as_ref().expect("the path is known");
        Reply::text(format!("{} {link}", refusal.reason.name()))
    }
}

#[tokio::test]
async fn socket_mode_gets_the_apps_own_responses_with_the_link_of_its_own_install_path() {
    let (app, _) = installed().await;
    let front = builder(&app.fake).store(app.store.clone());
    let front = front.install_path("/bot/install").refusals(Own);
    let front = front.build().await.expect("nothing is missing");
    let reply = front.serve(command(&app.fake, "T0NOBODY001")).await;
    let reply = reply.expect_err("not installed there");
    let link = "https://bot.example.com/bot/install?team=T0NOBODY001";
    assert_eq!(reply.text, format!("not_installed {link}"));
}

#[tokio::test]
async fn each_request_is_handled_once_if_the_app_wants_it_so() {
    let (app, _) = installed().await;
    let front = builder(&app.fake).store(app.store.clone()).handle_once();
    let front = front.build().await.expect("nothing is missing");
    let message = || event(&app.fake, ALPHA, "message");
    let first = front.serve(message()).await.expect("it is new");
    let during = front
        .serve(message())
        .await
        .expect_err("it is being handled");
    assert_eq!(during.status, StatusCode::SERVICE_UNAVAILABLE);
    first.failed().await;
    let again = front.serve(message()).await.expect("it was not handled");
    again.done().await;
    let repeated = front.serve(message()).await.expect_err("it was handled");
    assert_eq!((repeated.status, &*repeated.text), (StatusCode::OK, ""));
}

/// How long the app may take to respond: Slack's 3 s, less time for the network and the handler.
const TIME: Duration = Duration::from_millis(2500);

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_response_in_time_though_the_database_hangs() {
    let fake = FakeSlack::in_process(world());
    let (hooks, switch) = Hanging::new();
    let backend = Hooked::over(Arc::new(MemoryBackend::default()), hooks);
    let keys = LocalKeyProvider::new(MasterKey::generate());
    let store = EncryptedStore::open(backend, keys, fake.client_id()).await;
    let front = builder(&fake).store(store.expect("opens")).build().await;
    let front = front.expect("nothing is missing");
    switch.send_replace(true);
    // Authorization ends 0.5 s earlier.
    everything_is_in_time(&fake, &front, Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_response_in_time_though_the_key_provider_hangs() {
    let app = App::new().await;
    app.install(ADA).await;
    let (hooks, switch) = Hanging::new();
    let keys = HangingKeys(hooks, LocalKeyProvider::new(MasterKey::generate()));
    let backend = MemoryBackend::default();
    let store = EncryptedStore::open(backend, keys, app.fake.client_id()).await;
    let store = store.expect("opens").with_clock(app.fake.clock());
    let installation = app.store.fetch(&key(ALPHA), None).await.expect("opens");
    let installation = installation.expect("installed");
    store.store(&installation).await.expect("stored");
    let front = builder(&app.fake).store(store).build().await;
    let front = front.expect("nothing is missing");
    switch.send_replace(true);
    // No data key is cached for longer than this.
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    // A call to the key provider has a limit of its own, which is shorter.
    everything_is_in_time(&app.fake, &front, Duration::ZERO).await;
}

/// `soonest` is the earliest time of a response.
async fn everything_is_in_time(fake: &FakeSlack, front: &SlackApp, soonest: Duration) {
    for (request, status, text) in [
        (
            command(fake, ALPHA),
            StatusCode::OK,
            "This app is busy. Please try again in a moment.",
        ),
        (
            event(fake, ALPHA, "message"),
            StatusCode::SERVICE_UNAVAILABLE,
            "not done yet",
        ),
        (
            event(fake, ALPHA, "app_uninstalled"),
            StatusCode::SERVICE_UNAVAILABLE,
            "not done yet",
        ),
    ] {
        let begun = Instant::now();
        let reply = front.serve(request).await.expect_err("it hangs");
        assert_eq!((reply.status, &*reply.text), (status, text));
        let millis = begun.elapsed().as_millis();
        assert!(
            (soonest.as_millis()..=TIME.as_millis()).contains(&millis),
            "{millis}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_work_in_the_background_ends_with_the_app() {
    let (_app, front) = installed().await;
    let mut background = tokio::spawn(front.run());
    let mut polled = pin!(&mut background);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let mut context = Context::from_waker(Waker::noop());
    assert_matches!(polled.as_mut().poll(&mut context), Poll::Pending);
    assert!(front.shutdown().await, "no refresh runs");
    background.await.expect("it ends by itself");
    // Background work that starts after the shutdown ends as well.
    front.run().await;
    assert!(front.shutdown().await, "again");
}

#[tokio::test]
async fn a_job_meets_each_installation_once() {
    let (app, front) = installed().await;
    let installation = app.store.fetch(&key(ALPHA), None).await.expect("opens");
    let installation = installation.expect("installed");
    let mut expected = vec![ALPHA.to_owned()];
    // More installations than fit on one page, and one of an organisation.
    for number in 0..250 {
        let id = match number {
            0 => "E0GRID00009".to_owned(),
            _ => format!("T1{number:04}"),
        };
        let other: InstallationKey = id.parse().expect("an id");
        let home = match (other.team(), other.enterprise()) {
            (Some(team), _) => Home::Workspace {
                team: Team {
                    id: team.clone(),
                    name: None,
                },
                enterprise: None,
            },
            (None, org) => Home::Org(Enterprise {
                id: org.expect("an id").clone(),
                name: None,
            }),
        };
        let mut copy = Installation::new(installation.app_id.clone(), home, front.clock().now());
        let bot = installation.bot.as_ref().expect("a bot");
        copy.bot = Some(Bot {
            grant: Grant {
                access_token: bot.grant.access_token.clone(),
                refresh_token: None,
                expires_at: None,
                scopes: bot.grant.scopes.clone(),
            },
            id: bot.id.clone(),
            user_id: bot.user_id.clone(),
        });
        app.store.store(&copy).await.expect("stored");
        expected.push(id);
    }
    let found: Vec<Summary> = front.installations().try_collect().await.expect("responds");
    let mut found: Vec<_> = found.iter().map(|it| it.key().to_string()).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_pages_have_the_apps_name_its_site_and_its_install_path() {
    let app = App::new().await;
    let front = builder(&app.fake)
        .store(app.store.clone())
        .app_name("Standup Bot")
        .site("https://standup.example.com/")
        .install_path("/get/standup")
        .build()
        .await
        .expect("nothing is missing");
    assert_eq!(front.provider().install_path(), "/get/standup");
    let browser = Browser::default();
    let garbled = Url::parse(&format!("{}?state=x", support::app::REDIRECT)).expect("a URL");
    let page = browser.open(front.provider(), &garbled).await;
    for words in [
        "<a href=\"https://standup.example.com/\">Back to Standup Bot</a>",
        "href=\"/get/standup\">Start again</a>",
    ] {
        assert!(page.body().contains(words), "{words}: {}", page.body());
    }
}

#[tokio::test]
async fn a_site_that_is_none_is_named() {
    let app = App::new().await;
    for site in ["standup.example.com", "javascript:alert(1)", ""] {
        let built = builder(&app.fake).store(app.store.clone()).site(site);
        let error = built
            .build()
            .await
            .expect_err("it is not a site")
            .to_string();
        assert_eq!(error, format!("the app's site is {site:?}"));
    }
    for site in ["http://localhost:3000/", " https://standup.example.com "] {
        let built = builder(&app.fake).store(app.store.clone()).site(site);
        built.build().await.expect("it is a site");
    }
}
