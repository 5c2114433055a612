//! Revocations, certificates asked for, codes for devices, books: what is taken, and everything that must not be.

use super::book::Book;
use super::*;
use crate::core::{Rng, UnixTime};
use std::net::IpAddr;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn office(seed: u64) -> (Identity, RecoverySheet) {
    Identity::found("office", "anna", None, NOW, &mut Rng::from_seed(seed)).expect("names")
}

fn joined(founder: &mut Identity, user: &str, seed: u64) -> Identity {
    let (rng, enroller) = (&mut Rng::from_seed(seed), founder.enroller.as_mut().expect("founder"));
    let code = enroller.invite(user, None, &[], INVITE_LIFETIME, NOW, rng).expect("free");
    let joining = Joining::new(code, "desk", rng).expect("label");
    let answer = enroller.redeem(&joining.request(), source(1), NOW, rng).expect("good");
    joining.finish(&answer, NOW).expect("good")
}

fn source(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn set(statements: impl IntoIterator<Item = Revocation>) -> Revocations {
    let mut set = Revocations::default();
    statements.into_iter().for_each(|r| {
        set.note(r);
    });
    set
}

fn verifier(of: &Identity, revocations: &Revocations) -> Verifier {
    let mut verifier = Verifier::new(of.anchor.clone(), 16);
    verifier.revoke(revocations.revoked());
    verifier
}

#[test]
fn each_may_revoke_what_is_under_it() {
    let (mut anna, sheet) = office(1);
    let (bob, carl) = (joined(&mut anna, "bob", 2), joined(&mut anna, "carl", 3));
    let (user, device) = (bob.chain.user_key().expect("user"), bob.device_key());
    let enroller = anna.enroller.as_ref().expect("enrols").certificate().subject;
    let check = |set: &Revocations, who: &Identity| {
        let found = verifier(&anna, set).verify_chain(&who.chain, NOW).map(|_| ());
        // A memory of good chains does not outlive a revocation.
        let mut remembering = verifier(&anna, &Revocations::default());
        remembering.verify_chain(&who.chain, NOW).expect("good before");
        remembering.revoke(set.revoked());
        assert_eq!(remembering.verify_chain(&who.chain, NOW).map(|_| ()), found);
        found
    };
    for (statement, what) in [
        (Revocation::sign(&anna, RevokedKey::User, user, "bob", NOW), "user"),
        (Revocation::sign(&anna, RevokedKey::Device, device, "", NOW), "device"),
        (Revocation::sign(&bob, RevokedKey::Device, device, "", NOW), "device"),
        (Revocation::sign(&bob, RevokedKey::User, user, "", NOW), "user"),
        (Revocation::by_root(&sheet, RevokedKey::Device, device, "", NOW), "device"),
    ] {
        let statement = statement.expect("may");
        let read = Revocation::decode(&statement.encode()).expect("as written");
        read.verify(&anna.anchor).expect("counts");
        let set = set([read]);
        assert_eq!(check(&set, &bob), Err(IdentityError::Revoked(what)));
        assert_eq!(check(&set, &carl), Ok(()));
        let file = Revocations::from_bytes(&set.to_bytes(), &anna.anchor).expect("sound");
        assert_eq!(file.revoked(), set.revoked());
    }
    let root = Revocation::by_root(&sheet, RevokedKey::Enroller, enroller, "", NOW).expect("root");
    assert_eq!(check(&set([root.clone()]), &carl), Err(IdentityError::Revoked("enroller")));
    // Nobody else revokes an enroller; a user revokes no other user; a statement of another office counts nowhere.
    assert!(Revocation::sign(&anna, RevokedKey::Enroller, enroller, "", NOW).is_err());
    assert!(Revocation::sign(&bob, RevokedKey::User, carl.chain.user_key().expect("user"), "", NOW).is_err());
    let (foreign, other_sheet) = office(9);
    assert!(root.verify(&foreign.anchor).is_err());
    let other = Revocation::by_root(&other_sheet, RevokedKey::Device, device, "", NOW).expect("its own root");
    assert_eq!(other.verify(&anna.anchor), Err(IdentityError::Issuer("revocation")));
    assert_eq!(root.verify(&anna.anchor), Ok(()));
    // It outlives the certificates of who said it.
    assert_eq!(Revocation::sign(&anna, RevokedKey::Device, device, "", NOW).expect("may").verify(&anna.anchor), Ok(()));
}

#[test]
fn the_set_is_bounded_and_the_same_in_any_order() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let key = |n: u8| PublicKey([n; 32]);
    let mut own = Revocations::default();
    for n in 0..=MAX_REVOCATIONS_PER_USER as u8 {
        let statement = Revocation::sign(&bob, RevokedKey::Device, key(n), "", NOW).expect("own");
        let noted = own.note(statement);
        let room = usize::from(n) < MAX_REVOCATIONS_PER_USER;
        assert_eq!(noted, if room { Noted::New } else { Noted::Full }, "{n}");
    }
    // The office's word still has a place.
    let office = Revocation::sign(&anna, RevokedKey::Device, key(255), "", NOW).expect("enroller");
    assert_eq!(own.note(office), Noted::New);
    // Two who say the same at different times: the earlier stays, whichever came first.
    let later = UnixTime(NOW.secs() + 5);
    let says = |at| Revocation::sign(&anna, RevokedKey::Device, key(7), "x", at).expect("enroller");
    let (one, two) = (set([says(NOW), says(later)]), set([says(later), says(NOW)]));
    assert_eq!((one.to_bytes(), one.len()), (two.to_bytes(), 1));
    assert_eq!(one.ids(), two.ids());
}

