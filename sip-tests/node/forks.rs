//! One user, several devices: all ring, one answers, the others stop; and two who claim one name.

use crate::world::{START, World};
use chordial::identity::{Certificate, Chain, Claims, Identity, InviteCode, JoinAnswer, Joining, KeyPair};
use chordial::node::control::{Command, Event, Reply};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A second device of the same user, signed by the user's key, at another place on the ring. The first device's file is
/// rewritten with the new key and chain: `[1, device seed, user seed, chain, ..]`.
pub fn second_device(first: &Identity, world: &mut World) -> Identity {
    let bytes = first.to_bytes().reveal().to_vec();
    let (device, user) = (4..36, 38..70);
    let user_key = KeyPair::from_seed(bytes[user.clone()].try_into().unwrap());
    let key = KeyPair::generate(&mut world.rng);
    let claims = Claims::Device("laptop".into());
    let certificate = Certificate::issue(&user_key, key.public(), "chordial", claims, START).unwrap();
    let chain = Chain::new(vec![first.chain.certificates()[0].clone(), certificate]);
    let mut second = bytes.clone();
    second[device].copy_from_slice(&**key.seed().reveal());
    second.splice(user.end..user.end + first.chain.encoded().len(), chain.encoded().iter().copied());
    Identity::from_bytes(&second, START).unwrap()
}

/// alice, and bob with two devices.
fn bobs(seed: u64) -> World {
    let mut world = World::new(seed);
    world.peer("alice", |_| {});
    let bob = Identity::open("chordial", "bob", START, &mut world.rng).unwrap();
    let laptop = second_device(&bob, &mut world);
    world.member(bob, |_| {});
    world.member(laptop, |_| {});
    world.run(seconds(15));
    world
}

#[test]
fn both_devices_ring_one_answers_and_the_other_stops() {
    let mut world = bobs(1);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.until_ringing_at(2);
    world.answer(2);
    world.until_voice(0, 1);
    world.run(seconds(1));
    assert_eq!((world.hosts[1].ended()[0].result.as_str(), world.hosts[1].ended()[0].status), ("no-answer", 487));
    assert!(world.hosts[1].plans().is_empty());
    world.run(seconds(3));
    world.hang_up(0);
    assert_eq!(world.report(0, request, seconds(3)).0.result, "completed");
    world.run(seconds(3));
    assert_eq!(world.hosts[2].ended()[0].result, "completed");
}

#[test]
fn both_answer_at_once_and_one_is_hung_up() {
    let mut world = bobs(2);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.until_ringing_at(2);
    world.answer(1);
    world.answer(2);
    world.run(seconds(3));
    let talking: usize = (1..3).map(|i| world.hosts[i].node.status(world.now).calls.len()).sum();
    assert_eq!(talking, 1);
    assert_eq!(world.hosts[0].plans().len(), 1);
    world.hang_up(0);
    let (report, _) = world.report(0, request, seconds(3));
    assert_eq!(report.result, "completed");
    world.run(seconds(40));
    for i in 1..3 {
        assert!(world.hosts[i].node.status(world.now).calls.is_empty());
        assert_eq!(world.hosts[i].ended().len(), 1);
    }
}

#[test]
fn one_device_is_dead_and_the_other_answers() {
    let mut world = bobs(3);
    world.kill(2);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.run(seconds(2));
    world.answer(1);
    world.until_voice(0, 1);
    world.hang_up(1);
    assert_eq!(world.report(0, request, seconds(3)).0.result, "completed");
}

#[test]
fn one_device_declines_for_all() {
    let mut world = bobs(4);
    let request = world.call(0, "bob");
    world.until_ringing_at(1);
    world.until_ringing_at(2);
    world.hang_up(1);
    assert_eq!(world.report(0, request, seconds(3)).0.result, "rejected");
    world.run(seconds(2));
    assert_eq!(world.hosts[2].ended()[0].status, 487);
}

#[test]
fn two_who_claim_one_name_are_both_shown_and_one_can_be_chosen() {
    let mut world = World::ring(5, &["alice", "bob", "bob"]);
    let request = world.call(0, "bob");
    let (report, _) = world.report(0, request, seconds(5));
    assert_eq!((report.result.as_str(), report.status), ("failed", 300));
    let claims: Vec<String> =
        [1, 2].iter().map(|i| world.hosts[*i].verified.as_ref().unwrap().user_key.to_string()).collect();
    for claim in &claims {
        assert!(report.reason.contains(&format!("bob~{claim}")), "{}", report.reason);
    }
    for form in ["bob~{}", "bob~{}@chordial", "sip:bob~{}@chordial"] {
        let before = world.hosts[2].events.len();
        let request = world.call(0, &form.replace("{}", &claims[1]));
        world.until(seconds(5), "ringing at the chosen one", |w| w.hosts[2].events.len() > before);
        world.hang_up(0);
        assert_eq!(world.report(0, request, seconds(3)).0.status, 487, "{form}");
        world.run(seconds(1));
    }
    assert!(world.hosts[1].events.iter().all(|(_, e)| !matches!(e, Event::Incoming { .. })));
    let request = world.call(0, "bob~0000000000000000");
    assert_eq!(world.report(0, request, seconds(5)).0.result, "not-found");
}

#[test]
fn a_colleague_who_joined_by_invitation_is_called() {
    let mut world = World::new(6);
    let (anna, _) = Identity::found("office.example", "anna", Some("10"), START, &mut world.rng).unwrap();
    world.member(anna, |_| {});
    world.run(seconds(3));
    let Ok(Reply::Invite { code, .. }) = world.ask(0, Command::Invite { user: "ben".into(), extension: None }) else {
        panic!()
    };
    let joining = Joining::new(InviteCode::parse(&code).unwrap(), "desk", &mut world.rng).unwrap();
    let answer = crate::security::redeem(&mut world, &joining.request());
    let answer = JoinAnswer::decode(answer.body()).unwrap();
    let ben = joining.finish(&answer, START).unwrap();
    world.member(ben, |_| {});
    world.run(seconds(15));
    let request = world.call(1, "10");
    world.until_ringing_at(0);
    world.answer(0);
    world.until_voice(1, 1);
    world.hang_up(1);
    assert_eq!(world.report(1, request, seconds(3)).0.result, "completed");
}
