//! What the log says of changes of data keys.

use slack_installs::store::AuditContext;
use slack_installs::{InstallationStore as _, KeyId, LocalKeyProvider};

use super::world::World;
use crate::support::Store;
use crate::support::installs::{with_both, workspace_key};
use crate::support::providers::{master_key, master_key_of};

/// A store with another database than its log, and with a new master key.
async fn store(world: &World) -> Store {
    let elsewhere = world.log.db.look_alike();
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    let stored = elsewhere.store().await.store(&installation).await;
    stored.expect("stored");
    let keys = LocalKeyProvider::new(master_key_of(0x22)).with_retired(master_key());
    let store = elsewhere.store_by(keys).await;
    store.with_witness(world.audit.clone())
}

/// Changes the keys in each way. Returns the keys: the first, the primary, and a destroyed one.
async fn change_all(store: &Store) -> [KeyId; 3] {
    let keys = store.keys();
    let first = keys.list().await.expect("listed").keys[0].id;
    let [new, destroyed] = [keys.add().await, keys.add().await].map(|id| id.expect("added"));
    assert!(keys.promote(new, true).await.expect("promoted"));
    assert!(keys.destroy(destroyed).await.expect("destroyed"));
    let resealed = keys.reseal(None, 1000).await.expect("resealed");
    assert!(resealed.resealed > 0 && resealed.next.is_none());
    let rewrapped = keys.rewrap().await.expect("rewrapped").rewrapped;
    assert_eq!(rewrapped, [first]);
    [first, new, destroyed]
}

/// Returns the acts on keys, in their order, with the actor and the purpose.
async fn changes(world: &World) -> Vec<(String, String, Option<String>, Option<String>)> {
    let records = world
        .records(slack_installs::audit::Filter::default())
        .await;
    let changes = records.into_iter().filter_map(|record| {
        let detail = record.detail?;
        assert_eq!(record.public.outcome, "done");
        Some((
            record.public.event,
            detail.row,
            detail.actor,
            detail.purpose,
        ))
    });
    changes.filter(|(event, ..)| event != "unwrap").collect()
}

/// Each is in the log when its method returns, so nothing is waited for here.
#[tokio::test]
async fn each_change_of_a_data_key_is_recorded_with_who_and_why_before_it_returns() {
    let world = World::new().await;
    let store = store(&world).await;
    let made = changes(&world).await.len();
    let who = AuditContext::actor("ops").because("ticket 7");
    let [first, new, destroyed] = who.scope(change_all(&store)).await;
    let expected = [
        ("key", new),
        ("key", destroyed),
        ("promote", new),
        ("destroy", destroyed),
        ("reseal", new),
        ("rewrap", first),
    ];
    let expected = expected.map(|(event, id)| {
        let (who, why) = ("ops".to_owned(), "ticket 7".to_owned());
        (event.to_owned(), id.to_string(), Some(who), Some(why))
    });
    assert_eq!(changes(&world).await[made..], expected);
}

#[tokio::test]
async fn a_store_of_an_actor_changes_data_keys_as_this_actor() {
    let world = World::new().await;
    let store = store(&world).await.as_actor("rotation-job");
    let made = changes(&world).await.len();
    change_all(&store).await;
    store.rotate_data_key().await.expect("rotated");
    let changes = changes(&world).await;
    let actors: Vec<_> = changes[made..].iter().map(|it| it.2.as_deref()).collect();
    assert_eq!(actors, [Some("rotation-job"); 8]);
}

#[tokio::test]
async fn a_change_of_a_data_key_that_cannot_be_recorded_fails_in_strict_mode_and_stays() {
    let world = World::new().await;
    let store = store(&world).await;
    let before = store.keys().list().await.expect("listed").keys.len();
    assert!(world.audit.close().await);
    store.keys().add().await.expect_err("it is not recorded");
    let after = store.keys().list().await.expect("listed").keys.len();
    assert_eq!(after, before + 1);
}

/// The record says who did it, and not for whom.
#[tokio::test]
async fn the_erasure_of_a_tenant_is_recorded_with_who_and_why() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    world.store.store(&installation).await.expect("stored");
    let who = AuditContext::actor("ops").because("ticket 8");
    let erased = who.scope(async { world.audit.erase(&workspace_key("T1")).await });
    assert!(erased.await.expect("erased"));
    let changes = changes(&world).await;
    let (event, row, actor, purpose) = changes.last().expect("an act");
    assert_eq!(event, "erase");
    assert_eq!(row.len(), 32);
    let who = (actor.as_deref(), purpose.as_deref());
    assert_eq!(who, (Some("ops"), Some("ticket 8")));
}
