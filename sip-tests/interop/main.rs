//! The built program against programs that other people wrote, and against itself in several processes.
//!
//! Every test starts real `chordial` processes on loopback with free ports and data directories of its own, speaks to
//! them by the command line alone, and ends every process it started, also when it fails. Where a foreign program or
//! a right is missing, the test says `SKIPPED` on standard error with what to install and returns; with
//! `CHORDIAL_INTEROP=required` in the environment (CI sets it) that is a failure instead.
//! `CHORDIAL_LONG=1` makes the load test run its full 30 seconds.
//!
//! Nothing here asserts a time: conditions are waited for with generous deadlines.
// Tests stand outside the program: they read clocks and wait.
#![allow(clippy::disallowed_methods)]

mod audio;
mod bad_input;
mod baresip;
mod between;
mod capture;
mod conduct;
mod load;
mod login;
mod messages;
mod office;
mod office_people;
mod phones;
mod power;
mod process;
mod program;
mod ring;
mod sipsak;
mod tap;
mod tier;
mod tools;
mod web;
mod wire;
