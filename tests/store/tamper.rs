//! A process with write access to the database cannot pass one row off as another.
//!
//! A row that was changed in any byte or moved anywhere fails to open with the same error, and
//! other installations are not affected.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use slack_installs::backend::{
    Due, Key, Lane, MemoryBackend, Metadata, Row, Sealed, Slot, Version,
};
use slack_installs::store::{Error, StateId};
use slack_installs::{InstallationKey, InstallationStore, StateStore};

use crate::support::installs::{
    With, in_org, in_workspace, noon, org_key, user_id, with_both, workspace_key,
};
use crate::support::providers::Remote;
use crate::support::{Db, Store};

#[tokio::test]
async fn a_row_with_one_byte_changed_does_not_open() {
    let world = World::new().await;
    for (key, row) in world.installed("T1").await {
        let mut changed = Vec::new();
        for byte in 0..row.sealed.as_bytes().len() {
            for bit in 0..8 {
                let sealed = Sealed::from_stored(flipped(row.sealed.as_bytes(), byte, bit));
                changed.push(Row {
                    sealed,
                    ..row.clone()
                });
            }
        }
        for cut in [0, 1, 16, 32, 84, row.sealed.as_bytes().len() - 1] {
            let sealed = Sealed::from_stored(&row.sealed.as_bytes()[..cut]);
            changed.push(Row {
                sealed,
                ..row.clone()
            });
        }
        let longer = Sealed::from_stored([row.sealed.as_bytes(), &[0]].concat());
        changed.push(Row {
            sealed: longer,
            ..row.clone()
        });
        for byte in 0..row.metadata.as_str().len() {
            let text = String::from_utf8(flipped(row.metadata.as_str().as_bytes(), byte, 0));
            let metadata =
                Metadata::new(text.expect("ASCII stays ASCII if the lowest bit changes"));
            changed.push(Row {
                metadata,
                ..row.clone()
            });
        }
        for text in [
            String::new(),
            "{}".into(),
            format!("{} ", row.metadata.as_str()),
        ] {
            changed.push(Row {
                metadata: Metadata::new(text),
                ..row.clone()
            });
        }
        for byte in 0..16 {
            let version = flipped(row.version.as_bytes(), byte, 3)
                .try_into()
                .expect("16 bytes");
            changed.push(Row {
                version: Version::from_bytes(version),
                ..row.clone()
            });
        }
        for at in [UNIX_EPOCH, noon(), noon() + Duration::from_secs(1)] {
            let due = Some(Due {
                lane: Lane::Refresh,
                at,
            });
            changed.push(Row { due, ..row.clone() });
        }
        let other_lanes = row.due.iter().flat_map(|due| {
            let others = Lane::ALL.into_iter().filter(|lane| *lane != due.lane);
            others.map(|lane| Due { lane, ..*due })
        });
        changed.extend(other_lanes.map(|due| Row {
            due: Some(due),
            ..row.clone()
        }));
        world.refuses_all(&key, &row, changed).await;
    }
}

#[tokio::test]
async fn a_used_state_with_anything_changed_does_not_open() {
    let world = World::new().await;
    let ids = [StateId([1; 32]), StateId([2; 32])];
    for id in &ids {
        let is_first = world.store.consume(id, expiry()).await;
        assert!(is_first.expect("available"));
    }
    let rows: Vec<_> = {
        let rows = world.db.rows().await.into_iter();
        rows.filter(|(key, _)| key.slot.as_str() == "state")
            .collect()
    };
    let [(key, row), (_, other)] = &rows[..] else {
        panic!("two states are used")
    };
    let mut changed = vec![
        other.clone(),
        Row {
            version: row.version,
            ..other.clone()
        },
    ];
    for byte in 0..row.sealed.as_bytes().len() {
        let sealed = Sealed::from_stored(flipped(row.sealed.as_bytes(), byte, byte % 8));
        changed.push(Row {
            sealed,
            ..row.clone()
        });
    }
    for byte in 0..8 {
        let at = flipped(&seconds(expiry()).to_be_bytes(), byte, 0);
        let at = u64::from_be_bytes(at.try_into().expect("8 bytes"));
        // A backend itself rejects a time that it cannot represent.
        if let Some(at) = UNIX_EPOCH.checked_add(Duration::from_secs(at)) {
            let due = Some(Due {
                lane: Lane::State,
                at,
            });
            changed.push(Row { due, ..row.clone() });
        }
    }
    for lane in Lane::ALL.into_iter().filter(|lane| *lane != Lane::State) {
        let due = row.due.map(|due| Due { lane, ..due });
        changed.push(Row { due, ..row.clone() });
    }
    changed.push(Row {
        due: None,
        ..row.clone()
    });
    changed.push(Row {
        metadata: Metadata::new("{}"),
        ..row.clone()
    });
    for changed in changed {
        world.db.overwrite(key, changed.clone()).await;
        let outcome = world.store.consume(&ids[0], expiry()).await;
        if is_under_other_key(&changed, row) {
            assert_matches!(outcome, Err(Error::KeyringRolledBack(_)), "{changed:?}");
        } else {
            assert_unreadable(&outcome, &format!("{changed:?}"));
        }
    }
    world.db.overwrite(key, row.clone()).await;
    for id in ids {
        let is_first = world.store.consume(&id, expiry()).await;
        assert!(!is_first.expect("available"));
    }
}

