//! Ordinary nodes on supernodes: who becomes what, calls both ways, supernodes that die, callers that are made up, and what a node
//! sends that has nothing to do.

use crate::raw::{Talk, Way, register, respond, sdp};
use crate::world::{START, World};
use chordial::core::{Id, Transport};
use chordial::identity::Identity;
use chordial::node::control::{Command, Event, Reply, TierStatus};
use chordial::sip::msg::{HeaderName, Method};
use std::sync::Arc;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn role(world: &World, host: usize) -> String {
    world.hosts[host].node.status(world.now).role
}

fn tier(world: &World, host: usize) -> TierStatus {
    world.hosts[host].node.status(world.now).tier.expect("a peer")
}

/// The hosts of a node's primary and backup.
fn hangs_on(world: &World, host: usize) -> (Option<usize>, Option<usize>) {
    let tier = tier(world, host);
    let at = |peer: Option<chordial::node::control::PeerStatus>| {
        let id = Id::from_hex(&peer?.peer_id).unwrap();
        world.hosts.iter().position(|h| h.verified.as_ref().is_some_and(|v| v.peer_id == id))
    };
    (at(tier.primary), at(tier.backup))
}

/// `supernodes` in a ring, and behind them the hidden users, each by the supernode of that number.
fn two_tiers(seed: u64, supernodes: &[&str], hidden: &[(&str, usize)]) -> World {
    let mut world = World::ring(seed, supernodes);
    for (user, by) in hidden {
        let bootstrap = world.hosts[*by].overlay;
        world.hidden_peer(user, |c| c.overlay.bootstrap = vec![bootstrap.into()]);
    }
    world.run(seconds(30));
    for host in 0..world.hosts.len() {
        let expected = if host < supernodes.len() { "supernode" } else { "ordinary" };
        assert_eq!(role(&world, host), expected, "host {host}: {:?}", tier(&world, host));
    }
    for (i, (_, by)) in hidden.iter().enumerate() {
        let (primary, backup) = hangs_on(&world, supernodes.len() + i);
        assert_eq!(primary, Some(*by));
        assert!(backup.is_some_and(|b| b < supernodes.len() && b != *by), "{backup:?}");
    }
    world
}

/// A call from one to the other, ended by `ender`.
fn call(world: &mut World, from: usize, to: usize, user: &str, ender: usize) {
    let before = world.hosts[to].ended().len();
    let incoming = |w: &World| w.hosts[to].events.iter().filter(|(_, e)| matches!(e, Event::Incoming { .. })).count();
    let rung = incoming(world);
    let request = world.call(from, user);
    world.until(seconds(10), "the call", |w| incoming(w) > rung);
    world.answer(to);
    world.run(seconds(2));
    assert_eq!(world.hosts[from].node.status(world.now).calls[0].state, "answered");
    world.hang_up(ender);
    let (report, took) = world.report(from, request, seconds(10));
    assert_eq!(report.result, "completed", "{report:?}");
    assert!(took < seconds(1), "the end took {took:?}");
    world.until(seconds(10), "the other report", |w| w.hosts[to].ended().len() > before);
    world.run(seconds(1));
}

#[test]
fn who_can_be_reached_is_in_the_ring_and_who_cannot_hangs_on_it() {
    let world = two_tiers(1, &["s0", "s1", "s2"], &[("alice", 0), ("bob", 1)]);
    assert!(tier(&world, 3).why.contains("cannot reach"), "{}", tier(&world, 3).why);
    let attached: usize = (0..3).map(|s| tier(&world, s).attached.len()).sum();
    assert_eq!(attached, 4, "each hangs on two");
    for host in 0..3 {
        assert_eq!(world.hosts[host].node.status(world.now).overlay.successors.len(), 2, "the ring is of three");
    }
}

#[test]
fn a_node_that_is_told_to_stays_ordinary_and_is_found() {
    let mut world = World::ring(2, &["s0", "s1", "s2"]);
    let alice = world.peer("alice", |c| c.overlay.role = "ordinary".into());
    world.run(seconds(10));
    assert_eq!(role(&world, alice), "ordinary");
    assert!(tier(&world, alice).why.contains("role = ordinary"));
    call(&mut world, 1, alice, "alice", alice);
    call(&mut world, alice, 2, "s2", 2);
}

