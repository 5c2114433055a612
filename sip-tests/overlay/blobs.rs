//! Chunks of blobs: written to several, read from whoever has the very bytes, fetched by whoever is to have them.

use crate::chord::make;
use crate::net::{Net, OVERLAY, UNIX, Users};
use bytes::Bytes;
use chordial::core::{Id, Instant, Rng, UnixTime};
use chordial::identity::{
    ChunkBody, ChunkHash, Entry, EntryKind, Identity, SignedEntry, TrustAnchor, Verifier, chunk_aor, resource_key,
};
use chordial::overlay::carry::Carry;
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{Change, Command, Input, LookupError, Output, Overlay, PeerRef, PutError, Stored};
use std::collections::BTreeMap;
use std::time::Duration;

/// A disk of one peer.
#[derive(Default)]
struct Disk {
    entries: BTreeMap<(Id, u8, chordial::identity::DictionaryKey), SignedEntry>,
    chunks: BTreeMap<ChunkHash, Bytes>,
}

fn sealed(n: usize) -> Bytes {
    let mut bytes = vec![0; 32 * 1024];
    Rng::from_seed(n as u64).fill(&mut bytes);
    bytes.into()
}

fn ticket(user: &Identity, bytes: &[u8], sequence: u64, lifetime: u32, unix: UnixTime) -> SignedEntry {
    let body = ChunkBody::of(bytes);
    let (kind, aor, device) = (EntryKind::CHUNK, chunk_aor(&body.hash, OVERLAY), user.device_key());
    let body = if lifetime == 0 { Vec::new() } else { body.encode() };
    let entry = Entry { kind, aor, device, sequence, issued: unix, lifetime: lifetime.max(1), body };
    user.sign_entry(entry).expect("any member may")
}

fn unix<O: Overlay>(net: &Net<O>) -> UnixTime {
    UNIX + net.now.since(Instant::from_millis(1000))
}

fn give<O: Overlay>(net: &mut Net<O>, peer: usize, entry: &SignedEntry, bytes: &Bytes) -> Result<(), PutError> {
    let op = net.op();
    let key = entry.entry().resource_key();
    net.command(peer, Command::Give { op, key, entry: entry.clone(), bytes: bytes.clone() });
    let is = |o: &Output| matches!(o, Output::PutDone { op: o, .. } if *o == op);
    assert!(net.run_until(net.now + Duration::from_secs(60), |n| n.reports.iter().any(|(_, o)| is(o))), "never ended");
    let at = net.reports.iter().position(|(_, o)| is(o)).expect("it ended");
    match net.reports.remove(at).1 {
        Output::PutDone { result, .. } => result,
        _ => unreachable!(),
    }
}

fn take<O: Overlay>(net: &mut Net<O>, peer: usize, bytes: &[u8]) -> Result<Bytes, LookupError> {
    let op = net.op();
    let hash = ChunkHash::of(bytes);
    let key = resource_key(&chunk_aor(&hash, OVERLAY));
    net.command(peer, Command::Take { op, key, hash });
    let is = |o: &Output| matches!(o, Output::TakeDone { op: o, .. } if *o == op);
    assert!(net.run_until(net.now + Duration::from_secs(60), |n| n.reports.iter().any(|(_, o)| is(o))), "never ended");
    let at = net.reports.iter().position(|(_, o)| is(o)).expect("it ended");
    match net.reports.remove(at).1 {
        Output::TakeDone { result, .. } => result,
        _ => unreachable!(),
    }
}

fn holding<O: Overlay>(net: &Net<O>) -> usize {
    net.around().iter().filter(|p| net.peers[**p].overlay.status().chunk_bytes > 0).count()
}

