//! What must be accepted, and everything that must not be.

use super::cbor::Writer;
use super::*;
use crate::core::{Id, Rng, UnixTime, limits};
use std::net::IpAddr;

const NOW: UnixTime = UnixTime(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn rng(seed: u64) -> Rng {
    Rng::from_seed(seed)
}

fn open(user: &str, seed: u64) -> Identity {
    Identity::open("lab", user, NOW, &mut rng(seed)).expect("names are fine")
}

fn office(seed: u64) -> (Identity, RecoverySheet) {
    Identity::found("office.example", "anna", Some("100"), NOW, &mut rng(seed)).expect("names are fine")
}

fn joined(founder: &mut Identity, user: &str, seed: u64) -> Identity {
    let (rng, enroller) = (&mut rng(seed), founder.enroller.as_mut().expect("founder enrols"));
    let code = enroller.invite(user, None, &[], INVITE_LIFETIME, NOW, rng).expect("free name");
    let joining = Joining::new(code, "laptop", rng).expect("label");
    let answer = enroller.redeem(&joining.request(), source(1), NOW, rng).expect("good code");
    joining.finish(&answer, NOW).expect("good answer")
}

fn source(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn entry_for(identity: &Identity) -> Entry {
    Entry {
        kind: EntryKind::Contact,
        aor: identity.aor(),
        device: identity.device_key(),
        sequence: 1,
        issued: NOW,
        lifetime: 3600,
        body: ContactBody { peer_id: identity.peer_id(), addrs: vec![], user_agent: "test".into(), via: vec![] }
            .encode(),
    }
}

fn check(identity: &Identity, entry: &SignedEntry, now: UnixTime) -> Result<(), RecordError> {
    let read = SignedEntry::decode(entry.encoded())?;
    assert_eq!(read, *entry);
    identity.anchor.verify_entry(&read, &read.entry().resource_key(), now)
}

/// Signs without the questions that `Identity::sign_entry` asks.
fn forge(entry: Entry, signer: &Identity) -> SignedEntry {
    SignedEntry::sign(entry, &signer.device, signer.chain.clone()).expect("fits")
}

#[test]
fn an_open_entry_is_accepted() {
    let bob = open("Bob", 1);
    let entry = bob.sign_entry(entry_for(&bob)).expect("own name");
    assert_eq!(check(&open("carol", 2), &entry, NOW), Ok(()));
    assert_eq!(entry.entry().aor, "sip:bob@lab");
    let verified = bob.anchor.verify_chain(entry.chain(), NOW).expect("own chain");
    assert_eq!((verified.user.as_str(), verified.peer_id), ("bob", Id::sha1(&bob.device_key().0)));
    assert!(entry.encoded().len() < 700, "{} bytes", entry.encoded().len());
}

#[test]
fn two_claimants_of_a_name_stand_side_by_side() {
    let (one, other) = (open("bob", 1), open("bob", 2));
    let entries = [&one, &other].map(|bob| bob.sign_entry(entry_for(bob)).expect("own name"));
    assert!(entries.iter().all(|e| check(&one, e, NOW).is_ok()));
    assert_ne!(entries[0].dictionary_key(), entries[1].dictionary_key());
    // The same device under two users' keys as well.
    let phone = one.phone_identity("201", NOW).expect("name");
    assert_ne!(phone.chain.user_key(), one.chain.user_key());
}

#[test]
fn an_office_enrols_and_its_entries_are_accepted() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    for (writer, reader) in [(&bob, &anna), (&anna, &bob)] {
        let entry = writer.sign_entry(entry_for(writer)).expect("own name");
        assert_eq!(check(reader, &entry, NOW), Ok(()));
    }
    let extension = Entry { aor: "sip:100@office.example".into(), ..entry_for(&anna) };
    assert_eq!(check(&bob, &anna.sign_entry(extension).expect("own extension"), NOW), Ok(()));
    let verified = anna.anchor.verify_chain(&bob.chain, NOW).expect("joined");
    assert_eq!((verified.user.as_str(), verified.label.as_str()), ("bob", "laptop"));
    assert_ne!(verified.peer_id, Id::sha1(&bob.device_key().0), "drawn by the enroller, not ground by the joiner");
}

#[test]
fn forged_entries_are_refused() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let good = entry_for(&bob);
    assert_eq!(check(&anna, &forge(good.clone(), &bob), NOW), Ok(()));

    let as_anna = Entry { aor: anna.aor(), ..good.clone() };
    assert_eq!(bob.sign_entry(as_anna.clone()), Err(IdentityError::NotOurs));
    assert_eq!(check(&anna, &forge(as_anna.clone(), &bob), NOW), Err(RecordError::Aor));

    // Anna's chain with bob's key: the entry names bob's device, or it is signed by the wrong key.
    let stolen = SignedEntry::sign(as_anna, &bob.device, anna.chain.clone()).expect("fits");
    assert_eq!(check(&anna, &stolen, NOW), Err(RecordError::Device));

    let other_domain = Entry { aor: "sip:bob@elsewhere".into(), ..good.clone() };
    assert_eq!(bob.sign_entry(other_domain.clone()), Err(IdentityError::Overlay));
    assert_eq!(check(&anna, &forge(other_domain, &bob), NOW), Err(RecordError::Overlay));

    for aor in ["sip:Bob@office.example", "sip:bob@office.example;x", "bob", "sip:bob@OFFICE.example"] {
        assert_eq!(check(&anna, &forge(Entry { aor: aor.into(), ..good.clone() }, &bob), NOW), Err(RecordError::Aor));
    }
    let entry = forge(good, &bob);
    assert_eq!(anna.anchor.verify_entry(&entry, &resource_key(&anna.aor()), NOW), Err(RecordError::Key));
}

