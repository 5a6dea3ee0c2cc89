//! What is known of a flow that fails, for each error and each step: in the hook, on the page and
//! in the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::oauth::{
    Candidate, Decision, Error, FailedFlow, InstallHooks, InstallPolicy, Installed, PageResponse,
    Pages,
};
use slack_installs::testing::{Fault, Faults, Flaky};
use slack_installs::{AppId, InstallOptions, InstallProvider, Scopes};
use url::Url;

use super::outcome::Refusing;
use super::pages::errors;
use super::support::app::{ADA, ALPHA, App, BRAVO, Browser, REDIRECT, with_parameter, world};
use super::support::hooked_transport::{CallHooks, HookedTransport, Rewritten};
use crate::support::log::Log;

const METADATA: &str = "customer-7-CANARY";
const SESSION: &str = "session-CANARY";

/// What is known before the cookie is opened, after it was opened, and after the exchange.
const CALLBACK: &str = "session";
const SIGNED: &str = "session started";
const READ: &str = "expected metadata requested session started";
const ISSUED: &str = "app expected metadata person requested session started tenant";
const KEPT: &str = "app expected kept metadata person requested session started tenant";
/// What the options of a flow that does not start say.
const OPTIONS: &str = "expected metadata requested session";

/// Every way in which a flow fails: the name of the error, and what is known.
const CASES: &[(&str, &str, &str)] = &[
    ("the person cancels", "denied", READ),
    ("Slack denies a flow without a state", "denied", CALLBACK),
    ("Slack refuses the code", "exchange", READ),
    (
        "the tokens name no app",
        "exchange",
        "expected metadata person requested session started tenant",
    ),
    ("the tokens name no workspace", "exchange", ISSUED),
    ("the hook after the flow panics", "hook", ISSUED),
    (
        "the hook before the flow panics",
        "hook",
        "expected requested",
    ),
    ("the hook for the session panics", "hook", ""),
    ("the flow panics at the exchange", "interrupted", READ),
    ("the flow panics after the exchange", "interrupted", ISSUED),
    ("the state is garbled", "invalid_state", CALLBACK),
    ("the state is changed", "invalid_state", CALLBACK),
    ("the query has two states", "invalid_state", CALLBACK),
    ("there is no code", "no_code", READ),
    ("Slack grants nothing", "nothing_granted", ISSUED),
    ("the options are invalid", "options", OPTIONS),
    ("the tokens are another app's", "other_app", ISSUED),
    ("another browser ends the flow", "other_browser", SIGNED),
    ("another session ends the flow", "other_session", SIGNED),
    ("another workspace is chosen", "other_team", ISSUED),
    ("the policy refuses", "refused", ISSUED),
    ("the policy panics", "refused", ISSUED),
    ("the state expires", "state_expired", SIGNED),
    ("the state cannot be marked as used", "store", READ),
    ("the installation cannot be stored", "store", ISSUED),
    ("the database is away", "store", KEPT),
    ("the state is used", "used_state", READ),
];

/// The cases in which no flow started, or the hook panicked. The hook then hears of no failure.
const UNHEARD: &[&str] = &[
    "Slack denies a flow without a state",
    "the hook after the flow panics",
    "the hook before the flow panics",
    "the hook for the session panics",
    "the options are invalid",
    "the query has two states",
];

