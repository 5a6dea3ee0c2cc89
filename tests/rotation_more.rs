//! More of what the rotator must do: one file for each subject.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::rotation::RefusedToken;
use slack_installs::store::{Chain, ChainKey, Error, ListCursor, RotationStore, StoredChain};
use slack_installs::testing::{Person, Rotation, Workspace};
use slack_installs::{Grant, InstallationKey, TeamId, TokenRotator};

#[macro_use]
mod support;

#[path = "rotation_more/attempts.rs"]
mod attempts;
#[path = "rotation_more/background.rs"]
mod background;
#[path = "rotation_more/doubt.rs"]
mod doubt;
#[path = "rotation_more/guards.rs"]
mod guards;
#[path = "rotation_more/migrate.rs"]
mod migrate;
#[path = "rotation_more/reinstall.rs"]
mod reinstall;
#[path = "rotation_more/succession.rs"]
mod succession;

use support::rotation::{ADMIN, ALPHA, Stage, Store};

const REFRESH: &str = "oauth.v2.access";

async fn installed() -> Stage {
    installed_with(Rotation::default()).await
}

async fn installed_with(rotation: Rotation) -> Stage {
    let stage = Stage::new(rotation).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage
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
