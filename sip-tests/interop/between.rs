//! Two offices and a family on loopback: their people call each other by contact links.

use crate::process::{Outcome, run};
use crate::program::{Peer, chordial};
use crate::tools::DEADLINE;
use std::path::Path;

fn command(dir: &Path, who: &str, args: &[&str]) -> Outcome {
    let mut command = chordial();
    command.args(args).arg("--data").arg(dir.join(who));
    run(&format!("{who}-{}", args[0]), &mut command, dir, DEADLINE)
}

fn founded(dir: &Path, office: &str, user: &str) {
    let created = command(dir, user, &["office", "create", office, "--name", user]);
    assert!(created.ok(), "{created:?}");
}

/// `who`'s link, taken up by `by` under `who`'s name.
fn know(dir: &Path, by: &Peer, who: &Peer, ring: &str) {
    let (link, ok) = who.json(&["contacts", "link", "--ring", ring]);
    let link = link["link"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no link: {link}")).to_owned();
    assert!(link.starts_with("chordial:"), "{link}");
    let taken = command(dir, &by.name, &["contacts", "accept", &link, "--name", &who.name]);
    assert!(taken.ok(), "{taken:?}");
}

const PEER: [&str; 3] = ["--auto-answer", "--audio-in", "tone"];

#[test]
fn people_of_two_offices_and_a_family_call_each_other() {
    let dir = tempfile::Builder::new().prefix("chordial-between-").tempdir().unwrap();
    let dir = dir.path();
    founded(dir, "a.test", "anna");
    founded(dir, "b.test", "bea");
    let anna = Peer::start(dir, "anna", &PEER);
    let bea = Peer::start(dir, "bea", &PEER);
    let otto = Peer::start(dir, "otto", &[&PEER[..], &["--open", "--overlay", "family", "--name", "otto"]].concat());

    // The callee does not know who calls: refused, and shown as a knock.
    know(dir, &anna, &bea, "ask");
    let refused = command(dir, "anna", &["call", "bea", "--duration", "1"]);
    assert!(!refused.ok() && refused.stderr.contains("403"), "{refused:?}");
    let (seen, _) = bea.json(&["strangers"]);
    assert_eq!(seen["knocks"][0]["aor"], "sip:anna@a.test", "{seen}");
    let accepted = command(dir, "bea", &["contacts", "accept", "anna@a.test"]);
    assert!(accepted.ok(), "{accepted:?}");

    // Once accepted, or with the right to ring, each reaches each; a second call needs no token.
    know(dir, &otto, &anna, "once");
    for (from, to) in [(&anna, "bea"), (&otto, "anna"), (&otto, "anna")] {
        let report = from.call(to, &["--play", "tone", "--duration", "1"]).completed();
        assert!(report["received"].as_u64() > Some(0), "{report}");
    }

    // It is still known after a restart, and a block holds.
    let blocked = command(dir, "bea", &["block", "anna"]);
    assert!(blocked.ok(), "{blocked:?}");
    let stopped = command(dir, "bea", &["stop"]);
    assert!(stopped.ok(), "{stopped:?}");
    let mut bea = bea;
    assert!(bea.process.wait(DEADLINE).is_some(), "bea did not stop");
    let bea = Peer::restart(dir, "bea", bea.sip, &PEER);
    let refused = command(dir, "anna", &["call", "bea", "--duration", "1"]);
    assert!(!refused.ok() && refused.stderr.contains("603"), "{refused:?}");
    let unblocked = command(dir, "bea", &["unblock", "anna"]);
    assert!(unblocked.ok(), "{unblocked:?}");
    anna.call("bea", &["--play", "tone", "--duration", "1"]).completed();
    let (seen, _) = bea.json(&["strangers"]);
    assert_eq!(
        (seen["contacts"][0]["name"].as_str(), seen["blocked"].as_array().map(Vec::len)),
        (Some("anna"), Some(0))
    );

    // A link with a code for a camera.
    let drawn = command(dir, "anna", &["contacts", "link", "--qr"]);
    assert!(drawn.ok() && drawn.stdout.contains('\u{2580}') && drawn.stdout.contains("chordial:"), "{drawn:?}");
}
