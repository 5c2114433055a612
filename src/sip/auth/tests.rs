use super::*;
use crate::core::{Rng, UnixTime};
use std::time::Duration;

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let at = answer.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
    answer[at..].split('"').next().unwrap()
}

fn credentials<'a>(user: &'a str, password: &'a str, cnonce: &'a str) -> Credentials<'a> {
    Credentials { user, password, method: "GET", uri: "/dir/index.html", body: b"", nc: 1, cnonce }
}

#[test]
fn vector_of_rfc_2617() {
    let challenge = Challenge::parse(
        "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
         opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
    )
    .unwrap();
    let answer = answer(&challenge, &credentials("Mufasa", "Circle Of Life", "0a4f113b"));
    assert_eq!(field(&answer, "response"), "6629fae49393a05397450978507c4ef1");
    assert_eq!(field(&answer, "opaque"), "5ccc069c403ebaf9f0171e9517f40e41");
    assert!(answer.contains("nc=00000001") && answer.contains("qop=auth,") && !answer.contains("algorithm"));
}

#[test]
fn vectors_of_rfc_7616() {
    let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
    let of = |algorithm: &str| {
        let challenge = format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, nonce=\"{nonce}\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        );
        let challenge = Challenge::parse(&challenge).unwrap();
        field(&answer(&challenge, &credentials("Mufasa", "Circle of Life", cnonce)), "response").to_owned()
    };
    assert_eq!(of("MD5"), "8ca523f5e9506fed4657c9700eebdbec");
    assert_eq!(of("SHA-256"), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
}

#[test]
fn vector_without_qop() {
    // RFC 2069 section 2.4, with the response that its erratum 749 corrects it to.
    let challenge = Challenge::parse(
        "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", algorithm=MD5",
    )
    .unwrap();
    let answer = answer(&challenge, &credentials("Mufasa", "CircleOfLife", "x"));
    assert_eq!(field(&answer, "response"), "1949323746fe6a43ef61f9606e7febea");
    assert!(!answer.contains("nc=") && !answer.contains("cnonce"));
}

#[test]
fn the_topmost_known_challenge_is_answered() {
    let md5 = "Digest realm=\"r\", nonce=\"1\", algorithm=MD5, qop=\"auth\"";
    let sha = "digest  realm = \"r\" ,nonce=\"2\",algorithm=sha-256,qop=\"auth-int,auth\"";
    let new = "Digest realm=\"r\", nonce=\"3\", algorithm=SHA3, qop=\"auth\"";
    let chosen = choose([new, "Basic realm=\"r\"", sha, md5]).unwrap();
    assert_eq!((chosen.algorithm, chosen.nonce.as_str()), (Algorithm::SHA256, "2"));
    assert_eq!(choose([md5, sha]).unwrap().algorithm, Algorithm::MD5);
    assert_eq!(choose([new]), Err(AuthError::Algorithm));
    assert_eq!(choose(["Digest realm=\"r\", nonce=\"1\", qop=\"x\""]), Err(AuthError::Qop));
    assert_eq!(choose([]), Err(AuthError::Syntax));
    for broken in ["Digest", "Digest realm", "Digest realm=\"x", "Digestrealm=x", "Digest realm=\"a\" b"] {
        assert_eq!(Challenge::parse(broken), Err(AuthError::Syntax), "{broken}");
    }
    let escaped = Challenge::parse("Digest realm=\"a \\\"b\\\", c\", nonce=x, stale=TRUE").unwrap();
    assert_eq!((escaped.realm.as_str(), escaped.nonce.as_str(), escaped.stale), ("a \"b\", c", "x", true));
}

fn challenger() -> Challenger {
    Challenger::new("chordial", [7; 32], Duration::from_secs(300), Rng::from_seed(1))
}

fn lookup(user: &str) -> Option<Ha1> {
    (user == "bob").then(|| Ha1::new("bob", "chordial", "zanzibar"))
}

const NOW: UnixTime = UnixTime(1_700_000_000);

fn respond(challenge: &str, password: &str, nc: u32) -> String {
    let challenge = Challenge::parse(challenge).unwrap();
    answer(
        &challenge,
        &Credentials { user: "bob", password, method: "REGISTER", uri: "sip:chordial", body: b"hi", nc, cnonce: "cc" },
    )
}

fn check(c: &mut Challenger, now: UnixTime, header: &str) -> Verdict {
    c.check(now, [header], "REGISTER", b"hi", lookup)
}

#[test]
fn both_sides_meet_under_every_algorithm_and_protection() {
    let mut server = challenger();
    let [sha, md5] = server.challenge(NOW, false);
    assert!(sha.contains("algorithm=SHA-256,") && md5.contains("algorithm=MD5,"));
    let mut nc = 0;
    for challenge in [&sha, &md5] {
        for qop in ["auth,auth-int", "auth", "auth-int"] {
            for sess in ["", "-sess"] {
                let challenge = challenge.replace("auth,auth-int", qop).replace(", qop", &format!("{sess}, qop"));
                nc += 1;
                let header = respond(&challenge, "zanzibar", nc);
                assert_eq!(check(&mut server, NOW, &header), Verdict::Ok("bob".into()), "{header}");
                assert_eq!(server.check(NOW, [header.as_str()], "INVITE", b"hi", lookup), Verdict::Bad);
                if qop == "auth-int" {
                    assert_eq!(server.check(NOW, [header.as_str()], "REGISTER", b"ho", lookup), Verdict::Bad);
                }
            }
        }
    }
}

#[test]
fn replays_old_nonces_and_wrong_passwords_are_told_apart() {
    let mut server = challenger();
    let [sha, _] = server.challenge(NOW, false);
    let first = respond(&sha, "zanzibar", 1);
    assert_eq!(check(&mut server, NOW, &respond(&sha, "guess", 1)), Verdict::Bad);
    assert_eq!(server.remembered(), 0);
    assert_eq!(check(&mut server, NOW, &first), Verdict::Ok("bob".into()));
    assert_eq!(check(&mut server, NOW, &first), Verdict::Stale);
    assert_eq!(check(&mut server, NOW, &respond(&sha, "zanzibar", 3)), Verdict::Ok("bob".into()));
    assert_eq!(check(&mut server, NOW, &respond(&sha, "zanzibar", 2)), Verdict::Stale);
    let late = UnixTime(NOW.secs() + 301);
    assert_eq!(check(&mut server, late, &respond(&sha, "zanzibar", 4)), Verdict::Stale);
    let mut other = Challenger::new("chordial", [8; 32], Duration::from_secs(300), Rng::from_seed(1));
    let [foreign, _] = other.challenge(NOW, false);
    assert_eq!(check(&mut server, NOW, &respond(&foreign, "zanzibar", 1)), Verdict::Stale);
    let [again, _] = server.challenge(NOW, true);
    assert!(Challenge::parse(&again).unwrap().stale);
    assert_eq!(check(&mut server, NOW, &respond(&again, "zanzibar", 1)), Verdict::Ok("bob".into()));
}

#[test]
fn without_qop_a_nonce_serves_once() {
    let mut server = challenger();
    let [_, md5] = server.challenge(NOW, false);
    let bare = md5.replace(", qop=\"auth,auth-int\"", "");
    let header = respond(&bare, "zanzibar", 1);
    assert_eq!(check(&mut server, NOW, &header), Verdict::Ok("bob".into()));
    assert_eq!(check(&mut server, NOW, &header), Verdict::Stale);
}

#[test]
fn other_realms_schemes_and_broken_fields() {
    let mut server = challenger();
    assert_eq!(server.check(NOW, [], "REGISTER", b"", lookup), Verdict::Missing);
    assert_eq!(check(&mut server, NOW, "Digest realm=\"other\", username=\"x\""), Verdict::Missing);
    assert_eq!(check(&mut server, NOW, "Bearer abc"), Verdict::Missing);
    assert_eq!(check(&mut server, NOW, "Digest realm=\"chordial\", username=\"bob\""), Verdict::Bad);
    assert_eq!(check(&mut server, NOW, "Digest realm=\"chordial"), Verdict::Bad);
    let [sha, _] = server.challenge(NOW, false);
    let good = respond(&sha, "zanzibar", 1);
    assert_eq!(check(&mut server, NOW, &good.replace("\"bob\"", "\"eve\"")), Verdict::Bad);
    assert_eq!(check(&mut server, NOW, &good.replace("SHA-256", "SHA-512-256")), Verdict::Bad);
    let other = "Digest realm=\"other\", username=\"x\"";
    assert_eq!(server.check(NOW, [other, &good], "REGISTER", b"hi", lookup), Verdict::Ok("bob".into()));
}

#[test]
fn a_full_table_forgets_without_opening_to_replay() {
    let mut server = challenger();
    server.set_capacity(4);
    let headers: Vec<String> =
        (0..8).map(|n| respond(&server.challenge(UnixTime(NOW.secs() + n), false)[0], "zanzibar", 1)).collect();
    let now = UnixTime(NOW.secs() + 10);
    for header in &headers {
        assert_eq!(check(&mut server, now, header), Verdict::Ok("bob".into()));
    }
    assert_eq!(server.remembered(), 4);
    for header in &headers {
        assert_eq!(check(&mut server, now, header), Verdict::Stale);
    }
}

#[test]
fn a_hundred_thousand_mutations() {
    let mut server = challenger();
    let [sha, _] = server.challenge(NOW, false);
    let base = respond(&sha, "zanzibar", 1).into_bytes();
    let mut rng = Rng::from_seed(1);
    for _ in 0..100_000 {
        let mut bytes = base.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, b"\",=\\ \xc3"[rng.below(6) as usize]),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = Challenge::parse(&text);
        check(&mut server, NOW, &text);
    }
    assert!(server.remembered() <= 1);
}
