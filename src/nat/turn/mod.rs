//! TURN (RFC 8656, 6062): a relay for who cannot be reached otherwise. Both ends, and the table by which packets go through a relay.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | one allocation at somebody's relay |
//! | [`server`] | this relay's allocations: who may have one, and towards whom |
//! | [`table`] | where one packet goes; what the server decided, carried out |
//! | [`credential`] | user names that expire, their passwords, nonces; nothing is stored for them |
//! | [`bucket`] | ceilings on bits a second |
//! | [`peers`] | whom a relay forwards to |
//!
//! Left out: mobility (RFC 8016), ALTERNATE-SERVER, TCP allocations as a client (RFC 6062), DONT-FRAGMENT and ICMP.

pub mod bucket;
pub mod client;
pub mod credential;
pub mod peers;
pub mod server;
pub mod table;
#[cfg(test)]
pub(super) mod testing;

pub use client::Client;
pub use server::Server;

/// The usual port of STUN and TURN, UDP and TCP.
pub const PORT: u16 = 3478;
/// That of both over TLS.
pub const TLS_PORT: u16 = 5349;
