//! Clearing a partition: one atomic commit that takes many requests. In these tests the clearing
//! process ends, or another process overtakes it, at any of those requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use slack_installs::backend::{
    Backend, Change, DynamoDbBackend, Error, Expect, Partition, Row, Scope, Slot,
};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::kit::{Bench, connect, delete, fill, plant, put, row, rows, slot, slots, tenant};
use crate::support::dynamodb::client;
use crate::support::proxy::{Fate, Proxy, Request};
use crate::support::queues::{refresh_at, refreshes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_rows_are_gone_at_one_moment() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(300));
    fill(&bench.straight, &partition, &names).await;
    let kept = plant(&bench.straight, &tenant("app/T12"), &names[0]).await;
    let watched = [names[0].clone(), names[150].clone(), names[299].clone()];
    let clear = tokio::spawn({
        let (backend, partition) = (bench.straight.clone(), partition.clone());
        async move { backend.commit(&partition, &[Change::Clear]).await }
    });
    let mut seen = BTreeSet::new();
    loop {
        let found = rows(&bench.straight, &partition, &watched).await;
        let standing = found.iter().flatten().count();
        assert!(standing == 0 || standing == 3, "{standing} of 3 rows exist");
        assert!(standing == 0 || !seen.contains(&0), "rows reappear");
        seen.insert(standing);
        if standing == 0 {
            break;
        }
    }
    clear
        .await
        .expect("it does not panic")
        .expect("the emulator responds");
    assert!(bench.items(&partition).await.is_empty());
    assert_eq!(
        rows(&bench.straight, &tenant("app/T12"), &names[..1]).await,
        [Some(kept)]
    );
}

/// The clearing process ends with its nth request, which is carried out or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_anywhere_leaves_all_rows_or_none() {
    let bench = Arc::new(Bench::new().await);
    let mut cases = JoinSet::new();
    // DynamoDB Local fails with an error if too many requests wait for one lock.
    let at_once = Arc::new(Semaphore::new(12));
    // The requests are: put the claim, list the rows, mark each of 3 rows, settle the claim, delete
    // 3 rows, delete the claim. A fault after these has no effect.
    for nth in 1..=11 {
        for fate in [Fate::Cut, Fate::CutAfterwards] {
            for next in 0..4 {
                let (bench, fate) = (Arc::clone(&bench), fate.clone());
                let at_once = Arc::clone(&at_once);
                cases.spawn(async move {
                    let _turn = at_once.acquire().await.expect("it stays open");
                    end_at(&bench, nth, &fate, next).await
                });
            }
        }
    }
    let mut outcomes = BTreeSet::new();
    while let Some(case) = cases.join_next().await {
        outcomes.insert(case.expect("the case passes"));
    }
    let all = [("after", true), ("after", false), ("before", false)];
    assert_eq!(
        outcomes,
        BTreeSet::from(all),
        "which rows were stored, and whether the commit succeeded"
    );
}

