//! TLS: who is let in as whom.

use super::super::link::Tls;
use super::super::shell::{pkcs8, shell};
use super::*;
use crate::identity::{Chain, DeviceCodes, IdentityError, KeyPair, Revocation, Revocations, RevokedKey};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

#[tokio::test]
async fn verified_peers_exchange_messages() {
    let (alice, bob) = (open("alice", 1), open("bob", 2));
    let (mut a, mut b) = (Node::member(&alice), Node::member(&bob));
    a.link(7, &b, Some(bob.peer_id()));
    let (conn, flow, peer) = a.connected().await;
    assert_eq!((conn, flow.transport, flow.remote, flow.conn), (ConnId(7), Transport::Tls, b.addr(), Some(conn)));
    let peer = peer.expect("proven");
    assert_eq!((peer.user.as_str(), peer.peer_id), ("bob", bob.peer_id()));
    let (there, back, peer) = b.accepted().await;
    assert_eq!((there.0 >> 63, back.local, back.remote), (1, flow.remote, flow.local));
    assert_eq!(peer.expect("proven").device, alice.device_key());

    for size in [0, 1, 30_000] {
        a.endpoint.write(conn, message(size));
        b.endpoint.write(there, message(size));
        assert_eq!(b.frame().await, message(size));
        assert_eq!(a.frame().await, message(size));
    }
    a.endpoint.write(conn, message(9));
    a.endpoint.close(conn);
    assert_eq!(b.frame().await, message(9), "what was written before the close still comes");
    assert!(matches!(b.closed().await, CloseReason::Remote));
    assert!(matches!(a.closed().await, CloseReason::Local));
    assert_eq!((a.endpoint.connections(), b.endpoint.connections()), (0, 0));
}

#[tokio::test]
async fn writes_before_the_link_is_open_are_kept() {
    let (mut a, mut b) = (Node::member(&open("alice", 1)), Node::member(&open("bob", 2)));
    a.link(1, &b, None);
    a.endpoint.write(ConnId(1), message(5));
    a.connected().await;
    b.accepted().await;
    assert_eq!(b.frame().await, message(5));
}

