//! L1: STUN messages (RFC 8489), TURN's among them (RFC 8656, 6062), and its ChannelData.
//!
//! Attributes are coded by the crate `stun_codec`. What it lacks or does by encoding anew what it had decoded stands here, over the bytes as
//! they came: the frame, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6) and FINGERPRINT.
//!
//! | file | what |
//! |---|---|
//! | `classify` | what kind of packet came to a shared socket (RFC 7983, 9443) |
//! | `attribute` | the attributes that are known, and those that are kept as bytes |
//! | `message` | bytes to message and back |
//! | `integrity` | keys of credentials, message integrity, fingerprint |
//! | `channel` | ChannelData, Send and Data indications, and both kinds of messages in a stream |
//!
//! Left out: SASLprep of names and passwords (ours are ASCII), USERHASH, attributes of RFC 3489 without a use today.

mod attribute;
mod channel;
mod classify;
mod integrity;
mod message;

pub use attribute::{Attribute, raw};
pub use channel::{
    CHANNEL_HEADER, Framer, INDICATION_OVERHEAD, StreamFault, channel_data, is_channel, read_channel, read_send,
    write_channel_header, write_data,
};
pub use classify::{Kind, classify};
pub use integrity::{Integrity, Key};
pub use message::{Class, Fault, Message, Method, Parsed, Seal, TransactionId, header};
/// The attributes themselves.
pub mod attributes {
    pub use stun_codec::rfc5389::attributes::{
        AlternateServer, ErrorCode, MappedAddress, Nonce, Realm, Software, UnknownAttributes, Username,
        XorMappedAddress,
    };
    pub use stun_codec::rfc5766::attributes::{
        Data, DontFragment, EvenPort, Lifetime, RequestedTransport, ReservationToken, XorPeerAddress, XorRelayAddress,
    };
    pub use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
    pub use stun_codec::rfc8656::attributes::{AdditionalAddressFamily, RequestedAddressFamily};
}

#[cfg(test)]
mod tests;
