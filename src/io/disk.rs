//! The data directory: what this device must find again after a restart. A directory made here is
//! readable by its owner only (0700), and so is every file in it (0600). A file is replaced as a whole:
//! written beside, flushed to the disk, renamed; a reader sees the old bytes or the new ones.
//!
//! It holds bytes and knows nothing of what they mean: [`IDENTITY`], [`PHONES`], [`PEERS`] and the others are
//! encoded by those who own the types. One running program owns a directory by its [`Lock`].

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Keys and certificates of this device (`identity::Identity`).
pub const IDENTITY: &str = "identity.cbor";
/// Accounts of standard phones (`pbx::Accounts`).
pub const PHONES: &str = "phones.toml";
/// Messages received, sent and waiting.
pub const MESSAGES: &str = "messages.json";
/// The certificate made here for phones over TLS, with its key, PEM.
pub const CERTIFICATE: &str = "phones.pem";
/// What is revoked (`identity::Revocations`).
pub const REVOCATIONS: &str = "revocations.cbor";
/// Overlay addresses that came with the enrolment, one IP:PORT a line.
pub const PEERS: &str = "peers.txt";
/// The host cache (`node::host_cache`).
pub const HOSTS: &str = "hosts.cbor";
/// How the NATs of networks behaved (`node::behaviour`).
pub const NAT: &str = "nat.cbor";

/// The user's contacts and settings (`identity::Settings`).
pub const SETTINGS: &str = "settings.cbor";
/// Keys of password shares held for others (`identity::login::ShareBook`).
pub const SHARES: &str = "shares.cbor";
/// How often passwords were tried (`identity::login::Attempts`).
pub const ATTEMPTS: &str = "attempts.cbor";
/// Contacts and keys of other overlays (`identity::Acquaintances`).
pub const FOREIGN: &str = "foreign.cbor";
/// The office that this device has come from (`identity::Former`).
pub const FORMER: &str = "former.cbor";
/// Offices that are taken in (`identity::Merges`).
pub const MERGES: &str = "merges.cbor";

/// Why the data directory could not be used.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A file or the directory itself could not be made, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `read`, `write`, `lock`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another program holds the lock.
    #[error("data directory {} is in use by another chordial{}", path.display(), holder(*.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process, where it could be read.
        pid: Option<u32>,
    },
    /// Larger than anything that this program writes there.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// [`FILE_LIMIT`].
        limit: u64,
    },
}

/// A data directory that exists.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Held while a program runs on a data directory; released when dropped or when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// Opens `path`, making it (0700) and what leads to it if need be. The mode of a directory that
    /// was already there is left alone.
    ///
    /// # Errors
    /// [`DiskError::Io`] when it cannot be made or is not a directory.
    pub fn open(path: &Path) -> Result<DataDir, DiskError> {
        let fault = |source| DiskError::Io { action: "create", path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?;
        Ok(DataDir { path: fs::canonicalize(path).map_err(fault)? })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the running program listens for commands.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(super::control::SOCKET)
    }

    /// The bytes of file `name`, `None` when there is no such file.
    ///
    /// # Errors
    /// [`DiskError::Io`]; [`DiskError::TooLarge`] above [`FILE_LIMIT`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.path.join(name);
        let fault = |source| DiskError::Io { action: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fault(e)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() as u64 > FILE_LIMIT {
            return Err(DiskError::TooLarge { path, limit: FILE_LIMIT });
        }
        Ok(Some(bytes))
    }

    /// Replaces file `name` by `bytes` (0600). After `Ok` they survive a power cut; after an error the
    /// old ones are still there.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let path = self.path.join(name);
        // One temporary name a process: two programs writing one file do not write into each other's.
        let mut beside = OsString::from(format!(".{name}."));
        beside.push(std::process::id().to_string());
        let beside = self.path.join(beside);
        let done = (|| {
            // A left-over of a killed process with this number would keep its own mode.
            match fs::remove_file(&beside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            // The rename itself is in the directory.
            File::open(&self.path)?.sync_all()
        })();
        done.map_err(|source| {
            let _ = fs::remove_file(&beside);
            DiskError::Io { action: "write", path, source }
        })
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`DiskError::InUse`] when another program holds it; [`DiskError::Io`].
    pub fn lock(&self) -> Result<Lock, DiskError> {
        let path = self.path.join(LOCK);
        let fault = |source| DiskError::Io { action: "lock", path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                return Err(DiskError::InUse { path: self.path.clone(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(fault(e)),
        }
        file.set_len(0).map_err(fault)?;
        writeln!(file, "{}", std::process::id()).map_err(fault)?;
        Ok(Lock { _file: file })
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Largest file read back, bytes.
pub const FILE_LIMIT: u64 = 16 * 1024 * 1024;
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_written_is_read_back_and_is_the_owners_alone() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(&temp.path().join("a/b")).unwrap();
        assert_eq!(mode(data.path()), 0o700);
        assert_eq!(data.read("x").unwrap(), None);
        data.write("x", b"one").unwrap();
        data.write("x", b"two").unwrap();
        assert_eq!(data.read("x").unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(mode(&data.path().join("x")), 0o600);
        let names: Vec<_> = fs::read_dir(data.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["x"], "a temporary file was left");
    }

    #[test]
    fn a_reader_never_sees_half_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        data.write("x", &[0; 40_000]).unwrap();
        let reader = data.clone();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = done.clone();
        let watch = std::thread::spawn(move || {
            let mut seen = 0;
            while !flag.load(std::sync::atomic::Ordering::Relaxed) {
                let bytes = reader.read("x").unwrap().expect("the file is always there");
                assert!(bytes.len() == 40_000 && bytes.iter().all(|b| *b == bytes[0]), "torn after {seen} reads");
                seen += 1;
            }
        });
        for i in 1..=60u8 {
            data.write("x", &[i; 40_000]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        watch.join().unwrap();
    }

    #[test]
    fn a_failed_write_leaves_the_old_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        // A directory cannot be replaced by a file, whoever asks.
        fs::create_dir(data.path().join("x")).unwrap();
        fs::write(data.path().join("x/inner"), b"old").unwrap();
        let e = data.write("x", b"new").unwrap_err();
        assert!(e.to_string().starts_with("cannot write "), "{e}");
        assert_eq!(fs::read(data.path().join("x/inner")).unwrap(), b"old");
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_program_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let lock = data.lock().unwrap();
        let e = data.lock().unwrap_err();
        assert!(matches!(&e, DiskError::InUse { pid: Some(pid), .. } if *pid == std::process::id()), "{e:?}");
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        fs::write(&path, b"").unwrap();
        let e = DataDir::open(&path).unwrap_err().to_string();
        assert!(e.starts_with(&format!("cannot create {}: ", path.display())), "{e}");
    }
}
