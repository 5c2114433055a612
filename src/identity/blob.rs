//! Blobs: what is too large for a record, sealed, cut into chunks that are named by their hashes, and described by a signed entry.
//!
//! Each chunk is sealed by ChaCha20-Poly1305 under the blob's own key before anybody else sees it; the nonce is its number, so
//! that no chunk can stand for another of the same blob, the associated data says which is the last, so that none can be left out at the end.
//! A chunk lies at the resource of `sip:HASH@OVERLAY`, HASH the 64 hexadecimal digits of the BLAKE3 of its sealed bytes, and is
//! held for as long as a live entry of kind 19 ([`ChunkBody`]) asks for it there.
//!
//! The manifest, kind 18 ([`BlobBody`]), lies under an AOR made from the blob's number; it names the chunks, or where they are
//! many the chunks that hold their names. Whoever is to read a blob is given its [`BlobRef`], under a seal of its own.

use super::cbor::{Reader, Writer, canonical};
use super::{IdentityError, PublicKey};
use crate::core::Rng;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use std::fmt;

const MANIFEST: &str = "blob";
const TICKET: &str = "chunk";
const REFERENCE: &str = "blob reference";
const TAG: usize = 16;
/// Bytes of a blob in one chunk: sealed it has 32 KiB, half of the largest message of a link, so that nothing else on
/// the link waits long behind it.
pub const CHUNK: usize = 32 * 1024 - TAG;
/// Names in a manifest; more than that lie in chunks of their own.
pub const BLOB_LIST: usize = 128;
/// Names in one such chunk.
const PACKED: usize = CHUNK / 32;
/// The largest blob, in bytes.
pub const MAX_BLOB: u64 = 64 * 1024 * 1024;

/// BLAKE3 of a sealed chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub [u8; 32]);

impl ChunkHash {
    /// Of these bytes.
    pub fn of(sealed: &[u8]) -> ChunkHash {
        ChunkHash(*blake3::hash(sealed).as_bytes())
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The address of a chunk.
pub fn chunk_aor(hash: &ChunkHash, overlay: &str) -> String {
    format!("sip:{hash}@{overlay}")
}

/// Body of an entry that has a chunk held: `[1, hash, length]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkBody {
    /// Which chunk; the entry's AOR says the same.
    pub hash: ChunkHash,
    /// Sealed bytes, 1 to 32,768.
    pub length: u32,
}

impl ChunkBody {
    /// Of these sealed bytes.
    pub fn of(sealed: &[u8]) -> ChunkBody {
        ChunkBody { hash: ChunkHash::of(sealed), length: sealed.len() as u32 }
    }

    /// True when these are the bytes.
    pub fn is(&self, sealed: &[u8]) -> bool {
        sealed.len() == self.length as usize && ChunkHash::of(sealed) == self.hash
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(3);
        writer.uint(1).bytes(&self.hash.0).uint(self.length.into());
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else. `aor` has to be that of the chunk.
    pub fn decode(bytes: &[u8], aor: &str) -> Result<ChunkBody, IdentityError> {
        let mut reader = Reader::new(bytes, TICKET);
        reader.array(3)?;
        reader.version(1)?;
        let hash = ChunkHash(reader.exact()?);
        let length = reader.uint()?;
        if length == 0 || length > (CHUNK + TAG) as u64 {
            return Err(IdentityError::Malformed(TICKET));
        }
        let body = ChunkBody { hash, length: length as u32 };
        canonical(bytes, &body.encode(), TICKET)?;
        let named = aor.strip_prefix("sip:").and_then(|rest| rest.split_once('@'));
        if named.is_none_or(|(user, _)| user != hash.to_string()) {
            return Err(IdentityError::Malformed(TICKET));
        }
        Ok(body)
    }
}

/// Body of a manifest: `[1, bytes, packed, [name...]]`; `packed` is 1 where the names are those of chunks that hold the names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobBody {
    /// Bytes of the blob before sealing.
    pub total: u64,
    /// Chunks of the blob in order, or the chunks that hold their names; at most [`BLOB_LIST`].
    pub names: Vec<ChunkHash>,
    /// Which of the two.
    pub packed: bool,
}

impl BlobBody {
    /// How many chunks the blob has; an empty one has one.
    pub fn chunks(&self) -> usize {
        (self.total.div_ceil(CHUNK as u64) as usize).max(1)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).uint(self.total).uint(self.packed.into()).nested(self.names.len());
        for name in &self.names {
            writer.bytes(&name.0);
        }
        writer.finish()
    }

    /// Reads the canonical encoding of a blob that may be, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<BlobBody, IdentityError> {
        let mut reader = Reader::new(bytes, MANIFEST);
        reader.array(4)?;
        reader.version(1)?;
        let total = reader.uint()?;
        let packed = reader.uint()? == 1;
        let len = reader.list(BLOB_LIST as u64)?;
        let names = (0..len).map(|_| reader.exact().map(ChunkHash)).collect::<Result<Vec<_>, _>>()?;
        let body = BlobBody { total, names, packed };
        canonical(bytes, &body.encode(), MANIFEST)?;
        let chunks = body.chunks();
        let right = if packed { chunks > BLOB_LIST && chunks.div_ceil(PACKED) == len } else { chunks == len };
        if total > MAX_BLOB || !right { Err(IdentityError::Malformed(MANIFEST)) } else { Ok(body) }
    }
}

