//! Ordinary nodes as processes: three that are the ring, two that hang on it over real TLS links; calls both ways, and one more after
//! the primary of one of them was killed in the middle of a call.

use crate::program::{Peer, Ring};
use crate::tools::{eventually, heavy};
use serde_json::Value;

/// Waits until the node hangs on two supernodes; their peer-IDs.
fn hangs(peer: &Peer) -> [String; 2] {
    let pair = |status: &Value| {
        let id = |name: &str| status["tier"][name]["peer_id"].as_str().map(str::to_owned);
        Some([id("primary")?, id("backup")?])
    };
    eventually("it hangs on two supernodes", || {
        let status = peer.status();
        if status["role"] == "ordinary" && pair(&status).is_some() { Ok(()) } else { Err(status.to_string()) }
    });
    pair(&peer.status()).expect("it does")
}

#[test]
fn ordinary_processes_call_and_are_called_and_outlive_their_primary() {
    let _one_at_a_time = heavy();
    let mut ring = Ring::new("tiers.test", &["--open"]);
    for user in ["anna", "ben", "cleo"] {
        ring.add(user, &["--auto-answer", "--audio-in", "tone"]);
    }
    ring.settle();
    let answering = ["--role", "ordinary", "--auto-answer", "--audio-in", "tone"];
    let (dora, emil) = (ring.add("dora", &answering), ring.add("emil", &answering));
    let before = hangs(&ring.peers[dora]);
    hangs(&ring.peers[emil]);
    let attached: usize =
        ring.peers[..3].iter().map(|p| p.status()["tier"]["attached"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(attached, 4);
    for (from, to) in [(dora, "emil"), (emil, "dora"), (1, "dora"), (dora, "cleo")] {
        ring.peers[from].lookup_until_found(to);
        let report = ring.peers[from].call(to, &["--play", "tone", "--duration", "1"]).completed();
        assert!(report["received"].as_u64() > Some(0), "{report}");
    }
    // The supernode dies while they talk; the call ends as if nothing had been.
    let call = ring.peers[dora].call("emil", &["--play", "tone", "--duration", "6"]);
    eventually("they talk", || {
        let calls = ring.peers[emil].status()["calls"].clone();
        if calls[0]["state"] == "answered" { Ok(()) } else { Err(calls.to_string()) }
    });
    let primary = ring.peers[..3].iter().position(|p| p.peer_id() == before[0]).expect("one of the three");
    ring.peers[primary].process.kill();
    eventually("another primary", || {
        let status = ring.peers[dora].status();
        let now = status["tier"]["primary"]["peer_id"].as_str().unwrap_or_default().to_owned();
        if now.is_empty() || now == before[0] { Err(status.to_string()) } else { Ok(()) }
    });
    call.completed();
    eventually("emil's end of the call", || {
        let calls = ring.peers[emil].status()["calls"].clone();
        if calls.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(calls.to_string()) }
    });
    ring.peers[dora].lookup_until_found("emil");
    ring.peers[dora].call("emil", &["--play", "tone", "--duration", "1"]).completed();
    ring.peers[emil].call("dora", &["--play", "tone", "--duration", "1"]).completed();
}
