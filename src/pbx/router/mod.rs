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
mod pass;
mod path;
#[cfg(test)]
mod tests;

use super::policy::Origin;
use super::{Candidate, Domain, Target};
use crate::core::{Flow, Id, Instant, Queue, Rng, TimerQueue, Transport};
use crate::sip::msg::{HeaderName, Message, Method, Scheme, Uri};
use crate::sip::tx::{ClientTxId, ServerTxId};
use context::{Context, Start};
use pass::Passes;
use path::{Path, Side};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What a router is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay and our addresses, that of the links included.
    pub domain: Domain,
    /// Where phones reach us over UDP. Its address stands in for that of a socket bound to "any".
    pub udp: SocketAddr,
    /// Where phones reach us over TCP.
    pub tcp: SocketAddr,
    /// Where peers reach us.
    pub link: Option<Link>,
    /// Secret behind passes and loop marks; dialogs survive a restart if it does.
    pub key: [u8; 32],
    /// Timer C, above 3 minutes (RFC 3261 section 16.6 step 11).
    pub timer_c: Duration,
    /// How long an answered INVITE is kept for more 2xx: 64*T1.
    pub linger: Duration,
    /// How long an [`Output::Resolve`] may take before 504.
    pub resolve: Duration,
    /// Requests at a time.
    pub max_contexts: usize,
    /// Targets of one request.
    pub max_targets: usize,
}

impl Config {
    /// Usual values: Timer C 185 s, 32 s, 10 s, 65,536 requests, 32 targets each.
    pub fn new(domain: Domain, udp: SocketAddr, tcp: SocketAddr, key: [u8; 32]) -> Config {
        Config {
            domain,
            udp,
            tcp,
            link: None,
            key,
            timer_c: Duration::from_secs(185),
            linger: Duration::from_secs(32),
            resolve: Duration::from_secs(10),
            max_contexts: 65_536,
            max_targets: 32,
        }
    }
}

/// Our end of the overlay's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where we take links.
    pub address: SocketAddr,
    /// TLS, or TCP or UDP in a laboratory in clear.
    pub transport: Transport,
    /// Our peer-ID.
    pub id: Id,
}

/// An [`Output::Resolve`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(u64);

/// One copy of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchId {
    context: u64,
    index: u16,
}

/// How far to look for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// This node only: its registrar and its own user agent.
    Here,
    /// The overlay too.
    Overlay,
}

/// What was found for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// These; empty is the same as [`NotRegistered`](Resolution::NotRegistered).
    Targets(Vec<Candidate>),
    /// The user exists and is nowhere now: 480.
    NotRegistered,
    /// No such user: 404.
    NotFound,
    /// Several users claim the name; these URIs tell them apart: 485.
    Ambiguous(Vec<String>),
    /// The overlay gave no answer that can be trusted: 504.
    Failed,
}

/// What the router wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// To know where a user is; answered with [`Router::resolved`].
    Resolve {
        /// To answer with.
        query: QueryId,
        /// Canonical AOR, `sip:USER@OVERLAY`.
        aor: String,
        /// Its user part.
        user: String,
        /// How far to look.
        scope: Scope,
        /// The request is inside a dialog: if the node's own user agent has that dialog, it is the only target.
        in_dialog: bool,
    },
    /// A request to be sent: push a Via with `via_branch`, send it in a client transaction, and say so with
    /// [`Router::forwarded`], or [`Router::unsendable`] where there is no way.
    Forward {
        /// To answer with.
        branch: BranchId,
        /// The request without our Via.
        message: Message,
        /// The next hop.
        target: Target,
        /// The branch parameter for our Via.
        via_branch: String,
    },
    /// A response for a server transaction.
    Respond {
        /// The transaction.
        tx: ServerTxId,
        /// The response.
        message: Message,
    },
    /// A client transaction to be cancelled.
    Cancel {
        /// The transaction.
        tx: ClientTxId,
    },
    /// A request to be sent outside of any transaction: an ACK for a 2xx.
    ForwardStateless {
        /// The request without our Via.
        message: Message,
        /// The next hop.
        target: Target,
        /// The branch parameter for our Via.
        via_branch: String,
    },
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken.
    pub requests: u64,
    /// Copies sent.
    pub forwarded: u64,
    /// Requests refused before anybody was asked, loops among them.
    pub refused: u64,
    /// Loops.
    pub loops: u64,
    /// Requests refused because a stranger wanted them carried elsewhere.
    pub relay_denied: u64,
    /// Requests answered 503 because too many are on their way.
    pub overload: u64,
    /// ACKs that belong to no dialog of ours.
    pub acks_dropped: u64,
    /// Responses that nobody waits for.
    pub responses_dropped: u64,
    /// Targets beyond the limit.
    pub targets_dropped: u64,
    /// Requests other than INVITE that no target answered in time (RFC 4320).
    pub left_unanswered: u64,
}

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

