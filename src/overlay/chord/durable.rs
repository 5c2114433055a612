//! What is held comes back after a restart, and is acknowledged once it would.
//!
//! A holder acknowledges a write when its batch is on the disk, or after [`Config::flush_wait`](super::Config::flush_wait) when the
//! disk is slower than that or takes nothing: the record is in memory then, with the other holders, and is still being
//! written. What the disk returns at the start is verified like what a stranger sends.

use super::{Chord, Timer};
use crate::core::{Id, Instant, UnixTime};
use crate::identity::SignedEntry;
use crate::overlay::{Batch, Change, Output, Response, Stored, Token};
use std::collections::VecDeque;
use std::time::Duration;

/// Most acknowledgements held back; the next is given at once.
const MOST_WAITING: usize = 4096;
/// Entries kept that seem to be of the past, until it is sure what time it is.
const MOST_DOUBTED: usize = 20_000;
/// For how long, where nobody can say what time it is.
const DOUBTED: Duration = Duration::from_secs(600);
/// How often the time is noted on the disk when nothing else is.
const NOTE_TIME: Duration = Duration::from_secs(600);

/// Who waits for a batch.
#[derive(Debug)]
pub(super) enum Waiter {
    /// Who wrote to this peer.
    Reply(Token, Response),
    /// A put of this peer's own, itself among the holders.
    Write(u64),
    /// A scattered copy of this peer's own, which lies here.
    Place(u64),
}

#[derive(Default)]
pub(super) struct Durable {
    /// Every batch up to this one is settled.
    flushed: Option<u64>,
    waiting: VecDeque<(u64, Instant, Waiter)>,
    noted: Option<Instant>,
    /// From the disk; expired if the clock is right.
    doubted: Vec<(super::Slot, SignedEntry)>,
    doubted_until: Instant,
}

impl Chord {
    /// Takes what was kept; from now on what changes is kept.
    pub(super) fn restore(&mut self, now: Instant, stored: Stored) {
        self.clock.not_before(now, stored.unix);
        let unix = self.unix(now);
        let mut unsound = Vec::new();
        for (key, replica, entry) in stored.entries {
            let slot = (key, replica);
            if entry.expires() <= unix && self.durable.doubted.len() < MOST_DOUBTED {
                self.durable.doubted.push((slot, entry));
            } else if !self.take_back(now, slot, entry.clone(), unix) {
                unsound.push((slot, entry.dictionary_key()));
            }
        }
        self.durable.doubted_until = now + DOUBTED;
        // What came from the disk is there.
        self.durable.flushed = Some(0);
        self.store.keep_journal();
        for (hash, length) in stored.chunks {
            self.store.bulk.on_disk(hash, length);
        }
        for (slot, entry) in unsound {
            self.store.forget(slot, &entry);
        }
    }

    /// All up to this batch is on the disk, or will not be for a while.
    pub(super) fn on_flushed(&mut self, now: Instant, upto: u64) {
        self.durable.flushed = self.durable.flushed.max(Some(upto));
        self.store.bulk.flushed(upto);
        self.release(now);
    }

    /// Hands what has changed to the driver, and tells when the clock is found to be wrong, or right again.
    pub(super) fn keep_changes(&mut self, now: Instant) {
        let off = self.clock.off();
        if off.is_some() != self.clock_told.is_some() {
            self.clock_told = off;
            self.out.push_back(Output::ClockOff { seconds: off });
        }
        let unix = self.unix(now);
        if let Some((number, changes)) = self.store.take_journal() {
            self.durable.noted = Some(now);
            self.out.push_back(Output::Keep(Batch { number, unix, changes }));
        }
    }

    /// What the clock of a supernode shows on which this node hangs; 0 says nothing.
    pub fn hear_clock(&mut self, now: Instant, peer: Id, unix: UnixTime) {
        if unix.secs() > 0 {
            self.clock.heard(now, peer, unix);
            self.keep_changes(now);
        }
    }

