//! What a supernode holds for others: one OPRF key for each user that chose it, and never two shares of one user.

use super::super::cbor::{Reader, Writer, canonical};
use super::super::{IdentityError, PublicKey, canonical_user};
use super::decoy::Decoys;
use super::oprf::OprfKey;
use super::{ELEMENT, SHARES};
use crate::core::UnixTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most users that one supernode holds a share of.
pub const MAX_HELD: usize = 16_384;

const WHAT: &str = "shares file";
/// What nobody has asked after for so long belongs to nobody.
const KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

#[derive(Clone, Debug)]
struct Key {
    epoch: [u8; 16],
    number: u8,
    key: OprfKey,
}

#[derive(Clone, Debug)]
struct Owner {
    user_key: PublicKey,
    current: Key,
    /// Of a password that is being set: the one before counts until it is.
    next: Option<Key>,
    seen: UnixTime,
}

/// Whether something is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// It is, and was before.
    Already,
    /// It is from now on: keep the book before saying so.
    New,
    /// It is not: another share of this user is held here, another key claims the name, or the book is full.
    No,
}

/// The keys that this supernode holds, and the secret that it has in common with the others.
#[derive(Clone, Default, Debug)]
pub struct ShareBook {
    owners: BTreeMap<String, Owner>,
    /// The decoys' secret, once it is known.
    pub decoys: Option<Decoys>,
}

impl ShareBook {
    /// Keeps `key` for share `number` of a user.
    pub fn hold(
        &mut self,
        user: &str,
        user_key: PublicKey,
        epoch: [u8; 16],
        number: u8,
        key: &[u8; 32],
        now: UnixTime,
    ) -> Held {
        let Some(oprf) = OprfKey::from_bytes(key).filter(|_| usize::from(number) < SHARES) else { return Held::No };
        let new = Key { epoch, number, key: oprf };
        if let Some(owner) = self.owners.get_mut(user) {
            if owner.user_key != user_key {
                return Held::No;
            }
            owner.seen = now;
            for held in std::iter::once(&owner.current).chain(&owner.next) {
                if held.epoch == epoch {
                    let same = held.number == number && *held.key.to_bytes() == *key;
                    return if same { Held::Already } else { Held::No };
                }
            }
            owner.next = Some(new);
            return Held::New;
        }
        if self.owners.len() >= MAX_HELD {
            self.owners.retain(|_, o| now < o.seen + KEPT);
            if self.owners.len() >= MAX_HELD {
                return Held::No;
            }
        }
        self.owners.insert(user.to_owned(), Owner { user_key, current: new, next: None, seen: now });
        Held::New
    }

    /// Whether a key of this epoch is held for the user.
    pub fn check(&mut self, user: &str, user_key: PublicKey, epoch: [u8; 16], now: UnixTime) -> bool {
        let Some(owner) = self.owners.get_mut(user).filter(|o| o.user_key == user_key) else { return false };
        owner.seen = now;
        std::iter::once(&owner.current).chain(&owner.next).any(|k| k.epoch == epoch)
    }

    /// Forgets every key of the user but that of epoch `keep`; true when that changed anything.
    pub fn forget(&mut self, user: &str, user_key: PublicKey, keep: Option<[u8; 16]>) -> bool {
        let Some(owner) = self.owners.get_mut(user).filter(|o| o.user_key == user_key) else { return false };
        let kept = std::iter::once(&owner.current).chain(&owner.next).find(|k| Some(k.epoch) == keep).cloned();
        match kept {
            Some(kept) => {
                let changed = owner.next.is_some();
                (owner.current, owner.next) = (kept, None);
                changed
            }
            None => self.owners.remove(user).is_some(),
        }
    }

    /// The answer of the user's key of this epoch. Takes the same time where there is none.
    pub fn evaluate(&self, user: &str, epoch: &[u8; 16], blinded: &[u8; ELEMENT]) -> Option<[u8; ELEMENT]> {
        let owner = self.owners.get(user);
        let held = owner.into_iter().flat_map(|o| std::iter::once(&o.current).chain(&o.next));
        match held.into_iter().find(|k| k.epoch == *epoch) {
            Some(held) => held.key.evaluate(blinded),
            None => {
                let seed = blake3::derive_key("chordial login nothing v1", user.as_bytes());
                std::hint::black_box(OprfKey::derive(&seed, b"").and_then(|key| key.evaluate(blinded)));
                None
            }
        }
    }

    /// For how many users a share is held here.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The file: `[1, decoys' secret or null, [[user, user key, seen, key, key or null]...]]`, a key being `[epoch, number, OPRF key]`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1);
        match &self.decoys {
            Some(decoys) => writer.bytes(decoys.secret()),
            None => writer.null(),
        };
        writer.nested(self.owners.len());
        for (user, owner) in &self.owners {
            writer.nested(5).text(user).bytes(&owner.user_key.0).uint(owner.seen.secs());
            for key in [Some(&owner.current), owner.next.as_ref()] {
                match key {
                    Some(k) => writer.nested(3).bytes(&k.epoch).uint(k.number.into()).bytes(&*k.key.to_bytes()),
                    None => writer.null(),
                };
            }
        }
        writer.finish()
    }

    /// Reads the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<ShareBook, IdentityError> {
        let malformed = IdentityError::Malformed(WHAT);
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(3)?;
        reader.version(1)?;
        let mut book = ShareBook::default();
        if !reader.is_null() {
            book.decoys = Some(Decoys::from_bytes(reader.exact()?));
        }
        for _ in 0..reader.list(MAX_HELD as u64)? {
            reader.array(5)?;
            let user = canonical_user(reader.text()?)?;
            let (user_key, seen) = (PublicKey(reader.exact()?), UnixTime(reader.uint()?));
            let key = |reader: &mut Reader<'_>| -> Result<Key, IdentityError> {
                reader.array(3)?;
                let (epoch, number) = (reader.exact()?, u8::try_from(reader.uint()?).map_err(|_| malformed)?);
                let key = OprfKey::from_bytes(&reader.exact()?).ok_or(malformed)?;
                Ok(Key { epoch, number, key })
            };
            let current = key(&mut reader)?;
            let next = if reader.is_null() { None } else { Some(key(&mut reader)?) };
            book.owners.insert(user, Owner { user_key, current, next, seen });
        }
        canonical(bytes, &book.to_bytes(), WHAT)?;
        Ok(book)
    }
}
