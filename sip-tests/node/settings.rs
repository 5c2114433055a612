//! Contacts: the same on all devices of a user, and nobody else's business.

use crate::world::{START, World};
use chordial::core::Instant;
use chordial::identity::{Identity, KeyPair};
use chordial::node::Saved;
use chordial::node::control::{Command, Reply};
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A further device of the user at `host`.
fn further_device(world: &mut World, host: usize) -> usize {
    let first = world.hosts[host].identity.clone().unwrap();
    let (device, unix) = (KeyPair::generate(&mut world.rng), START + world.now.since(Instant::ZERO));
    let (key, above) = (first.user_key.clone().unwrap(), first.above_device().to_vec());
    let identity = Identity::sign_in(key, &above, first.anchor.clone(), device, "second", unix).unwrap();
    let alive = world.hosts.iter().find(|h| !h.dead).map(|h| chordial::config::Bootstrap::Addr(h.overlay));
    let second = world.member(identity, |config| config.overlay.bootstrap = alive.into_iter().collect());
    world.run(seconds(15));
    second
}

fn add(world: &mut World, host: usize, name: &str, target: &str) -> Result<(), String> {
    let added = world.ask(host, Command::ContactAdd { name: name.into(), target: target.into() });
    added.map(|_| ()).map_err(|e| e.to_string())
}

fn contacts(world: &mut World, host: usize) -> Vec<(String, String)> {
    let request = world.command(host, Command::ContactList);
    world.until(seconds(5), "the contacts", |w| w.hosts[host].replies.contains_key(&request));
    match world.hosts[host].replies.remove(&request).unwrap() {
        Ok(Reply::Contacts { contacts }) => contacts.into_iter().map(|c| (c.name, c.target)).collect(),
        other => panic!("{other:?}"),
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect()
}

#[test]
fn a_new_device_has_the_contacts_of_the_one_that_is_gone() {
    let mut world = World::ring(41, &["alice", "bob", "carol", "dave"]);
    add(&mut world, 0, "Ben", "bob").unwrap();
    add(&mut world, 0, "The office", "sip:reception@elsewhere.example").unwrap();
    world.run(seconds(5));
    world.kill(0);
    world.run(seconds(60));
    let second = further_device(&mut world, 0);
    let both = pairs(&[("Ben", "bob"), ("The office", "sip:reception@elsewhere.example")]);
    assert_eq!(contacts(&mut world, second), both);
    assert!(world.hosts[second].files.iter().any(|(what, _)| *what == Saved::Settings), "kept on the device");
    // A name is a target, in any case.
    let request = world.call(second, "ben");
    world.until_ringing_at(1);
    world.answer(1);
    world.run(seconds(2));
    world.hang_up(second);
    let (report, _) = world.report(second, request, seconds(10));
    assert_eq!((report.result.as_str(), report.with.as_str()), ("completed", "sip:bob@chordial"));
    // Another user has none of it.
    assert_eq!(contacts(&mut world, 2), []);
}

#[test]
fn changes_on_two_devices_come_together() {
    let mut world = World::ring(42, &["alice", "bob", "carol"]);
    let second = further_device(&mut world, 0);
    add(&mut world, 0, "Ben", "bob").unwrap();
    add(&mut world, second, "Cora", "carol").unwrap();
    world.run(seconds(5));
    let both = pairs(&[("Ben", "bob"), ("Cora", "carol")]);
    assert_eq!(contacts(&mut world, 0), both);
    assert_eq!(contacts(&mut world, second), both);
    // The later change counts, in whatever case the name is written.
    world.run(seconds(2));
    add(&mut world, second, "BEN", "sip:ben@elsewhere.example").unwrap();
    world.run(seconds(5));
    assert_eq!(contacts(&mut world, 0), pairs(&[("BEN", "sip:ben@elsewhere.example"), ("Cora", "carol")]));
    world.ask(0, Command::ContactRemove { name: "cora".into() }).unwrap();
    world.run(seconds(5));
    assert_eq!(contacts(&mut world, second), pairs(&[("BEN", "sip:ben@elsewhere.example")]));
    // Without being asked for, as well.
    add(&mut world, 0, "Dan", "bob").unwrap();
    world.run(seconds(1000));
    world.kill(0);
    let request = world.call(second, "dan");
    world.until_ringing_at(1);
    world.hang_up(second);
    world.report(second, request, seconds(10));
}

#[test]
fn a_quiet_list_is_not_written_again_and_again() {
    let mut world = World::ring(43, &["alice", "bob", "carol"]);
    let second = further_device(&mut world, 0);
    for n in 0..20 {
        add(&mut world, 0, &format!("Friend {n}"), "bob").unwrap();
        world.run(seconds(3));
    }
    world.run(seconds(1500));
    assert_eq!(contacts(&mut world, second).len(), 20);
    let writes = |world: &World| {
        let stores = |h: &crate::world::Host| h.log.iter().filter(|l| l.contains("+settings-")).count();
        world.hosts.iter().map(stores).sum::<usize>()
    };
    let before = writes(&world);
    world.run(seconds(600));
    let quiet = writes(&world) - before;
    // Each of the two devices reads each part about once in that time; replicas and their upkeep come on top.
    assert!(quiet < 400, "{quiet} messages about settings in ten minutes");
}

#[test]
fn what_makes_no_contact_is_said() {
    let mut world = World::ring(44, &["alice", "bob"]);
    for (name, target) in [("", "bob"), ("a@b", "bob"), ("x", ""), ("x", "no such thing!"), (&"n".repeat(65), "bob")] {
        assert!(add(&mut world, 0, name, target).is_err(), "{name} {target}");
    }
    add(&mut world, 0, "Ben", "bob").unwrap();
    let no = add(&mut world, 0, "Benny", "ben").unwrap_err();
    assert!(no.contains("itself a contact"), "{no}");
    let no = world.ask(0, Command::ContactRemove { name: "nobody".into() }).unwrap_err();
    assert_eq!(no.what, "there is no contact nobody");
    let mut full = Ok(());
    for n in 0..3000 {
        full = full.and_then(|()| {
            add(&mut world, 0, &format!("a rather long name, number {n}"), "sip:somebody@elsewhere.example")
        });
    }
    assert!(full.unwrap_err().contains("there is no room"));
    world.run(seconds(10));
    assert!(contacts(&mut world, 0).len() > 200);
}

/// A plain SIP phone has no overlay; its contacts are its own.
#[test]
fn a_plain_phone_keeps_its_own() {
    let mut world = World::new(45);
    let registrar = "10.9.0.1:5060".parse().unwrap();
    let phone = world.plain("joe", "secret", registrar, |_| {});
    add(&mut world, phone, "Ben", "sip:ben@192.0.2.7").unwrap();
    assert_eq!(contacts(&mut world, phone), pairs(&[("Ben", "sip:ben@192.0.2.7")]));
}