    /// The time, for a machine whose clock starts anywhere; and what only seemed to have expired.
    pub(super) fn keep_time(&mut self, now: Instant) {
        if self.store.is_kept() && self.durable.noted.is_none_or(|at| now.since(at) >= NOTE_TIME) {
            self.durable.noted = Some(now);
            let (number, unix) = (self.store.batch, self.unix(now));
            self.store.batch += 1;
            self.out.push_back(Output::Keep(Batch { number, unix, changes: Vec::new() }));
        }
        if !self.durable.doubted.is_empty() && (self.clock.is_confirmed(now) || now >= self.durable.doubted_until) {
            let unix = self.unix(now);
            for (slot, entry) in std::mem::take(&mut self.durable.doubted) {
                if !self.take_back(now, slot, entry.clone(), unix) {
                    self.store.forget(slot, &entry.dictionary_key());
                }
            }
        }
    }

    /// What only seemed to have expired is not decided yet.
    pub(super) fn doubts(&self) -> bool {
        !self.durable.doubted.is_empty()
    }

    /// Answers once what the response says is on the disk.
    pub(super) fn acknowledge(&mut self, now: Instant, batch: Option<u64>, waiter: Waiter) {
        match batch.filter(|b| Some(*b) > self.durable.flushed && self.durable.waiting.len() < MOST_WAITING) {
            Some(batch) => {
                let until = now + self.config.flush_wait;
                self.durable.waiting.push_back((batch, until, waiter));
                self.sooner(Timer::Flush, until);
            }
            None => self.acknowledged(now, waiter),
        }
    }

    pub(super) fn on_flush_timer(&mut self, now: Instant) {
        let late = self.durable.waiting.iter().take_while(|(_, until, _)| *until <= now).count();
        for _ in 0..late {
            let Some((_, _, waiter)) = self.durable.waiting.pop_front() else { break };
            self.counters.unflushed += 1;
            self.acknowledged(now, waiter);
        }
        if let Some((_, until, _)) = self.durable.waiting.front() {
            self.timers.set(Timer::Flush, *until);
        }
    }

    /// Nobody waits any more.
    pub(super) fn acknowledge_all(&mut self, now: Instant) {
        for (_, _, waiter) in std::mem::take(&mut self.durable.waiting) {
            self.acknowledged(now, waiter);
        }
    }

    fn release(&mut self, now: Instant) {
        // Batches are settled in order, and are waited for nearly so.
        let flushed = self.durable.flushed;
        let waiting = std::mem::take(&mut self.durable.waiting);
        let (done, rest) = waiting.into_iter().partition(|(batch, ..)| Some(*batch) <= flushed);
        self.durable.waiting = rest;
        let done: VecDeque<(u64, Instant, Waiter)> = done;
        for (_, _, waiter) in done {
            self.acknowledged(now, waiter);
        }
    }

    fn acknowledged(&mut self, now: Instant, waiter: Waiter) {
        match waiter {
            Waiter::Reply(token, response) => self.reply(token, response),
            Waiter::Write(op) => self.on_own_write(now, op),
            Waiter::Place(op) => self.on_own_copy(now, op),
        }
    }

    /// One entry from the disk; true when it holds.
    fn take_back(&mut self, now: Instant, slot: super::Slot, entry: SignedEntry, unix: UnixTime) -> bool {
        if !self.verify.verify(&entry, &slot.0, unix) {
            if entry.expires() > unix {
                self.counters.invalid += 1;
            }
            return false;
        }
        self.store.put(slot, entry, None, &self.config, now, unix);
        true
    }
}

impl super::Store {
    /// An entry that was never taken back is forgotten on the disk.
    fn forget(&mut self, slot: super::Slot, entry: &crate::identity::DictionaryKey) {
        if self.held(&slot, entry).is_none() {
            self.note(Change::Remove { key: slot.0, replica: slot.1, entry: *entry });
        }
    }
}