#[test]
fn two_megabytes_there_and_back_while_holders_go() {
    let mut net = Net::new(1100, make);
    net.wire = Some(|me| Carry::new(OVERLAY, me, 600));
    net.ring(12);
    let user = Users::new(1100).user("bob");
    let chunks: Vec<Bytes> = (0..64).map(sealed).collect();
    let now = unix(&net);
    for bytes in &chunks {
        assert_eq!(give(&mut net, 1, &ticket(&user, bytes, 1, 86_400, now), bytes), Ok(()));
    }
    let held: u64 = (0..12).map(|p| net.peers[p].overlay.status().chunk_bytes).sum();
    assert!(held >= 3 * 2 * 1024 * 1024, "{held} bytes at all holders");
    // One leaves in good order, two die, three come.
    net.command(2, Command::Leave);
    net.run(Duration::from_secs(30));
    net.crash(3);
    net.run(Duration::from_secs(60));
    net.crash(4);
    for i in 0..3 {
        let new = net.add(Id::sha1(format!("new {i}").as_bytes()));
        net.join(new, 0);
        net.run(Duration::from_secs(30));
    }
    net.run(Duration::from_secs(400));
    for bytes in &chunks {
        assert_eq!(take(&mut net, 7, bytes).as_ref(), Ok(bytes));
    }
    let held: u64 = net.around().iter().map(|p| net.peers[*p].overlay.status().chunk_bytes).sum();
    assert!(held >= 3 * 2 * 1024 * 1024, "{held} bytes at the holders that are left");
    // Taken back: no bytes stay anywhere.
    for bytes in &chunks {
        let now = unix(&net);
        assert_eq!(net.put(1, &ticket(&user, bytes, 2, 0, now)).1, Ok(()));
    }
    net.run(Duration::from_secs(700));
    assert_eq!(holding(&net), 0);
    assert!(take(&mut net, 7, &chunks[0]).is_err());
}

#[test]
fn a_chunk_lives_as_long_as_its_entry() {
    let mut net = Net::new(1101, make);
    net.ring(5);
    let user = Users::new(1101).user("bob");
    let (bytes, now) = (sealed(1), unix(&net));
    let first = ticket(&user, &bytes, 1, 600, now);
    assert_eq!(give(&mut net, 0, &first, &bytes), Ok(()));
    net.run(Duration::from_secs(400));
    // Renewed without the bytes.
    let again = user.touch(&[first], unix(&net), 600).pop().expect("its own");
    assert_eq!(net.put(0, &again).1, Ok(()));
    net.run(Duration::from_secs(400));
    assert_eq!(take(&mut net, 3, &bytes).as_ref(), Ok(&bytes));
    net.run(Duration::from_secs(400));
    assert_eq!((take(&mut net, 3, &bytes).is_err(), holding(&net)), (true, 0));
    // Not the bytes of that name: it never leaves.
    let other = ticket(&user, &bytes, 5, 600, unix(&net));
    assert_eq!(give(&mut net, 0, &other, &sealed(2)), Err(PutError::Invalid));
}

#[test]
fn a_lying_holder_is_passed_over() {
    let mut net = Net::new(1102, make);
    net.ring(8);
    let user = Users::new(1102).user("bob");
    let (bytes, now) = (sealed(3), unix(&net));
    assert_eq!(give(&mut net, 1, &ticket(&user, &bytes, 1, 86_400, now), &bytes), Ok(()));
    let key = resource_key(&chunk_aor(&ChunkHash::of(&bytes), OVERLAY));
    let owner = net.owner(&key);
    net.spoils.insert(owner);
    let asker = net.around().into_iter().rev().find(|p| *p != owner && net.peers[*p].overlay.status().chunk_bytes == 0);
    let asker = asker.expect("one that does not hold it");
    assert_eq!(take(&mut net, asker, &bytes).as_ref(), Ok(&bytes));
    assert!(net.peers[asker].overlay.counters().damaged > 0, "the liar was not asked");
}

fn small(me: PeerRef, rng: Rng) -> Chord {
    let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
    let config = Config { max_signer_chunk_bytes: 100 * 1024, ..Config::default() };
    Chord::new(me, config, Box::new(verifier), rng)
}

#[test]
fn one_signer_fills_no_disk() {
    let mut net = Net::new(1103, small);
    net.ring(3);
    let mut users = Users::new(1103);
    let (greedy, other) = (users.user("greedy"), users.user("other"));
    let now = unix(&net);
    for n in 0..3 {
        assert_eq!(give(&mut net, 0, &ticket(&greedy, &sealed(n), 1, 600, now), &sealed(n)), Ok(()), "{n}");
    }
    assert!(give(&mut net, 0, &ticket(&greedy, &sealed(3), 1, 600, now), &sealed(3)).is_err());
    assert!(net.peers.iter().any(|p| p.overlay.counters().full > 0));
    // Records of his are none of it, and others are not kept out.
    assert_eq!(net.put(0, &crate::net::entry(&greedy, 1, b"here", 600)).1, Ok(()));
    assert_eq!(give(&mut net, 0, &ticket(&other, &sealed(4), 1, 600, now), &sealed(4)), Ok(()));
    // What is over makes room.
    net.run(Duration::from_secs(700));
    let now = unix(&net);
    assert_eq!(give(&mut net, 0, &ticket(&greedy, &sealed(3), 2, 600, now), &sealed(3)), Ok(()));
}

