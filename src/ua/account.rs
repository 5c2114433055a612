//! The registration of a plain SIP phone with an outside registrar (RFC 3261 section 10.2), renewed before it ends.

use super::challenge::credentials;
use super::{Hop, Output, RequestKey, Timer, Ua, UaEvent};
use crate::core::Instant;
use crate::sip::msg::{HeaderName, Message, Method, Uri};
use std::time::Duration;

/// Wait after a registration that failed, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the registrar has to confirm that a registration is taken back.
const LEAVE: Duration = Duration::from_secs(2);

/// Where to register.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// The registrar; Request-URI of the REGISTER.
    pub registrar: Uri,
    /// Registration asked for, seconds.
    pub expires: u32,
}

/// The state of the registration.
#[derive(Debug, Clone)]
pub struct Account {
    config: AccountConfig,
    call_id: String,
    from_tag: String,
    cseq: u32,
    request: Option<Message>,
    authorized: bool,
    backoff: Duration,
    registered: bool,
    /// It has been taken back.
    leaving: bool,
}

impl Account {
    /// True while the registrar knows this phone.
    pub fn is_registered(&self) -> bool {
        self.registered
    }
}

impl Ua {
    /// Registers now and keeps the registration up.
    pub fn register_with(&mut self, config: AccountConfig) {
        self.account = Some(Account {
            config,
            call_id: self.rng.token(12),
            from_tag: self.rng.token(6),
            cseq: 0,
            request: None,
            authorized: false,
            backoff: RETRY_MIN,
            registered: false,
            leaving: false,
        });
        self.register_now();
    }

    /// The account, where there is one.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Takes the registration back and keeps it up no longer (RFC 3261 section 10.2.2). True when there was one:
    /// [`UaEvent::Unregistered`] follows, at the latest after two seconds.
    pub fn unregister(&mut self, now: Instant) -> bool {
        let Some(account) = self.account.as_mut().filter(|a| a.registered) else { return false };
        (account.registered, account.leaving, account.config.expires) = (false, true, 0);
        self.send_new_register();
        self.timers.set(Timer::Register, now + LEAVE);
        true
    }

    /// The account is not kept any longer, whatever the registrar made of it.
    fn unregistered(&mut self) {
        self.account = None;
        self.timers.cancel(&Timer::Register);
        self.event(UaEvent::Unregistered);
    }

    pub(super) fn register_now(&mut self) {
        match &self.account {
            Some(account) if account.leaving => self.unregistered(),
            _ => self.send_new_register(),
        }
    }

    fn send_new_register(&mut self) {
        let Some(account) = self.account.as_mut() else { return };
        account.cseq += 1;
        account.authorized = false;
        let account = account.clone();
        let (uri, aor) = (account.config.registrar.to_string(), self.profile.aor.clone());
        let mut message =
            self.request_outside(Method::Register, &uri, &aor, &account.call_id, &account.from_tag, account.cseq);
        let contact = &self.profile.clear_contact;
        message.push(HeaderName::Contact, format_args!("<{contact}>"));
        message.push(HeaderName::Expires, account.config.expires);
        self.send_register(message);
    }

    fn send_register(&mut self, message: Message) {
        let Some(account) = self.account.as_mut() else { return };
        account.request = Some(message.clone());
        let registrar = Hop::Uri(account.config.registrar.clone());
        let hop = self.first_hop(registrar);
        self.out.push_back(Output::Request { key: RequestKey::Register, message, hop });
    }

    pub(super) fn on_register_response(&mut self, now: Instant, response: &Message) {
        let Some(account) = self.account.as_mut() else { return };
        match response.status() {
            ..=199 => {}
            200..=299 if account.leaving => self.unregistered(),
            200..=299 => {
                account.registered = true;
                account.backoff = RETRY_MIN;
                let own = Uri::parse(&self.profile.clear_contact).ok();
                let given = response.contacts().unwrap_or_default().into_iter().find(|c| {
                    own.as_ref()
                        .is_some_and(|own| c.uri.user == own.user && c.uri.host == own.host && c.uri.port == own.port)
                });
                let expires = given.and_then(|c| c.expires()).or(response.expires()).unwrap_or(account.config.expires);
                let expires = Duration::from_secs(u64::from(expires.max(10)));
                self.timers.set(Timer::Register, now + expires.mul_f64(0.8));
                self.event(UaEvent::Registered { expires });
            }
            401 | 407 if !account.authorized => {
                let Some(mut request) = account.request.clone() else { return };
                let cnonce = self.rng.token(8);
                if !credentials(&mut request, response, self.profile.credentials.as_ref(), &cnonce) {
                    return self.on_register_failed(
                        now,
                        response.status(),
                        "the registrar wants a password".to_owned(),
                    );
                }
                account.authorized = true;
                account.cseq += 1;
                request.set(HeaderName::CSeq, format_args!("{} REGISTER", account.cseq));
                self.send_register(request);
            }
            423 => {
                let min = response.header(HeaderName::MinExpires).and_then(|v| v.trim().parse().ok());
                match min {
                    Some(min) if min > account.config.expires => {
                        account.config.expires = min;
                        self.register_now();
                    }
                    // It refuses what it asked for; asking again at once would go on for ever.
                    _ => self.on_register_failed(now, 423, response.reason().to_owned()),
                }
            }
            status => self.on_register_failed(now, status, response.reason().to_owned()),
        }
    }

    pub(super) fn on_register_failed(&mut self, now: Instant, status: u16, reason: String) {
        let Some(account) = self.account.as_mut() else { return };
        account.registered = false;
        if account.leaving {
            return self.unregistered();
        }
        self.timers.set(Timer::Register, now + account.backoff);
        account.backoff = (account.backoff * 2).min(RETRY_MAX);
        self.event(UaEvent::RegistrationFailed { status, reason });
    }
}
