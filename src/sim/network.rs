//! The virtual network: datagrams that are late or lost, streams that are late and in order.

use crate::core::{ConnId, Instant, Rng};
use crate::identity::Verified;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Index of a simulated peer.
pub(super) type Host = usize;

/// How the links behave.
#[derive(Debug, Clone, Copy)]
pub struct LinkModel {
    /// Mean one-way delay. Each pair of hosts has its own, uniform between a half and one and a half of it.
    pub latency: Duration,
    /// Probability that a datagram or segment is lost. A lost segment comes again after a retransmission
    /// timeout of 200 ms plus a round trip, doubled each time.
    pub loss: f64,
}

/// Something that reaches a host.
#[derive(Debug)]
pub(super) enum Arrival {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    },
    Accepted {
        conn: ConnId,
        from: SocketAddr,
        to: SocketAddr,
        peer: Arc<Verified>,
    },
    Connected {
        conn: ConnId,
        peer: Arc<Verified>,
    },
    Refused {
        conn: ConnId,
    },
    Frame {
        conn: ConnId,
        bytes: Bytes,
    },
    Closed {
        conn: ConnId,
    },
    /// The host asked to be woken, or something of the scenario is due.
    Wake,
}

#[derive(Debug)]
struct Event {
    at: Instant,
    order: u64,
    host: Host,
    arrival: Arrival,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One end of a stream: who is at the other end, and until when this direction is busy.
#[derive(Debug)]
struct End {
    host: Host,
    conn: ConnId,
    free_at: Instant,
}

/// All links and what is on its way.
pub(super) struct Network {
    model: LinkModel,
    rng: Rng,
    pair_seed: u64,
    queue: BinaryHeap<Reverse<Event>>,
    order: u64,
    streams: BTreeMap<(Host, ConnId), End>,
    accepted: u64,
}

impl Network {
    pub fn new(model: LinkModel, mut rng: Rng) -> Self {
        let pair_seed = rng.next_u64();
        Network {
            model,
            rng,
            pair_seed,
            queue: BinaryHeap::new(),
            order: 0,
            streams: BTreeMap::new(),
            accepted: 1 << 63,
        }
    }

    /// The next event not after `until`.
    pub fn next(&mut self, until: Instant) -> Option<(Instant, Host, Arrival)> {
        if self.queue.peek()?.0.at > until {
            return None;
        }
        let Reverse(event) = self.queue.pop()?;
        Some((event.at, event.host, event.arrival))
    }

    /// Schedules an arrival.
    pub fn schedule(&mut self, at: Instant, host: Host, arrival: Arrival) {
        self.order += 1;
        self.queue.push(Reverse(Event { at, order: self.order, host, arrival }));
    }

    /// One-way delay between two hosts, always the same for a pair.
    pub fn delay(&self, a: Host, b: Host) -> Duration {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        let mut x = self.pair_seed ^ ((low as u64) << 32 | high as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 31;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 29;
        let unit = (x >> 11) as f64 / (1u64 << 53) as f64;
        self.model.latency.mul_f64(0.5 + unit)
    }

    fn lost(&mut self) -> bool {
        self.model.loss > 0.0 && self.rng.unit() < self.model.loss
    }

    /// A datagram; false when it is lost.
    pub fn datagram(&mut self, now: Instant, a: Host, b: Host, from: SocketAddr, to: SocketAddr, bytes: Bytes) -> bool {
        if self.lost() {
            return false;
        }
        let at = now + self.delay(a, b);
        self.schedule(at, b, Arrival::Datagram { from, to, bytes });
        true
    }

    /// Opens a stream with handshakes of TCP and TLS 1.3: open after two round trips at the dialling end.
    #[allow(clippy::too_many_arguments, reason = "both ends of a stream have a host, an address and a proof")]
    pub fn connect(
        &mut self,
        now: Instant,
        (a, conn): (Host, ConnId),
        b: Host,
        from: SocketAddr,
        to: SocketAddr,
        peer_a: Arc<Verified>,
        peer_b: Arc<Verified>,
    ) {
        let far = ConnId(self.accepted);
        self.accepted += 1;
        let one_way = self.delay(a, b);
        self.streams.insert((a, conn), End { host: b, conn: far, free_at: now });
        self.streams.insert((b, far), End { host: a, conn, free_at: now });
        self.schedule(now + one_way * 3, b, Arrival::Accepted { conn: far, from, to, peer: peer_a });
        self.schedule(now + one_way * 4, a, Arrival::Connected { conn, peer: peer_b });
    }

    /// A stream to a host that is not there: refused after a round trip.
    pub fn refuse(&mut self, now: Instant, host: Host, conn: ConnId) {
        let at = now + self.model.latency * 2;
        self.schedule(at, host, Arrival::Refused { conn });
    }

    /// Bytes on a stream, in order, late by a retransmission where a segment is lost.
    pub fn write(&mut self, now: Instant, host: Host, conn: ConnId, bytes: Bytes) -> bool {
        let Some(End { host: to, conn: far, free_at }) = self.streams.get(&(host, conn)) else { return false };
        let (to, far, free_at) = (*to, *far, *free_at);
        let one_way = self.delay(host, to);
        let (mut late, mut timeout) = (Duration::ZERO, Duration::from_millis(200) + one_way * 2);
        while self.lost() {
            late += timeout;
            timeout *= 2;
        }
        let at = (now + one_way + late).max(free_at);
        if let Some(end) = self.streams.get_mut(&(host, conn)) {
            end.free_at = at;
        }
        self.schedule(at, to, Arrival::Frame { conn: far, bytes });
        true
    }

    /// Closes a stream; this end hears of it at once, the other one delay later.
    pub fn close(&mut self, now: Instant, host: Host, conn: ConnId) {
        let Some(end) = self.streams.remove(&(host, conn)) else { return };
        self.schedule(now, host, Arrival::Closed { conn });
        self.streams.remove(&(end.host, end.conn));
        let at = (now + self.delay(host, end.host)).max(end.free_at);
        self.schedule(at, end.host, Arrival::Closed { conn: end.conn });
    }
}
