//! What an operator sets, and how it gets to the server.

use std::fmt::Write;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::backend::Partition;
use crate::backend::connect::{ConnectError, ConnectErrorKind as Kind, invalid};
use crate::backend::host::leaves_the_machine;

/// How a [`PostgresBackend`](super::PostgresBackend) uses its server.
///
/// ```
/// use slack_installs::backend::PostgresOptions;
///
/// let options = PostgresOptions { transaction_pooler: true, ..PostgresOptions::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PostgresOptions {
    /// For how long a call waits for a connection of the pool, and at the start for the server. 5
    /// seconds.
    pub acquire_timeout: Duration,
    /// Lets the URL leave encryption to chance, or turn it off, on the way to another machine.
    /// Not by default. The loopback interface and Unix sockets need no leave.
    pub allow_plaintext: bool,
    /// For how long a commit waits for others of its partition. 2 seconds.
    pub lock_timeout: Duration,
    /// The most connections that this process holds. 10.
    pub pool_size: u32,
    /// Puts each call under the policies of
    /// [`row_level_security_sql`](Self::row_level_security_sql), and refuses to start where they
    /// do not bind this role. Not by default.
    pub row_level_security: bool,
    /// The schema that holds the tables: up to 63 lower-case ASCII letters, digits and
    /// underscores, no digit first. `public`. One that is not there is made.
    pub schema: String,
    /// Starts on a server with `fsync`, `full_page_writes` or `synchronous_commit` off. Not by
    /// default: a crash there takes back commits that succeeded, and with a rotated token the
    /// tenant.
    ///
    /// For tests, and for managed Postgres whose storage keeps commits by means of its own (Neon
    /// reports `fsync` off for that reason).
    pub skip_durability_checks: bool,
    /// For how long the server may work on one statement, locks included. 5 seconds. A call that
    /// gets no answer at all is given up 2 seconds after this.
    pub statement_timeout: Duration,
    /// Whether the URL leads to a pooler that hands out server connections by transaction, such
    /// as PgBouncer with `pool_mode = transaction`. Each call is then a transaction that begins
    /// with its own settings, and no statement stays prepared. Four round trips in place of one.
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
    /// The SQL of the second wall, for [`row_level_security`](Self::row_level_security): run it
    /// as the owner of the tables, after [`migrate`](super::PostgresBackend::migrate). `role` is
    /// the one that the app connects as; it must exist. Running it again changes nothing.
    ///
    /// A transaction of the app's role then sees and writes the rows of one partition, named by
    /// its setting `slack_installs.partition`. It reads, for `scan` and `due`, the rows of the
    /// partitions that begin with `slack_installs.prefix`, or all rows if
    /// `slack_installs.everything` is `on`. A query without one of these settings sees no row: a
    /// mistaken query of your app, or an injected one that does not know the settings. Code that
    /// can run any statement can also change the settings; the policies do not stop it.
    ///
    /// The policies bind the owner as well. To read the view as the owner, run
    /// `SET slack_installs.everything = 'on'` first. The view is not granted to `role`, since it
    /// runs with the owner's rights. `pg_dump` needs a role with `BYPASSRLS`.
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
                "PostgresOptions::pool_size is 0; one at least is needed",
            ));
        }
        // To Postgres, 0 is no timeout at all.
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

    /// Where and how to connect.
    pub(super) fn connection(&self, url: &str) -> Result<PgConnectOptions, ConnectError> {
        self.check()?;
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            invalid("not a URL of a Postgres database").with_source(error)
        })?;
        let host = options.get_host();
        let leaves = options.get_socket().is_none() && leaves_the_machine(host);
        if !self.allow_plaintext && leaves && may_be_plain(&options) {
            let text = format!(
                "the connection to {host} may be unencrypted; add ?sslmode=verify-full (and \
                 sslrootcert for a CA of your own), or set PostgresOptions::allow_plaintext"
            );
            return Err(ConnectError::new(Kind::Tls, text));
        }
        let options = options.disable_statement_logging();
        // A pooler knows neither the settings, nor who has prepared what where.
        Ok(if self.transaction_pooler {
            options.extra_float_digits(None).statement_cache_capacity(0)
        } else {
            options.options(self.settings()).options([ISOLATION])
        })
    }

    /// What a call's transaction begins with; `None` if its one statement needs none.
    pub(super) fn begin(&self, opens: Opens<'_>) -> Option<String> {
        if !self.transaction_pooler && !self.row_level_security {
            return None;
        }
        let mut begin = BEGIN.to_owned();
        if self.transaction_pooler {
            for (name, value) in self.settings() {
                write!(begin, "; SET LOCAL {name} = {value}").expect("a String takes any text");
            }
            // The last call may have met another server.
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

    /// Settings of a session, or of a transaction where there is no session. Times are in
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
            // Temporary tables last, since they would come first.
            ("search_path", format!("{}, pg_temp", self.quoted_schema())),
        ]
    }

    /// The schema's name in SQL, checked or not.
    pub(super) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }
}

/// The rows that row-level security opens to a call.
#[derive(Clone, Copy)]
pub(super) enum Opens<'a> {
    Everything,
    Partition(&'a Partition),
    Prefix(&'a str),
}

/// Names the rows to the policies. The value is passed as hex digits, which need no quoting.
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

/// Enough for a failover's first refusals; a caller that waits longer is better told.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two statements of one call lies a round trip, and nothing else.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Some hundred commits of one partition, each some milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The most that Postgres takes for a timeout.
const MAX_MILLIS: u128 = i32::MAX as u128;

/// A read takes well under a millisecond, so ten serve thousands a second.
const POOL_SIZE: u32 = 10;

/// More than a large page of a scan takes, and less than Slack waits for a second delivery.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

const ISOLATION: (&str, &str) = ("default_transaction_isolation", "read committed");

/// Fails on a standby, which would answer reads, but late.
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