#[test]
fn entries_live_within_their_bounds() {
    let bob = open("bob", 1);
    let at = |issued, lifetime| forge(Entry { issued: UnixTime(issued), lifetime, ..entry_for(&bob) }, &bob);
    let now = NOW.secs();
    assert_eq!(check(&bob, &at(now + 300, 1), NOW), Ok(()));
    assert_eq!(check(&bob, &at(now + 301, 1), NOW), Err(RecordError::Future));
    assert_eq!(check(&bob, &at(now - 59, 60), NOW), Ok(()));
    assert_eq!(check(&bob, &at(now - 60, 60), NOW), Err(RecordError::Expired));
    assert_eq!(check(&bob, &at(now, 0), NOW), Err(RecordError::Lifetime));
    assert_eq!(check(&bob, &at(now, 7 * 86_400), NOW), Ok(()));
    assert_eq!(check(&bob, &at(now, 7 * 86_400 + 1), NOW), Err(RecordError::Lifetime));
    assert_eq!(check(&bob, &at(u64::MAX, u32::MAX), NOW), Err(RecordError::Lifetime));
    let body = vec![0; limits::RECORD_ENTRY];
    assert_eq!(bob.sign_entry(Entry { body, ..entry_for(&bob) }), Err(IdentityError::TooLarge("entry")));
    assert_eq!(SignedEntry::decode(&vec![0; limits::RECORD_ENTRY + 1]), Err(RecordError::TooLarge));
}

#[test]
fn certificates_count_in_their_time() {
    let bob = open("bob", 1);
    let cut: Vec<Certificate> = bob.chain.certificates().to_vec();
    let key = bob.user_key.as_ref().expect("own");
    let (from, until) = (NOW, NOW + HOUR);
    let device = cut[1].clone().reissue(key, from, until);
    let chain = Chain::new(vec![cut[0].clone(), device]);
    let at = |secs: u64| bob.anchor.verify_chain(&chain, UnixTime(secs)).map(|_| ());
    // Signed later than now: the clock is behind, not the signature false.
    assert_eq!(at(NOW.secs() - 86_400), Ok(()));
    assert_eq!(at(until.secs() + 300), Ok(()));
    assert_eq!(at(until.secs() + 301), Err(IdentityError::Expired("device")));

    // A remembered chain does not outlive its certificates.
    let mut verifier = Verifier::new(bob.anchor.clone(), 4);
    assert!(verifier.verify_chain(&chain, NOW).is_ok());
    assert_eq!(verifier.verify_chain(&chain, UnixTime(until.secs() + 301)), Err(IdentityError::Expired("device")));
    assert!(verifier.verify_chain(&chain, UnixTime(NOW.secs() - 86_400)).is_ok());
}

