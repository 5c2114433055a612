//! Attributes: direction, `rtpmap`, the static payload types of RFC 3551.

use std::fmt;

/// An `a=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Name before the colon.
    pub name: String,
    /// Value after the colon; none for a flag.
    pub value: Option<String>,
}

impl Attribute {
    /// A flag such as `rtcp-mux`.
    pub fn flag(name: &str) -> Attribute {
        Attribute { name: name.into(), value: None }
    }

    /// A name and a value.
    pub fn new(name: &str, value: impl fmt::Display) -> Attribute {
        Attribute { name: name.into(), value: Some(value.to_string()) }
    }
}

/// Which way media flow, as the maker of the description sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The maker only sends: how a call is put on hold.
    SendOnly,
    /// The maker only receives.
    RecvOnly,
    /// Neither; RTCP goes on.
    Inactive,
}

impl Direction {
    /// From its two halves.
    pub const fn new(send: bool, recv: bool) -> Direction {
        match (send, recv) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The maker sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// The maker receives.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// The same stream, seen from the other end.
    pub const fn reversed(self) -> Direction {
        Direction::new(self.receives(), self.sends())
    }

    /// What both allow.
    pub const fn and(self, other: Direction) -> Direction {
        Direction::new(self.sends() && other.sends(), self.receives() && other.receives())
    }

    /// The name of the attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// Reads the name of an attribute.
    pub fn from_name(name: &str) -> Option<Direction> {
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
            .into_iter()
            .find(|d| d.name() == name)
    }
}

/// The first direction among `attributes`.
pub(super) fn direction(attributes: &[Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|a| Direction::from_name(&a.name))
}

/// What a payload type stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpMap {
    /// Encoding name in the spelling of the description.
    pub name: String,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Channels, 1 unless said.
    pub channels: u8,
}

impl RtpMap {
    /// Reads the value of an `rtpmap` attribute: the payload type and what it stands for.
    pub fn parse(value: &str) -> Option<(u8, RtpMap)> {
        let (pt, encoding) = value.trim().split_once(' ')?;
        let pt = pt.parse().ok().filter(|pt| *pt < 128)?;
        let mut parts = encoding.trim().split('/');
        let name = parts.next().filter(|n| !n.is_empty())?.to_owned();
        let clock_rate = parts.next()?.trim().parse().ok().filter(|hz| *hz > 0)?;
        let channels = match parts.next() {
            Some(n) => n.trim().parse().ok()?,
            None => 1,
        };
        Some((pt, RtpMap { name, clock_rate, channels }))
    }

    /// True if both are the same encoding. Opus always says two channels (RFC 7587); who forgets them means it too.
    pub fn matches(&self, name: &str, clock_rate: u32, channels: u8) -> bool {
        self.name.eq_ignore_ascii_case(name)
            && self.clock_rate == clock_rate
            && (self.channels == channels || name.eq_ignore_ascii_case("opus"))
    }
}

impl fmt::Display for RtpMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.clock_rate)?;
        match self.channels {
            1 => Ok(()),
            n => write!(f, "/{n}"),
        }
    }
}

/// The audio payload types that need no `rtpmap` (RFC 3551 table 4).
pub fn static_rtpmap(pt: u8) -> Option<RtpMap> {
    let (name, clock_rate, channels) = match pt {
        0 => ("PCMU", 8000, 1),
        3 => ("GSM", 8000, 1),
        4 => ("G723", 8000, 1),
        5 => ("DVI4", 8000, 1),
        6 => ("DVI4", 16000, 1),
        7 => ("LPC", 8000, 1),
        8 => ("PCMA", 8000, 1),
        9 => ("G722", 8000, 1),
        10 => ("L16", 44100, 2),
        11 => ("L16", 44100, 1),
        12 => ("QCELP", 8000, 1),
        13 => ("CN", 8000, 1),
        14 => ("MPA", 90000, 1),
        15 => ("G728", 8000, 1),
        16 => ("DVI4", 11025, 1),
        17 => ("DVI4", 22050, 1),
        18 => ("G729", 8000, 1),
        _ => return None,
    };
    Some(RtpMap { name: name.into(), clock_rate, channels })
}
