//! Record-Route and what comes along it.

use super::*;

const BOB: &str = "10.0.0.1:5060";

/// A request inside the dialog that `answer` opened, from the caller or from the callee.
fn within(method: &str, answer: &Message, from_callee: bool, via: &str) -> Message {
    let mut routes: Vec<String> = answer.values("Record-Route").map(str::to_owned).collect();
    let target = if from_callee {
        "sip:caller@198.51.100.7:5060".to_owned()
    } else {
        answer.contacts().unwrap()[0].uri.to_string()
    };
    let mut m = request(method, &target, via);
    m.set("CSeq", format!("2 {method}"));
    m.set("Call-ID", answer.call_id().unwrap());
    let (from, to) = (answer.header("From").unwrap(), answer.header("To").unwrap());
    let (from, to) = if from_callee { (to, from) } else { (from, to) };
    m.set("From", from);
    m.set("To", to);
    if !from_callee {
        routes.reverse();
    }
    routes.iter().for_each(|route| m.push("Route", route));
    m
}

#[test]
fn one_entry_between_two_phones_in_the_open() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    let entries = ok.record_routes().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].uri.host, "192.0.2.1");
    assert!(entries[0].uri.params.has("lr") && !entries[0].uri.params.has("transport"));
    // ACK and BYE of the caller.
    n.take(&within("ACK", &ok, false, CALLER), flow(CALLER));
    let (_, ack) = n.to(BOB, "ACK");
    assert_eq!((ack.request_uri(), ack.has("Route"), ack.max_forwards()), ("sip:bob@10.0.0.1:5060", false, Some(69)));
    assert_eq!(ack.vias().unwrap().len(), 2);
    let bye = within("BYE", &ok, false, CALLER);
    assert!(n.router.proves_dialog(&bye));
    n.take(&bye, flow(CALLER));
    assert!(!n.to(BOB, "BYE").1.has("Record-Route"));
    n.answer(BOB, "BYE", 200);
    assert_eq!(n.heard(CALLER), ["100", "200", "200"]);
    // BYE of the callee.
    n.take(&within("BYE", &ok, true, BOB), flow(BOB));
    assert_eq!(n.to(CALLER, "BYE").1.request_uri(), "sip:caller@198.51.100.7:5060");
    assert!(n.asked.is_empty());
}

#[test]
fn a_retransmitted_ack_is_the_same() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    let ack = within("ACK", &ok, false, CALLER);
    n.take(&ack, flow(CALLER));
    let first = n.to(BOB, "ACK").1;
    n.take(&ack, flow(CALLER));
    assert_eq!((n.to(BOB, "ACK").1, n.heard(BOB).len()), (first, 3));
}

#[test]
fn a_pass_is_for_its_dialog_only() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    let mut bye = within("BYE", &ok, false, CALLER);
    bye.set("Call-ID", "another");
    assert!(!n.router.proves_dialog(&bye));
    n.take(&bye, flow(CALLER));
    assert_eq!(n.response().status(), 403);
    let mut opening = within("INVITE", &ok, false, CALLER);
    opening.set("To", "<sip:bob@office>");
    assert!(!n.router.proves_dialog(&opening), "without a tag there is no dialog");
    opening.set("Via", format!("SIP/2.0/UDP {CALLER};branch=z9hG4bKopening"));
    n.take(&opening, flow(CALLER));
    assert_eq!(n.heard(CALLER), ["100", "200", "403", "403"]);
}

#[test]
fn two_entries_where_the_sides_differ() {
    let mut n = node();
    n.origin = Origin::Phone { user: "alice".into(), edge: false };
    let (target, link) = peer(2, "10.0.0.9:5061");
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![target.into()]);
    let (sent_on, sent) = n.to("10.0.0.9:5061", "INVITE");
    assert_eq!(sent_on, link);
    let entries: Vec<_> = sent.record_routes().unwrap().into_iter().map(|e| e.uri).collect();
    assert_eq!(entries.len(), 2);
    let me = Id::from_u64(1).to_string();
    assert_eq!((entries[0].port, entries[0].params.get("transport")), (Some(5061), Some("tls")));
    assert_eq!((entries[0].params.get("peer-ID"), entries[1].port), (Some(me.as_str()), Some(5060)));
    // The other peer records itself too.
    let mut ok = Message::reply(&sent, 200, "OK");
    ok.set_to_tag("bob");
    let theirs = format!("<sip:x@10.0.0.9:5061;transport=tls;peer-ID={};lr>", Id::from_u64(2));
    ok.push("Record-Route", &theirs);
    sent.headers("Record-Route").for_each(|value| ok.push("Record-Route", value));
    ok.push("Contact", "<sip:bob@172.16.0.1>");
    n.take(&ok, link);
    n.origin = Origin::Dialog;
    n.take(&within("BYE", &ok, false, CALLER), flow(CALLER));
    let (on, bye) = n.to("10.0.0.9:5061", "BYE");
    assert_eq!((on, bye.values("Route").collect::<Vec<_>>()), (link, vec![theirs.as_str()]));
    assert_eq!(bye.request_uri(), "sip:bob@172.16.0.1");
    // From the other side; the peer has taken its own entry out.
    let mut bye = within("BYE", &ok, true, "10.0.0.9:5061");
    bye.remove_first_value("Route");
    n.origin = Origin::Peer { user: "bob".into(), id: Id::from_u64(2) };
    n.take(&bye, link);
    let (on, bye) = n.to(CALLER, "BYE");
    assert_eq!((on.remote, bye.has("Route")), (CALLER.parse().unwrap(), false));
}

