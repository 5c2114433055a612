//! `name-addr` and `addr-spec` with the parameters of the field around them (RFC 3261 section 20.10).

use std::fmt;

use super::{Params, ParseError, Uri, lex, uri};

/// A value of From, To, Contact, Route, Record-Route, Refer-To and their like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameAddr {
    /// The display name without quotes and backslashes; `None` where there is none.
    pub display: Option<String>,
    /// The address.
    pub uri: Uri,
    /// Parameters of the field, not of the URI: `tag`, `expires`, `q`.
    pub params: Params,
}

/// The pieces of one value, checked as far as this grammar goes: the URI is not.
pub(super) struct Pieces<'a> {
    pub display: &'a str,
    pub uri: &'a str,
    /// Without the leading semicolon.
    pub params: Option<&'a str>,
}

impl NameAddr {
    /// Reads one value. Without angle brackets every parameter belongs to the field, and the URI may hold neither
    /// `?` nor `,` (RFC 3261 section 20).
    ///
    /// # Errors
    /// [`ParseError::Value`], or [`ParseError::Uri`] where the URI is at fault.
    pub fn parse(text: &str) -> Result<NameAddr, ParseError> {
        let pieces = split(text).ok_or(ParseError::Value)?;
        let display = lex::unquote(pieces.display);
        Ok(NameAddr {
            display: (!pieces.display.is_empty()).then(|| display.into_owned()),
            uri: Uri::parse(pieces.uri)?,
            params: pieces.params.map_or(Ok(Params::new()), Params::parse_list)?,
        })
    }

    /// Only an address.
    pub const fn new(uri: Uri) -> NameAddr {
        NameAddr { display: None, uri, params: Params::new() }
    }

    /// The `tag` parameter of From and To.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The `expires` parameter of a Contact in seconds; `None` where it is absent or no number. Too large a number
    /// gives the largest.
    pub fn expires(&self) -> Option<u32> {
        let value = lex::number(self.params.get("expires")?)?;
        Some(value.and_then(|v| u32::try_from(v).ok()).unwrap_or(u32::MAX))
    }

    /// The `q` parameter of a Contact in thousandths, 0..=1000; `None` where it is absent or malformed.
    pub fn q(&self) -> Option<u16> {
        let text = self.params.get("q")?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
        match whole {
            "0" => Some(thousandths),
            "1" if thousandths == 0 => Some(1000),
            _ => None,
        }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", lex::quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

impl std::str::FromStr for NameAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<NameAddr, ParseError> {
        NameAddr::parse(text)
    }
}

pub(super) fn split(text: &str) -> Option<Pieces<'_>> {
    let text = lex::trim_str(text);
    let (display, rest) = if text.starts_with('"') {
        let (display, rest) = text.split_at_checked(lex::quoted_end(text.as_bytes())?)?;
        (display, lex::trim_str(rest))
    } else {
        match text.find('<') {
            // A `<` behind the first `;` is not the start of the address.
            Some(at) if !text.get(..at)?.contains(';') => (lex::trim_str(text.get(..at)?), text.get(at..)?),
            _ => ("", text),
        }
    };
    // Unquoted display names are tokens; what else telephones put there is taken too unless it could mean something.
    let plain = |b: u8| b >= b' ' && !matches!(b, b',' | b';' | b':' | b'"' | b'>' | 0x7f) || lex::is_space(b);
    if !display.starts_with('"') && !display.bytes().all(plain) {
        return None;
    }
    match rest.strip_prefix('<') {
        Some(inner) => {
            let (uri, after) = inner.split_once('>')?;
            let after = lex::trim_str(after);
            let params = match after.strip_prefix(';') {
                None if after.is_empty() => None,
                None => return None,
                Some(params) => Some(params),
            };
            Some(Pieces { display, uri, params })
        }
        None if display.is_empty() => {
            let (uri, params) = lex::split_outside(rest, b';');
            let uri = lex::trim_str(uri);
            (!uri.contains(['?', ','])).then_some(Pieces { display, uri, params })
        }
        None => None,
    }
}

/// Checks a value without keeping it.
pub(super) fn check(text: &str) -> Result<(), ParseError> {
    let pieces = split(text).ok_or(ParseError::Value)?;
    uri::split(pieces.uri).ok_or(ParseError::Uri)?;
    pieces.params.map_or(Ok(()), Params::check)
}
