//! Peers on the local network by SIP's multicast group, 224.0.1.75 (RFC 3261 section 10.2.6; dSIP, too, finds its peers there), for networks whose
//! switches or firewalls pass no mDNS.
//!
//! The question goes out with TTL 1 at the start, a few times soon after, then every half minute, and ever more seldom once somebody has
//! answered. It is answered from this machine's network only, after a short random wait, ten times in ten seconds and
//! once a second for one asker at most. The group's port is SIP's, 5060: it is shared with this program's own SIP socket (`SO_REUSEPORT`, same
//! user only); where another program holds it alone, this one asks and is not asked.
//!
//! IPv4 only: SIP has no IPv6 group of its own, and a link-local network without IPv4 has mDNS.

use super::greeting::{LARGEST, answer, answered, asked, question};
use crate::core::{Id, Rng};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 75);
const PORT: u16 = 5060;
/// When it is asked, after the start.
const EARLY: [Duration; 3] = [Duration::from_millis(1000), Duration::from_secs(3), Duration::from_secs(8)];
/// Then: while nobody answers, and at most.
const PERIOD: Duration = Duration::from_secs(30);
const PERIOD_MAX: Duration = Duration::from_secs(600);
/// The longest wait before an answer, milliseconds: where many answer, they do not all at once.
const SPREAD_MS: u64 = 250;
/// Answers in one window, and its length.
const ANSWERS: usize = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// From one answer to the next for the same asker.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks and answers, until it is dropped.
pub(super) struct Multicast {
    tag: String,
    own: Id,
    address: SocketAddr,
    mask: Ipv4Addr,
    rng: Rng,
    asking: UdpSocket,
    hearing: Option<UdpSocket>,
    token: String,
    asked: usize,
    period: Duration,
    next: Instant,
    /// Answers on their way.
    pending: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    limit: Limit,
}

/// Who was answered lately.
#[derive(Default)]
struct Limit {
    answered: BTreeMap<SocketAddr, Instant>,
}

impl Limit {
    /// True when `asker` may be answered now, and counts it.
    fn admits(&mut self, now: Instant, asker: SocketAddr) -> bool {
        self.answered.retain(|_, at| now.duration_since(*at) < WINDOW);
        let again = self.answered.get(&asker).is_some_and(|at| now.duration_since(*at) < AGAIN);
        if again || self.answered.len() >= ANSWERS {
            return false;
        }
        self.answered.insert(asker, now);
        true
    }
}

