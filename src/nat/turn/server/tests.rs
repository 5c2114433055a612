use super::super::client::{Family, Fault as ClientFault, Output as Seen};
use super::super::table::{Ceilings, Path};
use super::super::testing::{self, RELAY, Relay, UNIX, client, config, exchange, path, relayed};
use super::*;
use crate::core::Transport;
use crate::stun::attributes::*;

const NOW: Instant = Instant::from_millis(1_000_000);

fn relay() -> Relay {
    Relay::new(NOW, config(), Ceilings::default())
}

fn after(secs: u64) -> Instant {
    NOW + Duration::from_secs(secs)
}

/// A request as a client that knows its credential writes it.
fn request(method: Method, who: &str, from: &str, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let secret = config().secret;
    let minted = secret.mint(who, UnixTime(UNIX.secs() + 3600));
    let mut message = Message::new(Class::Request, method, [9; 12]);
    fill(&mut message);
    message.push_credential(Some(&minted.username), "office", &secret.nonce(NOW, from.parse().unwrap()));
    let key = Key::long_term_md5(&minted.username, "office", minted.password.reveal());
    message.encode(Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false })
}

fn ask(relay: &mut Relay, from: &str, bytes: &[u8]) -> Message {
    relay.hear_client(NOW, path(from), bytes);
    let (_, answer) = relay.answers.pop().expect("no answer");
    Parsed::read(&answer).unwrap().message
}

fn code(relay: &mut Relay, from: &str, bytes: &[u8]) -> u16 {
    ask(relay, from, bytes).error_code().unwrap_or(200)
}

fn allocate(message: &mut Message) {
    message.push(RequestedTransport::new(17));
}

const ANN: &str = "203.0.113.1:1000";
const BEN: &str = "203.0.113.2:1000";

#[test]
fn a_packet_goes_there_and_back() {
    let mut relay = relay();
    let mut ann = client(NOW, "ann", Transport::Udp, None);
    let at = relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)));
    let peer: SocketAddr = "9.9.9.9:5000".parse().unwrap();
    ann.send(NOW, peer, b"one");
    let seen = exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert!(seen.contains(&Seen::Permitted(peer.ip())), "{seen:?}");
    ann.send(NOW, peer, b"two");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert_eq!(relay.sent.last(), Some(&(at[0], peer, b"two".to_vec())));
    relay.hear_peer(NOW, at[0], peer, b"back");
    // By the channel that was bound meanwhile.
    assert_eq!(relay.answers[0].1[0], 0x40);
    let seen = exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert_eq!(seen, [Seen::Data { peer, bytes: b"back".to_vec() }]);
    // Another port of the same address has a permission and no channel; another address has none.
    relay.hear_peer(NOW, at[0], "9.9.9.9:6000".parse().unwrap(), b"other");
    relay.hear_peer(NOW, at[0], "9.9.9.8:5000".parse().unwrap(), b"stranger");
    let seen = exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert_eq!(seen, [Seen::Data { peer: "9.9.9.9:6000".parse().unwrap(), bytes: b"other".to_vec() }]);
    assert_eq!(relay.table.carried().refused, 1);
}

#[test]
fn two_clients_of_one_relay_meet_inside() {
    let mut relay = relay();
    let (mut ann, mut ben) = (client(NOW, "ann", Transport::Udp, None), client(NOW, "ben", Transport::Tcp, None));
    let stream = Path::Stream { connection: 5, client: BEN.parse().unwrap() };
    let a = relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)))[0];
    let b = relayed(&exchange(NOW, &mut ben, &mut relay, stream))[0];
    ann.create_permission(NOW, b);
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    ann.send(NOW, b, b"not yet");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert!(relay.answers.is_empty(), "without a permission at the other end");
    ben.create_permission(NOW, a);
    exchange(NOW, &mut ben, &mut relay, stream);
    ann.send(NOW, b, b"now");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert_eq!(exchange(NOW, &mut ben, &mut relay, stream), [Seen::Data { peer: a, bytes: b"now".to_vec() }]);
    ben.send(NOW, a, b"and back");
    exchange(NOW, &mut ben, &mut relay, stream);
    assert_eq!(exchange(NOW, &mut ann, &mut relay, path(ANN)), [Seen::Data { peer: b, bytes: b"and back".to_vec() }]);
    assert!(relay.sent.is_empty(), "nothing left by a socket");
    // The relay's own address at a port that is nobody's allocation: dropped.
    let own = SocketAddr::new(a.ip(), 22);
    ann.send(NOW, own, b"ssh?");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    ann.send(NOW, own, b"ssh?");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    assert!(relay.sent.is_empty());
}

