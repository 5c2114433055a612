//! Logging in anywhere with name and password, without a login server: how a user's key is sealed under a password so that
//! nobody can guess offline, and what the supernodes that help to open it have and see.
//!
//! It is a password-protected secret sharing (Jarecki, Kiayias, Krawczyk, Xu: "Highly-Efficient and Composable Password-Protected
//! Secret Sharing", 2016), with Argon2id behind each oblivious answer:
//!
//! * a random *sealing key* seals the user's key; it is split 2 of 4 (Shamir, over GF(256) byte by byte);
//! * share *i* is masked (XOR) with `Argon2id(OPRF(k_i, password))`, RFC 9497 in mode OPRF over ristretto255 and RFC 9106;
//! * the OPRF keys `k_1..k_4` are drawn by the user's device and given to one supernode each ([`ShareBook`]), which never learns
//!   more than its own; everything else is public among members and lies in the overlay ([`Credential`], kind 2);
//! * who logs in ([`LoginAttempt`]) blinds the password, has it evaluated under each key, unmasks, joins two shares and opens.
//!
//! **Why a mask and no seal on a share.** One share alone is a uniformly random string, so a mask that is taken off with a wrong
//! password gives another random string: a holder that knows its own `k_i` cannot tell a right guess from a wrong one. An
//! authenticated seal there would hand every single holder an offline test.
//!
//! **Why the office need not be known.** Whoever logs in on a strange machine does not know the office's root key. It is inside what
//! the sealing key seals, and nobody who does not know the password can make a seal that opens under it; the key is committed to
//! (a hash of it stands in front), so that one seal cannot be made to open under many passwords' keys. A false office can hand
//! over the true office's records and still is not taken for it: the root in there is not its own, and the link is checked against
//! that root before anything is kept. What it gets is at most one guess for each pair of shares, six an attempt.
//!
//! **The limits.** Two holders of different shares that collude (or whoever takes over both) can guess offline, at two
//! Argon2id runs a guess. One cannot. A device of the user can, and has the user's key already. The new sealing key of a changed password
//! is worth as much as the holders' forgetting the old `k_i`: each of them drops it when told, and is told again until it has.

mod attempt;
mod book;
mod credential;
mod decoy;
mod messages;
mod oprf;
mod share;
mod throttle;

pub use attempt::{LoginAnswer, LoginAttempt, LoginError, LoginRequest, Recovered};
pub use book::{Held, MAX_HELD, ShareBook};
pub use credential::{Credential, Owned, PasswordParts};
pub use decoy::Decoys;
pub use messages::{SHARE_TYPE, ShareAnswer, ShareRequest};
pub use oprf::{Blinding, ELEMENT, OprfKey};
pub use throttle::{Attempts, MAX_TRACKED};

use super::{EntryKind, IdentityError, canonical_overlay, canonical_user};
use crate::core::Id;
use zeroize::Zeroizing;

/// Content type of what a stranger asks with and is answered with.
pub const LOGIN_TYPE: &str = "application/chordial-login+cbor";
/// Shares of a sealing key.
pub const SHARES: usize = 4;
/// Shares that open it.
pub const THRESHOLD: usize = 2;

/// What Argon2id (RFC 9106) costs: memory in KiB, passes over it, lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory, KiB.
    pub memory: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// What version 1 uses: the second recommendation of RFC 9106 section 4. Part of the format: both ends have to use the same.
pub const COST: Cost = Cost { memory: 64 * 1024, passes: 3, lanes: 4 };
/// For tests: what has to be right, for next to nothing.
pub const CHEAP: Cost = Cost { memory: 32, passes: 1, lanes: 1 };

/// Where a user's credential entries lie: a resource of its own, so that they do not crowd out the user's contacts.
pub fn credential_aor(user: &str, overlay: &str) -> String {
    format!("sip:{user}+login@{overlay}")
}

/// The ring position by which the holder of a share is chosen: the peer responsible for it. More positions than shares
/// are used where one peer is responsible for several.
pub fn share_position(user: &str, overlay: &str, number: u8) -> Id {
    Id::sha1(format!("chordial credential share;{number};sip:{user}@{overlay}").as_bytes())
}

/// What the OPRF is evaluated on: nothing of one user's record helps with another's, whatever the passwords.
fn oprf_input(user: &str, overlay: &str, password: &str) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let aor = format!("sip:{}@{}", canonical_user(user)?, canonical_overlay(overlay)?);
    let mut hasher = blake3::Hasher::new_derive_key("chordial login password v1");
    hasher.update(aor.as_bytes()).update(&[0]).update(password.as_bytes());
    Ok(Zeroizing::new(hasher.finalize().as_bytes().to_vec()))
}

/// The mask of share `number` (from 1): Argon2id over the OPRF's output.
fn mask(output: &[u8; 64], number: u8, cost: Cost) -> Option<Zeroizing<[u8; 32]>> {
    let params = argon2::Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).ok()?;
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut salt = *b"chordial share 0";
    salt[15] = b'0' + number;
    let mut mask = Zeroizing::new([0; 32]);
    argon.hash_password_into(output, &salt, &mut *mask).ok()?;
    Some(mask)
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Entries of this module's kind.
pub const CREDENTIAL: EntryKind = EntryKind::Other(2);

#[cfg(test)]
mod tests;
