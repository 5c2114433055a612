//! How many answers a source that has proven nothing gets. A challenge is larger than the question (a standard client begins with 28 bytes,
//! and realm and nonce alone are more), so what a spoofed address can be sent is bounded instead.

use crate::core::Instant;
use std::net::IpAddr;

/// Sources are told apart by a hash; who shares a place with somebody waits for its client's next try.
const PLACES: usize = 4096;
/// Answers at once, and in a second.
const BURST: u32 = 200;
const RATE: u64 = 50;

#[derive(Debug, Clone, Copy)]
struct Place {
    left: u32,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Thrift {
    places: Vec<Place>,
    key: u64,
}

impl Thrift {
    pub(super) fn new(key: u64) -> Thrift {
        Thrift { places: vec![Place { left: BURST, at: Instant::ZERO }; PLACES], key }
    }

    /// True where one more answer may go to `ip`'s network (/24, /48).
    pub(super) fn spend(&mut self, now: Instant, ip: IpAddr) -> bool {
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
            IpAddr::V6(ip) => (u128::from(ip) >> 80) as u64 | 1 << 63,
        };
        // Multiplicative, under a key that nobody outside knows.
        let hash = (network ^ self.key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let Some(place) = self.places.get_mut((hash >> 52) as usize % PLACES) else { return false };
        let more = now.since(place.at).as_millis() as u64 * RATE / 1000;
        if more > 0 {
            place.left = u32::try_from(more).unwrap_or(BURST).saturating_add(place.left).min(BURST);
            place.at = now;
        }
        let may = place.left > 0;
        place.left = place.left.saturating_sub(1);
        may
    }
}
