//! A call and what becomes of it.

use super::media::{CallIce, MediaOpened, MediaStats, Secured};
use super::transfer::{Referral, ReferredCall, Transfer};
use super::{AccountId, Hop, Target};
use crate::core::{Flow, Instant, Rng};
use crate::sdp::Session;
use crate::sdp::ice::Credentials;
use crate::sdp::negotiate::Agreed;
use crate::sip::dialog::{Dialog, DialogId, InviteServer, ReliableServer, SessionTimer, Timing};
use crate::sip::msg::{HeaderName, Message};
use crate::sip::tx::{ClientTxId, ServerTxId};
use std::collections::VecDeque;
use std::time::Duration;

/// Number of a call, never used twice by one user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Who placed a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The other end.
    In,
    /// This end.
    Out,
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Placed; targets or sockets are still missing.
    LookingUp,
    /// INVITE sent.
    Calling,
    /// The other end rings.
    Ringing,
    /// It rings here.
    Incoming,
    /// Accepted here; sockets are still missing.
    Answering,
    /// Both talk.
    Answered,
    /// Over; the last figures are still missing.
    Ending,
    /// Over and reported; kept for a while to end legs that answer late.
    Over,
}

/// How a call ended, in a word for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was answered and ended by a BYE of either end.
    Completed,
    /// 486 or 600.
    Busy,
    /// Nobody answered in time.
    NoAnswer,
    /// 403, 603 or 607, or declined here.
    Rejected,
    /// 404, 410 or 604.
    NotFound,
    /// It was answered, and the other end is there no more.
    Lost,
    /// Anything else.
    Failed,
}

impl Ending {
    /// By the final status of an INVITE.
    pub fn of_status(status: u16) -> Ending {
        match status {
            200..=299 => Ending::Completed,
            486 | 600 => Ending::Busy,
            408 | 480 => Ending::NoAnswer,
            403 | 603 | 607 => Ending::Rejected,
            404 | 410 | 604 => Ending::NotFound,
            _ => Ending::Failed,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Busy => "busy",
            Ending::NoAnswer => "no-answer",
            Ending::Rejected => "rejected",
            Ending::NotFound => "not-found",
            Ending::Lost => "lost",
            Ending::Failed => "failed",
        }
    }
}

/// One call under way, for a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its number.
    pub call: CallId,
    /// Who placed it.
    pub direction: Direction,
    /// The other end.
    pub with: String,
    /// The account that it goes by.
    pub account: Option<AccountId>,
    /// Where it stands.
    pub state: State,
    /// Since the answer.
    pub talk: Duration,
    /// Codec, once agreed.
    pub codec: String,
    /// This end holds the other one.
    pub held: bool,
    /// The other end holds this one.
    pub held_there: bool,
    /// What is said here does not go out.
    pub muted: bool,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// In a word.
    pub ending: Ending,
    /// Final status of the INVITE; 0 when there was none.
    pub status: u16,
    /// Why, for a person.
    pub reason: String,
    /// Who placed it.
    pub direction: Direction,
    /// The other end.
    pub with: String,
    /// To the answer; zero when there was none.
    pub setup: Duration,
    /// From the answer to the end.
    pub talk: Duration,
    /// Codec.
    pub codec: String,
    /// The voice's last figures.
    pub stats: MediaStats,
}

/// One INVITE of an outgoing call: each target has its own.
#[derive(Debug)]
pub(super) struct Leg {
    pub target: Target,
    pub invite: Message,
    pub tx: Option<ClientTxId>,
    /// Of its offer: each target has its own.
    pub ice: Credentials,
    pub cseq: u32,
    /// What it asks for.
    pub timer: SessionTimer,
    /// Credentials were sent with it.
    pub authorized: bool,
    /// Final status and reason.
    pub ended: Option<(u16, String)>,
    pub cancelled: bool,
    /// Dialogs that its forks made beside the call's, each ended with a BYE.
    pub surplus: Vec<DialogId>,
}

