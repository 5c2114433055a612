//! Provisional responses that have to arrive (RFC 3262), both roles, and what is heard before the answer.

use crate::raw::{Talk, respond, sdp, send, way_back};
use crate::talk::{bob, offer, seconds};
use crate::world::{Received, World};
use chordial::node::MediaCommand;
use chordial::sip::msg::{Message, Method};
use std::time::Duration;

fn provisional(world: &World, status: u16) -> Vec<Message> {
    let all = world.raws[0].inbox.iter().map(|r| r.message.clone());
    all.filter(|m| m.status() == status).collect()
}

fn until_provisional(world: &mut World, status: u16) -> Message {
    world.until(seconds(5), "a provisional response", |w| !provisional(w, status).is_empty());
    provisional(world, status).pop().unwrap()
}

fn prack(world: &World, talk: &mut Talk, response: &Message) -> Message {
    let mut prack = talk.request(world, Method::Prack);
    let cseq = response.cseq().unwrap();
    prack.push("RAck", format_args!("{} {} INVITE", response.header("RSeq").unwrap(), cseq.number));
    prack
}

#[test]
fn ringing_is_repeated_until_its_prack_for_who_knows_that() {
    for (seed, field) in [(1, "Supported"), (2, "Require")] {
        let (mut world, mut talk) = bob(seed, false);
        let mut invite = talk.invite(&world, &offer());
        invite.push(field, "100rel");
        let number = talk.cseq;
        talk.send(&mut world, &invite);
        let ringing = until_provisional(&mut world, 180);
        assert!(ringing.has_token("Require", "100rel") && ringing.has("RSeq") && ringing.has("Contact"));
        world.run(seconds(4));
        assert_eq!(provisional(&world, 180).len(), 4, "at once, after 0.5, 1.5 and 3.5 s");
        talk.learn(&ringing);
        let mut wrong = talk.request(&world, Method::Prack);
        wrong.push("RAck", format_args!("7 {number} INVITE"));
        assert_eq!(talk.ask(&mut world, &wrong).status(), 481);
        let right = prack(&world, &mut talk, &ringing);
        assert_eq!(talk.ask(&mut world, &right).status(), 200);
        world.run(seconds(10));
        assert_eq!(provisional(&world, 180).len(), 4);
        world.answer(0);
        let ok = talk.finally(&mut world, &invite);
        assert_eq!((ok.status(), ok.to_tag()), (200, ringing.to_tag()));
        // The ACK has the INVITE's number, not the PRACK's.
        talk.cseq = number;
        talk.ack(&mut world, "");
        talk.cseq += 10;
        world.run(seconds(40));
        assert_eq!(talk.bye(&mut world), 200);
    }
}

#[test]
fn whoever_never_acknowledges_the_ringing_is_refused() {
    let (mut world, mut talk) = bob(3, false);
    let mut invite = talk.invite(&world, &offer());
    invite.push("Require", "100rel");
    let no = talk.ask(&mut world, &invite);
    assert_eq!(no.status(), 504);
}

