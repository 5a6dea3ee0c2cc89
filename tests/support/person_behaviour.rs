//! What is stored about a person is returned, and removed while the tenant stays.

use std::time::Duration;

use slack_installs::store::{Chain, ChainKey, Credential, Ending, RotationStore as _, Subject};
use slack_installs::{Delete, Departure, InstallationStore as _, LifecycleStore as _};

use crate::support::Db;
use crate::support::installs::{noon, user_id, with_both, workspace_key};

/// Stores T1, which U1 installed, and U2, who has a token in it. U1's token was revoked.
async fn two_people(db: &Db) -> crate::support::Store {
    let store = db.store().await;
    for (user, token) in [("U2", "xoxp-SECRET-2"), ("U1", "xoxp-SECRET-1")] {
        let mut installation = with_both("T1", "xoxb-SECRET", user, token);
        installation.installed_by = Some(user_id("U1"));
        store.store(&installation).await.expect("stored");
    }
    store
}

/// Changes the chain of a person in T1.
async fn change(store: &crate::support::Store, person: &str, change: fn(&mut Chain)) {
    let (credential, tenant) = (Credential::User(user_id(person)), workspace_key("T1"));
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        change(&mut next);
        Some(next)
    };
    let key = ChainKey { credential, tenant };
    let changed = store.update(&key, None, &mut decide).await;
    changed.expect("changed").expect("stored");
}

/// Asserts that no row has the id U1.
async fn assert_erased(db: &Db) {
    for (at, row) in db.rows().await {
        let is_of_person = at.slot.as_str().contains("U1") || row.metadata.as_str().contains("U1");
        assert!(!is_of_person, "{at}: {:?}", row.metadata);
    }
}

pub(crate) async fn what_is_stored_about_a_person_is_exported_without_secrets(db: Db) {
    let store = two_people(&db).await;
    let key = workspace_key("T1");
    // The state of a chain has hashes of its tokens.
    change(&store, "U2", |chain| chain.idle = 1).await;
    let stored = db.rows().await;
    let mut stored = stored.iter().map(|(_, row)| row.metadata.as_str());
    assert!(stored.any(|facts| facts.contains("\"rotation\"")));
    let rows = async |person: Option<&str>| {
        let person = person.map(user_id);
        let facts = store
            .export_facts(&key, person.as_ref())
            .await
            .expect("read");
        let text = format!("{facts:?}");
        assert!(!text.contains("SECRET"), "{text}");
        assert!(!text.contains("rotation"), "{text}");
        facts.into_iter().map(|it| it.row).collect::<Vec<_>>()
    };
    let mut all = rows(None).await;
    all.sort();
    let mut expected = db.slots_of("T1").await;
    expected.sort();
    assert_eq!(all, expected);
    let mut of_one = rows(Some("U1")).await;
    of_one.sort();
    assert_eq!(of_one, ["install", "user/U1"]);
    assert_eq!(rows(Some("U2")).await, ["user/U2"]);
    assert!(rows(Some("U3")).await.is_empty());
}

pub(crate) async fn a_persons_ids_are_erased_and_the_tenant_stays(db: Db) {
    let store = two_people(&db).await;
    let key = workspace_key("T1");
    // A notice that U1's token ended. Storing it again removes neither.
    let ending = Ending {
        reason: "tokens_revoked".to_owned(),
        at: noon(),
        tell_at: noon() + Duration::from_secs(60),
    };
    let delete = Delete::user(user_id("U1")).telling(ending);
    assert!(store.delete(&key, &delete).await.expect("deleted"));
    let subjects = [Subject::Authorization(Credential::User(user_id("U1")))];
    let notices = store.notices(&key, &subjects).await.expect("read");
    assert_eq!(notices.len(), 1);

    let person = user_id("U1");
    assert!(store.erase_person(&key, &person).await.expect("erased"));
    assert!(!store.erase_person(&key, &person).await.expect("erased"));
    let left = store.export_facts(&key, Some(&person)).await.expect("read");
    assert_eq!(left, []);
    assert_erased(&db).await;
    let stored = store.fetch(&key, Some(&user_id("U2"))).await.expect("read");
    let stored = stored.expect("the tenant stays");
    assert!(stored.installation.bot.is_some() && stored.installation.user.is_some());
    assert_eq!(stored.installation.installed_by, None);
}

pub(crate) async fn a_persons_ids_are_erased_from_what_the_app_is_still_to_be_told(db: Db) {
    let store = two_people(&db).await;
    let (key, person) = (workspace_key("T1"), user_id("U1"));
    change(&store, "U1", |chain| chain.is_dead = true).await;
    let subjects = [Subject::Chain(Credential::User(person.clone()))];
    let notices = store.notices(&key, &subjects).await.expect("read");
    assert_eq!(notices.len(), 1);
    assert!(store.erase_person(&key, &person).await.expect("erased"));
    assert_erased(&db).await;

    let (revision, _) = store.glance(&key).await.expect("read").expect("stored");
    let mut departure = Departure::new(key.clone(), "app_uninstalled", noon());
    departure.installed_by = Some(person.clone());
    let purged = store.purge(&departure, revision, Some(noon())).await;
    assert!(purged.expect("purged").is_some());
    assert!(store.erase_person(&key, &person).await.expect("erased"));
    assert_erased(&db).await;
    let pending = store.departure(&key).await.expect("read");
    let pending = pending.expect("the app is still to be told");
    assert_eq!(pending.departure.installed_by, None);
}
