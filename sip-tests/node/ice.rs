//! Calls that find their way by ICE, between whole nodes and with others.

use crate::world::World;
use crate::world::media::{CONNECTED, CONNECTS};
use chordial::config::Ice;
use chordial::node::control::{Command, Reply};
use chordial::node::{Input, MediaCommand};
use chordial::sdp::ice::CandidateKind;
use std::net::SocketAddr;
use std::time::Duration;

const FEW: Duration = Duration::from_secs(8);

fn ring(seed: u64, change: impl Fn(&mut chordial::config::Config)) -> World {
    let mut world = World::new(seed);
    (world.encrypts, world.ice) = (true, true);
    for user in ["alice", "bob"] {
        world.peer(user, |config| {
            config.user.auto_answer = true;
            change(config);
        });
    }
    world.run(Duration::from_secs(15));
    world
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn two_nodes_find_the_way_between_them() {
    let mut world = ring(1, |_| {});
    let request = world.call(0, "bob");
    world.until_voice(0, 1);
    let answered = world.now;
    let (there, here) = (world.until_route(0, 1), world.until_route(1, 1));
    assert!(world.now.since(answered) < Duration::from_millis(120), "{:?}", world.now.since(answered));
    assert_eq!((there.socket, there.remote), (here.remote, here.socket));
    assert_eq!(there.remote.ip(), world.hosts[1].sip.ip());
    for host in 0..2 {
        let plan = world.hosts[host].plans()[0].clone();
        assert!(plan.agreed.rtcp_mux && plan.ice.is_some_and(|i| i.controlling == (host == 0)));
    }
    let Ok(Reply::Calls { calls, .. }) = world.ask(0, Command::Calls) else { panic!() };
    assert_eq!(calls[0].path, "direct");
    world.hang_up(0);
    assert_eq!(world.report(0, request, FEW).0.path, "direct");
}

#[test]
fn candidates_found_late_follow_the_answer() {
    let mut world = ring(2, |config| config.nat.stun = vec![at(crate::world::media::STUN)]);
    // The way between the sockets is closed: whatever else is known is tried.
    world.media_lose = Box::new(|from, to, _| from.port() < 30_000 && to.port() < 30_000 && to.port() != 3478);
    world.call(0, "bob");
    world.until_voice(1, 1);
    world.run(Duration::from_secs(1));
    // The callee answered at once, with what it had by then; its other candidate came in an INFO.
    let plan = world.hosts[0].plans()[0].clone();
    let kinds: Vec<_> = plan.ice.unwrap().remote.candidates.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [CandidateKind::Host]);
    let infos = |w: &World, host: usize| w.hosts[host].log.iter().filter(|l| l.starts_with("send INFO")).count();
    assert_eq!((infos(&world, 0), infos(&world, 1)), (0, 1));
    let mapped = |l: &String| l.starts_with("media Send") && l.contains("to: 10.0.0.2:30002");
    assert!(world.hosts[0].log.iter().any(mapped), "the late candidate is never tried");
}

#[test]
fn whoever_has_no_ice_is_talked_to_as_ever() {
    for (seed, off) in [(3, 0), (4, 1)] {
        let mut world = World::new(seed);
        (world.encrypts, world.ice) = (true, true);
        for (n, user) in ["alice", "bob"].into_iter().enumerate() {
            world.peer(user, |config| {
                config.user.auto_answer = true;
                config.media.ice = if n == off { Ice::Off } else { Ice::Auto };
            });
        }
        world.run(Duration::from_secs(15));
        world.call(0, "bob");
        world.until_voice(0, 1);
        world.run(FEW);
        for host in 0..2 {
            let plan = world.hosts[host].plans()[0].clone();
            assert_eq!((plan.ice, plan.agreed.remote_rtp.ip()), (None, world.hosts[1 - host].sip.ip()));
            assert!(world.hosts[host].routes().is_empty());
        }
    }
}

#[test]
fn where_ice_has_to_be_a_call_without_is_refused() {
    let mut world = World::new(5);
    world.ice = true;
    world.peer("alice", |config| config.media.ice = Ice::Off);
    world.peer("bob", |config| (config.media.ice, config.user.auto_answer) = (Ice::On, true));
    world.run(Duration::from_secs(15));
    let request = world.call(0, "bob");
    assert_eq!(world.report(0, request, FEW).0.status, 488);
}

