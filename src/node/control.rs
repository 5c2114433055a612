//! What a person or a script can ask of a running node, and what it answers. The same types travel as
//! JSON lines over the control socket (SPEC section 8); `app` sees nothing else of the node.

use crate::core::Redacted;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use thiserror::Error;

/// Names one request while it is under way; chosen by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Who, where and with whom this node is. Answered by [`Reply::Status`].
    Status,
    /// The peers that this node knows. Answered by [`Reply::Peers`].
    Peers,
    /// Where a user can be reached. Answered by [`Reply::Lookup`].
    Lookup {
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
        /// Ask hop by hop from here instead of letting the ring carry the request.
        #[serde(default)]
        iterative: bool,
    },
    /// Place a call and report when it has ended. Events on the way, then [`Reply::Call`].
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
    },
    /// Accept a ringing call. Answered by [`Reply::Done`].
    Answer {
        /// Its number in `calls`; the only ringing one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// End or decline a call. Answered by [`Reply::Done`].
    Hangup {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
    },
    /// Send DTMF digits in a call. Answered by [`Reply::Done`].
    Dtmf {
        /// Its number in `calls`; the only one when absent.
        #[serde(default)]
        call: Option<u64>,
        /// `0-9`, `*`, `#`, `A-D`.
        digits: String,
    },
    /// The calls under way and the latest ended ones. Answered by [`Reply::Calls`].
    Calls,
    /// Send a message. Answered by [`Reply::Sent`] when it was delivered or waits for somebody who is absent.
    Message {
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
        /// The text.
        text: String,
    },
    /// The messages that were received and sent. Answered by [`Reply::Messages`].
    Messages {
        /// Those that were received and not read yet alone.
        #[serde(default)]
        unread: bool,
    },
    /// One message with its whole text, which counts as read from then on. Answered by [`Reply::Messages`].
    MessageRead {
        /// Its number in `messages`; the oldest unread one when absent.
        #[serde(default)]
        message: Option<u64>,
    },
    /// Take a message out of the history. Answered by [`Reply::Done`].
    MessageDelete {
        /// Its number in `messages`.
        message: u64,
    },
    /// Make an account for a standard phone. Answered by [`Reply::Done`].
    PhoneAdd {
        /// User name.
        user: String,
        /// What the owner calls the phone.
        #[serde(default)]
        label: String,
        /// The password; only hashes of it are kept.
        password: String,
    },
    /// The accounts of standard phones. Answered by [`Reply::Phones`].
    PhoneList,
    /// Remove an account. Answered by [`Reply::Done`].
    PhoneRemove {
        /// User name.
        user: String,
    },
    /// Print a one-time code by which `user` joins this office. Answered by [`Reply::Invite`].
    Invite {
        /// User name.
        user: String,
        /// A number by which the user is called too.
        #[serde(default)]
        extension: Option<String>,
    },
    /// The devices of this node's user. Answered by [`Reply::Devices`].
    Devices,
    /// Print a one-time code by which a further device of this user joins. Answered by [`Reply::Invite`].
    DeviceAdd {
        /// What to call it; by default it says so itself.
        #[serde(default)]
        label: Option<String>,
        /// Hand the user's key over, so that it can add and remove devices itself.
        #[serde(default)]
        with_key: bool,
    },
    /// Revoke a device of this user. Answered by [`Reply::Done`].
    DeviceRemove {
        /// Its label, or its key's fingerprint.
        device: String,
    },
    /// Who is in the office. Answered by [`Reply::Office`].
    OfficeUsers,
    /// Revoke a user with all devices, or one device. Answered by [`Reply::Done`].
    OfficeRevoke {
        /// User name, `USER/LABEL`, or the fingerprint of a user's or device's key.
        target: String,
    },
    /// Whether a member's device may take standard phones of any name upon itself. Answered by [`Reply::Done`].
    OfficeAdapters {
        /// Fingerprint of its key.
        device: String,
        /// It may.
        allow: bool,
    },
    /// Make a device of a user an enroller too. Answered by [`Reply::Done`].
    OwnerAdd {
        /// User name.
        user: String,
        /// The secret of the recovery sheet.
        sheet: String,
    },
    /// Set the user's password for logging in on other devices. Answered by [`Reply::Password`].
    Password {
        /// What was made of it where it was typed (`identity::login::PasswordParts`), in hexadecimal: as secret as the password.
        #[serde(with = "secret")]
        parts: Redacted<String>,
    },
    /// Invite `user` by six digits, for a machine beside this one. Answered by [`Reply::Pairing`].
    Pair {
        /// User name.
        user: String,
    },
    /// Put a contact under a name; replaces what was there. Answered by [`Reply::Done`].
    ContactAdd {
        /// The name, in any case usable as a TARGET.
        name: String,
        /// Extension, user name, AOR or `sip:` URI.
        target: String,
    },
    /// Remove a contact. Answered by [`Reply::Done`].
    ContactRemove {
        /// The name.
        name: String,
    },
    /// The contacts, as the user's devices have them by now. Answered by [`Reply::Contacts`].
    ContactList,
    /// This user's contact link, for people of other overlays. Answered by [`Reply::ContactLink`].
    ContactLink {
        /// Whether whoever has it may ring without being asked about.
        #[serde(default)]
        ring: RingRight,
    },
    /// Take up who a contact link names, or who knocked. Answered by [`Reply::Done`].
    ContactAccept {
        /// The link; of one who knocked the AOR, or the key's short fingerprint.
        who: String,
        /// What to call them. Default: their user name.
        #[serde(default)]
        name: Option<String>,
    },
    /// Drop a contact of another overlay, and the key known of it. Answered by [`Reply::Done`].
    ContactForget {
        /// Its name or AOR.
        name: String,
    },
    /// Who from other overlays is known, knocked, is blocked. Answered by [`Reply::Strangers`].
    Strangers,
    /// Let somebody of another overlay ring no more. Answered by [`Reply::Done`].
    Block {
        /// A contact's name, an AOR, `@OVERLAY`, or a key's short fingerprint.
        target: String,
    },
    /// Take a block back. Answered by [`Reply::Done`].
    Unblock {
        /// As it was blocked.
        target: String,
    },
    /// Leave the overlay and end the program. Answered by [`Reply::Done`].
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
    /// To [`Command::OfficeUsers`].
    Office(Box<OfficeReport>),
    /// To [`Command::Pair`].
    Pairing {
        /// The six digits, to be typed in on the other machine.
        digits: String,
        /// Seconds until they expire.
        expires: u64,
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
    },
    /// A user, a device or an enroller counts no more.
    Revoked {
        /// What people call it.
        name: String,
        /// Fingerprint of its key.
        key: String,
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

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageState {
    /// Received and not read.
    #[default]
    Unread,
    /// Received and read.
    Read,
    /// On its way; not known what became of it.
    Sent,
    /// It waits for a recipient who is absent.
    Waits,
    /// A device of the recipient has it.
    Delivered,
    /// It was refused, or nobody was found.
    Failed,
    /// It waited for seven days and nobody fetched it.
    Expired,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MessageEntry {
    /// Its number.
    pub number: u64,
    /// 32 hexadecimal digits, the same at both ends.
    pub id: String,
    /// `in` or `out`.
    pub direction: String,
    /// Who wrote it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// When it was written, seconds since 1970.
    pub sent: u64,
    /// The text; in a list its first 200 characters.
    pub text: String,
    /// Where it stands.
    pub state: MessageState,
    /// It was sealed to the recipient's devices all the way.
    pub sealed: bool,
    /// Who wrote it is proven by the sender's signature: the short fingerprint of the user's key; else empty.
    #[serde(default)]
    pub verified: String,
    /// SIP status of what became of it; 0 where none is known.
    #[serde(default)]
    pub status: u16,
    /// Why, for a person.
    #[serde(default)]
    pub reason: String,
}

/// One device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// What the user calls it.
    pub label: String,
    /// Fingerprint of its key.
    pub key: String,
    /// It is the one asked.
    pub this: bool,
    /// When it last registered, seconds since 1970, where known.
    pub last_seen: Option<u64>,
    /// It counts no more.
    pub revoked: bool,
}

/// To `office users`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OfficeReport {
    /// Its name.
    pub office: String,
    /// By name.
    pub users: Vec<OfficeUser>,
    /// Devices of which it is not known yet whose they are.
    pub other_devices: Vec<OfficeDevice>,
    /// Phone accounts and the keys of the devices that may sign for them.
    pub delegations: Vec<(String, String)>,
    /// Invites that can be redeemed.
    pub invites: Vec<OfficeInvite>,
    /// Names that more than one key holds.
    pub conflicts: Vec<String>,
    /// Fingerprints of the enrollers' keys.
    pub administrators: Vec<String>,
}

/// One user of an office.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OfficeUser {
    /// Name.
    pub user: String,
    /// Numbers.
    pub extensions: Vec<String>,
    /// Fingerprint of the user's key.
    pub key: String,
    /// Counts no more.
    pub revoked: bool,
    /// Fingerprint of the enroller's key.
    pub enrolled_by: String,
    /// Devices, by key.
    pub devices: Vec<OfficeDevice>,
}

