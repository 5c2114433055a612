//! SIPp: its own caller against a peer that answers, and a steady load of calls through the registrar's proxy.

use crate::process::{Outcome, Process, run};
use crate::program::Ring;
use crate::tools::{DEADLINE, eventually, free_ports, have, heavy};
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

#[test]
fn sipps_own_caller_reaches_the_user() {
    if !have("sipps_own_caller_reaches_the_user", &["sipp"]) {
        return;
    }
    let mut ring = Ring::new("sipp.test", &["--open", "--strangers", "anyone"]);
    ring.add("alice", &["--auto-answer", "--audio-in", "tone"]);
    let alice = &ring.peers[0];
    // SIPp's own caller ignores Contact and Record-Route; both its ACK and its BYE come to the address it called.
    let mut uac = sipp(ring.dir(), &alice.sip.to_string());
    uac.args(["-sn", "uac", "-s", "alice", "-m", "5", "-r", "2", "-d", "300"]);
    let outcome = run("sipp-uac", &mut uac, ring.dir(), DEADLINE);
    assert!(outcome.ok(), "{}", explain(ring.dir(), &outcome));
    eventually("alice's calls have ended", || {
        let calls = &alice.status()["calls"];
        if calls.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(calls.to_string()) }
    });
    let (calls, _) = alice.json(&["calls"]);
    let ended = calls["ended"].as_array().cloned().unwrap_or_default();
    assert_eq!(ended.len(), 5, "{calls}");
    assert!(ended.iter().all(|c| c["result"] == "completed" && c["sent"].as_u64() > Some(0)), "{calls}");
}

#[test]
fn a_hundred_calls_a_second_through_the_proxy_lose_none() {
    if !have("a_hundred_calls_a_second_through_the_proxy_lose_none", &["sipp"]) {
        return;
    }
    let _one_at_a_time = heavy();
    let seconds = if std::env::var_os("CHORDIAL_LONG").is_some() { 30 } else { 5 };
    let users: Vec<_> = (0..10).map(|n| format!("u{n:06}")).collect();
    let mut ring = Ring::new("load.test", &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, users.iter().map(|u| format!("{u},secret\n")).collect::<String>()).unwrap();
    ring.add("alice", &["--phone-auth", "none", "--phones", &accounts]);
    ring.add("bob", &[]);
    let (dir, alice, bob) = (ring.dir(), &ring.peers[0], &ring.peers[1]);
    let csv = ring.file("users.csv");
    fs::write(&csv, format!("SEQUENTIAL\n{}", users.iter().map(|u| format!("{u};\n")).collect::<String>())).unwrap();

    let answers_at = free_ports(1);
    let uas_at = format!("127.0.0.1:{answers_at}");
    let mut uas = scenario(dir, "uas", "");
    uas.args(["-p", &answers_at.to_string(), "-d", "20"]);
    let mut uas = Process::start("sipp-uas", &mut uas, dir);
    eventually("the answering sipp listens", || {
        assert!(uas.ended().is_none(), "sipp ended: {}", uas.stderr());
        if UdpSocket::bind(("127.0.0.1", answers_at)).is_err() { Ok(()) } else { Err("port free".into()) }
    });

    let mut register = scenario(dir, "register", &alice.sip.to_string());
    register.args(["-inf", &csv, "-key", "uas", &uas_at, "-m", &users.len().to_string(), "-r", "10"]);
    let outcome = run("sipp-register", &mut register, dir, DEADLINE);
    assert!(outcome.ok(), "{}", explain(dir, &outcome));
    // The registrations are in the overlay: the other peer finds them.
    users.iter().for_each(|user| drop(bob.lookup_until_found(user)));

    let calls = (seconds * 100).to_string();
    let mut uac = scenario(dir, "uac", &alice.sip.to_string());
    uac.args(["-inf", &csv, "-m", &calls, "-r", "100", "-l", "1000", "-d", "20", "-recv_timeout", "30000"]);
    let outcome = run("sipp-calls", &mut uac, dir, DEADLINE + DEADLINE);
    assert!(outcome.ok(), "{}", explain(dir, &outcome));
    // The proxy keeps nothing of it and serves on.
    assert_eq!(bob.lookup(&users[0])["found"], true);
}

/// A sipp on loopback with an ephemeral port unless `-p` follows.
fn sipp(dir: &Path, target: &str) -> Command {
    let mut command = Command::new("sipp");
    command.current_dir(dir).env("TERM", "dumb").args(Some(target).filter(|t| !t.is_empty()));
    command.args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-nostdin", "-trace_err", "-error_file"]);
    command.arg(dir.join("sipp.errors"));
    command
}

/// A sipp with one of the scenarios of `sip-tests/bench`.
fn scenario(dir: &Path, name: &str, target: &str) -> Command {
    let mut command = sipp(dir, target);
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("sip-tests/bench");
    command.arg("-sf").arg(scenarios.join(format!("{name}.xml"))).args(["-deadcall_wait", "0"]);
    command
}

/// What sipp says of a run that failed.
fn explain(dir: &Path, outcome: &Outcome) -> String {
    let errors = fs::read_to_string(dir.join("sipp.errors")).unwrap_or_default();
    let screen: Vec<_> = outcome.stdout.lines().rev().take(40).collect();
    let screen: Vec<_> = screen.into_iter().rev().collect();
    let errors: Vec<_> = errors.lines().take(60).collect();
    format!("sipp ended with {:?}\n{}\n{}\n{}", outcome.code, screen.join("\n"), outcome.stderr, errors.join("\n"))
}
