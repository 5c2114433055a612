//! The chunks held: which are here, which belong here and are not, and how many bytes of them are in memory.
//!
//! A chunk is held for as long as a live entry of kind 19 asks for it. Where what is held is kept over a restart, the bytes lie on the
//! disk and few of them in memory; else all of them are in memory.

use crate::core::{Id, Instant};
use crate::identity::ChunkHash;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Bytes of chunks in memory, of those that are on the disk.
const MEMORY: usize = 4 * 1024 * 1024;
/// A chunk that no holder could be found for is looked for again after this.
const AGAIN: Duration = Duration::from_secs(15);

/// One chunk that is here.
struct Held {
    length: u32,
    /// None where only the disk has it.
    bytes: Option<Bytes>,
}

/// A chunk that belongs here and is not here.
struct Wanted {
    key: Id,
    /// It is being fetched, or not to be tried before this.
    next: Instant,
    fetching: bool,
}

#[derive(Default)]
pub(super) struct Bulk {
    held: BTreeMap<ChunkHash, Held>,
    keys: BTreeMap<Id, ChunkHash>,
    wanted: BTreeMap<ChunkHash, Wanted>,
    /// In memory and on their way to the disk, with the batch that brings them there.
    fresh: VecDeque<(u64, ChunkHash)>,
    /// In memory and on the disk, the oldest first.
    recent: VecDeque<ChunkHash>,
    /// Bytes of all that is here.
    pub bytes: u64,
}

impl Bulk {
    /// It lies on the disk.
    pub fn on_disk(&mut self, hash: ChunkHash, length: u32) {
        if self.held.insert(hash, Held { length, bytes: None }).is_none() {
            self.bytes += u64::from(length);
        }
    }

    /// It came; `batch`: the one that brings it to the disk.
    pub fn insert(&mut self, key: Id, hash: ChunkHash, bytes: Bytes, batch: Option<u64>) {
        self.wanted.remove(&hash);
        self.keys.insert(key, hash);
        let length = bytes.len() as u32;
        if self.held.insert(hash, Held { length, bytes: Some(bytes) }).is_none() {
            self.bytes += u64::from(length);
        }
        if let Some(batch) = batch {
            self.fresh.push_back((batch, hash));
        }
    }

    /// All up to this batch is on the disk: memory is for what is asked for.
    pub fn flushed(&mut self, upto: u64) {
        while let Some((batch, hash)) = self.fresh.front().copied().filter(|(batch, _)| *batch <= upto) {
            debug_assert!(batch <= upto);
            self.fresh.pop_front();
            self.recent.push_back(hash);
        }
        self.shrink();
    }

    /// It was read from the disk.
    pub fn read(&mut self, hash: &ChunkHash, bytes: Bytes) {
        if let Some(held) = self.held.get_mut(hash) {
            held.bytes = Some(bytes);
            self.recent.push_back(*hash);
            self.shrink();
        }
    }

    /// What is here under this name: bytes, or nothing but the knowledge that the disk has it.
    pub fn get(&self, hash: &ChunkHash) -> Option<Option<Bytes>> {
        self.held.get(hash).map(|held| held.bytes.clone())
    }

    pub fn contains(&self, hash: &ChunkHash) -> bool {
        self.held.contains_key(hash)
    }

    /// It is not here any more.
    pub fn remove(&mut self, hash: &ChunkHash) -> bool {
        let Some(held) = self.held.remove(hash) else { return false };
        self.bytes -= u64::from(held.length);
        true
    }

    /// `key` is the resource of this chunk, which belongs here.
    pub fn want(&mut self, key: Id, hash: ChunkHash, now: Instant) {
        self.keys.insert(key, hash);
        if !self.held.contains_key(&hash) {
            self.wanted.entry(hash).or_insert(Wanted { key, next: now, fetching: false });
        }
    }

    /// Nothing at `key` belongs here any more; the chunk, where it was here.
    pub fn unwant(&mut self, key: &Id) -> Option<ChunkHash> {
        let hash = self.keys.remove(key)?;
        self.wanted.remove(&hash);
        self.remove(&hash).then_some(hash)
    }

    /// The next that is to be fetched, while fewer than `most` are; it counts as being fetched.
    pub fn next_wanted(&mut self, most: usize, now: Instant) -> Option<(Id, ChunkHash)> {
        if self.wanted.values().filter(|w| w.fetching).count() >= most {
            return None;
        }
        let (hash, wanted) = self.wanted.iter_mut().find(|(_, w)| !w.fetching && w.next <= now)?;
        wanted.fetching = true;
        Some((wanted.key, *hash))
    }

    /// It could not be fetched.
    pub fn not_fetched(&mut self, hash: &ChunkHash, now: Instant) {
        if let Some(wanted) = self.wanted.get_mut(hash) {
            (wanted.fetching, wanted.next) = (false, now + AGAIN);
        }
    }

    /// One chunk after the other, around: the next after `last` of those on the disk.
    pub fn after(&self, last: Option<ChunkHash>) -> Option<ChunkHash> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = last.map_or(Unbounded, Excluded);
        let next = self.held.range((from, Unbounded)).next().or_else(|| self.held.iter().next());
        next.map(|(hash, _)| *hash)
    }

    /// Chunks that no resource here names.
    pub fn orphans(&self) -> Vec<ChunkHash> {
        let named: std::collections::BTreeSet<&ChunkHash> = self.keys.values().collect();
        self.held.keys().filter(|hash| !named.contains(hash)).copied().collect()
    }

    fn shrink(&mut self) {
        let size = |held: &BTreeMap<ChunkHash, Held>, hash: &ChunkHash| held.get(hash).map_or(0, |h| h.length as usize);
        let mut all: usize = self.recent.iter().map(|hash| size(&self.held, hash)).sum();
        while all > MEMORY {
            let Some(hash) = self.recent.pop_front() else { break };
            all -= size(&self.held, &hash);
            let again = self.recent.contains(&hash) || self.fresh.iter().any(|(_, fresh)| *fresh == hash);
            if let Some(held) = self.held.get_mut(&hash).filter(|_| !again) {
                held.bytes = None;
            }
        }
    }
}
