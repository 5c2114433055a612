//! How often a password may be tried: counted where it is asked, for each user, for each user and source, and (at the
//! supernode that a stranger dials) for each source.
//!
//! A right answer looks like a wrong one here, so every attempt counts. After a few free ones each has to wait, twice as long
//! as the one before, up to a ceiling: nobody is locked out for ever, and an attempt that comes too early changes nothing, so
//! that hammering does not prolong the wait of the one who knows the password. A count is forgotten after a day of silence.

use super::super::IdentityError;
use super::super::cbor::{Reader, Writer, canonical};
use crate::core::{Id, UnixTime, subscriber};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Most counts of each sort that are kept; those that weigh least give way.
pub const MAX_TRACKED: usize = 4096;

const WHAT: &str = "attempts file";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a sort of count allows.
#[derive(Clone, Copy)]
struct Rule {
    /// Attempts that need not wait.
    free: u32,
    /// The wait after these, seconds; doubles with each further attempt.
    base: u64,
    /// The longest wait, seconds.
    ceiling: u64,
}

/// One user, whoever asks: half a minute at most, so that many sources together get 2,880 guesses a day at one name and the
/// owner, on a new network, a turn between them.
const USER: Rule = Rule { free: 60, base: 1, ceiling: 30 };
/// One user from one source: about 35 guesses on the first day, 24 a day from then on.
const SOURCE: Rule = Rule { free: 5, base: 10, ceiling: 3600 };
/// One source at the supernode that it dials, whatever names it tries.
const FRONT: Rule = Rule { free: 20, base: 2, ceiling: 600 };

type Key = [u8; 16];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Count {
    tried: u32,
    last: UnixTime,
}

/// The counts of one supernode.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attempts {
    users: BTreeMap<Key, Count>,
    sources: BTreeMap<Key, Count>,
    front: BTreeMap<Key, Count>,
    refused: u64,
}

impl Attempts {
    /// A stranger from `source` asks this supernode. `Err`: how long it has to wait.
    pub fn at_front(&mut self, source: IpAddr, now: UnixTime) -> Result<(), Duration> {
        let key = key(&[b"front", subscriber(source).to_string().as_bytes()]);
        let wait = Self::wait(&self.front, &key, FRONT, now);
        self.refused += u64::from(wait.is_some());
        wait.map_or(Ok(()), Err)?;
        Self::count(&mut self.front, key, now);
        Ok(())
    }

    /// The supernode `asker` says that somebody at `source` tries a password of `user`, known or not: who lies about the source
    /// shares no count with others, and is bounded by the user's. `Err`: how long it has to wait.
    pub fn at_holder(&mut self, user: &str, asker: &Id, source: &[u8], now: UnixTime) -> Result<(), Duration> {
        let whom = key(&[b"user", user.as_bytes()]);
        let from = key(&[b"source", user.as_bytes(), &asker.0, source]);
        let waits = [Self::wait(&self.users, &whom, USER, now), Self::wait(&self.sources, &from, SOURCE, now)];
        let wait = waits.into_iter().flatten().max();
        self.refused += u64::from(wait.is_some());
        wait.map_or(Ok(()), Err)?;
        Self::count(&mut self.users, whom, now);
        Self::count(&mut self.sources, from, now);
        Ok(())
    }

    /// Attempts that came too early, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Most counts that any sort has now.
    pub fn tracked(&self) -> usize {
        self.users.len().max(self.sources.len()).max(self.front.len())
    }

    /// The file: `[1, [[key, tried, last]...] of users, of users and sources, of sources]`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1);
        for counts in [&self.users, &self.sources, &self.front] {
            writer.nested(counts.len());
            for (key, count) in counts {
                writer.nested(3).bytes(key).uint(count.tried.into()).uint(count.last.secs());
            }
        }
        writer.finish()
    }

    /// Reads the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Attempts, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(4)?;
        reader.version(1)?;
        let mut read = || -> Result<BTreeMap<Key, Count>, IdentityError> {
            let mut counts = BTreeMap::new();
            for _ in 0..reader.list(MAX_TRACKED as u64)? {
                reader.array(3)?;
                let key = reader.exact()?;
                let tried = u32::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?;
                counts.insert(key, Count { tried, last: UnixTime(reader.uint()?) });
            }
            Ok(counts)
        };
        let attempts = Attempts { users: read()?, sources: read()?, front: read()?, refused: 0 };
        canonical(bytes, &attempts.to_bytes(), WHAT)?;
        Ok(attempts)
    }

    fn wait(counts: &BTreeMap<Key, Count>, key: &Key, rule: Rule, now: UnixTime) -> Option<Duration> {
        let count = counts.get(key).filter(|c| now < c.last + DAY)?;
        let over = count.tried.checked_sub(rule.free)?;
        let wait = rule.base.saturating_mul(1u64.checked_shl(over.min(32)).unwrap_or(u64::MAX)).min(rule.ceiling);
        // A clock that was set back does not make anybody wait longer than the rule says.
        let since = now.secs().saturating_sub(count.last.secs());
        (since < wait).then(|| Duration::from_secs(wait - since))
    }

    fn count(counts: &mut BTreeMap<Key, Count>, key: Key, now: UnixTime) {
        if !counts.contains_key(&key) && counts.len() >= MAX_TRACKED {
            counts.retain(|_, c| now < c.last + DAY);
            if counts.len() >= MAX_TRACKED {
                let least = counts.iter().min_by_key(|(_, c)| (c.tried, c.last)).map(|(key, _)| *key);
                least.and_then(|key| counts.remove(&key));
            }
        }
        let count = counts.entry(key).or_insert(Count { tried: 0, last: now });
        let tried = if now < count.last + DAY { count.tried.saturating_add(1) } else { 1 };
        *count = Count { tried, last: now };
    }
}

