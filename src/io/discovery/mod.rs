//! Other peers of the same overlay, found without being named. What is found is handed to the node as a hint.

mod mdns;
pub(super) mod srv;

pub use mdns::{Discovery, DiscoveryError, browse};

use crate::core::Id;
use std::net::{IpAddr, SocketAddr};

/// The next peer found; never, where nothing looks for any.
pub(super) async fn next(discovery: &mut Option<Discovery>) -> Option<(Id, SocketAddr)> {
    match discovery {
        Some(discovery) => discovery.next().await,
        None => std::future::pending().await,
    }
}

/// An address of this machine on a network it is on, IPv4 before IPv6; none where there is but loopback.
pub(super) fn local_address() -> Option<IpAddr> {
    let addrs = if_addrs::get_if_addrs().ok()?;
    let outside = addrs.iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
    outside.min_by_key(|ip| ip.is_ipv6())
}
