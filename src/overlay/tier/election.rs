//! When a node becomes a supernode by itself, and when it steps down.
//!
//! **Up** (wish `auto`): it is wanted, others can reach it (a dial-back: another supernode opens a connection of its own to the
//! address that this node tells, and the very key answers), and it can bear it. It is wanted at once where the ring has fewer
//! than eight supernodes (replication needs them), else where the supernode that it hangs on is loaded and asks it; then it also
//! has to have been up for a while at this address, with memory and processor to spare and on mains.
//!
//! **Down**: it cannot be reached any more (two checks by different peers), it runs on battery, or the ring has far more than its
//! load needs: more than twice what is enough, nearly nobody attached here, and that for a while; then one node in eight at each
//! check, so that not all go at once. Never where eight would not remain.

use super::{Ask, Moving, Role, Tiered, Timer, Why, Wish};
use crate::core::Instant;
use crate::overlay::tier::Answer;
use crate::overlay::{Command, Input, JoinError, Output, PeerRef, Response};
use std::time::Duration;

/// From one look at the own role to the next.
pub(super) const CHECK: Duration = Duration::from_secs(600);
/// After a dial-back that failed, or a rise that did.
const AGAIN: Duration = Duration::from_secs(900);
/// How soon a supernode that nobody has dialled back asks for it.
const FIRST: Duration = Duration::from_secs(3);
/// How long a call for help counts.
const CALL: Duration = Duration::from_secs(3600);
/// How long a good dial-back counts.
const REACHED: Duration = Duration::from_secs(900);
/// How long a dial-back may take.
const DIAL_BACK: Duration = Duration::from_secs(12);
/// How long a supernode stays one at least.
const TERM: Duration = Duration::from_secs(1800);
/// Failed checks after which a supernode believes that it cannot be reached.
const UNREACHED: u8 = 2;

/// What a machine can bear, as it measures it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Processors.
    pub processors: u32,
    /// Memory that could be used, in MiB.
    pub memory: u64,
    /// Load average over a minute, in hundredths of one processor.
    pub load: u32,
    /// It runs on a battery.
    pub battery: bool,
}

/// What is known for the decision.
#[derive(Debug, Default)]
pub(super) struct Election {
    pub facts: Option<Facts>,
    /// Why the role is what it is, for a person.
    pub why: String,
    /// When the node first was in.
    up: Option<Instant>,
    /// When it became a supernode.
    rose: Option<Instant>,
    /// The latest dial-back.
    reached: Option<(bool, Instant)>,
    dialling: bool,
    /// The primary said so last: the ring is too small, nothing is waited for.
    pub small: bool,
    /// A supernode has called for help, and whether at once.
    called: Option<(Instant, bool)>,
    failures: u8,
    /// Not tried again before.
    pause: Option<Instant>,
}

impl Election {
    pub fn up(&mut self, now: Instant) {
        self.up.get_or_insert(now);
    }

    pub fn rose(&mut self, now: Instant, why: &str) {
        self.up.get_or_insert(now);
        self.rose = Some(now);
        (self.small, self.called, self.failures) = (false, None, 0);
        self.why = why.into();
    }

    /// A supernode that this node hangs on calls for help.
    pub fn called(&mut self, now: Instant, urgent: bool) {
        self.called = Some((now, urgent));
    }

    /// Whether the ring needs this node, and whether at once.
    fn wanted(&self, now: Instant) -> (bool, bool) {
        let called = self.called.filter(|(at, _)| now.since(*at) < CALL);
        (self.small || called.is_some(), self.small || called.is_some_and(|(_, urgent)| urgent))
    }
}

impl Tiered {
    /// Said in an attachment: this node could be a supernode, as far as it knows.
    pub(super) fn is_able(&self) -> bool {
        self.config.wish == Wish::Auto
            && self.config.may_be_supernode
            && self.election.facts.is_none_or(|f| !f.battery && self.lacks(&f).is_none())
            && self.election.reached.is_none_or(|(reached, _)| reached)
    }

