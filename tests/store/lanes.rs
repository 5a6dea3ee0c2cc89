//! Rows that wait in one lane delay nothing in another, and rows that cannot be read delay nothing
//! at all.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::installs::{With, in_org, in_workspace, noon, rotating, workspace_key};
use crate::support::providers::master_key;
use crate::support::{Db, all_rows};
use slack_installs::backend::{
    Backend, Change, Due, Expect, Key, Lane, MemoryBackend, Metadata, Partition, Row, Sealed, Slot,
    Version,
};
use slack_installs::store::{
    ChainKey, Credential, LifecycleStore, ListCursor, RotationStore, StateId,
};
use slack_installs::{
    Clock, Departure, EncryptedStore, InstallationKey, InstallationStore, KeyringError,
    LocalKeyProvider, StateStore,
};

/// An app in memory: `T1` rotates, and `T2` has just left.
struct World {
    db: Db,
    memory: Arc<MemoryBackend>,
    store: EncryptedStore<Arc<MemoryBackend>>,
}

impl World {
    async fn new() -> Self {
        let memory = Arc::new(MemoryBackend::default());
        let db = Db::new(Arc::clone(&memory));
        let provider = LocalKeyProvider::from(master_key());
        let store = db.store_over(Arc::clone(&memory), provider).await;
        let world = Self { db, memory, store };
        world.install("T1").await;
        world.leave("T2").await;
        world
    }

    async fn install(&self, team: &str) {
        let mut installation = in_workspace(team).with_bot("xoxe.xoxb-1-a");
        installation.bot.as_mut().expect("a bot").grant = rotating("xoxe.xoxb-1-a", "xoxe-1-a");
        self.store.store(&installation).await.expect("stored");
    }

    async fn leave(&self, team: &str) {
        let key = workspace_key(team);
        let installation = in_workspace(team).with_bot("xoxb-1");
        let revision = self.store.store(&installation).await.expect("stored");
        let departure = Departure::new(key, "app_uninstalled", noon());
        let purged = self.store.purge(&departure, revision, Some(noon())).await;
        assert!(purged.expect("purged").is_some());
    }

    /// Writes rows that no correct process wrote, due before everything else.
    async fn litter(&self, count: usize, lane: Lane, place: impl Fn(usize) -> (String, String)) {
        for nth in 0..count {
            let (partition, slot) = place(nth);
            let partition = format!("{}/{partition}", self.db.app);
            let put = Change::Put {
                slot: Slot::new(slot).expect("a name"),
                row: Row {
                    version: Version::mint(),
                    metadata: Metadata::new("{}"),
                    sealed: Sealed::from_stored(Vec::new()),
                    due: Some(Due {
                        lane,
                        at: SystemTime::UNIX_EPOCH,
                    }),
                },
                expect: Expect::Absent,
            };
            let partition = Partition::new(partition).expect("a name");
            let committed = self.memory.commit(&partition, &[put]).await;
            committed.expect("memory works");
        }
    }

    /// Returns the due chains, read page by page, and after how many pages the first one was found.
    async fn chains_due(&self, limit: usize) -> (Vec<ChainKey>, usize) {
        let now = noon() + 24 * HOUR;
        let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = RotationStore::due(&self.store, now, from, limit).await;
            let (keys, next) = page.expect("memory works");
            pages += usize::from(found.is_empty());
            found.extend(keys);
            from = next;
            if from.is_none() {
                return (found, pages);
            }
        }
    }

    async fn departures_due(&self, limit: usize) -> Vec<InstallationKey> {
        let found = self.store.due_departures(noon(), limit).await;
        let found = found.expect("memory works").into_iter();
        found.map(|pending| pending.departure.key).collect()
    }
}

fn bot_of(team: &str) -> ChainKey {
    ChainKey {
        tenant: workspace_key(team),
        credential: Credential::Bot,
    }
}

