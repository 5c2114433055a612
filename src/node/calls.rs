//! The user agent in the node: where a callee is, which media threads serve a call, whose command it belongs to.

use super::detour::Sent;
use super::lookup::Found;
use super::pins::{Party, named, standing_word};
use super::{MediaCommand, MediaInput, Node, Output, Owner};
use crate::core::Instant;
use crate::identity::{Choice, KeyHint, PublicKey, split_aor};
use crate::node::control::{CallReport, CallStatus, CommandError, Event, Reply, RequestId};
use crate::pbx::Target as Place;
use crate::pbx::router::QueryId;
use crate::sip::msg::Uri;
use crate::sip::tx;
use crate::ua::{
    self, AccountId, CallId, Direction, Hop, MediaPlan, Report, RequestKey, State, Summary, Target, UaEvent,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Ended calls that are remembered.
const ENDED: usize = 50;

/// What the node remembers of calls beyond what the user agent does.
#[derive(Debug, Default)]
pub(super) struct Calls {
    commands: BTreeMap<CallId, RequestId>,
    hops: BTreeMap<CallId, u32>,
    /// The user key that the caller has named, where several claim the callee's name.
    chosen: BTreeMap<CallId, KeyHint>,
    /// The same of a phone's request in the proxy.
    pub chosen_by_phone: BTreeMap<QueryId, KeyHint>,
    /// The other end, where it is known by its key.
    pub parties: BTreeMap<CallId, Party>,
    /// Of a call that was placed: the devices that the callee is known by.
    pub(super) devices: BTreeMap<CallId, BTreeSet<PublicKey>>,
    /// How a call's voice is protected, once that is agreed.
    security: BTreeMap<CallId, &'static str>,
    pub ended: VecDeque<CallReport>,
}

/// What a person wrote for a callee.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Callee {
    /// A user of this overlay, and the fingerprint of the user's key where one was named.
    Aor { aor: String, claim: Option<KeyHint> },
    /// Any other SIP URI.
    Outside(Uri),
    /// The same, by an account.
    Account(AccountId, Uri),
}

impl Calls {
    /// Nothing of its voice was encrypted.
    pub(super) fn failed_security(&mut self, call: CallId) {
        self.security.insert(call, "failed");
    }

    /// What is known of a callee holds no longer.
    pub(super) fn forget_callee(&mut self, call: CallId) {
        self.chosen.remove(&call);
        self.devices.remove(&call);
        self.parties.remove(&call);
    }

    /// The command that placed a call and waits for its end.
    pub(super) fn command_of(&self, call: CallId) -> Option<RequestId> {
        self.commands.get(&call).copied()
    }
}

impl Node {
    /// Reads TARGET: the name of a contact, of this overlay or another, extension, user name, AOR or `sip:` URI; each with
    /// `~fingerprint` after the user where several claim the name.
    pub(super) fn callee(&self, target: &str) -> Result<Callee, CommandError> {
        let target = target.trim();
        let contact = self.contact(target).map(str::to_owned);
        let target = contact.as_deref().unwrap_or(target);
        // A contact's name goes before a user's: whoever took it up has chosen it.
        if let Some(contact) = self.strangers.known.contact(target)
            && let Ok(uri) = Uri::parse(&contact.aor)
        {
            return Ok(match split_aor(&contact.aor) {
                Some((_, overlay)) if overlay == self.domain.overlay() && self.overlay.is_some() => {
                    Callee::Aor { aor: contact.aor.clone(), claim: None }
                }
                _ => Callee::Outside(uri),
            });
        }
        let wrong = |what: &str| {
            CommandError::new(
                format!("{what}: \"{target}\""),
                "name an extension, a user, user@overlay or a URI such as sip:bob@192.0.2.7",
            )
        };
        if let Some((account, uri)) = self.account_for_number(target) {
            return Ok(Callee::Account(account, uri));
        }
        let text = match target {
            "" => return Err(wrong("no target")),
            t if t.starts_with("sip:") || t.starts_with("sips:") || t.starts_with("tel:") => t.to_owned(),
            t if t.contains('@') => format!("sip:{t}"),
            t => Uri::sip(Some(t), self.domain.overlay(), None).to_string(),
        };
        let uri = Uri::parse(&text).map_err(|_| wrong("not an address"))?;
        match self.domain.callee_of(&uri) {
            Some(user) if self.overlay.is_some() => {
                let (user, claim) = named(&user).ok_or_else(|| wrong("no fingerprint of a key stands behind the ~"))?;
                let user = crate::identity::canonical_user(user).map_err(|_| wrong("not a user name"))?;
                Ok(Callee::Aor { aor: self.domain.aor(&user), claim })
            }
            _ if uri.is_sip() => Ok(match self.account_for_uri(&uri) {
                Some(account) => Callee::Account(account, uri),
                None => Callee::Outside(uri),
            }),
            _ => Err(wrong("not an address that can be called")),
        }
    }

