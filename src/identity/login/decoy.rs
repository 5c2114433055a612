//! Answers for names that nobody has: the same bytes for the same name at every supernode, and in shape what a known name gets.

use super::credential::SEALED;
use super::oprf::OprfKey;
use super::{ELEMENT, LoginAnswer, SHARES};
use crate::core::Rng;
use zeroize::Zeroizing;

/// A secret that all supernodes of an office have in common and no stranger knows. It protects nothing but the list of
/// names: with it, unknown names can be told from known ones.
#[derive(Clone, PartialEq, Eq)]
pub struct Decoys(Zeroizing<[u8; 32]>);

impl Decoys {
    /// A new secret, for the first supernode of an office.
    pub fn generate(rng: &mut Rng) -> Decoys {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill(&mut *secret);
        Decoys(secret)
    }

    /// The secret of the others.
    pub fn from_bytes(secret: [u8; 32]) -> Decoys {
        Decoys(Zeroizing::new(secret))
    }

    /// For the others, members all.
    pub fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// What `user` is answered, who does not exist.
    pub fn answer(&self, user: &str, blinded: &[u8; ELEMENT]) -> Option<LoginAnswer> {
        let mut sealed = vec![0; SEALED];
        self.derive(user, b"seal").fill(&mut sealed);
        let mut shares = [([0; 32], [0; ELEMENT]); SHARES];
        for (n, share) in shares.iter_mut().enumerate() {
            self.derive(user, &[b'm', n as u8]).fill(&mut share.0);
            share.1 = self.evaluate(user, n, blinded)?;
        }
        Some(LoginAnswer { sealed, shares })
    }

    /// What stands in for the answer of a holder that has none.
    pub fn evaluate(&self, user: &str, number: usize, blinded: &[u8; ELEMENT]) -> Option<[u8; ELEMENT]> {
        let mut seed = Zeroizing::new([0; 32]);
        self.derive(user, &[b'k', number as u8]).fill(&mut *seed);
        OprfKey::derive(&seed, b"chordial login")?.evaluate(blinded)
    }

    fn derive(&self, user: &str, what: &[u8]) -> blake3::OutputReader {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"chordial login decoy v1").update(&[0]).update(what).update(&[0]).update(user.as_bytes());
        hasher.finalize_xof()
    }
}

impl std::fmt::Debug for Decoys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoys")
    }
}
