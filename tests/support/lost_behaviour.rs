//! What the store does when the response of a commit is lost, or a row changes between the read
//! and the commit.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::Lane;
use slack_installs::store::{Error, Facts, LifecycleStore as _};
use slack_installs::{Delete, Departure, EncryptedStore, InstallationStore as _};

use super::{damage, fetch, gone, local, of, put};
use crate::support::backends::Interrupted;
use crate::support::installs::{
    With, bot_id, bot_token, in_workspace, noon, user_id, user_token, workspace_key,
};
use crate::support::meddling::{Fate, Meddling, Then};
use crate::support::{Db, Store};

type Meddled = EncryptedStore<Arc<Meddling>>;

/// Returns a store over a database that fails as the test chooses, and the store of another
/// process.
async fn two(db: &Db) -> (Arc<Meddling>, Meddled, Store) {
    let backend = Arc::new(Meddling::new(Arc::clone(&db.backend)));
    let store = db.store_over(Arc::clone(&backend), local()).await;
    (backend, store, db.store().await)
}

/// Deletes the tenant in another process.
fn purge(elsewhere: &Store) -> Then {
    let elsewhere = elsewhere.clone();
    Box::pin(async move {
        let deleted = elsewhere.delete(&workspace_key("T1"), &Delete::all()).await;
        assert!(deleted.expect("deleted"));
    })
}

fn nothing() -> Then {
    Box::pin(async {})
}

fn assert_unavailable<T: std::fmt::Debug>(outcome: &Result<T, Error>) {
    assert_matches!(outcome, Err(Error::Unavailable(_)));
}

pub(crate) async fn a_store_whose_answer_was_lost_undoes_no_purge(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    // The second installation has no bot: that slot is empty before the commit and after the purge.
    let standing = [of("T1"), in_workspace("T1").with_user("U1", "xoxp-1")];
    for standing in standing {
        put(&elsewhere, standing).await;
        let then = purge(&elsewhere);
        backend.next([Fate::Lost { done: true, then }]);
        let new = in_workspace("T1").with_bot("xoxb-new");
        assert_unavailable(&store.store(&new).await);
        assert!(gone(&elsewhere, &workspace_key("T1")).await);
        assert!(db.rows_of("T1").await.is_empty());
    }
}

pub(crate) async fn a_store_that_cannot_look_for_its_rows_is_not_made_again(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    put(&elsewhere, of("T1")).await;
    let (purge, meddling) = (purge(&elsewhere), Arc::clone(&backend));
    let then = Box::pin(async move {
        purge.await;
        meddling.fail_reads(1);
    });
    backend.next([Fate::Lost { done: true, then }]);
    let new = in_workspace("T1").with_bot("xoxb-new");
    assert_unavailable(&store.store(&new).await);
    assert!(db.rows_of("T1").await.is_empty());
}

pub(crate) async fn rows_of_another_writer_are_not_taken_for_those_whose_answer_was_lost(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    put(&elsewhere, of("T1")).await;
    for done in [false, true] {
        let theirs = elsewhere.clone();
        let then = Box::pin(async move {
            put(&theirs, in_workspace("T1").with_bot("xoxb-theirs")).await;
        });
        backend.next([Fate::Lost { done, then }]);
        let commits = backend.commits();
        assert_unavailable(&store.store(&in_workspace("T1").with_bot("xoxb-ours")).await);
        assert_eq!(
            backend.commits(),
            commits + 1,
            "the commit is neither confirmed nor repeated"
        );
        let standing = fetch(&elsewhere, &workspace_key("T1"), None).await;
        assert_eq!(bot_token(&standing), Some("xoxb-theirs"));
    }
}

pub(crate) async fn a_row_that_moved_before_it_was_confirmed_is_not_answered_for(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    put(&elsewhere, of("T1")).await;
    let then = nothing();
    backend.next([Fate::Lost { done: true, then }, Fate::Conflict]);
    assert_unavailable(&store.store(&of("T1")).await);
}

