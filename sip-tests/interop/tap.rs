//! A tap on every link of an office while people join, set a password, log in, write and call: what stands readable on the
//! wire. Only what standard phones say is clear by its nature, and no phone takes part here.

use crate::capture::Capture;
use crate::login::told;
use crate::program::{Peer, last_json};
use crate::tools::{eventually, free_ports, have, heavy, may_capture};
use serde_json::Value;
use std::fs;

const OFFICE: &str = "xylophonists.test";
const USERS: [&str; 4] = ["wolframite", "ytterbium", "vermiculite", "ulexite"];
const EXTENSION: &str = "8675309";
const PASSWORD: &str = "quixotic zeppelin mnemonics";
const TEXT: &str = "the jackdaws love my big sphinx";
const CONTACT: &str = "kaleidoscopist";

#[test]
fn no_name_number_or_text_is_readable_on_any_link() {
    let test = "no_name_number_or_text_is_readable_on_any_link";
    if !have(test, &["dumpcap"]) || !may_capture(test) {
        return;
    }
    let _one_at_a_time = heavy();
    let dir = tempfile::Builder::new().prefix("chordial-tap-").tempdir().unwrap();
    let dir = dir.path();
    let base = free_ports(2 * USERS.len() as u16 + 2);
    // Every link and every call's media; the peers of other tests speak on other ports.
    let filter = format!("tcp portrange {base}-{} or udp portrange 16384-32767", base + 2 * USERS.len() as u16 + 1);
    let capture = Capture::start(dir, &filter);

    let ok = |outcome: crate::process::Outcome| {
        assert!(outcome.ok(), "{outcome:?}");
        outcome
    };
    ok(told(dir, USERS[0], &["office", "create", OFFICE, "--name", USERS[0]], ""));
    let args = ["--auto-answer", "--audio-in", "tone"];
    let mut peers = vec![Peer::start_on(base, dir, USERS[0], &args)];
    let first = peers[0].overlay.to_string();
    for (n, user) in USERS.iter().enumerate().skip(1) {
        let extension = format!("{}{n}", &EXTENSION[..6]);
        let (invite, done) = peers[0].json(&["office", "invite", user, "--extension", &extension]);
        let code = invite["code"].as_str().filter(|_| done).unwrap_or_else(|| panic!("no code: {invite}"));
        ok(told(dir, user, &["join", code], ""));
        let args = [&["--bootstrap", &first][..], &args].concat();
        peers.push(Peer::start_on(base + 2 * n as u16, dir, user, &args));
    }
    for peer in &peers {
        USERS.iter().for_each(|user| drop(peer.lookup_until_found(user)));
    }
    let extension = format!("{}1", &EXTENSION[..6]);
    peers[0].call(&extension, &["--play", "tone", "--duration", "1"]).completed();
    ok(peers[2].run(&["contacts", "add", CONTACT, USERS[1]]));
    ok(peers[1].run(&["message", USERS[3], TEXT]));
    eventually("the password is set", || {
        let set = told(dir, USERS[1], &["password", "--password-stdin", "--json"], PASSWORD);
        if set.ok() && last_json(&set)["holders"].as_u64() >= Some(2) { Ok(()) } else { Err(format!("{set:?}")) }
    });
    let account = format!("{}@{OFFICE}", USERS[1]);
    ok(told(dir, "laptop", &["login", &account, "--via", &first, "--password-stdin"], PASSWORD));
    // Somebody is away, and what is written to them waits at others.
    peers[3].process.kill();
    ok(peers[2].run(&["message", USERS[3], TEXT]));
    peers[3].start_again(dir, &args);
    let arrived = |list: &Value| list.to_string().matches(TEXT).count() >= 2;
    eventually("both messages arrive", || {
        let (list, _) = peers[3].json(&["messages"]);
        if arrived(&list) { Ok(()) } else { Err(list.to_string()) }
    });

    let bytes = fs::read(capture.end()).unwrap().to_ascii_lowercase();
    assert!(bytes.len() > 100_000, "{} bytes only: was the right thing captured?", bytes.len());
    let number = &EXTENSION[..6];
    let own = [OFFICE, number, PASSWORD, TEXT, CONTACT, "xylophonists"];
    for word in USERS.into_iter().chain(own).chain(["sip/2.0", "dht-peerid", "rtpmap", "cseq"]) {
        let seen = bytes.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!seen, "{word:?} stands readable in the capture");
    }
}