/// Records the error, what is known, and `Debug` of each flow that fails.
type Record = (&'static str, String, String);

/// The app's hooks and pages.
#[derive(Clone, Debug, Default)]
struct Ear {
    heard: Arc<Mutex<Vec<Record>>>,
    shown: Arc<Mutex<Vec<Record>>>,
    panics: Option<&'static str>,
}

impl Ear {
    fn heard(&self) -> Vec<Record> {
        self.heard.lock().expect("no panic").clone()
    }

    fn shown(&self) -> Vec<Record> {
        self.shown.lock().expect("no panic").clone()
    }

    fn panic_at(&self, hook: &str) {
        assert_ne!(self.panics, Some(hook), "a bug of the app");
    }
}

#[async_trait]
impl InstallHooks for Ear {
    async fn starting(&self, options: InstallOptions, _: &Uri, _: &HeaderMap) -> InstallOptions {
        self.panic_at("starting");
        options
    }

    async fn session(&self, _: &HeaderMap) -> Option<String> {
        self.panic_at("session");
        Some(SESSION.to_owned())
    }

    async fn installed(&self, _: &Installed) {
        self.panic_at("installed");
    }

    async fn failed(&self, failed: &FailedFlow) {
        let mut heard = self.heard.lock().expect("no panic");
        heard.push(record(failed));
    }
}

impl Pages for Ear {
    fn failed(&self, failed: &FailedFlow) -> PageResponse {
        let mut shown = self.shown.lock().expect("no panic");
        shown.push(record(failed));
        PageResponse::Html("failed".to_owned())
    }
}

/// Returns the names of what is known. Each value is the flow's own.
fn record(failed: &FailedFlow) -> Record {
    let expected = failed.team.as_ref().map(|team| team.as_str().to_owned());
    assert!(
        expected
            .as_deref()
            .is_none_or(|team| [ALPHA, BRAVO].contains(&team))
    );
    let tenant = failed.key().map(|key| key.id().to_owned());
    assert!(tenant.as_ref().is_none_or(|tenant| tenant == ALPHA));
    let person = failed.installed_by.as_ref();
    assert!(person.is_none_or(|person| person.as_str() == ADA));
    assert!(
        failed
            .metadata
            .as_ref()
            .is_none_or(|it| it.starts_with(METADATA))
    );
    assert!(failed.session.as_ref().is_none_or(|it| it == SESSION));
    if let Some(requested) = &failed.requested {
        assert_eq!(
            requested.scopes,
            Scopes::from("commands,chat:write,users:read")
        );
    }
    let known = [
        ("app", failed.app_id.is_some()),
        ("expected", expected.is_some()),
        ("kept", failed.is_kept),
        ("metadata", failed.metadata.is_some()),
        ("person", person.is_some()),
        ("requested", failed.requested.is_some()),
        ("session", failed.session.is_some()),
        ("started", failed.started_at.is_some()),
        ("tenant", tenant.is_some()),
    ];
    let known = known.iter().filter(|(_, is_known)| *is_known);
    let known: Vec<_> = known.map(|(name, _)| *name).collect();
    (failed.error.name(), known.join(" "), format!("{failed:?}"))
}

/// Refuses every installation, or panics.
#[derive(Debug)]
struct Strict {
    panics: bool,
}

#[async_trait]
impl InstallPolicy for Strict {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        assert!(!self.panics, "a bug of the app");
        let reason = "not here".to_owned();
        Decision::Refuse { reason }
    }
}

