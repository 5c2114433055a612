//! What an enroller has said, told apart from when it said so: the part of its word that stays when the root revokes it.
//!
//! Whoever holds an enroller's key can write any date into a certificate, so a date alone keeps nothing. The root's statement
//! names what stays instead: a digest of each thing that the enroller is known to have said before, without dates and
//! signature. Word again under another date it is the same thing and does no harm; what is not named is refused, whatever its date.

use super::cbor::Writer;
use super::{Certificate, Claims, ENROLLERS, Enroller, PublicKey, Revocation, Revocations, RevokedKey};
use crate::core::UnixTime;
use std::collections::BTreeSet;

/// Most things named in one statement; more go into further statements.
pub const MAX_KEPT: usize = 1000;

/// The digest of one thing that an enroller said: 16 bytes of BLAKE3 in key derivation mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Word(pub [u8; 16]);

impl Word {
    /// A certificate: kind, subject, issuer, overlay and claims.
    pub fn certificate(certificate: &Certificate) -> Word {
        let mut writer = Writer::array(5);
        writer.uint(certificate.claims.kind()).bytes(&certificate.subject.0).bytes(&certificate.issuer.0);
        writer.text(&certificate.overlay);
        certificate.claims.write(&mut writer);
        Word::digest("chordial kept certificate v1", &writer.finish())
    }

    /// A revocation: what, subject and issuer.
    pub fn revocation(revocation: &Revocation) -> Word {
        let mut writer = Writer::array(3);
        writer.uint(revocation.what.number()).bytes(&revocation.subject.0).bytes(&revocation.issuer.0);
        Word::digest("chordial kept revocation v1", &writer.finish())
    }

    fn digest(context: &str, bytes: &[u8]) -> Word {
        let mut said = Word([0; 16]);
        said.0.copy_from_slice(&blake3::derive_key(context, bytes)[..16]);
        said
    }
}

