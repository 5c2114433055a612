//! Each machine by itself on a virtual clock.

use super::*;
use crate::core::{ConnId, Transport};
use std::net::SocketAddr;

const RFC_VIA: &str = "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport";

fn udp() -> Flow {
    Flow::udp("192.0.2.2:5060".parse().unwrap(), "192.0.2.1:5062".parse().unwrap())
}

fn tcp() -> Flow {
    Flow::stream(Transport::Tcp, udp().local, udp().remote, ConnId(1))
}

fn request(method: &str, via: &str) -> Message {
    let text = format!(
        "{method} sip:bob@192.0.2.2 SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nRoute: <sip:p1;lr>, <sip:p2;lr>\r\n\
         From: <sip:alice@a>;tag=f\r\nTo: <sip:bob@b>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\nContact: <sip:alice@192.0.2.1>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    Message::parse(text.as_bytes()).unwrap()
}

fn layer() -> Layer {
    Layer::new(Rng::from_seed(1), Config::default())
}

/// One thing that the layer did, in short.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Did {
    Sent(String),
    Other(&'static str),
}

fn sent(line: &str) -> Did {
    Did::Sent(line.into())
}

fn drain(layer: &mut Layer) -> Vec<Did> {
    std::iter::from_fn(|| layer.poll_output())
        .map(|output| match output {
            Output::Send { bytes, .. } => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let words: Vec<_> = text.lines().next().unwrap().split(' ').collect();
                Did::Sent(if words[0] == "SIP/2.0" { words[1].into() } else { words[0].into() })
            }
            Output::Request { merged: true, .. } => Did::Other("merged"),
            Output::Request { .. } => Did::Other("request"),
            Output::Cancel { .. } => Did::Other("cancel"),
            Output::Response { .. } => Did::Other("response"),
            Output::Ack { .. } => Did::Other("ack"),
            Output::StrayResponse { .. } => Did::Other("stray"),
            Output::Timeout { .. } => Did::Other("timeout"),
            Output::TransportError { .. } => Did::Other("transport"),
            Output::ServerTimeout { .. } => Did::Other("no ack"),
            Output::ServerTransportError { .. } => Did::Other("server transport"),
            Output::Terminated { .. } => Did::Other("over"),
        })
        .collect()
}

/// Runs the clock until nothing is pending; what happened, each with its time in milliseconds.
fn run(layer: &mut Layer) -> Vec<(u64, Did)> {
    run_until(layer, Instant::FAR_FUTURE)
}

fn run_until(layer: &mut Layer, end: Instant) -> Vec<(u64, Did)> {
    let mut log = Vec::new();
    while let Some(at) = layer.poll_timeout().filter(|at| *at <= end) {
        layer.handle_timeout(at);
        log.extend(drain(layer).into_iter().map(|did| (at.as_millis(), did)));
    }
    log
}

fn times(log: &[(u64, Did)], what: &Did) -> Vec<u64> {
    log.iter().filter(|(_, did)| did == what).map(|(at, _)| *at).collect()
}

fn assert_empty(layer: &Layer) {
    assert_eq!((layer.clients(), layer.servers()), (0, 0));
    assert!(layer.timers.is_empty());
    assert!(layer.client_keys.is_empty() && layer.server_keys.is_empty() && layer.merge_keys.is_empty());
}

fn server_of(layer: &mut Layer) -> (ServerTxId, Message) {
    match layer.poll_output() {
        Some(Output::Request { tx, message, .. }) => (tx, message),
        other => panic!("{other:?}"),
    }
}

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

