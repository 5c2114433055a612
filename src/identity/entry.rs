//! Record entries: what one device says under one address of record.
//!
//! `[entry, chain, signature]`: `entry` is a byte string that holds `[1, kind, AOR, device key, sequence, issued, lifetime,
//! body]`, `signature` is the device's over it, `chain` says who the device is. At most `limits::RECORD_ENTRY` bytes. A fourth
//! item, where there is one, renews it ([`Touch`]).

use super::cbor::{Reader, Writer, canonical};
use super::{Chain, EntryKind, IdentityError, KeyPair, PublicKey, Purpose, RecordError, Touch, TouchOf, resource_key};
use crate::core::{Id, UnixTime, limits};
use std::sync::Arc;
use std::time::Duration;

const WHAT: &str = "entry";

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
    /// For how long it counts from `issued`, in seconds; at least 1, at most what its kind allows.
    pub lifetime: u32,
    /// By kind.
    pub body: Vec<u8>,
}

impl Entry {
    /// Where it belongs on the ring: SHA-1 of the AOR.
    pub fn resource_key(&self) -> Id {
        resource_key(&self.aor)
    }

    /// The first second in which it counts no more. What takes back counts for as long as anything of its kind can live, so that
    /// a copy that was away comes back to find it.
    pub fn expires(&self) -> UnixTime {
        let lifetime = Duration::from_secs(u64::from(self.lifetime));
        self.issued + if self.is_removal() { lifetime.max(self.kind.rules().known) } else { lifetime }
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
/// overlay two who claim one name stand side by side; of a kind that has many entries a device
/// ([`KindRules::many`](super::KindRules::many)), each under its sequence number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DictionaryKey {
    /// What it is about.
    pub kind: EntryKind,
    /// Fingerprint of the user's key.
    pub user: [u8; 8],
    /// The device.
    pub device: PublicKey,
    /// The sequence number, of kinds with many entries a device; else 0.
    pub item: u64,
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
    touch: Option<Touch>,
    signed: Vec<u8>,
    encoded: Vec<u8>,
}

impl SignedEntry {
    /// Signs with the device's key, which `entry.device` is set to. `TooLarge` when it does not fit a record.
    pub fn sign(mut entry: Entry, device: &KeyPair, chain: Chain) -> Result<SignedEntry, IdentityError> {
        entry.device = device.public();
        let signature = device.sign(Purpose::Entry, &entry.encode());
        let signed = SignedEntry::assemble(entry, chain, signature, None);
        if signed.encoded().len() > limits::RECORD_ENTRY { Err(IdentityError::TooLarge(WHAT)) } else { Ok(signed) }
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<SignedEntry, RecordError> {
        if bytes.len() > limits::RECORD_ENTRY {
            return Err(RecordError::TooLarge);
        }
        let read = || -> Result<SignedEntry, IdentityError> {
            let mut reader = Reader::new(bytes, WHAT);
            let touched = match reader.list(4)? {
                3 => false,
                4 => true,
                _ => return Err(IdentityError::Malformed(WHAT)),
            };
            let entry = Entry::decode(reader.bytes()?)?;
            let chain = Chain::read(&mut reader)?;
            let signature = reader.exact()?;
            let touch = if touched { Some(Touch::read(&mut reader)?) } else { None };
            Ok(SignedEntry::assemble(entry, chain, signature, touch))
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

    /// The first second in which it counts no more, its renewal included.
    pub fn expires(&self) -> UnixTime {
        let renewed = self.0.touch.as_ref().map_or(UnixTime(0), Touch::expires);
        self.0.entry.expires().max(renewed)
    }

    /// The entry with this renewal in place of the one that it has. `TooLarge` when it does not fit a record.
    pub fn with_touch(&self, touch: Touch) -> Result<SignedEntry, IdentityError> {
        let inner = &self.0;
        let touched = SignedEntry::assemble(inner.entry.clone(), inner.chain.clone(), inner.signature, Some(touch));
        if touched.encoded().len() > limits::RECORD_ENTRY { Err(IdentityError::TooLarge(WHAT)) } else { Ok(touched) }
    }

    /// Its renewal.
    pub fn touch(&self) -> Option<&Touch> {
        self.0.touch.as_ref()
    }

    /// Its renewal, for a holder of the entry.
    pub fn touch_of(&self) -> Option<TouchOf> {
        let touch = self.0.touch.clone()?;
        Some(TouchOf { entry: self.dictionary_key(), sequence: self.0.entry.sequence, touch })
    }

    /// The signer's chain.
    pub fn chain(&self) -> &Chain {
        &self.0.chain
    }

    /// Its place in the resource's dictionary. Of a verified entry only it means something.
    pub fn dictionary_key(&self) -> DictionaryKey {
        let user = self.0.chain.user_key().map(|k| k.fingerprint()).unwrap_or_default();
        let entry = &self.0.entry;
        let item = if entry.kind.rules().many { entry.sequence } else { 0 };
        DictionaryKey { kind: entry.kind, user, device: entry.device, item }
    }

    pub(super) fn signature(&self) -> &[u8; 64] {
        &self.0.signature
    }

    pub(super) fn signed_bytes(&self) -> &[u8] {
        &self.0.signed
    }

    fn assemble(entry: Entry, chain: Chain, signature: [u8; 64], touch: Option<Touch>) -> SignedEntry {
        let signed = entry.encode();
        let mut writer = Writer::array(if touch.is_some() { 4 } else { 3 });
        writer.bytes(&signed).raw(chain.encoded()).bytes(&signature);
        if let Some(touch) = &touch {
            touch.write(&mut writer);
        }
        let encoded = writer.finish();
        SignedEntry(Arc::new(Inner { entry, chain, signature, touch, signed, encoded }))
    }
}
