//! Transfer (RFC 3515, RFC 5589, RFC 3891) at all three ends, between peers and with raw ends; calls that are sent elsewhere.

use crate::raw::{Talk, Way, respond, sdp, send, way_back};
use crate::talk::{bob, offer, seconds};
use crate::world::{Received, World};
use chordial::node::control::{Command, CommandError, Event, Reply, RequestId};
use chordial::sip::msg::{Message, Method};

fn transfer(target: Option<&str>, call: Option<u64>, attended: Option<u64>) -> Command {
    Command::Transfer { call, target: target.map(str::to_owned), attended }
}

fn reply(world: &mut World, host: usize, request: RequestId) -> Result<Reply, CommandError> {
    world.until(seconds(200), "the answer to a command", |w| w.hosts[host].replies.contains_key(&request));
    world.hosts[host].replies.remove(&request).unwrap()
}

/// The other ends of a host's calls and their states.
fn calls(world: &World, host: usize) -> Vec<(u64, String, String)> {
    let calls = world.hosts[host].node.status(world.now).calls;
    calls.into_iter().map(|c| (c.call, c.with, c.state)).collect()
}

fn three(seed: u64, encrypts: bool) -> World {
    let mut world = World::new(seed);
    world.encrypts = encrypts;
    for user in ["alice", "bob", "carol"] {
        world.peer(user, |c| c.user.auto_answer = user != "alice");
    }
    world.run(seconds(15));
    world
}

#[test]
fn a_blind_transfer_between_peers() {
    let mut world = three(1, true);
    let call = world.call(0, "bob");
    world.until_voice(0, 1);
    world.run(seconds(1));
    let request = world.command(0, transfer(Some("carol"), None, None));
    assert!(matches!(reply(&mut world, 0, request), Ok(Reply::Done { .. })));
    let (report, _) = world.report(0, call, seconds(5));
    assert_eq!((report.result.as_str(), report.reason.as_str()), ("completed", "transferred"));
    world.run(seconds(2));
    assert!(calls(&world, 0).is_empty());
    let of = |host: usize| calls(&world, host).into_iter().map(|(_, with, state)| (with, state)).collect::<Vec<_>>();
    assert_eq!(of(1), [("sip:carol@chordial".to_owned(), "answered".to_owned())]);
    assert_eq!(of(2), [("sip:bob@chordial".to_owned(), "answered".to_owned())]);
    assert!(
        world.hosts[1]
            .events
            .iter()
            .any(|(_, e)| matches!(e, Event::Transferred { to, .. } if to == "sip:carol@chordial"))
    );
    let plan = world.hosts[2].plans().last().copied().unwrap().clone();
    assert!(plan.secured.is_some_and(|s| s.signer.is_some()));
    // The voice of the new call is as secure as any.
    assert_eq!(world.hosts[1].node.status(world.now).calls[0].security, "dtls-srtp");
}

#[test]
fn a_blind_transfer_to_nobody_brings_the_call_back() {
    let mut world = three(2, false);
    world.call(0, "bob");
    world.until_voice(0, 1);
    let request = world.command(0, transfer(Some("nobody"), None, None));
    let refused = reply(&mut world, 0, request).unwrap_err();
    assert!(refused.what.contains("404"), "{refused}");
    world.run(seconds(3));
    assert_eq!(calls(&world, 0), [(1, "sip:bob@chordial".into(), "answered".into())], "resumed");
    assert_eq!(calls(&world, 1).len(), 1);
    assert!(world.ask(0, transfer(None, None, None)).is_err());
    assert!(world.ask(0, transfer(None, None, Some(1))).is_err(), "to itself");
}

#[test]
fn an_attended_transfer_between_peers() {
    let mut world = three(3, true);
    let first = world.call(0, "bob");
    world.until_voice(0, 1);
    let request = world.command(0, Command::Hold { call: None });
    reply(&mut world, 0, request).unwrap();
    let second = world.call(0, "carol");
    world.until(seconds(5), "the second call", |w| calls(w, 0).iter().any(|(n, _, s)| *n == 2 && s == "answered"));
    world.run(seconds(1));
    let request = world.command(0, transfer(None, None, Some(2)));
    reply(&mut world, 0, request).unwrap();
    world.report(0, first, seconds(5));
    let (report, _) = world.report(0, second, seconds(5));
    assert_eq!(report.result, "completed");
    world.run(seconds(2));
    let of = |host: usize| calls(&world, host).into_iter().map(|(_, with, state)| (with, state)).collect::<Vec<_>>();
    assert_eq!(of(1), [("sip:carol@chordial".to_owned(), "answered".to_owned())]);
    assert_eq!(of(2), [("sip:bob@chordial".to_owned(), "answered".to_owned())]);
    assert_eq!(world.hosts[1].node.status(world.now).calls[0].security, "dtls-srtp");
}

