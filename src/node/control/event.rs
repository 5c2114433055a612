//! What happens meanwhile, to those who listen.

use super::*;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What happens meanwhile, to those who listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// This node is part of a ring, alone or with others.
    Joined {
        /// Peers known on entry.
        peers: usize,
    },
    /// This node was alone and has joined a peer that was found on the local network.
    Discovered {
        /// Overlay address of that peer.
        address: SocketAddr,
    },
    /// A router opened a port: others outside can reach this node there.
    Mapped {
        /// Address and port outside.
        address: SocketAddr,
        /// `PCP`, `NAT-PMP` or `UPnP`.
        via: String,
    },
    /// This machine has another address; peers and phones are told.
    Moved {
        /// Where peers reach it now.
        address: SocketAddr,
    },
    /// This peer has been in the overlay and finds nobody of it; it goes on alone and keeps trying.
    Alone {
        /// Why.
        why: String,
    },
    /// None of the bootstrap peers took this node in.
    JoinFailed {
        /// Why, for a person.
        why: String,
    },
    /// This node's own user or account is registered.
    Registered {
        /// Address of record.
        aor: String,
    },
    /// A registration was refused.
    RegistrationFailed {
        /// Address of record.
        aor: String,
        /// SIP status or 0.
        status: u16,
        /// Why.
        why: String,
    },
    /// A lease that this node wants is its own, or is another's, or was lost.
    Lease {
        /// The address that names it.
        lease: String,
        /// This node has it.
        held: bool,
        /// Its fencing token; 0 where it has it not.
        token: u64,
        /// Who has it, where another is known to.
        by: Option<String>,
        /// For how long, unless it is renewed.
        seconds: u64,
    },
    /// How far a blob has come.
    Blob {
        /// Its number.
        blob: String,
        /// Chunks written or read.
        done: usize,
        /// Of so many, as far as is known.
        of: usize,
        /// `writing`, `written`, `reading`, `renewed`, `taken back`, or `failed:` and why.
        state: String,
    },
    /// Something that the owner should look after; `status` shows it for as long as it lasts.
    Warning {
        /// What is wrong, and with what.
        what: String,
        /// What to do next.
        next: String,
    },
    /// A call has come in and rings.
    Incoming {
        /// Its number.
        call: u64,
        /// The caller, as it says it is.
        from: String,
        /// Short fingerprint of the caller's user key, where names are claimed by keys or the caller is of another overlay.
        #[serde(default)]
        key: String,
        /// How that key stands: `contact`, `known`, `new-key`, or `changed` where another one is known under this name.
        #[serde(default)]
        standing: String,
        /// Another call is under way.
        #[serde(default)]
        waiting: bool,
        /// The account with an outside registrar that it comes by; empty where it comes by none.
        #[serde(default)]
        account: String,
        /// For whom it was before it was diverted here.
        #[serde(default)]
        diverted: String,
    },
    /// A contact has introduced somebody; `contacts accept` takes them up.
    Introduced {
        /// What the contact calls them.
        name: String,
        /// Address of record.
        aor: String,
        /// Short fingerprint of their user key.
        key: String,
        /// The contact's name.
        by: String,
        /// Short fingerprint of another key that they are known by; empty where they are not.
        #[serde(default)]
        known: String,
    },
    /// A user, a device or an enroller counts no more.
    Revoked {
        /// What people call it.
        name: String,
        /// Fingerprint of its key.
        key: String,
    },
    /// Another office's people were taken in.
    OfficeMerged {
        /// Its name.
        office: String,
        /// How many.
        users: usize,
        /// Names and extensions that were somebody's here.
        renamed: Vec<Renamed>,
    },
    /// This device's office continues as another one, and it is of that one now.
    OfficeContinues {
        /// Its name.
        office: String,
        /// The user's name there.
        user: String,
    },
    /// A stranger's call was refused; told once for each key.
    Knocked {
        /// Address of record in another overlay.
        aor: String,
        /// Short fingerprint of the user's key.
        key: String,
        /// Another key was known for this address.
        changed: bool,
    },
    /// The other end rings.
    Ringing {
        /// Its number.
        call: u64,
    },
    /// The call is answered.
    Answered {
        /// Its number.
        call: u64,
        /// Milliseconds since it was placed or came in.
        setup_ms: f64,
        /// Codec agreed.
        codec: String,
    },
    /// Who holds whom in a call has changed.
    Held {
        /// Its number.
        call: u64,
        /// This end holds the other one.
        here: bool,
        /// The other end holds this one.
        there: bool,
    },
    /// How the transfer of a call's other end goes.
    Transfer {
        /// Its number.
        call: u64,
        /// What the other end was answered where it calls.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
    /// The other end of a call asks this one to call somebody else, which it does.
    Transferred {
        /// Its number.
        call: u64,
        /// Whom.
        to: String,
        /// The new call's number.
        by: u64,
    },
    /// A DTMF digit was heard.
    Dtmf {
        /// Its number.
        call: u64,
        /// The digit.
        digit: char,
    },
    /// A machine has joined by six digits, or three wrong ones have made them void.
    Paired {
        /// Who was invited.
        user: String,
        /// True when the digits were right; the machine then enrols by itself.
        right: bool,
    },
    /// The call is over.
    Ended {
        /// Its number.
        call: u64,
        /// How it went.
        report: Box<CallReport>,
    },
    /// A message has come.
    Message {
        /// It.
        message: Box<MessageEntry>,
    },
    /// Something became of a message of ours after its command was answered.
    MessageState {
        /// It.
        message: Box<MessageEntry>,
    },
}
