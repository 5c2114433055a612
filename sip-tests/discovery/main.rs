//! Peers that find each other on one local network without being told of each other: real `chordial` processes, each in a
//! network namespace of its own, joined by a bridge. The network has no router, so nothing leaves it.
//!
//! Here are also: machines that join by digits, password or link (`first`), what happens when mDNS is filtered, when a machine's address changes, when a name's address does, and when a router
//! opens a port.
//!
//! Needs root and iproute2, some of it nftables and miniupnpd (Debian: miniupnpd-nftables). Where they are missing the test says `SKIPPED` on standard error and returns; with
//! `CHORDIAL_INTEROP=required` in the environment that is a failure instead. What was made is removed again, also when
//! a test fails. Nothing here asserts a time: conditions are waited for with generous deadlines.
// Tests stand outside the program: they read clocks and wait.
#![allow(clippy::disallowed_methods)]

mod first;
mod lan;
mod moving;
mod multicast;
mod names;
mod portmap;
#[path = "../interop/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../interop/tools.rs"]
#[allow(dead_code)]
mod tools;

use lan::{Lan, Machine, one_ring};
use serde_json::Value;

const OPEN: &[&str] = &["--open", "--overlay", "lan.test", "--auto-answer", "--audio-in", "tone"];

pub fn open<'a>(name: &'a str, overlay: &'a str) -> Vec<&'a str> {
    let mut args = OPEN.to_vec();
    args[2] = overlay;
    args.extend(["--name", name]);
    args
}

pub fn alone(machine: &Machine) -> bool {
    machine.status()["overlay"]["successors"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn peers_started_at_once_end_in_one_ring() {
    let Some(lan) = Lan::new("peers_started_at_once_end_in_one_ring", 4) else { return };
    let users = ["alice", "bob", "carol"];
    let mut peers: Vec<_> =
        users.iter().enumerate().map(|(n, user)| lan.start(n, user, &open(user, "lan.test"))).collect();
    let stranger = lan.start(3, "mallory", &open("mallory", "other.test"));
    one_ring(&peers);

    for target in users {
        peers.iter().for_each(|peer| peer.finds(target));
    }
    let report = peers[0].call("bob");
    assert!(report["received"].as_u64() > Some(0), "{report}");
    // Another overlay's peer on the same network is left alone, and leaves them alone.
    assert!(alone(&stranger), "{}", stranger.status());
    assert_eq!(peers[0].json(&["lookup", "mallory"])["found"], false);

    // One dies; the others go on. It comes back at the same place with nothing but its data directory.
    peers.remove(2);
    one_ring(&peers);
    peers[0].finds("bob");
    peers[1].finds("alice");
    let report = peers[1].call("alice");
    assert!(report["received"].as_u64() > Some(0), "{report}");
    peers.push(lan.start(2, "carol", &open("carol", "lan.test")));
    one_ring(&peers);
    peers[0].finds("carol");
}

#[test]
fn a_peer_that_is_alone_is_found_by_those_that_come_later() {
    let Some(lan) = Lan::new("a_peer_that_is_alone_is_found_by_those_that_come_later", 4) else { return };
    let mut peers = vec![lan.start(0, "alice", &open("alice", "lan.test"))];
    one_ring(&peers);
    peers[0].finds("alice");
    // One that does not want to be found, and looks for nobody.
    let mut args = open("dave", "lan.test");
    args.extend(["--discover", "none"]);
    let hidden = lan.start(3, "dave", &args);
    for (n, user) in [(1, "bob"), (2, "carol")] {
        peers.push(lan.start(n, user, &open(user, "lan.test")));
        one_ring(&peers);
        // What was written while alone is found from everywhere.
        peers.iter().for_each(|peer| peer.finds("alice"));
        peers[0].finds(user);
    }
    assert!(alone(&hidden), "{}", hidden.status());
    let found = |peer: &Machine| peer.process.stdout().contains("on the local network, joined its ring");
    assert!(peers.iter().any(found), "nobody says how it joined");
}

#[test]
fn an_office_finds_its_founder_at_another_port() {
    let Some(lan) = Lan::new("an_office_finds_its_founder_at_another_port", 2) else { return };
    let (founder, joiner) = ("founder", "joiner");
    lan.run(0, founder, &["office", "create", "hq.test", "--name", "anna"]);
    let mut anna = lan.start(0, founder, &[]);
    one_ring(std::slice::from_ref(&anna));
    let code = anna.json(&["office", "invite", "ben"])["code"].as_str().map(str::to_owned).expect("a code");
    lan.run(1, joiner, &["join", &code]);
    let before = anna.status()["listen"]["overlay"].clone();
    assert!(anna.process.signal("TERM").is_some_and(|s| s.success()));
    drop(anna);
    // The joiner knows the address in the code, where nobody is any more.
    let anna = lan.start(0, founder, &["--overlay-listen", "0.0.0.0:5075"]);
    let ben = lan.start(1, joiner, &[]);
    let office = [anna, ben];
    one_ring(&office);
    office[0].finds("ben");
    office[1].finds("anna");
    assert_ne!(office[0].status()["listen"]["overlay"], before);
    assert_eq!(office[0].status()["overlay"]["name"], Value::from("hq.test"));
}
