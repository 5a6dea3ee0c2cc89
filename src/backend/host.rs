//! Whether a connection to a host leaves this machine.

use std::net::IpAddr;

/// Returns whether data that is sent to this host leaves this machine, so that others could read it
/// without encryption.
pub(super) fn leaves_the_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.is_loopback();
    // A path names a Unix socket.
    let stays = host.starts_with('/') || host == "localhost" || host.parse().is_ok_and(is_loopback);
    !stays
}
