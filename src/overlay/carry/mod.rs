//! Overlay messages as SIP `REGISTER`, in the style of draft-bryan-p2psip-dsip-00 (here: dSIP) and
//! draft-zangrilli-p2psip-dsip-dhtchord-00.
//!
//! | message | request | answer |
//! |---|---|---|
//! | peer registration | To = From = Contact = the peer's URI, `Expires` > 0 | 200 with links, 302 with a closer peer |
//! | leave | the same with `Expires: 0` and the leaver's links | 200 |
//! | peer query | To `<sip:peer@0.0.0.0;peer-ID=X>`, no Contact | 200 from X itself, 404 from the peer responsible, 302 |
//! | resource query | To `<sip:bob@overlay;resource-ID=X>`, no Contact | 200 with the entries, 404, 302 |
//! | resource registration | the same To, Contact, the entries as body | 200, 302, 412 with the later entry |
//! | news of members | To = From = the sender's URI, no Contact, the news as body | 200, with the receiver's list where it differs |
//! | renewal | the same To, no Contact, a body of the type `application/chordial-touch+cbor` | 200, 302, 404 where it is not held, 412 |
//! | lease | the same To, no Contact, a body of the type `application/chordial-lease+cbor` | 200 or 412 with such a body, 302 |
//! | chunk | the same To, no Contact, a body of the type `application/chordial-chunk+cbor` | given: as a resource registration; asked for: 200 with such a body, 404 |
//! | comparison | To = the sender, no Contact, a body of the type `application/chordial-compare+cbor` | 200 with such a body |
//!
//! `Request-Disposition: redirect` asks for 302 (iterative), `proxy` to pass the request on (recursive; RFC 3841), with
//! `Max-Forwards` as the bound of hops. `redirect` with `Max-Forwards: 0` asks the peer itself, responsible or not: how
//! replicas are asked and written.
//!
//! What the drafts do not have:
//! * The body: `application/chordial-record+cbor`, a CBOR array of byte strings, each a signed entry. The Contact fields beside
//!   it repeat what contact entries say, for people and SIP tools; they are written and never read.
//! * `DHT-Path: <sip:peer@HOST:PORT;peer-ID=X>`, one for each peer that handled a recursive request, the asker first; the answer
//!   brings it back with the answering peer last. `DHT-PeerID` names the sender of this very hop, as the link proves it.
//! * `;holder=replica` in the `DHT-PeerID` of an answer from a peer that holds the resource and is not responsible for it.
//! * News of members: a body `application/chordial-members+cbor`, see `members.rs`. It is hearsay: what stands in it is no link.
//! * `;holder=cache` in the `DHT-PeerID` of an answer from a peer that has the entries from an answer that it passed on.
//! * 412 for a store that a later entry stands against, 415 for a resource registration without entries.
//!
//! Written is the name-addr form that every SIP parser reads. Read are the forms that the drafts' examples take: with and
//! without angle brackets, parameters inside and outside, spaces, `peer-ID`, `peerID`, `peerId` and `pID`, `resource-ID` and
//! `rID`, `dht` and `dht-param`, addresses with and without a port.
//!
//! What ordinary nodes and supernodes ask each other: `tier`, told by a `DHT-Tier` field.
//!
//! Identifiers in a message are hints, except where the link proves them: what is stored is stored where the entries say.
//!
//! Absent: digest challenges between peers (links prove both ends), the `hmac-sha1` algorithm.

mod body;
mod chunk;
mod compare;
mod header;
mod lease;
mod members;
mod request;
mod response;
mod tier;

pub use members::MEMBERS_TYPE;

use super::{IdSpace, PeerRef};
use crate::core::Id;
use crate::identity::resource_key;
use crate::sip::msg::{Message, Method, ParseError};
use std::net::SocketAddr;

/// Media type of entries.
pub const RECORD_TYPE: &str = "application/chordial-record+cbor";
/// Media type of a renewal.
pub const TOUCH_TYPE: &str = "application/chordial-touch+cbor";
/// Media type of comparisons and of their answers.
pub const COMPARE_TYPE: &str = "application/chordial-compare+cbor";
/// Media type of leases and of their answers.
pub const LEASE_TYPE: &str = "application/chordial-lease+cbor";
/// Media type of chunks of blobs, and of questions for them.
pub const CHUNK_TYPE: &str = "application/chordial-chunk+cbor";
/// The option tag.
pub const OPTION: &str = "dht";
/// The name of this DHT (draft-zangrilli section 5.1.2).
pub const DHT_NAME: &str = "Chord1.0";
/// The hash algorithm.
pub const ALGORITHM: &str = "sha1";

