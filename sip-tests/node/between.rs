//! Users of other overlays: two offices and an open overlay in one network. Who is reached by a contact link, who rings,
//! who is refused, and what a link between two overlays is good for.

use crate::raw::{Talk, Way, sdp};
use crate::world::{START, World};
use chordial::config::{Config, Strangers};
use chordial::core::Transport;
use chordial::identity::{CallProof, ContactLink, Identity, InviteCode, JoinAnswer, Joining, PROOF_HEADER, Said, Side};
use chordial::node::Saved;
use chordial::node::control::{Command, Event, Reply, RingRight, StrangersReport};
use chordial::pbx::locate::{Record, RecordKind};
use chordial::sip::msg::{Message, Method};
use std::sync::Arc;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A second member of the office of host `admin`, as an invite makes it.
fn invited(world: &mut World, admin: usize, user: &str, change: impl FnOnce(&mut Config)) -> usize {
    let Ok(Reply::Invite { code, .. }) = world.ask(admin, Command::Invite { user: user.into(), extension: None })
    else {
        panic!()
    };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "", &mut world.rng).unwrap();
    let raw = world.raw();
    let to = world.hosts[admin].overlay;
    let conn = world.dial(raw, Transport::Tls, to);
    let to = format!("sip:{to}");
    let mut talk = Talk::new(world, raw, Way::Stream(conn), &to, "sip:new@invalid", &to);
    let mut message = talk.request(world, Method::Register);
    message.set_body(chordial::identity::ENROLMENT_TYPE, joining.request().encode());
    let ok = talk.ask(world, &message);
    let identity = joining.finish(&JoinAnswer::decode(ok.body()).unwrap(), START).unwrap();
    world.member(identity, change)
}

/// Host 0 is anna of a.office; 1 is bea and 2 is ben of b.office; 3 is otto of the open overlay "family".
fn three(seed: u64, change: impl Fn(&mut Config) + Copy) -> World {
    let mut world = World::new(seed);
    let (anna, _) = Identity::found("a.office", "anna", None, START, &mut world.rng).unwrap();
    world.member(anna, change);
    let (bea, _) = Identity::found("b.office", "bea", None, START, &mut world.rng).unwrap();
    world.member(bea, change);
    invited(&mut world, 1, "ben", change);
    let otto = Identity::open("family", "otto", START, &mut world.rng).unwrap();
    world.member(otto, change);
    world.run(seconds(15));
    world
}

fn anyone(config: &mut Config) {
    config.user.strangers = Strangers::Anyone;
}

fn link(world: &mut World, host: usize, ring: RingRight) -> String {
    match world.ask(host, Command::ContactLink { ring }) {
        Ok(Reply::ContactLink { link, .. }) => link,
        other => panic!("{other:?}"),
    }
}

fn accept(world: &mut World, host: usize, link: &str, name: &str) {
    world.ask(host, Command::ContactAccept { who: link.into(), name: Some(name.into()) }).unwrap();
}

/// `to` becomes a contact of `from`, under its user's name.
fn know(world: &mut World, from: usize, to: usize, ring: RingRight) {
    let text = link(world, to, ring);
    let name = world.hosts[to].verified.as_ref().unwrap().user.clone();
    accept(world, from, &text, &name);
}

fn strangers(world: &mut World, host: usize) -> StrangersReport {
    match world.ask(host, Command::Strangers) {
        Ok(Reply::Strangers(report)) => report,
        other => panic!("{other:?}"),
    }
}

fn calls(world: &World, host: usize) -> usize {
    world.hosts[host].node.status(world.now).calls.len()
}

/// Who rang at a host, in order.
fn callers(world: &World, host: usize) -> Vec<String> {
    let incoming = world.hosts[host].events.iter().filter_map(|(_, e)| match e {
        Event::Incoming { from, .. } => Some(from.clone()),
        _ => None,
    });
    incoming.collect()
}

