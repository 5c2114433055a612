//! Standard phones at a peer: they register, are found from other peers, call and are called, and go away.

use crate::raw::{Talk, Way, authorize, register, respond, sdp, way_back};
use crate::world::World;
use chordial::core::Transport;
use chordial::node::control::{Command, Event, Reply};
use chordial::sip::msg::Method;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn offer() -> String {
    sdp("10.9.0.1:7000", "sendrecv")
}

/// alice, bob, carol; a raw phone `desk` with an account at bob's peer.
fn office(seed: u64) -> World {
    let mut world = World::ring(seed, &["alice", "bob", "carol"]);
    let add = Command::PhoneAdd { user: "desk".into(), label: "Desk".into(), password: "secret".into() };
    world.ask(1, add).unwrap();
    world.raw();
    world
}

fn way(world: &mut World, tcp: bool) -> Way {
    let to = world.hosts[1].sip;
    if tcp { Way::Stream(world.dial(0, Transport::Tcp, to)) } else { Way::Udp(to) }
}

fn registered(seed: u64, tcp: bool) -> (World, Way) {
    let mut world = office(seed);
    let way = way(&mut world, tcp);
    let ok = register(&mut world, 0, way, "sip:desk@chordial", "secret", 60);
    assert_eq!(ok.status(), 200, "{}", ok.reason());
    world.run(seconds(2));
    (world, way)
}

fn found(world: &mut World, from: usize, user: &str) -> bool {
    let request = world.command(from, Command::Lookup { target: user.into(), iterative: false });
    world.until(seconds(10), "the lookup", |w| w.hosts[from].replies.contains_key(&request));
    matches!(world.hosts[from].replies.get(&request), Some(Ok(Reply::Lookup(l))) if l.found)
}

/// The phone's INVITE to `to`, with the proxy's challenge answered.
fn phone_invite(world: &mut World, way: Way, to: &str, local: &str) -> (Talk, chordial::sip::msg::Message) {
    let mut talk = Talk::new(world, 0, way, to, local, to);
    let invite = talk.invite(world, &offer());
    let challenge = talk.ask(world, &invite);
    assert_eq!(challenge.status(), 407, "{}", challenge.reason());
    let ack_free = talk.invite(world, &offer());
    let mut invite = ack_free;
    authorize(&mut invite, &challenge, "desk", "secret");
    talk.send(world, &invite);
    (talk, invite)
}

#[test]
fn a_phone_registers_is_found_and_expires() {
    let (mut world, _) = registered(1, false);
    assert!(found(&mut world, 0, "desk"));
    let status = world.hosts[1].node.status(world.now);
    assert!(status.registrations.iter().any(|r| r.aor == "sip:desk@chordial" && r.contacts.len() == 1));
    world.run(seconds(65));
    assert!(!found(&mut world, 0, "desk"), "a tombstone");
    let request = world.call(0, "desk");
    assert_eq!(world.report(0, request, seconds(5)).0.result, "not-found");
}

#[test]
fn a_phone_that_leaves_or_is_removed_is_not_found() {
    let (mut world, way) = registered(2, false);
    let ok = register(&mut world, 0, way, "sip:desk@chordial", "secret", 0);
    assert_eq!(ok.status(), 200);
    world.run(seconds(2));
    assert!(!found(&mut world, 0, "desk"));
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
    world.run(seconds(3));
    assert!(found(&mut world, 0, "desk"), "after a tombstone it is written again");
    world.ask(1, Command::PhoneRemove { user: "desk".into() }).unwrap();
    world.run(seconds(2));
    assert!(!found(&mut world, 0, "desk"));
    assert_ne!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
}

#[test]
fn a_wrong_password_does_not_register() {
    let mut world = office(3);
    let way = way(&mut world, false);
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "guess", 60).status(), 401);
    assert_ne!(register(&mut world, 0, way, "sip:alice@chordial", "secret", 60).status(), 200);
    world.run(seconds(2));
    assert!(!found(&mut world, 0, "desk"));
}

