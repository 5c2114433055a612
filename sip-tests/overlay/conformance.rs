//! What any [`Overlay`] has to do, as functions over a maker of peers. Another DHT calls them as `chord.rs` does.

use crate::net::{Death, Net, Users, entry, key_of};
use chordial::core::{Id, Rng};
use chordial::identity::SignedEntry;
use chordial::overlay::{
    Command, Failure, Input, JoinError, LookupError, Mode, Output, Overlay, PeerRef, PutError, Request, Response,
    Route, Token,
};
use std::hash::Hasher;
use std::time::Duration;

pub type Make<O> = fn(PeerRef, Rng) -> O;

fn bodies(entries: &[SignedEntry]) -> Vec<&[u8]> {
    entries.iter().map(|e| e.entry().body.as_slice()).collect()
}

/// One peer alone holds and finds.
pub fn alone<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(1, make);
    net.ring(1);
    let bob = Users::new(1).user("bob");
    let (acks, result, trace) = net.put(0, &entry(&bob, 1, b"here", 600));
    assert_eq!((acks, result, trace.hops), (1, Ok(()), 0));
    let (found, trace) = net.get(0, key_of(&bob), Mode::Auto);
    assert_eq!(bodies(&found.expect("alone, but there")), [b"here"]);
    assert_eq!(trace.asked, []);
}

/// Each of `n` peers finds what each wrote, by every mode.
pub fn everyone_finds<O: Overlay + 'static>(make: Make<O>, n: usize) {
    let mut net = Net::new(2, make);
    net.ring(n);
    let mut users = Users::new(2);
    let people: Vec<_> = (0..n.min(12)).map(|i| users.user(&format!("user{i}"))).collect();
    for (i, user) in people.iter().enumerate() {
        let (acks, result, _) = net.put(i, &entry(user, 1, user.aor().as_bytes(), 3600));
        assert_eq!(result, Ok(()));
        assert!(usize::from(acks) >= n.min(2), "{acks} acknowledgements of {n} peers");
    }
    for peer in 0..n {
        for user in &people {
            let mode = [Mode::Auto, Mode::Iterative, Mode::Recursive][net.draw(3)];
            let (found, trace) = net.get(peer, key_of(user), mode);
            assert_eq!(bodies(&found.expect("a quiet ring")), [user.aor().as_bytes()], "{mode:?} {trace:?}");
            assert_eq!(trace.retries, 0, "nothing fails in a quiet ring: {trace:?}");
            assert!(trace.hops == 0 || !trace.asked.is_empty());
        }
    }
    let (nobody, _) = net.get(0, Id::sha1(b"sip:nobody@lab.example"), Mode::Auto);
    assert_eq!(nobody, Ok(Vec::new()));
}

/// Whoever of the holders dies, the next get, at once, from anywhere, finds the record, and soon.
pub fn a_holder_dies<O: Overlay + 'static>(make: Make<O>, n: usize, death: Death, limit: Duration) {
    for seed in 0..6 {
        let mut net = Net::new(30 + seed, make);
        net.death = death;
        net.ring(n);
        let bob = Users::new(seed).user("bob");
        let key = key_of(&bob);
        assert_eq!(net.put(0, &entry(&bob, 1, b"here", 3600)).1, Ok(()));
        net.run(Duration::from_secs(1));
        let owner = net.owner(&key);
        net.crash(owner);
        for peer in net.living() {
            let mode = if net.draw(2) == 0 { Mode::Auto } else { Mode::Iterative };
            let (found, trace) = net.get(peer, key, mode);
            assert_eq!(bodies(&found.expect("no lookup fails")), [b"here"], "seed {seed} peer {peer} {trace:?}");
            assert!(trace.took <= limit, "seed {seed} peer {peer}: {mode:?} {trace:?}");
        }
        // The ring closes again and writes go through.
        net.run(Duration::from_secs(30));
        assert_eq!(net.wrong(8.min(n)), Vec::<String>::new());
        assert_eq!(net.put(net.around()[0], &entry(&bob, 2, b"there", 3600)).1, Ok(()));
        let (found, _) = net.get(net.around()[1], key, Mode::Auto);
        assert_eq!(bodies(&found.expect("no lookup fails")), [b"there"]);
    }
}

