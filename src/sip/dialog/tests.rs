use super::*;
use crate::core::{Instant, Rng};
use crate::sip::msg::{Message, Method};
use std::collections::BTreeMap;

fn invite() -> Message {
    let text = "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP pc.a;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
        From: \"Alice\" <sip:alice@example.com>;tag=f\r\nTo: Bob <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 10 INVITE\r\n\
        Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>\r\nContact: <sip:alice@192.0.2.1>\r\n\
        Proxy-Authorization: Digest username=\"alice\"\r\nContent-Length: 0\r\n\r\n";
    Message::parse(text.as_bytes()).unwrap()
}

fn reply(request: &Message, status: u16, tag: &str) -> Message {
    let mut reply = Message::reply(request, status, "x");
    reply.set_to_tag(tag);
    Dialog::copy_record_route(request, &mut reply);
    reply.push("Contact", format_args!("<sip:bob-{tag}@192.0.2.9:5070>"));
    reply
}

/// As it comes out at the other end.
fn wire(message: &Message) -> Message {
    Message::parse(&message.to_bytes()).unwrap()
}

/// Caller and callee after a 200.
fn pair() -> (Dialog, Dialog) {
    let invite = invite();
    let ok = wire(&reply(&invite, 200, "t"));
    (Dialog::from_uac(&invite, &ok).unwrap(), Dialog::from_uas(&invite, &ok).unwrap())
}

fn routes(message: &Message) -> Vec<String> {
    message.routes().unwrap().iter().map(|r| r.uri.host.clone()).collect()
}

#[test]
fn both_ends_make_requests_along_the_loose_route() {
    let (mut uac, mut uas) = pair();
    assert_eq!((uac.state(), uas.state()), (State::Confirmed, State::Confirmed));
    let bye = uac.request(Method::Bye);
    assert_eq!(bye.request_uri(), "sip:bob-t@192.0.2.9:5070");
    assert_eq!(routes(&bye), ["p1.example.com", "p2.example.com"]);
    assert_eq!(bye.header("From"), Some("\"Alice\" <sip:alice@example.com>;tag=f"));
    assert_eq!(bye.header("To"), Some("Bob <sip:bob@example.com>;tag=t"));
    assert_eq!((bye.cseq().unwrap().number, bye.call_id(), bye.max_forwards()), (11, Some("c1"), Some(70)));
    assert!(!bye.has("Contact"));
    assert_eq!(uac.next_hop().host, "p1.example.com");
    assert_eq!(DialogId::of_received(&bye).as_ref(), Some(uas.id()));
    assert_eq!(uas.receive(&wire(&bye)), Ok(()));

    let info = uas.request(Method::Info);
    assert_eq!(info.request_uri(), "sip:alice@192.0.2.1");
    assert_eq!(routes(&info), ["p2.example.com", "p1.example.com"]);
    assert_eq!((info.from_tag(), info.to_tag()), (Some("t"), Some("f")));
    assert_eq!(info.cseq().unwrap().number, 1);
    assert_eq!(DialogId::of_received(&info).as_ref(), Some(uac.id()));
    assert_eq!(uac.receive(&info), Ok(()));
    let again = uas.request(Method::Invite);
    assert_eq!((again.cseq().unwrap().number, again.header("Contact")), (2, Some("<sip:bob-t@192.0.2.9:5070>")));
}

#[test]
fn a_strict_router_gets_its_uri_as_request_uri() {
    let mut invite = invite();
    invite.set("Record-Route", "<sip:p2.example.com;lr>, <sip:strict.example.com;method=INVITE;x=1?h=v>");
    let ok = reply(&invite, 200, "t");
    let mut uac = Dialog::from_uac(&invite, &ok).unwrap();
    let bye = uac.request(Method::Bye);
    assert_eq!(bye.request_uri(), "sip:strict.example.com;x=1");
    assert_eq!(routes(&bye), ["p2.example.com", "192.0.2.9"]);
    assert_eq!(uac.next_hop().host, "strict.example.com");
}

#[test]
fn without_routes_requests_go_to_the_contact() {
    let mut invite = invite();
    invite.remove("Record-Route");
    let ok = reply(&invite, 200, "t");
    let uac = Dialog::from_uac(&invite, &ok).unwrap();
    assert_eq!((uac.next_hop().to_string().as_str(), uac.routes().len()), ("sip:bob-t@192.0.2.9:5070", 0));
    assert_eq!(uac.next_hop(), uac.remote_target());
    let mut bare = reply(&invite, 200, "t");
    bare.remove("Contact");
    let uac = Dialog::from_uac(&invite, &bare).unwrap();
    assert_eq!(uac.remote_target().to_string(), "sip:bob@example.com");
}

