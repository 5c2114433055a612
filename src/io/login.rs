//! Logging in by name and password from a machine that is nobody's yet ([`crate::identity::login`]).
//!
//! Whom it dials it cannot know: the first link takes any office of that name. What the password opens names the office's root
//! key, and a second link to the same address, now as the new device, has to lead to that root before anything is kept.

use super::discovery;
use super::disk::{self, DataDir};
use super::driver::unix_now;
use super::office::{ANSWER, OfficeError, answer, free, request};
use super::proxy::Proxy;
use super::transport::{Config, Credentials, Endpoint, Event};
use crate::core::{ConnId, Rng, Transport};
use crate::identity::login::{COST, LOGIN_TYPE, LoginAnswer, LoginAttempt, LoginError, Recovered};
use crate::identity::{Identity, KeyPair, canonical_overlay};
use std::net::SocketAddr;
use std::time::Duration;

/// How long peers are looked for on the local network.
const LOOK: Duration = Duration::from_secs(3);
/// The longest that is waited before another attempt, altogether.
const PATIENCE: u64 = 180;

/// Who wants to log in, and where.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// User name.
    pub user: &'a str,
    /// Name of the office.
    pub office: &'a str,
    /// The password.
    pub password: &'a str,
    /// What the new device is called.
    pub label: &'a str,
    /// Peers of the office; none: look for them on the local network.
    pub via: Vec<SocketAddr>,
}

/// Logs in and writes the new device's identity. `told` hears what is being done.
///
/// # Errors
/// [`OfficeError`].
pub fn log_in(data: &DataDir, wanted: &Wanted<'_>, told: impl Fn(&str)) -> Result<Identity, OfficeError> {
    free(data)?;
    let mut rng = super::seed::rng().map_err(|source| OfficeError::System { what: "reading randomness", source })?;
    let attempt =
        LoginAttempt::new(wanted.user, wanted.office, wanted.password, &mut rng).map_err(OfficeError::Name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| OfficeError::System { what: "starting the runtime", source })?;
    let (identity, addr) = runtime.block_on(async {
        let (recovered, addr) = recover(&attempt, wanted, &mut rng, &told).await?;
        let identity = recovered.device(wanted.label, unix_now(), &mut rng).map_err(OfficeError::Name)?;
        told("checking the office");
        confirm(&identity, addr).await?;
        Ok::<_, OfficeError>((identity, addr))
    })?;
    data.write(disk::IDENTITY, identity.to_bytes().reveal())?;
    data.write(disk::PEERS, format!("{addr}\n").as_bytes())?;
    Ok(identity)
}

async fn recover(
    attempt: &LoginAttempt,
    wanted: &Wanted<'_>,
    rng: &mut Rng,
    told: &impl Fn(&str),
) -> Result<(Recovered, SocketAddr), OfficeError> {
    let office = canonical_overlay(wanted.office).map_err(OfficeError::Name)?;
    let mut addrs = wanted.via.clone();
    if addrs.is_empty() {
        told("looking for the office on the local network");
        addrs = discovery::browse(LOOK).await.unwrap_or_default();
    }
    let credentials = Some(Credentials::stranger(KeyPair::generate(rng), Some(office.clone())));
    let config =
        Config { credentials, proxy: Proxy::of_environment(|name| std::env::var(name).ok()), ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config)?;
    let (mut conn, mut waited, mut later) = (0, 0, None);
    loop {
        for addr in &addrs {
            told(&format!("asking {addr}"));
            conn += 1;
            let id = ConnId(conn);
            endpoint.connect(id, Transport::Tls, *addr, None);
            let message = request(*addr, &rng.token(8), LOGIN_TYPE, attempt.request().encode());
            endpoint.write(id, message.to_bytes());
            let reply = tokio::time::timeout(ANSWER, answer(&mut events, id)).await;
            endpoint.close(id);
            let Ok(Some(reply)) = reply else { continue };
            if reply.status() == 200 {
                let answer = LoginAnswer::decode(reply.body()).map_err(|_| OfficeError::Login(LoginError::Wrong))?;
                told("trying the password");
                let recovered = attempt.open(&answer, COST, unix_now()).map_err(OfficeError::Login)?;
                return Ok((recovered, *addr));
            }
            later = reply.header("Retry-After").and_then(|v| v.trim().parse::<u64>().ok()).or(later);
        }
        match later.take() {
            // Somebody answers, and wants us to wait.
            Some(wait) if waited + wait <= PATIENCE => {
                told(&format!("waiting {wait} s before the next attempt, as the office wants it"));
                tokio::time::sleep(Duration::from_secs(wait)).await;
                waited += wait.max(1);
            }
            Some(wait) => return Err(OfficeError::Later(wait)),
            None if wanted.via.is_empty() => return Err(OfficeError::NotFound(office)),
            None => {
                let list: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
                return Err(OfficeError::NoAnswer(list.join(", ")));
            }
        }
    }
}

/// Whoever answered at `addr` shows a chain to the root that the password opened.
async fn confirm(identity: &Identity, addr: SocketAddr) -> Result<(), OfficeError> {
    let credentials = Some(Credentials::of(identity));
    let config =
        Config { credentials, proxy: Proxy::of_environment(|name| std::env::var(name).ok()), ..Config::default() };
    let (endpoint, mut events) = Endpoint::bind(config)?;
    endpoint.connect(ConnId(1), Transport::Tls, addr, None);
    let connected = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected { .. } => return true,
                Event::ConnectFailed { .. } | Event::Closed { .. } => return false,
                _ => {}
            }
        }
        false
    };
    match tokio::time::timeout(ANSWER, connected).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(OfficeError::FalseOffice(addr)),
    }
}
