//! The registrar (RFC 3261 section 10.3) for the standard phones whose accounts are held here.
//!
//! A REGISTER updates all of its contacts or none. For each binding the flow that it came on is kept: requests go
//! back on it where the phone is behind a NAT or hangs on a stream (see `keeps_flow` in
//! [`target`](crate::pbx::target)), else to the contact. A closed stream removes no binding: the phone may come back,
//! or listen where its contact says.
//!
//! To may name the user by the overlay's name or by our address; both are the AOR `sip:USER@OVERLAY`. The digest user
//! name has to be the user of To: nobody registers for somebody else (403).
//!
//! Who fails to log in again and again is listened to ever more rarely (`guard`), and gets the same answers all the while.
//!
//! [`Output`] tells when a user becomes reachable through here and when not any more, so that the node writes and
//! withdraws its record in the overlay.
//!
//! RFC 8760 has a challenge offer SHA-256 first and MD5 after it. Tried: SIPp 3.6 and sipsak 0.9 give up when the first
//! is not MD5, baresip 1.0 when any is not. So what is offered goes by the phone ([`Offer`]), and what is answered is
//! checked with either.
//!
//! A phone may come to a peer that does not hold its account. That one sends its REGISTER on with a Path (RFC 3327), and the binding
//! is reached through it ([`Edge`]).
//!
//! A device that asks for `outbound` (RFC 5626) is known by its instance and the number of its flow: it replaces what it registered
//! before under whatever contact, and is reached over its flow alone.
//!
//! Left out: Path of other proxies, `outbound` through another peer, Flow-Timer, GRUU (RFC 5627), and contacts that are not `sip:`.

mod guard;
mod location;
#[cfg(test)]
mod tests;
mod update;

pub use location::Binding;

use super::{Accounts, Candidate, Domain, Edge};
use crate::core::{ConnId, Flow, Instant, Queue, Rng, UnixTime};
use crate::sip::auth::{self, Challenger, Verdict};
use crate::sip::msg::{HeaderName, Message, Uri};
use guard::Guard;
use location::Location;
use std::net::IpAddr;
use std::time::Duration;

/// How phones prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Digest, SHA-256 or MD5 (RFC 8760).
    Digest,
    /// Not at all; for loopback and laboratories. With accounts, their users only; without, anybody.
    None,
}

/// Which digest algorithms a challenge offers. Answers with either are taken in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// SHA-256 and MD5 to phones that are known to read several challenges, MD5 alone to all others.
    ByAgent,
    /// SHA-256, then MD5 (RFC 8760 section 2.3).
    Sha256First,
    /// MD5, then SHA-256.
    Md5First,
    /// MD5 alone.
    Md5,
}

/// What a registrar is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay and our addresses.
    pub domain: Domain,
    /// How phones prove who they are.
    pub auth: Auth,
    /// What challenges offer.
    pub offer: Offer,
    /// Shortest registration, seconds; a shorter wish is answered 423.
    pub min_expires: u32,
    /// Longest registration, seconds; a longer wish is cut.
    pub max_expires: u32,
    /// For a phone that does not say, seconds.
    pub default_expires: u32,
    /// Bindings of one user at a time.
    pub max_bindings: usize,
    /// Users with bindings at a time.
    pub max_users: usize,
    /// Secret behind the digest nonces; they survive a restart if it does.
    pub nonce_key: [u8; 32],
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
}

impl Config {
    /// Usual values: 30 s to 1 h, 1 h by default, 10 bindings, 10,000 users, nonces for 5 minutes.
    pub fn new(domain: Domain, auth: Auth, nonce_key: [u8; 32]) -> Config {
        Config {
            domain,
            auth,
            offer: Offer::ByAgent,
            min_expires: 30,
            max_expires: 3600,
            default_expires: 3600,
            max_bindings: 10,
            max_users: 10_000,
            nonce_key,
            nonce_lifetime: Duration::from_secs(300),
        }
    }
}

