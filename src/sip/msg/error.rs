//! What can be wrong with a message, and the status that tells its sender.

/// A fault in bytes that a peer sent. Always the peer's fault: [`status`](ParseError::status) is what a request
/// with this fault is answered with, where it can be answered at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Nothing, or only white space.
    #[error("Empty message")]
    Empty,
    /// More bytes, or more header bytes, or more fields, than [`limits`](crate::core::limits) allow.
    #[error("Message too large")]
    TooLarge,
    /// The first line is neither a Request-Line nor a Status-Line (RFC 3261 section 7).
    #[error("Malformed start line")]
    StartLine,
    /// The Request-Line has more white space than its two single spaces, or the URI holds some.
    #[error("Malformed Request-Line")]
    RequestLine,
    /// The version is well formed and not `SIP/2.0`.
    #[error("Version not supported")]
    Version,
    /// Not three digits, or outside 100..=699.
    #[error("Malformed status code")]
    StatusCode,
    /// No empty line ends the header section.
    #[error("Header section does not end")]
    Unterminated,
    /// A header line without a colon, without a name, or with a bare CR or LF in it.
    #[error("Malformed header line")]
    HeaderLine,
    /// A mandatory field is absent.
    #[error("Missing {0} header field")]
    Missing(&'static str),
    /// A field that may stand once only stands more often.
    #[error("Multiple {0} header fields")]
    Repeated(&'static str),
    /// The field's value does not follow its grammar.
    #[error("Malformed {0} header field")]
    Header(&'static str),
    /// A number in the field is larger than its grammar allows.
    #[error("{0} value out of range")]
    Range(&'static str),
    /// The method of CSeq is not that of the Request-Line.
    #[error("CSeq method does not match the request")]
    CSeqMethod,
    /// A datagram ended before Content-Length bytes of body (RFC 3261 section 18.3).
    #[error("Content-Length exceeds the message")]
    Truncated,
    /// A URI does not follow its grammar.
    #[error("Malformed URI")]
    Uri,
    /// The Request-URI does not follow its grammar, or carries headers or stands in angle brackets.
    #[error("Malformed Request-URI")]
    RequestUri,
    /// A name-addr, Via, CSeq or parameter list outside of any field does not follow its grammar.
    #[error("Malformed value")]
    Value,
}

impl ParseError {
    /// The status of a response to a request with this fault.
    pub const fn status(&self) -> u16 {
        match self {
            ParseError::TooLarge => 513,
            ParseError::Version => 505,
            _ => 400,
        }
    }

    /// A reason phrase that names the fault.
    pub fn reason(&self) -> String {
        self.to_string()
    }
}