/// Calls, answers, talks, and one side hangs up; both have had voice.
fn talk(world: &mut World, from: usize, target: &str, to: usize, callee_ends: bool) {
    let (before, here) = (world.hosts[to].plans().len(), world.hosts[from].plans().len());
    let rung = callers(world, to).len();
    let request = world.call(from, target);
    world.until(seconds(20), "the incoming call", |w| callers(w, to).len() > rung);
    world.answer(to);
    world.until_voice(from, here + 1);
    world.until_voice(to, before + 1);
    world.run(seconds(3));
    world.hang_up(if callee_ends { to } else { from });
    let (report, _) = world.report(from, request, seconds(8));
    assert_eq!((report.result.as_str(), report.status), ("completed", 200), "{report:?}");
    world.run(seconds(3));
    assert_eq!((calls(world, from), calls(world, to)), (0, 0), "a call is left");
}

#[test]
fn by_a_contact_link_both_ways_and_the_caller_is_the_proven_one() {
    let mut world = three(1, |_| {});
    for (from, to, name) in [(0, 2, "ben"), (2, 0, "anna"), (0, 3, "otto"), (3, 0, "anna"), (3, 1, "bea")] {
        know(&mut world, from, to, RingRight::Once);
        talk(&mut world, from, name, to, false);
        // The token is spent, and the caller is a contact now.
        talk(&mut world, from, name, to, true);
    }
    assert_eq!(callers(&world, 2), ["sip:anna@a.office", "sip:anna@a.office"]);
    assert_eq!(callers(&world, 0)[2..], ["sip:otto@family", "sip:otto@family"]);
    // By address as well as by name.
    talk(&mut world, 0, "ben@b.office", 2, false);
    talk(&mut world, 0, "sip:otto@family", 3, true);
    assert!(world.hosts[2].saved.contains(&Saved::Foreign));
}

#[test]
fn a_supernode_that_is_gone_is_no_matter_when_the_link_names_another() {
    let mut world = three(2, anyone);
    know(&mut world, 0, 2, RingRight::Ask);
    let text = link(&mut world, 2, RingRight::Ask);
    assert_eq!(ContactLink::parse(&text).unwrap().addrs.len(), 2, "its own address and bea's");
    // The callee's own supernode answers nothing; bea's looks him up.
    let (own, other) = (world.hosts[2].overlay, world.hosts[1].overlay);
    let nowhere = "10.77.0.1:5061".parse().unwrap();
    world.hijacked.insert(own, nowhere);
    talk(&mut world, 0, "ben", 2, false);
    talk(&mut world, 0, "ben", 2, true);
    world.hijacked.insert(other, nowhere);
    for conn in world.links(0) {
        world.close(crate::world::Place::Node(0), conn);
    }
    world.run(seconds(1));
    let request = world.call(0, "ben");
    let (report, _) = world.report(0, request, seconds(20));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(report.reason.contains("cannot be reached"), "{}", report.reason);
}

#[test]
fn a_silent_supernode_is_given_up_for_the_next() {
    let mut world = three(3, anyone);
    know(&mut world, 0, 2, RingRight::Ask);
    let own = world.hosts[2].overlay;
    // The first takes the link and says nothing to the INVITE on it.
    let raw = world.raw();
    world.raws[raw].proof = world.hosts[2].verified.clone();
    world.raws[raw].anchor = world.hosts[2].anchor.clone();
    world.hijacked.insert(own, world.raws[raw].addr);
    let request = world.call(0, "ben");
    world.until(seconds(20), "the incoming call", |w| !callers(w, 2).is_empty());
    world.answer(2);
    world.run(seconds(3));
    world.hang_up(0);
    let (report, _) = world.report(0, request, seconds(8));
    assert_eq!(report.result, "completed");
    assert!(!world.raws[raw].inbox.is_empty(), "the first was asked first");
}

