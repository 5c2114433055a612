//! Peers with accounts at a provider that others wrote: a Kamailio with usrloc, digest, Path, GRUU and Service-Route, that is stopped and
//! started again meanwhile.

use crate::process::Process;
use crate::program::{Peer, Ring};
use crate::tools::{eventually, free_ports, have, heavy};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

/// A running Kamailio, asked to end: its children would outlive a kill.
struct Provider(Process);

impl Drop for Provider {
    fn drop(&mut self) {
        self.0.signal("TERM");
        self.0.wait(std::time::Duration::from_secs(10));
    }
}

fn provider(dir: &Path, at: SocketAddr) -> Provider {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("sip-tests/interop/scenarios/provider.cfg");
    let mut command = Command::new("kamailio");
    command.arg("-f").arg(config).args(["-DD", "-E", "-n", "1", "-m", "32", "-M", "4"]);
    command.args(["-A", &format!("LISTENUDP=udp:{at}"), "-A", &format!("LISTENTCP=tcp:{at}")]);
    command.arg("-Y").arg(dir).arg("-w").arg(dir).arg("-P").arg(dir.join("kamailio.pid"));
    let mut process = Process::start("provider", &mut command, dir);
    eventually("kamailio listens", || {
        assert!(process.ended().is_none(), "kamailio ended: {}", process.stderr());
        if UdpSocket::bind(at).is_err() { Ok(()) } else { Err(process.stderr()) }
    });
    Provider(process)
}

/// The configuration of one account there.
fn account(ring: &Ring, user: &str, at: SocketAddr, transport: &str) -> String {
    let (file, secret) = (ring.file(&format!("{user}.toml")), ring.file("secret"));
    std::fs::write(&secret, "s3cret\n").unwrap();
    let text = format!(
        "[[account]]\nname = \"work\"\naor = \"sip:{user}@provider.test\"\nregistrar = \"{at}\"\ntransport = \"{transport}\"\n\
         password_file = \"{secret}\"\nexpires = 30\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn accounts(peer: &Peer, state: &str) -> Value {
    eventually(&format!("the account of {} is {state}", peer.name), || {
        let (answer, ok) = peer.json(&["accounts"]);
        let account = answer["accounts"][0].clone();
        if ok && account["state"] == state { Ok(account) } else { Err(answer.to_string()) }
    })
}

#[test]
fn two_peers_at_a_provider_that_stops_and_returns() {
    if !have("two_peers_at_a_provider_that_stops_and_returns", &["kamailio"]) {
        return;
    }
    let _one_at_a_time = heavy();
    let mut ring = Ring::new("provided.test", &["--open"]);
    let at = SocketAddr::from(([127, 0, 0, 1], free_ports(1)));
    let dir = ring.dir().to_owned();
    let running = provider(&dir, at);
    for (user, transport) in [("alice", "udp"), ("bob", "tcp")] {
        let config = account(&ring, user, at, transport);
        ring.add(user, &["--config", &config, "--audio-in", "tone", "--auto-answer"]);
    }
    let (alice, bob) = (&ring.peers[0], &ring.peers[1]);
    for peer in [alice, bob] {
        let account = accounts(peer, "registered");
        assert!(account["gruu"].as_str().is_some_and(|g| g.contains("gr=urn:uuid:")), "{account}");
    }

    // Through the provider, and its word on who calls.
    let call = alice.call("bob", &["--account", "work", "--duration", "2"]);
    eventually("bob talks by his account", || {
        let status = bob.status();
        let call = status["calls"][0].clone();
        let right = call["state"] == "answered" && call["account"] == "work";
        if right && call["with"] == "sip:alice@provider.test" { Ok(()) } else { Err(status["calls"].to_string()) }
    });
    let report = call.completed();
    assert!(report["received"].as_u64() > Some(0), "voice was heard: {report}");
    // The other way, and the callee ends it.
    let call = bob.call("sip:alice@provider.test", &["--account", "work"]);
    eventually("alice talks", || {
        let status = alice.status();
        if status["calls"][0]["state"] == "answered" { Ok(()) } else { Err(status["calls"].to_string()) }
    });
    assert!(alice.run(&["hangup"]).ok());
    call.completed();

    // Stopped: the overlay needs no provider.
    drop(running);
    accounts(bob, "failed");
    let (answer, _) = bob.json(&["accounts"]);
    let account = &answer["accounts"][0];
    assert!(account["error"].as_str().is_some_and(|e| e.contains("127.0.0.1")), "{account}");
    assert!(account["next"].as_str().is_some_and(|n| !n.is_empty()), "{account}");
    alice.lookup_until_found("bob");
    alice.call("bob", &["--duration", "1"]).completed();

    // And back: both register by themselves, and call through it again.
    let _running = provider(&dir, at);
    accounts(bob, "registered");
    eventually("alice is registered anew", || {
        let call = bob.call("sip:alice@provider.test", &["--account", "work", "--duration", "1"]);
        let (report, ok) = call.report();
        if ok && report["result"] == "completed" { Ok(()) } else { Err(report.to_string()) }
    });
}
