//! A PulseAudio daemon of the test's own, with two loudspeakers that nobody hears.

use crate::process::Process;
use crate::tools::eventually;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The daemon and where it is.
pub struct Server {
    dir: PathBuf,
    process: Process,
}

impl Server {
    /// Starts the daemon and waits until it answers.
    pub fn start(dir: &Path) -> Server {
        let dir = dir.join("pulse");
        std::fs::create_dir_all(&dir).unwrap();
        Server { process: spawn(&dir), dir }.ready()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
        // The next one would take a dead socket for a living daemon's.
        let _ = std::fs::remove_file(self.dir.join("native"));
    }

    /// Starts it again after [`Server::kill`].
    pub fn revive(self) -> Server {
        let dir = self.dir.clone();
        drop(self);
        Server { process: spawn(&dir), dir }.ready()
    }

    /// What `$PULSE_SERVER` has to say.
    pub fn address(&self) -> String {
        format!("unix:{}", self.dir.join("native").display())
    }

    /// One of its tools.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PULSE_SERVER", self.address()).env("HOME", &self.dir);
        command
    }

    /// What `pactl` prints.
    pub fn pactl(&self, args: &[&str]) -> Result<String, String> {
        let out = self.tool("pactl").args(args).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    }

    fn ready(self) -> Server {
        eventually("the sound server answers", || self.pactl(&["info"]).map(drop));
        self
    }
}

fn spawn(dir: &Path) -> Process {
    let mut command = Command::new("pulseaudio");
    let socket = dir.join("native");
    command.env_remove("PULSE_SERVER").env("HOME", dir).env("PULSE_RUNTIME_PATH", dir).env("XDG_RUNTIME_DIR", dir);
    command.args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes"]);
    command.arg("-L").arg(format!("module-native-protocol-unix socket={} auth-anonymous=1", socket.display()));
    for sink in ["a", "b"] {
        let properties = format!("sink_properties=device.description=Sink-{}", sink.to_uppercase());
        command.arg("-L").arg(format!("module-null-sink sink_name={sink} rate=48000 {properties}"));
    }
    command
        .args(["-L", "module-remap-source source_name=mic master=a.monitor source_properties=device.description=Mic"]);
    Process::start("pulseaudio", &mut command, dir)
}
