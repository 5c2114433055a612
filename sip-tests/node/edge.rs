//! A standard phone at a peer that does not hold its account: it registers, calls, is called, writes and is written to through it, and
//! goes on when whoever holds the account dies. Nobody on the way learns its secret.

use crate::people::{office, wait};
use crate::raw::{Talk, Way, authorize, register, respond, sdp, way_back};
use crate::world::World;
use chordial::core::Transport;
use chordial::node::control::{Command, Event};
use chordial::node::{Input, Saved};
use chordial::sip::auth::Ha1;
use chordial::sip::msg::{HeaderName, Message, Method};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const ANNA: usize = 0;
const BEN: usize = 1;
const CARL: usize = 2;
const DORA: usize = 3;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn offer() -> String {
    sdp("10.9.0.1:7000", "sendrecv")
}

/// anna administers and holds the phone `lobby`, ben holds it too; carl and dora do not. The flag says whether its secret was seen.
fn lobby(seed: u64) -> (World, Rc<Cell<bool>>) {
    let (mut world, _) = office(seed, &["ben", "carl", "dora"]);
    let add = Command::PhoneAdd { user: "lobby".into(), label: String::new(), password: "secret".into() };
    wait(&mut world, ANNA, add).unwrap();
    wait(&mut world, ANNA, Command::PhoneShare { user: "lobby".into(), member: "ben".into() }).unwrap();
    let (seen, secret) = (Rc::new(Cell::new(false)), Ha1::new("lobby", "office.example", "secret"));
    let watch = seen.clone();
    world.swallow = Box::new(move |bytes| {
        let clear = bytes.windows(16).any(|w| w == secret.md5) || bytes.windows(32).any(|w| w == secret.sha256);
        watch.set(watch.get() || clear);
        false
    });
    world.raw();
    world.run(seconds(5));
    (world, seen)
}

fn way(world: &mut World, host: usize, tcp: bool) -> Way {
    let to = world.hosts[host].sip;
    if tcp { Way::Stream(world.dial(0, Transport::Tcp, to)) } else { Way::Udp(to) }
}

/// A phone of which only carl's address is known.
fn by_address(world: &World, host: usize) -> String {
    format!("sip:lobby@{}", world.hosts[host].sip)
}

fn is_called(world: &mut World, by: usize, tcp: bool) {
    let before = world.requests(0, &Method::Invite).len();
    let request = world.call(by, "lobby");
    let invite = world.until_request(0, Method::Invite, before + 1);
    assert_eq!(invite.conn.is_some(), tcp);
    assert!(!invite.message.has(HeaderName::Route), "the phone sees no way of ours");
    respond(world, 0, &invite, 180, "");
    let ok = respond(world, 0, &invite, 200, &offer());
    world.until_request(0, Method::Ack, 1);
    world.run(seconds(2));
    let mut talk = Talk::callee(world, 0, way_back(&invite), &invite.message, &ok);
    assert_eq!(talk.bye(world), 200);
    assert_eq!(world.report(by, request, seconds(5)).0.result, "completed");
}

/// The phone's INVITE with the challenge answered; its final response.
fn calls(world: &mut World, way: Way, to: &str, local: &str) -> (Talk, Message) {
    let mut talk = Talk::new(world, 0, way, to, local, to);
    let invite = talk.invite(world, &offer());
    let challenge = talk.ask(world, &invite);
    assert_eq!(challenge.status(), 407, "{}", challenge.reason());
    let mut invite = talk.invite(world, &offer());
    authorize(&mut invite, &challenge, "lobby", "secret");
    talk.send(world, &invite);
    (talk, invite)
}

fn comes_and_goes(seed: u64, tcp: bool) {
    let (mut world, seen) = lobby(seed);
    let (way, aor) = (way(&mut world, CARL, tcp), by_address(&world, CARL));
    let ok = register(&mut world, 0, way, &aor, "secret", 300);
    assert_eq!(ok.status(), 200, "{}", ok.reason());
    assert_eq!(ok.contacts().unwrap().len(), 1);
    world.run(seconds(3));
    // By somebody else, by who holds the account, and by the peer that it came to.
    for by in [DORA, ANNA, BEN, CARL] {
        is_called(&mut world, by, tcp);
    }
    // And it calls, by name and by the address that it knows.
    for to in ["sip:dora@office.example".to_owned(), format!("sip:dora@{}", world.hosts[CARL].sip)] {
        let (mut talk, invite) = calls(&mut world, way, &to, &aor);
        world.run(seconds(2));
        world.answer(DORA);
        let ok = talk.finally(&mut world, &invite);
        assert_eq!(ok.status(), 200, "{}", ok.reason());
        talk.learn(&ok);
        talk.ack(&mut world, "");
        world.run(seconds(2));
        assert_eq!(talk.bye(&mut world), 200);
        world.run(seconds(1));
    }
    let file = world.hosts[CARL].files.iter().find(|(what, _)| *what == Saved::Phones);
    assert!(file.is_none_or(|(_, bytes)| !bytes.windows(5).any(|w| w == b"lobby")), "the edge keeps nothing of it");
    assert!(!seen.get(), "the secret went over a link in clear");
    // It takes its leave by the same way.
    assert_eq!(register(&mut world, 0, way, &aor, "secret", 0).status(), 200);
    world.run(seconds(3));
    let request = world.call(DORA, "lobby");
    assert_eq!(world.report(DORA, request, seconds(5)).0.result, "not-found");
}

