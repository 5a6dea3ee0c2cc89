//! The port to a database: sealed rows, compared by version. Four methods.
//!
//! Everything that this crate keeps (installations, OAuth states, data keys) rides on these four
//! methods, so a protocol is written once and a new database is one file. A backend sees ids,
//! times and ciphertext; it never sees a secret, and it interprets nothing.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use thiserror::Error;

use crate::random;
pub use crate::seal::Sealed;

mod connect;
#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod host;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod seconds;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "redis")]
pub use self::redis::{RedisBackend, RedisOptions};
pub use connect::{ConnectError, ConnectErrorKind};
#[cfg(feature = "dynamodb")]
pub use dynamodb::DynamoDbBackend;
pub use memory::MemoryBackend;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBackend, PostgresOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteBackend;

connect::backends! {
    dynamodb (feature = "dynamodb") DynamoDbBackend: "dynamodb";
    memory (all()) MemoryBackend: "memory";
    postgres (feature = "postgres") PostgresBackend: "postgres" "postgresql";
    redis (feature = "redis") RedisBackend: "redis" "rediss" "cluster";
    sqlite (feature = "sqlite") SqliteBackend: "sqlite";
}

/// A database that keeps sealed rows and compares their versions.
///
/// # Contract
///
/// Each number begins the names of its checks in `testing::conformance` (feature `testing`).
///
/// 1. `read` returns one entry for each slot, in the order of the request; a row that does not
///    exist is `None`. A slot may be requested twice.
/// 2. A row is returned unchanged: version, metadata and sealed bytes to the byte, the lane,
///    and the due time to the second.
/// 3. `Expect::Absent` commits only if the row does not exist, and conflicts otherwise.
/// 4. `Expect::Version` commits only over exactly that version, and conflicts otherwise, also
///    if the row does not exist.
/// 5. `Expect::Any` commits in either case.
/// 6. `Delete` with `only` deletes exactly that version, and conflicts otherwise, also if the row
///    does not exist. Without `only` it deletes any version, and is a no-op if there is none.
/// 7. `Clear` deletes every row of the partition, hundreds too, and of no other, whatever their
///    names begin with. Rows put by the same commit exist afterwards.
/// 8. A commit happens wholly or not at all: one failed expectation leaves every row unchanged,
///    and no `read` sees a part of it.
/// 9. Expectations are judged against the rows before the commit, in whatever order the changes
///    are given. Two changes of one slot are [`Error::Malformed`], and so is a second `Clear`;
///    nothing is written. No changes at all is a success.
/// 10. Of concurrent commits that expect the same version, or absence, and write, exactly one
///     succeeds.
/// 11. A commit that succeeded is seen by every `read` that starts afterwards.
/// 12. Partitions and slots are compared byte for byte: `T1` is not `T12`, `a` is not `A`.
/// 13. `scan` returns every row of its scope that exists throughout the scan exactly once, however
///     many pages, also if the row is overwritten meanwhile, and no row outside its scope. The
///     rows and malformed rows of a page are at most `limit`. The page without `next` is the last;
///     any page may be empty. A limit of 0 is taken as 1, and one of more than 1,000 may be taken as
///     1,000. A cursor that this kind of backend did not make is [`Error::Malformed`].
/// 14. `due` returns the rows of its queue whose time is not after `now`, earliest first, page by
///     page, as `scan` does: rows and malformed rows of a page are at most `limit`, and a row that
///     stays due is returned exactly once. Rows of other queues, and rows that are never due, do
///     not appear, and however many there are, they delay nothing. It is a hint: it may lag
///     behind a commit.
/// 15. A row may have 256 KiB of sealed bytes and 64 KiB of metadata. A commit may have 90
///     changes, and a `read` 90 slots, of 2 MiB in all. More than that may be refused as
///     [`Error::Malformed`], with nothing written.
/// 16. `Check` commits only if exactly that version exists, conflicts otherwise, and writes
///     nothing. Several commits of checks alone may succeed at the same time.
/// 17. A row that cannot be parsed stops nothing: `scan` and `due` skip it and return its key as
///     text in [`Page::malformed`]. `read` of such a row is [`Error::Malformed`]; a change that
///     expects nothing in particular, and `Clear`, still replace or delete it.
/// 18. `scan` of one partition reads that partition only, not the database. (A backend that cannot
///     read a prefix without reading other apps' rows says so in its own documentation.)
///
/// # Consistency
///
/// `read` and `commit` are linearizable per partition: from the primary, never from a replica. A
/// commit is durable when it succeeds: a crash of the process or of the machine does not undo it
/// (a backend that cannot promise that says so in its own documentation).
///
/// # Cancel safety
///
/// Dropping a `commit` leaves it done or not done, never half done. The other methods change
/// nothing.
///
/// # Errors
///
/// [`Error::Conflict`] only from `commit`, and only if nothing was written.
/// [`Error::Unavailable`] from `commit` leaves the outcome open: the commit may have been applied,
/// or may still be. A caller that reads the rows again and finds the version that it minted knows
/// that it was. A caller that finds the old rows knows nothing, since the request may still arrive.
/// What makes it safe to commit again is the expectation: of two commits that expect the same
/// rows one succeeds (rule 10), and the late one conflicts. A late `Clear`, or a change that
/// expects nothing in particular, applies to whatever exists then. A backend never retries a
/// commit by itself unless it knows that nothing happened.
///
/// # Example
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use slack_installs::backend::{Backend, MemoryBackend, Partition, Slot};
///
/// let backend = MemoryBackend::default();
/// let rows = backend.read(&Partition::new("app/T1")?, &[Slot::new("bot")?]).await?;
/// assert!(rows[0].is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Returns the rows of these slots, in this order.
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error>;

    /// Applies all changes of one partition, or none of them.
    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error>;

    /// Returns a page of the rows of this scope, in no promised order.
    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error>;

    /// Returns a page of the rows of this queue whose time has come, earliest first.
    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;
}

