//! Connections to the masters, and which of them a command goes to.

mod attempt;
mod cluster;
mod connect;
mod node;
mod router;

pub(super) use connect::{cluster, plaintext, sentinel, server};
pub(super) use node::{Failure, Node, Timeouts};
pub(super) use router::{Nature, Router};
