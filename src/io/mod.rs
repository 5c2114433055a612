//! io
pub mod audio;
pub mod control;
pub mod discovery;
pub mod disk;
pub mod dns;
pub mod driver;
pub mod launch;
pub mod login;
mod machine;
pub mod media;
pub mod office;
pub mod pairing;
pub mod seed;
pub mod store;
pub mod transport;
mod voice;
