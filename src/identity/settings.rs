//! What a user keeps for all own devices: contacts and settings, sealed to the user's key in entries of kind 12.
//!
//! Body: `nonce (24) | XChaCha20-Poly1305` under a key derived from the user's seed, over `[1, [[key, stamp, writer (8), value or null]...]]`
//! in the order of the keys, its length in front and padded to whole 256 bytes. Additional data: the AOR of the resource.
//!
//! Keys are dealt to eight parts by their BLAKE3; part *n* lies at `sip:USER+settings-n@OVERLAY`, so that a change writes one
//! part, and many devices' copies do not crowd one resource. A part is a map that merges key by key: the later stamp wins
//! (milliseconds since 1970, and above what was there), of equal ones the device with the higher fingerprint. What was
//! removed stays as a null for 400 days.

use super::cbor::{Reader, Writer, canonical};
use super::{EntryKind, IdentityError, KeyPair};
use crate::core::{Redacted, Rng, UnixTime};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Entries of sealed settings.
pub const SETTINGS: EntryKind = EntryKind::Other(12);
/// Parts that the keys are dealt to.
pub const SETTINGS_PARTS: usize = 8;
/// Most bytes of one part, sealed: with chain and signature an entry stays below a record's limit.
pub const MAX_PART: usize = 5 * 1024;
/// Longest key and longest value, bytes.
pub const MAX_SETTING: usize = 512;

const WHAT: &str = "settings";
const NONCE: usize = 24;
const TAG: usize = 16;
const BLOCK: usize = 256;
const MAX_ITEMS: u64 = 1024;
/// How long a removal is remembered, in milliseconds.
const REMEMBERED: u64 = 400 * 24 * 3600 * 1000;
/// A stamp further ahead of the reader's clock than this comes from a wrong clock and loses against every other.
const AHEAD: u64 = 24 * 3600 * 1000;

/// Where part `part` of a user's settings lies.
pub fn settings_aor(user: &str, overlay: &str, part: usize) -> String {
    format!("sip:{user}+settings-{part}@{overlay}")
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    stamp: u64,
    writer: [u8; 8],
    value: Option<Redacted<String>>,
}

impl Item {
    fn order(&self) -> (u64, [u8; 8], Option<&str>) {
        (self.stamp, self.writer, self.value.as_ref().map(|v| v.reveal().as_str()))
    }
}

/// All of a user's settings, as one device knows them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    items: BTreeMap<String, Item>,
}