#[test]
fn forbidden_peers() {
    let mut relay = relay();
    assert_eq!(code(&mut relay, ANN, &request(Method::ALLOCATE, "ann", ANN, allocate)), 200);
    for peer in [
        "127.0.0.1:80",
        "169.254.169.254:80",
        "192.168.1.1:80",
        "10.1.1.1:80",
        "100.64.0.1:1",
        "0.0.0.0:1",
        "224.0.0.1:1",
    ] {
        let peer: SocketAddr = peer.parse().unwrap();
        let permission = request(Method::CREATE_PERMISSION, "ann", ANN, |m| m.push(XorPeerAddress::new(peer)));
        assert_eq!(code(&mut relay, ANN, &permission), 403, "{peer}");
        let bind = request(Method::CHANNEL_BIND, "ann", ANN, |m| {
            m.push_raw(crate::stun::raw::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
            m.push(XorPeerAddress::new(peer));
        });
        assert_eq!(code(&mut relay, ANN, &bind), 403, "{peer}");
    }
    // IPv4 in IPv6 is the IPv4 address; true IPv6 is another family than the allocation's.
    for (peer, expected) in [("[::ffff:127.0.0.1]:80", 403), ("[::1]:80", 443), ("[2a00::1]:80", 443)] {
        let peer: SocketAddr = peer.parse().unwrap();
        let permission = request(Method::CREATE_PERMISSION, "ann", ANN, |m| m.push(XorPeerAddress::new(peer)));
        assert_eq!(code(&mut relay, ANN, &permission), expected, "{peer}");
    }
    // One bad peer among good ones: none of them.
    let both = request(Method::CREATE_PERMISSION, "ann", ANN, |m| {
        m.push(XorPeerAddress::new("9.9.9.9:1".parse().unwrap()));
        m.push(XorPeerAddress::new("127.0.0.1:1".parse().unwrap()));
    });
    assert_eq!(code(&mut relay, ANN, &both), 403);
    let mut send = Vec::new();
    crate::stun::write_data(&mut send, true, &[0; 12], "9.9.9.9:1".parse().unwrap(), b"x").unwrap();
    relay.hear_client(NOW, path(ANN), &send);
    assert!(relay.sent.is_empty() && relay.server.counters().forbidden > 10);
    // A member's proven address is let through.
    let lifetime = Duration::from_secs(60);
    relay.server.handle(NOW, Input::Proven { ip: "192.168.1.1".parse().unwrap(), lifetime });
    let peer = "192.168.1.1:80".parse().unwrap();
    let permission = request(Method::CREATE_PERMISSION, "ann", ANN, |m| m.push(XorPeerAddress::new(peer)));
    assert_eq!(code(&mut relay, ANN, &permission), 200);
}

#[test]
fn who_is_not_proven_gets_a_challenge() {
    let mut relay = relay();
    let mut bare = Message::new(Class::Request, Method::ALLOCATE, [1; 12]);
    bare.push(RequestedTransport::new(17));
    let answer = ask(&mut relay, ANN, &bare.encode(Seal::default()));
    assert_eq!(answer.error_code(), Some(401));
    assert_eq!(answer.get::<Realm>().unwrap().text(), "office");
    assert!(config().secret.nonce_holds(NOW, ANN.parse().unwrap(), answer.get::<Nonce>().unwrap().value()));
    // Signed with another password, under another's nonce, as nobody, expired.
    let mut guess = testing::wrong_password(NOW);
    let seen = exchange(NOW, &mut guess, &mut relay, path(ANN));
    assert_eq!(seen, [Seen::Failed(ClientFault::Refused(401))]);
    assert_eq!(code(&mut relay, BEN, &request(Method::ALLOCATE, "ann", ANN, allocate)), 438);
    let mut late = client(NOW, "ann", Transport::Udp, None);
    // The wall clock goes with the other one: an hour later the credential has expired.
    let seen = exchange(after(3600), &mut late, &mut relay, path(ANN));
    assert_eq!(seen, [Seen::Failed(ClientFault::Refused(401))]);
    assert_eq!(relay.server.allocations(), 0);
    // A signature without a name.
    let key = Key::short_term("x");
    let nameless = bare.encode(Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false });
    assert_eq!(code(&mut relay, ANN, &nameless), 400);
}

