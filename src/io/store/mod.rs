//! The records over a restart: a [redb](https://docs.rs/redb) database in the data directory, written by a thread of its own.
//!
//! [`Records::keep`] only notes what is to be written: changes of one record that come before the disk has taken the first
//! are written as one, so that what waits is never more than what is held. The thread writes all that waits in one transaction,
//! flushes it and reports the last batch in it. A disk that takes nothing is reported too and tried again; meanwhile what
//! it took before stays as it is.
//!
//! A file that cannot be read is moved aside (`records.redb.damaged-N`), and every record in it that is whole is taken over into a
//! new one (`row`, `salvage`): what is lost comes back from the other holders.

mod row;
mod salvage;
#[cfg(test)]
mod tests;

use super::disk::DataDir;
use crate::core::{Id, UnixTime};
use crate::identity::{ChunkHash, SignedEntry};
use crate::node::StoreInput;
use crate::overlay::{Batch, Change, Stored};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use row::{Row, RowKey};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;

/// The file in the data directory.
pub const RECORDS: &str = "records.redb";
const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("records v1");
/// Chunks of blobs by their BLAKE3, which says whether they are whole.
const CHUNKS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("chunks v1");
/// Bytes of chunks that wait for the disk; what comes beyond is not kept, and fetched again from another holder.
const CHUNKS_WAITING: usize = 32 * 1024 * 1024;
const NOTES: TableDefinition<'static, &'static str, u64> = TableDefinition::new("notes v1");
/// The note of the time of the last batch, seconds since 1970.
const CLOCK: &str = "clock";
/// Bytes of pages kept in memory: the records themselves are held by the node.
const CACHE: usize = 2 * 1024 * 1024;
/// After a write that failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the end of the program waits for the disk.
const CLOSING: Duration = Duration::from_secs(2);

