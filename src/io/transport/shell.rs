//! The certificate that a device shows on a link: X.509 v3, self-signed with the device's Ed25519 key (RFC 8410), whose
//! extension [`CHAIN_OID`] holds the device's chain, as CBOR within an OCTET STRING. Names and dates of this shell mean
//! nothing, nor does its own signature.

use crate::identity::{Chain, IdentityError, KeyPair, PublicKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The extension that carries the chain. An arc under 2.25 needs no registration.
const CHAIN_OID: &[u64] = &[2, 25, 5_277_650_180_446_331_629];
/// RFC 8410 section 3.
const ED25519_OID: &[u64] = &[1, 3, 101, 112];
/// The PKCS #8 encoding of an Ed25519 key (RFC 8410 section 7), up to the seed.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

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
pub(super) fn open_shell(der: &CertificateDer<'_>) -> Result<(PublicKey, Option<Chain>), IdentityError> {
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

/// The key as TLS and X.509 libraries take it.
pub(super) fn pkcs8(key: &KeyPair) -> Vec<u8> {
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
