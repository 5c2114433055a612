//! Records over restarts: power cuts, full disks, copied directories, wrong clocks. In virtual time.
// Hosts and users go by the same numbers.
#![allow(clippy::needless_range_loop)]

use crate::world::{START, World};
use chordial::core::UnixTime;
use chordial::identity::EntryKind;
use chordial::node::Input;
use chordial::node::control::{Command, Event, LookupReport, Reply};
use std::time::Duration;

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

fn lookup(world: &mut World, host: usize, user: &str) -> LookupReport {
    let request = world.command(host, Command::Lookup { target: user.into(), iterative: false });
    world.until(Duration::from_secs(10), "a lookup's end", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request) {
        Some(Ok(Reply::Lookup(report))) => report,
        other => panic!("lookup of {user}: {other:?}"),
    }
}

fn records(world: &World, host: usize) -> usize {
    world.hosts[host].node.status(world.now).overlay.records
}

fn warnings(world: &World, host: usize) -> Vec<String> {
    let status = world.hosts[host].node.status(world.now);
    status.warnings.into_iter().map(|w| w.what).collect()
}

#[test]
fn an_office_loses_power_and_comes_back() {
    let mut world = World::ring(71, &USERS);
    let before: Vec<_> = (0..5).map(|i| records(&world, i)).collect();
    assert!(before.iter().sum::<usize>() >= 15, "{before:?}");
    (0..5).for_each(|i| world.kill(i));
    world.run(Duration::from_secs(60));
    // The second one up finds what the first holds and the other way round; the others are found, if not reached.
    for (n, i) in [3, 0, 4, 1, 2].into_iter().enumerate() {
        world.restart(i, &[3], 0);
        world.run(Duration::from_secs(4));
        if n == 1 {
            assert!(lookup(&mut world, 0, "dave").found && lookup(&mut world, 3, "alice").found);
            let call = world.command(
                0,
                Command::Call { target: "dave".into(), play: None, record: None, duration: None, account: None },
            );
            let rings = |e: &(_, Event)| matches!(e.1, Event::Incoming { .. });
            world.until(Duration::from_secs(5), "dave rings", |w| w.hosts[3].events.iter().any(rings));
            world.hand(0, Input::Abort { request: call });
        }
    }
    world.run(Duration::from_secs(20));
    for i in 0..5 {
        for user in USERS {
            assert!(lookup(&mut world, i, user).found, "{} misses {user}", USERS[i]);
        }
    }
}

#[test]
fn what_was_left_with_care_does_not_come_back_stale() {
    let mut world = World::ring(72, &USERS[..3]);
    let stop = |world: &mut World, i: usize| {
        world.command(i, Command::Stop);
        world.until(Duration::from_secs(10), "it leaves", |w| w.hosts[i].stopped);
        world.kill(i);
    };
    stop(&mut world, 1);
    // All of it was handed over.
    assert!(world.hosts[1].disk.records.is_empty(), "{:?}", world.hosts[1].disk.records.keys());
    assert!(!lookup(&mut world, 0, "bob").found);
    stop(&mut world, 2);
    stop(&mut world, 0);
    // The last one has nobody to hand over to, and keeps what it holds: that bob has gone, for one.
    let kept = &world.hosts[0].disk.records;
    assert!(kept.values().any(|e| e.entry().is_removal() && e.entry().aor.starts_with("sip:bob@")));
    world.restart(0, &[], 0);
    world.run(Duration::from_secs(10));
    assert!(!lookup(&mut world, 0, "bob").found && lookup(&mut world, 0, "alice").found);
    world.restart(1, &[0], 0);
    world.run(Duration::from_secs(10));
    assert!(lookup(&mut world, 0, "bob").found);
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let mut world = World::ring(73, &USERS[..3]);
    let held = world.hosts[1].disk.records.len();
    world.hosts[1].disk.full = true;
    let dave = world.peer("dave", |_| {});
    world.run(Duration::from_secs(15));
    assert!(lookup(&mut world, 1, "dave").found && lookup(&mut world, dave, "bob").found);
    assert!(warnings(&world, 1).iter().any(|w| w.contains("in memory only")), "{:?}", warnings(&world, 1));
    let told = |e: &&(_, Event)| matches!(&e.1, Event::Warning { what, .. } if what.contains("no space left"));
    assert_eq!(world.hosts[1].events.iter().filter(told).count(), 1, "told once");
    assert_eq!(world.hosts[1].disk.records.len(), held);
    world.hosts[1].disk.full = false;
    world.peer("erin", |_| {});
    world.run(Duration::from_secs(300));
    assert_eq!(warnings(&world, 1), Vec::<String>::new());
}

