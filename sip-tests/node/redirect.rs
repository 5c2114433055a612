//! A peer as the location service of a plain SIP proxy.

use crate::raw::{Talk, Way, register, sdp};
use crate::world::World;
use chordial::node::control::{Command, Event};
use chordial::sip::msg::{Message, Method};
use std::time::Duration;

/// alice, who tells the proxy at raw end 0 where people are, and bob; raw end 1 is a phone, raw end 2 somebody else.
fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    (0..3).for_each(|_| _ = world.raw());
    world.peer("alice", |c| c.sip.redirect = vec!["10.9.0.1".into()]);
    world.peer("bob", |_| {});
    world.run(Duration::from_secs(15));
    world
}

fn ask(world: &mut World, raw: usize, uri: &str) -> Message {
    let to = world.hosts[0].sip;
    let mut talk = Talk::new(world, raw, Way::Udp(to), uri, "sip:joe@elsewhere.test", "sip:x@chordial");
    let invite = talk.invite(world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.ask(world, &invite)
}

fn contacts(answer: &Message) -> Vec<String> {
    answer.contacts().unwrap().iter().map(|c| c.uri.to_string()).collect()
}

#[test]
fn a_proxy_is_told_where_people_are_and_nobody_else_is() {
    let mut world = world(1);
    let to = world.hosts[0].sip;
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    assert_eq!(ask(&mut world, 0, "sip:desk@chordial").status(), 480);
    assert_eq!(register(&mut world, 1, Way::Udp(to), "sip:desk@chordial", "secret", 300).status(), 200);
    let answer = ask(&mut world, 0, "sip:desk@chordial");
    assert_eq!(answer.status(), 302);
    assert_eq!(contacts(&answer)[0], "sip:raw@10.9.0.2:5060");
    let answer = ask(&mut world, 0, "sip:bob@chordial");
    assert_eq!((answer.status(), contacts(&answer)), (302, vec![format!("sip:bob@{to};overlay")]));
    assert_eq!(ask(&mut world, 0, "sip:nobody@chordial").status(), 404);
    // Whoever else asks is a stranger as ever, and hears nothing of who is where.
    for uri in ["sip:desk@chordial", "sip:bob@chordial", &format!("sip:bob@{to};overlay")] {
        assert_eq!(ask(&mut world, 2, uri).status(), 403, "{uri}");
    }
    // Elsewhere than to users of this overlay nothing is carried.
    assert_eq!(ask(&mut world, 0, "sip:joe@10.9.0.3;overlay").status(), 403);
    assert!(world.requests(2, &Method::Invite).is_empty());
}

#[test]
fn the_contact_through_the_peer_rings() {
    let mut world = world(2);
    let to = world.hosts[0].sip;
    let answer = ask(&mut world, 0, "sip:alice@chordial");
    assert_eq!(contacts(&answer), [format!("sip:alice@{to};overlay")]);
    let uri = contacts(&answer).remove(0);
    let mut talk = Talk::new(&world, 0, Way::Udp(to), &uri, "sip:joe@elsewhere.test", "sip:alice@chordial");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.until_event(0, "the call", |e| {
        matches!(e, Event::Incoming { from, account, .. } if from == "sip:joe@elsewhere.test" && account == "proxy 10.9.0.1")
    });
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!(ok.status(), 200);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(Duration::from_secs(1));
    assert_eq!(talk.bye(&mut world), 200);
    // A user of this overlay is not believed to call from there.
    let mut talk = Talk::new(&world, 0, Way::Udp(to), &uri, "sip:bob@chordial", "sip:alice@chordial");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &invite).status(), 407);
}
