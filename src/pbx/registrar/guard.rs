//! Against guessing passwords: who has failed often is not listened to for a while, longer each time.
//!
//! What is held back gets the answer that a wrong password gets, without being checked: a guess then tells nothing, not even that it
//! was not looked at. Counted for each source (an IPv4 address or an IPv6 /64) and, with more patience and shorter waits, for each
//! user, since many sources may guess at one. A source from which a user has proven itself lately is not held back for that
//! user: a phone goes on beside a neighbour that guesses, and nobody is locked out of a phone that works.

use crate::core::{Instant, subscriber};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Failures without consequence, of one source and of one user: a mistyped password, a phone that tries both algorithms.
const FREE: [u32; 2] = [5, 20];
/// The longest wait of a source and of a user.
const LONGEST: [Duration; 2] = [Duration::from_secs(900), Duration::from_secs(60)];
/// Without a further failure for so long, all is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// How long a proof counts, and the failures of its user that it outweighs.
const PROOF: (Duration, u32) = (Duration::from_secs(24 * 3600), 200);
/// Most sources, users and proofs remembered.
const REMEMBERED: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

/// Counts failures and says who waits.
#[derive(Debug, Default)]
pub(super) struct Guard {
    sources: BTreeMap<IpAddr, Failures>,
    users: BTreeMap<String, Failures>,
    proven: BTreeMap<(String, IpAddr), Instant>,
}

impl Guard {
    /// True when credentials of `user` from there are not looked at now. A source that is not known is not counted.
    pub fn holds(&self, now: Instant, user: &str, source: Option<IpAddr>) -> bool {
        let source = source.map(subscriber);
        let waits = |failures: Option<&Failures>| failures.is_some_and(|f| f.until > now);
        let of_user = self.users.get(user);
        if !waits(of_user) && !waits(source.and_then(|source| self.sources.get(&source))) {
            return false;
        }
        let proven = source.and_then(|source| self.proven.get(&(user.to_owned(), source)));
        let trusted = proven.is_some_and(|at| now.since(*at) < PROOF.0);
        !trusted || of_user.is_some_and(|f| f.count > PROOF.1)
    }

    /// Wrong credentials were looked at; how many of that source there were, lately.
    pub fn failed(&mut self, now: Instant, user: &str, source: Option<IpAddr>) -> u32 {
        count(&mut self.users, user.to_owned(), now, 1);
        source.map_or(0, |source| count(&mut self.sources, subscriber(source), now, 0))
    }

    /// Right ones were.
    pub fn passed(&mut self, now: Instant, user: &str, source: Option<IpAddr>) {
        let Some(source) = source else { return };
        let key = (user.to_owned(), subscriber(source));
        if self.proven.len() >= REMEMBERED && !self.proven.contains_key(&key) {
            let oldest = self.proven.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.proven.remove(&key));
        }
        self.proven.insert(key, now);
    }
}

/// One more failure of `key`.
fn count<K: Ord + Clone>(all: &mut BTreeMap<K, Failures>, key: K, now: Instant, which: usize) -> u32 {
    if all.len() >= REMEMBERED && !all.contains_key(&key) {
        all.retain(|_, f| now.since(f.last) < FORGOTTEN);
        // Still full: who has failed least is worth least.
        if all.len() >= REMEMBERED {
            let least = all.iter().min_by_key(|(_, f)| (f.count, f.last)).map(|(key, _)| key.clone());
            least.and_then(|key| all.remove(&key));
        }
    }
    let failures = all.entry(key).or_insert(Failures { count: 0, last: now, until: now });
    if now.since(failures.last) >= FORGOTTEN {
        failures.count = 0;
    }
    failures.count = failures.count.saturating_add(1);
    failures.last = now;
    if let Some(more) = failures.count.checked_sub(FREE[which] + 1) {
        failures.until = now + Duration::from_secs(1 << more.min(16)).min(LONGEST[which]);
    }
    failures.count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000)
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    /// Guesses as often as it is listened to, once a second; how often that was.
    fn guesses(
        guard: &mut Guard,
        seconds: std::ops::Range<u64>,
        user: impl Fn(u64) -> String,
        source: impl Fn(u64) -> Option<IpAddr>,
    ) -> usize {
        seconds
            .filter(|s| {
                let heard = !guard.holds(at(*s), &user(*s), source(*s));
                if heard {
                    guard.failed(at(*s), &user(*s), source(*s));
                }
                heard
            })
            .count()
    }

    #[test]
    fn a_source_is_heard_ever_more_rarely() {
        let mut guard = Guard::default();
        let heard = guesses(&mut guard, 0..3600, |s| format!("u{s}"), |_| ip(1));
        // Five, then after 1, 2, 4 .. 512 s, and one each 900 s.
        assert_eq!(heard, 5 + 1 + 10 + 2);
        assert!(!guard.holds(at(3600), "u1", ip(2)), "others are heard");
        assert!(!guard.holds(at(4600), "u1", ip(1)), "in the end it is heard again");
    }

    #[test]
    fn many_sources_guess_at_one_user() {
        let mut guard = Guard::default();
        let heard = guesses(&mut guard, 0..3600, |_| "bob".into(), |s| ip((s % 250) as u8));
        assert!((80..90).contains(&heard), "{heard}");
        assert!(!guard.holds(at(3600), "carol", ip(251)));
    }

    #[test]
    fn a_phone_that_works_goes_on_beside_who_guesses() {
        let mut guard = Guard::default();
        guard.passed(at(0), "bob", ip(1));
        guesses(&mut guard, 1..100, |s| format!("u{s}"), |_| ip(1));
        assert!(guard.holds(at(100), "carol", ip(1)) && !guard.holds(at(100), "bob", ip(1)));
        guesses(&mut guard, 100..1000, |_| "bob".into(), |s| ip((s % 250) as u8));
        assert!(!guard.holds(at(1000), "bob", ip(1)));
        assert!(guard.holds(at(1000), "bob", ip(251)));
        // Proof is no licence to guess without end.
        let heard = guesses(&mut guard, 1000..80_000, |_| "bob".into(), |_| ip(1));
        assert!(heard < 1500, "{heard}");
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut guard = Guard::default();
        for n in 0..20_000u32 {
            let source = Some(IpAddr::from(n.to_be_bytes()));
            guard.failed(at(1), &format!("u{n}"), source);
            guard.passed(at(1), &format!("u{n}"), source);
        }
        assert_eq!([guard.sources.len(), guard.users.len(), guard.proven.len()], [REMEMBERED; 3]);
    }
}
