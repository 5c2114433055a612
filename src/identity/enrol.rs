//! Joining an office with a one-time code: what is sent, and the joiner's side.
//!
//! * request: `[1, invite name (8), user key, device key, label, proof (32)]`, the proof being BLAKE3, keyed with
//!   what both derive from the code's secret and the root's fingerprint, over the same array without the proof;
//! * answer: `[1, enroller certificate, user certificate, peer certificate]`.
//!
//! The joiner knows the enroller by the root's fingerprint in the code: only the root signs enrollers, so it does not
//! matter who carries the messages. The enroller knows the joiner by the proof, which covers both keys, so that who
//! overhears it cannot use it for keys of his own. The device's certificate is the joiner's own: its user key signs it.

use super::cbor::{Reader, Writer, canonical};
use super::name::check_label;
use super::{
    Certificate, Chain, Claims, CodeKind, DeviceAnswer, EnrolError, Identity, IdentityError, InviteCode, KeyPair,
    PublicKey, RootFingerprint, TrustAnchor,
};
use crate::core::{Rng, UnixTime};

/// Content type of both bodies.
pub const ENROLMENT_TYPE: &str = "application/chordial-enrolment+cbor";

const REQUEST: &str = "enrolment request";
const ANSWER: &str = "enrolment answer";

/// What a joiner asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    pub(super) invite: [u8; 8],
    pub(super) user_key: PublicKey,
    pub(super) device_key: PublicKey,
    pub(super) label: String,
    proof: [u8; 32],
}

impl JoinRequest {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(6);
        self.write_proven(&mut writer);
        writer.bytes(&self.proof);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Proves nothing.
    pub fn decode(bytes: &[u8]) -> Result<JoinRequest, IdentityError> {
        let mut reader = Reader::new(bytes, REQUEST);
        reader.array(6)?;
        reader.version(1)?;
        let request = JoinRequest {
            invite: reader.exact()?,
            user_key: PublicKey(reader.exact()?),
            device_key: PublicKey(reader.exact()?),
            label: reader.text()?.to_owned(),
            proof: reader.exact()?,
        };
        check_label(&request.label)?;
        canonical(bytes, &request.encode(), REQUEST)?;
        Ok(request)
    }

    /// True when whoever made it has the code; takes the same time either way.
    pub(super) fn is_proven(&self, key: &[u8; 32]) -> bool {
        // blake3::Hash compares in constant time.
        self.prove(key) == blake3::Hash::from_bytes(self.proof)
    }

    fn prove(&self, key: &[u8; 32]) -> blake3::Hash {
        let mut writer = Writer::array(5);
        self.write_proven(&mut writer);
        blake3::keyed_hash(key, &writer.finish())
    }

    fn write_proven(&self, writer: &mut Writer) {
        writer.uint(1).bytes(&self.invite).bytes(&self.user_key.0).bytes(&self.device_key.0).text(&self.label);
    }
}

/// What an enroller answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinAnswer {
    pub(super) enroller: Certificate,
    pub(super) user: Certificate,
    pub(super) peer: Certificate,
}

impl JoinAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).raw(&self.enroller.encode()).raw(&self.user.encode()).raw(&self.peer.encode());
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<JoinAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, ANSWER);
        reader.array(4)?;
        reader.version(1)?;
        let mut next = || Certificate::read(&mut reader);
        let answer = JoinAnswer { enroller: next()?, user: next()?, peer: next()? };
        canonical(bytes, &answer.encode(), ANSWER)?;
        Ok(answer)
    }
}

/// The joiner's side: new keys, and the code until the answer is there.
#[derive(Clone, Debug)]
pub struct Joining {
    code: InviteCode,
    label: String,
    user_key: KeyPair,
    device: KeyPair,
}

impl Joining {
    /// Draws the keys of a user and of this device, which `label` names for people.
    pub fn new(code: InviteCode, label: &str, rng: &mut Rng) -> Result<Joining, IdentityError> {
        check_label(label)?;
        Ok(Joining { code, label: label.to_owned(), user_key: KeyPair::generate(rng), device: KeyPair::generate(rng) })
    }

    /// Checks the answer of one of the user's devices and makes the identity; for a code of that kind.
    pub fn finish_device(&self, answer: &DeviceAnswer, now: UnixTime) -> Result<Identity, EnrolError> {
        answer.finish(&self.code, &self.request(), &self.device, now)
    }

    /// Who answers the code.
    pub fn kind(&self) -> CodeKind {
        self.code.kind
    }

    /// The device's key, with which the link to the enroller is opened while there is no chain.
    pub fn device(&self) -> &KeyPair {
        &self.device
    }

    /// By what the enroller is known.
    pub fn root(&self) -> RootFingerprint {
        self.code.root
    }

    /// The request. The same each time: asking again after a lost answer gives the same answer.
    pub fn request(&self) -> JoinRequest {
        let mut request = JoinRequest {
            invite: self.code.name(),
            user_key: self.user_key.public(),
            device_key: self.device.public(),
            label: self.label.clone(),
            proof: [0; 32],
        };
        request.proof = *request.prove(&self.code.proof_key()).as_bytes();
        request
    }

    /// Checks the answer and makes the identity. `NotTheOffice` when it is not from the code's office.
    pub fn finish(&self, answer: &JoinAnswer, now: UnixTime) -> Result<Identity, EnrolError> {
        let root = answer.enroller.issuer;
        if RootFingerprint::of(&root) != self.code.root {
            return Err(EnrolError::NotTheOffice);
        }
        let overlay = answer.enroller.overlay.clone();
        let label = Claims::Device(self.label.clone());
        let device = Certificate::issue(&self.user_key, self.device.public(), &overlay, label, now)?;
        let certificates = vec![answer.enroller.clone(), answer.user.clone(), device, answer.peer.clone()];
        let anchor = TrustAnchor::Office { overlay, root };
        let (device, user_key) = (self.device.clone(), Some(self.user_key.clone()));
        // Every signature is checked in there, and that user and peer certificate are about our keys.
        Ok(Identity::assemble(device, user_key, Chain::new(certificates), anchor, now)?)
    }
}
