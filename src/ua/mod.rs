//! L3: the user agent. Calls (RFC 3261 sections 8, 9, 13, 14, 15) of one user: placed to one or more
//! devices at once, received, answered, held by the other end, ended; OPTIONS; messages (RFC 3428); and registrations with outside
//! registrars.
//!
//! [`Ua`] is handed requests and responses that the transaction layer has sorted, and says what to send and
//! which media to open. It knows nothing of the overlay: whoever places a call hands it the targets.
//!
//! Calls have ICE where both ends do (RFC 8839): candidates found after the offer or the answer follow by INFO (RFC 8840), a restart
//! is a further INVITE.
//!
//! Left out: offers in UPDATE and PRACK by this end (it makes them in INVITE).

mod account;
mod call;
mod challenge;
mod cut;
mod early;
mod hold;
mod incoming;
mod info;
mod media;
pub mod message;
mod outgoing;
mod output;
mod redirect;
mod refresh;
mod reoffer;
mod transfer;
mod within;

pub use account::{Account, AccountConfig, AccountId, Granted, Refused};
pub use call::{CallId, Direction, Ending, Report, State, Summary};
pub use cut::Cause;
pub use media::{IcePlan, MediaOpened, MediaPlan, MediaStats, Secured, VoiceKeys};
pub use output::{Output, UaEvent};
pub use transfer::ReferredCall;

use crate::core::{Flow, Id, Instant, Redacted, Rng, TimerQueue, UnixTime};
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use crate::sip::tx::{ClientTxId, ServerTxId};
use call::Call;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Methods that this user agent takes.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE, INFO, UPDATE, PRACK, REFER, NOTIFY";
/// Extensions that it knows.
pub const SUPPORTED: &str = "100rel, timer, replaces";

/// Who this user agent is and how it behaves.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Address of record, for From and To.
    pub aor: String,
    /// Contact for whoever comes by a peer's link; empty for a plain SIP phone.
    pub link_contact: String,
    /// Contact for whoever comes over UDP or TCP in clear.
    pub clear_contact: String,
    /// `User-Agent` and `Server`.
    pub software: String,
    /// Codec names in the order of preference.
    pub codecs: Vec<String>,
    /// Answer at once.
    pub auto_answer: bool,
    /// How long a call rings, either way.
    pub ring: Duration,
    /// Calls at once; a further one is answered 486.
    pub max_calls: usize,
    /// Calls that may ring here while another is under way; a further one is answered 486.
    pub calls_waiting: usize,
    /// Interval of the session timer (RFC 4028) that is asked for, seconds.
    pub session_seconds: u32,
    /// Every request to a URI goes by this account; of a plain SIP phone.
    pub account: Option<AccountId>,
    /// What voice is encrypted with; none: it is not.
    pub keys: Option<VoiceKeys>,
    /// Calls whose voice cannot be encrypted are refused.
    pub encrypted_only: bool,
    /// Whether calls look for a way between both ends.
    pub ice: crate::config::Ice,
    /// Calls keep a second way beside the first, where the other end does too.
    pub second_path: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Hop {
    /// A peer's link.
    Peer {
        /// Peer-ID that it must prove.
        id: Id,
        /// Its overlay address.
        addr: SocketAddr,
    },
    /// A standard phone, by the peer that it registered through.
    Path {
        /// That peer's ID.
        id: Id,
        /// Its overlay address.
        addr: SocketAddr,
        /// The Route that it wants (RFC 3327).
        path: String,
    },
    /// A SIP URI (RFC 3263).
    Uri(Uri),
    /// The way of an account's registration; within a dialog where `uri` leads, unless that is the same.
    Account {
        /// Which account.
        account: AccountId,
        /// The dialog's next hop.
        uri: Option<Uri>,
    },
    /// The flow that something came in on.
    Flow(Flow),
}

impl Hop {
    /// A URI that carries a peer-ID and an address is that peer; any other stays a URI.
    pub fn of(uri: Uri) -> Hop {
        let id = uri.params.get("peer-ID").and_then(Id::from_hex);
        match (id, uri.ip(), uri.port) {
            (Some(id), Some(ip), Some(port)) => Hop::Peer { id, addr: SocketAddr::new(ip, port) },
            _ => Hop::Uri(uri),
        }
    }
}

/// One place to ring.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Request-URI of the INVITE.
    pub uri: String,
    /// Where it is sent.
    pub hop: Hop,
}

/// What is known of a call that comes in by an account, from its registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Which account of this device; none where another device of the user has it.
    pub account: Option<AccountId>,
    /// Who calls, as it is shown: what the registrar asserts.
    pub from: String,
}

