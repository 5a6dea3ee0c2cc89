//! The port to a database: sealed rows with versions, behind four methods.
//!
//! All data of this crate (installations, used OAuth states, data keys) is stored through these four
//! methods. So each protocol is written once, and a new database needs one file. A backend sees
//! ids, times and ciphertext. It never sees a secret, and it interprets nothing.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use thiserror::Error;

use crate::forward::forward;
use crate::random;
pub use crate::seal::Sealed;

mod connect;
#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
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

/// Stores sealed rows in a database, and compares their versions.
///
/// # Contract
///
/// Each rule's number begins the names of its checks in `testing::conformance` (feature `testing`).
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
/// 7. `Clear` deletes every row of its partition, even hundreds, and no row of another partition,
///    even if the names begin alike. Rows put by the same commit exist afterwards.
/// 8. A commit is applied wholly or not at all. One failed expectation leaves every row unchanged,
///    and no `read` sees a part of a commit.
/// 9. Expectations are compared with the rows before the commit. The order of the changes is
///    irrelevant. Two changes of one slot are [`Error::Malformed`], and so is a second `Clear`;
///    nothing is written. A commit without changes succeeds.
/// 10. Of concurrent commits that expect the same version, or absence, and write, exactly one
///     succeeds.
/// 11. Every `read` that starts after a commit succeeded sees that commit.
/// 12. Partitions and slots are compared byte for byte: `T1` is not `T12`, `a` is not `A`.
/// 13. `scan` returns a row of its scope exactly once, over any number of pages, if the row exists
///     throughout the scan, even if it is overwritten meanwhile. `scan` returns no row outside its
///     scope. A page has at most `limit` rows and malformed rows together. The page without `next`
///     is the last; any page may be empty. A limit of 0 counts as 1, and a limit of more than 1,000
///     may count as 1,000. A cursor of another kind of backend is [`Error::Malformed`].
/// 14. `due` returns the rows of its queue whose time is not after `now`, earliest first, in pages,
///     as `scan` does. A page has at most `limit` rows and malformed rows together, and a row that
///     stays due is returned exactly once. It returns no rows of other queues, and no rows that are
///     never due; any number of such rows causes no delay. The result is a hint: it may lag behind
///     a commit.
/// 15. A row may have 256 KiB of sealed bytes and 64 KiB of metadata. A commit may have 90 changes,
///     and a `read` 90 slots, of 2 MiB in total. A larger request may be refused as
///     [`Error::Malformed`], with nothing written.
/// 16. `Check` commits only if exactly that version exists, conflicts otherwise, and writes
///     nothing. Several commits of checks alone may succeed at the same time.
/// 17. A row that cannot be parsed does not stop `scan` or `due`. They skip it and return its key
///     as text in [`Page::malformed`]. `read` of such a row is [`Error::Malformed`]. `Clear`, and a
///     change that expects nothing in particular, still replace or delete it.
/// 18. `scan` of one partition reads only that partition, not the whole database. (If a backend
///     must read other apps' rows to read a prefix, its own documentation says so.)
///
/// # Consistency
///
/// `read` and `commit` are linearizable per partition: they use the primary, never a replica. A
/// commit that succeeded is durable: a crash of the process or of the machine does not undo it. (If
/// a backend cannot promise that, its own documentation says so.)
///
/// # Cancel safety
///
/// If a `commit` is dropped, it is applied wholly or not at all. The other methods write nothing.
///
/// # Errors
///
/// Only `commit` returns [`Error::Conflict`], and only if nothing was written. If `commit` returns
/// [`Error::Unavailable`], the outcome is unknown: the commit may have been applied, or may still
/// be. A caller that reads the rows again and finds the version that it minted knows that the
/// commit was applied. A caller that finds the old rows knows nothing, because the request may
/// still arrive. Expectations make it safe to commit again: of two commits that expect the same
/// rows, one succeeds (rule 10), and the late one conflicts. A late `Clear`, or a change that
/// expects nothing in particular, applies to the rows that exist then. A backend retries a commit
/// by itself only if it knows that nothing was written.
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

    /// Returns a page of this queue's due rows, earliest first.
    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;
}

