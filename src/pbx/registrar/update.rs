//! What a REGISTER does (RFC 3261 section 10.3).

use super::location::Entry;
use super::{Auth, Registrar};
use crate::core::{Flow, Instant, UnixTime};
use crate::pbx::Edge;
use crate::pbx::target::keeps_flow;
use crate::sip::auth::Verdict;
use crate::sip::msg::{HeaderName, Message, NameAddr, Scheme, Uri};
use std::time::Duration;

/// Where a REGISTER comes from.
pub(super) struct Arrival {
    /// The flow that it arrived on; of one that came through another peer, that peer's link without its connection, since the next
    /// one does as well.
    pub flow: Flow,
    /// The peer that it came through.
    pub edge: Option<Edge>,
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
    /// The device and the number of its flow (RFC 5626 section 4.1), where it asks to be known by them.
    flow_of: Option<(String, u32)>,
}

impl Registrar {
    pub(super) fn register(&mut self, now: Instant, unix: UnixTime, request: &Message, from: &Arrival) -> Message {
        let required: Vec<_> = request.values(HeaderName::Require).collect();
        if !required.is_empty() {
            let unsupported = required.join(", ");
            let mut response = self.refuse(request, 420, "Bad Extension");
            response.push(HeaderName::Unsupported, unsupported);
            return response;
        }
        let Ok(to) = request.to() else { return self.refuse(request, 400, "Malformed To header field") };
        let user = match from.edge {
            Some(_) => self.config.domain.user_behind(&to.uri),
            None => self.config.domain.user_of(&to.uri),
        };
        if self.config.auth == Auth::Digest {
            // Of what came through another peer, the source is that peer's to judge.
            let source = from.edge.is_none().then(|| from.flow.remote.ip());
            match self.check((now, unix), request, HeaderName::Authorization, source) {
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
        match self.update(now, request, from, &user) {
            Ok(()) => {
                let mut response = self.listing(now, unix, request, &user);
                let known = |e: &Entry| e.flow_of.is_some() && Some(e.call_id.as_str()) == request.call_id();
                if asks_for_outbound(request) && self.location.get(&user).iter().any(known) {
                    response.push(HeaderName::Require, OUTBOUND);
                }
                response
            }
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
    fn update(&mut self, now: Instant, request: &Message, from: &Arrival, user: &str) -> Result<(), Refusal> {
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
        let outbound = from.edge.is_none() && asks_for_outbound(request);
        let wishes = self.wishes(request, outbound)?;
        let via = request.via().ok();
        let agent = request.header(HeaderName::UserAgent).unwrap_or_default();
        let agent: String = agent.chars().take(USER_AGENT).collect();
        let mut entries = self.location.get(user).to_vec();
        for wish in wishes {
            let same = |e: &Entry| match (&wish.flow_of, &e.flow_of) {
                // What a device writes as its contact may differ from one connection to the next (RFC 5626 section 6).
                (Some(one), Some(other)) => one == other,
                _ => e.written == wish.written || e.uri.matches(&wish.uri),
            };
            if self.location.get(user).iter().any(|e| out_of_order(e) && same(e)) {
                return Err(LATE);
            }
            let known = entries.iter().position(same);
            if wish.seconds == 0 {
                known.map(|i| entries.remove(i));
                continue;
            }
            let entry = Entry {
                keeps_flow: from.edge.is_none()
                    && (wish.flow_of.is_some() || keeps_flow(&wish.uri, via.as_ref(), &from.flow)),
                flow_of: wish.flow_of,
                uri: wish.uri,
                written: wish.written,
                params: wish.params,
                q: wish.q,
                expires: now + Duration::from_secs(wish.seconds.into()),
                call_id: call_id.to_owned(),
                cseq,
                flow: from.flow,
                closed: false,
                edge: from.edge.clone(),
                user_agent: agent.as_str().into(),
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
    fn wishes(&self, request: &Message, outbound: bool) -> Result<Vec<Wish>, Refusal> {
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
            let number = params.get("reg-id").and_then(|id| id.parse().ok()).filter(|id| *id > 0 && outbound);
            let flow_of = params.get("+sip.instance").filter(|i| i.len() <= INSTANCE).map(str::to_owned).zip(number);
            wishes.push(Wish {
                uri: contact.uri,
                written,
                params: params.to_string(),
                q,
                seconds: wanted.min(self.config.max_expires),
                flow_of,
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
}

/// The option tag of RFC 5626.
const OUTBOUND: &str = "outbound";
/// Longest `+sip.instance` that is compared, bytes.
const INSTANCE: usize = 128;

fn asks_for_outbound(request: &Message) -> bool {
    request.values(HeaderName::Supported).any(|tag| tag.eq_ignore_ascii_case(OUTBOUND))
}

/// The Date of a response (RFC 3261 section 20.17): `Sat, 13 Nov 2010 23:29:00 GMT`.
pub(super) fn date(unix: UnixTime) -> String {
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
/// Characters of a User-Agent that are kept.
const USER_AGENT: usize = 128;
