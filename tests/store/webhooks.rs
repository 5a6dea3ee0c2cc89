//! Which webhooks of an installation are stored.

use std::sync::Arc;

use slack_installs::InstallationStore as _;
use slack_installs::backend::MemoryBackend;

use crate::support::Db;
use crate::support::installs::{With, in_workspace, webhook_urls, workspace_key};

#[tokio::test]
async fn a_first_store_keeps_one_webhook_for_each_channel() {
    let store = Db::new(Arc::new(MemoryBackend::default())).store().await;
    let twice = in_workspace("T1")
        .with_webhook("C1", "https://hooks/1a")
        .with_webhook("C2", "https://hooks/2")
        .with_webhook("C1", "https://hooks/1b");
    // A second store merges the same webhooks with the stored ones, and keeps the same.
    for _ in 0..2 {
        store.store(&twice).await.expect("stored");
        let fetched = store.fetch(&workspace_key("T1"), None).await;
        let fetched = fetched.expect("available").expect("installed");
        assert_eq!(
            webhook_urls(&fetched),
            ["https://hooks/1a", "https://hooks/2"]
        );
    }
}

#[tokio::test]
async fn webhooks_whose_channel_slack_did_not_name_are_kept_one_for_each_url() {
    let store = Db::new(Arc::new(MemoryBackend::default())).store().await;
    for url in ["https://hooks/1", "https://hooks/2", "https://hooks/1"] {
        let unnamed = in_workspace("T1").with_webhook("", url);
        store.store(&unnamed).await.expect("stored");
    }
    let named = in_workspace("T1").with_webhook("C1", "https://hooks/3");
    store.store(&named).await.expect("stored");
    let fetched = store.fetch(&workspace_key("T1"), None).await;
    let fetched = fetched.expect("available").expect("installed");
    assert_eq!(
        webhook_urls(&fetched),
        ["https://hooks/1", "https://hooks/2", "https://hooks/3"]
    );
}