fn notify(world: &mut World, talk: &mut Talk, body: &str, state: &str) -> u16 {
    let mut notify = talk.request(world, Method::Notify);
    notify.push("Event", "refer");
    notify.push("Subscription-State", state);
    notify.push("Contact", format_args!("<sip:raw@{}>", world.raws[0].addr));
    notify.set_body("message/sipfrag", body.as_bytes().to_vec());
    talk.ask(world, &notify).status()
}

#[test]
fn the_refer_waits_for_the_hold_and_the_bye_for_the_last_notify() {
    let (mut world, mut talk) = bob(4, true);
    talk.establish(&mut world, &offer());
    let request = world.command(0, transfer(Some("sip:carol@10.9.0.7"), None, None));
    let hold = world.until_request(0, Method::Invite, 1);
    world.run(seconds(1));
    assert!(world.requests(0, &Method::Refer).is_empty(), "not before the hold");
    assert_eq!(notify(&mut world, &mut talk, "SIP/2.0 200 OK\r\n", "terminated"), 481, "nobody has asked yet");
    respond(&mut world, 0, &hold, 200, &sdp("10.9.0.1:7000", "recvonly"));
    let refer = world.until_request(0, Method::Refer, 1);
    assert_eq!(refer.message.header("Refer-To"), Some("<sip:carol@10.9.0.7>"));
    assert_eq!(refer.message.header("Referred-By"), Some("<sip:bob@chordial>"));
    assert!(refer.message.has("Contact"));
    respond(&mut world, 0, &refer, 202, "");
    assert_eq!(notify(&mut world, &mut talk, "SIP/2.0 100 Trying\r\n", "active;expires=60"), 200);
    assert_eq!(notify(&mut world, &mut talk, "SIP/2.0 180 Ringing\r\n", "active;expires=60"), 200);
    world.run(seconds(5));
    assert!(world.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::Transfer { status: 180, .. })));
    assert!(world.requests(0, &Method::Bye).is_empty());
    assert!(!world.hosts[0].replies.contains_key(&request));
    assert_eq!(notify(&mut world, &mut talk, "SIP/2.0 200 OK\r\n", "terminated;reason=noresource"), 200);
    reply(&mut world, 0, request).unwrap();
    let bye = world.until_request(0, Method::Bye, 1);
    respond(&mut world, 0, &bye, 200, "");
}

#[test]
fn every_way_in_which_a_transfer_fails_is_told() {
    for (seed, last) in [(10, "486"), (11, "gone"), (12, "refused"), (13, "bye"), (14, "silence"), (15, "no hold")] {
        let (mut world, mut talk) = bob(seed, true);
        talk.establish(&mut world, &offer());
        let request = world.command(0, transfer(Some("sip:carol@10.9.0.7"), None, None));
        let hold = world.until_request(0, Method::Invite, 1);
        let agreed = if last == "no hold" { 488 } else { 200 };
        respond(&mut world, 0, &hold, agreed, &sdp("10.9.0.1:7000", "recvonly"));
        if last != "no hold" {
            let refer = world.until_request(0, Method::Refer, 1);
            respond(&mut world, 0, &refer, if last == "refused" { 603 } else { 202 }, "");
        }
        match last {
            "486" => drop(notify(&mut world, &mut talk, "SIP/2.0 486 Busy Here\r\n", "terminated;reason=noresource")),
            "gone" => drop(notify(&mut world, &mut talk, "", "terminated;reason=giveup")),
            "bye" => assert_eq!(talk.bye(&mut world), 200),
            _ => {}
        }
        let why = reply(&mut world, 0, request).unwrap_err();
        if last == "486" {
            assert!(why.what.contains("486 Busy Here"), "{why}");
        }
        if last != "bye" {
            let back = world.until_request(0, Method::Invite, if last == "no hold" { 1 } else { 2 });
            assert!(last == "no hold" || String::from_utf8_lossy(back.message.body()).contains("a=sendrecv"), "{last}");
        }
    }
}

/// joe talks with bob and asks him to call this; the answer to the REFER.
fn refer(world: &mut World, talk: &mut Talk, to: &str) -> Message {
    let mut refer = talk.request(world, Method::Refer);
    refer.push("Refer-To", to);
    refer.push("Referred-By", "<sip:joe@elsewhere.example>");
    refer.push("Contact", &talk.contact.clone());
    talk.ask(world, &refer)
}

