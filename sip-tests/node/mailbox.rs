//! Messages for who is absent: they wait sealed in the overlay, and each device gets each of them once.

use crate::messages::{contains, last_state, seconds, send, shown, tap, texts};
use crate::raw::{Talk, Way, register, respond};
use crate::world::{START, World};
use chordial::core::{Id, Instant, Transport, UnixTime};
use chordial::identity::{
    Certificate, Chain, Claims, Entry, EntryKind, Identity, KeyPair, Letter, LetterId, SignedEntry, SignedLetter,
    Waiting, WaitingBody, resource_key, seal,
};
use chordial::node::Input;
use chordial::node::control::{Command, Event, MessageState, Reply};
use chordial::overlay::carry::Carry;
use chordial::overlay::{PeerRef, Request, Route};
use chordial::sip::msg::Method;
use std::sync::Arc;

/// A host is in the ring again and has read its mailbox.
fn back(world: &mut World, host: usize) {
    world.restart(host, &[0], 0);
    world.run(seconds(20));
}

#[test]
fn who_was_absent_gets_it_once_and_the_sender_hears_of_it() {
    let mut world = World::ring(1, &["alice", "bob", "carol", "dave"]);
    world.kill(1);
    world.run(seconds(10));
    let seen = tap(&mut world);
    let sent = send(&mut world, 0, "bob", "while you were out").unwrap();
    assert_eq!((sent.state, sent.sealed), (MessageState::Waits, true));
    world.run(seconds(60));
    assert!(!contains(&seen, "while you were out"), "holders hold what they cannot read");
    back(&mut world, 1);
    assert_eq!(texts(&world, 1), ["while you were out"]);
    assert!(shown(&world, 1)[0].sealed && shown(&world, 1)[0].from == "sip:alice@chordial");
    world.run(seconds(300));
    assert_eq!(texts(&world, 1).len(), 1, "once");
    assert_eq!(last_state(&mut world, 0), MessageState::Delivered);
    assert!(world.hosts[0].events.iter().any(|(_, e)| matches!(e, Event::MessageState { .. })));
    // After a restart it is in the history and not shown again; nothing waits any more.
    world.kill(1);
    world.run(seconds(5));
    back(&mut world, 1);
    assert!(shown(&world, 1).is_empty());
    let Ok(Reply::Messages { messages }) = world.ask(1, Command::Messages { unread: true }) else { panic!() };
    assert_eq!(messages.len(), 1);
    // The next one goes directly.
    assert_eq!(send(&mut world, 0, "bob", "welcome back").unwrap().state, MessageState::Delivered);
}

#[test]
fn a_long_message_and_many_wait_too() {
    let mut world = World::ring(2, &["alice", "bob", "carol", "dave", "erin"]);
    world.kill(1);
    world.run(seconds(10));
    let long = "a long story, ".repeat(2000);
    assert_eq!(send(&mut world, 0, "bob", &long).unwrap().state, MessageState::Waits);
    for n in 0..10 {
        assert_eq!(send(&mut world, 2, "bob", &format!("carol {n}")).unwrap().state, MessageState::Waits);
        assert_eq!(send(&mut world, 3, "bob", &format!("dave {n}")).unwrap().state, MessageState::Waits);
    }
    back(&mut world, 1);
    let mut got = texts(&world, 1);
    assert_eq!(got.len(), 21, "{got:?}");
    assert!(got.contains(&long));
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 21);
}

#[test]
fn who_left_it_may_be_gone_and_holders_may_die() {
    let mut world = World::ring(3, &["alice", "bob", "carol", "dave", "erin", "frank", "grace"]);
    world.kill(1);
    world.run(seconds(10));
    assert_eq!(send(&mut world, 2, "bob", "from carol, who leaves").unwrap().state, MessageState::Waits);
    world.kill(2);
    world.run(seconds(30));
    world.kill(4);
    world.run(seconds(60));
    back(&mut world, 1);
    assert_eq!(texts(&world, 1), ["from carol, who leaves"]);
    // Carol comes back, still knows that it waited, and hears that it does not any more.
    world.restart(2, &[0], 0);
    world.run(seconds(120));
    assert_eq!(last_state(&mut world, 2), MessageState::Delivered);
}

/// Another device of an open overlay's user.
fn second_device(world: &mut World, first: &Identity) -> Identity {
    let mut second = first.clone();
    second.device = KeyPair::generate(&mut world.rng);
    let user = first.user_key.as_ref().unwrap();
    let label = Claims::Device("laptop".into());
    let about = Certificate::issue(user, second.device.public(), first.overlay(), label, START).unwrap();
    second.chain = Chain::new(vec![first.chain.certificates()[0].clone(), about]);
    Identity::from_bytes(second.to_bytes().reveal(), START).unwrap()
}

