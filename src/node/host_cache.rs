//! The host cache: up to 200 supernodes that this node can join by after a restart, with what is known of each. It is fed by
//! what answered a request over a connection that this node opened itself; what a peer only says of itself is kept while there
//! is room and leaves after a few failures. It stays diverse, so that one network that goes down (or one liar with many addresses in
//! one network) does not take all of it: a quarter at most lies in one /24 or /48, and a full cache loses the worst of its
//! largest network first.
//!
//! On disk (`hosts.cbor`) it is deterministic CBOR: `[1, [[address, peer-ID or empty, seen, tried, successes, failures, round trip]]]`, an
//! address of 6 or 18 bytes (IP and port), times in seconds since 1970, the round trip in milliseconds. A damaged file is an empty cache.

use crate::core::{Id, Instant, UnixTime};
use crate::overlay::PeerRef;
use minicbor::{Decoder, Encoder};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most hosts kept.
pub(super) const CAPACITY: usize = 200;
/// Of these in one /24 or /48.
const PER_PREFIX: usize = CAPACITY / 4;
/// Addresses kept of one peer.
const PER_PEER: usize = 2;
/// From a change to its being written, so that a burst is written once.
const SETTLE: Duration = Duration::from_secs(2);
/// So many hosts are written without waiting for more.
const FEW: usize = 8;
/// The same where there are few ([`FEW`]): a small file, and a power cut may come before a second is over.
const SETTLE_FEW: Duration = Duration::from_millis(250);
/// From one write to the next.
const SPACING: Duration = Duration::from_secs(60);
/// A host that goes on answering is written this often, seconds.
const FRESHEN: u64 = 1800;
/// Attempts at an address that never answered.
const UNPROVEN_TRIES: u32 = 3;
/// Failures in a row after which a host that did answer once is forgotten, if it has been silent for ...
const FORGET_TRIES: u32 = 10;
/// ... these seconds.
const FORGET_AFTER: u64 = 30 * 86_400;

/// What is known of one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Host {
    id: Option<Id>,
    /// When it last answered, and when it was last tried in vain; 0 is never.
    seen: u64,
    tried: u64,
    successes: u32,
    /// Since it last answered.
    failures: u32,
    rtt_ms: u32,
}

impl Host {
    /// Orders hosts, the best first.
    fn rank(&self) -> (u32, bool, Reverse<u64>, u64, u32) {
        (self.failures, self.successes == 0, Reverse(self.seen / 3600), self.tried, self.rtt_ms)
    }
}

/// The hosts.
#[derive(Debug, Default)]
pub(super) struct HostCache {
    hosts: BTreeMap<SocketAddr, Host>,
    /// When what has changed is to be written.
    due: Option<Instant>,
    written: Option<Instant>,
}

impl HostCache {
    /// From what was kept; empty when that cannot be read.
    pub fn restore(bytes: &[u8]) -> HostCache {
        match decode(bytes) {
            Some(hosts) => HostCache { hosts, ..HostCache::default() },
            None => {
                if !bytes.is_empty() {
                    tracing::warn!("the host cache is damaged and begins anew");
                }
                HostCache::default()
            }
        }
    }

    /// An address that somebody names; nothing is known of it. False when there is no room.
    pub fn hear(&mut self, now: Instant, addr: SocketAddr, id: Option<Id>) -> bool {
        if self.hosts.contains_key(&addr) {
            return true;
        }
        let of_peer = id.map_or(0, |id| self.hosts.values().filter(|h| h.id == Some(id)).count());
        if self.hosts.len() >= CAPACITY || self.in_prefix(addr) >= PER_PREFIX || of_peer >= PER_PEER {
            return false;
        }
        self.hosts.insert(addr, Host { id, ..Host::default() });
        self.changed(now);
        true
    }

