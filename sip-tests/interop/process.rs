//! A child process with its output in files; it never outlives its handle.

use crate::tools::DEADLINE;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A running or ended child.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and error go to files in `dir` called after `name`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Process {
        Process::start_on(Stdio::null(), name, command, dir)
    }

    /// The same with commands by its standard input.
    pub fn start_commanded(name: &str, command: &mut Command, dir: &Path) -> (Process, ChildStdin) {
        let mut process = Process::start_on(Stdio::piped(), name, command, dir);
        let input = process.child.stdin.take().expect("piped");
        (process, input)
    }

    fn start_on(stdin: Stdio, name: &str, command: &mut Command, dir: &Path) -> Process {
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let file = |path: &Path| File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        command.stdin(stdin).stdout(file(&stdout)).stderr(file(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Process { name: name.into(), child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Waits for its own end; None when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + within;
        loop {
            match self.ended() {
                Some(status) => return Some(status),
                None if Instant::now() > end => return None,
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end by a signal (`TERM`, `INT`) and returns how it did; kills it when it does not.
    pub fn signal(&mut self, signal: &str) -> Option<ExitStatus> {
        if self.ended().is_none() {
            let _ = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.pid())).status();
        }
        let status = self.wait(DEADLINE);
        self.kill();
        status
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended();
        self.kill();
        if thread::panicking() {
            let tail = |text: String| {
                let lines: Vec<_> = text.lines().collect();
                lines[lines.len().saturating_sub(30)..].join("\n")
            };
            eprintln!("--- {} ({ended:?}), standard output:\n{}", self.name, tail(self.stdout()));
            eprintln!("--- {}, standard error:\n{}", self.name, tail(self.stderr()));
        }
    }
}

/// A command that was run to its end.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; None when it was killed for taking too long or by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Exit code 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs `command` to its end, at most `within`.
pub fn run(name: &str, command: &mut Command, dir: &Path, within: Duration) -> Outcome {
    let mut process = Process::start(name, command, dir);
    let status = process.wait(within);
    process.kill();
    Outcome { code: status.and_then(|s| s.code()), stdout: process.stdout(), stderr: process.stderr() }
}
