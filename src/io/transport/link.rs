//! TLS 1.3 between peers.
//!
//! Each end shows a certificate of its device's key with the chain in it ([`super::shell`]); the handshake proves the
//! key, and the chain says whose it is. Whoever has no chain yet shows the shell alone. A chain that holds in itself and
//! not here is another overlay's ([`Foreign`]): taken from whoever dials, dialled where that is what is wanted.

use super::close::ConnectError;
use super::listen::BindError;
use super::shell::{open_shell, pkcs8, shell};
use crate::core::UnixTime;
use crate::identity::{
    Chain, Claims, Expect, Foreign, Identity, IdentityError, Joining, KeyPair, Proven, PublicKey, Revoked,
    RootFingerprint, TrustAnchor, Verified, Verifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsConnector, client, server};

/// As IANA lists SIP for ALPN.
const ALPN: &[u8] = b"sip/2";
/// Whether a name in a handshake asks for a link.
pub(super) fn wants_link(alpn: &[u8]) -> bool {
    alpn == ALPN
}

/// Chains remembered.
const REMEMBERED: usize = 1024;

/// Who we are on a link, and whom we take.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The key that the handshake proves.
    pub device: KeyPair,
    /// What says whose it is; `None` while there is nothing.
    pub chain: Option<Chain>,
    /// What the other end has to show.
    pub trust: Trust,
}

/// What makes the other end one of us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// A chain to this anchor.
    Anchor(TrustAnchor),
    /// For enrolment: a chain to an office's root with this fingerprint, or of the user whose key has it.
    Enrolment(RootFingerprint),
    /// For who does not know the office yet: a chain of any office, or of any of this name, to whatever root it names.
    /// It proves nothing but that the other end holds together; what is said there has to prove the rest.
    AnyOffice(Option<String>),
}

impl Credentials {
    /// Those of a member.
    pub fn of(identity: &Identity) -> Credentials {
        let trust = Trust::Anchor(identity.anchor.clone());
        Credentials { device: identity.device.clone(), chain: Some(identity.chain.clone()), trust }
    }

    /// Those of who has nothing but a name and a password, or a short code: a key for this link alone.
    pub fn stranger(device: KeyPair, office: Option<String>) -> Credentials {
        Credentials { device, chain: None, trust: Trust::AnyOffice(office) }
    }

    /// Those of who has a code and nothing else.
    pub fn joining(joining: &Joining) -> Credentials {
        Credentials { device: joining.device().clone(), chain: None, trust: Trust::Enrolment(joining.root()) }
    }
}

/// Both sides' configuration, made of one set of credentials.
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    connector: TlsConnector,
    judge: Arc<Judge>,
    /// For links to other overlays.
    abroad: (TlsConnector, Arc<Judge>),
}

impl Tls {
    pub(super) fn new(credentials: &Credentials) -> Result<Tls, BindError> {
        let shell = shell(&credentials.device, credentials.chain.as_ref()).ok_or(BindError::Certificate)?;
        Tls::with_shell(credentials, shell).ok_or(BindError::Certificate)
    }

    /// Refuses these keys in handshakes from now on.
    pub(super) fn revoke(&self, revoked: Arc<Revoked>) {
        if let Known::Anchor(verifier) = &self.judge.trust {
            verifier.lock().unwrap_or_else(PoisonError::into_inner).revoke(revoked);
        }
    }

    /// The server's side of a handshake whose first message has been read. Nobody: a stranger.
    pub(super) async fn resume(
        &self,
        begun: server::StartHandshake<TcpStream>,
    ) -> io::Result<(server::TlsStream<TcpStream>, Proven)> {
        let stream = begun.into_stream(self.server.clone()).await?;
        self.judged(stream)
    }

