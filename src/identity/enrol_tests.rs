//! Codes that work once, and all the ways in which they do not.

use super::*;
use crate::core::{Rng, UnixTime};
use std::net::IpAddr;

const NOW: UnixTime = UnixTime(1_800_000_000);

struct Office {
    anna: Identity,
    rng: Rng,
}

impl Office {
    fn new(seed: u64) -> Office {
        let mut rng = Rng::from_seed(seed);
        let (anna, _) = Identity::found("office", "anna", None, NOW, &mut rng).expect("names");
        Office { anna, rng }
    }

    fn enroller(&mut self) -> &mut Enroller {
        self.anna.enroller.as_mut().expect("founder")
    }

    fn invite(&mut self, user: &str) -> Result<InviteCode, EnrolError> {
        let enroller = self.anna.enroller.as_mut().expect("founder");
        enroller.invite(user, None, &[], INVITE_LIFETIME, NOW, &mut self.rng)
    }

    fn joining(&mut self, code: InviteCode) -> Joining {
        Joining::new(code, "desk", &mut self.rng).expect("label")
    }

    fn redeem(&mut self, joining: &Joining, source: u8, now: UnixTime) -> Result<JoinAnswer, EnrolError> {
        let request = JoinRequest::decode(&joining.request().encode()).expect("own request");
        let source: IpAddr = [192, 0, 2, source].into();
        let enroller = self.anna.enroller.as_mut().expect("founder");
        let answer = enroller.redeem(&request, source, now, &mut self.rng)?;
        assert_eq!(JoinAnswer::decode(&answer.encode()).as_ref(), Ok(&answer));
        Ok(answer)
    }
}

#[test]
fn a_code_works_once_but_a_lost_answer_is_given_again() {
    let mut office = Office::new(1);
    let code = office.invite("bob").expect("free");
    let bob = office.joining(code.clone());
    let first = office.redeem(&bob, 1, NOW).expect("good");
    let again = office.redeem(&bob, 1, NOW).expect("same keys");
    let ids = [first, again].map(|a| bob.finish(&a, NOW).expect("good").peer_id());
    assert_eq!(ids[0], ids[1], "asked again, the place is the same");
    let thief = office.joining(code);
    assert_eq!(office.redeem(&thief, 2, NOW), Err(EnrolError::Refused));
    assert_eq!(office.invite("bob"), Err(EnrolError::Taken));
    // Revoked, the key keeps no name; the code that it came by is spent all the same.
    let revocation =
        Revocation::sign(&office.anna, RevokedKey::User, bob.request().user_key, "bob", NOW).expect("enroller");
    let mut revocations = Revocations::default();
    assert_eq!(revocations.note(revocation), Noted::New);
    office.enroller().revoke(revocations.revoked());
    assert_eq!(office.redeem(&bob, 1, NOW), Err(EnrolError::Refused));
    let code = office.invite("bob").expect("free again");
    let bob = office.joining(code);
    assert!(office.redeem(&bob, 1, NOW).is_ok());
}

#[test]
fn a_code_runs_out_and_is_withdrawn_by_the_next() {
    let mut office = Office::new(2);
    let code = office.invite("bob").expect("free");
    let bob = office.joining(code);
    let late = NOW + INVITE_LIFETIME;
    assert_eq!(office.redeem(&bob, 1, late), Err(EnrolError::Refused));
    let newer = office.invite("bob").expect("replaces");
    assert_eq!(office.redeem(&bob, 2, NOW), Err(EnrolError::Refused));
    assert_eq!(office.enroller().open_invites(NOW), 1);
    let bob = office.joining(newer);
    assert!(office.redeem(&bob, 3, NOW).is_ok());
    assert_eq!(office.enroller().open_invites(NOW), 0);
}

#[test]
fn names_are_given_once() {
    let mut office = Office::new(3);
    assert_eq!(office.invite("anna"), Err(EnrolError::Taken));
    let rng = &mut Rng::from_seed(4);
    let enroller = office.enroller();
    let mut invite = |user: &str, extension| enroller.invite(user, extension, &[], INVITE_LIFETIME, NOW, rng);
    assert!(invite("bob", Some("102")).is_ok());
    assert_eq!(invite("carol", Some("102")), Err(EnrolError::Taken), "promised to bob");
    assert_eq!(invite("102", None), Err(EnrolError::Taken));
    assert!(matches!(invite("b@b", None), Err(EnrolError::Identity(IdentityError::UserName))));
    assert_eq!(enroller.delegate(KeyPair::generate(rng).public(), &["102"], NOW), Err(EnrolError::Taken));
}

