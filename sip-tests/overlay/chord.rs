//! Chord: the conformance tests, and what is Chord's own.

use crate::conformance as conform;
use crate::net::{Death, Net, OVERLAY, Users, entry, key_of};
use chordial::core::{Id, Rng};
use chordial::identity::{TrustAnchor, Verifier};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{
    Command, Failure, IdSpace, Input, Mode, Output, Overlay, PeerRef, Request, Response, Route, Token,
};
use std::hash::Hasher;
use std::time::Duration;

pub fn make(me: PeerRef, rng: Rng) -> Chord {
    let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
    Chord::new(me, Config::default(), Box::new(verifier), rng)
}

/// Plain Chord, without a member list.
pub fn plain(me: PeerRef, rng: Rng) -> Chord {
    let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
    Chord::new(me, Config::plain(), Box::new(verifier), rng)
}

#[test]
fn one_peer_alone() {
    conform::alone(make);
}

#[test]
fn everyone_finds_everything() {
    for n in [2, 3, 5, 24] {
        conform::everyone_finds(make, n);
    }
}

#[test]
fn over_sip_nothing_changes() {
    let mut histories = [false, true].map(|wire| {
        let mut net = Net::new(600, make);
        net.wire = wire.then_some(|me| Carry::new(OVERLAY, me, 600));
        net.ring(12);
        let mut users = Users::new(600);
        for i in 0..6 {
            let user = users.user(&format!("user{i}"));
            assert_eq!(net.put(i, &entry(&user, 2, b"kept", 86400)).1, Ok(()));
            assert!(net.put(i, &entry(&user, 1, b"older", 86400)).1.is_err());
            for mode in [Mode::Auto, Mode::Iterative, Mode::Recursive] {
                assert_eq!(net.get(11 - i, key_of(&user), mode).0.map(|f| f.len()), Ok(1));
            }
        }
        net.crash(3);
        net.command(4, Command::Leave);
        net.run(Duration::from_secs(60));
        net.history.finish()
    });
    histories.sort_unstable();
    assert_eq!(histories[0], histories[1]);
}

#[test]
fn a_holder_is_killed() {
    conform::a_holder_dies(make, 5, Death::Refused, Duration::from_millis(600));
    conform::a_holder_dies(make, 20, Death::Refused, Duration::from_millis(600));
}

#[test]
fn a_holder_falls_silent() {
    conform::a_holder_dies(make, 5, Death::Silent, Duration::from_millis(1500));
    conform::a_holder_dies(make, 20, Death::Silent, Duration::from_millis(1500));
}

#[test]
fn peers_die_one_after_the_other() {
    conform::one_after_the_other(make);
}

#[test]
fn joining_peers_take_over() {
    conform::joiners_take_over(make);
}

#[test]
fn leaving_peers_hand_over() {
    conform::leaving_loses_nothing(make);
}

#[test]
fn records_have_sequence_and_life() {
    conform::records(make);
}

#[test]
fn holders_verify_what_they_are_sent() {
    conform::holders_verify(make);
}

#[test]
fn outside_the_ring() {
    conform::no_ring(make);
}

#[test]
fn loss_is_survived() {
    conform::a_lossy_network(make);
}

#[test]
fn same_seed_same_history() {
    conform::deterministic(make);
}

/// The tables as they have to be, from above.
fn wrong_fingers(net: &Net<Chord>) -> Vec<String> {
    let mut wrong = Vec::new();
    for i in net.around() {
        let chord = &net.peers[i].overlay;
        for exponent in 0..160 {
            let start = IdSpace::SHA1.finger_start(&chord.me().id, exponent);
            let expected = net.peers[net.owner(&start)].me.id;
            if chord.finger(exponent).id != expected {
                wrong.push(format!("{:?} F{exponent}: {:?} not {expected:?}", chord.me(), chord.finger(exponent)));
            }
        }
    }
    wrong
}

#[test]
fn rings_close_and_fingers_point() {
    for n in [1, 2, 3, 9, 10, 40] {
        let mut net = Net::new(100 + n as u64, make);
        net.ring(n);
        net.run(Duration::from_secs(120));
        assert_eq!(net.wrong(8), Vec::<String>::new(), "{n} peers");
        assert_eq!(wrong_fingers(&net), Vec::<String>::new(), "{n} peers");
    }
}