#[test]
fn ordinary_nodes_call_each_other_through_the_same_supernode_and_through_two() {
    let mut world = two_tiers(3, &["s0", "s1", "s2", "s3"], &[("alice", 0), ("bob", 0), ("carol", 2)]);
    let (alice, bob, carol) = (4, 5, 6);
    call(&mut world, alice, bob, "bob", alice);
    call(&mut world, bob, alice, "alice", alice);
    call(&mut world, alice, carol, "carol", carol);
    call(&mut world, carol, alice, "alice", carol);
    call(&mut world, 3, carol, "carol", carol);
    call(&mut world, carol, 3, "s3", carol);
    // Nobody dialled who cannot be dialled: all of that went over kept links.
    assert!(world.hosts.iter().all(|h| h.counter(world.now, "requests sent another way") == 0));
}

#[test]
fn a_phone_at_a_supernode_and_a_phone_at_an_ordinary_node_call_and_are_called() {
    let mut world = two_tiers(4, &["s0", "s1", "s2"], &[("alice", 0), ("bob", 1)]);
    let (alice, bob) = (3, 4);
    for (host, user, raw) in [(2, "desk", 0), (bob, "hall", 1)] {
        let add = Command::PhoneAdd { user: user.into(), label: String::new(), password: "secret".into() };
        world.ask(host, add).unwrap();
        assert_eq!(world.raw(), raw);
        let way = Way::Udp(world.hosts[host].sip);
        assert_eq!(register(&mut world, raw, way, &format!("sip:{user}@chordial"), "secret", 3600).status(), 200);
    }
    world.run(seconds(2));
    // From an ordinary node to either phone, ended by the phone and by the caller.
    for (raw, user) in [(0, "desk"), (1, "hall")] {
        for phone_ends in [true, false] {
            let seen = world.requests(raw, &Method::Invite).len();
            let request = world.call(alice, user);
            let invite = world.until_request(raw, Method::Invite, seen + 1);
            let ok = respond(&mut world, raw, &invite, 200, &sdp("10.9.0.1:7000", "sendrecv"));
            world.run(seconds(1));
            if phone_ends {
                let mut talk = Talk::callee(&world, raw, crate::raw::way_back(&invite), &invite.message, &ok);
                assert_eq!(talk.bye(&mut world), 200);
            } else {
                world.hang_up(alice);
                let byes = world.requests(raw, &Method::Bye).len();
                let bye = world.until_request(raw, Method::Bye, byes.max(1));
                respond(&mut world, raw, &bye, 200, "");
            }
            assert_eq!(world.report(alice, request, seconds(5)).0.result, "completed");
        }
    }
    // From either phone to the ordinary node alice.
    for (host, raw, user) in [(2, 0, "desk"), (bob, 1, "hall")] {
        let way = Way::Udp(world.hosts[host].sip);
        let mut talk =
            Talk::new(&world, raw, way, "sip:alice@chordial", &format!("sip:{user}@chordial"), "sip:alice@chordial");
        let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
        let challenge = talk.ask(&mut world, &invite);
        let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
        crate::raw::authorize(&mut invite, &challenge, user, "secret");
        talk.send(&mut world, &invite);
        world.until(seconds(5), "alice rings", |w| w.hosts[alice].node.status(w.now).calls.len() == 1);
        world.answer(alice);
        let ok = talk.finally(&mut world, &invite);
        assert_eq!(ok.status(), 200, "{user}");
        talk.learn(&ok);
        talk.ack(&mut world, "");
        world.run(seconds(1));
        assert_eq!(talk.bye(&mut world), 200, "{user}");
        world.run(seconds(1));
    }
}

/// alice and bob on different supernodes, in a call that alice placed.
fn in_a_call(seed: u64) -> (World, chordial::node::control::RequestId) {
    let mut world = two_tiers(seed, &["s0", "s1", "s2", "s3", "s4"], &[("alice", 0), ("bob", 1)]);
    let request = world.call(5, "bob");
    world.until_ringing_at(6);
    world.answer(6);
    world.run(seconds(2));
    (world, request)
}

#[test]
fn a_call_survives_the_death_of_either_primary() {
    for (seed, dead, ender) in [(5, 0, 5), (6, 0, 6), (7, 1, 5), (8, 1, 6)] {
        let (mut world, request) = in_a_call(seed);
        world.kill(dead);
        world.run(seconds(5));
        world.hang_up(ender);
        let (report, took) = world.report(5, request, seconds(10));
        assert_eq!(report.result, "completed", "{dead} died, {ender} hung up: {report:?}");
        assert!(took < seconds(3), "{took:?}");
        world.until(seconds(5), "bob's end", |w| w.hosts[6].ended().len() == 1);
        let other = world.hosts[6].ended()[0].clone();
        assert_eq!(other.result, "completed", "{other:?}");
        // And they can call each other again.
        world.run(seconds(3));
        call(&mut world, 5, 6, "bob", 6);
        call(&mut world, 6, 5, "alice", 6);
    }
}

