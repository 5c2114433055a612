//! `chordial start` up to the point where the node runs: configuration, data directory, log. All that
//! the user may have got wrong is found here, before a socket is opened.

use super::Failure;
use super::cli::{
    ArchiveArgs, CreateArgs, JoinArgs, RecoverArgs, SimArgs, StartArgs, addresses, asked, out, password, spinner, table,
};
use crate::config::{Config, ConfigError};
use crate::identity::{ContactLink, LINK_SCHEME, ShortCode};
use crate::io::disk::{self, DataDir, Lock};
use crate::io::media::clock;
use crate::io::{family, launch, office, pairing};
use crate::node::control::{CommandError, Event};
use crate::sim;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
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
    let Setup { config, data, headless: _, lock } = setup;
    let place = data.path().display().to_string();
    let ready = |ready: &launch::Ready| {
        if json {
            let line = json!({
                "event": "ready", "aor": ready.aor, "sip": ready.sip, "overlay": ready.overlay,
                "peer_id": ready.peer_id, "data": place,
            });
            return out(&line.to_string());
        }
        out(&format!("{}: phones at {}", ready.aor, ready.sip));
        if let (Some(overlay), Some(peer_id)) = (ready.overlay, &ready.peer_id) {
            out(&format!("peers at {overlay}, peer-ID {peer_id}"));
        }
        out(&format!("data directory {place}; chordial stop --data {place} ends it"));
    };
    let on_event = |event: &Event| {
        if json {
            match serde_json::to_value(event) {
                Ok(line) => out(&line.to_string()),
                Err(fault) => tracing::warn!(%fault, "an event that is no JSON"),
            }
        } else {
            out(&said(event));
        }
    };
    let ended = launch::run(config, data, ready, on_event);
    drop(lock);
    ended.map_err(|e| Failure::said(e.to_string(), e.next()))
}

/// An event as a line for a person.
fn said(event: &Event) -> String {
    match event {
        Event::Joined { peers: 0 } => "alone on the ring".into(),
        Event::Joined { peers } => format!("on the ring, {peers} successors known"),
        Event::Discovered { address } => format!("found {address} on the local network, joined its ring"),
        Event::Mapped { address, via } => format!("reachable from outside at {address}: opened by {via} on the router"),
        Event::Moved { address } => format!("this machine has another address: peers at {address}"),
        Event::Alone { why } => format!("alone for now: {why}; going on trying"),
        Event::JoinFailed { why } => format!("not joined: {why}"),
        Event::Registered { aor } => format!("{aor} is registered"),
        Event::RegistrationFailed { aor, status, why } => format!("{aor} is not registered: {status} {why}"),
        Event::Warning { what, next } => format!("warning: {what}; {next}"),
        Event::Incoming { call, from, key, standing, waiting, account, diverted } => {
            let who = match standing.as_str() {
                "" => String::new(),
                "changed" => format!(" by ANOTHER KEY ({key}) than the one that is known,"),
                "new-key" => format!(" by a new key ({key}),"),
                word => format!(" ({key}, {word})"),
            };
            let besides = if *waiting { " too" } else { "" };
            let by = if account.is_empty() { String::new() } else { format!(" by the account {account}") };
            let was = if diverted.is_empty() { String::new() } else { format!(", diverted from {diverted}") };
            format!("call {call}: {from}{who} calls{besides}{by}{was}; chordial answer {call} takes it")
        }
        Event::Introduced { name, aor, key, by, known } if known.is_empty() => {
            format!("{by} introduces {name}, {aor}, key {key}; chordial contacts accept {key} takes them up")
        }
        Event::Introduced { aor, key, by, known, .. } => {
            format!("{by} says that {aor} has the key {key}, AND {known} IS KNOWN HERE; ask them")
        }
        Event::Revoked { name, key } if name.is_empty() => format!("{key} is revoked and counts no more"),
        Event::Revoked { name, key } => format!("{name} ({key}) is revoked and counts no more"),
        Event::OfficeMerged { office, users, renamed } => {
            format!("the office {office} is merged into this one: {users} users{}", super::cli::renamed(renamed))
        }
        Event::OfficeContinues { office, user } => {
            format!("this device is of the office {office} from now on, as {user}")
        }
        Event::Knocked { aor, key, changed: false } => {
            format!("{aor} (key {key}) knocked; chordial contacts accept {aor} lets them ring")
        }
        Event::Knocked { aor, key, changed: true } => {
            format!(
                "{aor} shows ANOTHER KEY ({key}) than the one that is known; ask them before chordial contacts accept {aor}"
            )
        }
        Event::Ringing { call } => format!("call {call}: rings"),
        Event::Answered { call, setup_ms, codec } => format!("call {call}: answered after {setup_ms:.0} ms, {codec}"),
        Event::Paired { user, right: true } => format!("a machine has typed in the digits for {user} and joins"),
        Event::Paired { user, right: false } => {
            format!("three wrong codes: the invite for {user} is void; somebody may be guessing")
        }
        Event::Lease { lease, held: true, seconds, .. } => format!("has {lease} for {seconds} s"),
        Event::Lease { lease, by: Some(by), seconds, .. } => format!("{lease} is {by}'s for {seconds} s"),
        Event::Lease { lease, .. } => format!("{lease} is lost: others may have it now"),
        Event::Blob { blob, done, of, state } => format!("blob {blob}: {state}, {done} of {of} chunks"),
        Event::Transfer { call, status, reason } => format!("call {call}: its transfer: {status} {reason}"),
        Event::Transferred { call, to, by } => format!("call {call}: its other end sends on to {to}: call {by}"),
        Event::Held { call, here, there } => format!("call {call}: {}", super::cli::held(*here, *there)),
        Event::Dtmf { call, digit } => format!("call {call}: digit {digit}"),
        Event::Message { message } => super::cli::message_line(message),
        Event::MessageState { message } => super::cli::message_line(message),
        Event::Ended { call, report } => {
            format!("call {call}: {} after {:.1} s, {}", report.result, report.talk_s, report.reason)
        }
    }
}

