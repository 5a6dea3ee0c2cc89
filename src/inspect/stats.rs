//! Counts what is stored.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::finding::{expiry, withdrawal};
use crate::encrypted::{InspectedPage, InspectedRow, RowContents, RowFault};
use crate::store::Credential;

/// How much of each kind is stored.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Workspaces that have an installation of their own.
    pub workspaces: u64,
    /// Organisations that have an org-wide installation.
    pub organisations: u64,
    /// Tokens of bots.
    pub bots: u64,
    /// Tokens of users.
    pub users: u64,
    /// Tokens that rotate.
    pub rotating: u64,
    /// Tokens that cannot be refreshed any more.
    pub dead: u64,
    /// Access tokens that have expired.
    pub expired: u64,
    /// Access tokens that expire within an hour.
    pub expiring: u64,
    /// Access tokens that ended before they expired, because they leaked or Slack revoked them, and
    /// were not replaced yet.
    pub withdrawn: u64,
    /// Tenants on hold. A hold that cannot be read counts.
    pub on_hold: u64,
    /// Departures and notices that were not delivered yet.
    pub pending: u64,
    /// All rows of tenants.
    pub rows: u64,
    /// Rows that do not open.
    pub damaged: u64,
    /// Rows whose data key cannot be used.
    pub without_key: u64,
    /// The number of rows of tenants under each data key.
    pub rows_by_key: BTreeMap<String, u64>,
}

/// Adds the rows of a page to the counts.
pub fn stats_of(stats: &mut Stats, page: &InspectedPage, now: SystemTime) {
    let malformed = u64::try_from(page.malformed.len()).unwrap_or(u64::MAX);
    stats.rows += malformed;
    stats.damaged += malformed;
    for row in &page.rows {
        add(stats, row, now);
    }
}

fn add(stats: &mut Stats, row: &InspectedRow, now: SystemTime) {
    stats.rows += 1;
    let key = row
        .key_id
        .map_or_else(|| "none".to_owned(), |id| id.to_string());
    *stats.rows_by_key.entry(key).or_default() += 1;
    match &row.contents {
        Ok(RowContents::Install(_)) if row.tenant.is_org() => stats.organisations += 1,
        Ok(RowContents::Install(_)) => stats.workspaces += 1,
        Ok(RowContents::Chain(chain)) => {
            match chain.credential {
                Credential::Bot => stats.bots += 1,
                Credential::User(_) => stats.users += 1,
            }
            let chain = &chain.chain;
            stats.rotating += u64::from(chain.refresh.is_some());
            stats.dead += u64::from(chain.is_dead);
            stats.withdrawn += u64::from(withdrawal(chain).is_some());
            let left = expiry(chain).map(|at| at.duration_since(now));
            match left {
                Some(Err(_)) => stats.expired += 1,
                Some(Ok(left)) if left < SOON => stats.expiring += 1,
                _ => {}
            }
        }
        Ok(RowContents::Hold(hold)) => stats.on_hold += u64::from(hold.is_on),
        Ok(RowContents::Departure { .. } | RowContents::Notice { .. }) => stats.pending += 1,
        Ok(_) => {}
        Err(fault) => {
            stats.on_hold += u64::from(row.slot == "hold");
            match fault {
                RowFault::Damaged => stats.damaged += 1,
                RowFault::WithoutKey(_) => stats.without_key += 1,
            }
        }
    }
}

const SOON: Duration = Duration::from_secs(60 * 60);
