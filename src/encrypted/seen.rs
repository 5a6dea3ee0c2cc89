//! Stores handled requests as rows, one partition each. They are swept like states.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::EncryptedStore;
use super::driver::Step;
use super::names::{SEEN, seen};
use super::record::{Draft, Record};
use crate::backend::{Backend, Lane};
use crate::installation::Revision;
use crate::store::{Claim, Error, SeenId, SeenStore};

/// The facts of a request, in plain text.
#[derive(Deserialize, Serialize)]
struct SeenFacts {
    is_finished: bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> SeenStore for EncryptedStore<B> {
    async fn claim(&self, id: &SeenId, now: SystemTime, until: SystemTime) -> Result<Claim, Error> {
        let decide = |records: &[Option<Record>]| {
            let is_live = |record: &&Record| record.row.due.is_none_or(|due| now < due.at);
            let stored = records.iter().flatten().find(is_live);
            Ok(match stored.map(is_finished).transpose()? {
                Some(true) => (Vec::new(), Some(Claim::Finished)),
                Some(false) => (Vec::new(), Some(Claim::InProgress)),
                None => (vec![put(false, until)], None),
            })
        };
        let partition = self.driver.app.seen(id);
        let (revision, stored) = self.driver.update(&partition, &[seen()], decide).await?;
        self.sweep_now_and_then();
        Ok(stored.unwrap_or_else(|| Claim::Taken(revision.expect("taking a claim puts a row"))))
    }

    async fn finish(&self, id: &SeenId, claim: Revision, until: SystemTime) -> Result<bool, Error> {
        let partition = self.driver.app.seen(id);
        let step = |_: &Record| Ok(put(true, until));
        Ok(self.driver.change(&partition, seen(), claim, step).await?.1)
    }

    async fn release(&self, id: &SeenId, claim: Revision) -> Result<bool, Error> {
        let partition = self.driver.app.seen(id);
        let step = |_: &Record| Ok(Step::Delete(seen().slot));
        Ok(self.driver.change(&partition, seen(), claim, step).await?.1)
    }
}

fn is_finished(record: &Record) -> Result<bool, Error> {
    Ok(record.facts::<SeenFacts>(SEEN)?.is_finished)
}

fn put(is_finished: bool, until: SystemTime) -> Step {
    let draft = Draft::new(SEEN, &SeenFacts { is_finished });
    Step::Put(seen().slot, draft.due(Lane::Handled, until))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::backend::{Metadata, Row, Sealed, Version};

    fn record(metadata: &str) -> Record {
        Record {
            row: Row {
                version: Version::mint(),
                metadata: Metadata::new(metadata),
                sealed: Sealed::from_stored(Vec::new()),
                due: None,
            },
            plaintext: Zeroizing::new(Vec::new()),
        }
    }

    #[test]
    fn a_row_of_a_later_version_or_of_another_kind_is_not_read_as_handled_or_not() {
        for is_handled in [true, false] {
            let row = |v: u32, kind: &str| {
                let row = record(&format!(
                    r#"{{"v":{v},"kind":"{kind}","is_finished":{is_handled}}}"#
                ));
                is_finished(&row).ok()
            };
            assert_eq!(row(1, "seen"), Some(is_handled));
            assert_eq!(row(2, "seen"), None);
            assert_eq!(row(1, "state"), None);
        }
        assert!(is_finished(&record("{}")).is_err());
    }
}
