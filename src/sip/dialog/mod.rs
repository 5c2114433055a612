//! Dialogs (RFC 3261 sections 12 to 15) and what an INVITE needs beyond its transaction.
//!
//! - [`Dialog`]: identifiers, sequence numbers, route set (loose and strict), remote target, and whether either side
//!   has an INVITE pending (glare, sections 14.1 and 14.2).
//! - [`InviteServer`]: one received INVITE; repeats the 2xx until the ACK comes (section 13.3.1.4) and a provisional
//!   response every minute (section 13.3.1.1).
//! - [`InviteClient`]: one sent INVITE; a dialog for each fork that answers (section 13.2.2.4), the ACK again for
//!   each repeated 2xx.
//!
//! They know messages and time, not transactions: the user agent carries messages between them and the transaction
//! layer. A failed or redirected INVITE, authentication and who hangs up are its decisions too.
//!
//! - [`SessionTimer`]: who refreshes and when a session is over (RFC 4028).
//! - [`ReliableServer`]: provisional responses that are repeated until their PRACK comes (RFC 3262).
//!
//! Left out: subscriptions sharing a dialog but that of a REFER (RFC 6665), and changes to
//! the target by a request within an early dialog that is later refused (RFC 6141).

mod client;
mod refusal;
mod reliable;
mod server;
mod session;
mod state;

#[cfg(test)]
mod tests;

pub use client::{InviteClient, InviteClientOutput};
pub use refusal::Refusal;
pub use reliable::{RAck, REL100, ReliableOutput, ReliableServer, is_reliable};
pub use server::{InviteServer, InviteServerOutput};
pub use session::{Due, MIN_SE, Refresher, SessionTimer, TIMER};
pub use state::{Dialog, DialogError, DialogId, Fate, State};

use std::time::Duration;

/// The times that an INVITE goes by, as in RFC 3261 section 17.1.1.1.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Estimate of a round trip.
    pub t1: Duration,
    /// Longest interval between repetitions.
    pub t2: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { t1: Duration::from_millis(500), t2: Duration::from_secs(4) }
    }
}
