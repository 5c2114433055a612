//! Logging in on another machine by name and password, with real processes and the real cost of Argon2id.

use crate::process::{Outcome, Process, run};
use crate::program::{Peer, chordial, last_json};
use crate::tools::{DEADLINE, eventually, free_ports};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;

const PASSWORD: &str = "correct horse battery";

/// Runs a command with a line on its standard input.
pub fn told(dir: &Path, who: &str, args: &[&str], line: &str) -> Outcome {
    // The process helper gives no standard input: the shell does.
    let file = dir.join(format!("{who}.stdin"));
    std::fs::File::create(&file).unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "stdin=$1; shift; exec \"$@\" < \"$stdin\"", "sh"]).arg(&file);
    command.arg(chordial().get_program()).args(args).arg("--data").arg(dir.join(who));
    run(&format!("{who}-{}", args[0]), &mut command, dir, DEADLINE)
}

#[test]
fn a_user_logs_in_on_a_new_machine_while_the_first_one_is_gone() {
    let dir = tempfile::Builder::new().prefix("chordial-login-").tempdir().unwrap();
    let dir = dir.path();
    let created = told(dir, "anna", &["office", "create", "hq.test", "--name", "anna"], "");
    assert!(created.ok(), "{created:?}");
    let anna = Peer::start(dir, "anna", &[]);
    let mut others = Vec::new();
    for user in ["ben", "cora", "dan"] {
        let (invite, ok) = anna.json(&["office", "invite", user]);
        let code = invite["code"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no code: {invite}")).to_owned();
        let joined = told(dir, user, &["join", &code], "");
        assert!(joined.ok(), "{joined:?}");
        others.push(Peer::start(dir, user, &["--bootstrap", &anna.overlay.to_string()]));
    }
    let via = anna.overlay.to_string();

    // One more joins by six digits: a wrong code first.
    let (pairing, ok) = anna.json(&["office", "invite", "eve", "--pair"]);
    let digits = pairing["digits"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no digits: {pairing}")).to_owned();
    let wrong = if digits == "000 000" { "000001" } else { "000000" };
    let refused = told(dir, "eve", &["join", wrong, "--via", &via], "");
    assert!(!refused.ok() && refused.stderr.contains("the short code was refused"), "{refused:?}");
    let joined = told(dir, "eve", &["join", &digits, "--via", &via, "--json"], "");
    assert!(joined.ok() && last_json(&joined)["aor"] == "sip:eve@hq.test", "{joined:?}");
    let late = told(dir, "late", &["join", &digits, "--via", &via], "");
    assert!(!late.ok() && late.stderr.contains("waits for a short code"), "{late:?}");

    // Too short, then a good one.
    let short = told(dir, "ben", &["password", "--password-stdin"], "short");
    assert!(!short.ok() && short.stderr.contains("fewer than 8"), "{short:?}");
    let set: Value = eventually("ben's password is set", || {
        let set = told(dir, "ben", &["password", "--password-stdin", "--json"], PASSWORD);
        if set.ok() { Ok(last_json(&set)) } else { Err(set.stderr) }
    });
    assert!(set["holders"].as_u64() >= Some(3) && set["needed"] == 2, "{set}");
    // Once it has told the holders, ben's machine is lost.
    others.remove(0).process.kill();

    let login = |who: &str, user: &str, password: &str| {
        told(dir, who, &["login", user, "--via", &via, "--password-stdin", "--json"], password)
    };
    for (user, password) in [("ben@hq.test", "incorrect horse"), ("nobody@hq.test", PASSWORD)] {
        let wrong = login("laptop", user, password);
        assert!(!wrong.ok() && wrong.stderr.contains("name or password is wrong"), "{wrong:?}");
    }
    let elsewhere = login("laptop", "ben@other.test", PASSWORD);
    assert!(!elsewhere.ok() && !elsewhere.stderr.contains("panicked"), "{elsewhere:?}");
    assert!(!dir.join("laptop/identity.cbor").exists());

    let done = login("laptop", "Ben@hq.test", PASSWORD);
    assert!(done.ok(), "{done:?}");
    assert_eq!(last_json(&done)["aor"], "sip:ben@hq.test");
    let again = login("laptop", "ben@hq.test", PASSWORD);
    assert!(!again.ok() && again.stderr.contains("already holds an identity"), "{again:?}");

    // The new device runs as ben.
    let base = free_ports(2);
    let mut start = chordial();
    start.args(["start", "--headless", "--json", "--data"]).arg(dir.join("laptop"));
    start.args(["--sip-listen", &format!("127.0.0.1:{base}"), "--overlay-listen", &format!("127.0.0.1:{}", base + 1)]);
    let laptop = Process::start("laptop", &mut start, dir);
    eventually("the laptop runs", || {
        let status = told(dir, "laptop", &["status", "--json"], "");
        let aor = if status.ok() { last_json(&status)["aor"].clone() } else { Value::Null };
        if aor == "sip:ben@hq.test" { Ok(()) } else { Err(format!("{status:?}")) }
    });
    drop(laptop);
    // The log of the supernode that was asked does not say what was tried.
    assert!(!anna.process.stderr().contains(PASSWORD));
}
