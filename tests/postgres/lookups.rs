//! How many rows the server reads for a call.

use slack_installs::backend::{Backend as _, Change, Expect, PostgresOptions};
use sqlx::Row as _;

use super::servers::postgres::{Postgres, execute, fetch};
use super::support::checks::until;
use super::{fast, open, partition, row, slot};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reads_only_its_own_rows_of_a_large_partition() {
    let server = Postgres::start().await;
    let url = server.database("large").await;
    let options = PostgresOptions {
        pool_size: 1,
        ..fast()
    };
    let backend = open(&url, options).await;
    execute(&url, FILL).await;
    let before = looked_up(&url).await;

    let large = partition("app/T1");
    // After some executions, the planner makes one plan for all parameters.
    for nth in 1..=ROUNDS {
        let changes = [
            Change::Put {
                slot: slot(&format!("user/N{nth}")),
                row: row("{}"),
                expect: Expect::Absent,
            },
            Change::Delete {
                slot: slot(&format!("user/U{nth}")),
                only: None,
            },
        ];
        let committed = backend.commit(&large, &changes).await;
        committed.expect("the server responds");
    }
    // A server process reports its figures when it ends, at the latest.
    backend.close().await;
    until("the figures arrive", async || {
        looked_up(&url).await.0 > before.0 + ROUNDS
    })
    .await;
    let read = looked_up(&url).await.1 - before.1;
    assert!(read <= 10 * ROUNDS, "{read} rows in {ROUNDS} rounds");
}

/// Returns how often the key's index was searched, and how many rows that found.
async fn looked_up(url: &str) -> (i64, i64) {
    let found = fetch(
        url,
        "SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes \
         WHERE indexrelname = 'slack_rows_pkey'",
    )
    .await;
    (found[0].get(0), found[0].get(1))
}

const ROUNDS: i64 = 20;

/// One partition has many rows, and the planner expects one row in each.
const FILL: &str = "
INSERT INTO slack_rows
SELECT 'app/T1', 'user/U' || nth, decode(md5(nth::text), 'hex'), '{}', '\\x00', NULL, NULL
FROM generate_series(1, 3000) AS nth;
INSERT INTO slack_rows
SELECT 'app/T1' || nth, 'bot', decode(md5(nth::text), 'hex'), '{}', '\\x00', NULL, NULL
FROM generate_series(1, 12000) AS nth;
ANALYZE slack_rows";
