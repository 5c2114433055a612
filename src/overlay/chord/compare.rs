//! What is held in a range of the circle, in short: digests and briefs.

use super::Store;
use super::store::{Held, Slot};
use crate::core::{Id, Instant};
use crate::identity::DictionaryKey;
use crate::overlay::{Brief, IdSpace, Part, Range};

/// Up to so many entries are named; more are divided.
const NAMED: usize = 32;

/// An entry held, with the place where it belongs.
pub(super) struct Lying<'s> {
    pub position: Id,
    pub slot: Slot,
    pub key: DictionaryKey,
    held: &'s Held,
}

impl Lying<'_> {
    pub fn brief(&self) -> Brief {
        let entry = &self.held.entry;
        let (sequence, expires) = (entry.entry().sequence, entry.expires());
        Brief { key: self.slot.0, replica: self.slot.1, entry: name(&self.key), sequence, expires }
    }
}

impl Store {
    /// Everything unexpired, with its place; `scattered`: replicas with a number too.
    pub fn lying(&self, space: IdSpace, scattered: bool, now: Instant) -> Vec<Lying<'_>> {
        let slots = self.slots().filter(|((_, n), _)| scattered || *n == 0);
        let entries = slots.flat_map(|(slot, _)| {
            let position = space.replica_position(&slot.0, slot.1);
            self.live(slot, now).map(move |(key, held)| Lying { position, slot: *slot, key: *key, held })
        });
        entries.collect()
    }
}

/// What lies in (`from`, `to`], in the order of the circle.
pub(super) fn within<'l, 's>(all: &'l [Lying<'s>], space: IdSpace, from: &Id, to: &Id) -> Vec<&'l Lying<'s>> {
    let first = space.finger_start(from, 0);
    let mut inside: Vec<_> = all.iter().filter(|l| space.in_open_closed(&l.position, from, to)).collect();
    inside.sort_by_key(|l| (space.distance(&first, &l.position), l.slot, l.key));
    inside
}

/// The digest of what lies in (`from`, `to`].
pub(super) fn range(inside: &[&Lying<'_>], from: Id, to: Id) -> Range {
    let mut hash = blake3::Hasher::new();
    for lying in inside {
        hash.update(&lying.held.version);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    Range { from, to, entries: u32::try_from(inside.len()).unwrap_or(u32::MAX), digest }
}

/// How a range that differs is answered: every entry where it has few or they lie at one place, else the ranges that it
/// consists of.
pub(super) fn part(inside: &[&Lying<'_>], from: Id, to: Id) -> Part {
    let named = || Part::Entries { from, to, entries: inside.iter().take(Part::MOST).map(|l| l.brief()).collect() };
    if inside.len() <= NAMED {
        return named();
    }
    let size = inside.len().div_ceil(Range::MOST);
    let (mut ranges, mut start, mut begun) = (Vec::new(), from, 0);
    for at in 1..inside.len() {
        if at - begun >= size && inside[at].position != inside[at - 1].position {
            let end = inside[at - 1].position;
            ranges.push(range(&inside[begun..at], start, end));
            (start, begun) = (end, at);
        }
    }
    if ranges.is_empty() {
        return named();
    }
    ranges.push(range(&inside[begun..], start, to));
    Part::Ranges(ranges)
}

/// A dictionary key in short.
pub(super) fn name(key: &DictionaryKey) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(&key.kind.number().to_be_bytes())
        .update(&key.user)
        .update(&key.device.0)
        .update(&key.item.to_be_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_be_bytes(short)
}
