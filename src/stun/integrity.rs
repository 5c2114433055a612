//! Keys of credentials (RFC 8489 section 9), message integrity (14.5, 14.6) and fingerprint (14.7).

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;

/// Which message integrity a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, which every client knows.
    #[default]
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl Integrity {
    pub(super) fn length(self) -> usize {
        match self {
            Integrity::Sha1 => 20,
            Integrity::Sha256 => 32,
        }
    }

    pub(super) fn attribute(self) -> u16 {
        match self {
            Integrity::Sha1 => super::raw::MESSAGE_INTEGRITY,
            Integrity::Sha256 => super::raw::MESSAGE_INTEGRITY_SHA256,
        }
    }
}

/// The key of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

impl Key {
    /// Of a short-term credential (section 9.1.1): the password.
    pub fn short_term(password: &str) -> Key {
        Key(password.as_bytes().to_vec())
    }

    /// Of a long-term credential by MD5 (section 9.2.2), which every client knows.
    pub fn long_term_md5(username: &str, realm: &str, password: &str) -> Key {
        Key(Md5::digest(format!("{username}:{realm}:{password}")).to_vec())
    }

    /// Of a long-term credential by SHA-256 (section 18.5.1.2).
    pub fn long_term_sha256(username: &str, realm: &str, password: &str) -> Key {
        Key(Sha256::digest(format!("{username}:{realm}:{password}")).to_vec())
    }

    /// The code over `message`, which ends before the integrity attribute; its header's length is taken as `length`.
    pub(super) fn code(&self, integrity: Integrity, message: &[u8], length: u16) -> Vec<u8> {
        match integrity {
            Integrity::Sha1 => mac::<Hmac<Sha1>>(&self.0, message, length),
            Integrity::Sha256 => mac::<Hmac<Sha256>>(&self.0, message, length),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8], length: u16) -> Vec<u8> {
    // HMAC takes keys of every length; without one nothing verifies.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    let (kind, rest) = message.split_at(message.len().min(2));
    mac.update(kind);
    mac.update(&length.to_be_bytes());
    mac.update(rest.get(2..).unwrap_or_default());
    mac.finalize().into_bytes().to_vec()
}

/// CRC-32 of `message` (its header's length taken as `length`), XORed with "STUN".
pub(super) fn fingerprint(message: &[u8], length: u16) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let (kind, rest) = message.split_at(message.len().min(2));
    crc.update(kind);
    crc.update(&length.to_be_bytes());
    crc.update(rest.get(2..).unwrap_or_default());
    crc.finalize() ^ 0x5354_554e
}
