//! Which departures the hook is notified of, how often, and when.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::{Backend, MemoryBackend, Row, Version};
use slack_installs::store::{self, LifecycleStore as _};
use slack_installs::testing::{Fault, Person, Who, Workspace};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{Departure, Handled, Lifecycle, LifecycleError, LifecycleHooks};

use super::*;
use crate::support::app::{key, world};
use crate::support::backends::{Interrupted, Unreliable};

/// Records its calls, and fails or waits when the test says so.
#[derive(Clone, Debug, Default)]
struct Hook(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    calls: Mutex<Vec<(Departure, bool)>>,
    fails: AtomicBool,
    takes: Mutex<Duration>,
    ended: AtomicUsize,
}

impl Hook {
    fn calls(&self) -> Vec<(Departure, bool)> {
        self.0.calls.lock().expect("no test panics with it").clone()
    }

    fn set_failing(&self, fails: bool) {
        self.0.fails.store(fails, SeqCst);
    }

    fn set_taking(&self, seconds: u64) {
        let takes = Duration::from_secs(seconds);
        *self.0.takes.lock().expect("no test panics with it") = takes;
    }
}

#[async_trait]
impl LifecycleHooks for Hook {
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let told = (departure.clone(), is_installed_again);
        self.0
            .calls
            .lock()
            .expect("no test panics with it")
            .push(told);
        let takes = *self.0.takes.lock().expect("no test panics with it");
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        self.0.ended.fetch_add(1, SeqCst);
        if self.0.fails.load(SeqCst) {
            Err("the hook fails on purpose".into())
        } else {
            Ok(())
        }
    }
}

fn with_hook(life: &Life, hook: &Hook) -> Lifecycle {
    Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(hook.clone())
        .with_clock(life.app.fake.clock())
}

async fn resumed(lifecycle: &Lifecycle) -> usize {
    lifecycle.resume_pending().await.expect("responds")
}

fn now(life: &Life) -> SystemTime {
    life.app.fake.clock().now()
}

#[tokio::test]
async fn the_hook_is_told_once_who_left_why_and_when_at_once_or_later() {
    for later in [false, true] {
        let life = Life::standing().await;
        life.install("U0GRIDUSR02").await;
        life.advance(3600);
        let hook = Hook::default();
        hook.set_failing(later);
        let lifecycle = with_hook(&life, &hook);
        let purged_at = now(&life);
        let event = life.app.fake.app_uninstalled(SALES);
        let outcome = lifecycle.handle(&life.request(&event)).await;
        assert_eq!(outcome.is_err(), later);
        if later {
            hook.set_failing(false);
            life.advance(60);
            assert_eq!(resumed(&lifecycle).await, 1);
        }
        let calls = hook.calls();
        assert_eq!(calls.len(), 1 + usize::from(later));
        for (departure, is_installed_again) in calls {
            assert_eq!(departure.key.id(), SALES);
            let org = departure.key.enterprise().map(|org| org.as_str());
            assert_eq!(org, Some(ORG), "later: {later}");
            assert_eq!(departure.reason, "app_uninstalled");
            let seconds = departure.at.duration_since(SystemTime::UNIX_EPOCH);
            let expected = purged_at.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = seconds.expect("after 1970").as_secs();
            assert_eq!(seconds, expected.expect("after 1970").as_secs());
            assert!(!is_installed_again);
        }
        assert_eq!(life.slots(SALES).await, [""; 0]);
        life.advance(86_400);
        assert_eq!(resumed(&lifecycle).await, 0, "the hook is notified once");
    }
}

