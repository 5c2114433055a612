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
//! [`Output`] tells when a user becomes reachable through here and when not any more, so that the node writes and
//! withdraws its record in the overlay.
//!
//! Left out: Path (RFC 3327; no edge proxies in front of a peer), `outbound` (RFC 5626: `+sip.instance` is kept and
//! echoed, not matched), GRUU (RFC 5627), contacts that are not `sip:`, and passing a REGISTER on to the adapter that
//! holds the account.

mod location;
#[cfg(test)]
mod tests;

pub use location::Binding;

use super::target::keeps_flow;
use super::{Accounts, Candidate, Domain};
use crate::core::{ConnId, Flow, Instant, Queue, Rng, UnixTime};
use crate::sip::auth::{Challenger, Verdict};
use crate::sip::msg::{HeaderName, Message, NameAddr, Scheme, Uri};
use location::{Entry, Location};
use std::time::Duration;

/// How phones prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Digest, SHA-256 or MD5 (RFC 8760).
    Digest,
    /// Not at all; for loopback and laboratories. With accounts, their users only; without, anybody.
    None,
}

/// What a registrar is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The overlay and our addresses.
    pub domain: Domain,
    /// How phones prove who they are.
    pub auth: Auth,
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
}

/// Why a REGISTER is refused.
struct Refusal {
    status: u16,
    reason: &'static str,
    field: Option<(&'static str, String)>,
}

/// One contact of a REGISTER, read and checked.
struct Wish {
    uri: Uri,
    written: String,
    params: String,
    q: u16,
    seconds: u32,
}

/// The registrar; see the module.
pub struct Registrar {
    config: Config,
    accounts: Accounts,
    challenger: Challenger,
    location: Location,
    rng: Rng,
    out: Queue<Output>,
    counters: Counters,
}

impl Registrar {
    /// A registrar for `accounts`, whose realm has to be the overlay's name.
    pub fn new(config: Config, accounts: Accounts, mut rng: Rng) -> Registrar {
        let nonces = Challenger::new(config.domain.overlay(), config.nonce_key, config.nonce_lifetime, rng.fork());
        // Every user may come and go once between two polls.
        let out = Queue::new(config.max_users.saturating_mul(2).max(16));
        let (location, counters) = (Location::default(), Counters::default());
        Registrar { config, accounts, challenger: nonces, location, rng, out, counters }
    }

    /// The response to a REGISTER for this domain (see [`serves`](Registrar::serves)) that arrived on `flow`.
    pub fn on_register(&mut self, now: Instant, unix: UnixTime, request: &Message, flow: &Flow) -> Message {
        self.handle_timeout(now);
        let response = self.register(now, unix, request, flow);
        match response.status() {
            200 => self.counters.accepted += 1,
            401 => {}
            _ => self.counters.refused += 1,
        }
        response
    }

