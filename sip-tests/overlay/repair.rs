//! Holders made equal: what it costs, what it moves, and that renewals travel alone.

use crate::chord::make;
use crate::net::{Net, OVERLAY, UNIX, Users, entry, key_of};
use chordial::core::{Rng, UnixTime};
use chordial::identity::SignedEntry;
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::Chord;
use chordial::overlay::{Failure, Input, Mode, Output, Overlay, Request, Response, Route, Stored, Token};
use std::time::Duration;

/// Gives an entry to one peer and to nobody else.
fn give(net: &mut Net<Chord>, to: usize, entry: &SignedEntry, token: u64) {
    let from = net.peers.iter().map(|p| p.me).find(|p| *p != net.peers[to].me);
    let (key, entries) = (entry.entry().resource_key(), vec![entry.clone()]);
    let request = Request::Store { key, replica: 0, entries, route: Route::Here };
    let now = net.now;
    net.peers[to].overlay.handle(now, Input::Request { from, token: Token(u64::MAX - token), request });
    let mut stored = false;
    while let Some(output) = net.peers[to].overlay.poll_output() {
        stored |= matches!(output, Output::Reply { response: Response::Stored { .. }, .. });
    }
    assert!(stored, "not taken");
}

/// Bytes of everything that was said to make holders equal, requests and answers, as SIP.
fn bytes(net: &mut Net<Chord>) -> usize {
    let mut rng = Rng::from_seed(1);
    let mut sum = 0;
    for (by, asker, request, response) in std::mem::take(&mut net.answered) {
        let counts = match &request {
            Request::Compare { .. } => true,
            Request::Store { route, .. } | Request::Fetch { route, .. } => *route == Route::Here,
            _ => false,
        };
        if counts {
            let message = Carry::new(OVERLAY, asker, 600).encode_request(&request, by.addr, &mut rng);
            let answer = Carry::new(OVERLAY, by, 600).encode_response(&message, &response, &mut rng);
            sum += message.to_bytes().len() + answer.to_bytes().len();
        }
    }
    sum
}

fn entries_held(net: &Net<Chord>, peer: usize) -> usize {
    net.peers[peer].overlay.status().entries
}

#[test]
fn one_missing_among_a_thousand_costs_little() {
    let mut net = Net::new(900, make);
    net.ring(3);
    let mut users = Users::new(900);
    let all: Vec<SignedEntry> = (0..1000).map(|i| entry(&users.user(&format!("u{i}")), 1, b"here", 86_400)).collect();
    for (i, e) in all.iter().enumerate() {
        (0..3).for_each(|to| give(&mut net, to, e, (i * 3 + to) as u64));
    }
    net.run(Duration::from_secs(3600));
    let before: Vec<usize> = (0..3).map(|i| entries_held(&net, i)).collect();
    assert!(before.iter().all(|n| *n >= 1000), "{before:?}");
    // At rest, once more for the record.
    net.record = true;
    net.answered.clear();
    let late = entry(&users.user("late"), 1, b"here", 86_400);
    let owner = net.owner(&late.entry().resource_key());
    give(&mut net, owner, &late, 9_999);
    net.run(Duration::from_secs(20));
    let key = late.entry().resource_key();
    for i in 0..3 {
        assert!(net.peers[i].overlay.resources().contains(&(key, 0)), "{i} misses it");
    }
    let (cost, whole) = (bytes(&mut net), 2 * all.iter().map(|e| e.encoded().len()).sum::<usize>());
    println!("one entry among 1,000 brought to two holders: {cost} bytes; all of them: {whole}");
    assert!(cost * 25 < whole, "{cost} bytes of {whole}");
    // What is the same costs one request and one answer with each holder.
    net.run(Duration::from_secs(700));
    let compared = net.answered.iter().filter(|(_, _, r, _)| matches!(r, Request::Compare { .. })).count();
    let stored =
        net.answered.iter().filter(|(_, _, r, _)| matches!(r, Request::Store { route: Route::Here, .. })).count();
    assert!((6..=24).contains(&compared) && stored == 0, "{compared} comparisons, {stored} entries sent");
}