#[test]
fn a_phone_at_any_peer_calls_and_is_called() {
    comes_and_goes(61, false);
}

#[test]
fn over_a_stream_too() {
    comes_and_goes(62, true);
}

#[test]
fn who_has_no_account_hears_what_a_wrong_password_hears() {
    let (mut world, _) = lobby(63);
    let way = Way::Udp(world.hosts[CARL].sip);
    let wrong = register(&mut world, 0, way, "sip:lobby@office.example", "guess", 300);
    let nobody = register(&mut world, 0, way, "sip:nobody@office.example", "guess", 300);
    let member = register(&mut world, 0, way, "sip:dora@office.example", "guess", 300);
    let said = |m: &Message| (m.status(), m.reason().to_owned(), m.has(HeaderName::WwwAuthenticate));
    assert_eq!(said(&wrong), (401, "Unauthorized".into(), true));
    assert_eq!((said(&wrong), said(&wrong)), (said(&nobody), said(&member)));
    // Nor does another's password do, and nobody calls without one.
    let mut talk =
        Talk::new(&world, 0, way, "sip:dora@office.example", "sip:lobby@office.example", "sip:dora@office.example");
    let invite = talk.invite(&world, &offer());
    let challenge = talk.ask(&mut world, &invite);
    assert_eq!(challenge.status(), 407);
    let mut invite = talk.invite(&world, &offer());
    authorize(&mut invite, &challenge, "lobby", "guess");
    assert_eq!(talk.ask(&mut world, &invite).status(), 407);
    let ringing = world.hosts[DORA].events.iter().any(|(_, e)| matches!(e, Event::Incoming { .. }));
    assert!(!ringing);
}

