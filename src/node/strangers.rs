//! Who from outside may ring here: callers of other overlays by their proven keys, callers in clear only where anyone may.
//! A refused stranger is shown once, as a knock that the user can accept.
//!
//! Everything is bounded and throttled: what one source and one overlay may ask of this node, how often one key that is no
//! contact rings, and how many knocks are told.

use super::Node;
use super::control::{CommandError, ContactStatus, Event, KnockStatus, Reply, RingRight, StrangersReport};
use super::foreign::{known, plain_aor, proven};
use super::pins::Party;
use crate::config::{PhoneAuth, Strangers as Policy};
use crate::core::{ConnId, Flow, Instant, TimerQueue, subscriber};
use crate::identity::{
    Acquaintances, Block, Contact, ContactLink, Foreign, FullError, KeyFingerprint, KeyHint, Known, RingToken, Root,
    Side, canonical_overlay, split_aor,
};
use crate::node::{Output, Saved};
use crate::pbx::policy::{Reception, receive};
use crate::sip::msg::{Message, Uri};
use crate::sip::tx::ServerTxId;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long a link's right to ring once waits for its caller.
const ONCE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Addresses in a contact link.
const LINK_ADDRS: usize = 3;

/// A bound on how often something happens, for each of many.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    /// So many at once.
    burst: u32,
    /// And one more after each of these.
    every: Duration,
    /// When each would be rested.
    rested: BTreeMap<K, Instant>,
}

/// Most that one throttle follows; one more is refused until one is rested.
const FOLLOWED: usize = 4096;

impl<K: Ord + Clone> Throttle<K> {
    pub fn new(burst: u32, every: Duration) -> Throttle<K> {
        Throttle { burst, every, rested: BTreeMap::new() }
    }

    /// True when `key` may once more.
    pub fn take(&mut self, now: Instant, key: &K) -> bool {
        if self.rested.len() >= FOLLOWED && !self.rested.contains_key(key) {
            self.rested.retain(|_, at| *at > now);
            if self.rested.len() >= FOLLOWED {
                return false;
            }
        }
        let at = self.rested.get(key).copied().unwrap_or(now).max(now) + self.every;
        if at > now + self.every * self.burst {
            return false;
        }
        self.rested.insert(key.clone(), at);
        true
    }
}

/// What the node remembers of those outside.
#[derive(Debug)]
pub(super) struct Strangers {
    pub known: Acquaintances,
    sources: Throttle<IpAddr>,
    overlays: Throttle<(String, Root)>,
    keys: Throttle<KeyFingerprint>,
    told: Throttle<()>,
    /// Links of other overlays that have not asked anything yet.
    pub silent: TimerQueue<ConnId>,
}