/// One device in an office's book.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OfficeDevice {
    /// Fingerprint of its key.
    pub key: String,
    /// What its user calls it.
    pub label: String,
    /// Its place on the ring, 40 hexadecimal digits.
    pub peer_id: String,
    /// Counts no more.
    pub revoked: bool,
    /// May take standard phones of any name upon itself.
    pub may_adapt: bool,
}

/// One open invite.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OfficeInvite {
    /// For whom.
    pub user: String,
    /// Seconds until it expires.
    pub expires: u64,
}

/// To `status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// 40 hexadecimal digits; empty for a plain SIP phone.
    pub peer_id: String,
    /// The user's address of record.
    pub aor: String,
    /// `supernode`, `ordinary`, `joining`, or `phone` for a plain SIP phone.
    pub role: String,
    /// Why, and what hangs on what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierStatus>,
    /// The ring from here.
    pub overlay: OverlayStatus,
    /// Who can be reached through this node.
    pub registrations: Vec<Registration>,
    /// Calls under way.
    pub calls: Vec<CallStatus>,
    /// Addresses taken.
    pub listen: Listen,
    /// From where others can reach this node.
    #[serde(default)]
    pub reach: ReachStatus,
    /// Opus implementation.
    pub voice_engine: String,
    /// Protection of the links between peers: `tls1.3`, or `none` in the laboratory mode.
    pub link_security: String,
    /// What was refused and dropped, by name.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// What the owner should look after, for as long as it lasts.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// Something that the owner should look after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Warning {
    /// What is wrong, and with what.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// The role of a node, and what hangs on what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TierStatus {
    /// Why the role is what it is.
    pub why: String,
    /// The supernode that an ordinary node hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<PeerStatus>,
    /// The other one, for when the primary is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<PeerStatus>,
    /// Nodes that hang on this supernode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<AttachedStatus>,
    /// How many it takes.
    pub capacity: u16,
}

