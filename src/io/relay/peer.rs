//! Connections with peers (RFC 6062): listened for and dialled, kept until the client takes them up, and joined to its own.
//!
//! Bounded: how many there are and how long one waits is the server's decision; what is read of one waits in one buffer for each direction,
//! by the ceilings and by who reads at the other end; who takes nothing, or answers nothing (keepalive), is closed.

use super::Shared;
use super::decide::Ask;
use crate::io::media::clock;
use crate::nat::turn::bucket::Bucket;
use crate::nat::turn::server::ConnectionId;
use crate::nat::turn::table::{Slot, Socket};
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Read at once in each direction, bytes.
const BUFFER: usize = 16 * 1024;
/// For a write, and for the other direction to end when one has.
const WRITE: Duration = Duration::from_secs(30);
const LINGER: Duration = Duration::from_secs(30);
/// How often a stream over a ceiling looks again.
const TURN: Duration = Duration::from_millis(5);

/// What a stream is measured by.
#[derive(Clone)]
pub(super) struct Meter {
    total: Arc<Mutex<Bucket>>,
    each: Arc<Mutex<Bucket>>,
    shared: Arc<Shared>,
}

impl Meter {
    /// Waits until `bytes` may pass.
    async fn pass(&self, bytes: usize) {
        let bits = bytes as u64 * 8;
        while !self.take(bits) {
            tokio::time::sleep(TURN).await;
        }
        self.shared.streamed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn take(&self, bits: u64) -> bool {
        let now = clock::now();
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = total.has(now, 1) && each.has(now, 1);
        if fits {
            total.charge(now, bits);
            each.charge(now, bits);
        }
        fits
    }
}

/// A peer's connection that a client takes up.
pub(super) struct Joined {
    peer: TcpStream,
    /// Ends with the connection's name.
    over: oneshot::Receiver<()>,
    meter: Meter,
}

/// Connections with peers, as the deciding thread has them.
pub(super) struct Peers {
    runtime: Handle,
    asks: SyncSender<Ask>,
    shared: Arc<Shared>,
    listeners: HashMap<Socket, AbortHandle>,
    dialling: HashMap<ConnectionId, AbortHandle>,
    waiting: HashMap<ConnectionId, TcpStream>,
    joined: HashMap<ConnectionId, oneshot::Sender<()>>,
    total: Arc<Mutex<Bucket>>,
    /// Bits a second of one allocation.
    rate: u64,
    each: HashMap<Slot, Weak<Mutex<Bucket>>>,
}

impl Peers {
    pub(super) fn new(
        runtime: Handle,
        asks: SyncSender<Ask>,
        shared: Arc<Shared>,
        total: Arc<Mutex<Bucket>>,
        rate: u64,
    ) -> Peers {
        Peers {
            runtime,
            asks,
            shared,
            listeners: HashMap::new(),
            dialling: HashMap::new(),
            waiting: HashMap::new(),
            joined: HashMap::new(),
            total,
            rate,
            each: HashMap::new(),
        }
    }

    /// Listens at all of them, or at none.
    pub(super) fn listen(&mut self, sockets: &[(Socket, SocketAddr)]) -> bool {
        let _in = self.runtime.enter();
        let opened: io::Result<Vec<_>> = sockets.iter().map(|(s, addr)| Ok((*s, listen(*addr)?))).collect();
        let Ok(opened) = opened else { return false };
        for (socket, listener) in opened {
            let task = self.runtime.spawn(accept(socket, listener, self.asks.clone()));
            self.listeners.insert(socket, task.abort_handle());
        }
        true
    }

    /// True where `socket` was one of these.
    pub(super) fn close(&mut self, socket: Socket) -> bool {
        self.listeners.remove(&socket).map(|task| task.abort()).is_some()
    }

    pub(super) fn dial(&mut self, id: ConnectionId, from: SocketAddr, to: SocketAddr) {
        let asks = self.asks.clone();
        let task = self.runtime.spawn(async move {
            let stream = dial(from, to).await.ok();
            ask(&asks, Ask::Dialled(id, stream)).await;
        });
        self.dialling.insert(id, task.abort_handle());
    }

