//! Installations as rows: `install` has the facts, `bot` and `user/U…` one chain of tokens each.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::driver::{Place, Record, Step};
use super::{EncryptedStore, records, slot, succession, tenant, user_slot};
use crate::backend::{Backend, Row, Slot};
use crate::installation::{Installation, Revision, StoredInstallation};
use crate::store::{Delete, DeleteWhat, Error, Facts, InstallationStore, ListCursor, Listing};
use crate::tenant::{InstallationKey, UserId};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> InstallationStore for EncryptedStore<B> {
    async fn store(&self, installation: &Installation) -> Result<Revision, Error> {
        let partition = tenant(self.driver.app(), &installation.key());
        let places: Vec<_> = [install(), bot()]
            .into_iter()
            .chain(installation.user.as_ref().map(|new| user(&new.id)))
            .collect();
        let at = installation.installed_at;
        let decide = |records: &[Option<Record>], rows: &[Option<Row>]| {
            let ([standing, standing_bot, standing_user @ ..], [row, ..]) = (records, rows) else {
                unreachable!("two places were read, or three")
            };
            let facts = records::install_draft(installation, standing.as_ref(), row.as_ref())?;
            let mut steps = vec![Step::Put(install().slot, facts)];
            if let Some(new) = &installation.bot {
                let facts = records::bot_facts(new, at, standing_bot.as_ref())?;
                let standing = standing.as_ref().zip(standing_bot.as_ref());
                steps.push(succession::step(bot(), standing, facts, &new.grant, at)?);
            }
            if let Some(new) = &installation.user {
                let facts = records::user_facts(new, at);
                let standing_user = standing_user.first().and_then(Option::as_ref);
                let standing = standing.as_ref().zip(standing_user);
                let place = user(&new.id);
                steps.push(succession::step(place, standing, facts, &new.grant, at)?);
            }
            Ok((steps, ()))
        };
        // Installing anew is how people heal what is broken, so a row that does not open must not
        // stand in the way.
        let (versions, ()) = self.driver.replace(&partition, &places, decide).await?;
        let version = versions.first().expect("the facts are always put");
        Ok(Revision::from_bytes(*version.as_bytes()))
    }

    async fn fetch(
        &self,
        key: &InstallationKey,
        of_user: Option<&UserId>,
    ) -> Result<Option<StoredInstallation>, Error> {
        let partition = tenant(self.driver.app(), key);
        let places: Vec<_> = [install(), bot()]
            .into_iter()
            .chain(of_user.map(user))
            .collect();
        let mut records = self.driver.read(&partition, &places).await?.into_iter();
        let Some(facts) = records.next().flatten() else {
            return Ok(None);
        };
        let (bot, user) = (records.next().flatten(), records.next().flatten());
        let installation = records::installation(&facts, bot.as_ref(), user.as_ref())?;
        // The partition is bound by the seal, so this can only be a bug of ours; a wrong tenant
        // is worth a look all the same.
        if installation.key() != *key {
            return Err(Error::Unreadable(
                "a row names another tenant than its place".into(),
            ));
        }
        Ok(Some(installation))
    }

    async fn note(
        &self,
        key: &InstallationKey,
        wanted: Revision,
        facts: &Facts,
    ) -> Result<bool, Error> {
        let partition = tenant(self.driver.app(), key);
        let decide = |records: &[Option<Record>]| {
            let [standing, standing_bot] = records else {
                unreachable!("two places were read")
            };
            let Some(standing) = standing.as_ref().filter(|it| revision(&it.row) == wanted) else {
                return Ok((Vec::new(), false));
            };
            let mut steps = vec![Step::Check(install().slot)];
            if let Some(url) = &facts.url {
                let mut noted = records::install_facts(standing)?;
                noted.url = Some(url.clone());
                steps = vec![Step::Put(
                    install().slot,
                    records::with_facts(records::INSTALL, &noted, standing),
                )];
            }
            if let (Some(id), Some(standing)) = (&facts.bot_id, standing_bot) {
                let mut noted = records::grant_facts(standing, records::BOT)?;
                noted.bot_id = Some(id.clone());
                steps.push(Step::Put(
                    bot().slot,
                    records::with_facts(records::BOT, &noted, standing),
                ));
            }
            Ok((steps, true))
        };
        Ok(self
            .driver
            .update(&partition, &[install(), bot()], decide)
            .await?
            .1)
    }

    async fn delete(&self, key: &InstallationKey, delete: &Delete) -> Result<bool, Error> {
        let partition = tenant(self.driver.app(), key);
        let part = match &delete.what {
            DeleteWhat::All => install(),
            DeleteWhat::Bot => bot(),
            DeleteWhat::User(id) => user(id),
        };
        let whole = delete.what == DeleteWhat::All;
        let decide = |standing: Option<&Row>, part_row: Option<&Row>| {
            if let Some(only) = delete.only {
                match standing {
                    None if part_row.is_none() => return Ok((Vec::new(), false)),
                    Some(row) if revision(row) == only => {}
                    _ => return Err(Error::Conflict),
                }
            }
            let steps = match (whole, delete.only) {
                (true, None) => vec![Step::Clear],
                (true, Some(_)) => vec![Step::Delete(install().slot), Step::Clear],
                (false, None) => vec![Step::Delete(part.slot.clone())],
                (false, Some(_)) => {
                    vec![Step::Check(install().slot), Step::Delete(part.slot.clone())]
                }
            };
            Ok((steps, part_row.is_some()))
        };
        let places = [install(), part.clone()];
        let Some(held) = delete.holding.filter(|_| !whole) else {
            // Unopened, so that what does not open can be removed.
            let decide = |rows: &[Option<Row>]| match rows {
                [standing, part] => decide(standing.as_ref(), part.as_ref()),
                _ => unreachable!("two places were read"),
            };
            return self
                .driver
                .update_unopened(&partition, &places, decide)
                .await;
        };
        let decide = |records: &[Option<Record>]| {
            let [standing, of_part] = records else {
                unreachable!("two places were read")
            };
            if let Some(record) = of_part
                && records::access_mark(record)? != held
            {
                return Err(Error::Conflict);
            }
            let row = |record: &Option<Record>| record.as_ref().map(|it| it.row.clone());
            decide(row(standing).as_ref(), row(of_part).as_ref())
        };
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }

    async fn list(&self, from: Option<ListCursor>, limit: usize) -> Result<Listing, Error> {
        let (rows, next) = self.tenants(from, limit).await?;
        let installs = rows.iter().filter(|(key, _)| key.slot == install().slot);
        Ok(Listing {
            installations: installs
                .filter_map(|(_, row)| records::summary(row.metadata.as_str()))
                .collect(),
            next,
        })
    }
}

pub(super) fn revision(row: &Row) -> Revision {
    Revision::from_bytes(*row.version.as_bytes())
}

pub(super) fn install() -> Place {
    static SLOT: LazyLock<Slot> = LazyLock::new(|| slot("install"));
    Place {
        slot: SLOT.clone(),
        kind: records::INSTALL,
    }
}

pub(super) fn bot() -> Place {
    static SLOT: LazyLock<Slot> = LazyLock::new(|| slot("bot"));
    Place {
        slot: SLOT.clone(),
        kind: records::BOT,
    }
}

pub(super) fn user(id: &UserId) -> Place {
    Place {
        slot: user_slot(id),
        kind: records::USER,
    }
}
