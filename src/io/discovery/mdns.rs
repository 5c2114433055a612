//! Peers on the local network by mDNS (RFC 6762) and DNS-SD (RFC 6763): every peer announces
//! `_chordial._tcp.local.` with its overlay port and looks for the others of its own overlay.
//!
//! | TXT key | what |
//! |---|---|
//! | `v` | `1` |
//! | `o` | 16 hexadecimal digits of a BLAKE3 over the overlay's name and, in an office, its root key |
//! | `id` | peer-ID, 40 hexadecimal digits |
//!
//! Instance and host are named by the peer-ID, so that a stranger on the network learns that a Chordial peer is here, and
//! nobody's name. In an office the tag cannot be guessed without the root key; of an open overlay, whose
//! name is all there is to it, a guessed name can be confirmed.
//!
//! Nothing here is trusted: who answers at an address is proven by the link's TLS handshake and certificate chain.
//! One network only: the one that this peer's address lies on; it begins anew when that changes. Peers found are repeated
//! from time to time until they say goodbye or their records expire, so that the node may forget them. Multicast
//! DNS does not cross routers; there `--bootstrap` is needed.

use crate::core::Id;
use mdns_sd::{IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The service.
const SERVICE: &str = "_chordial._tcp.local.";
/// Most peers kept; the node needs one.
const MAX_FOUND: usize = 64;
/// How often all that is found is told again.
const AGAIN: Duration = Duration::from_secs(15);

/// Why nobody is looked for.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The mDNS responder refused.
    #[error("mDNS: {0}")]
    Mdns(#[from] mdns_sd::Error),
}

/// Announces this peer and hears of others, until it is dropped.
pub struct Discovery {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    tag: String,
    own: Id,
    /// By the full name of the instance.
    found: BTreeMap<String, (Id, SocketAddr)>,
    ready: VecDeque<(Id, SocketAddr)>,
    again: Interval,
}

impl Discovery {
    /// Announces peer `own` of the overlay at `address`, on the network that it lies on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn start(tag: &str, own: Id, address: SocketAddr) -> Result<Discovery, DiscoveryError> {
        let tag = tag.to_owned();
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::Addr(address.ip()))?;
        let events = daemon.browse(SERVICE)?;
        let (name, id) = (own.to_string(), own.to_string());
        let txt = [("v", "1"), ("o", tag.as_str()), ("id", id.as_str())];
        let host = format!("{}.local.", &name[..16]);
        let service = ServiceInfo::new(SERVICE, &name, &host, address.ip(), address.port(), &txt[..])?;
        daemon.register(service)?;
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Discovery { daemon, events, tag, own, found: BTreeMap::new(), ready: VecDeque::new(), again })
    }

    /// The next peer found, or found before and still there; `None` when nobody is looked for any more. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<(Id, SocketAddr)> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(found);
            }
            tokio::select! {
                event = self.events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => self.resolved(&service),
                    Ok(ServiceEvent::ServiceRemoved(_, name)) => drop(self.found.remove(&name)),
                    Ok(_) => {}
                    Err(_) => return None,
                },
                _ = self.again.tick() => self.ready.extend(self.found.values().copied()),
            }
        }
    }

    fn resolved(&mut self, service: &ResolvedService) {
        let text = |key| service.txt_properties.get_property_val_str(key);
        let (Some(tag), Some(id)) = (text("o"), text("id").and_then(Id::from_hex)) else { return };
        if tag != self.tag || id == self.own {
            return;
        }
        let addrs = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).filter(dialable);
        let Some(ip) = addrs.min() else { return };
        let found = (id, SocketAddr::new(ip, service.port));
        if self.found.len() >= MAX_FOUND && !self.found.contains_key(&service.fullname) {
            return;
        }
        if self.found.insert(service.fullname.clone(), found) != Some(found) {
            tracing::info!(peer = %found.1, "found on the local network");
            self.ready.push_back(found);
        }
    }
}

/// Whoever announces a Chordial peer on the local network within `time`, of whatever overlay: for who is of none yet.
///
/// # Errors
/// `DiscoveryError`.
pub async fn browse(time: Duration) -> Result<Vec<SocketAddr>, DiscoveryError> {
    let daemon = ServiceDaemon::new()?;
    let events = daemon.browse(SERVICE)?;
    let mut found = Vec::new();
    let _ = tokio::time::timeout(time, async {
        while let Ok(event) = events.recv_async().await {
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            let addrs = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).filter(dialable);
            let addr = addrs.min().map(|ip| SocketAddr::new(ip, service.port));
            if let Some(addr) = addr.filter(|a| !found.contains(a) && found.len() < MAX_FOUND) {
                found.push(addr);
            }
        }
    })
    .await;
    if let Ok(done) = daemon.shutdown() {
        let _ = done.recv_timeout(Duration::from_millis(500));
    }
    Ok(found)
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // Says goodbye, so that the others forget this address at once.
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(Duration::from_millis(500));
        }
    }
}

/// An address that a peer on the local network can have.
fn dialable(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_a_network_are_dialled() {
        for (text, right) in [
            ("10.1.2.3", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.251", false),
            ("fe80::1", false),
        ] {
            assert_eq!(dialable(&text.parse().unwrap()), right, "{text}");
        }
    }
}
