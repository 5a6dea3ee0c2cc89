//! One run from a seed: several nodes over one database and one Slack.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use slack_installs::backend::MemoryBackend;
use slack_installs::rotation::WorkerConfig;
use slack_installs::secret::Code;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::store::{Credential, LifecycleStore as _};
use slack_installs::testing::{
    FakeSlack, GracePolicy, Person, RefreshCounts, Rotation, Who, World,
};
use slack_installs::{
    Clock, Delete, EncryptedStore, Hold, Installation, InstallationStore as _, LocalKeyProvider,
    MasterKey, RotationConfig, TokenRotator,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::caller::Caller;
use crate::ledger::Ledger;
use crate::sky::{Database, Link, Network, Sky};
use crate::story::Story;
use crate::watch::{ADA, BEN, TEAM, Watch, credentials, refresh_tokens, team};
use crate::weather::{Dice, Weather};

/// A short lifetime, so that a run has many of them. Its shape is that of 12 hours: a token is due
/// in the second half, and callers wait for its replacement in the last quarter.
const LIFE: Duration = Duration::from_secs(1200);

const RUN: Duration = Duration::from_secs(4 * 1200);

/// The time between two steps of the run itself.
const TICK: Duration = Duration::from_secs(5);

/// Longer than the time in which callers wait for a token's replacement.
pub(crate) const LONGEST_BLACKOUT: Duration = Duration::from_secs(500);

/// What users and operators did to the app, and how often.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moves {
    pub(crate) is_on_hold: bool,
    /// When the hold began, unless something else was done to the app after that.
    pub(crate) held_at: Option<Instant>,
    is_removed: bool,
    count: usize,
}

/// The operator's switch.
#[derive(Clone)]
pub(crate) struct Switch {
    clock: Clock,
    moves: Arc<Mutex<Moves>>,
    watch: Arc<Watch>,
}

impl Switch {
    pub(crate) async fn hold(&self, is_on: bool) {
        let hold = Hold {
            is_on,
            reason: "put on hold by the simulation".to_owned(),
            at: self.clock.now(),
        };
        let is_installed = self.watch.store.hold(&team(), &hold).await;
        let is_installed = is_installed.expect("a memory backend holds");
        let mut moves = self.moves.lock().expect("no panic");
        moves.is_on_hold = is_on && is_installed;
        moves.held_at = if moves.is_on_hold {
            moves.held_at.or_else(|| Some(Instant::now()))
        } else {
            None
        };
        moves.count += 1;
    }
}

/// A process: a rotator, its worker and its callers.
struct Node {
    life: usize,
    is_down: Arc<AtomicBool>,
    rotator: TokenRotator,
    callers: Vec<JoinHandle<()>>,
}

pub(crate) struct Run {
    sky: Arc<Sky>,
    fake: FakeSlack,
    backend: Arc<MemoryBackend>,
    master_key: String,
    watch: Arc<Watch>,
    clock: Clock,
    rotation: Rotation,
    moves: Arc<Mutex<Moves>>,
    lives: usize,
}

#[derive(Debug)]
#[allow(dead_code)] // Printed for the analysis of a seed.
pub(crate) struct Outcome {
    pub(crate) counts: RefreshCounts,
    pub(crate) failures: Vec<String>,
    pub(crate) lost: usize,
    faults: usize,
    policy: GracePolicy,
    grace: Duration,
    pub(crate) digest: u64,
}

/// Runs this seed on a paused clock.
pub(crate) fn run(weather: Weather, seed: u64, prints: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::new(weather, seed).await;
        let outcome = run.course().await;
        if prints {
            run.watch.story.print();
        }
        outcome
    })
}

