//! Whom this device knows by key, in other overlays and in an open one of its own: contacts, keys met before, tokens given
//! out, who knocked, who is blocked, and whom contacts have introduced.
//!
//! On disk: `[1, [contact...], [token...], [known...], [knock...], [blocked...]]`, or with 2 in front, `introducer | null` at the end of each
//! contact and `[introduced...]` at the end of all, where anybody was introduced; contact `[name, AOR, root, key, [address...],
//! token | null]`, token `[secret, once, last second]`, known `[AOR, root, key]`, knock `[AOR, root, key, time, times, changed]`,
//! blocked `[AOR, null]`, `[overlay, null]` or `["", key]`, introduced `[AOR, root, key, name, [address...], AOR, root, key, time]`, the
//! second three being the introducer's; a root is `null` (open) or its fingerprint.
//! Every list is bounded; known keys give up the one met longest ago, knocks and introductions the oldest, the others refuse one more.

use super::cbor::{Reader, Writer, canonical};
use super::contact::{read_addrs, write_addrs};
use super::introduced::{Introduced, MAX_INTRODUCTIONS};
use super::{
    CallProof, IdentityError, KeyFingerprint, KeyHint, RingToken, Root, RootFingerprint, Said, canonical_overlay,
    canonical_user, split_aor,
};
use crate::core::UnixTime;
use std::fmt;
use std::net::SocketAddr;
use thiserror::Error;

const WHAT: &str = "file of contacts in other overlays";
/// Most contacts.
pub const MAX_CONTACTS: usize = 4096;
/// Most knocks kept; the oldest gives way.
pub const MAX_KNOCKS: usize = 64;
const MAX_TOKENS: usize = 256;
const MAX_KNOWN: usize = 4096;
const MAX_BLOCKED: usize = 4096;
const MAX_ADDRS: usize = 3;

/// Somebody of another overlay whom the user has taken up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    /// What the user calls them; a user name by its form.
    pub name: String,
    /// Canonical AOR.
    pub aor: String,
    /// Their overlay's root.
    pub root: Root,
    /// Their user key.
    pub key: KeyFingerprint,
    /// Supernodes of their overlay; may be empty.
    pub addrs: Vec<SocketAddr>,
    /// Their word that we may ring, until they know us.
    pub token: Option<RingToken>,
    /// AOR of the contact who introduced them; empty where nobody did.
    pub by: String,
}

/// A key met before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Canonical AOR.
    pub aor: String,
    /// Its overlay's root then.
    pub root: Root,
    /// Its user key then.
    pub key: KeyFingerprint,
}

/// A stranger's call that was refused, or a key that is not the one that was known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Knock {
    /// Who.
    pub who: Known,
    /// The last time.
    pub at: UnixTime,
    /// How often.
    pub times: u32,
    /// Another key was known for this AOR.
    pub changed: bool,
}

/// Who does not ring, whatever else holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Block {
    /// An AOR, with whatever key.
    Aor(String),
    /// Everybody of an overlay of this name.
    Overlay(String),
    /// A user key, under whatever name.
    Key(KeyFingerprint),
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::Aor(aor) => f.write_str(aor),
            Block::Overlay(overlay) => write!(f, "@{overlay}"),
            Block::Key(key) => write!(f, "key {key}"),
        }
    }
}

/// How somebody of another overlay stands with the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Blocked.
    Blocked,
    /// A contact, by the right key.
    Contact,
    /// Met before, by the same key.
    Known,
    /// Another key is known for that AOR.
    Changed,
    /// Never met.
    Stranger,
}

