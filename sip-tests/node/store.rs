//! What nodes keep in the overlay beside records: leases that one has, blobs that others read. In virtual time.

use crate::world::World;
use chordial::node::control::Event;
use chordial::node::{BlobRead, Input};
use std::time::Duration;

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// What was asked of a node between two inputs goes out with the next.
fn poke(world: &mut World, host: usize) {
    let unix = world.unix();
    world.hand(host, Input::Clock { unix });
}

fn blob_state(world: &World, host: usize, id: &str) -> Option<String> {
    world.hosts[host].events.iter().rev().find_map(|(_, e)| match e {
        Event::Blob { blob, state, .. } if blob == id => Some(state.clone()),
        _ => None,
    })
}

#[test]
fn a_lease_is_one_nodes_until_it_gives_it_back_or_dies() {
    let mut world = World::ring(81, &USERS);
    world.run(Duration::from_secs(140));
    let span = Duration::from_secs(60);
    let mut aor = String::new();
    for host in [1, 2] {
        let now = world.now;
        aor = world.hosts[host].node.want_lease(now, "trunk", "berlin", span).expect("a name");
        poke(&mut world, host);
        world.run(Duration::from_secs(5));
    }
    let has = |w: &World, host: usize| w.hosts[host].node.lease(w.now, &aor);
    let first = has(&world, 1).expect("it asked first");
    assert_eq!(has(&world, 2), None);
    let refused =
        |(_, e): &(_, Event)| matches!(e, Event::Lease { held: false, by: Some(by), .. } if by.contains("bob"));
    assert!(world.hosts[2].events.iter().any(refused), "{:?}", world.hosts[2].events);
    // Renewed for as long as it is wanted.
    for _ in 0..60 {
        world.run(Duration::from_secs(5));
        assert!(has(&world, 1).is_some() && has(&world, 2).is_none());
    }
    let now = world.now;
    world.hosts[1].node.give_lease_back(now, &aor);
    poke(&mut world, 1);
    world.run(Duration::from_secs(25));
    let second = has(&world, 2).expect("it was given back");
    assert!(second.fence > first.fence && has(&world, 1).is_none());
    // The holder dies: it is nobody's until its time is over, then the next one's.
    let now = world.now;
    world.hosts[3].node.want_lease(now, "trunk", "berlin", span).expect("a name");
    poke(&mut world, 3);
    world.kill(2);
    let mut free = 0;
    for _ in 0..200 {
        world.run(Duration::from_secs(1));
        match has(&world, 3) {
            Some(third) => {
                assert!(third.fence > second.fence && world.now >= second.until);
                free += 1;
                break;
            }
            None => continue,
        }
    }
    assert_eq!(free, 1, "nobody had it any more");
}

#[test]
fn ordinary_nodes_have_leases_by_their_supernodes() {
    let mut world = World::ring(84, &USERS);
    let hidden = ["frank", "grace"].map(|user| world.hidden_peer(user, |_| {}));
    world.run(Duration::from_secs(160));
    let span = Duration::from_secs(60);
    let mut aor = String::new();
    for host in hidden {
        assert_eq!(world.hosts[host].node.status(world.now).role, "ordinary");
        let now = world.now;
        aor = world.hosts[host].node.want_lease(now, "trunk", "berlin", span).expect("a name");
        poke(&mut world, host);
        world.run(Duration::from_secs(5));
    }
    let has = |w: &World, host: usize| w.hosts[host].node.lease(w.now, &aor);
    assert!(has(&world, hidden[0]).is_some(), "{:?}", world.hosts[hidden[0]].events);
    // Also while a supernode of the ring dies.
    world.kill(3);
    for _ in 0..60 {
        world.run(Duration::from_secs(5));
        let both = hidden.map(|host| has(&world, host).is_some());
        assert_ne!(both, [true, true]);
    }
    assert!(hidden.iter().any(|host| has(&world, *host).is_some()), "nobody has it");
    world.kill(hidden[0]);
    world.run(Duration::from_secs(150));
    assert!(has(&world, hidden[1]).is_some(), "{:?}", world.hosts[hidden[1]].events);
}

#[test]
fn a_blob_is_written_read_and_taken_back() {
    let mut world = World::ring(82, &USERS);
    let voice: Vec<u8> = (0..2 * 1024 * 1024u32 + 77).map(|i| ((i * 31) >> 3) as u8).collect();
    let life = Duration::from_secs(86_400);
    let reference = world.hosts[0].node.begin_blob(life).expect("room");
    let id = reference.number();
    let mut at = 0;
    for _ in 0..4000 {
        let now = world.now;
        let some = &voice[at..voice.len().min(at + 300_000)];
        let last = at + some.len() == voice.len();
        let taken = world.hosts[0].node.feed_blob(now, &id, some, last);
        assert!(taken <= 6 * 32 * 1024, "{taken} bytes taken at once");
        at += taken;
        poke(&mut world, 0);
        world.run(Duration::from_millis(50));
        if blob_state(&world, 0, &id).as_deref() == Some("written") {
            break;
        }
    }
    assert_eq!((at, blob_state(&world, 0, &id).as_deref()), (voice.len(), Some("written")));
    world.kill(1);
    world.run(Duration::from_secs(30));
    let read = |world: &mut World, host: usize| {
        let now = world.now;
        world.hosts[host].node.begin_read_blob(now, reference.clone()).expect("room");
        poke(world, host);
        let mut all = Vec::new();
        for _ in 0..4000 {
            let now = world.now;
            match world.hosts[host].node.read_blob(now, &id) {
                BlobRead::Bytes(some) => all.extend(some),
                BlobRead::Later => {
                    poke(world, host);
                    world.run(Duration::from_millis(50));
                }
                BlobRead::End => return Ok(all),
                BlobRead::Failed(why) => return Err(why),
            }
        }
        Err("never ended".into())
    };
    assert!(read(&mut world, 4).as_ref() == Ok(&voice));
    let now = world.now;
    world.hosts[0].node.hold_blob(now, reference.clone(), Duration::ZERO).expect("room");
    poke(&mut world, 0);
    world.run(Duration::from_secs(60));
    assert_eq!(read(&mut world, 3), Err("it is not there (any more)".into()));
    for host in [0, 2, 3, 4] {
        assert!(world.hosts[host].disk.chunks.is_empty(), "{host} keeps {}", world.hosts[host].disk.chunks.len());
    }
}