#[test]
fn another_office_and_another_overlay_are_refused() {
    let (anna, _) = office(1);
    let (foreign, _) = office(2);
    let entry = foreign.sign_entry(entry_for(&foreign)).expect("own name");
    assert_eq!(check(&foreign, &entry, NOW), Ok(()));
    assert_eq!(check(&anna, &entry, NOW), Err(RecordError::Chain(IdentityError::Issuer("enroller"))));

    let bob = open("bob", 3);
    let elsewhere = TrustAnchor::Open { overlay: "elsewhere".into() };
    assert_eq!(elsewhere.verify_chain(&bob.chain, NOW), Err(IdentityError::Overlay));
    let as_office = TrustAnchor::Open { overlay: anna.overlay().into() };
    assert!(as_office.verify_chain(&anna.chain, NOW).is_err());
    assert!(anna.anchor.verify_chain(&bob.chain, NOW).is_err());
}

#[test]
fn chains_of_a_wrong_shape_are_refused() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let verify = |certificates: Vec<Certificate>| anna.anchor.verify_chain(&Chain::new(certificates), NOW);
    let good = bob.chain.certificates().to_vec();
    assert!(verify(good.clone()).is_ok());
    for n in 0..good.len() {
        let mut missing = good.clone();
        let gone = missing.remove(n);
        match gone.claims {
            Claims::Peer(_) => assert!(!verify(missing).expect("an ordinary node's").has_place),
            _ => assert!(verify(missing).is_err()),
        }
        for m in 0..n {
            let mut swapped = good.clone();
            swapped.swap(n, m);
            assert!(verify(swapped).is_err());
        }
    }
    // Bob's user key makes a user, bob's device becomes an enroller, anna's place on the ring is shown for bob's device.
    let bobs = bob.user_key.as_ref().expect("own");
    let issue = |subject, claims| Certificate::issue(bobs, subject, "office.example", claims, NOW).expect("claims");
    let mut swapped = good.clone();
    swapped[1] = issue(bobs.public(), Claims::User(vec!["anna".into()]));
    assert_eq!(verify(swapped), Err(IdentityError::Issuer("user")));
    let mut swapped = good.clone();
    swapped[0] = issue(bobs.public(), Claims::Enroller);
    assert_eq!(verify(swapped), Err(IdentityError::Issuer("enroller")));
    let mut swapped = good.clone();
    swapped[3] = anna.chain.certificates()[3].clone();
    assert_eq!(verify(swapped), Err(IdentityError::Shape("peer")));
    let mut chosen = good.clone();
    chosen[3] = issue(bob.device_key(), Claims::Peer(Id::default()));
    assert_eq!(verify(chosen), Err(IdentityError::Issuer("peer")));
    let mut adapter = good;
    adapter.push(issue(bob.device_key(), Claims::Adapter(vec!["anna".into()])));
    assert_eq!(verify(adapter), Err(IdentityError::Issuer("adapter")));
}

#[test]
fn a_signature_is_for_one_purpose() {
    let key = KeyPair::generate(&mut rng(1));
    let signature = key.sign(Purpose::Entry, b"text");
    assert!(key.public().verify(Purpose::Entry, b"text", &signature));
    assert!(!key.public().verify(Purpose::Certificate, b"text", &signature));
    assert!(!key.public().verify(Purpose::Entry, b"texts", &signature));
    // The neutral element: every signature of zeroes would hold for it if it were let in.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut zero = [0; 64];
    zero[0] = 1;
    assert!(!PublicKey(neutral).verify(Purpose::Entry, b"text", &zero));
}

