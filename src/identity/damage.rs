//! What may happen to bytes on their way, for tests of what reads them.

use crate::core::Rng;

/// One bit flipped, the end cut off, or a byte too many.
pub(super) fn damaged(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(3) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes.truncate(at),
        _ => bytes.insert(at, rng.next_u32() as u8),
    }
    bytes
}
