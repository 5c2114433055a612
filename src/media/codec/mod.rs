//! Speech codecs. One folder a codec; each fills one row of [`codecs`].
//!
//! A codec here works on 16-bit mono samples at its own sample rate. What the other end sends in
//! stereo is mixed down by the decoder.

mod g711;
#[cfg(any(feature = "ropus", feature = "libopus", feature = "system-opus"))]
pub mod opus;
pub mod pcma;
pub mod pcmu;
#[cfg(test)]
mod tests;

/// Turns samples into payloads. One for each direction of each call; has a memory of the past.
pub trait Encoder: Send {
    /// Appends the payload for one packet's samples (10, 20, 40 or 60 ms) to `out`.
    fn encode(&mut self, pcm: &[i16], out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Tells the share of packets that the other end loses, in percent, so that a codec with
    /// redundancy of its own can spend bits on it.
    fn set_expected_loss(&mut self, percent: u8) {
        let _ = percent;
    }
}

/// Turns payloads into samples, and nothing into something bearable.
pub trait Decoder: Send {
    /// Appends the samples of one payload to `pcm`. After an error the decoder goes on with the next payload.
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) -> Result<(), CodecError>;

    /// Appends exactly `samples` in place of audio that did not come. `next` is the payload that
    /// follows the gap directly, if it is here already: it may carry a coarse copy of what was lost.
    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, pcm: &mut Vec<i16>);
}

/// What a codec is called on the wire and how to make its two ends.
pub struct Codec {
    /// Encoding name in SDP (`a=rtpmap`); compare without case.
    pub name: &'static str,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Rate in Hz of the samples that encoder and decoder take and give.
    pub sample_rate: u32,
    /// Channels as SDP must say them (Opus: 2, whatever is sent, RFC 7587 section 7).
    pub channels: u8,
    /// The static payload type of RFC 3551, where there is one; else one of 96 to 127 is negotiated.
    pub static_payload_type: Option<u8>,
    /// `a=fmtp` parameters to offer; empty for none.
    pub fmtp: &'static str,
    /// A packet may carry a coarse copy of the one before: worth waiting for when packets get lost.
    pub redundancy: bool,
    /// Packet times in milliseconds that the encoder can make.
    pub ptimes: &'static [u8],
    /// Duration of a payload in ticks of the RTP clock; `None` if the payload is malformed.
    pub duration: fn(payload: &[u8]) -> Option<u32>,
    /// Makes an encoder.
    pub encoder: fn() -> Result<Box<dyn Encoder>, CodecError>,
    /// Makes a decoder.
    pub decoder: fn() -> Result<Box<dyn Decoder>, CodecError>,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.clock_rate)
    }
}

/// Why a codec refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// The payload does not decode: the sender's fault.
    #[error("{codec}: malformed payload")]
    Payload {
        /// Name of the codec.
        codec: &'static str,
    },
    /// A number of samples that the codec has no packet for: our fault.
    #[error("{codec}: cannot encode {samples} samples in one packet")]
    FrameLength {
        /// Name of the codec.
        codec: &'static str,
        /// What was asked.
        samples: usize,
    },
    /// The codec library refused, with its own error number: our fault or the library's.
    #[error("{codec}: the codec library failed with error {code}")]
    Library {
        /// Name of the codec.
        codec: &'static str,
        /// Its error number.
        code: i32,
    },
}

/// All codecs that are built in, the best first. This is the order to offer them in.
pub fn codecs() -> &'static [Codec] {
    CODECS
}

/// The codec of that SDP encoding name, in any case.
pub fn find(name: &str) -> Option<&'static Codec> {
    CODECS.iter().find(|codec| codec.name.eq_ignore_ascii_case(name))
}

/// The Opus library that is built in, for people: `ropus 0.12`, `libopus 1.6.1`, or `none`.
pub fn voice_engine() -> &'static str {
    #[cfg(any(feature = "ropus", feature = "libopus", feature = "system-opus"))]
    return opus::engine_name();
    #[cfg(not(any(feature = "ropus", feature = "libopus", feature = "system-opus")))]
    return "none";
}

const CODECS: &[Codec] = &[
    #[cfg(any(feature = "ropus", feature = "libopus", feature = "system-opus"))]
    opus::CODEC,
    pcmu::CODEC,
    pcma::CODEC,
];
