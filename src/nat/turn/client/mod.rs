//! A client's side of one allocation (RFC 8656): it is made, kept, used and given back.
//!
//! Sans-IO: what came from the server goes into [`Client::handle`]; what is to be sent to it, and what came through it, comes out of
//! [`Client::poll_output`]. Over UDP requests are sent again as RFC 8489 section 6.2.1 has it. Permissions and
//! channels are renewed for as long as the allocation lives; a peer that something was sent to gets a channel by itself, and
//! until that is bound data goes by Send indications. A stale nonce (438) is followed by itself, and where the server offers it passwords are
//! taken through SHA-256.
//!
//! The crate `turn-client-proto` draws transaction numbers from global randomness, which nothing below `io` may: with it no
//! simulation has the same history twice. So this is a machine of our own over the same codec.
//!
//! Left out: TCP allocations (RFC 6062); reservation of a port pair; a redirection (300) ends the allocation as a refusal does.

mod request;

use crate::core::{Instant, Queue, Redacted, Rng, TimerQueue, Transport};
use crate::stun::attributes::{
    AdditionalAddressFamily, Lifetime, RequestedAddressFamily, RequestedTransport, XorMappedAddress, XorPeerAddress,
    XorRelayAddress,
};
use crate::stun::{self, Class, Framer, Message, Method, Parsed, raw};
use request::{Credential, Pending, Refusal};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Asked for, seconds; a server gives what it likes.
const LIFETIME: u32 = 600;
/// A permission lives 300 s (RFC 8656 section 9), a channel 600 s (section 12); both are renewed by one rhythm.
const PERMISSION: Duration = Duration::from_secs(240);
/// What is not acknowledged by then over a stream has failed (RFC 8489 section 6.2.2).
const STREAM_WAIT: Duration = Duration::from_micros(39_500_000);
/// Most peers of one allocation.
const PEERS: usize = 64;
/// Most outputs that wait; what came through the relay and does not fit is dropped.
const OUTPUTS: usize = 1024;

/// Where and as whom an allocation is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// The relay.
    pub server: SocketAddr,
    /// How it is reached. TLS and TCP look the same from here.
    pub transport: Transport,
    /// As the relay gave it.
    pub username: String,
    /// As the relay gave it.
    pub password: Redacted<String>,
    /// Which family the relayed address is to be of; none: the relay's choice (IPv4).
    pub family: Option<Family>,
}

/// Of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Both, by one allocation (ADDITIONAL-ADDRESS-FAMILY).
    Both,
}

/// What comes in.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A whole datagram from the server.
    Datagram(&'a [u8]),
    /// Bytes of the stream from the server, cut anywhere.
    Stream(&'a [u8]),
    /// The stream has ended.
    StreamClosed,
}

/// Why an allocation ended, or was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server says no, with a code of RFC 8656 section 18.
    #[error("the relay refused: {0}")]
    Refused(u16),
    /// It does not answer.
    #[error("the relay does not answer")]
    Silent,
    /// What it answered makes no sense or is not signed under the credential.
    #[error("the relay answered what nobody can use")]
    Nonsense,
    /// The stream to it was closed.
    #[error("the connection to the relay was closed")]
    Closed,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes to the server: one datagram, or a piece of the stream.
    Transmit(Vec<u8>),
    /// The allocation stands.
    Allocated {
        /// Where peers reach us: one address of each family that was had.
        relayed: Vec<SocketAddr>,
        /// Where the server sees us.
        mapped: SocketAddr,
    },
    /// It could not be made, or has ended before it was closed. Nothing follows.
    Failed(Fault),
    /// Packets of this address come through from now on.
    Permitted(IpAddr),
    /// The server does not forward to this peer.
    Forbidden {
        /// Which.
        peer: SocketAddr,
        /// 403, 443, 508 ...
        code: u16,
    },
    /// A packet came through the relay.
    Data {
        /// From whom.
        peer: SocketAddr,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The allocation was given back. Nothing follows.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Allocating,
    Allocated,
    Closing,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Request(stun::TransactionId),
    Refresh,
    Permission(IpAddr),
    Channel(u16),
}

/// What a request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Allocate,
    Refresh,
    Close,
    Permission(SocketAddr),
    Channel(u16, SocketAddr),
}

