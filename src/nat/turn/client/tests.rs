use super::super::table::Ceilings;
use super::super::testing::{Relay, client, config, exchange, path, relayed};
use super::*;

const NOW: Instant = Instant::from_millis(1_000_000);
const ANN: &str = "203.0.113.1:1000";

fn relay() -> Relay {
    Relay::new(NOW, config(), Ceilings::default())
}

fn transmits(client: &mut Client) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| client.poll_output())
        .filter_map(|o| if let Output::Transmit(b) = o { Some(b) } else { None })
        .collect()
}

#[test]
fn it_is_kept_for_hours_over_stale_nonces() {
    let (mut relay, mut ann) = (relay(), client(NOW, "ann", Transport::Udp, None));
    let at = relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)))[0];
    let peer: SocketAddr = "9.9.9.9:5000".parse().unwrap();
    ann.send(NOW, peer, b"x");
    exchange(NOW, &mut ann, &mut relay, path(ANN));
    let end = NOW + Duration::from_secs(3500);
    while let Some(due) =
        [ann.poll_timeout(), relay.server.poll_timeout()].into_iter().flatten().min().filter(|t| *t < end)
    {
        // The client first, as it is the one that renews.
        ann.handle_timeout(due);
        let seen = exchange(due, &mut ann, &mut relay, path(ANN));
        assert!(seen.is_empty(), "{seen:?}");
        relay.timeout(due);
    }
    relay.hear_peer(end, at, peer, b"still");
    assert_eq!(exchange(end, &mut ann, &mut relay, path(ANN)), [Output::Data { peer, bytes: b"still".to_vec() }]);
    assert_eq!(relay.server.allocations(), 1);
}

#[test]
fn a_silent_server_is_given_up_after_the_rfcs_time() {
    let mut ann = client(NOW, "ann", Transport::Udp, None);
    let mut sent = transmits(&mut ann).len();
    let mut now = NOW;
    while let Some(due) = ann.poll_timeout() {
        now = due;
        ann.handle_timeout(now);
        if ann.stage == Stage::Over {
            break;
        }
        sent += transmits(&mut ann).len();
    }
    assert_eq!((sent, now.since(NOW)), (7, Duration::from_millis(39_500)));
    assert_eq!(ann.poll_output(), Some(Output::Failed(Fault::Silent)));
}

#[test]
fn what_is_not_signed_is_not_believed() {
    let (mut relay, mut ann) = (relay(), client(NOW, "ann", Transport::Udp, None));
    let first = transmits(&mut ann);
    relay.hear_client(NOW, path(ANN), &first[0]);
    let (_, challenge) = relay.answers.pop().unwrap();
    ann.handle(NOW, Input::Datagram(&challenge));
    let second = transmits(&mut ann);
    let request = Parsed::read(&second[0]).unwrap();
    // SHA-256 was offered and is taken.
    assert_eq!(request.integrity(), Some(stun::Integrity::Sha256));
    let mut forged = request.message.success();
    forged.push(XorRelayAddress::new("6.6.6.6:6".parse().unwrap()));
    forged.push(XorMappedAddress::new("6.6.6.6:6".parse().unwrap()));
    ann.handle(NOW, Input::Datagram(&forged.encode(stun::Seal::default())));
    assert_eq!((ann.poll_output(), ann.dropped()), (None, 1));
    // The true one still counts.
    relay.hear_client(NOW, path(ANN), &second[0]);
    let (_, answer) = relay.answers.pop().unwrap();
    ann.handle(NOW, Input::Datagram(&answer));
    assert!(matches!(ann.poll_output(), Some(Output::Allocated { .. })));
}

#[test]
fn a_forbidden_peer_is_told_and_the_allocation_stays() {
    let (mut relay, mut ann) = (relay(), client(NOW, "ann", Transport::Udp, None));
    relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)));
    let peer: SocketAddr = "127.0.0.1:80".parse().unwrap();
    ann.create_permission(NOW, peer);
    assert_eq!(exchange(NOW, &mut ann, &mut relay, path(ANN)), [Output::Forbidden { peer, code: 403 }]);
    ann.send(NOW, "9.9.9.9:1".parse().unwrap(), b"x");
    assert!(!exchange(NOW, &mut ann, &mut relay, path(ANN)).is_empty());
}

#[test]
fn hostile_answers_do_no_harm() {
    let (mut relay, mut ann) = (relay(), client(NOW, "ann", Transport::Udp, None));
    relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)));
    ann.send(NOW, "9.9.9.9:1".parse().unwrap(), b"x");
    let requests = transmits(&mut ann);
    let mut rng = Rng::from_seed(4);
    for request in &requests {
        relay.hear_client(NOW, path(ANN), request);
    }
    let answers: Vec<_> = relay.answers.drain(..).map(|(_, b)| b).collect();
    for _ in 0..5_000 {
        let mut bytes = answers[rng.below(answers.len() as u64) as usize].clone();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
        ann.handle(NOW, Input::Datagram(&bytes));
        while ann.poll_output().is_some() {}
    }
    assert_eq!(ann.stage, Stage::Allocated);
}

#[test]
fn peers_and_outputs_are_bounded() {
    let (mut relay, mut ann) = (relay(), client(NOW, "ann", Transport::Udp, None));
    relayed(&exchange(NOW, &mut ann, &mut relay, path(ANN)));
    for i in 0..2_000u32 {
        ann.send(NOW, SocketAddr::new(std::net::Ipv4Addr::from(0x0900_0000 + i).into(), 1), b"x");
    }
    assert!(ann.permissions.len() <= PEERS && ann.channels.len() <= PEERS && ann.out.len() <= OUTPUTS);
    assert!(ann.dropped() > 0);
}
