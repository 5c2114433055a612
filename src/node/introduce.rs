//! One user's word to another about a third one's key: sent as a sealed message, heard only from contacts, taken up by the user.
//!
//! In an office nobody needs it: names are given there. To people of other overlays no sealed message goes; they are handed a contact
//! link instead.

use super::Node;
use super::calls::Callee;
use super::control::{CommandError, Event, RequestId};
use super::message::Source;
use crate::core::Instant;
use crate::identity::{
    FullError, Heard, Introduction, KeyFingerprint, KeyHint, Known, Letter, PublicKey, Root, SignedIntroduction,
    split_aor,
};

/// An introduction in words, for the history; none for another text.
pub(super) fn shown(text: &str) -> Option<String> {
    let one = SignedIntroduction::is_one(text).then(|| SignedIntroduction::parse(text).ok())??;
    let said = one.said();
    let verb = if said.withdrawn { "takes back the introduction of" } else { "introduces" };
    Some(format!("{verb} {}, {}, key {}", said.name, said.who.aor, said.who.key))
}

impl Node {
    /// Sends one's word about `who` to `to`; the message's outcome answers.
    pub(super) fn introduce(
        &mut self,
        now: Instant,
        request: RequestId,
        who: &str,
        to: &str,
        withdraw: bool,
    ) -> Result<(), CommandError> {
        let Some(identity) = self.identity.as_ref().filter(|_| self.is_open()) else {
            let what = "nobody is introduced in an office: its names are given, and known to all";
            return Err(CommandError::new(what, "for people of other overlays hand on a contact link"));
        };
        let own = identity.overlay().to_owned();
        let (name, who, addrs) = self.introducible(who)?;
        let Callee::Aor { aor: to_aor, claim } = self.callee(to)? else {
            let what = format!("{to} is not of this overlay");
            return Err(CommandError::new(what, "hand them the contact link of whom you would introduce"));
        };
        if to_aor == who.aor {
            return Err(CommandError::new(format!("{to} is the one introduced"), "name two different people"));
        }
        let addrs = if split_aor(&who.aor).is_some_and(|(_, o)| o == own) { Vec::new() } else { addrs };
        let issued = self.unix(now);
        let said = Introduction { to: to_aor.clone(), who, name, addrs, issued, withdrawn: withdraw };
        let text = SignedIntroduction::sign(said, identity).text();
        let from = self.ua.profile().aor.clone();
        self.send_letter(now, Source::Command(request), from, Callee::Aor { aor: to_aor, claim }, text);
        Ok(())
    }

    /// A contact, or somebody met before, whose key can be vouched for.
    fn introducible(&self, who: &str) -> Result<(String, Known, Vec<std::net::SocketAddr>), CommandError> {
        let all = &self.strangers.known;
        if let Some(c) = all.contact(self.contact(who).unwrap_or(who)) {
            return Ok((c.name.clone(), Known { aor: c.aor.clone(), root: c.root, key: c.key }, c.addrs.clone()));
        }
        let aor = match self.callee(who) {
            Ok(Callee::Aor { aor, .. }) => aor,
            _ => format!("sip:{who}"),
        };
        let hint = KeyHint::parse(who);
        let met = all.known().find(|k| k.aor == aor || hint.as_ref().is_some_and(|h| h.fits(&k.key)));
        let Some(met) = met else {
            let what = format!("no key of {who} is known here");
            return Err(CommandError::new(what, "call them first, or take up their contact link"));
        };
        let name = split_aor(&met.aor).map_or("", |(user, _)| user).to_owned();
        Ok((name, met.clone(), Vec::new()))
    }

    /// A message that is an introduction, by who has proven to hold `key`.
    pub(super) fn on_introduction(&mut self, now: Instant, letter: &Letter, key: &PublicKey) {
        let Ok(signed) = SignedIntroduction::parse(&letter.text) else {
            return self.count("introductions that do not hold");
        };
        let by = Known { aor: letter.from.clone(), root: Root::Open, key: KeyFingerprint::of(key) };
        match self.hear(now, &signed, Some(&by)) {
            Some((_, heard)) => self.heard(&signed, &by, heard),
            None => self.count("introductions that do not hold"),
        }
    }

