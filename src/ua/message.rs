//! Pager-mode messages (RFC 3428): MESSAGE requests that this user agent sends, each with one answer, and what is taken of
//! those that come in.
//!
//! A text is `text/plain` in UTF-8. Between Chordial ends it travels sealed ([`SEALED_TYPE`]) and this module sees neither
//! keys nor text; whoever sends and takes it does. Left out: `message/cpim`, `is-composing`, sessions (MSRP).

use super::challenge::credentials;
use super::{Hop, Output, RequestKey, Target, Ua, UaEvent};
use crate::core::{Instant, UnixTime};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::ServerTxId;
use std::collections::BTreeMap;

/// A signed text that is sealed to the recipient's devices (SPEC section 9).
pub const SEALED_TYPE: &str = "application/chordial-sealed+cbor";
/// What a text is.
pub const TEXT_TYPE: &str = "text/plain";
/// `Accept` of who takes messages.
pub const ACCEPT: &str = "text/plain, application/chordial-sealed+cbor";
/// Messages of ours without an answer at once.
const UNDER_WAY: usize = 1024;

/// Names a message of ours until it is answered; chosen by whoever sends.
pub type MessageKey = u64;

/// A message to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// URI in From.
    pub from: String,
    /// URI in To.
    pub to: String,
    /// Where it goes.
    pub target: Target,
    /// Type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// When it was written, for `Date`.
    pub sent: UnixTime,
}

/// What a MESSAGE brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A sealed one.
    Sealed(Vec<u8>),
}

/// A MESSAGE that is not taken: status and reason, and for a 415 that [`ACCEPT`] belongs into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken(pub u16, pub &'static str);

/// Reads the body of a MESSAGE.
///
/// # Errors
/// What to answer it with.
pub fn content(request: &Message) -> Result<Content, NotTaken> {
    let encoded = request.header(HeaderName::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case("identity"));
    if encoded {
        return Err(NotTaken(415, "Unsupported Media Type"));
    }
    if request.content_is(SEALED_TYPE) {
        return Ok(Content::Sealed(request.body().to_vec()));
    }
    let charset = request.content_type().and_then(charset);
    let known =
        charset.as_deref().is_none_or(|c| c.eq_ignore_ascii_case("utf-8") || c.eq_ignore_ascii_case("us-ascii"));
    if !request.content_is(TEXT_TYPE) || !known {
        return Err(NotTaken(415, "Unsupported Media Type"));
    }
    match std::str::from_utf8(request.body()) {
        Ok("") => Err(NotTaken(400, "Empty Message")),
        Ok(text) => Ok(Content::Text(text.to_owned())),
        Err(_) => Err(NotTaken(400, "Message Is Not UTF-8")),
    }
}

/// The charset parameter of a Content-Type.
fn charset(content_type: &str) -> Option<String> {
    let mut params = content_type.split(';').skip(1).filter_map(|p| p.split_once('='));
    let (_, value) = params.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// Messages without an answer yet.
#[derive(Debug, Default)]
pub(super) struct Messages(BTreeMap<MessageKey, Sent>);

#[derive(Debug)]
struct Sent {
    request: Message,
    hop: Hop,
    authorized: bool,
}

impl Ua {
    /// Sends a message; [`UaEvent::MessageAnswered`] tells what became of it.
    pub fn send_message(&mut self, key: MessageKey, outgoing: Outgoing) {
        if self.messages.0.len() >= UNDER_WAY {
            return self.message_answered(key, 503, "too many messages are under way");
        }
        let (call_id, tag) = (self.rng.token(12), self.rng.token(6));
        let mut message = self.request_outside(Method::Message, &outgoing.target.uri, &outgoing.to, &call_id, &tag, 1);
        message.set(HeaderName::From, format_args!("<{}>;tag={tag}", outgoing.from));
        message.push("Date", date(outgoing.sent));
        let content_type = match outgoing.content_type {
            TEXT_TYPE => "text/plain;charset=utf-8",
            other => other,
        };
        message.set_body(content_type, outgoing.body);
        let hop = self.first_hop(outgoing.target.hop);
        self.messages.0.insert(key, Sent { request: message.clone(), hop: hop.clone(), authorized: false });
        self.out.push_back(Output::Request { key: RequestKey::Message(key), message, hop });
    }

    pub(super) fn on_message_response(&mut self, key: MessageKey, response: &Message) {
        let known = self.credentials_of(None);
        let Some(sent) = self.messages.0.get_mut(&key) else { return };
        let status = response.status();
        if status < 200 {
            return;
        }
        if matches!(status, 401 | 407) && !sent.authorized {
            let cnonce = self.rng.token(8);
            let mut again = sent.request.clone();
            if credentials(&mut again, response, known.as_ref(), &cnonce) {
                sent.authorized = true;
                again.set(HeaderName::CSeq, "2 MESSAGE");
                let hop = sent.hop.clone();
                return self.out.push_back(Output::Request { key: RequestKey::Message(key), message: again, hop });
            }
        }
        self.message_answered(key, status, response.reason());
    }

    pub(super) fn message_answered(&mut self, key: MessageKey, status: u16, reason: &str) {
        self.messages.0.remove(&key);
        self.event(UaEvent::MessageAnswered { key, status, reason: reason.to_owned() });
    }

    /// A MESSAGE that is for this user agent: what it brings is the driver's to take and to answer.
    pub(super) fn on_message(&mut self, _now: Instant, tx: ServerTxId, request: &Message, link: bool) {
        self.event(UaEvent::Message { tx, request: Box::new(request.clone()), link });
    }
}

/// `Date` as RFC 3261 section 20.17 wants it.
pub fn date(at: UnixTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (at.secs() / 86_400, at.secs() % 86_400);
    let (year, month, day) = at.civil();
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {h:02}:{m:02}:{s:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content_type: &str, body: &[u8]) -> Message {
        let mut message = Message::request(Method::Message, "sip:bob@x");
        message.set_body(content_type, body.to_vec());
        message
    }

    #[test]
    fn texts_and_nothing_else() {
        let text = |t: &str| Ok(Content::Text(t.to_owned()));
        assert_eq!(content(&message("text/plain", "Grüße".as_bytes())), text("Grüße"));
        assert_eq!(content(&message("TEXT/Plain; charset=\"UTF-8\"", b"x")), text("x"));
        assert_eq!(content(&message("text/plain;format=flowed;charset=us-ascii", b"x")), text("x"));
        assert_eq!(content(&message(SEALED_TYPE, b"\x00")), Ok(Content::Sealed(vec![0])));
        let status = |m: &Message| content(m).unwrap_err().0;
        for other in ["text/html", "text/plain;charset=iso-8859-1", "message/cpim", "application/im-iscomposing+xml"] {
            assert_eq!(status(&message(other, b"x")), 415, "{other}");
        }
        let mut packed = message("text/plain", b"x");
        packed.push(HeaderName::ContentEncoding, "gzip");
        assert_eq!(status(&packed), 415);
        assert_eq!(status(&message("text/plain", b"")), 400);
        assert_eq!(status(&message("text/plain", b"\xff")), 400);
        assert_eq!(status(&Message::request(Method::Message, "sip:bob@x")), 415);
    }

    #[test]
    fn dates() {
        assert_eq!(date(UnixTime(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(UnixTime(951_827_696)), "Tue, 29 Feb 2000 12:34:56 GMT");
        assert_eq!(date(UnixTime(1_800_000_000)), "Fri, 15 Jan 2027 08:00:00 GMT");
        assert_eq!(date(UnixTime(4_107_542_399)), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(date(UnixTime(4_107_542_400)), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}
