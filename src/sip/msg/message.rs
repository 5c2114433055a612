//! The message: a start line, an index of fields, a body; and how it is written.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::{HeaderName, Method, ParseError, lex};

/// A SIP request or response. Cheap to clone: the bytes it was read from are shared.
#[derive(Clone)]
pub struct Message {
    /// The message as it was received, empty for one made here.
    pub(super) raw: Bytes,
    /// Text that does not stand in `raw`: edited fields, unfolded values.
    pub(super) own: Vec<u8>,
    /// The start line with its CRLF.
    pub(super) line: Span,
    /// The Request-URI or the reason phrase, as text.
    pub(super) subject: Span,
    /// Of a response that of CSeq.
    pub(super) method: Method,
    /// 0 for a request.
    pub(super) status: u16,
    pub(super) fields: Vec<Field>,
    pub(super) body: Bytes,
    pub(super) changed: bool,
    /// Made here: the right Content-Length is ours to give.
    pub(super) built: bool,
    /// The first fault that indexing met.
    pub(super) fault: Option<ParseError>,
}

/// A stretch of `raw` or, with `own`, of `own`.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub own: bool,
    pub from: u32,
    pub to: u32,
}

/// One header field.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Code of the name, see `name`.
    pub code: u8,
    /// Bytes of the name at the start of `line`.
    pub name_len: u16,
    /// The whole field with its CRLF.
    pub line: Span,
    /// The value, unfolded, trimmed and valid UTF-8.
    pub view: Span,
}

impl Message {
    /// A request without any header field.
    pub fn request(method: Method, uri: &str) -> Message {
        let mut message = Message::empty();
        message.method = method;
        message.write_start(uri);
        message
    }

    /// A response without any header field. `status` is 100..=699.
    pub fn response(status: u16, reason: &str) -> Message {
        let mut message = Message::empty();
        message.status = status.clamp(100, 699);
        message.write_start(reason);
        message
    }

    /// A response to `request` with what RFC 3261 section 8.2.6 copies: every Via, From, To, Call-ID, CSeq, and
    /// Timestamp into a 100. The tag of To ([`set_to_tag`](Message::set_to_tag)) is the caller's, and so is
    /// Record-Route.
    pub fn reply(request: &Message, status: u16, reason: &str) -> Message {
        let mut response = Message::response(status, reason);
        let copied = [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
            HeaderName::Timestamp,
        ];
        let copied = copied.map(|name| name.code());
        let copied = if status == 100 { &copied[..] } else { &copied[..5] };
        for code in copied {
            // A repeated From and the like is the request's fault; one copy is enough for the answer.
            let most = if *code == HeaderName::Via.code() { usize::MAX } else { 1 };
            for field in request.fields.iter().filter(|f| f.code == *code).take(most) {
                let field = response.adopt(request.bytes(field.line).to_vec(), field.name_len);
                response.fields.push(field);
            }
        }
        response.method = response.cseq().map_or(Method::Other("".into()), |cseq| cseq.method);
        response
    }

    /// True for a request.
    pub fn is_request(&self) -> bool {
        self.status == 0
    }

    /// True for a response.
    pub fn is_response(&self) -> bool {
        self.status != 0
    }

    /// The method; of a response the one in CSeq, which is empty where CSeq is absent or malformed.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// 100..=699, or 0 for a request.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase; "" for a request.
    pub fn reason(&self) -> &str {
        if self.is_response() { self.text(self.subject) } else { "" }
    }

    /// The Request-URI as it is written; "" for a response.
    pub fn request_uri(&self) -> &str {
        if self.is_request() { self.text(self.subject) } else { "" }
    }

    /// The body. It never reaches past Content-Length.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, shared.
    pub fn body_bytes(&self) -> Bytes {
        self.body.clone()
    }

    /// Bytes that the message keeps in memory, about.
    pub fn memory(&self) -> usize {
        let fields = self.fields.capacity() * size_of::<Field>();
        size_of::<Message>() + self.raw.len() + self.own.capacity() + fields + self.body.len()
    }

