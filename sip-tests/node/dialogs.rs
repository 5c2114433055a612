//! INVITE and what follows it, from a raw end over UDP: late offers, lost ACKs, hold, CANCEL, both ways.

use crate::raw::{Talk, respond, sdp, sdp_with, way_back};
use crate::talk::{bob, offer, seconds};
use crate::world::World;
use chordial::node::Input;
use chordial::sdp::Direction;
use chordial::sip::msg::Method;
use std::time::Duration;

fn answers(world: &World) -> usize {
    world.raws[0].inbox.iter().filter(|r| r.message.status() == 200 && *r.message.method() == Method::Invite).count()
}

#[test]
fn an_offer_is_answered_and_bye_ends_it() {
    let (mut world, mut talk) = bob(1, true);
    let ok = talk.establish(&mut world, &offer());
    assert!(ok.has("Contact") && ok.has("Allow"));
    let plan = world.hosts[0].plans()[0].clone();
    assert_eq!(plan.agreed.remote_rtp, "10.9.0.1:7000".parse().unwrap());
    assert_eq!(plan.agreed.codec.name, "PCMU");
    world.run(seconds(40));
    assert_eq!(answers(&world), 1);
    assert_eq!(talk.bye(&mut world), 200);
    world.run(seconds(1));
    assert_eq!(world.hosts[0].ended()[0].result, "completed");
}