    /// Places a call for a command.
    pub(super) fn place(
        &mut self,
        now: Instant,
        request: RequestId,
        callee: Callee,
        play: Option<String>,
        record: Option<String>,
        duration: Option<Duration>,
    ) {
        let with = match &callee {
            Callee::Aor { aor, .. } => aor.clone(),
            Callee::Outside(uri) | Callee::Account(_, uri) => uri.to_string(),
        };
        let call = self.ua.place(now, with, play, record, duration);
        self.calls.commands.insert(call, request);
        self.seek(now, call, callee);
    }

    /// Finds where a callee is, for a call that was placed.
    pub(super) fn seek(&mut self, now: Instant, call: CallId, callee: Callee) {
        match callee {
            Callee::Aor { aor, claim } => {
                if let Some(claim) = claim {
                    self.calls.chosen.insert(call, claim);
                }
                self.lookup_for_call(now, call, aor);
            }
            Callee::Outside(uri) => {
                let target = Target { uri: uri.to_string(), hop: Hop::Uri(uri) };
                self.ua.targets(now, call, vec![target]);
            }
            Callee::Account(account, uri) => {
                self.ua.place_by(call, account);
                let target = Target { uri: uri.to_string(), hop: Hop::Account { account, uri: None } };
                self.ua.targets(now, call, vec![target]);
            }
        }
    }

    pub(super) fn on_callee_found(&mut self, now: Instant, call: CallId, aor: &str, found: &Found, hops: u32) {
        self.calls.hops.insert(call, hops);
        let choice = self.choose(now, aor, &found.claims, self.calls.chosen.get(&call));
        if let Some(doubt) = self.doubt(now, aor, &choice) {
            self.note_changed(now, aor, &choice);
            let status = if matches!(choice, Choice::Unclear(_)) { 404 } else { 300 };
            return self.ua.give_up(now, call, status, doubt);
        }
        let user = split_aor(aor).map(|(user, _)| user);
        let key = if let Choice::Key(key) = choice { Some(key) } else { None };
        self.calls.devices.insert(call, found.devices_of(key));
        if let Some(party) = key.and_then(|key| self.party(aor, key)) {
            self.calls.parties.insert(call, party);
        }
        let peers = found.peers.iter().filter(|(_, claim)| Some(*claim) == key);
        let mut targets: Vec<_> = peers
            .map(|(peer, _)| Target {
                uri: self.contact_uri(user, peer),
                hop: Hop::Peer { id: peer.id, addr: peer.addr },
            })
            .collect();
        // A phone here, unless somebody else of that name is meant.
        let own = user.and_then(|user| self.own_key(now, user));
        if key.is_none() || own.is_none() || key == own {
            targets.extend(self.phone_targets(now, user.unwrap_or_default()));
        }
        if targets.is_empty() {
            return self.ua.give_up(now, call, 404, format!("{aor} is not registered"));
        }
        self.ua.targets(now, call, targets);
    }

