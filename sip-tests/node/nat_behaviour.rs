//! What a node finds out of the NAT before it, by two supernodes that relay.

use crate::raw::{Talk, Way};
use crate::world::nat::Nat;
use crate::world::{START, World};
use chordial::config::Serve;
use chordial::core::Transport;
use chordial::identity::Identity;
use chordial::nat::behaviour::Dependence;
use chordial::node::control::NatStatus;
use chordial::node::{Input, Saved};
use chordial::sip::msg::Method;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const ALL: [Dependence; 3] = [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort];
const WORDS: [&str; 3] = ["independent", "address", "address-and-port"];
const CID: usize = 2;

/// Two that relay, and one behind a NAT.
fn behind(seed: u64, nat: Option<Nat>) -> World {
    let mut world = World::new(seed);
    world.nats.extend(nat.map(|nat| (CID, nat)));
    world.peer("ann", |c| c.relay.serve = Serve::On);
    world.peer("ben", |c| c.relay.serve = Serve::On);
    world.peer("cid", |c| c.relay.serve = Serve::Off);
    // A relay's node looks for others half an hour later; this one when it is in, and where it found none, a little later.
    world.run(Duration::from_secs(40));
    world
}

fn status(world: &World, host: usize) -> NatStatus {
    world.hosts[host].node.status(world.now).nat.expect("nothing was found")
}

#[test]
fn every_kind_is_told_by_two_supernodes() {
    for (m, mapping) in ALL.into_iter().enumerate() {
        for (f, filtering) in ALL.into_iter().enumerate() {
            let world = behind(60, Some(Nat { mapping: Some(mapping), filtering, blocked: false }));
            let found = status(&world, CID);
            assert_eq!((found.mapping.as_str(), found.filtering.as_str()), (WORDS[m], WORDS[f]));
            let mut against: Vec<_> = found.against.iter().map(|a| a.to_string()).collect();
            against.sort();
            assert_eq!(against, ["10.0.0.1:3478", "10.0.0.2:3478"]);
            assert!(world.hosts[CID].saved.contains(&Saved::Nat));
            assert!(found.when >= START.secs() && found.mapped.is_some());
        }
    }
    let firewall = behind(61, Some(Nat { mapping: None, filtering: Dependence::AddressAndPort, blocked: false }));
    assert_eq!(
        (status(&firewall, CID).mapping.as_str(), status(&firewall, CID).filtering.as_str()),
        ("none", "address-and-port")
    );
    let open = behind(62, None);
    assert_eq!((status(&open, CID).mapping.as_str(), status(&open, CID).filtering.as_str()), ("none", "independent"));
}

#[test]
fn where_no_udp_passes_the_first_call_dials_relays_over_tls_at_once() {
    let nat = Nat { mapping: Some(Dependence::Independent), filtering: Dependence::Independent, blocked: true };
    let mut world = World::new(63);
    (world.encrypts, world.ice) = (true, true);
    world.nats.insert(CID, nat);
    world.peer("ann", |c| c.relay.serve = Serve::On);
    world.peer("ben", |c| (c.relay.serve, c.user.auto_answer) = (Serve::On, true));
    world.peer("cid", |c| c.relay.serve = Serve::Off);
    world.run(Duration::from_secs(40));
    assert_eq!(status(&world, CID).mapping, "blocked");
    world.call(CID, "ben");
    world.run(Duration::from_millis(100));
    let dialled = world.hosts[CID].log.iter().filter(|l| l.starts_with("media Reach")).count();
    assert_eq!(dialled, 1, "UDP is not tried first");
}

#[test]
fn it_is_remembered_over_a_restart_and_tested_anew_on_another_network() {
    let nat = |mapping| Nat { mapping: Some(mapping), filtering: Dependence::Address, blocked: false };
    let mut world = behind(64, Some(nat(Dependence::AddressAndPort)));
    assert_eq!(status(&world, CID).mapping, "address-and-port");
    let before = world.probes[&CID].datagrams;
    assert!(before > 0);
    // Half an hour later relays are asked again; the NAT is not.
    world.run(Duration::from_secs(3600));
    assert_eq!((world.probes[&CID].opened, world.probes[&CID].datagrams), (1, before));
    world.kill(CID);
    world.run(Duration::from_secs(60));
    // By now it behaves otherwise, which a node that remembers does not see.
    world.nats.insert(CID, nat(Dependence::Independent));
    world.restart(CID, &[0], 0);
    world.run(Duration::from_secs(40));
    assert_eq!(status(&world, CID).mapping, "address-and-port");
    assert_eq!((world.probes[&CID].opened, world.probes[&CID].datagrams), (2, 0), "remembered, without a packet");
    // Another address: another network.
    let at = |addr: SocketAddr| SocketAddr::new("10.0.0.99".parse().unwrap(), addr.port());
    let (sip, overlay) = (at(world.hosts[CID].sip), at(world.hosts[CID].overlay));
    (world.hosts[CID].sip, world.hosts[CID].overlay) = (sip, overlay);
    world.hand(CID, Input::Moved { sip, overlay, also: Vec::new() });
    assert_eq!(world.hosts[CID].node.status(world.now).nat, None);
    world.run(Duration::from_secs(120));
    assert_eq!(status(&world, CID).mapping, "independent");
    assert!(world.probes[&CID].datagrams > 0);
}

/// `[1, to, transaction]`, as it is asked with.
fn question(to: &str) -> Vec<u8> {
    let mut out = vec![0x83, 1, 0x60 + to.len() as u8];
    out.extend(to.as_bytes());
    out.push(0x4c);
    out.extend([7; 12]);
    out
}

#[test]
fn a_supernode_sends_to_the_askers_own_address_alone_and_not_often() {
    let mut world = World::new(65);
    world.peer("ann", |c| c.relay.serve = Serve::On);
    world.peer("ben", |c| c.relay.serve = Serve::Off);
    world.run(Duration::from_secs(20));
    let mallory = Identity::open("chordial", "mallory", START, &mut world.rng).unwrap();
    let mut ask = |host: usize, body: Vec<u8>| {
        let raw = world.raw();
        world.raws[raw].proof = Some(Arc::new(mallory.verified(START).unwrap()));
        let to = world.hosts[host].overlay;
        let way = Way::Stream(world.dial(raw, Transport::Tls, to));
        let own = world.raws[raw].addr.ip();
        let uri = format!("sip:{to}");
        let mut talk = Talk::new(&world, raw, way, &uri, "sip:mallory@chordial", &uri);
        let mut message = talk.request(&world, Method::Register);
        let body = if body.is_empty() { question(&format!("{own}:5000")) } else { body };
        message.set_body("application/chordial-nat+cbor", body);
        let status = talk.ask(&mut world, &message).status();
        let sent = world.hosts[host].log.iter().filter(|l| l.starts_with("relay Answer")).count();
        (status, sent)
    };
    assert_eq!(ask(0, question("10.0.0.2:5000")), (403, 0), "somebody else's address");
    assert_eq!(ask(0, question("10.9.0.2:53")), (403, 0), "its own, and a port of services");
    assert_eq!(ask(0, vec![0x83, 1, 0x60]), (400, 0));
    assert_eq!(ask(1, Vec::new()), (404, 0), "no relay");
    for sent in 1..=6 {
        assert_eq!(ask(0, Vec::new()), (200, sent));
    }
    assert_eq!(ask(0, Vec::new()), (503, 6));
}
