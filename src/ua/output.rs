//! What the user agent wants done, and what its user hears of.

use super::message::MessageKey;
use super::{AccountId, CallId, Hop, MediaPlan, ReferredCall, Report, RequestKey};
use crate::sdp::ice::Candidate;
use crate::sip::msg::Message;
use crate::sip::tx::{ClientTxId, ServerTxId};
use std::time::Duration;

/// What the user agent wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a request by a client transaction and tell [`Ua::sent`](super::Ua::sent). The Via is the sender's.
    Request {
        /// Comes back with the response.
        key: RequestKey,
        /// The request without Via.
        message: Message,
        /// Where to.
        hop: Hop,
    },
    /// Send an ACK to a 2xx, outside of any transaction.
    Ack {
        /// The ACK without Via.
        message: Message,
        /// Where to.
        hop: Hop,
    },
    /// Answer a request.
    Respond {
        /// Its transaction.
        tx: ServerTxId,
        /// The response.
        message: Message,
    },
    /// Cancel an INVITE (RFC 3261 section 9.1).
    Cancel {
        /// Its transaction.
        tx: ClientTxId,
        /// Value of Reason (RFC 3326).
        reason: Option<&'static str>,
    },
    /// Take sockets for a call's voice and tell [`Ua::media_opened`](super::Ua::media_opened) or [`Ua::media_failed`](super::Ua::media_failed).
    OpenMedia {
        /// Which call.
        call: CallId,
    },
    /// Voice flows, or flows differently than before.
    StartMedia {
        /// Which call.
        call: CallId,
        /// Call-ID of a call that came in.
        caller: Option<String>,
        /// What was agreed and what is played and recorded.
        plan: Box<MediaPlan>,
    },
    /// The other end may be found at these places too.
    Candidates {
        /// In which call.
        call: CallId,
        /// Further candidates.
        candidates: Vec<Candidate>,
    },
    /// Silence goes out instead of what is said here, or that again.
    Mute {
        /// In which call.
        call: CallId,
        /// Silence.
        muted: bool,
    },
    /// Send a DTMF digit (RFC 4733).
    SendDtmf {
        /// Which call.
        call: CallId,
        /// The digit.
        digit: char,
    },
    /// The call's voice is over; its last figures go to [`Ua::media_closed`](super::Ua::media_closed).
    CloseMedia {
        /// Which call.
        call: CallId,
    },
    /// Something for the user.
    Event {
        /// What.
        event: UaEvent,
    },
}

/// What the user hears of.
#[derive(Debug, Clone, PartialEq)]
pub enum UaEvent {
    /// A call rings here.
    Incoming {
        /// Which.
        call: CallId,
        /// The caller's URI as it says it is.
        from: String,
        /// Another call is under way.
        waiting: bool,
    },
    /// The other end rings.
    Ringing {
        /// Which.
        call: CallId,
    },
    /// Answered; the codec's name.
    Answered {
        /// Which.
        call: CallId,
        /// From the command, or the INVITE's arrival, to the answer.
        setup: Duration,
        /// Codec agreed.
        codec: String,
    },
    /// Who holds whom has changed.
    Held {
        /// Which.
        call: CallId,
        /// This end holds the other one.
        here: bool,
        /// The other end holds this one.
        there: bool,
    },
    /// What became of [`Ua::hold`](super::Ua::hold).
    HoldAnswered {
        /// Which.
        call: CallId,
        /// Hold, or resume.
        hold: bool,
        /// Status and reason where the other end did not take it.
        result: Result<(), (u16, String)>,
    },
    /// How a transfer by this end goes.
    TransferProgress {
        /// Which.
        call: CallId,
        /// What the other end was answered where it calls.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
    /// What became of [`Ua::transfer`](super::Ua::transfer).
    TransferAnswered {
        /// Which.
        call: CallId,
        /// Status and reason where it failed.
        result: Result<(), (u16, String)>,
    },
    /// The other end wants this one to call somebody: [`Ua::place_referred`](super::Ua::place_referred) or [`Ua::referral_failed`](super::Ua::referral_failed).
    Referred {
        /// In which call.
        call: CallId,
        /// Whom; a URI.
        to: String,
        /// What goes into the INVITE.
        referred: ReferredCall,
    },
    /// A placed call was sent elsewhere: [`Ua::targets`](super::Ua::targets) or [`Ua::give_up`](super::Ua::give_up).
    Redirected {
        /// Which.
        call: CallId,
        /// Where to; a URI.
        to: String,
    },
    /// A digit came in an INFO.
    Digit {
        /// In which call.
        call: CallId,
        /// The digit.
        digit: char,
    },
    /// Over, with its last figures.
    Ended {
        /// Which.
        call: CallId,
        /// How it went.
        report: Box<Report>,
    },
    /// A MESSAGE has come: it is answered in its transaction by whoever hears of it.
    Message {
        /// Its transaction.
        tx: ServerTxId,
        /// The request.
        request: Box<Message>,
        /// It came by a peer's link.
        link: bool,
    },
    /// A MESSAGE of ours has its answer.
    MessageAnswered {
        /// Which.
        key: MessageKey,
        /// Final status; 408 or 503 where nobody answered.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
    /// An account is registered for this long.
    Registered {
        /// Which.
        account: AccountId,
        /// Until it has to be renewed.
        expires: Duration,
    },
    /// An account's registration has been taken back, or given up.
    Unregistered {
        /// Which.
        account: AccountId,
    },
    /// An account is not registered.
    RegistrationFailed {
        /// Which.
        account: AccountId,
        /// SIP status, 0 when nobody answered.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
}
