//! What this node writes into the overlay: one contact entry for each AOR that is reached through it.
//!
//! An entry is written when its AOR becomes reachable, again at half of its lifetime, and once more as a
//! tombstone when nothing rings for it any more (SPEC section 3). A holder that has a later sequence number makes the
//! writer jump past it, so a device that was restored from a copy does not vanish.

use crate::core::{Instant, UnixTime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait after a write that failed.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Wait after the first write that failed.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// One AOR that this node speaks for.
#[derive(Debug)]
struct Published {
    sequence: u64,
    wanted: bool,
    in_flight: bool,
    /// Written since the node last joined, in the form that is wanted.
    written: bool,
    /// What is to be said has changed while a write was under way.
    changed: bool,
    due: Instant,
    backoff: Duration,
    /// To be written again as soon as the write under way has ended.
    again: bool,
}

/// A write that is due: this AOR, this sequence number, and whether it is reachable or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub aor: String,
    pub sequence: u64,
    pub reachable: bool,
}

/// The AORs that this node speaks for and when each is written next.
#[derive(Debug)]
pub(super) struct Publisher {
    lifetime: Duration,
    aors: BTreeMap<String, Published>,
}

impl Publisher {
    /// Entries will live `lifetime` without renewal.
    pub fn new(lifetime: Duration) -> Self {
        Publisher { lifetime, aors: BTreeMap::new() }
    }

    /// Entries written from now on will live this long.
    pub fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Whether `aor` is to be found from now on.
    pub fn want(&mut self, now: Instant, unix: UnixTime, aor: &str, reachable: bool) {
        match self.aors.get_mut(aor) {
            Some(p) if p.wanted == reachable => {}
            Some(p) => (p.wanted, p.written, p.due, p.backoff) = (reachable, false, now, RETRY_MIN),
            None if reachable => {
                // The clock in milliseconds lies above whatever this device wrote before it lost its state.
                let sequence = unix.secs() * 1000;
                let fresh = Published {
                    sequence,
                    wanted: true,
                    in_flight: false,
                    written: false,
                    changed: false,
                    due: now,
                    backoff: RETRY_MIN,
                    again: false,
                };
                self.aors.insert(aor.to_owned(), fresh);
            }
            None => {}
        }
    }

    /// Nothing is to be found here from now on.
    pub fn withdraw(&mut self, now: Instant) {
        self.aors.retain(|_, p| p.written || p.in_flight);
        for p in self.aors.values_mut() {
            (p.wanted, p.written, p.due, p.backoff) = (false, false, now, RETRY_MIN);
        }
    }

    /// True when nothing is written and nothing is to be.
    pub fn is_empty(&self) -> bool {
        self.aors.is_empty()
    }

    /// Everything is to be written again: the node is in a ring, perhaps another one than before.
    pub fn rewrite(&mut self, now: Instant) {
        for p in self.aors.values_mut() {
            (p.written, p.due, p.backoff) = (false, now, RETRY_MIN);
        }
    }

    /// All holders of a record may be gone: each is renewed after a pause of its own, so many milliseconds as `pause` says.
    pub fn renew_soon(&mut self, now: Instant, mut pause: impl FnMut() -> u64) {
        for p in self.aors.values_mut() {
            p.due = p.due.min(now + Duration::from_millis(pause()));
            (p.backoff, p.again) = (RETRY_MIN, p.in_flight);
        }
    }

    /// What is said of `aor` has changed and is to be written again.
    pub fn renew(&mut self, now: Instant, aor: &str) {
        if let Some(p) = self.aors.get_mut(aor) {
            (p.written, p.due, p.backoff, p.changed) = (false, now, RETRY_MIN, p.in_flight);
        }
    }

    /// The next write that is due; it counts as under way until [`Publisher::done`].
    pub fn poll(&mut self, now: Instant) -> Option<Write> {
        let (aor, p) = self.aors.iter_mut().find(|(_, p)| !p.in_flight && p.due <= now)?;
        p.in_flight = true;
        p.sequence += 1;
        Some(Write { aor: aor.clone(), sequence: p.sequence, reachable: p.wanted })
    }

    /// When [`Publisher::poll`] has something next.
    pub fn next(&self) -> Option<Instant> {
        self.aors.values().filter(|p| !p.in_flight).map(|p| p.due).min()
    }

    /// A write has ended. `past` is the sequence number of a later entry that a holder has.
    pub fn done(&mut self, now: Instant, write: &Write, written: bool, past: Option<u64>) {
        let Some(p) = self.aors.get_mut(&write.aor) else { return };
        p.in_flight = false;
        if let Some(past) = past {
            p.sequence = p.sequence.max(past);
            p.due = now;
        } else if !written {
            p.due = now + p.backoff;
            p.backoff = (p.backoff * 2).min(RETRY_MAX);
        } else if p.wanted != write.reachable || std::mem::take(&mut p.changed) {
            p.due = now;
        } else if !p.wanted {
            self.aors.remove(&write.aor);
        } else {
            let again = std::mem::take(&mut p.again);
            let due = if again { now } else { now + self.lifetime / 2 };
            (p.written, p.due, p.backoff) = (true, due, RETRY_MIN);
        }
    }

    /// True when `aor` is written as it is wanted.
    pub fn is_written(&self, aor: &str) -> bool {
        self.aors.get(aor).is_some_and(|p| p.wanted && p.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: UnixTime = UnixTime(1_000);
    const AOR: &str = "sip:a@x";

    fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    #[test]
    fn written_renewed_and_removed() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).unwrap();
        assert!(first.reachable && first.sequence > 1_000_000);
        assert_eq!(p.poll(at(0)), None);
        p.done(at(1), &first, true, None);
        assert!(p.is_written(AOR));
        assert_eq!(p.next(), Some(at(301)));
        p.want(at(2), UNIX, AOR, false);
        let gone = p.poll(at(2)).unwrap();
        assert!(!gone.reachable && gone.sequence == first.sequence + 1);
        p.done(at(3), &gone, true, None);
        assert_eq!((p.next(), p.is_written(AOR)), (None, false));
    }

    #[test]
    fn renewed_at_once_when_many_have_failed() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).unwrap();
        // What is under way at that moment may go to the dead: it is written once more.
        p.renew_soon(at(1), || 500);
        assert_eq!((p.poll(at(2)), p.next()), (None, None));
        p.done(at(2), &first, true, None);
        let first = p.poll(at(2)).unwrap();
        p.done(at(2), &first, true, None);
        assert_eq!(p.next(), Some(at(302)));
        p.renew_soon(at(10), || 500);
        assert!(p.is_written(AOR));
        assert_eq!(p.poll(at(10)), None);
        assert!(p.poll(at(11)).is_some_and(|w| w.reachable && w.sequence == first.sequence + 1));
    }

    #[test]
    fn jumps_past_a_later_entry_and_backs_off() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let write = p.poll(at(0)).unwrap();
        p.done(at(0), &write, false, Some(write.sequence + 50));
        let again = p.poll(at(0)).unwrap();
        assert_eq!(again.sequence, write.sequence + 51);
        p.done(at(0), &again, false, None);
        assert_eq!(p.poll(at(0)), None);
        assert_eq!(p.next(), Some(at(0) + RETRY_MIN));
    }
}
