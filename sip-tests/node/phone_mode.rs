//! This program as a plain SIP phone: registered with a registrar, calling and called through it.

use crate::raw::{respond, sdp, send, way_back};
use crate::world::World;
use chordial::node::control::{Command, Event};
use chordial::sip::msg::{Message, Method};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// alice and bob in a ring, and a plain phone `desk` with an account at bob's peer.
fn with_phone(seed: u64, transport: &str) -> World {
    let mut world = World::ring(seed, &["alice", "bob"]);
    world.ask(1, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    let registrar = world.hosts[1].sip;
    let transport = transport.to_owned();
    world.plain("desk", "secret", registrar, |c| {
        c.phone.domain = "chordial".into();
        c.phone.transport = transport;
        c.phone.expires = 60;
    });
    world.until_event(2, "the registration", |e| matches!(e, Event::Registered { .. }));
    world.run(seconds(2));
    world
}

#[test]
fn it_registers_calls_and_is_called() {
    for transport in ["udp", "tcp"] {
        let mut world = with_phone(1, transport);
        let request = world.call(0, "desk");
        world.until_ringing_at(2);
        world.answer(2);
        world.until_voice(0, 1);
        world.until_voice(2, 1);
        assert_eq!(world.hosts[0].plans()[0].agreed.remote_rtp.ip(), world.hosts[2].sip.ip());
        world.run(seconds(40));
        world.hang_up(2);
        assert_eq!(world.report(0, request, seconds(5)).0.result, "completed", "{transport}");

        let request = world.call(2, "sip:alice@chordial");
        world.until_ringing_at(0);
        world.answer(0);
        world.until_voice(2, 2);
        world.run(seconds(40));
        world.hang_up(0);
        let (report, _) = world.report(2, request, seconds(5));
        assert_eq!((report.result.as_str(), report.status), ("completed", 200), "{transport}");
    }
}

#[test]
fn it_renews_in_time() {
    let mut world = with_phone(2, "udp");
    world.run(seconds(300));
    let count = world.hosts[2].events.iter().filter(|(_, e)| matches!(e, Event::Registered { .. })).count();
    assert!(count >= 5, "{count}");
    let request = world.call(0, "desk");
    world.until_ringing_at(2);
    world.hang_up(2);
    assert_eq!(world.report(0, request, seconds(5)).0.result, "rejected");
}

/// A plain phone with a raw registrar.
fn with_raw_registrar(seed: u64) -> World {
    let mut world = World::new(seed);
    world.raw();
    let registrar = world.raws[0].addr;
    world.plain("desk", "secret", registrar, |c| c.phone.expires = 60);
    world
}

#[test]
fn it_tries_again_after_a_failure() {
    let mut world = with_raw_registrar(3);
    let first = world.until_request(0, Method::Register, 1);
    respond(&mut world, 0, &first, 503, "");
    world.until_event(0, "the failure", |e| matches!(e, Event::RegistrationFailed { status: 503, .. }));
    world.until_request(0, Method::Register, 2);
    world.run(seconds(40));
    assert!(world.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::RegistrationFailed { status: 0, .. })));
    let last = world.requests(0, &Method::Register).pop().unwrap();
    let mut ok = Message::reply(&last.message, 200, "OK");
    ok.set_to_tag("registrar");
    ok.push("Contact", format_args!("{};expires=120", last.message.header("Contact").unwrap()));
    send(&mut world, 0, way_back(&last), ok.to_bytes());
    world.until_event(0, "the registration", |e| matches!(e, Event::Registered { .. }));
    let seen = world.requests(0, &Method::Register).len();
    world.run(seconds(90));
    assert_eq!(world.requests(0, &Method::Register).len(), seen);
    world.run(seconds(10));
    assert!(world.requests(0, &Method::Register).len() > seen);
}

#[test]
fn a_registrar_that_wants_longer_is_obeyed_once() {
    let mut world = with_raw_registrar(4);
    for n in 1..=2 {
        let request = world.until_request(0, Method::Register, n);
        let mut brief = Message::reply(&request.message, 423, "Interval Too Brief");
        brief.set_to_tag("registrar");
        brief.push("Min-Expires", 100);
        send(&mut world, 0, way_back(&request), brief.to_bytes());
    }
    assert_eq!(world.requests(0, &Method::Register)[1].message.expires(), Some(100));
    world.run(seconds(1));
    assert_eq!(world.requests(0, &Method::Register).len(), 2, "no storm");
    world.until_event(0, "the failure", |e| matches!(e, Event::RegistrationFailed { status: 423, .. }));
}

#[test]
fn a_wrong_password_is_told_and_not_hammered() {
    let mut world = World::ring(5, &["alice"]);
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    let registrar = world.hosts[0].sip;
    world.plain("desk", "wrong", registrar, |c| c.phone.domain = "chordial".into());
    world.until_event(1, "the failure", |e| matches!(e, Event::RegistrationFailed { status: 401, .. }));
    world.run(seconds(60));
    let failures = world.hosts[1].events.iter().filter(|(_, e)| matches!(e, Event::RegistrationFailed { .. })).count();
    assert!((3..=8).contains(&failures), "{failures}");
}

#[test]
fn stopping_says_good_bye_first() {
    let mut world = with_phone(6, "udp");
    let request = world.call(0, "desk");
    world.until_ringing_at(2);
    world.answer(2);
    world.until_voice(0, 1);
    world.ask(2, Command::Stop).unwrap();
    world.run(seconds(3));
    let log = world.hosts[2].log.clone();
    let (bye, stopped) = (log.iter().position(|l| l.starts_with("send BYE")), log.iter().position(|l| l == "stopped"));
    assert!(bye.is_some() && bye < stopped, "{log:?}");
    let away = log.iter().rposition(|l| l.starts_with("send REGISTER"));
    assert!(away > bye && away < stopped, "{log:?}");
    let registrations = world.hosts[1].node.status(world.now).registrations;
    assert!(registrations.iter().all(|r| r.aor != "sip:desk@chordial"), "{registrations:?}");
    assert_eq!(world.report(0, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_call_in_the_phones_dialog_survives_hold_by_a_raw_caller() {
    let mut world = with_raw_registrar(7);
    let to = world.hosts[0].sip;
    let mut talk = crate::raw::Talk::new(
        &world,
        0,
        crate::raw::Way::Udp(to),
        &format!("sip:desk@{to}"),
        "sip:joe@elsewhere.example",
        "sip:desk@elsewhere.example",
    );
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    let again = talk.invite(&world, &sdp("10.9.0.1:7000", "sendonly"));
    assert_eq!(talk.ask(&mut world, &again).status(), 200);
    talk.ack(&mut world, "");
    assert_eq!(talk.bye(&mut world), 200);
}
