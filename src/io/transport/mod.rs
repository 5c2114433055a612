//! The sockets of a node: SIP over UDP, TCP and WebSockets for standard phones, in clear and under TLS, and the links between
//! peers, which are SIP over TLS 1.3 with both devices' certificates (or, in a laboratory, over UDP and TCP in clear).
//!
//! One port takes both kinds of TLS: a link names its protocol in the first message (ALPN `sip/2`), a phone does not. One port in clear
//! takes SIP and WebSockets: these begin as HTTP does.
//!
//! [`Endpoint::bind`] opens the sockets; what happens on them arrives as [`Event`]s over one bounded channel, and a full
//! channel slows the sockets down instead of growing. Streams are cut into messages here ([`sip::frame`](crate::sip::frame)),
//! pings (RFC 5626 section 3.5.1) are answered here, and a stream that cannot be cut is told why (513 or 400) and closed.
//!
//! A link's X.509 certificate is signed by the device's own Ed25519 key and carries the device's chain
//! ([`Chain`](crate::identity::Chain)) in an extension. Both ends verify the handshake's signature under that key. The end that
//! dialled goes on only with a peer whose chain holds; the end that was dialled takes one without as a *stranger*
//! (nobody), for enrolment and for a short time only, and one whose chain holds in another overlay as *foreign*, who may
//! call and nothing else.
//!
//! Bounded: connections accepted in all, from one source, still in the handshake, from strangers and from other overlays; what waits to be
//! written on one connection; the time of a handshake, of a write and of a half-sent message. What goes over a bound
//! is refused or closed, and counted ([`Counters`]).
//!
//! A link that cannot be had at the port that was named is looked for at port 443 of the same address too (`dial`): there are networks
//! that let nothing else out, and a supernode takes links there where it may.
//!
//! Where neither is had and an HTTP proxy is named ([`proxy`](crate::io::proxy)), TLS of both kinds goes through that.
//!
//! Servers of standard SIP, for accounts, are dialled over TLS too, and known by the certificates of the web's authorities (`server`).
//!
//! Left out: the local address of a datagram to a wildcard socket, since the shared media socket will have it; checking a link's chain
//! again while it is
//! open (the node closes the links of who is revoked); session resumption, which would skip the check of the chain.

use crate::core::{ConnId, Flow, Transport};
use crate::identity::{Expect, Proven, Revoked};
use crate::io::proxy::Proxy;
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

mod accept;
mod close;
mod counters;
mod dial;
mod link;
mod listen;
mod phones;
mod server;
mod shared;
mod shell;
mod stream;
mod udp;
mod ws;

pub use accept::Incoming;
pub use close::{CloseReason, ConnectError};
pub use counters::Counters;
pub use link::{Credentials, Trust};
pub use listen::{BindError, Listen, in_a_namespace};
pub use phones::{Certificate, CertificateError, make};

use accept::Door;
use shared::Shared;

/// What to open. `None` is not opened.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Standard phones and trunks, UDP, TCP and WebSockets on the same port, in clear.
    pub sip: Option<SocketAddr>,
    /// Links between peers.
    pub overlay: Option<Listen>,
    /// Links over TLS at one more address, where the system allows it: IPv6 beside IPv4.
    pub also: Option<SocketAddr>,
    /// Who we are and whom we trust on links; without it TLS is neither accepted nor dialled.
    pub credentials: Option<Credentials>,
    /// What phones are shown over TLS, at the addresses of the links; without it they are not served there.
    pub phones: Option<Certificate>,
    /// The HTTP proxy that TLS goes out by where it cannot straight.
    pub proxy: Option<Arc<Proxy>>,
    /// The bounds.
    pub limits: Limits,
}

