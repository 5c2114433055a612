//! Many thousand damaged inputs: nothing panics, nothing that is not the original is accepted.

use super::*;
use crate::core::{Rng, UnixTime};

const NOW: UnixTime = UnixTime(1_800_000_000);

/// Damages `bytes` in one to four places: flips, sets, cuts, repeats, inserts.
pub(super) fn damage(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(3) {
        let at = rng.below(out.len() as u64 + 1) as usize;
        match (rng.below(7), out.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << rng.below(8),
            (1, Some(byte)) => *byte = rng.next_u32() as u8,
            (2, Some(byte)) => {
                *byte = [0x00, 0x18, 0x1b, 0x40, 0x5b, 0x7f, 0x80, 0x9b, 0x9f, 0xf6, 0xff][rng.below(11) as usize]
            }
            (3, _) => out.truncate(at),
            (4, _) => {
                let end = (at + rng.below(16) as usize).min(out.len());
                out.drain(at..end);
            }
            (5, _) => {
                let end = (at + rng.below(16) as usize).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            _ => out.insert(at.min(out.len()), rng.next_u32() as u8),
        }
    }
    out
}

fn identities() -> [Identity; 2] {
    let rng = &mut Rng::from_seed(1);
    let open = Identity::open("lab", "bob", NOW, rng).expect("names");
    let (mut office, _) = Identity::found("office", "anna", Some("100"), NOW, rng).expect("names");
    office.delegate_phones(&["201"], NOW).expect("free");
    [open, office.phone_identity("201", NOW).expect("delegated")]
}

#[test]
fn damaged_entries() {
    let rng = &mut Rng::from_seed(2);
    let (mut decoded, mut tried) = (0, 0);
    for signer in identities() {
        let entry = Entry {
            kind: EntryKind::Contact,
            aor: signer.aor(),
            device: signer.device_key(),
            sequence: 77,
            issued: NOW,
            lifetime: 600,
            body: ContactBody { peer_id: signer.peer_id(), addrs: vec![], user_agent: "x".into(), via: vec![] }
                .encode(),
        };
        let key = entry.resource_key();
        let good = signer.sign_entry(entry).expect("own");
        let mut verifier = Verifier::new(signer.anchor.clone(), 4);
        assert_eq!(verifier.verify_entry(&good, &key, NOW), Ok(()));
        for _ in 0..15_000 {
            let bytes = damage(good.encoded(), rng);
            if bytes == good.encoded() {
                continue;
            }
            tried += 1;
            let Ok(read) = SignedEntry::decode(&bytes) else { continue };
            decoded += 1;
            assert_eq!(read.encoded(), bytes, "accepted encodings are canonical");
            assert!(verifier.verify_entry(&read, &key, NOW).is_err(), "{bytes:02x?}");
            assert!(verifier.verify_entry(&read, &read.entry().resource_key(), NOW).is_err());
        }
    }
    assert!(tried > 29_000 && decoded > 1_000, "{decoded} of {tried} reach the signature check");
}

#[test]
fn damaged_chains_and_certificates() {
    let rng = &mut Rng::from_seed(3);
    for identity in identities() {
        let good = identity.chain.encoded();
        for _ in 0..10_000 {
            let bytes = damage(good, rng);
            if let Ok(chain) = Chain::decode(&bytes) {
                assert_eq!(chain.encoded(), bytes);
                let cut = bytes.as_slice() == good;
                // An office chain may lose its adapter certificate and is still a good chain, one that says less.
                let less = chain.certificates().len() < identity.chain.certificates().len();
                assert!(cut || less || identity.anchor.verify_chain(&chain, NOW).is_err());
            }
        }
        let good = identity.chain.certificates()[0].encode();
        for _ in 0..2_000 {
            let bytes = damage(&good, rng);
            if let Ok(certificate) = Certificate::decode(&bytes) {
                assert_eq!(certificate.encode(), bytes);
            }
        }
    }
}

#[test]
fn damaged_enrolment() {
    let rng = &mut Rng::from_seed(4);
    let (mut anna, _) = Identity::found("office", "anna", None, NOW, rng).expect("names");
    let enroller = anna.enroller.as_mut().expect("founder");
    let code = enroller.invite("bob", None, &[], INVITE_LIFETIME, NOW, rng).expect("free");
    let text = code.text();
    let joining = Joining::new(code, "desk", rng).expect("label");
    let request = joining.request().encode();
    let mut misread = 0;
    for n in 0..10_000u32 {
        let bytes = damage(&request, rng);
        if bytes == request {
            continue;
        }
        if let Ok(read) = JoinRequest::decode(&bytes) {
            let source = std::net::Ipv4Addr::from(n).into();
            assert_eq!(enroller.redeem(&read, source, NOW, rng), Err(EnrolError::Refused));
        }
        // Dashes, blanks and look-alikes are for people: what still reads as a code is the same code.
        if let Ok(typed) = String::from_utf8(damage(text.as_bytes(), rng)) {
            let same = InviteCode::parse(&typed).map_or(true, |code| code.text() == text);
            misread += u32::from(!same);
        }
    }
    assert!(misread <= 1, "{misread} of 10,000 damaged codes read as another");
    let answer = enroller.redeem(&joining.request(), [192, 0, 2, 1].into(), NOW, rng).expect("still good").encode();
    for _ in 0..10_000 {
        let bytes = damage(&answer, rng);
        if let (true, Ok(read)) = (bytes != answer, JoinAnswer::decode(&bytes)) {
            assert!(joining.finish(&read, NOW).is_err());
        }
    }
    let file = anna.to_bytes();
    for _ in 0..3_000 {
        // The owner's own file: damaged, it may say another thing about the book of names, but never panic.
        let _ = Identity::from_bytes(&damage(file.reveal(), rng), NOW);
    }
}

#[test]
fn damaged_messages_and_seals() {
    let rng = &mut Rng::from_seed(5);
    let [open, desk] = identities();
    for signer in [open, desk] {
        let letter = Letter {
            id: LetterId::generate(rng),
            from: signer.aor(),
            to: format!("sip:carol@{}", signer.overlay()),
            sent_ms: NOW.secs() * 1000,
            text: "Meet me at the usual place.".into(),
        };
        let signed = SignedLetter::sign(letter, &signer).expect("own");
        let good = signed.encode();
        assert!(signed.verify(&signer.anchor, NOW).is_ok());
        let mut decoded = 0;
        for _ in 0..10_000 {
            let bytes = damage(&good, rng);
            let Ok(read) = SignedLetter::decode(&bytes) else { continue };
            assert_eq!(read.encode(), bytes, "accepted encodings are canonical");
            if bytes != good {
                decoded += 1;
                assert!(read.verify(&signer.anchor, NOW).is_err(), "{bytes:02x?}");
            }
        }
        assert!(decoded > 300, "{decoded} reach the signature check");
        // The seal around it: what was changed does not open, and what opens is what was sealed.
        let sealed = seal("message", &[signer.device_key()], &good, rng).expect("a key");
        let mut opened = 0;
        for _ in 0..3_000 {
            let bytes = damage(&sealed, rng);
            if let Ok(content) = super::open("message", &signer.device, &bytes) {
                opened += 1;
                assert_eq!((&*content, &bytes), (&good, &sealed));
            }
        }
        assert!(opened < 300, "{opened} of 3,000 were damaged to the same bytes");
    }
    let (peer_id, user_agent) = (crate::core::Id::from_u64(9), "x".into());
    let contact = ContactBody { peer_id, addrs: vec![], user_agent, via: vec![] };
    let device = DeviceBody { contact, acks: vec![LetterId([3; 16]); 4] }.encode();
    let item = Waiting { id: LetterId([4; 16]), pieces: 3, hash: [5; 32] };
    let item = WaitingBody { messages: vec![item; 3] }.encode();
    for _ in 0..10_000 {
        let bytes = damage(&device, rng);
        if let Ok(read) = DeviceBody::decode(&bytes) {
            assert_eq!(read.encode(), bytes);
        }
        let bytes = damage(&item, rng);
        if let Ok(read) = WaitingBody::decode(&bytes) {
            assert_eq!(read.encode(), bytes);
        }
    }
}
