//! Random concurrent histories, each of which must be explained by a sequential order of its calls.
//! Then no update is lost, no two writers succeed over the same version, and no row reappears after
//! a `Clear`.

use slack_installs::backend::{Change, Expect};

use crate::kit::{Bench, put, row, tenant};
use crate::support::history::{self, Answer, Call, Operation, Standing, explains, slots};
use crate::support::proxy::{Fate, Request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_and_reads_can_be_put_in_one_order() {
    let bench = Bench::new().await;
    for seed in 0..40 {
        history::check(&bench.straight, &tenant(&format!("app/T{seed}")), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_can_where_requests_and_answers_are_lost() {
    let bench = Bench::new().await;
    for seed in 0..12 {
        bench.proxy.decide(move |request| misfortune(seed, request));
        history::check(&bench.proxied, &tenant(&format!("app/T{seed}")), seed).await;
    }
}

#[test]
fn a_history_that_no_order_explains_is_found() {
    let (first, second) = (row(), row());
    let slot = slots().remove(0);
    let call = |begun, ended, operation, answer| Call {
        begun,
        ended,
        operation,
        answer,
    };
    let create = |row| Operation::Commit(vec![put(&slot, row, Expect::Absent)]);
    let made = |begun, ended, row| call(begun, ended, create(row), Answer::Committed(true));
    let cleared = |begun, ended| {
        let clear = Operation::Commit(vec![Change::Clear]);
        call(begun, ended, clear, Answer::Committed(true))
    };
    let found = |begun, ended, is_there: bool| {
        let seen = is_there.then(|| (slot.clone(), first.version));
        let seen = Answer::Standing(seen.into_iter().collect::<Standing>());
        call(begun, ended, Operation::Read(vec![slot.clone()]), seen)
    };
    for (history, is_explained) in [
        // Two writers succeed over the same version.
        (vec![made(0, 9, &first), made(1, 8, &second)], false),
        // A row reappears after a clear.
        (
            vec![made(0, 1, &first), cleared(2, 3), found(4, 5, true)],
            false,
        ),
        // Reads during the clear: one before its effect, and one after it.
        (
            vec![
                made(0, 1, &first),
                cleared(2, 9),
                found(3, 4, true),
                found(5, 6, false),
            ],
            true,
        ),
        // A row disappears and reappears during one clear.
        (
            vec![
                made(0, 1, &first),
                cleared(2, 9),
                found(3, 4, false),
                found(5, 6, true),
            ],
            false,
        ),
        // A commit whose response is lost may be applied later.
        (
            vec![
                call(0, u64::MAX, create(&first), Answer::Lost),
                found(2, 3, false),
                found(4, 5, true),
            ],
            true,
        ),
        // A conflict without a cause.
        (
            vec![call(0, 1, create(&first), Answer::Committed(false))],
            false,
        ),
    ] {
        assert_eq!(explains(&history), is_explained, "{history:?}");
    }
}

/// Returns the fate of a request of this history. It is deterministic, and usually the request
/// passes.
fn misfortune(history: u64, request: &Request) -> Fate {
    let throttled = r#"{"__type":"x#ThrottlingException","message":"made up"}"#;
    let broken = r#"{"__type":"x#InternalServerError","message":"made up"}"#;
    match (history * 7 + request.nth as u64 * 13) % 41 {
        1 => Fate::Cut,
        2 => Fate::CutAfterwards,
        3 | 4 => Fate::Answer(400, throttled.into()),
        5 => Fate::Answer(500, broken.into()),
        _ => Fate::Pass,
    }
}
