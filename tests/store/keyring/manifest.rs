//! The manifest: a database writer brings no old key back, also with the plaintext of a retired one.

use serde_json::{Value, json};
use slack_installs::KeyChangeError;
use slack_installs::backend::{Due, Key, Lane, Metadata, Row, Sealed, Version};

use super::*;
use crate::support::attacker::{KnownKey, key_id};
use crate::support::providers::Fault;

type Rows = Vec<(Key, Row)>;

/// A database before and after a rotation, and a process that has seen both. T1 is sealed under the
/// retired key and T2 under the primary.
struct World {
    db: Db,
    before: Rows,
    after: Rows,
    store: Store,
    provider: Remote,
}

impl World {
    async fn new() -> Self {
        let (db, provider) = (memory(), Remote::new());
        let store = db.store_by(provider.clone()).await;
        install(&store, "T1").await;
        let before = keyring(&db).await;
        store.rotate_data_key().await.expect("rotated");
        install(&store, "T2").await;
        let after = keyring(&db).await;
        Self {
            db,
            before,
            after,
            store,
            provider,
        }
    }

    /// Replaces the whole keyring.
    async fn put(&self, rows: &[(Key, Row)]) {
        for (key, _) in keyring(&self.db).await {
            self.db.remove(&key).await;
        }
        for (key, row) in rows {
            self.db.overwrite(key, row.clone()).await;
        }
    }

    /// Returns the id of the key that seals in these rows.
    fn primary_of(rows: &Rows) -> [u8; 16] {
        let (_, manifest) = find(rows, "manifest");
        id_of(&manifest)
    }

    /// Asserts what must hold with any keyring: the process that has seen the rotation never seals
    /// under the retired key, opens no wrong row, overwrites nothing that it cannot open, and
    /// calls the provider for listed keys only. `verify` of this process, or of a new one, or
    /// opening a new one, reports the attack.
    async fn withstands(&self, what: &str) {
        let tampered = keyring(&self.db).await;
        let retired = Self::primary_of(&self.before);
        let is_found = self.is_found().await;
        assert!(is_found, "{what}: nobody reports it");
        let mut stored = Vec::new();
        for round in 0..3 {
            for tenant in ["T1", "T2"] {
                let fetched = self.store.fetch(&workspace_key(tenant), None).await;
                let is_right = match fetched {
                    Ok(fetched) => fetched.is_some(),
                    Err(Error::Key(_) | Error::KeyringRolledBack(_)) => true,
                    Err(_) => false,
                };
                assert!(is_right, "{what}: round {round}");
            }
            // A new tenant each time: no row of it needs the newest key for opening.
            let tenant = format!("T9{round}");
            let new = in_workspace(&tenant).with_bot("xoxb-new");
            if self.store.store(&new).await.is_ok() {
                assert_ne!(sealed_under(&self.db, &tenant).await, retired, "{what}");
                stored.push(tenant);
            }
            advance(Duration::from_secs(8 * 60)).await;
        }
        assert_eq!(
            keyring(&self.db).await,
            tampered,
            "{what}: nobody repairs it"
        );
        self.put(&self.after).await;
        let fresh = self.db.store().await;
        for tenant in stored {
            let fetched = fresh.fetch(&workspace_key(&tenant), None).await;
            let fetched = fetched.expect("its key is the one that its row names");
            assert!(fetched.is_some(), "{what}");
        }
        self.put(&tampered).await;
        let listed = self.after.iter().map(|(key, _)| key.slot.as_str());
        let listed: Vec<_> = listed
            .filter_map(|slot| slot.strip_prefix("key/"))
            .collect();
        let unwrapped = self.provider.unwrapped();
        let unwrapped: Vec<_> = unwrapped.iter().map(ToString::to_string).collect();
        let is_listed = |id: &String| listed.contains(&id.as_str());
        assert!(unwrapped.iter().all(is_listed), "{what}: {unwrapped:?}");
    }