#[test]
fn a_call_survives_the_death_of_both_primaries_while_nobody_says_anything() {
    for (seed, ender) in [(9, 5), (10, 6)] {
        let (mut world, request) = in_a_call(seed);
        world.kill(0);
        world.kill(1);
        world.run(seconds(60));
        world.hang_up(ender);
        assert_eq!(world.report(5, request, seconds(10)).0.result, "completed");
        world.until(seconds(5), "bob's end", |w| w.hosts[6].ended().len() == 1);
        for node in [5, 6] {
            let (primary, backup) = hangs_on(&world, node);
            assert!(primary.is_some_and(|p| (2..5).contains(&p)), "{primary:?}");
            assert!(backup.is_some_and(|b| (2..5).contains(&b) && Some(b) != primary), "{backup:?}");
        }
        call(&mut world, 5, 6, "bob", 5);
    }
}

#[test]
fn a_call_is_placed_while_the_callees_primary_is_dying() {
    let mut world = two_tiers(11, &["s0", "s1", "s2", "s3"], &[("alice", 0), ("bob", 1)]);
    world.kill(1);
    // bob has had no time to tell anybody.
    let request = world.call(4, "bob");
    let rang = world.until(seconds(10), "bob rings", |w| !w.hosts[5].node.status(w.now).calls.is_empty());
    assert!(rang < seconds(3), "{rang:?}");
    world.answer(5);
    world.run(seconds(1));
    world.hang_up(5);
    assert_eq!(world.report(4, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_primary_that_falls_silent_is_replaced_in_seconds() {
    let mut world = two_tiers(12, &["s0", "s1", "s2", "s3"], &[("alice", 0), ("bob", 1)]);
    world.hosts[1].silent = true;
    world.hosts[1].dead = true;
    let took = world.until(seconds(60), "another primary", |w| hangs_on(w, 5).0.is_some_and(|p| p != 1));
    println!("a silent primary: {took:?}");
    assert!(took < seconds(40), "{took:?}");
    world.run(seconds(10));
    call(&mut world, 4, 5, "bob", 4);
}

#[test]
fn nobody_makes_up_a_caller_on_behalf_of_a_node_that_hangs_on_it() {
    let mut world = two_tiers(13, &["s0", "s1", "s2"], &[("alice", 0), ("bob", 1)]);
    // A member with a link to bob's supernode, which forwards: under alice's name, and with a proof of its own.
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let raw = world.raw();
    world.raws[raw].proof = Some(Arc::new(mallory.verified(START).unwrap()));
    let to = world.hosts[1].overlay;
    let way = Way::Stream(world.dial(raw, Transport::Tls, to));
    let bob = &world.hosts[4];
    let uri = format!("sip:bob@{};transport=tls;peer-ID={};ob", bob.overlay, bob.verified.as_ref().unwrap().peer_id);
    for proof in [None, Some("00"), Some("zz")] {
        let mut talk = Talk::new(&world, raw, way, &uri, "sip:alice@chordial", "sip:bob@chordial");
        let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
        if let Some(proof) = proof {
            invite.push(HeaderName::Other("Caller-Proof"), proof);
        }
        assert_eq!(talk.ask(&mut world, &invite).status(), 403, "{proof:?}");
    }
    assert!(world.hosts[4].node.status(world.now).calls.is_empty());
    // Its own name is its own.
    let mut talk = Talk::new(&world, raw, way, &uri, "sip:mallory@chordial", "sip:bob@chordial");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.run(seconds(2));
    assert!(world.hosts[4].node.status(world.now).calls.is_empty(), "its supernode signs for nobody else either");
}

#[test]
fn an_ordinary_node_leaves_and_is_not_found_any_more() {
    let mut world = two_tiers(14, &["s0", "s1", "s2"], &[("alice", 0)]);
    world.ask(3, Command::Stop).unwrap();
    world.run(seconds(5));
    assert!(world.hosts[3].stopped);
    let request = world.command(1, Command::Lookup { target: "alice".into(), iterative: false });
    world.run(seconds(3));
    assert!(matches!(world.hosts[1].replies.get(&request), Some(Ok(Reply::Lookup(l))) if !l.found));
    assert!((0..3).all(|s| tier(&world, s).attached.is_empty()));
}

#[test]
fn nodes_that_lose_every_supernode_come_back_when_one_does() {
    let mut world = two_tiers(15, &["s0", "s1", "s2"], &[("alice", 0)]);
    let links = world.links(3);
    assert!(!links.is_empty());
    // Both its links break at once; the supernodes live.
    for conn in links {
        world.close(crate::world::Place::Node(3), conn);
    }
    let took = world.until(seconds(60), "it hangs on two again", |w| {
        matches!(hangs_on(w, 3), (Some(_), Some(_))) && w.hosts[3].node.status(w.now).overlay.state == "joined"
    });
    assert!(took < seconds(10), "{took:?}");
    world.run(seconds(3));
    call(&mut world, 1, 3, "alice", 1);
}

/// What a packet adds to a message on a link: TCP and IP headers with timestamps, and the TLS record.
const PER_MESSAGE: u64 = 52 + 22;

#[test]
fn an_ordinary_node_at_rest_sends_little_and_sleeps_long() {
    let mut world = two_tiers(16, &["s0", "s1", "s2", "s3"], &[("alice", 0)]);
    world.run(seconds(300));
    let hour = 3600;
    let (bytes, messages) = world.hosts[4].sent;
    world.hosts[4].active.clear();
    world.run(seconds(hour));
    let (bytes, messages) = (world.hosts[4].sent.0 - bytes, world.hosts[4].sent.1 - messages);
    // Each message is acknowledged, and so is each that comes.
    let wire = bytes + messages * (PER_MESSAGE + 52);
    let wakes = 1 + world.hosts[4].active.windows(2).filter(|w| w[1].since(w[0]) > seconds(1)).count() as u64;
    println!(
        "{:.1} B/s said, {:.1} B/s on the wire, awake every {:.1} s",
        bytes as f64 / hour as f64,
        wire as f64 / hour as f64,
        hour as f64 / wakes as f64
    );
    assert!(wire < 30 * hour, "{} B/s", wire / hour);
    assert!(wakes * 20 <= hour, "awake every {} s", hour / wakes);
    assert!(messages > 100, "it does keep its links");
    call(&mut world, 1, 4, "alice", 4);
}

#[test]
fn the_near_and_the_less_loaded_are_chosen() {
    let mut world = World::ring(17, &["s0", "s1", "s2", "s3", "s4"]);
    for far in [0, 1, 2] {
        world.far.insert(far, Duration::from_millis(120));
    }
    let by = world.hosts[0].overlay;
    world.hidden_peer("alice", |c| c.overlay.bootstrap = vec![by.into()]);
    world.run(seconds(60));
    let (primary, backup) = hangs_on(&world, 5);
    assert!(primary.is_some_and(|p| p >= 3) && backup.is_some_and(|b| b >= 3), "{primary:?} {backup:?}");
    call(&mut world, 0, 5, "alice", 5);

    // Supernodes that take four: whoever comes when the first is full finds room at the others.
    let mut world = World::new(18);
    for n in 0..3 {
        world.peer(&format!("s{n}"), |c| c.tier.capacity = 4);
        world.run(seconds(2));
    }
    world.run(seconds(20));
    for n in 0..5 {
        world.hidden_peer(&format!("u{n}"), |_| {});
        world.run(seconds(20));
    }
    let loads: Vec<usize> = (0..3).map(|s| tier(&world, s).attached.len()).collect();
    assert!(loads.iter().all(|n| *n <= 4) && loads.iter().sum::<usize>() == 10, "{loads:?}");
    for n in 3..8 {
        assert!(matches!(hangs_on(&world, n), (Some(_), Some(_))), "{n}");
    }
}

#[test]
fn a_node_with_the_only_supernode_does_not_look_for_another_all_the_time() {
    let mut world = World::ring(31, &["s0"]);
    let bootstrap = world.hosts[0].overlay;
    world.hidden_peer("alice", |c| c.overlay.bootstrap = vec![bootstrap.into()]);
    world.run(seconds(60));
    assert_eq!(role(&world, 1), "ordinary");
    let before = world.hosts[1].sent.1;
    world.run(seconds(300));
    let messages = world.hosts[1].sent.1 - before;
    assert!(messages < 60, "{messages} messages in five minutes");
}

#[test]
fn an_ordinary_node_with_a_wrong_clock_goes_by_its_supernodes() {
    for wrong in [-86_400, 86_400] {
        let mut world = two_tiers(31, &["s0", "s1", "s2"], &[("alice", 0), ("bob", 1)]);
        let (alice, bob) = (3, 4);
        world.kill(alice);
        world.run(seconds(20));
        world.restart(alice, &[0], wrong);
        world.run(seconds(60));
        let warnings = world.hosts[alice].node.status(world.now).warnings;
        assert!(warnings.iter().any(|w| w.what.contains("clock")), "{wrong} s off: {warnings:?}");
        call(&mut world, bob, alice, "alice", bob);
        call(&mut world, alice, bob, "bob", alice);
        // And what it writes holds for as long as anybody's.
        world.run(seconds(4000));
        call(&mut world, 2, alice, "alice", alice);
    }
}
