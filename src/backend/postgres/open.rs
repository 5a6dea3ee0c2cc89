//! From a URL to a server that may be trusted with tokens, or the reason why not.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use thiserror::Error;
use tokio::time::timeout;

use super::PostgresOptions;
use crate::backend::BoxError;

/// Why a database is not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// The server or the driver failed.
    #[error("the database cannot be opened")]
    Database(#[source] BoxError),
    /// Names would be stored in a form that cannot hold them.
    #[error("the database is encoded as {found}; create it with ENCODING 'UTF8'")]
    Encoding {
        /// The encoding.
        found: String,
    },
    /// A table of another program has the name of one of ours.
    #[error("schema {schema} holds other tables of our names; set PostgresOptions::schema")]
    Foreign {
        /// The schema.
        schema: String,
    },
    /// A newer version of this crate wrote it.
    #[error(
        "the tables were made by a newer version of slack-installs (schema {found}); update it \
         here too"
    )]
    Newer {
        /// The schema's version.
        found: i64,
    },
    /// A crash of this server takes back commits that succeeded.
    #[error(
        "{setting} is off, so a crash of the server loses tokens; turn it on \
         (PostgresOptions::skip_durability_checks tells when it may stay off)"
    )]
    NotDurable {
        /// The server's setting.
        setting: &'static str,
    },
    /// The tables are missing or old, and this role cannot change that.
    #[error("the tables are missing or old; run PostgresBackend::migrate as the owner of them")]
    NotMigrated {
        /// What the server said; `None` if it was not asked, since row-level security is on.
        source: Option<BoxError>,
    },
    /// An option cannot be what it is.
    #[error("the options have {0}")]
    Options(&'static str),
    /// Anybody on the way could read along and answer in the server's place.
    #[error(
        "the connection to {host} may be unencrypted; add ?sslmode=verify-full (and sslrootcert \
         for a CA of your own), or set PostgresOptions::allow_plaintext"
    )]
    Plaintext {
        /// The server's name.
        host: String,
    },
    /// Settings do not arrive at the server.
    #[error(
        "there is a pooler before the server, which drops settings of the session; set \
         PostgresOptions::transaction_pooler"
    )]
    Pooler,
    /// The server takes no writes, or answers late.
    #[error("{reason}; connect to the primary, or to a name that follows it")]
    ReadOnly {
        /// A standby, or a setting.
        reason: &'static str,
    },
    /// The policies do not bind this role.
    #[error(
        "row-level security does not hold: {reason}; PostgresOptions::row_level_security_sql has \
         the SQL, to be run by an owner that the app does not connect as"
    )]
    RowLevelSecurity {
        /// What is missing.
        reason: &'static str,
    },
    /// The server is of a version that gets no fixes.
    #[error("the server is Postgres {found}; version 14 or later is needed")]
    TooOld {
        /// Its major version.
        found: i32,
    },
    /// The URL cannot be read.
    #[error("not a URL of a Postgres database")]
    Url(#[source] BoxError),
}

impl From<sqlx::Error> for PostgresOpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A connection of its own to a server that was found good.
pub(super) async fn checked(
    connect: &PgConnectOptions,
    options: &PostgresOptions,
) -> Result<PgConnection, PostgresOpenError> {
    let connection = timeout(options.acquire_timeout, connect.connect()).await;
    let mut connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if is_refused_setting(&error) => return Err(PostgresOpenError::Pooler),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(sqlx::Error::PoolTimedOut.into()),
    };
    Facts::of(&mut connection).await?.judge(options)?;
    Ok(connection)
}

/// Whether the policies bind whoever this connection belongs to.
pub(super) async fn check_wall(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), PostgresOpenError> {
    let wall = WALL.replace("{schema}", &options.quoted_schema());
    let found = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(wall)))
        .await?;
    for (column, reason) in BREACHES.into_iter().enumerate() {
        if found.try_get(column)? {
            return Err(PostgresOpenError::RowLevelSecurity { reason });
        }
    }
    Ok(())
}

/// PgBouncer refuses settings that it does not keep track of.
fn is_refused_setting(error: &sqlx::Error) -> bool {
    let refused = |message: &str| message.contains("unsupported startup parameter");
    error
        .as_database_error()
        .is_some_and(|error| refused(error.message()))
}

/// What decides whether a server may be used.
#[derive(Clone, Debug)]
struct Facts {
    version: i32,
    is_standby: bool,
    is_read_only: bool,
    encoding: String,
    /// On or off, as in [`DURABILITY`].
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

    fn judge(self, options: &PostgresOptions) -> Result<(), PostgresOpenError> {
        if self.version < OLDEST {
            return Err(PostgresOpenError::TooOld {
                found: self.version,
            });
        }
        if self.encoding != "UTF8" {
            return Err(PostgresOpenError::Encoding {
                found: self.encoding,
            });
        }
        if self.is_standby {
            return Err(PostgresOpenError::ReadOnly {
                reason: "the server is a standby",
            });
        }
        if self.is_read_only {
            let reason = "default_transaction_read_only is on";
            return Err(PostgresOpenError::ReadOnly { reason });
        }
        let arrived = i64::try_from(options.statement_timeout.as_millis());
        if !options.transaction_pooler && arrived != Ok(self.statement_timeout) {
            return Err(PostgresOpenError::Pooler);
        }
        let off = DURABILITY
            .into_iter()
            .zip(self.durability)
            .find(|(_, on)| !on);
        match off {
            Some((setting, _)) if !options.skip_durability_checks => {
                Err(PostgresOpenError::NotDurable { setting })
            }
            _ => Ok(()),
        }
    }
}

const BREACHES: [&str; 5] = [
    "this role is a superuser",
    "this role has BYPASSRLS",
    "this role owns the tables or may act as their owner",
    "it is not enabled and forced on slack_rows",
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

/// The oldest major version that the Postgres project still mends, in 2026.
const OLDEST: i32 = 14;

/// The columns are [`BREACHES`].
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
            .expect("nothing is wrong with it");
    }

    #[test]
    fn an_old_server_is_refused() {
        let refused = Facts {
            version: 13,
            ..good()
        }
        .judge(&PostgresOptions::default());
        assert!(matches!(
            refused,
            Err(PostgresOpenError::TooOld { found: 13 })
        ));
    }

    #[test]
    fn settings_that_get_lost_are_refused_unless_each_call_brings_them() {
        let facts = Facts {
            statement_timeout: 0,
            ..good()
        };
        let refused = facts.clone().judge(&PostgresOptions::default());
        assert!(matches!(refused, Err(PostgresOpenError::Pooler)));
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
