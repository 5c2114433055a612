//! What the overlay asks its driver to keep over a restart, and how that comes back.

use crate::core::{Id, UnixTime};
use crate::identity::{ChunkHash, DictionaryKey, SignedEntry};
use bytes::Bytes;

/// One change of what is held.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// This entry is held, in place of whatever was held under the same key, replica and dictionary key.
    Put {
        /// Resource-ID.
        key: Id,
        /// 0, or the number of the scattered replica.
        replica: u8,
        /// The entry.
        entry: SignedEntry,
    },
    /// It is held no more: its life is over, or another holds it now.
    Remove {
        /// Resource-ID.
        key: Id,
        /// 0, or the number of the scattered replica.
        replica: u8,
        /// Which entry.
        entry: DictionaryKey,
    },
    /// This chunk is held.
    Chunk {
        /// Its name.
        hash: ChunkHash,
        /// All of it.
        bytes: Bytes,
    },
    /// It is held no more.
    Unchunk {
        /// Its name.
        hash: ChunkHash,
    },
    /// Nothing is held any more: all of it was handed over. What was kept so far is not to come back, in no form.
    Clear,
}

/// Changes to be kept together, in this order.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// Rises by one from batch to batch; [`Input::Flushed`](super::Input::Flushed) names it.
    pub number: u64,
    /// The time that the overlay goes by. Kept with the changes: the clock of a machine that was switched off does not go
    /// behind it.
    pub unix: UnixTime,
    /// At least one, unless only the time is to be noted.
    pub changes: Vec<Change>,
}

/// What was kept, at the start. Nothing in it is believed: every entry is verified again.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Stored {
    /// Key, replica and entry.
    pub entries: Vec<(Id, u8, SignedEntry)>,
    /// Chunks that lie there, and how many bytes of each.
    pub chunks: Vec<(ChunkHash, u32)>,
    /// [`Batch::unix`] of the last batch.
    pub unix: UnixTime,
}
