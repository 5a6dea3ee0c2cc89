//! What the store does for tenants that leave, are put on hold or are moved, and for requests that
//! are handled once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::store::{Access, Claim, Error, SeenId, SeenStore as _};
use slack_installs::{
    Departure, Hold, Installation, InstallationKey, InstallationStore as _, LifecycleStore,
    Revision, StoredInstallation,
};
use tokio::task::JoinSet;

use super::local;
use crate::support::backends::{Interrupted, Lagging, Unreliable};
use crate::support::checks::until;
use crate::support::installs::{
    With, bot_token, enterprise, in_org, in_workspace, in_workspace_of, noon, org_key, rotating,
    team, user_id, user_token, whole, with_both, workspace_key,
};
use crate::support::{Db, Store};

async fn put(store: &Store, installation: Installation) -> Revision {
    store.store(&installation).await.expect("stored")
}

async fn fetch(store: &Store, key: &InstallationKey, user: &str) -> StoredInstallation {
    let user = user_id(user);
    let found = store
        .fetch(key, Some(&user))
        .await
        .expect("the database is up");
    found.expect("it was stored")
}

fn leaving(key: &InstallationKey) -> Departure {
    Departure::new(key.clone(), "app_uninstalled", noon())
}

fn after(seconds: u64) -> SystemTime {
    noon() + Duration::from_secs(seconds)
}

/// bolt-js#673 and python-slack-sdk#995: rows were left behind, or a look-alike's rows were
/// deleted.
pub(crate) async fn a_purge_leaves_no_row_and_spares_the_look_alike(db: Db) {
    let store = db.store().await;
    let everything = |id: &str| {
        with_both(id, "xoxb-1", "U1", "xoxp-1")
            .with_webhook("C1", "https://hooks.slack.com/services/T/B/1")
    };
    for id in ["T1", "T12"] {
        put(&store, everything(id)).await;
        put(&store, in_workspace(id).with_user("U12", "xoxp-2")).await;
    }
    let key = workspace_key("T1");
    let revision = fetch(&store, &key, "U1").await.revision;
    let spared = db.rows_of("T12").await;
    let told = store
        .purge(&leaving(&key), revision, None)
        .await
        .expect("purged");
    assert!(told.is_none());
    assert!(db.rows_of("T1").await.is_empty());
    assert_eq!(db.rows_of("T12").await, spared);

    let key = workspace_key("T12");
    let revision = fetch(&store, &key, "U1").await.revision;
    let pending = store
        .purge(&leaving(&key), revision, Some(noon()))
        .await
        .expect("purged");
    let slots = db.slots_of("T12").await;
    assert_eq!(slots, ["departure"]);
    assert!(
        store
            .settle(&pending.expect("there is a note"))
            .await
            .expect("available")
    );
    assert!(db.rows_of("T12").await.is_empty());
}

pub(crate) async fn a_purge_of_another_revision_takes_nothing(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let old = put(&store, in_workspace("T1").with_bot("xoxb-1")).await;
    put(&store, in_workspace("T1").with_bot("xoxb-2")).await;
    let rows = db.rows_of("T1").await;
    let refused = store.purge(&leaving(&key), old, Some(noon())).await;
    assert_matches!(refused, Err(Error::Conflict));
    assert_eq!(db.rows_of("T1").await, rows);
    let nobody = store
        .purge(&leaving(&workspace_key("T12")), old, None)
        .await;
    assert_matches!(nobody, Err(Error::Conflict));
}

pub(crate) async fn a_purge_of_an_installation_that_is_not_the_stored_one_takes_nothing(db: Db) {
    let key = workspace_key("T1");
    let interrupted = Arc::new(Interrupted::new(Arc::clone(&db.backend)));
    let slow = db.store_over(Arc::clone(&interrupted), local()).await;
    let store = db.store().await;
    for tell_at in [None, Some(noon())] {
        let revision = put(&store, in_workspace("T1").with_bot("xoxb-1")).await;
        let other = store.clone();
        // The tenant installs again after the purge has read the old installation.
        interrupted.meanwhile(move || {
            tokio::spawn(async move {
                put(&other, in_workspace("T1").with_bot("xoxb-2")).await;
            })
        });
        let refused = slow.purge(&leaving(&key), revision, tell_at).await;
        assert_matches!(refused, Err(Error::Conflict));
        let stored = fetch(&store, &key, "U1").await;
        assert_eq!(bot_token(&stored.installation), Some("xoxb-2"));
        assert!(store.departure(&key).await.expect("available").is_none());
    }
}

