//! io
pub mod audio;
pub mod control;
pub mod disk;
pub mod enrol;
pub mod media;
pub mod seed;
pub mod transport;
pub mod wall;