#[test]
fn a_slow_disk_holds_nobody_up() {
    let mut world = World::new(74);
    for user in &USERS[..3] {
        let host = world.peer(user, |_| {});
        world.hosts[host].disk.delay = Duration::from_secs(30);
    }
    world.run(Duration::from_secs(15));
    for i in 0..3 {
        assert!(USERS[..3].iter().all(|user| lookup(&mut world, i, user).found));
    }
}

#[test]
fn a_copied_directory_is_told_to_its_owner() {
    let mut world = World::ring(75, &USERS[..3]);
    // The copy has the same device key and is another peer of the world, at another address.
    let copy = world.copy(1);
    // Long before either writes its record again: the ring tells one of them of itself at the other's address.
    world.run(Duration::from_secs(150));
    let told = |world: &World, i: usize| warnings(world, i).iter().any(|w| w.contains("copy") || w.contains("copied"));
    assert!(told(&world, 1) && told(&world, copy), "{:?} {:?}", warnings(&world, 1), warnings(&world, copy));
}

#[test]
fn a_clock_that_is_set_expires_nothing() {
    const DAY: i64 = 86_400;
    for wrong in [-DAY, DAY] {
        let mut world = World::ring(76, &USERS);
        // So that every copy lies where it belongs.
        world.run(Duration::from_secs(200));
        let before = records(&world, 2);
        let unix = START.secs() + world.now.as_millis() / 1000;
        world.hand(2, Input::Clock { unix: UnixTime(unix.saturating_add_signed(wrong)) });
        world.run(Duration::from_secs(60));
        assert_eq!(records(&world, 2), before, "clock {wrong} s off");
        world.run(Duration::from_secs(1200));
        for i in 0..5 {
            for user in USERS {
                assert!(lookup(&mut world, i, user).found, "clock {wrong} s off: {} misses {user}", USERS[i]);
            }
        }
        assert!(warnings(&world, 2).iter().any(|w| w.contains("clock")), "{:?}", warnings(&world, 2));
        let unix = START.secs() + world.now.as_millis() / 1000;
        world.hand(2, Input::Clock { unix: UnixTime(unix) });
        world.run(Duration::from_secs(120));
        assert_eq!(warnings(&world, 2), Vec::<String>::new());
    }
}

#[test]
fn a_machine_that_starts_with_a_wrong_clock() {
    for wrong in [-86_400, 86_400, -(START.secs() as i64)] {
        let mut world = World::ring(77, &USERS);
        world.kill(2);
        world.run(Duration::from_secs(20));
        assert!(world.hosts[2].disk.records.values().any(|e| e.entry().kind == EntryKind::Contact));
        world.restart(2, &[0], wrong);
        world.run(Duration::from_secs(1300));
        for user in USERS {
            assert!(lookup(&mut world, 2, user).found, "{wrong} s off: carol misses {user}");
            assert!(lookup(&mut world, 0, user).found, "{wrong} s off: alice misses {user}");
        }
        assert!(warnings(&world, 2).iter().any(|w| w.contains("clock")), "{wrong}: {:?}", warnings(&world, 2));
    }
}

#[test]
fn a_refresh_that_changes_nothing_is_small_and_holds() {
    let mut world = World::ring(78, &USERS);
    let begun = world.hosts.iter().map(|h| h.log.len()).collect::<Vec<_>>();
    // Several lifetimes, and holders come and go.
    world.run(Duration::from_secs(1500));
    let holder = (1..5).find(|i| records(&world, *i) > 0).unwrap();
    world.kill(holder);
    world.run(Duration::from_secs(1500));
    for user in USERS.iter().enumerate().filter(|(i, _)| *i != holder).map(|(_, u)| u) {
        assert!(lookup(&mut world, 0, user).found, "{user}");
    }
    let touched = |e: &chordial::identity::SignedEntry| e.touch().is_some();
    assert!(world.hosts[0].disk.records.values().any(touched), "nothing was renewed without being signed anew");
    let contacts = world.hosts[0].disk.records.values().filter(|e| e.entry().kind == EntryKind::Contact);
    let signed_at_first = START.secs() + 60;
    assert!(contacts.clone().all(|e| e.entry().issued.secs() < signed_at_first), "an entry was signed anew");
    assert!(begun.iter().all(|n| *n > 0));
}
