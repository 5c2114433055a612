//! Calls that end by themselves: whose other end is gone without a word, and whose voice cannot be encrypted as agreed.

use crate::raw::sdp;
use crate::world::World;
use chordial::config::{Config, Ice};
use chordial::core::Instant;
use chordial::node::control::{Command, Reply};
use chordial::node::{Input, MediaInput};
use chordial::sip::msg::{HeaderName, Message};
use chordial::ua::CallId;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const CALL: CallId = CallId(1);
const MINUTE: Duration = Duration::from_secs(60);

fn ring(seed: u64, change: impl Fn(&mut Config)) -> World {
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

/// What the BYEs that are sent from now on give as their reason.
fn reasons(world: &mut World) -> Rc<RefCell<Vec<String>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    world.swallow = Box::new(move |bytes| {
        let message = Message::parse(bytes).ok().filter(|_| bytes.starts_with(b"BYE"));
        log.borrow_mut().extend(message.map(|m| m.header(HeaderName::Reason).unwrap_or_default().to_owned()));
        false
    });
    seen
}

fn under_way(world: &mut World, host: usize) -> usize {
    let Ok(Reply::Calls { calls, .. }) = world.ask(host, Command::Calls) else { panic!() };
    calls.len()
}

#[test]
fn a_call_whose_other_end_dies_ends_when_its_consent_is_over() {
    let mut world = ring(1, |_| {});
    let request = world.call(0, "bob");
    world.until_route(0, 1);
    world.until_route(1, 1);
    world.run(Duration::from_secs(10));
    world.hosts[1].dead = true;
    let (report, took) = world.report(0, request, MINUTE);
    assert_eq!((report.result.as_str(), report.status), ("lost", 408));
    assert!(report.reason.contains("30 s"), "{}", report.reason);
    assert!((25..=31).contains(&took.as_secs()), "{took:?}");
    assert!(world.hosts[0].plans().len() <= 2 && under_way(&mut world, 0) == 0);
    assert!(world.hosts[0].log.iter().filter(|l| l.starts_with("send INVITE")).count() >= 2, "no restart was tried");
}

#[test]
fn an_other_end_that_is_only_cut_off_is_told_why() {
    let mut world = ring(2, |_| {});
    let request = world.call(0, "bob");
    world.until_route(0, 1);
    world.until_route(1, 1);
    world.run(Duration::from_secs(10));
    let seen = reasons(&mut world);
    // Signalling goes on, media do not: every restart finds nothing.
    world.media_lose = Box::new(|_, _, _| true);
    let (report, _) = world.report(0, request, MINUTE);
    assert_eq!(report.result, "lost");
    world.run(Duration::from_secs(5));
    assert_eq!(world.hosts[1].ended()[0].result, "lost");
    assert!(seen.borrow()[0].starts_with("Q.850;cause=102;text=\"the other end"), "{seen:?}");
}

#[test]
fn a_call_that_is_answered_and_never_finds_a_way_ends() {
    let mut world = ring(3, |_| {});
    world.media_lose = Box::new(|_, _, _| true);
    let request = world.call(0, "bob");
    assert_eq!(world.report(0, request, MINUTE).0.result, "lost");
}

#[test]
fn a_second_way_keeps_a_call_whose_first_one_is_gone_for_good() {
    let mut world = ring(4, |_| {});
    world.speaks = true;
    for host in 0..2 {
        world.hosts[host].beside = Some(format!("10.1.0.{}", host + 1).parse().unwrap());
    }
    world.call(0, "bob");
    world.until_two_ways();
    // And no restart gets through either.
    let first = |addr: std::net::SocketAddr| addr.ip().to_string().starts_with("10.0.");
    world.media_lose = Box::new(move |from, to, _| first(from) || first(to));
    world.swallow = Box::new(|bytes| bytes.starts_with(b"INVITE"));
    let since = world.now;
    world.run(2 * MINUTE);
    assert_eq!(under_way(&mut world, 0), 1);
    for host in 0..2 {
        let gap = world.voices[&(host, CALL)].gap(since);
        assert!(gap < Duration::from_millis(200), "{gap:?}");
    }
}

#[test]
fn without_ice_silence_ends_a_call_unless_it_is_held() {
    let quiet = |seconds: u64| {
        let quiet = Duration::from_secs(seconds);
        Input::Media(MediaInput::Quiet { call: CALL, quiet })
    };
    let mut world = ring(5, |config| (config.media.ice, config.media.rtp_timeout) = (Ice::Off, 20));
    let request = world.call(0, "bob");
    world.until_voice(0, 1);
    let seen = reasons(&mut world);
    world.hand(0, quiet(19));
    assert_eq!(under_way(&mut world, 0), 1);
    world.hand(0, quiet(20));
    let (report, _) = world.report(0, request, Duration::from_secs(1));
    assert_eq!(
        (report.result.as_str(), report.reason.as_str()),
        ("lost", "nothing has come from the other end for 20 s")
    );
    world.run(Duration::from_secs(1));
    assert!(seen.borrow()[0].starts_with("Q.850;cause=102;"), "{seen:?}");
    // Never, where its owner says so.
    let mut world = ring(6, |config| (config.media.ice, config.media.rtp_timeout) = (Ice::Off, 0));
    world.call(0, "bob");
    world.until_voice(0, 1);
    world.hand(0, quiet(10_000));
    assert_eq!(under_way(&mut world, 0), 1);
}

#[test]
fn a_phone_that_holds_may_be_silent() {
    let (mut world, mut talk) = crate::talk::bob(7, true);
    talk.establish(&mut world, &sdp("10.9.0.1:7000", "sendrecv"));
    for (direction, ends) in [("inactive", false), ("sendrecv", true)] {
        let again = talk.invite(&world, &sdp("10.9.0.1:7002", direction));
        assert_eq!(talk.ask(&mut world, &again).status(), 200);
        talk.ack(&mut world, "");
        world.run(Duration::from_secs(1));
        world.hand(0, Input::Media(MediaInput::Quiet { call: CALL, quiet: Duration::from_secs(600) }));
        world.run(Duration::from_secs(1));
        assert_eq!(under_way(&mut world, 0) == 0, ends, "{direction}");
    }
}

#[test]
fn a_certificate_that_nobody_signed_for_ends_the_call_and_says_so() {
    let mut world = ring(8, |_| {});
    let request = world.call(0, "bob");
    world.until_voice(0, 1);
    world.until_voice(1, 1);
    let seen = reasons(&mut world);
    let why = "the certificate is not the one that the call was set up with".to_owned();
    world.hand(0, Input::Media(MediaInput::Unsecured { call: CALL, why }));
    let (report, _) = world.report(0, request, Duration::from_secs(5));
    assert_eq!((report.result.as_str(), report.status, report.security.as_str()), ("failed", 488, "failed"));
    assert!(report.reason.contains("certificate"), "{}", report.reason);
    world.run(Duration::from_secs(5));
    let there = world.hosts[1].ended()[0].clone();
    assert_eq!((there.result.as_str(), there.status), ("failed", 488));
    assert!(there.reason.starts_with("ended there: not encrypted as agreed"), "{}", there.reason);
    assert!(seen.borrow()[0].starts_with("SIP;cause=488;text="), "{seen:?}");
    assert_eq!(world.hosts[0].counter(Instant::ZERO, "calls that could not be encrypted as agreed"), 1);
}