impl Enroller {
    /// Of another enroller's word what stays when it is revoked: what stands in this book and among the revocations, dated
    /// before `since`; nothing about the enroller's own `devices`. Also the names of the users that stay.
    pub fn kept_of(
        &self,
        enroller: &PublicKey,
        devices: &[PublicKey],
        revocations: &Revocations,
        since: UnixTime,
    ) -> (BTreeSet<Word>, Vec<String>) {
        let announces = |c: &Certificate| matches!(&c.claims, Claims::Adapter(n) if n.iter().any(|n| n == ENROLLERS));
        let stays = |c: &&Certificate| {
            c.issuer == *enroller && c.not_before < since && !devices.contains(&c.subject) && !announces(c)
        };
        let (mut kept, mut users) = (BTreeSet::new(), Vec::new());
        for certificate in self.book().certificates().filter(stays) {
            kept.insert(Word::certificate(certificate));
            if let Claims::User(names) = &certificate.claims {
                users.extend(names.first().cloned());
            }
        }
        let spoken = revocations.iter().filter(|r| r.issuer == *enroller && !r.is_by_user() && r.issued < since);
        kept.extend(
            spoken.filter(|r| r.what != RevokedKey::Enroller && r.what != RevokedKey::Office).map(Word::revocation),
        );
        (kept, users)
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::core::Rng;
    use std::time::Duration;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn enrolled(by: &mut Identity, user: &str, at: UnixTime, seed: u64) -> Identity {
        let (rng, enroller) = (&mut Rng::from_seed(seed), by.enroller.as_mut().expect("enrols"));
        let code = enroller.invite(user, None, &[], INVITE_LIFETIME, at, rng).expect("free");
        let joining = Joining::new(code, "desk", rng).expect("label");
        let answer = enroller.redeem(&joining.request(), [192, 0, 2, 1].into(), at, rng).expect("good");
        joining.finish(&answer, at).expect("good")
    }

    /// A rogue enroller, a good one who knows its book, the root, and two whom the rogue enrolled while it was good.
    fn office() -> (Identity, Identity, RecoverySheet, Identity, Identity) {
        let rng = &mut Rng::from_seed(1);
        let (mut rogue, sheet) = Identity::found("office", "anna", None, NOW, rng).expect("names");
        let mut good = Identity::restore(&sheet, "zoe", None, NOW, rng).expect("sheet");
        let (bob, carl) = (enrolled(&mut rogue, "bob", NOW, 2), enrolled(&mut rogue, "carl", NOW, 3));
        rogue.announce_enroller(NOW).expect("own");
        for page in rogue.enroller.as_ref().expect("enrols").book().reconciled().values() {
            good.enroller.as_mut().expect("enrols").learn(page, NOW).expect("holds");
        }
        (rogue, good, sheet, bob, carl)
    }

    fn key(of: &Identity) -> PublicKey {
        of.enroller.as_ref().expect("enrols").certificate().subject
    }

    fn end(good: &Identity, rogue: &Identity, sheet: &RecoverySheet, set: &mut Revocations, since: UnixTime) {
        let book = good.enroller.as_ref().expect("enrols");
        assert_eq!(book.book().announced().find(|(k, _)| *k == key(rogue)), Some((key(rogue), rogue.device_key())));
        let (kept, _) = book.kept_of(&key(rogue), &[rogue.device_key()], set, since);
        for statement in Revocation::of_enroller(sheet, key(rogue), &kept, "", NOW + DAY).expect("signs") {
            let read = Revocation::decode(&statement.encode()).expect("as written");
            assert_eq!(read, statement);
            read.verify(&good.anchor).expect("the root's");
            set.note(read);
        }
    }

    #[test]
    fn what_was_known_stays_and_nothing_else_whatever_its_date() {
        let (mut rogue, good, sheet, bob, carl) = office();
        let mut set = Revocations::default();
        end(&good, &rogue, &sheet, &mut set, NOW + DAY);
        let revoked = set.revoked();
        let holds = |who: &Identity| revoked.check(&who.verified(NOW + DAY).expect("holds in itself"));
        assert_eq!((holds(&bob), holds(&carl), holds(&good)), (Ok(()), Ok(()), Ok(())));
        // With a date before everything: refused all the same. So is the rogue's own device.
        let eve = enrolled(&mut rogue, "eve", NOW, 9);
        assert_eq!(holds(&eve), Err(IdentityError::Revoked("enroller")));
        assert_eq!(holds(&rogue), Err(IdentityError::Revoked("enroller")));
        // Said again about one that stays, it is the same; with another name it is not.
        let again = rogue.enroller.as_mut().expect("enrols");
        let (user, same) =
            (bob.chain.user_key().expect("user"), |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect());
        again.rename(user, same(&["bob"]), NOW).expect("names");
        let page = |e: &Enroller| e.book().user(&user).cloned().expect("known");
        assert!(!revoked.disowns(&page(again)));
        again.rename(user, same(&["bob", "boss"]), NOW + DAY).expect("names");
        assert!(revoked.disowns(&page(again)));
        // Another enroller does not learn it, and signs those that stay again.
        let mut other = good.clone();
        let enroller = other.enroller.as_mut().expect("enrols");
        enroller.revoke(revoked.clone());
        for page in rogue.enroller.as_ref().expect("enrols").book().reconciled().values() {
            enroller.learn(page, NOW + DAY).expect("holds");
        }
        assert!(enroller.book().holders("eve", &revoked).next().is_none());
        assert!(enroller.book().holders("carl", &revoked).next().is_some());
        let mut bob = bob;
        assert!(bob.leans_on(&revoked));
        let request = bob.certify_request(Vec::new(), NOW + DAY);
        let rng = &mut Rng::from_seed(5);
        let granted = enroller.certify(&request, bob.device_key(), &good.anchor, NOW + DAY, rng).expect("stays");
        bob.certified(&granted, NOW + DAY).expect("holds");
        assert!(!bob.leans_on(&revoked));
        let request = eve.certify_request(Vec::new(), NOW + DAY);
        assert!(enroller.certify(&request, eve.device_key(), &good.anchor, NOW + DAY, rng).is_err());
    }

    #[test]
    fn what_is_dated_after_the_moment_does_not_stay() {
        let (mut rogue, mut good, sheet, bob, _) = office();
        let late = enrolled(&mut rogue, "late", NOW + DAY, 9);
        for page in rogue.enroller.as_ref().expect("enrols").book().reconciled().values() {
            good.enroller.as_mut().expect("enrols").learn(page, NOW + DAY).expect("holds");
        }
        let mut set = Revocations::default();
        end(&good, &rogue, &sheet, &mut set, NOW + DAY);
        let revoked = set.revoked();
        assert!(revoked.check(&bob.verified(NOW + DAY).expect("holds")).is_ok());
        assert!(revoked.check(&late.verified(NOW + DAY).expect("holds")).is_err());
        // The root may name more later: statements add up.
        end(&good, &rogue, &sheet, &mut set, NOW + DAY + DAY);
        assert!(set.revoked().check(&late.verified(NOW + DAY).expect("holds")).is_ok());
        let file = Revocations::from_bytes(&set.to_bytes(), &good.anchor).expect("own file");
        assert_eq!(file.revoked(), set.revoked());
    }

    #[test]
    fn revocations_of_a_revoked_enroller_count_where_they_were_known() {
        let (rogue, good, sheet, bob, carl) = office();
        let device = |by: &Identity, of: &Identity, at| {
            Revocation::sign(by, RevokedKey::Device, of.device_key(), "", at).expect("an enroller")
        };
        let mut set = Revocations::default();
        set.note(device(&rogue, &bob, NOW));
        end(&good, &rogue, &sheet, &mut set, NOW + DAY);
        assert_eq!(set.note(device(&rogue, &carl, NOW)), Noted::New);
        let out = |set: &Revocations, who: &Identity| set.revoked().check(&who.verified(NOW).expect("holds")).is_err();
        assert!(out(&set, &bob) && !out(&set, &carl));
        // A rogue statement with an earlier date does not take the place of a good one and die with its issuer.
        set.note(device(&good, &carl, NOW + DAY));
        set.note(device(&rogue, &carl, UnixTime(NOW.secs() - 9)));
        assert!(out(&set, &carl));
    }

    #[test]
    fn damaged_statements_are_not_taken() {
        let (rogue, good, sheet, ..) = office();
        let book = good.enroller.as_ref().expect("enrols");
        let (kept, users) = book.kept_of(&key(&rogue), &[rogue.device_key()], &Revocations::default(), NOW + DAY);
        assert_eq!(users.len(), 3, "{users:?}");
        let statement = Revocation::of_enroller(&sheet, key(&rogue), &kept, "", NOW).expect("signs").remove(0);
        let (bytes, rng) = (statement.encode(), &mut Rng::from_seed(4));
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            let at = rng.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << rng.below(8);
            assert!(!Revocation::decode(&damaged).is_ok_and(|r| r.verify(&good.anchor).is_ok()));
        }
        let many: BTreeSet<Word> = (0..2500_u32).map(|n| Word::digest("x", &n.to_be_bytes())).collect();
        let parts = Revocation::of_enroller(&sheet, key(&rogue), &many, "", NOW).expect("signs");
        assert_eq!(parts.iter().map(|p| p.kept.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
        let read = |p: &Revocation| Revocation::decode(&p.encode()).is_ok_and(|r| r.verify(&good.anchor).is_ok());
        assert!(parts.iter().all(read));
    }
}
