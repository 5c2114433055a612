//! A relay's sockets: STUN and TURN over UDP, TCP and TLS.
//!
//! Two threads, so that a packet never waits for a decision. One carries packets by the [`Table`](crate::nat::turn::table::Table):
//! datagrams in batches (`quinn-udp`: recvmmsg, GRO, GSO), neither locks nor allocations on their way. The other owns the
//! [`Server`](crate::nat::turn::Server): it gets what is a request, and what it decides goes back to the first one in order, answers included,
//! so that no packet overtakes the decision it needs. Streams are tasks of the surrounding runtime; TLS is told from clear STUN by its first
//! byte, so every port serves both; a handshake that asks for a link between peers is handed on to those who take links, so that one
//! port 443 is the door to all of a supernode.
//!
//! | file | what |
//! |---|---|
//! | `peer` | TCP connections with peers, dialled and accepted, joined to clients' |
//! | `packets` | the thread that carries |
//! | `batch` | datagrams that wait for the end of a round, and go together where they can |
//! | `decide` | the thread that decides |
//! | `serve` | whether, where and by which settings there is one |
//! | `stream` | connections: accepted, cut into messages, written to |
//!
//! Bounded: connections in all and of one source, what waits in each channel; over the bound packets are dropped as on a full line.
//!
//! Left out: more than one carrying thread; path MTU messages to clients (datagrams go with DF, as ICE and QUIC want it).

mod batch;
mod decide;
mod packets;
mod peer;
mod serve;
mod stream;

pub use serve::Relays;

use crate::core::{Instant, Rng, UnixTime};
use crate::io::transport::Incoming;
use crate::nat::turn::bucket::Bucket;
use crate::nat::turn::server::{self, Counters};
use crate::nat::turn::table::{Carried, Ceilings};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that wait for the deciding thread, and decisions and messages of streams that wait for the carrying one.
const ASKED: usize = 1024;
const TOLD: usize = 8192;

