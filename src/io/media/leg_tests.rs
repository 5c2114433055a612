use super::*;
use crate::stun::{channel_data, read_channel};
use std::net::{Ipv4Addr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A relay's end of TLS, and the SHA-256 of its certificate.
fn acceptor() -> (TlsAcceptor, [u8; 32]) {
    let made = rcgen::generate_simple_self_signed(vec!["relay".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let hash = Sha256::digest(&certificate).into();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), hash)
}

#[tokio::test]
async fn the_first_datagram_of_a_new_socket_leaves() {
    let other = StdSocket::bind(LOOPBACK).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let wire = Wire::Udp(UdpSocket::bind(LOOPBACK).await.unwrap());
    wire.try_send_to(b"at once", other.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(other.recv(&mut buffer).unwrap(), 7);
}

#[tokio::test]
async fn a_leg_is_marked_as_voice() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (tls, hash) = acceptor();
    let relay = listener.local_addr().unwrap();
    let serving = async { tls.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let (_served, leg) = tokio::join!(serving, Leg::reach(vec![(relay, hash)], None));
    let leg = leg.unwrap();
    let marked = SockRef::from(leg.stream.get_ref().0).tos_v4().unwrap();
    assert_eq!(marked & 0xFC, crate::io::media::ports::EXPEDITED);
}

#[tokio::test]
async fn a_relay_that_nothing_gets_to_at_first_is_tried_again() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (tls, hash) = acceptor();
    let relay = listener.local_addr().unwrap();
    let serving = async {
        // As good as lost: nobody answers it.
        let lost = listener.accept().await.unwrap();
        let second = listener.accept().await.unwrap().0;
        let served = tls.accept(second).await.unwrap();
        (lost, served)
    };
    let both = async { tokio::join!(serving, Leg::reach(vec![(relay, hash)], None)) };
    let (_held, leg) = timeout(Duration::from_secs(60), both).await.expect("it is not tried again");
    assert_eq!(leg.unwrap().relay, relay);
}

#[tokio::test]
async fn messages_go_whole_words_and_come_one_by_one() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (tls, hash) = acceptor();
    let relay = listener.local_addr().unwrap();
    let serving = async {
        let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut got = vec![0; 12];
        stream.read_exact(&mut got).await.unwrap();
        // Two messages in one piece, and one in two.
        let mut bytes = channel_data(0x4001, b"one", true).unwrap();
        bytes.extend(channel_data(0x4001, b"second", true).unwrap());
        stream.write_all(&bytes[..13]).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(&bytes[13..]).await.unwrap();
        stream.shutdown().await.unwrap();
        got
    };
    let dialling = async {
        // Nobody is at the first address.
        let nobody = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let leg = Leg::reach(vec![(nobody, hash), (relay, hash)], None).await.unwrap();
        assert_eq!(leg.relay, relay);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let into = taken.clone();
        let (wire, carry) = leg.run(move |m| into.lock().unwrap().push(read_channel(m).unwrap().1.to_vec()));
        let message = channel_data(0x4000, b"hello", false).unwrap();
        assert!(wire.try_send_to(&message, SocketAddr::from(LOOPBACK)).is_err(), "it leads to the relay alone");
        wire.try_send_to(&message, relay).unwrap();
        carry.await;
        Arc::try_unwrap(taken).map(|t| t.into_inner().unwrap()).unwrap_or_default()
    };
    let (got, taken) = tokio::join!(serving, dialling);
    assert_eq!(got, [&[0x40, 0, 0, 5][..], b"hello", &[0; 3]].concat());
    assert_eq!(taken, [b"one".to_vec(), b"second".to_vec()]);
}

#[tokio::test]
async fn a_relay_with_another_certificate_is_none() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (tls, mut hash) = acceptor();
    let relay = listener.local_addr().unwrap();
    hash[0] ^= 1;
    let serving = async { tls.accept(listener.accept().await.unwrap().0).await.is_err() };
    let (refused, leg) = tokio::join!(serving, Leg::reach(vec![(relay, hash)], None));
    assert!(refused && leg.is_none());
}

#[tokio::test]
async fn a_relay_is_reached_by_the_proxy_where_it_cannot_be_straight() {
    use crate::io::proxy::tests::{LONG, Script, proxy};
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let (tls, hash) = acceptor();
    let (at, mut requests) = proxy(Script::Carry(listener.local_addr().unwrap())).await;
    let proxy = Proxy::anywhere(&at.to_string(), LONG);
    let relay = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let serving = async {
        let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        stream.write_all(&channel_data(0x4001, b"word", true).unwrap()).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    };
    let both = async { tokio::join!(serving, Leg::reach(vec![(relay, hash)], Some(proxy.clone()))) };
    let (_served, leg) = timeout(Duration::from_secs(60), both).await.expect("not by the proxy");
    let leg = leg.unwrap();
    assert_eq!((leg.relay, proxy.status().tunnels), (relay, 1));
    assert!(proxy.lead(LONG).is_zero(), "it is what works");
    assert!(requests.recv().await.unwrap().starts_with(&format!("CONNECT {relay} ")));
    let marked = SockRef::from(leg.stream.get_ref().0).tos_v4().unwrap();
    assert_eq!(marked & 0xFC, crate::io::media::ports::EXPEDITED);
    let taken = std::cell::Cell::new(0);
    let (_wire, carry) = leg.run(|_| taken.set(taken.get() + 1));
    carry.await;
    assert_eq!((taken.get(), proxy.status().tunnels), (1, 0));
}
