//! The syntax both sides share: `Digest name=value, name="quoted value"`.

use std::borrow::Cow;

/// The parameters of one challenge or one set of credentials, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a header field value; none if the scheme is not Digest or the syntax is broken.
    pub fn parse(value: &str) -> Option<Fields> {
        let value = value.trim();
        let (scheme, mut rest) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case("digest") || !rest.starts_with([' ', '\t', '\r', '\n']) {
            return None;
        }
        let mut fields = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
            if rest.is_empty() {
                return Some(Fields(fields));
            }
            if fields.len() >= MAX_FIELDS {
                return None;
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim();
            if name.is_empty() || name.contains([' ', '"', ',']) {
                return None;
            }
            let (value, after) = value_of(after.trim_start())?;
            fields.push((name.to_ascii_lowercase(), value.into_owned()));
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
    }

    /// The value of parameter `name`, given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t', '\r', '\n']).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return Some((Cow::Borrowed(token), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

/// Appends `name="value"`, escaped.
pub(super) fn push_quoted(out: &mut String, name: &str, value: &str) {
    separate(out);
    out.push_str(name);
    out.push_str("=\"");
    for letter in value.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        // A line end would end the header field.
        out.push(if letter.is_control() { ' ' } else { letter });
    }
    out.push('"');
}

/// Appends `name=value`.
pub(super) fn push_token(out: &mut String, name: &str, value: &str) {
    separate(out);
    out.push_str(name);
    out.push('=');
    out.push_str(value);
}

fn separate(out: &mut String) {
    out.push_str(if out.is_empty() { "Digest " } else { ", " });
}

const MAX_FIELDS: usize = 32;