#[test]
fn the_algorithms_offered_must_come_back_whole() {
    let mut relay = relay();
    let changed = request(Method::ALLOCATE, "ann", ANN, |m| {
        allocate(m);
        m.push_raw(crate::stun::raw::PASSWORD_ALGORITHMS, &[0, 1, 0, 0]);
        m.push_raw(crate::stun::raw::PASSWORD_ALGORITHM, &[0, 1, 0, 0]);
    });
    assert_eq!(code(&mut relay, ANN, &changed), 400);
}

#[test]
fn codes_of_what_does_not_fit() {
    let mut relay = relay();
    let refresh = request(Method::REFRESH, "ann", ANN, |_| {});
    assert_eq!(code(&mut relay, ANN, &refresh), 437);
    let gone = request(Method::REFRESH, "ann", ANN, |m| m.push(Lifetime::from_u32(0)));
    assert_eq!(code(&mut relay, ANN, &gone), 200);
    assert_eq!(code(&mut relay, ANN, &request(Method::ALLOCATE, "ann", ANN, |_| {})), 400);
    let tcp = request(Method::ALLOCATE, "ann", ANN, |m| m.push(RequestedTransport::new(6)));
    assert_eq!(code(&mut relay, ANN, &tcp), 400, "a stream at the far end of datagrams");
    let sctp = request(Method::ALLOCATE, "ann", ANN, |m| m.push(RequestedTransport::new(132)));
    assert_eq!(code(&mut relay, ANN, &sctp), 442);
    let first = request(Method::ALLOCATE, "ann", ANN, allocate);
    let one = ask(&mut relay, ANN, &first);
    let again = ask(&mut relay, ANN, &first);
    let at = |m: &Message| m.get::<XorRelayAddress>().unwrap().address();
    assert_eq!((at(&one), relay.server.allocations()), (at(&again), 1));
    let mut other = Message::new(Class::Request, Method::ALLOCATE, [8; 12]);
    other.push(RequestedTransport::new(17));
    let another = request(Method::ALLOCATE, "ann", ANN, |m| {
        *m = other;
    });
    assert_eq!(code(&mut relay, ANN, &another), 437);
    let foreign = request(Method::REFRESH, "ben", ANN, |_| {});
    assert_eq!(code(&mut relay, ANN, &foreign), 441);
    assert_eq!(code(&mut relay, ANN, &request(Method::CREATE_PERMISSION, "ann", ANN, |_| {})), 400);
    let unknown = request(Method::REFRESH, "ann", ANN, |m| m.push_raw(0x7123, b"????"));
    let answer = ask(&mut relay, ANN, &unknown);
    assert_eq!(answer.error_code(), Some(420));
    assert_eq!(answer.get::<UnknownAttributes>().unwrap().unknowns()[0].as_u16(), 0x7123);
}

#[test]
fn channels_stand_for_one_peer_each() {
    let mut relay = relay();
    code(&mut relay, ANN, &request(Method::ALLOCATE, "ann", ANN, allocate));
    let mut bind = |number: u16, peer: &str| {
        let bytes = request(Method::CHANNEL_BIND, "ann", ANN, |m| {
            m.push_raw(crate::stun::raw::CHANNEL_NUMBER, &[(number >> 8) as u8, number as u8, 0, 0]);
            m.push(XorPeerAddress::new(peer.parse().unwrap()));
        });
        code(&mut relay, ANN, &bytes)
    };
    assert_eq!(bind(0x4000, "9.9.9.9:1"), 200);
    assert_eq!(bind(0x4000, "9.9.9.9:1"), 200);
    assert_eq!(bind(0x4000, "9.9.9.9:2"), 400);
    assert_eq!(bind(0x4001, "9.9.9.9:1"), 400);
    assert_eq!(bind(0x8000, "9.9.9.9:3"), 400);
    assert_eq!(bind(0x7FFF, "9.9.9.9:3"), 200);
}

