//! The book of an office: which name belongs to which key, which device has which place, which device may sign for which phone.
//! It is made of certificates and nothing else, so that whoever gets a page of it can check it against the root: enrollers
//! reconcile their books and are one office.
//!
//! A page is an array of certificates: `[user, enroller]`, `[peer, enroller]`, `[peer, enroller, device]` or `[adapter, enroller]`, the first
//! issued by the enroller. Of two pages about one thing the one that ends later stays.
//!
//! Two enrollers who cannot reach each other may give one name twice. Both pages stay, the name is shown as in conflict, and an
//! administrator revokes one of the keys; until then both may ring under it.

use super::cbor::{Reader, Writer, canonical};
use super::{Ask, Certificate, Claims, ENROLLERS, IdentityError, ItemId, PublicKey, Reconciled, Revoked, TrustAnchor};
use crate::core::{Id, UnixTime};
use std::collections::BTreeMap;

const WHAT: &str = "page of the office's book";
/// Most users, devices and delegations, each.
pub const MAX_BOOK: usize = 16_384;
/// Most enrollers.
const MAX_ENROLLERS: usize = 64;

/// A device in the book.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BookDevice {
    /// Its place on the ring.
    pub peer: Certificate,
    /// What its user says of it, once it was shown.
    pub about: Option<Certificate>,
}

impl BookDevice {
    /// The place.
    pub fn peer_id(&self) -> Id {
        if let Claims::Peer(id) = &self.peer.claims { *id } else { Id::default() }
    }

    /// The key of its user, where known.
    pub fn user(&self) -> Option<PublicKey> {
        self.about.as_ref().map(|c| c.issuer)
    }

    /// What its user calls it.
    pub fn label(&self) -> &str {
        match self.about.as_ref().map(|c| &c.claims) {
            Some(Claims::Device(label)) => label,
            _ => "",
        }
    }
}

/// Users, devices and delegations of an office.
#[derive(Clone, Default, Debug)]
pub struct Book {
    users: BTreeMap<PublicKey, Certificate>,
    devices: BTreeMap<PublicKey, BookDevice>,
    adapters: BTreeMap<(PublicKey, Vec<String>), Certificate>,
    enrollers: BTreeMap<PublicKey, Certificate>,
}

impl Book {
    /// Takes a certificate of an enroller, with what a user says of the device where it is about one. True when it is
    /// news; nothing is checked here.
    pub(super) fn enter(
        &mut self,
        certificate: Certificate,
        enroller: &Certificate,
        about: Option<Certificate>,
    ) -> bool {
        let room = self.enrollers.contains_key(&enroller.subject) || self.enrollers.len() < MAX_ENROLLERS;
        if certificate.issuer != enroller.subject || !room {
            return false;
        }
        let subject = certificate.subject;
        let news = match certificate.claims.clone() {
            Claims::User(_) => place(&mut self.users, subject, certificate),
            Claims::Adapter(names) => place(&mut self.adapters, (subject, names), certificate),
            Claims::Peer(_) => {
                let full = self.devices.len() >= MAX_BOOK;
                match self.devices.get_mut(&subject) {
                    None if full => false,
                    None => {
                        self.devices.insert(subject, BookDevice { peer: certificate, about });
                        true
                    }
                    Some(held) => {
                        let later = is_later(&held.peer, &certificate);
                        let told = match (&held.about, &about) {
                            (None, Some(_)) => true,
                            (Some(old), Some(new)) => is_later(old, new),
                            _ => false,
                        };
                        if later {
                            held.peer = certificate;
                        }
                        if told {
                            held.about = about;
                        }
                        later || told
                    }
                }
            }
            Claims::Enroller | Claims::Device(_) => false,
        };
        if news {
            self.enrollers.insert(enroller.subject, enroller.clone());
        }
        news
    }

    /// Checks a page of another enroller against the root and takes it; true when it is news.
    pub fn take(
        &mut self,
        page: &[u8],
        overlay: &str,
        root: PublicKey,
        revoked: &Revoked,
        now: UnixTime,
    ) -> Result<bool, IdentityError> {
        let (first, enroller, about) = read_page(page)?;
        if enroller.claims != Claims::Enroller || enroller.issuer != root {
            return Err(IdentityError::Issuer("enroller"));
        }
        let shape = match (&first.claims, about.as_ref().map(|a| &a.claims)) {
            (Claims::User(_) | Claims::Adapter(_) | Claims::Peer(_), None) => true,
            (Claims::Peer(_), Some(Claims::Device(_))) => about.as_ref().is_some_and(|a| a.subject == first.subject),
            _ => false,
        };
        if !shape || first.issuer != enroller.subject {
            return Err(IdentityError::Shape(first.claims.kind_name()));
        }
        for certificate in [&first, &enroller].into_iter().chain(&about) {
            certificate.check(overlay, now)?;
        }
        // Another enroller may not have heard of it yet: no fault of the page's sender.
        if revoked.disowns(&first) {
            return Ok(false);
        }
        Ok(self.enter(first, &enroller, about))
    }

