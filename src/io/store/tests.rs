//! On a real disk: what comes back, from whole files and from damaged ones, and from a disk that takes nothing.

use super::*;
use crate::core::Rng;
use crate::identity::{Entry, EntryKind, Identity};
use std::sync::atomic::{AtomicU64, Ordering};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn entries(n: u64) -> Vec<(Id, u8, SignedEntry)> {
    let bob = Identity::open("lab", "bob", NOW, &mut Rng::from_seed(1)).unwrap();
    let entry = |sequence| Entry {
        kind: EntryKind::MAILBOX_ITEM,
        aor: bob.aor(),
        device: bob.device_key(),
        sequence,
        issued: NOW,
        lifetime: 3600,
        body: vec![sequence as u8; 100 + 40 * (sequence as usize % 90)],
    };
    (1..=n).map(|i| (Id::from_u64(i % 7), (i % 2) as u8, bob.sign_entry(entry(i)).unwrap())).collect()
}

fn puts(entries: &[(Id, u8, SignedEntry)]) -> Vec<Change> {
    entries.iter().map(|(key, replica, e)| Change::Put { key: *key, replica: *replica, entry: e.clone() }).collect()
}

struct Disk {
    _dir: tempfile::TempDir,
    data: DataDir,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        Disk { _dir: dir, data }
    }

    fn start(&self) -> (Records, Found, mpsc::Receiver<StoreInput>) {
        let (out, reports) = mpsc::channel(64);
        let (records, found) = Records::start(&self.data, out).unwrap();
        (records, found, reports)
    }

    fn file(&self) -> PathBuf {
        self.data.path().join(RECORDS)
    }

    /// A file with these, closed.
    fn with(&self, entries: &[(Id, u8, SignedEntry)]) {
        let (records, _, mut reports) = self.start();
        records.keep(Batch { number: 1, unix: NOW, changes: puts(entries) });
        assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 1 }));
        records.close();
    }
}

fn sorted(mut entries: Vec<(Id, u8, SignedEntry)>) -> Vec<(Id, u8, SignedEntry)> {
    entries.sort_by(|a, b| (a.0, a.1, a.2.encoded()).cmp(&(b.0, b.1, b.2.encoded())));
    entries
}

#[test]
fn what_was_flushed_comes_back_and_what_was_removed_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let (disk, all) = (Disk::new(), entries(40));
    disk.with(&all);
    assert_eq!(fs::metadata(disk.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let (records, found, mut reports) = disk.start();
    assert_eq!((sorted(found.stored.entries), found.stored.unix, found.damage), (sorted(all.clone()), NOW, None));
    let (key, replica, entry) = all[0].clone();
    let gone = Change::Remove { key, replica, entry: entry.dictionary_key() };
    records.keep(Batch { number: 2, unix: NOW, changes: vec![gone] });
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 2 }));
    drop(records);
    let (records, found, mut reports) = disk.start();
    assert_eq!(sorted(found.stored.entries), sorted(all[1..].to_vec()));
    // Everything forgotten, and one put after it.
    let mut changes = vec![Change::Clear];
    changes.extend(puts(&all[3..4]));
    records.keep(Batch { number: 1, unix: NOW, changes });
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 1 }));
    records.close();
    assert_eq!(disk.start().1.stored.entries, all[3..4]);
    let bytes = fs::read(disk.file()).unwrap();
    let left = bytes.windows(row::MAGIC.len()).filter(|w| w == row::MAGIC).count();
    assert_eq!(left, 1, "what was forgotten can still be found in the file");
}

