//! The administrator's side: whom the office knows, which invites are open, and who may have what name.
//!
//! One enroller knows the names that it gave out itself. A second one, made from the recovery sheet, does not know the
//! first one's: settling names between enrollers is left to the office policy record of later work.

use super::cbor::{Reader, Writer};
use super::certificate::MAX_NAMES;
use super::{
    Certificate, Claims, EnrolError, IdentityError, InviteCode, JoinAnswer, JoinRequest, KeyPair, PublicKey,
    RootFingerprint, canonical_user,
};
use crate::core::{Id, Redacted, Rng, UnixTime, subscriber};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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

/// A user that this enroller has enrolled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Name and extensions.
    pub names: Vec<String>,
    /// The user's key.
    pub user_key: PublicKey,
    /// The first device's key.
    pub device_key: PublicKey,
    /// The place of that device on the ring.
    pub peer_id: Id,
}

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
    members: BTreeMap<String, Member>,
    phones: BTreeSet<String>,
    invites: BTreeMap<[u8; 8], Invite>,
    wrong: BTreeMap<IpAddr, (u32, UnixTime)>,
    refused: u64,
}

impl Enroller {
    /// With a key and the root's certificate for it.
    pub(super) fn new(key: KeyPair, certificate: Certificate) -> Enroller {
        let (members, phones, invites) = Default::default();
        Enroller { key, certificate, members, phones, invites, wrong: BTreeMap::new(), refused: 0 }
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
        let mut names = vec![canonical_user(user)?];
        names.extend(extension.map(canonical_user).transpose()?);
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
        let source = subscriber(source);
        self.wrong.retain(|_, (_, since)| now < *since + THROTTLE_WINDOW);
        let throttled = self.wrong.get(&source).is_some_and(|(count, _)| *count >= MAX_WRONG_CODES);
        let keys = (request.user_key, request.device_key);
        let good = !throttled
            && self.invites.get(&request.invite).is_some_and(|invite| {
                request.is_proven(invite.proof_key.reveal())
                    && invite.expires > now
                    && invite.spent.is_none_or(|spent| spent == keys)
            });
        if !good {
            self.refused += 1;
            self.count_wrong(source, now);
            return Err(EnrolError::Refused);
        }
        let invite = self.invites.get_mut(&request.invite).ok_or(EnrolError::Refused)?;
        invite.spent = Some(keys);
        let names = invite.names.clone();
        // Asked again, the device keeps the place that it was given.
        let peer_id = match self.members.get(&names[0]) {
            Some(member) if (member.user_key, member.device_key) == keys => member.peer_id,
            _ => draw_peer_id(rng),
        };
        Ok(self.enrol(names, request.user_key, request.device_key, peer_id, now)?)
    }

    /// Delegates phone accounts to a device: one certificate for up to 32 names. `Taken` when a name is a user's.
    pub fn delegate(&mut self, device: PublicKey, names: &[&str], now: UnixTime) -> Result<Certificate, EnrolError> {
        let names = names.iter().map(|n| canonical_user(n)).collect::<Result<Vec<_>, _>>()?;
        let promised = |n: &String| self.invites.values().any(|i| i.names.contains(n));
        if names.iter().any(|n| self.is_member(n) || promised(n)) {
            return Err(EnrolError::Taken);
        }
        let certificate = self.issue(device, Claims::Adapter(names.clone()), now)?;
        self.phones.extend(names);
        Ok(certificate)
    }

    /// Takes an invite back that nobody has redeemed; true when there was one.
    pub fn withdraw(&mut self, code: &InviteCode) -> bool {
        let open = self.invites.get(&code.name()).is_some_and(|invite| invite.spent.is_none());
        open && self.invites.remove(&code.name()).is_some()
    }

    /// Forgets a user, so that the name can be given again. What was signed for it stays valid until it runs out.
    pub fn forget(&mut self, user: &str) -> bool {
        self.invites.retain(|_, invite| invite.names[0] != user);
        self.members.remove(user).is_some()
    }

    /// The users enrolled here, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The phone accounts delegated here, by name.
    pub fn phones(&self) -> impl Iterator<Item = &str> {
        self.phones.iter().map(String::as_str)
    }

    /// How many invites can still be redeemed at `now`.
    pub fn open_invites(&self, now: UnixTime) -> usize {
        self.invites.values().filter(|i| i.spent.is_none() && i.expires > now).count()
    }

    /// How many requests were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many sources wrong codes are held against; at most [`MAX_SOURCES`].
    pub fn remembered_sources(&self) -> usize {
        self.wrong.len()
    }

    /// The enroller's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn enrol(
        &mut self,
        names: Vec<String>,
        user_key: PublicKey,
        device_key: PublicKey,
        peer_id: Id,
        now: UnixTime,
    ) -> Result<JoinAnswer, IdentityError> {
        let user = self.issue(user_key, Claims::User(names.clone()), now)?;
        let peer = self.issue(device_key, Claims::Peer(peer_id), now)?;
        if let Some(name) = names.first() {
            self.members.insert(name.clone(), Member { names, user_key, device_key, peer_id });
        }
        Ok(JoinAnswer { enroller: self.certificate.clone(), user, peer })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(5).bytes(&**self.key.seed().reveal()).raw(&self.certificate.encode());
        writer.nested(self.members.len());
        for member in self.members.values() {
            writer.nested(4);
            write_names(writer, &member.names);
            writer.bytes(&member.user_key.0).bytes(&member.device_key.0).bytes(&member.peer_id.0);
        }
        write_names(writer, &Vec::from_iter(self.phones.iter().cloned()));
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

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Enroller, IdentityError> {
        reader.array(5)?;
        let key = KeyPair::from_seed(&reader.exact()?);
        let mut enroller = Enroller::new(key, Certificate::read(reader)?);
        for _ in 0..reader.list(u64::from(u16::MAX))? {
            reader.array(4)?;
            let names = read_names(reader, MAX_NAMES as u64)?;
            let name = names.first().ok_or(IdentityError::Malformed(WHAT))?.clone();
            let (user_key, device_key) = (PublicKey(reader.exact()?), PublicKey(reader.exact()?));
            let peer_id = Id(reader.exact()?);
            enroller.members.insert(name, Member { names, user_key, device_key, peer_id });
        }
        enroller.phones = read_names(reader, u16::MAX.into())?.into_iter().collect();
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

    fn issue(&self, subject: PublicKey, claims: Claims, now: UnixTime) -> Result<Certificate, IdentityError> {
        Certificate::issue(&self.key, subject, &self.certificate.overlay, claims, now)
    }

    fn is_member(&self, name: &str) -> bool {
        self.members.values().any(|m| m.names.iter().any(|n| n == name))
    }

    fn is_taken(&self, name: &str) -> bool {
        self.is_member(name) || self.phones.contains(name)
    }

    fn count_wrong(&mut self, source: IpAddr, now: UnixTime) {
        if !self.wrong.contains_key(&source) && self.wrong.len() >= MAX_SOURCES {
            let oldest = self.wrong.iter().min_by_key(|(_, (_, since))| *since).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.wrong.remove(&ip));
        }
        let (count, _) = self.wrong.entry(source).or_insert((0, now));
        *count = count.saturating_add(1);
    }
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
