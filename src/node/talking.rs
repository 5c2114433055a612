//! What is done with a call under way: hold, resume, mute, digits, transfer; and where a call goes that another end sends on.

use super::Node;
use super::calls::Callee;
use super::control::{CommandError, Event, Reply, RequestId};
use crate::core::Instant;
use crate::ua::{CallId, ReferredCall, State};
use std::collections::{BTreeMap, VecDeque};

type Answer = Result<Reply, CommandError>;

/// Commands that wait for the other end of a call.
#[derive(Debug, Default)]
pub(super) struct Talking {
    holds: BTreeMap<CallId, VecDeque<(bool, RequestId)>>,
    transfers: BTreeMap<CallId, RequestId>,
}

impl Node {
    /// Puts the other end on hold or takes it back; answered when it has agreed.
    pub(super) fn command_hold(&mut self, now: Instant, request: RequestId, call: Option<u64>, hold: bool) {
        match self.pick(call, &[State::Answered], "is answered") {
            Ok(call) => {
                self.talking.holds.entry(call).or_default().push_back((hold, request));
                self.ua.hold(now, call, hold);
            }
            Err(e) => self.reply(request, Err(e)),
        }
    }

    pub(super) fn on_hold_answered(&mut self, call: CallId, hold: bool, result: Result<(), (u16, String)>) {
        let Some(waiting) = self.talking.holds.get_mut(&call) else { return };
        // A later wish goes before one that waited; whoever wished otherwise is told.
        let at = waiting.iter().position(|(wish, _)| *wish == hold).map_or(0, |at| at + 1);
        let settled: Vec<_> = waiting.drain(..at).collect();
        if waiting.is_empty() {
            self.talking.holds.remove(&call);
        }
        let word = |hold| if hold { "on hold" } else { "resumed" };
        for (wish, request) in settled {
            let answer = match &result {
                Ok(()) if wish == hold => Ok(Reply::Done { done: format!("call {} is {}", call.0, word(hold)) }),
                Ok(()) => Err(CommandError::new(
                    format!("call {} is not {}: it was asked otherwise since", call.0, word(wish)),
                    "see `chordial calls`",
                )),
                Err((status, reason)) => Err(CommandError::new(
                    format!("call {} is not {}: the other end says {status} {reason}", call.0, word(wish)),
                    "see `chordial calls`; `chordial mute` needs nobody's consent",
                )),
            };
            self.reply(request, answer);
        }
    }

    /// A call is over: nothing of it is waited for any longer.
    pub(super) fn talk_ended(&mut self, call: CallId) {
        for (_, request) in self.talking.holds.remove(&call).unwrap_or_default() {
            let what = format!("call {} is over", call.0);
            self.reply(request, Err(CommandError::new(what, "see `chordial calls`")));
        }
    }

    pub(super) fn command_mute(&mut self, call: Option<u64>, off: bool) -> Answer {
        let call = self.pick(call, &[State::Answered], "is answered")?;
        self.ua.mute(call, !off);
        Ok(Reply::Done { done: format!("call {} is {}", call.0, if off { "heard again" } else { "muted" }) })
    }

    pub(super) fn command_dtmf(&mut self, call: Option<u64>, digits: &str) -> Answer {
        let wrong = digits.chars().find(|c| !"0123456789*#ABCDabcd".contains(*c));
        if digits.is_empty() || wrong.is_some() || digits.len() > 64 {
            return Err(CommandError::new(
                format!("\"{digits}\" are no DTMF digits"),
                "use 0-9, *, #, A-D, 64 at most",
            ));
        }
        let call = self.pick(call, &[State::Answered], "is answered")?;
        for digit in digits.to_ascii_uppercase().chars() {
            self.ua.dtmf(call, digit);
        }
        Ok(Reply::Done { done: format!("sent {digits} in call {}", call.0) })
    }

    /// A digit of the other end, whichever way it came.
    pub(super) fn on_digit(&mut self, call: CallId, digit: char) {
        let request = self.calls.command_of(call);
        self.event(request, Event::Dtmf { call: call.0, digit });
    }

    /// Transfers the other end of a call; answered when that is done.
    pub(super) fn command_transfer(
        &mut self,
        now: Instant,
        request: RequestId,
        call: Option<u64>,
        target: Option<&str>,
        attended: Option<u64>,
    ) {
        match self.transfer(now, call, target, attended) {
            Ok(call) => _ = self.talking.transfers.insert(call, request),
            Err(e) => self.reply(request, Err(e)),
        }
    }

