//! Two ways of one call's media, both kept alive by probes: which one the voice takes, and when it takes both.
//!
//! Each end sends a [`probe`](super::echo) on each way every 50 ms, also while nothing is said. A probe tells what has
//! come of the other end's on both ways, so each end knows of each of its ways, by whichever still works, whether what it sends
//! arrives; its own sending is all that it decides. A probe that should have been confirmed and is not puts its way in doubt: from
//! then on each packet goes both ways. When that lasts, voice moves; it comes back when the first way, which ICE holds for the better
//! one, has been sound for a while, longer after each time. While probes are lost here and there, each packet goes both ways too, until
//! none is. Where both ways are in doubt at once, an end stood still or both are cut: nothing is gained by moving.
//!
//! A probe and its headers are 88 bytes over IPv4: the two ways cost 3.5 kB/s in each direction, whatever the codec.
//!
//! Left out: a third way; moving for a better round trip alone.

use super::Route;
use super::echo::{Echo, Heard};
use crate::core::{Instant, Redacted};
use crate::sdp::ice::Credentials;
use std::collections::VecDeque;
use std::time::Duration;

/// Between two probes of one way.
pub const PROBE: Duration = Duration::from_millis(50);
/// How much later than a round trip a confirmation may come: the other end's next probe, and a frame of either end's clock.
const DOUBT: Duration = Duration::from_millis(60);
/// The same until voice moves: three probes in a row.
const MOVE: Duration = Duration::from_millis(150);
/// How long the first way is sound before voice returns to it, and the longest after several returns.
const RETURN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(48));
/// Probes that the loss is counted over.
const WINDOW: u32 = 64;
/// Of these, lost ones from which on each packet goes both ways, and at which that ends.
const LOSSY: (u32, u32) = (4, 0);
/// Headers of UDP over IPv4.
const HEADERS: u64 = 28;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// That of the call's first ICE session.
    First,
    /// The other one.
    Second,
}

impl Lane {
    const BOTH: [Lane; 2] = [Lane::First, Lane::Second];

    fn other(self) -> Lane {
        match self {
            Lane::First => Lane::Second,
            Lane::Second => Lane::First,
        }
    }
}

/// A second way, and what probes are authenticated by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Second {
    /// Where it leads.
    pub route: Route,
    /// Password for what comes here.
    pub local: Redacted<String>,
    /// Password for what goes there.
    pub remote: Redacted<String>,
}

impl Second {
    /// By the credentials of the second ICE session.
    pub fn new(route: Route, local: &Credentials, remote: &Credentials) -> Second {
        Second { route, local: local.pwd.clone(), remote: remote.pwd.clone() }
    }
}

/// How the two ways are.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Figures {
    /// Voice goes the second way.
    pub on_second: bool,
    /// Each packet goes both ways.
    pub both: bool,
    /// Round trip of each way, once measured.
    pub rtt: [Option<Duration>; 2],
    /// Share of the latest probes of each way that did not arrive, 0 to 1.
    pub loss: [f64; 2],
    /// The other end confirms what is sent on either way.
    pub answered: bool,
    /// Times that voice has moved.
    pub moves: u64,
    /// Bytes of probes sent, headers included.
    pub probe_bytes: u64,
    /// Bytes of packets sent a second time, headers included.
    pub copy_bytes: u64,
}

/// A probe to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// On which way.
    pub route: Route,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// See the module. One for each call that has two ways.
#[derive(Debug)]
pub struct Lanes {
    local: Redacted<String>,
    remote: Redacted<String>,
    ways: [Way; 2],
    active: Lane,
    /// Each packet goes both ways, for loss.
    lossy: bool,
    /// Each packet goes both ways, for a doubt.
    doubted: bool,
    /// Since when the first way is sound, while voice is on the second; how long it has to be.
    sound: Option<Instant>,
    patience: Duration,
    moves: u64,
    probe_bytes: u64,
    copy_bytes: u64,
    out: VecDeque<Probe>,
}

impl Lanes {
    /// Begins to probe both.
    pub fn new(now: Instant, first: Route, second: Second) -> Lanes {
        Lanes {
            local: second.local,
            remote: second.remote,
            // In turn, so that word of either comes twice as often.
            ways: [Way::new(first, now), Way::new(second.route, now + PROBE / 2)],
            active: Lane::First,
            lossy: false,
            doubted: false,
            sound: None,
            patience: RETURN.0,
            moves: 0,
            probe_bytes: 0,
            copy_bytes: 0,
            out: VecDeque::new(),
        }
    }

    /// ICE has found another first way; voice goes it at once.
    pub fn set_first(&mut self, now: Instant, route: Route) {
        if self.ways[0].route != route {
            self.ways[0] = self.ways[0].moved(route, now);
            (self.active, self.sound, self.doubted) = (Lane::First, None, false);
        }
    }

