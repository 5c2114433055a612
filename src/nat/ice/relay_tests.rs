use super::*;
use crate::core::UnixTime;
use crate::nat::turn::credential::Secret;
use crate::nat::turn::table::{Ceilings, Path};
use crate::nat::turn::testing::{self, RELAY, UNIX};

const NOW: Instant = Instant::from_millis(1_000_000);
const BASE: &str = "[2001:db8:9::9]:40000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server(both: bool, addr: &str) -> RelayServer {
    let minted = Secret::new([7; 32]).mint("ann", UnixTime(UNIX.secs() + 3600));
    RelayServer {
        addr: at(addr),
        transport: Transport::Tls,
        certificate: Some([0; 32]),
        both,
        username: minted.username,
        password: minted.password,
    }
}

/// Lets both talk; what came of it beside bytes. `path` is how the relay sees us.
fn settle(relay: &mut Relay, there: &mut testing::Relay, path: Path) -> Vec<RelayOutput> {
    let mut seen = Vec::new();
    loop {
        let mut busy = false;
        while let Some(output) = relay.poll_output() {
            busy = true;
            match output {
                RelayOutput::Send(datagram) => there.hear_client(NOW, path, &datagram.bytes),
                other => seen.push(other),
            }
        }
        for (_, bytes) in std::mem::take(&mut there.answers) {
            busy = true;
            let server = relay.server();
            assert!(relay.handle(NOW, at(BASE), server, &bytes));
        }
        if !busy {
            return seen;
        }
    }
}

#[test]
fn who_has_one_family_gets_addresses_of_both() {
    let mut there = testing::Relay::new(NOW, testing::config(), Ceilings::default());
    let path = Path::Stream { connection: 1, client: at(BASE) };
    let mut relay = Relay::new(NOW, server(true, "[2001:db8::1]:443"), at(BASE), false, Rng::from_seed(2));
    let told = settle(&mut relay, &mut there, path);
    let [RelayOutput::Allocated(v4), RelayOutput::Allocated(v6)] = told[..] else { panic!("{told:?}") };
    assert_eq!((v4.ip(), v6.ip()), (RELAY.parse().unwrap(), at("[2001:db8::1]:1").ip()));
    assert!(relay.holds(v4) && relay.holds(v6) && !relay.holds(at(BASE)));
    // Each peer hears from the address of its own family, and its packets come to that.
    for (peer, own) in [(at("9.9.9.9:5000"), v4), (at("[2600::1]:5000"), v6)] {
        assert_eq!(relay.relayed(peer), Some(own));
        relay.send(NOW, peer, b"out");
        settle(&mut relay, &mut there, path);
        relay.send(NOW, peer, b"again");
        settle(&mut relay, &mut there, path);
        assert_eq!(there.sent.last(), Some(&(own, peer, b"again".to_vec())));
        there.hear_peer(NOW, own, peer, b"in");
        assert_eq!(settle(&mut relay, &mut there, path), [RelayOutput::Data { peer, bytes: b"in".to_vec() }]);
    }
}

#[test]
fn the_family_is_asked_for_by_what_both_ends_have() {
    use Family::{Both, V6};
    for (dual, both, addr, family) in [
        (false, true, "192.0.2.1:3478", Some(Both)),
        (false, true, "[2001:db8::1]:3478", Some(Both)),
        (true, true, "192.0.2.1:3478", None),
        (true, true, "[2001:db8::1]:3478", Some(V6)),
        (false, false, "192.0.2.1:3478", None),
        (false, false, "[2001:db8::1]:3478", Some(V6)),
    ] {
        assert_eq!(server(both, addr).family(dual), family, "{dual} {both} {addr}");
    }
}

#[test]
fn a_relay_that_sees_us_elsewhere_knows_us_no_more() {
    let mut there = testing::Relay::new(NOW, testing::config(), Ceilings::default());
    let before = testing::path("203.0.113.1:1000");
    let mut relay = Relay::new(NOW, server(false, "198.51.100.1:3478"), at(BASE), true, Rng::from_seed(2));
    assert_eq!(settle(&mut relay, &mut there, before).len(), 1);
    relay.doubt(NOW);
    assert_eq!(settle(&mut relay, &mut there, before), []);
    assert!(!relay.is_over());
    // The NAT on the way has begun anew.
    relay.doubt(NOW);
    assert_eq!(settle(&mut relay, &mut there, testing::path("203.0.113.1:2000")), [RelayOutput::Over]);
    assert!(relay.is_over() && relay.is_allocated());
}