#[test]
fn an_unanswered_invite_doubles_and_ends_with_timer_b() {
    let mut l = layer();
    l.send_request(ms(0), request("INVITE", RFC_VIA), udp());
    assert_eq!(drain(&mut l), [sent("INVITE")]);
    let log = run(&mut l);
    assert_eq!(times(&log, &sent("INVITE")), [500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(log[6..], [(32_000, Did::Other("timeout")), (32_000, Did::Other("over"))]);
    assert_empty(&l);
}

#[test]
fn an_unanswered_request_repeats_up_to_t2_and_ends_with_timer_f() {
    let mut l = layer();
    l.send_request(ms(0), request("OPTIONS", RFC_VIA), udp());
    drain(&mut l);
    let log = run(&mut l);
    let expected = [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500];
    assert_eq!(times(&log, &sent("OPTIONS")), expected);
    assert_eq!(times(&log, &Did::Other("timeout")), [32_000]);
    assert_empty(&l);

    l.send_request(ms(0), request("OPTIONS", RFC_VIA), udp());
    l.receive(ms(600), Message::reply(&request("OPTIONS", RFC_VIA), 100, "Trying"), udp());
    drain(&mut l);
    let log = run(&mut l);
    assert_eq!(times(&log, &sent("OPTIONS")), [4600, 8600, 12600, 16600, 20600, 24600, 28600]);
    assert_eq!(times(&log, &Did::Other("timeout")), [32_000]);
}

#[test]
fn streams_repeat_nothing_but_still_time_out() {
    for method in ["INVITE", "BYE"] {
        let mut l = layer();
        l.send_request(ms(0), request(method, RFC_VIA), tcp());
        drain(&mut l);
        assert_eq!(run(&mut l), [(32_000, Did::Other("timeout")), (32_000, Did::Other("over"))]);
    }
}

#[test]
fn a_refused_invite_is_acknowledged_on_its_hop() {
    let invite = request("INVITE", RFC_VIA);
    let mut l = layer();
    l.send_request(ms(0), invite.clone(), udp());
    l.receive(ms(10), Message::reply(&invite, 180, "Ringing"), udp());
    assert_eq!(drain(&mut l), [sent("INVITE"), Did::Other("response")]);
    assert_eq!(l.poll_timeout(), None);
    let mut busy = Message::reply(&invite, 486, "Busy Here");
    busy.set_to_tag("t");
    l.receive(ms(20), busy.clone(), udp());
    let Some(Output::Send { bytes, .. }) = l.poll_output() else { panic!() };
    let ack = Message::parse(&bytes).unwrap();
    assert_eq!(*ack.method(), Method::Ack);
    assert_eq!(ack.request_uri(), "sip:bob@192.0.2.2");
    assert_eq!((ack.branch(), ack.to_tag(), ack.from_tag()), (Some("z9hG4bKabc"), Some("t"), Some("f")));
    assert_eq!((ack.cseq().unwrap().number, ack.routes().unwrap().len(), ack.vias().unwrap().len()), (7, 2, 1));
    assert!(ack.validate().is_ok());
    assert_eq!(drain(&mut l), [Did::Other("response")]);
    l.receive(ms(30), busy.clone(), udp());
    assert_eq!(drain(&mut l), [sent("ACK")]);
    let mut late_ok = Message::reply(&invite, 200, "OK");
    late_ok.set_to_tag("u");
    l.receive(ms(40), late_ok, udp());
    assert_eq!(drain(&mut l), [Did::Other("stray")]);
    assert_eq!(run(&mut l), [(32_020, Did::Other("over"))]);
    assert_empty(&l);

    l.send_request(ms(0), invite, tcp());
    l.receive(ms(20), busy, tcp());
    assert_eq!(drain(&mut l), [sent("INVITE"), sent("ACK"), Did::Other("response"), Did::Other("over")]);
    assert_empty(&l);
}

#[test]
fn an_accepted_invite_delivers_every_2xx_until_timer_m() {
    let invite = request("INVITE", RFC_VIA);
    let mut l = layer();
    l.send_request(ms(0), invite.clone(), udp());
    for (at, status) in [(10, 200), (20, 200), (30, 180), (40, 486), (50, 202)] {
        l.receive(ms(at), Message::reply(&invite, status, "x"), udp());
    }
    let response = Did::Other("response");
    assert_eq!(drain(&mut l), [sent("INVITE"), response.clone(), response.clone(), response]);
    assert_eq!(run(&mut l), [(32_010, Did::Other("over"))]);
    l.receive(ms(40_000), Message::reply(&invite, 200, "OK"), udp());
    assert_eq!(drain(&mut l), [Did::Other("stray")]);
    assert_eq!(l.counters().stray_responses, 1);
    assert_empty(&l);
}

#[test]
fn a_completed_request_lingers_for_timer_k() {
    let bye = request("BYE", RFC_VIA);
    let mut l = layer();
    l.send_request(ms(0), bye.clone(), udp());
    l.receive(ms(10), Message::reply(&bye, 200, "OK"), udp());
    l.receive(ms(20), Message::reply(&bye, 200, "OK"), udp());
    assert_eq!(drain(&mut l), [sent("BYE"), Did::Other("response")]);
    assert_eq!(run(&mut l), [(5_010, Did::Other("over"))]);
    assert_empty(&l);
}

#[test]
fn a_slow_user_gets_a_100_sent_and_a_final_response_is_repeated() {
    let invite = request("INVITE", RFC_VIA);
    let mut l = layer();
    l.receive(ms(0), invite.clone(), udp());
    let (tx, _) = server_of(&mut l);
    l.receive(ms(100), invite.clone(), udp());
    assert_eq!(drain(&mut l), []);
    assert_eq!(run_until(&mut l, ms(1000)), [(200, sent("100"))]);
    l.receive(ms(1000), invite.clone(), udp());
    assert_eq!(drain(&mut l), [sent("100")]);
    assert!(l.respond(ms(1000), tx, Message::reply(&invite, 180, "Ringing")));
    l.receive(ms(1100), invite.clone(), udp());
    assert_eq!(drain(&mut l), [sent("180"), sent("180")]);
    assert!(l.respond(ms(2000), tx, Message::reply(&invite, 486, "Busy Here")));
    assert!(!l.respond(ms(2000), tx, Message::reply(&invite, 200, "OK")));
    l.receive(ms(2100), invite.clone(), udp());
    assert_eq!(drain(&mut l), [sent("486"), sent("486")]);
    let unacknowledged = run_until(&mut l, ms(16_000));
    assert_eq!(times(&unacknowledged, &sent("486")), [2500, 3500, 5500, 9500, 13500]);
    l.receive(ms(16_000), request("ACK", RFC_VIA), udp());
    l.receive(ms(16_100), request("ACK", RFC_VIA), udp());
    l.receive(ms(16_200), invite, udp());
    assert_eq!(drain(&mut l), []);
    assert_eq!(run(&mut l), [(21_000, Did::Other("over"))]);
    assert_empty(&l);
}

#[test]
fn without_an_ack_timer_h_says_so() {
    let mut l = layer();
    for (flow, repeats) in [(udp(), 10), (tcp(), 0)] {
        l.receive(ms(0), request("INVITE", RFC_VIA), flow);
        let (tx, invite) = server_of(&mut l);
        l.respond(ms(0), tx, Message::reply(&invite, 404, "Not Found"));
        drain(&mut l);
        let log = run(&mut l);
        assert_eq!(times(&log, &sent("404")).len(), repeats);
        assert_eq!(times(&log, &Did::Other("no ack")), [32_000]);
        assert_empty(&l);
    }
}

#[test]
fn an_accepted_invite_is_absorbed_and_its_ack_comes_up() {
    let invite = request("INVITE", RFC_VIA);
    for flow in [udp(), tcp()] {
        let mut l = layer();
        l.receive(ms(0), invite.clone(), flow);
        let (tx, _) = server_of(&mut l);
        assert!(l.respond(ms(0), tx, Message::reply(&invite, 200, "OK")));
        assert!(l.respond(ms(500), tx, Message::reply(&invite, 200, "OK")));
        assert!(!l.respond(ms(500), tx, Message::reply(&invite, 486, "Busy Here")));
        l.receive(ms(600), invite.clone(), flow);
        assert_eq!(drain(&mut l), [sent("200"), sent("200")]);
        l.receive(ms(700), request("ACK", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKother"), flow);
        l.receive(ms(700), request("ACK", RFC_VIA), flow);
        assert_eq!(drain(&mut l), [Did::Other("ack"), Did::Other("ack")]);
        assert_eq!(run(&mut l), [(32_000, Did::Other("over"))]);
        assert_empty(&l);
    }
}

#[test]
fn other_requests_are_answered_again_until_timer_j() {
    let mut l = layer();
    let bye = request("BYE", RFC_VIA);
    l.receive(ms(0), bye.clone(), udp());
    let (tx, message) = server_of(&mut l);
    l.receive(ms(50), bye.clone(), udp());
    assert_eq!(drain(&mut l), []);
    l.respond(ms(100), tx, Message::reply(&message, 200, "OK"));
    l.receive(ms(150), bye.clone(), udp());
    assert_eq!(drain(&mut l), [sent("200"), sent("200")]);
    assert_eq!(run(&mut l), [(32_100, Did::Other("over"))]);
    assert_empty(&l);
    l.receive(ms(0), bye, tcp());
    let (tx, message) = server_of(&mut l);
    l.respond(ms(100), tx, Message::reply(&message, 200, "OK"));
    assert_eq!(drain(&mut l), [sent("200"), Did::Other("over")]);
    assert_empty(&l);
}

#[test]
fn a_request_that_nobody_answers_is_forgotten() {
    let mut l = layer();
    l.receive(ms(0), request("OPTIONS", RFC_VIA), udp());
    drain(&mut l);
    assert_eq!(run(&mut l), [(32_000, Did::Other("over"))]);
    assert_eq!(l.counters().unanswered, 1);
    assert_empty(&l);
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let invite = request("INVITE", RFC_VIA);
    let mut l = layer();
    let tx = l.send_request(ms(0), invite.clone(), udp());
    assert!(l.cancel(ms(1), tx));
    assert_eq!(drain(&mut l), [sent("INVITE")]);
    l.receive(ms(10), Message::reply(&invite, 100, "Trying"), udp());
    assert_eq!(l.poll_output().map(|o| matches!(o, Output::Response { .. })), Some(true));
    let Some(Output::Send { bytes, .. }) = l.poll_output() else { panic!() };
    let cancel = Message::parse(&bytes).unwrap();
    assert!(cancel.validate().is_ok());
    assert_eq!((cancel.method(), cancel.branch()), (&Method::Cancel, Some("z9hG4bKabc")));
    assert_eq!((cancel.cseq().unwrap().number, cancel.request_uri()), (7, invite.request_uri()));
    assert_eq!((cancel.header("To"), cancel.routes().unwrap().len()), (invite.header("To"), 2));
    assert!(l.cancel(ms(11), tx));
    l.receive(ms(20), Message::reply(&cancel, 200, "OK"), udp());
    assert_eq!(drain(&mut l), []);
    let mut gone = Message::reply(&invite, 487, "Request Terminated");
    gone.set_to_tag("t");
    l.receive(ms(30), gone, udp());
    assert_eq!(drain(&mut l), [sent("ACK"), Did::Other("response")]);
    assert!(!l.cancel(ms(31), tx));
    assert_eq!(run(&mut l), [(32_030, Did::Other("over"))]);
    assert_empty(&l);
}

#[test]
fn a_cancelled_invite_without_a_final_response_ends() {
    let invite = request("INVITE", RFC_VIA);
    let mut l = layer();
    let tx = l.send_request(ms(0), invite.clone(), udp());
    l.receive(ms(10), Message::reply(&invite, 180, "Ringing"), udp());
    assert!(l.cancel(ms(20), tx));
    l.receive(ms(30), Message::reply(&invite, 180, "Ringing"), udp());
    drain(&mut l);
    let log = run(&mut l);
    assert_eq!(times(&log, &Did::Other("timeout")), [32_020]);
    assert_eq!(times(&log, &Did::Other("over")), [32_020]);
    assert_empty(&l);
}

#[test]
fn a_cancel_is_answered_and_told() {
    let mut l = layer();
    l.receive(ms(0), request("INVITE", RFC_VIA), udp());
    let (tx, invite) = server_of(&mut l);
    l.receive(ms(10), request("CANCEL", RFC_VIA), udp());
    let Some(Output::Send { bytes, .. }) = l.poll_output() else { panic!() };
    let ok = Message::parse(&bytes).unwrap();
    assert_eq!((ok.status(), ok.method(), ok.to_tag().is_some()), (200, &Method::Cancel, true));
    assert!(matches!(l.poll_output(), Some(Output::Cancel { invite, .. }) if invite == tx));
    l.receive(ms(20), request("CANCEL", RFC_VIA), udp());
    assert_eq!(drain(&mut l), [sent("200")]);
    l.respond(ms(30), tx, Message::reply(&invite, 487, "Request Terminated"));
    l.receive(ms(40), request("ACK", RFC_VIA), udp());
    l.receive(ms(50), request("CANCEL", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKnone"), udp());
    assert_eq!(drain(&mut l), [sent("487"), sent("481")]);
    run(&mut l);
    assert_empty(&l);

    // After the final response a CANCEL changes nothing.
    l.receive(ms(0), request("INVITE", RFC_VIA), tcp());
    let (tx, invite) = server_of(&mut l);
    l.respond(ms(5), tx, Message::reply(&invite, 200, "OK"));
    l.receive(ms(10), request("CANCEL", RFC_VIA), tcp());
    assert_eq!(drain(&mut l), [sent("200"), sent("200")]);
    run(&mut l);
    assert_empty(&l);
}

#[test]
fn a_full_table_answers_503_and_counts() {
    let mut l = Layer::new(Rng::from_seed(1), Config { max_transactions: 1, ..Config::default() });
    l.receive(ms(0), request("INVITE", RFC_VIA), udp());
    assert_eq!(drain(&mut l), [Did::Other("request")]);
    let other = "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKnext";
    l.receive(ms(0), request("OPTIONS", other), udp());
    l.receive(ms(0), request("ACK", other), udp());
    l.receive(ms(0), request("CANCEL", RFC_VIA), udp());
    assert_eq!(drain(&mut l), [sent("503"), Did::Other("ack"), sent("200"), Did::Other("cancel")]);
    l.send_request(ms(0), request("BYE", RFC_VIA), udp());
    l.send_request(ms(0), request("BYE", other), udp());
    assert_eq!(drain(&mut l), [sent("BYE"), Did::Other("transport"), Did::Other("over")]);
    assert_eq!((l.counters().refused_requests, l.counters().refused_sends), (1, 1));
    assert_eq!((l.servers(), l.clients()), (1, 1));
}

#[test]
fn peers_of_rfc_2543_are_matched_without_a_branch() {
    let via = "SIP/2.0/UDP 192.0.2.1:5060";
    let mut l = layer();
    l.receive(ms(0), request("INVITE", via), udp());
    let (tx, invite) = server_of(&mut l);
    l.receive(ms(100), request("INVITE", via), udp());
    assert_eq!(drain(&mut l), []);
    let mut busy = Message::reply(&invite, 486, "Busy Here");
    busy.set_to_tag("t");
    l.respond(ms(100), tx, busy);
    let ack = String::from_utf8(request("ACK", via).to_bytes().to_vec()).unwrap();
    let ack = ack.replace("To: <sip:bob@b>", "To: <sip:bob@b>;tag=t");
    l.receive(ms(150), Message::parse(ack.as_bytes()).unwrap(), udp());
    assert_eq!(drain(&mut l), [sent("486")]);
    assert_eq!(run(&mut l), [(5_150, Did::Other("over"))]);
    l.receive(ms(0), request("OPTIONS", via), udp());
    l.receive(ms(0), request("INFO", via), udp());
    assert_eq!(drain(&mut l).len(), 2);
}

#[test]
fn a_merged_request_is_told_and_a_later_one_is_not() {
    let mut l = layer();
    l.receive(ms(0), request("INVITE", RFC_VIA), tcp());
    let (tx, invite) = server_of(&mut l);
    l.receive(ms(0), request("INVITE", "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKfork"), tcp());
    assert_eq!(drain(&mut l), [Did::Other("merged")]);
    l.respond(ms(0), tx, Message::reply(&invite, 200, "OK"));
    run(&mut l);
    l.flow_failed(tcp());
    drain(&mut l);
    assert_empty(&l);
    l.receive(ms(0), request("INVITE", "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKfork"), tcp());
    assert_eq!(drain(&mut l), [Did::Other("request")]);
}

#[test]
fn the_source_is_written_into_via_and_answered() {
    let answered = |via: &str| {
        let mut l = layer();
        l.receive(ms(0), request("OPTIONS", via), udp());
        let (tx, message) = server_of(&mut l);
        l.respond(ms(0), tx, Message::reply(&message, 200, "OK"));
        let Some(Output::Send { flow, bytes }) = l.poll_output() else { panic!() };
        (flow.remote, Message::parse(&bytes).unwrap().via().unwrap())
    };
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (remote, via) = answered(RFC_VIA);
    assert_eq!((remote, via.rport(), via.received()), (udp().remote, Some(Some(5062)), Some(udp().remote.ip())));
    let (remote, via) = answered("SIP/2.0/UDP 192.0.2.1:7000;branch=z9hG4bK1");
    assert_eq!((remote, via.received()), (at("192.0.2.1:7000"), None));
    let (remote, via) = answered("SIP/2.0/UDP pc.example.com;branch=z9hG4bK1;received=203.0.113.1");
    assert_eq!((remote, via.received()), (at("192.0.2.1:5060"), Some(udp().remote.ip())));
}

#[test]
fn a_failed_flow_ends_what_is_on_it() {
    let mut l = layer();
    l.send_request(ms(0), request("INVITE", RFC_VIA), tcp());
    l.receive(ms(0), request("OPTIONS", "SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK5"), tcp());
    l.send_request(ms(0), request("BYE", "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK6"), udp());
    drain(&mut l);
    l.flow_failed(tcp());
    let over = Did::Other("over");
    assert_eq!(drain(&mut l), [Did::Other("transport"), over.clone(), Did::Other("server transport"), over]);
    assert_eq!((l.clients(), l.servers()), (1, 0));
}

#[test]
fn unusable_requests_are_counted_or_refused() {
    let mut l = layer();
    let text = "OPTIONS sip:b@b SIP/2.0\r\nVia: nonsense\r\nCSeq: 1 OPTIONS\r\n\r\n";
    if let Ok(message) = Message::parse(text.as_bytes()) {
        l.receive(ms(0), message, udp());
    }
    assert_eq!((drain(&mut l), l.counters().unusable), (vec![], 1));
    l.send_request(ms(0), Message::request(Method::Bye, "sip:b@b"), udp());
    assert_eq!(drain(&mut l), [Did::Other("transport"), Did::Other("over")]);
}

#[test]
fn branches_are_unique_and_ours() {
    let mut rng = Rng::from_seed(1);
    let (a, b) = (new_branch(&mut rng), new_branch(&mut rng));
    assert!(a.starts_with(MAGIC_COOKIE) && a != b);
}

#[test]
fn mutated_messages_neither_panic_nor_pile_up() {
    let mut rng = Rng::from_seed(1);
    let mut l = Layer::new(Rng::from_seed(2), Config { max_transactions: 50, ..Config::default() });
    let mut base: Vec<Message> =
        ["INVITE", "ACK", "CANCEL", "OPTIONS"].into_iter().map(|method| request(method, RFC_VIA)).collect();
    base.extend([100, 200, 486].map(|status| Message::reply(&request("INVITE", RFC_VIA), status, "x")));
    let base: Vec<Vec<u8>> = base.iter().map(|m| m.to_bytes().to_vec()).collect();
    for n in 0..50_000 {
        let now = ms(n);
        if n % 100 == 0 {
            l.send_request(now, request("INVITE", RFC_VIA), udp());
        }
        let mut bytes = base[rng.below(base.len() as u64) as usize].clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => bytes.insert(at, b"\r\n;=<>\", "[rng.below(9) as usize]),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        if let Ok(message) = Message::parse(&bytes) {
            l.receive(now, message, udp());
        }
        while let Some(output) = l.poll_output() {
            if let Output::Request { tx, message, .. } = output
                && rng.below(2) == 0
            {
                l.respond(now, tx, Message::reply(&message, 200, "OK"));
            }
        }
        l.handle_timeout(now);
        assert!(l.servers() <= 50 && l.clients() <= 50 && l.timers.len() <= 100 && l.merge_keys.len() <= 50);
    }
    assert!(l.counters().refused_requests > 0);
}
