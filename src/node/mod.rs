//! node

pub mod control;
