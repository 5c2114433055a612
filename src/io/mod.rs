//! io
pub mod audio;
pub mod control;
pub mod discovery;
pub mod disk;
pub mod dns;
pub mod driver;
pub mod launch;
pub mod media;
pub mod office;
pub mod seed;
pub mod transport;
mod voice;
