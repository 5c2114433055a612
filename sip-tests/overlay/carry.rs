//! Overlay messages: the drafts' own, loose forms, faults and their statuses, and tens of thousands of mutated ones.

use crate::net::{OVERLAY, UNIX, Users, entry};
use chordial::core::{Id, Rng, UnixTime};
use chordial::identity::{ContactBody, EntryKind};
use chordial::overlay::carry::{Carry, CarryError, RECORD_TYPE, address_peer_id, is_overlay};
use chordial::overlay::tier::{Answer, Ask, Offer, Rank, Way};
use chordial::overlay::{Failure, IdSpace, Links, Member, Mode, PeerRef, Request, RequestKind, Response, Route};
use chordial::sip::msg::Message;
use std::net::SocketAddr;

fn peer(n: u8) -> PeerRef {
    PeerRef { id: Id::from_u64(n.into()), addr: SocketAddr::from(([192, 0, 2, n], 5060)) }
}

/// The drafts' examples: 4-bit identifiers, peer 3 at 192.0.2.3.
fn small(me: u8) -> Carry {
    fn by_address(addr: SocketAddr) -> Id {
        match addr {
            SocketAddr::V4(a) => Id::from_u64(a.ip().octets()[3].into()),
            SocketAddr::V6(_) => Id::default(),
        }
    }
    fn contrived(aor: &str) -> Id {
        Id::from_u64(if aor == "sip:alice@p2psip.org" { 5 } else { 12 })
    }
    Carry {
        space: IdSpace::new(4),
        peer_id: Some(by_address),
        resource_id: contrived,
        ..Carry::new("chat", peer(me), 600)
    }
}

fn big(n: u8) -> PeerRef {
    PeerRef { id: Id::sha1(&[n]), addr: SocketAddr::from(([127, 0, 0, 1], 5000 + u16::from(n))) }
}

fn carry() -> Carry {
    Carry::new(OVERLAY, big(1), 600)
}

fn parse(text: &str) -> Message {
    Message::parse(text.replace('\n', "\r\n").as_bytes()).expect("it is SIP")
}

/// A request with what the drafts' examples neglect.
fn draft(start_and_fields: &str) -> Message {
    parse(&format!("{start_and_fields}Call-ID: x\nCSeq: 1 REGISTER\nContent-Length: 0\n\n"))
}

#[test]
fn requests_of_the_drafts() {
    let join = draft(
        "REGISTER sip:192.0.2.5 SIP/2.0\nTo: <sip:peer@192.0.2.14;peer-ID=14>\nFrom: <sip:peer@192.0.2.14;peer-ID=14>\n\
         Contact: <sip:peer@192.0.2.14;peer-ID=14>\nExpires: 600\n\
         DHT-PeerID: <sip:peer@192.0.2.14;peer-ID=14>;algorithm=sha1;\n            dht=Chord1.0;overlay=chat;expires=600\n\
         Require: dht\nSupported: dht\n",
    );
    assert!(is_overlay(&join));
    assert_eq!(small(5).decode_request(&join), Ok((peer(14), Request::Register { expires: 600 })));

    let query = draft(
        "REGISTER sip:192.0.2.3 SIP/2.0\nTo: <sip:peer@0.0.0.0;peer-ID=3>\nFrom: <sip:peer@192.0.2.10;peer-ID=10>\n\
         DHT-PeerID: <sip:peer@192.0.2.10;peer-ID=10>;algorithm=sha1;\n            dht=Chord1.0;overlay=chat;expires=600\n\
         Require: dht\nSupported: dht\n",
    );
    let expected = Request::Query { target: Id::from_u64(3), route: Route::Iterative };
    assert_eq!(small(3).decode_request(&query), Ok((peer(10), expected)));

    let fetch = draft(
        "REGISTER sip:192.0.2.3 SIP/2.0\nTo: <sip:alice@p2psip.org;resource-ID=5>\nFrom: <sip:bob@p2psip.org;resource-ID=12>\n\
         DHT-PeerID: <sip:peer@192.0.2.10;peer-ID=10>;algorithm=sha1;\n            dht=Chord1.0;overlay=chat;expires=800\n\
         Require: dht\nSupported: dht\n",
    );
    let aor = Some("sip:alice@p2psip.org".into());
    let expected = Request::Fetch { key: Id::from_u64(5), replica: 0, aor, route: Route::Iterative };
    assert_eq!(small(3).decode_request(&fetch), Ok((peer(10), expected)));

    // The drafts register without a signature: there is nothing in it that could be believed.
    let store = draft(
        "REGISTER sip:192.0.2.14 SIP/2.0\nTo: <sip:bob@p2psip.org;resource-ID=12>\nFrom: <sip:peer@192.0.2.3;peer-ID=3>\n\
         Contact: <sip:bob@192.0.2.10>\nExpires: 201\n\
         DHT-PeerID: <sip:peer@192.0.2.3;peer-ID=3>;algorithm=sha1;\n            dht=Chord1.0;overlay=chat;expires=600\n\
         Require: dht\nSupported: dht\n",
    );
    let error = small(14).decode_request(&store).expect_err("no entries");
    assert_eq!((&error, error.status()), (&CarryError::MediaType, 415));
    assert_eq!(small(14).refuse(&store, &error).header("Accept"), Some(RECORD_TYPE));
}

