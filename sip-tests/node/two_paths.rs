//! The second way of a call: found, kept alive, moved to within 200 ms of the virtual clock, and used beside the first while packets
//! are lost.

use crate::world::World;
use chordial::node::MediaCommand;
use chordial::node::control::{Command, PathStatus, Reply};
use chordial::ua::CallId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const CALL: CallId = CallId(1);

/// Alice and Bob talk; each has a second interface, 10.1.0.N.
fn talk(seed: u64, change: impl Fn(usize, &mut chordial::config::Config)) -> World {
    let mut world = World::new(seed);
    (world.encrypts, world.ice, world.speaks) = (true, true, true);
    for (n, user) in ["alice", "bob"].into_iter().enumerate() {
        let host = world.peer(user, |config| {
            config.user.auto_answer = true;
            change(n, config);
        });
        world.hosts[host].beside = Some(format!("10.1.0.{}", host + 1).parse().unwrap());
    }
    // The two networks do not know each other.
    world.media_lose = Box::new(|from, to, _| network(from) != network(to));
    world.run(Duration::from_secs(15));
    world.call(0, "bob");
    world.until_route(0, 1);
    world
}

fn network(addr: SocketAddr) -> u8 {
    match addr.ip() {
        IpAddr::V4(ip) => ip.octets()[1],
        IpAddr::V6(_) => 0,
    }
}

fn paths(world: &mut World, host: usize) -> Vec<PathStatus> {
    let Ok(Reply::Calls { calls, .. }) = world.ask(host, Command::Calls) else { panic!() };
    calls[0].paths.clone()
}

#[test]
fn a_call_whose_first_way_is_cut_is_heard_again_within_200_ms() {
    for cut in [[true, true], [true, false], [false, true]] {
        let mut world = talk(1, |_, _| {});
        world.until_two_ways();
        world.run(Duration::from_secs(2));
        assert_eq!(paths(&mut world, 0).iter().map(|p| p.active).collect::<Vec<_>>(), [true, false]);
        let when = world.now;
        // Towards Bob, towards Alice, or both.
        world.media_lose = Box::new(move |from, to, _| {
            let towards_bob = to.ip().to_string().ends_with(".2");
            network(from) != network(to) || (network(from) == 0 && cut[usize::from(!towards_bob)])
        });
        world.run(Duration::from_secs(3));
        let gaps = [0, 1].map(|host| world.voices[&(host, CALL)].gap(when - Duration::from_millis(60)));
        println!("cut {cut:?}: longest silence at alice {:?}, at bob {:?}", gaps[0], gaps[1]);
        assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(200)), "{gaps:?}");
        // Each end moves what it sends, and nothing else.
        for host in 0..2 {
            let on_second = world.voices[&(host, CALL)].lanes.as_ref().unwrap().figures(world.now).on_second;
            assert_eq!(on_second, cut[host], "host {host}, cut {cut:?}");
        }
    }
}

#[test]
fn voice_returns_to_the_first_way_when_that_is_sound_again() {
    let mut world = talk(2, |_, _| {});
    world.until_two_ways();
    let (from, until) = (world.now + Duration::from_secs(1), world.now + Duration::from_secs(3));
    let now = std::rc::Rc::new(std::cell::Cell::new(world.now));
    let clock = now.clone();
    world.media_lose =
        Box::new(move |a, b, _| network(a) != network(b) || (network(a) == 0 && (from..until).contains(&clock.get())));
    let mut active = Vec::new();
    for _ in 0..150 {
        world.run(Duration::from_millis(100));
        now.set(world.now);
        let on_second = world.voices[&(0, CALL)].lanes.as_ref().unwrap().figures(world.now).on_second;
        if active.last() != Some(&on_second) {
            active.push(on_second);
        }
    }
    assert_eq!(active, [false, true, false]);
    assert!(world.voices[&(1, CALL)].gap(from) < Duration::from_millis(200));
}