#[test]
fn the_ack_repeats_number_and_credentials() {
    let (mut uac, _) = pair();
    uac.request(Method::Options);
    let ack = uac.ack(&invite());
    assert_eq!((ack.method(), ack.cseq().unwrap().number), (&Method::Ack, 10));
    assert_eq!(ack.header("Proxy-Authorization"), Some("Digest username=\"alice\""));
    assert_eq!((ack.request_uri(), routes(&ack).len()), ("sip:bob-t@192.0.2.9:5070", 2));
}

#[test]
fn requests_out_of_order_are_refused() {
    let (mut uac, mut uas) = pair();
    let first = uac.request(Method::Info);
    let second = uac.request(Method::Info);
    assert_eq!(uas.receive(&second), Ok(()));
    assert_eq!(uas.receive(&first), Err(Refusal::OutOfOrder));
    assert_eq!(uas.receive(&second), Err(Refusal::OutOfOrder));
    assert_eq!(uas.receive(&uac.ack(&invite())), Ok(()));
    let response = Refusal::OutOfOrder.respond(&first, &mut Rng::from_seed(1));
    assert_eq!((response.status(), response.has("Retry-After")), (500, false));
    let mut broken = uac.request(Method::Info);
    broken.set("CSeq", "x");
    assert_eq!(uas.receive(&broken), Err(Refusal::Malformed));
}

#[test]
fn invites_that_cross_are_refused_and_tried_again() {
    let (mut uac, mut uas) = pair();
    let (from_a, from_b) = (uac.request(Method::Invite), uas.request(Method::Invite));
    assert!(!uac.may_invite());
    assert_eq!((uac.receive(&from_b), uas.receive(&from_a)), (Err(Refusal::Glare), Err(Refusal::Glare)));
    let refused = Refusal::Glare.respond(&from_a, &mut Rng::from_seed(1));
    assert_eq!(refused.status(), 491);
    assert_eq!(uac.receive_response(&refused), Fate::Alive);
    assert!(uac.may_invite());
    let mut rng = Rng::from_seed(1);
    for _ in 0..200 {
        let (a, b) = (uac.glare_delay(&mut rng).as_millis(), uas.glare_delay(&mut rng).as_millis());
        assert!((2100..=4000).contains(&a) && b <= 2000 && a % 10 == 0 && b % 10 == 0);
    }

    uas.receive_response(&Refusal::Glare.respond(&from_b, &mut rng));
    let again = uac.request(Method::Invite);
    assert_eq!(uas.receive(&again), Ok(()));
    assert!(!uas.may_invite());
    let mut eager = again.clone();
    eager.set("CSeq", "99 INVITE");
    assert_eq!(uas.receive(&eager), Err(Refusal::InProgress));
    let refused = Refusal::InProgress.respond(&eager, &mut rng);
    assert!((refused.status(), refused.has("Retry-After")) == (500, true));
    uas.answered(488);
    assert_eq!(uas.receive(&eager), Ok(()));
}

#[test]
fn a_new_target_counts_when_it_is_accepted() {
    let (mut uac, mut uas) = pair();
    let target = |d: &Dialog| d.remote_target().host.clone();
    uac.set_contact("<sip:alice@192.0.2.50>");
    assert_eq!(uas.receive(&uac.request(Method::Invite)), Ok(()));
    assert_eq!(target(&uas), "192.0.2.1");
    uas.answered(180);
    uas.answered(488);
    assert_eq!(target(&uas), "192.0.2.1");
    let again = uac.request(Method::Invite);
    assert_eq!(uas.receive(&again), Ok(()));
    uas.answered(200);
    assert_eq!(target(&uas), "192.0.2.50");

    let mut ok = Message::reply(&again, 200, "OK");
    ok.push("Contact", "<sip:bob@192.0.2.60>");
    ok.push("Record-Route", "<sip:other.example.com;lr>");
    assert_eq!(uac.receive_response(&ok), Fate::Alive);
    assert_eq!((target(&uac), uac.routes().len()), ("192.0.2.60".into(), 2));

    uac.set_contact("<sip:alice@192.0.2.51>");
    assert_eq!(uas.receive(&uac.request(Method::Update)), Ok(()));
    assert_eq!(target(&uas), "192.0.2.51");
}

