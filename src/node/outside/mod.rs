//! Accounts with outside registrars: who they are, how their requests travel, who calls by them.
//!
//! | file | what |
//! |---|---|
//! | `way` | the servers of an account, found by RFC 3263, and what goes to them |
//! | `alive` | keep-alives on the flow of a registration (RFC 5626 section 4.4) |
//! | `arriving` | calls that come in by an account, and who is believed about their caller |
//! | `shared` | accounts that several machines have, and one at a time registers |
//! | `choice` | which account a call goes by |
//! | `shown` | how the accounts are, for a person |
//!
//! A plain SIP phone is a node without overlay whose one account takes every call.

mod alive;
mod arriving;
mod choice;
mod shared;
mod shown;
mod way;

pub(super) use arriving::{SHOWN, Shown};

use super::Node;
use super::control::Event;
use crate::config::OutsideAccount;
use crate::core::{Flow, Instant, Redacted, TimerQueue, Transport};
use crate::nat::turn::peers::Prefix;
use crate::pbx::locate::{Locate, Place};
use crate::sip::msg::{Message, Uri};
use crate::ua::{AccountConfig, AccountId};
use alive::Alive;
use arriving::Caller;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The account of a plain SIP phone; those of `[[account]]` follow.
pub(super) const PHONE: AccountId = AccountId(0);
/// Registration asked for where the configuration does not say, seconds.
const EXPIRES: u32 = 600;

/// Accounts, and what is under way for them.
#[derive(Debug, Default)]
pub(super) struct Outside {
    accounts: BTreeMap<AccountId, Upstream>,
    /// Questions to the DNS.
    questions: BTreeMap<u64, AccountId>,
    /// Calls that came in lately.
    callers: VecDeque<Caller>,
    timers: TimerQueue<AccountId>,
}

/// The servers of one account.
#[derive(Debug)]
struct Upstream {
    /// As the configuration has it; empty of a plain SIP phone.
    config: OutsideAccount,
    /// What is asked of the DNS, or stands there as an address.
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
    /// What the certificate of a server has to show.
    tls_name: String,
    authorities: PathBuf,
    /// User part of its contact, which nobody knows but the registrar.
    contact_user: String,
    trusted: Vec<Prefix>,
    /// Places found so far, the preferred one first, and which of them is used.
    places: Vec<Place>,
    at: usize,
    /// What can still be asked.
    locate: Option<Locate>,
    asking: bool,
    /// Where requests go.
    flow: Option<Flow>,
    /// All servers of the last search: those whose calls are taken.
    known: BTreeSet<SocketAddr>,
    waiting: VecDeque<way::Held>,
    /// Why the last way was none.
    why: Option<String>,
    alive: Alive,
    /// Of a shared account: what is registered while this node holds the lease, and the lease.
    dormant: Option<AccountConfig>,
    lease: Option<String>,
}

impl Outside {
    pub fn next(&self) -> Option<Instant> {
        self.timers.next()
    }
}

impl Node {
    /// Registers all accounts.
    pub(super) fn begin_outside(&mut self, now: Instant) {
        if let Some((upstream, config)) = self.phone_account() {
            self.outside.accounts.insert(PHONE, upstream);
            self.ua.register_with(PHONE, config);
        }
        let passwords = self.setup.passwords.clone();
        for (n, account) in (1..).zip(self.setup.config.account.clone()) {
            let id = AccountId(n);
            let password = passwords.get(&account.name).cloned();
            let shared = account.shared && self.identity.is_some();
            let (mut upstream, config) = self.outside_account(account, password);
            upstream.dormant = shared.then(|| config.clone());
            self.outside.accounts.insert(id, upstream);
            if !shared {
                self.ua.register_with(id, config);
            }
        }
        self.begin_shared(now);
    }

