//! Who may ask what: strangers on links, peers under another's name, clear flows, invites, relaying.

use crate::raw::{Talk, Way, register, sdp};
use crate::world::{START, World};
use chordial::core::{Rng, Transport, UnixTime};
use chordial::identity::{ENROLMENT_TYPE, Identity, InviteCode, JoinAnswer, JoinRequest, Joining, KeyPair, Verified};
use chordial::node::control::{Command, Event, Reply};
use chordial::overlay::carry::Carry;
use chordial::overlay::{Links, PeerRef, Request, Route};
use chordial::sip::msg::{Message, Method};
use std::sync::Arc;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn offer() -> String {
    sdp("10.9.0.1:7000", "sendrecv")
}

/// A raw end on a link of node 0, as a stranger or as a proven peer.
fn on_link(world: &mut World, proof: Option<&Identity>) -> (usize, Way) {
    let proof = proof.map(|i| Arc::new(i.verified(START).unwrap()));
    linked(world, 0, proof)
}

/// A raw end on a link of node `to` that proves to be the device of node `who`.
pub fn on_link_of(world: &mut World, to: usize, who: usize) -> (usize, Way) {
    let proof = world.hosts[who].verified.clone();
    linked(world, to, proof)
}

fn linked(world: &mut World, to: usize, proof: Option<Arc<Verified>>) -> (usize, Way) {
    let raw = world.raw();
    world.raws[raw].proof = proof;
    let to = world.hosts[to].overlay;
    let conn = world.dial(raw, Transport::Tls, to);
    (raw, Way::Stream(conn))
}

/// Redeems an invite at node 0 over a link of a stranger.
pub fn redeem(world: &mut World, request: &JoinRequest) -> Message {
    redeem_at(world, 0, request)
}

/// Redeems a code at a node over a link of a stranger.
pub fn redeem_at(world: &mut World, host: usize, request: &JoinRequest) -> Message {
    let (raw, way) = linked(world, host, None);
    let to = format!("sip:{}", world.hosts[host].overlay);
    let mut talk = Talk::new(world, raw, way, &to, "sip:new@invalid", &to);
    let mut message = talk.request(world, Method::Register);
    message.set_body(ENROLMENT_TYPE, request.encode());
    talk.ask(world, &message)
}

fn office(seed: u64) -> World {
    let mut world = World::new(seed);
    let (anna, _) = Identity::found("office.example", "anna", None, START, &mut world.rng).unwrap();
    world.member(anna, |_| {});
    world.run(seconds(3));
    world
}

#[test]
fn an_invite_is_redeemed_once_and_kept_before_it_is_answered() {
    let mut world = office(1);
    let Ok(Reply::Invite { code, .. }) = world.ask(0, Command::Invite { user: "ben".into(), extension: None }) else {
        panic!()
    };
    let code = InviteCode::parse(&code).unwrap();
    let joining = Joining::new(code.clone(), "desk", &mut world.rng).unwrap();
    world.hosts[0].log.clear();
    let ok = redeem(&mut world, &joining.request());
    assert_eq!(ok.status(), 200);
    let log = world.hosts[0].log.clone();
    let saved = log.iter().position(|l| l == "save Identity").expect("saved");
    let sent = log.iter().position(|l| l.starts_with("send SIP/2.0 200")).expect("sent");
    assert!(saved < sent, "{log:?}");
    let answer = JoinAnswer::decode(ok.body()).unwrap();
    assert_eq!(joining.finish(&answer, START).unwrap().user(), "ben");
    let thief = Joining::new(code, "thief", &mut world.rng).unwrap();
    assert_eq!(redeem(&mut world, &thief.request()).status(), 403);
    assert_eq!(world.hosts[0].counter(world.now, "enrolments refused"), 1);
}

#[test]
fn who_is_no_administrator_invites_nobody() {
    let mut world = World::ring(2, &["alice"]);
    assert!(world.ask(0, Command::Invite { user: "ben".into(), extension: None }).is_err());
    let mut office = office(3);
    let Ok(Reply::Invite { code, .. }) = office.ask(0, Command::Invite { user: "ben".into(), extension: None }) else {
        panic!()
    };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "desk", &mut office.rng).unwrap();
    assert_eq!(redeem(&mut world, &joining.request()).status(), 403);
}