    /// Carries out what the user agent says; true when there was anything.
    pub(super) fn settle_ua(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(output) = self.ua.poll_output() {
            busy = true;
            match output {
                // RFC 3428 section 8: what is larger goes over a stream or not at all.
                ua::Output::Request { key: key @ RequestKey::Message(_), message, hop }
                    if self.is_too_large(&message, &hop) =>
                {
                    self.ua.on_failure(now, key, 513);
                }
                ua::Output::Request { key, mut message, hop } => {
                    if let Hop::Account { account, uri } = hop {
                        self.send_by_account(now, account, uri, message, Some(Owner::Ua(key)));
                        continue;
                    }
                    self.show_token(now, &mut message);
                    let hop = self.hop_in_dialog(&message, hop);
                    if let Some(uri) = self.needs_way(&hop) {
                        let branch = tx::new_branch(&mut self.rng);
                        self.find_way(now, message, uri, &branch, Some(Owner::Ua(key)));
                        continue;
                    }
                    match self.send_request(now, message, &hop, Owner::Ua(key)) {
                        Sent::Tx(tx) => self.ua.sent(key, tx),
                        Sent::Later => {}
                        Sent::No => self.ua_failed(now, key, 503),
                    }
                }
                ua::Output::Ack { message, hop: Hop::Account { account, uri } } => {
                    self.send_by_account(now, account, uri, message, None);
                }
                ua::Output::Ack { message, hop } => {
                    let hop = self.hop_in_dialog(&message, hop);
                    let branch = tx::new_branch(&mut self.rng);
                    self.send_stateless(now, message, &hop, &branch);
                }
                ua::Output::Respond { tx, mut message } => {
                    self.prove_answer(now, &mut message);
                    self.tx.respond(now, tx, message);
                }
                ua::Output::Cancel { tx, reason } => self.cancel_tx(now, tx, reason),
                ua::Output::OpenMedia { call } => self.out.push_back(Output::Media(MediaCommand::Open { call })),
                ua::Output::StartMedia { call, caller, plan } => self.start_voice(now, call, caller.as_deref(), plan),
                ua::Output::Candidates { call, candidates } => self.on_remote_candidates(now, call, &candidates),
                ua::Output::Mute { call, muted } => {
                    self.out.push_back(Output::Media(MediaCommand::Mute { call, muted }))
                }
                ua::Output::SendDtmf { call, digit } => {
                    self.out.push_back(Output::Media(MediaCommand::Dtmf { call, digit }));
                }
                ua::Output::CloseMedia { call } => {
                    self.end_path(now, call);
                    self.out.push_back(Output::Media(MediaCommand::Close { call }));
                }
                ua::Output::Event { event } => self.on_ua_event(now, event),
            }
        }
        busy
    }

    /// Lets voice flow, once the keys of its encryption are those of a device that may have signed for them. `caller` is the
    /// Call-ID of a call that came in.
    fn start_voice(&mut self, now: Instant, call: CallId, caller: Option<&str>, plan: Box<MediaPlan>) {
        let known = match caller {
            Some(call_id) => self.vouch.devices_of(call_id),
            None => self.calls.devices.get(&call).cloned().unwrap_or_default(),
        };
        let security = match plan.secured.map(|s| s.signer) {
            None => "none",
            Some(Some(signer)) if known.contains(&signer) => "dtls-srtp",
            Some(Some(_)) if !known.is_empty() => {
                self.count("calls whose keys another device had signed");
                let why = "the keys of the call are signed by a device that is not the other end's";
                return self.ua.give_up(now, call, 488, why.to_owned());
            }
            // Encrypted, and nobody known says with whom.
            Some(_) => "dtls-srtp-unverified",
        };
        self.calls.security.insert(call, security);
        self.expect_voice(call, &plan);
        self.agree_path(now, call, plan.ice.as_ref());
        self.out.push_back(Output::Media(MediaCommand::Start { call, plan }));
    }