/// Panics at a call to this method of Slack's.
struct PanicsAt(&'static str);

#[async_trait]
impl CallHooks for PanicsAt {
    async fn before(&self, path: &str) {
        assert!(!path.ends_with(self.0), "a bug of the app");
    }
}

/// A flow that fails in one way.
struct Trial {
    app: App,
    backend: Arc<Flaky<MemoryBackend>>,
    ear: Ear,
    provider: InstallProvider,
}

impl Trial {
    async fn of(case: &str) -> Self {
        let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let database = Arc::clone(&backend) as Arc<dyn Backend>;
        let app = App::with(world(), database, |config| {
            if case == "the tokens are another app's" {
                config.app_id = Some(AppId::new("A0OTHERAPP1").expect("an id"));
            }
        })
        .await;
        let ear = Ear {
            panics: match case {
                "the hook after the flow panics" => Some("installed"),
                "the hook before the flow panics" => Some("starting"),
                "the hook for the session panics" => Some("session"),
                _ => None,
            },
            ..Ear::default()
        };
        let provider = provider(&app, case).with_hooks(ear.clone());
        Self {
            provider: provider.with_pages(ear.clone()),
            app,
            backend,
            ear,
        }
    }

    fn set_away(&self, is_away: bool) {
        self.backend.set_faults(Faults {
            lost_commits: u64::from(is_away),
            lost_reads: u64::from(is_away),
            ..Faults::none()
        });
    }

    /// Runs the flow, and returns the response to the person.
    async fn run(&self, case: &str) -> Response<String> {
        let browser = Browser::default();
        match case {
            "the options are invalid" => {
                let metadata = METADATA.repeat(500);
                let options = with(ALPHA, SESSION, &metadata);
                return self.provider.start_response(options).await;
            }
            "the hook before the flow panics" => {
                let uri = format!("/slack/install?team={ALPHA}");
                let uri = uri.parse().expect("a path");
                let none = HeaderMap::new();
                return self.provider.install_response(&uri, &none).await;
            }
            _ => {}
        }
        let options = match case {
            "another workspace is chosen" => with(BRAVO, SESSION, METADATA),
            "another session ends the flow" => with(ALPHA, "olgas-CANARY", METADATA),
            _ => with(ALPHA, SESSION, METADATA),
        };
        let authorize = self.app.begin(&browser, options).await;
        let allowed = || self.app.fake.allow(&authorize, ADA).expect("allowed");
        let garbled = |query: &str| Url::parse(&format!("{REDIRECT}?{query}")).expect("a URL");
        let callback = match case {
            "the person cancels" => self.app.fake.cancel(&authorize).expect("cancelled"),
            "Slack denies a flow without a state" => garbled("error=access_denied&state="),
            "the state is garbled" => garbled("state=x&code=y"),
            "the query has two states" => garbled("state=x&state=y"),
            "the state is changed" => {
                let url = allowed();
                let state = super::parameter(&url, "state");
                let last = if state.ends_with('A') { "Q" } else { "A" };
                let state = format!("{}{last}", &state[..state.len() - 1]);
                with_parameter(&url, "state", Some(&state))
            }
            "there is no code" => with_parameter(&allowed(), "code", None),
            _ => allowed(),
        };
        match case {
            "the state expires" => self.app.fake.advance(Duration::from_secs(600)),
            "the state cannot be marked as used" => self.set_away(true),
            "the state is used" => drop(browser.open(&self.provider, &callback).await),
            "another browser ends the flow" => {
                return Browser::default().open(&self.provider, &callback).await;
            }
            _ => {}
        }
        browser.open(&self.provider, &callback).await
    }
}

/// Returns the options of a flow.
fn with(team: &str, session: &str, metadata: &str) -> InstallOptions {
    InstallOptions {
        metadata: Some(metadata.to_owned()),
        session: Some(session.to_owned()),
        team: Some(team.try_into().expect("an id")),
        ..InstallOptions::default()
    }
}

/// Returns the provider of a case, and prepares Slack's responses.
fn provider(app: &App, case: &str) -> InstallProvider {
    let changed = |change: fn(&mut Value)| {
        let transport = Rewritten::over(app.fake.transport(), move |path: &str, body: Bytes| {
            if !path.ends_with("oauth.v2.access") {
                return body;
            }
            let mut body: Value = serde_json::from_slice(&body).expect("JSON");
            change(&mut body);
            body.to_string().into()
        });
        app.provider_over(app.store.clone(), transport)
    };
    let panicking = |method| {
        let transport = HookedTransport::over(app.fake.transport(), PanicsAt(method));
        app.provider_over(app.store.clone(), transport)
    };
    let refusing = |is_away| {
        let (inner, asked) = (app.store.clone(), Arc::default());
        let store = Refusing {
            inner,
            asked,
            is_away,
        };
        app.provider_over(store, app.fake.transport())
    };
    match case {
        "Slack refuses the code" => {
            let fault = Fault::error("invalid_code").always();
            app.fake.inject("oauth.v2.access", fault);
            app.provider.clone()
        }
        "the tokens name no app" => changed(|body| body["app_id"] = json!(null)),
        "the tokens name no workspace" => changed(|body| body["team"] = json!({})),
        "Slack grants nothing" => changed(|body| body["access_token"] = json!(null)),
        "the flow panics at the exchange" => panicking("oauth.v2.access"),
        "the flow panics after the exchange" => panicking("auth.test"),
        "the installation cannot be stored" => refusing(false),
        "the database is away" => refusing(true),
        "the policy refuses" => app.provider.clone().with_policy(Strict { panics: false }),
        "the policy panics" => app.provider.clone().with_policy(Strict { panics: true }),
        _ => app.provider.clone(),
    }
}

/// Runs a flow that fails, and checks the hook, the page and the log.
async fn check(case: &str, name: &str, known: &str) {
    let trial = Trial::of(case).await;
    let (log, logging) = Log::of_this_thread();
    let response = trial.run(case).await;
    drop(logging);
    let shown = trial.ear.shown();
    let [(error, told, debug)] = &shown[..] else {
        panic!(
            "{case}: one page is shown, and not {shown:?}, {}",
            response.body()
        );
    };
    assert_eq!((*error, told.as_str()), (name, known), "{case}: the page");
    assert!(!debug.contains("CANARY"), "{case}: {debug}");
    let heard = if UNHEARD.contains(&case) {
        Vec::new()
    } else {
        shown.clone()
    };
    assert_eq!(trial.ear.heard(), heard, "{case}: the hook hears the same");
    let log = log.text();
    assert!(!log.contains("CANARY"), "{case}: {log}");
    let says = ["without an installation", "panicked", "could not start"];
    let mut lines = says
        .iter()
        .filter_map(|says| log.lines().find(|line| line.contains(says)));
    let line = lines.next().expect("the failure is logged");
    let has = |field: &str, is_known: bool| {
        assert_eq!(line.contains(field), is_known, "{case}: {field} in {line}");
    };
    has(&format!("tenant={ALPHA}"), known.contains("tenant"));
    if line.contains(says[0]) {
        has(&format!("installed_by={ADA}"), known.contains("person"));
        has("app_id=A0", known.split(' ').any(|it| it == "app"));
    }
    if !line.contains("panicked") {
        has("expected=\"T0", known.contains("expected"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_failed_flow_carries_all_that_is_known_at_that_point() {
    for (case, name, known) in CASES {
        check(case, name, known).await;
    }
}

#[test]
fn every_error_of_a_flow_is_in_the_table() {
    let mut named: BTreeSet<_> = CASES.iter().map(|(_, name, _)| *name).collect();
    // The person is sent through the app's own flow, so this one is no failure.
    assert!(named.insert("no_state"));
    let mut all: BTreeSet<_> = errors().iter().map(|(error, ..)| error.name()).collect();
    all.insert(Error::Options("").name());
    assert_eq!(named, all);
}

#[tokio::test(start_paused = true)]
async fn the_app_hears_of_the_end_of_an_installation_that_was_kept() {
    let trial = Trial::of("the database is away").await;
    trial.run("the database is away").await;
    assert!(trial.app.fake.is_installed(ALPHA));
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    let heard = trial.ear.heard();
    let heard: Vec<_> = heard
        .iter()
        .map(|(name, known, _)| (*name, &**known))
        .collect();
    assert_eq!(heard, [("store", KEPT), ("store", ISSUED)]);
    assert!(!trial.app.fake.is_installed(ALPHA), "the token was revoked");
}

#[tokio::test]
async fn an_app_with_its_own_callback_gets_what_is_known() {
    let trial = Trial::of("the policy refuses").await;
    let browser = Browser::default();
    let options = with(ALPHA, SESSION, METADATA);
    let url = trial.app.allowed(&browser, options, ADA).await;
    let mut callback = slack_installs::oauth::Callback::default();
    let (state, code) = (
        super::parameter(&url, "state"),
        super::parameter(&url, "code"),
    );
    let cookies = browser.cookies().join("; ");
    callback.session = Some(SESSION);
    callback.code = Some(&code);
    callback.cookies = &cookies;
    let none = trial
        .provider
        .finish(&callback)
        .await
        .expect_err("no state");
    assert!(matches!(none.error, Error::NoState));
    assert_eq!(record(&none).1, CALLBACK);
    callback.state = Some(&state);
    let failed = trial.provider.finish(&callback).await.expect_err("refused");
    assert_eq!(record(&failed).1, ISSUED);
    let error = Error::from(failed);
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[tokio::test]
async fn of_an_org_wide_installation_the_organisation_is_known() {
    use super::support::app::OLGA;
    use slack_installs::testing::Who;
    #[derive(Debug, Default)]
    struct Names(Mutex<Vec<String>>);
    impl Pages for Names {
        fn failed(&self, failed: &FailedFlow) -> PageResponse {
            let home = failed.home.as_ref().expect("known");
            let org = home.enterprise().expect("an organisation");
            let by = failed.installed_by.as_ref().expect("known");
            let line = format!("{:?} {:?} {by}", failed.key(), org.name);
            self.0.lock().expect("no panic").push(line);
            PageResponse::Html(String::new())
        }
    }
    let app = App::new().await;
    let names = Arc::new(Names::default());
    let provider = app.provider.clone().with_policy(Strict { panics: false });
    let provider = provider.with_pages(Arc::clone(&names));
    let browser = Browser::default();
    let who = Who::user(OLGA).at(super::ORG);
    let callback = app.allowed(&browser, InstallOptions::default(), who).await;
    browser.open(&provider, &callback).await;
    let shown = names.0.lock().expect("no panic").join("; ");
    assert!(shown.contains(super::ORG), "{shown}");
    assert!(
        shown.contains("Gridline Org") && shown.ends_with(OLGA),
        "{shown}"
    );
}
