//! The `chordial` program: parses its arguments and calls the library's `app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chordial::app::main(std::env::args_os())
}
