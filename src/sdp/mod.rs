//! Session descriptions (SDP, RFC 8866) and their negotiation (offer/answer, RFC 3264).
//!
//! [`Session`] reads and writes a description: it keeps the order of attributes and media, and every line that it
//! has no field for, so that what was read is written again in the canonical order of line types. [`negotiate`]
//! makes offers and answers for one audio stream.
//!
//! Read: CRLF or LF, a missing last line end, missing `s=` and `t=` lines, non-UTF-8 bytes (replaced by U+FFFD).
//! Left out: host names in `c=` are kept but never resolved here, so a stream that has one is refused; multicast;
//! key lines (`k=`, obsolete) are kept and ignored.

mod attribute;
pub mod ice;
pub mod negotiate;
mod parse;
mod write;

#[cfg(test)]
mod tests;

pub use attribute::{Attribute, Direction, RtpMap, static_rtpmap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most media sections read from one description.
pub const MAX_MEDIA: usize = 32;

/// What is wrong with a description that came from outside; the peer's fault (488 or 400 towards a request).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The first line is not `v=0`.
    #[error("no v=0 line at the beginning")]
    Version,
    /// A line is not of the form `x=value`; lines count from 1.
    #[error("line {0} is not of the form x=value")]
    Line(usize),
    /// The `o=` line does not have its six fields, or there is none.
    #[error("no proper o= line")]
    Origin,
    /// A `c=` line does not have its three fields.
    #[error("line {0}: malformed c=")]
    Connection(usize),
    /// An `m=` line lacks fields or its port is no port.
    #[error("line {0}: malformed m=")]
    Media(usize),
    /// More than [`MAX_MEDIA`] media sections.
    #[error("more than {MAX_MEDIA} media sections")]
    TooMany,
}

/// A session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who made it, and which version of it this is.
    pub origin: Origin,
    /// The `s=` line.
    pub name: String,
    /// Where the media of all sections go that do not say otherwise.
    pub connection: Option<Connection>,
    /// Session lines without a field here (`i= u= e= p= b= z= k=`), in order.
    pub lines: Vec<(char, String)>,
    /// The `t=` and `r=` lines, in order.
    pub times: Vec<(char, String)>,
    /// The attributes of the session, in order.
    pub attributes: Vec<Attribute>,
    /// The media sections; offer and answer match by position.
    pub media: Vec<Media>,
}

/// The `o=` line. Numbers stay text: RFC 8866 does not bound them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// User name, `-` if none.
    pub user: String,
    /// Session identifier, digits.
    pub session_id: String,
    /// Version, digits; rises with each change.
    pub version: String,
    /// Address of the maker.
    pub address: Connection,
}

/// A network type, address type and address: `IN IP4 192.0.2.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `IN`.
    pub net: String,
    /// `IP4` or `IP6`.
    pub kind: String,
    /// Address or host name, with `/ttl` if it came with it.
    pub address: String,
}

/// One media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image`, `message`, ...
    pub kind: String,
    /// Port; 0 refuses or ends the stream.
    pub port: u16,
    /// Number of ports after the slash, if given.
    pub ports: Option<u16>,
    /// `RTP/AVP`, `udptl`, ...
    pub proto: String,
    /// Payload types for RTP, otherwise whatever the protocol says.
    pub formats: Vec<String>,
    /// Where this section's media go.
    pub connection: Option<Connection>,
    /// Lines without a field here (`i= b= k=`), in order.
    pub lines: Vec<(char, String)>,
    /// The attributes, in order.
    pub attributes: Vec<Attribute>,
}

impl Session {
    /// Reads a description.
    pub fn parse(bytes: &[u8]) -> Result<Session, SdpError> {
        parse::session(bytes)
    }

    /// Where the media of `media`, a section of this description, go.
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// The direction of `media`, a section of this description, as its maker sees it; `sendrecv` by default.
    pub fn direction_of(&self, media: &Media) -> Direction {
        attribute::direction(&media.attributes)
            .or_else(|| attribute::direction(&self.attributes))
            .unwrap_or(Direction::SendRecv)
    }

    /// The bytes to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl Connection {
    /// For an IP address.
    pub fn ip(address: IpAddr) -> Connection {
        let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
        Connection { net: "IN".into(), kind: kind.into(), address: address.to_string() }
    }

    /// The IP address, if it is one (and not a host name).
    pub fn to_ip(&self) -> Option<IpAddr> {
        let address = self.address.split('/').next()?;
        match self.kind.as_str() {
            "IP4" => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "IP6" => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    }
}

impl Media {
    /// A section of `kind` without attributes.
    pub fn new(kind: &str, port: u16, proto: &str, formats: Vec<String>) -> Media {
        Media {
            kind: kind.into(),
            port,
            ports: None,
            proto: proto.into(),
            formats,
            connection: None,
            lines: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// The first attribute of this name: `Some("")` for one without a value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.name == name).map(|a| a.value.as_deref().unwrap_or(""))
    }

    /// What payload type `pt` is: from its `rtpmap`, else from the static table of RFC 3551.
    pub fn rtpmap(&self, pt: u8) -> Option<RtpMap> {
        self.attributes
            .iter()
            .filter(|a| a.name == "rtpmap")
            .filter_map(|a| RtpMap::parse(a.value.as_deref()?))
            .find(|(number, _)| *number == pt)
            .map(|(_, map)| map)
            .or_else(|| static_rtpmap(pt))
    }

    /// The format parameters of payload type `pt`.
    pub fn fmtp(&self, pt: u8) -> Option<&str> {
        self.attributes.iter().filter(|a| a.name == "fmtp").find_map(|a| {
            let (number, rest) = a.value.as_deref()?.trim().split_once(' ')?;
            (number.parse() == Ok(pt)).then(|| rest.trim())
        })
    }

    /// Packet time in milliseconds that the maker would like to receive, if it is between 1 and 200.
    pub fn ptime(&self) -> Option<u32> {
        let ms: f32 = self.attribute("ptime")?.trim().parse().ok()?;
        (1.0..=200.0).contains(&ms).then_some(ms as u32)
    }

    /// Longest packet time in milliseconds that the maker takes.
    pub fn max_ptime(&self) -> Option<u32> {
        self.attribute("maxptime")?.trim().parse().ok().filter(|ms| *ms > 0)
    }

    /// The port and address of `a=rtcp` (RFC 3605).
    pub fn rtcp(&self) -> Option<(u16, Option<Connection>)> {
        let mut words = self.attribute("rtcp")?.split_ascii_whitespace();
        let port = words.next()?.parse().ok()?;
        let address = match (words.next(), words.next(), words.next()) {
            (Some(net), Some(kind), Some(address)) => {
                Some(Connection { net: net.into(), kind: kind.into(), address: address.into() })
            }
            _ => None,
        };
        Some((port, address))
    }
}
