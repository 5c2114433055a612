//! Bytes to message and back.

use super::attribute::{Attribute, raw};
use super::attributes::{ErrorCode, Nonce, Realm, UnknownAttributes, Username};
use super::integrity::{Integrity, Key, fingerprint};
use bytecodec::{DecodeExt, EncodeExt};
use std::fmt;
use stun_codec::convert::TryAsRef;
use stun_codec::{AttributeType, MessageClass, MessageDecoder, MessageEncoder};
use subtle::ConstantTimeEq;

/// The magic cookie (RFC 8489 section 5).
pub(super) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// Of the header.
const HEADER: usize = 20;
/// Most attributes in one message.
const ATTRIBUTES: usize = 64;

/// Names a transaction.
pub type TransactionId = [u8; 12];

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Success.
    Success,
    /// Failure; ERROR-CODE says which.
    Error,
}

/// What a message is about (RFC 8489 section 18.2, RFC 8656 section 17, RFC 6062 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(pub u16);

impl Method {
    /// Binding.
    pub const BINDING: Method = Method(0x001);
    /// Allocate.
    pub const ALLOCATE: Method = Method(0x003);
    /// Refresh.
    pub const REFRESH: Method = Method(0x004);
    /// Send, an indication.
    pub const SEND: Method = Method(0x006);
    /// Data, an indication.
    pub const DATA: Method = Method(0x007);
    /// CreatePermission.
    pub const CREATE_PERMISSION: Method = Method(0x008);
    /// ChannelBind.
    pub const CHANNEL_BIND: Method = Method(0x009);
    /// Connect (RFC 6062).
    pub const CONNECT: Method = Method(0x00A);
    /// ConnectionBind (RFC 6062).
    pub const CONNECTION_BIND: Method = Method(0x00B);
    /// ConnectionAttempt, an indication (RFC 6062).
    pub const CONNECTION_ATTEMPT: Method = Method(0x00C);
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No STUN header, or a length that is not that of the bytes.
    #[error("no STUN message")]
    Header,
    /// An attribute goes over the end, or there are too many.
    #[error("attributes that do not add up")]
    Layout,
    /// FINGERPRINT is wrong or not the last.
    #[error("wrong fingerprint")]
    Fingerprint,
    /// An attribute's value cannot be read: 400 to a request.
    #[error("an attribute that cannot be read")]
    Value,
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is.
    pub class: Class,
    /// What about.
    pub method: Method,
    /// Of which transaction.
    pub id: TransactionId,
    attributes: Vec<Attribute>,
    extra: Vec<(u16, Vec<u8>)>,
}

/// How a message is closed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seal<'a> {
    /// Its integrity.
    pub key: Option<(&'a Key, Integrity)>,
    /// Whether FINGERPRINT follows.
    pub fingerprint: bool,
}

impl Message {
    /// Without attributes.
    pub fn new(class: Class, method: Method, id: TransactionId) -> Message {
        Message { class, method, id, attributes: Vec::new(), extra: Vec::new() }
    }

    /// The success answer to `self`.
    pub fn success(&self) -> Message {
        Message::new(Class::Success, self.method, self.id)
    }

    /// The error answer to `self`, with the RFC's words for it.
    pub fn error(&self, code: u16) -> Message {
        Message::refusal(self.method, self.id, code)
    }

    /// An error answer.
    pub fn refusal(method: Method, id: TransactionId, code: u16) -> Message {
        let mut message = Message::new(Class::Error, method, id);
        if let Ok(error) = ErrorCode::new(code, reason(code).to_owned()) {
            message.push(error);
        }
        message
    }

    /// Adds an attribute.
    pub fn push(&mut self, attribute: impl Into<Attribute>) {
        self.attributes.push(attribute.into());
    }

    /// Adds an attribute as bytes, after all others.
    pub fn push_raw(&mut self, kind: u16, value: &[u8]) {
        self.extra.push((kind, value.to_vec()));
    }

    /// The first attribute of a type.
    pub fn get<T>(&self) -> Option<&T>
    where
        Attribute: TryAsRef<T>,
    {
        self.attributes.iter().find_map(|a| a.try_as_ref())
    }

    /// All attributes of a type, in order.
    pub fn all<T>(&self) -> impl Iterator<Item = &T>
    where
        T: 'static,
        Attribute: TryAsRef<T>,
    {
        self.attributes.iter().filter_map(|a| a.try_as_ref())
    }

