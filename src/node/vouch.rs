//! Whether a peer may speak for the caller that a request names. A link proves a device; the device's certificate
//! names its user and extensions. A standard phone behind that peer is none of them: its registration is looked up, and the
//! entry has to be signed by that very device (its adapter certificate, or in an open overlay the phone's own claim).
//!
//! **Forwarded requests.** A supernode forwards for the nodes that hang on it, and its device signs for none of them. So whoever
//! sends a request by others has its own device sign it: who calls, whom (the peer-ID in the Request-URI), in which dialog, and the
//! body. That is an entry of the kind [`EntryKind::CALLER`] in the field `Caller-Proof`, good for five minutes and kept by nobody;
//! each node on the way and the callee check it like any entry. No supernode can make up a caller or exchange the body.
//!
//! A request whose caller cannot be vouched for is answered 403: nobody rings under another's name. Callers of other
//! domains are not members and are believed as far as the peer that lets them in.

use super::Node;
use super::hex::{hex, unhex};
use super::pins::Party;
use crate::core::{Flow, Instant};
use crate::core::{Id, limits};
use crate::identity::{Entry, EntryKind, KeyFingerprint, PublicKey, SignedEntry, Standing, Verifier};
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use crate::sip::tx::ServerTxId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Requests that wait for a lookup at once.
const WAITING: usize = 1024;
/// Answers remembered, the oldest given up first.
const REMEMBERED: usize = 4096;
/// The field with the caller's proof.
const PROOF: HeaderName<'static> = HeaderName::Other("Caller-Proof");
/// How long one counts, in seconds.
const PROOF_LIFETIME: u32 = 300;
/// How long an answer is remembered.
const GOOD_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Waiting {
    message: Message,
    flow: Flow,
    merged: bool,
    device: PublicKey,
    aor: String,
}

/// The caller of a call that was let in.
#[derive(Debug)]
struct Caller {
    call_id: String,
    /// The devices that it is known by.
    devices: BTreeSet<PublicKey>,
    /// Who it is, where that goes by the key.
    party: Option<Party>,
}

/// Requests whose caller is being looked up, and what was found lately.
#[derive(Default)]
pub(super) struct Vouching {
    waiting: BTreeMap<ServerTxId, Waiting>,
    /// Until when, and for which user's key.
    known: BTreeMap<([u8; 32], String), (Instant, KeyFingerprint)>,
    order: VecDeque<([u8; 32], String)>,
    /// Calls let in.
    callers: VecDeque<Caller>,
    verifier: Option<Verifier>,
}

impl Vouching {
    /// The devices that the caller of this call is known by; none for one that came from elsewhere than a link.
    pub fn devices_of(&self, call_id: &str) -> BTreeSet<PublicKey> {
        let found = self.callers.iter().rev().find(|c| c.call_id == call_id);
        found.map(|c| c.devices.clone()).unwrap_or_default()
    }

    /// The caller of this call, where it is known by its key.
    pub fn party_of(&self, call_id: &str) -> Option<Party> {
        self.callers.iter().rev().find(|c| c.call_id == call_id)?.party.clone()
    }

    /// The caller of this call stands otherwise by now.
    pub fn stands(&mut self, call_id: &str, standing: Standing) {
        let caller = self.callers.iter_mut().rev().find(|c| c.call_id == call_id);
        if let Some(party) = caller.and_then(|c| c.party.as_mut()) {
            party.standing = standing;
        }
    }

    /// Notes the devices that the caller of an INVITE is known by; of another overlay, the one that signed its proof.
    pub fn let_in(&mut self, message: &Message, devices: BTreeSet<PublicKey>, party: Option<Party>) {
        if *message.method() != Method::Invite {
            return;
        }
        if self.callers.len() >= WAITING {
            self.callers.pop_front();
        }
        let call_id = message.call_id().unwrap_or_default().to_owned();
        self.callers.push_back(Caller { call_id, devices, party });
    }

    /// Nothing that was found before counts any more.
    pub fn forget_all(&mut self) {
        self.known.clear();
        self.order.clear();
    }