/// How much is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Accepted connections at once, those in the handshake included.
    pub accepted: usize,
    /// Of these, from one IPv4 address or one IPv6 /64.
    pub per_source: usize,
    /// Of these, with no chain that holds.
    pub strangers: usize,
    /// Of these, from other overlays.
    pub foreign: usize,
    /// Of these, from other overlays and from one IPv4 address or one IPv6 /64.
    pub foreign_per_source: usize,
    /// Bytes that wait to be written on one connection before it counts as stalled and is closed.
    pub write_bytes: usize,
    /// Events that wait for the node.
    pub events: usize,
    /// For a whole TLS handshake.
    pub handshake: Duration,
    /// For a stranger to enrol.
    pub stranger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            accepted: 4096,
            per_source: 256,
            strangers: 32,
            foreign: 512,
            foreign_per_source: 16,
            write_bytes: 1024 * 1024,
            events: 4096,
            handshake: Duration::from_secs(5),
            stranger: Duration::from_secs(30),
        }
    }
}

/// What happened on a socket. Every connection, accepted or dialled, ends in exactly one `Closed` or `ConnectFailed`.
#[derive(Debug)]
pub enum Event {
    /// A datagram arrived.
    Datagram {
        /// Our socket and the sender.
        flow: Flow,
        /// All of it.
        bytes: Bytes,
    },
    /// A connection was accepted; its number has bit 63 set.
    Accepted {
        /// Its number.
        conn: ConnId,
        /// Both ends.
        flow: Flow,
        /// Who proved to be there. On TLS nobody is a stranger, who may enrol and nothing else.
        peer: Proven,
    },
    /// A connection of [`Endpoint::connect`] is open.
    Connected {
        /// The number given to `connect`.
        conn: ConnId,
        /// Both ends.
        flow: Flow,
        /// Who proved to be there; never nobody on TLS.
        peer: Proven,
    },
    /// A connection of [`Endpoint::connect`] could not be opened.
    ConnectFailed {
        /// The number given to `connect`.
        conn: ConnId,
        /// Why.
        why: ConnectError,
    },
    /// One message arrived on a connection.
    Frame {
        /// Which.
        conn: ConnId,
        /// The message.
        bytes: Bytes,
    },
    /// The other end has answered a keep-alive.
    Pong {
        /// On which connection.
        conn: ConnId,
    },
    /// A connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        why: CloseReason,
    },
}

/// The open sockets. Dropping it closes them.
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    datagrams: Vec<Arc<udp::Socket>>,
    sip: Option<SocketAddr>,
    overlay: Option<SocketAddr>,
    tasks: Vec<AbortHandle>,
    both_families: bool,
}

impl Endpoint {
    /// Opens the sockets and starts to listen. Call it within a tokio runtime.
    ///
    /// # Errors
    /// The first socket that could not be opened; nothing stays open then.
    pub fn bind(config: Config) -> Result<(Endpoint, mpsc::Receiver<Event>), BindError> {
        let (events, receiver) = mpsc::channel(config.limits.events.max(1));
        let sip = config.sip.map(|addr| listen::pair("SIP", addr)).transpose()?;
        let overlay = config.overlay.map(Listen::open).transpose()?;
        let tls = config.credentials.as_ref().map(link::Tls::new).transpose()?;

        let source = overlay.as_ref().map(listen::Opened::addr).or(sip.as_ref().map(listen::Opened::addr));
        let phones = config.phones.map(phones::Phones::new).transpose()?;
        let shared = Arc::new(Shared::new(config.limits, events, (tls, phones), source, config.proxy));
        let mut endpoint = Endpoint {
            datagrams: Vec::new(),
            sip: sip.as_ref().map(listen::Opened::addr),
            overlay: overlay.as_ref().map(listen::Opened::addr),
            tasks: Vec::new(),
            both_families: false,
            shared,
        };
        let overlay_door = config.overlay.map_or(Door::Peers, Listen::door);
        for (opened, door) in [(sip, Door::Sip), (overlay, overlay_door)] {
            let Some(opened) = opened else { continue };
            if let Some(socket) = opened.datagrams {
                let socket = Arc::new(socket);
                endpoint.spawn(udp::receive(endpoint.shared.clone(), socket.clone()));
                endpoint.datagrams.push(socket);
            }
            endpoint.spawn(accept::accept(endpoint.shared.clone(), opened.streams, door));
        }
        let also = config.also.and_then(|addr| Listen::Tls(addr).open().ok());
        endpoint.both_families = also.is_some();
        if let Some(opened) = also {
            endpoint.spawn(accept::accept(endpoint.shared.clone(), opened.streams, Door::Tls));
        }
        Ok((endpoint, receiver))
    }

