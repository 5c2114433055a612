//! What a simulation found out.

use super::Options;
use crate::core::Instant;
use crate::node::control::LookupReport;
use serde::Serialize;

/// Figures of one simulation. `wall_s` and `peak_rss_kb` are filled in by whoever has a clock.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Peers.
    pub peers: usize,
    /// Of which had joined the ring at the end.
    pub joined: usize,
    /// Seed.
    pub seed: u64,
    /// Lookups made.
    pub lookups: usize,
    /// Of which found the user.
    pub found: usize,
    /// Mean number of peers that a lookup passed.
    pub hops_mean: f64,
    /// First percentile of it.
    pub hops_p1: u32,
    /// 99th percentile of it.
    pub hops_p99: u32,
    /// Mean time of a lookup, milliseconds of virtual time.
    pub lookup_ms_mean: f64,
    /// 99th percentile of it.
    pub lookup_ms_p99: f64,
    /// SIP messages received by a peer in the whole run, mean.
    pub messages_per_peer: f64,
    /// SIP messages received by the busiest peer in the whole run.
    pub peak_messages: u64,
    /// SIP messages received by a peer and second while lookups ran, maintenance included.
    pub messages_per_peer_second: f64,
    /// Bytes that a peer sent and received a second in the second half of the time between the last join and the first lookup,
    /// mean; TLS, TCP and IP included. A ring is at rest some minutes after the last join.
    pub settled_bytes_per_peer_second: f64,
    /// Virtual time, seconds.
    pub virtual_s: f64,
    /// Time it took, seconds.
    pub wall_s: f64,
    /// Most memory that the process had, kilobytes.
    pub peak_rss_kb: u64,
    /// Hash over the whole history.
    pub history_hash: String,
    #[serde(skip)]
    hops: Vec<u32>,
    #[serde(skip)]
    millis: Vec<f64>,
    #[serde(skip)]
    before_lookups: u64,
    #[serde(skip)]
    lookup_s: f64,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Report {
            peers: options.peers,
            joined: 0,
            seed: options.seed,
            lookups: options.lookups,
            found: 0,
            hops_mean: 0.0,
            hops_p1: 0,
            hops_p99: 0,
            lookup_ms_mean: 0.0,
            lookup_ms_p99: 0.0,
            messages_per_peer: 0.0,
            peak_messages: 0,
            messages_per_peer_second: 0.0,
            settled_bytes_per_peer_second: 0.0,
            virtual_s: 0.0,
            wall_s: 0.0,
            peak_rss_kb: 0,
            history_hash: String::new(),
            hops: Vec::new(),
            millis: Vec::new(),
            before_lookups: 0,
            lookup_s: options.lookup_every.as_secs_f64() * options.lookups as f64 + 10.0,
        }
    }

    pub(super) fn lookup_phase_begins(&mut self, received: impl Iterator<Item = u64>) {
        self.before_lookups = received.sum();
    }

    pub(super) fn settled(&mut self, bytes: u64, span: std::time::Duration) {
        self.settled_bytes_per_peer_second = bytes as f64 / self.peers as f64 / span.as_secs_f64().max(1.0);
    }

    pub(super) fn lookup(&mut self, report: &LookupReport) {
        self.found += usize::from(report.found);
        self.hops.push(report.hops);
        self.millis.push(report.ms);
    }

    pub(super) fn lookups_answered(&self) -> usize {
        self.hops.len()
    }

    pub(super) fn finish(&mut self, now: Instant, joined: usize, received: &[u64], hash: &str) {
        self.joined = joined;
        self.hops.sort_unstable();
        self.millis.sort_by(f64::total_cmp);
        let n = self.hops.len().max(1) as f64;
        self.hops_mean = self.hops.iter().map(|h| f64::from(*h)).sum::<f64>() / n;
        self.hops_p1 = percentile(&self.hops, 0.01).unwrap_or(0);
        self.hops_p99 = percentile(&self.hops, 0.99).unwrap_or(0);
        self.lookup_ms_mean = self.millis.iter().sum::<f64>() / n;
        self.lookup_ms_p99 = percentile(&self.millis, 0.99).unwrap_or(0.0);
        let total: u64 = received.iter().sum();
        self.messages_per_peer = total as f64 / self.peers as f64;
        self.peak_messages = received.iter().copied().max().unwrap_or(0);
        self.messages_per_peer_second =
            (total - self.before_lookups.min(total)) as f64 / self.peers as f64 / self.lookup_s;
        self.virtual_s = now.as_micros() as f64 / 1e6;
        self.history_hash = hash.to_owned();
    }
}

/// Nearest-rank percentile of a sorted list.
fn percentile<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    let rank = (p * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 0.01), Some(1));
        assert_eq!(percentile(&hundred, 0.99), Some(99));
        assert_eq!(percentile::<u32>(&[], 0.5), None);
    }
}
