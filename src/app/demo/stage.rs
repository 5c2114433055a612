//! The demo's child processes: each a `chordial start` of its own with its own sockets, data directory
//! and log, driven through its control socket, and gone when the demo is, however that ends.

use crate::app::Failure;
use crate::io::control::{Client, ControlError};
use crate::node::control::{Command, Reply, Status};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Where everything happens: the program that is shown, and the directory that holds what it leaves.
#[derive(Debug)]
pub struct Stage {
    program: PathBuf,
    root: PathBuf,
    remove: bool,
    actors: Vec<Actor>,
}

/// One child process.
#[derive(Debug)]
struct Actor {
    name: String,
    process: process::Child,
    running: bool,
}

/// What an actor is started with, beside its data directory and its addresses.
#[derive(Debug, Clone)]
pub struct Role {
    /// User name, and name of its directory.
    pub name: String,
    /// Flags of `start`.
    pub flags: Vec<String>,
    /// Whether it has an overlay port.
    pub peer: bool,
}

impl Stage {
    /// Makes the directory: `keep`, which must be empty or absent, or a temporary one that goes with the demo.
    ///
    /// # Errors
    /// The directory cannot be made or holds something.
    pub fn new(program: PathBuf, keep: Option<PathBuf>) -> Result<Stage, Failure> {
        let remove = keep.is_none();
        let root = match keep {
            Some(root) => root,
            None => temporary()?,
        };
        let fault = |source| Failure::File { action: "use", path: root.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(fault)?;
        let root = fs::canonicalize(&root).map_err(fault)?;
        if fs::read_dir(&root).map_err(fault)?.next().is_some() {
            let what = format!("{} is not empty", root.display());
            return Err(Failure::said(what, "name another directory with --keep"));
        }
        Ok(Stage { program, root, remove, actors: Vec::new() })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves the directory where it is.
    pub fn keep(&mut self) {
        self.remove = false;
    }

    /// The data directory of an actor.
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Its standard error.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }

    /// Writes a file for the actors, readable by this user only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.root.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let done = file.and_then(|mut file| file.write_all(bytes));
        done.map_err(|source| Failure::File { action: "write", path: path.clone(), source })?;
        Ok(path)
    }

    /// Starts an actor on free ports of the loopback and waits until it can be asked. Another program may take
    /// a port between the look and the start; then others are tried.
    ///
    /// # Errors
    /// It ended at once, or does not answer.
    pub async fn start(&mut self, role: &Role) -> Result<Status, Failure> {
        let mut attempt = 1;
        loop {
            self.spawn(role)?;
            match self.first_status(&role.name).await {
                Ok(status) => return Ok(status),
                Err(e) => {
                    self.kill(&role.name);
                    let log = fs::read_to_string(self.log(&role.name)).unwrap_or_default();
                    let collision = log.to_lowercase().contains("in use");
                    if !collision || attempt == ATTEMPTS {
                        return Err(e);
                    }
                    attempt += 1;
                }
            }
        }
    }

    fn spawn(&mut self, role: &Role) -> Result<(), Failure> {
        let fault = |path: PathBuf| move |source| Failure::File { action: "write", path, source };
        let log = self.log(&role.name);
        let stderr = File::create(&log).map_err(fault(log))?;
        let events = self.root.join(format!("{}.events", role.name));
        let stdout = File::create(&events).map_err(fault(events))?;
        let mut command = process::Command::new(&self.program);
        command.args(["start", "--headless", "--json", "--data"]).arg(self.data(&role.name));
        command.args(["--name", &role.name, "--sip-listen", &free_port()?.to_string()]);
        if role.peer {
            command.args(["--overlay-listen", &free_port()?.to_string()]);
        }
        command.args(&role.flags).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // The directory of the demo, so that nothing lands where the user stands.
        // Its log is read again: no colours.
        command.current_dir(&self.root).env_remove("CHORDIAL_DATA").env("NO_COLOR", "1");
        let process = command.spawn();
        let what = "cannot start a child process";
        let process = process.map_err(|source| Failure::System { what, source })?;
        self.actors.retain(|a| a.name != role.name);
        self.actors.push(Actor { name: role.name.clone(), process, running: true });
        Ok(())
    }