    /// Sends one datagram on a UDP flow, from the socket of `flow.local` (of its port, where we listen on all addresses).
    /// What the system does not take is dropped and counted: SIP sends again.
    pub fn send(&self, flow: Flow, bytes: &Bytes) {
        let exact = self.datagrams.iter().find(|s| s.addr == flow.local);
        let socket = exact.or_else(|| self.datagrams.iter().find(|s| s.addr.port() == flow.local.port()));
        let sent = socket.is_some_and(|s| s.send(bytes, flow.remote));
        let counters = &self.shared.counters;
        counters::add(if sent { &counters.datagrams_out } else { &counters.datagrams_unsent });
    }

    /// Opens a connection to `remote`, a link when `transport` is TLS, and fails it when `expect` names another peer than
    /// the one that answers. `conn` is the caller's to choose: never used before, bit 63 clear.
    pub fn connect(&self, conn: ConnId, transport: Transport, remote: SocketAddr, expect: impl Into<Expect>) {
        let line = self.shared.open(conn);
        tokio::spawn(dial::dial(self.shared.clone(), conn, transport, remote, expect.into(), line));
    }

    /// Opens a connection over TLS to a server of standard SIP whose certificate has to be good for `name`, by an authority of this
    /// machine's, or of the PEM file `authorities` where that is not empty. `conn` as for [`Endpoint::connect`].
    pub fn connect_server(&self, conn: ConnId, remote: SocketAddr, name: &str, authorities: &Path) {
        let line = self.shared.open(conn);
        let (name, authorities) = (name.to_owned(), authorities.to_owned());
        tokio::spawn(server::dial(self.shared.clone(), conn, remote, name, authorities, line));
    }

    /// Writes on a connection; in order; to be written when it is open, if it is being dialled. A connection on which too
    /// much waits is closed. Does nothing for a connection that is gone: its `Closed` says so.
    pub fn write(&self, conn: ConnId, bytes: Bytes) {
        self.shared.write(conn, bytes);
    }

    /// Writes what still waits (for five seconds at most), then closes.
    pub fn close(&self, conn: ConnId) {
        self.shared.close(conn);
    }

    /// Takes links that came to another port.
    pub fn incoming(&self) -> Incoming {
        Incoming(self.shared.clone())
    }

    /// Changes who we are and whom we trust, for connections from now on: after joining an office, say.
    ///
    /// # Errors
    /// The certificate for the link could not be made.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        self.shared.set_tls(link::Tls::new(credentials)?);
        Ok(())
    }

    /// Refuses these keys on links from now on. Links that are open are the caller's to close.
    pub fn set_revoked(&self, revoked: Arc<Revoked>) {
        self.shared.set_revoked(revoked);
    }

    /// Where standard phones reach us, with the port that was really taken.
    pub fn sip_addr(&self) -> Option<SocketAddr> {
        self.sip
    }

    /// Where peers reach us, with the port that was really taken.
    pub fn overlay_addr(&self) -> Option<SocketAddr> {
        self.overlay
    }

    /// Whether links are taken at [`Config::also`].
    pub fn both_families(&self) -> bool {
        self.both_families
    }

    /// Connections that are open or being dialled.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// What was let in, refused and lost so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.snapshot()
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task).abort_handle());
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.close_all();
    }
}

/// Numbers for accepted connections: from the upper half.
#[derive(Debug)]
struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> ConnId {
        ConnId(1 << 63 | self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
