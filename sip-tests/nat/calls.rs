//! Calls between two homes on a small internet of namespaces ([`lab`](../lab/README.md)), with a supernode on the public part: each
//! pair of routers gets the way that it allows, and both hear each other.

use crate::process::{Process, run};
use crate::tools::{DEADLINE, eventually, have};
use chordial::io::audio::wav::WavReader;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Gone when dropped, with every process inside.
pub(crate) struct Lab {
    prefix: String,
    dir: TempDir,
}

pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) data: PathBuf,
}

impl Lab {
    /// None, said loudly, where this process may not make one.
    pub(crate) fn new(test: &str, spec: &str) -> Option<Lab> {
        if !have(test, &["ip", "nft", "python3"]) || !may_make(test) {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("c{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("chordial-nat-").tempdir().unwrap();
        let lab = Lab { prefix, dir };
        lab.say(&["up", spec]);
        Some(lab)
    }

    pub(crate) fn say(&self, args: &[&str]) -> String {
        let done = self.lab().args(args).output().expect("python3");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn lab(&self) -> Command {
        let mut command = Command::new("python3");
        command.arg("sip-tests/nat/lab/natlab").args(["-p", &self.prefix]);
        command
    }

    /// Starts a peer on a host of the lab.
    pub(crate) fn start(&self, host: &str, user: &str, args: &[&str]) -> Peer {
        let data = self.dir.path().join(user);
        std::fs::create_dir_all(&data).unwrap();
        let mut command = self.inside(host, env!("CARGO_BIN_EXE_chordial"));
        command.args(["start", "--headless", "--open", "--overlay", "nat.test", "--discover", "none", "--data"]);
        command.arg(&data).args(["--name", user, "--auto-answer", "--audio-in", "tone"]).args(args);
        Peer { process: Process::start(user, &mut command, self.dir.path()), data }
    }

    /// A program on a host of the lab, to be started.
    pub(crate) fn inside(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.prefix), program]);
        command
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.lab().arg("down").output();
    }
}

impl Peer {
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordial"));
        command.args(args).arg("--json").arg("--data").arg(&self.data);
        let outcome = run(args[0], &mut command, &self.data, DEADLINE);
        let line = outcome.stdout.lines().rev().find(|l| !l.trim().is_empty());
        serde_json::from_str(line.unwrap_or_default()).map_err(|_| outcome.stderr)
    }

    pub(crate) fn finds(&self, user: &str) {
        eventually(&format!("{} finds {user}", self.data.display()), || {
            let report = self.json(&["lookup", user])?;
            if report["found"] == true { Ok(()) } else { Err(report.to_string()) }
        });
    }
}

fn may_make(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map_or("0", str::trim);
    let capable = u64::from_str_radix(effective, 16).is_ok_and(|bits| bits >> 21 & 1 == 1);
    assert!(
        capable || std::env::var("CHORDIAL_INTEROP").as_deref() != Ok("required"),
        "{test}: network namespaces need root"
    );
    if !capable {
        // Straight to the descriptor: the harness would swallow what a passing test prints.
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), "\nSKIPPED: {test}: network namespaces need root\n");
    }
    capable
}

/// Loudness of the last second of a recording (RMS of its samples); 0 where there is none.
pub(crate) fn loudness(path: &Path) -> f64 {
    let Ok(mut reader) = WavReader::open(path) else { return 0.0 };
    let samples = reader.read_all().unwrap_or_default();
    let last = &samples[samples.len().saturating_sub(16_000)..];
    let power: f64 = last.iter().map(|s| f64::from(*s).powi(2)).sum();
    (power / last.len().max(1) as f64).sqrt()
}

/// A call from a host to another; the way that it took, at the caller's.
fn call(test: &str, spec: &str, from: &str, to: &str) -> Option<String> {
    report(test, spec, from, to).map(|report| report["path"].as_str().unwrap_or_default().to_owned())
}

