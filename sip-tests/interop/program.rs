//! `chordial` processes: a ring of them, and the commands that a person would type.

use crate::process::{Outcome, Process, run};
use crate::tools::{DEADLINE, eventually, free_ports};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The program under test.
pub fn chordial() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chordial"))
}

/// One running `chordial start`.
pub struct Peer {
    /// Its user.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where standard phones are served.
    pub sip: SocketAddr,
    /// Where other peers' links are taken.
    pub overlay: SocketAddr,
    /// The process.
    pub process: Process,
}

impl Peer {
    /// Starts a peer on ports of its own, with `args` beside them, and waits until it is part of a ring.
    pub fn start(dir: &Path, name: &str, args: &[&str]) -> Peer {
        Peer::start_at(free_ports(2), dir, name, args, &[no_sound()])
    }

    /// The same on this port and the next.
    pub fn start_on(base: u16, dir: &Path, name: &str, args: &[&str]) -> Peer {
        Peer::start_at(base, dir, name, args, &[no_sound()])
    }

    /// Starts a peer again on the ports that it had.
    pub fn restart(dir: &Path, name: &str, sip: SocketAddr, args: &[&str]) -> Peer {
        Peer::start_at(sip.port(), dir, name, args, &[no_sound()])
    }

    /// Starts a peer that has ended again, where it was; without `--bootstrap` in `args` it finds the others by what it remembers.
    pub fn start_again(&mut self, dir: &Path, args: &[&str]) {
        let name = self.name.clone();
        *self = Peer::start_at(self.sip.port(), dir, &name, args, &[no_sound()]);
    }

    fn start_at(base: u16, dir: &Path, name: &str, args: &[&str], environment: &[(String, String)]) -> Peer {
        let data = dir.join(name);
        std::fs::create_dir_all(&data).unwrap();
        let sip = SocketAddr::from(([127, 0, 0, 1], base));
        let overlay = SocketAddr::from(([127, 0, 0, 1], base + 1));
        let mut command = chordial();
        command.arg("start").arg("--headless").arg("--data").arg(&data);
        command.envs(environment.iter().cloned());
        command.args(["--sip-listen", &sip.to_string(), "--overlay-listen", &overlay.to_string()]).args(args);
        let process = Process::start(&format!("peer-{name}"), &mut command, dir);
        let mut peer = Peer { name: name.into(), data, sip, overlay, process };
        eventually(&format!("{name} joins"), || {
            assert!(peer.process.ended().is_none(), "{name} ended: {}", peer.process.stderr());
            let status = peer.try_status()?;
            match status["overlay"]["state"].as_str() {
                Some("joined") => Ok(()),
                other => Err(format!("state {other:?}")),
            }
        });
        peer
    }

    /// Starts a plain phone with an account at `registrar`, once it is registered.
    pub fn phone(dir: &Path, user: &str, password: &str, registrar: SocketAddr, args: &[&str]) -> Peer {
        let data = dir.join(user);
        std::fs::create_dir_all(&data).unwrap();
        let secret = data.join("password");
        std::fs::write(&secret, format!("{password}\n")).unwrap();
        let sip = SocketAddr::from(([127, 0, 0, 1], free_ports(2)));
        let mut command = chordial();
        command.arg("start").arg("--headless").arg("--data").arg(&data).args(["--name", user]);
        command.args(["--sip-listen", &sip.to_string(), "--registrar", &registrar.to_string(), "--password-file"]);
        command.arg(&secret).args(args);
        let (variable, value) = no_sound();
        command.env(variable, value);
        let process = Process::start(&format!("phone-{user}"), &mut command, dir);
        let mut peer = Peer { name: user.into(), data, sip, overlay: sip, process };
        eventually(&format!("{user} registers"), || {
            assert!(peer.process.ended().is_none(), "{user} ended: {}", peer.process.stderr());
            let status = peer.try_status()?;
            let all = status["registrations"].as_array().map_or(0, Vec::len);
            if all > 0 { Ok(()) } else { Err(status["registrations"].to_string() + &peer.process.stderr()) }
        });
        peer
    }

    /// `status --json`.
    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|e| panic!("status of {}: {e}", self.name))
    }

    /// Its place on the ring, 40 hexadecimal digits.
    pub fn peer_id(&self) -> String {
        let id = self.status()["peer_id"].as_str().unwrap_or_default().to_owned();
        assert_eq!(id.len(), 40, "peer_id of {}: {id:?}", self.name);
        id
    }

    /// A command that talks to this peer.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = chordial();
        command.args(args).arg("--data").arg(&self.data);
        command
    }

    /// Runs a command against this peer to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        run(&unique(args[0]), &mut self.command(args), &self.data, DEADLINE)
    }

    /// Runs a command with `--json`; its last line and whether it said that the thing was done.
    pub fn json(&self, args: &[&str]) -> (Value, bool) {
        let mut args = args.to_vec();
        args.push("--json");
        let outcome = self.run(&args);
        (last_json(&outcome), outcome.ok())
    }

    /// `lookup TARGET --json`.
    pub fn lookup(&self, target: &str) -> Value {
        let (report, ok) = self.json(&["lookup", target]);
        assert_eq!(report["found"] == true, ok, "exit code and report of lookup {target} differ: {report}");
        report
    }

    /// `lookup` until it finds.
    pub fn lookup_until_found(&self, target: &str) -> Value {
        eventually(&format!("{} finds {target}", self.name), || {
            let report = self.lookup(target);
            if report["found"] == true { Ok(report) } else { Err(report.to_string()) }
        })
    }

    /// Starts `call TARGET --json` with `args`.
    pub fn call(&self, target: &str, args: &[&str]) -> Call {
        let mut all = vec!["call", target, "--json"];
        all.extend(args);
        Call { process: Process::start(&unique("call"), &mut self.command(&all), &self.data) }
    }

    fn try_status(&self) -> Result<Value, String> {
        let outcome = run(&unique("status"), &mut self.command(&["status", "--json"]), &self.data, DEADLINE);
        if outcome.ok() { Ok(last_json(&outcome)) } else { Err(outcome.stderr) }
    }
}

