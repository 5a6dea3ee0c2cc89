//! A schema of which someone dropped a part: `migrate` and `doctor` look at what exists.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use super::{House, kinds};
use crate::support::app::{ADA, ALPHA};

/// Runs a statement on a SQLite file.
pub(crate) async fn sql(path: &Path, statement: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.expect("the file exists");
    let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()));
    connection.execute(statement).await.expect("it is valid");
}

/// Checks that a dry run names the part, and that `migrate` creates it again.
async fn is_mended(house: &House, part: &str) {
    let dry = ["migrate", "--dry-run"];
    let ran = house.run_json(&dry).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "would_migrate", "{ran:?}");
    let ran = house.run(&dry).await;
    assert!(ran.ends(0).contains(&format!("lacks {part}")), "{ran:?}");
    let ran = house.run_json(&["migrate"]).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "migrated", "{ran:?}");
    let ran = house.run_json(&dry).await;
    assert_eq!(ran.json()["outcome"], "nothing_to_do", "{ran:?}");
    assert_eq!(
        house.run_json(&["migrate"]).await.json()["outcome"],
        "nothing_to_do"
    );
}

#[tokio::test]
async fn a_dropped_index_or_view_is_found_and_created_again_and_no_row_is_lost() {
    let house = House::new().await;
    house.install(ADA).await;
    let before = house.rows().await;
    for (statement, part) in [
        ("DROP INDEX slack_rows_due", "index slack_rows_due"),
        ("DROP VIEW slack_installations", "view slack_installations"),
    ] {
        sql(&house.path("db.sqlite3"), statement).await;
        let ran = house.run_json(&["doctor"]).await;
        ran.ends(0);
        assert_eq!(kinds(&ran.json(), "checks", "name"), ["database"]);
        let ran = house.run(&["doctor"]).await;
        let text = format!("warning database: it responds, but lacks {part}\n");
        assert!(ran.out.contains(&text), "{ran:?}");
        assert!(
            ran.out.contains("remedy: `slack-installs migrate`"),
            "{ran:?}"
        );
        // The tenants can be read meanwhile.
        house.run(&["explain", ALPHA]).await.ends(0);
        is_mended(&house, part).await;
        let ran = house.run_json(&["doctor"]).await;
        assert!(kinds(&ran.json(), "checks", "name").is_empty(), "{ran:?}");
    }
    assert_eq!(house.rows().await, before);
}

#[tokio::test]
async fn a_dropped_table_is_an_error_of_every_command_and_is_never_created_again_by_itself() {
    let house = House::new().await;
    house.install(ADA).await;
    sql(&house.path("db.sqlite3"), "DROP TABLE slack_rows").await;
    let part = "lacks table slack_rows";
    for arguments in [
        &["explain", ALPHA][..],
        &["list"],
        &["verify"],
        &["freeze", ALPHA, "--reason", "r", "--yes"],
        &["copy", "sqlite:db.sqlite3", "sqlite:other"],
    ] {
        let ran = house.run(arguments).await;
        ran.ends(5);
        assert!(ran.err.contains(part), "{ran:?}");
        assert!(
            ran.err.contains("restore the rows from a backup"),
            "{ran:?}"
        );
    }
    let ran = house.run(&["doctor"]).await;
    let text = ran.ends(1);
    assert!(
        text.contains("failure database: ") && text.contains(part),
        "{text}"
    );
    // The app does not begin with an empty table either.
    let url = house.values["SLACK_INSTALLS_URL"].clone();
    let refused = slack_installs::backend::connect(&url).await;
    let refused = refused.expect_err("the table is missing").to_string();
    assert!(refused.contains(part), "{refused}");
    is_mended(&house, "table slack_rows").await;
    house.run(&["list"]).await.ends(4);
}

#[tokio::test]
async fn a_dropped_column_is_named_and_cannot_be_created_again() {
    let house = House::new().await;
    sql(&house.path("db.sqlite3"), "DROP INDEX slack_rows_due").await;
    sql(&house.path("db.sqlite3"), "DROP VIEW slack_installations").await;
    sql(
        &house.path("db.sqlite3"),
        "ALTER TABLE slack_rows RENAME COLUMN sealed TO seal",
    )
    .await;
    for arguments in [&["migrate"][..], &["list"]] {
        let ran = house.run(arguments).await;
        ran.ends(5);
        assert!(
            ran.err.contains("lacks column sealed of slack_rows"),
            "{ran:?}"
        );
    }
}

#[cfg(all(feature = "postgres", feature = "redis"))]
#[tokio::test]
async fn what_was_dropped_from_postgres_is_found_and_created_again() {
    use crate::postgres::{Postgres, execute};

    let mut house = House::new().await;
    let server = Postgres::start_with(&[]).await;
    let url = server.database("dropped").await;
    house.set("SLACK_INSTALLS_URL", Some(&url));
    house.run(&["migrate"]).await.ends(0);
    for (statement, part, is_needed) in [
        ("DROP INDEX slack_rows_due", "index slack_rows_due", false),
        (
            "DROP VIEW slack_installations",
            "view slack_installations",
            false,
        ),
        (
            "DROP FUNCTION slack_commit_1",
            "function slack_commit_1",
            true,
        ),
        ("DROP TABLE slack_rows CASCADE", "table slack_rows", true),
    ] {
        execute(&url, statement).await;
        // A database without a data key is refused after its schema was checked.
        let ran = house.run(&["list"]).await;
        assert_eq!(
            ran.err.contains(&format!("lacks {part}")),
            is_needed,
            "{ran:?}"
        );
        is_mended(&house, part).await;
    }
    house.set("SLACK_INSTALLS_URL", Some(&format!("{url}?schema=other")));
    house.run(&["migrate"]).await.ends(0);
    execute(&url, "DROP VIEW other.slack_installations").await;
    is_mended(&house, "view slack_installations").await;
}
