//! What crosses NATs, against programs that other people wrote: coturn's client at our relay, our client at coturn's relay.
//!
//! Where a foreign program is missing, the test says `SKIPPED` on standard error with what to install and returns; with
//! `CHORDIAL_INTEROP=required` in the environment (CI sets it) that is a failure instead. Nothing here asserts a time.
// Tests stand outside the program: they read clocks and wait.
#![allow(clippy::disallowed_methods)]

mod aioice;
mod calls;
mod client;
#[path = "../interop/process.rs"]
#[allow(dead_code)]
mod process;
mod proxied;
mod relay;
#[path = "../interop/tools.rs"]
#[allow(dead_code)]
mod tools;
mod two_paths;
mod uclient;
mod webrtc_ice;
