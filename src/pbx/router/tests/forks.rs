//! Several targets, and what comes back from them.

use super::*;

const A: &str = "10.0.0.1:5060";
const B: &str = "10.0.0.2:5060";
const C: &str = "10.0.0.3:5060";

fn forked(targets: &[(&str, u16)]) -> Node {
    let mut n = node();
    let targets = targets.iter().map(|(at, q)| with_q(&format!("sip:bob@{at}"), *q)).collect();
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), targets);
    n
}

#[test]
fn one_is_busy_and_one_answers() {
    let mut n = forked(&[(A, 1000), (B, 1000)]);
    assert_eq!(n.heard(CALLER), ["100"]);
    for at in [A, B] {
        let (_, m) = n.to(at, "INVITE");
        assert_eq!(m.request_uri(), format!("sip:bob@{at}"));
        assert_eq!((m.max_forwards(), m.header("Max-Breadth")), (Some(69), Some("30")));
        assert_eq!(m.vias().unwrap().len(), 2);
        assert_eq!(m.record_routes().unwrap().len(), 1);
    }
    n.answer(A, "INVITE", 486);
    assert_eq!(n.heard(A), ["INVITE", "ACK"]);
    n.answer(B, "INVITE", 180);
    n.answer(B, "INVITE", 200);
    assert_eq!(n.heard(CALLER), ["100", "180", "200"]);
    assert_eq!(n.response().vias().unwrap().len(), 1);
    assert_eq!(n.response().to_tag(), Some("tag-10.0.0.2:5060"));
    assert_eq!(n.heard(B), ["INVITE"], "nothing to cancel");
    n.pass(Duration::from_secs(40));
    assert_eq!((n.router.contexts(), n.layer.clients(), n.layer.servers()), (0, 0, 0));
    assert_eq!(n.heard(CALLER), ["100", "180", "200"]);
}

#[test]
fn the_winner_ends_the_others() {
    let mut n = forked(&[(A, 1000), (B, 1000)]);
    n.answer(A, "INVITE", 180);
    n.answer(B, "INVITE", 200);
    assert_eq!(n.heard(A), ["INVITE", "CANCEL"]);
    n.answer(A, "CANCEL", 200);
    n.answer(A, "INVITE", 487);
    assert_eq!(n.heard(CALLER), ["100", "180", "200"]);
}

#[test]
fn a_second_answer_goes_through_too() {
    let mut n = forked(&[(A, 1000), (B, 1000)]);
    n.answer(A, "INVITE", 180);
    n.answer(B, "INVITE", 200);
    n.answer(A, "INVITE", 200);
    n.answer(A, "INVITE", 200);
    assert_eq!(n.heard(CALLER), ["100", "180", "200", "200", "200"], "retransmissions included");
}

#[test]
fn lower_q_waits_its_turn() {
    let mut n = forked(&[(A, 300), (B, 900), (C, 300)]);
    assert_eq!((n.heard(B).len(), n.heard(A).len()), (1, 0));
    n.answer(B, "INVITE", 404);
    assert_eq!((n.heard(A).len(), n.heard(C).len()), (1, 1));
    n.answer(A, "INVITE", 480);
    n.answer(C, "INVITE", 500);
    assert_eq!(n.heard(CALLER), ["100", "480"]);
    assert_eq!(n.router.contexts(), 0);
}

#[test]
fn a_decline_ends_all() {
    let mut n = forked(&[(A, 1000), (B, 1000), (C, 500)]);
    n.answer(A, "INVITE", 180);
    n.answer(B, "INVITE", 603);
    assert_eq!(n.heard(A), ["INVITE", "CANCEL"]);
    assert_eq!(n.heard(CALLER), ["100", "180"], "not before all have ended");
    n.answer(A, "INVITE", 487);
    assert_eq!(n.heard(CALLER), ["100", "180", "603"]);
    assert!(n.heard(C).is_empty());
    assert_eq!(n.router.contexts(), 0);
}

