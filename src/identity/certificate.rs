//! One certificate: a key says something about another key.
//!
//! `[tbs, signature]`, both byte strings, where `tbs` holds the encoding of
//! `[1, kind, subject key, issuer key, not before, not after, overlay, claims]` and `signature` is the issuer's over it.
//!
//! | kind | issued by | claims |
//! |---|---|---|
//! | 1 enroller | root | `[]` |
//! | 2 user | enroller; itself when open | `[name, alias...]` (aliases: extensions) |
//! | 3 device | user | `[label]` |
//! | 4 peer | enroller | `[peer-ID]` (20 bytes) |
//! | 5 adapter | enroller | `[name...]` of phone accounts that the device may sign for |
//!
//! The root is a key and has no certificate: whoever trusts it has it already.

use super::cbor::{Reader, Writer, canonical};
use super::name::check_label;
use super::{
    CERTIFICATE_LIFETIME, CLOCK_SKEW, IdentityError, KeyPair, PublicKey, Purpose, canonical_overlay, canonical_user,
};
use crate::core::{Id, UnixTime};

const WHAT: &str = "certificate";
/// Most names in a user's or an adapter's certificate.
pub(super) const MAX_NAMES: usize = 32;

/// What a certificate says about its subject's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claims {
    /// May enrol users and peers.
    Enroller,
    /// Belongs to the user of these names: the first is the name, the others are extensions.
    User(Vec<String>),
    /// Is a device of the issuing user, with a label for people.
    Device(String),
    /// Has this place on the ring.
    Peer(Id),
    /// May sign contact entries of these phone accounts.
    Adapter(Vec<String>),
}

impl Claims {
    /// The kind's number on the wire.
    pub const fn kind(&self) -> u64 {
        match self {
            Claims::Enroller => 1,
            Claims::User(_) => 2,
            Claims::Device(_) => 3,
            Claims::Peer(_) => 4,
            Claims::Adapter(_) => 5,
        }
    }

    /// The kind's name in errors.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Claims::Enroller => "enroller",
            Claims::User(_) => "user",
            Claims::Device(_) => "device",
            Claims::Peer(_) => "peer",
            Claims::Adapter(_) => "adapter",
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Claims::Enroller => {
                writer.nested(0);
            }
            Claims::User(names) | Claims::Adapter(names) => {
                writer.nested(names.len());
                for name in names {
                    writer.text(name);
                }
            }
            Claims::Device(label) => {
                writer.nested(1).text(label);
            }
            Claims::Peer(id) => {
                writer.nested(1).bytes(&id.0);
            }
        }
    }

    fn read(kind: u64, reader: &mut Reader<'_>) -> Result<Claims, IdentityError> {
        Ok(match kind {
            1 => {
                reader.array(0)?;
                Claims::Enroller
            }
            2 | 5 => {
                let len = reader.list(MAX_NAMES as u64)?;
                let names = (0..len).map(|_| reader.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
                if kind == 2 { Claims::User(names) } else { Claims::Adapter(names) }
            }
            3 => {
                reader.array(1)?;
                Claims::Device(reader.text()?.to_owned())
            }
            4 => {
                reader.array(1)?;
                Claims::Peer(Id(reader.exact()?))
            }
            _ => return Err(IdentityError::Malformed(WHAT)),
        })
    }

    fn check(&self) -> Result<(), IdentityError> {
        match self {
            Claims::User(names) | Claims::Adapter(names) => {
                if names.is_empty() || names.len() > MAX_NAMES {
                    return Err(IdentityError::Malformed(WHAT));
                }
                let lower = |n: &String| canonical_user(n).is_ok_and(|c| c == *n);
                if names.iter().all(lower) { Ok(()) } else { Err(IdentityError::UserName) }
            }
            Claims::Device(label) => check_label(label),
            Claims::Enroller | Claims::Peer(_) => Ok(()),
        }
    }
}

/// A certificate; holding one says nothing about whether it verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The key that it is about.
    pub subject: PublicKey,
    /// The key that signed it.
    pub issuer: PublicKey,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// The overlay in which it counts.
    pub overlay: String,
    /// What it says.
    pub claims: Claims,
    signature: [u8; 64],
}

impl Certificate {
    /// Signs with `issuer` that `claims` hold for `subject` in `overlay`, from `now` for [`CERTIFICATE_LIFETIME`].
    pub fn issue(
        issuer: &KeyPair,
        subject: PublicKey,
        overlay: &str,
        claims: Claims,
        now: UnixTime,
    ) -> Result<Certificate, IdentityError> {
        claims.check()?;
        let mut certificate = Certificate {
            subject,
            issuer: issuer.public(),
            not_before: now,
            not_after: now + CERTIFICATE_LIFETIME,
            overlay: canonical_overlay(overlay)?,
            claims,
            signature: [0; 64],
        };
        certificate.signature = issuer.sign(Purpose::Certificate, &certificate.signed_bytes());
        Ok(certificate)
    }

    /// The same statement with other bounds of validity, signed by `issuer`.
    pub fn reissue(mut self, issuer: &KeyPair, not_before: UnixTime, not_after: UnixTime) -> Certificate {
        (self.issuer, self.not_before, self.not_after) = (issuer.public(), not_before, not_after);
        self.signature = issuer.sign(Purpose::Certificate, &self.signed_bytes());
        self
    }

    /// `[tbs, signature]`.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(2);
        writer.bytes(&self.signed_bytes()).bytes(&self.signature);
        writer.finish()
    }

    /// Reads what [`Certificate::encode`] writes, and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Certificate, IdentityError> {
        let certificate = Certificate::read(&mut Reader::new(bytes, WHAT))?;
        canonical(bytes, &certificate.encode(), WHAT)?;
        Ok(certificate)
    }

    /// Checks the issuer's signature, the overlay's name and that it has not expired at `now`; who the issuer is, is the chain's
    /// matter. `not_before` is no reason to refuse: what is signed later than `now` shows that this machine's clock is behind, and
    /// whoever refused it would never reach those who could tell.
    pub(super) fn check(&self, overlay: &str, now: UnixTime) -> Result<(), IdentityError> {
        let what = self.claims.kind_name();
        if self.overlay != overlay {
            return Err(IdentityError::Overlay);
        }
        if now > self.not_after + CLOCK_SKEW {
            return Err(IdentityError::Expired(what));
        }
        if !self.issuer.verify(Purpose::Certificate, &self.signed_bytes(), &self.signature) {
            return Err(IdentityError::Signature(what));
        }
        Ok(())
    }

    /// Reads the next item of `reader`. The caller compares the whole with its encoding.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Certificate, IdentityError> {
        reader.array(2)?;
        let tbs = reader.bytes()?;
        let signature = reader.exact()?;
        let mut inner = Reader::new(tbs, WHAT);
        inner.array(8)?;
        inner.version(1)?;
        let kind = inner.uint()?;
        let certificate = Certificate {
            subject: PublicKey(inner.exact()?),
            issuer: PublicKey(inner.exact()?),
            not_before: UnixTime(inner.uint()?),
            not_after: UnixTime(inner.uint()?),
            overlay: inner.text()?.to_owned(),
            claims: Claims::read(kind, &mut inner)?,
            signature,
        };
        certificate.claims.check()?;
        Ok(certificate)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(8);
        writer.uint(1).uint(self.claims.kind()).bytes(&self.subject.0).bytes(&self.issuer.0);
        writer.uint(self.not_before.secs()).uint(self.not_after.secs()).text(&self.overlay);
        self.claims.write(&mut writer);
        writer.finish()
    }
}