async fn end_at(bench: &Bench, nth: usize, fate: &Fate, next: usize) -> (&'static str, bool) {
    let name = format!("app/{nth}-{}-{next}", format!("{fate:?}").to_lowercase());
    let partition = tenant(&name);
    let [one, two, three, new] = ["1", "2", "3", "4"].map(slot);
    let names = [one.clone(), two, three, new.clone()];
    let due = refresh_at(UNIX_EPOCH + Duration::from_secs(5));
    let before: Vec<Row> = (0..3).map(|_| Row { due, ..row() }).collect();
    let puts: Vec<_> = names
        .iter()
        .zip(&before)
        .map(|(s, r)| put(s, r, Expect::Absent))
        .collect();
    bench
        .straight
        .commit(&partition, &puts)
        .await
        .expect("the slot is empty");
    let put_by_clear = row();
    let before: Vec<_> = before.into_iter().map(Some).chain([None]).collect();
    let after = vec![None, None, None, Some(put_by_clear.clone())];

    let proxy = Proxy::start(&bench.emulator.url).await;
    let ending = connect(&client(&proxy.url), &bench.table).await;
    let fate = fate.clone();
    proxy.decide(move |request| match request.nth.cmp(&nth) {
        std::cmp::Ordering::Less => Fate::Pass,
        std::cmp::Ordering::Equal => fate.clone(),
        std::cmp::Ordering::Greater => Fate::Cut,
    });
    let outcome = ending
        .commit(
            &partition,
            &[Change::Clear, put(&new, &put_by_clear, Expect::Absent)],
        )
        .await;
    let found = rows(&bench.straight, &partition, &names).await;
    let happened = found == after;
    assert!(
        happened || found == before,
        "{name}: {outcome:?}, and {found:?}"
    );
    match &outcome {
        Ok(()) => assert!(happened, "{name}: it succeeded"),
        Err(Error::Unavailable(_)) => {}
        Err(error) => panic!("{name}: {error:?}"),
    }

    let expected = commit_after(bench, &partition, &names, next, &found).await;
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        expected,
        "{name}: next is {next}"
    );

    assert_listed(bench, &partition, &name, &expected, happened).await;
    (if happened { "after" } else { "before" }, outcome.is_ok())
}

/// Commits what comes next, and returns the rows that must exist afterwards. The commit finds what
/// the ended process left behind.
async fn commit_after(
    bench: &Bench,
    partition: &Partition,
    [one, .., new]: &[Slot; 4],
    next: usize,
    found: &[Option<Row>],
) -> Vec<Option<Row>> {
    let standing = |at: usize| found[at].as_ref().map(|row| row.version);
    let expect = |at: usize| standing(at).map_or(Expect::Absent, Expect::Version);
    let over = row();
    let mut expected = found.to_vec();
    match next {
        0 => {
            let changes = [put(one, &over, expect(0))];
            bench
                .straight
                .commit(partition, &changes)
                .await
                .expect("no row changed");
            expected[0] = Some(over);
        }
        1 => {
            let changes = [put(one, &over, expect(0)), put(new, &over, expect(3))];
            bench
                .straight
                .commit(partition, &changes)
                .await
                .expect("no row changed");
            (expected[0], expected[3]) = (Some(over.clone()), Some(over));
        }
        2 => {
            let changes = [put(one, &over, Expect::Version(row().version))];
            let refused = bench.straight.commit(partition, &changes).await;
            assert!(
                matches!(refused, Err(Error::Conflict)),
                "{partition:?}: {refused:?}"
            );
            let changes = [delete(one, None)];
            bench
                .straight
                .commit(partition, &changes)
                .await
                .expect("unconditional");
            expected[0] = None;
        }
        _ => {
            let changes = [Change::Clear];
            bench
                .straight
                .commit(partition, &changes)
                .await
                .expect("unconditional");
            expected.fill(None);
            assert!(
                bench.items(partition).await.is_empty(),
                "{partition:?}: no item is left"
            );
        }
    }
    expected
}

/// Asserts that a scan and a queue have the same rows. A scan deletes the cleared ones.
async fn assert_listed(
    bench: &Bench,
    partition: &Partition,
    name: &str,
    expected: &[Option<Row>],
    is_cleared: bool,
) {
    let listed = listed(&bench.straight, name).await;
    assert_eq!(
        listed,
        expected.iter().flatten().count(),
        "{name}: rows of a scan"
    );
    if is_cleared {
        let items = bench.items(partition).await;
        assert_eq!(items.len(), listed, "{name}: a scan removes {items:?}");
    }
    let due = bench
        .straight
        .due(
            &refreshes(),
            UNIX_EPOCH + Duration::from_secs(5),
            None,
            usize::MAX,
        )
        .await;
    let due = due.expect("the emulator responds");
    let due = due.rows.iter();
    let due = due.filter(|(key, _)| key.partition == *partition).count();
    let expected = expected
        .iter()
        .flatten()
        .filter(|row| row.due.is_some())
        .count();
    assert_eq!(due, expected, "{name}: rows that are due");
}

