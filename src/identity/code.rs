//! The one-time code: what an administrator reads out and a joiner types in, or what one device of a user shows and the next one is
//! told.
//!
//! `kind and number of addresses (4 bits each) | secret (10) | fingerprint (16) | addresses`, the kind being 1 for an office's
//! invite (fingerprint of the root), 2 for a further device (fingerprint of the user's key) or 3 for a whole office (fingerprint of the root), an address `4` or `6`, the IP
//! address and the port; as text by base32 groups. With one IPv4 address: 15 groups.

use super::armour::{armour, unarmour};
use super::contact::{read_tagged_addrs, tagged_addrs};
use super::{EnrolError, PublicKey};
use crate::core::{Redacted, Rng};
use std::net::SocketAddr;

/// Most addresses in a code; more would be too long to type.
pub const MAX_CODE_ADDRS: usize = 3;

const SECRET: usize = 10;
const FINGERPRINT: usize = 16;

/// Whose code it is, and so who answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeKind {
    /// An enroller's: makes a new user of the office.
    Invite = 1,
    /// A user's: makes a further device of that user.
    Device = 2,
    /// An enroller's: takes another office in.
    Merge = 3,
}

/// 128 bits of BLAKE3 of an office's root key (or of a user's): nobody makes another key with the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RootFingerprint(pub [u8; FINGERPRINT]);

impl RootFingerprint {
    /// The fingerprint of `root`.
    pub fn of(root: &PublicKey) -> RootFingerprint {
        let mut out = [0; FINGERPRINT];
        out.copy_from_slice(&blake3::derive_key("chordial root fingerprint v1", &root.0)[..FINGERPRINT]);
        RootFingerprint(out)
    }
}

/// A one-time code, good for one device. `Debug` does not show the secret; [`InviteCode::text`] does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InviteCode {
    /// Who answers it.
    pub kind: CodeKind,
    secret: Redacted<[u8; SECRET]>,
    /// By what the joiner knows who answers: the office's root, or the user's key.
    pub root: RootFingerprint,
    /// Where the enroller answers, best first; at most three.
    pub addrs: Vec<SocketAddr>,
}

impl InviteCode {
    /// A code with a new secret of 80 bits. Surplus addresses are left out.
    pub fn generate(root: RootFingerprint, addrs: &[SocketAddr], rng: &mut Rng) -> InviteCode {
        InviteCode::of_kind(CodeKind::Invite, root, addrs, rng)
    }

    /// The same of either kind.
    pub fn of_kind(kind: CodeKind, root: RootFingerprint, addrs: &[SocketAddr], rng: &mut Rng) -> InviteCode {
        let mut secret = [0; SECRET];
        rng.fill(&mut secret);
        let addrs = addrs.iter().copied().take(MAX_CODE_ADDRS).collect();
        InviteCode { kind, secret: Redacted::new(secret), root, addrs }
    }

    /// The code as it is read out, with its secret.
    pub fn text(&self) -> String {
        let mut bytes = vec![(self.kind as u8) << 4 | self.addrs.len() as u8];
        bytes.extend_from_slice(self.secret.reveal());
        bytes.extend_from_slice(&self.root.0);
        bytes.extend(tagged_addrs(&self.addrs));
        armour(&bytes)
    }

    /// Reads what was typed: any case, blanks for dashes, O for 0 and the like.
    pub fn parse(text: &str) -> Result<InviteCode, EnrolError> {
        let bytes = unarmour(text)?;
        InviteCode::read(&bytes).ok_or(EnrolError::NotACode)
    }

    /// What an enroller finds the invite by; says nothing about the secret to who does not have it.
    pub(super) fn name(&self) -> [u8; 8] {
        let hash = blake3::derive_key("chordial invite name v1", self.secret.reveal());
        [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
    }

    /// The key of the proof that a request comes from who has the code.
    pub(super) fn proof_key(&self) -> [u8; 32] {
        let mut material = self.secret.reveal().to_vec();
        material.extend_from_slice(&self.root.0);
        blake3::derive_key("chordial invite proof v1", &material)
    }

    /// The key under which a device's answer to `request` seals what nobody else may read.
    pub(super) fn seal_key(&self, request: &[u8]) -> [u8; 32] {
        let mut material = self.secret.reveal().to_vec();
        material.extend_from_slice(&self.root.0);
        material.extend_from_slice(blake3::hash(request).as_bytes());
        blake3::derive_key("chordial device code seal v1", &material)
    }

    fn read(bytes: &[u8]) -> Option<InviteCode> {
        let (head, rest) = bytes.split_first()?;
        let (secret, rest) = rest.split_first_chunk::<SECRET>()?;
        let (root, rest) = rest.split_first_chunk::<FINGERPRINT>()?;
        let count = usize::from(head & 15);
        let kind = match head >> 4 {
            1 => CodeKind::Invite,
            2 => CodeKind::Device,
            3 => CodeKind::Merge,
            _ => return None,
        };
        if count > MAX_CODE_ADDRS {
            return None;
        }
        let (addrs, rest) = read_tagged_addrs(rest, count)?;
        rest.is_empty().then(|| InviteCode {
            kind,
            secret: Redacted::new(*secret),
            root: RootFingerprint(*root),
            addrs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_out_and_typed_in() {
        let root = RootFingerprint([7; 16]);
        let addrs: Vec<SocketAddr> =
            ["192.0.2.1:5081", "[2001:db8::1]:5081"].map(|a| a.parse().expect("address")).into();
        let mut rng = Rng::from_seed(3);
        for n in 0..=2 {
            let code = InviteCode::generate(root, &addrs[..n], &mut rng);
            let text = code.text();
            assert_eq!(InviteCode::parse(&text), Ok(code.clone()));
            assert_eq!(InviteCode::parse(&format!("  {}\n", text.to_lowercase())), Ok(code.clone()));
            assert!(!format!("{code:?}").contains(&format!("{:?}", code.secret.reveal())));
        }
        let code = InviteCode::generate(root, &addrs[..1], &mut rng);
        assert_eq!(code.text().split('-').count(), 15);
        assert_ne!(code.name(), InviteCode::generate(root, &addrs[..1], &mut rng).name());
    }
}
