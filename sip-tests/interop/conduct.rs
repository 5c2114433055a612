//! How a call is conducted with phones that others wrote: hold, transfer at all three ends, session timers, PRACK, UPDATE, INFO,
//! redirection; with SIPp's scenarios in `scenarios/` and with baresip.

use crate::baresip::{Codec, Phone, Transport};
use crate::phones::speech;
use crate::process::{Process, run};
use crate::program::{Peer, Ring};
use crate::tools::{DEADLINE, eventually, free_ports, have, heavy};
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

/// A sipp that runs one of `scenarios/` once.
fn sipp(dir: &Path, scenario: &str, port: u16) -> Command {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("sip-tests/interop/scenarios");
    let mut command = Command::new("sipp");
    command.current_dir(dir).env("TERM", "dumb").arg("-sf").arg(scenarios.join(format!("{scenario}.xml")));
    command.args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-nostdin", "-m", "1", "-p", &port.to_string()]);
    command.args(["-trace_err", "-error_file"]).arg(dir.join(format!("{scenario}.errors")));
    command.args(["-timeout", "100s", "-timeout_error"]);
    command
}

fn errors(dir: &Path, scenario: &str) -> String {
    fs::read_to_string(dir.join(format!("{scenario}.errors"))).unwrap_or_default()
}

/// A sipp that waits for a call.
fn waiting(dir: &Path, scenario: &str, args: &[&str]) -> (Process, u16) {
    let port = free_ports(2);
    let mut process = Process::start(scenario, sipp(dir, scenario, port).args(args), dir);
    eventually("sipp listens", || {
        assert!(process.ended().is_none(), "sipp ended: {}", process.stderr());
        if UdpSocket::bind(("127.0.0.1", port)).is_err() { Ok(()) } else { Err("port free".into()) }
    });
    (process, port)
}

fn done(mut process: Process, dir: &Path, scenario: &str) {
    let status = process.wait(DEADLINE).unwrap_or_else(|| panic!("sipp does not end: {}", process.stdout()));
    assert!(status.success(), "{scenario}: {}\n{}", errors(dir, scenario), process.stdout());
}

/// The calls of a peer once they are as they should be.
fn calls(peer: &Peer, what: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, || {
        let status = peer.status();
        let calls = status["calls"].as_array().cloned().unwrap_or_default();
        if fits(&calls) { Ok(calls) } else { Err(status["calls"].to_string()) }
    })
}

fn done_command(peer: &Peer, args: &[&str]) {
    let (answer, ok) = peer.json(args);
    assert!(ok && answer["done"].is_string(), "{args:?}: {answer}");
}

#[test]
fn a_strict_phone_calls_with_session_timer_prack_update_and_info() {
    if !have("a_strict_phone_calls_with_session_timer_prack_update_and_info", &["sipp"]) {
        return;
    }
    let mut ring = Ring::new("strict.test", &["--open", "--strangers", "anyone"]);
    ring.add("alice", &["--audio-in", "tone"]);
    let (dir, alice) = (ring.dir(), &ring.peers[0]);
    let port = free_ports(2);
    let mut command = sipp(dir, "phone", port);
    let process = Process::start("phone", command.args(["-s", "alice", &alice.sip.to_string()]), dir);
    calls(alice, "it rings", |c| c.first().is_some_and(|c| c["state"] == "incoming"));
    done_command(alice, &["answer"]);
    calls(alice, "on hold by the phone", |c| {
        c.first().is_some_and(|c| c["state"] == "held" && c["held_by"] == "there")
    });
    // The phone waits for the refresh, half of its 90 seconds.
    done(process, dir, "phone");
    calls(alice, "the end of the call", <[Value]>::is_empty);
}

#[test]
fn a_phone_that_answers_reliably_is_redirected_to() {
    if !have("a_phone_that_answers_reliably_is_redirected_to", &["sipp"]) {
        return;
    }
    let mut ring = Ring::new("moved.test", &["--open"]);
    ring.add("alice", &["--audio-in", "tone"]);
    let (dir, alice) = (ring.dir(), &ring.peers[0]);
    let (callee, at) = waiting(dir, "callee", &[]);
    let (moved, from) = waiting(dir, "moved", &["-key", "other", &format!("127.0.0.1:{at}")]);
    let call = alice.call(&format!("sip:joe@127.0.0.1:{from}"), &["--duration", "1"]);
    let report = call.completed();
    assert_eq!(report["status"], 200, "{report}");
    done(moved, dir, "moved");
    done(callee, dir, "callee");
}

