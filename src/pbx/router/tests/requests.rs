//! What is let through, what is refused, and with which status.

use super::*;

const BOB: &str = "10.0.0.1:5060";

fn status_of(m: &Message, origin: Origin) -> u16 {
    let mut n = node();
    n.origin = origin;
    n.take(m, flow(CALLER));
    if n.asked.is_empty() { n.response().status() } else { 0 }
}

fn phone() -> Origin {
    Origin::Phone { user: "alice".into(), edge: false }
}

#[test]
fn refused_before_anybody_is_asked() {
    let plain = || request("MESSAGE", "sip:bob@office", CALLER);
    let edited = |edit: &dyn Fn(&mut Message)| {
        let mut m = plain();
        edit(&mut m);
        status_of(&m, Origin::Outside)
    };
    assert_eq!(edited(&|_| {}), 0);
    assert_eq!(edited(&|m| m.set("Max-Forwards", 0)), 483);
    assert_eq!(edited(&|m| m.set_request_uri("mailto:bob@office")), 416);
    assert_eq!(edited(&|m| m.set_request_uri("sips:bob@office")), 416);
    assert_eq!(edited(&|m| m.set_request_uri("sip:office")), 405);
    assert_eq!(edited(&|m| m.set_request_uri("tel:+49-30")), 0);
    let mut odd = plain();
    odd.push("Proxy-Require", "foo, bar");
    let mut n = node();
    n.take(&odd, flow(CALLER));
    assert_eq!((n.response().status(), n.response().header("Unsupported")), (420, Some("foo, bar")));
    let many = ["<sip:192.0.2.1;lr>"; 9];
    assert_eq!(edited(&|m| m.push("Route", many[1..].join(","))), 0);
    assert_eq!(edited(&|m| m.push("Route", many.join(","))), 400);
    let ping = request("OPTIONS", "sip:192.0.2.1:5060", CALLER);
    assert_eq!(status_of(&ping, Origin::Outside), 200);
}

#[test]
fn what_a_lookup_comes_to() {
    for (resolution, status) in [
        (Resolution::NotFound, "404"),
        (Resolution::NotRegistered, "480"),
        (Resolution::Targets(vec![]), "480"),
        (Resolution::Ambiguous(vec!["sip:bob-1@office".into(), "sip:bob-2@office".into()]), "485"),
        (Resolution::Failed, "504"),
    ] {
        let mut n = node();
        n.take(&request("MESSAGE", "sip:bob@192.0.2.1:5060", CALLER), flow(CALLER));
        assert_eq!(n.asked[0].1, "sip:bob@office");
        n.found(resolution);
        assert_eq!(n.heard(CALLER), [status]);
        assert!(n.response().to_tag().is_some());
        assert_eq!(n.response().contacts().unwrap().len(), if status == "485" { 2 } else { 0 });
        assert_eq!(n.router.contexts(), 0);
    }
    let mut n = node();
    n.take(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER));
    n.pass(Duration::from_secs(11));
    assert_eq!(n.heard_once(CALLER), ["100", "504"], "an overlay that never answers");
}

#[test]
fn how_far_to_look() {
    let peer = Origin::Peer { user: "x".into(), id: Id::from_u64(2) };
    let ua = Origin::Ua { user: "x".into() };
    for (origin, scope) in
        [(phone(), Scope::Overlay), (ua, Scope::Overlay), (peer, Scope::Here), (Origin::Outside, Scope::Here)]
    {
        let mut n = node();
        n.origin = origin;
        n.take(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER));
        assert_eq!((n.asked[0].2, n.asked[0].3), (scope, false));
    }
}

#[test]
fn no_relay_for_strangers() {
    let away = request("INVITE", "sip:x@10.0.0.1", CALLER);
    assert_eq!(status_of(&away, Origin::Outside), 403);
    let mut routed = request("INVITE", "sip:bob@office", CALLER);
    routed.push("Route", "<sip:10.0.0.1;lr>");
    assert_eq!(status_of(&routed, Origin::Outside), 403);
    let mut through = request("INVITE", "sip:x@10.0.0.1", CALLER);
    through.push("Route", "<sip:192.0.2.1:5060;lr>");
    assert_eq!(status_of(&through, Origin::Outside), 403);
    // A tag in To makes no dialog of ours.
    through.set("To", "<sip:bob@office>;tag=made-up");
    assert_eq!(status_of(&through, Origin::Outside), 403);
    let mut n = node();
    n.origin = phone();
    n.take(&away, flow(CALLER));
    assert_eq!(n.heard(BOB), ["INVITE"]);
    n.take(&request("ACK", "sip:x@10.0.0.1", CALLER), flow(CALLER));
    assert_eq!((n.heard(BOB).len(), n.router.counters().acks_dropped), (1, 1));
}