    /// The same of the second way.
    pub fn set_second(&mut self, now: Instant, second: Second) {
        if self.local != second.local {
            // Another session: what its probes are numbered from is not known.
            self.ways.iter_mut().for_each(|way| way.heard = None);
        }
        (self.local, self.remote) = (second.local, second.remote);
        if self.ways[1].route != second.route {
            self.ways[1] = self.ways[1].moved(second.route, now);
        }
    }

    /// A probe came; false where it is none, or not from the other end, or has come before.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let Some(echo) = Echo::read(datagram, self.local.reveal().as_bytes()) else { return false };
        if !self.ways[usize::from(echo.lane & 1)].receive(now, echo.number) {
            return false;
        }
        for (way, heard) in self.ways.iter_mut().zip(&echo.heard) {
            if let Some(heard) = heard {
                way.confirm(now, heard);
            }
        }
        self.decide(now);
        true
    }

    /// Sends what is due, and decides.
    pub fn handle_timeout(&mut self, now: Instant) {
        for lane in Lane::BOTH {
            let index = lane as usize;
            if self.ways[index].due > now {
                continue;
            }
            let number = self.ways[index].send(now);
            let heard = [self.ways[0].report(now), self.ways[1].report(now)];
            let echo = Echo { lane: index as u8, number, heard };
            let bytes = echo.write(self.remote.reveal().as_bytes());
            self.probe_bytes += bytes.len() as u64 + HEADERS;
            self.out.push_back(Probe { route: self.ways[index].route, bytes });
        }
        self.decide(now);
    }

    /// When [`Lanes::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        self.ways[0].due.min(self.ways[1].due)
    }

    /// The next probe to send.
    pub fn poll_output(&mut self) -> Option<Probe> {
        self.out.pop_front()
    }

    /// The ways that a packet of `length` bytes takes now.
    pub fn take(&mut self, length: usize) -> (Route, Option<Route>) {
        let both = self.lossy || self.doubted;
        if both {
            self.copy_bytes += length as u64 + HEADERS;
        }
        let route = |lane: Lane| self.ways[lane as usize].route;
        (route(self.active), both.then(|| route(self.active.other())))
    }

    /// Both.
    pub fn routes(&self) -> [Route; 2] {
        [self.ways[0].route, self.ways[1].route]
    }

    /// How they are.
    pub fn figures(&self, now: Instant) -> Figures {
        Figures {
            on_second: self.active == Lane::Second,
            both: self.lossy || self.doubted,
            rtt: [self.ways[0].rtt, self.ways[1].rtt],
            loss: [0, 1].map(|n| f64::from(self.ways[n].lost(now)) / f64::from(WINDOW)),
            answered: self.ways.iter().any(|way| way.late(now).is_some_and(|late| late < MOVE)),
            moves: self.moves,
            probe_bytes: self.probe_bytes,
            copy_bytes: self.copy_bytes,
        }
    }

    fn decide(&mut self, now: Instant) {
        let [active, other] = [self.active, self.active.other()].map(|lane| &self.ways[lane as usize]);
        let usable = other.late(now).is_some_and(|late| late < DOUBT);
        let late = active.late(now);
        // Until anything was confirmed on it, the active way is as good as ICE says.
        self.doubted = usable && late.is_some_and(|late| late >= DOUBT);
        let lost = active.lost(now);
        self.lossy = usable && if self.lossy { lost > LOSSY.1 } else { lost >= LOSSY.0 };
        if usable && late.is_some_and(|late| late >= MOVE) {
            self.active = self.active.other();
            self.moves += 1;
            (self.doubted, self.lossy, self.sound) = (false, false, None);
            if self.active == Lane::Second && self.moves > 1 {
                self.patience = (self.patience * 2).min(RETURN.1);
            }
        }
        if self.active == Lane::First {
            return;
        }
        let first = &self.ways[0];
        if first.late(now).is_none_or(|late| late >= DOUBT) {
            self.sound = None;
        } else if now.since(*self.sound.get_or_insert(now)) >= self.patience && first.lost(now) <= LOSSY.1 {
            (self.active, self.sound) = (Lane::First, None);
            self.moves += 1;
        }
    }
}

/// One way.
#[derive(Debug)]
struct Way {
    route: Route,
    due: Instant,
    /// Number of the next probe, and when the latest ones were sent, the newest one last.
    next: u32,
    sent: VecDeque<Instant>,
    /// Which of `sent` were confirmed, bit 0 for the newest one.
    confirmed: u128,
    /// The newest of them.
    newest: Option<u32>,
    rtt: Option<Duration>,
    /// How much round trips differ.
    spread: Duration,
    /// Of the other end's: the newest one, which of those before it came too, and when it came.
    heard: Option<(u32, u64, Instant)>,
}

