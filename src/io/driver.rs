//! The tokio driver: sockets, media threads, control socket, disk and signals around one [`Node`].
//!
//! One task owns the node. It takes events in batches, hands them in, and carries out what comes out; nothing in
//! here decides anything about SIP or the overlay.

use super::control::{ControlRequest, Update};
use super::discovery;
use super::disk::{self, DataDir};
use super::dns::Dns;
use super::media::{Engine, clock};
use super::probe::Prober;
use super::proxy::Proxy;
use super::relay::Relays;
use super::store::Records;
use super::surroundings::Surroundings;
use super::transport::{Credentials, Endpoint, Event as WireEvent};
use super::voice::Voices;
use crate::core::{Instant, UnixTime};
use crate::node::control::{Command, Event, RequestId};
use crate::node::{Input, MediaInput, Node, Output, Saved, StoreInput};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Events taken from the sockets before the node's outputs are carried out.
const BATCH: usize = 128;
/// How long leaving may take after a signal.
const LEAVING: Duration = Duration::from_secs(4);
/// How often a file is tried again that the disk did not take.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// How often the machine is measured.
const MEASURE: Duration = Duration::from_secs(300);
/// How often the wall clock is compared with what the node believes.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Why a node that had started ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// No bootstrap peer took it in.
    #[error("this peer could not join: {0}")]
    NotJoined(String),
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// Everything that surrounds a node.
pub struct Driver {
    pub(super) node: Node,
    pub(super) endpoint: Endpoint,
    pub(super) wire: mpsc::Receiver<WireEvent>,
    pub(super) voices: Voices,
    pub(super) relays: Relays,
    pub(super) prober: Prober,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) media: mpsc::Receiver<MediaInput>,
    pub(super) control: mpsc::Receiver<ControlRequest>,
    pub(super) surroundings: Surroundings,
    /// What tasks beside this one have found out for the node.
    pub(super) aside: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    pub(super) dns: Dns,
    pub(super) data: DataDir,
    pub(super) records: Option<Records>,
    pub(super) recorded: mpsc::Receiver<StoreInput>,
    pub(super) waiting: BTreeMap<RequestId, mpsc::Sender<Update>>,
    /// Files that the disk has not taken yet.
    pub(super) unsaved: BTreeMap<Saved, Bytes>,
}

/// The wall clock.
#[allow(clippy::disallowed_methods, reason = "io is where clocks are read")]
pub fn unix_now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime(since.map_or(0, |d| d.as_secs()))
}