#[test]
fn phones_by_delegation() {
    let (mut anna, _) = office(1);
    assert_eq!(anna.phone_identity("201", NOW).map(|_| ()), Err(IdentityError::NotOurs));
    anna.delegate_phones(&["201", "lobby"], NOW).expect("free names");
    let phone = anna.phone_identity("201", NOW).expect("delegated");
    assert_eq!((phone.aor().as_str(), phone.peer_id()), ("sip:201@office.example", anna.peer_id()));
    let entry = phone.sign_entry(entry_for(&phone)).expect("delegated");
    let bob = joined(&mut anna, "bob", 2);
    assert_eq!(check(&bob, &entry, NOW), Ok(()));
    let verified = bob.anchor.verify_chain(&phone.chain, NOW).expect("delegated");
    assert_eq!(verified.adapter_for, ["201"]);
    assert!(phone.sign_entry(entry_for(&anna)).is_err());

    // Not for a user's name, nor by who is no enroller; and a user cannot take the phone's name.
    assert_eq!(anna.delegate_phones(&["bob"], NOW), Err(EnrolError::Taken));
    let mut bob = bob;
    assert_eq!(bob.delegate_phones(&["202"], NOW), Err(EnrolError::Identity(IdentityError::NotOurs)));
    let enroller = anna.enroller.as_mut().expect("founder");
    let taken = enroller.invite("201", None, &[], HOUR, NOW, &mut rng(5));
    assert_eq!(taken, Err(EnrolError::Taken));
    let certificate = enroller.delegate(bob.device_key(), &["202"], NOW).expect("free");
    let by = anna.enroller.as_ref().expect("founder").certificate().clone();
    bob.add_adapter(certificate.clone(), &by, NOW).expect("for bob's device");
    assert!(bob.phone_identity("202", NOW).is_ok());
    assert!(anna.add_adapter(certificate, &by, NOW).is_err(), "for another device");
}

#[test]
fn phones_in_an_open_overlay_keep_their_key() {
    let bob = open("bob", 1);
    let phone = bob.phone_identity("201", NOW).expect("name");
    let entry = phone.sign_entry(entry_for(&phone)).expect("own");
    assert_eq!(check(&bob, &entry, NOW), Ok(()));
    let again = bob.phone_identity("201", NOW + HOUR).expect("name");
    assert_eq!(again.chain.user_key(), phone.chain.user_key());
    assert_eq!(bob.phone_identity("bob", NOW).expect("name").chain.user_key(), bob.chain.user_key());
}

#[test]
fn the_file_brings_everything_back() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    anna.delegate_phones(&["201"], NOW).expect("free");
    let rng = &mut rng(9);
    let enroller = anna.enroller.as_mut().expect("founder");
    let code = enroller.invite("carol", Some("103"), &[], HOUR, NOW, rng).expect("free");
    for identity in [&anna, &bob, &open("dora", 4)] {
        let bytes = identity.to_bytes();
        let back = Identity::from_bytes(bytes.reveal(), NOW).expect("own file");
        assert_eq!(back.to_bytes(), bytes);
        assert_eq!((back.aor(), back.peer_id()), (identity.aor(), identity.peer_id()));
        assert!((0..bytes.reveal().len()).all(|n| Identity::from_bytes(&bytes.reveal()[..n], NOW).is_err()));
        let shown = format!("{identity:?}");
        let seed = format!("{:?}", &identity.device.seed().reveal()[..4]);
        assert!(!shown.contains(seed.trim_matches(['[', ']'])), "{shown}");
    }
    // The invite that was open before is open after.
    let mut back = Identity::from_bytes(anna.to_bytes().reveal(), NOW).expect("own file");
    assert!(back.phone_identity("201", NOW).is_ok());
    let enroller = back.enroller.as_mut().expect("kept");
    let mut known: Vec<_> = enroller.book().users().map(|c| c.claims.clone()).collect();
    known.sort_by_key(|claims| format!("{claims:?}"));
    let named = |names: &[&str]| Claims::User(names.iter().map(|n| (*n).to_owned()).collect());
    assert_eq!(known, [named(&["anna", "100"]), named(&["bob"])]);
    let joining = Joining::new(code, "", rng).expect("label");
    assert!(enroller.redeem(&joining.request(), source(1), NOW, rng).is_ok());
}

#[test]
fn the_sheet_makes_a_new_enroller() {
    let (anna, sheet) = office(1);
    let text = sheet.secret_text();
    assert!(!format!("{sheet:?}").contains(&text));
    let read = RecoverySheet::parse("Office.Example", &text.to_lowercase()).expect("own text");
    let mut new = Identity::restore(&read, "boris", None, NOW, &mut rng(7)).expect("names");
    assert!(anna.anchor.verify_chain(&new.chain, NOW).is_ok());
    let carol = joined(&mut new, "carol", 8);
    assert!(anna.anchor.verify_chain(&carol.chain, NOW).is_ok());
    assert!(RecoverySheet::parse("office.example", &text[1..]).is_err());
}