#[test]
fn another_root_in_the_place_of_the_supernode_gets_nothing() {
    let mut world = three(4, anyone);
    know(&mut world, 0, 2, RingRight::Once);
    // An office of the same name, and its ben, founded by somebody else; and an open overlay of that name.
    let (mallory, _) = Identity::found("b.office", "ben", None, START, &mut world.rng).unwrap();
    let fake = world.member(mallory, anyone);
    let open = Identity::open("b.office", "ben", START, &mut world.rng).unwrap();
    let fake_open = world.member(open, anyone);
    world.run(seconds(5));
    for imposter in [fake, fake_open, 3] {
        for real in [1, 2] {
            let to = world.hosts[imposter].overlay;
            world.hijacked.insert(world.hosts[real].overlay, to);
        }
        let heard = world.hosts[imposter].log.len();
        let request = world.call(0, "ben");
        let (report, _) = world.report(0, request, seconds(20));
        assert_eq!((report.result.as_str(), report.status), ("failed", 503));
        assert!(report.reason.contains("root key") || report.reason.contains("is of family"), "{}", report.reason);
        assert_eq!(calls(&world, imposter), 0);
        assert!(!world.hosts[imposter].log[heard..].iter().any(|l| l.contains("SIP/2.0")), "the INVITE went out");
    }
    assert!(world.hosts[0].counter(world.now, "supernodes of other overlays with another root than known") >= 2);
}

#[test]
fn a_member_between_them_cannot_answer_for_the_callee() {
    let mut world = three(5, anyone);
    know(&mut world, 0, 2, RingRight::Ask);
    // bea's own key is of the right office; she answers in the name of ben.
    let raw = world.raw();
    world.raws[raw].proof = world.hosts[1].verified.clone();
    world.raws[raw].anchor = world.hosts[1].anchor.clone();
    let to = world.raws[raw].addr;
    for real in [1, 2] {
        world.hijacked.insert(world.hosts[real].overlay, to);
    }
    let request = world.call(0, "ben");
    world.until(seconds(8), "the INVITE", |w| !w.raws[raw].inbox.is_empty());
    let got = world.raws[raw].inbox[0].clone();
    let mut ok = Message::reply(&got.message, 200, "OK");
    ok.set_to_tag("mitm");
    ok.push("Contact", format_args!("<sip:ben@{to};transport=tls>"));
    ok.set_body("application/sdp", sdp("10.9.0.1:7000", "sendrecv"));
    world.write(crate::world::Place::Raw(raw), got.conn.unwrap(), ok.to_bytes());
    let (report, _) = world.report(0, request, seconds(20));
    assert_eq!((report.result.as_str(), report.status), ("rejected", 403), "{report:?}");
    assert!(report.reason.contains("not proven"), "{}", report.reason);
    assert!(world.hosts[0].plans().is_empty(), "voice went to the wrong one");
    world.run(seconds(2));
    let methods: Vec<_> = world.raws[raw].inbox.iter().map(|r| r.message.method().as_str().to_owned()).collect();
    assert!(methods.contains(&"ACK".to_owned()) && methods.contains(&"BYE".to_owned()), "{methods:?}");
}

/// A raw end of otto's overlay on a link with host `to`, as a device of `who`.
fn foreign_end(world: &mut World, who: &Identity, to: usize) -> (usize, Way) {
    let raw = world.raw();
    world.raws[raw].proof = Some(Arc::new(who.verified(START).unwrap()));
    world.raws[raw].anchor = Some(who.anchor.clone());
    let to = world.hosts[to].overlay;
    let conn = world.dial(raw, Transport::Tls, to);
    (raw, Way::Stream(conn))
}

/// A request with a proof that `signer` signs for what it says.
fn signed(talk: &mut Talk, world: &World, method: Method, signer: &Identity) -> Message {
    let mut message = match method {
        Method::Invite => talk.invite(world, &sdp("10.9.0.1:7000", "sendrecv")),
        method => talk.request(world, method),
    };
    let plain = |uri: String| uri.to_ascii_lowercase();
    let (caller, callee) =
        (plain(message.from().unwrap().uri.to_string()), plain(message.to().unwrap().uri.to_string()));
    let said = Said {
        side: Side::Caller,
        method: message.method().as_str(),
        call_id: message.call_id().unwrap(),
        tag: message.from_tag().unwrap(),
        caller: &caller,
        callee: &callee,
        body: message.body(),
    };
    let unix = START + world.now.since(chordial::core::Instant::ZERO);
    let proof = CallProof::sign(&said, signer, None, unix).text();
    message.push(chordial::sip::msg::HeaderName::Other(PROOF_HEADER), proof);
    message
}