#[test]
fn many_join_at_once() {
    let mut net = Net::new(200, make);
    net.ring(1);
    for i in 0..30 {
        let peer = net.add(Id::sha1(format!("crowd {i}").as_bytes()));
        net.join(peer, 0);
    }
    net.run(Duration::from_secs(60));
    assert_eq!(net.reports.iter().filter(|(_, o)| *o != Output::Joined).count(), 0, "{:?}", net.reports);
    assert_eq!(net.around().len(), 31);
    assert_eq!(net.wrong(8), Vec::<String>::new());
}

/// Peers that all began rings of their own and then hear of each other: all turn to the lowest, at nearly the same time.
#[test]
fn rings_of_one_become_one_ring() {
    for n in [2, 3, 4] {
        for seed in 0..20 {
            let mut net = Net::new(3000 + seed, make);
            let mut users = Users::new(seed);
            let users: Vec<_> = (0..n).map(|i| users.user(&format!("user{i}"))).collect();
            for (i, user) in users.iter().enumerate() {
                let peer = net.add(Id::sha1(format!("loner {seed} {i}").as_bytes()));
                net.command(peer, Command::Create);
                assert_eq!(net.put(peer, &entry(user, 1, b"here", 86400)).1, Ok(()));
            }
            let lowest = net.around()[0];
            for i in (0..n).filter(|i| *i != lowest) {
                net.join(i, lowest);
                let pause = net.draw(60) as u64;
                net.run(Duration::from_millis(pause));
            }
            net.run(Duration::from_secs(90));
            assert_eq!(net.wrong(8), Vec::<String>::new(), "{n} peers, seed {seed}");
            for (i, user) in users.iter().enumerate() {
                let found = net.get((i + 1) % n, key_of(user), Mode::Auto).0;
                assert_eq!(found.map(|f| f.len()), Ok(1), "record of {i}, {n} peers, seed {seed}");
            }
        }
    }
}

#[test]
fn half_of_the_ring_dies() {
    for death in [Death::Refused, Death::Silent] {
        let mut net = Net::new(300, make);
        net.ring(64);
        let mut users = Users::new(300);
        let people: Vec<_> = (0..20).map(|i| users.user(&format!("user{i}"))).collect();
        for user in &people {
            assert_eq!(net.put(0, &entry(user, 1, b"kept", 86400)).1, Ok(()));
        }
        net.death = death;
        for _ in 0..32 {
            let living = net.living();
            let victim = living[net.draw(living.len())];
            net.crash(victim);
        }
        net.run(Duration::from_secs(90));
        assert_eq!(net.around().len(), 32);
        assert_eq!(net.wrong(8), Vec::<String>::new(), "{death:?}");
        // Of four replicas all may be among the dead; whatever survived is found by everybody.
        let survived: Vec<bool> = people
            .iter()
            .map(|u| {
                net.around().iter().any(|i| net.peers[*i].overlay.resources().iter().any(|(k, _)| *k == key_of(u)))
            })
            .collect();
        assert!(survived.iter().filter(|s| **s).count() >= 15);
        for peer in net.around() {
            for (user, survived) in people.iter().zip(&survived) {
                let (found, trace) = net.get(peer, key_of(user), Mode::Auto);
                assert_eq!(found.map(|f| f.len()), Ok(usize::from(*survived)), "{trace:?}");
            }
        }
    }
}

