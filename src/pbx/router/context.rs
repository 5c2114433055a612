//! One response context (RFC 3261 section 16): a request, its branches, and what came back.

use super::best::{self, Final};
use super::pass;
use super::path::{self, Side};
use super::{BranchId, Core, Output, Timer};
use crate::core::{Flow, Instant};
use crate::pbx::target::keeps_flow;
use crate::pbx::{Candidate, Target};
use crate::sip::msg::{HeaderName, Message, Uri};
use crate::sip::tx::{COMPLETED_ELSEWHERE, ClientTxId, ServerTxId};
use std::collections::VecDeque;
use std::time::Duration;

/// A request on its way.
pub(super) struct Context {
    pub id: u64,
    pub server: ServerTxId,
    pub invite: bool,
    /// The request without our part of its way, as each branch starts from it; gone once answered.
    template: Option<Message>,
    mark: String,
    /// The Request-URI of a branch is the target's.
    rewrite: bool,
    /// A phone's request for whoever holds its account: the first that is there.
    edge: bool,
    /// Our side towards the caller; outer none where no Record-Route is written.
    record: Option<Option<Side>>,
    /// RFC 5393: branches at a time, here and behind.
    breadth: u32,
    tell_breadth: bool,
    waiting: VecDeque<Candidate>,
    branches: Vec<Branch>,
    finals: Vec<Final>,
    /// No branch is added any more.
    closed: bool,
    cancelled: bool,
    /// Why the branches are cancelled, in the words of RFC 3326.
    pub reason: Option<Box<str>>,
    pub answered: bool,
    /// Kept for more 2xx until then.
    pub linger: Option<Instant>,
}

struct Branch {
    client: Option<ClientTxId>,
    state: State,
    /// Sent to a registered flow.
    to_flow: bool,
    cancelled: bool,
    /// Timer C ended it: whatever it says counts as 408.
    expired: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    Done,
}

/// What a context starts from.
pub(super) struct Start {
    pub template: Message,
    pub mark: String,
    pub record: Option<Option<Side>>,
}

impl Context {
    pub fn new(id: u64, server: ServerTxId, invite: bool, start: Start) -> Context {
        let told = start.template.header(HeaderName::Other("Max-Breadth")).map(|v| v.trim().parse::<u32>());
        Context {
            id,
            server,
            invite,
            template: Some(start.template),
            mark: start.mark,
            rewrite: false,
            edge: false,
            record: start.record,
            // An unreadable breadth is none, which ends the request here.
            breadth: told.as_ref().map_or(BREADTH, |n| n.as_ref().map_or(0, |n| (*n).min(BREADTH))),
            tell_breadth: told.is_some(),
            waiting: VecDeque::new(),
            branches: Vec::new(),
            finals: Vec::new(),
            closed: false,
            cancelled: false,
            reason: None,
            answered: false,
            linger: None,
        }
    }

    /// Sends the request where it says itself.
    pub fn follow(&mut self, core: &mut Core, now: Instant, target: Target) {
        self.waiting.push_back(target.into());
        self.settle(core, now);
    }

    /// Sends the request to what was found for it, the best liked first.
    pub fn fork(&mut self, core: &mut Core, now: Instant, found: Vec<Candidate>) {
        self.rewrite = true;
        let mut targets: Vec<Candidate> = Vec::new();
        for candidate in found {
            if targets.len() >= core.config.max_targets {
                core.counters.targets_dropped += 1;
            } else if !targets.iter().any(|t| t.target == candidate.target) {
                targets.push(candidate);
            }
        }
        targets.sort_by_key(|t| std::cmp::Reverse(t.q));
        self.waiting = targets.into();
        self.settle(core, now);
    }

    /// Sends a phone's request on to whoever holds its account, the next where one is not there.
    pub fn carry(&mut self, core: &mut Core, now: Instant, adapters: Vec<Candidate>) {
        self.edge = true;
        self.waiting = adapters.into();
        self.settle(core, now);
    }

    /// The caller gives up.
    pub fn cancel(&mut self, core: &mut Core, now: Instant) {
        if self.answered {
            return;
        }
        self.cancelled = true;
        if self.branches.is_empty() {
            return self.answer_with(core, 487, "Request Terminated");
        }
        self.stop(core, now);
        self.settle(core, now);
    }

    /// The node sent a branch.
    pub fn sent(&mut self, core: &mut Core, index: u16, client: ClientTxId) {
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if branch.state == State::Done {
            // It was given up while it was on its way out.
            core.say(Output::Cancel { tx: client, reason: self.reason.clone() });
            return;
        }
        if let Some(old) = branch.client.replace(client) {
            // It was sent again another way (RFC 3261 section 18.1.1).
            core.by_client.remove(&old);
        }
        if branch.cancelled {
            core.say(Output::Cancel { tx: client, reason: self.reason.clone() });
        }
        core.by_client.insert(client, BranchId { context: self.id, index });
    }