#[test]
fn a_phone_is_held_resumed_and_transferred() {
    if !have("a_phone_is_held_resumed_and_transferred", &["sipp"]) {
        return;
    }
    let mut ring = Ring::new("held.test", &["--open"]);
    ring.add("alice", &["--audio-in", "tone"]);
    let (dir, alice) = (ring.dir(), &ring.peers[0]);
    let (phone, at) = waiting(dir, "held", &[]);
    let call = alice.call(&format!("sip:joe@127.0.0.1:{at}"), &[]);
    calls(alice, "they talk", |c| c.first().is_some_and(|c| c["state"] == "answered"));
    done_command(alice, &["hold"]);
    assert_eq!(alice.status()["calls"][0]["held_by"], "here");
    done_command(alice, &["resume"]);
    assert_eq!(alice.status()["calls"][0]["state"], "answered");
    done_command(alice, &["mute"]);
    assert_eq!(alice.status()["calls"][0]["muted"], true);
    done_command(alice, &["transfer", "sip:carol@127.0.0.1:9"]);
    call.completed();
    done(phone, dir, "held");
    assert!(!alice.run(&["hold"]).ok(), "there is nothing to hold any more");
}

/// alice with baresip's account, bob and carol.
fn office(overlay: &str) -> Ring {
    let mut ring = Ring::new(overlay, &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, "desk,s3cret\n").unwrap();
    ring.add("alice", &["--phones", &accounts, "--audio-in", "tone"]);
    for user in ["bob", "carol"] {
        ring.add(user, &["--auto-answer", "--audio-in", "tone"]);
    }
    ring
}

fn desk(ring: &Ring) -> Phone {
    let sip = ring.peers[0].sip;
    let phone =
        Phone::start(ring.dir(), ("desk", "s3cret"), &ring.overlay, sip, (Codec::Pcmu, Transport::Udp), &speech());
    ring.peers[1].lookup_until_found("desk");
    ring.peers[0].lookup_until_found("carol");
    ring.peers[1].lookup_until_found("carol");
    phone
}

fn with(peer: &Peer, other: &str) -> Value {
    let found = |c: &[Value]| {
        c.len() == 1 && c[0]["with"].as_str().is_some_and(|w| w.contains(other)) && c[0]["state"] == "answered"
    };
    calls(peer, &format!("{} talks with {other} alone", peer.name), found)[0].clone()
}

#[test]
fn baresip_transfers_a_member_and_is_transferred_by_one() {
    if !have("baresip_transfers_a_member_and_is_transferred_by_one", &["baresip"]) {
        return;
    }
    let _one_at_a_time = heavy();
    let ring = office("transfer.test");
    let mut phone = desk(&ring);
    let (alice, bob, carol) = (&ring.peers[0], &ring.peers[1], &ring.peers[2]);

    // The phone transfers bob, through its proxy: REFER and NOTIFY within the dialog.
    phone.command("dial", &ring.aor("bob"));
    phone.wait_for("CALL_ESTABLISHED");
    with(bob, "desk");
    phone.command("transfer", &ring.aor("carol"));
    phone.wait_for("CALL_CLOSED");
    with(bob, "carol");
    with(carol, "bob");
    done_command(bob, &["hangup"]);
    calls(carol, "the end of the new call", <[Value]>::is_empty);

    // alice holds the phone, takes it back, and transfers it to carol: it calls her itself.
    let call = alice.call("desk", &[]);
    phone.wait_for("CALL_ESTABLISHED");
    with(alice, "desk");
    done_command(alice, &["hold"]);
    done_command(alice, &["resume"]);
    done_command(alice, &["transfer", "carol"]);
    call.completed();
    with(carol, "desk");
    assert_eq!(alice.status()["calls"].as_array().map(Vec::len), Some(0));
    phone.command("hangup", "");
    calls(carol, "the end of the transferred call", <[Value]>::is_empty);
}

#[test]
fn members_of_three_machines_transfer_each_other() {
    let _one_at_a_time = heavy();
    let ring = office("three.test");
    let (alice, bob, carol) = (&ring.peers[0], &ring.peers[1], &ring.peers[2]);
    alice.lookup_until_found("bob");
    alice.lookup_until_found("carol");
    bob.lookup_until_found("carol");
    let first = alice.call("bob", &[]);
    with(alice, "bob");
    done_command(alice, &["hold"]);
    let number = |peer: &Peer, other: &str| {
        let status = peer.status();
        let all = status["calls"].as_array().cloned().unwrap_or_default();
        all.iter().find(|c| c["with"].as_str().is_some_and(|w| w.contains(other)))?["call"].as_u64()
    };
    let held = number(alice, "bob").unwrap().to_string();
    let second = alice.call("carol", &[]);
    calls(alice, "both calls", |c| c.len() == 2 && c.iter().any(|c| c["state"] == "answered"));
    let other = number(alice, "carol").unwrap().to_string();
    done_command(alice, &["transfer", &held, "--attended", &other]);
    first.completed();
    second.completed();
    let call = with(bob, "carol");
    assert_eq!(call["security"], "dtls-srtp", "{call}");
    with(carol, "bob");
    done_command(bob, &["hangup"]);
}

#[test]
fn a_command_that_could_not_be_done_says_so() {
    let mut ring = Ring::new("none.test", &["--open"]);
    ring.add("alice", &[]);
    for args in [&["hold"][..], &["resume"], &["mute"], &["transfer", "bob"], &["dtmf", "1"]] {
        let outcome = run("none", &mut ring.peers[0].command(args), ring.dir(), DEADLINE);
        assert!(!outcome.ok() && outcome.stderr.contains("chordial calls"), "{args:?}: {outcome:?}");
    }
}
