//! Why connections end or never begin.

use crate::core::{Id, Transport};
use crate::identity::IdentityError;
use crate::io::proxy::ProxyError;
use crate::sip::frame::FrameError;
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Why a connection is gone.
#[derive(Debug, Error)]
pub enum CloseReason {
    /// We closed it.
    #[error("closed by us")]
    Local,
    /// The other end closed it.
    #[error("closed by the other end")]
    Remote,
    /// It broke.
    #[error("connection broke: {0}")]
    Broken(io::Error),
    /// The other end does not read what is written.
    #[error("the other end does not read")]
    Stalled,
    /// What came is no SIP, or too large.
    #[error("{0}")]
    Unframed(FrameError),
    /// A message was begun and not finished in time.
    #[error("a message was begun and not finished")]
    Unfinished,
    /// A stranger's time is over.
    #[error("a stranger's time is over")]
    Stranger,
}

/// Why a connection could not be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The system said no.
    #[error("cannot connect to {0}: {1}")]
    Io(SocketAddr, io::Error),
    /// No answer, or no end of the handshake, in time.
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
    /// The other end's chain does not hold here: another office, another overlay, expired.
    #[error("{0} is not one of us: {1}")]
    NotOurs(SocketAddr, IdentityError),
    /// Whoever answers at the address of an invite is not of that office.
    #[error("{0} is not of the office that the code is for")]
    NotTheOffice(SocketAddr),
    /// The TLS handshake failed.
    #[error("{0} does not speak our TLS: {1}")]
    Handshake(SocketAddr, io::Error),
    /// Another peer than the one expected answers there.
    #[error("{addr} is peer {found}, not {expected}")]
    OtherPeer {
        /// Who was dialled.
        addr: SocketAddr,
        /// Who was expected.
        expected: Id,
        /// Who is there.
        found: Id,
    },
    /// A server of standard SIP is not who it should be, or speaks no TLS that is good enough.
    #[error("{addr} does not prove to be {name}: {why}")]
    Server {
        /// Who was dialled.
        addr: SocketAddr,
        /// The name that its certificate has to show.
        name: String,
        /// Why it does not.
        why: io::Error,
    },
    /// An HTTP proxy opened no tunnel.
    #[error(transparent)]
    Proxy(ProxyError),
    /// Neither the straight way nor the proxy's leads there.
    #[error("{straight}; {proxy}")]
    NoWay {
        /// Why not straight.
        straight: Box<ConnectError>,
        /// Why not by the proxy.
        proxy: Box<ConnectError>,
    },
    /// A link was asked for, and we have no key to show.
    #[error("no identity to open a link with")]
    NoCredentials,
    /// Only streams are connected, and WebSockets by clients alone.
    #[error("{0} is not dialled")]
    NotDialled(Transport),
}

impl ConnectError {
    /// True where nobody who speaks our TLS has answered: by another way somebody may.
    pub(super) fn is_of_the_way(&self) -> bool {
        match self {
            ConnectError::Io(..) | ConnectError::Timeout(_) | ConnectError::Handshake(..) | ConnectError::Proxy(_) => {
                true
            }
            // Cut off before a certificate was shown, as some filters do.
            ConnectError::Server { why, .. } => {
                matches!(why.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        }
    }
}
