use super::super::super::credential::Secret;
use super::super::super::table::{Ceilings, Path};
use super::super::super::testing::{RELAY, Relay, UNIX, config};
use super::super::{ConnectionId, Input};
use super::*;
use crate::core::UnixTime;
use crate::stun::attributes::*;
use crate::stun::{Integrity, Key, Parsed};

const NOW: Instant = Instant::from_millis(1_000_000);
const PEER: &str = "9.9.9.9:80";

fn relay() -> Relay {
    Relay::new(NOW, config(), Ceilings::default())
}

fn after(secs: u64) -> Instant {
    NOW + Duration::from_secs(secs)
}

/// The client's connection number `connection`.
fn stream(connection: u64) -> Path {
    Path::Stream { connection, client: format!("203.0.113.1:{}", 1000 + connection).parse().unwrap() }
}

/// What `who` sends by `path`, and the answer if there is one yet.
fn ask(relay: &mut Relay, path: Path, who: &str, method: Method, fill: impl FnOnce(&mut Message)) -> Option<Message> {
    let secret: Secret = config().secret;
    let minted = secret.mint(who, UnixTime(UNIX.secs() + 3600));
    let mut message = Message::new(Class::Request, method, [9; 12]);
    fill(&mut message);
    message.push_credential(Some(&minted.username), "office", &secret.nonce(NOW, path.client()));
    let key = Key::long_term_md5(&minted.username, "office", minted.password.reveal());
    let seal = Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false };
    relay.hear_client(NOW, path, &message.encode(seal));
    said(relay, path)
}

/// What was said to `path` last.
fn said(relay: &mut Relay, path: Path) -> Option<Message> {
    let at = relay.answers.iter().rposition(|(p, _)| *p == path)?;
    Some(Parsed::read(&relay.answers.remove(at).1).unwrap().message)
}

fn code(answer: Option<Message>) -> u16 {
    answer.expect("no answer").error_code().unwrap_or(200)
}

/// A TCP allocation by the connection `number`.
fn allocate(relay: &mut Relay, number: u64, who: &str) -> SocketAddr {
    let answer = ask(relay, stream(number), who, Method::ALLOCATE, |m| m.push(RequestedTransport::new(6)));
    answer.unwrap().get::<XorRelayAddress>().unwrap().address()
}

fn connect(relay: &mut Relay, number: u64, who: &str, peer: &str) -> Option<Message> {
    let peer: SocketAddr = peer.parse().unwrap();
    ask(relay, stream(number), who, Method::CONNECT, |m| m.push(XorPeerAddress::new(peer)))
}

fn permit(relay: &mut Relay, number: u64, who: &str, peer: SocketAddr) {
    let permit = |m: &mut Message| m.push(XorPeerAddress::new(peer));
    assert_eq!(code(ask(relay, stream(number), who, Method::CREATE_PERMISSION, permit)), 200);
}

fn bind(relay: &mut Relay, number: u64, who: &str, id: ConnectionId) -> u16 {
    let id = |m: &mut Message| m.push_raw(raw::CONNECTION_ID, &id.0.to_be_bytes());
    code(ask(relay, stream(number), who, Method::CONNECTION_BIND, id))
}

fn named(message: &Message) -> ConnectionId {
    ConnectionId(u32::from_be_bytes(message.get_raw(raw::CONNECTION_ID).unwrap().try_into().unwrap()))
}

#[test]
fn a_peer_is_dialled_and_taken_up() {
    let mut relay = relay();
    let at = allocate(&mut relay, 1, "ann");
    assert!(connect(&mut relay, 1, "ann", PEER).is_none(), "before the peer has answered");
    let (id, from, to) = relay.dialled[0];
    assert_eq!((from, to), (at, PEER.parse().unwrap()));
    assert_eq!(bind(&mut relay, 2, "ann", id), 400, "before the peer has answered");
    relay.dialled(NOW, id, true);
    let answer = said(&mut relay, stream(1)).unwrap();
    assert_eq!((answer.class, answer.method, named(&answer)), (Class::Success, Method::CONNECT, id));
    assert_eq!(bind(&mut relay, 2, "ann", id), 200);
    assert_eq!(relay.joined, [(stream(2), id)]);
    // Once joined it does not run out, and is nobody else's.
    relay.timeout(after(61));
    assert!(relay.parted.is_empty());
    assert_eq!(bind(&mut relay, 3, "ann", id), 400);
    assert_eq!(code(connect(&mut relay, 1, "ann", PEER)), 446);
    // Its end leaves the allocation, and room for the same peer.
    relay.gone(NOW, stream(2));
    assert_eq!((relay.parted.as_slice(), relay.server.allocations(), relay.server.connections()), (&[id][..], 1, 0));
    assert!(connect(&mut relay, 1, "ann", PEER).is_none());
}

