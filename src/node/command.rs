//! What a person or a script asks of the node.

use super::calls::Callee;
use super::certify::PhoneWanted;
use super::control::{
    Command, CommandError, Listen, OverlayStatus, PeerStatus, PhoneStatus, Registration, Reply, RequestId, Status,
};
use super::{Node, Output, Saved};
use crate::core::Instant;
use crate::identity::canonical_user;
use crate::overlay::PeerRef;
use crate::ua::{CallId, State};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

type Answer = Result<Reply, CommandError>;

impl Node {
    pub(super) fn on_command(&mut self, now: Instant, request: RequestId, command: Command) {
        let answer = match command {
            Command::Status => Ok(Reply::Status(Box::new(self.status(now)))),
            Command::Relays => return self.find_relays(now, Some(request)),
            Command::Peers => Ok(Reply::Peers { peers: self.peers() }),
            Command::Lookup { target, iterative } => return self.command_lookup(now, request, &target, iterative),
            Command::Call { target, play, record, duration, account } => {
                let duration = match duration {
                    Some(s) if !(s.is_finite() && (0.0..=86_400.0).contains(&s)) => {
                        let e = CommandError::new(format!("a duration of {s} seconds"), "give one between 0 and 86400");
                        return self.reply(request, Err(e));
                    }
                    duration => duration.map(Duration::from_secs_f64),
                };
                let callee = match account.as_deref().filter(|name| !name.is_empty()) {
                    Some(name) => self.call_by(name, &target).map(|(id, uri)| Callee::Account(id, uri)),
                    None => self.callee(&target),
                };
                match callee {
                    Ok(callee) => return self.place(now, request, callee, play, record, duration),
                    Err(e) => Err(e),
                }
            }
            Command::Answer { call } => self.pick(call, &[State::Incoming], "rings").map(|call| {
                self.ua.answer(now, call);
                done(format!("answered call {}", call.0))
            }),
            Command::Hangup { call } => self.pick(call, &ALIVE, "is under way").map(|call| {
                self.ua.hang_up(now, call);
                done(format!("ended call {}", call.0))
            }),
            Command::Hold { call } => return self.command_hold(now, request, call, true),
            Command::Resume { call } => return self.command_hold(now, request, call, false),
            Command::Transfer { call, target, attended } => {
                return self.command_transfer(now, request, call, target.as_deref(), attended);
            }
            Command::Mute { call, off } => self.command_mute(call, off),
            Command::Dtmf { call, digits } => self.command_dtmf(call, &digits),
            Command::Calls => {
                Ok(Reply::Calls { calls: self.call_statuses(now), ended: self.calls.ended.iter().cloned().collect() })
            }
            Command::PhoneAdd { user, label, password } => {
                let phone = PhoneWanted { request, user, label, password };
                match self.phone_add(now, phone) {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Command::PhoneList => Ok(Reply::Phones { phones: self.phones(now) }),
            Command::PhoneRemove { user } => self.phone_remove(now, &user),
            Command::PhoneShare { user, member } => return self.phone_share(now, request, &user, &member),
            Command::PhoneUnshare { user, device } => self.phone_unshare(now, &user, &device),
            Command::Invite { user, extension } => self.invite(now, &user, extension.as_deref()),
            Command::Devices => return self.devices(now, request, None),
            Command::DeviceAdd { label, with_key } => self.device_add(now, label, with_key),
            Command::DeviceRemove { device } => return self.devices(now, request, Some(device)),
            Command::OfficeUsers => self.office_users(now),
            Command::OfficeRevoke { target } => self.office_revoke(now, &target),
            Command::OfficeMerge { code } => return self.office_merge(now, request, code.as_deref()),
            Command::EnrollerRevoke { target, sheet, since } => self.revoke_enroller(now, &target, &sheet, since),
            Command::OfficeAdapters { device, allow } => self.office_adapters(&device, allow),
            Command::OwnerAdd { user, sheet } => return self.owner_add(now, request, &user, &sheet),
            Command::Message { .. }
            | Command::Messages { .. }
            | Command::MessageRead { .. }
            | Command::MessageDelete { .. } => match self.message_command(now, request, command) {
                Some(answer) => answer,
                None => return,
            },
            Command::Pair { user } => self.pair(now, &user),
            Command::ContactAdd { name, target } => self.contact_add(now, &name, &target),
            Command::ContactRemove { name } => self.contact_remove(now, &name),
            Command::ContactList => return self.contact_list(now, request),
            Command::Password { parts } => return self.set_password(now, request, parts.reveal()),
            Command::ContactLink { ring } => self.contact_link(now, ring),
            Command::ContactAccept { who, name } => self.contact_accept(now, &who, name.as_deref()),
            Command::Introduce { who, to, withdraw } => match self.introduce(now, request, &who, &to, withdraw) {
                Ok(()) => return,
                Err(e) => Err(e),
            },
            Command::ContactForget { name } => self.contact_forget(&name),
            Command::Accounts => Ok(self.accounts(now)),
            Command::Strangers => Ok(Reply::Strangers(self.strangers_report(now))),
            Command::Block { target } => self.block(&target, true),
            Command::Unblock { target } => self.block(&target, false),
            Command::Stop => {
                self.stopping = Some(request);
                for call in self.ua.summaries(now) {
                    self.ua.hang_up(now, call.call);
                }
                // What ends the calls goes out before the node is done.
                self.give_shared_back(now);
                let unregistering = self.ua.unregister(now);
                self.settle(now);
                self.reply(request, Ok(done("leaving".into())));
                if !unregistering {
                    self.leave(now);
                }
                return;
            }
        };
        self.reply(request, answer);
    }

    fn command_lookup(&mut self, now: Instant, request: RequestId, target: &str, iterative: bool) {
        match self.callee(target) {
            Ok(Callee::Aor { aor, .. }) => self.lookup_for(now, request, aor, iterative),
            Ok(Callee::Outside(uri) | Callee::Account(_, uri)) => {
                let what = format!("{uri} is not an address of this overlay");
                self.reply(request, Err(CommandError::new(what, "look up a user of this overlay")));
            }
            Err(e) => self.reply(request, Err(e)),
        }
    }

    /// The call that is meant: the one named, or the only one in one of `states`.
    pub(super) fn pick(&self, call: Option<u64>, states: &[State], what: &str) -> Result<CallId, CommandError> {
        let calls = self.ua.summaries(Instant::ZERO);
        let fits: Vec<_> = calls.iter().filter(|c| states.contains(&c.state)).map(|c| c.call).collect();
        match (call, fits.as_slice()) {
            (Some(n), fits) if fits.contains(&CallId(n)) => Ok(CallId(n)),
            (Some(n), _) => Err(CommandError::new(format!("call {n} is not one that {what}"), "see `chordial calls`")),
            (None, [only]) => Ok(*only),
            (None, []) => Err(CommandError::new(format!("no call {what}"), "see `chordial calls`")),
            (None, several) => {
                let list: Vec<_> = several.iter().map(|c| c.0.to_string()).collect();
                let what = format!("{} calls: {}", several.len(), list.join(", "));
                Err(CommandError::new(what, "name one of them"))
            }
        }
    }

    /// Who, where and with whom this node is.
    pub fn status(&self, now: Instant) -> Status {
        let mut counters: BTreeMap<String, u64> = self.counters.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let tx = self.tx.counters();
        counters.insert("requests refused, table full".into(), tx.refused_requests);
        counters.insert("responses without a transaction".into(), tx.stray_responses);
        counters.insert("messages without a connection".into(), self.flows.dropped);
        let mut overlay =
            OverlayStatus { name: self.domain.overlay().to_owned(), state: "none".into(), ..Default::default() };
        let mut peer_id = String::new();
        if let Some(o) = self.overlay.as_ref() {
            let (status, c) = (o.status(), o.counters());
            peer_id = o.me().id.to_string();
            overlay.state = if status.joined { "joined" } else { "joining" }.into();
            overlay.predecessor = status.predecessor.map(|p| peer(&p));
            overlay.successors = status.successors.iter().map(peer).collect();
            overlay.fingers = status.fingers.iter().map(|(_, p)| peer(p)).collect();
            overlay.records = status.entries;
            overlay.known_hosts = self.ring.entrance.hosts.len();
            for (name, value) in [
                ("records invalid", c.invalid),
                ("records stale", c.stale),
                ("records in conflict", c.conflicts),
                ("records refused, full", c.full),
                ("peers failed", c.peers_failed),
                ("overlay requests refused", c.refused),
                ("lookups failed", c.lookups_failed),
            ] {
                *counters.entry(name.into()).or_default() += value;
            }
        }
        counters.retain(|_, v| *v > 0);
        let clear = self.flows.locals().clear;
        let locals = self.flows.locals();
        Status {
            peer_id,
            aor: self.ua.profile().aor.clone(),
            role: self.role_name().into(),
            tier: self.tier_status(),
            overlay,
            registrations: self.registrations(now),
            calls: self.call_statuses(now),
            listen: Listen {
                sip: Some(self.setup.sip_listen),
                overlay: self.overlay.as_ref().map(|_| self.setup.overlay_listen),
                advertised: self.overlay.as_ref().map(|_| locals.overlay),
            },
            reach: self.reach(),
            nat: self.nat_status(),
            proxy: self.proxy.clone(),
            relay: self.relay_status(),
            voice_engine: crate::media::codec::voice_engine().into(),
            link_security: if clear || self.overlay.is_none() { "none" } else { "tls1.3" }.into(),
            counters,
            warnings: self.warnings.list().into_iter().chain(self.key_warnings()).collect(),
        }
    }

    fn registrations(&self, now: Instant) -> Vec<Registration> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for aor in self.own_aors() {
            let contact = self.setup.own_contact();
            all.entry(aor).or_default().push(contact);
        }
        if let Some(account) = self.ua.account(super::outside::PHONE)
            && account.is_registered()
        {
            all.entry(self.ua.profile().aor.clone()).or_default().push(account.contact().to_string());
        }
        for user in self.registrar.users() {
            let contacts = self.registrar.bindings(now, user).into_iter().map(|b| b.uri);
            all.entry(self.domain.aor(user)).or_default().extend(contacts);
        }
        let rows = all.into_iter().filter(|(_, contacts)| !contacts.is_empty());
        rows.map(|(aor, contacts)| Registration { aor, contacts }).collect()
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let Some(overlay) = self.overlay.as_ref() else { return Vec::new() };
        let status = overlay.status();
        let mut peers: Vec<PeerStatus> = Vec::new();
        let mut add = |p: &PeerRef, link: &str| {
            let id = p.id.to_string();
            match peers.iter_mut().find(|known| known.peer_id == id) {
                Some(known) if known.links.iter().any(|l| l == link) => {}
                Some(known) => known.links.push(link.to_owned()),
                None => peers.push(PeerStatus { links: vec![link.to_owned()], ..peer(p) }),
            }
        };
        status.successors.iter().for_each(|p| add(p, "successor"));
        status.predecessor.iter().for_each(|p| add(p, "predecessor"));
        status.fingers.iter().for_each(|(_, p)| add(p, "finger"));
        self.tier_peers().iter().for_each(|(p, link)| add(p, link));
        peers
    }

    fn phones(&self, now: Instant) -> Vec<PhoneStatus> {
        let shares = self.registrar.accounts().shares();
        let shared = |user: &str| shares.of(user).map(|s| format!("{}/{}", s.member, s.device)).collect();
        let row = |account: &crate::pbx::Account| PhoneStatus {
            user: account.user.clone(),
            label: account.label.clone(),
            contacts: self.registrar.bindings(now, &account.user).into_iter().map(|b| b.uri).collect(),
            also: shared(&account.user),
        };
        self.registrar.accounts().iter().map(row).collect()
    }

    /// Makes an account here; `None` when an enroller is asked first, and the command answered then.
    fn phone_add(&mut self, now: Instant, phone: PhoneWanted) -> Option<Answer> {
        if self.overlay.is_none() {
            return Some(Err(CommandError::new(
                "this is a plain SIP phone, not a registrar",
                "add the phone at a peer",
            )));
        }
        let (unix, user) = (self.unix(now), phone.user.as_str());
        if let Some(identity) = self.identity.as_mut()
            && let Err(fault) = identity.delegate_phones(&[user], unix)
            && identity.phone_identity(user, unix).is_err()
        {
            if identity.enroller.is_none() && canonical_user(user).is_ok() {
                self.ask_for_phone(now, phone);
                return None;
            }
            let what = format!("{user} may not be signed for by this device: {fault}");
            return Some(Err(CommandError::new(
                what,
                "choose another name, or add it as a phone of your own user name",
            )));
        }
        self.book_changed(now);
        Some(self.make_account(now, user, &phone.label, &phone.password))
    }

    fn phone_remove(&mut self, now: Instant, user: &str) -> Answer {
        if !self.registrar.accounts_mut().remove(user) {
            return Err(CommandError::new(format!("there is no account {user}"), "see `chordial phone list`"));
        }
        self.registrar.forget(user);
        self.forget_mailbox(now, user);
        if self.registrar.accounts_mut().shares_mut().take_back(user, None) > 0 {
            self.share_soon(now);
        }
        self.save_phones();
        Ok(done(format!("removed {user}")))
    }

    pub(super) fn save_phones(&mut self) {
        let bytes = Bytes::from(self.registrar.accounts().to_toml());
        self.out.push_back(Output::Save { what: Saved::Phones, bytes });
    }

    pub(super) fn save_identity(&mut self) {
        if let Some(identity) = &self.identity {
            let bytes = Bytes::copy_from_slice(identity.to_bytes().reveal());
            self.out.push_back(Output::Save { what: Saved::Identity, bytes });
        }
    }
}

const ALIVE: [State; 6] =
    [State::LookingUp, State::Calling, State::Ringing, State::Incoming, State::Answering, State::Answered];

fn done(what: String) -> Reply {
    Reply::Done { done: what }
}

pub(super) fn peer(p: &PeerRef) -> PeerStatus {
    PeerStatus { peer_id: p.id.to_string(), address: p.addr.to_string(), links: Vec::new(), rtt_ms: None }
}
