//! The notices that the store keeps for the app: each is written and removed with the change that
//! it reports.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::backend::{Backend, Lane, Version};
use slack_installs::store::{
    Access, Chain, ChainKey, Credential, Ending, Error, LifecycleStore as _, Mark, PendingNotice,
    RotationStore as _, Subject,
};
use slack_installs::{
    Delete, Departure, Grant, Installation, InstallationKey, InstallationStore as _,
    LocalKeyProvider,
};

use super::put;
use crate::support::backends::Unreliable;
use crate::support::checks::until;
use crate::support::installs::{
    With, enterprise, in_org, in_workspace, noon, org_key, rotating, team, user_id, workspace_key,
};
use crate::support::providers::master_key;
use crate::support::{Db, Store};

fn after(seconds: u64) -> SystemTime {
    noon() + Duration::from_secs(seconds)
}

fn ending(reason: &str, tell_at: SystemTime) -> Ending {
    Ending {
        reason: reason.to_owned(),
        at: noon(),
        tell_at,
    }
}

/// T1, with a bot and a user whose tokens rotate, and the metadata of a flow.
fn rotating_t1(nth: u64) -> Installation {
    let mut new = in_workspace("T1")
        .with_bot("xoxb-1")
        .with_user("U1", "xoxp-1");
    new.bot.as_mut().expect("a bot").grant = pair("bot", nth);
    new.user.as_mut().expect("a user").grant = pair("user", nth);
    new.metadata = Some("customer-42".to_owned());
    new.installed_at = after(nth);
    new
}

fn pair(whose: &str, nth: u64) -> Grant {
    rotating(
        &format!("xoxe.xoxb-{whose}-{nth}"),
        &format!("xoxe-{whose}-{nth}"),
    )
}

fn user() -> Credential {
    Credential::User(user_id("U1"))
}

/// Changes a chain of T1.
async fn change(
    store: &Store,
    credential: Credential,
    change: impl Fn(&mut Chain) + Send + Sync,
) -> Result<(), Error> {
    let tenant = workspace_key("T1");
    let key = ChainKey { credential, tenant };
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        change(&mut next);
        Some(next)
    };
    store.update(&key, None, &mut decide).await.map(drop)
}

async fn kill(store: &Store, credential: Credential) -> Result<(), Error> {
    let dies = |chain: &mut Chain| {
        chain.is_dead = true;
        chain.last_error = Some("invalid_refresh_token".into());
    };
    change(store, credential, dies).await
}

async fn revoke(store: &Store, delete: Delete, at: SystemTime) -> Result<bool, Error> {
    let delete = delete.telling(ending("tokens_revoked", at));
    store.delete(&workspace_key("T1"), &delete).await
}

async fn try_access(
    store: &Store,
    teams: &[&str],
    at_micros: u64,
    is_lost: bool,
) -> Result<bool, Error> {
    let access = Access {
        teams: teams.iter().map(|id| team(id)).collect(),
        is_granted: !is_lost,
        at_micros,
    };
    let ending = ending("team_access_revoked", noon());
    let org = enterprise("E1");
    store.set_access_telling(&org, &access, &ending).await
}

async fn set_access(store: &Store, teams: &[&str], at_micros: u64, is_lost: bool) {
    let set = try_access(store, teams, at_micros, is_lost).await;
    assert!(set.expect("the database is up"));
}

/// Returns the slots of the notices of this tenant.
async fn noted(db: &Db, tenant: &str) -> Vec<String> {
    let mut slots = db.slots_of(tenant).await;
    slots.retain(|slot| slot.starts_with("notice/"));
    slots
}

async fn due(store: &Store, now: SystemTime) -> Vec<PendingNotice> {
    let due = store.due_notices(now, 100).await;
    due.expect("the database is up")
}

async fn one(store: &Store, key: &InstallationKey, subject: Subject) -> Option<PendingNotice> {
    let found = store.notices(key, &[subject]).await;
    found.expect("the database is up").pop()
}

