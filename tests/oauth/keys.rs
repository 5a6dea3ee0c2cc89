//! The key provider fails during a flow.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::MemoryBackend;
use slack_installs::testing::{Fault, Faults, Flaky};
use slack_installs::{EncryptedStore, InstallOptions, InstallationStore as _};

use super::outcome::Outage;
use super::support::app::{ADA, ALPHA, App, Browser, key};
use super::support::providers::Remote;

type Database = Arc<Flaky<MemoryBackend>>;

/// Returns an app, and a database of its installations whose key can be used for two more seconds,
/// because the key provider is down. OAuth states are stored in another database.
async fn with_a_key_that_ends() -> (App, EncryptedStore<Database>, Remote) {
    let app = App::new().await;
    let provider = Remote::new();
    let database = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
    let store = EncryptedStore::open(database, provider.clone(), app.fake.client_id()).await;
    let store = store.expect("opens");
    provider.set_down(true);
    tokio::time::sleep(Duration::from_secs(15 * 60 - 2)).await;
    (app, store, provider)
}

async fn is_installed(store: &EncryptedStore<Database>, provider: &Remote) -> bool {
    let read = store.fetch(&key(ALPHA), None).await;
    assert!(read.expect_err("the key is too old").is_transient());
    provider.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stored = store.fetch(&key(ALPHA), None).await;
    stored.expect("available").is_some()
}

#[tokio::test(start_paused = true)]
async fn an_installation_is_stored_although_the_data_key_ended_during_the_exchange() {
    let (app, store, keys) = with_a_key_that_ends().await;
    let provider = app.provider_over(store.clone(), app.fake.transport());
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    let slow = Fault::delay(Duration::from_secs(4)).after_effect();
    app.fake.inject("oauth.v2.access", slow);
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), 200, "{}", page.body());
    assert!(is_installed(&store, &keys).await);
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_waits_for_the_database_keeps_its_data_key() {
    let (app, store, keys) = with_a_key_that_ends().await;
    let away = Duration::from_secs(5 * 60);
    let outage = Outage(Arc::clone(store.backend()), away);
    let provider = app.provider_over(store.clone(), app.fake.transport());
    let provider = provider.with_policy(outage);
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), 503, "{}", page.body());
    tokio::time::sleep(away + Duration::from_secs(30)).await;
    assert!(is_installed(&store, &keys).await);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_for_the_installation_neither_the_code_nor_the_state_is_used() {
    let (app, store, keys) = with_a_key_that_ends().await;
    let provider = app.provider_over(store.clone(), app.fake.transport());
    let browser = Browser::default();
    let callback = app.allowed(&browser, InstallOptions::default(), ADA).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), 503, "{}", page.body());
    assert_eq!(app.exchanges(), 0);
    keys.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let page = browser.open(&provider, &callback).await;
    assert_eq!(page.status(), 200, "{}", page.body());
}
