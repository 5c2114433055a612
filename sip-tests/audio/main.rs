//! Sound devices: two `chordial` processes on loopback and a PulseAudio daemon of the test's own.
//!
//! Where the daemon or its tools are not installed, the tests say `SKIPPED` and pass over; with
//! `CHORDIAL_INTEROP=required` that is a failure.
// Tests stand outside the program: they read clocks and wait.
#![allow(clippy::disallowed_methods, dead_code)]

#[path = "../interop/process.rs"]
mod process;
#[path = "../interop/program.rs"]
mod program;
mod server;
#[path = "../interop/tools.rs"]
mod tools;

use chordial::media::hear::{Heard, Recording, compare};
use process::Process;
use program::{Ring, chordial};
use server::Server;
use std::path::Path;
use std::time::Duration;
use tools::{eventually, have, heavy};

const SPEECH: &str = "config/speech.wav";
const RATE: u32 = 48_000;

fn programs(test: &str) -> bool {
    have(test, &["pulseaudio", "pactl", "paplay", "parec"])
}

fn ring(server: &Server, speaker: &str) -> Ring {
    let mut ring = Ring::new("sound", &["--open", "--log", "info,chordial::io::audio=debug"]);
    ring.sound_server(&server.address());
    ring.add("alice", &["--audio-in", "device:Mic", "--audio-out", "null"]);
    ring.add("bob", &["--auto-answer", "--audio-in", "tone", "--audio-out", speaker]);
    ring.settle();
    ring.peers[0].lookup_until_found("bob");
    ring
}

/// Both streams of the call are on the server.
fn streams(server: &Server) -> Result<(), String> {
    let inputs = server.pactl(&["list", "short", "sink-inputs"])?;
    let outputs = server.pactl(&["list", "source-outputs"])?;
    let ours = outputs.matches("application.name = \"Chordial\"").count();
    if ours == 1 && inputs.lines().count() == 1 { Ok(()) } else { Err(format!("{inputs}\n{outputs}")) }
}

fn gone(server: &Server) -> Result<(), String> {
    let outputs = server.pactl(&["list", "source-outputs"])?;
    if outputs.contains("\"Chordial\"") { Err(outputs) } else { Ok(()) }
}

/// Speech goes into loudspeaker a; how much of it comes out of loudspeaker b?
fn heard(server: &Server, dir: &Path) -> Heard {
    let raw = |monitor: &str| {
        let file = dir.join(format!("{monitor}.raw"));
        let mut parec = server.tool("parec");
        parec.args(["-d", monitor, "--raw", "--format=s16le", "--rate=48000", "--channels=1", "--latency-msec=10"]);
        parec.arg(&file);
        (file, Process::start(&format!("parec-{monitor}"), &mut parec, dir))
    };
    let (said, mut before) = raw("a.monitor");
    let (got, mut after) = raw("b.monitor");
    let samples = |file: &Path| std::fs::read(file).unwrap_or_default();
    for file in [&said, &got] {
        eventually("parec records", || if samples(file).is_empty() { Err("nothing".into()) } else { Ok(()) });
    }
    let played = process::run("paplay", server.tool("paplay").args(["-d", "a", SPEECH]), dir, tools::DEADLINE);
    assert!(played.ok(), "{played:?}");
    std::thread::sleep(Duration::from_millis(500));
    for recorder in [&mut before, &mut after] {
        recorder.signal("INT");
    }
    let pcm =
        |file: &Path| -> Vec<i16> { samples(file).chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect() };
    let (said, got) = (pcm(&said), pcm(&got));
    let heard = compare(Recording { samples: &said, rate: RATE }, Recording { samples: &got, rate: RATE }, 1000);
    // The recorders did not begin in the same instant, so the lag is good to some 20 ms only.
    eprintln!("{heard:?}");
    heard
}

