//! The attributes that are decoded.

use super::attributes::*;
use stun_codec::define_attribute_enums;

define_attribute_enums!(
    Attribute,
    AttributeDecoder,
    AttributeEncoder,
    [
        MappedAddress,
        Username,
        ErrorCode,
        UnknownAttributes,
        Realm,
        Nonce,
        XorMappedAddress,
        Software,
        AlternateServer,
        Lifetime,
        XorPeerAddress,
        Data,
        XorRelayAddress,
        EvenPort,
        RequestedTransport,
        DontFragment,
        ReservationToken,
        RequestedAddressFamily,
        AdditionalAddressFamily,
        ResponseOrigin,
        OtherAddress
    ]
);

/// Attributes that are kept as bytes.
pub mod raw {
    /// CHANGE-REQUEST (RFC 5780 section 7.2): the last byte holds [`CHANGE_IP`] and [`CHANGE_PORT`]. `stun_codec` 0.4 reads it by
    /// other bits than it writes.
    pub const CHANGE_REQUEST: u16 = 0x0003;
    /// The answer is to come from the other address.
    pub const CHANGE_IP: u8 = 4;
    /// The answer is to come from the other port.
    pub const CHANGE_PORT: u8 = 2;
    /// CHANNEL-NUMBER (RFC 8656 section 18.1): the number and two bytes of nothing. `stun_codec` refuses numbers that older clients use.
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    /// MESSAGE-INTEGRITY (RFC 8489 section 14.5).
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6).
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    /// PASSWORD-ALGORITHM (RFC 8489 section 14.12).
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    /// CONNECTION-ID (RFC 6062 section 6.2.1).
    pub const CONNECTION_ID: u16 = 0x002A;
    /// PASSWORD-ALGORITHMS (RFC 8489 section 14.11).
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    /// ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    /// FINGERPRINT (RFC 8489 section 14.7).
    pub const FINGERPRINT: u16 = 0x8028;
    /// Those that have a meaning here though they are not decoded.
    pub const KNOWN: [u16; 6] =
        [CHANGE_REQUEST, CHANNEL_NUMBER, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, CONNECTION_ID, ADDRESS_ERROR_CODE];
}