/// Why something is not taken up.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FullError {
    /// The list is full.
    #[error("the list is full")]
    Full,
    /// A name that is no user name.
    #[error("{0}")]
    Name(IdentityError),
    /// The name is another contact's.
    #[error("{0} is already a contact")]
    Taken(String),
    /// The AOR is known by another key.
    #[error("{aor} is known by the key {known}, and this says {said}")]
    OtherKey {
        /// Of whom.
        aor: String,
        /// The key so far.
        known: KeyFingerprint,
        /// The new one.
        said: KeyFingerprint,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Given {
    token: RingToken,
    once: bool,
    until: UnixTime,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acquaintances {
    contacts: Vec<Contact>,
    given: Vec<Given>,
    known: Vec<Known>,
    knocks: Vec<Knock>,
    blocked: Vec<Block>,
    pub(super) introductions: Vec<Introduced>,
}

impl Acquaintances {
    /// Takes a contact up; the same AOR by the same key replaces what was there.
    ///
    /// # Errors
    /// [`FullError`].
    pub fn add(&mut self, mut contact: Contact) -> Result<(), FullError> {
        contact.name = canonical_user(&contact.name).map_err(FullError::Name)?;
        contact.addrs.truncate(MAX_ADDRS);
        if let Some(known) = self.person(&contact.aor).filter(|k| (k.root, k.key) != (contact.root, contact.key)) {
            return Err(FullError::OtherKey { aor: contact.aor, known: known.key, said: contact.key });
        }
        if self.contacts.iter().any(|c| c.name == contact.name && c.aor != contact.aor) {
            return Err(FullError::Taken(contact.name));
        }
        self.contacts.retain(|c| c.aor != contact.aor);
        if self.contacts.len() >= MAX_CONTACTS {
            return Err(FullError::Full);
        }
        self.knocks.retain(|k| k.who.aor != contact.aor);
        self.introductions.retain(|i| i.who.aor != contact.aor);
        self.contacts.push(contact);
        Ok(())
    }

    /// Takes up who is named by AOR alone, without a name of the user's choice: the AOR's user, with a number where taken.
    ///
    /// # Errors
    /// [`FullError`].
    pub fn add_unnamed(&mut self, who: Known) -> Result<String, FullError> {
        let user = split_aor(&who.aor).map_or("contact", |(user, _)| user).to_owned();
        let free = |name: &String| !self.contacts.iter().any(|c| c.name == *name && c.aor != who.aor);
        let numbered = (2..=MAX_CONTACTS + 2).map(|n| format!("{user}{n}"));
        let name = std::iter::once(user.clone()).chain(numbered).find(free).unwrap_or(user);
        let Known { aor, root, key } = who;
        self.add(Contact { name: name.clone(), aor, root, key, addrs: Vec::new(), token: None, by: String::new() })?;
        Ok(name)
    }

    /// Drops a contact (by its name or AOR) and the key that was known of it.
    pub fn forget(&mut self, name: &str) -> Option<String> {
        let aor = match self.contact(name) {
            Some(contact) => contact.aor.clone(),
            None => self.known.iter().find(|k| is_named(&k.aor, name)).map(|k| k.aor.clone())?,
        };
        self.contacts.retain(|c| c.aor != aor);
        self.known.retain(|k| k.aor != aor);
        self.knocks.retain(|k| k.who.aor != aor);
        Some(aor)
    }

    /// The contact of that name or AOR (with or without `sip:`).
    pub fn contact(&self, name: &str) -> Option<&Contact> {
        let by_name = self.contacts.iter().find(|c| c.name.eq_ignore_ascii_case(name));
        by_name.or_else(|| self.contacts.iter().find(|c| is_named(&c.aor, name)))
    }

    /// All contacts, as they were taken up.
    pub fn contacts(&self) -> &[Contact] {
        &self.contacts
    }

    /// By what somebody is known: as a contact, else from before.
    pub fn person(&self, aor: &str) -> Option<Known> {
        let contact = self.contacts.iter().find(|c| c.aor == aor);
        let contact = contact.map(|c| Known { aor: c.aor.clone(), root: c.root, key: c.key });
        contact.or_else(|| self.known.iter().find(|k| k.aor == aor).cloned())
    }

    /// By what an overlay is known: from a contact, else from whom was met there before.
    pub fn root_of(&self, overlay: &str) -> Option<Root> {
        let there = |aor: &str| split_aor(aor).is_some_and(|(_, o)| o == overlay);
        let contact = self.contacts.iter().find(|c| there(&c.aor)).map(|c| c.root);
        contact.or_else(|| self.known.iter().find(|k| there(&k.aor)).map(|k| k.root))
    }

    /// Keys met before that are no contacts'.
    pub fn known(&self) -> impl Iterator<Item = &Known> {
        self.known.iter().filter(|k| !self.contacts.iter().any(|c| c.aor == k.aor))
    }

    /// How somebody stands whose key is proven.
    pub fn standing(&self, who: &Known) -> Standing {
        let overlay = split_aor(&who.aor).map_or("", |(_, overlay)| overlay);
        let hit = |block: &Block| match block {
            Block::Aor(aor) => *aor == who.aor,
            Block::Overlay(name) => name == overlay,
            Block::Key(key) => *key == who.key,
        };
        if self.blocked.iter().any(hit) {
            return Standing::Blocked;
        }
        match self.person(&who.aor) {
            Some(known) if known != *who => Standing::Changed,
            Some(_) if self.contacts.iter().any(|c| c.aor == who.aor) => Standing::Contact,
            Some(_) => Standing::Known,
            None => Standing::Stranger,
        }
    }

    /// The token of a contact's link is needed no more: they have been talked to. True where there was one.
    pub fn spend_token(&mut self, who: &Known) -> bool {
        let contact = self.contacts.iter_mut().find(|c| c.aor == who.aor && c.root == who.root && c.key == who.key);
        contact.is_some_and(|c| c.token.take().is_some())
    }

    /// True for a key that is blocked itself.
    pub fn is_blocked_key(&self, key: &KeyFingerprint) -> bool {
        self.blocked.iter().any(|block| matches!(block, Block::Key(blocked) if blocked == key))
    }

    /// Remembers a key that was met; true when that is news, also that it was met later than others. The key of somebody
    /// known already is left alone.
    pub fn remember(&mut self, who: &Known) -> bool {
        if let Some(at) = self.known.iter().position(|k| k == who) {
            let last = at + 1 == self.known.len();
            self.known[at..].rotate_left(1);
            return !last;
        }
        if self.person(&who.aor).is_some() {
            return false;
        }
        if self.known.len() >= MAX_KNOWN {
            // Contacts stand in a list of their own, and stay.
            self.known.remove(0);
        }
        self.known.push(who.clone());
        true
    }

    /// Notes a refused call; true for the first by that key under that name.
    pub fn knocked(&mut self, who: Known, changed: bool, at: UnixTime) -> bool {
        if let Some(knock) = self.knocks.iter_mut().find(|k| k.who == who) {
            (knock.at, knock.times, knock.changed) = (at, knock.times.saturating_add(1), changed);
            return false;
        }
        if self.knocks.len() >= MAX_KNOCKS {
            self.knocks.remove(0);
        }
        self.knocks.push(Knock { who, at, times: 1, changed });
        true
    }

    /// Who knocked, the latest new one last.
    pub fn knocks(&self) -> &[Knock] {
        &self.knocks
    }

    /// Takes up the one who knocked: by AOR, or by the short fingerprint of the key where several use one. A changed key
    /// takes the place of the one known before. The contact's name; `None` where nobody, or more than one, is meant.
    pub fn accept(&mut self, who: &str, name: Option<&str>) -> Option<Result<String, FullError>> {
        let meant: Vec<_> = self.knocks.iter().filter(|k| is_meant(&k.who, who)).collect();
        let [knock] = meant[..] else { return None };
        let who = knock.who.clone();
        let before = self.contacts.iter().find(|c| c.aor == who.aor).cloned();
        self.contacts.retain(|c| c.aor != who.aor);
        self.known.retain(|k| k.aor != who.aor);
        let Known { aor, root, key } = who.clone();
        let added = match (name, &before) {
            (None, None) => self.add_unnamed(who),
            (name, before) => {
                let name =
                    name.map_or_else(|| before.as_ref().map_or(String::new(), |b| b.name.clone()), str::to_owned);
                let addrs = before.as_ref().map(|b| b.addrs.clone()).unwrap_or_default();
                self.add(Contact { name: name.clone(), aor, root, key, addrs, token: None, by: String::new() })
                    .map(|()| name)
            }
        };
        if added.is_err() {
            self.contacts.extend(before);
        }
        Some(added)
    }

    /// Blocks; false when it was blocked already.
    ///
    /// # Errors
    /// [`FullError::Full`].
    pub fn block(&mut self, block: Block) -> Result<bool, FullError> {
        if self.blocked.contains(&block) {
            return Ok(false);
        }
        if self.blocked.len() >= MAX_BLOCKED {
            return Err(FullError::Full);
        }
        self.blocked.push(block);
        Ok(true)
    }

    /// Takes blocks back; how many there were.
    pub fn unblock(&mut self, blocks: &[Block]) -> usize {
        let before = self.blocked.len();
        self.blocked.retain(|b| !blocks.contains(b));
        before - self.blocked.len()
    }

    /// Who is blocked.
    pub fn blocked(&self) -> &[Block] {
        &self.blocked
    }

    /// Keeps a token that was given out, for one caller or for all who have it, until `until`.
    ///
    /// # Errors
    /// [`FullError::Full`] where too many are out.
    pub fn give(&mut self, token: RingToken, once: bool, until: UnixTime, now: UnixTime) -> Result<(), FullError> {
        self.given.retain(|g| g.until >= now);
        if self.given.len() >= MAX_TOKENS {
            return Err(FullError::Full);
        }
        self.given.push(Given { token, once, until });
        Ok(())
    }

    /// True when a verified proof shows a token that was given out here; one for once is spent by it.
    pub fn redeem(&mut self, proof: &CallProof, said: &Said<'_>, now: UnixTime) -> bool {
        let Some(at) = self.given.iter().position(|g| g.until >= now && proof.proves(said, &g.token)) else {
            return false;
        };
        if self.given.get(at).is_some_and(|g| g.once) {
            self.given.remove(at);
        }
        true
    }

    /// Reads the file.
    ///
    /// # Errors
    /// `Malformed`, `NotCanonical`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Acquaintances, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        let version = reader.list(7)?.saturating_sub(5);
        reader.version(version as u64)?;
        if !(1..=2).contains(&version) {
            return Err(IdentityError::Malformed(WHAT));
        }
        let mut all = Acquaintances::default();
        for _ in 0..reader.list(MAX_CONTACTS as u64)? {
            reader.array(5 + version as u64)?;
            let name = canonical_user(reader.text()?)?;
            let Known { aor, root, key } = read_known(&mut reader)?;
            let addrs = read_addrs(&mut reader, MAX_ADDRS)?;
            let token = match reader.is_null() {
                true => None,
                false => Some(RingToken::from_secret(reader.exact()?)),
            };
            let by = if version == 2 && !reader.is_null() { reader.text()?.to_owned() } else { String::new() };
            all.contacts.push(Contact { name, aor, root, key, addrs, token, by });
        }
        for _ in 0..reader.list(MAX_TOKENS as u64)? {
            reader.array(3)?;
            let token = RingToken::from_secret(reader.exact()?);
            all.given.push(Given { token, once: reader.uint()? != 0, until: UnixTime(reader.uint()?) });
        }
        for _ in 0..reader.list(MAX_KNOWN as u64)? {
            reader.array(3)?;
            all.known.push(read_known(&mut reader)?);
        }
        for _ in 0..reader.list(MAX_KNOCKS as u64)? {
            reader.array(6)?;
            let who = read_known(&mut reader)?;
            let at = UnixTime(reader.uint()?);
            let times = u32::try_from(reader.uint()?).map_err(|_| IdentityError::Malformed(WHAT))?;
            all.knocks.push(Knock { who, at, times, changed: reader.uint()? != 0 });
        }
        for _ in 0..reader.list(MAX_BLOCKED as u64)? {
            reader.array(2)?;
            let text = reader.text()?.to_owned();
            all.blocked.push(match reader.is_null() {
                false => Block::Key(KeyFingerprint(reader.exact()?)),
                true if text.starts_with("sip:") => Block::Aor(text),
                true => Block::Overlay(text),
            });
        }
        if version == 2 {
            for _ in 0..reader.list(MAX_INTRODUCTIONS as u64)? {
                all.introductions.push(Introduced::read(&mut reader)?);
            }
        }
        canonical(bytes, &all.to_bytes(), WHAT)?;
        Ok(all)
    }

    /// The file. It holds tokens: whoever writes it makes it readable by its owner alone.
    pub fn to_bytes(&self) -> Vec<u8> {
        let any = !self.introductions.is_empty() || self.contacts.iter().any(|c| !c.by.is_empty());
        let version = if any { 2 } else { 1 };
        let mut writer = Writer::array(5 + version);
        writer.uint(version as u64).nested(self.contacts.len());
        for c in &self.contacts {
            writer.nested(5 + version).text(&c.name);
            write_known(&mut writer, &c.aor, c.root, c.key);
            write_addrs(&mut writer, &c.addrs);
            match &c.token {
                Some(token) => writer.bytes(token.secret()),
                None => writer.null(),
            };
            match (version, c.by.as_str()) {
                (1, _) => {}
                (_, "") => drop(writer.null()),
                (_, by) => drop(writer.text(by)),
            }
        }
        writer.nested(self.given.len());
        for g in &self.given {
            writer.nested(3).bytes(g.token.secret()).uint(g.once.into()).uint(g.until.secs());
        }
        writer.nested(self.known.len());
        for k in &self.known {
            writer.nested(3);
            write_known(&mut writer, &k.aor, k.root, k.key);
        }
        writer.nested(self.knocks.len());
        for k in &self.knocks {
            writer.nested(6);
            write_known(&mut writer, &k.who.aor, k.who.root, k.who.key);
            writer.uint(k.at.secs()).uint(k.times.into()).uint(k.changed.into());
        }
        writer.nested(self.blocked.len());
        for block in &self.blocked {
            writer.nested(2);
            match block {
                Block::Aor(text) | Block::Overlay(text) => writer.text(text).null(),
                Block::Key(key) => writer.text("").bytes(&key.0),
            };
        }
        if version == 2 {
            writer.nested(self.introductions.len());
            self.introductions.iter().for_each(|i| i.write(&mut writer));
        }
        writer.finish()
    }
}

/// `sip:bob@other` or the same without `sip:`, in any case.
pub(super) fn is_named(aor: &str, name: &str) -> bool {
    aor.eq_ignore_ascii_case(name) || aor.strip_prefix("sip:").is_some_and(|rest| rest.eq_ignore_ascii_case(name))
}

/// Meant by an address, or by the fingerprint of the key.
pub(super) fn is_meant(who: &Known, text: &str) -> bool {
    is_named(&who.aor, text) || KeyHint::parse(text).is_some_and(|hint| hint.fits(&who.key))
}

pub(super) fn write_known(writer: &mut Writer, aor: &str, root: Root, key: KeyFingerprint) {
    writer.text(aor);
    match root {
        Root::Office(root) => writer.bytes(&root.0),
        Root::Open => writer.null(),
    };
    writer.bytes(&key.0);
}

pub(super) fn read_known(reader: &mut Reader<'_>) -> Result<Known, IdentityError> {
    let aor = reader.text()?.to_owned();
    let (_, overlay) = split_aor(&aor).ok_or(IdentityError::Malformed(WHAT))?;
    canonical_overlay(overlay)?;
    let root = match reader.is_null() {
        true => Root::Open,
        false => Root::Office(RootFingerprint(reader.exact()?)),
    };
    Ok(Known { aor, root, key: KeyFingerprint(reader.exact()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;
    use crate::identity::{Introduction, damage::damaged};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn who(aor: &str, n: u8) -> Known {
        Known { aor: aor.into(), root: Root::Open, key: KeyFingerprint([n; 16]) }
    }

    fn contact(name: &str, aor: &str, n: u8) -> Contact {
        let Known { aor, root, key } = who(aor, n);
        Contact {
            name: name.into(),
            aor,
            root,
            key,
            addrs: vec!["192.0.2.1:5061".parse().expect("v4")],
            token: None,
            by: String::new(),
        }
    }

    /// Somebody, and an introduction by a contact.
    fn introduced() -> Acquaintances {
        let mut all = some();
        let said = Introduction {
            to: "sip:me@d".into(),
            who: who("sip:ida@d", 5),
            name: "ida".into(),
            addrs: vec!["[2001:db8::1]:5061".parse().expect("v6")],
            issued: NOW,
            withdrawn: false,
        };
        all.hear(&said, &who("sip:bob@b.office", 1), NOW);
        all.hear(&Introduction { who: who("sip:joe@d", 4), ..said }, &who("sip:bob@b.office", 1), NOW);
        assert_eq!(all.accept_introduced("joe@d", None, NOW), Some(Ok("ida".into())));
        all
    }

    fn some() -> Acquaintances {
        let mut all = Acquaintances::default();
        all.add(contact("bob", "sip:bob@b.office", 1)).expect("new");
        let token = Some(RingToken::generate(&mut Rng::from_seed(1)));
        let root = Root::Office(RootFingerprint([4; 16]));
        all.add(Contact { token, root, ..contact("ben", "sip:ben@c.office", 2) }).expect("new");
        all.remember(&who("sip:eve@d", 3));
        all.knocked(who("sip:joe@d", 4), false, NOW);
        all.block(Block::Key(KeyFingerprint([9; 16]))).expect("room");
        all.block(Block::Overlay("spam.office".into())).expect("room");
        all.block(Block::Aor("sip:x@y".into())).expect("room");
        all.give(RingToken::generate(&mut Rng::from_seed(2)), true, NOW, NOW).expect("room");
        all
    }

    #[test]
    fn how_somebody_stands() {
        let mut all = some();
        assert_eq!(all.standing(&who("sip:bob@b.office", 1)), Standing::Contact);
        assert_eq!(all.standing(&who("sip:bob@b.office", 7)), Standing::Changed);
        assert_eq!(all.standing(&who("sip:ben@c.office", 2)), Standing::Changed, "another root");
        assert_eq!(all.standing(&who("sip:eve@d", 3)), Standing::Known);
        assert_eq!(all.standing(&who("sip:joe@d", 4)), Standing::Stranger);
        for blocked in [who("sip:a@spam.office", 5), who("sip:x@y", 5), who("sip:any@where", 9)] {
            assert_eq!(all.standing(&blocked), Standing::Blocked);
        }
        assert_eq!(all.unblock(&[Block::Aor("sip:x@y".into())]), 1);
        assert_eq!(all.standing(&who("sip:x@y", 5)), Standing::Stranger);
    }

    #[test]
    fn a_changed_key_is_taken_only_when_it_is_accepted() {
        let mut all = some();
        let other = who("sip:bob@b.office", 7);
        let refused = all.add(Contact { key: other.key, ..contact("bob", "sip:bob@b.office", 1) });
        assert!(matches!(refused, Err(FullError::OtherKey { .. })), "{refused:?}");
        assert!(!all.remember(&other));
        assert!(all.knocked(other.clone(), true, NOW) && !all.knocked(other.clone(), true, NOW));
        assert_eq!(all.accept("bob@b.office", None), Some(Ok("bob".into())));
        assert_eq!(all.standing(&other), Standing::Contact);
        assert_eq!(all.standing(&who("sip:bob@b.office", 1)), Standing::Changed);
        assert_eq!(all.contact("bob").map(|c| c.addrs.len()), Some(1), "the addresses stay");
        assert_eq!(all.accept("nobody@b.office", None), None);
    }

    #[test]
    fn names_stay_apart() {
        let mut all = some();
        assert_eq!(all.add(contact("bob", "sip:other@b.office", 8)), Err(FullError::Taken("bob".into())));
        assert_eq!(all.add_unnamed(who("sip:bob@z", 6)), Ok("bob2".into()));
        assert_eq!(all.forget("bob2").as_deref(), Some("sip:bob@z"));
        assert_eq!(all.forget("eve@d").as_deref(), Some("sip:eve@d"));
        assert_eq!(all.forget("eve@d"), None);
    }

    #[test]
    fn lists_are_bounded() {
        let mut all = Acquaintances::default();
        for n in 0..MAX_KNOCKS + 5 {
            all.knocked(who(&format!("sip:u{n}@d"), 4), false, NOW);
        }
        assert_eq!(all.knocks().len(), MAX_KNOCKS);
        assert_eq!(all.knocks()[0].who.aor, "sip:u5@d");
        for n in 0..MAX_KNOWN + 1 {
            all.remember(&who(&format!("sip:u{n}@d"), 4));
        }
        assert_eq!(all.known().count(), MAX_KNOWN);
        // Who was met again stays; who was met longest ago goes.
        assert!(all.remember(&who("sip:u1@d", 4)) && !all.remember(&who("sip:u1@d", 4)));
        assert!(all.remember(&who("sip:new@d", 4)));
        assert!(all.person("sip:u1@d").is_some() && all.person("sip:u2@d").is_none());
    }

    #[test]
    fn written_read_and_damaged() {
        for all in [some(), introduced()] {
            read_back(&all);
        }
        assert_eq!(
            (some().to_bytes()[..2].to_vec(), introduced().to_bytes()[..2].to_vec()),
            (vec![0x86, 1], vec![0x87, 2])
        );
    }

    fn read_back(all: &Acquaintances) {
        let bytes = all.to_bytes();
        assert_eq!(Acquaintances::from_bytes(&bytes).as_ref(), Ok(all));
        let rng = &mut Rng::from_seed(8);
        for _ in 0..20_000 {
            let bytes = damaged(&bytes, rng);
            if let Ok(read) = Acquaintances::from_bytes(&bytes) {
                assert_ne!(&read, all);
            }
        }
    }
}
