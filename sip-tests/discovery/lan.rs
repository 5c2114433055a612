//! A local network of namespaces, and peers in it.

use crate::process::{Outcome, Process, run};
use crate::tools::{DEADLINE, eventually};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Namespaces with one interface each, 10.77.0.N/24, on one bridge; gone when dropped.
pub struct Lan {
    /// Namespaces made so far, the bridge's first.
    made: Vec<String>,
    dir: TempDir,
}

/// One running `chordial start`.
pub struct Machine {
    /// The process.
    pub process: Process,
    data: PathBuf,
}

impl Lan {
    /// A network of `machines`; none, said loudly, where this process may not make one.
    pub fn new(test: &str, machines: usize) -> Option<Lan> {
        if let Err(why) = may_make() {
            assert!(std::env::var("CHORDIAL_INTEROP").as_deref() != Ok("required"), "{test}: {why}");
            // Straight to the descriptor: the harness would swallow what a passing test prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "\nSKIPPED: {test}: {why}\n");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("chordial-lan-").tempdir().unwrap();
        let mut lan = Lan { made: Vec::new(), dir };
        let bridge = lan.namespace("lan");
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &bridge, "link", "set", "br0", "up"]);
        for n in 0..machines {
            let machine = lan.namespace(&n.to_string());
            let port = format!("p{n}");
            ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &machine]);
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &machine, "link", "set", "lo", "up"]);
            ip(&["-n", &machine, "addr", "add", &format!("10.77.0.{}/24", n + 1), "dev", "eth0"]);
            ip(&["-n", &machine, "link", "set", "eth0", "up"]);
        }
        Some(lan)
    }

    /// Starts a peer on machine `n` with data directory `name`.
    pub fn start(&self, n: usize, name: &str, args: &[&str]) -> Machine {
        let data = self.data(name);
        let mut command = self.within(n);
        command.args(["start", "--headless", "--data"]).arg(&data).args(args);
        Machine { process: Process::start(&unique(name), &mut command, self.dir.path()), data }
    }

    /// The namespace of machine `n`.
    pub fn name(&self, n: usize) -> &str {
        &self.made[n + 1]
    }

    /// The namespace of the bridge, which may be made a router.
    pub fn bridge(&self) -> &str {
        &self.made[0]
    }

    /// One more namespace, on no network; its number as a machine.
    pub fn add(&mut self, name: &str) -> usize {
        self.namespace(name);
        self.made.len() - 2
    }

    /// What `/etc/hosts` says on machine `n`, from now on also for what already runs there if it was there before.
    pub fn hosts(&self, n: usize, text: &str) {
        let dir = PathBuf::from("/etc/netns").join(self.name(n));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts"), text).unwrap();
    }

    /// Where processes write.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Runs a command on machine `n` that must succeed.
    pub fn run(&self, n: usize, name: &str, args: &[&str]) -> Outcome {
        let mut command = self.within(n);
        command.args(args).arg("--data").arg(self.data(name));
        let outcome = run(&unique(name), &mut command, self.dir.path(), DEADLINE);
        assert!(outcome.ok(), "{args:?}: {outcome:?}");
        outcome
    }

    /// Runs a command on machine `n` that reads a password; what it printed with `--json`, or its error.
    #[allow(dead_code)]
    pub fn try_typed(&self, n: usize, name: &str, args: &[&str], password: &str) -> Result<Value, String> {
        let typed = self.dir.path().join(unique("typed"));
        std::fs::write(&typed, format!("{password}\n")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "in=$1; shift; exec ip netns exec \"$@\" < $in", "sh"]).arg(typed).arg(self.name(n));
        command.arg(env!("CARGO_BIN_EXE_chordial")).args(args).arg("--json").arg("--data").arg(self.data(name));
        let outcome = run(&unique(name), &mut command, self.dir.path(), DEADLINE);
        let line = outcome.stdout.lines().rev().find(|l| !l.trim().is_empty()).filter(|_| outcome.ok());
        serde_json::from_str(line.unwrap_or_default()).map_err(|_| outcome.stderr)
    }

    /// The same for one that must succeed.
    #[allow(dead_code)]
    pub fn typed(&self, n: usize, name: &str, args: &[&str], password: &str) -> Value {
        self.try_typed(n, name, args, password).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    #[allow(dead_code)] // for the tests of a cut network alone
    /// Cuts the network in two without a word to anybody: machines below `at`, and the others.
    pub fn cut(&self, at: usize) {
        let side = |range: std::ops::Range<usize>| range.map(|n| format!("p{n}")).collect::<Vec<_>>().join(", ");
        let (here, there) = (side(0..at), side(at..self.made.len() - 1));
        let rules = format!(
            "table bridge cut {{ chain forward {{ type filter hook forward priority 0; \
             iifname {{ {here} }} oifname {{ {there} }} drop; iifname {{ {there} }} oifname {{ {here} }} drop; }}; }}"
        );
        self.nft(&rules);
    }

    /// Joins what was cut.
    #[allow(dead_code)]
    pub fn heal(&self) {
        self.nft("delete table bridge cut");
    }

    #[allow(dead_code)]
    fn nft(&self, rules: &str) {
        let done = Command::new("ip").args(["netns", "exec", &self.made[0], "nft", rules]).output().expect("ip");
        assert!(done.status.success(), "nft {rules}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn data(&self, name: &str) -> PathBuf {
        let data = self.dir.path().join(name);
        std::fs::create_dir_all(&data).unwrap();
        data
    }

    fn within(&self, n: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.made[n + 1], env!("CARGO_BIN_EXE_chordial")]);
        command
    }

    fn namespace(&mut self, name: &str) -> String {
        let name = unique(&format!("chordial-{}-{name}", std::process::id()));
        ip(&["netns", "add", &name]);
        self.made.push(name.clone());
        name
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in self.made.iter().rev() {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
            let _ = std::fs::remove_dir_all(PathBuf::from("/etc/netns").join(name));
        }
    }
}