/// What bob's NOTIFYs said, each answered; status and whether it was the last.
fn told(world: &mut World, count: usize) -> Vec<(String, bool)> {
    let mut said = Vec::new();
    // Some come again before they are answered here.
    let distinct = |w: &World| {
        let mut all = w.requests(0, &Method::Notify);
        all.sort_by_key(|r| r.message.cseq().unwrap().number);
        all.dedup_by_key(|r| r.message.cseq().unwrap().number);
        all
    };
    for n in 1..=count {
        world.until(seconds(10), "a NOTIFY", |w| distinct(w).len() >= n);
        let notify = distinct(world)[n - 1].clone();
        respond(world, 0, &notify, 200, "");
        assert!(notify.message.header("Event").is_some_and(|e| e.starts_with("refer")));
        let state = notify.message.header("Subscription-State").unwrap().to_owned();
        said.push((String::from_utf8_lossy(notify.message.body()).trim().to_owned(), state.starts_with("terminated")));
    }
    said
}

#[test]
fn whoever_is_transferred_calls_and_tells_how_it_goes() {
    let (mut world, mut talk) = bob(5, true);
    let carol = world.raw();
    talk.establish(&mut world, &offer());
    let to = "<sip:carol@10.9.0.2:5060?Replaces=x%40y%3Bto-tag%3Da%3Bfrom-tag%3Db>";
    assert_eq!(refer(&mut world, &mut talk, to).status(), 202);
    let invite = world.until_request(carol, Method::Invite, 1);
    assert_eq!(invite.message.header("Replaces"), Some("x@y;to-tag=a;from-tag=b"));
    assert!(invite.message.has_token("Require", "replaces"));
    assert_eq!(invite.message.header("Referred-By"), Some("<sip:joe@elsewhere.example>"));
    assert_eq!(refer(&mut world, &mut talk, to).status(), 491, "one at a time");
    let mut ringing = Message::reply(&invite.message, 180, "Ringing");
    ringing.set_to_tag("carol");
    ringing.push("Contact", "<sip:carol@10.9.0.2>");
    send(&mut world, carol, way_back(&invite), ringing.to_bytes());
    world.run(seconds(1));
    respond(&mut world, carol, &invite, 200, &sdp("10.9.0.2:7000", "sendrecv"));
    let said = told(&mut world, 3);
    assert_eq!(
        said,
        [
            ("SIP/2.0 100 Trying".to_owned(), false),
            ("SIP/2.0 180 Ringing".into(), false),
            ("SIP/2.0 200 OK".into(), true)
        ]
    );
    assert_eq!(calls(&world, 0).len(), 2);
    assert_eq!(talk.bye(&mut world), 200);
    world.run(seconds(3));
    assert_eq!(calls(&world, 0).len(), 1, "the new call goes on");
}

#[test]
fn a_transfer_that_fails_is_told_and_another_may_follow() {
    let (mut world, mut talk) = bob(6, true);
    let carol = world.raw();
    talk.establish(&mut world, &offer());
    assert_eq!(refer(&mut world, &mut talk, "<sip:carol@10.9.0.2:5060>").status(), 202);
    let invite = world.until_request(carol, Method::Invite, 1);
    respond(&mut world, carol, &invite, 486, "");
    assert_eq!(told(&mut world, 2)[1], ("SIP/2.0 486 Because".to_owned(), true));
    for (bad, status) in [("", 400), ("<sip:a@b;method=BYE>", 403), ("<tel:+49>", 403)] {
        assert_eq!(refer(&mut world, &mut talk, bad).status(), status, "{bad}");
    }
    assert_eq!(refer(&mut world, &mut talk, "<sip:nobody@chordial>").status(), 202);
    assert_eq!(told(&mut world, 4)[3], ("SIP/2.0 404 sip:nobody@chordial is not registered".to_owned(), true));
    assert_eq!(calls(&world, 0).len(), 1);
    // Nobody is sent anywhere without a call.
    let to = world.hosts[0].sip;
    let mut stranger =
        Talk::new(&world, 0, Way::Udp(to), &format!("sip:bob@{to}"), "sip:eve@elsewhere.example", "sip:bob@chordial");
    assert_eq!(refer(&mut world, &mut stranger, "<sip:carol@10.9.0.2>").status(), 403);
}

