//! Requests that a dialog cannot take, and what they are answered.

use crate::core::Rng;
use crate::sip::msg::{HeaderName, Message};

/// Why a request within a dialog is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Its sequence number is not above the last (RFC 3261 section 12.2.2).
    #[error("sequence number out of order")]
    OutOfOrder,
    /// An INVITE while one of ours is pending (RFC 3261 section 14.2).
    #[error("an INVITE of ours is pending")]
    Glare,
    /// An INVITE while the last one has no final response (RFC 3261 section 14.2).
    #[error("the last INVITE is still pending")]
    InProgress,
    /// CSeq or Contact is absent or malformed.
    #[error("malformed CSeq or Contact")]
    Malformed,
}

impl Refusal {
    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::OutOfOrder | Refusal::InProgress => 500,
            Refusal::Glare => 491,
            Refusal::Malformed => 400,
        }
    }

    /// The reason phrase.
    pub const fn reason(self) -> &'static str {
        match self {
            Refusal::OutOfOrder => "CSeq Out Of Order",
            Refusal::Glare => "Request Pending",
            Refusal::InProgress => "Previous INVITE Pending",
            Refusal::Malformed => "Bad CSeq Or Contact",
        }
    }

    /// The whole response, with the Retry-After of 0 to 10 s where section 14.2 wants one.
    pub fn respond(self, request: &Message, rng: &mut Rng) -> Message {
        let mut response = Message::reply(request, self.status(), self.reason());
        if self == Refusal::InProgress {
            response.push(HeaderName::RetryAfter, rng.below(11));
        }
        response
    }
}
