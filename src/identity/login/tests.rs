//! The whole of it without a network: seal, ask, open; and all who must not get in.

use super::*;
use crate::core::{Rng, UnixTime};
use crate::identity::{Claims, Identity, KeyPair, RootFingerprint, TrustAnchor};

const NOW: UnixTime = UnixTime(1_800_000_000);
const PASSWORD: &str = "correct horse";

struct Set {
    bob: Identity,
    credential: Credential,
    owned: Owned,
    rng: Rng,
}

fn office(seed: u64) -> Identity {
    Identity::found("office", "bob", Some("102"), NOW, &mut Rng::from_seed(seed)).expect("names").0
}

fn set(seed: u64) -> Set {
    let mut rng = Rng::from_seed(seed);
    let bob = office(seed);
    let parts = PasswordParts::make("bob", "office", PASSWORD, CHEAP, &mut rng).expect("parts");
    let parts = PasswordParts::from_hex(&parts.to_hex()).expect("own hex");
    let key = bob.user_key.clone().expect("founder");
    let [enroller, user] = bob.above_device() else { panic!("an office") };
    let (credential, owned) = Credential::new(&parts, &key, enroller, user, NOW, &mut rng).expect("certificates");
    assert_eq!(Credential::decode(&credential.encode()), Ok(credential.clone()));
    Set { bob, credential, owned, rng }
}

impl Set {
    fn attempt(&mut self, password: &str) -> LoginAttempt {
        LoginAttempt::new("Bob", "Office", password, &mut self.rng).expect("names")
    }

    /// As four holders would answer.
    fn answer(&self, request: &LoginRequest) -> LoginAnswer {
        let request = LoginRequest::decode(&request.encode()).expect("own request");
        let share =
            |n: usize| (self.credential.masked[n], self.owned.keys[n].evaluate(&request.blinded).expect("an element"));
        let answer = LoginAnswer { sealed: self.credential.sealed.clone(), shares: std::array::from_fn(share) };
        LoginAnswer::decode(&answer.encode()).expect("own answer")
    }
}

#[test]
fn the_right_password_brings_back_the_users_key_and_the_office() {
    let mut set = set(1);
    let attempt = set.attempt(PASSWORD);
    let answer = set.answer(&attempt.request());
    let recovered = attempt.open(&answer, CHEAP, NOW).expect("right");
    assert_eq!(recovered.anchor(), set.bob.anchor);
    let device = recovered.device("laptop", NOW, &mut set.rng).expect("signs itself in");
    assert_eq!((device.user(), device.aliases()), ("bob", &["102".to_owned()][..]));
    assert!(set.bob.anchor.verify_chain(&device.chain, NOW).is_ok_and(|v| v.user == "bob" && !v.has_place));
    assert_eq!(device.user_key.map(|k| k.public()), set.bob.user_key.as_ref().map(|k| k.public()));
}

