//! What this node writes into the overlay: one contact entry for each AOR that is reached through it.
//!
//! An entry is written when its AOR becomes reachable, again at half of its lifetime, and once more as a
//! tombstone when nothing rings for it any more (SPEC section 3). A holder that has a later sequence number makes the
//! writer jump past it, so a device that was restored from a copy does not vanish. Renewals are not signed one by one: what falls due
//! at about the same time is renewed by one signature ([`Touch`](crate::identity::Touch)).

use crate::core::{Instant, TimerQueue, UnixTime};
use crate::identity::SignedEntry;
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
    /// What was written, while it says what is wanted.
    last: Option<SignedEntry>,
    /// To be written again as soon as the write under way has ended.
    again: bool,
}

impl Published {
    /// What was written does not say any more what is wanted.
    fn anew(&mut self, now: Instant) {
        (self.written, self.due, self.backoff) = (false, now, RETRY_MIN);
        (self.changed, self.last) = (self.in_flight, None);
    }
}

/// A write that is due: this AOR, this sequence number, and whether it is reachable or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub aor: String,
    pub sequence: u64,
    pub reachable: bool,
    /// Only its life is renewed.
    pub renews: Option<SignedEntry>,
}

/// The AORs that this node speaks for and when each is written next.
#[derive(Debug)]
pub(super) struct Publisher {
    lifetime: Duration,
    aors: BTreeMap<String, Published>,
    /// When each that is not under way is written next: there may be thousands, and this is asked after every packet.
    due: TimerQueue<String>,
}

impl Publisher {
    /// Entries will live `lifetime` without renewal.
    pub fn new(lifetime: Duration) -> Self {
        Publisher { lifetime, aors: BTreeMap::new(), due: TimerQueue::new() }
    }

