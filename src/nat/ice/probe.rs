//! STUN Binding requests without credentials, and their answers: how an address is seen from outside (RFC 8489 sections 5, 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// True for a datagram that is a STUN message (RFC 7983, RFC 8489 section 5).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] < 4 && datagram[4..8] == COOKIE
}

/// A Binding request.
pub(super) fn request(transaction: [u8; 12]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(&BINDING_REQUEST);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(&transaction);
    out
}

/// The transaction of a Binding success response and the address in it; `None` for anything else.
pub fn mapped_address(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    if !is_stun(datagram) || datagram[..2] != BINDING_SUCCESS {
        return None;
    }
    let transaction: [u8; 12] = datagram[8..HEADER].try_into().ok()?;
    let (mut rest, mut plain) = (&datagram[HEADER..], None);
    while let Some((head, body)) = rest.split_at_checked(4) {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = body.get(..length)?;
        match kind {
            XOR_MAPPED_ADDRESS => return Some((transaction, address(value, Some(&transaction))?)),
            MAPPED_ADDRESS => plain = address(value, None),
            _ => {}
        }
        rest = body.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((transaction, plain?))
}

fn address(value: &[u8], transaction: Option<&[u8; 12]>) -> Option<SocketAddr> {
    let mut mask = [0; 16];
    if let Some(transaction) = transaction {
        mask[..4].copy_from_slice(&COOKIE);
        mask[4..].copy_from_slice(transaction);
    }
    let port = u16::from_be_bytes([value.get(2)? ^ mask[0], value.get(3)? ^ mask[1]]);
    let mut bytes = [0; 16];
    let length = match value.get(1)? {
        1 => 4,
        2 => 16,
        _ => return None,
    };
    for (n, byte) in value.get(4..4 + length)?.iter().enumerate() {
        bytes[n] = byte ^ mask[n];
    }
    let ip = match length {
        4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    Some(SocketAddr::new(ip, port))
}
