//! A process that dies at every possible moment: one refresh is cut off after each step of its
//! scheduler, and a new process follows. The search is exhaustive where the seeds are random. It
//! covers every await of the engine and of its dependencies, not only the calls to the database and
//! to Slack.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::{Backend, Error as BackendError, MemoryBackend};
use slack_installs::rotation::{Error, WorkerConfig};
use slack_installs::secret::Code;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::store::{ChainKey, Credential, RotationStore as _, StoredChain};
use slack_installs::testing::{FakeSlack, Fault, GracePolicy, Rotation, Who, World};
use slack_installs::{
    Clock, Delete, EncryptedStore, Installation, InstallationStore as _, LocalKeyProvider,
    MasterKey, RotationConfig, TokenRotator,
};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::hooked::{Call, Hooked, Hooks};
use crate::hooked_transport::{CallHooks, HookedTransport};
use crate::watch::{ADA, TEAM, team};

/// What happens in addition to the crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scene {
    /// Nothing else happens.
    Plain,
    /// Slack's first response is lost.
    Lost,
    /// The app is uninstalled while Slack is called.
    Uninstalled,
}

/// The state at the time of the process's death.
struct Cut {
    /// The step of the cut; `None` if the process had finished before.
    at: Option<usize>,
    calls: usize,
    generation: Option<u64>,
    stored: Option<String>,
    handed_out: Option<String>,
}

struct Stage {
    scene: Scene,
    fake: FakeSlack,
    backend: Arc<MemoryBackend>,
    master_key: String,
    /// The time, and since when it counts on the clock of the current runtime.
    time: Arc<Mutex<(SystemTime, Option<Instant>)>>,
}

impl Stage {
    /// Creates an installation whose token has just expired.
    fn new(scene: Scene, policy: GracePolicy, grace: Duration) -> Self {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let time = Arc::new(Mutex::new((epoch, None)));
        let world = World::default().with_seed(1).with_clock(clock(&time));
        let fake = FakeSlack::in_process(world);
        fake.rotate_tokens(Rotation {
            grace,
            policy,
            ..Rotation::default()
        });
        let stage = Self {
            scene,
            fake,
            backend: Arc::default(),
            master_key: MasterKey::generate().to_base64().to_string(),
            time,
        };
        runtime().block_on(stage.install());
        stage.time.lock().expect("no panic").0 += Duration::from_secs(13 * 3600);
        if scene == Scene::Lost {
            let lost = Fault::lost().after_effect();
            stage.fake.inject("oauth.v2.access", lost);
        }
        stage
    }

