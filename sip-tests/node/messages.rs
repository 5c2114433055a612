//! Messages between people: at once, through phones, sealed on the way, refused where they are not what they say.

use crate::raw::{Talk, Way, authorize, register, respond, way_back};
use crate::world::{START, World};
use chordial::core::{Instant, Transport};
use chordial::identity::{Identity, Letter, LetterId, SignedLetter, seal};
use chordial::node::control::{Command, CommandError, Event, MessageEntry, MessageState, Reply};
use chordial::sip::msg::{Message, Method};
use chordial::ua::message::SEALED_TYPE;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Sends a message by command; what came of it.
pub fn send(world: &mut World, host: usize, target: &str, text: &str) -> Result<MessageEntry, CommandError> {
    let request = world.command(host, Command::Message { target: target.into(), text: text.into() });
    world.until(seconds(60), "the message's answer", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Sent { sent })) => Ok(*sent),
        Some(Err(e)) => Err(e),
        other => panic!("{other:?}"),
    }
}

/// What a host's user was shown, in order.
pub fn shown(world: &World, host: usize) -> Vec<MessageEntry> {
    let message = |e: &Event| match e {
        Event::Message { message } => Some((**message).clone()),
        _ => None,
    };
    world.hosts[host].events.iter().filter_map(|(_, e)| message(e)).collect()
}

pub fn texts(world: &World, host: usize) -> Vec<String> {
    shown(world, host).into_iter().map(|m| m.text).collect()
}

/// The state of the last message that a host has sent.
pub fn last_state(world: &mut World, host: usize) -> MessageState {
    match world.ask(host, Command::Messages { unread: false }) {
        Ok(Reply::Messages { messages }) => messages.iter().rev().find(|m| m.direction == "out").unwrap().state,
        other => panic!("{other:?}"),
    }
}

/// Everything that travels on streams, as the network sees it in clear.
pub fn tap(world: &mut World) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    world.swallow = Box::new(move |bytes| {
        sink.lock().unwrap().extend_from_slice(bytes);
        false
    });
    seen
}

pub fn contains(bytes: &Mutex<Vec<u8>>, text: &str) -> bool {
    bytes.lock().unwrap().windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_message_reaches_a_user_sealed_and_signed() {
    let mut world = World::ring(1, &["alice", "bob", "carol"]);
    let seen = tap(&mut world);
    let sent = send(&mut world, 0, "bob", "the usual place, Grüße").unwrap();
    assert_eq!((sent.state, sent.sealed), (MessageState::Delivered, true));
    let got = shown(&world, 1);
    assert_eq!(got.len(), 1);
    let got = &got[0];
    assert_eq!((got.text.as_str(), got.from.as_str()), ("the usual place, Grüße", "sip:alice@chordial"));
    assert!(got.sealed && !got.verified.is_empty() && got.id == sent.id);
    // Inside the links, where a peer on the way would read, are the names and not the text.
    assert!(contains(&seen, "MESSAGE sip:bob@") && contains(&seen, SEALED_TYPE));
    assert!(!contains(&seen, "the usual place"));
    assert!(shown(&world, 2).is_empty());
    // The history of both.
    let Ok(Reply::Messages { messages }) = world.ask(1, Command::Messages { unread: true }) else { panic!() };
    assert_eq!(messages.len(), 1);
    let Ok(Reply::Messages { messages }) = world.ask(1, Command::MessageRead { message: None }) else { panic!() };
    assert_eq!(messages[0].state, MessageState::Read);
    assert!(world.ask(1, Command::MessageRead { message: None }).is_err());
    assert!(world.ask(1, Command::MessageDelete { message: messages[0].number }).is_ok());
    assert!(world.ask(1, Command::MessageDelete { message: messages[0].number }).is_err());
    assert_eq!(last_state(&mut world, 0), MessageState::Delivered);
    // The answer was given after the message was kept.
    let log = &world.hosts[1].log;
    let kept = log.iter().position(|l| l == "save Messages").expect("kept");
    let answered = log.iter().rposition(|l| l == "send SIP/2.0 200 OK").expect("answered");
    assert!(kept < answered);
}

#[test]
fn what_cannot_be_sent_is_said() {
    let mut world = World::ring(2, &["alice", "bob"]);
    let e = send(&mut world, 0, "nobody", "hello?").unwrap_err();
    assert!(e.what.contains("404") && e.next.contains("invited"), "{e}");
    let e = send(&mut world, 0, "bob", &"x".repeat(40_000)).unwrap_err();
    assert!(e.what.contains("413"), "{e}");
    assert!(send(&mut world, 0, "bob", "").is_err());
    // Well over a datagram and far below the bound.
    let long = "long ".repeat(4000);
    assert_eq!(send(&mut world, 0, "bob", &long).unwrap().state, MessageState::Delivered);
    assert_eq!(texts(&world, 1), [long]);
    let Ok(Reply::Messages { messages }) = world.ask(1, Command::Messages { unread: false }) else { panic!() };
    assert_eq!(messages[0].text.chars().count(), 201, "a list is short");
}

#[test]
fn several_claim_the_name() {
    let mut world = World::ring(3, &["alice", "bob", "bob"]);
    let e = send(&mut world, 0, "bob", "which one?").unwrap_err();
    assert!(e.what.contains("bob~"), "{e}");
    let claim = world.hosts[2].identity.as_ref().unwrap().chain.user_key().unwrap().to_string();
    send(&mut world, 0, &format!("bob~{claim}"), "you").unwrap();
    assert_eq!(texts(&world, 2), ["you"]);
    assert!(shown(&world, 1).is_empty());
}

/// alice, bob; a raw phone `desk` with an account at bob's peer, registered.
fn with_phone(seed: u64, tcp: bool) -> (World, Way) {
    let mut world = World::new(seed);
    for user in ["alice", "bob"] {
        // Plain callers from outside included.
        world.peer(user, |config| config.user.strangers = chordial::config::Strangers::Anyone);
    }
    world.run(seconds(15));
    let add = Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() };
    world.ask(1, add).unwrap();
    world.raw();
    let to = world.hosts[1].sip;
    let way = if tcp { Way::Stream(world.dial(0, Transport::Tcp, to)) } else { Way::Udp(to) };
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
    world.run(seconds(3));
    (world, way)
}

