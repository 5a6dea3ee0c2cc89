//! The parts of every record: its row, and the format of its metadata and of its secrets.
//!
//! Metadata is a JSON object. It begins with the version of its format and the kind of record; its
//! facts follow. Golden files in `tests/golden/` fix the formats. Members are added, but never
//! changed or removed.

use std::borrow::Cow;
use std::io;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::{Due, Lane, Metadata, Row};
use crate::installation::Revision;
use crate::store::Error;

/// An opened record.
pub(super) struct Record {
    pub(super) row: Row,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl Record {
    /// Makes the record of a row that does not open. Nothing of the row can be read.
    pub(super) fn unopened(row: Row) -> Self {
        let metadata = Metadata::new("");
        Self {
            row: Row { metadata, ..row },
            plaintext: Zeroizing::default(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        revision(&self.row)
    }

    /// Returns the facts, if the record is of this kind.
    pub(super) fn facts<T: DeserializeOwned>(&self, kind: &'static str) -> Result<T, Error> {
        facts(self.row.metadata.as_str(), kind).ok_or_else(|| unknown(kind))
    }

    /// Returns the secrets. Secret texts are borrowed from the plaintext, because a copy would not
    /// be wiped.
    pub(super) fn secrets<'a, T: Deserialize<'a>>(
        &'a self,
        what: &'static str,
    ) -> Result<T, Error> {
        // A JSON error can contain the text that was parsed, so it is dropped.
        serde_json::from_slice(&self.plaintext).map_err(|_| unknown(what))
    }

    /// Returns a draft of this record with other facts.
    pub(super) fn with_facts(&self, kind: &'static str, facts: &impl Serialize) -> Draft {
        Draft {
            plaintext: self.plaintext.clone(),
            due: self.row.due,
            ..Draft::new(kind, facts)
        }
    }
}

/// Returns the version of this row as a revision.
pub(super) fn revision(row: &Row) -> Revision {
    Revision::from_bytes(*row.version.as_bytes())
}

/// A record that will be written.
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) metadata: String,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
    pub(super) due: Option<Due>,
}

impl Draft {
    /// Makes a record that has only facts and is never due.
    pub(super) fn new(kind: &'static str, facts: &impl Serialize) -> Self {
        Self {
            kind,
            metadata: metadata(kind, facts),
            plaintext: Zeroizing::default(),
            due: None,
        }
    }

    pub(super) fn with_secrets(mut self, secrets: &impl Serialize) -> Self {
        self.plaintext = plaintext(secrets);
        self
    }

    pub(super) fn due(self, lane: Lane, at: impl Into<Option<SystemTime>>) -> Self {
        let due = at.into().map(|at| Due { lane, at });
        Self { due, ..self }
    }
}

/// Formats the metadata of a record of this kind.
pub(super) fn metadata(kind: &'static str, facts: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Form<'a, T> {
        v: u32,
        kind: &'static str,
        #[serde(flatten)]
        facts: &'a T,
    }
    serde_json::to_string(&Form { v: 1, kind, facts }).expect("plain fields always serialise")
}

/// Parses the facts of a record of this kind. Returns `None` if the record is of another kind, or
/// has a format that this version does not know.
pub(super) fn facts<T: DeserializeOwned>(metadata: &str, kind: &str) -> Option<T> {
    if kind_of(metadata) != Some(kind) {
        return None;
    }
    serde_json::from_str(metadata).ok()
}

/// Parses the facts of a row that was not opened, like [`facts`].
///
/// Another program may have formatted the metadata, so that the row does not open. Its facts are
/// still correct, so the version and the kind are compared as values and not as text.
pub(super) fn facts_in_the_clear<T: DeserializeOwned>(metadata: &str, kind: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Form<T> {
        v: u32,
        kind: String,
        #[serde(flatten)]
        facts: T,
    }
    let form: Form<T> = serde_json::from_str(metadata).ok()?;
    (form.v == 1 && form.kind == kind).then_some(form.facts)
}

/// Parses the kind of a record; `None` if its format is unknown.
pub(super) fn kind_of(metadata: &str) -> Option<&str> {
    metadata.strip_prefix(BEGIN)?.split('"').next()
}

/// The text that [`metadata`] writes before the kind. It is compared as text, because parsing the
/// object twice would double the cost. The comparison is exact, because the seal binds each byte.
const BEGIN: &str = r#"{"v":1,"kind":""#;

/// Makes the error for a record whose format is unknown.
pub(super) fn unknown(what: &str) -> Error {
    Error::Unreadable(
        format!("unknown format of {what}: a newer version of this crate may have written it")
            .into(),
    )
}

/// A text that is borrowed from the plaintext, because a copy would not be wiped. Within an option
/// or a list, serde can borrow only through a type of this crate.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

fn plaintext(secrets: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Allocate all of it at once: a vector that grows leaves its old bytes in freed memory.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, secrets).expect("plain fields always serialise");
    let mut plaintext = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *plaintext, secrets).expect("plain fields always serialise");
    plaintext
}

/// Counts the bytes that are written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
