//! Room in a resource for everybody who claims its name.
//!
//! Where keys certify themselves anybody may write under an AOR by a key of their own, and one who writes as much as a resource
//! holds would keep the others out. So what a claimant holds beyond an equal part is on loan: it is there as long as nobody else
//! needs it, and gives way, the highest kinds first, to one who has less. What lies within the equal part, or within
//! the least that everybody is left, never gives way: many new keys cannot push out one who was there before.
//!
//! In an office a name has one key, which has it all.

use super::{Resource, stranger};
use crate::identity::{DictionaryKey, EntryKind};
use crate::overlay::chord::Config;
use std::collections::BTreeMap;

/// What every claimant is left: two devices with a contact and a device entry each.
const LEAST_ENTRIES: usize = 4;
/// The same in bytes.
const LEAST_BYTES: usize = 4 * 1024;

/// What is to be divided.
#[derive(Clone, Copy)]
enum Bound {
    /// The bytes of one kind.
    Kind(EntryKind, usize),
    /// The bytes of all.
    Bytes(usize),
    /// The number of all.
    Entries(usize),
}

impl Bound {
    fn weighs(self, kind: EntryKind, size: usize) -> usize {
        match self {
            Bound::Kind(only, _) if only != kind => 0,
            Bound::Entries(_) => 1,
            Bound::Kind(..) | Bound::Bytes(_) => size,
        }
    }

    fn most(self) -> usize {
        match self {
            Bound::Kind(_, most) | Bound::Bytes(most) | Bound::Entries(most) => most,
        }
    }

    fn least(self) -> usize {
        if matches!(self, Bound::Entries(_)) { LEAST_ENTRIES } else { LEAST_BYTES }
    }
}

impl Resource {
    /// The entries that give way to one of `size` bytes under `key`, which only the AOR's own may write; `None` where there is
    /// no room for it.
    pub(super) fn room_for(&self, key: &DictionaryKey, size: usize, config: &Config) -> Option<Vec<DictionaryKey>> {
        let mut left: BTreeMap<DictionaryKey, usize> =
            self.entries.iter().filter(|(k, _)| *k != key).map(|(k, h)| (*k, h.entry.encoded().len())).collect();
        let mut gone = Vec::new();
        for bound in [
            Bound::Kind(key.kind, key.kind.rules().share),
            Bound::Bytes(config.max_resource_bytes),
            Bound::Entries(config.max_resource_entries),
        ] {
            loop {
                let new = bound.weighs(key.kind, size);
                let all: usize = left.iter().map(|(k, size)| bound.weighs(k.kind, *size)).sum();
                if all + new <= bound.most() {
                    break;
                }
                let loan = on_loan(&left, key, new, bound)?;
                left.remove(&loan);
                gone.push(loan);
            }
        }
        Some(gone)
    }
}

/// The entry that gives way first: of whoever has most, if that is more than an equal part and more than the writer will have.
fn on_loan(
    left: &BTreeMap<DictionaryKey, usize>,
    key: &DictionaryKey,
    new: usize,
    bound: Bound,
) -> Option<DictionaryKey> {
    let mut claimants: BTreeMap<[u8; 8], usize> = BTreeMap::from([(key.user, new)]);
    let mut of_strangers = 0;
    for (k, size) in left {
        match stranger(k.kind) {
            true => of_strangers += bound.weighs(k.kind, *size),
            false => *claimants.entry(k.user).or_default() += bound.weighs(k.kind, *size),
        }
    }
    let part = (bound.most().saturating_sub(of_strangers) / claimants.len()).max(bound.least());
    let writer = claimants.get(&key.user).copied().unwrap_or(new);
    let (user, most) = claimants.iter().filter(|(user, _)| **user != key.user).max_by_key(|(_, held)| **held)?;
    let its = |k: &&DictionaryKey| k.user == *user && !stranger(k.kind) && bound.weighs(k.kind, 1) > 0;
    (*most > part && *most > writer).then(|| left.keys().rev().find(its).copied()).flatten()
}