#[tokio::test]
async fn sixty_thousand_expired_states_delay_no_chain_and_no_departure() {
    let world = World::new().await;
    let state = |nth| (format!("state/{nth:064x}"), "state".to_owned());
    world.litter(60_000, Lane::State, state).await;
    assert_eq!(world.chains_due(1).await, (vec![bot_of("T1")], 1));
    assert_eq!(world.departures_due(1).await, [workspace_key("T2")]);
}

/// Rows of the other lanes delay no state, and expired states delay no other lane.
#[tokio::test]
async fn handled_requests_and_chains_delay_no_state() {
    let world = World::new().await;
    let seen = |nth| (format!("seen/{nth:064x}"), "seen".to_owned());
    world.litter(3000, Lane::Handled, seen).await;
    let chain = |nth| (format!("T9{nth}"), "bot".to_owned());
    world.litter(3000, Lane::Refresh, chain).await;
    let ends = noon() - Duration::from_secs(1);
    let is_first = world.store.consume(&StateId([1; 32]), ends).await;
    assert!(is_first.expect("available"));
    let store = world.store.clone().with_clock(Clock::from_fn(noon));
    store.sweep_expired_states().await.expect("swept");
    let rows = all_rows(&*world.memory).await;
    let left = |slot| {
        let rows = rows.iter();
        rows.filter(|(key, _)| key.slot.as_str() == slot).count()
    };
    assert_eq!((left("state"), left("seen")), (0, 0), "all are swept");
    assert_eq!(left("bot"), 3001, "no chain is swept");
}