#[test]
fn quotas() {
    let mut relay = relay();
    for i in 0..4 {
        let from = format!("203.0.113.1:{}", 1000 + i);
        assert_eq!(code(&mut relay, &from, &request(Method::ALLOCATE, "ann", &from, allocate)), 200);
    }
    let fifth = "203.0.113.1:1004";
    assert_eq!(code(&mut relay, fifth, &request(Method::ALLOCATE, "ann", fifth, allocate)), 486);
    for (i, who) in ["b", "b", "b", "b", "c", "c"].iter().enumerate() {
        let from = format!("203.0.113.7:{}", 1000 + i);
        assert_eq!(code(&mut relay, &from, &request(Method::ALLOCATE, who, &from, allocate)), 200);
    }
    let last = "203.0.113.8:1000";
    assert_eq!(code(&mut relay, last, &request(Method::ALLOCATE, "d", last, allocate)), 508);
    assert_eq!(relay.server.counters().over_quota, 2);
    // One given back makes room.
    let back = request(Method::REFRESH, "ann", ANN, |m| m.push(Lifetime::from_u32(0)));
    assert_eq!(code(&mut relay, ANN, &back), 200);
    assert_eq!(code(&mut relay, last, &request(Method::ALLOCATE, "d", last, allocate)), 200);
}

#[test]
fn permissions_of_one_allocation_are_bounded() {
    let mut relay = relay();
    code(&mut relay, ANN, &request(Method::ALLOCATE, "ann", ANN, allocate));
    let mut refused = 0;
    for i in 0..300u32 {
        let peer = SocketAddr::new(std::net::Ipv4Addr::from(0x0909_0000 + i).into(), 1);
        let permission = request(Method::CREATE_PERMISSION, "ann", ANN, |m| m.push(XorPeerAddress::new(peer)));
        refused += usize::from(code(&mut relay, ANN, &permission) == 508);
    }
    assert_eq!(refused, 300 - 128);
}

#[test]
fn what_is_not_renewed_ends() {
    let mut relay = relay();
    let mut ann = client(NOW, "ann", Transport::Udp, None);
    let at = relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)))[0];
    let peer: SocketAddr = "9.9.9.9:5000".parse().unwrap();
    ann.create_permission(NOW, peer);
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    relay.timeout(after(299));
    relay.hear_peer(after(299), at, peer, b"in time");
    assert_eq!(relay.answers.len(), 1);
    relay.timeout(after(301));
    relay.hear_peer(after(301), at, peer, b"too late");
    assert_eq!(relay.answers.len(), 1);
    relay.timeout(after(601));
    assert_eq!((relay.server.allocations(), relay.open.len()), (0, 0));
    assert_eq!(relay.server.poll_timeout(), None);
}

#[test]
fn a_port_pair_is_reserved_and_taken_up() {
    let mut relay = relay();
    let even = ask(
        &mut relay,
        ANN,
        &request(Method::ALLOCATE, "ann", ANN, |m| {
            allocate(m);
            m.push(EvenPort::new(true));
        }),
    );
    let port = even.get::<XorRelayAddress>().unwrap().address().port();
    assert_eq!(port % 2, 0);
    let token = even.get::<ReservationToken>().unwrap().token();
    let second = "203.0.113.1:1001";
    let take = request(Method::ALLOCATE, "ann", second, |m| {
        allocate(m);
        m.push(ReservationToken::new(token));
    });
    let next = ask(&mut relay, second, &take);
    assert_eq!(next.get::<XorRelayAddress>().unwrap().address().port(), port + 1);
    let third = "203.0.113.1:1002";
    let twice = request(Method::ALLOCATE, "ann", third, |m| {
        allocate(m);
        m.push(ReservationToken::new(token));
    });
    assert_eq!(code(&mut relay, third, &twice), 508);
    // One that nobody takes up is given back.
    let fourth = "203.0.113.1:1003";
    code(
        &mut relay,
        fourth,
        &request(Method::ALLOCATE, "ann", fourth, |m| {
            allocate(m);
            m.push(EvenPort::new(true));
        }),
    );
    assert_eq!(relay.open.len(), 4);
    relay.timeout(after(31));
    assert_eq!(relay.open.len(), 3);
}

