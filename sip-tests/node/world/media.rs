//! Datagrams between the sockets of calls, and a STUN server.

use super::*;
use chordial::nat::ice::{Figures, Lanes, Route, is_probe};

/// Tells everybody how it is seen: under its own address, with a port 10,000 higher.
pub const STUN: &str = "10.8.0.1:3478";

/// What connects over TCP is known at home by this port, and elsewhere by [`CONNECTED`].
pub const CONNECTS: u16 = 9;
pub const CONNECTED: u16 = 50_009;

impl World {
    pub(super) fn media_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let other =
            |addr: SocketAddr, is, then| SocketAddr::new(addr.ip(), if addr.port() == is { then } else { addr.port() });
        if to.port() == CONNECTS || (self.waits(from) && to.port() != CONNECTED) {
            return;
        }
        let (from, to) = (other(from, CONNECTS, CONNECTED), other(to, CONNECTED, CONNECTS));
        if (self.media_lose)(from, to, bytes) {
            return;
        }
        if to == STUN.parse().unwrap() {
            let mapped = SocketAddr::new(from.ip(), from.port() + 10_000);
            return self.media_arrives(to, from, &binding(bytes, mapped));
        }
        self.media_arrives(from, to, bytes);
    }

    /// Connections come there, and none is made from it.
    fn waits(&self, socket: SocketAddr) -> bool {
        let host = self.sockets.get(&socket).map(|(host, _)| &self.hosts[*host]);
        host.is_some_and(|host| host.connectable) && socket.port() % 2 == 1 && socket.port() != CONNECTS
    }

    fn media_arrives(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some((host, call)) = self.sockets.get(&to).copied() else { return };
        if is_probe(bytes) || bytes.first() == Some(&0x80) {
            return self.at(self.now + ONE_WAY, Place::Node(host), Arrival::Heard(call, bytes.to_vec()));
        }
        let packet = MediaInput::Packet { call, local: to, from, bytes: bytes.to_vec() };
        self.at(self.now + ONE_WAY, Place::Node(host), Arrival::Node(Input::Media(packet)));
    }

    /// The media threads' part of a call with ICE: frames as packets of 100 bytes, by the ways that the node tells.
    pub(super) fn route_voice(&mut self, host: usize, command: &MediaCommand) {
        if !self.speaks {
            return;
        }
        let now = self.now;
        match command {
            MediaCommand::Route { call, route } => {
                let new = !self.voices.contains_key(&(host, *call));
                let voice = self.voices.entry((host, *call)).or_default();
                voice.route = *route;
                if let (Some(lanes), Some(route)) = (&mut voice.lanes, route) {
                    lanes.set_first(now, *route);
                }
                if new {
                    self.at(now, Place::Node(host), Arrival::Voice(*call));
                }
            }
            MediaCommand::Second { call, second } => {
                let Some(voice) = self.voices.get_mut(&(host, *call)) else { return };
                match (&mut voice.lanes, voice.route, second) {
                    (Some(lanes), _, Some(second)) => lanes.set_second(now, *second.clone()),
                    (None, Some(route), Some(second)) => voice.lanes = Some(Lanes::new(now, route, *second.clone())),
                    _ => voice.lanes = None,
                }
            }
            _ => {}
        }
    }

    /// A frame of a call: what is due of probes, and a packet.
    pub(super) fn speak(&mut self, host: usize, call: CallId) {
        let now = self.now;
        let Some(voice) = self.voices.get_mut(&(host, call)) else { return };
        let mut out = Vec::new();
        if let Some(lanes) = &mut voice.lanes {
            lanes.handle_timeout(now);
            out.extend(std::iter::from_fn(|| lanes.poll_output()).map(|p| (p.route, p.bytes)));
        }
        voice.said += 1;
        let packet = voice_packet(voice.said);
        let ways = match (&mut voice.lanes, voice.route) {
            (Some(lanes), _) => {
                let (route, copy) = lanes.take(packet.len());
                [Some(route), copy]
            }
            (None, route) => [route, None],
        };
        out.extend(ways.into_iter().flatten().map(|route| (route, packet.clone())));
        let figures = voice.figures(now);
        for (route, bytes) in out {
            self.media_datagram(route.socket, route.remote, &bytes);
        }
        let due = now + Duration::from_millis(20);
        self.at(due, Place::Node(host), Arrival::Voice(call));
        if let Some(figures) = figures {
            self.hand(host, Input::Media(MediaInput::Lanes { call, figures }));
        }
    }

    pub(super) fn hear(&mut self, host: usize, call: CallId, bytes: &[u8]) {
        let now = self.now;
        let Some(voice) = self.voices.get_mut(&(host, call)) else { return };
        if let (true, Some(lanes)) = (is_probe(bytes), &mut voice.lanes) {
            lanes.handle(now, bytes);
        }
        if let Some(number) = bytes.get(4..8).filter(|_| !is_probe(bytes)) {
            let number = u32::from_be_bytes(number.try_into().unwrap());
            let new = voice.numbers.insert(number);
            voice.copies += u64::from(!new);
            voice.heard.extend(new.then_some(now));
        }
    }

    /// Runs until both ends of the only call have a second way that answers.
    pub fn until_two_ways(&mut self) {
        let ready = |v: &Voice| v.lanes.as_ref().is_some_and(|l| l.routes().len() == 2) && v.both_answer;
        self.until(Duration::from_secs(20), "two ways", |w| w.voices.len() == 2 && w.voices.values().all(ready));
    }

    /// Runs until the node has told its voice a way for the `times`th time; the last one.
    pub fn until_route(&mut self, host: usize, times: usize) -> Route {
        self.until(Duration::from_secs(40), "a way", |w| w.hosts[host].routes().len() >= times);
        self.hosts[host].routes().last().copied().flatten().expect("a way")
    }
}

