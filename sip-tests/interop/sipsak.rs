//! sipsak: OPTIONS, registration with a password and its end, and its random-damage mode. Its own calls to itself
//! (`-I`, `-M`) crash in the packaged version, whoever the registrar is.

use crate::process::run;
use crate::program::Ring;
use crate::tools::{DEADLINE, have};
use std::fs;
use std::process::Command;

#[test]
fn sipsak_asks_registers_and_damages() {
    if !have("sipsak_asks_registers_and_damages", &["sipsak"]) {
        return;
    }
    let mut ring = Ring::new("sipsak.test", &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, "desk0,s3cret\n").unwrap();
    ring.add("alice", &["--phones", &accounts, "--auto-answer"]);
    let alice = &ring.peers[0];
    let sipsak = |name: &str, args: &[&str]| {
        let outcome = run(name, Command::new("sipsak").args(args), ring.dir(), DEADLINE);
        assert!(outcome.code.is_some(), "sipsak {args:?} does not end: {outcome:?}");
        outcome
    };
    let uri = |user: &str| format!("sip:{user}@{}", alice.sip);

    let options = sipsak("options", &["-vvv", "-s", &uri("alice")]);
    assert!(options.ok() && options.stdout.contains("SIP/2.0 200"), "{options:?}");
    assert!(options.stdout.contains("Allow:"), "{options:?}");
    let unknown = sipsak("options-unknown", &["-vvv", "-s", &uri("nobody")]);
    assert!(unknown.stdout.contains("SIP/2.0 404"), "{unknown:?}");

    // It would call itself `desk0@` in the digest if it were not told the name (-u).
    let register = |name: &str, contact: &str, expires: &str, password: &str| {
        let credentials = ["-u", "desk0", "-a", password];
        sipsak(name, &[&["-U", "-C", contact, "-x", expires, "-vv", "-s", &uri("desk0")], &credentials[..]].concat())
    };
    let bad = register("register-bad", "sip:desk0@127.0.0.1:9", "60", "wrong");
    assert!(!bad.ok(), "{bad:?}");
    let good = register("register", "sip:desk0@127.0.0.1:9", "60", "s3cret");
    assert!(good.ok(), "{good:?}");
    let status = alice.status();
    let contacts = |status: &serde_json::Value| {
        let all = status["registrations"].as_array().cloned().unwrap_or_default();
        let own = all.into_iter().find(|r| r["aor"] == ring.aor("desk0"));
        own.map(|r| r["contacts"].to_string()).unwrap_or_default()
    };
    assert!(contacts(&status).contains("127.0.0.1:9"), "{status}");
    alice.lookup_until_found("desk0");
    let removed = register("remove", "*", "0", "s3cret");
    assert!(removed.ok(), "{removed:?}");
    assert!(!contacts(&alice.status()).contains("127.0.0.1:9"));

    // Requests with random damage, until one stays without an answer; what matters is that the peer serves on.
    sipsak("random", &["-R", "-t", "30", "-s", &uri("alice")]);
    let options = sipsak("options-after", &["-vvv", "-s", &uri("alice")]);
    assert!(options.stdout.contains("SIP/2.0 200"), "{options:?}");
}