#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let (mut world, mut talk) = bob(2, true);
    let invite = talk.invite(&world, "");
    let ok = talk.ask(&mut world, &invite);
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio"));
    assert!(world.hosts[0].plans().is_empty());
    talk.learn(&ok);
    talk.ack(&mut world, &offer());
    world.until_voice(0, 1);
    assert_eq!(world.hosts[0].plans()[0].agreed.remote_rtp, "10.9.0.1:7000".parse().unwrap());
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_late_offer_without_an_answer_ends_with_bye() {
    let (mut world, mut talk) = bob(3, true);
    let invite = talk.invite(&world, "");
    let ok = talk.ask(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.until_request(0, Method::Bye, 1);
    world.run(seconds(3));
    assert_eq!(world.hosts[0].ended()[0].result, "failed");
}

#[test]
fn the_answer_is_repeated_until_the_ack_that_was_lost_comes_again() {
    let (mut world, mut talk) = bob(4, true);
    let invite = talk.invite(&world, &offer());
    let ok = talk.ask(&mut world, &invite);
    talk.learn(&ok);
    world.lose = Box::new(|_, _, bytes| bytes.starts_with(b"ACK"));
    talk.ack(&mut world, "");
    world.run(seconds(4));
    assert!((3..=5).contains(&answers(&world)), "{}", answers(&world));
    world.lose = Box::new(|_, _, _| false);
    talk.ack(&mut world, "");
    world.run(Duration::from_millis(50));
    let before = answers(&world);
    world.run(seconds(40));
    assert_eq!(answers(&world), before);
    assert!(world.requests(0, &Method::Bye).is_empty());
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_with_bye() {
    let (mut world, mut talk) = bob(5, true);
    let invite = talk.invite(&world, &offer());
    talk.ask(&mut world, &invite);
    world.run(seconds(30));
    assert!(world.requests(0, &Method::Bye).is_empty());
    world.run(seconds(5));
    assert!(!world.requests(0, &Method::Bye).is_empty());
    world.run(seconds(3));
    assert_eq!(world.hosts[0].ended()[0].result, "failed");
}

#[test]
fn whoever_hangs_up_before_the_ack_waits_for_it() {
    let (mut world, mut talk) = bob(6, true);
    let invite = talk.invite(&world, &offer());
    let ok = talk.ask(&mut world, &invite);
    talk.learn(&ok);
    world.hang_up(0);
    world.run(seconds(3));
    assert!(world.requests(0, &Method::Bye).is_empty(), "RFC 3261 section 15: no BYE before the ACK");
    assert!(answers(&world) > 1, "the answer may have been lost");
    talk.ack(&mut world, "");
    let bye = world.until_request(0, Method::Bye, 1);
    respond(&mut world, 0, &bye, 200, "");
    world.run(seconds(40));
    assert_eq!(world.requests(0, &Method::Bye).len(), 1);
    assert_eq!(world.hosts[0].ended().len(), 1);
}

#[test]
fn hold_and_resume() {
    let (mut world, mut talk) = bob(7, true);
    talk.establish(&mut world, &offer());
    for (direction, ours) in
        [("sendonly", Direction::RecvOnly), ("inactive", Direction::Inactive), ("sendrecv", Direction::SendRecv)]
    {
        let held = world.hosts[0].plans().len();
        let again = talk.invite(&world, &sdp("10.9.0.1:7002", direction));
        let ok = talk.ask(&mut world, &again);
        assert_eq!(ok.status(), 200);
        talk.ack(&mut world, "");
        world.until_voice(0, held + 1);
        let plan = world.hosts[0].plans().last().unwrap().agreed.clone();
        assert_eq!((plan.direction, plan.remote_rtp), (ours, "10.9.0.1:7002".parse().unwrap()));
    }
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_reinvite_without_offer_gets_ours_under_the_same_payload_types() {
    let (mut world, mut talk) = bob(8, true);
    let offer = sdp_with("10.9.0.1:7000", "111\r\na=rtpmap:111 opus/48000/2", "sendrecv");
    talk.establish(&mut world, &offer);
    let again = talk.invite(&world, "");
    let ok = talk.ask(&mut world, &again);
    let body = String::from_utf8_lossy(ok.body()).into_owned();
    assert!(body.contains("a=rtpmap:111 opus/48000/2"), "{body}");
    talk.ack(&mut world, &offer);
    world.until_voice(0, 2);
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_reinvite_that_cannot_be_taken_leaves_the_call() {
    let (mut world, mut talk) = bob(9, true);
    talk.establish(&mut world, &offer());
    let again = talk.invite(&world, &sdp_with("10.9.0.1:7000", "18", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &again).status(), 488);
    let again = talk.invite(&world, "this is no description");
    assert_eq!(talk.ask(&mut world, &again).status(), 400);
    world.run(seconds(2));
    assert_eq!(world.hosts[0].plans().len(), 1);
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1);
    let again = talk.invite(&world, &sdp("10.9.0.1:7004", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &again).status(), 200);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_reinvite_while_our_late_offer_is_open_is_put_off() {
    let (mut world, mut talk) = bob(10, true);
    let invite = talk.invite(&world, "");
    let ok = talk.ask(&mut world, &invite);
    talk.learn(&ok);
    let again = talk.invite(&world, &offer());
    assert_eq!(talk.ask(&mut world, &again).status(), 491);
    talk.cseq = 1;
    talk.ack(&mut world, &offer());
    world.until_voice(0, 1);
}

#[test]
fn requests_of_the_dialog_in_the_wrong_order_or_of_no_dialog() {
    let (mut world, mut talk) = bob(11, true);
    talk.establish(&mut world, &offer());
    talk.cseq = 0;
    let old = talk.invite(&world, &offer());
    assert_eq!(talk.ask(&mut world, &old).status(), 500);
    talk.cseq = 5;
    let mut stranger = talk.clone();
    stranger.remote = stranger.remote.replace(";tag=", ";tag=not");
    assert_eq!(stranger.bye(&mut world), 481);
    let mut stranger = talk.clone();
    stranger.local = stranger.local.replace(";tag=", ";tag=not");
    stranger.call_id.push('x');
    assert_eq!(stranger.bye(&mut world), 481);
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(talk.bye(&mut world), 200, "repeated by a peer that has not seen our answer");
}

#[test]
fn cancel_while_it_rings_and_cancel_after_the_answer() {
    let (mut world, mut talk) = bob(12, false);
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.run(seconds(1));
    let cancel = cancel_of(&invite);
    assert_eq!(talk.ask(&mut world, &cancel).status(), 200);
    world.until(seconds(1), "487", |w| w.raws[0].inbox.iter().any(|r| r.message.status() == 487));
    world.run(seconds(3));
    assert_eq!((world.hosts[0].ended()[0].result.as_str(), world.hosts[0].ended()[0].status), ("no-answer", 487));

    let (mut world, mut talk) = bob(13, true);
    let invite = talk.invite(&world, &offer());
    let ok = talk.ask(&mut world, &invite);
    let cancel = cancel_of(&invite);
    talk.send(&mut world, &cancel);
    world.run(seconds(1));
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    assert_eq!(talk.bye(&mut world), 200);
}

fn cancel_of(invite: &chordial::sip::msg::Message) -> chordial::sip::msg::Message {
    let mut cancel = chordial::sip::msg::Message::request(Method::Cancel, invite.request_uri());
    for name in ["Via", "Max-Forwards", "From", "To", "Call-ID"] {
        cancel.push(name, invite.header(name).unwrap());
    }
    cancel.push("CSeq", format_args!("{} CANCEL", invite.cseq().unwrap().number));
    cancel
}

/// bob calls the raw end, which answers.
fn bob_calls(seed: u64) -> (World, Talk, chordial::node::control::RequestId) {
    let (mut world, _) = bob(seed, false);
    let target = format!("sip:joe@{}", world.raws[0].addr);
    let request = world.call(0, &target);
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 180, "");
    world.run(seconds(1));
    let ok = respond(&mut world, 0, &invite, 200, &offer());
    let talk = Talk::callee(&world, 0, way_back(&invite), &invite.message, &ok);
    world.until_request(0, Method::Ack, 1);
    (world, talk, request)
}

#[test]
fn a_call_to_an_outside_address() {
    let (mut world, mut talk, request) = bob_calls(14);
    assert_eq!(world.hosts[0].plans()[0].agreed.remote_rtp, "10.9.0.1:7000".parse().unwrap());
    world.run(seconds(5));
    assert_eq!(talk.bye(&mut world), 200);
    let (report, _) = world.report(0, request, seconds(3));
    assert_eq!((report.result.as_str(), report.codec.as_str(), report.hops), ("completed", "PCMU", 0));
}

#[test]
fn a_repeated_answer_is_acknowledged_again() {
    let (mut world, _, _) = bob_calls(15);
    let invite = world.requests(0, &Method::Invite)[0].clone();
    respond(&mut world, 0, &invite, 200, &offer());
    world.until_request(0, Method::Ack, 2);
    assert!(world.requests(0, &Method::Bye).is_empty());
}

#[test]
fn a_second_fork_that_answers_is_acknowledged_and_ended_once() {
    let (mut world, _, _) = bob_calls(16);
    let invite = world.requests(0, &Method::Invite)[0].clone();
    let mut other = chordial::sip::msg::Message::reply(&invite.message, 200, "OK");
    other.set_to_tag("anotherfork");
    other.push("Contact", format_args!("<sip:fork@{}>", world.raws[0].addr));
    other.set_body("application/sdp", offer().into_bytes());
    for _ in 0..3 {
        crate::raw::send(&mut world, 0, way_back(&invite), other.to_bytes());
        world.run(Duration::from_millis(300));
    }
    let acks = world.requests(0, &Method::Ack);
    let byes: std::collections::BTreeSet<_> =
        world.requests(0, &Method::Bye).iter().map(|b| b.message.branch().unwrap().to_owned()).collect();
    assert_eq!((acks.len(), byes.len()), (4, 1));
    assert!(world.requests(0, &Method::Bye).iter().all(|b| b.message.to_tag() == Some("anotherfork")));
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1);
}

#[test]
fn busy_redirected_and_an_answer_that_makes_no_sense() {
    for (status, result) in [
        (486, "busy"),
        (600, "busy"),
        (603, "rejected"),
        (404, "not-found"),
        (480, "no-answer"),
        (380, "failed"),
        (500, "failed"),
    ] {
        let (mut world, _) = bob(u64::from(status), false);
        let target = format!("sip:joe@{}", world.raws[0].addr);
        let request = world.call(0, &target);
        let invite = world.until_request(0, Method::Invite, 1);
        respond(&mut world, 0, &invite, status, "");
        let (report, _) = world.report(0, request, seconds(3));
        assert_eq!((report.result.as_str(), report.status), (result, status));
        world.until_request(0, Method::Ack, 1);
    }
    let (mut world, _) = bob(17, false);
    let target = format!("sip:joe@{}", world.raws[0].addr);
    let request = world.call(0, &target);
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 200, "nonsense");
    world.until_request(0, Method::Bye, 1);
    let (report, _) = world.report(0, request, seconds(3));
    assert_eq!(report.result, "failed");
}

#[test]
fn an_answer_that_crosses_the_cancel_is_ended() {
    let (mut world, _) = bob(18, false);
    let target = format!("sip:joe@{}", world.raws[0].addr);
    let request = world.call(0, &target);
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 180, "");
    world.run(seconds(1));
    world.hand(0, Input::Abort { request });
    respond(&mut world, 0, &invite, 200, &offer());
    world.until_request(0, Method::Ack, 1);
    world.until_request(0, Method::Bye, 1);
}
