//! Revocations: signed statements that a key counts no more, the set that every peer keeps, and what verifiers need of it.
//!
//! `[statement, [certificate...], signature]`; `statement` is a byte string that holds `[1, what, subject key, issuer key, issued,
//! overlay, name]`, `signature` is the issuer's over it. The certificates show by what right:
//!
//! | issuer | certificates | what it may revoke |
//! |---|---|---|
//! | root | none | 3 enroller (naming what stays of its word), 1 user, 2 device, 4 the office itself |
//! | enroller | enroller | user, device, the office itself |
//! | user | enroller, user (open: user) | its own devices; itself |
//!
//! A statement has no end: what is revoked stays so, also when the certificates of who said it have run out. It counts for chains, whatever their certificates' dates: dates can be chosen by who signs. A user's
//! statement about a device counts in that user's chains alone.
//!
//! **A revoked enroller.** The root's statement names what stays of that enroller's word ([`Word`]): certificates of members, and
//! revocations that it signed. All else that bears its signature is refused, whatever date it bears. Several statements about
//! one enroller add up.
//!
//! **The office itself** counts no more when it continues as another one: the subject is that one's root, the name its name ([`Successor`]).
//! The one said first counts, whoever says another later.
//!
//! **Freshness.** Every peer keeps the whole set, on disk. A new statement is passed on at once over links to all peers known; both
//! ends of a new link compare digests first, and every peer compares with a few others each minute. So it is with every
//! connected peer within seconds, with one that missed it within a minute, and a peer that returns has it before it lets
//! anybody in.

use super::cbor::{Reader, Writer, canonical};
use super::name::check_label;
use super::{
    Certificate, Claims, Identity, IdentityError, ItemId, KeyPair, MAX_KEPT, PublicKey, Purpose, Reconciled,
    RecoverySheet, Successor, TrustAnchor, Verified, Word,
};
use crate::core::UnixTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Content type of the messages that reconcile revocations.
pub const REVOCATIONS_TYPE: &str = "application/chordial-revocations+cbor";
/// Most statements of enrollers that are kept.
pub const MAX_OFFICE_REVOCATIONS: usize = 16_384;
/// Most statements of the root that are kept.
pub const MAX_ROOT_REVOCATIONS: usize = 1024;
/// Most statements of users that are kept, all users together.
pub const MAX_USER_REVOCATIONS: usize = 4096;
/// Most statements of one user.
pub const MAX_REVOCATIONS_PER_USER: usize = 64;
/// Largest encoding of a statement with its certificates.
const MAX_STATEMENT: usize = 2048 + 16 * MAX_KEPT;
const WHAT: &str = "revocation";

/// What counts no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RevokedKey {
    /// A user's key, with all devices.
    User,
    /// One device.
    Device,
    /// An enroller: of what it signed only that counts which the statement names.
    Enroller,
    /// The office itself, which continues as another one: the key is the other's root.
    Office,
}

impl RevokedKey {
    pub(super) fn number(self) -> u64 {
        match self {
            RevokedKey::User => 1,
            RevokedKey::Device => 2,
            RevokedKey::Enroller => 3,
            RevokedKey::Office => 4,
        }
    }
}

/// Two statements with one key say the same: what, whose key, whether a user says so, who, and of an enroller the statement itself,
/// since several add up.
type Key = (RevokedKey, PublicKey, bool, PublicKey, Option<ItemId>);

/// One statement. Reading one verifies nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// What is revoked.
    pub what: RevokedKey,
    /// Its key.
    pub subject: PublicKey,
    /// Who says so.
    pub issuer: PublicKey,
    /// When.
    pub issued: UnixTime,
    /// The overlay in which it counts.
    pub overlay: String,
    /// What people call it; at most 64 bytes.
    pub name: String,
    /// Of an enroller: what stays of its word.
    pub kept: BTreeSet<Word>,
    /// Of the office: where it continues.
    pub successor: Option<Successor>,
    authority: Vec<Certificate>,
    signature: [u8; 64],
}

