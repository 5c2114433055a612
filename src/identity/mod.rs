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
//! What is meant for a device's eyes is sealed to its key ([`seal`]); what people write to each other is signed by the sender's
//! device first ([`Letter`]).
//!
//! What counts no more is said by signed [`Revocation`]s, which every peer keeps ([`Revocations`]) and every [`Verifier`] heeds.
//! Certificates are renewed by any enroller ([`CertifyRequest`]) in the year before they run out; enrollers keep one [`Book`].
//!
//! Whoever belongs to another overlay is a [`Foreign`]: a chain that holds in itself, to be compared with what a
//! [`ContactLink`] said or what was met before ([`Acquaintances`]); a [`CallProof`] in a request and in its answer shows
//! each end's key to the other, whoever carries the messages. Where a name is nobody's (an open overlay) the same book of
//! acquaintances says which of several keys is meant ([`Choice`]); a contact's [`Introduction`] may bring one more.
//!
//! An office may be taken into another ([`MergeOffer`], [`Merges`]): a statement of its own says where it continues ([`Successor`]), and
//! each device is certified there by showing who it was ([`MoveAsk`]).
//!
//! Left out: hearing of revocations in other overlays.

mod acquaintances;
mod admit;
mod armour;
mod backup;
mod blob;
mod book;
mod cbor;
mod certificate;
mod certify;
mod chain;
mod code;
mod contact;
mod device;
mod enrol;
mod enroller;
mod entry;
mod error;
mod foreign;
mod introduced;
mod introduction;
mod key;
mod kind;
mod lease;
mod letter;
mod link;
pub mod login;
mod mailbox;
mod merge;
mod name;
mod own;
mod owner;
mod pairing;
mod phone;
mod pins;
mod proof;
mod reconcile;
mod recovery;
mod revocation;
mod seal;
mod settings;
mod successor;
mod throttle;
mod touch;
mod word;

pub use acquaintances::{Acquaintances, Block, Contact, FullError, Knock, Known, MAX_CONTACTS, MAX_KNOCKS, Standing};
pub use admit::{MERGE_CODE_LIFETIME, Merges};
pub use backup::{BackupError, open_backup, seal_backup};
pub use blob::{
    BLOB_LIST, BlobBody, BlobRef, CHUNK, ChunkBody, ChunkHash, MAX_BLOB, chunk_aor, open_chunk, pack_names, seal_chunk,
    unpack_names,
};
pub use book::{BOOK_TYPE, Book, BookAsk, BookDevice, MAX_BOOK};
pub use certificate::{Certificate, Claims};
pub use certify::{CERTIFY_TYPE, Certified, CertifyAnswer, CertifyRequest, MAX_ASKED};
pub use chain::{Chain, TrustAnchor, Verified, Verifier};
pub use code::{CodeKind, InviteCode, MAX_CODE_ADDRS, RootFingerprint};
pub use contact::ContactBody;
pub use device::{DEVICE_CODE_LIFETIME, DeviceAnswer, DeviceCodes, MAX_DEVICE_CODES};
pub use enrol::{ENROLMENT_TYPE, JoinAnswer, JoinRequest, Joining};
pub use enroller::{ENROLLERS, Enroller, INVITE_LIFETIME, MAX_INVITES, MAX_SOURCES, MAX_WRONG_CODES, THROTTLE_WINDOW};
pub use entry::{DictionaryKey, Entry, SignedEntry};
pub use error::{EnrolError, IdentityError, RecordError};
pub use foreign::{Expect, Foreign, KeyFingerprint, Proven, Root};
pub use introduced::{Heard, Introduced, MAX_INTRODUCTIONS};
pub use introduction::{INTRODUCTION_LIFE, INTRODUCTION_SCHEME, Introduction, SignedIntroduction};
pub use key::{KeyPair, PublicKey, Purpose};
pub use kind::{EntryKind, KindRules, MayWrite};
pub use lease::{LEASE_LIFETIME, LONGEST_LEASE, LeaseBody, SHORTEST_LEASE, lease_aor};
pub use letter::{Letter, LetterId, MAX_TEXT, SignedLetter};
pub use link::{ContactLink, LINK_SCHEME, RingToken};
pub use mailbox::{DeviceBody, MAX_ACKS, MAX_WAITING, Waiting, WaitingBody};
pub use merge::{MERGE_LIFETIME, MERGE_TYPE, MergeOffer, MergeTerms, MoveAnswer, MoveAsk, Named};
pub use name::{aor, canonical_overlay, canonical_user, resource_key, split_aor};
pub use own::Identity;
pub use owner::{OWNER_TYPE, OwnerAnswer, OwnerAsk};
pub use pairing::{
    MAX_PAIRING_TRIES, PAIRING_TYPE, PairingAnswer, PairingInviter, PairingJoiner, PairingKey, PairingRequest,
    ShortCode,
};
pub use phone::{DigestSecret, MAX_SHARED, PHONE_TYPE, PhoneShare, PhoneWord};
pub use pins::{Choice, KeyHint, choose, told_apart};
pub use proof::{CallProof, PROOF_HEADER, Said, Side};
pub use reconcile::{Ask, ItemId, Reconciled, Reply};
pub use recovery::RecoverySheet;
pub use revocation::{
    MAX_OFFICE_REVOCATIONS, MAX_REVOCATIONS_PER_USER, MAX_ROOT_REVOCATIONS, MAX_USER_REVOCATIONS, Noted,
    REVOCATIONS_TYPE, Revocation, Revocations, Revoked, RevokedKey,
};
pub use seal::{MAX_RECIPIENTS, SealError, open, seal};
pub use settings::{MAX_PART, MAX_SETTING, SETTINGS, SETTINGS_PARTS, Settings, settings_aor};
pub use successor::{Former, MAX_MERGED, Successor};
pub use touch::{Touch, TouchOf, touch};
pub use word::{MAX_KEPT, Word};

use std::time::Duration;

/// How far two clocks may disagree: a certificate counts from this much before its first second until this much after
/// its last, and an entry may have been issued this much in the future. The end of an entry's life is not stretched.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The longest life of a record entry of a kind that has no row of its own ([`KindRules`]).
pub const MAX_ENTRY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The life of a certificate issued here.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3653 * 24 * 3600);

#[cfg(test)]
mod damage;
#[cfg(test)]
mod enrol_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
