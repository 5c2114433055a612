//! Five processes form a ring; the one that holds a registration is killed; nobody notices.

use crate::program::Ring;
use crate::tools::{DEADLINE, eventually, heavy};
use sha1::{Digest, Sha1};
use std::time::{Duration, Instant};

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

#[test]
fn five_processes_lose_the_holder_and_still_find_and_call() {
    let mut ring = Ring::new("five.test", &["--open"]);
    for user in USERS {
        ring.add(user, &["--auto-answer", "--audio-in", "tone"]);
    }
    ring.settle();
    let mut hops = 0;
    for peer in &ring.peers {
        for user in USERS {
            let report = peer.lookup_until_found(user);
            assert_eq!(report["aor"], ring.aor(user));
            assert!(report["contacts"].as_array().is_some_and(|c| !c.is_empty()), "{report}");
            assert!(report["peers_asked"].is_array() && report["ms"].is_number(), "{report}");
            hops = hops.max(report["hops"].as_u64().unwrap());
        }
        let report = peer.lookup("nobody");
        assert_eq!(report["found"], false, "{report}");
    }
    assert!(hops >= 1, "no lookup left its peer");
    for peer in &ring.peers {
        let status = peer.status();
        let here = status["registrations"].as_array().cloned().unwrap_or_default();
        assert!(here.iter().any(|r| r["aor"] == ring.aor(&peer.name)), "{}: {status}", peer.name);
        assert_eq!(status["link_security"], "tls1.3");
    }

    // A callee whose registration lies with another peer than its own; the caller is a third.
    let ids: Vec<_> = ring.peers.iter().map(|p| p.peer_id()).collect();
    let holder_of = |user: &str| responsible(&ids, &ring.aor(user));
    let callee = (0..USERS.len()).find(|&at| holder_of(USERS[at]) != at);
    let callee = callee.expect("by chance every peer holds its own user (1 in 3125); run again");
    let holder = holder_of(USERS[callee]);
    let caller = (0..USERS.len()).find(|&at| at != callee && at != holder).unwrap();
    let held = ring.peers[holder].status()["overlay"]["records"].as_u64();
    assert!(held >= Some(1), "the responsible peer holds nothing: {held:?}");
    ring.peers[holder].process.kill();

    // At once, and for ten seconds, everybody that is left finds everybody that is left.
    let killed = Instant::now();
    let mut asked = 0;
    while asked == 0 || killed.elapsed() < Duration::from_secs(10) {
        for (at, peer) in ring.peers.iter().enumerate().filter(|(at, _)| *at != holder) {
            for (_, user) in USERS.iter().enumerate().filter(|(user, _)| *user != holder) {
                let report = peer.lookup(user);
                let since = killed.elapsed();
                assert_eq!(report["found"], true, "{since:?} after the kill {} misses {user}: {report}", USERS[at]);
                asked += 1;
            }
        }
    }
    let call = ring.peers[caller].call(USERS[callee], &["--play", "tone", "--duration", "1"]);
    let report = call.completed();
    assert!(report["received"].as_u64() > Some(0), "{report}");
    assert_eq!(report["security"], "dtls-srtp", "{report}");

    // Whose own peer is dead is not reached; the call ends by itself and says so.
    let (report, ok) = ring.peers[caller].call(USERS[holder], &[]).report();
    assert!(!ok && report["result"] != "completed" && report["result"].is_string(), "{report}");

    // The ring closes over the gap.
    ring.peers.remove(holder);
    ring.settle();
}

#[test]
fn calls_end_as_they_should() {
    let _one_at_a_time = heavy();
    let mut ring = Ring::new("ends.test", &["--open"]);
    ring.add("alice", &[]);
    ring.add("bob", &[]);
    let (alice, bob) = (&ring.peers[0], &ring.peers[1]);
    alice.lookup_until_found("bob");

    let (report, ok) = alice.call("nobody", &[]).report();
    assert!(!ok && report["result"] == "not-found" && report["status"] == 404, "{report}");

    // Declined by the one who is rung.
    let call = alice.call("bob", &[]);
    rings(bob);
    assert!(bob.run(&["hangup"]).ok());
    let (report, ok) = call.report();
    let result = report["result"].as_str().unwrap_or_default();
    assert!(!ok && ["rejected", "busy"].contains(&result), "{report}");

    // Answered by hand, ended by the one who was called.
    let call = alice.call("bob", &["--play", "tone"]);
    rings(bob);
    assert!(bob.run(&["answer"]).ok());
    eventually("voice arrives", || {
        let calls = &bob.status()["calls"];
        if calls[0]["talk_s"].as_f64() > Some(0.3) { Ok(()) } else { Err(calls.to_string()) }
    });
    assert!(bob.run(&["hangup"]).ok());
    let report = call.completed();
    assert!(report["talk_s"].as_f64() > Some(0.3) && report["received"].as_u64() > Some(0), "{report}");
    let (calls, _) = bob.json(&["calls"]);
    assert_eq!(calls["ended"].as_array().map(Vec::len), Some(2), "{calls}");

    // The command that placed the call goes away: so does the call.
    let call = alice.call("bob", &[]);
    rings(bob);
    drop(call);
    eventually("bob stops ringing", || {
        let calls = &bob.status()["calls"];
        if calls.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(calls.to_string()) }
    });
}

#[test]
fn a_peer_that_is_told_to_end_leaves_the_ring() {
    let mut ring = Ring::new("leave.test", &["--open"]);
    for user in ["alice", "bob", "carol"] {
        ring.add(user, &[]);
    }
    ring.settle();
    ring.peers[0].lookup_until_found("bob");
    let mut carol = ring.peers.pop().unwrap();
    let place = carol.peer_id();
    let status = carol.process.signal("TERM");
    assert!(status.is_some_and(|s| s.success()), "ended by {status:?}: {}", carol.process.stderr());
    assert!(!carol.data.join("control.sock").exists(), "the control socket is left behind");
    ring.settle();
    assert_eq!(ring.peers[0].lookup("bob")["found"], true);
    // Started again it has its old place, from what is on its disk.
    ring.add("carol", &[]);
    assert_eq!(ring.peers[2].peer_id(), place);
    ring.settle();
    ring.peers[0].lookup_until_found("carol");

    // The command does the same as the signal.
    let mut bob = ring.peers.remove(1);
    assert!(bob.run(&["stop"]).ok());
    let status = bob.process.wait(DEADLINE);
    assert!(status.is_some_and(|s| s.success()), "ended by {status:?}: {}", bob.process.stderr());
    ring.settle();
}

fn rings(peer: &crate::program::Peer) {
    eventually(&format!("{} is rung", peer.name), || {
        let calls = &peer.status()["calls"];
        if calls[0]["state"] == "incoming" { Ok(()) } else { Err(calls.to_string()) }
    });
}

/// Which of `ids` is the first at or after SHA-1 of `aor` on the ring.
fn responsible(ids: &[String], aor: &str) -> usize {
    let key: String = Sha1::digest(aor.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let mut order: Vec<_> = (0..ids.len()).collect();
    order.sort_by_key(|&at| (ids[at] < key, &ids[at]));
    order[0]
}