impl Revocation {
    /// Signs with this device's enroller key where there is one and `what` is not its user's own, else with the user's key.
    /// `NotOurs` when neither is here.
    pub fn sign(
        by: &Identity,
        what: RevokedKey,
        subject: PublicKey,
        name: &str,
        now: UnixTime,
    ) -> Result<Revocation, IdentityError> {
        if let Some(enroller) = by.enroller.as_ref().filter(|_| what != RevokedKey::Enroller) {
            let authority = vec![enroller.certificate().clone()];
            let kept = BTreeSet::new();
            return Revocation::issue(enroller.key(), authority, by.overlay(), (what, subject, kept), name, now);
        }
        let own = what == RevokedKey::Device || by.user_key.as_ref().is_some_and(|key| key.public() == subject);
        let key = by.user_key.as_ref().filter(|_| own).ok_or(IdentityError::NotOurs)?;
        let about = (what, subject, BTreeSet::new());
        Revocation::issue(key, by.above_device().to_vec(), by.overlay(), about, name, now)
    }

    /// Signs with the root key, which alone may revoke an enroller.
    pub fn by_root(
        sheet: &RecoverySheet,
        what: RevokedKey,
        subject: PublicKey,
        name: &str,
        now: UnixTime,
    ) -> Result<Revocation, IdentityError> {
        let about = (what, subject, BTreeSet::new());
        Revocation::issue(sheet.key(), Vec::new(), sheet.overlay(), about, name, now)
    }

    /// Signs with this device's enroller key that the office continues as that of `root`, called `name`.
    pub fn of_office(
        by: &Identity,
        root: PublicKey,
        name: &str,
        successor: Successor,
        now: UnixTime,
    ) -> Result<Revocation, IdentityError> {
        let enroller = by.enroller.as_ref().ok_or(IdentityError::NotOurs)?;
        let (authority, about) = (vec![enroller.certificate().clone()], (RevokedKey::Office, root, BTreeSet::new()));
        let mut said = Revocation::issue(enroller.key(), authority, by.overlay(), about, name, now)?;
        said.successor = Some(successor);
        said.signature = enroller.key().sign(Purpose::Revocation, &said.statement());
        match said.encode().len() > MAX_STATEMENT {
            true => Err(IdentityError::TooLarge(WHAT)),
            false => Ok(said),
        }
    }

    /// Signs with the root key that an enroller counts no more, but for what is `kept`: as many statements as that takes.
    pub fn of_enroller(
        sheet: &RecoverySheet,
        enroller: PublicKey,
        kept: &BTreeSet<Word>,
        name: &str,
        now: UnixTime,
    ) -> Result<Vec<Revocation>, IdentityError> {
        let all: Vec<Word> = kept.iter().copied().collect();
        let parts: Vec<&[Word]> = if all.is_empty() { vec![&[]] } else { all.chunks(MAX_KEPT).collect() };
        let sign = |part: &&[Word]| {
            let about = (RevokedKey::Enroller, enroller, part.iter().copied().collect());
            Revocation::issue(sheet.key(), Vec::new(), sheet.overlay(), about, name, now)
        };
        parts.iter().map(sign).collect()
    }