/// A mark arrives after another process took over the claim and cleared the partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_mark_revives_no_row() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(2));
    fill(&bench.straight, &partition, &names).await;

    // The first process's marks are held for now.
    let [mark, moment] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let (held, held_too) = (Arc::clone(&mark), Arc::clone(&moment));
    let reached = Arc::new(Semaphore::new(0));
    let announce = Arc::clone(&reached);
    bench.proxy.decide(move |request| {
        let gate = if settles(request) {
            &held_too
        } else if request.operation == "UpdateItem" {
            &held
        } else {
            return Fate::Pass;
        };
        announce.add_permits(1);
        Fate::Wait(Arc::clone(gate))
    });
    let first = commit_in_background(&bench.proxied, &partition, vec![Change::Clear]);
    once(&reached, 2).await;

    // The second process takes over the claim, clears, and ends before it deletes any item.
    let proxy = Proxy::start(&bench.emulator.url).await;
    let second = connect(&client(&proxy.url), &bench.table).await;
    end_when(&proxy, settles, Fate::Pass);
    second
        .commit(&partition, &[Change::Clear])
        .await
        .expect("it succeeds");
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        [None, None]
    );
    assert_eq!(
        bench.items(&partition).await.len(),
        3,
        "two rows and a claim are left behind"
    );

    // The first process's marks arrive now.
    mark.add_permits(2);
    once(&reached, 1).await;
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        [None, None]
    );
    moment.add_permits(1);
    first
        .await
        .expect("it does not panic")
        .expect("it is retried");
    assert!(bench.items(&partition).await.is_empty());
}

/// A row is created while another process clears too slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_taken_away_clears_nothing_until_it_starts_over() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(3));
    fill(&bench.straight, &partition, &names[..2]).await;
    let claims = AtomicUsize::new(0);
    let held = hold(&bench, move |request| {
        let claim = request.operation == "PutItem";
        settles(request) || claim && claims.fetch_add(1, Ordering::Relaxed) > 0
    });
    let clear = commit_in_background(&bench.proxied, &partition, vec![Change::Clear]);
    held.reached(1).await;
    plant(&bench.straight, &partition, &names[2]).await;

    held.release(1);
    held.reached(1).await;
    let found = rows(&bench.straight, &partition, &names).await;
    assert_eq!(
        found.iter().flatten().count(),
        3,
        "the new row and all others"
    );
    held.release(100);
    clear
        .await
        .expect("it does not panic")
        .expect("it is retried");
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        [None, None, None]
    );
    assert!(bench.items(&partition).await.is_empty());
}

/// A row is replaced or deleted after it was listed and before it was marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_moves_before_it_is_marked_is_looked_at_again() {
    let bench = Bench::new().await;
    let [one, two] = ["1", "2"].map(slot);
    for replaced in [true, false] {
        let partition = tenant(&format!("app/{replaced}"));
        let guard = plant(&bench.straight, &partition, &one).await;
        let other = plant(&bench.straight, &partition, &two).await;
        let held = hold(&bench, |request| request.operation == "UpdateItem");
        let changes = vec![delete(&one, Some(guard.version)), Change::Clear];
        let clear = commit_in_background(&bench.proxied, &partition, changes);
        held.reached(2).await;

        let over = row();
        let change = if replaced {
            put(&one, &over, Expect::Version(guard.version))
        } else {
            delete(&one, Some(guard.version))
        };
        let moved = bench.straight.commit(&partition, &[change]).await;
        moved.expect("nothing is marked yet");
        held.release(100);
        let refused = clear.await.expect("it does not panic");
        assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
        let found = rows(&bench.straight, &partition, &[one.clone(), two.clone()]).await;
        assert_eq!(found, [replaced.then_some(over), Some(other)]);
    }
}

