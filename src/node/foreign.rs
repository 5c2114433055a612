//! Callers and callees of other overlays: what comes over their links, and the proofs in requests and answers.
//!
//! A link with another overlay carries calls and messages and what belongs to them, and what is said when one office becomes part
//! of another ([`super::merging`]); nothing else: no overlay request, no registration, no lookup's answer. Who calls over it has to be the one whose device dialled, by its chain and by the
//! proof that goes on to the callee; a name of this overlay is refused. The callee is looked up in the ring as for a phone.

use super::Node;
use super::flows::Wire;
use crate::core::{Flow, Instant, UnixTime};
use crate::identity::{
    CallProof, Foreign, Identity, Known, MERGE_TYPE, PROOF_HEADER, Proven, REVOCATIONS_TYPE, RingToken, Said, Side,
    split_aor,
};
use crate::pbx::policy::Origin;
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use crate::sip::tx::ServerTxId;
use std::time::Duration;

/// How long a link of another overlay may stay without a request that is taken.
const SILENT: Duration = Duration::from_secs(30);

/// The canonical AOR that a URI is, without port or parameters; none for anything else.
pub(super) fn plain_aor(uri: &Uri) -> Option<String> {
    if uri.scheme.as_str() != "sip" || uri.ip().is_some() || uri.port.is_some() || uri.password.is_some() {
        return None;
    }
    let user = uri.user_unescaped()?;
    let aor = format!("sip:{user}@{}", uri.host).to_ascii_lowercase();
    split_aor(&aor)?;
    (uri.params.to_string().is_empty() && uri.headers.is_empty()).then_some(aor)
}

/// A message's own words about its two ends.
#[derive(Debug)]
pub(super) struct Ends {
    method: String,
    call_id: String,
    tag: String,
    pub caller: String,
    pub callee: String,
    body: Vec<u8>,
}

impl Ends {
    /// Those of a request or response whose two ends are AORs.
    pub fn of(message: &Message) -> Option<Ends> {
        Some(Ends {
            method: message.cseq().ok()?.method.as_str().to_owned(),
            call_id: message.call_id()?.to_owned(),
            tag: message.from_tag()?.to_owned(),
            caller: plain_aor(&message.from().ok()?.uri)?,
            callee: plain_aor(&message.to().ok()?.uri)?,
            body: message.body().to_vec(),
        })
    }

    pub fn said(&self, side: Side) -> Said<'_> {
        Said {
            side,
            method: &self.method,
            call_id: &self.call_id,
            tag: &self.tag,
            caller: &self.caller,
            callee: &self.callee,
            body: &self.body,
        }
    }
}

/// Whose word a message carries in its proof, if that holds.
pub(super) fn proven(message: &Message, side: Side, now: UnixTime) -> Result<(Ends, CallProof, Foreign), &'static str> {
    let ends = Ends::of(message).ok_or("its ends are no addresses")?;
    let text = message.header(HeaderName::Other(PROOF_HEADER)).ok_or("it brings no proof")?;
    let proof = CallProof::parse(text).map_err(|_| "its proof is malformed")?;
    let foreign = proof.verify(&ends.said(side), now).map_err(|fault| {
        tracing::debug!(%fault, "a proof that does not hold");
        "its proof does not hold"
    })?;
    Ok((ends, proof, foreign))
}

/// By what the speaker of a proof is known.
pub(super) fn known(aor: &str, foreign: &Foreign) -> Known {
    Known { aor: aor.to_owned(), root: foreign.root(), key: foreign.user_key() }
}

impl Node {
    pub(super) fn on_accepted(&mut self, now: Instant, flow: Flow, peer: Proven) {
        if let (Proven::Foreign(_), Some(conn)) = (&peer, flow.conn) {
            self.strangers.silent.set(conn, now + SILENT);
        }
        if peer.member().is_some() {
            self.relay_to_member(flow.remote.ip());
        }
        self.flows.accepted(flow, peer);
    }

    /// Closes links of other overlays that never said anything worth it.
    pub(super) fn on_silent_foreign(&mut self, now: Instant) {
        while let Some(conn) = self.strangers.silent.pop(now) {
            self.count("links of other overlays closed, nothing asked");
            self.wire.push(Wire::Close { conn });
        }
    }

