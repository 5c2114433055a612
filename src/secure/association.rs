//! One call's DTLS association: the handshake, then the keys for its packets.
//!
//! DTLS packets, RTP and RTCP share a socket and are told apart by their first byte (RFC 7983). Nothing that arrives in clear
//! is taken once a call is to be secured, and nothing leaves before the other end's certificate has shown the
//! fingerprint that its description named.

use super::Fingerprint;
use super::srtp::Srtp;
use crate::core::Instant;
use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use rtc_srtp::protection_profile::ProtectionProfile;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The first flight comes again after this; a packet on a LAN needs a thousandth of it.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Datagrams of one flight that may wait to be sent.
const FLIGHT: usize = 32;
/// Largest datagram of a handshake.
const DATAGRAM: usize = 2048;

/// A DTLS certificate and its key, of one process.
#[derive(Clone)]
pub struct Keys {
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
}

impl Keys {
    /// From DER: an X.509 certificate with a P-256 key, and that key in PKCS #8.
    pub fn new(certificate: Vec<u8>, private_key: Vec<u8>) -> Keys {
        let fingerprint = Fingerprint::of(&certificate);
        Keys { certificate: DtlsCertificate { certificate, private_key }, fingerprint }
    }

    /// What descriptions say of it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.fingerprint)
    }
}

/// Where an association stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The handshake runs.
    Handshake,
    /// Packets are protected.
    Established,
    /// The handshake failed, or the certificate is not the one that was named; nothing goes in or out any more.
    Failed(&'static str),
}

/// See the module. One for each call.
pub struct Association {
    dtls: Dtls,
    /// The two clocks at one moment: the library wants the system's, and reads none.
    clocks: (Instant, std::time::Instant),
    expected: Fingerprint,
    client: bool,
    state: State,
    /// The certificate shown is the one named.
    proven: bool,
    srtp: Option<Srtp>,
    due: Option<Instant>,
    out: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Association {
    /// Begins. `system` is the system's monotonic clock at `now`; `client` is who said `a=setup:active`; `expected` what the
    /// other end's description named.
    pub fn new(
        now: Instant,
        system: std::time::Instant,
        keys: &Keys,
        expected: Fingerprint,
        client: bool,
    ) -> Association {
        let config = Config::builder()
            .with_crypto_provider(dimpl::crypto::rust_crypto::default_provider())
            .flight_start_rto(FIRST_RETRY)
            .handshake_timeout(HANDSHAKE)
            .build();
        let (config, state) = match config {
            Ok(config) => (config, State::Handshake),
            Err(_) => (Config::default(), State::Failed("DTLS cannot be set up")),
        };
        let mut dtls = Dtls::new_12(Arc::new(config), keys.certificate.clone(), system);
        dtls.set_active(client);
        let mut made = Association {
            dtls,
            clocks: (now, system),
            expected,
            client,
            state,
            proven: false,
            srtp: None,
            due: None,
            out: VecDeque::new(),
            buffer: vec![0; DATAGRAM],
        };
        made.handle_timeout(now);
        made
    }

    /// True for a datagram that belongs to DTLS (RFC 7983).
    pub fn is_dtls(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(20..=63))
    }

    /// A DTLS datagram arrived.
    pub fn handle(&mut self, datagram: &[u8]) {
        if matches!(self.state, State::Failed(_)) {
            return;
        }
        if self.dtls.handle_packet(datagram).is_err() {
            self.fail("the DTLS handshake failed");
        }
        self.drain();
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Failed(_)) {
            return;
        }
        let system = self.clocks.1 + now.since(self.clocks.0);
        if self.dtls.handle_timeout(system).is_err() {
            self.fail("the DTLS handshake took too long");
        }
        self.drain();
    }

    /// When [`Association::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next DTLS datagram to send.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// An RTP packet, protected; `None` before the handshake is done.
    pub fn protect_rtp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.protect_rtp(plain)
    }

    /// An RTCP packet, protected.
    pub fn protect_rtcp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.protect_rtcp(plain)
    }

    /// The RTP packet in a protected one; `None` when it is not authentic, was seen before, or there are no keys yet.
    pub fn unprotect_rtp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.unprotect_rtp(packet)
    }

    /// The same of RTCP.
    pub fn unprotect_rtcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.unprotect_rtcp(packet)
    }

    fn fail(&mut self, why: &'static str) {
        self.state = State::Failed(why);
        self.srtp = None;
        self.due = None;
    }

    fn drain(&mut self) {
        let mut keys = None;
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(packet) if self.out.len() < FLIGHT => self.out.push_back(packet.to_vec()),
                Output::BufferTooSmall { needed } => self.buffer.resize(needed.min(1 << 16), 0),
                Output::PeerCert(der) => self.proven = Fingerprint::of(der) == self.expected,
                Output::KeyingMaterial(material, profile) => {
                    keys = profile_of(profile).and_then(|profile| Srtp::new(profile, &material, self.client));
                }
                Output::Timeout(at) => {
                    self.due = Some(self.clocks.0 + at.saturating_duration_since(self.clocks.1));
                    break;
                }
                _ => {}
            }
        }
        if matches!(self.state, State::Failed(_)) {
            self.due = None;
            return;
        }
        if let Some(srtp) = keys {
            if self.proven {
                self.srtp = Some(srtp);
                self.state = State::Established;
            } else {
                self.fail("the certificate is not the one that the call was set up with");
            }
        }
    }
}

fn profile_of(profile: SrtpProfile) -> Option<ProtectionProfile> {
    Some(match profile {
        SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        _ => return None,
    })
}
