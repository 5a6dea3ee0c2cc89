//! Checks every commit, with its own store that has no faults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use slack_installs::backend::{Change, MemoryBackend};
use slack_installs::store::{ChainKey, Credential, InstallId, RotationStore as _, StoredChain};
use slack_installs::testing::FakeSlack;
use slack_installs::{EncryptedStore, InstallationKey, TeamId, UserId};

use crate::ledger::Ledger;
use crate::story::Story;

pub(crate) const TEAM: &str = "T0ALPHA0001";
pub(crate) const ADA: &str = "U0ADMIN0001";
pub(crate) const BEN: &str = "U0MEMBER001";

pub(crate) struct Watch {
    pub(crate) store: EncryptedStore<Arc<MemoryBackend>>,
    pub(crate) fake: FakeSlack,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) story: Arc<Story>,
    /// The least time between two pairs, if nothing forces an earlier refresh.
    pause: Option<Duration>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    chains: HashMap<Credential, Chain>,
    /// The current installation at Slack, for each chain; none after an uninstallation.
    roots: HashMap<Credential, usize>,
    saves: usize,
}

/// A chain at the last check.
struct Chain {
    install: InstallId,
    generation: u64,
    issued_at: SystemTime,
    refresh: String,
    all: Vec<String>,
}

impl Watch {
    pub(crate) fn new(
        store: EncryptedStore<Arc<MemoryBackend>>,
        fake: FakeSlack,
        ledger: Arc<Ledger>,
        story: Arc<Story>,
        pause: Option<Duration>,
    ) -> Self {
        Self {
            store,
            fake,
            ledger,
            story,
            pause,
            seen: Mutex::default(),
        }
    }

    /// Checks the rows that a node has changed.
    pub(crate) async fn committed(&self, changes: &[Change]) {
        let slots: Vec<_> = changes.iter().filter_map(Change::slot).collect();
        let chains: Vec<_> = credentials()
            .into_iter()
            .filter(|credential| {
                slots
                    .iter()
                    .any(|slot| slot.as_str() == slot_of(credential))
            })
            .collect();
        if chains.len() > 1 {
            self.story.fail("a refresh wrote more chains than its own");
        }
        for credential in chains {
            self.look(&credential).await;
        }
    }

    /// Records a stored installation: its chains begin again.
    pub(crate) async fn installed(&self, credential: &Credential, root: usize) {
        self.seen().roots.insert(credential.clone(), root);
        self.seen().chains.remove(credential);
        self.look(credential).await;
    }

    pub(crate) async fn removed(&self) {
        self.seen().roots.clear();
        self.seen().chains.clear();
        for credential in credentials() {
            self.look(&credential).await;
        }
    }

    /// Returns the current installation at Slack for this chain.
    pub(crate) fn root(&self, credential: &Credential) -> Option<usize> {
        self.seen().roots.get(credential).copied()
    }

    /// Returns the number of pairs that refreshes have saved.
    pub(crate) fn saves(&self) -> usize {
        self.seen().saves
    }

    pub(crate) async fn chain(&self, credential: &Credential) -> Option<StoredChain> {
        let chain = self.store.chain(&key(credential)).await;
        chain.expect("the rows open")
    }

    async fn look(&self, credential: &Credential) {
        let stored = self.chain(credential).await;
        let mut seen = self.seen();
        let Some(stored) = stored else {
            seen.chains.remove(credential);
            return;
        };
        let fail = |what: &str| self.story.fail(&format!("{credential:?}: {what}"));
        let Some(&root) = seen.roots.get(credential) else {
            fail("a removed installation came back");
            return;
        };
        let all = refresh_tokens(&stored);
        let access = stored.grant.access_token.expose();
        for (place, refresh) in all.iter().enumerate() {
            let access = (place == 0).then_some(access);
            match self.ledger.store(refresh, access) {
                None => fail("the stored refresh token was never issued by Slack"),
                Some((_, false)) => fail("the stored access and refresh tokens are of two pairs"),
                Some((of, _)) if of != root => fail("a pair of another installation is stored"),
                Some(_) => {}
            }
        }
        let chain = &stored.chain;
        let now = Chain {
            install: chain.install,
            generation: chain.generation,
            issued_at: chain.issued_at,
            refresh: all[0].clone(),
            all,
        };
        if let Some(last) = seen.chains.get(credential) {
            if now.install != last.install {
                fail("an installation changed without a reinstall");
            }
            if now.generation < last.generation {
                fail("a generation went back");
            }
            let is_next = now.generation == last.generation + 1;
            if (now.refresh != last.refresh) != is_next {
                fail("a pair was replaced without a new generation");
            }
            if is_next && !self.ledger.is_bought_by(&now.refresh, &last.all) {
                fail("a pair replaced a pair that did not buy it");
            }
            let age = now.issued_at.duration_since(last.issued_at);
            let age = age.unwrap_or_default();
            if is_next && self.pause.is_some_and(|pause| age < pause) {
                fail("a pair was replaced in the first half of its life");
            }
            if is_next {
                let generation = now.generation;
                self.story
                    .note(|| format!("{credential:?}: generation {generation}"));
                seen.saves += 1;
            }
        }
        if chain.is_dead && now.all.iter().any(|token| self.fake.is_refreshable(token)) {
            fail("a chain is marked dead although its refresh token works");
        }
        seen.chains.insert(credential.clone(), now);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("the lock is not poisoned")
    }
}

/// Returns the refresh tokens of a chain, the primary first.
pub(crate) fn refresh_tokens(stored: &StoredChain) -> Vec<String> {
    let tokens = stored.grant.refresh_token.iter().chain(&stored.alternates);
    tokens.map(|token| token.expose().to_owned()).collect()
}

/// Returns the chains of a run: the bot's, and two users'.
pub(crate) fn credentials() -> [Credential; 3] {
    let user = |id| Credential::User(UserId::new(id).expect("an id"));
    [Credential::Bot, user(ADA), user(BEN)]
}

pub(crate) fn key(credential: &Credential) -> ChainKey {
    ChainKey {
        credential: credential.clone(),
        tenant: team(),
    }
}

pub(crate) fn team() -> InstallationKey {
    InstallationKey::workspace(TeamId::new(TEAM).expect("an id"))
}

fn slot_of(credential: &Credential) -> String {
    match credential {
        Credential::Bot => "bot".to_owned(),
        Credential::User(id) => format!("user/{}", id.as_str()),
    }
}
