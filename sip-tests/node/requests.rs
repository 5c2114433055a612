//! Requests that are refused, and how: RFC 3261 section 8.2, and what arrives broken.

use crate::raw::{Talk, Way, sdp};
use crate::world::World;
use bytes::Bytes;
use chordial::core::Flow;
use chordial::core::Transport;
use chordial::node::Input;
use chordial::sip::msg::{Message, Method};
use std::time::Duration;

fn bob(seed: u64) -> (World, Talk) {
    let mut world = World::new(seed);
    world.peer("bob", |c| {
        c.user.strangers = chordial::config::Strangers::Anyone;
        c.user.calls_waiting = 40;
    });
    world.run(Duration::from_secs(2));
    let raw = world.raw();
    let to = world.hosts[0].sip;
    let talk =
        Talk::new(&world, raw, Way::Udp(to), &format!("sip:bob@{to}"), "sip:joe@elsewhere.example", "sip:bob@chordial");
    (world, talk)
}

fn offer() -> String {
    sdp("10.9.0.1:7000", "sendrecv")
}

/// What an INVITE that `spoil` has changed is answered.
fn refusal(seed: u64, spoil: impl FnOnce(&mut Message)) -> Message {
    let (mut world, mut talk) = bob(seed);
    let mut invite = talk.invite(&world, &offer());
    spoil(&mut invite);
    let refusal = talk.ask(&mut world, &invite);
    assert!(refusal.to_tag().is_some(), "a response above 100 has a To tag");
    assert!(world.hosts[0].node.status(world.now).calls.is_empty());
    refusal
}

#[test]
fn an_extension_that_is_required_and_unknown() {
    let no = refusal(1, |m| m.push("Require", "100rel, nothingBeSees"));
    assert_eq!(no.status(), 420);
    assert_eq!(no.header("Unsupported"), Some("nothingBeSees"));
}

#[test]
fn a_body_that_is_no_description() {
    let no = refusal(2, |m| m.set_body("text/plain", b"hello".to_vec()));
    assert_eq!((no.status(), no.header("Accept")), (415, Some("application/sdp")));
    let no = refusal(3, |m| m.push("Content-Encoding", "gzip"));
    assert_eq!(no.status(), 415);
    assert!(no.has("Accept-Encoding"));
}

#[test]
fn a_body_that_may_be_ignored_is_no_offer() {
    let (mut world, mut talk) = bob(4);
    let mut invite = talk.invite(&world, "");
    invite.push("Content-Disposition", "render;handling=optional");
    invite.set_body("text/plain", b"hello".to_vec());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!(ok.status(), 200, "{}", ok.reason());
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio"));
}

#[test]
fn an_unknown_method_and_options() {
    let (mut world, mut talk) = bob(5);
    for method in [Method::Other("FROBNICATE".into()), Method::Publish, Method::Subscribe] {
        let request = talk.request(&world, method.clone());
        let no = talk.ask(&mut world, &request);
        assert_eq!(no.status(), 405, "{method}");
        assert!(no.header("Allow").unwrap().contains("INVITE"));
    }
    let request = talk.request(&world, Method::Options);
    let ok = talk.ask(&mut world, &request);
    assert_eq!((ok.status(), ok.header("Accept")), (200, Some("application/sdp, text/plain")));
    assert!(ok.header("Allow").unwrap().contains("BYE"));
    talk.uri = format!("sip:{}", world.hosts[0].sip);
    let request = talk.request(&world, Method::Options);
    assert_eq!(talk.ask(&mut world, &request).status(), 200);
}

#[test]
fn an_invite_without_contact_or_with_a_bad_description() {
    let no = refusal(6, |m| _ = m.remove("Contact"));
    assert_eq!((no.status(), no.reason().contains("Contact")), (400, true), "{}", no.reason());
    assert_eq!(refusal(7, |m| m.set_body("application/sdp", b"v=1".to_vec())).status(), 400);
    let g729 = crate::raw::sdp_with("10.9.0.1:7000", "18", "sendrecv");
    assert_eq!(refusal(8, |m| m.set_body("application/sdp", g729.into_bytes())).status(), 488);
}

#[test]
fn the_same_request_by_two_ways_is_merged() {
    let (mut world, mut talk) = bob(9);
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    let mut second = invite.clone();
    second.replace_first_value("Via", format_args!("SIP/2.0/UDP {};branch=z9hG4bKother;rport", world.raws[0].addr));
    assert_eq!(talk.ask(&mut world, &second).status(), 482);
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 1);
}

#[test]
fn hops_that_are_used_up() {
    let (mut world, mut talk) = bob(10);
    talk.uri = format!("sip:nobody@{}", world.hosts[0].sip);
    let mut invite = talk.invite(&world, &offer());
    invite.set("Max-Forwards", 0);
    assert_eq!(talk.ask(&mut world, &invite).status(), 483);
}

