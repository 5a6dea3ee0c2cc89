//! Opening by a URL, as `backend::connect` does.

use slack_installs::backend::{ConnectErrorKind as Kind, Expect, connect};

use super::servers::postgres::{Postgres, execute, fetch};
use super::{put, row};

#[tokio::test(flavor = "multi_thread")]
async fn a_url_chooses_the_schema() {
    let server = Postgres::start_with(&["wal_sync_method=fdatasync"]).await;
    let url = server.database("by_url").await;
    let other = connect(&format!("{url}?schema=of_the_app&application_name=by_url")).await;
    let other = other.expect("a safe server");
    put(&*other, &row("{}"), Expect::Absent)
        .await
        .expect("an empty slot");
    let rows = fetch(&url, "SELECT slot FROM of_the_app.slack_rows").await;
    assert_eq!(rows.len(), 1);

    let public = connect(&url).await.expect("a safe server");
    put(&*public, &row("{}"), Expect::Absent)
        .await
        .expect("it is another schema");
    execute(
        &url,
        "CREATE SCHEMA taken; CREATE TABLE taken.slack_rows ()",
    )
    .await;
    let refused = connect(&format!("{url}?schema=taken")).await;
    let refused = refused.expect_err("another program's table exists");
    assert_eq!(refused.kind(), Kind::Foreign, "{refused}");
    assert!(refused.to_string().contains("`schema=`"), "{refused}");
}

#[tokio::test]
async fn a_url_with_a_schema_that_cannot_be_is_refused_with_the_remedy() {
    for name in ["", "Upper", "1st", "a%20b", "a%22b", "pub-lic"] {
        let refused = connect(&format!("postgres://127.0.0.1/bot?schema={name}")).await;
        let refused = refused.expect_err("not a name for a schema");
        assert_eq!(refused.kind(), Kind::Invalid, "{name}: {refused}");
        assert!(refused.to_string().contains("lower-case"), "{refused}");
    }
}