impl Run {
    async fn new(weather: Weather, seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x5EED);
        let start = Instant::now();
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let clock = Clock::from_fn(move || epoch + start.elapsed());
        let world = World::default().with_seed(seed).with_clock(clock.clone());
        let fake = FakeSlack::in_process(world);
        fake.add_person(TEAM, Person::admin(BEN, "ben"));
        let policy = GracePolicy::ALL[usize::try_from(dice.below(4)).expect("small")];
        let grace = if weather.relies_on_grace() {
            dice.millis(60_000, 120_000)
        } else {
            dice.millis(0, 60_000)
        };
        let rotation = Rotation {
            grace,
            policy,
            is_minimal: dice.hits(300),
            is_nested: dice.hits(300),
            reinstall_revokes: dice.hits(500),
            token_life: LIFE,
        };
        fake.rotate_tokens(rotation.clone());
        let backend = Arc::new(MemoryBackend::default());
        let master_key = MasterKey::generate().to_base64().to_string();
        let key = MasterKey::parse(&master_key).expect("a key");
        let provider = LocalKeyProvider::new(key);
        let store = EncryptedStore::open(Arc::clone(&backend), provider, fake.client_id()).await;
        let store = store
            .expect("a memory backend opens")
            .with_seed(seed)
            .with_clock(clock.clone());
        let story = Arc::new(Story::new());
        let ledger = Arc::new(Ledger::new(Arc::clone(&story)));
        // Slack reports lifetimes in whole seconds.
        let pause = LIFE / 2 - Duration::from_secs(1);
        let pause = (weather.lets_know() && !weather.lies).then_some(pause);
        Self {
            sky: Arc::new(Sky::new(weather, dice)),
            watch: Arc::new(Watch::new(store, fake.clone(), ledger, story, pause)),
            fake,
            backend,
            master_key,
            clock,
            rotation,
            moves: Arc::default(),
            lives: 0,
        }
    }

    async fn course(&mut self) -> Outcome {
        self.install(ADA).await;
        self.install(BEN).await;
        let size = self.sky.dice(|dice| 2 + dice.below(3));
        let mut nodes = Vec::new();
        for number in 0..size {
            nodes.push(self.node(number).await);
        }
        let start = Instant::now();
        while start.elapsed() < RUN {
            sleep(TICK).await;
            if start.elapsed() > RUN - LIFE {
                self.sky.is_clear.store(true, Ordering::SeqCst);
            }
            for (number, node) in nodes.iter_mut().enumerate() {
                self.replace(number, node).await;
            }
            if !self.sky.is_clear() {
                self.happen().await;
            }
        }
        if self.moves().is_removed {
            self.install(ADA).await;
            self.install(BEN).await;
        }
        self.hold(false).await;
        for node in &nodes {
            node.rotator.shutdown(Duration::from_secs(60)).await;
            node.callers.iter().for_each(JoinHandle::abort);
        }
        // Long enough that every lease has lapsed on every clock.
        sleep(self.rotation.grace + 3 * LIFE).await;
        self.end().await
    }

    /// Restarts a node that is down. From time to time, replaces a node that runs.
    async fn replace(&mut self, number: usize, node: &mut Node) {
        let deploys = self.sky.weather.deploys;
        let (restarts, is_replaced) = self.sky.dice(|dice| (dice.hits(250), dice.hits(deploys)));
        let is_down = node.is_down.load(Ordering::SeqCst);
        if is_down && restarts {
            self.watch
                .story
                .note(|| format!("node {number} was down and starts again"));
        } else if !is_down && is_replaced && !self.sky.is_clear() {
            let is_done = node.rotator.shutdown(Duration::from_secs(60)).await;
            self.watch
                .story
                .note(|| format!("node {number} ends in an orderly way: {is_done}"));
            // The process ends: its remaining tasks have no effect any longer.
            node.is_down.store(true, Ordering::SeqCst);
            if !is_done {
                self.watch.ledger.die(node.life);
            }
        } else {
            return;
        }
        node.callers.iter().for_each(JoinHandle::abort);
        *node = self.node(number as u64).await;
    }

    /// Runs what users and Slack do meanwhile.
    async fn happen(&self) {
        let Weather {
            blackouts, moves, ..
        } = self.sky.weather;
        if self.sky.dice(|dice| dice.hits(blackouts)) {
            let lasts = self
                .sky
                .dice(|dice| dice.millis(20_000, LONGEST_BLACKOUT.as_millis() as u64));
            self.watch
                .story
                .note(|| format!("Slack is away for {lasts:?}"));
            *self.sky.blackout.lock().expect("no panic") = Some(Instant::now() + lasts);
        }
        if !moves {
            return;
        }
        let roll = self.sky.dice(|dice| dice.below(480));
        let Moves {
            is_removed,
            is_on_hold,
            ..
        } = self.moves();
        match roll {
            0..=15 if is_removed => {
                self.install(ADA).await;
                self.install(BEN).await;
            }
            0 => self.install(ADA).await,
            1 => self.install(BEN).await,
            2 => self.uninstall().await,
            3..=5 => self.hold(true).await,
            6..=30 if is_on_hold => self.hold(false).await,
            _ => {}
        }
    }

    async fn node(&mut self, number: u64) -> Node {
        self.lives += 1;
        let link = self.link();
        let (life, is_down) = (link.life, Arc::clone(&link.is_down));
        let (rotator, store) = self.rotator(link).await;
        let worker = rotator.clone();
        let config = WorkerConfig {
            every: Duration::from_secs(10),
            ..WorkerConfig::default()
        };
        let caller = Caller {
            name: format!("node {number}"),
            rotator: rotator.clone(),
            store,
            sky: Arc::clone(&self.sky),
            clock: self.clock.clone(),
            watch: Arc::clone(&self.watch),
            moves: Arc::clone(&self.moves),
            seen: HashMap::new(),
        };
        let callers = vec![
            tokio::spawn(async move { worker.work(config).await }),
            tokio::spawn(caller.ask_again_and_again()),
        ];
        Node {
            life,
            is_down,
            rotator,
            callers,
        }
    }

    fn link(&self) -> Link {
        Link {
            sky: Arc::clone(&self.sky),
            ledger: Arc::clone(&self.watch.ledger),
            life: self.lives,
            is_down: Arc::default(),
            has_started: Arc::default(),
        }
    }

    async fn rotator(&self, link: Link) -> (TokenRotator, EncryptedStore<Database>) {
        let skew_by = self.sky.weather.skew;
        let (skew, is_ahead, seed) = self.sky.dice(|dice| {
            let most = u64::try_from(skew_by.as_millis()).expect("small").max(1);
            (dice.millis(0, most), dice.hits(500), dice.roll())
        });
        let clock = self.clock.clone();
        let clock = Clock::from_fn(move || {
            if is_ahead {
                clock.now() + skew
            } else {
                clock.now() - skew
            }
        });
        let provider = LocalKeyProvider::new(MasterKey::parse(&self.master_key).expect("a key"));
        let database = Database {
            inner: Arc::clone(&self.backend),
            link: link.clone(),
            watch: Arc::clone(&self.watch),
        };
        let store = EncryptedStore::open(database, provider, self.fake.client_id()).await;
        let store = store
            .expect("a memory backend opens")
            .with_seed(seed)
            .with_clock(clock.clone());
        link.has_started.store(true, Ordering::SeqCst);
        let network = Network {
            inner: self.fake.transport(),
            link,
            switch: self.switch(),
        };
        let slack =
            SlackClient::with_transport(self.fake.environment(), network).with_clock(clock.clone());
        let rotator = TokenRotator::new(RotationConfig::new(self.app()), slack, store.clone());
        (rotator.with_clock(clock).with_seed(seed), store)
    }

    fn app(&self) -> ClientCredentials {
        ClientCredentials {
            client_id: self.fake.client_id(),
            client_secret: self.fake.client_secret(),
        }
    }

    /// Runs the install flow for a user: a bot token, and a token of the user.
    async fn install(&self, who: &str) {
        self.watch.story.note(|| format!("{who} installs"));
        let mut url = self.fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", self.fake.client_id().as_str())
            .append_pair("scope", "chat:write")
            .append_pair("user_scope", "search:read")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", TEAM);
        let callback = self.fake.allow(&url, Who::user(who).at(TEAM));
        let callback = callback.expect("the user may install the app");
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.expect("a code").1).expect("plausible");
        let slack = SlackClient::with_transport(self.fake.environment(), self.fake.transport())
            .with_clock(self.clock.clone());
        let issued = slack.oauth_v2_access(&self.app(), &code, REDIRECT).await;
        let issued = issued.expect("the fake exchanges");
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        installation.user = issued.user;
        let bot = installation
            .bot
            .as_ref()
            .map(|bot| (Credential::Bot, &bot.grant));
        let user = installation.user.as_ref();
        let user = user.map(|user| (Credential::User(user.id.clone()), &user.grant));
        let mut roots = Vec::new();
        for (credential, grant) in bot.into_iter().chain(user) {
            let refresh = grant.refresh_token.as_ref().expect("a rotating pair");
            let access = grant.access_token.expose();
            roots.push((
                credential,
                self.watch.ledger.install(access, refresh.expose()),
            ));
        }
        let stored = self.watch.store.store(&installation).await;
        stored.expect("a memory backend stores");
        for (credential, root) in &roots {
            self.watch.installed(credential, *root).await;
        }
        self.moved(|moves| moves.is_removed = false);
    }

    /// Removes the app at Slack, and handles the event.
    async fn uninstall(&self) {
        self.watch
            .story
            .note(|| "the app is uninstalled".to_owned());
        self.fake.uninstall(TEAM);
        let deleted = self.watch.store.delete(&team(), &Delete::all()).await;
        deleted.expect("a memory backend deletes");
        self.watch.removed().await;
        // A hold stays.
        self.moved(|moves| moves.is_removed = true);
    }

    async fn hold(&self, is_on: bool) {
        self.switch().hold(is_on).await;
    }

    fn switch(&self) -> Switch {
        Switch {
            clock: self.clock.clone(),
            moves: Arc::clone(&self.moves),
            watch: Arc::clone(&self.watch),
        }
    }

    fn moves(&self) -> Moves {
        *self.moves.lock().expect("no panic")
    }

    fn moved(&self, change: impl FnOnce(&mut Moves)) {
        let mut moves = self.moves.lock().expect("no panic");
        change(&mut moves);
        moves.held_at = None;
        moves.count += 1;
    }

    fn fail(&self, what: &str) {
        self.watch.story.fail(what);
    }

    /// Ends the run: a new process, without faults, must get tokens that work.
    async fn end(&mut self) -> Outcome {
        // Counts before the new process spends a token.
        let counts = self.fake.refresh_counts();
        let (weather, ledger) = (self.sky.weather, Arc::clone(&self.watch.ledger));
        let faults = self.sky.faults.load(Ordering::SeqCst);
        if weather.is_calm() && counts.duplicates > 0 {
            self.fail(&format!(
                "{} refresh tokens were spent twice",
                counts.duplicates
            ));
        }
        if weather.is_calm() && ledger.calls() != self.watch.saves() {
            self.fail(&format!(
                "{} calls, {} saves",
                ledger.calls(),
                self.watch.saves()
            ));
        }
        // Each repeated call has a cause.
        if weather.skew.is_zero() && counts.duplicates > 2 * faults {
            self.fail(&format!(
                "{} repeated calls for {faults} faults",
                counts.duplicates
            ));
        }
        let dropped = ledger.dropped();
        if dropped > 0 {
            self.fail(&format!("{dropped} pairs were dropped by a living node"));
        }
        let silent = ledger.not_asked_again(AT_ONCE);
        if weather.name == "lost" && silent > 0 {
            self.fail(&format!(
                "{silent} calls with lost responses were not repeated at once"
            ));
        }
        self.lives += 1;
        let (rotator, _) = self.rotator(self.link()).await;
        let mut lost = 0;
        for credential in credentials() {
            let stands = self.watch.chain(&credential).await;
            let outcome = rotator
                .within(Duration::from_secs(120))
                .token_for(&team(), credential.clone())
                .await;
            let is_live = match &outcome {
                Ok(token) => self.fake.is_live(token.access_token.expose()),
                Err(_) => false,
            };
            if is_live {
                continue;
            }
            lost += 1;
            let tokens = stands.as_ref().map(refresh_tokens).unwrap_or_default();
            let Rotation { policy, grace, .. } = self.rotation;
            if !ledger.is_excused(&tokens, policy, grace) {
                let error = outcome.err();
                self.fail(&format!("{credential:?} is lost: {error:?}"));
            }
        }
        Outcome {
            counts,
            failures: self.watch.story.failures(),
            lost,
            faults,
            policy: self.rotation.policy,
            grace: self.rotation.grace,
            digest: self.watch.story.digest(),
        }
    }
}

/// The time for the read and the commit that note the repetition, and for the network.
const AT_ONCE: Duration = Duration::from_secs(3);

const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
