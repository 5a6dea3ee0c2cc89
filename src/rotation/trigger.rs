//! Why a chain is refreshed.

use super::protocol::Demand;

/// The reason for a refresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trigger {
    /// A caller waits. If another process refreshes the chain, the caller waits for that process.
    Caller(Demand),
    /// A caller received a token that is due and does not wait.
    Use,
    /// The worker buys a pair ahead, without a caller.
    Worker,
}
