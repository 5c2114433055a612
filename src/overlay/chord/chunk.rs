//! Chunks of blobs where they belong: the bytes follow the entries.
//!
//! An entry of kind 19 is a record like any other: written, renewed, taken back, handed over and compared with them. Whoever
//! holds one and not the chunk fetches it, from any peer that holds it. So joins, leaves and repair move entries, and each holder sees
//! for itself that it has the bytes. What a disk returns is compared with the chunk's name each time; one chunk is read and
//! compared with each look over the records, so that damage shows while others still have it.

use super::durable::Waiter;
use super::{Chord, State, Timer};
use crate::core::{Id, Instant, subscriber};
use crate::identity::{ChunkBody, ChunkHash, EntryKind, SignedEntry};
use crate::overlay::{Change, Failure, OpId, Output, PeerRef, Response, Route, Token};
use bytes::Bytes;
use std::net::IpAddr;

/// Chunks fetched at once because they belong here.
const FETCHES: usize = 3;
/// Who wait for the disk at once.
const MOST_LOADING: usize = 64;

/// Who waits for a chunk from the disk.
#[derive(Debug)]
pub(super) enum Reader {
    Peer(Token),
    Own(OpId),
    /// Nobody: whether it is whole.
    Check,
}

impl Chord {
    /// A chunk with the entry that has it held.
    pub(super) fn serve_give(
        &mut self,
        now: Instant,
        from: PeerRef,
        token: Token,
        (key, replica, entry): (Id, u8, &SignedEntry),
        bytes: Bytes,
        route: &Route,
    ) {
        let source = (*route != Route::Here).then(|| subscriber(from.addr.ip()));
        let (response, batch) = self.keep_chunk(now, key, replica, entry, bytes, source);
        let kept = matches!(response, Response::Stored { .. });
        self.acknowledge(now, batch.filter(|_| kept), Waiter::Reply(token, response));
        if kept && *route == Route::Here {
            self.shown(now, &from.id, (key, replica), 1);
        }
    }

    /// Keeps an entry and its chunk; the batch that has both on the disk.
    pub(super) fn keep_chunk(
        &mut self,
        now: Instant,
        key: Id,
        replica: u8,
        entry: &SignedEntry,
        bytes: Bytes,
        source: Option<IpAddr>,
    ) -> (Response, Option<u64>) {
        let Some(body) = chunk_of(entry).filter(|body| body.is(&bytes)) else {
            self.counters.damaged += 1;
            return (Response::Failed(Failure::Invalid), None);
        };
        let (response, batch) = self.keep(now, key, replica, std::slice::from_ref(entry), source);
        if !matches!(response, Response::Stored { .. }) || self.store.bulk.contains(&body.hash) {
            return (response, batch);
        }
        (response, batch.max(self.take_in(key, body.hash, bytes)))
    }

    /// The chunk is here from now on; the batch that has it on the disk.
    fn take_in(&mut self, key: Id, hash: ChunkHash, bytes: Bytes) -> Option<u64> {
        let batch = self.store.is_kept().then_some(self.store.batch);
        self.store.note(Change::Chunk { hash, bytes: bytes.clone() });
        self.store.bulk.insert(key, hash, bytes, batch);
        batch
    }

    pub(super) fn serve_take(&mut self, token: Token, hash: ChunkHash) {
        match self.store.bulk.get(&hash) {
            Some(Some(bytes)) => self.reply(token, Response::Chunk { bytes }),
            Some(None) => self.load(hash, Reader::Peer(token)),
            None => self.reply(token, Response::Failed(Failure::NotHeld)),
        }
    }

    /// Reads a chunk from the disk for somebody.
    pub(super) fn load(&mut self, hash: ChunkHash, reader: Reader) {
        if self.loading.values().map(Vec::len).sum::<usize>() >= MOST_LOADING {
            return self.loaded_for(reader, None);
        }
        let waiting = self.loading.entry(hash).or_default();
        waiting.push(reader);
        if waiting.len() == 1 {
            self.out.push_back(Output::Load { hash });
        }
    }

