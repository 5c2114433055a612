//! Connections of clients: TURN over TCP and TLS (RFC 8656 section 2.1), and those that carry what a peer's connection does (RFC 6062).

use super::Shared;
use super::decide::{Ask, Verdict};
use super::packets::{Handle, Tell};
use super::peer::{self, Joined};
use crate::io::media::ports::mark;
use crate::io::transport::Incoming;
use crate::nat::turn::table::Path;
use crate::stun::{Class, Framer, Method};
use bytes::{Bytes, BytesMut};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{Acceptor, ClientHello};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// Most connections, and most of one source.
const CONNECTIONS: usize = 2048;
const OF_ONE_SOURCE: usize = 128;
/// For the first byte, and for a handshake.
const BEGIN: Duration = Duration::from_secs(10);
/// Nothing read for so long: an allocation is renewed more often.
const IDLE: Duration = Duration::from_secs(900);
/// For a write.
const WRITE: Duration = Duration::from_secs(10);
/// Messages that wait to be written on one connection.
const WAITING: usize = 256;
/// What a TLS handshake begins with.
const HANDSHAKE: u8 = 22;

/// Names connections, over all listeners.
static LAST: AtomicU64 = AtomicU64::new(0);

pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}

/// TLS with a certificate made for this run, and its SHA-256. What a client says goes by HMAC under a password; whoever got that over an
/// authenticated link was told the hash with it.
pub(super) fn acceptor(name: &str) -> Result<(TlsAcceptor, [u8; 32]), String> {
    let names = vec![if name.is_ascii() { name.to_owned() } else { "relay".into() }];
    let made = rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())?;
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(str::to_owned)?;
    let hash = Sha256::digest(&certificate).into();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(|e| e.to_string())?;
    Ok((TlsAcceptor::from(Arc::new(config)), hash))
}

/// Who is behind a listener, by what a handshake asks for.
#[derive(Clone)]
pub(super) struct Doors {
    /// The relay itself.
    pub(super) tls: TlsAcceptor,
    /// Who takes links.
    pub(super) links: Option<Incoming>,
}

/// Accepts until it is aborted.
pub(super) async fn accept(
    listener: TcpListener,
    doors: Doors,
    packets: Handle,
    asks: SyncSender<Ask>,
    shared: Arc<Shared>,
) {
    let sources: Arc<Mutex<BTreeMap<IpAddr, usize>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, client)) = listener.accept().await else {
            // Out of descriptors: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let of_source = sources.lock().unwrap_or_else(PoisonError::into_inner).get(&client.ip()).copied().unwrap_or(0);
        if shared.connections.load(Ordering::Relaxed) >= CONNECTIONS || of_source >= OF_ONE_SOURCE {
            continue;
        }
        let counted = Counted::new(&shared, &sources, client.ip());
        let (doors, packets, asks) = (doors.clone(), packets.clone(), asks.clone());
        tasks.spawn(async move {
            let counted = counted;
            let _ = stream.set_nodelay(true);
            mark(&SockRef::from(&stream), client.is_ipv4());
            peer::keep_alive(&stream);
            let mut first = [0];
            match timeout(BEGIN, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == HANDSHAKE => {
                    let hello = timeout(BEGIN, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
                    let Ok(Ok(begun)) = hello else { return };
                    if !is_turn(&begun.client_hello()) && Incoming::is_ours(&begun.client_hello()) {
                        // Those who take links count them by bounds of their own.
                        drop(counted);
                        if let Some(links) = doors.links {
                            links.take(begun, client).await;
                        }
                        return;
                    }
                    let config = doors.tls.config().clone();
                    if let Ok(Ok(stream)) = timeout(BEGIN, begun.into_stream(config)).await {
                        serve(stream, client, true, packets, asks).await;
                    }
                }
                Ok(Ok(1)) => serve(stream, client, false, packets, asks).await,
                _ => {}
            }
        });
    }
}

/// It names TURN (RFC 7443 section 3), whatever else beside it: coturn's client names HTTP too.
fn is_turn(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut names| names.any(|name| name == b"stun.turn"))
}

