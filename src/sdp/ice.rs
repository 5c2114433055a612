//! What descriptions say of ICE (RFC 8839): credentials, candidates, options; and the bodies that bring candidates later
//! (RFC 8840 section 9, `application/trickle-ice-sdpfrag`).
//!
//! Candidates that name a host instead of an address, or a transport or type that nobody here knows, are passed over, as
//! RFC 8839 section 5.1 wants.

use super::{Attribute, Media, Session};
use crate::core::{Redacted, Rng};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Candidates read from one description.
pub const MAX_CANDIDATES: usize = 32;
/// Type of the bodies that bring candidates later.
pub const FRAGMENT_TYPE: &str = "application/trickle-ice-sdpfrag";
/// Name of the INFO package that carries them (RFC 8840 section 10).
pub const INFO_PACKAGE: &str = "trickle-ice";

/// Attribute of those who keep a second way beside the first: its credentials are [`Credentials::second`]. Unknown to others and
/// ignored by them.
pub const SECOND: &str = "x-chordial-second";

/// What the checks of one end are named and authenticated by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `a=ice-ufrag`: 4 to 256 characters of letters, digits, `+` and `/`.
    pub ufrag: String,
    /// `a=ice-pwd`: 22 to 256 of them.
    pub pwd: Redacted<String>,
}

/// One end's ICE for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ice {
    /// For the checks that this end receives.
    pub credentials: Credentials,
    /// `a=ice-lite`: it answers checks and makes none.
    pub lite: bool,
    /// `a=ice-options:trickle`: candidates may follow.
    pub trickle: bool,
    /// [`SECOND`]: this end keeps a second way, if the other one does.
    pub second: bool,
    /// Where this end may be.
    pub candidates: Vec<Candidate>,
}

/// How an end came by a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of the machine.
    Host,
    /// As a STUN server sees it.
    ServerReflexive,
    /// As the other end sees it.
    PeerReflexive,
    /// An address of a relay.
    Relayed,
}

impl CandidateKind {
    /// As `typ` has it.
    pub const fn name(self) -> &'static str {
        match self {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relayed => "relay",
        }
    }

    fn from_name(name: &str) -> Option<CandidateKind> {
        use CandidateKind::*;
        [Host, ServerReflexive, PeerReflexive, Relayed].into_iter().find(|k| k.name() == name)
    }
}

/// Which end of a TCP connection a candidate is (RFC 6544 section 4.5); `so`, both at once, is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpType {
    /// It connects; its port means nothing.
    Active,
    /// It waits to be connected to.
    Passive,
}

impl TcpType {
    /// As `tcptype` has it.
    pub const fn name(self) -> &'static str {
        match self {
            TcpType::Active => "active",
            TcpType::Passive => "passive",
        }
    }
}

/// An address at which an end may be reached: `a=candidate`, over UDP or TCP, component 1 (RTP with RTCP multiplexed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The same for candidates of one type, base and server; 1 to 32 characters.
    pub foundation: String,
    /// The higher the better, below 2^31.
    pub priority: u32,
    /// Where.
    pub addr: SocketAddr,
    /// How it was come by.
    pub kind: CandidateKind,
    /// Over TCP, and which end; none: over UDP.
    pub tcp: Option<TcpType>,
}

impl Candidate {
    /// Reads the value of `a=candidate`; `None` where it is malformed or not one for us.
    pub fn parse(value: &str) -> Option<Candidate> {
        let mut words = value.split_ascii_whitespace();
        let foundation = words.next().filter(|f| is_ice(f, 1, 32))?.to_owned();
        let (component, transport) = (words.next()?, words.next()?);
        let priority = words.next()?.parse().ok().filter(|p| (1..1 << 31).contains(p))?;
        let ip: IpAddr = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok().filter(|p| *p != 0)?;
        if component != "1" || words.next()? != "typ" {
            return None;
        }
        let kind = CandidateKind::from_name(words.next()?)?;
        let tcp = match transport {
            t if t.eq_ignore_ascii_case("udp") => None,
            t if t.eq_ignore_ascii_case("tcp") => {
                let mut names = std::iter::from_fn(|| Some((words.next()?, words.next()?)));
                let (_, name) = names.find(|(name, _)| *name == "tcptype")?;
                Some([TcpType::Active, TcpType::Passive].into_iter().find(|t| t.name() == name)?)
            }
            _ => return None,
        };
        let usable = !ip.is_unspecified() && !ip.is_multicast();
        usable.then(|| Candidate { foundation, priority, addr: SocketAddr::new(ip, port), kind, tcp })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { foundation, priority, addr, kind, tcp } = self;
        let transport = if tcp.is_some() { "TCP" } else { "UDP" };
        write!(f, "{foundation} 1 {transport} {priority} {} {} typ {}", addr.ip(), addr.port(), kind.name())?;
        if *kind != CandidateKind::Host {
            // Required by the grammar; what it would tell of this end's network is nobody's business (RFC 8828).
            let nowhere = if addr.is_ipv4() { "0.0.0.0" } else { "::" };
            write!(f, " raddr {nowhere} rport 9")?;
        }
        tcp.map_or(Ok(()), |tcp| write!(f, " tcptype {}", tcp.name()))
    }
}

