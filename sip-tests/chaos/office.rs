//! An office of many: founded, everybody invited and joined, everybody running.

use crate::process::{Outcome, Process, run};
use crate::program::{chordial, last_json};
use crate::tools::{DEADLINE, eventually, free_ports};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The office's name.
pub const OFFICE: &str = "chaos.test";

/// One member and its machine.
pub struct Member {
    /// User name.
    pub user: String,
    /// Data directory.
    pub data: PathBuf,
    port: u16,
}

impl Member {
    /// Where other peers' links are taken.
    pub fn overlay_port(&self) -> u16 {
        self.port + 1
    }
}

/// Members by number; member 0 is the founder.
pub struct Office {
    /// In the order they joined.
    pub members: Vec<Member>,
    dir: TempDir,
}

impl Office {
    /// Founds an office and lets `size - 1` others join; nobody runs but the founder, whose process is returned.
    pub fn new(size: usize) -> (Office, Process) {
        let dir = tempfile::Builder::new().prefix("chordial-chaos-").tempdir().unwrap();
        let base = free_ports(2 * size as u16);
        let member = |n: usize| {
            let user = format!("u{n:02}");
            Member { data: dir.path().join(&user), user, port: base + 2 * n as u16 }
        };
        let office = Office { members: (0..size).map(member).collect(), dir };
        office.done(0, &["office", "create", OFFICE, "--name", "u00"]);
        let founder = office.start(0);
        for n in 1..size {
            let invite = office.done(0, &["invite", &office.members[n].user, "--json"]);
            let code = last_json(&invite)["code"].as_str().expect("a code").to_owned();
            office.done(n, &["join", &code]);
        }
        (office, founder)
    }

    /// Starts a member and waits until it is in the ring and registered.
    pub fn start(&self, n: usize) -> Process {
        self.start_under(n, &[])
    }

    /// The same by another program that runs it: `faketime`, say.
    pub fn start_under(&self, n: usize, wrapper: &[&str]) -> Process {
        let member = &self.members[n];
        let mut command = match wrapper {
            [] => chordial(),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(chordial().get_program());
                command
            }
        };
        command.args(["start", "--headless", "--auto-answer", "--audio-in", "null", "--audio-out", "null", "--data"]);
        command.arg(&member.data).env("PULSE_SERVER", "none");
        command.arg("--sip-listen").arg(format!("127.0.0.1:{}", member.port));
        command.arg("--overlay-listen").arg(format!("127.0.0.1:{}", member.port + 1));
        let mut process = Process::start(&unique(&member.user), &mut command, self.dir.path());
        eventually(&format!("{} is registered", member.user), || {
            assert!(process.ended().is_none(), "{} ended: {}", member.user, process.stderr());
            let status = self.status(n)?;
            let registered = status["registrations"].as_array().is_some_and(|r| {
                r.iter().any(|r| r["aor"] == format!("sip:{}@{OFFICE}", member.user) && r["written"] != false)
            });
            if status["overlay"]["state"] == "joined" && registered { Ok(()) } else { Err(status.to_string()) }
        });
        process
    }

    /// `status --json` of a member.
    pub fn status(&self, n: usize) -> Result<Value, String> {
        let outcome = self.run(n, &["status", "--json"]);
        if outcome.ok() { Ok(last_json(&outcome)) } else { Err(outcome.stderr) }
    }

    /// A command of a member's.
    pub fn command(&self, n: usize, args: &[&str]) -> Command {
        let mut command = chordial();
        command.args(args).arg("--data").arg(&self.members[n].data);
        command
    }

    /// Runs a command of a member's to its end.
    pub fn run(&self, n: usize, args: &[&str]) -> Outcome {
        run(&unique(args[0]), &mut self.command(n, args), self.dir.path(), DEADLINE)
    }

    /// The same, which must succeed.
    pub fn done(&self, n: usize, args: &[&str]) -> Outcome {
        let outcome = self.run(n, args);
        assert!(outcome.ok(), "{args:?}: {outcome:?}");
        outcome
    }

    /// Where files may be put.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A file name not used before.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
