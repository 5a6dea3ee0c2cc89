//! The spans of the crate's operations, and what the log says of them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slack_installs::backend::MemoryBackend;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{ClientId, EncryptedStore, InstallationStore as _, SlackApp};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::support::app::{ADA, ALPHA, BRAVO, REDIRECT, credentials, key};
use crate::support::life::Life;
use crate::support::log::set_default;
use crate::support::providers::{self, Remote};

/// The fields of one span.
type Fields = BTreeMap<&'static str, String>;

/// The name, the level and the fields of a span.
type Span = (&'static str, Level, Fields);

/// The crate's spans that have closed, in this order.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<Span>>>);

impl Closed {
    /// Keeps the spans of this thread until the guard is dropped.
    fn of_this_thread() -> (Self, DefaultGuard) {
        let closed = Self::default();
        let subscriber = tracing_subscriber::registry().with(closed.clone());
        (closed, set_default(subscriber))
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the spans of this name since the last call, each as its fields in one line.
    fn take(&self, name: &str) -> Vec<String> {
        let mut taken = Vec::new();
        self.spans().retain(|(other, level, fields)| {
            let is_wanted = *other == name;
            if is_wanted {
                let mut fields = fields.clone();
                let seconds = fields.remove("duration").expect("each span has a duration");
                let seconds: f64 = seconds.parse().expect("a number of seconds");
                assert!((0.0..600.0).contains(&seconds), "{seconds}");
                let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
                let fields: Vec<_> = fields.collect();
                taken.push(format!("{level} {}", fields.join(" ")));
            }
            !is_wanted
        });
        taken
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Closed {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("it is new");
        let mut fields = Values::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it is open");
        let mut extensions = span.extensions_mut();
        values.record(extensions.get_mut::<Values>().expect("it was added"));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("it closes now");
        if !span.metadata().target().starts_with("slack_installs") {
            return;
        }
        let fields = span.extensions_mut().remove::<Values>();
        let fields = fields.expect("it was added").0;
        let level = *span.metadata().level();
        self.spans().push((span.name(), level, fields));
    }
}

#[derive(Default)]
struct Values(Fields);

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

#[tokio::test]
async fn each_operation_has_a_span_with_its_tenant_app_kind_outcome_and_cause() {
    let (closed, _guard) = Closed::of_this_thread();
    let life = Life::new().await;
    let app = life.app.fake.app_id();
    life.app.fake.rotate_tokens(Rotation::default());
    life.install(ADA).await;
    let installed = format!("INFO app={app} kind=workspace outcome=installed tenant={ALPHA}");
    assert_eq!(closed.take("install"), [installed]);

    life.authorize(&life.mention(ALPHA))
        .await
        .expect("installed");
    let served = format!("DEBUG app={app} kind=event outcome=authorized tenant={ALPHA}");
    assert_eq!(closed.take("authorize"), [served]);
    life.authorize(&life.mention(BRAVO))
        .await
        .expect_err("not installed");
    let refused = format!("DEBUG cause=not_installed kind=event outcome=refused tenant={BRAVO}");
    assert_eq!(closed.take("authorize"), [refused]);

    life.advance(13 * 3600);
    let front = SlackApp::builder()
        .credentials(credentials(&life.app.fake))
        .signing_secret(life.app.fake.signing_secret())
        .redirect_uri(REDIRECT)
        .scopes("commands")
        .slack(life.app.slack.clone())
        .clock(life.app.fake.clock())
        .store(life.app.store.clone());
    let front = front.build().await.expect("nothing is missing");
    let rotator = front.rotator();
    let rejected = Fault::rate_limited(Duration::from_secs(1));
    life.app.fake.inject("oauth.v2.access", rejected);
    let token = async || rotator.token_for(&key(ALPHA), Credential::Bot).await;
    token().await.expect_err("Slack limits the rate");
    let failed = format!("INFO cause=try_again kind=bot outcome=failed tenant={ALPHA}");
    assert_eq!(closed.take("refresh"), [failed]);
    life.advance(60);
    token().await.expect("Slack refreshes");
    let current = format!("INFO app={app} kind=bot outcome=current tenant={ALPHA}");
    assert_eq!(closed.take("refresh"), [current]);

    life.app.fake.uninstall(ALPHA);
    let event = life.app.fake.app_uninstalled(ALPHA);
    life.handled(&event).await;
    let handled = format!("INFO app={app} kind=app_uninstalled outcome=purged tenant={ALPHA}");
    assert_eq!(closed.take("lifecycle"), [handled]);
    let purged = format!("INFO kind=workspace outcome=purged tenant={ALPHA}");
    assert_eq!(closed.take("purge"), [purged]);
    let left: Vec<_> = closed.spans().iter().map(|(name, ..)| *name).collect();
    assert_eq!(left, [""; 0], "there are no other spans");
}

#[tokio::test]
async fn a_flow_that_fails_has_its_reason_as_the_cause() {
    let (closed, _guard) = Closed::of_this_thread();
    let life = Life::new().await;
    let forged = format!("{REDIRECT}?state=made-up&code=made-up");
    let forged = url::Url::parse(&forged).expect("a URL");
    let browser = crate::support::app::Browser::default();
    browser.open(&life.app.provider, &forged).await;
    let failed = "INFO cause=invalid_state outcome=failed".to_owned();
    assert_eq!(closed.take("install"), [failed]);
}

#[tokio::test(start_paused = true)]
async fn each_page_that_is_sealed_again_has_a_span_with_its_outcome_and_cause() {
    let (closed, _guard) = Closed::of_this_thread();
    let app = crate::support::app::App::new().await;
    app.install(ADA).await;
    let provider = Remote::new();
    let id = ClientId::new("100000000001.200000000002").expect("an id");
    let store = EncryptedStore::open(MemoryBackend::default(), provider.clone(), id).await;
    let store = store.expect("the provider is up");
    let installation = app.stored(ALPHA, None).await;
    store.store(&installation).await.expect("stored");
    let keys = store.keys();
    keys.reseal(None, 100).await.expect("the provider is up");
    assert_eq!(closed.take("reseal"), ["INFO outcome=current"]);
    store.rotate_data_key().await.expect("the provider is up");
    keys.reseal(None, 100).await.expect("the provider is up");
    assert_eq!(closed.take("reseal"), ["INFO outcome=resealed"]);
    provider.set(providers::Fault::Down);
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    keys.reseal(None, 100).await.expect_err("there is no key");
    let failed = "INFO cause=key_provider outcome=failed";
    assert_eq!(closed.take("reseal"), [failed]);
}