    async fn first_status(&mut self, name: &str) -> Result<Status, Failure> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(code) = self.ended(name) {
                let said = self.last_words(name);
                return Err(Failure::said(format!("{name} ended at once ({code}): {said}"), "see its log"));
            }
            match self.status(name).await {
                Ok(status) => return Ok(status),
                Err(Failure::Control(ControlError::NotRunning { .. })) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(30)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Asks an actor.
    ///
    /// # Errors
    /// It refuses, is gone, or does not answer in time.
    pub async fn ask(&self, name: &str, command: &Command) -> Result<Reply, Failure> {
        ask(&self.data(name), command, name, ANSWER).await
    }

    /// Asks for its status.
    ///
    /// # Errors
    /// As [`Stage::ask`].
    pub async fn status(&self, name: &str) -> Result<Status, Failure> {
        match self.ask(name, &Command::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(name, &other)),
        }
    }

    /// The exit status of an actor that has ended by itself.
    pub fn ended(&mut self, name: &str) -> Option<process::ExitStatus> {
        let actor = self.actors.iter_mut().find(|a| a.name == name && a.running)?;
        let status = actor.process.try_wait().ok().flatten()?;
        actor.running = false;
        Some(status)
    }

    /// The first actor that has ended though nobody asked it to, and what it said.
    pub fn fallen(&mut self) -> Option<String> {
        let names: Vec<String> = self.actors.iter().filter(|a| a.running).map(|a| a.name.clone()).collect();
        let (name, status) = names.into_iter().find_map(|n| self.ended(&n).map(|s| (n, s)))?;
        Some(format!("{name} ended ({status}): {}", self.last_words(&name)))
    }

    /// Ends an actor without warning (SIGKILL).
    pub fn kill(&mut self, name: &str) {
        if let Some(actor) = self.actors.iter_mut().find(|a| a.name == name) {
            actor.kill();
        }
    }

