//! A standard phone's digest secret for a second or third adapter: an enroller seals it to that device alone, together with the delegation,
//! and takes it back.
//!
//! `[1, device key, issued, sealed, signature]`: `sealed` ([`seal`](super::seal), for `phone`) opens at that device to `[1, user, label,
//! MD5 (16), SHA-256 (32), adapter certificate, enroller certificate]`, or to take it back `[2, user, enroller certificate]`. The enroller
//! signs `[1, device key, issued, BLAKE3 of sealed]`, ten minutes old at most: a member who carries or repeats it can neither put
//! another password in nor bring an old one back.
//!
//! What a device was told it may remember: who distrusts it gives the phone another password. An adapter that does not forget may
//! still sign for the phone until its delegation ends or the device is revoked.

use super::cbor::{Reader, Writer, canonical};
use super::certify::REQUEST_AGE;
use super::name::check_label;
use super::{
    CLOCK_SKEW, Certificate, Claims, Identity, IdentityError, PublicKey, Purpose, Revoked, TrustAnchor, canonical_user,
    open, seal,
};
use crate::core::{Redacted, Rng, UnixTime};
use zeroize::Zeroizing;

/// Content type of the request and of its empty answer.
pub const PHONE_TYPE: &str = "application/chordial-phone+cbor";
/// Most devices that one phone is shared with, beside the one that made the account.
pub const MAX_SHARED: usize = 2;
const WHAT: &str = "phone's secret";
const USE: &str = "phone";

/// MD5 and SHA-256 of a phone's user name, realm and password.
pub type DigestSecret = Redacted<([u8; 16], [u8; 32])>;

/// What an adapter is told, once opened and checked.
#[derive(Debug)]
pub enum PhoneWord {
    /// Serve this phone.
    Hold {
        /// User name.
        user: String,
        /// What people call the phone.
        label: String,
        /// The digest secret.
        secret: DigestSecret,
        /// The delegation and who signed it, for [`Identity::add_adapter`].
        delegation: Box<(Certificate, Certificate)>,
    },
    /// Forget it.
    Forget {
        /// User name.
        user: String,
    },
}

/// Sealed, on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PhoneShare {
    device: PublicKey,
    issued: UnixTime,
    sealed: Vec<u8>,
    signature: [u8; 64],
}