    async fn install(&self) {
        let mut url = self.fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", self.fake.client_id().as_str())
            .append_pair("scope", "chat:write")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", TEAM);
        let callback = self.fake.allow(&url, Who::user(ADA).at(TEAM));
        let callback = callback.expect("Ada may install");
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.expect("a code").1).expect("plausible");
        let slack = SlackClient::with_transport(self.fake.environment(), self.fake.transport());
        let issued = slack.oauth_v2_access(&self.app(), &code, REDIRECT).await;
        let issued = issued.expect("the fake exchanges");
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        let store = self.store(Arc::clone(&self.backend)).await;
        store.store(&installation).await.expect("stored");
    }

    async fn store<B: Backend>(&self, backend: B) -> EncryptedStore<B> {
        let key = MasterKey::parse(&self.master_key).expect("a key");
        let provider = LocalKeyProvider::new(key);
        let store = EncryptedStore::open(backend, provider, self.fake.client_id()).await;
        let store = store.expect("a memory backend opens");
        store.with_seed(1).with_clock(clock(&self.time))
    }

    async fn rotator(&self) -> TokenRotator {
        let store = Hooked::<Slow>::new(Arc::clone(&self.backend) as Arc<dyn Backend>);
        let store = self.store(store).await;
        let uninstalls = (self.scene == Scene::Uninstalled).then(|| {
            let (fake, backend) = (self.fake.clone(), Arc::clone(&self.backend));
            (fake, backend, self.master_key.clone())
        });
        let wire = HookedTransport::over(self.fake.transport(), Wire(uninstalls));
        let slack = SlackClient::with_transport(self.fake.environment(), wire)
            .with_clock(clock(&self.time));
        TokenRotator::new(RotationConfig::new(self.app()), slack, store)
            .with_clock(clock(&self.time))
            .with_seed(1)
    }

    fn app(&self) -> ClientCredentials {
        ClientCredentials {
            client_id: self.fake.client_id(),
            client_secret: self.fake.client_secret(),
        }
    }

    async fn chain(&self) -> Option<StoredChain> {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant: team(),
        };
        let store = self.store(Arc::clone(&self.backend)).await;
        store.chain(&key).await.expect("the rows open")
    }

    /// Lets time continue with the clock of the current runtime.
    fn enter(&self) {
        self.time.lock().expect("no panic").1 = Some(Instant::now());
    }

    fn leave(&self) {
        let now = clock(&self.time).now();
        *self.time.lock().expect("no panic") = (now, None);
    }

    /// Runs a process that refreshes for a caller. It dies after so many steps, or finishes before.
    fn first(&self, steps: usize) -> Cut {
        let runtime = runtime();
        let handed_out = Arc::new(Mutex::new(None));
        let at = runtime.block_on(async {
            self.enter();
            let rotator = self.rotator().await;
            let worker = rotator.clone();
            tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
            let hand = Arc::clone(&handed_out);
            let caller = tokio::spawn(async move {
                let outcome = rotator.token_for(&team(), Credential::Bot).await;
                if let Ok(token) = outcome {
                    let access = token.access_token.expose().to_owned();
                    *hand.lock().expect("no panic") = Some(access);
                }
            });
            let mut step = 0;
            while !caller.is_finished() {
                for _ in 0..POLLS {
                    if step == steps {
                        self.leave();
                        return Some(step);
                    }
                    step += 1;
                    yield_now().await;
                }
                sleep(Duration::from_millis(1)).await;
            }
            self.leave();
            None
        });
        // Drops every task of the process at its current step.
        drop(runtime);
        let stored = self::runtime().block_on(self.chain());
        let handed_out = handed_out.lock().expect("no panic").clone();
        Cut {
            at,
            calls: self.fake.refresh_counts().calls,
            generation: stored.as_ref().map(|stored| stored.chain.generation),
            stored: stored.map(|stored| stored.grant.access_token.expose().to_owned()),
            handed_out,
        }
    }

    /// Starts the process again, its worker before its callers.
    fn second(&self) -> (Result<String, Error>, Option<StoredChain>) {
        runtime().block_on(async {
            self.enter();
            let rotator = self.rotator().await;
            let worker = rotator.clone();
            tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
            sleep(Duration::from_secs(20)).await;
            let rotator = rotator.within(Duration::from_secs(60));
            let outcome = rotator.token_for(&team(), Credential::Bot).await;
            let outcome = outcome.map(|token| token.access_token.expose().to_owned());
            (outcome, self.chain().await)
        })
    }
}

/// Cuts a refresh at every step. Returns the number of steps at which the installation was lost.
fn cut_everywhere(scene: Scene, policy: GracePolicy, grace: Duration) -> usize {
    let mut lost = 0;
    // How many cuts were before the call, between the call and the save, and after the save.
    let mut seen = [0; 3];
    for steps in 0.. {
        let stage = Stage::new(scene, policy, grace);
        let cut = stage.first(steps);
        let what = format!("{scene:?}, {policy:?}, {grace:?}, after {steps} steps");
        if let Some(token) = &cut.handed_out {
            assert_eq!(Some(token), cut.stored.as_ref(), "{what}: not saved");
        }
        let in_window = cut.calls > 0 && cut.generation == Some(0);
        seen[match (cut.calls, in_window) {
            (0, _) => 0,
            (_, true) => 1,
            _ => 2,
        }] += 1;
        let (outcome, stored) = stage.second();
        let is_live = outcome
            .as_ref()
            .is_ok_and(|token| stage.fake.is_live(token));
        match scene {
            Scene::Uninstalled if cut.generation.is_none() => {
                let is_gone =
                    matches!(outcome, Err(Error::NotInstalled { .. })) && stored.is_none();
                assert!(is_gone, "{what}: the installation came back");
            }
            _ if is_live => {}
            // The process's own call and the uninstallation follow the cut.
            Scene::Uninstalled => assert!(stored.is_none(), "{what}: the installation came back"),
            Scene::Plain | Scene::Lost => {
                let why = outcome.err();
                assert!(
                    in_window,
                    "{what}: lost although no call was in progress: {why:?}"
                );
                lost += 1;
            }
        }
        let calls = stage.fake.refresh_counts().calls;
        let needed = 1 + usize::from(scene == Scene::Lost) + usize::from(in_window);
        // The second pair may be dead from the start. Its refresh token is then refused, the token that
        // bought it is sent once more, and so is the token of that pair.
        let is_dead = policy == GracePolicy::FirstOnly && (in_window || scene == Scene::Lost);
        let needed = needed + if is_dead { 3 } else { 0 };
        assert!(calls <= needed.max(cut.calls), "{what}: {calls} calls");
        if cut.at.is_none() {
            assert!(steps > 50, "the refresh ended after {steps} steps");
            let revoked = stage.fake.calls("auth.revoke");
            let has_orphan = scene == Scene::Uninstalled;
            assert_eq!(revoked, if has_orphan { 2 } else { 0 }, "{what}");
            break;
        }
    }
    let [before, within, after] = seen.map(|seen| seen > 0);
    assert!(before && after, "{seen:?}");
    assert!(within || scene == Scene::Uninstalled, "{seen:?}");
    lost
}

