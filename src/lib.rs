//! Chordial: a phone system without a server. Imports go down only:
//!
//! | layer | modules | what |
//! |---|---|---|
//! | L0 | [`core`], [`config`] | time, randomness, timers, limits; the configuration |
//! | L1 | [`sip::msg`], [`sip::frame`], [`sdp`], [`stun`], [`rtp`], [`identity`] | pure codecs |
//! | L2 | [`sip::tx`], [`sip::dialog`], [`sip::auth`], [`overlay`], [`nat`], [`media`], [`secure`] | machines that know nothing of each other |
//! | L3 | [`ua`], [`pbx`] | calls; registrar, location and proxy |
//! | L4 | [`node`] | composes all; the only thing driven from outside |
//! | L5 | `io`, [`sim`] | real sockets and clocks; virtual ones |
//! | L6 | `app` | the command line |
//!
//! Everything below L5 is sans-IO: time, randomness and bytes come in; bytes, events and the next
//! wake-up go out. `sip-tests/layers.rs` holds the direction of imports, `clippy.toml` the ban on clocks.
#![warn(missing_docs)]

pub mod config;
pub mod core;
pub mod identity;
pub mod media;
pub mod nat;
pub mod node;
pub mod overlay;
pub mod pbx;
pub mod rtp;
pub mod sdp;
pub mod secure;
pub mod sim;
pub mod sip;
pub mod stun;
pub mod ua;

#[cfg(feature = "io")]
pub mod app;
#[cfg(feature = "io")]
pub mod io;