#[test]
fn responses_of_the_drafts() {
    let moved = draft(
        "SIP/2.0 302 Moved Temporarily\nTo: <sip:peer@192.0.2.14;peer-ID=14>\nFrom: <sip:peer@192.0.2.14;peer-ID=14>\n\
         Contact: <sip:peer@192.0.2.3;peer-ID=3>\n\
         DHT-PeerID: <sip:peer@192.0.2.5;peer-ID=5>;algorithm=sha1;\n            dht=Chord1.0;overlay=chat;expires=1200\n\
         DHT-Link: <sip:peer@192.0.2.3;peer-ID=3>;link=P1;expires=427\n\
         DHT-Link: <sip:peer@192.0.2.10;peer-ID=10>;link=S1;expires=387\nRequire: dht\nSupported: dht\n",
    );
    let links = Links { predecessors: vec![peer(3)], successors: vec![peer(10)], fingers: vec![] };
    let expected = Response::Redirect { closer: peer(3), links };
    assert_eq!(small(14).decode_response(&moved, RequestKind::Register), Ok((Some(peer(5)), expected)));

    let admitted = draft(
        "SIP/2.0 200 OK\nTo: <sip:peer@192.0.2.14;peer-ID=14>\nFrom: <sip:peer@192.0.2.14;peer-ID=14>\n\
         Contact: <sip:peer@192.0.2.14;peer-ID=14>\nExpires: 600\n\
         DHT-PeerID: <sip:peer@192.0.2.3;peer-ID=3>;algorithm=sha1;\n             dht=Chord1.0;overlay=chat;expires=600\n\
         DHT-Link: <sip:peer@192.0.2.10;peer-ID=10>;link=P1;expires=125\n\
         DHT-Link: <sip:peer@192.0.2.5;peer-ID=5>;link=S1;expires=919\n\
         DHT-Link: <sip:peer@192.0.2.5;peer-ID=5>;link=F0;expires=919\n\
         DHT-Link: <sip:peer@192.0.2.5;peer-ID=5>;link=F1;expires=919\n\
         DHT-Link: <sip:peer@192.0.2.10;peer-ID=10>;link=F2;expires=125\n\
         DHT-Link: <sip:peer@192.0.2.3;peer-ID=3>;link=F3;expires=600\nRequire: dht\nSupported: dht\n",
    );
    let fingers = vec![(0, peer(5)), (1, peer(5)), (2, peer(10)), (3, peer(3))];
    let links = Links { predecessors: vec![peer(10)], successors: vec![peer(5)], fingers };
    let expected = Response::Admitted { links };
    assert_eq!(small(14).decode_response(&admitted, RequestKind::Register), Ok((Some(peer(3)), expected)));

    // Section 7.4 misses a semicolon here, and an identifier there.
    let loose = draft(
        "SIP/2.0 200 OK\nTo: <sip:peer@0.0.0.0;peer-ID=2>\nFrom: <sip:peer@192.0.2.3;peer-ID=3>\n\
         DHT-PeerID: <sip:peer@192.0.2.2;peer-ID=2>;algorithm=sha1;dht=Chord1.0;overlay=chat;expires=600\n\
         DHT-Link: <sip:peer@192.0.2.3;peer-ID=3>;link=S1;expires=919\n\
         DHT-Link: <sip:peer@192.0.2.10;peer-ID=10>link=P1;expires=800\n\
         DHT-Link: <sip:3@0.0.0.3;peer-ID=>;link=P2;expires=919\n",
    );
    let links = Links { predecessors: vec![peer(10)], successors: vec![peer(3)], fingers: vec![] };
    let expected = Response::Responsible { exact: true, links, path: vec![] };
    assert_eq!(small(3).decode_response(&loose, RequestKind::Query), Ok((Some(peer(2)), expected)));
}

