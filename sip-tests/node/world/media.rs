//! Datagrams between the sockets of calls, and a STUN server.

use super::*;
use chordial::nat::ice::Route;

/// Tells everybody how it is seen: under its own address, with a port 10,000 higher.
pub const STUN: &str = "10.8.0.1:3478";

impl World {
    pub(super) fn media_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if (self.media_lose)(from, to, bytes) {
            return;
        }
        if to == STUN.parse().unwrap() {
            let mapped = SocketAddr::new(from.ip(), from.port() + 10_000);
            return self.media_arrives(to, from, &binding(bytes, mapped));
        }
        self.media_arrives(from, to, bytes);
    }

    fn media_arrives(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some((host, call)) = self.sockets.get(&to).copied() else { return };
        let packet = MediaInput::Packet { call, local: to, from, bytes: bytes.to_vec() };
        self.at(self.now + ONE_WAY, Place::Node(host), Arrival::Node(Input::Media(packet)));
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
