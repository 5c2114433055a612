//! The keys.

use super::{Bootstrap, HttpProxy, OutsideAccount, TurnServer};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What is known of one key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The TOML table it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// The flag of `chordial start` that sets it, without the dashes.
    pub flag: Option<&'static str>,
    /// True when the flag takes no value.
    pub switch: bool,
    /// What it does.
    pub help: &'static str,
    default: fn() -> toml::Value,
}

impl Key {
    /// The default as TOML.
    pub fn default_value(&self) -> toml::Value {
        (self.default)()
    }
}

/// What stands for an absent optional value in the example file: an empty string.
mod optional {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&value.as_ref().map(T::to_string).unwrap_or_default())
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(d)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| D::Error::custom(format!("\"{text}\" is not an address of the form IP:PORT")))
    }
}

mod port_range {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(range: &(u16, u16), s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{}-{}", range.0, range.1))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<(u16, u16), D::Error> {
        let text = String::deserialize(d)?;
        let parts = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        parts.ok_or_else(|| D::Error::custom(format!("\"{text}\" is not a range of ports of the form FIRST-LAST")))
    }
}

macro_rules! keys {
    ($( $section:ident $Section:ident $doc:literal {
        $( $(#[doc = $help:literal])+ $(#[with($with:literal)])? $name:ident: $ty:ty = $default:expr $(, flag $flag:literal)? $(, switch $switch:literal)? ; )+
    } )+) => {
        /// The configuration: one field a TOML table.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $( #[doc = $doc] pub $section: $Section, )+
            /// Accounts of this user with outside registrars.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub account: Vec<OutsideAccount>,
        }

        $(
            #[doc = $doc]
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section { $( $(#[doc = $help])+ $(#[serde(with = $with)])? pub $name: $ty, )+ }

            impl Default for $Section {
                fn default() -> Self { $Section { $( $name: $default, )+ } }
            }
        )+

        /// Every key, in the order of the example file.
        pub const KEYS: &[Key] = &[ $( $( Key {
            section: stringify!($section),
            name: stringify!($name),
            flag: { let f: &[&'static str] = &[$($flag,)? $($switch,)?]; if f.is_empty() { None } else { Some(f[0]) } },
            switch: { let f: &[&'static str] = &[$($switch,)?]; !f.is_empty() },
            help: concat!($($help, "\n"),+),
            default: || {
                let table = toml::Table::try_from(Config::default()).unwrap_or_default();
                table.get(stringify!($section)).and_then(|s| s.get(stringify!($name))).cloned().unwrap_or(toml::Value::Boolean(false))
            },
        }, )+ )+ ];
    };
}

/// How standard phones prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhoneAuth {
    /// HTTP digest, MD5 or SHA-256 (RFC 8760).
    Digest,
    /// Not at all; only on loopback or in a network namespace.
    None,
}

/// How peers of the same overlay are found where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discover {
    /// On the local network, by mDNS and by SIP multicast.
    Lan,
    /// By mDNS and DNS-SD on the local network (RFC 6762, RFC 6763).
    Mdns,
    /// By SIP's multicast group on the local network (RFC 3261 section 10.2.6).
    Multicast,
    /// Not at all.
    None,
}

/// Whether a router is asked to open the overlay port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapPort {
    /// By PCP, NAT-PMP or UPnP, where this machine's address is private.
    Auto,
    /// Not at all.
    None,
}

/// Whether port 443 is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Port443 {
    /// While this node is a supernode that relays, where the system lets it.
    Auto,
    /// Never.
    None,
}

/// Whether voice is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Wherever the other end can; each call shows whether it is.
    Preferred,
    /// Calls whose other end cannot are refused.
    Required,
    /// Never offered.
    Off,
}

/// Whether calls look for the best way between both ends (ICE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ice {
    /// Offered always, used where the other end has it.
    Auto,
    /// Calls whose other end has none are refused.
    On,
    /// Neither offered nor accepted: voice goes to the address that descriptions name.
    Off,
}

/// Which callers are told this machine's own addresses, once their call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// Whoever is talked to.
    Everybody,
    /// Contacts, and who counts as one; others are talked to by relays alone.
    Contacts,
}

/// Who from outside the overlay may ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    /// Contacts, and whoever was given a link that says so.
    Contacts,
    /// These, and whose key was met before.
    Known,
    /// Everybody, callers without any proof over UDP and TCP in clear included.
    Anyone,
    /// Nobody, contacts included.
    Nobody,
}

