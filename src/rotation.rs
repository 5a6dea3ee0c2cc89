//! Token rotation: a live token for every caller, and never a refresh token spent twice or lost.
//!
//! A bot's and each user's tokens are chains of their own, refreshed and saved apart. Due but
//! alive, a token is handed out and replaced in the background; at its end callers wait for the
//! next one, or get a typed reason. One task per chain and process calls Slack, and one process of
//! many, by a lease in the chain's record. What no lease can promise (a process that stalls and
//! wakes up late) the record's generation does: `docs/rotation.md` has the protocol, its
//! invariants, and what cannot be promised.

mod answer;
mod attempt;
mod auth_test;
mod buy;
mod engine;
mod error;
mod guard;
mod handout;
mod jitter;
mod lease;
mod migrate;
#[cfg(test)]
mod model;
mod protocol;
mod recent;
mod refresh;
mod rotator;
mod single_flight;
mod worker;

pub use engine::RotationConfig;
pub use error::{CallError, Error, RefusedToken};
pub use migrate::Migrated;
pub use rotator::{Refreshed, Token, TokenRotator};
pub use worker::WorkerConfig;
