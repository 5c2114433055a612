//! A lease asked for: the responsible peer is found and asked; where it cannot say yet it is asked again, until the deadline.

use super::Chord;
use super::lease::Asker;
use super::lookup::{Found, Goal, Op};
use super::rpc::Why;
use crate::core::{Id, Instant};
use crate::identity::{EntryKind, SignedEntry};
use crate::overlay::{
    Lease, LeaseAnswer, LeaseError, LookupError, Mode, OpId, Output, Request, Response, Route, Trace,
};

/// The responsible peer asks others before it answers.
const PATIENCE: u32 = 2;
/// What the holder does not count on, of the time that it was granted.
const MARGIN: u32 = 64;

/// A request under way.
pub(super) struct Want {
    pub entry: SignedEntry,
    /// The last answer that was no decision.
    why: Option<LeaseError>,
}

impl Chord {
    pub(super) fn lease(&mut self, now: Instant, op: OpId, key: Id, entry: SignedEntry) {
        let unix = self.unix(now);
        let good = entry.entry().kind == EntryKind::LEASE && self.verify.verify(&entry, &key, unix);
        let error = match self.admit_op() {
            Err(error) => Some(LeaseError::Lookup(error)),
            Ok(()) if !good => Some(LeaseError::Invalid),
            Ok(()) => None,
        };
        match error {
            Some(error) => {
                self.out.push_back(Output::LeaseDone { op, result: Err(error), trace: Trace::default() });
            }
            None => drop(self.start(now, Goal::Lease { op, want: Want { entry, why: None } }, key, Mode::Auto)),
        }
    }

    pub(super) fn lease_found(&mut self, now: Instant, id: u64, op: Box<Op>, found: &Found) {
        let Goal::Lease { want, .. } = &op.goal else { return };
        let (entry, key, epoch) = (want.entry.clone(), op.target, op.epoch);
        self.ops.insert(id, op);
        if found.owner.id == self.table.me.id {
            return self.ask_lease(now, key, entry, Asker::Own(id, now));
        }
        let wait = (self.patience(&found.owner.id) + self.config.rpc_first) * PATIENCE;
        let request = Request::Lease { key, entry: Box::new(entry), vote: None, route: Route::Iterative };
        self.send_within(now, found.owner, true, request, Why::Lease { op: id, epoch }, wait);
    }

    /// The responsible peer's answer to what was asked at `sent`; `epoch`: of which round, where that matters.
    pub(super) fn on_leased(
        &mut self,
        now: Instant,
        id: u64,
        epoch: Option<u8>,
        sent: Instant,
        response: Option<Response>,
    ) {
        let Some(mut op) = self.ops.remove(&id) else { return };
        let late = epoch.is_some_and(|e| e != op.epoch);
        let (key, unix) = (op.target, self.unix(now));
        let Goal::Lease { op: name, want } = &mut op.goal else { return };
        let name = *name;
        let result = match response {
            // Counted from the moment of asking: from then on the others count, or later.
            Some(Response::Lease(LeaseAnswer::Granted { fence, left })) => {
                Some(Ok(Lease { fence, until: sent + (left - left / MARGIN) }))
            }
            Some(Response::Lease(LeaseAnswer::Held { entry, left, .. })) if self.verify.verify(&entry, &key, unix) => {
                Some(Err(LeaseError::Held { entry, left }))
            }
            Some(Response::Failed(failure)) if failure.is_final() => Some(Err(LeaseError::Invalid)),
            Some(Response::Lease(LeaseAnswer::Later { left })) => {
                want.why = Some(LeaseError::Unsure { left });
                let long = left > self.config.op_deadline;
                long.then_some(Err(LeaseError::Unsure { left }))
            }
            _ => None,
        };
        match result {
            Some(result) => {
                let trace = op.trace(now);
                self.forget_op(id);
                self.out.push_back(Output::LeaseDone { op: name, result, trace });
            }
            None if late => drop(self.ops.insert(id, op)),
            None => {
                op.retries = op.retries.saturating_add(1);
                self.put_off(now, id, op);
            }
        }
    }

    /// Nobody has decided in time.
    pub(super) fn lease_expired(&mut self, now: Instant, op: &Op) {
        let Goal::Lease { op: name, want } = &op.goal else { return };
        self.counters.lookups_failed += 1;
        let error = want.why.clone().unwrap_or(LeaseError::Lookup(LookupError::Deadline));
        self.out.push_back(Output::LeaseDone { op: *name, result: Err(error), trace: op.trace(now) });
    }
}