impl Settings {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items.get(key)?.value.as_ref().map(|v| v.reveal().as_str())
    }

    /// Keys that begin with `prefix`, without it, and their values.
    pub fn under<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, &'s str)> {
        self.items
            .range(prefix.to_owned()..)
            .map_while(move |(key, item)| Some((key.strip_prefix(prefix)?, item)))
            .filter_map(|(key, item)| Some((key, item.value.as_ref()?.reveal().as_str())))
    }

    /// Sets or, with none, removes. The part that has to be written; `TooLarge` when it would not fit, and then nothing changes.
    pub fn set(
        &mut self,
        key: &str,
        value: Option<&str>,
        writer: [u8; 8],
        now: UnixTime,
    ) -> Result<usize, IdentityError> {
        if key.len() > MAX_SETTING || value.is_some_and(|v| v.len() > MAX_SETTING) {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let (part, now) = (part_of(key), now.secs() * 1000);
        self.items.retain(|_, item| item.value.is_some() || item.stamp + REMEMBERED > now);
        let before = self.items.get(key).cloned();
        let stamp = before.as_ref().map_or(now, |b| now.max(b.stamp + 1));
        let value = value.map(|v| Redacted::new(v.to_owned()));
        self.items.insert(key.to_owned(), Item { stamp, writer, value });
        if self.plain(part).len() + NONCE + TAG > MAX_PART {
            match before {
                Some(before) => self.items.insert(key.to_owned(), before),
                None => self.items.remove(key),
            };
            return Err(IdentityError::TooLarge(WHAT));
        }
        Ok(part)
    }

    /// Takes what another device wrote into `part`. True when something is new here.
    pub fn merge(&mut self, part: usize, other: &Settings, now: UnixTime) -> bool {
        let mut news = false;
        let latest = now.secs() * 1000 + AHEAD;
        let sane = |stamp: u64| if stamp > latest { 0 } else { stamp };
        for (key, item) in other.items.iter().filter(|(key, _)| part_of(key) == part) {
            let item = Item { stamp: sane(item.stamp), ..item.clone() };
            let own = self.items.get(key).map(|own| Item { stamp: sane(own.stamp), ..own.clone() });
            let wins = own.is_none_or(|own| own.order() < item.order());
            let kept = if wins { self.items.insert(key.clone(), item) } else { None };
            if wins && self.plain(part).len() + NONCE + TAG > MAX_PART {
                // Two devices each added what fits alone; together it does not. The later comer stays out here.
                match kept {
                    Some(kept) => self.items.insert(key.clone(), kept),
                    None => self.items.remove(key),
                };
                continue;
            }
            news |= wins;
        }
        news
    }

    /// True when `other` lacks something that is known here in `part`.
    pub fn is_ahead_of(&self, other: &Settings, part: usize) -> bool {
        let mine = self.items.iter().filter(|(key, _)| part_of(key) == part);
        mine.into_iter().any(|(key, item)| other.items.get(key).is_none_or(|o| o.order() < item.order()))
    }

    /// True when nothing was ever set in `part`.
    pub fn is_empty_in(&self, part: usize) -> bool {
        !self.items.keys().any(|key| part_of(key) == part)
    }

    /// One part, sealed for all devices that hold the user's key.
    pub fn seal(&self, part: usize, aor: &str, key: &KeyPair, rng: &mut Rng) -> Result<Vec<u8>, IdentityError> {
        let mut nonce = [0; NONCE];
        rng.fill(&mut nonce);
        let plain = self.plain(part);
        let cipher = XChaCha20Poly1305::new(&(*settings_key(key)).into());
        let payload = Payload { msg: &plain, aad: aor.as_bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| IdentityError::TooLarge(WHAT))?;
        let mut out = nonce.to_vec();
        out.extend(sealed);
        Ok(out)
    }

    /// Opens a part; `None` when it is not sealed to this key for this place.
    pub fn open(sealed: &[u8], aor: &str, key: &KeyPair) -> Option<Settings> {
        if sealed.len() > MAX_PART {
            return None;
        }
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let cipher = XChaCha20Poly1305::new(&(*settings_key(key)).into());
        let payload = Payload { msg: sealed, aad: aor.as_bytes() };
        let plain = Zeroizing::new(cipher.decrypt(&XNonce::from(*nonce), payload).ok()?);
        let (length, rest) = plain.split_first_chunk::<2>()?;
        Settings::from_bytes(rest.get(..usize::from(u16::from_be_bytes(*length)))?).ok()
    }

    /// The device's own copy of everything, in clear: `[1, [item...]]`.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        encode(self.items.iter())
    }

    /// Reads [`Settings::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Settings, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(2)?;
        reader.version(1)?;
        let mut settings = Settings::default();
        for _ in 0..reader.list(MAX_ITEMS * SETTINGS_PARTS as u64)? {
            reader.array(4)?;
            let (key, stamp, writer) = (reader.text()?.to_owned(), reader.uint()?, reader.exact()?);
            let value = if reader.is_null() { None } else { Some(Redacted::new(reader.text()?.to_owned())) };
            if key.len() > MAX_SETTING || value.as_ref().is_some_and(|v| v.reveal().len() > MAX_SETTING) {
                return Err(IdentityError::TooLarge(WHAT));
            }
            // Room for a stamp above it.
            let stamp = stamp.min(u64::MAX / 2);
            settings.items.insert(key, Item { stamp, writer, value });
        }
        canonical(bytes, &settings.to_bytes(), WHAT)?;
        Ok(settings)
    }

    fn plain(&self, part: usize) -> Zeroizing<Vec<u8>> {
        let inner = encode(self.items.iter().filter(|(key, _)| part_of(key) == part));
        // A length that does not fit is one of a part that is never sealed: `set` and `merge` keep it below.
        let length = u16::try_from(inner.len()).unwrap_or(u16::MAX);
        let mut plain = Zeroizing::new(length.to_be_bytes().to_vec());
        plain.extend_from_slice(&inner);
        let padded = plain.len().next_multiple_of(BLOCK);
        plain.resize(padded, 0);
        plain
    }
}

fn encode<'i>(items: impl Iterator<Item = (&'i String, &'i Item)>) -> Zeroizing<Vec<u8>> {
    let items: Vec<_> = items.collect();
    let mut writer = Writer::array(2);
    writer.uint(1).nested(items.len());
    for (key, item) in items {
        writer.nested(4).text(key).uint(item.stamp).bytes(&item.writer);
        match &item.value {
            Some(value) => writer.text(value.reveal()),
            None => writer.null(),
        };
    }
    Zeroizing::new(writer.finish())
}

fn part_of(key: &str) -> usize {
    usize::from(blake3::hash(key.as_bytes()).as_bytes()[0]) % SETTINGS_PARTS
}