#[test]
fn a_node_that_moves_takes_its_call_with_it() {
    let mut world = ring(6, |_| {});
    let request = world.call(0, "bob");
    world.until_route(0, 1);
    world.until_route(1, 1);
    world.run(FEW);
    for (host, ip) in [(0, "10.0.5.1"), (1, "10.0.6.2")] {
        let (sip, overlay) = (at(&format!("{ip}:5060")), at(&format!("{ip}:5061")));
        let old = world.hosts[host].sip.ip();
        (world.hosts[host].sip, world.hosts[host].overlay) = (sip, overlay);
        world.media_lose = Box::new(move |from, to, _| from.ip() == old || to.ip() == old);
        world.hand(host, Input::Moved { sip, overlay, also: Vec::new() });
        world.run(FEW);
        let ways = [0, 1].map(|n| world.hosts[n].routes().last().copied().flatten().expect("a way"));
        assert_eq!(ways[host].socket.ip(), sip.ip());
        assert_eq!((ways[0].socket, ways[1].socket), (ways[1].remote, ways[0].remote));
    }
    world.hang_up(0);
    assert_eq!(world.report(0, request, FEW).0.result, "completed");
}

#[test]
fn a_way_that_falls_silent_is_looked_for_anew() {
    let mut world = ring(7, |_| {});
    world.call(0, "bob");
    world.until_route(0, 1);
    world.run(FEW);
    let plans = world.hosts[0].plans().len();
    world.media_lose = Box::new(|_, _, _| true);
    world.until_voice(0, plans + 1);
    let (before, after) = (world.hosts[0].plans()[0].clone(), world.hosts[0].plans()[plans].clone());
    assert_ne!(before.ice.unwrap().remote.credentials, after.ice.unwrap().remote.credentials);
    world.media_lose = Box::new(|_, _, _| false);
    world.run(Duration::from_secs(20));
    let ways = [0, 1].map(|n| world.hosts[n].routes().last().copied().flatten().expect("a way"));
    assert_eq!(ways[0].socket, ways[1].remote);
}

#[test]
fn checks_and_candidates_from_strangers_change_nothing() {
    let mut world = ring(8, |_| {});
    world.call(0, "bob");
    let way = world.until_route(0, 1);
    let mut check = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    check.resize(20, 7);
    for _ in 0..200 {
        let packet = chordial::node::MediaInput::Packet {
            call: chordial::ua::CallId(1),
            local: way.socket,
            from: at("10.66.0.1:6666"),
            bytes: check.clone(),
        };
        world.hand(0, Input::Media(packet));
    }
    world.run(FEW);
    assert_eq!(world.hosts[0].routes().len(), 1);
    let answered = world.hosts[0].media.iter().any(|m| matches!(m, MediaCommand::Send { to, .. } if to.port() == 6666));
    assert!(!answered, "a stranger got an answer");
    let sent = |port: u16| move |m: &MediaCommand| matches!(m, MediaCommand::Send { to, .. } if to.port() == port);
    assert!(world.hosts[0].media.iter().any(sent(way.remote.port())), "nor did the other end");
}

#[test]
fn where_udp_is_lost_voice_goes_over_tcp_and_returns_when_it_is_not() {
    for caller in 0..2 {
        let mut world = World::new(9 + caller as u64);
        (world.encrypts, world.ice, world.speaks) = (true, true, true);
        for user in ["alice", "bob"] {
            let host = world.peer(user, |config| config.user.auto_answer = true);
            world.hosts[host].connectable = true;
        }
        let tcp = |addr: SocketAddr| [CONNECTS, CONNECTED].contains(&addr.port());
        world.media_lose = Box::new(move |from, to, _| !tcp(from) && !tcp(to));
        world.run(Duration::from_secs(15));
        world.call(caller, ["bob", "alice"][caller]);
        let ways = [0, 1].map(|host| world.until_route(host, 1));
        assert_eq!(ways.iter().filter(|way| way.socket.port() == CONNECTS).count(), 1, "{ways:?}");
        world.run(FEW);
        for host in 0..2 {
            let Ok(Reply::Calls { calls, .. }) = world.ask(host, Command::Calls) else { panic!() };
            assert_eq!((calls[0].path.as_str(), calls[0].transport.as_str()), ("direct", "tcp"));
            assert!(world.voices[&(host, chordial::ua::CallId(1))].heard.len() > 300);
        }
        world.media_lose = Box::new(|_, _, _| false);
        let when = world.now;
        world.run(Duration::from_secs(70));
        for host in 0..2 {
            let Ok(Reply::Calls { calls, .. }) = world.ask(host, Command::Calls) else { panic!() };
            assert_eq!((calls[0].path.as_str(), calls[0].transport.as_str()), ("direct", "udp"));
            let gap = world.voices[&(host, chordial::ua::CallId(1))].gap(when);
            assert!(gap < Duration::from_millis(100), "{gap:?}");
        }
    }
}