pub(crate) async fn a_workspace_taken_away_during_a_purge_is_not_kept(db: Db) {
    let interrupted = Arc::new(Interrupted::new(Arc::clone(&db.backend)));
    let slow = db.store_over(Arc::clone(&interrupted), local()).await;
    let store = db.store().await;
    let revision = put(&store, in_org("E1", None).with_bot("xoxb-1")).await;
    interrupted.meanwhile(move || {
        tokio::spawn(async move {
            let purged = store.purge(&leaving(&org_key("E1")), revision, None).await;
            purged.expect("purged");
        })
    });
    let access = Access {
        teams: vec![team("T1")],
        is_granted: false,
        at_micros: 5,
    };
    let kept = slow.set_access(&enterprise("E1"), &access).await;
    assert!(!kept.expect("available"), "the organisation was deleted");
    assert!(db.rows_of("E1").await.is_empty());
}

/// A tenant that left and installed again can have both. Its due refresh is not a second departure.
pub(crate) async fn a_departure_beside_a_due_refresh_is_found_once(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, in_workspace("T1").with_bot("xoxb-1")).await;
    let purged = store.purge(&leaving(&key), revision, Some(noon())).await;
    purged.expect("purged").expect("there is a note");
    let mut again = in_workspace("T1").with_bot("xoxb-2");
    let bot = again.bot.as_mut().expect("it was just set");
    bot.grant = rotating("xoxe.xoxb-1-a", "xoxe-1-a");
    put(&store, again).await;
    let mut other = in_workspace("T2").with_bot("xoxb-2");
    let bot = other.bot.as_mut().expect("it was just set");
    bot.grant = rotating("xoxe.xoxb-1-b", "xoxe-1-b");
    put(&store, other).await;
    // Two days later the refreshes are due as well.
    let due = async || {
        let due = store.due_departures(after(172_800), 100).await;
        let due = due.expect("the database is up").into_iter();
        due.map(|pending| pending.departure.key).collect::<Vec<_>>()
    };
    until("the departure is due", async || !due().await.is_empty()).await;
    assert_eq!(due().await, [key]);
}

pub(crate) async fn an_outage_while_departures_are_read_is_an_error(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    let installed = store.store(&in_workspace("T1").with_bot("xoxb-1")).await;
    let leaving = leaving(&workspace_key("T1"));
    let revision = installed.expect("stored");
    let purged = store.purge(&leaving, revision, Some(noon())).await;
    purged.expect("purged").expect("there is a note");
    let due = async || store.due_departures(noon(), 100).await;
    until("the departure is due", async || {
        due().await.is_ok_and(|due| due.len() == 1)
    })
    .await;
    // The note is found as due, but it cannot be read.
    backend.set_unreadable(true);
    let outcome = due().await;
    assert_matches!(outcome, Err(Error::Unavailable(_)));
    backend.set_unreadable(false);
    assert_eq!(due().await.expect("the database is up").len(), 1);
}

pub(crate) async fn a_departure_stands_until_it_is_settled_whatever_is_installed(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, in_workspace("T1").with_bot("xoxb-1")).await;
    let departure = leaving(&key);
    let noted = store
        .purge(&departure, revision, Some(after(60)))
        .await
        .expect("purged");
    let noted = noted.expect("there is a note");
    assert_eq!(noted.departure, departure);
    put(&store, in_workspace("T1").with_bot("xoxb-2")).await;

    // Other tests, and their notes, may share the database.
    let due = async |now| {
        let due = store
            .due_departures(now, 100)
            .await
            .expect("the database is up");
        due.into_iter()
            .map(|pending| pending.departure)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(after(59)).await, []);
    assert_eq!(due(after(60)).await, std::slice::from_ref(&departure));
    let later = store
        .postpone(&noted, after(120))
        .await
        .expect("available")
        .expect("it existed");
    assert_eq!(later.attempts, 1);
    assert_eq!(due(after(119)).await, []);
    assert!(
        store
            .postpone(&noted, after(500))
            .await
            .expect("available")
            .is_none(),
        "it moved"
    );
    assert!(!store.settle(&noted).await.expect("available"), "it moved");
    assert_eq!(due(after(120)).await, [departure]);
    assert!(store.settle(&later).await.expect("available"));
    assert!(
        !store.settle(&later).await.expect("available"),
        "it was deleted"
    );
    assert_eq!(due(after(500)).await, []);
    let standing = fetch(&store, &key, "U1").await;
    assert_eq!(bot_token(&standing), Some("xoxb-2"));
}

