//! The body of a contact entry: this AOR is reachable through this peer.
//!
//! `[1, peer-ID, [address...], user agent]`, or `[2, peer-ID, [address...], user agent, [peer-ID, address, peer-ID, address...]]` where
//! that peer hangs on supernodes and is reached through these, the first before the others; an address is a byte string, the IP address (4 or 16 bytes) and the port (2
//! bytes), network order.

use super::IdentityError;
use super::cbor::{Reader, Writer, canonical};
use crate::core::Id;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const WHAT: &str = "contact body";
const MAX_ADDRS: usize = 16;
const MAX_USER_AGENT: usize = 128;
const MAX_VIA: usize = 4;

/// Where to reach an AOR.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContactBody {
    /// The peer to send the call to.
    pub peer_id: Id,
    /// Where that peer's overlay socket is, best first; at most 16.
    pub addrs: Vec<SocketAddr>,
    /// What rings there, for people; at most 128 bytes.
    pub user_agent: String,
    /// The supernodes through which that peer is reached, the primary first, at most 4; empty for one that is dialled itself.
    pub via: Vec<(Id, SocketAddr)>,
}

impl ContactBody {
    /// The encoding. Surplus addresses and the surplus of a long user agent are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut cut = self.user_agent.len().min(MAX_USER_AGENT);
        while !self.user_agent.is_char_boundary(cut) {
            cut -= 1;
        }
        let version = if self.via.is_empty() { 1 } else { 2 };
        let mut writer = Writer::array(3 + version);
        writer.uint(version as u64).bytes(&self.peer_id.0);
        write_addrs(&mut writer, &self.addrs[..self.addrs.len().min(MAX_ADDRS)]);
        writer.text(&self.user_agent[..cut]);
        if version == 2 {
            let via = &self.via[..self.via.len().min(MAX_VIA)];
            writer.nested(via.len() * 2);
            for (id, addr) in via {
                writer.bytes(&id.0).bytes(&addr_bytes(addr));
            }
        }
        writer.finish()
    }

    /// Reads the canonical encoding of either version and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<ContactBody, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let version = match reader.list(5)? {
            4 => 1,
            5 => 2,
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        reader.version(version)?;
        let peer_id = Id(reader.exact()?);
        let addrs = read_addrs(&mut reader, MAX_ADDRS)?;
        let user_agent = reader.text()?.to_owned();
        let mut via = Vec::new();
        if version == 2 {
            let len = reader.list(MAX_VIA as u64 * 2)?;
            if len == 0 || len % 2 != 0 {
                return Err(IdentityError::Malformed(WHAT));
            }
            for _ in 0..len / 2 {
                let id = Id(reader.exact()?);
                via.push((id, read_addr(reader.bytes()?).ok_or(IdentityError::Malformed("address"))?));
            }
        }
        let body = ContactBody { peer_id, addrs, user_agent, via };
        canonical(bytes, &body.encode(), WHAT)?;
        Ok(body)
    }
}

pub(super) fn write_addrs(writer: &mut Writer, addrs: &[SocketAddr]) {
    writer.nested(addrs.len());
    for addr in addrs {
        writer.bytes(&addr_bytes(addr));
    }
}

pub(super) fn read_addrs(reader: &mut Reader<'_>, most: usize) -> Result<Vec<SocketAddr>, IdentityError> {
    let len = reader.list(most as u64)?;
    (0..len).map(|_| read_addr(reader.bytes()?).ok_or(IdentityError::Malformed("address"))).collect()
}

pub(super) fn addr_bytes(addr: &SocketAddr) -> Vec<u8> {
    let mut bytes = match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&addr.port().to_be_bytes());
    bytes
}

/// Addresses one after the other, each with `4` or `6` in front, as codes and links have them.
pub(super) fn tagged_addrs(addrs: &[SocketAddr]) -> Vec<u8> {
    let one = |addr: &SocketAddr| [vec![if addr.is_ipv4() { 4 } else { 6 }], addr_bytes(addr)].concat();
    addrs.iter().flat_map(one).collect()
}

/// Reads `count` of these; they and what follows.
pub(super) fn read_tagged_addrs(mut rest: &[u8], count: usize) -> Option<(Vec<SocketAddr>, &[u8])> {
    let mut addrs = Vec::new();
    for _ in 0..count {
        let (family, after) = rest.split_first()?;
        let len = match family {
            4 => 6,
            6 => 18,
            _ => return None,
        };
        let (addr, after) = after.split_at_checked(len)?;
        addrs.push(read_addr(addr)?);
        rest = after;
    }
    Some((addrs, rest))
}

pub(super) fn read_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_bounded() {
        let body = ContactBody {
            peer_id: Id::from_u64(7),
            addrs: vec!["127.0.0.1:5080".parse().expect("v4"), "[::1]:9".parse().expect("v6")],
            user_agent: "chordial".into(),
            via: Vec::new(),
        };
        let bytes = body.encode();
        assert_eq!(ContactBody::decode(&bytes), Ok(body.clone()));
        assert!((0..bytes.len()).all(|n| ContactBody::decode(&bytes[..n]).is_err()));
        assert_eq!(bytes[0], 0x84, "a peer that is dialled itself is told as ever");
        let hanging = ContactBody {
            via: vec![(Id::from_u64(8), body.addrs[0]), (Id::from_u64(9), body.addrs[1])],
            ..body.clone()
        };
        let bytes = hanging.encode();
        assert_eq!(ContactBody::decode(&bytes), Ok(hanging.clone()));
        assert!((0..bytes.len()).all(|n| ContactBody::decode(&bytes[..n]).is_err()));
        let many = ContactBody { via: hanging.via.repeat(9), ..hanging };
        assert_eq!(ContactBody::decode(&many.encode()).expect("cut").via.len(), MAX_VIA);
        let long = ContactBody { addrs: vec![body.addrs[0]; 40], user_agent: "\u{e9}".repeat(100), ..body };
        let cut = ContactBody::decode(&long.encode()).expect("what encode cuts decodes");
        assert_eq!((cut.addrs.len(), cut.user_agent.len()), (MAX_ADDRS, MAX_USER_AGENT));
    }
}
