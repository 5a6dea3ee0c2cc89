//! The options of a Postgres backend, and the settings that it sends to the server.

use std::fmt::Write;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::backend::Partition;
use crate::backend::connect::{ConnectError, ConnectErrorKind as Kind, invalid};
use crate::backend::host::leaves_the_machine;

/// Options of a [`PostgresBackend`](super::PostgresBackend).
///
/// ```
/// use slack_installs::backend::PostgresOptions;
///
/// let options = PostgresOptions { transaction_pooler: true, ..PostgresOptions::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PostgresOptions {
    /// How long a call waits for a connection of the pool, and how long connecting waits for the
    /// server. A call tries again after every refused connection until this time is over, even if
    /// the server refuses the password. Default: 5 seconds.
    pub acquire_timeout: Duration,
    /// Allows a connection to another machine that is unencrypted or may be unencrypted. The
    /// loopback interface and Unix sockets are always allowed. Default: `false`.
    pub allow_plaintext: bool,
    /// How long a commit waits for other commits of its partition. Default: 2 seconds.
    pub lock_timeout: Duration,
    /// The most connections that this process opens. Default: 10.
    pub pool_size: u32,
    /// Applies the policies of [`row_level_security_sql`](Self::row_level_security_sql) to each
    /// call. Connecting fails if they do not bind this role. Default: `false`.
    pub row_level_security: bool,
    /// The schema of the tables: up to 63 lower-case ASCII letters, digits and underscores, no
    /// digit first. It is created if it does not exist. Default: `public`.
    pub schema: String,
    /// Accepts a server with `fsync`, `full_page_writes` or `synchronous_commit` off. On such a
    /// server, a crash undoes commits that succeeded; if a rotated token is lost, so is the tenant.
    /// Default: `false`.
    ///
    /// Set it for tests, and for managed Postgres whose storage makes commits durable by itself
    /// (Neon reports `fsync` off for that reason).
    pub skip_durability_checks: bool,
    /// How long the server may work on one statement, including locks. If there is no response at
    /// all, the call fails 2 seconds later. Default: 5 seconds.
    pub statement_timeout: Duration,
    /// Whether the URL leads to a pooler that assigns server connections by transaction, such as
    /// PgBouncer with `pool_mode = transaction`. Each call is then a transaction that begins with
    /// its own settings, and no statement stays prepared. That costs four round trips instead of
    /// one. Default: `false`.
    pub transaction_pooler: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            acquire_timeout: ACQUIRE_TIMEOUT,
            allow_plaintext: false,
            lock_timeout: LOCK_TIMEOUT,
            pool_size: POOL_SIZE,
            row_level_security: false,
            schema: "public".to_owned(),
            skip_durability_checks: false,
            statement_timeout: STATEMENT_TIMEOUT,
            transaction_pooler: false,
        }
    }
}

impl PostgresOptions {
    /// Returns the SQL that sets up [`row_level_security`](Self::row_level_security).
    ///
    /// Run it as the owner of the tables, after [`migrate`](super::PostgresBackend::migrate).
    /// `role` is the role that the app connects as; it must exist. Running the SQL again changes
    /// nothing.
    ///
    /// A transaction of the app's role then reads and writes only the rows of one partition, which
    /// its setting `slack_installs.partition` names. For `scan` and `due`, it can read the
    /// partitions that begin with `slack_installs.prefix`, or all rows if
    /// `slack_installs.everything` is `on`. A query without these settings sees no row. That stops
    /// a mistaken query of your app, and an injected query that does not know the settings. It does
    /// not stop code that can run any statement, because such code can change the settings.
    ///
    /// The policies also bind the owner. To read the view as the owner, run `SET
    /// slack_installs.everything = 'on'` first. The view is not granted to `role`, because it runs
    /// with the owner's permissions. `pg_dump` requires a role with `BYPASSRLS`.
    #[must_use]
    pub fn row_level_security_sql(&self, role: &str) -> String {
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        ROW_LEVEL_SECURITY
            .replace("{schema}", &self.quoted_schema())
            .replace("{role}", &role)
    }

    pub(super) fn check(&self) -> Result<(), ConnectError> {
        let name = self.schema.as_bytes();
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !(1..=63).contains(&name.len()) || name[0].is_ascii_digit() || !name.iter().all(allowed)
        {
            return Err(invalid(
                "the schema (PostgresOptions::schema, or `schema=` of the URL) must be up to 63 \
                 lower-case ASCII letters, digits and underscores, no digit first",
            ));
        }
        if self.pool_size == 0 {
            return Err(invalid(
                "PostgresOptions::pool_size is 0; set it to at least 1",
            ));
        }
        // Postgres treats 0 as no timeout.
        let timeouts = [
            ("acquire_timeout", self.acquire_timeout),
            ("lock_timeout", self.lock_timeout),
            ("statement_timeout", self.statement_timeout),
        ];
        for (name, timeout) in timeouts {
            if !(1..=MAX_MILLIS).contains(&timeout.as_millis()) {
                return Err(invalid(format!(
                    "PostgresOptions::{name} must be at least 1 ms and at most 24 days"
                )));
            }
        }
        Ok(())
    }

