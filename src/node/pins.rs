//! Who is meant, and who it is that calls or writes, in an open overlay: names there are claimed, not given, so it is the user's
//! key that counts.
//!
//! A key that was met (the first answered call, the first message that was taken) is remembered, and from then on it is the one
//! that is rung under its name, whoever else claims that. What comes in pins nothing before it is answered: whoever writes
//! first would have the name. Another key under a known name is shown with every call and message, noted among the knocks and warned of
//! in `status`, and called only by its fingerprint, until the user accepts one of the two.

use super::Node;
use super::calls::claimed;
use super::control::{ClaimStatus, Warning};
use super::foreign::proven;
use crate::core::Instant;
use crate::identity::{
    Choice, KeyFingerprint, KeyHint, Known, PROOF_HEADER, PublicKey, Root, Side, Standing, TrustAnchor, choose,
    split_aor, told_apart,
};
use crate::sip::msg::{Message, Method, Uri};
use crate::sip::tx::ServerTxId;
use crate::ua::CallId;
use std::collections::BTreeSet;

/// Claims of a known name that are noted at once.
const NOTED: usize = 4;

/// The other end of a call or message, by its key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Party {
    pub who: Known,
    /// As it stood before the call.
    pub standing: Standing,
}

/// How somebody stands, as `status` and the events say it.
pub(super) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Blocked => "blocked",
        Standing::Contact => "contact",
        Standing::Known => "known",
        Standing::Changed => "changed",
        Standing::Stranger => "new-key",
    }
}

/// A dialled user, and the key that was named with it; `None` where what stands behind the `~` is no key.
pub(super) fn named(user: &str) -> Option<(&str, Option<KeyHint>)> {
    match claimed(user) {
        (user, None) => Some((user, None)),
        (user, Some(hint)) => Some((user, Some(KeyHint::parse(hint)?))),
    }
}

impl Node {
    /// True where names are claimed by keys, and keys are proven.
    pub(super) fn is_open(&self) -> bool {
        let open = |i: &crate::identity::Identity| matches!(i.anchor, TrustAnchor::Open { .. });
        self.identity.as_ref().is_some_and(open) && !self.flows.locals().clear
    }

    /// The key by which this very node claims a name.
    pub(super) fn own_key(&self, now: Instant, user: &str) -> Option<KeyFingerprint> {
        let identity = self.speaks_here(user, self.unix(now))?;
        identity.chain.claimant(user).map(|key| KeyFingerprint::of(&key))
    }

    /// Whose record counts among those that claim an AOR.
    pub(super) fn choose(
        &self,
        now: Instant,
        aor: &str,
        claims: &BTreeSet<KeyFingerprint>,
        named: Option<&KeyHint>,
    ) -> Choice {
        if !self.is_open() {
            return choose(claims, named, None);
        }
        match split_aor(aor).and_then(|(user, _)| self.own_key(now, user)) {
            Some(own) => {
                let all: BTreeSet<_> = claims.iter().copied().chain([own]).collect();
                choose(&all, named, Some(own))
            }
            None => self.strangers.known.choose(aor, claims, named),
        }
    }

