//! The records held: dictionaries of signed entries, bounded, with lifetimes and sequence numbers.
//!
//! Only verified entries come in here. An entry that takes back (a tombstone) is kept like any other until its lifetime
//! ends, so that what it took back cannot return.

use super::Config;
use crate::core::{Id, Instant, UnixTime};
use crate::identity::{DictionaryKey, PublicKey, SignedEntry};
use std::collections::BTreeMap;

/// Pairs of conflicting entries kept as proof.
const PROOFS: usize = 16;

/// A resource at one of its positions: the key and the number of the replica (0 for the responsible peer's and its
/// successors', else the scattered one's).
pub(super) type Slot = (Id, u8);

/// What became of an entry.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Kept {
    /// It is held now.
    New,
    /// It was held already, or one that says the same for longer.
    Same,
    /// This later one is held.
    Stale(SignedEntry),
    /// This other one is held under the same sequence number.
    Conflict(SignedEntry),
    /// A bound is reached.
    Full,
}

/// One resource.
#[derive(Default, Debug)]
pub(super) struct Resource {
    entries: Vec<(DictionaryKey, SignedEntry)>,
    /// Successors that acknowledged a replica, by the first bytes of their peer-IDs.
    pub placed: Vec<u32>,
    /// Where this peer is not responsible: the responsible peer that showed last that it holds all of this.
    pub confirmed: Option<u32>,
    /// Where this peer is not responsible: since when nobody has shown it.
    pub doubtful: Option<Instant>,
    /// When the scattered replica is to be placed again.
    pub scatter: Instant,
    /// When somebody last sent it here.
    pub sent: Instant,
}

#[derive(Default)]
pub(super) struct Store {
    resources: BTreeMap<Slot, Resource>,
    signers: BTreeMap<PublicKey, u32>,
    entries: usize,
    proofs: Vec<[SignedEntry; 2]>,
}

impl Store {
    /// Takes a verified entry.
    pub fn put(&mut self, slot: Slot, entry: SignedEntry, config: &Config, now: Instant) -> Kept {
        let key = entry.dictionary_key();
        let bytes = |r: &Resource| r.entries.iter().map(|(_, e)| e.encoded().len()).sum::<usize>();
        let heavy = self.resources.get(&slot).map_or(0, bytes) + entry.encoded().len() > config.max_resource_bytes;
        if let Some(resource) = self.resources.get_mut(&slot) {
            resource.sent = now;
            if let Some((_, held)) = resource.entries.iter_mut().find(|(k, _)| *k == key) {
                let verdict = compare(held, &entry);
                match &verdict {
                    Kept::New if heavy && entry.encoded().len() > held.encoded().len() => return Kept::Full,
                    Kept::New => {
                        *held = entry;
                        resource.renewed();
                    }
                    Kept::Conflict(first) if self.proofs.len() < PROOFS => self.proofs.push([first.clone(), entry]),
                    _ => {}
                }
                return verdict;
            }
        }
        let signed = self.signers.get(&key.device).copied().unwrap_or(0);
        let in_resource = self.resources.get(&slot).map_or(0, |r| r.entries.len());
        if self.entries >= config.max_entries
            || heavy
            || in_resource >= config.max_resource_entries
            || signed as usize >= config.max_signer_entries
        {
            return Kept::Full;
        }
        self.entries += 1;
        *self.signers.entry(key.device).or_insert(0) += 1;
        let fresh = || Resource { scatter: now + config.scatter, sent: now, ..Resource::default() };
        let resource = self.resources.entry(slot).or_insert_with(fresh);
        resource.entries.push((key, entry));
        resource.renewed();
        Kept::New
    }

    /// The unexpired entries of a resource, in the order in which they came.
    pub fn get(&self, slot: &Slot, unix: UnixTime) -> Vec<SignedEntry> {
        let entries = self.resources.get(slot).map_or(&[][..], |r| &r.entries);
        entries.iter().filter(|(_, e)| e.entry().expires() > unix).map(|(_, e)| e.clone()).collect()
    }

    /// Drops what has reached the end of its life; how many entries.
    pub fn expire(&mut self, unix: UnixTime) -> u64 {
        self.forget(|_, e| e.entry().expires() <= unix)
    }

    /// Drops entries; how many.
    pub fn drop_entries(&mut self, mut which: impl FnMut(&SignedEntry) -> bool) -> u64 {
        self.forget(|_, e| which(e))
    }

    /// Drops a resource.
    pub fn remove(&mut self, slot: &Slot) {
        self.forget(|s, _| s == slot);
    }

    /// The resources held.
    pub fn slots(&self) -> impl Iterator<Item = (&Slot, &Resource)> {
        self.resources.iter()
    }

    pub fn resource_mut(&mut self, slot: &Slot) -> Option<&mut Resource> {
        self.resources.get_mut(slot)
    }

    /// Resources and entries held.
    pub fn len(&self) -> (usize, usize) {
        (self.resources.len(), self.entries)
    }

