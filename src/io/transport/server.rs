//! TLS to servers of standard SIP: registrars and proxies of accounts (RFC 5922). The certificate has to be good for the name that the
//! account is of, by an authority of this machine's or of the file that the owner names. Nothing of this device is shown there.

use super::close::ConnectError;
use super::dial;
use super::shared::{Line, Shared};
use super::{Event, stream};
use crate::core::{ConnId, Flow, Transport};
use crate::identity::Proven;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Opens one connection and runs it to its end.
pub(super) async fn dial(
    shared: Arc<Shared>,
    conn: ConnId,
    remote: SocketAddr,
    name: String,
    authorities: PathBuf,
    line: Line,
) {
    if let Err(why) = attempt(&shared, conn, remote, &name, &authorities, line).await {
        shared.close(conn);
        let _ = shared.events.send(Event::ConnectFailed { conn, why }).await;
    }
}

async fn attempt(
    shared: &Shared,
    conn: ConnId,
    remote: SocketAddr,
    name: &str,
    authorities: &Path,
    line: Line,
) -> Result<(), ConnectError> {
    let fault = |e: io::Error| ConnectError::Server { addr: remote, name: name.to_owned(), why: e };
    let connector = connector(authorities).map_err(fault)?;
    let server = ServerName::try_from(name.to_owned()).map_err(|e| fault(io::Error::other(e)))?;
    let over = |tcp: TcpStream, _| {
        let (connector, server) = (connector.clone(), server.clone());
        async move {
            let local = tcp.local_addr().map_err(|e| ConnectError::Io(remote, e))?;
            match timeout(shared.limits.handshake, connector.connect(server, tcp)).await {
                Ok(tls) => Ok((tls.map_err(fault)?, local)),
                Err(_) => Err(ConnectError::Timeout(remote)),
            }
        }
    };
    let straight = async { over(dial::connect(shared.source, remote).await?, remote).await };
    let ((tls, local), _tunnel) = dial::or_by_proxy(shared, (remote, Some(name)), straight, None, over).await?;
    let flow = Flow::stream(Transport::Tls, local, remote, conn);
    dial::opened(shared, Event::Connected { conn, flow, peer: Proven::Nobody }, &line).await;
    let why = stream::run(shared, conn, tls, line).await;
    shared.closed(conn, why).await;
    Ok(())
}

fn connector(authorities: &Path) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let named = (!authorities.as_os_str().is_empty()).then(|| authorities.to_owned());
    let system = || SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
    let file = named.or_else(system).ok_or_else(|| io::Error::other("this machine has no list of authorities"))?;
    let read = CertificateDer::pem_file_iter(&file);
    let read = read.map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
    // One that cannot be read is one authority less.
    roots.add_parsable_certificates(read.filter_map(Result::ok));
    if roots.is_empty() {
        return Err(io::Error::other(format!("{} has no certificate", file.display())));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
