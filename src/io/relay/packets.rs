//! The thread that carries packets by the table.

use super::batch::{Batch, Exit, Socket};
use super::{Shared, TOLD, decide};
use crate::core::Instant;
use crate::io::media::clock;
use crate::nat::turn::bucket::Bucket;
use crate::nat::turn::table::{self, Ceilings, Change, Head, Path, Table, Way};
use crate::stun;
use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A buffer takes what GRO puts together.
const BUFFER: usize = 65_536;
/// Sockets towards clients come first in the numbers, those towards peers from here on.
const PEERS: usize = 64;
const WAKE: Token = Token(usize::MAX);
/// Rounds of one socket before the next one has its turn.
const ROUNDS: usize = 4;
/// How often figures are shown.
const SHOW: Duration = Duration::from_millis(250);

/// What the thread is told.
pub(super) enum Tell {
    /// A decision.
    Change(Change),
    /// An answer to a client.
    Answer { path: Path, bytes: Vec<u8> },
    /// A socket towards peers.
    Open { socket: table::Socket, io: std::net::UdpSocket },
    /// One less.
    Close(table::Socket),
    /// A connection was accepted.
    Connected { connection: u64, writer: tokio::sync::mpsc::Sender<Bytes> },
    /// A message came on it.
    Message { path: Path, bytes: Bytes },
    /// It has ended, or is to end: its writer is dropped.
    Hang { connection: u64 },
    /// The relay ends.
    Stop,
}

/// How the thread is told.
#[derive(Clone)]
pub(super) struct Handle {
    tells: SyncSender<Tell>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Tells in order, and waits where there is no room: for the deciding thread.
    pub(super) fn tell(&self, tell: Tell) -> Result<(), ()> {
        match self.tells.try_send(tell) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(tell)) => {
                self.wake();
                self.tells.send(tell).map_err(|_| ())
            }
            Err(TrySendError::Disconnected(_)) => Err(()),
        }
    }

    /// Gives it back where there is no room.
    pub(super) fn try_tell(&self, tell: Tell) -> Result<(), TrySendError<Tell>> {
        self.tells.try_send(tell).inspect(|()| self.wake())
    }

    pub(super) fn wake(&self) {
        // The thread has ended if this fails.
        let _ = self.waker.wake();
    }

    pub(super) fn stop(&self) {
        let _ = self.tell(Tell::Stop);
        self.wake();
    }
}

/// The thread.
pub(super) struct Carrier {
    poll: Poll,
    told: Receiver<Tell>,
    asks: SyncSender<decide::Ask>,
    table: Table,
    listeners: Vec<Socket>,
    peers: Vec<Option<Socket>>,
    writers: HashMap<u64, tokio::sync::mpsc::Sender<Bytes>>,
    batch: Batch,
    ready: Vec<usize>,
    shared: Arc<Shared>,
    /// The streams' view of the common ceiling, and bytes that it knows of.
    total: Arc<Mutex<Bucket>>,
    counted: u64,
    shown: Instant,
    lost: u64,
}