/// The phone's MESSAGE with its credentials; the final answer.
fn phone_says(world: &mut World, way: Way, to: &str, content_type: &str, body: &[u8]) -> Message {
    let mut talk = Talk::new(world, 0, way, to, "sip:desk@chordial", to);
    let mut message = talk.request(world, Method::Message);
    message.set_body(content_type, body.to_vec());
    let challenge = talk.ask(world, &message);
    assert_eq!(challenge.status(), 407, "{}", challenge.reason());
    let mut message = talk.request(world, Method::Message);
    message.set_body(content_type, body.to_vec());
    authorize(&mut message, &challenge, "desk", "secret");
    talk.ask(world, &message)
}

#[test]
fn a_phone_writes_to_a_user_and_is_written_to() {
    for (seed, tcp) in [(4, false), (5, true)] {
        let (mut world, way) = with_phone(seed, tcp);
        let seen = tap(&mut world);
        let ok = phone_says(&mut world, way, "sip:alice@chordial", "text/plain", b"from the desk");
        assert_eq!(ok.status(), 200, "{}", ok.reason());
        let got = &shown(&world, 0)[0];
        assert_eq!((got.from.as_str(), got.text.as_str(), got.sealed), ("sip:desk@chordial", "from the desk", true));
        assert!(tcp || !contains(&seen, "from the desk"), "sealed between the peers");

        let request = world.command(0, Command::Message { target: "desk".into(), text: "to the desk".into() });
        let message = world.until_request(0, Method::Message, 1);
        assert_eq!(message.message.body(), b"to the desk");
        assert!(message.message.content_is("text/plain") && message.message.header("Date").is_some());
        assert_eq!(message.message.from().unwrap().uri.to_string(), "sip:alice@chordial");
        respond(&mut world, 0, &message, 200, "");
        world.until(seconds(5), "the answer", |w| w.hosts[0].replies.contains_key(&request));
        let Some(Ok(Reply::Sent { sent })) = world.hosts[0].replies.remove(&request) else { panic!() };
        assert_eq!(sent.state, MessageState::Delivered);
        assert!(shown(&world, 1).is_empty(), "not for who only carries it");
    }
}

