//! From configuration and data directory to a running [`Driver`]: the identity is read or made, the accounts are
//! read, the sockets are opened. Whatever the user got wrong is said here in one line, before anything runs.

use super::audio::{AudioError, SinkSpec, SourceSpec, device};
use super::control::{ControlError, Server};
use super::disk::{self, DataDir, DiskError};
use super::dns::Dns;
use super::driver::{self, Driver, RunError, unix_now};
use super::media::{EngineConfig, EngineError, clock};
use super::network;
use super::probe::Prober;
use super::proxy::Proxy;
use super::relay::Relays;
use super::store::Records;
use super::surroundings::{Fixed, Surroundings};
use super::transport::{self, BindError, Certificate, Credentials, Endpoint, Event as WireEvent, Limits, Listen};
use super::voice::{self, Voices};
use crate::config::{Bootstrap, Config, Encryption, Ice, OVERLAY_PORT, PhoneAuth};
use crate::core::{Redacted, UnixTime};
use crate::identity::{Acquaintances, Former, Identity, IdentityError, Merges, Revocations, TrustAnchor};
use crate::media::codec;
use crate::node::{Node, Setup, control};
use crate::pbx::Accounts;
use crate::secure::Keys;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;

const SIP_PORT: u16 = 5060;
/// Ports tried after the usual one when the user named none.
const NEXT_PORTS: u16 = 100;

/// Why a node could not be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Something in the configuration or on the command line does not fit.
    #[error("{what}")]
    Setting {
        /// What, and where.
        what: String,
        /// What to do next.
        next: &'static str,
    },
    /// No identity yet, and no word that one is to be made.
    #[error("{0} holds no identity")]
    NoIdentity(String),
    /// The identity cannot be used.
    #[error("{path}: {source}")]
    Identity {
        /// The file.
        path: String,
        /// Why.
        source: IdentityError,
    },
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The media threads.
    #[error(transparent)]
    Media(#[from] EngineError),
    /// A WAV file.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// It ran and ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl LaunchError {
    /// What to do next.
    pub fn next(&self) -> &str {
        match self {
            LaunchError::Setting { next, .. } => next,
            LaunchError::NoIdentity(_) => {
                "found an office with `chordial office create NAME`, join one with `chordial join CODE`, or use --open --name USER"
            }
            LaunchError::Identity { .. } => "restore it from a copy, or choose another --data",
            LaunchError::Disk(_) => "check its owner and mode, or choose another --data",
            LaunchError::Bind(BindError::PhoneCertificate(_)) => {
                "name files of PEM that belong together, or leave --certificate out and one is made"
            }
            LaunchError::Bind(BindError::NotALaboratory(_)) => "listen on 127.0.0.1, or leave --lab-clear out",
            LaunchError::Bind(_) => "choose another address, or leave the flag out and the next free port is taken",
            LaunchError::Control(e) => e.next(),
            LaunchError::Media(_) => "widen media.ports in the configuration",
            LaunchError::Audio(AudioError::Device(e)) => e.next(),
            LaunchError::Audio(_) => "name a WAV file of 16 bit PCM that can be read",
            LaunchError::Run(RunError::NotJoined(_)) => "check the address and that a peer of this overlay runs there",
            LaunchError::System { .. } | LaunchError::Run(_) => "see the cause and start again",
        }
    }
}

fn setting(what: impl Into<String>, next: &'static str) -> LaunchError {
    LaunchError::Setting { what: what.into(), next }
}

/// What a running node tells about itself when it has its sockets.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The user's address of record.
    pub aor: String,
    /// Where standard phones reach it.
    pub sip: SocketAddr,
    /// Where peers reach it.
    pub overlay: Option<SocketAddr>,
    /// Its peer-ID.
    pub peer_id: Option<String>,
}