#[test]
fn the_caller_gives_up() {
    let mut n = forked(&[(A, 1000), (B, 1000), (C, 500)]);
    n.answer(A, "INVITE", 180);
    n.answer(B, "INVITE", 486);
    let mut cancel = request("INVITE", "sip:bob@office", CALLER);
    cancel = {
        let mut m = Message::request(Method::Cancel, cancel.request_uri());
        ["Via", "Max-Forwards", "From", "To", "Call-ID"].iter().for_each(|f| m.push(*f, cancel.header(*f).unwrap()));
        m.push("CSeq", "1 CANCEL");
        m
    };
    n.take(&cancel, flow(CALLER));
    assert_eq!(n.heard(CALLER), ["100", "180", "200"]);
    assert_eq!(n.response().method(), &Method::Cancel);
    assert_eq!(n.heard(A), ["INVITE", "CANCEL"]);
    n.answer(A, "INVITE", 487);
    assert_eq!(n.heard(CALLER), ["100", "180", "200", "487"], "and not the 486");
    assert!(n.heard(C).is_empty());
    assert_eq!(n.router.contexts(), 0);
}

#[test]
fn the_caller_gives_up_before_anybody_was_found() {
    let mut n = node();
    let invite = request("INVITE", "sip:bob@office", CALLER);
    n.take(&invite, flow(CALLER));
    let id = *n.router.by_server.keys().next().unwrap();
    n.router.on_cancel(n.now, id);
    n.run();
    assert_eq!(n.heard(CALLER), ["100", "487"]);
    n.found(Resolution::Targets(vec![uri("sip:bob@10.0.0.1")]));
    assert!(n.heard(A).is_empty());
}

#[test]
fn given_up_while_the_node_is_still_looking_for_the_way() {
    let mut n = node();
    n.held = Some(Vec::new());
    let invite = request("INVITE", "sip:bob@office", CALLER);
    n.call(&invite, flow(CALLER), vec![uri("sip:bob@10.0.0.1")]);
    let id = *n.router.by_server.keys().next().unwrap();
    n.router.on_cancel(n.now, id);
    n.run();
    assert_eq!(n.heard(CALLER), ["100", "487"]);
    let branch = n.held.take().unwrap()[0];
    let late = n.layer.send_request(n.now, request("INVITE", "sip:x@y", HERE), flow(A));
    n.router.forwarded(branch, late);
    assert!(matches!(n.router.poll_output(), Some(Output::Cancel { tx, .. }) if tx == late));
}

#[test]
fn timer_c_ends_what_only_rings() {
    let mut n = forked(&[(A, 1000)]);
    n.answer(A, "INVITE", 180);
    n.pass(Duration::from_secs(100));
    n.answer(A, "INVITE", 180);
    n.pass(Duration::from_secs(184));
    assert_eq!(n.heard(A), ["INVITE"], "each provisional response starts it anew");
    n.pass(Duration::from_secs(2));
    assert_eq!(n.heard_once(A), ["INVITE", "CANCEL"]);
    n.answer(A, "INVITE", 487);
    assert_eq!(n.heard_once(CALLER), ["100", "180", "408"]);
    assert_eq!(n.router.contexts(), 0);
}

#[test]
fn timer_c_and_no_word_after_it() {
    let mut n = forked(&[(A, 1000)]);
    n.answer(A, "INVITE", 180);
    n.pass(Duration::from_secs(260));
    assert_eq!(n.heard(CALLER).first().unwrap(), "100");
    assert_eq!(n.heard(CALLER)[2], "408");
    assert_eq!(n.router.contexts(), 0);
}