    async fn is_found(&self) -> bool {
        let app = self.db.app.clone();
        let opened = EncryptedStore::open(Arc::clone(&self.db.backend), local(), app).await;
        let is_reported = async |store: &Store| {
            let report = store.verify(None, 100).await;
            report.is_ok_and(|it| !it.unreadable.is_empty() || !it.without_key.is_empty())
        };
        match opened {
            Ok(fresh) => is_reported(&self.store).await || is_reported(&fresh).await,
            Err(_) => true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_untouched_keyring_is_reported_by_nobody() {
    let world = World::new().await;
    assert!(!world.is_found().await);
    let report = world.store.verify(None, 100).await.expect("available");
    assert_eq!(report.opened, 2 * 2 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_keyring_row_that_was_copied_swapped_replayed_or_deleted_is_refused_or_found() {
    // The retired key, the primary and the manifest.
    for at in 0..3 {
        let world = World::new().await;
        world.db.remove(&world.by_role(at).0).await;
        world.withstands(&format!("row {at} deleted")).await;
        for other in (0..3).filter(|other| *other != at) {
            let copies: [fn(Row, Row) -> Row; 4] = [
                |row, _| row,
                |row, standing| Row {
                    version: standing.version,
                    ..row
                },
                |row, standing| Row {
                    metadata: standing.metadata,
                    ..row
                },
                |row, standing| Row {
                    sealed: row.sealed,
                    ..standing
                },
            ];
            for copy in copies {
                let world = World::new().await;
                let ((_, row), (key, standing)) = (world.by_role(at), world.by_role(other));
                world.db.overwrite(&key, copy(row, standing)).await;
                world
                    .withstands(&format!("row {at} copied over {other}"))
                    .await;
            }
            let world = World::new().await;
            let (one, two) = (world.by_role(at), world.by_role(other));
            world.db.overwrite(&one.0, two.1).await;
            world.db.overwrite(&two.0, one.1).await;
            world
                .withstands(&format!("rows {at} and {other} swapped"))
                .await;
        }
    }
    let world = World::new().await;
    let (manifest, row) = find(&world.before, "manifest");
    world.db.overwrite(&manifest, row).await;
    world.withstands("the manifest replayed").await;
}

impl World {
    /// Returns the row of the retired key, of the primary, or the manifest.
    fn by_role(&self, role: usize) -> (Key, Row) {
        let retired = self.before.iter().find(is_key).expect("one key");
        match role {
            0 => retired.clone(),
            1 => {
                let mut keys = self.after.iter().filter(is_key);
                keys.find(|it| it.0 != retired.0)
                    .expect("another key")
                    .clone()
            }
            _ => find(&self.after, "manifest"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_seen_a_rotation_never_goes_back() {
    let world = World::new().await;
    for rows in [
        world.before.clone(),
        // The manifest alone, beside the newer key's row.
        [&world.before[..], &world.after[..]]
            .concat()
            .into_iter()
            .filter(|(key, row)| key.slot.as_str() != "manifest" || *row == world.before_manifest())
            .collect(),
    ] {
        world.put(&rows).await;
        world.withstands("replayed").await;
        advance(HARD_AGE).await;
        let new = in_workspace("T8").with_bot("xoxb-T8");
        let outcome = world.store.store(&new).await;
        assert_matches!(outcome, Err(Error::KeyringRolledBack(_)));
        assert!(world.store.rotate_data_key().await.is_err());
        world.put(&world.after).await;
        advance(Duration::from_secs(1)).await;
        assert!(reads(&world.store, "T2").await, "it is restored");
    }
}

/// A database was restored, and another process made another change since.
#[tokio::test(start_paused = true)]
async fn a_process_refuses_another_manifest_of_the_rank_that_it_has_seen() {
    let world = World::new().await;
    let added = world.store.keys().add().await.expect("added");
    world.put(&world.after).await;
    let other = world.db.store().await;
    let instead = other.keys().add().await.expect("added");
    assert_ne!(added, instead);
    let listed = world.store.keys().list().await;
    assert_matches!(
        listed,
        Err(KeyChangeError::Keyring(KeyringError::RolledBack))
    );
}

impl World {
    fn before_manifest(&self) -> Row {
        find(&self.before, "manifest").1
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyring_that_was_replayed_to_a_fresh_process_is_found_by_the_first_newer_row() {
    for keeps_newer_key in [true, false] {
        let world = World::new().await;
        let mut rows = world.before.clone();
        if keeps_newer_key {
            let newer = world.after.iter().filter(is_key);
            rows.extend(newer.cloned());
        }
        world.put(&rows).await;
        let fresh = world.db.store().await;
        assert!(reads(&fresh, "T1").await, "it is not prevented");
        let rows = world.db.rows_of("T2").await;
        let new = in_workspace("T2").with_bot("xoxb-new");
        assert_matches!(
            fresh.fetch(&workspace_key("T2"), None).await,
            Err(Error::KeyringRolledBack(_))
        );
        assert_matches!(fresh.store(&new).await, Err(Error::KeyringRolledBack(_)));
        assert_eq!(world.db.rows_of("T2").await, rows);
        let report = fresh.verify(None, 100).await.expect("available");
        assert_eq!(report.without_key.len(), 2, "{report:?}");
        // A rotation still works, and the newer row stays refused.
        fresh.rotate_data_key().await.expect("rotated");
        assert_matches!(fresh.store(&new).await, Err(Error::KeyringRolledBack(_)));
        assert_eq!(world.db.rows_of("T2").await, rows);
    }
}

/// The attacker knows the retired key, and seals manifests under it.
#[tokio::test(start_paused = true)]
async fn a_retired_keys_plaintext_brings_that_key_back_in_no_process_that_has_seen_the_newer_one() {
    for (what, other) in [
        ("unlisted", None),
        ("retired", Some(("retired", 2))),
        ("of an older epoch", Some(("retired", 0))),
        ("distributed", Some(("distributed", 2))),
        ("a second primary", Some(("primary", 2))),
    ] {
        for epoch in [2, 3, u64::MAX] {
            let world = World::new().await;
            let (manifest, known, newer) = world.learned().await;
            let keys: Vec<Value> = [
                json!({"id": known.id.to_string(), "epoch": 1, "state": "primary"}),
            ]
            .into_iter()
            .chain(other.map(
                |(state, epoch)| json!({"id": newer.to_string(), "epoch": epoch, "state": state}),
            ))
            .collect();
            let forged = known.manifest(&world.db, &json!({"epoch": epoch, "keys": keys}));
            world.db.overwrite(&manifest, forged).await;
            let what = format!("{what}, epoch {epoch}");
            world.withstands(&what).await;
            advance(HARD_AGE).await;
            let new = in_workspace("T9").with_bot("xoxb-T9");
            assert!(world.store.store(&new).await.is_err(), "{what}");

            // A fresh process may open, but never T2, which it does not overwrite either.
            let app = world.db.app.clone();
            let opened = EncryptedStore::open(Arc::clone(&world.db.backend), local(), app).await;
            let Ok(fresh) = opened else { continue };
            let rows = world.db.rows_of("T2").await;
            let new = in_workspace("T2").with_bot("xoxb-new");
            for outcome in [
                fresh.fetch(&workspace_key("T2"), None).await.map(drop),
                fresh.store(&new).await.map(drop),
            ] {
                assert_matches!(
                    outcome,
                    Err(Error::Key(_) | Error::KeyringRolledBack(_)),
                    "{what}"
                );
            }
            assert_eq!(world.db.rows_of("T2").await, rows);
        }
    }
}

impl World {
    /// Returns the manifest's place, the retired key, and the id of the newer one.
    async fn learned(&self) -> (Key, KnownKey, slack_installs::KeyId) {
        let (_, retired) = retired_key(&self.db).await;
        let known = KnownKey::learned(&self.db, &retired).await;
        let (primary, _) = self.db.primary_key().await;
        let newer = primary.slot.as_str().strip_prefix("key/").expect("a key");
        (find(&self.after, "manifest").0, known, key_id(newer))
    }
}

/// Also checks the attacker's tools: a manifest that says the truth is accepted.
#[tokio::test(start_paused = true)]
async fn a_forged_manifest_is_accepted_only_if_its_key_is_the_newest() {
    let world = World::new().await;
    let (manifest, known, _) = world.learned().await;
    world.put(&world.before).await;
    let content = json!({
        "epoch": 7,
        "keys": [{"id": known.id.to_string(), "epoch": 1, "state": "primary"}],
    });
    world
        .db
        .overwrite(&manifest, known.manifest(&world.db, &content))
        .await;
    let fresh = world.db.store().await;
    assert!(reads(&fresh, "T1").await, "documented as not prevented");
    world
        .withstands("a manifest of a high epoch under a retired key")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_planted_key_never_reaches_the_provider_and_is_found() {
    let world = World::new().await;
    let (key, row) = world.db.primary_key().await;
    let id = "ab".repeat(16);
    let planted = Key {
        slot: backend::Slot::new(format!("key/{id}")).expect("a name"),
        ..key.clone()
    };
    let own = key.slot.as_str().strip_prefix("key/").expect("a key");
    let metadata = Metadata::new(row.metadata.as_str().replace(own, &id));
    world.db.overwrite(&planted, Row { metadata, ..row }).await;
    let (bot, mut row) = world.db.row("T2", "bot").await;
    let mut sealed = row.sealed.as_bytes().to_vec();
    sealed[4..20].copy_from_slice(&[0xab; 16]);
    row.sealed = Sealed::from_stored(sealed);
    world.db.overwrite(&bot, row).await;
    let unwraps = world.provider.unwraps();
    for _ in 0..100 {
        let outcome = world.store.fetch(&workspace_key("T2"), None).await;
        assert_matches!(outcome, Err(Error::KeyringRolledBack(_)));
    }
    assert_eq!(world.provider.unwraps(), unwraps);
    let report = world.store.verify(None, 100).await.expect("available");
    assert_eq!(report.unreadable, [planted.to_string()]);
    assert_eq!(report.without_key.len(), 1);
    assert_eq!(world.provider.unwraps_of(key_id(&id)), 0);
}

#[tokio::test]
async fn a_manifest_with_anything_changed_opens_no_store() {
    let (db, _) = with_a_retired_key().await;
    let (key, row) = db.row("keyring", "manifest").await;
    let mut changed = Vec::new();
    let bytes = row.sealed.as_bytes();
    for byte in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.to_vec();
            bytes[byte] ^= 1 << bit;
            changed.push(Sealed::from_stored(bytes));
        }
    }
    changed.extend((0..bytes.len()).map(|len| Sealed::from_stored(&bytes[..len])));
    changed.push(Sealed::from_stored([bytes, &[0]].concat()));
    let with = |sealed| Row {
        sealed,
        ..row.clone()
    };
    let mut changed: Vec<_> = changed.into_iter().map(with).collect();
    for text in [
        "{}",
        "",
        r#"{"v":2,"kind":"manifest"}"#,
        r#"{"v":1,"kind":"manifest"} "#,
    ] {
        let metadata = Metadata::new(text);
        changed.push(Row {
            metadata,
            ..row.clone()
        });
    }
    let version = Version::mint();
    changed.push(Row {
        version,
        ..row.clone()
    });
    let due = Some(Due {
        lane: Lane::Refresh,
        at: noon(),
    });
    changed.push(Row { due, ..row.clone() });
    for changed in changed {
        db.overwrite(&key, changed.clone()).await;
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), db.app.clone()).await;
        assert_matches!(
            opened,
            Err(KeyringError::Unreadable | KeyringError::Key(_) | KeyringError::RolledBack),
            "{changed:?}"
        );
    }
    db.overwrite(&key, row).await;
    assert!(reads(&db.store().await, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_provider_does_not_unwrap_to_itself_is_never_the_primary() {
    for fault in [Fault::Refused, Fault::Down, Fault::Hangs, Fault::Wrong] {
        // The first key.
        let (db, provider) = (memory(), Remote::new());
        provider.set_unwraps(fault);
        let opened =
            EncryptedStore::open(Arc::clone(&db.backend), provider.clone(), db.app.clone()).await;
        assert_matches!(opened, Err(KeyringError::Key(_) | KeyringError::Mismatch));
        assert!(slots(&db).await.is_empty());
        provider.set_unwraps(None);

        // A later one.
        let store = db.store_by(provider.clone()).await;
        install(&store, "T1").await;
        let before = keyring(&db).await;
        provider.set_unwraps(fault);
        for _ in 0..2 {
            let rotated = store.rotate_data_key().await;
            assert_matches!(rotated, Err(KeyringError::Key(_) | KeyringError::Mismatch));
            assert_eq!(keyring(&db).await, before);
            install(&store, "T2").await;
        }
        provider.set_unwraps(None);
        store.rotate_data_key().await.expect("rotated");
        let fresh = db.store().await;
        assert!(reads(&fresh, "T1").await && reads(&fresh, "T2").await);
    }
}

#[tokio::test]
async fn a_rotation_that_was_interrupted_is_called_again() {
    let db = memory();
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    let installation = in_workspace("T1").with_bot("xoxb-T1");
    store.store(&installation).await.expect("stored");
    for (lost_commits, lost_answers, keys) in [(1, 0, 2), (0, 1, 3), (0, 3, 5)] {
        backend.lose_commits(lost_commits);
        backend.lose_answers(lost_answers);
        while let Err(error) = store.rotate_data_key().await {
            assert!(error.is_transient(), "{error:?}");
        }
        assert_eq!(slots(&db).await.len(), keys + 1);
        let report = store.verify(None, 100).await.expect("available");
        assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
    }
    assert!(reads(&db.store().await, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn processes_that_rotate_at_once_lose_no_key() {
    let db = memory();
    let mut tasks = JoinSet::new();
    for number in 0..3 {
        let store = db.store_by(Remote::new()).await;
        install(&store, &format!("T{number}")).await;
        tasks.spawn(async move { store.rotate_data_key().await.expect("rotated") });
    }
    tasks.join_all().await;
    assert_eq!(slots(&db).await.len(), 5, "four keys and the manifest");
    let fresh = db.store().await;
    for number in 0..3 {
        assert!(reads(&fresh, &format!("T{number}")).await);
    }
}

/// The provider binds the epoch, so nobody without the right to wrap can change it.
#[tokio::test]
async fn a_key_whose_epoch_was_changed_in_its_row_does_not_unwrap() {
    let (db, _) = with_a_retired_key().await;
    let (key, row) = db.primary_key().await;
    for epoch in [0, 1, 3] {
        let text = row.metadata.as_str();
        let text = text.replace("\"epoch\":2", &format!("\"epoch\":{epoch}"));
        assert_ne!(text, row.metadata.as_str());
        let metadata = Metadata::new(text);
        db.overwrite(
            &key,
            Row {
                metadata,
                ..row.clone()
            },
        )
        .await;
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), db.app.clone()).await;
        assert_matches!(opened, Err(KeyringError::Key(KeyError::Changed)));
    }
}

async fn keyring(db: &Db) -> Rows {
    let mut rows = db.rows().await;
    rows.retain(|(key, _)| key.partition.name() == "keyring");
    rows
}

fn find(rows: &Rows, slot: &str) -> (Key, Row) {
    let row = rows.iter().find(|(key, _)| key.slot.as_str() == slot);
    row.expect("the row was written").clone()
}

fn is_key((key, _): &&(Key, Row)) -> bool {
    key.slot.as_str().starts_with("key/")
}

fn id_of(row: &Row) -> [u8; 16] {
    let id = &row.sealed.as_bytes()[4..20];
    id.try_into().expect("the header has the key's id")
}
