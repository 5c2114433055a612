//! Blobs that come in: the manifest, the chunks in order, each opened as it comes; and the same walk over a blob of this device's to
//! have it held for longer, or not any more.

use super::Node;
use super::blob::{BlobOp, LISTS, MOST, TRIES, WINDOW};
use super::control::Event;
use super::lookup::Op;
use super::ring::State;
use crate::core::Instant;
use crate::identity::{
    BlobBody, BlobRef, CHUNK, ChunkBody, ChunkHash, EntryKind, SignedEntry, chunk_aor, open_chunk, resource_key,
    unpack_names,
};
use crate::overlay::{self, Command, Mode, OpId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What becomes of a blob whose manifest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Read,
    /// Held for so many seconds from now on; 0: not any more.
    Hold(u32),
}

#[derive(Debug)]
pub(super) struct Get {
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