    pub(super) fn on_loaded(&mut self, now: Instant, hash: ChunkHash, bytes: Option<Bytes>) {
        let readers = self.loading.remove(&hash).unwrap_or_default();
        let whole = bytes.filter(|bytes| ChunkHash::of(bytes) == hash);
        match &whole {
            Some(bytes) if !readers.iter().all(|r| matches!(r, Reader::Check)) => {
                self.store.bulk.read(&hash, bytes.clone());
            }
            Some(_) => {}
            None if self.store.bulk.remove(&hash) => {
                self.counters.damaged += 1;
                self.store.note(Change::Unchunk { hash });
                self.out.push_back(Output::Damaged { hash });
                self.store.recheck(&hash);
                self.sooner(Timer::Maintain, now);
            }
            None => {}
        }
        for reader in readers {
            self.loaded_for(reader, whole.clone());
        }
    }

    fn loaded_for(&mut self, reader: Reader, bytes: Option<Bytes>) {
        match (reader, bytes) {
            (Reader::Peer(token), Some(bytes)) => self.reply(token, Response::Chunk { bytes }),
            (Reader::Peer(token), None) => self.reply(token, Response::Failed(Failure::NotHeld)),
            (Reader::Own(op), Some(bytes)) => self.took(op, Ok(bytes)),
            (Reader::Own(op), None) => self.took(op, Err(crate::overlay::LookupError::Busy)),
            (Reader::Check, _) => {}
        }
    }

    /// After every input: what belongs here is wanted, what does not is forgotten.
    pub(super) fn settle_chunks(&mut self, now: Instant) {
        for key in self.store.take_changed() {
            let live = [(key, 0), (key, 1)];
            let chunk = live.iter().flat_map(|slot| self.store.live(slot, now)).find_map(|(_, h)| chunk_of(&h.entry));
            match chunk {
                Some(body) => self.store.bulk.want(key, body.hash, now),
                None => {
                    if let Some(hash) = self.store.bulk.unwant(&key) {
                        self.store.note(Change::Unchunk { hash });
                    }
                }
            }
        }
        self.fetch_chunks(now);
    }

    /// With each look over the records: what was not found is looked for again, one chunk is checked, and what nobody names goes.
    pub(super) fn look_after_chunks(&mut self, now: Instant) {
        if !self.store.is_kept() {
            return;
        }
        self.checked = self.store.bulk.after(self.checked);
        if let Some(hash) = self.checked.filter(|hash| self.store.bulk.get(hash) == Some(None)) {
            self.load(hash, Reader::Check);
        }
        if !self.doubts() {
            for hash in self.store.bulk.orphans() {
                self.store.bulk.remove(&hash);
                self.store.note(Change::Unchunk { hash });
            }
        }
        self.fetch_chunks(now);
    }

    fn fetch_chunks(&mut self, now: Instant) {
        while self.state == State::Joined
            && self.table.successor().is_some()
            && let Some((key, hash)) = self.store.bulk.next_wanted(FETCHES, now)
        {
            self.fetch_chunk(now, key, hash);
        }
    }

    /// A chunk that belongs here was fetched, or not.
    pub(super) fn on_fetched(&mut self, now: Instant, key: Id, hash: ChunkHash, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => {
                self.counters.fetched += 1;
                self.take_in(key, hash, bytes);
            }
            None => {
                self.store.bulk.not_fetched(&hash, now);
            }
        }
        // It may have come to an end meanwhile.
        self.store.recheck_key(key);
        self.fetch_chunks(now);
    }
}

/// The chunk that an entry asks to be held.
pub(super) fn chunk_of(entry: &SignedEntry) -> Option<ChunkBody> {
    let e = entry.entry();
    (e.kind == EntryKind::CHUNK && !e.is_removal()).then(|| ChunkBody::decode(&e.body, &e.aor).ok()).flatten()
}