pub(crate) async fn a_refused_commit_ends_with_its_cause_and_is_not_made_again(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    put(&elsewhere, of("T1")).await;
    let rows = db.rows_of("T1").await;
    // More refusals than attempts: the disk is full, the row is locked, or no memory is left.
    let refusals = (0..200).map(|_| Fate::Lost {
        done: false,
        then: nothing(),
    });
    backend.next(refusals);
    let commits = backend.commits();
    let outcome = store.store(&in_workspace("T1").with_bot("xoxb-2")).await;
    assert_matches!(&outcome, Err(Error::Unavailable(cause)) if cause.to_string() == "lost on purpose");
    assert_eq!(backend.commits(), commits + 1);
    assert_eq!(db.rows_of("T1").await, rows);
}

pub(crate) async fn a_row_is_confirmed_twice_at_most(db: Db) {
    let (backend, store, _) = two(&db).await;
    for (lost, is_known) in [(2, true), (3, false)] {
        let fates = (0..lost).map(|_| Fate::Lost {
            done: true,
            then: nothing(),
        });
        backend.next(fates);
        let commits = backend.commits();
        let stored = store.store(&of("T1")).await;
        assert_eq!(backend.commits(), commits + 3);
        if is_known {
            stored.expect("the second confirmation got a response");
        } else {
            assert_unavailable(&stored);
        }
    }
}

pub(crate) async fn a_guarded_delete_whose_answer_was_lost_is_not_made_again(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    let revision = put(&elsewhere, of("T1")).await;
    for done in [false, true] {
        let then = nothing();
        backend.next([Fate::Lost { done, then }]);
        let commits = backend.commits();
        let delete = Delete::bot().only(revision);
        assert_unavailable(&store.delete(&workspace_key("T1"), &delete).await);
        assert_eq!(backend.commits(), commits + 1);
    }
}

pub(crate) async fn what_a_database_does_not_take_is_no_outage_and_not_asked_again(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    put(&elsewhere, of("T1")).await;
    let rows = db.rows_of("T1").await;
    backend.next([Fate::Malformed]);
    let commits = backend.commits();
    let outcome = store.store(&in_workspace("T1").with_bot("xoxb-2")).await;
    assert_matches!(outcome, Err(Error::Unreadable(_)));
    assert_eq!(backend.commits(), commits + 1);
    assert_eq!(db.rows_of("T1").await, rows);
}

pub(crate) async fn a_decision_is_taken_a_hundred_times_and_no_more(db: Db) {
    let (backend, store, _) = two(&db).await;
    let conflicts = |many| (0..many).map(|_| Fate::Conflict);
    backend.next(conflicts(99));
    store
        .store(&of("T1"))
        .await
        .expect("the hundredth attempt succeeds");
    backend.next(conflicts(100));
    let commits = backend.commits();
    assert_unavailable(&store.store(&of("T1")).await);
    assert_eq!(backend.commits(), commits + 100);

    let delete = Delete::bot();
    backend.next(conflicts(100));
    assert_unavailable(&store.delete(&workspace_key("T1"), &delete).await);
    assert_eq!(backend.commits(), commits + 200);
    backend.next(conflicts(99));
    let deleted = store.delete(&workspace_key("T1"), &delete).await;
    assert!(deleted.expect("the hundredth attempt succeeds"));
}

/// Returns a store that is interrupted between its next read and its commit: another user installs.
/// This changes the facts of the installation and no other existing row.
async fn overtaken(db: &Db) -> EncryptedStore<Arc<Interrupted>> {
    let backend = Arc::new(Interrupted::new(Arc::clone(&db.backend)));
    let store = db.store_over(Arc::clone(&backend), local()).await;
    let elsewhere = db.store().await;
    backend.meanwhile(move || {
        tokio::spawn(async move {
            put(&elsewhere, in_workspace("T1").with_user("U2", "xoxp-2")).await;
        })
    });
    store
}