#[test]
fn verified_chains_are_remembered_and_the_memory_is_bounded() {
    let reader = open("reader", 0);
    let mut verifier = Verifier::new(reader.anchor.clone(), 8);
    for seed in 1..=20 {
        let writer = open("writer", seed);
        for sequence in 1..=3 {
            let entry = writer.sign_entry(Entry { sequence, ..entry_for(&writer) }).expect("own");
            assert_eq!(verifier.verify_entry(&entry, &resource_key(&writer.aor()), NOW), Ok(()));
            // A good chain does not excuse a bad signature.
            let mut bytes = entry.encoded().to_vec();
            *bytes.last_mut().expect("not empty") ^= 1;
            let bad = SignedEntry::decode(&bytes).expect("still canonical");
            let refused = verifier.verify_entry(&bad, &resource_key(&writer.aor()), NOW);
            assert_eq!(refused, Err(RecordError::Signature));
        }
        assert!(verifier.remembered() <= 8);
    }
    assert_eq!(verifier.remembered(), 8);
    let (stranger, _) = office(1);
    assert!(verifier.verify_chain(&stranger.chain, NOW).is_err());
    assert_eq!(verifier.remembered(), 8, "what does not verify is not remembered");
}

#[test]
fn one_encoding_only() {
    let bob = open("bob", 1);
    let good = bob.sign_entry(entry_for(&bob)).expect("own");
    let bytes = good.encoded();
    assert!((0..bytes.len()).all(|n| SignedEntry::decode(&bytes[..n]).is_err()), "truncated");
    let longer = [bytes, &[0]].concat();
    assert_eq!(SignedEntry::decode(&longer), Err(RecordError::NotCanonical), "trailing byte");

    // The array of three with its length in two bytes, and of unknown length.
    let wide = [&[0x98, 3], &bytes[1..]].concat();
    assert_eq!(SignedEntry::decode(&wide), Err(RecordError::NotCanonical));
    let indefinite = [&[0x9f], &bytes[1..], &[0xff]].concat();
    assert_eq!(SignedEntry::decode(&indefinite), Err(RecordError::Malformed));

    // Inside what is signed: a correctly signed entry whose sequence takes more bytes than it needs.
    let mut inner = good.signed_bytes().to_vec();
    assert_eq!(inner[..3], [0x88, 1, 1], "array of 8, version, kind");
    inner.splice(1..2, [0x18, 1]);
    let mut writer = Writer::array(3);
    writer.bytes(&inner).raw(bob.chain.encoded()).bytes(&bob.device.sign(Purpose::Entry, &inner));
    assert_eq!(SignedEntry::decode(&writer.finish()), Err(RecordError::NotCanonical));

    let certificate = bob.chain.certificates()[0].encode();
    assert!(Certificate::decode(&certificate).is_ok());
    assert!(Certificate::decode(&[&certificate[..], &[0]].concat()).is_err());
    assert!(Chain::decode(&[bob.chain.encoded(), &[0]].concat()).is_err());
}

#[test]
fn who_may_write_is_a_matter_of_the_kind() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let about = |kind, whom: &Identity| Entry { kind, ..entry_for(whom) };
    let at = |kind| check(&bob, &forge(about(kind, &anna), &bob), NOW);
    // Anybody leaves something for anna; her contact, her shares and her settings are hers alone.
    assert_eq!(at(EntryKind::MAILBOX_ITEM), Ok(()));
    assert!(bob.sign_entry(about(EntryKind::MAILBOX_ITEM, &anna)).is_ok());
    for kind in [EntryKind::Contact, EntryKind::CREDENTIAL_SHARE, EntryKind::SETTINGS, EntryKind::Other(99)] {
        assert_eq!(at(kind), Err(RecordError::Aor), "{kind:?}");
        assert_eq!(bob.sign_entry(about(kind, &anna)), Err(IdentityError::NotOurs));
    }
    // What the office says stands under an AOR that its administrator gives to devices.
    let office = |whom: &Identity| Entry { aor: "sip:office@office.example".into(), ..about(EntryKind::POLICY, whom) };
    anna.delegate_phones(&["office"], NOW).expect("free");
    let administrator = anna.phone_identity("office", NOW).expect("delegated");
    let policy = administrator.sign_entry(office(&administrator)).expect("delegated");
    assert_eq!(check(&bob, &policy, NOW), Ok(()));
    assert_eq!(check(&bob, &forge(office(&bob), &bob), NOW), Err(RecordError::Aor));
    // A stranger's member of another overlay is none.
    let item = forge(about(EntryKind::MAILBOX_ITEM, &anna), &open("dora", 3));
    assert!(matches!(check(&anna, &item, NOW), Err(RecordError::Chain(_))));
    let large =
        Entry { body: vec![0; EntryKind::MAILBOX_ITEM.rules().largest + 1], ..about(EntryKind::MAILBOX_ITEM, &anna) };
    assert_eq!(check(&anna, &forge(large, &bob), NOW), Err(RecordError::TooLarge));
}