#[test]
fn nobody_answers() {
    let mut n = forked(&[(A, 1000)]);
    n.pass(Duration::from_secs(33));
    assert_eq!(n.heard(CALLER)[1], "408");
    assert!(n.response().to_tag().is_some());
    assert_eq!(n.router.contexts(), 0);
    let mut n = node();
    n.call(&request("MESSAGE", "sip:bob@office", CALLER), flow(CALLER), vec![uri("sip:bob@10.0.0.1")]);
    n.pass(Duration::from_secs(100));
    assert!(n.heard(CALLER).is_empty(), "RFC 4320: no 408 to anything but INVITE");
    assert_eq!((n.router.contexts(), n.router.counters().left_unanswered, n.layer.servers()), (0, 1, 0));
}

#[test]
fn challenges_of_all_branches_are_gathered() {
    let mut n = forked(&[(A, 1000), (B, 1000)]);
    for (at, status, name) in [(A, 401, "WWW-Authenticate"), (B, 407, "Proxy-Authenticate")] {
        let (flow, m) = n.to(at, "INVITE");
        let mut response = Message::reply(&m, status, "Who");
        response.set_to_tag("t");
        response.push(name, format!("Digest realm=\"{at}\", nonce=\"1\""));
        n.take(&response, flow);
    }
    let response = n.response();
    assert_eq!(response.status(), 401);
    assert!(response.header("WWW-Authenticate").unwrap().contains(A));
    assert!(response.header("Proxy-Authenticate").unwrap().contains(B));
}

#[test]
fn a_503_is_not_passed_on() {
    let mut n = forked(&[(A, 1000)]);
    n.answer(A, "INVITE", 503);
    assert_eq!(n.heard(CALLER), ["100", "500"]);
}

#[test]
fn what_cannot_be_sent() {
    for (target, status) in [
        (Target::Flow { uri: "sip:bob@10.0.0.1".into(), flow: stream(A, 5) }, "480"),
        (Target::Uri { uri: "sip:bob@nowhere.example".into() }, "500"),
    ] {
        let mut n = node();
        n.held = Some(Vec::new());
        n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), vec![target.into()]);
        let branch = n.held.take().unwrap()[0];
        n.router.unsendable(n.now, branch);
        n.run();
        assert_eq!(n.heard(CALLER), ["100", status]);
    }
    let mut n = forked(&[(A, 1000), (B, 1000)]);
    n.layer.flow_failed(flow(A));
    n.run();
    n.answer(B, "INVITE", 404);
    assert_eq!(n.heard(CALLER), ["100", "404"]);
}

#[test]
fn targets_are_bounded_and_different() {
    let mut n = node();
    n.router.core.config.max_targets = 2;
    let targets = [1, 1, 2, 3].map(|i| uri(&format!("sip:bob@10.0.0.{i}")));
    n.call(&request("INVITE", "sip:bob@office", CALLER), flow(CALLER), targets.to_vec());
    assert_eq!((n.heard(A).len(), n.heard(B).len(), n.heard(C).len()), (1, 1, 0));
    assert_eq!(n.router.counters().targets_dropped, 1);
}

#[test]
fn the_breadth_is_kept() {
    let mut m = request("INVITE", "sip:bob@office", CALLER);
    m.push("Max-Breadth", 2);
    let mut n = node();
    let targets = [1, 2, 3].map(|i| uri(&format!("sip:bob@10.0.0.{i}")));
    n.call(&m, flow(CALLER), targets.to_vec());
    assert_eq!((n.heard(A).len(), n.heard(B).len(), n.heard(C).len()), (1, 1, 0));
    assert_eq!(n.to(A, "INVITE").1.header("Max-Breadth"), Some("1"));
    n.answer(A, "INVITE", 404);
    n.answer(B, "INVITE", 404);
    assert_eq!(n.to(C, "INVITE").1.header("Max-Breadth"), Some("2"));
    let mut n = node();
    m.set("Max-Breadth", 0);
    n.call(&m, flow(CALLER), targets.to_vec());
    assert_eq!(n.heard(CALLER), ["100", "440"]);
}