    fn forget(&mut self, mut which: impl FnMut(&Slot, &SignedEntry) -> bool) -> u64 {
        let mut gone = 0;
        let (signers, entries) = (&mut self.signers, &mut self.entries);
        self.resources.retain(|slot, resource| {
            resource.entries.retain(|(key, entry)| {
                if !which(slot, entry) {
                    return true;
                }
                gone += 1;
                *entries -= 1;
                if let Some(n) = signers.get_mut(&key.device) {
                    *n -= 1;
                    if *n == 0 {
                        signers.remove(&key.device);
                    }
                }
                false
            });
            !resource.entries.is_empty()
        });
        gone
    }
}

impl Resource {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody else is known to hold what it says now.
    fn renewed(&mut self) {
        self.placed.clear();
        (self.confirmed, self.doubtful) = (None, None);
    }
}

/// Which of two entries of one dictionary key counts, as seen by who holds `held`. A later signature under the same number
/// and with the same body is a refresh.
pub(super) fn compare(held: &SignedEntry, offered: &SignedEntry) -> Kept {
    let (h, o) = (held.entry(), offered.entry());
    match o.sequence.cmp(&h.sequence) {
        std::cmp::Ordering::Greater => Kept::New,
        std::cmp::Ordering::Less => Kept::Stale(held.clone()),
        std::cmp::Ordering::Equal if o.body != h.body => Kept::Conflict(held.clone()),
        std::cmp::Ordering::Equal if o.expires() > h.expires() => Kept::New,
        std::cmp::Ordering::Equal => Kept::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::identity::{Entry, EntryKind, Identity};

    const UNIX: UnixTime = UnixTime(1_800_000_000);

    fn device(seed: u64) -> Identity {
        Identity::open("lab", "bob", UNIX, &mut Rng::from_seed(seed)).expect("a good name")
    }

    fn entry(device: &Identity, kind: u16, sequence: u64, issued: u64, body: &[u8]) -> SignedEntry {
        let entry = Entry {
            kind: EntryKind::Other(kind),
            aor: device.aor(),
            device: device.device_key(),
            sequence,
            issued: UnixTime(UNIX.secs() + issued),
            lifetime: 100,
            body: body.to_vec(),
        };
        device.sign_entry(entry).expect("its own")
    }

    #[test]
    fn the_later_one_counts() {
        let (config, mut store, slot, bob) = (Config::default(), Store::default(), (Id::default(), 0), device(1));
        let mut put = |e: &SignedEntry| store.put(slot, e.clone(), &config, Instant::ZERO);
        let (first, second) = (entry(&bob, 7, 1, 0, b"a"), entry(&bob, 7, 2, 0, b"b"));
        assert_eq!(put(&second), Kept::New);
        assert_eq!(put(&second), Kept::Same);
        assert_eq!(put(&first), Kept::Stale(second.clone()));
        assert_eq!(put(&entry(&bob, 7, 2, 50, b"other")), Kept::Conflict(second.clone()));
        // The same said again later is a refresh; the earlier saying does no harm.
        assert_eq!(put(&entry(&bob, 7, 2, 50, b"b")), Kept::New);
        assert_eq!(put(&second), Kept::Same);
        assert_eq!(store.proofs.len(), 1);
        assert_eq!(store.get(&slot, UnixTime(UNIX.secs() + 120)).len(), 1);
        assert_eq!(store.get(&slot, UnixTime(UNIX.secs() + 150)).len(), 0);
        assert_eq!(store.expire(UnixTime(UNIX.secs() + 150)), 1);
        assert_eq!((store.len(), store.signers.len()), ((0, 0), 0));
    }

    #[test]
    fn everything_has_a_bound() {
        let base = Config::default();
        let fill = |config: &Config, slots: u64, kinds: u16, body: usize| {
            let (mut store, bob) = (Store::default(), device(1));
            for s in 0..slots {
                for kind in 2..2 + kinds {
                    store.put((Id::from_u64(s), 0), entry(&bob, kind, 1, 0, &vec![0; body]), config, Instant::ZERO);
                }
            }
            store.len().1
        };
        assert_eq!(fill(&Config { max_resource_entries: 5, ..base.clone() }, 2, 9, 1), 10);
        assert_eq!(fill(&Config { max_entries: 7, ..base.clone() }, 3, 4, 1), 7);
        assert_eq!(fill(&Config { max_signer_entries: 6, ..base.clone() }, 3, 4, 1), 6);
        assert!(fill(&Config { max_resource_bytes: 10_000, ..base.clone() }, 1, 9, 3000) == 2);
        // A full resource still takes what replaces an entry without growing.
        let (mut store, bob) = (Store::default(), device(1));
        let config = Config { max_resource_entries: 1, ..base };
        for sequence in 1..4 {
            let e = entry(&bob, 2, sequence, 0, b"x");
            assert_eq!(store.put((Id::default(), 0), e, &config, Instant::ZERO), Kept::New);
        }
        assert_eq!(store.put((Id::default(), 0), entry(&bob, 3, 1, 0, b"x"), &config, Instant::ZERO), Kept::Full);
    }
}