#[test]
fn a_ring_that_grows_fast_loses_no_record() {
    for (seed, loss) in [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.02), (4, 0.02)] {
        let mut net = Net::new(1400 + seed, make);
        net.loss = loss;
        let mut users = Users::new(1400 + seed);
        let mut people = Vec::new();
        for i in 0..60 {
            let peer = net.add(Id::sha1(format!("peer {seed} {i}").as_bytes()));
            match i {
                0 => net.command(peer, Command::Create),
                _ => {
                    let by = net.draw(i);
                    net.join(peer, by);
                }
            }
            net.run(Duration::from_millis(100));
            // Those in the ring write while it goes on growing.
            let writers = net.around();
            let user = users.user(&format!("user{i}"));
            let (writer, op) = (writers[net.draw(writers.len())], net.op());
            let (key, entry) = (key_of(&user), entry(&user, 1, b"kept", 86400));
            net.command(writer, Command::Put { op, key, entry });
            people.push(user);
        }
        net.run(Duration::from_secs(15));
        assert_eq!(net.around().len(), 60, "seed {seed}: {:?}", net.reports);
        for user in &people {
            let reader = net.draw(60);
            let (found, trace) = net.get(reader, key_of(user), Mode::Auto);
            assert_eq!(found.map(|f| f.len()), Ok(1), "seed {seed} {trace:?}");
        }
    }
}

#[test]
fn a_third_dies_at_once() {
    for (seed, death) in [(1500, Death::Refused), (1501, Death::Silent)] {
        let mut net = Net::new(seed, make);
        net.ring(100);
        let mut users = Users::new(seed);
        let people: Vec<_> = (0..60).map(|i| users.user(&format!("user{i}"))).collect();
        for (i, user) in people.iter().enumerate() {
            assert_eq!(net.put(i, &entry(user, 1, b"kept", 86400)).1, Ok(()));
        }
        net.run(Duration::from_secs(30));
        net.death = death;
        for _ in 0..30 {
            let living = net.living();
            let victim = living[net.draw(living.len())];
            net.crash(victim);
        }
        // Of the four holders of a record all may be among the dead.
        let survived = |net: &Net<Chord>, key: Id| {
            net.living().iter().any(|i| net.peers[*i].overlay.resources().iter().any(|(k, _)| *k == key))
        };
        assert!(people.iter().filter(|u| survived(&net, key_of(u))).count() >= 55);
        for user in &people {
            let key = key_of(user);
            let expected = usize::from(survived(&net, key));
            let living = net.living();
            let reader = living[net.draw(living.len())];
            let (found, trace) = net.get(reader, key, Mode::Auto);
            assert_eq!(found.map(|f| f.len()), Ok(expected), "{death:?} {trace:?}");
        }
    }
}

#[test]
fn path_lengths_are_chords() {
    let mut net = Net::new(400, |me, rng| {
        let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 8);
        Chord::new(me, Config { cache: 0, ..Config::plain() }, Box::new(verifier), rng)
    });
    net.ring(64);
    net.run(Duration::from_secs(120));
    for mode in [Mode::Iterative, Mode::Recursive] {
        let mut hops = Vec::new();
        for i in 0..400 {
            let peer = net.draw(64);
            let target = Id::sha1(format!("target {i}").as_bytes());
            let (found, trace) = net.find(peer, target, mode);
            assert_eq!(found.map(|p| p.id), Ok(net.peers[net.owner(&target)].me.id));
            assert_eq!((trace.mode, trace.retries), (if trace.hops == 0 { Mode::Iterative } else { mode }, 0));
            assert_eq!(usize::from(trace.hops), trace.asked.len());
            hops.push(trace.hops);
        }
        let mean = hops.iter().map(|h| f64::from(*h)).sum::<f64>() / hops.len() as f64;
        // Half of log2 64 is 3; successors and direct hits of fingers save some.
        assert!(mean > 1.0 && mean < 3.2, "{mode:?}: {mean}");
        assert!(hops.iter().all(|h| *h <= 6), "{mode:?}: {hops:?}");
    }
}

