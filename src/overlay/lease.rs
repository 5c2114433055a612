//! Leases as they are asked for and answered: who is the only one, until when, and by which token.

use super::LookupError;
use crate::core::Instant;
use crate::identity::SignedEntry;
use std::time::Duration;

/// A lease that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The fencing token: it never falls from one grant to the next, and rises with each new holder. Who guards the thing that
    /// is leased refuses whoever comes with a lower one than it has seen.
    pub fence: u64,
    /// Nobody else has it before this moment of this machine's monotonic clock. Of a lease given back: when that was.
    pub until: Instant,
}

/// Why there is no lease.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("another device has it for {} s", left.as_secs())]
    Held {
        /// What that one asked for, signed.
        entry: Box<SignedEntry>,
        /// For how long, unless it is renewed.
        left: Duration,
    },
    /// Those who decide cannot know that nobody has it: too many of those who would are out of reach, or new.
    #[error("who has it cannot be known for {} s", left.as_secs())]
    Unsure {
        /// After this time they do not need to know, if nothing else changes.
        left: Duration,
    },
    /// The request itself: not signed for this lease, an older one than was seen, a time that no lease lasts.
    #[error("the request does not hold")]
    Invalid,
    /// Nobody decided.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// What the responsible peer asks of those who have to agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The token of this grant.
    pub fence: u64,
    /// Grants up to this token have been given back or came to nothing.
    pub over: u64,
    /// For how long, from now on; zero: the grant of that token came to nothing.
    pub left: Duration,
}

/// The answer to a request for a lease, or to a vote.
#[derive(Clone, PartialEq, Debug)]
pub enum LeaseAnswer {
    /// To the asker: it has it, from the moment in which it asked; for no time where it gave it back.
    Granted {
        /// The token.
        fence: u64,
        /// For how long.
        left: Duration,
    },
    /// To the responsible peer: agreed and remembered.
    Agreed {
        /// The highest token known of this holding.
        fence: u64,
        /// The answering peer has been among those asked about this lease for longer than any lease lasts.
        knows: bool,
        /// How many decide about a lease, as far as it has seen lately.
        width: u8,
    },
    /// Another device has it.
    Held {
        /// What it asked for.
        entry: Box<SignedEntry>,
        /// Its token.
        fence: u64,
        /// For how long.
        left: Duration,
    },
    /// It cannot be decided before this time has passed; zero: ask again.
    Later {
        /// How long.
        left: Duration,
    },
    /// To the responsible peer: a token as high as this one was given already.
    Behind {
        /// The highest known.
        fence: u64,
    },
}
