//! What a node is made of: configuration, identity, addresses, and what was kept from the last time.

use super::Node;
use super::flows::Locals;
use crate::config::Config;
use crate::config::{Encryption, Ice, PhoneAuth};
use crate::core::{Id, Instant, Redacted, Rng, Transport, UnixTime};
use crate::identity::{Acquaintances, Former, Identity, Merges, Revocations, TrustAnchor, Verifier};
use crate::overlay::carry::{Carry, address_peer_id};
use crate::overlay::chord::{self, Chord};
use crate::overlay::tier::Tiered;
use crate::overlay::{Overlay, PeerRef, Stored};
use crate::pbx::registrar::{self, Registrar};
use crate::pbx::router::{self, Router};
use crate::pbx::{Accounts, Domain};
use crate::secure::Fingerprint;
use crate::sip::msg::Uri;
use crate::ua::{Profile, Ua, VoiceKeys};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Most calls of one user at once.
const MAX_CALLS: usize = 32;
/// Shortest life of an entry that names supernodes, in seconds.
const KEPT_LIFETIME: u32 = 7200;
/// Chains whose verification is remembered.
const REMEMBERED_CHAINS: usize = 4096;

/// Everything that a node is started with.
pub struct Setup {
    /// Keys of the file and flags.
    pub config: Config,
    /// Who this device is; none for a plain SIP phone.
    pub identity: Option<Identity>,
    /// Accounts of standard phones.
    pub accounts: Accounts,
    /// The account's password, for a plain SIP phone.
    pub password: Option<Redacted<String>>,
    /// Passwords of the accounts of the configuration, by name.
    pub passwords: BTreeMap<String, Redacted<String>>,
    /// Addresses to join by that came with the enrolment.
    pub known_peers: Vec<SocketAddr>,
    /// The file of messages, as [`Saved::Messages`](super::Saved) had it; empty at first.
    pub messages: Vec<u8>,
    /// Records kept from the last time; none where nobody keeps any.
    pub stored: Option<Stored>,
    /// What was wrong with what was kept, for the owner.
    pub damage: Option<String>,
    /// What [`Saved::Hosts`](super::Saved::Hosts) kept the last time; empty at the first start.
    pub hosts: Vec<u8>,
    /// What [`Saved::Nat`](super::Saved::Nat) kept the last time; empty at the first start.
    pub nat: Vec<u8>,
    /// What is revoked, as known the last time.
    pub revocations: Revocations,
    /// The user's contacts and settings, as they were saved.
    pub settings: Option<Vec<u8>>,
    /// Keys of password shares held for others, as they were saved.
    pub shares: Option<Vec<u8>>,
    /// How often passwords were tried, as it was saved.
    pub attempts: Option<Vec<u8>>,
    /// Whom this device knows in other overlays.
    pub acquaintances: Acquaintances,
    /// The office that this device has come from.
    pub former: Option<Former>,
    /// Offices that this administrator's device takes in.
    pub merges: Merges,
    /// The number of the first connection that is dialled.
    pub first_connection: u64,
    /// Where standard phones are served, as the socket says.
    pub sip_listen: SocketAddr,
    /// Where links are taken, as the socket says.
    pub overlay_listen: SocketAddr,
    /// The address of `sip_listen` that others are told.
    pub sip: SocketAddr,
    /// The address of `overlay_listen` that others are told.
    pub overlay: SocketAddr,
    /// Where peers may reach this node beside `overlay`: a global IPv6 address.
    pub also: Vec<SocketAddr>,
    /// A router is asked for a port.
    pub maps: bool,
    /// The driver can serve a relay.
    pub relays: bool,
    /// The wall-clock time when the node is made.
    pub unix: UnixTime,
    /// `User-Agent`, `Server`.
    pub software: String,
    /// The system's monotonic clock when the node is made: the ICE agent's library wants it. Without it calls have no ICE.
    pub system: Option<std::time::Instant>,
    /// Of the DTLS certificate that the media threads show; none where voice is not encrypted.
    pub voice_fingerprint: Option<Fingerprint>,
}

impl Setup {
    /// With the addresses that others are told, listening on the same.
    pub fn new(
        config: Config,
        identity: Option<Identity>,
        sip: SocketAddr,
        overlay: SocketAddr,
        unix: UnixTime,
    ) -> Setup {
        let name = identity.as_ref().map_or_else(|| config.overlay.name.clone(), |i| i.overlay().to_owned());
        Setup {
            config,
            identity,
            accounts: Accounts::new(&name),
            password: None,
            passwords: BTreeMap::new(),
            known_peers: Vec::new(),
            messages: Vec::new(),
            stored: None,
            damage: None,
            hosts: Vec::new(),
            nat: Vec::new(),
            revocations: Revocations::default(),
            settings: None,
            shares: None,
            attempts: None,
            acquaintances: Acquaintances::default(),
            former: None,
            merges: Merges::default(),
            first_connection: 1,
            sip_listen: sip,
            overlay_listen: overlay,
            sip,
            overlay,
            also: Vec::new(),
            maps: false,
            relays: false,
            unix,
            software: concat!("Chordial/", env!("CARGO_PKG_VERSION")).into(),
            system: None,
            voice_fingerprint: None,
        }
    }