#[test]
fn a_crash_at_any_await_loses_nothing_within_the_grace() {
    for policy in GracePolicy::ALL {
        let lost = cut_everywhere(Scene::Plain, policy, GRACE);
        // Under `FirstOnly` the first pair alone is alive, and its response dies with the process.
        let may_be_lost = policy == GracePolicy::FirstOnly;
        assert_eq!(lost > 0, may_be_lost, "{policy:?}: lost at {lost} steps");
    }
}

#[test]
fn without_a_grace_only_a_crash_between_slacks_answer_and_the_save_can_lose() {
    assert!(cut_everywhere(Scene::Plain, GracePolicy::NewestOnly, Duration::ZERO) > 0);
}

#[test]
fn a_crash_at_any_await_after_a_lost_answer_loses_nothing_within_the_grace() {
    for policy in [GracePolicy::AllLive, GracePolicy::NewestOnly] {
        assert_eq!(cut_everywhere(Scene::Lost, policy, GRACE), 0, "{policy:?}");
    }
}

#[test]
fn a_crash_at_any_await_of_a_refresh_that_meets_an_uninstallation_revives_nothing() {
    cut_everywhere(Scene::Uninstalled, GracePolicy::NewestOnly, GRACE);
}

fn clock(time: &Arc<Mutex<(SystemTime, Option<Instant>)>>) -> Clock {
    let time = Arc::clone(time);
    Clock::from_fn(move || {
        let (time, since) = *time.lock().expect("no panic");
        time + since.map_or(Duration::ZERO, |since| since.elapsed())
    })
}

/// The first future is polled between any two polls of tasks.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .event_interval(1)
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// A backend that takes a millisecond before and after each call.
#[derive(Default)]
struct Slow;

#[async_trait]
impl Hooks for Slow {
    async fn before(&self, _: Call<'_>) -> Result<(), BackendError> {
        sleep(Duration::from_millis(1)).await;
        Ok(())
    }

    async fn after(&self, _: Call<'_>) -> Result<(), BackendError> {
        sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

/// A network that takes a millisecond before and after each call. If set, the app is uninstalled
/// after a refresh.
struct Wire(Option<(FakeSlack, Arc<MemoryBackend>, String)>);

#[async_trait]
impl CallHooks for Wire {
    async fn before(&self, _: &str) {
        sleep(Duration::from_millis(1)).await;
    }

    async fn after(&self, path: &str) {
        let is_refresh = path.ends_with("oauth.v2.access");
        if let Some((fake, backend, key)) = self.0.as_ref().filter(|_| is_refresh) {
            fake.uninstall(TEAM);
            let provider = LocalKeyProvider::new(MasterKey::parse(key).expect("a key"));
            let store = EncryptedStore::open(Arc::clone(backend), provider, fake.client_id());
            let store = store.await.expect("a memory backend opens");
            let deleted = store.delete(&team(), &Delete::all()).await;
            deleted.expect("a memory backend deletes");
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Polls of the scheduler for each millisecond: more than the number of tasks to run in one.
const POLLS: usize = 12;

/// Enough for a restart, a lease, and one look of the worker.
const GRACE: Duration = Duration::from_secs(60);

const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
