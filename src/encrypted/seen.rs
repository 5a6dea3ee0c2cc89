//! Handled requests as rows: a partition each, put where none stands, and swept like states.

use std::borrow::Cow;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::driver::{Draft, Place, Record, Step};
use super::installations::revision;
use super::lifecycle_facts::draft;
use super::states::hex;
use super::{EncryptedStore, partition, records, slot};
use crate::backend::{Backend, Due, Lane, Partition};
use crate::installation::Revision;
use crate::store::{Claim, Error, SeenId, SeenStore};

/// What is known of a request, in the clear.
#[derive(Deserialize, Serialize)]
struct SeenFacts {
    v: u32,
    kind: Cow<'static, str>,
    is_finished: bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> SeenStore for EncryptedStore<B> {
    async fn claim(&self, id: &SeenId, now: SystemTime, until: SystemTime) -> Result<Claim, Error> {
        let decide = |records: &[Option<Record>]| {
            let standing = records.first().and_then(Option::as_ref);
            let standing = standing
                .filter(|record| record.row.due.is_none_or(|due| now < due.at))
                .map(is_finished)
                .transpose()?;
            Ok(match standing {
                Some(true) => (Vec::new(), Some(Claim::Finished)),
                Some(false) => (Vec::new(), Some(Claim::InProgress)),
                None => (vec![Step::Put(seen().slot, of(false, until))], None),
            })
        };
        let partition = self.seen_partition(id);
        let (versions, standing) = self.driver.update(&partition, &[seen()], decide).await?;
        self.sweep_now_and_then();
        Ok(match (standing, versions.first()) {
            (Some(standing), _) => standing,
            (None, version) => {
                let version = version.expect("a claim is a row that was put");
                Claim::Taken(Revision::from_bytes(*version.as_bytes()))
            }
        })
    }

    async fn finish(&self, id: &SeenId, claim: Revision, until: SystemTime) -> Result<bool, Error> {
        self.end_claim(id, claim, || Step::Put(seen().slot, of(true, until)))
            .await
    }

    async fn release(&self, id: &SeenId, claim: Revision) -> Result<bool, Error> {
        self.end_claim(id, claim, || Step::Delete(seen().slot))
            .await
    }
}

impl<B: Backend> EncryptedStore<B> {
    fn seen_partition(&self, id: &SeenId) -> Partition {
        partition(self.driver.app(), &format!("{SEEN}{}", hex(&id.0)))
    }

    async fn end_claim(
        &self,
        id: &SeenId,
        claim: Revision,
        step: impl Fn() -> Step + Send + Sync,
    ) -> Result<bool, Error> {
        let decide = |records: &[Option<Record>]| {
            let standing = records.first().and_then(Option::as_ref);
            match standing.is_some_and(|record| revision(&record.row) == claim) {
                true => Ok((vec![step()], true)),
                false => Ok((Vec::new(), false)),
            }
        };
        let partition = self.seen_partition(id);
        Ok(self.driver.update(&partition, &[seen()], decide).await?.1)
    }
}

fn is_finished(record: &Record) -> Result<bool, Error> {
    let facts: SeenFacts = records::facts(record, "a handled request")?;
    records::known(facts.v, &facts.kind, KIND)?;
    Ok(facts.is_finished)
}

fn of(is_finished: bool, until: SystemTime) -> Draft {
    let facts = SeenFacts {
        v: 1,
        kind: KIND.into(),
        is_finished,
    };
    let due = Due {
        lane: Lane::Handled,
        at: until,
    };
    draft(KIND, &facts, Some(due))
}

fn seen() -> Place {
    Place {
        slot: slot("seen"),
        kind: KIND,
    }
}

const KIND: &str = "seen";

/// Partitions of handled requests begin with this.
const SEEN: &str = "seen/";

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
