//! The stateful proxy (RFC 3261 section 16): takes requests from transactions, asks where they go, sends copies,
//! brings the best answer back.
//!
//! - Validation (16.3): 400, 416, 483, 482 by a keyed mark in our branches (spirals pass), 420 for Proxy-Require.
//!   Any method is carried; credentials and their 407 are [`policy`](super::policy)'s.
//! - The way (16.4): our entries are popped, those of a strict router before us too; a dialog that went through here
//!   proves itself by the pass in our Record-Route and goes on, over the flow that the pass names where the far end
//!   hangs on one (RFC 5626 section 5.2).
//! - Targets (16.5): our own domain's users by [`Output::Resolve`]; everything else where its Route or Request-URI leads.
//!   No open relay: who is no member reaches users hosted here and its own dialogs, else 403.
//! - Forwarding (16.6): parallel within one `q`, then the next lower; Record-Route on what opens a dialog, doubled
//!   where the two sides meet us at different places or both need their flow (RFC 5658); Max-Breadth (RFC 5393).
//! - Responses (16.7 to 16.9): provisional and 2xx at once, the rest when all have ended; a 6xx or a 2xx ends the other
//!   branches; a 503 becomes 500; challenges are gathered; no 408 for anything but INVITE (RFC 4320). Timer C.
//! - An ACK for a 2xx has no transaction and is forwarded without state, also that of a caller who ignores
//!   Record-Route and names the AOR again.
//!
//! The node pushes the Via, since it alone knows which of its sockets sends; with [`Output::Forward`]'s branch.
//!
//! Left out: recursion on 3xx (the caller gets it), `maddr`, `sips:` (416: not every hop here is TLS), forwarding a
//! CANCEL or a response that belongs to no transaction (RFC 6026 forbids the latter), Record-Route inside dialogs. A pass
//! lets both ends of a dialog send requests of that dialog to any remote target, as RFC 3261 lets them.

mod best;
mod context;
mod output;
mod pass;
mod path;
mod plan;
#[cfg(test)]
mod tests;

pub use output::{BranchId, Config, Counters, Link, Output, QueryId, Resolution, Scope};

use super::{Domain, Origin, Target};
use crate::core::{Flow, Instant, Queue, Rng, TimerQueue};
use crate::sip::msg::{HeaderName, Message, Method};
use crate::sip::tx::{ClientTxId, ServerTxId};
use context::{Context, Start};
use pass::Passes;
use plan::{Plan, Refusal};
use std::collections::{HashMap, VecDeque};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Timer {
    Query(u64),
    Branch(BranchId),
}

/// What all contexts share.
struct Core {
    config: Config,
    passes: Passes,
    rng: Rng,
    out: Queue<Output>,
    timers: TimerQueue<Timer>,
    by_client: HashMap<ClientTxId, BranchId>,
    counters: Counters,
}

/// The proxy; see the module.
pub struct Router {
    core: Core,
    contexts: HashMap<u64, Context>,
    by_server: HashMap<ServerTxId, u64>,
    /// ACKs whose target is being looked up.
    acks: HashMap<u64, Message>,
    /// Answered INVITEs in the order in which they go.
    lingering: VecDeque<(Instant, u64)>,
    last: u64,
}

impl Router {
    /// Without requests.
    pub fn new(config: Config, rng: Rng) -> Router {
        let (passes, out) = (Passes::new(&config.key), Queue::new(config.max_contexts.saturating_mul(4).max(1024)));
        Router {
            core: Core {
                config,
                passes,
                rng,
                out,
                timers: TimerQueue::new(),
                by_client: HashMap::new(),
                counters: Counters::default(),
            },
            contexts: HashMap::new(),
            by_server: HashMap::new(),
            acks: HashMap::new(),
            lingering: VecDeque::new(),
            last: 0,
        }
    }

