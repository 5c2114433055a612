//! The time that records are judged by.
//!
//! A machine's wall clock may be a day off, and be set while the program runs. Lifetimes of what is held run on the monotonic
//! clock (`store`); what comes in is judged by the time kept here. It follows the wall clock as long as that runs on evenly, does
//! not jump with it, and listens to what the neighbours' clocks say: where at least two of them agree and the own one is further
//! off than [`CLOCK_SKEW`], theirs counts and the owner is told. One neighbour against one's own clock decides nothing.

use crate::core::{Id, Instant, UnixTime};
use crate::identity::CLOCK_SKEW;
use std::collections::BTreeMap;
use std::time::Duration;

/// The wall clock may step by this much without being doubted.
const STEP: i64 = CLOCK_SKEW.as_secs() as i64 / 2;
/// Neighbours whose clocks are remembered.
const MOST: usize = 16;
/// For how long.
const FRESH: Duration = Duration::from_secs(900);

/// Seconds since 1970 at the monotonic clock's zero: two clocks that run evenly differ by a constant.
type Offset = i64;

#[derive(Debug)]
pub(super) struct Clock {
    /// The time that counts; none before the driver has said any.
    judged: Option<Offset>,
    wall: Offset,
    /// Nothing is earlier than this: it was written down before the last restart.
    floor: UnixTime,
    heard: BTreeMap<Id, (Instant, Offset)>,
    off: Option<i64>,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { judged: None, wall: 0, floor: UnixTime(0), heard: BTreeMap::new(), off: None }
    }

    pub fn unix(&self, now: Instant) -> UnixTime {
        UnixTime(self.judged.unwrap_or(0).saturating_add(seconds(now)).max(0) as u64)
    }

    /// What the wall clock shows now.
    pub fn set(&mut self, now: Instant, unix: UnixTime) {
        self.wall = offset(now, unix);
        let runs_on = self.judged.is_none_or(|judged| (judged - self.wall).abs() <= STEP);
        // Nobody to ask: the owner has set it.
        if runs_on || self.fresh(now).next().is_none() {
            self.judged = Some(self.wall.max(offset(now, self.floor)));
        }
        self.decide(now);
    }

    /// This was the time before the restart.
    pub fn not_before(&mut self, now: Instant, unix: UnixTime) {
        self.floor = unix;
        self.judged = self.judged.map(|judged| judged.max(offset(now, unix)));
    }

    /// What a neighbour's clock shows now.
    pub fn heard(&mut self, now: Instant, peer: Id, unix: UnixTime) {
        self.heard.retain(|_, (at, _)| now.since(*at) <= FRESH);
        if self.heard.len() < MOST || self.heard.contains_key(&peer) {
            self.heard.insert(peer, (now, offset(now, unix)));
        }
        self.decide(now);
    }

    /// How many seconds the wall clock is ahead of the neighbours' (negative: behind), when that is too much.
    pub fn off(&self) -> Option<i64> {
        self.off
    }

    /// At least two neighbours have said what time it is.
    pub fn is_confirmed(&self, now: Instant) -> bool {
        self.fresh(now).count() >= 2
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = Offset> {
        self.heard.values().filter(move |(at, _)| now.since(*at) <= FRESH).map(|(_, offset)| *offset)
    }

    fn decide(&mut self, now: Instant) {
        let mut theirs: Vec<Offset> = self.fresh(now).collect();
        theirs.sort_unstable();
        let skew = CLOCK_SKEW.as_secs() as i64;
        let near = |offset: &Offset, to: Offset| (offset - to).abs() <= skew;
        let with_us = theirs.iter().filter(|o| near(o, self.wall)).count();
        let Some(&median) = theirs.get(theirs.len() / 2) else { return };
        let agree = theirs.iter().filter(|o| near(o, median)).count();
        if near(&median, self.wall) || with_us * 2 >= theirs.len() {
            (self.judged, self.off) = (Some(self.wall), None);
        } else if agree >= 2 && agree * 2 > theirs.len() {
            (self.judged, self.off) = (Some(median), Some(self.wall - median));
        }
    }
}

fn seconds(now: Instant) -> i64 {
    (now.as_millis() / 1000) as i64
}

fn offset(now: Instant, unix: UnixTime) -> Offset {
    i64::try_from(unix.secs()).unwrap_or(i64::MAX / 4) - seconds(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const START: u64 = 1_800_000_000;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1000)
    }

    fn peer(n: u64) -> Id {
        Id::from_u64(n)
    }

    #[test]
    fn a_jump_is_believed_when_the_neighbours_say_so() {
        let mut clock = Clock::new();
        clock.set(at(0), UnixTime(START));
        for n in 0..3 {
            clock.heard(at(10), peer(n), UnixTime(START + 10));
        }
        // Set back by a day: goes on as before, and says so.
        clock.set(at(20), UnixTime(START + 20 - DAY));
        assert_eq!((clock.unix(at(30)), clock.off()), (UnixTime(START + 30), Some(-(DAY as i64))));
        // Set right again.
        clock.set(at(40), UnixTime(START + 40));
        assert_eq!((clock.unix(at(50)), clock.off()), (UnixTime(START + 50), None));
        // A daylight-saving kind of jump on all machines: the neighbours' word is the newer.
        clock.set(at(60), UnixTime(START + 60 + DAY));
        for n in 0..3 {
            clock.heard(at(70), peer(n), UnixTime(START + 70 + DAY));
        }
        assert_eq!((clock.unix(at(80)), clock.off()), (UnixTime(START + 80 + DAY), None));
    }

    #[test]
    fn one_liar_or_one_neighbour_moves_nothing() {
        let mut clock = Clock::new();
        clock.set(at(0), UnixTime(START));
        clock.heard(at(1), peer(1), UnixTime(START + 9 * DAY));
        assert_eq!((clock.unix(at(2)), clock.off()), (UnixTime(START + 2), None));
        clock.heard(at(2), peer(2), UnixTime(START + 2));
        clock.heard(at(2), peer(3), UnixTime(u64::MAX));
        assert_eq!((clock.unix(at(3)), clock.off()), (UnixTime(START + 3), None));
        // Alone, the owner's word counts.
        let mut alone = Clock::new();
        alone.set(at(0), UnixTime(START));
        alone.set(at(1), UnixTime(START + DAY));
        assert_eq!(alone.unix(at(1)), UnixTime(START + DAY));
    }

    #[test]
    fn a_clock_that_starts_behind_what_was_written_down() {
        let mut clock = Clock::new();
        clock.set(at(0), UnixTime(0));
        clock.not_before(at(0), UnixTime(START));
        assert_eq!(clock.unix(at(5)), UnixTime(START + 5));
        clock.heard(at(6), peer(1), UnixTime(START + DAY));
        clock.heard(at(6), peer(2), UnixTime(START + DAY + 4));
        assert_eq!(clock.unix(at(6)).secs().abs_diff(START + DAY), 4);
        assert!(clock.off().is_some_and(|off| off < 0));
    }
}
