//! Token rotation: hands out valid tokens, and refreshes each token once.
//!
//! The bot's tokens and each user's tokens are separate chains, which are refreshed and saved
//! separately. If a token is due but still valid, it is handed out and refreshed in the background.
//! Once it is about to expire, callers wait for the next one or get a typed error.
//!
//! One task per chain and process calls Slack. A lease in the chain's row lets one process at a
//! time call Slack. A process that stalls can outlive its lease, so the row also has a generation,
//! and a late pair never overwrites a newer one. `docs/rotation.md` describes the protocol, its
//! invariants and its limits.

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
mod revoked;
mod rotator;
mod single_flight;
mod step;
mod trigger;
mod worker;

pub use crate::store::{RefreshThreshold, ThresholdError};
pub use engine::RotationConfig;
pub use error::{CallError, Error, RefusedToken};
pub use migrate::Migrated;
pub(crate) use revoked::ended_and_wanted;
pub(crate) use rotator::{Judge, Judgement};
pub use rotator::{Refreshed, Rotated, Token, TokenRotator};
pub use worker::WorkerConfig;