/// Puts every row of three tenants of two apps, and their earlier versions, in every other row's
/// place: unchanged, and with the version that belongs there.
#[tokio::test]
async fn a_row_opens_in_its_own_place_only() {
    let world = World::new().await;
    let mut rows = world.earlier.clone();
    for tenant in ["T1", "T2", "E1"] {
        rows.extend(world.installed(tenant).await);
    }
    rows.extend(
        world
            .other
            .rows()
            .await
            .into_iter()
            .filter(|(key, _)| is_installed(key)),
    );
    assert_eq!(rows.len(), 4 + 4 + 4 + 4 + 4);

    for tenant in ["T1", "E1"] {
        for (key, standing) in world.installed(tenant).await {
            let mut foreign = Vec::new();
            for (_, row) in rows.iter().filter(|(_, row)| *row != standing) {
                foreign.push(Row {
                    version: standing.version,
                    ..row.clone()
                });
                foreign.push(Row {
                    version: standing.version,
                    metadata: standing.metadata.clone(),
                    ..row.clone()
                });
                // An earlier row with its own version and in its own place is a rollback of the
                // whole row. The seal cannot detect that.
                if !world
                    .earlier
                    .iter()
                    .any(|(at, old)| (at, old) == (&key, row))
                {
                    foreign.push(row.clone());
                }
            }
            world.refuses_all(&key, &standing, foreign).await;
        }
    }
}

#[tokio::test]
async fn rows_copied_to_a_tenant_who_never_installed_are_not_an_installation() {
    let world = World::new().await;
    for (key, row) in world.installed("T1").await {
        let partition = key.partition.as_str().replace("T1", "T9");
        let partition = slack_installs::backend::Partition::new(partition).expect("a name");
        world.db.overwrite(&Key { partition, ..key }, row).await;
    }
    assert_unreadable(&world.store.fetch(&workspace_key("T9"), None).await, "T9");
    world.others_are_untouched("T9").await;
}

#[tokio::test]
async fn two_users_rows_that_were_swapped_open_for_neither() {
    let world = World::new().await;
    let (key1, row1) = world.db.row("T1", "user/U1").await;
    let (key2, row2) = world.db.row("T1", "user/U2").await;
    world.db.overwrite(&key1, row2.clone()).await;
    world.db.overwrite(&key2, row1.clone()).await;
    for user in ["U1", "U2"] {
        let user = user_id(user);
        let fetched = world.store.fetch(&workspace_key("T1"), Some(&user)).await;
        assert_unreadable(&fetched, "swapped");
    }
    // No other fetch reads those rows.
    for user in [None, Some(user_id("U3"))] {
        let fetched = world.store.fetch(&workspace_key("T1"), user.as_ref()).await;
        assert!(fetched.expect("opens").expect("installed").user.is_none());
    }
}

#[tokio::test]
async fn a_row_under_a_key_that_is_unknown_makes_no_call_to_the_key_provider() {
    let world = World::new().await;
    let unwraps = world.provider.unwraps();
    let (key, row) = world.db.row("T1", "bot").await;
    for byte in 4..20 {
        let sealed = Sealed::from_stored(flipped(row.sealed.as_bytes(), byte, 0));
        world
            .db
            .overwrite(
                &key,
                Row {
                    sealed,
                    ..row.clone()
                },
            )
            .await;
        let outcome = world.store.fetch(&workspace_key("T1"), None).await;
        assert_matches!(outcome, Err(Error::KeyringRolledBack(_)));
    }
    assert_eq!(world.provider.unwraps(), unwraps);
}

/// A database with three tenants of one app, and one of another app whose id looks alike.
struct World {
    db: Db,
    other: Db,
    store: Store,
    provider: Remote,
    /// Rows of T1 before its last install.
    earlier: Vec<(Key, Row)>,
}