#[test]
fn an_invite_takes_the_place_of_the_call_that_it_names() {
    let (mut world, mut talk) = bob(7, true);
    let other = world.raw();
    talk.establish(&mut world, &offer());
    let tag = |value: &str| value.split("tag=").nth(1).unwrap().to_owned();
    let (ours, theirs) = (tag(&talk.remote), tag(&talk.local));
    let to = world.hosts[0].sip;
    let uri = format!("sip:bob@{to}");
    let mut new = Talk::new(&world, other, Way::Udp(to), &uri, "sip:carol@elsewhere.example", "sip:bob@chordial");
    let with = |world: &World, new: &mut Talk, replaces: &str| {
        let mut invite = new.invite(world, &sdp("10.9.0.2:7000", "sendrecv"));
        invite.push("Require", "replaces");
        invite.push("Replaces", replaces);
        invite
    };
    for (wrong, status) in [
        (format!("{};to-tag=x;from-tag={theirs}", talk.call_id), 481),
        (format!("{};to-tag={theirs};from-tag={ours}", talk.call_id), 481),
        (format!("{};to-tag={ours}", talk.call_id), 400),
        (format!("{};to-tag={ours};from-tag={theirs};early-only", talk.call_id), 486),
    ] {
        let invite = with(&world, &mut new, &wrong);
        assert_eq!(new.ask(&mut world, &invite).status(), status, "{wrong}");
        new.ack(&mut world, "");
    }
    let invite = with(&world, &mut new, &format!("{};to-tag={ours};from-tag={theirs}", talk.call_id));
    let ok = new.ask(&mut world, &invite);
    assert_eq!(ok.status(), 200);
    new.learn(&ok);
    new.ack(&mut world, "");
    let bye = world.until_request(0, Method::Bye, 1);
    respond(&mut world, 0, &bye, 200, "");
    world.run(seconds(3));
    assert_eq!(calls(&world, 0).len(), 1);
    assert_eq!(calls(&world, 0)[0].1, "sip:carol@elsewhere.example");
    // What is over is not taken over.
    let invite = with(&world, &mut new.clone(), &format!("{};to-tag={ours};from-tag={theirs}", talk.call_id));
    let mut late = Talk::new(&world, other, Way::Udp(to), &uri, "sip:dan@elsewhere.example", "sip:bob@chordial");
    let invite = with(&world, &mut late, invite.header("Replaces").unwrap());
    assert_eq!(late.ask(&mut world, &invite).status(), 603);
}

/// A 302 with these Contacts.
fn moved(world: &mut World, raw: usize, invite: &Received, contacts: &[&str]) {
    let mut moved = Message::reply(&invite.message, 302, "Moved Temporarily");
    moved.set_to_tag("moved");
    contacts.iter().for_each(|c| moved.push("Contact", c));
    send(world, raw, way_back(invite), moved.to_bytes());
}

#[test]
fn a_redirection_is_followed_in_the_order_of_q_and_nobody_is_called_twice() {
    let (mut world, _) = bob(8, true);
    let (second, third) = (world.raw(), world.raw());
    let call = world.call(0, "sip:joe@10.9.0.1:5060");
    let invite = world.until_request(0, Method::Invite, 1);
    let back = "<sip:joe@10.9.0.1:5060>";
    moved(
        &mut world,
        0,
        &invite,
        &["<sip:c@10.9.0.3:5060>;q=0.2", "<sip:b@10.9.0.2:5060>;q=0.9", back, "<mailto:x@y>"],
    );
    let invite = world.until_request(second, Method::Invite, 1);
    assert!(world.requests(third, &Method::Invite).is_empty(), "the better one alone");
    moved(&mut world, second, &invite, &[back, "<sip:b@10.9.0.2:5060>", "<sip:c@10.9.0.3:5060>"]);
    let invite = world.until_request(third, Method::Invite, 1);
    respond(&mut world, third, &invite, 200, &sdp("10.9.0.3:7000", "sendrecv"));
    world.until_voice(0, 1);
    world.run(seconds(2));
    assert_eq!((world.requests(0, &Method::Invite).len(), world.requests(second, &Method::Invite).len()), (1, 1));
    world.hand(0, chordial::node::Input::Abort { request: call });
    let bye = world.until_request(third, Method::Bye, 1);
    respond(&mut world, third, &bye, 200, "");
    assert_eq!(world.report(0, call, seconds(5)).0.result, "completed");
}

#[test]
fn redirections_without_end_have_one() {
    let (mut world, _) = bob(9, true);
    let call = world.call(0, "sip:joe@10.9.0.1:5060");
    for n in 1..=11 {
        let invite = world.until_request(0, Method::Invite, n);
        let next = format!("<sip:joe{n}@10.9.0.1:5060>");
        moved(&mut world, 0, &invite, &[&next]);
    }
    let (report, _) = world.report(0, call, seconds(10));
    assert_eq!((report.status, world.requests(0, &Method::Invite).len()), (302, 11));
}

