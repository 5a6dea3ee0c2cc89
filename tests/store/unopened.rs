//! What the store reads of an `install` row whose metadata another program has formatted.
//!
//! The facts are still correct, but the row does not open, because the seal binds each byte.

use std::sync::Arc;

use slack_installs::backend::{MemoryBackend, Metadata, Row};
use slack_installs::store::{Error, LifecycleStore as _, Summary};
use slack_installs::{Hold, InstallationStore as _};

use crate::support::installs::{With, in_workspace, noon, workspace_key};
use crate::support::{Db, Store};

const BEGIN: &str = r#"{"v":1,"kind":"install","#;

/// Adds white space to the metadata.
fn spaced(text: &str) -> String {
    text.replace("\":", "\" :\n ")
}

/// Puts the version and the kind after the facts.
fn reordered(text: &str) -> String {
    let facts = text.strip_prefix(BEGIN).expect("the form of this version");
    let facts = facts.strip_suffix('}').expect("an object");
    format!(r#"{{{facts},"kind":"install","v":1}}"#)
}

fn of_version_2(text: &str) -> String {
    text.replace("\"v\":1", "\"v\":2")
}

/// Stores a tenant on hold, and formats the metadata of its `install` row.
async fn held(reformat: fn(&str) -> String) -> (Store, Hold) {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    let (key, hold) = (workspace_key("T1"), on_hold());
    let installation = in_workspace("T1").with_bot("xoxb-1");
    store.store(&installation).await.expect("stored");
    assert!(store.hold(&key, &hold).await.expect("available"));

    let (place, row) = db.row("T1", "install").await;
    let text = reformat(row.metadata.as_str());
    assert_ne!(text, row.metadata.as_str());
    let metadata = Metadata::new(text);
    db.overwrite(&place, Row { metadata, ..row }).await;
    let fetched = store.fetch(&key, None).await;
    assert_matches!(fetched, Err(Error::Unreadable(_)));
    (store, hold)
}

fn on_hold() -> Hold {
    Hold {
        is_on: true,
        reason: "ticket 1".to_owned(),
        at: noon(),
    }
}

#[tokio::test]
async fn a_hold_outlives_a_reinstall_over_metadata_that_was_reformatted() {
    for reformat in [spaced, reordered, of_version_2] {
        let (store, hold) = held(reformat).await;
        let again = in_workspace("T1").with_bot("xoxb-2");
        store.store(&again).await.expect("stored");
        let fetched = store.fetch(&workspace_key("T1"), None).await;
        let fetched = fetched.expect("it opens again").expect("installed");
        assert_eq!(fetched.hold, Some(hold));
    }
}

#[tokio::test]
async fn a_listing_has_a_tenant_whose_metadata_was_reformatted() {
    for reformat in [spaced, reordered] {
        let (store, _) = held(reformat).await;
        let listing = store.list(None, 10).await.expect("available");
        let keys: Vec<_> = listing.installations.iter().map(Summary::key).collect();
        assert_eq!(keys, [workspace_key("T1")]);
    }
}

#[tokio::test]
async fn a_glance_has_the_summary_of_metadata_that_was_reformatted() {
    for reformat in [spaced, reordered] {
        let (store, _) = held(reformat).await;
        let glanced = store.glance(&workspace_key("T1")).await;
        let (_, summary) = glanced.expect("available").expect("installed");
        let installed_at = summary.map(|summary| summary.installed_at);
        assert_eq!(installed_at, Some(noon()));
    }
}
