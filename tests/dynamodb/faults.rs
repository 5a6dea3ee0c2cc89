//! Faults that AWS produces occasionally and that no emulator produces. Each time the commit was
//! applied or it was not, and the next call works.

use std::time::Duration;

use serde_json::{Value, json};
use slack_installs::backend::{Backend, Change, DynamoDbBackend, Error, Expect, Scope};

use crate::kit::{Bench, connect, delete, fill, plant, put, row, rows, slot, slots, tenant};
use crate::support::dynamodb::hasty_client;
use crate::support::proxy::{Fate, Request};
use crate::support::queues::{refresh_at, refreshes};

/// Commits of each form, whose expectations hold, with the operation that writes each one.
const FORMS: [(&str, &str); 5] = [
    ("replace one", "PutItem"),
    ("delete one", "DeleteItem"),
    ("create one", "TransactWriteItems"),
    ("change several", "TransactWriteItems"),
    ("clear", "UpdateItem"),
];

#[tokio::test]
async fn a_commit_that_is_throttled_is_made_again() {
    for code in [
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TransactionConflictException",
    ] {
        each_form(|bench, _, operation| {
            busy_twice(bench, operation, error(code));
            Expected::Committed
        })
        .await;
    }
}

#[tokio::test]
async fn a_transaction_in_conflict_with_another_is_made_again() {
    for code in [
        "TransactionConflict",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    ] {
        each_form(|bench, _, operation| {
            if operation == "TransactWriteItems" {
                busy_twice(bench, operation, canceled(&["None", code]));
            }
            Expected::Committed
        })
        .await;
    }
}

