//! A standard phone with two adapters: the death of one leaves it able to register with the other, to call and be called; nobody else
//! ever sees its secret; what was given is taken back.

use crate::people::{invited, key, office, unix, wait};
use crate::raw::{Talk, Way, authorize, register, respond, sdp};
use crate::world::World;
use chordial::core::Transport;
use chordial::node::Saved;
use chordial::node::control::{Command, Reply};
use chordial::sip::auth::Ha1;
use chordial::sip::msg::Method;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const PHONE: &str = "sip:lobby@office.example";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn share(member: &str) -> Command {
    Command::PhoneShare { user: "lobby".into(), member: member.into() }
}

/// anna administers, ben and carl are members; the phone `lobby` is anna's, and ben's too. The flag says whether its secret was seen in clear.
fn shared(seed: u64) -> (World, Rc<Cell<bool>>) {
    let (mut world, _) = office(seed, &["ben", "carl"]);
    let (seen, secret) = (Rc::new(Cell::new(false)), Ha1::new("lobby", "office.example", "secret"));
    let watch = seen.clone();
    world.swallow = Box::new(move |bytes| {
        let clear = bytes.windows(16).any(|w| w == secret.md5) || bytes.windows(32).any(|w| w == secret.sha256);
        watch.set(watch.get() || clear);
        false
    });
    let add = Command::PhoneAdd { user: "lobby".into(), label: String::new(), password: "secret".into() };
    assert!(wait(&mut world, 0, share("ben")).is_err(), "there is no account yet");
    wait(&mut world, 0, add).unwrap();
    assert!(wait(&mut world, 1, share("carl")).is_err(), "ben is no administrator");
    assert!(wait(&mut world, 0, share("nobody")).is_err());
    wait(&mut world, 0, share("ben")).unwrap();
    world.raw();
    world.run(seconds(5));
    (world, seen)
}

fn registers(world: &mut World, host: usize) -> u16 {
    let way = Way::Udp(world.hosts[host].sip);
    register(world, 0, way, PHONE, "secret", 300).status()
}

fn knows(world: &World, host: usize) -> bool {
    let file = world.hosts[host].files.iter().find(|(what, _)| *what == Saved::Phones);
    file.is_some_and(|(_, bytes)| bytes.windows(5).any(|w| w == b"lobby"))
}

/// The phone is called by a user and hangs up.
fn is_called(world: &mut World, by: usize) {
    let before = world.requests(0, &Method::Invite).len();
    let request = world.call(by, "lobby");
    let invite = world.until_request(0, Method::Invite, before + 1);
    let ok = respond(world, 0, &invite, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    world.run(seconds(2));
    let mut talk = Talk::callee(world, 0, crate::raw::way_back(&invite), &invite.message, &ok);
    assert_eq!(talk.bye(world), 200);
    assert_eq!(world.report(by, request, seconds(5)).0.result, "completed");
}

#[test]
fn a_phone_goes_on_at_its_second_adapter_when_the_first_dies() {
    let (mut world, seen) = shared(51);
    assert_eq!(registers(&mut world, 0), 200);
    world.run(seconds(3));
    is_called(&mut world, 2);
    let Ok(Reply::Phones { phones }) = world.ask(0, Command::PhoneList) else { panic!() };
    assert_eq!(phones[0].also, [format!("ben/{}", key(&world, 1))]);
    assert!(knows(&world, 1) && !knows(&world, 2));

    world.kill(0);
    assert_eq!(registers(&mut world, 1), 200);
    world.run(seconds(20));
    is_called(&mut world, 2);
    // And calls, by its second adapter's word.
    let way = Way::Stream(world.dial(0, Transport::Tcp, world.hosts[1].sip));
    let mut talk = Talk::new(&world, 0, way, "sip:carl@office.example", PHONE, "sip:carl@office.example");
    let invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    let challenge = talk.ask(&mut world, &invite);
    assert_eq!(challenge.status(), 407);
    let mut invite = talk.invite(&world, &sdp("10.9.0.1:7000", "sendrecv"));
    authorize(&mut invite, &challenge, "lobby", "secret");
    talk.send(&mut world, &invite);
    world.until_ringing_at(2);
    assert!(!seen.get(), "the secret went over a link in clear");
}

#[test]
fn what_was_shared_is_taken_back_and_a_new_password_is_told() {
    let (mut world, _) = shared(52);
    let add =
        |password: &str| Command::PhoneAdd { user: "lobby".into(), label: String::new(), password: password.into() };
    // A new password, while ben's device cannot be told for a while.
    world.swallow = Box::new(|bytes| bytes.windows(14).any(|w| w == b"chordial-phone"));
    wait(&mut world, 0, add("another")).unwrap();
    world.run(seconds(30));
    assert_eq!(registers(&mut world, 1), 200, "ben's still has the old one");
    world.swallow = Box::new(|_| false);
    world.run(seconds(150));
    assert_ne!(registers(&mut world, 1), 200);
    wait(&mut world, 0, add("secret")).unwrap();
    world.run(seconds(5));
    assert_eq!(registers(&mut world, 1), 200);
    // Nobody but an enroller says such things: not even by repeating what one said.
    world.ask(0, Command::PhoneRemove { user: "lobby".into() }).unwrap();
    world.run(seconds(5));
    assert!(!knows(&world, 1));
    assert_ne!(registers(&mut world, 1), 200);
    let now = unix(&world);
    assert!(world.hosts[1].node.status(world.now).registrations.iter().all(|r| !r.aor.contains("lobby")));
    let kept = world.hosts[1].files.iter().find(|(what, _)| *what == Saved::Identity).unwrap().1.clone();
    let ben = chordial::identity::Identity::from_bytes(&kept, now).unwrap();
    assert!(ben.phone_identity("lobby", now).is_err());
}

#[test]
fn three_adapters_are_the_most() {
    let (mut world, _) = shared(53);
    wait(&mut world, 0, share("carl")).unwrap();
    let dora = invited(&mut world, "dora");
    world.member(dora, |_| {});
    world.run(seconds(15));
    let error = wait(&mut world, 0, share("dora")).unwrap_err();
    assert!(error.what.contains("3 adapters"), "{error}");
    world.ask(0, Command::PhoneUnshare { user: "lobby".into(), device: "carl".into() }).unwrap();
    world.run(seconds(5));
    assert!(!knows(&world, 2) && knows(&world, 1));
    wait(&mut world, 0, share("dora")).unwrap();
}

#[test]
fn a_phone_that_registers_with_both_is_called_by_both_and_answers_once() {
    let (mut world, _) = shared(54);
    assert_eq!((registers(&mut world, 0), registers(&mut world, 1)), (200, 200));
    world.run(seconds(5));
    let request = world.call(2, "lobby");
    let first = world.until_request(0, Method::Invite, 1);
    let ok = respond(&mut world, 0, &first, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    // The other adapter's is merged with it (RFC 3261 section 8.2.2.2), or taken back before it comes.
    world.run(seconds(1));
    let invites = world.requests(0, &Method::Invite);
    if let Some(second) = invites.get(1).cloned() {
        respond(&mut world, 0, &second, 482, "");
    }
    world.run(seconds(5));
    let mut talk = Talk::callee(&world, 0, crate::raw::way_back(&first), &first.message, &ok);
    assert_eq!(talk.bye(&mut world), 200);
    assert_eq!(world.report(2, request, seconds(5)).0.result, "completed");
}
