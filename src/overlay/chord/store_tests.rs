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
    let own = Some(device(1).device_key());
    assert_eq!(fill(&Config { max_signer_entries: 6, own, ..base.clone() }, 3, 4, 1), 12, "its own");
    assert_eq!(fill(&Config { max_signer_entries: 6, max_entries: 7, own, ..base.clone() }, 3, 4, 1), 7);
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

#[test]
fn strangers_leave_room_and_items_are_taken_back() {
    let (config, slot, bob) = (Config::default(), (Id::default(), 0), device(1));
    let item = |sequence, body: &[u8]| {
        let aor = "sip:anna@lab".to_owned();
        let e = entry(&bob, EntryKind::MAILBOX_ITEM.number(), sequence, 0, body).entry().clone();
        bob.sign_entry(Entry { aor, ..e }).expect("anybody may")
    };
    let mut store = Store::default();
    let mut put = |e: SignedEntry| store.put(slot, e, None, &config, Instant::ZERO, UNIX);
    let most = EntryKind::MAILBOX_ITEM.rules().most as u64;
    for sequence in 1..=most {
        assert_eq!(put(item(sequence, b"call me")), Kept::New);
    }
    assert_eq!(put(item(most + 1, b"once more")), Kept::Full);
    // Taken back under its own number, for good; what has another number is not touched.
    assert_eq!(put(item(2, b"")), Kept::New);
    assert_eq!(put(item(2, b"call me")), Kept::Same);
    assert!(matches!(put(item(3, b"changed")), Kept::Conflict(_)));
    let live = store.get(&slot, at(50));
    assert_eq!(live.iter().filter(|e| e.entry().is_removal()).count(), 1);
    assert_eq!(live.len() as u64, most);
    // However many write, the owner's own entries find room.
    for seed in 2..40 {
        let other = device(seed);
        for sequence in 1..=most {
            let kind = [EntryKind::MAILBOX_ITEM, EntryKind::FILE_SOURCE][sequence as usize % 2].number();
            store.put(slot, entry(&other, kind, sequence, 0, &[7; 20]), None, &config, Instant::ZERO, UNIX);
        }
    }
    let bytes: usize = store.get(&slot, at(50)).iter().map(|e| e.encoded().len()).sum();
    assert!(bytes <= EntryKind::MAILBOX_ITEM.rules().share, "{bytes}");
    assert_eq!(store.put(slot, entry(&device(90), 1, 1, 0, b"here"), None, &config, Instant::ZERO, UNIX), Kept::New);
}

/// A claimant takes all there is while it is alone, and keeps nobody out; nor do many push out one who was there.
#[test]
fn one_who_claims_a_name_does_not_keep_the_others_out() {
    let (config, slot, greedy) = (Config::default(), (Id::default(), 0), device(1));
    let mut store = Store::default();
    let mut put = |e: SignedEntry| store.put(slot, e, None, &config, Instant::ZERO, UNIX);
    for kind in 100..200 {
        put(entry(&greedy, kind, 1, 0, &[7; 20]));
    }
    let held = |store: &Store, of: &Identity| {
        let entries = store.get(&slot, Instant::ZERO);
        entries.iter().filter(|e| e.chain().user_key() == of.chain.user_key()).count()
    };
    let bob = device(2);
    let kinds = [1, EntryKind::DEVICE.number(), 5, 200];
    for kind in kinds {
        assert_eq!(put(entry(&bob, kind, 1, 0, b"here")), Kept::New);
    }
    assert_eq!(held(&store, &bob), kinds.len());
    assert!(store.len().1 <= config.max_resource_entries && held(&store, &greedy) > 16);
    // Large entries: of one kind, and of all together.
    for body in [2000, 4000] {
        let mut store = Store::default();
        let mut put = |e: SignedEntry| store.put(slot, e, None, &config, Instant::ZERO, UNIX);
        for kind in 100..200 {
            put(entry(&greedy, kind, 1, 0, &vec![7; body]));
        }
        for kind in kinds {
            assert_eq!(put(entry(&bob, kind, 1, 0, b"here")), Kept::New);
        }
        assert_eq!(held(&store, &bob), kinds.len());
    }
    // A hundred more keys: what bob has stays, and what fits is theirs; the greedy one is left its part.
    for seed in 10..110 {
        let other = device(seed);
        for kind in kinds {
            store.put(slot, entry(&other, kind, 1, 0, &[7; 20]), None, &config, Instant::ZERO, UNIX);
        }
    }
    assert_eq!(held(&store, &bob), kinds.len());
    assert!((2..=20).contains(&held(&store, &greedy)), "{}", held(&store, &greedy));
    // And what bob renews finds room.
    assert_eq!(store.put(slot, entry(&bob, 1, 2, 0, b"here"), None, &config, Instant::ZERO, UNIX), Kept::New);
}

#[test]
fn one_source_does_not_fill_a_holder() {
    let config = Config { max_source_entries: 3, ..Config::default() };
    let source = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    let mut store = Store::default();
    let mut put = |n: u64, source| {
        let slot = (Id::from_u64(n), 0);
        store.put(slot, entry(&device(n), 1, 1, 0, b"here"), source, &config, Instant::ZERO, UNIX)
    };
    assert_eq!(
        [put(1, source), put(2, source), put(3, source), put(4, source)],
        [Kept::New, Kept::New, Kept::New, Kept::Full]
    );
    // Another source, and what neighbours pass on, is taken.
    assert_eq!([put(4, None), put(5, Some([192, 0, 2, 2].into()))], [Kept::New, Kept::New]);
    assert_eq!(store.expire(at(100)), 5);
    assert!(store.sources.is_empty());
}

#[test]
fn what_changes_is_noted_for_the_disk() {
    let (config, slot, bob) = (Config::default(), (Id::default(), 0), device(1));
    let mut store = Store::default();
    store.put(slot, entry(&bob, 7, 1, 0, b"from the disk"), None, &config, Instant::ZERO, UNIX);
    store.keep_journal();
    assert_eq!(store.take_journal(), None);
    let second = entry(&bob, 7, 2, 0, b"new");
    store.put(slot, second.clone(), None, &config, Instant::ZERO, UNIX);
    store.put(slot, second.clone(), None, &config, Instant::ZERO, UNIX);
    let put = Change::Put { key: slot.0, replica: 0, entry: second.clone() };
    assert_eq!(store.take_journal(), Some((1, vec![put])));
    store.expire(at(100));
    let gone = Change::Remove { key: slot.0, replica: 0, entry: second.dictionary_key() };
    assert_eq!(store.take_journal(), Some((2, vec![gone])));
    store.clear(true);
    assert_eq!(store.take_journal(), Some((3, vec![Change::Clear])));
    assert_eq!(store.take_journal(), None);
}