    /// Why nobody is called or written to, and how to say who is meant; none where there is no doubt.
    pub(super) fn doubt(&self, now: Instant, aor: &str, choice: &Choice) -> Option<String> {
        let user = split_aor(aor).map_or(aor, |(user, _)| user);
        let list = |claims: &BTreeSet<KeyFingerprint>| {
            let one = |key: &KeyFingerprint| {
                let by = self.strangers.known.introducers(&self.claimant(aor, *key), self.unix(now));
                let by = if by.is_empty() { String::new() } else { format!(" (introduced by {})", by.join(", ")) };
                format!("{user}~{}{by}", told_apart(key, claims))
            };
            claims.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        match choice {
            Choice::Nobody | Choice::Key(_) => None,
            Choice::Several(claims) => Some(format!("several claim this name; name one of {}", list(claims))),
            Choice::Unclear(claims) => Some(format!("that key is not the one of just one of {}", list(claims))),
            Choice::Changed { known, claims } => Some(format!(
                "{user} is known by the key {known}, and ANOTHER KEY claims the name now; ask them by another way, then name {}",
                list(claims)
            )),
        }
    }

    /// Somebody of this overlay by a key.
    pub(super) fn claimant(&self, aor: &str, key: KeyFingerprint) -> Known {
        Known { aor: aor.to_owned(), root: Root::Open, key }
    }

    /// Somebody of this overlay, with how they stand; none where that means nothing.
    pub(super) fn party(&self, aor: &str, key: KeyFingerprint) -> Option<Party> {
        let who = self.is_open().then(|| self.claimant(aor, key))?;
        let standing = self.strangers.known.standing(&who);
        Some(Party { who, standing })
    }

    /// Shows that somebody known was called and only other keys were found.
    pub(super) fn note_changed(&mut self, now: Instant, aor: &str, choice: &Choice) {
        if let Choice::Changed { claims, .. } = choice {
            for key in claims.iter().take(NOTED) {
                let who = self.claimant(aor, *key);
                self.note_knock(now, who, true);
            }
        }
    }

    /// A call was answered: its other end has been met, and a token has done its work.
    pub(super) fn met_in_call(&mut self, call: CallId) {
        if let Some(party) = self.calls.parties.get(&call) {
            let who = party.who.clone();
            let spent = self.strangers.known.spend_token(&who);
            self.met(&who, spent);
        }
    }

    /// Remembers a key.
    pub(super) fn met(&mut self, who: &Known, also: bool) {
        let own = self.identity.as_ref().is_some_and(|i| i.aor() == who.aor);
        if !own && self.strangers.known.remember(who) || also {
            self.save_foreign();
        }
    }

    /// The other end of a call that comes in.
    pub(super) fn caller(&mut self, call: CallId) -> Option<Party> {
        let party = self.ua.invited_by(call).and_then(|id| self.vouch.party_of(id))?;
        self.calls.parties.insert(call, party.clone());
        Some(party)
    }

    /// True when a call by somebody of this overlay may ring here; otherwise it has been answered.
    pub(super) fn is_welcome_member(&mut self, now: Instant, tx: ServerTxId, message: &Message) -> bool {
        let callee = Uri::parse(message.request_uri()).ok().and_then(|uri| self.domain.callee_of(&uri));
        let here = callee.is_some_and(|user| self.is_own(&user.to_ascii_lowercase()));
        if !here || *message.method() != Method::Invite || !self.is_open() {
            return true;
        }
        let Some(party) = message.call_id().and_then(|id| self.vouch.party_of(id)) else { return true };
        match party.standing {
            Standing::Blocked => {
                self.count("calls of the blocked declined");
                self.answer(now, tx, message, 603, "Decline");
                return false;
            }
            Standing::Changed => self.note_knock(now, party.who, true),
            Standing::Stranger | Standing::Known if message.has(crate::sip::msg::HeaderName::Other(PROOF_HEADER)) => {
                self.redeem(now, message, &party.who);
            }
            Standing::Contact | Standing::Known | Standing::Stranger => {}
        }
        true
    }

    /// Whoever shows a token of this user's contact link becomes a contact.
    fn redeem(&mut self, now: Instant, message: &Message, who: &Known) {
        let unix = self.unix(now);
        let Ok((ends, proof, said)) = proven(message, Side::Caller, unix) else {
            return self.count("callers whose proof does not hold");
        };
        let same = ends.caller == who.aor && said.user_key() == who.key && said.root() == who.root;
        let own = split_aor(&ends.callee).is_some_and(|(user, o)| o == self.domain.overlay() && self.is_own(user));
        if !same || !own || !self.strangers.known.redeem(&proof, &ends.said(Side::Caller), unix) {
            return self.count("callers whose proof does not hold");
        }
        if self.strangers.known.add_unnamed(who.clone()).is_ok()
            && let Some(id) = message.call_id()
        {
            self.vouch.stands(id, Standing::Contact);
        }
        self.save_foreign();
    }

    /// Shows the token of a contact's link in a call within this overlay.
    pub(super) fn show_token(&self, now: Instant, message: &mut Message) {
        if *message.method() != Method::Invite || message.to_tag().is_some() || !self.is_open() {
            return;
        }
        let to = message.to().ok().and_then(|to| self.domain.callee_of(&to.uri)).map(|user| self.domain.aor(&user));
        let contact = to.and_then(|aor| self.strangers.known.contacts().iter().find(|c| c.aor == aor));
        if let Some(token) = contact.and_then(|c| c.token.clone()) {
            self.prove_call(now, message, Some(&token));
        }
    }

    /// Who wrote a message, where that is somebody of this open overlay.
    pub(super) fn writer(&self, aor: &str, key: Option<&PublicKey>) -> Option<Party> {
        self.party(aor, KeyFingerprint::of(key?))
    }

    /// All who claim a name, for a person.
    pub(super) fn claims_report(&self, now: Instant, aor: &str, claims: &BTreeSet<KeyFingerprint>) -> Vec<ClaimStatus> {
        let user = split_aor(aor).map_or(aor, |(user, _)| user);
        let own = self.own_key(now, user);
        let row = |key: &KeyFingerprint| {
            let party = self.party(aor, *key);
            let short = told_apart(key, claims);
            ClaimStatus {
                name: format!("{user} ({short})"),
                target: format!("{user}~{short}"),
                key: short,
                standing: match party {
                    _ if own == Some(*key) => "own".into(),
                    Some(party) => standing_word(party.standing).into(),
                    None => String::new(),
                },
                introduced_by: self.strangers.known.introducers(&self.claimant(aor, *key), self.unix(now)),
            }
        };
        claims.iter().map(row).collect()
    }

    /// Warnings about keys that are not those that were known.
    pub(super) fn key_warnings(&self) -> Vec<Warning> {
        let changed = self.strangers.known.knocks().iter().rev().filter(|k| k.changed).take(8);
        let warn = |k: &crate::identity::Knock| {
            let before = self.strangers.known.person(&k.who.aor)?;
            Some(Warning {
                what: format!("{} shows the key {}, and is known by {}", k.who.aor, k.who.key, before.key),
                next: format!(
                    "ask them by another way; chordial contacts accept {} if it is theirs, chordial block {} if it is not",
                    k.who.key, k.who.key
                ),
            })
        };
        changed.filter_map(warn).collect()
    }
}