#[test]
fn items_stand_side_by_side_and_removals_last() {
    let (bob, item) =
        (open("bob", 1), |sequence| Entry { kind: EntryKind::MAILBOX_ITEM, sequence, ..entry_for(&open("bob", 1)) });
    let (one, two) = (forge(item(1), &bob), forge(item(2), &bob));
    assert_ne!(one.dictionary_key(), two.dictionary_key());
    let contact = |sequence| forge(Entry { sequence, ..entry_for(&bob) }, &bob).dictionary_key();
    assert_eq!(contact(1), contact(2));
    // What is taken back is remembered for as long as a copy of it could live.
    let removal = Entry { body: Vec::new(), lifetime: 60, ..item(1) };
    assert_eq!(removal.expires(), removal.issued + EntryKind::MAILBOX_ITEM.rules().longest);
    let late = NOW + Duration::from_secs(86_400);
    assert_eq!(check(&bob, &forge(removal, &bob), late), Ok(()));
    assert_eq!(check(&bob, &forge(Entry { lifetime: 60, ..item(1) }, &bob), late), Err(RecordError::Expired));
}

#[test]
fn unknown_kinds_travel() {
    let bob = open("bob", 1);
    let entry = bob.sign_entry(Entry { kind: EntryKind::Other(99), ..entry_for(&bob) }).expect("own");
    assert_eq!(check(&bob, &entry, NOW), Ok(()));
    assert_eq!(EntryKind::from_number(EntryKind::Contact.number()), EntryKind::Contact);
}

#[test]
fn a_users_own_resources_are_the_users_alone_and_live_long() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let entry = |signer: &Identity, kind: u16, name: &str, lifetime: u64| {
        let aor = format!("sip:{name}@{}", signer.overlay());
        let kind = EntryKind::Other(kind);
        signer.sign_entry(Entry { kind, aor, lifetime: lifetime as u32, ..entry_for(signer) })
    };
    let (year, week) = (365 * 24 * 3600, MAX_ENTRY_LIFETIME.as_secs());
    for (kind, name) in [(2, "bob+login"), (12, "bob+settings-0"), (12, "bob+settings-7"), (2, "bob")] {
        let signed = entry(&bob, kind, name, year).expect("own");
        assert_eq!(check(&anna, &signed, NOW), Ok(()), "{name}");
        assert!(entry(&anna, kind, name, year).is_err(), "{name} is not anna's");
        let too_long = entry(&bob, kind, name, 2 * year).expect("own");
        assert_eq!(check(&anna, &too_long, NOW), Err(RecordError::Lifetime));
    }
    // Each kind has its own, other kinds have none, and what only looks alike is a name like others.
    for (kind, name) in
        [(12, "bob+login"), (2, "bob+settings-0"), (99, "bob+login"), (12, "bob+settings-10"), (2, "bob+loginx")]
    {
        assert!(entry(&bob, kind, name, week).is_err(), "{kind} {name}");
    }
    let contact = entry(&bob, 99, "bob", year).expect("own");
    assert_eq!(check(&anna, &contact, NOW), Err(RecordError::Lifetime), "other kinds live a week");
    // A signature by somebody else's device under the name is refused by whoever reads it.
    let mut mallory = Entry { kind: EntryKind::Other(2), aor: "sip:bob+login@office".into(), ..entry_for(&anna) };
    mallory.aor = format!("sip:bob+login@{}", anna.overlay());
    let forged = SignedEntry::sign(mallory, &anna.device, anna.chain.clone()).expect("fits");
    assert_eq!(check(&anna, &forged, NOW), Err(RecordError::Aor));
}

