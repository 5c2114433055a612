//! Out by an HTTP proxy, where a network lets nothing else out: tunnels by CONNECT (RFC 9110 section 9.3.6).
//!
//! The straight way is always tried too, and the proxy only where that fails or takes its time; once the proxy is the one that works,
//! both are tried at once. What goes through a tunnel is TLS from end to end: the proxy sees an address and encrypted bytes. A proxy that
//! wants to know who asks is told by Basic (RFC 7617).
//!
//! Bounded: the time to reach the proxy and to be answered, and the length of the answer. What follows the answer's head is the
//! tunnel's and is left in the socket.
//!
//! Left out: proxies that are spoken to over TLS (`https://`), SOCKS, Digest, NTLM and Negotiate, and configuration scripts (PAC). Names are not
//! told to the proxy: whoever is dialled has been looked up before.

mod answer;
mod exempt;

use crate::config::{Config, HttpProxy, ProxyAddr};
use crate::core::Redacted;
use crate::node::control::ProxyStatus;
use answer::Answer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exempt::Exempt;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

/// To look the proxy's name up and to connect to it.
const REACH: Duration = Duration::from_secs(5);
/// For its answer: it connects to somebody else first.
const ANSWER: Duration = Duration::from_secs(10);
/// Addresses of the proxy's name that are tried.
const ADDRESSES: usize = 4;
/// Where environments name one, the first that fits.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// A proxy, and how it went with it.
pub struct Proxy {
    at: ProxyAddr,
    /// What named it.
    named: &'static str,
    exempt: Exempt,
    answer_time: Duration,
    /// It opened the last connection that the straight way could not.
    works: AtomicBool,
    tunnels: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl Proxy {
    /// The one that the configuration names, or the environment, which `variable` reads; `password` is that of the user named there.
    pub fn of(
        config: &Config,
        password: Option<Redacted<String>>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Arc<Proxy>> {
        match &config.nat.http_proxy {
            HttpProxy::Off => None,
            HttpProxy::At(at) => {
                let at = ProxyAddr { password: password.or_else(|| at.password.clone()), ..at.clone() };
                Some(Arc::new(Proxy::new(at, "nat.http_proxy", Exempt::this_machine())))
            }
            HttpProxy::Auto => Proxy::of_environment(variable),
        }
    }

    /// The one that the environment names.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Arc<Proxy>> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let exempt = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
        for named in VARIABLES {
            let Some(value) = set(named) else { continue };
            let url = if value.contains("://") { value } else { format!("http://{value}") };
            match ProxyAddr::read(&url) {
                Some(at) => return Some(Arc::new(Proxy::new(at, named, Exempt::read(&exempt)))),
                // It may hold a password: it is not repeated.
                None => {
                    tracing::info!(variable = named, "names no proxy of the form http://HOST:PORT and is left alone")
                }
            }
        }
        None
    }

    fn new(at: ProxyAddr, named: &'static str, exempt: Exempt) -> Proxy {
        let works = AtomicBool::new(false);
        Proxy { at, named, exempt, answer_time: ANSWER, works, tunnels: AtomicU64::new(0), fault: Mutex::default() }
    }

    /// One that leads to this machine too, and waits so long for an answer.
    #[cfg(test)]
    pub(super) fn anywhere(text: &str, answer_time: Duration) -> Arc<Proxy> {
        let at = ProxyAddr::read(text).expect("a proxy");
        Arc::new(Proxy { answer_time, ..Proxy::new(at, "a test", Exempt::default()) })
    }

    /// Whether connections there may go by it; `name` where the other end is known by one.
    pub(super) fn serves(&self, to: IpAddr, name: Option<&str>) -> bool {
        !self.exempt.has(to, name)
    }

    /// How long the straight way is tried alone, where that is `usual`.
    pub(super) fn lead(&self, usual: Duration) -> Duration {
        if self.works.load(Ordering::Relaxed) { Duration::ZERO } else { usual }
    }

    /// A connection was had by it, or straight.
    pub(super) fn won(&self, it_did: bool) {
        if self.works.swap(it_did, Ordering::Relaxed) != it_did && it_did {
            tracing::info!(proxy = %self.place(), "nothing but the HTTP proxy leads out");
        }
    }

    /// A tunnel to `target`; `prepare` is shown the socket before it is connected with the proxy.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub(super) async fn open(
        self: &Arc<Self>,
        target: SocketAddr,
        prepare: impl Fn(&TcpSocket, SocketAddr) -> io::Result<()>,
    ) -> Result<(TcpStream, Tunnel), ProxyError> {
        let opened = self.tunnel(target, prepare).await;
        let opened = opened.map_err(|fault| ProxyError { proxy: self.place(), target, fault });
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = opened.as_ref().err().map(ToString::to_string);
        let tcp = opened?;
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        Ok((tcp, Tunnel(self.clone())))
    }

