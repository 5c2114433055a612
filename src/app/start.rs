//! `chordial start` up to the point where the node runs: configuration, data directory, log. All that
//! the user may have got wrong is found here, before a socket is opened.

use super::Failure;
use super::cli::{CreateArgs, JoinArgs, SimArgs, StartArgs};
use crate::config::{Config, ConfigError};
use crate::io::disk::{DataDir, Lock};
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// What the node is started with.
#[derive(Debug)]
pub struct Setup {
    /// File and flags.
    pub config: Config,
    /// Keys, accounts, peers known from the last time.
    pub data: DataDir,
    /// Ask nothing, found nothing and join nothing.
    pub headless: bool,
    /// Held while the node runs.
    pub lock: Lock,
}

/// Reads the configuration and takes the data directory.
///
/// # Errors
/// A configuration or a flag that does not fit; a data directory that cannot be made or is in use.
pub fn prepare(data: &Path, args: &StartArgs) -> Result<Setup, Failure> {
    let config = configuration(args)?;
    log(&config)?;
    let data = DataDir::open(data)?;
    let lock = data.lock()?;
    Ok(Setup { config, data, headless: args.headless, lock })
}

/// Runs the node until it is stopped.
///
/// # Errors
/// Whatever keeps it from running.
pub fn run(setup: Setup, json: bool) -> Result<(), Failure> {
    let _ = (setup, json);
    Err(absent("start"))
}

/// Founds an office in the data directory.
///
/// # Errors
/// The directory already holds an identity, or is in use.
pub fn create_office(data: &Path, args: &CreateArgs, json: bool) -> Result<(), Failure> {
    let _ = (data, args, json);
    Err(absent("office create"))
}

/// Joins an office by a code.
///
/// # Errors
/// The code is wrong, spent or expired, or the enroller cannot be reached.
pub fn join_office(data: &Path, args: &JoinArgs, json: bool) -> Result<(), Failure> {
    let _ = (data, args, json);
    Err(absent("join"))
}

/// Runs the simulator and prints its report.
///
/// # Errors
/// The simulation failed.
pub fn simulate(args: &SimArgs, json: bool) -> Result<(), Failure> {
    let _ = (args, json);
    Err(absent("sim"))
}

fn absent(command: &str) -> Failure {
    Failure::said(format!("{command} is not in this build"), "build the whole program")
}

fn configuration(args: &StartArgs) -> Result<Config, Failure> {
    let config = match &args.config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Failure::File { action: "read", path: path.clone(), source })?;
            Config::from_toml(&text).map_err(|source| Failure::Config { path: path.clone(), source })?
        }
    };
    config.with_flags(&args.flags).map_err(Failure::Flag)
}

/// What goes to standard error, by `log.level`.
fn log(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log.level).map_err(|_| {
        Failure::Flag(ConfigError::Flag {
            flag: "--log".into(),
            fault: format!("\"{}\" is neither a level nor a filter", config.log.level),
        })
    })?;
    // A second subscriber in one process (a test) changes nothing.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    Ok(())
}
