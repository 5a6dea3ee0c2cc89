//! What the app hears besides departures: revoked authorizations, and workspaces that leave.

use std::future::Future as _;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use slack_installs::backend::{Backend, Error, MemoryBackend};
use slack_installs::store::{Credential, LifecycleStore as _, Notice, Subject};
use slack_installs::testing::{Delivery, Faults, Flaky, Who};
use slack_installs::{
    Departure, Handled, InstallOptions, Lifecycle, LifecycleHooks, TeamId, UserId,
};

use super::*;
use crate::support::app::{key, user_id, world};
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::log::Log;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a hook does in each call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Way {
    #[default]
    Succeeds,
    Fails,
    Panics,
    Takes(u64),
}

/// Records the notices that it was told of, and the calls that were begun.
#[derive(Clone, Debug, Default)]
struct App(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    calls: AtomicUsize,
    told: Mutex<Vec<Notice>>,
    departed: AtomicUsize,
    way: Mutex<Way>,
}

impl App {
    fn set(&self, way: Way) {
        *self.0.way.lock().expect("no test panics with it") = way;
    }

    fn calls(&self) -> usize {
        self.0.calls.load(SeqCst)
    }

    fn told(&self) -> Vec<Notice> {
        self.0.told.lock().expect("no test panics with it").clone()
    }

    fn subjects(&self) -> Vec<Subject> {
        let told = self.told().into_iter();
        told.map(|notice| notice.subject).collect()
    }

