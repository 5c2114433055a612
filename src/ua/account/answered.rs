//! What a registrar answers, and what becomes of an account then.

use super::{Account, AccountId, Granted, LEAVE, MENDED, REFUSED_MAX, RETRY_MAX, RETRY_MIN, Refused};
use crate::core::Instant;
use crate::sip::msg::{HeaderName, Message, NameAddr, Uri};
use crate::ua::{Timer, Ua, UaEvent};
use std::time::Duration;

/// The longest wait that a Retry-After is followed for.
const RETRY_AFTER_MAX: u64 = 3600;
/// Values of a Service-Route that are followed.
const ROUTES: usize = 8;

impl Ua {
    pub(in crate::ua) fn on_register_response(&mut self, now: Instant, id: AccountId, response: &Message) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        // An answer to one before the last.
        let same = account.request.as_ref().and_then(|r| r.cseq().ok()).map(|c| c.number);
        if response.status() < 200 || response.cseq().ok().map(|c| c.number) != same {
            return;
        }
        match response.status() {
            200..=299 if account.leaving => self.unregistered(id),
            200..=299 => self.on_registered(now, id, response),
            401 | 407 => {
                let known = account.config.credentials.is_some();
                if known && account.digests.challenged(response, account.tries) {
                    account.tries += 1;
                    return self.register_again(id);
                }
                account.digests.forget();
                let reason = match known {
                    true => response.reason().to_owned(),
                    false => "the registrar wants a password".to_owned(),
                };
                self.on_register_failed(now, id, response.status(), reason, retry_after(response));
            }
            423 => {
                let min = response.header(HeaderName::MinExpires).and_then(|v| v.trim().parse().ok());
                match min {
                    Some(min) if min > account.config.expires && !account.leaving => {
                        account.config.expires = min;
                        self.send_new_register(id);
                    }
                    // It refuses what it asked for; asking again at once would go on for ever.
                    _ => self.on_register_failed(now, id, 423, response.reason().to_owned(), None),
                }
            }
            // RFC 5626 section 11.6.
            439 if account.asks_outbound() && !account.leaving => {
                account.no_outbound = true;
                self.send_new_register(id);
            }
            status => self.on_register_failed(now, id, status, response.reason().to_owned(), retry_after(response)),
        }
    }

    /// The same REGISTER with the next number, and credentials by now.
    fn register_again(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let Some(mut request) = account.request.clone() else { return };
        account.cseq += 1;
        request.set(HeaderName::CSeq, format_args!("{} REGISTER", account.cseq));
        self.send_register(id, request);
    }

    fn on_registered(&mut self, now: Instant, id: AccountId, response: &Message) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.request = None;
        account.digests.satisfied(response);
        (account.backoff, account.refused, account.stale) = (RETRY_MIN, None, None);
        account.since = now;
        account.known_as = Some(account.contact.clone());
        let given = account.own_contact(response);
        let asked = account.config.expires;
        let expires = given.as_ref().and_then(|c| c.expires()).or(response.expires()).unwrap_or(asked);
        let expires = Duration::from_secs(u64::from(expires.max(10)));
        account.granted = Some(account.grants(now + expires, given.as_ref(), response));
        if account.mend(response) && account.mended < MENDED {
            account.mended += 1;
            self.timers.set(Timer::Register(id), now + expires.mul_f64(0.8));
            return self.send_new_register(id);
        }
        account.mended = 0;
        self.timers.set(Timer::Register(id), now + expires.mul_f64(0.8));
        self.event(UaEvent::Registered { account: id, expires });
    }

    /// The registrar refused (`status`), or nobody answered (0).
    pub(in crate::ua) fn on_register_failed(
        &mut self,
        now: Instant,
        id: AccountId,
        status: u16,
        reason: String,
        wait: Option<Duration>,
    ) {
        let spread = 0.5 + self.rng.below(512) as f64 / 1024.0;
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.request = None;
        if account.leaving {
            return self.unregistered(id);
        }
        // Still there by the registrar's word: a refresh that nobody answered does not take that back.
        let stands = status == 0 && account.granted.as_ref().is_some_and(|g| g.until > now + LEAVE);
        if !stands {
            account.granted = None;
        }
        let again = wait.unwrap_or_default().max(account.backoff.mul_f64(spread));
        account.backoff = (account.backoff * 2).min(if status == 0 { RETRY_MAX } else { REFUSED_MAX });
        account.refused = Some(Refused { status, reason: reason.clone(), again: now + again });
        self.timers.set(Timer::Register(id), now + again);
        self.event(UaEvent::RegistrationFailed { account: id, status, reason });
    }
}

impl Account {
    /// What the response says of this device's own contact.
    fn own_contact(&self, response: &Message) -> Option<NameAddr> {
        let contacts = response.contacts().unwrap_or_default();
        let (own, instance) = (&self.contact, self.config.instance.as_deref());
        let by_address = |uri: &Uri| uri.user == own.user && uri.host == own.host && uri.port == own.port;
        let by_instance = |c: &NameAddr| {
            let shown = c.params.get_unquoted("+sip.instance");
            instance.is_some() && shown.as_deref().map(|s| s.trim_matches(['<', '>'])) == instance
        };
        let at = contacts.iter().position(|c| by_address(&c.uri));
        at.or_else(|| contacts.iter().position(by_instance)).map(|at| contacts[at].clone())
    }

    fn grants(&self, until: Instant, given: Option<&NameAddr>, response: &Message) -> Granted {
        let gruu = |name: &str| {
            let said = given?.params.get_unquoted(name)?.into_owned();
            Uri::parse(&said).ok().filter(Uri::is_sip).map(|uri| uri.to_string())
        };
        let routes = response.addresses(HeaderName::ServiceRoute).unwrap_or_default();
        let routes = routes.into_iter().filter(|r| r.uri.is_sip() && r.uri.params.has("lr"));
        let timer = response.header(HeaderName::Other("Flow-Timer")).and_then(|v| v.trim().parse().ok());
        Granted {
            until,
            service_route: routes.take(ROUTES).map(|r| format!("<{}>", r.uri)).collect(),
            pub_gruu: gruu("pub-gruu"),
            temp_gruu: gruu("temp-gruu"),
            outbound: self.asks_outbound() && response.has_token(HeaderName::Require, "outbound"),
            flow_timer: timer.filter(|t| *t > 0),
        }
    }

    /// Takes up how the registrar has seen this device; true when that is another address than it was told.
    fn mend(&mut self, response: &Message) -> bool {
        let Ok(via) = response.via() else { return false };
        let (received, rport) = (via.received(), via.rport().flatten());
        if received.is_none() && rport.is_none() {
            return false;
        }
        let datagrams = via.transport.eq_ignore_ascii_case("UDP");
        // A stream's own port is nobody's address, unless a NAT stands before it and the stream is the only way.
        let Some(ip) = received.or_else(|| via.ip().filter(|_| datagrams)) else { return false };
        let same = self.contact.ip().is_some_and(|c| c.to_canonical() == ip.to_canonical());
        let port = match (datagrams, same) {
            (false, true) => None,
            _ => rport,
        };
        let port = port.or(self.contact.port).unwrap_or(5060);
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let host = if same { self.contact.host.clone() } else { host };
        self.move_to(&host, port)
    }
}

fn retry_after(response: &Message) -> Option<Duration> {
    let value = response.header(HeaderName::RetryAfter)?;
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().map(|seconds: u64| Duration::from_secs(seconds.min(RETRY_AFTER_MAX)))
}