#[test]
fn without_an_offer_the_ringing_brings_ours_and_the_prack_the_answer() {
    let (mut world, mut talk) = bob(4, false);
    let mut invite = talk.invite(&world, "");
    invite.push("Require", "100rel");
    let number = talk.cseq;
    talk.send(&mut world, &invite);
    let ringing = until_provisional(&mut world, 180);
    assert!(String::from_utf8_lossy(ringing.body()).contains("m=audio"));
    talk.learn(&ringing);
    // Answered here before the answer has come there: the 2xx waits for it.
    world.answer(0);
    world.run(seconds(1));
    assert!(provisional(&world, 200).is_empty());
    let mut prack = prack(&world, &mut talk, &ringing);
    prack.set_body("application/sdp", offer().into_bytes());
    assert_eq!(talk.ask(&mut world, &prack).status(), 200);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!((ok.status(), ok.body().len()), (200, 0));
    assert_eq!(world.hosts[0].plans()[0].agreed.remote_rtp, "10.9.0.1:7000".parse().unwrap());
    talk.cseq = number;
    talk.ack(&mut world, "");
    talk.cseq += 10;
    world.run(seconds(40));
    assert!(world.requests(0, &Method::Bye).is_empty());
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_prack_without_the_answer_that_is_due_does_not_do() {
    let (mut world, mut talk) = bob(5, false);
    let mut invite = talk.invite(&world, "");
    invite.push("Require", "100rel");
    talk.send(&mut world, &invite);
    let ringing = until_provisional(&mut world, 180);
    talk.learn(&ringing);
    let prack = prack(&world, &mut talk, &ringing);
    assert_eq!(talk.ask(&mut world, &prack).status(), 488);
}

/// A response of the raw end to bob's INVITE, with these fields.
fn says(world: &mut World, invite: &Received, status: u16, fields: &[(&str, &str)], body: &str) -> Message {
    let mut response = Message::reply(&invite.message, status, "Because");
    response.set_to_tag("callee");
    response.push("Contact", format_args!("<sip:raw@{}>", world.raws[0].addr));
    for (name, value) in fields {
        response.push(*name, value);
    }
    if !body.is_empty() {
        response.set_body("application/sdp", body.as_bytes().to_vec());
    }
    send(world, 0, way_back(invite), response.to_bytes());
    response
}

fn reliably(n: &str) -> [(&'static str, String); 2] {
    [("Require", "100rel".into()), ("RSeq", n.into())]
}

#[test]
fn reliable_responses_are_acknowledged_in_order_and_their_answer_stands() {
    let (mut world, _) = bob(6, true);
    let call = world.call(0, "sip:joe@10.9.0.1:5060");
    let invite = world.until_request(0, Method::Invite, 1);
    assert!(invite.message.has_token("Supported", "100rel"));
    let rel = |n: &str| reliably(n).map(|(a, b)| (a, b.leak() as &str));
    let progress = says(&mut world, &invite, 183, &rel("100"), &sdp("10.9.0.1:7000", "sendrecv"));
    let first = world.until_request(0, Method::Prack, 1);
    assert_eq!(first.message.header("RAck"), Some("100 1 INVITE"));
    assert_eq!((first.message.to_tag(), first.message.cseq().unwrap().number), (Some("callee"), 2));
    respond(&mut world, 0, &first, 200, "");
    assert_eq!(world.hosts[0].plans().len(), 1, "it is heard before the answer");
    assert!(world.hosts[0].plans()[0].silent, "and hears nothing of what is said here");
    // Again, and one that overtakes: neither is acknowledged.
    send(&mut world, 0, way_back(&invite), progress.to_bytes());
    says(&mut world, &invite, 180, &rel("102"), "");
    world.run(seconds(2));
    assert_eq!(world.requests(0, &Method::Prack).len(), 1);
    says(&mut world, &invite, 180, &rel("101"), "");
    let second = world.until_request(0, Method::Prack, 2);
    assert_eq!((second.message.header("RAck"), second.message.cseq().unwrap().number), (Some("101 1 INVITE"), 3));
    respond(&mut world, 0, &second, 200, "");
    // UPDATE from the one who has not answered yet: offer and answer are settled by now.
    let mut early = Talk::callee(&world, 0, way_back(&invite), &invite.message, &progress);
    let mut update = early.request(&world, Method::Update);
    update.set_body("application/sdp", sdp("10.9.0.1:7004", "sendrecv").into_bytes());
    assert_eq!(early.ask(&mut world, &update).status(), 200);
    says(&mut world, &invite, 200, &[], "");
    let ack = world.until_request(0, Method::Ack, 1);
    assert_eq!(ack.message.cseq().unwrap().number, 1, "the INVITE's number");
    world.run(seconds(1));
    let plan = world.hosts[0].plans().last().copied().unwrap().clone();
    assert!(!plan.silent);
    assert_eq!(plan.agreed.remote_rtp, "10.9.0.1:7004".parse().unwrap(), "as the UPDATE said");
    world.hand(0, chordial::node::Input::Abort { request: call });
    let bye = world.until_request(0, Method::Bye, 1);
    assert_eq!(bye.message.cseq().unwrap().number, 4);
}

#[test]
fn an_update_before_our_offer_is_answered_crosses_it() {
    let (mut world, _) = bob(7, true);
    world.call(0, "sip:joe@10.9.0.1:5060");
    let invite = world.until_request(0, Method::Invite, 1);
    let ringing = says(&mut world, &invite, 180, &[], "");
    world.run(seconds(1));
    let mut early = Talk::callee(&world, 0, way_back(&invite), &invite.message, &ringing);
    let mut update = early.request(&world, Method::Update);
    update.set_body("application/sdp", offer().into_bytes());
    assert_eq!(early.ask(&mut world, &update).status(), 491);
}

#[test]
fn early_media_of_one_fork_gives_way_to_the_answer_of_another() {
    let (mut world, _) = bob(8, true);
    world.call(0, "sip:joe@10.9.0.1:5060");
    let invite = world.until_request(0, Method::Invite, 1);
    says(&mut world, &invite, 183, &[], &sdp("10.9.0.1:7000", "sendrecv"));
    world.until_voice(0, 1);
    let mut other = Message::reply(&invite.message, 200, "OK");
    other.set_to_tag("another");
    other.push("Contact", format_args!("<sip:raw@{}>", world.raws[0].addr));
    other.set_body("application/sdp", sdp("10.9.0.1:7010", "sendrecv").into_bytes());
    send(&mut world, 0, way_back(&invite), other.to_bytes());
    world.until_voice(0, 2);
    let plan = world.hosts[0].plans().last().copied().unwrap().clone();
    assert_eq!((plan.agreed.remote_rtp, plan.silent), ("10.9.0.1:7010".parse().unwrap(), false));
    // The first one answers all the same: acknowledged, and ended.
    says(&mut world, &invite, 200, &[], &sdp("10.9.0.1:7000", "sendrecv"));
    let bye = world.until_request(0, Method::Bye, 1);
    assert_eq!(bye.message.to_tag(), Some("callee"));
    world.run(Duration::from_millis(100));
    assert_eq!(world.requests(0, &Method::Ack).len(), 2);
    assert!(!world.hosts[0].media.iter().any(|m| matches!(m, MediaCommand::Close { .. })));
}