/// A peer and its channel.
#[derive(Debug, Clone, Copy)]
struct Bound {
    number: u16,
    /// Acknowledged.
    live: bool,
}

/// One allocation.
pub struct Client {
    config: Config,
    rng: Rng,
    credential: Credential,
    stage: Stage,
    framer: Framer,
    pending: BTreeMap<stun::TransactionId, Pending>,
    timers: TimerQueue<Due>,
    /// The peers of each permission's address that was asked for; true when it stands.
    permissions: BTreeMap<IpAddr, (SocketAddr, bool)>,
    channels: BTreeMap<SocketAddr, Bound>,
    numbers: BTreeMap<u16, SocketAddr>,
    out: Queue<Output>,
    scratch: Vec<u8>,
    dropped: u64,
}

impl Client {
    /// Begins to ask for an allocation. Over a stream, [`Output::Transmit`] is written when it stands.
    pub fn new(now: Instant, config: Config, rng: Rng) -> Client {
        let credential = Credential::new(config.username.clone(), config.password.clone());
        let mut client = Client {
            config,
            rng,
            credential,
            stage: Stage::Allocating,
            framer: Framer::default(),
            pending: BTreeMap::new(),
            timers: TimerQueue::new(),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            numbers: BTreeMap::new(),
            out: Queue::new(OUTPUTS),
            scratch: Vec::new(),
            dropped: 0,
        };
        client.ask(now, Purpose::Allocate);
        client
    }

