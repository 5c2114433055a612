//! io
pub mod audio;
pub mod control;
pub mod discovery;
pub mod disk;
pub mod driver;
pub mod launch;
pub mod login;
mod machine;
pub mod media;
mod network;
pub mod office;
pub mod pairing;
mod portmap;
pub mod seed;
pub mod store;
mod surroundings;
pub mod transport;
mod voice;
