//! People of an office and their devices, with real processes: a second device by code, both ring, one is revoked and is out; a
//! second administrator; backup, restore, recovery.

use crate::process::{Outcome, run};
use crate::program::{Peer, chordial, last_json};
use crate::tools::{DEADLINE, eventually};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn command(dir: &Path, who: &str, args: &[&str]) -> Outcome {
    let mut command = chordial();
    command.args(args).arg("--json").arg("--data").arg(dir.join(who));
    run(&format!("{who}-{}", args[0]), &mut command, dir, DEADLINE)
}

/// A command with `line` on its standard input.
fn typed(dir: &Path, who: &str, args: &[&str], line: &str) -> Outcome {
    let input = dir.join("typed");
    std::fs::write(&input, format!("{line}\n")).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec \"$0\" \"$@\" < {}", input.display()));
    command.arg(env!("CARGO_BIN_EXE_chordial")).args(args).arg("--json").arg("--data").arg(dir.join(who));
    run(&format!("{who}-{}", args[1]), &mut command, dir, DEADLINE)
}

fn code(peer: &Peer, args: &[&str]) -> String {
    let (reply, ok) = peer.json(args);
    reply["code"].as_str().filter(|_| ok).unwrap_or_else(|| panic!("no code: {reply}")).to_owned()
}

fn contacts(peer: &Peer, user: &str) -> usize {
    peer.lookup(user)["contacts"].as_array().map_or(0, Vec::len)
}

fn row<'v>(list: &'v Value, key: &str, value: &str) -> &'v Value {
    let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().find(|r| r[key] == value).unwrap_or_else(|| panic!("no {value}: {list}"))
}

const QUIET: [&str; 3] = ["--auto-answer", "--audio-in", "tone"];