    /// Of `[phone]`: this node is nothing but a SIP phone.
    fn phone_account(&self) -> Option<(Upstream, AccountConfig)> {
        let config = &self.setup.config.phone;
        let addr = config.registrar.filter(|_| self.identity.is_none())?;
        let user = self.setup.config.user.name.clone();
        let domain = if config.domain.is_empty() { addr.to_string() } else { config.domain.clone() };
        let mut registrar = match config.domain.is_empty() {
            true => Uri::sip(None, &addr.ip().to_string(), Some(addr.port())),
            false => Uri::sip(None, &config.domain, None),
        };
        registrar.params.set("transport", &config.transport);
        let transport = Transport::from_name(&config.transport).unwrap_or(Transport::Udp);
        let mut upstream = Upstream::new(OutsideAccount::default(), (addr.ip().to_string(), Some(addr.port())));
        (upstream.transport, upstream.contact_user) = (Some(transport), user.clone());
        let account = AccountConfig {
            aor: format!("sip:{user}@{domain}"),
            registrar,
            expires: config.expires,
            credentials: self.setup.password.clone().map(|password| (user.clone(), password)),
            contact: self.contact_at(&user, Some(transport)),
            instance: None,
            outbound: false,
            private: false,
        };
        Some((upstream, account))
    }

    fn outside_account(&self, config: OutsideAccount, password: Option<Redacted<String>>) -> (Upstream, AccountConfig) {
        let (user, domain) = config.user_and_domain();
        let transport = Transport::from_name(&config.transport);
        let (host, port) = config.registrar();
        let named = if config.registrar.is_empty() { domain } else { host.as_str() };
        let mut registrar = Uri::sip(None, named, port);
        if let Some(transport) = transport.filter(|t| *t != Transport::Udp) {
            registrar.params.set("transport", transport.uri_name());
        }
        let digest_user = if config.user.is_empty() { user.to_owned() } else { config.user.clone() };
        let secret = self.account_secret(&config.aor);
        let contact_user = super::hex::hex(&secret[..10]);
        let account = AccountConfig {
            aor: config.aor.clone(),
            registrar,
            expires: if config.expires == 0 { EXPIRES } else { config.expires },
            credentials: password.map(|password| (digest_user, password)),
            contact: self.contact_at(&contact_user, transport),
            instance: Some(uuid(&secret[16..])),
            outbound: config.outbound.unwrap_or(true),
            private: config.private,
        };
        let mut upstream = Upstream::new(config.clone(), config.first());
        (upstream.transport, upstream.contact_user) = (transport, contact_user);
        upstream.trusted = config.trusted.iter().filter_map(|t| t.parse().ok()).collect();
        upstream.authorities = config.ca_file.clone();
        // RFC 5922: the domain that was asked for, not the host that the DNS names for it.
        upstream.tls_name = if config.proxy.is_empty() { domain.to_owned() } else { upstream.host.clone() };
        (upstream, account)
    }

    /// Thirty-two bytes of an account at this device, the same after a restart: its contact's user and its instance come of them.
    fn account_secret(&self, aor: &str) -> [u8; 32] {
        let key = match &self.identity {
            Some(identity) => **identity.device.seed().reveal(),
            None => blake3::derive_key("chordial account of a plain phone v1", self.setup.sip.to_string().as_bytes()),
        };
        let key = blake3::derive_key("chordial account contact v1", &key);
        *blake3::keyed_hash(&key, aor.as_bytes()).as_bytes()
    }

    /// Where this node takes requests over a transport.
    fn outside_place(&self, transport: Option<Transport>) -> SocketAddr {
        if transport == Some(Transport::Tls) { self.setup.overlay } else { self.setup.sip }
    }

    fn contact_at(&self, user: &str, transport: Option<Transport>) -> Uri {
        let here = self.outside_place(transport);
        let mut uri = Uri::sip(Some(user), &here.ip().to_string(), Some(here.port()));
        if let Some(transport) = transport.filter(|t| *t != Transport::Udp) {
            uri.params.set("transport", transport.uri_name());
        }
        uri
    }

