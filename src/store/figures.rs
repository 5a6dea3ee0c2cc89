//! Figures about everything that is stored for an app.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Figures about everything that is stored for an app, for metrics and for a page of your app.
///
/// They come from the rows' metadata. Nothing is decrypted, so they are not authenticated.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Figures {
    /// The installations.
    pub tenants: usize,
    /// The chains of tokens, by state.
    pub chains: ChainFigures,
    /// The time until the next token expires, of the chains that are refreshed ahead. `None` if
    /// there is none.
    pub nearest_expiry: Option<Duration>,
    /// How long the oldest overdue refresh has been due. `None` if no refresh is due.
    pub oldest_overdue: Option<Duration>,
    /// The purged tenants of which your app's hook has not heard.
    pub departures_waiting: usize,
    /// The number of rows that are due, by lane. It is at most 10,000 for each lane.
    pub queues: BTreeMap<&'static str, usize>,
    /// The time since the primary data key was made, or was promoted. `None` if no time is stored,
    /// because an earlier version made the app's first key.
    pub key_age: Option<Duration>,
    /// The tenants whose bot lacks a scope that the app requests now.
    pub scope_drift: usize,
}

/// The number of chains in each state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChainFigures {
    /// The token is valid, and its refresh is not due.
    pub fresh: usize,
    /// The token is valid, and its refresh is due.
    pub due: usize,
    /// The token has expired, although it should have been refreshed.
    pub expired: usize,
    /// Nobody used the last tokens, so the next refresh is at the next use.
    pub idle: usize,
    /// Slack refused every refresh token, so the app must be installed again.
    pub dead: usize,
    /// The token does not expire.
    pub long_lived: usize,
}

impl ChainFigures {
    /// Returns the states by name, for metrics.
    pub(crate) fn by_name(&self) -> [(&'static str, usize); 6] {
        [
            ("fresh", self.fresh),
            ("due", self.due),
            ("expired", self.expired),
            ("idle", self.idle),
            ("dead", self.dead),
            ("long_lived", self.long_lived),
        ]
    }
}
