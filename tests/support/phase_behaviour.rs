//! Rotation of data keys in phases, while a process of the app works.

use std::time::Duration;

use slack_installs::{Clock, Delete, InstallationStore as _, KeyId, KeyState};

use super::put;
use crate::support::installs::{
    With as _, bot_token, in_workspace, noon, user_id, with_both, workspace_key,
};
use crate::support::{Db, Store};

async fn rows_under(store: &Store, id: KeyId) -> usize {
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

async fn holds(store: &Store, tenants: &[(String, Option<String>)]) {
    for (tenant, bot) in tenants {
        let user = user_id("U1");
        let fetched = store.fetch(&workspace_key(tenant), Some(&user)).await;
        let fetched = fetched.expect("it opens");
        let found = fetched.as_ref().and_then(|it| bot_token(it));
        assert_eq!(found, bot.as_deref(), "{tenant}");
    }
}

pub(crate) async fn a_data_key_rotates_in_phases_while_the_app_works(db: Db) {
    let (app, operator) = (db.store().await, db.store().await);
    let mut tenants = Vec::new();
    for number in 0..8 {
        let tenant = format!("T{number}");
        put(&app, with_both(&tenant, "xoxb-1", "U1", "xoxp-1")).await;
        tenants.push((tenant, Some("xoxb-1".to_owned())));
    }
    let listed = operator.keys().list().await.expect("available").keys;
    assert_eq!(listed.len(), 1);
    let old = listed[0].id;
    let new = operator.keys().add().await.expect("added");
    assert!(operator.keys().promote(new, true).await.expect("promoted"));
    let (mut from, mut round) = (None, 0);
    loop {
        let page = operator.keys().reseal(from, 5).await.expect("available");
        assert_eq!(page.skipped, [""; 0]);
        // The app changes rows of pages that were re-sealed, and of pages that were not.
        let (tenant, bot) = &mut tenants[round % 8];
        if round % 4 == 3 {
            let deleted = app.delete(&workspace_key(tenant), &Delete::all()).await;
            deleted.expect("available");
            *bot = None;
        } else {
            let token = format!("xoxb-again-{round}");
            let mut again = in_workspace(tenant).with_bot(&token);
            again.installed_at = noon() + Duration::from_secs(1 + round as u64);
            put(&app, again).await;
            *bot = Some(token);
        }
        round += 1;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    holds(&app, &tenants).await;
    // The app has read rows under the new key, so it seals under it too. The rest is re-sealed.
    for _ in 0..2 {
        let page = operator.keys().reseal(None, 1000).await.expect("available");
        assert_eq!((page.overtaken, page.next), (0, None));
    }
    assert_eq!(rows_under(&operator, old).await, 0);
    let rows = db.rows().await;
    let page = operator.keys().reseal(None, 1000).await.expect("available");
    assert_eq!(page.resealed, 0);
    assert_eq!(db.rows().await, rows);

    let early = operator.keys().destroy(old).await;
    early.expect_err("a process may still seal under it");
    let later = Clock::from_fn(|| noon() + Duration::from_secs(31 * 60));
    let operator = operator.with_clock(later);
    assert!(operator.keys().destroy(old).await.expect("destroyed"));
    assert!(!operator.keys().destroy(old).await.expect("it is gone"));
    let listed = operator.keys().list().await.expect("available").keys;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, listed[0].state), (new, KeyState::Primary));
    let mut slots = db.slots_of("keyring").await;
    slots.sort_unstable();
    assert_eq!(slots, [format!("key/{new}"), "manifest".to_owned()]);
    let fresh = db.store_with(crate::support::providers::master_key()).await;
    for store in [&app, &operator, &fresh] {
        holds(store, &tenants).await;
        let report = store.verify(None, 1000).await.expect("available");
        assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
    }
    put(&app, in_workspace("T9").with_bot("xoxb-9")).await;
    holds(&fresh, &[("T9".to_owned(), Some("xoxb-9".to_owned()))]).await;
}