impl Ice {
    /// What a section and its session say; `None` where there is no ICE, or none that is well formed.
    pub fn of(session: &Session, media: &Media) -> Option<Ice> {
        let whole = |name: &str| session.attributes.iter().any(|a| a.name == name);
        let value = |name: &str| find(&media.attributes, name).or_else(|| find(&session.attributes, name));
        Some(Ice {
            credentials: Credentials::read(value("ice-ufrag")?, value("ice-pwd")?)?,
            lite: whole("ice-lite"),
            trickle: value("ice-options").is_some_and(|o| o.split_ascii_whitespace().any(|w| w == "trickle")),
            second: media.attribute(SECOND).is_some(),
            candidates: candidates(media.attributes.iter()),
        })
    }

    /// Reads a body of [`FRAGMENT_TYPE`].
    pub fn parse_fragment(body: &[u8]) -> Option<Ice> {
        let text = String::from_utf8_lossy(body);
        let lines = text.lines().filter_map(|line| line.trim_end().strip_prefix("a="));
        let attributes: Vec<Attribute> = lines
            .take(4 * MAX_CANDIDATES)
            .map(|line| match line.split_once(':') {
                Some((name, value)) => Attribute::new(name, value),
                None => Attribute::flag(line),
            })
            .collect();
        Some(Ice {
            credentials: Credentials::read(find(&attributes, "ice-ufrag")?, find(&attributes, "ice-pwd")?)?,
            lite: false,
            trickle: true,
            second: false,
            candidates: candidates(attributes.iter()),
        })
    }

    /// A body that brings these candidates; `media` is the section of our last description that they belong to.
    pub fn to_fragment(&self, media: &Media) -> String {
        let Credentials { ufrag, pwd } = &self.credentials;
        let mut out = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{}\r\n", pwd.reveal());
        out.push_str(&format!("m={} 9 {} {}\r\n", media.kind, media.proto, media.formats.join(" ")));
        for candidate in &self.candidates {
            out.push_str(&format!("a=candidate:{candidate}\r\n"));
        }
        out
    }

    /// Puts it into a section of ours.
    pub(super) fn push(&self, media: &mut Media) {
        media.attributes.push(Attribute::new("ice-ufrag", &self.credentials.ufrag));
        media.attributes.push(Attribute::new("ice-pwd", self.credentials.pwd.reveal()));
        let options = if self.trickle { "ice2 trickle" } else { "ice2" };
        media.attributes.push(Attribute::new("ice-options", options));
        if self.second {
            media.attributes.push(Attribute::flag(SECOND));
        }
        for candidate in &self.candidates {
            media.attributes.push(Attribute::new("candidate", candidate));
        }
    }
}

impl Credentials {
    /// For one session: 48 and 192 bits.
    pub fn draw(rng: &mut Rng) -> Credentials {
        // Tokens are hexadecimal digits.
        Credentials { ufrag: rng.token(6), pwd: Redacted::new(rng.token(24)) }
    }

    /// For the second way of the same call, which both ends derive from those of the first: known to nobody else.
    pub fn second(&self) -> Credentials {
        let digest = Sha256::digest([b"second way\0", self.pwd.reveal().as_bytes()].concat());
        let pwd = digest[..24].iter().map(|byte| format!("{byte:02x}")).collect();
        Credentials { ufrag: format!("{}2", self.ufrag), pwd: Redacted::new(pwd) }
    }

