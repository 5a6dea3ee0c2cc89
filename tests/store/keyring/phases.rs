//! Rotation of data keys in phases: add, promote, re-seal, destroy.

use slack_installs::backend::{Backend, Row};
use slack_installs::store::{Departure, LifecycleStore as _};
use slack_installs::{Clock, KeyChangeError, KeyId, KeyInfo, KeyProvider, KeyState};
use tokio::time::Instant;

use super::isolation::Fault;
use super::*;
use crate::support::meddling::Meddling;

/// A database, and a clock that all processes of its app share.
#[derive(Clone)]
pub(super) struct World {
    pub(super) db: Db,
    start: Instant,
}

impl World {
    pub(super) fn new() -> Self {
        let (db, start) = (memory(), Instant::now());
        Self { db, start }
    }

    /// Starts a process.
    pub(super) async fn process(&self) -> Store {
        self.process_by(local()).await
    }

    pub(super) async fn process_by(&self, provider: impl KeyProvider) -> Store {
        self.process_over(Arc::clone(&self.db.backend), provider)
            .await
    }

    pub(super) async fn process_over<B: Backend>(
        &self,
        backend: B,
        provider: impl KeyProvider,
    ) -> EncryptedStore<B> {
        let store = self.db.store_over(backend, provider).await;
        store.with_clock(self.clock())
    }

    pub(super) fn clock(&self) -> Clock {
        let start = self.start;
        Clock::from_fn(move || noon() + start.elapsed())
    }
}

