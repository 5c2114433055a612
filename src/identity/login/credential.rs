//! The credential entry (kind 2): everything of a user's password log-in that members may see, and the owner's part.
//!
//! Body: `[1, set, revision, epoch (16), [[holder's peer-ID or null, masked share (32)] x 4], sealed, owned]`.
//!
//! * `set` is when the password was set (seconds since 1970), `revision` counts up when shares move to other holders or the seal
//!   is renewed; of several entries (one a device) the one with the highest of both counts.
//! * `epoch` names one password's set of OPRF keys: holders keep one epoch of a user and forget the others when told.
//! * `sealed` = `commitment (32) | nonce (24) | XChaCha20-Poly1305` under the sealing key, over `[1, user's seed, root key, enroller
//!   certificate, user certificate]` with its length in front, padded to whole kilobytes. Additional data: the AOR.
//! * `owned` = `nonce (24) | XChaCha20-Poly1305` under a key derived from the user's seed, over `[1, sealing key, [OPRF key x 4]]`: by it any
//!   device that holds the user's key gives a lost share to another holder, without knowing the password.

use super::super::cbor::{Reader, Writer, canonical};
use super::super::{Certificate, Claims, IdentityError, KeyPair, PublicKey};
use super::oprf::OprfKey;
use super::{Cost, SHARES, mask, oprf_input, share, xor};
use crate::core::{Id, Rng, UnixTime};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

const WHAT: &str = "credential";
const NONCE: usize = 24;
const TAG: usize = 16;
const BLOCK: usize = 1024;
/// A seal of the usual size; unknown names are answered with as many bytes.
pub(super) const SEALED: usize = 32 + NONCE + BLOCK + TAG;
/// The largest: a user with very many extensions.
const MAX_SEALED: usize = SEALED + 3 * BLOCK;
const MAX_OWNED: usize = 512;

/// What is made of a password, and all that the running program needs to know of it: the password itself stays with
/// whoever typed it.
#[derive(Clone)]
pub struct PasswordParts {
    owned: Owned,
    masked: [[u8; 32]; SHARES],
}

impl PasswordParts {
    /// New keys for the user's password. Takes as long as four runs of Argon2id at `cost`.
    pub fn make(
        user: &str,
        overlay: &str,
        password: &str,
        cost: Cost,
        rng: &mut Rng,
    ) -> Result<PasswordParts, IdentityError> {
        let input = oprf_input(user, overlay, password)?;
        let mut sealing = Zeroizing::new([0; 32]);
        rng.fill(&mut *sealing);
        let keys: [OprfKey; SHARES] = std::array::from_fn(|_| OprfKey::generate(rng));
        let fault = IdentityError::Malformed(WHAT);
        let shares = share::split(&sealing, rng).ok_or(fault)?;
        let mut masked = [[0; 32]; SHARES];
        for (n, key) in keys.iter().enumerate() {
            let output = key.output(&input).ok_or(fault)?;
            masked[n] = xor(&shares[n], &*mask(&output, n as u8 + 1, cost).ok_or(fault)?);
        }
        Ok(PasswordParts { owned: Owned { sealing, keys }, masked })
    }

    /// For the way from who typed the password to the running program: as secret as the password.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut writer = Writer::array(3);
        writer.uint(1).bytes(&self.owned.encode());
        writer.nested(SHARES);
        for masked in &self.masked {
            writer.bytes(masked);
        }
        let bytes = Zeroizing::new(writer.finish());
        Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Reads [`PasswordParts::to_hex`].
    pub fn from_hex(text: &str) -> Result<PasswordParts, IdentityError> {
        let pair = |at: usize| text.get(at..at + 2).and_then(|p| u8::from_str_radix(p, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
        let bytes = Zeroizing::new(bytes.ok_or(IdentityError::Malformed(WHAT))?);
        let mut reader = Reader::new(&bytes, WHAT);
        reader.array(3)?;
        reader.version(1)?;
        let owned = Owned::decode(reader.bytes()?)?;
        reader.array(SHARES as u64)?;
        let mut masked = [[0; 32]; SHARES];
        for m in &mut masked {
            *m = reader.exact()?;
        }
        Ok(PasswordParts { owned, masked })
    }
}

impl std::fmt::Debug for PasswordParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordParts")
    }
}

