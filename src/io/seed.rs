//! The operating system's randomness, read once for each generator that the program starts with.

use crate::core::Rng;
use std::io;

/// A generator seeded by the operating system.
///
/// # Errors
/// The operating system has no randomness to give; nothing that keeps secrets may start then.
#[allow(clippy::disallowed_methods)] // The one place where the program reaches for it.
pub fn rng() -> io::Result<Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(Rng::from_entropy(seed))
}
