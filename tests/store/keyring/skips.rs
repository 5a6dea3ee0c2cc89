//! A fault of one key stops no work for the tenants of other keys.

use slack_installs::store::{Departure, Ending, LifecycleStore as _};
use slack_installs::{Delete, KeyId};

use super::isolation::Fault;
use super::*;
use crate::support::installs::user_id;

#[tokio::test(start_paused = true)]
async fn a_notice_whose_key_is_refused_delays_no_notice_of_another_tenant() {
    let db = memory();
    let store = db.store().await;
    let mut refused = None;
    for tenant in ["T1", "T2"] {
        let mut installation = in_workspace(tenant)
            .with_bot("xoxb-1")
            .with_user("U1", "xoxp-1");
        installation.metadata = Some("plan=gold".to_owned());
        store.store(&installation).await.expect("stored");
        if tenant == "T1" {
            refused = Some(KeyId::from_bytes(sealed_under(&db, "T1").await));
        }
        let ending = Ending {
            reason: "tokens_revoked".to_owned(),
            at: noon(),
            tell_at: noon(),
        };
        let delete = Delete::user(user_id("U1")).telling(ending);
        let deleted = store.delete(&workspace_key(tenant), &delete).await;
        assert!(deleted.expect("deleted"));
        store.rotate_data_key().await.expect("rotated");
    }
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    let refused = refused.expect("T1 was stored");
    provider.set_of(refused, Fault::Refused);
    let due = store.due_notices(noon(), 10).await.expect("available");
    let tenants: Vec<_> = due.iter().map(|it| it.notice.key.id()).collect();
    assert_eq!(tenants, ["T2"]);
    provider.set_of(refused, None);
    advance(Duration::from_secs(1)).await;
    let due = store.due_notices(noon(), 10).await.expect("available");
    assert_eq!(due.len(), 2, "{due:?}");
}

#[tokio::test(start_paused = true)]
async fn a_departure_whose_key_is_refused_delays_no_departure_of_another_tenant() {
    let db = memory();
    let store = db.store().await;
    let mut refused = None;
    for tenant in ["T1", "T2"] {
        let key = workspace_key(tenant);
        let mut installation = in_workspace(tenant).with_bot("xoxb-1");
        installation.metadata = Some("plan=gold".to_owned());
        let revision = store.store(&installation).await.expect("stored");
        if tenant == "T1" {
            refused = Some(KeyId::from_bytes(sealed_under(&db, "T1").await));
        }
        let departure = Departure::new(key, "app_uninstalled", noon());
        let purged = store.purge(&departure, revision, Some(noon())).await;
        purged.expect("purged");
        store.rotate_data_key().await.expect("rotated");
    }
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    let refused = refused.expect("T1 was stored");
    provider.set_of(refused, Fault::Refused);
    let due = store.due_departures(noon(), 10).await.expect("available");
    assert_eq!(due.len(), 1, "{due:?}");
    provider.set_of(refused, None);
    advance(Duration::from_secs(1)).await;
    let due = store.due_departures(noon(), 10).await.expect("available");
    assert_eq!(due.len(), 2, "{due:?}");
}