    async fn hear(&self, notice: &Notice) -> Outcome {
        self.0.calls.fetch_add(1, SeqCst);
        let way = *self.0.way.lock().expect("no test panics with it");
        match way {
            Way::Succeeds => {}
            Way::Fails => return Err("the hook fails on purpose".into()),
            // Panics on purpose, without printing a message.
            Way::Panics => std::panic::resume_unwind(Box::new("a bug of the app")),
            Way::Takes(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
        let mut told = self.0.told.lock().expect("no test panics with it");
        told.push(notice.clone());
        Ok(())
    }
}

#[async_trait]
impl LifecycleHooks for App {
    async fn uninstalled(&self, _: &Departure, _: bool) -> Outcome {
        self.0.departed.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn authorization_revoked(&self, whose: &Credential, notice: &Notice) -> Outcome {
        assert_eq!(notice.subject, Subject::Authorization(whose.clone()));
        self.hear(notice).await
    }

    async fn workspace_left(&self, workspace: &TeamId, notice: &Notice) -> Outcome {
        assert_eq!(notice.subject, Subject::Workspace(workspace.clone()));
        self.hear(notice).await
    }
}

fn with_app(life: &Life, app: &App) -> Lifecycle {
    Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        // Hooks behind a pointer are called too.
        .with_hooks(Arc::new(app.clone()))
        .with_clock(life.app.fake.clock())
}

async fn resumed(lifecycle: &Lifecycle) -> usize {
    lifecycle.resume_pending().await.expect("responds")
}

async fn handle(life: &Life, lifecycle: &Lifecycle, event: &Delivery) -> Handled {
    let handled = lifecycle.handle(&life.request(event)).await;
    handled.expect("the event is handled")
}

fn of_user(id: &str) -> Subject {
    let id = UserId::new(id).expect("an id");
    Subject::Authorization(Credential::User(id))
}

/// Ada has installed the app in Alpha, and then revoked her token. Returns Slack's event.
async fn revoked(life: &Life) -> Delivery {
    let options = InstallOptions {
        metadata: Some("customer-42".to_owned()),
        ..InstallOptions::default()
    };
    let page = life.app.install_with(options, ADA).await;
    assert!(page.body().contains("is installed"));
    life.advance(3600);
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    let event = life.app.fake.take_events().pop();
    event.expect("one event")
}

fn access(life: &Life, what: &str, teams: &[&str]) -> Delivery {
    life.app.fake.app_uninstalled(ORG).edit(|event| {
        let seconds = event["event_time"].as_u64().expect("a time");
        event["event"] = json!({"type": what, "team_ids": teams,
            "event_ts": format!("{seconds}.000100")});
    })
}

#[tokio::test]
async fn a_revoked_user_is_told_once_with_who_installed_and_what_the_flow_carried() {
    let (log, _guard) = Log::of_this_thread();
    let life = Life::standing().await;
    let event = revoked(&life).await;
    let app = App::default();
    let lifecycle = with_app(&life, &app);
    assert_eq!(handle(&life, &lifecycle, &event).await, Handled::Revoked);
    let told = app.told();
    let [notice] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(notice.subject, of_user(ADA));
    assert_eq!(notice.key, key(ALPHA));
    assert_eq!(notice.reason, "tokens_revoked");
    assert_eq!(notice.installed_by, Some(user_id(ADA)));
    assert_eq!(notice.metadata.as_deref(), Some("customer-42"));
    assert_eq!(life.slots(ALPHA).await, ["bot", "install"]);
    assert_eq!(handle(&life, &lifecycle, &event).await, Handled::Ignored);
    life.advance(86_400);
    assert_eq!(resumed(&lifecycle).await, 0);
    assert_eq!(app.calls(), 1);
    assert!(log.text().contains(ALPHA), "something was logged");
    assert!(!log.text().contains("customer-42"));
    assert!(!format!("{told:?}").contains("customer-42"));
}

#[tokio::test]
async fn a_revoked_bot_and_each_workspace_that_left_are_told() {
    let life = Life::standing().await;
    life.install(ADA).await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.advance(3600);
    let app = App::default();
    let lifecycle = with_app(&life, &app);
    let fault = slack_installs::testing::Fault::error("account_inactive");
    life.app.fake.inject("auth.test", fault);
    let bot = life.app.fake.bot_user(ALPHA);
    let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    assert_eq!(handle(&life, &lifecycle, &event).await, Handled::Revoked);
    assert_eq!(app.subjects(), [Subject::Authorization(Credential::Bot)]);
    let left = access(&life, "team_access_revoked", &[SALES, SUPPORT]);
    for _ in 0..2 {
        assert_eq!(handle(&life, &lifecycle, &left).await, Handled::Noted);
    }
    let mut told = app.told().split_off(1);
    told.sort_by_key(|notice| format!("{:?}", notice.subject));
    let team = |id: &str| Subject::Workspace(TeamId::new(id).expect("an id"));
    let subjects: Vec<_> = told.iter().map(|it| it.subject.clone()).collect();
    assert_eq!(subjects, [team(SALES), team(SUPPORT)]);
    for notice in &told {
        assert_eq!(notice.key, key(ORG));
        assert_eq!(notice.reason, "team_access_revoked");
        assert_eq!(notice.installed_by, Some(user_id(OLGA)));
    }
    life.advance(60);
    let granted = access(&life, "team_access_granted", &[SALES]);
    assert_eq!(handle(&life, &lifecycle, &granted).await, Handled::Noted);
    assert_eq!(app.calls(), 3, "a grant is no notice");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_panics_or_is_slow_is_called_again_and_the_event_is_handled() {
    for way in [Way::Fails, Way::Panics, Way::Takes(61)] {
        let life = Life::standing().await;
        let event = revoked(&life).await;
        let app = App::default();
        app.set(way);
        let lifecycle = with_app(&life, &app);
        assert_eq!(handle(&life, &lifecycle, &event).await, Handled::Revoked);
        assert_eq!(life.user_token(ALPHA, ADA).await, None);
        let mut calls = 1;
        for wait in [60, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            life.advance(wait - 1);
            assert_eq!(resumed(&lifecycle).await, 0);
            assert_eq!(app.calls(), calls, "not yet: {wait} s, {way:?}");
            life.advance(1);
            assert_eq!(resumed(&lifecycle).await, 0, "{way:?}");
            calls += 1;
            assert_eq!(app.calls(), calls, "after {wait} s, {way:?}");
        }
        assert_eq!(app.told(), []);
        app.set(Way::Succeeds);
        life.advance(3600);
        assert_eq!(resumed(&lifecycle).await, 1);
        assert_eq!(app.subjects(), [of_user(ADA)]);
        assert_eq!(life.slots(ALPHA).await, ["bot", "install"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_hook_keeps_no_dead_token_stored_and_no_departure_untold() {
    let life = Life::standing().await;
    for person in [ADA, BEN, "U0BRAVO0001"] {
        life.install(person).await;
    }
    life.advance(3600);
    for user in [ADA, BEN] {
        assert!(life.app.fake.revoke_user(ALPHA, user));
    }
    let app = App::default();
    app.set(Way::Takes(59));
    let lifecycle = with_app(&life, &app);
    let event = life.app.fake.tokens_revoked(ALPHA, &[ADA, BEN], &[]);
    let request = life.request(&event);
    {
        let mut handling = pin!(lifecycle.handle(&request));
        let begun = tokio::time::timeout(Duration::from_secs(1), &mut handling);
        begun.await.expect_err("the hooks take a minute");
        assert_eq!(app.calls(), 2, "both are called");
        for user in [ADA, BEN] {
            assert_eq!(life.user_token(ALPHA, user).await, None);
        }
    }
    // The process ends during the hooks. Bravo has left, and nobody was told.
    let revision = life.app.stored(BRAVO, None).await.revision;
    let now = life.app.fake.clock().now();
    let departure = Departure::new(key(BRAVO), "app_uninstalled", now);
    let store = &life.app.store;
    let purged = store.purge(&departure, revision, Some(now)).await;
    assert!(purged.expect("purged").is_some());
    life.advance(61);
    let working = tokio::spawn(async move { lifecycle.run().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.0.departed.load(SeqCst), 1);
    assert_eq!(app.told(), []);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut told: Vec<_> = app.subjects().iter().map(|it| format!("{it:?}")).collect();
    told.sort_unstable();
    let mut expected = [of_user(ADA), of_user(BEN)].map(|it| format!("{it:?}"));
    expected.sort_unstable();
    assert_eq!(told, expected);
    working.abort();
}

/// Yields around each read and commit. The process can end at each of these points.
#[derive(Default)]
struct Yielding;

#[async_trait]
impl Hooks for Yielding {
    async fn before(&self, _: Call<'_>) -> Result<(), Error> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn after(&self, _: Call<'_>) -> Result<(), Error> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_a_revocation_ends_in_a_deletion_that_the_app_was_told_of() {
    let (mut points, mut after_the_commit) = (0, 0);
    loop {
        let backend = Hooked::<Yielding>::new(Arc::new(MemoryBackend::default()));
        let life = Life::with(world(), Arc::new(backend)).await;
        let event = revoked(&life).await;
        let request = life.request(&event);
        let app = App::default();
        let lifecycle = with_app(&life, &app);
        let ended = {
            let mut handling = pin!(lifecycle.handle(&request));
            let mut context = Context::from_waker(Waker::noop());
            (0..points).any(|_| matches!(handling.as_mut().poll(&mut context), Poll::Ready(_)))
        };
        let is_deleted = life.user_token(ALPHA, ADA).await.is_none();
        if !is_deleted {
            assert_eq!(
                app.calls(),
                0,
                "told before the change, after {points} polls"
            );
            assert_eq!(
                life.slots(ALPHA).await,
                [
                    "bot",
                    "install",
                    "installer/U0ADMIN0001",
                    "user/U0ADMIN0001"
                ]
            );
        }
        // Another process starts. Slack repeats the event only if the token is still stored.
        let other = with_app(&life, &app);
        life.advance(61);
        if is_deleted {
            after_the_commit += resumed(&other).await;
        } else {
            assert!(!ended);
            handle(&life, &other, &event).await;
        }
        assert_eq!(
            life.slots(ALPHA).await,
            ["bot", "install"],
            "after {points} polls"
        );
        assert!((1..=2).contains(&app.calls()), "after {points} polls");
        if ended {
            break;
        }
        points += 1;
    }
    assert!(points > 5, "only {points} points were tried");
    assert!(
        after_the_commit > 2,
        "only {after_the_commit} crashes came after the commit"
    );
}

#[tokio::test]
async fn a_database_that_loses_commits_and_answers_loses_no_notice() {
    for nth in 1..=4 {
        for (lost_commits, lost_answers) in [(nth, 0), (0, nth)] {
            let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
            let life = Life::with(world(), Arc::clone(&backend) as Arc<dyn Backend>).await;
            let event = revoked(&life).await;
            let app = App::default();
            let lifecycle = with_app(&life, &app);
            backend.set_faults(Faults {
                lost_commits,
                lost_answers,
                lost_reads: 5,
            });
            for _ in 0..4 {
                if lifecycle.handle(&life.request(&event)).await.is_ok() {
                    break;
                }
            }
            backend.set_faults(Faults::none());
            handle(&life, &lifecycle, &event).await;
            life.advance(3600);
            resumed(&lifecycle).await;
            let case = format!("{lost_commits} {lost_answers}");
            assert_eq!(life.slots(ALPHA).await, ["bot", "install"], "{case}");
            assert!(app.subjects().contains(&of_user(ADA)), "{case}");
        }
    }
}

#[tokio::test]
async fn a_user_who_authorizes_again_or_a_tenant_that_leaves_is_not_told_of_as_revoked() {
    for leaves in [false, true] {
        let life = Life::standing().await;
        let event = revoked(&life).await;
        let app = App::default();
        app.set(Way::Fails);
        let lifecycle = with_app(&life, &app);
        handle(&life, &lifecycle, &event).await;
        app.set(Way::Succeeds);
        if leaves {
            life.app.fake.uninstall(ALPHA);
            let event = life.app.fake.app_uninstalled(ALPHA);
            assert_eq!(handle(&life, &lifecycle, &event).await, Handled::Purged);
        } else {
            life.install(ADA).await;
        }
        life.advance(3600);
        assert_eq!(resumed(&lifecycle).await, 0);
        assert_eq!(app.told(), []);
        assert_eq!(app.0.departed.load(SeqCst), usize::from(leaves));
        let slots = life.slots(ALPHA).await;
        assert!(
            !slots.iter().any(|slot| slot.starts_with("notice")),
            "{slots:?}"
        );
    }
}

#[tokio::test]
async fn a_process_without_hooks_stores_no_notice_and_leaves_another_ones_alone() {
    let life = Life::standing().await;
    let event = revoked(&life).await;
    let app = App::default();
    app.set(Way::Fails);
    let with = with_app(&life, &app);
    handle(&life, &with, &event).await;
    let without = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_clock(life.app.fake.clock());
    life.advance(3600);
    assert_eq!(resumed(&without).await, 0);
    let notices = life.app.store.notices(&key(ALPHA), &[of_user(ADA)]).await;
    assert_eq!(notices.expect("responds").len(), 1);
    app.set(Way::Succeeds);
    assert_eq!(resumed(&with).await, 1);

    life.install(BEN).await;
    life.advance(3600);
    assert!(life.app.fake.revoke_user(ALPHA, BEN));
    let event = life.app.fake.take_events().pop().expect("an event");
    assert_eq!(handle(&life, &without, &event).await, Handled::Revoked);
    assert_eq!(life.slots(ALPHA).await, ["bot", "install"]);
}

#[tokio::test]
async fn a_departure_says_who_installed_and_what_the_flow_carried_at_once_and_later() {
    #[derive(Debug, Default)]
    struct Departures(Mutex<Vec<Departure>>);

    #[async_trait]
    impl LifecycleHooks for Departures {
        async fn uninstalled(&self, departure: &Departure, _: bool) -> Outcome {
            let mut departures = self.0.lock().expect("no test panics with it");
            departures.push(departure.clone());
            if departures.len() == 1 {
                return Err("the first call fails".into());
            }
            Ok(())
        }
    }

    let life = Life::standing().await;
    drop(revoked(&life).await);
    let hooks = Arc::new(Departures::default());
    let lifecycle = Lifecycle::new(life.app.store.clone(), life.app.slack.clone())
        .with_hooks(Arc::clone(&hooks))
        .with_clock(life.app.fake.clock());
    life.app.fake.uninstall(ALPHA);
    let event = life.app.fake.app_uninstalled(ALPHA);
    let failed = lifecycle.handle(&life.request(&event)).await;
    failed.expect_err("the hook fails");
    life.advance(61);
    assert_eq!(resumed(&lifecycle).await, 1);
    let departures = hooks.0.lock().expect("no test panics with it");
    assert_eq!(departures.len(), 2);
    for departure in &*departures {
        assert_eq!(departure.key, key(ALPHA));
        assert_eq!(departure.installed_by, Some(user_id(ADA)));
        assert_eq!(departure.metadata.as_deref(), Some("customer-42"));
        assert!(!format!("{departure:?}").contains("customer-42"));
    }
}