#[test]
fn a_phone_may_say_what_a_phone_may_say() {
    let (mut world, way) = with_phone(6, false);
    let html = phone_says(&mut world, way, "sip:alice@chordial", "text/html", b"<b>hi</b>");
    assert_eq!(html.status(), 415);
    assert!(html.header("Accept").unwrap().contains("text/plain"));
    assert_eq!(phone_says(&mut world, way, "sip:alice@chordial", "text/plain", b"\xff").status(), 400);
    assert_eq!(phone_says(&mut world, way, "sip:nobody@chordial", "text/plain", b"hi").status(), 404);
    // To the peer's own user, and to a plain address by way of the proxy.
    assert_eq!(phone_says(&mut world, way, "sip:bob@chordial", "text/plain", b"hi bob").status(), 200);
    assert_eq!(texts(&world, 1), ["hi bob"]);
    // Without a password, under another's name, required extensions.
    let raw = world.raw();
    // Who is held here, nobody learns.
    for (from, status) in [("sip:desk@chordial", 407), ("sip:alice@chordial", 407)] {
        let mut talk = Talk::new(&world, raw, way, "sip:bob@chordial", from, "sip:bob@chordial");
        let mut message = talk.request(&world, Method::Message);
        message.set_body("text/plain", b"psst".to_vec());
        assert_eq!(talk.ask(&mut world, &message).status(), status);
    }
    let mut talk = Talk::new(&world, raw, way, "sip:bob@chordial", "sip:joe@elsewhere.example", "sip:bob@chordial");
    let mut message = talk.request(&world, Method::Message);
    message.push("Require", "nothingSeen");
    message.set_body("text/plain", b"psst".to_vec());
    assert_eq!(talk.ask(&mut world, &message).status(), 420);
    // A stranger's is shown as one.
    let mut message = talk.request(&world, Method::Message);
    message.set_body("text/plain", b"outside".to_vec());
    assert_eq!(talk.ask(&mut world, &message).status(), 200);
    let got = shown(&world, 1).pop().unwrap();
    assert!(!got.sealed && got.verified.is_empty() && got.from == "sip:joe@elsewhere.example");
    // The same by two ways is merged.
    let mut again = talk.request(&world, Method::Message);
    again.set_body("text/plain", b"twice".to_vec());
    talk.send(&mut world, &again);
    again.replace_first_value("Via", format_args!("SIP/2.0/UDP {};branch=z9hG4bKx;rport", world.raws[raw].addr));
    assert_eq!(talk.ask(&mut world, &again).status(), 482);
}

#[test]
fn what_is_too_long_for_a_datagram_does_not_go_in_one() {
    let (mut world, _) = with_phone(7, false);
    world.raws[0].tcp = false;
    let e = send(&mut world, 0, "desk", &"x".repeat(3000)).unwrap_err();
    assert!(e.what.contains("513") && world.requests(0, &Method::Message).is_empty(), "{e}");
    world.raws[0].tcp = true;
    let request = world.command(0, Command::Message { target: "desk".into(), text: "x".repeat(3000) });
    let message = world.until_request(0, Method::Message, 1);
    assert!(message.conn.is_some());
    respond(&mut world, 0, &message, 200, "");
    world.until(seconds(5), "the answer", |w| w.hosts[0].replies.contains_key(&request));
}

#[test]
fn a_phone_that_is_away_gets_it_at_its_next_registration_and_once() {
    let (mut world, way) = with_phone(8, false);
    // Registered and dead: its adapter keeps the message after a while.
    let sent = send(&mut world, 0, "desk", "one").unwrap();
    assert_eq!(sent.state, MessageState::Waits);
    // Registered no more: the adapter is still known.
    world.run(seconds(90));
    assert_eq!(send(&mut world, 0, "desk", "two").unwrap().state, MessageState::Waits);
    // The adapter dies and comes back.
    world.kill(1);
    world.run(seconds(5));
    world.restart(1, &[0], 0);
    world.run(seconds(10));
    let add = Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() };
    world.ask(1, add).unwrap();
    world.raws[0].inbox.clear();
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
    for text in ["one", "two"] {
        let message = world.until_request(0, Method::Message, 1);
        assert_eq!(message.message.body(), text.as_bytes());
        world.raws[0].inbox.clear();
        respond(&mut world, 0, &message, 200, "");
    }
    world.run(seconds(5));
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
    world.run(seconds(60));
    assert!(world.requests(0, &Method::Message).is_empty(), "once");
    // The sender hears of it by the adapter's entry.
    world.run(seconds(400));
    assert_eq!(last_state(&mut world, 0), MessageState::Delivered);
}

/// A raw end on a link of bob's peer that proves to be `who`.
fn on_link(world: &mut World, who: &Identity) -> (usize, Way) {
    let raw = world.raw();
    world.raws[raw].proof = Some(Arc::new(who.verified(START).unwrap()));
    let to = world.hosts[1].overlay;
    (raw, Way::Stream(world.dial(raw, Transport::Tls, to)))
}

fn letter(world: &mut World, from: &str, text: &str) -> Letter {
    let sent_ms = (START.secs() + world.now.since(Instant::ZERO).as_secs()) * 1000;
    let (from, to) = (format!("sip:{from}@chordial"), "sip:bob@chordial".to_owned());
    Letter { id: LetterId::generate(&mut world.rng), from, to, sent_ms, text: text.into() }
}

/// A sealed MESSAGE to bob over a link; its answer.
fn sealed_says(world: &mut World, (raw, way): (usize, Way), from: &str, sealed: Vec<u8>) -> u16 {
    let uri = format!("sip:bob@{}", world.hosts[1].overlay);
    let mut talk = Talk::new(world, raw, way, &uri, &format!("sip:{from}@chordial"), "sip:bob@chordial");
    let mut message = talk.request(world, Method::Message);
    message.set_body(SEALED_TYPE, sealed);
    talk.ask(world, &message).status()
}

