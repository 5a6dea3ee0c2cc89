//! Random concurrent histories, each explained by one call at a time: so no update is lost, no two
//! writers win over one version, and nothing comes back after a `Clear`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use slack_installs::backend::{Backend, Change, Expect, MemoryBackend, Version};

use crate::kit::{Bench, delete, put, row, slots, tenant};
use crate::support::linearizable::{Call, Outcome, Recorder, What};
use crate::support::proxy::{Fate, Request};

/// What one writer does next. Slots are numbers; a version is the one that this writer knows of.
#[derive(Clone, Debug)]
enum Step {
    Clear,
    ClearAndPut(usize),
    ClearIfKnown(usize),
    Create(usize),
    Delete(usize),
    DeleteKnown(usize),
    PutAny(usize),
    PutBoth(usize, usize),
    Read(Vec<usize>),
    Replace(usize),
}

#[test]
fn concurrent_commits_and_reads_can_be_put_in_one_order() {
    let runtime = runtime();
    let bench = runtime.block_on(Bench::new());
    let nth = AtomicUsize::new(0);
    check(40, |plan| {
        let name = nth.fetch_add(1, Ordering::Relaxed);
        runtime.block_on(play(&bench.straight, &format!("app/T{name}"), plan))
    });
}

#[test]
fn so_they_can_where_requests_and_answers_are_lost() {
    let runtime = runtime();
    let bench = runtime.block_on(Bench::new());
    let nth = AtomicUsize::new(0);
    check(25, |plan| {
        let name = nth.fetch_add(1, Ordering::Relaxed);
        bench.proxy.decide(move |request| misfortune(name, request));
        runtime.block_on(play(&bench.proxied, &format!("app/T{name}"), plan))
    });
}

#[test]
fn memory_passes_the_same_check() {
    let runtime = runtime();
    check(40, |plan| {
        runtime.block_on(play(&MemoryBackend::default(), "app/T1", plan))
    });
}

#[test]
fn a_history_that_no_order_explains_is_found() {
    let (first, second) = (row(), row());
    let names = slots(2);
    let create = |row| vec![put(&names[0], row, Expect::Absent)];
    let call = |start, end, what| Call { start, end, what };
    let committed = |changes| What::Commit(changes, Outcome::Committed);
    let found = |version: Option<Version>| What::Read(vec![0], vec![version]);
    let recorder = Recorder::new(tenant("app/T1"), slots(2));
    for (history, explained) in [
        // Two winners.
        (
            vec![
                call(0, 9, committed(create(&first))),
                call(1, 8, committed(create(&second))),
            ],
            false,
        ),
        // A row that comes back after a clear.
        (
            vec![
                call(0, 1, committed(create(&first))),
                call(2, 3, committed(vec![Change::Clear])),
                call(4, 5, found(Some(first.version))),
            ],
            false,
        ),
        // Read while it is cleared, or before.
        (
            vec![
                call(0, 1, committed(create(&first))),
                call(2, 9, committed(vec![Change::Clear])),
                call(3, 4, found(Some(first.version))),
                call(5, 6, found(None)),
            ],
            true,
        ),
        // Gone, and there again, while it is cleared.
        (
            vec![
                call(0, 1, committed(create(&first))),
                call(2, 9, committed(vec![Change::Clear])),
                call(3, 4, found(None)),
                call(5, 6, found(Some(first.version))),
            ],
            false,
        ),
        // A lost answer: it happened later, which is allowed.
        (
            vec![
                call(0, 1, What::Commit(create(&first), Outcome::Unknown)),
                call(2, 3, found(None)),
                call(4, 5, found(Some(first.version))),
            ],
            true,
        ),
        // A conflict for no reason.
        (
            vec![call(0, 1, What::Commit(create(&first), Outcome::Conflict))],
            false,
        ),
    ] {
        assert_eq!(recorder.explains(&history), explained, "{history:?}");
    }
}

/// Lets some writers follow their plans all at once, and looks for an order of what they saw.
async fn play(
    backend: &dyn Backend,
    partition: &str,
    plan: Vec<Vec<Step>>,
) -> Result<(), TestCaseError> {
    let recorder = Arc::new(Recorder::new(tenant(partition), slots(SLOTS)));
    let writers = plan
        .into_iter()
        .map(|steps| follow(backend, &recorder, steps));
    let mut history: Vec<Call> = join_all(writers).await.into_iter().flatten().collect();
    history.sort_by_key(|call| call.start);
    prop_assert!(
        recorder.explains(&history),
        "no order explains {history:#?}"
    );
    Ok(())
}

