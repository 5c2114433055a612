//! Requests, and how one fails.

use crate::core::Redacted;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names one request while it is under way; chosen by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Who, where and with whom this node is. Answered by [`Reply::Status`](super::Reply::Status).
    Status,
    /// Relays that grant this node a credential, the best one first. Answered by [`Reply::Relays`](super::Reply::Relays).
    Relays,
    /// The peers that this node knows. Answered by [`Reply::Peers`](super::Reply::Peers).
    Peers,
    /// Where a user can be reached. Answered by [`Reply::Lookup`](super::Reply::Lookup).
    Lookup {
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
        /// Ask hop by hop from here instead of letting the ring carry the request.
        #[serde(default)]
        iterative: bool,
    },
    /// Place a call and report when it has ended. Events on the way, then [`Reply::Call`](super::Reply::Call).
    Call {
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
        /// Audio source instead of the configured one: `wav:FILE`, `tone`, `null`, `auto`, `device`, `device:NAME`.
        #[serde(default)]
        play: Option<String>,
        /// Audio sink instead of the configured one: `wav:FILE`, `null`, `auto`, `device`, `device:NAME`.
        #[serde(default)]
        record: Option<String>,
        /// Hang up this many seconds after the answer.
        #[serde(default)]
        duration: Option<f64>,
        /// The account with an outside registrar that it goes by; by default what `numbers` and `uris` of the accounts say.
        #[serde(default)]
        account: Option<String>,
    },
    /// Accept a ringing call. Answered by [`Reply::Done`](super::Reply::Done).
    Answer {
        /// Its number in `calls`; the only ringing one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// End or decline a call. Answered by [`Reply::Done`](super::Reply::Done).
    Hangup {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// Put the other end of a call on hold. Answered by [`Reply::Done`](super::Reply::Done) when it has agreed.
    Hold {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// Take a call back from hold. Answered by [`Reply::Done`](super::Reply::Done) when the other end has agreed.
    Resume {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// Send silence in a call instead of what is said. Answered by [`Reply::Done`](super::Reply::Done).
    Mute {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
        /// Send again what is said.
        #[serde(default)]
        off: bool,
    },
    /// Transfer the other end of a call. Answered by [`Reply::Done`](super::Reply::Done) when it talks with somebody else.
    Transfer {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
        /// To whom: extension, user name, AOR or `sip:` URI.
        #[serde(default)]
        target: Option<String>,
        /// To the other end of this call instead, which it takes over.
        #[serde(default)]
        attended: Option<u64>,
    },
    /// Send DTMF digits in a call. Answered by [`Reply::Done`](super::Reply::Done).
    Dtmf {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
        /// `0-9`, `*`, `#`, `A-D`.
        digits: String,
    },
    /// The calls under way and the latest ended ones. Answered by [`Reply::Calls`](super::Reply::Calls).
    Calls,
    /// Send a message. Answered by [`Reply::Sent`](super::Reply::Sent) when it was delivered or waits for somebody who is absent.
    Message {
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
        /// The text.
        text: String,
    },
    /// The messages that were received and sent. Answered by [`Reply::Messages`](super::Reply::Messages).
    Messages {
        /// Those that were received and not read yet alone.
        #[serde(default)]
        unread: bool,
    },
    /// One message with its whole text, which counts as read from then on. Answered by [`Reply::Messages`](super::Reply::Messages).
    MessageRead {
        /// Its number in `messages`; the oldest unread one when absent.
        #[serde(default)]
        message: Option<u64>,
    },
    /// Take a message out of the history. Answered by [`Reply::Done`](super::Reply::Done).
    MessageDelete {
        /// Its number in `messages`.
        message: u64,
    },
    /// Make an account for a standard phone. Answered by [`Reply::Done`](super::Reply::Done).
    PhoneAdd {
        /// User name.
        user: String,
        /// What the owner calls the phone.
        #[serde(default)]
        label: String,
        /// The password; only hashes of it are kept.
        password: String,
    },
    /// The accounts of standard phones. Answered by [`Reply::Phones`](super::Reply::Phones).
    PhoneList,
    /// Remove an account. Answered by [`Reply::Done`](super::Reply::Done).
    PhoneRemove {
        /// User name.
        user: String,
    },
    /// Let another member's device serve a phone too. Answered by [`Reply::Done`](super::Reply::Done).
    PhoneShare {
        /// The phone's user name.
        user: String,
        /// User name of the member, or `USER/KEY` with the fingerprint of one of several devices.
        member: String,
    },
    /// Let a device that serves a phone too forget it. Answered by [`Reply::Done`](super::Reply::Done).
    PhoneUnshare {
        /// The phone's user name.
        user: String,
        /// Fingerprint of the device's key, or its user's name.
        device: String,
    },
    /// Print a one-time code by which `user` joins this office. Answered by [`Reply::Invite`](super::Reply::Invite).
    Invite {
        /// User name.
        user: String,
        /// A number by which the user is called too.
        #[serde(default)]
        extension: Option<String>,
    },
    /// The devices of this node's user. Answered by [`Reply::Devices`](super::Reply::Devices).
    Devices,
    /// Print a one-time code by which a further device of this user joins. Answered by [`Reply::Invite`](super::Reply::Invite).
    DeviceAdd {
        /// What to call it; by default it says so itself.
        #[serde(default)]
        label: Option<String>,
        /// Hand the user's key over, so that it can add and remove devices itself.
        #[serde(default)]
        with_key: bool,
    },
    /// Revoke a device of this user. Answered by [`Reply::Done`](super::Reply::Done).
    DeviceRemove {
        /// Its label, or its key's fingerprint.
        device: String,
    },
    /// Who is in the office. Answered by [`Reply::Office`](super::Reply::Office).
    OfficeUsers,
    /// Revoke a user with all devices, or one device. Answered by [`Reply::Done`](super::Reply::Done).
    OfficeRevoke {
        /// User name, `USER/LABEL`, or the fingerprint of a user's or device's key.
        target: String,
    },
    /// Take another office in: print a code for its administrator, answered by [`Reply::Invite`](super::Reply::Invite). Or merge this office into the one
    /// of the code, answered by [`Reply::Merge`](super::Reply::Merge).
    OfficeMerge {
        /// The code that the other office's administrator has printed.
        #[serde(default)]
        code: Option<String>,
    },
    /// Revoke an enroller by the root. Answered by [`Reply::Done`](super::Reply::Done).
    EnrollerRevoke {
        /// Fingerprint of the enroller's key or of its device's, or `USER/LABEL` of the device.
        target: String,
        /// The secret of the recovery sheet.
        sheet: String,
        /// What it signed from then on counts no more, seconds since 1970; by default from now on.
        #[serde(default)]
        since: Option<u64>,
    },
    /// Whether a member's device may take standard phones of any name upon itself. Answered by [`Reply::Done`](super::Reply::Done).
    OfficeAdapters {
        /// Fingerprint of its key.
        device: String,
        /// It may.
        allow: bool,
    },
    /// Make a device of a user an enroller too. Answered by [`Reply::Done`](super::Reply::Done).
    OwnerAdd {
        /// User name.
        user: String,
        /// The secret of the recovery sheet.
        sheet: String,
    },
    /// Set the user's password for logging in on other devices. Answered by [`Reply::Password`](super::Reply::Password).
    Password {
        /// What was made of it where it was typed (`identity::login::PasswordParts`), in hexadecimal: as secret as the password.
        #[serde(with = "secret")]
        parts: Redacted<String>,
    },
    /// Invite `user` by six digits, for a machine beside this one. Answered by [`Reply::Pairing`](super::Reply::Pairing).
    Pair {
        /// User name.
        user: String,
    },
    /// Put a contact under a name; replaces what was there. Answered by [`Reply::Done`](super::Reply::Done).
    ContactAdd {
        /// The name, in any case usable as a TARGET.
        name: String,
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
    },
    /// Remove a contact. Answered by [`Reply::Done`](super::Reply::Done).
    ContactRemove {
        /// The name.
        name: String,
    },
    /// The contacts, as the user's devices have them by now. Answered by [`Reply::Contacts`](super::Reply::Contacts).
    ContactList,
    /// This user's contact link, for people of other overlays. Answered by [`Reply::ContactLink`](super::Reply::ContactLink).
    ContactLink {
        /// Whether whoever has it may ring without being asked about.
        #[serde(default)]
        ring: RingRight,
    },
    /// Take up who a contact link names, or who knocked. Answered by [`Reply::Done`](super::Reply::Done).
    ContactAccept {
        /// The link; of one who knocked the AOR, or the key's short fingerprint.
        who: String,
        /// What to call them. Default: their user name.
        #[serde(default)]
        name: Option<String>,
    },
    /// Give somebody one's word about a contact's key. Answered by [`Reply::Sent`](super::Reply::Sent).
    Introduce {
        /// A contact's name or AOR, or of who was met.
        who: String,
        /// To whom, as for a message.
        to: String,
        /// Take it back.
        #[serde(default)]
        withdraw: bool,
    },
    /// Drop a contact of another overlay, and the key known of it. Answered by [`Reply::Done`](super::Reply::Done).
    ContactForget {
        /// Its name or AOR.
        name: String,
    },
    /// The accounts with outside registrars. Answered by [`Reply::Accounts`](super::Reply::Accounts).
    Accounts,
    /// Who from other overlays is known, knocked, is blocked. Answered by [`Reply::Strangers`](super::Reply::Strangers).
    Strangers,
    /// Let somebody of another overlay ring no more. Answered by [`Reply::Done`](super::Reply::Done).
    Block {
        /// A contact's name, an AOR, `@OVERLAY`, or a key's short fingerprint.
        target: String,
    },
    /// Take a block back. Answered by [`Reply::Done`](super::Reply::Done).
    Unblock {
        /// As it was blocked.
        target: String,
    },
    /// Leave the overlay and end the program. Answered by [`Reply::Done`](super::Reply::Done).
    Stop,
}

/// What a contact link lets whoever has it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RingRight {
    /// Call, and knock where strangers do not ring.
    #[default]
    Ask,
    /// The first who calls with it within 30 days rings, and is a contact from then on.
    Once,
    /// Whoever calls with it rings, and is a contact from then on.
    Always,
}

/// A request's failure: what happened, to what, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{what}; {next}")]
pub struct CommandError {
    /// What happened and to what.
    pub what: String,
    /// What to do next.
    pub next: String,
}

impl CommandError {
    /// Both halves.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        CommandError { what: what.into(), next: next.into() }
    }
}

/// Secrets on the control socket, which is the owner's alone; they print nowhere else.
mod secret {
    use crate::core::Redacted;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(secret: &Redacted<String>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.reveal().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Redacted<String>, D::Error> {
        String::deserialize(deserializer).map(Redacted::new)
    }
}