#[test]
fn a_damaged_file_gives_what_is_whole() {
    let all = entries(120);
    let mut rng = Rng::from_seed(3);
    let mut lost_some = false;
    for round in 0..24 {
        let disk = Disk::new();
        disk.with(&all);
        let mut bytes = fs::read(disk.file()).unwrap();
        match round {
            // Nothing of it left; the head gone; the end gone.
            0 => bytes = b"this is no database".to_vec(),
            1 => bytes[..4096].fill(0),
            2 => bytes.truncate(bytes.len() / 2),
            // A few blocks written over, as a dying disk does.
            _ => {
                for _ in 0..3 {
                    let at = rng.below(bytes.len() as u64 / 512) as usize * 512;
                    bytes[at..at + 512].fill(round as u8);
                }
            }
        }
        fs::write(disk.file(), &bytes).unwrap();
        let whole: Vec<_> =
            all.iter().filter(|e| contains(&bytes, Row::new(&e.0, e.1, &e.2).bytes())).cloned().collect();
        let (records, found, _) = disk.start();
        if let Some(damage) = &found.damage {
            let aside = disk.data.path().join("records.redb.damaged-1");
            assert_eq!(fs::metadata(aside).unwrap().len(), bytes.len() as u64, "{damage}");
            assert!(damage.contains(&format!("{} records", whole.len())), "{damage}, not {}", whole.len());
        }
        assert_eq!(sorted(found.stored.entries), sorted(whole.clone()), "round {round}");
        lost_some |= whole.len() < all.len() && round > 2;
        records.close();
        // And the new file is a good one.
        let again = disk.start().1;
        assert_eq!((again.damage, sorted(again.stored.entries)), (None, sorted(whole)), "round {round}");
    }
    assert!(lost_some, "no round hit a record");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

/// A disk with so much room.
#[derive(Debug)]
struct Small {
    file: FileBackend,
    room: Arc<AtomicU64>,
}

impl redb::StorageBackend for Small {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > self.room.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write(offset, data)
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_tried_again() {
    let (disk, all) = (Disk::new(), entries(120));
    let room = Arc::new(AtomicU64::new(u64::MAX));
    let limited = |room: Arc<AtomicU64>| -> Open {
        Box::new(move |path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let backend = Small { file: FileBackend::new(file).map_err(boxed)?, room: room.clone() };
            Ok(Database::builder().create_with_backend(backend).map_err(boxed)?)
        })
    };
    let (out, mut reports) = mpsc::channel(64);
    let (records, _) = Records::start_with(&disk.data, out, limited(room.clone())).unwrap();
    records.keep(Batch { number: 1, unix: NOW, changes: puts(&all[..20]) });
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 1 }));
    room.store(8192, Ordering::Relaxed);
    records.keep(Batch { number: 2, unix: NOW, changes: puts(&all[20..]) });
    let failing = reports.blocking_recv();
    assert!(matches!(&failing, Some(StoreInput::Failing { upto: 2, why }) if !why.is_empty()), "{failing:?}");
    // More comes meanwhile; then somebody makes room.
    let (key, replica, entry) = all[0].clone();
    let gone = Change::Remove { key, replica, entry: entry.dictionary_key() };
    records.keep(Batch { number: 3, unix: NOW, changes: vec![gone] });
    room.store(u64::MAX, Ordering::Relaxed);
    let settled = std::iter::from_fn(|| reports.blocking_recv()).find(|r| matches!(r, StoreInput::Flushed { .. }));
    assert_eq!(settled, Some(StoreInput::Flushed { upto: 3 }));
    records.close();
    let found = disk.start().1;
    assert_eq!((found.damage, sorted(found.stored.entries)), (None, sorted(all[1..].to_vec())));
}

#[test]
fn what_waits_is_no_more_than_what_is_held() {
    let (disk, all) = (Disk::new(), entries(1));
    let (records, _, mut reports) = disk.start();
    for number in 1..=500 {
        records.keep(Batch { number, unix: NOW, changes: puts(&all) });
        assert!(lock(&records.shared.waiting).rows.len() <= 1);
    }
    // Every batch is reported as settled, by itself or by a later one.
    let last = std::iter::from_fn(|| reports.blocking_recv()).find(|r| *r == StoreInput::Flushed { upto: 500 });
    assert!(last.is_some());
}

#[test]
fn chunks_come_back_and_damaged_ones_are_handed_out_as_they_are() {
    let disk = Disk::new();
    let chunk = |n: u8| Bytes::from(vec![n; 32 * 1024]);
    let name = |n: u8| ChunkHash::of(&chunk(n));
    let (records, _, mut reports) = disk.start();
    let changes = (1..=3).map(|n| Change::Chunk { hash: name(n), bytes: chunk(n) }).collect();
    records.keep(Batch { number: 1, unix: NOW, changes });
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 1 }));
    records.keep(Batch { number: 2, unix: NOW, changes: vec![Change::Unchunk { hash: name(2) }] });
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Flushed { upto: 2 }));
    records.load(name(1));
    assert_eq!(reports.blocking_recv(), Some(StoreInput::Loaded { hash: name(1), bytes: Some(chunk(1)) }));
    records.close();
    // Something else in its place; whoever asks compares it with the name.
    let database = open(&disk.file()).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(CHUNKS).unwrap().insert(name(3).0.as_slice(), chunk(9).as_ref()).unwrap();
    write.commit().unwrap();
    drop(database);
    let (records, found, mut reports) = disk.start();
    let mut there = found.stored.chunks.clone();
    there.sort_unstable();
    let mut expected = vec![(name(1), 32 * 1024), (name(3), 32 * 1024)];
    expected.sort_unstable();
    assert_eq!((there, found.damage), (expected, None));
    for (hash, bytes) in [(name(3), Some(chunk(9))), (name(2), None)] {
        records.load(hash);
        assert_eq!(reports.blocking_recv(), Some(StoreInput::Loaded { hash, bytes }));
    }
}
