//! Chains of certificates, what they are checked against, and a memory of those that were good.
//!
//! A chain is an array of certificates in a fixed order. Office: `[enroller, user, device, peer?, adapter?, enroller*]`: enrollers
//! are issued by the root, the user by the first enroller, the device by the user; peer and adapter are about the device's key
//! and issued by any enroller of the chain. Enrollers beyond the first are there for peer or adapter alone, none twice.
//! Open: `[user, device]`, the user's issued by itself.
//!
//! A device of an office without a peer certificate has no place on the ring ([`Verified::has_place`]): its user has signed it, and
//! no enroller has drawn a peer-ID for it yet. It calls and is called by way of others.

use super::cbor::{Reader, Writer, canonical};
use super::{
    CLOCK_SKEW, Certificate, Claims, IdentityError, MayWrite, PublicKey, Purpose, RecordError, Revoked, SignedEntry,
    Word, split_aor,
};
use crate::core::{Id, UnixTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const WHAT: &str = "chain";
/// Most certificates in a chain.
const MAX_CERTIFICATES: u64 = 7;
/// Largest encoding of a chain, in bytes.
const MAX_CHAIN: usize = 6 * 1024;

/// Certificates from the one that the anchor signed down to the device's. Cheap to clone; unverified until
/// [`TrustAnchor::verify_chain`] says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    certificates: Arc<[Certificate]>,
    encoded: Arc<[u8]>,
}

impl Chain {
    /// A chain of these certificates, in the order of the module's description.
    pub fn new(certificates: Vec<Certificate>) -> Chain {
        let mut writer = Writer::array(certificates.len());
        for certificate in &certificates {
            writer.raw(&certificate.encode());
        }
        Chain { certificates: certificates.into(), encoded: writer.finish().into() }
    }

    /// Reads a chain. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Chain, IdentityError> {
        if bytes.len() > MAX_CHAIN {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let chain = Chain::read(&mut Reader::new(bytes, WHAT))?;
        canonical(bytes, &chain.encoded, WHAT)?;
        Ok(chain)
    }

    /// The encoding.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The key of the device that the chain is about, as far as it claims one.
    pub fn device(&self) -> Option<PublicKey> {
        self.find(|claims| matches!(claims, Claims::Device(_))).map(|c| c.subject)
    }

    /// The key of the user that the chain is about, as far as it claims one.
    pub fn user_key(&self) -> Option<PublicKey> {
        self.find(|claims| matches!(claims, Claims::User(_))).map(|c| c.subject)
    }

    /// Whose claim to the name `user` this is: the key of the user who has it, or of a phone's adapter the office's root, so that
    /// several adapters of one phone are one claim.
    pub fn claimant(&self, user: &str) -> Option<PublicKey> {
        let delegated =
            |c: &Certificate| matches!(&c.claims, Claims::Adapter(names) if names.iter().any(|n| n == user));
        match self.certificates.iter().any(delegated) {
            true => self.certificates.first().map(|enroller| enroller.issuer),
            false => self.user_key(),
        }
    }

    pub(super) fn find(&self, which: impl Fn(&Claims) -> bool) -> Option<&Certificate> {
        self.certificates.iter().find(|c| which(&c.claims))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Chain, IdentityError> {
        let len = reader.list(MAX_CERTIFICATES)?;
        let certificates = (0..len).map(|_| Certificate::read(reader)).collect::<Result<Vec<_>, _>>()?;
        Ok(Chain::new(certificates))
    }

    fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encoded).as_bytes()
    }
}

