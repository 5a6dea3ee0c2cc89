//! The audit log as it is stored: batches of records in runs.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, ListCursor};
use crate::tenant::InstallationKey;

/// Stores the audit log of one app. It knows nothing of hashes and signatures: those are
/// [`audit`](crate::audit)'s.
///
/// [`EncryptedStore`](crate::EncryptedStore) implements it over any backend. The log may use
/// another backend than the installations.
///
/// # Contract
///
/// 1. `append` writes batches only if their places in the run are empty: all of them or none. If the
///    same batches are already there, it succeeds and writes nothing. If another batch is there, it is
///    [`Error::Conflict`].
/// 2. `batches` returns what `append` was given, except what was erased. It returns one entry for
///    each place, in their order.
/// 3. After `erase`, no sealed part under that key can be opened. The public parts stay. A later
///    `append` for the tenant uses another key.
/// 4. `remove` removes the batches of a run, then its entry in the registry. No other run changes.
///
/// # Consistency
///
/// Linearizable per run. The batches are durable when `append` returns.
///
/// # Cancel safety
///
/// A call that is dropped is applied fully or not at all. `erase` and `remove` can be applied in
/// part, and are then called again.
///
/// # Errors
///
/// A batch that does not open is no error: [`StoredBatch::parts`] is `None`. If the database or the
/// key provider does not respond, the error is [`Error::Unavailable`].
#[async_trait]
pub trait AuditStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the app to which the log belongs: its client id.
    fn app(&self) -> &str;

    /// Appends a batch at its place. If the same batch is there, nothing happens.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`], if another batch is there.
    async fn append(&self, run: RunId, batch: &Batch) -> Result<(), Error>;

    /// Returns the batches at these places: `count` of them, from `from` on. `count` is at most 12.
    async fn batches(
        &self,
        run: RunId,
        from: u64,
        count: u64,
    ) -> Result<Vec<Option<StoredBatch>>, Error>;

    /// Writes the entry of a run into the registry, over an older one.
    async fn register(&self, run: RunId, entry: &RunEntry) -> Result<(), Error>;

    /// Returns a page of the registry.
    async fn registry(&self, from: Option<ListCursor>, limit: usize) -> Result<Registry, Error>;

    /// Returns a page of all runs that have batches, whether they are in the registry or not. A run
    /// can be on more than one page. All rows of the log are read for it, and none is opened.
    async fn runs(&self, from: Option<ListCursor>) -> Result<FoundRuns, Error>;

    /// Removes a run.
    async fn remove(&self, run: RunId) -> Result<(), Error>;

    /// Returns the id of the key that seals this tenant's parts, if there is one.
    async fn key_of(&self, tenant: &InstallationKey) -> Result<Option<String>, Error>;

    /// Destroys this key of a tenant's sealed parts. Returns whether it existed.
    async fn erase(&self, tenant: &InstallationKey, key: &str) -> Result<bool, Error>;
}

/// Identifies one run: 16 random bytes. A process that starts begins a run.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RunId([u8; 16]);

impl RunId {
    /// Makes an id from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses the form that `Display` writes.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let id = Self(u128::from_str_radix(hex, 16).ok()?.to_be_bytes());
        // No other form is accepted. Rust also parses a sign, capitals and fewer digits.
        (id.to_string() == hex).then_some(id)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The public part of one record. It names no person and no tenant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PublicPart {
    /// The place of the record in its run, from 0.
    pub sequence: u64,
    /// When it happened, in milliseconds since 1970.
    pub time: u64,
    /// What happened.
    pub event: String,
    /// How it ended.
    pub outcome: String,
    /// How many equal events this record stands for.
    pub count: u64,
    /// What the log says about itself: a JSON text; empty if the record has a sealed part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The hash of the previous record of the run, as hex digits.
    pub previous: String,
    /// The hash of the sealed part, as hex digits; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
}

impl PublicPart {
    /// Makes a record without a note and a payload, which follows the record with this hash.
    #[must_use]
    pub fn new(sequence: u64, time: u64, event: &str, outcome: &str, previous: String) -> Self {
        Self {
            sequence,
            time,
            event: event.to_owned(),
            outcome: outcome.to_owned(),
            count: 1,
            note: String::new(),
            previous,
            payload: String::new(),
        }
    }
}

/// The part of a record that is sealed, before it is sealed. Wiped when dropped.
#[derive(Clone)]
pub struct Plain {
    /// The tenant, under whose key the part is sealed.
    pub tenant: Option<InstallationKey>,
    /// A JSON text.
    pub text: Zeroizing<Vec<u8>>,
}

redacted!(Plain);

/// Records that are stored together, in one row.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The place of the batch in its run, from 0.
    pub place: u64,
    /// The public parts.
    pub records: Vec<PublicPart>,
    /// The sealed part of each record; `None` for a record without one.
    pub plain: Vec<Option<Plain>>,
}

/// A batch that was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredBatch {
    /// The place that the batch itself names. It differs from its place if the batch was moved.
    pub place: u64,
    /// The public parts.
    pub records: Vec<PublicPart>,
    /// The sealed parts; `None` if the batch does not open. Then something changed it.
    pub parts: Option<Vec<Part>>,
}

impl StoredBatch {
    /// Makes a batch that was read, for implementations of the store.
    #[must_use]
    pub fn new(place: u64, records: Vec<PublicPart>, parts: Option<Vec<Part>>) -> Self {
        Self {
            place,
            records,
            parts,
        }
    }
}

/// The sealed part of a record that was read.
#[derive(Clone)]
pub enum Part {
    /// The record has none.
    Absent,
    /// The tenant's key of this id was destroyed.
    Erased(String),
    /// The JSON text.
    Opened(Zeroizing<Vec<u8>>),
}

redacted!(Part);

/// What the registry says of a run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RunEntry {
    /// When the run began, in milliseconds since 1970.
    pub started: u64,
    /// When the entry was written, in milliseconds since 1970.
    pub touched: u64,
    /// Whether the run has ended. No record follows.
    pub is_ended: bool,
    /// Whether another run has found that this one does not go on: its process died.
    pub is_abandoned: bool,
    /// The number of records whose hash is `head`.
    pub records: u64,
    /// The number of batches with these records.
    pub batches: u64,
    /// The hash of the last of these records, as hex digits.
    pub head: String,
    /// How often the process has written all that waited. If it grows, the process lives.
    pub flushes: u64,
}

/// A page of the registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// The runs.
    pub runs: Vec<(RunId, RunEntry)>,
    /// The entries that do not open, as text. Something changed them.
    pub unreadable: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

impl Registry {
    /// Returns whether the page has no entry, not even one that does not open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.unreadable.is_empty()
    }
}

/// A page of runs that have batches.
#[derive(Clone, Debug, Default)]
pub struct FoundRuns {
    /// The runs, each with the highest place of its batches that the page found.
    pub runs: BTreeMap<RunId, u64>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}
