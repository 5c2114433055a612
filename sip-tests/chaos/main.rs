//! Real processes in an office, killed with -9 in random order and started again while calls are made every second:
//! every call between the living is set up, every living user is found by everybody.
//!
//! `CHORDIAL_CHAOS=SECONDS` says how long (20 without it, 60 with `CHORDIAL_LONG=1`), `CHORDIAL_CHAOS_PEERS=N` how many
//! peers (12, or 30), `CHORDIAL_CHAOS_SEED=N` repeats a choice of victims.
//!
//! Nothing here asserts a time: a call counts when it is set up, however long that takes.
// Tests stand outside the program: they read clocks and wait.
#![allow(clippy::disallowed_methods, dead_code)]

mod churn;
mod cut;
mod hardship;
#[path = "../discovery/lan.rs"]
mod lan;
mod liar;
mod office;
#[path = "../interop/process.rs"]
mod process;
#[path = "../interop/program.rs"]
mod program;
#[path = "../interop/tools.rs"]
mod tools;