/// The same; the caller's report.
fn report(test: &str, spec: &str, from: &str, to: &str) -> Option<Value> {
    let lab = Lab::new(test, &format!("rv=host,ips=2 {spec}"))?;
    let (v4, v6) = (lab.say(&["addr", "rv", "v4"]), lab.say(&["addr", "rv", "v6"]));
    let public = |host: &str| match spec.contains(&format!("{host}=v6only")) {
        true => format!("[{v6}]:5061"),
        false => format!("{v4}:5061"),
    };
    let (there, here) = (public(to), public(from));
    let _rv = lab.start("rv", "rv", &["--role", "supernode"]);
    let member = |at| ["--role", "ordinary", "--bootstrap", at];
    let (heard, said) = (lab.path("bob.wav"), lab.path("alice.wav"));
    let out = format!("wav:{heard}");
    let bob = lab.start(to, "bob", &[&member(&there)[..], &["--audio-out", &out]].concat());
    let alice = lab.start(from, "alice", &member(&here));
    alice.finds("bob");
    bob.finds("alice");
    // The first call may come before a relay has granted anything.
    let report = eventually("a call that both hear", || {
        let report = alice.json(&["call", "bob", "--play", "tone", "--record", &said, "--duration", "4"])?;
        let loud = [&heard, &said].map(|file| loudness(Path::new(file)));
        let good = report["result"] == "completed" && loud.iter().all(|l| *l > 300.0);
        let told = || format!("{report} heard {loud:?}\n{}\n{}", tail(&alice), tail(&bob));
        if good { Ok(report.clone()) } else { Err(told()) }
    });
    assert_eq!(report["security"], "dtls-srtp", "{report}");
    Some(report)
}

pub(crate) fn tail(peer: &Peer) -> String {
    let text = peer.process.stderr();
    text.lines().rev().take(12).collect::<Vec<_>>().join("\n")
}

#[test]
fn without_a_nat_voice_goes_straight() {
    let Some(path) = call("without_a_nat_voice_goes_straight", "a=host b=host", "a", "b") else { return };
    assert_eq!(path, "direct");
}

#[test]
fn behind_one_nat_voice_stays_inside() {
    let Some(path) = call("behind_one_nat_voice_stays_inside", "h=port,hosts=2", "h", "h.2") else { return };
    assert_eq!(path, "direct");
}

#[test]
fn two_cones_are_punched_through() {
    for spec in ["a=addr b=port", "a=port b=port"] {
        let Some(path) = call("two_cones_are_punched_through", spec, "a", "b") else { return };
        assert_eq!(path, "srflx", "{spec}");
    }
}

#[test]
fn a_symmetric_nat_and_a_port_restricted_one_need_a_relay() {
    let test = "a_symmetric_nat_and_a_port_restricted_one_need_a_relay";
    let Some(path) = call(test, "a=port b=sym", "a", "b") else { return };
    assert!(path.starts_with("relay "), "{path}");
}

#[test]
fn two_symmetric_nats_need_a_relay() {
    let Some(path) = call("two_symmetric_nats_need_a_relay", "a=sym b=sym", "a", "b") else { return };
    assert!(path.starts_with("relay "), "{path}");
}

#[test]
fn where_no_udp_passes_voice_goes_through_a_relay_over_tls() {
    // Nothing but port 443 passes; no UDP, and no common family of addresses; two NATs that no punching opens.
    for (spec, over) in [("a=tcp443 b=tcp443", "tls"), ("a=noudp b=v6only", "tls"), ("a=sym b=sym", "udp")] {
        let test = "where_no_udp_passes_voice_goes_through_a_relay_over_tls";
        let Some(report) = report(test, spec, "a", "b") else { return };
        let path = report["path"].as_str().unwrap_or_default();
        assert!(path.starts_with("relay "), "{spec}: {report}");
        assert_eq!(report["transport"], over, "{spec}: {report}");
    }
}

#[test]
fn where_tcp_alone_passes_voice_goes_straight_over_tcp() {
    let test = "where_tcp_alone_passes_voice_goes_straight_over_tcp";
    // The one behind the wall connects, whoever calls.
    for (from, to) in [("a", "b"), ("b", "a")] {
        let Some(report) = report(test, "a=noudp b=host", from, to) else { return };
        assert_eq!((&report["path"], &report["transport"]), (&"srflx".into(), &"tcp".into()), "{report}");
    }
}
