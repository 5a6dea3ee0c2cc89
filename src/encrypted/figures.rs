//! Counts what is stored for an app, from the metadata of its rows.

use std::time::{Duration, SystemTime};

use super::grant_facts::GrantFacts;
use super::names::{credential_of, install};
use super::{EncryptedStore, names, record};
use crate::backend::{Backend, Key, Lane, Row};
use crate::installation::Scopes;
use crate::store::{Credential, Error, Figures};

impl<B: Backend> EncryptedStore<B> {
    /// Reads the rows of all tenants, and the queues.
    pub(super) async fn counted(
        &self,
        now: SystemTime,
        requested: &Scopes,
    ) -> Result<Figures, Error> {
        let mut figures = Figures::default();
        let mut from = None;
        loop {
            let (rows, next) = self.tenants(from, PAGE).await?;
            for (key, row) in &rows {
                count(&mut figures, key, row, (now, requested));
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        for lane in Lane::ALL {
            let length = self.length(lane, now).await?;
            figures.queues.insert(lane.as_str(), length);
        }
        // A departure whose hook failed is put off by an hour at most.
        figures.departures_waiting = self.length(Lane::Departure, now + DAY).await?;
        let key_age = self.driver.keys.primary_since();
        figures.key_age = key_age.map(|since| now.duration_since(since).unwrap_or_default());
        Ok(figures)
    }

    async fn length(&self, lane: Lane, now: SystemTime) -> Result<usize, Error> {
        let (mut length, mut from) = (0, None);
        loop {
            let page = self.driver.due(lane, now, from, PAGE).await?;
            length += page.rows.len();
            from = page.next;
            if from.is_none() || length >= LONGEST {
                return Ok(length.min(LONGEST));
            }
        }
    }
}

/// Counts one row of a tenant.
fn count(figures: &mut Figures, key: &Key, row: &Row, (now, requested): (SystemTime, &Scopes)) {
    if key.slot == install().slot {
        figures.tenants += 1;
    }
    let Some(credential) = credential_of(&key.slot) else {
        return;
    };
    let kind = names::chain(&credential).kind;
    let Some(facts) = record::facts::<GrantFacts>(row.metadata.as_str(), kind) else {
        return;
    };
    if credential == Credential::Bot && !facts.scopes().missing(requested).is_empty() {
        figures.scope_drift += 1;
    }
    let (chains, due_at) = (&mut figures.chains, row.due.map(|due| due.at));
    let counted = match (facts.expires_at(), due_at) {
        _ if facts.is_dead() => &mut chains.dead,
        (None, _) => &mut chains.long_lived,
        (Some(_), None) => &mut chains.idle,
        (Some(expires_at), Some(due_at)) => {
            let left = expires_at.duration_since(now).unwrap_or_default();
            let nearest = figures.nearest_expiry.get_or_insert(left);
            *nearest = left.min(*nearest);
            if let Ok(overdue) = now.duration_since(due_at) {
                let oldest = figures.oldest_overdue.get_or_insert(overdue);
                *oldest = overdue.max(*oldest);
            }
            if left.is_zero() {
                &mut chains.expired
            } else if due_at <= now {
                &mut chains.due
            } else {
                &mut chains.fresh
            }
        }
    };
    *counted += 1;
}

/// The rows of one page.
const PAGE: usize = 1000;

/// The longest queue that is counted.
const LONGEST: usize = 10_000;

const DAY: Duration = Duration::from_secs(24 * 3600);
