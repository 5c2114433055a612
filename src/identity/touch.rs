//! Renewals without a new entry: a device says "these entries of mine go on", once for many.
//!
//! The entries are the leaves of a hash tree (BLAKE3; a leaf is the hash of a zero byte and what the entry's signature covers, a
//! node that of a one byte and its two children; missing leaves on the right are 32 zero bytes). Signed is `[1, issued,
//! lifetime, root]`; each entry carries its own way to the root, so that it is verified by anybody, alone.

use super::cbor::{Reader, Writer};
use super::{DictionaryKey, IdentityError, KeyPair, PublicKey, Purpose, SignedEntry};
use crate::core::UnixTime;
use std::time::Duration;

const WHAT: &str = "touch";
/// Most levels of a tree: 4,096 entries under one signature.
const MAX_LEVELS: usize = 12;

/// An entry's part of a renewal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touch {
    /// When it was signed.
    pub issued: UnixTime,
    /// For how long the entry counts from `issued`, in seconds.
    pub lifetime: u32,
    /// The leaf's number, from the left.
    index: u32,
    /// The other children on the way to the root, from the leaf on.
    path: Vec<[u8; 32]>,
    signature: [u8; 64],
}

/// A renewal as it is sent to a holder of the entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TouchOf {
    /// The entry's place in the resource's dictionary.
    pub entry: DictionaryKey,
    /// The entry's sequence number.
    pub sequence: u64,
    /// The renewal.
    pub touch: Touch,
}

impl Touch {
    /// The first second in which it counts no more.
    pub fn expires(&self) -> UnixTime {
        self.issued + Duration::from_secs(u64::from(self.lifetime))
    }

    /// True when `device` has signed it for the entry whose signed bytes these are.
    pub(super) fn holds(&self, device: &PublicKey, entry: &[u8]) -> bool {
        let mut hash = leaf(entry);
        for (level, other) in self.path.iter().enumerate() {
            hash = if self.index >> level & 1 == 0 { node(&hash, other) } else { node(other, &hash) };
        }
        u64::from(self.index) < 1 << self.path.len()
            && device.verify(Purpose::Touch, &signed(self.issued, self.lifetime, &hash), &self.signature)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(5).uint(self.issued.secs()).uint(self.lifetime.into()).uint(self.index.into());
        writer.nested(self.path.len());
        for hash in &self.path {
            writer.bytes(hash);
        }
        writer.bytes(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Touch, IdentityError> {
        let small = |n: u64| u32::try_from(n).map_err(|_| IdentityError::Malformed(WHAT));
        reader.array(5)?;
        let (issued, lifetime, index) = (UnixTime(reader.uint()?), small(reader.uint()?)?, small(reader.uint()?)?);
        let levels = reader.list(MAX_LEVELS as u64)?;
        let path = (0..levels).map(|_| reader.exact()).collect::<Result<Vec<_>, _>>()?;
        Ok(Touch { issued, lifetime, index, path, signature: reader.exact()? })
    }
}

impl TouchOf {
    /// `[1, kind, user, device, item, sequence, touch]`.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(7);
        writer.uint(1).uint(self.entry.kind.number().into()).bytes(&self.entry.user).bytes(&self.entry.device.0);
        writer.uint(self.entry.item).uint(self.sequence);
        self.touch.write(&mut writer);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<TouchOf, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(7)?;
        reader.version(1)?;
        let kind = u16::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?;
        let (user, device) = (reader.exact()?, PublicKey(reader.exact()?));
        let entry = DictionaryKey { kind: super::EntryKind::from_number(kind), user, device, item: reader.uint()? };
        let touch = TouchOf { entry, sequence: reader.uint()?, touch: Touch::read(&mut reader)? };
        super::cbor::canonical(bytes, &touch.encode(), WHAT)?;
        Ok(touch)
    }
}

/// Renews these entries of one device, 4,096 at most, for `lifetime` seconds from `issued`: each comes back with its renewal. Left
/// out are those of other devices, those that take back, and those that would grow too large.
pub fn touch(entries: &[SignedEntry], device: &KeyPair, issued: UnixTime, lifetime: u32) -> Vec<SignedEntry> {
    let own = |e: &&SignedEntry| e.entry().device == device.public() && !e.entry().is_removal();
    let entries: Vec<&SignedEntry> = entries.iter().filter(own).take(1 << MAX_LEVELS).collect();
    let mut levels = vec![entries.iter().map(|e| leaf(e.signed_bytes())).collect::<Vec<_>>()];
    while let Some(last) = levels.last().filter(|l| l.len() > 1) {
        let above = last.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&[0; 32]))).collect();
        levels.push(above);
    }
    let Some(root) = levels.pop().and_then(|l| l.first().copied()) else { return Vec::new() };
    let signature = device.sign(Purpose::Touch, &signed(issued, lifetime, &root));
    let renewed = entries.iter().enumerate().filter_map(|(index, entry)| {
        let other =
            |(level, hashes): (usize, &Vec<[u8; 32]>)| hashes.get((index >> level) ^ 1).copied().unwrap_or([0; 32]);
        let path = levels.iter().enumerate().map(other).collect();
        entry.with_touch(Touch { issued, lifetime, index: index as u32, path, signature }).ok()
    });
    renewed.collect()
}

