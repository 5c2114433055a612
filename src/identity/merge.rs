//! One office taken into another: what the enrollers of the two say to each other, and what a device of the one asks of the other's.
//!
//! * An enroller of the office that stays shows a code ([`CodeKind::Merge`](super::CodeKind)). An enroller of the office that ends opens a link with it;
//!   each sees the other's chain, the one who has the code knows the other's root by it, and proves that it has it.
//! * offer: `[1, code's name (8), [overlay, root], delegation of _enrollers, enroller certificate, [[user key, [name...]]...], [[user key, device
//!   key]...], proof (32)]`: who is to come, and which devices are revoked; the proof is BLAKE3, keyed as in an enrolment, over the array without it;
//! * terms: `[1, enroller certificate, [[user key, [name...]]...]]`: what each is called from then on.
//! * A device that moves asks `[2, chain, [device certificate...], [[adapter, enroller]...], issued, signature]`: as whom it was known, what its
//!   user's key says of it (and of further devices) in the other office, and its delegations;
//! * answer `[2, enroller, user, device, peer, [adapter...], [refused phone...]]`.
//!
//! The device keeps its keys and its place on the ring's circle: who else could take it is who enrolled it before, and that
//! one's office was taken in by its word. Calls under way go on by it.

use super::cbor::{Reader, Writer, canonical};
use super::own::{read_anchor, write_anchor};
use super::{
    Certificate, Chain, Claims, Identity, IdentityError, InviteCode, KeyPair, MAX_ASKED, MAX_MERGED, PublicKey,
    Purpose, TrustAnchor, canonical_user,
};
use crate::core::{Id, UnixTime};
use std::time::Duration;

/// Content type of all four bodies.
pub const MERGE_TYPE: &str = "application/chordial-merge+cbor";
/// How long after the merge devices of the office that ended are still taken in.
pub const MERGE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most further devices that one device speaks for.
pub(super) const MAX_BROUGHT: usize = 16;
/// Most revoked devices in an offer.
const MAX_GONE: usize = 1024;
const OFFER: &str = "offer to merge";
const TERMS: &str = "terms of a merge";
const ASK: &str = "request to move";
const ANSWER: &str = "answer to a move";

/// A user's key and names, the first of which is the name.
pub type Named = (PublicKey, Vec<String>);

/// What the office that ends brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeOffer {
    pub(super) code: [u8; 8],
    /// The office that ends.
    pub anchor: TrustAnchor,
    /// Shows that who says so is its enroller: the delegation and who signed it.
    pub(super) right: (Certificate, Certificate),
    /// Who is to come, in the order in which they get their names.
    pub users: Vec<Named>,
    /// User and device keys that do not come.
    pub gone: Vec<(PublicKey, PublicKey)>,
    proof: [u8; 32],
}

impl MergeOffer {
    /// With the proof that the code is known.
    pub fn new(
        code: &InviteCode,
        anchor: TrustAnchor,
        right: (Certificate, Certificate),
        users: Vec<Named>,
        gone: Vec<(PublicKey, PublicKey)>,
    ) -> Result<MergeOffer, IdentityError> {
        if users.len() > MAX_MERGED || gone.len() > MAX_GONE {
            return Err(IdentityError::TooLarge("office to be merged"));
        }
        let mut offer = MergeOffer { code: code.name(), anchor, right, users, gone, proof: [0; 32] };
        offer.proof = *offer.prove(&code.proof_key()).as_bytes();
        Ok(offer)
    }

