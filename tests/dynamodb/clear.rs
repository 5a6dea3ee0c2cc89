//! Clearing a partition, which takes many requests and is one commit: with its process ended, or
//! overtaken, at any of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use slack_installs::backend::{Backend, Change, DynamoDbBackend, Error, Expect, Row};
use tokio::sync::Semaphore;

use crate::kit::{Bench, connect, delete, fill, plant, put, row, rows, slot, slots, tenant};
use crate::support::dynamodb::client;
use crate::support::proxy::{Fate, Proxy};

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
        assert!(standing == 0 || standing == 3, "{standing} of 3 rows stand");
        assert!(standing == 0 || !seen.contains(&0), "rows stand again");
        seen.insert(standing);
        if standing == 0 {
            break;
        }
    }
    clear
        .await
        .expect("it does not panic")
        .expect("the emulator answers");
    assert!(bench.items(&partition).await.is_empty());
    assert_eq!(
        rows(&bench.straight, &tenant("app/T12"), &names[..1]).await,
        [Some(kept)]
    );
}

/// The process that clears ends with its nth request, which is carried out or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_anywhere_leaves_all_rows_or_none() {
    let bench = Arc::new(Bench::new().await);
    let mut cases = tokio::task::JoinSet::new();
    // DynamoDB Local gives up on a lock where too many wait for it.
    let at_once = Arc::new(Semaphore::new(12));
    // The claim; a list; a mark for each of 3 rows; the moment; 3 rows removed; the claim
    // removed. Then nothing is left to go wrong.
    for nth in 1..=11 {
        for fate in [Fate::Cut, Fate::CutAfterwards] {
            for next in 0..4 {
                let (bench, fate) = (Arc::clone(&bench), fate.clone());
                let at_once = Arc::clone(&at_once);
                cases.spawn(async move {
                    let _turn = at_once.acquire().await.expect("nobody closes it");
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
        "what stood, and whether it was told"
    );
}

async fn end_at(bench: &Bench, nth: usize, fate: &Fate, next: usize) -> (&'static str, bool) {
    let name = format!("app/{nth}-{}-{next}", format!("{fate:?}").to_lowercase());
    let partition = tenant(&name);
    let [one, two, three, new] = ["1", "2", "3", "4"].map(slot);
    let names = [one.clone(), two, three, new.clone()];
    let due_at = Some(UNIX_EPOCH + Duration::from_secs(5));
    let before: Vec<Row> = (0..3).map(|_| Row { due_at, ..row() }).collect();
    let puts: Vec<_> = names
        .iter()
        .zip(&before)
        .map(|(s, r)| put(s, r, Expect::Absent))
        .collect();
    bench
        .straight
        .commit(&partition, &puts)
        .await
        .expect("no row stands here");
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

    // Whoever comes next meets what is left behind.
    let standing = |at: usize| found[at].as_ref().map(|row| row.version);
    let expect = |at: usize| standing(at).map_or(Expect::Absent, Expect::Version);
    let over = row();
    let mut expected = found.clone();
    match next {
        0 => {
            let changes = [put(&one, &over, expect(0))];
            bench
                .straight
                .commit(&partition, &changes)
                .await
                .expect("it stands as read");
            expected[0] = Some(over);
        }
        1 => {
            let changes = [put(&one, &over, expect(0)), put(&new, &over, expect(3))];
            bench
                .straight
                .commit(&partition, &changes)
                .await
                .expect("they stand as read");
            (expected[0], expected[3]) = (Some(over.clone()), Some(over));
        }
        2 => {
            let changes = [put(&one, &over, Expect::Version(row().version))];
            let refused = bench.straight.commit(&partition, &changes).await;
            assert!(
                matches!(refused, Err(Error::Conflict)),
                "{name}: {refused:?}"
            );
            let changes = [delete(&one, None)];
            bench
                .straight
                .commit(&partition, &changes)
                .await
                .expect("whatever stands");
            expected[0] = None;
        }
        _ => {
            let changes = [Change::Clear];
            bench
                .straight
                .commit(&partition, &changes)
                .await
                .expect("whatever stands");
            expected.fill(None);
            assert!(
                bench.items(&partition).await.is_empty(),
                "{name}: nothing is left behind"
            );
        }
    }
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        expected,
        "{name}: next is {next}"
    );

    // And a scan tells no other story, and removes what is cleared.
    let listed = listed(&bench.straight, &name).await;
    assert_eq!(
        listed,
        expected.iter().flatten().count(),
        "{name}: rows of a scan"
    );
    if happened {
        let items = bench.items(&partition).await;
        assert_eq!(items.len(), listed, "{name}: a scan removes {items:?}");
    }
    let due = bench
        .straight
        .due(UNIX_EPOCH + Duration::from_secs(5), usize::MAX)
        .await;
    let due = due.expect("the emulator answers");
    let due = due
        .iter()
        .filter(|(key, _)| key.partition == partition)
        .count();
    let expected = expected
        .iter()
        .flatten()
        .filter(|row| row.due_at.is_some())
        .count();
    assert_eq!(due, expected, "{name}: rows that are due");
    (if happened { "after" } else { "before" }, outcome.is_ok())
}

/// A mark that arrives after somebody else took the claim and cleared the partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_mark_revives_no_row() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(2));
    fill(&bench.straight, &partition, &names).await;

    // The first marks nothing for now.
    let [mark, moment] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let (held, held_too) = (Arc::clone(&mark), Arc::clone(&moment));
    let reached = Arc::new(Semaphore::new(0));
    let announce = Arc::clone(&reached);
    bench.proxy.decide(move |request| {
        let settles = String::from_utf8_lossy(&request.body).contains("clear_done");
        match (request.operation.as_str(), settles) {
            ("UpdateItem", false) => {
                announce.add_permits(1);
                Fate::Wait(Arc::clone(&held))
            }
            ("UpdateItem", true) => {
                announce.add_permits(1);
                Fate::Wait(Arc::clone(&held_too))
            }
            _ => Fate::Pass,
        }
    });
    let first = clear_in_background(&bench.proxied, &partition);
    once(&reached, 2).await;

    // The second takes the claim away, clears, and ends before it removes anything.
    let proxy = Proxy::start(&bench.emulator.url).await;
    let second = connect(&client(&proxy.url), &bench.table).await;
    let settled = std::sync::atomic::AtomicBool::new(false);
    proxy.decide(move |request| {
        let settles = String::from_utf8_lossy(&request.body).contains("SET clear_done");
        match settled.fetch_or(settles, std::sync::atomic::Ordering::Relaxed) {
            true => Fate::Cut,
            false => Fate::Pass,
        }
    });
    second
        .commit(&partition, &[Change::Clear])
        .await
        .expect("it happened");
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        [None, None]
    );
    assert_eq!(
        bench.items(&partition).await.len(),
        3,
        "two rows and a claim are left behind"
    );

    // Now the marks of the first arrive.
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
        .expect("it starts over");
    assert!(bench.items(&partition).await.is_empty());
}