    /// Entries written from now on will live this long.
    pub fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Whether `aor` is to be found from now on.
    pub fn want(&mut self, now: Instant, unix: UnixTime, aor: &str, reachable: bool) {
        match self.aors.get_mut(aor) {
            Some(p) if p.wanted == reachable => {}
            Some(p) => {
                (p.wanted, p.written, p.due, p.backoff) = (reachable, false, now, RETRY_MIN);
                p.last = None;
                schedule(&mut self.due, aor, p);
            }
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
                    last: None,
                    again: false,
                };
                schedule(&mut self.due, aor, &fresh);
                self.aors.insert(aor.to_owned(), fresh);
            }
            None => {}
        }
    }

    /// Nothing is to be found here from now on.
    pub fn withdraw(&mut self, now: Instant) {
        self.aors.retain(|_, p| p.written || p.in_flight);
        self.due = TimerQueue::new();
        for (aor, p) in &mut self.aors {
            (p.wanted, p.written, p.due, p.backoff) = (false, false, now, RETRY_MIN);
            p.last = None;
            schedule(&mut self.due, aor, p);
        }
    }

    /// True when nothing is written and nothing is to be.
    pub fn is_empty(&self) -> bool {
        self.aors.is_empty()
    }

    /// Everything is to be written again: the node is in a ring, perhaps another one than before.
    /// So it is with another address and other certificates: what was written is not renewed, it is signed anew.
    pub fn rewrite(&mut self, now: Instant) {
        for (aor, p) in &mut self.aors {
            p.anew(now);
            schedule(&mut self.due, aor, p);
        }
    }

    /// All holders of a record may be gone: each is written again after a pause of its own, so many milliseconds as `pause` says.
    pub fn renew_soon(&mut self, now: Instant, mut pause: impl FnMut() -> u64) {
        for (aor, p) in &mut self.aors {
            p.due = p.due.min(now + Duration::from_millis(pause()));
            (p.backoff, p.again) = (RETRY_MIN, p.in_flight);
            schedule(&mut self.due, aor, p);
        }
    }

    /// What is said of `aor` has changed and is to be written again.
    pub fn renew(&mut self, now: Instant, aor: &str) {
        if let Some(p) = self.aors.get_mut(aor) {
            p.anew(now);
            schedule(&mut self.due, aor, p);
        }
    }

    /// The writes that are due; they count as under way until [`Publisher::done`]. With one renewal come those that are nearly due.
    pub fn poll(&mut self, now: Instant) -> Vec<Write> {
        let of = |aor: &String| self.aors.get(aor);
        let renewing = self.due.until(now).filter_map(of).any(|p| p.last.is_some());
        let soon = if renewing { now + self.lifetime / 8 } else { now };
        let ready = |aor: &&String| of(aor).is_some_and(|p| p.due <= now || p.last.is_some() && p.written);
        let ready: Vec<String> = self.due.until(soon).filter(ready).cloned().collect();
        let mut writes = Vec::with_capacity(ready.len());
        for aor in ready {
            self.due.cancel(&aor);
            let Some(p) = self.aors.get_mut(&aor) else { continue };
            (p.in_flight, p.changed) = (true, false);
            p.sequence += u64::from(p.last.is_none());
            let renews = p.last.clone();
            writes.push(Write { aor, sequence: p.sequence, reachable: p.wanted, renews });
        }
        writes
    }

    /// When [`Publisher::poll`] has something next.
    pub fn next(&self) -> Option<Instant> {
        self.due.next()
    }

    /// A write has ended. `entry` is what was written, `past` the sequence number of a later entry that a holder has.
    pub fn done(&mut self, now: Instant, write: &Write, entry: Option<SignedEntry>, past: Option<u64>) {
        self.ended(now, write, (entry.is_some(), entry), past);
    }

    /// The same of what is signed anew each time.
    pub fn done_anew(&mut self, now: Instant, write: &Write, written: bool, past: Option<u64>) {
        self.ended(now, write, (written, None), past);
    }

    fn ended(&mut self, now: Instant, write: &Write, did: (bool, Option<SignedEntry>), past: Option<u64>) {
        let Some(p) = self.aors.get_mut(&write.aor) else { return };
        let (written, entry) = did;
        p.in_flight = false;
        if let Some(past) = past {
            p.last = None;
            p.sequence = p.sequence.max(past);
            p.due = now;
        } else if !written {
            p.due = now + p.backoff;
            p.backoff = (p.backoff * 2).min(RETRY_MAX);
        } else if p.wanted != write.reachable || std::mem::take(&mut p.changed) {
            p.due = now;
        } else if !p.wanted {
            self.aors.remove(&write.aor);
            return;
        } else {
            let again = std::mem::take(&mut p.again);
            let due = if again { now } else { now + self.lifetime / 2 };
            (p.written, p.due, p.backoff) = (true, due, RETRY_MIN);
            p.last = entry.filter(|_| !again);
        }
        schedule(&mut self.due, &write.aor, p);
    }

    /// True when `aor` is written as it is wanted.
    pub fn is_written(&self, aor: &str) -> bool {
        self.aors.get(aor).is_some_and(|p| p.wanted && p.written)
    }
}

