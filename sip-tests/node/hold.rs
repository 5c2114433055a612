//! Hold, resume and mute by the node's own user, and by both ends; digits by INFO.

use crate::raw::{respond, sdp};
use crate::talk::{bob, offer, seconds};
use crate::world::World;
use chordial::node::control::{Command, CommandError, Event, Reply, RequestId};
use chordial::node::{Input, MediaCommand};
use chordial::sdp::{Direction, Session};
use chordial::sip::msg::Method;
use std::time::Duration;

const HOLD: Command = Command::Hold { call: None };
const RESUME: Command = Command::Resume { call: None };

fn reply(world: &mut World, host: usize, request: RequestId) -> Result<Reply, CommandError> {
    world.until(seconds(40), "the answer to a command", |w| w.hosts[host].replies.contains_key(&request));
    world.hosts[host].replies.remove(&request).unwrap()
}

/// `state`, `held_by`.
fn held(world: &World, host: usize) -> (String, String) {
    let call = world.hosts[host].node.status(world.now).calls[0].clone();
    (call.state, call.held_by)
}

/// Whether the source of the only call is silenced, as the media threads were told last.
fn silent(world: &World, host: usize) -> bool {
    let said = world.hosts[host].media.iter().filter_map(|m| match m {
        MediaCommand::Mute { muted, .. } => Some(*muted),
        MediaCommand::Start { plan, .. } => Some(plan.silent),
        _ => None,
    });
    said.last().unwrap()
}

#[test]
fn hold_is_sendonly_and_resume_sendrecv_under_the_same_version_rules() {
    let (mut world, mut talk) = bob(1, true);
    talk.establish(&mut world, &offer());
    let before =
        Session::parse(world.raws[0].inbox.iter().find(|r| !r.message.body().is_empty()).unwrap().message.body());
    let mut version: u64 = before.unwrap().origin.version.parse().unwrap();
    let rounds =
        [(HOLD, "sendonly", "recvonly", "held", "here", true), (RESUME, "sendrecv", "sendrecv", "answered", "", false)];
    for (n, (command, offered, answered, state, by, quiet)) in rounds.into_iter().enumerate() {
        let request = world.command(0, command);
        let invite = world.until_request(0, Method::Invite, n + 1);
        let session = Session::parse(invite.message.body()).unwrap();
        assert_eq!(session.direction_of(&session.media[0]).name(), offered);
        assert_eq!(session.origin.version.parse(), Ok(version + 1), "a changed description has the next version");
        version += 1;
        assert!(!world.hosts[0].replies.contains_key(&request), "nobody has agreed yet");
        let plans = world.hosts[0].plans().len();
        respond(&mut world, 0, &invite, 200, &sdp("10.9.0.1:7000", answered));
        assert!(matches!(reply(&mut world, 0, request), Ok(Reply::Done { .. })));
        world.until_request(0, Method::Ack, n + 1);
        assert_eq!(world.hosts[0].plans().len(), plans + 1);
        assert_eq!(held(&world, 0), (state.into(), by.into()));
        assert_eq!(silent(&world, 0), quiet);
    }
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_refused_hold_leaves_the_call_as_it_was() {
    let (mut world, mut talk) = bob(2, true);
    talk.establish(&mut world, &offer());
    let request = world.command(0, HOLD);
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 488, "");
    let refused = reply(&mut world, 0, request).unwrap_err();
    assert!(refused.what.contains("488"), "{refused}");
    assert_eq!((held(&world, 0), silent(&world, 0)), (("answered".into(), String::new()), false));
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_stream_that_the_other_end_holds_is_held_by_inactive() {
    let (mut world, mut talk) = bob(3, true);
    talk.establish(&mut world, &offer());
    let theirs = talk.invite(&world, &sdp("10.9.0.1:7000", "sendonly"));
    assert_eq!(talk.ask(&mut world, &theirs).status(), 200);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    assert_eq!(held(&world, 0), ("held".into(), "there".into()));
    assert!(world.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::Held { here: false, there: true, .. })));
    let request = world.command(0, HOLD);
    let ours = world.until_request(0, Method::Invite, 1);
    assert!(String::from_utf8_lossy(ours.message.body()).contains("a=inactive"));
    respond(&mut world, 0, &ours, 200, &sdp("10.9.0.1:7000", "inactive"));
    reply(&mut world, 0, request).unwrap();
    assert_eq!(held(&world, 0).1, "both");
    // They come back; we do not yet.
    let theirs = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    let ok = talk.ask(&mut world, &theirs);
    talk.ack(&mut world, "");
    assert!(String::from_utf8_lossy(ok.body()).contains("a=sendonly"), "our own hold stands");
    world.run(seconds(1));
    assert_eq!(held(&world, 0).1, "here");
    assert_eq!(world.hosts[0].plans().last().unwrap().agreed.direction, Direction::SendOnly);
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn holds_that_cross_are_both_done_in_the_end() {
    let (mut world, mut talk) = bob(4, true);
    talk.establish(&mut world, &offer());
    let request = world.command(0, HOLD);
    let theirs = talk.invite(&world, &sdp("10.9.0.1:7000", "sendonly"));
    talk.send(&mut world, &theirs);
    let ours = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &ours, 491, "");
    assert_eq!(talk.finally(&mut world, &theirs).status(), 491);
    talk.ack(&mut world, "");
    let crossed = world.now;
    let again = world.until_request(0, Method::Invite, 2);
    let waited = world.now.since(crossed);
    assert!(waited <= Duration::from_millis(2100), "bob has not made the Call-ID: 0 to 2 s, but {waited:?}");
    respond(&mut world, 0, &again, 200, &sdp("10.9.0.1:7000", "inactive"));
    reply(&mut world, 0, request).unwrap();
    assert_eq!(held(&world, 0).1, "both");
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn whoever_made_the_call_waits_longer_after_a_491() {
    for seed in 10..14 {
        let (mut world, _) = bob(seed, true);
        let call = world.call(0, "sip:joe@10.9.0.1:5060");
        let invite = world.until_request(0, Method::Invite, 1);
        respond(&mut world, 0, &invite, 200, &sdp("10.9.0.1:7000", "sendrecv"));
        world.until_voice(0, 1);
        let request = world.command(0, HOLD);
        let ours = world.until_request(0, Method::Invite, 2);
        let refused = world.now;
        respond(&mut world, 0, &ours, 491, "");
        let again = world.until_request(0, Method::Invite, 3);
        let waited = world.now.since(refused);
        assert!((2100..=4100).contains(&waited.as_millis()), "{waited:?}");
        respond(&mut world, 0, &again, 200, &sdp("10.9.0.1:7000", "recvonly"));
        reply(&mut world, 0, request).unwrap();
        world.hand(0, Input::Abort { request: call });
        let bye = world.until_request(0, Method::Bye, 1);
        respond(&mut world, 0, &bye, 200, "");
    }
}