    /// True when whoever made it has the code.
    pub(super) fn is_proven(&self, key: &[u8; 32]) -> bool {
        // Compares in constant time.
        self.prove(key) == blake3::Hash::from_bytes(self.proof)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(8);
        self.write_proven(&mut writer);
        writer.bytes(&self.proof);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Proves nothing.
    pub fn decode(bytes: &[u8]) -> Result<MergeOffer, IdentityError> {
        let mut reader = Reader::new(bytes, OFFER);
        reader.array(8)?;
        reader.version(1)?;
        let (code, anchor) = (reader.exact()?, read_anchor(&mut reader)?);
        let right = (Certificate::read(&mut reader)?, Certificate::read(&mut reader)?);
        let users = read_users(&mut reader)?;
        let mut gone = Vec::new();
        for _ in 0..reader.list(MAX_GONE as u64)? {
            reader.array(2)?;
            gone.push((PublicKey(reader.exact()?), PublicKey(reader.exact()?)));
        }
        let offer = MergeOffer { code, anchor, right, users, gone, proof: reader.exact()? };
        canonical(bytes, &offer.encode(), OFFER)?;
        Ok(offer)
    }

    fn prove(&self, key: &[u8; 32]) -> blake3::Hash {
        let mut writer = Writer::array(7);
        self.write_proven(&mut writer);
        blake3::keyed_hash(key, &writer.finish())
    }

    fn write_proven(&self, writer: &mut Writer) {
        writer.uint(1).bytes(&self.code);
        write_anchor(writer, &self.anchor);
        writer.raw(&self.right.0.encode()).raw(&self.right.1.encode());
        write_users(writer, &self.users);
        writer.nested(self.gone.len());
        for (user, device) in &self.gone {
            writer.nested(2).bytes(&user.0).bytes(&device.0);
        }
    }
}

/// What the office that stays makes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeTerms {
    /// Of the enroller that admits them.
    pub enroller: Certificate,
    /// What each is called.
    pub users: Vec<Named>,
}

impl MergeTerms {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1).raw(&self.enroller.encode());
        write_users(&mut writer, &self.users);
        writer.finish()
    }

    /// Checks that an enroller of `office` says so; its root.
    pub fn verify(&self, office: &TrustAnchor, now: UnixTime) -> Result<PublicKey, IdentityError> {
        let TrustAnchor::Office { overlay, root } = office else { return Err(IdentityError::NotOurs) };
        if self.enroller.claims != Claims::Enroller || self.enroller.issuer != *root {
            return Err(IdentityError::Issuer("enroller"));
        }
        self.enroller.check(overlay, now)?;
        Ok(*root)
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<MergeTerms, IdentityError> {
        let mut reader = Reader::new(bytes, TERMS);
        reader.array(3)?;
        reader.version(1)?;
        let terms = MergeTerms { enroller: Certificate::read(&mut reader)?, users: read_users(&mut reader)? };
        canonical(bytes, &terms.encode(), TERMS)?;
        Ok(terms)
    }
}

/// A device asks to be taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveAsk {
    /// As whom it was known.
    pub chain: Chain,
    /// What its user's key says of it, and of the user's further devices, in the other office.
    pub(super) devices: Vec<Certificate>,
    /// Its delegations, each with who signed it.
    pub(super) phones: Vec<(Certificate, Certificate)>,
    pub(super) issued: UnixTime,
    signature: [u8; 64],
}

impl MoveAsk {
    /// Signs with the device's key; a device that holds the user's key vouches for itself and its sisters in `office`.
    pub fn sign(by: &Identity, office: &str, now: UnixTime) -> Result<MoveAsk, IdentityError> {
        let mut devices = Vec::new();
        if let Some(user_key) = &by.user_key {
            let own = by.chain.certificates().iter().find(|c| matches!(c.claims, Claims::Device(_)));
            for about in own.into_iter().chain(by.signed_devices().iter().rev()).take(MAX_BROUGHT) {
                devices.push(Certificate::issue(user_key, about.subject, office, about.claims.clone(), now)?);
            }
        }
        let phones = by.delegations().take(MAX_ASKED).cloned().collect();
        let mut ask = MoveAsk { chain: by.chain.clone(), devices, phones, issued: now, signature: [0; 64] };
        ask.signature = by.device.sign(Purpose::Move, &ask.signed_bytes());
        Ok(ask)
    }

