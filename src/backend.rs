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

mod cached;
#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "testing")]
mod flaky;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod host;
mod memory;
#[cfg(any(
    feature = "dynamodb",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
mod odd;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(
    feature = "dynamodb",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
mod seconds;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "redis")]
pub use self::redis::{RedisBackend, RedisOpenError, RedisOptions};
pub use cached::{CacheOptions, CachedBackend};
#[cfg(feature = "dynamodb")]
pub use dynamodb::{DynamoDbBackend, DynamoDbOpenError};
#[cfg(feature = "testing")]
pub use flaky::{Counts, Faults, Flaky};
pub use memory::MemoryBackend;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBackend, PostgresOpenError, PostgresOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteBackend, SqliteOpenError};

/// A database that keeps sealed rows and compares their versions.
///
/// # Contract
///
/// Each number begins the names of its checks in
/// [`conformance`] (feature `testing`).
///
/// 1. `read` answers one entry for each slot asked for, in that order; a row that does not exist
///    is `None`. A slot may be asked for twice.
/// 2. A row comes back as it was written: version, metadata and sealed bytes to the byte,
///    `due_at` to the second.
/// 3. `Expect::Absent` commits only where no row stands, and conflicts otherwise.
/// 4. `Expect::Version` commits only over exactly that version, and conflicts otherwise, also
///    where no row stands.
/// 5. `Expect::Any` commits in either case.
/// 6. `Delete` with `only` removes exactly that version, and conflicts otherwise, also where no
///    row stands. Without `only` it removes whatever stands, and is content with nothing.
/// 7. `Clear` removes every row of the partition, hundreds too, and of no other, whatever their
///    names begin with. Rows put by the same commit stand afterwards.
/// 8. A commit happens wholly or not at all: one failed expectation leaves every row as it was,
///    and no `read` sees a part of it.
/// 9. Expectations are judged against the rows as they stood before the commit, in whatever order
///    the changes are given. Two changes of one slot are [`Error::Malformed`], and so is a
///    second `Clear`; nothing is written. No changes at all is a success.
/// 10. Of concurrent commits that expect the same version, or absence, exactly one succeeds.
/// 11. A commit that succeeded is seen by every `read` that starts afterwards.
/// 12. Partitions and slots are compared byte for byte: `T1` is not `T12`, `a` is not `A`.
/// 13. `scan` visits every slot that holds a row throughout the scan exactly once, however many
///    pages, also if the row is overwritten meanwhile, and never answers more than `limit` rows a
///    page. The page without `next` is the last; any page may be empty. A limit of 0 is taken as
///    1, and one of more than 1,000 may be taken as 1,000. A cursor that this kind of backend did not make is [`Error::Malformed`].
/// 14. `due` answers rows whose `due_at` is not after `now`, earliest first, at most `limit`.
///    Rows without `due_at` never appear. It is a hint: it may lag behind a commit.
/// 15. A row may have 256 KiB of sealed bytes and 64 KiB of metadata. A commit may have 90
///    changes, and a `read` 90 slots, of 2 MiB in all. More than that may be refused as
///    [`Error::Malformed`], with nothing written.
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
/// [`Error::Conflict`] only from `commit`, and only when nothing was written.
/// [`Error::Unavailable`] from `commit` leaves the outcome open: the commit may have happened, or
/// may still happen. A caller that reads the rows again and finds the version that it minted knows
/// that it did; one that finds them as they were knows nothing, since the request may be on its
/// way. What makes it safe to commit anew is the expectation: of two commits that expect the same
/// rows one succeeds (rule 10), and the late one conflicts. A late `Clear`, or a change that
/// expects nothing in particular, takes what stands by then. A backend never retries a commit by
/// itself unless it knows that nothing happened.
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
    /// The rows of these slots, in this order.
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error>;

    /// All changes of one partition, or none of them.
    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error>;

    /// A page of all rows of all partitions, in no promised order.
    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error>;

    /// Rows whose `due_at` has come.
    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error>;
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

            async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
                (**self).scan(from, limit).await
            }

            async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
                (**self).due(now, limit).await
            }
        }
    };
}

forward!(Arc);
forward!(Box);

