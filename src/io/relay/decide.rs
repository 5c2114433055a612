//! The thread that decides: requests to the [`Server`], its decisions to the carrying thread.

use super::Shared;
use super::packets::{Handle, Tell};
use super::peer::{Joined, Peers};
use crate::core::{Instant, Rng, UnixTime};
use crate::io::media::clock;
use crate::nat::turn::Server;
use crate::nat::turn::server::{Config, ConnectionId, Input, Output};
use crate::nat::turn::table::{Path, Socket};
use crate::stun::TransactionId;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Wakes up at least so often, to show figures and to notice the end.
const IDLE: Duration = Duration::from_millis(500);

/// What the thread is asked.
pub(super) enum Ask {
    /// A STUN message.
    Message(Path, Vec<u8>),
    /// A connection has ended.
    Gone(Path),
    /// A member's address.
    Proven(IpAddr, Duration),
    /// A success answer of a Binding transaction, to where a member is seen.
    Answer(SocketAddr, TransactionId),
    /// A ConnectionBind, and who waits for what becomes of its connection.
    Bind(Path, Vec<u8>, oneshot::Sender<Verdict>),
    /// A peer has connected.
    Arrived(Socket, SocketAddr, TcpStream),
    /// A peer was dialled; it answered, or not.
    Dialled(ConnectionId, Option<TcpStream>),
    /// The relay ends.
    Stop,
}

/// What becomes of a connection that sent a ConnectionBind.
#[derive(Default)]
pub(super) struct Verdict {
    /// For the client.
    pub(super) answer: Vec<u8>,
    /// From there on it carries what this one does.
    pub(super) joined: Option<Joined>,
}

pub(super) struct Decider {
    server: Server,
    peers: Peers,
    packets: Handle,
    shared: Arc<Shared>,
}

impl Decider {
    pub(super) fn new(
        now: Instant,
        unix: UnixTime,
        config: Config,
        rng: Rng,
        peers: Peers,
        packets: Handle,
        shared: Arc<Shared>,
    ) -> Decider {
        Decider { server: Server::new(now, unix, config, rng), peers, packets, shared }
    }

    pub(super) fn run(mut self, asked: &Receiver<Ask>) {
        loop {
            let now = clock::now();
            let wait = self.server.poll_timeout().map_or(IDLE, |at| at.since(now)).min(IDLE);
            let ask = match asked.recv_timeout(wait) {
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(ask) => Some(ask),
                Err(RecvTimeoutError::Timeout) => None,
            };
            let now = clock::now();
            let mut binding = None;
            match ask {
                Some(Ask::Message(path, bytes)) => self.server.handle(now, Input::Message { path, bytes: &bytes }),
                Some(Ask::Gone(path)) => self.server.handle(now, Input::Gone { path }),
                Some(Ask::Proven(ip, lifetime)) => self.server.handle(now, Input::Proven { ip, lifetime }),
                Some(Ask::Answer(to, id)) => self.server.handle(now, Input::Answer { to, id }),
                Some(Ask::Bind(path, bytes, back)) => {
                    binding = Some((path, Verdict::default(), back));
                    self.server.handle(now, Input::Message { path, bytes: &bytes });
                }
                Some(Ask::Arrived(socket, from, stream)) => {
                    if let Some(id) = self.server.arrived(now, socket, from) {
                        self.peers.keep(id, stream);
                    }
                }
                Some(Ask::Dialled(id, stream)) => {
                    let open = self.peers.dialled(id, stream);
                    self.server.handle(now, Input::Dialled { id, open });
                }
                Some(Ask::Stop) | None => {}
            }
            if self.server.poll_timeout().is_some_and(|at| at <= now) {
                self.server.handle_timeout(now);
            }
            if self.carry_out(now, binding.as_mut().map(|(path, verdict, _)| (*path, verdict))).is_err() {
                return;
            }
            if let Some((_, verdict, back)) = binding {
                // The client may have gone meanwhile.
                let _ = back.send(verdict);
            }
            let figures = (self.server.allocations(), self.server.counters());
            *self.shared.decided.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        }
    }

    /// Hands on what was decided; an error when the carrying thread has ended.
    fn carry_out(&mut self, now: Instant, mut binding: Option<(Path, &mut Verdict)>) -> Result<(), ()> {
        let mut told = false;
        while let Some(output) = self.server.poll_output() {
            told = true;
            match output {
                Output::Answer { path, bytes } if binding.as_ref().is_some_and(|(of, _)| *of == path) => {
                    if let Some((_, verdict)) = &mut binding {
                        verdict.answer = bytes;
                    }
                }
                Output::Join { id, slot, .. } => {
                    if let Some((_, verdict)) = &mut binding {
                        verdict.joined = self.peers.join(id, slot);
                    }
                }
                Output::Part(id) => self.peers.part(id),
                Output::Dial { id, from, to, .. } => self.peers.dial(id, from, to),
                Output::Answer { path, bytes } => self.packets.tell(Tell::Answer { path, bytes })?,
                Output::Change(change) => self.packets.tell(Tell::Change(change))?,
                Output::Close(socket) if self.peers.close(socket) => {}
                Output::Close(socket) => self.packets.tell(Tell::Close(socket))?,
                Output::Hang(Path::Stream { connection, .. }) => self.packets.tell(Tell::Hang { connection })?,
                Output::Hang(Path::Datagram { .. }) => {}
                Output::Open { wish, sockets, stream: true } => {
                    let open = self.peers.listen(&sockets);
                    self.server.handle(now, Input::Opened { wish, open });
                }
                Output::Open { wish, sockets, stream: false } => {
                    let opened = open(&sockets);
                    let open = opened.is_some();
                    for (socket, io) in opened.unwrap_or_default() {
                        self.packets.tell(Tell::Open { socket, io })?;
                    }
                    self.server.handle(now, Input::Opened { wish, open });
                }
            }
        }
        if told {
            self.packets.wake();
        }
        Ok(())
    }
}

/// All of them, or none.
fn open(sockets: &[(Socket, SocketAddr)]) -> Option<Vec<(Socket, std::net::UdpSocket)>> {
    sockets.iter().map(|(socket, addr)| super::bind(*addr).ok().map(|io| (*socket, io))).collect()
}
