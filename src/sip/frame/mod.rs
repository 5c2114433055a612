//! Messages out of a stream (RFC 3261 section 18.3) and the CRLF keep-alive between them (RFC 5626 section 3.5.1).
//!
//! A message on a stream must carry Content-Length; without it, or with two that differ, the place where the next
//! message starts is a guess that an attacker could make use of, so the stream is given up. Sizes are bounded by
//! [`limits`]. Left out: resynchronising after an error, for the same reason.

use bytes::{Bytes, BytesMut};

use crate::core::limits;
use crate::sip::msg::HeaderName;

#[cfg(test)]
mod tests;

/// What a stream held next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// One whole message, for [`Message::parse_bytes`](crate::sip::msg::Message::parse_bytes).
    Message(Bytes),
    /// CRLF CRLF: the peer pings and wants a CRLF.
    KeepAlive,
    /// CRLF: the answer to our ping.
    Pong,
}

/// Why a stream cannot be read any further. The peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The header section is larger than [`limits::SIP_HEADERS`], or the message than [`limits::SIP_MESSAGE`].
    #[error("Message too large")]
    TooLarge,
    /// No Content-Length.
    #[error("Missing Content-Length header field")]
    NoContentLength,
    /// Content-Length is no number, or stands twice with two values.
    #[error("Malformed Content-Length header field")]
    ContentLength,
}

impl FrameError {
    /// The status of a response, where one can be made from [`Framer::failed_head`].
    pub const fn status(self) -> u16 {
        match self {
            FrameError::TooLarge => 513,
            FrameError::NoContentLength | FrameError::ContentLength => 400,
        }
    }
}

/// Cuts a stream into messages. Ask [`next`](Framer::next) until it gives `None` after every [`push`](Framer::push).
#[derive(Default)]
pub struct Framer {
    buffer: BytesMut,
    /// How far the end of the header section has been looked for.
    searched: usize,
    /// Of the message at the front, once its head is whole.
    length: Option<usize>,
    /// A lone CRLF was taken for a pong; a second one right behind it makes both a ping.
    half_ping: bool,
    failed: Option<FrameError>,
}

impl Framer {
    /// At the start of a stream.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Bytes from the stream, in whatever pieces they come. Ignored after an error.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next frame, or `None` where more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`], and the same one ever after: close the stream.
    #[allow(clippy::should_implement_trait)] // fallible, and not at its end after `None`
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.length.is_none()
            && let Some(keep_alive) = self.take_keep_alive()
        {
            return Ok(Some(keep_alive));
        }
        match self.take_message() {
            Ok(message) => Ok(message.map(Frame::Message)),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    /// Bytes that wait for the rest of their message.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// After an error: the header section at fault, or the whole lines of it that are there, ended by an empty line.
    /// Enough for a response where it is a request.
    pub fn failed_head(&self) -> Option<Bytes> {
        self.failed?;
        let most = self.buffer.get(..self.buffer.len().min(limits::SIP_HEADERS)).unwrap_or_default();
        let end = match find(most, b"\r\n\r\n", 0) {
            Some(end) => end,
            None => most.windows(2).rposition(|pair| pair == b"\r\n")?,
        };
        let mut head = BytesMut::from(most.get(..end)?);
        head.extend_from_slice(b"\r\n\r\n");
        Some(head.freeze())
    }

    fn take_keep_alive(&mut self) -> Option<Frame> {
        // White space before a message is not worth more than the two forms of keep-alive.
        if self.buffer.starts_with(b"\r\n\r\n") && !self.half_ping {
            let _ = self.buffer.split_to(4);
            return Some(Frame::KeepAlive);
        }
        if self.buffer.starts_with(b"\r\n") {
            let _ = self.buffer.split_to(2);
            self.half_ping = !self.half_ping;
            return Some(if self.half_ping { Frame::Pong } else { Frame::KeepAlive });
        }
        if self.buffer.len() > 1 {
            self.half_ping = false;
        }
        None
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(end) = find(&self.buffer, b"\r\n\r\n", self.searched) else {
                    self.searched = self.buffer.len().saturating_sub(3);
                    let too_large = self.buffer.len() > limits::SIP_HEADERS;
                    return if too_large { Err(FrameError::TooLarge) } else { Ok(None) };
                };
                let head = self.buffer.get(..end + 4).unwrap_or_default();
                if head.len() > limits::SIP_HEADERS {
                    return Err(FrameError::TooLarge);
                }
                let length = content_length(head)?.saturating_add(head.len());
                if length > limits::SIP_MESSAGE {
                    return Err(FrameError::TooLarge);
                }
                self.length = Some(length);
                length
            }
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.length = None;
        self.searched = 0;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let place = bytes.get(from..)?.windows(wanted.len()).position(|window| window == wanted)?;
    Some(from + place)
}

/// The value of Content-Length in a header section, which ends in an empty line. Lines end in CRLF and nothing else:
/// what the parser takes for one field must not be two here.
fn content_length(head: &[u8]) -> Result<usize, FrameError> {
    let mut found = None;
    let mut at = 0;
    while let Some(mut end) = find(head, b"\r\n", at) {
        while matches!(head.get(end + 2), Some(b' ' | b'\t')) {
            end = find(head, b"\r\n", end + 2).unwrap_or(head.len());
        }
        let field = head.get(at..end).unwrap_or_default();
        at = end + 2;
        let Some(value) = length_field(field) else { continue };
        let digits = std::str::from_utf8(value).ok().filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.map(|digits| digits.parse().unwrap_or(usize::MAX)).ok_or(FrameError::ContentLength)?;
        if found.is_some_and(|first| first != number) {
            return Err(FrameError::ContentLength);
        }
        found = Some(number);
    }
    found.ok_or(FrameError::NoContentLength)
}

/// The value of the field, if it is Content-Length.
fn length_field(field: &[u8]) -> Option<&[u8]> {
    if !matches!(field.first(), Some(b'c' | b'C' | b'l' | b'L')) {
        return None;
    }
    let (name, value) = field.split_at(field.iter().position(|&b| b == b':')?);
    let name = std::str::from_utf8(name).ok()?.trim_end();
    (HeaderName::new(name) == HeaderName::ContentLength).then(|| value.get(1..).unwrap_or_default().trim_ascii())
}
