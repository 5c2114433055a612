//! Rings of one overlay that grew apart become one, and no record is lost.

use crate::chord::make;
use crate::net::{Net, OVERLAY, Users, entry, key_of};
use chordial::core::{Id, Rng};
use chordial::identity::{Identity, TrustAnchor, Verifier};
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{Command, Mode, Overlay, PeerRef};
use std::time::Duration;

/// As in a ring too large for a member list.
fn without_list(me: PeerRef, rng: Rng) -> Chord {
    let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
    // A list that everything is too large for.
    Chord::new(me, Config { members: 1, ..Config::default() }, Box::new(verifier), rng)
}

fn all_found(net: &mut Net<Chord>, people: &[Identity], what: &str) {
    for user in people {
        let living = net.living();
        let reader = living[net.draw(living.len())];
        let (found, trace) = net.get(reader, key_of(user), Mode::Sure);
        assert_eq!(found.map(|f| f.len()), Ok(1), "{what}: {} {trace:?}", user.aor());
    }
}

fn cut_and_healed(make: fn(PeerRef, Rng) -> Chord, seed: u64, n: usize, apart: Duration, limit: Duration) {
    let mut net = Net::new(seed, make);
    net.ring(n);
    let mut users = Users::new(seed);
    let mut people = Vec::new();
    for i in 0..n {
        let user = users.user(&format!("before{i}"));
        assert_eq!(net.put(i, &entry(&user, 1, b"here", 86400)).1, Ok(()));
        people.push(user);
    }
    net.run(Duration::from_secs(60));
    // Not by halves of the circle: each has neighbours on the other side.
    let side: Vec<usize> = (0..n).filter(|i| i % 3 != 0).collect();
    net.cut(&side);
    net.run(apart);
    // Two rings, in each of which somebody moves in.
    for i in 0..n {
        let user = users.user(&format!("meanwhile{i}"));
        assert_eq!(net.put(i, &entry(&user, 1, b"here", 86400)).1, Ok(()), "{i}");
        people.push(user);
    }
    assert_ne!(net.wrong(8), Vec::<String>::new());
    net.cut(&[]);
    let end = net.now + limit;
    let healed = net.run_until(end, |n| n.wrong(8).is_empty());
    assert!(healed, "seed {seed}: still apart: {:?}", net.wrong(8).len());
    // What lies in the wrong place finds its own.
    net.run(Duration::from_secs(90));
    assert_eq!(net.wrong(8), Vec::<String>::new());
    all_found(&mut net, &people, &format!("seed {seed}"));
}

#[test]
fn a_cut_network_heals() {
    for seed in 5000..5003 {
        cut_and_healed(make, seed, 24, Duration::from_secs(120), Duration::from_secs(120));
    }
    // After long, whoever was lost is tried every few minutes.
    cut_and_healed(make, 5010, 12, Duration::from_secs(7200), Duration::from_secs(330));
}

#[test]
fn rings_zip_without_a_list() {
    for seed in 5100..5103 {
        cut_and_healed(without_list, seed, 24, Duration::from_secs(120), Duration::from_secs(180));
    }
}

/// As on a local network where all are switched on within a second: each joins the lowest of whom it has heard, if that is
/// lower than itself; who is in a ring already tells it of everybody found.
#[test]
fn a_dozen_loners_become_one_ring() {
    for seed in 0..12 {
        let mut net = Net::new(5200 + seed, make);
        let mut users = Users::new(seed);
        let mut people = Vec::new();
        for i in 0..12 {
            let peer = net.add(Id::sha1(format!("loner {seed} {i}").as_bytes()));
            net.command(peer, Command::Create);
            let user = users.user(&format!("user{i}"));
            assert_eq!(net.put(peer, &entry(&user, 1, b"here", 86400)).1, Ok(()));
            people.push(user);
            let pause = net.draw(80) as u64;
            net.run(Duration::from_millis(pause));
        }
        let lowest = (0..12).min_by_key(|i| net.peers[*i].me.id).expect("a dozen");
        for i in (0..12).filter(|i| *i != lowest) {
            net.join(i, lowest);
            let pause = net.draw(60) as u64;
            net.run(Duration::from_millis(pause));
        }
        net.run(Duration::from_secs(2));
        for i in 0..12 {
            for j in (0..12).filter(|j| *j != i) {
                let peer = net.peers[j].me;
                if net.peers[i].overlay.status().successors.is_empty() {
                    net.join(i, j);
                } else {
                    net.command(i, Command::Meet { peer });
                }
            }
        }
        net.run(Duration::from_secs(60));
        assert_eq!(net.wrong(8), Vec::<String>::new(), "seed {seed}");
        net.run(Duration::from_secs(60));
        all_found(&mut net, &people, &format!("seed {seed}"));
    }
}

/// Two offices' worth of peers that never knew of each other, until one hears of one.
#[test]
fn two_strange_rings_meet() {
    for (seed, make) in [(5300, make as fn(PeerRef, Rng) -> Chord), (5301, without_list)] {
        let mut net = Net::new(seed, make);
        net.ring(15);
        let mut users = Users::new(seed);
        let mut people = Vec::new();
        for i in 0..15 {
            let peer = net.add(Id::sha1(format!("other {i}").as_bytes()));
            match i {
                0 => net.command(peer, Command::Create),
                _ => net.join(peer, 15),
            }
            net.run(Duration::from_millis(300));
        }
        net.run(Duration::from_secs(60));
        for i in 0..30 {
            let user = users.user(&format!("user{i}"));
            assert_eq!(net.put(i, &entry(&user, 1, b"here", 86400)).1, Ok(()));
            people.push(user);
        }
        let met = net.peers[20].me;
        net.command(3, Command::Meet { peer: met });
        // With the list everybody knows at once; without, the deeper successors follow at the pace of a ring at rest.
        let end = net.now + Duration::from_secs(if seed == 5300 { 30 } else { 300 });
        assert!(net.run_until(end, |n| n.wrong(8).is_empty()), "seed {seed}: {:?}", net.wrong(8));
        net.run(Duration::from_secs(90));
        all_found(&mut net, &people, &format!("seed {seed}"));
        // Everybody of one ring is met again and again, and nothing comes of it.
        let before: u64 = (0..30).map(|i| net.peers[i].overlay.counters().merged).sum();
        for i in 0..30 {
            net.command(i, Command::Meet { peer: met });
        }
        net.run(Duration::from_secs(60));
        assert_eq!(net.wrong(8), Vec::<String>::new());
        assert_eq!(before, (0..30).map(|i| net.peers[i].overlay.counters().merged).sum::<u64>());
    }
}
