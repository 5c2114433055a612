//! Two tiers: supernodes are as good a ring as the Chord in them, and what ordinary nodes have run for them is found, written and
//! checked as if they ran it themselves.

use crate::conformance as conform;
use crate::net::{Death, Net, OVERLAY, Users, entry, key_of};
use chordial::core::{Id, Instant, Rng, UnixTime};
use chordial::identity::{TrustAnchor, Verifier};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::{self, Chord};
use chordial::overlay::tier::{Answer, Ask, Config, Role, Tiered, Wish};
use chordial::overlay::{
    Counters, Input, LookupError, Mode, Output, Overlay, PeerRef, PutError, Request, Response, Status,
};
use std::time::Duration;

fn tiered(me: PeerRef, rng: Rng, wish: Wish) -> Tiered {
    let verifier = || Box::new(Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64));
    let mut rng = rng;
    let chord = Chord::new(me, chord::Config::default(), verifier(), rng.fork());
    Tiered::new(chord, Config { wish, clear: true, ..Config::default() }, verifier(), rng)
}

fn supernode(me: PeerRef, rng: Rng) -> Tiered {
    tiered(me, rng, Wish::Supernode)
}

/// The first five are supernodes.
fn mixed(me: PeerRef, rng: Rng) -> Liar {
    let ordinary = SUPERNODES.iter().all(|n| Id::sha1(format!("peer {n}").as_bytes()) != me.id);
    let wish = if ordinary { Wish::Ordinary } else { Wish::Supernode };
    Liar { inner: tiered(me, rng, wish), lie: Lie::No }
}

const SUPERNODES: [usize; 5] = [0, 1, 2, 3, 4];

#[derive(Clone, Debug, PartialEq)]
enum Lie {
    No,
    /// Says that there is nothing.
    Nothing,
    /// Answers with somebody else's entry.
    Another(Box<chordial::identity::SignedEntry>),
    /// Says that a later entry is held: this one.
    Later(Box<chordial::identity::SignedEntry>),
    /// Takes what it is asked and says nothing.
    Mute,
}

/// A supernode that lies to those that hang on it.
struct Liar {
    inner: Tiered,
    lie: Lie,
}

impl Overlay for Liar {
    fn handle(&mut self, now: Instant, input: Input) {
        if self.lie == Lie::Mute
            && matches!(&input, Input::Request { request: Request::Tier(Ask::Get { .. } | Ask::Put { .. }), .. })
        {
            return;
        }
        self.inner.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.inner.poll_output()?;
        let Output::Reply { token, response } = output else { return Some(output) };
        let response = match (response, &self.lie) {
            (Response::Tier(Answer::Found { way, .. }), Lie::Nothing) => {
                Response::Tier(Answer::Found { entries: Vec::new(), way })
            }
            (Response::Tier(Answer::Found { way, .. }), Lie::Another(entry)) => {
                Response::Tier(Answer::Found { entries: vec![(**entry).clone()], way })
            }
            (Response::Tier(Answer::Written { .. }), Lie::Later(entry)) => {
                Response::Refused { current: vec![(**entry).clone()] }
            }
            (response, _) => response,
        };
        Some(Output::Reply { token, response })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn me(&self) -> PeerRef {
        self.inner.me()
    }

    fn unix(&self, now: Instant) -> UnixTime {
        self.inner.unix(now)
    }

    fn status(&self) -> Status {
        self.inner.status()
    }

    fn counters(&self) -> &Counters {
        self.inner.counters()
    }
}

/// A ring of five and `more` ordinary nodes, settled; over SIP bytes.
fn two_tiers(seed: u64, more: usize) -> Net<Liar> {
    let mut net = Net::new(seed, mixed);
    net.wire = Some(|me| Carry::new(OVERLAY, me, 600));
    net.ring(SUPERNODES.len());
    for n in 0..more {
        let peer = net.add(Id::sha1(format!("ordinary {n}").as_bytes()));
        net.join(peer, n % SUPERNODES.len());
    }
    net.run(Duration::from_secs(30));
    for n in 0..more {
        let standing = net.peers[5 + n].overlay.status().tier.expect("two tiers");
        assert_eq!(standing.role, Role::Ordinary);
        assert!(standing.primary.is_some() && standing.backup.is_some(), "{standing:?}");
    }
    net
}

/// The supernodes of an ordinary node, the primary first.
fn hangs_on(net: &Net<Liar>, node: usize) -> [usize; 2] {
    let standing = net.peers[node].overlay.status().tier.expect("two tiers");
    let at = |p: Option<(PeerRef, Duration)>| {
        let id = p.expect("it hangs on two").0.id;
        net.peers.iter().position(|q| q.me.id == id).expect("a peer")
    };
    [at(standing.primary), at(standing.backup)]
}

#[test]
fn supernodes_alone_pass_what_any_overlay_has_to() {
    conform::alone(supernode);
    conform::everyone_finds(supernode, 5);
    conform::records(supernode);
    conform::holders_verify(supernode);
    conform::no_ring(supernode);
    conform::leaving_loses_nothing(supernode);
    conform::a_holder_dies(supernode, 5, Death::Refused, Duration::from_millis(600));
    conform::deterministic(supernode);
}

#[test]
fn ordinary_nodes_write_and_find_through_their_supernodes() {
    let mut net = two_tiers(1, 4);
    let mut users = Users::new(1);
    let people: Vec<_> = (0..4).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        let (acks, result, trace) = net.put(5 + i, &entry(user, 2, b"here", 3600));
        assert_eq!(result, Ok(()));
        assert!(acks >= 2 && trace.hops >= 1, "{acks} {trace:?}");
        // Who comes too late is told with what: verified here, so that the device may believe it.
        let late = net.put(5 + (i + 1) % 4, &entry(user, 1, b"before", 3600)).1;
        assert!(matches!(&late, Err(PutError::Stale(e)) if e.entry().sequence == 2), "{late:?}");
    }
    for peer in 0..9 {
        for user in &people {
            for mode in [Mode::Auto, Mode::Iterative, Mode::Recursive] {
                let found = net.get(peer, key_of(user), mode).0.expect("it is there");
                assert_eq!(found.len(), 1);
            }
        }
    }
    assert_eq!(net.get(7, Id::sha1(b"nobody"), Mode::Auto).0, Ok(Vec::new()));
    let target = key_of(&people[0]);
    let here = net.find(0, target, Mode::Auto).0;
    assert_eq!(net.find(6, target, Mode::Auto).0, here);
}