async fn follow(backend: &dyn Backend, recorder: &Recorder, steps: Vec<Step>) -> Vec<Call> {
    let names = &recorder.slots;
    let mut known: Vec<Option<Version>> = vec![None; names.len()];
    let mut calls = Vec::new();
    for step in steps {
        let expect = |at: usize| known[at].map_or(Expect::Absent, Expect::Version);
        let changes = match step {
            Step::Read(slots) => {
                let call = recorder.read(backend, &slots).await;
                if let Some(Call {
                    what: What::Read(slots, found),
                    ..
                }) = &call
                {
                    slots
                        .iter()
                        .zip(found)
                        .for_each(|(at, version)| known[*at] = *version);
                }
                calls.extend(call);
                continue;
            }
            Step::Clear => vec![Change::Clear],
            Step::ClearAndPut(at) => vec![put(&names[at], &row(), expect(at)), Change::Clear],
            Step::ClearIfKnown(at) => match known[at] {
                Some(version) => vec![delete(&names[at], Some(version)), Change::Clear],
                None => continue,
            },
            Step::Create(at) => vec![put(&names[at], &row(), Expect::Absent)],
            Step::Delete(at) => vec![delete(&names[at], None)],
            Step::DeleteKnown(at) => match known[at] {
                Some(version) => vec![delete(&names[at], Some(version))],
                None => continue,
            },
            Step::PutAny(at) => vec![put(&names[at], &row(), Expect::Any)],
            Step::PutBoth(one, other) if one != other => {
                let put = |at: usize| put(&names[at], &row(), expect(at));
                vec![put(one), put(other)]
            }
            Step::PutBoth(at, _) | Step::Replace(at) => vec![put(&names[at], &row(), expect(at))],
        };
        let call = recorder.commit(backend, changes).await;
        if let What::Commit(changes, Outcome::Committed) = &call.what {
            if changes.iter().any(|change| matches!(change, Change::Clear)) {
                known.fill(None);
            }
            for change in changes {
                if let Change::Put { slot, row, .. } = change {
                    let at = names
                        .iter()
                        .position(|name| name == slot)
                        .expect("one of ours");
                    known[at] = Some(row.version);
                }
            }
        }
        calls.push(call);
    }
    calls
}

fn check(cases: u32, test: impl Fn(Vec<Vec<Step>>) -> Result<(), TestCaseError>) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let slot = || 0..SLOTS;
    let step = prop_oneof![
        1 => Just(Step::Clear),
        1 => slot().prop_map(Step::ClearAndPut),
        1 => slot().prop_map(Step::ClearIfKnown),
        2 => slot().prop_map(Step::Create),
        1 => slot().prop_map(Step::Delete),
        1 => slot().prop_map(Step::DeleteKnown),
        2 => slot().prop_map(Step::PutAny),
        2 => (slot(), slot()).prop_map(|(one, other)| Step::PutBoth(one, other)),
        5 => proptest::sample::subsequence(vec![0, 1, 2], 1..=SLOTS).prop_map(Step::Read),
        3 => slot().prop_map(Step::Replace),
    ];
    let plan = prop::collection::vec(prop::collection::vec(step, 4..=8), 2..=5);
    TestRunner::new(config)
        .run(&plan, test)
        .unwrap_or_else(|failed| panic!("{failed}"));
}

/// What becomes of a request of this history: mostly nothing, the same each time.
fn misfortune(history: usize, request: &Request) -> Fate {
    let throttled = r#"{"__type":"x#ThrottlingException","message":"made up"}"#;
    let broken = r#"{"__type":"x#InternalServerError","message":"made up"}"#;
    match (history * 7 + request.nth * 13) % 41 {
        1 => Fate::Cut,
        2 => Fate::CutAfterwards,
        3 | 4 => Fate::Answer(400, throttled.into()),
        5 => Fate::Answer(500, broken.into()),
        _ => Fate::Pass,
    }
}

async fn join_all<T>(futures: impl Iterator<Item: Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started")
}

const SLOTS: usize = 3;