#[test]
fn damaged_statements_revoke_nobody() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let rng = &mut Rng::from_seed(5);
    let mut read = 0;
    for good in [
        Revocation::sign(&anna, RevokedKey::User, bob.chain.user_key().expect("user"), "bob", NOW).expect("may"),
        Revocation::sign(&bob, RevokedKey::Device, bob.device_key(), "", NOW).expect("may"),
    ] {
        let bytes = good.encode();
        for n in 0..6000 {
            let mut damaged = bytes.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            match n % 3 {
                0 => damaged[at] ^= 1 << rng.below(8),
                1 => damaged.truncate(at),
                _ => damaged.insert(at, rng.next_u32() as u8),
            }
            if let Ok(statement) = Revocation::decode(&damaged) {
                read += 1;
                assert_eq!(statement.encode(), damaged);
                assert!(statement.verify(&anna.anchor).is_err(), "{damaged:02x?}");
            }
        }
    }
    assert!(read > 100, "{read} reach the signature");
}

#[test]
fn damaged_questions_are_refused_and_read_back_as_they_are() {
    let (mut anna, _) = office(1);
    anna.announce_enroller(NOW).expect("enrols");
    let bob = joined(&mut anna, "bob", 2);
    let rng = &mut Rng::from_seed(6);
    let book = anna.enroller.as_ref().expect("enrols").book().reconciled();
    let ask =
        BookAsk::new(anna.enroller_proof().expect("announced"), Ask::new(&book, book.values().cloned().collect()));
    let request = bob.certify_request(vec!["lobby".into()], NOW);
    let (anchor, device) = (bob.anchor.clone(), bob.device_key());
    type Again = fn(&[u8]) -> Option<Vec<u8>>;
    let kinds: [(Vec<u8>, Again); 4] = [
        (ask.encode(), |b| BookAsk::decode(b).ok().map(|a| a.encode())),
        (ask.ask.encode(), |b| Ask::decode(b).ok().map(|a| a.encode())),
        (request.encode(), |b| CertifyRequest::decode(b).ok().map(|a| a.encode())),
        (ask.ask.answer(&book).encode(), |b| Reply::decode(b).ok().map(|a| a.encode())),
    ];
    for (good, again) in kinds {
        assert_eq!(again(&good).as_ref(), Some(&good));
        for _ in 0..2000 {
            let mut bytes = good.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u32() as u8;
            if let Some(read) = again(&bytes) {
                assert_eq!(read, bytes, "accepted encodings are canonical");
            }
            if let Ok(read) = CertifyRequest::decode(&bytes)
                && read != request
            {
                let enroller = anna.enroller.as_mut().expect("enrols");
                assert!(enroller.certify(&read, device, &anchor, NOW, rng).is_err());
            }
        }
    }
    // Who is no enroller reads no book.
    let none = Revoked::default();
    assert_eq!(ask.verify(anna.device_key(), &anchor, &none, NOW), Ok(()));
    assert_eq!(ask.verify(bob.device_key(), &anchor, &none, NOW), Err(IdentityError::Shape("adapter")));
}

