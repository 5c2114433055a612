//! UDP and TCP in clear, and all the bounds.

use super::*;

async fn socket() -> UdpSocket {
    UdpSocket::bind(any()).await.expect("free port")
}

/// A connection on which something was said: before that nobody is told of it.
async fn phone(addr: SocketAddr) -> TcpStream {
    let mut phone = TcpStream::connect(addr).await.expect("listens");
    ping(&mut phone).await;
    phone
}

async fn ping(phone: &mut TcpStream) {
    phone.write_all(b"\r\n\r\n").await.expect("sent");
    let mut pong = [0; 2];
    timeout(Duration::from_secs(30), phone.read_exact(&mut pong)).await.expect("in time").expect("a pong");
    assert_eq!(&pong, b"\r\n");
}

#[tokio::test]
async fn datagrams_come_and_go() {
    let mut node = Node::sip(Limits::default());
    let phone = socket().await;
    for keep_alive in [&b"\r\n\r\n"[..], b"\0", b""] {
        phone.send_to(keep_alive, node.addr()).await.expect("sent");
    }
    for size in [0, 1, 1300, 60_000] {
        phone.send_to(&message(size), node.addr()).await.expect("sent");
        let Event::Datagram { flow, bytes } = node.next().await else { panic!("a datagram") };
        assert_eq!(bytes, message(size));
        assert_eq!(flow, Flow::udp(node.addr(), phone.local_addr().expect("bound")));
        node.endpoint.send(flow, &bytes);
        let mut buffer = vec![0; 65_535];
        let (len, from) = phone.recv_from(&mut buffer).await.expect("echoed");
        assert_eq!((&buffer[..len], from), (&message(size)[..], node.addr()));
    }
    let to = phone.local_addr().expect("bound");
    node.endpoint.send(Flow::udp(node.addr(), to), &message(70_000));
    node.endpoint.send(Flow::udp(any(), to), &message(0));
    let counters = node.endpoint.counters();
    assert_eq!((counters.datagrams_in, counters.datagrams_out, counters.datagrams_unsent), (4, 4, 2));
}

#[tokio::test]
async fn a_stream_is_cut_into_messages_and_pings_are_answered() {
    let mut node = Node::sip(Limits::default());
    let mut phone = phone(node.addr()).await;
    let (conn, flow, peer) = node.accepted().await;
    assert_eq!((flow.transport, flow.local, peer.is_none()), (Transport::Tcp, node.addr(), true));
    assert_eq!(flow.remote, phone.local_addr().expect("connected"));
    let two = [MESSAGE, MESSAGE].concat();
    for piece in two.chunks(7) {
        phone.write_all(piece).await.expect("sent");
        phone.flush().await.expect("sent");
    }
    assert_eq!((node.frame().await, node.frame().await), (MESSAGE.into(), MESSAGE.into()));
    ping(&mut phone).await;
    node.endpoint.write(conn, MESSAGE.into());
    node.endpoint.close(conn);
    assert_eq!(rest(&mut phone).await, MESSAGE);
    assert!(matches!(node.closed().await, CloseReason::Local));
}

#[tokio::test]
async fn what_cannot_be_cut_is_told_why_and_closed() {
    let head = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\nFrom: <sip:d@c>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1@c\r\nCSeq: 1 INVITE\r\n";
    let cases = [
        (format!("{head}Content-Length: 99999999\r\n\r\n"), "SIP/2.0 513 "),
        (format!("{head}Content-Length: many\r\n\r\n"), "SIP/2.0 400 "),
        (format!("{head}\r\n"), "SIP/2.0 400 "),
        (format!("{head}X: {}\r\n", "x".repeat(70_000)), "SIP/2.0 513 "),
        ("x".repeat(100_000), ""),
    ];
    let mut node = Node::sip(Limits::default());
    for (bytes, answer) in &cases {
        let mut phone = phone(node.addr()).await;
        node.accepted().await;
        // The other end may close while there is still more to send.
        let _ = phone.write_all(bytes.as_bytes()).await;
        if !answer.is_empty() {
            let got = String::from_utf8(rest(&mut phone).await).expect("text");
            assert!(got.starts_with(answer) && got.contains("z9hG4bK1"), "{got}");
        }
        assert!(matches!(node.closed().await, CloseReason::Unframed(_)));
    }
    assert_eq!(node.endpoint.counters().unframed, cases.len() as u64);
}

#[tokio::test]
async fn who_does_not_read_is_closed() {
    let mut node = Node::sip(Limits { write_bytes: 100_000, ..Limits::default() });
    let phone = phone(node.addr()).await;
    let (conn, _, _) = node.accepted().await;
    // Until the system's own buffers are full, and then ours.
    while node.endpoint.connections() > 0 {
        node.endpoint.write(conn, message(20_000));
        tokio::task::yield_now().await;
    }
    assert!(matches!(node.closed().await, CloseReason::Stalled));
    assert_eq!(node.endpoint.counters().stalled, 1);
    drop(phone);
}

