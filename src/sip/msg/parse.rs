//! Indexing a message (RFC 3261 section 7).

use bytes::Bytes;

use super::message::{Field, Span};
use super::{HeaderName, Message, Method, ParseError, lex, name};
use crate::core::limits;

impl Message {
    /// Indexes a message that fills a datagram: bytes behind Content-Length are dropped (RFC 3261 section 18.3), and
    /// without Content-Length the body is all there is. Empty lines before the start line are skipped.
    ///
    /// # Errors
    /// Only where there is nothing that could be answered: no readable start line, or no end of the header section.
    /// All other faults are told by [`validate`](Message::validate).
    pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
        if bytes.len() > limits::SIP_MESSAGE {
            return Err(ParseError::TooLarge);
        }
        Message::parse_bytes(Bytes::copy_from_slice(bytes))
    }

    /// The same without a copy.
    ///
    /// # Errors
    /// As [`parse`](Message::parse).
    pub fn parse_bytes(mut bytes: Bytes) -> Result<Message, ParseError> {
        if bytes.len() > limits::SIP_MESSAGE {
            return Err(ParseError::TooLarge);
        }
        let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let _ = bytes.split_to(blank);
        if bytes.iter().all(|&b| lex::is_space(b)) {
            return Err(ParseError::Empty);
        }
        let (start_end, bare) = line_end(&bytes, 0).ok_or(ParseError::StartLine)?;
        if bare {
            return Err(ParseError::StartLine);
        }
        let mut message = Message {
            raw: Bytes::new(),
            own: Vec::new(),
            line: Span { own: false, from: 0, to: start_end as u32 },
            subject: Span::default(),
            method: Method::Other("".into()),
            status: 0,
            fields: Vec::with_capacity(16),
            body: Bytes::new(),
            changed: false,
            built: false,
            fault: None,
        };
        message.read_start(bytes.get(..start_end - 2).unwrap_or_default())?;
        let head_end = message.read_fields(&bytes, start_end)?;
        message.read_body(&mut bytes, head_end);
        message.raw = bytes;
        if message.is_response() {
            message.method = message.cseq().map_or(Method::Other("".into()), |cseq| cseq.method);
        }
        Ok(message)
    }

    /// `line` is without its CRLF.
    fn read_start(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let space = line.iter().position(|&b| b == b' ').ok_or(ParseError::StartLine)?;
        let (first, rest) = line.split_at(space);
        let rest = rest.get(1..).unwrap_or_default();
        let base = space + 1;
        if is_version(first) {
            self.read_version(first);
            let code = rest.get(..3).filter(|c| c.iter().all(u8::is_ascii_digit)).ok_or(ParseError::StatusCode)?;
            self.status = code.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
            if !(100..700).contains(&self.status) || rest.get(3).is_some_and(|&b| b != b' ') {
                return Err(ParseError::StatusCode);
            }
            let from = (base + 4).min(line.len());
            self.subject = self.span_of(line, from, line.len());
            return Ok(());
        }
        self.method = Method::from_bytes(first).map_err(|_| ParseError::StartLine)?;
        let trailing = rest.iter().rev().take_while(|&&b| lex::is_space(b)).count();
        let rest = rest.get(..rest.len() - trailing).unwrap_or_default();
        let space = rest.iter().rposition(|&b| b == b' ').ok_or(ParseError::StartLine)?;
        let (uri, version) = rest.split_at(space);
        let version = version.get(1..).filter(|v| is_version(v)).ok_or(ParseError::StartLine)?;
        self.read_version(version);
        let trimmed = lex::trim(uri);
        let lead = uri.iter().take_while(|&&b| lex::is_space(b)).count();
        if trailing > 0 || trimmed.len() != uri.len() || trimmed.iter().any(|&b| lex::is_space(b)) {
            self.blame(ParseError::RequestLine);
        }
        self.subject = self.span_of(line, base + lead, base + lead + trimmed.len());
        Ok(())
    }

    fn read_version(&mut self, version: &[u8]) {
        if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            self.blame(ParseError::Version);
        }
    }

    /// Indexes the fields; gives the place behind the empty line.
    fn read_fields(&mut self, bytes: &[u8], mut at: usize) -> Result<usize, ParseError> {
        let start = at;
        loop {
            if bytes.get(at..at + 2) == Some(b"\r\n") {
                break;
            }
            let (mut end, mut bare) = line_end(bytes, at).ok_or(ParseError::Unterminated)?;
            let mut folded = false;
            while matches!(bytes.get(end), Some(b' ' | b'\t')) {
                folded = true;
                let (next, odd) = line_end(bytes, end).ok_or(ParseError::Unterminated)?;
                (end, bare) = (next, bare || odd);
            }
            if end - start > limits::SIP_HEADERS || self.fields.len() == limits::SIP_HEADER_COUNT {
                // Enough is indexed to answer; what follows is found, not kept.
                self.blame(ParseError::TooLarge);
            } else {
                self.read_field(bytes.get(at..end).unwrap_or_default(), at, folded);
            }
            if bare {
                self.blame(ParseError::HeaderLine);
            }
            at = end;
        }
        if std::str::from_utf8(bytes.get(start..at).unwrap_or_default()).is_err() {
            self.replace_foreign_bytes(bytes);
        }
        Ok(at + 2)
    }

    fn read_field(&mut self, line: &[u8], at: usize, folded: bool) {
        let colon = line.iter().position(|&b| b == b':');
        let name_len = colon.map_or(0, |c| line.iter().take(c).rposition(|&b| !lex::is_space(b)).map_or(0, |i| i + 1));
        let name = line.get(..name_len).unwrap_or_default();
        let code = name::code_of(name);
        if code == 0 && !lex::is_token(name) {
            self.blame(ParseError::HeaderLine);
        }
        let value_from = colon.map_or(0, |c| c + 1);
        let value = line.get(value_from..).unwrap_or_default();
        let lead = value.iter().take_while(|&&b| lex::is_space(b)).count();
        let trimmed = lex::trim(value);
        let view = if folded {
            self.keep_unfolded(trimmed)
        } else {
            let from = (at + value_from + lead) as u32;
            Span { own: false, from, to: from + trimmed.len() as u32 }
        };
        let line = Span { own: false, from: at as u32, to: (at + line.len()) as u32 };
        self.fields.push(Field { code, name_len: name_len as u16, line, view });
    }

    /// A value without its folds: each, with the white space around it, becomes one space.
    pub(super) fn keep_unfolded(&mut self, value: &[u8]) -> Span {
        let mut flat = Vec::with_capacity(value.len());
        for (i, piece) in value.split(|&b| matches!(b, b'\r' | b'\n')).map(lex::trim).enumerate() {
            if i > 0 && !piece.is_empty() {
                flat.push(b' ');
            }
            flat.extend_from_slice(piece);
        }
        self.keep(&[String::from_utf8_lossy(&flat).as_bytes()])
    }

    /// Values that are no UTF-8 get a text of their own.
    fn replace_foreign_bytes(&mut self, bytes: &[u8]) {
        for i in 0..self.fields.len() {
            let Some(view) = self.fields.get(i).map(|f| f.view).filter(|v| !v.own) else { continue };
            let value = bytes.get(view.from as usize..view.to as usize).unwrap_or_default();
            if std::str::from_utf8(value).is_err() {
                let text = String::from_utf8_lossy(value);
                let view = self.keep(&[text.as_bytes()]);
                if let Some(field) = self.fields.get_mut(i) {
                    field.view = view;
                }
            }
        }
    }

    /// Cuts `bytes` behind the body.
    fn read_body(&mut self, bytes: &mut Bytes, head_end: usize) {
        let available = bytes.len() - head_end;
        let field = self.fields.iter().find(|f| f.code == HeaderName::ContentLength.code()).copied();
        let length = field.map(|field| {
            // `raw` is not in place yet.
            let source: &[u8] = if field.view.own { &self.own } else { bytes };
            let value = source.get(field.view.from as usize..field.view.to as usize).unwrap_or_default();
            std::str::from_utf8(value).ok().and_then(lex::number)
        });
        let wanted = match length {
            None => available,
            Some(Some(Some(n))) if n <= available as u64 => n as usize,
            Some(Some(_)) => {
                self.blame(ParseError::Truncated);
                available
            }
            Some(None) => {
                self.blame(ParseError::Header("Content-Length"));
                available
            }
        };
        bytes.truncate(head_end + wanted);
        self.body = bytes.slice(head_end..);
    }

    /// The span of a piece of the start line, or of a readable copy where it is no UTF-8.
    fn span_of(&mut self, line: &[u8], from: usize, to: usize) -> Span {
        let piece = line.get(from..to).unwrap_or_default();
        match std::str::from_utf8(piece) {
            Ok(_) => Span { own: false, from: from as u32, to: to as u32 },
            Err(_) => self.keep(&[String::from_utf8_lossy(piece).as_bytes()]),
        }
    }

    fn blame(&mut self, fault: ParseError) {
        self.fault.get_or_insert(fault);
    }
}

/// The place behind the next CRLF, and whether a bare CR or LF stood before it.
fn line_end(bytes: &[u8], from: usize) -> Option<(usize, bool)> {
    let mut bare = false;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == b'\r' || b == b'\n')?;
        if bytes.get(at..at + 2) == Some(b"\r\n") {
            return Some((at + 2, bare));
        }
        bare = true;
        at += 1;
    }
}

/// `SIP/1.0` and the like, in any case.
fn is_version(word: &[u8]) -> bool {
    let Some((name, number)) = word.split_at_checked(4) else { return false };
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let mut parts = number.splitn(2, |&b| b == b'.');
    name.eq_ignore_ascii_case(b"SIP/") && parts.next().is_some_and(digits) && parts.next().is_some_and(digits)
}