#[test]
fn a_stranger_on_a_link_may_not_call_nor_ask() {
    let mut world = World::ring(4, &["alice", "bob"]);
    let (raw, way) = on_link(&mut world, None);
    let uri = format!("sip:alice@{}", world.hosts[0].overlay);
    for method in [Method::Invite, Method::Options, Method::Bye, Method::Register] {
        let mut talk = Talk::new(&world, raw, way, &uri, "sip:bob@chordial", "sip:alice@chordial");
        let request = talk.request(&world, method.clone());
        assert_eq!(talk.ask(&mut world, &request).status(), 403, "{method}");
    }
    assert!(world.hosts[0].node.status(world.now).calls.is_empty());
    assert!(world.hosts[0].counter(world.now, "requests of strangers refused") >= 4);
}

/// An overlay request that asks for an entry, as `claimed` writes it.
fn overlay_request(world: &mut World, claimed: PeerRef) -> Message {
    overlay_message(world, "chordial", claimed, &Request::Query { target: claimed.id, route: Route::Here })
}

fn overlay_message(world: &mut World, overlay: &str, claimed: PeerRef, request: &Request) -> Message {
    let carry = Carry::new(overlay, claimed, 600);
    let to = world.hosts[0].overlay;
    let mut message = carry.encode_request(request, to, &mut Rng::from_seed(9));
    let n = world.now.as_micros();
    let addr = world.raws[world.raws.len() - 1].addr;
    message.push_front("Via", format_args!("SIP/2.0/UDP {addr};branch=z9hG4bKov{n};rport"));
    message
}

#[test]
fn an_overlay_request_needs_a_link_and_the_peer_id_of_its_certificate() {
    let mut world = World::ring(5, &["alice", "bob"]);
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let bob = world.hosts[1].verified.as_ref().unwrap().peer_id;
    let victim = PeerRef { id: bob, addr: world.hosts[1].overlay };
    let (raw, way) = on_link(&mut world, Some(&mallory));
    let talk = Talk::new(&world, raw, way, "sip:a@b", "sip:a@b", "sip:a@b");
    let request = overlay_request(&mut world, victim);
    talk.send(&mut world, &request);
    assert_eq!(talk.finally(&mut world, &request).status(), 493);
    // Under its own peer-ID it is answered: by 404, the peer responsible (dSIP).
    world.run(seconds(1));
    let own = PeerRef { id: mallory.peer_id(), addr: world.raws[raw].addr };
    let request = overlay_request(&mut world, own);
    talk.send(&mut world, &request);
    assert_eq!(talk.finally(&mut world, &request).status(), 404);

    // A stranger on a link, and anybody in clear.
    let (raw, way) = on_link(&mut world, None);
    let talk = Talk::new(&world, raw, way, "sip:a@b", "sip:a@b", "sip:a@b");
    let request = overlay_request(&mut world, victim);
    talk.send(&mut world, &request);
    let no = talk.finally(&mut world, &request);
    assert!(no.status() >= 400, "{}", no.status());
    let way = Way::Udp(world.hosts[0].sip);
    let talk = Talk::new(&world, raw, way, "sip:a@b", "sip:a@b", "sip:a@b");
    world.run(seconds(1));
    let request = overlay_request(&mut world, victim);
    talk.send(&mut world, &request);
    let no = talk.finally(&mut world, &request);
    assert!(no.status() >= 400, "{}", no.status());
    assert!(world.hosts[0].counter(world.now, "overlay requests refused") >= 1);
}

#[test]
fn a_device_that_no_enroller_placed_is_not_admitted_to_the_ring() {
    let mut world = office(10);
    let founder = world.hosts[0].identity.clone().unwrap();
    let key = KeyPair::generate(&mut world.rng);
    let chain = founder.add_device(key.public(), "mobile", START).unwrap();
    let mobile = Identity::assemble(key, None, chain, founder.anchor.clone(), START).unwrap();
    let (raw, way) = on_link(&mut world, Some(&mobile));
    let me = PeerRef { id: mobile.peer_id(), addr: world.raws[raw].addr };
    let talk = Talk::new(&world, raw, way, "sip:a@b", "sip:a@b", "sip:a@b");
    for request in [Request::Register { expires: 600 }, Request::Leave { links: Links::default() }] {
        world.run(seconds(1));
        let request = overlay_message(&mut world, "office.example", me, &request);
        talk.send(&mut world, &request);
        assert_eq!(talk.finally(&mut world, &request).status(), 403);
    }
    assert_eq!(world.hosts[0].counter(world.now, "peers without a place refused"), 2);
    // It may ask, as a member.
    world.run(seconds(1));
    let query = Request::Query { target: me.id, route: Route::Here };
    let request = overlay_message(&mut world, "office.example", me, &query);
    talk.send(&mut world, &request);
    assert_eq!(talk.finally(&mut world, &request).status(), 404);
    assert!(world.hosts[0].node.status(world.now).overlay.successors.is_empty());
}

