//! Blobs for whoever in this node has more to keep than a record holds: voicemail, greetings, files.
//!
//! A blob goes out chunk by chunk as it is fed ([`Node::feed_blob`] takes no more than a few chunks at a time) and comes in
//! chunk by chunk in order ([`Node::read_blob`]); neither way more than [`WINDOW`] chunks of it are in memory. The manifest is
//! written last: a blob is there or it is not. How far it has come is told by events ([`Event::Blob`]).
//!
//! Here the writing; the reading is in `blob_read`.
//!
//! Left out: more chunks than [`MAX_BLOB`] has, and renewing by one signature for all.

use super::Node;
use super::blob_read::Get;
use super::control::Event;
use super::lookup::Op;
use crate::core::Instant;
use crate::identity::{
    BLOB_LIST, BlobBody, BlobRef, CHUNK, ChunkBody, ChunkHash, Entry, EntryKind, MAX_BLOB, SignedEntry, chunk_aor,
    pack_names, seal_chunk,
};
use crate::overlay::{self, Command, OpId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Chunks of one blob under way, or read and not taken.
pub(super) const WINDOW: usize = 4;
/// Blobs under way at once.
pub(super) const MOST: usize = 16;
/// Attempts at one chunk.
pub(super) const TRIES: u8 = 3;
/// Numbers of the chunks that hold names.
pub(super) const LISTS: u32 = 1 << 31;

/// Blobs under way, by number.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    puts: BTreeMap<String, Put>,
    pub gets: BTreeMap<String, Get>,
}

/// What an operation on the overlay was for.
#[derive(Debug)]
pub(super) enum BlobOp {
    /// A chunk of a blob that goes out, the how manieth attempt.
    Write {
        id: String,
        entry: Box<SignedEntry>,
        bytes: Bytes,
        tries: u8,
    },
    Manifest {
        id: String,
    },
    /// The manifest of a blob that comes in.
    Look {
        id: String,
    },
    /// One of its chunks: its number, its place in what is read now, the how manieth attempt.
    Read {
        id: String,
        at: usize,
        tries: u8,
    },
}

#[derive(Debug)]
struct Put {
    reference: BlobRef,
    life: u32,
    buffer: Vec<u8>,
    names: Vec<ChunkHash>,
    total: u64,
    out: usize,
    /// Nothing more is fed.
    ended: bool,
    /// All names have gone out; those of the manifest.
    listed: Option<Vec<ChunkHash>>,
    done: bool,
}

impl Node {
    /// Begins to write a blob that is to live for `life` (30 days at most).
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn begin_blob(&mut self, life: Duration) -> Result<BlobRef, String> {
        let identity = self.identity.as_ref().ok_or("a plain SIP phone keeps nothing in the overlay")?;
        if self.blobs.puts.len() >= MOST {
            return Err("too many blobs are under way".into());
        }
        let reference = BlobRef::generate(identity.device_key(), &mut self.rng);
        let life = life.min(EntryKind::BLOB.rules().longest).as_secs().max(60) as u32;
        let put = Put {
            reference: reference.clone(),
            life,
            buffer: Vec::new(),
            names: Vec::new(),
            total: 0,
            out: 0,
            ended: false,
            listed: None,
            done: false,
        };
        self.blobs.puts.insert(reference.number(), put);
        Ok(reference)
    }

    /// Takes as much of `bytes` as there is room for now; how much. `last`: nothing follows them. Once the blob is written or has
    /// failed an event says so, and nothing more is taken.
    pub fn feed_blob(&mut self, now: Instant, id: &str, bytes: &[u8], last: bool) -> usize {
        let mut taken = 0;
        loop {
            let Some(put) = self.blobs.puts.get_mut(id).filter(|p| !p.ended) else { return taken };
            let some = (CHUNK - put.buffer.len()).min(bytes.len() - taken);
            put.buffer.extend_from_slice(&bytes[taken..taken + some]);
            (put.total, taken) = (put.total + some as u64, taken + some);
            let all = taken == bytes.len();
            if put.total > MAX_BLOB {
                self.fail_put(id, "it is too large");
                return taken;
            }
            if last && all {
                // Whatever is under way, the end fits.
                put.ended = true;
                self.send_chunk(now, id, true);
                self.advance_put(now, id);
                return taken;
            }
            if all || put.out >= WINDOW {
                return taken;
            }
            // Full, and something follows: it is not the last.
            self.send_chunk(now, id, false);
        }
    }

    fn send_chunk(&mut self, now: Instant, id: &str, last: bool) {
        let Some(put) = self.blobs.puts.get_mut(id) else { return };
        let number = put.names.len() as u32;
        let plain = std::mem::take(&mut put.buffer);
        let Some(sealed) = seal_chunk(&put.reference.key, number, last, &plain) else {
            return self.fail_put(id, "it cannot be sealed");
        };
        put.names.push(ChunkHash::of(&sealed));
        self.write_chunk(now, id, sealed);
    }