    async fn tunnel(
        &self,
        target: SocketAddr,
        prepare: impl Fn(&TcpSocket, SocketAddr) -> io::Result<()>,
    ) -> Result<TcpStream, Fault> {
        let mut tcp = match timeout(REACH, self.reach(prepare)).await {
            Ok(tcp) => tcp.map_err(Fault::Unreached)?,
            Err(_) => return Err(Fault::Unreached(io::ErrorKind::TimedOut.into())),
        };
        let asked = async {
            tcp.write_all(self.request(target).as_bytes()).await.map_err(Fault::Broken)?;
            Answer::of(&mut tcp).await
        };
        let answer = timeout(self.answer_time, asked).await.unwrap_or(Err(Fault::Silent))?;
        match answer.code {
            200..=299 => Ok(tcp),
            407 if !answer.basic => Err(Fault::OtherProof),
            407 if self.at.user.is_none() => Err(Fault::NoUser),
            407 => Err(Fault::WrongUser),
            code => Err(Fault::Refused(code)),
        }
    }

    async fn reach(&self, prepare: impl Fn(&TcpSocket, SocketAddr) -> io::Result<()>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for at in lookup_host((self.at.host.as_str(), self.at.port)).await?.take(ADDRESSES) {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            prepare(&socket, at)?;
            match socket.connect(at).await {
                Ok(tcp) => return Ok(tcp),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn request(&self, target: SocketAddr) -> String {
        // A zone is of this machine alone.
        let target = SocketAddr::new(target.ip().to_canonical(), target.port());
        let mut text = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(user) = &self.at.user {
            let password = self.at.password.as_ref().map_or("", |p| p.reveal());
            text += &format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")));
        }
        text + "\r\n"
    }

    /// How it goes with it.
    pub(super) fn status(&self) -> ProxyStatus {
        ProxyStatus {
            proxy: self.at.place(),
            named: self.named.into(),
            tunnels: self.tunnels.load(Ordering::Relaxed),
            fault: self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn place(&self) -> String {
        format!("{} ({})", self.at.place(), self.named)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.place()).finish()
    }
}

/// Stands for a tunnel for as long as it is open.
#[derive(Debug)]
pub(super) struct Tunnel(Arc<Proxy>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP proxy {proxy} asked for {target}: {fault}")]
pub struct ProxyError {
    /// Where it is, and what named it.
    proxy: String,
    /// Where the tunnel was to lead.
    target: SocketAddr,
    fault: Fault,
}

/// What went wrong, and what to do next.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it cannot be reached ({0}); check its address, or set nat.http_proxy")]
    Unreached(io::Error),
    #[error("it broke off ({0}); try again, or ask who runs it")]
    Broken(io::Error),
    #[error("it does not answer; try again, or ask who runs it")]
    Silent,
    #[error("it answers something else than HTTP; check the port in nat.http_proxy")]
    NotHttp,
    #[error("its answer does not end; check the port in nat.http_proxy")]
    Endless,
    #[error(
        "it wants a user name and a password (407); set nat.http_proxy to USER@HOST:PORT and nat.http_proxy_password_file"
    )]
    NoUser,
    #[error("it does not take this user name and password (407); correct nat.http_proxy and its password")]
    WrongUser,
    #[error(
        "it wants another proof of who asks than Basic (407); run a proxy here that gives it, and name that one in nat.http_proxy"
    )]
    OtherProof,
    #[error("it does not connect there ({0}); {next}", next = refused(*.0))]
    Refused(u16),
}

fn refused(code: u16) -> &'static str {
    match code {
        403 => "ask who runs it to allow CONNECT to port 443 of that address",
        _ => "name another peer, or ask who runs it",
    }
}

#[cfg(test)]
pub(super) mod tests;