    /// Decides whether to rise.
    pub(super) fn consider(&mut self, now: Instant) {
        if self.role != Role::Ordinary || self.moving != Moving::No || self.election.dialling {
            return;
        }
        match self.decision(now) {
            Decision::Stay(why) => {
                self.election.why = why;
                self.release();
            }
            Decision::Wait(why, until) => {
                self.election.why = why;
                self.timers.set(Timer::Elect, until);
                self.release();
            }
            Decision::DialBack => {
                let Some(primary) = self.client.primary.as_ref().map(|h| h.peer) else { return };
                self.election.why = "others are asked whether they can reach it".into();
                self.election.dialling = true;
                self.ask(now, Some(primary.id), primary.addr, Ask::DialBack, Why::DialBack, DIAL_BACK);
            }
            Decision::Rise => {
                let Some(bootstrap) = self.client.primary.as_ref().map(|h| h.peer.addr) else { return };
                self.election.why = "joining the ring".into();
                self.moving = Moving::Up;
                self.hand(now, Input::Command(Command::Join { bootstrap }));
            }
        }
    }

    fn decision(&self, now: Instant) -> Decision {
        let e = &self.election;
        let (config, me) = (&self.config, self.chord_me());
        if config.wish == Wish::Ordinary {
            return Decision::Stay("set by role = ordinary".into());
        }
        if !config.may_be_supernode {
            return Decision::Stay("this device has no certificate for a place on the ring".into());
        }
        if config.wish == Wish::Auto {
            if let Some(f) = e.facts.filter(|f| f.battery) {
                debug_assert!(f.battery);
                return Decision::Wait("it runs on a battery".into(), now + CHECK);
            }
            if let Some((false, at)) = e.reached
                && now.since(at) < AGAIN
            {
                return Decision::Wait(format!("others cannot reach it at {}", me.addr), at + AGAIN);
            }
            let (wanted, urgent) = e.wanted(now);
            if !wanted {
                return Decision::Stay("the ring has supernodes enough".into());
            }
            if let Some(until) = e.pause.filter(|at| *at > now) {
                return Decision::Wait("it could not join the ring".into(), until);
            }
            if !urgent && let Some(wait) = self.short_of(now) {
                return wait;
            }
            match e.reached {
                Some((true, at)) if now.since(at) < REACHED => {}
                _ => return Decision::DialBack,
            }
        }
        Decision::Rise
    }

    /// What a node lacks that nobody needs at once.
    fn short_of(&self, now: Instant) -> Option<Decision> {
        let since = self.election.up.unwrap_or(now);
        if now.since(since) < self.config.settled {
            return Some(Decision::Wait("it has not been up for long".into(), since + self.config.settled));
        }
        let why = match &self.election.facts {
            None => Some("what this machine can bear is not known yet".into()),
            Some(facts) => self.lacks(facts),
        };
        why.map(|why| Decision::Wait(why, now + CHECK))
    }

    fn lacks(&self, f: &Facts) -> Option<String> {
        if f.memory < self.config.min_memory {
            return Some(format!("{} MiB of free memory, {} are needed", f.memory, self.config.min_memory));
        }
        let loaded = f.load > self.config.max_load.saturating_mul(f.processors.max(1));
        loaded.then(|| format!("load {}.{:02} on {} processors", f.load / 100, f.load % 100, f.processors))
    }

    fn chord_me(&self) -> PeerRef {
        use crate::overlay::Overlay;
        self.chord.me()
    }