    fn on_ua_event(&mut self, now: Instant, event: UaEvent) {
        match event {
            UaEvent::Incoming { call, from, waiting } => {
                let (key, standing) = shown(self.caller(call).as_ref());
                let outside = self.ua.invited_by(call).and_then(|id| self.shown_outside(id)).unwrap_or_default();
                let (account, diverted) = (outside.account, outside.diverted);
                self.event(None, Event::Incoming { call: call.0, from, key, standing, waiting, account, diverted });
            }
            UaEvent::Ringing { call } => self.event(self.calls.command_of(call), Event::Ringing { call: call.0 }),
            UaEvent::Answered { call, setup, codec } => {
                self.met_in_call(call);
                let setup_ms = setup.as_secs_f64() * 1000.0;
                self.event(self.calls.command_of(call), Event::Answered { call: call.0, setup_ms, codec });
            }
            UaEvent::Held { call, here, there } => {
                self.event(self.calls.command_of(call), Event::Held { call: call.0, here, there });
            }
            UaEvent::HoldAnswered { call, hold, result } => self.on_hold_answered(call, hold, result),
            UaEvent::Digit { call, digit } => self.on_digit(call, digit),
            UaEvent::TransferProgress { call, status, reason } => {
                self.event(self.calls.command_of(call), Event::Transfer { call: call.0, status, reason });
            }
            UaEvent::TransferAnswered { call, result } => self.on_transfer_answered(call, result),
            UaEvent::Referred { call, to, referred } => self.on_referred(now, call, &to, referred),
            UaEvent::Redirected { call, to } => self.on_redirected(now, call, &to),
            UaEvent::Ended { call, report } => self.on_ended(call, &report),
            UaEvent::Registered { account, .. } => self.on_account_registered(now, account),
            UaEvent::Unregistered { .. } if self.stopping.is_some() && !self.ua.is_unregistering() => self.leave(now),
            UaEvent::Unregistered { .. } => {}
            UaEvent::Message { tx, request, .. } => self.on_ua_message(now, tx, &request),
            UaEvent::MessageAnswered { key, status, reason } => self.on_message_answered(now, key, status, &reason),
            UaEvent::RegistrationFailed { account, status, reason } => self.on_account_failed(account, status, reason),
        }
    }

    fn on_ended(&mut self, call: CallId, report: &Report) {
        self.talk_ended(call);
        let hops = self.calls.hops.remove(&call).unwrap_or(0);
        self.calls.chosen.remove(&call);
        self.calls.devices.remove(&call);
        self.calls.parties.remove(&call);
        let security = self.calls.security.remove(&call).unwrap_or("none");
        let mut report = CallReport { security: security.into(), ..call_report(call, report, hops) };
        if let Some(path) = self.paths.describe(call) {
            report.path = path;
        }
        report.transport = self.paths.carried(call).unwrap_or_default().into();
        self.forget_path(call);
        self.expect_no_voice(call);
        self.calls.ended.push_front(report.clone());
        self.calls.ended.truncate(ENDED);
        match self.calls.commands.remove(&call) {
            Some(request) => self.reply(request, Ok(Reply::Call(report))),
            None => self.event(None, Event::Ended { call: call.0, report: Box::new(report) }),
        }
    }

    pub(super) fn on_media(&mut self, now: Instant, input: MediaInput) {
        match input {
            MediaInput::Opened { call, opened, also, tcp } => {
                self.open_path(now, call, opened, &also, &tcp);
                self.ua.media_opened(now, call, opened);
            }
            MediaInput::Packet { call, local, from, bytes } => self.on_path_packet(now, call, local, from, &bytes),
            MediaInput::Lanes { call, figures } => self.paths.set_lanes(now, call, figures),
            MediaInput::Quiet { call, quiet } => self.on_quiet(now, call, quiet),
            MediaInput::Unsecured { call, why } => self.on_unsecured(now, call, &why),
            MediaInput::Reached { call, local, relay } => self.on_leg(now, call, local, relay),
            MediaInput::Unreached { call, local } => self.on_no_leg(now, call, local),
            MediaInput::Failed { call, why } => self.ua.media_failed(now, call, &why),
            MediaInput::Dtmf { call, digit } => self.on_digit(call, digit),
            MediaInput::Closed { call, stats } => self.ua.media_closed(now, call, stats),
        }
    }

    /// Whoever asked has gone: a call that they placed ends.
    pub(super) fn on_abort(&mut self, now: Instant, request: RequestId) {
        let call = self.calls.commands.iter().find(|(_, r)| **r == request).map(|(call, _)| *call);
        if let Some(call) = call {
            self.ua.hang_up(now, call);
        }
    }

