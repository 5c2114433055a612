//! Calls between the users of two peers, and every way in which they end.

use crate::world::{STATS, World};
use chordial::node::control::{Command, Event};
use chordial::node::{Input, MediaCommand};
use chordial::sdp::Direction;
use std::time::Duration;

const FEW: Duration = Duration::from_secs(8);

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// alice, bob and carol; alice calls bob and he answers.
fn talking(seed: u64) -> (World, chordial::node::control::RequestId) {
    let mut world = World::ring(seed, &["alice", "bob", "carol"]);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    world.until_voice(0, 1);
    world.until_voice(1, 1);
    (world, request)
}

#[test]
fn a_call_through_the_overlay_has_voice_both_ways_and_right_reports() {
    let (mut world, request) = talking(1);
    let (a, b) = (world.hosts[0].plans()[0].clone(), world.hosts[1].plans()[0].clone());
    assert_eq!(a.agreed.remote_rtp.ip(), world.hosts[1].sip.ip());
    assert_eq!(b.agreed.remote_rtp.ip(), world.hosts[0].sip.ip());
    assert_eq!((a.agreed.codec.name.as_str(), b.agreed.codec.name.as_str()), ("opus", "opus"));
    assert_eq!((a.agreed.direction, b.agreed.direction), (Direction::SendRecv, Direction::SendRecv));
    assert!(world.hosts[0].events.iter().any(|(r, e)| *r == Some(request) && matches!(e, Event::Ringing { .. })));
    world.run(second(10));
    world.hang_up(0);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status, report.codec.as_str()), ("completed", 200, "opus"));
    assert_eq!((report.sent, report.received, report.lost), (STATS.sent, STATS.received, STATS.lost));
    assert_eq!((report.direction.as_str(), report.with.as_str()), ("out", "sip:bob@chordial"));
    assert!((9.9..10.2).contains(&report.talk_s), "{}", report.talk_s);
    assert!(report.setup_ms > 0.0 && report.setup_ms < 2000.0, "{}", report.setup_ms);
    world.run(second(3));
    let ended = world.hosts[1].ended();
    assert_eq!((ended.len(), ended[0].result.as_str(), ended[0].with.as_str()), (1, "completed", "sip:alice@chordial"));
    assert_eq!((world.hosts[0].closed_media(), world.hosts[1].closed_media()), (1, 1));
}

#[test]
fn the_callee_hangs_up_and_the_caller_reads_completed() {
    let (mut world, request) = talking(2);
    world.run(second(2));
    world.hang_up(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("completed", 200));
}

#[test]
fn digits_reach_the_media() {
    let (mut world, _) = talking(3);
    world.ask(0, Command::Dtmf { call: None, digits: "1a#".into() }).unwrap();
    let digits: String = world.hosts[0]
        .media
        .iter()
        .filter_map(|m| match m {
            MediaCommand::Dtmf { digit, .. } => Some(*digit),
            _ => None,
        })
        .collect();
    assert_eq!(digits, "1A#");
    assert!(world.ask(0, Command::Dtmf { call: None, digits: "x".into() }).is_err());
}

#[test]
fn an_agreed_duration_ends_the_call() {
    let mut world = World::ring(4, &["alice", "bob"]);
    let call = Command::Call { target: "bob".into(), play: None, record: None, duration: Some(3.0), account: None };
    let request = world.command(0, call);
    world.until_ringing_at(1);
    world.answer(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!(report.result, "completed");
    assert!((2.9..3.1).contains(&report.talk_s), "{}", report.talk_s);
}

#[test]
fn a_declined_call_is_rejected() {
    let mut world = World::ring(5, &["alice", "bob"]);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.hang_up(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("rejected", 603));
    assert_eq!(world.hosts[1].ended()[0].result, "rejected");
}

#[test]
fn nobody_answers_and_the_callee_stops_ringing() {
    let mut world = World::new(6);
    world.peer("alice", |c| c.user.ring_seconds = 10);
    world.peer("bob", |_| {});
    world.run(second(15));
    let request = world.call(0, "bob");
    let (report, took) = world.report(0, request, second(15));
    assert_eq!((report.result.as_str(), report.status), ("no-answer", 408));
    assert!(took < second(11), "{took:?}");
    world.run(second(1));
    assert_eq!((world.hosts[1].ended()[0].result.as_str(), world.hosts[1].ended()[0].status), ("no-answer", 487));
    assert!(world.hosts[1].node.status(world.now).calls.is_empty());
}

#[test]
fn the_callee_gives_up_first() {
    let mut world = World::new(7);
    world.peer("alice", |_| {});
    world.peer("bob", |c| c.user.ring_seconds = 5);
    world.run(second(15));
    let request = world.call(0, "bob");
    let (report, _) = world.report(0, request, second(10));
    assert_eq!((report.result.as_str(), report.status), ("no-answer", 480));
}

#[test]
fn the_caller_hangs_up_while_it_rings() {
    let mut world = World::ring(8, &["alice", "bob"]);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.hang_up(0);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("failed", 487));
    world.run(second(1));
    assert_eq!(world.hosts[1].ended()[0].status, 487);
}