/// What an incoming call needs of its INVITE.
pub(super) struct Invitation {
    pub tx: ServerTxId,
    pub request: Message,
    pub to_tag: String,
    /// It came by a peer's link.
    pub link: bool,
    /// How requests of its dialog go.
    pub hop: Hop,
    /// Repeats the responses that have to be repeated.
    pub server: InviteServer,
    /// Repeats the provisional ones that have to arrive.
    pub reliable: ReliableServer,
    /// It has no offer: ours is in a provisional response, once there are sockets for it.
    pub offer_due: bool,
    /// That offer.
    pub offered: Option<Session>,
    /// What its answer, in a PRACK, agreed on.
    pub agreed: Option<Outcome>,
}

impl Invitation {
    /// Of an INVITE that was just taken; `link`: the caller is reached by a peer's link.
    pub fn new(
        tx: ServerTxId,
        request: &Message,
        to_tag: String,
        (flow, link): (Flow, bool),
        rng: &mut Rng,
    ) -> Invitation {
        Invitation {
            tx,
            request: request.clone(),
            to_tag,
            link,
            hop: Hop::Flow(flow),
            server: InviteServer::new(request, Timing::default()),
            reliable: ReliableServer::new(request, Timing::default(), rng),
            offer_due: false,
            offered: None,
            agreed: None,
        }
    }
}

/// What an offer and its answer agreed on, encryption apart.
pub(super) type Outcome = (Agreed, Option<Secured>);

/// A dialog that a provisional response has made.
pub(super) struct Fork {
    pub talk: Talk,
    /// Of a call that was placed: which INVITE's.
    pub leg: Option<usize>,
    /// Number of its last reliable response.
    pub rseq: Option<u32>,
    /// From a description in a provisional response.
    pub agreed: Option<Outcome>,
    /// That response was a reliable one: its description is the answer.
    pub settled: bool,
}

/// What the next offer of ours within a talk is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// ICE starts anew.
    pub restart: bool,
    /// Whether this end holds the other one from then on.
    pub hold: Option<bool>,
    /// The session timer.
    pub refresh: bool,
}

/// A confirmed dialog and the way to the other end.
#[derive(Debug)]
pub(super) struct Talk {
    pub dialog: Dialog,
    /// How the first request of the dialog travelled, for the next.
    pub made_by: Hop,
    /// The other end is reached by a peer's link.
    pub link: bool,
    /// Our latest session description and its version.
    pub local: Option<Session>,
    pub version: u64,
    /// A further INVITE of ours, until it has its answer.
    pub reoffer: Option<Reoffer>,
    /// Late offer: ours is in the 2xx, the answer comes in the ACK.
    pub answer_due: bool,
    /// Refreshes the session, or ends it.
    pub timer: SessionTimer,
    /// The other end takes UPDATE.
    pub takes_update: bool,
    /// An UPDATE of ours that has no answer yet.
    pub update: Option<u32>,
}

impl Talk {
    /// A dialog that was just made; `said` is what the other end has said in making it.
    pub fn new(
        dialog: Dialog,
        made_by: Hop,
        link: bool,
        local: Option<Session>,
        timer: SessionTimer,
        said: &Message,
    ) -> Talk {
        let mut talk = Talk {
            dialog,
            made_by,
            link,
            local,
            version: 1,
            reoffer: None,
            answer_due: false,
            timer,
            takes_update: false,
            update: None,
        };
        talk.heard(said);
        talk
    }

    /// Learns from a message of the other end what it takes.
    pub fn heard(&mut self, said: &Message) {
        if said.has(HeaderName::Allow) {
            self.takes_update = said.has_token(HeaderName::Allow, "UPDATE");
        }
    }
}

/// A further INVITE within a talk.
#[derive(Debug)]
pub(super) struct Reoffer {
    pub invite: Message,
    pub offer: Session,
    pub ice: Option<Credentials>,
    pub wish: Wish,
    /// Answered: its 2xx is acknowledged again when it comes again.
    pub answered: bool,
}

