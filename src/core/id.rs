//! Identifiers on the ring.

use sha1::{Digest, Sha1};
use std::fmt;

/// A 160-bit identifier, most significant byte first: of a peer (peer-ID) or of a resource (resource-ID).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 20]);

impl Id {
    /// SHA-1 of `bytes`.
    pub fn sha1(bytes: &[u8]) -> Id {
        Id(Sha1::digest(bytes).into())
    }

    /// Reads exactly 40 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Id> {
        let text = text.as_bytes();
        if text.len() != 40 {
            return None;
        }
        let mut id = [0; 20];
        for (out, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            let hi = char::from(pair[0]).to_digit(16)?;
            let lo = char::from(pair[1]).to_digit(16)?;
            *out = (hi * 16 + lo) as u8;
        }
        Some(Id(id))
    }

    /// From a small number, as the examples of the drafts use them.
    pub fn from_u64(n: u64) -> Id {
        let mut id = [0; 20];
        id[12..].copy_from_slice(&n.to_be_bytes());
        Id(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0 {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..4] {
            write!(f, "{b:02x}")?;
        }
        f.write_str("..")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_both_ways() {
        let id = Id::sha1(b"abc");
        assert_eq!(id.to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(Id::from_hex(&id.to_string()), Some(id));
        assert_eq!(Id::from_hex("zz"), None);
    }
}
