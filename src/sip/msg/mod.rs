//! SIP messages (RFC 3261): bytes to [`Message`] and back.
//!
//! Parsing only indexes: the start line and the extent of each field. Everything else ([`NameAddr`], [`Via`],
//! [`Uri`], lists, numbers) is a view made when asked for. The order of fields and every byte are kept, so a message
//! that is forwarded unchanged is bit-identical, and an edit changes the bytes of the edited field only.
//!
//! All header forms of RFC 3261 section 7.3 are read: compact names, folding, comma lists, quoted strings with
//! escapes, parameters, any method, IPv6 references and `tel:` URIs, URI headers, bodies of any bytes. Fields with
//! bytes that are no UTF-8 stay reachable as bytes; their text shows U+FFFD.
//!
//! [`Message::parse`] takes whatever can be indexed, so that a request with a fault can still be answered;
//! [`Message::validate`] tells the fault and the status for it. Where both the RFC allows leniency and it cannot be
//! misread by the next hop, we are lenient; a bare CR or LF in the header section is refused, since the next hop may
//! see another field there.
//!
//! Left out: bodies of type `multipart/*` are bytes like any other, `Date`, `Warning` and other fields that no
//! decision hangs on are text, and challenges and credentials are read in [`sip::auth`](crate::sip::auth).
//! Request-URIs of unknown schemes are valid here: the 416 for them is the user agent's.

mod addr;
mod edit;
mod error;
mod lex;
mod message;
mod method;
mod name;
mod params;
mod parse;
mod uri;
mod validate;
mod via;
mod view;

#[cfg(feature = "rsip")]
mod rsip;
#[cfg(test)]
mod tests;

pub use addr::NameAddr;
pub use error::ParseError;
pub use message::Message;
pub use method::Method;
pub use name::HeaderName;
pub use params::Params;
pub use uri::{Scheme, Uri};
pub use via::{CSeq, MAGIC_COOKIE, Via};