impl Multicast {
    /// Asks for the peers of `tag` on the network of `address`, where `own` takes links. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket that asks.
    pub fn start(tag: &str, own: Id, address: SocketAddr, rng: Rng) -> io::Result<Multicast> {
        let SocketAddr::V4(here) = address else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "SIP multicast needs an IPv4 address"));
        };
        let ip = *here.ip();
        let asking = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        asking.bind(&SocketAddr::new(IpAddr::V4(ip), 0).into())?;
        asking.set_multicast_if_v4(&ip)?;
        asking.set_multicast_ttl_v4(1)?;
        asking.set_nonblocking(true)?;
        let hearing = hear(ip).inspect_err(|fault| {
            tracing::info!(%fault, "port 5060 is another program's: peers that ask by SIP multicast are not answered");
        });
        let mut multicast = Multicast {
            tag: tag.to_owned(),
            own,
            address,
            mask: mask(ip),
            rng,
            asking: UdpSocket::from_std(asking.into())?,
            hearing: hearing.ok(),
            token: String::new(),
            asked: 0,
            period: PERIOD,
            next: Instant::now(),
            pending: VecDeque::new(),
            limit: Limit::default(),
        };
        multicast.token = multicast.rng.token(12);
        Ok(multicast)
    }

    /// The next peer that answers. Cancelling loses nothing but what has not been read.
    pub async fn next(&mut self) -> (Id, SocketAddr) {
        let mut bytes = [0; LARGEST + 1];
        let mut heard = [0; LARGEST + 1];
        loop {
            self.send_due().await;
            let wake = self.pending.iter().map(|(at, ..)| *at).min().map_or(self.next, |at| at.min(self.next));
            let hearing = async {
                match &self.hearing {
                    Some(socket) => socket.recv_from(&mut heard).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                got = self.asking.recv_from(&mut bytes) => {
                    if let Ok((n, from)) = got
                        && let Some(found) = self.on_answer(&bytes[..n], from)
                    {
                        return found;
                    }
                }
                got = hearing => {
                    if let Ok((n, from)) = got {
                        self.on_question(&heard[..n], from);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    async fn send_due(&mut self) {
        let now = Instant::now();
        if self.next <= now {
            if let Ok(from) = self.asking.local_addr() {
                let message = question(&self.tag, from, &self.token).to_bytes();
                if let Err(fault) = self.asking.send_to(&message, (GROUP, PORT)).await {
                    tracing::debug!(%fault, "SIP multicast was not sent");
                }
            }
            let wait = EARLY.get(self.asked).copied().unwrap_or(self.period);
            self.asked += 1;
            // Give or take a quarter, so that those that started together do not ask together for ever.
            self.next = now + wait.mul_f64(0.75 + 0.5 * self.rng.unit());
        }
        while let Some(at) = self.pending.iter().position(|(at, ..)| *at <= now) {
            let Some((_, to, message)) = self.pending.remove(at) else { break };
            let _ = self.asking.send_to(&message, to).await;
        }
    }

    fn on_question(&mut self, bytes: &[u8], from: SocketAddr) {
        let own = self.asking.local_addr().is_ok_and(|own| own == from);
        if own || !self.is_near(from.ip()) || self.pending.len() >= ANSWERS {
            return;
        }
        let Some(message) = asked(bytes, &self.tag) else { return };
        let now = Instant::now();
        if self.limit.admits(now, from) {
            let token = self.rng.token(6);
            let reply = answer(&message, self.own, self.address, &token).to_bytes().to_vec();
            let at = now + Duration::from_millis(self.rng.below(SPREAD_MS));
            self.pending.push_back((at, from, reply));
        }
    }

    fn on_answer(&mut self, bytes: &[u8], from: SocketAddr) -> Option<(Id, SocketAddr)> {
        let (id, addr) = answered(bytes, &self.token)?;
        // A peer speaks for itself: its link lies where its answer comes from.
        if id == self.own || addr.ip() != from.ip() || !self.is_near(from.ip()) {
            return None;
        }
        if self.asked > EARLY.len() {
            self.period = (self.period * 2).min(PERIOD_MAX);
        }
        tracing::info!(peer = %addr, "found on the local network by SIP multicast");
        Some((id, addr))
    }

    /// On the network of this machine's address.
    fn is_near(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(own) = self.address.ip() else { return false };
        let IpAddr::V4(ip) = ip else { return false };
        (u32::from(own) ^ u32::from(ip)) & u32::from(self.mask) == 0
    }
}

fn hear(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Bound to the group, it never takes what is sent to this machine's own port 5060.
    socket.bind(&SocketAddr::new(GROUP.into(), PORT).into())?;
    socket.join_multicast_v4(&GROUP, &ip)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

fn mask(ip: Ipv4Addr) -> Ipv4Addr {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let found = interfaces.into_iter().find_map(|i| match i.addr {
        if_addrs::IfAddr::V4(addr) if addr.ip == ip => Some(addr.netmask),
        _ => None,
    });
    found.unwrap_or(Ipv4Addr::new(255, 255, 255, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_few_and_for_neighbours() {
        let mut limit = Limit::default();
        let now = Instant::now();
        let asker = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        assert!(limit.admits(now, asker(1)) && !limit.admits(now, asker(1)));
        assert!(limit.admits(now + AGAIN, asker(1)));
        let admitted = (2..100).filter(|n| limit.admits(now + AGAIN, asker(*n))).count();
        assert_eq!(admitted, ANSWERS - 1);
        assert!(limit.admits(now + AGAIN + WINDOW, asker(200)));
    }
}