#[test]
fn what_ends_a_dialog() {
    let after = |method: Method, status: u16| {
        let (mut uac, _) = pair();
        let request = uac.request(method);
        uac.receive_response(&Message::reply(&request, status, "x"))
    };
    assert_eq!(after(Method::Bye, 200), Fate::Gone);
    assert_eq!(after(Method::Bye, 481), Fate::Gone);
    assert_eq!(after(Method::Bye, 500), Fate::Gone);
    assert_eq!(after(Method::Bye, 407), Fate::Alive);
    assert_eq!(after(Method::Info, 481), Fate::Gone);
    assert_eq!(after(Method::Invite, 408), Fate::Gone);
    assert_eq!(after(Method::Invite, 488), Fate::Alive);
    assert_eq!(after(Method::Options, 200), Fate::Alive);
    let (mut uac, _) = pair();
    uac.request(Method::Invite);
    assert_eq!((uac.failed(&Method::Invite), uac.may_invite()), (Fate::Gone, true));
    let invite = invite();
    let mut early = Dialog::from_uac(&invite, &reply(&invite, 180, "t")).unwrap();
    assert_eq!(early.receive_response(&reply(&invite, 486, "t")), Fate::Gone);
}

#[test]
fn an_early_dialog_takes_route_and_target_of_the_2xx() {
    let invite = invite();
    let mut ringing = reply(&invite, 180, "t");
    ringing.remove("Record-Route");
    let mut uac = Dialog::from_uac(&invite, &ringing).unwrap();
    assert_eq!((uac.state(), uac.routes().len(), uac.may_invite()), (State::Early, 0, false));
    let mut ok = reply(&invite, 200, "t");
    ok.set("Contact", "<sip:bob@192.0.2.77>");
    assert_eq!(uac.receive_response(&ok), Fate::Alive);
    assert_eq!((uac.state(), uac.routes().len()), (State::Confirmed, 2));
    assert_eq!(uac.remote_target().host, "192.0.2.77");

    let mut uas = Dialog::from_uas(&invite, &reply(&invite, 180, "t")).unwrap();
    assert_eq!((uas.state(), uas.may_invite()), (State::Early, false));
    uas.answered(200);
    assert_eq!((uas.state(), uas.may_invite()), (State::Confirmed, true));
}

#[test]
fn dialogs_that_cannot_be_made() {
    let invite = invite();
    let without_tag = Message::reply(&invite, 200, "OK");
    assert_eq!(Dialog::from_uac(&invite, &without_tag).unwrap_err(), DialogError::Tag);
    assert_eq!(Dialog::from_uas(&invite, &without_tag).unwrap_err(), DialogError::Tag);
    let mut mute = invite.clone();
    mute.remove("Contact");
    assert_eq!(Dialog::from_uas(&mute, &reply(&mute, 200, "t")).unwrap_err(), DialogError::Contact);
    let mut bad = invite.clone();
    bad.set("Record-Route", "<<");
    assert_eq!(Dialog::from_uas(&bad, &reply(&invite, 200, "t")).unwrap_err(), DialogError::RecordRoute);
}

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

#[test]
fn a_2xx_is_repeated_until_its_ack() {
    let invite = invite();
    let mut server = InviteServer::new(&invite, Timing::default());
    assert!(server.respond(ms(0), reply(&invite, 200, "t")) && !server.respond(ms(0), reply(&invite, 486, "t")));
    assert!(server.poll_output().is_some());
    let mut times = Vec::new();
    let mut last = None;
    while let Some(at) = server.poll_timeout() {
        server.handle_timeout(at);
        while let Some(output) = server.poll_output() {
            times.push(at.as_millis());
            last = Some(output);
        }
    }
    assert_eq!(times, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500, 32000]);
    assert!(matches!(last, Some(InviteServerOutput::NoAck)));

    let mut server = InviteServer::new(&invite, Timing::default());
    server.respond(ms(0), reply(&invite, 200, "t"));
    let (uac, _) = pair();
    let mut other = uac.ack(&invite);
    other.set("CSeq", "9 ACK");
    assert!(!server.receive_ack(&other));
    assert!(server.receive_ack(&uac.ack(&invite)) && server.receive_ack(&uac.ack(&invite)));
    let outputs: Vec<_> = std::iter::from_fn(|| server.poll_output()).collect();
    assert!(matches!(outputs[..], [InviteServerOutput::Respond(_), InviteServerOutput::Confirmed(_)]));
    assert_eq!(server.poll_timeout(), None);
}