#[test]
fn forms_of_a_peer_uri() {
    let id = "ed57487add0123456789ed57487add0123456789";
    let expected =
        PeerRef { id: Id::from_hex(id).expect("hexadecimal"), addr: "10.6.5.5:5060".parse().expect("it is") };
    for form in [
        "<sip:peer@10.6.5.5:5060;peer-ID=ID>;algorithm=sha1;dht=Chord1.0;overlay=lab.example;expires=600",
        "<sip:peer@10.6.5.5;peer-ID=ID>;algorithm=sha1;dht=Chord1.0;overlay=lab.example",
        "sip:peer@10.6.5.5;peer-ID=ID;algorithm=sha1;dht=Chord1.0;overlay=lab.example;expires=600",
        "<sip:P@10.6.5.5;pID=ID>;algorithm=SHA1;dht-param=Chord1.0;overlay=Lab.Example",
        "<sip:@10.6.5.5;peerId=ID>;algorithm=sha1;dht-param=chord1.0;overlay=lab.example",
        "\"ignore; <me>\" <sips:peer@10.6.5.5 ; Peer-ID = ID> ; algorithm = sha1 ; dht = Chord1.0 ; overlay = \"lab.example\"",
        "<sip:10.6.5.5;peer-ID=ID;algorithm=sha1;dht=Chord1.0;overlay=lab.example>",
    ] {
        let message = draft(&format!(
            "REGISTER sip:127.0.0.1 SIP/2.0\nTo: <sip:peer@0.0.0.0;peer-ID={id}>\nFrom: <sip:x@y>\nRequire: DHT\nDHT-PeerID: {}\n",
            form.replace("=ID", &format!("={id}")).replace("= ID", &format!("= {id}"))
        ));
        assert_eq!(carry().decode_request(&message).map(|(sender, _)| sender), Ok(expected), "{form}");
    }
    let v6 = PeerRef { id: Id::sha1(b"6"), addr: "[2001:db8::1]:6000".parse().expect("an address") };
    let message = Carry::new(OVERLAY, v6, 60).encode_request(
        &Request::Register { expires: 60 },
        "[2001:db8::2]:5060".parse().expect("an address"),
        &mut Rng::from_seed(1),
    );
    assert_eq!(carry().decode_request(&message), Ok((v6, Request::Register { expires: 60 })));
    // The peer-ID of an address: the low 16 bits are the port.
    assert_eq!(&address_peer_id(v6.addr).0[18..], &6000u16.to_be_bytes());
    assert_eq!(address_peer_id(v6.addr).0[..18], Id::sha1(b"[2001:db8::1]").0[..18]);
}

