//! The audit log: what it records, and how it shows that it was changed.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod actors;
mod attacks;
mod dropped;
mod export;
mod fleet;
mod keys;
#[cfg(feature = "sqlite")]
mod kill;
mod log;
mod many;
mod missing;
mod modes;
mod retention;
mod rows;
mod told;
mod world;