#[test]
fn a_peer_that_does_not_answer_is_447() {
    let mut relay = relay();
    allocate(&mut relay, 1, "ann");
    connect(&mut relay, 1, "ann", PEER);
    assert_eq!(code(connect(&mut relay, 1, "ann", PEER)), 446);
    let id = relay.dialled[0].0;
    relay.dialled(NOW, id, false);
    assert_eq!(code(said(&mut relay, stream(1))), 447);
    // Refused is said at once, silence after 30 s.
    connect(&mut relay, 1, "ann", PEER);
    relay.timeout(after(29));
    assert!(said(&mut relay, stream(1)).is_none());
    relay.timeout(after(30));
    assert_eq!(code(said(&mut relay, stream(1))), 447);
    let id = relay.dialled[1].0;
    assert_eq!((relay.parted.as_slice(), relay.server.connections()), (&[id][..], 0));
    // What comes too late is nobody's.
    relay.dialled(after(31), id, true);
    assert!(said(&mut relay, stream(1)).is_none() && bind(&mut relay, 2, "ann", id) == 400);
}

#[test]
fn what_nobody_takes_up_is_closed() {
    let mut relay = relay();
    let at = allocate(&mut relay, 1, "ann");
    permit(&mut relay, 1, "ann", PEER.parse().unwrap());
    connect(&mut relay, 1, "ann", PEER);
    let id = relay.dialled[0].0;
    relay.dialled(after(20), id, true);
    let other = relay.arrive(after(20), at, "9.9.9.9:4000".parse().unwrap()).unwrap();
    relay.timeout(after(49));
    assert!(relay.parted.is_empty());
    relay.timeout(after(50));
    relay.parted.sort();
    let mut both = [id, other];
    both.sort();
    assert_eq!((relay.parted.as_slice(), relay.server.connections()), (&both[..], 0));
    assert_eq!(bind(&mut relay, 2, "ann", id), 400);
}

#[test]
fn a_peer_with_a_permission_is_announced() {
    let mut relay = relay();
    let at = allocate(&mut relay, 1, "ann");
    let peer: SocketAddr = "9.9.9.9:4000".parse().unwrap();
    assert_eq!(relay.arrive(NOW, at, peer), None, "without a permission");
    permit(&mut relay, 1, "ann", PEER.parse().unwrap());
    assert_eq!(relay.arrive(NOW, at, "9.9.9.8:4000".parse().unwrap()), None, "another peer's");
    let id = relay.arrive(NOW, at, peer).unwrap();
    let attempt = said(&mut relay, stream(1)).unwrap();
    assert_eq!((attempt.class, attempt.method, named(&attempt)), (Class::Indication, Method::CONNECTION_ATTEMPT, id));
    assert_eq!(attempt.get::<XorPeerAddress>().unwrap().address(), peer);
    assert_eq!(bind(&mut relay, 2, "ben", id), 441);
    assert_eq!(bind(&mut relay, 2, "ann", id), 200);
    // By the nonce of the allocation's connection, though this is another one; not by that of a third.
    let mut old_nonce = |number: u64, of: u64, fill: &dyn Fn(&mut Message)| {
        let (secret, minted) = (config().secret, config().secret.mint("ann", UnixTime(UNIX.secs() + 3600)));
        let mut message = Message::new(Class::Request, Method::CONNECTION_BIND, [9; 12]);
        fill(&mut message);
        message.push_credential(Some(&minted.username), "office", &secret.nonce(NOW, stream(of).client()));
        let key = Key::long_term_md5(&minted.username, "office", minted.password.reveal());
        let seal = Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false };
        relay.hear_client(NOW, stream(number), &message.encode(seal));
        code(said(&mut relay, stream(number)))
    };
    let of_this = |m: &mut Message| m.push_raw(raw::CONNECTION_ID, &id.0.to_be_bytes());
    assert_eq!(old_nonce(3, 4, &of_this), 438);
    assert_eq!(old_nonce(3, 1, &of_this), 400, "it is joined already");
    assert_eq!(old_nonce(3, 1, &|_| {}), 438);
    // The permission has ended.
    relay.timeout(after(301));
    assert_eq!(relay.arrive(after(301), at, "9.9.9.9:4001".parse().unwrap()), None);
}