#[test]
fn a_foreign_link_is_for_calls_of_its_own_user_and_for_nothing_else() {
    let mut world = three(6, anyone);
    let joe = Identity::open("family", "joe", START, &mut world.rng).unwrap();
    let ask = |world: &mut World, from: &str, to: &str, uri: &str, method: Method, signer: &Identity| {
        let (raw, way) = foreign_end(world, &joe, 1);
        let mut talk = Talk::new(world, raw, way, uri, from, to);
        let message = signed(&mut talk, world, method, signer);
        talk.ask(world, &message).status()
    };
    let (own, ben, uri) = ("sip:joe@family", "sip:ben@b.office", "sip:ben@b.office");
    // Names that are not joe's: of the callee's overlay, of his own overlay, of a third.
    let bea = world.hosts[1].overlay;
    for from in ["sip:bea@b.office", "sip:joe@b.office", "sip:otto@family", "sip:joe@a.office", "sip:joe@10.0.0.2"] {
        assert_eq!(ask(&mut world, from, ben, uri, Method::Invite, &joe), 403, "{from}");
    }
    for method in [Method::Register, Method::Options, Method::Subscribe, Method::Refer] {
        assert_eq!(ask(&mut world, own, ben, uri, method.clone(), &joe), 403, "{method}");
    }
    // A proof by another device than the one that dialled, and none.
    let other = Identity::open("family", "joe", START, &mut world.rng).unwrap();
    assert_eq!(ask(&mut world, own, ben, uri, Method::Invite, &other), 403);
    let (raw, way) = foreign_end(&mut world, &joe, 1);
    let mut bare = Talk::new(&world, raw, way, uri, own, ben);
    let invite = bare.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(bare.ask(&mut world, &invite).status(), 403);
    // No relay: not elsewhere, not to a third overlay, not past the proxy.
    for uri in ["sip:x@10.9.0.1", "sip:otto@family", "sip:anna@a.office"] {
        assert!(matches!(ask(&mut world, own, uri, uri, Method::Invite, &joe), 403 | 404), "{uri}");
    }
    let mut routed = Talk::new(&world, raw, way, uri, own, ben);
    routed.routes = vec![format!("<sip:{bea};transport=tls;lr>"), "<sip:10.9.0.9;lr>".into()];
    let message = signed(&mut routed, &world, Method::Invite, &joe);
    assert_eq!(routed.ask(&mut world, &message).status(), 403);
    assert_eq!(ask(&mut world, own, "sip:nobody@b.office", "sip:nobody@b.office", Method::Invite, &joe), 404);
    assert_eq!((calls(&world, 1), calls(&world, 2)), (0, 0));
    // An overlay request, as a member of that ring would send it.
    let carry = chordial::overlay::carry::Carry::new(
        "b.office",
        chordial::overlay::PeerRef { id: joe.peer_id(), addr: world.raws[raw].addr },
        600,
    );
    let query = chordial::overlay::Request::Query { target: joe.peer_id(), route: chordial::overlay::Route::Here };
    let mut request = carry.encode_request(&query, bea, &mut world.rng);
    let addr = world.raws[raw].addr;
    request.push_front("Via", format_args!("SIP/2.0/TLS {addr};branch=z9hG4bKforeign;rport"));
    let talk = Talk::new(&world, raw, way, uri, own, ben);
    talk.send(&mut world, &request);
    assert_eq!(talk.finally(&mut world, &request).status(), 403);
    // And the right one rings.
    let mut talk = Talk::new(&world, raw, way, uri, own, ben);
    let message = signed(&mut talk, &world, Method::Invite, &joe);
    talk.send(&mut world, &message);
    world.until_ringing_at(2);
    assert_eq!(callers(&world, 2), ["sip:joe@family"]);
}

