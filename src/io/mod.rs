//! io
pub mod audio;
pub mod control;
pub mod discovery;
pub mod disk;
pub mod driver;
pub mod launch;
pub mod media;
mod network;
pub mod office;
mod portmap;
pub mod seed;
mod surroundings;
pub mod transport;
mod voice;