#[test]
fn families() {
    let mut relay = relay();
    let mut six = client(NOW, "ann", Transport::Udp, Some(Family::V6));
    let at = relayed(&exchange(NOW, &mut six, &mut relay, path(ANN)));
    assert!(at.len() == 1 && at[0].is_ipv6());
    let mut both = client(NOW, "ben", Transport::Udp, Some(Family::Both));
    let at = relayed(&exchange(NOW, &mut both, &mut relay, path(BEN)));
    assert!(at.len() == 2 && at[0].is_ipv4() && at[1].is_ipv6(), "{at:?}");
    let peer: SocketAddr = "[2a00::9]:7".parse().unwrap();
    both.create_permission(NOW, peer);
    exchange(NOW, &mut both, &mut relay, path(BEN));
    both.send(NOW, peer, b"six");
    exchange(NOW, &mut both, &mut relay, path(BEN));
    assert_eq!(relay.sent.last(), Some(&(at[1], peer, b"six".to_vec())));
    // Where there is no IPv6: 440; beside IPv4 it is told and does not hinder.
    let mut four = config();
    four.addresses.truncate(1);
    let mut relay = Relay::new(NOW, four, Ceilings::default());
    let mut six = client(NOW, "ann", Transport::Udp, Some(Family::V6));
    assert_eq!(exchange(NOW, &mut six, &mut relay, path(ANN)), [Seen::Failed(ClientFault::Refused(440))]);
    let mut both = client(NOW, "ann", Transport::Udp, Some(Family::Both));
    assert_eq!(relayed(&exchange(NOW, &mut both, &mut relay, path(ANN))).len(), 1);
}

#[test]
fn taken_ports_are_gone_around_and_none_is_508() {
    let mut relay = relay();
    relay.taken = (50_000..50_900).collect();
    let mut ann = client(NOW, "ann", Transport::Udp, None);
    // One port in ten is free and sixteen are tried; the seed finds one.
    let at = relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)));
    assert!(at[0].port() >= 50_900);
    relay.taken = (50_000..51_000).collect();
    assert_eq!(code(&mut relay, BEN, &request(Method::ALLOCATE, "ben", BEN, allocate)), 508);
    assert_eq!((relay.server.allocations(), relay.open.len()), (1, 1));
}

#[test]
fn a_stream_that_ends_takes_its_allocation_along() {
    let mut relay = relay();
    let stream = Path::Stream { connection: 1, client: ANN.parse().unwrap() };
    let mut ann = client(NOW, "ann", Transport::Tls, None);
    relayed(&exchange(NOW, &mut ann, &mut relay, stream));
    relay.gone(NOW, stream);
    assert_eq!((relay.server.allocations(), relay.open.len()), (0, 0));
    // Given back in words, the stream is closed.
    let stream = Path::Stream { connection: 2, client: ANN.parse().unwrap() };
    let mut ann = client(NOW, "ann", Transport::Tls, None);
    relayed(&exchange(NOW, &mut ann, &mut relay, stream));
    ann.close(NOW);
    assert_eq!(exchange(NOW, &mut ann, &mut relay, stream), [Seen::Closed]);
    assert_eq!(relay.hung, [stream]);
}

#[test]
fn a_ceiling_drops_what_is_too_much() {
    let mut relay = Relay::new(NOW, config(), Ceilings { total: 80_000, each: 0 });
    let mut ann = client(NOW, "ann", Transport::Udp, None);
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    let peer: SocketAddr = "9.9.9.9:5000".parse().unwrap();
    ann.create_permission(NOW, peer);
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    // 172 + 28 bytes are 1,600 bits: fifty a second, and fifteen at once.
    for at in 0..1000u64 {
        let now = NOW + Duration::from_millis(10 * at);
        ann.send(now, peer, &[0; 172]);
        exchange(now, &mut ann, &mut relay, path(ANN));
    }
    let sent = relay.sent.len();
    assert!((500..=530).contains(&sent), "{sent}");
    assert_eq!(relay.table.carried().over as usize, 1000 - sent);
}