/// Founds an office in the data directory.
///
/// # Errors
/// The directory already holds an identity, or is in use.
pub fn create_office(data: &Path, args: &CreateArgs, json: bool) -> Result<(), Failure> {
    let data = DataDir::open(data)?;
    let _lock = data.lock()?;
    let made = office::create(&data, &args.office, &args.user);
    let (identity, sheet) = made.map_err(|e| Failure::said(e.to_string(), e.next()))?;
    let recovery = sheet.secret_text();
    if json {
        out(&json!({ "created": identity.overlay(), "aor": identity.aor(), "recovery": recovery }).to_string());
        return Ok(());
    }
    out(&format!("founded the office {}; you are {}", identity.overlay(), identity.aor()));
    out("");
    out("Recovery sheet: whoever has it can take over the office. It is kept nowhere else; print it and lock it away.");
    out(&recovery);
    out("");
    out("Next: chordial start, then chordial office invite USER for each person.");
    Ok(())
}

/// Makes this machine's device an administrator's again, from the recovery sheet.
///
/// # Errors
/// The directory already holds an identity; the sheet cannot be read.
pub fn recover_office(data: &Path, args: &RecoverArgs, json: bool) -> Result<(), Failure> {
    let data = DataDir::open(data)?;
    let _lock = data.lock()?;
    let sheet = password::ask("Recovery sheet (the groups of letters and digits): ")?;
    let made = office::recover(&data, &args.office, &args.user, &sheet);
    let identity = made.map_err(|e| Failure::said(e.to_string(), e.next()))?;
    if json {
        out(&json!({ "recovered": identity.overlay(), "aor": identity.aor() }).to_string());
        return Ok(());
    }
    out(&format!("you administer the office {} again, as {}", identity.overlay(), identity.aor()));
    out(
        "Next: chordial start --bootstrap ADDRESS of any member; then chordial office users, and revoke the key of the lost",
    );
    out(
        "machine: its book of the office comes from other administrators, and from members as they ask for certificates.",
    );
    Ok(())
}

/// Writes identity, accounts, book and revocations of this device into an archive under a passphrase.
///
/// # Errors
/// No identity here; the file exists or cannot be written; no passphrase.
pub fn backup(data: &Path, args: &ArchiveArgs, json: bool) -> Result<(), Failure> {
    let data = DataDir::open(data)?;
    if data.read(disk::IDENTITY)?.is_none() {
        let what = format!("{} holds no identity", data.path().display());
        return Err(Failure::said(what, "choose the --data of a device that is in use"));
    }
    let passphrase = password::ask_twice("Passphrase for the backup: ")?;
    let archive = office::backup(&data, &passphrase).map_err(|e| Failure::said(e.to_string(), e.next()))?;
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file)?;
        file.write_all(&archive)?;
        file.sync_all()
    };
    write().map_err(|source| Failure::File { action: "write", path: args.file.clone(), source })?;
    if json {
        out(&json!({ "backup": args.file, "bytes": archive.len() }).to_string());
    } else {
        let file = args.file.display();
        out(&format!("{file}: {} bytes; without the passphrase nobody reads it, you neither", archive.len()));
    }
    Ok(())
}

/// Reads an archive of [`backup`] into an empty data directory.
///
/// # Errors
/// The directory already holds an identity; the passphrase is wrong or the file damaged.
pub fn restore(data: &Path, args: &ArchiveArgs, json: bool) -> Result<(), Failure> {
    let archive = std::fs::read(&args.file);
    let archive = archive.map_err(|source| Failure::File { action: "read", path: args.file.clone(), source })?;
    let data = DataDir::open(data)?;
    let _lock = data.lock()?;
    let passphrase = password::ask("Passphrase of the backup: ")?;
    let file = args.file.display();
    let restored = office::restore(&data, &archive, &passphrase);
    let identity = restored.map_err(|e| Failure::said(format!("{file}: {e}"), e.next()))?;
    if json {
        out(&json!({ "restored": identity.aor() }).to_string());
    } else {
        out(&format!(
            "{} is restored; see that the old machine does not run any more, then: chordial start",
            identity.aor()
        ));
    }
    Ok(())
}