/// A node that hangs on this one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AttachedStatus {
    /// 40 hexadecimal digits.
    pub peer_id: String,
    /// The overlay address that it tells; it need not be reachable there.
    pub address: String,
    /// What this supernode is to it: `primary` or `backup`.
    pub rank: String,
}

/// The ring from one node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// Its name.
    pub name: String,
    /// `joining`, `joined` or `none`.
    pub state: String,
    /// Peer-ID and address of the predecessor.
    pub predecessor: Option<PeerStatus>,
    /// Successors, nearest first.
    pub successors: Vec<PeerStatus>,
    /// Distinct fingers, nearest first.
    pub fingers: Vec<PeerStatus>,
    /// Records held here.
    pub records: usize,
    /// Supernodes remembered over a restart.
    #[serde(default)]
    pub known_hosts: usize,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// 40 hexadecimal digits.
    pub peer_id: String,
    /// Overlay address.
    pub address: String,
    /// `predecessor`, `successor`, `finger`, `primary`, `backup`, `attached`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Smoothed round trip, milliseconds, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// An address of record and where it is reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Registration {
    /// Address of record.
    pub aor: String,
    /// Contact URIs: this user agent or standard phones.
    pub contacts: Vec<String>,
}

/// The addresses that this node took.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listen {
    /// Standard phones, UDP and TCP.
    pub sip: Option<SocketAddr>,
    /// Links of peers.
    pub overlay: Option<SocketAddr>,
    /// What other peers are told.
    pub advertised: Option<SocketAddr>,
}