/// A further device of `user`, signed by the user's key, and as whom its chain shows it.
fn further(user: &Identity, seed: u64) -> (KeyPair, Chain) {
    let device = KeyPair::generate(&mut rng(seed));
    let chain = user.add_device(device.public(), "mobile", NOW).expect("holds the user's key");
    (device, chain)
}

#[test]
fn the_users_key_signs_a_further_device_which_has_no_place_on_the_ring() {
    let (mut anna, _) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let (key, chain) = further(&bob, 3);
    let verified = anna.anchor.verify_chain(&chain, NOW).expect("no administrator is needed");
    assert_eq!((verified.user.as_str(), verified.label.as_str(), verified.has_place), ("bob", "mobile", false));
    assert_eq!(verified.peer_id, Id::sha1(&key.public().0));
    let mobile = Identity::assemble(key, None, chain, bob.anchor.clone(), NOW).expect("its own chain");
    assert!(!mobile.has_place() && bob.has_place() && open("x", 1).has_place());
    // It speaks for its user, beside the first device.
    let entries = [&bob, &mobile].map(|d| d.sign_entry(entry_for(d)).expect("own name"));
    assert!(entries.iter().all(|e| check(&anna, e, NOW).is_ok()));
    assert_ne!(entries[0].dictionary_key(), entries[1].dictionary_key());
    // Without the user's key it signs nobody.
    assert_eq!(mobile.add_device(KeyPair::generate(&mut rng(9)).public(), "x", NOW), Err(IdentityError::NotOurs));
    let kept = Identity::from_bytes(mobile.to_bytes().reveal(), NOW).expect("as written");
    assert_eq!((kept.peer_id(), kept.has_place()), (mobile.peer_id(), false));
    // With it, a device is made of what is above it alone.
    let user_key = bob.user_key.clone().expect("the first device holds it");
    let (above, device) = (bob.above_device(), KeyPair::generate(&mut rng(4)));
    let again = Identity::sign_in(user_key, above, bob.anchor.clone(), device, "tablet", NOW).expect("good key");
    assert_eq!((again.user(), again.has_place()), ("bob", false));
    let (wrong, device) = (KeyPair::generate(&mut rng(5)), KeyPair::generate(&mut rng(6)));
    assert!(Identity::sign_in(wrong, above, bob.anchor.clone(), device, "tablet", NOW).is_err());
}

#[test]
fn peer_and_adapter_may_come_from_another_enroller_of_the_chain() {
    let (mut anna, sheet) = office(1);
    let bob = joined(&mut anna, "bob", 2);
    let (key, chain) = further(&bob, 3);
    let (mut second, stranger) = (Identity::restore(&sheet, "ed", None, NOW, &mut rng(7)).expect("sheet"), office(8).0);
    let issuer = |identity: &Identity| identity.enroller.as_ref().expect("enrols").certificate().clone();
    let adapter = second.enroller.as_mut().expect("enrols").delegate(key.public(), &["201"], NOW).expect("free");
    let with = |more: &[Certificate]| {
        let all = chain.certificates().iter().chain(more).cloned().collect();
        anna.anchor.verify_chain(&Chain::new(all), NOW)
    };
    let good = with(&[adapter.clone(), issuer(&second)]).expect("the root signed both");
    assert_eq!((good.adapter_for.as_slice(), good.enrollers.len()), (&["201".to_owned()][..], 2));
    assert_eq!(with(std::slice::from_ref(&adapter)), Err(IdentityError::Issuer("adapter")));
    assert_eq!(with(&[issuer(&second)]), Err(IdentityError::Malformed("chain")));
    assert_eq!(with(&[adapter.clone(), issuer(&second), issuer(&second)]), Err(IdentityError::Malformed("chain")));
    assert!(with(&[adapter, issuer(&second), issuer(&stranger)]).is_err());
}