/// Names and addresses are kept as hashes: the file need not tell who was tried from where.
fn key(parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("chordial login attempt v1");
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    /// Tries every second for `seconds`; how many were let through.
    fn hammer(attempts: &mut Attempts, user: &str, source: &[u8], from: UnixTime, seconds: u64) -> u64 {
        let asker = Id::from_u64(1);
        let good = |s: &u64| attempts.at_holder(user, &asker, source, from + Duration::from_secs(*s)).is_ok();
        (0..seconds).filter(good).count() as u64
    }

    #[test]
    fn one_source_slows_down_to_one_an_hour_and_never_to_nothing() {
        let mut attempts = Attempts::default();
        let day = hammer(&mut attempts, "bob", b"here", NOW, 86_400);
        assert!((20..=40).contains(&day), "{day}");
        let hour = hammer(&mut attempts, "bob", b"here", NOW + DAY, 3600);
        assert_eq!(hour, 1);
        // Another network is not held up by that.
        assert_eq!(attempts.at_holder("bob", &Id::from_u64(1), b"there", NOW + DAY), Ok(()));
    }

    #[test]
    fn many_sources_share_the_users_count_and_the_owner_gets_a_turn() {
        let mut attempts = Attempts::default();
        let asker = Id::from_u64(1);
        let through = (0..86_400u64).filter(|s| {
            let source = s.to_be_bytes();
            attempts.at_holder("bob", &asker, &source, NOW + Duration::from_secs(*s)).is_ok()
        });
        let through = through.count();
        assert!((2_000..=3_000).contains(&through), "{through}");
        let later = NOW + DAY;
        // Somebody takes the next turn; the owner has the one after it.
        let taken = match attempts.at_holder("bob", &asker, b"another", later) {
            Ok(()) => later,
            Err(wait) => {
                assert_eq!(attempts.at_holder("bob", &asker, b"another", later + wait), Ok(()));
                later + wait
            }
        };
        assert!(taken <= later + Duration::from_secs(30), "{taken:?}");
        let wait = attempts.at_holder("bob", &asker, b"owner", taken).expect_err("must wait");
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(attempts.at_holder("bob", &asker, b"owner", taken + wait), Ok(()));
        assert_eq!(attempts.at_holder("carol", &asker, b"owner", later), Ok(()), "another name is another count");
    }

    #[test]
    fn counts_survive_a_restart_and_are_bounded() {
        let mut attempts = Attempts::default();
        for n in 0..30u64 {
            let _ = attempts.at_front(ip(1), NOW + Duration::from_secs(n));
        }
        let read = Attempts::from_bytes(&attempts.to_bytes()).expect("own file");
        let mut read_again = read.clone();
        assert_eq!(read_again.at_front(ip(1), NOW + Duration::from_secs(30)).is_err(), {
            attempts.at_front(ip(1), NOW + Duration::from_secs(30)).is_err()
        });
        assert!(read_again.at_front(ip(1), NOW + Duration::from_secs(30)).is_err());
        for n in 0..MAX_TRACKED as u32 + 100 {
            let _ = attempts.at_front(ip(n), NOW);
            let _ = attempts.at_holder(&format!("u{n}"), &Id::from_u64(1), &n.to_be_bytes(), NOW);
        }
        assert!(attempts.tracked() <= MAX_TRACKED);
        // Who tried most is not pushed out by many who tried once.
        assert!(attempts.at_front(ip(1), NOW + Duration::from_secs(31)).is_err());
    }
}