forward!(Backend for [Arc, Box] {
    fn read(partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error>;
    fn commit(partition: &Partition, changes: &[Change]) -> Result<(), Error>;
    fn scan(scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error>;
    fn due(
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize
    ) -> Result<Page, Error>;
});

/// Defines a checked name: a text that [`is_name`] and this check accept.
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
            /// 1 to [`MAX_NAME_LEN`] visible ASCII characters, without `{` and `}` (which have a
            /// meaning in Redis Cluster).
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
    /// The unit of atomicity: one tenant of one app, one used OAuth state, or one app's keyring.
    ///
    /// The form is `<app>/<name>`. The app ends at the first slash.
    Partition,
    "of the form `<app>/<name>`",
    |name| name.split_once('/').is_some_and(|(app, name)| !app.is_empty() && !name.is_empty())
);
name!(
    /// The name of a row in its partition: `bot` or `user/U…`, for example.
    Slot,
    "a name",
    |_| true
);
name!(
    /// The start of partition texts: `<app>/T` selects all partitions of that app whose names begin
    /// with `T`.
    Prefix,
    "the start of a partition's text",
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
        self.0
            .split_once('/')
            .expect("the constructor checked the form")
    }
}

/// The length limit of partition and slot names, in bytes. Every database supports keys of this
/// length.
pub const MAX_NAME_LEN: usize = 255;

/// A text that cannot name a partition, a slot, a prefix, or an app.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "not a storage name: expected 1 to {MAX_NAME_LEN} visible ASCII characters without braces; a \
     partition is `<app>/<name>`, an app has no slash"
)]
pub struct NameError;

/// The partition and the slot of a row.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The partition.
    pub partition: Partition,
    /// The slot.
    pub slot: Slot,
}

impl Key {
    pub(crate) fn of(partition: &Partition, slot: &Slot) -> Self {
        Self {
            partition: partition.clone(),
            slot: slot.clone(),
        }
    }

    /// Parses the text that [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (partition, slot) = text.split_once(' ')?;
        Some(Self {
            partition: Partition::new(partition).ok()?,
            slot: Slot::new(slot).ok()?,
        })
    }
}

impl fmt::Display for Key {
    /// Writes `partition slot`. Neither name has spaces.
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

/// What a row waits for. Rows in one lane never delay rows in another.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// A row of the audit log, to be deleted after its retention.
    Audit,
    /// A tenant's departure, to be reported to the app.
    Departure,
    /// A handled request, to be deleted.
    Handled,
    /// Another event, to be reported to the app.
    Notice,
    /// A token, to be refreshed.
    Refresh,
    /// A used OAuth state, to be deleted after it expired.
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

    /// Returns the lane that has this stored name.
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

/// One lane of one app: the rows of the app's partitions that wait in the lane.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Queue {
    app: Arc<str>,
    lane: Lane,
}

impl Queue {
    /// Returns the queue of one app and one lane.
    ///
    /// # Errors
    ///
    /// [`NameError`] if `app` cannot be the app of a [`Partition`].
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

/// When and why a row is due.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Due {
    /// What the row waits for.
    pub lane: Lane,
    /// When the row is due, in whole seconds, from 1970 to the end of the year 9999. Backends index
    /// it.
    pub at: SystemTime,
}

/// 128 random bits, minted by the writer of a row.
///
/// It is never a counter. So a row that is deleted and created again never gets an old version. And
/// a writer that lost the response recognises its own row when it reads the row again.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Version([u8; 16]);

impl Version {
    /// Mints a new version, different from all others.
    #[must_use]
    pub fn mint() -> Self {
        Self(random::bytes())
    }

    /// Returns the version of these stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store.
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

/// The part of a row that an operator may see: a JSON object with ids, names, scopes and times.
///
/// The seal authenticates its bytes, so a backend must not change them. It never holds a secret.
#[derive(Clone, Eq, PartialEq)]
pub struct Metadata(Arc<str>);

impl Metadata {
    /// Wraps the text, unchanged.
    #[must_use]
    pub fn new(json: impl AsRef<str>) -> Self {
        Self(json.as_ref().into())
    }

