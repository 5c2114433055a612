//! A plain phone whose registrar wants credentials for everything.

use crate::raw::{respond, sdp, send, way_back};
use crate::talk::seconds;
use crate::world::{Received, World};
use chordial::node::Input;
use chordial::node::control::{Command, Reply};
use chordial::sip::msg::{Message, Method};

fn challenge(world: &mut World, request: &Received) {
    let mut no = Message::reply(&request.message, 407, "Proxy Authentication Required");
    if request.message.to_tag().is_none() {
        no.set_to_tag("proxy");
    }
    no.push("Proxy-Authenticate", "Digest realm=\"r\", nonce=\"n\", algorithm=MD5, qop=\"auth\"");
    send(world, 0, way_back(request), no.to_bytes());
}

/// The request of a method number `n`, which is challenged; then the one that has credentials.
fn asked_twice(world: &mut World, method: &Method, n: usize) -> Received {
    let first = world.until_request(0, method.clone(), n);
    assert!(!first.message.has("Proxy-Authorization"));
    challenge(world, &first);
    let second = world.until_request(0, method.clone(), n + 1);
    let answer = second.message.header("Proxy-Authorization").unwrap();
    assert!(answer.contains(&format!("uri=\"{}\"", second.message.request_uri())), "{answer}");
    assert_eq!(second.message.cseq().unwrap().number, first.message.cseq().unwrap().number + 1);
    second
}

#[test]
fn requests_within_a_call_are_made_again_with_credentials() {
    let mut world = World::new(1);
    let raw = world.raw();
    let registrar = world.raws[raw].addr;
    world.plain("desk", "secret", registrar, |_| {});
    let register = world.until_request(raw, Method::Register, 1);
    respond(&mut world, raw, &register, 200, "");
    let call = world.call(0, "sip:joe@elsewhere.example");
    let invite = asked_twice(&mut world, &Method::Invite, 1);
    respond(&mut world, raw, &invite, 200, &sdp("10.9.0.1:7000", "sendrecv"));
    world.until_voice(0, 1);
    let request = world.command(0, Command::Hold { call: None });
    let hold = asked_twice(&mut world, &Method::Invite, 3);
    respond(&mut world, raw, &hold, 200, &sdp("10.9.0.1:7000", "recvonly"));
    world.until(seconds(5), "the hold", |w| w.hosts[0].replies.contains_key(&request));
    assert!(matches!(world.hosts[0].replies[&request], Ok(Reply::Done { .. })));
    world.run(seconds(1));
    let ack = world.requests(raw, &Method::Ack).pop().unwrap();
    assert_eq!(ack.message.cseq().unwrap().number, hold.message.cseq().unwrap().number);
    world.hand(0, Input::Abort { request: call });
    let bye = asked_twice(&mut world, &Method::Bye, 1);
    // Wrong credentials are not repeated for ever.
    challenge(&mut world, &bye);
    world.run(seconds(5));
    assert_eq!(world.requests(raw, &Method::Bye).len(), 2);
}
