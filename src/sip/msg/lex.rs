//! The lexical pieces that all fields share (RFC 3261 section 25.1): tokens, quoted strings, lists, parameters.

use std::borrow::Cow;

/// RFC 3261 `token`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

pub(super) const fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// White space inside a field; CR and LF count because folding does.
pub(super) const fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_space(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&b| !is_space(b)).map_or(start, |i| i + 1);
    bytes.get(start..end).unwrap_or_default()
}

pub(super) fn trim_str(text: &str) -> &str {
    text.trim_matches(|c| matches!(c, ' ' | '\t' | '\r' | '\n'))
}

/// The index of the first `stop` outside quoted strings and angle brackets, or the length.
/// An open quote or bracket runs to the end: the caller's grammar then refuses the piece.
pub(super) fn find_outside(bytes: &[u8], stop: u8) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        let Some(found) = rest.iter().position(|&b| b == stop || b == b'"' || b == b'<') else { break };
        at += found;
        let tail = bytes.get(at..).unwrap_or_default();
        match tail.first() {
            Some(&b) if b == stop => return at,
            Some(b'"') => match quoted_end(tail) {
                Some(end) => at += end,
                None => break,
            },
            _ => match tail.iter().position(|&b| b == b'>') {
                Some(end) => at += end + 1,
                None => break,
            },
        }
    }
    bytes.len()
}

/// `text` cut at the first `stop` outside quotes and brackets.
pub(super) fn split_outside(text: &str, stop: u8) -> (&str, Option<&str>) {
    let at = find_outside(text.as_bytes(), stop);
    (text.get(..at).unwrap_or(text), text.get(at + 1..))
}

/// The end of a quoted string that starts at byte 0 with its quote: the index after the closing quote.
pub(super) fn quoted_end(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (i, &b) in bytes.iter().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            return Some(i + 1);
        }
    }
    None
}

/// The text of a quoted string without quotes and escapes; anything else as it is.
pub(super) fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// The other way: `text` as a quoted string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\r' | '\n' => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Decodes `%HH`; what is no escape stays. Bytes that are no UTF-8 afterwards leave the text as it was.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        match (b, bytes.get(i + 1).and_then(|&h| hex(h)), bytes.get(i + 2).and_then(|&h| hex(h))) {
            (b'%', Some(high), Some(low)) => {
                plain.push(high << 4 | low);
                i += 3;
            }
            _ => {
                plain.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8(plain).map_or(Cow::Borrowed(text), Cow::Owned)
}

pub(super) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A number of digits only, or `None`. Too large a number is `Some(None)`.
pub(super) fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().ok())
}

/// The raw value of a parameter in `;name=value;name`, without allocating. A parameter without value gives "".
pub(super) fn find_param<'a>(mut params: &'a str, wanted: &str) -> Option<&'a str> {
    loop {
        let (param, rest) = split_outside(params, b';');
        let (name, value) = split_outside(param, b'=');
        if trim_str(name).eq_ignore_ascii_case(wanted) {
            return Some(value.map_or("", trim_str));
        }
        params = rest?;
    }
}

/// The parameters behind a name-addr or addr-spec: what follows the first `;` outside quotes and brackets.
pub(super) fn params_of(value: &str) -> &str {
    split_outside(value, b';').1.unwrap_or_default()
}
