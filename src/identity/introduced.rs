//! Introductions that were heard: who is offered as a contact, by which contact's word.
//!
//! Only a contact's word is kept, and it counts as long as it is fresh and its speaker is a contact by the same key. It
//! makes nobody a contact: that is the user's to do. Bounded for each introducer and for all together; the oldest gives way.

use super::acquaintances::{is_meant, is_named, read_known, write_known};
use super::cbor::{Reader, Writer};
use super::contact::{read_addrs, write_addrs};
use super::introduction::is_fresh;
use super::{
    Acquaintances, Contact, FullError, IdentityError, Introduction, KeyFingerprint, Known, Standing, canonical_user,
};
use crate::core::UnixTime;
use std::net::SocketAddr;

/// Most introductions kept.
pub const MAX_INTRODUCTIONS: usize = 64;
/// Of these, by one introducer.
const MAX_BY_ONE: usize = 16;
const MAX_ADDRS: usize = 3;

/// Somebody whom a contact has introduced, and who is no contact yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduced {
    /// Who.
    pub who: Known,
    /// What the introducer calls them.
    pub name: String,
    /// Supernodes of their overlay.
    pub addrs: Vec<SocketAddr>,
    /// By whom.
    pub by: Known,
    /// When it was said.
    pub at: UnixTime,
}

impl Introduced {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(9);
        write_known(writer, &self.who.aor, self.who.root, self.who.key);
        writer.text(&self.name);
        write_addrs(writer, &self.addrs);
        write_known(writer, &self.by.aor, self.by.root, self.by.key);
        writer.uint(self.at.secs());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Introduced, IdentityError> {
        reader.array(9)?;
        let who = read_known(reader)?;
        let name = canonical_user(reader.text()?)?;
        let addrs = read_addrs(reader, MAX_ADDRS)?;
        Ok(Introduced { who, name, addrs, by: read_known(reader)?, at: UnixTime(reader.uint()?) })
    }
}

/// What became of an introduction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The user may take them up.
    New,
    /// It says what is known already.
    Known,
    /// An earlier one is taken back.
    Withdrawn,
    /// Its speaker is no contact.
    NotAContact,
    /// The one introduced is known by another key.
    OtherKey(KeyFingerprint),
}

impl Acquaintances {
    /// Takes a verified introduction by `by`.
    pub fn hear(&mut self, said: &Introduction, by: &Known, now: UnixTime) -> Heard {
        if self.standing(by) != Standing::Contact {
            return Heard::NotAContact;
        }
        self.introductions.retain(|i| is_fresh(i.at, now));
        let same = |i: &Introduced| i.who.aor == said.who.aor && i.by == *by;
        if self.introductions.iter().any(|i| same(i) && i.at > said.issued) {
            return Heard::Known; // An older word than the last: a withdrawn one, brought once more, say.
        }
        let before = self.introductions.iter().position(same).map(|at| self.introductions.remove(at));
        if said.withdrawn {
            return if before.is_some() { Heard::Withdrawn } else { Heard::Known };
        }
        match self.person(&said.who.aor) {
            Some(known) if known != said.who => return Heard::OtherKey(known.key),
            Some(_) if self.standing(&said.who) == Standing::Contact => return Heard::Known,
            _ => {}
        }
        if self.standing(&said.who) == Standing::Blocked {
            return Heard::Known;
        }
        let news = before.is_none_or(|before| before.who != said.who);
        let by_one = self.introductions.iter().filter(|i| i.by == *by).count();
        let oldest = match by_one >= MAX_BY_ONE {
            true => self.introductions.iter().position(|i| i.by == *by),
            false => (self.introductions.len() >= MAX_INTRODUCTIONS).then_some(0),
        };
        if let Some(at) = oldest {
            self.introductions.remove(at);
        }
        let addrs = said.addrs.iter().copied().take(MAX_ADDRS).collect();
        let Introduction { who, name, issued, .. } = said.clone();
        self.introductions.push(Introduced { who, name, addrs, by: by.clone(), at: issued });
        if news { Heard::New } else { Heard::Known }
    }

    /// Those that count, the oldest first.
    pub fn introductions(&self, now: UnixTime) -> impl Iterator<Item = &Introduced> {
        self.introductions.iter().filter(move |i| is_fresh(i.at, now) && self.standing(&i.by) == Standing::Contact)
    }

    /// Whoever introduced somebody, by what the user calls them.
    pub fn introducers(&self, who: &Known, now: UnixTime) -> Vec<String> {
        let by = self.introductions(now).filter(|i| i.who == *who).map(|i| &i.by.aor);
        by.filter_map(|aor| self.contact(aor)).map(|c| c.name.clone()).collect()
    }

