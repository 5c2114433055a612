//! The records held: dictionaries of signed entries, bounded, with lifetimes and sequence numbers.
//!
//! Only verified entries come in here. How long an entry lives is settled when it comes in, on the monotonic clock: a wall
//! clock that is set afterwards expires nothing and revives nothing. What takes back (a tombstone) is kept like any other, for
//! the longest life of its kind, so that what it took back cannot return.

mod room;

use super::Config;
use super::bulk::Bulk;
use super::chunk::chunk_of;
use crate::core::{Id, Instant, UnixTime};
use crate::identity::{ChunkHash, DictionaryKey, EntryKind, MayWrite, PublicKey, SignedEntry};
use crate::overlay::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Pairs of conflicting entries kept as proof.
const PROOFS: usize = 16;

/// What a chunk counts for at least, in bytes: its entry takes room too.
const LEAST: u64 = 4096;

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

/// An entry with what this holder knows of it.
#[derive(Debug)]
pub(super) struct Held {
    pub entry: SignedEntry,
    /// The end of its life.
    pub until: Instant,
    /// The batch that keeps it on the disk.
    pub batch: u64,
    /// What it says, in short ([`version`]).
    pub version: [u8; 16],
    /// Where it was written from, when it came from the writer.
    source: Option<IpAddr>,
}

/// One resource.
#[derive(Default, Debug)]
pub(super) struct Resource {
    entries: BTreeMap<DictionaryKey, Held>,
    /// Where this peer is not responsible: the responsible peer that showed last that it holds all of this.
    pub confirmed: Option<u32>,
    /// Where this peer is not responsible: since when nobody has shown it.
    pub doubtful: Option<Instant>,
    /// When it is looked at whether the scattered replica is to be placed again.
    pub scatter: Instant,
    /// Where the scattered replica was placed last, and what it said then.
    pub placed: Option<(Id, u64)>,
    /// When somebody last sent it here.
    pub sent: Instant,
}

#[derive(Default)]
pub(super) struct Store {
    resources: BTreeMap<Slot, Resource>,
    signers: BTreeMap<PublicKey, u32>,
    sources: BTreeMap<IpAddr, u32>,
    entries: usize,
    /// Bytes of chunks asked to be held: all, by signer, by source.
    charged: u64,
    signers_charged: BTreeMap<PublicKey, u64>,
    sources_charged: BTreeMap<IpAddr, u64>,
    /// The chunks themselves.
    pub bulk: Bulk,
    /// Resources whose entries of chunks have changed.
    changed: BTreeSet<Id>,
    proofs: Vec<[SignedEntry; 2]>,
    /// What has changed since the last batch; `None` where nothing is kept over a restart.
    journal: Option<Vec<Change>>,
    /// The number of the next batch.
    pub batch: u64,
}

impl Store {
    /// From here on what changes is noted for the disk.
    pub fn keep_journal(&mut self) {
        self.journal.get_or_insert_default();
        self.batch = self.batch.max(1);
    }

    /// True where what is held is kept over a restart.
    pub fn is_kept(&self) -> bool {
        self.journal.is_some()
    }

    /// The changes since the last time, and the number of their batch; `None` when there are none.
    pub fn take_journal(&mut self) -> Option<(u64, Vec<Change>)> {
        let changes = self.journal.as_mut().filter(|j| !j.is_empty()).map(std::mem::take)?;
        self.batch += 1;
        Some((self.batch - 1, changes))
    }