#[test]
fn whoever_asked_is_gone_and_so_is_the_call() {
    let (mut world, request) = talking(9);
    world.hand(0, Input::Abort { request });
    world.run(second(1));
    assert_eq!(world.hosts[1].ended()[0].result, "completed");
    let request = world.call(0, "bob");
    world.hand(0, Input::Abort { request });
    world.run(second(5));
    assert!(world.hosts[0].node.status(world.now).calls.is_empty());
    assert!(world.hosts[1].node.status(world.now).calls.is_empty());
}

#[test]
fn the_callee_hangs_up_before_its_sockets_are_there() {
    let mut world = World::ring(10, &["alice", "bob"]);
    world.hosts[1].media_delay = second(2);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    world.hang_up(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("rejected", 603));
    world.run(second(5));
    assert!(world.hosts[1].plans().is_empty());
    assert_eq!(world.hosts[1].ended().len(), 1);
}

#[test]
fn no_sockets_at_the_caller() {
    let mut world = World::ring(11, &["alice", "bob"]);
    world.hosts[0].media_fails = true;
    let request = world.call(0, "bob");
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("failed", 500));
    assert!(report.reason.contains("no free port"), "{}", report.reason);
    world.run(second(5));
    assert!(world.hosts[1].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
}

#[test]
fn no_sockets_at_the_callee() {
    let mut world = World::ring(12, &["alice", "bob"]);
    world.hosts[1].media_fails = true;
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("failed", 500));
    world.run(second(3));
    assert_eq!(world.hosts[1].ended()[0].result, "failed");
}

#[test]
fn an_unknown_user_is_not_found() {
    let mut world = World::ring(13, &["alice", "bob"]);
    let request = world.call(0, "nobody");
    let (report, took) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("not-found", 404));
    assert!(took < second(4), "{took:?}");
}

