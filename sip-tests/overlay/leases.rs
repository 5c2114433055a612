//! Leases: one winner at a time, whoever dies, comes, or is cut off.

use crate::chord::make;
use crate::net::{Death, Net, OVERLAY, UNIX, Users};
use chordial::core::{Id, Instant, UnixTime};
use chordial::identity::{Entry, EntryKind, Identity, LEASE_LIFETIME, LeaseBody, SignedEntry, lease_aor, resource_key};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::Chord;
use chordial::overlay::{Command, Input, Lease, LeaseError, OpId, Output};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than whoever is new has to wait.
const SETTLED: Duration = Duration::from_secs(140);

fn name(n: usize) -> (String, Id) {
    let aor = lease_aor("park", &n.to_string(), OVERLAY).expect("a name");
    let key = resource_key(&aor);
    (aor, key)
}

/// Asks for `seconds`; 0 gives back.
fn ask(user: &Identity, aor: &str, sequence: u64, seconds: u16, issued: UnixTime) -> SignedEntry {
    let body = if seconds == 0 { Vec::new() } else { LeaseBody { seconds }.encode() };
    let (kind, device) = (EntryKind::LEASE, user.device_key());
    let lifetime = LEASE_LIFETIME;
    let entry = Entry { kind, aor: aor.into(), device, sequence, issued, lifetime, body };
    user.sign_entry(entry).expect("any member may")
}

fn unix(net: &Net<Chord>) -> UnixTime {
    UNIX + net.now.since(Instant::from_millis(1000))
}

fn begin(net: &mut Net<Chord>, peer: usize, entry: &SignedEntry) -> OpId {
    let op = net.op();
    net.command(peer, Command::Lease { op, key: entry.entry().resource_key(), entry: entry.clone() });
    op
}

fn done(net: &mut Net<Chord>, op: OpId) -> Option<Result<Lease, LeaseError>> {
    let at = net.reports.iter().position(|(_, o)| matches!(o, Output::LeaseDone { op: o, .. } if *o == op))?;
    match net.reports.remove(at).1 {
        Output::LeaseDone { result, .. } => Some(result),
        _ => None,
    }
}

fn lease(net: &mut Net<Chord>, peer: usize, entry: &SignedEntry) -> Result<Lease, LeaseError> {
    let op = begin(net, peer, entry);
    let ended =
        |n: &Net<Chord>| n.reports.iter().any(|(_, o)| matches!(o, Output::LeaseDone { op: o, .. } if *o == op));
    assert!(net.run_until(net.now + Duration::from_secs(30), ended), "a lease was never decided");
    done(net, op).expect("it ended")
}

fn settled(seed: u64, n: usize) -> (Net<Chord>, Vec<Identity>) {
    let mut net = Net::new(seed, make);
    net.wire = Some(|me| Carry::new(OVERLAY, me, 600));
    net.ring(n);
    net.run(SETTLED);
    let mut users = Users::new(seed);
    let users = (0..8).map(|i| users.user(&format!("u{i}"))).collect();
    (net, users)
}

#[test]
fn one_has_it_until_it_gives_it_back_or_its_time_is_over() {
    for n in [1, 2, 3, 8] {
        let (mut net, users) = settled(1000 + n as u64, n);
        let (aor, _) = name(1);
        let now = unix(&net);
        let first = lease(&mut net, 0, &ask(&users[0], &aor, 10, 60, now)).unwrap_or_else(|e| panic!("{n}: {e}"));
        assert!(first.until > net.now + Duration::from_secs(55));
        // Refused, with who has it and for how long.
        let Err(LeaseError::Held { entry, left }) = lease(&mut net, n - 1, &ask(&users[1], &aor, 10, 60, now)) else {
            panic!("{n}: two have it");
        };
        assert_eq!(entry.entry().device, users[0].device_key());
        assert!(left > Duration::from_secs(50) && left < Duration::from_secs(65), "{left:?}");
        // Renewed by its holder, under the same token.
        net.run(Duration::from_secs(30));
        let again = lease(&mut net, 0, &ask(&users[0], &aor, 11, 60, now)).expect("its own");
        assert!(again.fence == first.fence && again.until > first.until);
        // A request from before is no good any more, and nobody else gives back.
        assert_eq!(lease(&mut net, 0, &ask(&users[0], &aor, 10, 60, now)), Err(LeaseError::Invalid));
        lease(&mut net, 0, &ask(&users[1], &aor, 12, 0, now)).expect("it has nothing");
        assert!(matches!(lease(&mut net, 0, &ask(&users[1], &aor, 13, 60, now)), Err(LeaseError::Held { .. })));
        // Given back: the next one has it at once, under a higher token, and the old request does not bring it back.
        lease(&mut net, 0, &ask(&users[0], &aor, 12, 0, now)).expect("its own");
        let second = lease(&mut net, n - 1, &ask(&users[1], &aor, 14, 5, now)).expect("free");
        assert!(second.fence > first.fence, "{n}");
        // Its time is over by itself.
        assert!(matches!(lease(&mut net, 0, &ask(&users[2], &aor, 1, 5, now)), Err(LeaseError::Held { .. })));
        net.run(Duration::from_secs(6));
        let third = lease(&mut net, 0, &ask(&users[2], &aor, 2, 5, now)).expect("free");
        assert!(third.fence > second.fence, "{n}");
    }
}

