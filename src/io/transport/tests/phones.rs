//! Phones over TLS 1.2 and 1.3 beside links on one port, and over WebSockets beside SIP.

use super::*;
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_tungstenite::tungstenite::Message as Web;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

struct Office {
    node: Node,
    certificate: String,
}

/// A member that serves phones at the port of its links.
fn office_node() -> Office {
    let certificate = make(&["pbx.example".into()], &[]).expect("made");
    let node = Node::new(Config {
        overlay: Some(Listen::Tls(any())),
        sip: Some(any()),
        credentials: Some(Credentials::of(&open("anna", 1))),
        phones: Some(Certificate::Own(certificate.clone())),
        ..Config::default()
    });
    Office { node, certificate }
}

impl Office {
    async fn tls(
        &self,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(self.node.addr()).await.expect("listens");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    async fn accepted(&mut self) -> (ConnId, Flow) {
        match self.node.next().await {
            Event::Accepted { conn, flow, peer: Proven::Phone | Proven::Nobody } => (conn, flow),
            other => panic!("{other:?}"),
        }
    }
}

async fn web<S: AsyncRead + AsyncWrite + Unpin>(stream: S, protocol: Option<&str>) -> Option<WebSocketStream<S>> {
    let mut request = "ws://pbx.example/".into_client_request().expect("a request");
    if let Some(protocol) = protocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a value"));
    }
    let (stream, response) = client_async(request, stream).await.ok()?;
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "sip");
    Some(stream)
}

#[tokio::test]
async fn a_phone_over_tls_comes_to_the_port_of_the_links() {
    let mut office = office_node();
    for (version, alpn) in [(&TLS12, &[][..]), (&TLS13, &[][..]), (&TLS13, &["sip"][..])] {
        let mut phone = office.tls(version, alpn, "pbx.example").await.expect("a handshake");
        phone.write_all(MESSAGE).await.expect("sent");
        let (conn, flow) = office.accepted().await;
        assert_eq!((flow.transport, flow.local), (Transport::Tls, office.node.addr()));
        assert_eq!(office.node.frame().await, MESSAGE);
        office.node.endpoint.write(conn, MESSAGE.into());
        let mut heard = vec![0; MESSAGE.len()];
        phone.read_exact(&mut heard).await.expect("an answer");
        assert_eq!(heard, MESSAGE);
        drop(phone);
        office.node.closed().await;
    }
    assert!(office.tls(&TLS13, &[], "other.example").await.is_err(), "the name is checked by the phone");
    // A link beside them, as ever.
    let mut peer = Node::dialler(Credentials::of(&open("ben", 2)));
    peer.link(1, &office.node, None);
    peer.connected().await;
    let (_, flow, proven) = loop {
        match office.node.next().await {
            Event::Accepted { conn, flow, peer } => break (conn, flow, peer.member().cloned()),
            Event::Closed { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((flow.transport, proven.is_some()), (Transport::Tls, true));
}

#[tokio::test]
async fn a_phone_that_says_it_wants_a_link_is_a_stranger_and_none() {
    let office = office_node();
    // It shows no certificate, which a link needs.
    let refused = match office.tls(&TLS13, &["sip/2"], "pbx.example").await {
        Err(_) => true,
        Ok(mut stream) => stream.write_all(MESSAGE).await.is_err() || stream.read(&mut [0]).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn a_message_of_a_web_socket_is_a_message() {
    let mut office = office_node();
    for tls in [false, true] {
        let stream: Box<dyn Stream> = match tls {
            true => Box::new(office.tls(&TLS13, &["http/1.1"], "pbx.example").await.expect("a handshake")),
            false => {
                Box::new(TcpStream::connect(office.node.endpoint.sip_addr().expect("SIP")).await.expect("listens"))
            }
        };
        let mut phone = web(stream, Some("chat, sip")).await.expect("a WebSocket");
        let (conn, flow) = office.accepted().await;
        assert_eq!(flow.transport, if tls { Transport::Wss } else { Transport::Ws });
        let text = std::str::from_utf8(MESSAGE).expect("text");
        phone.send(Web::text(text)).await.expect("sent");
        assert_eq!(office.node.frame().await, MESSAGE);
        // Without Content-Length and in binary: the message ends where the WebSocket's does.
        phone.send(Web::binary(&b"OPTIONS sip:a@b SIP/2.0\r\n\r\n\xff"[..])).await.expect("sent");
        assert_eq!(office.node.frame().await, &b"OPTIONS sip:a@b SIP/2.0\r\n\r\n\xff"[..]);
        phone.send(Web::text("\r\n\r\n")).await.expect("sent");
        assert_eq!(phone.next().await.expect("open").expect("a pong"), Web::text("\r\n"));
        phone.send(Web::Ping(Bytes::from_static(b"there?"))).await.expect("sent");
        assert_eq!(phone.next().await.expect("open").expect("a pong"), Web::Pong(Bytes::from_static(b"there?")));
        office.node.endpoint.write(conn, MESSAGE.into());
        office.node.endpoint.write(conn, Bytes::from_static(b"SIP/2.0 200 \xff\r\n\r\n"));
        assert_eq!(phone.next().await.expect("open").expect("a message"), Web::text(text));
        assert!(matches!(phone.next().await.expect("open").expect("a message"), Web::Binary(_)));
        office.node.endpoint.close(conn);
        assert!(matches!(phone.next().await, Some(Ok(Web::Close(_))) | None));
        assert!(matches!(office.node.closed().await, CloseReason::Local));
    }
}

#[tokio::test]
async fn what_is_no_sip_is_refused() {
    let mut office = office_node();
    let sip = office.node.endpoint.sip_addr().expect("SIP");
    let connect = || async { TcpStream::connect(sip).await.expect("listens") };
    assert!(web(connect().await, None).await.is_none(), "a page that asks for no SIP");
    assert!(web(connect().await, Some("chat")).await.is_none());
    let mut plain = connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    rest(&mut plain).await;
    let mut large = web(connect().await, Some("sip")).await.expect("a WebSocket");
    let _ = large.send(Web::binary(vec![b'x'; 70_000])).await;
    office.accepted().await;
    assert!(matches!(office.node.closed().await, CloseReason::Unframed(_)));
    assert_eq!(office.node.endpoint.counters().handshakes_failed, 3);
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