    fn remember(&mut self, device: PublicKey, aor: String, until: Instant, user: KeyFingerprint) {
        let key = (device.0, aor);
        if self.known.insert(key.clone(), (until, user)).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Node {
    /// True when the request may be carried on now; otherwise it waits for a lookup, or has been answered.
    pub(super) fn is_vouched(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: &Message,
        flow: Flow,
        merged: bool,
    ) -> bool {
        // Within a dialog the dialog is the proof. In the laboratory nothing is.
        let Some(peer) = self.flows.peer(&flow).filter(|_| message.to_tag().is_none()) else { return true };
        let Some(user) = message.from().ok().and_then(|from| self.domain.user_of(&from.uri)) else { return true };
        let user = user.to_ascii_lowercase();
        let (device, aor) = (peer.device, self.domain.aor(&user));
        let (own, user_key) = (peer.speaks_for(&user), KeyFingerprint::of(&peer.user_key));
        if message.has(PROOF) && !own {
            if let Some((device, key)) = self.proven_caller(now, message, &aor) {
                let party = self.party(&aor, key);
                self.vouch.let_in(message, BTreeSet::from([device]), party);
                return true;
            }
            self.count("false proofs of callers");
            self.answer(now, tx, message, 403, "The proof of the caller does not hold");
            return false;
        }
        let lately =
            self.vouch.known.get(&(device.0, aor.clone())).filter(|(until, _)| *until > now).map(|(_, key)| *key);
        if let Some(key) = own.then_some(user_key).or(lately) {
            let party = self.party(&aor, key);
            self.vouch.let_in(message, BTreeSet::from([device]), party);
            return true;
        }
        if self.vouch.waiting.len() >= WAITING {
            self.answer(now, tx, message, 503, "Service Unavailable");
            return false;
        }
        let waiting = Waiting { message: message.clone(), flow, merged, device, aor: aor.clone() };
        self.vouch.waiting.insert(tx, waiting);
        self.lookup_for_vouch(now, tx, &aor);
        false
    }

    /// Signs for the caller of a request that others will forward, when it is this node's to sign for.
    pub(super) fn prove_caller(&self, now: Instant, message: &mut Message) {
        let unix = self.agreed(now);
        let user = message.from().ok().and_then(|from| self.domain.user_of(&from.uri)).map(|u| u.to_ascii_lowercase());
        let Some((user, identity)) = user.zip(self.identity.as_ref()) else { return };
        if message.has(PROOF) || !(self.is_own(&user) || self.registrar.hosts(&user)) {
            return;
        }
        let entry = Entry {
            kind: EntryKind::CALLER,
            aor: self.domain.aor(&user),
            device: identity.device_key(),
            sequence: 0,
            issued: unix,
            lifetime: PROOF_LIFETIME,
            body: binding(message).to_vec(),
        };
        if let Ok(signed) = identity.phone_identity(&user, unix).and_then(|i| i.sign_entry(entry)) {
            message.push(PROOF, hex(signed.encoded()));
        }
    }

    /// The device whose word a request carries, where it may speak for this caller; and its user's key.
    fn proven_caller(&mut self, now: Instant, message: &Message, aor: &str) -> Option<(PublicKey, KeyFingerprint)> {
        let unix = self.agreed(now);
        let anchor = self.identity.as_ref()?.anchor.clone();
        let signed = SignedEntry::decode(&message.header(PROOF).and_then(short).and_then(unhex)?).ok()?;
        let entry = signed.entry();
        let says = entry.kind == EntryKind::CALLER
            && entry.aor == aor
            && entry.lifetime <= PROOF_LIFETIME
            && entry.body == binding(message);
        let verifier = self.vouch.verifier.get_or_insert_with(|| Verifier::new(anchor, REMEMBERED));
        let user = signed.chain().user_key().map(|key| KeyFingerprint::of(&key))?;
        (says && verifier.verify_entry(&signed, &entry.resource_key(), unix).is_ok()).then_some((entry.device, user))
    }

    /// The caller's registration was looked up.
    pub(super) fn on_vouched(&mut self, now: Instant, tx: ServerTxId, entries: &[SignedEntry]) {
        let Some(Waiting { message, flow, merged, device, aor }) = self.vouch.waiting.remove(&tx) else { return };
        // Kinds that anybody may write under an address prove nothing about it.
        let own = |e: &&SignedEntry| [EntryKind::Contact, EntryKind::DEVICE].contains(&e.entry().kind);
        let user = |e: &SignedEntry| e.chain().user_key().map(|key| KeyFingerprint::of(&key));
        let its = entries.iter().filter(own).find(|e| e.entry().device == device && !e.entry().is_removal());
        if let Some(key) = its.and_then(user) {
            // Others who claim the name sign for calls of their own.
            let open = self.is_open();
            let its = entries.iter().filter(own).filter(|e| !open || user(e) == Some(key));
            let (devices, party) = (its.map(|e| e.entry().device).collect(), self.party(&aor, key));
            self.vouch.remember(device, aor, now + GOOD_FOR, key);
            self.vouch.let_in(&message, devices, party);
            if !self.is_welcome(now, tx, &message, &flow, true) {
                return;
            }
            return self.route_on(now, tx, message, flow, true, merged);
        }
        self.count("callers that a peer may not speak for");
        tracing::warn!(%aor, "a peer names a caller that it may not speak for");
        self.answer(now, tx, &message, 403, "The caller is not registered through this peer");
    }

    /// A request that waits was cancelled: it ends here.
    pub(super) fn cancel_vouching(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(waiting) = self.vouch.waiting.remove(&invite) {
            self.answer(now, invite, &waiting.message, 487, "Request Terminated");
        }
    }
}

/// What a proof is about: method, callee's peer-ID, Call-ID, tag of From and body. BLAKE3 in key derivation mode over the five, each
/// with its length before it.
fn binding(message: &Message) -> [u8; 32] {
    let callee = Uri::parse(message.request_uri()).ok();
    let callee = callee.and_then(|uri| uri.params.get("peer-ID").and_then(Id::from_hex)).unwrap_or_default();
    let mut hash = blake3::Hasher::new_derive_key("chordial caller proof v1");
    let parts: [&[u8]; 5] = [
        message.method().as_str().as_bytes(),
        &callee.0,
        message.call_id().unwrap_or_default().as_bytes(),
        message.from_tag().unwrap_or_default().as_bytes(),
        message.body(),
    ];
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().as_bytes()
}

/// The field's value where it is no longer than an entry may be.
fn short(value: &str) -> Option<&str> {
    Some(value.trim()).filter(|text| text.len() <= limits::RECORD_ENTRY * 2)
}
