//! io
pub mod audio;
pub mod control;
pub mod disk;
pub mod media;
pub mod seed;
pub mod transport;