    /// Returns the connection settings.
    pub(super) fn connection(&self, url: &str) -> Result<PgConnectOptions, ConnectError> {
        self.check()?;
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            invalid("the database URL is not a valid `postgres://` URL").with_source(error)
        })?;
        let host = options.get_host();
        let leaves = options.get_socket().is_none() && leaves_the_machine(host);
        if !self.allow_plaintext && leaves && may_be_plain(&options) {
            let text = format!(
                "the connection to {host} may be unencrypted; add `?sslmode=verify-full` to the \
                 URL (and `sslrootcert` for your own CA), or set PostgresOptions::allow_plaintext"
            );
            return Err(ConnectError::new(Kind::Tls, text));
        }
        let options = options.disable_statement_logging();
        // Through a pooler, session settings are lost, and prepared statements may be on another
        // server.
        Ok(if self.transaction_pooler {
            options.extra_float_digits(None).statement_cache_capacity(0)
        } else {
            options.options(self.settings()).options([ISOLATION])
        })
    }

    /// Returns the statements that begin a call's transaction; `None` if the call needs no explicit
    /// transaction, because it has only one statement.
    pub(super) fn begin(&self, opens: Opens<'_>) -> Option<String> {
        if !self.transaction_pooler && !self.row_level_security {
            return None;
        }
        let mut begin = BEGIN.to_owned();
        if self.transaction_pooler {
            for (name, value) in self.settings() {
                write!(begin, "; SET LOCAL {name} = {value}").expect("a String takes any text");
            }
            // The previous call may have used another server.
            begin.extend(["; ", ON_PRIMARY]);
        }
        if self.row_level_security {
            begin.push_str("; ");
            begin.push_str(&match opens {
                Opens::Everything => "SET LOCAL slack_installs.everything = 'on'".to_owned(),
                Opens::Partition(partition) => set("partition", partition.as_str()),
                Opens::Prefix(prefix) => set("prefix", prefix),
            });
        }
        Some(begin)
    }

    /// Returns the settings of a session, or of a transaction if there is no session. Times are in
    /// milliseconds.
    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        [
            (
                "statement_timeout",
                self.statement_timeout.as_millis().to_string(),
            ),
            ("lock_timeout", self.lock_timeout.as_millis().to_string()),
            (
                "idle_in_transaction_session_timeout",
                IDLE_TIMEOUT.as_millis().to_string(),
            ),
            // Temporary tables must be last, because Postgres otherwise searches them first.
            ("search_path", format!("{}, pg_temp", self.quoted_schema())),
        ]
    }

    /// Returns the schema's name in SQL, quoted, whether or not the name is valid.
    pub(super) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }
}

/// The rows that row-level security allows a call to see.
#[derive(Clone, Copy)]
pub(super) enum Opens<'a> {
    Everything,
    Partition(&'a Partition),
    Prefix(&'a str),
}

/// Names the rows for the policies. The value is passed as hex digits, which need no quoting.
fn set(setting: &str, value: &str) -> String {
    let mut hex = String::with_capacity(2 * value.len());
    for byte in value.bytes() {
        write!(hex, "{byte:02x}").expect("a String takes any text");
    }
    let value = format!("convert_from(decode('{hex}', 'hex'), 'UTF8')");
    format!("SELECT set_config('slack_installs.{setting}', {value}, true)")
}

fn may_be_plain(options: &PgConnectOptions) -> bool {
    use PgSslMode::{Allow, Disable, Prefer};
    matches!(options.get_ssl_mode(), Allow | Disable | Prefer)
}

/// Long enough for the first refusals during a failover. After that, an error serves the caller
/// better.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Only a round trip passes between two statements of one call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Long enough for some hundred commits of one partition, which take some milliseconds each.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest timeout that Postgres accepts.
const MAX_MILLIS: u128 = i32::MAX as u128;

/// A read takes well under a millisecond, so ten connections serve thousands of reads a second.
const POOL_SIZE: u32 = 10;

/// Longer than a large page of a scan takes, and shorter than Slack waits before it delivers an
/// event again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

const ISOLATION: (&str, &str) = ("default_transaction_isolation", "read committed");

/// Fails on a standby, because its reads lag behind the primary.
pub(super) const ON_PRIMARY: &str = "
DO $$ BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'this server is a standby' USING ERRCODE = 'read_only_sql_transaction';
  END IF;
END $$";

const ROW_LEVEL_SECURITY: &str = "\
ALTER TABLE {schema}.slack_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.slack_rows FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS slack_partition ON {schema}.slack_rows;
CREATE POLICY slack_partition ON {schema}.slack_rows
  USING (partition = current_setting('slack_installs.partition', true))
  WITH CHECK (partition = current_setting('slack_installs.partition', true));
DROP POLICY IF EXISTS slack_prefix ON {schema}.slack_rows;
CREATE POLICY slack_prefix ON {schema}.slack_rows FOR SELECT
  USING (starts_with(partition, nullif(current_setting('slack_installs.prefix', true), '')));
DROP POLICY IF EXISTS slack_everything ON {schema}.slack_rows;
CREATE POLICY slack_everything ON {schema}.slack_rows FOR SELECT
  USING (current_setting('slack_installs.everything', true) = 'on');
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.slack_schema TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.slack_rows TO {role};
";
