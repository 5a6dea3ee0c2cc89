//! Connects to a server and checks that it is safe for tokens.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use tokio::time::timeout;

use super::{PostgresOptions, code, name, schema};
use crate::backend::sql::Missing;
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// Returns a new connection to a server that passed the checks.
pub(super) async fn checked(
    connect: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<PgConnection, ConnectError> {
    let failed = |error| failed(error, &name(connect));
    let connection = timeout(options.acquire_timeout, connect.connect()).await;
    let mut connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if is_refused_setting(&error) => {
            return Err(ConnectError::new(Kind::Misconfigured, POOLER));
        }
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(failed(sqlx::Error::PoolTimedOut)),
    };
    let facts = Facts::of(&mut connection).await.map_err(failed)?;
    facts.judge(options)?;
    Ok(connection)
}

/// Connects to a server whose tables have the newest version. If `may_migrate`, migrates them
/// first.
pub(super) async fn migrated(
    connect: &PgConnectOptions,
    options: &PostgresOptions,
    may_migrate: bool,
) -> Result<PgConnection, ConnectError> {
    let mut connection = checked(connect, options).await?;
    let found = if may_migrate {
        schema::migrate(&mut connection, options).await
    } else {
        schema::version(&mut connection, options).await
    };
    match found {
        Ok(schema::NEWEST) => Ok(connection),
        Ok(newer) if newer > schema::NEWEST => {
            let text = format!(
                "the tables were created by a newer version of slack-installs (schema {newer}); \
                 update slack-installs in this app"
            );
            Err(ConnectError::new(Kind::Newer, text))
        }
        Ok(_) => Err(ConnectError::new(Kind::NotMigrated, NOT_MIGRATED)),
        Err(error) if is(&error, &FORBIDDEN) => {
            Err(ConnectError::new(Kind::NotMigrated, NOT_MIGRATED).with_source(error))
        }
        Err(error) if is(&error, &TAKEN) => {
            let text = format!(
                "schema {} has tables or functions with our names, and no version in \
                 slack_schema: if they are another program's, set PostgresOptions::schema, or \
                 `schema=` in the URL; if slack_schema was dropped or emptied, restore it from a \
                 backup",
                options.schema
            );
            Err(ConnectError::new(Kind::Foreign, text).with_source(error))
        }
        Err(error) => Err(failed(error, &name(connect))),
    }
}

