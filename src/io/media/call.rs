//! One call on a media thread: sockets, session, source and sink.

use super::latch::Latch;
use super::leg::Wire;
use super::stream::{Drain, Feed};
use super::way::Ways;
use super::{CallStats, Event, Voice};
use crate::core::{Instant, Rng};
use crate::io::audio::{Sink, Source};
use crate::media::session::{Output, Session};
use crate::nat::ice::{Route, is_probe, is_stun};
use crate::rtp::is_rtcp;
use crate::secure::{Association, Fingerprint, Keys, State};
use crate::stun::read_channel;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// DTLS datagrams kept that arrive before signalling has said whose they are.
const EARLY: usize = 8;
/// After this long without a packet from the other end its silence is told.
const QUIET: Duration = Duration::from_secs(5);

/// Further sockets of a call, and addresses that it takes packets in clear from.
const SOCKETS: usize = 24;
/// STUN messages reported for each frame.
const REPORTS: u32 = 32;

/// Which socket a datagram came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// With its address.
    Rtp(SocketAddr),
    Rtcp,
}

/// A socket, and where it is.
#[derive(Clone)]
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    pub(super) socket: Rc<Wire>,
}

pub(super) struct Call {
    pub(super) id: u64,
    pub(super) rtp: Socket,
    rtcp: Socket,
    /// Further ones for both.
    pub(super) also: Vec<Socket>,
    /// The ways that ICE found.
    pub(super) ways: Ways,
    /// STUN messages that may be reported until the next frame.
    reports: u32,
    pub(super) running: Option<Running>,
    strangers: u64,
    pub(super) socket_errors: u64,
    keys: Option<Keys>,
    /// DTLS datagrams that overtook signalling.
    early: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// The encryption of a call, and where its handshake goes.
struct Secured {
    association: Association,
    agreed: (Fingerprint, bool),
    to: SocketAddr,
    told: bool,
}

pub(super) struct Running {
    session: Session,
    latch: Latch,
    feed: Feed,
    drain: Drain,
    /// The frame at which both source and sink began.
    zero: Option<Instant>,
    muted: bool,
    secured: Option<Secured>,
    /// The way is ICE's; else where the other end said.
    pub(super) ice: bool,
    /// When a packet of the other end was taken last.
    heard: Instant,
    /// Encryption that waits for the way.
    waiting: Option<(Fingerprint, bool)>,
    /// Where packets in clear may come from: ends of ways that ICE found.
    proven: Vec<SocketAddr>,
}

impl Running {
    /// Packets in clear may come from there.
    pub(super) fn prove(&mut self, remote: SocketAddr) {
        if !self.proven.contains(&remote) {
            self.proven.truncate(SOCKETS - 1);
            self.proven.insert(0, remote);
        }
    }
}

impl Call {
    pub(super) fn new(id: u64, rtp: Socket, rtcp: Socket, also: Vec<Socket>, keys: Option<Keys>) -> Self {
        Call {
            id,
            rtp,
            rtcp,
            also,
            ways: Ways::default(),
            reports: REPORTS,
            running: None,
            strangers: 0,
            socket_errors: 0,
            keys,
            early: VecDeque::new(),
        }
    }

    /// This machine is elsewhere; what comes to the old sockets is taken still.
    pub(super) fn reopened(&mut self, rtp: Socket, rtcp: Socket, also: Vec<Socket>) {
        self.also.push(std::mem::replace(&mut self.rtp, rtp));
        self.rtcp = rtcp;
        self.also.splice(..0, also);
        self.also.truncate(SOCKETS);
    }

    /// One more, until it is gone: false where there is no room.
    pub(super) fn add(&mut self, socket: Socket) -> bool {
        let room = self.also.len() < SOCKETS;
        if room {
            self.also.push(socket);
        }
        room
    }

    pub(super) fn remove(&mut self, local: SocketAddr) {
        self.also.retain(|s| s.local != local);
    }

    /// Sends what is no voice.
    pub(super) fn send(&mut self, local: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let socket = std::iter::once(&self.rtp).chain(&self.also).find(|s| s.local == local);
        // Unreachable addresses are what checks are for: they are no fault of the socket's.
        let _ = socket.map(|s| s.socket.try_send_to(bytes, to));
    }

    /// The way of the voice.
    pub(super) fn route(&mut self, now: Instant, route: Option<Route>, events: &mut Vec<Event>) {
        self.ways.set(now, route);
        let (Some(running), Some(route)) = (&mut self.running, route) else { return };
        running.prove(route.remote);
        running.latch.follow(route.remote);
        match running.waiting.take() {
            Some(agreed) => self.secure(now, Some(agreed), route.remote, events),
            None => self.flush_handshake(events),
        }
    }

