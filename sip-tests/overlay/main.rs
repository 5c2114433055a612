//! The overlay: conformance tests that any DHT has to pass, Chord's own, the draft's traces, and the overlay's messages.

mod carry;
mod chord;
mod conformance;
mod net;
mod repair;
mod traces;