#[test]
fn a_source_that_proves_nothing_gets_few_answers() {
    let mut relay = relay();
    let bare = Message::new(Class::Request, Method::ALLOCATE, [1; 12]).encode(Seal::default());
    for i in 0..10_000u64 {
        relay.hear_client(NOW + Duration::from_micros(i * 100), path(ANN), &bare);
    }
    assert!(relay.answers.len() <= 260, "{}", relay.answers.len());
    assert!(relay.server.counters().spared >= 9_700);
    // Another network is not hindered.
    let before = relay.answers.len();
    relay.hear_client(NOW, path("198.18.7.7:9"), &bare);
    assert_eq!(relay.answers.len(), before + 1);
}

#[test]
fn binding_and_behaviour() {
    let mut relay = relay();
    let plain = Message::new(Class::Request, Method::BINDING, [1; 12]);
    let answer = ask(&mut relay, ANN, &plain.encode(Seal::default()));
    assert_eq!(answer.get::<XorMappedAddress>().unwrap().address(), ANN.parse().unwrap());
    let face = |port| format!("{RELAY}:{port}").parse::<SocketAddr>().unwrap();
    assert_eq!(answer.get::<ResponseOrigin>().unwrap().address(), face(3478));
    assert_eq!(answer.get::<OtherAddress>().unwrap().address(), face(3479));
    let mut change = plain.clone();
    change.push_raw(crate::stun::raw::CHANGE_REQUEST, &[0, 0, 0, 2]);
    relay.hear_client(NOW, path(ANN), &change.encode(Seal::default()));
    let (from, bytes) = relay.answers.pop().unwrap();
    assert!(matches!(from, Path::Datagram { socket: 1, .. }), "{from:?}");
    assert_eq!(Parsed::read(&bytes).unwrap().message.get::<ResponseOrigin>().unwrap().address(), face(3479));
    let mut other = plain;
    other.push_raw(crate::stun::raw::CHANGE_REQUEST, &[0, 0, 0, 6]);
    assert_eq!(code(&mut relay, ANN, &other.encode(Seal::default())), 420);
}

#[test]
fn another_address_of_this_machine_is_answered_as_itself() {
    let mut relay = relay();
    let plain = Message::new(Class::Request, Method::BINDING, [1; 12]).encode(Seal::default());
    let second: std::net::IpAddr = "198.51.100.77".parse().unwrap();
    let path = Path::Datagram { socket: 0, local: Some(second), client: ANN.parse().unwrap() };
    relay.hear_client(NOW, path, &plain);
    let answer = Parsed::read(&relay.answers.pop().unwrap().1).unwrap().message;
    assert_eq!(answer.get::<ResponseOrigin>().unwrap().address(), SocketAddr::new(second, 3478));
    assert_eq!(answer.get::<OtherAddress>().unwrap().address(), SocketAddr::new(second, 3479));
}

#[test]
fn what_a_member_asked_for_goes_to_it_and_is_no_larger_than_a_question() {
    let mut relay = relay();
    let to: SocketAddr = ANN.parse().unwrap();
    for _ in 0..1000 {
        relay.server.handle(NOW, Input::Answer { to, id: [5; 12] });
    }
    let mut sent = Vec::new();
    while let Some(Output::Answer { path: Path::Datagram { client, .. }, bytes }) = relay.server.poll_output() {
        assert!(client == to && bytes.len() <= 32, "{} bytes to {client}", bytes.len());
        sent.push(bytes);
    }
    assert!((1..=200).contains(&sent.len()), "{}", sent.len());
    let answer = Parsed::read(&sent[0]).unwrap().message;
    assert_eq!((answer.class, answer.id), (Class::Success, [5; 12]));
    assert_eq!(answer.get::<XorMappedAddress>().unwrap().address(), to);
}

#[test]
fn a_hostile_client_gets_nowhere() {
    let mut relay = relay();
    let mut rng = Rng::from_seed(11);
    code(&mut relay, ANN, &request(Method::ALLOCATE, "ann", ANN, allocate));
    let good =
        request(Method::CREATE_PERMISSION, "ann", ANN, |m| m.push(XorPeerAddress::new("9.9.9.9:1".parse().unwrap())));
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u32() as u8;
        }
        bytes.truncate(rng.below(bytes.len() as u64 * 4).min(good.len() as u64) as usize);
        relay.hear_client(NOW, path(ANN), &bytes);
        relay.answers.clear();
    }
    assert_eq!((relay.server.allocations(), relay.sent.len()), (1, 0));
}
