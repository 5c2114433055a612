//! L2: what stands between this machine and the others: kinds of addresses, and routers that open a port when asked.
//!
//! | module | what |
//! |---|---|
//! | [`scope`] | who can reach an address |
//! | [`ice`] | the way that a call's media take |
//! | [`behaviour`] | how the NAT before this machine maps and filters (RFC 5780) |
//! | [`portmap`] | PCP, NAT-PMP and UPnP IGD: asking the router for a port |
//! | [`turn`] | TURN: a client, a relay's allocations, the table its packets go by |

pub mod behaviour;
pub mod ice;
pub mod portmap;
mod scope;
pub mod turn;

pub use scope::{Scope, scope};