/// Why records could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database, or the disk under it.
    #[error("{0}")]
    Database(#[from] Box<redb::Error>),
    /// The file itself.
    #[error("{0}")]
    File(#[from] io::Error),
    /// What is in the file is not what was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// Opens, and where there is none makes, the database in a file.
type Open = Box<dyn Fn(&Path) -> Result<Database, StoreError> + Send>;

/// The writing end.
pub struct Records {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What was found at the start.
#[derive(Default)]
pub struct Found {
    /// The records.
    pub stored: Stored,
    /// What was wrong with the file, for the owner.
    pub damage: Option<String>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// What is to be written.
#[derive(Default)]
struct Waiting {
    /// Forget everything first.
    clear: bool,
    /// A record, or that it is gone.
    rows: BTreeMap<RowKey, Option<Row>>,
    /// A chunk, or that it is gone; and their bytes.
    chunks: BTreeMap<ChunkHash, Option<Bytes>>,
    chunk_bytes: usize,
    /// Chunks to be read.
    loads: Vec<ChunkHash>,
    upto: Option<u64>,
    unix: UnixTime,
    closing: bool,
    closed: bool,
}

impl Records {
    /// Reads what was kept and starts the thread that keeps what follows. `report` hears what becomes of each batch.
    ///
    /// # Errors
    /// [`io::Error`] when no thread can be started. A file that cannot be used is none: the node runs on without, and hears of
    /// it by `report`.
    pub fn start(data: &DataDir, report: mpsc::Sender<StoreInput>) -> io::Result<(Records, Found)> {
        Records::start_with(data, report, Box::new(open))
    }

    fn start_with(data: &DataDir, report: mpsc::Sender<StoreInput>, open: Open) -> io::Result<(Records, Found)> {
        let path = data.path().join(RECORDS);
        let (database, found) = load(&path, &open);
        let shared = Arc::new(Shared::default());
        if database.is_none() && !found.stored.entries.is_empty() {
            // Saved from a damaged file and not written down again yet.
            let mut waiting = lock(&shared.waiting);
            for (key, replica, entry) in &found.stored.entries {
                let at = RowKey::new(key, *replica, &entry.dictionary_key());
                waiting.rows.insert(at, Some(Row::new(key, *replica, entry)));
            }
            waiting.upto = Some(0);
        }
        let writer = Writer { shared: shared.clone(), path, open, database, report };
        let thread = std::thread::Builder::new().name("records".into()).spawn(move || writer.run())?;
        Ok((Records { shared, thread: Some(thread) }, found))
    }

    /// Has a batch written. Never waits for the disk.
    pub fn keep(&self, batch: Batch) {
        let mut waiting = lock(&self.shared.waiting);
        for change in batch.changes {
            match change {
                Change::Put { key, replica, entry } => {
                    let at = RowKey::new(&key, replica, &entry.dictionary_key());
                    waiting.rows.insert(at, Some(Row::new(&key, replica, &entry)));
                }
                Change::Remove { key, replica, entry } => {
                    waiting.rows.insert(RowKey::new(&key, replica, &entry), None);
                }
                Change::Chunk { hash, bytes } => {
                    if waiting.chunk_bytes + bytes.len() <= CHUNKS_WAITING {
                        waiting.chunk_bytes += bytes.len();
                        waiting.chunks.insert(hash, Some(bytes));
                    }
                }
                Change::Unchunk { hash } => drop(waiting.chunks.insert(hash, None)),
                Change::Clear => {
                    (waiting.chunk_bytes, waiting.chunks) = (0, BTreeMap::new());
                    waiting.rows.clear();
                    waiting.clear = true;
                }
            }
        }
        (waiting.upto, waiting.unix) = (Some(batch.number), batch.unix);
        drop(waiting);
        self.shared.wake.notify_all();
    }

    /// Has a chunk read; `report` hears of it.
    pub fn load(&self, hash: ChunkHash) {
        lock(&self.shared.waiting).loads.push(hash);
        self.shared.wake.notify_all();
    }

    /// Has everything written and ends, within two seconds.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut waiting = lock(&self.shared.waiting);
        waiting.closing = true;
        self.shared.wake.notify_all();
        let waited = self.shared.wake.wait_timeout_while(waiting, CLOSING, |w| !w.closed);
        let closed = waited.unwrap_or_else(PoisonError::into_inner).0.closed;
        if closed {
            let _ = thread.join();
        } else {
            tracing::warn!("the disk did not take the last records in time");
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread has.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    open: Open,
    database: Option<Database>,
    report: mpsc::Sender<StoreInput>,
}

impl Writer {
    fn run(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            let mut waiting = lock(&self.shared.waiting);
            while waiting.upto.is_none() && waiting.loads.is_empty() && !waiting.closing {
                waiting = self.shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let loads = std::mem::take(&mut waiting.loads);
            if !loads.is_empty() {
                let known = loads.iter().map(|hash| waiting.chunks.get(hash).cloned()).collect::<Vec<_>>();
                drop(waiting);
                for (hash, known) in loads.into_iter().zip(known) {
                    let bytes = known.unwrap_or_else(|| self.read_chunk(&hash));
                    let _ = self.report.blocking_send(StoreInput::Loaded { hash, bytes });
                }
                continue;
            }
            let Some(upto) = waiting.upto.take() else { break };
            let (clear, rows, unix) =
                (std::mem::take(&mut waiting.clear), std::mem::take(&mut waiting.rows), waiting.unix);
            let chunks = std::mem::take(&mut waiting.chunks);
            waiting.chunk_bytes = 0;
            drop(waiting);
            let written = catch_unwind(AssertUnwindSafe(|| self.write(clear, &rows, &chunks, unix)));
            let fault = match written {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault.to_string()),
                Err(_) => Some("the database gave up".into()),
            };
            let Some(why) = fault else {
                pause = RETRY_MIN;
                let _ = self.report.blocking_send(StoreInput::Flushed { upto });
                continue;
            };
            // After a failed write it takes nothing before it is opened anew.
            self.database = None;
            let mut waiting = lock(&self.shared.waiting);
            if !waiting.clear {
                waiting.clear = clear;
                for (key, row) in rows {
                    waiting.rows.entry(key).or_insert(row);
                }
                for (hash, chunk) in chunks {
                    let size = chunk.as_ref().map_or(0, Bytes::len);
                    if waiting.chunk_bytes + size <= CHUNKS_WAITING && !waiting.chunks.contains_key(&hash) {
                        waiting.chunk_bytes += size;
                        waiting.chunks.insert(hash, chunk);
                    }
                }
            }
            waiting.upto = waiting.upto.max(Some(upto));
            let closing = waiting.closing;
            drop(waiting);
            let _ = self.report.try_send(StoreInput::Failing { upto, why });
            if closing {
                break;
            }
            let waiting = lock(&self.shared.waiting);
            drop(self.shared.wake.wait_timeout_while(waiting, pause, |w| !w.closing));
            pause = (pause * 2).min(RETRY_MAX);
        }
        // The file is closed before anybody is told so.
        self.database = None;
        lock(&self.shared.waiting).closed = true;
        self.shared.wake.notify_all();
    }

    /// A chunk as it lies there; whoever asked sees whether it is whole.
    fn read_chunk(&mut self, hash: &ChunkHash) -> Option<Bytes> {
        let database = self.database.as_ref()?;
        let read = catch_unwind(AssertUnwindSafe(|| {
            let table = database.begin_read().ok()?.open_table(CHUNKS).ok()?;
            let value = table.get(hash.0.as_slice()).ok()??;
            Some(Bytes::copy_from_slice(value.value()))
        }));
        read.ok().flatten()
    }

    fn write(
        &mut self,
        clear: bool,
        rows: &BTreeMap<RowKey, Option<Row>>,
        chunks: &BTreeMap<ChunkHash, Option<Bytes>>,
        unix: UnixTime,
    ) -> Result<(), StoreError> {
        if clear {
            // The file goes, not the rows: nobody finds in it what was forgotten.
            self.database = None;
            match fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert((self.open)(&self.path)?),
        };
        let write = database.begin_write().map_err(boxed)?;
        {
            let mut table = write.open_table(TABLE).map_err(boxed)?;
            for (key, row) in rows {
                match row {
                    Some(row) => drop(table.insert(key.bytes(), row.bytes()).map_err(boxed)?),
                    None => drop(table.remove(key.bytes()).map_err(boxed)?),
                }
            }
            let mut table = write.open_table(CHUNKS).map_err(boxed)?;
            for (hash, chunk) in chunks {
                match chunk {
                    Some(bytes) => drop(table.insert(hash.0.as_slice(), bytes.as_ref()).map_err(boxed)?),
                    None => drop(table.remove(hash.0.as_slice()).map_err(boxed)?),
                }
            }
            drop(write.open_table(NOTES).map_err(boxed)?.insert(CLOCK, unix.secs()).map_err(boxed)?);
        }
        Ok(write.commit().map_err(boxed)?)
    }
}

/// The file of the data directory, readable by its owner alone.
fn open(path: &Path) -> Result<Database, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let backend = FileBackend::new(options.open(path)?).map_err(boxed)?;
    Ok(Database::builder().set_cache_size(CACHE).create_with_backend(backend).map_err(boxed)?)
}

/// Reads all of it; what is not whole is moved aside and its sound part taken over.
fn load(path: &Path, open: &Open) -> (Option<Database>, Found) {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut database = open(path)?;
        let found = read(&mut database)?;
        Ok::<_, StoreError>((database, found))
    }));
    let why = match read {
        Ok(Ok((database, stored))) => return (Some(database), Found { stored, damage: None }),
        // Not the file's fault: it is left alone, and may be read the next time.
        Ok(Err(fault)) if not_the_file(&fault) => {
            let damage = format!("{} cannot be used ({fault}): records are kept in memory only", path.display());
            return (None, Found { damage: Some(damage), ..Found::default() });
        }
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "the database gave up".into(),
    };
    salvage::salvage(path, open, &why)
}

