//! The audit log: what it records, and how it shows that it was changed.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod log;
mod modes;
mod told;