/// Makes a checked name: 1 to [`MAX_NAME_LEN`] visible ASCII characters but `{` and `}`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            ///
            /// [`NameError`] unless it is 1 to [`MAX_NAME_LEN`] visible ASCII characters, and
            /// neither `{` nor `}` (which Redis Cluster gives a meaning).
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                let allowed = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
                match (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(allowed) {
                    true => Ok(Self(name.into())),
                    false => Err(NameError),
                }
            }

            /// The name.
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

name!(
    /// The unit of atomicity: one tenant of one app, or one OAuth state, or one app's keyring.
    Partition
);
name!(
    /// One row's place in its partition: `bot`, `user/U…`, …
    Slot
);

/// The longest partition or slot name, in bytes. Every database has keys of this length.
pub const MAX_NAME_LEN: usize = 255;

/// A text that cannot name a partition or a slot.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a storage name: expected 1 to {MAX_NAME_LEN} visible ASCII characters without braces")]
pub struct NameError;

/// Where a row stands.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The partition.
    pub partition: Partition,
    /// The slot in it.
    pub slot: Slot,
}

/// 128 random bits, minted by whoever writes a row.
///
/// Never a counter: a row that is deleted and made anew never has an old version again, and a
/// writer that lost the answer recognises its own row on reading it back.
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
    /// Who wrote it last.
    pub version: Version,
    /// What may be seen.
    pub metadata: Metadata,
    /// What may not.
    pub sealed: Sealed,
    /// When somebody should look at it again; whole seconds, from 1970 to the end of the year
    /// 9999. Backends index it.
    pub due_at: Option<SystemTime>,
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes a row.
    Put {
        /// Where.
        slot: Slot,
        /// What.
        row: Row,
        /// What must stand there now.
        expect: Expect,
    },
    /// Removes a row.
    Delete {
        /// Where.
        slot: Slot,
        /// The version that must stand there now; `None` for whatever stands, or nothing.
        only: Option<Version>,
    },
    /// Removes every row of the partition.
    Clear,
}

impl Change {
    /// The slot that this changes; `None` for [`Change::Clear`].
    #[must_use]
    pub fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Put { slot, .. } | Self::Delete { slot, .. } => Some(slot),
            Self::Clear => None,
        }
    }

    /// Whether this change may happen where a row of this version stands, or none.
    #[must_use]
    pub fn allows(&self, standing: Option<Version>) -> bool {
        match self {
            Self::Put {
                expect: Expect::Absent,
                ..
            } => standing.is_none(),
            Self::Put {
                expect: Expect::Version(version),
                ..
            } => standing == Some(*version),
            Self::Delete {
                only: Some(version),
                ..
            } => standing == Some(*version),
            Self::Put {
                expect: Expect::Any,
                ..
            }
            | Self::Delete { only: None, .. }
            | Self::Clear => true,
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
        match slots.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(Error::Malformed(
                "two changes of one slot in one commit".into(),
            )),
            false => Ok(()),
        }
    }
}

/// What a [`Change::Put`] expects to stand in its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Anything or nothing.
    Any,
    /// A row of this version.
    Version(Version),
}

/// Where a scan goes on. Opaque: only the backend that made it can read it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor(pub String);

impl Cursor {
    /// The place just after this key, for backends that scan in the order of keys. `kind` is the
    /// kind of backend, a word without spaces.
    #[must_use]
    pub fn after(kind: &str, key: &Key) -> Self {
        // Names have no spaces, so one parts the two.
        Self(format!("{kind} {} {}", key.partition, key.slot))
    }

    /// The key that [`Cursor::after`] was given.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if this is a cursor of another making, or of another kind.
    pub fn key(&self, kind: &str) -> Result<Key, Error> {
        let malformed = || Error::Malformed("not a cursor of this backend".into());
        let mut parts = self.0.splitn(3, ' ');
        let (Some(found), Some(partition), Some(slot)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        if found != kind {
            return Err(malformed());
        }
        match (Partition::new(partition), Slot::new(slot)) {
            (Ok(partition), Ok(slot)) => Ok(Key { partition, slot }),
            _ => Err(malformed()),
        }
    }
}

/// A page of a scan.
#[derive(Clone, Debug)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Key, Row)>,
    /// Where the next page starts; `None` after the last.
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