    fn issue(
        key: &KeyPair,
        authority: Vec<Certificate>,
        overlay: &str,
        (what, subject, kept): (RevokedKey, PublicKey, BTreeSet<Word>),
        name: &str,
        now: UnixTime,
    ) -> Result<Revocation, IdentityError> {
        check_label(name)?;
        let (issuer, overlay, name) = (key.public(), overlay.to_owned(), name.to_owned());
        let mut revocation = Revocation {
            what,
            subject,
            issuer,
            issued: now,
            overlay,
            name,
            kept,
            successor: None,
            authority,
            signature: [0; 64],
        };
        revocation.signature = key.sign(Purpose::Revocation, &revocation.statement());
        Ok(revocation)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.bytes(&self.statement()).nested(self.authority.len());
        for certificate in &self.authority {
            writer.raw(&certificate.encode());
        }
        writer.bytes(&self.signature);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Revocation, IdentityError> {
        if bytes.len() > MAX_STATEMENT {
            return Err(IdentityError::TooLarge(WHAT));
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(3)?;
        let mut inner = Reader::new(reader.bytes()?, WHAT);
        let fields = inner.list(8)?;
        inner.version(1)?;
        let what = match inner.uint()? {
            1 => RevokedKey::User,
            2 => RevokedKey::Device,
            3 => RevokedKey::Enroller,
            4 => RevokedKey::Office,
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        let (subject, issuer) = (PublicKey(inner.exact()?), PublicKey(inner.exact()?));
        let issued = UnixTime(inner.uint()?);
        let (overlay, name) = (inner.text()?.to_owned(), inner.text()?.to_owned());
        check_label(&name)?;
        let mut successor = None;
        let kept = match (fields, what) {
            (8, RevokedKey::Office) => {
                successor = Some(Successor::decode(inner.bytes()?)?);
                BTreeSet::new()
            }
            (7, _) if what != RevokedKey::Office => BTreeSet::new(),
            (8, RevokedKey::Enroller) => {
                let (kept, rest) = inner.bytes()?.as_chunks::<16>();
                if kept.is_empty() || kept.len() > MAX_KEPT || !rest.is_empty() {
                    return Err(IdentityError::Malformed(WHAT));
                }
                kept.iter().map(|said| Word(*said)).collect()
            }
            _ => return Err(IdentityError::Malformed(WHAT)),
        };
        let authority = (0..reader.list(2)?).map(|_| Certificate::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let signature = reader.exact()?;
        let revocation =
            Revocation { what, subject, issuer, issued, overlay, name, kept, successor, authority, signature };
        canonical(bytes, &revocation.encode(), WHAT)?;
        Ok(revocation)
    }

    /// Checks that it counts in the overlay of `anchor`: authority, signatures, overlay. One from the future counts: it is this machine's clock
    /// that is behind.
    pub fn verify(&self, anchor: &TrustAnchor) -> Result<(), IdentityError> {
        if self.overlay != anchor.overlay() {
            return Err(IdentityError::Overlay);
        }
        let wrong = Err(IdentityError::Issuer(WHAT));
        let own = self.what == RevokedKey::Device || self.what == RevokedKey::User && self.subject == self.issuer;
        match (anchor, self.authority.as_slice()) {
            (TrustAnchor::Office { root, .. }, []) if self.issuer == *root => {}
            (TrustAnchor::Office { root, .. }, [enroller]) => {
                let right = enroller.claims == Claims::Enroller
                    && enroller.issuer == *root
                    && enroller.subject == self.issuer
                    && self.what != RevokedKey::Enroller;
                if !right {
                    return wrong;
                }
            }
            (TrustAnchor::Office { root, .. }, [enroller, user]) => {
                let right = enroller.claims == Claims::Enroller
                    && enroller.issuer == *root
                    && matches!(user.claims, Claims::User(_))
                    && user.issuer == enroller.subject
                    && user.subject == self.issuer
                    && own;
                if !right {
                    return wrong;
                }
            }
            (TrustAnchor::Open { .. }, [user]) => {
                let right = matches!(user.claims, Claims::User(_))
                    && user.issuer == user.subject
                    && user.subject == self.issuer
                    && own;
                if !right {
                    return wrong;
                }
            }
            _ => return wrong,
        }
        // In whatever time the certificates counted: a statement outlives them.
        for certificate in &self.authority {
            certificate.check(&self.overlay, certificate.not_before)?;
        }
        match self.issuer.verify(Purpose::Revocation, &self.statement(), &self.signature) {
            true => Ok(()),
            false => Err(IdentityError::Signature(WHAT)),
        }
    }

    /// True when a user, not the office, says so.
    pub fn is_by_user(&self) -> bool {
        self.authority.iter().any(|c| matches!(c.claims, Claims::User(_)))
    }

    fn key(&self) -> Key {
        let adds_up = matches!(self.what, RevokedKey::Enroller | RevokedKey::Office);
        let part = adds_up.then(|| ItemId::of(&self.encode()));
        (self.what, self.subject, self.is_by_user(), self.issuer, part)
    }

    fn is_by_root(&self) -> bool {
        self.authority.is_empty()
    }

    fn statement(&self) -> Vec<u8> {
        let more = !self.kept.is_empty() || self.successor.is_some();
        let mut writer = Writer::array(if more { 8 } else { 7 });
        writer.uint(1).uint(self.what.number()).bytes(&self.subject.0).bytes(&self.issuer.0);
        writer.uint(self.issued.secs()).text(&self.overlay).text(&self.name);
        if let Some(successor) = &self.successor {
            writer.bytes(&successor.encode());
        } else if !self.kept.is_empty() {
            writer.bytes(&self.kept.iter().flat_map(|said| said.0).collect::<Vec<_>>());
        }
        writer.finish()
    }
}

/// What became of a statement that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It is kept and says something new.
    New,
    /// Word already; at most its wording changed.
    Known,
    /// A bound is reached.
    Full,
}

/// All statements that a peer knows. Bounded, in one order, the same at all peers that know the same.
#[derive(Clone, Default, Debug)]
pub struct Revocations {
    statements: BTreeMap<Key, (ItemId, Revocation)>,
    by_id: BTreeMap<ItemId, Key>,
    by_users: BTreeMap<PublicKey, usize>,
    by_root: usize,
}

impl Revocations {
    /// Keeps a verified statement. Of two that say the same the earlier stays, so that all peers keep the same one.
    pub fn note(&mut self, revocation: Revocation) -> Noted {
        let (key, id) = (revocation.key(), ItemId::of(&revocation.encode()));
        if let Some((held_id, held)) = self.statements.get(&key) {
            if (revocation.issued, id) < (held.issued, *held_id) {
                self.by_id.remove(held_id);
                self.by_id.insert(id, key);
                self.statements.insert(key, (id, revocation));
            }
            return Noted::Known;
        }
        let user = revocation.is_by_user().then_some(revocation.issuer);
        if self.is_full(&revocation) && (user.is_some() || !self.make_room() || self.is_full(&revocation)) {
            return Noted::Full;
        }
        if let Some(user) = user {
            *self.by_users.entry(user).or_default() += 1;
        }
        self.by_root += usize::from(revocation.is_by_root());
        self.by_id.insert(id, key);
        self.statements.insert(key, (id, revocation));
        Noted::New
    }

    fn is_full(&self, revocation: &Revocation) -> bool {
        let users: usize = self.by_users.values().sum();
        if revocation.is_by_user() {
            let own = self.by_users.get(&revocation.issuer).copied().unwrap_or_default();
            return users >= MAX_USER_REVOCATIONS || own >= MAX_REVOCATIONS_PER_USER;
        }
        match revocation.is_by_root() {
            true => self.by_root >= MAX_ROOT_REVOCATIONS,
            false => self.statements.len() - users - self.by_root >= MAX_OFFICE_REVOCATIONS,
        }
    }

    /// Drops what revoked enrollers said and what does not stay; true when there was any. Only where the room is needed: who
    /// compares with others who keep it would be offered it again and again.
    fn make_room(&mut self) -> bool {
        let revoked = self.revoked();
        let before = self.statements.len();
        self.statements.retain(|_, (_, r)| !revoked.unsays(r));
        self.by_id.retain(|_, key| self.statements.contains_key(key));
        self.statements.len() < before
    }

    /// True when this very statement is kept.
    pub fn holds(&self, id: &ItemId) -> bool {
        self.by_id.contains_key(id)
    }

    /// The statements, by what they revoke.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.statements.values().map(|(_, r)| r)
    }

    /// What verifiers need.
    pub fn revoked(&self) -> Arc<Revoked> {
        let mut revoked = Revoked::default();
        for enroller in self.iter().filter(|r| r.what == RevokedKey::Enroller) {
            revoked.enrollers.entry(enroller.subject).or_default().extend(&enroller.kept);
        }
        for r in self.iter() {
            match r.what {
                RevokedKey::Enroller | RevokedKey::Office => {}
                _ if revoked.unsays(r) => {}
                RevokedKey::User => drop(revoked.users.insert(r.subject)),
                RevokedKey::Device if r.is_by_user() => drop(revoked.by_user.insert((r.issuer, r.subject))),
                RevokedKey::Device => drop(revoked.devices.insert(r.subject)),
            }
        }
        Arc::new(revoked)
    }

    /// Where the office continues, if it does: of what was said first the latest wording.
    pub fn successor(&self) -> Option<&Revocation> {
        let revoked = self.revoked();
        let said = || self.iter().filter(|r| r.what == RevokedKey::Office && !revoked.unsays(r));
        let root = said().min_by_key(|r| (r.issued, ItemId::of(&r.encode())))?.subject;
        said().filter(|r| r.subject == root).max_by_key(|r| (r.issued, ItemId::of(&r.encode())))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The file: `[1, [statement...]]`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(2);
        writer.uint(1).nested(self.statements.len());
        for (_, revocation) in self.statements.values() {
            writer.raw(&revocation.encode());
        }
        writer.finish()
    }

    /// Reads the file and verifies every statement: a file that was tampered with revokes nobody.
    pub fn from_bytes(bytes: &[u8], anchor: &TrustAnchor) -> Result<Revocations, IdentityError> {
        const FILE: &str = "file of revocations";
        let mut reader = Reader::new(bytes, FILE);
        reader.array(2)?;
        reader.version(1)?;
        let mut revocations = Revocations::default();
        for _ in 0..reader.list((MAX_OFFICE_REVOCATIONS + MAX_USER_REVOCATIONS + MAX_ROOT_REVOCATIONS) as u64)? {
            let revocation = Revocation::decode(reader.item()?)?;
            revocation.verify(anchor)?;
            revocations.note(revocation);
        }
        canonical(bytes, &revocations.to_bytes(), FILE)?;
        Ok(revocations)
    }
}

impl Reconciled for Revocations {
    fn ids(&self) -> Vec<ItemId> {
        self.by_id.keys().copied().collect()
    }

    fn item(&self, id: &ItemId) -> Option<Vec<u8>> {
        let (_, revocation) = self.statements.get(self.by_id.get(id)?)?;
        Some(revocation.encode())
    }
}

/// The keys that count no more.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Revoked {
    users: BTreeSet<PublicKey>,
    devices: BTreeSet<PublicKey>,
    by_user: BTreeSet<(PublicKey, PublicKey)>,
    /// With what stays of their word.
    enrollers: BTreeMap<PublicKey, BTreeSet<Word>>,
}

impl Revoked {
    /// `Revoked` when anything that the chain leans on is revoked.
    pub fn check(&self, verified: &Verified) -> Result<(), IdentityError> {
        let gone = |(by, said): &(PublicKey, Word)| self.enrollers.get(by).is_some_and(|kept| !kept.contains(said));
        if verified.said.iter().any(gone) {
            return Err(IdentityError::Revoked("enroller"));
        }
        if self.is_user(&verified.user_key) {
            return Err(IdentityError::Revoked("user"));
        }
        match self.is_device(&verified.user_key, &verified.device) {
            true => Err(IdentityError::Revoked("device")),
            false => Ok(()),
        }
    }

    /// True when this user's key is revoked.
    pub fn is_user(&self, user: &PublicKey) -> bool {
        self.users.contains(user)
    }

    /// True when this device of that user is revoked, by the office or by the user.
    pub fn is_device(&self, user: &PublicKey, device: &PublicKey) -> bool {
        self.devices.contains(device) || self.by_user.contains(&(*user, *device))
    }

    /// True when this enroller is revoked.
    pub fn is_enroller(&self, enroller: &PublicKey) -> bool {
        self.enrollers.contains_key(enroller)
    }

    /// True when a revoked enroller signed this and it does not stay.
    pub fn disowns(&self, certificate: &Certificate) -> bool {
        let kept = self.enrollers.get(&certificate.issuer);
        kept.is_some_and(|kept| !kept.contains(&Word::certificate(certificate)))
    }

    fn unsays(&self, revocation: &Revocation) -> bool {
        let kept = self.enrollers.get(&revocation.issuer).filter(|_| !revocation.is_by_user());
        kept.is_some_and(|kept| !kept.contains(&Word::revocation(revocation)))
    }

    /// True when nobody is.
    pub fn is_empty(&self) -> bool {
        *self == Revoked::default()
    }
}
