//! An archive of what a device must not lose, under a passphrase.
//!
//! `"chordial backup 1\n" | salt (16) | nonce (12) | ChaCha20-Poly1305 of [1, [[name, bytes]...]]`, the key by Argon2id (RFC 9106: 64 MiB, 3
//! passes, 1 lane) from passphrase and salt, everything before the ciphertext as additional data. A wrong passphrase and a
//! damaged file are told apart by nothing but the passphrase.

use super::cbor::{Reader, Writer};
use crate::core::Rng;
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use thiserror::Error;
use zeroize::Zeroizing;

const MARK: &[u8] = b"chordial backup 1\n";
const SALT: usize = 16;
const NONCE: usize = 12;
/// KiB of memory and passes.
const COST: (u32, u32) = (64 * 1024, 3);
/// Most files in an archive.
const MAX_FILES: u64 = 32;

/// Why an archive was not made or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BackupError {
    /// Not an archive of this program and version.
    #[error("it is no backup of this version of chordial")]
    NotABackup,
    /// The passphrase is wrong, or a byte of the file is.
    #[error("the passphrase is wrong or the file is damaged")]
    Closed,
    /// No passphrase, or memory for the key is short.
    #[error("the key could not be made from the passphrase")]
    Key,
}

/// Files by name, sealed under `passphrase`.
pub fn seal_backup(files: &[(String, Vec<u8>)], passphrase: &str, rng: &mut Rng) -> Result<Vec<u8>, BackupError> {
    let mut writer = Writer::array(2);
    writer.uint(1).nested(files.len());
    for (name, bytes) in files {
        writer.nested(2).text(name).bytes(bytes);
    }
    let plain = Zeroizing::new(writer.finish());
    let mut archive = MARK.to_vec();
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE]);
    rng.fill(&mut salt);
    rng.fill(&mut nonce);
    archive.extend_from_slice(&salt);
    archive.extend_from_slice(&nonce);
    let payload = Payload { msg: &plain, aad: &archive };
    let sealed = cipher(passphrase, &salt)?.encrypt(&Nonce::from(nonce), payload).map_err(|_| BackupError::Key)?;
    archive.extend_from_slice(&sealed);
    Ok(archive)
}

/// The files of an archive.
#[allow(clippy::type_complexity, reason = "names and contents, once")]
pub fn open_backup(archive: &[u8], passphrase: &str) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>, BackupError> {
    let rest = archive.strip_prefix(MARK).ok_or(BackupError::NotABackup)?;
    let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or(BackupError::NotABackup)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(BackupError::NotABackup)?;
    let aad = archive.get(..MARK.len() + SALT + NONCE).ok_or(BackupError::NotABackup)?;
    let payload = Payload { msg: sealed, aad };
    let plain = cipher(passphrase, salt)?.decrypt(&Nonce::from(*nonce), payload).map_err(|_| BackupError::Closed)?;
    let plain = Zeroizing::new(plain);
    read(&plain).ok_or(BackupError::NotABackup)
}

fn read(plain: &[u8]) -> Option<Vec<(String, Zeroizing<Vec<u8>>)>> {
    let mut reader = Reader::new(plain, "backup");
    reader.array(2).ok()?;
    reader.version(1).ok()?;
    let mut files = Vec::new();
    for _ in 0..reader.list(MAX_FILES).ok()? {
        reader.array(2).ok()?;
        files.push((reader.text().ok()?.to_owned(), Zeroizing::new(reader.bytes().ok()?.to_vec())));
    }
    Some(files)
}

fn cipher(passphrase: &str, salt: &[u8]) -> Result<ChaCha20Poly1305, BackupError> {
    let params = Params::new(COST.0, COST.1, 1, Some(32)).map_err(|_| BackupError::Key)?;
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(passphrase.as_bytes(), salt, &mut *key).map_err(|_| BackupError::Key)?;
    Ok(ChaCha20Poly1305::new((&*key).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_opened_and_closed_to_others() {
        let files = vec![("identity.cbor".to_owned(), vec![7; 5000]), ("peers.txt".to_owned(), Vec::new())];
        let archive = seal_backup(&files, "correct horse", &mut Rng::from_seed(1)).expect("sealed");
        let opened = open_backup(&archive, "correct horse").expect("opened");
        assert_eq!(opened.iter().map(|(n, b)| (n.clone(), b.to_vec())).collect::<Vec<_>>(), files);
        assert_eq!(open_backup(&archive, "correct hose").map(|_| ()), Err(BackupError::Closed));
        for at in [MARK.len(), MARK.len() + SALT, MARK.len() + SALT + NONCE, archive.len() - 1] {
            let mut damaged = archive.clone();
            damaged[at] ^= 1;
            assert_eq!(open_backup(&damaged, "correct horse").map(|_| ()), Err(BackupError::Closed), "{at}");
        }
        for cut in [0, 5, MARK.len(), MARK.len() + 20] {
            assert_eq!(open_backup(&archive[..cut], "correct horse").map(|_| ()), Err(BackupError::NotABackup));
        }
        assert!(!archive.windows(5).any(|w| w == [7; 5]));
        assert_ne!(archive, seal_backup(&files, "correct horse", &mut Rng::from_seed(2)).expect("sealed"));
    }
}