/// Runs a node until it is stopped. `ready` is called once it is in a ring (a plain SIP phone: once it has its sockets),
/// `on_event` for everything after that concerns nobody's command in particular.
///
/// # Errors
/// [`LaunchError`].
pub fn run(
    config: Config,
    data: DataDir,
    ready: impl FnOnce(&Ready),
    mut on_event: impl FnMut(&control::Event),
) -> Result<(), LaunchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| LaunchError::System { what: "starting the runtime", source })?;
    runtime.block_on(async {
        let (driver, server, asks, about) = assemble(config, data)?;
        let mut ready = Some(ready);
        if about.peer_id.is_none()
            && let Some(ready) = ready.take()
        {
            ready(&about);
        }
        let serving = tokio::spawn(server.serve(asks));
        let told = |event: &control::Event| {
            if let control::Event::Joined { .. } = event
                && let Some(ready) = ready.take()
            {
                ready(&about);
            }
            on_event(event);
        };
        let ended = driver.run(told).await;
        // The driver's end of the channel is gone: the server lets every client have what was answered.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), serving).await;
        Ok(ended?)
    })
}

type Asks = mpsc::Sender<super::control::ControlRequest>;

fn assemble(config: Config, data: DataDir) -> Result<(Driver, Server, Asks, Ready), LaunchError> {
    let unix = unix_now();
    check(&config)?;
    let (source, sink) = (spec(voice::source(&config.media.audio_in))?, spec(voice::sink(&config.media.audio_out))?);
    source.check()?;
    announce(&source, &sink);
    let plain = config.phone.registrar.is_some();
    let identity = if plain { None } else { Some(identity(&config, &data, unix)?) };
    let (password, passwords) = (password(&config)?, passwords(&config)?);
    let (mut identity, accounts) = (identity, accounts(&config, &data)?);
    delegate(identity.as_mut(), &accounts, &data, unix)?;
    let messages = messages(&data)?;
    let server = Server::bind(data.path())?;
    let mut relays = Relays::new(&config).map_err(|what| setting(what, "write addresses such as 10.1.0.0/16"))?;
    let shown = if identity.is_some() { Some(certificate(&config, &data)?) } else { None };
    let proxy = proxy(&config)?;
    let (endpoint, wire) = open(&config, identity.as_ref(), shown.as_ref(), proxy.clone())?;
    relays.hand_links_to(endpoint.incoming());
    let towards = config.overlay.bootstrap.iter().find_map(|b| match b {
        Bootstrap::Addr(addr) => Some(*addr),
        Bootstrap::Host { .. } | Bootstrap::Domain(_) => None,
    });
    let towards = towards.or(config.phone.registrar);
    let sip_listen = endpoint.sip_addr().unwrap_or_else(unspecified);
    let overlay_listen = endpoint.overlay_addr().unwrap_or_else(unspecified);
    let fixed = Fixed {
        sip_listen,
        overlay_listen,
        both_families: endpoint.both_families(),
        advertise: config.overlay.advertise,
        towards,
        overlay: identity.as_ref().filter(|_| !config.overlay.lab_clear).map(|i| (i.anchor.clone(), i.peer_id())),
        discover: config.overlay.discover,
        map_port: config.overlay.map_port,
    };
    let place = fixed.place();
    let (sip, overlay) = (place.sip, place.overlay);
    if config.sip.phone_auth == PhoneAuth::None && !sip_listen.ip().is_loopback() && !transport::in_a_namespace() {
        let what = format!("--phone-auth none on {sip_listen}, which others can reach");
        return Err(setting(what, "listen on 127.0.0.1, or use --phone-auth digest"));
    }
    let (media_out, media) = mpsc::channel(4096);
    let ports = (config.media.ports != (0, 0)).then_some(config.media.ports.0..=config.media.ports.1);
    let encrypts = identity.is_some() && !config.overlay.lab_clear && config.media.encryption != Encryption::Off;
    let keys =
        if encrypts { Some(voice::keys().map_err(|why| setting(why, "set media.encryption to off"))?) } else { None };
    let fingerprint = keys.as_ref().map(Keys::fingerprint);
    let tcp = config.media.ice != Ice::Off;
    let engine =
        driver::engine(EngineConfig { bind: sip.ip(), ports, threads: 0, keys, tcp, proxy: proxy.clone() }, media_out)?;
    let mut rng = super::seed::rng().map_err(|source| LaunchError::System { what: "reading randomness", source })?;
    let aside = mpsc::channel(64);
    let maps = fixed.mappable(&place).is_some();
    let surroundings = Surroundings::begin(fixed, place.clone(), rng.fork(), aside.0.clone());
    let dns = Dns::new(config.dns.server);
    let mut setup = Setup::new(config, identity, sip, overlay, unix);
    setup.voice_fingerprint = fingerprint;
    setup.system = Some(system_now());
    (setup.sip_listen, setup.overlay_listen) = (sip_listen, overlay_listen);
    (setup.also, setup.maps) = (place.also, maps);
    // A credential is told over a link that proves who asks; in the clear laboratory there is none.
    setup.relays = setup.identity.is_some() && !setup.config.overlay.lab_clear;
    setup.passwords = passwords;
    (setup.accounts, setup.password, setup.known_peers) = (accounts, password, known_peers(&data)?);
    setup.messages = messages;
    let (reports, recorded) = mpsc::channel(64);
    let mut records = None;
    if setup.identity.is_some() {
        let started = Records::start(&data, reports);
        let system = |source| LaunchError::System { what: "starting the thread that keeps records", source };
        let (writer, found) = started.map_err(system)?;
        (setup.stored, setup.damage) = (Some(found.stored), found.damage);
        records = Some(writer);
    }
    setup.hosts = data.read(disk::HOSTS)?.unwrap_or_default();
    setup.nat = data.read(disk::NAT)?.unwrap_or_default();
    let has_place = setup.identity.as_ref().is_none_or(Identity::has_place);
    setup.revocations = revocations(&data, setup.identity.as_ref())?;
    setup.settings = data.read(disk::SETTINGS)?;
    (setup.shares, setup.attempts) = (data.read(disk::SHARES)?, data.read(disk::ATTEMPTS)?);
    setup.acquaintances = acquaintances(&data)?;
    (setup.former, setup.merges) = (former(&data)?, merges(&data)?);
    let node = Node::new(clock::now(), setup, rng);
    let status = node.status(clock::now());
    let ready = Ready {
        aor: status.aor,
        sip,
        overlay: status.listen.advertised,
        peer_id: Some(status.peer_id).filter(|id| !id.is_empty() && has_place),
    };
    let (asks, control) = mpsc::channel(64);
    let voices = Voices::new(engine, sip.ip(), source, sink);
    let waiting = BTreeMap::new();
    let prober = Prober::new(aside.0.clone());
    let driver = Driver {
        node,
        endpoint,
        wire,
        voices,
        relays,
        prober,
        proxy,
        media,
        control,
        surroundings,
        aside,
        dns,
        data,
        records,
        recorded,
        waiting,
        unsaved: BTreeMap::new(),
    };
    Ok((driver, server, asks, ready))
}