#[test]
fn the_proof_covers_the_keys() {
    let mut office = Office::new(5);
    let code = office.invite("bob").expect("free");
    let bob = office.joining(code);
    let mut request = bob.request();
    request.device_key = KeyPair::generate(&mut Rng::from_seed(6)).public();
    let rng = &mut Rng::from_seed(7);
    assert_eq!(office.enroller().redeem(&request, [192, 0, 2, 1].into(), NOW, rng), Err(EnrolError::Refused));
    let mut request = bob.request();
    request.label = "other".into();
    assert_eq!(office.enroller().redeem(&request, [192, 0, 2, 1].into(), NOW, rng), Err(EnrolError::Refused));
    assert!(office.redeem(&bob, 1, NOW).is_ok());
}

#[test]
fn the_joiner_takes_no_answer_but_from_the_office_and_for_its_keys() {
    let (mut office, mut other) = (Office::new(8), Office::new(9));
    let code = office.invite("bob").expect("free");
    let bob = office.joining(code);
    // Somebody in between with an office of his own signs bob's keys.
    let elsewhere = other.invite("bob").expect("free");
    let victim = Joining::new(elsewhere, "desk", &mut Rng::from_seed(10)).expect("label");
    let foreign = other.redeem(&victim, 1, NOW).expect("good there");
    assert_eq!(bob.finish(&foreign, NOW).map(|_| ()), Err(EnrolError::NotTheOffice));
    // An answer of the right office for somebody else's keys.
    let code = office.invite("carol").expect("free");
    let carol = office.joining(code);
    let for_carol = office.redeem(&carol, 1, NOW).expect("good");
    assert!(matches!(bob.finish(&for_carol, NOW), Err(EnrolError::Identity(_))));
    // The right enroller's certificate with signatures that are not its own.
    let mut mixed = office.redeem(&bob, 1, NOW).expect("good");
    mixed.user = foreign.user;
    assert!(bob.finish(&mixed, NOW).is_err());
}

#[test]
fn wrong_codes_are_slowed_by_source_in_a_bounded_table() {
    let (mut office, mut other) = (Office::new(11), Office::new(12));
    let code = office.invite("bob").expect("free");
    let bob = office.joining(code);
    let wrong = other.invite("bob").expect("free");
    let wrong = other.joining(wrong);
    for _ in 0..MAX_WRONG_CODES {
        assert_eq!(office.redeem(&wrong, 1, NOW), Err(EnrolError::Refused));
    }
    assert_eq!(office.redeem(&bob, 1, NOW), Err(EnrolError::Refused), "not looked at");
    assert!(office.redeem(&bob, 2, NOW).is_ok(), "from elsewhere it is");
    assert!(office.redeem(&bob, 1, NOW + THROTTLE_WINDOW).is_ok(), "and later it is");
    let rng = &mut Rng::from_seed(13);
    for n in 0..MAX_SOURCES as u32 + 50 {
        let source = std::net::Ipv4Addr::from(n).into();
        let refused = office.enroller().redeem(&wrong.request(), source, NOW, rng);
        assert_eq!(refused, Err(EnrolError::Refused));
    }
    assert!(office.enroller().remembered_sources() <= MAX_SOURCES);
    assert!(office.enroller().refused() > MAX_SOURCES as u64);
    // One subscriber's /64 is one source.
    for n in 0..MAX_WRONG_CODES as u16 {
        let source = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, n, n, n, n).into();
        let _ = office.enroller().redeem(&wrong.request(), source, NOW, rng);
    }
    let code = office.invite("dora").expect("free");
    let dora = office.joining(code).request();
    let same: IpAddr = "2001:db8::ffff".parse().expect("address");
    let next: IpAddr = "2001:db8:0:1::1".parse().expect("address");
    assert_eq!(office.enroller().redeem(&dora, same, NOW, rng), Err(EnrolError::Refused));
    assert!(office.enroller().redeem(&dora, next, NOW, rng).is_ok());
}

#[test]
fn open_invites_are_bounded() {
    let mut office = Office::new(14);
    for n in 0..MAX_INVITES {
        assert!(office.invite(&format!("u{n}")).is_ok());
    }
    assert_eq!(office.invite("more"), Err(EnrolError::Full));
    assert!(office.invite("u3").is_ok(), "in place of the one that it replaces");
}
