//! Entries as a body, and the Contact fields beside it.

use super::{CarryError, RECORD_TYPE};
use crate::core::limits;
use crate::identity::{ContactBody, EntryKind, SignedEntry};
use crate::sip::msg::{Message, Uri};

/// Entries read from one message.
const MAX_ENTRIES: u64 = 256;

pub(super) fn push_entries(message: &mut Message, entries: &[SignedEntry]) {
    let mut body = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut body);
    // Writing to a vector does not fail.
    let _ = encoder.array(entries.len() as u64);
    for entry in entries {
        let _ = encoder.bytes(entry.encoded());
    }
    message.set_body(RECORD_TYPE, body);
}

/// The entries of a body; unverified. `MediaType` when it is another body or none.
pub(super) fn read_entries(message: &Message) -> Result<Vec<SignedEntry>, CarryError> {
    if message.body().is_empty() || !message.content_is(RECORD_TYPE) {
        return Err(CarryError::MediaType);
    }
    let mut decoder = minicbor::Decoder::new(message.body());
    let count = decoder.array().ok().flatten().filter(|n| *n <= MAX_ENTRIES).ok_or(CarryError::Body)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let bytes = decoder.bytes().map_err(|_| CarryError::Body)?;
        if bytes.len() > limits::RECORD_ENTRY {
            return Err(CarryError::Body);
        }
        entries.push(SignedEntry::decode(bytes).map_err(|_| CarryError::Body)?);
    }
    if decoder.position() == message.body().len() { Ok(entries) } else { Err(CarryError::Body) }
}

/// One Contact for each entry: where a contact entry points to; a removal as `expires=0`.
pub(super) fn push_contacts(message: &mut Message, entries: &[SignedEntry]) {
    for entry in entries {
        let e = entry.entry();
        let user = Uri::parse(&e.aor).ok().and_then(|u| u.user_unescaped().map(|u| u.into_owned()));
        let addr = match e.kind {
            EntryKind::Contact => ContactBody::decode(&e.body).ok().and_then(|b| b.addrs.first().copied()),
            EntryKind::Other(_) => None,
        };
        let uri = match addr {
            Some(addr) => Uri::sip(user.as_deref(), &addr.ip().to_string(), Some(addr.port())),
            None => Uri::sip(user.as_deref(), "0.0.0.0", None),
        };
        let expires = if e.is_removal() { 0 } else { e.lifetime };
        message.push("Contact", format_args!("<{uri}>;expires={expires}"));
    }
}
