//! Sealing bytes to devices: whoever carries them sees for how many they are and how long they are, nothing else.
//!
//! `[1, [[hint, encapsulated key, sealed key]...], ciphertext]`: the content under a key of its own (ChaCha20-Poly1305, nonce
//! zero, since the key encrypts one thing), that key sealed to each device by HPKE (RFC 9180) in base mode:
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. `info` is `chordial sealed v1`, a zero byte and what the
//! content is for, so that one use cannot be shown for another; the associated data of each sealed key is the BLAKE3 of
//! the ciphertext, so that none of the recipients can put another content under the same keys. The hint, the first 8 bytes of the
//! device key's fingerprint, saves a device from trying all.
//!
//! A device's X25519 key is its Ed25519 key under the birational map of RFC 7748 section 4.1, not a second key. Whoever
//! holds a certificate chain can then seal to its device at once, nothing has to be looked up and certificates stay as they are;
//! Ed25519 and a DHKEM over X25519 with one key are secure together (Thormarker, ePrint 2021/509: signatures and the
//! KEM hash what they take under different domains).
//!
//! The sender is not proven by this: what is sealed carries a signature where that matters ([`Letter`](super::Letter)).

use super::cbor::{Reader, Writer, canonical};
use super::{IdentityError, KeyPair, PublicKey};
use crate::core::Rng;
use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hpke::aead::ChaCha20Poly1305 as HpkeAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use thiserror::Error;
use zeroize::Zeroizing;

const WHAT: &str = "sealed content";
/// Most devices that one content is sealed to.
pub const MAX_RECIPIENTS: usize = 32;
/// Largest sealed content that is opened, bytes.
const MAX_SEALED: usize = 1024 * 1024;

type PublicX25519 = <X25519HkdfSha256 as Kem>::PublicKey;
type SecretX25519 = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealError {
    /// No recipient, or more than [`MAX_RECIPIENTS`].
    #[error("sealed to {0} devices; 1 to 32 are possible")]
    Recipients(usize),
    /// A recipient's key is no key.
    #[error("a recipient's key is no key")]
    Key,
    /// The bytes are no sealed content.
    #[error(transparent)]
    Malformed(#[from] IdentityError),
    /// It is sealed to other devices.
    #[error("sealed to other devices than this one")]
    NotForUs,
    /// It was changed on the way, or is for another use.
    #[error("sealed content that does not open")]
    Damaged,
}

/// One device's way to the content.
struct Share {
    hint: [u8; 8],
    encapsulated: [u8; 32],
    key: [u8; 48],
}

/// Seals `content` to each device of `to`, for the use named by `purpose`.
///
/// # Errors
/// [`SealError::Recipients`], [`SealError::Key`].
pub fn seal(purpose: &str, to: &[PublicKey], content: &[u8], rng: &mut Rng) -> Result<Vec<u8>, SealError> {
    if to.is_empty() || to.len() > MAX_RECIPIENTS {
        return Err(SealError::Recipients(to.len()));
    }
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill(&mut *seed);
    let mut draws = ChaCha20Rng::from_seed(*seed);
    let mut key = Zeroizing::new([0; 32]);
    rng.fill(&mut *key);
    let info = info(purpose);
    let ciphertext = cipher(&key)
        .encrypt(&Nonce::default(), Payload { msg: content, aad: &info })
        .map_err(|_| SealError::Damaged)?;
    let bound = blake3::hash(&ciphertext);
    let share = |device: &PublicKey, draws: &mut ChaCha20Rng| {
        let public = device.agreement().ok_or(SealError::Key)?;
        let (encapsulated, sealed) = hpke_seal(&public, &info, &*key, bound.as_bytes(), draws).ok_or(SealError::Key)?;
        let key = sealed.try_into().map_err(|_| SealError::Key)?;
        Ok(Share { hint: device.fingerprint(), encapsulated, key })
    };
    let shares = to.iter().map(|device| share(device, &mut draws)).collect::<Result<Vec<_>, SealError>>()?;
    Ok(encode(&shares, &ciphertext))
}

/// Opens what was sealed to `device` (among others) for the use named by `purpose`.
///
/// # Errors
/// All but [`SealError::Recipients`]: the sender's fault, or somebody's on the way.
pub fn open(purpose: &str, device: &KeyPair, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (shares, ciphertext) = decode(sealed)?;
    let (info, hint, bound) = (info(purpose), device.public().fingerprint(), blake3::hash(&ciphertext));
    let mut fault = SealError::NotForUs;
    // Two devices may share a hint; the bound on the shares bounds the attempts.
    for share in shares.iter().filter(|s| s.hint == hint) {
        fault = SealError::Damaged;
        let secret = device.agreement();
        let Some(key) = hpke_open(&secret, &share.encapsulated, &info, &share.key, bound.as_bytes()) else { continue };
        let Ok(key) = <[u8; 32]>::try_from(key.as_slice()).map(Zeroizing::new) else { continue };
        let opened = cipher(&key).decrypt(&Nonce::default(), Payload { msg: &ciphertext, aad: &info });
        if let Ok(content) = opened {
            return Ok(Zeroizing::new(content));
        }
    }
    Err(fault)
}

fn info(purpose: &str) -> Vec<u8> {
    [b"chordial sealed v1", &[0][..], purpose.as_bytes()].concat()
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*key))
}