    /// The first attribute of a type that is kept as bytes.
    pub fn get_raw(&self, kind: u16) -> Option<&[u8]> {
        self.extra.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice())
    }

    /// The code of an error answer.
    pub fn error_code(&self) -> Option<u16> {
        self.get::<ErrorCode>().map(ErrorCode::code)
    }

    /// Attributes that must be understood and are not (420).
    pub fn not_understood(&self) -> Vec<u16> {
        let unknown = self.extra.iter().map(|(k, _)| *k);
        unknown.filter(|k| *k < 0x8000 && !raw::KNOWN.contains(k)).collect()
    }

    /// Adds UNKNOWN-ATTRIBUTES.
    pub fn push_unknown(&mut self, kinds: &[u16]) {
        self.push(UnknownAttributes::new(kinds.iter().map(|k| AttributeType::new(*k)).collect()));
    }

    /// Adds USERNAME, REALM and NONCE; each is left out where it is longer than the RFC lets it be.
    pub fn push_credential(&mut self, username: Option<&str>, realm: &str, nonce: &str) {
        if let Some(Ok(username)) = username.map(|u| Username::new(u.to_owned())) {
            self.push(username);
        }
        if let Ok(realm) = Realm::new(realm.to_owned()) {
            self.push(realm);
        }
        if let Ok(nonce) = Nonce::new(nonce.to_owned()) {
            self.push(nonce);
        }
    }

    /// The bytes. Empty if the attributes are longer than a message can be.
    pub fn encode(&self, seal: Seal<'_>) -> Vec<u8> {
        let class = match self.class {
            Class::Request => MessageClass::Request,
            Class::Indication => MessageClass::Indication,
            Class::Success => MessageClass::SuccessResponse,
            Class::Error => MessageClass::ErrorResponse,
        };
        let Ok(method) = stun_codec::Method::new(self.method.0) else { return Vec::new() };
        let mut message = stun_codec::Message::new(class, method, stun_codec::TransactionId::new(self.id));
        for attribute in &self.attributes {
            message.add_attribute(attribute.clone());
        }
        let Ok(mut bytes) = MessageEncoder::<Attribute>::new().encode_into_bytes(message) else { return Vec::new() };
        for (kind, value) in &self.extra {
            append(&mut bytes, *kind, value);
        }
        if let Some((key, integrity)) = seal.key {
            let Some(length) = length(&bytes, 4 + integrity.length()) else { return Vec::new() };
            let code = key.code(integrity, &bytes, length);
            append(&mut bytes, integrity.attribute(), &code);
        }
        if seal.fingerprint {
            let Some(length) = length(&bytes, 8) else { return Vec::new() };
            let crc = fingerprint(&bytes, length);
            append(&mut bytes, raw::FINGERPRINT, &crc.to_be_bytes());
        }
        let Some(length) = length(&bytes, 0) else { return Vec::new() };
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

fn length(bytes: &[u8], more: usize) -> Option<u16> {
    u16::try_from(bytes.len() - HEADER + more).ok()
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message as it came, with what is needed to check it.
#[derive(Clone)]
pub struct Parsed<'a> {
    /// What was read. Attributes behind the message integrity are not in it (RFC 8489 section 14.5).
    pub message: Message,
    bytes: &'a [u8],
    sha1: Option<usize>,
    /// Where it is and how long.
    sha256: Option<(usize, usize)>,
    /// True when FINGERPRINT was there, and right.
    pub fingerprint: bool,
}

impl fmt::Debug for Parsed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").field("message", &self.message).field("integrity", &self.integrity()).finish()
    }
}

/// Class, method and transaction of what has a STUN header.
pub fn header(bytes: &[u8]) -> Option<(Class, Method, TransactionId)> {
    let head: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if kind >= 0x4000 || head[4..8] != COOKIE || length % 4 != 0 || length + HEADER != bytes.len() {
        return None;
    }
    let class = match kind & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method = Method((kind & 0x000F) | ((kind & 0x00E0) >> 1) | ((kind & 0x3E00) >> 2));
    let mut id = [0; 12];
    id.copy_from_slice(&head[8..]);
    Some((class, method, id))
}