    /// An account is registered.
    pub(super) fn on_account_registered(&mut self, now: Instant, id: AccountId) {
        let Some(account) = self.ua.account(id) else { return };
        let (aor, contact) = (account.config().aor.clone(), account.contact().clone());
        // Where a NAT shows this node, for Routes that come back.
        if let (Some(ip), Some(port)) = (contact.ip(), contact.port)
            && self.overlay.is_some()
        {
            let seen = SocketAddr::new(ip, port);
            self.domain.add_address(seen);
            self.router.domain_mut().add_address(seen);
        }
        if let Some(up) = self.outside.accounts.get_mut(&id) {
            up.why = None;
        }
        self.begin_alive(now, id);
        self.event(None, Event::Registered { aor });
    }

    /// An account's registration failed.
    pub(super) fn on_account_failed(&mut self, id: AccountId, status: u16, reason: String) {
        let Some(account) = self.ua.account(id) else { return };
        let aor = account.config().aor.clone();
        let why = self.outside.accounts.get_mut(&id).and_then(|up| up.why.clone()).filter(|_| status == 0);
        self.event(None, Event::RegistrationFailed { aor, status, why: why.unwrap_or(reason) });
    }

    /// This machine has another address: registrars are told.
    pub(super) fn outside_moved(&mut self) {
        let ids: Vec<_> = self.outside.accounts.iter().map(|(id, up)| (*id, up.transport)).collect();
        for (id, transport) in ids {
            let here = self.outside_place(transport);
            let host = if here.is_ipv6() { format!("[{}]", here.ip()) } else { here.ip().to_string() };
            if let Some(up) = self.outside.accounts.get_mut(&id) {
                up.flow = None;
            }
            self.ua.account_moved(id, &host, here.port());
        }
    }

    /// True where a flow comes from a server of an account.
    fn is_of_account(&self, id: AccountId, flow: &Flow) -> bool {
        let Some(up) = self.outside.accounts.get(&id) else { return false };
        let from = flow.remote.ip().to_canonical();
        // Servers call from other ports than they listen at.
        let server = up.known.iter().any(|known| known.ip().to_canonical() == from);
        let same = flow.conn.is_some() && up.flow.and_then(|f| f.conn) == flow.conn;
        server || same || up.trusted.iter().any(|t| t.contains(from))
    }

    /// The account whose contact a Request-URI names.
    fn account_named(&self, request: &Message) -> Option<AccountId> {
        let uri = Uri::parse(request.request_uri()).ok().filter(Uri::is_sip)?;
        let names = |(id, up): &(&AccountId, &Upstream)| {
            let account = self.ua.account(**id);
            let gruu = |text: &Option<String>| {
                text.as_deref().and_then(|g| Uri::parse(g).ok()).is_some_and(|gruu| gruu.matches(&uri))
            };
            let granted = account.and_then(|a| a.granted());
            uri.user.as_deref() == Some(up.contact_user.as_str())
                || granted.is_some_and(|g| gruu(&g.pub_gruu) || gruu(&g.temp_gruu))
                || account.and_then(|a| Uri::parse(&a.config().aor).ok()).is_some_and(|aor| aor.matches(&uri))
        };
        self.outside.accounts.iter().find(names).map(|(id, _)| *id)
    }
}

/// A UUID (RFC 9562 version 8) of these bytes.
fn uuid(bytes: &[u8]) -> String {
    let mut b = [0; 16];
    b.copy_from_slice(&bytes[..16]);
    (b[6], b[8]) = (0x80 | b[6] & 0x0f, 0x80 | b[8] & 0x3f);
    let h = super::hex::hex(&b);
    format!("urn:uuid:{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

impl Upstream {
    fn new(config: OutsideAccount, (host, port): (String, Option<u16>)) -> Upstream {
        Upstream {
            config,
            tls_name: host.clone(),
            host,
            port,
            transport: None,
            authorities: PathBuf::new(),
            contact_user: String::new(),
            trusted: Vec::new(),
            places: Vec::new(),
            at: 0,
            locate: None,
            asking: false,
            flow: None,
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            why: None,
            alive: Alive::default(),
            dormant: None,
            lease: None,
        }
    }
}
