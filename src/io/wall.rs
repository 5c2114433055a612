//! The wall clock, for what is compared between machines: certificates, lifetimes of records.

use crate::core::UnixTime;

/// Now. A clock that stands before 1970 counts as 1970.
#[allow(clippy::disallowed_methods)] // The one place where the program reads it.
pub fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime(since.map_or(0, |d| d.as_secs()))
}