    /// Verifies an introduction, which is to be the word of `expected`, and keeps it where its speaker is a contact.
    fn hear(&mut self, now: Instant, signed: &SignedIntroduction, expected: Option<&Known>) -> Option<(Known, Heard)> {
        let (unix, own) = (self.unix(now), self.identity.as_ref()?.aor());
        let by = signed.verify(&own, unix).ok()?;
        self.people.revoked.check(&by.verified).ok()?;
        let aor = format!("sip:{}@{}", by.verified.user, by.overlay());
        let speaker = Known { aor, root: by.root(), key: by.user_key() };
        if expected.is_some_and(|expected| *expected != speaker) {
            return None;
        }
        let heard = self.strangers.known.hear(signed.said(), &speaker, unix);
        Some((speaker, heard))
    }

    fn heard(&mut self, signed: &SignedIntroduction, by: &Known, heard: Heard) {
        let said = signed.said();
        let by = self.strangers.known.contact(&by.aor).map_or_else(|| by.aor.clone(), |c| c.name.clone());
        let known = match heard {
            Heard::NotAContact => return self.count("introductions by those who are no contacts"),
            Heard::Known => return,
            Heard::New => String::new(),
            Heard::Withdrawn => return self.save_foreign(),
            Heard::OtherKey(key) => key.to_string(),
        };
        self.save_foreign();
        let (name, aor, key) = (said.name.clone(), said.who.aor.clone(), said.who.key.to_string());
        self.event(None, Event::Introduced { name, aor, key, by, known });
    }

    /// Takes up who was introduced, by a text, a name or a key, or else who knocked; `None` where there is nobody such.
    pub(super) fn accepted(
        &mut self,
        now: Instant,
        what: &str,
        name: Option<&str>,
    ) -> Result<Option<Result<String, FullError>>, CommandError> {
        let unix = self.unix(now);
        if SignedIntroduction::is_one(what) {
            let Some(signed) = SignedIntroduction::parse(what).ok() else {
                return Err(CommandError::new("the introduction is damaged", "copy it again"));
            };
            return match self.hear(now, &signed, None) {
                None => Err(CommandError::new(
                    "the introduction does not hold: it is too old, for somebody else, or not signed by who it says",
                    "ask for a new one",
                )),
                Some((by, Heard::NotAContact)) => Err(CommandError::new(
                    format!("it is the word of {} (key {}), who is no contact", by.aor, by.key),
                    "take them up first, by their contact link",
                )),
                Some(_) => {
                    let key = KeyHint::exact(&signed.said().who.key).to_string();
                    Ok(self.strangers.known.accept_introduced(&key, name, unix))
                }
            };
        }
        let known = &self.strangers.known;
        let mut meant = known.introduced_as(what, unix);
        if meant.is_empty() {
            return Ok(self.strangers.known.accept(what, name));
        }
        // Somebody who knocked under that address by another key.
        let aors: Vec<_> = meant.iter().map(|who| who.aor.clone()).collect();
        meant.extend(known.knocks().iter().map(|k| k.who.clone()).filter(|who| aors.contains(&who.aor)));
        let key_named = KeyHint::parse(what).is_some();
        if !key_named && meant.iter().any(|who| *who != meant[0]) {
            let keys: std::collections::BTreeSet<_> = meant.iter().map(|who| who.key.to_string()).collect();
            let keys: Vec<_> = keys.into_iter().collect();
            let what = format!("{what} could be the one of any of these keys: {}", keys.join(", "));
            return Err(CommandError::new(what, "ask them, and name the key: chordial contacts accept KEY"));
        }
        Ok(self.strangers.known.accept_introduced(what, name, unix))
    }
}