#[test]
fn a_second_device_rings_too_until_it_is_revoked() {
    let dir = tempfile::Builder::new().prefix("chordial-people-").tempdir().unwrap();
    let dir = dir.path();
    assert!(command(dir, "anna", &["office", "create", "hq.test", "--name", "anna"]).ok());
    let anna = Peer::start(dir, "anna", &QUIET);
    let invite = code(&anna, &["office", "invite", "ben", "--extension", "12"]);
    assert!(command(dir, "ben", &["join", &invite, "--label", "desk"]).ok());
    let ben = Peer::start(dir, "ben", &QUIET);

    let device = code(&ben, &["devices", "add", "--label", "mobile"]);
    let joined = command(dir, "mobile", &["join", &device]);
    assert!(joined.ok(), "{joined:?}");
    assert!(!command(dir, "thief", &["join", &device]).ok(), "a code worked twice");
    // Its place on the ring comes from anna's device, which it learns of from ben's.
    let mut mobile = Peer::start(dir, "mobile", &QUIET);
    assert_eq!(mobile.status()["aor"], "sip:ben@hq.test");
    eventually("both devices are found, by name and by number", || {
        let found = (contacts(&anna, "ben"), contacts(&anna, "12"));
        if found == (2, 2) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let (users, _) = anna.json(&["office", "users"]);
    assert_eq!(row(&users["users"], "user", "ben")["extensions"][0], "12", "{users}");

    let (list, ok) = ben.json(&["devices"]);
    assert!(ok && row(&list["devices"], "label", "mobile")["this"] == false, "{list}");
    let (error, ok) = mobile.json(&["devices", "add"]);
    assert!(!ok && error["error"]["what"].as_str().is_some_and(|w| w.contains("user key")), "{error}");
    let (_, ok) = ben.json(&["devices", "remove", "mobile"]);
    assert!(ok);
    eventually("the revoked device is found no more", || {
        let found = contacts(&anna, "ben");
        if found == 1 { Ok(()) } else { Err(format!("{found} contacts")) }
    });
    // Started again it is let in nowhere; it is told no secret and disturbs nobody.
    let (report, ok) = mobile.call("anna", &["--duration", "1"]).report();
    assert!(!ok && report["result"] != "completed", "{report}");
    mobile.process.kill();
    let (list, _) = ben.json(&["devices"]);
    assert_eq!(row(&list["devices"], "label", "mobile")["revoked"], true, "{list}");
    let report = anna.call("ben", &["--play", "tone", "--duration", "1"]).completed();
    assert!(report["received"].as_u64() > Some(0), "{report}");
    // Over a restart it stays so: anna's device has it on its disk.
    assert!(anna.data.join("revocations.cbor").is_file() && ben.data.join("revocations.cbor").is_file());
}

#[test]
fn an_office_outlives_its_founders_machine() {
    let dir = tempfile::Builder::new().prefix("chordial-people-").tempdir().unwrap();
    let dir = dir.path();
    let created = command(dir, "anna", &["office", "create", "hq.test", "--name", "anna"]);
    let sheet = last_json(&created)["recovery"].as_str().expect("printed once").to_owned();
    let mut anna = Peer::start(dir, "anna", &QUIET);
    let invite = code(&anna, &["office", "invite", "ben"]);
    assert!(command(dir, "ben", &["join", &invite]).ok());
    let founder = anna.overlay.to_string();
    let ben = Peer::start(dir, "ben", &["--bootstrap", &founder]);
    let (_, ok) = ben.json(&["office", "users"]);
    assert!(!ok, "ben administers nothing yet");

    // A second owner, by the sheet.
    let wrong = typed(dir, "anna", &["office", "owner", "add", "ben"], "not a sheet");
    assert!(!wrong.ok() && wrong.stderr.contains("recovery sheet"), "{wrong:?}");
    anna.lookup_until_found("ben");
    let added = typed(dir, "anna", &["office", "owner", "add", "ben"], &sheet);
    assert!(added.ok(), "{added:?}");
    eventually("ben has the book", || {
        let (users, ok) = ben.json(&["office", "users"]);
        let names = users["users"].as_array().map_or(0, Vec::len);
        if ok && names == 2 { Ok(()) } else { Err(users.to_string()) }
    });

    // A backup, read with its passphrase alone.
    let file = dir.join("anna.backup");
    let file = file.to_str().unwrap();
    let made = typed(dir, "anna", &["office", "backup", file], "correct horse");
    assert!(made.ok(), "{made:?}");
    anna.process.kill();
    let wrong = typed(dir, "restored", &["office", "restore", file], "wrong horse");
    assert!(!wrong.ok() && wrong.stderr.contains("passphrase is wrong"), "{wrong:?}");
    assert_eq!(wrong.stderr.trim().lines().count(), 1, "{wrong:?}");
    let mut damaged = std::fs::read(file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = dir.join("damaged.backup");
    std::fs::write(&bad, damaged).unwrap();
    let refused = typed(dir, "restored", &["office", "restore", bad.to_str().unwrap()], "correct horse");
    assert!(!refused.ok() && refused.stderr.contains("damaged"), "{refused:?}");
    let restored = typed(dir, "restored", &["office", "restore", file], "correct horse");
    assert!(restored.ok(), "{restored:?}");
    let known = ben.overlay.to_string();
    let back = Peer::start(dir, "restored", &["--bootstrap", &known]);
    let (users, ok) = back.json(&["office", "users"]);
    assert!(ok && users["users"].as_array().map_or(0, Vec::len) == 2, "{users}");
    assert!(!typed(dir, "restored", &["office", "restore", file], "correct horse").ok(), "over an identity");
    drop(back);

    // The sheet alone, on a new machine.
    let recovered = typed(dir, "new", &["office", "recover", "hq.test", "--name", "anna2"], &sheet);
    assert!(recovered.ok(), "{recovered:?}");
    let new = Peer::start(dir, "new", &["--bootstrap", &known]);
    eventually("the recovered administrator has the book", || {
        let (users, ok) = new.json(&["office", "users"]);
        let names = users["users"].as_array().map_or(0, Vec::len);
        if ok && names == 3 { Ok(()) } else { Err(users.to_string()) }
    });
    let (users, _) = new.json(&["office", "users"]);
    let lost = row(&users["users"], "user", "anna")["key"].as_str().unwrap().to_owned();
    let (_, ok) = new.json(&["office", "revoke", &lost]);
    assert!(ok);
    eventually("ben knows that the founder's key counts no more", || {
        let (users, _) = ben.json(&["office", "users"]);
        if row(&users["users"], "user", "anna")["revoked"] == true { Ok(()) } else { Err(users.to_string()) }
    });
}
