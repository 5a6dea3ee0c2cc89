//! The stored format of an operator's hold on a tenant. It is metadata without secrets.

use serde::{Deserialize, Serialize};

use super::driver::Step;
use super::names::{HOLD, hold as place};
use super::record::{Draft, Record};
use crate::clock::{from_epoch, to_epoch};
use crate::installation::Hold;

/// An operator's hold, or the record that it was lifted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct HoldFacts {
    is_on: bool,
    reason: String,
    /// Seconds since 1970.
    at: u64,
}

/// Returns the hold in this record. A hold that cannot be read is on: damage must not end a hold.
pub(super) fn hold(record: Option<&Record>) -> Option<Hold> {
    let record = record?;
    Some(match readable(record) {
        Some(facts) => Hold {
            is_on: facts.is_on,
            reason: facts.reason,
            at: from_epoch(facts.at),
        },
        None => Hold {
            is_on: true,
            reason: UNREADABLE.to_owned(),
            at: from_epoch(0),
        },
    })
}

pub(super) fn is_on(record: Option<&Record>) -> bool {
    record.is_some_and(|record| readable(record).is_none_or(|facts| facts.is_on))
}

/// Returns the step that stores this hold; `None` if the stored one is readable and in that state.
/// That a hold was lifted is kept with an installation only.
pub(super) fn change(stored: Option<&Record>, hold: &Hold, is_installed: bool) -> Option<Step> {
    let known = stored.map(readable);
    let is_on = known.map_or(Some(false), |known| known.map(|facts| facts.is_on));
    if is_on == Some(hold.is_on) {
        None
    } else if hold.is_on || is_installed {
        Some(put(hold))
    } else {
        Some(Step::Delete(place().slot))
    }
}

/// Returns the steps that remove everything of a tenant except a hold that is on.
pub(super) fn clear(stored: Option<&Record>) -> Vec<Step> {
    let kept = hold(stored).filter(|hold| hold.is_on);
    std::iter::once(Step::Clear)
        .chain(kept.as_ref().map(put))
        .collect()
}

fn put(hold: &Hold) -> Step {
    let facts = HoldFacts {
        is_on: hold.is_on,
        reason: hold.reason.clone(),
        at: to_epoch(hold.at),
    };
    Step::Put(place().slot, Draft::new(HOLD, &facts))
}

fn readable(record: &Record) -> Option<HoldFacts> {
    record.facts(HOLD).ok()
}

const UNREADABLE: &str = "the stored hold cannot be read: it was changed, moved, or sealed under \
                          another key";
