//! The final answer to a request.

use super::*;
use serde::{Deserialize, Serialize};

/// A request's final answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Peers`].
    Peers {
        /// Nearest on the ring first.
        peers: Vec<PeerStatus>,
    },
    /// To [`Command::Relays`].
    Relays {
        /// The best one first.
        relays: Vec<RelayOffer>,
    },
    /// To [`Command::Lookup`].
    Lookup(LookupReport),
    /// To [`Command::Call`].
    Call(CallReport),
    /// To [`Command::Calls`].
    Calls {
        /// Under way, oldest first.
        calls: Vec<CallStatus>,
        /// Ended, latest first, 50 at most.
        ended: Vec<CallReport>,
    },
    /// To [`Command::Message`].
    Sent {
        /// What became of it.
        sent: Box<MessageEntry>,
    },
    /// To [`Command::Messages`] and [`Command::MessageRead`].
    Messages {
        /// Oldest first.
        messages: Vec<MessageEntry>,
    },
    /// To [`Command::PhoneList`].
    Phones {
        /// By user name.
        phones: Vec<PhoneStatus>,
    },
    /// To [`Command::Invite`].
    Invite {
        /// The one-time code.
        code: String,
        /// Seconds until it expires.
        expires: u64,
    },
    /// To [`Command::Devices`].
    Devices {
        /// By key.
        devices: Vec<DeviceStatus>,
    },
    /// To [`Command::OfficeMerge`] with a code.
    Merge(Box<MergeReport>),
    /// To [`Command::OfficeUsers`].
    Office(Box<OfficeReport>),
    /// To [`Command::Pair`].
    Pairing {
        /// The six digits, to be typed in on the other machine.
        digits: String,
        /// Seconds until they expire.
        expires: u64,
    },
    /// To [`Command::Accounts`].
    Accounts {
        /// In the order of the configuration.
        accounts: Vec<AccountStatus>,
    },
    /// To [`Command::Strangers`], before what it could be taken for.
    Strangers(StrangersReport),
    /// To [`Command::ContactList`].
    Contacts {
        /// By name.
        contacts: Vec<Contact>,
    },
    /// To [`Command::Password`].
    Password {
        /// Supernodes that hold a share of the key.
        holders: u32,
        /// How many of them have to answer.
        needed: u32,
    },
    /// To [`Command::ContactLink`].
    ContactLink {
        /// `chordial:...`
        link: String,
        /// Whose it is.
        aor: String,
        /// Short fingerprint of the user's key.
        key: String,
    },
    /// It was done.
    Done {
        /// What was done.
        done: String,
    },
}