/// A row is deleted unconditionally after it was marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_row_stays_until_the_claim_is_settled_or_gone() {
    let bench = Bench::new().await;
    let (partition, [one, two]) = (tenant("app/T1"), ["1", "2"].map(slot));
    let guard = plant(&bench.straight, &partition, &one).await;
    let other = plant(&bench.straight, &partition, &two).await;
    let held = hold(&bench, settles);
    let changes = vec![delete(&one, Some(guard.version)), Change::Clear];
    let clear = commit_in_background(&bench.proxied, &partition, changes);
    held.reached(1).await;

    let changes = [delete(&one, None)];
    bench
        .straight
        .commit(&partition, &changes)
        .await
        .expect("unconditional");
    let names = [one, two];
    let found = rows(&bench.straight, &partition, &names).await;
    assert_eq!(found, [None, Some(other)]);
    held.release(100);
    let refused = clear.await.expect("it does not panic");
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    assert_eq!(rows(&bench.straight, &partition, &names).await, found);
}

/// A row has the mark of a process that gave up. One process replaces the row, and another clears
/// it just before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_cleared_is_not_replaced() {
    let bench = Bench::new().await;
    let (partition, one) = (tenant("app/T1"), slot("1"));
    let standing = plant(&bench.straight, &partition, &one).await;
    let proxy = Proxy::start(&bench.emulator.url).await;
    let ending = connect(&client(&proxy.url), &bench.table).await;
    end_when(&proxy, settles, Fate::Cut);
    let gave_up = ending.commit(&partition, &[Change::Clear]).await;
    assert!(matches!(gave_up, Err(Error::Unavailable(_))), "{gave_up:?}");
    plant(&bench.straight, &partition, &slot("2")).await;

    let held = hold(&bench, |request| request.operation == "TransactWriteItems");
    let changes = vec![put(&one, &row(), Expect::Version(standing.version))];
    let replace = commit_in_background(&bench.proxied, &partition, changes);
    held.reached(1).await;
    end_when(&proxy, settles, Fate::Pass);
    ending
        .commit(&partition, &[Change::Clear])
        .await
        .expect("it succeeds");
    held.release(100);
    let refused = replace.await.expect("it does not panic");
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    assert_eq!(rows(&bench.straight, &partition, &[one]).await, [None]);
}

/// Requests that are held at a proxy.
struct Held {
    gate: Arc<Semaphore>,
    reached: Arc<Semaphore>,
}

impl Held {
    async fn reached(&self, requests: u32) {
        once(&self.reached, requests).await;
    }

    fn release(&self, requests: usize) {
        self.gate.add_permits(requests);
    }
}