#[test]
fn a_phone_does_not_register_on_a_link() {
    let mut world = World::ring(6, &["alice"]);
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let (raw, way) = on_link(&mut world, Some(&mallory));
    assert_eq!(register(&mut world, raw, way, "sip:desk@chordial", "secret", 60).status(), 403);
}

#[test]
fn an_outside_caller_cannot_have_a_call_relayed() {
    let mut world = World::ring(7, &["alice", "bob"]);
    let raw = world.raw();
    let to = world.hosts[0].sip;
    for target in ["sip:victim@10.9.0.7", "sip:bob@chordial", "sip:bob@10.0.0.2:5061", "tel:+123"] {
        let mut talk = Talk::new(&world, raw, Way::Udp(to), target, "sip:joe@elsewhere.example", target);
        let invite = talk.invite(&world, &offer());
        let no = talk.ask(&mut world, &invite);
        assert!(matches!(no.status(), 403 | 404 | 480), "{target}: {}", no.status());
    }
    let mut talk =
        Talk::new(&world, raw, Way::Udp(to), "sip:alice@chordial", "sip:joe@elsewhere.example", "sip:alice@chordial");
    talk.routes = vec![format!("<sip:{to};lr>"), "<sip:10.9.0.7;lr>".into()];
    let invite = talk.invite(&world, &offer());
    assert_eq!(talk.ask(&mut world, &invite).status(), 403);
    assert!(world.hosts[1].node.status(world.now).calls.is_empty());
}

#[test]
fn nobody_speaks_for_a_user_of_the_overlay_in_clear() {
    let mut world = World::ring(8, &["alice", "bob"]);
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    let raw = world.raw();
    let to = world.hosts[0].sip;
    for (from, status) in [("sip:bob@chordial", 407), ("sip:alice@chordial", 407), ("sip:desk@chordial", 407)] {
        let mut talk = Talk::new(&world, raw, Way::Udp(to), &format!("sip:alice@{to}"), from, "sip:alice@chordial");
        let invite = talk.invite(&world, &offer());
        assert_eq!(talk.ask(&mut world, &invite).status(), status, "{from}");
    }
    assert!(world.hosts[0].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
}

#[test]
fn a_certificate_that_is_no_longer_valid_is_its_own_fault() {
    let mut rng = Rng::from_seed(1);
    let identity = Identity::open("chordial", "late", START, &mut rng).unwrap();
    assert!(identity.verified(UnixTime(START.secs() + 11 * 365 * 86_400)).is_err());
    // By a clock that is behind it is of a time to come, which is the clock's fault.
    assert!(identity.verified(UnixTime(START.secs() - 3600)).is_ok());
}

#[test]
fn a_member_rings_under_no_name_but_its_own() {
    let mut world = World::ring(8, &["alice", "bob"]);
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let (raw, way) = on_link(&mut world, Some(&mallory));
    let uri = format!("sip:alice@{}", world.hosts[0].overlay);
    // bob is registered, and not by mallory's device; carol is nobody.
    for from in ["sip:bob@chordial", "sip:carol@chordial", "sip:BOB@chordial"] {
        let mut talk = Talk::new(&world, raw, way, &uri, from, "sip:alice@chordial");
        let invite = talk.invite(&world, &offer());
        assert_eq!(talk.ask(&mut world, &invite).status(), 403, "{from}");
    }
    assert!(world.hosts[0].node.status(world.now).calls.is_empty(), "somebody's name rang");
    assert_eq!(world.hosts[0].counter(world.now, "callers that a peer may not speak for"), 3);
    let mut talk = Talk::new(&world, raw, way, &uri, "sip:mallory@chordial", "sip:alice@chordial");
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
}

#[test]
fn who_leaves_is_not_found_any_more() {
    let mut world = World::ring(9, &["alice", "bob", "carol"]);
    let found = |world: &mut World, host: usize| {
        let request = world.command(host, Command::Lookup { target: "bob".into(), iterative: false });
        world.run(seconds(2));
        match world.hosts[host].replies.remove(&request) {
            Some(Ok(Reply::Lookup(report))) => report.found,
            other => panic!("{other:?}"),
        }
    };
    assert!(found(&mut world, 0) && found(&mut world, 2));
    world.ask(1, Command::Stop).unwrap();
    world.run(seconds(5));
    assert!(!found(&mut world, 0) && !found(&mut world, 2));
}
