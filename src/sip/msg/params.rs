//! Parameters of fields and URIs, in their order.

use std::borrow::Cow;
use std::fmt;

use super::ParseError;
use super::lex;

/// `;name=value` parameters of a header field or a URI, kept in order and as they were written
/// (quotes and escapes included). Names compare without regard to case.
#[derive(Clone, Default, Debug)]
pub struct Params {
    list: Vec<(String, Option<String>)>,
    /// Those of a URI: `%HH` in a name stands for a character.
    uri: bool,
}

/// Reads and checks one parameter: its name, and its value where it has one.
type ReadParam = fn(&str) -> Option<(&str, Option<&str>)>;

impl Params {
    /// No parameters.
    pub const fn new() -> Params {
        Params { list: Vec::new(), uri: false }
    }

    /// Reads header parameters `a=b;c="d"`, with or without a leading semicolon.
    ///
    /// # Errors
    /// [`ParseError::Value`] where a parameter is empty, its name no token or its value neither token, host nor
    /// quoted string.
    pub fn parse(text: &str) -> Result<Params, ParseError> {
        let text = lex::trim_str(text);
        match text.strip_prefix(';').unwrap_or(text) {
            "" if text.is_empty() => Ok(Params::new()),
            list => Params::parse_list(list),
        }
    }

    /// Reads header parameters behind their leading semicolon: an empty one is a fault.
    pub(super) fn parse_list(list: &str) -> Result<Params, ParseError> {
        Params::read(list, header_param)
    }

    /// Reads URI parameters, which know no white space and no quotes.
    pub(super) fn parse_uri(list: &str) -> Result<Params, ParseError> {
        Ok(Params { uri: true, ..Params::read(list, uri_param)? })
    }

    fn read(list: &str, one: ReadParam) -> Result<Params, ParseError> {
        let mut params = Vec::new();
        let mut rest = Some(list);
        while let Some(list) = rest {
            let (param, tail) = lex::split_outside(list, b';');
            let (name, value) = one(param).ok_or(ParseError::Value)?;
            params.push((name.to_owned(), value.map(str::to_owned)));
            rest = tail;
        }
        Ok(Params { list: params, uri: false })
    }

    /// Checks header parameters without keeping them; `list` is without its leading semicolon.
    pub(super) fn check(list: &str) -> Result<(), ParseError> {
        Params::each(list, header_param)
    }

    /// Checks URI parameters likewise.
    pub(super) fn check_uri(list: &str) -> Result<(), ParseError> {
        Params::each(list, uri_param)
    }

    fn each(list: &str, one: ReadParam) -> Result<(), ParseError> {
        let mut rest = Some(list);
        while let Some(list) = rest {
            let (param, tail) = lex::split_outside(list, b';');
            one(param).ok_or(ParseError::Value)?;
            rest = tail;
        }
        Ok(())
    }

    /// The value as it was written, quotes taken off; "" for a parameter without a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.raw(name)?;
        Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
    }

    /// The value without quotes and backslash escapes.
    pub fn get_unquoted(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw(name).map(lex::unquote)
    }

    /// True where the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Sets a parameter in its place, or appends it. A value that is neither a token nor a host is quoted by
    /// the caller ([`set_quoted`](Params::set_quoted)).
    pub fn set(&mut self, name: &str, value: &str) {
        self.put(name, Some(value.to_owned()));
    }

    /// Sets a parameter to a quoted string.
    pub fn set_quoted(&mut self, name: &str, value: &str) {
        self.put(name, Some(lex::quote(value)));
    }

    /// Sets a parameter that has no value, such as `lr` or `rport`.
    pub fn set_flag(&mut self, name: &str) {
        self.put(name, None);
    }

    /// Removes a parameter; true where it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let (before, uri) = (self.list.len(), self.uri);
        self.list.retain(|(n, _)| !same(n, name, uri));
        self.list.len() != before
    }

    /// Names and raw values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(n, _)| same(n, name, self.uri)).map(|(_, value)| value.as_deref().unwrap_or_default())
    }

    fn put(&mut self, name: &str, value: Option<String>) {
        let uri = self.uri;
        match self.list.iter_mut().find(|(n, _)| same(n, name, uri)) {
            Some((_, old)) => *old = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Params) -> bool {
        self.list == other.list
    }
}

impl Eq for Params {}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

fn same(written: &str, wanted: &str, uri: bool) -> bool {
    written.eq_ignore_ascii_case(wanted)
        || (uri && written.contains('%') && lex::unescape(written).eq_ignore_ascii_case(wanted))
}

fn header_param(param: &str) -> Option<(&str, Option<&str>)> {
    let (name, value) = match param.split_once('=') {
        Some((name, value)) => (lex::trim_str(name), Some(lex::trim_str(value))),
        None => (lex::trim_str(param), None),
    };
    let good = match value.map(str::as_bytes) {
        None => true,
        Some(quoted @ [b'"', ..]) => lex::quoted_end(quoted) == Some(quoted.len()),
        // token, or host with an IPv6 reference (RFC 3261 section 25.1, gen-value); RFC 5118 section 4.5 asks for
        // bare IPv6 addresses in `received`, and old URLs in parameters hold slashes and the like.
        Some(bare) => {
            !bare.is_empty() && bare.iter().all(|&b| b > b' ' && !matches!(b, b'"' | b',' | b';' | b'<' | b'>' | 0x7f))
        }
    };
    (lex::is_token(name.as_bytes()) && good).then_some((name, value))
}

fn uri_param(param: &str) -> Option<(&str, Option<&str>)> {
    let (name, value) = match param.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (param, None),
    };
    let plain = |b: u8| b > b' ' && !matches!(b, b'"' | b'<' | b'>' | b';' | b'?' | b',' | b'@' | 0x7f);
    (!name.is_empty() && name.bytes().all(plain) && value.is_none_or(|v| v.bytes().all(plain))).then_some((name, value))
}