/// RFC 9180 section 6.1, SealBase; `None` for a public key that gives no shared secret.
fn hpke_seal(
    public: &[u8; 32],
    info: &[u8],
    plain: &[u8],
    aad: &[u8],
    draws: &mut impl CryptoRng,
) -> Option<([u8; 32], Vec<u8>)> {
    let public = PublicX25519::from_bytes(public).ok()?;
    let sealed = single_shot_seal_with_rng::<HpkeAead, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        info,
        plain,
        aad,
        draws,
    );
    let (encapsulated, sealed) = sealed.ok()?;
    Some((encapsulated.to_bytes().as_slice().try_into().ok()?, sealed))
}

/// RFC 9180 section 6.1, OpenBase.
fn hpke_open(
    secret: &[u8; 32],
    encapsulated: &[u8; 32],
    info: &[u8],
    sealed: &[u8],
    aad: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let secret = SecretX25519::from_bytes(secret).ok()?;
    let encapsulated = Encapsulated::from_bytes(encapsulated).ok()?;
    let opened = single_shot_open::<HpkeAead, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        info,
        sealed,
        aad,
    );
    opened.ok().map(Zeroizing::new)
}

fn encode(shares: &[Share], ciphertext: &[u8]) -> Vec<u8> {
    let mut writer = Writer::array(3);
    writer.uint(1).nested(shares.len());
    for share in shares {
        writer.nested(3).bytes(&share.hint).bytes(&share.encapsulated).bytes(&share.key);
    }
    writer.bytes(ciphertext);
    writer.finish()
}