/// The system's monotonic clock, for a library that wants it.
#[allow(clippy::disallowed_methods, reason = "io is where clocks are read")]
fn system_now() -> std::time::Instant {
    std::time::Instant::now()
}

fn spec<T>(read: Result<T, String>) -> Result<T, LaunchError> {
    read.map_err(|what| setting(what, "use auto, device, device:NAME, wav:FILE, tone (in only) or null"))
}

/// `auto` on a machine without a sound server is silence, which is worth a line.
fn announce(source: &SourceSpec, sink: &SinkSpec) {
    let auto = *source == SourceSpec::Auto || *sink == SinkSpec::Auto;
    if auto && !device::is_there() {
        tracing::info!("no sound server here: calls are silent unless --audio-in and --audio-out name something else");
    }
}

fn check(config: &Config) -> Result<(), LaunchError> {
    for name in &config.media.codec {
        if codec::find(name).is_none() {
            let known: Vec<_> = codec::codecs().iter().map(|c| c.name).collect();
            return Err(setting(
                format!("--codec: no codec \"{name}\"; there are {}", known.join(", ")),
                "name one of them",
            ));
        }
    }
    if let Some(wrong) = config.sip.redirect.iter().find(|p| p.parse::<crate::nat::turn::peers::Prefix>().is_err()) {
        let what = format!("--redirect: \"{wrong}\" is neither an address nor ADDRESS/BITS");
        return Err(setting(what, "write addresses such as 192.0.2.7"));
    }
    match config.overlay.role.as_str() {
        "auto" | "supernode" | "ordinary" => {}
        role => return Err(setting(format!("--role: no role \"{role}\""), "use auto, supernode or ordinary")),
    }
    if !["udp", "tcp"].contains(&config.phone.transport.as_str()) {
        return Err(setting(format!("phone.transport: \"{}\"", config.phone.transport), "use udp or tcp"));
    }
    if config.phone.registrar.is_some() && config.user.name.is_empty() {
        return Err(setting("--registrar without --name", "name the account's user with --name"));
    }
    Ok(())
}

