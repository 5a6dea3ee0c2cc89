//! The stored format of a chain's rotation: plain text, next to the grant's facts.

use serde::{Deserialize, Serialize};

use super::record::unknown;
use crate::clock::{from_millis, to_millis};
use crate::store::{Chain, Error, InstallId, Lease, Mark, is_suspect};

#[cfg(test)]
mod tests;

/// The rotation of a chain. All times are milliseconds since 1970, because a lease lasts seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct RotationFacts {
    /// The id of the installation: 32 hexadecimal digits.
    install: String,
    generation: u64,
    issued_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseFacts>,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempted_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unheard_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_at: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_dead: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_unproven: bool,
    /// The mark of an alternate: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spent: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    idle: u32,
    /// The mark of the primary refresh token: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    /// The marks of the refresh tokens before it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct LeaseFacts {
    /// The owner of the lease: 32 hexadecimal digits.
    owner: String,
    until: u64,
}

impl RotationFacts {
    /// Makes the facts of a changed chain. `before` has the facts before the change.
    pub(super) fn after(before: Option<Self>, chain: &Chain) -> Self {
        let mark = chain.refresh.map(text);
        let (old, mut past) = before.map_or((None, Vec::new()), |it| (it.mark, it.past));
        past.extend(old.filter(|old| Some(old) != mark.as_ref()));
        past.drain(..past.len().saturating_sub(PAST));
        Self {
            mark,
            past,
            install: hex(chain.install.0),
            generation: chain.generation,
            issued_at: to_millis(chain.issued_at),
            lease: chain.lease.map(|lease| LeaseFacts {
                owner: hex(lease.owner),
                until: to_millis(lease.until),
            }),
            attempts: chain.attempts,
            attempted_at: chain.attempted_at.map(to_millis),
            unheard_at: chain.unheard_at.map(to_millis),
            retry_at: chain.retry_at.map(to_millis),
            failures: chain.failures,
            last_error: chain.last_error.as_deref().map(str::to_owned),
            is_dead: chain.is_dead,
            is_unproven: chain.is_unproven,
            spent: chain.spent.map(text),
            idle: chain.idle,
        }
    }

    pub(super) fn has_replaced(&self, mark: Mark) -> bool {
        self.past.contains(&text(mark))
    }

    /// Returns the same as [`Chain::is_suspect`].
    pub(super) fn is_suspect(&self) -> bool {
        is_suspect(self.attempts, self.is_unproven, self.is_dead)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Adds the stored rotation to a chain that was made from its grant.
    pub(super) fn onto(self, chain: &mut Chain) -> Result<(), Error> {
        chain.install = InstallId(number(&self.install)?);
        chain.generation = self.generation;
        chain.issued_at = from_millis(self.issued_at);
        chain.lease = match self.lease {
            Some(lease) => Some(Lease {
                owner: number(&lease.owner)?,
                until: from_millis(lease.until),
            }),
            None => None,
        };
        chain.attempts = self.attempts;
        chain.attempted_at = self.attempted_at.map(from_millis);
        chain.unheard_at = self.unheard_at.map(from_millis);
        chain.retry_at = self.retry_at.map(from_millis);
        chain.failures = self.failures;
        chain.last_error = self.last_error.map(Into::into);
        chain.is_dead = self.is_dead;
        chain.is_unproven = self.is_unproven;
        chain.spent = self.spent.as_deref().map(mark).transpose()?;
        chain.idle = self.idle;
        Ok(())
    }
}

fn hex(number: u128) -> String {
    format!("{number:032x}")
}

fn number(hex: &str) -> Result<u128, Error> {
    u128::from_str_radix(hex, 16).map_err(|_| unknown("a chain's ids"))
}

fn mark(hex: &str) -> Result<Mark, Error> {
    let number = u64::from_str_radix(hex, 16);
    Ok(Mark(number.map_err(|_| unknown("a chain's ids"))?))
}

fn text(mark: Mark) -> String {
    format!("{:016x}", mark.0)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The number of past marks: about two days of pairs. If your app stores an installation that is
/// older than that, it overwrites a newer pair.
const PAST: usize = 5;