#[tokio::test]
async fn a_hook_that_fails_is_called_again_after_a_minute_then_ever_later_up_to_an_hour() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.advance(3600);
    let hook = Hook::default();
    hook.set_failing(true);
    let lifecycle = with_hook(&life, &hook);
    let request = life.request(&life.app.fake.app_uninstalled(ALPHA));
    let error = lifecycle
        .handle(&request)
        .await
        .expect_err("the hook fails");
    assert_matches!(error, LifecycleError::Hook(_));
    assert!(error.is_transient());
    let mut calls = 1;
    for wait in [60, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] {
        life.advance(wait - 1);
        assert_eq!(resumed(&lifecycle).await, 0);
        assert_eq!(hook.calls().len(), calls, "not yet: {wait} s");
        life.advance(1);
        assert_eq!(resumed(&lifecycle).await, 0, "the hook fails");
        calls += 1;
        assert_eq!(hook.calls().len(), calls, "after {wait} s");
        let note = life.app.store.departure(&key(ALPHA)).await;
        let note = note.expect("responds").expect("it exists");
        assert_eq!(usize::try_from(note.attempts), Ok(calls - 1));
    }
    hook.set_failing(false);
    life.advance(3600);
    assert_eq!(resumed(&lifecycle).await, 1);
    assert_eq!(life.slots(ALPHA).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_has_a_minute_and_one_that_takes_longer_is_called_again() {
    for (seconds, is_told) in [(59, true), (61, false)] {
        let life = Life::standing().await;
        life.install(ADA).await;
        life.advance(3600);
        let hook = Hook::default();
        hook.set_taking(seconds);
        let lifecycle = with_hook(&life, &hook);
        let request = life.request(&life.app.fake.app_uninstalled(ALPHA));
        let outcome = lifecycle.handle(&request).await;
        assert_eq!(outcome.is_ok(), is_told, "{seconds} s: {outcome:?}");
        assert_eq!(hook.0.ended.load(SeqCst), usize::from(is_told));
        let left = usize::from(!is_told);
        assert_eq!(life.slots(ALPHA).await.len(), left, "{seconds} s");
        hook.set_taking(0);
        life.advance(61);
        assert_eq!(resumed(&lifecycle).await, left, "{seconds} s");
    }
}

/// Panics in every call.
#[derive(Debug)]
struct Panicking;

#[async_trait]
impl LifecycleHooks for Panicking {
    async fn uninstalled(
        &self,
        _: &Departure,
        _: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // Panics on purpose, without printing a message.
        std::panic::resume_unwind(Box::new("a bug of the app"))
    }
}

#[tokio::test]
async fn a_hook_that_panics_has_failed_and_the_tenant_is_purged_all_the_same() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.advance(3600);
    let lifecycle = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(Panicking)
        .with_clock(life.app.fake.clock());
    let request = life.request(&life.app.fake.app_uninstalled(ALPHA));
    let error = lifecycle.handle(&request).await.expect_err("it panics");
    assert_matches!(error, LifecycleError::Hook(_));
    assert_eq!(
        life.slots(ALPHA).await,
        ["departure"],
        "the hook is notified again later"
    );
}

#[tokio::test]
async fn a_process_without_hooks_leaves_another_ones_notes_alone() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.advance(3600);
    life.host.set_failing(true);
    let event = life.app.fake.app_uninstalled(ALPHA);
    life.deliver(&event).await.expect_err("the hook fails");
    life.host.set_failing(false);
    life.advance(61);
    let without = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_clock(life.app.fake.clock());
    assert_eq!(resumed(&without).await, 0);
    let request = life.request(&event);
    let handled = without.handle(&request).await.expect("handled");
    assert_eq!(handled, Handled::Ignored);
    let note = life.app.store.departure(&key(ALPHA)).await;
    let note = note.expect("responds").expect("it exists");
    assert_eq!(note.attempts, 0);
    assert_eq!(resumed(&life.lifecycle).await, 1, "the note is still due");
    assert_eq!(life.host.tenants(), [ALPHA]);
}

#[tokio::test]
async fn a_round_tells_of_a_hundred_departures_and_the_next_one_of_the_rest() {
    let mut world = world();
    for number in 0..103 {
        let person = Person::admin(&format!("U0MANY{number}"), "mo");
        let workspace = Workspace::new(&format!("T0MANY{number}"), "Many");
        world = world.with_workspace(workspace.with_person(person));
    }
    let life = Life::with(world, Arc::new(MemoryBackend::default())).await;
    for number in 0..103 {
        life.install_without_user(format!("U0MANY{number}").as_str())
            .await;
        let tenant = format!("T0MANY{number}");
        let revision = life.app.stored(&tenant, None).await;
        let departure = Departure::new(key(&tenant), "x", now(&life));
        let store = &life.app.store;
        let revision = revision.revision;
        let due_at = Some(now(&life));
        let purged = store.purge(&departure, revision, due_at).await;
        assert!(purged.expect("purged").is_some());
    }
    assert_eq!(resumed(&life.lifecycle).await, 100);
    assert_eq!(resumed(&life.lifecycle).await, 3);
    assert_eq!(life.host.tenants().len(), 103);
}

