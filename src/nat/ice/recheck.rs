//! Checks of ways that were given up, while the call's way leads through a relay: what did not work in the first ten seconds may work later.
//!
//! A NAT that was full or filtered, a lost candidate, an address found late: each end checks all pairs that need no relay anew, at first
//! after 15 seconds, then less often. NATs keep a mapping for 30 seconds at least, so that checks of both ends meet. A check
//! that arrives makes the other end's own session check the same pair (RFC 8445 section 7.3.1.4), and its check makes ours: the session decides
//! and names the pair as ever; here is only what calls. An end that is lite checks nothing and is not found so.

use super::{Clocks, Datagram, agent};
use crate::core::Instant;
use is::stun::StunPacket;
use is::{CandidateKind, IceAgent};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two rounds: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));
/// After a candidate has come.
const SOON: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Recheck {
    ice: Option<IceAgent>,
    /// When the next round begins; none while the way is as short as it can be.
    begins: Option<Instant>,
    wait: Duration,
    due: Option<Instant>,
    out: VecDeque<Datagram>,
}

impl Default for Recheck {
    fn default() -> Recheck {
        Recheck { ice: None, begins: None, wait: AGAIN.0, due: None, out: VecDeque::new() }
    }
}

impl Recheck {
    /// The session has chosen a way.
    pub fn on_selected(&mut self, now: Instant, relayed: bool) {
        if !relayed {
            // The round itself stays, for answers that are on their way.
            (self.begins, self.wait, self.due) = (None, AGAIN.0, None);
        } else if self.begins.is_none() {
            self.begins = Some(now + self.wait);
        }
    }

    /// A candidate has come.
    pub fn look_soon(&mut self, now: Instant) {
        if let Some(begins) = &mut self.begins {
            *begins = (*begins).min(now + SOON);
        }
    }

    /// It answers a check of ours.
    pub fn is_answer(&self, packet: &StunPacket) -> bool {
        !packet.message.is_binding_request()
            && self.ice.as_ref().is_some_and(|ice| ice.accepts_message(&packet.message))
    }

    /// Such an answer came.
    pub fn handle(&mut self, at: std::time::Instant, packet: StunPacket) {
        if let Some(ice) = &mut self.ice {
            ice.handle_packet(at, packet);
        }
    }

    /// Checks what is due, of the candidates that `session` has.
    pub fn handle_timeout(&mut self, now: Instant, clocks: Clocks, session: &IceAgent, tie_breaker: u64) {
        if self.begins.is_some_and(|at| at <= now) {
            self.ice = begin(session, tie_breaker);
            self.begins = Some(now + self.wait);
            self.wait = (self.wait * 2).min(AGAIN.1);
            self.due = Some(now);
        }
        let Some(ice) = self.ice.as_mut().filter(|_| self.due.is_some_and(|due| due <= now)) else { return };
        ice.handle_timeout(clocks.system(now));
        while ice.poll_event().is_some() {}
        while let Some(transmit) = ice.poll_transmit() {
            let bytes = transmit.contents.to_vec();
            self.out.push_back(Datagram { local: transmit.source, to: transmit.destination, bytes });
        }
        self.due = ice.poll_timeout().map(|at| clocks.ours(at));
    }

    /// When [`Recheck::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.begins.into_iter().chain(self.due).min()
    }

    /// The next check to send.
    pub fn poll_send(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }
}

/// A round: all pairs that need no relay.
fn begin(session: &IceAgent, tie_breaker: u64) -> Option<IceAgent> {
    let mut ice = agent::session(session.local_credentials().clone(), session.controlling(), tie_breaker);
    ice.set_remote_credentials(session.remote_credentials()?.clone());
    // What is peer-reflexive here has the base of a host candidate.
    for local in session.local_candidates().filter(|c| c.kind() == CandidateKind::Host) {
        ice.add_local_candidate(local);
    }
    for remote in session.remote_candidates().filter(|c| c.kind() != CandidateKind::Relayed) {
        ice.add_remote_candidate(remote);
    }
    Some(ice)
}
