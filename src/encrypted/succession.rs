//! Which tokens stand once an installation was stored over another.
//!
//! A `store` can come late: after a refresh of the tokens that it brings, or after a later
//! installation. What it would throw away then is the only pair that Slack still takes.

use std::time::SystemTime;

use super::driver::{Place, Record, Step};
use super::records::{self, GrantFacts};
use crate::clock::to_epoch;
use crate::installation::Grant;
use crate::secret::{RefreshToken, same};
use crate::store::{Error, InstallId, Mark, StoredChain};

/// How a grant that is to be stored is related to the chain that stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kinship {
    /// It is of an earlier installation.
    Earlier,
    /// It is of another installation that is not earlier.
    New,
    /// The chain had it, and moved on.
    Past,
    /// It is the one that stands.
    Same,
}

/// The step that stores this grant, or keeps what is newer.
pub(super) fn step(
    place: Place,
    standing: Option<(&Record, &Record)>,
    facts: GrantFacts,
    new: &Grant,
    at: SystemTime,
) -> Result<Step, Error> {
    let Place { kind, slot } = place;
    let Some((install, record)) = standing else {
        return Ok(Step::Put(slot, records::grant_draft(kind, &facts, new)));
    };
    let old = records::grant_facts(record, kind)?;
    let chain = records::chain(kind, install, record)?;
    let draft = match kinship(&chain, &old, new, at) {
        Kinship::New => records::grant_draft(kind, &facts, new),
        Kinship::Past => return Ok(Step::Check(slot)),
        Kinship::Same => {
            let facts = facts.with_rotation_of(old);
            let due_at = record.row.due.map(|due| due.at);
            records::draft_of(kind, &facts, new, &chain.alternates, due_at)
        }
        // Slack has handed it over: should the pair that stands turn out to be the one that
        // Slack ended, this one is tried.
        Kinship::Earlier => match with_alternate(chain, new) {
            Some(chain) => records::chain_draft(kind, record, &chain)?,
            None => return Ok(Step::Check(slot)),
        },
    };
    Ok(Step::Put(slot, draft))
}

fn kinship(chain: &StoredChain, old: &GrantFacts, new: &Grant, at: SystemTime) -> Kinship {
    let mark = new.refresh_token.as_ref().map(Mark::of);
    let standing = &chain.chain;
    let is_same_access = same(chain.grant.access_token.expose(), new.access_token.expose());
    if standing.refresh == mark && (mark.is_some() || is_same_access) {
        return Kinship::Same;
    }
    let is_past = |mark: Mark| standing.alternates.contains(&mark) || old.has_replaced(mark);
    if standing.install == InstallId::of(new) || mark.is_some_and(is_past) {
        return Kinship::Past;
    }
    match old.granted_at > to_epoch(at) && !standing.is_dead {
        true => Kinship::Earlier,
        false => Kinship::New,
    }
}

fn with_alternate(mut chain: StoredChain, new: &Grant) -> Option<StoredChain> {
    let token = new.refresh_token.as_ref()?;
    chain.chain.refresh?;
    chain.chain.alternates.push(Mark::of(token));
    chain
        .alternates
        .push(RefreshToken::new(token.expose()).ok()?);
    Some(chain)
}