    /// Lets every actor leave, all at once; who does not within a few seconds is killed. Returns the names of those.
    pub async fn stop(&mut self) -> Vec<String> {
        let names: Vec<String> = self.actors.iter().filter(|a| a.running).map(|a| a.name.clone()).collect();
        let mut asked = tokio::task::JoinSet::new();
        for name in &names {
            let (data, name) = (self.data(name), name.clone());
            asked.spawn(async move { ask(&data, &Command::Stop, &name, STOP).await.is_ok() });
        }
        while asked.join_next().await.is_some() {}
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            self.actors.iter_mut().filter(|a| a.running).for_each(|a| a.running = !has_ended(&mut a.process));
            if self.actors.iter().all(|a| !a.running) {
                break;
            }
            sleep(Duration::from_millis(30)).await;
        }
        let late: Vec<String> = self.actors.iter().filter(|a| a.running).map(|a| a.name.clone()).collect();
        self.actors.iter_mut().for_each(Actor::kill);
        late
    }

    /// Whose log tells of a panic, and where it was.
    pub fn panics(&self) -> Vec<String> {
        let of = |actor: &Actor| {
            let log = fs::read(self.log(&actor.name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            log.lines().find(|l| l.contains("panicked at")).map(|l| format!("{}: {}", actor.name, l.trim()))
        };
        self.actors.iter().filter_map(of).collect()
    }

    fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.log(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.actors.iter_mut().for_each(Actor::kill);
        if self.remove {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

impl Actor {
    fn kill(&mut self) {
        // Both fail only where it has ended already.
        if self.running {
            let _ = self.process.kill();
            let _ = self.process.wait();
            self.running = false;
        }
    }
}

/// Makes a directory that nobody else had made before.
fn temporary() -> Result<PathBuf, Failure> {
    let mut attempt = 0;
    loop {
        let root = std::env::temp_dir().join(format!("chordial-demo-{}-{attempt}", process::id()));
        match DirBuilder::new().mode(0o700).create(&root) {
            Ok(()) => return Ok(root),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(source) => return Err(Failure::File { action: "create", path: root, source }),
        }
    }
}

fn has_ended(process: &mut process::Child) -> bool {
    !matches!(process.try_wait(), Ok(None))
}

/// Asks whoever runs with data directory `data`; `name` is for the error.
///
/// # Errors
/// It refuses, is gone, or does not answer within `limit`.
pub async fn ask(data: &Path, command: &Command, name: &str, limit: Duration) -> Result<Reply, Failure> {
    let asking = async { Client::connect(data).await?.request(command, |_| {}).await };
    match timeout(limit, asking).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::said(format!("{name} does not answer its control socket"), "see its log")),
    }
}

/// What another reply than the one asked for is.
pub fn unexpected(name: &str, reply: &Reply) -> Failure {
    Failure::said(format!("{name} gave another answer than the one asked for: {reply:?}"), "see its log")
}

/// A port of the loopback that is free for UDP and TCP now.
fn free_port() -> Result<SocketAddr, Failure> {
    let find = || -> io::Result<SocketAddr> {
        let mut last = io::ErrorKind::AddrInUse.into();
        for _ in 0..20 {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let addr = tcp.local_addr()?;
            match UdpSocket::bind(addr) {
                Ok(_) => return Ok(addr),
                Err(e) => last = e,
            }
        }
        Err(last)
    };
    find().map_err(|source| Failure::System { what: "no free port on 127.0.0.1", source })
}

const ATTEMPTS: u32 = 5;
/// From the start of a process to its first answer.
const START: Duration = Duration::from_secs(10);
/// A question that needs no call.
const ANSWER: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that is no chordial.
    fn script(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn role() -> Role {
        Role { name: "alice".into(), flags: vec!["--open".into()], peer: true }
    }

    #[tokio::test]
    async fn a_child_that_cannot_start_is_named_with_its_last_words() {
        let temp = tempfile::tempdir().unwrap();
        let program = script(temp.path(), "echo \"$@\" > args; echo 'chordial: no luck; try' >&2; exit 3");
        let mut stage = Stage::new(program, Some(temp.path().join("keep"))).unwrap();
        let e = stage.start(&role()).await.unwrap_err().to_string();
        assert!(e.contains("alice ended at once") && e.contains("chordial: no luck; try"), "{e}");
        let args = fs::read_to_string(stage.root().join("args")).unwrap();
        assert!(args.starts_with("start --headless --json --data ") && args.trim().ends_with(" --open"), "{args}");
        assert!(args.contains("--sip-listen 127.0.0.1:") && args.contains("--overlay-listen 127.0.0.1:"), "{args}");
    }

    #[tokio::test]
    async fn a_port_taken_meanwhile_is_tried_again_with_others() {
        let temp = tempfile::tempdir().unwrap();
        let program = script(temp.path(), "echo \"$@\" >> args; echo 'address already in use' >&2; exit 1");
        let mut stage = Stage::new(program, Some(temp.path().join("keep"))).unwrap();
        stage.start(&role()).await.unwrap_err();
        let args = fs::read_to_string(stage.root().join("args")).unwrap();
        let lines: std::collections::BTreeSet<&str> = args.lines().collect();
        assert_eq!(lines.len() as u32, ATTEMPTS, "every attempt has ports of its own:\n{args}");
    }

    #[tokio::test]
    async fn children_and_directory_go_with_the_stage() {
        let temp = tempfile::tempdir().unwrap();
        let program = script(temp.path(), "echo $$ > pid; exec sleep 600");
        let mut stage = Stage::new(program, None).unwrap();
        stage.spawn(&role()).unwrap();
        let root = stage.root().to_owned();
        let pid = loop {
            match fs::read_to_string(root.join("pid")).unwrap_or_default().trim().parse::<u32>() {
                Ok(pid) => break pid,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(stage);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && !root.exists());
    }

    #[test]
    fn a_full_directory_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "x").unwrap();
        let e = Stage::new("x".into(), Some(temp.path().to_owned())).unwrap_err().to_string();
        assert!(e.ends_with("is not empty"), "{e}");
        assert!(temp.path().join("thesis.txt").exists());
    }
}