#[test]
fn a_member_does_not_invent_callers_of_other_overlays() {
    let mut world = three(7, anyone);
    let (raw, way) = (world.raw(), world.hosts[2].overlay);
    world.raws[raw].proof = world.hosts[1].verified.clone();
    let conn = world.dial(raw, Transport::Tls, way);
    let uri = format!("sip:ben@{way}");
    let mut talk = Talk::new(&world, raw, Way::Stream(conn), &uri, "sip:anna@a.office", "sip:ben@b.office");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &invite).status(), 403);
    assert_eq!(calls(&world, 2), 0);
    assert_eq!(world.hosts[2].counter(world.now, "callers of other overlays that are not proven"), 1);
}

#[test]
fn calls_in_masses_are_refused_for_a_while() {
    let mut world = three(8, anyone);
    let joe = Identity::open("family", "joe", START, &mut world.rng).unwrap();
    let (raw, way) = foreign_end(&mut world, &joe, 1);
    let mut statuses = Vec::new();
    for _ in 0..15 {
        let mut talk = Talk::new(&world, raw, way, "sip:nobody@b.office", "sip:joe@family", "sip:nobody@b.office");
        let message = signed(&mut talk, &world, Method::Invite, &joe);
        statuses.push(talk.ask(&mut world, &message).status());
    }
    assert_eq!(statuses[0], 404);
    assert!(statuses[12..].iter().all(|s| *s == 503), "{statuses:?}");
    world.run(seconds(10));
    let mut talk = Talk::new(&world, raw, way, "sip:nobody@b.office", "sip:joe@family", "sip:nobody@b.office");
    let message = signed(&mut talk, &world, Method::Invite, &joe);
    assert_eq!(talk.ask(&mut world, &message).status(), 404, "not for ever");
}

#[test]
fn a_foreign_link_that_asks_nothing_is_closed() {
    let mut world = three(9, anyone);
    let joe = Identity::open("family", "joe", START, &mut world.rng).unwrap();
    let (raw, _) = foreign_end(&mut world, &joe, 1);
    world.run(seconds(40));
    assert_eq!(world.raws[raw].closed.len(), 1);
}

#[test]
fn who_may_ring() {
    let mut world = three(10, |_| {});
    know(&mut world, 0, 2, RingRight::Ask);
    let refused = |world: &mut World| {
        let request = world.call(0, "ben");
        let (report, _) = world.report(0, request, seconds(20));
        (report.result, report.status)
    };
    // No contact of ben's: refused, and shown once.
    assert_eq!(refused(&mut world), ("rejected".into(), 403));
    assert_eq!(refused(&mut world), ("rejected".into(), 403));
    let knocks = world.hosts[2].events.iter().filter(|(_, e)| matches!(e, Event::Knocked { .. })).count();
    assert_eq!(knocks, 1);
    let report = strangers(&mut world, 2);
    assert_eq!((report.may_ring.as_str(), report.knocks.len(), report.knocks[0].times), ("contacts", 1, 2));
    assert_eq!(report.knocks[0].aor, "sip:anna@a.office");
    assert!(callers(&world, 2).is_empty());
    // Accepted, it rings; blocked, it does not, and nothing is shown.
    world.ask(2, Command::ContactAccept { who: "anna@a.office".into(), name: None }).unwrap();
    talk(&mut world, 0, "ben", 2, false);
    world.ask(2, Command::Block { target: "anna".into() }).unwrap();
    assert_eq!(refused(&mut world), ("rejected".into(), 603));
    assert!(strangers(&mut world, 2).knocks.is_empty());
    world.ask(2, Command::Unblock { target: "anna".into() }).unwrap();
    talk(&mut world, 0, "ben", 2, true);
    world.ask(2, Command::Block { target: "@a.office".into() }).unwrap();
    assert_eq!(refused(&mut world), ("rejected".into(), 603));
    assert!(world.ask(2, Command::Unblock { target: "nobody@x.y".into() }).is_err());
    assert!(world.ask(2, Command::Block { target: "???".into() }).is_err());
}