impl Carrier {
    pub(super) fn new(
        now: Instant,
        sockets: Vec<std::net::UdpSocket>,
        ceilings: Ceilings,
        total: Arc<Mutex<Bucket>>,
        asks: SyncSender<decide::Ask>,
        shared: Arc<Shared>,
    ) -> io::Result<(Carrier, Handle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (tells, told) = sync_channel(TOLD);
        let mut listeners = Vec::new();
        for (at, socket) in sockets.into_iter().enumerate() {
            let mut socket = Socket::new(socket)?;
            poll.registry().register(&mut socket.io, Token(at), Interest::READABLE)?;
            listeners.push(socket);
        }
        let carrier = Carrier {
            poll,
            told,
            asks,
            table: Table::new(now, ceilings),
            listeners,
            peers: Vec::new(),
            writers: HashMap::new(),
            batch: Batch::default(),
            ready: Vec::new(),
            shared,
            total,
            counted: 0,
            shown: now,
            lost: 0,
        };
        Ok((carrier, Handle { tells, waker }))
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut memory = vec![0; BATCH_SIZE * BUFFER];
        loop {
            let wait = if self.ready.is_empty() { SHOW } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return tracing::error!(%e, "the relay ends: waiting for its sockets failed"),
            }
            for event in &events {
                let at = event.token().0;
                if event.token() != WAKE && !self.ready.contains(&at) {
                    self.ready.push(at);
                }
            }
            let now = clock::now();
            if self.on_told(now) {
                return;
            }
            for at in std::mem::take(&mut self.ready) {
                if self.on_readable(at, &mut memory) {
                    self.ready.push(at);
                }
            }
            self.flush();
            self.show(now);
        }
    }

    /// Carries out what was decided meanwhile; true when the relay ends.
    fn on_told(&mut self, now: Instant) -> bool {
        while let Ok(tell) = self.told.try_recv() {
            match tell {
                Tell::Change(change) => self.table.apply(now, change),
                Tell::Answer { path, bytes } => self.answer(path, bytes),
                Tell::Open { socket, io } => self.open(socket, io),
                Tell::Close(socket) => {
                    if let Some(mut socket) = self.peers.get_mut(socket.0 as usize).and_then(Option::take) {
                        // What it still has to send goes first.
                        self.flush();
                        let _ = self.poll.registry().deregister(&mut socket.io);
                    }
                }
                Tell::Connected { connection, writer } => {
                    self.writers.insert(connection, writer);
                }
                Tell::Message { path, bytes } => {
                    let way = self.table.from_client(now, &path, &bytes);
                    self.carry(way, path, &bytes);
                }
                Tell::Hang { connection } => {
                    self.writers.remove(&connection);
                }
                Tell::Stop => return true,
            }
        }
        false
    }

    fn open(&mut self, socket: table::Socket, io: std::net::UdpSocket) {
        let at = socket.0 as usize;
        if self.peers.len() <= at {
            self.peers.resize_with(at + 1, || None);
        }
        let opened = Socket::new(io).and_then(|mut s| {
            self.poll.registry().register(&mut s.io, Token(PEERS + at), Interest::READABLE)?;
            Ok(s)
        });
        match opened {
            Ok(opened) => self.peers[at] = Some(opened),
            Err(e) => tracing::warn!(%e, "a socket of the relay cannot be watched"),
        }
    }

    fn answer(&mut self, path: Path, bytes: Vec<u8>) {
        match path {
            Path::Datagram { socket, local, client } => {
                let exit = Exit { socket: usize::from(socket), to: client, from: local };
                self.batch.push(exit, |out| out.extend_from_slice(&bytes));
                if self.batch.is_full() {
                    self.flush();
                }
            }
            Path::Stream { connection, .. } => self.write(connection, bytes.into()),
        }
    }

    /// Reads a socket for some rounds; true where more may wait.
    fn on_readable(&mut self, at: usize, memory: &mut [u8]) -> bool {
        for _ in 0..ROUNDS {
            let socket = match at.checked_sub(PEERS) {
                None => self.listeners.get(at),
                Some(peer) => self.peers.get(peer).and_then(Option::as_ref),
            };
            let Some(socket) = socket else { return false };
            let mut meta = [RecvMeta::default(); BATCH_SIZE];
            let read = {
                let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] = {
                    let mut rest = &mut *memory;
                    std::array::from_fn(|_| {
                        let (buffer, more) = std::mem::take(&mut rest).split_at_mut(BUFFER);
                        rest = more;
                        IoSliceMut::new(buffer)
                    })
                };
                socket.state.recv(UdpSockRef::from(&socket.io), &mut buffers, &mut meta)
            };
            let read = match read {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error of an earlier datagram; the next call reads on.
                Err(_) => continue,
            };
            let now = clock::now();
            for (i, meta) in meta.iter().take(read).enumerate() {
                let all = &memory[i * BUFFER..i * BUFFER + meta.len.min(BUFFER)];
                for datagram in all.chunks(meta.stride.max(1)) {
                    self.on_datagram(now, at, meta, datagram);
                }
            }
            // The queue was empty: what arrives after this call is a new event.
            if read < BATCH_SIZE && BATCH_SIZE > 1 {
                return false;
            }
        }
        true
    }

    fn on_datagram(&mut self, now: Instant, at: usize, meta: &RecvMeta, datagram: &[u8]) {
        match at.checked_sub(PEERS) {
            None => {
                let path = Path::Datagram { socket: at as u16, local: meta.dst_ip, client: meta.addr };
                let way = self.table.from_client(now, &path, datagram);
                self.carry(way, path, datagram);
            }
            Some(peer) => {
                let way = self.table.from_peer(now, table::Socket(peer as u32), meta.addr, datagram);
                let path = Path::Datagram { socket: 0, local: None, client: meta.addr };
                self.carry(way, path, datagram);
            }
        }
    }

    fn carry(&mut self, way: Way<'_>, from: Path, message: &[u8]) {
        match way {
            Way::Peer { socket, to, data } => {
                let exit = Exit { socket: PEERS + socket.0 as usize, to, from: None };
                self.batch.push(exit, |out| out.extend_from_slice(data));
            }
            Way::Client { path: Path::Datagram { socket, local, client }, head, data } => {
                let exit = Exit { socket: usize::from(socket), to: client, from: local };
                self.batch.push(exit, |out| write(out, head, data, false));
            }
            Way::Client { path: Path::Stream { connection, .. }, head, data } => {
                let mut out = Vec::with_capacity(data.len() + stun::INDICATION_OVERHEAD);
                write(&mut out, head, data, true);
                self.write(connection, out.into());
            }
            // A full queue: a request that was lost is sent again.
            Way::Control => {
                if self.asks.try_send(decide::Ask::Message(from, message.to_vec())).is_err() {
                    self.lost += 1;
                }
            }
            Way::Dropped(_) => {}
        }
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// A connection that does not read loses, as a slow line does.
    fn write(&mut self, connection: u64, bytes: Bytes) {
        if let Some(writer) = self.writers.get(&connection)
            && writer.try_send(bytes).is_err()
        {
            self.lost += 1;
        }
    }

    fn flush(&mut self) {
        let (listeners, peers) = (&self.listeners, &self.peers);
        self.lost += self.batch.flush(|at| match at.checked_sub(PEERS) {
            None => listeners.get(at),
            Some(peer) => peers.get(peer).and_then(Option::as_ref),
        });
    }

    fn show(&mut self, now: Instant) {
        if now.since(self.shown) < SHOW {
            return;
        }
        self.shown = now;
        self.table.not_taken(std::mem::take(&mut self.lost));
        // One ceiling over packets, which are measured here, and streams, which are measured where they are: each takes from the other's.
        let packets = self.table.carried().bytes - self.counted;
        self.total.lock().unwrap_or_else(PoisonError::into_inner).charge(now, packets * 8);
        self.table.streamed(now, self.shared.streamed.swap(0, Ordering::Relaxed));
        let carried = self.table.carried();
        self.counted = carried.bytes;
        self.shared.packets.store(carried.packets, Ordering::Relaxed);
        self.shared.bytes.store(carried.bytes, Ordering::Relaxed);
        self.shared.refused.store(carried.refused, Ordering::Relaxed);
        self.shared.over.store(carried.over, Ordering::Relaxed);
    }
}

/// What goes to a client: ChannelData, or a Data indication.
fn write(out: &mut Vec<u8>, head: Head, data: &[u8], stream: bool) {
    match head {
        Head::Channel(number) => {
            let mut header = [0; stun::CHANNEL_HEADER];
            stun::write_channel_header(&mut header, number, data.len() as u16);
            out.extend_from_slice(&header);
            out.extend_from_slice(data);
            if stream {
                let pad = data.len().next_multiple_of(4) - data.len();
                out.extend_from_slice(&[0; 3][..pad]);
            }
        }
        // Nobody answers an indication, so its transaction names nothing. Too long for one: an empty datagram, which nobody reads.
        Head::Indication(peer) => {
            let _: Option<()> = stun::write_data(out, false, &[0x43; 12], peer, data);
        }
    }
}