/// What a verified chain says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The device's key; a link's other end has proven to hold it.
    pub device: PublicKey,
    /// The key of its user.
    pub user_key: PublicKey,
    /// The user's name.
    pub user: String,
    /// The user's extensions.
    pub aliases: Vec<String>,
    /// The label that the user gave the device.
    pub label: String,
    /// The device's place on the ring; without one, the SHA-1 of its key, by which it is known all the same.
    pub peer_id: Id,
    /// True when the device may take that place: an enroller drew it, or the overlay is open. Who chose its own key, and so its
    /// own number, never joins an office's ring.
    pub has_place: bool,
    /// The enrollers' keys that the chain leans on, the user's first; empty in an open overlay.
    pub enrollers: Vec<PublicKey>,
    /// What those enrollers say in the chain, each with who says it.
    pub said: Vec<(PublicKey, Word)>,
    /// The phone accounts that the device may sign for.
    pub adapter_for: Vec<String>,
    /// Until when all certificates count, tolerance included.
    pub valid_until: UnixTime,
}

impl Verified {
    /// True when this device may sign entries of `user`: its own name, an extension or a phone account.
    pub fn speaks_for(&self, user: &str) -> bool {
        self.user == user || self.aliases.iter().chain(&self.adapter_for).any(|n| n == user)
    }
}

/// What every chain of one overlay goes back to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrustAnchor {
    /// An office: its name and its root key.
    Office {
        /// The overlay's canonical name.
        overlay: String,
        /// The root key.
        root: PublicKey,
    },
    /// An open overlay: its name; keys certify themselves.
    Open {
        /// The overlay's canonical name.
        overlay: String,
    },
}

impl TrustAnchor {
    /// The overlay's name.
    pub fn overlay(&self) -> &str {
        match self {
            TrustAnchor::Office { overlay, .. } | TrustAnchor::Open { overlay } => overlay,
        }
    }

    /// Checks every certificate of `chain` at `now`: order, issuers, overlay, validity, signatures.
    pub fn verify_chain(&self, chain: &Chain, now: UnixTime) -> Result<Verified, IdentityError> {
        let certificates = chain.certificates();
        let verified = match self {
            TrustAnchor::Office { root, .. } => office(certificates, *root)?,
            TrustAnchor::Open { .. } => open(certificates)?,
        };
        for certificate in certificates {
            certificate.check(self.overlay(), now)?;
        }
        Ok(verified)
    }

    /// Checks `entry`, found at or sent for `key`, at `now`: address, place, life, then the signer's chain and the signature.
    /// [`Verifier::verify_entry`] does the same and remembers chains.
    pub fn verify_entry(&self, entry: &SignedEntry, key: &Id, now: UnixTime) -> Result<(), RecordError> {
        check_entry(self, entry, key, now)?;
        let verified = self.verify_chain(entry.chain(), now)?;
        check_signer(&verified, entry)
    }
}

/// A trust anchor that remembers the chains that it has verified, so that a holder of many entries of one device, or a
/// device's hundredth refresh, costs one signature check instead of five.
#[derive(Clone, Debug)]
pub struct Verifier {
    anchor: TrustAnchor,
    revoked: Arc<Revoked>,
    capacity: usize,
    known: BTreeMap<[u8; 32], Verified>,
    oldest: VecDeque<[u8; 32]>,
}

impl Verifier {
    /// Remembers at most `capacity` chains (about 500 bytes each); the oldest gives way.
    pub fn new(anchor: TrustAnchor, capacity: usize) -> Verifier {
        Verifier { anchor, revoked: Arc::default(), capacity, known: BTreeMap::new(), oldest: VecDeque::new() }
    }

    /// What it checks against.
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// From now on refuses chains that lean on any of these, remembered or not.
    pub fn revoke(&mut self, revoked: Arc<Revoked>) {
        self.revoked = revoked;
    }

    /// True when what `entry`, which verified once, leans on has been revoked since.
    pub fn is_revoked(&mut self, entry: &SignedEntry, now: UnixTime) -> bool {
        matches!(self.lookup(entry.chain(), now), Err(IdentityError::Revoked(_)))
    }

    /// As [`TrustAnchor::verify_chain`]. Only chains that verified are remembered.
    pub fn verify_chain(&mut self, chain: &Chain, now: UnixTime) -> Result<Verified, IdentityError> {
        self.lookup(chain, now).cloned()
    }