#[test]
fn an_enroller_certifies_whom_the_office_knows() {
    let (mut anna, sheet) = office(1);
    let mut bob = joined(&mut anna, "bob", 2);
    let rng = &mut Rng::from_seed(3);
    let key = KeyPair::generate(rng);
    let chain = bob.add_device(key.public(), "mobile", NOW).expect("holds the key");
    let mut mobile = Identity::assemble(key, None, chain, bob.anchor.clone(), NOW).expect("own");
    let (anchor, device) = (anna.anchor.clone(), mobile.device_key());
    // Another administrator, from the sheet, with an empty book, does as well.
    let mut second = Identity::restore(&sheet, "ed", None, NOW, rng).expect("sheet");
    let request = mobile.certify_request(vec!["lobby".into()], NOW);
    let enroller = second.enroller.as_mut().expect("enrols");
    let late = UnixTime(NOW.secs() + 3600);
    assert_eq!(enroller.certify(&request, device, &anchor, late, rng), Err(EnrolError::Refused), "an old request");
    assert_eq!(enroller.certify(&request, bob.device_key(), &anchor, NOW, rng), Err(EnrolError::Refused), "another's");
    let granted = enroller.certify(&request, device, &anchor, NOW, rng).expect("a member");
    assert_eq!(granted.refused, ["lobby"]);
    assert!(mobile.certified(&granted, NOW).expect("holds") && mobile.has_place());
    // Again: the same place. And phones, once allowed; the chain then names both enrollers where they differ.
    assert!(enroller.allow_adapter(device, true));
    let granted = enroller.certify(&mobile.certify_request(vec!["lobby".into()], NOW), device, &anchor, NOW, rng);
    assert!(!mobile.certified(&granted.expect("a member"), NOW).expect("holds"));
    let phone = mobile.phone_identity("lobby", NOW).expect("delegated");
    assert!(phone.verified(NOW).expect("holds").speaks_for("lobby"));
    assert!(
        bob.certified(
            &enroller.certify(&mobile.certify_request(vec![], NOW), device, &anchor, NOW, rng).expect("x"),
            NOW
        )
        .is_err(),
        "for another device"
    );
    let kept = Identity::from_bytes(mobile.to_bytes().reveal(), NOW).expect("own file");
    assert!(kept.phone_identity("lobby", NOW).is_ok());
    // A revoked device gets nothing; nor does another key of the same name.
    let revocation = Revocation::sign(&bob, RevokedKey::Device, device, "", NOW).expect("own");
    enroller.revoke(set([revocation]).revoked());
    let request = mobile.certify_request(vec![], NOW);
    let refused = enroller.certify(&request, device, &anchor, NOW, rng);
    assert_eq!(refused, Err(EnrolError::Identity(IdentityError::Revoked("device"))));
    let mut third = Identity::restore(&sheet, "x", None, NOW, rng).expect("sheet");
    let other_bob = joined(&mut third, "bob", 11);
    let request = other_bob.certify_request(vec![], NOW);
    assert_eq!(enroller.certify(&request, other_bob.device_key(), &anchor, NOW, rng), Err(EnrolError::Taken));
}