    /// A packet that came through a relay.
    pub(super) fn take(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], events: &mut Vec<Event>) {
        if !is_stun(bytes) {
            self.receive(now, Port::Rtp(self.rtp.local), from, bytes, events);
        }
    }

    /// Begins what was agreed on encryption; with ICE once there is a way.
    fn agree(&mut self, now: Instant, voice: &Voice, events: &mut Vec<Event>) {
        let Some(running) = &mut self.running else { return };
        running.ice = voice.ice;
        match (voice.ice, self.ways.route, voice.secured) {
            (true, None, Some(agreed)) if running.secured.is_none() => running.waiting = Some(agreed),
            (true, Some(route), _) => self.secure(now, voice.secured, route.remote, events),
            _ => self.secure(now, voice.secured, voice.remote.rtp, events),
        }
    }

    pub(super) fn start(
        &mut self,
        now: Instant,
        voice: Voice,
        source: Box<dyn Source>,
        sink: Box<dyn Sink>,
        rng: Rng,
        events: &mut Vec<Event>,
    ) {
        let rate = voice.session.codec.sample_rate;
        match Session::new(now, voice.session, rng) {
            Ok(session) => {
                self.running = Some(Running {
                    session,
                    latch: Latch::new(voice.remote),
                    feed: Feed::new(source, rate),
                    drain: Drain::new(sink, rate),
                    zero: None,
                    muted: false,
                    secured: None,
                    ice: voice.ice,
                    heard: now,
                    waiting: None,
                    proven: self.ways.route.map(|r| r.remote).into_iter().collect(),
                });
                self.agree(now, &voice, events);
            }
            Err(error) => events.push(Event::Failed { call: self.id, error }),
        }
    }

    /// Begins what was agreed on encryption, or leaves it as it is where nothing has changed.
    #[allow(clippy::disallowed_methods, reason = "io is where clocks are read")]
    fn secure(&mut self, now: Instant, agreed: Option<(Fingerprint, bool)>, to: SocketAddr, events: &mut Vec<Event>) {
        let Some(running) = &mut self.running else { return };
        if running.secured.as_ref().map(|s| s.agreed.0) == agreed.map(|a| a.0) {
            return;
        }
        running.secured = None;
        let Some(agreed) = agreed else { return };
        let Some(keys) = &self.keys else {
            return events.push(Event::Unsecured { call: self.id, why: "this end has no keys" });
        };
        let association = Association::new(now, std::time::Instant::now(), keys, agreed.0, agreed.1);
        running.secured = Some(Secured { association, agreed, to, told: false });
        for (from, datagram) in std::mem::take(&mut self.early) {
            self.shake_hands(from, &datagram, events);
        }
        self.flush_handshake(events);
    }

    /// A DTLS datagram. From the address that was agreed, or where that is not seen (a NAT), from the first that speaks.
    fn shake_hands(&mut self, from: SocketAddr, datagram: &[u8], events: &mut Vec<Event>) {
        let Some(running) = &mut self.running else { return };
        let Some(secured) = &mut running.secured else { return };
        let agreed = running.latch.agreed().rtp;
        if running.ice {
            // By its own way back: the certificate tells whether it is the other end.
            secured.association.handle(datagram);
            return self.flush_handshake(events);
        }
        if from != secured.to && (secured.to != agreed || from.ip() == agreed.ip()) && from != agreed {
            self.strangers += 1;
            return;
        }
        secured.to = from;
        secured.association.handle(datagram);
        self.flush_handshake(events);
    }

    fn flush_handshake(&mut self, events: &mut Vec<Event>) {
        let waits = self.ways.route.is_none();
        let Some(running) = self.running.as_mut().filter(|r| !(r.ice && waits)) else { return };
        let Some(secured) = running.secured.as_mut() else { return };
        let (mut out, to) = (Vec::new(), secured.to);
        out.extend(std::iter::from_fn(|| secured.association.poll_output()));
        for datagram in out {
            self.send_voice(&datagram, to);
        }
        let Some(secured) = self.running.as_mut().and_then(|r| r.secured.as_mut()) else { return };
        if let (State::Failed(why), false) = (secured.association.state(), secured.told) {
            secured.told = true;
            events.push(Event::Unsecured { call: self.id, why });
        }
    }

