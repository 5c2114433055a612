//! Whose key is meant by a name that any key may claim.
//!
//! In an open overlay a name belongs to nobody: several keys may sign records under one address. Who has been met is known by
//! the key of that time (*pinned*), and so is a contact; with anybody else there is nothing to go by but the key itself. So
//! the pinned key is taken where it is among those that claim the name; another one in its place is a change that the user
//! has to decide about; and of several unknown ones the user names one, by its fingerprint.
//!
//! A new device of somebody known is no change: the user's key signs it. Left out: a new user key signed by the old one. Whoever still
//! has the old one needs no new one, and with a stolen one it would be the thief who signs.

use super::{Acquaintances, KeyFingerprint};
use std::collections::BTreeSet;
use std::fmt;

/// Fewest digits that name a key: those of the short fingerprint.
const SHORT: usize = 8;
/// All digits.
const FULL: usize = 32;

/// A key as people write it: the first 8 to 32 hexadecimal digits of its fingerprint, with dashes anywhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyHint(String);

impl KeyHint {
    /// Reads `1a2b-3c4d`, `1a2b3c4d`, or more digits, in any case; none for anything else.
    pub fn parse(text: &str) -> Option<KeyHint> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let fits = (SHORT..=FULL).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
        fits.then(|| KeyHint(digits.to_ascii_lowercase()))
    }

    /// The hint that leaves no doubt.
    pub fn exact(key: &KeyFingerprint) -> KeyHint {
        KeyHint(digits(key))
    }

    /// True when it may mean this key.
    pub fn fits(&self, key: &KeyFingerprint) -> bool {
        digits(key).starts_with(&self.0)
    }
}

impl fmt::Display for KeyHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, digit) in self.0.chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

fn digits(key: &KeyFingerprint) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a key is written so that no other of `among` is meant: short, or in full where another begins alike. Eight digits can be
/// imitated by somebody with time to spare, 32 cannot.
pub fn told_apart(key: &KeyFingerprint, among: &BTreeSet<KeyFingerprint>) -> String {
    let alike = among.iter().filter(|other| other.to_string() == key.to_string()).count();
    if alike > 1 { KeyHint::exact(key).to_string() } else { key.to_string() }
}

/// Whose record counts for a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Nobody claims it.
    Nobody,
    /// This key's.
    Key(KeyFingerprint),
    /// Several claim it, and none of them is known.
    Several(BTreeSet<KeyFingerprint>),
    /// It is known by a key which is not among those that claim it.
    Changed {
        /// The key that is known.
        known: KeyFingerprint,
        /// Those that claim it now.
        claims: BTreeSet<KeyFingerprint>,
    },
    /// The key that was named is none of those that claim it, or could be several of them.
    Unclear(BTreeSet<KeyFingerprint>),
}

/// Chooses among the keys that claim a name: the named one, else the one that is `known`, else the only one.
pub fn choose(claims: &BTreeSet<KeyFingerprint>, named: Option<&KeyHint>, known: Option<KeyFingerprint>) -> Choice {
    if claims.is_empty() {
        return Choice::Nobody;
    }
    if let Some(hint) = named {
        let mut meant = claims.iter().filter(|key| hint.fits(key));
        return match (meant.next(), meant.next()) {
            (Some(key), None) => Choice::Key(*key),
            _ => Choice::Unclear(claims.clone()),
        };
    }
    match (known, claims.first()) {
        (Some(known), _) if claims.contains(&known) => Choice::Key(known),
        (Some(known), _) => Choice::Changed { known, claims: claims.clone() },
        (None, Some(only)) if claims.len() == 1 => Choice::Key(*only),
        (None, _) => Choice::Several(claims.clone()),
    }
}

impl Acquaintances {
    /// Chooses among the keys that claim an AOR of an open overlay. A blocked key claims nothing, unless it is named.
    pub fn choose(&self, aor: &str, claims: &BTreeSet<KeyFingerprint>, named: Option<&KeyHint>) -> Choice {
        if named.is_some() {
            return choose(claims, named, None);
        }
        let open: BTreeSet<_> = claims.iter().filter(|key| !self.is_blocked_key(key)).copied().collect();
        choose(&open, None, self.person(aor).map(|who| who.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Block, Known, Root};

    fn key(n: u8) -> KeyFingerprint {
        KeyFingerprint([n; 16])
    }

    fn keys(all: &[u8]) -> BTreeSet<KeyFingerprint> {
        all.iter().map(|n| key(*n)).collect()
    }

    #[test]
    fn a_hint_is_read_as_it_is_written() {
        let key = KeyFingerprint([0x3f, 0x2a, 0x9c, 0x11, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
        for text in ["3f2a-9c11", "3F2A9C11", "3f2a9c1105", &KeyHint::exact(&key).to_string()] {
            assert!(KeyHint::parse(text).is_some_and(|hint| hint.fits(&key)), "{text}");
        }
        assert!(!KeyHint::parse("3f2a-9c12").unwrap().fits(&key));
        for text in ["", "3f2a-9c1", "3f2a_9c11", "3f2a-9c1g", &"0".repeat(33), "anna", "3f2a-9c1\u{e9}"] {
            assert_eq!(KeyHint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn keys_that_look_alike_are_written_in_full() {
        let mut twin = key(7);
        twin.0[15] = 8;
        let both = BTreeSet::from([key(7), twin, key(9)]);
        assert_eq!(told_apart(&key(9), &both), "0909-0909");
        assert_ne!(told_apart(&key(7), &both), told_apart(&twin, &both));
        let hint = KeyHint::parse(&told_apart(&twin, &both)).unwrap();
        assert_eq!(choose(&both, Some(&hint), None), Choice::Key(twin));
        let short = KeyHint::parse("0707-0707").unwrap();
        assert_eq!(choose(&both, Some(&short), None), Choice::Unclear(both.clone()));
    }

    #[test]
    fn who_is_meant() {
        let named = KeyHint::exact(&key(2));
        assert_eq!(choose(&keys(&[]), Some(&named), Some(key(1))), Choice::Nobody);
        assert_eq!(choose(&keys(&[1]), None, None), Choice::Key(key(1)));
        assert_eq!(choose(&keys(&[1, 2]), None, None), Choice::Several(keys(&[1, 2])));
        assert_eq!(choose(&keys(&[1, 2]), None, Some(key(1))), Choice::Key(key(1)));
        assert_eq!(choose(&keys(&[2]), None, Some(key(1))), Choice::Changed { known: key(1), claims: keys(&[2]) });
        // What the user names goes before what is known.
        assert_eq!(choose(&keys(&[1, 2]), Some(&named), Some(key(1))), Choice::Key(key(2)));
        assert_eq!(choose(&keys(&[1]), Some(&named), None), Choice::Unclear(keys(&[1])));
    }

    #[test]
    fn a_blocked_key_is_no_claim() {
        let mut all = Acquaintances::default();
        all.block(Block::Key(key(2))).unwrap();
        assert_eq!(all.choose("sip:anna@family", &keys(&[1, 2]), None), Choice::Key(key(1)));
        assert_eq!(all.choose("sip:anna@family", &keys(&[2]), None), Choice::Nobody);
        let named = KeyHint::exact(&key(2));
        assert_eq!(all.choose("sip:anna@family", &keys(&[1, 2]), Some(&named)), Choice::Key(key(2)));
        all.remember(&Known { aor: "sip:anna@family".into(), root: Root::Open, key: key(2) });
        let changed = Choice::Changed { known: key(2), claims: keys(&[1]) };
        assert_eq!(all.choose("sip:anna@family", &keys(&[1, 2]), None), changed);
    }
}