/// News for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The user's first binding appeared.
    Reachable {
        /// Canonical AOR, `sip:USER@OVERLAY`.
        aor: String,
        /// Its user part.
        user: String,
    },
    /// The user's last binding was removed or expired.
    Unreachable {
        /// Canonical AOR.
        aor: String,
        /// Its user part.
        user: String,
    },
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// REGISTER requests answered 200.
    pub accepted: u64,
    /// Challenges sent, 401 and 407.
    pub challenged: u64,
    /// REGISTER requests refused for any other reason.
    pub refused: u64,
    /// Wrong credentials seen, with stale nonces not counted.
    pub bad_credentials: u64,
    /// Credentials that were not looked at, since their source or their user had failed too often.
    pub held_back: u64,
}

/// The registrar; see the module.
pub struct Registrar {
    config: Config,
    accounts: Accounts,
    challenger: Challenger,
    guard: Guard,
    location: Location,
    rng: Rng,
    out: Queue<Output>,
    counters: Counters,
}

impl Registrar {
    /// A registrar for `accounts`, whose realm has to be the overlay's name.
    pub fn new(config: Config, accounts: Accounts, mut rng: Rng) -> Registrar {
        // Digest secrets are bound to the name that the overlay had when they were made.
        let nonces = Challenger::new(accounts.realm(), config.nonce_key, config.nonce_lifetime, rng.fork());
        // Every user may come and go once between two polls.
        let out = Queue::new(config.max_users.saturating_mul(2).max(16));
        let (location, counters) = (Location::default(), Counters::default());
        Registrar { config, accounts, challenger: nonces, guard: Guard::default(), location, rng, out, counters }
    }

    /// The response to a REGISTER for this domain (see [`serves`](Registrar::serves)) that arrived on `flow`.
    pub fn on_register(&mut self, now: Instant, unix: UnixTime, request: &Message, flow: &Flow) -> Message {
        self.take(now, unix, request, &update::Arrival { flow: *flow, edge: None })
    }

    /// The same of a phone that came to another peer, which sent it on over its link with a Path of its own (RFC 3327).
    ///
    /// The caller has seen that the link is that peer's.
    pub fn on_register_through(
        &mut self,
        now: Instant,
        unix: UnixTime,
        request: &Message,
        flow: &Flow,
        edge: Edge,
    ) -> Message {
        let path = edge.path.clone();
        let mut response =
            self.take(now, unix, request, &update::Arrival { flow: Flow { conn: None, ..*flow }, edge: Some(edge) });
        if response.status() == 200 {
            response.push(HeaderName::Path, path);
        }
        response
    }

    fn take(&mut self, now: Instant, unix: UnixTime, request: &Message, from: &update::Arrival) -> Message {
        self.handle_timeout(now);
        let response = self.register(now, unix, request, from);
        match response.status() {
            200 => self.counters.accepted += 1,
            401 => {}
            _ => self.counters.refused += 1,
        }
        response
    }

    /// The verdict on a request's Proxy-Authorization fields, sent from `source` as far as that is known.
    pub fn authenticate(&mut self, now: Instant, unix: UnixTime, request: &Message, source: Option<IpAddr>) -> Verdict {
        self.check((now, unix), request, HeaderName::ProxyAuthorization, source)
    }

    /// A 407 with challenges.
    pub fn challenge(&mut self, unix: UnixTime, request: &Message, stale: bool) -> Message {
        self.challenged(unix, request, 407, "Proxy Authentication Required", HeaderName::ProxyAuthenticate, stale)
    }

    /// A final response with a tag in To.
    pub fn refuse(&mut self, request: &Message, status: u16, reason: &str) -> Message {
        let mut response = Message::reply(request, status, reason);
        response.set_to_tag(&self.rng.token(6));
        response
    }

    /// The stream `conn` is closed: bindings on it stay, and are reached by their contact or not at all.
    pub fn flow_closed(&mut self, conn: ConnId) {
        self.location.close(conn);
    }

