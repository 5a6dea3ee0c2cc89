//! What departures and notices have in common: they are notes for your app, due in a lane, with the
//! install flow's metadata among their secrets.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::EncryptedStore;
use super::names::{Place, tenant_of};
use super::record::{Draft, Record, Text, unknown};
use crate::backend::{Backend, Key, Lane};
use crate::error_chain::error_chain;
use crate::store::Error;
use crate::tenant::InstallationKey;

/// The secrets of a note. A note without metadata has none.
#[derive(Deserialize, Serialize)]
struct NoteSecrets<'a> {
    #[serde(borrow)]
    metadata: Option<Text<'a>>,
}

/// Adds the metadata of the install flow.
pub(super) fn with_metadata(draft: Draft, metadata: Option<&str>) -> Draft {
    match metadata {
        Some(metadata) => draft.with_secrets(&NoteSecrets {
            metadata: Some(Text::of(metadata)),
        }),
        None => draft,
    }
}

/// Returns the metadata of the install flow.
pub(super) fn metadata(note: &Record) -> Result<Option<String>, Error> {
    if note.plaintext.is_empty() {
        return Ok(None);
    }
    let secrets: NoteSecrets<'_> = note.secrets("a note's metadata")?;
    Ok(secrets.metadata.map(|text| text.0.into_owned()))
}

impl<B: Backend> EncryptedStore<B> {
    /// Returns the notes that are due in this lane, earliest first, at most `limit`. `place`
    /// returns the place of a note in this row, if it can have one. `read` reads the note.
    pub(super) async fn due_notes<T: Send>(
        &self,
        (lane, place): (Lane, fn(&Key) -> Option<Place>),
        now: SystemTime,
        limit: usize,
        read: impl Fn(&InstallationKey, &Key, &Record) -> Result<T, Error> + Send + Sync,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let left = limit.saturating_sub(found.len());
            if left == 0 {
                return Ok(found);
            }
            let page = self.driver.due(lane, now, from, left).await?;
            for (key, _) in page.rows {
                let note = match self.due_note(&key, place(&key), now).await {
                    Ok(Some((tenant, record))) => read(&tenant, &key, &record).map(Some),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                match note {
                    // One note that does not open must not stop the notes of other tenants. It
                    // stays stored.
                    Err(error) if error.is_of_record() => {
                        tracing::error!(partition = %key.partition, slot = %key.slot,
                            error = error_chain(&error),
                            "cannot open a note for your app, so its hook is not called");
                    }
                    note => found.extend(note?),
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }

    /// Returns the note in this row, if it is still due. The list of due rows is a hint: another
    /// worker may have put the note off already.
    async fn due_note(
        &self,
        key: &Key,
        place: Option<Place>,
        now: SystemTime,
    ) -> Result<Option<(InstallationKey, Record)>, Error> {
        let place = place.zip(tenant_of(&key.partition));
        let (place, tenant) = place.ok_or_else(|| unknown("a note's place"))?;
        let records = self.driver.read_current(&key.partition, &[place]).await?;
        let is_due = |record: &Record| record.row.due.is_some_and(|due| due.at <= now);
        let note = records.into_iter().flatten().find(is_due);
        Ok(note.map(|record| (tenant, record)))
    }
}
