//! Edits. Each touches the bytes of the fields it names and no others.

use std::fmt::Display;

use bytes::Bytes;

use super::message::{Field, Span, one_line, value_at};
use super::{HeaderName, Message, Method, lex, name};

impl Message {
    /// Appends a field. A line break in `value` becomes a space.
    pub fn push<'n>(&mut self, name: impl Into<HeaderName<'n>>, value: impl Display) {
        let field = self.new_field(name.into(), &value.to_string());
        self.fields.push(field);
        self.edited(field.code);
    }

    /// Puts a field before the first of its name, or before all fields where there is none.
    pub fn push_front<'n>(&mut self, name: impl Into<HeaderName<'n>>, value: impl Display) {
        let name = name.into();
        let at = self.positions(name).next().unwrap_or(0);
        let field = self.new_field(name, &value.to_string());
        self.fields.insert(at, field);
        self.edited(field.code);
    }

    /// Replaces all fields of this name by one, in the place of the first; appends it where there is none.
    pub fn set<'n>(&mut self, name: impl Into<HeaderName<'n>>, value: impl Display) {
        let name = name.into();
        let Some(at) = self.positions(name).next() else { return self.push(name, value) };
        let field = self.new_field(name, &value.to_string());
        self.drop_fields(name, 1);
        if let Some(place) = self.fields.get_mut(at) {
            *place = field;
        }
        self.edited(field.code);
    }

    /// Removes all fields of this name; true where there was one.
    pub fn remove<'n>(&mut self, name: impl Into<HeaderName<'n>>) -> bool {
        let name = name.into();
        let dropped = self.drop_fields(name, 0);
        if dropped {
            self.edited(name.code());
        }
        dropped
    }

    /// Takes the first comma-separated value of the first field of this name: pops the top Via, the next Route.
    pub fn remove_first_value<'n>(&mut self, name: impl Into<HeaderName<'n>>) -> Option<String> {
        let name = name.into();
        let at = self.positions(name).next()?;
        let field = *self.fields.get(at)?;
        let value = self.wire_value(&field);
        let end = lex::find_outside(value, b',');
        let first = value.get(..end).unwrap_or_default().to_vec();
        let rest = value.get(end + 1..).unwrap_or_default();
        let skip = rest.iter().take_while(|&&b| b == b',' || lex::is_space(b)).count();
        let rest = rest.get(skip..).unwrap_or_default().to_vec();
        if rest.is_empty() {
            self.fields.remove(at);
        } else {
            self.rewrite(at, &[&rest]);
        }
        self.edited(field.code);
        let first = String::from_utf8_lossy(lex::trim(&first)).into_owned();
        Some(if first.contains(['\r', '\n']) { unfold(&first) } else { first })
    }

    /// Rewrites the first comma-separated value of the first field of this name in its place, the rest of the field
    /// staying as it is: the top Via with `received` and `rport`. False where there is no such field.
    pub fn replace_first_value<'n>(&mut self, name: impl Into<HeaderName<'n>>, value: impl Display) -> bool {
        let Some(at) = self.positions(name.into()).next() else { return false };
        let Some(field) = self.fields.get(at).copied() else { return false };
        let old = self.wire_value(&field);
        let rest = old.get(lex::find_outside(old, b',')..).unwrap_or_default().to_vec();
        let value = value.to_string();
        self.rewrite(at, &[one_line(&value).as_bytes(), &rest]);
        self.edited(field.code);
        true
    }

    /// Replaces the Request-URI; does nothing to a response.
    pub fn set_request_uri(&mut self, uri: &str) {
        if self.is_request() {
            self.write_start(uri);
            self.changed = true;
        }
    }

    /// Replaces the body and sets Content-Type and Content-Length. With an empty `content_type` the field is removed.
    pub fn set_body(&mut self, content_type: &str, body: impl Into<Bytes>) {
        self.body = body.into();
        if content_type.is_empty() {
            self.remove(HeaderName::ContentType);
        } else {
            self.set(HeaderName::ContentType, content_type);
        }
        self.set(HeaderName::ContentLength, self.body.len());
    }

    /// Makes Content-Length tell the size of the body, which a stream needs (RFC 3261 section 20.14). A datagram that
    /// is forwarded over a stream may lack it.
    pub fn set_content_length(&mut self) {
        if self.content_length() != Some(self.body.len()) {
            self.set(HeaderName::ContentLength, self.body.len());
        }
    }

    /// Gives To a tag unless it has one.
    pub fn set_to_tag(&mut self, tag: &str) {
        let Some(at) = self.positions(HeaderName::To).next() else { return };
        if self.to_tag().is_none()
            && let Some(field) = self.fields.get(at).copied()
        {
            let value = self.wire_value(&field).to_vec();
            self.rewrite(at, &[&value, b";tag=", one_line(tag).as_bytes()]);
            self.edited(field.code);
        }
    }

    /// Takes over a whole field, its CRLF included.
    pub(super) fn adopt(&mut self, line: Vec<u8>, name_len: u16) -> Field {
        self.tidy();
        let kept = self.keep(&[&line]);
        let at = value_at(&line, name_len);
        let value = lex::trim(line.get(at..).unwrap_or_default());
        let view = match std::str::from_utf8(value) {
            Ok(text) if !text.contains(['\r', '\n']) => {
                let from = kept.from + at.min(line.len()) as u32;
                Span { own: true, from, to: from + value.len() as u32 }
            }
            _ => self.keep_unfolded(value),
        };
        let code = name::code_of(line.get(..usize::from(name_len)).unwrap_or_default());
        Field { code, name_len, line: kept, view }
    }

    fn new_field(&mut self, name: HeaderName<'_>, value: &str) -> Field {
        let written: String = name.as_str().chars().filter(|c| !matches!(c, '\r' | '\n' | ':')).collect();
        let line = format!("{written}: {}\r\n", one_line(value));
        self.adopt(line.into_bytes(), written.len() as u16)
    }

    /// Gives a field another value, its name staying as it was written.
    fn rewrite(&mut self, at: usize, value: &[&[u8]]) {
        let Some(field) = self.fields.get(at).copied() else { return };
        let old = self.bytes(field.line);
        let mut line = old.get(..value_at(old, field.name_len)).unwrap_or_default().to_vec();
        value.iter().for_each(|piece| line.extend_from_slice(piece));
        line.extend_from_slice(b"\r\n");
        let field = self.adopt(line, field.name_len);
        if let Some(place) = self.fields.get_mut(at) {
            *place = field;
        }
    }

    /// Drops the fields of this name but the first `keep`.
    fn drop_fields(&mut self, name: HeaderName<'_>, keep: usize) -> bool {
        let doomed: Vec<usize> = self.positions(name).skip(keep).collect();
        for at in doomed.iter().rev() {
            self.fields.remove(*at);
        }
        !doomed.is_empty()
    }

    fn edited(&mut self, code: u8) {
        self.changed = true;
        if code == HeaderName::CSeq.code() && self.is_response() {
            self.method = self.cseq().map_or(Method::Other("".into()), |cseq| cseq.method);
        }
    }

    /// Lets go of text that no field uses any more, so that a message edited for ever does not grow for ever.
    pub(super) fn tidy(&mut self) {
        let spans = |m: &Message| m.fields.iter().map(|f| f.line.len() + f.view.len()).sum::<usize>() + m.line.len();
        if self.own.len() < 4096 || self.own.len() < 2 * spans(self) {
            return;
        }
        let old = std::mem::take(&mut self.own);
        let moved = |own: &mut Vec<u8>, span: &mut Span| {
            if span.own {
                let from = own.len() as u32;
                own.extend_from_slice(old.get(span.from as usize..span.to as usize).unwrap_or_default());
                *span = Span { own: true, from, to: own.len() as u32 };
            }
        };
        moved(&mut self.own, &mut self.line);
        moved(&mut self.own, &mut self.subject);
        for field in &mut self.fields {
            moved(&mut self.own, &mut field.line);
            moved(&mut self.own, &mut field.view);
        }
    }
}

fn unfold(text: &str) -> String {
    text.split(['\r', '\n']).map(lex::trim_str).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ")
}
