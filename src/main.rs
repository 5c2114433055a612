//! The `chordial` program: parses its arguments and calls the library's `app`.

use std::process::ExitCode;

/// A call is hundreds of small allocations: this one takes a third of the time that the C library's does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chordial::app::main(std::env::args_os())
}