/// Stores a departure of the tenant that the hook has not been notified of.
async fn pending(life: &Life, tenant: &str) {
    life.host.set_failing(true);
    let event = life.app.fake.app_uninstalled(tenant);
    life.deliver(&event).await.expect_err("the hook fails");
    life.host.set_failing(false);
}

#[tokio::test]
async fn a_hook_that_fails_for_one_tenant_keeps_no_other_from_being_told() {
    #[derive(Debug)]
    struct AllBut(&'static str, Hook);

    #[async_trait]
    impl LifecycleHooks for AllBut {
        async fn uninstalled(
            &self,
            departure: &Departure,
            again: bool,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            if departure.key.id() == self.0 {
                Err("not this one".into())
            } else {
                self.1.uninstalled(departure, again).await
            }
        }
    }

    let people = [(ALPHA, ADA), (BRAVO, "U0BRAVO0001"), (SALES, "U0GRIDUSR02")];
    for (failing, _) in people {
        let life = Life::standing().await;
        for (_, person) in people {
            life.install(person).await;
        }
        life.advance(3600);
        for (tenant, _) in people {
            pending(&life, tenant).await;
        }
        life.advance(61);
        let hook = Hook::default();
        let lifecycle = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
            .with_hooks(AllBut(failing, hook.clone()))
            .with_clock(life.app.fake.clock());
        assert_eq!(resumed(&lifecycle).await, 2, "{failing}");
        assert_eq!(hook.calls().len(), 2, "{failing}");
        assert_eq!(life.slots(failing).await, ["departure"]);
    }
}

/// Takes the database down while the hook is called.
#[derive(Debug)]
struct Unplugging(Unreliable, Hook);

#[async_trait]
impl LifecycleHooks for Unplugging {
    async fn uninstalled(
        &self,
        departure: &Departure,
        again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.set_down(true);
        self.1.uninstalled(departure, again).await
    }
}

#[tokio::test]
async fn a_database_that_goes_away_ends_the_round_and_the_hook_is_called_again() {
    let backend = Unreliable::new(Arc::new(MemoryBackend::default()));
    let life = Life::with(world(), Arc::new(backend.clone())).await;
    for person in [ADA, "U0BRAVO0001"] {
        life.install(person).await;
    }
    life.advance(3600);
    for tenant in [ALPHA, BRAVO] {
        pending(&life, tenant).await;
    }
    life.advance(61);
    let hook = Hook::default();
    let lifecycle = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(Unplugging(backend.clone(), hook.clone()))
        .with_clock(life.app.fake.clock());
    let error = lifecycle.resume_pending().await.expect_err("unavailable");
    let is_store = matches!(error, LifecycleError::Store(store::Error::Unavailable(_)));
    assert!(is_store && error.is_transient(), "{error}");
    assert_eq!(hook.calls().len(), 1, "the second is not tried");
    let error = lifecycle.resume_pending().await.expect_err("unavailable");
    assert!(error.is_transient());
    backend.set_down(false);
    life.advance(3600);
    assert_eq!(resumed(&life.lifecycle).await, 2, "both notes are kept");
    let mut tenants = life.host.tenants();
    tenants.sort_unstable();
    assert_eq!(tenants, [ALPHA, BRAVO]);
}

#[tokio::test]
async fn a_note_that_another_worker_takes_meanwhile_is_left_to_it() {
    let backend = Arc::new(Interrupted::new(Arc::new(MemoryBackend::default())));
    let life = Life::with(world(), Arc::clone(&backend)).await;
    life.install(ADA).await;
    life.advance(3600);
    pending(&life, ALPHA).await;
    life.advance(61);
    // The other process postpones the note after this one has read it.
    let (store, until) = (life.app.store.clone(), now(&life));
    backend.meanwhile(move || {
        tokio::spawn(async move {
            let note = store.departure(&key(ALPHA)).await.expect("responds");
            let note = note.expect("it exists");
            let until = until + Duration::from_secs(60);
            let taken = store.postpone(&note, until).await;
            assert!(taken.expect("responds").is_some());
        })
    });
    assert_eq!(resumed(&life.lifecycle).await, 0);
    assert_eq!(life.host.tenants(), [""; 0]);
    assert_eq!(life.slots(ALPHA).await, ["departure"]);
}

/// Damages the note of a tenant while the hook is notified of it.
#[derive(Debug)]
struct Damaging(support::Db, Hook);

#[async_trait]
impl LifecycleHooks for Damaging {
    async fn uninstalled(
        &self,
        departure: &Departure,
        again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if departure.key.id() == ALPHA {
            let (key, row) = self.0.row(ALPHA, "departure").await;
            let version = Version::mint();
            self.0.overwrite(&key, Row { version, ..row }).await;
        }
        self.1.uninstalled(departure, again).await
    }
}

#[tokio::test]
async fn a_note_that_is_damaged_while_it_is_told_of_keeps_no_other_from_being_told() {
    let life = Life::standing().await;
    for person in [ADA, "U0BRAVO0001"] {
        life.install(person).await;
    }
    life.advance(3600);
    pending(&life, ALPHA).await;
    life.advance(1);
    pending(&life, BRAVO).await;
    life.advance(61);
    let hook = Hook::default();
    let db = support::Db::of(life.app.fake.client_id(), Arc::clone(&life.backend));
    let lifecycle = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(Damaging(db, hook.clone()))
        .with_clock(life.app.fake.clock());
    assert_eq!(resumed(&lifecycle).await, 1);
    let told = hook.calls().into_iter();
    let told: Vec<_> = told.map(|(it, _)| it.key.id().to_owned()).collect();
    assert_eq!(told, [ALPHA, BRAVO]);
}

#[tokio::test(start_paused = true)]
async fn the_worker_comes_each_minute_also_after_an_outage() {
    let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let life = Life::with(world(), Arc::clone(&backend) as Arc<dyn Backend>).await;
    life.install(ADA).await;
    life.advance(3600);
    let lifecycle = life.lifecycle.clone();
    let before = backend.counts().reads;
    let working = tokio::spawn(async move { lifecycle.run().await });
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(
        backend.counts().reads - before,
        22,
        "each queue is read once at once, and ten times later"
    );
    // The database is unavailable for ten minutes.
    backend.set_faults(Faults {
        lost_reads: 1,
        ..Faults::none()
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    backend.set_faults(Faults::none());
    pending(&life, ALPHA).await;
    life.advance(61);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!working.is_finished());
    assert_eq!(life.host.tenants(), [ALPHA]);
    working.abort();
}

#[tokio::test]
async fn whether_it_is_worth_trying_again_is_said_of_each_error() {
    use slack_installs::slack;

    let api = |code: &str| {
        LifecycleError::Slack(slack::Error::Api {
            code: slack::ErrorCode::new(code),
            needed: Default::default(),
        })
    };
    let store = LifecycleError::Store;
    let unavailable = store::Error::Unavailable("down".into());
    let unreadable = store::Error::Unreadable("damaged".into());
    for (error, is_transient) in [
        (LifecycleError::Hook("failed".into()), true),
        (LifecycleError::Moved, true),
        (api("team_added_to_org"), true),
        (api("invalid_auth"), false),
        (store(unavailable), true),
        (store(unreadable), false),
        (store(store::Error::Conflict), false),
    ] {
        assert_eq!(error.is_transient(), is_transient, "{error:?}");
    }
}

#[tokio::test]
async fn of_a_workspace_that_is_told_late_the_organisation_stays() {
    let life = Life::standing().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    pending(&life, SALES).await;
    // Whatever Slack returns about the organisation, the event concerns the workspace's own
    // installation.
    let dead = Fault::error("account_inactive").always();
    life.app.fake.inject("auth.test", dead);
    let event = life.app.fake.app_uninstalled(SALES);
    let event = event.edit(|event| event["enterprise_id"] = ORG.into());
    assert_eq!(life.handled(&event).await, Handled::Purged);
    assert_eq!(life.host.tenants(), [SALES]);
    assert!(life.bot_token(ORG).await.is_some());
}