    /// A response, our Via still on top.
    pub fn respond(&mut self, core: &mut Core, now: Instant, index: u16, mut message: Message) {
        message.remove_first_value(HeaderName::Via);
        let status = message.status();
        let id = BranchId { context: self.id, index };
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if !message.has(HeaderName::Via) || (branch.state == State::Done && !(self.invite && status / 100 == 2)) {
            core.counters.responses_dropped += 1;
            return;
        }
        match status {
            ..=100 => {}
            101..200 => {
                branch.state = State::Proceeding;
                if self.invite && !branch.cancelled {
                    core.timers.set(Timer::Branch(id), now + core.config.timer_c);
                }
                if !self.answered {
                    core.say(Output::Respond { tx: self.server, message });
                }
            }
            200..300 => {
                core.timers.cancel(&Timer::Branch(id));
                branch.state = State::Done;
                if self.invite {
                    self.linger = Some(now + core.config.linger);
                } else if self.answered {
                    return;
                }
                self.answered = true;
                self.template = None;
                self.finals.clear();
                self.reason = Some(COMPLETED_ELSEWHERE.into());
                self.stop(core, now);
                core.say(Output::Respond { tx: self.server, message });
            }
            _ => {
                let end = if branch.expired {
                    Final { status: 408, message: None }
                } else {
                    Final { status, message: Some(message) }
                };
                self.end(core, now, index, end);
            }
        }
    }

    /// The branch ended without a response: 408, or 503 where it could not be sent.
    pub fn fail(&mut self, core: &mut Core, now: Instant, index: u16, status: u16) {
        let Some(branch) = self.branches.get(usize::from(index)).filter(|b| b.state != State::Done) else { return };
        // The flow of a registered phone is gone: it is not there, and nothing is wrong with us (RFC 5626 section 5.3).
        let status = if status == 503 && branch.to_flow { 480 } else { status };
        let status = if self.cancelled { 487 } else { status };
        self.end(core, now, index, Final { status, message: None });
    }

    /// Timer C, or the end of patience with a branch that was cancelled or is not an INVITE's.
    pub fn expire(&mut self, core: &mut Core, now: Instant, index: u16) {
        let id = BranchId { context: self.id, index };
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        match branch.client {
            Some(tx) if self.invite && !branch.cancelled && branch.state == State::Proceeding => {
                branch.cancelled = true;
                branch.expired = true;
                core.timers.set(Timer::Branch(id), now + CANCELLED);
                core.say(Output::Cancel { tx, reason: self.reason.clone() });
            }
            Some(tx) => {
                if self.invite && !branch.cancelled {
                    core.say(Output::Cancel { tx, reason: self.reason.clone() });
                }
                self.fail(core, now, index, 408);
            }
            None => self.fail(core, now, index, 503),
        }
    }

    /// Ends the request with a response of our own, if it has none yet.
    pub fn answer_with(&mut self, core: &mut Core, status: u16, reason: &str) {
        if let Some(response) = self.template.as_ref().map(|request| core.reply(request, status, reason)) {
            self.answer(core, response);
        }
    }

    /// Ends the request with this response, if it has none yet.
    pub fn answer(&mut self, core: &mut Core, response: Message) {
        if !self.answered {
            self.answered = true;
            self.template = None;
            core.say(Output::Respond { tx: self.server, message: response });
        }
    }

    /// The request as branches start from it, until it is answered.
    pub fn request(&self) -> Option<&Message> {
        self.template.as_ref()
    }

    /// True once nothing can come any more that somebody waits for.
    pub fn is_over(&self) -> bool {
        self.answered && self.linger.is_none() && self.all_done()
    }

    /// True when every branch has ended.
    pub fn all_done(&self) -> bool {
        self.branches.iter().all(|b| b.state == State::Done)
    }

    /// Lets go of what the context still holds elsewhere.
    pub fn release(&self, core: &mut Core) {
        for (index, branch) in (0u16..).zip(&self.branches) {
            core.timers.cancel(&Timer::Branch(BranchId { context: self.id, index }));
            if let Some(client) = branch.client {
                core.by_client.remove(&client);
            }
        }
    }

    fn end(&mut self, core: &mut Core, now: Instant, index: u16, end: Final) {
        let id = BranchId { context: self.id, index };
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        let silent = std::mem::replace(&mut branch.state, State::Done) == State::Calling && end.message.is_none();
        core.timers.cancel(&Timer::Branch(id));
        if self.answered {
            return;
        }
        // Only who is not there leaves a phone to the next that holds its account.
        let nobody_else = end.status >= 600 || (self.edge && !silent && !matches!(end.status, 430 | 503));
        self.finals.push(end);
        if nobody_else {
            self.stop(core, now);
        }
        self.settle(core, now);
    }

    /// No new branches, and an end to those that ring.
    fn stop(&mut self, core: &mut Core, now: Instant) {
        self.closed = true;
        self.waiting.clear();
        if !self.invite {
            return;
        }
        for (index, branch) in (0u16..).zip(&mut self.branches) {
            if branch.state == State::Done || branch.cancelled {
                continue;
            }
            let id = BranchId { context: self.id, index };
            branch.cancelled = true;
            match branch.client {
                Some(tx) => {
                    core.timers.set(Timer::Branch(id), now + CANCELLED);
                    core.say(Output::Cancel { tx, reason: self.reason.clone() });
                }
                None => {
                    branch.state = State::Done;
                    core.timers.cancel(&Timer::Branch(id));
                    self.finals.push(Final { status: 487, message: None });
                }
            }
        }
    }

