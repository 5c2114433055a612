//! One record in the file: `"chR1"`, the length of what follows the checksum (4 bytes, network order), the first 16 bytes of its
//! BLAKE3, the resource-ID (20 bytes), the number of the replica (1 byte), the signed entry. So each record says by itself
//! whether it is whole, also in a file whose tables cannot be read any more.

use crate::core::{Id, limits};
use crate::identity::{DictionaryKey, SignedEntry};

/// How a record begins.
pub(super) const MAGIC: &[u8; 4] = b"chR1";
const HEAD: usize = 24;
const PLACE: usize = 21;

/// Under which key a record stands: resource-ID, replica, kind, user, device, item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RowKey([u8; 71]);

impl RowKey {
    pub fn new(key: &Id, replica: u8, entry: &DictionaryKey) -> RowKey {
        let mut bytes = [0; 71];
        bytes[..20].copy_from_slice(&key.0);
        bytes[20] = replica;
        bytes[21..23].copy_from_slice(&entry.kind.number().to_be_bytes());
        bytes[23..31].copy_from_slice(&entry.user);
        bytes[31..63].copy_from_slice(&entry.device.0);
        bytes[63..].copy_from_slice(&entry.item.to_be_bytes());
        RowKey(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A record as it lies in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row(Vec<u8>);

impl Row {
    pub fn new(key: &Id, replica: u8, entry: &SignedEntry) -> Row {
        let mut content = Vec::with_capacity(PLACE + entry.encoded().len());
        content.extend_from_slice(&key.0);
        content.push(replica);
        content.extend_from_slice(entry.encoded());
        let mut bytes = Vec::with_capacity(HEAD + content.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(content.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&blake3::hash(&content).as_bytes()[..16]);
        bytes.extend_from_slice(&content);
        Row(bytes)
    }

    /// The whole record that `bytes` begins with, and its length; `None` where there is none.
    pub fn parse(bytes: &[u8]) -> Option<(Row, usize)> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*len) as usize;
        if magic != MAGIC || !(PLACE..=PLACE + limits::RECORD_ENTRY).contains(&len) {
            return None;
        }
        let (sum, rest) = rest.split_first_chunk::<16>()?;
        let content = rest.get(..len)?;
        let whole = blake3::hash(content).as_bytes()[..16] == sum[..];
        whole.then(|| (Row(bytes[..HEAD + len].to_vec()), HEAD + len))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Resource-ID, replica and the encoding of the entry.
    pub fn parts(&self) -> Option<(Id, u8, &[u8])> {
        let (key, rest) = self.0.get(HEAD..)?.split_first_chunk::<20>()?;
        let (replica, entry) = rest.split_first()?;
        Some((Id(*key), *replica, entry))
    }
}
