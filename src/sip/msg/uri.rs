//! URIs (RFC 3261 section 19.1, RFC 3966 for `tel:`). URIs of other schemes are kept as opaque text.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Params, ParseError, lex};

/// The scheme of a URI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other, in lower case.
    Other(Box<str>),
}

impl Scheme {
    /// In lower case, without the colon.
    pub fn as_str(&self) -> &str {
        match self {
            Scheme::Sip => "sip",
            Scheme::Sips => "sips",
            Scheme::Tel => "tel",
            Scheme::Other(name) => name,
        }
    }
}

/// A URI. The parts are kept as they were written, escapes included; [`Display`](fmt::Display) puts them together again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uri {
    /// `sip`, `sips`, `tel` or another.
    pub scheme: Scheme,
    /// The user part, escaped as written; of a `tel:` URI the number with its visual separators.
    pub user: Option<String>,
    /// The password, escaped as written.
    pub password: Option<String>,
    /// Host name, IPv4 address or IPv6 reference with its brackets; empty for schemes other than `sip` and `sips`.
    pub host: String,
    /// The port, where one is written.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params,
    /// URI headers (`?name=value&..`), escaped as written.
    pub headers: Vec<(String, String)>,
    /// All that follows the colon in a URI of another scheme; empty for `sip`, `sips` and `tel`.
    pub opaque: String,
}

/// A URI taken apart and checked, nothing copied.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub scheme: &'a str,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
    pub host: &'a str,
    pub port: Option<u16>,
    pub params: Option<&'a str>,
    pub headers: Option<&'a str>,
    pub opaque: &'a str,
}

impl Uri {
    /// Reads a URI without brackets or white space around it.
    ///
    /// # Errors
    /// [`ParseError::Uri`].
    pub fn parse(text: &str) -> Result<Uri, ParseError> {
        let parts = split(text).ok_or(ParseError::Uri)?;
        let lower = parts.scheme.to_ascii_lowercase();
        let scheme = match lower.as_str() {
            "sip" => Scheme::Sip,
            "sips" => Scheme::Sips,
            "tel" => Scheme::Tel,
            _ => Scheme::Other(lower.into()),
        };
        let pairs = parts.headers.into_iter().flat_map(|list| list.split('&'));
        Ok(Uri {
            scheme,
            user: parts.user.map(str::to_owned),
            password: parts.password.map(str::to_owned),
            host: parts.host.to_owned(),
            port: parts.port,
            params: parts.params.map_or(Ok(Params::new()), Params::parse_uri).map_err(|_| ParseError::Uri)?,
            headers: pairs.filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect(),
            opaque: parts.opaque.to_owned(),
        })
    }

    /// A `sip:` URI from plain text: the user is escaped where needed, an IPv6 address put in brackets.
    pub fn sip(user: Option<&str>, host: &str, port: Option<u16>) -> Uri {
        let host = match host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => host.to_owned(),
        };
        Uri {
            scheme: Scheme::Sip,
            user: user.map(escape_user),
            password: None,
            host,
            port,
            params: Params::new(),
            headers: Vec::new(),
            opaque: String::new(),
        }
    }

    /// True for `sip:` and `sips:`.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user with its escapes decoded.
    pub fn user_unescaped(&self) -> Option<Cow<'_, str>> {
        self.user.as_deref().map(lex::unescape)
    }

    /// The host as an address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        host_ip(&self.host)
    }

    /// The first URI header of this name, its escapes decoded.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.headers.iter().find(|(n, _)| lex::unescape(n).eq_ignore_ascii_case(name));
        found.map(|(_, value)| lex::unescape(value))
    }

    /// The address of record, as a key: `sip:user@host` with the user's escapes decoded and the host in lower case,
    /// without password, port, parameters and headers (RFC 3261 section 10.3, step 5). `sips:` gives `sip:` too:
    /// both name the same user. Of `tel:` the number without separators, of another scheme the URI itself.
    pub fn canonical_aor(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        match (&self.scheme, self.user_unescaped()) {
            (Scheme::Tel, number) => format!("tel:{}", bare_number(&number.unwrap_or_default())),
            (Scheme::Other(_), _) => self.to_string(),
            (_, Some(user)) => format!("sip:{user}@{host}"),
            (_, None) => format!("sip:{host}"),
        }
    }

    /// Equality in the sense of RFC 3261 section 19.1.4 (RFC 3966 section 4 for `tel:`).
    pub fn matches(&self, other: &Uri) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        match self.scheme {
            Scheme::Other(_) => return self.opaque == other.opaque,
            Scheme::Tel => {
                let number = |uri: &Uri| bare_number(uri.user.as_deref().unwrap_or_default());
                return number(self) == number(other)
                    && self.params.len() == other.params.len()
                    && same_params(&self.params, &other.params, |_| true);
            }
            Scheme::Sip | Scheme::Sips => {}
        }
        let plain = |part: &Option<String>| part.as_deref().map(|p| lex::unescape(p).into_owned());
        let same_host = match (self.ip(), other.ip()) {
            (Some(a), Some(b)) => a == b,
            _ => self.host.eq_ignore_ascii_case(&other.host),
        };
        plain(&self.user) == plain(&other.user)
            && plain(&self.password) == plain(&other.password)
            && same_host
            && self.port == other.port
            && same_params(&self.params, &other.params, never_ignored)
            && same_params(&other.params, &self.params, never_ignored)
            && self.headers.len() == other.headers.len()
            && self.headers.iter().all(|(n, v)| other.header(&lex::unescape(n)) == Some(lex::unescape(v)))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme.as_str(), self.opaque)?;
        if let Some(user) = &self.user {
            f.write_str(user)?;
            if let Some(password) = &self.password {
                write!(f, ":{password}")?;
            }
            if self.is_sip() {
                f.write_str("@")?;
            }
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)?;
        for (i, (name, value)) in self.headers.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Uri {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Uri, ParseError> {
        Uri::parse(text)
    }
}