    pub(super) fn update(&mut self, now: Instant, voice: Voice, rng: Rng, events: &mut Vec<Event>) {
        self.agree(now, &voice, events);
        let Some(running) = &mut self.running else { return };
        if !voice.ice && running.latch.agreed() != voice.remote {
            running.latch = Latch::new(voice.remote);
        }
        // What comes next is of another agreement: its silence begins anew.
        running.heard = now;
        let (old, new) = (running.session.config(), &voice.session);
        if (old.codec.name, old.payload_type, old.telephone_event)
            == (new.codec.name, new.payload_type, new.telephone_event)
        {
            running.session.set_direction(new.send, new.receive);
            return;
        }
        match Session::new(now, voice.session, rng) {
            Ok(mut session) => {
                session.set_muted(running.muted);
                running.feed.set_rate(session.sample_rate());
                running.drain.set_rate(session.sample_rate());
                running.session = session;
            }
            Err(error) => events.push(Event::Failed { call: self.id, error }),
        }
    }

    pub(super) fn mute(&mut self, muted: bool) {
        if let Some(running) = &mut self.running {
            running.muted = muted;
            running.session.set_muted(muted);
        }
    }

    pub(super) fn dial(&mut self, digits: &str, duration: Duration) {
        if let Some(running) = &mut self.running {
            for digit in digits.chars() {
                if let Err(error) = running.session.send_dtmf(digit, duration) {
                    tracing::warn!(call = self.id, %error, "digits left out");
                    break;
                }
            }
        }
    }

    /// 20 ms of both directions. `at` is the frame's deadline, not the time at which it was met; `tell`: how the ways are.
    pub(super) fn tick(&mut self, at: Instant, tell: bool, events: &mut Vec<Event>) {
        self.reports = REPORTS;
        self.probe(at, tell, events);
        let Some(running) = &mut self.running else { return };
        if running.zero.is_some() {
            // What was spoken since the last frame.
            let (frame, ended) = running.feed.frame();
            match ended {
                Ok(true) => events.push(Event::SourceEnded { call: self.id }),
                Ok(false) => {}
                Err(error) => events.push(Event::AudioFailed { call: self.id, error }),
            }
            running.session.capture(at, &frame);
        } else {
            running.zero = Some(at);
            tracing::info!(call = self.id, monotonic_us = at.as_micros(), "second 0 of the audio source");
            tracing::info!(call = self.id, monotonic_us = at.as_micros(), "second 0 of the audio sink");
            events.push(Event::Started { call: self.id, source_zero: at, sink_zero: at });
        }
        running.session.handle_timeout(at);
        let quiet = at.since(running.heard);
        if tell && quiet >= QUIET {
            events.push(Event::Quiet { call: self.id, quiet });
        }
        if let Some(secured) = &mut running.secured
            && secured.association.poll_timeout().is_some_and(|due| due <= at)
        {
            secured.association.handle_timeout(at);
            self.flush_handshake(events);
        }
        self.flush(events);
        let Some(running) = &mut self.running else { return };
        let heard = running.session.playout(at);
        if let Err(error) = running.drain.write(&heard) {
            events.push(Event::AudioFailed { call: self.id, error });
        }
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        port: Port,
        from: SocketAddr,
        datagram: &[u8],
        events: &mut Vec<Event>,
    ) {
        if let (Port::Rtp(_), Some((number, data))) = (port, read_channel(datagram))
            && (!is_stun(data) || is_probe(data))
            && let Some(remote) = self.ways.by_channel(from, number)
        {
            return self.receive(now, port, remote, data, events);
        }
        if is_probe(datagram) {
            return self.ways.handle(now, datagram);
        }
        if let Port::Rtp(local) = port
            && (is_stun(datagram) || read_channel(datagram).is_some())
        {
            // What does not fit into a frame's time comes again.
            if let Some(left) = self.reports.checked_sub(1) {
                self.reports = left;
                events.push(Event::Packet { call: self.id, local, from, bytes: datagram.to_vec() });
            }
            return;
        }
        if port != Port::Rtcp && Association::is_dtls(datagram) {
            if self.running.as_ref().is_some_and(|r| r.secured.is_some()) {
                self.shake_hands(from, datagram, events);
            } else if self.keys.is_some() && self.early.len() < EARLY {
                self.early.push_back((from, datagram.to_vec()));
            }
            return;
        }
        // Early packets, before anything is agreed, have no place to go.
        let Some(running) = &mut self.running else { return };
        if let Some(secured) = &mut running.secured {
            // Who is authentic is the other end, wherever it sends from.
            let control = is_rtcp(datagram);
            let plain = match (port, control) {
                (Port::Rtcp, _) => None,
                (Port::Rtp(_), true) => secured.association.unprotect_rtcp(datagram),
                (Port::Rtp(_), false) => secured.association.unprotect_rtp(datagram),
            };
            let Some(plain) = plain else {
                if control || !self.ways.is_copy(datagram) {
                    self.strangers += 1;
                }
                return;
            };
            if !control {
                self.ways.took(datagram);
            }
            running.heard = now;
            if !running.ice {
                running.latch.follow(from);
            }
            match control {
                true => running.session.receive_rtcp(now, &plain),
                false => running.session.receive_rtp(now, &plain),
            }
            return self.flush(events);
        }
        if running.waiting.is_some() || (running.ice && !running.proven.contains(&from)) {
            self.strangers += 1;
            return;
        }
        let control = match port {
            Port::Rtcp => true,
            Port::Rtp(_) if running.ice => is_rtcp(datagram),
            Port::Rtp(_) => running.latch.agreed().rtcp_mux && is_rtcp(datagram),
        };
        if control {
            if !running.ice && !running.latch.admit_rtcp(from) {
                self.strangers += 1;
                return;
            }
            running.heard = now;
            running.session.receive_rtcp(now, datagram);
        } else {
            let config = *running.session.config();
            let expected = |payload_type| {
                payload_type == config.payload_type || config.telephone_event.is_some_and(|(pt, _)| pt == payload_type)
            };
            if !running.ice && !running.latch.admit_rtp(from, datagram, expected) {
                self.strangers += 1;
                return;
            }
            running.heard = now;
            running.session.receive_rtp(now, datagram);
        }
        self.flush(events);
    }