    /// The next news.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When [`handle_timeout`](Registrar::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.location.next_expiry()
    }

    /// Drops bindings that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(user) = self.location.expire(now) {
            self.tell(&user, false);
        }
    }

    /// The accounts, to add and remove some. A removed account's bindings stay until
    /// [`forget`](Registrar::forget) or their expiry.
    pub fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// The domain, to add addresses as they become known. The [`Router`](crate::pbx::router::Router) has its own.
    pub fn domain_mut(&mut self) -> &mut Domain {
        &mut self.config.domain
    }

    /// Takes over the bindings of the registrar that this one succeeds; streams are closed.
    pub fn adopt(&mut self, former: &mut Registrar) {
        for (user, entries) in former.location.take() {
            self.location.set(&user, entries);
            self.tell(&user, true);
        }
    }

    /// Drops all bindings of a user.
    pub fn forget(&mut self, user: &str) {
        if !self.location.get(user).is_empty() {
            self.location.set(user, Vec::new());
            self.tell(user, false);
        }
    }

    /// The accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.config.domain
    }

    /// How phones prove who they are.
    pub fn auth(&self) -> Auth {
        self.config.auth
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// True for a REGISTER whose Request-URI is this domain; any other is the proxy's to forward.
    pub fn serves(&self, request: &Message) -> bool {
        Uri::parse(request.request_uri()).is_ok_and(|uri| self.config.domain.covers(&uri))
    }

    /// True where calls for `user` end here: an account is held, or a binding.
    pub fn hosts(&self, user: &str) -> bool {
        self.accounts.get(user).is_some() || !self.location.get(user).is_empty()
    }

    /// A user's bindings, oldest first.
    pub fn bindings(&self, now: Instant, user: &str) -> Vec<Binding> {
        self.location.bindings(now, user)
    }

    /// Where to send requests for `user`: its bindings that can be reached.
    pub fn targets(&self, now: Instant, user: &str) -> Vec<Candidate> {
        self.location.targets(now, user)
    }

    /// Users with bindings, by name.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.location.users().map(|user| &**user)
    }

    fn check(
        &mut self,
        (now, unix): (Instant, UnixTime),
        request: &Message,
        field: HeaderName<'_>,
        source: Option<IpAddr>,
    ) -> Verdict {
        let claimed = request.headers(field).find_map(|value| auth::claimed(value, self.challenger.realm()));
        if let Some(user) = &claimed
            && self.guard.holds(now, user, source)
        {
            self.counters.held_back += 1;
            return Verdict::Bad;
        }
        let accounts = &self.accounts;
        let lookup = |user: &str| accounts.get(user).map(|account| account.ha1.clone());
        let (method, body) = (request.method().as_str(), request.body());
        let verdict = self.challenger.check(unix, request.headers(field), method, body, lookup);
        match &verdict {
            Verdict::Bad => {
                self.counters.bad_credentials += 1;
                let user = claimed.unwrap_or_default();
                let failures = self.guard.failed(now, &user, source);
                let source = source.map_or_else(|| "another peer".to_owned(), |source| source.to_string());
                tracing::warn!(%source, ?user, failures, "log-in failed");
            }
            Verdict::Ok(user) => self.guard.passed(now, user, source),
            Verdict::Stale | Verdict::Missing => {}
        }
        verdict
    }

    fn challenged(
        &mut self,
        unix: UnixTime,
        request: &Message,
        status: u16,
        reason: &str,
        field: HeaderName<'_>,
        stale: bool,
    ) -> Message {
        self.counters.challenged += 1;
        let mut response = self.refuse(request, status, reason);
        let agent = request.header(HeaderName::UserAgent).unwrap_or_default();
        let known = READS_SHA256.iter().any(|name| agent.starts_with(name));
        let [sha256, md5] = self.challenger.challenge(unix, stale);
        let offered = match self.config.offer {
            Offer::Sha256First => [Some(sha256), Some(md5)],
            Offer::ByAgent if known => [Some(sha256), Some(md5)],
            Offer::Md5First => [Some(md5), Some(sha256)],
            Offer::Md5 | Offer::ByAgent => [Some(md5), None],
        };
        for value in offered.into_iter().flatten() {
            response.push(field, value);
        }
        response
    }

    fn tell(&mut self, user: &str, reachable: bool) {
        let (aor, user) = (self.config.domain.aor(user), user.to_owned());
        let news = if reachable { Output::Reachable { aor, user } } else { Output::Unreachable { aor, user } };
        // A full queue counts what it refuses.
        let _ = self.out.push(news);
    }
}

/// How the User-Agent of phones starts that are known to answer a SHA-256 challenge.
const READS_SHA256: &[&str] = &["Chordial"];
