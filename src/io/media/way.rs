//! Which way a call's packets leave and come: by its own socket to where the other end said, by the way that ICE found, or by both of
//! two that are probed ([`Lanes`]).

use super::Event;
use super::call::{Call, Socket};
use crate::core::Instant;
use crate::nat::ice::{Lanes, Route, Second};
use crate::stun::channel_data;
use std::borrow::Cow;
use std::net::SocketAddr;

/// Packets that are remembered; two ways differ by less than a second.
const TAKEN: usize = 64;

/// The ways of one call whose way is ICE's.
pub(super) struct Ways {
    /// The first one.
    pub(super) route: Option<Route>,
    lanes: Option<Lanes>,
    /// Voice goes the second way, and goes both: as was told last.
    told: (bool, bool),
    /// Source and number of the latest packets taken: what came by one way may come by the other too.
    taken: [u64; TAKEN],
}

impl Default for Ways {
    fn default() -> Ways {
        Ways { route: None, lanes: None, told: (false, false), taken: [u64::MAX; TAKEN] }
    }
}

impl Ways {
    pub(super) fn set(&mut self, now: Instant, route: Option<Route>) {
        self.route = route;
        match (&mut self.lanes, route) {
            (Some(lanes), Some(route)) => lanes.set_first(now, route),
            (lanes, None) => *lanes = None,
            _ => {}
        }
    }

    pub(super) fn set_second(&mut self, now: Instant, second: Option<Second>) {
        match (self.lanes.as_mut(), self.route, second) {
            (Some(lanes), _, Some(second)) => lanes.set_second(now, second),
            (None, Some(route), Some(second)) => self.lanes = Some(Lanes::new(now, route, second)),
            _ => self.lanes = None,
        }
    }

    /// A probe came.
    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) {
        if let Some(lanes) = &mut self.lanes {
            lanes.handle(now, datagram);
        }
    }

    /// Whose packets come by this channel of a relay.
    pub(super) fn by_channel(&self, relay: SocketAddr, channel: u16) -> Option<SocketAddr> {
        let second = self.lanes.as_ref().map(|lanes| lanes.routes()[1]);
        let mut routes = self.route.into_iter().chain(second);
        routes.find(|r| r.relay == Some((relay, channel))).map(|r| r.remote)
    }

    /// An authentic RTP packet was taken.
    pub(super) fn took(&mut self, packet: &[u8]) {
        if let Some((place, key)) = name(packet) {
            self.taken[place] = key;
        }
    }

    /// It has come before, by the other way.
    pub(super) fn is_copy(&self, packet: &[u8]) -> bool {
        self.lanes.is_some() && name(packet).is_some_and(|(place, key)| self.taken[place] == key)
    }

    /// The ways of a packet of so many bytes.
    fn take(&mut self, length: usize) -> [Option<Route>; 2] {
        match &mut self.lanes {
            Some(lanes) => {
                let (route, copy) = lanes.take(length);
                [Some(route), copy]
            }
            None => [self.route, None],
        }
    }
}

/// What tells an RTP packet from others, and its place among those remembered.
fn name(packet: &[u8]) -> Option<(usize, u64)> {
    let &[_, _, n0, n1, _, _, _, _, s0, s1, s2, s3] = packet.first_chunk()?;
    let number = u16::from_be_bytes([n0, n1]);
    let source = u32::from_be_bytes([s0, s1, s2, s3]);
    Some((usize::from(number) % TAKEN, u64::from(source) << 16 | u64::from(number)))
}

impl Call {
    /// The second way, from its first probe on; none: there is no more than one.
    pub(super) fn second(&mut self, now: Instant, second: Option<Second>) {
        if let (Some(second), Some(running)) = (&second, &mut self.running) {
            running.prove(second.route.remote);
        }
        self.ways.set_second(now, second);
    }

    /// Probes what is due; says how the ways are when voice moves, and when asked to.
    pub(super) fn probe(&mut self, at: Instant, tell: bool, events: &mut Vec<Event>) {
        let Some(lanes) = &mut self.ways.lanes else { return };
        if lanes.poll_timeout() <= at {
            lanes.handle_timeout(at);
        }
        let probes: Vec<_> = std::iter::from_fn(|| lanes.poll_output()).collect();
        let figures = lanes.figures(at);
        if tell || (figures.on_second, figures.both) != self.ways.told {
            self.ways.told = (figures.on_second, figures.both);
            events.push(Event::Lanes { call: self.id, figures });
        }
        for probe in probes {
            self.leave(&probe.bytes, probe.route);
        }
    }

    /// Sends a packet of the voice's socket: DTLS, RTP, multiplexed RTCP.
    pub(super) fn send_voice(&mut self, bytes: &[u8], to: SocketAddr) {
        if !self.running.as_ref().is_some_and(|r| r.ice) {
            if self.rtp.socket.try_send_to(bytes, to).is_err() {
                self.socket_errors += 1;
            }
            return;
        }
        // Before there is a way, and when consent is over, nothing leaves.
        for route in self.ways.take(bytes.len()).into_iter().flatten() {
            self.leave(bytes, route);
        }
    }

    fn leave(&mut self, bytes: &[u8], route: Route) {
        let (bytes, to) = match route.relay {
            Some((server, channel)) => match channel_data(channel, bytes, false) {
                Some(framed) => (Cow::Owned(framed), server),
                None => return,
            },
            None => (Cow::Borrowed(bytes), route.remote),
        };
        let socket: Option<&Socket> = std::iter::once(&self.rtp).chain(&self.also).find(|s| s.local == route.socket);
        if socket.is_none_or(|s| s.socket.try_send_to(&bytes, to).is_err()) {
            self.socket_errors += 1;
        }
    }
}