    /// As [`TrustAnchor::verify_entry`].
    pub fn verify_entry(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> Result<(), RecordError> {
        check_entry(&self.anchor, entry, key, now)?;
        check_signer(self.lookup(entry.chain(), now)?, entry)
    }

    /// As [`Verifier::verify_entry`], of an entry that is known to be good but for its renewal: one signature check.
    pub fn verify_touch(&mut self, entry: &SignedEntry, key: &Id, now: UnixTime) -> Result<(), RecordError> {
        check_entry(&self.anchor, entry, key, now)?;
        self.lookup(entry.chain(), now)?;
        check_touch(entry)
    }

    /// How many chains it remembers.
    pub fn remembered(&self) -> usize {
        self.known.len()
    }

    fn lookup(&mut self, chain: &Chain, now: UnixTime) -> Result<&Verified, IdentityError> {
        let digest = chain.digest();
        let good = self.known.get(&digest).is_some_and(|v| now <= v.valid_until);
        if !good {
            // Out of its time, or never seen: the full check says which certificate it is.
            let verified = self.anchor.verify_chain(chain, now)?;
            while self.oldest.len() >= self.capacity.max(1) {
                if let Some(gone) = self.oldest.pop_front() {
                    self.known.remove(&gone);
                }
            }
            self.oldest.push_back(digest);
            self.known.insert(digest, verified);
        }
        let verified = self.known.get(&digest).ok_or(IdentityError::Malformed(WHAT))?;
        self.revoked.check(verified)?;
        Ok(verified)
    }
}

/// The checks that need no signature, cheapest first, so that rubbish costs a holder little.
fn check_entry(anchor: &TrustAnchor, entry: &SignedEntry, key: &Id, now: UnixTime) -> Result<(), RecordError> {
    let e = entry.entry();
    let (_, overlay) = split_aor(&e.aor).ok_or(RecordError::Aor)?;
    if overlay != anchor.overlay() {
        return Err(RecordError::Overlay);
    }
    if e.resource_key() != *key {
        return Err(RecordError::Key);
    }
    let rules = e.kind.rules();
    if e.lifetime == 0 || u64::from(e.lifetime) > rules.longest.as_secs() {
        return Err(RecordError::Lifetime);
    }
    if e.body.len() > rules.largest {
        return Err(RecordError::TooLarge);
    }
    if e.issued > now + CLOCK_SKEW {
        return Err(RecordError::Future);
    }
    if let Some(touch) = entry.touch() {
        if touch.lifetime == 0 || u64::from(touch.lifetime) > rules.longest.as_secs() || e.is_removal() {
            return Err(RecordError::Lifetime);
        }
        if touch.issued > now + CLOCK_SKEW {
            return Err(RecordError::Future);
        }
    }
    if entry.expires() <= now {
        return Err(RecordError::Expired);
    }
    Ok(())
}

fn check_touch(entry: &SignedEntry) -> Result<(), RecordError> {
    let good = entry.touch().is_none_or(|t| t.holds(&entry.entry().device, entry.signed_bytes()));
    if good { Ok(()) } else { Err(RecordError::Signature) }
}

fn check_signer(verified: &Verified, entry: &SignedEntry) -> Result<(), RecordError> {
    let e = entry.entry();
    if e.device != verified.device {
        return Err(RecordError::Device);
    }
    let own = |user: &str| verified.speaks_for(user) || e.kind.is_private_to(user, &verified.user);
    let may = match e.kind.rules().writers {
        MayWrite::Own => split_aor(&e.aor).is_some_and(|(user, _)| own(user)),
        MayWrite::Member => true,
    };
    if !may {
        return Err(RecordError::Aor);
    }
    if !verified.device.verify(Purpose::Entry, entry.signed_bytes(), entry.signature()) {
        return Err(RecordError::Signature);
    }
    check_touch(entry)
}

fn office(chain: &[Certificate], root: PublicKey) -> Result<Verified, IdentityError> {
    let enroller = expect(chain, 0, "enroller", |c| matches!(c, Claims::Enroller))?;
    let user = expect(chain, 1, "user", |c| matches!(c, Claims::User(_)))?;
    let device = expect(chain, 2, "device", |c| matches!(c, Claims::Device(_)))?;
    let mut rest = chain.get(3..).unwrap_or_default().iter().peekable();
    let peer = rest.next_if(|c| matches!(c.claims, Claims::Peer(_)));
    let adapter = rest.next_if(|c| matches!(c.claims, Claims::Adapter(_)));
    let about_device = || [peer, adapter].into_iter().flatten();
    issued_by(enroller, root)?;
    issued_by(user, enroller.subject)?;
    issued_by(device, user.subject)?;
    let mut enrollers = vec![enroller.subject];
    for further in rest {
        let needed = about_device().any(|c| c.issuer == further.subject) && !enrollers.contains(&further.subject);
        if further.claims != Claims::Enroller || !needed {
            return Err(IdentityError::Malformed(WHAT));
        }
        issued_by(further, root)?;
        enrollers.push(further.subject);
    }
    for certificate in about_device() {
        if !enrollers.contains(&certificate.issuer) {
            return Err(IdentityError::Issuer(certificate.claims.kind_name()));
        }
        if certificate.subject != device.subject {
            return Err(IdentityError::Shape(certificate.claims.kind_name()));
        }
    }
    let place = peer.and_then(|p| if let Claims::Peer(id) = &p.claims { Some(*id) } else { None });
    let adapter_for = match adapter.map(|a| &a.claims) {
        Some(Claims::Adapter(names)) => names.clone(),
        _ => Vec::new(),
    };
    verified(chain, user, device, place, enrollers, adapter_for)
}

fn open(chain: &[Certificate]) -> Result<Verified, IdentityError> {
    let user = expect(chain, 0, "user", |c| matches!(c, Claims::User(_)))?;
    let device = expect(chain, 1, "device", |c| matches!(c, Claims::Device(_)))?;
    if chain.len() > 2 {
        return Err(IdentityError::Malformed(WHAT));
    }
    issued_by(user, user.subject)?;
    issued_by(device, user.subject)?;
    verified(chain, user, device, Some(key_peer_id(&device.subject)), Vec::new(), Vec::new())
}

/// The peer-ID of a device to which no enroller has given one: SHA-1 of its key.
fn key_peer_id(device: &PublicKey) -> Id {
    Id::sha1(&device.0)
}

fn expect<'c>(
    chain: &'c [Certificate],
    at: usize,
    what: &'static str,
    which: impl Fn(&Claims) -> bool,
) -> Result<&'c Certificate, IdentityError> {
    chain.get(at).filter(|c| which(&c.claims)).ok_or(IdentityError::Shape(what))
}