#[test]
fn nobody_new_decides() {
    let mut net = Net::new(1010, make);
    net.ring(3);
    let user = Users::new(1010).user("u");
    let (aor, _) = name(1);
    // A minute old: somebody may have been given it before this ring began.
    let now = unix(&net);
    let young = lease(&mut net, 0, &ask(&user, &aor, 1, 60, now));
    assert!(matches!(young, Err(LeaseError::Unsure { .. })), "{young:?}");
    net.run(SETTLED);
    assert!(lease(&mut net, 0, &ask(&user, &aor, 2, 60, now)).is_ok());
}

#[test]
fn the_responsible_peer_dies_in_the_middle() {
    for death in [Death::Refused, Death::Silent] {
        let (mut net, users) = settled(1020, 8);
        net.death = death;
        for contest in 0..12 {
            let (aor, key) = name(contest);
            let now = unix(&net);
            let owner = net.owner(&key);
            let others: Vec<usize> = net.living().into_iter().filter(|p| *p != owner).collect();
            let first = begin(&mut net, others[0], &ask(&users[0], &aor, 1, 120, now));
            // In each stage of the agreement, and after it.
            net.run(Duration::from_millis(contest as u64 * 20));
            net.crash(owner);
            let second = lease(&mut net, others[1], &ask(&users[1], &aor, 1, 120, now));
            net.run(Duration::from_secs(8));
            let first = done(&mut net, first).expect("decided");
            assert!(!(first.is_ok() && second.is_ok()), "{death:?} {contest}: two winners");
            let third = lease(&mut net, others[2], &ask(&users[2], &aor, 1, 120, now));
            assert!(third.is_err() || first.is_err() && second.is_err(), "{death:?} {contest}: {third:?}");
            net.restart(owner);
            net.join(owner, others[0]);
            net.run(SETTLED);
        }
    }
}

#[test]
fn one_that_joins_in_front_is_told_by_those_who_know() {
    let (mut net, users) = settled(1025, 6);
    let (aor, key) = name(5);
    let now = unix(&net);
    let first = lease(&mut net, 0, &ask(&users[0], &aor, 1, 120, now)).expect("free");
    // Its very place on the ring: it is responsible from now on, and has been told of nothing.
    let new = net.add(key);
    net.join(new, 0);
    net.run(Duration::from_secs(10));
    assert_eq!(net.owner(&key), new);
    let second = lease(&mut net, 1, &ask(&users[1], &aor, 1, 60, now));
    assert!(
        matches!(&second, Err(LeaseError::Held { entry, .. }) if entry.entry().device == users[0].device_key()),
        "{second:?}"
    );
    // The holder goes on, and gives back, by way of it.
    let again = lease(&mut net, 2, &ask(&users[0], &aor, 2, 120, now)).expect("its own");
    assert!(again.fence >= first.fence && again.until > first.until);
    lease(&mut net, 2, &ask(&users[0], &aor, 3, 0, now)).expect("its own");
    let third = lease(&mut net, 1, &ask(&users[1], &aor, 2, 60, now)).expect("free");
    assert!(third.fence > again.fence);
}

/// Each time somebody had it: the device, from, until.
type Held = BTreeMap<usize, Vec<(usize, Instant, Instant)>>;

fn assert_one(held: &Held) {
    for (name, times) in held {
        for (i, (user, from, until)) in times.iter().enumerate() {
            for (other, other_from, other_until) in &times[i + 1..] {
                let both = user != other && from < other_until && other_from < until;
                assert!(
                    !both,
                    "name {name}: {user} from {from:?} to {until:?}, {other} from {other_from:?} to {other_until:?}"
                );
            }
        }
    }
}

