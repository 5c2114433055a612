//! A call's leg to a relay over a stream: TURN over TLS (RFC 8656 section 2.1), for networks that let no UDP out.
//!
//! To the rest of a call it is one more socket: what is sent by it is a message of the stream, what comes is cut into messages, each of
//! which arrives like a datagram from the relay. The relay is known by the SHA-256 of its certificate, which came with the credential over
//! a link that proved who said it; no name is checked and none is sent.
//!
//! Several addresses are tried, each a moment after the one before (as RFC 8305 has it), and all of them anew every second: where the line was cut and is
//! sound again, a system that doubles its pauses would notice too late. The first that shows its certificate is taken.
//! Where an HTTP proxy is named, tunnels of it are tried beside. What does not fit into the little that may wait here is dropped, as a full line would: late voice is of no use.

use super::tcp::Connections;
use crate::io::proxy::{Proxy, Tunnel};
use crate::stun::Framer;
use sha2::{Digest, Sha256};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

/// From one address to the next.
const LEAD: Duration = Duration::from_millis(250);
/// From one round over all addresses to the next, and how many there are.
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 4;
/// How long the relays are tried without a proxy, from one round by it to the next, and how many there are.
const TUNNEL_LEAD: Duration = Duration::from_millis(400);
const TUNNEL_ROUND: Duration = Duration::from_secs(3);
const TUNNEL_ROUNDS: u32 = 2;
/// For a connection and its handshake.
const PATIENCE: Duration = Duration::from_secs(6);
/// For a write: then nobody listens.
const WRITE: Duration = Duration::from_secs(10);
/// Messages that wait to be written: half a second of voice.
const WAITING: usize = 32;
/// The system's buffer for what is written, bytes: what waits there is late.
const BUFFER: u32 = 32 * 1024;

/// What a socket of a call is.
pub(super) enum Wire {
    Udp(UdpSocket),
    /// To this relay.
    Leg(SocketAddr, mpsc::Sender<Vec<u8>>),
    /// To whoever is connected.
    Tcp(Rc<Connections>),
}

impl Wire {
    /// Sends what can be sent at once.
    pub(super) fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        match self {
            // Past the runtime, which takes a socket for unable to send until it has once been asked: the first words of a call to its
            // relays would be lost.
            Wire::Udp(socket) => socket2::SockRef::from(socket).send_to(bytes, &to.into()),
            Wire::Tcp(connections) => connections.try_send_to(bytes, to),
            Wire::Leg(relay, _) if *relay != to => Err(io::ErrorKind::AddrNotAvailable.into()),
            Wire::Leg(_, out) => {
                let sent = out.try_send(padded(bytes));
                sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::WouldBlock.into())
            }
        }
    }

    /// The next datagram; what comes by a stream is read elsewhere.
    pub(super) async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Wire::Udp(socket) => socket.recv_from(buffer).await,
            Wire::Leg(..) | Wire::Tcp(_) => std::future::pending().await,
        }
    }
}

/// ChannelData stands in a stream in whole words (RFC 8656 section 12.5); STUN messages do by themselves.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    message.resize(bytes.len().next_multiple_of(4), 0);
    message
}

/// A connection to a relay.
pub(super) struct Leg {
    /// Its end here.
    pub(super) local: SocketAddr,
    /// The relay.
    pub(super) relay: SocketAddr,
    stream: TlsStream<TcpStream>,
    tunnel: Option<Tunnel>,
}