pub(super) struct Call {
    pub direction: Direction,
    pub with: String,
    pub state: State,
    pub begun: Instant,
    pub answered: Option<Instant>,
    pub ended: Option<Instant>,
    pub play: Option<String>,
    pub record: Option<String>,
    pub duration: Option<Duration>,
    pub targets: Option<Vec<Target>>,
    pub opened: Option<MediaOpened>,
    pub media_started: bool,
    pub ice: CallIce,
    pub session_id: u64,
    pub legs: Vec<Leg>,
    pub invitation: Option<Invitation>,
    pub talk: Option<Talk>,
    pub forks: Vec<Fork>,
    pub wish: Wish,
    pub held: bool,
    pub held_there: bool,
    pub muted: bool,
    pub codec: String,
    pub status: u16,
    pub reason: String,
    pub ending: Ending,
    pub ringing_told: bool,
    /// Ended here before the caller's ACK came; the BYE follows it.
    pub bye_due: bool,
    /// Value of `Reason` in our BYE.
    pub bye_reason: Option<String>,
    /// Call-ID of the INVITE that brought the call in.
    pub invited_by: Option<String>,
    /// The other end is being transferred.
    pub transfer: Option<Transfer>,
    /// The other end transfers this one.
    pub referral: Option<Referral>,
    /// The call whose other end has asked for this one, and what it said.
    pub referrer: Option<CallId>,
    pub referred: ReferredCall,
    /// The call whose place this one takes.
    pub replaces: Option<CallId>,
    /// Requests within it that may yet be challenged, and where they went.
    pub asked: VecDeque<(Message, Hop)>,
    /// Where 3xx responses sent the caller: all, and those still to be tried.
    pub visited: Vec<String>,
    /// The account that it goes by.
    pub account: Option<AccountId>,
    pub redirects: VecDeque<String>,
}

impl Call {
    pub fn new(now: Instant, direction: Direction, with: String, session_id: u64) -> Call {
        Call {
            direction,
            with,
            state: State::LookingUp,
            begun: now,
            answered: None,
            ended: None,
            play: None,
            record: None,
            duration: None,
            targets: None,
            opened: None,
            media_started: false,
            ice: CallIce::default(),
            session_id,
            legs: Vec::new(),
            invitation: None,
            talk: None,
            forks: Vec::new(),
            wish: Wish::default(),
            held: false,
            held_there: false,
            muted: false,
            codec: String::new(),
            status: 0,
            reason: String::new(),
            ending: Ending::Failed,
            ringing_told: false,
            bye_due: false,
            bye_reason: None,
            invited_by: None,
            transfer: None,
            referral: None,
            referrer: None,
            referred: ReferredCall::default(),
            replaces: None,
            asked: VecDeque::new(),
            visited: Vec::new(),
            account: None,
            redirects: VecDeque::new(),
        }
    }

    /// True between a 2xx of ours and its ACK.
    pub fn awaits_ack(&self) -> bool {
        let answered = self.invitation.as_ref().filter(|i| !i.server.is_pending());
        answered.is_some_and(|i| i.server.poll_timeout().is_some())
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Ending | State::Over)
    }

    pub fn summary(&self, call: CallId, now: Instant) -> Summary {
        Summary {
            call,
            direction: self.direction,
            with: self.with.clone(),
            account: self.account,
            state: self.state,
            talk: self.answered.map_or(Duration::ZERO, |a| self.ended.unwrap_or(now).since(a)),
            codec: self.codec.clone(),
            held: self.held,
            held_there: self.held_there,
            muted: self.muted,
        }
    }

    /// The confirmed dialog, or an early one.
    pub fn talk_of(&mut self, dialog: &DialogId) -> Option<&mut Talk> {
        let forks = self.forks.iter_mut().map(|f| &mut f.talk);
        self.talk.iter_mut().chain(forks).find(|t| t.dialog.id() == dialog)
    }

    /// Nothing is sent of what is said here: muted, on hold, or not answered yet.
    pub fn is_silent(&self) -> bool {
        self.muted || self.held || self.answered.is_none()
    }

    pub fn report(&self, stats: MediaStats) -> Report {
        let talk = match (self.answered, self.ended) {
            (Some(answered), Some(ended)) => ended.since(answered),
            _ => Duration::ZERO,
        };
        Report {
            ending: self.ending,
            status: self.status,
            reason: self.reason.clone(),
            direction: self.direction,
            with: self.with.clone(),
            setup: self.answered.map_or(Duration::ZERO, |a| a.since(self.begun)),
            talk,
            codec: self.codec.clone(),
            stats,
        }
    }
}

/// True when a hop leads over a peer's link.
pub(super) fn by_link(hop: &Hop) -> bool {
    matches!(hop, Hop::Peer { .. })
}