impl PhoneShare {
    /// The secret of `user`'s account for `device`, with a delegation made on the spot. `NotOurs` where `by` is no enroller.
    pub fn hold(
        by: &mut Identity,
        device: PublicKey,
        (user, label): (&str, &str),
        secret: &DigestSecret,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<PhoneShare, IdentityError> {
        let enroller = by.enroller.as_mut().ok_or(IdentityError::NotOurs)?;
        let delegation = enroller.delegate(device, &[user], now).map_err(|_| IdentityError::UserName)?;
        let (md5, sha256) = secret.reveal();
        let mut writer = Writer::array(7);
        writer.uint(1).text(user).text(label).bytes(md5).bytes(sha256);
        writer.raw(&delegation.encode()).raw(&enroller.certificate().encode());
        PhoneShare::sign(by, device, &Zeroizing::new(writer.finish()), now, rng)
    }

    /// Takes it back.
    pub fn forget(
        by: &Identity,
        device: PublicKey,
        user: &str,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<PhoneShare, IdentityError> {
        let enroller = by.enroller.as_ref().ok_or(IdentityError::NotOurs)?;
        let mut writer = Writer::array(3);
        writer.uint(2).text(user).raw(&enroller.certificate().encode());
        PhoneShare::sign(by, device, &writer.finish(), now, rng)
    }

    fn sign(
        by: &Identity,
        device: PublicKey,
        content: &[u8],
        issued: UnixTime,
        rng: &mut Rng,
    ) -> Result<PhoneShare, IdentityError> {
        let enroller = by.enroller.as_ref().ok_or(IdentityError::NotOurs)?;
        let sealed = seal(USE, &[device], content, rng).map_err(|_| IdentityError::Shape("device"))?;
        let mut share = PhoneShare { device, issued, sealed, signature: [0; 64] };
        share.signature = enroller.key().sign(Purpose::Phone, &share.signed_bytes());
        Ok(share)
    }

    /// Opens what is for this device, and checks that an enroller of its office says it now.
    pub fn open(&self, by: &Identity, revoked: &Revoked, now: UnixTime) -> Result<PhoneWord, IdentityError> {
        let TrustAnchor::Office { overlay, root } = &by.anchor else { return Err(IdentityError::NotOurs) };
        if self.device != by.device_key() {
            return Err(IdentityError::NotOurs);
        }
        if self.issued > now + CLOCK_SKEW {
            return Err(IdentityError::NotYetValid(WHAT));
        }
        if now > self.issued + REQUEST_AGE + CLOCK_SKEW {
            return Err(IdentityError::Expired(WHAT));
        }
        let content = open(USE, &by.device, &self.sealed).map_err(|_| IdentityError::Malformed(WHAT))?;
        let mut reader = Reader::new(&content, WHAT);
        let (word, enroller) = match reader.list(7)? {
            7 => {
                reader.version(1)?;
                let (user, label) = (reader.text()?.to_owned(), reader.text()?.to_owned());
                let secret = Redacted::new((reader.exact()?, reader.exact()?));
                let (delegation, enroller) = (Certificate::read(&mut reader)?, Certificate::read(&mut reader)?);
                let about = matches!(&delegation.claims, Claims::Adapter(names) if *names == [user.clone()]);
                if !about || delegation.issuer != enroller.subject || delegation.subject != self.device {
                    return Err(IdentityError::Shape("adapter"));
                }
                check_label(&label)?;
                let delegation = Box::new((delegation, enroller.clone()));
                (PhoneWord::Hold { user, label, secret, delegation }, enroller)
            }
            3 => {
                reader.version(2)?;
                let user = reader.text()?.to_owned();
                (PhoneWord::Forget { user }, Certificate::read(&mut reader)?)
            }
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        let (PhoneWord::Hold { user, .. } | PhoneWord::Forget { user }) = &word;
        if canonical_user(user)? != *user || user.starts_with('_') {
            return Err(IdentityError::UserName);
        }
        if enroller.claims != Claims::Enroller || enroller.issuer != *root {
            return Err(IdentityError::Issuer("enroller"));
        }
        enroller.check(overlay, now)?;
        if revoked.is_enroller(&enroller.subject) {
            return Err(IdentityError::Revoked("enroller"));
        }
        match enroller.subject.verify(Purpose::Phone, &self.signed_bytes(), &self.signature) {
            true => Ok(word),
            false => Err(IdentityError::Signature(WHAT)),
        }
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(5);
        writer.uint(1).bytes(&self.device.0).uint(self.issued.secs()).bytes(&self.sealed).bytes(&self.signature);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Opens and verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<PhoneShare, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(5)?;
        reader.version(1)?;
        let (device, issued) = (PublicKey(reader.exact()?), UnixTime(reader.uint()?));
        let share = PhoneShare { device, issued, sealed: reader.bytes()?.to_vec(), signature: reader.exact()? };
        canonical(bytes, &share.encode(), WHAT)?;
        Ok(share)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).bytes(&self.device.0).uint(self.issued.secs()).bytes(blake3::hash(&self.sealed).as_bytes());
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn one_device_learns_a_secret_from_an_enroller_and_from_nobody_else() {
        let rng = &mut Rng::from_seed(1);
        let (mut anna, sheet) = Identity::found("office", "anna", None, NOW, rng).expect("names");
        let zoe = Identity::restore(&sheet, "zoe", None, NOW, rng).expect("sheet");
        let eve = Identity::restore(&sheet, "eve", None, NOW, rng).expect("sheet");
        let (mut other, _) = Identity::found("office", "anna", None, NOW, rng).expect("names");
        let secret = Redacted::new(([7; 16], [9; 32]));
        let mut hold = |by: &mut Identity| {
            PhoneShare::hold(by, zoe.device_key(), ("lobby", "Lobby"), &secret, NOW, rng).expect("an enroller")
        };
        let share = hold(&mut anna);
        let foreign = hold(&mut other);
        let read = PhoneShare::decode(&share.encode()).expect("as written");
        assert!(!read.encode().windows(16).any(|w| w == [7; 16]), "sealed");
        let none = Revoked::default();
        let PhoneWord::Hold { user, secret: got, delegation, .. } = read.open(&zoe, &none, NOW).expect("for zoe")
        else {
            panic!()
        };
        assert_eq!((user.as_str(), got.reveal()), ("lobby", secret.reveal()));
        let mut serving = zoe.clone();
        serving.add_adapter(delegation.0.clone(), &delegation.1, NOW).expect("holds");
        assert!(serving.phone_identity("lobby", NOW).is_ok());
        assert!(read.open(&eve, &none, NOW).is_err(), "another device");
        assert!(foreign.open(&zoe, &none, NOW).is_err(), "another office");
        assert!(read.open(&zoe, &none, UnixTime(NOW.secs() + 3600)).is_err(), "an old one");
        assert!(read.open(&zoe, &none, UnixTime(NOW.secs() - 3600)).is_err(), "one of the future");
        let enroller = anna.enroller.as_ref().expect("enrols").certificate().subject;
        let mut set = Revocations::default();
        set.note(Revocation::by_root(&sheet, RevokedKey::Enroller, enroller, "", NOW).expect("root"));
        assert!(read.open(&zoe, &set.revoked(), NOW).is_err(), "of a revoked enroller");
        let forget = PhoneShare::forget(&anna, zoe.device_key(), "lobby", NOW, rng).expect("an enroller");
        assert!(matches!(forget.open(&zoe, &none, NOW), Ok(PhoneWord::Forget { user }) if user == "lobby"));
        // The signature of one under the content of the other.
        let mixed = PhoneShare { sealed: forget.sealed.clone(), ..share.clone() };
        assert!(mixed.open(&zoe, &none, NOW).is_err());
        let bytes = share.encode();
        for n in 0..2000 {
            let mut damaged = bytes.clone();
            let at = rng.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << (n % 8);
            assert!(!PhoneShare::decode(&damaged).is_ok_and(|s| s.open(&zoe, &none, NOW).is_ok()));
        }
    }
}