#[test]
fn forbidden_peers() {
    let mut relay = relay();
    allocate(&mut relay, 1, "ann");
    for peer in ["127.0.0.1:80", "169.254.169.254:80", "192.168.1.1:80", "10.1.1.1:80", "[::ffff:127.0.0.1]:80"] {
        assert_eq!(code(connect(&mut relay, 1, "ann", peer)), 403, "{peer}");
    }
    // The relay's own address, at a port that is no TCP allocation: another service of this machine, a UDP allocation, its own.
    let udp = ask(&mut relay, stream(2), "ben", Method::ALLOCATE, |m| m.push(RequestedTransport::new(17)));
    let udp = udp.unwrap().get::<XorRelayAddress>().unwrap().address();
    let own = allocate(&mut relay, 3, "ann");
    for peer in [format!("{RELAY}:22"), udp.to_string()] {
        assert_eq!(code(connect(&mut relay, 1, "ann", &peer)), 403, "{peer}");
    }
    assert_eq!(code(connect(&mut relay, 3, "ann", &own.to_string())), 403, "its own");
    assert!(relay.dialled.is_empty());
    assert_eq!(relay.server.counters().forbidden, 8);
    // What a member has proven.
    let lifetime = Duration::from_secs(60);
    relay.server.handle(NOW, Input::Proven { ip: "192.168.1.1".parse().unwrap(), lifetime });
    assert!(connect(&mut relay, 1, "ann", "192.168.1.1:80").is_none() && relay.dialled.len() == 1);
}

#[test]
fn two_allocations_meet_by_what_they_are_shown_as() {
    let mut config = config();
    config.shown.insert(RELAY.parse().unwrap(), "198.18.0.1".parse().unwrap());
    config.peers.own.push("198.18.0.1".parse().unwrap());
    let mut relay = Relay::new(NOW, config, Ceilings::default());
    let (ann, ben) = (allocate(&mut relay, 1, "ann"), allocate(&mut relay, 2, "ben"));
    connect(&mut relay, 1, "ann", &ben.to_string());
    let (_, from, to) = relay.dialled[0];
    assert_eq!((to.ip(), to.port(), from.ip()), (RELAY.parse().unwrap(), ben.port(), RELAY.parse().unwrap()));
    assert_eq!(relay.arrive(NOW, to, from), None, "without a permission at the other end");
    permit(&mut relay, 2, "ben", ann);
    assert!(relay.arrive(NOW, to, from).is_some());
    let attempt = said(&mut relay, stream(2)).unwrap();
    assert_eq!(attempt.get::<XorPeerAddress>().unwrap().address(), ann);
    // A program of this machine is no allocation.
    assert_eq!(relay.arrive(NOW, to, SocketAddr::new(RELAY.parse().unwrap(), 9)), None);
}

#[test]
fn codes_of_what_does_not_fit() {
    let mut relay = relay();
    assert_eq!(code(connect(&mut relay, 1, "ann", PEER)), 437);
    let tcp = |m: &mut Message| m.push(RequestedTransport::new(6));
    let even = |m: &mut Message| {
        tcp(m);
        m.push(EvenPort::new(false));
    };
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::ALLOCATE, even)), 400);
    let whole = |m: &mut Message| {
        tcp(m);
        m.push(DontFragment);
    };
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::ALLOCATE, whole)), 400);
    let token = |m: &mut Message| {
        tcp(m);
        m.push(ReservationToken::new(1));
    };
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::ALLOCATE, token)), 400);
    let datagrams = super::super::super::testing::path("203.0.113.1:1");
    assert_eq!(code(ask(&mut relay, datagrams, "ann", Method::ALLOCATE, tcp)), 400);
    // A Connect by an allocation of UDP, by somebody else, without a peer, to port 0, of another family.
    ask(&mut relay, stream(5), "ann", Method::ALLOCATE, |m| m.push(RequestedTransport::new(17)));
    assert_eq!(code(connect(&mut relay, 5, "ann", PEER)), 437);
    allocate(&mut relay, 1, "ann");
    assert_eq!(code(connect(&mut relay, 1, "ben", PEER)), 441);
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::CONNECT, |_| {})), 400);
    assert_eq!(code(connect(&mut relay, 1, "ann", "9.9.9.9:0")), 400);
    assert_eq!(code(connect(&mut relay, 1, "ann", "[2a00::9]:80")), 443);
    // An old nonce, no credential at all.
    let secret = config().secret;
    let mut old = Message::new(Class::Request, Method::CONNECT, [1; 12]);
    old.push_credential(Some("1:ann"), "office", &secret.nonce(NOW, "203.0.113.9:9".parse().unwrap()));
    let key = Key::short_term("x");
    relay.hear_client(NOW, stream(1), &old.encode(Seal { key: Some((&key, Integrity::Sha1)), fingerprint: false }));
    assert_eq!(code(said(&mut relay, stream(1))), 438);
    relay.hear_client(
        NOW,
        stream(9),
        &Message::new(Class::Request, Method::CONNECTION_BIND, [1; 12]).encode(Seal::default()),
    );
    assert_eq!(code(said(&mut relay, stream(9))), 401);
    // A ConnectionBind without a name, by datagrams, by the allocation's own connection; channels.
    assert_eq!(code(ask(&mut relay, stream(9), "ann", Method::CONNECTION_BIND, |_| {})), 400);
    connect(&mut relay, 1, "ann", PEER);
    let id = relay.dialled[0].0;
    relay.dialled(NOW, id, true);
    said(&mut relay, stream(1));
    let named = |m: &mut Message| m.push_raw(raw::CONNECTION_ID, &id.0.to_be_bytes());
    assert_eq!(code(ask(&mut relay, datagrams, "ann", Method::CONNECTION_BIND, named)), 400);
    assert_eq!(bind(&mut relay, 1, "ann", id), 400);
    let channel = |m: &mut Message| {
        m.push_raw(raw::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        m.push(XorPeerAddress::new(PEER.parse().unwrap()));
    };
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::CHANNEL_BIND, channel)), 403);
    // A connection that carries a peer's has no allocation.
    assert_eq!(bind(&mut relay, 9, "ann", id), 200);
    assert_eq!(code(ask(&mut relay, stream(9), "ann", Method::ALLOCATE, tcp)), 400);
}