impl Machine {
    /// `status --json`.
    pub fn status(&self) -> Value {
        self.try_json(&["status"]).unwrap_or_else(|e| panic!("status: {e}"))
    }

    /// The answer to a command with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        self.try_json(args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    /// Waits until a user is found from here.
    pub fn finds(&self, user: &str) {
        eventually(&format!("{} finds {user}", self.data.display()), || {
            let report = self.try_json(&["lookup", user])?;
            if report["found"] == true { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// Calls a user for a second; the report of a call that completed.
    pub fn call(&self, user: &str) -> Value {
        let report = self.json(&["call", user, "--play", "tone", "--duration", "1"]);
        assert_eq!(report["result"], "completed", "{report}");
        report
    }

    /// The last line that a command printed.
    pub fn try_json(&self, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordial"));
        command.args(args).arg("--json").arg("--data").arg(&self.data);
        let outcome = run(&unique(args[0]), &mut command, &self.data, DEADLINE);
        let line = outcome.stdout.lines().rev().find(|l| !l.trim().is_empty());
        serde_json::from_str(line.unwrap_or_default()).map_err(|_| outcome.stderr)
    }
}

/// Waits until these and no others form one ring, with the neighbours that the peer-IDs say.
pub fn one_ring(machines: &[Machine]) {
    eventually("one ring", || {
        let status: Result<Vec<_>, _> = machines.iter().map(|m| m.try_json(&["status"])).collect();
        let mut status = status?;
        status.sort_by_key(|s| s["peer_id"].to_string());
        let count = status.len();
        for (n, one) in status.iter().enumerate() {
            let ring = &one["overlay"];
            let order: Vec<_> = (1..count).map(|k| &status[(n + k) % count]["peer_id"]).collect();
            let seen: Vec<_> = ring["successors"].as_array().into_iter().flatten().map(|s| &s["peer_id"]).collect();
            let back = order.last().is_none_or(|last| ring["predecessor"]["peer_id"] == **last);
            if ring["state"] != "joined" || seen != order || !back {
                return Err(format!("{}: {ring}", one["aor"]));
            }
        }
        Ok(())
    });
}

pub fn may_make() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map_or("0", str::trim);
    let capable = u64::from_str_radix(effective, 16).is_ok_and(|bits| bits >> 21 & 1 == 1);
    if !capable {
        return Err("network namespaces need root".into());
    }
    match Command::new("ip").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("no ip ({e}); install: apt-get install iproute2")),
    }
}

/// Runs a program in a namespace; it must succeed. Its output.
#[track_caller]
pub fn inside(namespace: &str, command: &[&str]) -> String {
    let done = Command::new("ip").args(["netns", "exec", namespace]).args(command).output().expect("ip");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[track_caller]
pub fn ip<S: AsRef<OsStr> + std::fmt::Debug>(args: &[S]) {
    let done = Command::new("ip").args(args).output().expect("ip");
    assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
