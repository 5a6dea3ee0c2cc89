//! The ends and limits of installations as rows, each in the tenant's own partition:
//! `departure` for what the host is to be told, `access/T…` for an organisation's workspaces. A
//! hold stands among the installation's facts, so that every read sees it.

use std::time::SystemTime;

use async_trait::async_trait;

use super::driver::{Draft, Place, Record, Step};
use super::installations::{install, revision};
use super::lifecycle_facts::{ACCESS, AccessFacts, DEPARTURE, DepartureFacts, draft};
use super::{EncryptedStore, records, slot, tenant, tenant_of};
use crate::backend::{Backend, Due, Key, Lane, Row, Scope, Version};
use crate::error_chain::error_chain;
use crate::installation::{Hold, Revision};
use crate::store::{Access, Departure, Error, LifecycleStore, PendingDeparture, Summary};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> LifecycleStore for EncryptedStore<B> {
    async fn glance(
        &self,
        key: &InstallationKey,
    ) -> Result<Option<(Revision, Option<Summary>)>, Error> {
        let partition = tenant(self.driver.app(), key);
        let rows = self.driver.read_rows(&partition, &[install()]).await?;
        Ok(rows
            .first()
            .and_then(Option::as_ref)
            .map(|row| (revision(row), records::summary(row.metadata.as_str()))))
    }

    async fn purge(
        &self,
        leaving: &Departure,
        only: Revision,
        tell_at: Option<SystemTime>,
    ) -> Result<Option<PendingDeparture>, Error> {
        let partition = tenant(self.driver.app(), &leaving.key);
        let decide = |rows: &[Option<Row>]| {
            let standing = rows.first().and_then(Option::as_ref);
            if standing.map(revision) != Some(only) {
                return Err(Error::Conflict);
            }
            let mut steps = vec![Step::Delete(install().slot), Step::Clear];
            if let Some(tell_at) = tell_at {
                let facts = DepartureFacts::of(leaving);
                let note = draft(DEPARTURE, &facts, Some(to_tell(tell_at)));
                steps.push(Step::Put(departure().slot, note));
            }
            Ok((steps, ()))
        };
        // Unopened, so that a tenant whose rows do not open can leave all the same.
        let places = [install(), departure()];
        self.driver
            .update_unopened(&partition, &places, decide)
            .await?;
        match tell_at {
            Some(_) => self.departure(&leaving.key).await,
            None => Ok(None),
        }
    }

    async fn departure(&self, key: &InstallationKey) -> Result<Option<PendingDeparture>, Error> {
        let partition = tenant(self.driver.app(), key);
        let records = self.driver.read_current(&partition, &[departure()]).await?;
        let record = records.first().and_then(Option::as_ref);
        record.map(|record| pending(key, record)).transpose()
    }

    async fn due_departures(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingDeparture>, Error> {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let left = limit.saturating_sub(found.len());
            if left == 0 {
                return Ok(found);
            }
            let page = self.driver.due(Lane::Departure, now, from, left).await?;
            for (key, _) in page.rows {
                match self.due_departure(&key, now).await {
                    // One note must not keep the hosts of all others from being told.
                    Err(error @ Error::Unreadable(_)) => {
                        tracing::error!(partition = %key.partition, error = error_chain(&error),
                            "the note of a departure does not open; the host is not told");
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

    async fn postpone(
        &self,
        note: &PendingDeparture,
        until: SystemTime,
    ) -> Result<Option<PendingDeparture>, Error> {
        let versions = self
            .change_note(note, |record| {
                let mut facts = DepartureFacts::read(record)?;
                facts.attempts = note.attempts.saturating_add(1);
                let put = draft(DEPARTURE, &facts, Some(to_tell(until)));
                Ok(Step::Put(departure().slot, put))
            })
            .await?;
        Ok(versions
            .and_then(|versions| versions.first().copied())
            .map(|version| PendingDeparture {
                attempts: note.attempts.saturating_add(1),
                revision: Revision::from_bytes(*version.as_bytes()),
                ..note.clone()
            }))
    }

    async fn settle(&self, note: &PendingDeparture) -> Result<bool, Error> {
        let versions = self
            .change_note(note, |_| Ok(Step::Delete(departure().slot)))
            .await?;
        Ok(versions.is_some())
    }

    async fn hold(&self, key: &InstallationKey, hold: &Hold) -> Result<bool, Error> {
        self.change_install(key, None, |record| {
            let mut facts = records::install_facts(record)?;
            let is_on = facts.hold.as_ref().is_some_and(|standing| standing.is_on);
            if is_on == hold.is_on {
                return Ok(None);
            }
            facts.hold = Some(hold.into());
            Ok(Some(records::with_facts(records::INSTALL, &facts, record)))
        })
        .await
    }

    async fn set_enterprise(
        &self,
        key: &InstallationKey,
        revision: Revision,
        enterprise: Option<&EnterpriseId>,
    ) -> Result<bool, Error> {
        // An organisation's own id is its identity.
        if key.is_org() {
            return Ok(false);
        }
        self.change_install(key, Some(revision), |record| {
            let facts = records::install_facts(record)?;
            let moved = facts.clone().within(enterprise);
            Ok((moved != facts).then(|| records::with_facts(records::INSTALL, &moved, record)))
        })
        .await
    }

    async fn set_access(&self, org: &EnterpriseId, access: &Access) -> Result<bool, Error> {
        let mut is_installed = true;
        for teams in access.teams.chunks(TEAMS_AT_ONCE) {
            is_installed &= self.set_access_of(org, access, teams).await?;
        }
        Ok(is_installed)
    }

    async fn has_access(&self, org: &EnterpriseId, team: &TeamId) -> Result<bool, Error> {
        let partition = tenant(self.driver.app(), &InstallationKey::org(org.clone()));
        let records = self.driver.read(&partition, &[access_to(team)]).await?;
        match records.first().and_then(Option::as_ref) {
            Some(record) => Ok(AccessFacts::read(record)?.is_granted),
            None => Ok(true),
        }
    }

    async fn users(&self, key: &InstallationKey) -> Result<Vec<UserId>, Error> {
        let partition = tenant(self.driver.app(), key);
        let scope = Scope::Partition(partition);
        let mut users = Vec::new();
        let mut from = None;
        loop {
            let page = self.driver.scan(&scope, from, SCAN_AT_ONCE).await?;
            let slots = page.rows.iter().map(|(key, _)| key.slot.as_str());
            let ids = slots.filter_map(|slot| slot.strip_prefix("user/"));
            users.extend(ids.filter_map(|id| UserId::new(id).ok()));
            from = page.next;
            if from.is_none() {
                return Ok(users);
            }
        }
    }
}

impl<B: Backend> EncryptedStore<B> {
    /// The note in this row, if it is still due: what is due is a hint, and another worker may
    /// have put this one off by now.
    async fn due_departure(
        &self,
        key: &Key,
        now: SystemTime,
    ) -> Result<Option<PendingDeparture>, Error> {
        let name = key.partition.name();
        let tenant = tenant_of(name).filter(|_| key.slot == departure().slot);
        let tenant = tenant.ok_or_else(|| records::form("a departure's place"))?;
        let places = [departure()];
        let records = self.driver.read_current(&key.partition, &places).await?;
        let is_due = |record: &&Record| record.row.due.is_some_and(|due| due.at <= now);
        let note = records.iter().flatten().find(is_due);
        note.map(|record| pending(&tenant, record)).transpose()
    }

    /// Changes the facts of an installation that stands. Answers whether it does, with that
    /// revision if one is asked for.
    async fn change_install(
        &self,
        key: &InstallationKey,
        only: Option<Revision>,
        change: impl Fn(&Record) -> Result<Option<Draft>, Error> + Send + Sync,
    ) -> Result<bool, Error> {
        let partition = tenant(self.driver.app(), key);
        let decide = |records: &[Option<Record>]| {
            let standing = records.first().and_then(Option::as_ref);
            let Some(standing) =
                standing.filter(|record| only.is_none_or(|only| revision(&record.row) == only))
            else {
                return Ok((Vec::new(), false));
            };
            let put = change(standing)?.map(|draft| Step::Put(install().slot, draft));
            Ok((put.into_iter().collect(), true))
        };
        Ok(self
            .driver
            .update(&partition, &[install()], decide)
            .await?
            .1)
    }

    /// Changes a note if it still stands. Answers the versions that were written then.
    async fn change_note(
        &self,
        note: &PendingDeparture,
        change: impl Fn(&Record) -> Result<Step, Error> + Send + Sync,
    ) -> Result<Option<Vec<Version>>, Error> {
        let partition = tenant(self.driver.app(), &note.departure.key);
        let decide = |records: &[Option<Record>]| {
            let standing = records.first().and_then(Option::as_ref);
            match standing.filter(|record| revision(&record.row) == note.revision) {
                Some(standing) => Ok((vec![change(standing)?], true)),
                None => Ok((Vec::new(), false)),
            }
        };
        let places = [departure()];
        let (versions, stood) = self.driver.update(&partition, &places, decide).await?;
        Ok(stood.then_some(versions))
    }

    async fn set_access_of(
        &self,
        org: &EnterpriseId,
        access: &Access,
        teams: &[TeamId],
    ) -> Result<bool, Error> {
        let partition = tenant(self.driver.app(), &InstallationKey::org(org.clone()));
        let mut teams = teams.to_vec();
        teams.sort_unstable();
        teams.dedup();
        let places: Vec<_> = std::iter::once(install())
            .chain(teams.iter().map(access_to))
            .collect();
        let decide = |records: &[Option<Record>]| {
            let Some((Some(_), known)) = records.split_first() else {
                return Ok((Vec::new(), false));
            };
            // Nothing may be kept for an organisation that is gone meanwhile.
            let mut steps = vec![Step::Check(install().slot)];
            for (team, known) in teams.iter().zip(known) {
                let facts = AccessFacts::of(team, access);
                let known = known.as_ref().map(AccessFacts::read).transpose()?;
                if known.is_none_or(|known| facts.outdates(&known)) {
                    let put = draft(ACCESS, &facts, None);
                    steps.push(Step::Put(access_to(team).slot, put));
                }
            }
            // With nothing new there is nothing to commit.
            steps.truncate(if steps.len() == 1 { 0 } else { steps.len() });
            Ok((steps, true))
        };
        Ok(self.driver.update(&partition, &places, decide).await?.1)
    }
}

fn pending(key: &InstallationKey, record: &Record) -> Result<PendingDeparture, Error> {
    let facts = DepartureFacts::read(record)?;
    let departure = facts.departure()?;
    match departure.key == *key {
        true => Ok(PendingDeparture::new(
            departure,
            facts.attempts,
            revision(&record.row),
        )),
        false => Err(records::form("a departure's ids")),
    }
}

fn to_tell(at: SystemTime) -> Due {
    Due {
        lane: Lane::Departure,
        at,
    }
}

fn departure() -> Place {
    Place {
        slot: slot("departure"),
        kind: DEPARTURE,
    }
}

fn access_to(team: &TeamId) -> Place {
    Place {
        slot: slot(&format!("access/{team}")),
        kind: ACCESS,
    }
}

/// The longest page that every backend has, so that a tenant of some 900 users is one query.
const SCAN_AT_ONCE: usize = 1000;

/// A backend takes 90 changes a commit; one is the installation's own.
const TEAMS_AT_ONCE: usize = 80;
