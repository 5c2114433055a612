//! What a caller learns of where the callee is: nothing before the answer, and afterwards what the callee's owner wants.

use crate::world::World;
use chordial::config::{Addresses, Config};
use chordial::node::MediaCommand;
use chordial::node::control::Event;
use chordial::sip::msg::Message;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

fn ring(seed: u64, change: impl Fn(&mut Config)) -> World {
    let mut world = World::new(seed);
    (world.encrypts, world.ice) = (true, true);
    for user in ["alice", "bob"] {
        world.peer(user, &change);
    }
    world.run(Duration::from_secs(15));
    world
}

/// The bodies of responses and INFOs from now on.
fn bodies(world: &mut World) -> Rc<RefCell<Vec<String>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    world.swallow = Box::new(move |bytes| {
        let told = bytes.starts_with(b"SIP/2.0") || bytes.starts_with(b"INFO");
        let message = Message::parse(bytes).ok().filter(|m| told && !m.body().is_empty());
        let sdp =
            message.filter(|m| m.content_is("application/sdp") || m.content_is("application/trickle-ice-sdpfrag"));
        log.borrow_mut().extend(sdp.map(|m| String::from_utf8_lossy(m.body()).into_owned()));
        false
    });
    seen
}

/// Datagrams that bob's machine has sent to alice's sockets.
fn checks(world: &World) -> usize {
    let alice = world.hosts[0].sip.ip();
    let to_her = |m: &&MediaCommand| matches!(m, MediaCommand::Send { to, .. } if to.ip() == alice);
    world.hosts[1].media.iter().filter(to_her).count()
}

#[test]
fn before_the_answer_a_caller_learns_nothing() {
    let mut world = ring(1, |_| {});
    let seen = bodies(&mut world);
    world.call(0, "bob");
    world.until_ringing_at(1);
    world.run(Duration::from_secs(10));
    assert!(seen.borrow().is_empty() && checks(&world) == 0, "{seen:?}");
    assert!(world.hosts[1].media.is_empty(), "no socket before somebody answers");
    world.answer(1);
    world.until_route(0, 1);
    assert!(seen.borrow()[0].contains("10.0.0.2"), "and then where the callee is");
}

#[test]
fn a_stranger_learns_no_address_where_only_contacts_may() {
    let mut world = ring(2, |config| config.media.addresses = Addresses::Contacts);
    let seen = bodies(&mut world);
    world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    world.until_voice(0, 1);
    let plan = world.hosts[0].plans()[0].clone();
    assert!(plan.agreed.direction.sends() && plan.agreed.direction.receives(), "it is no hold");
    assert!(plan.ice.is_some_and(|ice| ice.remote.candidates.is_empty()));
    world.run(Duration::from_secs(20));
    assert!(seen.borrow().iter().all(|body| !body.contains("10.0.0.2")), "{seen:?}");
    assert_eq!(checks(&world), 0, "a check shows where it comes from");
    // No relay on this network: the call comes to nothing, and says so.
    let lost = |e: &Event| matches!(e, Event::Ended { report, .. } if report.result == "lost");
    world.until(Duration::from_secs(30), "the end", |w| w.hosts[1].events.iter().any(|(_, e)| lost(e)));
}

#[test]
fn a_contact_learns_it() {
    let mut world = ring(3, |config| config.media.addresses = Addresses::Contacts);
    crate::open::know(&mut world, 1, 0);
    world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    let route = world.until_route(0, 1);
    assert_eq!(route.remote.ip(), world.hosts[1].sip.ip());
}
