//! Record entries: what one device says under one address of record.
//!
//! `[entry, chain, signature]`: `entry` is a byte string that holds `[1, kind, AOR, device key, sequence, issued, lifetime,
//! body]`, `signature` is the device's over it, `chain` says who the device is. At most `limits::RECORD_ENTRY` bytes.

use super::cbor::{Reader, Writer, canonical};
use super::{Chain, IdentityError, KeyPair, PublicKey, Purpose, RecordError, resource_key};
use crate::core::{Id, UnixTime, limits};
use std::sync::Arc;
use std::time::Duration;

const WHAT: &str = "entry";

/// The longest life of entries that outlast a holiday: 400 days.
pub const LONG_ENTRY_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EntryKind {
    /// 1: where the AOR can be reached ([`ContactBody`](super::ContactBody)).
    Contact,
    /// Any other number: a kind of a later version, which holders keep and hand out like the rest.
    Other(u16),
}

impl EntryKind {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            EntryKind::Contact => 1,
            EntryKind::Other(n) => n,
        }
    }

    /// The longest life of an entry of this kind. What a user would miss after a holiday with all devices off (the password
    /// log-in, contacts and settings) lives longer than what somebody renews every day.
    pub const fn max_lifetime(self) -> Duration {
        match self {
            EntryKind::Other(2 | 12) => LONG_ENTRY_LIFETIME,
            _ => super::MAX_ENTRY_LIFETIME,
        }
    }

    /// Where a user's entries of this kind lie beside `sip:USER@OVERLAY`: behind a plus sign in resources of their own, which the
    /// user's devices may write though they are nobody's name.
    pub const fn private_suffix(self) -> Option<&'static str> {
        match self {
            EntryKind::Other(2) => Some("+login"),
            EntryKind::Other(12) => Some("+settings"),
            _ => None,
        }
    }

    /// True when `name` is one of `user`'s own resources for this kind: the suffix, and for a kind of several parts their number.
    pub fn is_private_to(self, name: &str, user: &str) -> bool {
        let rest = self.private_suffix().and_then(|suffix| name.strip_prefix(user)?.strip_prefix(suffix));
        rest.is_some_and(|rest| rest.is_empty() || matches!(rest.as_bytes(), [b'-', b'0'..=b'9']))
    }

    /// The kind of a number.
    pub const fn from_number(n: u16) -> EntryKind {
        match n {
            1 => EntryKind::Contact,
            n => EntryKind::Other(n),
        }
    }
}

/// What a device says. An empty body takes back what the device said before (and outlives it).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is about.
    pub kind: EntryKind,
    /// Canonical AOR, `sip:bob@overlay`.
    pub aor: String,
    /// The signing device.
    pub device: PublicKey,
    /// Rises with each new body of the same dictionary key; the higher one counts.
    pub sequence: u64,
    /// When it was signed.
    pub issued: UnixTime,
    /// For how long it counts from `issued`, in seconds; 1 to seven days.
    pub lifetime: u32,
    /// By kind.
    pub body: Vec<u8>,
}

impl Entry {
    /// Where it belongs on the ring: SHA-1 of the AOR.
    pub fn resource_key(&self) -> Id {
        resource_key(&self.aor)
    }

    /// The first second in which it counts no more.
    pub fn expires(&self) -> UnixTime {
        self.issued + Duration::from_secs(u64::from(self.lifetime))
    }

    /// True when it takes back instead of saying something.
    pub fn is_removal(&self) -> bool {
        self.body.is_empty()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(8);
        writer.uint(1).uint(self.kind.number().into()).text(&self.aor).bytes(&self.device.0);
        writer.uint(self.sequence).uint(self.issued.secs()).uint(self.lifetime.into()).bytes(&self.body);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Entry, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(8)?;
        reader.version(1)?;
        let kind = u16::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?;
        Ok(Entry {
            kind: EntryKind::from_number(kind),
            aor: reader.text()?.to_owned(),
            device: PublicKey(reader.exact()?),
            sequence: reader.uint()?,
            issued: UnixTime(reader.uint()?),
            lifetime: u32::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?,
            body: reader.bytes()?.to_vec(),
        })
    }
}

/// Under which key of a resource's dictionary an entry stands: one per kind, device and user key, so that in an open
/// overlay two who claim one name stand side by side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DictionaryKey {
    /// What it is about.
    pub kind: EntryKind,
    /// Fingerprint of the user's key.
    pub user: [u8; 8],
    /// The device.
    pub device: PublicKey,
}

/// An entry with its signature and the signer's chain. Cheap to clone. Decoding verifies nothing:
/// [`TrustAnchor::verify_entry`](super::TrustAnchor::verify_entry) does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedEntry(Arc<Inner>);

#[derive(PartialEq, Eq, Debug)]
struct Inner {
    entry: Entry,
    chain: Chain,
    signature: [u8; 64],
    signed: Vec<u8>,
    encoded: Vec<u8>,
}

impl SignedEntry {
    /// Signs with the device's key, which `entry.device` is set to. `TooLarge` when it does not fit a record.
    pub fn sign(mut entry: Entry, device: &KeyPair, chain: Chain) -> Result<SignedEntry, IdentityError> {
        entry.device = device.public();
        let signature = device.sign(Purpose::Entry, &entry.encode());
        let signed = SignedEntry::assemble(entry, chain, signature);
        if signed.encoded().len() > limits::RECORD_ENTRY { Err(IdentityError::TooLarge(WHAT)) } else { Ok(signed) }
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<SignedEntry, RecordError> {
        if bytes.len() > limits::RECORD_ENTRY {
            return Err(RecordError::TooLarge);
        }
        let read = || -> Result<SignedEntry, IdentityError> {
            let mut reader = Reader::new(bytes, WHAT);
            reader.array(3)?;
            let entry = Entry::decode(reader.bytes()?)?;
            let chain = Chain::read(&mut reader)?;
            let signature = reader.exact()?;
            Ok(SignedEntry::assemble(entry, chain, signature))
        };
        let entry = read().map_err(|_| RecordError::Malformed)?;
        canonical(bytes, entry.encoded(), WHAT).map_err(|_| RecordError::NotCanonical)?;
        Ok(entry)
    }

    /// The encoding, as it travels and is kept.
    pub fn encoded(&self) -> &[u8] {
        &self.0.encoded
    }

    /// What is said.
    pub fn entry(&self) -> &Entry {
        &self.0.entry
    }

    /// The signer's chain.
    pub fn chain(&self) -> &Chain {
        &self.0.chain
    }

    /// Its place in the resource's dictionary. Of a verified entry only it means something.
    pub fn dictionary_key(&self) -> DictionaryKey {
        let user = self.0.chain.user_key().map(|k| k.fingerprint()).unwrap_or_default();
        DictionaryKey { kind: self.0.entry.kind, user, device: self.0.entry.device }
    }

    pub(super) fn signature(&self) -> &[u8; 64] {
        &self.0.signature
    }

    pub(super) fn signed_bytes(&self) -> &[u8] {
        &self.0.signed
    }

    fn assemble(entry: Entry, chain: Chain, signature: [u8; 64]) -> SignedEntry {
        let signed = entry.encode();
        let mut writer = Writer::array(3);
        writer.bytes(&signed).raw(chain.encoded()).bytes(&signature);
        let encoded = writer.finish();
        SignedEntry(Arc::new(Inner { entry, chain, signature, signed, encoded }))
    }
}