/// What to serve.
#[derive(Debug)]
pub struct Config {
    /// UDP sockets, in the order of [`server::Config::faces`].
    pub udp: Vec<SocketAddr>,
    /// Listeners of streams.
    pub tcp: Vec<SocketAddr>,
    /// Further ones, which there need not be: the system may forbid them, others may have them.
    pub door: Vec<SocketAddr>,
    /// Who takes links that come to a listener; none: they are refused.
    pub links: Option<Incoming>,
    /// The allocations.
    pub server: server::Config,
    /// Bandwidth.
    pub ceilings: Ceilings,
    /// The wall clock, now.
    pub unix: UnixTime,
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A port is taken or forbidden.
    #[error("cannot relay at {addr} ({what}): {cause}")]
    Socket {
        /// UDP or TCP.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The system refuses something else.
    #[error("cannot relay: {0}")]
    System(#[from] io::Error),
    /// The certificate for TLS could not be made.
    #[error("cannot relay over TLS: {0}")]
    Certificate(String),
}

impl RelayError {
    /// True when another port may do.
    pub fn is_in_use(&self) -> bool {
        matches!(self, RelayError::Socket { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse)
    }
}

/// What a relay did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Allocations that stand.
    pub allocations: usize,
    /// Connections that stand.
    pub connections: usize,
    /// Packets.
    pub carried: Carried,
    /// Requests.
    pub counters: Counters,
}

/// Figures between the threads.
#[derive(Debug, Default)]
struct Shared {
    packets: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    over: AtomicU64,
    connections: AtomicUsize,
    /// Bytes of streams that the carrying thread does not know of yet.
    streamed: AtomicU64,
    decided: Mutex<(usize, Counters)>,
}

/// A relay that runs; it ends with this value.
pub struct Relay {
    asks: SyncSender<decide::Ask>,
    packets: packets::Handle,
    threads: Vec<JoinHandle<()>>,
    accepting: Vec<tokio::task::AbortHandle>,
    shared: Arc<Shared>,
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    shut: Option<String>,
    certificate: [u8; 32],
}

impl Relay {
    /// Opens the sockets and starts both threads. Called within a tokio runtime, whose tasks serve the streams.
    ///
    /// # Errors
    /// [`RelayError`]; nothing stays open.
    pub fn start(now: Instant, config: Config, rng: Rng) -> Result<Relay, RelayError> {
        let shared = Arc::new(Shared::default());
        let (mut sockets, mut udp) = (Vec::new(), Vec::new());
        for addr in &config.udp {
            let socket = bind(*addr).map_err(|cause| RelayError::Socket { what: "UDP", addr: *addr, cause })?;
            udp.push(socket.local_addr()?);
            sockets.push(socket);
        }
        let (mut listeners, mut tcp) = (Vec::new(), Vec::new());
        for addr in &config.tcp {
            let listener =
                stream::listen(*addr).map_err(|cause| RelayError::Socket { what: "TCP", addr: *addr, cause })?;
            tcp.push(listener.local_addr()?);
            listeners.push(listener);
        }
        let mut shut = None;
        for addr in &config.door {
            match stream::listen(*addr).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((at, listener)) => {
                    tcp.push(at);
                    listeners.push(listener);
                }
                Err(cause) => {
                    // The first says what keeps us out; the other family fails for the same reason.
                    shut.get_or_insert_with(|| RelayError::Socket { what: "TCP", addr: *addr, cause }.to_string());
                }
            }
        }
        let (acceptor, certificate) = stream::acceptor(&config.server.realm).map_err(RelayError::Certificate)?;
        let (asks, asked) = std::sync::mpsc::sync_channel(ASKED);
        let mut server = config.server;
        for (face, bound) in server.faces.iter_mut().zip(&udp) {
            if face.port() == 0 {
                face.set_port(bound.port());
            }
        }
        let total = Arc::new(Mutex::new(Bucket::new(now, config.ceilings.total)));
        let (carrier, packets) =
            packets::Carrier::new(now, sockets, config.ceilings, total.clone(), asks.clone(), shared.clone())?;
        let runtime = tokio::runtime::Handle::current();
        let peers = peer::Peers::new(runtime, asks.clone(), shared.clone(), total, config.ceilings.each);
        let decider = decide::Decider::new(now, config.unix, server, rng, peers, packets.clone(), shared.clone());
        let threads = vec![
            std::thread::Builder::new().name("relay".into()).spawn(move || carrier.run())?,
            std::thread::Builder::new().name("relay-decide".into()).spawn(move || decider.run(&asked))?,
        ];
        let accepting = listeners
            .into_iter()
            .map(|listener| {
                let doors = stream::Doors { tls: acceptor.clone(), links: config.links.clone() };
                tokio::spawn(stream::accept(listener, doors, packets.clone(), asks.clone(), shared.clone()))
            })
            .map(|task| task.abort_handle())
            .collect();
        Ok(Relay { asks, packets, threads, accepting, shared, udp, tcp, shut, certificate })
    }

    /// Where datagrams are taken.
    pub fn udp(&self) -> &[SocketAddr] {
        &self.udp
    }

    /// Where streams are taken.
    pub fn tcp(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Why one of [`Config::door`] is not among them.
    pub fn shut(&self) -> Option<&str> {
        self.shut.as_deref()
    }

    /// SHA-256 of the certificate that TLS shows.
    pub fn certificate(&self) -> [u8; 32] {
        self.certificate
    }

    /// A member's link came from `ip`.
    pub fn prove(&self, ip: IpAddr, lifetime: Duration) {
        // A full queue: the member's next request says it again.
        let _ = self.asks.try_send(decide::Ask::Proven(ip, lifetime));
    }

    /// Sends a success answer of a Binding transaction to where a member is seen.
    pub fn answer(&self, to: SocketAddr, id: crate::stun::TransactionId) {
        // A full queue: the member asks again.
        let _ = self.asks.try_send(decide::Ask::Answer(to, id));
    }

    /// What it did so far.
    pub fn figures(&self) -> Figures {
        let (allocations, counters) = *self.shared.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Figures {
            allocations,
            connections: self.shared.connections.load(Ordering::Relaxed),
            carried: Carried {
                packets: get(&self.shared.packets),
                bytes: get(&self.shared.bytes),
                refused: get(&self.shared.refused),
                over: get(&self.shared.over),
            },
            counters,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.iter().for_each(tokio::task::AbortHandle::abort);
        // The deciding thread first: it may wait for room at the carrying one. Both go on emptying their queues until then.
        let _ = self.asks.send(decide::Ask::Stop);
        self.packets.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A UDP socket with room for bursts.
fn bind(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system gives what it allows.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