#[test]
fn faults_have_their_status() {
    let id = big(2).id;
    let uri = format!("<sip:peer@127.0.0.1:5002;peer-ID={id}>");
    let good = format!(
        "REGISTER sip:127.0.0.1 SIP/2.0\nTo: {uri}\nFrom: {uri}\nContact: {uri}\nExpires: 600\nRequire: dht\n\
         DHT-PeerID: {uri};algorithm=sha1;dht=Chord1.0;overlay={OVERLAY};expires=600\n"
    );
    assert_eq!(carry().decode_request(&draft(&good)), Ok((big(2), Request::Register { expires: 600 })));
    let mut rng = Rng::from_seed(1);
    let other = big(3).id.to_string();
    let mine = id.to_string();
    for (from, to, status) in [
        ("Require: dht", "Require: dht, teleport", 420),
        ("Require: dht\n", "", 421),
        ("algorithm=sha1", "algorithm=sha256", 488),
        ("dht=Chord1.0", "dht=Kademlia1.0", 488),
        ("overlay=lab.example", "overlay=elsewhere", 488),
        ("DHT-PeerID:", "DHT-Nothing:", 400),
        ("Expires: 600\n", "", 400),
        // Third parties register no peers.
        (
            &*format!("To: <sip:peer@127.0.0.1:5002;peer-ID={mine}"),
            &*format!("To: <sip:peer@127.0.0.1:5002;peer-ID={other}"),
            493,
        ),
        (
            &*format!("Contact: <sip:peer@127.0.0.1:5002;peer-ID={mine}"),
            "Contact: <sip:peer@127.0.0.1:5002;peer-ID=abc",
            493,
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let message = draft(&good.replace(from, to));
        let error = carry().decode_request(&message).expect_err(to);
        assert_eq!(error.status(), status, "{to}: {error}");
        let refusal = carry().refuse(&message, &error);
        assert_eq!(refusal.status(), status);
        if status == 420 {
            assert_eq!(refusal.header("Unsupported"), Some("teleport"));
        }
    }
    // Where the id function says so, an address has one identifier.
    let lab = Carry { peer_id: Some(address_peer_id), ..carry() };
    assert_eq!(lab.decode_request(&draft(&good)).expect_err("another id").status(), 493);
    // A joining peer may not know the overlay's name.
    let open = good.replace(&format!("overlay={OVERLAY}"), "overlay=*").replace("dht=Chord1.0", "dht=*");
    assert!(carry().decode_request(&draft(&open)).is_ok());

    // A key that is not the resource's.
    let bob = Users::new(1).user("bob");
    let e = entry(&bob, 1, b"x", 60);
    let key = e.entry().resource_key();
    for (wrong, replaced) in [(Id::sha1(b"elsewhere"), e.entry().aor.clone()), (key, "sip:eve@lab.example".into())] {
        let request = Request::Store { key, replica: 0, entries: vec![e.clone()], route: Route::Here };
        let text = carry().encode_request(&request, big(2).addr, &mut rng).to_bytes();
        // The body stays; the header is forged.
        let head = text.len() - carry().encode_request(&request, big(2).addr, &mut rng).body().len();
        let forged = String::from_utf8_lossy(&text[..head])
            .replace(&key.to_string(), &wrong.to_string())
            .replace(&e.entry().aor, &replaced);
        let message = Message::parse(&[forged.as_bytes(), &text[head..]].concat()).expect("it is SIP");
        assert_eq!(carry().decode_request(&message).expect_err("forged").status(), 493);
    }
}

/// One message of every kind.
fn samples() -> (Vec<Request>, Vec<(RequestKind, Response)>) {
    let mut users = Users::new(9);
    let bob = users.user("bob");
    let body = ContactBody { peer_id: big(1).id, addrs: vec![big(1).addr], user_agent: "test".into(), via: vec![] };
    let contact = entry(&bob, 3, &body.encode(), 600);
    let removal = entry(&bob, 4, b"", 86400);
    let key = contact.entry().resource_key();
    assert_eq!(contact.entry().kind, EntryKind::Contact);
    let path = vec![big(4), big(5)];
    let routes = [Route::Iterative, Route::Here, Route::Recursive { hops: 9, path: path.clone() }];
    let links = Links {
        predecessors: vec![big(2), big(3)],
        successors: vec![big(4), big(5), big(6)],
        fingers: vec![(150, big(7)), (159, big(8))],
    };
    let mut requests = vec![Request::Register { expires: 600 }, Request::Leave { links: links.clone() }];
    for route in routes.clone() {
        requests.push(Request::Query { target: Id::sha1(b"t"), route: route.clone() });
        requests.push(Request::Fetch { key, replica: 0, aor: Some(bob.aor().into()), route: route.clone() });
        requests.push(Request::Fetch { key, replica: 1, aor: None, route });
    }
    let six = PeerRef { id: Id::sha1(b"six"), addr: "[2001:db8::1]:5061".parse().expect("an address") };
    let news =
        vec![Member { peer: big(7), version: 1, gone: false }, Member { peer: six, version: 70_000, gone: true }];
    requests.push(Request::Members { until: Some(Id::sha1(b"end")), digest: None, news: news.clone() });
    requests.push(Request::Members { until: None, digest: Some(u64::MAX), news: vec![] });
    for (entries, route) in
        [(vec![contact.clone()], Route::Iterative), (vec![removal.clone(), contact.clone()], Route::Here)]
    {
        requests.push(Request::Store { key, replica: 1, entries, route });
    }
    let aor = Some(bob.aor().into());
    let asks = [
        Ask::Attach { rank: None, expires: 600, other: None, able: false },
        Ask::Attach { rank: Some(Rank::Primary), expires: 3600, other: Some(big(7).id), able: true },
        Ask::Attach { rank: Some(Rank::Backup), expires: 60, other: None, able: true },
        Ask::Detach,
        Ask::Get { key, aor, mode: Mode::Auto },
        Ask::Get { key, aor: None, mode: Mode::Iterative },
        Ask::Put { key, entry: Box::new(contact.clone()) },
        Ask::Put { key, entry: Box::new(removal.clone()) },
        Ask::Find { target: Id::sha1(b"t"), mode: Mode::Recursive },
        Ask::DialBack,
        Ask::Dial { peer: big(8) },
        Ask::Gone { peer: big(9) },
        Ask::Wanted { urgent: true },
        Ask::Wanted { urgent: false },
    ];
    requests.splice(2..2, asks.map(Request::Tier));
    let way = Way { hops: 3, asked: path.clone(), retries: 1, mode: Mode::Recursive };
    let offer = Offer {
        expires: 3600,
        load: 12,
        capacity: 256,
        ring: 4_000_000_000,
        wanted: true,
        unix: UnixTime(1_800_000_000),
    };
    let answers = [
        Answer::Attached { offer, supernodes: vec![big(2), big(9), big(4)] },
        Answer::Attached { offer: Offer::default(), supernodes: vec![] },
        Answer::Found { entries: vec![contact.clone(), removal.clone()], way: way.clone() },
        Answer::Found { entries: vec![], way: way.clone() },
        Answer::Written { acks: 2, way: way.clone() },
        Answer::Responsible { peer: big(5), way: Way { asked: vec![], mode: Mode::Iterative, ..way } },
        Answer::Reachable(true),
        Answer::Reachable(false),
        Answer::Done,
    ];
    let answers = answers.map(|a| (RequestKind::Tier, Response::Tier(a)));
    let mut responses = vec![
        (RequestKind::Tier, Response::Refused { current: vec![contact.clone()] }),
        (RequestKind::Tier, Response::Redirect { closer: big(9), links: Links::default() }),
        (RequestKind::Tier, Response::Failed(Failure::NotInRing)),
        (RequestKind::Tier, Response::Failed(Failure::Status(404))),
        (RequestKind::Register, Response::Admitted { links: links.clone() }),
        (RequestKind::Register, Response::Redirect { closer: big(9), links: links.clone() }),
        (RequestKind::Leave, Response::Bye),
        (RequestKind::Query, Response::Responsible { exact: true, links: links.clone(), path: vec![] }),
        (RequestKind::Query, Response::Responsible { exact: false, links: links.clone(), path: path.clone() }),
        (
            RequestKind::Fetch,
            Response::Entries {
                entries: vec![contact.clone()],
                responsible: true,
                links: links.clone(),
                path: path.clone(),
            },
        ),
        (
            RequestKind::Fetch,
            Response::Entries {
                entries: vec![contact.clone()],
                responsible: false,
                links: Links::default(),
                path: vec![],
            },
        ),
        (RequestKind::Fetch, Response::Cached { entries: vec![contact.clone()], path: path.clone() }),
        (RequestKind::Members, Response::Members { news }),
        (RequestKind::Members, Response::Members { news: vec![] }),
        (RequestKind::Members, Response::Failed(Failure::Status(404))),
        (RequestKind::Fetch, Response::Entries { entries: vec![], responsible: true, links: links.clone(), path }),
        (RequestKind::Store, Response::Stored { links }),
        (RequestKind::Store, Response::Refused { current: vec![contact] }),
        (RequestKind::Fetch, Response::Failed(Failure::Loop)),
        (RequestKind::Store, Response::Failed(Failure::Status(404))),
        (RequestKind::Query, Response::Failed(Failure::TooManyHops)),
    ];
    responses.extend(answers);
    (requests, responses)
}

#[test]
fn both_ways() {
    let mut rng = Rng::from_seed(2);
    let (requests, responses) = samples();
    let mut first = None;
    for request in &requests {
        let message = carry().encode_request(request, big(2).addr, &mut rng);
        let message = Message::parse(&message.to_bytes()).expect("it is SIP");
        assert!(is_overlay(&message), "{request:?}");
        assert_eq!(carry().decode_request(&message), Ok((big(1), request.clone())));
        // With a Via, as the node adds it, it is a valid request for any SIP stack.
        let mut whole = message.clone();
        whole.push_front("Via", "SIP/2.0/TLS 127.0.0.1:5001;branch=z9hG4bK1");
        assert_eq!(whole.validate(), Ok(()));
        first.get_or_insert(whole);
    }
    let asked = first.expect("there are requests");
    for (kind, response) in &responses {
        let message = carry().encode_response(&asked, response, &mut rng);
        let message = Message::parse(&message.to_bytes()).expect("it is SIP");
        assert_eq!(message.validate(), Ok(()));
        assert_eq!(carry().decode_response(&message, *kind), Ok((Some(big(1)), response.clone())));
    }
    // The Contact beside an entry is for people: a wrong one changes nothing.
    let Some(Request::Store { .. }) = requests.last() else { panic!("a store comes last") };
    let mut message = carry().encode_request(&requests[requests.len() - 1], big(2).addr, &mut rng);
    message.set("Contact", "<sip:mallory@10.0.0.1>");
    assert_eq!(carry().decode_request(&message), Ok((big(1), requests[requests.len() - 1].clone())));
    assert!(UNIX.secs() > 0);
}

#[test]
fn mutated_messages_do_no_harm() {
    let mut rng = Rng::from_seed(3);
    let (requests, responses) = samples();
    let asked = carry().encode_request(&requests[0], big(2).addr, &mut rng);
    let mut seeds: Vec<(Vec<u8>, RequestKind)> = requests
        .iter()
        .map(|r| (carry().encode_request(r, big(2).addr, &mut rng).to_bytes().to_vec(), r.kind()))
        .collect();
    for (kind, response) in &responses {
        seeds.push((carry().encode_response(&asked, response, &mut rng).to_bytes().to_vec(), *kind));
    }
    let pieces: [&[u8]; 12] =
        [b";", b"<", b">", b",", b"\"", b"=", b"sip:", b"peer-ID=", b"\r\n", b"99999999999999999999", b"\x80", b"[::"];
    let kinds = [
        RequestKind::Register,
        RequestKind::Leave,
        RequestKind::Query,
        RequestKind::Fetch,
        RequestKind::Store,
        RequestKind::Members,
        RequestKind::Tier,
    ];
    let (mut read, mut refused) = (0u32, 0u32);
    for round in 0..60_000u64 {
        let (bytes, kind) = &seeds[(round as usize) % seeds.len()];
        let mut bytes = bytes.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(5) {
                0 => bytes[at] = rng.next_u32() as u8,
                1 => {
                    bytes.remove(at);
                }
                2 => {
                    let piece = pieces[rng.below(pieces.len() as u64) as usize];
                    bytes.splice(at..at, piece.iter().copied());
                }
                3 => {
                    let end = (at + rng.below(40) as usize).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let end = (at + rng.below(40) as usize).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
            if bytes.is_empty() {
                bytes.push(b' ');
            }
        }
        let Ok(message) = Message::parse(&bytes) else {
            refused += 1;
            continue;
        };
        let good = if message.is_request() {
            let decoded = carry().decode_request(&message);
            if let Err(error) = &decoded {
                let status = carry().refuse(&message, error).status();
                assert!((400..500).contains(&status));
            }
            if let Ok((_, request)) = &decoded {
                // What was understood can be said again.
                let again = carry().encode_request(request, big(2).addr, &mut rng);
                assert!(Message::parse(&again.to_bytes()).is_ok());
            }
            decoded.is_ok()
        } else {
            let kind = if rng.below(4) == 0 { kinds[rng.below(kinds.len() as u64) as usize] } else { *kind };
            carry().decode_response(&message, kind).is_ok()
        };
        if good { read += 1 } else { refused += 1 }
    }
    // Both ways out are taken: else the mutations were too gentle or too harsh.
    assert!(read > 5_000 && refused > 5_000, "{read} read, {refused} refused");
}