#[test]
fn connections_are_bounded() {
    let mut relay = relay();
    let at = allocate(&mut relay, 1, "ann");
    permit(&mut relay, 1, "ann", PEER.parse().unwrap());
    for port in 1..=16 {
        assert!(connect(&mut relay, 1, "ann", &format!("9.9.9.9:{port}")).is_none(), "{port}");
    }
    assert_eq!(code(connect(&mut relay, 1, "ann", PEER)), 508);
    assert_eq!(relay.arrive(NOW, at, "9.9.9.9:4000".parse().unwrap()), None);
    assert_eq!(relay.server.counters().over_quota, 2);
    // Four allocations are one user's most, and so are 64 connections.
    let mut config = config();
    (config.allocations, config.of_one_user) = (100, 5);
    let mut relay = Relay::new(NOW, config, Ceilings::default());
    for number in 1..=5 {
        allocate(&mut relay, number, "ann");
    }
    for at in 0..64u16 {
        assert!(connect(&mut relay, u64::from(at / 16) + 1, "ann", &format!("9.9.9.9:{}", at + 1)).is_none(), "{at}");
    }
    assert_eq!(code(connect(&mut relay, 5, "ann", PEER)), 486);
    // In all.
    for number in 10..70 {
        allocate(&mut relay, number, &format!("user{number}"));
        for port in 1..=16 {
            connect(&mut relay, number, &format!("user{number}"), &format!("9.9.9.9:{port}"));
        }
    }
    assert_eq!((relay.server.connections(), relay.dialled.len()), (1024, 1024));
    allocate(&mut relay, 70, "last");
    assert_eq!(code(connect(&mut relay, 70, "last", PEER)), 508);
}

#[test]
fn an_allocation_takes_its_connections_along() {
    let mut relay = relay();
    let at = allocate(&mut relay, 1, "ann");
    permit(&mut relay, 1, "ann", PEER.parse().unwrap());
    connect(&mut relay, 1, "ann", PEER);
    let waiting = relay.arrive(NOW, at, "9.9.9.9:4000".parse().unwrap()).unwrap();
    let joined = relay.arrive(NOW, at, "9.9.9.9:4001".parse().unwrap()).unwrap();
    relay.answers.clear();
    assert_eq!(bind(&mut relay, 2, "ann", joined), 200);
    let mut all = [relay.dialled[0].0, waiting, joined];
    all.sort();
    let end = |m: &mut Message| m.push(Lifetime::from_u32(0));
    assert_eq!(code(ask(&mut relay, stream(1), "ann", Method::REFRESH, end)), 200);
    relay.parted.sort();
    assert_eq!((relay.parted.as_slice(), relay.open.len()), (&all[..], 0));
    assert_eq!((relay.server.connections(), relay.server.poll_timeout()), (0, None));
    // The joined stream's end is no news.
    relay.gone(NOW, stream(2));
    assert_eq!(relay.parted.len(), 3);
    // By time, and by the end of the client's connection.
    for end in [true, false] {
        let mut relay = self::relay();
        allocate(&mut relay, 1, "ann");
        connect(&mut relay, 1, "ann", PEER);
        let id = relay.dialled[0].0;
        relay.dialled(NOW, id, true);
        said(&mut relay, stream(1));
        assert_eq!(bind(&mut relay, 2, "ann", id), 200);
        if end {
            relay.timeout(after(601))
        } else {
            relay.gone(NOW, stream(1))
        }
        assert_eq!((relay.parted.len(), relay.open.len(), relay.server.connections()), (1, 0, 0));
    }
}
