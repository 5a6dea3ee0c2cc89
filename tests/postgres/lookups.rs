//! How many rows the server reads for a call.

use std::time::SystemTime;

use slack_installs::backend::{
    Backend as _, Change, Expect, Lane, PostgresBackend, PostgresOptions, Prefix, Queue, Scope,
    Slot,
};
use sqlx::Row as _;

use super::servers::postgres::{Postgres, execute, fetch};
use super::support::checks::until;
use super::{fast, open, partition, row, slot};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reads_only_its_own_rows_of_a_large_partition() {
    let large = Large::new().await;
    let at = partition("app/T1");
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
        let committed = large.backend.commit(&at, &changes).await;
        committed.expect("the server responds");
    }
    large.has_read_at_most(10 * ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_slots_reads_only_its_own_rows_of_a_large_partition() {
    let at = partition("app/T1");
    for count in [1, 2, 3, 4, 40] {
        let large = Large::new().await;
        let slots: Vec<Slot> = (1..=count)
            .map(|nth| slot(&format!("user/U{nth}")))
            .collect();
        for _ in 0..ROUNDS {
            let found = large.backend.read(&at, &slots).await;
            let found = found.expect("the server responds");
            assert!(found.iter().all(Option::is_some), "{count} slots");
        }
        large.has_read_at_most(count * ROUNDS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_only_its_own_rows_of_a_large_partition() {
    let scopes = [
        Scope::Partition(partition("app/T1")),
        Scope::Prefix(Prefix::new("app/").expect("a plain name")),
        Scope::Everything,
    ];
    for scope in scopes {
        let large = Large::new().await;
        let mut from = None;
        for _ in 0..ROUNDS {
            let page = large.backend.scan(&scope, from, 5).await;
            from = page.expect("the server responds").next;
            assert!(from.is_some(), "{scope:?}");
        }
        large.has_read_at_most(8 * ROUNDS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_due_rows_reads_only_its_own_rows_of_a_large_partition() {
    let large = Large::new().await;
    let queue = Queue::new("app", Lane::Refresh).expect("a plain name");
    let mut from = None;
    for _ in 0..ROUNDS {
        let page = large.backend.due(&queue, SystemTime::now(), from, 5).await;
        from = page.expect("the server responds").next;
        assert!(from.is_some());
    }
    large.has_read_at_most(8 * ROUNDS).await;
}

/// A database in which one partition has many rows, and the planner expects one row in each.
struct Large {
    _server: Postgres,
    url: String,
    backend: PostgresBackend,
    before: (i64, i64),
}

impl Large {
    async fn new() -> Self {
        let server = Postgres::start().await;
        let url = server.database("large").await;
        // After some executions on a connection, the planner makes one plan for all parameters.
        let options = PostgresOptions {
            pool_size: 1,
            ..fast()
        };
        let backend = open(&url, options).await;
        execute(&url, FILL).await;
        let before = looked_up(&url).await;
        Self {
            _server: server,
            url,
            backend,
            before,
        }
    }

    async fn has_read_at_most(self, most: i64) {
        // A server process reports its figures when it ends, at the latest.
        self.backend.close().await;
        until("the figures arrive", async || {
            looked_up(&self.url).await.0 >= self.before.0 + ROUNDS
        })
        .await;
        let read = looked_up(&self.url).await.1 - self.before.1;
        assert!(read <= most, "{read} rows in {ROUNDS} rounds");
    }
}

/// Returns how often the indexes were searched, and how many rows that found.
async fn looked_up(url: &str) -> (i64, i64) {
    let found = fetch(
        url,
        "SELECT sum(idx_scan)::bigint, sum(idx_tup_read)::bigint FROM pg_stat_user_indexes \
         WHERE relname = 'slack_rows'",
    )
    .await;
    (found[0].get(0), found[0].get(1))
}

const ROUNDS: i64 = 20;

const FILL: &str = "
INSERT INTO slack_rows
SELECT 'app/T1', 'user/U' || nth, decode(md5(nth::text), 'hex'), '{}', '\\x00', 'refresh', nth
FROM generate_series(1, 3000) AS nth;
INSERT INTO slack_rows
SELECT 'app/T1' || nth, 'bot', decode(md5(nth::text), 'hex'), '{}', '\\x00', NULL, NULL
FROM generate_series(1, 12000) AS nth;
ANALYZE slack_rows";
