//! Stores departures, access and holds as rows in the tenant's own partition. `departure` is the
//! note for your app (`notices.rs` has the other ones). `access/T…` is an org-wide installation's
//! access to one workspace. `hold` is an operator's hold; it stays when everything else of the
//! tenant goes.

use std::time::SystemTime;

use async_trait::async_trait;

use super::driver::{Opening, Step};
use super::install_facts::{self, InstallFacts};
use super::lifecycle_facts::{AccessFacts, DepartureFacts};
use super::names::{self, ACCESS, DEPARTURE, HOLD, INSTALL, departure, hold, install};
use super::record::{Draft, Record, revision, unknown};
use super::{EncryptedStore, hold_facts, notes, notices};
use crate::backend::{Backend, Key, Lane, Row, Scope};
use crate::installation::{Hold, Revision};
use crate::store::{
    Access, Credential, Departure, Ending, Error, LifecycleStore, PendingDeparture, PendingNotice,
    Subject, Summary,
};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> LifecycleStore for EncryptedStore<B> {
    async fn glance(
        &self,
        key: &InstallationKey,
    ) -> Result<Option<(Revision, Option<Summary>)>, Error> {
        let partition = self.driver.app.tenant(key);
        let rows = self.driver.read_rows(&partition, &[install()]).await?;
        let row = rows.first().and_then(Option::as_ref);
        Ok(row.map(|row| (revision(row), install_facts::summary(row))))
    }

    async fn purge(
        &self,
        leaving: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>,
    ) -> Result<Option<PendingDeparture>, Error> {
        let partition = self.driver.app.tenant(&leaving.key);
        let decide = |records: &[Option<Record>], rows: &[Option<Row>]| {
            let stored = rows.first().and_then(Option::as_ref);
            if stored.map(revision) != Some(only) {
                return Err(Error::Conflict);
            }
            let mut steps = vec![Step::Delete(install().slot)];
            steps.extend(hold_facts::clear(records.last().and_then(Option::as_ref)));
            if let Some(at) = tell_at {
                let note = Draft::new(DEPARTURE, &DepartureFacts::of(leaving));
                let note = notes::with_metadata(note, leaving.metadata.as_deref());
                let note = note.due(Lane::Departure, at);
                steps.push(Step::Put(departure().slot, note));
            }
            Ok((steps, ()))
        };
        // Only the hold is opened, so that a tenant can be purged even if its rows do not open.
        let places = [install(), departure(), hold()];
        self.driver
            .update_with(Opening::Only(&[HOLD]), &partition, &places, decide)
            .await?;
        match tell_at {
            Some(_) => self.departure(&leaving.key).await,
            None => Ok(None),
        }
    }

    async fn departure(&self, key: &InstallationKey) -> Result<Option<PendingDeparture>, Error> {
        let partition = self.driver.app.tenant(key);
        let records = self.driver.read_current(&partition, &[departure()]).await?;
        let record = records.first().and_then(Option::as_ref);
        record.map(|record| pending(key, record)).transpose()
    }

    async fn due_departures(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingDeparture>, Error> {
        let place = |key: &Key| Some(departure()).filter(|it| it.slot == key.slot);
        let read = |tenant: &InstallationKey, _: &Key, record: &Record| pending(tenant, record);
        self.due_notes((Lane::Departure, place), now, limit, read)
            .await
    }

    async fn postpone(
        &self,
        note: &PendingDeparture,
        until: SystemTime,
    ) -> Result<Option<PendingDeparture>, Error> {
        let attempts = note.attempts.saturating_add(1);
        let step = |record: &Record| {
            let mut facts: DepartureFacts = record.facts(DEPARTURE)?;
            facts.attempts = attempts;
            let put = record.with_facts(DEPARTURE, &facts);
            let put = put.due(Lane::Departure, until);
            Ok(Step::Put(departure().slot, put))
        };
        let (revision, _) = self.change_note(note, step).await?;
        Ok(revision.map(|revision| PendingDeparture {
            attempts,
            revision,
            ..note.clone()
        }))
    }

    async fn settle(&self, note: &PendingDeparture) -> Result<bool, Error> {
        let step = |_: &Record| Ok(Step::Delete(departure().slot));
        Ok(self.change_note(note, step).await?.1)
    }

    async fn hold(&self, key: &InstallationKey, wanted: &Hold) -> Result<bool, Error> {
        let partition = self.driver.app.tenant(key);
        let decide = |records: &[Option<Record>], rows: &[Option<Row>]| {
            let [held, installed] = rows else {
                unreachable!("two places were read")
            };
            let is_installed = installed.is_some();
            let is_known = held.is_some() || is_installed;
            let stored = records.first().and_then(Option::as_ref);
            let step = hold_facts::change(stored, wanted, is_installed).filter(|_| is_known);
            Ok((step.into_iter().collect(), is_known))
        };
        // The installation is not opened, so that a damaged one can be put on hold too.
        let places = [hold(), install()];
        let updated = self
            .driver
            .update_with(Opening::Only(&[HOLD]), &partition, &places, decide);
        Ok(updated.await?.1)
    }

    async fn held(&self, key: &InstallationKey) -> Result<Option<Hold>, Error> {
        let partition = self.driver.app.tenant(key);
        let records = self.driver.read(&partition, &[hold()]).await?;
        Ok(hold_facts::hold(records.first().and_then(Option::as_ref)))
    }

    async fn set_enterprise(
        &self,
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>,
    ) -> Result<bool, Error> {
        // The identity of an org-wide installation is its organisation's id, which never changes.
        if key.is_org() {
            return Ok(false);
        }
        self.change_install(key, Some(revision), |facts| facts.move_to(enterprise))
            .await
    }

    async fn set_access(&self, org: &EnterpriseId, access: &Access) -> Result<bool, Error> {
        self.set_accesses(org, access, None).await
    }

    async fn set_access_telling(
        &self,
        org: &EnterpriseId,
        access: &Access,
        ending: &Ending,
    ) -> Result<bool, Error> {
        self.set_accesses(org, access, Some(ending)).await
    }

    async fn has_access(&self, org: &EnterpriseId, team: &TeamId) -> Result<bool, Error> {
        let partition = self.driver.app.tenant(&InstallationKey::org(org.clone()));
        let records = self.driver.read(&partition, &[names::access(team)]).await?;
        match records.first().and_then(Option::as_ref) {
            Some(record) => Ok(record.facts::<AccessFacts>(ACCESS)?.is_granted),
            None => Ok(true),
        }
    }

    async fn users(&self, key: &InstallationKey) -> Result<Vec<UserId>, Error> {
        let scope = Scope::Partition(self.driver.app.tenant(key));
        let mut users = Vec::new();
        let mut from = None;
        loop {
            let page = self.driver.scan(&scope, from, SCAN_AT_ONCE).await?;
            for (key, _) in page.rows {
                if let Some(Credential::User(id)) = names::credential_of(&key.slot) {
                    users.push(id);
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(users);
            }
        }
    }

    async fn notices(
        &self,
        key: &InstallationKey,
        subjects: &[Subject],
    ) -> Result<Vec<PendingNotice>, Error> {
        self.notices_of(key, subjects).await
    }

    async fn due_notices(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingNotice>, Error> {
        self.notices_due(now, limit).await
    }

    async fn postpone_notice(
        &self,
        pending: &PendingNotice,
        until: SystemTime,
    ) -> Result<Option<PendingNotice>, Error> {
        self.postponed(pending, until).await
    }

    async fn settle_notice(&self, pending: &PendingNotice) -> Result<bool, Error> {
        self.settled(pending).await
    }
}

impl<B: Backend> EncryptedStore<B> {
    /// Changes the facts of a stored installation. Returns whether it exists. If `only` is given,
    /// the installation must have that revision.
    async fn change_install(
        &self,
        key: &InstallationKey,
        only: Option<Revision>,
        change: impl Fn(&mut InstallFacts) + Send + Sync,
    ) -> Result<bool, Error> {
        let partition = self.driver.app.tenant(key);
        let decide = |records: &[Option<Record>]| {
            let stored = records.first().and_then(Option::as_ref);
            let is_wanted = |it: &&Record| only.is_none_or(|only| it.revision() == only);
            let Some(stored) = stored.filter(is_wanted) else {
                return Ok((Vec::new(), false));
            };
            let old = InstallFacts::read(stored)?;
            let mut new = old.clone();
            change(&mut new);
            let put = || Step::Put(install().slot, stored.with_facts(INSTALL, &new));
            Ok(((new != old).then(put).into_iter().collect(), true))
        };
        let places = [install()];
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }

    /// Changes a note if it is still stored. Returns the revision that was written, and whether the
    /// note was changed.
    async fn change_note(
        &self,
        note: &PendingDeparture,
        change: impl Fn(&Record) -> Result<Step, Error> + Send + Sync,
    ) -> Result<(Option<Revision>, bool), Error> {
        let partition = self.driver.app.tenant(&note.departure.key);
        let driver = &self.driver;
        driver
            .change(&partition, departure(), note.revision, change)
            .await
    }

    async fn set_accesses(
        &self,
        org: &EnterpriseId,
        access: &Access,
        ending: Option<&Ending>,
    ) -> Result<bool, Error> {
        let mut is_installed = true;
        for teams in access.teams.chunks(TEAMS_AT_ONCE) {
            is_installed &= self.set_access_of(org, access, teams, ending).await?;
        }
        Ok(is_installed)
    }

    async fn set_access_of(
        &self,
        org: &EnterpriseId,
        access: &Access,
        teams: &[TeamId],
        ending: Option<&Ending>,
    ) -> Result<bool, Error> {
        let key = InstallationKey::org(org.clone());
        let partition = self.driver.app.tenant(&key);
        let mut teams = teams.to_vec();
        teams.sort_unstable();
        teams.dedup();
        let places: Vec<_> = std::iter::once(install())
            .chain(teams.iter().map(names::access))
            .collect();
        let decide = |records: &[Option<Record>]| {
            let Some((Some(installed), known)) = records.split_first() else {
                return Ok((Vec::new(), false));
            };
            let mut steps = Vec::new();
            for (team, known) in teams.iter().zip(known) {
                let facts = AccessFacts::of(team, access);
                let known = known.as_ref().map(|it| it.facts(ACCESS)).transpose()?;
                let known: Option<AccessFacts> = known;
                if known.as_ref().is_some_and(|known| !facts.outdates(known)) {
                    continue;
                }
                let put = Draft::new(ACCESS, &facts);
                steps.push(Step::Put(names::access(team).slot, put));
                let subject = Subject::Workspace(team.clone());
                let had_access = known.is_none_or(|known| known.is_granted);
                if access.is_granted {
                    steps.push(notices::dropped(&subject));
                } else if let Some(ending) = ending.filter(|_| had_access) {
                    steps.push(notices::put(&key, subject, ending, Some(installed)));
                }
            }
            // If the organisation was purged meanwhile, nothing may be stored for it.
            if !steps.is_empty() {
                steps.push(Step::Check(install().slot));
            }
            Ok((steps, true))
        };
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }
}

fn pending(key: &InstallationKey, record: &Record) -> Result<PendingDeparture, Error> {
    let facts: DepartureFacts = record.facts(DEPARTURE)?;
    let mut departure = facts.departure()?;
    departure.metadata = notes::metadata(record)?;
    if departure.key != *key {
        return Err(unknown("a departure's ids"));
    }
    let revision = record.revision();
    Ok(PendingDeparture::new(departure, facts.attempts, revision))
}

/// The rows of one page. Every backend allows it, and a tenant of about 900 users is one query.
const SCAN_AT_ONCE: usize = 1000;

/// The workspaces of one commit. A backend accepts 90 changes; each workspace has up to two, and
/// one is the installation's own.
const TEAMS_AT_ONCE: usize = 40;