impl Leg {
    /// Tries these addresses, each with the certificate that is expected there; by the proxy too, a moment later unless it is what works.
    pub(super) async fn reach(relays: Vec<(SocketAddr, [u8; 32])>, proxy: Option<Arc<Proxy>>) -> Option<Leg> {
        let mut tries = JoinSet::new();
        let count = u32::try_from(relays.len()).unwrap_or(u32::MAX);
        for (n, (relay, certificate)) in (0..).zip(relays) {
            for round in 0..ROUNDS {
                let begin = ROUND.max(LEAD * count) * round + LEAD * n;
                tries.spawn(async move {
                    sleep(begin).await;
                    timeout(PATIENCE, connect(relay, certificate)).await
                });
            }
            let Some(proxy) = proxy.clone().filter(|proxy| proxy.serves(relay.ip(), None)) else { continue };
            for round in 0..TUNNEL_ROUNDS {
                let begin = proxy.lead(TUNNEL_LEAD) + TUNNEL_ROUND * round + LEAD * n;
                let proxy = proxy.clone();
                tries.spawn(async move {
                    sleep(begin).await;
                    timeout(PATIENCE, through(&proxy, relay, certificate)).await
                });
            }
        }
        loop {
            match tries.join_next().await? {
                Ok(Ok(Ok(leg))) => {
                    if let Some(proxy) = proxy.filter(|proxy| proxy.serves(leg.relay.ip(), None)) {
                        proxy.won(leg.tunnel.is_some());
                    }
                    return Some(leg);
                }
                Ok(Ok(Err(why))) => tracing::debug!(%why, "a relay cannot be reached over TLS"),
                _ => {}
            }
        }
    }

    /// The socket that it is for the call, and what carries it: to be run until it ends. Each message goes to `take`.
    pub(super) fn run(self, take: impl FnMut(&[u8])) -> (Wire, impl Future<Output = ()>) {
        let (out, waiting) = mpsc::channel(WAITING);
        let (reader, writer) = tokio::io::split(self.stream);
        let tunnel = self.tunnel;
        let carry = async move {
            let _open = tunnel;
            // Whichever ends first ends the other.
            tokio::select! {
                () = read(reader, take) => {}
                () = write(writer, waiting) => {}
            }
        };
        (Wire::Leg(self.relay, out), carry)
    }
}

async fn read(mut reader: ReadHalf<TlsStream<TcpStream>>, mut take: impl FnMut(&[u8])) {
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 16 * 1024]);
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        framer.push(&buffer[..length]);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => take(message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

async fn write(mut writer: WriteHalf<TlsStream<TcpStream>>, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = waiting.recv().await {
        let written = timeout(WRITE, async {
            writer.write_all(&message).await?;
            writer.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn connect(relay: SocketAddr, certificate: [u8; 32]) -> io::Result<Leg> {
    let socket = if relay.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket, relay)?;
    secured(socket.connect(relay).await?, None, relay, certificate).await
}

/// The same, by a proxy.
async fn through(proxy: &Arc<Proxy>, relay: SocketAddr, certificate: [u8; 32]) -> io::Result<Leg> {
    let (tcp, tunnel) = proxy.open(relay, prepare).await.map_err(io::Error::other)?;
    secured(tcp, Some(tunnel), relay, certificate).await
}

fn prepare(socket: &TcpSocket, to: SocketAddr) -> io::Result<()> {
    // The system gives what it allows.
    let _ = socket.set_send_buffer_size(BUFFER);
    super::ports::mark(&SockRef::from(socket), to.is_ipv4());
    Ok(())
}

async fn secured(tcp: TcpStream, tunnel: Option<Tunnel>, relay: SocketAddr, certificate: [u8; 32]) -> io::Result<Leg> {
    tcp.set_nodelay(true)?;
    let local = tcp.local_addr()?;
    let name = ServerName::IpAddress(relay.ip().into());
    let stream = connector(certificate).map_err(io::Error::other)?.connect(name, tcp).await?;
    Ok(Leg { local, relay, stream, tunnel })
}

fn connector(certificate: [u8; 32]) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned { certificate, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    config.enable_sni = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes one certificate.
#[derive(Debug)]
struct Pinned {
    certificate: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match <[u8; 32]>::from(Sha256::digest(end_entity)) == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "leg_tests.rs"]
mod tests;
