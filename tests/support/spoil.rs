//! Spoils rows without the backend, so that they cannot be parsed. Each way keeps the row in its
//! place.

#[cfg(feature = "sqlite")]
pub const SQLITE: [&str; 3] = [
    "version = x'00'",
    "version = zeroblob(17)",
    "metadata = CAST(x'ff' AS TEXT)",
];

/// Spoils a row in the file at this path.
#[cfg(feature = "sqlite")]
pub async fn sqlite(path: &std::path::Path, key: &slack_installs::backend::Key, way: &str) {
    use sqlx::{ConnectOptions as _, Executor as _};

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut file = options.connect().await.expect("the file is a database");
    file.execute("PRAGMA ignore_check_constraints = on")
        .await
        .expect("SQLite has this pragma");
    let update = format!("UPDATE slack_rows SET {way} WHERE partition = ? AND slot = ?");
    let update = sqlx::query(sqlx::AssertSqlSafe(update))
        .bind(key.partition.as_str())
        .bind(key.slot.as_str());
    let updated = update
        .execute(&mut file)
        .await
        .expect("the file is writable");
    assert_eq!(updated.rows_affected(), 1, "{key} is spoiled");
}

#[cfg(feature = "postgres")]
pub const POSTGRES: [&str; 3] = [
    "version = '\\x00'",
    "version = ''",
    "version = '\\x0000000000000000000000000000000000'",
];

/// Spoils a row in the schema at a superuser's URL.
#[cfg(feature = "postgres")]
pub async fn postgres(url: &str, schema: &str, key: &slack_installs::backend::Key, way: &str) {
    use sqlx::{ConnectOptions as _, Executor as _};

    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("our own URL");
    let mut server = options.connect().await.expect("the server is up");
    let drop = format!(
        "ALTER TABLE \"{schema}\".slack_rows DROP CONSTRAINT IF EXISTS slack_rows_version_check"
    );
    server
        .execute(sqlx::AssertSqlSafe(drop))
        .await
        .expect("a superuser has the rights");
    let update =
        format!("UPDATE \"{schema}\".slack_rows SET {way} WHERE partition = $1 AND slot = $2");
    let update = sqlx::query(sqlx::AssertSqlSafe(update))
        .bind(key.partition.as_str())
        .bind(key.slot.as_str());
    let updated = update
        .execute(&mut server)
        .await
        .expect("a superuser has the rights");
    assert_eq!(updated.rows_affected(), 1, "{key} is spoiled");
}

#[cfg(feature = "redis")]
pub const REDIS: [&str; 4] = [
    "",
    "garbage",
    "garbage that is longer than the header of any row",
    // In our format, with a lane that does not exist.
    "\u{1}0123456789abcdef\u{7f}00000000\u{0}\u{0}\u{0}\u{0}",
];

/// Spoils a row on the master among these servers that has the row.
#[cfg(feature = "redis")]
pub async fn redis(urls: &[String], key: &slack_installs::backend::Key, way: &str) {
    for url in urls {
        let client = redis::Client::open(url.as_str()).expect("the URL is well formed");
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("the server is up");
        let pattern = format!("*:rows:{}", key.partition);
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut connection)
            .await
            .expect("the server is up");
        for rows in keys {
            let set = redis::cmd("HSET")
                .arg(&rows)
                .arg(key.slot.as_str())
                .arg(way)
                .query_async::<i64>(&mut connection)
                .await;
            match set {
                Ok(added) => return assert_eq!(added, 0, "{key} is spoiled"),
                // The server is a replica, or another master has the slot.
                Err(error) => assert!(
                    matches!(error.code(), Some("READONLY" | "MOVED")),
                    "{error}"
                ),
            }
        }
    }
    panic!("no server has {key}");
}
