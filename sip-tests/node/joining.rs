//! The ways into the overlay: raced, remembered, and looked for again.

use crate::world::{START, World};
use chordial::config::{Bootstrap, Config};
use chordial::identity::Identity;
use chordial::node::Input;
use chordial::node::control::Event;
use std::net::SocketAddr;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn identity(world: &mut World, user: &str) -> Identity {
    Identity::open("chordial", user, START, &mut world.rng).unwrap()
}

fn config(user: &str, bootstrap: &[Bootstrap]) -> Config {
    let mut config = Config::default();
    config.user.name = user.into();
    config.overlay.bootstrap = bootstrap.to_vec();
    config
}

fn joined(world: &World, host: usize) -> bool {
    !world.hosts[host].node.status(world.now).overlay.successors.is_empty()
}

fn says_alone(world: &World, host: usize) -> usize {
    world.hosts[host].events.iter().filter(|(_, e)| matches!(e, Event::Alone { .. })).count()
}

fn gave_up(world: &World, host: usize) -> bool {
    world.hosts[host].events.iter().any(|(_, e)| matches!(e, Event::JoinFailed { .. }))
}

#[test]
fn silent_bootstraps_do_not_hold_up_one_that_answers() {
    let mut world = World::ring(1, &["a", "b"]);
    // Three take no connection at all, one takes it and hangs; the last one lives.
    let mut list: Vec<Bootstrap> = Vec::new();
    for user in ["x", "y", "z"] {
        let silent = world.peer(user, |c| c.overlay.bootstrap.clear());
        world.hosts[silent].silent = true;
        list.push(world.hosts[silent].overlay.into());
    }
    let hung = world.raw();
    let proof = world.hosts[2].verified.clone();
    world.raws[hung].proof = proof;
    list.push(world.raws[hung].addr.into());
    list.push(world.hosts[1].overlay.into());
    let late = world.peer("late", |c| c.overlay.bootstrap = list);
    let took = world.until(seconds(20), "the join", |w| joined(w, late));
    // A connection that nobody answers takes five seconds to fail, and an overlay's join as long again.
    assert!(took < seconds(3), "{took:?}");
    assert!(!gave_up(&world, late));
}

#[test]
fn a_first_start_whose_bootstrap_is_not_there_ends_with_its_name() {
    let mut world = World::new(2);
    let nobody: SocketAddr = "10.0.9.9:5061".parse().unwrap();
    let host = world.peer("a", |c| c.overlay.bootstrap = vec![nobody.into()]);
    world.until_event(host, "the failure", |e| matches!(e, Event::JoinFailed { why } if why.contains("10.0.9.9:5061")));
    assert_eq!(world.hosts[host].node.status(world.now).overlay.state, "joining");
}

#[test]
fn a_bootstrap_that_is_just_starting_is_waited_for() {
    let mut world = World::new(3);
    let later: SocketAddr = "10.0.0.2:5061".parse().unwrap();
    let first = world.peer("a", |c| c.overlay.bootstrap = vec![later.into()]);
    world.run(seconds(2));
    let second = world.peer("b", |c| c.overlay.bootstrap.clear());
    world.until(seconds(10), "both in one ring", |w| joined(w, first) && joined(w, second));
}

#[test]
fn a_peer_that_was_in_the_ring_goes_on_alone_and_finds_it_again() {
    let mut world = World::new(4);
    let (anna, ben) = (identity(&mut world, "anna"), identity(&mut world, "ben"));
    let a = world.member(anna.clone(), |_| {});
    let b = world.member(ben.clone(), |_| {});
    world.until(seconds(10), "the ring", |w| joined(w, a) && joined(w, b));
    world.run(seconds(5));
    let named: Bootstrap = world.hosts[a].overlay.into();
    world.kill(a);
    world.kill(b);
    world.restart_as(b, ben, config("ben", std::slice::from_ref(&named)));
    world.until_event(b, "going on alone", |e| matches!(e, Event::Alone { why } if why.contains("10.0.0.1:5061")));
    assert_eq!(world.hosts[b].node.status(world.now).overlay.state, "joined");
    world.run(seconds(120));
    assert_eq!((says_alone(&world, b), gave_up(&world, b), joined(&world, b)), (1, false, false));
    // It comes back, and names nobody: its own cache would do as well.
    world.restart_as(a, anna, config("anna", &[]));
    world.until(seconds(120), "one ring again", |w| joined(w, a) && joined(w, b));
}