impl Strangers {
    pub fn new(known: Acquaintances) -> Strangers {
        Strangers {
            known,
            sources: Throttle::new(10, Duration::from_secs(2)),
            overlays: Throttle::new(60, Duration::from_millis(500)),
            keys: Throttle::new(3, Duration::from_secs(60)),
            told: Throttle::new(10, Duration::from_secs(60)),
            silent: TimerQueue::new(),
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.silent.next()
    }

    /// True when a source and its overlay may ask once more.
    pub fn admits(&mut self, now: Instant, source: IpAddr, foreign: &Foreign) -> bool {
        // Overlays of the same name that are open are one, which is why the source is asked first.
        self.sources.take(now, &subscriber(source))
            && self.overlays.take(now, &(foreign.overlay().to_owned(), foreign.root()))
    }
}

impl Node {
    /// True when a request may go on to a user here; otherwise it has been answered. Callers of this overlay, requests
    /// within dialogs and those for others are no matter of this.
    pub(super) fn is_welcome(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: &Flow,
        link: bool,
    ) -> bool {
        let (clear, lab) = (self.flows.locals().clear, self.setup.config.sip.phone_auth == PhoneAuth::None);
        if message.to_tag().is_some() || matches!(message.method().as_str(), "OPTIONS" | "REGISTER") || clear {
            return true;
        }
        let Ok(from) = message.from() else { return true };
        if self.domain.covers(&from.uri) {
            return !link || self.is_welcome_member(now, tx, message);
        }
        let policy = self.setup.config.user.strangers;
        if !link {
            if policy == Policy::Anyone || lab {
                return true;
            }
            self.count("calls from outside in clear refused");
            self.answer(now, tx, message, 403, "Calls from outside are not taken here");
            return false;
        }
        let foreign_link = self.flows.foreign(flow).is_some();
        if !foreign_link && self.heard_of_outside(message, flow) {
            return true; // By an account at another device of this user.
        }
        if from.uri.ip().is_some() && !foreign_link {
            return true; // A standard phone of a member, which knows its registrar by address.
        }
        let here = |node: &Node, user: &str| node.is_own(user) || node.registrar.hosts(user);
        let callee = Uri::parse(message.request_uri()).ok().and_then(|uri| self.domain.callee_of(&uri));
        if !callee.is_some_and(|user| here(self, &user.to_ascii_lowercase())) {
            return true;
        }
        let unix = self.unix(now);
        let (ends, proof, foreign) = match proven(message, Side::Caller, unix) {
            Ok(proven) => proven,
            Err(why) => {
                self.count("callers of other overlays that are not proven");
                tracing::warn!(%why, "a call from another overlay was refused");
                self.answer(now, tx, message, 403, "The caller is not proven");
                return false;
            }
        };
        let to_here = split_aor(&ends.callee).is_some_and(|(user, o)| o == self.domain.overlay() && here(self, user));
        if !to_here {
            self.count("callers of other overlays that are not proven");
            self.answer(now, tx, message, 403, "The proof is for another callee");
            return false;
        }
        let who = known(&ends.caller, &foreign);
        let standing = self.strangers.known.standing(&who);
        // Whose signature on the keys of the voice counts.
        let party = Some(Party { who: who.clone(), standing });
        self.vouch.let_in(message, BTreeSet::from([foreign.verified.device]), party);
        let stands = receive(policy, standing, false);
        // A token is spent only where it is needed.
        let token = stands == Reception::Knock && self.strangers.known.redeem(&proof, &ends.said(Side::Caller), unix);
        match receive(policy, standing, token) {
            Reception::Ring if standing == crate::identity::Standing::Contact => true,
            Reception::Ring => {
                if !token && !self.strangers.keys.take(now, &who.key) {
                    self.count("calls of strangers refused, too many");
                    self.answer(now, tx, message, 480, "Too many calls");
                    return false;
                }
                let news = match token {
                    true => self.strangers.known.add_unnamed(who).is_ok(),
                    false => self.strangers.known.remember(&who),
                };
                if news || token {
                    self.save_foreign();
                }
                true
            }
            Reception::Decline => {
                self.count("calls of strangers declined");
                self.answer(now, tx, message, 603, "Decline");
                false
            }
            reception @ (Reception::Knock | Reception::Changed) => {
                self.count("calls of strangers refused");
                self.note_knock(now, who, reception == Reception::Changed);
                self.answer(now, tx, message, 403, "Not known here; the call was noted");
                false
            }
        }
    }

    /// Notes a stranger's call, or a key that is not the one known, and shows it the first time.
    pub(super) fn note_knock(&mut self, now: Instant, who: Known, changed: bool) {
        let unix = self.unix(now);
        let (aor, key) = (who.aor.clone(), who.key.to_string());
        if self.strangers.known.knocked(who, changed, unix) && self.strangers.told.take(now, &()) {
            self.save_foreign();
            self.event(None, Event::Knocked { aor, key, changed });
        }
    }

    pub(super) fn save_foreign(&mut self) {
        let bytes = Bytes::from(self.strangers.known.to_bytes());
        self.out.push_back(Output::Save { what: Saved::Foreign, bytes });
    }

    /// This user's own contact link.
    pub(super) fn contact_link(&mut self, now: Instant, right: RingRight) -> Result<Reply, CommandError> {
        let unix = self.unix(now);
        let (Some(identity), false) = (&self.identity, self.flows.locals().clear) else {
            let what = "this device has no key that others could know it by";
            return Err(CommandError::new(what, "make the link on a peer of an office or of an open overlay"));
        };
        let verified = identity
            .verified(unix)
            .map_err(|fault| CommandError::new(format!("no link: {fault}"), "see `chordial status`"))?;
        let mut addrs = vec![self.flows.locals().overlay];
        let others = self.overlay.as_ref().map(|o| o.status().successors).unwrap_or_default();
        addrs.extend(others.iter().map(|p| p.addr).filter(|a| *a != addrs[0]).take(LINK_ADDRS - 1).collect::<Vec<_>>());
        let (aor, root) = (identity.aor(), Root::of(&identity.anchor));
        let token = (right != RingRight::Ask).then(|| RingToken::generate(&mut self.rng));
        if let Some(token) = &token {
            let until = if right == RingRight::Once { unix + ONCE } else { crate::core::UnixTime(u64::MAX >> 1) };
            let kept = self.strangers.known.give(token.clone(), right == RingRight::Once, until, unix);
            kept.map_err(|_| {
                CommandError::new("too many links with the right to ring are out", "hand one of them on")
            })?;
            self.save_foreign();
        }
        let link = ContactLink { aor, user_key: KeyFingerprint::of(&verified.user_key), root, addrs, token };
        Ok(Reply::ContactLink { link: link.text(), aor: link.aor.clone(), key: link.user_key.to_string() })
    }

