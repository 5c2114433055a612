//! L6: the program as a person or a script meets it. [`cli`] reads the arguments and asks the running
//! program over its control socket; [`start`] is that program; [`demo`] shows everything on one machine.
//!
//! What `app` knows of the node are [`Command`](crate::node::control::Command)s, replies and events.

pub mod cli;
pub mod demo;
mod failure;
pub mod start;

pub use failure::Failure;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with `args`, its own name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::read(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let json = cli.json;
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::FAILURE
        }
    }
}