/// The phone is called from another peer; who hangs up is `phone_ends`.
fn called(seed: u64, tcp: bool, phone_ends: bool) {
    let (mut world, _) = registered(seed, tcp);
    let request = world.call(0, "desk");
    let invite = world.until_request(0, Method::Invite, 1);
    assert_eq!(invite.conn.is_some(), tcp);
    assert!(invite.message.has("Record-Route"));
    respond(&mut world, 0, &invite, 180, "");
    world.until_event(0, "ringing", |e| matches!(e, Event::Ringing { .. }));
    let ok = respond(&mut world, 0, &invite, 200, &offer());
    let ack = world.until_request(0, Method::Ack, 1);
    assert_eq!(ack.message.to_tag(), ok.to_tag());
    world.until_voice(0, 1);
    assert_eq!(world.hosts[0].plans()[0].agreed.remote_rtp, "10.9.0.1:7000".parse().unwrap());
    assert!(world.hosts[1].plans().is_empty(), "the peer between carries no voice");
    world.run(seconds(40));
    assert_eq!(world.requests(0, &Method::Invite).len(), 1);
    if phone_ends {
        let mut talk = Talk::callee(&world, 0, way_back(&invite), &invite.message, &ok);
        assert_eq!(talk.bye(&mut world), 200);
    } else {
        world.hang_up(0);
        let bye = world.until_request(0, Method::Bye, 1);
        respond(&mut world, 0, &bye, 200, "");
    }
    assert_eq!(world.report(0, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_phone_on_udp_is_called() {
    called(4, false, true);
    called(5, false, false);
}

#[test]
fn a_phone_on_tcp_is_called() {
    called(6, true, true);
    called(7, true, false);
}

#[test]
fn the_caller_gives_up_and_the_phone_stops_ringing() {
    let (mut world, _) = registered(8, false);
    let request = world.call(0, "desk");
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 180, "");
    world.until_event(0, "ringing", |e| matches!(e, Event::Ringing { .. }));
    world.hang_up(0);
    let cancel = world.until_request(0, Method::Cancel, 1);
    respond(&mut world, 0, &cancel, 200, "");
    respond(&mut world, 0, &invite, 487, "");
    assert_eq!(world.report(0, request, seconds(5)).0.status, 487);
}

#[test]
fn the_caller_dies_and_the_phone_stops_ringing() {
    let (mut world, _) = registered(9, false);
    world.call(0, "desk");
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 180, "");
    world.run(seconds(1));
    world.kill(0);
    world.until_request(0, Method::Cancel, 1);
}

/// The phone calls a user of another peer; who hangs up is `phone_ends`.
fn calls(seed: u64, tcp: bool, phone_ends: bool) {
    let (mut world, way) = registered(seed, tcp);
    let (mut talk, invite) = phone_invite(&mut world, way, "sip:alice@chordial", "sip:desk@chordial");
    world.until_ringing_at(0);
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!(ok.status(), 200);
    talk.learn(&ok);
    assert!(!talk.routes.is_empty());
    talk.ack(&mut world, "");
    world.until_voice(0, 1);
    world.run(seconds(40));
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1, "the ACK arrived");
    if phone_ends {
        assert_eq!(talk.bye(&mut world), 200);
    } else {
        world.hang_up(0);
        let bye = world.until_request(0, Method::Bye, 1);
        respond(&mut world, 0, &bye, 200, "");
    }
    world.run(seconds(3));
    assert_eq!(world.hosts[0].ended()[0].result, "completed");
    assert_eq!(world.hosts[0].ended()[0].with, "sip:desk@chordial");
}

#[test]
fn a_phone_on_udp_calls() {
    calls(10, false, true);
    calls(11, false, false);
}

#[test]
fn a_phone_on_tcp_calls() {
    calls(12, true, true);
    calls(13, true, false);
}

