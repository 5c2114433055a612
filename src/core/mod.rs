//! L0: what every layer stands on. Time that is handed in, randomness that is seeded, timers,
//! bounded queues, the addresses of flows, and a wrapper that keeps secrets out of logs.
//!
//! Nothing here reads a clock, opens a socket or draws from the system's randomness.

mod id;
mod net;
mod queue;
mod redacted;
mod rng;
mod time;
mod timer;

pub use id::Id;
pub use net::{ConnId, Flow, Transport, subscriber};
pub use queue::Queue;
pub use redacted::Redacted;
pub use rng::Rng;
pub use time::{Instant, UnixTime};
pub use timer::TimerQueue;

/// Limits that more than one layer has to agree on. Sizes in bytes unless the name says otherwise.
pub mod limits {
    /// Largest SIP message taken from a stream or a datagram.
    pub const SIP_MESSAGE: usize = 64 * 1024;
    /// Largest SIP header section.
    pub const SIP_HEADERS: usize = 32 * 1024;
    /// Most header fields in one SIP message.
    pub const SIP_HEADER_COUNT: usize = 256;
    /// A request larger than this goes over a stream instead of UDP (RFC 3261 section 18.1.1).
    pub const SIP_UDP_REQUEST: usize = 1300;
    /// Largest signed record entry (SPEC section 3).
    pub const RECORD_ENTRY: usize = 8 * 1024;
}
