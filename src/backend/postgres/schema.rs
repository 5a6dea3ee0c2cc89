//! What stands in the database, and how an older one becomes a newer one.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::{PostgresOpenError, PostgresOptions, code};
use crate::backend::BoxError;

/// The version of the schema; 0 where there is none.
pub(super) async fn version(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<usize, PostgresOpenError> {
    let schema = options.quoted_schema();
    let stands = format!("SELECT to_regclass('{schema}.slack_schema') IS NOT NULL");
    let stands = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(stands)))
        .await?;
    if !stands.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let version = format!("SELECT version FROM {schema}.slack_schema");
    let version = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(version)))
        .await?;
    let version: i64 = version.try_get(0)?;
    match usize::try_from(version) {
        Ok(known) if known <= NEWEST => Ok(known),
        _ => Err(PostgresOpenError::Newer { found: version }),
    }
}

/// Brings the database to the newest schema. Many processes may do this at once: each takes a
/// lock before it looks.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), PostgresOpenError> {
    if version(connection, options).await? == NEWEST {
        return Ok(());
    }
    bring_up_to_date(connection, options)
        .await
        .map_err(|error| match error {
            PostgresOpenError::Database(source) if is(&source, &FORBIDDEN) => {
                PostgresOpenError::NotMigrated {
                    source: Some(source),
                }
            }
            PostgresOpenError::Database(source) if is(&source, &[TAKEN]) => {
                PostgresOpenError::Foreign {
                    schema: options.schema.clone(),
                }
            }
            other => other,
        })
}

async fn bring_up_to_date(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), PostgresOpenError> {
    let schema = options.quoted_schema();
    let mut transaction = connection.begin_with(BEGIN).await?;
    let missing = format!("SELECT to_regnamespace('{schema}') IS NULL");
    let missing = transaction
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(missing)))
        .await?;
    if missing.try_get(0)? {
        let create = format!("CREATE SCHEMA {schema}");
        transaction
            .execute(sqlx::raw_sql(AssertSqlSafe(create)))
            .await?;
    }
    let done = version(&mut transaction, options).await?;
    let enter = format!("SET LOCAL search_path = {schema}, pg_temp");
    transaction
        .execute(sqlx::raw_sql(AssertSqlSafe(enter)))
        .await?;
    for migration in &MIGRATIONS[done..] {
        transaction.execute(sqlx::raw_sql(*migration)).await?;
    }
    let note = format!("UPDATE slack_schema SET version = {NEWEST}");
    transaction
        .execute(sqlx::raw_sql(AssertSqlSafe(note)))
        .await?;
    Ok(transaction.commit().await?)
}

fn is(error: &BoxError, codes: &[&str]) -> bool {
    let code = error.downcast_ref().and_then(code);
    code.is_some_and(|code| codes.contains(&&*code))
}

pub(super) const NEWEST: usize = MIGRATIONS.len();

/// The nth brings a schema of version n - 1 to version n. Only ever added to.
const MIGRATIONS: [&str; 1] = [include_str!("1.sql")];

/// A minute for others who do the same, and a lock that a pooler cannot leave behind.
const BEGIN: &str = "
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = '60s';
SET LOCAL lock_timeout = '60s';
SELECT pg_advisory_xact_lock(6002290735206989825);
SET LOCAL lock_timeout = '5s'";

/// `insufficient_privilege`, and `invalid_schema_name`, which is a schema that may not be used.
const FORBIDDEN: [&str; 2] = ["42501", "3F000"];

/// `duplicate_table`: somebody else's goes by a name of ours.
const TAKEN: &str = "42P07";
