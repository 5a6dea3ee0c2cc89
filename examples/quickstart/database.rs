//! The rows of the database, as anyone who can open the file sees them.

use std::fmt::Write as _;

use slack_installs::backend::{Backend as _, Scope, SqliteBackend};

use super::Result;

/// One stored row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stored {
    pub(crate) partition: String,
    pub(crate) slot: String,
    /// The readable part.
    pub(crate) metadata: String,
    /// The ciphertext, as hex digits.
    pub(crate) sealed: String,
}

/// How a row changed between two reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    New,
    Changed,
    Deleted,
}

impl Change {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// Returns every row.
pub(crate) async fn rows(database: &SqliteBackend) -> Result<Vec<Stored>> {
    let page = database.scan(&Scope::Everything, None, 100).await?;
    let stored = page.rows.iter().map(|(key, row)| Stored {
        partition: key.partition.to_string(),
        slot: key.slot.to_string(),
        metadata: row.metadata.as_str().into(),
        sealed: hex(row.sealed.as_bytes()),
    });
    Ok(stored.collect())
}

impl Stored {
    fn is_at_the_place_of(&self, other: &Self) -> bool {
        (&self.partition, &self.slot) == (&other.partition, &other.slot)
    }

    /// Returns how this row differs from `before`, or `None` if it does not.
    pub(crate) fn since(&self, before: &[Self]) -> Option<Change> {
        match before.iter().find(|row| row.is_at_the_place_of(self)) {
            None => Some(Change::New),
            Some(row) if row == self => None,
            Some(_) => Some(Change::Changed),
        }
    }

    /// Returns the partition without the app's id.
    pub(crate) fn place(&self) -> &str {
        self.partition
            .split_once('/')
            .map_or("", |(_, place)| place)
    }

    /// Returns the purpose of the row, for people.
    pub(crate) fn purpose(&self) -> &'static str {
        let place = self.place();
        match self.slot.as_str() {
            "manifest" => "Which data keys exist, and which one seals",
            "bot" => "The bot's token in this workspace",
            "install" => "Who installed the app, and where",
            _ if place == "keyring" => "A data key, sealed by the master key",
            _ if place.starts_with("state/") => "An install flow whose state was used",
            slot if slot.starts_with("user/") => "A user's token",
            _ => "Another record of the app",
        }
    }
}

/// Returns the rows that differ between two reads, and how they differ.
pub(crate) fn changes<'a>(before: &'a [Stored], now: &'a [Stored]) -> Vec<(Change, &'a Stored)> {
    let deleted = before.iter().filter(|row| row.since(now).is_some());
    let deleted = deleted.filter(|row| now.iter().all(|other| !other.is_at_the_place_of(row)));
    let kept = now.iter().filter_map(|row| Some((row.since(before)?, row)));
    kept.chain(deleted.map(|row| (Change::Deleted, row)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