    pub(super) fn call_statuses(&self, now: Instant) -> Vec<CallStatus> {
        let alive = self.ua.summaries(now).into_iter().filter(|s| s.state != State::Over);
        let security = |call: &CallId| self.calls.security.get(call).copied().unwrap_or_default().to_owned();
        let path = |s: &Summary| {
            let agreed = if s.codec.is_empty() { String::new() } else { "direct".to_owned() };
            self.paths.describe(s.call).unwrap_or(agreed)
        };
        let with_key = |s: Summary| {
            let (key, standing) = shown(self.calls.parties.get(&s.call));
            let paths = self.paths.both(s.call);
            let transport = self.paths.carried(s.call).unwrap_or_default().into();
            let (security, path) = (security(&s.call), path(&s));
            let outside = self.ua.invited_by(s.call).and_then(|id| self.shown_outside(id)).map(|o| o.account);
            let account = s.account.map(|a| self.account_name(a)).or(outside).unwrap_or_default();
            CallStatus { account, security, path, paths, transport, key, standing, ..call_status(s) }
        };
        alive.map(with_key).collect()
    }
}

/// A dialled user, and the fingerprint of the user's key where one was named: `user~fingerprint`.
pub(super) fn claimed(user: &str) -> (&str, Option<&str>) {
    match user.split_once('~') {
        Some((user, claim)) => (user, Some(claim)),
        None => (user, None),
    }
}

/// The short fingerprint of the other end's key and how it stands; empty where it is not known by a key.
fn shown(party: Option<&Party>) -> (String, String) {
    party.map_or_else(Default::default, |p| (p.who.key.to_string(), standing_word(p.standing).to_owned()))
}

/// The way to a place that the registrar or the proxy names.
pub(super) fn hop_of(place: &Place) -> Hop {
    match place {
        Place::Flow { flow, .. } => Hop::Flow(*flow),
        Place::Peer { id, addr, .. } => Hop::Peer { id: *id, addr: *addr },
        Place::Path { edge, .. } => Hop::Path { id: edge.id, addr: edge.addr, path: edge.path.clone() },
        Place::Uri { uri } | Place::Ua { uri } => match Uri::parse(uri) {
            Ok(uri) => Hop::Uri(uri),
            // Leads nowhere, which whoever sends there is told.
            Err(_) => Hop::Uri(Uri::sip(None, "invalid", None)),
        },
    }
}

fn direction(direction: Direction) -> String {
    match direction {
        Direction::In => "in".into(),
        Direction::Out => "out".into(),
    }
}

fn call_status(s: Summary) -> CallStatus {
    let state = match s.state {
        State::LookingUp => "looking-up",
        State::Calling => "calling",
        State::Ringing => "ringing",
        State::Incoming => "incoming",
        State::Answering => "answering",
        State::Answered if s.held || s.held_there => "held",
        State::Answered => "answered",
        State::Ending | State::Over => "ending",
    };
    CallStatus {
        call: s.call.0,
        direction: direction(s.direction),
        with: s.with,
        state: state.into(),
        talk_s: s.talk.as_secs_f64(),
        codec: s.codec,
        held_by: held_by(s.held, s.held_there).into(),
        muted: s.muted,
        ..CallStatus::default()
    }
}

fn held_by(here: bool, there: bool) -> &'static str {
    match (here, there) {
        (false, false) => "",
        (true, false) => "here",
        (false, true) => "there",
        (true, true) => "both",
    }
}

fn call_report(call: CallId, r: &Report, hops: u32) -> CallReport {
    CallReport {
        result: r.ending.as_str().into(),
        status: r.status,
        reason: r.reason.clone(),
        call: call.0,
        direction: direction(r.direction),
        with: r.with.clone(),
        setup_ms: r.setup.as_secs_f64() * 1000.0,
        talk_s: r.talk.as_secs_f64(),
        codec: r.codec.clone(),
        sent: r.stats.sent,
        received: r.stats.received,
        lost: r.stats.lost,
        jitter_ms: r.stats.jitter_ms,
        rtt_ms: r.stats.rtt_ms,
        path: if r.codec.is_empty() { String::new() } else { "direct".into() },
        security: "none".into(),
        transport: String::new(),
        hops,
    }
}