    pub(super) fn on_dialled_back(&mut self, now: Instant, response: Option<Response>) {
        self.election.dialling = false;
        let reached = match response {
            Some(Response::Tier(Answer::Reachable(reached))) => reached,
            // Nobody could say; a supernode does not take that for an answer.
            _ if self.role == Role::Supernode => return,
            _ => {
                self.election.pause = Some(now + Duration::from_secs(60));
                self.timers.set(Timer::Elect, now + Duration::from_secs(60));
                self.election.why = "nobody could say whether others reach it".into();
                return self.release();
            }
        };
        self.election.reached = Some((reached, now));
        if self.role != Role::Supernode {
            return self.consider(now);
        }
        self.election.failures = if reached { 0 } else { self.election.failures + 1 };
        if !reached && self.election.failures < UNREACHED {
            self.timers.set(Timer::Elect, now + Duration::from_secs(5));
        } else if !reached {
            self.step_down(now, format!("others cannot reach it at {}", self.chord_me().addr));
        }
    }

    pub(super) fn on_elect(&mut self, now: Instant) {
        if self.role != Role::Supernode {
            return self.consider(now);
        }
        self.timers.set(Timer::Elect, now + CHECK);
        self.call_one(now);
        if self.config.wish != Wish::Auto || self.moving != Moving::No {
            return;
        }
        if self.election.facts.is_some_and(|f| f.battery) {
            return self.step_down(now, "it runs on a battery".into());
        }
        if self.election.rose.is_some_and(|at| now.since(at) >= TERM)
            && self.ring_size() > self.config.enough * 2
            && self.service.attached.len() * 10 < usize::from(self.config.capacity)
            && self.rng.below(8) == 0
        {
            return self.step_down(now, "the ring has supernodes enough".into());
        }
        let others = self.supernodes();
        if !others.is_empty() && !self.election.dialling {
            let by = others[self.rng.below(others.len() as u64) as usize];
            self.election.dialling = true;
            self.ask(now, Some(by.id), by.addr, Ask::DialBack, Why::DialBack, DIAL_BACK);
        }
    }

    /// A supernode that nobody has dialled back yet (it founded the ring, or was alone) asks for it once there is somebody.
    pub(super) fn check_soon(&mut self, now: Instant) {
        let unproven = self.election.reached.is_none() && !self.election.dialling;
        let at = now + FIRST;
        if self.role == Role::Supernode
            && self.config.wish == Wish::Auto
            && unproven
            && !self.supernodes().is_empty()
            && self.timers.deadline(&Timer::Elect).is_none_or(|set| set > at)
        {
            self.timers.set(Timer::Elect, at);
        }
    }

    /// Hands its records over and becomes an ordinary node, if there is anybody to hang on.
    fn step_down(&mut self, now: Instant, why: String) {
        let others = self.supernodes();
        if others.is_empty() {
            return;
        }
        self.election.why = why;
        self.moving = Moving::Down;
        self.say_farewell(now);
        let by = others[self.rng.below(others.len() as u64) as usize];
        // It hangs on one before it lets go of the ring.
        self.start(now, by.addr);
        if let Some(start) = &mut self.client.starting {
            start.never_give_up();
        }
        self.hand(now, Input::Command(Command::Leave));
    }

    pub(super) fn on_stepped_down(&mut self, now: Instant) {
        self.role = Role::Ordinary;
        self.moving = Moving::No;
        self.election.rose = None;
        self.election.pause = Some(now + AGAIN);
        self.timers.set(Timer::Elect, now + AGAIN);
        if self.client.primary.is_some() {
            self.out.push_back(Output::Hanging { via: self.client.via() });
        }
        self.seek(now);
    }

    /// The ring did not take it: it stays what it was.
    pub(super) fn on_rise_failed(&mut self, now: Instant, why: JoinError) {
        self.moving = Moving::No;
        self.election.pause = Some(now + Duration::from_secs(60));
        self.timers.set(Timer::Elect, now + Duration::from_secs(60));
        self.election.why = format!("could not join the ring: {why}");
        self.release();
    }
}

enum Decision {
    Stay(String),
    Wait(String, Instant),
    DialBack,
    Rise,
}
