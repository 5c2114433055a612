//! Accounts with outside registrars: what they say to a registrar, what it may say to them, calls both ways.

use crate::raw::{Talk, Way, respond, sdp, send, way_back};
use crate::world::{Received, World};
use bytes::Bytes;
use chordial::config::OutsideAccount;
use chordial::node::control::{AccountStatus, Command, Event, Reply};
use chordial::pbx::locate::{Record, RecordKind};
use chordial::sip::msg::{Message, Method, Uri};
use chordial::stun::attributes::XorMappedAddress;
use chordial::stun::{Parsed, Seal};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// An account at the first raw end.
fn work(registrar: &str) -> OutsideAccount {
    OutsideAccount {
        name: "work".into(),
        aor: "sip:4930@itsp.test".into(),
        registrar: registrar.into(),
        numbers: vec!["0".into(), "+".into()],
        ..OutsideAccount::default()
    }
}

/// alice, alone on her ring, with an account at raw end 0; further raw ends are other people's.
fn with_account(seed: u64, raws: usize, change: impl FnOnce(&mut OutsideAccount)) -> World {
    let mut world = World::new(seed);
    (0..raws).for_each(|_| _ = world.raw());
    let mut account = work("10.9.0.1");
    change(&mut account);
    world.peer("alice", |c| c.account = vec![account]);
    world
}

/// The 200 to a REGISTER: its contacts as they came, with these parameters, and these fields.
fn grant(world: &mut World, raw: usize, request: &Received, params: &str, fields: &[(&str, &str)]) -> Message {
    let mut ok = Message::reply(&request.message, 200, "OK");
    ok.set_to_tag("registrar");
    let contact = request.message.headers("Contact").next().unwrap();
    let contact = contact.split(";expires=").next().unwrap().to_owned();
    ok.push("Contact", format_args!("{contact}{params}"));
    fields.iter().for_each(|(name, value)| ok.push(*name, value));
    send(world, raw, way_back(request), ok.to_bytes());
    ok
}

fn challenge(world: &mut World, raw: usize, request: &Received, value: &str) {
    let mut no = Message::reply(&request.message, 401, "Unauthorized");
    no.set_to_tag("registrar");
    no.push("WWW-Authenticate", value);
    send(world, raw, way_back(request), no.to_bytes());
}

/// Registered by the first attempt.
fn registered(seed: u64, change: impl FnOnce(&mut OutsideAccount), params: &str, fields: &[(&str, &str)]) -> World {
    let mut world = with_account(seed, 2, change);
    let request = world.until_request(0, Method::Register, 1);
    grant(&mut world, 0, &request, params, fields);
    world.until_event(0, "the registration", |e| matches!(e, Event::Registered { aor } if aor == "sip:4930@itsp.test"));
    world
}

