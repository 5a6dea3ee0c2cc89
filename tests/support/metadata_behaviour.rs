//! Whose metadata is stored, and which of two is kept.

use std::time::Duration;

use slack_installs::{
    Delete, Installation, InstallationStore as _, StoredInstallation, UserMetadata,
};

use super::{fetch, of, put};
use crate::support::Db;
use crate::support::installs::{With, in_workspace, noon, user_id, workspace_key};

/// Returns what a flow stores that installs the bot at this second.
pub(super) fn installs(user: &str, text: &str, second: u64) -> Installation {
    let mut installation = by(of("T1"), user, text, second);
    installation.metadata = Some(text.to_owned());
    installation
}

/// Returns what a flow stores that only connects a user.
fn connects(user: &str, text: &str, second: u64) -> Installation {
    let installation = in_workspace("T1").with_user(user, &format!("xoxp-{user}"));
    by(installation, user, text, second)
}

fn by(mut installation: Installation, user: &str, text: &str, second: u64) -> Installation {
    installation.installed_at = noon() + Duration::from_secs(second);
    installation.installed_by = Some(user_id(user));
    installation.user_metadata = Some(UserMetadata {
        user: user_id(user),
        text: text.to_owned(),
    });
    installation
}

/// Returns the tenant's metadata and the named user's own.
pub(super) fn texts(stored: &StoredInstallation) -> (Option<&str>, Option<&str>) {
    let own = stored.user_metadata.as_ref();
    (stored.metadata.as_deref(), own.map(|own| own.text.as_str()))
}

pub(crate) async fn each_persons_metadata_is_theirs_and_the_tenants_that_of_the_bots_installer(
    db: Db,
) {
    let store = db.store().await;
    let key = workspace_key("T1");
    // Each of two flows is stored first, once.
    let (early, late) = (installs("U1", "ada", 0), connects("U2", "bob", 9));
    for order in [[&early, &late], [&late, &early]] {
        store.delete(&key, &Delete::all()).await.expect("deleted");
        for installation in order {
            store.store(installation).await.expect("stored");
        }
        for (user, own) in [("U1", Some("ada")), ("U2", Some("bob")), ("U3", None)] {
            let fetched = fetch(&store, &key, Some(user)).await;
            assert_eq!(texts(&fetched), (Some("ada"), own), "{user}");
            let whose = fetched.user_metadata.as_ref().map(|own| own.user.as_str());
            assert_eq!(whose, own.map(|_| user));
            let by = fetched.installed_by.as_ref().map(|by| by.as_str());
            assert_eq!(by, Some("U1"), "who installed goes with the metadata");
        }
        let nobody = fetch(&store, &key, None).await;
        assert_eq!(texts(&nobody), (Some("ada"), None));
    }
}

pub(crate) async fn the_last_flow_that_installed_the_bot_gives_the_tenants_metadata(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, installs("U1", "ada", 0)).await;
    put(&store, connects("U2", "bob", 9)).await;
    // It is later than the first, and was stored after a flow that is later still.
    put(&store, installs("U3", "eve", 5)).await;
    // A straggler is older than the stored metadata.
    put(&store, installs("U4", "old", 4)).await;
    for (user, own) in [("U1", "ada"), ("U2", "bob"), ("U3", "eve"), ("U4", "old")] {
        let fetched = fetch(&store, &key, Some(user)).await;
        assert_eq!(texts(&fetched), (Some("eve"), Some(own)));
        let by = fetched.installed_by.as_ref().map(|by| by.as_str());
        assert_eq!(by, Some("U3"));
    }
}

pub(crate) async fn a_persons_last_metadata_is_kept_whichever_flow_is_stored_last(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    for (second, text, kept) in [
        (5, "a", "a"),
        (3, "late", "a"),
        (5, "same time", "same time"),
        (9, "b", "b"),
    ] {
        put(&store, connects("U2", text, second)).await;
        let fetched = fetch(&store, &key, Some("U2")).await;
        assert_eq!(texts(&fetched), (None, Some(kept)));
    }
    // A flow without metadata leaves it unchanged.
    let mut without = connects("U2", "", 11);
    without.user_metadata = None;
    put(&store, without).await;
    let fetched = fetch(&store, &key, Some("U2")).await;
    assert_eq!(texts(&fetched), (None, Some("b")));
}

pub(crate) async fn a_persons_metadata_goes_with_their_token_and_with_the_tenant(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    for (user, text) in [("U1", "ada"), ("U2", "bob")] {
        put(&store, connects(user, text, 0)).await;
    }
    let delete = Delete::user(user_id("U1"));
    assert!(store.delete(&key, &delete).await.expect("deleted"));
    assert!(!store.delete(&key, &delete).await.expect("deleted"));
    for (user, own) in [("U1", None), ("U2", Some("bob"))] {
        assert_eq!(texts(&fetch(&store, &key, Some(user)).await), (None, own));
    }
    store.delete(&key, &Delete::all()).await.expect("deleted");
    assert!(db.slots_of("T1").await.is_empty());
}

pub(crate) async fn a_person_without_a_token_has_their_metadata_and_nobody_elses(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, installs("U1", "ada", 0)).await;
    let seen_by_other = fetch(&store, &key, Some("U2")).await;
    // Storing again what was fetched for one person writes nothing for another one.
    store.store(&seen_by_other).await.expect("stored");
    let fetched = fetch(&store, &key, Some("U1")).await;
    assert!(fetched.user.is_none());
    assert_eq!(texts(&fetched), (Some("ada"), Some("ada")));
    store.store(&fetched).await.expect("stored");
    assert_eq!(texts(&fetch(&store, &key, Some("U2")).await).1, None);
}

pub(crate) async fn a_persons_metadata_is_sealed_and_is_replaced_if_it_does_not_open(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, installs("U1", "canary", 0)).await;
    for (key, row) in db.rows().await {
        let sealed = row.sealed.as_bytes().escape_ascii();
        let shown = format!("{key:?} {row:?} {} {sealed}", row.metadata.as_str());
        assert!(!shown.contains("canary"), "{shown}");
    }
    let fetched = fetch(&store, &key, Some("U1")).await;
    assert!(!format!("{fetched:?}").contains("canary"));
    super::damage(&db, "T1", "installer/U1").await;
    put(&store, installs("U1", "new", 0)).await;
    let fetched = fetch(&store, &key, Some("U1")).await;
    assert_eq!(texts(&fetched), (Some("new"), Some("new")));
}
