//! A database writer replays rows of the keyring from before any phase of two rotations, and knows
//! the plaintext of a key that was retired and destroyed since.

use serde_json::json;
use slack_installs::backend::{Key, Row};
use slack_installs::{KeyId, KeyState};

use super::phases::{World, keys_of, primary_of, promote, reseal};
use super::*;
use crate::support::attacker::KnownKey;

type Rows = Vec<(Key, Row)>;

/// The keyring after each phase, and a process that has seen all of them. T1 and T2 are sealed
/// under the last key.
struct History {
    world: World,
    store: Store,
    keyrings: Vec<Rows>,
    /// The keys that were destroyed.
    destroyed: Vec<KeyId>,
    primary: KeyId,
}

impl History {
    async fn new() -> Self {
        let world = World::new();
        let store = world.process().await;
        let mut keyrings = vec![keyring(&world.db).await];
        for tenant in ["T1", "T2"] {
            install(&store, tenant).await;
        }
        let mut destroyed = Vec::new();
        for _ in 0..2 {
            let old = primary_of(&store).await;
            let new = store.keys().add().await.expect("added");
            keyrings.push(keyring(&world.db).await);
            assert!(store.keys().promote(new, true).await.expect("promoted"));
            keyrings.push(keyring(&world.db).await);
            reseal(&store).await;
            advance(Duration::from_secs(31 * 60)).await;
            assert!(store.keys().destroy(old).await.expect("destroyed"));
            keyrings.push(keyring(&world.db).await);
            destroyed.push(old);
        }
        let primary = primary_of(&store).await;
        Self {
            world,
            store,
            keyrings,
            destroyed,
            primary,
        }
    }

    fn last(&self) -> &Rows {
        self.keyrings.last().expect("there are several")
    }

    async fn put(&self, rows: &Rows) {
        for (key, _) in keyring(&self.world.db).await {
            self.world.db.remove(&key).await;
        }
        for (key, row) in rows {
            self.world.db.overwrite(key, row.clone()).await;
        }
    }

    /// Asserts that the process which has seen everything uses no older key, reads right or fails,
    /// and that the attack is found.
    async fn withstands(&self, what: &str) {
        let tampered = keyring(&self.world.db).await;
        assert!(self.is_found().await, "{what}: nobody reports it");
        for round in 0..3 {
            for tenant in ["T1", "T2"] {
                let fetched = self.store.fetch(&workspace_key(tenant), None).await;
                match fetched {
                    Ok(fetched) => {
                        let token = format!("xoxb-{tenant}");
                        let fetched = fetched.expect(what);
                        assert_eq!(bot_token(&fetched), Some(token.as_str()), "{what}");
                    }
                    Err(Error::Key(_) | Error::KeyringRolledBack(_)) => {}
                    Err(error) => panic!("{what}: {error:?}"),
                }
            }
            // A new tenant each time: no row of it needs the newest key for opening.
            let tenant = format!("T9{round}");
            let new = in_workspace(&tenant).with_bot("xoxb-new");
            if self.store.store(&new).await.is_ok() {
                let under = sealed_under(&self.world.db, &tenant).await;
                assert_eq!(under, *self.primary.as_bytes(), "{what}");
            }
            advance(Duration::from_secs(8 * 60)).await;
        }
        let after = keyring(&self.world.db).await;
        assert_eq!(after, tampered, "{what}: nobody repairs it");
    }

    async fn is_found(&self) -> bool {
        let (db, app) = (&self.world.db, self.world.db.app.clone());
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), app).await;
        let is_reported = async |store: &Store| {
            let report = store.verify(None, 100).await;
            report.is_ok_and(|it| !it.unreadable.is_empty() || !it.without_key.is_empty())
        };
        match opened {
            Ok(fresh) => is_reported(&self.store).await || is_reported(&fresh).await,
            Err(_) => true,
        }
    }

    /// Asserts that no process that starts now opens or overwrites what the newest key sealed.
    async fn a_fresh_process_overwrites_nothing(&self, what: &str) {
        let db = &self.world.db;
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), db.app.clone()).await;
        let Ok(fresh) = opened else { return };
        for tenant in ["T1", "T2"] {
            let rows = db.rows_of(tenant).await;
            let new = in_workspace(tenant).with_bot("xoxb-new");
            for outcome in [
                fresh.fetch(&workspace_key(tenant), None).await.map(drop),
                fresh.store(&new).await.map(drop),
            ] {
                assert_matches!(
                    outcome,
                    Err(Error::Key(_) | Error::KeyringRolledBack(_)),
                    "{what}"
                );
            }
            assert_eq!(db.rows_of(tenant).await, rows, "{what}");
        }
    }
}

