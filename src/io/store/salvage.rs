//! A damaged file: moved aside, and every whole record in it taken over.

use super::row::{MAGIC, Row, RowKey};
use super::{Found, NOTES, Open, StoreError, TABLE, boxed, entry};
use crate::core::Id;
use crate::identity::SignedEntry;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Damaged files kept beside; after that the last one is replaced.
const MOST: u32 = 9;
/// Bytes of a damaged file that are looked through.
const LIMIT: u64 = 1 << 30;

/// What can be had from the file at `path`, in a new file at the same place, and what to tell the owner.
pub(super) fn salvage(path: &Path, open: &Open, why: &str) -> (Option<redb::Database>, Found) {
    let aside = aside(path);
    if let Err(fault) = fs::rename(path, &aside) {
        let damage = format!("{} is damaged and cannot be moved aside: {fault}", path.display());
        return (None, Found { damage: Some(damage), ..Found::default() });
    }
    let (records, broken) = sound(&aside);
    let database = write(path, open, &records);
    let kept = records.len();
    let mut damage = format!(
        "{} was damaged ({why}): {kept} records in it were whole and are kept, {broken} were not; the file is now {}",
        path.display(),
        aside.display()
    );
    if let Err(fault) = &database {
        damage.push_str(&format!("; no new file: {fault}"));
    }
    let stored = crate::overlay::Stored { entries: records.into_values().collect(), ..Default::default() };
    (database.ok(), Found { stored, damage: Some(damage) })
}

/// The first free name.
fn aside(path: &Path) -> PathBuf {
    let named = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        PathBuf::from(name)
    };
    (1..MOST).map(named).find(|p| !p.exists()).unwrap_or_else(|| named(MOST))
}

/// Every whole record of a file, the latest of each key, and how many began and were not whole. Also found is what had been removed
/// or replaced and not yet been written over: order among the records is by their sequence numbers, as everywhere.
fn sound(path: &Path) -> (BTreeMap<RowKey, (Id, u8, SignedEntry)>, usize) {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes));
    let mut records: BTreeMap<RowKey, (Id, u8, SignedEntry)> = BTreeMap::new();
    let (mut at, mut broken) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(MAGIC.len()).position(|w| w == MAGIC)) {
        at += found;
        let Some((row, len)) = Row::parse(&bytes[at..]) else {
            (at, broken) = (at + 1, broken + 1);
            continue;
        };
        at += len;
        let Some((key, replica, entry)) = entry(&row) else {
            broken += 1;
            continue;
        };
        let order = |e: &SignedEntry| (e.entry().sequence, e.entry().is_removal(), e.expires());
        let place = RowKey::new(&key, replica, &entry.dictionary_key());
        match records.get(&place) {
            Some((_, _, held)) if order(held) >= order(&entry) => {}
            _ => drop(records.insert(place, (key, replica, entry))),
        }
    }
    (records, broken)
}

fn write(
    path: &Path,
    open: &Open,
    records: &BTreeMap<RowKey, (Id, u8, SignedEntry)>,
) -> Result<redb::Database, StoreError> {
    let database = open(path)?;
    let write = database.begin_write().map_err(boxed)?;
    {
        drop(write.open_table(NOTES).map_err(boxed)?);
        let mut table = write.open_table(TABLE).map_err(boxed)?;
        for (place, (key, replica, entry)) in records {
            drop(table.insert(place.bytes(), Row::new(key, *replica, entry).bytes()).map_err(boxed)?);
        }
    }
    write.commit().map_err(boxed)?;
    Ok(database)
}
