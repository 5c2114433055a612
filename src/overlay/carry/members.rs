//! News of members as a body: `[1, until, digest, [[peer-ID, address, version, gone], ...]]` in deterministic CBOR; `until` is a
//! byte string or null, `digest` an integer or null, an address 6 or 18 bytes (IP address, port in network order).

use super::{Carry, CarryError};
use crate::core::Id;
use crate::overlay::{MAX_NEWS, Member, PeerRef};
use crate::sip::msg::Message;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use std::net::{IpAddr, SocketAddr};

/// Media type of news of members.
pub const MEMBERS_TYPE: &str = "application/chordial-members+cbor";
const VERSION: u8 = 1;

/// Until, digest, news.
pub(super) type Body = (Option<Id>, Option<u64>, Vec<Member>);

pub(super) fn push_members(message: &mut Message, until: Option<&Id>, digest: Option<u64>, news: &[Member]) {
    message.set_body(MEMBERS_TYPE, encode(until, digest, news));
}

impl Carry {
    pub(super) fn read_members(&self, message: &Message) -> Result<Body, CarryError> {
        if !message.content_is(MEMBERS_TYPE) {
            return Err(CarryError::MediaType);
        }
        let read = self.decode_members(message.body()).ok_or(CarryError::Body)?;
        // One encoding of one meaning, and nothing behind it.
        if encode(read.0.as_ref(), read.1, &read.2) == message.body() { Ok(read) } else { Err(CarryError::Body) }
    }

    fn decode_members(&self, body: &[u8]) -> Option<Body> {
        let mut d = Decoder::new(body);
        if d.array().ok()? != Some(4) || d.u8().ok()? != VERSION {
            return None;
        }
        let until = match d.datatype().ok()? {
            Type::Null => d.null().map(|()| None).ok()?,
            _ => Some(self.member_id(d.bytes().ok()?)?),
        };
        let digest = match d.datatype().ok()? {
            Type::Null => d.null().map(|()| None).ok()?,
            _ => Some(d.u64().ok()?),
        };
        let count = d.array().ok()?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MAX_NEWS)?;
        let mut news = Vec::new();
        for _ in 0..count {
            if d.array().ok()? != Some(4) {
                return None;
            }
            let id = self.member_id(d.bytes().ok()?)?;
            let addr = read_addr(d.bytes().ok()?)?;
            if self.peer_id.is_some_and(|f| f(addr) != id) {
                return None;
            }
            let (version, gone) = (d.u32().ok()?, d.bool().ok()?);
            news.push(Member { peer: PeerRef { id, addr }, version, gone });
        }
        Some((until, digest, news))
    }

    fn member_id(&self, bytes: &[u8]) -> Option<Id> {
        let id = Id(bytes.try_into().ok()?);
        self.space.contains(&id).then_some(id)
    }
}

fn encode(until: Option<&Id>, digest: Option<u64>, news: &[Member]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut e = Encoder::new(&mut body);
    // Writing to a vector does not fail.
    let _ = e.array(4).and_then(|e| e.u8(VERSION));
    let _ = match until {
        Some(id) => e.bytes(&id.0),
        None => e.null(),
    };
    let _ = match digest {
        Some(digest) => e.u64(digest),
        None => e.null(),
    };
    let _ = e.array(news.len() as u64);
    for m in news {
        let _ = e.array(4).and_then(|e| e.bytes(&m.peer.id.0)).and_then(|e| e.bytes(&write_addr(m.peer.addr)));
        let _ = e.u32(m.version).and_then(|e| e.bool(m.gone));
    }
    body
}

fn write_addr(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(addr.port().to_be_bytes());
    bytes
}

fn read_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}
