//! An unmodified phone, baresip, registers with one peer by digest and talks with the user of another peer, both ways,
//! with real speech.

use crate::audio::{Sound, assert_heard};
use crate::baresip::{Codec, Phone, Transport};
use crate::program::Ring;
use crate::tools::{eventually, have, heavy};
use std::fs;
use std::path::Path;

/// The demo's speech, twice, so that it lasts longer than any call: baresip hangs up at its end.
pub fn speech() -> Sound {
    let once = Sound::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/speech.wav")).unwrap();
    Sound { rate: once.rate, samples: once.samples.repeat(2) }
}

#[test]
fn baresip_calls_and_is_called_with_opus_over_udp() {
    if have("baresip_calls_and_is_called_with_opus_over_udp", &["baresip"]) {
        talk(Codec::Opus, "opus", |_| Transport::Udp);
    }
}

#[test]
fn baresip_calls_and_is_called_with_pcmu_over_tcp() {
    if have("baresip_calls_and_is_called_with_pcmu_over_tcp", &["baresip"]) {
        talk(Codec::Pcmu, "pcmu", |_| Transport::Tcp);
    }
}

#[test]
fn baresip_calls_and_is_called_over_tls_and_checks_the_certificate() {
    if have("baresip_calls_and_is_called_over_tls_and_checks_the_certificate", &["baresip"]) {
        talk(Codec::Pcmu, "pcmu", tls);
    }
}

#[test]
fn an_account_made_by_command_registers_and_a_wrong_password_does_not() {
    let mut ring = Ring::new("accounts.test", &["--open"]);
    let peer = ring.add("alice", &[]);
    let peer = &ring.peers[peer];
    let dir = ring.dir();
    fs::write(dir.join("secret"), "correct horse\n").unwrap();
    let mut add = std::process::Command::new("sh");
    add.arg("-c")
        .arg(r#""$0" phone add desk --label "front desk" --password-stdin --data "$1" <"$2""#)
        .arg(env!("CARGO_BIN_EXE_chordial"))
        .arg(&peer.data)
        .arg(dir.join("secret"));
    let outcome = crate::process::run("phone-add", &mut add, dir, crate::tools::DEADLINE);
    assert!(outcome.ok(), "{outcome:?}");
    let (list, _) = peer.json(&["phone", "list"]);
    assert!(list["phones"][0]["user"] == "desk" && list["phones"][0]["label"] == "front desk", "{list}");

    let mut client = crate::wire::Client::new(peer.sip);
    let refused = client.register("desk", &ring.overlay, Some("wrong"));
    assert!(refused == 401 || refused == 403, "a wrong password was answered {refused}");
    assert_eq!(client.register("desk", &ring.overlay, Some("correct horse")), 200);
    assert_eq!(client.register("nobody", &ring.overlay, Some("correct horse")) / 100, 4);
    let report = peer.lookup_until_found("desk");
    assert_eq!(report["aor"], ring.aor("desk"));

    assert!(peer.run(&["phone", "remove", "desk"]).ok());
    let refused = client.register("desk", &ring.overlay, Some("correct horse"));
    assert!(refused / 100 == 4, "a removed account was answered {refused}");
}

#[test]
fn phones_of_two_peers_hold_and_send_digits() {
    if !have("phones_of_two_peers_hold_and_send_digits", &["baresip"]) {
        return;
    }
    let _one_at_a_time = heavy();
    let said = speech();
    let mut ring = Ring::new("two.test", &["--open"]);
    for (user, phone) in [("alice", "desk"), ("bob", "shop")] {
        let accounts = ring.file(&format!("{phone}.csv"));
        fs::write(&accounts, format!("{phone},s3cret\n")).unwrap();
        ring.add(user, &["--phones", &accounts, "--auto-answer", "--audio-in", "tone"]);
    }
    let start = |peer: usize, phone: &str, transport| {
        let (dir, sip) = (ring.dir(), ring.peers[peer].sip);
        Phone::start(dir, (phone, "s3cret"), &ring.overlay, sip, (Codec::Pcmu, transport), &said)
    };
    let (mut desk, mut shop) = (start(0, "desk", Transport::Udp), start(1, "shop", Transport::Udp));
    let (alice, bob) = (&ring.peers[0], &ring.peers[1]);
    alice.lookup_until_found("shop");
    bob.lookup_until_found("desk");

    // Phone to phone through both peers; voice goes straight between them.
    desk.command("dial", &ring.aor("shop"));
    desk.wait_for("CALL_ESTABLISHED");
    shop.wait_for("CALL_ESTABLISHED");
    shop.wait_for("CALL_RTCP");
    shop.command("hangup", "");
    desk.wait_for("CALL_CLOSED");
    shop.wait_for("CALL_CLOSED");
    assert_heard("the phone that called", &said, &desk.heard(2.5));
    assert_heard("the phone that was called", &said, &shop.heard(2.5));

    // On hold and back, by re-INVITE, with the user of the other peer.
    desk.command("dial", &ring.aor("bob"));
    desk.wait_for("CALL_ESTABLISHED");
    let talked = |at_least: f64| {
        eventually("the call goes on", || {
            let status = bob.status();
            let talked = status["calls"][0]["talk_s"].as_f64();
            if talked >= Some(at_least) { Ok(talked.unwrap_or(0.0)) } else { Err(status.to_string()) }
        })
    };
    let at = talked(0.2);
    desk.command("hold", "");
    let at = talked(at + 0.5);
    desk.command("resume", "");
    talked(at + 0.5);
    desk.command("hangup", "");
    desk.wait_for("CALL_CLOSED");
    let ended = eventually("the call has ended at both ends", || {
        let (calls, _) = bob.json(&["calls"]);
        let ended = calls["ended"][0].clone();
        if ended.is_null() { Err(calls.to_string()) } else { Ok(ended) }
    });
    assert_eq!(ended["result"], "completed", "{ended}");

    // Digits (RFC 4733) from a peer to a phone.
    let call = bob.call("desk", &["--play", "null"]);
    desk.wait_for("CALL_ESTABLISHED");
    talked(0.2);
    assert!(bob.run(&["dtmf", "4#"]).ok());
    for digit in ["4", "#"] {
        let event = desk.wait_for("CALL_DTMF_START");
        assert_eq!(event["param"], digit, "{event}");
    }
    assert!(bob.run(&["hangup"]).ok());
    call.completed();
}

fn tls(certificate: &Path) -> Transport<'_> {
    Transport::Tls(certificate)
}