impl Driver {
    /// Runs until the node has stopped; `on_event` hears of everything that concerns nobody's command in particular.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(mut self, on_event: impl FnMut(&Event)) -> Result<(), RunError> {
        let ended = self.drive(on_event).await;
        self.surroundings.close().await;
        ended
    }

    async fn drive(&mut self, mut on_event: impl FnMut(&Event)) -> Result<(), RunError> {
        let catch =
            |kind: SignalKind| signal(kind).map_err(|source| RunError::System { what: "catching signals", source });
        let mut interrupt = catch(SignalKind::interrupt())?;
        let mut terminate = catch(SignalKind::terminate())?;
        let mut batch = Vec::with_capacity(BATCH);
        let mut clock_check = tokio::time::interval(CLOCK_CHECK);
        let mut measure = tokio::time::interval(MEASURE);
        let mut again = tokio::time::interval(SAVE_AGAIN);
        let mut leaving: Option<Instant> = None;
        loop {
            if self.carry_out(&mut on_event)? {
                return Ok(());
            }
            let now = clock::now();
            if leaving.is_some_and(|until| until <= now) {
                return Ok(());
            }
            let due = [self.node.poll_timeout(), leaving].into_iter().flatten().min();
            let wait = due.map_or(Duration::from_secs(3600), |at| at.since(now));
            tokio::select! {
                n = self.wire.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        return Ok(());
                    }
                    for event in batch.drain(..) {
                        self.node.handle(clock::now(), input(event));
                    }
                }
                Some(media) = self.media.recv() => self.node.handle(clock::now(), Input::Media(media)),
                found = self.surroundings.next() => {
                    self.voices.rebind(self.surroundings.media_address());
                    self.node.handle(clock::now(), found);
                }
                Some(store) = self.recorded.recv() => self.node.handle(clock::now(), Input::Store(store)),
                Some(input) = self.aside.1.recv() => self.node.handle(clock::now(), input),
                Some((query, records)) = self.dns.answered() => {
                    self.node.handle(clock::now(), Input::Answer { query, records });
                }
                Some(asked) = self.control.recv() => self.on_control(asked),
                () = tokio::time::sleep(wait) => {}
                () = heard(&mut interrupt, &mut terminate) => match leaving {
                    None => {
                        leaving = Some(clock::now() + LEAVING);
                        self.node.handle(clock::now(), Input::Command { request: RequestId(u64::MAX), command: Command::Stop });
                    }
                    Some(_) => return Ok(()),
                },
                _ = again.tick(), if !self.unsaved.is_empty() => self.save_again(),
                _ = measure.tick() => {
                    if let Some(facts) = super::machine::facts() {
                        self.node.handle(clock::now(), Input::Facts(facts));
                    }
                }
                _ = clock_check.tick() => {
                    let (now, unix) = (clock::now(), unix_now());
                    if let Some(figures) = self.relays.figures() {
                        self.node.handle(now, Input::Relay(figures));
                    }
                    if self.node.unix(now).secs().abs_diff(unix.secs()) > 2 {
                        self.node.handle(now, Input::Clock { unix });
                    }
                }
            }
            let now = clock::now();
            if self.node.poll_timeout().is_some_and(|at| at <= now) {
                self.node.handle_timeout(now);
            }
        }
    }

    fn on_control(&mut self, asked: ControlRequest) {
        let now = clock::now();
        if let Some(figures) = self.relays.figures() {
            self.node.handle(now, Input::Relay(figures));
        }
        if let Some(proxy) = &self.proxy {
            self.node.handle(now, Input::Proxy(proxy.status()));
        }
        match asked {
            ControlRequest::Begin { request, command, replies } => {
                self.waiting.insert(request, replies);
                self.node.handle(now, Input::Command { request, command });
            }
            ControlRequest::Abort { request } => {
                self.waiting.remove(&request);
                self.node.handle(now, Input::Abort { request });
            }
        }
    }

    /// Writes a file. What the disk does not take stays in memory, the latest of each sort, and the owner is told.
    fn save(&mut self, what: Saved, bytes: Bytes) {
        if let Err(fault) = self.data.write(file(what), &bytes) {
            self.unsaved.insert(what, bytes);
            self.node.handle(clock::now(), Input::Store(StoreInput::Unsaved { why: fault.to_string() }));
        } else if self.unsaved.remove(&what).is_some() && self.unsaved.is_empty() {
            self.node.handle(clock::now(), Input::Store(StoreInput::Saved));
        }
    }

    /// Tries again what the disk did not take.
    fn save_again(&mut self) {
        for (what, bytes) in self.unsaved.clone() {
            self.save(what, bytes);
        }
    }

    /// Carries out what the node wants; true when it has stopped.
    fn carry_out(&mut self, on_event: &mut impl FnMut(&Event)) -> Result<bool, RunError> {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Datagram { flow, bytes } => self.endpoint.send(flow, &bytes),
                Output::Connect { conn, transport, remote, expect } => {
                    self.endpoint.connect(conn, transport, remote, expect);
                }
                Output::ConnectServer { conn, remote, name, authorities } => {
                    self.endpoint.connect_server(conn, remote, &name, &authorities);
                }
                Output::Write { conn, bytes } => self.endpoint.write(conn, bytes),
                Output::Close { conn } => self.endpoint.close(conn),
                Output::Query { query, question } => self.dns.ask(query, question),
                Output::Media(command) => {
                    if let Some(answer) = self.voices.carry_out(command) {
                        self.node.handle(clock::now(), Input::Media(answer));
                    }
                }
                Output::Relay(command) => {
                    if let Some(answer) = self.relays.carry_out(unix_now(), command) {
                        self.node.handle(clock::now(), Input::Relay(answer));
                    }
                }
                Output::Probe(command) => {
                    if let Some(answer) = self.prober.carry_out(command) {
                        self.node.handle(clock::now(), Input::Probe(answer));
                    }
                }
                Output::Reply { request, result } => {
                    if let Some(replies) = self.waiting.remove(&request) {
                        let _ = replies.try_send(Update::Done(result));
                    }
                }
                Output::Event { request, event } => {
                    if let Event::JoinFailed { why } = &event {
                        return Err(RunError::NotJoined(why.clone()));
                    }
                    on_event(&event);
                    if let Some(replies) = request.and_then(|r| self.waiting.get(&r)) {
                        let _ = replies.try_send(Update::Event(event));
                    }
                }
                Output::Save { what, bytes } => self.save(what, bytes),
                Output::Store(batch) => {
                    if let Some(records) = &self.records {
                        records.keep(batch);
                    }
                }
                Output::LoadChunk { hash } => {
                    if let Some(records) = &self.records {
                        records.load(hash);
                    }
                }
                Output::Resolve { name } => {
                    let aside = self.aside.0.clone();
                    tokio::spawn(async move {
                        let found = discovery::srv::resolve(&name).await;
                        let _ = aside.send(Input::Resolved { name, found }).await;
                    });
                }
                Output::Revoked(revoked) => self.endpoint.set_revoked(revoked),
                Output::Identity(identity) => {
                    if let Err(fault) = self.endpoint.set_credentials(&Credentials::of(&identity)) {
                        tracing::warn!(%fault, "links go on with the old certificates");
                    }
                }
                Output::Stopped => return Ok(true),
            }
        }
        Ok(false)
    }
}

