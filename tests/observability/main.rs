//! What an operator sees: metrics, spans and the health check.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod audit;
mod consent;
mod health;
mod series;
mod spans;
