//! Via (RFC 3261 section 20.42, RFC 3581 for `rport`) and CSeq (section 20.16).

use std::fmt;
use std::net::IpAddr;

use super::{Method, Params, ParseError, lex, uri};

/// One hop of a Via field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    /// The transport as it was written (`UDP`, `TCP`, `TLS`, `SCTP`, ..).
    pub transport: String,
    /// Host of sent-by: name, IPv4 address or IPv6 reference in brackets.
    pub host: String,
    /// Port of sent-by, where one is written.
    pub port: Option<u16>,
    /// `branch`, `received`, `rport`, `maddr`, `ttl` and others.
    pub params: Params,
}

/// The cookie at the start of a branch made after RFC 3261.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

impl Via {
    /// Reads one value.
    ///
    /// # Errors
    /// [`ParseError::Value`]; [`ParseError::Version`] where the protocol is not SIP/2.0.
    pub fn parse(text: &str) -> Result<Via, ParseError> {
        let (transport, hostport, params) = split(text)?;
        let (host, port) = hostport;
        Ok(Via {
            transport: transport.to_owned(),
            host: host.to_owned(),
            port,
            params: params.map_or(Ok(Params::new()), Params::parse_list)?,
        })
    }

    /// A Via for a request of our own. `host` may be an IPv6 address without brackets.
    pub fn new(transport: &str, host: &str, port: Option<u16>, branch: &str) -> Via {
        let host = match host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => host.to_owned(),
        };
        let mut params = Params::new();
        params.set("branch", branch);
        Via { transport: transport.to_owned(), host, port, params }
    }

    /// The branch, where there is one.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch").filter(|b| !b.is_empty())
    }

    /// The `received` address. Brackets around an IPv6 address are taken too (RFC 5118 section 4.5).
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.get("received")?;
        uri::host_ip(text).or_else(|| text.parse().ok())
    }

    /// `Some(None)` where the sender asks for `rport`, `Some(Some(port))` where it is filled in.
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.get("rport").map(|port| port.parse().ok())
    }

    /// Sets `received`.
    pub fn set_received(&mut self, ip: IpAddr) {
        self.params.set("received", &ip.to_string());
    }

    /// Fills in `rport`.
    pub fn set_rport(&mut self, port: u16) {
        self.params.set("rport", &port.to_string());
    }

    /// The host as an address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        uri::host_ip(&self.host)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

type Pieces<'a> = (&'a str, (&'a str, Option<u16>), Option<&'a str>);

/// Transport, host and port, parameters without their leading semicolon.
fn split(text: &str) -> Result<Pieces<'_>, ParseError> {
    let (hop, params) = lex::split_outside(lex::trim_str(text), b';');
    let mut parts = hop.splitn(3, '/').map(lex::trim_str);
    let (Some(name), Some(version), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ParseError::Value);
    };
    let (transport, sent_by) = rest.split_once([' ', '\t', '\r', '\n']).ok_or(ParseError::Value)?;
    if !lex::is_token(transport.as_bytes()) || !lex::is_token(name.as_bytes()) || !lex::is_token(version.as_bytes()) {
        return Err(ParseError::Value);
    }
    if !name.eq_ignore_ascii_case("SIP") || version != "2.0" {
        return Err(ParseError::Version);
    }
    let sent_by = lex::trim_str(sent_by);
    let hostport = match uri::split_hostport(sent_by) {
        Some(hostport) => hostport,
        None => spaced_hostport(sent_by).ok_or(ParseError::Value)?,
    };
    Ok((transport, hostport, params))
}

/// `host : port`: COLON may have white space around it.
fn spaced_hostport(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = text.rsplit_once(':')?;
    let (host, none) = uri::split_hostport(lex::trim_str(host))?;
    let port = u16::try_from(lex::number(lex::trim_str(port))??).ok()?;
    none.is_none().then_some((host, Some(port)))
}

/// Checks a value without keeping it.
pub(super) fn check(text: &str) -> Result<(), ParseError> {
    let (_, _, params) = split(text)?;
    params.map_or(Ok(()), Params::check)
}

/// The sequence number and the method of CSeq.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CSeq {
    /// A sender keeps it below 2^31 (RFC 3261 section 8.1.1.5); a receiver takes all of 32 bits (RFC 4475 section
    /// 3.1.2.4).
    pub number: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// Reads the value of the field.
    ///
    /// # Errors
    /// [`ParseError::Header`], or [`ParseError::Range`] for more than 32 bits.
    pub fn parse(text: &str) -> Result<CSeq, ParseError> {
        let mut words = text.split([' ', '\t', '\r', '\n']).filter(|w| !w.is_empty());
        let (Some(number), Some(method), None) = (words.next(), words.next(), words.next()) else {
            return Err(ParseError::Header("CSeq"));
        };
        let number = lex::number(number).ok_or(ParseError::Header("CSeq"))?;
        let number = number.and_then(|n| u32::try_from(n).ok());
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| ParseError::Header("CSeq"))?;
        Ok(CSeq { number: number.ok_or(ParseError::Range("CSeq"))?, method })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}
