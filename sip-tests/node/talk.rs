//! A node and a raw end that talk with each other.

use crate::raw::{Talk, Way, sdp};
use crate::world::World;
use std::time::Duration;

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// bob, alone in his ring, answering by himself or not, and a raw end that calls him.
pub fn bob(seed: u64, auto: bool) -> (World, Talk) {
    let mut world = World::new(seed);
    world.peer("bob", |c| {
        c.user.auto_answer = auto;
        c.user.strangers = chordial::config::Strangers::Anyone;
    });
    world.run(seconds(2));
    let raw = world.raw();
    let to = world.hosts[0].sip;
    let uri = format!("sip:bob@{to}");
    let talk = Talk::new(&world, raw, Way::Udp(to), &uri, "sip:joe@elsewhere.example", "sip:bob@chordial");
    (world, talk)
}

/// The raw end's description.
pub fn offer() -> String {
    sdp("10.9.0.1:7000", "sendrecv")
}
