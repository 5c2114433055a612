//! The side of who logs in, and what it says to the supernode that it dialled.
//!
//! * request: `[1, user, blinded (32)]`; * answer: `[1, sealed, [[masked share (32), evaluation (32)] x 4]]`.
//!
//! One blinded element serves all four holders; what it hides does not depend on how many see it.

use super::super::cbor::{Reader, Writer, canonical};
use super::super::{
    Certificate, Claims, Identity, IdentityError, KeyPair, PublicKey, TrustAnchor, canonical_overlay, canonical_user,
};
use super::oprf::Blinding;
use super::{Cost, ELEMENT, SHARES, credential, mask, oprf_input, share, xor};
use crate::core::{Rng, UnixTime};
use thiserror::Error;
use zeroize::Zeroizing;

const REQUEST: &str = "login request";
const ANSWER: &str = "login answer";
const MAX_SEALED: usize = 8 * 1024;

/// Why somebody is not logged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LoginError {
    /// Whichever it is, nobody says.
    #[error("name or password is wrong")]
    Wrong,
    /// What was sealed does not hold together: made by whoever set the password, or expired.
    #[error("what the password opens does not verify: {0}")]
    Identity(#[from] IdentityError),
}

/// What a stranger asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginRequest {
    /// Canonical user name.
    pub user: String,
    /// The password, blinded.
    pub blinded: [u8; ELEMENT],
}

impl LoginRequest {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1).text(&self.user).bytes(&self.blinded);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<LoginRequest, IdentityError> {
        let mut reader = Reader::new(bytes, REQUEST);
        reader.array(3)?;
        reader.version(1)?;
        let request = LoginRequest { user: reader.text()?.to_owned(), blinded: reader.exact()? };
        if canonical_user(&request.user)? != request.user {
            return Err(IdentityError::UserName);
        }
        canonical(bytes, &request.encode(), REQUEST)?;
        Ok(request)
    }
}

/// What it is answered, whether or not there is such a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginAnswer {
    /// The user's key under the sealing key.
    pub sealed: Vec<u8>,
    /// Of each share: itself under its mask, and the holder's answer.
    pub shares: [([u8; 32], [u8; ELEMENT]); SHARES],
}

impl LoginAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1).bytes(&self.sealed).nested(SHARES);
        for (masked, evaluation) in &self.shares {
            writer.nested(2).bytes(masked).bytes(evaluation);
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<LoginAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, ANSWER);
        reader.array(3)?;
        reader.version(1)?;
        let sealed = reader.bytes()?.to_vec();
        if sealed.len() > MAX_SEALED {
            return Err(IdentityError::TooLarge(ANSWER));
        }
        reader.array(SHARES as u64)?;
        let mut shares = [([0; 32], [0; ELEMENT]); SHARES];
        for share in &mut shares {
            reader.array(2)?;
            *share = (reader.exact()?, reader.exact()?);
        }
        let answer = LoginAnswer { sealed, shares };
        canonical(bytes, &answer.encode(), ANSWER)?;
        Ok(answer)
    }
}

/// One password, being tried. It may be sent to several supernodes.
#[derive(Debug)]
pub struct LoginAttempt {
    user: String,
    overlay: String,
    input: Zeroizing<Vec<u8>>,
    blinding: Blinding,
}

impl LoginAttempt {
    /// `user` of the office `overlay`.
    pub fn new(user: &str, overlay: &str, password: &str, rng: &mut Rng) -> Result<LoginAttempt, IdentityError> {
        let input = oprf_input(user, overlay, password)?;
        let blinding = Blinding::new(&input, rng).ok_or(IdentityError::Malformed(REQUEST))?;
        Ok(LoginAttempt { user: canonical_user(user)?, overlay: canonical_overlay(overlay)?, input, blinding })
    }

    /// What is sent.
    pub fn request(&self) -> LoginRequest {
        LoginRequest { user: self.user.clone(), blinded: self.blinding.blinded() }
    }

    /// Opens what came back. Takes as long as four runs of Argon2id at `cost`; which holders answered truly does not matter, as
    /// long as two did.
    pub fn open(&self, answer: &LoginAnswer, cost: Cost, now: UnixTime) -> Result<Recovered, LoginError> {
        let shares: Vec<Option<Zeroizing<[u8; 32]>>> = answer
            .shares
            .iter()
            .enumerate()
            .map(|(n, (masked, evaluation))| {
                let output = self.blinding.finish(&self.input, evaluation)?;
                Some(Zeroizing::new(xor(masked, &*mask(&output, n as u8 + 1, cost)?)))
            })
            .collect();
        let aor = format!("sip:{}@{}", self.user, self.overlay);
        let pairs = (0..SHARES).flat_map(|a| (a + 1..SHARES).map(move |b| (a, b)));
        let opened = pairs.into_iter().find_map(|(a, b)| {
            let key = share::join((a, shares[a].as_deref()?), (b, shares[b].as_deref()?))?;
            credential::open(&key, &aor, &answer.sealed)
        });
        let opened = opened.ok_or(LoginError::Wrong)?;
        let recovered = Recovered { key: opened.key, root: opened.root, enroller: opened.enroller, user: opened.user };
        recovered.check(&self.user, &self.overlay, now)?;
        Ok(recovered)
    }
}

/// What a right password gives.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The user's key.
    key: KeyPair,
    /// The office's root key: whoever knew the password vouched for it.
    root: PublicKey,
    enroller: Certificate,
    user: Certificate,
}

impl Recovered {
    /// The office: what the link's other end has to be a member of.
    pub fn anchor(&self) -> TrustAnchor {
        TrustAnchor::Office { overlay: self.user.overlay.clone(), root: self.root }
    }

    /// Makes and signs a device of the user. Until an enroller gives it a place on the ring it is an ordinary node.
    pub fn device(&self, label: &str, now: UnixTime, rng: &mut Rng) -> Result<Identity, IdentityError> {
        let (device, above) = (KeyPair::generate(rng), [self.enroller.clone(), self.user.clone()]);
        Identity::sign_in(self.key.clone(), &above, self.anchor(), device, label, now)
    }

    fn check(&self, user: &str, overlay: &str, now: UnixTime) -> Result<(), IdentityError> {
        for certificate in [&self.enroller, &self.user] {
            certificate.check(overlay, now)?;
        }
        let Claims::User(names) = &self.user.claims else { return Err(IdentityError::Shape("user")) };
        if self.enroller.claims != Claims::Enroller || self.enroller.issuer != self.root {
            return Err(IdentityError::Issuer("enroller"));
        }
        if self.user.issuer != self.enroller.subject {
            return Err(IdentityError::Issuer("user"));
        }
        if self.user.subject != self.key.public() || names.first().is_none_or(|n| n != user) {
            return Err(IdentityError::Shape("user"));
        }
        Ok(())
    }
}