/// A due row is a hint. A worker that trusts an outdated hint notifies the application twice.
pub(crate) async fn a_departure_that_another_worker_put_off_is_not_due(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, in_workspace("T1").with_bot("xoxb-1")).await;
    let purged = store.purge(&leaving(&key), revision, Some(after(60))).await;
    let note = purged.expect("purged").expect("there is a note");
    let due = async |store: &dyn LifecycleStore| {
        let due = store.due_departures(after(60), 100).await;
        due.expect("the database is up").len()
    };
    // An index that lags may report the departure late.
    until("the departure is due", async || due(&store).await == 1).await;
    let lagging = Lagging::since(Arc::clone(&db.backend), db.app.as_str(), after(60)).await;
    let late = db.store_over(lagging, local()).await;
    assert_eq!(due(&late).await, 1);
    let later = store.postpone(&note, after(120)).await.expect("available");
    assert!(later.is_some());
    assert_eq!(due(&late).await, 0);
}

pub(crate) async fn a_hold_outlives_a_reinstall_and_touches_no_token(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, with_both("T1", "xoxb-1", "U1", "xoxp-1")).await;
    put(&store, in_workspace("T12").with_bot("xoxb-12")).await;
    let before = whole(&fetch(&store, &key, "U1").await.installation);
    let hold = Hold {
        is_on: true,
        reason: "ticket 1".to_owned(),
        at: noon(),
    };
    assert!(store.hold(&key, &hold).await.expect("available"));
    let held = fetch(&store, &key, "U1").await;
    assert_eq!(held.hold.as_ref(), Some(&hold));
    assert_eq!(whole(&held), before, "nothing else changed");
    let later = Hold {
        reason: "ticket 2".to_owned(),
        ..hold.clone()
    };
    assert!(store.hold(&key, &later).await.expect("available"));
    put(&store, in_workspace("T1").with_bot("xoxb-2")).await;
    assert_eq!(
        fetch(&store, &key, "U1").await.hold,
        Some(hold),
        "the first reason stays"
    );
    assert!(
        !fetch(&store, &workspace_key("T12"), "U1")
            .await
            .is_on_hold()
    );
    assert!(
        !store
            .hold(&workspace_key("T3"), &later)
            .await
            .expect("available"),
        "T3 has no installation"
    );
    assert!(db.rows_of("T3").await.is_empty());
}

pub(crate) async fn a_workspaces_organisation_changes_alone_and_loses_to_a_reinstall(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, with_both("T1", "xoxb-1", "U1", "xoxp-1")).await;
    let org = enterprise("E1");
    let chains = |rows: Vec<(String, slack_installs::backend::Row)>| {
        let chains = rows.into_iter().filter(|(slot, _)| slot != "install");
        chains.collect::<Vec<_>>()
    };
    let before = chains(db.rows_of("T1").await);
    assert!(
        store
            .set_enterprise(&key, revision, Some(&org))
            .await
            .expect("available")
    );
    let moved = fetch(&store, &key, "U1").await;
    assert_eq!(moved.home.enterprise().map(|org| &org.id), Some(&org));
    assert_eq!(
        (bot_token(&moved), user_token(&moved)),
        (Some("xoxb-1"), Some(("U1", "xoxp-1")))
    );
    assert_eq!(
        chains(db.rows_of("T1").await),
        before,
        "no token was touched"
    );
    let stale = store
        .set_enterprise(&key, revision, None)
        .await
        .expect("available");
    assert!(!stale, "that revision is outdated");

    let revision = put(&store, in_workspace_of("E2", "T1").with_bot("xoxb-2")).await;
    assert!(
        store
            .set_enterprise(&key, revision, Some(&enterprise("E2")))
            .await
            .expect("ok")
    );
    let same = fetch(&store, &key, "U1").await;
    assert_eq!(same.revision, revision, "there was nothing to write");
    assert!(same.home.enterprise().is_some_and(|org| org.name.is_some()));
    assert!(
        store
            .set_enterprise(&key, revision, None)
            .await
            .expect("available")
    );
    assert!(
        fetch(&store, &key, "U1").await.home.enterprise().is_none(),
        "it has left"
    );

    let revision = put(&store, in_org("E1", None).with_bot("xoxb-o")).await;
    let changed = store
        .set_enterprise(&org_key("E1"), revision, Some(&enterprise("E2")))
        .await;
    assert!(
        !changed.expect("available"),
        "an organisation's id is its identity"
    );
}