fn talk(codec: Codec, name: &str, transport: fn(&Path) -> Transport<'_>) {
    let _one_at_a_time = heavy();
    let said = speech();
    let mut ring = Ring::new(&format!("{name}.test"), &["--open"]);
    let accounts = ring.file("phones.csv");
    fs::write(&accounts, "desk,s3cret\n").unwrap();
    let speech_wav = ring.file("speech.wav");
    said.write(Path::new(&speech_wav), 1);
    let (to_bob, to_bob_later) = (ring.file("bob-answered.wav"), ring.file("bob-called.wav"));
    let (play, record) = (format!("wav:{speech_wav}"), format!("wav:{to_bob}"));

    ring.add("alice", &["--phones", &accounts]);
    let bob = ring.add("bob", &["--auto-answer", "--audio-in", &play, "--audio-out", &record]);
    let alice = &ring.peers[0];
    let certificate = alice.data.join("phones.pem");
    let transport = transport(&certificate);
    let at = if matches!(transport, Transport::Tls(_)) { alice.overlay } else { alice.sip };
    let mut phone = Phone::start(ring.dir(), ("desk", "s3cret"), &ring.overlay, at, (codec, transport), &said);
    let bob = &ring.peers[bob];
    bob.lookup_until_found("desk");
    ring.peers[0].lookup_until_found("bob");

    // The phone calls the other peer's user.
    phone.command("dial", &ring.aor("bob"));
    phone.wait_for("CALL_ESTABLISHED");
    let call = eventually("they talk", || {
        let status = bob.status();
        let call = &status["calls"][0];
        if call["talk_s"].as_f64() >= Some(SECONDS) { Ok(call.clone()) } else { Err(call.to_string()) }
    });
    assert_eq!(call["codec"].as_str().map(str::to_lowercase).as_deref(), Some(name), "{call}");
    phone.command("hangup", "");
    phone.wait_for("CALL_CLOSED");
    let heard = phone.heard(SECONDS - 1.0);
    assert_heard("the phone that called", &said, &heard);
    let heard = recording(Path::new(&to_bob));
    assert_heard("the peer that was called", &said, &heard);
    eventually("the first call has ended at both ends", || {
        let calls = &bob.status()["calls"];
        if calls.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(calls.to_string()) }
    });

    // The other peer's user calls the phone.
    let (play, record) = (speech_wav.as_str(), to_bob_later.as_str());
    let call = bob.call("desk", &["--play", play, "--record", record, "--duration", &(SECONDS + 0.5).to_string()]);
    let report = call.completed();
    assert_eq!(report["status"], 200);
    assert_eq!(report["codec"].as_str().map(str::to_lowercase).as_deref(), Some(name), "{report}");
    assert!(report["sent"].as_u64() > Some(0) && report["received"].as_u64() > Some(0), "{report}");
    assert!(report["setup_ms"].as_f64() > Some(0.0) && report["talk_s"].as_f64() >= Some(SECONDS), "{report}");
    assert_eq!((report["path"].as_str(), report["security"].as_str()), (Some("direct"), Some("none")));
    phone.wait_for("CALL_CLOSED");
    assert_heard("the phone that was called", &said, &phone.heard(SECONDS - 1.0));
    assert_heard("the peer that called", &said, &recording(Path::new(&to_bob_later)));
}

/// How long the ends talk.
const SECONDS: f64 = 5.0;

/// A recording, once it is long enough and no longer growing.
fn recording(path: &Path) -> Sound {
    let mut last = 0;
    eventually(&format!("{} is complete", path.display()), || {
        let sound = Sound::read(path)?;
        let length = std::mem::replace(&mut last, sound.samples.len());
        let complete = sound.seconds() >= SECONDS - 1.0 && length == last;
        if complete { Ok(sound) } else { Err(format!("{:.1} s", sound.seconds())) }
    })
}
