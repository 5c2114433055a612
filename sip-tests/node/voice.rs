//! Calls whose voice is encrypted, and somebody on the way who changes what the descriptions say.

use crate::world::World;
use chordial::config::Encryption;
use chordial::core::{Rng, UnixTime};
use chordial::identity::KeyPair;
use chordial::node::control::RequestId;
use chordial::secure::{Fingerprint, Role, Statement};
use chordial::sip::msg::Message;
use std::time::Duration;

const FEW: Duration = Duration::from_secs(8);
/// What whoever sits between would show.
const THEIRS: Fingerprint = Fingerprint([0xee; 32]);

fn ring(seed: u64, encryption: Encryption) -> World {
    let mut world = World::new(seed);
    world.encrypts = true;
    for user in ["alice", "bob"] {
        world.peer(user, |config| {
            config.media.encryption = encryption;
            config.user.auto_answer = true;
        });
    }
    world.run(Duration::from_secs(15));
    world
}

/// A call from alice to bob that lasts a second, with `change` made to the bodies that hold a fingerprint, in messages
/// that begin with `which`.
fn call(world: &mut World, which: &'static str, change: impl Fn(&Message, String) -> String + 'static) -> RequestId {
    world.rewrite = Box::new(move |bytes| {
        let message = Message::parse(bytes).ok()?;
        let body = String::from_utf8(message.body().to_vec()).ok()?;
        if !bytes.starts_with(which.as_bytes()) || !body.contains("a=fingerprint") {
            return None;
        }
        let mut changed = message.clone();
        changed.set_body("application/sdp", change(&message, body));
        Some(changed.to_bytes())
    });
    world.call(0, "bob")
}

fn untouched(_: &Message, body: String) -> String {
    body
}

fn swapped(_: &Message, body: String) -> String {
    line(&body, "a=fingerprint:", &format!("a=fingerprint:{THEIRS}"))
}

/// The fingerprint swapped and signed for, by another device.
fn signed_by_another(message: &Message, body: String) -> String {
    let mallory = KeyPair::generate(&mut Rng::from_seed(666));
    let role = if message.is_request() { Role::Offer } else { Role::Answer };
    let (call_id, tag) = (message.call_id().unwrap(), message.from_tag().unwrap());
    let statement = Statement { role, call_id, tag, fingerprint: THEIRS };
    // About the time of the test's virtual clock.
    let value = statement.sign(&mallory, UnixTime(1_800_000_020));
    line(&swapped(message, body), "a=x-chordial-device:", &format!("a=x-chordial-device:{value}"))
}

fn stripped(_: &Message, body: String) -> String {
    ["a=fingerprint:", "a=setup:", "a=x-chordial-device:"].iter().fold(body, |body, start| line(&body, start, ""))
}

fn line(body: &str, start: &str, new: &str) -> String {
    let lines = body.lines().map(|l| if l.starts_with(start) { new } else { l });
    lines.filter(|l| !l.is_empty()).map(|l| format!("{l}\r\n")).collect()
}

#[test]
fn both_ends_name_each_others_certificate_and_device() {
    let mut world = ring(1, Encryption::Preferred);
    let request = call(&mut world, "INVITE", untouched);
    world.until_voice(0, 1);
    world.until_voice(1, 1);
    let plans = [world.hosts[0].plans()[0].clone(), world.hosts[1].plans()[0].clone()];
    for (mine, other) in [(0, 1), (1, 0)] {
        let secured = plans[mine].secured.expect("encrypted");
        assert_eq!(secured.fingerprint, Fingerprint([other as u8; 32]));
        assert_eq!(secured.signer, world.hosts[other].verified.as_ref().map(|v| v.device));
        assert_eq!(secured.client, mine == 1, "the answerer begins");
        assert!(plans[mine].agreed.rtcp_mux);
    }
    world.hang_up(0);
    assert_eq!(world.report(0, request, FEW).0.security, "dtls-srtp");
    world.run(FEW);
    assert_eq!(world.hosts[1].ended()[0].security, "dtls-srtp");
}

#[test]
fn keys_changed_on_the_way_end_the_call_before_a_word_is_said() {
    type Change = fn(&Message, String) -> String;
    let cases: [(&'static str, Change); 4] = [
        ("INVITE", swapped),
        ("SIP/2.0 200", swapped),
        ("INVITE", signed_by_another),
        ("SIP/2.0 200", signed_by_another),
    ];
    for (n, (which, change)) in cases.into_iter().enumerate() {
        let mut world = ring(2, Encryption::Preferred);
        let request = call(&mut world, which, change);
        let (report, _) = world.report(0, request, FEW);
        world.run(FEW);
        // The one who was lied to sends and takes nothing, and says why.
        let lied_to = usize::from(which == "INVITE");
        let told = if lied_to == 0 { Some(&report) } else { world.hosts[1].ended().first().copied() };
        assert!(told.is_none_or(|r| r.result != "completed"), "case {n}: {told:?}");
        assert!(world.hosts[lied_to].plans().is_empty(), "case {n}: voice began");
    }
}

#[test]
fn keys_taken_out_on_the_way_are_shown_and_refused_where_encryption_is_required() {
    let mut world = ring(3, Encryption::Preferred);
    let request = call(&mut world, "INVITE", stripped);
    world.until_voice(0, 1);
    world.hang_up(0);
    assert_eq!(world.report(0, request, FEW).0.security, "none");
    for which in ["INVITE", "SIP/2.0 200"] {
        let mut world = ring(4, Encryption::Required);
        let request = call(&mut world, which, stripped);
        let (report, _) = world.report(0, request, FEW);
        assert_ne!(report.result, "completed", "{which}: {report:?}");
        let lied_to = usize::from(which == "INVITE");
        assert!(world.hosts[lied_to].plans().is_empty(), "{which}: voice began");
    }
}