    /// When all branches have ended: the next group, or the answer.
    fn settle(&mut self, core: &mut Core, now: Instant) {
        if self.answered || !self.all_done() {
            return;
        }
        if !self.closed && !self.waiting.is_empty() {
            return self.start_group(core, now);
        }
        let Some(chosen) = best::choose(&self.finals, self.cancelled) else {
            return self.answer_with(core, 480, "Temporarily Unavailable");
        };
        let end = self.finals.swap_remove(chosen);
        match (end.message, end.status) {
            // A 503 would tell the caller to leave this proxy alone for a while (16.7 step 6).
            (_, 503) => self.answer_with(core, 500, "Server Internal Error"),
            (None, 430) => self.answer_with(core, 430, "Flow Failed"),
            (None, 480) => self.answer_with(core, 480, "Temporarily Unavailable"),
            (None, 487) => self.answer_with(core, 487, "Request Terminated"),
            (None, _) if self.invite => self.answer_with(core, 408, "Request Timeout"),
            (None, _) => {
                // Whoever waited for it has given up at the same time; a 408 would only be a stray (RFC 4320 section 4.2).
                self.answered = true;
                self.template = None;
                core.counters.left_unanswered += 1;
            }
            (Some(mut message), status) => {
                if matches!(status, 401 | 407) {
                    best::add_challenges(&mut message, &self.finals);
                }
                self.answer(core, message);
            }
        }
        self.finals.clear();
    }

    /// Sends to all that are liked best among those that wait, as far as the breadth reaches.
    fn start_group(&mut self, core: &mut Core, now: Instant) {
        let Some(q) = self.waiting.front().map(|c| c.q) else { return };
        let alike = self.waiting.iter().take_while(|c| c.q == q).count();
        let count = alike.min(self.breadth as usize);
        if count == 0 {
            self.closed = true;
            return self.answer_with(core, 440, "Max-Breadth Exceeded");
        }
        let share = self.breadth / count as u32;
        let forked = count > 1;
        for candidate in self.waiting.drain(..count).collect::<Vec<_>>() {
            self.send(core, now, candidate.target, (forked || self.tell_breadth).then_some(share));
        }
    }

    fn send(&mut self, core: &mut Core, now: Instant, target: Target, breadth: Option<u32>) {
        let Some(mut message) = self.template.clone() else { return };
        prepare(&mut message, &target, self.rewrite);
        if self.edge {
            path::send_from_edge(&mut message, target.uri());
        }
        if let Some(caller) = &self.record {
            let callee = core.side_to(&target);
            path::record(&mut message, caller.as_ref(), callee.as_ref(), &core.passes);
        }
        if let Some(share) = breadth {
            message.set(HeaderName::Other("Max-Breadth"), share);
        }
        let id = BranchId { context: self.id, index: self.branches.len() as u16 };
        let patience = if self.invite { core.config.timer_c } else { core.config.linger + Duration::from_secs(8) };
        core.timers.set(Timer::Branch(id), now + patience);
        let to_flow = matches!(target, Target::Flow { .. });
        self.branches.push(Branch { client: None, state: State::Calling, to_flow, cancelled: false, expired: false });
        core.counters.forwarded += 1;
        let via_branch = pass::branch(&mut core.rng, &self.mark);
        core.say(Output::Forward { branch: id, message, target, via_branch });
    }
}

/// Gives a request its Request-URI for a target and makes it fit for the next hop.
pub(super) fn prepare(message: &mut Message, target: &Target, rewrite: bool) {
    if rewrite && message.request_uri() != target.uri() {
        match Uri::parse(target.uri()) {
            // Neither belongs into a Request-URI (RFC 3261 section 19.1.1, table 1).
            Ok(mut uri) if !uri.headers.is_empty() || uri.params.has("method") => {
                uri.headers.clear();
                uri.params.remove("method");
                message.set_request_uri(&uri.to_string());
            }
            _ => message.set_request_uri(target.uri()),
        }
    }
    message.set_content_length();
}

/// Our side towards whoever sent `request` in clear: with its flow where only that leads back.
pub(super) fn pinned(request: &Message, flow: &Flow) -> Option<Flow> {
    // With another proxy in between, the way back is that proxy's to record.
    let mut vias = request.values(HeaderName::Via);
    let direct = vias.next().is_some() && vias.next().is_none();
    let contact = request.values(HeaderName::Contact).next()?;
    let contact = crate::sip::msg::NameAddr::parse(contact).ok()?;
    let via = request.via().ok();
    (direct && keeps_flow(&contact.uri, via.as_ref(), flow)).then_some(*flow)
}

/// How long a cancelled branch may take to end: its transaction gives it 64*T1 too.
const CANCELLED: Duration = Duration::from_secs(40);
/// Max-Breadth of a request that brings none (RFC 5393 section 5.3.3.2).
const BREADTH: u32 = 60;