/// The chunks that hold many names: plain, in order.
pub fn pack_names(names: &[ChunkHash]) -> Vec<Vec<u8>> {
    names.chunks(PACKED).map(|some| some.iter().flat_map(|n| n.0).collect()).collect()
}

/// The names in such a chunk; `None` where it is none.
pub fn unpack_names(plain: &[u8]) -> Option<Vec<ChunkHash>> {
    let (names, rest) = plain.as_chunks::<32>();
    (rest.is_empty() && !names.is_empty()).then(|| names.iter().map(|n| ChunkHash(*n)).collect())
}

/// What a reader of a blob has to be given: `[1, number, signer, key]`. Secret, since the key is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobRef {
    /// Drawn by the writer.
    pub id: [u8; 16],
    /// The device whose manifest counts.
    pub signer: PublicKey,
    /// What the chunks are sealed under.
    pub key: [u8; 32],
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobRef({})", self.number())
    }
}

impl BlobRef {
    /// Of a new blob.
    pub fn generate(signer: PublicKey, rng: &mut Rng) -> BlobRef {
        let (mut id, mut key) = ([0; 16], [0; 32]);
        rng.fill(&mut id);
        rng.fill(&mut key);
        BlobRef { id, signer, key }
    }

    /// 32 hexadecimal digits.
    pub fn number(&self) -> String {
        self.id.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Where the manifest lies.
    pub fn aor(&self, overlay: &str) -> String {
        format!("sip:{}.blob@{overlay}", self.number())
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::array(4);
        writer.uint(1).bytes(&self.id).bytes(&self.signer.0).bytes(&self.key);
        writer.finish()
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<BlobRef, IdentityError> {
        let mut reader = Reader::new(bytes, REFERENCE);
        reader.array(4)?;
        reader.version(1)?;
        let reference = BlobRef { id: reader.exact()?, signer: PublicKey(reader.exact()?), key: reader.exact()? };
        canonical(bytes, &reference.encode(), REFERENCE)?;
        Ok(reference)
    }
}

/// Seals chunk `number` (0 to 2^31 - 1; those that hold names count from 2^31 on).
pub fn seal_chunk(key: &[u8; 32], number: u32, last: bool, plain: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg: plain, aad: &[u8::from(last)] };
    cipher(key).encrypt(&nonce(number), payload).ok()
}

/// Opens it; `None` where it is another, or not sealed under this key.
pub fn open_chunk(key: &[u8; 32], number: u32, last: bool, sealed: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg: sealed, aad: &[u8::from(last)] };
    cipher(key).decrypt(&nonce(number), payload).ok()
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*key))
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::from(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(n: usize) -> Vec<ChunkHash> {
        (0..n).map(|i| ChunkHash::of(&i.to_be_bytes())).collect()
    }

    #[test]
    fn manifests_both_ways() {
        let whole = BlobBody { total: 3 * CHUNK as u64 - 5, names: hashes(3), packed: false };
        assert_eq!(BlobBody::decode(&whole.encode()), Ok(whole.clone()));
        assert_eq!(BlobBody { total: 0, ..whole.clone() }.chunks(), 1);
        for wrong in [
            BlobBody { total: 3 * CHUNK as u64 + 1, ..whole.clone() },
            BlobBody { names: hashes(2), ..whole.clone() },
            BlobBody { packed: true, ..whole.clone() },
            BlobBody { total: MAX_BLOB + 1, names: hashes(3), packed: true },
        ] {
            assert!(BlobBody::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
        let many = hashes(1100);
        let packed = pack_names(&many);
        assert_eq!(packed.len(), 2);
        assert_eq!(packed.iter().flat_map(|p| unpack_names(p).unwrap()).collect::<Vec<_>>(), many);
        let names = packed.iter().map(|p| ChunkHash::of(p)).collect();
        let long = BlobBody { total: 1100 * CHUNK as u64, names, packed: true };
        assert_eq!(BlobBody::decode(&long.encode()), Ok(long));
        let full = BlobBody { total: BLOB_LIST as u64 * CHUNK as u64, names: hashes(BLOB_LIST), packed: false };
        assert!(full.encode().len() <= crate::identity::EntryKind::BLOB.rules().largest);
    }

    #[test]
    fn sealed_in_place() {
        let reference = BlobRef::generate(PublicKey([7; 32]), &mut Rng::from_seed(1));
        assert_eq!(BlobRef::decode(&reference.encode()), Ok(reference.clone()));
        let sealed = seal_chunk(&reference.key, 3, false, &[9; CHUNK]).unwrap();
        assert_eq!(sealed.len(), 32 * 1024);
        assert_eq!(open_chunk(&reference.key, 3, false, &sealed).as_deref(), Some(&[9; CHUNK][..]));
        assert_eq!(open_chunk(&reference.key, 4, false, &sealed), None);
        assert_eq!(open_chunk(&reference.key, 3, true, &sealed), None);
        assert_eq!(open_chunk(&[0; 32], 3, false, &sealed), None);
        let body = ChunkBody::of(&sealed);
        let aor = chunk_aor(&body.hash, "office");
        assert!(crate::identity::split_aor(&aor).is_some());
        assert_eq!(ChunkBody::decode(&body.encode(), &aor), Ok(body));
        assert!(ChunkBody::decode(&body.encode(), &chunk_aor(&ChunkHash([0; 32]), "office")).is_err());
        assert!(body.is(&sealed) && !body.is(&sealed[1..]));
    }
}
