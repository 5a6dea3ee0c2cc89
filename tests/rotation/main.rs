//! One refresh per expiry, for any number of callers and after any failure. Each file has one
//! subject.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

use slack_installs::rotation::RefusedToken;

mod attempts;
mod background;
mod breaker;
mod called;
mod callers;
mod causes;
mod clocks;
mod doubt;
mod endings;
mod fetched;
mod foreign;
mod guards;
mod hangs;
mod held;
mod holds;
mod keys;
mod late;
mod logged;
mod looks;
mod losses;
mod migrate;
mod outage;
mod outcomes;
mod pages;
mod queue;
mod reinstall;
mod revoked;
mod rotated;
mod saves;
mod shutdown;
mod stall;
mod succession;
mod threshold;
mod told;
mod waits;

/// The application's own error.
#[derive(Clone, Debug)]
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