/// Enters when an AOR is due, unless a write of it is under way.
fn schedule(due: &mut TimerQueue<String>, aor: &str, p: &Published) {
    if !p.in_flight {
        due.set(aor.to_owned(), p.due);
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

    fn entry(aor: &str) -> SignedEntry {
        use crate::identity::{Entry, EntryKind, Identity};
        let user = aor.trim_start_matches("sip:").trim_end_matches("@x");
        let identity = Identity::open("x", user, UNIX, &mut crate::core::Rng::from_seed(1)).unwrap();
        let device = identity.device_key();
        let (kind, aor) = (EntryKind::Contact, aor.to_owned());
        let entry = Entry { kind, aor, device, sequence: 1, issued: UNIX, lifetime: 600, body: vec![1] };
        identity.sign_entry(entry).unwrap()
    }

    #[test]
    fn written_renewed_and_removed() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).pop().unwrap();
        assert!(first.reachable && first.sequence > 1_000_000 && first.renews.is_none());
        assert_eq!(p.poll(at(0)), []);
        p.done(at(1), &first, Some(entry(AOR)), None);
        assert!(p.is_written(AOR));
        assert_eq!(p.next(), Some(at(301)));
        let renewal = p.poll(at(301)).pop().unwrap();
        assert_eq!((renewal.renews.as_ref(), renewal.sequence), (Some(&entry(AOR)), first.sequence));
        p.done(at(302), &renewal, Some(entry(AOR)), None);
        p.want(at(303), UNIX, AOR, false);
        let gone = p.poll(at(303)).pop().unwrap();
        assert!(!gone.reachable && gone.renews.is_none() && gone.sequence == first.sequence + 1);
        p.done(at(304), &gone, Some(entry(AOR)), None);
        assert_eq!((p.next(), p.is_written(AOR)), (None, false));
    }

    #[test]
    fn renewed_at_once_when_many_have_failed() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).pop().unwrap();
        // What is under way at that moment may go to the dead: it is written once more.
        p.renew_soon(at(1), || 500);
        assert_eq!((p.poll(at(2)), p.next()), (vec![], None));
        p.done(at(2), &first, Some(entry(AOR)), None);
        let first = p.poll(at(2)).pop().unwrap();
        p.done(at(2), &first, Some(entry(AOR)), None);
        assert_eq!(p.next(), Some(at(302)));
        p.renew_soon(at(10), || 500);
        assert!(p.is_written(AOR));
        assert_eq!(p.poll(at(10)), []);
        let renewal = p.poll(at(11)).pop().unwrap();
        assert_eq!((renewal.renews.as_ref(), renewal.sequence), (Some(&entry(AOR)), first.sequence));
    }

    #[test]
    fn what_has_changed_is_signed_anew() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).pop().unwrap();
        p.done(at(0), &first, Some(entry(AOR)), None);
        p.rewrite(at(1));
        let second = p.poll(at(1)).pop().unwrap();
        assert_eq!((second.renews.as_ref(), second.sequence), (None, first.sequence + 1));
        // It changes while it is on its way: what was written does not say what is wanted any more.
        p.rewrite(at(2));
        assert_eq!(p.poll(at(2)), []);
        p.done(at(3), &second, Some(entry(AOR)), None);
        let third = p.poll(at(3)).pop().unwrap();
        assert_eq!((third.renews.as_ref(), third.sequence), (None, second.sequence + 1));
        p.done(at(3), &third, Some(entry(AOR)), None);
        assert_eq!(p.next(), Some(at(303)));
        // The same when the renewal is on its way.
        let renewal = p.poll(at(303)).pop().unwrap();
        assert!(renewal.renews.is_some());
        p.renew(at(304), AOR);
        p.done(at(305), &renewal, Some(entry(AOR)), None);
        assert!(p.poll(at(305)).pop().is_some_and(|w| w.renews.is_none() && w.sequence == third.sequence + 1));
    }

    #[test]
    fn written_anew_each_time_where_nobody_remembers() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let first = p.poll(at(0)).pop().unwrap();
        p.done_anew(at(0), &first, true, None);
        let second = p.poll(at(300)).pop().unwrap();
        assert_eq!((second.renews.as_ref(), second.sequence), (None, first.sequence + 1));
    }

    #[test]
    fn renewals_go_together() {
        let mut p = Publisher::new(Duration::from_secs(600));
        let aors: Vec<String> = (0..20).map(|i| format!("sip:u{i}@x")).collect();
        for (i, aor) in aors.iter().enumerate() {
            let now = at(i as u64 * 3);
            p.want(now, UNIX, aor, true);
            let write = p.poll(now).pop().unwrap();
            p.done(now, &write, Some(entry(aor)), None);
        }
        let together = p.poll(p.next().unwrap());
        assert!(together.len() == 20 && together.iter().all(|w| w.renews.is_some()), "{}", together.len());
    }

    #[test]
    fn jumps_past_a_later_entry_and_backs_off() {
        let mut p = Publisher::new(Duration::from_secs(600));
        p.want(at(0), UNIX, AOR, true);
        let write = p.poll(at(0)).pop().unwrap();
        p.done(at(0), &write, None, Some(write.sequence + 50));
        let again = p.poll(at(0)).pop().unwrap();
        assert_eq!(again.sequence, write.sequence + 51);
        p.done(at(0), &again, None, None);
        assert_eq!(p.poll(at(0)), []);
        assert_eq!(p.next(), Some(at(0) + RETRY_MIN));
    }
}
