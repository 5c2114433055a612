//! An office: founded by one, joined by another with a code, closed to everybody else.

use crate::process::{Outcome, run};
use crate::program::{Peer, chordial, last_json};
use crate::tools::DEADLINE;
use std::path::Path;

#[test]
fn an_office_is_founded_joined_by_code_and_closed_to_strangers() {
    let dir = tempfile::Builder::new().prefix("chordial-office-").tempdir().unwrap();
    let dir = dir.path();
    let created = command(dir, "founder", &["office", "create", "hq.test", "--name", "alice"]);
    assert!(created.ok(), "{created:?}");
    let again = command(dir, "founder", &["office", "create", "other.test", "--name", "alice"]);
    assert!(!again.ok(), "a second office over the first: {again:?}");
    let alice = Peer::start(dir, "founder", &["--auto-answer", "--audio-in", "tone"]);
    assert_eq!(alice.status()["aor"], "sip:alice@hq.test");

    let (invite, ok) = alice.json(&["office", "invite", "bob"]);
    let code = invite["code"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no code: {invite}")).to_owned();

    // One letter of the secret changed, nonsense, and nothing.
    for wrong in [damaged(&code).as_str(), "AAAA-BBBB-CCCC", ""] {
        let refused = command(dir, "wrong", &["join", wrong]);
        assert!(!refused.ok() && refused.code.is_some(), "join {wrong:?}: {refused:?}");
        assert!(!refused.stderr.trim().is_empty() && !refused.stderr.contains("panicked"), "{refused:?}");
    }

    let joined = command(dir, "joiner", &["join", &code]);
    assert!(joined.ok(), "{joined:?}");
    let used = command(dir, "late", &["join", &code]);
    assert!(!used.ok(), "a code worked twice: {used:?}");

    let founder = alice.overlay.to_string();
    let bob = Peer::start(dir, "joiner", &["--bootstrap", &founder, "--auto-answer", "--audio-in", "tone"]);
    assert_eq!(bob.status()["aor"], "sip:bob@hq.test");
    alice.lookup_until_found("bob");
    bob.lookup_until_found("alice");
    for (from, to) in [(&alice, "bob"), (&bob, "alice")] {
        let report = from.call(to, &["--play", "tone", "--duration", "1"]).completed();
        assert!(report["received"].as_u64() > Some(0), "{report}");
    }

    // Who was not invited is not let in, even when it says the office's name.
    let stranger = crate::program::start_that_fails(
        dir,
        &[
            "--data",
            dir.join("stranger").to_str().unwrap(),
            "--open",
            "--overlay",
            "hq.test",
            "--name",
            "mallory",
            "--bootstrap",
            &founder,
            "--sip-listen",
            &format!("127.0.0.1:{}", crate::tools::free_ports(1)),
            "--overlay-listen",
            &format!("127.0.0.1:{}", crate::tools::free_ports(1)),
        ],
        DEADLINE,
    );
    assert!(stranger.code.is_some_and(|c| c != 0), "a stranger stays: {stranger:?}");
    assert_eq!(alice.lookup("mallory")["found"], false);
}

fn command(dir: &Path, who: &str, args: &[&str]) -> Outcome {
    let mut command = chordial();
    command.args(args).arg("--data").arg(dir.join(who));
    let outcome = run(&format!("{who}-{}", args[0]), &mut command, dir, DEADLINE);
    if outcome.ok() && args.contains(&"--json") {
        last_json(&outcome);
    }
    outcome
}

/// The code with its first letter changed.
fn damaged(code: &str) -> String {
    let first = if code.starts_with(['A', 'a']) { "B" } else { "A" };
    format!("{first}{}", code.get(1..).unwrap_or_default())
}
