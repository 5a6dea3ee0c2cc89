//! What is stored about a tenant or a person, for their requests about their data.

use serde_json::Value;

use super::EncryptedStore;
use super::driver::Step;
use super::install_facts::InstallFacts;
use super::lifecycle_facts::DepartureFacts;
use super::names::{
    DEPARTURE, INSTALL, NOTICE, Place, credential_of, departure, install, installer,
};
use super::names::{notice, slot, subject_of};
use super::notice_facts::NoticeFacts;
use super::record::Record;
use crate::backend::{Backend, Row, Scope, Slot};
use crate::store::{Credential, Error, Subject};
use crate::tenant::{InstallationKey, UserId};

/// One row of a tenant, without its secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoredFacts {
    /// The row: `install`, `bot`, `user/U…` and so on.
    pub row: String,
    /// The facts that are stored in plain text, as a JSON object.
    pub facts: String,
}

impl<B: Backend> EncryptedStore<B> {
    /// Returns what is stored about a tenant: the facts of its rows. If `person` is given, returns
    /// only the rows that name this user.
    ///
    /// It has no token and no other secret: not the webhooks, and not the metadata that your app
    /// passed to the install flow. The [`audit`](crate::audit) log is exported by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond.
    pub async fn export_facts(
        &self,
        key: &InstallationKey,
        person: Option<&UserId>,
    ) -> Result<Vec<StoredFacts>, Error> {
        let mut found = Vec::new();
        for (slot, row) in self.rows_of(key).await? {
            let Ok(mut facts) = serde_json::from_str::<Value>(row.metadata.as_str()) else {
                continue;
            };
            let is_named = |person: &UserId| is_about(&slot, person) || names(&facts, person);
            if person.is_none_or(is_named) {
                // It has hashes of tokens.
                if let Some(facts) = facts.as_object_mut() {
                    facts.remove("rotation");
                }
                found.push(StoredFacts {
                    row: slot.to_string(),
                    facts: facts.to_string(),
                });
            }
        }
        Ok(found)
    }

    /// Removes a person's ids from a tenant, which stays installed: their token, their metadata, the
    /// notices about their token, and that they installed the app. Returns whether anything was
    /// stored.
    ///
    /// It revokes nothing at Slack: revoke the token before. The [`audit`](crate::audit) log keeps
    /// its records until the tenant is erased there or their retention ends.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`], if one of these rows does not open. [`Error::Unavailable`], if the
    /// database does not respond. Call it again then.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, all changes are applied, or none.
    pub async fn erase_person(
        &self,
        key: &InstallationKey,
        person: &UserId,
    ) -> Result<bool, Error> {
        let mut places = vec![install(), departure(), installer(person)];
        let user = Credential::User(person.clone());
        places.push(super::names::chain(&user));
        for (slot, _) in self.rows_of(key).await? {
            places.extend(subject_of(&slot).map(|subject| notice(&subject)));
        }
        let partition = self.driver.app.tenant(key);
        let decide = |records: &[Option<Record>]| {
            let mut steps = Vec::new();
            for (place, record) in places.iter().zip(records) {
                if let Some(record) = record {
                    steps.extend(forgotten(place, record, person)?);
                }
            }
            let is_known = !steps.is_empty();
            Ok((steps, is_known))
        };
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }

    async fn rows_of(&self, key: &InstallationKey) -> Result<Vec<(Slot, Row)>, Error> {
        let scope = Scope::Partition(self.driver.app.tenant(key));
        let (mut rows, mut from) = (Vec::new(), None);
        loop {
            let page = self.driver.scan(&scope, from, PAGE).await?;
            let found = page.rows.into_iter();
            rows.extend(found.map(|(key, row)| (key.slot, row)));
            from = page.next;
            if from.is_none() {
                return Ok(rows);
            }
        }
    }
}

/// Returns the step that removes a person from a row; `None` if the row does not name them.
fn forgotten(place: &Place, record: &Record, person: &UserId) -> Result<Option<Step>, Error> {
    let put = |draft| Some(Step::Put(place.slot.clone(), draft));
    if is_about(&place.slot, person) {
        return Ok(Some(Step::Delete(place.slot.clone())));
    }
    Ok(match place.kind {
        INSTALL => {
            let mut facts = InstallFacts::read(record)?;
            let is_named = facts.forget(person);
            is_named
                .then(|| put(record.with_facts(INSTALL, &facts)))
                .flatten()
        }
        DEPARTURE => {
            let mut facts: DepartureFacts = record.facts(DEPARTURE)?;
            let is_named = facts.forget(person);
            is_named
                .then(|| put(record.with_facts(DEPARTURE, &facts)))
                .flatten()
        }
        NOTICE => {
            let mut facts: NoticeFacts = record.facts(NOTICE)?;
            let is_named = facts.forget(person);
            is_named
                .then(|| put(record.with_facts(NOTICE, &facts)))
                .flatten()
        }
        _ => None,
    })
}

/// Returns whether a row is about this person.
fn is_about(row: &Slot, person: &UserId) -> bool {
    let is_theirs = |credential: &Credential| *credential == Credential::User(person.clone());
    let of_notice = match subject_of(row) {
        Some(Subject::Authorization(it) | Subject::Chain(it)) => is_theirs(&it),
        _ => false,
    };
    let is_own = credential_of(row).as_ref().is_some_and(is_theirs);
    of_notice || is_own || *row == slot(&format!("installer/{person}"))
}

/// Returns whether one of the facts is this person's id.
fn names(facts: &Value, person: &UserId) -> bool {
    let facts = facts.as_object().into_iter().flatten();
    facts
        .into_iter()
        .any(|(_, fact)| fact.as_str() == Some(person.as_str()))
}

/// The rows of a page.
const PAGE: usize = 1000;