/// Runs with disks; what was damaged.
fn run(net: &mut Net<Chord>, disks: &mut [Disk], span: Duration) -> Vec<(usize, ChunkHash)> {
    let end = net.now + span;
    let mut damaged = Vec::new();
    while net.now < end {
        net.run(Duration::from_millis(20));
        for (peer, report) in std::mem::take(&mut net.reports) {
            match report {
                Output::Keep(batch) => {
                    for change in batch.changes {
                        let disk = &mut disks[peer];
                        match change {
                            Change::Put { key, replica, entry } => {
                                disk.entries.insert((key, replica, entry.dictionary_key()), entry);
                            }
                            Change::Remove { key, replica, entry } => drop(disk.entries.remove(&(key, replica, entry))),
                            Change::Chunk { hash, bytes } => drop(disk.chunks.insert(hash, bytes)),
                            Change::Unchunk { hash } => drop(disk.chunks.remove(&hash)),
                            Change::Clear => *disk = Disk::default(),
                        }
                    }
                    net.input(peer, Input::Flushed { upto: batch.number });
                }
                Output::Load { hash } => {
                    let bytes = disks[peer].chunks.get(&hash).cloned();
                    net.input(peer, Input::Loaded { hash, bytes });
                }
                Output::Damaged { hash } => damaged.push((peer, hash)),
                other => drop(net.reports.push((peer, other))),
            }
        }
    }
    damaged
}

#[test]
fn back_from_the_disk_and_what_is_damaged_there_is_fetched() {
    let mut net = Net::new(1104, make);
    let mut disks: Vec<Disk> = (0..3).map(|_| Disk::default()).collect();
    for i in 0..3 {
        let peer = net.add(Id::sha1(format!("peer {i}").as_bytes()));
        net.input(peer, Input::Restore(Stored::default()));
        match i {
            0 => net.command(peer, Command::Create),
            _ => net.join(peer, 0),
        }
        run(&mut net, &mut disks, Duration::from_secs(5));
    }
    run(&mut net, &mut disks, Duration::from_secs(60));
    let user = Users::new(1104).user("bob");
    let (chunks, now): (Vec<Bytes>, _) = ((0..4).map(sealed).collect(), unix(&net));
    for bytes in &chunks {
        let op = net.op();
        let entry = ticket(&user, bytes, 1, 86_400, now);
        let key = entry.entry().resource_key();
        net.command(0, Command::Give { op, key, entry, bytes: bytes.clone() });
        run(&mut net, &mut disks, Duration::from_secs(3));
    }
    assert!(
        disks.iter().all(|d| d.chunks.len() == 4),
        "{:?}",
        disks.iter().map(|d| d.chunks.len()).collect::<Vec<_>>()
    );
    // Peer 1 comes back with one chunk damaged and one lost.
    net.crash(1);
    run(&mut net, &mut disks, Duration::from_secs(20));
    let names: Vec<ChunkHash> = disks[1].chunks.keys().copied().collect();
    disks[1].chunks.insert(names[0], Bytes::from(vec![0; 32 * 1024]));
    disks[1].chunks.remove(&names[1]);
    net.restart(1);
    let stored = Stored {
        entries: disks[1].entries.iter().map(|((key, replica, _), e)| (*key, *replica, e.clone())).collect(),
        chunks: disks[1].chunks.iter().map(|(hash, bytes)| (*hash, bytes.len() as u32)).collect(),
        unix: unix(&net),
    };
    net.input(1, Input::Restore(stored));
    net.join(1, 0);
    let damaged = run(&mut net, &mut disks, Duration::from_secs(200));
    assert_eq!(damaged, [(1, names[0])]);
    for (hash, bytes) in &disks[1].chunks {
        assert_eq!(ChunkHash::of(bytes), *hash);
    }
    assert_eq!(disks[1].chunks.len(), 4);
    // Read from the disk for another.
    net.crash(2);
    run(&mut net, &mut disks, Duration::from_secs(10));
    let op = net.op();
    net.command(0, Command::Take { op, key: resource_key(&chunk_aor(&names[0], OVERLAY)), hash: names[0] });
    run(&mut net, &mut disks, Duration::from_secs(10));
    let got = net.reports.iter().any(
        |(_, o)| matches!(o, Output::TakeDone { op: o, result: Ok(b), .. } if *o == op && ChunkHash::of(b) == names[0]),
    );
    assert!(got);
}
