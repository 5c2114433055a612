//! Connections in: links of peers, and phones over TCP, TLS and WebSockets. Which of them it is, the first bytes say.

use super::close::CloseReason;
use super::counters::add;
use super::link::wants_link;
use super::phones::Phones;
use super::shared::{Admission, Shared};
use super::{Event, stream, ws};
use crate::core::{Flow, Transport};
use crate::identity::Proven;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::rustls::server::{Acceptor, ClientHello};
use tokio_rustls::server::{StartHandshake, TlsStream};
use tokio_rustls::{LazyConfigAcceptor, rustls::ServerConfig};
use tokio_tungstenite::WebSocketStream;

/// For the first bytes of a connection in clear: whoever connects has something to say.
const FIRST: Duration = Duration::from_secs(30);
/// What HTTP begins with, and no SIP.
const HTTP: &[u8] = b"GET ";

/// Who may come to a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Door {
    /// Phones in clear.
    Sip,
    /// Peers in clear.
    Peers,
    /// Peers over TLS, and phones over TLS.
    Tls,
}

/// Takes links and phones that came to another port than the overlay's, where something else is served too: whoever listens there has read the
/// beginning of their handshake.
#[derive(Clone)]
pub struct Incoming(pub(super) Arc<Shared>);

impl Incoming {
    /// True for a handshake that begins a link or names what phones and browsers speak.
    pub fn is_ours(hello: &ClientHello<'_>) -> bool {
        is_link(hello) || Phones::wants(hello)
    }

    /// Goes on with such a handshake and serves the connection to its end.
    pub async fn take(self, begun: StartHandshake<TcpStream>, remote: SocketAddr) {
        let Incoming(shared) = self;
        let Some(admission) = shared.admit(remote.ip()) else { return };
        let Ok(local) = begun.io.local_addr() else { return };
        stream::tune(&begun.io);
        begun_tls(&shared, begun, (local, remote), admission).await;
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

fn is_link(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut names| names.any(wants_link))
}

/// Accepts until the endpoint is dropped.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // One too many is closed by dropping it here.
                let Some(admission) = shared.admit(remote.ip()) else { continue };
                let shared = shared.clone();
                tokio::spawn(async move { serve(shared, stream, remote, door, admission).await });
            }
            // Out of file descriptors, or the other end was gone before we came.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, remote: SocketAddr, door: Door, admission: Admission) {
    let Ok(local) = tcp.local_addr() else { return };
    stream::tune(&tcp);
    match door {
        Door::Sip => phone(&shared, tcp, (local, remote), [Transport::Tcp, Transport::Ws], Proven::Nobody).await,
        Door::Peers => {
            opened(&shared, (Transport::Tcp, local, remote), Proven::Nobody, Kind::Stream(tcp)).await;
        }
        Door::Tls => match timeout(shared.limits.handshake, LazyConfigAcceptor::new(Acceptor::default(), tcp)).await {
            Ok(Ok(begun)) => begun_tls(&shared, begun, (local, remote), admission).await,
            Ok(Err(_)) => add(&shared.counters.handshakes_failed),
            Err(_) => add(&shared.counters.handshakes_slow),
        },
    }
}

/// A handshake whose first message has been read.
async fn begun_tls(
    shared: &Arc<Shared>,
    begun: StartHandshake<TcpStream>,
    ends: (SocketAddr, SocketAddr),
    admission: Admission,
) {
    if is_link(&begun.client_hello()) {
        let Some(tls) = shared.tls() else { return };
        return link(shared, tls.resume(begun), ends, admission).await;
    }
    let Some(config) = shared.phones.as_ref().map(Phones::config) else {
        return add(&shared.counters.handshakes_failed);
    };
    phone_tls(shared, begun, config, ends).await;
    drop(admission);
}