fn settings_key(key: &KeyPair) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key("chordial settings v1", &**key.seed().reveal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const ONE: [u8; 8] = [1; 8];
    const TWO: [u8; 8] = [2; 8];

    fn at(s: u64) -> UnixTime {
        UnixTime(NOW.secs() + s)
    }

    fn merged(into: &mut Settings, from: &Settings) -> bool {
        let news: Vec<bool> = (0..SETTINGS_PARTS).map(|part| into.merge(part, from, at(100))).collect();
        news.contains(&true)
    }

    #[test]
    fn sealed_to_the_users_key_and_to_its_place() {
        let rng = &mut Rng::from_seed(1);
        let (key, other) = (KeyPair::generate(rng), KeyPair::generate(rng));
        let mut settings = Settings::default();
        let part = settings.set("contact/Ben", Some("sip:ben@office"), ONE, NOW).expect("fits");
        let aor = settings_aor("anna", "office", part);
        let sealed = settings.seal(part, &aor, &key, rng).expect("fits");
        assert_eq!(Settings::open(&sealed, &aor, &key), Some(settings.clone()));
        assert_eq!(Settings::open(&sealed, &aor, &other), None);
        assert_eq!(Settings::open(&sealed, &settings_aor("anna", "office", part + 1), &key), None);
        for n in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[n] ^= 1;
            assert_eq!(Settings::open(&bad, &aor, &key), None, "{n}");
        }
        let shown = format!("{settings:?}");
        assert!(!shown.contains("ben@office"), "{shown}");
        // A longer list of the same padded size shows nothing of itself.
        let alone = sealed.len();
        settings.set("contact/Ben", Some("sip:benjamin@office"), ONE, NOW).expect("fits");
        assert_eq!(settings.seal(part, &aor, &key, rng).expect("fits").len(), alone);
    }

    #[test]
    fn two_devices_agree_in_whatever_order_they_hear() {
        let (mut one, mut two) = (Settings::default(), Settings::default());
        one.set("a", Some("1"), ONE, at(1)).expect("fits");
        one.set("b", Some("1"), ONE, at(1)).expect("fits");
        two.set("b", Some("2"), TWO, at(1)).expect("fits");
        two.set("c", Some("2"), TWO, at(2)).expect("fits");
        let (mut left, mut right) = (one.clone(), two.clone());
        assert!(merged(&mut left, &two) && merged(&mut right, &one));
        assert_eq!(left, right);
        assert_eq!(
            (left.get("a"), left.get("b"), left.get("c")),
            (Some("1"), Some("2"), Some("2")),
            "ties: the higher device"
        );
        assert!(!merged(&mut left, &right));
        // A removal is a change like any other, and is not undone by an older copy.
        left.set("a", None, TWO, at(3)).expect("fits");
        assert!(!merged(&mut left, &one) && left.get("a").is_none());
        assert!(merged(&mut right, &left) && right.get("a").is_none());
        assert_eq!(left.under("").map(|(k, _)| k).collect::<Vec<_>>(), ["b", "c"]);
        // A device whose clock is behind still has its say.
        left.set("c", Some("3"), ONE, at(0)).expect("fits");
        assert!(merged(&mut right, &left) && right.get("c") == Some("3"));
    }

    #[test]
    fn a_clock_far_ahead_does_not_win_for_ever() {
        let (mut wrong, mut right) = (Settings::default(), Settings::default());
        wrong.set("a", Some("from 2099"), ONE, UnixTime(4_070_908_800)).expect("fits");
        merged(&mut right, &wrong);
        right.set("a", Some("now"), TWO, at(100)).expect("fits");
        assert_eq!(right.get("a"), Some("now"));
        // Not on the next day either; and the other one agrees once its clock is right.
        let tomorrow = at(2 * 24 * 3600);
        assert!(!(0..SETTINGS_PARTS).any(|part| right.merge(part, &wrong, tomorrow)));
        for part in 0..SETTINGS_PARTS {
            wrong.merge(part, &right, tomorrow);
        }
        assert_eq!(wrong.get("a"), Some("now"));
    }

    #[test]
    fn bounded_and_said_so() {
        let mut settings = Settings::default();
        assert!(settings.set("k", Some(&"v".repeat(513)), ONE, NOW).is_err());
        assert!(settings.set(&"k".repeat(513), Some("v"), ONE, NOW).is_err());
        let fitted = (0..5000)
            .filter(|n| settings.set(&format!("contact/{n}"), Some("sip:somebody@office.example"), ONE, NOW).is_ok());
        let fitted = fitted.count();
        assert!((300..1000).contains(&fitted), "{fitted}");
        let rng = &mut Rng::from_seed(2);
        let key = KeyPair::generate(rng);
        for part in 0..SETTINGS_PARTS {
            assert!(settings.seal(part, "x", &key, rng).expect("fits").len() <= MAX_PART);
        }
        assert_eq!(settings.under("contact/").count(), fitted);
        // What another device adds to a full part stays out, and nothing is lost for it.
        let mut other = Settings::default();
        for n in 0..400 {
            let _ = other.set(&format!("x/{n}"), Some(&"v".repeat(200)), TWO, at(9));
        }
        merged(&mut settings, &other);
        assert_eq!(settings.under("contact/").count(), fitted);
        for part in 0..SETTINGS_PARTS {
            assert!(settings.seal(part, "x", &key, rng).expect("fits").len() <= MAX_PART);
        }
    }

    #[test]
    fn damaged_files() {
        let mut settings = Settings::default();
        settings.set("contact/Ben", Some("sip:ben@office"), ONE, NOW).expect("fits");
        settings.set("contact/Cora", None, ONE, NOW).expect("fits");
        let good = settings.to_bytes();
        assert_eq!(Settings::from_bytes(&good), Ok(settings));
        let rng = &mut Rng::from_seed(3);
        for _ in 0..20_000 {
            let bytes = super::super::mutation_tests::damage(&good, rng);
            assert!(Settings::from_bytes(&bytes).map_or(true, |s| *s.to_bytes() == bytes));
        }
    }
}
