//! Stores installations as rows. `install` has the facts; `bot` and `user/U…` each have one chain;
//! `installer/U…` has the metadata of one person. An operator's hold is a row of its own, `hold`,
//! which no `store` changes.

use async_trait::async_trait;

use super::driver::{Opening, Step};
use super::names::{BOT, HOLD, INSTALL, Place, bot, hold, install, installer, user};
use super::record::{Record, revision};
use super::{
    EncryptedStore, grant_facts, hold_facts, install_facts, merge, metadata_facts, notices,
};
use crate::backend::{Backend, Row};
use crate::installation::{Installation, Revision, StoredInstallation};
use crate::store::{
    Credential, Delete, DeleteWhat, Error, Facts, InstallationStore, ListCursor, Listing,
};
use crate::tenant::{InstallationKey, UserId};

use grant_facts::GrantFacts;
use install_facts::InstallFacts;

#[cfg(test)]
mod tests;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> InstallationStore for EncryptedStore<B> {
    async fn ready(&self) -> Result<(), Error> {
        self.driver.ready().await
    }

    async fn store(&self, new: &Installation) -> Result<Revision, Error> {
        let partition = self.driver.app.tenant(&new.key());
        let users = new.user.iter().map(|new| user(&new.id));
        let installers = new.user_metadata.iter().map(|new| installer(&new.user));
        let both = [install(), bot()].into_iter();
        let mut places: Vec<_> = both.chain(users).chain(installers).collect();
        let parts = places.len();
        places.extend(notices::places(new));
        // People repair broken data by installing the app again. So a row that does not open must
        // not prevent that.
        let decide = |records: &[Option<Record>], _: &[Option<Row>]| {
            let mut steps = stored_over(new, &records[..parts])?;
            steps.extend(notices::outdated(&steps));
            Ok((steps, ()))
        };
        let driver = &self.driver;
        let (revision, ()) = driver
            .update_with(Opening::WhatOpens, &partition, &places, decide)
            .await?;
        Ok(revision.expect("storing always puts the facts"))
    }

    async fn fetch(
        &self,
        key: &InstallationKey,
        of_user: Option<&UserId>,
    ) -> Result<Option<StoredInstallation>, Error> {
        let partition = self.driver.app.tenant(key);
        let records = self.driver.read(&partition, &places(of_user)).await?;
        let stored = stored(&records)?;
        // The seal binds the partition, so only a bug of this crate can cause a mismatch. It is
        // checked because the result would be another tenant's data.
        if stored.as_ref().is_some_and(|stored| stored.key() != *key) {
            return Err(Error::Unreadable(
                "a row's tenant is not the tenant of its partition".into(),
            ));
        }
        Ok(stored)
    }

    async fn note(
        &self,
        key: &InstallationKey,
        wanted: Revision,
        facts: &Facts,
    ) -> Result<bool, Error> {
        let partition = self.driver.app.tenant(key);
        let decide = |records: &[Option<Record>]| {
            let [stored, stored_bot] = records else {
                unreachable!("two places were read")
            };
            let Some(stored) = stored.as_ref().filter(|it| it.revision() == wanted) else {
                return Ok((Vec::new(), false));
            };
            let Place { slot, kind } = install();
            let mut steps = vec![match &facts.url {
                Some(url) => {
                    let mut noted = InstallFacts::read(stored)?;
                    noted.url = Some(url.clone());
                    Step::Put(slot, stored.with_facts(kind, &noted))
                }
                None => Step::Check(slot),
            }];
            if let (Some(id), Some(stored)) = (&facts.bot_id, stored_bot) {
                let Place { slot, kind } = bot();
                let mut noted: GrantFacts = stored.facts(kind)?;
                noted.bot_id = Some(id.clone());
                steps.push(Step::Put(slot, stored.with_facts(kind, &noted)));
            }
            Ok((steps, true))
        };
        let places = [install(), bot()];
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }

