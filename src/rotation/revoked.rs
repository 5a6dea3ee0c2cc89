//! Tokens that Slack calls revoked, although no caller asks for them.

use std::time::SystemTime;

use super::protocol;
use crate::store::{Chain, InstallId};

/// Ends the pair of this generation, whose access token Slack has revoked, and makes its refresh
/// due, even if the chain is idle. Returns `None` if the chain needs no change.
pub(crate) fn ended_and_wanted(
    chain: Option<&Chain>,
    install: InstallId,
    generation: u64,
    now: SystemTime,
) -> Option<Chain> {
    let ended = protocol::end(chain, install, generation, false, now)?;
    let next = protocol::scheduled(Chain { idle: 0, ..ended });
    (chain != Some(&next)).then_some(next)
}