#[test]
fn books_become_one_and_take_no_false_page() {
    let (mut anna, sheet) = office(1);
    let mut second = Identity::restore(&sheet, "ed", None, NOW, &mut Rng::from_seed(4)).expect("sheet");
    joined(&mut anna, "bob", 2);
    joined(&mut second, "bob", 3);
    let pages = |i: &Identity| i.enroller.as_ref().expect("enrols").book().reconciled();
    let (annas, seconds) = (pages(&anna), pages(&second));
    for (from, to) in [(annas, &mut second), (seconds, &mut anna)] {
        let enroller = to.enroller.as_mut().expect("enrols");
        for page in from.values() {
            assert_eq!(enroller.learn(page, NOW), Ok(true));
            assert_eq!(enroller.learn(page, NOW), Ok(false));
        }
    }
    assert_eq!(pages(&anna), pages(&second));
    assert_eq!(anna.enroller.as_ref().expect("enrols").conflicts(), ["bob"]);
    let kept = Identity::from_bytes(anna.to_bytes().reveal(), NOW).expect("own file");
    assert_eq!(pages(&kept), pages(&anna));
    let (foreign, _) = office(9);
    let root = sheet.root();
    for page in pages(&foreign).values() {
        assert_eq!(
            Book::default().take(page, "office", root, &Revoked::default(), NOW),
            Err(IdentityError::Issuer("enroller"))
        );
    }
    let rng = &mut Rng::from_seed(8);
    for page in pages(&anna).values() {
        for _ in 0..300 {
            let mut bytes = page.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            assert!(Book::default().take(&bytes, "office", root, &Revoked::default(), NOW).is_err());
        }
    }
}

#[test]
fn wrong_codes_for_devices_are_throttled_by_source() {
    let rng = &mut Rng::from_seed(1);
    let mut bob = Identity::open("lab", "bob", NOW, rng).expect("name");
    let mut codes = DeviceCodes::default();
    let code = codes.open(&bob, None, true, &[], NOW, rng).expect("holds the key");
    let text = code.text();
    let wrong = InviteCode::of_kind(CodeKind::Device, code.root, &[], rng);
    for _ in 0..MAX_WRONG_CODES {
        let request = Joining::new(wrong.clone(), "x", rng).expect("label").request();
        assert_eq!(codes.redeem(&mut bob, &request, source(1), NOW).map(|_| ()), Err(EnrolError::Refused));
    }
    let good = Joining::new(InviteCode::parse(&text).expect("own text"), "laptop", rng).expect("label");
    assert!(codes.redeem(&mut bob, &good.request(), source(1), NOW).is_err(), "not looked at");
    let late = NOW + DEVICE_CODE_LIFETIME;
    assert!(codes.clone().redeem(&mut bob, &good.request(), source(2), late).is_err(), "too late");
    let answer = codes.redeem(&mut bob, &good.request(), source(2), NOW).expect("good");
    let bytes = answer.encode();
    let laptop = good.finish_device(&DeviceAnswer::decode(&bytes).expect("as written"), NOW).expect("good");
    assert_eq!((laptop.aor(), laptop.user_key.is_some(), laptop.has_place()), ("sip:bob@lab".to_owned(), true, true));
    assert_eq!(bob.signed_devices().len(), 1);
    // No damaged answer makes a device with another's key or under another's name.
    for n in 0..4000 {
        let mut damaged = bytes.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        damaged[at] ^= 1 << (n % 8);
        if let Ok(read) = DeviceAnswer::decode(&damaged) {
            assert!(good.finish_device(&read, NOW).is_err(), "{at}");
        }
    }
    for _ in 0..2 * MAX_DEVICE_CODES {
        codes.open(&bob, None, false, &[], NOW, rng).expect("the oldest gives way");
    }
    assert!(!codes.knows(&good.request()));
}
