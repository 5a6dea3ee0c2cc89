//! The stored format of one person's own metadata, and which of two metadata is kept. The person's
//! id is plain text; the metadata is sealed.

use serde::{Deserialize, Serialize};

use super::names::INSTALLER;
use super::record::{Draft, Record, Text};
use crate::clock::to_epoch;
use crate::installation::{Installation, UserMetadata};
use crate::store::{Error, Mark};
use crate::tenant::UserId;

/// A metadata, or the record that it was removed, and when the installation was made that it
/// belongs to.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Dated<'a> {
    #[serde(borrow, rename = "metadata")]
    pub(super) text: Option<Text<'a>>,
    /// Seconds since 1970, like all times of this format.
    pub(super) at: u64,
    /// The mark of the metadata that was removed: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed: Option<String>,
}

impl<'a> Dated<'a> {
    /// Returns the one of both that is kept: the later one; on a tie, this one, unless it is the
    /// one that was removed.
    pub(super) fn over(self, old: Self) -> Self {
        let Some(text) = &self.text else {
            return old;
        };
        let is_removed = old.removed.as_ref() == Some(&mark(&text.0));
        let is_late = self.at < old.at || self.at == old.at && is_removed;
        if is_late && (old.text.is_some() || old.removed.is_some()) {
            old
        } else {
            self
        }
    }

    /// Returns the record that this metadata was removed; `None` if there is none. No metadata of
    /// an installation until `at` comes back.
    pub(super) fn removed(self, at: u64) -> Option<Self> {
        let text = self.text?;
        Some(Self {
            text: None,
            at: at.max(self.at),
            removed: Some(mark(&text.0)),
        })
    }
}

#[derive(Deserialize, Serialize)]
struct InstallerFacts {
    user_id: UserId,
}

/// Makes the record that stores a person's metadata over `stored`.
pub(super) fn draft(
    new: &UserMetadata,
    installation: &Installation,
    stored: Option<&Record>,
) -> Result<Draft, Error> {
    let dated = Dated {
        text: Some(Text::of(&new.text)),
        at: to_epoch(installation.installed_at),
        removed: None,
    };
    let old = stored.map(secrets).transpose()?.unwrap_or_default();
    let user_id = new.user.clone();
    let draft = Draft::new(INSTALLER, &InstallerFacts { user_id });
    Ok(draft.with_secrets(&dated.over(old)))
}

/// Returns the metadata in this record.
pub(super) fn user_metadata(record: &Record) -> Result<Option<UserMetadata>, Error> {
    let facts: InstallerFacts = record.facts(INSTALLER)?;
    Ok(secrets(record)?.text.map(|text| UserMetadata {
        user: facts.user_id,
        text: text.0.into_owned(),
    }))
}

/// Makes the record that this person's metadata was removed; `None` if there is none. The last
/// installation was made at `at`.
pub(super) fn without_metadata(record: &Record, at: u64) -> Result<Option<Draft>, Error> {
    let facts: InstallerFacts = record.facts(INSTALLER)?;
    let removed = secrets(record)?.removed(at);
    Ok(removed.map(|removed| Draft::new(INSTALLER, &facts).with_secrets(&removed)))
}

/// Returns the mark of a text: 16 hexadecimal digits.
pub(super) fn mark(text: &str) -> String {
    format!("{:016x}", Mark::of_text(text).0)
}

fn secrets(record: &Record) -> Result<Dated<'_>, Error> {
    record.secrets("a person's metadata")
}
