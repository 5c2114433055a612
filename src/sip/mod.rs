//! SIP (RFC 3261): messages and stream framing (L1), transactions, dialogs and digest (L2).

pub mod auth;
pub mod dialog;
pub mod frame;
pub mod msg;
pub mod tx;
