//! Endpoints on loopback. Every wait has an end, so that what never comes fails a test instead of hanging it.

use super::*;
use crate::core::{Id, Rng, UnixTime};
use crate::identity::{
    EnrolError, INVITE_LIFETIME, Identity, JoinAnswer, JoinRequest, Joining, RootFingerprint, TrustAnchor, Verified,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

mod links;
mod phones;
mod streams;
mod tunnels;

const MESSAGE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 4\r\n\r\nbody";

struct Node {
    endpoint: Endpoint,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn new(config: Config) -> Node {
        let (endpoint, events) = Endpoint::bind(config).expect("free port on loopback");
        Node { endpoint, events }
    }

    /// Listens for links as `identity`.
    fn member(identity: &Identity) -> Node {
        Node::new(Config {
            overlay: Some(Listen::Tls(any())),
            credentials: Some(Credentials::of(identity)),
            ..Config::default()
        })
    }

    /// Listens for links with these credentials.
    fn listening(credentials: Credentials) -> Node {
        Node::new(Config { overlay: Some(Listen::Tls(any())), credentials: Some(credentials), ..Config::default() })
    }

    /// Dials links with `credentials` and listens to none.
    fn dialler(credentials: Credentials) -> Node {
        Node::new(Config { credentials: Some(credentials), ..Config::default() })
    }

    fn sip(limits: Limits) -> Node {
        Node::new(Config { sip: Some(any()), limits, ..Config::default() })
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.overlay_addr().or(self.endpoint.sip_addr()).expect("listens")
    }

    async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(30), self.events.recv()).await.expect("an event in time").expect("endpoint lives")
    }

    async fn accepted(&mut self) -> (ConnId, Flow, Option<Arc<Verified>>) {
        match self.next().await {
            Event::Accepted { conn, flow, peer } => (conn, flow, peer.member().cloned()),
            other => panic!("{other:?}"),
        }
    }

    /// Who comes next, whatever becomes of those before.
    async fn accepted_next(&mut self) -> Option<Arc<Verified>> {
        loop {
            match self.next().await {
                Event::Accepted { peer, .. } => return peer.member().cloned(),
                Event::Closed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn connected(&mut self) -> (ConnId, Flow, Option<Arc<Verified>>) {
        match self.next().await {
            Event::Connected { conn, flow, peer } => (conn, flow, peer.member().cloned()),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&mut self) -> ConnectError {
        match self.next().await {
            Event::ConnectFailed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> Bytes {
        match self.next().await {
            Event::Frame { bytes, .. } => bytes,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> CloseReason {
        match self.next().await {
            Event::Closed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    fn link(&self, conn: u64, to: &Node, expect: Option<Id>) {
        self.endpoint.connect(ConnId(conn), Transport::Tls, to.addr(), expect);
    }
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn now() -> UnixTime {
    UnixTime(rustls_pki_types::UnixTime::now().as_secs())
}

fn open(user: &str, seed: u64) -> Identity {
    Identity::open("lab", user, now(), &mut Rng::from_seed(seed)).expect("names")
}

fn office(seed: u64) -> Identity {
    Identity::found("office", "anna", None, now(), &mut Rng::from_seed(seed)).expect("names").0
}

fn root(identity: &Identity) -> RootFingerprint {
    match &identity.anchor {
        TrustAnchor::Office { root, .. } => RootFingerprint::of(root),
        TrustAnchor::Open { .. } => panic!("no office"),
    }
}

/// A message with a body of `len` bytes.
fn message(len: usize) -> Bytes {
    let mut bytes = format!("OPTIONS sip:a@b SIP/2.0\r\nContent-Length: {len}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + len, b'x');
    bytes.into()
}

/// Reads until the other end closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.expect("closed in time");
    assert!(read.is_ok() || !bytes.is_empty(), "{read:?}");
    bytes
}