/// A response of our own to a request that goes nowhere.
struct Refusal(u16, &'static str);

/// Where a request goes.
enum Plan {
    Look { user: String, scope: Scope },
    Go(Target),
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
            self.core.say(Output::Cancel { tx: client });
        }
    }

    /// The node has no way to a branch's target.
    pub fn unsendable(&mut self, now: Instant, branch: BranchId) {
        self.with(branch.context, |context, core| context.fail(core, now, branch.index, 503));
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

    /// Sets our end of the links once it is known.
    pub fn set_link(&mut self, link: Link) {
        self.core.config.domain.add_address(link.address);
        self.core.config.link = Some(link);
    }

    /// True for a request inside a dialog that was let through here: the pass in its route shows it.
    pub fn proves_dialog(&self, request: &Message) -> bool {
        path::proves_dialog(request, &self.core.config.domain, &self.core.passes)
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
    /// Sections 16.3 to 16.5, credentials apart.
    fn route(&mut self, request: &mut Message, flow: &Flow, origin: &Origin) -> Result<(Plan, String), Refusal> {
        let uri = Uri::parse(request.request_uri()).map_err(|_| Refusal(400, "Malformed Request-URI"))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Tel) {
            return Err(Refusal(416, "Unsupported URI Scheme"));
        }
        match request.max_forwards() {
            Some(0) => return Err(Refusal(483, "Too Many Hops")),
            None if request.has(HeaderName::MaxForwards) => {
                return Err(Refusal(400, "Malformed Max-Forwards header field"));
            }
            _ => {}
        }
        if request.has(HeaderName::ProxyRequire) {
            return Err(Refusal(420, "Bad Extension"));
        }
        let entered = path::enter(request, flow, &self.config.domain, &self.passes);
        let path = entered.map_err(|path::Unreadable(what)| Refusal(400, what))?;
        let mark = self.passes.mark(request);
        if pass::has_mark(request, &mark) {
            self.counters.loops += 1;
            return Err(Refusal(482, "Loop Detected"));
        }
        let scope = match origin {
            Origin::Phone { .. } | Origin::Ua { .. } => Scope::Overlay,
            // A peer has looked already; a stranger may not.
            Origin::Peer { .. } | Origin::Dialog | Origin::Outside => Scope::Here,
        };
        let plan = self.plan(request, path, origin.is_member(), scope)?;
        Ok((plan, mark))
    }

    fn plan(&mut self, request: &mut Message, path: Path, member: bool, scope: Scope) -> Result<Plan, Refusal> {
        let may_go = path.proven || member;
        if let Some(flow) = path.flow {
            if let Some(next) = &path.next {
                path::adapt_to_strict(request, next);
            }
            return Ok(Plan::Go(Target::Flow { uri: request.request_uri().to_owned(), flow }));
        }
        if path.next.is_none() {
            if let Some(user) = self.config.domain.callee_of(&path.uri) {
                return Ok(Plan::Look { user, scope });
            }
            if self.config.domain.covers(&path.uri) {
                return Err(match request.method() {
                    Method::Options => Refusal(200, "OK"),
                    _ => Refusal(405, "Method Not Allowed"),
                });
            }
        }
        if !may_go {
            self.counters.relay_denied += 1;
            return Err(Refusal(403, "Relaying Denied"));
        }
        let target = match &path.next {
            Some(next) => {
                path::adapt_to_strict(request, next);
                Target::of(next)
            }
            None => Target::of(&path.uri),
        };
        Ok(Plan::Go(target))
    }

    /// An ACK goes where a pass of ours lets it, or to a user hosted here.
    fn route_ack(&mut self, ack: &mut Message, flow: &Flow) -> Option<Plan> {
        let path = path::enter(ack, flow, &self.config.domain, &self.passes).ok()?;
        self.plan(ack, path, false, Scope::Here).ok()
    }

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

    /// Takes out what is for us or what only we may say.
    fn strip(&self, request: &mut Message, origin: &Origin) {
        if request.has(HeaderName::ProxyAuthorization) {
            let ours = format!("realm=\"{}\"", self.config.domain.overlay());
            let others: Vec<String> = request.headers(HeaderName::ProxyAuthorization).map(str::to_owned).collect();
            request.remove(HeaderName::ProxyAuthorization);
            for value in others.iter().filter(|value| !value.contains(&ours)) {
                request.push(HeaderName::ProxyAuthorization, value);
            }
        }
        // Asserted by whom we do not trust (RFC 3325 section 5).
        if !matches!(origin, Origin::Peer { .. } | Origin::Ua { .. }) && request.has(HeaderName::PAssertedIdentity) {
            request.remove(HeaderName::PAssertedIdentity);
        }
    }

    /// Our side towards whoever sent a request; none for our own user agent.
    fn side_from(&self, request: &Message, flow: &Flow, origin: &Origin) -> Option<Side> {
        match origin {
            Origin::Ua { .. } => None,
            Origin::Peer { .. } => self.link_side(),
            _ => Some(self.clear_side(flow, context::pinned(request, flow))),
        }
    }

    /// Our side towards a target; none for our own user agent.
    fn side_to(&self, target: &Target) -> Option<Side> {
        match target {
            Target::Ua { .. } => None,
            Target::Peer { .. } => self.link_side(),
            Target::Flow { flow, .. } => Some(self.clear_side(flow, Some(*flow))),
            Target::Uri { uri } => {
                let uri = Uri::parse(uri).ok();
                let transport = uri.as_ref().and_then(|uri| uri.params.get("transport")).and_then(Transport::from_name);
                let (transport, address) = match transport {
                    Some(Transport::Tcp) => (Transport::Tcp, self.config.tcp),
                    _ => (Transport::Udp, self.config.udp),
                };
                Some(Side::clear(transport, address, None))
            }
        }
    }

    fn link_side(&self) -> Option<Side> {
        self.config.link.as_ref().map(|link| Side::link(link.address, link.transport, &link.id))
    }

    fn clear_side(&self, flow: &Flow, kept: Option<Flow>) -> Side {
        let ours = if flow.transport == Transport::Udp { self.config.udp } else { self.config.tcp };
        // Of a connection that we opened, the local port is nobody's address.
        let address = if ours.ip().is_unspecified() || ours.is_ipv4() != flow.local.is_ipv4() {
            SocketAddr::new(flow.local.ip(), ours.port())
        } else {
            ours
        };
        Side::clear(flow.transport, address, kept)
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
