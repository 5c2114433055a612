use super::*;
use crate::core::{Instant, Rng, UnixTime};
use crate::identity::KeyPair;
use std::time::Duration;

/// A certificate and its key, made once by `rcgen` for these tests.
#[cfg(feature = "io")]
fn keys() -> Keys {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    Keys::new(params.self_signed(&key).expect("a certificate").der().to_vec(), key.serialize_der())
}

/// Both ends of a call; what they send to each other is handed over, dropped where `lose` says so.
#[cfg(feature = "io")]
struct Pair {
    ends: [Association; 2],
    now: Instant,
}

#[cfg(feature = "io")]
impl Pair {
    #[allow(clippy::disallowed_methods)] // the library wants a point on the system's clock to count from
    fn new(expected: impl Fn(&[Keys; 2]) -> [Fingerprint; 2]) -> Pair {
        let (keys, now, system) = ([keys(), keys()], Instant::from_millis(5), std::time::Instant::now());
        let [first, second] = expected(&keys);
        let ends = [
            Association::new(now, system, &keys[0], second, true),
            Association::new(now, system, &keys[1], first, false),
        ];
        Pair { ends, now }
    }

    fn run(&mut self, mut lose: impl FnMut() -> bool) {
        for _ in 0..200 {
            let mut quiet = true;
            for (from, to) in [(0, 1), (1, 0)] {
                while let Some(datagram) = self.ends[from].poll_output() {
                    quiet = false;
                    assert!(Association::is_dtls(&datagram));
                    if !lose() {
                        self.ends[to].handle(&datagram);
                    }
                }
            }
            let shaking = self.ends.iter().any(|e| e.state() == State::Handshake);
            if quiet && !shaking {
                return;
            }
            if quiet {
                self.now += Duration::from_millis(50);
                self.ends.iter_mut().for_each(|e| e.handle_timeout(self.now));
            }
        }
    }
}

fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let packet = crate::rtp::Packet { ssrc, sequence, payload: vec![7; 40].into(), ..crate::rtp::Packet::default() };
    packet.to_bytes().to_vec()
}

#[cfg(feature = "io")]
#[test]
fn keys_are_agreed_on_and_packets_protected_also_over_a_lossy_path() {
    for share in [0, 30] {
        let mut rng = Rng::from_seed(share);
        let mut pair = Pair::new(|keys| [keys[0].fingerprint(), keys[1].fingerprint()]);
        assert_eq!(pair.ends[0].protect_rtp(&rtp(1, 1)), None, "before there are keys");
        pair.run(|| rng.below(100) < share);
        let [a, b] = &mut pair.ends;
        assert_eq!([a.state(), b.state()], [State::Established; 2], "{share} % lost");
        for (from, to) in [(a, b)] {
            for sequence in [65_534, 65_535, 0, 1] {
                let plain = rtp(9, sequence);
                let protected = from.protect_rtp(&plain).expect("keys");
                assert!(!protected.windows(20).any(|w| w == [7; 20]), "the payload is to be read");
                let mut forged = protected.clone();
                *forged.last_mut().expect("bytes") ^= 1;
                assert_eq!(to.unprotect_rtp(&forged), None, "forged");
                assert_eq!(to.unprotect_rtp(&protected).as_deref(), Some(&plain[..]));
                assert_eq!(to.unprotect_rtp(&protected), None, "a replay");
            }
            assert_eq!(to.unprotect_rtp(&rtp(9, 5)), None, "in clear");
        }
    }
}

#[cfg(feature = "io")]
#[test]
fn another_certificate_than_the_one_named_is_no_partner() {
    let stranger = Fingerprint([1; 32]);
    let mut pair = Pair::new(|keys| [keys[0].fingerprint(), stranger]);
    pair.run(|| false);
    assert!(matches!(pair.ends[0].state(), State::Failed(_)), "{:?}", pair.ends[0].state());
    assert_eq!(pair.ends[0].protect_rtp(&rtp(1, 1)), None);
}

#[cfg(feature = "io")]
#[test]
fn a_flood_of_sources_is_not_remembered_and_harms_no_call() {
    let mut pair = Pair::new(|keys| [keys[0].fingerprint(), keys[1].fingerprint()]);
    pair.run(|| false);
    let [a, b] = &mut pair.ends;
    let first = a.protect_rtp(&rtp(9, 1)).expect("keys");
    assert!(b.unprotect_rtp(&first).is_some());
    for ssrc in 100..10_000 {
        assert_eq!(b.unprotect_rtp(&rtp(ssrc, 1)), None);
    }
    let next = a.protect_rtp(&rtp(9, 2)).expect("keys");
    assert!(b.unprotect_rtp(&next).is_some());
}

#[test]
fn rubbish_is_no_packet() {
    let mut rng = Rng::from_seed(3);
    for length in 0..200 {
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(Fingerprint::parse(&text), None);
        let statement = Statement { role: Role::Offer, call_id: "a", tag: "b", fingerprint: Fingerprint([2; 32]) };
        assert_eq!(statement.signer(&text, UnixTime(0)), None);
    }
    let fingerprint = Fingerprint([0xab; 32]);
    assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
    assert_eq!(Fingerprint::parse(&fingerprint.to_string().to_lowercase()), Some(fingerprint));
    assert_eq!(Fingerprint::parse(&format!("{fingerprint}:AB")), None);
    assert_eq!(Fingerprint::parse(&fingerprint.to_string().replace("256", "1")), None);
}

#[test]
fn a_statement_holds_for_what_it_says_and_nothing_else() {
    let device = KeyPair::generate(&mut Rng::from_seed(1));
    let now = UnixTime(1_800_000_000);
    let said = Statement { role: Role::Offer, call_id: "c1", tag: "t1", fingerprint: Fingerprint([2; 32]) };
    let value = said.sign(&device, now);
    assert_eq!(said.signer(&value, now), Some(device.public()));
    assert_eq!(said.signer(&value, UnixTime(now.secs() + 301)), None, "an old one");
    let others = [
        Statement { role: Role::Answer, ..said },
        Statement { call_id: "c2", ..said },
        Statement { tag: "t2", ..said },
        Statement { call_id: "c", tag: "1t1", ..said },
        Statement { fingerprint: Fingerprint([3; 32]), ..said },
    ];
    for other in others {
        assert_eq!(other.signer(&value, now), None, "{other:?}");
    }
    let stranger = Statement { ..said }.sign(&KeyPair::generate(&mut Rng::from_seed(2)), now);
    assert_ne!(said.signer(&stranger, now), Some(device.public()));
}
