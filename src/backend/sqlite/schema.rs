//! The schema of the file, and its migrations.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use super::BEGIN;
use crate::backend::sql::Missing;

/// Migrates the file to the newest schema, unless its schema is newer, and returns its version;
/// `None` if the file is another program's. Many processes may do this at once: each takes the
/// write lock before it reads the version.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let found = transaction.fetch_one(FOUND).await?;
    let (application, version, tables): (i64, i64, i64) =
        (found.try_get(0)?, found.try_get(1)?, found.try_get(2)?);
    let is_new = (application, version, tables) == (0, 0, 0);
    let done = usize::try_from(version).ok();
    let Some(done) = done.filter(|_| is_new || application == APPLICATION) else {
        return Ok(None);
    };
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute(sqlx::raw_sql(*migration)).await?;
    }
    transaction.commit().await?;
    Ok(Some(version.max(NEWEST)))
}

/// Returns the version of the schema; 0 if the file is empty, and `None` if it is another
/// program's.
pub(super) async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let found = connection.fetch_one(FOUND).await?;
    let (application, version, tables): (i64, i64, i64) =
        (found.try_get(0)?, found.try_get(1)?, found.try_get(2)?);
    let is_new = (application, version, tables) == (0, 0, 0);
    Ok((is_new || application == APPLICATION).then_some(version))
}

/// Returns which parts of the newest schema do not exist.
pub(super) async fn missing(connection: &mut SqliteConnection) -> Result<Missing, sqlx::Error> {
    let found = sqlx::query_scalar::<_, String>(OBJECTS_FOUND);
    let found = found.fetch_all(&mut *connection).await?;
    let columns = sqlx::query_scalar::<_, String>(COLUMNS_FOUND);
    let columns = columns.fetch_all(connection).await?;
    let exists = |object: &str| found.iter().any(|it| it.eq_ignore_ascii_case(object));
    Ok(Missing::of(&OBJECTS, exists, &columns))
}

/// Creates the parts of the newest schema that do not exist.
pub(super) async fn restore(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let missing = missing(&mut transaction).await?;
    for migration in MIGRATIONS {
        for statement in missing.statements(migration) {
            transaction.execute(sqlx::raw_sql(statement)).await?;
        }
    }
    transaction.commit().await
}

const OBJECTS: [&str; 3] = [
    "TABLE slack_rows",
    "INDEX slack_rows_due",
    "VIEW slack_installations",
];

const OBJECTS_FOUND: &str = "SELECT type || ' ' || name FROM sqlite_schema";

const COLUMNS_FOUND: &str = "SELECT name FROM pragma_table_info('slack_rows')";

/// `SLIN` in ASCII. It marks the file as this crate's, also for `file(1)`.
const APPLICATION: i64 = 0x534c_494e;

const FOUND: &str = "
SELECT (SELECT application_id FROM pragma_application_id),
       (SELECT user_version FROM pragma_user_version),
       (SELECT count(*) FROM sqlite_schema)";

pub(super) const NEWEST: i64 = 1;

/// The nth migration leads from version n - 1 to version n, and sets `user_version`. Existing
/// migrations never change.
const MIGRATIONS: [&str; NEWEST as usize] = ["
CREATE TABLE slack_rows (
  partition TEXT NOT NULL,
  slot TEXT NOT NULL,
  version BLOB NOT NULL CHECK (length(version) = 16),
  metadata TEXT NOT NULL,
  sealed BLOB NOT NULL,
  lane TEXT CHECK ((lane IS NULL) = (due_at IS NULL)),
  due_at INTEGER,
  PRIMARY KEY (partition, slot)
) STRICT, WITHOUT ROWID;

CREATE INDEX slack_rows_due
ON slack_rows (substr(partition, 1, instr(partition, '/') - 1), lane, due_at)
WHERE lane IS NOT NULL;

CREATE VIEW slack_installations AS
WITH facts AS NOT MATERIALIZED (
  SELECT partition, slot, CASE WHEN json_valid(metadata) THEN metadata ELSE '{}' END AS facts
  FROM slack_rows
)
SELECT
  substr(install.partition, 1, instr(install.partition, '/') - 1) AS client_id,
  install.facts ->> 'app_id' AS app_id,
  install.facts ->> 'enterprise_id' AS enterprise_id,
  install.facts ->> 'enterprise_name' AS enterprise_name,
  install.facts ->> 'team_id' AS team_id,
  install.facts ->> 'team_name' AS team_name,
  install.facts ->> 'is_enterprise_install' AS is_enterprise_install,
  install.facts ->> 'url' AS url,
  install.facts ->> 'installed_by' AS installed_by,
  datetime(install.facts ->> 'installed_at', 'unixepoch') AS installed_at,
  granted.facts ->> 'bot_user_id' AS bot_user_id,
  granted.facts ->> 'bot_id' AS bot_id,
  granted.facts ->> 'user_id' AS user_id,
  granted.facts ->> 'scopes' AS scopes,
  datetime(granted.facts ->> 'granted_at', 'unixepoch') AS granted_at,
  datetime(granted.facts ->> 'expires_at', 'unixepoch') AS expires_at
FROM facts AS install
LEFT JOIN facts AS granted ON granted.partition = install.partition
  AND granted.facts ->> 'kind' IN ('bot', 'user')
WHERE install.slot = 'install' AND install.facts ->> 'kind' = 'install';

PRAGMA application_id = 1397508430;
PRAGMA user_version = 1;
"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sql::check;

    #[test]
    fn each_part_of_the_schema_has_a_statement_of_its_own() {
        check(&OBJECTS, MIGRATIONS[0]);
    }
}
