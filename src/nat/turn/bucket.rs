//! A ceiling: bits a second, for a packet that passes or not, and for streams, which wait for their turn.

use crate::core::Instant;
use std::time::Duration;

/// Lets `rate` bits a second pass (zero: as many as come), and what a quarter of a second holds at once.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: u64,
    bits: u64,
    /// What passed before its time.
    debt: u64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(now: Instant, rate: u64) -> Bucket {
        Bucket { rate, bits: Bucket::most(rate), debt: 0, at: now }
    }

    /// A ceiling below one large packet would let nothing pass.
    fn most(rate: u64) -> u64 {
        (rate / 4).max(16 * 1500)
    }

    /// Whether `bits` may pass now.
    pub fn has(&mut self, now: Instant, bits: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let past = now.since(self.at).min(Duration::from_secs(1)).as_micros() as u64;
        let more = self.rate.saturating_mul(past) / 1_000_000;
        if more > 0 {
            let paid = more.min(self.debt);
            self.debt -= paid;
            (self.bits, self.at) = ((self.bits + more - paid).min(Bucket::most(self.rate)), now);
        }
        self.debt == 0 && self.bits >= bits
    }

    /// They passed.
    pub fn take(&mut self, bits: u64) {
        self.bits = self.bits.saturating_sub(bits);
    }

    /// They passed though they may be more than there is: nothing passes until the time that they would have taken is over.
    pub fn charge(&mut self, now: Instant, bits: u64) {
        if self.rate == 0 {
            return;
        }
        // What has come in meanwhile counts first.
        self.has(now, 0);
        self.debt = self.debt.saturating_add(bits.saturating_sub(self.bits));
        self.bits = self.bits.saturating_sub(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_is_waited_for() {
        let mut bucket = Bucket::new(Instant::ZERO, 100_000);
        // A full one holds 25,000 bits; 100,000 more are a second.
        bucket.charge(Instant::ZERO, 125_000);
        assert!(!bucket.has(Instant::from_millis(990), 1));
        assert!(bucket.has(Instant::from_millis(1010), 1));
        assert!(!bucket.has(Instant::from_millis(1010), 2000));
        // None: nothing waits.
        let mut none = Bucket::new(Instant::ZERO, 0);
        none.charge(Instant::ZERO, u64::MAX);
        assert!(none.has(Instant::ZERO, u64::MAX));
    }
}
