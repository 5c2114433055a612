//! TLS 1.2 and 1.3 for standard phones and browsers, at the port that takes links: who asks for no link in its first message is a phone.
//!
//! The certificate is the owner's (PEM files, read again when they change: an ACME client renews them), or one that this device makes
//! once and keeps, which a phone has to be told to trust. Phones show none; they prove who they are by digest.

use super::listen::BindError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// What phones and browsers name in a handshake, where they name anything.
const ALPN: [&[u8]; 2] = [b"sip", b"http/1.1"];
/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(60);
/// The first and the last year in which a certificate of our own holds.
const YEARS: (i32, i32) = (2024, 2049);

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Files of the owner.
    Files {
        /// The chain, PEM, the device's own first.
        chain: PathBuf,
        /// The private key, PEM.
        key: PathBuf,
    },
    /// Chain and key in one PEM text.
    Own(String),
}

/// Why a certificate cannot be used: what, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct CertificateError {
    place: String,
    fault: String,
}

impl From<CertificateError> for BindError {
    fn from(error: CertificateError) -> BindError {
        BindError::PhoneCertificate(error.to_string())
    }
}

/// Makes a certificate with its key, in PEM, that holds for these names and addresses.
///
/// # Errors
/// The system has no randomness.
pub fn make(names: &[String], addresses: &[IpAddr]) -> Result<String, CertificateError> {
    let fault = |e: rcgen::Error| CertificateError { place: "certificate for phones".into(), fault: e.to_string() };
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(fault)?;
    params.subject_alt_names.extend(addresses.iter().map(|ip| rcgen::SanType::IpAddress(*ip)));
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, names.first().map_or("chordial", String::as_str));
    params.distinguished_name = name;
    params.not_before = rcgen::date_time_ymd(YEARS.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(YEARS.1, 12, 31);
    let key = rcgen::KeyPair::generate().map_err(fault)?;
    let certificate = params.self_signed(&key).map_err(fault)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// The server's side of phones' handshakes.
pub(super) struct Phones {
    source: Certificate,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Phones {
    pub(super) fn new(source: Certificate) -> Result<Phones, CertificateError> {
        let current = Current { config: read(&source)?, changed: changed(&source), looked: Instant::now() };
        Ok(Phones { source, current: Mutex::new(current) })
    }

    /// Whether a handshake asks for what phones and browsers speak.
    pub(super) fn wants(hello: &ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut names| names.any(|name| ALPN.contains(&name)))
    }

    /// The configuration for one handshake. Files that have changed are read again; what cannot be read leaves the old one.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            self.look(&mut current);
        }
        current.config.clone()
    }

    fn look(&self, current: &mut Current) {
        current.looked = Instant::now();
        let changed = changed(&self.source);
        if changed == current.changed {
            return;
        }
        match read(&self.source) {
            Ok(config) => {
                tracing::info!("the certificate for phones was read again");
                (current.config, current.changed) = (config, changed);
            }
            // Perhaps one of two files is written and the other not yet: the next look tells.
            Err(error) => tracing::warn!(%error, "the certificate for phones stays what it was"),
        }
    }
}

/// When the younger of the two files was written.
fn changed(source: &Certificate) -> Option<SystemTime> {
    let Certificate::Files { chain, key } = source else { return None };
    let written = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    written(chain).max(written(key))
}

fn read(source: &Certificate) -> Result<Arc<ServerConfig>, CertificateError> {
    let (chain, key, places) = match source {
        Certificate::Own(pem) => (pem.clone(), pem.clone(), ["certificate for phones".to_owned(), String::new()]),
        Certificate::Files { chain, key } => {
            let text = |path: &PathBuf| {
                let fault = |e: io::Error| CertificateError { place: path.display().to_string(), fault: e.to_string() };
                std::fs::read_to_string(path).map_err(fault)
            };
            (text(chain)?, text(key)?, [chain.display().to_string(), key.display().to_string()])
        }
    };
    let [of_chain, of_key] = places;
    let at = |place: &str| {
        let place = place.to_owned();
        move |fault: &dyn std::fmt::Display| CertificateError { place, fault: fault.to_string() }
    };
    let certificates: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let certificates = certificates.map_err(|e| at(&of_chain)(&e))?;
    if certificates.is_empty() {
        return Err(at(&of_chain)(&"no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| at(&of_key)(&e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| at(&of_chain)(&e))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|e| at(&of_chain)(&e))?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &tempfile::TempDir, pem: &str) -> Certificate {
        let at = pem.find("-----BEGIN PRIVATE KEY").expect("a key");
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        std::fs::write(&chain, &pem[..at]).expect("written");
        std::fs::write(&key, &pem[at..]).expect("written");
        Certificate::Files { chain, key }
    }

    #[test]
    fn files_are_read_again_when_they_change_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = make(&["a.example".into()], &[]).expect("made");
        let source = files(&dir, &first);
        let phones = Phones::new(source.clone()).expect("read");
        let before = phones.config();
        let look = || {
            phones.look(&mut phones.current.lock().expect("whole"));
            phones.config()
        };
        assert!(Arc::ptr_eq(&before, &look()));
        let Certificate::Files { chain, .. } = &source else { unreachable!() };
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::write(chain, "no PEM").expect("written");
        std::fs::File::options().write(true).open(chain).and_then(|f| f.set_modified(later)).expect("dated");
        assert!(Arc::ptr_eq(&before, &look()));
        files(&dir, &make(&["b.example".into()], &["192.0.2.1".parse().expect("an address")]).expect("made"));
        assert!(!Arc::ptr_eq(&before, &look()));
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (make(&["a".into()], &[]).expect("made"), make(&["b".into()], &[]).expect("made"));
        let Certificate::Files { chain, key } = files(&dir, &one) else { unreachable!() };
        let fault = |chain: &PathBuf, key: &PathBuf| {
            let (chain, key) = (chain.clone(), key.clone());
            Phones::new(Certificate::Files { chain, key }).err().expect("refused").to_string()
        };
        assert!(fault(&dir.path().join("none.pem"), &key).contains("none.pem: "));
        assert!(fault(&key, &key).contains("no certificate in PEM"));
        assert!(fault(&chain, &chain).starts_with(&format!("{}: ", chain.display())));
        // The key of another one.
        std::fs::write(&key, &other[other.find("-----BEGIN PRIVATE KEY").expect("a key")..]).expect("written");
        assert!(fault(&chain, &key).contains("chain.pem: "));
    }
}