/// One peer after the other dies, with time to replicate in between: nothing is lost.
pub fn one_after_the_other<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(4, make);
    net.ring(12);
    let mut users = Users::new(4);
    let people: Vec<_> = (0..10).map(|i| users.user(&format!("user{i}"))).collect();
    for user in &people {
        assert_eq!(net.put(0, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    while net.around().len() > 2 {
        let victim = net.owner(&key_of(&people[0]));
        net.crash(victim);
        net.run(Duration::from_secs(30));
        for user in &people {
            let peer = net.around()[0];
            let (found, trace) = net.get(peer, key_of(user), Mode::Auto);
            assert_eq!(bodies(&found.expect("found")), [b"kept"], "{} left, {trace:?}", net.around().len());
        }
    }
}

/// A joining peer takes over what is its; the one before it need not be asked.
pub fn joiners_take_over<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(5, make);
    net.ring(2);
    let mut users = Users::new(5);
    let people: Vec<_> = (0..20).map(|i| users.user(&format!("user{i}"))).collect();
    for user in &people {
        assert_eq!(net.put(0, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    for i in 0..10 {
        let peer = net.add(Id::sha1(format!("late {i}").as_bytes()));
        net.join(peer, 0);
        net.run(Duration::from_millis(400));
        // While it settles, too.
        for user in &people {
            assert_eq!(bodies(&net.get(peer, key_of(user), Mode::Auto).0.expect("found")), [b"kept"]);
        }
    }
    net.run(Duration::from_secs(60));
    for user in &people {
        let owner = net.owner(&key_of(user));
        assert!(net.peers[owner].overlay.status().entries > 0);
    }
}

/// A peer that leaves loses nothing and nobody.
pub fn leaving_loses_nothing<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(6, make);
    net.ring(8);
    let mut users = Users::new(6);
    let people: Vec<_> = (0..10).map(|i| users.user(&format!("user{i}"))).collect();
    for user in &people {
        assert_eq!(net.put(0, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    while net.around().len() > 1 {
        let leaver = net.around()[0];
        net.command(leaver, Command::Leave);
        let left = net.run_until(net.now + Duration::from_secs(5), |n| {
            n.reports.iter().any(|(i, o)| *i == leaver && *o == Output::Left)
        });
        assert!(left, "it says when it is out");
        net.crash(leaver);
        net.run(Duration::from_secs(1));
        for user in &people {
            let (found, trace) = net.get(net.around()[0], key_of(user), Mode::Auto);
            assert_eq!(bodies(&found.expect("found")), [b"kept"], "{} left, {trace:?}", net.around().len());
        }
    }
}

/// Sequence numbers, conflicts, removals, lifetimes.
pub fn records<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(7, make);
    net.ring(6);
    let mut users = Users::new(7);
    let (bob, mallory) = (users.user("bob"), users.user("mallory"));
    let key = key_of(&bob);
    let second = entry(&bob, 2, b"second", 600);
    assert_eq!(net.put(1, &second).1, Ok(()));
    // An older one is refused and the refusal shows the current one.
    assert_eq!(net.put(2, &entry(&bob, 1, b"first", 600)).1, Err(PutError::Stale(Box::new(second.clone()))));
    assert_eq!(net.put(3, &entry(&bob, 2, b"other", 600)).1, Err(PutError::Conflict(Box::new(second.clone()))));
    // Again the same is no harm.
    assert_eq!(net.put(4, &second).1, Ok(()));
    assert_eq!(bodies(&net.get(5, key, Mode::Auto).0.expect("found")), [b"second"]);
    // Another device under the same name stands beside it.
    let cuckoo = users.user("bob");
    assert_eq!(net.put(0, &entry(&cuckoo, 1, b"me too", 600)).1, Ok(()));
    assert_eq!(net.get(5, key, Mode::Auto).0.expect("found").len(), 2);
    // Somebody else's entry, or one for another place, never leaves the peer that is asked to write it.
    let foreign = entry(&mallory, 9, b"mine", 600);
    let op = net.op();
    net.command(0, Command::Put { op, key, entry: foreign });
    let refused = net
        .reports
        .iter()
        .any(|(_, o)| matches!(o, Output::PutDone { op: o, result: Err(PutError::Invalid), .. } if *o == op));
    assert!(refused);
    // Taken back: gone for readers, and it does not return.
    assert_eq!(net.put(0, &entry(&bob, 3, b"", 86400)).1, Ok(()));
    assert_eq!(bodies(&net.get(2, key, Mode::Auto).0.expect("found")), [b"me too"]);
    assert!(matches!(net.put(3, &second).1, Err(PutError::Stale(_))));
    // Ten minutes later only the removal is left.
    net.run(Duration::from_secs(700));
    assert_eq!(net.get(1, key, Mode::Auto).0, Ok(Vec::new()));
    net.run(Duration::from_secs(30));
    assert!(net.around().iter().all(|i| net.peers[*i].overlay.status().entries <= 2));
}

/// A holder checks for itself what it is sent, whoever sends it.
pub fn holders_verify<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(8, make);
    net.ring(2);
    let mut users = Users::new(8);
    let (bob, mallory) = (users.user("bob"), users.user("mallory"));
    let key = key_of(&bob);
    let from = net.peers[1].me;
    let stored = |net: &mut Net<O>, token, from, entries| {
        let request = Request::Store { key, replica: 0, entries, route: Route::Here };
        net.peers[0].overlay.handle(net.now, Input::Request { from, token: Token(token), request });
        loop {
            match net.peers[0].overlay.poll_output() {
                Some(Output::Reply { token: Token(t), response }) if t == token => break response,
                Some(_) => {}
                None => panic!("no reply"),
            }
        }
    };
    let foreign = entry(&mallory, 1, b"mine", 600);
    let good = entry(&bob, 1, b"here", 600);
    let expired = entry(&bob, 7, b"old", 1);
    net.run(Duration::from_secs(2));
    let far = u64::MAX / 2;
    assert_eq!(stored(&mut net, far, Some(from), vec![foreign]), Response::Failed(Failure::Invalid));
    assert_eq!(stored(&mut net, far + 1, Some(from), vec![expired]), Response::Failed(Failure::Invalid));
    let response = stored(&mut net, far + 2, None, vec![good.clone()]);
    assert!(matches!(response, Response::Failed(_)), "a stranger may store nothing");
    assert_eq!(net.peers[0].overlay.status().entries, 0);
    assert_eq!(net.peers[0].overlay.counters().invalid, 2);
    assert!(matches!(stored(&mut net, far + 3, Some(from), vec![good]), Response::Stored { .. }));
    assert_eq!(net.peers[0].overlay.status().entries, 1);
}

/// A bootstrap that is not there, and commands outside a ring.
pub fn no_ring<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(9, make);
    let peer = net.add(Id::sha1(b"lonely"));
    let nobody = "10.9.9.9:5060".parse().expect("an address");
    net.command(peer, Command::Join { bootstrap: nobody });
    net.run(Duration::from_secs(30));
    assert!(net.reports.contains(&(peer, Output::JoinFailed { why: JoinError::NoAnswer })));
    assert_eq!(net.get(peer, Id::sha1(b"x"), Mode::Auto).0, Err(LookupError::NotInRing));
    // It may try again, somewhere else.
    let first = net.add(Id::sha1(b"first"));
    net.command(first, Command::Create);
    net.join(peer, first);
    net.run(Duration::from_secs(5));
    assert!(net.reports.contains(&(peer, Output::Joined)));
}

/// Requests and answers vanish, and all is found nevertheless.
pub fn a_lossy_network<O: Overlay + 'static>(make: Make<O>) {
    let mut net = Net::new(10, make);
    net.ring(16);
    let mut users = Users::new(10);
    let people: Vec<_> = (0..10).map(|i| users.user(&format!("user{i}"))).collect();
    net.loss = 0.05;
    for (i, user) in people.iter().enumerate() {
        assert_eq!(net.put(i, &entry(user, 1, b"kept", 86400)).1, Ok(()));
    }
    for round in 0..20 {
        net.run(Duration::from_secs(5));
        for user in &people {
            let peer = net.draw(16);
            let (found, trace) = net.get(peer, key_of(user), Mode::Auto);
            assert_eq!(bodies(&found.expect("found")), [b"kept"], "round {round} {trace:?}");
        }
    }
    net.loss = 0.0;
    net.run(Duration::from_secs(120));
    assert_eq!(net.wrong(8), Vec::<String>::new());
}

/// The same seed, the same history; another seed, another.
pub fn deterministic<O: Overlay + 'static>(make: Make<O>) {
    let history = |seed| {
        let mut net = Net::new(seed, make);
        net.loss = 0.02;
        net.ring(10);
        let bob = Users::new(1).user("bob");
        let _ = net.put(3, &entry(&bob, 1, b"here", 600));
        net.crash(4);
        let _ = net.get(5, key_of(&bob), Mode::Auto);
        net.run(Duration::from_secs(20));
        net.history.finish()
    };
    assert_eq!(history(11), history(11));
    assert_ne!(history(11), history(12));
}