#[test]
fn a_redirection_to_a_member_is_looked_up() {
    let mut world = three(20, false);
    let raw = world.raw();
    world.call(0, "sip:joe@10.9.0.1:5060");
    let invite = world.until_request(raw, Method::Invite, 1);
    moved(&mut world, raw, &invite, &["<sip:carol@chordial>"]);
    world.until_voice(0, 1);
    assert_eq!(calls(&world, 2)[0].1, "sip:alice@chordial");
}

#[test]
fn another_call_waits_and_one_too_many_hears_busy() {
    let (mut world, _) = bob(30, false);
    let to = world.hosts[0].sip;
    let uri = format!("sip:bob@{to}");
    let ring = |world: &mut World, who: usize| {
        let from = format!("sip:caller{who}@elsewhere.example");
        let mut talk = Talk::new(world, 0, Way::Udp(to), &uri, &from, "sip:bob@chordial");
        let mut invite = talk.invite(world, &offer());
        invite.set("Call-ID", format_args!("waiting{who}"));
        talk.call_id = format!("waiting{who}");
        talk.send(world, &invite);
        world.run(seconds(1));
        let mine = |r: &Received| r.message.is_response() && r.message.call_id() == Some(&*format!("waiting{who}"));
        world.raws[0].inbox.iter().rfind(|r| mine(r)).unwrap().message.status()
    };
    for who in 1..=5 {
        assert_eq!(ring(&mut world, who), 180, "number {who}: one rings, four wait");
    }
    assert_eq!(ring(&mut world, 6), 486);
    let first = |e: &Event| matches!(e, Event::Incoming { waiting: false, .. });
    let later = |e: &Event| matches!(e, Event::Incoming { waiting: true, .. });
    let count =
        |world: &World, fits: &dyn Fn(&Event) -> bool| world.hosts[0].events.iter().filter(|(_, e)| fits(e)).count();
    assert_eq!((count(&world, &first), count(&world, &later)), (1, 4));
    world.ask(0, Command::Answer { call: Some(1) }).unwrap();
    world.run(seconds(1));
    assert_eq!(ring(&mut world, 7), 486, "four wait already");
}

#[test]
fn why_a_call_was_cancelled_is_shown() {
    let (mut world, mut talk) = bob(31, false);
    let invite = talk.invite(&world, &offer());
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    let mut cancel = invite.clone();
    let mut bytes = String::from_utf8(cancel.to_bytes().to_vec()).unwrap();
    bytes = bytes.replacen("INVITE sip", "CANCEL sip", 1).replace("1 INVITE", "1 CANCEL");
    cancel = Message::parse(bytes.as_bytes()).unwrap();
    cancel.push("Reason", "SIP;cause=200;text=\"Call completed elsewhere\"");
    talk.send(&mut world, &cancel);
    assert_eq!(talk.finally(&mut world, &invite).status(), 200, "the CANCEL's own, by the same branch");
    world.run(seconds(3));
    assert_eq!(world.hosts[0].ended()[0].reason, "Call completed elsewhere");
}

#[test]
fn the_others_hear_that_somebody_has_answered() {
    let mut world = World::ring(32, &["alice", "bob"]);
    let accounts = chordial::node::control::Command::PhoneAdd {
        user: "desk".into(),
        label: String::new(),
        password: "s3cret".into(),
    };
    world.ask(0, accounts).unwrap();
    let (first, second) = (world.raw(), world.raw());
    let to = world.hosts[0].sip;
    for raw in [first, second] {
        let ok = crate::raw::register(&mut world, raw, Way::Udp(to), "sip:desk@chordial", "s3cret", 300);
        assert_eq!(ok.status(), 200);
    }
    world.run(seconds(5));
    world.call(0, "desk");
    let (at_first, at_second) =
        (world.until_request(first, Method::Invite, 1), world.until_request(second, Method::Invite, 1));
    for (raw, invite) in [(first, &at_first), (second, &at_second)] {
        respond(&mut world, raw, invite, 180, "");
    }
    world.run(seconds(1));
    respond(&mut world, first, &at_first, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    let cancel = world.until_request(second, Method::Cancel, 1);
    let reason = cancel.message.header("Reason").unwrap_or_default();
    assert!(reason.contains("cause=200") && reason.contains("completed elsewhere"), "{reason}");
}
