//! Session timers (RFC 4028) and UPDATE (RFC 3311), with a raw end.

use crate::raw::{Talk, respond, sdp};
use crate::talk::{bob, offer, seconds};
use crate::world::{Received, World};
use chordial::node::control::Command;
use chordial::sip::msg::{Message, Method};

/// The raw end calls with these fields; the answer.
fn call(world: &mut World, talk: &mut Talk, fields: &[(&str, &str)]) -> Message {
    let mut invite = talk.invite(world, &offer());
    for (name, value) in fields {
        invite.push(*name, value);
    }
    let ok = talk.ask(world, &invite);
    if ok.status() == 200 {
        talk.learn(&ok);
        talk.ack(world, "");
        world.run(seconds(1));
    }
    ok
}

/// Answers a refresh as it asks.
fn refreshed(world: &mut World, request: &Received) {
    let mut ok = Message::reply(&request.message, 200, "OK");
    let asked = request.message.header("Session-Expires").unwrap();
    ok.push("Session-Expires", asked);
    ok.push("Contact", format_args!("<sip:raw@{}>", world.raws[0].addr));
    if !request.message.body().is_empty() {
        ok.set_body("application/sdp", offer().into_bytes());
    }
    crate::raw::send(world, 0, crate::raw::way_back(request), ok.to_bytes());
}