#[test]
fn nobody_forges_repeats_or_redirects_a_sealed_message() {
    let mut world = World::ring(9, &["alice", "bob"]);
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let bob = world.hosts[1].identity.clone().unwrap();
    let alice = world.hosts[0].identity.clone().unwrap();
    let link = on_link(&mut world, &mallory);
    let to = [bob.device_key()];
    let mut rng = world.rng.fork();
    let mut sealed = |letter: &Letter, by: &Identity, to: &[_]| {
        let signed = SignedLetter::sign(letter.clone(), by).unwrap();
        seal("message", to, &signed.encode(), &mut rng).unwrap()
    };
    let own = letter(&mut world, "mallory", "hello");
    let good = sealed(&own, &mallory, &to);
    assert_eq!(sealed_says(&mut world, link, "mallory", good.clone()), 200);
    assert_eq!(texts(&world, 1), ["hello"]);
    // Again: answered alike, shown once.
    world.run(seconds(1));
    assert_eq!(sealed_says(&mut world, link, "mallory", good.clone()), 200);
    // As alice: the link does not speak for her; and what she wrote is not mallory's to send on.
    let hers = letter(&mut world, "alice", "hers");
    let of_alice = sealed(&hers, &alice, &to);
    assert_eq!(sealed_says(&mut world, link, "alice", of_alice.clone()), 403);
    assert_eq!(sealed_says(&mut world, link, "mallory", of_alice), 403);
    // To somebody else, too old, too far ahead, damaged, not for this device, no seal at all.
    let wrong = Letter { to: "sip:carol@chordial".into(), ..letter(&mut world, "mallory", "x") };
    assert_eq!(sealed_says(&mut world, link, "mallory", sealed(&wrong, &mallory, &to)), 403);
    for shift in [-9 * 86_400_000, 3_600_000i64] {
        let mut at = letter(&mut world, "mallory", "x");
        at.sent_ms = at.sent_ms.saturating_add_signed(shift);
        assert_eq!(sealed_says(&mut world, link, "mallory", sealed(&at, &mallory, &to)), 403);
    }
    for at in [0, 20, 60, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        assert_eq!(sealed_says(&mut world, link, "mallory", damaged), 493);
    }
    let other = letter(&mut world, "mallory", "x");
    let not_his = sealed(&other, &mallory, &[alice.device_key()]);
    assert_eq!(sealed_says(&mut world, link, "mallory", not_his), 493);
    assert_eq!(sealed_says(&mut world, link, "mallory", b"text".to_vec()), 493);
    assert_eq!(texts(&world, 1), ["hello"], "nothing else was shown");
}

#[test]
fn a_message_over_a_link_names_no_other_sender() {
    let mut world = World::ring(10, &["alice", "bob"]);
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let (raw, way) = on_link(&mut world, &mallory);
    let uri = format!("sip:bob@{}", world.hosts[1].overlay);
    for (from, status) in [("alice", 403), ("nobody", 403), ("mallory", 200)] {
        let mut talk = Talk::new(&world, raw, way, &uri, &format!("sip:{from}@chordial"), "sip:bob@chordial");
        let mut message = talk.request(&world, Method::Message);
        message.set_body("text/plain", b"in clear".to_vec());
        assert_eq!(talk.ask(&mut world, &message).status(), status, "{from}");
    }
    let got = shown(&world, 1);
    assert_eq!((got.len(), got[0].sealed), (1, false));
}

#[test]
fn a_plain_phone_sends_and_takes_messages() {
    let mut world = World::ring(11, &["alice"]);
    world.ask(0, Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() }).unwrap();
    let registrar = world.hosts[0].sip;
    let phone = world.plain("desk", "secret", registrar, |_| {});
    world.until_event(phone, "registered", |e| matches!(e, Event::Registered { .. }));
    let target = format!("sip:alice@{registrar}");
    let sent = send(&mut world, phone, &target, "by digest").unwrap();
    assert_eq!((sent.state, sent.sealed), (MessageState::Delivered, false));
    assert_eq!(texts(&world, 0), ["by digest"]);
    assert_eq!(shown(&world, 0)[0].from, "sip:desk@chordial");
    assert_eq!(send(&mut world, 0, "desk", "and back").unwrap().state, MessageState::Delivered);
    assert_eq!(texts(&world, phone), ["and back"]);
    // A plain address.
    let raw = world.raw();
    let addr = world.raws[raw].addr;
    let request = world.command(0, Command::Message { target: format!("sip:joe@{addr}"), text: "hi joe".into() });
    let message = world.until_request(raw, Method::Message, 1);
    let _ = way_back(&message);
    respond(&mut world, raw, &message, 202, "");
    world.until(seconds(5), "the answer", |w| w.hosts[0].replies.contains_key(&request));
    assert_eq!(last_state(&mut world, 0), MessageState::Waits);
}