    /// Takes a verified entry at the wall-clock time `unix`. `source` is where its writer sits, when it came from the writer.
    pub fn put(
        &mut self,
        slot: Slot,
        entry: SignedEntry,
        source: Option<IpAddr>,
        config: &Config,
        now: Instant,
        unix: UnixTime,
    ) -> Kept {
        let key = entry.dictionary_key();
        let size = entry.encoded().len();
        let rules = key.kind.rules();
        let held = self.resources.get(&slot).and_then(|r| r.entries.get(&key));
        if let Some(held) = held {
            match compare(&held.entry, &entry) {
                Kept::New => {}
                verdict => {
                    if let Kept::Conflict(first) = &verdict
                        && self.proofs.len() < PROOFS
                    {
                        self.proofs.push([first.clone(), entry]);
                    }
                    if let Some(resource) = self.resources.get_mut(&slot) {
                        resource.sent = now;
                    }
                    return verdict;
                }
            }
        }
        let before = held.map_or(0, |h| h.entry.encoded().len());
        let (mut all, mut alike, mut of_user, mut of_strangers) = (0, 0, 0, 0);
        for (k, h) in self.resources.get(&slot).iter().flat_map(|r| &r.entries) {
            let size = h.entry.encoded().len();
            all += size;
            // What anybody may write shares one part of the resource, whatever its kind.
            alike += if k.kind == key.kind || stranger(k.kind) && stranger(key.kind) { size } else { 0 };
            of_user += usize::from(k.kind == key.kind && k.user == key.user);
            of_strangers += usize::from(stranger(k.kind));
        }
        // What replaces an entry without growing finds room always.
        let grows = size > before;
        let heavy = all - before + size > config.max_resource_bytes || alike - before + size > rules.share;
        let signed = self.signers.get(&key.device).copied().unwrap_or(0) as usize;
        let sourced = source.and_then(|s| self.sources.get(&s)).copied().unwrap_or(0) as usize;
        let in_resource = self.resources.get(&slot).map_or(0, |r| r.entries.len());
        // Chunks have bounds of their own, in bytes.
        let charge = charge_of(&entry);
        let over = |held: u64, most: u64| charge > 0 && held + charge > most;
        let costly = over(self.charged, if self.is_kept() { config.max_chunk_bytes } else { config.max_chunk_memory })
            || over(self.signers_charged.get(&key.device).copied().unwrap_or(0), config.max_signer_chunk_bytes)
            || over(
                source.and_then(|s| self.sources_charged.get(&s)).copied().unwrap_or(0),
                config.max_source_chunk_bytes,
            );
        let (signed, sourced) = if charge > 0 || config.own == Some(key.device) { (0, 0) } else { (signed, sourced) };
        let crowded = costly
            || charge == 0 && self.entries >= config.max_entries
            || of_user >= rules.most
            || stranger(key.kind) && of_strangers >= config.max_resource_entries * 3 / 4
            || signed >= config.max_signer_entries
            || sourced >= config.max_source_entries;
        let full = grows && heavy || held.is_none() && in_resource >= config.max_resource_entries;
        if held.is_none() && crowded || full && stranger(key.kind) {
            return Kept::Full;
        }
        if full {
            let Some(gone) = self.resources.get(&slot).and_then(|r| r.room_for(&key, size, config)) else {
                return Kept::Full;
            };
            gone.iter().for_each(|key| self.remove_entry(&slot, key));
        }
        if let Some(old) = self.resources.get_mut(&slot).and_then(|r| r.entries.remove(&key)) {
            self.count_out(&key, &old);
        }
        self.count_in(&key, source, &entry);
        self.note(Change::Put { key: slot.0, replica: slot.1, entry: entry.clone() });
        let life = Duration::from_secs(entry.expires().secs().saturating_sub(unix.secs()));
        let version = version(&slot, &key, &entry);
        let held = Held { entry, until: now + life, batch: self.batch, version, source };
        let fresh = || Resource { scatter: now + config.scatter, ..Resource::default() };
        if key.kind == EntryKind::CHUNK {
            self.changed.insert(slot.0);
        }
        let resource = self.resources.entry(slot).or_insert_with(fresh);
        resource.sent = now;
        resource.entries.insert(key, held);
        (resource.confirmed, resource.doubtful) = (None, None);
        Kept::New
    }