    /// Takes up somebody introduced, named by address, name or key. The contact's name; `None` where nobody, or more than one
    /// key, is meant.
    pub fn accept_introduced(
        &mut self,
        who: &str,
        name: Option<&str>,
        now: UnixTime,
    ) -> Option<Result<String, FullError>> {
        let meant: Vec<_> = self.introductions(now).filter(|i| is_introduced(i, who)).cloned().collect();
        let one = meant.first()?.clone();
        if meant.iter().any(|i| i.who != one.who) {
            return None;
        }
        let Introduced { who: Known { aor, root, key }, name: theirs, addrs, by, .. } = one;
        let name = name.map_or(theirs, str::to_owned);
        let contact = Contact { name: name.clone(), aor, root, key, addrs, token: None, by: by.aor };
        Some(self.add(contact).map(|()| name))
    }

    /// The keys among introductions that `text` may mean.
    pub fn introduced_as(&self, text: &str, now: UnixTime) -> Vec<Known> {
        self.introductions(now).filter(|i| is_introduced(i, text)).map(|i| i.who.clone()).collect()
    }
}

fn is_introduced(one: &Introduced, text: &str) -> bool {
    is_meant(&one.who, text) || one.name.eq_ignore_ascii_case(text) || is_named(&one.who.aor, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Block, INTRODUCTION_LIFE, Root};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn who(user: &str, n: u8) -> Known {
        Known { aor: format!("sip:{user}@family"), root: Root::Open, key: KeyFingerprint([n; 16]) }
    }

    fn says(user: &str, n: u8, issued: UnixTime) -> Introduction {
        let (to, name) = ("sip:bob@family".into(), user.to_owned());
        Introduction { to, who: who(user, n), name, addrs: Vec::new(), issued, withdrawn: false }
    }

    /// Carla is a contact.
    fn bob() -> Acquaintances {
        let mut all = Acquaintances::default();
        all.add_unnamed(who("carla", 1)).unwrap();
        all
    }

    #[test]
    fn only_a_contacts_word_is_heard_and_only_while_it_is_one() {
        let mut all = bob();
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("eve", 9), NOW), Heard::NotAContact);
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("carla", 9), NOW), Heard::NotAContact, "another key");
        all.remember(&who("dora", 3));
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("dora", 3), NOW), Heard::NotAContact, "only met");
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("carla", 1), NOW), Heard::New);
        assert_eq!(all.introducers(&who("anna", 2), NOW), ["carla"]);
        assert_eq!(all.introductions(NOW + INTRODUCTION_LIFE).count(), 0, "expired");
        assert_eq!(all.accept_introduced("anna", None, NOW + INTRODUCTION_LIFE), None);
        all.forget("carla");
        assert_eq!(all.accept_introduced("anna", None, NOW), None, "no contact any more");
    }

    #[test]
    fn taken_up_taken_back_and_brought_again() {
        let (mut all, later) = (bob(), UnixTime(NOW.secs() + 5));
        let carla = who("carla", 1);
        assert_eq!(all.hear(&says("anna", 2, NOW), &carla, NOW), Heard::New);
        assert_eq!(all.hear(&says("anna", 2, NOW), &carla, NOW), Heard::Known);
        assert_eq!(
            all.hear(&Introduction { withdrawn: true, ..says("anna", 2, later) }, &carla, later),
            Heard::Withdrawn
        );
        assert_eq!(all.accept_introduced("anna", None, later), None);
        assert_eq!(all.hear(&says("anna", 2, later), &carla, later), Heard::New);
        assert_eq!(all.accept_introduced("0202-0202", Some("sis"), later), Some(Ok("sis".into())));
        assert_eq!(
            all.contact("sis").map(|c| (c.aor.as_str(), c.by.as_str())),
            Some(("sip:anna@family", "sip:carla@family"))
        );
        assert_eq!(all.hear(&says("anna", 7, later), &carla, later), Heard::OtherKey(KeyFingerprint([2; 16])));
        assert_eq!(all.introductions(later).count(), 0);
    }

    #[test]
    fn two_who_say_different_things_are_both_heard_and_neither_is_taken_by_name() {
        let mut all = bob();
        all.add_unnamed(who("dora", 3)).unwrap();
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("carla", 1), NOW), Heard::New);
        assert_eq!(all.hear(&says("anna", 4, NOW), &who("dora", 3), NOW), Heard::New);
        assert_eq!(all.introduced_as("anna@family", NOW).len(), 2);
        assert_eq!(all.accept_introduced("anna", None, NOW), None);
        assert_eq!(all.accept_introduced("0404-0404", None, NOW), Some(Ok("anna".into())));
        all.block(Block::Key(KeyFingerprint([6; 16]))).unwrap();
        assert_eq!(all.hear(&says("joe", 6, NOW), &who("carla", 1), NOW), Heard::Known, "blocked");
    }

    #[test]
    fn one_introducer_does_not_crowd_out_the_others() {
        let mut all = bob();
        all.add_unnamed(who("dora", 3)).unwrap();
        assert_eq!(all.hear(&says("anna", 2, NOW), &who("dora", 3), NOW), Heard::New);
        for n in 0..200 {
            all.hear(&says(&format!("u{n}"), 5, NOW), &who("carla", 1), NOW);
        }
        assert_eq!(all.introductions(NOW).count(), MAX_BY_ONE + 1);
        assert_eq!(all.introduced_as("anna", NOW), [who("anna", 2)]);
    }
}