#[test]
fn another_adapter_takes_over_when_one_dies() {
    let (mut world, _) = lobby(64);
    let (way, aor) = (Way::Udp(world.hosts[CARL].sip), by_address(&world, CARL));
    assert_eq!(register(&mut world, 0, way, &aor, "secret", 300).status(), 200);
    world.run(seconds(3));
    is_called(&mut world, DORA, false);
    // One of the two is where it is registered.
    let registered = |w: &World, host: usize| {
        let status = w.hosts[host].node.status(w.now);
        status.registrations.iter().any(|r| r.aor.contains("lobby") && !r.contacts.is_empty())
    };
    let (first, second) = if registered(&world, ANNA) { (ANNA, BEN) } else { (BEN, ANNA) };
    assert!(registered(&world, first) && !registered(&world, second));
    world.kill(first);
    // Its next refresh finds the other, without the phone's doing anything else.
    assert_eq!(register(&mut world, 0, way, &aor, "secret", 300).status(), 200);
    assert!(registered(&world, second));
    world.run(seconds(20));
    is_called(&mut world, DORA, false);
    let (mut talk, invite) = calls(&mut world, way, "sip:dora@office.example", &aor);
    world.run(seconds(2));
    world.answer(DORA);
    let ok = talk.finally(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn the_peer_between_dies_and_the_phone_goes_elsewhere() {
    let (mut world, _) = lobby(65);
    let way = Way::Udp(world.hosts[CARL].sip);
    assert_eq!(register(&mut world, 0, way, "sip:lobby@office.example", "secret", 300).status(), 200);
    world.run(seconds(3));
    world.kill(CARL);
    let request = world.call(DORA, "lobby");
    let report = world.report(DORA, request, seconds(40)).0;
    assert_ne!(report.result, "completed");
    // By its own adapter, under the same contact: the binding is reached there now.
    let way = Way::Udp(world.hosts[BEN].sip);
    assert_eq!(register(&mut world, 0, way, "sip:lobby@office.example", "secret", 300).status(), 200);
    world.run(seconds(20));
    is_called(&mut world, DORA, false);
}

#[test]
fn messages_pass_both_ways() {
    let (mut world, _) = lobby(66);
    let (way, aor) = (Way::Udp(world.hosts[CARL].sip), by_address(&world, CARL));
    assert_eq!(register(&mut world, 0, way, &aor, "secret", 300).status(), 200);
    world.run(seconds(3));
    let mut talk = Talk::new(&world, 0, way, "sip:dora@office.example", &aor, "sip:dora@office.example");
    let write = |talk: &mut Talk, world: &World| {
        let mut message = talk.request(world, Method::Message);
        message.set_body("text/plain", b"from the lobby".to_vec());
        message
    };
    let message = write(&mut talk, &world);
    let challenge = talk.ask(&mut world, &message);
    assert_eq!(challenge.status(), 407);
    let mut message = write(&mut talk, &world);
    authorize(&mut message, &challenge, "lobby", "secret");
    assert_eq!(talk.ask(&mut world, &message).status(), 200);
    let got = |e: &Event| matches!(e, Event::Message { message: m } if m.text == "from the lobby" && m.from == "sip:lobby@office.example");
    world.until_event(DORA, "the message", got);

    world.command(DORA, Command::Message { target: "lobby".into(), text: "to the lobby".into() });
    let said = world.until_request(0, Method::Message, 1);
    assert_eq!(said.message.body(), b"to the lobby");
    respond(&mut world, 0, &said, 200, "");
}

#[test]
fn a_member_speaks_for_no_phone_by_saying_that_it_is_an_edge() {
    let (mut world, _) = lobby(67);
    let way = Way::Udp(world.hosts[CARL].sip);
    assert_eq!(register(&mut world, 0, way, "sip:lobby@office.example", "secret", 300).status(), 200);
    let peer = |w: &World, host: usize| (w.hosts[host].verified.as_ref().unwrap().peer_id, w.hosts[host].overlay);
    let ((anna, there), (_, dora_at)) = (peer(&world, ANNA), peer(&world, DORA));
    let edge = format!("<sip:{there};transport=tls;peer-ID={anna};lr;edge>");
    let request = |method: Method, uri: &str, n: u32, more: &[(&str, &str)]| {
        let mut message = Message::request(method.clone(), uri);
        message.push("Via", format_args!("SIP/2.0/TLS {dora_at};branch=z9hG4bKhostile{n}"));
        message.push("Max-Forwards", 70);
        message.push("From", "<sip:lobby@office.example>;tag=h");
        message.push("To", "<sip:lobby@office.example>");
        message.push("Call-ID", format_args!("hostile{n}"));
        message.push("CSeq", format_args!("1 {method}"));
        more.iter().for_each(|(name, value)| message.push(*name, value));
        message.to_bytes()
    };
    // On every link that anna has, so on dora's too: a Path that is somebody else's, or none; a call without the phone's word.
    let conns = world.links(ANNA);
    assert!(!conns.is_empty());
    let nobody = "<sip:x@10.9.9.9:5061;transport=tls;peer-ID=00000000000000000000000000000000000000aa;lr>";
    for (n, conn) in (0u32..).step_by(4).zip(conns) {
        let hostile = [
            request(Method::Register, "sip:office.example", n, &[("Route", &edge), ("Path", nobody)]),
            request(Method::Register, "sip:office.example", n + 1, &[("Route", &edge)]),
            request(Method::Invite, "sip:anna@office.example", n + 2, &[("Route", &edge)]),
        ];
        for bytes in hostile {
            world.hand(ANNA, Input::Frame { conn, bytes });
        }
    }
    world.run(seconds(3));
    let refused = world.hosts[ANNA].counter(world.now, "registrations through a peer without its Path");
    assert_eq!(refused, 6, "two of each of the three others");
    let rang = |w: &World, host: usize| w.hosts[host].events.iter().any(|(_, e)| matches!(e, Event::Incoming { .. }));
    assert!(!rang(&world, ANNA));
    // A way that was not written at the edge does not excuse who the caller is.
    let (carl, carl_at) = peer(&world, CARL);
    let before = world.requests(0, &Method::Invite).len();
    let forged = format!("<sip:AQAAAAAAAAAAAAAAAAAAAAAAAAAA@{carl_at};transport=tls;peer-ID={carl};lr>");
    for (n, conn) in (1000u32..).zip(world.links(CARL)) {
        let bytes = request(Method::Invite, &format!("sip:raw@{}", world.raws[0].addr), n, &[("Route", &forged)]);
        let bytes = String::from_utf8_lossy(&bytes).replace("<sip:lobby@", "<sip:mallory@").into();
        world.hand(CARL, Input::Frame { conn, bytes });
    }
    world.run(seconds(3));
    assert_eq!(world.requests(0, &Method::Invite).len(), before);
}