/// Forwards the port through a pointer.
macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            async fn read(
                &self,
                partition: &Partition,
                slots: &[Slot],
            ) -> Result<Vec<Option<Row>>, Error> {
                (**self).read(partition, slots).await
            }

            async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
                (**self).commit(partition, changes).await
            }

            async fn scan(
                &self,
                scope: &Scope,
                from: Option<Cursor>,
                limit: usize,
            ) -> Result<Page, Error> {
                (**self).scan(scope, from, limit).await
            }

            async fn due(
                &self,
                queue: &Queue,
                now: SystemTime,
                from: Option<Cursor>,
                limit: usize,
            ) -> Result<Page, Error> {
                (**self).due(queue, now, from, limit).await
            }
        }
    };
}

forward!(Arc);
forward!(Box);

/// Makes a checked name: a text that [`is_name`] accepts, and this check as well.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $form:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            ///
            #[doc = concat!("[`NameError`] unless it is ", $form, ":")]
            /// 1 to [`MAX_NAME_LEN`] visible ASCII characters, and neither `{` nor `}` (which Redis
            /// Cluster gives a meaning).
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                let check: fn(&str) -> bool = $check;
                if is_name(name) && check(name) {
                    Ok(Self(name.into()))
                } else {
                    Err(NameError)
                }
            }

            /// Returns the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(allowed)
}

name!(
    /// The unit of atomicity: one tenant of one app, or one OAuth state, or one app's keyring.
    ///
    /// The form is `<app>/<name>`; the app ends at the first slash.
    Partition,
    "of the form `<app>/<name>`",
    |name| name.split_once('/').is_some_and(|(app, name)| !app.is_empty() && !name.is_empty())
);
name!(
    /// One row's place in its partition: `bot`, `user/U…`, …
    Slot,
    "a name",
    |_| true
);
name!(
    /// The beginning of partitions' texts: `<app>/T` is all partitions of that app whose name
    /// begins with `T`.
    Prefix,
    "a beginning of a partition's text",
    |_| true
);

impl Partition {
    /// Returns the app that the partition belongs to: the text before the first slash.
    #[must_use]
    pub fn app(&self) -> &str {
        self.parts().0
    }

    /// Returns the name of the partition within its app: the text after the first slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').expect("the form was checked")
    }
}

/// The longest partition or slot name, in bytes. Every database has keys of this length.
pub const MAX_NAME_LEN: usize = 255;

/// A text that cannot name a partition, a slot, a prefix, or an app.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "not a storage name: expected 1 to {MAX_NAME_LEN} visible ASCII characters without braces; a \
     partition is `<app>/<name>`, an app has no slash"
)]
pub struct NameError;

/// The place of a row.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The partition.
    pub partition: Partition,
    /// The slot in it.
    pub slot: Slot,
}

