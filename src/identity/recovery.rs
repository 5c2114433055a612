//! The root key on paper.

use super::armour::{armour, unarmour};
use super::{Certificate, Claims, EnrolError, IdentityError, KeyPair, PublicKey, canonical_overlay};
use crate::core::{Rng, UnixTime};
use zeroize::Zeroizing;

const MARK: u8 = 0xc1;

/// An office's name and root key, to be printed once and kept off all machines. Whoever holds it can make enrollers.
#[derive(Clone, Debug)]
pub struct RecoverySheet {
    overlay: String,
    root: KeyPair,
}

impl RecoverySheet {
    /// A new root for an office called `overlay`.
    pub fn generate(overlay: &str, rng: &mut Rng) -> Result<RecoverySheet, IdentityError> {
        Ok(RecoverySheet { overlay: canonical_overlay(overlay)?, root: KeyPair::generate(rng) })
    }

    /// The secret as 14 groups of symbols, for paper. The office's name is not in it and is written beside it.
    pub fn secret_text(&self) -> String {
        let mut bytes = Zeroizing::new(vec![MARK]);
        bytes.extend_from_slice(&**self.root.seed().reveal());
        armour(&bytes)
    }

    /// Reads the sheet back.
    pub fn parse(overlay: &str, secret_text: &str) -> Result<RecoverySheet, EnrolError> {
        let bytes = Zeroizing::new(unarmour(secret_text)?);
        let seed: Option<&[u8; 32]> = bytes.strip_prefix(&[MARK]).and_then(|seed| seed.try_into().ok());
        let root = KeyPair::from_seed(seed.ok_or(EnrolError::NotACode)?);
        Ok(RecoverySheet { overlay: canonical_overlay(overlay)?, root })
    }

    /// The office's name.
    pub fn overlay(&self) -> &str {
        &self.overlay
    }

    /// The office's root key, public half.
    pub fn root(&self) -> PublicKey {
        self.root.public()
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.root
    }

    /// Makes `enroller` an enroller of the office.
    pub fn sign_enroller(&self, enroller: PublicKey, now: UnixTime) -> Result<Certificate, IdentityError> {
        Certificate::issue(&self.root, enroller, &self.overlay, Claims::Enroller, now)
    }
}