#[tokio::test]
async fn another_peer_than_expected_is_refused() {
    let (alice, bob) = (open("alice", 1), open("bob", 2));
    let (mut a, b) = (Node::member(&alice), Node::member(&bob));
    a.link(1, &b, Some(alice.peer_id()));
    match a.refused().await {
        ConnectError::OtherPeer { expected, found, .. } => {
            assert_eq!((expected, found), (alice.peer_id(), bob.peer_id()));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_office_is_refused() {
    let (ours, theirs) = (office(1), office(2));
    let mut b = Node::member(&theirs);
    for stranger in [ours, open("alice", 3)] {
        let mut a = Node::member(&stranger);
        a.link(1, &b, None);
        let why = a.refused().await;
        assert!(matches!(why, ConnectError::NotOurs(..)), "{why}");
    }
    // Who dials all the same is no member there, with whatever chain.
    for credentials in [Credentials::of(&office(1)), Credentials::of(&open("alice", 3))] {
        let trust = Trust::Enrolment(root(&theirs));
        let mut a = Node::dialler(Credentials { trust, ..credentials });
        a.link(1, &b, None);
        assert!(a.connected().await.2.is_some());
        loop {
            match b.next().await {
                Event::Accepted { peer, .. } => break assert!(peer.foreign().is_some()),
                Event::Closed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(b.endpoint.counters().strangers == 0 && b.endpoint.counters().handshakes_failed >= 1);
}

#[tokio::test]
async fn a_link_with_another_overlay_shows_both_ends() {
    let (ours, theirs, family) = (office(1), office(2), open("otto", 3));
    for (from, to) in [(&ours, &theirs), (&family, &ours), (&ours, &family)] {
        let (mut a, mut b) = (Node::member(from), Node::member(to));
        a.endpoint.connect(ConnId(1), Transport::Tls, b.addr(), Expect::Foreign);
        let proven = |event| match event {
            Event::Connected { peer: Proven::Foreign(f), .. } | Event::Accepted { peer: Proven::Foreign(f), .. } => f,
            other => panic!("{other:?}"),
        };
        let (there, here) = (proven(a.next().await), proven(b.next().await));
        assert_eq!((&there.anchor, there.verified.device), (&to.anchor, to.device_key()));
        assert_eq!((&here.anchor, here.verified.device), (&from.anchor, from.device_key()));
        a.endpoint.write(ConnId(1), message(7));
        assert_eq!(b.frame().await, message(7));
    }
    // Who has no chain, or one of another key, is of no overlay.
    let server = Node::member(&ours);
    for chain in [None, Some(theirs.chain.clone())] {
        let device = open("x", 9).device;
        let trust = Trust::Anchor(ours.anchor.clone());
        let nobody = Node::new(Config {
            overlay: Some(Listen::Tls(any())),
            credentials: Some(Credentials { device, chain, trust }),
            ..Config::default()
        });
        let mut a = Node::member(&theirs);
        a.endpoint.connect(ConnId(1), Transport::Tls, nobody.addr(), Expect::Foreign);
        assert!(matches!(a.refused().await, ConnectError::NotOurs(..)));
    }
    drop(server);
}

#[tokio::test]
async fn there_is_room_for_few_of_other_overlays_from_one_source() {
    let (ours, theirs) = (office(1), office(2));
    let limits = Limits { foreign_per_source: 1, ..Limits::default() };
    let overlay = Some(Listen::Tls(any()));
    let mut server =
        Node::new(Config { overlay, credentials: Some(Credentials::of(&ours)), limits, ..Config::default() });
    let mut a = Node::member(&theirs);
    let dial = |a: &Node, conn| a.endpoint.connect(ConnId(conn), Transport::Tls, server.addr(), Expect::Foreign);
    dial(&a, 1);
    assert!(matches!(a.next().await, Event::Connected { .. }));
    dial(&a, 2);
    loop {
        match a.next().await {
            Event::Connected { .. } => {}
            Event::Closed { conn, .. } | Event::ConnectFailed { conn, .. } => break assert_eq!(conn, ConnId(2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.endpoint.counters().refused_foreign, 1);
    // Its place is free again when it has gone.
    a.endpoint.close(ConnId(1));
    while !matches!(server.next().await, Event::Closed { .. }) {}
    a.endpoint.connect(ConnId(3), Transport::Tls, server.addr(), Expect::Foreign);
    while !matches!(server.next().await, Event::Accepted { peer: Proven::Foreign(_), .. }) {}
}

#[tokio::test]
async fn the_revoked_are_refused_by_both_ends() {
    let (anna, mut others) = members(2);
    let (bob, carl) = (others.remove(0), others.remove(0));
    let mut a = Node::member(&anna);
    let mut b = Node::member(&bob);
    let statement = Revocation::sign(&anna, RevokedKey::Device, bob.device_key(), "bob", now()).expect("enroller");
    let mut set = Revocations::default();
    set.note(statement);
    // Good before.
    b.link(1, &a, None);
    assert!(b.connected().await.2.is_some() && a.accepted().await.2.is_some());
    a.endpoint.set_revoked(set.revoked());
    // Whoever dials the revoked goes no further, and says why.
    a.link(1, &b, Some(bob.peer_id()));
    let why = a.refused().await;
    assert!(matches!(why, ConnectError::NotOurs(_, IdentityError::Revoked("device"))), "{why}");
    assert!(why.to_string().contains("the device is revoked"), "{why}");
    // Whom the revoked dials takes it for a stranger; others are let in; new credentials change nothing.
    a.endpoint.set_credentials(&Credentials::of(&anna)).expect("made");
    let mut b = Node::dialler(Credentials::of(&bob));
    b.link(2, &a, None);
    b.connected().await;
    assert!(a.accepted_next().await.is_none(), "the revoked is nobody");
    let mut c = Node::dialler(Credentials::of(&carl));
    c.link(3, &a, None);
    c.connected().await;
    assert_eq!(a.accepted_next().await.expect("proven").user, "carl");
}

#[tokio::test]
async fn the_expired_are_refused_with_the_right_words() {
    let (anna, mut others) = members(1);
    let bob = others.remove(0);
    let user_key = bob.user_key.as_ref().expect("the first device");
    let mut certificates = bob.chain.certificates().to_vec();
    let (long_ago, yesterday) = (UnixTime(now().secs() - 90 * 86_400), UnixTime(now().secs() - 86_400));
    certificates[2] = certificates[2].clone().reissue(user_key, long_ago, yesterday);
    let expired = Credentials { chain: Some(Chain::new(certificates)), ..Credentials::of(&bob) };
    let (mut a, mut b) = (Node::member(&anna), Node::listening(expired.clone()));
    a.link(1, &b, None);
    let why = a.refused().await;
    assert!(matches!(why, ConnectError::NotOurs(_, IdentityError::Expired("device"))), "{why}");
    assert!(why.to_string().contains("the device certificate has expired"), "{why}");
    let mut a = Node::member(&anna);
    b.link(2, &a, None);
    b.connected().await;
    assert!(a.accepted_next().await.is_none(), "the expired is a stranger");
}

#[tokio::test]
async fn a_device_without_a_place_is_a_member() {
    let (anna, mut others) = members(1);
    let bob = others.remove(0);
    let key = KeyPair::generate(&mut Rng::from_seed(77));
    let chain = bob.add_device(key.public(), "mobile", now()).expect("holds the key");
    let mobile = Identity::assemble(key, None, chain, bob.anchor.clone(), now()).expect("own chain");
    let mut a = Node::member(&anna);
    let mut m = Node::dialler(Credentials::of(&mobile));
    m.link(1, &a, Some(anna.peer_id()));
    m.connected().await;
    let peer = a.accepted_next().await.expect("a member");
    assert_eq!((peer.user.as_str(), peer.has_place), ("bob", false));
}

#[tokio::test]
async fn a_code_for_a_device_leads_to_its_user_alone() {
    let (anna, mut others) = members(1);
    let bob = others.remove(0);
    let rng = &mut Rng::from_seed(9);
    let code = DeviceCodes::default().open(&bob, None, false, &[], now(), rng).expect("holds the key");
    let joining = Joining::new(code, "", rng).expect("label");
    for (server, right) in [(&anna, false), (&bob, true)] {
        let server = Node::member(server);
        let mut joiner = Node::dialler(Credentials::joining(&joining));
        joiner.link(1, &server, None);
        match right {
            true => assert_eq!(joiner.connected().await.2.expect("proven").user, "bob"),
            false => assert!(matches!(joiner.refused().await, ConnectError::NotTheOffice(_))),
        }
    }
}

/// A founder and this many who joined the office.
fn members(count: u64) -> (Identity, Vec<Identity>) {
    let mut anna = office(1);
    let names = ["bob", "carl"];
    let join = |(n, name): (u64, &&str)| {
        let rng = &mut Rng::from_seed(100 + n);
        let enroller = anna.enroller.as_mut().expect("founder");
        let code = enroller.invite(name, None, &[], INVITE_LIFETIME, now(), rng).expect("free");
        let joining = Joining::new(code, "desk", rng).expect("label");
        let answer = enroller.redeem(&joining.request(), [127, 0, 0, 1].into(), now(), rng).expect("good");
        joining.finish(&answer, now()).expect("good")
    };
    let others = (0..count).zip(&names).map(join).collect();
    (anna, others)
}

#[tokio::test]
async fn a_stranger_enrols_over_its_link_and_comes_back_as_a_member() {
    let mut anna = office(1);
    let mut server = Node::member(&anna);
    let rng = &mut Rng::from_seed(5);
    let enroller = anna.enroller.as_mut().expect("founder");
    let code = enroller.invite("bob", None, &[server.addr()], INVITE_LIFETIME, now(), rng).expect("free");
    let joining = Joining::new(code.clone(), "desk", rng).expect("label");

    let mut joiner = Node::dialler(Credentials::joining(&joining));
    joiner.endpoint.connect(ConnId(1), Transport::Tls, code.addrs[0], None);
    let (_, _, enroller_peer) = joiner.connected().await;
    assert_eq!(enroller_peer.expect("of the office").user, "anna");
    let (conn, flow, peer) = server.accepted().await;
    assert!(peer.is_none(), "a stranger");
    let carry = |body: Vec<u8>| {
        let head = format!("REGISTER sip:office SIP/2.0\r\nContent-Length: {}\r\n\r\n", body.len());
        Bytes::from([head.into_bytes(), body].concat())
    };
    let body = |bytes: Bytes| crate::sip::msg::Message::parse_bytes(bytes).expect("framed").body().to_vec();
    joiner.endpoint.write(ConnId(1), carry(joining.request().encode()));
    let request = JoinRequest::decode(&body(server.frame().await)).expect("sent so");
    let enroller = anna.enroller.as_mut().expect("founder");
    let answer = enroller.redeem(&request, flow.remote.ip(), now(), rng).expect("good code");
    server.endpoint.write(conn, carry(answer.encode()));
    let answer = JoinAnswer::decode(&body(joiner.frame().await)).expect("sent so");
    let bob = joining.finish(&answer, now()).expect("good answer");

    joiner.endpoint.set_credentials(&Credentials::of(&bob)).expect("certificate");
    joiner.link(2, &server, Some(anna.peer_id()));
    assert!(joiner.connected().await.2.is_some());
    let (_, _, peer) = server.accepted().await;
    assert_eq!(peer.expect("a member now").peer_id, bob.peer_id());

    // With a code of another office the joiner does not even ask.
    let (mut other, rng) = (office(9), &mut Rng::from_seed(6));
    let enroller = other.enroller.as_mut().expect("founder");
    let code = enroller.invite("bob", None, &[server.addr()], INVITE_LIFETIME, now(), rng).expect("free");
    let joining = Joining::new(code, "desk", rng).expect("label");
    let mut joiner = Node::dialler(Credentials::joining(&joining));
    joiner.link(1, &server, None);
    assert!(matches!(joiner.refused().await, ConnectError::NotTheOffice(_)));
    let elsewhere = anna.enroller.as_mut().expect("founder").redeem(&joining.request(), any().ip(), now(), rng);
    assert_eq!(elsewhere, Err(EnrolError::Refused));
}

#[tokio::test]
async fn a_borrowed_chain_is_worth_nothing() {
    let (alice, bob, mallory) = (open("alice", 1), open("bob", 2), open("mallory", 3));
    let borrowed = |from: &Identity| Credentials { chain: Some(from.chain.clone()), ..Credentials::of(&mallory) };
    // As the end that is dialled: refused.
    let m =
        Node::new(Config { overlay: Some(Listen::Tls(any())), credentials: Some(borrowed(&bob)), ..Config::default() });
    let mut a = Node::member(&alice);
    a.link(1, &m, None);
    assert!(matches!(a.refused().await, ConnectError::NotOurs(_, IdentityError::Shape("device"))));
    // As the end that dials: a stranger.
    let m = Node::dialler(borrowed(&bob));
    m.link(1, &a, None);
    assert!(a.accepted().await.2.is_none());
}

/// Shows one certificate and signs with another key.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// True when a TLS client that checks nothing gets through the handshake and is answered a ping.
async fn gets_through(mut config: ClientConfig, to: SocketAddr) -> bool {
    config.alpn_protocols = vec![b"sip/2".to_vec()];
    let tcp = TcpStream::connect(to).await.expect("listens");
    let name = rustls_pki_types::ServerName::IpAddress(to.ip().into());
    let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await else { return false };
    let mut pong = [0; 2];
    stream.write_all(b"\r\n\r\n").await.is_ok() && stream.read_exact(&mut pong).await.is_ok()
}

fn careless() -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
}

#[tokio::test]
async fn a_certificate_without_its_key_gets_nowhere() {
    let (alice, bob, mallory) = (open("alice", 1), open("bob", 2), open("mallory", 3));
    let mut a = Node::member(&alice);
    let certificate = shell(&bob.device, Some(&bob.chain)).expect("made");
    let with_key_of = |who: &Identity| {
        let key = ring::sign::any_eddsa_type(&pkcs8(&who.device).into());
        let certified = CertifiedKey::new(vec![certificate.clone()], key.expect("a key"));
        careless().with_client_cert_resolver(Arc::new(Impostor(Arc::new(certified))))
    };
    assert!(gets_through(with_key_of(&bob), a.addr()).await, "the test's client is able to");
    assert_eq!(a.accepted().await.2.expect("proven").user, "bob");
    assert!(matches!(a.closed().await, CloseReason::Remote));
    assert!(!gets_through(with_key_of(&mallory), a.addr()).await);
    assert!(!gets_through(careless().with_no_client_auth(), a.addr()).await, "no certificate at all");
    assert_eq!(a.endpoint.counters().handshakes_failed, 2);
    assert!(a.events.try_recv().is_err(), "nobody came in");
}

#[tokio::test]
async fn damaged_shells_do_not_pass_and_do_not_panic() {
    let bob = open("bob", 1);
    let tls = Tls::new(&Credentials::of(&bob)).expect("made");
    let good = shell(&bob.device, Some(&bob.chain)).expect("made");
    assert_eq!(tls.identify(&good).expect("own").user, "bob");
    assert!(tls.identify(&shell(&bob.device, None).expect("made")).is_err());
    let empty = Chain::new(Vec::new());
    assert!(tls.identify(&shell(&bob.device, Some(&empty)).expect("made")).is_err());
    let rng = &mut Rng::from_seed(2);
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=rng.below(2) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes[at] = rng.next_u32() as u8,
                _ => bytes.insert(at, rng.next_u32() as u8),
            }
        }
        // Dates and names of the shell mean nothing and may be damaged; who it is may not.
        if let Ok(verified) = tls.identify(&bytes.into()) {
            assert_eq!((verified.device, verified.user.as_str()), (bob.device_key(), "bob"));
        }
    }
}

#[tokio::test]
async fn silent_and_lingering_strangers_are_thrown_out() {
    let anna = office(1);
    let limits = Limits {
        handshake: Duration::from_millis(200),
        stranger: Duration::from_millis(200),
        strangers: 1,
        ..Limits::default()
    };
    let overlay = Some(Listen::Tls(any()));
    let mut server =
        Node::new(Config { overlay, credentials: Some(Credentials::of(&anna)), limits, ..Config::default() });
    let mut silent = TcpStream::connect(server.addr()).await.expect("listens");
    assert_eq!(rest(&mut silent).await, b"");
    assert_eq!(server.endpoint.counters().handshakes_slow, 1);

    let trust = Trust::Enrolment(root(&anna));
    let mut stranger = Node::dialler(Credentials { device: open("x", 2).device, chain: None, trust });
    stranger.link(1, &server, None);
    stranger.connected().await;
    assert!(server.accepted().await.2.is_none());
    assert!(matches!(server.closed().await, CloseReason::Stranger));
}

#[tokio::test]
async fn there_is_room_for_few_strangers() {
    let anna = office(1);
    let limits = Limits { strangers: 1, ..Limits::default() };
    let overlay = Some(Listen::Tls(any()));
    let mut server =
        Node::new(Config { overlay, credentials: Some(Credentials::of(&anna)), limits, ..Config::default() });
    let trust = Trust::Enrolment(root(&anna));
    let mut stranger = Node::dialler(Credentials { device: open("x", 2).device, chain: None, trust });
    stranger.link(1, &server, None);
    stranger.connected().await;
    server.accepted().await;
    stranger.link(2, &server, None);
    // The handshake is over for the one that dials before it is judged.
    loop {
        match stranger.next().await {
            Event::Connected { .. } => {}
            Event::Closed { conn, .. } | Event::ConnectFailed { conn, .. } => break assert_eq!(conn, ConnId(2)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.endpoint.counters().refused_strangers, 1);
    // A member is no stranger.
    let mut member = Node::member(&anna);
    member.link(1, &server, None);
    member.connected().await;
    assert!(server.accepted().await.2.is_some());
}

#[tokio::test]
async fn without_credentials_there_are_no_links() {
    let server = Node::member(&open("bob", 1));
    let mut nobody = Node::new(Config::default());
    nobody.link(1, &server, None);
    assert!(matches!(nobody.refused().await, ConnectError::NoCredentials));
}
