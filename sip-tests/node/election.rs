//! Who becomes a supernode by itself, and who steps down.

use crate::world::World;
use chordial::config::Config;
use chordial::node::Input;
use chordial::node::control::{Command, Reply};
use chordial::overlay::tier::Facts;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn role(world: &World, host: usize) -> String {
    world.hosts[host].node.status(world.now).role
}

fn why(world: &World, host: usize) -> String {
    world.hosts[host].node.status(world.now).tier.expect("a peer").why
}

fn supernodes(world: &World) -> usize {
    (0..world.hosts.len()).filter(|h| !world.hosts[*h].dead && role(world, *h) == "supernode").count()
}

/// A ring of eight and `more` that come later; each configured by `change`.
fn ring_of_eight(seed: u64, more: usize, change: impl Fn(&mut Config)) -> World {
    let mut world = World::new(seed);
    for n in 0..8 {
        world.peer(&format!("s{n}"), &change);
        world.run(seconds(2));
    }
    world.run(seconds(20));
    assert_eq!(supernodes(&world), 8);
    for n in 0..more {
        world.peer(&format!("u{n}"), &change);
        world.run(seconds(2));
    }
    world.run(seconds(10));
    world
}

const GOOD: Facts = Facts { processors: 2, memory: 4000, load: 10, battery: false };

fn found(world: &mut World, from: usize, user: &str) -> bool {
    let request = world.command(from, Command::Lookup { target: user.into(), iterative: false });
    world.until(seconds(10), "the lookup", |w| w.hosts[from].replies.contains_key(&request));
    matches!(world.hosts[from].replies.get(&request), Some(Ok(Reply::Lookup(l))) if l.found)
}

#[test]
fn the_ninth_stays_ordinary_until_one_of_eight_dies() {
    let mut world = ring_of_eight(1, 2, |_| {});
    assert_eq!(supernodes(&world), 8);
    assert!(why(&world, 8).contains("enough"), "{}", why(&world, 8));
    world.kill(3);
    let took =
        world.until(seconds(60), "another supernode", |w| role(w, 8) == "supernode" || role(w, 9) == "supernode");
    assert!(took < seconds(30), "{took:?}");
    world.run(seconds(30));
    for user in ["s0", "s7", "u0", "u1"] {
        assert!(found(&mut world, 1, user) && found(&mut world, 9, user), "{user}");
    }
}

#[test]
fn a_loaded_supernode_calls_one_that_can_bear_it() {
    // Each takes four; after a minute a node counts as settled.
    let mut world = ring_of_eight(2, 5, |c| (c.tier.capacity, c.tier.settled_seconds) = (4, 60));
    assert_eq!(supernodes(&world), 8);
    // None of them has been measured: none rises.
    world.run(seconds(1800));
    assert_eq!(supernodes(&world), 8);
    let short = [
        Facts { battery: true, ..GOOD },
        Facts { memory: 10, ..GOOD },
        Facts { load: 900, ..GOOD },
        GOOD,
        Facts { battery: true, ..GOOD },
    ];
    for (n, facts) in short.into_iter().enumerate() {
        world.hand(8 + n, Input::Facts(facts));
    }
    world.run(seconds(7200));
    assert_eq!(role(&world, 11), "supernode", "{}", why(&world, 11));
    for (host, reason) in [(8, "battery"), (9, "MiB"), (10, "load"), (12, "battery")] {
        assert_eq!(role(&world, host), "ordinary", "{host}: {}", why(&world, host));
        let why = why(&world, host);
        assert!(why.contains(reason) || why.contains("enough"), "{host}: {why}");
    }
}

#[test]
fn a_supernode_that_cannot_be_reached_any_more_hangs_on_the_others() {
    let mut world = World::ring(3, &["s0", "s1", "s2", "s3"]);
    let at = world.hosts[2].overlay;
    world.hidden.insert(at);
    let took = world.until(seconds(3600), "it steps down", |w| role(w, 2) == "ordinary");
    assert!(took > seconds(60), "not by one look: {took:?}");
    world.run(seconds(60));
    let status = world.hosts[2].node.status(world.now);
    assert!(status.tier.as_ref().is_some_and(|t| t.primary.is_some() && t.backup.is_some()), "{status:?}");
    assert!(why(&world, 2).contains("cannot reach"), "{}", why(&world, 2));
    assert_eq!(world.hosts[0].node.status(world.now).overlay.successors.len(), 2);
    for user in ["s0", "s1", "s2", "s3"] {
        assert!(found(&mut world, 0, user) && found(&mut world, 2, user), "{user}");
    }
    // Reachable again, it comes back by itself: the ring is small.
    world.hidden.clear();
    world.until(seconds(3600), "it rises again", |w| role(w, 2) == "supernode");
}

#[test]
fn a_founder_that_nobody_reaches_gives_the_ring_to_those_that_are() {
    let mut world = World::new(4);
    // It knows somebody from the last time, founds alone, and is found by nobody.
    let first = world.hidden_peer("hidden", |_| {});
    world.run(seconds(5));
    assert_eq!(role(&world, first), "supernode");
    assert!(why(&world, first).contains("first"), "{}", why(&world, first));
    world.hidden.clear();
    for user in ["a", "b", "c"] {
        world.peer(user, |_| {});
    }
    world.run(seconds(10));
    assert_eq!(supernodes(&world), 4);
}

#[test]
fn far_more_supernodes_than_needed_become_fewer_and_never_less_than_eight() {
    let mut world = World::new(5);
    // All at once: each is wanted, for none sees the others yet.
    for n in 0..20 {
        world.peer(&format!("s{n}"), |_| {});
    }
    world.run(seconds(60));
    let begun = supernodes(&world);
    assert!(begun > 16, "{begun}");
    world.run(seconds(4800));
    let left = supernodes(&world);
    assert!((8..begun).contains(&left), "{left} of {begun}");
    for n in [0, 7, 13, 19] {
        assert!(found(&mut world, 1, &format!("s{n}")) && found(&mut world, 18, &format!("s{n}")));
    }
}

#[test]
fn forced_and_forbidden_roles_hold() {
    let mut world = ring_of_eight(6, 0, |_| {});
    let forced = world.hidden_peer("forced", |c| c.overlay.role = "supernode".into());
    let forbidden = world.peer("forbidden", |c| c.overlay.role = "ordinary".into());
    world.run(seconds(20));
    assert_eq!((role(&world, forced), role(&world, forbidden)), ("supernode".into(), "ordinary".into()));
    for dead in 0..4 {
        world.kill(dead);
        world.run(seconds(5));
    }
    world.run(seconds(60));
    assert_eq!((role(&world, forced), role(&world, forbidden)), ("supernode".into(), "ordinary".into()));
    assert!(found(&mut world, forbidden, "s6"));
}