#[test]
fn each_of_a_users_devices_gets_it_once() {
    let mut world = World::ring(4, &["alice", "bob", "carol"]);
    let first = world.hosts[1].identity.clone().unwrap();
    let laptop = second_device(&mut world, &first);
    let laptop = world.member(laptop, |_| {});
    world.run(seconds(15));
    send(&mut world, 0, "bob", "both there").unwrap();
    assert_eq!((texts(&world, 1).len(), texts(&world, laptop).len()), (1, 1));
    // One is away: the other has it at once, the first when it is back.
    world.kill(laptop);
    world.run(seconds(10));
    assert_eq!(send(&mut world, 0, "bob", "one away").unwrap().state, MessageState::Delivered);
    assert_eq!(texts(&world, 1).last().unwrap(), "one away");
    world.run(seconds(20));
    // Both away.
    world.kill(1);
    world.run(seconds(10));
    assert_eq!(send(&mut world, 0, "bob", "both away").unwrap().state, MessageState::Waits);
    back(&mut world, laptop);
    let mut got = texts(&world, laptop);
    got.sort();
    assert_eq!(got, ["both away", "one away"]);
    world.run(seconds(120));
    back(&mut world, 1);
    assert_eq!(texts(&world, 1), ["both away"], "also after the other device had it");
    world.run(seconds(700));
    assert_eq!((texts(&world, 1).len(), texts(&world, laptop).len()), (1, 2));
    // To oneself: the other device gets it.
    send(&mut world, 1, "bob", "note to self").unwrap();
    assert_eq!(texts(&world, laptop).last().unwrap(), "note to self");
}

#[test]
fn who_fills_the_mailbox_keeps_nobody_out() {
    let mut world = World::ring(5, &["alice", "bob", "mallory", "carol"]);
    world.kill(1);
    world.run(seconds(10));
    let mut refused = 0;
    for n in 0..50 {
        refused += u32::from(send(&mut world, 2, "bob", &format!("spam {n}")).is_err());
    }
    assert_eq!(refused, 50 - 32, "a bound for each device and address");
    assert_eq!(send(&mut world, 0, "bob", "important").unwrap().state, MessageState::Waits);
    back(&mut world, 1);
    world.run(seconds(300));
    let got = texts(&world, 1);
    assert!(got.contains(&"important".to_owned()) && got.len() == 33, "{got:?}");
    // Taken back, there is room again.
    world.kill(1);
    world.run(seconds(400));
    assert_eq!(send(&mut world, 2, "bob", "once more").unwrap().state, MessageState::Waits);
}

#[test]
fn a_message_that_nobody_fetches_ends() {
    let mut world = World::ring(6, &["alice", "bob", "carol"]);
    world.kill(1);
    world.run(seconds(10));
    send(&mut world, 0, "bob", "too late").unwrap();
    // A week and a day, by the wall clocks.
    let later = UnixTime(START.secs() + 8 * 86_400);
    for host in [0, 2] {
        world.hand(host, Input::Clock { unix: later });
    }
    world.run(seconds(700));
    assert_eq!(last_state(&mut world, 0), MessageState::Expired);
    world.restart(1, &[0], 8 * 86_400);
    world.run(seconds(200));
    assert!(shown(&world, 1).is_empty());
}

#[test]
fn a_phone_whose_adapter_is_away_gets_it_too() {
    let mut world = World::ring(7, &["alice", "bob", "carol"]);
    let add = || Command::PhoneAdd { user: "desk".into(), label: String::new(), password: "secret".into() };
    world.ask(1, add()).unwrap();
    world.raw();
    world.run(seconds(5));
    world.kill(1);
    world.run(seconds(10));
    assert_eq!(send(&mut world, 0, "desk", "for the desk").unwrap().state, MessageState::Waits);
    back(&mut world, 1);
    world.ask(1, add()).unwrap();
    world.run(seconds(20));
    assert!(shown(&world, 1).is_empty());
    let way = Way::Udp(world.hosts[1].sip);
    assert_eq!(register(&mut world, 0, way, "sip:desk@chordial", "secret", 60).status(), 200);
    let message = world.until_request(0, Method::Message, 1);
    assert_eq!(message.message.body(), b"for the desk");
    respond(&mut world, 0, &message, 200, "");
    world.run(seconds(200));
    assert_eq!(world.requests(0, &Method::Message).len(), 1);
    assert_eq!(last_state(&mut world, 0), MessageState::Delivered);
}

