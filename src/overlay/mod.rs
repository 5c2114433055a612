//! (see SPEC)
pub mod carry;
pub mod chord;