#[tokio::test]
async fn a_full_event_channel_slows_the_sender_and_loses_nothing_on_streams() {
    let mut node = Node::sip(Limits { events: 2, ..Limits::default() });
    let mut phone = phone(node.addr()).await;
    let sending = tokio::spawn(async move {
        for n in 0..500 {
            phone.write_all(&message(n)).await.expect("sent");
        }
        phone
    });
    node.accepted().await;
    for n in 0..500 {
        assert_eq!(node.frame().await, message(n));
    }
    drop(sending.await);
    assert!(matches!(node.closed().await, CloseReason::Remote));
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_from_one_source() {
    let mut node = Node::sip(Limits { accepted: 3, per_source: 2, ..Limits::default() });
    let to = node.addr();
    let from = |last: u8| async move {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind(([127, 0, 0, last], 0).into()).expect("loopback");
        socket.connect(to).await.expect("the system takes it first")
    };
    let (mut one, mut two) = (from(2).await, from(2).await);
    assert_eq!(rest(&mut from(2).await).await, b"", "one too many from there");
    let mut three = from(3).await;
    assert_eq!(rest(&mut from(4).await).await, b"", "one too many in all");
    for phone in [&mut one, &mut two, &mut three] {
        ping(phone).await;
        node.accepted().await;
    }
    let counters = node.endpoint.counters();
    assert_eq!((counters.accepted, counters.refused_source, counters.refused_total), (3, 1, 1));
    drop(two);
    node.closed().await;
    // The place is given back right after the event; until then a new one is refused.
    for _ in 0..100 {
        let mut again = from(2).await;
        let _ = again.write_all(MESSAGE).await;
        let accepted = timeout(Duration::from_millis(100), node.events.recv()).await;
        if matches!(accepted, Ok(Some(Event::Accepted { .. }))) {
            return;
        }
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn nobody_there() {
    let free = socket().await.local_addr().expect("bound");
    let mut node = Node::sip(Limits::default());
    node.endpoint.connect(ConnId(1), Transport::Tcp, free, None);
    let why = node.refused().await;
    assert!(matches!(why, ConnectError::Io(addr, _) if addr == free), "{why}");
    node.endpoint.connect(ConnId(2), Transport::Udp, free, None);
    assert!(matches!(node.refused().await, ConnectError::NotDialled(Transport::Udp)));
    assert_eq!(node.endpoint.connections(), 0);
    // To what is gone nothing is written, and nothing happens.
    node.endpoint.write(ConnId(1), MESSAGE.into());
    node.endpoint.close(ConnId(1));
}

#[tokio::test]
async fn a_clear_overlay_has_udp_and_tcp_on_one_port() {
    let clear = || Node::new(Config { overlay: Some(Listen::LabClear(any())), ..Config::default() });
    let (mut a, mut b) = (clear(), clear());
    let flow = Flow::udp(a.addr(), b.addr());
    a.endpoint.send(flow, &message(3));
    assert!(matches!(b.next().await, Event::Datagram { flow, .. } if flow == Flow::udp(b.addr(), a.addr())));
    a.endpoint.connect(ConnId(1), Transport::Tcp, b.addr(), None);
    a.connected().await;
    let (_, flow, peer) = b.accepted().await;
    assert_eq!((flow.local, flow.transport, peer.is_none()), (b.addr(), Transport::Tcp, true));
}

#[tokio::test]
async fn what_cannot_be_opened_is_said_in_one_line() {
    let taken = Node::sip(Limits::default());
    let error = Endpoint::bind(Config { sip: Some(taken.addr()), ..Config::default() }).map(|_| ()).expect_err("taken");
    assert!(error.is_in_use());
    let line = error.to_string();
    assert!(line.starts_with(&format!("cannot listen for SIP on {}: ", taken.addr())), "{line}");
    assert!(!line.contains('\n'));

    let overlay = Some(Listen::Tls(taken.addr()));
    let error = Endpoint::bind(Config { overlay, ..Config::default() }).map(|_| ()).expect_err("taken");
    assert!(error.to_string().contains("links of peers"), "{error}");

    // An address for documentation: nobody has it, so that in a namespace the system refuses instead of us.
    let overlay = Some(Listen::LabClear(([192, 0, 2, 1], 0).into()));
    let error = Endpoint::bind(Config { overlay, ..Config::default() }).map(|_| ()).expect_err("not loopback");
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
    let wildcard = Listen::LabClear(([0, 0, 0, 0], 0).into());
    let opened = Endpoint::bind(Config { overlay: Some(wildcard), ..Config::default() });
    let initial = std::fs::read_link("/proc/self/ns/net").ok() == std::fs::read_link("/proc/1/ns/net").ok();
    assert!(!initial || matches!(opened, Err(BindError::NotALaboratory(_))));
}

#[tokio::test]
async fn dropping_the_endpoint_closes_everything() {
    let mut node = Node::sip(Limits::default());
    let addr = node.addr();
    let mut phone = phone(addr).await;
    node.accepted().await;
    drop(node.endpoint);
    assert_eq!(rest(&mut phone).await, b"");
    // Its port can be had again; the tasks may need a moment to let go of it.
    while Endpoint::bind(Config { sip: Some(addr), ..Config::default() }).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