fn read(database: &mut Database) -> Result<Stored, StoreError> {
    // Checks every page; what a crash left open is put in order before.
    database.check_integrity().map_err(boxed)?;
    let read = database.begin_read().map_err(boxed)?;
    let mut stored = Stored::default();
    match read.open_table(NOTES) {
        Ok(notes) => stored.unix = UnixTime(notes.get(CLOCK).map_err(boxed)?.map_or(0, |n| n.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(stored),
        Err(e) => return Err(boxed(e).into()),
    }
    let table = match read.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(stored),
        Err(e) => return Err(boxed(e).into()),
    };
    for row in table.iter().map_err(boxed)? {
        let (_, value) = row.map_err(boxed)?;
        let (row, _) = Row::parse(value.value()).ok_or(StoreError::Damaged("a record is not what was written"))?;
        stored.entries.extend(entry(&row));
    }
    match read.open_table(CHUNKS) {
        Ok(table) => {
            for row in table.iter().map_err(boxed)? {
                let (name, chunk) = row.map_err(boxed)?;
                if let Ok(hash) = name.value().try_into() {
                    stored.chunks.push((ChunkHash(hash), chunk.value().len() as u32));
                }
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(e) => return Err(boxed(e).into()),
    }
    Ok(stored)
}

/// The disk or its rights, or another program.
fn not_the_file(fault: &StoreError) -> bool {
    use io::ErrorKind as K;
    let kind = match fault {
        StoreError::File(fault) => return fault.kind() != K::UnexpectedEof,
        StoreError::Database(fault) => match &**fault {
            redb::Error::Io(fault) => fault.kind(),
            redb::Error::DatabaseAlreadyOpen => return true,
            _ => return false,
        },
        StoreError::Damaged(_) => return false,
    };
    matches!(kind, K::StorageFull | K::PermissionDenied | K::ReadOnlyFilesystem | K::QuotaExceeded)
}

/// The record in a row; none of an encoding that this version does not know.
fn entry(row: &Row) -> Option<(Id, u8, SignedEntry)> {
    let (key, replica, bytes) = row.parts()?;
    Some((key, replica, SignedEntry::decode(bytes).ok()?))
}

fn boxed(fault: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(fault.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