#[test]
fn a_phone_may_name_us_as_its_outbound_proxy() {
    let mut m = request("MESSAGE", "sip:x@10.0.0.1", CALLER);
    m.push("Route", "<sip:192.0.2.1:5060;lr>, <sip:10.0.0.2;lr>");
    let mut n = node();
    n.origin = phone();
    n.take(&m, flow(CALLER));
    let (_, sent) = n.to("10.0.0.2:5060", "MESSAGE");
    assert_eq!((sent.request_uri(), sent.header("Route")), ("sip:x@10.0.0.1", Some("<sip:10.0.0.2;lr>")));
}

#[test]
fn a_strict_router_next() {
    let mut m = request("MESSAGE", "sip:x@10.0.0.1", CALLER);
    m.push("Route", "<sip:10.0.0.2>, <sip:10.0.0.3;lr>");
    let mut n = node();
    n.origin = phone();
    n.take(&m, flow(CALLER));
    let (_, sent) = n.to("10.0.0.2:5060", "MESSAGE");
    let routes: Vec<_> = sent.values("Route").collect();
    assert_eq!((sent.request_uri(), routes), ("sip:10.0.0.2", vec!["<sip:10.0.0.3;lr>", "<sip:x@10.0.0.1>"]));
}

#[test]
fn loops_end_and_spirals_go_on() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1")]);
    let (_, sent) = n.to(BOB, "INVITE");
    let back = |target: &str| {
        let mut m = sent.clone();
        m.set_request_uri(target);
        m.push_front("Via", format!("SIP/2.0/UDP {BOB};branch=z9hG4bKback"));
        m
    };
    n.take(&back("sip:carol@office"), flow(BOB));
    assert_eq!(n.heard(BOB), ["INVITE", "100"], "a spiral");
    assert_eq!(n.asked.len(), 1);
    let mut n2 = node();
    n2.take(&back("sip:bob@office"), flow(BOB));
    assert_eq!((n2.heard(BOB), n2.router.counters().loops), (vec!["482".into()], 1));
}

#[test]
fn our_own_record_in_the_overlay_is_no_target() {
    let mut n = node();
    n.origin = phone();
    let invite = request("INVITE", "sip:bob@office", CALLER);
    n.call(&invite, flow(CALLER), vec![peer(1, "192.0.2.1:5061").0.into()]);
    assert_eq!(n.heard(CALLER), ["100", "480"]);
}

#[test]
fn any_method_any_header_any_body() {
    let raw = b"FROB sip:bob@office SIP/2.0\r\nv: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx\r\nX-Odd:  a\r\n b\r\n\
        f: <sip:x@y>;tag=1\r\nt: <sip:bob@office>\r\ni: c\r\nCSeq: 1 FROB\r\nProxy-Authorization: Digest realm=\"office\", \
        username=\"x\"\r\nProxy-Authorization: Digest realm=\"other\"\r\nP-Asserted-Identity: <sip:boss@office>\r\n\
        l: 4\r\n\r\n\x00\xff\r\n";
    let mut n = node();
    n.call(&Message::parse(raw).unwrap(), flow(CALLER), vec![uri("sip:bob@10.0.0.1?Subject=x")]);
    let (_, sent) = n.to(BOB, "FROB");
    assert_eq!(sent.body(), b"\x00\xff\r\n");
    assert_eq!(sent.request_uri(), "sip:bob@10.0.0.1");
    let bytes = sent.to_bytes();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    assert!(has(b"X-Odd:  a\r\n b\r\n") && has(b"i: c\r\n"), "untouched fields stay as they are");
    assert_eq!(sent.max_forwards(), Some(70));
    let left: Vec<_> = sent.headers("Proxy-Authorization").collect();
    assert_eq!(left, ["Digest realm=\"other\""], "ours stays here");
    assert!(!sent.has("P-Asserted-Identity"), "nobody asserts in clear");
}

#[test]
fn full() {
    let mut n = node();
    let nth = |i: usize| {
        let mut m = request("INVITE", "sip:bob@office", CALLER);
        m.set("Via", format!("SIP/2.0/UDP {CALLER};branch=z9hG4bKnth{i}"));
        m.set("Call-ID", format!("call-{i}"));
        m
    };
    (0..4).for_each(|i| n.take(&nth(i), flow(CALLER)));
    n.take(&nth(4), flow(CALLER));
    assert_eq!((n.response().status(), n.response().header("Retry-After")), (503, Some("10")));
    assert_eq!(n.router.counters().overload, 1);
    // An answered call makes room.
    let (query, ..) = n.asked.remove(0);
    n.router.resolved(n.now, query, Resolution::Targets(vec![uri("sip:bob@10.0.0.1")]));
    n.run();
    n.answer(BOB, "INVITE", 200);
    n.take(&nth(5), flow(CALLER));
    assert_eq!((n.asked.len(), n.router.contexts(), n.router.counters().overload), (4, 4, 1));
    n.pass(Duration::from_secs(60));
    assert_eq!((n.router.contexts(), n.router.lingering.len(), n.router.core.by_client.len()), (0, 0, 0));
    assert_eq!((n.router.by_server.len(), n.router.core.timers.len()), (0, 0));
}
