//! A relayed call whose relay is killed while both talk: it goes on by the other one. The silence that this makes in either recording,
//! and what the second way costs, are printed; no time is asserted, since the machine may be busy with anything.

use crate::calls::{Lab, Peer, loudness, tail};
use crate::tools::eventually;
use chordial::io::audio::Source;
use chordial::io::audio::wav::WavReader;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The longest stretch of silence between the first and the last sound of a recording, milliseconds.
fn silence(path: &Path) -> f64 {
    let Ok(mut reader) = WavReader::open(path) else { return f64::INFINITY };
    let rate = reader.rate() as usize;
    let samples = reader.read_all().unwrap_or_default();
    let loud: Vec<_> = samples
        .chunks(rate / 200)
        .map(|piece| {
            let power: f64 = piece.iter().map(|s| f64::from(*s).powi(2)).sum();
            (power / piece.len() as f64).sqrt() > 300.0
        })
        .collect();
    let heard: Vec<_> = loud.iter().enumerate().filter(|(_, loud)| **loud).map(|(n, _)| n).collect();
    heard.windows(2).map(|two| (two[1] - two[0] - 1) as f64 * 5.0).fold(0.0, f64::max)
}

/// The longest time between two packets of voice that came to a host, by what was captured there, milliseconds; none without capture.
fn drought(capture: &Path, host: [u8; 4]) -> Option<f64> {
    let bytes = std::fs::read(capture).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    // Ethernet, or Linux's "any" in its two versions.
    let link = match word(20)? {
        1 => 14,
        113 => 16,
        276 => 20,
        _ => return None,
    };
    let (mut at, mut times) = (24, Vec::new());
    while let (Some(seconds), Some(micros), Some(length)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(packet) = bytes.get(at + 16..at + 16 + length as usize) else { break };
        at += 16 + length as usize;
        let Some(ip) = packet.get(link..).filter(|ip| ip.len() > 28 && ip[0] == 0x45 && ip[9] == 17) else { continue };
        let data = &ip[28..];
        // By a relay's channel, or plain.
        let rtp = if data[0] & 0xc0 == 0x40 { data.get(4..).unwrap_or_default() } else { data };
        let voice = rtp.len() > 12 && rtp[0] & 0xc0 == 0x80 && !(64..96).contains(&(rtp[1] & 0x7f));
        if voice && ip[16..20] == host {
            times.push(f64::from(seconds) * 1e3 + f64::from(micros) / 1e3);
        }
    }
    times.windows(2).map(|two| two[1] - two[0]).reduce(f64::max)
}

fn paths(peer: &Peer) -> Result<Vec<Value>, String> {
    let report = peer.json(&["calls"])?;
    let paths = report["calls"][0]["paths"].as_array().cloned().unwrap_or_default();
    if paths.len() == 2 { Ok(paths) } else { Err(report.to_string()) }
}

#[test]
fn a_call_outlives_the_relay_that_carries_it() {
    let test = "a_call_outlives_the_relay_that_carries_it";
    let Some(lab) = Lab::new(test, "r1=host,ips=2 r2=host a=sym b=sym") else { return };
    let public = format!("{}:5061", lab.say(&["addr", "r1", "v4"]));
    let first = lab.start("r1", "r1", &["--role", "supernode"]);
    let second = lab.start("r2", "r2", &["--role", "supernode", "--bootstrap", &public]);
    let mut relays = vec![(lab.say(&["addr", "r1", "v4"]), first), (lab.say(&["addr", "r2", "v4"]), second)];
    let member = ["--role", "ordinary", "--bootstrap", &public];
    let (heard, said) = (lab.path("bob.wav"), lab.path("alice.wav"));
    let out = format!("wav:{heard}");
    let bob = lab.start("b", "bob", &[&member[..], &["--audio-out", &out]].concat());
    let alice = lab.start("a", "alice", &member);
    alice.finds("bob");
    bob.finds("alice");
    for peer in [&alice, &bob] {
        eventually("two relays that grant", || {
            let report = peer.json(&["relays"])?;
            let found = report["relays"].as_array().map_or(0, Vec::len);
            if found >= 2 { Ok(()) } else { Err(report.to_string()) }
        });
    }
    let captures = ["a", "b"].map(|host| lab.path(&format!("{host}.pcap")));
    for (host, capture) in ["a", "b"].iter().zip(&captures) {
        lab.say(&["dump", host, capture]);
    }
    let report = thread::scope(|scope| {
        let call =
            scope.spawn(|| alice.json(&["call", "bob", "--play", "tone", "--record", &said, "--duration", "40"]));
        let both = |peer: &Peer| eventually("two ways", || paths(peer).map_err(|e| format!("{e}\n{}", tail(peer))));
        let (first, _) = (both(&alice), both(&bob));
        // Some seconds of voice before.
        thread::sleep(Duration::from_secs(3));
        let way = first.iter().find(|p| p["active"] == true).and_then(|p| p["path"].as_str()).unwrap_or_default();
        let address = way.trim_start_matches("relay ").to_owned();
        let dead = relays.iter().position(|(addr, _)| *addr == address);
        let (_, relay) = relays.remove(dead.unwrap_or_else(|| panic!("no relay of ours carries the call: {first:?}")));
        // SIGKILL.
        drop(relay);
        eventually("voice on the other relay", || {
            let after = paths(&alice)?;
            let lives = |p: &&Value| p["active"] == true && p["path"] != way;
            if after.iter().any(|p| lives(&p)) { Ok(()) } else { Err(format!("{after:?}")) }
        });
        call.join().expect("the call").expect("its report")
    });
    assert_eq!(report["result"], "completed", "{report}\n{}\n{}", tail(&alice), tail(&bob));
    for ((host, who, file), capture) in [("a", "alice", &said), ("b", "bob", &heard)].into_iter().zip(&captures) {
        lab.say(&["undump", host]);
        let file = Path::new(file);
        assert!(loudness(file) > 300.0, "{who} hears nothing in the end: {report}");
        let address: Ipv4Addr = lab.say(&["addr", host, "v4"]).parse().unwrap();
        let without =
            drought(Path::new(capture), address.octets()).map_or("(no capture)".into(), |ms| format!("{ms:.0} ms"));
        println!("relay killed: {who} gets no packet for {without} and hears silence for {:.0} ms", silence(file));
    }
}