    /// A peer answered at an address that this node dialled.
    pub fn reached(&mut self, now: Instant, unix: UnixTime, addr: SocketAddr, id: Id, rtt: Duration) {
        if !self.hosts.contains_key(&addr) {
            if self.in_prefix(addr) >= PER_PREFIX {
                self.drop_worst(|a| prefix(a) == prefix(addr));
            } else if self.hosts.len() >= CAPACITY {
                let largest = self.largest_prefix();
                self.drop_worst(|a| Some(prefix(a)) == largest);
            }
        }
        let host = self.hosts.entry(addr).or_default();
        let news = host.id != Some(id)
            || host.successes == 0
            || host.failures > 0
            || unix.secs().abs_diff(host.seen) >= FRESHEN;
        let sample = u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX);
        host.rtt_ms = if host.successes == 0 { sample } else { host.rtt_ms - host.rtt_ms / 8 + sample / 8 };
        (host.id, host.failures) = (Some(id), 0);
        host.successes = host.successes.saturating_add(1);
        if news {
            host.seen = unix.secs();
            self.forget_former(id);
            self.changed(now);
        }
    }

    /// An address could not be reached.
    pub fn failed(&mut self, now: Instant, unix: UnixTime, addr: SocketAddr) {
        let Some(host) = self.hosts.get_mut(&addr) else { return };
        host.failures = host.failures.saturating_add(1);
        host.tried = unix.secs();
        let old = host.failures >= FORGET_TRIES && unix.secs().saturating_sub(host.seen) > FORGET_AFTER;
        if old || (host.successes == 0 && host.failures >= UNPROVEN_TRIES) {
            self.hosts.remove(&addr);
        }
        self.changed(now);
    }

    /// All addresses in the order in which to try them: the best of each network, then the second of each, and so on.
    pub fn in_order(&self) -> VecDeque<SocketAddr> {
        let mut networks: BTreeMap<IpAddr, Vec<(SocketAddr, &Host)>> = BTreeMap::new();
        for (addr, host) in &self.hosts {
            networks.entry(prefix(*addr)).or_default().push((*addr, host));
        }
        let mut rows = Vec::new();
        for hosts in networks.values_mut() {
            hosts.sort_by_key(|(addr, host)| (host.rank(), *addr));
            rows.extend(hosts.iter().enumerate().map(|(place, (addr, host))| (place, host.rank(), *addr)));
        }
        rows.sort_unstable();
        rows.into_iter().map(|(_, _, addr)| addr).collect()
    }

    /// Those that answered the last time they were asked, the best first.
    pub fn answering(&self) -> Vec<PeerRef> {
        let known = |addr| self.hosts.get(&addr).filter(|h| h.successes > 0 && h.failures == 0)?.id;
        self.in_order().into_iter().filter_map(|addr| Some(PeerRef { id: known(addr)?, addr })).collect()
    }

    /// True when some host has answered this device, now or before the restart: it has been in the overlay.
    pub fn has_been_in(&self) -> bool {
        self.hosts.values().any(|h| h.successes > 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// When [`HostCache::save`] has something.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// The bytes to keep, when something has changed and the last write is long enough ago, or `at_once`.
    pub fn save(&mut self, now: Instant, at_once: bool) -> Option<Vec<u8>> {
        self.due.filter(|due| at_once || *due <= now)?;
        (self.due, self.written) = (None, Some(now));
        Some(encode(&self.hosts))
    }

    fn changed(&mut self, now: Instant) {
        if self.due.is_none() {
            // In a small office the next power cut may come within the minute, and each host may be the only one that is up after it.
            let few = self.hosts.len() <= FEW;
            let (settle, spacing) = if few { (SETTLE_FEW, SETTLE_FEW) } else { (SETTLE, SPACING) };
            let spaced = self.written.map_or(now, |at| at + spacing);
            self.due = Some(spaced.max(now + settle));
        }
    }

    /// A peer that moved: the addresses at which it was longest ago.
    fn forget_former(&mut self, id: Id) {
        let mut of_peer: Vec<_> =
            self.hosts.iter().filter(|(_, h)| h.id == Some(id)).map(|(a, h)| (h.seen, *a)).collect();
        of_peer.sort_unstable();
        let surplus = of_peer.len().saturating_sub(PER_PEER);
        for (_, addr) in of_peer.iter().take(surplus) {
            self.hosts.remove(addr);
        }
    }

    fn in_prefix(&self, addr: SocketAddr) -> usize {
        self.hosts.keys().filter(|a| prefix(**a) == prefix(addr)).count()
    }

    fn largest_prefix(&self) -> Option<IpAddr> {
        let mut sizes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.hosts.keys().for_each(|a| *sizes.entry(prefix(*a)).or_default() += 1);
        sizes.into_iter().max_by_key(|(_, n)| *n).map(|(prefix, _)| prefix)
    }

    fn drop_worst(&mut self, among: impl Fn(SocketAddr) -> bool) {
        let worst = self.hosts.iter().filter(|(a, _)| among(**a)).max_by_key(|(a, h)| (h.rank(), **a)).map(|(a, _)| *a);
        worst.map(|addr| self.hosts.remove(&addr));
    }
}

/// The /24 or /48 of an address.
fn prefix(addr: SocketAddr) -> IpAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & 0xffff_ff00).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !0 << 80).into()),
    }
}

fn encode(hosts: &BTreeMap<SocketAddr, Host>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = encoder.array(2).and_then(|e| e.u8(1)).and_then(|e| e.array(hosts.len() as u64));
    for (addr, host) in hosts {
        let mut place = match addr.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        place.extend(addr.port().to_be_bytes());
        let id = host.id.map_or(Vec::new(), |id| id.0.to_vec());
        let _ = encoder.array(7).and_then(|e| e.bytes(&place)).and_then(|e| e.bytes(&id));
        for n in [host.seen, host.tried, host.successes.into(), host.failures.into(), host.rtt_ms.into()] {
            let _ = encoder.u64(n);
        }
    }
    encoder.into_writer()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<SocketAddr, Host>> {
    let mut decoder = Decoder::new(bytes);
    let head = (decoder.array().ok()?, decoder.u8().ok()?, decoder.array().ok()?);
    let (Some(2), 1, Some(count)) = head else { return None };
    if count > CAPACITY as u64 {
        return None;
    }
    let mut hosts = BTreeMap::new();
    for _ in 0..count {
        if decoder.array().ok()? != Some(7) {
            return None;
        }
        let addr = socket(decoder.bytes().ok()?)?;
        let id = match decoder.bytes().ok()? {
            [] => None,
            id => Some(Id(id.try_into().ok()?)),
        };
        let (seen, tried) = (decoder.u64().ok()?, decoder.u64().ok()?);
        let (successes, failures, rtt_ms) = (decoder.u32().ok()?, decoder.u32().ok()?, decoder.u32().ok()?);
        hosts.insert(addr, Host { id, seen, tried, successes, failures, rtt_ms });
    }
    (encode(&hosts) == bytes).then_some(hosts)
}

fn socket(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (port != 0).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[path = "host_cache_tests.rs"]
mod tests;