impl Key {
    pub(crate) fn of(partition: &Partition, slot: &Slot) -> Self {
        Self {
            partition: partition.clone(),
            slot: slot.clone(),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (partition, slot) = text.split_once(' ')?;
        Some(Self {
            partition: Partition::new(partition).ok()?,
            slot: Slot::new(slot).ok()?,
        })
    }
}

impl fmt::Display for Key {
    /// Writes `partition slot`. Names have no spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.partition, self.slot)
    }
}

/// Which rows a [`Backend::scan`] returns.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Scope {
    /// All rows of all apps.
    Everything,
    /// The rows of one partition.
    Partition(Partition),
    /// The rows of all partitions whose text begins with this.
    Prefix(Prefix),
}

impl Scope {
    /// Returns whether a partition is in this scope.
    #[must_use]
    pub fn contains(&self, partition: &Partition) -> bool {
        match self {
            Self::Everything => true,
            Self::Partition(own) => own == partition,
            Self::Prefix(prefix) => partition.as_str().starts_with(prefix.as_str()),
        }
    }
}

/// What a row waits for. What waits in one lane never delays what waits in another.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// A row of the audit log, to be deleted after its retention.
    Audit,
    /// A tenant's departure, to be reported to the app.
    Departure,
    /// A request that was handled, to be forgotten.
    Handled,
    /// Anything else that ended, to be reported to the app.
    Notice,
    /// A token, to be refreshed.
    Refresh,
    /// An OAuth state, to be deleted after it expired.
    State,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 6] = [
        Self::Audit,
        Self::Departure,
        Self::Handled,
        Self::Notice,
        Self::Refresh,
        Self::State,
    ];

    /// Returns the name that is stored and sealed. It never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Departure => "departure",
            Self::Handled => "handled",
            Self::Notice => "notice",
            Self::Refresh => "refresh",
            Self::State => "state",
        }
    }

    /// Returns the lane of a stored name.
    #[must_use]
    pub fn from_stored(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == name)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One lane of one app.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Queue {
    app: Arc<str>,
    lane: Lane,
}

impl Queue {
    /// Returns the queue of one app's partitions, by what their rows wait for.
    ///
    /// # Errors
    ///
    /// [`NameError`] if `app` cannot be the part of a [`Partition`] before its slash.
    pub fn new(app: impl AsRef<str>, lane: Lane) -> Result<Self, NameError> {
        let app = app.as_ref();
        if !is_name(app) || app.contains('/') {
            return Err(NameError);
        }
        let app = app.into();
        Ok(Self { app, lane })
    }

    /// Returns the app.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Returns the lane.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Returns whether a row waits in this queue.
    #[must_use]
    pub fn contains(&self, partition: &Partition, row: &Row) -> bool {
        partition.app() == &*self.app && row.due.is_some_and(|due| due.lane == self.lane)
    }
}

/// When and for what a row is due.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Due {
    /// What the row waits for.
    pub lane: Lane,
    /// When its time comes; whole seconds, from 1970 to the end of the year 9999. Backends index
    /// it.
    pub at: SystemTime,
}

/// 128 random bits, minted by the writer of a row.
///
/// Never a counter: a row that is deleted and created again never has an old version, and a
/// writer that lost the response recognises its own row when it reads it back.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Version([u8; 16]);

impl Version {
    /// A new version, unlike any other.
    #[must_use]
    pub fn mint() -> Self {
        Self(random::bytes())
    }

    /// The version as a backend stored it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What an operator may see of a row: a JSON object with ids, names, scopes and times.
///
/// Its bytes are authenticated by the seal, so a backend keeps them exactly as they are. Nothing
/// secret is ever in it.
#[derive(Clone, Eq, PartialEq)]
pub struct Metadata(Arc<str>);

impl Metadata {
    /// The text, as it was written or read.
    #[must_use]
    pub fn new(json: impl AsRef<str>) -> Self {
        Self(json.as_ref().into())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stored record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The version that the last writer minted.
    pub version: Version,
    /// What an operator may see.
    pub metadata: Metadata,
    /// The ciphertext.
    pub sealed: Sealed,
    /// When and for what the row is due; `None` for never.
    pub due: Option<Due>,
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes nothing; the commit conflicts unless exactly this version exists.
    Check {
        /// The row.
        slot: Slot,
        /// The version that must exist.
        version: Version,
    },
    /// Deletes every row of the partition.
    Clear,
    /// Deletes a row.
    Delete {
        /// The row.
        slot: Slot,
        /// The version that must exist; `None` for any version, or no row.
        only: Option<Version>,
    },
    /// Writes a row.
    Put {
        /// The row's place.
        slot: Slot,
        /// The new row.
        row: Row,
        /// What must exist now.
        expect: Expect,
    },
}

impl Change {
    /// Returns the slot that this concerns; `None` for [`Change::Clear`].
    #[must_use]
    pub fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Check { slot, .. } | Self::Delete { slot, .. } | Self::Put { slot, .. } => {
                Some(slot)
            }
            Self::Clear => None,
        }
    }

