//! The rows by which processes say which data keys they have.

use slack_installs::backend::{Key, Metadata, Row, Sealed, Slot};
use slack_installs::{KeyChangeError, KeyId};

use super::isolation::Fault;
use super::phases::{World, primary_of, work};
use super::*;

/// A process that cannot unwrap the key that was added, and an operator. The key is old enough to
/// be promoted.
async fn with_one_that_lacks() -> (World, Store, Remote, Store, KeyId) {
    let (world, provider) = (World::new(), Remote::new());
    let operator = world.process().await;
    let lacking = world.process_by(provider.clone()).await;
    install(&operator, "T1").await;
    let new = operator.keys().add().await.expect("added");
    provider.set_of(new, Fault::Refused);
    work(&[&lacking, &operator], 16).await;
    (world, lacking, provider, operator, new)
}

async fn lacking(operator: &Store, new: KeyId) -> Vec<String> {
    match operator.keys().promote(new, false).await {
        Ok(true) => Vec::new(),
        Err(KeyChangeError::NotEverywhere { processes }) => processes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_promoted_while_a_process_that_runs_has_not_unwrapped_it() {
    let (world, process, provider, operator, new) = with_one_that_lacks().await;
    let listed = operator.keys().list().await.expect("available").processes;
    assert_eq!(listed.len(), 2);
    let without = listed.iter().filter(|process| !process.keys.contains(&new));
    let without: Vec<_> = without.map(|process| process.id.clone()).collect();
    assert_eq!(without.len(), 1);
    assert_eq!(lacking(&operator, new).await, without);
    assert_ne!(primary_of(&operator).await, new);

    // The mistake is corrected.
    provider.set_of(new, None);
    work(&[&process, &operator], 5).await;
    assert_eq!(lacking(&operator, new).await, [""; 0]);
    assert_eq!(primary_of(&world.process().await).await, new);
}

#[tokio::test(start_paused = true)]
async fn force_promotes_a_key_that_a_process_lacks_and_that_process_overwrites_nothing() {
    let (world, process, provider, operator, new) = with_one_that_lacks().await;
    assert!(operator.keys().promote(new, true).await.expect("promoted"));
    install(&operator, "T1").await;
    let rows = world.db.rows().await;
    let fetched = process.fetch(&workspace_key("T1"), None).await;
    assert_matches!(fetched, Err(Error::Key(_)));
    let again = in_workspace("T1").with_bot("xoxb-again");
    assert_matches!(process.store(&again).await, Err(Error::Key(_)));
    assert_eq!(world.db.rows().await, rows);
    provider.set_of(new, None);
    advance(Duration::from_secs(1)).await;
    assert!(reads(&process, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_not_heard_of_for_15_minutes_delays_no_promotion() {
    let (world, process, _, operator, new) = with_one_that_lacks().await;
    drop(process);
    let seen = operator.keys().list().await.expect("available").processes;
    let dead = seen.iter().find(|process| !process.keys.contains(&new));
    let dead = dead.expect("it ran").clone();
    let seen_at = dead.seen_at.duration_since(noon()).expect("later");
    let now = world.clock().now().duration_since(noon()).expect("later");
    let left = seen_at + Duration::from_secs(15 * 60 - 1) - now;
    // The operator works on, so its own row is young.
    work(
        &[&operator],
        u32::try_from(left.as_secs() / 60).expect("small"),
    )
    .await;
    advance(Duration::from_secs(left.as_secs() % 60)).await;
    // The row has whole seconds.
    assert_eq!(lacking(&operator, new).await, [dead.id]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(lacking(&operator, new).await, [""; 0]);
    work(&[&operator], 6).await;
    assert_eq!(world.db.processes().await.len(), 1, "its row was deleted");
}

#[tokio::test(start_paused = true)]
async fn a_process_has_one_row_which_names_the_keys_that_it_has_in_memory() {
    let world = World::new();
    let store = world.process().await;
    install(&store, "T1").await;
    assert_eq!(world.db.processes().await, [], "it has just started");
    work(&[&store], 30).await;
    let [row] = &world.db.processes().await[..] else {
        panic!("one row")
    };
    assert_eq!(row.1.due, None);
    let old = primary_of(&store).await;
    let listed = store.keys().list().await.expect("available").processes;
    assert_eq!(listed[0].keys, [old]);
    // The rows of T1 are still under the old key, which it needs for reading.
    store.rotate_data_key().await.expect("rotated");
    work(&[&store], 6).await;
    let listed = store.keys().list().await.expect("available").processes;
    assert_eq!(listed.len(), 1);
    let new = primary_of(&store).await;
    assert!(listed[0].keys.contains(&old) && listed[0].keys.contains(&new));
}

/// Whoever writes the database can hide a process, but cannot make it look ready.
#[tokio::test(start_paused = true)]
async fn a_process_row_that_was_changed_copied_or_swapped_counts_as_a_process_without_keys() {
    let (world, _, _, operator, new) = with_one_that_lacks().await;
    let rows = world.db.processes().await;
    let has_new = |row: &Row| row.metadata.as_str().contains(&new.to_string());
    let ready = rows
        .iter()
        .find(|(_, row)| has_new(row))
        .expect("the operator");
    let unready = rows
        .iter()
        .find(|(_, row)| !has_new(row))
        .expect("the other");
    let id = |key: &Key| {
        let id = key.slot.as_str().strip_prefix("process/");
        id.expect("a process").to_owned()
    };
    let mut forged = Vec::new();
    // The row of a ready process in the place of the other one, whole and by parts.
    let (old, other) = (&unready.1, &ready.1);
    forged.push(other.clone());
    forged.push(Row {
        version: old.version,
        ..other.clone()
    });
    forged.push(Row {
        metadata: other.metadata.clone(),
        ..old.clone()
    });
    forged.push(Row {
        sealed: other.sealed.clone(),
        metadata: other.metadata.clone(),
        ..old.clone()
    });
    for text in ["", "{}", r#"{"v":2,"kind":"process"}"#] {
        forged.push(Row {
            metadata: Metadata::new(text),
            ..old.clone()
        });
    }
    let bytes = old.sealed.as_bytes();
    for byte in 0..bytes.len() {
        let mut bytes = bytes.to_vec();
        bytes[byte] ^= 1;
        forged.push(Row {
            sealed: Sealed::from_stored(bytes),
            ..old.clone()
        });
    }
    for row in forged {
        world.db.overwrite(&unready.0, row.clone()).await;
        assert_eq!(lacking(&operator, new).await, [id(&unready.0)], "{row:?}");
    }
    world.db.overwrite(&unready.0, unready.1.clone()).await;
    // A process that does not exist.
    let planted = Key {
        slot: Slot::new("process/planted").expect("a name"),
        ..unready.0.clone()
    };
    world.db.overwrite(&planted, other.clone()).await;
    assert_eq!(lacking(&operator, new).await.len(), 2);
    world.db.remove(&planted).await;
    // Also a process that is ready is not, once its row is another one's.
    world.db.overwrite(&ready.0, unready.1.clone()).await;
    world.db.overwrite(&unready.0, ready.1.clone()).await;
    assert_eq!(lacking(&operator, new).await.len(), 2);
    for (key, row) in [ready, unready] {
        world.db.overwrite(key, row.clone()).await;
    }

    // What is not prevented: a row that was deleted hides its process, until it writes the next.
    world.db.remove(&unready.0).await;
    assert_eq!(lacking(&operator, new).await, [""; 0]);
}

/// A row from before is of an earlier time.
#[tokio::test(start_paused = true)]
async fn a_process_row_that_was_replayed_is_of_a_dead_process_or_lacks_the_newer_key() {
    let world = World::new();
    let store = world.process().await;
    install(&store, "T1").await;
    work(&[&store], 5).await;
    let [(key, before)] = &world.db.processes().await[..] else {
        panic!("one row")
    };
    let new = store.keys().add().await.expect("added");
    work(&[&store], 5).await;
    world.db.overwrite(key, before.clone()).await;
    let processes = store.keys().list().await.expect("available").processes;
    assert!(processes.iter().all(|process| !process.keys.contains(&new)));
    // The process itself repairs it with its next row.
    work(&[&store], 5).await;
    let processes = store.keys().list().await.expect("available").processes;
    assert!(processes[0].keys.contains(&new));
    work(&[&store], 6).await;
    world.db.overwrite(key, before.clone()).await;
    let processes = store.keys().list().await.expect("available").processes;
    assert_eq!(processes, []);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_does_not_respond_does_not_look_like_no_processes() {
    let world = World::new();
    let backend = Unreliable::new(Arc::clone(&world.db.backend));
    let operator = world.process_over(backend.clone(), local()).await;
    let new = operator.keys().add().await.expect("added");
    advance(Duration::from_secs(16 * 60)).await;
    backend.set_down(true);
    let promoted = operator.keys().promote(new, false).await;
    assert_matches!(promoted, Err(KeyChangeError::Keyring(_)));
    assert!(operator.keys().list().await.is_err());
    backend.set_down(false);
    assert_ne!(primary_of(&operator).await, new);
}
