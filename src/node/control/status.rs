//! The node, its ring, its calls and its phones as they are reported.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

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
    /// What stands between this node and its supernodes, once it was tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatStatus>,
    /// The HTTP proxy that connections go out by where they cannot straight; absent where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,
    /// This node as a relay; absent where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
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

/// An HTTP proxy that TLS connections go out by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// `HOST:PORT`.
    pub proxy: String,
    /// The key of the configuration or the environment variable that names it.
    pub named: String,
    /// Connections that go by it now.
    pub tunnels: u64,
    /// What went wrong when it was last asked, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A node as a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Where STUN and TURN are served over UDP.
    pub udp: Vec<SocketAddr>,
    /// Where TURN is served over TCP and TLS, each port both.
    pub tcp: Vec<SocketAddr>,
    /// Allocations that stand.
    pub allocations: u64,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Packets and requests refused.
    pub refused: u64,
    /// Packets dropped by a ceiling or a full line.
    pub over_ceiling: u64,
    /// Why links and streams are not taken at port 443 too, where they would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shut: Option<String>,
    /// Why it does not relay, though it would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A relay that grants this node a credential, as a standard TURN client takes it.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RelayOffer {
    /// 40 hexadecimal digits.
    pub peer_id: String,
    /// Its addresses.
    pub hosts: Vec<IpAddr>,
    /// UDP port; 0: none.
    pub udp: u16,
    /// Ports of TCP and TLS, each both.
    pub streams: Vec<u16>,
    /// Realm of the credential.
    pub realm: String,
    /// User name.
    pub username: String,
    /// Password, good until the user name expires.
    pub password: String,
    /// For how long from now.
    pub seconds: u64,
    /// Round trip of the question, milliseconds.
    pub rtt_ms: f64,
    /// How many of its allocations are taken.
    pub load_percent: u8,
}

impl std::fmt::Debug for RelayOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayOffer").field("peer_id", &self.peer_id).field("hosts", &self.hosts).finish_non_exhaustive()
    }
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

/// How the NAT before a node behaves (RFC 5780).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NatStatus {
    /// On what the port that others see depends: `none` (no NAT), `independent`, `address`, `address-and-port` of the other end,
    /// `unknown` (there is a NAT, and only one supernode to ask), `blocked` (no UDP passes).
    pub mapping: String,
    /// Who is let in: `independent` (anybody), `address` or `address-and-port` that was written to, `unknown`, `blocked`.
    pub filtering: String,
    /// Where the first server saw the socket of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<SocketAddr>,
    /// Seconds since 1970.
    pub when: u64,
    /// STUN services of supernodes that were asked, the first one first.
    pub against: Vec<SocketAddr>,
    /// The same for a person.
    pub says: String,
}

/// One call under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallStatus {
    /// Its number.
    pub call: u64,
    /// `in` or `out`.
    pub direction: String,
    /// The account that it goes by, where it goes by one.
    #[serde(default)]
    pub account: String,
    /// The other end.
    pub with: String,
    /// `looking-up`, `calling`, `ringing`, `incoming`, `answered`, `held` (answered, and on hold by either end), `ending`.
    pub state: String,
    /// Seconds since the answer.
    pub talk_s: f64,
    /// Codec, once agreed.
    pub codec: String,
    /// Who holds the other end: `here`, `there`, `both`, or empty.
    #[serde(default)]
    pub held_by: String,
    /// Silence goes out instead of what is said here.
    #[serde(default)]
    pub muted: bool,
    /// Protection of the voice as in [`CallReport::security`], once agreed.
    #[serde(default)]
    pub security: String,
    /// The voice's way as in [`CallReport::path`], once agreed.
    #[serde(default)]
    pub path: String,
    /// The two ways of a call that has two, the one that ICE holds for the better first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathStatus>,
    /// As in [`CallReport::transport`].
    #[serde(default)]
    pub transport: String,
    /// Short fingerprint of the other end's user key, where that is what it is known by.
    #[serde(default)]
    pub key: String,
    /// How that key stands: `contact`, `known`, `new-key`, `changed`.
    #[serde(default)]
    pub standing: String,
}

/// One of the two ways of a call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PathStatus {
    /// As in [`CallReport::path`].
    pub path: String,
    /// What this end says goes by it; both do while packets are lost.
    pub active: bool,
    /// Round trip of its probes, milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// Share of its latest 64 probes from here that did not arrive, 0 to 1.
    pub loss: f64,
}

/// One of the keys that claim a name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClaimStatus {
    /// The name with the key's fingerprint, as it is shown.
    pub name: String,
    /// What `call` and `message` take for this one.
    pub target: String,
    /// The fingerprint: short, or in full where two begin alike.
    pub key: String,
    /// `own`, `contact`, `known`, `new-key`, `changed`, `blocked`; empty in an office.
    pub standing: String,
    /// Names of the contacts who have introduced this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub introduced_by: Vec<String>,
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
    /// These keys.
    #[serde(default)]
    pub keys: Vec<ClaimStatus>,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallReport {
    /// `completed`, `busy`, `no-answer`, `rejected`, `not-found`, `lost` (the other end vanished while both talked) or `failed`.
    pub result: String,
    /// Final SIP status of the INVITE; 0 when there was none; 408 and 488 where an answered call was lost, or not encrypted as agreed.
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
    /// The voice's way: `direct`, `srflx` (direct, through a NAT) or `relay HOST`.
    pub path: String,
    /// What carries it away from this end: `udp`, `tcp`; to a relay also `tls`. Empty where ICE has no part.
    #[serde(default)]
    pub transport: String,
    /// Protection of the voice: `dtls-srtp` with keys that the other end's device signed for; `dtls-srtp-unverified` where nobody
    /// known signed; `none`; `failed` where the other end showed a certificate that nobody had signed for, or none.
    pub security: String,
    /// Overlay hops of the lookup that found the callee.
    pub hops: u32,
}

/// One account with an outside registrar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountStatus {
    /// What it is called here.
    pub name: String,
    /// Address of record.
    pub aor: String,
    /// `registered`, `registering`, `failed`, `off`, or `standby` of a shared one that another machine has.
    pub state: String,
    /// Seconds until the registration ends, unless it is renewed.
    pub expires: u64,
    /// Transport and address of the server in use.
    pub server: String,
    /// What the registrar knows this device by.
    pub contact: String,
    /// Its GRUU, where the registrar gives any.
    pub gruu: String,
    /// The flow is kept (RFC 5626).
    pub outbound: bool,
    /// What went wrong last, and with what; empty where nothing did since.
    pub error: String,
    /// What to do about it.
    pub next: String,
    /// Seconds until it is tried again.
    pub again: u64,
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
    /// Whose further devices serve it too: `USER/KEY`.
    #[serde(default)]
    pub also: Vec<String>,
}
