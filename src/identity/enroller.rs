//! The administrator's side: whom the office knows, which invites are open, and who may have what name.
//!
//! What an enroller knows is its [`Book`] of certificates. Enrollers make their books one; an enroller made from the recovery sheet
//! begins with an empty one and learns the others' pages, and those of members who ask it for certificates.

use super::book::{Book, MAX_BOOK, names as names_of};
use super::cbor::{Reader, Writer};
use super::certificate::MAX_NAMES;
use super::certify::{Certified, CertifyRequest, REQUEST_AGE};
use super::throttle::Throttle;
use super::{
    CLOCK_SKEW, Certificate, Claims, EnrolError, IdentityError, InviteCode, JoinAnswer, JoinRequest, KeyPair,
    PublicKey, Revoked, RootFingerprint, TrustAnchor, canonical_user,
};
use crate::core::{Id, Redacted, Rng, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The name under which the devices of enrollers are found in the overlay. No user and no phone may have a name that begins with `_`.
pub const ENROLLERS: &str = "_enrollers";
/// Most devices that an administrator allows to take phones upon themselves.
const MAX_ALLOWED: usize = 4096;
/// How long a code is good when nobody says otherwise.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Most invites that are open at once.
pub const MAX_INVITES: usize = 256;
/// Wrong codes from one source in [`THROTTLE_WINDOW`] after which nothing from there is looked at.
pub const MAX_WRONG_CODES: u32 = 5;
/// How long wrong codes are held against a source.
pub const THROTTLE_WINDOW: Duration = Duration::from_secs(600);
/// Sources with wrong codes that are remembered; the one that began first gives way.
pub const MAX_SOURCES: usize = 1024;

const WHAT: &str = "identity file";

#[derive(Clone, Debug)]
struct Invite {
    names: Vec<String>,
    proof_key: Redacted<[u8; 32]>,
    expires: UnixTime,
    /// By which keys it was redeemed: the same may ask again when the answer was lost.
    spent: Option<(PublicKey, PublicKey)>,
}

/// An enroller's key, certificate and book of names.
#[derive(Clone, Debug)]
pub struct Enroller {
    key: KeyPair,
    certificate: Certificate,
    book: Book,
    invites: BTreeMap<[u8; 8], Invite>,
    allowed: BTreeSet<PublicKey>,
    revoked: Arc<Revoked>,
    throttle: Throttle,
}

impl Enroller {
    /// With a key and the root's certificate for it.
    pub(super) fn new(key: KeyPair, certificate: Certificate) -> Enroller {
        let (book, invites, allowed) = Default::default();
        Enroller { key, certificate, book, invites, allowed, revoked: Arc::default(), throttle: Throttle::default() }
    }

    /// Opens an invite for `user` (and `extension`), good for `lifetime`; `addrs` is where this enroller answers. An open
    /// invite for the same user is withdrawn.
    pub fn invite(
        &mut self,
        user: &str,
        extension: Option<&str>,
        addrs: &[SocketAddr],
        lifetime: Duration,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<InviteCode, EnrolError> {
        let mut names = vec![ordinary_name(user)?];
        names.extend(extension.map(ordinary_name).transpose()?);
        names.dedup();
        self.invites
            .retain(|_, invite| invite.expires > now && (invite.spent.is_some() || invite.names[0] != names[0]));
        let open = || self.invites.values().filter(|i| i.spent.is_none()).flat_map(|i| &i.names);
        if names.iter().any(|n| self.is_taken(n) || open().any(|o| o == n)) {
            return Err(EnrolError::Taken);
        }
        if self.invites.len() >= MAX_INVITES {
            return Err(EnrolError::Full);
        }
        let code = InviteCode::generate(RootFingerprint::of(&self.certificate.issuer), addrs, rng);
        let proof_key = Redacted::new(code.proof_key());
        self.invites.insert(code.name(), Invite { names, proof_key, expires: now + lifetime, spent: None });
        Ok(code)
    }

    /// Answers a request that came from `source`. Everything that is not right gets the same `Refused`: a stranger does
    /// not learn whether a code was wrong, used, late, or not looked at. The book changes: persist the identity before
    /// the answer is sent.
    pub fn redeem(
        &mut self,
        request: &JoinRequest,
        source: IpAddr,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<JoinAnswer, EnrolError> {
        let closed = self.throttle.is_closed_to(source, now);
        let keys = (request.user_key, request.device_key);
        let good = !closed
            && self.invites.get(&request.invite).is_some_and(|invite| {
                request.is_proven(invite.proof_key.reveal())
                    && invite.expires > now
                    && invite.spent.is_none_or(|spent| spent == keys)
            });
        let good = good && !self.revoked.is_user(&keys.0) && !self.revoked.is_device(&keys.0, &keys.1);
        if !good {
            self.throttle.count(source, now);
            return Err(EnrolError::Refused);
        }
        let invite = self.invites.get_mut(&request.invite).ok_or(EnrolError::Refused)?;
        invite.spent = Some(keys);
        let names = invite.names.clone();
        // Asked again, the device keeps the place that it was given.
        let peer_id = match self.book.device(&request.device_key) {
            Some(device) => device.peer_id(),
            None => draw_peer_id(rng),
        };
        Ok(self.enrol(names, request.user_key, request.device_key, peer_id, now)?)
    }

    /// Delegates phone accounts to a device: one certificate for up to 32 names. `Taken` when a name is a user's.
    pub fn delegate(&mut self, device: PublicKey, names: &[&str], now: UnixTime) -> Result<Certificate, EnrolError> {
        let names = names.iter().map(|n| ordinary_name(n)).collect::<Result<Vec<_>, _>>()?;
        let promised = |n: &String| self.invites.values().any(|i| i.spent.is_none() && i.names.contains(n));
        if names.iter().any(|n| self.is_member(n) || promised(n)) {
            return Err(EnrolError::Taken);
        }
        Ok(self.grant(device, names, now)?)
    }

    /// Lets this enroller's own device be found as one ([`ENROLLERS`]).
    pub(super) fn announce(&mut self, device: PublicKey, now: UnixTime) -> Result<Certificate, IdentityError> {
        self.grant(device, vec![ENROLLERS.to_owned()], now)
    }

    /// Takes an invite back that nobody has redeemed; true when there was one.
    pub fn withdraw(&mut self, code: &InviteCode) -> bool {
        let open = self.invites.get(&code.name()).is_some_and(|invite| invite.spent.is_none());
        open && self.invites.remove(&code.name()).is_some()
    }

    /// Answers a member's device that asks for its certificates. `link` is whom the link proved. `Revoked` when the user or the device is;
    /// `Taken` when the book has the name under another key.
    pub fn certify(
        &mut self,
        request: &CertifyRequest,
        device: PublicKey,
        anchor: &TrustAnchor,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<Certified, EnrolError> {
        let age_ok = request.issued <= now + CLOCK_SKEW && now <= request.issued + REQUEST_AGE + CLOCK_SKEW;
        if !age_ok || !request.is_signed() || request.chain.device() != Some(device) {
            return Err(EnrolError::Refused);
        }
        let shown = anchor.verify_chain(&request.chain, now)?;
        self.revoked.check(&shown)?;
        let mut names = match self.book.user(&shown.user_key) {
            Some(known) => names_of(known).to_vec(),
            None => [vec![shown.user.clone()], shown.aliases.clone()].concat(),
        };
        // The name itself must be free of others; an extension that somebody has meanwhile is left out.
        let foreign = |name: &str| self.book.holders(name, &self.revoked).any(|c| c.subject != shown.user_key);
        if foreign(&shown.user) {
            return Err(EnrolError::Taken);
        }
        names.retain(|name| !foreign(name));
        let peer_id = match (self.book.device(&device), shown.has_place) {
            (_, true) => shown.peer_id,
            (Some(known), false) => known.peer_id(),
            (None, false) => draw_peer_id(rng),
        };
        let about = request.chain.find(|c| matches!(c, Claims::Device(_))).cloned();
        let granted = self.enrol_device(names, shown.user_key, device, peer_id, about, now)?;
        let (mut adapters, mut refused) = (Vec::new(), Vec::new());
        for name in &request.phones {
            let may = self.allowed.contains(&device) || self.adapts_already(&device, name);
            match may.then(|| self.delegate(device, &[name], now)) {
                Some(Ok(certificate)) => adapters.push(certificate),
                _ => refused.push(name.clone()),
            }
        }
        Ok(Certified { enroller: granted.enroller, user: granted.user, peer: granted.peer, adapters, refused })
    }

    /// Whether a device may take phones of any name upon itself. False when there are too many of them.
    pub fn allow_adapter(&mut self, device: PublicKey, allowed: bool) -> bool {
        if !allowed {
            self.allowed.remove(&device);
            return true;
        }
        let room = self.allowed.len() < MAX_ALLOWED;
        if room {
            self.allowed.insert(device);
        }
        room
    }

    /// True when the device may take phones of any name upon itself.
    pub fn is_allowed(&self, device: &PublicKey) -> bool {
        self.allowed.contains(device)
    }

    /// Gives a user further names, or takes them: the certificate that the user's devices get with their next renewal.
    pub fn rename(&mut self, user: PublicKey, names: Vec<String>, now: UnixTime) -> Result<(), EnrolError> {
        let certificate = self.issue(user, Claims::User(names), now)?;
        self.book.enter(certificate, &self.certificate, None);
        Ok(())
    }

    /// What counts no more: its names are free again, its devices get nothing signed.
    pub fn revoke(&mut self, revoked: Arc<Revoked>) {
        // A page under another's name may have stood in the place of a good one: that comes back from who has it.
        self.book.disown(&revoked);
        self.revoked = revoked;
    }

    /// The book.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Takes a page of another enroller; true when it is news.
    pub fn learn(&mut self, page: &[u8], now: UnixTime) -> Result<bool, IdentityError> {
        let root = self.certificate.issuer;
        self.book.take(page, &self.certificate.overlay, root, &self.revoked, now)
    }

    /// Names that more than one user holds.
    pub fn conflicts(&self) -> Vec<String> {
        let all = self.book.users().filter(|c| !self.revoked.is_user(&c.subject)).flat_map(|c| names_of(c).iter());
        let mut count: BTreeMap<&String, usize> = BTreeMap::new();
        all.for_each(|name| *count.entry(name).or_default() += 1);
        count.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name.clone()).collect()
    }

    /// Users for whom an invite is open at `now`, and when it ends.
    pub fn invited(&self, now: UnixTime) -> impl Iterator<Item = (&[String], UnixTime)> {
        let open = self.invites.values().filter(move |i| i.spent.is_none() && i.expires > now);
        open.map(|i| (i.names.as_slice(), i.expires))
    }

    /// How many invites can still be redeemed at `now`.
    pub fn open_invites(&self, now: UnixTime) -> usize {
        self.invites.values().filter(|i| i.spent.is_none() && i.expires > now).count()
    }

    /// How many requests were refused since the start.
    pub fn refused(&self) -> u64 {
        self.throttle.refused
    }

    /// How many sources wrong codes are held against; at most [`MAX_SOURCES`].
    pub fn remembered_sources(&self) -> usize {
        self.throttle.sources()
    }

    /// The enroller's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn enrol(
        &mut self,
        names: Vec<String>,
        user_key: PublicKey,
        device_key: PublicKey,
        peer_id: Id,
        now: UnixTime,
    ) -> Result<JoinAnswer, IdentityError> {
        self.enrol_device(names, user_key, device_key, peer_id, None, now)
    }

    pub(super) fn enrol_device(
        &mut self,
        names: Vec<String>,
        user_key: PublicKey,
        device_key: PublicKey,
        peer_id: Id,
        about: Option<Certificate>,
        now: UnixTime,
    ) -> Result<JoinAnswer, IdentityError> {
        let user = self.issue(user_key, Claims::User(names), now)?;
        let peer = self.issue(device_key, Claims::Peer(peer_id), now)?;
        self.book.enter(user.clone(), &self.certificate, None);
        self.book.enter(peer.clone(), &self.certificate, about);
        Ok(JoinAnswer { enroller: self.certificate.clone(), user, peer })
    }

    /// `[seed, certificate, [page...], [allowed device...], [invite...]]`.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(5).bytes(&**self.key.seed().reveal()).raw(&self.certificate.encode());
        let pages: Vec<_> = self.book.pages().collect();
        writer.nested(pages.len());
        for page in &pages {
            writer.raw(page);
        }
        writer.nested(self.allowed.len());
        for device in &self.allowed {
            writer.bytes(&device.0);
        }
        writer.nested(self.invites.len());
        for (name, invite) in &self.invites {
            writer.nested(5).bytes(name);
            write_names(writer, &invite.names);
            writer.bytes(invite.proof_key.reveal()).uint(invite.expires.secs());
            match &invite.spent {
                None => writer.null(),
                Some((user, device)) => writer.nested(2).bytes(&user.0).bytes(&device.0),
            };
        }
    }

    /// Reads what [`Enroller::write`] writes; `version` 1 had names and keys for pages, which are signed now.
    pub(super) fn read(reader: &mut Reader<'_>, version: u64, now: UnixTime) -> Result<Enroller, IdentityError> {
        reader.array(5)?;
        let key = KeyPair::from_seed(&reader.exact()?);
        let mut enroller = Enroller::new(key, Certificate::read(reader)?);
        if version == 1 {
            for _ in 0..reader.list(u64::from(u16::MAX))? {
                reader.array(4)?;
                let names = read_names(reader, MAX_NAMES as u64)?;
                let (user_key, device_key) = (PublicKey(reader.exact()?), PublicKey(reader.exact()?));
                enroller.enrol(names, user_key, device_key, Id(reader.exact()?), now)?;
            }
            read_names(reader, u16::MAX.into())?;
        } else {
            for _ in 0..reader.list(4 * MAX_BOOK as u64)? {
                enroller.book.restore(reader.item()?)?;
            }
            for _ in 0..reader.list(MAX_ALLOWED as u64)? {
                enroller.allowed.insert(PublicKey(reader.exact()?));
            }
        }
        for _ in 0..reader.list(MAX_INVITES as u64)? {
            reader.array(5)?;
            let name = reader.exact()?;
            let names = read_names(reader, MAX_NAMES as u64)?;
            if names.is_empty() {
                return Err(IdentityError::Malformed(WHAT));
            }
            let proof_key = Redacted::new(reader.exact()?);
            let expires = UnixTime(reader.uint()?);
            let spent = match reader.is_null() {
                true => None,
                false => {
                    reader.array(2)?;
                    Some((PublicKey(reader.exact()?), PublicKey(reader.exact()?)))
                }
            };
            enroller.invites.insert(name, Invite { names, proof_key, expires, spent });
        }
        Ok(enroller)
    }

    /// A delegation that this enroller made before is in the book again.
    pub(super) fn remember(&mut self, adapter: &Certificate) {
        let own = self.certificate.clone();
        self.book.enter(adapter.clone(), &own, None);
    }

    fn grant(&mut self, device: PublicKey, names: Vec<String>, now: UnixTime) -> Result<Certificate, IdentityError> {
        let certificate = self.issue(device, Claims::Adapter(names), now)?;
        self.book.enter(certificate.clone(), &self.certificate, None);
        Ok(certificate)
    }

    fn issue(&self, subject: PublicKey, claims: Claims, now: UnixTime) -> Result<Certificate, IdentityError> {
        Certificate::issue(&self.key, subject, &self.certificate.overlay, claims, now)
    }

    fn adapts_already(&self, device: &PublicKey, name: &str) -> bool {
        self.book.adapters().any(|(d, names)| d == device && names.iter().any(|n| n == name))
    }

    fn is_member(&self, name: &str) -> bool {
        self.book.holders(name, &self.revoked).next().is_some()
    }

    /// True when a name is somebody's, a phone's, or promised by an open invite.
    pub(super) fn is_spoken_for(&self, name: &str) -> bool {
        self.is_taken(name) || self.invites.values().any(|i| i.spent.is_none() && i.names.iter().any(|n| n == name))
    }

    /// True when the user or this device of hers counts no more.
    pub(super) fn is_revoked(&self, user: &PublicKey, device: &PublicKey) -> bool {
        self.revoked.is_user(user) || self.revoked.is_device(user, device)
    }

    fn is_taken(&self, name: &str) -> bool {
        self.is_member(name) || self.book.is_phone(name, &self.revoked)
    }
}

/// A name that people may have.
pub(super) fn ordinary_name(name: &str) -> Result<String, IdentityError> {
    let name = canonical_user(name)?;
    if name.starts_with('_') { Err(IdentityError::UserName) } else { Ok(name) }
}

/// A place on the ring that nobody chose.
pub(super) fn draw_peer_id(rng: &mut Rng) -> Id {
    let mut id = Id::default();
    rng.fill(&mut id.0);
    id
}

fn write_names(writer: &mut Writer, names: &[String]) {
    writer.nested(names.len());
    for name in names {
        writer.text(name);
    }
}

fn read_names(reader: &mut Reader<'_>, most: u64) -> Result<Vec<String>, IdentityError> {
    (0..reader.list(most)?).map(|_| reader.text().map(str::to_owned)).collect()
}
