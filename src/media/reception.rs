//! What is known of one source that is received: sequence numbers and their validity (RFC 3550
//! section A.1), loss (A.3) and interarrival jitter (A.8).
//!
//! One deviation: a first source counts from its first packet instead of after two in sequence (the
//! address and the payload type were agreed by SDP); a source that replaces it must prove itself, see
//! [`super::session`].

use crate::core::Instant;
use crate::rtp::rtcp::ReportBlock;

/// A gap up to this many packets is loss.
const MAX_DROPOUT: u16 = 3000;
/// A packet up to this many behind the newest is reordered.
const MAX_MISORDER: u16 = 100;

/// What a sequence number says about its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Newer than all before.
    Newest,
    /// Older than the newest, seen for the first time.
    Reordered,
    /// Seen before.
    Duplicate,
    /// A leap that no loss explains; taken as a restart if the next packet follows it.
    Leap,
}

/// Bookkeeping for one SSRC.
pub struct Reception {
    ssrc: u32,
    clock_rate: u32,
    base: u32,
    /// Highest sequence number with its cycles above.
    highest: u32,
    /// Bit `n`: `highest - n` was received.
    seen: u128,
    after_leap: Option<u16>,
    received: u32,
    duplicates: u32,
    lost_before: i64,
    expected_prior: u32,
    received_prior: u32,
    transit: Option<i64>,
    jitter: f64,
}

impl Reception {
    /// Starts with the first packet's sequence number; [`Reception::update`] is called with it too.
    pub fn new(ssrc: u32, clock_rate: u32, first: u16) -> Self {
        Reception {
            ssrc,
            clock_rate,
            base: u32::from(first),
            highest: u32::from(first),
            seen: 0,
            after_leap: None,
            received: 0,
            duplicates: 0,
            lost_before: 0,
            expected_prior: 0,
            received_prior: 0,
            transit: None,
            jitter: 0.0,
        }
    }

    /// Counts a packet by its sequence number.
    pub fn update(&mut self, sequence: u16) -> Order {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let behind = ahead.wrapping_neg();
        let order = if ahead != 0 && ahead < MAX_DROPOUT {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
            self.seen = self.seen.checked_shl(u32::from(ahead)).unwrap_or_default() | 1;
            Order::Newest
        } else if behind <= MAX_MISORDER {
            let bit = 1u128 << behind;
            let fresh = self.seen & bit == 0;
            self.seen |= bit;
            match (fresh, behind) {
                (true, 0) => Order::Newest,
                (true, _) => Order::Reordered,
                (false, _) => Order::Duplicate,
            }
        } else if self.after_leap == Some(sequence) {
            // The loss of the run before stays in the statistics; the report block starts anew (A.1).
            *self = Reception {
                lost_before: self.lost_before + self.lost_here(),
                jitter: self.jitter,
                seen: 1,
                ..Reception::new(self.ssrc, self.clock_rate, sequence)
            };
            Order::Newest
        } else {
            self.after_leap = Some(sequence.wrapping_add(1));
            return Order::Leap;
        };
        self.after_leap = None;
        self.received = self.received.wrapping_add(1);
        self.duplicates += u32::from(order == Order::Duplicate);
        order
    }

    /// Measures jitter from a voice packet (not from telephone-events, which repeat their timestamp).
    pub fn arrived(&mut self, now: Instant, timestamp: u32) {
        let arrival = (u128::from(now.as_micros()) * u128::from(self.clock_rate) / 1_000_000) as u64;
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            let difference = f64::from(((transit - before) as i32).unsigned_abs());
            self.jitter += (difference - self.jitter) / 16.0;
        }
    }

    /// The report block about this source, without LSR and DLSR; begins a new interval for the loss fraction.
    pub fn report(&mut self) -> ReportBlock {
        let expected = self.expected();
        let expected_interval = expected.wrapping_sub(self.expected_prior);
        let received_interval = self.received.wrapping_sub(self.received_prior);
        (self.expected_prior, self.received_prior) = (expected, self.received);
        let lost = i64::from(expected_interval) - i64::from(received_interval);
        let fraction_lost =
            if expected_interval == 0 || lost <= 0 { 0 } else { (lost << 8) / i64::from(expected_interval) };
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction_lost.min(255) as u8,
            lost: (i64::from(expected) - i64::from(self.received)).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: self.highest,
            jitter: self.jitter as u32,
            last_sr: 0,
            delay_since_last_sr: 0,
        }
    }

    /// The source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets that never came, so far.
    pub fn lost(&self) -> u64 {
        (self.lost_before + self.lost_here()).max(0) as u64
    }

    /// Interarrival jitter in milliseconds.
    pub fn jitter_ms(&self) -> f64 {
        self.jitter * 1000.0 / f64::from(self.clock_rate)
    }

    fn lost_here(&self) -> i64 {
        i64::from(self.expected()) - (i64::from(self.received) - i64::from(self.duplicates))
    }

    fn expected(&self) -> u32 {
        self.highest.wrapping_sub(self.base).wrapping_add(1)
    }
}