/// Checks that the parts without which no row can be read or changed exist.
pub(super) async fn check_parts(
    connection: &mut PgConnection,
    connect: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<(), ConnectError> {
    let needed = missing(connection, connect, options).await?.needed();
    if needed.is_empty() {
        Ok(())
    } else {
        Err(needed.error(&format!("the database {}", name(connect))))
    }
}

/// Returns which parts of the schema do not exist.
pub(super) async fn missing(
    connection: &mut PgConnection,
    connect: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<Missing, ConnectError> {
    let missing = schema::missing(connection, options).await;
    missing.map_err(|error| failed(error, &name(connect)))
}

/// Creates the parts of the schema that do not exist.
pub(super) async fn restore(
    connection: &mut PgConnection,
    connect: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<(), ConnectError> {
    let restored = schema::restore(connection, options).await;
    restored.map_err(|error| failed(error, &name(connect)))?;
    check_parts(connection, connect, options).await
}

/// Checks that the row-level security policies apply to this connection's role.
pub(super) async fn check_wall(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), ConnectError> {
    let wall = WALL.replace("{schema}", &options.quoted_schema());
    let breached = async {
        let found = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(wall)));
        let found = found.await?;
        for (column, reason) in BREACHES.into_iter().enumerate() {
            if found.try_get(column)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    };
    match breached.await.map_err(|error| failed(error, "Postgres"))? {
        None => Ok(()),
        Some(reason) => {
            let text = format!(
                "row-level security does not protect the rows, because {reason}; run the SQL of \
                 PostgresOptions::row_level_security_sql as the tables' owner, and connect the app \
                 as another role"
            );
            Err(ConnectError::new(Kind::Misconfigured, text))
        }
    }
}

/// Maps a driver's error that occurs while the database is opened.
pub(super) fn failed(error: sqlx::Error, database: &str) -> ConnectError {
    let is_denied = code(&error).is_some_and(|code| code.starts_with(AUTHORIZATION));
    let (kind, text) = if is_denied {
        let text = "refused the user or the password; check the URL, and pg_hba.conf on the server";
        (Kind::Denied, text)
    } else {
        (
            Kind::Unavailable,
            "cannot be opened; check its address and the server's log",
        )
    };
    ConnectError::new(kind, format!("the database {database} {text}")).with_source(error)
}

fn is(error: &sqlx::Error, codes: &[&str]) -> bool {
    code(error).is_some_and(|code| codes.contains(&&*code))
}

/// Returns whether PgBouncer refused the connection, because it does not support one of its
/// settings.
fn is_refused_setting(error: &sqlx::Error) -> bool {
    let refused = |message: &str| message.contains("unsupported startup parameter");
    error
        .as_database_error()
        .is_some_and(|error| refused(error.message()))
}

/// The facts that decide whether a server is safe.
#[derive(Debug)]
struct Facts {
    version: i32,
    is_standby: bool,
    is_read_only: bool,
    encoding: String,
    /// Whether each setting of [`DURABILITY`] is on.
    durability: [bool; 3],
    /// In milliseconds.
    statement_timeout: i64,
}

impl Facts {
    async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let found = connection.fetch_one(sqlx::raw_sql(FACTS)).await?;
        Ok(Self {
            version: found.try_get::<i32, _>(0)? / 10_000,
            is_standby: found.try_get(1)?,
            is_read_only: found.try_get(2)?,
            encoding: found.try_get(3)?,
            durability: [found.try_get(4)?, found.try_get(5)?, found.try_get(6)?],
            statement_timeout: found.try_get(7)?,
        })
    }

    fn judge(&self, options: &PostgresOptions) -> Result<(), ConnectError> {
        let misconfigured = |text: String| Err(ConnectError::new(Kind::Misconfigured, text));
        let (version, encoding) = (self.version, &self.encoding);
        if version < OLDEST {
            return misconfigured(format!(
                "the server is Postgres {version}; upgrade it to Postgres 14 or later"
            ));
        }
        if encoding != "UTF8" {
            return misconfigured(format!(
                "the database is encoded as {encoding}; create it with ENCODING 'UTF8'"
            ));
        }
        let reason = match (self.is_standby, self.is_read_only) {
            (true, _) => Some("the server is a standby"),
            (false, true) => Some("default_transaction_read_only is on"),
            (false, false) => None,
        };
        if let Some(reason) = reason {
            let text =
                format!("{reason}; connect to the primary, or to a host name that follows it");
            return Err(ConnectError::new(Kind::ReadOnly, text));
        }
        let arrived = i64::try_from(options.statement_timeout.as_millis());
        if !options.transaction_pooler && arrived != Ok(self.statement_timeout) {
            return misconfigured(POOLER.into());
        }
        let mut settings = DURABILITY.into_iter().zip(self.durability);
        match settings.find(|(_, is_on)| !is_on) {
            Some((setting, _)) if !options.skip_durability_checks => misconfigured(format!(
                "{setting} is off, so a crash of the server loses tokens; turn it on (or see \
                 PostgresOptions::skip_durability_checks)"
            )),
            _ => Ok(()),
        }
    }
}

/// The class of error codes for a user that is refused.
const AUTHORIZATION: &str = "28";

const BREACHES: [&str; 5] = [
    "this role is a superuser",
    "this role has BYPASSRLS",
    "this role owns the tables or may act as their owner",
    "row-level security is not enabled and forced on slack_rows",
    "slack_rows has other policies than slack_everything, slack_partition and slack_prefix",
];

const DURABILITY: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

const FACTS: &str = "
SELECT current_setting('server_version_num')::integer,
  pg_is_in_recovery(),
  current_setting('transaction_read_only') = 'on',
  current_setting('server_encoding'),
  current_setting('fsync') = 'on',
  current_setting('full_page_writes') = 'on',
  current_setting('synchronous_commit') <> 'off',
  (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout')";

/// `insufficient_privilege`, and `invalid_schema_name`, which the server also returns for a schema
/// that the role must not use.
const FORBIDDEN: [&str; 2] = ["42501", "3F000"];

const NOT_MIGRATED: &str = "the tables are missing or old; run `slack-installs migrate`, or PostgresBackend::migrate, as their owner";

/// The oldest major version that the Postgres project supports, as of 2026.
const OLDEST: i32 = 14;

const POOLER: &str = "a pooler between this app and the server drops session settings; set \
     PostgresOptions::transaction_pooler";

/// `duplicate_table` and `duplicate_function`: something has one of our names.
const TAKEN: [&str; 2] = ["42P07", "42723"];

/// Its columns are the [`BREACHES`].
const WALL: &str = "
SELECT role.rolsuper, role.rolbypassrls, pg_has_role(role.oid, slack_rows.relowner, 'MEMBER'),
  NOT (slack_rows.relrowsecurity AND slack_rows.relforcerowsecurity),
  ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = slack_rows.oid ORDER BY polname)
    <> ARRAY['slack_everything', 'slack_partition', 'slack_prefix']
FROM pg_class AS slack_rows, pg_roles AS role
WHERE slack_rows.oid = to_regclass('{schema}.slack_rows') AND role.rolname = current_user";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_server_is_used() {
        good()
            .judge(&PostgresOptions::default())
            .expect("the server is safe");
    }

    #[test]
    fn an_old_server_is_refused() {
        let facts = Facts {
            version: 13,
            ..good()
        };
        let refused = facts.judge(&PostgresOptions::default());
        let refused = refused.expect_err("the version is no longer supported");
        assert_eq!(refused.kind(), Kind::Misconfigured, "{refused}");
        assert!(refused.to_string().contains("Postgres 13"), "{refused}");
    }

    #[test]
    fn settings_that_get_lost_are_refused_unless_each_call_brings_them() {
        let facts = Facts {
            statement_timeout: 0,
            ..good()
        };
        let refused = facts.judge(&PostgresOptions::default());
        let refused = refused.expect_err("a pooler drops the settings");
        assert_eq!(refused.kind(), Kind::Misconfigured, "{refused}");
        assert!(refused.to_string().contains("pooler"), "{refused}");
        let options = PostgresOptions {
            transaction_pooler: true,
            ..PostgresOptions::default()
        };
        facts
            .judge(&options)
            .expect("each transaction begins with its settings");
    }

    fn good() -> Facts {
        Facts {
            version: 14,
            is_standby: false,
            is_read_only: false,
            encoding: "UTF8".to_owned(),
            durability: [true; 3],
            statement_timeout: 5000,
        }
    }
}
