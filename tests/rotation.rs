//! One refresh per expiry, whoever asks and whatever breaks: one file for each subject.

#[macro_use]
mod support;

use slack_installs::rotation::RefusedToken;

#[path = "rotation/attempts.rs"]
mod attempts;
#[path = "rotation/background.rs"]
mod background;
#[path = "rotation/breaker.rs"]
mod breaker;
#[path = "rotation/called.rs"]
mod called;
#[path = "rotation/callers.rs"]
mod callers;
#[path = "rotation/clocks.rs"]
mod clocks;
#[path = "rotation/doubt.rs"]
mod doubt;
#[path = "rotation/endings.rs"]
mod endings;
#[path = "rotation/fetched.rs"]
mod fetched;
#[path = "rotation/foreign.rs"]
mod foreign;
#[path = "rotation/guards.rs"]
mod guards;
#[path = "rotation/holds.rs"]
mod holds;
#[path = "rotation/looks.rs"]
mod looks;
#[path = "rotation/losses.rs"]
mod losses;
#[path = "rotation/migrate.rs"]
mod migrate;
#[path = "rotation/outcomes.rs"]
mod outcomes;
#[path = "rotation/queue.rs"]
mod queue;
#[path = "rotation/reinstall.rs"]
mod reinstall;
#[path = "rotation/saves.rs"]
mod saves;
#[path = "rotation/shutdown.rs"]
mod shutdown;
#[path = "rotation/stall.rs"]
mod stall;
#[path = "rotation/succession.rs"]
mod succession;
#[path = "rotation/waits.rs"]
mod waits;

/// The host's own error.
#[derive(Debug)]
enum Posting {
    Expired,
    Other,
    Revoked,
}

impl RefusedToken for Posting {
    fn is_token_expired(&self) -> bool {
        matches!(self, Self::Expired)
    }

    fn is_token_revoked(&self) -> bool {
        matches!(self, Self::Revoked)
    }
}
