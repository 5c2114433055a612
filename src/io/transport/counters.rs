//! What went over the sockets, and what did not.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the sockets were opened.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, being counted.
        #[derive(Debug, Default)]
        pub(super) struct Counting {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counting {
            pub(super) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_in,
    /// Datagrams handed to the system.
    datagrams_out,
    /// Datagrams that the system did not take, or for which there is no socket.
    datagrams_unsent,
    /// Messages received on streams.
    frames_in,
    /// Connections accepted.
    accepted,
    /// Of these, links of strangers.
    strangers,
    /// Connections refused since there are too many.
    refused_total,
    /// Connections refused since there are too many from their source.
    refused_source,
    /// Links refused since there are too many strangers.
    refused_strangers,
    /// Links refused since there are too many from other overlays, or from one source there.
    refused_foreign,
    /// Handshakes that failed.
    handshakes_failed,
    /// Handshakes that took too long.
    handshakes_slow,
    /// Connections closed since the other end did not read.
    stalled,
    /// Connections closed since what they carried was no SIP, too large, or never whole.
    unframed,
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