    /// Something came from the server.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram(bytes) => self.on_message(now, bytes),
            Input::Stream(bytes) => {
                let mut framer = std::mem::take(&mut self.framer);
                framer.push(bytes);
                loop {
                    match framer.next_message() {
                        Ok(Some(message)) => self.on_message(now, message),
                        Ok(None) => break,
                        Err(_) => return self.fail(Fault::Nonsense),
                    }
                }
                self.framer = framer;
            }
            Input::StreamClosed => self.fail(Fault::Closed),
        }
    }

    /// Lets packets of `peer`'s address through. Asked before the allocation stands, it is done when it does.
    pub fn create_permission(&mut self, now: Instant, peer: SocketAddr) {
        let known = self.permissions.contains_key(&peer.ip());
        if known || matches!(self.stage, Stage::Closing | Stage::Over) {
            return;
        }
        if self.permissions.len() >= PEERS {
            self.put(Output::Forbidden { peer, code: 508 });
            return;
        }
        self.permissions.insert(peer.ip(), (peer, false));
        if self.stage == Stage::Allocated {
            self.ask(now, Purpose::Permission(peer));
        }
    }

    /// Sends a packet to `peer` through the relay. The first one asks for permission and a channel; the relay drops what comes
    /// before the permission stands, as a network would.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if self.stage != Stage::Allocated {
            self.dropped += 1;
            return;
        }
        self.create_permission(now, peer);
        if !self.permissions.contains_key(&peer.ip()) {
            self.dropped += 1;
            return;
        }
        let bound = match self.channels.get(&peer) {
            Some(bound) => Some(*bound),
            None => self.bind(now, peer),
        };
        let message = match bound.filter(|b| b.live) {
            Some(bound) => stun::channel_data(bound.number, bytes, self.config.transport.is_reliable()),
            None => {
                self.scratch.clear();
                let mut id = [0; 12];
                self.rng.fill(&mut id);
                stun::write_data(&mut self.scratch, true, &id, peer, bytes).map(|()| self.scratch.clone())
            }
        };
        match message {
            Some(message) => self.put(Output::Transmit(message)),
            None => self.dropped += 1,
        }
    }

    /// Renews the allocation now; it is done by itself in time.
    pub fn refresh(&mut self, now: Instant) {
        if self.stage == Stage::Allocated && !self.pending.values().any(|p| p.purpose == Purpose::Refresh) {
            self.ask(now, Purpose::Refresh);
        }
    }

    /// Gives the allocation back; [`Output::Closed`] follows.
    pub fn close(&mut self, now: Instant) {
        match self.stage {
            Stage::Allocated => {
                self.stage = Stage::Closing;
                self.pending.clear();
                self.timers = TimerQueue::new();
                self.ask(now, Purpose::Close);
            }
            Stage::Allocating => self.finish(Output::Closed),
            Stage::Closing | Stage::Over => {}
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Request(id) => self.again(now, id),
                Due::Refresh => self.refresh(now),
                Due::Permission(ip) => {
                    if let Some((peer, _)) = self.permissions.get(&ip).copied() {
                        self.ask(now, Purpose::Permission(peer));
                    }
                }
                Due::Channel(number) => {
                    if let Some(peer) = self.numbers.get(&number).copied() {
                        self.ask(now, Purpose::Channel(number, peer));
                    }
                }
            }
        }
    }

    /// When [`Client::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to send or to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// The channel that stands for `peer`, once it is acknowledged.
    pub fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.get(&peer).filter(|b| b.live).map(|b| b.number)
    }

    /// The relay.
    pub fn server(&self) -> SocketAddr {
        self.config.server
    }

    /// Packets that were not sent or not given on: no allocation yet, too many peers, or nobody took them out.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.out.dropped()
    }

    fn put(&mut self, output: Output) {
        // A full queue refuses and counts.
        let _ = self.out.push(output);
    }

    fn bind(&mut self, now: Instant, peer: SocketAddr) -> Option<Bound> {
        if self.channels.len() >= PEERS {
            return None;
        }
        let number = 0x4000 + u16::try_from(self.channels.len()).ok()?;
        let bound = Bound { number, live: false };
        self.channels.insert(peer, bound);
        self.numbers.insert(number, peer);
        self.ask(now, Purpose::Channel(number, peer));
        Some(bound)
    }

    fn fail(&mut self, fault: Fault) {
        match self.stage {
            Stage::Over => {}
            Stage::Closing => self.finish(Output::Closed),
            Stage::Allocating | Stage::Allocated => self.finish(Output::Failed(fault)),
        }
    }

    fn finish(&mut self, last: Output) {
        self.stage = Stage::Over;
        self.pending.clear();
        self.timers = TimerQueue::new();
        self.put(last);
    }

    fn on_message(&mut self, now: Instant, bytes: &[u8]) {
        if self.stage == Stage::Over {
            return;
        }
        if let Some((number, data)) = stun::read_channel(bytes) {
            match self.numbers.get(&number).copied() {
                Some(peer) => self.put(Output::Data { peer, bytes: data.to_vec() }),
                None => self.dropped += 1,
            }
            return;
        }
        if let Some((Method::DATA, peer, data)) = stun::read_send(bytes) {
            // The server lets nobody through without a permission; who was never asked for comes from elsewhere.
            match self.permissions.contains_key(&peer.ip()) {
                true => self.put(Output::Data { peer, bytes: data.to_vec() }),
                false => self.dropped += 1,
            }
            return;
        }
        let Ok(parsed) = Parsed::read(bytes) else {
            self.dropped += 1;
            return;
        };
        if matches!(parsed.message.class, Class::Success | Class::Error) {
            self.on_answer(now, &parsed);
        }
    }

    fn on_success(&mut self, now: Instant, purpose: Purpose, answer: &Message) {
        match purpose {
            Purpose::Allocate => self.on_allocated(now, answer),
            Purpose::Refresh => self.keep(now, answer),
            Purpose::Close => self.finish(Output::Closed),
            Purpose::Permission(peer) => {
                self.timers.set(Due::Permission(peer.ip()), now + PERMISSION);
                if let Some((_, live @ false)) = self.permissions.get_mut(&peer.ip()) {
                    *live = true;
                    self.put(Output::Permitted(peer.ip()));
                }
            }
            Purpose::Channel(number, peer) => {
                self.timers.set(Due::Channel(number), now + PERMISSION);
                if let Some(bound) = self.channels.get_mut(&peer) {
                    bound.live = true;
                }
            }
        }
    }

    fn on_allocated(&mut self, now: Instant, answer: &Message) {
        let relayed: Vec<_> = answer.all::<XorRelayAddress>().map(XorRelayAddress::address).collect();
        let mapped = answer.get::<XorMappedAddress>().map(XorMappedAddress::address);
        let (false, Some(mapped)) = (relayed.is_empty(), mapped) else { return self.fail(Fault::Nonsense) };
        self.stage = Stage::Allocated;
        self.keep(now, answer);
        self.put(Output::Allocated { relayed, mapped });
        let asked: Vec<_> = self.permissions.values().map(|(peer, _)| *peer).collect();
        for peer in asked {
            self.ask(now, Purpose::Permission(peer));
        }
    }

    /// Renewed a minute before its end, or at half of a short lifetime.
    fn keep(&mut self, now: Instant, answer: &Message) {
        let lifetime = answer.get::<Lifetime>().map_or(Duration::from_secs(LIFETIME.into()), Lifetime::lifetime);
        let wait = lifetime.saturating_sub(Duration::from_secs(60)).max(lifetime / 2);
        self.timers.set(Due::Refresh, now + wait.max(Duration::from_secs(1)));
    }

    fn on_refused(&mut self, purpose: Purpose, refusal: Refusal) {
        let fault = match refusal {
            Refusal::Code(code) => Fault::Refused(code),
            Refusal::Silent => Fault::Silent,
        };
        match purpose {
            Purpose::Allocate | Purpose::Refresh => self.fail(fault),
            Purpose::Close => self.finish(Output::Closed),
            Purpose::Permission(peer) => {
                self.permissions.remove(&peer.ip());
                let code = if let Refusal::Code(code) = refusal { code } else { 408 };
                match code {
                    // The allocation is not what it was.
                    437 | 441 => self.fail(fault),
                    _ => self.put(Output::Forbidden { peer, code }),
                }
            }
            // Send indications do as well.
            Purpose::Channel(_, peer) => {
                if let Some(bound) = self.channels.get_mut(&peer) {
                    bound.live = false;
                }
            }
        }
    }

    fn message(&self, purpose: &Purpose, id: stun::TransactionId) -> Message {
        use stun_codec::rfc8656::attributes::AddressFamily::{V4, V6};
        let method = match purpose {
            Purpose::Allocate => Method::ALLOCATE,
            Purpose::Refresh | Purpose::Close => Method::REFRESH,
            Purpose::Permission(_) => Method::CREATE_PERMISSION,
            Purpose::Channel(..) => Method::CHANNEL_BIND,
        };
        let mut message = Message::new(Class::Request, method, id);
        match purpose {
            Purpose::Allocate => {
                // UDP towards peers, whatever leads to the server.
                message.push(RequestedTransport::new(17));
                message.push(Lifetime::from_u32(LIFETIME));
                match self.config.family {
                    Some(Family::V4) => message.push(RequestedAddressFamily::new(V4)),
                    Some(Family::V6) => message.push(RequestedAddressFamily::new(V6)),
                    Some(Family::Both) => message.push(AdditionalAddressFamily::new(V6)),
                    None => {}
                }
            }
            Purpose::Refresh => message.push(Lifetime::from_u32(LIFETIME)),
            Purpose::Close => message.push(Lifetime::from_u32(0)),
            Purpose::Permission(peer) => message.push(XorPeerAddress::new(*peer)),
            Purpose::Channel(number, peer) => {
                message.push_raw(raw::CHANNEL_NUMBER, &[(number >> 8) as u8, *number as u8, 0, 0]);
                message.push(XorPeerAddress::new(*peer));
            }
        }
        message
    }
}

#[cfg(test)]
mod tests;