fn decode(bytes: &[u8]) -> Result<(Vec<Share>, Vec<u8>), IdentityError> {
    if bytes.len() > MAX_SEALED {
        return Err(IdentityError::TooLarge(WHAT));
    }
    let mut reader = Reader::new(bytes, WHAT);
    reader.array(3)?;
    reader.version(1)?;
    let len = reader.list(MAX_RECIPIENTS as u64)?;
    let mut shares = Vec::with_capacity(len);
    for _ in 0..len {
        reader.array(3)?;
        shares.push(Share { hint: reader.exact()?, encapsulated: reader.exact()?, key: reader.exact()? });
    }
    let ciphertext = reader.bytes()?.to_vec();
    canonical(bytes, &encode(&shares, &ciphertext), WHAT)?;
    Ok((shares, ciphertext))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::{TryCryptoRng, TryRng};
    use std::convert::Infallible;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn hex32(text: &str) -> [u8; 32] {
        hex(text).try_into().unwrap()
    }

    /// Gives the bytes that a test vector drew.
    struct Drawn([u8; 32]);

    impl TryRng for Drawn {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unreachable!("keys are filled as a whole")
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            unreachable!("keys are filled as a whole")
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            out.copy_from_slice(&self.0);
            Ok(())
        }
    }

    impl TryCryptoRng for Drawn {}

    /// RFC 9180 appendix A.2.1, its first encryption.
    #[test]
    fn the_test_vector_of_the_rfc() {
        let public = hex32("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        let secret = hex32("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let drawn = hex32("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b");
        let encapsulated = hex32("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let (info, aad) = (hex("4f6465206f6e2061204772656369616e2055726e"), hex("436f756e742d30"));
        let plain = hex("4265617574792069732074727574682c20747275746820626561757479");
        let sealed = hex(concat!(
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db",
            "21993c62ce81883d2dd1b51a28"
        ));
        let made = hpke_seal(&public, &info, &plain, &aad, &mut Drawn(drawn)).unwrap();
        assert_eq!(made, (encapsulated, sealed.clone()));
        let opened = hpke_open(&secret, &encapsulated, &info, &sealed, &aad).unwrap();
        assert_eq!(*opened, plain);
        assert!(hpke_open(&secret, &encapsulated, &info, &sealed, b"Count-1").is_none());
        assert!(hpke_seal(&[0; 32], &info, &plain, &aad, &mut Drawn(drawn)).is_none(), "no shared secret with zero");
    }

    #[test]
    fn both_keys_of_a_device_are_one() {
        for seed in 0..20 {
            let device = KeyPair::from_seed(&[seed; 32]);
            let secret = SecretX25519::from_bytes(&*device.agreement()).unwrap();
            let public = X25519HkdfSha256::sk_to_pk(&secret).to_bytes();
            assert_eq!(public.as_slice(), device.public().agreement().unwrap());
        }
        // The neutral element, a point of order 2, and no point at all.
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut none = [0; 32];
        none[0] = 2;
        for bad in [one, minus_one, none] {
            assert_eq!(PublicKey(bad).agreement(), None);
        }
    }

    #[test]
    fn each_recipient_opens_it_and_nobody_else() {
        let mut rng = Rng::from_seed(1);
        let devices: Vec<_> = (0..3).map(|_| KeyPair::generate(&mut rng)).collect();
        let to: Vec<_> = devices[..2].iter().map(KeyPair::public).collect();
        let sealed = seal("message", &to, b"the text", &mut rng).unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"the text"));
        for device in &devices[..2] {
            assert_eq!(**open("message", device, &sealed).unwrap(), *b"the text");
        }
        assert_eq!(open("message", &devices[2], &sealed).unwrap_err(), SealError::NotForUs);
        assert_eq!(open("settings", &devices[0], &sealed).unwrap_err(), SealError::Damaged);
        assert_ne!(seal("message", &to, b"the text", &mut rng).unwrap(), sealed, "each time another key");
        assert_eq!(seal("message", &[], b"x", &mut rng), Err(SealError::Recipients(0)));
        assert_eq!(seal("message", &[to[0]; 33], b"x", &mut rng), Err(SealError::Recipients(33)));
        assert_eq!(seal("message", &[PublicKey([0; 32])], b"x", &mut rng), Err(SealError::Key));
    }

    /// One of two recipients knows the content's key and is still not able to give the other another content under it.
    #[test]
    fn a_recipient_cannot_change_the_content_for_another() {
        let mut rng = Rng::from_seed(2);
        let (bob, mallory) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let sealed = seal("message", &[bob.public(), mallory.public()], b"yes", &mut rng).unwrap();
        let (shares, ciphertext) = decode(&sealed).unwrap();
        let bound = blake3::hash(&ciphertext);
        let info = info("message");
        let key = hpke_open(&mallory.agreement(), &shares[1].encapsulated, &info, &shares[1].key, bound.as_bytes());
        let key: [u8; 32] = key.unwrap().as_slice().try_into().unwrap();
        let other = cipher(&key).encrypt(&Nonce::default(), Payload { msg: b"no!", aad: &info }).unwrap();
        assert_eq!(open("message", &bob, &encode(&shares, &other)).unwrap_err(), SealError::Damaged);
    }
}