/// Reads the identity, or makes one in an open overlay.
fn identity(config: &Config, data: &DataDir, unix: UnixTime) -> Result<Identity, LaunchError> {
    let path = || data.path().join(disk::IDENTITY).display().to_string();
    let fault = |source| LaunchError::Identity { path: path(), source };
    let open = config.overlay.open || config.overlay.lab_clear;
    if let Some(bytes) = data.read(disk::IDENTITY)? {
        let identity = Identity::from_bytes(&bytes, unix).map_err(fault)?;
        let office = matches!(identity.anchor, TrustAnchor::Office { .. });
        let another = "choose another --data for another user or overlay";
        if open && office {
            return Err(setting(format!("{} belongs to the office {}", path(), identity.overlay()), another));
        }
        let named = &config.user.name;
        // Who came from another office may be called otherwise here than the service file says.
        let was = former(data)?.is_some_and(|f| f.rename(named) == identity.user());
        if !named.is_empty() && named != identity.user() && !was {
            let what = format!("{} is {}'s, not {named}'s", path(), identity.user());
            return Err(setting(what, another));
        }
        // Who joined a family by a link says no more about it; what is said has to fit.
        let said = open || config.overlay.name != Config::default().overlay.name;
        if !office && said && config.overlay.name != identity.overlay() {
            let what = format!("{} is of the overlay {}, not {}", path(), identity.overlay(), config.overlay.name);
            return Err(setting(what, another));
        }
        return Ok(identity);
    }
    if !open {
        return Err(LaunchError::NoIdentity(data.path().display().to_string()));
    }
    if config.user.name.is_empty() {
        return Err(setting("an open overlay needs a user name", "add --name USER"));
    }
    let mut rng = super::seed::rng().map_err(|source| LaunchError::System { what: "reading randomness", source })?;
    let made = Identity::open(&config.overlay.name, &config.user.name, unix, &mut rng);
    let identity = made.map_err(|e| {
        setting(format!("--name {} --overlay {}: {e}", config.user.name, config.overlay.name), "choose another name")
    })?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    Ok(identity)
}

fn password(config: &Config) -> Result<Option<Redacted<String>>, LaunchError> {
    let path = &config.phone.password_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = read(path, "--password-file")?;
    Ok(Some(Redacted::new(text.lines().next().unwrap_or_default().to_owned())))
}