/// What the user's own devices know beside the holders: the sealing key and all OPRF keys.
#[derive(Clone)]
pub struct Owned {
    sealing: Zeroizing<[u8; 32]>,
    /// Share `i` (from 0) is masked under the answer of key `i`.
    pub keys: [OprfKey; SHARES],
}

impl Owned {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::array(3);
        writer.uint(1).bytes(&*self.sealing);
        writer.nested(SHARES);
        for key in &self.keys {
            writer.bytes(&*key.to_bytes());
        }
        Zeroizing::new(writer.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Owned, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(3)?;
        reader.version(1)?;
        let sealing = Zeroizing::new(reader.exact()?);
        reader.array(SHARES as u64)?;
        let keys: Result<Vec<_>, _> = (0..SHARES)
            .map(|_| OprfKey::from_bytes(&Zeroizing::new(reader.exact()?)).ok_or(IdentityError::Malformed(WHAT)))
            .collect();
        let keys = <[OprfKey; SHARES]>::try_from(keys?).map_err(|_| IdentityError::Malformed(WHAT))?;
        let owned = Owned { sealing, keys };
        canonical(bytes, &owned.encode(), WHAT)?;
        Ok(owned)
    }
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Owned")
    }
}

/// The body of a credential entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// When the password was set.
    pub set: UnixTime,
    /// Rises with each change beside that.
    pub revision: u64,
    /// Names this password's keys.
    pub epoch: [u8; 16],
    /// Who answers for each share; none while there is nobody.
    pub holders: [Option<Id>; SHARES],
    /// The shares under their masks.
    pub masked: [[u8; 32]; SHARES],
    /// The user's key under the sealing key.
    pub sealed: Vec<u8>,
    owned: Vec<u8>,
}