    /// Returns what must exist in the slot before the commit.
    #[must_use]
    pub fn expects(&self) -> Expect {
        match self {
            Self::Check { version, .. }
            | Self::Delete {
                only: Some(version),
                ..
            } => Expect::Version(*version),
            Self::Put { expect, .. } => *expect,
            Self::Delete { only: None, .. } | Self::Clear => Expect::Any,
        }
    }

    /// Returns whether this change may happen where a row of this version exists, or none.
    #[must_use]
    pub fn allows(&self, current: Option<Version>) -> bool {
        match self.expects() {
            Expect::Absent => current.is_none(),
            Expect::Any => true,
            Expect::Version(version) => current == Some(version),
        }
    }

    /// Checks rule 9 of the contract: at most one change of a slot, and one `Clear`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the rule is broken.
    pub fn check(changes: &[Self]) -> Result<(), Error> {
        let mut slots: Vec<_> = changes.iter().map(Self::slot).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            let text = "two changes of one slot in one commit";
            return Err(Error::Malformed(text.into()));
        }
        Ok(())
    }
}

/// What a change expects to exist in its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// No row.
    Absent,
    /// Any row, or none.
    Any,
    /// A row of this version.
    Version(Version),
}

/// The place where a scan or a queue continues. Opaque: only the backend that made it can read it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor(pub String);

impl Cursor {
    /// The place just after this key, for backends that scan in the order of keys. `kind` is the
    /// kind of backend, a word without spaces.
    #[must_use]
    pub fn after(kind: &str, key: &Key) -> Self {
        // Names have no spaces, so one parts the two.
        Self(format!("{kind} {key}"))
    }

    /// The key that [`Cursor::after`] was given.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if this is a cursor of another making, or of another kind.
    pub fn key(&self, kind: &str) -> Result<Key, Error> {
        let rest = self
            .0
            .strip_prefix(kind)
            .and_then(|it| it.strip_prefix(' '));
        let malformed = || Error::Malformed("not a cursor of this backend".into());
        rest.and_then(Key::parse).ok_or_else(malformed)
    }

    /// The place just after this key of this time, for backends that keep a queue in the order of
    /// times, then of keys.
    #[must_use]
    pub fn after_due(kind: &str, at: SystemTime, key: &Key) -> Self {
        Self::after(&format!("{kind}@{}", seconds::since_1970(at)), key)
    }

    /// The time, in seconds since 1970, and the key that [`Cursor::after_due`] was given.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if this is a cursor of another making, or of another kind.
    pub fn due(&self, kind: &str) -> Result<(u64, Key), Error> {
        let malformed = || Error::Malformed("not a cursor of this backend".into());
        let first = self.0.split(' ').next().unwrap_or_default();
        let at = first.strip_prefix(kind).and_then(|it| it.strip_prefix('@'));
        let at = at.and_then(|at| at.parse().ok()).ok_or_else(malformed)?;
        Ok((at, self.key(first)?))
    }
}

/// Rows of a page at most: some megabytes.
fn page_len(limit: usize) -> usize {
    limit.clamp(1, 1000)
}

/// A page of rows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Key, Row)>,
    /// The keys of rows that could not be parsed, as `partition slot`, or as a database shows a key
    /// that itself cannot be parsed: something else wrote or changed them.
    pub malformed: Vec<String>,
    /// The place where the next page starts; `None` after the last page.
    pub next: Option<Cursor>,
}

/// Why a backend could not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A row was not as expected; nothing was written.
    #[error("a stored row was not as expected")]
    Conflict,
    /// The request or a stored row has a form that it cannot have. Trying again does not help.
    #[error("a stored row or a request to the database is malformed")]
    Malformed(#[source] BoxError),
    /// The database did not answer, or not in time. A commit may have happened.
    #[error("the database is unavailable")]
    Unavailable(#[source] BoxError),
}

/// The cause of an [`enum@Error`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