#[test]
fn a_phone_calls_the_user_of_its_own_peer_and_nobody() {
    let (mut world, way) = registered(14, false);
    let to = format!("sip:bob@{}", world.hosts[1].sip);
    let (mut talk, invite) = phone_invite(&mut world, way, &to, "sip:desk@chordial");
    world.until_ringing_at(1);
    world.answer(1);
    let ok = talk.finally(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(seconds(40));
    world.hang_up(1);
    let bye = world.until_request(0, Method::Bye, 1);
    respond(&mut world, 0, &bye, 200, "");
    let (talk, invite) = phone_invite(&mut world, way, "sip:nobody@chordial", "sip:desk@chordial");
    assert_eq!(talk.finally(&mut world, &invite).status(), 404);
}

#[test]
fn a_phone_that_calls_a_dead_peer_is_told_in_seconds() {
    let (mut world, way) = registered(15, false);
    world.hosts[0].silent = true;
    world.hosts[0].dead = true;
    let (talk, invite) = phone_invite(&mut world, way, "sip:alice@chordial", "sip:desk@chordial");
    let begun = world.now;
    let no = talk.finally(&mut world, &invite);
    assert!(no.status() >= 400, "{}", no.status());
    assert!(world.now.since(begun) < seconds(14), "{:?}", world.now.since(begun));
}

/// bob has a phone of his own name beside his user agent.
fn bobs_phone(seed: u64) -> World {
    let mut world = World::ring(seed, &["alice", "bob", "carol"]);
    let add = Command::PhoneAdd { user: "bob".into(), label: String::new(), password: "secret".into() };
    world.ask(1, add).unwrap();
    world.raw();
    let way = way(&mut world, false);
    assert_eq!(register(&mut world, 0, way, "sip:bob@chordial", "secret", 300).status(), 200);
    world.run(seconds(2));
    world
}

#[test]
fn phone_and_user_agent_of_one_user_both_ring_and_the_user_agent_answers() {
    for caller_ends in [true, false] {
        let mut world = bobs_phone(16);
        let request = world.call(0, "bob");
        world.until_ringing_at(1);
        let invite = world.until_request(0, Method::Invite, 1);
        respond(&mut world, 0, &invite, 180, "");
        world.run(seconds(1));
        world.answer(1);
        let cancel = world.until_request(0, Method::Cancel, 1);
        respond(&mut world, 0, &cancel, 200, "");
        respond(&mut world, 0, &invite, 487, "");
        world.until_voice(0, 1);
        world.until_voice(1, 1);
        world.run(seconds(40));
        assert_eq!(world.hosts[1].node.status(world.now).calls.len(), 1, "the ACK found its way");
        world.hang_up(if caller_ends { 0 } else { 1 });
        assert_eq!(world.report(0, request, seconds(5)).0.result, "completed");
        world.run(seconds(3));
        assert_eq!(world.hosts[1].ended()[0].result, "completed");
    }
}

#[test]
fn phone_and_user_agent_of_one_user_both_ring_and_the_phone_answers() {
    let mut world = bobs_phone(17);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    let invite = world.until_request(0, Method::Invite, 1);
    let ok = respond(&mut world, 0, &invite, 200, &offer());
    world.until_request(0, Method::Ack, 1);
    world.run(seconds(3));
    assert_eq!(world.hosts[1].ended()[0].status, 487);
    let mut talk = Talk::callee(&world, 0, way_back(&invite), &invite.message, &ok);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(world.report(0, request, seconds(5)).0.result, "completed");
}

#[test]
fn the_user_agent_calls_a_phone_of_its_own_peer() {
    let (mut world, _) = registered(18, false);
    let request = world.call(1, "desk");
    let invite = world.until_request(0, Method::Invite, 1);
    let ok = respond(&mut world, 0, &invite, 200, &offer());
    world.until_request(0, Method::Ack, 1);
    let mut talk = Talk::callee(&world, 0, way_back(&invite), &invite.message, &ok);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(world.report(1, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_phone_names_one_of_two_claimants() {
    let mut world = World::ring(19, &["alice", "bob", "carol", "carol"]);
    world.ask(1, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    world.raw();
    let way = way(&mut world, false);
    register(&mut world, 0, way, "sip:desk@chordial", "secret", 300);
    let (talk, invite) = phone_invite(&mut world, way, "sip:carol@chordial", "sip:desk@chordial");
    let no = talk.finally(&mut world, &invite);
    assert_eq!(no.status(), 485);
    let claim = world.hosts[3].verified.as_ref().unwrap().user_key.to_string();
    let contacts: Vec<String> = no.contacts().unwrap().iter().map(|c| c.uri.to_string()).collect();
    let chosen = contacts.iter().find(|c| c.contains(&claim)).expect("both are shown").clone();
    assert_eq!(contacts.len(), 2);
    phone_invite(&mut world, way, &chosen, "sip:desk@chordial");
    world.until_ringing_at(3);
    assert!(world.hosts[2].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
}

#[test]
fn a_phone_that_calls_a_peer_which_hangs_is_told_in_seconds() {
    let (mut world, way) = registered(20, false);
    world.swallow = Box::new(|bytes| bytes.starts_with(b"INVITE"));
    let (talk, invite) = phone_invite(&mut world, way, "sip:alice@chordial", "sip:desk@chordial");
    let begun = world.now;
    assert_eq!(talk.finally(&mut world, &invite).status(), 500);
    assert!(world.now.since(begun) < seconds(9), "{:?}", world.now.since(begun));
}