/// Stores an entry at a host, as a hostile member can at any.
fn store(world: &mut World, (raw, way): (usize, Way), me: PeerRef, host: usize, entry: SignedEntry) -> u16 {
    let carry = Carry::new("chordial", me, 600);
    let key: Id = resource_key(&entry.entry().aor);
    let request = Request::Store { key, replica: 0, entries: vec![entry], route: Route::Here };
    let to = world.hosts[host].overlay;
    let mut rng = world.rng.fork();
    let mut message = carry.encode_request(&request, to, &mut rng);
    let (addr, n) = (world.raws[raw].addr, world.rng.next_u64());
    message.push_front("Via", format_args!("SIP/2.0/TLS {addr};branch=z9hG4bKst{n};rport"));
    let talk = Talk::new(world, raw, way, "sip:a@b", "sip:a@b", "sip:a@b");
    talk.send(world, &message);
    talk.finally(world, &message).status()
}

#[test]
fn nobody_leaves_a_message_under_anothers_name() {
    let mut world = World::ring(8, &["alice", "bob"]);
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let alice = world.hosts[0].identity.clone().unwrap();
    let bob = world.hosts[1].identity.clone().unwrap();
    let links: Vec<_> = (0..2)
        .map(|host| {
            let raw = world.raw();
            world.raws[raw].proof = Some(Arc::new(mallory.verified(START).unwrap()));
            let to = world.hosts[host].overlay;
            (raw, Way::Stream(world.dial(raw, Transport::Tls, to)))
        })
        .collect();
    let mut sequence = 1_900_000_000_000;
    let mut leave = |world: &mut World, by: &Identity, text: &str, spoil: bool| {
        let unix = UnixTime(START.secs() + world.now.since(Instant::ZERO).as_secs());
        let id = LetterId::generate(&mut world.rng);
        let (from, to) = (by.aor(), "sip:bob@chordial".to_owned());
        let letter = Letter { id, from, to, sent_ms: unix.secs() * 1000, text: text.into() };
        let signed = SignedLetter::sign(letter, by).unwrap().encode();
        let mut sealed = seal("message", &[bob.device_key()], &signed, &mut world.rng).unwrap();
        let hash = *blake3::hash(&sealed).as_bytes();
        if spoil {
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
        }
        let waiting = Waiting { id, pieces: 1, hash };
        sequence += 1;
        let entry = |kind, aor: String, body: Vec<u8>| {
            let device = mallory.device_key();
            let entry = Entry { kind, aor, device, sequence, issued: unix, lifetime: 3600, body };
            mallory.sign_entry(entry).unwrap()
        };
        let piece = entry(EntryKind::PIECE, waiting.address(0, "chordial"), sealed);
        let body = WaitingBody { messages: vec![waiting] }.encode();
        let note = entry(EntryKind::WAITING, "sip:bob@chordial".into(), body);
        for (host, link) in links.iter().enumerate() {
            let me = PeerRef { id: mallory.peer_id(), addr: world.raws[link.0].addr };
            for entry in [&piece, &note] {
                assert_eq!(store(world, *link, me, host, entry.clone()), 200);
            }
        }
        world.run(seconds(150));
    };
    // What alice wrote, left again by mallory; then a damaged one; then mallory's own.
    leave(&mut world, &alice, "an old one of alice's", false);
    leave(&mut world, &mallory, "damaged", true);
    assert!(shown(&world, 1).is_empty());
    let refused = |w: &World| w.hosts[1].counter(w.now, "messages that do not open or whose sender is false");
    assert!(refused(&world) >= 2);
    leave(&mut world, &mallory, "mallory's own", false);
    assert_eq!(texts(&world, 1), ["mallory's own"]);
    assert_eq!(shown(&world, 1)[0].from, "sip:mallory@chordial");
    // Under bob's address anybody may leave messages, and nobody else's device is made by that.
    let body = bob.aor().into_bytes();
    let entry = Entry {
        kind: EntryKind::DEVICE,
        aor: bob.aor(),
        device: mallory.device_key(),
        sequence: 1,
        issued: START,
        lifetime: 3600,
        body,
    };
    assert!(mallory.sign_entry(entry).is_err());
}

#[test]
fn who_may_leave_messages_may_not_speak_for_the_address() {
    let mut world = World::ring(9, &["alice", "bob", "mallory"]);
    // Mallory's device has an entry under bob's address now.
    world.kill(1);
    world.run(seconds(10));
    send(&mut world, 2, "bob", "a foot in the door").unwrap();
    let mallory = world.hosts[2].identity.clone().unwrap();
    let raw = world.raw();
    world.raws[raw].proof = Some(Arc::new(mallory.verified(START).unwrap()));
    let to = world.hosts[0].overlay;
    let way = Way::Stream(world.dial(raw, Transport::Tls, to));
    let uri = format!("sip:alice@{to}");
    let mut talk = Talk::new(&world, raw, way, &uri, "sip:bob@chordial", "sip:alice@chordial");
    let mut message = talk.request(&world, Method::Message);
    message.set_body("text/plain", b"I am bob".to_vec());
    assert_eq!(talk.ask(&mut world, &message).status(), 403);
    assert!(shown(&world, 0).is_empty());
}
