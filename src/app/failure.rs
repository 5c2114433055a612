//! Why a command was not carried out: what happened, to what, what to do next.

use crate::config::ConfigError;
use crate::io::control::ControlError;
use crate::io::disk::DiskError;
use crate::node::control::CommandError;
use serde_json::json;
use std::path::PathBuf;
use thiserror::Error;

/// A command that was not carried out.
#[derive(Debug, Error)]
pub enum Failure {
    /// The running program could not be asked, or refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The configuration file.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong and in which line.
        source: ConfigError,
    },
    /// A file that the user named.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A flag's value.
    #[error("{0}")]
    Flag(ConfigError),
    /// Neither `--data` nor a home directory.
    #[error("there is no place for the data directory: neither $CHORDIAL_DATA, $XDG_DATA_HOME nor $HOME is set")]
    NoHome,
    /// The operating system would not give what every program needs.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A step of the demo.
    #[error("the demo failed at \"{step}\": {why}")]
    Demo {
        /// The step.
        step: String,
        /// What happened there.
        why: String,
        /// The directory with the logs of all processes.
        logs: PathBuf,
    },
    /// It was done, did not succeed, and how it went stands on standard output already.
    #[error("{}", .0.what)]
    Reported(CommandError),
    /// Anything else.
    #[error("{}", .0.what)]
    Said(CommandError),
}

impl Failure {
    /// What happened and what to do next.
    pub fn said(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::Said(CommandError::new(what, next))
    }

    /// Both halves.
    pub fn error(&self) -> CommandError {
        let next = match self {
            Failure::Control(ControlError::Refused(e)) | Failure::Reported(e) | Failure::Said(e) => return e.clone(),
            Failure::Control(e) => e.next(),
            Failure::Disk(DiskError::InUse { .. }) => "stop it with chordial stop, or choose another --data",
            Failure::Disk(_) => "check who owns it and its mode, or choose another --data",
            Failure::Config { .. } => "correct it; config/chordial.toml shows every key",
            Failure::File { .. } => "check the path and who may read it",
            Failure::Flag(_) => "chordial start --help shows what fits",
            Failure::NoHome => "name one with --data",
            Failure::Demo { logs, .. } => {
                return CommandError::new(self.to_string(), format!("the logs are in {}", logs.display()));
            }
            Failure::System { .. } => "see what else this machine is busy with",
        };
        CommandError::new(self.to_string(), next)
    }

    /// One line on standard error; beside it, for scripts, one JSON line on standard output.
    pub fn report(&self, json: bool) {
        let error = self.error();
        if json && !matches!(self, Failure::Reported(_)) {
            super::cli::out(&json!({ "ok": false, "error": error }).to_string());
        }
        eprintln!("chordial: {}", error.to_string().replace('\n', " "));
    }
}