pub(crate) async fn a_notice_is_written_in_the_commit_of_the_change_it_reports(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let unreliable: Store = {
        let backend: Arc<dyn Backend> = Arc::new(backend.clone());
        let provider = LocalKeyProvider::from(master_key());
        db.store_over(backend, provider).await
    };
    put(&unreliable, rotating_t1(0)).await;
    put(&unreliable, in_org("E1", None).with_bot("xoxb-2")).await;
    for (tenant, expected) in [
        ("T1", &["notice/dead/bot"][..]),
        ("T1", &["notice/dead/bot", "notice/revoked/U1"]),
        ("E1", &["notice/left/T5", "notice/left/T6"]),
    ] {
        let change = async || match expected.len() {
            1 => kill(&unreliable, Credential::Bot).await,
            _ if tenant == "T1" => {
                let delete = Delete::user(user_id("U1"));
                revoke(&unreliable, delete, noon()).await.map(drop)
            }
            _ => try_access(&unreliable, &["T5", "T6"], 5, true)
                .await
                .map(drop),
        };
        let before = db.rows_of(tenant).await;
        // A lost commit is made again, up to a hundred times.
        backend.lose_commits(1000);
        let lost = change().await;
        backend.lose_commits(0);
        assert_matches!(lost, Err(Error::Unavailable(_)), "{tenant}");
        assert_eq!(db.rows_of(tenant).await, before, "neither is there");
        let commits = backend.commits();
        change().await.expect("the database is up");
        assert_eq!(backend.commits() - commits, 1, "{expected:?}");
        assert_eq!(noted(&db, tenant).await, expected);
    }
}

pub(crate) async fn a_notice_says_whose_it_is_and_seals_what_the_flow_carried(db: Db) {
    let store = db.store().await;
    put(&store, rotating_t1(0)).await;
    kill(&store, user()).await.expect("the database is up");
    revoke(&store, Delete::bot(), after(60))
        .await
        .expect("the database is up");
    for (subject, reason) in [
        (Subject::Chain(user()), "invalid_refresh_token"),
        (Subject::Authorization(Credential::Bot), "tokens_revoked"),
    ] {
        let pending = one(&store, &workspace_key("T1"), subject.clone()).await;
        let notice = pending.expect("it was written").notice;
        assert_eq!(notice.subject, subject);
        assert_eq!(notice.key, workspace_key("T1"));
        assert_eq!(notice.reason, reason);
        assert_eq!(notice.at, noon());
        assert_eq!(notice.installed_by, Some(user_id("U0ADMIN0001")));
        assert_eq!(notice.metadata.as_deref(), Some("customer-42"));
        assert!(!format!("{notice:?}").contains("customer"));
    }
    let rows = db.rows_of("T1").await;
    assert!(!format!("{rows:?}").contains("customer"));
}

pub(crate) async fn a_subject_has_one_notice_and_the_later_one_replaces_it(db: Db) {
    let store = db.store().await;
    put(&store, rotating_t1(0)).await;
    kill(&store, user()).await.expect("the database is up");
    kill(&store, Credential::Bot)
        .await
        .expect("the database is up");
    let died = one(&store, &workspace_key("T1"), Subject::Chain(user())).await;
    // The death of a chain is told once.
    kill(&store, user()).await.expect("the database is up");
    let again = one(&store, &workspace_key("T1"), Subject::Chain(user())).await;
    let revision = |pending: Option<PendingNotice>| pending.expect("it is there").revision;
    assert_eq!(revision(died), revision(again));
    assert!(
        revoke(&store, Delete::user(user_id("U1")), noon())
            .await
            .expect("deleted")
    );
    assert_eq!(
        noted(&db, "T1").await,
        ["notice/dead/bot", "notice/revoked/U1"]
    );
    // What is not stored does not end.
    assert!(
        !revoke(&store, Delete::user(user_id("U2")), noon())
            .await
            .expect("nothing")
    );
    assert_eq!(noted(&db, "T1").await.len(), 2);
    // A deletion by the app itself is not told.
    let own = store.delete(&workspace_key("T1"), &Delete::bot()).await;
    assert!(own.expect("deleted"));
    assert_eq!(noted(&db, "T1").await.len(), 2);
}

pub(crate) async fn a_conflict_writes_no_notice(db: Db) {
    let store = db.store().await;
    let old = put(&store, rotating_t1(0)).await;
    put(&store, rotating_t1(1)).await;
    let other = pair("bot", 0).access_token;
    for delete in [Delete::bot().only(old), Delete::bot().holding(&other)] {
        let refused = revoke(&store, delete, noon()).await;
        assert_matches!(refused, Err(Error::Conflict));
    }
    assert!(noted(&db, "T1").await.is_empty());
}