    async fn delete(&self, key: &InstallationKey, delete: &Delete) -> Result<bool, Error> {
        let partition = self.driver.app.tenant(key);
        let part = match &delete.what {
            DeleteWhat::All => install(),
            DeleteWhat::Bot => bot(),
            DeleteWhat::User(id) => user(id),
            DeleteWhat::Fact(fact) => return self.remove(&partition, fact, delete.only).await,
        };
        // A person's metadata is deleted with their token. A hold is kept when everything else is
        // deleted.
        let beside = match &delete.what {
            DeleteWhat::All => Some(hold()),
            DeleteWhat::User(id) => Some(installer(id)),
            _ => None,
        };
        let credential = match &delete.what {
            DeleteWhat::Bot => Some(Credential::Bot),
            DeleteWhat::User(id) => Some(Credential::User(id.clone())),
            _ => None,
        };
        let told = credential.as_ref().zip(delete.ending.as_ref());
        let whole = delete.what == DeleteWhat::All;
        let held = delete.holding.filter(|_| !whole);
        let decide = |records: &[Option<Record>], rows: &[Option<Row>]| {
            let [install_row, part_row, beside_row @ ..] = rows else {
                unreachable!("at least two places were read")
            };
            if let Some((held, Some(record))) = held.zip(records.get(1))
                && grant_facts::access_mark(record)? != held
            {
                return Err(Error::Conflict);
            }
            if let Some(only) = delete.only {
                match install_row {
                    None if part_row.is_none() => return Ok((Vec::new(), false)),
                    Some(row) if revision(row) == only => {}
                    _ => return Err(Error::Conflict),
                }
            }
            let slot = part.slot.clone();
            let mut steps = match (whole, delete.only) {
                (true, only) => {
                    let guard = only.map(|_| Step::Delete(slot));
                    let clear = hold_facts::clear(records.get(2).and_then(Option::as_ref));
                    return Ok((guard.into_iter().chain(clear).collect(), part_row.is_some()));
                }
                (false, None) => vec![Step::Delete(slot)],
                (false, Some(_)) => vec![Step::Check(install().slot), Step::Delete(slot)],
            };
            steps.extend(beside.iter().map(|own| Step::Delete(own.slot.clone())));
            if let Some((credential, ending)) = told.filter(|_| part_row.is_some()) {
                let install = records.first().and_then(Option::as_ref);
                steps.extend(notices::revoked(key, credential, ending, install));
            }
            let is_there = part_row.is_some() || beside_row.iter().any(Option::is_some);
            Ok((steps, is_there))
        };
        // The notice says what the installation's facts say.
        let for_notice = told.map(|_| INSTALL);
        let for_check = held.map(|_| part.kind);
        let for_clear = whole.then_some(HOLD);
        let kinds = [for_notice, for_check, for_clear];
        let kinds: Vec<_> = kinds.into_iter().flatten().collect();
        let mut places = vec![install(), part.clone()];
        places.extend(beside.clone());
        let updated = self
            .driver
            .update_with(Opening::Only(&kinds), &partition, &places, decide);
        Ok(updated.await?.1)
    }

    async fn list(&self, from: Option<ListCursor>, limit: usize) -> Result<Listing, Error> {
        let (rows, next) = self.tenants(from, limit).await?;
        let installs = rows.iter().filter(|(key, _)| key.slot == install().slot);
        Ok(Listing {
            installations: installs
                .filter_map(|(_, row)| install_facts::summary(row))
                .collect(),
            next,
        })
    }
}

/// Returns the places of an installation with this user's token and metadata.
fn places(of_user: Option<&UserId>) -> Vec<Place> {
    let of_user = of_user.into_iter();
    let own = of_user.flat_map(|id| [user(id), installer(id)]);
    [install(), hold(), bot()].into_iter().chain(own).collect()
}

/// Returns the steps that store an installation over the existing records of its places.
fn stored_over(new: &Installation, records: &[Option<Record>]) -> Result<Vec<Step>, Error> {
    let [stored, stored_bot, others @ ..] = records else {
        unreachable!("at least two places were read")
    };
    let mut others = others.iter().map(Option::as_ref);
    let (stored, at) = (stored.as_ref(), new.installed_at);
    let stored_bot = stored_bot.as_ref();
    let bot_at = stored_bot.map(|record| GrantFacts::granted_at(BOT, record));
    let facts = install_facts::draft(new, stored, bot_at.transpose()?)?;
    let mut steps = vec![Step::Put(install().slot, facts)];
    if let Some(new) = &new.bot {
        let facts = GrantFacts::of_bot(new, at, stored_bot)?;
        let stored = stored.zip(stored_bot);
        steps.push(merge::step(bot(), stored, facts, &new.grant, at)?);
    }
    if let Some(new) = &new.user {
        let facts = GrantFacts::of_user(new, at);
        let stored = stored.zip(others.next().flatten());
        steps.push(merge::step(user(&new.id), stored, facts, &new.grant, at)?);
    }
    if let Some(own) = &new.user_metadata {
        let draft = metadata_facts::draft(own, new, others.next().flatten())?;
        steps.push(Step::Put(installer(&own.user).slot, draft));
    }
    Ok(steps)
}

/// Returns the installation in the records of its places. Without facts, there is no installation.
fn stored(records: &[Option<Record>]) -> Result<Option<StoredInstallation>, Error> {
    let [Some(install), hold, bot, of_user @ ..] = records else {
        return Ok(None);
    };
    let facts = InstallFacts::read(install)?;
    let installation = install_facts::installation(install, &facts)?;
    let mut stored = StoredInstallation::new(installation, install.revision());
    stored.hold = hold_facts::hold(hold.as_ref());
    if let Some(bot) = bot {
        let (bot, is_suspect) = grant_facts::bot(bot)?;
        stored.installation.bot = Some(bot);
        stored.suspects.bot = is_suspect;
    }
    if let Some(Some(user)) = of_user.first() {
        let (user, is_suspect) = grant_facts::user(user)?;
        stored.installation.user = Some(user);
        stored.suspects.user = is_suspect;
    }
    if let Some(Some(own)) = of_user.get(1) {
        stored.installation.user_metadata = metadata_facts::user_metadata(own)?;
    }
    Ok(Some(stored))
}