    /// A request (no ACK, no CANCEL) of a server transaction. `flow` is where it came from, and `origin` whose it is.
    pub fn on_request(&mut self, now: Instant, tx: ServerTxId, request: Message, flow: &Flow, origin: &Origin) {
        self.core.counters.requests += 1;
        if self.contexts.len() >= self.core.config.max_contexts && !self.make_room() {
            self.core.counters.overload += 1;
            let mut response = self.core.reply(&request, 503, "Service Unavailable");
            response.push(HeaderName::RetryAfter, 10);
            return self.core.say(Output::Respond { tx, message: response });
        }
        let mut request = request;
        match self.core.route(&mut request, flow, origin) {
            Ok((plan, mark)) => self.start(now, tx, request, flow, origin, plan, mark),
            Err(Refusal(status, reason)) => {
                self.core.counters.refused += u64::from(status != 200);
                let mut response = self.core.reply(&request, status, reason);
                match status {
                    420 => {
                        let names: Vec<_> = request.values(HeaderName::ProxyRequire).collect();
                        response.push(HeaderName::Unsupported, names.join(", "));
                    }
                    200 | 405 => response.push(HeaderName::Allow, "OPTIONS, REGISTER"),
                    _ => {}
                }
                self.core.say(Output::Respond { tx, message: response });
            }
        }
    }

    /// A CANCEL for an INVITE, which its transaction has answered.
    pub fn on_cancel(&mut self, now: Instant, invite: ServerTxId) {
        if let Some(id) = self.by_server.get(&invite).copied() {
            self.with(id, |context, core| context.cancel(core, now));
        }
    }

    /// Why the INVITE is cancelled: what its CANCEL says in Reason, told on all ways. To be called before [`Router::on_cancel`].
    pub fn cancel_reason(&mut self, invite: ServerTxId, reason: &str) {
        if let Some(id) = self.by_server.get(&invite).copied() {
            self.with(id, |context, _| context.reason = Some(reason.into()));
        }
    }

    /// An ACK that belongs to no transaction here.
    pub fn on_ack(&mut self, now: Instant, ack: Message, flow: &Flow) {
        let mut ack = ack;
        let planned = match ack.max_forwards() {
            Some(0) => None,
            Some(hops) => {
                ack.set(HeaderName::MaxForwards, hops - 1);
                self.core.route_ack(&mut ack, flow)
            }
            None => {
                ack.push(HeaderName::MaxForwards, 70);
                self.core.route_ack(&mut ack, flow)
            }
        };
        match planned {
            Some(Plan::Go(target)) => self.core.send_ack(ack, target, false),
            Some(Plan::Look { user, scope }) if self.acks.len() < ACKS => {
                self.last += 1;
                self.core.look(now, self.last, user, scope, true);
                self.acks.insert(self.last, ack);
            }
            _ => self.core.counters.acks_dropped += 1,
        }
    }

    /// The answer to [`Output::Resolve`].
    pub fn resolved(&mut self, now: Instant, query: QueryId, found: Resolution) {
        self.core.timers.cancel(&Timer::Query(query.0));
        if let Some(ack) = self.acks.remove(&query.0) {
            match found {
                Resolution::Targets(targets) => {
                    for candidate in targets.into_iter().take(self.core.config.max_targets) {
                        self.core.send_ack(ack.clone(), candidate.target, true);
                    }
                }
                _ => self.core.counters.acks_dropped += 1,
            }
            return;
        }
        self.with(query.0, |context, core| {
            if context.answered {
                return;
            }
            match found {
                Resolution::Targets(mut targets) => {
                    let me = core.config.link.as_ref().map(|link| link.id);
                    // A record of our own that has outlived its binding would send the request in a circle.
                    targets.retain(|c| !matches!(&c.target, Target::Peer { id, .. } if Some(*id) == me));
                    context.fork(core, now, targets);
                }
                Resolution::NotRegistered => context.answer_with(core, 480, "Temporarily Unavailable"),
                Resolution::NotFound => context.answer_with(core, 404, "Not Found"),
                Resolution::Failed => context.answer_with(core, 504, "Server Time-out"),
                Resolution::Ambiguous(uris) => {
                    if let Some(mut response) = context.request().map(|r| core.reply(r, 485, "Ambiguous")) {
                        for uri in uris.iter().take(core.config.max_targets) {
                            response.push(HeaderName::Contact, format_args!("<{uri}>"));
                        }
                        context.answer(core, response);
                    }
                }
            }
        });
    }