#[test]
fn the_cache_alone_leads_back() {
    let mut world = World::ring(5, &["a", "b", "c"]);
    let carl = identity(&mut world, "carl");
    let d = world.member(carl.clone(), |_| {});
    world.until(seconds(10), "the ring", |w| joined(w, d));
    world.run(seconds(5));
    assert!(world.hosts[d].node.status(world.now).overlay.known_hosts >= 3);
    // Whom it joined by is gone for good; it knows the others.
    world.kill(d);
    world.kill(0);
    world.restart_as(d, carl, config("carl", &[]));
    let took = world.until(seconds(20), "the join by the cache", |w| joined(w, d));
    assert!(took < seconds(4), "{took:?}");
}

#[test]
fn without_a_cache_the_records_on_the_disk_lead_back() {
    let mut world = World::ring(8, &["a", "b", "c"]);
    world.run(seconds(60));
    // All lose power; whom c joined by stays off, and no host cache had been written.
    (0..3).for_each(|host| world.kill(host));
    world.run(seconds(5));
    world.restart(1, &[], 0);
    world.run(seconds(5));
    world.restart(2, &[], 0);
    let took = world.until(seconds(20), "b and c", |w| joined(w, 2) && joined(w, 1));
    assert!(took < seconds(5), "{took:?}");
}

#[test]
fn a_name_is_looked_up_for_every_attempt() {
    let mut world = World::new(6);
    let (anna, ben) = (identity(&mut world, "anna"), identity(&mut world, "ben"));
    let name: Bootstrap = "home.example.net:5061".parse().unwrap();
    let a = world.member(anna, |_| {});
    let b = world.member(ben.clone(), |c| c.overlay.bootstrap = vec![name.clone()]);
    let asked = |w: &World| w.hosts[b].log.iter().filter(|l| *l == "resolve home.example.net:5061").count();
    assert_eq!(asked(&world), 1);
    let found = Ok(vec![world.hosts[a].overlay]);
    world.hand(b, Input::Resolved { name: name.clone(), found });
    world.until(seconds(5), "the ring", |w| joined(w, b));
    world.run(seconds(5));
    // The supernode is somewhere else now, and nobody is at the address in the cache.
    world.kill(a);
    world.kill(b);
    let moved = world.peer("anna", |c| c.overlay.bootstrap.clear());
    world.restart_as(b, ben, config("ben", std::slice::from_ref(&name)));
    let fault = Err("no address behind the name home.example.net:5061".to_owned());
    world.hand(b, Input::Resolved { name: name.clone(), found: fault });
    world.until_event(b, "the reason", |e| matches!(e, Event::Alone { why } if why.contains("home.example.net")));
    world.until(seconds(30), "another lookup", |w| asked(w) > 1);
    let found = Ok(vec![world.hosts[moved].overlay]);
    world.hand(b, Input::Resolved { name, found });
    world.until(seconds(10), "the ring at the new address", |w| joined(w, b));
}

#[test]
fn who_is_heard_on_the_local_network_takes_part_in_the_race() {
    let mut world = World::ring(7, &["a", "b"]);
    let gone: SocketAddr = "10.0.9.9:5061".parse().unwrap();
    world.kill(1);
    world.hosts[1].dead = false;
    world.hosts[1].silent = true;
    let silent = world.hosts[1].overlay;
    let c = world.peer("c", |c| c.overlay.bootstrap = vec![gone.into(), silent.into()]);
    let (addr, id) = (world.hosts[0].overlay, world.hosts[0].verified.as_ref().unwrap().peer_id);
    world.hand(c, Input::Found { addr, id });
    let took = world.until(seconds(10), "the join", |w| joined(w, c));
    assert!(took < seconds(2), "{took:?}");
}