    /// The verdict on a request's Proxy-Authorization fields.
    pub fn authenticate(&mut self, unix: UnixTime, request: &Message) -> Verdict {
        self.check(unix, request, HeaderName::ProxyAuthorization)
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

    fn register(&mut self, now: Instant, unix: UnixTime, request: &Message, flow: &Flow) -> Message {
        let required: Vec<_> = request.values(HeaderName::Require).collect();
        if !required.is_empty() {
            let unsupported = required.join(", ");
            let mut response = self.refuse(request, 420, "Bad Extension");
            response.push(HeaderName::Unsupported, unsupported);
            return response;
        }
        let Ok(to) = request.to() else { return self.refuse(request, 400, "Malformed To header field") };
        let user = self.config.domain.user_of(&to.uri);
        if self.config.auth == Auth::Digest {
            match self.check(unix, request, HeaderName::Authorization) {
                Verdict::Ok(proven) if Some(&proven) == user.as_ref() => {}
                Verdict::Ok(_) => return self.refuse(request, 403, "Forbidden"),
                verdict => {
                    let stale = verdict == Verdict::Stale;
                    let field = HeaderName::WwwAuthenticate;
                    return self.challenged(unix, request, 401, "Unauthorized", field, stale);
                }
            }
        }
        let anybody = self.config.auth == Auth::None && self.accounts.is_empty();
        let user = match user {
            Some(user) if anybody || self.accounts.get(&user).is_some() => user,
            _ => return self.refuse(request, 404, "Not Found"),
        };
        match self.update(now, request, flow, &user) {
            Ok(()) => self.listing(now, unix, request, &user),
            Err(refusal) => {
                let mut response = self.refuse(request, refusal.status, refusal.reason);
                if let Some((name, value)) = refusal.field {
                    response.push(name, value);
                }
                response
            }
        }
    }

    /// Steps 6 and 7 of RFC 3261 section 10.3: all contacts or none.
    fn update(&mut self, now: Instant, request: &Message, flow: &Flow, user: &str) -> Result<(), Refusal> {
        if !request.has(HeaderName::Contact) {
            return Ok(());
        }
        let bad = |reason| Refusal { status: 400, reason, field: None };
        let call_id = request.call_id().ok_or(bad("Missing Call-ID header field"))?;
        let cseq = request.cseq().map_err(|_| bad("Malformed CSeq header field"))?.number;
        let old = self.location.get(user);
        let had = !old.is_empty();
        let out_of_order = |e: &Entry| e.call_id == call_id && cseq <= e.cseq;
        const LATE: Refusal = Refusal { status: 500, reason: "CSeq Out Of Order", field: None };
        if request.has_star_contact() {
            // Expires is wanted as 0, literally: an absent or malformed one is not 0.
            if request.expires() != Some(0) || request.values(HeaderName::Contact).count() != 1 {
                return Err(bad("Contact * Needs Expires 0"));
            }
            if old.iter().any(out_of_order) {
                return Err(LATE);
            }
            self.location.set(user, Vec::new());
            if had {
                self.tell(user, false);
            }
            return Ok(());
        }
        let wishes = self.wishes(request)?;
        let via = request.via().ok();
        let agent = request.header(HeaderName::UserAgent).unwrap_or_default();
        let agent = agent.get(..agent.floor_char_boundary(USER_AGENT)).unwrap_or_default();
        let mut entries = self.location.get(user).to_vec();
        for wish in wishes {
            let known = entries.iter().position(|e| e.written == wish.written || e.uri.matches(&wish.uri));
            if known.and_then(|i| entries.get(i)).is_some_and(out_of_order) {
                return Err(LATE);
            }
            if wish.seconds == 0 {
                known.map(|i| entries.remove(i));
                continue;
            }
            let entry = Entry {
                keeps_flow: keeps_flow(&wish.uri, via.as_ref(), flow),
                uri: wish.uri,
                written: wish.written,
                params: wish.params,
                q: wish.q,
                expires: now + Duration::from_secs(wish.seconds.into()),
                call_id: call_id.to_owned(),
                cseq,
                flow: *flow,
                closed: false,
                user_agent: agent.into(),
            };
            match known.and_then(|i| entries.get_mut(i)) {
                Some(place) => *place = entry,
                None => {
                    if entries.len() >= self.config.max_bindings {
                        // A phone that lost its stream and came back under another contact.
                        let lost = entries.iter().position(|e| e.closed);
                        entries.remove(lost.ok_or(TOO_MANY)?);
                    }
                    entries.push(entry);
                }
            }
        }
        if !had && !entries.is_empty() && self.location.len() >= self.config.max_users {
            return Err(Refusal { status: 503, reason: "Too Many Registrations", field: None });
        }
        let has = !entries.is_empty();
        self.location.set(user, entries);
        if had != has {
            self.tell(user, has);
        }
        Ok(())
    }

    /// Reads all contacts.
    fn wishes(&self, request: &Message) -> Result<Vec<Wish>, Refusal> {
        let bad = |reason| Refusal { status: 400, reason, field: None };
        let general = request.expires();
        let mut wishes = Vec::new();
        for value in request.values(HeaderName::Contact) {
            let contact = NameAddr::parse(value).map_err(|_| bad("Malformed Contact header field"))?;
            if contact.uri.scheme != Scheme::Sip {
                return Err(bad("Contact Is Not A sip URI"));
            }
            if wishes.len() >= self.config.max_bindings {
                return Err(TOO_MANY);
            }
            // Malformed counts as absent (RFC 3261 section 10.2.1.1 allows any default).
            let wanted = contact.expires().or(general).unwrap_or(self.config.default_expires);
            if wanted > 0 && wanted < self.config.min_expires {
                let field = Some(("Min-Expires", self.config.min_expires.to_string()));
                return Err(Refusal { status: 423, reason: "Interval Too Brief", field });
            }
            let q = contact.q().unwrap_or(1000);
            let written = contact.uri.to_string();
            let mut params = contact.params;
            params.remove("expires");
            wishes.push(Wish {
                uri: contact.uri,
                written,
                params: params.to_string(),
                q,
                seconds: wanted.min(self.config.max_expires),
            });
        }
        Ok(wishes)
    }

    /// Step 8: every current binding and how long it holds.
    fn listing(&mut self, now: Instant, unix: UnixTime, request: &Message, user: &str) -> Message {
        let mut response = self.refuse(request, 200, "OK");
        for entry in self.location.get(user) {
            // Rounded up: a registration of 60 s is told as 60.
            let left = entry.expires.since(now).as_micros().div_ceil(1_000_000);
            response.push(HeaderName::Contact, format_args!("<{}>{};expires={left}", entry.written, entry.params));
        }
        response.push(HeaderName::Date, date(unix));
        response
    }

    fn check(&mut self, unix: UnixTime, request: &Message, field: HeaderName<'_>) -> Verdict {
        let accounts = &self.accounts;
        let lookup = |user: &str| accounts.get(user).map(|account| account.ha1.clone());
        let (method, body) = (request.method().as_str(), request.body());
        let verdict = self.challenger.check(unix, request.headers(field), method, body, lookup);
        if verdict == Verdict::Bad {
            self.counters.bad_credentials += 1;
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
        for value in self.challenger.challenge(unix, stale) {
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

/// The Date of a response (RFC 3261 section 20.17): `Sat, 13 Nov 2010 23:29:00 GMT`.
fn date(unix: UnixTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, second) = (unix.secs() / 86_400, unix.secs() % 86_400);
    // Years counted from 1 March 0000, in eras of 400 years: the leap day is the last of its year.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let year = year + era * 400 + u64::from(month >= 10);
    let name = |names: &[&'static str], i: u64| names.get(i as usize).copied().unwrap_or_default();
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{}, {of_month:02} {} {year:04} {h:02}:{m:02}:{s:02} GMT", name(&DAYS, days % 7), name(&MONTHS, month))
}

const TOO_MANY: Refusal = Refusal { status: 403, reason: "Too Many Contacts", field: None };
/// Bytes of a User-Agent that are kept.
const USER_AGENT: usize = 128;
