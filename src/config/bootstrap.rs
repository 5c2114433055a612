//! One way into an overlay, as a person writes it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use thiserror::Error;

/// The port of an overlay where none is named.
pub const OVERLAY_PORT: u16 = 5061;
/// The port that every network lets out.
pub const PORT_443: u16 = 443;

/// A peer to join by, or a name behind which there are some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Bootstrap {
    /// `IP:PORT`, or `IP` with the usual port.
    Addr(SocketAddr),
    /// `HOST:PORT`: the addresses of a host name, looked up again for every attempt.
    Host {
        /// Host name.
        name: String,
        /// Overlay port.
        port: u16,
    },
    /// `DOMAIN`: its SRV records `_chordial._tcp`, else `_sips._tcp`, else the addresses of the name with the usual port.
    Domain(String),
}

/// What is no way into an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{0}\" is neither IP:PORT, HOST:PORT nor DOMAIN")]
pub struct BootstrapError(String);

impl FromStr for Bootstrap {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Bootstrap, BootstrapError> {
        let wrong = || BootstrapError(text.to_owned());
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return if addr.port() == 0 { Err(wrong()) } else { Ok(Bootstrap::Addr(addr)) };
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Bootstrap::Addr(SocketAddr::new(ip, OVERLAY_PORT)));
        }
        match text.split_once(':') {
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
                Ok(Bootstrap::Host { name: host_name(name).ok_or_else(wrong)?, port })
            }
            None => Ok(Bootstrap::Domain(host_name(text).ok_or_else(wrong)?)),
        }
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bootstrap::Addr(addr) => write!(f, "{addr}"),
            Bootstrap::Host { name, port } => write!(f, "{name}:{port}"),
            Bootstrap::Domain(name) => f.write_str(name),
        }
    }
}

impl From<SocketAddr> for Bootstrap {
    fn from(addr: SocketAddr) -> Bootstrap {
        Bootstrap::Addr(addr)
    }
}

impl TryFrom<String> for Bootstrap {
    type Error = BootstrapError;

    fn try_from(text: String) -> Result<Bootstrap, BootstrapError> {
        text.parse()
    }
}

impl From<Bootstrap> for String {
    fn from(bootstrap: Bootstrap) -> String {
        bootstrap.to_string()
    }
}

/// A name in lower case, without the dot at its end, whose last label is no number (RFC 1123 section 2.1): what looks like
/// an address with a typing error is refused here and not asked of a server.
fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (name.len() <= 253 && !numeric && name.split('.').all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        let host = |name: &str, port| Bootstrap::Host { name: name.into(), port };
        for (text, meant, again) in [
            ("10.0.0.1:5063", Bootstrap::Addr("10.0.0.1:5063".parse().unwrap()), "10.0.0.1:5063"),
            ("10.0.0.1", Bootstrap::Addr("10.0.0.1:5061".parse().unwrap()), "10.0.0.1:5061"),
            ("[2001:db8::1]:7", Bootstrap::Addr("[2001:db8::1]:7".parse().unwrap()), "[2001:db8::1]:7"),
            ("2001:db8::1", Bootstrap::Addr("[2001:db8::1]:5061".parse().unwrap()), "[2001:db8::1]:5061"),
            ("Home.Example.net:5061", host("home.example.net", 5061), "home.example.net:5061"),
            ("example.net.", Bootstrap::Domain("example.net".into()), "example.net"),
            ("supernode", Bootstrap::Domain("supernode".into()), "supernode"),
        ] {
            assert_eq!(text.parse::<Bootstrap>().as_ref(), Ok(&meant), "{text}");
            assert_eq!(meant.to_string(), again);
            assert_eq!(again.parse::<Bootstrap>(), Ok(meant), "{again}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long = "a".repeat(64);
        for text in
            ["", ":5061", "host:", "host:0", "host:99999", "10.0.0.256:5061", "10.0.0", "a b", "-x.net", "x..net"]
        {
            assert!(text.parse::<Bootstrap>().is_err(), "{text}");
        }
        for text in ["10.0.0.1:0", "sip:host", "host:5061:5062", long.as_str()] {
            assert!(text.parse::<Bootstrap>().is_err(), "{text}");
        }
    }
}
