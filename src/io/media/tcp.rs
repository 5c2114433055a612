//! TCP connections of a call, made and taken for ICE (RFC 6544), each packet after its length (RFC 4571).
//!
//! To the rest of a call all connections that come to one address, and all that are made from one, are one more socket: what is sent by it
//! goes by the connection with that other end, what comes arrives like a datagram from there. Whoever connects is nobody until something was
//! sent there: the ICE session answers only who knows its password. Such connections are few and short, and one more ends the
//! oldest.
//!
//! What does not fit into the little that may wait is dropped, as a full line would: late voice is of no use.

use super::ports::mark;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections of one socket, and those among them to which nothing was sent yet.
const MOST: usize = 8;
const UNPROVEN: usize = 4;
/// For a connection to be made.
const PATIENCE: Duration = Duration::from_secs(6);
/// Until something comes: at first, and later (checks come more often).
const SILENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(45));
/// For a write: then nobody listens.
const WRITE: Duration = Duration::from_secs(10);
/// After an error of the listening socket.
const PAUSE: Duration = Duration::from_millis(100);
/// Packets that wait to be written: half a second of voice.
const WAITING: usize = 32;
/// The system's buffer for what is written, bytes: what waits there is late.
const BUFFER: usize = 32 * 1024;
/// Longest packet: larger than any that voice is sent in.
const PACKET: usize = 2048;

/// Packets, or where to connect and what to send there.
type Out = mpsc::Sender<Vec<u8>>;
type Wanted = (SocketAddr, mpsc::Receiver<Vec<u8>>);
/// What is done with a packet and its sender.
pub(super) type Take = Rc<dyn Fn(SocketAddr, &[u8])>;

struct Connection {
    remote: SocketAddr,
    out: Out,
    proven: bool,
}

/// The connections of one address. See the module.
pub(super) struct Connections {
    open: RefCell<Vec<Connection>>,
    /// Where to connect, when something is sent to where no connection leads; none: they are only taken.
    wanted: Option<mpsc::Sender<Wanted>>,
}

impl Connections {
    /// Those that come to a listening socket; what takes and carries them has to be run.
    pub(super) fn taken(listener: TcpListener, take: Take) -> (Rc<Connections>, impl Future<Output = ()>) {
        let all = Rc::new(Connections { open: RefCell::default(), wanted: None });
        (all.clone(), listen(listener, all, take))
    }

    /// Those made from an address; the same.
    pub(super) fn made(from: SocketAddr, take: Take) -> (Rc<Connections>, impl Future<Output = ()>) {
        let (wanted, inbox) = mpsc::channel(MOST);
        let all = Rc::new(Connections { open: RefCell::default(), wanted: Some(wanted) });
        (all.clone(), dial(from, inbox, all, take))
    }

    /// Sends what can be sent at once; connects where that is still to be done.
    pub(super) fn try_send_to(&self, packet: &[u8], to: SocketAddr) -> io::Result<usize> {
        let length = u16::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let framed = [&length.to_be_bytes()[..], packet].concat();
        let known = |open: &mut Vec<Connection>| {
            let connection = open.iter_mut().find(|c| c.remote == to)?;
            connection.proven = true;
            Some(connection.out.clone())
        };
        let out = known(&mut self.open.borrow_mut());
        let out = match out {
            Some(out) => out,
            None => self.connect(to)?,
        };
        out.try_send(framed).map(|()| packet.len()).map_err(|_| io::ErrorKind::WouldBlock.into())
    }

    fn connect(&self, to: SocketAddr) -> io::Result<Out> {
        let wanted = self.wanted.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        if self.open.borrow().len() >= MOST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (out, waiting) = mpsc::channel(WAITING);
        wanted.try_send((to, waiting)).map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        self.open.borrow_mut().push(Connection { remote: to, out: out.clone(), proven: true });
        Ok(out)
    }

    /// Room for one that came; false where there is none. Without its sender a connection ends.
    fn admit(&self, remote: SocketAddr, out: Out) -> bool {
        let mut open = self.open.borrow_mut();
        if open.iter().filter(|c| !c.proven).count() >= UNPROVEN {
            let oldest = open.iter().position(|c| !c.proven);
            oldest.map(|oldest| open.remove(oldest));
        }
        let room = open.len() < MOST;
        if room {
            open.push(Connection { remote, out, proven: false });
        }
        room
    }

    fn forget(&self, remote: SocketAddr) {
        self.open.borrow_mut().retain(|c| c.remote != remote);
    }
}

async fn listen(listener: TcpListener, all: Rc<Connections>, take: Take) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    let (out, waiting) = mpsc::channel(WAITING);
                    if all.admit(remote, out) {
                        carried.spawn_local(carry(stream, remote, waiting, all.clone(), take.clone()));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection for a call was not taken");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

async fn dial(from: SocketAddr, mut wanted: mpsc::Receiver<Wanted>, all: Rc<Connections>, take: Take) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            next = wanted.recv() => {
                let Some((to, waiting)) = next else { return };
                let (all, take) = (all.clone(), take.clone());
                carried.spawn_local(async move {
                    match timeout(PATIENCE, connect(from, to)).await {
                        Ok(Ok(stream)) => carry(stream, to, waiting, all, take).await,
                        _ => all.forget(to),
                    }
                });
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from.ip(), 0))?;
    socket.connect(to).await
}

/// Carries one connection until either end closes it.
async fn carry(
    stream: TcpStream,
    remote: SocketAddr,
    waiting: mpsc::Receiver<Vec<u8>>,
    all: Rc<Connections>,
    take: Take,
) {
    // The system gives what it allows.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(&stream);
    let _ = socket.set_send_buffer_size(BUFFER);
    mark(&socket, remote.is_ipv4());
    let (reader, writer) = stream.into_split();
    tokio::select! {
        () = read(reader, |packet| take(remote, packet)) => {}
        () = write(writer, waiting) => {}
    }
    all.forget(remote);
}

async fn read(mut reader: OwnedReadHalf, mut take: impl FnMut(&[u8])) {
    let (mut kept, mut buffer, mut patience) = (Vec::new(), vec![0; PACKET], SILENCE.0);
    while let Ok(Ok(length @ 1..)) = timeout(patience, reader.read(&mut buffer)).await {
        kept.extend_from_slice(&buffer[..length]);
        let mut rest = &kept[..];
        while let Some((head, body)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*head));
            if length > PACKET {
                return;
            }
            let Some((packet, after)) = body.split_at_checked(length) else { break };
            take(packet);
            (rest, patience) = (after, SILENCE.1);
        }
        kept = rest.to_vec();
    }
}

async fn write(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(packet) = waiting.recv().await {
        if !matches!(timeout(WRITE, writer.write_all(&packet)).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
