//! The contract on real servers with real concurrency. `tests/suite` runs the checks without
//! concurrency.
//!
//! `SLACK_INSTALLS_TEST_POSTGRES_URL` may name a superuser's database on another server. The suite
//! then runs on that server too.

use std::sync::Arc;

use slack_installs::backend::{Backend, Error, Expect, PostgresBackend, PostgresOptions};
use slack_installs::testing::conformance::{CHECKS, MALFORMED_CHECKS, Spoiling};
use slack_installs::testing::{Faults, Flaky};
use sqlx::{Connection as _, Row as _};

use super::servers::history::{self, join_all};
use super::servers::postgres::{self, PgBouncer, Postgres, execute, fetch};
use super::servers::spoil;
use super::{change, fast, open, partition, pooled, put, read, row, slot, waiting, walled};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_loses_answers_passes_the_suite() {
    let server = Postgres::start().await;
    let url = server.database("suite").await;
    let options = PostgresOptions {
        schema: "user".to_owned(),
        ..fast()
    };
    let flaky = Flaky::new(open(&url, options).await, Faults::default());
    malformed("Postgres, Flaky", &flaky, &url, "user").await;
    suite("Postgres, Flaky", &flaky).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_row_level_security_passes_the_suite() {
    let server = Postgres::start().await;
    walled(&server).await;
    let options = PostgresOptions {
        row_level_security: true,
        ..fast()
    };
    let backend = open(&server.url("app", "walled"), options).await;
    let superuser = server.url("postgres", "walled");
    malformed(
        "Postgres with row-level security",
        &backend,
        &superuser,
        "public",
    )
    .await;
    suite("Postgres with row-level security", &backend).await;
    let pooler = PgBouncer::start(server.port()).await;
    let options = PostgresOptions {
        row_level_security: true,
        ..pooled()
    };
    let backend = open(&pooler.url("app", "walled"), options).await;
    suite(
        "Postgres behind PgBouncer with row-level security",
        &backend,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_given_by_url_passes_the_suite() {
    let Ok(url) = std::env::var("SLACK_INSTALLS_TEST_POSTGRES_URL") else {
        return println!("SLACK_INSTALLS_TEST_POSTGRES_URL is not set: only servers of our own");
    };
    let options = PostgresOptions {
        schema: "slack_installs_test".to_owned(),
        skip_durability_checks: true,
        allow_plaintext: true,
        ..PostgresOptions::default()
    };
    let backend = open(&url, options).await;
    malformed("Postgres by URL", &backend, &url, "slack_installs_test").await;
    suite("Postgres by URL", &backend).await;
    execute(&url, "DROP SCHEMA slack_installs_test CASCADE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_histories_can_be_explained() {
    let server = Postgres::start().await;
    let url = server.database("histories").await;
    let pooler = PgBouncer::start(server.port()).await;
    histories("Postgres", open(&url, fast()).await).await;
    let behind = pooler.url("postgres", "histories");
    histories("Postgres behind PgBouncer", open(&behind, pooled()).await).await;
    let flaky = Flaky::new(open(&url, fast()).await, Faults::default());
    histories("Postgres, Flaky", flaky).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changed_by_hand_is_not_revived_by_a_commit_that_waits() {
    let server = Postgres::start().await;
    let url = server.database("by_hand").await;
    let backend = Arc::new(open(&url, fast()).await);
    let row = row("{}");
    put(&*backend, &row, Expect::Absent)
        .await
        .expect("an empty slot");
    let mut operator = postgres::connection(&url).await;
    let mut purge = operator.begin().await.expect("the server responds");
    sqlx::query("DELETE FROM slack_rows")
        .execute(&mut *purge)
        .await
        .expect("rows can be deleted");
    let refresh = tokio::spawn({
        let (backend, expect) = (Arc::clone(&backend), Expect::Version(row.version));
        async move { put(&*backend, &super::row("{}"), expect).await }
    });
    waiting(&url).await;
    purge.commit().await.expect("the server responds");
    assert!(matches!(
        refresh.await.expect("no panic"),
        Err(Error::Conflict)
    ));
    assert_eq!(read(&*backend).await.expect("the server responds"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_make_the_tables_at_once() {
    let server = Postgres::start().await;
    let direct = server.database("direct").await;
    server.database("pooled").await;
    let pooler = PgBouncer::start(server.port()).await;
    let behind = pooler.url("postgres", "pooled");
    for (url, options) in [(direct, fast()), (behind, pooled())] {
        let options = PostgresOptions {
            schema: "installs".to_owned(),
            ..options
        };
        let opens: Vec<_> = (0..8)
            .map(|_| {
                let (url, options) = (url.clone(), options.clone());
                tokio::spawn(async move { PostgresBackend::connect_with(&url, options).await })
            })
            .collect();
        for open in opens {
            let backend = open
                .await
                .expect("no panic")
                .expect("one of them makes the tables");
            assert_eq!(read(&backend).await.expect("the tables exist"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_is_stored_and_its_bytes_are_kept() {
    let server = Postgres::start().await;
    let url = server.database("view").await;
    let backend = open(&url, fast()).await;
    let install = r#"{"v":1, "kind":"install","app_id":"A1","enterprise_id":null,
        "team_id":"T1","team_name":"Zo\u00eb's \u0022shop\u0022","team_id":"T1",
        "is_enterprise_install":false,"installed_at":1700000000}"#;
    let bot = r#"{"kind":"bot","bot_user_id":"U1","scopes":"chat:write","expires_at":null}"#;
    let broken = r#"{"kind":"install","team_name":"\u0000"}"#;
    let rows = [("install", install), ("bot", bot)];
    let partition = partition("1.2/T1");
    let changes: Vec<_> = rows.iter().map(|(name, text)| change(name, text)).collect();
    backend
        .commit(&partition, &changes)
        .await
        .expect("it is JSON");
    let malformed = super::partition("1.2/T2");
    backend
        .commit(&malformed, &[change("install", broken)])
        .await
        .expect("that is JSON too");
    for (name, text) in rows {
        let found = backend
            .read(&partition, &[slot(name)])
            .await
            .expect("the server responds");
        let found = found[0].as_ref().expect("it exists");
        assert_eq!(found.metadata.as_str(), text);
    }
    let found = fetch(
        &url,
        "SELECT client_id, team_name, is_enterprise_install, bot_user_id,
           extract(epoch FROM installed_at)::bigint FROM slack_installations",
    )
    .await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get::<&str, _>(0), "1.2");
    assert_eq!(found[0].get::<&str, _>(1), "Zoë's \"shop\"");
    assert!(!found[0].get::<bool, _>(2));
    assert_eq!(found[0].get::<&str, _>(3), "U1");
    assert_eq!(found[0].get::<i64, _>(4), 1_700_000_000);
    let outcome = backend
        .commit(&partition, &[change("bot", "not JSON")])
        .await;
    assert!(matches!(outcome, Err(Error::Malformed(_))), "{outcome:?}");
}

/// Runs the suite and prints its progress.
async fn suite(name: &str, backend: &dyn Backend) {
    for check in CHECKS {
        println!("{name}: {}", check.name);
        (check.run)(backend).await;
    }
    println!(
        "{name}: {} checks of the conformance suite passed",
        CHECKS.len()
    );
}

/// Runs the checks of malformed rows in a database whose superuser has this URL.
async fn malformed(name: &str, backend: &dyn Backend, url: &str, schema: &str) {
    let way = spoil::POSTGRES[0];
    for check in MALFORMED_CHECKS {
        println!("{name}: {}", check.name);
        let spoil = |key| -> Spoiling<'_> {
            Box::pin(async move { spoil::postgres(url, schema, &key, way).await })
        };
        (check.run)(backend, &spoil).await;
    }
}

async fn histories(name: &str, backend: impl Backend) {
    for nth in 0..HISTORIES / 4 {
        // Runs four histories at a time: partitions must not interfere with each other.
        let seeds = 4 * nth..4 * (nth + 1);
        let partitions: Vec<_> = seeds
            .map(|seed| (seed, partition(&format!("{name}/{seed}").replace(' ', "-"))))
            .collect();
        let checks = partitions
            .iter()
            .map(|(seed, partition)| history::check(&backend, partition, *seed));
        join_all(checks).await;
    }
    println!("{name}: {HISTORIES} histories explained");
}

/// The number of histories per backend, faults included.
const HISTORIES: u64 = 40;
