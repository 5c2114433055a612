//! Whom a relay forwards to. Public addresses; others only where the owner lists them, or where a member was seen to have them. The
//! relay's own addresses stand for its other allocations and for nothing else: a packet to them never leaves by a socket.

use crate::core::Instant;
use crate::nat::{Scope, scope};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most proven addresses.
const PROVEN: usize = 4096;

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    ip: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Whether `ip` is one of these.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b)).checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)).checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// What is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an address nor ADDRESS/BITS")]
pub struct NoPrefix;

impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Prefix, NoPrefix> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip = ip.trim().parse::<IpAddr>().map_err(|_| NoPrefix)?.to_canonical();
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), |b| b.trim().parse::<u8>()).map_err(|_| NoPrefix)?;
        if bits <= all { Ok(Prefix { ip, bits }) } else { Err(NoPrefix) }
    }
}

/// What becomes of packets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are sent there.
    Forward,
    /// It is this relay's: only to allocations of its own, within this process.
    Inside,
    /// 403.
    Refuse,
}

/// A relay's word on addresses.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Listed by the owner.
    pub allow: Vec<Prefix>,
    /// This machine's, and those it is reached at.
    pub own: Vec<IpAddr>,
    proven: BTreeMap<IpAddr, Instant>,
}

impl Peers {
    /// With what the owner lists, and this machine's addresses.
    pub fn new(allow: Vec<Prefix>, own: Vec<IpAddr>) -> Peers {
        Peers { allow, own, proven: BTreeMap::new() }
    }

    /// A member is at `ip`: its link came from there.
    pub fn prove(&mut self, now: Instant, ip: IpAddr, until: Instant) {
        if self.proven.len() >= PROVEN {
            self.proven.retain(|_, until| *until > now);
        }
        if self.proven.len() < PROVEN || self.proven.contains_key(&ip.to_canonical()) {
            self.proven.insert(ip.to_canonical(), until);
        }
    }

    /// What becomes of packets to `ip`.
    pub fn verdict(&self, now: Instant, ip: IpAddr) -> Verdict {
        let ip = ip.to_canonical();
        let reserved = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if reserved {
            Verdict::Refuse
        } else if self.allow.iter().any(|p| p.contains(ip)) {
            Verdict::Forward
        } else if self.own.iter().any(|own| own.to_canonical() == ip) {
            Verdict::Inside
        } else if reaches(ip) == Scope::Public || self.is_proven(now, ip) {
            Verdict::Forward
        } else {
            Verdict::Refuse
        }
    }

    /// Loopback and the addresses of one link are nobody else's, whoever shows them.
    fn is_proven(&self, now: Instant, ip: IpAddr) -> bool {
        let shared = matches!(scope(ip), Scope::Private | Scope::Carrier);
        shared && self.proven.get(&ip).is_some_and(|until| *until > now)
    }
}

/// The scope of where packets to `ip` end: translators (RFC 6052, 6to4, Teredo) lead to the IPv4 address within.
fn reaches(ip: IpAddr) -> Scope {
    let IpAddr::V6(v6) = ip else { return scope(ip) };
    let inner = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Some((a, b)),
        [0x2002, a, b, ..] => Some((a, b)),
        [0x2001, 0, .., a, b] => Some((!a, !b)),
        // IPv4-compatible, long abandoned.
        [0, 0, 0, 0, 0, 0, a, b] if v6 != Ipv6Addr::LOCALHOST => Some((a, b)),
        // The local-use prefix of RFC 8215.
        [0x64, 0xff9b, 1, ..] => return Scope::Private,
        _ => None,
    };
    match inner {
        Some((a, b)) => scope(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b)).into()),
        None => scope(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn verdict(peers: &Peers, ip: &str) -> Verdict {
        peers.verdict(Instant::ZERO, ip.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_by_default() {
        let peers = Peers { own: vec!["198.51.100.1".parse().unwrap()], ..Peers::default() };
        for ip in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "::ffff:169.254.1.1",
            "fe80::1",
            "10.0.0.1",
            "172.16.3.3",
            "192.168.1.1",
            "100.64.0.1",
            "fd00::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "64:ff9b::7f00:1",
            "64:ff9b::c0a8:101",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "::7f00:1",
            "64:ff9b:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
        ] {
            assert_eq!(verdict(&peers, ip), Verdict::Refuse, "{ip}");
        }
        for ip in ["9.9.9.9", "2a00:1450::1", "64:ff9b::808:808", "::ffff:9.9.9.9"] {
            assert_eq!(verdict(&peers, ip), Verdict::Forward, "{ip}");
        }
        assert_eq!(verdict(&peers, "198.51.100.1"), Verdict::Inside);
        assert_eq!(verdict(&peers, "::ffff:198.51.100.1"), Verdict::Inside);
    }

    #[test]
    fn what_is_listed_or_proven_is_forwarded_to() {
        let mut peers =
            Peers { allow: vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], ..Peers::default() };
        assert_eq!(verdict(&peers, "127.0.0.5"), Verdict::Forward);
        assert_eq!(verdict(&peers, "fd12::5"), Verdict::Forward);
        assert_eq!(verdict(&peers, "192.168.1.5"), Verdict::Refuse);
        let until = Instant::ZERO + Duration::from_secs(10);
        for ip in ["192.168.1.5", "169.254.1.1", "::1", "fe80::1"] {
            peers.prove(Instant::ZERO, ip.parse().unwrap(), until);
        }
        assert_eq!(verdict(&peers, "192.168.1.5"), Verdict::Forward);
        assert_eq!(peers.verdict(until, "192.168.1.5".parse().unwrap()), Verdict::Refuse);
        assert_eq!(verdict(&peers, "169.254.1.1"), Verdict::Refuse);
        assert_eq!(verdict(&peers, "::1"), Verdict::Refuse);
        assert_eq!(verdict(&peers, "fe80::1"), Verdict::Refuse);
    }

    #[test]
    fn prefixes() {
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        assert_eq!("10.0.0.0/8".parse::<Prefix>().unwrap().to_string(), "10.0.0.0/8");
        for bad in ["", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Prefix>(), Err(NoPrefix), "{bad}");
        }
    }

    #[test]
    fn what_is_proven_is_bounded() {
        let mut peers = Peers::default();
        for i in 0..10_000u32 {
            peers.prove(Instant::ZERO, Ipv4Addr::from(0x0a00_0000 + i).into(), Instant::from_millis(1));
        }
        assert!(peers.proven.len() <= PROVEN);
        peers.prove(Instant::from_millis(2), "10.9.9.9".parse().unwrap(), Instant::from_millis(9));
        assert_eq!(peers.proven.len(), 1);
    }
}
