//! One hop: the member list, reads that ask all holders at once, the cache on the way, and what a ring costs at rest.

use crate::chord::{make, plain};
use crate::net::{Death, Net, OVERLAY, Users, entry, key_of};
use chordial::core::{Id, Rng};
use chordial::identity::{TrustAnchor, Verifier};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{Command, Mode, Overlay, PeerRef};
use std::time::Duration;

fn with(config: Config) -> impl Fn(PeerRef, Rng) -> Chord {
    move |me, rng| {
        let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
        Chord::new(me, config.clone(), Box::new(verifier), rng)
    }
}

/// Who knows whom, from above: the number of those whose list is not the ring.
fn incomplete(net: &Net<Chord>) -> usize {
    let ring = net.around();
    let wrong = |i: &&usize| {
        let mut known: Vec<Id> = net.peers[**i].overlay.members().iter().map(|p| p.id).collect();
        known.push(net.peers[**i].me.id);
        known.sort_unstable();
        known != ring.iter().map(|j| net.peers[*j].me.id).collect::<Vec<_>>()
    };
    ring.iter().filter(wrong).count()
}

#[test]
fn everybody_knows_everybody_and_asks_at_once() {
    let mut net = Net::new(2000, make);
    net.ring(50);
    assert_eq!(incomplete(&net), 0);
    for i in 0..200 {
        let (peer, target) = (net.draw(50), Id::sha1(format!("target {i}").as_bytes()));
        let mode = [Mode::Auto, Mode::Sure, Mode::Iterative][i % 3];
        let (found, trace) = net.find(peer, target, mode);
        assert_eq!(found.map(|p| p.id), Ok(net.peers[net.owner(&target)].me.id));
        assert!(trace.hops <= 1 && trace.asked.len() <= 1 && trace.retries == 0, "{trace:?}");
    }
    let mut users = Users::new(2000);
    let people: Vec<_> = (0..20).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        assert_eq!(net.put(i, &entry(user, 1, b"here", 3600)).1, Ok(()));
    }
    let longest = net.latency.1 * 2;
    for i in 0..200 {
        let (peer, user) = (net.draw(50), &people[i % 20]);
        let (found, trace) = net.get(peer, key_of(user), Mode::Sure);
        assert_eq!(found.map(|f| f.len()), Ok(1));
        // One round trip, both holders and the others asked at once.
        assert!(trace.took <= longest && trace.retries == 0, "{trace:?}");
    }
}

#[test]
fn who_comes_and_goes_is_known_soon() {
    let mut net = Net::new(2100, make);
    net.ring(50);
    let within = |net: &mut Net<Chord>, what: &str, limit: u64| {
        let end = net.now + Duration::from_secs(limit);
        assert!(net.run_until(end, |n| incomplete(n) == 0), "{what}: {} of {}", incomplete(net), net.around().len());
    };
    for i in 0..5 {
        let peer = net.add(Id::sha1(format!("late {i}").as_bytes()));
        let by = net.draw(50);
        net.join(peer, by);
        net.run(Duration::from_millis(200));
        within(&mut net, "a join", 5);
    }
    for death in [Death::Refused, Death::Refused, Death::Silent] {
        net.death = death;
        let living = net.living();
        let victim = living[net.draw(living.len())];
        net.crash(victim);
        // A silent one is missed by its neighbours' stabilisation.
        within(&mut net, "a crash", if death == Death::Silent { 40 } else { 5 });
    }
    let living = net.living();
    let leaver = living[net.draw(living.len())];
    net.command(leaver, Command::Leave);
    net.run(Duration::from_millis(500));
    within(&mut net, "a leave", 5);
    net.run(Duration::from_secs(10));
    assert_eq!(net.wrong(8), Vec::<String>::new());
}

#[test]
fn news_that_are_lost_are_made_up_for() {
    let mut net = Net::new(2200, make);
    net.loss = 0.1;
    net.ring(30);
    net.loss = 0.0;
    net.run(Duration::from_secs(600));
    assert_eq!(incomplete(&net), 0);
}

#[test]
fn no_link_is_kept_to_all() {
    let mut net = Net::new(2300, make);
    net.ring(120);
    for i in 0..1200 {
        let target = Id::sha1(format!("target {i}").as_bytes());
        assert!(net.find(i % 120, target, Mode::Auto).0.is_ok());
    }
    net.run(Duration::from_secs(60));
    let links: Vec<usize> = (0..120).map(|i| net.links_of(i)).collect();
    let mean = links.iter().sum::<usize>() / links.len();
    assert!(mean < 80, "{links:?}");
}