/// Of the accounts, by name: from their files, or from the environment.
fn passwords(config: &Config) -> Result<BTreeMap<String, Redacted<String>>, LaunchError> {
    let mut all = BTreeMap::new();
    for account in &config.account {
        let name = &account.name;
        for (key, sources) in [("trusted", &account.trusted)] {
            if let Some(wrong) = sources.iter().find(|t| t.parse::<crate::nat::turn::peers::Prefix>().is_err()) {
                let what = format!("[[account]] {name}: {key}: \"{wrong}\" is neither an address nor ADDRESS/BITS");
                return Err(setting(what, "write addresses such as 192.0.2.0/24"));
            }
        }
        let password = match (account.password_file.as_os_str().is_empty(), account.password_env.as_str()) {
            (false, _) => {
                let text = read(&account.password_file, &format!("[[account]] {name}: password_file"))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            (true, "") => continue,
            (true, variable) => std::env::var(variable).map_err(|_| {
                setting(
                    format!("[[account]] {name}: the environment has no {variable}"),
                    "set the variable that password_env names, or use password_file",
                )
            })?,
        };
        all.insert(name.clone(), Redacted::new(password));
    }
    Ok(all)
}

/// The HTTP proxy, with its password from the file or the environment.
fn proxy(config: &Config) -> Result<Option<Arc<Proxy>>, LaunchError> {
    let (file, variable) = (&config.nat.http_proxy_password_file, &config.nat.http_proxy_password_env);
    let password = if !file.as_os_str().is_empty() {
        let text = read(file, "nat.http_proxy_password_file")?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    } else if !variable.is_empty() {
        let missing = |_| {
            let what = format!("nat.http_proxy_password_env: the environment has no {variable}");
            setting(what, "set the variable, or use http_proxy_password_file")
        };
        Some(std::env::var(variable).map_err(missing)?)
    } else {
        None
    };
    Ok(Proxy::of(config, password.map(Redacted::new), |name| std::env::var(name).ok()))
}

fn read(path: &Path, flag: &str) -> Result<String, LaunchError> {
    let text = std::fs::read_to_string(path);
    text.map_err(|e| setting(format!("{flag} {}: {e}", path.display()), "name a text file that can be read"))
}

/// The accounts of `phone add`, and those of the file that the user named.
fn accounts(config: &Config, data: &DataDir) -> Result<Accounts, LaunchError> {
    let realm = match data.read(disk::IDENTITY)? {
        Some(bytes) => {
            Identity::from_bytes(&bytes, unix_now()).map_or(config.overlay.name.clone(), |i| i.overlay().to_owned())
        }
        None => config.overlay.name.clone(),
    };
    let mut accounts = match data.read(disk::PHONES)? {
        Some(bytes) => {
            let path = data.path().join(disk::PHONES);
            let wrong = |e: String| {
                setting(format!("{}: {e}", path.display()), "correct the file, or remove it and add the phones again")
            };
            let text = String::from_utf8(bytes).map_err(|_| wrong("not text".into()))?;
            // A device that has come from another office still has that one's phones.
            let from = former(data)?.map(|f| f.anchor.overlay().to_owned());
            let read = Accounts::from_toml(&realm, &text);
            let read = read.or_else(|fault| from.map_or(Err(fault), |from| Accounts::from_toml(&from, &text)));
            read.map_err(|e| wrong(e.to_string()))?
        }
        None => Accounts::new(&realm),
    };
    let path = &config.sip.phones;
    if !path.as_os_str().is_empty() {
        let text = read(path, "--phones")?;
        let imported = accounts.import_csv(&text);
        imported
            .map_err(|e| setting(format!("--phones {}: {e}", path.display()), "write one `user,password` a line"))?;
    }
    Ok(accounts)
}

/// An enroller takes the phones upon its own device; another device may only have phones of its own user.
fn delegate(
    identity: Option<&mut Identity>,
    accounts: &Accounts,
    data: &DataDir,
    unix: UnixTime,
) -> Result<(), LaunchError> {
    let Some(identity) = identity else { return Ok(()) };
    let names: Vec<_> = accounts.iter().map(|a| a.user.as_str()).collect();
    let missing: Vec<_> = names.into_iter().filter(|n| identity.phone_identity(n, unix).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Without an administrator's word yet, a member's device asks for it when it runs.
    if identity.enroller.is_none() && matches!(identity.anchor, TrustAnchor::Office { .. }) {
        tracing::warn!(
            phones = missing.join(", "),
            "these phones are not registered here until an administrator's device delegates them"
        );
        return Ok(());
    }
    if let Err(fault) = identity.delegate_phones(&missing, unix) {
        let what = format!("phones that this device may not sign for ({fault}): {}", missing.join(", "));
        return Err(setting(what, "put them on an administrator's device"));
    }
    Ok(data.write(disk::IDENTITY, identity.to_bytes().reveal())?)
}

fn revocations(data: &DataDir, identity: Option<&Identity>) -> Result<Revocations, LaunchError> {
    let (Some(identity), Some(bytes)) = (identity, data.read(disk::REVOCATIONS)?) else {
        return Ok(Revocations::default());
    };
    let path = || data.path().join(disk::REVOCATIONS).display().to_string();
    Revocations::from_bytes(&bytes, &identity.anchor).map_err(|source| LaunchError::Identity { path: path(), source })
}

fn messages(data: &DataDir) -> Result<Vec<u8>, LaunchError> {
    let bytes = data.read(disk::MESSAGES)?.unwrap_or_default();
    crate::node::check_messages(&bytes).map_err(|fault| {
        let path = data.path().join(disk::MESSAGES);
        setting(format!("{}: {fault}", path.display()), "correct the file, or move it away to begin without messages")
    })?;
    Ok(bytes)
}

fn known_peers(data: &DataDir) -> Result<Vec<SocketAddr>, LaunchError> {
    let bytes = data.read(disk::PEERS)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|l| l.trim().parse().ok()).collect())
}