#[test]
fn speech_goes_from_device_to_device() {
    let test = "speech_goes_from_device_to_device";
    if !programs(test) {
        return;
    }
    let _heavy = heavy();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let ring = ring(&server, "device:sink-b");
    gone(&server).expect("no device is held without a call");
    let call = ring.peers[0].call("bob", &["--duration", "14"]);
    eventually("the call uses both devices", || streams(&server));
    let heard = heard(&server, dir.path());
    assert!(heard.share > 0.8, "{heard:?}");
    let report = call.completed();
    assert_eq!(report["lost"], 0, "{report}");
    eventually("both devices are let go", || gone(&server));
}

#[test]
fn a_daemon_that_dies_takes_no_call_with_it() {
    let test = "a_daemon_that_dies_takes_no_call_with_it";
    if !programs(test) {
        return;
    }
    let _heavy = heavy();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let ring = ring(&server, "device:b");
    let call = ring.peers[0].call("bob", &["--duration", "25"]);
    eventually("the call uses both devices", || streams(&server));
    server.kill();
    for peer in &ring.peers {
        eventually("it says that the sound server went", || {
            let said = peer.process.stderr();
            if said.contains("silence until it is there") { Ok(()) } else { Err(said) }
        });
        assert_eq!(peer.status()["calls"][0]["state"], "answered");
    }
    let server = server.revive();
    eventually("the call has its devices again", || streams(&server));
    // A daemon that has just started delivers its first second in bursts.
    std::thread::sleep(Duration::from_secs(3));
    let heard = heard(&server, dir.path());
    assert!(heard.share > 0.8, "{heard:?}");
    call.completed();
    eventually("both devices are let go", || gone(&server));
}

#[test]
fn devices_are_listed_without_a_running_program() {
    let test = "devices_are_listed_without_a_running_program";
    if !programs(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let ask = |name: &str, server: &str, args: &[&str]| {
        process::run(name, chordial().args(args).env("PULSE_SERVER", server), dir.path(), tools::DEADLINE)
    };
    let listed = ask("audio-json", &server.address(), &["audio", "--json"]);
    assert!(listed.ok(), "{listed:?}");
    let devices: Vec<serde_json::Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| devices.iter().find(|d| d["name"] == name).unwrap_or_else(|| panic!("no {name}: {listed:?}"));
    assert_eq!((&of("b")["direction"], &of("b")["use"]), (&"out".into(), &"device:b".into()));
    assert_eq!((&of("a")["default"], &of("a")["description"]), (&true.into(), &"Sink-A".into()));
    assert_eq!((&of("a.monitor")["direction"], &of("a.monitor")["monitor"]), (&"in".into(), &true.into()));
    let shown = ask("audio", &server.address(), &["audio"]);
    assert!(shown.ok() && shown.stdout.contains("--audio-in device:mic"), "{shown:?}");
    let none = ask("audio-none", "unix:/nonexistent/pulse", &["audio"]);
    assert!(!none.ok() && none.stderr.contains("no sound server: there is no /nonexistent/pulse; start"), "{none:?}");
}

#[test]
fn without_a_sound_server_a_call_is_silent_and_completes() {
    let mut ring = Ring::new("quiet", &["--open", "--log", "info"]);
    ring.sound_server("unix:/nonexistent/pulse");
    ring.add("alice", &[]);
    ring.add("bob", &["--auto-answer", "--audio-out", "device"]);
    ring.settle();
    ring.peers[0].lookup_until_found("bob");
    let report = ring.peers[0].call("bob", &["--duration", "1"]).completed();
    assert_eq!(report["lost"], 0, "{report}");
    let said = ring.peers[0].process.stderr();
    assert_eq!(said.matches("no sound server here").count(), 1, "{said}");
    assert!(!said.contains("WARN"), "auto is no reason to worry: {said}");
    let said = ring.peers[1].process.stderr();
    assert_eq!(
        said.matches("there is no /nonexistent/pulse; silence until it is there; start PipeWire").count(),
        1,
        "{said}"
    );
}