#[tokio::test]
async fn a_thousand_malformed_rows_in_front_delay_nothing() {
    let world = World::new().await;
    let mut spoiled = Vec::new();
    for (lane, slot, name) in [
        (Lane::Refresh, "bot", "T0ODD"),
        (Lane::Departure, "departure", "T0ODDER"),
        (Lane::State, "state", "state/0"),
    ] {
        let place = |nth| (format!("{name}{nth}"), slot.to_owned());
        world.litter(1000, lane, place).await;
        for nth in 0..1000 {
            let partition = format!("{}/{name}{nth}", world.db.app);
            let key = Key {
                partition: Partition::new(partition).expect("a name"),
                slot: Slot::new(slot).expect("a name"),
            };
            world.memory.spoil(&key);
            spoiled.push(key.to_string());
        }
    }
    let ends = noon() - Duration::from_secs(1);
    let is_first = world.store.consume(&StateId([1; 32]), ends).await;
    assert!(is_first.expect("available"));

    assert_eq!(world.chains_due(100).await.0, [bot_of("T1")]);
    assert_eq!(world.departures_due(1).await, [workspace_key("T2")]);
    world.store.sweep_expired_states().await.expect("swept");
    let rows = all_rows(&*world.memory).await;
    assert!(!rows.iter().any(|(key, _)| key.slot.as_str() == "state"));

    // These rows hide no installation either, and a verification names them.
    let (mut listed, mut from) = (Vec::new(), None);
    loop {
        let page = world.store.list(from, 100).await.expect("memory works");
        listed.extend(page.installations.iter().map(|it| it.home.key()));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(listed, [workspace_key("T1")]);
    let (mut unreadable, mut from): (Vec<_>, Option<ListCursor>) = (Vec::new(), None);
    loop {
        let page = world.store.verify(from, 500).await.expect("memory works");
        unreadable.extend(page.unreadable);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    unreadable.sort();
    spoiled.sort();
    assert_eq!(unreadable, spoiled);
}

#[tokio::test]
async fn a_thousand_notes_that_do_not_open_delay_no_departure() {
    let world = World::new().await;
    let place = |nth| (format!("T0BROKEN{nth}"), "departure".to_owned());
    world.litter(1000, Lane::Departure, place).await;
    // Some more in places where no note belongs.
    let place = |nth| (format!("T0ELSE{nth}"), format!("user/U{nth}"));
    world.litter(10, Lane::Departure, place).await;
    assert_eq!(world.departures_due(1).await, [workspace_key("T2")]);
    assert_eq!(world.departures_due(0).await, []);
}

/// Only rows of tenants are read, however many other rows exist. Organisations follow the
/// workspaces.
#[tokio::test]
async fn a_listing_reads_tenants_alone() {
    let world = World::new().await;
    let org = in_org("E1", None).with_bot("xoxb-e");
    world.store.store(&org).await.expect("stored");
    let state = |nth| (format!("state/{nth:064x}"), "state".to_owned());
    world.litter(3000, Lane::State, state).await;
    let seen = |nth| (format!("seen/{nth:064x}"), "seen".to_owned());
    world.litter(3000, Lane::Handled, seen).await;
    let look_alike = world.db.look_alike().store().await;
    let other = in_workspace("T7").with_bot("xoxb-7");
    look_alike.store(&other).await.expect("stored");

    let page = world.store.list(None, 1000).await.expect("memory works");
    let listed: Vec<_> = page.installations.iter().map(|it| it.home.key()).collect();
    assert_eq!(listed, [workspace_key("T1"), org.key()]);
    assert_eq!(page.next, None);
    let (chains, next) = world.store.chains(None, 1000).await.expect("available");
    let tenants: Vec<_> = chains.into_iter().map(|key| key.tenant).collect();
    assert_eq!(
        (tenants, next),
        (vec![workspace_key("T1"), org.key()], None)
    );

    // Two rows of `T1`, the note of `T2`, and one of the organisation's two.
    let page = world.store.list(None, 4).await.expect("memory works");
    assert_eq!((page.installations.len(), page.next.is_some()), (1, true));

    for limit in [0, 1, 2, 3, 4, 5] {
        let (mut listed, mut from) = (Vec::new(), None);
        loop {
            let page = world.store.list(from, limit).await.expect("memory works");
            listed.extend(page.installations.iter().map(|it| it.home.key()));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(listed, [workspace_key("T1"), org.key()], "by {limit}");
    }
}

#[tokio::test]
async fn a_listing_refuses_a_cursor_that_it_did_not_make() {
    let world = World::new().await;
    for cursor in ["", "X", "T", "T x", "E memory", "memory a/b c"] {
        let page = world
            .store
            .list(Some(ListCursor(cursor.to_owned())), 10)
            .await;
        assert_eq!(page.is_ok(), cursor == "T", "{cursor}");
    }
}

#[tokio::test]
async fn a_copy_names_rows_that_cannot_be_parsed_and_overwrites_none() {
    let world = World::new().await;
    let bot = world.db.row("T1", "bot").await.0;
    let target = MemoryBackend::default();
    let copied = world.store.copy_to(&target, None, 1000).await;
    assert_eq!(copied.expect("copied").refused, [""; 0]);

    target.spoil(&bot);
    let pruned = world
        .store
        .prune(&target, None, 1000)
        .await
        .expect("pruned");
    assert_eq!(
        (pruned.malformed, pruned.removed),
        (vec![bot.to_string()], 0)
    );

    world.memory.spoil(&bot);
    let copied = world.store.copy_to(&target, None, 1000).await;
    let refused = copied.expect("copied").refused;
    assert_eq!(refused, [format!("{bot}: it cannot be parsed")]);

    // A database whose only row of the app is such a row is in use.
    let used = MemoryBackend::default();
    let key = world.db.row("T1", "install").await.0;
    let row = world.db.row("T1", "install").await.1;
    let put = Change::Put {
        slot: key.slot.clone(),
        row,
        expect: Expect::Absent,
    };
    used.commit(&key.partition, &[put])
        .await
        .expect("committed");
    used.spoil(&key);
    let refused = world.store.copy_to(&used, None, 1000).await;
    assert_matches!(refused, Err(KeyringError::InUse));
    let provider = LocalKeyProvider::from(master_key());
    let opened = EncryptedStore::open(used, provider, world.db.app.clone()).await;
    assert_matches!(opened, Err(KeyringError::Lost));
}

const HOUR: Duration = Duration::from_secs(3600);
