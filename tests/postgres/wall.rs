//! Row-level security: what a query returns that names no partition, or another one.

use slack_installs::backend::{
    Backend, ConnectErrorKind as Kind, Expect, PostgresBackend, PostgresOptions, Prefix, Scope,
};

use super::servers::postgres::{self, PgBouncer, Postgres, execute, fetch};
use super::{fast, open, partition, pooled, put, read, refreshes, row, walled};

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_hides_rows_from_who_does_not_name_their_partition() {
    let server = Postgres::start().await;
    walled(&server).await;
    let app = server.url("app", "walled");
    let backend = open(&app, behind_wall(fast())).await;
    put(&backend, &row("{}"), Expect::Absent)
        .await
        .expect("its own partition");

    assert!(fetch(&app, "SELECT * FROM slack_rows").await.is_empty());
    let of_another = "BEGIN; SET LOCAL slack_installs.partition = 'app/T2'; \
                      SELECT * FROM slack_rows; COMMIT";
    assert!(fetch(&app, of_another).await.is_empty());
    let of_its_own = of_another.replace("T2", "T1");
    assert_eq!(fetch(&app, &of_its_own).await.len(), 1);
    let everything =
        "BEGIN; SET LOCAL slack_installs.everything = 'on'; SELECT * FROM slack_rows; COMMIT";
    assert_eq!(fetch(&app, everything).await.len(), 1);
    for (prefix, rows) in [
        ("app/", 1),
        ("app/T1", 1),
        ("app/T2", 0),
        ("other/", 0),
        ("", 0),
    ] {
        let of_prefix = format!(
            "BEGIN; SET LOCAL slack_installs.prefix = '{prefix}'; SELECT * FROM slack_rows; COMMIT"
        );
        assert_eq!(fetch(&app, &of_prefix).await.len(), rows, "{prefix:?}");
    }
    let mut connection = postgres::connection(&app).await;
    for statement in [
        "BEGIN; SET LOCAL slack_installs.partition = 'app/T2'; INSERT INTO slack_rows \
         VALUES ('app/T1', 'bot', '0123456789abcdef', '{}', '')",
        "SELECT slack_commit_1('app/T1', true, '{}', '{}', '{}', ARRAY['bot'], \
         ARRAY['0123456789abcdef'::bytea], ARRAY['{}'], ARRAY[''::bytea], ARRAY[NULL], \
         ARRAY[NULL::bigint])",
        "SELECT * FROM slack_installations",
    ] {
        let outcome = sqlx::raw_sql(statement).execute(&mut connection).await;
        let code = outcome
            .as_ref()
            .err()
            .and_then(|error| error.as_database_error()?.code());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {outcome:?}");
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut connection)
            .await
            .expect("the server responds");
    }
    for opens in ["everything = 'on'", "prefix = 'app/T1'"] {
        let deleted =
            format!("BEGIN; SET LOCAL slack_installs.{opens}; DELETE FROM slack_rows; COMMIT");
        execute(&app, &deleted).await;
    }
    assert!(read(&backend).await.expect("the server responds").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_client_of_a_pooler_does_not_inherit_a_partition_or_a_sweep() {
    let server = Postgres::start().await;
    walled(&server).await;
    let pooler = PgBouncer::start(server.port()).await;
    let behind = open(&pooler.url("app", "walled"), behind_wall(pooled())).await;
    put(&behind, &row("{}"), Expect::Absent)
        .await
        .expect("its own partition");
    for _ in 0..10 {
        for scope in scopes() {
            let page = behind
                .scan(&scope, None, 1)
                .await
                .expect("the server responds");
            assert_eq!(page.rows.len(), 1, "{scope:?}");
        }
        let now = std::time::SystemTime::now();
        let due = behind.due(&refreshes(), now, None, 1).await;
        assert_eq!(due.expect("the server responds").rows.len(), 1);
        assert!(read(&behind).await.expect("the server responds").is_some());
        let stray = fetch(&pooler.url("app", "walled"), "SELECT * FROM slack_rows").await;
        assert!(stray.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_with_a_hole_is_refused() {
    let server = Postgres::start().await;
    let owner = walled(&server).await;
    let app = server.url("app", "walled");
    for breach in [
        "ALTER ROLE app SUPERUSER",
        "ALTER ROLE app NOSUPERUSER BYPASSRLS",
        "ALTER ROLE app NOBYPASSRLS; GRANT tables_owner TO app",
        "REVOKE tables_owner FROM app; ALTER TABLE slack_rows NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE slack_rows FORCE ROW LEVEL SECURITY;
         CREATE POLICY lax ON slack_rows USING (true)",
    ] {
        execute(&server.url("postgres", "walled"), breach).await;
        let refused = PostgresBackend::connect_with(&app, behind_wall(fast())).await;
        let refused = refused.expect_err("the wall has a hole");
        assert_eq!(
            (
                refused.kind(),
                refused.to_string().contains("row-level security")
            ),
            (Kind::Misconfigured, true),
            "{refused:?}"
        );
    }
    execute(&owner, "DROP POLICY lax ON slack_rows").await;
    open(&app, behind_wall(fast())).await;
    execute(&owner, "UPDATE slack_schema SET version = 0").await;
    let refused = PostgresBackend::connect_with(&app, behind_wall(fast())).await;
    assert!(
        matches!(&refused, Err(error) if error.kind() == Kind::NotMigrated),
        "{refused:?}"
    );
}

fn scopes() -> [Scope; 3] {
    let prefix = Prefix::new("app/").expect("a plain name");
    [
        Scope::Everything,
        Scope::Partition(partition("app/T1")),
        Scope::Prefix(prefix),
    ]
}

fn behind_wall(options: PostgresOptions) -> PostgresOptions {
    PostgresOptions {
        row_level_security: true,
        ..options
    }
}
