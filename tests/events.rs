//! Tenants that leave, come back, are granted and moved, in every order that Slack may tell it.

#[macro_use]
mod support;

#[path = "events/crash.rs"]
mod crash;
#[path = "events/hooks.rs"]
mod hooks;
#[path = "events/judge.rs"]
mod judge;
#[path = "events/order.rs"]
mod order;
#[path = "events/org.rs"]
mod org;
#[path = "events/revoked.rs"]
mod revoked;
#[path = "events/uninstall.rs"]
mod uninstall;

use support::app::{ADA, ALPHA, BEN, BRAVO, OLGA, ORG, SALES, SUPPORT};
use support::life::Life;
