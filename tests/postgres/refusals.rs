//! Servers and options that are refused, at startup and later.

use std::time::Duration;

use slack_installs::backend::{
    ConnectErrorKind as Kind, Error, Expect, PostgresBackend, PostgresOptions,
};
use sqlx::Row as _;

use super::servers::postgres::{self, PgBouncer, Postgres, execute, fetch};
use super::servers::proxy::Proxy;
use super::{fast, open, pooled, put, read, refusal, row, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_commits_is_refused() {
    // A full flush per commit is too slow on a machine that runs many tests.
    let server = Postgres::start_with(&["wal_sync_method=fdatasync"]).await;
    let url = server.database("durable").await;
    PostgresBackend::connect(&url).await.expect("a safe server");

    let off = "ALTER DATABASE durable SET synchronous_commit = off";
    execute(&url, off).await;
    assert_eq!(not_durable(&url).await, "synchronous_commit");
    let lax = open(&url, fast()).await;
    put(&lax, &row("{}"), Expect::Any)
        .await
        .expect("checks are off");
    execute(&url, "ALTER DATABASE durable RESET synchronous_commit").await;

    for setting in ["full_page_writes", "fsync"] {
        execute(&url, &format!("ALTER SYSTEM SET {setting} = off")).await;
        reload(&url, setting, "off").await;
        assert_eq!(not_durable(&url).await, setting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_synchronous_also_where_that_is_turned_off_later() {
    let server = Postgres::start().await;
    let url = server.database("later").await;
    let backend = open(&url, fast()).await;
    // A deferred trigger runs at the end of the transaction and sees the setting that the commit
    // uses.
    execute(
        &url,
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO seen SELECT current_setting('synchronous_commit'); RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON slack_rows
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
         ALTER DATABASE later SET synchronous_commit = off",
    )
    .await;
    put(&backend, &row("{}"), Expect::Any)
        .await
        .expect("the server responds");
    let seen = fetch(&url, "SELECT setting FROM seen").await;
    assert_eq!(seen[0].get::<&str, _>(0), "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_and_a_read_only_server_are_refused() {
    let server = Postgres::start().await;
    let url = server.database("followed").await;
    open(&url, fast()).await;
    let standby = server.standby().await;
    let refused = refusal(&standby.url("postgres", "followed")).await;
    assert_eq!(refused.kind(), Kind::ReadOnly, "{refused:?}");

    execute(
        &url,
        "ALTER DATABASE followed SET default_transaction_read_only = on",
    )
    .await;
    let refused = refusal(&url).await;
    assert_eq!(refused.kind(), Kind::ReadOnly, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_answers_no_read_after_a_failover() {
    let server = Postgres::start().await;
    server.database("followed").await;
    let name = Proxy::start(server.port()).await;
    let pooler = PgBouncer::start(name.port()).await;
    let options = PostgresOptions {
        acquire_timeout: Duration::from_secs(2),
        ..fast()
    };
    let direct = open(&postgres::url(name.port(), "postgres", "followed"), options).await;
    // While the server is down, PgBouncer keeps its clients waiting.
    let options = PostgresOptions {
        statement_timeout: Duration::from_secs(2),
        ..pooled()
    };
    let behind = open(&pooler.url("postgres", "followed"), options).await;
    for backend in [&direct, &behind] {
        put(backend, &row("{}"), Expect::Any)
            .await
            .expect("committed");
    }
    let standby = server.standby().await;
    name.lead_to(standby.port());
    for backend in [&direct, &behind] {
        let outcome = read(backend).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    }
    name.lead_to(server.port());
    for backend in [&direct, &behind] {
        assert!(read(backend).await.expect("the primary responds").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_with_the_remedy() {
    let server = Postgres::start().await;
    let url = server.database("refused").await;

    let invalid: [fn(&mut PostgresOptions); 4] = [
        |options| options.schema = "Robert'); --".to_owned(),
        |options| options.schema = String::new(),
        |options| options.pool_size = 0,
        |options| options.lock_timeout = Duration::from_micros(1),
    ];
    for change in invalid {
        let mut options = fast();
        change(&mut options);
        let refused = PostgresBackend::connect_with(&url, options).await;
        assert!(
            matches!(&refused, Err(error) if error.kind() == Kind::Invalid),
            "{refused:?}"
        );
    }
    let refused = refusal("not a url").await;
    assert_eq!(refused.kind(), Kind::Invalid, "{refused:?}");
    for url in [
        "postgres://db.example.com/bot",
        "postgres://10.0.0.1/bot?sslmode=prefer",
    ] {
        let refused = refusal(url).await;
        assert_eq!(refused.kind(), Kind::Tls, "{refused:?}");
        assert!(
            refused.to_string().contains("sslmode=verify-full"),
            "{refused}"
        );
    }

    execute(&url, "CREATE TABLE slack_rows (id int)").await;
    let refused = refusal(&url).await;
    assert_eq!(refused.kind(), Kind::Foreign, "{refused:?}");
    assert!(refused.to_string().contains("`schema=`"), "{refused}");
    execute(&url, "DROP TABLE slack_rows").await;

    execute(&url, "CREATE ROLE app LOGIN").await;
    let refused = refusal(&server.url("app", "refused")).await;
    assert_eq!(refused.kind(), Kind::NotMigrated, "{refused:?}");

    open(&url, fast()).await;
    for gone in [
        "DELETE FROM slack_schema",
        "DROP TABLE slack_schema",
        // The function is left.
        "DROP TABLE slack_rows CASCADE",
    ] {
        execute(&url, gone).await;
        let refused = refusal(&url).await;
        assert_eq!(refused.kind(), Kind::Foreign, "{gone}: {refused:?}");
        let text = refused.to_string();
        assert!(text.contains("restore it from a backup"), "{gone}: {text}");
    }
    execute(&url, "DROP FUNCTION slack_commit_1").await;

    open(&url, fast()).await;
    execute(&url, "UPDATE slack_schema SET version = 7").await;
    let refused = refusal(&url).await;
    assert_eq!(
        (refused.kind(), refused.to_string().contains("schema 7")),
        (Kind::Newer, true),
        "{refused:?}"
    );
    execute(&url, "DROP TABLE slack_schema, slack_rows CASCADE").await;

    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0";
    execute(&url, latin).await;
    let refused = refusal(&server.url("postgres", "latin")).await;
    assert_eq!(
        (refused.kind(), refused.to_string().contains("LATIN1")),
        (Kind::Misconfigured, true),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_nobody_told_of_is_refused() {
    let server = Postgres::start().await;
    server.database("pooled").await;
    for setting in ["", "ignore_startup_parameters = extra_float_digits,options"] {
        let pooler = PgBouncer::start_with(server.port(), setting).await;
        let refused = refusal(&pooler.url("postgres", "pooled")).await;
        assert_eq!(
            (refused.kind(), refused.to_string().contains("pooler")),
            (Kind::Misconfigured, true),
            "{setting}: {refused:?}"
        );
    }
}

async fn reload(url: &str, setting: &str, value: &str) {
    execute(url, "SELECT pg_reload_conf()").await;
    until(
        url,
        &format!("SELECT current_setting('{setting}') = '{value}'"),
    )
    .await;
}

/// Returns the setting that the error names.
async fn not_durable(url: &str) -> String {
    let refused = PostgresBackend::connect(url).await;
    let refused = refused.expect_err("a crash would lose commits");
    assert_eq!(refused.kind(), Kind::Misconfigured, "{refused}");
    let text = refused.to_string();
    let (setting, _) = text.split_once(" is off").expect("it names the setting");
    setting.to_owned()
}
