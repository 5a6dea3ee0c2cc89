//! Connections to the masters, and the choice of the master for each command.

mod attempt;
mod cluster;
mod connect;
mod node;
mod router;

pub(super) use connect::{cluster, plaintext, sentinel, server};
pub(super) use node::{Failure, Node, Timeouts};
pub(super) use router::{Nature, Router};
