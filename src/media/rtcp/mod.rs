//! RTCP of one session: when to report (RFC 3550 section 6.3), what (6.4), and what the other end's
//! reports tell about the path (round trip from LSR and DLSR, loss and jitter at the far end).
//!
//! A call has two members, so the timer reconsideration of 6.3.3 never has a changed member count to
//! reconsider, and a BYE is sent at once (6.3.7). The NTP clock of the reports is the monotonic clock
//! of the driver (6.4.1 allows uptime): wall-clock time is not anybody's business.

use super::reception::Reception;
use crate::core::{Instant, Rng};
use crate::rtp::rtcp::{Control, ReportBlock, middle, ntp_from_micros, write};
use bytes::Bytes;
use std::time::Duration;

/// 5 s, halved before the first report (6.2, 6.3.1).
const LEAST_INTERVAL_S: f64 = 5.0;
/// Of the session's bandwidth (6.2).
const RTCP_SHARE: f64 = 0.05;
/// Timer reconsideration draws intervals short on average; this makes up for it (6.3.1).
const COMPENSATION: f64 = std::f64::consts::E - 1.5;
const UDP_IP_OCTETS: f64 = 28.0;

/// Counters that a sender report carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Data packets.
    pub packets: u32,
    /// Payload bytes.
    pub octets: u32,
    /// RTP timestamp that belongs to the time of the report.
    pub rtp_time: u32,
}

/// What the other end reports about our stream.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct FarEnd {
    /// Packets it missed in all.
    pub lost: i32,
    /// Share lost in its last interval, percent.
    pub loss_percent: f64,
    /// Its jitter, in ticks of our RTP clock.
    pub jitter: u32,
}

/// Report timer and memory.
pub struct Reporter {
    cname: Bytes,
    bandwidth: f64,
    average_size: f64,
    next: Instant,
    initial: bool,
    sent_at_last: [u32; 2],
    last_sr: Option<(u32, Instant)>,
    round_trip: Option<Duration>,
    far_end: Option<FarEnd>,
}

impl Reporter {
    /// `bandwidth` of the voice in bytes a second; `cname` says nothing about the user.
    pub fn new(now: Instant, cname: &str, bandwidth: u32, rng: &mut Rng) -> Self {
        let mut reporter = Reporter {
            cname: Bytes::copy_from_slice(cname.as_bytes()),
            bandwidth: f64::from(bandwidth),
            average_size: 100.0,
            next: now,
            initial: true,
            sent_at_last: [0; 2],
            last_sr: None,
            round_trip: None,
            far_end: None,
        };
        reporter.next = now + reporter.interval(rng);
        reporter
    }

    /// When the next report is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The report that is due, with its successor scheduled.
    pub fn report(
        &mut self,
        now: Instant,
        ssrc: u32,
        sent: Sent,
        source: Option<&mut Reception>,
        rng: &mut Rng,
    ) -> Bytes {
        let bytes = write(&self.compound(now, ssrc, sent, source));
        self.measure(bytes.len());
        self.initial = false;
        self.next = now + self.interval(rng);
        self.sent_at_last = [self.sent_at_last[1], sent.packets];
        bytes
    }

    /// The last report, with a BYE.
    pub fn goodbye(&mut self, now: Instant, ssrc: u32, sent: Sent, source: Option<&mut Reception>) -> Bytes {
        let mut controls = self.compound(now, ssrc, sent, source);
        controls.push(Control::Goodbye { sources: vec![ssrc], reason: Bytes::new() });
        write(&controls)
    }

    /// Takes in one packet of the other end's compound; `ssrc` is ours. `octets`: size of the whole compound.
    pub fn receive(&mut self, now: Instant, ssrc: u32, control: &Control) {
        let blocks = match control {
            Control::SenderReport { ntp, blocks, .. } => {
                self.last_sr = Some((middle(*ntp), now));
                blocks
            }
            Control::ReceiverReport { blocks, .. } => blocks,
            _ => return,
        };
        let Some(block) = blocks.iter().find(|block| block.ssrc == ssrc) else { return };
        self.far_end = Some(FarEnd {
            lost: block.lost,
            loss_percent: f64::from(block.fraction_lost) * 100.0 / 256.0,
            jitter: block.jitter,
        });
        if block.last_sr != 0 {
            let elapsed = middle(ntp_from_micros(now.as_micros())).wrapping_sub(block.last_sr);
            // A peer that reports more delay than there was makes this negative: no measurement.
            if let Some(units) = elapsed.checked_sub(block.delay_since_last_sr).filter(|units| *units < 60 << 16) {
                self.round_trip = Some(Duration::from_micros(u64::from(units) * 1_000_000 / 65536));
            }
        }
    }

    /// Counts the size of a compound that was received into the average that sets the pace.
    pub fn measure(&mut self, octets: usize) {
        self.average_size += (octets as f64 + UDP_IP_OCTETS - self.average_size) / 16.0;
    }

    /// Round trip as last measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What the other end last said about our stream.
    pub fn far_end(&self) -> Option<FarEnd> {
        self.far_end
    }

    fn compound(&self, now: Instant, ssrc: u32, sent: Sent, source: Option<&mut Reception>) -> Vec<Control> {
        let blocks: Vec<ReportBlock> = source
            .map(|source| {
                let mut block = source.report();
                if let Some((last_sr, at)) = self.last_sr {
                    block.last_sr = last_sr;
                    block.delay_since_last_sr = ((now.since(at).as_micros() << 16) / 1_000_000) as u32;
                }
                block
            })
            .into_iter()
            .collect();
        // A sender is who sent since the report before the last one (6.3.8).
        let report = if sent.packets != self.sent_at_last[0] {
            let ntp = ntp_from_micros(now.as_micros());
            let Sent { packets, octets, rtp_time } = sent;
            Control::SenderReport { ssrc, ntp, rtp_time, packets, octets, blocks }
        } else {
            Control::ReceiverReport { ssrc, blocks }
        };
        vec![report, Control::SourceDescription { cnames: vec![(ssrc, self.cname.clone())] }]
    }

    /// RFC 3550 section 6.3.1 for two members.
    fn interval(&self, rng: &mut Rng) -> Duration {
        let least = if self.initial { LEAST_INTERVAL_S / 2.0 } else { LEAST_INTERVAL_S };
        let computed = 2.0 * self.average_size / (RTCP_SHARE * self.bandwidth).max(1.0);
        Duration::from_secs_f64(computed.max(least) * (0.5 + rng.unit()) / COMPENSATION)
    }
}

#[cfg(test)]
mod tests;