impl Host {
    /// The ways that voice was told, in order.
    pub fn routes(&self) -> Vec<Option<Route>> {
        let route = |m: &MediaCommand| match m {
            MediaCommand::Route { route, .. } => Some(*route),
            _ => None,
        };
        self.media.iter().filter_map(route).collect()
    }
}

/// The voice of one end of a call.
#[derive(Default)]
pub struct Voice {
    route: Option<Route>,
    pub lanes: Option<Lanes>,
    /// Packets sent.
    pub said: u32,
    /// When packets came, each counted once.
    pub heard: Vec<Instant>,
    numbers: BTreeSet<u32>,
    /// Packets that came twice.
    pub copies: u64,
    /// Probes of both ways have been confirmed.
    pub both_answer: bool,
}

impl Voice {
    /// The longest time without a packet since then.
    pub fn gap(&self, since: Instant) -> Duration {
        let heard: Vec<_> = self.heard.iter().filter(|at| **at >= since).collect();
        heard.windows(2).map(|two| two[1].since(*two[0])).max().expect("something is heard")
    }

    fn figures(&mut self, now: Instant) -> Option<Figures> {
        let figures = self.lanes.as_ref()?.figures(now);
        self.both_answer = figures.rtt.iter().all(Option::is_some);
        Some(figures)
    }
}

/// Looks like RTP; bytes 4 to 8 are its number.
fn voice_packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.resize(100, 7);
    packet
}

/// The answer to a Binding request: XOR-MAPPED-ADDRESS of IPv4 (RFC 8489 section 14.2).
fn binding(request: &[u8], mapped: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(mapped) = mapped else { panic!("IPv4") };
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&request[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    answer.extend_from_slice(&(mapped.port() ^ 0x2112).to_be_bytes());
    let cookie = [0x21, 0x12, 0xa4, 0x42];
    answer.extend(mapped.ip().octets().iter().zip(cookie).map(|(a, b)| a ^ b));
    answer
}

/// Of the system's clock: only differences of it count.
#[allow(clippy::disallowed_methods)]
pub fn some_moment() -> std::time::Instant {
    std::time::Instant::now()
}