/// From this phase on, the newest key is the primary. A process that starts then works as before.
const PROMOTED: usize = 5;

async fn keyring(db: &Db) -> Rows {
    let mut rows = db.rows().await;
    rows.retain(|(key, _)| key.partition.name() == "keyring");
    rows
}

#[tokio::test(start_paused = true)]
async fn a_keyring_from_before_any_phase_is_refused_or_found() {
    let history = History::new().await;
    for at in 0..history.keyrings.len() - 1 {
        let history = History::new().await;
        history.put(&history.keyrings[at]).await;
        let what = format!("the keyring of phase {at}");
        history.withstands(&what).await;
        if at < PROMOTED {
            history.a_fresh_process_overwrites_nothing(&what).await;
        }
        let new = in_workspace("T9").with_bot("xoxb-T9");
        advance(HARD_AGE).await;
        assert_matches!(
            history.store.store(&new).await,
            Err(Error::Key(_) | Error::KeyringRolledBack(_)),
            "{what}"
        );
        assert!(history.store.keys().add().await.is_err(), "{what}");
        for id in &history.destroyed {
            assert!(
                history.store.keys().promote(*id, true).await.is_err(),
                "{what}"
            );
        }
        history.put(history.last()).await;
        advance(Duration::from_secs(1)).await;
        assert!(reads(&history.store, "T1").await, "{what}: it is restored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_row_from_before_any_phase_is_refused_or_found() {
    let rows: Vec<(usize, usize)> = {
        let history = History::new().await;
        let all = history.keyrings.iter().enumerate();
        all.flat_map(|(at, rows)| (0..rows.len()).map(move |row| (at, row)))
            .collect()
    };
    let mut tried = 0;
    for (at, row) in rows {
        let history = History::new().await;
        let (key, row) = history.keyrings[at][row].clone();
        if history.last().contains(&(key.clone(), row.clone())) {
            continue;
        }
        history.world.db.overwrite(&key, row).await;
        history.withstands(&format!("phase {at}, {key}")).await;
        tried += 1;
    }
    assert!(tried >= 6 + 3, "{tried}");
}

/// The attacker restores the row of the key that they know, and seals manifests under it.
#[tokio::test(start_paused = true)]
async fn a_destroyed_keys_plaintext_brings_it_back_in_no_process_that_has_seen_the_newer_one() {
    for nth in 0..2 {
        for state in ["none", "distributed", "primary", "retired"] {
            for epoch in [1, 7, 8, u64::MAX] {
                let history = History::new().await;
                let db = &history.world.db;
                let id = history.destroyed[nth];
                let all = history.keyrings.iter().flatten();
                let mut rows = all.filter(|(key, _)| key.slot.as_str() == format!("key/{id}"));
                let (slot, row) = rows.next().expect("it was stored").clone();
                let known = KnownKey::learned(db, &row).await;
                let own = row.metadata.as_str();
                let facts: serde_json::Value = serde_json::from_str(own).expect("it is JSON");
                let mut keys = vec![
                    json!({"id": id.to_string(), "epoch": facts["epoch"], "state": "primary"}),
                ];
                if state != "none" {
                    let newest = keys_of(&history.store).await[0];
                    assert_eq!(newest.state, KeyState::Primary);
                    keys.push(json!({
                        "id": newest.id.to_string(), "epoch": newest.epoch, "state": state,
                    }));
                }
                let forged = known.manifest(db, &json!({"epoch": epoch, "keys": keys}));
                let (manifest, _) = db.row("keyring", "manifest").await;
                db.overwrite(&slot, row).await;
                db.overwrite(&manifest, forged).await;
                let what = format!("key {nth}, newest {state}, epoch {epoch}");
                history.withstands(&what).await;
                history.a_fresh_process_overwrites_nothing(&what).await;
            }
        }
    }
}

/// It was made, but never used, so no row tells of it.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_destroyed_unused_does_not_come_back_with_the_epoch_of_a_later_one() {
    let (world, provider) = (World::new(), Remote::new());
    let store = world.process_by(provider.clone()).await;
    install(&store, "T1").await;
    let mistake = store.keys().add().await.expect("added");
    let (slot, row) = world.db.row("keyring", &format!("key/{mistake}")).await;
    let known = KnownKey::learned(&world.db, &row).await;
    assert!(store.keys().destroy(mistake).await.expect("destroyed"));
    let [_, new] = promote(&store).await;
    install(&store, "T2").await;

    let own = row.metadata.as_str();
    let facts: serde_json::Value = serde_json::from_str(own).expect("it is JSON");
    let keys = json!([{
        "id": mistake.to_string(), "epoch": facts["epoch"], "state": "primary",
    }]);
    let forged = known.manifest(&world.db, &json!({"epoch": 1_000, "keys": keys}));
    let (manifest, _) = world.db.row("keyring", "manifest").await;
    world.db.overwrite(&slot, row).await;
    world.db.overwrite(&manifest, forged).await;
    let before = provider.unwraps_of(mistake);
    for round in 0..4 {
        // A new tenant each time: no row of it needs the newest key for opening.
        let tenant = format!("T9{round}");
        let installation = in_workspace(&tenant).with_bot("xoxb-new");
        match store.store(&installation).await {
            Ok(_) => assert_eq!(sealed_under(&world.db, &tenant).await, *new.as_bytes()),
            Err(error) => assert_matches!(error, Error::KeyringRolledBack(_)),
        }
        advance(Duration::from_secs(8 * 60)).await;
    }
    let installation = in_workspace("T99").with_bot("xoxb-new");
    let stored = store.store(&installation).await;
    assert_matches!(stored, Err(Error::KeyringRolledBack(_)));
    // Its epoch is too low, so the provider is not asked for it.
    assert_eq!(provider.unwraps_of(mistake), before);
}

/// A row that is put back after its key was destroyed cannot be opened, and is not absent either.
#[tokio::test(start_paused = true)]
async fn a_tenants_row_under_a_destroyed_key_is_refused_found_and_not_overwritten() {
    let world = World::new();
    let store = world.process().await;
    for tenant in ["T1", "T2"] {
        install(&store, tenant).await;
    }
    let (key, old_row) = world.db.row("T1", "bot").await;
    let [old, _] = promote(&store).await;
    reseal(&store).await;
    advance(Duration::from_secs(31 * 60)).await;
    assert!(store.keys().destroy(old).await.expect("destroyed"));
    world.db.overwrite(&key, old_row).await;
    let rows = world.db.rows_of("T1").await;
    for store in [&store, &world.process().await] {
        let fetched = store.fetch(&workspace_key("T1"), None).await;
        assert_matches!(fetched, Err(Error::KeyringRolledBack(_)));
        let new = in_workspace("T1").with_bot("xoxb-new");
        assert_matches!(store.store(&new).await, Err(Error::KeyringRolledBack(_)));
        let report = store.verify(None, 100).await.expect("available");
        assert_eq!(report.without_key.len(), 1, "{report:?}");
        assert!(reads(store, "T2").await);
    }
    assert_eq!(world.db.rows_of("T1").await, rows);
}

/// A build of a later version beside this one: what it adds is ignored, and what it means otherwise
/// is refused.
#[tokio::test(start_paused = true)]
async fn a_manifest_of_a_newer_build_is_read_if_it_only_adds_members_and_else_refused() {
    for (state, member, is_read) in [
        ("retired", "because", true),
        ("frozen", "retired_at", false),
    ] {
        let world = World::new();
        let store = world.process().await;
        install(&store, "T1").await;
        let [old, new] = promote(&store).await;
        let keys = keys_of(&store).await;
        let (_, row) = world.db.row("keyring", &format!("key/{new}")).await;
        let known = KnownKey::learned(&world.db, &row).await;
        let newer = known.manifest(
            &world.db,
            &json!({"epoch": 9, "note": "new", "keys": [
                {"id": new.to_string(), "epoch": keys[1].epoch, "state": "primary"},
                {"id": old.to_string(), "epoch": keys[0].epoch, "state": state, member: 1},
            ]}),
        );
        let (manifest, _) = world.db.row("keyring", "manifest").await;
        world.db.overwrite(&manifest, newer).await;
        advance(HARD_AGE).await;
        let rows = world.db.rows().await;
        let again = in_workspace("T1").with_bot("xoxb-T1");
        let stored = store.store(&again).await;
        if is_read {
            stored.expect("stored");
            assert!(reads(&world.process().await, "T1").await);
        } else {
            assert_matches!(stored, Err(Error::Key(_)));
            assert!(store.keys().add().await.is_err());
            assert_eq!(world.db.rows().await, rows);
        }
    }
}
