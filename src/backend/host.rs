//! Where a server is.

use std::net::IpAddr;

/// Whether what is sent to this host can be read on the way, if it is not encrypted.
pub(super) fn leaves_the_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.is_loopback();
    // A path is a Unix socket's.
    let stays = host.starts_with('/') || host == "localhost" || host.parse().is_ok_and(is_loopback);
    !stays
}
