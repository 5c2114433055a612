//! io
pub mod audio;
pub mod media;
pub mod transport;
