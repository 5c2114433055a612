//! TLS by way of an HTTP proxy.

use super::*;
use crate::io::proxy::Proxy;
use crate::io::proxy::tests::{LONG, Script, proxy};

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    std::net::TcpListener::bind(any()).unwrap().local_addr().unwrap()
}

/// Alice, who goes out by a proxy of this script.
async fn behind(script: Script) -> (Node, Arc<Proxy>, mpsc::Receiver<String>) {
    let (at, requests) = proxy(script).await;
    let proxy = Proxy::anywhere(&at.to_string(), LONG);
    let node = Node::new(Config {
        credentials: Some(Credentials::of(&open("alice", 1))),
        proxy: Some(proxy.clone()),
        ..Config::default()
    });
    (node, proxy, requests)
}

#[tokio::test]
async fn a_link_is_had_by_the_proxy_where_it_cannot_be_straight() {
    let bob = open("bob", 2);
    let mut b = Node::member(&bob);
    let (mut a, proxy, mut requests) = behind(Script::Carry(b.addr())).await;
    let there = nowhere();
    a.endpoint.connect(ConnId(1), Transport::Tls, there, Some(bob.peer_id()));
    let (conn, flow, peer) = a.connected().await;
    assert_eq!((flow.remote, peer.expect("proven").peer_id), (there, bob.peer_id()));
    assert!(requests.recv().await.unwrap().starts_with(&format!("CONNECT {there} HTTP/1.1\r\n")));
    let (back, _, peer) = b.accepted().await;
    assert_eq!(peer.expect("proven").user, "alice");
    for size in [0, 30_000] {
        a.endpoint.write(conn, message(size));
        b.endpoint.write(back, message(size));
        assert_eq!((b.frame().await, a.frame().await), (message(size), message(size)));
    }
    assert_eq!(proxy.status().tunnels, 1);
    assert!(proxy.lead(LONG).is_zero(), "it is what works");
    a.endpoint.close(conn);
    a.closed().await;
    assert_eq!(proxy.status().tunnels, 0);
    // Where it is no longer needed it is no longer waited for as long.
    a.link(2, &b, None);
    a.connected().await;
}

#[tokio::test]
async fn the_straight_way_is_taken_where_there_is_one() {
    let mut b = Node::member(&open("bob", 2));
    let (mut a, proxy, mut requests) = behind(Script::Say("HTTP/1.1 403 No\r\n\r\n".into())).await;
    a.link(1, &b, None);
    a.connected().await;
    b.accepted().await;
    assert_eq!((proxy.status().tunnels, proxy.lead(LONG)), (0, LONG));
    assert!(requests.try_recv().is_err(), "the proxy was asked");
}

#[tokio::test]
async fn who_answers_behind_the_proxy_has_to_prove_it_too() {
    let b = Node::member(&open("bob", 2));
    let (mut a, proxy, _requests) = behind(Script::Carry(b.addr())).await;
    a.endpoint.connect(ConnId(1), Transport::Tls, nowhere(), Some(open("carol", 3).peer_id()));
    let why = a.refused().await.to_string();
    assert!(why.contains("is peer"), "{why}");
    assert_eq!(proxy.status().tunnels, 0);
}

#[tokio::test]
async fn where_neither_leads_both_are_said() {
    let wants = "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let (mut a, ..) = behind(Script::Say(wants.into())).await;
    let there = nowhere();
    a.endpoint.connect(ConnId(1), Transport::Tls, there, None);
    let why = a.refused().await.to_string();
    assert!(why.starts_with(&format!("cannot connect to {there}")), "{why}");
    assert!(why.contains("wants a user name and a password (407); set nat.http_proxy"), "{why}");
}

#[tokio::test]
async fn sip_in_clear_does_not_go_by_it() {
    let (mut a, _, mut requests) = behind(Script::Say(String::new())).await;
    a.endpoint.connect(ConnId(1), Transport::Tcp, nowhere(), None);
    assert!(matches!(a.refused().await, ConnectError::Io(..)));
    assert!(requests.try_recv().is_err(), "the proxy was asked");
}
