//! What a peer sees of the coming and going around it: how often it stabilises (RFC 7363), and when so many have failed at
//! once that records may be lost.

use super::Chord;
use crate::core::Instant;
use crate::overlay::Output;
use std::collections::VecDeque;
use std::time::Duration;

/// Failures are counted over this time for the pace of the upkeep.
const WINDOW: Duration = Duration::from_secs(600);
/// Failures remembered.
const REMEMBERED: usize = 128;
/// Failures within this time may be one event.
const MOMENT: Duration = Duration::from_secs(10);
/// One peer in so many, failed in a moment, is said to be churn; two at least.
const SHARE: usize = 6;
/// From one such report to the next, where failures go on.
const REPORTED: Duration = Duration::from_secs(3);

/// The failures seen.
#[derive(Default)]
pub(super) struct Watch {
    failed: VecDeque<Instant>,
    began: Option<Instant>,
    reported: Option<Instant>,
}

impl Chord {
    /// A peer that was in the ring is no more.
    pub(super) fn note_failure(&mut self, now: Instant) {
        if self.watch.failed.len() >= REMEMBERED {
            self.watch.failed.pop_front();
        }
        self.watch.failed.push_back(now);
        let lately = self.watch.failed.iter().rev().take_while(|at| now.since(**at) < MOMENT).count();
        let known = self.known() + lately;
        let due = self.watch.reported.is_none_or(|at| now.since(at) >= REPORTED);
        if lately >= 2 && lately * SHARE >= known && due {
            self.watch.reported = Some(now);
            self.out.push_back(Output::Churn);
        }
    }

    /// The pause between two stabilisations while nothing changes: a peer has to make them Omega(log2(N)^2) times in the time
    /// in which half of the peers are replaced (RFC 7363 section 5, after Liben-Nowell, Balakrishnan, Karger).
    pub(super) fn calm(&mut self, now: Instant) -> Duration {
        let began = *self.watch.began.get_or_insert(now);
        while self.watch.failed.front().is_some_and(|at| now.since(*at) > WINDOW) {
            self.watch.failed.pop_front();
        }
        let seen = now.since(began).clamp(Duration::from_secs(30), WINDOW);
        let failed = self.watch.failed.len();
        if failed == 0 {
            return self.config.stabilise_max;
        }
        let each = failed as f64 / (self.known().max(1) as f64 * seen.as_secs_f64());
        let rounds = (self.estimate().max(2) as f64).log2().powi(2).max(1.0);
        let pause = 1.0 / (2.0 * each) / rounds;
        Duration::from_secs_f64(pause.clamp(1.0, 3600.0)).max(self.config.stabilise_min).min(self.config.stabilise_max)
    }

    /// Peers whose failure this one would hear of.
    fn known(&self) -> usize {
        let rows: std::collections::BTreeSet<_> = self.table.rows().collect();
        if self.members.complete() { self.members.len().max(rows.len()) } else { rows.len() }
    }
}