    /// True when the device that the chain is about has signed it.
    pub(super) fn is_signed(&self) -> bool {
        let device = self.chain.device();
        device.is_some_and(|device| device.verify(Purpose::Move, &self.signed_bytes(), &self.signature))
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(6);
        self.write_signed(&mut writer);
        writer.bytes(&self.signature);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<MoveAsk, IdentityError> {
        let mut reader = Reader::new(bytes, ASK);
        reader.array(6)?;
        reader.version(2)?;
        let chain = Chain::read(&mut reader)?;
        let mut devices = Vec::new();
        for _ in 0..reader.list(MAX_BROUGHT as u64)? {
            devices.push(Certificate::read(&mut reader)?);
        }
        let mut phones = Vec::new();
        for _ in 0..reader.list(MAX_ASKED as u64)? {
            reader.array(2)?;
            phones.push((Certificate::read(&mut reader)?, Certificate::read(&mut reader)?));
        }
        let ask = MoveAsk { chain, devices, phones, issued: UnixTime(reader.uint()?), signature: reader.exact()? };
        canonical(bytes, &ask.encode(), ASK)?;
        Ok(ask)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(5);
        self.write_signed(&mut writer);
        writer.finish()
    }

    fn write_signed(&self, writer: &mut Writer) {
        writer.uint(2).raw(self.chain.encoded()).nested(self.devices.len());
        for certificate in &self.devices {
            writer.raw(&certificate.encode());
        }
        writer.nested(self.phones.len());
        for (adapter, enroller) in &self.phones {
            writer.nested(2).raw(&adapter.encode()).raw(&enroller.encode());
        }
        writer.uint(self.issued.secs());
    }
}

/// A device is taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveAnswer {
    /// Enroller, user, device, peer.
    pub(super) chain: [Certificate; 4],
    pub(super) adapters: Vec<Certificate>,
    /// Phones that do not come: their names are somebody's.
    pub refused: Vec<String>,
}

impl MoveAnswer {
    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(7);
        writer.uint(2);
        for certificate in &self.chain {
            writer.raw(&certificate.encode());
        }
        writer.nested(self.adapters.len());
        for certificate in &self.adapters {
            writer.raw(&certificate.encode());
        }
        writer.nested(self.refused.len());
        for name in &self.refused {
            writer.text(name);
        }
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<MoveAnswer, IdentityError> {
        let mut reader = Reader::new(bytes, ANSWER);
        reader.array(7)?;
        reader.version(2)?;
        let mut next = || Certificate::read(&mut reader);
        let chain = [next()?, next()?, next()?, next()?];
        let adapters = (0..reader.list(MAX_ASKED as u64)?)
            .map(|_| Certificate::read(&mut reader))
            .collect::<Result<Vec<_>, _>>()?;
        let mut refused = Vec::new();
        for _ in 0..reader.list(MAX_ASKED as u64)? {
            refused.push(reader.text()?.to_owned());
        }
        let answer = MoveAnswer { chain, adapters, refused };
        canonical(bytes, &answer.encode(), ANSWER)?;
        Ok(answer)
    }

    /// Who this device is in the other office, when everything holds against the root that its own office named.
    pub fn finish(&self, by: &Identity, office: &TrustAnchor, now: UnixTime) -> Result<Identity, IdentityError> {
        let (device, user_key): (KeyPair, _) = (by.device.clone(), by.user_key.clone());
        let chain = Chain::new(self.chain.to_vec());
        if chain.user_key() != by.chain.user_key() {
            return Err(IdentityError::Shape("user"));
        }
        let mut moved = Identity::assemble(device, user_key, chain, office.clone(), now)?;
        let enroller = self.chain[0].clone();
        for adapter in &self.adapters {
            moved.add_adapter(adapter.clone(), &enroller, now)?;
        }
        moved.bring_signed(by, &self.chain[2].overlay, now)?;
        Ok(moved)
    }
}

/// The place that a chain shows, where it has one.
pub(super) fn shown_place(chain: &Chain) -> Option<Id> {
    chain.certificates().iter().find_map(|c| if let Claims::Peer(id) = &c.claims { Some(*id) } else { None })
}

pub(super) fn write_users(writer: &mut Writer, users: &[Named]) {
    writer.nested(users.len());
    for (key, names) in users {
        writer.nested(2).bytes(&key.0).nested(names.len());
        for name in names {
            writer.text(name);
        }
    }
}

pub(super) fn read_users(reader: &mut Reader<'_>) -> Result<Vec<Named>, IdentityError> {
    let mut users = Vec::new();
    for _ in 0..reader.list(MAX_MERGED as u64)? {
        reader.array(2)?;
        let key = PublicKey(reader.exact()?);
        let mut names = Vec::new();
        for _ in 0..reader.list(super::certificate::MAX_NAMES as u64)? {
            let name = reader.text()?;
            if canonical_user(name)? != name || name.starts_with('_') {
                return Err(IdentityError::UserName);
            }
            names.push(name.to_owned());
        }
        if names.is_empty() {
            return Err(IdentityError::UserName);
        }
        users.push((key, names));
    }
    Ok(users)
}