#[test]
fn who_comes_back_with_nearly_everything_is_sent_what_is_missing() {
    let mut net = Net::new(901, make);
    net.ring(3);
    let mut users = Users::new(901);
    let all: Vec<SignedEntry> = (0..200).map(|i| entry(&users.user(&format!("u{i}")), 1, b"here", 86_400)).collect();
    for (i, e) in all.iter().enumerate() {
        (0..3).for_each(|to| give(&mut net, to, e, (i * 3 + to) as u64));
    }
    net.run(Duration::from_secs(600));
    for kept in [190, 0] {
        net.crash(2);
        net.run(Duration::from_secs(30));
        net.restart(2);
        let stored = Stored {
            entries: all[..kept].iter().map(|e| (e.entry().resource_key(), 0, e.clone())).collect(),
            unix: UnixTime(UNIX.secs() + 60),
            ..Stored::default()
        };
        net.input(2, Input::Restore(stored));
        (net.record, net.answered) = (true, Vec::new());
        net.join(2, 0);
        net.run(Duration::from_secs(60));
        for e in &all {
            let key = e.entry().resource_key();
            assert!(net.peers[2].overlay.resources().contains(&(key, 0)), "{kept}: misses {}", e.entry().aor);
        }
        let me = net.peers[2].me;
        let sent: usize = net
            .answered
            .iter()
            .map(|(by, asker, request, response)| match (request, response) {
                (Request::Store { entries, replica: 0, route: Route::Here, .. }, _) if *by == me => entries.len(),
                (Request::Fetch { route: Route::Here, .. }, Response::Entries { entries, .. }) if *asker == me => {
                    entries.len()
                }
                _ => 0,
            })
            .sum();
        println!("back with {kept} of 200: {sent} entries sent");
        assert!(sent >= 200 - kept && sent <= 3 * (200 - kept) + 6, "back with {kept} of 200: {sent} entries sent");
        net.run(Duration::from_secs(120));
    }
}

#[test]
fn strangers_to_the_neighbourhood_are_told_nothing() {
    let mut net = Net::new(902, make);
    net.ring(24);
    let ring = net.around();
    let (asked, far) = (ring[0], net.peers[ring[12]].me);
    let status = net.peers[asked].overlay.status();
    assert!(!status.successors.iter().any(|s| s.id == far.id));
    let request = Request::Compare { scattered: true, unix: UNIX, ranges: Vec::new() };
    let now = net.now;
    net.peers[asked].overlay.handle(now, Input::Request { from: Some(far), token: Token(u64::MAX), request });
    let refused = std::iter::from_fn(|| net.peers[asked].overlay.poll_output())
        .any(|o| matches!(o, Output::Reply { token: Token(u64::MAX), response: Response::Failed(Failure::Invalid) }));
    assert!(refused);
}

#[test]
fn a_renewal_travels_alone_and_lasts() {
    for wire in [false, true] {
        let mut net = Net::new(903, make);
        net.wire = wire.then_some(|me| Carry::new(OVERLAY, me, 600));
        net.ring(8);
        let bob = Users::new(903).user("bob");
        let first = entry(&bob, 1, b"here", 600);
        assert_eq!(net.put(1, &first).1, Ok(()));
        let begun = net.now;
        let mut last = first.clone();
        for round in 1..=4 {
            net.run(Duration::from_secs(300));
            (net.record, net.sent) = (true, Vec::new());
            let unix = UNIX + net.now.since(chordial::core::Instant::from_millis(1000));
            last = bob.touch(&[last], unix, 600).pop().expect("its own");
            assert_eq!(net.put(1, &last).1, Ok(()), "round {round}");
            let whole = net
                .sent
                .iter()
                .filter(|(by, _, r)| *by == net.peers[1].me && matches!(r, Request::Store { .. }))
                .count();
            let alone = net.sent.iter().filter(|(_, _, r)| matches!(r, Request::Touch { .. })).count();
            assert!(alone >= 3 && whole == 0, "round {round}: {alone} renewals, {whole} whole entries");
            if round == 2 {
                // A holder that has forgotten gets the whole.
                let owner = net.owner(&key_of(&bob));
                net.crash(owner);
                net.run(Duration::from_secs(20));
                net.restart(owner);
                net.join(owner, (owner + 1) % 8);
            }
        }
        assert!(net.now.since(begun) > Duration::from_secs(1200));
        assert_eq!(net.get(5, key_of(&bob), Mode::Auto).0.expect("found"), [last.clone()]);
        // It is bound to what was signed: another body needs another signature.
        assert!(net.put(1, &entry(&bob, 1, b"there", 86_400)).1.is_err());
        net.run(Duration::from_secs(700));
        assert_eq!(net.get(5, key_of(&bob), Mode::Auto).0, Ok(Vec::new()));
    }
}
