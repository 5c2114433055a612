//! Voice, without a clock or a socket: codecs, jitter buffer, RTCP bookkeeping, sessions.
//!
//! [`session::Session`] is one call's voice: it takes datagrams and microphone frames, gives datagrams
//! and loudspeaker frames, and is driven with the time like every machine of this layer. What it is
//! made of stands in modules of its own.
//!
//! Later work, absent here: mixing, echo cancellation, time-stretching in the playout, encryption.

pub mod codec;
pub mod dtmf;
pub mod hear;
pub mod jitter;
pub mod reception;
pub mod resample;
pub mod rtcp;
pub mod session;