    /// The unexpired entries of a resource, in the order of their dictionary keys.
    pub fn get(&self, slot: &Slot, now: Instant) -> Vec<SignedEntry> {
        self.live(slot, now).map(|(_, h)| h.entry.clone()).collect()
    }

    /// The unexpired entries of a resource with what is known of them.
    pub fn live(&self, slot: &Slot, now: Instant) -> impl Iterator<Item = (&DictionaryKey, &Held)> {
        self.resources.get(slot).into_iter().flat_map(|r| &r.entries).filter(move |(_, h)| h.until > now)
    }

    /// One entry.
    pub fn held(&self, slot: &Slot, key: &DictionaryKey) -> Option<&Held> {
        self.resources.get(slot)?.entries.get(key)
    }

    /// Drops what has reached the end of its life; how many entries.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let ended = |(slot, resource): (&Slot, &Resource)| {
            let dead = resource.entries.iter().filter(|(_, h)| h.until <= now).map(|(key, _)| *key);
            dead.map(|key| (*slot, key)).collect::<Vec<_>>()
        };
        let ended: Vec<_> = self.resources.iter().flat_map(ended).collect();
        for (slot, key) in &ended {
            self.remove_entry(slot, key);
        }
        ended.len() as u64
    }

    /// Drops entries; how many.
    pub fn drop_entries(&mut self, mut which: impl FnMut(&SignedEntry) -> bool) -> u64 {
        let out = |(slot, resource): (&Slot, &Resource)| {
            let gone = resource.entries.iter().filter(|(_, held)| which(&held.entry)).map(|(key, _)| *key);
            gone.map(|key| (*slot, key)).collect::<Vec<_>>()
        };
        let gone: Vec<_> = self.resources.iter().flat_map(out).collect();
        for (slot, key) in &gone {
            self.remove_entry(slot, key);
        }
        gone.len() as u64
    }

    /// Drops a resource.
    pub fn remove(&mut self, slot: &Slot) {
        let keys: Vec<_> = self.resources.get(slot).map_or_else(Vec::new, |r| r.entries.keys().copied().collect());
        for key in keys {
            self.remove_entry(slot, &key);
        }
    }

    /// Drops everything; `forget`: on the disk too.
    pub fn clear(&mut self, forget: bool) {
        let journal = self.journal.take().map(|mut journal| {
            if forget {
                journal.clear();
                journal.push(Change::Clear);
            }
            journal
        });
        *self = Store { journal, batch: self.batch, ..Store::default() };
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

    /// Notes a change for the disk.
    pub fn note(&mut self, change: Change) {
        if let Some(journal) = &mut self.journal {
            journal.push(change);
        }
    }

    fn remove_entry(&mut self, slot: &Slot, key: &DictionaryKey) {
        let Some(resource) = self.resources.get_mut(slot) else { return };
        let Some(held) = resource.entries.remove(key) else { return };
        if resource.entries.is_empty() {
            self.resources.remove(slot);
        }
        self.count_out(key, &held);
        if key.kind == EntryKind::CHUNK {
            self.changed.insert(slot.0);
        }
        self.note(Change::Remove { key: slot.0, replica: slot.1, entry: *key });
    }

    /// The resources whose entries of chunks have changed since the last time.
    pub fn take_changed(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.changed)
    }

    /// Whether something belongs at this resource is looked at again.
    pub fn recheck_key(&mut self, key: Id) {
        self.changed.insert(key);
    }

    /// The same of the resource of this chunk.
    pub fn recheck(&mut self, hash: &ChunkHash) {
        let chunk =
            |r: &Resource| r.entries.values().any(|h| chunk_of(&h.entry).is_some_and(|body| body.hash == *hash));
        let keys: Vec<Id> = self.resources.iter().filter(|(_, r)| chunk(r)).map(|((key, _), _)| *key).collect();
        self.changed.extend(keys);
    }

    fn count_in(&mut self, key: &DictionaryKey, source: Option<IpAddr>, entry: &SignedEntry) {
        let charge = charge_of(entry);
        if charge > 0 {
            self.charged += charge;
            *self.signers_charged.entry(key.device).or_insert(0) += charge;
            if let Some(source) = source {
                *self.sources_charged.entry(source).or_insert(0) += charge;
            }
            return;
        }
        self.entries += 1;
        *self.signers.entry(key.device).or_insert(0) += 1;
        if let Some(source) = source {
            *self.sources.entry(source).or_insert(0) += 1;
        }
    }

    fn count_out(&mut self, key: &DictionaryKey, held: &Held) {
        let charge = charge_of(&held.entry);
        if charge > 0 {
            self.charged -= charge;
            less(&mut self.signers_charged, &key.device, charge);
            if let Some(source) = &held.source {
                less(&mut self.sources_charged, source, charge);
            }
            return;
        }
        self.entries -= 1;
        less(&mut self.signers, &key.device, 1);
        if let Some(source) = &held.source {
            less(&mut self.sources, source, 1);
        }
    }
}

