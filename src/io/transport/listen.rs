//! Opening the sockets, and saying in one line why not.

use super::accept::Door;
use super::udp;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use thiserror::Error;
use tokio::net::TcpListener;

/// Asked of the system for a UDP socket, in bytes; it gives what it allows.
const UDP_BUFFER: usize = 4 * 1024 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often another port is tried for UDP and TCP together when any will do.
const TRIES: usize = 32;

/// Where and how peers reach us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Links over TLS 1.3.
    Tls(SocketAddr),
    /// UDP and TCP in clear, for captures and laboratories: on loopback, or in a network namespace of its own.
    LabClear(SocketAddr),
}

/// Why a socket could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// The system said no; mostly the port is taken.
    #[error("cannot listen for {what} on {addr}: {cause}")]
    Socket {
        /// For what it was to be.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// In clear on an address that others could reach.
    #[error("a clear overlay listens on loopback or in a network namespace of its own, not on {0}")]
    NotALaboratory(SocketAddr),
    /// The certificate for phones cannot be used.
    #[error("{0}")]
    PhoneCertificate(String),
    /// The link's certificate could not be made.
    #[error("cannot make the certificate of the link")]
    Certificate,
}

impl BindError {
    /// True when another port may do.
    pub fn is_in_use(&self) -> bool {
        matches!(self, BindError::Socket { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse)
    }
}

/// What was opened.
pub(super) struct Opened {
    pub(super) datagrams: Option<udp::Socket>,
    pub(super) streams: TcpListener,
    addr: SocketAddr,
}

impl Opened {
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listen {
    pub(super) fn open(self) -> Result<Opened, BindError> {
        match self {
            Listen::Tls(addr) => {
                let (streams, addr) = streams("links of peers (TLS)", addr)?;
                Ok(Opened { datagrams: None, streams, addr })
            }
            Listen::LabClear(addr) if addr.ip().is_loopback() || in_a_namespace() => pair("peers in clear", addr),
            Listen::LabClear(addr) => Err(BindError::NotALaboratory(addr)),
        }
    }

    pub(super) fn door(self) -> Door {
        match self {
            Listen::Tls(_) => Door::Tls,
            Listen::LabClear(_) => Door::Peers,
        }
    }
}

/// UDP and TCP on one port.
pub(super) fn pair(what: &'static str, addr: SocketAddr) -> Result<Opened, BindError> {
    let mut left = TRIES;
    loop {
        let socket = datagrams(what, addr)?;
        let at = socket.addr;
        match streams(what, at) {
            Ok((streams, _)) => return Ok(Opened { datagrams: Some(socket), streams, addr: at }),
            // The system chose a port that is free for UDP alone.
            Err(error) if addr.port() == 0 && error.is_in_use() && left > 0 => left -= 1,
            Err(error) => return Err(error),
        }
    }
}

fn datagrams(what: &'static str, addr: SocketAddr) -> Result<udp::Socket, BindError> {
    let open = || {
        let socket = socket(addr, Type::DGRAM, Protocol::UDP)?;
        // Best effort: a smaller buffer loses sooner under load, and the counters of the system show it.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
        // Discovery listens to SIP's multicast group at the same port; what is sent there is not for this socket.
        #[cfg(target_os = "linux")]
        if addr.is_ipv4() {
            socket.set_reuse_port(true)?;
            socket.set_multicast_all_v4(false)?;
        }
        socket.bind(&addr.into())?;
        udp::Socket::new(socket.into())
    };
    open().map_err(|cause| BindError::Socket { what, addr, cause })
}

fn streams(what: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let open = || {
        let socket = socket(addr, Type::STREAM, Protocol::TCP)?;
        // On Unix this only lets a restarted program have its port back at once; elsewhere it would share the port.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let at = listener.local_addr()?;
        Ok((listener, at))
    };
    open().map_err(|cause| BindError::Socket { what, addr, cause })
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// True when this process is known to run in another network namespace than the machine's first process.
pub fn in_a_namespace() -> bool {
    match (std::fs::read_link("/proc/self/ns/net"), std::fs::read_link("/proc/1/ns/net")) {
        (Ok(ours), Ok(first)) => ours != first,
        _ => false,
    }
}
