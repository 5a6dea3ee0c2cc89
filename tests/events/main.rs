//! Tenants that uninstall, reinstall, are granted access and migrate, with Slack's events in every
//! order.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod crash;
mod hooks;
mod judge;
mod notices;
mod order;
mod org;
mod revoked;
mod uninstall;

use support::app::{ADA, ALPHA, BEN, BRAVO, OLGA, ORG, SALES, SUPPORT};
use support::life::Life;