/// A row that is made while another process clears, and is too slow over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_taken_away_clears_nothing_until_it_starts_over() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(3));
    fill(&bench.straight, &partition, &names[..2]).await;
    let (moment, reached) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (held, announce) = (Arc::clone(&moment), Arc::clone(&reached));
    let claims = std::sync::atomic::AtomicUsize::new(0);
    bench.proxy.decide(move |request| {
        let settles = String::from_utf8_lossy(&request.body).contains("SET clear_done");
        let claims_again = request.operation == "PutItem"
            && claims.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        match settles || claims_again {
            true => {
                announce.add_permits(1);
                Fate::Wait(Arc::clone(&held))
            }
            false => Fate::Pass,
        }
    });
    let clear = clear_in_background(&bench.proxied, &partition);
    once(&reached, 1).await;
    plant(&bench.straight, &partition, &names[2]).await;

    moment.add_permits(1);
    once(&reached, 1).await;
    let found = rows(&bench.straight, &partition, &names).await;
    assert_eq!(
        found.iter().flatten().count(),
        3,
        "the one that was made, and all others"
    );
    moment.add_permits(1);
    // The settling of the second round is held too.
    once(&reached, 1).await;
    moment.add_permits(1);
    clear
        .await
        .expect("it does not panic")
        .expect("it starts over");
    assert_eq!(
        rows(&bench.straight, &partition, &names).await,
        [None, None, None]
    );
    assert!(bench.items(&partition).await.is_empty());
}

/// Waits until so many requests are held.
async fn once(reached: &Semaphore, requests: u32) {
    let held = tokio::time::timeout(LONG, reached.acquire_many(requests)).await;
    held.expect("requests are held")
        .expect("nobody closes it")
        .forget();
}

fn clear_in_background(
    backend: &DynamoDbBackend,
    partition: &slack_installs::backend::Partition,
) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (backend, partition) = (backend.clone(), partition.clone());
    tokio::spawn(async move { backend.commit(&partition, &[Change::Clear]).await })
}

/// How many rows of this partition a scan finds.
async fn listed(backend: &dyn Backend, partition: &str) -> usize {
    let (mut found, mut from) = (0, None);
    loop {
        let page = backend.scan(from, 7).await.expect("the emulator answers");
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

/// Nothing takes that long unless it never happens.
const LONG: Duration = Duration::from_secs(120);