    pub(super) fn locals(&self) -> Locals {
        Locals { sip: self.sip, overlay: self.overlay, clear: self.config.overlay.lab_clear }
    }

    /// How long an entry lives. One that names supernodes is renewed rarely: whoever hangs on them sends little.
    pub(super) fn lifetime_seconds(&self, kept: bool) -> u32 {
        let seconds = self.config.overlay.lifetime_seconds.max(2);
        if kept { seconds.max(KEPT_LIFETIME) } else { seconds }
    }

    pub(super) fn lifetime(&self, kept: bool) -> Duration {
        Duration::from_secs(u64::from(self.lifetime_seconds(kept)))
    }

    /// This user agent's contact for whoever comes by a link; with `ob` (RFC 5626) where nobody dials this node.
    pub(super) fn link_contact(&self, kept: bool) -> String {
        let mut contact = self.own_contact();
        if kept {
            contact.push_str(";ob");
        }
        contact
    }

    /// This node's end of the links, for the proxy.
    pub(super) fn link(&self, kept: bool) -> Option<router::Link> {
        let transport = if self.config.overlay.lab_clear { Transport::Udp } else { Transport::Tls };
        self.me().map(|me| router::Link { address: me.addr, transport, id: me.id, kept })
    }

    /// How a user is reached through a peer.
    pub(super) fn peer_uri(&self, user: Option<&str>, peer: &PeerRef) -> String {
        let mut uri = Uri::sip(user, &peer.addr.ip().to_string(), Some(peer.addr.port()));
        if !self.config.overlay.lab_clear {
            uri.params.set("transport", "tls");
        }
        uri.params.set("peer-ID", &peer.id.to_string());
        uri.to_string()
    }

    pub(super) fn me(&self) -> Option<PeerRef> {
        let identity = self.identity.as_ref()?;
        let clear = self.config.overlay.lab_clear;
        let id = if clear { address_peer_id(self.overlay) } else { identity.peer_id() };
        Some(PeerRef { id, addr: self.overlay })
    }

    fn user(&self) -> String {
        self.identity.as_ref().map_or_else(|| self.config.user.name.clone(), |i| i.user().to_owned())
    }

    /// This user agent's contact.
    pub(super) fn own_contact(&self) -> String {
        match self.me() {
            Some(me) => self.peer_uri(Some(&self.user()), &me),
            None => self.clear_uri(),
        }
    }

    /// This user agent's contacts: over links, and in clear.
    pub(super) fn contacts(&self) -> (String, String) {
        let plain = self.identity.is_none();
        (if plain { String::new() } else { self.own_contact() }, self.clear_uri())
    }

    fn clear_uri(&self) -> String {
        Uri::sip(Some(&self.user()), &self.sip.ip().to_string(), Some(self.sip.port())).to_string()
    }

    fn profile(&self) -> Profile {
        let account = &self.config.phone;
        let plain = self.identity.is_none();
        let aor = match &self.identity {
            Some(identity) => identity.aor(),
            None => {
                let domain = match (account.domain.as_str(), account.registrar) {
                    ("", Some(registrar)) => registrar.to_string(),
                    ("", None) => self.sip.to_string(),
                    (domain, _) => domain.to_owned(),
                };
                format!("sip:{}@{domain}", self.user())
            }
        };
        let (link_contact, clear_contact) = self.contacts();
        Profile {
            aor,
            link_contact,
            clear_contact,
            software: self.software.clone(),
            codecs: self.config.media.codec.clone(),
            auto_answer: self.config.user.auto_answer,
            ring: Duration::from_secs(u64::from(self.config.user.ring_seconds.max(1))),
            max_calls: MAX_CALLS,
            calls_waiting: self.config.user.calls_waiting as usize,
            session_seconds: self.config.sip.session_seconds,
            account: (plain && account.registrar.is_some()).then_some(super::outside::PHONE),
            keys: self
                .identity
                .as_ref()
                .zip(self.voice_fingerprint)
                .map(|(identity, fingerprint)| VoiceKeys { device: identity.device.clone(), fingerprint }),
            ice: if self.system.is_some() { self.config.media.ice } else { Ice::Off },
            second_path: self.config.media.second_path,
            encrypted_only: self.config.media.encryption == Encryption::Required,
        }
    }
}

/// The machines that a setup makes.
pub(super) struct Parts {
    pub overlay: Option<Box<dyn Overlay + Send>>,
    pub carry: Option<Carry>,
    pub ua: Ua,
    pub domain: Domain,
    pub registrar: Registrar,
    pub router: Router,
}

