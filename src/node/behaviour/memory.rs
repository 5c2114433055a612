//! How NATs behaved on the networks that this machine was on, over restarts.
//!
//! On disk (`nat.cbor`) it is deterministic CBOR: `[1, [[own address, gateway, when, kind, seen at, mapping, filtering, [server, ...]], ...]]`: IP
//! addresses of 4 or 16 bytes, the gateway's empty where the system does not name one; seconds since 1970; kind 0 where no UDP passes, 1
//! without a NAT, 2 behind one; socket addresses of 6 or 18 bytes, empty where there is none; mapping and filtering 0 (not told) to 3
//! ([`Dependence`] in its order). The latest test comes first. A damaged file is an empty memory.

use crate::core::UnixTime;
use crate::nat::behaviour::{Behaviour, Dependence};
use minicbor::{Decoder, Encoder};
use std::net::{IpAddr, SocketAddr};

/// Networks kept; the one that was tested longest ago goes first.
pub(super) const NETWORKS: usize = 16;
/// Supernodes of one test.
const SERVERS: u64 = 2;

/// What a network is known by: this machine's address there, and its router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub own: IpAddr,
    pub gateway: Option<IpAddr>,
}

/// What one test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub network: Network,
    pub when: UnixTime,
    /// None: UDP does not pass.
    pub behaviour: Option<Behaviour>,
    /// Who was asked, the first one first.
    pub against: Vec<SocketAddr>,
}

/// The networks, the latest test first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    findings: Vec<Finding>,
}

impl Memory {
    /// From what was kept; empty when that cannot be read.
    pub fn restore(bytes: &[u8]) -> Memory {
        let findings = decode(bytes);
        if findings.is_none() && !bytes.is_empty() {
            tracing::warn!("what was known of NATs is damaged and is found out anew");
        }
        Memory { findings: findings.unwrap_or_default() }
    }

    /// What the latest test on this network found.
    pub fn of(&self, network: &Network) -> Option<&Finding> {
        self.findings.iter().find(|f| f.network == *network)
    }

    /// Keeps it in the place of what was found there before.
    pub fn keep(&mut self, finding: Finding) {
        self.findings.retain(|f| f.network != finding.network);
        self.findings.insert(0, finding);
        self.findings.truncate(NETWORKS);
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&self.findings)
    }
}

fn encode(findings: &[Finding]) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = out.array(2).and_then(|o| o.u8(1)).and_then(|o| o.array(findings.len() as u64));
    for finding in findings {
        let kind = finding.behaviour.map_or(0, |b| if b.no_nat { 1 } else { 2 });
        let told = |d: Option<Dependence>| d.map_or(0, |d| d as u8 + 1);
        let (mapping, filtering) = finding.behaviour.map_or((0, 0), |b| (told(b.mapping), told(b.filtering)));
        let gateway = finding.network.gateway.map_or(Vec::new(), ip_bytes);
        let mapped = finding.behaviour.map_or(Vec::new(), |b| socket_bytes(b.mapped));
        let _ = out.array(8).and_then(|o| o.bytes(&ip_bytes(finding.network.own))).and_then(|o| o.bytes(&gateway));
        let _ = out.u64(finding.when.secs()).and_then(|o| o.u8(kind)).and_then(|o| o.bytes(&mapped));
        let _ = out.u8(mapping).and_then(|o| o.u8(filtering)).and_then(|o| o.array(finding.against.len() as u64));
        for server in &finding.against {
            let _ = out.bytes(&socket_bytes(*server));
        }
    }
    out.into_writer()
}

fn decode(bytes: &[u8]) -> Option<Vec<Finding>> {
    let mut read = Decoder::new(bytes);
    let head = (read.array().ok()?, read.u8().ok()?, read.array().ok()?);
    let (Some(2), 1, Some(count)) = head else { return None };
    if count > NETWORKS as u64 {
        return None;
    }
    let mut findings = Vec::new();
    for _ in 0..count {
        if read.array().ok()? != Some(8) {
            return None;
        }
        let own = ip(read.bytes().ok()?)?;
        let gateway = match read.bytes().ok()? {
            [] => None,
            bytes => Some(ip(bytes)?),
        };
        let when = UnixTime(read.u64().ok()?);
        let (kind, mapped) = (read.u8().ok()?, read.bytes().ok()?);
        let (mapping, filtering) = (dependence(read.u8().ok()?)?, dependence(read.u8().ok()?)?);
        let behaviour = match kind {
            0 => None,
            1 | 2 => Some(Behaviour { mapped: socket(mapped)?, no_nat: kind == 1, mapping, filtering }),
            _ => return None,
        };
        let mut against = Vec::new();
        for _ in 0..read.array().ok()?.filter(|n| *n <= SERVERS)? {
            against.push(socket(read.bytes().ok()?)?);
        }
        findings.push(Finding { network: Network { own, gateway }, when, behaviour, against });
    }
    (encode(&findings) == bytes).then_some(findings)
}

fn dependence(told: u8) -> Option<Option<Dependence>> {
    Some(match told {
        0 => None,
        1 => Some(Dependence::Independent),
        2 => Some(Dependence::Address),
        3 => Some(Dependence::AddressAndPort),
        _ => return None,
    })
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn socket_bytes(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = ip_bytes(addr.ip());
    bytes.extend(addr.port().to_be_bytes());
    bytes
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn socket(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    Some(SocketAddr::new(ip(address)?, u16::from_be_bytes(port.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(last: u8, mapping: Option<Dependence>) -> Finding {
        let own = IpAddr::from([192, 168, 1, last]);
        let mapped = "203.0.113.9:4000".parse().unwrap();
        Finding {
            network: Network { own, gateway: last.is_multiple_of(2).then(|| IpAddr::from([192, 168, 1, 1])) },
            when: UnixTime(1_800_000_000 + u64::from(last)),
            behaviour: (last != 3).then_some(Behaviour {
                mapped,
                no_nat: false,
                mapping,
                filtering: mapping.map(|_| Dependence::Address),
            }),
            against: vec!["198.51.100.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()],
        }
    }

    #[test]
    fn there_and_back_and_bounded() {
        let mut memory = Memory::default();
        for last in 0..40 {
            memory.keep(finding(last, [None, Some(Dependence::AddressAndPort)][usize::from(last % 2)]));
        }
        assert_eq!(memory.findings.len(), NETWORKS);
        memory.keep(finding(3, None));
        memory.keep(finding(39, Some(Dependence::Independent)));
        assert_eq!(memory.findings.len(), NETWORKS);
        let back = Memory::restore(&memory.to_bytes());
        assert_eq!(back.findings, memory.findings);
        let found = back.of(&finding(39, None).network).unwrap().behaviour.unwrap();
        assert_eq!(found.mapping, Some(Dependence::Independent));
        assert_eq!(back.of(&finding(3, None).network).unwrap().behaviour, None);
        assert!(back.of(&finding(5, None).network).is_none(), "the oldest one has gone");
    }

    #[test]
    fn a_damaged_file_is_an_empty_memory_and_no_panic() {
        let mut memory = Memory::default();
        memory.keep(finding(2, Some(Dependence::Address)));
        memory.keep(finding(3, None));
        let good = memory.to_bytes();
        for end in 0..good.len() {
            assert!(Memory::restore(&good[..end]).findings.is_empty());
        }
        for at in 0..good.len() {
            for value in [0, 0x1b, 0x5b, 0x7b, 0x9b, 0x9f, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                let _ = Memory::restore(&changed);
            }
        }
    }
}
