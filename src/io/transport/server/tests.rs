use super::super::{Config, Endpoint};
use super::*;
use bytes::Bytes;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// A server whose certificate is good for `localhost`, and the file of its authority.
async fn server(dir: &Path) -> (SocketAddr, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let file = dir.join("authority.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut buffer = [0; 1024];
            if let Ok(length @ 1..) = tls.read(&mut buffer).await {
                assert!(buffer[..length].starts_with(b"OPTIONS"));
                tls.write_all(b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    });
    (addr, file)
}

#[tokio::test]
async fn the_certificate_has_to_be_good_for_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (addr, file) = server(dir.path()).await;
    let (endpoint, mut events) =
        Endpoint::bind(Config { sip: Some("127.0.0.1:0".parse().unwrap()), ..Config::default() }).unwrap();
    endpoint.connect_server(ConnId(1), addr, "localhost", &file);
    assert!(matches!(events.recv().await, Some(Event::Connected { conn: ConnId(1), peer: Proven::Nobody, .. })));
    endpoint.write(ConnId(1), Bytes::from_static(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n"));
    match events.recv().await {
        Some(Event::Frame { bytes, .. }) => assert!(bytes.starts_with(b"SIP/2.0 200")),
        other => panic!("{other:?}"),
    }
    endpoint.connect_server(ConnId(2), addr, "itsp.test", &file);
    let refused = |event: Option<Event>, id| match event {
        Some(Event::ConnectFailed { conn, why: ConnectError::Server { .. } }) => assert_eq!(conn, ConnId(id)),
        other => panic!("{other:?}"),
    };
    let mut next = events.recv().await;
    while matches!(next, Some(Event::Closed { .. })) {
        next = events.recv().await;
    }
    refused(next, 2);
    // An authority that this machine does not know.
    let other = dir.path().join("other.pem");
    std::fs::write(&other, rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap().cert.pem()).unwrap();
    endpoint.connect_server(ConnId(3), addr, "localhost", &other);
    refused(events.recv().await, 3);
    endpoint.connect_server(ConnId(4), addr, "localhost", &dir.path().join("none"));
    refused(events.recv().await, 4);
}

#[tokio::test]
async fn a_server_is_reached_by_the_proxy_under_its_own_name() {
    use crate::io::proxy::tests::{LONG, Script, proxy};
    let dir = tempfile::tempdir().unwrap();
    let (addr, file) = server(dir.path()).await;
    let (at, mut requests) = proxy(Script::Carry(addr)).await;
    let proxy = Some(crate::io::proxy::Proxy::anywhere(&at.to_string(), LONG));
    let (endpoint, mut events) =
        Endpoint::bind(Config { sip: Some("127.0.0.1:0".parse().unwrap()), proxy, ..Config::default() }).unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    endpoint.connect_server(ConnId(1), nowhere, "itsp.test", &file);
    match events.recv().await {
        Some(Event::ConnectFailed { conn: ConnId(1), why }) => assert!(why.to_string().contains("itsp.test"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(requests.recv().await.unwrap().starts_with(&format!("CONNECT {nowhere} ")));
    endpoint.connect_server(ConnId(2), nowhere, "localhost", &file);
    assert!(matches!(events.recv().await, Some(Event::Connected { conn: ConnId(2), .. })));
}