    /// Takes a page of this enroller's own file.
    pub(super) fn restore(&mut self, page: &[u8]) -> Result<(), IdentityError> {
        let (first, enroller, about) = read_page(page)?;
        match self.enter(first, &enroller, about) {
            true => Ok(()),
            false => Err(IdentityError::Malformed(WHAT)),
        }
    }

    /// Every page.
    pub(super) fn pages(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let enroller = |c: &Certificate| self.enrollers.get(&c.issuer).cloned();
        let plain = self.users.values().chain(self.adapters.values());
        let plain = plain.filter_map(move |c| Some(encode(&[c.clone(), enroller(c)?])));
        let devices = self.devices.values().filter_map(move |device| {
            let mut page = vec![device.peer.clone(), enroller(&device.peer)?];
            page.extend(device.about.clone());
            Some(encode(&page))
        });
        plain.chain(devices)
    }

    /// The pages by id, as they are reconciled with another enroller.
    pub fn reconciled(&self) -> BTreeMap<ItemId, Vec<u8>> {
        self.pages().map(|page| (ItemId::of(&page), page)).collect()
    }

    /// Every certificate that an enroller signed.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.users.values().chain(self.devices.values().map(|d| &d.peer)).chain(self.adapters.values())
    }

    /// Who administers: the enrollers' keys, each with the device that it says is its own.
    pub fn announced(&self) -> impl Iterator<Item = (PublicKey, PublicKey)> + '_ {
        let theirs = self.adapters.iter().filter(|((_, names), _)| names.iter().any(|n| n == ENROLLERS));
        theirs.map(|((device, _), c)| (c.issuer, *device))
    }

    /// Drops what revoked enrollers said and what does not stay of it; true when there was any.
    pub(super) fn disown(&mut self, revoked: &Revoked) -> bool {
        let before = self.users.len() + self.devices.len() + self.adapters.len();
        self.users.retain(|_, c| !revoked.disowns(c));
        self.devices.retain(|_, d| !revoked.disowns(&d.peer));
        self.adapters.retain(|_, c| !revoked.disowns(c));
        before != self.users.len() + self.devices.len() + self.adapters.len()
    }

    /// The users' certificates, by key.
    pub fn users(&self) -> impl Iterator<Item = &Certificate> {
        self.users.values()
    }

    /// The certificate of a user.
    pub fn user(&self, key: &PublicKey) -> Option<&Certificate> {
        self.users.get(key)
    }

    /// The devices, by key.
    pub fn devices(&self) -> impl Iterator<Item = (&PublicKey, &BookDevice)> {
        self.devices.iter()
    }

    /// A device.
    pub fn device(&self, key: &PublicKey) -> Option<&BookDevice> {
        self.devices.get(key)
    }

    /// Delegations: device and the names that it may sign for.
    pub fn adapters(&self) -> impl Iterator<Item = (&PublicKey, &[String])> {
        self.adapters.keys().map(|(device, names)| (device, names.as_slice()))
    }

    /// The enrollers that have signed anything in here.
    pub fn enrollers(&self) -> impl Iterator<Item = &Certificate> {
        self.enrollers.values()
    }

    /// Who holds a name or extension and is not revoked; several in a conflict.
    pub fn holders<'b>(&'b self, name: &'b str, revoked: &'b Revoked) -> impl Iterator<Item = &'b Certificate> {
        self.users.values().filter(move |c| !revoked.is_user(&c.subject) && names(c).iter().any(|n| n == name))
    }

    /// True when a phone account of that name is delegated to a device that counts.
    pub fn is_phone(&self, name: &str, revoked: &Revoked) -> bool {
        let counts = |device: &PublicKey| match self.devices.get(device).and_then(BookDevice::user) {
            Some(user) => !revoked.is_user(&user) && !revoked.is_device(&user, device),
            None => !revoked.is_device(device, device),
        };
        self.adapters.keys().any(|(device, names)| names.iter().any(|n| n == name) && counts(device))
    }
}