fn file(what: Saved) -> &'static str {
    match what {
        Saved::Identity => disk::IDENTITY,
        Saved::Phones => disk::PHONES,
        Saved::Revocations => disk::REVOCATIONS,
        Saved::Hosts => disk::HOSTS,
        Saved::Messages => disk::MESSAGES,
        Saved::Settings => disk::SETTINGS,
        Saved::Shares => disk::SHARES,
        Saved::Attempts => disk::ATTEMPTS,
        Saved::Foreign => disk::FOREIGN,
        Saved::Former => disk::FORMER,
        Saved::Merges => disk::MERGES,
        Saved::Nat => disk::NAT,
    }
}

/// The media threads that the voices of this driver run on.
pub(super) fn engine(
    config: super::media::EngineConfig,
    media: mpsc::Sender<MediaInput>,
) -> Result<Engine, super::media::EngineError> {
    let rng = super::seed::rng().map_err(super::media::EngineError::Thread)?;
    Engine::start(config, rng, Box::new(move |event| super::voice::tell(&media, event)))
}

async fn heard(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn input(event: WireEvent) -> Input {
    match event {
        WireEvent::Datagram { flow, bytes } => Input::Datagram { flow, bytes },
        WireEvent::Accepted { flow, peer, .. } => Input::Accepted { flow, peer },
        WireEvent::Connected { conn, peer, .. } => Input::Connected { conn, peer },
        WireEvent::ConnectFailed { conn, why } => Input::ConnectFailed { conn, why: why.to_string() },
        WireEvent::Frame { conn, bytes } => Input::Frame { conn, bytes },
        WireEvent::Pong { conn } => Input::Pong { conn },
        WireEvent::Closed { conn, why } => {
            tracing::debug!(?conn, %why, "closed");
            Input::Closed { conn }
        }
    }
}
