//! Ed25519 keys (RFC 8032), and what each signature is for.

use crate::core::{Redacted, Rng};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use zeroize::Zeroizing;

/// What a signature is for. The text and a zero byte stand before the signed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A certificate.
    Certificate,
    /// A record entry.
    Entry,
    /// The keys of a call's voice (`secure::Statement`).
    Media,
    /// A revocation.
    Revocation,
    /// A device's request for certificates.
    Certify,
    /// A message between people ([`Letter`](super::Letter)).
    Letter,
    /// Who calls, or who answers, across two overlays.
    CallProof,
    /// The renewal of record entries.
    Touch,
    /// A phone's secret for a further adapter.
    Phone,
    /// A device that asks another office to take it in.
    Move,
    /// One user's word about another's key ([`Introduction`](super::Introduction)).
    Introduction,
}

impl Purpose {
    /// The text that is signed in front.
    pub const fn text(self) -> &'static str {
        match self {
            Purpose::Certificate => "chordial certificate v1",
            Purpose::Entry => "chordial record entry v1",
            Purpose::Media => "chordial call keys v1",
            Purpose::Revocation => "chordial revocation v1",
            Purpose::Certify => "chordial request for certificates v1",
            Purpose::Letter => "chordial message v1",
            Purpose::CallProof => "chordial call proof v1",
            Purpose::Touch => "chordial record touch v1",
            Purpose::Phone => "chordial phone secret v1",
            Purpose::Move => "chordial request to move v1",
            Purpose::Introduction => "chordial introduction v1",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.text().len() + 1 + bytes.len());
        message.extend_from_slice(self.text().as_bytes());
        message.push(0);
        message.extend_from_slice(bytes);
        message
    }
}

/// A secret key and its public key; erased from memory when dropped, never printed.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// A new key from `rng`.
    pub fn generate(rng: &mut Rng) -> KeyPair {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed);
        KeyPair::from_seed(&seed)
    }

    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> KeyPair {
        KeyPair(SigningKey::from_bytes(seed))
    }

    /// The seed, for the identity file, the TLS certificate and the recovery sheet.
    pub fn seed(&self) -> Redacted<Zeroizing<[u8; 32]>> {
        Redacted::new(Zeroizing::new(self.0.to_bytes()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The X25519 secret that goes with [`PublicKey::agreement`]: the scalar of RFC 8032 section 5.1.5, unclamped.
    pub(super) fn agreement(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// Signs `bytes` for one purpose.
    pub fn sign(&self, purpose: Purpose, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(&purpose.message(bytes)).to_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.public())
    }
}

/// A public key, 32 bytes as RFC 8032 encodes it. Only a verified signature says that it is a key at all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// True when `signature` over `bytes` for `purpose` is this key's. Strict: no small-order keys, one form only.
    pub fn verify(&self, purpose: Purpose, bytes: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(&purpose.message(bytes), &Signature::from_bytes(signature)))
            .is_ok()
    }

    /// The same key as X25519 has it: the Montgomery u-coordinate by the birational map of RFC 7748 section 4.1. `None` for
    /// what is no key or one of small order.
    pub(super) fn agreement(&self) -> Option<[u8; 32]> {
        let key = VerifyingKey::from_bytes(&self.0).ok().filter(|key| !key.is_weak())?;
        Some(key.to_montgomery().to_bytes())
    }

    /// The first 8 bytes of the key's BLAKE3, to tell two claimants of one name apart; not a proof of anything.
    pub fn fingerprint(&self) -> [u8; 8] {
        let hash = blake3::derive_key("chordial key fingerprint v1", &self.0);
        [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
    }
}

impl fmt::Display for PublicKey {
    /// The short fingerprint, as people compare it: `1a2b-3c4d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.fingerprint();
        write!(f, "{:02x}{:02x}-{:02x}{:02x}", p[0], p[1], p[2], p[3])
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