    fn judged(&self, stream: server::TlsStream<TcpStream>) -> io::Result<(server::TlsStream<TcpStream>, Proven)> {
        let shown = stream.get_ref().1.peer_certificates();
        let peer = self.judge.peer(shown).or_else(|_| self.abroad.1.peer(shown)).unwrap_or_default();
        // Of this overlay, and refused by it: revoked, say. That makes nobody a guest.
        let refused = peer.foreign().is_some_and(|foreign| self.judge.is_own(foreign));
        Ok((stream, if refused { Proven::Nobody } else { peer }))
    }

    /// The client's side of a handshake.
    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
        expect: Expect,
    ) -> Result<(client::TlsStream<TcpStream>, Proven), ConnectError> {
        let (connector, judge) = match expect {
            Expect::Foreign => (&self.abroad.0, &self.abroad.1),
            Expect::Member | Expect::Peer(_) => (&self.connector, &self.judge),
        };
        // Sent to nobody: SNI is off. The peer is known by its key.
        let name = ServerName::IpAddress(remote.ip().into());
        let stream = connector.connect(name, tcp).await.map_err(|e| failure(remote, e))?;
        let peer = judge.peer(stream.get_ref().1.peer_certificates());
        let peer = peer.map_err(|refusal| refusal.at(remote))?;
        if let (Expect::Peer(expected), Proven::Member(peer)) = (expect, &peer)
            && peer.peer_id != expected
        {
            return Err(ConnectError::OtherPeer { addr: remote, expected, found: peer.peer_id });
        }
        Ok((stream, peer))
    }

    /// Whom a certificate would make the other end.
    #[cfg(test)]
    pub(super) fn identify(&self, shell: &CertificateDer<'_>) -> Result<Verified, ConnectError> {
        let now = rustls_pki_types::UnixTime::now();
        self.judge.member(shell, now).map_err(|refusal| refusal.at(([127, 0, 0, 1], 0).into()))
    }

    fn with_shell(credentials: &Credentials, shell: CertificateDer<'static>) -> Option<Tls> {
        let provider = Arc::new(ring::default_provider());
        let judge = Arc::new(Judge::new(&credentials.trust, provider.clone()));
        let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8(&credentials.device)));

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .ok()?
            .with_client_cert_verifier(judge.clone())
            .with_single_cert(vec![shell.clone()], key())
            .ok()?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![ALPN.to_vec()];

        let client = |judge: Arc<Judge>| {
            let mut client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&TLS13])
                .ok()?
                .dangerous()
                .with_custom_certificate_verifier(judge)
                .with_client_auth_cert(vec![shell.clone()], key())
                .ok()?;
            client.resumption = Resumption::disabled();
            client.enable_sni = false;
            client.alpn_protocols = vec![ALPN.to_vec()];
            Some(TlsConnector::from(Arc::new(client)))
        };
        let abroad = Arc::new(Judge { trust: Known::Anyone, provider: provider.clone() });
        Some(Tls {
            server: Arc::new(server),
            connector: client(judge.clone())?,
            abroad: (client(abroad.clone())?, abroad),
            judge,
        })
    }
}

/// Why the other end is not one of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("not of the office that the code is for")]
    NotTheOffice,
    #[error(transparent)]
    Chain(#[from] IdentityError),
}

impl Refusal {
    fn at(self, remote: SocketAddr) -> ConnectError {
        match self {
            Refusal::NotTheOffice => ConnectError::NotTheOffice(remote),
            Refusal::Chain(error) => ConnectError::NotOurs(remote, error),
        }
    }
}

/// Decides who the other end is; for rustls, and once more, from memory, for the node.
struct Judge {
    trust: Known,
    provider: Arc<CryptoProvider>,
}

enum Known {
    Anchor(Mutex<Verifier>),
    Enrolment(RootFingerprint),
    AnyOffice(Option<String>),
    /// Any chain that holds in itself.
    Anyone,
}

impl Judge {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Judge {
        let trust = match trust {
            Trust::Anchor(anchor) => Known::Anchor(Mutex::new(Verifier::new(anchor.clone(), REMEMBERED))),
            Trust::Enrolment(root) => Known::Enrolment(*root),
            Trust::AnyOffice(name) => Known::AnyOffice(name.clone()),
        };
        Judge { trust, provider }
    }