/// Names a request of the user agent's while its transaction runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKey {
    /// The INVITE of a leg of a call.
    Invite(CallId, usize),
    /// A request within a call's dialog whose answer changes nothing.
    InDialog(CallId),
    /// A further INVITE within a call.
    Reoffer(CallId),
    /// An UPDATE that refreshes the session.
    Update(CallId),
    /// A REFER.
    Refer(CallId),
    /// An account's REGISTER.
    Register(AccountId),
    /// A MESSAGE.
    Message(message::MessageKey),
}

/// What falls due in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Nobody answered.
    Ring(CallId),
    /// The talk's agreed end.
    Talk(CallId),
    /// A 2xx is retransmitted, or its ACK given up.
    Accepted(CallId),
    /// The media's last figures did not come.
    Figures(CallId),
    /// No leg of an ended call can answer any more.
    Forget(CallId),
    /// A further INVITE that crossed the other end's is tried again.
    Reoffer(CallId),
    /// A provisional response is retransmitted, or its PRACK given up.
    Reliable(CallId),
    /// The session is refreshed, or over.
    Session(CallId),
    /// Nothing was said of how a transfer goes.
    Transfer(CallId),
    /// An account's registration is renewed.
    Register(AccountId),
}

/// The user agent.
pub struct Ua {
    profile: Profile,
    rng: Rng,
    /// A point where both clocks were known.
    clock: (Instant, UnixTime),
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    accounts: BTreeMap<AccountId, Account>,
    /// Of the request that is handed in next.
    arriving: Option<Arrival>,
    messages: message::Messages,
    timers: TimerQueue<Timer>,
    out: VecDeque<Output>,
}

impl Ua {
    /// A user agent without calls.
    pub fn new(profile: Profile, rng: Rng) -> Self {
        Ua {
            profile,
            rng,
            clock: (Instant::ZERO, UnixTime(0)),
            calls: BTreeMap::new(),
            next_call: 1,
            accounts: BTreeMap::new(),
            arriving: None,
            messages: message::Messages::default(),
            timers: TimerQueue::new(),
            out: VecDeque::new(),
        }
    }

