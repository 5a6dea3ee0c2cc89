//! Parts that serve requests: a database in which something happens between two reads, tokens that
//! expire when a test chooses, and a rotator.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    Grant, Hold, InstallationStore as _, LifecycleStore as _, RotationConfig, TokenRotator,
};

use super::app::{ADA, ALPHA, App, key, world};
use super::hooked::{Call, Hooked, Hooks, lost};
use super::installs::{With as _, grant, in_workspace, rotating};
use super::life::Life;
use crate::support::app::credentials;

type Interruption = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A database in memory that loses what [`Flaky`] is set to lose. Another operation can run before
/// one of the next reads.
pub struct Between {
    flaky: Arc<Flaky<MemoryBackend>>,
    next: Mutex<Option<(u64, Interruption)>>,
    reads: AtomicU64,
    yields: AtomicBool,
}

impl Between {
    pub fn new() -> Hooked<Self> {
        let flaky = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let hooks = Self {
            flaky: Arc::clone(&flaky),
            next: Mutex::new(None),
            reads: AtomicU64::new(0),
            yields: AtomicBool::new(false),
        };
        Hooked::over(flaky, hooks)
    }

    /// Runs this before the nth read from now, counted from 1.
    pub fn before_read(&self, nth: u64, what: impl Future<Output = ()> + Send + 'static) {
        self.interrupt(nth, async {
            what.await;
            Ok(())
        });
    }

    /// Fails the nth read from now, and no other read.
    pub fn fail_read(&self, nth: u64) {
        self.interrupt(nth, async { Err(lost()) });
    }

    /// Makes each commit from now on yield to other tasks first.
    pub fn yield_in_commits(&self) {
        self.yields.store(true, Ordering::SeqCst);
    }

    /// Returns the number of reads that were requested.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    fn interrupt(&self, nth: u64, what: impl Future<Output = Result<(), Error>> + Send + 'static) {
        *self.next.lock().expect("the lock is not poisoned") = Some((nth, Box::pin(what)));
    }

    fn due(&self) -> Option<Interruption> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut next = self.next.lock().expect("the lock is not poisoned");
        let (left, _) = next.as_mut()?;
        *left -= 1;
        let (_, what) = next.take_if(|(left, _)| *left == 0)?;
        Some(what)
    }
}

impl Deref for Between {
    type Target = Flaky<MemoryBackend>;

    fn deref(&self) -> &Flaky<MemoryBackend> {
        &self.flaky
    }
}

#[async_trait]
impl Hooks for Between {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        if let Call::Read(_) = call
            && let Some(interruption) = self.due()
        {
            interruption.await?;
        }
        let is_commit = matches!(call, Call::Commit([_, ..]));
        if is_commit && self.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Returns an app over such a database.
pub async fn interrupted() -> (Life, Hooked<Between>) {
    let backend = Between::new();
    let life = Life::with(world(), Arc::new(backend.clone())).await;
    (life, backend)
}

/// Returns a rotator of this app.
pub fn rotator(app: &App) -> TokenRotator {
    let config = RotationConfig::new(credentials(&app.fake));
    TokenRotator::new(config, app.slack.clone(), app.store.clone()).with_clock(app.fake.clock())
}

/// Puts a tenant on hold, or ends its hold.
pub async fn hold(app: &App, tenant: &str, is_on: bool) {
    let hold = Hold {
        is_on,
        reason: "ticket 1".to_owned(),
        at: app.fake.clock().now(),
    };
    let known = app.store.hold(&key(tenant), &hold).await;
    assert!(known.expect("the store is up"), "it is installed");
}

/// The remaining lifetime of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Token {
    /// The token does not exist.
    Missing,
    /// The token does not rotate.
    Lasting,
    /// The token expires in 12 hours.
    Live,
    /// The token expired a second ago.
    Over,
}

impl Token {
    pub const ALL: [Self; 4] = [Self::Missing, Self::Lasting, Self::Live, Self::Over];

    pub fn serves(self) -> bool {
        matches!(self, Self::Lasting | Self::Live)
    }

    fn grant(self, name: &str, now: SystemTime) -> Grant {
        let expires_at = match self {
            Self::Missing | Self::Lasting => return grant(name),
            Self::Live => now + Duration::from_secs(12 * 3600),
            Self::Over => now - Duration::from_secs(1),
        };
        Grant {
            expires_at: Some(expires_at),
            ..rotating(name, &format!("xoxe-1-{name}"))
        }
    }
}

/// Stores an installation of Alpha with these tokens for the bot and for Ada.
pub async fn keep(app: &App, bot: Token, user: Token) {
    let now = app.fake.clock().now();
    let mut installation = in_workspace(ALPHA);
    installation.app_id = app.fake.app_id();
    if bot != Token::Missing {
        installation = installation.with_bot("replaced");
    }
    if user != Token::Missing {
        installation = installation.with_user(ADA, "replaced");
    }
    if let Some(it) = &mut installation.bot {
        it.grant = bot.grant("xoxb-alpha", now);
    }
    if let Some(it) = &mut installation.user {
        it.grant = user.grant("xoxp-ada", now);
    }
    let stored = app.store.store(&installation).await;
    stored.expect("the store is up");
}
