//! L2: what stands between this machine and the others: kinds of addresses, and routers that open a port when asked.
//!
//! | module | what |
//! |---|---|
//! | [`scope`] | who can reach an address |
//! | [`ice`] | the way that a call's media take |
//! | [`portmap`] | PCP, NAT-PMP and UPnP IGD: asking the router for a port |

pub mod ice;
pub mod portmap;
mod scope;

pub use scope::{Scope, scope};
