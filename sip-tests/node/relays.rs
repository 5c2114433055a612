//! Relays: which nodes are one, whom they grant a credential, and what the asker makes of the answers.

use crate::world::World;
use chordial::config::{RelayFor, Serve};
use chordial::node::control::{Command, RelayOffer, Reply};
use std::time::Duration;

fn relays(world: &mut World, host: usize) -> Vec<RelayOffer> {
    let request = world.command(host, Command::Relays);
    world.run(Duration::from_secs(5));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Relays { relays })) => relays,
        other => panic!("{other:?}"),
    }
}

fn peer_id(world: &World, host: usize) -> String {
    world.hosts[host].verified.as_ref().unwrap().peer_id.to_string()
}

/// Two that relay, and one that does not.
fn three(seed: u64, whom: RelayFor) -> World {
    let mut world = World::new(seed);
    world.peer("ann", |c| c.relay.serve = Serve::On);
    world.peer("ben", |c| (c.relay.serve, c.relay.whom) = (Serve::On, whom));
    world.peer("cid", |c| c.relay.serve = Serve::Off);
    world.run(Duration::from_secs(20));
    world
}

#[test]
fn members_get_credentials_and_their_address_is_proven() {
    let mut world = three(41, RelayFor::Members);
    let offers = relays(&mut world, 2);
    let mut peers: Vec<_> = offers.iter().map(|o| o.peer_id.clone()).collect();
    peers.sort();
    let mut expected = vec![peer_id(&world, 0), peer_id(&world, 1)];
    expected.sort();
    assert_eq!(peers, expected);
    for offer in &offers {
        assert!(offer.username.ends_with(":cid") && !offer.password.is_empty(), "{offer:?}");
        assert_eq!((offer.udp, offer.streams.as_slice(), offer.realm.as_str()), (3478, &[3478][..], "chordial"));
        let host = if offer.peer_id == peer_id(&world, 0) { 0 } else { 1 };
        assert_eq!(offer.hosts, [world.hosts[host].overlay.ip()]);
        assert!(
            (3500..=3600).contains(&offer.seconds) && offer.rtt_ms > 0.0,
            "{} s, {} ms",
            offer.seconds,
            offer.rtt_ms
        );
        let proven = format!("relay Prove {{ ip: {}", world.hosts[2].overlay.ip());
        assert!(world.hosts[host].log.iter().any(|l| l.starts_with(&proven)), "{:?}", world.hosts[host].log);
    }
    // Each relay has a secret of its own.
    assert_ne!(offers[0].password, offers[1].password);
    let good = world.hosts[2].node.best_relays(world.now);
    assert_eq!(good.len(), 2);
    // A relay names itself first: nothing is nearer.
    assert_eq!(relays(&mut world, 0)[0].peer_id, peer_id(&world, 0));
    let status = world.hosts[0].node.status(world.now);
    assert_eq!(status.relay.map(|r| r.udp.len()), Some(1));
    assert_eq!(world.hosts[2].node.status(world.now).relay, None);
}

#[test]
fn a_relay_for_its_owner_alone_refuses_others() {
    let mut world = three(42, RelayFor::Own);
    let offers = relays(&mut world, 2);
    let peers: Vec<_> = offers.iter().map(|o| o.peer_id.clone()).collect();
    assert_eq!(peers, [peer_id(&world, 0)]);
    let status = world.hosts[1].node.status(world.now);
    // Others asked by themselves already, when they were in.
    assert!(status.counters.get("relay credentials refused").is_some_and(|n| *n >= 1));
}

#[test]
fn a_relay_that_is_dead_is_left_out_and_where_none_is_the_list_is_empty() {
    let mut world = three(43, RelayFor::Members);
    world.kill(1);
    let request = world.command(2, Command::Relays);
    world.run(Duration::from_secs(60));
    let Some(Ok(Reply::Relays { relays })) = world.hosts[2].replies.remove(&request) else { panic!("no answer") };
    assert_eq!(relays.len(), 1);
    let mut world = World::new(44);
    world.peer("ann", |c| c.relay.serve = Serve::Off);
    world.run(Duration::from_secs(10));
    assert!(self::relays(&mut world, 0).is_empty());
}

#[test]
fn a_call_whose_relays_do_not_answer_by_udp_dials_them_over_tls_at_443_first() {
    let mut world = World::new(46);
    (world.encrypts, world.ice) = (true, true);
    world.peer("ann", |c| c.relay.serve = Serve::On);
    world.peer("ben", |c| (c.relay.serve, c.user.auto_answer) = (Serve::Off, true));
    world.run(Duration::from_secs(20));
    // Known before anybody calls.
    assert_eq!(world.hosts[1].node.best_relays(world.now).len(), 1);
    world.call(1, "ann");
    let dialled =
        |w: &World| w.hosts[1].log.iter().filter(|l| l.starts_with("media Reach")).cloned().collect::<Vec<_>>();
    world.run(Duration::from_millis(300));
    assert_eq!(dialled(&world), [""; 0], "UDP has the first word");
    world.run(Duration::from_secs(1));
    let relay = world.hosts[0].overlay.ip();
    let reach = dialled(&world);
    assert_eq!(reach.len(), 1);
    assert!(reach[0].contains(&format!("relays: [({relay}:3478, [0, 0")), "{reach:?}");
    // None was reached there: it is tried again, with patience.
    world.run(Duration::from_secs(4));
    assert_eq!(dialled(&world).len(), 2);
}
