//! The second way of a call, between two ends that both keep one: an ICE session of its own, of the same sockets and
//! candidates, that is let have no way that [shares](Pair::shares) with the first. Where such a one is found it is handed to the
//! media threads with the passwords of its probes; they decide packet by packet ([`Lanes`](crate::nat::ice::Lanes)).
//!
//! It begins once the first way has stood for a second, and anew when the first one moves to where it shares. A restart of the first
//! is one of the second; what the second had goes on being used until the first has its new way.

use super::{MediaCommand, Output};
use crate::core::{Instant, Rng};
use crate::nat::ice::{self, Agent, Clocks, Datagram, Figures, Local, Pair, Route};
use crate::sdp::ice::{Candidate, Credentials, Ice};
use crate::ua::{CallId, IcePlan};
use std::net::SocketAddr;
use std::time::Duration;

/// How long the first way stands before a second one is looked for.
const SETTLE: Duration = Duration::from_secs(1);
/// After a search that found nothing, or a way that fell silent.
const AGAIN: Duration = Duration::from_secs(15);

/// One call's.
#[derive(Debug)]
pub(super) struct Second {
    local: Credentials,
    remote: Ice,
    controlling: bool,
    agent: Option<Agent>,
    /// Sessions in a row that found nothing or fell silent: every other one takes what shares one end.
    failed: u32,
    added: usize,
    /// When a session is begun.
    due: Option<Instant>,
    selected: Option<Pair>,
    /// It is chosen, and the media threads do not know it.
    untold: bool,
    /// How both ways are, by the media threads.
    pub figures: Option<Figures>,
}

impl Second {
    /// For the plan of the first one, whose other end keeps a second way too.
    pub fn new(plan: &IcePlan) -> Second {
        let credentials = plan.remote.credentials.second();
        Second {
            local: plan.local.second(),
            remote: Ice { credentials, ..plan.remote.clone() },
            controlling: plan.controlling || plan.remote.lite,
            agent: None,
            failed: 0,
            added: 0,
            due: None,
            selected: None,
            untold: false,
            figures: None,
        }
    }

    /// The first way is chosen, or another one than before; true when what was the second has to be given up.
    pub fn on_first(&mut self, now: Instant, first: &Pair) -> bool {
        let stays = self.selected.is_some_and(|s| !s.shares(first, false));
        if !stays {
            (self.agent, self.selected, self.figures, self.failed) = (None, None, None, 0);
            self.due = Some(now + SETTLE);
        }
        !stays
    }

    pub fn add_remote(&mut self, now: Instant, candidates: &[Candidate]) {
        self.remote.candidates.extend_from_slice(candidates);
        self.remote.candidates.truncate(crate::sdp::ice::MAX_CANDIDATES);
        if let Some(agent) = &mut self.agent {
            agent.add_remote(now, candidates);
        }
    }

    pub fn add_found(&mut self, now: Instant, found: &[Local]) {
        let Some(agent) = &mut self.agent else { return };
        for local in found.iter().skip(self.added) {
            agent.add_local(now, local);
        }
        self.added = found.len();
    }

    /// Of what was found, only so many are there still.
    pub fn trim(&mut self, found: usize) {
        self.added = self.added.min(found);
    }

    /// A STUN message came; false when it is not of this session.
    pub fn handle(
        &mut self,
        now: Instant,
        first: Option<&Pair>,
        local: SocketAddr,
        from: SocketAddr,
        b: &[u8],
    ) -> bool {
        let partly = self.partly();
        let Some(agent) = &mut self.agent else { return false };
        if first.is_some_and(|first| agent.between(local, from).shares(first, partly)) {
            return false;
        }
        agent.handle(now, local, from, b)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agent.as_ref().and_then(Agent::poll_timeout).into_iter().chain(self.due).min()
    }

    /// Begins a session when one is due; true: it is to be told what was found.
    pub fn begin(&mut self, now: Instant, clocks: Clocks, rng: &mut Rng) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            let mut agent = Agent::new(clocks, now, &self.local, self.controlling, rng.next_u64());
            agent.set_remote(now, &self.remote);
            (self.agent, self.due, self.added) = (Some(agent), None, 0);
        }
        due
    }

    /// Checks what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(agent) = self.agent.as_mut().filter(|a| a.poll_timeout().is_some_and(|due| due <= now)) {
            agent.handle_timeout(now);
        }
    }

    /// The next datagram to send; what the session says beside that is seen to.
    pub fn poll_send(&mut self, now: Instant, first: Option<&Pair>) -> Option<Datagram> {
        loop {
            let partly = self.partly();
            let agent = self.agent.as_mut()?;
            match agent.poll_output()? {
                ice::Output::Send(d) => {
                    if !first.is_some_and(|first| agent.between(d.local, d.to).shares(first, partly)) {
                        return Some(d);
                    }
                }
                ice::Output::Selected(pair) => {
                    (self.selected, self.untold, self.failed) = (Some(pair), true, self.failed & 1)
                }
                ice::Output::Silent | ice::Output::Expired => {
                    // The probes go on meanwhile: they know better than checks do.
                    (self.agent, self.due) = (None, Some(now + AGAIN));
                    self.failed += 1;
                }
            }
        }
    }

    /// The way, once: for the media threads.
    pub fn tell(&mut self, call: CallId, route: impl Fn(&Pair) -> Option<Route>) -> Option<Output> {
        let route = self.selected.as_ref().filter(|_| self.untold).and_then(route)?;
        self.untold = false;
        let second = Box::new(ice::Second::new(route, &self.local, &self.remote.credentials));
        Some(Output::Media(MediaCommand::Second { call, second: Some(second) }))
    }

    /// What shares an end with the first way is passed over.
    fn partly(&self) -> bool {
        self.failed.is_multiple_of(2)
    }

    pub fn selected(&self) -> Option<&Pair> {
        self.selected.as_ref()
    }
}