pub(crate) async fn the_latest_word_on_a_workspaces_access_counts(db: Db) {
    let store = db.store().await;
    let org = enterprise("E1");
    let say = async |teams: &[&str], is_granted, at_micros| {
        let teams = teams.iter().map(|id| team(id)).collect();
        let access = Access {
            teams,
            is_granted,
            at_micros,
        };
        store
            .set_access(&org, &access)
            .await
            .expect("the database is up")
    };
    let has = async |id| store.has_access(&org, &team(id)).await.expect("available");
    assert!(
        !say(&["T1"], false, 5).await,
        "the organisation has not installed the app"
    );
    assert!(db.rows_of("E1").await.is_empty());
    put(&store, in_org("E1", None).with_bot("xoxb-1")).await;
    assert!(has("T1").await, "no change of access is stored");
    assert!(say(&["T1", "T1"], false, 5).await);
    assert!(!has("T1").await && has("T12").await);
    say(&["T1"], true, 4).await;
    assert!(!has("T1").await, "older");
    say(&["T1"], true, 5).await;
    assert!(!has("T1").await, "at the same time, the revocation wins");
    say(&["T1", "T12"], true, 6).await;
    assert!(has("T1").await);
    say(&["T12"], false, 6).await;
    assert!(!has("T12").await);
    assert!(
        store
            .has_access(&enterprise("E12"), &team("T12"))
            .await
            .expect("available")
    );
    let slots = db.slots_of("E1").await;
    assert_eq!(slots, ["access/T1", "access/T12", "bot", "install"]);
}

pub(crate) async fn a_tenants_users_are_found_and_no_look_alikes(db: Db) {
    let store = db.store().await;
    put(&store, in_workspace("T1").with_user("U1", "xoxp-1")).await;
    put(&store, in_workspace("T1").with_user("U2", "xoxp-2")).await;
    put(&store, in_workspace("T12").with_user("U3", "xoxp-3")).await;
    let mut users = store
        .users(&workspace_key("T1"))
        .await
        .expect("the database is up");
    users.sort_unstable();
    assert_eq!(users, [user_id("U1"), user_id("U2")]);
}

pub(crate) async fn a_request_is_claimed_by_one_of_64(db: Db) {
    let store = db.store().await;
    let id = SeenId([7; 32]);
    let mut claims = JoinSet::new();
    for _ in 0..64 {
        let store = store.clone();
        claims.spawn(async move { store.claim(&id, noon(), after(60)).await });
    }
    let claims = claims.join_all().await.into_iter();
    let claims: Vec<_> = claims
        .map(|claim| claim.expect("the database is up"))
        .collect();
    let taken = claims
        .iter()
        .filter(|claim| matches!(claim, Claim::Taken(_)))
        .count();
    let waiting = claims
        .iter()
        .filter(|claim| **claim == Claim::InProgress)
        .count();
    assert_eq!((taken, waiting), (1, 63));
}

pub(crate) async fn a_claim_that_is_released_or_over_may_be_taken_again(db: Db) {
    let store = db.store().await;
    let id = SeenId([8; 32]);
    let taken = async |now, until| match store.claim(&id, now, until).await.expect("available") {
        Claim::Taken(claim) => claim,
        other => panic!("{other:?}"),
    };
    let first = taken(noon(), after(60)).await;
    assert!(store.release(&id, first).await.expect("available"));
    let second = taken(noon(), after(60)).await;
    assert!(
        !store.release(&id, first).await.expect("available"),
        "another claim has it"
    );
    let third = taken(after(60), after(120)).await;
    assert!(
        !store
            .finish(&id, second, after(500))
            .await
            .expect("available"),
        "the claim had expired"
    );
    assert!(
        store
            .finish(&id, third, after(90_000))
            .await
            .expect("available")
    );
    assert_eq!(
        store.claim(&id, after(89_999), after(90_060)).await.ok(),
        Some(Claim::Finished)
    );
    assert!(
        !store.release(&id, third).await.expect("available"),
        "the request is finished"
    );
    taken(after(90_000), after(90_060)).await;
}

pub(crate) async fn handled_requests_are_swept_when_their_time_is_over(db: Db) {
    let store = db.store().await;
    for number in 0..3 {
        let id = SeenId([number; 32]);
        let claim = store
            .claim(&id, noon(), after(60))
            .await
            .expect("the database is up");
        if let Claim::Taken(claim) = claim {
            store
                .finish(&id, claim, after(u64::from(number) * 100))
                .await
                .expect("available");
        }
    }
    let handled = async || {
        let rows = db.rows().await.into_iter();
        rows.filter(|(key, _)| key.slot.as_str() == "seen").count()
    };
    let clock = slack_installs::Clock::from_fn(|| after(150));
    store
        .clone()
        .with_clock(clock)
        .sweep_expired_states()
        .await
        .expect("available");
    assert_eq!(handled().await, 1);
}