/// One connection, counted until it ends.
struct Counted {
    shared: Arc<Shared>,
    sources: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Counted {
    fn new(shared: &Arc<Shared>, sources: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, ip: IpAddr) -> Counted {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        *sources.lock().unwrap_or_else(PoisonError::into_inner).entry(ip).or_default() += 1;
        Counted { shared: shared.clone(), sources: sources.clone(), ip }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.ip);
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    client: SocketAddr,
    tls: bool,
    packets: Handle,
    asks: SyncSender<Ask>,
) {
    let connection = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let path = Path::Stream { connection, client };
    let (writer, waiting) = mpsc::channel(WAITING);
    // Not a sender: the relay hangs up by dropping the last one.
    let answers = writer.downgrade();
    if !told(&packets, Tell::Connected { connection, writer }).await {
        return;
    }
    let (mut read, mut write) = tokio::io::split(stream);
    // Whichever ends first ends the other: the client's end, or the relay that hangs up.
    let bound = tokio::select! {
        bound = reading(&mut read, path, &packets, &asks, &answers) => bound,
        () = writing(&mut write, waiting, tls) => None,
    };
    told(&packets, Tell::Hang { connection }).await;
    if let Some(bound) = bound {
        let written = timeout(WRITE, async {
            write.write_all(&bound.answer).await?;
            write.flush().await
        });
        if matches!(written.await, Ok(Ok(()))) {
            peer::splice((read, write), bound.rest, bound.joined).await;
        }
    }
    peer::ask(&asks, Ask::Gone(path)).await;
}

/// A connection that a ConnectionBind has joined to a peer's.
struct Bound {
    answer: Vec<u8>,
    /// What came behind the request.
    rest: Vec<u8>,
    joined: Joined,
}

/// Until the stream ends, or is joined to another one.
async fn reading(
    mut stream: impl AsyncRead + Unpin,
    path: Path,
    packets: &Handle,
    asks: &SyncSender<Ask>,
    answers: &mpsc::WeakSender<Bytes>,
) -> Option<Bound> {
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 16 * 1024]);
    let mut patience = BEGIN;
    loop {
        let Ok(Ok(read @ 1..)) = timeout(patience, stream.read(&mut buffer)).await else { return None };
        patience = IDLE;
        framer.push(&buffer[..read]);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => {
                    if is_bind(message) {
                        // Nothing is read on before it is known whether that is STUN still.
                        let Verdict { answer, joined } = bind(path, message.to_vec(), asks).await?;
                        match joined {
                            Some(joined) => return Some(Bound { answer, rest: framer.into_rest(), joined }),
                            None if answer.is_empty() => {}
                            None => answers.upgrade()?.send(answer.into()).await.ok()?,
                        }
                        continue;
                    }
                    let bytes = Bytes::copy_from_slice(message);
                    if !told(packets, Tell::Message { path, bytes }).await {
                        return None;
                    }
                }
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
}

fn is_bind(message: &[u8]) -> bool {
    matches!(crate::stun::header(message), Some((Class::Request, Method::CONNECTION_BIND, _)))
}

async fn bind(path: Path, message: Vec<u8>, asks: &SyncSender<Ask>) -> Option<Verdict> {
    let (back, verdict) = oneshot::channel();
    if !peer::ask(asks, Ask::Bind(path, message, back)).await {
        return None;
    }
    verdict.await.ok()
}

/// `apart`: each message by a write of its own, which is a TLS record of its own: clients take one for one.
async fn writing(mut stream: impl AsyncWrite + Unpin, mut waiting: mpsc::Receiver<Bytes>, apart: bool) {
    let mut together = BytesMut::new();
    while let Some(first) = waiting.recv().await {
        together.clear();
        together.extend_from_slice(&first);
        while !apart && let Ok(more) = waiting.try_recv() {
            together.extend_from_slice(&more);
        }
        let written = timeout(WRITE, async {
            stream.write_all(&together).await?;
            stream.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(WRITE, stream.shutdown()).await;
}

/// Waits for room, which slows this stream down; false when the relay has ended.
async fn told(packets: &Handle, mut tell: Tell) -> bool {
    loop {
        match packets.try_tell(tell) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => tell = back,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