#[test]
fn while_packets_are_lost_each_goes_both_ways_and_then_no_longer() {
    let mut world = talk(3, |_, _| {});
    world.until_two_ways();
    world.run(Duration::from_secs(5));
    let quiet = figures(&world);
    assert_eq!((quiet.both, quiet.copy_bytes), (false, 0), "nothing is lost, nothing goes twice");
    let mut lot = chordial::core::Rng::from_seed(3);
    world.media_lose = Box::new(move |a, b, _| network(a) != network(b) || lot.below(100) < 20);
    world.run(Duration::from_secs(4));
    let (said, heard) = (world.voices[&(0, CALL)].said, world.voices[&(1, CALL)].heard.len());
    let before = figures(&world);
    assert!(before.both, "a fifth is lost");
    world.run(Duration::from_secs(60));
    let (said, heard) = (world.voices[&(0, CALL)].said - said, world.voices[&(1, CALL)].heard.len() - heard);
    let (after, lost) = (figures(&world), 1.0 - heard as f64 / f64::from(said));
    let rate = |bytes: u64| bytes as f64 / 60.0;
    println!(
        "20 % lost on either way: {:.1} % of the voice lost; probes {:.0} bytes/s, copies {:.0} bytes/s",
        lost * 100.0,
        rate(after.probe_bytes - before.probe_bytes),
        rate(after.copy_bytes - before.copy_bytes)
    );
    assert!(lost < 0.08, "{lost}");
    assert!(rate(after.probe_bytes - before.probe_bytes) < 3700.0);
    world.media_lose = Box::new(|a, b, _| network(a) != network(b));
    world.run(Duration::from_secs(5));
    assert!(!figures(&world).both, "nothing is lost any more");
    let copies = figures(&world).copy_bytes;
    world.run(Duration::from_secs(5));
    assert_eq!(figures(&world).copy_bytes, copies);
}

fn figures(world: &World) -> chordial::nat::ice::Figures {
    world.voices[&(0, CALL)].lanes.as_ref().unwrap().figures(world.now)
}

#[test]
fn both_ways_are_shown_and_that_which_voice_takes() {
    let mut world = talk(4, |_, _| {});
    world.until_two_ways();
    world.run(Duration::from_secs(2));
    let shown = paths(&mut world, 0);
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|p| p.path == "direct" && p.loss == 0.0 && p.rtt_ms.is_some_and(|ms| ms < 40.0)));
    let mut told = world.hosts[0].media.iter().filter_map(|m| match m {
        MediaCommand::Second { second: Some(second), .. } => Some(second.route),
        _ => None,
    });
    let route = told.next().expect("a second way");
    assert_eq!((network(route.socket), network(route.remote)), (1, 1), "it shares nothing with the first");
}

#[test]
fn whoever_keeps_one_way_only_has_one() {
    for off in 0..2 {
        let mut world = talk(5, |n, config| config.media.second_path = n != off);
        world.run(Duration::from_secs(20));
        for host in 0..2 {
            let second = |m: &MediaCommand| matches!(m, MediaCommand::Second { .. });
            assert!(!world.hosts[host].media.iter().any(second));
            assert!(paths(&mut world, host).is_empty());
        }
    }
}

#[test]
fn a_restart_finds_two_ways_again() {
    let mut world = talk(6, |_, _| {});
    world.until_two_ways();
    world.run(Duration::from_secs(2));
    let when = world.now;
    // The first network is gone for good; ICE starts anew over the second one, and then the first comes back.
    world.media_lose = Box::new(|a, b, _| network(a) != network(b) || network(a) == 0);
    world.run(Duration::from_secs(25));
    let route = world.hosts[0].routes().last().copied().flatten().expect("a way");
    assert_eq!(network(route.socket), 1, "ICE has found the network that is left");
    world.media_lose = Box::new(|a, b, _| network(a) != network(b));
    world.run(Duration::from_secs(40));
    let gaps = [0, 1].map(|host| world.voices[&(host, CALL)].gap(when - Duration::from_millis(60)));
    println!("over the cut, the restart and after: longest silence {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(200)), "{gaps:?}");
    assert_eq!(paths(&mut world, 0).len(), 2, "there are two ways again");
}