pub(crate) async fn a_departure_replaces_the_notices(db: Db) {
    let store = db.store().await;
    let revision = put(&store, rotating_t1(0)).await;
    kill(&store, Credential::Bot)
        .await
        .expect("the database is up");
    revoke(&store, Delete::user(user_id("U1")), noon())
        .await
        .expect("deleted");
    let mut leaving = Departure::new(workspace_key("T1"), "app_uninstalled", noon());
    leaving.installed_by = Some(user_id("U1"));
    leaving.metadata = Some("customer-42".to_owned());
    let purged = store.purge(&leaving, revision, Some(noon())).await;
    let pending = purged.expect("purged").expect("there is a note");
    assert_eq!(pending.departure, leaving);
    assert_eq!(db.slots_of("T1").await, ["departure"]);
    assert!(!format!("{:?} {leaving:?}", db.rows_of("T1").await).contains("customer"));
    let postponed = store
        .postpone(&pending, after(60))
        .await
        .expect("available");
    let postponed = postponed.expect("it is there").departure;
    assert_eq!(postponed, leaving);
    let read = store
        .departure(&workspace_key("T1"))
        .await
        .expect("available");
    assert_eq!(read.expect("it is there").departure, leaving);
}

pub(crate) async fn a_notice_is_due_in_its_own_lane_until_it_is_settled(db: Db) {
    let store = db.store().await;
    put(&store, rotating_t1(0)).await;
    revoke(&store, Delete::bot(), after(60))
        .await
        .expect("deleted");
    let (_, row) = db.row("T1", "notice/revoked/bot").await;
    let place = row.due.map(|due| (due.lane, due.at));
    assert_eq!(place, Some((Lane::Notice, after(60))));
    assert!(due(&store, after(59)).await.is_empty());
    until("the notice is due", async || {
        due(&store, after(60)).await.len() == 1
    })
    .await;
    let departures = store.due_departures(after(60), 100).await;
    assert!(departures.expect("the database is up").is_empty());
    let first = due(&store, after(60)).await.pop().expect("it is due");
    let later = store.postpone_notice(&first, after(120)).await;
    let later = later.expect("available").expect("it existed");
    assert_eq!(later.attempts, 1);
    assert_eq!(later.notice, first.notice);
    let stale = store.postpone_notice(&first, after(500)).await;
    assert!(stale.expect("available").is_none(), "it moved");
    assert!(
        !store.settle_notice(&first).await.expect("available"),
        "it moved"
    );
    assert!(due(&store, after(119)).await.is_empty());
    until("it is due again", async || {
        due(&store, after(120)).await.len() == 1
    })
    .await;
    let again = due(&store, after(120)).await.pop().expect("it is due");
    assert_eq!((again.attempts, &again.notice), (1, &first.notice));
    assert!(store.settle_notice(&later).await.expect("available"));
    assert!(!store.settle_notice(&later).await.expect("available"));
    assert!(noted(&db, "T1").await.is_empty());
}

pub(crate) async fn two_apps_in_one_database_do_not_see_each_others_notices(db: Db) {
    let other = db.look_alike();
    let (store, theirs) = (db.store().await, other.store().await);
    for store in [&store, &theirs] {
        put(store, rotating_t1(0)).await;
    }
    revoke(&theirs, Delete::bot(), noon())
        .await
        .expect("deleted");
    until("their notice is due", async || {
        due(&theirs, after(1)).await.len() == 1
    })
    .await;
    assert!(due(&store, after(1)).await.is_empty());
    let subject = Subject::Authorization(Credential::Bot);
    let key = workspace_key("T1");
    assert!(one(&store, &key, subject.clone()).await.is_none());
    let pending = one(&theirs, &key, subject).await.expect("it is there");
    assert!(!store.settle_notice(&pending).await.expect("available"));
    assert_eq!(noted(&other, "T1").await, ["notice/revoked/bot"]);
}

