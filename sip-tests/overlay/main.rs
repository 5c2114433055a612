//! The overlay: conformance tests that any DHT has to pass, Chord's own, the draft's traces, and the overlay's messages.

mod blobs;
mod carry;
mod chord;
mod churn;
mod conformance;
mod leases;
mod liars;
mod members;
mod merge;
mod net;
mod repair;
mod tier;
mod traces;