    /// Of an open connection, whose handshake has proven the key.
    fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Proven, Refusal> {
        let shell = certificates.and_then(<[_]>::first).ok_or(IdentityError::Malformed("link certificate"))?;
        let now = rustls_pki_types::UnixTime::now();
        match self.trust {
            Known::Anyone => Ok(Proven::Foreign(Arc::new(foreign(shell, now)?))),
            _ => Ok(Proven::Member(Arc::new(self.member(shell, now)?))),
        }
    }

    /// True for a chain that claims to be of the overlay that is ours.
    fn is_own(&self, foreign: &Foreign) -> bool {
        match &self.trust {
            Known::Anchor(verifier) => {
                *verifier.lock().unwrap_or_else(PoisonError::into_inner).anchor() == foreign.anchor
            }
            _ => false,
        }
    }

    /// Who shows `shell`, if the handshake proves its key.
    fn member(&self, shell: &CertificateDer<'_>, now: rustls_pki_types::UnixTime) -> Result<Verified, Refusal> {
        let (device, chain) = open_shell(shell)?;
        self.judge(device, chain.ok_or(IdentityError::Shape("device"))?, UnixTime(now.as_secs()))
    }

    fn judge(&self, device: PublicKey, chain: Chain, now: UnixTime) -> Result<Verified, Refusal> {
        let verified = match &self.trust {
            Known::Anchor(verifier) => {
                verifier.lock().unwrap_or_else(PoisonError::into_inner).verify_chain(&chain, now)?
            }
            Known::Enrolment(fingerprint) => {
                office_of(&chain, |_, root| RootFingerprint::of(root) == *fingerprint)?.verify_chain(&chain, now)?
            }
            Known::AnyOffice(name) => office_of(&chain, |overlay, _| name.as_ref().is_none_or(|name| name == overlay))?
                .verify_chain(&chain, now)?,
            Known::Anyone => Foreign::of(&chain, now)?.verified,
        };
        // The chain must be about the very key that the handshake proves.
        if verified.device == device { Ok(verified) } else { Err(IdentityError::Shape("device").into()) }
    }

    fn check_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.member(end_entity, now) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(CertificateError::Other(OtherError(Arc::new(refusal))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Takes every key: whose chain does not hold is a stranger, and that is decided when the link is open.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match open_shell(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(Refusal::Chain(error)))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Who shows `shell`, in whatever overlay.
fn foreign(shell: &CertificateDer<'_>, now: rustls_pki_types::UnixTime) -> Result<Foreign, IdentityError> {
    let (device, chain) = open_shell(shell)?;
    let foreign = Foreign::of(&chain.ok_or(IdentityError::Shape("device"))?, UnixTime(now.as_secs()))?;
    if foreign.verified.device == device { Ok(foreign) } else { Err(IdentityError::Shape("device")) }
}

/// The overlay that a chain claims to be of, when its name and a key of it are what is looked for: an office's root, or the user
/// who shows it.
fn office_of(chain: &Chain, is_it: impl Fn(&str, &PublicKey) -> bool) -> Result<TrustAnchor, Refusal> {
    let first = chain.certificates().first().ok_or(Refusal::NotTheOffice)?;
    let user = chain.user_key().is_some_and(|key| is_it(&first.overlay, &key));
    match first.claims {
        Claims::Enroller if user || is_it(&first.overlay, &first.issuer) => {
            Ok(TrustAnchor::Office { overlay: first.overlay.clone(), root: first.issuer })
        }
        Claims::User(_) if user => Ok(TrustAnchor::Open { overlay: first.overlay.clone() }),
        _ => Err(Refusal::NotTheOffice),
    }
}

/// Why a handshake that we began failed; our own verdict is inside rustls' error.
fn failure(remote: SocketAddr, error: io::Error) -> ConnectError {
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
        error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>())
        && let Some(refusal) = inner.downcast_ref::<Refusal>()
    {
        return refusal.at(remote);
    }
    ConnectError::Handshake(remote, error)
}