#[test]
fn a_primary_that_says_there_is_nothing_is_not_believed() {
    let mut net = two_tiers(2, 1);
    let mut users = Users::new(2);
    let (bob, eve) = (users.user("bob"), users.user("eve"));
    assert_eq!(net.put(1, &entry(&bob, 1, b"here", 3600)).1, Ok(()));
    let [primary, _] = hangs_on(&net, 5);
    for lie in [Lie::Nothing, Lie::Another(Box::new(entry(&eve, 1, b"there", 3600))), Lie::Mute] {
        net.peers[primary].overlay.lie = lie.clone();
        let (found, trace) = net.get(5, key_of(&bob), Mode::Auto);
        let found = found.expect("the backup knows better");
        assert_eq!(found.len(), 1, "{lie:?}");
        assert_eq!(found[0].entry().aor, bob.aor());
        assert!(trace.took < Duration::from_secs(3), "{lie:?}: {:?}", trace.took);
    }
    // Both lie: nobody is left who could know.
    for peer in hangs_on(&net, 5) {
        net.peers[peer].overlay.lie = Lie::Nothing;
    }
    assert_eq!(net.get(5, key_of(&bob), Mode::Auto).0, Ok(Vec::new()));
}

#[test]
fn nobody_makes_a_device_jump_by_an_entry_that_is_not_its_own() {
    let mut net = two_tiers(3, 1);
    let mut users = Users::new(3);
    let (bob, eve) = (users.user("bob"), users.user("eve"));
    let [primary, _] = hangs_on(&net, 5);
    net.peers[primary].overlay.lie = Lie::Later(Box::new(entry(&eve, u64::MAX / 2, b"later", 3600)));
    assert_eq!(net.put(5, &entry(&bob, 1, b"here", 3600)).1, Ok(()), "written by the backup");
    assert_eq!(net.get(1, key_of(&bob), Mode::Auto).0.map(|f| f.len()), Ok(1));
}

#[test]
fn whoever_does_not_hang_on_a_supernode_is_not_served() {
    let mut net = two_tiers(4, 2);
    let [primary, backup] = hangs_on(&net, 5);
    let stranger = net.peers[6].me;
    let other = (0..5).find(|n| ![primary, backup].contains(n)).expect("five");
    let served = hangs_on(&net, 6);
    let target = if served.contains(&other) { (0..5).find(|n| !served.contains(n)).expect("five") } else { other };
    net.record = true;
    let ask = Ask::Get { key: Id::sha1(b"x"), aor: None, mode: Mode::Auto };
    let token = chordial::overlay::Token(u64::MAX);
    net.peers[target]
        .overlay
        .handle(net.now, Input::Request { from: Some(stranger), token, request: Request::Tier(ask.clone()) });
    let said = net.peers[target].overlay.poll_output();
    assert!(
        matches!(&said, Some(Output::Reply { response: Response::Failed(f), .. }) if f.status() == 480),
        "{said:?}"
    );
    let unproven = Input::Request { from: None, token, request: Request::Tier(ask) };
    net.peers[target].overlay.handle(net.now, unproven);
    let said = net.peers[target].overlay.poll_output();
    assert!(
        matches!(&said, Some(Output::Reply { response: Response::Failed(f), .. }) if f.status() == 403),
        "{said:?}"
    );
}

#[test]
fn lookups_go_on_while_a_supernode_dies_under_them() {
    for (seed, death) in [(5, Death::Refused), (6, Death::Silent)] {
        let mut net = two_tiers(seed, 2);
        net.death = death;
        let bob = Users::new(seed).user("bob");
        assert_eq!(net.put(6, &entry(&bob, 1, b"here", 3600)).1, Ok(()));
        net.run(Duration::from_secs(5));
        let [primary, _] = hangs_on(&net, 5);
        net.crash(primary);
        let (found, trace) = net.get(5, key_of(&bob), Mode::Auto);
        assert_eq!(found.map(|f| f.len()), Ok(1), "{death:?}: {trace:?}");
        assert!(trace.took < Duration::from_secs(5), "{death:?}: {:?}", trace.took);
        net.run(Duration::from_secs(60));
        let [new, backup] = hangs_on(&net, 5);
        assert!(new != primary && backup != primary);
    }
}

#[test]
fn without_a_supernode_there_is_no_answer() {
    let mut net = Net::new(7, mixed);
    let peer = net.add(Id::sha1(b"ordinary 0"));
    net.command(peer, chordial::overlay::Command::Create);
    net.run(Duration::from_secs(10));
    assert_eq!(net.get(peer, Id::sha1(b"x"), Mode::Auto).0, Err(LookupError::NotInRing));
    assert_eq!(net.peers[peer].overlay.status().tier.expect("two tiers").role, Role::Outside);
}