#[test]
fn a_wrong_password_a_wrong_name_and_a_wrong_cost_open_nothing() {
    let mut set = set(2);
    for wrong in ["Correct horse", "correct horse ", "", "x"] {
        let attempt = set.attempt(wrong);
        let answer = set.answer(&attempt.request());
        assert_eq!(attempt.open(&answer, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong), "{wrong}");
    }
    let right = set.attempt(PASSWORD);
    let answer = set.answer(&right.request());
    let dearer = Cost { passes: 2, ..CHEAP };
    assert_eq!(right.open(&answer, dearer, NOW).map(|_| ()), Err(LoginError::Wrong));
    let carol = LoginAttempt::new("carol", "office", PASSWORD, &mut set.rng).expect("names");
    let answer = set.answer(&carol.request());
    assert_eq!(carol.open(&answer, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
    let elsewhere = LoginAttempt::new("bob", "other", PASSWORD, &mut set.rng).expect("names");
    let answer = set.answer(&elsewhere.request());
    assert_eq!(elsewhere.open(&answer, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
}

#[test]
fn two_true_answers_are_enough_and_one_is_not() {
    let mut set = set(3);
    let attempt = set.attempt(PASSWORD);
    let good = set.answer(&attempt.request());
    for lost in 0..16u8 {
        let mut answer = good.clone();
        for n in (0..SHARES).filter(|n| lost >> n & 1 == 1) {
            // In their stead some other key's answer, as for a holder that is gone.
            answer.shares[n].1 = OprfKey::generate(&mut set.rng).evaluate(&attempt.request().blinded).expect("element");
        }
        let opened = attempt.open(&answer, CHEAP, NOW).is_ok();
        assert_eq!(opened, lost.count_ones() as usize <= SHARES - THRESHOLD, "{lost:04b}");
    }
    let mut none = good;
    none.shares.iter_mut().for_each(|s| s.1 = [0; 32]);
    assert_eq!(attempt.open(&none, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
}

/// A holder knows its own key and, as a member, the whole record: it must not be able to tell a right guess from a wrong one.
#[test]
fn one_holder_cannot_check_a_guess() {
    let set = set(4);
    let unmask = |n: usize, password: &str| {
        let output = set.owned.keys[n].output(&oprf_input("bob", "office", password).expect("names")).expect("input");
        xor(&set.credential.masked[n], &mask(&output, n as u8 + 1, CHEAP).expect("cost"))
    };
    let aor = "sip:bob@office";
    let opens = |key: &[u8; 32]| credential::open(key, aor, &set.credential.sealed).is_some();
    for n in 0..SHARES {
        // With the right password as with a wrong one it holds 32 bytes; neither opens anything, and neither does whatever it
        // makes of them with the other masked shares, whose keys it lacks.
        for password in [PASSWORD, "wrong"] {
            let share = unmask(n, password);
            assert!(!opens(&share));
            for other in (0..SHARES).filter(|o| *o != n) {
                let joined = share::join((n, &share), (other, &set.credential.masked[other])).expect("two");
                assert!(!opens(&joined));
            }
        }
    }
    // Two that collude can: the limit that the module's description states.
    let joined = share::join((0, &unmask(0, PASSWORD)), (3, &unmask(3, PASSWORD))).expect("two");
    assert!(opens(&joined));
    assert!(!opens(&share::join((0, &unmask(0, "wrong")), (3, &unmask(3, "wrong"))).expect("two")));
}

/// Somebody who does not know the password and has an office of his own of the same name.
#[test]
fn a_false_office_is_not_accepted() {
    let mut set = set(5);
    let attempt = set.attempt(PASSWORD);
    // It seals what it likes under keys that it knows; without the password the masks do not fit.
    let mallory = office(50);
    let own = PasswordParts::make("bob", "office", "his guess", CHEAP, &mut set.rng).expect("parts");
    let [enroller, user] = mallory.above_device() else { panic!("an office") };
    let key = mallory.user_key.clone().expect("founder");
    let (false_credential, owned) =
        Credential::new(&own, &key, enroller, user, NOW, &mut set.rng).expect("certificates");
    let evaluate = |n: usize| owned.keys[n].evaluate(&attempt.request().blinded).expect("element");
    let answer = LoginAnswer {
        sealed: false_credential.sealed.clone(),
        shares: std::array::from_fn(|n| (false_credential.masked[n], evaluate(n))),
    };
    assert_eq!(attempt.open(&answer, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
    // It passes the true office's answer on: that opens, and names the true root, which its own link does not lead to.
    let relayed = set.answer(&attempt.request());
    let recovered = attempt.open(&relayed, CHEAP, NOW).expect("the true record");
    let TrustAnchor::Office { root, .. } = recovered.anchor() else { panic!("an office") };
    assert_ne!(RootFingerprint::of(&root), RootFingerprint::of(&enroller.issuer));
    assert!(recovered.anchor().verify_chain(&mallory.chain, NOW).is_err());
}

#[test]
fn what_is_sealed_must_hold_together() {
    let mut set = set(6);
    let attempt = set.attempt(PASSWORD);
    let (bob, other) = (set.bob.clone(), office(60));
    let key = bob.user_key.clone().expect("founder");
    let [enroller, user] = bob.above_device() else { panic!("an office") };
    let [enroller2, user2] = other.above_device() else { panic!("an office") };
    for (enroller, user, good) in
        [(enroller, user, true), (enroller2, user, false), (enroller, user2, false), (enroller2, user2, false)]
    {
        let owned = set.owned.clone();
        set.credential.seal(&owned, &key, enroller, user, &mut set.rng).expect("fits");
        assert!(set.credential.is_about(&owned, "sip:bob@office", enroller, user));
        let opened = attempt.open(&set.answer(&attempt.request()), CHEAP, NOW);
        assert_eq!(opened.is_ok(), good, "{opened:?}");
        assert!(good || matches!(opened, Err(LoginError::Identity(_))));
    }
}

#[test]
fn the_owners_part_opens_by_the_users_key_alone() {
    let set = set(7);
    let key = set.bob.user_key.clone().expect("founder");
    let owned = set.credential.owned(&key).expect("own");
    assert!((0..SHARES).all(|n| owned.keys[n].to_bytes() == set.owned.keys[n].to_bytes()));
    assert!(set.credential.owned(&KeyPair::generate(&mut Rng::from_seed(70))).is_none());
}

#[test]
fn a_changed_password_leaves_nothing_to_the_old_one() {
    let mut set = set(8);
    let old = set.attempt(PASSWORD);
    let old_answer = set.answer(&old.request());
    let parts = PasswordParts::make("bob", "office", "a new one", CHEAP, &mut set.rng).expect("parts");
    let key = set.bob.user_key.clone().expect("founder");
    let bob = set.bob.clone();
    let [enroller, user] = bob.above_device() else { panic!("an office") };
    let (credential, owned) = Credential::new(&parts, &key, enroller, user, NOW, &mut set.rng).expect("certificates");
    assert_ne!(credential.epoch, set.credential.epoch);
    let (old_credential, old_owned) = (set.credential.clone(), set.owned.clone());
    (set.credential, set.owned) = (credential, owned);
    assert_eq!(old.open(&set.answer(&old.request()), CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
    let new = set.attempt("a new one");
    assert!(new.open(&set.answer(&new.request()), CHEAP, NOW).is_ok());
    // Who kept the old record still needs the old keys' answers, and a holder that was told has none.
    let user_key = key.public();
    let mut book = ShareBook::default();
    assert_eq!(book.hold("bob", user_key, old_credential.epoch, 0, &old_owned.keys[0].to_bytes(), NOW), Held::New);
    assert_eq!(book.hold("bob", user_key, set.credential.epoch, 2, &set.owned.keys[2].to_bytes(), NOW), Held::New);
    let blinded = old.request().blinded;
    assert_eq!(book.evaluate("bob", &old_credential.epoch, &blinded), Some(old_answer.shares[0].1));
    assert!(book.forget("bob", user_key, Some(set.credential.epoch)));
    assert_eq!(book.evaluate("bob", &old_credential.epoch, &blinded), None);
    assert!(book.evaluate("bob", &set.credential.epoch, &blinded).is_some());
}

#[test]
fn a_holder_keeps_one_share_of_a_user_and_for_that_user_alone() {
    let set = set(9);
    let (epoch, keys) = (set.credential.epoch, &set.owned.keys);
    let mut rng = Rng::from_seed(90);
    let [bob, mallory] = [1, 2].map(|_| KeyPair::generate(&mut rng).public());
    let mut book = ShareBook::default();
    assert_eq!(book.hold("bob", bob, epoch, 1, &keys[1].to_bytes(), NOW), Held::New);
    assert_eq!(book.hold("bob", bob, epoch, 1, &keys[1].to_bytes(), NOW), Held::Already);
    assert_eq!(book.hold("bob", bob, epoch, 2, &keys[2].to_bytes(), NOW), Held::No, "two shares of one password");
    assert_eq!(book.hold("bob", mallory, [7; 16], 1, &keys[2].to_bytes(), NOW), Held::No);
    assert!(book.check("bob", bob, epoch, NOW) && !book.check("bob", mallory, epoch, NOW));
    assert!(!book.forget("bob", mallory, None) && book.check("bob", bob, epoch, NOW));
    let again = ShareBook::from_bytes(&book.to_bytes()).expect("own file");
    assert_eq!(again.to_bytes(), book.to_bytes());
    assert!(book.forget("bob", bob, None) && book.is_empty());
    assert!(!book.check("bob", bob, epoch, NOW));
}

#[test]
fn an_unknown_name_is_answered_alike_and_everywhere_the_same() {
    let mut set = set(10);
    let attempt = set.attempt(PASSWORD);
    let request = attempt.request();
    let (one, other) = (Decoys::generate(&mut set.rng), Decoys::generate(&mut set.rng));
    let twin = Decoys::from_bytes(*one.secret());
    let fake = one.answer("nobody", &request.blinded).expect("element");
    assert_eq!(Some(&fake), twin.answer("nobody", &request.blinded).as_ref(), "any supernode says the same");
    assert_ne!(Some(&fake), other.answer("nobody", &request.blinded).as_ref());
    assert_eq!(fake.encode().len(), set.answer(&request).encode().len(), "and as much as of a known name");
    // The same question again has the same answer; another one changes the evaluations alone, as with a known name.
    let second = set.attempt(PASSWORD).request();
    let again = one.answer("nobody", &second.blinded).expect("element");
    assert_eq!(again.sealed, fake.sealed);
    assert!((0..SHARES).all(|n| again.shares[n].0 == fake.shares[n].0 && again.shares[n].1 != fake.shares[n].1));
    assert_eq!(attempt.open(&fake, CHEAP, NOW).map(|_| ()), Err(LoginError::Wrong));
    let mut book = ShareBook::default();
    book.decoys = Some(one);
    assert_eq!(book.evaluate("nobody", &[0; 16], &request.blinded), None);
    assert!(ShareBook::from_bytes(&book.to_bytes()).is_ok());
    book.decoys = None;
    assert!(ShareBook::from_bytes(&book.to_bytes()).is_ok());
}

#[test]
fn share_messages_both_ways() {
    let mut rng = Rng::from_seed(11);
    let key = OprfKey::generate(&mut rng).to_bytes();
    let requests = [
        ShareRequest::Hold { epoch: [1; 16], number: 3, key: key.clone() },
        ShareRequest::Check { epoch: [2; 16] },
        ShareRequest::Forget { keep: Some([3; 16]) },
        ShareRequest::Forget { keep: None },
        ShareRequest::Evaluate { user: "bob".into(), epoch: [4; 16], source: vec![10, 0, 0, 1], blinded: [5; 32] },
        ShareRequest::Decoys,
    ];
    for request in requests {
        assert_eq!(ShareRequest::decode(&request.encode()), Ok(request));
    }
    let wrong = ShareRequest::Hold { epoch: [1; 16], number: 4, key };
    assert!(ShareRequest::decode(&wrong.encode()).is_err(), "there are four shares");
    let wrong = ShareRequest::Evaluate { user: "bob".into(), epoch: [4; 16], source: vec![0; 17], blinded: [5; 32] };
    assert!(ShareRequest::decode(&wrong.encode()).is_err());
    for answer in [ShareAnswer::No, ShareAnswer::Yes, ShareAnswer::Bytes([9; 32]), ShareAnswer::Wait(30)] {
        assert_eq!(ShareAnswer::decode(&answer.encode()), Ok(answer));
    }
}

/// RFC 9106 section 5.3, by the same crate and with everything that the function can take.
#[test]
fn the_vector_of_rfc_9106() {
    let mut builder = argon2::ParamsBuilder::new();
    builder.m_cost(32).t_cost(3).p_cost(4).output_len(32);
    builder.data(argon2::AssociatedData::new(&[4; 12]).expect("short"));
    let params = builder.build().expect("in bounds");
    let argon = argon2::Argon2::new_with_secret(&[3; 8], argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut tag = [0; 32];
    argon.expect("short").hash_password_into(&[1; 32], &[2; 16], &mut tag).expect("in bounds");
    let hex: String = tag.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

#[test]
fn a_mask_depends_on_all_that_goes_into_it() {
    let one = mask(&[1; 64], 1, CHEAP).expect("cost");
    assert_eq!(mask(&[1; 64], 1, CHEAP), Some(one.clone()));
    assert_ne!(mask(&[2; 64], 1, CHEAP), Some(one.clone()));
    assert_ne!(mask(&[1; 64], 2, CHEAP), Some(one.clone()));
    assert_ne!(mask(&[1; 64], 1, Cost { memory: 64, ..CHEAP }), Some(one));
    assert_eq!(mask(&[1; 64], 1, Cost { memory: 0, ..CHEAP }), None);
    assert!(matches!(set(12).bob.chain.certificates()[1].claims, Claims::User(_)));
}

/// Many thousand damaged inputs: nothing panics, and what is accepted is canonical.
#[test]
fn damaged_messages_and_files() {
    let mut set = set(13);
    let attempt = set.attempt(PASSWORD);
    let answer = set.answer(&attempt.request());
    let mut book = ShareBook::default();
    book.decoys = Some(Decoys::generate(&mut set.rng));
    let user = KeyPair::generate(&mut set.rng).public();
    book.hold("bob", user, [1; 16], 0, &set.owned.keys[0].to_bytes(), NOW);
    book.hold("bob", user, [2; 16], 1, &set.owned.keys[1].to_bytes(), NOW);
    let mut attempts = Attempts::default();
    for n in 0..8u8 {
        let _ = attempts.at_front([10, 0, 0, n].into(), NOW);
        let _ = attempts.at_holder("bob", &Id::default(), &[n], NOW);
    }
    let hold = ShareRequest::Hold { epoch: [1; 16], number: 3, key: set.owned.keys[3].to_bytes() };
    let seeds = [
        attempt.request().encode(),
        answer.encode(),
        set.credential.encode(),
        book.to_bytes(),
        attempts.to_bytes(),
        hold.encode(),
        ShareRequest::Evaluate { user: "bob".into(), epoch: [4; 16], source: vec![1; 4], blinded: [5; 32] }.encode(),
        ShareAnswer::Bytes([9; 32]).encode(),
    ];
    let key = set.bob.user_key.clone().expect("founder");
    let rng = &mut Rng::from_seed(14);
    for _ in 0..6_000 {
        for seed in &seeds {
            let bytes = crate::identity::mutation_tests::damage(seed, rng);
            assert!(LoginRequest::decode(&bytes).map_or(true, |r| r.encode() == bytes));
            assert!(LoginAnswer::decode(&bytes).map_or(true, |r| r.encode() == bytes));
            assert!(ShareRequest::decode(&bytes).map_or(true, |r| r.encode() == bytes));
            assert!(ShareAnswer::decode(&bytes).map_or(true, |r| r.encode() == bytes));
            assert!(ShareBook::from_bytes(&bytes).map_or(true, |r| r.to_bytes() == bytes));
            assert!(Attempts::from_bytes(&bytes).map_or(true, |r| r.to_bytes() == bytes));
            if let Ok(credential) = Credential::decode(&bytes) {
                assert_eq!(credential.encode(), bytes);
                let _ = credential.owned(&key);
            }
        }
    }
    // A damaged answer opens or does not, and what it opens is the true key.
    for _ in 0..300 {
        let bytes = crate::identity::mutation_tests::damage(&seeds[1], rng);
        if let Ok(recovered) =
            LoginAnswer::decode(&bytes).map_err(|_| ()).and_then(|a| attempt.open(&a, CHEAP, NOW).map_err(|_| ()))
        {
            assert_eq!(recovered.anchor(), set.bob.anchor);
        }
    }
}