fn signed(issued: UnixTime, lifetime: u32, root: &[u8; 32]) -> Vec<u8> {
    let mut writer = Writer::array(4);
    writer.uint(1).uint(issued.secs()).uint(lifetime.into()).bytes(root);
    writer.finish()
}

fn leaf(entry: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&[0]).update(entry).finalize().as_bytes()
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new().update(&[1]).update(left).update(right).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::core::Rng;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn entries(bob: &Identity, n: u64) -> Vec<SignedEntry> {
        let entry = |sequence| Entry {
            kind: EntryKind::MAILBOX_ITEM,
            aor: bob.aor(),
            device: bob.device_key(),
            sequence,
            issued: NOW,
            lifetime: 60,
            body: vec![1, 2, 3],
        };
        (1..=n).map(|i| bob.sign_entry(entry(i)).expect("own")).collect()
    }

    #[test]
    fn one_signature_for_many_and_each_stands_alone() {
        let bob = Identity::open("lab", "bob", NOW, &mut Rng::from_seed(1)).expect("name");
        let mallory = Identity::open("lab", "bob", NOW, &mut Rng::from_seed(2)).expect("name");
        let later = NOW + Duration::from_secs(50);
        for n in [1, 2, 3, 5, 8, 100] {
            let before = entries(&bob, n);
            let after = bob.touch(&before, later, 60);
            assert_eq!(after.len(), before.len());
            for (old, new) in before.iter().zip(&after) {
                let read = SignedEntry::decode(new.encoded()).expect("canonical");
                assert_eq!((&read, read.entry(), read.expires()), (new, old.entry(), later + Duration::from_secs(60)));
                let at =
                    |secs| bob.anchor.verify_entry(&read, &old.entry().resource_key(), NOW + Duration::from_secs(secs));
                assert_eq!((at(0), at(109)), (Ok(()), Ok(())));
                assert_eq!(at(110), Err(RecordError::Expired));
                let touch = new.touch_of().expect("touched");
                assert_eq!(TouchOf::decode(&touch.encode()), Ok(touch.clone()));
                assert!(touch.encode().len() < 180 + 34 * 7, "{}", touch.encode().len());
                // Of another entry, by another device, for longer than was signed.
                let other =
                    entries(&bob, n + 1).pop().expect("one more").with_touch(touch.touch.clone()).expect("fits");
                let check = |e: &SignedEntry| bob.anchor.verify_entry(e, &e.entry().resource_key(), NOW);
                assert_eq!(check(&other), Err(RecordError::Signature));
                let longer = old.with_touch(Touch { lifetime: 61, ..touch.touch.clone() }).expect("fits");
                assert_eq!(check(&longer), Err(RecordError::Signature));
                let ever = Touch { lifetime: u32::MAX, ..touch.touch.clone() };
                assert_eq!(check(&old.with_touch(ever).expect("fits")), Err(RecordError::Lifetime));
            }
            assert_eq!(mallory.touch(&before, later, 60), Vec::new());
        }
        // What has been taken back stays so.
        let removal = Entry { body: Vec::new(), ..entries(&bob, 1)[0].entry().clone() };
        assert_eq!(bob.touch(&[bob.sign_entry(removal).expect("own")], later, 60), Vec::new());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bob = Identity::open("lab", "bob", NOW, &mut Rng::from_seed(1)).expect("name");
        let good = bob.touch(&entries(&bob, 3), NOW, 60).pop().expect("touched");
        for at in 0..good.encoded().len() {
            let mut bytes = good.encoded().to_vec();
            bytes[at] ^= 1;
            let sound = SignedEntry::decode(&bytes)
                .is_ok_and(|e| bob.anchor.verify_entry(&e, &good.entry().resource_key(), NOW).is_ok());
            assert!(!sound, "byte {at} does not matter");
        }
        let of = good.touch_of().expect("touched").encode();
        assert!((0..of.len()).all(|n| TouchOf::decode(&of[..n]).is_err()));
    }
}
