//! L1: who is who. Ed25519 keys, certificates and chains, signed record entries, invites and enrolment.
//!
//! Pure: the time is handed in as [`UnixTime`](crate::core::UnixTime), randomness as
//! [`Rng`](crate::core::Rng); nothing here reads a file or a socket.
//!
//! * In an **office** a root key, kept on paper, signs *enrollers*; an enroller signs the *user* (name
//!   and key) and the *peer* certificate of a device (its place on the ring, drawn by the enroller), and
//!   delegates standard phones to *adapters*; the user's key signs the user's *devices*.
//! * In an **open** overlay a user's key signs itself, and the peer-ID is the SHA-1 of the device's key.
//!
//! Everything signed is deterministic CBOR (RFC 8949 section 4.2.1: definite lengths, shortest integers)
//! made of arrays; what arrives is decoded, encoded again and refused unless both agree to the byte.
//! Each kind of signature covers a text of its own in front of the bytes ([`Purpose`]), so that no signature can be
//! shown for another. Ed25519 is checked strictly (RFC 8032, small-order keys refused).
//!
//! Left out, each to come with the work that needs it: revocation, renewal of certificates before they run out, the
//! password login, enrolment by a short code between two screens, asking an enroller for adapter certificates over a link.

mod armour;
mod cbor;
mod certificate;
mod chain;
mod code;
mod contact;
mod enrol;
mod enroller;
mod entry;
mod error;
mod key;
mod kind;
mod name;
mod own;
mod recovery;
mod touch;

pub use certificate::{Certificate, Claims};
pub use chain::{Chain, TrustAnchor, Verified, Verifier};
pub use code::{InviteCode, MAX_CODE_ADDRS, RootFingerprint};
pub use contact::ContactBody;
pub use enrol::{ENROLMENT_TYPE, JoinAnswer, JoinRequest, Joining};
pub use enroller::{Enroller, INVITE_LIFETIME, MAX_INVITES, MAX_SOURCES, MAX_WRONG_CODES, Member, THROTTLE_WINDOW};
pub use entry::{DictionaryKey, Entry, SignedEntry};
pub use error::{EnrolError, IdentityError, RecordError};
pub use key::{KeyPair, PublicKey, Purpose};
pub use kind::{EntryKind, KindRules, MayWrite};
pub use name::{aor, canonical_overlay, canonical_user, resource_key, split_aor};
pub use own::Identity;
pub use recovery::RecoverySheet;
pub use touch::{Touch, TouchOf, touch};

use std::time::Duration;

/// How far two clocks may disagree: a certificate counts from this much before its first second until this much after
/// its last, and an entry may have been issued this much in the future. The end of an entry's life is not stretched.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The longest life of a record entry of a kind that has no row of its own ([`KindRules`]).
pub const MAX_ENTRY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The life of a certificate issued here.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3653 * 24 * 3600);

#[cfg(test)]
mod enrol_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod tests;