fn issued_by(certificate: &Certificate, issuer: PublicKey) -> Result<(), IdentityError> {
    if certificate.issuer == issuer { Ok(()) } else { Err(IdentityError::Issuer(certificate.claims.kind_name())) }
}

fn verified(
    chain: &[Certificate],
    user: &Certificate,
    device: &Certificate,
    place: Option<Id>,
    enrollers: Vec<PublicKey>,
    adapter_for: Vec<String>,
) -> Result<Verified, IdentityError> {
    let Claims::User(names) = &user.claims else { return Err(IdentityError::Shape("user")) };
    let Claims::Device(label) = &device.claims else { return Err(IdentityError::Shape("device")) };
    let (name, aliases) = names.split_first().ok_or(IdentityError::UserName)?;
    let until = chain.iter().map(|c| c.not_after + CLOCK_SKEW).min().unwrap_or_default();
    let by_enrollers = chain.iter().filter(|c| enrollers.contains(&c.issuer));
    let said = by_enrollers.map(|c| (c.issuer, Word::certificate(c))).collect();
    Ok(Verified {
        device: device.subject,
        user_key: user.subject,
        user: name.clone(),
        aliases: aliases.to_vec(),
        label: label.clone(),
        peer_id: place.unwrap_or_else(|| key_peer_id(&device.subject)),
        has_place: place.is_some(),
        enrollers,
        said,
        adapter_for,
        valid_until: until,
    })
}