async fn phone_tls(
    shared: &Arc<Shared>,
    begun: StartHandshake<TcpStream>,
    config: Arc<ServerConfig>,
    ends: (SocketAddr, SocketAddr),
) {
    match timeout(shared.limits.handshake, begun.into_stream(config)).await {
        Ok(Ok(tls)) => phone(shared, tls, ends, [Transport::Tls, Transport::Wss], Proven::Phone).await,
        Ok(Err(_)) => add(&shared.counters.handshakes_failed),
        Err(_) => add(&shared.counters.handshakes_slow),
    }
}

/// A phone's connection from its first bytes on: SIP as a stream, or a WebSocket.
async fn phone<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    mut stream: S,
    (local, remote): (SocketAddr, SocketAddr),
    [plain, web]: [Transport; 2],
    peer: Proven,
) {
    let mut first = [0; HTTP.len()];
    let mut read = 0;
    let reading = async {
        while HTTP.starts_with(&first[..read]) && read < HTTP.len() {
            match stream.read(&mut first[read..]).await {
                Ok(n @ 1..) => read += n,
                _ => return false,
            }
        }
        true
    };
    if !timeout(FIRST, reading).await.unwrap_or(false) {
        return;
    }
    let stream = Begun { first, read: 0..read, stream };
    if first != HTTP {
        return opened(shared, (plain, local, remote), peer, Kind::Stream(stream)).await;
    }
    match timeout(shared.limits.handshake, ws::accept(stream)).await {
        Ok(Ok(web_socket)) => opened(shared, (web, local, remote), peer, Kind::WebSocket(Box::new(web_socket))).await,
        Ok(Err(_)) => add(&shared.counters.handshakes_failed),
        Err(_) => add(&shared.counters.handshakes_slow),
    }
}

enum Kind<S> {
    Stream(S),
    WebSocket(Box<WebSocketStream<S>>),
}

/// Tells of a connection and runs it to its end.
async fn opened<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    (transport, local, remote): (Transport, SocketAddr, SocketAddr),
    peer: Proven,
    kind: Kind<S>,
) {
    let conn = shared.numbers.next();
    let flow = Flow::stream(transport, local, remote, conn);
    add(&shared.counters.accepted);
    let line = shared.open(conn);
    if shared.events.send(Event::Accepted { conn, flow, peer }).await.is_ok() {
        let why = match kind {
            Kind::Stream(stream) => stream::run(shared, conn, stream, line).await,
            Kind::WebSocket(stream) => ws::run(shared, conn, *stream, line).await,
        };
        shared.closed(conn, why).await;
    }
}

/// A stream of which some bytes have been read already.
struct Begun<S> {
    first: [u8; HTTP.len()],
    read: std::ops::Range<usize>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() || buf.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.read.len().min(buf.remaining());
        let start = self.read.start;
        buf.put_slice(&self.first[start..start + n]);
        self.read.start += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A link from its handshake to its end.
async fn link(
    shared: &Arc<Shared>,
    handshake: impl Future<Output = io::Result<(TlsStream<TcpStream>, Proven)>>,
    (local, remote): (SocketAddr, SocketAddr),
    mut admission: Admission,
) {
    let conn = shared.numbers.next();
    let flow = Flow::stream(Transport::Tls, local, remote, conn);
    let (link, peer) = match timeout(shared.limits.handshake, handshake).await {
        Ok(Ok(link)) => link,
        Ok(Err(_)) => return add(&shared.counters.handshakes_failed),
        Err(_) => return add(&shared.counters.handshakes_slow),
    };
    let stranger = matches!(peer, Proven::Nobody);
    let admitted = match peer {
        Proven::Nobody => admission.as_stranger(),
        Proven::Foreign(_) => admission.as_foreign(),
        Proven::Member(_) | Proven::Phone => true,
    };
    if !admitted {
        return;
    }
    add(&shared.counters.accepted);
    if stranger {
        add(&shared.counters.strangers);
    }
    let line = shared.open(conn);
    if shared.events.send(Event::Accepted { conn, flow, peer }).await.is_err() {
        return;
    }
    let running = stream::run(shared, conn, link, line);
    let why = match stranger {
        true => timeout(shared.limits.stranger, running).await.unwrap_or(CloseReason::Stranger),
        false => running.await,
    };
    shared.closed(conn, why).await;
}