/// The office that this device has come from.
fn former(data: &DataDir) -> Result<Option<Former>, LaunchError> {
    let path = || data.path().join(disk::FORMER).display().to_string();
    let read = data.read(disk::FORMER)?.map(|bytes| Former::from_bytes(&bytes));
    read.transpose().map_err(|source| LaunchError::Identity { path: path(), source })
}

/// Offices that are taken in here.
fn merges(data: &DataDir) -> Result<Merges, LaunchError> {
    let path = || data.path().join(disk::MERGES).display().to_string();
    let read = data.read(disk::MERGES)?.map(|bytes| Merges::from_bytes(&bytes));
    Ok(read.transpose().map_err(|source| LaunchError::Identity { path: path(), source })?.unwrap_or_default())
}

/// Contacts and keys of other overlays.
fn acquaintances(data: &DataDir) -> Result<Acquaintances, LaunchError> {
    let Some(bytes) = data.read(disk::FOREIGN)? else { return Ok(Acquaintances::default()) };
    Acquaintances::from_bytes(&bytes).map_err(|fault| {
        let what = format!("{}: {fault}", data.path().join(disk::FOREIGN).display());
        setting(what, "restore it from a copy; without it every contact of another overlay is a stranger again")
    })
}

/// What phones are shown over TLS: the owner's files, or what this device made once for its host name and addresses.
fn certificate(config: &Config, data: &DataDir) -> Result<Certificate, LaunchError> {
    let (chain, key) = (&config.sip.certificate, &config.sip.certificate_key);
    if !chain.as_os_str().is_empty() {
        let key = if key.as_os_str().is_empty() { chain } else { key };
        return Ok(Certificate::Files { chain: chain.clone(), key: key.clone() });
    }
    if !key.as_os_str().is_empty() {
        return Err(setting(
            "--certificate-key without --certificate",
            "name both, or the chain alone with its key in it",
        ));
    }
    if let Some(kept) = data.read(disk::CERTIFICATE)?.and_then(|bytes| String::from_utf8(bytes).ok()) {
        return Ok(Certificate::Own(kept));
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let named = !host.is_empty() && host.is_ascii();
    let names = if named { vec![host.to_owned(), format!("{host}.local")] } else { vec!["localhost".to_owned()] };
    let made = transport::make(&names, &network::own_addresses()).map_err(BindError::from)?;
    data.write(disk::CERTIFICATE, made.as_bytes())?;
    Ok(Certificate::Own(made))
}

type Opened = (Endpoint, mpsc::Receiver<WireEvent>);

/// Opens the sockets: what the user named as named, what not at the usual port or the next free one.
fn open(
    config: &Config,
    identity: Option<&Identity>,
    shown: Option<&Certificate>,
    proxy: Option<Arc<Proxy>>,
) -> Result<Opened, LaunchError> {
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let any_v6 = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let loopback = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let clear = config.overlay.lab_clear;
    let (mut sip_port, mut overlay_port) = (SIP_PORT, OVERLAY_PORT);
    loop {
        let sip = config.sip.listen.unwrap_or(if clear { loopback(sip_port) } else { any(sip_port) });
        let overlay = config.overlay.listen.unwrap_or(if clear { loopback(overlay_port) } else { any(overlay_port) });
        let listen = if clear { Listen::LabClear(overlay) } else { Listen::Tls(overlay) };
        let opened = Endpoint::bind(transport::Config {
            sip: Some(sip),
            overlay: identity.map(|_| listen),
            also: identity.filter(|_| !clear && config.overlay.listen.is_none()).map(|_| any_v6(overlay.port())),
            credentials: identity.filter(|_| !clear).map(Credentials::of),
            phones: shown.filter(|_| !clear).cloned(),
            proxy: proxy.clone(),
            limits: Limits::default(),
        });
        match opened {
            Err(BindError::Socket { addr, .. })
                if addr == sip && config.sip.listen.is_none() && sip_port < SIP_PORT + NEXT_PORTS =>
            {
                // Phones and links keep off each other's usual ports.
                sip_port += 2;
            }
            Err(BindError::Socket { addr, .. })
                if addr == overlay && config.overlay.listen.is_none() && overlay_port < OVERLAY_PORT + NEXT_PORTS =>
            {
                overlay_port += 2;
            }
            Ok(opened) => return Ok(opened),
            Err(fault) => return Err(fault.into()),
        }
    }
}

fn unspecified() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
}
