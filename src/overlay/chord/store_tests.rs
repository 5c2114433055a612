//! Which entry counts, and every bound.

use super::*;
use crate::core::Rng;
use crate::identity::{Entry, EntryKind, Identity};

const UNIX: UnixTime = UnixTime(1_800_000_000);

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

fn device(seed: u64) -> Identity {
    Identity::open("lab", "bob", UNIX, &mut Rng::from_seed(seed)).expect("a good name")
}

fn entry(device: &Identity, kind: u16, sequence: u64, issued: u64, body: &[u8]) -> SignedEntry {
    let entry = Entry {
        kind: EntryKind::Other(kind),
        aor: device.aor(),
        device: device.device_key(),
        sequence,
        issued: UnixTime(UNIX.secs() + issued),
        lifetime: 100,
        body: body.to_vec(),
    };
    device.sign_entry(entry).expect("its own")
}

#[test]
fn the_later_one_counts() {
    let (config, mut store, slot, bob) = (Config::default(), Store::default(), (Id::default(), 0), device(1));
    let mut put = |e: &SignedEntry| store.put(slot, e.clone(), None, &config, Instant::ZERO, UNIX);
    let (first, second) = (entry(&bob, 7, 1, 0, b"a"), entry(&bob, 7, 2, 0, b"b"));
    assert_eq!(put(&second), Kept::New);
    assert_eq!(put(&second), Kept::Same);
    assert_eq!(put(&first), Kept::Stale(second.clone()));
    assert_eq!(put(&entry(&bob, 7, 2, 50, b"other")), Kept::Conflict(second.clone()));
    // The same said again later is a refresh; the earlier saying does no harm.
    assert_eq!(put(&entry(&bob, 7, 2, 50, b"b")), Kept::New);
    assert_eq!(put(&second), Kept::Same);
    assert_eq!(store.proofs.len(), 1);
    assert_eq!(store.get(&slot, at(120)).len(), 1);
    assert_eq!(store.get(&slot, at(150)).len(), 0);
    assert_eq!(store.expire(at(150)), 1);
    assert_eq!((store.len(), store.signers.len()), ((0, 0), 0));
}

#[test]
fn everything_has_a_bound() {
    let base = Config::default();
    let fill = |config: &Config, slots: u64, kinds: u16, body: usize| {
        let (mut store, bob) = (Store::default(), device(1));
        for s in 0..slots {
            for kind in 2..2 + kinds {
                store.put(
                    (Id::from_u64(s), 0),
                    entry(&bob, kind, 1, 0, &vec![0; body]),
                    None,
                    config,
                    Instant::ZERO,
                    UNIX,
                );
            }
        }
        store.len().1
    };
    assert_eq!(fill(&Config { max_resource_entries: 5, ..base.clone() }, 2, 9, 1), 10);
    assert_eq!(fill(&Config { max_entries: 7, ..base.clone() }, 3, 4, 1), 7);
    assert_eq!(fill(&Config { max_signer_entries: 6, ..base.clone() }, 3, 4, 1), 6);
    assert!(fill(&Config { max_resource_bytes: 10_000, ..base.clone() }, 1, 9, 3000) == 2);
    // A full resource still takes what replaces an entry without growing.
    let (mut store, bob) = (Store::default(), device(1));
    let config = Config { max_resource_entries: 1, ..base };
    for sequence in 1..4 {
        let e = entry(&bob, 2, sequence, 0, b"x");
        assert_eq!(store.put((Id::default(), 0), e, None, &config, Instant::ZERO, UNIX), Kept::New);
    }
    assert_eq!(
        store.put((Id::default(), 0), entry(&bob, 3, 1, 0, b"x"), None, &config, Instant::ZERO, UNIX),
        Kept::Full
    );
}