/// Holds every request that `wanted` accepts from now on.
fn hold(bench: &Bench, wanted: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Held {
    let [gate, reached] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let (closed, announce) = (Arc::clone(&gate), Arc::clone(&reached));
    bench.proxy.decide(move |request| {
        if wanted(request) {
            announce.add_permits(1);
            Fate::Wait(Arc::clone(&closed))
        } else {
            Fate::Pass
        }
    });
    Held { gate, reached }
}

/// Applies `fate` to the first request that `last` accepts, and cuts every later request.
fn end_when(proxy: &Proxy, last: fn(&Request) -> bool, fate: Fate) {
    let ended = AtomicBool::new(false);
    proxy.decide(move |request| {
        let is_last = last(request);
        if ended.fetch_or(is_last, Ordering::Relaxed) {
            Fate::Cut
        } else if is_last {
            fate.clone()
        } else {
            Fate::Pass
        }
    });
}

/// Returns whether this request settles the claim. That is the moment when the rows are cleared.
fn settles(request: &Request) -> bool {
    String::from_utf8_lossy(&request.body).contains("SET clear_done")
}

/// Waits until this many more requests are held.
async fn once(reached: &Semaphore, requests: u32) {
    let held = tokio::time::timeout(LONG, reached.acquire_many(requests)).await;
    held.expect("requests are held")
        .expect("it stays open")
        .forget();
}

fn commit_in_background(
    backend: &DynamoDbBackend,
    partition: &Partition,
    changes: Vec<Change>,
) -> JoinHandle<Result<(), Error>> {
    let (backend, partition) = (backend.clone(), partition.clone());
    tokio::spawn(async move { backend.commit(&partition, &changes).await })
}

/// Returns the number of rows of this partition that a scan finds.
async fn listed(backend: &dyn Backend, partition: &str) -> usize {
    let (mut found, mut from) = (0, None);
    loop {
        let page = backend
            .scan(&Scope::Everything, from, 7)
            .await
            .expect("the emulator responds");
        found += page
            .rows
            .iter()
            .filter(|(key, _)| key.partition.as_str() == partition)
            .count();
        from = page.next;
        if from.is_none() {
            return found;
        }
    }
}

/// Longer than any expected wait. A wait that takes this long would never end.
const LONG: Duration = Duration::from_secs(120);

/// The tenant may never be read or scanned again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_purge_left_behind_is_removed_when_it_would_be_due() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), ["1", "2"].map(slot));
    let due = Row {
        due: refresh_at(UNIX_EPOCH + Duration::from_secs(5)),
        ..row()
    };
    let puts = [
        put(&names[0], &due, Expect::Absent),
        put(&names[1], &row(), Expect::Absent),
    ];
    bench
        .straight
        .commit(&partition, &puts)
        .await
        .expect("new rows");
    end_when(&bench.proxy, settles, Fate::CutAfterwards);
    let ended = bench.proxied.commit(&partition, &[Change::Clear]).await;
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    assert_eq!(
        bench.items(&partition).await.len(),
        3,
        "two rows and the claim"
    );

    let now = UNIX_EPOCH + Duration::from_secs(10);
    let due = bench.straight.due(&refreshes(), now, None, 10).await;
    let due = due.expect("the emulator responds").rows;
    assert!(due.is_empty(), "{due:?}");
    assert!(bench.items(&partition).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_rows_are_skipped_and_named_and_a_clear_deletes_them() {
    let bench = Bench::new().await;
    let partition = tenant("app/T1");
    for (name, keep) in [("bot", true), ("malformed", false)] {
        let due = Row {
            due: refresh_at(UNIX_EPOCH + Duration::from_secs(5)),
            ..row()
        };
        let puts = [put(&slot(name), &due, Expect::Absent)];
        let put = bench.straight.commit(&partition, &puts).await;
        put.expect("a new row");
        if !keep {
            let update = bench.emulator.client().update_item();
            update
                .table_name(&bench.table)
                .key("pk", AttributeValue::S(partition.to_string()))
                .key("sk", AttributeValue::S(name.into()))
                .update_expression("REMOVE sealed")
                .send()
                .await
                .expect("the emulator responds");
        }
    }
    let now = UNIX_EPOCH + Duration::from_secs(10);
    let due = bench.straight.due(&refreshes(), now, None, 10).await;
    let due = due.expect("the emulator responds");
    let slots: Vec<_> = due.rows.iter().map(|(key, _)| key.slot.as_str()).collect();
    assert_eq!(slots, ["bot"]);
    assert_eq!(due.malformed, ["app/T1 malformed"]);
    for scope in [Scope::Everything, Scope::Partition(partition.clone())] {
        let page = bench.straight.scan(&scope, None, 100).await;
        let page = page.expect("the emulator responds");
        assert_eq!(
            (page.rows.len(), page.malformed),
            (1, vec!["app/T1 malformed".into()])
        );
    }
    let update = bench.emulator.client().update_item();
    update
        .table_name(&bench.table)
        .key("pk", AttributeValue::S(partition.to_string()))
        .key("sk", AttributeValue::S("malformed".into()))
        .update_expression("REMOVE version")
        .send()
        .await
        .expect("the emulator responds");
    let cleared = bench.straight.commit(&partition, &[Change::Clear]).await;
    cleared.expect("a malformed row is no obstacle");
    assert!(bench.items(&partition).await.is_empty());
}