#[test]
fn flows_are_found_again_without_any_table() {
    let mut n = node();
    // The caller sits behind a NAT, the callee on its own stream.
    let mut invite = request("INVITE", "sip:bob@office", "192.168.0.5:5060");
    let callee = stream("10.0.0.1:40001", 7);
    let target = Target::Flow { uri: "sip:bob@10.0.0.1:5062;transport=tcp".into(), flow: callee };
    n.call(&invite, flow(CALLER), vec![target.into()]);
    let ok = n.answer("10.0.0.1:40001", "INVITE", 200);
    assert_eq!(n.response().status(), 200);
    assert_eq!(ok.record_routes().unwrap().len(), 2, "both need their flow");
    n.router = node().router;
    n.take(&within("ACK", &ok, false, "192.168.0.5:5060"), flow(CALLER));
    n.take(&within("BYE", &ok, false, "192.168.0.5:5060"), flow(CALLER));
    assert_eq!((n.to("10.0.0.1:40001", "ACK").0, n.to("10.0.0.1:40001", "BYE").0), (callee, callee));
    // The NAT has given the caller another port meanwhile.
    let mut bye = within("BYE", &ok, false, "192.168.0.5:5060");
    bye.set("Via", "SIP/2.0/UDP 192.168.0.5;branch=z9hG4bKagain");
    n.take(&bye, flow("198.51.100.7:9999"));
    assert_eq!(n.heard("10.0.0.1:40001").iter().filter(|m| *m == "BYE").count(), 2);
    let mut bye = within("BYE", &ok, true, "10.0.0.1:5062");
    bye.set_request_uri("sip:caller@192.168.0.5:5060");
    n.take(&bye, callee);
    let (on, bye) = n.to(CALLER, "BYE");
    assert_eq!((on, bye.request_uri(), bye.has("Route")), (flow(CALLER), "sip:caller@192.168.0.5:5060", false));
    // One side only: one entry serves both directions.
    let mut n = node();
    invite.set("Call-ID", "one");
    n.call(&invite, flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    assert_eq!(ok.record_routes().unwrap().len(), 1);
    n.take(&within("BYE", &ok, false, "192.168.0.5:5060"), flow(CALLER));
    assert_eq!(n.to(BOB, "BYE").1.request_uri(), "sip:bob@10.0.0.1:5060");
    n.take(&within("BYE", &ok, true, BOB), flow(BOB));
    assert_eq!(n.to(CALLER, "BYE").0, flow(CALLER));
}

#[test]
fn two_phones_behind_nats_meet_us_at_one_place() {
    let mut n = node();
    let invite = request("INVITE", "sip:bob@office", "192.168.0.5:5060");
    let bob = Target::Flow { uri: "sip:bob@172.16.0.9:5060".into(), flow: flow(BOB) };
    n.call(&invite, flow(CALLER), vec![bob.into()]);
    let ok = n.answer(BOB, "INVITE", 200);
    assert_eq!(ok.record_routes().unwrap().len(), 2);
    let mut bye = within("BYE", &ok, false, "192.168.0.5:5060");
    bye.set_request_uri("sip:bob@172.16.0.9:5060");
    n.take(&bye, flow(CALLER));
    assert_eq!(n.to(BOB, "BYE").0, flow(BOB));
    let mut bye = within("BYE", &ok, true, "172.16.0.9:5060");
    bye.set_request_uri("sip:caller@192.168.0.5:5060");
    n.take(&bye, flow(BOB));
    assert_eq!(n.to(CALLER, "BYE").0, flow(CALLER));
}

#[test]
fn another_proxy_in_front_records_itself() {
    let size = |vias: &[&str]| {
        let mut n = node();
        let mut invite = request("INVITE", "sip:bob@office", CALLER);
        invite.remove("Via");
        vias.iter().for_each(|via| invite.push("Via", format!("SIP/2.0/TCP {via};branch=z9hG4bK{}", vias.len())));
        n.call(&invite, stream("198.51.100.7:40000", 3), vec![uri("sip:bob@10.0.0.1:5060")]);
        let entries = n.to(BOB, "INVITE").1.record_routes().unwrap();
        entries.last().unwrap().uri.user.as_ref().unwrap().len()
    };
    let bare = size(&["198.51.100.7:5061", "198.51.100.7:5060"]);
    assert!(size(&["198.51.100.7:5060"]) > bare, "a phone's own stream is kept, a proxy's is not");
}

#[test]
fn the_own_user_agent_is_no_side() {
    let mut n = node();
    n.origin = Origin::Ua { user: "carol".into() };
    let phone = Target::Flow { uri: "sip:bob@10.0.0.1".into(), flow: flow(BOB) };
    n.call(&request("INVITE", "sip:bob@office", "127.0.0.1:1"), flow("127.0.0.1:1"), vec![phone.into()]);
    let ok = n.answer(BOB, "INVITE", 200);
    assert_eq!(ok.record_routes().unwrap().len(), 1);
    n.take(&within("BYE", &ok, false, "127.0.0.1:1"), flow("127.0.0.1:1"));
    assert_eq!(n.to(BOB, "BYE").0, flow(BOB));
    // The user agent's contact names us; the phone's request is looked up as one inside a dialog.
    let mut bye = within("BYE", &ok, true, BOB);
    bye.set_request_uri("sip:carol@192.0.2.1:5060");
    n.origin = Origin::Dialog;
    n.take(&bye, flow(BOB));
    assert_eq!((n.asked[0].1.as_str(), n.asked[0].2, n.asked[0].3), ("sip:carol@office", Scope::Here, true));
    let mut n = node();
    let ua = Target::Ua { uri: "sip:carol@192.0.2.1:5060".into() };
    n.call(&request("INVITE", "sip:carol@office", CALLER), flow(CALLER), vec![ua.into()]);
    assert_eq!(n.to("127.0.0.1:1", "INVITE").1.record_routes().unwrap().len(), 1);
}

#[test]
fn a_strict_router_before_us() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    let mut bye = within("BYE", &ok, false, CALLER);
    let ours = ok.record_routes().unwrap()[0].uri.to_string();
    bye.set("Route", format!("<{}>", bye.request_uri()));
    bye.set_request_uri(&ours);
    assert!(n.router.proves_dialog(&bye));
    n.take(&bye, flow(CALLER));
    let (_, sent) = n.to(BOB, "BYE");
    assert_eq!((sent.request_uri(), sent.has("Route")), ("sip:bob@10.0.0.1:5060", false));
    let mut further = within("INFO", &ok, false, CALLER);
    further.set("Route", format!("<sip:10.0.0.7;lr>, <{}>", further.request_uri()));
    further.set_request_uri(&ours);
    n.take(&further, flow(CALLER));
    let (_, sent) = n.to("10.0.0.7:5060", "INFO");
    assert_eq!((sent.request_uri(), sent.header("Route")), ("sip:bob@10.0.0.1:5060", Some("<sip:10.0.0.7;lr>")));
}

#[test]
fn callers_that_ignore_record_route() {
    let mut n = node();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    let ok = n.answer(BOB, "INVITE", 200);
    let mut ack = request("ACK", "sip:bob@192.0.2.1:5060", CALLER);
    ack.set("To", ok.header("To").unwrap());
    n.call(&ack, flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    assert_eq!(n.to(BOB, "ACK").1.request_uri(), "sip:bob@10.0.0.1:5060");
    let mut bye = request("BYE", "sip:bob@192.0.2.1:5060", CALLER);
    bye.set("To", ok.header("To").unwrap());
    n.call(&bye, flow(CALLER), vec![uri("sip:bob@10.0.0.1:5060")]);
    n.answer(BOB, "BYE", 200);
    assert_eq!(n.heard(CALLER), ["100", "200", "200"]);
    // The lookup for an ACK ends like any other.
    n.take(&ack, flow(CALLER));
    assert_eq!(n.router.acks.len(), 1);
    n.pass(Duration::from_secs(11));
    assert_eq!((n.router.acks.len(), n.router.counters().acks_dropped), (0, 1));
}