/// A `chordial call` under way.
pub struct Call {
    process: Process,
}

impl Call {
    /// Waits for the report, the last line that the command prints.
    pub fn report(mut self) -> (Value, bool) {
        let status = self.process.wait(2 * DEADLINE).unwrap_or_else(|| panic!("the call does not end"));
        let outcome = Outcome { code: status.code(), stdout: self.process.stdout(), stderr: self.process.stderr() };
        (last_json(&outcome), outcome.ok())
    }

    /// Waits for the report of a call that must have succeeded.
    pub fn completed(self) -> Value {
        let (report, ok) = self.report();
        assert!(report["result"] == "completed" && ok, "the call did not complete: {report}");
        report
    }
}

/// Peers that form one ring.
pub struct Ring {
    /// In the order they joined.
    pub peers: Vec<Peer>,
    /// The overlay's name.
    pub overlay: String,
    mode: Vec<String>,
    environment: Vec<(String, String)>,
    /// First and number of the ports set aside for peers.
    reserved: Option<(u16, u16)>,
    dir: TempDir,
}

impl Ring {
    /// No peer yet; `mode` is given to every peer (`--open`, `--lab-clear`).
    pub fn new(overlay: &str, mode: &[&str]) -> Ring {
        let dir = tempfile::Builder::new().prefix("chordial-").tempdir().unwrap();
        let mode = mode.iter().map(|m| (*m).to_owned()).collect();
        Ring { peers: Vec::new(), overlay: overlay.into(), mode, environment: vec![no_sound()], reserved: None, dir }
    }

    /// Sets aside neighbouring ports for `peers` peers, the phones' and the links' in turn; the first and how many.
    pub fn reserve_ports(&mut self, peers: usize) -> (u16, u16) {
        let count = 2 * peers as u16;
        *self.reserved.insert((free_ports(count), count))
    }

    /// What was set aside.
    pub fn ports(&self) -> (u16, u16) {
        self.reserved.expect("ports were reserved")
    }

    /// Where the test may put its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in [`Ring::dir`], as text for a command line.
    pub fn file(&self, name: &str) -> String {
        self.dir().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a peer that joins by the first one; returns its place in [`Ring::peers`].
    pub fn add(&mut self, name: &str, args: &[&str]) -> usize {
        let first = self.peers.first().map(|p| p.overlay.to_string());
        let mut all: Vec<&str> = self.mode.iter().map(String::as_str).collect();
        all.extend(["--overlay", &self.overlay, "--name", name]);
        if let Some(first) = &first {
            all.extend(["--bootstrap", first]);
        }
        all.extend(args);
        let base = self.reserved.map_or_else(|| free_ports(2), |(base, _)| base + 2 * self.peers.len() as u16);
        let peer = Peer::start_at(base, self.dir.path(), name, &all, &self.environment);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    /// Peers added from now on use the sound server there (`unix:PATH`); without this, none.
    #[allow(dead_code)] // for the tests of sound devices alone
    pub fn sound_server(&mut self, address: &str) {
        self.environment = vec![("PULSE_SERVER".into(), address.into())];
    }

    /// The AOR of a user.
    pub fn aor(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.overlay)
    }

    /// Waits until every peer's predecessor and first successor are those that the peer-IDs say.
    pub fn settle(&self) {
        let mut ids: Vec<_> = self.peers.iter().map(Peer::peer_id).collect();
        ids.sort();
        for peer in &self.peers {
            eventually(&format!("{} has its neighbours", peer.name), || {
                let status = peer.try_status()?;
                let at = ids.iter().position(|id| status["peer_id"] == id.as_str()).ok_or("no peer_id")?;
                let (next, previous) = (&ids[(at + 1) % ids.len()], &ids[(at + ids.len() - 1) % ids.len()]);
                let overlay = &status["overlay"];
                let right = ids.len() == 1
                    || overlay["successors"][0]["peer_id"] == next.as_str()
                        && overlay["predecessor"]["peer_id"] == previous.as_str();
                if right { Ok(()) } else { Err(overlay.to_string()) }
            });
        }
    }
}

/// The last line of standard output, as JSON.
pub fn last_json(outcome: &Outcome) -> Value {
    let line = outcome.stdout.lines().rev().find(|l| !l.trim().is_empty());
    let line = line.unwrap_or_else(|| panic!("no JSON printed: {outcome:?}"));
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Waits at most `within` for a program that ought to end by itself.
pub fn start_that_fails(dir: &Path, args: &[&str], within: Duration) -> Outcome {
    let mut command = chordial();
    command.arg("start").arg("--headless").args(args);
    run(&unique("start"), &mut command, dir, within)
}

/// Keeps the peers away from the microphone and the loudspeakers of whoever runs the tests.
fn no_sound() -> (String, String) {
    ("PULSE_SERVER".into(), "none".into())
}

fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
