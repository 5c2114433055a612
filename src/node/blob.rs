//! Blobs for whoever in this node has more to keep than a record holds: voicemail, greetings, files.
//!
//! A blob goes out chunk by chunk as it is fed ([`Node::feed_blob`] takes no more than a few chunks at a time) and comes in
//! chunk by chunk in order ([`Node::read_blob`]); neither way more than [`WINDOW`] chunks of it are in memory. The manifest is
//! written last: a blob is there or it is not. How far it has come is told by events ([`Event::Blob`]).
//!
//! Left out: more chunks than [`MAX_BLOB`] has, and renewing by one signature for all.

use super::Node;
use super::control::Event;
use super::lookup::Op;
use super::ring::State;
use crate::core::Instant;
use crate::identity::{
    BLOB_LIST, BlobBody, BlobRef, CHUNK, ChunkBody, ChunkHash, Entry, EntryKind, MAX_BLOB, SignedEntry, chunk_aor,
    open_chunk, pack_names, resource_key, seal_chunk, unpack_names,
};
use crate::overlay::{self, Command, Mode, OpId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Chunks of one blob under way, or read and not taken.
const WINDOW: usize = 4;
/// Blobs under way at once.
const MOST: usize = 16;
/// Attempts at one chunk.
const TRIES: u8 = 3;
/// Numbers of the chunks that hold names.
const LISTS: u32 = 1 << 31;

/// Blobs under way, by number.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    puts: BTreeMap<String, Put>,
    gets: BTreeMap<String, Get>,
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

/// What becomes of a blob whose manifest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Read,
    /// Held for so many seconds from now on; 0: not any more.
    Hold(u32),
}

#[derive(Debug)]
struct Get {
    reference: BlobRef,
    aim: Aim,
    body: Option<BlobBody>,
    /// Chunks that hold names are being read.
    lists: bool,
    names: Vec<ChunkHash>,
    /// The next to be asked for, and to be handed out.
    asked: usize,
    taken: usize,
    ready: BTreeMap<usize, Vec<u8>>,
    unpacked: VecDeque<ChunkHash>,
    failed: Option<String>,
}