pub(crate) async fn a_guarded_delete_that_a_reinstall_overtakes_takes_nothing(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let user = Delete::user(user_id("U1"));
    for delete in [Delete::all(), Delete::bot(), user] {
        let revision = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
        let deleting = overtaken(&db).await;
        let outcome = deleting.delete(&key, &delete.only(revision)).await;
        assert_matches!(outcome, Err(Error::Conflict));
        let standing = fetch(&store, &key, Some("U1")).await;
        assert_eq!(bot_token(&standing), Some("xoxb-T1"));
        assert_eq!(user_token(&standing), Some(("U1", "xoxp-1")));
        let standing = fetch(&store, &key, Some("U2")).await;
        assert_eq!(user_token(&standing), Some(("U2", "xoxp-2")));
        assert_ne!(
            standing.revision, revision,
            "the stored facts are the later ones"
        );
    }
}

pub(crate) async fn a_guarded_delete_conflicts_where_the_facts_are_gone(db: Db) {
    let store = db.store().await;
    let revision = put(&store, of("T1")).await;
    let (install, _) = db.row("T1", "install").await;
    db.remove(&install).await;
    let delete = Delete::bot().only(revision);
    let outcome = store.delete(&workspace_key("T1"), &delete).await;
    assert_matches!(outcome, Err(Error::Conflict));
    assert_eq!(db.rows_of("T1").await.len(), 1);
}

pub(crate) async fn a_delete_that_holds_a_token_takes_that_one_only(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let installed = || of("T1").with_user("U1", "xoxp-1");
    let judged = installed().with_bot("xoxb-old").with_user("U1", "xoxp-old");
    let (judged_bot, judged_user) = (judged.bot.expect("a bot"), judged.user.expect("a user"));
    let now = installed();
    let (bot, user) = (now.bot.expect("a bot"), now.user.expect("a user"));
    put(&store, installed()).await;
    let of_user = || Delete::user(user_id("U1"));
    for delete in [
        Delete::bot().holding(&judged_bot.grant.access_token),
        of_user().holding(&judged_user.grant.access_token),
        of_user().holding(&bot.grant.access_token),
    ] {
        let outcome = store.delete(&key, &delete).await;
        assert_matches!(outcome, Err(Error::Conflict));
    }
    let standing = fetch(&store, &key, Some("U1")).await;
    assert_eq!(bot_token(&standing), Some("xoxb-T1"));
    assert_eq!(user_token(&standing), Some(("U1", "xoxp-1")));

    for delete in [
        Delete::bot().holding(&bot.grant.access_token),
        of_user().holding(&user.grant.access_token),
    ] {
        assert!(
            store
                .delete(&key, &delete)
                .await
                .expect("the held token is the stored token")
        );
        assert!(
            !store
                .delete(&key, &delete)
                .await
                .expect("it was deleted already")
        );
    }
    // A delete of everything ignores the held token.
    let all = Delete::all().holding(&bot.grant.access_token);
    assert!(store.delete(&key, &all).await.expect("deleted"));
    assert!(gone(&store, &key).await);
}

pub(crate) async fn a_delete_that_holds_a_token_spares_the_one_that_replaces_it_meanwhile(db: Db) {
    let elsewhere = db.store().await;
    put(&elsewhere, of("T1")).await;
    let held = of("T1").bot.expect("a bot").grant.access_token;
    let backend = Arc::new(Interrupted::new(Arc::clone(&db.backend)));
    let store = db.store_over(Arc::clone(&backend), local()).await;
    let replacing = elsewhere.clone();
    backend.meanwhile(move || {
        tokio::spawn(async move {
            put(&replacing, in_workspace("T1").with_bot("xoxb-new")).await;
        })
    });
    let delete = Delete::bot().holding(&held);
    let outcome = store.delete(&workspace_key("T1"), &delete).await;
    assert_matches!(outcome, Err(Error::Conflict));
    let standing = fetch(&elsewhere, &workspace_key("T1"), None).await;
    assert_eq!(bot_token(&standing), Some("xoxb-new"));
}