#[test]
fn four_replicas_wherever_peers_come_and_go() {
    let mut net = Net::new(500, make);
    net.ring(12);
    let mut users = Users::new(500);
    let people: Vec<_> = (0..20).map(|i| users.user(&format!("user{i}"))).collect();
    for user in &people {
        assert_eq!(net.put(0, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    let check = |net: &Net<Chord>| {
        let ring = net.around();
        for user in &people {
            let key = key_of(user);
            let owner = net.owner(&key);
            let at = ring.iter().position(|i| *i == owner).expect("it is in the ring");
            let expected: Vec<usize> = (0..3).map(|d| ring[(at + d) % ring.len()]).collect();
            let mut got: Vec<usize> =
                ring.iter().copied().filter(|i| net.peers[*i].overlay.resources().contains(&(key, 0))).collect();
            got.sort_by_key(|i| expected.iter().position(|e| e == i));
            assert_eq!(got, expected, "the responsible peer and its two successors, nobody else");
            let scattered = net.owner(&IdSpace::SHA1.replica_position(&key, 1));
            let got: Vec<usize> =
                ring.iter().copied().filter(|i| net.peers[*i].overlay.resources().contains(&(key, 1))).collect();
            assert_eq!(got, [scattered]);
        }
    };
    net.run(Duration::from_secs(100));
    check(&net);
    for i in 0..6 {
        let peer = net.add(Id::sha1(format!("late {i}").as_bytes()));
        net.join(peer, 0);
        net.run(Duration::from_secs(20));
    }
    net.run(Duration::from_secs(120));
    check(&net);
    for _ in 0..5 {
        let living = net.living();
        let victim = living[1 + net.draw(living.len() - 1)];
        net.crash(victim);
        net.run(Duration::from_secs(60));
    }
    // The scattered replica comes back with the next placement.
    net.run(Duration::from_secs(700));
    check(&net);
}

#[test]
fn a_restarted_peer_gets_its_records_back() {
    let mut net = Net::new(700, make);
    net.ring(8);
    let bob = Users::new(700).user("bob");
    let key = key_of(&bob);
    assert_eq!(net.put(0, &entry(&bob, 1, b"kept", 86400)).1, Ok(()));
    net.run(Duration::from_secs(30));
    let owner = net.owner(&key);
    net.crash(owner);
    net.restart(owner);
    let by = (owner + 1) % 8;
    net.join(owner, by);
    net.run(Duration::from_secs(2));
    assert!(net.peers[owner].overlay.resources().contains(&(key, 0)));
    assert_eq!(net.wrong(8), Vec::<String>::new());
}

#[test]
fn who_was_cut_off_comes_back() {
    for seed in 0..4 {
        let mut net = Net::new(800 + seed, make);
        net.ring(6);
        let alone = net.draw(6);
        net.isolated.insert(alone);
        net.run(Duration::from_secs(60));
        // It is a ring of its own, and so are the others.
        assert!(net.peers[alone].overlay.status().successors.is_empty());
        assert_eq!(net.peers[(alone + 1) % 6].overlay.status().successors.len(), 4);
        let bob = Users::new(seed).user("bob");
        assert_eq!(net.put(alone, &entry(&bob, 1, b"kept", 86400)).1, Ok(()));
        net.isolated.clear();
        net.run(Duration::from_secs(200));
        assert_eq!(net.wrong(8), Vec::<String>::new());
        for peer in 0..6 {
            assert_eq!(net.get(peer, key_of(&bob), Mode::Auto).0.map(|f| f.len()), Ok(1));
        }
    }
}

#[test]
fn a_link_that_goes_down_is_looked_into() {
    let mut net = Net::new(900, make);
    net.ring(6);
    net.death = Death::Silent;
    let around = net.around();
    let (before, victim) = (around[0], around[1]);
    net.crash(victim);
    let peer = net.peers[victim].me.id;
    net.input(before, Input::LinkDown { peer });
    net.run(Duration::from_secs(1));
    assert!(net.peers[before].overlay.status().successors.iter().all(|s| s.id != peer));
    // One that lives stays.
    let peer = net.peers[around[2]].me.id;
    net.input(before, Input::LinkDown { peer });
    net.run(Duration::from_secs(1));
    assert_eq!(net.peers[before].overlay.status().successors.first().map(|s| s.id), Some(peer));
}

#[test]
fn who_does_not_pass_on_is_gone_round() {
    let mut net = Net::new(1000, plain);
    net.ring(40);
    net.swallows.extend(0..40);
    let mut iterative = 0;
    for i in 0..60 {
        let target = Id::sha1(format!("target {i}").as_bytes());
        let (found, trace) = net.find(i % 40, target, Mode::Auto);
        assert_eq!(found.map(|p| p.id), Ok(net.peers[net.owner(&target)].me.id));
        if trace.hops > 0 {
            assert_eq!((trace.mode, trace.retries), (Mode::Iterative, 1));
            assert!(trace.took < Duration::from_secs(1));
            iterative += 1;
        }
    }
    assert!(iterative > 20);
}

#[test]
fn what_is_passed_on_is_bounded() {
    let mut net = Net::new(1100, |me, rng| {
        let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 8);
        Chord::new(me, Config { max_relays: 0, ..Config::plain() }, Box::new(verifier), rng)
    });
    net.ring(40);
    for i in 0..40 {
        let target = Id::sha1(format!("target {i}").as_bytes());
        assert!(net.find(i, target, Mode::Auto).0.is_ok());
    }
    assert!((0..40).map(|i| net.peers[i].overlay.counters().busy).sum::<u64>() > 0);
    // A request that says it comes from elsewhere, has passed here, or has no hops left.
    let (me, asker, other) = (net.peers[0].me, net.peers[1].me, net.peers[2].me);
    let far = net.peers[0].overlay.finger(159).id;
    let mut ask = |hops, path: Vec<PeerRef>| {
        let token = Token(u64::MAX / 2);
        let request = Request::Query { target: far, route: Route::Recursive { hops, path } };
        net.peers[0].overlay.handle(net.now, Input::Request { from: Some(asker), token, request });
        loop {
            match net.peers[0].overlay.poll_output() {
                Some(Output::Reply { token: t, response }) if t == token => break response,
                Some(_) => {}
                None => panic!("no reply"),
            }
        }
    };
    assert_eq!(ask(9, vec![other]), Response::Failed(Failure::Bad));
    assert_eq!(ask(9, vec![]), Response::Failed(Failure::Bad));
    assert_eq!(ask(9, vec![me, asker]), Response::Failed(Failure::Loop));
    assert_eq!(ask(0, vec![asker]), Response::Failed(Failure::TooManyHops));
    assert_eq!(ask(9, vec![asker]), Response::Failed(Failure::Busy));
}

#[test]
fn silence_does_not_multiply() {
    let mut net = Net::new(1200, make);
    net.ring(60);
    net.death = Death::Silent;
    for _ in 0..12 {
        let living = net.living();
        let victim = living[net.draw(living.len())];
        net.crash(victim);
    }
    let before = net.messages;
    for i in 0..100 {
        let living = net.living();
        let peer = living[net.draw(living.len())];
        let target = Id::sha1(format!("target {i}").as_bytes());
        let (found, trace) = net.find(peer, target, Mode::Auto);
        let owner = &net.peers[net.owner(&target)].overlay;
        assert!(found.is_ok(), "{target:?} {trace:?} {:?} {:?}", owner.me(), owner.status());
    }
    // Upkeep included: the ring heals meanwhile.
    let each = (net.messages - before) / 100;
    assert!(each < 300, "{each} messages a lookup");
}

#[test]
fn no_lookup_fails_while_peers_come_and_go() {
    let mut net = Net::new(1300, make);
    net.ring(30);
    let mut users = Users::new(1300);
    let people: Vec<_> = (0..20).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        assert_eq!(net.put(i, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    // A crash and a join every two and a half seconds: each peer lives for little more than a minute.
    for round in 0..60u64 {
        let around = net.around();
        let victim = around[net.draw(around.len())];
        net.crash(victim);
        let peer = net.add(Id::sha1(format!("late {round}").as_bytes()));
        let around = net.around();
        let by = around[net.draw(around.len())];
        net.join(peer, by);
        let end = net.now + Duration::from_millis(2500);
        while net.now < end {
            let around = net.around();
            let peer = around[net.draw(around.len())];
            let user = &people[net.draw(people.len())];
            let (found, trace) = net.get(peer, key_of(user), Mode::Auto);
            assert_eq!(found.map(|f| f.len()), Ok(1), "round {round} {trace:?}");
            assert!(trace.took < Duration::from_secs(2), "{trace:?}");
        }
    }
    net.run(Duration::from_secs(60));
    assert_eq!(net.wrong(8), Vec::<String>::new());
}
