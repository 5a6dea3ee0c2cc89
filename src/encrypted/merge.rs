//! Decides which tokens are kept when an installation is stored over another.
//!
//! A `store` can be late: its tokens were already refreshed, or a later installation is stored.
//! Then overwriting could lose the only pair that Slack still accepts.

use std::time::SystemTime;

use super::driver::Step;
use super::grant_facts::{self, GrantFacts};
use super::install_facts::InstallFacts;
use super::names::Place;
use super::record::Record;
use crate::clock::to_epoch;
use crate::installation::Grant;
use crate::secret::{RefreshToken, same};
use crate::store::{Error, InstallId, Mark, StoredChain};

/// The relation of a new grant to the stored chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Relation {
    /// The grant belongs to an earlier installation, and the chain is not dead.
    Earlier,
    /// The grant belongs to another installation, which is not earlier. Or the chain is dead.
    New,
    /// The chain has already replaced this pair, or has it as an alternate.
    Past,
    /// The grant is the stored pair.
    Same,
}

/// Returns the step that stores this grant or keeps newer tokens. `stored` has the records of the
/// installation's facts and of the chain.
pub(super) fn step(
    place: Place,
    stored: Option<(&Record, &Record)>,
    facts: GrantFacts,
    new: &Grant,
    at: SystemTime,
) -> Result<Step, Error> {
    let Place { kind, slot } = place;
    let Some((install, record)) = stored else {
        return Ok(Step::Put(slot, grant_facts::new_draft(kind, &facts, new)));
    };
    let old: GrantFacts = record.facts(kind)?;
    let chain = grant_facts::chain(kind, InstallFacts::read(install)?.app_id, record)?;
    let draft = match relation(&chain, &old, new, at) {
        Relation::New => grant_facts::new_draft(kind, &facts, new),
        Relation::Past => return Ok(Step::Check(slot)),
        Relation::Same => {
            let facts = facts.with_rotation_of(old);
            let due_at = record.row.due.map(|due| due.at);
            grant_facts::draft(kind, &facts, new, &chain.alternates, due_at)
        }
        // Slack issued this pair too. If Slack has revoked the stored pair, this one is tried.
        Relation::Earlier => match with_alternate(chain, new) {
            Some(chain) => grant_facts::moved_draft(kind, record, &chain)?,
            None => return Ok(Step::Check(slot)),
        },
    };
    Ok(Step::Put(slot, draft))
}

fn relation(chain: &StoredChain, old: &GrantFacts, new: &Grant, at: SystemTime) -> Relation {
    let mark = new.refresh_token.as_ref().map(Mark::of);
    let stored = &chain.chain;
    let is_same_access = same(chain.grant.access_token.expose(), new.access_token.expose());
    let is_past = |mark: Mark| stored.alternates.contains(&mark) || old.has_replaced(mark);
    if stored.refresh == mark && (mark.is_some() || is_same_access) {
        Relation::Same
    } else if stored.install == InstallId::of(new) || mark.is_some_and(is_past) {
        Relation::Past
    } else if old.granted_at > to_epoch(at) && !stored.is_dead {
        Relation::Earlier
    } else {
        Relation::New
    }
}

fn with_alternate(mut chain: StoredChain, new: &Grant) -> Option<StoredChain> {
    let token = new.refresh_token.as_ref()?;
    chain.chain.refresh?;
    chain.chain.alternates.push(Mark::of(token));
    // The chain may wait for a pair that another process holds. Now it has a token to try.
    if chain.chain.retry_at.take().is_some() {
        chain.chain.due_at = Some(chain.chain.issued_at);
    }
    chain
        .alternates
        .push(RefreshToken::new(token.expose()).ok()?);
    Some(chain)
}
