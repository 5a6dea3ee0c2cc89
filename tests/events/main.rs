//! Tenants that leave, come back, are granted and moved, in every order that Slack may tell it.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod crash;
mod hooks;
mod judge;
mod order;
mod org;
mod revoked;
mod uninstall;

use support::app::{ADA, ALPHA, BEN, BRAVO, OLGA, ORG, SALES, SUPPORT};
use support::life::Life;