#[test]
fn no_common_codec() {
    let mut world = World::new(14);
    world.peer("alice", |c| c.media.codec = vec!["pcma".into()]);
    world.peer("bob", |c| c.media.codec = vec!["pcmu".into()]);
    world.run(second(15));
    let request = world.call(0, "bob");
    let (report, _) = world.report(0, request, FEW);
    assert_eq!((report.result.as_str(), report.status), ("failed", 488));
    assert!(world.hosts[1].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
}

#[test]
fn a_dead_callee_is_told_in_seconds() {
    let mut world = World::ring(15, &["alice", "bob", "carol", "dave"]);
    world.kill(1);
    let request = world.call(0, "bob");
    let (report, took) = world.report(0, request, FEW);
    assert_eq!(report.result, "failed", "{report:?}");
    assert!(took < FEW, "{took:?}");
}

#[test]
fn a_callee_that_fell_silent_is_told_in_seconds() {
    let mut world = World::ring(16, &["alice", "bob", "carol", "dave"]);
    world.hosts[1].silent = true;
    world.hosts[1].dead = true;
    let request = world.call(0, "bob");
    let (report, took) = world.report(0, request, second(12));
    assert_eq!(report.result, "failed", "{report:?}");
    assert!(took < second(12), "{took:?}");
    // Later, when the links have been given up, the same.
    world.run(second(60));
    let request = world.call(0, "bob");
    let (report, took) = world.report(0, request, second(12));
    assert!(report.result == "failed" || report.result == "not-found", "{report:?}");
    assert!(took < second(12), "{took:?}");
}

#[test]
fn the_caller_dies_while_it_rings() {
    let mut world = World::ring(17, &["alice", "bob", "carol"]);
    world.call(0, "bob");
    world.until_ringing_at(1);
    world.kill(0);
    world.until_event(1, "the end of the ringing", |e| matches!(e, Event::Ended { .. }));
    assert!(world.hosts[1].node.status(world.now).calls.is_empty());
}

#[test]
fn the_link_breaks_while_they_talk_and_hanging_up_still_works() {
    let (mut world, request) = talking(18);
    let links = world.links(0);
    for conn in links {
        world.close(crate::world::Place::Node(0), conn);
    }
    world.run(second(1));
    world.hang_up(1);
    let (report, _) = world.report(0, request, FEW);
    assert_eq!(report.result, "completed");
}

#[test]
fn commands_that_fit_no_call_are_told_so() {
    let mut world = World::ring(19, &["alice", "bob"]);
    assert!(world.ask(0, Command::Hangup { call: None }).is_err());
    assert!(world.ask(0, Command::Answer { call: Some(7) }).is_err());
    assert!(
        world
            .ask(0, Command::Call { target: "".into(), play: None, record: None, duration: None, account: None })
            .is_err()
    );
    let wrong = Command::Call { target: "bob".into(), play: None, record: None, duration: Some(-1.0), account: None };
    assert!(world.ask(0, wrong).is_err());
}

#[test]
fn two_calls_at_once_are_kept_apart() {
    let mut world = World::ring(20, &["alice", "bob", "carol"]);
    let first = world.call(0, "bob");
    let second_call = world.call(0, "carol");
    world.until_ringing_at(1);
    world.until_ringing_at(2);
    world.answer(1);
    world.answer(2);
    world.until_voice(0, 2);
    assert!(world.ask(0, Command::Hangup { call: None }).unwrap_err().what.contains("2 calls"));
    world.hang_up(1);
    assert_eq!(world.report(0, first, FEW).0.with, "sip:bob@chordial");
    assert!(!world.hosts[0].replies.contains_key(&second_call));
    world.hang_up(0);
    assert_eq!(world.report(0, second_call, FEW).0.with, "sip:carol@chordial");
}

#[test]
fn stopping_ends_the_calls_first() {
    let (mut world, request) = talking(21);
    world.ask(0, Command::Stop).unwrap();
    world.run(second(5));
    assert!(world.hosts[0].stopped);
    assert!(matches!(world.hosts[0].replies.get(&request), Some(Ok(_))));
    assert_eq!(world.hosts[1].ended()[0].result, "completed");
}

#[test]
fn a_peer_whose_link_stands_but_says_nothing_is_told_in_seconds() {
    let mut world = World::ring(22, &["alice", "bob", "carol"]);
    world.swallow = Box::new(|bytes| bytes.starts_with(b"INVITE"));
    let request = world.call(0, "bob");
    let (report, took) = world.report(0, request, second(9));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(took < second(9), "{took:?}");
    assert_eq!(world.hosts[0].counter(world.now, "requests that a peer left unanswered"), 1);
}

#[test]
fn an_answer_that_comes_after_patience_is_ended() {
    let mut world = World::ring(23, &["alice", "bob", "carol"]);
    world.swallow = Box::new(|bytes| bytes.starts_with(b"SIP/2.0 1"));
    let request = world.call(0, "bob");
    let (report, _) = world.report(0, request, second(9));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    world.swallow = Box::new(|_| false);
    world.answer(1);
    world.run(second(5));
    let ended = world.hosts[1].ended();
    assert_eq!((ended.len(), ended[0].result.as_str()), (1, "completed"), "ACK and BYE");
    assert!(world.hosts[1].node.status(world.now).calls.is_empty());
}

#[test]
fn a_laboratory_in_clear_carries_calls_over_udp_and_tcp() {
    let mut world = World::new(24);
    for user in ["alice", "bob", "carol"] {
        world.peer(user, |c| c.overlay.lab_clear = true);
    }
    world.run(second(15));
    for user in ["bob", "carol"] {
        let request = world.call(0, user);
        let host = if user == "bob" { 1 } else { 2 };
        world.until_ringing_at(host);
        world.answer(host);
        world.run(second(40));
        world.hang_up(host);
        assert_eq!(world.report(0, request, FEW).0.result, "completed");
    }
    assert!(world.hosts[0].log.iter().any(|l| l.starts_with("send INVITE")));
}

#[test]
fn a_stabilised_ring_and_a_call_with_lossy_datagrams_in_clear() {
    let mut world = World::new(25);
    for user in ["alice", "bob"] {
        world.peer(user, |c| c.overlay.lab_clear = true);
    }
    world.run(second(15));
    let mut n = 0u32;
    world.lose = Box::new(move |_, _, bytes| {
        n += 1;
        n.is_multiple_of(3) && !bytes.starts_with(b"REGISTER")
    });
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.answer(1);
    world.until_voice(0, 1);
    world.run(second(40));
    world.hang_up(0);
    assert_eq!(world.report(0, request, FEW).0.result, "completed");
    world.run(second(10));
    assert_eq!(world.hosts[1].ended()[0].result, "completed");
}
