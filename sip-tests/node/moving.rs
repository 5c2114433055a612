//! A node whose address changes, and one for which a router opens a port.

use crate::world::{START, World};
use chordial::identity::{Identity, InviteCode};
use chordial::nat::portmap::{Mapping, Via};
use chordial::node::Input;
use chordial::node::control::{Command, Event, Reply};
use std::net::SocketAddr;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn moves(world: &mut World, host: usize, ip: &str) -> SocketAddr {
    let (sip, overlay): (SocketAddr, SocketAddr) =
        (format!("{ip}:5060").parse().unwrap(), format!("{ip}:5061").parse().unwrap());
    (world.hosts[host].sip, world.hosts[host].overlay) = (sip, overlay);
    world.hand(host, Input::Moved { sip, overlay, also: Vec::new() });
    overlay
}

fn lookup(world: &mut World, host: usize, target: &str) -> Vec<String> {
    let request = world.command(host, Command::Lookup { target: target.into(), iterative: false });
    world.until(seconds(10), "the lookup", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Lookup(report))) => report.contacts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_moves_is_found_at_its_new_address() {
    let mut world = World::ring(1, &["alice", "bob", "carol", "dave"]);
    assert!(lookup(&mut world, 0, "bob")[0].contains("10.0.0.2"));
    moves(&mut world, 1, "10.0.5.2");
    world.run(seconds(5));
    for asker in [0, 2, 3] {
        let contacts = lookup(&mut world, asker, "bob");
        assert!(contacts.len() == 1 && contacts[0].contains("10.0.5.2"), "{contacts:?}");
    }
    // Its place on the ring is the same, and everybody knows it there.
    world.run(seconds(10));
    for host in [0, 2, 3] {
        let ring = world.hosts[host].node.status(world.now).overlay;
        assert_eq!(ring.successors.len(), 3, "{ring:?}");
        assert!(ring.successors.iter().any(|p| p.address == "10.0.5.2:5061"), "{ring:?}");
        assert!(!ring.successors.iter().any(|p| p.address == "10.0.0.2:5061"), "{ring:?}");
    }
    let told = world.hosts[1].node.status(world.now);
    assert_eq!(told.listen.advertised, Some("10.0.5.2:5061".parse().unwrap()));
    assert!(world.hosts[1].events.iter().any(|(_, e)| matches!(e, Event::Moved { .. })));
}

#[test]
fn a_port_that_a_router_opened_is_told_when_it_is_public() {
    let mut world = World::new(2);
    let (anna, _) = Identity::found("office.example", "anna", None, START, &mut world.rng).unwrap();
    let host = world.member(anna, |_| {});
    let told = |world: &mut World| -> Vec<String> {
        let Ok(Reply::Invite { code, .. }) = world.ask(host, Command::Invite { user: "ben".into(), extension: None })
        else {
            panic!()
        };
        InviteCode::parse(&code).unwrap().addrs.iter().map(SocketAddr::to_string).collect()
    };
    let internal = world.hosts[host].overlay;
    let mapping = |external: &str, internal| Mapping {
        external: external.parse().unwrap(),
        internal,
        via: Via::Pcp,
        lifetime: seconds(900),
    };
    assert_eq!(told(&mut world), ["10.0.0.1:5061"]);
    // Behind the provider's NAT, and for an address that is not this node's any more: not told.
    world.hand(host, Input::Mapped { mapping: mapping("100.64.0.9:5061", internal) });
    assert_eq!(told(&mut world), ["10.0.0.1:5061"]);
    assert!(world.hosts[host].node.status(world.now).reach.says.contains("carrier-grade NAT"));
    world.hand(host, Input::Mapped { mapping: mapping("5.6.7.8:5061", "10.0.0.77:5061".parse().unwrap()) });
    assert_eq!(told(&mut world), ["10.0.0.1:5061"]);
    world.hand(host, Input::Mapped { mapping: mapping("5.6.7.8:5099", internal) });
    assert_eq!(told(&mut world), ["10.0.0.1:5061", "5.6.7.8:5099"]);
    let reach = world.hosts[host].node.status(world.now).reach;
    assert_eq!((reach.state.as_str(), reach.addresses.len()), ("mapped", 2));
    world.hand(host, Input::Unmapped { why: "the router no longer answers (PCP)".into() });
    assert_eq!(told(&mut world), ["10.0.0.1:5061"]);
    // Alone and unreachable: it says what helps.
    let reach = world.hosts[host].node.status(world.now).reach;
    assert_eq!(reach.state, "none");
    assert!(reach.next.is_some_and(|next| next.contains("chordial start --headless --role supernode")));
    // With somebody there, it does not.
    world.hand(host, Input::Mapped { mapping: mapping("5.6.7.8:5099", internal) });
    moves(&mut world, host, "10.0.6.1");
    assert_eq!(told(&mut world), ["10.0.6.1:5061"], "a mapping ends with the address that it led to");
}