/// The overlay of this peer and what carries its messages.
fn ring_parts(setup: &Setup, rng: &mut Rng) -> (Option<Box<dyn Overlay + Send>>, Option<Carry>) {
    let overlay = setup.identity.as_ref().zip(setup.me()).map(|(identity, me)| {
        let base = if setup.config.overlay.plain_chord { chord::Config::plain() } else { chord::Config::default() };
        let office = matches!(identity.anchor, TrustAnchor::Office { .. });
        let config = chord::Config {
            own: Some(identity.device_key()),
            successor_replicas: usize::from(setup.config.overlay.replicas.saturating_sub(2)),
            scattered: setup.config.overlay.replicas > 1,
            successors: usize::from(setup.config.overlay.successors.max(1)),
            stabilise_max: Duration::from_millis(u64::from(setup.config.overlay.stabilize_ms.max(250))),
            ..if office { base.of_office() } else { base }
        };
        let verify = Box::new(Verifier::new(identity.anchor.clone(), REMEMBERED_CHAINS));
        let chord = Chord::new(me, config, verify, rng.fork());
        let verify = Box::new(Verifier::new(identity.anchor.clone(), REMEMBERED_CHAINS));
        Box::new(Tiered::new(chord, super::role::tier(setup), verify, rng.fork())) as Box<dyn Overlay + Send>
    });
    let name = setup.identity.as_ref().map_or(setup.config.overlay.name.as_str(), |i| i.overlay());
    let carry = setup.me().map(|me| {
        let mut carry = Carry::new(name, me, chord::Config::default().expires);
        // Without links that prove it, a peer-ID is that of its address.
        carry.peer_id = setup.config.overlay.lab_clear.then_some(address_peer_id as fn(SocketAddr) -> Id);
        carry
    });
    (overlay, carry)
}

pub(super) fn parts(_now: Instant, setup: &Setup, rng: &mut Rng) -> Parts {
    let (overlay, carry) = ring_parts(setup, rng);
    let name = setup.identity.as_ref().map_or(setup.config.overlay.name.as_str(), |i| i.overlay());
    let mut domain = Domain::new(name);
    domain.add_address(setup.sip);
    domain.add_address(setup.overlay);
    if let Some(me) = setup.me() {
        domain.set_peer(me.id);
    }
    domain.add_name("localhost", Some(setup.sip.port()));
    if let Some(former) = &setup.former {
        let renamed = former.statement.successor.iter().flat_map(|s| s.renamed.iter().cloned()).collect();
        domain.set_former(former.anchor.overlay(), renamed);
    }
    // Nonces and the passes of dialogs hold over a restart: their keys come from the device's.
    let mut secret = |purpose: &str| match &setup.identity {
        Some(identity) => blake3::derive_key(purpose, &**identity.device.seed().reveal()),
        None => {
            let mut key = [0; 32];
            rng.fill(&mut key);
            key
        }
    };
    let (nonces, passes) = (secret("chordial digest nonces v1"), secret("chordial proxy passes v1"));
    let auth = match setup.config.sip.phone_auth {
        PhoneAuth::Digest => registrar::Auth::Digest,
        PhoneAuth::None => registrar::Auth::None,
    };
    let registrar_config = registrar::Config {
        min_expires: setup.config.sip.min_expires,
        default_expires: setup.config.sip.default_expires,
        max_expires: setup.config.sip.max_expires,
        ..registrar::Config::new(domain.clone(), auth, nonces)
    };
    let registrar = Registrar::new(registrar_config, setup.accounts.clone(), rng.fork());
    let mut router = Router::new(router::Config::new(domain.clone(), setup.sip, setup.sip, passes), rng.fork());
    if let Some(link) = setup.link(false) {
        router.set_link(link);
    }
    Parts { overlay, carry, ua: Ua::new(setup.profile(), rng.fork()), domain, registrar, router }
}

impl Node {
    /// Joins or founds, registers, and tells what this node speaks for.
    pub(super) fn begin(&mut self, now: Instant) {
        let unix = self.unix(now);
        self.set_clock(now, unix);
        for aor in self.own_aors() {
            self.publisher.want(now, unix, &aor, true);
        }
        self.begin_people(now);
        self.begin_office(now);
        self.begin_mailbox(now);
        self.begin_ring(now);
        self.begin_outside(now);
    }

    /// The same node is another peer from now on: it has been given a place on the ring.
    pub(super) fn rebuild_overlay(&mut self, now: Instant) {
        (self.overlay, self.carry) = ring_parts(&self.setup, &mut self.rng);
        self.ring = super::ring::Ring::new(&self.setup);
        if let Some(link) = self.setup.link(false) {
            self.router.set_link(link);
        }
        self.ua.set_link_contact(self.setup.own_contact());
        let revoked = self.people.revoked.clone();
        self.overlay_input(now, crate::overlay::Input::Revoked { revoked });
    }

    /// The AORs of this device's own user: name and extensions.
    pub(super) fn own_aors(&self) -> Vec<String> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let names = std::iter::once(identity.user()).chain(identity.aliases().iter().map(String::as_str));
        names.map(|name| self.domain.aor(name)).collect()
    }
}