    fn read(ufrag: &str, pwd: &str) -> Option<Credentials> {
        let valid = is_ice(ufrag, 4, 256) && is_ice(pwd, 22, 256);
        valid.then(|| Credentials { ufrag: ufrag.to_owned(), pwd: Redacted::new(pwd.to_owned()) })
    }
}

fn candidates<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> Vec<Candidate> {
    let values = attributes.filter(|a| a.name == "candidate").filter_map(|a| a.value.as_deref());
    values.filter_map(Candidate::parse).take(MAX_CANDIDATES).collect()
}

fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.name == name).and_then(|a| a.value.as_deref()).map(str::trim)
}

/// `ice-char`s only, so many.
fn is_ice(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_read_and_written_as_the_rfc_has_it() {
        let host = "1 1 UDP 2130706431 203.0.113.141 8998 typ host";
        assert_eq!(Candidate::parse(host).unwrap().to_string(), host);
        let theirs = "2 1 udp 1694498815 192.0.2.3 45664 typ srflx raddr 10.0.1.1 rport 8998 generation 0";
        let read = Candidate::parse(theirs).unwrap();
        assert_eq!((read.kind, read.addr), (CandidateKind::ServerReflexive, "192.0.2.3:45664".parse().unwrap()));
        assert!(read.to_string().ends_with("typ srflx raddr 0.0.0.0 rport 9"), "{read}");
        let tcp = "3 1 TCP 1518280447 203.0.113.141 9 typ host tcptype active";
        assert_eq!(Candidate::parse(tcp).unwrap().to_string(), tcp);
        let theirs =
            "4 1 tcp 1518149375 192.0.2.3 4567 typ srflx raddr 10.0.1.1 rport 8998 tcptype passive generation 0";
        assert_eq!(Candidate::parse(theirs).unwrap().tcp, Some(TcpType::Passive));
    }

    #[test]
    fn what_is_no_candidate_for_us_is_passed_over() {
        for value in [
            "",
            "1 1 UDP",
            "1 2 UDP 2130706431 203.0.113.141 8998 typ host",
            "1 1 TCP 2130706431 203.0.113.141 9 typ host",
            "1 1 TCP 2130706431 203.0.113.141 9 typ host tcptype",
            "1 1 TCP 2130706431 203.0.113.141 9 typ host tcptype so",
            "1 1 DCCP 2130706431 203.0.113.141 9 typ host",
            "1 1 UDP 0 203.0.113.141 8998 typ host",
            "1 1 UDP 4294967295 203.0.113.141 8998 typ host",
            "1 1 UDP 2130706431 a5b3.local 8998 typ host",
            "1 1 UDP 2130706431 203.0.113.141 0 typ host",
            "1 1 UDP 2130706431 0.0.0.0 8998 typ host",
            "1 1 UDP 2130706431 239.0.0.1 8998 typ host",
            "1 1 UDP 2130706431 203.0.113.141 8998 typ magic",
            "b@d 1 UDP 2130706431 203.0.113.141 8998 typ host",
        ] {
            assert_eq!(Candidate::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_fragment_brings_back_what_was_put_in() {
        let candidate = Candidate::parse("7 1 UDP 99 [::1] 1 typ host");
        assert_eq!(candidate, None, "brackets are not SDP's");
        let ice = Ice {
            credentials: Credentials::read("9uB6", "YH75Fviy6338Vbrhrlp8Yh").unwrap(),
            lite: false,
            trickle: true,
            second: false,
            candidates: vec![Candidate::parse("7 1 UDP 99 2001:db8::7 4000 typ relay raddr :: rport 9").unwrap()],
        };
        let media = Media::new("audio", 4000, "RTP/AVP", vec!["0".into()]);
        assert_eq!(Ice::parse_fragment(ice.to_fragment(&media).as_bytes()), Some(ice));
        assert_eq!(Ice::parse_fragment(b"a=candidate:7 1 UDP 99 192.0.2.1 4000 typ host\r\n"), None);
        assert_eq!(Ice::parse_fragment(b"a=ice-ufrag:9uB6\r\na=ice-pwd:tooshort\r\n"), None);
    }

    #[test]
    fn a_description_full_of_candidates_is_cut() {
        let attribute = Attribute::new("candidate", "7 1 UDP 99 192.0.2.1 4000 typ host");
        let many = vec![attribute; 1000];
        assert_eq!(candidates(many.iter()).len(), MAX_CANDIDATES);
    }
}