pub(crate) async fn a_note_that_a_reinstall_overtakes_adds_nothing(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let url = || Some("https://alpha.slack.com/".to_owned());
    let bot_id = || Some(bot_id("B1"));
    for (bot_id, url) in [(bot_id(), None), (None, url())] {
        let revision = put(&store, of("T1")).await;
        let noting = overtaken(&db).await;
        let facts = Facts { bot_id, url };
        let noted = noting.note(&key, revision, &facts).await;
        assert!(!noted.expect("no error"));
        let standing = fetch(&store, &key, None).await;
        assert_eq!(standing.url, None);
        assert_eq!(standing.installation.bot.expect("a bot").id, None);
    }
}

fn departure() -> Departure {
    Departure::new(workspace_key("T1"), "app_uninstalled", noon())
}

pub(crate) async fn a_purge_that_a_reinstall_overtakes_takes_nothing(db: Db) {
    let store = db.store().await;
    let revision = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
    let purging = overtaken(&db).await;
    let purged = purging.purge(&departure(), revision, Some(noon())).await;
    assert_matches!(purged, Err(Error::Conflict));
    let slots = db.rows_of("T1").await.into_iter();
    let slots: Vec<_> = slots.map(|(slot, _)| slot).collect();
    assert_eq!(slots, ["bot", "install", "user/U1", "user/U2"]);
}

/// The rows do not have to open, and the note of an earlier departure is replaced.
pub(crate) async fn a_purge_opens_nothing_and_leaves_its_own_note_alone(db: Db) {
    let store = db.store().await;
    for round in 1..=2 {
        let revision = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
        for slot in ["install", "bot", "user/U1"] {
            damage(&db, "T1", slot).await;
        }
        let tell_at = noon() + Duration::from_secs(round);
        let noted = store.purge(&departure(), revision, Some(tell_at)).await;
        let noted = noted.expect("purged").expect("there is a note");
        assert_eq!((noted.attempts, &noted.departure), (0, &departure()));
        let rows = db.rows_of("T1").await;
        let [(slot, row)] = &rows[..] else {
            panic!("{rows:?}")
        };
        let due = row.due.map(|due| (due.lane, due.at));
        assert_eq!(slot.as_str(), "departure");
        assert_eq!(due, Some((Lane::Departure, tell_at)));
        let postponed = store.postpone(&noted, tell_at).await;
        assert!(postponed.expect("available").is_some());
    }
    let none = workspace_key("T2");
    let never = Departure::new(none, "app_uninstalled", noon());
    let revision = put(&store, of("T1")).await;
    let refused = store.purge(&never, revision, Some(noon())).await;
    assert_matches!(refused, Err(Error::Conflict));
    assert!(db.rows_of("T2").await.is_empty());
}

pub(crate) async fn a_guarded_delete_of_everything_leaves_nothing(db: Db) {
    let store = db.store().await;
    for is_guarded in [true, false] {
        let revision = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
        let delete = if is_guarded {
            Delete::all().only(revision)
        } else {
            Delete::all()
        };
        let deleted = store.delete(&workspace_key("T1"), &delete).await;
        assert!(deleted.expect("deleted"));
        assert!(db.rows_of("T1").await.is_empty());
    }
}

pub(crate) async fn a_purge_whose_answer_was_lost_is_found_out_by_its_note(db: Db) {
    let (backend, store, elsewhere) = two(&db).await;
    let revision = put(&elsewhere, of("T1")).await;
    let then = nothing();
    backend.next([Fate::Lost { done: true, then }]);
    let purged = store.purge(&departure(), revision, Some(noon())).await;
    assert!(
        purged
            .expect("the note shows that the purge was applied")
            .is_some()
    );

    // Without a note, the rows cannot show which process purged them.
    let revision = put(&elsewhere, of("T1")).await;
    let then = nothing();
    backend.next([Fate::Lost { done: true, then }]);
    assert_unavailable(&store.purge(&departure(), revision, None).await);
    assert!(gone(&elsewhere, &workspace_key("T1")).await);
}
