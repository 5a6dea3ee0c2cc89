//! Removes single facts of an installation: a webhook, or a metadata. What was removed is
//! remembered, so that a late `store` does not bring it back.

use super::driver::Step;
use super::install_facts::{self, InstallFacts};
use super::names::{install, installer};
use super::record::Record;
use super::{EncryptedStore, metadata_facts};
use crate::backend::{Backend, Partition};
use crate::installation::Revision;
use crate::store::{DeleteFact, Error};

impl<B: Backend> EncryptedStore<B> {
    /// Removes this fact. If `only` is given, the installation must have that revision. Returns
    /// whether the fact was stored.
    pub(super) async fn remove(
        &self,
        partition: &Partition,
        fact: &DeleteFact,
        only: Option<Revision>,
    ) -> Result<bool, Error> {
        let whose = match fact {
            DeleteFact::UserMetadata(id) => Some(installer(id)),
            _ => None,
        };
        let decide = |records: &[Option<Record>]| {
            let Some((Some(stored), of_user)) = records.split_first() else {
                return Ok((Vec::new(), false));
            };
            if only.is_some_and(|only| stored.revision() != only) {
                return Err(Error::Conflict);
            }
            let slot = whose.as_ref().map_or_else(install, Clone::clone).slot;
            let draft = match fact {
                DeleteFact::Metadata => install_facts::without_metadata(stored)?,
                DeleteFact::UserMetadata(_) => match of_user {
                    [Some(own)] => {
                        let at = InstallFacts::read(stored)?.installed_at;
                        metadata_facts::without_metadata(own, at)?
                    }
                    _ => None,
                },
                DeleteFact::Webhook(url) => {
                    install_facts::without_webhook(stored, |_, mark| mark == *url)?
                }
                DeleteFact::WebhookOf(channel) => {
                    install_facts::without_webhook(stored, |id, _| !id.is_empty() && id == channel)?
                }
            };
            let put = draft.map(|draft| Step::Put(slot, draft));
            let is_there = put.is_some();
            Ok((put.into_iter().collect(), is_there))
        };
        let places: Vec<_> = std::iter::once(install()).chain(whose.clone()).collect();
        Ok(self.driver.update(partition, &places, decide).await?.1)
    }
}