impl<'a> Parsed<'a> {
    /// Reads one whole message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(bytes: &'a [u8]) -> Result<Parsed<'a>, Fault> {
        let (class, method, id) = header(bytes).ok_or(Fault::Header)?;
        let (mut sha1, mut sha256, mut print) = (None, None, false);
        let (mut at, mut end, mut count) = (HEADER, bytes.len(), 0);
        let mut extra = Vec::new();
        while at < bytes.len() {
            let Some(&[k0, k1, l0, l1]) = bytes.get(at..at + 4) else { return Err(Fault::Layout) };
            let (kind, length) = (u16::from_be_bytes([k0, k1]), usize::from(u16::from_be_bytes([l0, l1])));
            let Some(value) = bytes.get(at + 4..at + 4 + length) else { return Err(Fault::Layout) };
            count += 1;
            if count > ATTRIBUTES || print {
                return Err(Fault::Layout);
            }
            let open = sha1.is_none() && sha256.is_none();
            match kind {
                raw::MESSAGE_INTEGRITY if open && length == 20 => sha1 = Some(at),
                raw::MESSAGE_INTEGRITY_SHA256 if sha256.is_none() && (16..=32).contains(&length) && length % 4 == 0 => {
                    sha256 = Some((at, length));
                }
                raw::FINGERPRINT if length == 4 => {
                    let crc = fingerprint(&bytes[..at], (at + 8 - HEADER) as u16);
                    if value != crc.to_be_bytes() {
                        return Err(Fault::Fingerprint);
                    }
                    print = true;
                }
                raw::MESSAGE_INTEGRITY | raw::MESSAGE_INTEGRITY_SHA256 | raw::FINGERPRINT if open => {
                    return Err(Fault::Layout);
                }
                _ if open && !decoded(kind) => extra.push((kind, value.to_vec())),
                _ => {}
            }
            if end == bytes.len() && (sha1.is_some() || sha256.is_some() || print) {
                end = at;
            }
            at += 4 + length.next_multiple_of(4);
        }
        if at != bytes.len() {
            return Err(Fault::Layout);
        }
        let mut message = Message { class, method, id, attributes: Vec::new(), extra };
        if end > HEADER {
            let mut head = bytes[..end].to_vec();
            head[2..4].copy_from_slice(&((end - HEADER) as u16).to_be_bytes());
            let read = MessageDecoder::<Attribute>::new().decode_from_bytes(&head);
            let read = read.map_err(|_| Fault::Value)?.map_err(|_| Fault::Value)?;
            message.attributes = read.attributes().cloned().collect();
        }
        Ok(Parsed { message, bytes, sha1, sha256, fingerprint: print })
    }

    /// The message integrity that is checked: the stronger where both are there.
    pub fn integrity(&self) -> Option<Integrity> {
        if self.sha256.is_some() { Some(Integrity::Sha256) } else { self.sha1.map(|_| Integrity::Sha1) }
    }

    /// Whether the message integrity holds under `key`; false where there is none.
    pub fn verify(&self, key: &Key) -> bool {
        let (integrity, at, length) = match (self.sha256, self.sha1) {
            (Some((at, length)), _) => (Integrity::Sha256, at, length),
            (None, Some(at)) => (Integrity::Sha1, at, Integrity::Sha1.length()),
            (None, None) => return false,
        };
        let code = key.code(integrity, &self.bytes[..at], (at + 4 + length - HEADER) as u16);
        let shown = &self.bytes[at + 4..at + 4 + length];
        code.get(..length).is_some_and(|code| bool::from(code.ct_eq(shown)))
    }
}

/// Whether `stun_codec` decodes it.
fn decoded(kind: u16) -> bool {
    use super::attributes::*;
    matches!(
        kind,
        MappedAddress::CODEPOINT
            | Username::CODEPOINT
            | ErrorCode::CODEPOINT
            | UnknownAttributes::CODEPOINT
            | Realm::CODEPOINT
            | Nonce::CODEPOINT
            | XorMappedAddress::CODEPOINT
            | Software::CODEPOINT
            | AlternateServer::CODEPOINT
            | Lifetime::CODEPOINT
            | XorPeerAddress::CODEPOINT
            | Data::CODEPOINT
            | XorRelayAddress::CODEPOINT
            | EvenPort::CODEPOINT
            | RequestedTransport::CODEPOINT
            | DontFragment::CODEPOINT
            | ReservationToken::CODEPOINT
            | RequestedAddressFamily::CODEPOINT
            | AdditionalAddressFamily::CODEPOINT
            | ResponseOrigin::CODEPOINT
            | OtherAddress::CODEPOINT
    )
}

/// The RFCs' words for a code.
fn reason(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthenticated",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        446 => "Connection Already Exists",
        447 => "Connection Timeout or Failure",
        486 => "Allocation Quota Reached",
        508 => "Insufficient Capacity",
        _ => "Server Error",
    }
}