    /// The node sent a branch in this transaction.
    pub fn forwarded(&mut self, branch: BranchId, client: ClientTxId) {
        if self.contexts.contains_key(&branch.context) {
            self.with(branch.context, |context, core| context.sent(core, branch.index, client));
        } else {
            self.core.say(Output::Cancel { tx: client, reason: None });
        }
    }

    /// The node has no way to a branch's target.
    pub fn unsendable(&mut self, now: Instant, branch: BranchId) {
        self.with(branch.context, |context, core| context.fail(core, now, branch.index, 503));
    }

    /// The flow to a branch's target is not there (any more): 430 (RFC 5626 section 5.3), so that whoever sent the request tries
    /// another way.
    pub fn flow_failed(&mut self, now: Instant, branch: BranchId) {
        self.with(branch.context, |context, core| context.fail(core, now, branch.index, 430));
    }

    /// A response that came to a client transaction, our Via still on top.
    pub fn on_response(&mut self, now: Instant, client: ClientTxId, response: Message) {
        match self.core.by_client.get(&client).copied() {
            Some(id) => self.with(id.context, |context, core| context.respond(core, now, id.index, response)),
            None => self.core.counters.responses_dropped += 1,
        }
    }

    /// A client transaction got no final response in time.
    pub fn on_timeout(&mut self, now: Instant, client: ClientTxId) {
        self.failed(now, client, 408);
    }

    /// A client transaction could not be sent.
    pub fn on_transport_error(&mut self, now: Instant, client: ClientTxId) {
        self.failed(now, client, 503);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.out.pop()
    }

