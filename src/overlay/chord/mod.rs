//! Chord.
