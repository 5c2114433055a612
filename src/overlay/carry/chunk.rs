//! Chunks of blobs as bodies, deterministic CBOR: `[1, entry, bytes]` gives one to a holder, `[1, hash]` asks for one, `[1, bytes]` is the answer.

use super::CarryError;
use crate::core::limits;
use crate::identity::{ChunkHash, SignedEntry};
use bytes::Bytes;
use minicbor::{Decoder, Encoder};

/// Largest sealed chunk.
const LARGEST: usize = 32 * 1024;

/// What a body of that type asks.
pub(super) enum Asked {
    Give(SignedEntry, Bytes),
    Take(ChunkHash),
}

pub(super) fn encode_give(entry: &SignedEntry, bytes: &[u8]) -> Vec<u8> {
    let mut body = Encoder::new(Vec::with_capacity(entry.encoded().len() + bytes.len() + 16));
    // Writing to a vector does not fail.
    let _ = body.array(3).and_then(|b| b.u8(1)).and_then(|b| b.bytes(entry.encoded())).and_then(|b| b.bytes(bytes));
    body.into_writer()
}

pub(super) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut body = Encoder::new(Vec::with_capacity(bytes.len() + 8));
    let _ = body.array(2).and_then(|b| b.u8(1)).and_then(|b| b.bytes(bytes));
    body.into_writer()
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<Asked, CarryError> {
    let decoded = (|| {
        let mut read = Decoder::new(bytes);
        let len = read.array().ok()??;
        (read.u8().ok()? == 1).then_some(())?;
        let first = read.bytes().ok()?;
        match len {
            2 => {
                let hash = ChunkHash(first.try_into().ok()?);
                (encode_bytes(&hash.0) == bytes).then_some(Asked::Take(hash))
            }
            3 if first.len() <= limits::RECORD_ENTRY => {
                let (entry, chunk) = (SignedEntry::decode(first).ok()?, read.bytes().ok()?);
                let right = chunk.len() <= LARGEST && encode_give(&entry, chunk) == bytes;
                right.then(|| Asked::Give(entry, Bytes::copy_from_slice(chunk)))
            }
            _ => None,
        }
    })();
    decoded.ok_or(CarryError::Body)
}

pub(super) fn decode_bytes(bytes: &[u8]) -> Result<Bytes, CarryError> {
    let decoded = (|| {
        let mut read = Decoder::new(bytes);
        (read.array().ok()?? == 2 && read.u8().ok()? == 1).then_some(())?;
        read.bytes().ok().filter(|chunk| chunk.len() <= LARGEST)
    })();
    let chunk = decoded.ok_or(CarryError::Body)?;
    if encode_bytes(chunk) == bytes { Ok(Bytes::copy_from_slice(chunk)) } else { Err(CarryError::Body) }
}
