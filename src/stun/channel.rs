//! What carries data through a relay: ChannelData (RFC 8656 section 12), Send and Data indications (section 11), and how messages are cut
//! out of a stream (section 12.5: padded to four bytes).

use super::message::{COOKIE, header};
use super::{Class, Method};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Of ChannelData, bytes.
pub const CHANNEL_HEADER: usize = 4;
/// The longest that a Data indication is beside its data, bytes: header, XOR-PEER-ADDRESS (IPv6), head and padding of DATA.
pub const INDICATION_OVERHEAD: usize = 20 + 24 + 4 + 3;
/// The longest message taken from a stream.
const STREAM_MESSAGE: usize = 20 + 65_535;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;

/// Whether `number` can be a channel at a relay. RFC 8656 section 12 leaves 0x4000 to 0x4FFF for sockets that others share; RFC 5766 had
/// numbers up to 0x7FFF, and its clients still draw from all of them.
pub fn is_channel(number: u16) -> bool {
    (0x4000..=0x7FFF).contains(&number)
}

/// Number and data of ChannelData; padding behind it is dropped.
pub fn read_channel(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let &[n0, n1, l0, l1] = bytes.get(..CHANNEL_HEADER)? else { return None };
    let number = u16::from_be_bytes([n0, n1]);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let data = bytes.get(CHANNEL_HEADER..CHANNEL_HEADER + length)?;
    is_channel(number).then_some((number, data))
}

/// Writes the header of ChannelData with `length` bytes of data.
pub fn write_channel_header(out: &mut [u8; CHANNEL_HEADER], number: u16, length: u16) {
    out[..2].copy_from_slice(&number.to_be_bytes());
    out[2..].copy_from_slice(&length.to_be_bytes());
}

/// ChannelData, padded where it goes over a stream. None where the data is longer than a datagram.
pub fn channel_data(number: u16, data: &[u8], stream: bool) -> Option<Vec<u8>> {
    let length = u16::try_from(data.len()).ok()?;
    let mut bytes = vec![0; CHANNEL_HEADER];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes[2..].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    if stream {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

/// Peer and data of a Send or Data indication, as they stand in the packet: for the way of each packet, without copying.
/// None for everything else, and for an indication with something that must be understood and is not.
pub fn read_send(bytes: &[u8]) -> Option<(Method, SocketAddr, &[u8])> {
    let (class, method, id) = header(bytes)?;
    if class != Class::Indication || !matches!(method, Method::SEND | Method::DATA) {
        return None;
    }
    let (mut peer, mut data) = (None, None);
    let mut rest = &bytes[20..];
    while let [k0, k1, l0, l1, more @ ..] = rest {
        let (kind, length) = (u16::from_be_bytes([*k0, *k1]), usize::from(u16::from_be_bytes([*l0, *l1])));
        let value = more.get(..length)?;
        match kind {
            XOR_PEER_ADDRESS if peer.is_none() => peer = Some(read_address(value, &id)?),
            DATA if data.is_none() => data = Some(value),
            // DONT-FRAGMENT is a wish.
            0x001A | 0x8000.. => {}
            _ => return None,
        }
        rest = more.get(length.next_multiple_of(4)..)?;
    }
    Some((method, peer?, data?))
}

fn read_address(value: &[u8], id: &[u8; 12]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]) ^ 0x2112;
    let ip: IpAddr = match (value.get(1)?, value.len()) {
        (1, 8) => {
            let octets: [u8; 4] = value[4..8].try_into().ok()?;
            Ipv4Addr::from(u32::from_be_bytes(octets) ^ u32::from_be_bytes(COOKIE)).into()
        }
        (2, 20) => {
            let octets: [u8; 16] = value[4..20].try_into().ok()?;
            Ipv6Addr::from(u128::from_be_bytes(octets) ^ mask(id)).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn mask(id: &[u8; 12]) -> u128 {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(id);
    u128::from_be_bytes(mask)
}

/// Appends a Data indication (or with `send` a Send indication). The transaction may be anything: nobody answers it.
pub fn write_data(out: &mut Vec<u8>, send: bool, id: &[u8; 12], peer: SocketAddr, data: &[u8]) -> Option<()> {
    let address = if peer.is_ipv4() { 8 } else { 20 };
    let length = u16::try_from(4 + address + 4 + data.len().next_multiple_of(4)).ok()?;
    out.extend_from_slice(&if send { [0x00, 0x16] } else { [0x00, 0x17] });
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(id);
    out.extend_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
    out.extend_from_slice(&(address as u16).to_be_bytes());
    out.extend_from_slice(&[0, if peer.is_ipv4() { 1 } else { 2 }]);
    out.extend_from_slice(&(peer.port() ^ 0x2112).to_be_bytes());
    match peer.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&(u32::from(ip) ^ u32::from_be_bytes(COOKIE)).to_be_bytes()),
        IpAddr::V6(ip) => out.extend_from_slice(&(u128::from(ip) ^ mask(id)).to_be_bytes()),
    }
    out.extend_from_slice(&DATA.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    let pad = data.len().next_multiple_of(4) - data.len();
    out.extend_from_slice(&[0; 3][..pad]);
    Some(())
}

/// A stream that cannot be cut: it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither STUN nor ChannelData in the stream")]
pub struct StreamFault;

/// Cuts a stream into STUN messages and ChannelData.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    read: usize,
}

impl Framer {
    /// More bytes came. What is held stays below the longest message and the bytes of one call.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, padding included.
    ///
    /// # Errors
    /// The stream carries something else.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, StreamFault> {
        let rest = &self.buffer[self.read..];
        let Some(&[first, _, l0, l1]) = rest.get(..4) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let whole = match first {
            0..=3 if rest.len() < 8 || rest[4..8] == COOKIE => 20 + length,
            0x40..=0x7F => (CHANNEL_HEADER + length).next_multiple_of(4),
            _ => return Err(StreamFault),
        };
        if whole > STREAM_MESSAGE {
            return Err(StreamFault);
        }
        if rest.len() < whole {
            return Ok(None);
        }
        let at = self.read;
        self.read += whole;
        Ok(Some(&self.buffer[at..at + whole]))
    }

    /// What came behind the last whole message: after a ConnectionBind (RFC 6062) it is the peer's.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.read)
    }
}
