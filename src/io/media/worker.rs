//! One media thread: its commands, its sockets, its clock.

use super::call::{Call, Port, Socket};
use super::leg::{Leg, Wire};
use super::ports::Sockets;
use super::tcp::{Connections, Take};
use super::{CallStats, Event, OnEvent, Snapshots, Voice, clock, lock};
use crate::core::{Instant, Rng};
use crate::io::audio::{Sink, Source};
use crate::io::proxy::Proxy;
use crate::media::session::FRAME;
use crate::nat::ice::{Gatherer, Route, Second};
use crate::secure::Keys;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

/// Commands that may wait.
const COMMANDS: usize = 1024;
/// Frames that are made up for after a late wake-up; beyond that the time is lost.
const CATCH_UP: u64 = 50;
/// Every so many frames the figures are put where others can read them, and reported.
const SNAPSHOT_FRAMES: u64 = 10;
const STATS_FRAMES: u64 = 50;
/// Larger than any datagram that voice is sent in.
const DATAGRAM: usize = 2048;
/// After a socket error, so that one that persists does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(2);

pub(super) enum Command {
    Open { call: u64, sockets: Sockets },
    Start { call: u64, voice: Voice, source: Box<dyn Source>, sink: Box<dyn Sink>, rng: Rng },
    Send { call: u64, local: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Reach { call: u64, relays: Vec<(SocketAddr, [u8; 32])> },
    Take { call: u64, from: SocketAddr, bytes: Vec<u8> },
    Route { call: u64, route: Option<Route> },
    Second { call: u64, second: Option<Box<Second>> },
    Update { call: u64, voice: Voice, rng: Rng },
    Mute { call: u64, muted: bool },
    Dtmf { call: u64, digits: Box<str>, duration: Duration },
    Close { call: u64 },
}

pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(
        index: usize,
        zero: Instant,
        on_event: OnEvent,
        snapshots: Snapshots,
        keys: Option<Keys>,
        proxy: Option<Arc<Proxy>>,
    ) -> io::Result<Worker> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name(format!("media-{index}")).spawn(move || {
            let mut engine = Loop {
                calls: Calls::default(),
                readers: BTreeMap::new(),
                on_event,
                snapshots,
                zero,
                frame: 0,
                keys,
                proxy,
            };
            LocalSet::new().block_on(&runtime, engine.run(inbox));
        })?;
        Ok(Worker { commands: Some(commands), thread: Some(thread) })
    }

    pub(super) fn send(&self, command: Command) -> Result<(), ()> {
        self.commands.as_ref().ok_or(())?.try_send(command).map_err(|_| ())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

type Calls = Rc<RefCell<BTreeMap<u64, Call>>>;

struct Loop {
    calls: Calls,
    readers: BTreeMap<u64, Vec<AbortHandle>>,
    on_event: OnEvent,
    snapshots: Snapshots,
    /// The deadlines of all threads are whole frames after this.
    zero: Instant,
    /// The next frame to do.
    frame: u64,
    keys: Option<Keys>,
    proxy: Option<Arc<Proxy>>,
}

impl Loop {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            if self.calls.borrow().is_empty() {
                // Nothing ticks while nobody talks.
                let Some(command) = inbox.recv().await else { break };
                self.frame = self.frame_at(clock::now()) + 1;
                self.obey(command);
                continue;
            }
            let wait = self.deadline(self.frame).since(clock::now());
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                command = inbox.recv() => {
                    match command {
                        Some(command) => self.obey(command),
                        None => break,
                    }
                    continue;
                }
                () = std::future::ready(()), if wait.is_zero() => {}
            }
            // What came before the frame is read before it, however late the wake-up: the first yield lets
            // the sockets be polled, the second one their readers run.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            self.tick();
        }
        let calls: Vec<u64> = self.calls.borrow().keys().copied().collect();
        for call in calls {
            self.obey(Command::Close { call });
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        let current = self.frame_at(now);
        if current < self.frame {
            return;
        }
        if current - self.frame > CATCH_UP {
            let lost_ms = (current - self.frame) * FRAME.as_millis() as u64;
            tracing::warn!(lost_ms, "the media clock stood still");
            self.frame = current;
        }
        let at = self.deadline(self.frame);
        let mut events = Vec::new();
        for call in self.calls.borrow_mut().values_mut() {
            call.tick(at, self.frame.is_multiple_of(STATS_FRAMES), &mut events);
        }
        if self.frame.is_multiple_of(SNAPSHOT_FRAMES) {
            let mut snapshots = lock(&self.snapshots);
            for (id, call) in self.calls.borrow().iter() {
                let Some(stats) = call.stats(at) else { continue };
                snapshots.insert(*id, stats);
                if self.frame.is_multiple_of(STATS_FRAMES) {
                    events.push(Event::Stats { call: *id, stats: Box::new(stats) });
                }
            }
        }
        self.frame += 1;
        self.tell(events);
    }

    fn obey(&mut self, command: Command) {
        let mut events = Vec::new();
        match command {
            Command::Open { call, sockets } => self.open(call, sockets, &mut events),
            Command::Start { call, voice, source, sink, rng } => {
                self.with(call, |it| it.start(clock::now(), voice, source, sink, rng, &mut events));
            }
            Command::Send { call, local, to, bytes } => self.with(call, |it| it.send(local, to, &bytes)),
            Command::Reach { call, relays } => self.reach(call, relays),
            Command::Take { call, from, bytes } => {
                self.with(call, |it| it.take(clock::now(), from, &bytes, &mut events));
            }
            Command::Route { call, route } => self.with(call, |it| it.route(clock::now(), route, &mut events)),
            Command::Second { call, second } => self.with(call, |it| it.second(clock::now(), second.map(|s| *s))),
            Command::Update { call, voice, rng } => {
                self.with(call, |it| it.update(clock::now(), voice, rng, &mut events))
            }
            Command::Mute { call, muted } => self.with(call, |it| it.mute(muted)),
            Command::Dtmf { call, digits, duration } => self.with(call, |it| it.dial(&digits, duration)),
            Command::Close { call } => {
                for reader in self.readers.remove(&call).into_iter().flatten() {
                    reader.abort();
                }
                let closed = self.calls.borrow_mut().remove(&call);
                let stats = closed.map_or_else(CallStats::default, |closed| closed.close(clock::now(), &mut events));
                lock(&self.snapshots).remove(&call);
                events.push(Event::Ended { call, stats: Box::new(stats) });
            }
        }
        self.tell(events);
    }

    fn with(&self, call: u64, act: impl FnOnce(&mut Call)) {
        if let Some(call) = self.calls.borrow_mut().get_mut(&call) {
            act(call);
        }
    }

    fn open(&mut self, id: u64, sockets: Sockets, events: &mut Vec<Event>) {
        let polled = |socket| {
            let socket = UdpSocket::from_std(socket)?;
            Ok::<_, io::Error>(Socket { local: socket.local_addr()?, socket: Rc::new(Wire::Udp(socket)) })
        };
        let opened = polled(sockets.rtp).and_then(|rtp| {
            let also = sockets.also.into_iter().map(polled).collect::<Result<Vec<_>, _>>()?;
            Ok((rtp, polled(sockets.rtcp)?, also))
        });
        match opened {
            Ok((rtp, rtcp, also)) => {
                let voice = std::iter::once(&rtp).chain(&also).map(|s| (s.socket.clone(), Port::Rtp(s.local)));
                let all = voice.chain([(rtcp.socket.clone(), Port::Rtcp)]);
                let read = |(socket, port)| read(socket, port, id, self.calls.clone(), self.on_event.clone());
                let readers = all.map(|s| tokio::task::spawn_local(read(s)).abort_handle());
                self.readers.entry(id).or_default().extend(readers);
                let also = also.into_iter().chain(self.connectable(id, sockets.tcp)).collect();
                let mut calls = self.calls.borrow_mut();
                match calls.get_mut(&id) {
                    Some(call) => call.reopened(rtp, rtcp, also),
                    None => _ = calls.insert(id, Call::new(id, rtp, rtcp, also, self.keys.clone())),
                }
            }
            Err(error) => {
                // The system is out of something; a new call ends as soon as it began.
                tracing::error!(call = id, %error, "cannot poll the media sockets");
                if !self.calls.borrow().contains_key(&id) {
                    events.push(Event::Ended { call: id, stats: Box::default() });
                }
            }
        }
    }

    /// For each of these two more sockets of a call: for connections that come there, and for those made from the same address.
    fn connectable(&mut self, id: u64, listeners: Vec<std::net::TcpListener>) -> Vec<Socket> {
        let (calls, on_event) = (&self.calls, &self.on_event);
        let readers = self.readers.entry(id).or_default();
        let take = |local: SocketAddr| -> Take {
            let (calls, on_event) = (calls.clone(), on_event.clone());
            Rc::new(move |from, packet: &[u8]| {
                let mut events = Vec::new();
                if let Some(call) = calls.borrow_mut().get_mut(&id) {
                    call.receive(clock::now(), Port::Rtp(local), from, packet, &mut events);
                }
                tell(&on_event, events);
            })
        };
        let mut sockets = Vec::new();
        for listener in listeners {
            let polled = listener.local_addr().and_then(|local| Ok((local, TcpListener::from_std(listener)?)));
            let Ok((local, listener)) = polled else { continue };
            let from = Gatherer::active(local);
            let (taken, listen) = Connections::taken(listener, take(local));
            let (made, dial) = Connections::made(from, take(from));
            readers.push(tokio::task::spawn_local(listen).abort_handle());
            readers.push(tokio::task::spawn_local(dial).abort_handle());
            sockets.push(Socket { local, socket: Rc::new(Wire::Tcp(taken)) });
            sockets.push(Socket { local: from, socket: Rc::new(Wire::Tcp(made)) });
        }
        sockets
    }

    /// A leg to a relay, until it ends or the call does.
    fn reach(&mut self, id: u64, relays: Vec<(SocketAddr, [u8; 32])>) {
        let (calls, on_event, proxy) = (self.calls.clone(), self.on_event.clone(), self.proxy.clone());
        let leg = tokio::task::spawn_local(async move {
            let Some(leg) = Leg::reach(relays, proxy).await else {
                return tell(&on_event, vec![Event::Unreached { call: id, local: None }]);
            };
            let (local, relay) = (leg.local, leg.relay);
            let taken = (calls.clone(), on_event.clone());
            let (wire, carry) = leg.run(move |message| {
                let mut events = Vec::new();
                if let Some(call) = taken.0.borrow_mut().get_mut(&id) {
                    call.receive(clock::now(), Port::Rtp(local), relay, message, &mut events);
                }
                tell(&taken.1, events);
            });
            let socket = Socket { local, socket: Rc::new(wire) };
            if calls.borrow_mut().get_mut(&id).is_some_and(|call| call.add(socket)) {
                tell(&on_event, vec![Event::Reached { call: id, local, relay }]);
                carry.await;
            }
            if let Some(call) = calls.borrow_mut().get_mut(&id) {
                call.remove(local);
            }
            tell(&on_event, vec![Event::Unreached { call: id, local: Some(local) }]);
        });
        self.readers.entry(id).or_default().push(leg.abort_handle());
    }

    fn tell(&self, events: Vec<Event>) {
        tell(&self.on_event, events);
    }

    fn deadline(&self, frame: u64) -> Instant {
        self.zero + Duration::from_micros(frame * FRAME.as_micros() as u64)
    }

    fn frame_at(&self, now: Instant) -> u64 {
        (now.since(self.zero).as_micros() / FRAME.as_micros()) as u64
    }
}

/// Takes in what comes to one socket, until aborted.
async fn read(socket: Rc<Wire>, port: Port, call: u64, calls: Calls, on_event: OnEvent) {
    let mut buffer = [0; DATAGRAM];
    loop {
        let received: io::Result<(usize, SocketAddr)> = socket.recv_from(&mut buffer).await;
        let mut events = Vec::new();
        let failed = received.is_err();
        if let Some(call) = calls.borrow_mut().get_mut(&call) {
            match received {
                Ok((length, from)) => call.receive(clock::now(), port, from, &buffer[..length], &mut events),
                // ECONNREFUSED and its like: somebody else's port is closed. Ours stays open.
                Err(_) => call.count_error(),
            }
        }
        tell(&on_event, events);
        if failed {
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }
}

fn tell(on_event: &OnEvent, events: Vec<Event>) {
    if events.is_empty() {
        return;
    }
    let on_event = lock(on_event);
    for event in events {
        on_event(event);
    }
}