    /// When [`handle_timeout`](Router::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let linger = self.lingering.front().map(|(at, _)| *at);
        self.core.timers.next().into_iter().chain(linger).min()
    }

    /// Timer C and the others.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.core.timers.pop(now) {
            match timer {
                Timer::Query(id) => self.resolved(now, QueryId(id), Resolution::Failed),
                Timer::Branch(id) => self.with(id.context, |context, core| context.expire(core, now, id.index)),
            }
        }
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.lingering.pop_front() else { break };
            match self.contexts.get_mut(&id) {
                // More 2xx came, or a branch is still to end: once more round.
                Some(c) if !c.all_done() || c.linger.is_some_and(|at| at > now) => {
                    self.lingering.push_back((now + self.core.config.linger, id));
                }
                Some(_) => self.drop_context(id),
                None => {}
            }
        }
    }

    /// The domain, to add addresses as they become known.
    pub fn domain_mut(&mut self) -> &mut Domain {
        &mut self.core.config.domain
    }

    /// Standard phones and trunks are told another address of ours.
    pub fn moved(&mut self, sip: std::net::SocketAddr) {
        (self.core.config.udp, self.core.config.tcp) = (sip, sip);
    }

    /// Sets our end of the links once it is known.
    pub fn set_link(&mut self, link: Link) {
        self.core.config.domain.add_address(link.address);
        self.core.config.link = Some(link);
    }

    /// True for a request inside a dialog that was let through here: the pass in its route shows it.
    pub fn proves_dialog(&self, request: &Message) -> bool {
        path::proves_dialog(request, &self.core.config.domain, &self.core.passes)
    }

    /// The Path that leads to a phone from here (RFC 3327), for whoever holds its account; none without links.
    pub fn path_to(&self, flow: &Flow) -> Option<String> {
        let side = self.core.link_side()?;
        Some(format!("<sip:{}@{};lr>", self.core.passes.write_way(flow), side.place))
    }

    /// True for a request that brings such a Path as its Route.
    pub fn is_by_way(&self, request: &Message) -> bool {
        path::is_by_way(request, &self.core.config.domain, &self.core.passes)
    }

    /// True for the request of a phone whose account is held here, sent on by the peer that it came to.
    pub fn is_from_edge(&self, request: &Message) -> bool {
        path::is_from_edge(request, &self.core.config.domain)
    }

    /// Requests that are on their way or answered a moment ago.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    #[allow(clippy::too_many_arguments)] // one call, the end of on_request
    fn start(
        &mut self,
        now: Instant,
        tx: ServerTxId,
        mut request: Message,
        flow: &Flow,
        origin: &Origin,
        plan: Plan,
        mark: String,
    ) {
        let invite = *request.method() == Method::Invite;
        let in_dialog = request.to_tag().is_some();
        let opens = matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer | Method::Other(_));
        let record = (opens && !in_dialog).then(|| self.core.side_from(&request, flow, origin));
        if invite {
            let trying = Message::reply(&request, 100, "Trying");
            self.core.say(Output::Respond { tx, message: trying });
        }
        match request.max_forwards() {
            Some(hops) => request.set(HeaderName::MaxForwards, hops.saturating_sub(1)),
            None => request.push(HeaderName::MaxForwards, 70),
        }
        self.core.strip(&mut request, origin);
        self.last += 1;
        let id = self.last;
        let mut context = Context::new(id, tx, invite, Start { template: request, mark, record });
        match plan {
            Plan::Go(target) => context.follow(&mut self.core, now, target),
            Plan::Edge(adapters) => context.carry(&mut self.core, now, adapters),
            Plan::Look { user, scope } => self.core.look(now, id, user, scope, in_dialog),
        }
        self.by_server.insert(tx, id);
        self.contexts.insert(id, context);
        self.with(id, |_, _| {});
    }

    /// Runs `step` on a context and lets go of it if it is over.
    fn with(&mut self, id: u64, step: impl FnOnce(&mut Context, &mut Core)) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let lingered = context.linger.is_some();
        step(context, &mut self.core);
        match context.linger {
            Some(at) if !lingered => self.lingering.push_back((at, id)),
            _ if context.is_over() => self.drop_context(id),
            _ => {}
        }
    }

    fn failed(&mut self, now: Instant, client: ClientTxId, status: u16) {
        if let Some(id) = self.core.by_client.get(&client).copied() {
            self.with(id.context, |context, core| context.fail(core, now, id.index, status));
        }
    }

    /// Lets go of the oldest answered INVITE.
    fn make_room(&mut self) -> bool {
        while let Some((_, id)) = self.lingering.pop_front() {
            if self.contexts.contains_key(&id) {
                self.drop_context(id);
                return true;
            }
        }
        false
    }

    fn drop_context(&mut self, id: u64) {
        if let Some(context) = self.contexts.remove(&id) {
            context.release(&mut self.core);
            self.core.timers.cancel(&Timer::Query(id));
            self.by_server.remove(&context.server);
        }
    }
}

impl Core {
    fn send_ack(&mut self, mut message: Message, target: Target, rewrite: bool) {
        let via_branch = format!("{}{}", crate::sip::msg::MAGIC_COOKIE, self.passes.stateless(&message));
        context::prepare(&mut message, &target, rewrite);
        self.say(Output::ForwardStateless { message, target, via_branch });
    }

    fn look(&mut self, now: Instant, id: u64, user: String, scope: Scope, in_dialog: bool) {
        self.timers.set(Timer::Query(id), now + self.config.resolve);
        let aor = self.config.domain.aor(&user);
        self.say(Output::Resolve { query: QueryId(id), aor, user, scope, in_dialog });
    }

    fn reply(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut response = Message::reply(request, status, reason);
        response.set_to_tag(&self.rng.token(6));
        response
    }

    fn say(&mut self, output: Output) {
        // Bounded by what one input can cause and the number of contexts; what is refused is counted by the queue.
        let _ = self.out.push(output);
    }
}

/// ACKs waiting for their target at a time.
const ACKS: usize = 4096;