#[tokio::test]
async fn throttling_without_an_end_is_unavailable_and_writes_nothing() {
    each_form(|bench, form, _| {
        let throttled = Fate::Answer(400, error("ThrottlingException"));
        bench.proxy.decide(move |_| throttled.clone());
        assert!(!form.is_empty());
        Expected::Not
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_server_is_unavailable_and_not_made_again() {
    each_form(|bench, _, operation| {
        let operation = operation.to_owned();
        let broken = Fate::Answer(500, error("InternalServerError"));
        bench.proxy.decide(move |request| {
            if request.operation == operation {
                broken.clone()
            } else {
                Fate::Pass
            }
        });
        Expected::Not
    })
    .await;
}

#[tokio::test]
async fn a_connection_cut_before_the_commit_is_unavailable() {
    each_form(|bench, _, operation| {
        first_meets(bench, operation, Fate::Cut);
        Expected::Not
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unavailable_and_stands() {
    each_form(|bench, form, operation| {
        first_meets(bench, operation, Fate::CutAfterwards);
        match form {
            // Only a mark was written. The clear would follow later, and is not sent.
            "clear" => Expected::Not,
            _ => Expected::Happened,
        }
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_is_not_answered_in_time_is_unavailable() {
    let hasty = Duration::from_secs(2);
    for (fate, happens) in [(Fate::Silence, false), (Fate::SilenceAfterwards, true)] {
        let arrange = |bench: &Bench, _: &str, operation: &str| {
            first_meets(bench, operation, fate.clone());
            if happens {
                Expected::Happened
            } else {
                Expected::Not
            }
        };
        each_of(&[FORMS[0], FORMS[3]], hasty, arrange).await;
    }
}

#[tokio::test]
async fn a_lack_of_permission_is_transient_and_asked_for_once() {
    let bench = Bench::new().await;
    let denied = Fate::Answer(400, error("AccessDeniedException"));
    bench.proxy.decide(move |_| denied.clone());
    let read = bench.proxied.read(&tenant("app/T1"), &[slot("bot")]).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert_eq!(bench.proxy.operations(), ["GetItem"]);
}

#[tokio::test]
async fn an_error_shows_its_code_and_nothing_of_the_answer() {
    let bench = Bench::new().await;
    let denied = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "not met",
        "Item": {"pk": {"S": "app/T1"}, "sk": {"S": "bot"}, "version": {"B": "c2VjcmV0"}},
    });
    bench
        .proxy
        .decide(move |_| Fate::Answer(400, denied.to_string()));
    let changes = [delete(&slot("bot"), Some(row().version))];
    let error = bench
        .proxied
        .commit(&tenant("app/T1"), &changes)
        .await
        .expect_err("no version");
    assert!(!format!("{error:?}").contains("c2VjcmV0"), "{error:?}");

    let broken = Fate::Answer(500, error_with("InternalServerError", "who knows"));
    bench.proxy.decide(move |_| broken.clone());
    let error = bench
        .proxied
        .commit(&tenant("app/T1"), &changes)
        .await
        .expect_err("HTTP 500");
    let source = std::error::Error::source(&error)
        .expect("the cause is kept")
        .to_string();
    assert_eq!(source, "InternalServerError: who knows");
    assert!(
        !format!("{error:?}")
            .to_lowercase()
            .contains("content-length"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_read_is_made_again_whatever_happened() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(3));
    let planted = fill(&bench.straight, &partition, &names).await;
    for fate in [
        Fate::Answer(400, error("ThrottlingException")),
        Fate::Answer(500, error("InternalServerError")),
        Fate::Cut,
        Fate::CutAfterwards,
    ] {
        bench.proxy.decide(twice(fate.clone()));
        let one = bench.proxied.read(&partition, &names[..1]).await;
        assert_eq!(
            one.expect("the third try works"),
            [Some(planted[0].clone())]
        );

        bench.proxy.decide(twice(fate.clone()));
        let all = bench.proxied.read(&partition, &names).await;
        assert!(
            all.expect("the third try works")
                .into_iter()
                .flatten()
                .eq(planted.clone())
        );

        bench.proxy.decide(twice(fate.clone()));
        let page = bench
            .proxied
            .scan(&Scope::Everything, None, 10)
            .await
            .expect("the third try works");
        assert_eq!(page.rows.len(), 3, "{fate:?}");

        bench.proxy.decide(twice(fate));
        bench
            .proxied
            .due(&refreshes(), std::time::SystemTime::now(), None, 10)
            .await
            .expect("the third try works");
    }
    bench.proxy.decide(twice(Fate::Answer(
        400,
        canceled(&["None", "TransactionConflict", "None"]),
    )));
    let all = bench.proxied.read(&partition, &names).await;
    assert!(
        all.expect("the third try works")
            .into_iter()
            .flatten()
            .eq(planted)
    );
}

#[tokio::test]
async fn keys_that_stay_unprocessed_are_asked_for_again() {
    let bench = Bench::new().await;
    let (partition, names) = (tenant("app/T1"), slots(3));
    let due = refresh_at(std::time::UNIX_EPOCH + Duration::from_secs(5));
    for name in &names {
        let row = slack_installs::backend::Row { due, ..row() };
        let changes = [put(name, &row, Expect::Absent)];
        bench
            .straight
            .commit(&partition, &changes)
            .await
            .expect("the slot is empty");
    }
    let unprocessed = |request: &Request| {
        let asked: Value = serde_json::from_slice(&request.body).expect("requests are JSON");
        let answer = json!({"Responses": {}, "UnprocessedKeys": asked["RequestItems"]});
        Fate::Answer(200, answer.to_string())
    };
    bench.proxy.decide(move |request| {
        // The first 16 requests are the queries of the index.
        if request.operation == "BatchGetItem" && request.nth <= 18 {
            unprocessed(request)
        } else {
            Fate::Pass
        }
    });
    let now = std::time::SystemTime::now();
    let due = bench
        .proxied
        .due(&refreshes(), now, None, 10)
        .await
        .expect("the third try works");
    assert_eq!(due.rows.len(), 3);

    bench.proxy.decide(move |request| {
        if request.operation == "BatchGetItem" {
            unprocessed(request)
        } else {
            Fate::Pass
        }
    });
    let due = bench.proxied.due(&refreshes(), now, None, 10).await;
    assert!(matches!(due, Err(Error::Unavailable(_))), "{due:?}");
}

#[tokio::test]
async fn what_dynamodb_finds_malformed_is_not_made_again() {
    let bench = Bench::new().await;
    let partition = tenant("app/T1");
    let large = |len: usize| slack_installs::backend::Row {
        metadata: slack_installs::backend::Metadata::new("x".repeat(len)),
        ..row()
    };
    let too_large = [put(&slot("bot"), &large(401 << 10), Expect::Absent)];
    let too_many: Vec<_> = slots(101)
        .iter()
        .map(|name| put(name, &row(), Expect::Absent))
        .collect();
    let too_much: Vec<_> = slots(13)
        .iter()
        .map(|name| put(name, &large(350 << 10), Expect::Absent))
        .collect();
    for changes in [&too_large[..], &too_many[..], &too_much[..]] {
        bench.proxy.decide(|_| Fate::Pass);
        let outcome = bench.proxied.commit(&partition, changes).await;
        assert!(matches!(outcome, Err(Error::Malformed(_))), "{outcome:?}");
        assert_eq!(bench.proxy.operations().len(), 1);
        assert!(bench.items(&partition).await.is_empty());
    }
    let read = bench.proxied.read(&partition, &slots(101)).await;
    assert!(matches!(read, Err(Error::Malformed(_))), "{read:?}");
}

#[derive(Debug, Eq, PartialEq)]
enum Expected {
    /// The commit succeeds.
    Committed,
    /// The commit returns `Unavailable` and was applied.
    Happened,
    /// The commit returns `Unavailable` and was not applied.
    Not,
}

/// Commits each form through the proxy and checks the result against the stored rows.
async fn each_form(arrange: impl Fn(&Bench, &str, &str) -> Expected) {
    each_of(&FORMS, Duration::from_secs(120), arrange).await;
}

/// Does the same for some forms, with a client that waits for a response for up to `patience`.
async fn each_of(
    forms: &[(&str, &str)],
    patience: Duration,
    arrange: impl Fn(&Bench, &str, &str) -> Expected,
) {
    let bench = Bench::new().await;
    let client = hasty_client(&bench.proxy.url, patience);
    let backend = connect(&client, &bench.table).await;
    for &(form, operation) in forms {
        let partition = tenant(&format!("app/{}", form.replace(' ', "-")));
        let [first, second, third] = ["first", "second", "third"].map(slot);
        let standing = plant(&bench.straight, &partition, &first).await;
        let other = plant(&bench.straight, &partition, &second).await;
        let (over, new) = (row(), row());
        let expect = Expect::Version(standing.version);
        let (changes, after) = match form {
            "replace one" => (
                vec![put(&first, &over, expect)],
                [Some(over), Some(other.clone()), None],
            ),
            "delete one" => (
                vec![delete(&first, Some(standing.version))],
                [None, Some(other.clone()), None],
            ),
            "create one" => (
                vec![put(&third, &new, Expect::Absent)],
                [Some(standing.clone()), Some(other.clone()), Some(new)],
            ),
            "change several" => (
                vec![
                    put(&first, &over, expect),
                    delete(&second, Some(other.version)),
                    put(&third, &new, Expect::Absent),
                ],
                [Some(over), None, Some(new)],
            ),
            _ => (
                vec![Change::Clear, put(&third, &new, Expect::Any)],
                [None, None, Some(new)],
            ),
        };
        let names = [first, second, third];
        let before = [Some(standing), Some(other), None];
        let expected = arrange(&bench, form, operation);
        let outcome = backend.commit(&partition, &changes).await;
        let asked = bench.proxy.operations();
        bench.proxy.quiet().await;
        bench.proxy.decide(|_| Fate::Pass);
        let found = rows(&bench.straight, &partition, &names).await;
        match expected {
            Expected::Committed => {
                outcome.expect("it is made again until it succeeds");
                assert_eq!(found, after, "{form}");
            }
            Expected::Happened | Expected::Not => {
                assert!(
                    matches!(outcome, Err(Error::Unavailable(_))),
                    "{form}: {outcome:?}"
                );
                let stands = if expected == Expected::Happened {
                    &after
                } else {
                    &before
                };
                assert_eq!(found, *stands, "{form}: {asked:?}");
            }
        }
        the_next_calls_work(&bench.proxied, &partition, &names).await;
    }
}

/// Checks that the next calls work, whichever rows are stored.
async fn the_next_calls_work(
    backend: &DynamoDbBackend,
    partition: &slack_installs::backend::Partition,
    names: &[slack_installs::backend::Slot],
) {
    let last = row();
    let changes = [put(&names[2], &last, Expect::Any)];
    backend
        .commit(partition, &changes)
        .await
        .expect("no fault is left");
    backend
        .commit(partition, &[Change::Clear])
        .await
        .expect("no fault is left");
    assert_eq!(
        rows(backend, partition, names).await,
        vec![None; names.len()]
    );
}

fn busy_twice(bench: &Bench, operation: &str, body: String) {
    let (operation, met) = (operation.to_owned(), std::sync::atomic::AtomicUsize::new(0));
    bench.proxy.decide(move |request| {
        let counted = std::sync::atomic::Ordering::Relaxed;
        if request.operation == operation && met.fetch_add(1, counted) < 2 {
            Fate::Answer(400, body.clone())
        } else {
            Fate::Pass
        }
    });
}

fn first_meets(bench: &Bench, operation: &str, fate: Fate) {
    let (operation, met) = (
        operation.to_owned(),
        std::sync::atomic::AtomicBool::new(false),
    );
    bench.proxy.decide(move |request| {
        let counted = std::sync::atomic::Ordering::Relaxed;
        if request.operation == operation && !met.swap(true, counted) {
            fate.clone()
        } else {
            Fate::Pass
        }
    });
}

fn twice(fate: Fate) -> impl Fn(&Request) -> Fate {
    move |request| match request.nth {
        1 | 2 => fate.clone(),
        _ => Fate::Pass,
    }
}

fn error(code: &str) -> String {
    error_with(code, "made up")
}

fn error_with(code: &str, message: &str) -> String {
    let code = format!("com.amazonaws.dynamodb.v20120810#{code}");
    json!({"__type": code, "message": message}).to_string()
}

fn canceled(codes: &[&str]) -> String {
    let reasons: Vec<_> = codes.iter().map(|code| json!({"Code": code})).collect();
    json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "message": "Transaction cancelled",
        "CancellationReasons": reasons,
    })
    .to_string()
}