impl Reconciled for BTreeMap<ItemId, Vec<u8>> {
    fn ids(&self) -> Vec<ItemId> {
        self.keys().copied().collect()
    }

    fn item(&self, id: &ItemId) -> Option<Vec<u8>> {
        self.get(id).cloned()
    }
}

/// Name and extensions of a user's certificate.
pub(super) fn names(certificate: &Certificate) -> &[String] {
    if let Claims::User(names) = &certificate.claims { names } else { &[] }
}

fn read_page(page: &[u8]) -> Result<(Certificate, Certificate, Option<Certificate>), IdentityError> {
    let mut reader = Reader::new(page, WHAT);
    let certificates = (0..reader.list(3)?).map(|_| Certificate::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    canonical(page, &encode(&certificates), WHAT)?;
    let mut certificates = certificates.into_iter();
    match (certificates.next(), certificates.next(), certificates.next()) {
        (Some(first), Some(enroller), about) => Ok((first, enroller, about)),
        _ => Err(IdentityError::Malformed(WHAT)),
    }
}

fn encode(certificates: &[Certificate]) -> Vec<u8> {
    let mut writer = Writer::array(certificates.len());
    for certificate in certificates {
        writer.raw(&certificate.encode());
    }
    writer.finish()
}

/// True when `new` is to stand in the place of `old`; the same answer everywhere.
fn is_later(old: &Certificate, new: &Certificate) -> bool {
    (new.not_after, new.encode()) > (old.not_after, old.encode())
}

fn place<K: Ord>(map: &mut BTreeMap<K, Certificate>, key: K, certificate: Certificate) -> bool {
    let full = map.len() >= MAX_BOOK;
    let news = map.get(&key).map_or(!full, |held| is_later(held, &certificate));
    if news {
        map.insert(key, certificate);
    }
    news
}

/// Content type of the messages that reconcile books.
pub const BOOK_TYPE: &str = "application/chordial-book+cbor";

/// One enroller's question to another: `[1, delegation, enroller certificate, question]`. The delegation of
/// [`ENROLLERS`](super::ENROLLERS) to the asking device shows that it is one: the book is for enrollers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BookAsk {
    proof: (Certificate, Certificate),
    /// The question.
    pub ask: Ask,
}

impl BookAsk {
    /// With the proof that an enroller's identity gives.
    pub fn new(proof: (Certificate, Certificate), ask: Ask) -> BookAsk {
        BookAsk { proof, ask }
    }

    /// Checks that an enroller which is not revoked has delegated [`ENROLLERS`](super::ENROLLERS) to `device`.
    pub fn verify(
        &self,
        device: PublicKey,
        anchor: &TrustAnchor,
        revoked: &Revoked,
        now: UnixTime,
    ) -> Result<(), IdentityError> {
        is_enrollers(&self.proof, device, anchor, revoked, now)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).raw(&self.proof.0.encode()).raw(&self.proof.1.encode()).raw(&self.ask.encode());
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<BookAsk, IdentityError> {
        const WHAT: &str = "question about the office's book";
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(4)?;
        reader.version(1)?;
        let proof = (Certificate::read(&mut reader)?, Certificate::read(&mut reader)?);
        let ask = BookAsk { proof, ask: Ask::decode(reader.item()?)? };
        canonical(bytes, &ask.encode(), WHAT)?;
        Ok(ask)
    }
}

/// Checks that an enroller which is not revoked has delegated [`ENROLLERS`] to `device`: the delegation, and the enroller's certificate.
pub(super) fn is_enrollers(
    proof: &(Certificate, Certificate),
    device: PublicKey,
    anchor: &TrustAnchor,
    revoked: &Revoked,
    now: UnixTime,
) -> Result<(), IdentityError> {
    let TrustAnchor::Office { overlay, root } = anchor else { return Err(IdentityError::NotOurs) };
    let (delegation, enroller) = proof;
    let named = matches!(&delegation.claims, Claims::Adapter(names) if names.iter().any(|n| n == ENROLLERS));
    if !named || delegation.subject != device || delegation.issuer != enroller.subject {
        return Err(IdentityError::Shape("adapter"));
    }
    if enroller.claims != Claims::Enroller || enroller.issuer != *root {
        return Err(IdentityError::Issuer("enroller"));
    }
    if revoked.is_enroller(&enroller.subject) {
        return Err(IdentityError::Revoked("enroller"));
    }
    enroller.check(overlay, now)?;
    delegation.check(overlay, now)
}
