//! The schema of the database, and its migrations.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::PostgresOptions;
use crate::backend::sql::Missing;

/// Returns the version of the schema; 0 if none is known.
pub(super) async fn version(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<i64, sqlx::Error> {
    let schema = options.quoted_schema();
    let exists = format!("SELECT to_regclass('{schema}.slack_schema') IS NOT NULL");
    if !ask(connection, exists).await?.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let version = format!("SELECT coalesce(max(version), 0) FROM {schema}.slack_schema");
    ask(connection, version).await?.try_get(0)
}

/// Migrates the database to the newest schema, unless its schema is newer, and returns its version.
/// Many processes may do this at once: each takes a lock before it reads the version.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<i64, sqlx::Error> {
    let found = version(connection, options).await?;
    if found >= NEWEST {
        return Ok(found);
    }
    let schema = options.quoted_schema();
    let mut transaction = connection.begin_with(BEGIN).await?;
    let missing = format!("SELECT to_regnamespace('{schema}') IS NULL");
    if ask(&mut transaction, missing).await?.try_get(0)? {
        run(&mut transaction, format!("CREATE SCHEMA {schema}")).await?;
    }
    // Another process may have migrated it meanwhile.
    let found = version(&mut transaction, options).await?;
    let Some(missing) = usize::try_from(found)
        .ok()
        .and_then(|done| MIGRATIONS.get(done..))
    else {
        return Ok(found);
    };
    enter(&mut transaction, options).await?;
    for migration in missing {
        transaction.execute(sqlx::raw_sql(*migration)).await?;
    }
    let note = format!("UPDATE slack_schema SET version = {NEWEST}");
    run(&mut transaction, note).await?;
    transaction.commit().await?;
    Ok(NEWEST)
}

/// Returns which parts of the newest schema do not exist.
pub(super) async fn missing(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<Missing, sqlx::Error> {
    let schema = options.quoted_schema();
    let found = ask(connection, FOUND.replace("{schema}", &schema)).await?;
    let (objects, columns): (Vec<bool>, Vec<String>) = (found.try_get(0)?, found.try_get(1)?);
    let exists = |object: &str| {
        let nth = OBJECTS.iter().position(|it| *it == object);
        nth.and_then(|nth| objects.get(nth)).copied() == Some(true)
    };
    Ok(Missing::of(&OBJECTS, exists, &columns))
}

/// Creates the parts of the newest schema that do not exist.
pub(super) async fn restore(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), sqlx::Error> {
    if missing(connection, options).await?.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin_with(BEGIN).await?;
    let missing = missing(&mut transaction, options).await?;
    enter(&mut transaction, options).await?;
    for migration in MIGRATIONS {
        for statement in missing.statements(migration) {
            transaction.execute(sqlx::raw_sql(statement)).await?;
        }
    }
    transaction.commit().await
}

/// Makes names without a schema those of ours, until the transaction ends.
async fn enter(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), sqlx::Error> {
    let schema = options.quoted_schema();
    let path = format!("SET LOCAL search_path = {schema}, pg_temp");
    run(connection, path).await
}

const OBJECTS: [&str; 4] = [
    "TABLE slack_rows",
    "INDEX slack_rows_due",
    "FUNCTION slack_commit_1",
    "VIEW slack_installations",
];

/// Returns whether each of the [`OBJECTS`] exists, and the columns of the table.
const FOUND: &str = "
SELECT ARRAY[
    to_regclass('{schema}.slack_rows') IS NOT NULL,
    to_regclass('{schema}.slack_rows_due') IS NOT NULL,
    to_regproc('{schema}.slack_commit_1') IS NOT NULL,
    to_regclass('{schema}.slack_installations') IS NOT NULL
  ],
  ARRAY(
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = to_regclass('{schema}.slack_rows') AND attnum > 0 AND NOT attisdropped
  )";

async fn ask(connection: &mut PgConnection, statement: String) -> Result<PgRow, sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    connection.fetch_one(statement).await
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    connection.execute(statement).await.map(drop)
}

pub(super) const NEWEST: i64 = 1;

/// The nth migration leads from version n - 1 to version n. Existing migrations never change.
const MIGRATIONS: [&str; NEWEST as usize] = [include_str!("1.sql")];

/// Waits up to a minute for other processes that migrate. The lock ends with the transaction, so a
/// pooler cannot keep it.
const BEGIN: &str = "
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = '60s';
SET LOCAL lock_timeout = '60s';
SELECT pg_advisory_xact_lock(6002290735206989825);
SET LOCAL lock_timeout = '5s'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sql::check;

    #[test]
    fn each_part_of_the_schema_has_a_statement_of_its_own() {
        check(&OBJECTS, MIGRATIONS[0]);
    }
}
