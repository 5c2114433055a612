//! The bodies of the entries by which a message reaches somebody who is absent.
//!
//! *Device*, kind 14, `[1, contact body, [message id...]]`: this device is one of the user's (of a standard phone: its adapter), and
//! keys and place remain known for seven days after it was last seen; the ids are of messages from the mailbox that
//! it has shown. Renewed while it is there, never taken back.
//!
//! *Waiting messages*, kind 15, `[1, [[message id, pieces, BLAKE3]...]]`: what a sender's device has left for the address.
//! The sealed messages lie elsewhere, in pieces (kind 16), piece n of a message under the address `sip:ID.N@OVERLAY`, ID being the 32
//! hexadecimal digits of its number: so neither a long message nor many fill the record of the one they are for.

use super::cbor::{Reader, Writer, canonical};
use super::{ContactBody, IdentityError, LetterId};

const WAITING: &str = "waiting messages";
const DEVICE: &str = "device body";
/// Most messages that a device says it has.
pub const MAX_ACKS: usize = 64;

/// Most messages of one device that wait for one address.
pub const MAX_WAITING: usize = 32;

/// A device that messages are sealed to, and what it has taken out of the mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceBody {
    /// Where it was, or still is, to be reached.
    pub contact: ContactBody,
    /// Messages that it has, at most [`MAX_ACKS`].
    pub acks: Vec<LetterId>,
}

impl DeviceBody {
    /// The encoding. Surplus acknowledgements, the oldest, are left out.
    pub fn encode(&self) -> Vec<u8> {
        let acks = &self.acks[self.acks.len().saturating_sub(MAX_ACKS)..];
        let mut writer = Writer::array(3);
        writer.uint(1).bytes(&self.contact.encode()).nested(acks.len());
        for id in acks {
            writer.bytes(&id.0);
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<DeviceBody, IdentityError> {
        let mut reader = Reader::new(bytes, DEVICE);
        reader.array(3)?;
        reader.version(1)?;
        let contact = ContactBody::decode(reader.bytes()?)?;
        let len = reader.list(MAX_ACKS as u64)?;
        let acks = (0..len).map(|_| reader.exact().map(LetterId)).collect::<Result<Vec<_>, _>>()?;
        let body = DeviceBody { contact, acks };
        canonical(bytes, &body.encode(), DEVICE)?;
        Ok(body)
    }
}

/// A message that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Which.
    pub id: LetterId,
    /// In how many pieces it lies, at least 1.
    pub pieces: u8,
    /// BLAKE3 of the sealed bytes, all pieces together.
    pub hash: [u8; 32],
}

impl Waiting {
    /// The address of piece `n`.
    pub fn address(&self, n: u8, overlay: &str) -> String {
        format!("sip:{}.{n}@{overlay}", self.id)
    }
}

/// What one device has left for an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WaitingBody {
    /// At most [`MAX_WAITING`].
    pub messages: Vec<Waiting>,
}

impl WaitingBody {
    /// The encoding. Surplus messages are left out.
    pub fn encode(&self) -> Vec<u8> {
        let messages = &self.messages[..self.messages.len().min(MAX_WAITING)];
        let mut writer = Writer::array(2);
        writer.uint(1).nested(messages.len());
        for message in messages {
            writer.nested(3).bytes(&message.id.0).uint(message.pieces.into()).bytes(&message.hash);
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<WaitingBody, IdentityError> {
        let mut reader = Reader::new(bytes, WAITING);
        reader.array(2)?;
        reader.version(1)?;
        let len = reader.list(MAX_WAITING as u64)?;
        let mut messages = Vec::with_capacity(len);
        for _ in 0..len {
            reader.array(3)?;
            let id = LetterId(reader.exact()?);
            let pieces = u8::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WAITING))?;
            if pieces == 0 {
                return Err(IdentityError::Malformed(WAITING));
            }
            messages.push(Waiting { id, pieces, hash: reader.exact()? });
        }
        let body = WaitingBody { messages };
        canonical(bytes, &body.encode(), WAITING)?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Id;

    #[test]
    fn both_ways_and_bounded() {
        let (peer_id, user_agent) = (Id::from_u64(7), "chordial".into());
        let contact = ContactBody { peer_id, addrs: Vec::new(), user_agent, via: Vec::new() };
        let acks: Vec<_> = (0..200u8).map(|n| LetterId([n; 16])).collect();
        let body = DeviceBody { contact, acks: acks[..3].to_vec() };
        let bytes = body.encode();
        assert_eq!(DeviceBody::decode(&bytes), Ok(body.clone()));
        assert!((0..bytes.len()).all(|n| DeviceBody::decode(&bytes[..n]).is_err()));
        let cut = DeviceBody::decode(&DeviceBody { acks: acks.clone(), ..body }.encode()).unwrap();
        assert_eq!(cut.acks, acks[200 - MAX_ACKS..]);

        let message = Waiting { id: LetterId([1; 16]), pieces: 2, hash: [9; 32] };
        assert_eq!(message.address(1, "office"), format!("sip:{}.1@office", "01".repeat(16)));
        assert!(crate::identity::split_aor(&message.address(255, "office")).is_some());
        let body = WaitingBody { messages: vec![message.clone(); 3] };
        let bytes = body.encode();
        assert_eq!(WaitingBody::decode(&bytes), Ok(body));
        assert!((0..bytes.len()).all(|n| WaitingBody::decode(&bytes[..n]).is_err()));
        let many = WaitingBody { messages: vec![message.clone(); MAX_WAITING + 9] }.encode();
        assert_eq!(WaitingBody::decode(&many).unwrap().messages.len(), MAX_WAITING);
        assert!(many.len() <= crate::identity::EntryKind::WAITING.rules().largest);
        let none = WaitingBody { messages: vec![Waiting { pieces: 0, ..message }] };
        assert!(WaitingBody::decode(&none.encode()).is_err());
    }
}