/// What can be read of a blob now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobRead {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// Not yet: ask again after the next event.
    Later,
    /// That was all of it.
    End,
    /// It cannot be read, and why.
    Failed(String),
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
    fn ticket(&self, now: Instant, body: ChunkBody, life: u32) -> Option<SignedEntry> {
        let aor = chunk_aor(&body.hash, self.identity.as_ref()?.overlay());
        let body = if life == 0 { Vec::new() } else { body.encode() };
        self.blob_entry(now, EntryKind::CHUNK, aor, body, life)
    }

    fn blob_entry(&self, now: Instant, kind: EntryKind, aor: String, body: Vec<u8>, life: u32) -> Option<SignedEntry> {
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

    fn put_for_blob(&mut self, now: Instant, entry: SignedEntry, op: Op) {
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

    /// Begins to read a blob.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn begin_read_blob(&mut self, now: Instant, reference: BlobRef) -> Result<(), String> {
        self.begin_get(now, reference, Aim::Read)
    }

    /// Has a blob of this device's held for `life` from now on; for no time at all: it is taken back.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn hold_blob(&mut self, now: Instant, reference: BlobRef, life: Duration) -> Result<(), String> {
        let life = life.min(EntryKind::BLOB.rules().longest).as_secs() as u32;
        self.begin_get(now, reference, Aim::Hold(life))
    }

    fn begin_get(&mut self, now: Instant, reference: BlobRef, aim: Aim) -> Result<(), String> {
        let overlay = self.identity.as_ref().ok_or("a plain SIP phone keeps nothing in the overlay")?.overlay();
        let (aor, id) = (reference.aor(overlay), reference.number());
        if self.ring.state() != State::In {
            return Err("this device is in no ring yet".into());
        }
        if self.blobs.gets.len() >= MOST || self.blobs.gets.contains_key(&id) {
            return Err("too many blobs are under way, or this one is".into());
        }
        let get = Get {
            reference,
            aim,
            body: None,
            lists: false,
            names: Vec::new(),
            asked: 0,
            taken: 0,
            ready: BTreeMap::new(),
            unpacked: VecDeque::new(),
            failed: None,
        };
        self.blobs.gets.insert(id.clone(), get);
        self.begin_op(now, Op::Blob(BlobOp::Look { id }), &aor, Mode::Auto);
        Ok(())
    }

    /// The next bytes of a blob that is being read.
    pub fn read_blob(&mut self, now: Instant, id: &str) -> BlobRead {
        let Some(get) = self.blobs.gets.get_mut(id) else { return BlobRead::Failed("it is not being read".into()) };
        if let Some(why) = get.failed.take() {
            self.blobs.gets.remove(id);
            return BlobRead::Failed(why);
        }
        if get.body.is_none() || get.lists {
            return BlobRead::Later;
        }
        let Some(bytes) = get.ready.remove(&get.taken) else {
            if get.taken < get.names.len() {
                return BlobRead::Later;
            }
            self.blobs.gets.remove(id);
            return BlobRead::End;
        };
        get.taken += 1;
        self.ask_chunks(now, id);
        BlobRead::Bytes(bytes)
    }

    /// Its manifest was looked for.
    pub(super) fn on_blob_found(&mut self, now: Instant, id: &str, entries: Option<&[SignedEntry]>) {
        let Some(get) = self.blobs.gets.get_mut(id) else { return };
        let mine = |e: &&SignedEntry| e.entry().kind == EntryKind::BLOB && e.entry().device == get.reference.signer;
        let body = entries.and_then(|all| all.iter().find(mine)).and_then(|e| BlobBody::decode(&e.entry().body).ok());
        match body {
            Some(body) => {
                (get.names, get.lists) = (body.names.clone(), body.packed);
                get.body = Some(body);
                self.ask_chunks(now, id);
            }
            None if entries.is_some() => self.fail_get(id, "it is not there (any more)"),
            None => self.fail_get(id, "nobody answered for it"),
        }
    }

    /// Asks for what comes next, as far as there is room for it.
    fn ask_chunks(&mut self, now: Instant, id: &str) {
        while let Some(get) = self.blobs.gets.get_mut(id)
            && get.failed.is_none()
            && get.asked < get.names.len()
        {
            if get.aim != Aim::Read && !get.lists {
                return self.hold_all(now, id);
            }
            if get.asked - get.taken >= WINDOW {
                return;
            }
            let at = get.asked;
            get.asked += 1;
            self.ask_chunk(now, id, at, TRIES);
        }
    }

    fn ask_chunk(&mut self, now: Instant, id: &str, at: usize, tries: u8) {
        let Some(overlay) = self.identity.as_ref().map(|i| i.overlay().to_owned()) else { return };
        let Some(hash) = self.blobs.gets.get(id).and_then(|get| get.names.get(at).copied()) else { return };
        let op = OpId(self.ring.next());
        self.ring.ops.insert(op, Op::Blob(BlobOp::Read { id: id.into(), at, tries }));
        let key = resource_key(&chunk_aor(&hash, &overlay));
        self.overlay_input(now, overlay::Input::Command(Command::Take { op, key, hash }));
    }

    pub(super) fn on_chunk_read(&mut self, now: Instant, op: OpId, bytes: Option<Bytes>) {
        let Some(Op::Blob(BlobOp::Read { id, at, tries })) = self.ring.ops.remove(&op) else { return };
        let Some(get) = self.blobs.gets.get_mut(&id) else { return };
        let Some(bytes) = bytes else {
            return match tries {
                0 | 1 => self.fail_get(&id, "a part of it is with no holder that can be reached"),
                _ => self.ask_chunk(now, &id, at, tries - 1),
            };
        };
        let (lists, all) = (get.lists, get.names.len());
        let number = if lists { LISTS } else { 0 } + at as u32;
        let Some(plain) = open_chunk(&get.reference.key, number, !lists && at + 1 == all, &bytes) else {
            return self.fail_get(&id, "a part of it does not open");
        };
        get.ready.insert(at, plain);
        if lists {
            return self.unpack(now, &id);
        }
        let (done, of) = (get.taken + get.ready.len(), all);
        self.event(None, Event::Blob { blob: id, done, of, state: "reading".into() });
    }

    /// Names that lay in chunks of their own, in order.
    fn unpack(&mut self, now: Instant, id: &str) {
        let Some(get) = self.blobs.gets.get_mut(id) else { return };
        while let Some(plain) = get.ready.remove(&get.taken) {
            get.taken += 1;
            match unpack_names(&plain) {
                Some(names) => get.unpacked.extend(names),
                None => return self.fail_get(id, "its list makes no sense"),
            }
        }
        if get.taken == get.names.len() {
            let chunks = get.body.as_ref().map_or(0, BlobBody::chunks);
            if get.unpacked.len() != chunks {
                return self.fail_get(id, "its list makes no sense");
            }
            if let Aim::Hold(life) = get.aim {
                // The lists go the way of what they list.
                let lists = std::mem::take(&mut get.names);
                get.names = get.unpacked.drain(..).collect();
                (get.lists, get.asked, get.taken) = (false, 0, 0);
                self.hold_chunks(now, &lists, life);
                return self.hold_all(now, id);
            }
            get.names = get.unpacked.drain(..).collect();
            (get.lists, get.asked, get.taken) = (false, 0, 0);
        }
        self.ask_chunks(now, id);
    }

    fn hold_chunks(&mut self, now: Instant, names: &[ChunkHash], life: u32) {
        for hash in names {
            // Not even the last one is longer; what it has more of counts for little.
            if let Some(entry) = self.ticket(now, ChunkBody { hash: *hash, length: (CHUNK + 16) as u32 }, life) {
                self.put_for_blob(now, entry, Op::Mend);
            }
        }
    }

    /// Renewed or taken back: each chunk and the manifest.
    fn hold_all(&mut self, now: Instant, id: &str) {
        let Some(get) = self.blobs.gets.remove(id) else { return };
        let (Aim::Hold(life), Some(body)) = (get.aim, get.body) else { return };
        self.hold_chunks(now, &get.names, life);
        let aor = self.identity.as_ref().map(|i| get.reference.aor(i.overlay())).unwrap_or_default();
        let bytes = if life == 0 { Vec::new() } else { body.encode() };
        if let Some(entry) = self.blob_entry(now, EntryKind::BLOB, aor, bytes, life) {
            self.put_for_blob(now, entry, Op::Mend);
        }
        let (of, state) = (get.names.len(), if life == 0 { "taken back" } else { "renewed" });
        self.event(None, Event::Blob { blob: id.into(), done: of, of, state: state.into() });
    }

    fn fail_get(&mut self, id: &str, why: &str) {
        let Some(get) = self.blobs.gets.get_mut(id) else { return };
        self.counters.entry("blobs that could not be read").and_modify(|n| *n += 1).or_insert(1);
        (get.failed, get.ready) = (Some(why.into()), BTreeMap::new());
        let of = get.names.len();
        if get.aim != Aim::Read {
            self.blobs.gets.remove(id);
        }
        self.event(None, Event::Blob { blob: id.into(), done: 0, of, state: format!("failed: {why}") });
    }
}