/// Joins an office by a code.
///
/// # Errors
/// The code is wrong, spent or expired, or the enroller cannot be reached.
pub fn join_office(data: &Path, args: &JoinArgs, json: bool) -> Result<(), Failure> {
    let data = DataDir::open(data)?;
    let _lock = data.lock()?;
    let is_link =
        |code: &str| code.trim().get(..LINK_SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(LINK_SCHEME));
    let joined = match (&args.code, &args.via) {
        (Some(link), _) if is_link(link) => {
            let wrong = |fault| Failure::said(format!("the link cannot be read: {fault}"), "copy it again");
            family::join(&data, ContactLink::parse(link).map_err(wrong)?, &args.name)
        }
        (Some(code), None) if ShortCode::parse(code).is_none() => office::join(&data, code, &args.label),
        (code, via) => {
            let via = via.as_deref().map(addresses).transpose()?.unwrap_or_default();
            let read = |typed: &str| {
                let wrong = || Failure::said("a short code has six digits", "read it off the inviter's screen again");
                ShortCode::parse(typed).ok_or_else(wrong)
            };
            let short = match code {
                Some(code) => read(code)?,
                None => read(&asked("Code on the inviter's screen: ")?)?,
            };
            let bar = if json { indicatif::ProgressBar::hidden() } else { spinner() };
            let joined = pairing::join(&data, &short, &via, &args.label, |what| bar.set_message(what.to_owned()));
            bar.finish_and_clear();
            joined
        }
    };
    let identity = joined.map_err(|e| Failure::said(e.to_string(), e.next()))?;
    if json {
        out(&json!({ "joined": identity.overlay(), "aor": identity.aor() }).to_string());
    } else {
        let kind = if identity.is_of_an_office() { "office" } else { "family" };
        out(&format!("joined the {kind} {} as {}; now: chordial start", identity.overlay(), identity.aor()));
    }
    Ok(())
}

/// Runs the simulator and prints its report.
///
/// # Errors
/// The simulation failed.
pub fn simulate(args: &SimArgs, json: bool) -> Result<(), Failure> {
    let defaults = sim::Options::default();
    let options = sim::Options {
        peers: args.peers as usize,
        supernodes: usize::from(args.supernodes),
        seed: args.seed,
        lookups: args.lookups.map_or(defaults.lookups, |n| n as usize),
        link: sim::LinkModel {
            latency: Duration::from_secs_f64(args.latency_ms.clamp(0.0, 10_000.0) / 1000.0),
            loss: args.loss,
        },
        settle: args.settle_seconds.map_or(defaults.settle, |s| Duration::from_secs(s.into())),
        plain: args.plain,
        ..defaults
    };
    let begun = clock::now();
    let bar = spinner();
    let report = sim::run(&options, |p| {
        bar.set_message(format!(
            "{} of {} joined, {} lookups answered, {:.0} s",
            p.joined, args.peers, p.answered, p.virtual_s
        ));
    });
    bar.finish_and_clear();
    let mut report = report.map_err(|e| Failure::said(e.to_string(), "see chordial sim --help"))?;
    report.wall_s = clock::now().since(begun).as_secs_f64();
    report.peak_rss_kb = peak_rss_kb();
    if json {
        match serde_json::to_value(&report) {
            Ok(line) => out(&line.to_string()),
            Err(e) => return Err(Failure::said(e.to_string(), "report this")),
        }
    } else {
        out(&table([
            ["peers".into(), format!("{} of {} in the ring", report.joined, report.peers)],
            ["lookups".into(), format!("{} found of {}", report.found, report.lookups)],
            [
                "hops".into(),
                format!("mean {:.2}, 1st percentile {}, 99th {}", report.hops_mean, report.hops_p1, report.hops_p99),
            ],
            [
                "time".into(),
                format!("mean {:.0} ms, 99th percentile {:.0} ms", report.lookup_ms_mean, report.lookup_ms_p99),
            ],
            [
                "messages".into(),
                format!("{:.0} a peer, {} at the busiest", report.messages_per_peer, report.peak_messages),
            ],
            [
                "settled".into(),
                format!("{:.0} bytes a peer and second, both ways", report.settled_bytes_per_peer_second),
            ],
            ["while looking up".into(), format!("{:.2} messages a peer and second", report.messages_per_peer_second)],
            [
                "cost".into(),
                format!(
                    "{:.0} virtual s in {:.1} s, {} MB at most",
                    report.virtual_s,
                    report.wall_s,
                    report.peak_rss_kb / 1024
                ),
            ],
            ["history".into(), report.history_hash.clone()],
        ]));
    }
    if report.joined < report.peers || report.found < report.lookups {
        let what = format!(
            "{} peers did not join, {} lookups failed",
            report.peers - report.joined,
            report.lookups - report.found
        );
        return Err(Failure::Reported(CommandError::new(
            what,
            "repeat it with the same --seed; it fails in the same way",
        )));
    }
    Ok(())
}

/// The most memory that this process has had, kilobytes; 0 where the system does not say.
fn peak_rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = log.with_ansi(std::io::stderr().is_terminal()).try_init();
    Ok(())
}
