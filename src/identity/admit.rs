//! The enroller that takes another office in: its codes, who is to come from where and until when, and each device as it comes.
//!
//! A name that is somebody's here already gets the lowest number from 2 on behind it that makes it free (`carl2`, `1002`); both
//! administrators see it. The book has the users from the moment of the merge, so nobody else gets their names.
//!
//! The file: `[1, [[[overlay, root key], until, [[user key, [name...]]...], [[user key, device key]...], [device certificate...],
//! [phone...]]...]]`. Codes are not
//! in it: one that was not used is gone with the program.

use super::book::{is_enrollers, names as names_of};
use super::cbor::{Reader, Writer, canonical};
use super::certify::REQUEST_AGE;
use super::enroller::{draw_peer_id, ordinary_name};
use super::merge::{read_users, shown_place, write_users};
use super::own::{read_anchor, write_anchor};
use super::throttle::Throttle;
use super::{
    CLOCK_SKEW, Certificate, Claims, CodeKind, EnrolError, Enroller, IdentityError, InviteCode, MERGE_LIFETIME,
    MergeOffer, MergeTerms, MoveAnswer, MoveAsk, Named, PublicKey, Revoked, RootFingerprint, TrustAnchor,
};
use crate::core::{Redacted, Rng, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a code to merge by is good.
pub const MERGE_CODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Most codes open, and most offices taken in that are remembered.
const MAX_MERGES: usize = 16;
/// Most certificates of further devices that are remembered of one office.
const MAX_DEVICES: usize = 2048;
const WHAT: &str = "file of merged offices";

#[derive(Clone, Debug)]
struct Open {
    proof_key: Redacted<[u8; 32]>,
    expires: UnixTime,
    /// By which office it was used.
    spent: Option<TrustAnchor>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Merged {
    anchor: TrustAnchor,
    until: UnixTime,
    users: Vec<Named>,
    gone: BTreeSet<(PublicKey, PublicKey)>,
    /// What users' keys say of devices that have not come yet.
    about: BTreeMap<PublicKey, Certificate>,
    /// Phones that have come.
    phones: BTreeSet<String>,
}

/// The offices that an enroller takes in.
#[derive(Clone, Default, Debug)]
pub struct Merges {
    codes: BTreeMap<[u8; 8], Open>,
    merged: Vec<Merged>,
    throttle: Throttle,
}

impl Merges {
    /// A code by which one other office is merged into that of `root`. `Full` when too many are open.
    pub fn code(
        &mut self,
        root: &PublicKey,
        addrs: &[SocketAddr],
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<InviteCode, EnrolError> {
        self.codes.retain(|_, open| open.expires > now);
        if self.codes.len() >= MAX_MERGES {
            return Err(EnrolError::Full);
        }
        let code = InviteCode::of_kind(CodeKind::Merge, RootFingerprint::of(root), addrs, rng);
        let proof_key = Redacted::new(code.proof_key());
        self.codes.insert(code.name(), Open { proof_key, expires: now + MERGE_CODE_LIFETIME, spent: None });
        Ok(code)
    }

    /// Takes an offer from `device` of the office `anchor`, as the link proved both. Whatever is not right gets the same `Refused`.
    /// Repeated by the same office it is answered alike. Persist both the file and the identity before the answer is sent.
    pub fn take(
        &mut self,
        enroller: &mut Enroller,
        offer: &MergeOffer,
        (device, anchor): (PublicKey, &TrustAnchor),
        source: IpAddr,
        now: UnixTime,
    ) -> Result<MergeTerms, EnrolError> {
        let closed = self.throttle.is_closed_to(source, now);
        let good = !closed
            && self.codes.get(&offer.code).is_some_and(|open| {
                offer.is_proven(open.proof_key.reveal())
                    && open.expires > now
                    && open.spent.as_ref().is_none_or(|spent| spent == anchor)
            });
        let right = is_enrollers(&offer.right, device, anchor, &Revoked::default(), now).is_ok();
        let right = right && offer.anchor == *anchor;
        let room = self.merged.iter().any(|m| m.anchor == *anchor) || self.merged.len() < MAX_MERGES;
        if !good || !right || !room {
            self.throttle.count(source, now);
            return Err(EnrolError::Refused);
        }
        let users = offer.users.iter().map(|user| enroller.take_user(user, now)).collect::<Result<Vec<_>, _>>()?;
        if let Some(open) = self.codes.get_mut(&offer.code) {
            open.spent = Some(anchor.clone());
        }
        self.merged.retain(|m| m.anchor != *anchor);
        let (gone, until) = (offer.gone.iter().copied().collect(), now + MERGE_LIFETIME);
        let (about, phones) = Default::default();
        self.merged.push(Merged { anchor: anchor.clone(), until, users: users.clone(), gone, about, phones });
        Ok(MergeTerms { enroller: enroller.certificate().clone(), users })
    }

    /// Takes a device in that was of the office `anchor`, as its link proved. `None` where its user's own device has to come first.
    pub fn admit(
        &mut self,
        enroller: &mut Enroller,
        ask: &MoveAsk,
        (device, anchor): (PublicKey, &TrustAnchor),
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<Option<MoveAnswer>, EnrolError> {
        let merged = self.merged.iter_mut().find(|m| m.anchor == *anchor).ok_or(EnrolError::Refused)?;
        let age_ok = ask.issued <= now + CLOCK_SKEW && now <= ask.issued + REQUEST_AGE + CLOCK_SKEW;
        if !age_ok || now > merged.until || !ask.is_signed() || ask.chain.device() != Some(device) {
            return Err(EnrolError::Refused);
        }
        let shown = anchor.verify_chain(&ask.chain, now)?;
        let user = shown.user_key;
        let comes = merged.users.iter().any(|(key, _)| *key == user) && !merged.gone.contains(&(user, device));
        if !comes || enroller.is_revoked(&user, &device) {
            return Err(EnrolError::Refused);
        }
        let overlay = enroller.certificate().overlay.clone();
        for about in &ask.devices {
            let right = about.issuer == user && matches!(about.claims, Claims::Device(_));
            let known = merged.about.contains_key(&about.subject);
            if right && about.check(&overlay, now).is_ok() && (known || merged.about.len() < MAX_DEVICES) {
                merged.about.insert(about.subject, about.clone());
            }
        }
        let about = merged.about.get(&device).filter(|about| about.issuer == user).cloned();
        let Some(about) = about.filter(|about| about.check(&overlay, now).is_ok()) else { return Ok(None) };
        let phones = ask.phones.iter().filter_map(|(adapter, by)| delegated(adapter, by, device, anchor, now));
        let phones: Vec<String> = phones.flatten().collect();
        let chain = enroller.take_device(user, about, shown_place(&ask.chain), now, rng)?;
        let (mut adapters, mut refused) = (Vec::new(), Vec::new());
        for name in phones {
            // Several devices of the other office may serve one phone; a phone of that name here is another one.
            let free = merged.phones.contains(&name) || !enroller.is_spoken_for(&name);
            match free.then(|| enroller.delegate(device, &[&name], now)) {
                Some(Ok(certificate)) => {
                    adapters.push(certificate);
                    merged.phones.insert(name);
                }
                _ => refused.push(name),
            }
        }
        Ok(Some(MoveAnswer { chain, adapters, refused }))
    }

    /// True when nobody is to come from anywhere.
    pub fn is_empty(&self) -> bool {
        self.merged.is_empty()
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::array(2);
        writer.uint(1).nested(self.merged.len());
        for merged in &self.merged {
            writer.nested(6);
            write_anchor(&mut writer, &merged.anchor);
            writer.uint(merged.until.secs());
            write_users(&mut writer, &merged.users);
            writer.nested(merged.gone.len());
            for (user, device) in &merged.gone {
                writer.nested(2).bytes(&user.0).bytes(&device.0);
            }
            writer.nested(merged.about.len());
            for about in merged.about.values() {
                writer.raw(&about.encode());
            }
            writer.nested(merged.phones.len());
            for phone in &merged.phones {
                writer.text(phone);
            }
        }
        writer.finish()
    }

    /// Reads the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Merges, IdentityError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.array(2)?;
        reader.version(1)?;
        let mut merges = Merges::default();
        for _ in 0..reader.list(MAX_MERGES as u64)? {
            reader.array(6)?;
            let (anchor, until) = (read_anchor(&mut reader)?, UnixTime(reader.uint()?));
            let (users, mut gone, mut about) = (read_users(&mut reader)?, BTreeSet::new(), BTreeMap::new());
            for _ in 0..reader.list(u64::from(u16::MAX))? {
                reader.array(2)?;
                gone.insert((PublicKey(reader.exact()?), PublicKey(reader.exact()?)));
            }
            for _ in 0..reader.list(MAX_DEVICES as u64)? {
                let certificate = Certificate::read(&mut reader)?;
                about.insert(certificate.subject, certificate);
            }
            let mut phones = BTreeSet::new();
            for _ in 0..reader.list(u64::from(u16::MAX))? {
                phones.insert(reader.text()?.to_owned());
            }
            merges.merged.push(Merged { anchor, until, users, gone, about, phones });
        }
        canonical(bytes, &merges.to_bytes(), WHAT)?;
        Ok(merges)
    }
}

impl Enroller {
    /// The user of another office, under names that are free here.
    fn take_user(&mut self, (key, names): &Named, now: UnixTime) -> Result<Named, EnrolError> {
        if let Some(known) = self.book().user(key) {
            return Ok((*key, names_of(known).to_vec()));
        }
        let mut taken: Vec<String> = Vec::new();
        for name in names {
            let name = ordinary_name(name)?;
            let free = |n: &String| !self.is_spoken_for(n) && !taken.contains(n);
            let numbered = (2..1000).map(|n| format!("{name}{n}"));
            let found = std::iter::once(name.clone()).chain(numbered).find(|n| ordinary_name(n).is_ok() && free(n));
            taken.push(found.ok_or(EnrolError::Taken)?);
        }
        self.rename(*key, taken.clone(), now)?;
        Ok((*key, taken))
    }

    /// Enroller, user, device and peer certificate of a device whose user has been taken in.
    fn take_device(
        &mut self,
        user: PublicKey,
        about: Certificate,
        place: Option<crate::core::Id>,
        now: UnixTime,
        rng: &mut Rng,
    ) -> Result<[Certificate; 4], EnrolError> {
        let names = self.book().user(&user).map(|c| names_of(c).to_vec()).ok_or(EnrolError::Refused)?;
        let device = about.subject;
        let known = self.book().device(&device).map(|d| d.peer_id());
        let is_another =
            |id: &crate::core::Id| self.book().devices().any(|(d, row)| *d != device && row.peer_id() == *id);
        let peer_id = known.or(place.filter(|id| !is_another(id))).unwrap_or_else(|| draw_peer_id(rng));
        let granted = self.enrol_device(names, user, device, peer_id, Some(about.clone()), now)?;
        Ok([granted.enroller, granted.user, about, granted.peer])
    }
}

/// The names that a delegation of the other office gave to the device.
fn delegated(
    adapter: &Certificate,
    by: &Certificate,
    device: PublicKey,
    anchor: &TrustAnchor,
    now: UnixTime,
) -> Option<Vec<String>> {
    let TrustAnchor::Office { overlay, root } = anchor else { return None };
    let right = adapter.subject == device && adapter.issuer == by.subject && by.issuer == *root;
    let holds =
        right && by.claims == Claims::Enroller && by.check(overlay, now).is_ok() && adapter.check(overlay, now).is_ok();
    match &adapter.claims {
        Claims::Adapter(names) if holds => Some(names.iter().filter(|n| !n.starts_with('_')).cloned().collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn source() -> IpAddr {
        [192, 0, 2, 1].into()
    }

    fn office(name: &str, seed: u64) -> Identity {
        let (mut founder, _) =
            Identity::found(name, "anna", Some("100"), NOW, &mut Rng::from_seed(seed)).expect("names");
        founder.announce_enroller(NOW).expect("own");
        founder
    }

    fn joined(founder: &mut Identity, user: &str, seed: u64) -> Identity {
        let (rng, enroller) = (&mut Rng::from_seed(seed), founder.enroller.as_mut().expect("founder"));
        let code = enroller.invite(user, None, &[], INVITE_LIFETIME, NOW, rng).expect("free");
        let joining = Joining::new(code, "desk", rng).expect("label");
        let answer = enroller.redeem(&joining.request(), source(), NOW, rng).expect("good");
        joining.finish(&answer, NOW).expect("good")
    }

    fn offer(by: &Identity, code: &InviteCode, gone: Vec<(PublicKey, PublicKey)>) -> MergeOffer {
        let users = by.enroller.as_ref().expect("enrols").book().users().map(|c| (c.subject, names_of(c).to_vec()));
        let right = by.enroller_proof().expect("announced");
        MergeOffer::new(code, by.anchor.clone(), right, users.collect(), gone).expect("small")
    }

    #[test]
    fn a_whole_office_is_taken_in_device_by_device() {
        let rng = &mut Rng::from_seed(9);
        let (mut a, mut b) = (office("a", 1), office("b", 2));
        let bob = joined(&mut b, "bob", 3);
        let chain = bob.add_device(KeyPair::from_seed(&[5; 32]).public(), "mobile", NOW).expect("own key");
        let mobile = Identity::assemble(KeyPair::from_seed(&[5; 32]), None, chain, b.anchor.clone(), NOW).expect("own");
        let mut bob = bob;
        bob.remember_device(&mobile.chain);
        let mut merges = Merges::default();
        let enroller = a.enroller.as_mut().expect("enrols");
        let root = enroller.certificate().issuer;
        let code = merges.code(&root, &[], NOW, rng).expect("room");
        let good = offer(&b, &code, Vec::new());
        assert_eq!(MergeOffer::decode(&good.encode()), Ok(good.clone()));
        let b_device = (b.device_key(), &b.anchor);
        // By who is no administrator there, for another office, without the code, too late.
        let other = InviteCode::of_kind(CodeKind::Merge, code.root, &[], rng);
        let from = |i: u8| -> IpAddr { [198, 51, 100, i].into() };
        let refused = Err(EnrolError::Refused);
        assert_eq!(merges.take(enroller, &good, (bob.device_key(), &b.anchor), from(1), NOW), refused);
        assert_eq!(merges.take(enroller, &good, b_device, from(2), NOW + MERGE_CODE_LIFETIME), refused);
        assert_eq!(merges.take(enroller, &offer(&b, &other, Vec::new()), b_device, from(3), NOW), refused);
        let terms = merges.take(enroller, &good, b_device, source(), NOW).expect("the code");
        let names: Vec<_> = terms.users.iter().flat_map(|(_, names)| names.clone()).collect();
        assert!(["anna2", "1002", "bob"].iter().all(|n| names.iter().any(|m| m == n)), "{names:?}");
        assert_eq!(merges.take(enroller, &good, b_device, source(), NOW), Ok(terms.clone()), "the answer was lost");
        let mut again = Merges::from_bytes(&merges.to_bytes()).expect("own file");
        assert_eq!(again.merged, merges.merged);

        // A device without its user's key waits for the one that has it.
        let ask = |who: &Identity| MoveAsk::sign(who, "a", NOW).expect("signs");
        let admit = |merges: &mut Merges, enroller: &mut Enroller, who: &Identity, now, rng: &mut Rng| {
            merges.admit(enroller, &ask(who), (who.device_key(), &who.anchor), now, rng)
        };
        assert_eq!(admit(&mut again, enroller, &mobile, NOW, rng), Ok(None));
        let answer = admit(&mut again, enroller, &bob, NOW, rng).expect("a member").expect("with the key");
        let read = MoveAnswer::decode(&answer.encode()).expect("as written");
        let anchor = TrustAnchor::Office { overlay: "a".into(), root };
        let moved = read.finish(&bob, &anchor, NOW).expect("holds");
        assert_eq!(
            (moved.aor(), moved.peer_id(), moved.device_key()),
            ("sip:bob@a".into(), bob.peer_id(), bob.device_key())
        );
        assert!(read.finish(&bob, &b.anchor, NOW).is_err(), "another root than was said");
        assert!(read.finish(&mobile, &anchor, NOW).is_err(), "another device");
        let answer = admit(&mut again, enroller, &mobile, NOW, rng).expect("a member").expect("vouched for");
        assert_eq!(answer.finish(&mobile, &anchor, NOW).expect("holds").user(), "bob");
        // Not for ever, not by another's signature, not for a device that is gone.
        let late = NOW + MERGE_LIFETIME + Duration::from_secs(1);
        let old = MoveAsk::sign(&bob, "a", late).expect("signs");
        assert!(again.admit(enroller, &old, (bob.device_key(), &b.anchor), late, rng).is_err());
        assert!(again.admit(enroller, &ask(&bob), (mobile.device_key(), &b.anchor), NOW, rng).is_err());
        let code = again.code(&root, &[], NOW, rng).expect("room");
        let gone = vec![(bob.chain.user_key().expect("user"), bob.device_key())];
        again.take(enroller, &offer(&b, &code, gone), b_device, source(), NOW).expect("the code");
        assert!(admit(&mut again, enroller, &bob, NOW, rng).is_err());
        // And an office that was never merged brings nobody.
        let mut c = office("c", 7);
        let cora = joined(&mut c, "cora", 8);
        assert!(admit(&mut again, enroller, &cora, NOW, rng).is_err());
    }

    #[test]
    fn damaged_words_are_not_taken() {
        let rng = &mut Rng::from_seed(4);
        let (mut a, b) = (office("a", 1), office("b", 2));
        let mut merges = Merges::default();
        let enroller = a.enroller.as_mut().expect("enrols");
        let code = merges.code(&enroller.certificate().issuer.clone(), &[], NOW, rng).expect("room");
        let good = offer(&b, &code, Vec::new()).encode();
        let device = (b.device_key(), &b.anchor);
        for n in 0..1500_u32 {
            let mut bytes = good.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << (n % 8);
            let from: IpAddr = [10, 1, (n >> 8) as u8, n as u8].into();
            let taken = MergeOffer::decode(&bytes).is_ok_and(|o| merges.take(enroller, &o, device, from, NOW).is_ok());
            assert!(!taken, "bit {n}");
        }
        let offer = MergeOffer::decode(&good).expect("as written");
        merges.take(enroller, &offer, device, source(), NOW).expect("the code");
        let ask = MoveAsk::sign(&b, "a", NOW).expect("signs").encode();
        for n in 0..1500_u32 {
            let mut bytes = ask.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << (n % 8);
            assert!(!MoveAsk::decode(&bytes).is_ok_and(|a| merges.admit(enroller, &a, device, NOW, rng).is_ok()));
        }
        let said = Successor { addrs: Vec::new(), renamed: vec![("a".into(), "b".into())] };
        let said = Revocation::of_office(&b, PublicKey([3; 32]), "a", said, NOW).expect("an enroller");
        let former = Former { anchor: b.anchor.clone(), statement: said.clone() };
        assert_eq!(Former::from_bytes(&former.to_bytes()), Ok(former.clone()));
        assert_eq!(former.translate("sip:a@b").as_deref(), Some("sip:b@a"));
        assert_eq!((former.translate("sip:a@c"), former.rename("c")), (None, "c"));
        let bytes = said.encode();
        for n in 0..1500_u32 {
            let mut damaged = bytes.clone();
            let at = rng.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << (n % 8);
            assert!(!Revocation::decode(&damaged).is_ok_and(|r| r.verify(&b.anchor).is_ok()));
        }
        let mut set = Revocations::default();
        set.note(said);
        let later = Successor { addrs: Vec::new(), renamed: Vec::new() };
        let later =
            Revocation::of_office(&b, PublicKey([1; 32]), "z", later, NOW + MERGE_LIFETIME).expect("an enroller");
        set.note(later);
        assert_eq!(set.successor().map(|r| r.name.as_str()), Some("a"), "the first counts");
        assert!(set.revoked().is_empty());
    }
}
