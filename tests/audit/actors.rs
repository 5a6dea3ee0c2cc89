//! On whose behalf the parts of this crate act.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use slack_installs::audit::{Audit, AuditOptions, Detail, Filter, LogRecord, records};
use slack_installs::layer::SlackLayer;
use slack_installs::operate::Operator;
use slack_installs::store::AuditContext;
use slack_installs::{Authorizer, InstallOptions, Lifecycle};
use tower_layer::Layer as _;
use tower_service::Service as _;
use url::Url;

use crate::support::app::{ADA, ALPHA, Browser, Store, credentials, key};
use crate::support::checks::until;
use crate::support::life::Life;

/// An app whose store reports to a log.
struct Watched {
    life: Life,
    audit: Audit,
    store: Store,
}

impl Watched {
    async fn new() -> Self {
        let life = Life::new().await;
        let log = Arc::new(life.app.store.clone());
        let options = AuditOptions::default().with_clock(life.app.fake.clock());
        let audit = Audit::open(log, options.strict()).await.expect("opens");
        let store = life.app.store.clone().with_witness(audit.clone());
        let watched = Self { life, audit, store };
        // They are recorded in the background.
        until("the data key is recorded", async || {
            watched
                .records()
                .await
                .iter()
                .filter(|it| it.detail.is_some())
                .count()
                == 2
        })
        .await;
        watched
    }

    async fn records(&self) -> Vec<LogRecord> {
        let records = records(&self.life.app.store, Filter::default());
        records.try_collect().await.expect("the database is up")
    }

    /// Returns the changes of this row.
    async fn changes(&self, row: &str) -> Vec<Detail> {
        let records = self.records().await.into_iter();
        let changes = records.filter(|it| it.public.event != "open");
        let details = changes.filter_map(|it| it.detail);
        details.filter(|it| it.row == row).collect()
    }

    fn lifecycle(&self) -> Lifecycle {
        Lifecycle::new(self.store.clone(), self.life.app.slack.clone())
            .with_clock(self.life.app.fake.clock())
    }

    fn operator(&self) -> Operator {
        let app = &self.life.app;
        let credentials = credentials(&app.fake);
        Operator::new(
            self.store.clone(),
            app.slack.clone(),
            self.lifecycle(),
            credentials,
        )
    }
}

#[tokio::test]
async fn an_operators_action_names_the_operator_the_action_and_the_reason() {
    let watched = Watched::new().await;
    watched.life.install(ADA).await;
    let operator = watched.operator();
    operator
        .freeze(&key(ALPHA), "ticket 1")
        .await
        .expect("held");
    let person = AuditContext::actor("olga's shell");
    let tenant = key(ALPHA);
    let unfreeze = operator.unfreeze(&tenant, "ticket 2");
    person.scope(unfreeze).await.expect("released");
    let holds = watched.changes("hold").await.into_iter();
    let holds: Vec<_> = holds.map(|it| (it.actor, it.purpose)).collect();
    let expected = [
        ("operator", "freeze: ticket 1"),
        ("olga's shell", "unfreeze: ticket 2"),
    ];
    let expected = expected.map(|(actor, purpose)| (Some(actor.into()), Some(purpose.into())));
    assert_eq!(holds, expected);
    operator
        .purge(&key(ALPHA), "ticket 3")
        .await
        .expect("purged");
    let purged = watched
        .changes("install")
        .await
        .pop()
        .expect("it is removed");
    assert_eq!(purged.purpose.as_deref(), Some("purge: ticket 3"));
}

#[tokio::test]
async fn an_installation_is_recorded_on_behalf_of_the_install_flow() {
    let watched = Watched::new().await;
    let app = &watched.life.app;
    let provider = app.provider_over(watched.store.clone(), app.fake.transport());
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    let response = browser.open(&provider, &callback).await;
    assert!(response.status().is_success() || response.status().is_redirection());
    let bots = watched.changes("bot").await;
    assert!(!bots.is_empty());
    for bot in bots {
        assert_eq!(bot.actor.as_deref(), Some("install"));
    }
}

#[tokio::test]
async fn a_lifecycle_event_is_recorded_with_its_type() {
    let watched = Watched::new().await;
    watched.life.install(ADA).await;
    let uninstalled = watched.life.app.fake.app_uninstalled(ALPHA);
    let uninstalled = watched.life.dispatched(uninstalled, ALPHA, 3600).await;
    let request = watched.life.request(&uninstalled);
    watched.lifecycle().handle(&request).await.expect("handled");
    let removed = watched
        .changes("install")
        .await
        .pop()
        .expect("it is removed");
    let who = (removed.actor.as_deref(), removed.purpose.as_deref());
    assert_eq!(who, (Some("slack"), Some("app_uninstalled")));
}

#[tokio::test]
async fn a_request_is_recorded_with_its_kind_and_user_and_an_unsigned_one_appends_nothing() {
    let watched = Watched::new().await;
    watched.life.install(ADA).await;
    let clock = watched.life.app.fake.clock();
    let authorizer = Authorizer::new(watched.store.clone()).with_clock(clock);
    let layer = SlackLayer::new(
        watched.life.verifier.clone(),
        authorizer,
        watched.lifecycle(),
    );
    let handler = tower_util::service_fn();
    let mut service = layer.layer(handler);
    let url = Url::parse("https://bot.example.com/slack/events").expect("a URL");
    let command = watched.life.app.fake.slash_command(ADA, "/x", "");
    let before = watched.records().await.len();
    for signature in [None, Some("v0=00"), Some(FORGED)] {
        let mut unsigned = command.request(&url).map(Full::new);
        unsigned.headers_mut().remove("x-slack-signature");
        if let Some(signature) = signature {
            let value = HeaderValue::from_static(signature);
            unsigned.headers_mut().insert("x-slack-signature", value);
        }
        let response = service.call(unsigned).await.expect("a response");
        assert!(response.status().is_client_error());
    }
    assert_eq!(watched.records().await.len(), before);
    let signed = command.request(&url).map(Full::new);
    let response = service.call(signed).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let records = watched.records().await.split_off(before);
    let opens: Vec<_> = records.into_iter().filter_map(|it| it.detail).collect();
    assert!(!opens.is_empty());
    for open in opens {
        let who = (
            open.actor.as_deref(),
            open.purpose.as_deref(),
            open.user.as_deref(),
        );
        assert_eq!(who, (Some("slack"), Some("slash_command"), Some(ADA)));
    }
    assert!(watched.audit.close().await);
}

const FORGED: &str = "v0=0000000000000000000000000000000000000000000000000000000000000000";

/// A service that accepts every request.
mod tower_util {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;

    #[derive(Clone)]
    pub(super) struct Accept;

    pub(super) fn service_fn() -> Accept {
        Accept
    }

    impl tower_service::Service<Request<Full<Bytes>>> for Accept {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            ready(Ok(Response::new(Full::default())))
        }
    }
}
