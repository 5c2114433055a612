//! Registrations with outside registrars (RFC 3261 section 10.2), any number of accounts at once, renewed before they end.
//!
//! What a registrar grants is kept with the account: the Service-Route that its calls follow (RFC 3608), GRUUs (RFC 5627), whether the
//! flow of the registration is kept (RFC 5626). Contacts that a NAT has rewritten are mended by what the response's Via says
//! (`received`, `rport`). A challenge that was answered once is answered beforehand from then on, with its count or the next nonce.
//!
//! Left out: several flows of one account (one `reg-id`), and the registration events of RFC 3680.

mod answered;
mod digest;

use super::{Hop, Output, RequestKey, Timer, Ua, UaEvent};
use crate::core::{Instant, Redacted};
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use digest::Digests;
use std::time::Duration;

/// Wait after a registration that failed, doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest such wait where nobody answered, and where the registrar refused: providers lock accounts that ask too often.
const RETRY_MAX: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(1800);
/// A flow that lived no longer has failed before it was of any use.
const SHORT: Duration = Duration::from_secs(2);
/// How long the registrar has to confirm that a registration is taken back.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a call may still take to end before.
const BEFORE: Duration = Duration::from_millis(500);
/// Times in a row that a contact is mended.
const MENDED: u8 = 3;

/// Names an account of a user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u32);

/// Who an account is, and where it registers.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// Address of record, for From and To.
    pub aor: String,
    /// Request-URI of the REGISTER.
    pub registrar: Uri,
    /// Registration asked for, seconds.
    pub expires: u32,
    /// User and password for challenges.
    pub credentials: Option<(String, Redacted<String>)>,
    /// Where it is reached at first: user, address, transport.
    pub contact: Uri,
    /// `urn:uuid:...` of this device, for `+sip.instance`; with it outbound and GRUU are asked for.
    pub instance: Option<String>,
    /// RFC 5626 is asked for.
    pub outbound: bool,
    /// Its calls withhold the address of record.
    pub private: bool,
}

/// What the registrar has granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Until when.
    pub until: Instant,
    /// Values of Service-Route, the first hop first.
    pub service_route: Vec<String>,
    /// The GRUU that names this device.
    pub pub_gruu: Option<String>,
    /// The one that says nothing of whose it is.
    pub temp_gruu: Option<String>,
    /// The flow is kept (RFC 5626).
    pub outbound: bool,
    /// Longest pause between two keep-alives on it, seconds.
    pub flow_timer: Option<u32>,
}

/// Why an account is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// SIP status, 0 where nobody answered.
    pub status: u16,
    /// The reason phrase, or what went wrong.
    pub reason: String,
    /// When it is tried again.
    pub again: Instant,
}

/// The state of a registration.
#[derive(Debug, Clone)]
pub struct Account {
    config: AccountConfig,
    contact: Uri,
    /// The contact that the registrar has, and one before it that is to be removed.
    known_as: Option<Uri>,
    stale: Option<Uri>,
    call_id: String,
    from_tag: String,
    cseq: u32,
    /// The REGISTER that has no final response yet.
    request: Option<Message>,
    /// Its challenges that were answered.
    tries: u8,
    digests: Digests,
    /// The first hop does not support outbound (439).
    no_outbound: bool,
    mended: u8,
    backoff: Duration,
    /// When it was registered last.
    since: Instant,
    granted: Option<Granted>,
    refused: Option<Refused>,
    /// It has been taken back.
    leaving: bool,
}

impl Account {
    /// True while the registrar knows this device.
    pub fn is_registered(&self) -> bool {
        self.granted.is_some()
    }

    /// Who it is.
    pub fn config(&self) -> &AccountConfig {
        &self.config
    }

    /// What the registrar granted.
    pub fn granted(&self) -> Option<&Granted> {
        self.granted.as_ref()
    }

    /// Why it is not registered.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Where the registrar finds this device, as far as that is known.
    pub fn contact(&self) -> &Uri {
        &self.contact
    }

    /// The Contact of its calls: a GRUU where there is one.
    pub(super) fn call_contact(&self) -> String {
        let granted = self.granted.as_ref();
        let gruu = granted.and_then(|g| if self.config.private { g.temp_gruu.clone() } else { g.pub_gruu.clone() });
        gruu.unwrap_or_else(|| {
            let mut contact = self.contact.clone();
            if granted.is_some_and(|g| g.outbound) {
                contact.params.set_flag("ob");
            }
            contact.to_string()
        })
    }
}

impl Ua {
    /// Registers now and keeps the registration up.
    pub fn register_with(&mut self, id: AccountId, config: AccountConfig) {
        let account = Account {
            contact: config.contact.clone(),
            config,
            known_as: None,
            stale: None,
            call_id: self.rng.token(12),
            from_tag: self.rng.token(6),
            cseq: 0,
            request: None,
            tries: 0,
            digests: Digests::default(),
            no_outbound: false,
            mended: 0,
            backoff: RETRY_MIN,
            since: Instant::ZERO,
            granted: None,
            refused: None,
            leaving: false,
        };
        self.accounts.insert(id, account);
        self.register_now(id);
    }

    /// An account.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// True while a registration is being taken back.
    pub fn is_unregistering(&self) -> bool {
        self.accounts.values().any(|a| a.leaving)
    }