/// So many contests while peers die and come back; who had what when.
fn contests(net: &mut Net<Chord>, users: &[Identity], count: usize, skew: i64) -> (Held, usize) {
    let (mut held, mut refused) = (Held::new(), 0);
    let (mut sequence, mut dead): (u64, Vec<usize>) = (1, Vec::new());
    for contest in 0..count {
        if contest % 4 == 0 {
            let living = net.living();
            if dead.len() >= 2 {
                let back = dead.remove(0);
                net.restart(back);
                net.join(back, living[0]);
            } else {
                let gone = living[net.draw(living.len())];
                net.crash(gone);
                dead.push(gone);
            }
        }
        // Some names again and again, so that what is left of one contest meets the next.
        let which = contest % 7;
        let (aor, _) = name(which);
        let living = net.around();
        let mut asked = Vec::new();
        for user in 0..3 {
            let by = living[net.draw(living.len())];
            sequence += 1;
            let seconds = 5 + net.draw(30) as u16;
            let issued = UnixTime((unix(net).secs() as i64 + skew * (user as i64 - 1)) as u64);
            asked.push((user, begin(net, by, &ask(&users[user], &aor, sequence, seconds, issued)), by));
            net.run(Duration::from_millis(net.now.as_millis() % 90));
        }
        let begun = net.now;
        while !asked.is_empty() && net.now < begun + Duration::from_secs(7) {
            net.run(Duration::from_millis(10));
            let mut open = Vec::new();
            for (user, op, by) in asked {
                match done(net, op) {
                    None => open.push((user, op, by)),
                    Some(Ok(lease)) => held.entry(which).or_default().push((user, net.now, lease.until)),
                    Some(Err(_)) => refused += 1,
                }
            }
            asked = open;
        }
        net.run(Duration::from_secs(net.now.as_millis() % 9));
    }
    (held, refused)
}

#[test]
fn two_hundred_contests_never_two_winners() {
    let (mut net, users) = settled(1030, 12);
    net.loss = 0.03;
    let (held, refused) = contests(&mut net, &users, 200, 0);
    let won: usize = held.values().map(Vec::len).sum();
    println!("200 contests of three: {won} times granted, {refused} times refused");
    assert_one(&held);
    assert!(won >= 60, "only {won} of 200 contests had a winner");
}

#[test]
fn clocks_that_are_minutes_apart() {
    let (mut net, users) = settled(1040, 8);
    // Within what is allowed, each another time.
    for peer in 0..8 {
        let at = (unix(&net).secs() as i64 + (peer as i64 - 4) * 60) as u64;
        net.input(peer, Input::Clock { unix: UnixTime(at) });
    }
    let (held, _) = contests(&mut net, &users, 40, 50);
    assert_one(&held);
    assert!(held.values().map(Vec::len).sum::<usize>() >= 10);
}

#[test]
fn the_side_without_the_majority_refuses() {
    let mut sides = [0, 0];
    for seed in 0..6 {
        let (mut net, users) = settled(1050 + seed, 9);
        let ring = net.around();
        let (aor, key) = name(3);
        let owner = ring.iter().position(|p| *p == net.owner(&key)).expect("it is in the ring");
        // The responsible peer and the one after it, or it alone, and half of the others.
        let with = 1 + seed as usize % 2;
        let side: Vec<usize> = (0..with).chain(5..8).map(|d| ring[(owner + d) % ring.len()]).collect();
        net.cut(&side);
        let other = ring.iter().copied().find(|p| !side.contains(p)).expect("the other side");
        let mut held = Held::new();
        let begun = net.now;
        let mut sequence = 0;
        // For less than the longest lease.
        while net.now.since(begun) < Duration::from_secs(110) {
            for (user, by) in [(0, side[0]), (1, other)] {
                sequence += 1;
                let now = unix(&net);
                if let Ok(lease) = lease(&mut net, by, &ask(&users[user], &aor, sequence, 120, now)) {
                    sides[usize::from((user == 0) != (with == 2))] += 1;
                    held.entry(0).or_default().push((user, net.now, lease.until));
                }
            }
            net.run(Duration::from_secs(3));
        }
        assert_one(&held);
    }
    assert!(sides[0] > 20, "the majority never had it: {sides:?}");
    assert_eq!(sides[1], 0, "the minority had it: {sides:?}");
}