    /// Returns the JSON text.
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

/// One stored row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The version that the last writer minted.
    pub version: Version,
    /// The metadata, which an operator may see.
    pub metadata: Metadata,
    /// The ciphertext.
    pub sealed: Sealed,
    /// When and why the row is due; `None` if it is never due.
    pub due: Option<Due>,
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes nothing. The commit conflicts unless the row exists and has this version.
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
        /// The version that must exist; `None` for any version or no row.
        only: Option<Version>,
    },
    /// Writes a row.
    Put {
        /// The slot of the row.
        slot: Slot,
        /// The new row.
        row: Row,
        /// What must exist before the commit.
        expect: Expect,
    },
}

impl Change {
    /// Returns the slot of this change; `None` for [`Change::Clear`].
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

    /// Returns whether the current version (`None` if no row exists) meets this change's
    /// expectation.
    #[must_use]
    pub fn allows(&self, current: Option<Version>) -> bool {
        match self.expects() {
            Expect::Absent => current.is_none(),
            Expect::Any => true,
            Expect::Version(version) => current == Some(version),
        }
    }

    /// Checks rule 9 of the contract: at most one change per slot, and at most one `Clear`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if the rule is broken.
    pub fn check(changes: &[Self]) -> Result<(), Error> {
        let mut slots: Vec<_> = changes.iter().map(Self::slot).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            let text = "the commit changes one slot twice, or has two `Clear`s; keep one of them";
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

/// The place where a scan or a queue continues. It is opaque: only the backend that made it can
/// read it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor(pub String);

impl Cursor {
    /// Returns the cursor after this key, for backends that scan in key order. `kind` is the kind
    /// of backend, a word without spaces.
    #[must_use]
    pub fn after(kind: &str, key: &Key) -> Self {
        // Names have no spaces, so a space separates them.
        Self(format!("{kind} {key}"))
    }

    /// Returns the key that was passed to [`Cursor::after`].
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if another function, or another kind of backend, made this cursor.
    pub fn key(&self, kind: &str) -> Result<Key, Error> {
        let rest = self
            .0
            .strip_prefix(kind)
            .and_then(|it| it.strip_prefix(' '));
        let malformed = || Error::Malformed("the cursor is not from this kind of backend".into());
        rest.and_then(Key::parse).ok_or_else(malformed)
    }

    /// Returns the cursor after this time and key, for backends that sort a queue by time, then by
    /// key.
    #[must_use]
    pub fn after_due(kind: &str, at: SystemTime, key: &Key) -> Self {
        Self::after(&format!("{kind}@{}", seconds::since_1970(at)), key)
    }

    /// Returns the time, in seconds since 1970, and the key that were passed to
    /// [`Cursor::after_due`].
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if another function, or another kind of backend, made this cursor.
    pub fn due(&self, kind: &str) -> Result<(u64, Key), Error> {
        let malformed = || Error::Malformed("the cursor is not from this kind of backend".into());
        let first = self.0.split(' ').next().unwrap_or_default();
        let at = first.strip_prefix(kind).and_then(|it| it.strip_prefix('@'));
        let at = at.and_then(|at| at.parse().ok()).ok_or_else(malformed)?;
        Ok((at, self.key(first)?))
    }
}

/// Returns the number of rows of a page: at most 1000, which are some megabytes.
fn page_len(limit: usize) -> usize {
    limit.clamp(1, 1000)
}

/// A page of rows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Key, Row)>,
    /// The keys of rows that cannot be parsed, because something else wrote or changed them. Each
    /// key is `partition slot`; if the key itself cannot be parsed, it is as the database shows it.
    pub malformed: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<Cursor>,
}

/// Why a call of a [`Backend`] failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A row does not meet its expectation; nothing was written.
    #[error("a row is not in the state that the commit expects; nothing was written")]
    Conflict,
    /// The request or a stored row is not valid. A retry does not help.
    #[error("a stored row or a request to the database is malformed")]
    Malformed(#[source] BoxError),
    /// The database did not respond, or not in time. A commit may have been applied.
    #[error("the database is unavailable")]
    Unavailable(#[source] BoxError),
}

/// The cause of an [`enum@Error`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Returns whether the same call may succeed later, without any change by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