#[test]
fn ringing_is_repeated_every_minute() {
    let invite = invite();
    let mut server = InviteServer::new(&invite, Timing::default());
    server.respond(ms(0), Message::reply(&invite, 100, "Trying"));
    assert_eq!(server.poll_timeout(), None);
    server.respond(ms(1000), reply(&invite, 180, "t"));
    assert_eq!(server.poll_timeout(), Some(ms(61_000)));
    server.handle_timeout(ms(61_000));
    assert_eq!(server.poll_timeout(), Some(ms(121_000)));
    assert_eq!(std::iter::from_fn(|| server.poll_output()).count(), 3);
    assert!(server.is_pending() && server.respond(ms(70_000), reply(&invite, 487, "t")) && !server.is_pending());
    assert_eq!(server.poll_timeout(), None);
}

#[test]
fn forks_make_dialogs_of_their_own() {
    use InviteClientOutput::*;
    let invite = invite();
    let mut client = InviteClient::new(invite.clone(), Timing::default());
    client.receive(ms(0), Message::reply(&invite, 100, "Trying"));
    client.receive(ms(10), reply(&invite, 180, "x"));
    client.receive(ms(20), reply(&invite, 180, "y"));
    client.receive(ms(30), reply(&invite, 180, "y"));
    assert_eq!(client.early().count(), 2);
    client.receive(ms(40), reply(&invite, 200, "y"));
    client.receive(ms(50), reply(&invite, 200, "z"));
    // Not acknowledged yet: nothing to send again.
    client.receive(ms(60), reply(&invite, 200, "y"));
    let outputs: Vec<_> = std::iter::from_fn(|| client.poll_output()).collect();
    let [
        Provisional { dialog: None, .. },
        Provisional { dialog: Some(x), .. },
        Provisional { dialog: Some(y), .. },
        Provisional { .. },
        Established { dialog: first, extra: false, .. },
        Established { dialog: second, extra: true, .. },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((x.remote_tag.as_str(), y.remote_tag.as_str()), ("x", "y"));
    assert_eq!((first.id(), second.id().remote_tag.as_str()), (y, "z"));
    assert_eq!((first.state(), first.remote_target().user.as_deref()), (State::Confirmed, Some("bob-y")));

    client.acknowledged(first.id(), first.ack(&invite));
    client.receive(ms(100), reply(&invite, 200, "y"));
    let Some(Acknowledge(ack)) = client.poll_output() else { panic!() };
    assert_eq!(ack, first.ack(&invite));
    client.receive(ms(200), reply(&invite, 486, "x"));
    assert_eq!(client.poll_timeout(), Some(ms(32_040)));
    client.handle_timeout(ms(32_040));
    assert!(matches!(client.poll_output(), Some(Over)));
    assert!(client.poll_output().is_none() && client.poll_timeout().is_none());
}

#[test]
fn refusal_cancel_and_too_many_forks() {
    use InviteClientOutput::*;
    let invite = invite();
    let mut client = InviteClient::new(invite.clone(), Timing::default());
    client.receive(ms(0), reply(&invite, 183, "x"));
    client.receive(ms(10), reply(&invite, 603, "x"));
    client.receive(ms(10), reply(&invite, 603, "x"));
    assert!(matches!(client.poll_output(), Some(Provisional { .. })));
    assert!(matches!(client.poll_output(), Some(Failed(r)) if r.status() == 603));
    assert!(client.poll_output().is_none() && client.early().next().is_none() && client.poll_timeout().is_none());

    let mut client = InviteClient::new(invite.clone(), Timing::default());
    client.cancel();
    client.receive(ms(0), reply(&invite, 200, "x"));
    assert!(matches!(client.poll_output(), Some(Established { extra: true, .. })));

    let mut client = InviteClient::new(invite.clone(), Timing::default());
    for n in 0..100 {
        client.receive(ms(n), reply(&invite, 180, &format!("t{n}")));
    }
    assert_eq!((client.early().count(), client.ignored()), (32, 68));
}

#[test]
fn an_invite_within_the_dialog_makes_no_other() {
    let (mut uac, _) = pair();
    let again = uac.request(Method::Invite);
    let mut client = InviteClient::new(again.clone(), Timing::default());
    let ok = Message::reply(&again, 200, "OK");
    client.receive(ms(0), ok.clone());
    assert!(matches!(client.poll_output(), Some(InviteClientOutput::Accepted(_))));
    assert_eq!(uac.receive_response(&ok), Fate::Alive);
    let ack = uac.ack(&again);
    assert_eq!(ack.cseq().unwrap().number, 11);
    client.acknowledged(uac.id(), ack);
    client.receive(ms(10), ok);
    assert!(matches!(client.poll_output(), Some(InviteClientOutput::Acknowledge(_))));
}

/// 2xx and ACK through a pipe that loses most of them: it ends confirmed at both ends, or is told to be hung up.
#[test]
fn the_handshake_ends_whatever_is_lost() {
    let (mut confirmed, mut given_up) = (0, 0);
    for seed in 0..100 {
        let mut rng = Rng::from_seed(seed);
        let loss = 0.1 + 0.9 * rng.unit();
        let invite = invite();
        let mut server = InviteServer::new(&invite, Timing::default());
        let mut client = InviteClient::new(invite.clone(), Timing::default());
        let mut queue: BTreeMap<(Instant, u64), Message> = BTreeMap::new();
        let (mut now, mut serial, mut acks, mut no_ack) = (ms(0), 0, 0, false);
        server.respond(now, reply(&invite, 200, "t"));
        loop {
            let mut sent = Vec::new();
            while let Some(output) = server.poll_output() {
                match output {
                    InviteServerOutput::Respond(response) => sent.push(response),
                    InviteServerOutput::Confirmed(_) => acks += 1,
                    InviteServerOutput::NoAck => no_ack = true,
                }
            }
            while let Some(output) = client.poll_output() {
                match output {
                    InviteClientOutput::Established { dialog, extra, .. } => {
                        assert!(!extra);
                        let ack = dialog.ack(&invite);
                        client.acknowledged(dialog.id(), ack.clone());
                        sent.push(ack);
                    }
                    InviteClientOutput::Acknowledge(ack) => sent.push(ack),
                    InviteClientOutput::Over => {}
                    other => panic!("{other:?}"),
                }
            }
            for message in sent {
                if rng.unit() >= loss {
                    serial += 1;
                    let delay = std::time::Duration::from_millis(5 + rng.below(2000));
                    queue.insert((now + delay, serial), message);
                }
            }
            let next = queue.keys().next().map(|(at, _)| *at);
            let timers = [server.poll_timeout(), client.poll_timeout()];
            let Some(at) = timers.into_iter().flatten().chain(next).min() else { break };
            now = now.max(at);
            server.handle_timeout(now);
            client.handle_timeout(now);
            if next.is_some_and(|at| at <= now)
                && let Some((_, message)) = queue.pop_first()
            {
                if message.is_request() {
                    server.receive_ack(&message);
                } else {
                    client.receive(now, message);
                }
            }
        }
        assert!((acks == 1) != no_ack, "seed {seed}: {acks} {no_ack}");
        confirmed += acks;
        given_up += u32::from(no_ack);
    }
    assert!(confirmed > 50 && given_up > 5, "{confirmed} {given_up}");
}

#[test]
fn mutated_messages_never_panic() {
    let mut rng = Rng::from_seed(1);
    let invite = invite();
    let (mut uac, mut uas) = pair();
    let base = [
        invite.to_bytes(),
        reply(&invite, 200, "t").to_bytes(),
        reply(&invite, 180, "t").to_bytes(),
        uac.request(Method::Invite).to_bytes(),
        uac.ack(&invite).to_bytes(),
    ];
    let mut client = InviteClient::new(invite.clone(), Timing::default());
    let mut server = InviteServer::new(&invite, Timing::default());
    for n in 0..50_000 {
        let mut bytes = base[rng.below(base.len() as u64) as usize].to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(2) {
                0 => bytes[at] = rng.next_u32() as u8,
                _ => bytes.insert(at, b"\r\n;=<>\", "[rng.below(9) as usize]),
            }
        }
        let Ok(message) = Message::parse(&bytes) else { continue };
        if message.is_request() {
            let _ = Dialog::from_uas(&message, &reply(&message, 200, "t"));
            let _ = uas.receive(&message);
            uas.answered(200);
            server.receive_ack(&message);
        } else {
            let _ = Dialog::from_uac(&invite, &message);
            uac.receive_response(&message);
            client.receive(ms(n), message);
        }
        while client.poll_output().is_some() || server.poll_output().is_some() {}
        let _ = (uac.request(Method::Bye), uas.request(Method::Bye));
    }
    assert!(client.ignored() > 0);
}