/// True for a kind that any member may write under an AOR.
fn stranger(kind: EntryKind) -> bool {
    kind.rules().writers == MayWrite::Member
}

impl Resource {
    /// What it says, without for how long: renewals go to the scattered holder by themselves.
    pub fn said(&self) -> u64 {
        let mut hash = blake3::Hasher::new();
        for held in self.entries.values() {
            let e = held.entry.entry();
            hash.update(&e.kind.number().to_be_bytes()).update(&e.device.0).update(&e.sequence.to_be_bytes());
            hash.update(&[u8::from(e.is_removal())]);
        }
        let mut short = [0; 8];
        short.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        u64::from_be_bytes(short)
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// What an entry counts for in the bounds of chunks; 0 for one that is not of a chunk.
fn charge_of(entry: &SignedEntry) -> u64 {
    chunk_of(entry).map_or(0, |body| u64::from(body.length).max(LEAST))
}

fn less<K: Ord, N: Copy + PartialEq + From<u8> + std::ops::SubAssign>(counts: &mut BTreeMap<K, N>, key: &K, by: N) {
    if let Some(n) = counts.get_mut(key) {
        *n -= by;
        if *n == N::from(0) {
            counts.remove(key);
        }
    }
}

/// Which of two entries of one dictionary key counts, as seen by who holds `held`. A later signature under the same number
/// and with the same body is a refresh. Of a kind whose entries stand for themselves, taking back comes under the same number.
pub(super) fn compare(held: &SignedEntry, offered: &SignedEntry) -> Kept {
    let (h, o) = (held.entry(), offered.entry());
    let taken_back = h.kind.rules().many && h.is_removal() != o.is_removal();
    match o.sequence.cmp(&h.sequence) {
        std::cmp::Ordering::Greater => Kept::New,
        std::cmp::Ordering::Less => Kept::Stale(held.clone()),
        std::cmp::Ordering::Equal if taken_back && o.is_removal() => Kept::New,
        std::cmp::Ordering::Equal if taken_back => Kept::Same,
        std::cmp::Ordering::Equal if o.body != h.body => Kept::Conflict(held.clone()),
        std::cmp::Ordering::Equal if offered.expires() > held.expires() => Kept::New,
        std::cmp::Ordering::Equal => Kept::Same,
    }
}

/// What an entry says where it lies, for comparing with other holders: dictionary key, sequence number and life. Two bodies
/// under one number are the same here: each holder keeps the one that it has, and no repair goes on about it for ever.
fn version(slot: &Slot, key: &DictionaryKey, entry: &SignedEntry) -> [u8; 16] {
    let e = entry.entry();
    let mut hash = blake3::Hasher::new();
    hash.update(&slot.0.0).update(&[slot.1, u8::from(e.is_removal())]).update(&key.kind.number().to_be_bytes());
    hash.update(&key.user).update(&key.device.0);
    hash.update(&e.sequence.to_be_bytes()).update(&entry.expires().secs().to_be_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    short
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