#[test]
fn a_larger_ring_keeps_no_list_and_has_longer_fingers() {
    let mean = |config: Config, seed: u64| {
        let mut net = Net::new(seed, with(config));
        net.ring(150);
        net.run(Duration::from_secs(300));
        assert_eq!(net.wrong(8), Vec::<String>::new());
        assert!((0..150).all(|i| net.peers[i].overlay.members().is_empty()));
        let mut hops = 0;
        for i in 0..300 {
            let (peer, target) = (net.draw(150), Id::sha1(format!("target {i}").as_bytes()));
            let (found, trace) = net.find(peer, target, Mode::Recursive);
            assert_eq!(found.map(|p| p.id), Ok(net.peers[net.owner(&target)].me.id));
            hops += u32::from(trace.hops);
        }
        f64::from(hops) / 300.0
    };
    let wide = mean(Config { members: 60, ..Config::default() }, 2400);
    let paper = mean(Config { cache: 0, ..Config::plain() }, 2400);
    assert!(wide < paper * 0.9, "{wide} hops, plain Chord {paper}");
}

#[test]
fn popular_records_are_remembered_on_the_way_for_a_moment() {
    let config = Config { members: 0, finger_width: 1, cache: 0, ..Config::default() };
    let mut net = Net::new(2500, with(config));
    net.ring(60);
    let bob = Users::new(2500).user("bob");
    let key = key_of(&bob);
    assert_eq!(net.put(0, &entry(&bob, 1, b"here", 3600)).1, Ok(()));
    let cached = |net: &Net<Chord>| (0..60).map(|i| net.peers[i].overlay.counters().cached).sum::<u64>();
    for i in 0..60 {
        assert_eq!(net.get(i, key, Mode::Auto).0.map(|f| f.len()), Ok(1));
    }
    let hits = cached(&net);
    assert!(hits > 0, "nobody was answered from a cache");
    // Whoever must be sure has the new one at once, everybody else within the time set.
    assert_eq!(net.put(0, &entry(&bob, 2, b"there", 3600)).1, Ok(()));
    for i in 0..60 {
        let found = net.get(i, key, Mode::Sure).0.expect("found");
        assert_eq!(found[0].entry().sequence, 2, "by {i}");
    }
    net.run(Duration::from_secs(3));
    for i in 0..60 {
        let found = net.get(i, key, Mode::Auto).0.expect("found");
        assert_eq!(found[0].entry().sequence, 2, "by {i}");
    }
    // Plain Chord remembers nothing.
    let mut net = Net::new(2500, plain);
    net.ring(60);
    assert_eq!(net.put(0, &entry(&bob, 1, b"here", 3600)).1, Ok(()));
    for i in 0..60 {
        assert_eq!(net.get(i, key, Mode::Auto).0.map(|f| f.len()), Ok(1));
    }
    assert_eq!(cached(&net), 0);
}

/// The bound of SPEC section 4: bytes a second that a peer sends and receives in a ring of 50 at rest.
#[test]
fn a_ring_at_rest_is_quiet() {
    const BOUND: f64 = 1000.0;
    let mut net = Net::new(2600, make);
    net.wire = Some(|me| Carry::new(OVERLAY, me, 600));
    net.ring(50);
    let mut users = Users::new(2600);
    for i in 0..50 {
        let user = users.user(&format!("user{i}"));
        assert_eq!(net.put(i, &entry(&user, 1, b"here", 86400)).1, Ok(()));
    }
    net.run(Duration::from_secs(900));
    net.bytes.fill(0);
    let before = net.messages;
    let span = Duration::from_secs(1800);
    net.run(span);
    let rate = |bytes: u64| bytes as f64 / span.as_secs_f64();
    let mean = rate(net.bytes.iter().sum::<u64>()) / 50.0;
    let most = net.bytes.iter().copied().map(rate).fold(0.0, f64::max);
    let messages = (net.messages - before) as f64 / 50.0 / span.as_secs_f64();
    println!("at rest: mean {mean:.0} B/s, most {most:.0} B/s, {messages:.3} messages sent a second");
    assert!(most < BOUND, "{most} bytes a second");
    // It is a ring, and not silent for being dead.
    assert!(mean > 20.0, "{mean}");
    assert_eq!((net.wrong(8), incomplete(&net)), (Vec::new(), 0));
}