    /// Takes up whoever a link or a knock names.
    pub(super) fn contact_accept(
        &mut self,
        now: Instant,
        what: &str,
        name: Option<&str>,
    ) -> Result<Reply, CommandError> {
        let refused = |fault: FullError| {
            let next = match &fault {
                FullError::OtherKey { aor, .. } => {
                    format!(
                        "ask them by another way; if the new key is theirs: chordial contacts forget {aor}, and again"
                    )
                }
                _ => "choose another --name".to_owned(),
            };
            CommandError::new(format!("not taken up: {fault}"), next)
        };
        if let Some(name) = name {
            self.is_free(name)?;
        }
        let (name, aor) = match ContactLink::parse(what) {
            Ok(link) => {
                let own = self.identity.as_ref().map(|i| (i.overlay().to_owned(), Root::of(&i.anchor)));
                let theirs = split_aor(&link.aor).map(|(_, overlay)| (overlay.to_owned(), link.root));
                let theirs_name = theirs.as_ref().map(|(overlay, _)| overlay.as_str());
                let itself = self.identity.as_ref().is_some_and(|i| i.aor() == link.aor);
                if own == theirs && (itself || !self.is_open()) {
                    let what = format!("{} is of this overlay", link.aor);
                    return Err(CommandError::new(what, format!("no link is needed: chordial call {}", link.aor)));
                }
                if own != theirs && theirs_name == Some(self.domain.overlay()) {
                    let what =
                        format!("{}: another overlay of the same name as this one cannot be told apart", link.aor);
                    return Err(CommandError::new(what, "one of the two needs another name"));
                }
                let name = match name {
                    Some(name) => name.to_owned(),
                    None => split_aor(&link.aor).map_or("", |(user, _)| user).to_owned(),
                };
                let ContactLink { aor, user_key, root, addrs, token } = link;
                let contact = Contact {
                    name: name.clone(),
                    aor: aor.clone(),
                    root,
                    key: user_key,
                    addrs,
                    token,
                    by: String::new(),
                };
                self.is_free(&name)?;
                self.strangers.known.add(contact).map_err(refused)?;
                (name, aor)
            }
            Err(fault) => match self.accepted(now, what, name)? {
                Some(Ok(name)) => {
                    let aor = self.strangers.known.contact(&name).map_or(String::new(), |c| c.aor.clone());
                    (name, aor)
                }
                Some(Err(fault)) => return Err(refused(fault)),
                None => {
                    let what = format!("neither a contact link ({fault}) nor one who knocked");
                    return Err(CommandError::new(what, "see `chordial strangers`, or copy the link again"));
                }
            },
        };
        self.save_foreign();
        Ok(Reply::Done { done: format!("{name} is {aor}; chordial call {name}") })
    }

    /// Two contacts of one name would hide each other.
    fn is_free(&self, name: &str) -> Result<(), CommandError> {
        match self.contact(name) {
            Some(target) => Err(CommandError::new(
                format!("not taken up: {name} is {target} already"),
                "choose another --name, or remove that contact first: chordial contacts remove NAME",
            )),
            None => Ok(()),
        }
    }

    pub(super) fn contact_forget(&mut self, name: &str) -> Result<Reply, CommandError> {
        let Some(aor) = self.strangers.known.forget(name) else {
            let what = format!("{name} is no contact of another overlay");
            return Err(CommandError::new(what, "see `chordial strangers`"));
        };
        self.save_foreign();
        Ok(Reply::Done { done: format!("forgot {aor} and its key") })
    }

