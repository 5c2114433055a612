//! Leases for whoever in this node needs to be the only one: a parked call's place, a place in a queue, a trunk's registration.
//!
//! What is wanted is asked for, renewed at half of its time, and asked for again when another has had it; success and loss are
//! events ([`Event::Lease`]). Whoever acts under a lease looks at [`Node::lease`] right before: it ends by itself.

use super::Node;
use super::control::Event;
use super::lookup::Op;
use super::ring::State;
use crate::core::{Instant, TimerQueue};
use crate::identity::{Entry, EntryKind, IdentityError, LEASE_LIFETIME, LeaseBody, SignedEntry, lease_aor, split_aor};
use crate::overlay::{self, Command, Lease, LeaseError, OpId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Leases wanted at once.
const MOST: usize = 128;
/// Between two attempts, at least and at most.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(20);

/// What this node wants to be the only one for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    leases: BTreeMap<String, Want>,
    timers: TimerQueue<String>,
}

#[derive(Debug)]
struct Want {
    body: LeaseBody,
    sequence: u64,
    held: Option<Lease>,
    asking: bool,
    /// Who has it was told.
    told: bool,
    given_back: bool,
}

impl Wanted {
    pub fn next(&self) -> Option<Instant> {
        self.timers.next()
    }
}

impl Node {
    /// Wants the lease `what`.`name`, and goes on wanting it until [`Node::give_lease_back`]; its address.
    ///
    /// # Errors
    /// Where the name is none, or more are wanted than may be.
    pub fn want_lease(
        &mut self,
        now: Instant,
        what: &str,
        name: &str,
        span: Duration,
    ) -> Result<String, IdentityError> {
        let overlay = self.identity.as_ref().map(|i| i.overlay().to_owned()).ok_or(IdentityError::NotOurs)?;
        let aor = lease_aor(what, name, &overlay)?;
        if self.leases.leases.len() >= MOST && !self.leases.leases.contains_key(&aor) {
            return Err(IdentityError::TooLarge("list of leases"));
        }
        let body = LeaseBody::new(span);
        let sequence = self.unix(now).secs() * 1000;
        let fresh = Want { body, sequence, held: None, asking: false, told: false, given_back: false };
        let want = self.leases.leases.entry(aor.clone()).or_insert(fresh);
        (want.body, want.given_back) = (body, false);
        self.leases.timers.set(aor.clone(), now);
        Ok(aor)
    }

    /// Does not want it any more: the next one can have it.
    pub fn give_lease_back(&mut self, now: Instant, aor: &str) {
        if let Some(want) = self.leases.leases.get_mut(aor) {
            (want.held, want.given_back) = (None, true);
            self.leases.timers.set(aor.to_owned(), now);
        }
    }

    /// The lease, while this node has it.
    pub fn lease(&self, now: Instant, aor: &str) -> Option<Lease> {
        self.leases.leases.get(aor)?.held.filter(|lease| lease.until > now)
    }

    pub(super) fn lease_timeout(&mut self, now: Instant) {
        while let Some(aor) = self.leases.timers.pop(now) {
            self.ask_lease(now, &aor);
        }
        self.settle_shared(now);
    }

    fn ask_lease(&mut self, now: Instant, aor: &str) {
        self.lose_lease(now, aor);
        let ready = self.ring.state() == State::In;
        let Some(want) = self.leases.leases.get_mut(aor).filter(|w| !w.asking) else { return };
        if !ready {
            return self.leases.timers.set(aor.to_owned(), now + AGAIN_MIN);
        }
        want.sequence += 1;
        want.asking = true;
        let body = if want.given_back { Vec::new() } else { want.body.encode() };
        let sequence = want.sequence;
        match self.lease_entry(now, aor, sequence, body) {
            Some(entry) => {
                let op = OpId(self.ring.next());
                self.ring.ops.insert(op, Op::Lease { aor: aor.to_owned() });
                let key = entry.entry().resource_key();
                self.overlay_input(now, overlay::Input::Command(Command::Lease { op, key, entry }));
            }
            None => drop(self.leases.leases.remove(aor)),
        }
    }

    fn lease_entry(&self, now: Instant, aor: &str, sequence: u64, body: Vec<u8>) -> Option<SignedEntry> {
        let (identity, overlay) = (self.identity.as_ref()?, self.overlay.as_ref()?);
        let (kind, device, issued) = (EntryKind::LEASE, identity.device_key(), overlay.unix(now));
        let entry = Entry { kind, aor: aor.to_owned(), device, sequence, issued, lifetime: LEASE_LIFETIME, body };
        identity.sign_entry(entry).ok()
    }

    /// Its time is over.
    fn lose_lease(&mut self, now: Instant, aor: &str) {
        if let Some(want) = self.leases.leases.get_mut(aor)
            && want.held.take_if(|lease| lease.until <= now).is_some()
        {
            want.told = false;
            self.count("leases lost");
            self.event(None, Event::Lease { lease: aor.into(), held: false, token: 0, by: None, seconds: 0 });
        }
    }

    pub(super) fn on_lease_done(&mut self, now: Instant, op: OpId, result: Result<Lease, LeaseError>) {
        let Some(Op::Lease { aor }) = self.ring.ops.remove(&op) else { return };
        self.lose_lease(now, &aor);
        let Some(want) = self.leases.leases.get_mut(&aor) else { return };
        want.asking = false;
        if want.given_back {
            // Unless it was asked for when it was not wanted any more.
            return match result {
                Ok(lease) if lease.until > now => self.leases.timers.set(aor, now),
                _ => drop(self.leases.leases.remove(&aor)),
            };
        }
        let (again, event) = match result {
            Ok(lease) => {
                let new = want.held.is_none();
                (want.held, want.told) = (Some(lease), false);
                let seconds = lease.until.since(now).as_secs();
                let event = Event::Lease { lease: aor.clone(), held: true, token: lease.fence, by: None, seconds };
                (want.body.span() / 2, new.then_some(event))
            }
            Err(LeaseError::Held { entry, left }) => {
                // This node's own time was over by the others' clocks.
                want.held = None;
                let by = entry.chain().user_key().map(|key| key.to_string());
                let by = entry_owner(&entry).or(by);
                let seconds = left.as_secs();
                let event = Event::Lease { lease: aor.clone(), held: false, token: 0, by, seconds };
                (left, (!std::mem::replace(&mut want.told, true)).then_some(event))
            }
            Err(LeaseError::Unsure { left }) => (left, None),
            Err(LeaseError::Invalid | LeaseError::Lookup(_)) => (AGAIN_MIN, None),
        };
        let again =
            again.clamp(AGAIN_MIN, if self.lease(now, &aor).is_some() { again.max(AGAIN_MIN) } else { AGAIN_MAX });
        // The end of what is held is told when it comes, whatever else is waited for.
        let end = self.lease(now, &aor).map(|lease| lease.until);
        let at = end.map_or(now + again, |end| end.min(now + again));
        self.leases.timers.set(aor, at);
        if let Some(event) = event {
            self.event(None, event);
        }
        self.settle_shared(now);
    }
}

/// The user that a chain says.
fn entry_owner(entry: &SignedEntry) -> Option<String> {
    use crate::identity::Claims;
    let name = entry.chain().certificates().iter().find_map(|c| match &c.claims {
        Claims::User(names) => names.first().cloned(),
        _ => None,
    })?;
    let (_, overlay) = split_aor(&entry.entry().aor)?;
    Some(format!("sip:{name}@{overlay}"))
}