    /// Takes all registrations back and keeps them up no longer (RFC 3261 section 10.2.2). True when there was one:
    /// [`UaEvent::Unregistered`] follows for each, at the latest after two seconds.
    pub fn unregister(&mut self, now: Instant) -> bool {
        let ids: Vec<_> = self.accounts.keys().copied().collect();
        ids.into_iter().filter(|id| self.unregister_one(now, *id)).count() > 0
    }

    /// The same of one account.
    pub fn unregister_one(&mut self, now: Instant, id: AccountId) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else { return false };
        if account.granted.take().is_none() {
            self.forget_account(id);
            return false;
        }
        (account.leaving, account.request) = (true, None);
        // A call that this end has ended and whose ACK is on its way still says BYE, by the same registrar perhaps.
        if self.calls.values().any(|c| c.bye_due) {
            self.timers.set(Timer::Register(id), now + BEFORE);
        } else {
            self.register_due(now, id);
        }
        true
    }

    /// An account is not kept any longer, whatever the registrar makes of it.
    pub fn forget_account(&mut self, id: AccountId) {
        self.accounts.remove(&id);
        self.timers.cancel(&Timer::Register(id));
    }

    /// This device is reached elsewhere: the registrar is told.
    pub fn account_moved(&mut self, id: AccountId, host: &str, port: u16) {
        let Some(account) = self.accounts.get_mut(&id).filter(|a| !a.leaving) else { return };
        if account.move_to(host, port) && account.request.is_none() {
            self.register_now(id);
        }
    }

    /// The way of a registration is gone: it is made again at once, by another one.
    pub fn account_flow_failed(&mut self, now: Instant, id: AccountId) {
        let Some(account) = self.accounts.get_mut(&id).filter(|a| !a.leaving && a.request.is_none()) else { return };
        match account.granted {
            // A server that takes registrations and closes at once is not asked without a pause.
            Some(_) if now.since(account.since) < SHORT => self.timers.set(Timer::Register(id), now + RETRY_MIN),
            Some(_) => self.register_now(id),
            None => {}
        }
    }

    pub(super) fn register_due(&mut self, now: Instant, id: AccountId) {
        if self.accounts.get(&id).is_some_and(|a| a.leaving && a.request.is_none()) {
            self.send_new_register(id);
            return self.timers.set(Timer::Register(id), now + LEAVE);
        }
        self.register_now(id);
    }

    fn unregistered(&mut self, id: AccountId) {
        self.forget_account(id);
        self.event(UaEvent::Unregistered { account: id });
    }

    /// Sends a new REGISTER.
    pub fn register_now(&mut self, id: AccountId) {
        match self.accounts.get(&id) {
            Some(account) if account.leaving => self.unregistered(id),
            Some(_) => self.send_new_register(id),
            None => {}
        }
    }

    fn send_new_register(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.cseq += 1;
        account.tries = 0;
        let account = account.clone();
        let (uri, aor) = (account.config.registrar.to_string(), account.config.aor.clone());
        let mut message =
            self.request_outside(Method::Register, &uri, &aor, &account.call_id, &account.from_tag, account.cseq);
        message.set(HeaderName::From, format_args!("<{aor}>;tag={}", account.from_tag));
        let expires = if account.leaving { 0 } else { account.config.expires };
        account.write_contacts(&mut message, expires);
        message.push(HeaderName::Expires, expires);
        message.push(HeaderName::Allow, super::ALLOW);
        if account.config.instance.is_some() {
            let outbound = account.asks_outbound();
            message.push(HeaderName::Supported, if outbound { "path, outbound, gruu" } else { "path, gruu" });
        }
        self.send_register(id, message);
    }

    fn send_register(&mut self, id: AccountId, mut message: Message) {
        let cnonce = self.rng.token(8);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.digests.answer(&mut message, account.config.credentials.as_ref(), &cnonce);
        account.request = Some(message.clone());
        let hop = Hop::Account { account: id, uri: None };
        self.out.push_back(Output::Request { key: RequestKey::Register(id), message, hop });
    }
}

impl Account {
    fn asks_outbound(&self) -> bool {
        self.config.outbound && self.config.instance.is_some() && !self.no_outbound
    }

    /// This device's contact, and the one that it had before with no time left.
    fn write_contacts(&self, message: &mut Message, expires: u32) {
        let mut contact = self.contact.clone();
        if self.asks_outbound() {
            contact.params.set_flag("ob");
        }
        let instance = match &self.config.instance {
            Some(urn) if self.asks_outbound() => format!(";+sip.instance=\"<{urn}>\";reg-id=1"),
            Some(urn) => format!(";+sip.instance=\"<{urn}>\""),
            None => String::new(),
        };
        let stale = self.stale.as_ref().filter(|_| expires > 0);
        let each = if stale.is_some() { format!(";expires={expires}") } else { String::new() };
        message.push(HeaderName::Contact, format_args!("<{contact}>{instance}{each}"));
        if let Some(stale) = stale {
            message.push(HeaderName::Contact, format_args!("<{stale}>;expires=0"));
        }
    }

    /// True when that is another place than before.
    fn move_to(&mut self, host: &str, port: u16) -> bool {
        let mut contact = self.contact.clone();
        (contact.host, contact.port) = (host.to_owned(), Some(port));
        if contact == self.contact {
            return false;
        }
        // Where outbound is agreed on, the instance replaces what it had before.
        let replaces = self.granted.as_ref().is_some_and(|g| g.outbound);
        self.stale = self.known_as.take().filter(|_| !replaces);
        self.contact = contact;
        true
    }
}