#[test]
fn nobody_means_nobody_and_known_means_met() {
    let mut world = three(11, |c| c.user.strangers = Strangers::Known);
    know(&mut world, 0, 2, RingRight::Ask);
    let request = world.call(0, "ben");
    assert_eq!(world.report(0, request, seconds(20)).0.status, 403);
    // ben has called anna before: she takes him by a link, and then he knows her key.
    know(&mut world, 2, 0, RingRight::Always);
    talk(&mut world, 2, "anna", 0, false);
    world.ask(2, Command::ContactForget { name: "anna".into() }).unwrap();
    let request = world.call(0, "ben");
    assert_eq!(world.report(0, request, seconds(20)).0.status, 403, "forgotten");
    know(&mut world, 2, 0, RingRight::Ask);
    talk(&mut world, 0, "ben", 2, false);

    let mut world = three(12, |c| c.user.strangers = Strangers::Nobody);
    know(&mut world, 0, 2, RingRight::Always);
    know(&mut world, 2, 0, RingRight::Ask);
    let request = world.call(0, "ben");
    assert_eq!(world.report(0, request, seconds(20)).0.status, 603);
    assert!(callers(&world, 2).is_empty() && strangers(&mut world, 2).knocks.is_empty());
}

#[test]
fn a_right_to_ring_once_is_for_one() {
    let mut world = three(13, |_| {});
    let text = link(&mut world, 2, RingRight::Once);
    accept(&mut world, 0, &text, "ben");
    accept(&mut world, 3, &text, "ben");
    talk(&mut world, 0, "ben", 2, false);
    let request = world.call(3, "ben");
    assert_eq!(world.report(3, request, seconds(20)).0.status, 403, "spent by anna");
    talk(&mut world, 0, "ben", 2, false);
    let text = link(&mut world, 2, RingRight::Always);
    world.ask(3, Command::ContactForget { name: "ben".into() }).unwrap();
    accept(&mut world, 3, &text, "ben");
    talk(&mut world, 3, "ben", 2, false);
}

#[test]
fn a_changed_key_is_shown_and_refused_until_accepted() {
    let mut world = three(14, anyone);
    know(&mut world, 2, 3, RingRight::Ask);
    know(&mut world, 3, 2, RingRight::Ask);
    talk(&mut world, 3, "ben", 2, false);
    world.kill(3);
    // Somebody else of the open overlay takes otto's name.
    let other = Identity::open("family", "otto", START, &mut world.rng).unwrap();
    let other = world.member(other, |c| {
        anyone(c);
        c.overlay.bootstrap = Vec::new();
    });
    world.run(seconds(5));
    know(&mut world, other, 2, RingRight::Always);
    let request = world.call(other, "ben");
    assert_eq!(world.report(other, request, seconds(20)).0.status, 403);
    assert!(world.hosts[2].events.iter().any(|(_, e)| matches!(e, Event::Knocked { changed: true, .. })));
    // Nor is the other one called in his place: nobody answers by the address, and the other one's link is refused.
    let text = link(&mut world, other, RingRight::Ask);
    let again = world.ask(2, Command::ContactAccept { who: text.clone(), name: Some("otto".into()) });
    assert!(again.unwrap_err().what.contains("is known by the key"));
    world.hijacked.insert(world.hosts[3].overlay, world.hosts[other].overlay);
    let request = world.call(2, "otto");
    world.until_ringing_at(other);
    world.answer(other);
    let (report, _) = world.report(2, request, seconds(20));
    assert_eq!(report.status, 403);
    assert!(report.reason.contains("answers with the key"), "{}", report.reason);
    // Accepted, it is the one.
    world.ask(2, Command::ContactAccept { who: "otto@family".into(), name: None }).unwrap();
    talk(&mut world, other, "ben", 2, false);
    talk(&mut world, 2, "otto", other, false);
}