/// Lets a process work for this many minutes: it reads and stores, so it fetches its keys again.
pub(super) async fn work(stores: &[&Store], minutes: u32) {
    for _ in 0..minutes * 2 {
        for store in stores {
            assert!(reads(store, "T1").await);
            install(store, "T2").await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

/// How many rows were in each state after all pages were re-sealed.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) resealed: usize,
    pub(super) current: usize,
    pub(super) overtaken: usize,
    pub(super) skipped: Vec<String>,
}

pub(super) async fn reseal<B: Backend>(store: &EncryptedStore<B>) -> Counts {
    let counted = try_reseal(store).await;
    counted.expect("the database and the provider respond")
}

pub(super) async fn try_reseal<B: Backend>(
    store: &EncryptedStore<B>,
) -> Result<Counts, KeyChangeError> {
    let (mut counts, mut from) = (Counts::default(), None);
    loop {
        let page = store.keys().reseal(from, 3).await?;
        counts.resealed += page.resealed;
        counts.current += page.current;
        counts.overtaken += page.overtaken;
        counts.skipped.extend(page.skipped);
        from = page.next;
        if from.is_none() {
            return Ok(counts);
        }
    }
}

/// Returns the number of rows under a key.
pub(super) async fn rows_under<B: Backend>(store: &EncryptedStore<B>, id: KeyId) -> usize {
    let (mut count, mut from) = (0, None);
    loop {
        let page = store.keys().usage(from, 3).await.expect("available");
        assert_eq!(page.malformed, [""; 0]);
        count += page.rows.get(&id).copied().unwrap_or_default();
        from = page.next;
        if from.is_none() {
            return count;
        }
    }
}

pub(super) async fn keys_of<B: Backend>(store: &EncryptedStore<B>) -> Vec<KeyInfo> {
    store.keys().list().await.expect("available").keys
}

pub(super) async fn primary_of<B: Backend>(store: &EncryptedStore<B>) -> KeyId {
    let keys = keys_of(store).await;
    let primary = keys.iter().find(|key| key.state == KeyState::Primary);
    primary.expect("one key seals").id
}

/// Makes a new key the primary at once, and returns the old and the new one.
pub(super) async fn promote<B: Backend>(store: &EncryptedStore<B>) -> [KeyId; 2] {
    let old = primary_of(store).await;
    let new = store.keys().add().await.expect("added");
    assert!(store.keys().promote(new, true).await.expect("promoted"));
    [old, new]
}

fn states(keys: &[KeyInfo]) -> Vec<KeyState> {
    keys.iter().map(|key| key.state).collect()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_in_phases_one_key_is_left_and_opens_every_row() {
    let world = World::new();
    let (store, elsewhere) = (world.process().await, world.process().await);
    for tenant in ["T1", "T2", "T3"] {
        install(&store, tenant).await;
    }
    let old = primary_of(&store).await;
    let new = store.keys().add().await.expect("added");
    let keys = keys_of(&store).await;
    assert_eq!(states(&keys), [KeyState::Primary, KeyState::Distributed]);
    assert_eq!(keys[1].added_at, Some(noon()));
    work(&[&store, &elsewhere], 15).await;
    assert_eq!(rows_under(&store, new).await, 0, "it seals nothing yet");
    let listed = elsewhere.keys().list().await.expect("available");
    assert_eq!(listed.processes.len(), 2);
    for process in &listed.processes {
        assert!(process.keys.contains(&old) && process.keys.contains(&new));
    }

    let promoted_at = world.clock().now();
    assert!(store.keys().promote(new, false).await.expect("promoted"));
    assert!(!elsewhere.keys().promote(new, false).await.expect("it is"));
    let keys = keys_of(&store).await;
    assert_eq!(states(&keys), [KeyState::Retired, KeyState::Primary]);
    assert_eq!(keys[0].retired_at, Some(promoted_at));
    assert_eq!(keys[1].added_at, None);
    let counts = reseal(&elsewhere).await;
    assert_eq!(counts.resealed, 6, "{counts:?}");
    let again = reseal(&store).await;
    assert_eq!((again.resealed, again.current), (0, 6), "{again:?}");

    work(&[&store, &elsewhere], 30).await;
    reseal(&store).await;
    assert!(store.keys().destroy(old).await.expect("destroyed"));
    assert!(!elsewhere.keys().destroy(old).await.expect("it is gone"));
    assert_eq!(
        slots(&world.db).await,
        [key_row(new), "manifest".to_owned()]
    );
    for reader in [&store, &elsewhere, &world.process().await] {
        for tenant in ["T1", "T2", "T3"] {
            assert!(reads(reader, tenant).await);
        }
        let report = reader.verify(None, 100).await.expect("available");
        assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
    }
}

pub(super) fn key_row(id: KeyId) -> String {
    format!("key/{id}")
}

#[tokio::test(start_paused = true)]
async fn a_re_seal_changes_the_ciphertext_and_nothing_else_of_a_row() {
    let world = World::new();
    let store = world.process().await;
    let mut installation = in_workspace("T1")
        .with_bot("xoxb-T1")
        .with_user("U1", "xoxp-1");
    installation.metadata = Some("plan=gold".to_owned());
    store.store(&installation).await.expect("stored");
    let expiry = noon() + minutes(10);
    assert!(store.consume(&STATE, expiry).await.expect("available"));
    install(&store, "T2").await;
    let revision = store.fetch(&workspace_key("T2"), None).await;
    let revision = revision.expect("opens").expect("stored").revision;
    let departure = Departure::new(workspace_key("T2"), "app_uninstalled", noon());
    let purged = store.purge(&departure, revision, Some(noon())).await;
    purged.expect("purged");
    let [old, new] = promote(&store).await;
    let before = of_tenants(&world.db).await;
    assert!(before.iter().any(|row| row.due.is_some()));

    let counts = reseal(&store).await;
    assert_eq!(counts.resealed, before.len());
    let after = of_tenants(&world.db).await;
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(after) {
        assert_ne!(before.sealed, after.sealed);
        let sealed = before.sealed.clone();
        assert_eq!(Row { sealed, ..after }, *before);
    }
    assert_eq!(rows_under(&store, old).await, 0);
    assert_eq!(rows_under(&store, new).await, before.len());
    let fresh = world.process().await;
    let fetched = fresh.fetch(&workspace_key("T1"), None).await;
    let fetched = fetched.expect("opens").expect("stored");
    assert_eq!(fetched.metadata.as_deref(), Some("plan=gold"));
    assert!(!fresh.consume(&STATE, expiry).await.expect("available"));
    let departure = fresh.departure(&workspace_key("T2")).await;
    assert!(departure.expect("it opens").is_some());
}

async fn of_tenants(db: &Db) -> Vec<Row> {
    let rows = db.rows().await.into_iter();
    let rows = rows.filter(|(key, _)| key.partition.name() != "keyring");
    rows.map(|(_, row)| row).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_promoted_when_it_is_15_minutes_old_and_not_before() {
    let world = World::new();
    let store = world.process().await;
    let old = primary_of(&store).await;
    let new = store.keys().add().await.expect("added");
    for age in [0, 1, 14] {
        advance(minutes(age) - (Instant::now() - world.start).min(minutes(age))).await;
        let wait = minutes(15 - age);
        assert_matches!(
            store.keys().promote(new, false).await,
            Err(KeyChangeError::TooEarly { wait: it }) if it == wait
        );
    }
    assert_eq!(primary_of(&store).await, old);
    advance(minutes(1)).await;
    assert!(store.keys().promote(new, false).await.expect("promoted"));
    for id in [old, KeyId::from_bytes([7; 16])] {
        let promoted = store.keys().promote(id, true).await;
        assert_matches!(promoted, Err(KeyChangeError::NotDistributed { id: it }) if it == id);
    }
    assert_eq!(primary_of(&store).await, new);
}

/// The operator's own process must be able to seal under it.
#[tokio::test(start_paused = true)]
async fn a_key_that_the_promoting_process_cannot_unwrap_is_not_promoted_by_force_either() {
    let (world, provider) = (World::new(), Remote::new());
    let new = world.process().await.keys().add().await.expect("added");
    let store = world.process_by(provider.clone()).await;
    provider.set_of(new, Fault::Refused);
    let promoted = store.keys().promote(new, true).await;
    assert_matches!(
        promoted,
        Err(KeyChangeError::Keyring(KeyringError::Key(
            KeyError::Refused { .. }
        )))
    );
    assert_ne!(primary_of(&world.process().await).await, new);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_destroyed_30_minutes_after_it_was_retired_and_not_before() {
    let world = World::new();
    let store = world.process().await;
    install(&store, "T1").await;
    let [old, new] = promote(&store).await;
    reseal(&store).await;
    for id in [old, new] {
        let rows = world.db.rows().await;
        let destroyed = store.keys().destroy(id).await;
        match destroyed {
            Err(KeyChangeError::TooEarly { wait }) if id == old => {
                assert_eq!(wait, minutes(30));
            }
            Err(KeyChangeError::NotRetired { .. }) if id == new => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(world.db.rows().await, rows);
    }
    advance(minutes(30) - Duration::from_secs(1)).await;
    let destroyed = store.keys().destroy(old).await;
    assert_matches!(destroyed, Err(KeyChangeError::TooEarly { .. }));
    advance(Duration::from_secs(1)).await;
    assert!(store.keys().destroy(old).await.expect("destroyed"));
    assert!(reads(&store, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn a_key_under_which_one_row_is_sealed_is_not_destroyed() {
    let world = World::new();
    let store = world.process().await;
    for tenant in 0..9 {
        install(&store, &format!("T{tenant}")).await;
    }
    let [old, _] = promote(&store).await;
    advance(minutes(31)).await;
    let rows = of_tenants(&world.db).await.len();
    // Each row in turn is the only one under the old key, on each page of the scan.
    let under_old: Vec<_> = world.db.rows().await;
    reseal(&store).await;
    let paged = Meddling::paged(Arc::clone(&world.db.backend), 2);
    let operator = world.process_over(paged, local()).await;
    let mut tried = 0;
    for (key, row) in under_old {
        if key.partition.name() == "keyring" {
            continue;
        }
        let (_, resealed) = world.db.row(key.partition.name(), key.slot.as_str()).await;
        world.db.overwrite(&key, row).await;
        let destroyed = operator.keys().destroy(old).await;
        assert_matches!(destroyed, Err(KeyChangeError::InUse { id, rows: 1 }) if id == old);
        world.db.overwrite(&key, resealed).await;
        tried += 1;
    }
    assert_eq!(tried, rows);
    assert!(operator.keys().destroy(old).await.expect("destroyed"));
}

/// Its key is unknown, so it may be the one.
#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_parsed_prevents_that_a_key_is_destroyed() {
    let (start, backend) = (Instant::now(), Arc::new(MemoryBackend::default()));
    let db = Db::new(Arc::clone(&backend));
    let world = World { db, start };
    let store = world.process().await;
    for tenant in ["T1", "T2"] {
        install(&store, tenant).await;
    }
    let [old, new] = promote(&store).await;
    let (key, row) = world.db.row("T1", "bot").await;
    backend.spoil(&key);
    let counts = reseal(&store).await;
    assert_eq!(
        (counts.resealed, counts.skipped.len()),
        (3, 1),
        "{counts:?}"
    );
    assert!(counts.skipped[0].contains("T1 bot"), "{counts:?}");
    let usage = store.keys().usage(None, 100).await.expect("available");
    assert_eq!(usage.malformed, [key.to_string()]);
    assert_eq!(usage.rows, [(new, 3)].into());
    advance(minutes(31)).await;
    let destroyed = store.keys().destroy(old).await;
    assert_matches!(destroyed, Err(KeyChangeError::UnknownRows { rows }) if rows.len() == 1);

    // The row is restored.
    world.db.overwrite(&key, row).await;
    assert_matches!(
        store.keys().destroy(old).await,
        Err(KeyChangeError::InUse { .. })
    );
    reseal(&store).await;
    assert!(store.keys().destroy(old).await.expect("destroyed"));
    assert!(reads(&store, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn rows_that_do_not_open_are_reported_and_stay_and_all_others_are_re_sealed() {
    let world = World::new();
    let store = world.process().await;
    for tenant in ["T1", "T2", "T3"] {
        install(&store, tenant).await;
    }
    let [old, _] = promote(&store).await;
    let (damaged, mut row) = world.db.row("T1", "bot").await;
    let mut sealed = row.sealed.as_bytes().to_vec();
    *sealed.last_mut().expect("not empty") ^= 1;
    row.sealed = backend::Sealed::from_stored(sealed);
    world.db.overwrite(&damaged, row.clone()).await;
    let (planted, mut other) = world.db.row("T2", "bot").await;
    let mut sealed = other.sealed.as_bytes().to_vec();
    sealed[4..20].copy_from_slice(&[0xab; 16]);
    other.sealed = backend::Sealed::from_stored(sealed);
    world.db.overwrite(&planted, other.clone()).await;

    let counts = reseal(&store).await;
    assert_eq!(
        (counts.resealed, counts.skipped.len()),
        (4, 2),
        "{counts:?}"
    );
    for key in [&damaged, &planted] {
        let named = counts
            .skipped
            .iter()
            .any(|it| it.starts_with(&key.to_string()));
        assert!(named, "{counts:?}");
    }
    assert_eq!(world.db.row("T1", "bot").await.1, row);
    assert_eq!(world.db.row("T2", "bot").await.1, other);
    assert!(reads(&store, "T3").await);
    advance(minutes(31)).await;
    assert_matches!(
        store.keys().destroy(old).await,
        Err(KeyChangeError::InUse { rows: 1, .. })
    );
}

/// A key of one tenant that is refused must not stop the rows of the others.
#[tokio::test(start_paused = true)]
async fn a_re_seal_goes_past_a_refused_key_and_stops_at_an_outage() {
    let world = World::new();
    let store = world.process().await;
    install(&store, "T1").await;
    let [first, second] = promote(&store).await;
    install(&store, "T2").await;
    promote(&store).await;
    let provider = Remote::new();
    let operator = world.process_by(provider.clone()).await;
    provider.set_of(first, Fault::Refused);
    let counts = reseal(&operator).await;
    assert_eq!(
        (counts.resealed, counts.skipped.len()),
        (2, 2),
        "{counts:?}"
    );
    assert_eq!(rows_under(&store, second).await, 0);
    for fault in [Fault::Down, Fault::Hangs] {
        provider.set_of(first, fault);
        advance(Duration::from_secs(2)).await;
        assert!(try_reseal(&operator).await.is_err());
    }
    provider.set_of(first, None);
    advance(Duration::from_secs(2)).await;
    let counts = reseal(&operator).await;
    assert_eq!((counts.resealed, counts.current), (2, 2), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_re_seal_uses_the_key_that_another_process_has_just_promoted() {
    let world = World::new();
    let (store, operator) = (world.process().await, world.process().await);
    install(&operator, "T1").await;
    let [old, new] = promote(&store).await;
    let counts = reseal(&operator).await;
    assert_eq!(counts.resealed, 2, "{counts:?}");
    assert_eq!(rows_under(&operator, old).await, 0);
    install(&operator, "T2").await;
    assert_eq!(sealed_under(&world.db, "T2").await, *new.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_added_by_mistake_is_destroyed_at_once_and_its_epoch_is_not_used_again() {
    let world = World::new();
    let store = world.process().await;
    let mut epochs = vec![keys_of(&store).await[0].epoch];
    for _ in 0..3 {
        let id = store.keys().add().await.expect("added");
        epochs.push(keys_of(&store).await[1].epoch);
        assert!(store.keys().destroy(id).await.expect("destroyed"));
        assert_eq!(slots(&world.db).await.len(), 2);
    }
    promote(&store).await;
    epochs.push(keys_of(&store).await[1].epoch);
    assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_retires_the_old_primary_and_changes_no_other_key() {
    let world = World::new();
    let store = world.process().await;
    let [first, _] = promote(&store).await;
    let before = keys_of(&store).await;
    advance(minutes(5)).await;
    let next = store.keys().add().await.expect("added");
    let waiting = store.keys().add().await.expect("added");
    assert!(store.keys().promote(next, true).await.expect("promoted"));
    let keys = keys_of(&store).await;
    let expected = [
        KeyState::Retired,
        KeyState::Retired,
        KeyState::Primary,
        KeyState::Distributed,
    ];
    assert_eq!(states(&keys), expected);
    // It can be destroyed as early as before.
    assert_eq!((keys[0].id, keys[0]), (first, before[0]));
    assert_eq!(keys[3].id, waiting);
    assert!(keys[3].added_at.is_some() && keys[3].retired_at.is_none());
}

/// All rows of an app are its tenants', so no key seals more than they do.
#[tokio::test(start_paused = true)]
async fn the_usage_of_all_keys_sums_up_to_all_rows_and_calls_no_provider() {
    let (world, provider) = (World::new(), Remote::new());
    let store = world.process_by(provider.clone()).await;
    let mut keys = Vec::new();
    for tenant in ["T1", "T2", "T3"] {
        install(&store, tenant).await;
        keys.push(primary_of(&store).await);
        promote(&store).await;
    }
    let operator = world.process_by(provider.clone()).await;
    let unwraps = provider.unwraps();
    for id in keys {
        assert_eq!(rows_under(&operator, id).await, 2);
    }
    assert_eq!(of_tenants(&world.db).await.len(), 6);
    assert_eq!(provider.unwraps(), unwraps);
}