pub(crate) async fn what_is_restored_takes_its_notice_along(db: Db) {
    let store = db.store().await;
    let up = "the database is up";
    put(&store, rotating_t1(1)).await;
    kill(&store, Credential::Bot).await.expect(up);
    kill(&store, user()).await.expect(up);
    // The dead pair stored again, or a pair of before, restores nothing.
    put(&store, rotating_t1(1)).await;
    assert_eq!(
        noted(&db, "T1").await,
        ["notice/dead/U1", "notice/dead/bot"]
    );
    // A chain that is alive again.
    change(&store, Credential::Bot, |chain| chain.is_dead = false)
        .await
        .expect(up);
    assert_eq!(noted(&db, "T1").await, ["notice/dead/U1"]);
    // A new grant of another credential leaves this one.
    let mut bot = in_workspace("T1").with_bot("xoxb-1");
    bot.bot.as_mut().expect("a bot").grant = pair("bot", 2);
    bot.installed_at = after(2);
    put(&store, bot).await;
    assert_eq!(noted(&db, "T1").await, ["notice/dead/U1"]);
    put(&store, rotating_t1(3)).await;
    assert!(noted(&db, "T1").await.is_empty());
    // A credential that was deleted and is granted again.
    for delete in [Delete::bot(), Delete::user(user_id("U1"))] {
        revoke(&store, delete, noon()).await.expect(up);
    }
    assert_eq!(noted(&db, "T1").await.len(), 2);
    put(&store, rotating_t1(4)).await;
    assert!(noted(&db, "T1").await.is_empty());
}

pub(crate) async fn a_workspace_that_is_lost_is_told_once_and_not_if_it_is_granted_again(db: Db) {
    let store = db.store().await;
    put(&store, in_org("E1", None).with_bot("xoxb-1")).await;
    set_access(&store, &["T1", "T2"], 5, true).await;
    assert_eq!(noted(&db, "E1").await, ["notice/left/T1", "notice/left/T2"]);
    let key = org_key("E1");
    let left = |id: &str| Subject::Workspace(team(id));
    let pending = one(&store, &key, left("T1")).await.expect("it is there");
    assert!(store.settle_notice(&pending).await.expect("available"));
    // Slack's event again, and a later one about a workspace that is lost already.
    set_access(&store, &["T1"], 5, true).await;
    set_access(&store, &["T1"], 6, true).await;
    assert_eq!(noted(&db, "E1").await, ["notice/left/T2"]);
    set_access(&store, &["T1", "T2"], 7, false).await;
    assert!(noted(&db, "E1").await.is_empty());
    set_access(&store, &["T1"], 8, true).await;
    assert_eq!(noted(&db, "E1").await, ["notice/left/T1"]);
    // A grant that is older than the loss changes nothing.
    set_access(&store, &["T1"], 7, false).await;
    assert_eq!(noted(&db, "E1").await, ["notice/left/T1"]);
}

/// More workspaces than one commit accepts.
pub(crate) async fn a_hundred_workspaces_can_leave_at_once(db: Db) {
    let store = db.store().await;
    put(&store, in_org("E1", None).with_bot("xoxb-1")).await;
    let ids: Vec<_> = (0..100).map(|nth| format!("T{nth}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    set_access(&store, &ids, 5, true).await;
    assert_eq!(noted(&db, "E1").await.len(), 100);
    let subjects: Vec<_> = ids.iter().map(|id| Subject::Workspace(team(id))).collect();
    let found = store.notices(&org_key("E1"), &subjects).await;
    assert_eq!(found.expect("the database is up").len(), 100);
    set_access(&store, &ids, 6, false).await;
    assert!(noted(&db, "E1").await.is_empty());
}

pub(crate) async fn a_notice_that_does_not_open_keeps_no_other_from_being_found(db: Db) {
    let store = db.store().await;
    put(&store, rotating_t1(0)).await;
    for delete in [Delete::bot(), Delete::user(user_id("U1"))] {
        revoke(&store, delete, noon()).await.expect("deleted");
    }
    let (key, mut row) = db.row("T1", "notice/revoked/bot").await;
    row.version = Version::mint();
    db.overwrite(&key, row).await;
    let subject = Subject::Authorization(user());
    until("the other one is due", async || {
        let due = due(&store, noon()).await;
        due.iter().any(|pending| pending.notice.subject == subject)
    })
    .await;
    assert_eq!(due(&store, noon()).await.len(), 1);
    // A new grant removes it although it does not open.
    put(&store, rotating_t1(1)).await;
    assert!(noted(&db, "T1").await.is_empty());
    let key = ChainKey {
        credential: Credential::Bot,
        tenant: workspace_key("T1"),
    };
    let chain = store.chain(&key).await;
    let chain = chain.expect("available").expect("installed").chain;
    let refresh = pair("bot", 1).refresh_token.expect("it rotates");
    assert_eq!(chain.refresh, Some(Mark::of(&refresh)));
}