    /// The peer has answered, or not; whether it is kept. Nobody waits for what was given up meanwhile.
    pub(super) fn dialled(&mut self, id: ConnectionId, stream: Option<TcpStream>) -> bool {
        let Some(stream) = stream.filter(|_| self.dialling.contains_key(&id)) else {
            self.dialling.remove(&id);
            return false;
        };
        self.dialling.remove(&id);
        self.keep(id, stream);
        true
    }

    pub(super) fn keep(&mut self, id: ConnectionId, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        self.waiting.insert(id, stream);
    }

    /// The client has come for it.
    pub(super) fn join(&mut self, id: ConnectionId, slot: Slot) -> Option<Joined> {
        let peer = self.waiting.remove(&id)?;
        let (end, over) = oneshot::channel();
        self.joined.insert(id, end);
        let each = self.each.get(&slot).and_then(Weak::upgrade).unwrap_or_else(|| {
            let each = Arc::new(Mutex::new(Bucket::new(clock::now(), self.rate)));
            self.each.insert(slot, Arc::downgrade(&each));
            each
        });
        Some(Joined { peer, over, meter: Meter { total: self.total.clone(), each, shared: self.shared.clone() } })
    }

    pub(super) fn part(&mut self, id: ConnectionId) {
        if let Some(task) = self.dialling.remove(&id) {
            task.abort();
        }
        self.waiting.remove(&id);
        // Its end is what the joined streams wait for.
        self.joined.remove(&id);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.listeners.values().chain(self.dialling.values()).for_each(AbortHandle::abort);
    }
}

/// Nobody else may have the port; then it is shared with the connections that leave from it (RFC 6062 section 5.2).
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = super::stream::listen(addr)?;
    #[cfg(unix)]
    SockRef::from(&listener).set_reuse_port(true)?;
    Ok(listener)
}

async fn dial(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(from)?;
    socket.connect(to).await
}

async fn accept(socket: Socket, listener: TcpListener, asks: SyncSender<Ask>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if !ask(&asks, Ask::Arrived(socket, from, stream)).await {
                    return;
                }
            }
            // Out of descriptors: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits for room; false when the relay has ended.
pub(super) async fn ask(asks: &SyncSender<Ask>, mut what: Ask) -> bool {
    loop {
        match asks.try_send(what) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => what = back,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Who has gone without a word is noticed.
pub(super) fn keep_alive(stream: &TcpStream) {
    let often = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    // The system may not have it; the allocation's end remains.
    let _ = SockRef::from(stream).set_tcp_keepalive(&often);
}

/// Carries both directions until both have ended, or the connection is to end. `rest` came from the client already.
pub(super) async fn splice(client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin), rest: Vec<u8>, joined: Joined) {
    let Joined { mut peer, over, meter } = joined;
    let (from_peer, to_peer) = peer.split();
    let both = async {
        let mut up = pin!(pipe(client.0, to_peer, rest, &meter));
        let mut down = pin!(pipe(from_peer, client.1, Vec::new(), &meter));
        tokio::select! {
            whole = &mut up => if whole { let _ = timeout(LINGER, down).await; },
            whole = &mut down => if whole { let _ = timeout(LINGER, up).await; },
        }
    };
    tokio::select! {
        () = both => {}
        _ = over => {}
    }
}

/// One direction; true where it came to its end, which is passed on.
async fn pipe(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, rest: Vec<u8>, meter: &Meter) -> bool {
    let mut buffer = rest;
    let mut read = buffer.len();
    buffer.resize(BUFFER.max(read), 0);
    loop {
        if read > 0 {
            meter.pass(read).await;
            let written = timeout(WRITE, async {
                to.write_all(&buffer[..read]).await?;
                to.flush().await
            });
            if !matches!(written.await, Ok(Ok(()))) {
                return false;
            }
        }
        read = match from.read(&mut buffer).await {
            Ok(0) => return matches!(timeout(WRITE, to.shutdown()).await, Ok(Ok(()))),
            Ok(read) => read,
            Err(_) => return false,
        };
    }
}