#[test]
fn this_end_refreshes_by_update_where_the_other_takes_it() {
    let (mut world, mut talk) = bob(1, true);
    let fields =
        [("Supported", "timer"), ("Session-Expires", "100;refresher=uas"), ("Allow", "INVITE, ACK, BYE, UPDATE")];
    let ok = call(&mut world, &mut talk, &fields);
    assert_eq!(ok.header("Session-Expires"), Some("100;refresher=uas"));
    world.run(seconds(48));
    assert!(world.requests(0, &Method::Update).is_empty());
    for n in 1..=3 {
        let update = world.until_request(0, Method::Update, n);
        assert_eq!(update.message.header("Session-Expires"), Some("100;refresher=uac"));
        assert!(update.message.body().is_empty() && update.message.has("Contact"));
        refreshed(&mut world, &update);
        world.run(seconds(40));
        assert_eq!(world.requests(0, &Method::Update).len(), n, "at half the interval, not before");
        world.run(seconds(9));
    }
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn this_end_refreshes_by_invite_otherwise() {
    let (mut world, mut talk) = bob(2, true);
    call(&mut world, &mut talk, &[("Supported", "timer"), ("Session-Expires", "90;refresher=uas")]);
    let (plans, version) = (world.hosts[0].plans().len(), |r: &Received| {
        let sdp = String::from_utf8_lossy(r.message.body()).into_owned();
        sdp.lines().find(|l| l.starts_with("o=")).unwrap().to_owned()
    });
    world.run(seconds(45));
    let first = world.until_request(0, Method::Invite, 1);
    assert_eq!(first.message.header("Session-Expires"), Some("90;refresher=uac"));
    refreshed(&mut world, &first);
    world.until_request(0, Method::Ack, 1);
    world.run(seconds(45));
    let second = world.until_request(0, Method::Invite, 2);
    refreshed(&mut world, &second);
    assert_eq!(version(&first), version(&second), "the same description under the same version");
    world.run(seconds(1));
    assert!(world.hosts[0].plans().len() > plans && world.requests(0, &Method::Bye).is_empty());
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_session_that_nobody_refreshes_ends_with_bye() {
    let (mut world, mut talk) = bob(3, true);
    let ok = call(&mut world, &mut talk, &[("Supported", "timer"), ("Session-Expires", "90")]);
    assert_eq!(ok.header("Session-Expires"), Some("90;refresher=uac"));
    assert!(ok.values("Require").any(|v| v == "timer"));
    world.run(seconds(58));
    assert!(world.requests(0, &Method::Bye).is_empty());
    let bye = world.until_request(0, Method::Bye, 1);
    assert!(bye.message.header("Reason").is_some_and(|r| r.contains("408")), "{:?}", bye.message.header("Reason"));
    respond(&mut world, 0, &bye, 200, "");
    world.run(seconds(3));
    let ended = world.hosts[0].ended()[0].clone();
    assert!(ended.result == "completed" && ended.reason.contains("session expired"), "{ended:?}");
}

#[test]
fn the_other_ends_refresh_keeps_it() {
    let (mut world, mut talk) = bob(4, true);
    call(&mut world, &mut talk, &[("Supported", "timer"), ("Session-Expires", "90;refresher=uac")]);
    for n in 0..4 {
        world.run(seconds(50));
        let method = if n % 2 == 0 { Method::Update } else { Method::Invite };
        let mut refresh = talk.request(&world, method.clone());
        refresh.push("Supported", "timer");
        refresh.push("Session-Expires", "90;refresher=uac");
        if method == Method::Invite {
            refresh.set_body("application/sdp", offer().into_bytes());
        }
        let ok = talk.ask(&mut world, &refresh);
        assert_eq!((ok.status(), ok.header("Session-Expires")), (200, Some("90;refresher=uac")), "{method}");
        if method == Method::Invite {
            talk.ack(&mut world, "");
        }
    }
    assert!(world.requests(0, &Method::Bye).is_empty());
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn an_interval_that_is_too_small_is_refused_with_the_least() {
    let (mut world, mut talk) = bob(5, true);
    let no = call(&mut world, &mut talk, &[("Supported", "timer"), ("Session-Expires", "30")]);
    assert_eq!((no.status(), no.header("Min-SE")), (422, Some("90")));
    talk.ack(&mut world, "");
    world.run(seconds(1));
    assert!(world.hosts[0].ended().is_empty(), "it never rang");
    assert_eq!(call(&mut world, &mut talk, &[("Supported", "timer"), ("Session-Expires", "90")]).status(), 200);
    let mut update = talk.request(&world, Method::Update);
    update.push("Supported", "timer");
    update.push("Session-Expires", "10");
    assert_eq!(talk.ask(&mut world, &update).status(), 422);
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn a_caller_who_is_told_422_asks_for_longer() {
    let (mut world, _) = bob(6, true);
    world.call(0, "sip:joe@10.9.0.1:5060");
    let first = world.until_request(0, Method::Invite, 1);
    assert_eq!((first.message.header("Session-Expires"), first.message.header("Min-SE")), (Some("1800"), Some("90")));
    assert!(first.message.has_token("Supported", "timer"));
    let mut no = Message::reply(&first.message, 422, "Session Interval Too Small");
    no.set_to_tag("x");
    no.push("Min-SE", "4000");
    crate::raw::send(&mut world, 0, crate::raw::way_back(&first), no.to_bytes());
    let second = world.until_request(0, Method::Invite, 2);
    assert_eq!(
        (second.message.header("Session-Expires"), second.message.header("Min-SE")),
        (Some("4000"), Some("4000"))
    );
    assert_eq!(second.message.cseq().unwrap().number, 2);
    respond(&mut world, 0, &second, 200, &offer());
    world.until_voice(0, 1);
    // The answer names no timer: this end keeps the session up itself, and ends it when nobody is there.
    world.run(seconds(1990));
    assert_eq!(world.requests(0, &Method::Invite).len(), 2);
    let refresh = world.until_request(0, Method::Invite, 3);
    refreshed(&mut world, &refresh);
    world.run(seconds(1990));
    world.until_request(0, Method::Invite, 4);
    let bye = |w: &World| !w.requests(0, &Method::Bye).is_empty();
    world.until(seconds(2100), "the end of a session that nobody refreshes", bye);
}

#[test]
fn update_changes_what_is_agreed_and_offers_do_not_cross() {
    let (mut world, mut talk) = bob(7, true);
    talk.establish(&mut world, &offer());
    let mut update = talk.request(&world, Method::Update);
    update.push("Contact", "<sip:raw@10.9.0.1:5099>");
    update.set_body("application/sdp", sdp("10.9.0.1:7008", "sendonly").into_bytes());
    let ok = talk.ask(&mut world, &update);
    assert_eq!(ok.status(), 200);
    assert!(String::from_utf8_lossy(ok.body()).contains("a=recvonly"));
    world.run(seconds(1));
    let plan = world.hosts[0].plans().last().copied().unwrap().clone();
    assert_eq!(plan.agreed.remote_rtp, "10.9.0.1:7008".parse().unwrap());
    assert_eq!(world.hosts[0].node.status(world.now).calls[0].held_by, "there");
    // The target is the new Contact at once: nothing comes to the old one.
    world.command(0, Command::Hold { call: None });
    world.run(seconds(1));
    assert!(world.requests(0, &Method::Invite).is_empty());
    // An offer while ours has no answer.
    let mut update = talk.request(&world, Method::Update);
    update.set_body("application/sdp", offer().into_bytes());
    assert_eq!(talk.ask(&mut world, &update).status(), 491);
    // Without an offer there is nothing to cross.
    let update = talk.request(&world, Method::Update);
    assert_eq!(talk.ask(&mut world, &update).status(), 200);
    assert_eq!(talk.bye(&mut world), 200);
}

#[test]
fn update_before_the_answer() {
    let (mut world, mut talk) = bob(8, false);
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until(seconds(5), "ringing", |w| w.raws[0].inbox.iter().any(|r| r.message.status() == 180));
    let ringing = world.raws[0].inbox.iter().find(|r| r.message.status() == 180).unwrap().message.clone();
    talk.learn(&ringing);
    let mut update = talk.request(&world, Method::Update);
    update.set_body("application/sdp", offer().into_bytes());
    let no = talk.ask(&mut world, &update);
    assert_eq!((no.status(), no.has("Retry-After")), (500, true), "their first offer has no answer yet");
    let update = talk.request(&world, Method::Update);
    assert_eq!(talk.ask(&mut world, &update).status(), 200);
    // BYE may end an early dialog too.
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(talk.finally(&mut world, &invite).status(), 487);
    world.run(seconds(3));
    assert_eq!(world.hosts[0].ended()[0].result, "no-answer");
}
