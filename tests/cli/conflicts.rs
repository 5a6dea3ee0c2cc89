//! A row that another process changes all the time.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Executor as _};

use super::House;
use crate::support::app::{ADA, ALPHA};

/// Makes the database ignore every change of a row, as if its version had always just changed.
async fn overtake(house: &House) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(house.path("db.sqlite3"));
    let mut connection = options.connect().await.expect("the file is a database");
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let trigger = format!(
            "CREATE TRIGGER overtaken_{event} BEFORE {event} ON slack_rows \
             BEGIN SELECT RAISE(IGNORE); END"
        );
        let trigger = sqlx::raw_sql(sqlx::AssertSqlSafe(trigger));
        connection.execute(trigger).await.expect("a trigger");
    }
    connection
}

#[tokio::test]
async fn a_command_that_other_processes_overtake_is_refused_and_can_be_repeated() {
    let house = House::new().await;
    house.install(ADA).await;
    let before = house.rows().await;
    let connection = overtake(&house).await;
    let remove = [
        "webhook",
        "remove",
        ALPHA,
        "--channel",
        "C0GENERAL01",
        "--yes",
    ];
    for action in [
        &remove[..],
        &["freeze", ALPHA, "--reason", "r", "--yes"],
        &["purge", ALPHA, "--reason", "r", "--yes"],
        &["keys", "add", "--yes"],
    ] {
        let ran = house.run(action).await;
        println!("{action:?} {ran:?}");
        ran.ends(4);
        assert!(ran.err.contains("has changed since it was read"), "{ran:?}");
        assert_eq!(house.rows().await, before, "{action:?}");
    }
    drop(connection);
}
