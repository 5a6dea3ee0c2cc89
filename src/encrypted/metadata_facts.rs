//! The stored format of one person's own metadata, and which of two metadata is kept. The person's
//! id is plain text; the metadata is sealed.

use serde::{Deserialize, Serialize};

use super::names::INSTALLER;
use super::record::{Draft, Record, Text};
use crate::clock::to_epoch;
use crate::installation::{Installation, UserMetadata};
use crate::store::Error;
use crate::tenant::UserId;

/// A metadata, and when the installation was made that it belongs to.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Dated<'a> {
    #[serde(borrow, rename = "metadata")]
    pub(super) text: Option<Text<'a>>,
    /// Seconds since 1970, like all times of this format.
    pub(super) at: u64,
}

impl<'a> Dated<'a> {
    /// Returns the one of both that is kept: the later one; on a tie, this one.
    pub(super) fn over(self, old: Self) -> Self {
        let is_kept = old.text.is_none() || old.at <= self.at;
        if self.text.is_some() && is_kept {
            self
        } else {
            old
        }
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

fn secrets(record: &Record) -> Result<Dated<'_>, Error> {
    record.secrets("a person's metadata")
}