    fn transfer(
        &mut self,
        now: Instant,
        call: Option<u64>,
        target: Option<&str>,
        attended: Option<u64>,
    ) -> Result<CallId, CommandError> {
        let other = attended.map(|other| self.pick(Some(other), &[State::Answered], "is answered")).transpose()?;
        // Of two calls it is the one that is not transferred to.
        let answered = self.ua.summaries(now).into_iter().filter(|s| s.state == State::Answered).map(|s| s.call);
        let rest: Vec<_> = answered.filter(|c| Some(*c) != other).collect();
        let call = match (call, rest.as_slice()) {
            (None, [only]) => *only,
            (call, _) => self.pick(call, &[State::Answered], "is answered")?,
        };
        let to = match (target, other) {
            (Some(target), None) => match self.callee(target)? {
                Callee::Aor { aor, .. } => aor,
                Callee::Outside(uri) | Callee::Account(_, uri) => uri.to_string(),
            },
            (None, Some(other)) => self.refer_to(now, other),
            _ => {
                let what = "a transfer goes to a TARGET or to the other end of a second call";
                return Err(CommandError::new(what, "name a TARGET, or --attended CALL"));
            }
        };
        if !self.ua.transfer(now, call, to, other) {
            let what = format!("call {} is being transferred already, or to itself", call.0);
            return Err(CommandError::new(what, "see `chordial calls`"));
        }
        Ok(call)
    }

    /// How others reach the other end of a call: a member of this overlay by its address, anybody else by its Contact.
    fn refer_to(&self, now: Instant, call: CallId) -> String {
        let with = self.ua.summaries(now).into_iter().find(|s| s.call == call).map(|s| s.with).unwrap_or_default();
        match self.callee(&with) {
            Ok(Callee::Aor { aor, .. }) => aor,
            _ => self.ua.contact_of(call).unwrap_or(with),
        }
    }

    pub(super) fn on_transfer_answered(&mut self, call: CallId, result: Result<(), (u16, String)>) {
        let Some(request) = self.talking.transfers.remove(&call) else { return };
        let answer = match result {
            Ok(()) => Ok(Reply::Done { done: format!("transferred call {}", call.0) }),
            Err((status, reason)) => Err(CommandError::new(
                format!("call {} was not transferred: {status} {reason}", call.0),
                "the call is still here unless its other end has hung up; see `chordial calls`",
            )),
        };
        self.reply(request, answer);
    }

    /// The other end of a call wants this one to call somebody else.
    pub(super) fn on_referred(&mut self, now: Instant, parent: CallId, to: &str, referred: ReferredCall) {
        let callee = match self.callee(to) {
            Ok(callee) => callee,
            Err(_) => return self.ua.referral_failed(parent, 404, "Not Found"),
        };
        let with = match &callee {
            Callee::Aor { aor, .. } => aor.clone(),
            Callee::Outside(uri) => uri.to_string(),
            // An account is its user's: nobody else has calls placed, and paid, by it.
            Callee::Account(..) => {
                self.count("transfers to numbers outside refused");
                return self.ua.referral_failed(parent, 403, "Forbidden");
            }
        };
        let call = self.ua.place_referred(now, parent, with.clone(), referred);
        self.event(self.calls.command_of(parent), Event::Transferred { call: parent.0, to: with, by: call.0 });
        self.seek(now, call, callee);
    }

    /// A call that was placed is sent elsewhere.
    pub(super) fn on_redirected(&mut self, now: Instant, call: CallId, to: &str) {
        // Who was known as the callee is not whom it goes to now.
        self.calls.forget_callee(call);
        let by = self.ua.summaries(now).into_iter().find(|s| s.call == call).and_then(|s| s.account);
        match self.callee(to) {
            // Its own registrar may say where a call of an account goes; nobody else may put one on an account.
            Ok(Callee::Account(account, _)) if by != Some(account) => {
                self.count("redirections to numbers outside refused");
                self.ua.give_up(now, call, 403, format!("the other end wants {to} called instead, which only you may"));
            }
            Ok(Callee::Outside(uri)) if by.is_some() => {
                self.seek(now, call, by.map_or(Callee::Outside(uri.clone()), |by| Callee::Account(by, uri)));
            }
            Ok(callee) => self.seek(now, call, callee),
            Err(e) => self.ua.give_up(now, call, 404, e.what),
        }
    }
}
