//! `chordial start` up to the point where the node runs: configuration, data directory, identity, log.
//! All that the user may have got wrong is found here, before a socket is opened. And the commands that
//! work on a data directory while nothing runs on it.

mod office;

pub use office::{create_office, join_office};

use super::Failure;
use super::cli::{SimArgs, StartArgs};
use crate::config::{Config, ConfigError};
use crate::core::Redacted;
use crate::identity::{Identity, IdentityError};
use crate::io::disk::{DataDir, IDENTITY, Lock, PEERS};
use crate::io::{seed, wall};
use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// What the node is started with.
#[derive(Debug)]
pub struct Setup {
    /// File and flags.
    pub config: Config,
    /// Where what changes is kept.
    pub data: DataDir,
    /// Held while the node runs.
    pub lock: Lock,
    /// Who this device is; none for a plain SIP phone.
    pub identity: Option<Identity>,
    /// Of the account, for a plain SIP phone.
    pub password: Option<Redacted<String>>,
    /// The text of the file of accounts that the configuration names (`user,password` a line), and its path.
    pub phones: Option<(PathBuf, Redacted<String>)>,
    /// Peers known from the last time.
    pub known_peers: Vec<SocketAddr>,
    /// Ask nothing, found nothing and join nothing.
    pub headless: bool,
}

/// Reads the configuration, takes the data directory, and finds or makes the identity.
///
/// # Errors
/// A configuration or a flag that does not fit; a file that cannot be read; a data directory that cannot be made or
/// is in use; a device that belongs to no overlay and was not told to found one.
pub fn prepare(data: &Path, args: &StartArgs) -> Result<Setup, Failure> {
    let config = configuration(args)?;
    log(&config)?;
    let (phones, password) = (phones(&config)?, password(&config)?);
    let data = DataDir::open(data)?;
    let lock = data.lock()?;
    let identity = match config.account.registrar {
        Some(_) => None,
        None => Some(identity(&config, &data)?),
    };
    let known_peers = data.read(PEERS)?.unwrap_or_default();
    let known_peers = String::from_utf8_lossy(&known_peers).lines().filter_map(|l| l.trim().parse().ok()).collect();
    Ok(Setup { config, data, lock, identity, password, phones, known_peers, headless: args.headless })
}

/// Runs the node until it is stopped.
///
/// # Errors
/// Whatever keeps it from running.
pub fn run(setup: Setup, json: bool) -> Result<(), Failure> {
    let _ = (setup, json);
    Err(absent("start"))
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
            Config::from_toml(&text_of(path)?).map_err(|source| Failure::Config { path: path.clone(), source })?
        }
    };
    config.with_flags(&args.flags).map_err(Failure::Flag)
}

/// The identity of this device: the one it has, else a new one in an open overlay. An office is
/// founded or joined by a command of its own.
fn identity(config: &Config, data: &DataDir) -> Result<Identity, Failure> {
    let now = wall::now();
    let open = config.overlay.open || config.overlay.lab_clear;
    if let Some(bytes) = data.read(IDENTITY)? {
        let path = data.path().join(IDENTITY);
        let identity = Identity::from_bytes(&bytes, now).map_err(|source| Failure::Identity { path, source })?;
        fits(config, &identity, open)?;
        return Ok(identity);
    }
    if !open {
        return Err(Failure::said(
            format!("this device belongs to no office yet (data directory {})", data.path().display()),
            "chordial office create NAME founds one, chordial join CODE joins one; --open --name USER needs none",
        ));
    }
    if config.user.name.is_empty() {
        return Err(Failure::said("the device's user has no name yet", "give one with --name USER"));
    }
    let mut rng = seed::rng().map_err(|source| Failure::System { what: "cannot make keys", source })?;
    let identity = Identity::open(&config.overlay.name, &config.user.name, now, &mut rng);
    let identity = identity.map_err(|e| {
        let what = format!("{}@{}: {e}", config.user.name, config.overlay.name);
        Failure::said(what, "choose another --name or --overlay")
    })?;
    data.write(IDENTITY, identity.to_bytes().reveal())?;
    Ok(identity)
}

/// Flags may repeat what stands in the certificate; they cannot change it.
fn fits(config: &Config, identity: &Identity, open: bool) -> Result<(), Failure> {
    let has = format!("this device is {} already", identity.aor());
    let other = |what: &str| {
        Failure::said(format!("{has}: {what}"), "leave that flag out, or use another --data for another identity")
    };
    let is_open = matches!(identity.anchor, crate::identity::TrustAnchor::Open { .. });
    if open && !is_open {
        return Err(other("it belongs to an office, which is no open overlay"));
    }
    let name = &config.user.name;
    if !name.is_empty() && crate::identity::canonical_user(name).ok().as_deref() != Some(identity.user()) {
        return Err(other(&format!("it cannot be {name}")));
    }
    let overlay = &config.overlay.name;
    let named = *overlay != Config::default().overlay.name;
    if named && crate::identity::canonical_overlay(overlay).ok().as_deref() != Some(identity.overlay()) {
        return Err(other(&format!("it is not of overlay {overlay}")));
    }
    Ok(())
}

/// The password of a plain SIP phone's account.
fn password(config: &Config) -> Result<Option<Redacted<String>>, Failure> {
    let path = &config.account.password_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = text_of(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let what = format!("{} holds no password", path.display());
        return Err(Failure::said(what, "put it on its first line"));
    }
    Ok(Some(Redacted::new(line.to_owned())))
}

fn phones(config: &Config) -> Result<Option<(PathBuf, Redacted<String>)>, Failure> {
    let path = &config.sip.phones;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    Ok(Some((path.clone(), Redacted::new(text_of(path)?))))
}

fn text_of(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|source| Failure::File { action: "read", path: path.to_owned(), source })
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = log.with_ansi(std::io::stderr().is_terminal()).try_init();
    Ok(())
}

/// What to do about an identity that cannot be used.
pub(super) fn identity_next(e: &IdentityError) -> &'static str {
    match e {
        IdentityError::Expired(_) | IdentityError::NotYetValid(_) => {
            "check this machine's clock; else join again with a new code"
        }
        _ => "restore the file from a backup, or use another --data and join again",
    }
}

#[cfg(test)]
mod tests;
