//! What can be wrong, and with whom.

use thiserror::Error;

/// A name, certificate, chain or identity file that cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IdentityError {
    /// Bytes that are no encoding of what was expected; names the thing.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Another encoding than the one canonical one; names the thing.
    #[error("{0} is not in canonical encoding")]
    NotCanonical(&'static str),
    /// Larger than allowed; names the thing.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// A user name outside `a-z 0-9 . _ + -` or longer than 64.
    #[error("a user name is 1 to 64 of the characters a-z 0-9 . _ + -")]
    UserName,
    /// An overlay name that is no host name.
    #[error("an overlay name is 1 to 63 of the characters a-z 0-9 . - and starts and ends with a letter or digit")]
    OverlayName,
    /// A device label longer than 64 bytes or with control characters.
    #[error("a device label has at most 64 bytes and no control characters")]
    Label,
    /// A certificate or link key does not verify.
    #[error("signature of the {0} certificate does not verify")]
    Signature(&'static str),
    /// The chain lacks a certificate, or has it in another order.
    #[error("the chain has no {0} certificate where it belongs")]
    Shape(&'static str),
    /// Signed by another key than the one that may.
    #[error("the {0} certificate is issued by another key than the one that may")]
    Issuer(&'static str),
    /// For another overlay.
    #[error("the certificate belongs to another overlay")]
    Overlay,
    /// Signed later than now, beyond the tolerated difference of clocks.
    #[error("the {0} is of a time to come: one of two clocks is wrong")]
    NotYetValid(&'static str),
    /// Valid no more.
    #[error("the {0} certificate has expired")]
    Expired(&'static str),
    /// Taken back by who may: the office or the user itself.
    #[error("the {0} is revoked")]
    Revoked(&'static str),
    /// A call's proof that does not hold; says in what.
    #[error("the proof of the caller or callee {0}")]
    Proof(&'static str),
    /// This identity may not sign what was asked.
    #[error("this identity may not sign for that name")]
    NotOurs,
}

/// Why a record entry is refused. All of it is the fault of the one who sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RecordError {
    /// Bytes that are no entry.
    #[error("malformed entry")]
    Malformed,
    /// Another encoding than the canonical one.
    #[error("entry is not in canonical encoding")]
    NotCanonical,
    /// Above `limits::RECORD_ENTRY`, or its body above what its kind allows.
    #[error("entry is too large")]
    TooLarge,
    /// The signer's chain does not verify.
    #[error("signer's chain: {0}")]
    Chain(#[from] IdentityError),
    /// The entry names another device than the chain does.
    #[error("entry names another device than its chain")]
    Device,
    /// The device's signature does not verify.
    #[error("signature of the entry does not verify")]
    Signature,
    /// The signer may not write this kind of entry under this AOR.
    #[error("signer may not speak for this address")]
    Aor,
    /// The AOR's domain is another overlay.
    #[error("entry belongs to another overlay")]
    Overlay,
    /// The key is not the SHA-1 of the AOR.
    #[error("entry is not at the key of its address")]
    Key,
    /// Issued in the future, beyond the tolerated difference of clocks.
    #[error("entry is issued in the future")]
    Future,
    /// Lives for no time or for longer than its kind allows ([`KindRules`](super::KindRules)).
    #[error("entry's lifetime is out of bounds")]
    Lifetime,
    /// Past its life.
    #[error("entry has expired")]
    Expired,
}

/// Why an invite or an enrolment failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EnrolError {
    /// The enroller's one answer to every code that it does not honour: wrong, used, expired or asked too often.
    #[error("the code is not valid")]
    Refused,
    /// The code does not check: mistyped.
    #[error("the code is mistyped: group {0} or near it")]
    Typo(usize),
    /// Not a code at all, or of a later version.
    #[error("not an invite code of this version")]
    NotACode,
    /// The name is taken (said to the administrator only).
    #[error("that name or extension is taken")]
    Taken,
    /// Too many invites are open.
    #[error("too many invites are open")]
    Full,
    /// The answer comes from somebody whom the code's root did not make an enroller.
    #[error("the answering peer is no enroller of the office that the code is for")]
    NotTheOffice,
    /// Names, certificates or encodings.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}