impl World {
    async fn new() -> Self {
        let db = Db::new(Arc::new(MemoryBackend::default()));
        let other = db.look_alike();
        let provider = Remote::new();
        let store = db.store_by(provider.clone()).await;
        let other_store = other.store().await;
        let install = async |store: &Store, round: u32| {
            for mut installation in [in_workspace("T1"), in_workspace("T2"), in_org("E1", None)] {
                let tenant = installation.key().to_string();
                for user in ["U1", "U2"] {
                    installation = installation
                        .with_bot(&format!("xoxb-{tenant}-{round}"))
                        .with_user(user, &format!("xoxp-{tenant}-{user}-{round}"));
                    store.store(&installation).await.expect("stored");
                }
            }
        };
        install(&store, 1).await;
        let mut world = Self {
            db,
            other,
            store,
            provider,
            earlier: Vec::new(),
        };
        world.earlier = world.installed("T1").await;
        install(&world.store, 2).await;
        for user in ["U1", "U2"] {
            let installation = with_both("T1", "xoxb-3", user, "xoxp-3");
            other_store.store(&installation).await.expect("stored");
        }
        world
    }

    /// Returns a tenant's rows.
    async fn installed(&self, tenant: &str) -> Vec<(Key, Row)> {
        let partition = format!("{}/{tenant}", self.db.app);
        let mut rows = self.db.rows().await;
        rows.retain(|(key, _)| key.partition.as_str() == partition);
        rows
    }

    /// Puts each of these rows in the place of `standing`. Asserts that a fetch that needs it gets
    /// an error.
    async fn refuses_all(&self, key: &Key, standing: &Row, rows: Vec<Row>) {
        let (tenant, user) = whose(key);
        let fetch = async || self.store.fetch(&tenant, user.as_ref()).await;
        for row in rows {
            assert_ne!(row, *standing, "the row differs from the original");
            self.db.overwrite(key, row.clone()).await;
            let outcome = fetch().await;
            if is_under_other_key(&row, standing) {
                assert_matches!(outcome, Err(Error::KeyringRolledBack(_)), "{key:?} {row:?}");
            } else {
                assert_unreadable(&outcome, &format!("{key:?} {row:?}"));
            }
        }
        self.others_are_untouched(tenant.id()).await;
        self.db.overwrite(key, standing.clone()).await;
        let fetched = fetch().await.expect("the original row is restored");
        assert!(fetched.is_some());
    }

    async fn others_are_untouched(&self, tenant: &str) {
        for other in [workspace_key("T1"), workspace_key("T2"), org_key("E1")] {
            if other.id() != tenant {
                let fetched = self.store.fetch(&other, Some(&user_id("U1"))).await;
                let fetched = fetched
                    .expect("the row is unchanged")
                    .expect("it was installed");
                assert!(fetched.bot.is_some() && fetched.user.is_some());
            }
        }
    }
}

/// Returns the tenant and the user whose fetch needs this row.
fn whose(key: &Key) -> (InstallationKey, Option<slack_installs::UserId>) {
    let tenant = key
        .partition
        .as_str()
        .rsplit('/')
        .next()
        .expect("app/tenant");
    let tenant = if tenant.starts_with('E') {
        org_key(tenant)
    } else {
        workspace_key(tenant)
    };
    (tenant, key.slot.as_str().strip_prefix("user/").map(user_id))
}

/// Returns whether an envelope names another data key. The id is not secret, so the error may
/// depend on it.
fn is_under_other_key(row: &Row, standing: &Row) -> bool {
    let id = |row: &Row| row.sealed.as_bytes().get(4..20).map(<[u8]>::to_vec);
    id(row).is_some_and(|other| Some(other) != id(standing))
}

fn is_installed(key: &Key) -> bool {
    let slots =
        ["bot", "install", "user/U1", "user/U2"].map(|slot| Slot::new(slot).expect("a name"));
    slots.contains(&key.slot)
}

fn flipped(bytes: &[u8], byte: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[byte] ^= 1 << bit;
    bytes
}

fn expiry() -> std::time::SystemTime {
    noon() + Duration::from_secs(600)
}

fn seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// Asserts that every reason has the same text, so that a process that changes rows learns nothing.
fn assert_unreadable<T: std::fmt::Debug>(outcome: &Result<T, Error>, what: &str) {
    let Err(error) = outcome else {
        panic!("{what}: {outcome:?}")
    };
    assert_matches!(error, Error::Unreadable(_), "{what}");
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        "a stored installation cannot be read: it was changed, moved, or sealed under another key"
    );
}