#[test]
fn links_that_cannot_be_taken_up() {
    let mut world = three(15, |_| {});
    let own = link(&mut world, 1, RingRight::Ask);
    let e = world.ask(2, Command::ContactAccept { who: own.clone(), name: None }).unwrap_err();
    assert!(e.what.contains("of this overlay"), "{e}");
    let mut damaged = own.into_bytes();
    let last = damaged.len() - 3;
    damaged[last] = if damaged[last] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).unwrap();
    assert!(world.ask(0, Command::ContactAccept { who: damaged, name: None }).is_err());
    assert!(world.ask(0, Command::ContactForget { name: "ben".into() }).is_err());
    let request = world.call(0, "sip:ben@b.office");
    let (report, _) = world.report(0, request, seconds(20));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(report.reason.contains("contact link"), "{}", report.reason);
}

#[test]
fn a_plain_caller_from_outside_rings_only_where_anyone_may() {
    for (policy, rings) in [(Strangers::Contacts, false), (Strangers::Known, false), (Strangers::Anyone, true)] {
        let mut world = three(16, |c| c.user.strangers = policy);
        let raw = world.raw();
        let to = world.hosts[2].sip;
        let mut talk =
            Talk::new(&world, raw, Way::Udp(to), &format!("sip:ben@{to}"), "sip:joe@elsewhere.example", "sip:ben@x");
        let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
        if rings {
            talk.send(&mut world, &invite);
            world.until_ringing_at(2);
        } else {
            assert_eq!(talk.ask(&mut world, &invite).status(), 403, "{policy:?}");
            assert_eq!(world.hosts[2].counter(world.now, "calls from outside in clear refused"), 1);
        }
    }
}

/// A service record and the address of its target, in the world's DNS.
fn service(world: &mut World, name: &str, priority: u16, target: &str, at: std::net::SocketAddr) {
    let srv = Record::Srv { priority, weight: 0, port: at.port(), target: target.into() };
    world.zone.entry((name.into(), RecordKind::Srv)).or_default().push(srv);
    world.zone.insert((target.into(), RecordKind::Address), vec![Record::Address(at.ip())]);
}

#[test]
fn by_the_records_of_a_domain_and_its_key_is_remembered() {
    let mut world = three(17, anyone);
    let (first, second, annas) = (world.hosts[1].overlay, world.hosts[2].overlay, world.hosts[0].overlay);
    service(&mut world, "_sips._tcp.b.office", 10, "s1.b.office", "10.88.0.1:5061".parse().unwrap());
    service(&mut world, "_sips._tcp.b.office", 20, "s2.b.office", first);
    service(&mut world, "_sips._tcp.a.office", 20, "s.a.office", annas);
    // The first supernode is not there; the second looks ben up.
    talk(&mut world, 0, "ben@b.office", 2, false);
    talk(&mut world, 2, "sip:anna@a.office", 0, true);
    let known = strangers(&mut world, 0).known;
    assert_eq!(known.len(), 1, "the callee's key was remembered: {known:?}");
    // Somebody else founds an office of that name, and has the records changed.
    let (mallory, _) = Identity::found("b.office", "ben", None, START, &mut world.rng).unwrap();
    let fake = world.member(mallory, anyone);
    world.run(seconds(5));
    let raw = world.raw();
    let plain = world.raws[raw].addr;
    world.zone.clear();
    let to = world.hosts[fake].overlay;
    service(&mut world, "_sips._tcp.b.office", 10, "s1.b.office", to);
    service(&mut world, "_sip._udp.b.office", 10, "pbx.b.office", plain);
    for real in [first, second] {
        world.hijacked.insert(real, to);
    }
    for conn in world.links(0) {
        world.close(crate::world::Place::Node(0), conn);
    }
    let request = world.call(0, "ben@b.office");
    let (report, _) = world.report(0, request, seconds(20));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(report.reason.contains("root key"), "{}", report.reason);
    assert_eq!(calls(&world, fake), 0);
    assert!(world.raws[raw].inbox.is_empty(), "an overlay that is known was called in clear");
}