impl Credential {
    /// Of a password's parts, with no holder yet. `enroller` and `user` are the certificates that a new device of the user will show.
    pub fn new(
        parts: &PasswordParts,
        key: &KeyPair,
        enroller: &Certificate,
        user: &Certificate,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<(Credential, Owned), IdentityError> {
        let mut epoch = [0; 16];
        rng.fill(&mut epoch);
        let mut credential = Credential {
            set: now,
            revision: 0,
            epoch,
            holders: [None; SHARES],
            masked: parts.masked,
            sealed: Vec::new(),
            owned: Vec::new(),
        };
        credential.owned = encrypt(&owner_key(key), &epoch, &parts.owned.encode(), rng)?;
        credential.seal(&parts.owned, key, enroller, user, rng)?;
        Ok((credential, parts.owned.clone()))
    }

    /// Seals the user's key and certificates anew, under the same sealing key.
    pub fn seal(
        &mut self,
        owned: &Owned,
        key: &KeyPair,
        enroller: &Certificate,
        user: &Certificate,
        rng: &mut Rng,
    ) -> Result<(), IdentityError> {
        let Claims::User(names) = &user.claims else { return Err(IdentityError::Shape("user")) };
        let name = names.first().ok_or(IdentityError::UserName)?;
        let mut writer = Writer::array(5);
        writer.uint(1).bytes(&**key.seed().reveal()).bytes(&enroller.issuer.0);
        writer.raw(&enroller.encode()).raw(&user.encode());
        let inner = Zeroizing::new(writer.finish());
        let length = u16::try_from(inner.len()).map_err(|_| IdentityError::TooLarge(WHAT))?;
        let mut plain = Zeroizing::new(length.to_be_bytes().to_vec());
        plain.extend_from_slice(&inner);
        let padded = plain.len().next_multiple_of(BLOCK);
        plain.resize(padded, 0);
        let aor = format!("sip:{name}@{}", user.overlay);
        let mut sealed = commitment(&owned.sealing).to_vec();
        sealed.extend(encrypt(&seal_key(&owned.sealing), aor.as_bytes(), &plain, rng)?);
        if sealed.len() > MAX_SEALED {
            return Err(IdentityError::TooLarge(WHAT));
        }
        self.sealed = sealed;
        Ok(())
    }

    /// The owner's part; `None` for who does not have the user's key.
    pub fn owned(&self, key: &KeyPair) -> Option<Owned> {
        Owned::decode(&decrypt(&owner_key(key), &self.epoch, &self.owned)?).ok()
    }

    /// True when the seal holds these certificates and no others.
    pub fn is_about(&self, owned: &Owned, aor: &str, enroller: &Certificate, user: &Certificate) -> bool {
        open(&owned.sealing, aor, &self.sealed)
            .is_some_and(|opened| opened.enroller == *enroller && opened.user == *user)
    }

    /// Which of two of one user counts.
    pub fn order(&self) -> (UnixTime, u64, [u8; 16]) {
        (self.set, self.revision, self.epoch)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(7);
        writer.uint(1).uint(self.set.secs()).uint(self.revision).bytes(&self.epoch);
        writer.nested(SHARES);
        for (holder, masked) in self.holders.iter().zip(&self.masked) {
            writer.nested(2);
            match holder {
                Some(id) => writer.bytes(&id.0),
                None => writer.null(),
            };
            writer.bytes(masked);
        }
        writer.bytes(&self.sealed).bytes(&self.owned);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Credential, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(7)?;
        reader.version(1)?;
        let (set, revision, epoch) = (UnixTime(reader.uint()?), reader.uint()?, reader.exact()?);
        reader.array(SHARES as u64)?;
        let (mut holders, mut masked) = ([None; SHARES], [[0; 32]; SHARES]);
        for n in 0..SHARES {
            reader.array(2)?;
            holders[n] = if reader.is_null() { None } else { Some(Id(reader.exact()?)) };
            masked[n] = reader.exact()?;
        }
        let (sealed, owned) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
        if sealed.len() > MAX_SEALED || sealed.len() < SEALED || owned.len() > MAX_OWNED {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let credential = Credential { set, revision, epoch, holders, masked, sealed, owned };
        canonical(bytes, &credential.encode(), WHAT)?;
        Ok(credential)
    }
}

/// What a seal holds.
pub(super) struct Opened {
    pub key: KeyPair,
    pub root: PublicKey,
    pub enroller: Certificate,
    pub user: Certificate,
}

/// Opens a seal; `None` unless this is its very key.
pub(super) fn open(sealing: &[u8; 32], aor: &str, sealed: &[u8]) -> Option<Opened> {
    let (committed, rest) = sealed.split_first_chunk::<32>()?;
    // blake3::Hash compares in constant time.
    if blake3::Hash::from_bytes(*committed) != blake3::Hash::from_bytes(commitment(sealing)) {
        return None;
    }
    let plain = decrypt(&seal_key(sealing), aor.as_bytes(), rest)?;
    let (length, rest) = plain.split_first_chunk::<2>()?;
    let inner = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let mut reader = Reader::new(inner, WHAT);
    let mut read = || -> Result<Opened, IdentityError> {
        reader.array(5)?;
        reader.version(1)?;
        Ok(Opened {
            key: KeyPair::from_seed(&Zeroizing::new(reader.exact()?)),
            root: PublicKey(reader.exact()?),
            enroller: Certificate::read(&mut reader)?,
            user: Certificate::read(&mut reader)?,
        })
    };
    read().ok()
}

fn seal_key(sealing: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key("chordial login seal v1", sealing))
}

fn commitment(sealing: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("chordial login commitment v1", sealing)
}

fn owner_key(key: &KeyPair) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key("chordial login owner v1", &**key.seed().reveal()))
}

fn encrypt(key: &[u8; 32], data: &[u8], plain: &[u8], rng: &mut Rng) -> Result<Vec<u8>, IdentityError> {
    let mut nonce = [0; NONCE];
    rng.fill(&mut nonce);
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: data });
    let mut out = nonce.to_vec();
    out.extend(sealed.map_err(|_| IdentityError::TooLarge(WHAT))?);
    Ok(out)
}

fn decrypt(key: &[u8; 32], data: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: data }).ok().map(Zeroizing::new)
}