/// Whether a node relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// While it is a supernode.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Whom a relay serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayFor {
    /// All members of the overlay.
    Members,
    /// Its owner's devices.
    Own,
}

keys! {
    user User "Who uses this device." {
        /// User name. In an office it stands in the certificate and need not be given.
        name: String = String::new(), flag "name";
        /// Answer every call at once.
        auto_answer: bool = false, switch "auto-answer";
        /// How long a call rings before it counts as not answered, seconds.
        ring_seconds: u32 = 60;
        /// Calls that may ring here while another one is under way; one more hears busy.
        calls_waiting: u32 = 4, flag "calls-waiting";
        /// Who from outside this overlay may ring: contacts (and whom a contact link was given that says so), known (also whose key
        /// was met before), anyone (also plain SIP callers, who prove nothing), or nobody. The others are shown once, as a knock.
        strangers: Strangers = Strangers::Contacts, flag "strangers";
    }
    overlay Overlay "The ring of peers." {
        /// Name of the overlay, the domain of its addresses. In an office it stands in the certificate.
        name: String = "chordial".into(), flag "overlay";
        /// An open overlay: no enrolment; keys certify themselves, links and records are secured all the same.
        open: bool = false, switch "open";
        /// Laboratory: an open overlay whose peers talk in clear; listens on loopback or in a namespace only.
        lab_clear: bool = false, switch "lab-clear";
        /// Where links of other peers are taken, IP:PORT. Empty: port 5061 of every interface, or the next free one.
        #[with("optional")] listen: Option<SocketAddr> = None, flag "overlay-listen";
        /// The IP:PORT that others are told to reach the overlay port at. Empty: found out.
        #[with("optional")] advertise: Option<SocketAddr> = None, flag "advertise";
        /// Peers to join by, up to 16 (a handful is enough): IP:PORT, HOST:PORT (looked up again for every attempt, so dynamic DNS will do), or
        /// a DOMAIN with SRV records _chordial._tcp or _sips._tcp. They are tried together with the peers known from the last time
        /// and those found on the local network. None of all these: a new ring.
        bootstrap: Vec<Bootstrap> = Vec::new(), flag "bootstrap";
        /// lan: peers of this overlay on the local network are found and joined by themselves, by mDNS and by SIP multicast; mdns or multicast:
        /// by that one alone. none: neither looked for nor told.
        discover: Discover = Discover::Lan, flag "discover";
        /// auto: where this machine's address is private, the router is asked (PCP, NAT-PMP, UPnP) to open the overlay port. none: it is not asked.
        map_port: MapPort = MapPort::Auto, flag "map-port";
        /// auto: while this node is a supernode that relays, links and relayed voice are taken at TCP port 443 too, where this program may bind it,
        /// for networks that let nothing else out; where it may not, `chordial status` says so. none: only at the other ports.
        port_443: Port443 = Port443::Auto;
        /// auto, supernode or ordinary. auto: ordinary, until the ring needs this node, others can reach it and it can bear it.
        role: String = "auto".into(), flag "role";
        /// Copies kept of each record.
        replicas: u8 = 4;
        /// Shortest successor list; a large ring keeps log2 N.
        successors: u8 = 8;
        /// Longest pause between two rounds of stabilisation, in a ring at rest, milliseconds; shorter of itself where peers come and go.
        stabilize_ms: u32 = 24000;
        /// Chord as in the paper, for comparison: fingers of base 2, no member list, nothing remembered on the way.
        plain_chord: bool = false;
        /// Lifetime of a registration in the overlay without renewal, seconds.
        lifetime_seconds: u32 = 600;
    }
    tier Tier "Supernodes and ordinary nodes." {
        /// Ordinary nodes that this one takes while it is a supernode.
        capacity: u16 = 256;
        /// How long a node is up at one address before it becomes a supernode by itself, seconds. Not where the ring has fewer than eight.
        settled_seconds: u32 = 1800;
        /// Free memory that a node needs to become a supernode by itself, MiB.
        min_memory_mb: u32 = 128;
        /// Load average of one processor, percent, above which no node becomes a supernode by itself.
        max_load_percent: u32 = 70;
    }
    sip Sip "Standard phones." {
        /// Where standard phones are served, UDP, TCP and WebSockets, IP:PORT. Empty: port 5060 of every interface, or the next free one.
        /// Over TLS (and WebSockets over TLS) they are served where links are, `overlay.listen`.
        #[with("optional")] listen: Option<SocketAddr> = None, flag "sip-listen";
        /// digest or none (none on loopback or in a namespace only).
        phone_auth: PhoneAuth = PhoneAuth::Digest, flag "phone-auth";
        /// Plain SIP proxies, ADDRESS or ADDRESS/BITS each, that use this peer as their location service: their INVITEs are answered 302 with
        /// where the callee is.
        redirect: Vec<String> = Vec::new(), flag "redirect";
        /// A file of accounts, one `user,password` a line; beside those made by `phone add`. Empty: none.
        phones: PathBuf = PathBuf::new(), flag "phones";
        /// The certificate chain that phones are shown over TLS, a PEM file; read again when it changes. Empty: one made at the first start,
        /// `phones.pem` in the data directory, which phones have to be told to trust.
        certificate: PathBuf = PathBuf::new(), flag "certificate";
        /// Its private key, a PEM file. Empty: the key stands in the same file.
        certificate_key: PathBuf = PathBuf::new(), flag "certificate-key";
        /// Shortest registration that a phone may ask for, seconds.
        min_expires: u32 = 30;
        /// Registration given to a phone that asks for none, seconds.
        default_expires: u32 = 300;
        /// Longest registration, seconds.
        max_expires: u32 = 3600;
        /// How often this end's own calls are refreshed at the latest (session timer, RFC 4028), seconds; 90 at least. A call that neither
        /// end refreshes is over.
        session_seconds: u32 = 1800;
    }
    phone Phone "A plain SIP phone: register with an outside registrar and take no part in an overlay." {
        /// The registrar's IP:PORT. Empty: this device is a peer of the overlay.
        #[with("optional")] registrar: Option<SocketAddr> = None, flag "registrar";
        /// udp or tcp.
        transport: String = "udp".into();
        /// The SIP domain of the account. Empty: the registrar's address.
        domain: String = String::new();
        /// A file whose first line is the account's password. Empty: no password.
        password_file: PathBuf = PathBuf::new(), flag "password-file";
        /// Registration asked for, seconds.
        expires: u32 = 300;
    }
    dns Dns "Names of other domains." {
        /// The resolver that is asked, IP:PORT. Empty: those of this machine.
        #[with("optional")] server: Option<SocketAddr> = None, flag "dns";
    }
    nat Nat "Ways through NATs for the voice." {
        /// STUN servers, IP:PORT each, that tell this machine how it is seen from outside; the overlay's supernodes besides.
        stun: Vec<SocketAddr> = Vec::new();
        /// TURN servers, USER:PASSWORD@IP:PORT each, that relay for this machine where nothing else works; the overlay's supernodes besides.
        turn: Vec<TurnServer> = Vec::new();
        /// The HTTP proxy by which TLS connections go out (CONNECT) where they cannot straight: links, relayed voice, outside registrars. HOST:PORT or
        /// USER@HOST:PORT; auto: the first of https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY in the environment that is an http:// address, but for what no_proxy
        /// names; off: none. The proxy sees addresses and encrypted bytes. Peers are asked for at their port 443 first, which is what proxies allow.
        http_proxy: HttpProxy = HttpProxy::Auto;
        /// A file whose first line is the password of that user (Basic: it goes to the proxy in clear), or the environment variable that has it. Empty: none.
        http_proxy_password_file: PathBuf = PathBuf::new();
        /// See `http_proxy_password_file`.
        http_proxy_password_env: String = String::new();
    }
    relay Relay "STUN and TURN for members that cannot reach each other." {
        /// auto: while this node is a supernode; on; off.
        serve: Serve = Serve::Auto;
        /// Where clients are served over UDP, TCP and TLS, IP:PORT. Empty: port 3478 of every interface, or the next free one.
        #[with("optional")] listen: Option<SocketAddr> = None;
        /// One more port for TCP and TLS, IP:PORT, for networks that let nothing else out: 0.0.0.0:443 where this program may bind it.
        /// Empty: none.
        #[with("optional")] tls_listen: Option<SocketAddr> = None;
        /// A second UDP address of this machine, IP:PORT, by which clients find out how their NAT behaves (RFC 5780). Empty: only the
        /// next port of the first one.
        #[with("optional")] alternate: Option<SocketAddr> = None;
        /// Who is relayed: members, or own (this user's devices).
        whom: RelayFor = RelayFor::Members;
        /// Peers that are forwarded to though they are not public, ADDRESS or ADDRESS/BITS. Members' own addresses need not stand here.
        allow: Vec<String> = Vec::new();
        /// Most that is relayed in all, kbit/s. 0: no ceiling.
        max_kbps: u32 = 50000;
        /// Most of one allocation, kbit/s. 0: no ceiling.
        each_kbps: u32 = 8000;
        /// Most allocations.
        allocations: u32 = 500;
        /// Most allocations of one user.
        per_user: u32 = 16;
        /// UDP ports of relayed addresses, FIRST-LAST.
        #[with("port_range")] ports: (u16, u16) = (49152, 65535);
    }
    media Media "Voice." {
        /// UDP ports for RTP and RTCP, FIRST-LAST.
        #[with("port_range")] ports: (u16, u16) = (16384, 32767);
        /// Codecs in the order of preference.
        codec: Vec<String> = vec!["opus".into(), "pcmu".into(), "pcma".into()], flag "codec";
        /// preferred, required or off: DTLS-SRTP between programs like this one. With required, calls with standard phones and
        /// others that cannot are refused.
        encryption: Encryption = Encryption::Preferred, flag "encryption";
        /// auto, on or off: ICE, which finds a way for the voice through NATs. auto: used where the other end has it, as every program
        /// like this one does. on: calls with others are refused.
        ice: Ice = Ice::Auto, flag "ice";
        /// true or false: calls between programs like this one keep a second way alive beside the first, by another relay or another
        /// address, and voice moves to it within 200 ms when the first one fails. Costs 3.5 kB/s in each direction while there are two.
        second_path: bool = true;
        /// everybody or contacts: who is told this machine's addresses when a call from them is answered. Before that nobody is told any.
        /// contacts: all others are talked to by relays (the overlay's supernodes, or nat.turn) alone, and where there is none their
        /// calls find no way and end. Phones and programs without ICE are told an address in any case.
        addresses: Addresses = Addresses::Everybody;
        /// true or false: members of this device's own office count as contacts for that. They are in the office's book, and their
        /// devices link with this one anyway. In an open overlay, where anybody is a member, only contacts do.
        members_are_contacts: bool = true;
        /// Seconds without RTP and RTCP after which a call with a phone or program that has no ICE ends; not while one end holds the
        /// other. 0: never. With ICE a call ends 30 seconds after the other end was last there.
        rtp_timeout: u32 = 60;
        /// auto, device, device:NAME, wav:FILE, tone or null. auto: the default microphone, silence where there is no sound
        /// server. NAME: part of a name or description as `chordial audio` lists them.
        audio_in: String = "auto".into(), flag "audio-in";
        /// auto, device, device:NAME, wav:FILE or null.
        audio_out: String = "auto".into(), flag "audio-out";
    }
    log Log "What is written to standard error." {
        /// error, warn, info, debug or trace; or a filter such as chordial::overlay=debug.
        level: String = "warn".into(), flag "log";
    }
}
