//! More of what the rotator must do: one file for each subject.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::rotation::RefusedToken;
use slack_installs::store::{
    Chain, ChainKey, Credential, Error, ListCursor, RotationStore, StoredChain,
};
use slack_installs::testing::{Person, Rotation, Workspace};
use slack_installs::{Grant, InstallationKey, TeamId, TokenRotator};

#[macro_use]
mod support;

#[path = "rotation_more/attempts.rs"]
mod attempts;
#[path = "rotation_more/background.rs"]
mod background;
#[path = "rotation_more/breaker.rs"]
mod breaker;
#[path = "rotation_more/called.rs"]
mod called;
#[path = "rotation_more/doubt.rs"]
mod doubt;
#[path = "rotation_more/fetched.rs"]
mod fetched;
#[path = "rotation_more/foreign.rs"]
mod foreign;
#[path = "rotation_more/guards.rs"]
mod guards;
#[path = "rotation_more/holds.rs"]
mod holds;
#[path = "rotation_more/looks.rs"]
mod looks;
#[path = "rotation_more/migrate.rs"]
mod migrate;
#[path = "rotation_more/outcomes.rs"]
mod outcomes;
#[path = "rotation_more/pages.rs"]
mod pages;
#[path = "rotation_more/queue.rs"]
mod queue;
#[path = "rotation_more/reinstall.rs"]
mod reinstall;
#[path = "rotation_more/revoked.rs"]
mod revoked;
#[path = "rotation_more/saves.rs"]
mod saves;
#[path = "rotation_more/succession.rs"]
mod succession;
#[path = "rotation_more/waits.rs"]
mod waits;

use support::rotation::{ADMIN, ALPHA, Stage, Store, alpha};

const REFRESH: &str = "oauth.v2.access";

async fn installed() -> Stage {
    installed_with(Rotation::default()).await
}

async fn installed_with(rotation: Rotation) -> Stage {
    let stage = Stage::new(rotation).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage
}

/// Changes the bot's chain as another process might have.
async fn change(stage: &Stage, change: impl Fn(&mut Chain) + Sync) {
    let key = ChainKey {
        credential: Credential::Bot,
        tenant: alpha(),
    };
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        change(&mut next);
        Some(next)
    };
    let updated = stage.store.update(&key, None, &mut decide).await;
    updated.expect("answers").expect("installed");
}

/// Many tenants.
async fn fleet(stage: &Stage, size: usize) -> Vec<InstallationKey> {
    let mut tenants = Vec::new();
    for number in 0..size {
        let id = format!("T0FLEET{number:04}");
        stage.fake.add_workspace(Workspace::new(&id, "Fleet"));
        stage.fake.add_person(&id, Person::admin(ADMIN, "ada"));
        stage.install(&id, "chat:write", "").await;
        tenants.push(InstallationKey::workspace(TeamId::new(id).expect("an id")));
    }
    tenants
}

/// A process whose database treats updates so.
fn rotator_over(
    stage: &Stage,
    ways: impl Fn(usize) -> Way + Send + Sync + 'static,
) -> TokenRotator {
    let store = Wayward {
        store: stage.store.clone(),
        updates: AtomicUsize::new(0),
        ways: Arc::new(ways),
    };
    TokenRotator::new(stage.config(), stage.slack(), store).with_clock(stage.fake.clock())
}

/// What becomes of an update.
enum Way {
    Done,
    /// Nothing was done.
    Failed,
    /// It was done, and nobody hears of it.
    Lost,
    /// It was done, and its result comes after this time.
    Slow(Duration),
    /// Nothing was done: the row does not open.
    Unreadable,
}

/// A store under which updates go wrong, by their number.
struct Wayward {
    store: Store,
    updates: AtomicUsize,
    ways: Arc<dyn Fn(usize) -> Way + Send + Sync>,
}

impl std::fmt::Debug for Wayward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wayward")
    }
}

#[async_trait]
impl RotationStore for Wayward {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        self.store.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let away = || Err(Error::Unavailable("away".into()));
        match (self.ways)(self.updates.fetch_add(1, Ordering::SeqCst)) {
            Way::Done => self.store.update(key, offered, decide).await,
            Way::Failed => away(),
            Way::Lost => {
                self.store.update(key, offered, decide).await?;
                away()
            }
            Way::Slow(wait) => {
                let updated = self.store.update(key, offered, decide).await;
                tokio::time::sleep(wait).await;
                updated
            }
            Way::Unreadable => Err(Error::Unreadable("changed".into())),
        }
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.store.chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.store.due(now, from, limit).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.store.sweep().await
    }
}

/// The host's own error.
#[derive(Debug)]
enum Posting {
    Expired,
    Revoked,
}

impl RefusedToken for Posting {
    fn is_token_expired(&self) -> bool {
        matches!(self, Self::Expired)
    }

    fn is_token_revoked(&self) -> bool {
        matches!(self, Self::Revoked)
    }
}