fn status(world: &mut World) -> AccountStatus {
    match world.ask(0, Command::Accounts) {
        Ok(Reply::Accounts { accounts }) => accounts.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn field(message: &Message, name: &str) -> String {
    message.header(name).unwrap_or_default().to_owned()
}

/// A call from the registrar to what the account registered.
fn from_registrar(world: &World, raw: usize) -> Talk {
    let contact = world.requests(0, &Method::Register).last().unwrap().message.contacts().unwrap()[0].uri.clone();
    let to = world.hosts[0].sip;
    let uri = Uri::sip(contact.user.as_deref(), &to.ip().to_string(), Some(to.port())).to_string();
    Talk::new(world, raw, Way::Udp(to), &uri, "sip:0170@elsewhere.test", "sip:4930@itsp.test")
}

#[test]
fn a_digest_is_answered_and_its_nonce_used_again() {
    let mut world = with_account(1, 1, |_| {});
    let first = world.until_request(0, Method::Register, 1);
    assert_eq!(first.message.request_uri(), "sip:10.9.0.1");
    assert!(!first.message.has("Authorization"));
    let contact = field(&first.message, "Contact");
    assert!(contact.contains("+sip.instance=\"<urn:uuid:") && contact.contains(";reg-id=1"), "{contact}");
    assert_eq!(field(&first.message, "Supported"), "path, outbound, gruu");
    challenge(&mut world, 0, &first, "Digest realm=\"itsp\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"");
    let second = world.until_request(0, Method::Register, 2);
    let answer = field(&second.message, "Authorization");
    assert!(answer.contains("username=\"4930\"") && answer.contains("nc=00000001"), "{answer}");
    assert!(answer.contains("SHA-256"), "{answer}");
    grant(&mut world, 0, &second, ";expires=40", &[]);
    // Refreshed in time, with the same nonce and its next count, before anybody asks.
    let third = world.until_request(0, Method::Register, 3);
    let answer = field(&third.message, "Authorization");
    assert!(answer.contains("nonce=\"n1\"") && answer.contains("nc=00000002"), "{answer}");
    // Too old by now: answered once more, nobody is told.
    challenge(&mut world, 0, &third, "Digest realm=\"itsp\", nonce=\"n2\", algorithm=MD5, qop=\"auth\", stale=true");
    let fourth = world.until_request(0, Method::Register, 4);
    assert!(field(&fourth.message, "Authorization").contains("nonce=\"n2\""));
    grant(&mut world, 0, &fourth, ";expires=40", &[("Authentication-Info", "nextnonce=\"n3\"")]);
    let fifth = world.until_request(0, Method::Register, 5);
    let answer = field(&fifth.message, "Authorization");
    assert!(answer.contains("nonce=\"n3\"") && answer.contains("nc=00000001"), "{answer}");
    assert!(world.hosts[0].events.iter().all(|(_, e)| !matches!(e, Event::RegistrationFailed { .. })));
}

#[test]
fn a_wrong_password_is_said_in_words_and_tried_rarely() {
    let mut world = with_account(2, 1, |_| {});
    let nonce = |n: usize| format!("Digest realm=\"itsp\", nonce=\"n{n}\", qop=\"auth\"");
    for n in 1..=2 {
        let request = world.until_request(0, Method::Register, n);
        challenge(&mut world, 0, &request, &nonce(n));
    }
    world.until_event(0, "the failure", |e| matches!(e, Event::RegistrationFailed { status: 401, .. }));
    let now = status(&mut world);
    assert_eq!(now.state, "failed");
    assert!(now.error.contains("10.9.0.1 refused the user 4930") && now.next.contains("password"), "{now:?}");
    // Each further attempt waits twice as long.
    let (mut seen, mut answered) = (2, 2);
    for _ in 0..6000 {
        world.run(Duration::from_millis(100));
        let all = world.requests(0, &Method::Register);
        for request in all.iter().skip(seen).cloned().collect::<Vec<_>>() {
            challenge(&mut world, 0, &request, &nonce(answered));
            answered += 1;
        }
        seen = all.len();
    }
    assert!((12..=24).contains(&answered), "{answered}");
    let log: Vec<_> = world.requests(0, &Method::Register).iter().map(|r| r.message.to_bytes()).collect();
    assert!(log.iter().all(|b| !b.windows(6).any(|w| w == b"s3cret")));
}

#[test]
fn retry_after_is_waited_for() {
    let mut world = with_account(3, 1, |_| {});
    let request = world.until_request(0, Method::Register, 1);
    let mut no = Message::reply(&request.message, 500, "Busy");
    no.set_to_tag("registrar");
    no.push("Retry-After", "90 (maintenance)");
    send(&mut world, 0, way_back(&request), no.to_bytes());
    world.run(seconds(85));
    assert_eq!(world.requests(0, &Method::Register).len(), 1);
    assert_eq!(status(&mut world).state, "failed");
    world.run(seconds(10));
    assert!(world.requests(0, &Method::Register).len() > 1);
}

#[test]
fn servers_are_found_by_the_dns_and_the_next_one_takes_over() {
    let mut world = World::new(4);
    (0..2).for_each(|_| _ = world.raw());
    let srv = |priority, target: &str| Record::Srv { priority, weight: 0, port: 5060, target: target.into() };
    let name = |text: &str, kind| (text.to_owned(), kind);
    let records = vec![srv(20, "two.itsp.test"), srv(10, "one.itsp.test")];
    world.zone.insert(name("_sip._udp.itsp.test", RecordKind::Srv), records);
    for (host, ip) in [("one.itsp.test", "10.9.0.1"), ("two.itsp.test", "10.9.0.2")] {
        world.zone.insert(name(host, RecordKind::Address), vec![Record::Address(ip.parse().unwrap())]);
    }
    world.peer("alice", |c| c.account = vec![work("")]);
    let first = world.until_request(0, Method::Register, 1);
    assert_eq!(first.message.request_uri(), "sip:itsp.test");
    respond(&mut world, 0, &first, 503, "");
    let second = world.until_request(1, Method::Register, 1);
    grant(&mut world, 1, &second, ";expires=40", &[]);
    world.until_event(0, "the registration", |e| matches!(e, Event::Registered { .. }));
    assert_eq!(status(&mut world).server, "udp 10.9.0.2:5060");
    // That one says nothing any more: the search begins anew, and the first one is there again.
    world.until_request(1, Method::Register, 2);
    let again = world.until_request(0, Method::Register, 2);
    grant(&mut world, 0, &again, "", &[]);
    world.run(seconds(1));
    assert_eq!(status(&mut world).server, "udp 10.9.0.1:5060");
}

#[test]
fn a_name_that_leads_nowhere_is_said() {
    let mut world = World::new(5);
    world.raw();
    world.peer("alice", |c| c.account = vec![work("")]);
    world.until_event(0, "the failure", |e| {
        matches!(e, Event::RegistrationFailed { status: 0, why, .. } if why.contains("DNS") && why.contains("itsp.test"))
    });
}

#[test]
fn what_the_registrar_grants_is_used_for_calls() {
    let gruu = ";expires=300;pub-gruu=\"sip:4930@itsp.test;gr=urn:uuid:f8\";temp-gruu=\"sip:t7@itsp.test;gr\"";
    let route = [("Service-Route", "<sip:edge.itsp.test;lr>"), ("Service-Route", "<sip:core.itsp.test;lr>")];
    let mut world = registered(6, |_| {}, gruu, &route);
    assert_eq!(status(&mut world).gruu, "sip:4930@itsp.test;gr=urn:uuid:f8");
    let request = world.call(0, "0170 123-45");
    let invite = world.until_request(0, Method::Invite, 1).message;
    assert_eq!(invite.request_uri(), "sip:017012345@itsp.test");
    assert!(field(&invite, "From").starts_with("<sip:4930@itsp.test>"));
    assert_eq!(field(&invite, "Contact"), "<sip:4930@itsp.test;gr=urn:uuid:f8>");
    let routes: Vec<_> = invite.headers("Route").collect();
    assert_eq!(routes, ["<sip:edge.itsp.test;lr>", "<sip:core.itsp.test;lr>"]);
    let invite = world.until_request(0, Method::Invite, 1);
    respond(&mut world, 0, &invite, 486, "");
    assert_eq!(world.report(0, request, seconds(5)).0.result, "busy");
}

#[test]
fn a_private_account_shows_its_registrar_alone_who_calls() {
    let gruu = ";expires=300;pub-gruu=\"sip:4930@itsp.test;gr=urn:uuid:f8\";temp-gruu=\"sip:t7@itsp.test;gr\"";
    let mut world = registered(7, |a| a.private = true, gruu, &[]);
    world.call(0, "0170");
    let invite = world.until_request(0, Method::Invite, 1).message;
    assert!(field(&invite, "From").contains("anonymous.invalid"));
    assert_eq!(field(&invite, "Privacy"), "id");
    assert_eq!(field(&invite, "P-Preferred-Identity"), "<sip:4930@itsp.test>");
    assert_eq!(field(&invite, "Contact"), "<sip:t7@itsp.test;gr>");
}

#[test]
fn a_call_by_an_account_is_challenged_held_and_ended() {
    let mut world = registered(8, |_| {}, ";expires=300", &[]);
    let account = Some("work".to_owned());
    let target = "sip:joe@elsewhere.test".to_owned();
    let request = world.command(0, Command::Call { target, play: None, record: None, duration: None, account });
    let first = world.until_request(0, Method::Invite, 1);
    assert_eq!(first.message.request_uri(), "sip:joe@elsewhere.test");
    let mut no = Message::reply(&first.message, 407, "Proxy Authentication Required");
    no.set_to_tag("proxy");
    no.push("Proxy-Authenticate", "Digest realm=\"itsp\", nonce=\"n1\", qop=\"auth\"");
    send(&mut world, 0, way_back(&first), no.to_bytes());
    let second = world.until_request(0, Method::Invite, 2);
    assert!(field(&second.message, "Proxy-Authorization").contains("username=\"4930\""));
    let ok = respond(&mut world, 0, &second, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    world.until_voice(0, 1);
    world.until_request(0, Method::Ack, 1);
    let mut talk = Talk::callee(&world, 0, Way::Udp(world.hosts[0].sip), &second.message, &ok);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(world.report(0, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_call_rings_with_the_word_of_the_registrar_on_its_caller() {
    let mut world = registered(9, |_| {}, ";expires=300", &[]);
    let mut talk = from_registrar(&world, 0);
    let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    invite.push("P-Asserted-Identity", "\"Joe\" <sip:+49170@itsp.test>");
    invite.push("Diversion", "<sip:boss@itsp.test>;reason=no-answer");
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    let rang = world.hosts[0].events.iter().find_map(|(_, e)| match e {
        Event::Incoming { from, account, diverted, .. } => Some((from.clone(), account.clone(), diverted.clone())),
        _ => None,
    });
    assert_eq!(rang.unwrap(), ("sip:+49170@itsp.test".into(), "work".into(), "sip:boss@itsp.test".into()));
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!(ok.status(), 200);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    world.hang_up(0);
    world.until_request(0, Method::Bye, 1);
}

#[test]
fn who_withheld_the_number_is_shown_to_nobody() {
    let mut world = registered(10, |_| {}, ";expires=300", &[]);
    let mut talk = from_registrar(&world, 0);
    let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    invite.push("P-Asserted-Identity", "<sip:+49170@itsp.test>");
    invite.push("Privacy", "id");
    talk.send(&mut world, &invite);
    world.until_event(0, "the call", |e| matches!(e, Event::Incoming { from, .. } if from == "anonymous"));
}

#[test]
fn others_than_the_registrar_are_not_believed() {
    let mut world = registered(11, |_| {}, ";expires=300", &[]);
    // Raw end 1 knows the contact, and says what a registrar would say.
    let mut talk = from_registrar(&world, 1);
    let mut invite = talk.invite(&world, &sdp("10.9.0.2:7000", "sendrecv"));
    invite.push("P-Asserted-Identity", "<sip:110@itsp.test>");
    let answer = talk.ask(&mut world, &invite);
    assert_eq!(answer.status(), 403);
    // The registrar's own address without the contact is a stranger's too.
    let to = world.hosts[0].sip;
    let mut talk =
        Talk::new(&world, 0, Way::Udp(to), &format!("sip:alice@{to}"), "sip:x@itsp.test", "sip:alice@itsp.test");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &invite).status(), 403);
    // And it cannot name a user of this overlay, nor have anything carried elsewhere.
    let mut talk = from_registrar(&world, 0);
    talk.local = "<sip:bob@chordial>;tag=1".into();
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &invite).status(), 403);
    let mut talk = Talk::new(&world, 0, Way::Udp(to), "sip:joe@10.9.0.2", "sip:x@itsp.test", "sip:joe@10.9.0.2");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    assert_eq!(talk.ask(&mut world, &invite).status(), 403);
    assert!(world.hosts[0].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
    assert!(world.requests(1, &Method::Invite).is_empty(), "no open relay");
    // A server that asks whether this end is there is answered.
    let mut talk = from_registrar(&world, 0);
    let options = talk.request(&world, Method::Options);
    assert_eq!(talk.ask(&mut world, &options).status(), 200);
}

#[test]
fn nobody_else_has_calls_placed_by_an_account() {
    let mut world = registered(12, |_| {}, ";expires=300", &[]);
    world.command(
        0,
        Command::Call { target: "sip:joe@10.9.0.2".into(), play: None, record: None, duration: None, account: None },
    );
    let invite = world.until_request(1, Method::Invite, 1);
    let mut moved = Message::reply(&invite.message, 302, "Moved Temporarily");
    moved.set_to_tag("x");
    moved.push("Contact", "<sip:0900123@itsp.test>");
    send(&mut world, 1, way_back(&invite), moved.to_bytes());
    world.run(seconds(5));
    assert!(world.requests(0, &Method::Invite).is_empty(), "a call that costs was placed by another's word");
    assert_eq!(world.hosts[0].counter(world.now, "redirections to numbers outside refused"), 1);
}

#[test]
fn a_contact_behind_a_nat_is_mended_by_what_the_registrar_has_seen() {
    let mut world = with_account(13, 1, |a| a.outbound = Some(false));
    let first = world.until_request(0, Method::Register, 1);
    let contact = first.message.contacts().unwrap()[0].uri.clone();
    let mut ok = Message::reply(&first.message, 200, "OK");
    let via = field(&first.message, "Via").replace(";rport", ";received=198.51.100.7;rport=40000");
    ok.set("Via", via);
    ok.set_to_tag("registrar");
    ok.push("Contact", format_args!("{};expires=300", field(&first.message, "Contact")));
    send(&mut world, 0, way_back(&first), ok.to_bytes());
    let second = world.until_request(0, Method::Register, 2);
    let contacts = second.message.contacts().unwrap();
    assert_eq!((contacts[0].uri.host.as_str(), contacts[0].uri.port), ("198.51.100.7", Some(40000)));
    assert_eq!(contacts[1].uri, contact);
    assert_eq!(contacts[1].expires(), Some(0), "the one before is removed");
    grant(&mut world, 0, &second, ";expires=300", &[]);
    world.run(seconds(60));
    assert_eq!(world.requests(0, &Method::Register).len(), 2);
    assert!(world.raws[0].alive.len() >= 2, "the NAT is kept open: {:?}", world.raws[0].alive.len());
}

#[test]
fn a_flow_on_udp_is_kept_by_stun_and_made_anew_when_it_fails() {
    let agreed = [("Require", "outbound"), ("Flow-Timer", "20")];
    let mut world = registered(14, |_| {}, ";expires=3600", &agreed);
    assert!(status(&mut world).outbound);
    let answer = |world: &mut World, seen: &str| {
        let (from, _, bytes) = world.raws[0].alive.pop().unwrap();
        let mut ok = Parsed::read(&bytes).unwrap().message.success();
        ok.push(XorMappedAddress::new(seen.parse().unwrap()));
        let here = world.raws[0].addr;
        world.datagram(here, from.unwrap(), Bytes::from(ok.encode(Seal::default())));
    };
    for _ in 0..3 {
        world.until(seconds(25), "a question", |w| !w.raws[0].alive.is_empty());
        answer(&mut world, "10.0.0.1:5060");
    }
    world.run(seconds(1));
    assert_eq!(world.requests(0, &Method::Register).len(), 1);
    // Another address than before: the flow is another one.
    world.until(seconds(25), "a question", |w| !w.raws[0].alive.is_empty());
    answer(&mut world, "198.51.100.9:1");
    let again = world.until_request(0, Method::Register, 2);
    grant(&mut world, 0, &again, ";expires=3600", &agreed);
    // Nobody answers any more: at once anew.
    world.until(seconds(60), "the next registration", |w| w.requests(0, &Method::Register).len() == 3);
    assert!(world.raws[0].alive.len() >= 3);
}

#[test]
fn a_connection_that_closes_is_registered_anew_at_once_and_calls_take_it() {
    let agreed = [("Require", "outbound")];
    let mut world = registered(15, |a| a.transport = "tcp".into(), ";expires=3600", &agreed);
    let conn = world.requests(0, &Method::Register)[0].conn.unwrap();
    // Two line ends now and then; the world's raw end answers none, so the flow has failed.
    world.until(seconds(125), "a ping", |w| !w.raws[0].alive.is_empty());
    let second = world.until_request(0, Method::Register, 2);
    assert_ne!(second.conn, Some(conn), "a fresh connection");
    grant(&mut world, 0, &second, ";expires=3600", &agreed);
    world.run(seconds(3));
    let flow = second.conn.unwrap();
    world.close(crate::world::Place::Raw(0), flow);
    world.run(Duration::from_millis(200));
    let third = world.until_request(0, Method::Register, 3);
    assert!(third.conn.is_some() && third.conn != Some(flow));
    // One that is closed as soon as it is there is not made again without a pause.
    grant(&mut world, 0, &third, ";expires=3600", &agreed);
    world.close(crate::world::Place::Raw(0), third.conn.unwrap());
    world.run(seconds(1));
    assert_eq!(world.requests(0, &Method::Register).len(), 3);
    let third = world.until_request(0, Method::Register, 4);
    grant(&mut world, 0, &third, ";expires=3600", &agreed);
    world.run(seconds(1));
    // A call comes on that connection.
    let mut talk = from_registrar(&world, 0);
    talk.way = Way::Stream(third.conn.unwrap());
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
    world.answer(0);
    let ok = talk.finally(&mut world, &invite);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    world.hang_up(0);
    assert_eq!(world.until_request(0, Method::Bye, 1).conn, third.conn, "the dialog goes by the flow");
}

#[test]
fn over_tls_the_certificate_has_to_be_of_the_domain() {
    let world =
        registered(16, |a| (a.transport, a.registrar) = ("tls".into(), "10.9.0.1:5060".into()), ";expires=60", &[]);
    assert!(world.hosts[0].log.iter().any(|l| l == "tls itsp.test"), "{:?}", world.hosts[0].log);
}

#[test]
fn a_registrar_that_wants_longer_or_no_outbound_is_obeyed() {
    let mut world = with_account(17, 1, |a| a.expires = 30);
    let first = world.until_request(0, Method::Register, 1);
    let mut no = Message::reply(&first.message, 423, "Interval Too Brief");
    no.set_to_tag("registrar");
    no.push("Min-Expires", 200);
    send(&mut world, 0, way_back(&first), no.to_bytes());
    let second = world.until_request(0, Method::Register, 2);
    assert_eq!(second.message.expires(), Some(200));
    respond(&mut world, 0, &second, 439, "");
    let third = world.until_request(0, Method::Register, 3);
    assert!(!field(&third.message, "Contact").contains("reg-id"));
    assert!(!field(&third.message, "Supported").contains("outbound"));
}

#[test]
fn stopping_takes_the_registration_back() {
    let mut world = with_account(18, 1, |_| {});
    let request = world.until_request(0, Method::Register, 1);
    grant(&mut world, 0, &request, ";expires=3600", &[]);
    world.run(seconds(5));
    world.ask(0, Command::Stop).unwrap();
    let last = world.until_request(0, Method::Register, 2);
    assert_eq!(last.message.expires(), Some(0));
    grant(&mut world, 0, &last, "", &[]);
    world.run(seconds(5));
    assert!(world.hosts[0].stopped);
}

/// anna and ben of one office with the same shared account at raw end 0, and carl.
fn office() -> World {
    let (mut world, _) = crate::people::office(19, &[]);
    world.raw();
    let shared = || {
        let mut account = OutsideAccount { shared: true, reception: "anna".into(), ..work("10.9.0.1") };
        account.dids.insert("4930200".into(), "carl".into());
        account
    };
    for user in ["ben", "dora"] {
        let identity = crate::people::invited(&mut world, user);
        world.member(identity, |c| c.account = vec![shared()]);
        world.run(seconds(8));
    }
    let identity = crate::people::invited(&mut world, "carl");
    world.member(identity, |_| {});
    world.run(seconds(15));
    world
}

#[test]
fn a_shared_account_is_one_machines_and_anothers_when_that_dies() {
    let (ben, dora, carl) = (1, 2, 3);
    let mut world = office();
    assert!(world.requests(0, &Method::Register).is_empty(), "nobody holds the lease yet");
    world.until(seconds(400), "a registration", |w| !w.requests(0, &Method::Register).is_empty());
    let first = world.requests(0, &Method::Register).pop().unwrap();
    let at = |world: &World, request: &Received| {
        world.hosts.iter().position(|h| h.sip.ip() == request.from.unwrap().ip()).unwrap()
    };
    let holder = at(&world, &first);
    assert!(holder == ben || holder == dora);
    let other = ben + dora - holder;
    grant(&mut world, 0, &first, ";expires=3600", &[]);
    world.run(seconds(200));
    assert!(world.requests(0, &Method::Register).iter().all(|r| at(&world, r) == holder), "one of them alone");
    match world.ask(other, Command::Accounts) {
        Ok(Reply::Accounts { accounts }) => assert_eq!(accounts[0].state, "standby"),
        answer => panic!("{answer:?}"),
    }
    let account = Some("work".to_owned());
    let target = "0170".to_owned();
    let call = Command::Call { target, play: None, record: None, duration: None, account };
    assert!(world.ask(other, call).is_err());

    // A call for carl's number rings carl, by the word of a member whose machine has the account.
    let contact = first.message.contacts().unwrap()[0].uri.to_string();
    let to = world.hosts[holder].sip;
    let mut talk = Talk::new(&world, 0, Way::Udp(to), &contact, "sip:0170@elsewhere.test", "sip:4930200@itsp.test");
    let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    invite.push("P-Asserted-Identity", "<sip:+49170@itsp.test>");
    talk.send(&mut world, &invite);
    world.until_event(carl, "the call", |e| {
        matches!(e, Event::Incoming { from, account, .. } if from == "sip:+49170@itsp.test" && account.starts_with("work of "))
    });
    world.answer(carl);
    let ok = talk.finally(&mut world, &invite);
    assert_eq!(ok.status(), 200);
    talk.learn(&ok);
    talk.ack(&mut world, "");
    world.run(seconds(1));
    assert_eq!(talk.bye(&mut world), 200);

    let before = world.requests(0, &Method::Register).len();
    world.kill(holder);
    world.until(seconds(400), "the takeover", |w| w.requests(0, &Method::Register).len() > before);
    let next = world.requests(0, &Method::Register).pop().unwrap();
    assert_eq!(at(&world, &next), other);
    grant(&mut world, 0, &next, ";expires=3600", &[]);
    // Any other number rings the reception.
    let contact = next.message.contacts().unwrap()[0].uri.to_string();
    let to = world.hosts[other].sip;
    let mut talk = Talk::new(&world, 0, Way::Udp(to), &contact, "sip:0170@elsewhere.test", "sip:4930999@itsp.test");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    talk.send(&mut world, &invite);
    world.until_ringing_at(0);
}