/// From where others can reach a node, as far as its addresses and its router say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReachStatus {
    /// `mapped` (a router opened a port), `public`, `lan` (not from outside, but other peers are there), `none`, `unknown` (not yet),
    /// `local` (this machine only); empty for a plain SIP phone.
    pub state: String,
    /// Overlay addresses that others are told, the local one first.
    pub addresses: Vec<String>,
    /// The same for a person.
    pub says: String,
    /// What to do where nobody can reach this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One call under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallStatus {
    /// Its number.
    pub call: u64,
    /// `in` or `out`.
    pub direction: String,
    /// The other end.
    pub with: String,
    /// `looking-up`, `calling`, `ringing`, `incoming`, `answered`, `ending`.
    pub state: String,
    /// Seconds since the answer.
    pub talk_s: f64,
    /// Codec, once agreed.
    pub codec: String,
    /// Protection of the voice as in [`CallReport::security`], once agreed.
    #[serde(default)]
    pub security: String,
}

/// To `lookup`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LookupReport {
    /// Whether a contact was found.
    pub found: bool,
    /// What was looked up.
    pub aor: String,
    /// Contact URIs.
    pub contacts: Vec<String>,
    /// Peers that the request passed, the one that answered included; 0 when this node held the answer.
    pub hops: u32,
    /// Peer-ID and address of each peer asked, in order.
    pub peers_asked: Vec<String>,
    /// Milliseconds.
    pub ms: f64,
    /// `recursive`, `iterative` or `local`.
    pub mode: String,
    /// Different user keys that claim this name; more than 1 only in an open overlay.
    pub claims: u32,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallReport {
    /// `completed`, `busy`, `no-answer`, `rejected`, `not-found` or `failed`.
    pub result: String,
    /// Final SIP status of the INVITE; 0 when there was none.
    pub status: u16,
    /// Why, for a person.
    pub reason: String,
    /// Its number.
    pub call: u64,
    /// `in` or `out`.
    pub direction: String,
    /// The other end.
    pub with: String,
    /// Milliseconds from the command to the answer; 0 when it was not answered.
    pub setup_ms: f64,
    /// Seconds from the answer to the end.
    pub talk_s: f64,
    /// Codec.
    pub codec: String,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets lost on the way here (RFC 3550 A.3).
    pub lost: u64,
    /// Interarrival jitter, milliseconds (RFC 3550 A.8).
    pub jitter_ms: f64,
    /// Round trip by RTCP, milliseconds, where measured.
    pub rtt_ms: Option<f64>,
    /// `direct`.
    pub path: String,
    /// Protection of the voice: `dtls-srtp` with keys that the other end's device signed for; `dtls-srtp-unverified` where nobody
    /// known signed; `none`.
    pub security: String,
    /// Overlay hops of the lookup that found the callee.
    pub hops: u32,
}

/// One contact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contact {
    /// What the user calls it.
    pub name: String,
    /// Extension, user name, AOR or `sip:` URI.
    pub target: String,
}

/// One account of a standard phone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PhoneStatus {
    /// User name.
    pub user: String,
    /// What the owner calls it.
    pub label: String,
    /// Contacts registered now.
    pub contacts: Vec<String>,
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

/// To `strangers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrangersReport {
    /// `contacts`, `known`, `anyone` or `nobody`.
    pub may_ring: String,
    /// Taken up by the user.
    pub contacts: Vec<ContactStatus>,
    /// Met before.
    pub known: Vec<ContactStatus>,
    /// Refused calls, the latest new caller first.
    pub knocks: Vec<KnockStatus>,
    /// As `unblock` takes them.
    pub blocked: Vec<String>,
}

/// Somebody of another overlay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContactStatus {
    /// What the user calls them; empty for who was only met.
    pub name: String,
    /// Address of record.
    pub aor: String,
    /// Short fingerprint of their office's root key, or `open`.
    pub overlay_key: String,
    /// Short fingerprint of their user key.
    pub key: String,
}

/// A stranger who called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KnockStatus {
    /// Address of record.
    pub aor: String,
    /// Short fingerprint of their office's root key, or `open`.
    pub overlay_key: String,
    /// Short fingerprint of their user key.
    pub key: String,
    /// How often.
    pub times: u32,
    /// The last time, seconds since 1970.
    pub at: u64,
    /// Another key was known for this address.
    pub changed: bool,
}
