//! Chord: the conformance tests, and what is Chord's own.

use crate::conformance as conform;
use crate::net::{Death, Net, OVERLAY, Users, entry, key_of};
use chordial::core::{Id, Rng};
use chordial::identity::{TrustAnchor, Verifier};
use chordial::overlay::chord::{Chord, Config};
use chordial::overlay::{IdSpace, Mode, Overlay, PeerRef};
use std::time::Duration;

pub fn make(me: PeerRef, rng: Rng) -> Chord {
    let verifier = Verifier::new(TrustAnchor::Open { overlay: OVERLAY.into() }, 64);
    Chord::new(me, Config::default(), Box::new(verifier), rng)
}

#[test]
fn one_peer_alone() {
    conform::alone(make);
}

#[test]
fn everyone_finds_everything() {
    for n in [2, 3, 5, 24] {
        conform::everyone_finds(make, n);
    }
}

#[test]
fn a_holder_is_killed() {
    conform::a_holder_dies(make, 5, Death::Refused, Duration::from_millis(600));
    conform::a_holder_dies(make, 20, Death::Refused, Duration::from_millis(600));
}

#[test]
fn a_holder_falls_silent() {
    conform::a_holder_dies(make, 5, Death::Silent, Duration::from_millis(1500));
    conform::a_holder_dies(make, 20, Death::Silent, Duration::from_millis(1500));
}

#[test]
fn peers_die_one_after_the_other() {
    conform::one_after_the_other(make);
}

#[test]
fn joining_peers_take_over() {
    conform::joiners_take_over(make);
}

#[test]
fn leaving_peers_hand_over() {
    conform::leaving_loses_nothing(make);
}

#[test]
fn records_have_sequence_and_life() {
    conform::records(make);
}

#[test]
fn holders_verify_what_they_are_sent() {
    conform::holders_verify(make);
}

#[test]
fn outside_the_ring() {
    conform::no_ring(make);
}

#[test]
fn loss_is_survived() {
    conform::a_lossy_network(make);
}

#[test]
fn same_seed_same_history() {
    conform::deterministic(make);
}