#[test]
fn a_dns_that_does_not_answer_is_not_asked_on() {
    let mut world = three(21, anyone);
    world.dns_is_silent = true;
    let request = world.call(0, "ben@b.office");
    let (report, took) = world.report(0, request, seconds(20));
    assert_eq!((report.status, report.reason.as_str()), (503, "the DNS does not answer"));
    assert!(took < seconds(5), "{took:?}");
}

#[test]
fn a_domain_whose_supernode_is_of_another_overlay_gets_nothing() {
    let mut world = three(18, anyone);
    let family = world.hosts[3].overlay;
    service(&mut world, "_sips._tcp.b.office", 10, "s1.b.office", family);
    let request = world.call(0, "ben@b.office");
    let (report, _) = world.report(0, request, seconds(20));
    assert_eq!((report.result.as_str(), report.status), ("failed", 503));
    assert!(report.reason.contains("is of family"), "{}", report.reason);
    assert_eq!(calls(&world, 3), 0);
}

#[test]
fn a_plain_domain_by_its_records_and_the_next_target_when_one_is_silent() {
    let mut world = three(19, |_| {});
    let raws = [world.raw(), world.raw()];
    let at = raws.map(|raw| world.raws[raw].addr);
    service(&mut world, "_sip._udp.host.example", 10, "one.host.example", at[0]);
    service(&mut world, "_sip._udp.host.example", 20, "two.host.example", at[1]);
    let request = world.call(0, "joe@host.example");
    world.until(seconds(20), "the INVITE at the second", |w| !w.raws[raws[1]].inbox.is_empty());
    assert!(!world.raws[raws[0]].inbox.is_empty(), "the first was asked first");
    let got = world.raws[raws[1]].inbox[0].clone();
    assert_eq!(got.message.request_uri(), "sip:joe@host.example");
    assert!(!got.message.has(chordial::sip::msg::HeaderName::Other(PROOF_HEADER)), "a proof in clear");
    let mut ok = Message::reply(&got.message, 200, "OK");
    ok.set_to_tag("plain");
    // In the dialog a host name again.
    ok.push("Contact", "<sip:joe@two.host.example:5060>");
    ok.set_body("application/sdp", sdp("10.9.0.2:7000", "sendrecv"));
    world.datagram(at[1], got.from.unwrap(), ok.to_bytes());
    world.until_voice(0, 1);
    world.run(seconds(2));
    world.hang_up(0);
    world.run(seconds(2));
    let heard: Vec<_> = world.raws[raws[1]].inbox.iter().map(|r| r.message.method().as_str().to_owned()).collect();
    assert!(heard.contains(&"ACK".to_owned()) && heard.contains(&"BYE".to_owned()), "{heard:?}");
    let bye = world.raws[raws[1]].inbox.iter().find(|r| *r.message.method() == Method::Bye).unwrap().message.clone();
    world.datagram(at[1], got.from.unwrap(), Message::reply(&bye, 200, "OK").to_bytes());
    let (report, _) = world.report(0, request, seconds(8));
    assert_eq!(report.result, "completed");
}

#[test]
fn a_standard_phone_calls_and_is_called_abroad() {
    let mut world = three(20, anyone);
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    know(&mut world, 0, 2, RingRight::Ask);
    let registrar = world.hosts[0].sip;
    let phone = world.plain("desk", "secret", registrar, |c| c.phone.domain = "a.office".into());
    world.run(seconds(3));
    // The phone dials an address; its node proves it by the adapter's certificate.
    talk(&mut world, phone, "sip:ben@b.office", 2, false);
    talk(&mut world, phone, "sip:ben@b.office", 2, true);
    assert_eq!(callers(&world, 2), ["sip:desk@a.office", "sip:desk@a.office"]);
    // And is called: its node signs the answer. The way is known from the link of its overlay.
    know(&mut world, 2, 0, RingRight::Ask);
    talk(&mut world, 2, "sip:desk@a.office", phone, false);
    talk(&mut world, 2, "sip:desk@a.office", phone, true);
}
