//! Messages, devices, users and contacts as they are reported.

use serde::{Deserialize, Serialize};

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
    /// How that key stands where names are claimed by keys: `contact`, `known`, `new-key`, `changed`; else empty.
    #[serde(default)]
    pub standing: String,
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

/// One name that is another one in the office that stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Renamed {
    /// As it was.
    pub was: String,
    /// As it is from now on.
    pub is: String,
}

/// To `office merge --code`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MergeReport {
    /// The office that stays.
    pub continues_as: String,
    /// How many users come.
    pub merged_users: usize,
    /// Names and extensions that were somebody's there.
    pub renamed: Vec<Renamed>,
    /// Until when devices that are off now may come, seconds since 1970.
    pub until: u64,
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

/// One contact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contact {
    /// What the user calls it.
    pub name: String,
    /// Extension, user name, AOR or `sip:` URI.
    pub target: String,
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
    /// Introduced by contacts, and not taken up yet.
    #[serde(default)]
    pub introduced: Vec<ContactStatus>,
    /// Refused calls and changed keys, the latest new caller first.
    pub knocks: Vec<KnockStatus>,
    /// As `unblock` takes them.
    pub blocked: Vec<String>,
}

/// Somebody of another overlay, or of an open one.
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
    /// AOR of the contact who introduced them; empty where nobody did.
    #[serde(default)]
    pub introduced_by: String,
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
