//! Tenants whose data key cannot be used. That says nothing about their tokens.

use slack_installs::backend::{Change, Expect, Sealed};
use slack_installs::store::LifecycleStore as _;

use super::reconcile::{saying, swept, verdicts};
use super::*;

/// Seals this row under a key that the keyring does not list, as far as anyone can tell.
async fn lose_key(life: &Life, tenant: &str, slot: &str) {
    let rows = all_rows(&*life.backend).await.into_iter();
    let is_it = |key: &slack_installs::backend::Key| {
        key.partition.name() == tenant && key.slot.as_str() == slot
    };
    let mut rows = rows.filter(|(key, _)| is_it(key));
    let (key, mut row) = rows.next().expect("it is stored");
    let mut sealed = row.sealed.as_bytes().to_vec();
    sealed[4..20].copy_from_slice(&[0xab; 16]);
    row.sealed = Sealed::from_stored(sealed);
    let put = Change::Put {
        slot: key.slot,
        row,
        expect: Expect::Any,
    };
    let put = life.backend.commit(&key.partition, &[put]).await;
    put.expect("available");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_its_key_is_reported_and_ends_no_check_of_another() {
    for slot in ["bot", "install"] {
        let life = Life::new().await;
        life.install(ADA).await;
        life.install(BOB).await;
        lose_key(&life, ALPHA, slot).await;
        let slots = life.slots(ALPHA).await;
        let bob = life.bot_token(BRAVO).await;
        let bobs = life.user_token(BRAVO, BOB).await;
        let expired = &["token_expired"][..];
        let slack = saying(&life, &[(&bob, expired), (&bobs, expired)]);
        let report = swept(&life, &slack, &sweep(true)).await;
        let mut found = verdicts(&report);
        found.sort_by_key(|verdict| *verdict == Verdict::Expired);
        assert_eq!(found, [Verdict::WithoutKey, Verdict::Expired], "{slot}");
        assert_eq!((report.purged, report.repaired), (0, 0));
        assert_eq!(life.slots(ALPHA).await, slots);
    }
}

/// Another user's token cannot be read, so nobody knows whether it is alive.
#[tokio::test(start_paused = true)]
async fn an_installation_is_not_purged_while_a_users_key_is_missing() {
    for is_lost in [false, true] {
        let life = Life::new().await;
        life.install(ADA).await;
        life.install(BEN).await;
        let tokens = [
            life.bot_token(ALPHA).await,
            life.user_token(ALPHA, ADA).await,
            life.user_token(ALPHA, BEN).await,
        ];
        assert!(tokens.iter().all(Option::is_some));
        let users = life.app.store.users(&key(ALPHA)).await.expect("available");
        assert_eq!(users.len(), 2);
        // The sweep judges the installation by one of the users.
        let judged = life.app.stored(ALPHA, None).await.installed_by.clone();
        let other = if judged.as_ref().is_some_and(|it| it.as_str() == ADA) {
            BEN
        } else {
            ADA
        };
        if is_lost {
            lose_key(&life, ALPHA, &format!("user/{other}")).await;
        }
        let words: Vec<_> = tokens
            .iter()
            .map(|it| (it, &["account_inactive"][..]))
            .collect();
        let slack = saying(&life, &words);
        let report = swept(&life, &slack, &sweep(true)).await;
        assert_eq!(report.purged, usize::from(!is_lost), "{report:?}");
    }
}