#[test]
fn a_call_that_ends_takes_the_wish_with_it() {
    let (mut world, mut talk) = bob(5, true);
    talk.establish(&mut world, &offer());
    let request = world.command(0, HOLD);
    world.until_request(0, Method::Invite, 1);
    assert_eq!(talk.bye(&mut world), 200);
    assert!(reply(&mut world, 0, request).is_err());
    assert!(world.ask(0, HOLD).is_err(), "there is nothing to hold");
}

#[test]
fn between_two_peers_hold_keeps_the_ice_session() {
    let mut world = World::new(6);
    (world.ice, world.encrypts) = (true, true);
    for user in ["alice", "bob"] {
        world.peer(user, |_| {});
    }
    world.run(seconds(15));
    world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    world.until_route(0, 1);
    world.until_route(1, 1);
    world.run(seconds(2));
    let (before, routes) =
        (world.hosts[1].plans().last().copied().unwrap().ice.clone().unwrap(), world.hosts[1].routes().len());
    let request = world.command(0, HOLD);
    reply(&mut world, 0, request).unwrap();
    world.run(seconds(5));
    assert_eq!((held(&world, 0).1, held(&world, 1).1), ("here".into(), "there".into()));
    let after = world.hosts[1].plans().last().copied().unwrap().clone();
    let ice = after.ice.unwrap();
    assert_eq!((ice.local, ice.remote.credentials), (before.local, before.remote.credentials));
    assert_eq!(world.hosts[1].routes().len(), routes, "no way was looked for anew");
    assert!(after.secured.is_some_and(|s| s.signer.is_some()), "the new description is signed too");
    assert!(silent(&world, 0) && !silent(&world, 1));
    let request = world.command(0, RESUME);
    reply(&mut world, 0, request).unwrap();
    world.run(seconds(2));
    assert_eq!(held(&world, 1), ("answered".into(), String::new()));
}

#[test]
fn mute_is_this_ends_own_affair() {
    let (mut world, mut talk) = bob(7, true);
    talk.establish(&mut world, &offer());
    for off in [false, true] {
        world.ask(0, Command::Mute { call: None, off }).unwrap();
        assert_eq!((silent(&world, 0), world.hosts[0].node.status(world.now).calls[0].muted), (!off, !off));
    }
    world.run(seconds(2));
    assert!(world.requests(0, &Method::Invite).is_empty());
    // What is muted stays so through a new description.
    world.ask(0, Command::Mute { call: None, off: false }).unwrap();
    let theirs = talk.invite(&world, &sdp("10.9.0.1:7002", "sendrecv"));
    talk.ask(&mut world, &theirs);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    assert!(silent(&world, 0));
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn digits_come_by_info_too() {
    let (mut world, mut talk) = bob(8, true);
    talk.establish(&mut world, &offer());
    let mut info = talk.request(&world, Method::Info);
    info.set_body("application/dtmf-relay", b"Signal=7\r\nDuration=160\r\n".to_vec());
    assert_eq!(talk.ask(&mut world, &info).status(), 200);
    assert!(world.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::Dtmf { digit: '7', .. })));
    let mut info = talk.request(&world, Method::Info);
    info.set_body("application/dtmf-relay", b"Signal=77\r\n".to_vec());
    assert_eq!(talk.ask(&mut world, &info).status(), 469);
    assert_eq!(talk.bye(&mut world), 200);
}