impl Way {
    fn new(route: Route, due: Instant) -> Way {
        // Above all that an earlier machine of this call may have sent: the other end passes over smaller numbers.
        let next = (due.as_micros() / PROBE.as_micros() as u64) as u32;
        Way {
            route,
            due,
            next,
            sent: VecDeque::new(),
            confirmed: 0,
            newest: None,
            rtt: None,
            spread: Duration::ZERO,
            heard: None,
        }
    }

    /// Elsewhere; the numbers go on.
    fn moved(&self, route: Route, due: Instant) -> Way {
        Way { next: self.next, heard: self.heard, ..Way::new(route, due) }
    }

    fn send(&mut self, now: Instant) -> u32 {
        // A clock that stood still owes nothing.
        self.due = if self.due + PROBE > now { self.due + PROBE } else { now + PROBE };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.sent.push_back(now);
        self.confirmed <<= 1;
        if self.sent.len() > 2 * WINDOW as usize {
            self.sent.pop_front();
        }
        number
    }

    /// A probe of the other end's; false for one that came before or is older than what is remembered.
    fn receive(&mut self, now: Instant, number: u32) -> bool {
        let Some((newest, mask, at)) = self.heard else {
            self.heard = Some((number, 1, now));
            return true;
        };
        let ahead = number.wrapping_sub(newest);
        if (1..1 << 31).contains(&ahead) {
            self.heard = Some((number, mask.checked_shl(ahead).unwrap_or(0) | 1, now));
            return true;
        }
        let bit = 1_u64.checked_shl(newest.wrapping_sub(number)).unwrap_or(0);
        let new = bit != 0 && mask & bit == 0;
        if new {
            self.heard = Some((newest, mask | bit, at));
        }
        new
    }

    fn report(&self, now: Instant) -> Option<Heard> {
        let (newest, mask, at) = self.heard?;
        let waited_ms = now.since(at).as_millis().min(255) as u8;
        Some(Heard { newest: newest as u16, before: (mask >> 1) as u16, waited_ms })
    }

    /// The other end says which probes of ours came.
    fn confirm(&mut self, now: Instant, heard: &Heard) {
        let back = self.next.wrapping_sub(1).wrapping_sub(u32::from(heard.newest)) & 0xffff;
        let Some(index) = (self.sent.len() as u32).checked_sub(back + 1) else { return };
        let Some(at) = self.sent.get(index as usize).copied() else { return };
        let number = self.next.wrapping_sub(1).wrapping_sub(back);
        // Bit 0 of `came` stands for the probe `back` before the newest one of ours.
        let came = u128::from(heard.before) << 1 | 1;
        self.confirmed |= came << back;
        if self.newest.is_some_and(|newest| newest.wrapping_sub(number) < 1 << 31) {
            return;
        }
        self.newest = Some(number);
        let rtt = now.since(at).saturating_sub(Duration::from_millis(heard.waited_ms.into()));
        if heard.waited_ms == u8::MAX {
            return;
        }
        match self.rtt {
            None => self.rtt = Some(rtt),
            Some(smooth) => {
                self.spread = (self.spread * 3 + smooth.abs_diff(rtt)) / 4;
                self.rtt = Some((smooth * 7 + rtt) / 8);
            }
        }
    }

    /// How much longer than a round trip the oldest unconfirmed probe after the newest confirmed one has waited; none before any was
    /// confirmed.
    fn late(&self, now: Instant) -> Option<Duration> {
        let back = self.next.wrapping_sub(self.newest?.wrapping_add(1));
        if back == 0 {
            return Some(Duration::ZERO);
        }
        let index = (self.sent.len() as u32).checked_sub(back);
        let sent = index.and_then(|n| self.sent.get(n as usize)).or(self.sent.front())?;
        Some(now.since(*sent).saturating_sub(self.rtt.unwrap_or_default() + self.spread * 2))
    }

    /// Of the latest probes that have had time to be confirmed: those that were not.
    fn lost(&self, now: Instant) -> u32 {
        let waited = self.rtt.unwrap_or_default() + self.spread * 4 + MOVE;
        let open = self.sent.iter().rev().take_while(|at| now.since(**at) < waited).count() as u32;
        let settled = (self.sent.len() as u32).saturating_sub(open).min(WINDOW);
        if self.newest.is_none() || open >= u128::BITS {
            return 0;
        }
        let mask = if settled >= 64 { u128::from(u64::MAX) } else { (1 << settled) - 1 };
        settled - (self.confirmed >> open & mask).count_ones()
    }
}