    pub(super) fn count_error(&mut self) {
        self.socket_errors += 1;
    }

    pub(super) fn stats(&self, now: Instant) -> Option<CallStats> {
        let running = self.running.as_ref()?;
        Some(CallStats {
            session: running.session.stats(now),
            source_zero: running.zero,
            sink_zero: running.zero,
            remote: running.latch.kept(),
            strangers: self.strangers,
            socket_errors: self.socket_errors,
        })
    }

    /// Says BYE, completes the recording.
    pub(super) fn close(mut self, now: Instant, events: &mut Vec<Event>) -> CallStats {
        if let Some(running) = &mut self.running {
            running.session.goodbye(now);
        }
        self.flush(events);
        if let Some(Err(error)) = self.running.as_mut().map(|running| running.drain.finish()) {
            events.push(Event::AudioFailed { call: self.id, error });
        }
        self.stats(now).unwrap_or_default()
    }

    fn flush(&mut self, events: &mut Vec<Event>) {
        while let Some(running) = &mut self.running
            && let Some(output) = running.session.poll_output()
        {
            // An address without a host or port (the old way to hold a call) means: send nothing.
            let nowhere = |to: SocketAddr| to.ip().is_unspecified() || to.port() == 0;
            let output = match (&mut running.secured, output) {
                (Some(secured), Output::Rtp(bytes)) => match secured.association.protect_rtp(&bytes) {
                    Some(bytes) => Output::Rtp(bytes.into()),
                    None => continue,
                },
                (Some(secured), Output::Rtcp(bytes)) => match secured.association.protect_rtcp(&bytes) {
                    Some(bytes) => Output::Rtcp(bytes.into()),
                    None => continue,
                },
                // What is to be encrypted waits for its keys.
                (None, Output::Rtp(_) | Output::Rtcp(_)) if running.waiting.is_some() => continue,
                (_, output) => output,
            };
            match output {
                Output::Rtp(_) if nowhere(running.latch.rtp()) => continue,
                Output::Rtcp(_) if nowhere(running.latch.rtcp()) => continue,
                Output::Rtp(bytes) => {
                    let to = running.latch.rtp();
                    self.send_voice(&bytes, to);
                }
                Output::Rtcp(bytes) if running.ice || running.latch.agreed().rtcp_mux => {
                    let to = running.latch.rtcp();
                    self.send_voice(&bytes, to);
                }
                Output::Rtcp(bytes) => {
                    if self.rtcp.socket.try_send_to(&bytes, running.latch.rtcp()).is_err() {
                        self.socket_errors += 1;
                    }
                }
                Output::Dtmf { digit } => events.push(Event::Dtmf { call: self.id, digit }),
                Output::RemoteBye => events.push(Event::RemoteBye { call: self.id }),
            }
        }
    }
}
