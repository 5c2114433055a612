//! Whole nodes on a virtual clock and a virtual network: calls, phones, strangers and what goes wrong.
//!
//! [`world`] drives the nodes, [`raw`] is a SIP end that says exactly what a test has it say. Nothing waits for real
//! time, and the same test has the same history every time.

mod raw;
mod world;

mod accounts;
mod adapters;
mod addresses;
mod between;
mod calls;
mod challenge;
mod dialogs;
mod disowned;
mod early;
mod edge;
mod election;
mod forks;
mod hold;
mod ice;
mod joining;
mod login;
mod mailbox;
mod merging;
mod messages;
mod moving;
mod nat_behaviour;
mod open;
mod pairing;
mod people;
mod phone_mode;
mod phones;
mod records;
mod redirect;
mod relays;
mod requests;
mod security;
mod session;
mod settings;
mod store;
mod talk;
mod tier;
mod transfer;
mod two_paths;
mod vanished;
mod voice;
