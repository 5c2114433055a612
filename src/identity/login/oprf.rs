//! RFC 9497, mode OPRF, ristretto255-SHA512: one key's answer to an input that it never sees.

use crate::core::Rng;
use voprf::{BlindedElement, EvaluationElement, OprfClient, OprfServer, Ristretto255};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a group element.
pub const ELEMENT: usize = 32;

/// A holder's key for one user; never printed, erased when dropped.
#[derive(Clone)]
pub struct OprfKey(OprfServer<Ristretto255>);

impl OprfKey {
    /// A new key.
    pub fn generate(rng: &mut Rng) -> OprfKey {
        let mut seed = Zeroizing::new([0; 32]);
        loop {
            rng.fill(&mut *seed);
            if let Some(key) = OprfKey::derive(&seed, b"chordial login") {
                return key;
            }
        }
    }

    /// The key of a seed (RFC 9497 section 3.2.1); `None` with probability 2^-252.
    pub fn derive(seed: &[u8; 32], info: &[u8]) -> Option<OprfKey> {
        OprfServer::new_from_seed(seed, info).ok().map(OprfKey)
    }

    /// From its encoding; `None` for zero and for what is not reduced.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<OprfKey> {
        OprfServer::new_with_key(bytes).ok().map(OprfKey)
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut encoded = self.0.serialize();
        bytes.copy_from_slice(&encoded);
        encoded.as_mut_slice().zeroize();
        bytes
    }

    /// The answer to a blinded element; `None` when that is no element, or the neutral one.
    pub fn evaluate(&self, blinded: &[u8; ELEMENT]) -> Option<[u8; ELEMENT]> {
        let blinded = BlindedElement::deserialize(blinded).ok()?;
        let mut out = [0; ELEMENT];
        out.copy_from_slice(&self.0.blind_evaluate(&blinded).serialize());
        Some(out)
    }

    /// What [`Blinding::finish`] gives, for who has both key and input.
    pub fn output(&self, input: &[u8]) -> Option<Zeroizing<[u8; 64]>> {
        let mut out = Zeroizing::new([0; 64]);
        out.copy_from_slice(&self.0.evaluate(input).ok()?);
        Some(out)
    }
}

impl std::fmt::Debug for OprfKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OprfKey")
    }
}

/// An input under a factor that only its owner knows.
pub struct Blinding {
    state: OprfClient<Ristretto255>,
    blinded: [u8; ELEMENT],
}

impl Blinding {
    /// Blinds `input`; `None` when it is empty.
    pub fn new(input: &[u8], rng: &mut Rng) -> Option<Blinding> {
        let result = OprfClient::<Ristretto255>::blind(input, &mut Draws(rng)).ok()?;
        let mut blinded = [0; ELEMENT];
        blinded.copy_from_slice(&result.message.serialize());
        Some(Blinding { state: result.state, blinded })
    }

    /// What is sent.
    pub fn blinded(&self) -> [u8; ELEMENT] {
        self.blinded
    }

    /// The output for `input` under the key that made `evaluation`; `None` when that is no element.
    pub fn finish(&self, input: &[u8], evaluation: &[u8; ELEMENT]) -> Option<Zeroizing<[u8; 64]>> {
        let evaluation = EvaluationElement::deserialize(evaluation).ok()?;
        let mut out = Zeroizing::new([0; 64]);
        out.copy_from_slice(&self.state.finalize(input, &evaluation).ok()?);
        Some(out)
    }
}

impl std::fmt::Debug for Blinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blinding")
    }
}

/// Our generator as `voprf` wants one (rand_core 0.9).
struct Draws<'r>(&'r mut Rng);

impl rand_core_0_9::RngCore for Draws<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        self.0.fill(dst);
    }
}

impl rand_core_0_9::CryptoRng for Draws<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what the RFC prints in hexadecimal.
    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
    }

    /// Gives out one scalar, as the vectors fix it.
    struct Fixed([u8; 32]);

    impl rand_core_0_9::RngCore for Fixed {
        fn next_u32(&mut self) -> u32 {
            unreachable!("scalars are drawn as bytes")
        }
        fn next_u64(&mut self) -> u64 {
            unreachable!("scalars are drawn as bytes")
        }
        fn fill_bytes(&mut self, dst: &mut [u8]) {
            dst.copy_from_slice(&self.0);
        }
    }
    impl rand_core_0_9::CryptoRng for Fixed {}

    /// RFC 9497 appendix A.1.1.
    #[test]
    fn the_vectors_of_rfc_9497() {
        let key = OprfKey::derive(&[0xa3; 32], b"test key").expect("key");
        assert_eq!(*key.to_bytes(), hex("5ebcea5ee37023ccb9fc2d2019f9d7737be85591ae8652ffa9ef0f4d37063b0e"));
        let blind = hex("64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706");
        let vectors: [(&[u8], &str, &str, &str); 2] = [
            (
                &[0],
                "609a0ae68c15a3cf6903766461307e5c8bb2f95e7e6550e1ffa2dc99e412803c",
                "7ec6578ae5120958eb2db1745758ff379e77cb64fe77b0b2d8cc917ea0869c7e",
                "527759c3d9366f277d8c6020418d96bb393ba2afb20ff90df23fb7708264e2f3ab9135e3bd69955851de4b1f9fe8a0973396719b7912ba9ee8aa7d0b5e24bcf6",
            ),
            (
                &[0x5a; 17],
                "da27ef466870f5f15296299850aa088629945a17d1f5b7f5ff043f76b3c06418",
                "b4cbf5a4f1eeda5a63ce7b77c7d23f461db3fcab0dd28e4e17cecb5c90d02c25",
                "f4a74c9c592497375e796aa837e907b1a045d34306a749db9f34221f7e750cb4f2a6413a6bf6fa5e19ba6348eb673934a722a7ede2e7621306d18951e7cf2c73",
            ),
        ];
        for (input, blinded, evaluation, output) in vectors {
            let result = OprfClient::<Ristretto255>::blind(input, &mut Fixed(blind)).expect("input");
            let blinding = Blinding {
                state: result.state,
                blinded: result.message.serialize().as_slice().try_into().expect("32"),
            };
            assert_eq!(blinding.blinded(), hex(blinded));
            let evaluated = key.evaluate(&blinding.blinded()).expect("element");
            assert_eq!(evaluated, hex(evaluation));
            assert_eq!(*blinding.finish(input, &evaluated).expect("element"), hex(output));
            assert_eq!(*key.output(input).expect("input"), hex(output));
        }
    }

    #[test]
    fn what_is_no_element_is_not_evaluated() {
        let key = OprfKey::generate(&mut Rng::from_seed(1));
        for bad in [[0; 32], [0xff; 32], [1; 32]] {
            assert_eq!(key.evaluate(&bad), None, "{bad:?}");
        }
        assert!(OprfKey::from_bytes(&[0; 32]).is_none());
        assert!(OprfKey::from_bytes(&[0xff; 32]).is_none());
        let again = OprfKey::from_bytes(&key.to_bytes()).expect("own encoding");
        assert_eq!(again.output(b"x"), key.output(b"x"));
    }
}