    /// The wall clock, at the start and when it jumps: what is signed has a time.
    pub fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.clock = (now, unix);
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.clock.1 + now.since(self.clock.0)
    }

    /// It is reached by other contacts from now on; calls under way keep theirs.
    pub fn moved(&mut self, link_contact: String, clear_contact: String) {
        (self.profile.link_contact, self.profile.clear_contact) = (link_contact, clear_contact);
    }

    /// Who it is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Changes the contact for whoever comes by a link: how this user agent is reached has changed.
    pub fn set_link_contact(&mut self, contact: String) {
        self.profile.link_contact = contact;
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.pop_front()?;
        self.remember_asked(&output);
        Some(output)
    }

    /// When [`Ua::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Ring(call) => self.on_ring_timeout(now, call),
                Timer::Talk(call) => self.hang_up(now, call),
                Timer::Accepted(call) => self.on_accepted_timeout(now, call),
                Timer::Figures(call) => self.media_closed(now, call, MediaStats::default()),
                Timer::Forget(call) => _ = self.calls.remove(&call),
                Timer::Reoffer(call) => self.reoffer(now, call),
                Timer::Reliable(call) => self.on_reliable_timeout(now, call),
                Timer::Transfer(call) => self.transfer_failed(now, call, 408, "nothing was heard of it".to_owned()),
                Timer::Session(call) => self.on_session_timeout(now, call),
                Timer::Register(account) => self.register_due(now, account),
            }
        }
    }

    /// The Call-ID of a call that came in.
    pub fn invited_by(&self, call: CallId) -> Option<&str> {
        self.calls.get(&call)?.invited_by.as_deref()
    }

    /// Calls under way, oldest first.
    pub fn summaries(&self, now: Instant) -> Vec<Summary> {
        self.calls.iter().map(|(id, call)| call.summary(*id, now)).collect()
    }

    /// The call is not over.
    pub fn is_under_way(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|c| !c.is_over())
    }

    /// A request of [`Output::Request`] went out in this transaction.
    pub fn sent(&mut self, key: RequestKey, tx: ClientTxId) {
        if let RequestKey::Invite(call, leg) = key {
            self.invite_sent(call, leg, tx);
        }
    }

    /// A response to a request of [`Output::Request`].
    pub fn on_response(&mut self, now: Instant, key: RequestKey, tx: ClientTxId, response: &Message) {
        if matches!(response.status(), 401 | 407) && self.authorize_within(key, response) {
            return;
        }
        match key {
            RequestKey::Invite(call, leg) => self.on_invite_response(now, call, leg, tx, response),
            RequestKey::Register(account) => self.on_register_response(now, account, response),
            RequestKey::Message(key) => self.on_message_response(key, response),
            RequestKey::Reoffer(call) => self.on_reoffer_response(now, call, response),
            RequestKey::Update(call) => self.on_update_response(now, call, response),
            RequestKey::Refer(call) => self.on_refer_response(now, call, response.status(), response.reason()),
            RequestKey::InDialog(_) => {}
        }
    }

    /// A request of [`Output::Request`] could not be sent or was not answered; `status` is what RFC 3261
    /// section 8.1.3.1 puts in the place of an answer: 408 for a timeout, 503 for a transport error.
    pub fn on_failure(&mut self, now: Instant, key: RequestKey, status: u16) {
        match key {
            RequestKey::Invite(call, leg) => {
                let reason = if status == 408 { "Request Timeout" } else { "Service Unavailable" };
                self.on_leg_failed(now, call, leg, status, reason.to_owned());
            }
            RequestKey::Register(account) => {
                self.on_register_failed(now, account, 0, "no answer".to_owned(), None);
            }
            RequestKey::Message(key) => {
                let reason = match status {
                    408 => "Request Timeout",
                    513 => "Message Too Large",
                    _ => "Service Unavailable",
                };
                self.message_answered(key, status, reason);
            }
            RequestKey::Reoffer(call) => self.on_reoffer_failed(now, call, status, "no answer"),
            RequestKey::Update(call) => self.on_update_failed(now, call, status),
            RequestKey::Refer(call) => self.on_refer_response(now, call, status, "no answer"),
            RequestKey::InDialog(_) => {}
        }
    }

    /// The next request of [`Ua::on_request`] came by an account.
    pub fn arrives(&mut self, arrival: Option<Arrival>) {
        self.arriving = arrival;
    }

    /// A request that is for this user agent, from the transaction layer. `link` tells whether it came by a peer's link.
    pub fn on_request(&mut self, now: Instant, tx: ServerTxId, request: &Message, flow: Flow, link: bool) {
        self.incoming_request(now, tx, request, flow, link);
        self.arriving = None;
    }

    /// True when the request belongs to a dialog of a call here.
    pub fn owns(&self, request: &Message) -> bool {
        self.find_dialog(request).is_some()
    }

    fn respond(&mut self, tx: ServerTxId, mut message: Message) {
        message.set(HeaderName::Server, &self.profile.software);
        self.out.push_back(Output::Respond { tx, message });
    }

    fn event(&mut self, event: UaEvent) {
        self.out.push_back(Output::Event { event });
    }

    /// A request of ours outside a dialog: To, From with a new tag, Call-ID, CSeq, Max-Forwards.
    fn request_outside(
        &mut self,
        method: Method,
        uri: &str,
        to: &str,
        call_id: &str,
        from_tag: &str,
        cseq: u32,
    ) -> Message {
        let name = method.as_str().to_owned();
        let mut message = Message::request(method, uri);
        message.push(HeaderName::MaxForwards, 70);
        message.push(HeaderName::From, format_args!("<{}>;tag={from_tag}", self.profile.aor));
        message.push(HeaderName::To, format_args!("<{to}>"));
        message.push(HeaderName::CallId, call_id);
        message.push(HeaderName::CSeq, format_args!("{cseq} {name}"));
        message.push(HeaderName::UserAgent, &self.profile.software);
        message
    }

    /// What is asked for in a new call.
    fn session_timer(&self) -> crate::sip::dialog::SessionTimer {
        crate::sip::dialog::SessionTimer::new(self.profile.session_seconds)
    }

    /// Where a request outside a dialog goes: of a plain SIP phone by its account.
    fn first_hop(&self, hop: Hop) -> Hop {
        match (self.profile.account, hop) {
            (Some(account), Hop::Uri(_)) => Hop::Account { account, uri: None },
            (_, hop) => hop,
        }
    }

    /// The account that a call goes by.
    fn account_of(&self, call: CallId) -> Option<&Account> {
        let account = self.calls.get(&call).and_then(|c| c.account).or(self.profile.account);
        self.accounts.get(&account?)
    }

    /// What a challenge to a request of this account is answered with.
    fn credentials_of(&self, account: Option<AccountId>) -> Option<(String, Redacted<String>)> {
        self.accounts.get(&account.or(self.profile.account)?)?.config().credentials.clone()
    }
}