#[test]
fn malformed_datagrams_are_counted_and_a_fault_is_named() {
    let (mut world, mut talk) = bob(11);
    let (from, to) = (world.raws[0].addr, world.hosts[0].sip);
    for junk in [&b"\x00\x01\x02"[..], b"INVITE", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\xff\xff\xff\xff\r\n\r\n"] {
        world.datagram(from, to, Bytes::copy_from_slice(junk));
    }
    world.run(Duration::from_secs(1));
    let dropped = world.hosts[0].counter(world.now, "malformed messages dropped");
    assert!((3..=4).contains(&dropped), "{dropped}");
    assert!(world.raws[0].inbox.is_empty());
    let mut invite = talk.invite(&world, &offer());
    invite.remove("Call-ID");
    let no = talk.ask(&mut world, &invite);
    assert_eq!((no.status(), no.reason().contains("Call-ID")), (400, true), "{}", no.reason());
    assert!(no.to_tag().is_some());
}

#[test]
fn a_frame_on_a_connection_that_nobody_knows() {
    let (mut world, _) = bob(12);
    let conn = chordial::core::ConnId(77);
    world.hand(0, Input::Frame { conn, bytes: Bytes::from_static(b"OPTIONS sip:a SIP/2.0\r\n\r\n") });
    assert_eq!(world.hosts[0].counter(world.now, "frames without a connection"), 1);
    let flow = Flow::udp(world.hosts[0].sip, world.raws[0].addr);
    world.hand(0, Input::Datagram { flow, bytes: Bytes::new() });
}

#[test]
fn a_call_over_tcp_in_clear() {
    let (mut world, _) = bob(13);
    let to = world.hosts[0].sip;
    let conn = world.dial(0, Transport::Tcp, to);
    let mut talk = Talk::new(
        &world,
        0,
        Way::Stream(conn),
        &format!("sip:bob@{to};transport=tcp"),
        "sip:joe@elsewhere.example",
        "sip:bob@chordial",
    );
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(Duration::from_secs(5));
    world.hang_up(0);
    let bye = world.until_request(0, Method::Bye, 1);
    assert_eq!(bye.conn, Some(conn), "the stream that the call came on");
}

#[test]
fn a_caller_whose_stream_breaks_stops_ringing() {
    let (mut world, _) = bob(14);
    let to = world.hosts[0].sip;
    let conn = world.dial(0, Transport::Tcp, to);
    let way = Way::Stream(conn);
    let mut talk = Talk::new(&world, 0, way, &format!("sip:bob@{to}"), "sip:joe@elsewhere.example", "sip:bob@chordial");
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.close(crate::world::Place::Raw(0), conn);
    world.run(Duration::from_secs(3));
    assert_eq!(world.hosts[0].ended().len(), 1);
}

/// An INVITE over 1300 bytes: many codecs' worth of user name.
fn long_target(world: &World) -> String {
    format!("sip:{}@{}", "j".repeat(700), world.raws[0].addr)
}

#[test]
fn a_large_request_goes_over_tcp() {
    let (mut world, _) = bob(15);
    let target = long_target(&world);
    world.call(0, &target);
    let invite = world.until_request(0, Method::Invite, 1);
    assert!(invite.conn.is_some());
    assert!(invite.message.via().unwrap().to_string().contains("TCP"));
}

#[test]
fn a_large_request_falls_back_to_udp_where_tcp_is_refused() {
    let (mut world, _) = bob(16);
    world.raws[0].tcp = false;
    let target = long_target(&world);
    let request = world.call(0, &target);
    let invite = world.until_request(0, Method::Invite, 1);
    assert!(invite.conn.is_none());
    crate::raw::respond(&mut world, 0, &invite, 486, "");
    let (report, _) = world.report(0, request, Duration::from_secs(3));
    assert_eq!(report.result, "busy");
}

#[test]
fn calling_an_address_where_nobody_is() {
    let (mut world, _) = bob(17);
    let request = world.call(0, "sip:joe@10.9.0.77:5060;transport=tcp");
    let (report, took) = world.report(0, request, Duration::from_secs(5));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let request = world.call(0, "sip:joe@no.such.host");
    let (report, _) = world.report(0, request, Duration::from_secs(5));
    assert_eq!(report.result, "failed");
}

#[test]
fn the_thirty_third_call_is_busy() {
    let (mut world, talk) = bob(18);
    for n in 0..32 {
        let mut talk = talk.clone();
        talk.call_id = format!("many{n}");
        let invite = talk.invite(&world, &offer());
        talk.send(&mut world, &invite);
        world.run(Duration::from_millis(20));
    }
    assert_eq!(world.hosts[0].node.status(world.now).calls.len(), 32);
    let mut talk = talk.clone();
    talk.call_id = "many33".into();
    let invite = talk.invite(&world, &offer());
    assert_eq!(talk.ask(&mut world, &invite).status(), 486);
}
