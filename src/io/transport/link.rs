//! TLS 1.3 between peers.
//!
//! The certificate shown is an X.509 v3 certificate, self-signed with the device's Ed25519 key (RFC 8410), whose extension
//! [`CHAIN_OID`] holds the device's chain, as CBOR within an OCTET STRING. Names and dates of the X.509 shell mean nothing;
//! the handshake proves the key, and the chain says whose it is. Whoever has no chain yet shows the shell alone.

use super::close::ConnectError;
use super::listen::BindError;
use crate::core::UnixTime;
use crate::identity::{
    Chain, Claims, Identity, IdentityError, Joining, KeyPair, PublicKey, RootFingerprint, TrustAnchor, Verified,
    Verifier,
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
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The extension that carries the chain. An arc under 2.25 needs no registration.
pub(super) const CHAIN_OID: &[u64] = &[2, 25, 5_277_650_180_446_331_629];
/// RFC 8410 section 3.
const ED25519_OID: &[u64] = &[1, 3, 101, 112];
/// The PKCS #8 encoding of an Ed25519 key (RFC 8410 section 7), up to the seed.
pub(super) const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// As IANA lists SIP for ALPN.
const ALPN: &[u8] = b"sip/2";
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
    /// For enrolment: a chain to an office's root with this fingerprint.
    Enrolment(RootFingerprint),
}

impl Credentials {
    /// Those of a member.
    pub fn of(identity: &Identity) -> Credentials {
        let trust = Trust::Anchor(identity.anchor.clone());
        Credentials { device: identity.device.clone(), chain: Some(identity.chain.clone()), trust }
    }

    /// Those of who has a code and nothing else.
    pub fn joining(joining: &Joining) -> Credentials {
        Credentials { device: joining.device().clone(), chain: None, trust: Trust::Enrolment(joining.root()) }
    }
}

/// Both sides' configuration, made of one set of credentials.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    judge: Arc<Judge>,
}

impl Tls {
    pub(super) fn new(credentials: &Credentials) -> Result<Tls, BindError> {
        let shell = shell(&credentials.device, credentials.chain.as_ref()).ok_or(BindError::Certificate)?;
        Tls::with_shell(credentials, shell).ok_or(BindError::Certificate)
    }

    /// The server's side of a handshake. No peer: a stranger.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
    ) -> io::Result<(server::TlsStream<TcpStream>, Option<Arc<Verified>>)> {
        let stream = self.acceptor.accept(tcp).await?;
        let peer = self.judge.peer(stream.get_ref().1.peer_certificates());
        Ok((stream, peer.ok().map(Arc::new)))
    }

    /// The client's side of a handshake.
    pub(super) async fn connect(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
    ) -> Result<(client::TlsStream<TcpStream>, Arc<Verified>), ConnectError> {
        // Sent to nobody: SNI is off. The peer is known by its key.
        let name = ServerName::IpAddress(remote.ip().into());
        let stream = self.connector.connect(name, tcp).await.map_err(|e| failure(remote, e))?;
        let peer = self.judge.peer(stream.get_ref().1.peer_certificates());
        let peer = peer.map_err(|refusal| refusal.at(remote))?;
        Ok((stream, Arc::new(peer)))
    }

    /// Whom a certificate would make the other end.
    #[cfg(test)]
    pub(super) fn identify(&self, shell: &CertificateDer<'_>) -> Result<Verified, ConnectError> {
        self.judge.peer(Some(std::slice::from_ref(shell))).map_err(|refusal| refusal.at(([127, 0, 0, 1], 0).into()))
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

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(judge.clone())
            .with_client_auth_cert(vec![shell], key())
            .ok()?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![ALPN.to_vec()];

        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        Some(Tls { acceptor, connector, judge })
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
}

impl Judge {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Judge {
        let trust = match trust {
            Trust::Anchor(anchor) => Known::Anchor(Mutex::new(Verifier::new(anchor.clone(), REMEMBERED))),
            Trust::Enrolment(root) => Known::Enrolment(*root),
        };
        Judge { trust, provider }
    }

    /// Of an open connection, whose handshake has proven the key.
    fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Verified, Refusal> {
        let shell = certificates.and_then(<[_]>::first).ok_or(IdentityError::Malformed("link certificate"))?;
        self.member(shell, rustls_pki_types::UnixTime::now())
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
            Known::Enrolment(fingerprint) => office_of(&chain, *fingerprint)?.verify_chain(&chain, now)?,
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

/// The office that a chain claims to be of, when its root is the one that the invite names.
fn office_of(chain: &Chain, fingerprint: RootFingerprint) -> Result<TrustAnchor, Refusal> {
    let enroller = chain.certificates().first().filter(|c| c.claims == Claims::Enroller);
    let enroller = enroller.ok_or(Refusal::NotTheOffice)?;
    if RootFingerprint::of(&enroller.issuer) != fingerprint {
        return Err(Refusal::NotTheOffice);
    }
    Ok(TrustAnchor::Office { overlay: enroller.overlay.clone(), root: enroller.issuer })
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

/// The X.509 certificate around a key and its chain.
pub(super) fn shell(device: &KeyPair, chain: Option<&Chain>) -> Option<CertificateDer<'static>> {
    let key = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8(device))).ok()?;
    let mut params = rcgen::CertificateParams::new(Vec::new()).ok()?;
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "chordial");
    params.distinguished_name = name;
    if let Some(chain) = chain {
        let content = octet_string(chain.encoded())?;
        params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(CHAIN_OID, content));
    }
    Some(params.self_signed(&key).ok()?.der().clone())
}

/// Key and chain out of a certificate. Its own signature is of no matter: the handshake proves the key.
fn open_shell(der: &CertificateDer<'_>) -> Result<(PublicKey, Option<Chain>), IdentityError> {
    const WHAT: IdentityError = IdentityError::Malformed("link certificate");
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| WHAT)?;
    let spki = certificate.public_key();
    let algorithm = x509_parser::der_parser::Oid::from(ED25519_OID).map_err(|_| WHAT)?;
    if !rest.is_empty() || spki.algorithm.algorithm != algorithm {
        return Err(WHAT);
    }
    let key = PublicKey(spki.subject_public_key.data.as_ref().try_into().map_err(|_| WHAT)?);
    let oid = x509_parser::der_parser::Oid::from(CHAIN_OID).map_err(|_| WHAT)?;
    let mut extensions = certificate.extensions().iter().filter(|e| e.oid == oid);
    let Some(extension) = extensions.next() else { return Ok((key, None)) };
    let content = from_octet_string(extension.value).ok_or(WHAT)?;
    if extensions.next().is_some() {
        return Err(WHAT);
    }
    Ok((key, Some(Chain::decode(content)?)))
}

fn pkcs8(key: &KeyPair) -> Vec<u8> {
    let mut der = PKCS8_PREFIX.to_vec();
    der.extend_from_slice(&**key.seed().reveal());
    der
}

/// DER of an OCTET STRING shorter than 64 KiB.
fn octet_string(bytes: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(bytes.len()).ok()?.to_be_bytes();
    let mut der = match (high, low) {
        (0, 0..=127) => vec![4, low],
        (0, _) => vec![4, 0x81, low],
        _ => vec![4, 0x82, high, low],
    };
    der.extend_from_slice(bytes);
    Some(der)
}

fn from_octet_string(der: &[u8]) -> Option<&[u8]> {
    let content = match der {
        [4, 0x82, _, _, content @ ..] | [4, 0x81, _, content @ ..] | [4, _, content @ ..] => content,
        _ => return None,
    };
    (octet_string(content)? == der).then_some(content)
}