    fn write_chunk(&mut self, now: Instant, id: &str, sealed: Vec<u8>) {
        let Some(put) = self.blobs.puts.get_mut(id) else { return };
        put.out += 1;
        let life = put.life;
        match self.ticket(now, ChunkBody::of(&sealed), life) {
            Some(entry) => {
                let op = BlobOp::Write { id: id.into(), entry: Box::new(entry), bytes: sealed.into(), tries: TRIES };
                self.try_chunk(now, op);
            }
            None => self.fail_put(id, "this device may not sign for it"),
        }
    }

    fn try_chunk(&mut self, now: Instant, op: BlobOp) {
        let BlobOp::Write { entry, bytes, .. } = &op else { return };
        let (entry, bytes) = ((**entry).clone(), bytes.clone());
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, Op::Blob(op));
        let key = entry.entry().resource_key();
        self.overlay_input(now, overlay::Input::Command(Command::Give { op: id, key, entry, bytes }));
    }

    /// The entry that has a chunk held, for no time where `life` is 0.
    pub(super) fn ticket(&self, now: Instant, body: ChunkBody, life: u32) -> Option<SignedEntry> {
        let aor = chunk_aor(&body.hash, self.identity.as_ref()?.overlay());
        let body = if life == 0 { Vec::new() } else { body.encode() };
        self.blob_entry(now, EntryKind::CHUNK, aor, body, life)
    }

    pub(super) fn blob_entry(
        &self,
        now: Instant,
        kind: EntryKind,
        aor: String,
        body: Vec<u8>,
        life: u32,
    ) -> Option<SignedEntry> {
        let (identity, issued) = (self.identity.as_ref()?, self.overlay.as_ref()?.unix(now));
        let sequence = issued.secs() * 1000 + now.as_millis() % 1000;
        let device = identity.device_key();
        let entry = Entry { kind, aor, device, sequence, issued, lifetime: life.max(1), body };
        identity.sign_entry(entry).ok()
    }

    /// Once all chunks are written, the chunks of names where there are many, then the manifest.
    fn advance_put(&mut self, now: Instant, id: &str) {
        let Some(put) = self.blobs.puts.get_mut(id).filter(|p| p.ended && p.out == 0 && !p.done) else { return };
        if put.listed.is_none() && put.names.len() > BLOB_LIST {
            let (mut names, mut lists) = (Vec::new(), Vec::new());
            for (n, plain) in (0u32..).zip(pack_names(&put.names)) {
                if let Some(sealed) = seal_chunk(&put.reference.key, LISTS + n, false, &plain) {
                    names.push(ChunkHash::of(&sealed));
                    lists.push(sealed);
                }
            }
            put.listed = Some(names);
            return lists.into_iter().for_each(|sealed| self.write_chunk(now, id, sealed));
        }
        let (packed, names) = (put.listed.is_some(), put.listed.clone().unwrap_or_else(|| put.names.clone()));
        let (body, life, reference) = (BlobBody { total: put.total, names, packed }, put.life, put.reference.clone());
        put.done = true;
        let aor = self.identity.as_ref().map(|i| reference.aor(i.overlay())).unwrap_or_default();
        match self.blob_entry(now, EntryKind::BLOB, aor, body.encode(), life) {
            Some(entry) => self.put_for_blob(now, entry, Op::Blob(BlobOp::Manifest { id: id.into() })),
            None => self.fail_put(id, "this device may not sign for it"),
        }
    }

    pub(super) fn put_for_blob(&mut self, now: Instant, entry: SignedEntry, op: Op) {
        let id = OpId(self.ring.next());
        self.ring.ops.insert(id, op);
        let key = entry.entry().resource_key();
        self.overlay_input(now, overlay::Input::Command(Command::Put { op: id, key, entry }));
    }

    pub(super) fn on_blob_written(&mut self, now: Instant, op: BlobOp, result: Result<(), overlay::PutError>) {
        match (op, result) {
            (BlobOp::Write { id, .. }, Ok(())) => {
                let Some(put) = self.blobs.puts.get_mut(&id) else { return };
                put.out = put.out.saturating_sub(1);
                let (done, of) = (put.names.len() - put.out.min(put.names.len()), put.names.len());
                let event = Event::Blob { blob: id.clone(), done, of, state: "writing".into() };
                self.event(None, event);
                self.advance_put(now, &id);
            }
            (BlobOp::Write { id, entry, bytes, tries }, Err(_)) if tries > 1 && self.blobs.puts.contains_key(&id) => {
                self.try_chunk(now, BlobOp::Write { id, entry, bytes, tries: tries - 1 });
            }
            (BlobOp::Manifest { id }, Ok(())) => {
                if let Some(put) = self.blobs.puts.remove(&id) {
                    let of = put.names.len();
                    self.event(None, Event::Blob { blob: id, done: of, of, state: "written".into() });
                }
            }
            (BlobOp::Write { id, .. } | BlobOp::Manifest { id }, Err(fault)) => self.fail_put(&id, &fault.to_string()),
            (BlobOp::Look { .. } | BlobOp::Read { .. }, _) => {}
        }
    }

    fn fail_put(&mut self, id: &str, why: &str) {
        if let Some(put) = self.blobs.puts.remove(id) {
            self.count("blobs that could not be written");
            let state = format!("failed: {why}");
            self.event(None, Event::Blob { blob: id.into(), done: 0, of: put.names.len(), state });
        }
    }
}
