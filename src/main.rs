//! The `chordial` program: parses its arguments and calls the library's `app`.

fn main() {}