/// Takes a URI apart and checks it. Parameters and headers are checked too.
pub(super) fn split(text: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = text.split_once(':')?;
    let good_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !good_scheme || rest.is_empty() {
        return None;
    }
    if scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips") {
        split_sip(scheme, rest)
    } else if scheme.eq_ignore_ascii_case("tel") {
        let (number, params) = cut(rest, ';');
        let digit = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'+' | b'-' | b'.' | b'(' | b')' | b'*' | b'#');
        let good = !number.is_empty() && number.bytes().all(digit) && params.is_none_or(good_params);
        good.then_some(Parts { scheme, user: Some(number), params, ..Parts::default() })
    } else {
        let good = rest.bytes().all(|b| b > b' ' && !matches!(b, b'<' | b'>' | b'"' | 0x7f));
        good.then_some(Parts { scheme, opaque: rest, ..Parts::default() })
    }
}

fn split_sip<'a>(scheme: &'a str, rest: &'a str) -> Option<Parts<'a>> {
    // The first `@` ends the userinfo: none may stand in it, and `;` and `?` may.
    let (userinfo, rest) = match rest.split_once('@') {
        Some((userinfo, rest)) => (Some(userinfo), rest),
        None => (None, rest),
    };
    let (user, password) = match userinfo.map(|u| cut(u, ':')) {
        Some((user, password)) => (Some(user), password),
        None => (None, None),
    };
    // RFC 3261 wants `#` escaped; telephones send it plain. Bytes above 0x7f likewise.
    let user_byte = |b: u8| unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'#');
    let password_byte = |b: u8| unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',');
    if user.is_some_and(|u| u.is_empty() || !escaped_text(u, user_byte))
        || password.is_some_and(|p| !escaped_text(p, password_byte))
    {
        return None;
    }
    let (rest, headers) = cut(rest, '?');
    let (hostport, params) = cut(rest, ';');
    let (host, port) = split_hostport(hostport)?;
    let good_header = |pair: &str| {
        let byte = |b: u8| b > b' ' && !matches!(b, b'<' | b'>' | b'"' | 0x7f);
        pair.split_once('=').is_some_and(|(n, v)| !n.is_empty() && escaped_text(n, byte) && escaped_text(v, byte))
    };
    let good = params.is_none_or(good_params) && headers.is_none_or(|list| list.split('&').all(good_header));
    good.then_some(Parts { scheme, user, password, host, port, params, headers, opaque: "" })
}

/// `host[:port]`, the host an IPv6 reference in brackets where it has colons.
pub(super) fn split_hostport(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match text.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(host_end)?;
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(u16::try_from(lex::number(digits)??).ok()?),
        None if rest.is_empty() => None,
        None => return None,
    };
    let good = if host.starts_with('[') {
        host_ip(host).is_some()
    } else {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    good.then_some((host, port))
}

/// The address that a host or IPv6 reference stands for.
pub(super) fn host_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().or_else(|| three_colons(v6)).map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// The grammar of RFC 3261 lets a third colon stand before an embedded IPv4 address; RFC 5118 section 4.10 wants
/// that taken, and nothing more.
fn three_colons(text: &str) -> Option<Ipv6Addr> {
    let (left, right) = text.split_once(":::")?;
    right.parse::<Ipv4Addr>().ok()?;
    format!("{left}::{right}").parse().ok()
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn good_params(list: &str) -> bool {
    Params::check_uri(list).is_ok()
}

const fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

/// Bytes of the kind, or `%HH`.
fn escaped_text(text: &str, byte: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(i, &b)| match b {
        b'%' => [1, 2].iter().all(|n| bytes.get(i + n).is_some_and(u8::is_ascii_hexdigit)),
        b => byte(b),
    })
}

fn escape_user(user: &str) -> String {
    let mut escaped = String::with_capacity(user.len());
    for b in user.bytes() {
        match b {
            b'%' | 0x80.. => escaped.push_str(&format!("%{b:02X}")),
            b if unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/') => {
                escaped.push(char::from(b));
            }
            b => escaped.push_str(&format!("%{b:02X}")),
        }
    }
    escaped
}

fn bare_number(number: &str) -> String {
    number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Parameters that may not stand in one of two equal URIs only.
fn never_ignored(name: &str) -> bool {
    ["user", "ttl", "method", "maddr", "transport"].iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Every parameter of `a` that `b` has too is the same there; those that `needed` names have to be there.
fn same_params(a: &Params, b: &Params, needed: impl Fn(&str) -> bool) -> bool {
    a.iter().all(|(name, value)| {
        let name = lex::unescape(name);
        match b.get(&name) {
            Some(theirs) => lex::unescape(value.unwrap_or_default()).eq_ignore_ascii_case(&lex::unescape(theirs)),
            None => !needed(&name),
        }
    })
}