    /// What is meant by a target that is to be blocked: a contact (its AOR and its key), an AOR, `@overlay`, or the key of
    /// one who knocked or was met, by its short fingerprint.
    fn blocks(&self, target: &str) -> Option<Vec<Block>> {
        let known = &self.strangers.known;
        if let Some(overlay) = target.strip_prefix('@') {
            return canonical_overlay(overlay).ok().map(|overlay| vec![Block::Overlay(overlay)]);
        }
        let knocks = known.knocks().iter().map(|k| &k.who);
        let keys = known.known().chain(knocks).map(|k| (k.aor.clone(), k.key));
        let keys = keys.chain(known.contacts().iter().map(|c| (c.aor.clone(), c.key)));
        let blocked = known.blocked().iter().filter_map(|b| match b {
            Block::Key(key) => Some((String::new(), *key)),
            Block::Aor(_) | Block::Overlay(_) => None,
        });
        let all: Vec<(String, KeyFingerprint)> = keys.chain(blocked).collect();
        let hint = KeyHint::parse(target);
        let by_key: BTreeSet<_> =
            all.iter().map(|(_, k)| *k).filter(|k| hint.as_ref().is_some_and(|h| h.fits(k))).collect();
        if !by_key.is_empty() {
            let by_key: Vec<_> = by_key.into_iter().map(Block::Key).collect();
            return Some(by_key);
        }
        let aor = match known.contact(target) {
            Some(contact) => contact.aor.clone(),
            None => {
                let text = if target.starts_with("sip:") { target.to_owned() } else { format!("sip:{target}") };
                plain_aor(&Uri::parse(&text).ok()?)?
            }
        };
        let its_keys = all.iter().filter(|(of, _)| *of == aor).map(|(_, key)| Block::Key(*key));
        Some(its_keys.chain([Block::Aor(aor.clone())]).collect())
    }

    pub(super) fn block(&mut self, target: &str, on: bool) -> Result<Reply, CommandError> {
        let Some(blocks) = self.blocks(target.trim()) else {
            let what = format!("\"{target}\" names nobody of another overlay");
            return Err(CommandError::new(
                what,
                "name a contact, user@overlay, @overlay, or a key of `chordial strangers`",
            ));
        };
        let named: Vec<_> = blocks.iter().map(Block::to_string).collect();
        let done = if on {
            for block in blocks {
                self.strangers
                    .known
                    .block(block)
                    .map_err(|_| CommandError::new("too many are blocked", "take some back with `chordial unblock`"))?;
            }
            format!("blocked {}", named.join(" and "))
        } else {
            if self.strangers.known.unblock(&blocks) == 0 {
                return Err(CommandError::new(format!("{target} is not blocked"), "see `chordial strangers`"));
            }
            format!("unblocked {}", named.join(" and "))
        };
        self.save_foreign();
        Ok(Reply::Done { done })
    }

    pub(super) fn strangers_report(&self, now: Instant) -> StrangersReport {
        let unix = self.unix(now);
        let known = &self.strangers.known;
        let row = |name: &str, aor: &str, root: Root, key: KeyFingerprint| ContactStatus {
            name: name.to_owned(),
            aor: aor.to_owned(),
            overlay_key: root.to_string(),
            key: key.to_string(),
            introduced_by: String::new(),
        };
        StrangersReport {
            may_ring: match self.setup.config.user.strangers {
                Policy::Contacts => "contacts",
                Policy::Known => "known",
                Policy::Anyone => "anyone",
                Policy::Nobody => "nobody",
            }
            .into(),
            contacts: known
                .contacts()
                .iter()
                .map(|c| ContactStatus { introduced_by: c.by.clone(), ..row(&c.name, &c.aor, c.root, c.key) })
                .collect(),
            introduced: known
                .introductions(unix)
                .map(|i| ContactStatus {
                    introduced_by: i.by.aor.clone(),
                    ..row(&i.name, &i.who.aor, i.who.root, i.who.key)
                })
                .collect(),
            known: known.known().map(|k| row("", &k.aor, k.root, k.key)).collect(),
            knocks: known
                .knocks()
                .iter()
                .rev()
                .map(|k| KnockStatus {
                    aor: k.who.aor.clone(),
                    overlay_key: k.who.root.to_string(),
                    key: k.who.key.to_string(),
                    times: k.times,
                    at: k.at.secs(),
                    changed: k.changed,
                })
                .collect(),
            blocked: known.blocked().iter().map(Block::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_lets_a_burst_through_and_then_one_at_a_time() {
        let mut throttle = Throttle::new(3, Duration::from_secs(10));
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let taken = |t: &mut Throttle<u32>, s, key| t.take(at(s), &key);
        assert_eq!((0..5).filter(|_| taken(&mut throttle, 100, 1)).count(), 3);
        assert!(taken(&mut throttle, 100, 2), "another is not touched");
        assert!(!taken(&mut throttle, 109, 1));
        assert!(taken(&mut throttle, 111, 1) && !taken(&mut throttle, 112, 1));
        for key in 0..FOLLOWED as u32 + 10 {
            throttle.take(at(200), &key);
        }
        assert!(throttle.rested.len() <= FOLLOWED);
        assert!(!taken(&mut throttle, 200, u32::MAX), "no room for one more");
        assert!(taken(&mut throttle, 400, u32::MAX), "the rested are forgotten");
    }
}