    /// The message as it goes on the wire. Received and not edited: the bytes that came. Made here: with a right
    /// Content-Length in any case. Edited: with one.
    pub fn to_bytes(&self) -> Bytes {
        if !self.changed && !self.built {
            return self.raw.clone();
        }
        let length = self.gives_length();
        let fields: usize = self.fields.iter().map(|f| f.line.len()).sum();
        let mut out = Vec::with_capacity(self.line.len() + fields + 32 + self.body.len());
        out.extend_from_slice(self.bytes(self.line));
        for field in &self.fields {
            if !length || field.code != HeaderName::ContentLength.code() {
                out.extend_from_slice(self.bytes(field.line));
            }
        }
        if length {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        Bytes::from(out)
    }

    /// Whether a Content-Length of ours is written: where none is right in what was made here, and where an edited one has none, which
    /// a datagram may lack and a stream may not (RFC 3261 section 20.14).
    fn gives_length(&self) -> bool {
        match self.content_length() {
            None => {
                self.built || self.changed && !self.fields.iter().any(|f| f.code == HeaderName::ContentLength.code())
            }
            Some(length) => self.built && length != self.body.len(),
        }
    }

    /// How many bytes [`to_bytes`](Message::to_bytes) gives, without giving them.
    pub fn wire_len(&self) -> usize {
        if !self.changed && !self.built {
            return self.raw.len();
        }
        let length = self.gives_length();
        let left_out = |field: &&Field| length && field.code == HeaderName::ContentLength.code();
        let fields: usize = self.fields.iter().filter(|f| !left_out(f)).map(|f| f.line.len()).sum();
        let digits = self.body.len().checked_ilog10().unwrap_or(0) as usize + 1;
        let own = if length { "Content-Length: \r\n".len() + digits } else { 0 };
        self.line.len() + fields + own + 2 + self.body.len()
    }

    fn empty() -> Message {
        Message {
            raw: Bytes::new(),
            own: Vec::with_capacity(512),
            line: Span::default(),
            subject: Span::default(),
            method: Method::Other("".into()),
            status: 0,
            fields: Vec::with_capacity(12),
            body: Bytes::new(),
            changed: false,
            built: true,
            fault: None,
        }
    }

    /// Writes the start line anew, with this Request-URI or reason phrase.
    pub(super) fn write_start(&mut self, subject: &str) {
        let subject = one_line(subject);
        let before = match self.status {
            0 => format!("{} ", self.method),
            status => format!("SIP/2.0 {status:03} "),
        };
        let after = if self.status == 0 { " SIP/2.0\r\n" } else { "\r\n" };
        self.tidy();
        let line = self.keep(&[before.as_bytes(), subject.as_bytes(), after.as_bytes()]);
        let from = line.from + before.len() as u32;
        self.line = line;
        self.subject = Span { own: true, from, to: from + subject.len() as u32 };
    }

    /// Appends to our own text.
    pub(super) fn keep(&mut self, pieces: &[&[u8]]) -> Span {
        let from = self.own.len() as u32;
        for piece in pieces {
            self.own.extend_from_slice(piece);
        }
        Span { own: true, from, to: self.own.len() as u32 }
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        let text: &[u8] = if span.own { &self.own } else { &self.raw };
        text.get(span.from as usize..span.to as usize).unwrap_or_default()
    }

    /// A span that was made to hold UTF-8.
    pub(super) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// The value of a field as it stands on the wire: trimmed, folds and foreign bytes included.
    pub(super) fn wire_value(&self, field: &Field) -> &[u8] {
        let line = self.bytes(field.line);
        lex::trim(line.get(value_at(line, field.name_len)..).unwrap_or_default())
    }
}

impl Span {
    pub(super) const fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}

/// Where the value starts in a field: behind the colon and the white space that follows it.
pub(super) fn value_at(line: &[u8], name_len: u16) -> usize {
    let colon = line.iter().skip(usize::from(name_len)).position(|&b| b == b':');
    let behind = colon.map_or(0, |at| usize::from(name_len) + at + 1);
    let space = line.iter().skip(behind).take_while(|&&b| lex::is_space(b)).count();
    behind + space
}

/// Text that cannot end its line: what would be a new field becomes a space.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], " ")) } else { Cow::Borrowed(text) }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Message {}

/// Shows what kind of message it is, and no address or secret from it.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 => write!(f, "{}", self.method)?,
            status => write!(f, "{status} to {}", self.method)?,
        }
        write!(f, " ({} fields, {} bytes of body)", self.fields.len(), self.body.len())
    }
}
