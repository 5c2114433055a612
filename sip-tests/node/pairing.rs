//! Joining by six digits over the wire: the right ones, wrong ones, too many of them, and somebody who sits between.

use crate::login::office;
use crate::raw::{Talk, Way};
use crate::security::redeem;
use crate::world::{START, World};
use chordial::core::{Rng, Transport};
use chordial::identity::{
    InviteCode, JoinAnswer, Joining, KeyPair, PAIRING_TYPE, PairingAnswer, PairingJoiner, PairingRequest, PublicKey,
    ShortCode,
};
use chordial::node::control::{Command, Event, Reply};
use chordial::sip::msg::{Message, Method};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The digits that the founder's node shows for `user`.
fn invite(world: &mut World, user: &str) -> ShortCode {
    match world.ask(0, Command::Pair { user: user.into() }) {
        Ok(Reply::Pairing { digits, expires }) => {
            assert_eq!(expires, 600);
            ShortCode::parse(&digits).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Other digits than these.
fn wrong(code: &ShortCode) -> ShortCode {
    let other = ["000000", "111111"].map(|d| ShortCode::parse(d).unwrap());
    other.into_iter().find(|o| o != code).unwrap()
}

fn ask(world: &mut World, host: usize, body: Vec<u8>) -> Message {
    let raw = world.raw();
    let to = world.hosts[host].overlay;
    let way = Way::Stream(world.dial(raw, Transport::Tls, to));
    let to = format!("sip:{to}");
    let mut talk = Talk::new(world, raw, way, &to, "sip:new@invalid", &to);
    let mut message = talk.request(world, Method::Register);
    message.set_body(PAIRING_TYPE, body);
    talk.ask(world, &message)
}

fn key_of(world: &World, host: usize) -> PublicKey {
    world.hosts[host].verified.as_ref().unwrap().device
}

/// A joiner's first half: what comes back, and the joiner.
fn hello(world: &mut World, code: &ShortCode, seen: PublicKey) -> (PairingJoiner, PairingAnswer) {
    let own = KeyPair::generate(&mut Rng::from_seed(9)).public();
    let joiner = PairingJoiner::new(code, own, seen, &mut world.rng);
    let reply = ask(world, 0, joiner.hello().encode());
    assert_eq!(reply.status(), 200);
    (joiner, PairingAnswer::decode(reply.body()).unwrap())
}

/// All of it: the long code, or the status that refused it.
fn pair(world: &mut World, code: &ShortCode, seen: PublicKey) -> Result<InviteCode, u16> {
    let (joiner, answer) = hello(world, code, seen);
    let (proof, key) = joiner.prove(&answer).unwrap();
    let PairingRequest::Proof { session, .. } = proof else { panic!("a proof") };
    let reply = ask(world, 0, proof.encode());
    if reply.status() != 200 {
        return Err(reply.status());
    }
    Ok(key.open(&session, &PairingAnswer::decode(reply.body()).unwrap()).expect("sealed by the same key"))
}

fn paired(world: &World, right: bool) -> usize {
    world.hosts[0].events.iter().filter(|(_, e)| matches!(e, Event::Paired { right: r, .. } if *r == right)).count()
}

#[test]
fn six_digits_bring_the_long_code_and_that_enrols() {
    let mut world = office(61, &["anna", "ben"]);
    let code = invite(&mut world, "cora");
    let inviter = key_of(&world, 0);
    let long = pair(&mut world, &code, inviter).expect("right");
    assert_eq!(paired(&world, true), 1);
    let joining = Joining::new(long, "tablet", &mut world.rng).unwrap();
    let ok = redeem(&mut world, &joining.request());
    assert_eq!(ok.status(), 200);
    let cora = joining.finish(&JoinAnswer::decode(ok.body()).unwrap(), START).unwrap();
    assert_eq!((cora.user(), cora.has_place()), ("cora", true));
    // The digits are spent, and nobody else shows any.
    let again = PairingJoiner::new(&code, inviter, inviter, &mut world.rng).hello();
    assert_eq!(ask(&mut world, 0, again.encode()).status(), 404);
    assert_eq!(ask(&mut world, 1, again.encode()).status(), 404);
    assert!(world.ask(1, Command::Pair { user: "dan".into() }).is_err(), "ben is no administrator");
}

#[test]
fn three_wrong_codes_make_the_invite_void() {
    let mut world = office(62, &["anna"]);
    let code = invite(&mut world, "cora");
    let (inviter, other) = (key_of(&world, 0), wrong(&code));
    for _ in 0..3 {
        assert_eq!(pair(&mut world, &other, inviter), Err(403));
    }
    assert_eq!((paired(&world, false), paired(&world, true)), (1, 0));
    let late = PairingJoiner::new(&code, inviter, inviter, &mut world.rng).hello();
    assert_eq!(ask(&mut world, 0, late.encode()).status(), 404, "the right digits come too late");
    // The name is free for a new invite, whose digits work after two wrong ones.
    let code = invite(&mut world, "cora");
    let other = wrong(&code);
    assert_eq!(pair(&mut world, &other, inviter), Err(403));
    assert_eq!(pair(&mut world, &other, inviter), Err(403));
    assert!(pair(&mut world, &code, inviter).is_ok());
}

#[test]
fn one_proof_for_each_exchange_and_halves_cost_nothing() {
    let mut world = office(63, &["anna"]);
    let code = invite(&mut world, "cora");
    let (inviter, other) = (key_of(&world, 0), wrong(&code));
    // Any number of first messages; many of them push older ones out.
    for _ in 0..20 {
        hello(&mut world, &other, inviter);
    }
    let (joiner, answer) = hello(&mut world, &other, inviter);
    let (proof, _) = joiner.prove(&answer).unwrap();
    assert_eq!(ask(&mut world, 0, proof.encode()).status(), 403);
    let tries = world.hosts[0].counter(world.now, "pairings refused");
    assert_eq!(ask(&mut world, 0, proof.encode()).status(), 403, "the exchange is over");
    assert_eq!(world.hosts[0].counter(world.now, "pairings refused"), tries + 1);
    for _ in 0..10 {
        // No exchange of that name: no guess, and no try spent.
        let nothing = PairingRequest::Proof { session: [7; 16], proof: [0; 32] };
        assert_eq!(ask(&mut world, 0, nothing.encode()).status(), 403);
    }
    assert_eq!(ask(&mut world, 0, b"nonsense".to_vec()).status(), 400);
    assert!(pair(&mut world, &code, inviter).is_ok());
}

/// He has a link to the joiner on which his own key is proven, and passes every message on to the inviter.
#[test]
fn who_relays_between_two_links_gets_nothing_although_the_digits_are_right() {
    let mut world = office(64, &["anna"]);
    let code = invite(&mut world, "cora");
    let between = KeyPair::generate(&mut Rng::from_seed(64)).public();
    assert_eq!(pair(&mut world, &code, between), Err(403));
    assert_eq!(paired(&world, true), 0);
    // Without him it works.
    let inviter = key_of(&world, 0);
    assert!(pair(&mut world, &code, inviter).is_ok());
}

#[test]
fn digits_run_out() {
    let mut world = office(65, &["anna"]);
    let code = invite(&mut world, "cora");
    world.run(seconds(601));
    let inviter = key_of(&world, 0);
    let late = PairingJoiner::new(&code, inviter, inviter, &mut world.rng).hello();
    assert_eq!(ask(&mut world, 0, late.encode()).status(), 404);
    // A second pairing ends the first.
    let first = invite(&mut world, "cora");
    let second = invite(&mut world, "dan");
    if first != second {
        assert_eq!(pair(&mut world, &first, inviter), Err(403));
    }
    assert!(pair(&mut world, &second, inviter).is_ok());
}
