//! Which facts can be removed, and that they stay away.

use std::time::Duration;

use slack_installs::secret::WebhookUrl;
use slack_installs::store::Error;
use slack_installs::{Delete, Installation, InstallationKey, InstallationStore as _};

use super::metadata::{installs, texts};
use super::{deleted, fetch, of, put};
use crate::support::installs::{With, noon, user_id, webhook_urls, workspace_key};
use crate::support::{Db, Store};

const URLS: [&str; 3] = ["https://hooks/1a", "https://hooks/1b", "https://hooks/2"];

fn at_second(mut installation: Installation, second: u64) -> Installation {
    installation.installed_at = noon() + Duration::from_secs(second);
    installation
}

fn by_url(url: &str) -> Delete {
    Delete::webhook(&WebhookUrl::new(url).expect("a URL"))
}

/// Asserts which webhooks are stored.
async fn assert_webhooks(store: &Store, key: &InstallationKey, urls: &[&str]) {
    let fetched = fetch(store, key, None).await;
    assert_eq!(webhook_urls(&fetched), urls);
}

pub(crate) async fn a_removed_webhook_stays_away_until_a_later_installation_brings_one(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let early = at_second(of("T1").with_webhook("C1", URLS[0]), 0);
    let both = of("T1").with_webhook("C1", URLS[1]);
    let both = at_second(both.with_webhook("C2", URLS[2]), 5);
    for delete in [by_url(URLS[1]), Delete::webhook_of("C1")] {
        deleted(&store, &key, &Delete::all()).await;
        put(&store, of("T1").with_webhook("C1", URLS[0])).await;
        store.store(&both).await.expect("stored");
        assert_webhooks(&store, &key, &URLS[1..]).await;
        assert!(deleted(&store, &key, &delete).await);
        assert!(!deleted(&store, &key, &delete).await, "it is gone already");
        // The stored installation, the removed one and an earlier one come late.
        let stored = fetch(&store, &key, None).await;
        for late in [&stored.installation, &both, &early] {
            store.store(late).await.expect("stored");
            assert_webhooks(&store, &key, &URLS[2..]).await;
        }
        // A flow of the same second has another URL, so it is another webhook.
        let other = at_second(of("T1").with_webhook("C1", "https://hooks/1c"), 5);
        put(&store, other).await;
        assert!(deleted(&store, &key, &Delete::webhook_of("C1")).await);
        let later = at_second(of("T1").with_webhook("C1", URLS[1]), 6);
        put(&store, later).await;
        assert_webhooks(&store, &key, &URLS[1..]).await;
        store.store(&early).await.expect("stored");
        assert_webhooks(&store, &key, &URLS[1..]).await;
    }
}

pub(crate) async fn a_webhook_is_removed_by_its_url_only_if_it_is_still_the_stored_one(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, of("T1").with_webhook("C1", URLS[0])).await;
    put(&store, of("T1").with_webhook("C1", URLS[1])).await;
    assert!(!deleted(&store, &key, &by_url(URLS[0])).await);
    assert_webhooks(&store, &key, &URLS[1..2]).await;
    // A webhook whose channel Slack did not name has a URL only.
    let unnamed = |second| at_second(of("T1").with_webhook("", URLS[2]), second);
    put(&store, unnamed(5)).await;
    assert!(!deleted(&store, &key, &Delete::webhook_of("")).await);
    assert!(deleted(&store, &key, &by_url(URLS[2])).await);
    for late in [0, 5] {
        put(&store, unnamed(late)).await;
        assert_webhooks(&store, &key, &URLS[1..2]).await;
    }
}

pub(crate) async fn cleared_metadata_stays_away_until_a_later_installation_brings_it(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let (early, stored) = (installs("U1", "early", 0), installs("U1", "a", 5));
    for (delete, left) in [
        (Delete::metadata(), (None, Some("a"))),
        (Delete::user_metadata(user_id("U1")), (Some("a"), None)),
    ] {
        deleted(&store, &key, &Delete::all()).await;
        store.store(&stored).await.expect("stored");
        let fetched = fetch(&store, &key, Some("U1")).await;
        assert_eq!(texts(&fetched), (Some("a"), Some("a")));
        assert!(deleted(&store, &key, &delete).await);
        assert!(!deleted(&store, &key, &delete).await, "it is gone already");
        for late in [&stored, &early, &fetched.installation] {
            store.store(late).await.expect("stored");
            let now = fetch(&store, &key, Some("U1")).await;
            assert_eq!(texts(&now), left);
        }
        put(&store, installs("U1", "b", 6)).await;
        store.store(&stored).await.expect("stored");
        let now = fetch(&store, &key, Some("U1")).await;
        assert_eq!(texts(&now), (Some("b"), Some("b")));
    }
}

pub(crate) async fn a_fact_is_removed_alone_and_of_the_named_revision_only(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let deletes = [
        by_url(URLS[0]),
        Delete::webhook_of("C1"),
        Delete::metadata(),
        Delete::user_metadata(user_id("U1")),
    ];
    for delete in deletes {
        assert!(!deleted(&store, &key, &delete).await, "nothing is stored");
        let mut full = installs("U1", "ada", 0);
        full = full.with_webhook("C1", URLS[0]).with_user("U1", "xoxp-1");
        let earlier = put(&store, installs("U1", "ada", 0)).await;
        let revision = put(&store, full).await;
        let guarded = delete.clone().only(earlier);
        assert_matches!(store.delete(&key, &guarded).await, Err(Error::Conflict));
        assert!(deleted(&store, &key, &delete.clone().only(revision)).await);
        let stored = fetch(&store, &key, Some("U1")).await;
        let (tenants, own) = texts(&stored);
        let there = [
            tenants.is_some(),
            own.is_some(),
            webhook_urls(&stored).len() == 1,
        ];
        assert_eq!(
            there.iter().filter(|there| **there).count(),
            2,
            "{delete:?}"
        );
        assert!(stored.bot.is_some() && stored.user.is_some());
        deleted(&store, &key, &Delete::all()).await;
    }
}
