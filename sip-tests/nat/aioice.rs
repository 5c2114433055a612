//! Our ICE agent and the Python one that others wrote (`aioice`), over loopback, each in both roles.

use crate::tools::{have, skip};
use crate::webrtc_ice::{OURS, THEIRS, ours};
use chordial::core::Rng;
use chordial::io::media::clock;
use chordial::nat::ice::{Agent, Clocks, Gatherer};
use chordial::sdp::ice::{Credentials, Ice};
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The interpreter that has it: the distribution's, where another one comes first in PATH.
fn python() -> Option<&'static str> {
    let has_it = |python: &&str| {
        let asked = Command::new(python).args(["-c", "import aioice"]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has_it)
}

fn is_there(test: &str) -> bool {
    have(test, &["python3"]) && (python().is_some() || skip(test, "no aioice; install: apt-get install python3-aioice"))
}

fn meet(test: &str, controlling: bool) {
    if !is_there(test) {
        return;
    }
    let word = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let mut theirs = Command::new(python().expect("asked for before"))
        .arg("sip-tests/nat/aioice_end.py")
        .args([if controlling { "controlled" } else { "controlling" }, &word(THEIRS), &word(OURS)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(theirs.stdout.take().unwrap()).lines();
    let lines: Vec<_> = told.by_ref().map(|line| line.unwrap()).take_while(|line| !line.is_empty()).collect();
    let text: String = lines.iter().map(|line| format!("a={line}\r\n")).collect();
    let described = Ice::parse_fragment(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut rng = Rng::from_seed(u64::from(controlling));
    let mut gatherer = Gatherer::default();
    gatherer.add_socket(clock::now(), socket.local_addr().unwrap(), &[], &mut rng);
    // Of no use to it, and passed over.
    gatherer.add_tcp("127.0.0.1:4001".parse().unwrap());
    let credentials = Credentials::draw(&mut rng);
    let clocks = Clocks { now: clock::now(), system: Instant::now() };
    let mut agent = Agent::new(clocks, clock::now(), &credentials, controlling, rng.next_u64());
    gatherer.found().iter().for_each(|local| agent.add_local(clock::now(), local));
    let candidates: String = gatherer.candidates().iter().map(|c| format!("candidate:{c}\n")).collect();
    let Credentials { ufrag, pwd } = &credentials;
    write!(theirs.stdin.take().unwrap(), "ice-ufrag:{ufrag}\nice-pwd:{}\n{candidates}\n", pwd.reveal()).unwrap();
    agent.set_remote(clock::now(), &described);
    let pair = ours(&socket, &mut agent);
    assert_eq!((pair.local, pair.remote), (socket.local_addr().unwrap(), described.candidates[0].addr));
    // What we said last may have been early.
    for _ in 0..10 {
        socket.send_to(OURS, pair.remote).unwrap();
    }
    assert_eq!(told.next().map(|line| line.unwrap()).as_deref(), Some("heard"));
    assert!(theirs.wait().unwrap().success());
}

#[test]
fn we_control_aioice() {
    meet("we_control_aioice", true);
}

#[test]
fn aioice_controls_us() {
    meet("aioice_controls_us", false);
}
