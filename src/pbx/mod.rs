//! The office's exchange (L3): who may register and call, where users are, and the proxy that brings requests there.
//!
//! - [`Domain`]: which URIs mean this overlay, by its name or by our addresses.
//! - [`Accounts`]: the standard phones whose digest secrets are held here.
//! - [`registrar::Registrar`]: RFC 3261 section 10.3, with the location table behind it.
//! - [`policy`]: whether a request from a clear flow is taken for a phone's, challenged or taken for a stranger's.
//! - [`locate::Locate`]: where a URI with a host name leads (RFC 3263).
//! - [`router::Router`]: the stateful proxy of RFC 3261 section 16.
//!
//! All of it is sans-IO: time and messages come in, messages and questions go out. Transactions are the node's:
//! it hands their messages here and carries out what comes back.

pub mod accounts;
pub mod domain;
pub mod locate;
pub mod policy;
pub mod registrar;
pub mod router;
pub mod shares;
pub mod target;

pub use accounts::{Account, Accounts};
pub use domain::Domain;
pub use policy::Origin;
pub use shares::{Share, Shares};
pub use target::{Candidate, Edge, Target};
