//! The bodies of the two kinds of entry by which a message reaches somebody who is absent.
//!
//! *Device*, kind 12, `[1, contact body, [message id...]]`: this device is one of the user's (of a standard phone: its adapter), and
//! keys and place remain known for seven days after it was last seen; the ids are of messages from the mailbox that
//! it has shown. Renewed while it is there, never taken back.
//!
//! *Mailbox item*, kind 3, `[1, message id, part, parts, bytes]`: a piece of a sealed message that waits under the address of
//! the one it is for, left there by the sender's device.

use super::cbor::{Reader, Writer, canonical};
use super::{ContactBody, IdentityError, LetterId};

const ITEM: &str = "mailbox item";
const DEVICE: &str = "device body";
/// Most messages that a device says it has.
pub const MAX_ACKS: usize = 64;

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

/// A piece of a message that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxBody {
    /// Which message.
    pub id: LetterId,
    /// Which piece, from 0.
    pub part: u8,
    /// Of how many, at least 1.
    pub parts: u8,
    /// The piece of the sealed bytes.
    pub bytes: Vec<u8>,
}

impl MailboxBody {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(5);
        writer.uint(1).bytes(&self.id.0).uint(self.part.into()).uint(self.parts.into()).bytes(&self.bytes);
        writer.finish()
    }

    /// Reads the canonical encoding of a piece that can be one.
    pub fn decode(bytes: &[u8]) -> Result<MailboxBody, IdentityError> {
        let malformed = |_| IdentityError::Malformed(ITEM);
        let mut reader = Reader::new(bytes, ITEM);
        reader.array(5)?;
        reader.version(1)?;
        let id = LetterId(reader.exact()?);
        let part = u8::try_from(reader.uint()?).map_err(malformed)?;
        let parts = u8::try_from(reader.uint()?).map_err(malformed)?;
        let body = MailboxBody { id, part, parts, bytes: reader.bytes()?.to_vec() };
        canonical(bytes, &body.encode(), ITEM)?;
        if part < parts { Ok(body) } else { Err(IdentityError::Malformed(ITEM)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Id;

    #[test]
    fn both_ways_and_bounded() {
        let contact = ContactBody { peer_id: Id::from_u64(7), addrs: Vec::new(), user_agent: "chordial".into() };
        let acks: Vec<_> = (0..200u8).map(|n| LetterId([n; 16])).collect();
        let body = DeviceBody { contact, acks: acks[..3].to_vec() };
        let bytes = body.encode();
        assert_eq!(DeviceBody::decode(&bytes), Ok(body.clone()));
        assert!((0..bytes.len()).all(|n| DeviceBody::decode(&bytes[..n]).is_err()));
        let cut = DeviceBody::decode(&DeviceBody { acks: acks.clone(), ..body }.encode()).unwrap();
        assert_eq!(cut.acks, acks[200 - MAX_ACKS..]);

        let item = MailboxBody { id: LetterId([1; 16]), part: 1, parts: 2, bytes: vec![9; 300] };
        let bytes = item.encode();
        assert_eq!(MailboxBody::decode(&bytes), Ok(item.clone()));
        assert!((0..bytes.len()).all(|n| MailboxBody::decode(&bytes[..n]).is_err()));
        assert!(MailboxBody::decode(&MailboxBody { part: 2, ..item }.encode()).is_err());
    }
}