    /// A request on a link whose other end belongs to another overlay.
    pub(super) fn on_foreign(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        message: Message,
        flow: Flow,
        foreign: &Foreign,
        merged: bool,
    ) {
        if message.to_tag().is_some() {
            if self.ua.owns(&message) {
                return self.ua.on_request(now, tx, &message, flow, true);
            }
            if self.router.proves_dialog(&message) {
                return self.router.on_request(now, tx, message, &flow, &Origin::Dialog);
            }
            return self.answer(now, tx, &message, 481, "Call/Transaction Does Not Exist");
        }
        if *message.method() == Method::Register && message.content_is(MERGE_TYPE) {
            return self.on_merge(now, tx, &message, flow, foreign);
        }
        if *message.method() == Method::Register && message.content_is(REVOCATIONS_TYPE) {
            return self.on_successor_asked(now, tx, &message, foreign);
        }
        if !matches!(message.method().as_str(), "INVITE" | "MESSAGE") {
            self.count("requests of other overlays refused");
            return self.answer(now, tx, &message, 403, "Members only");
        }
        if !self.strangers.admits(now, flow.remote.ip(), foreign) {
            self.count("requests of other overlays refused, too many");
            let mut reply = Message::reply(&message, 503, "Too many calls from there");
            reply.set_to_tag(&self.rng.token(6));
            reply.push(HeaderName::RetryAfter, 30);
            self.tx.respond(now, tx, reply);
            return;
        }
        let refusal = match proven(&message, Side::Caller, self.agreed(now)) {
            Err(why) => Some(why),
            // The device that dialled, of the overlay that it dialled from.
            Ok((_, _, said)) if said.anchor != foreign.anchor || said.verified.device != foreign.verified.device => {
                Some("the caller is not the one who dialled")
            }
            Ok((ends, _, _)) if split_aor(&ends.caller).is_none_or(|(_, o)| o == self.domain.overlay()) => {
                Some("the caller has a name of this overlay")
            }
            Ok(_) => None,
        };
        if let Some(why) = refusal {
            self.count("callers of other overlays that are not proven");
            tracing::warn!(from = %flow.remote, %why, "a call from another overlay was refused");
            return self.answer(now, tx, &message, 403, "The caller is not proven");
        }
        if let Some(conn) = flow.conn {
            self.strangers.silent.cancel(&conn);
        }
        if !self.is_welcome(now, tx, &message, &flow, true) {
            return;
        }
        if merged && self.ua.owns(&message) {
            return self.answer(now, tx, &message, 482, "Loop Detected (merged request)");
        }
        self.router.on_request(now, tx, message, &flow, &Origin::Foreign);
    }

    /// Makes a request of ours ready for another overlay: its caller by AOR, and the proof. False when this device may not
    /// speak for the caller.
    pub(super) fn prove_call(&self, now: Instant, message: &mut Message, token: Option<&RingToken>) -> bool {
        if message.to_tag().is_some() || *message.method() == Method::Ack {
            return true;
        }
        let Ok(mut from) = message.from() else { return false };
        let Some(user) = self.domain.user_of(&from.uri).map(|u| u.to_ascii_lowercase()) else { return false };
        if plain_aor(&from.uri).is_none_or(|aor| aor != self.domain.aor(&user)) {
            // A phone that knows its registrar by address; elsewhere that address says nothing.
            from.uri = Uri::sip(Some(&user), self.domain.overlay(), None);
            message.set(HeaderName::From, from);
        }
        let unix = self.agreed(now);
        let Some(identity) = self.speaks_here(&user, unix) else { return false };
        let Some(ends) = Ends::of(message) else { return false };
        let proof = CallProof::sign(&ends.said(Side::Caller), &identity, token, unix);
        message.set(HeaderName::Other(PROOF_HEADER), proof.text());
        true
    }

    /// Signs the answer to a caller of another overlay who reached a user here.
    pub(super) fn prove_answer(&self, now: Instant, message: &mut Message) {
        if message.status() / 100 != 2 || self.overlay.is_none() || message.has(HeaderName::Other(PROOF_HEADER)) {
            return;
        }
        let calls = message.cseq().is_ok_and(|c| matches!(c.method.as_str(), "INVITE" | "MESSAGE"));
        let Some(ends) = Ends::of(message).filter(|_| calls) else { return };
        let (Some((_, theirs)), Some((user, ours))) = (split_aor(&ends.caller), split_aor(&ends.callee)) else {
            return;
        };
        if theirs == self.domain.overlay() || ours != self.domain.overlay() {
            return;
        }
        let unix = self.agreed(now);
        if let Some(identity) = self.speaks_here(user, unix) {
            let proof = CallProof::sign(&ends.said(Side::Callee), &identity, None, unix);
            message.push(HeaderName::Other(PROOF_HEADER), proof.text());
        }
    }

    /// The identity under which this device speaks for a user who is here: its own, or a phone's.
    pub(super) fn speaks_here(&self, user: &str, unix: UnixTime) -> Option<Identity> {
        let here = self.is_own(user) || self.registrar.hosts(user);
        self.identity.as_ref().filter(|_| here)?.phone_identity(user, unix).ok()
    }
}