/// How one peer writes and reads overlay messages.
#[derive(Clone, Debug)]
pub struct Carry {
    /// Space of identifiers.
    pub space: IdSpace,
    /// The overlay's name, a token.
    pub overlay: String,
    /// This peer.
    pub me: PeerRef,
    /// How long others may remember this peer unheard, in seconds.
    pub expires: u32,
    /// The id function for peers, where a peer-ID follows from the address; `None` where links prove peer-IDs.
    pub peer_id: Option<fn(SocketAddr) -> Id>,
    /// The id function for resources: the resource-ID of a canonical address of record.
    pub resource_id: fn(&str) -> Id,
}

impl Carry {
    /// For an overlay whose links prove peer-IDs.
    pub fn new(overlay: &str, me: PeerRef, expires: u32) -> Carry {
        Carry {
            space: IdSpace::SHA1,
            overlay: overlay.to_owned(),
            me,
            expires,
            peer_id: None,
            resource_id: resource_key,
        }
    }

    /// The answer to a request that [`Carry::decode_request`] refused. The caller gives To its tag
    /// ([`Message::set_to_tag`]).
    pub fn refuse(&self, request: &Message, error: &CarryError) -> Message {
        let mut message = Message::reply(request, error.status(), error.reason());
        match error {
            CarryError::Extension(unknown) => message.push("Unsupported", unknown),
            CarryError::MediaType => message.push("Accept", RECORD_TYPE),
            CarryError::NotOverlay => message.push("Require", OPTION),
            _ => {}
        }
        message.push("DHT-PeerID", self.own_peer_id(None));
        message.set_body("", Vec::new());
        message
    }
}

/// The peer-ID that belongs to an address in an overlay without certificates: SHA-1 of the IP address as text (an IPv6 one in
/// brackets), the low 16 bits replaced by the port (dSIP section 5.2.1).
pub fn address_peer_id(addr: SocketAddr) -> Id {
    let text = match addr {
        SocketAddr::V4(a) => a.ip().to_string(),
        SocketAddr::V6(a) => format!("[{}]", a.ip()),
    };
    let mut id = Id::sha1(text.as_bytes());
    id.0[18..].copy_from_slice(&addr.port().to_be_bytes());
    id
}

/// True for a message between peers; its answers are told by their transaction.
pub fn is_overlay(message: &Message) -> bool {
    message.is_request()
        && *message.method() == Method::Register
        && (message.has_token("Require", OPTION) || message.has("DHT-PeerID"))
}

/// Why an overlay message cannot be used. The fault is the sender's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CarryError {
    /// 400: a SIP fault.
    #[error(transparent)]
    Sip(#[from] ParseError),
    /// 400: a header field of the overlay is missing or malformed.
    #[error("missing or malformed {0}")]
    Header(&'static str),
    /// 421: no `Require: dht`.
    #[error("not an overlay message")]
    NotOverlay,
    /// 420: an option that this peer does not know.
    #[error("unknown option {0}")]
    Extension(String),
    /// 488: another overlay.
    #[error("another overlay")]
    OtherOverlay,
    /// 488: another hash algorithm.
    #[error("another hash algorithm")]
    OtherHash,
    /// 488: another DHT.
    #[error("another DHT")]
    OtherDht,
    /// 493: an identifier that is none, or not the one that belongs to the address or resource.
    #[error("wrong {0}")]
    BadId(&'static str),
    /// 415: a resource registration without entries.
    #[error("no signed entries")]
    MediaType,
    /// 400: the body is no array of entries.
    #[error("malformed entries")]
    Body,
}

impl CarryError {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            CarryError::Sip(_) | CarryError::Header(_) | CarryError::Body => 400,
            CarryError::NotOverlay => 421,
            CarryError::Extension(_) => 420,
            CarryError::OtherOverlay | CarryError::OtherHash | CarryError::OtherDht => 488,
            CarryError::BadId(_) => 493,
            CarryError::MediaType => 415,
        }
    }

    /// A reason phrase that names the fault.
    pub fn reason(&self) -> &'static str {
        match self {
            CarryError::Sip(_) => "Bad Request",
            CarryError::Header("DHT-PeerID") => "Bad DHT-PeerID",
            CarryError::Header("To") => "Bad To",
            CarryError::Header(_) => "Bad Overlay Header",
            CarryError::Body => "Bad Record Body",
            CarryError::NotOverlay => "Extension Required",
            CarryError::Extension(_) => "Bad Extension",
            CarryError::OtherOverlay => "Not Acceptable Here (overlay)",
            CarryError::OtherHash => "Not Acceptable Here (algorithm)",
            CarryError::OtherDht => "Not Acceptable Here (dht)",
            CarryError::BadId(_) => "Undecipherable",
            CarryError::MediaType => "Unsupported Media Type",
        }
    }
}
