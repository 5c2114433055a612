//! What the two laws of G.711 share: framing, and concealment by repetition.
//!
//! Concealment repeats the last pitch period (found by correlation over the last 40 ms) and fades it
//! out over 60 ms, with a short blend back into what comes next. Time-stretching and the overlap-add
//! of G.711 Appendix I are left for the concealment in the playout.

use super::{Codec, CodecError, Decoder, Encoder};

const RATE: usize = 8000;
/// Pitch periods from 2.5 to 15 ms: 400 Hz down to 67 Hz.
const PITCH: std::ops::RangeInclusive<usize> = 20..=120;
const HISTORY: usize = 320;
const FADE: usize = RATE * 60 / 1000;
const BLEND: usize = RATE * 4 / 1000;

/// What is the same in both rows of the registry.
pub(super) const SHAPE: Codec = Codec {
    name: "",
    clock_rate: RATE as u32,
    sample_rate: RATE as u32,
    channels: 1,
    static_payload_type: None,
    fmtp: "",
    redundancy: false,
    ptimes: &[10, 20, 30, 40, 60],
    duration: |payload| if (1..=RATE / 5).contains(&payload.len()) { u32::try_from(payload.len()).ok() } else { None },
    encoder: || Err(CodecError::FrameLength { codec: "G.711", samples: 0 }),
    decoder: || Err(CodecError::Payload { codec: "G.711" }),
};

/// A pair of functions, sample to octet and back.
#[derive(Clone, Copy)]
pub(super) struct Law {
    pub(super) encode: fn(i16) -> u8,
    pub(super) decode: fn(u8) -> i16,
}

pub(super) struct G711Encoder(pub(super) Law);

impl Encoder for G711Encoder {
    fn encode(&mut self, pcm: &[i16], out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend(pcm.iter().map(|sample| (self.0.encode)(*sample)));
        Ok(())
    }
}

pub(super) struct G711Decoder {
    law: Law,
    /// The last samples that were played, newest last.
    history: Vec<i16>,
    /// Samples concealed since the last payload.
    concealed: usize,
    pitch: usize,
}

impl G711Decoder {
    pub(super) fn new(law: Law) -> Self {
        G711Decoder { law, history: vec![0; HISTORY], concealed: 0, pitch: 0 }
    }

    fn remember(&mut self, pcm: &[i16]) {
        let new = &pcm[pcm.len().saturating_sub(HISTORY)..];
        self.history.drain(..new.len());
        self.history.extend_from_slice(new);
    }

    /// The next `samples` of the repeated and fading pitch period.
    fn continuation(&self, samples: usize) -> Vec<i16> {
        let period = &self.history[HISTORY - self.pitch..];
        (0..samples)
            .map(|i| {
                let at = self.concealed + i;
                let gain = FADE.saturating_sub(at) as i32;
                (i32::from(period[at % self.pitch]) * gain / FADE as i32) as i16
            })
            .collect()
    }
}

impl Decoder for G711Decoder {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) -> Result<(), CodecError> {
        let start = pcm.len();
        pcm.extend(payload.iter().map(|octet| (self.law.decode)(*octet)));
        if self.concealed > 0 {
            let tail = self.continuation(BLEND);
            for (i, (new, old)) in pcm[start..].iter_mut().zip(tail).enumerate() {
                *new = ((i32::from(*new) * i as i32 + i32::from(old) * (BLEND - i) as i32) / BLEND as i32) as i16;
            }
            self.concealed = 0;
        }
        self.remember(&pcm[start..]);
        Ok(())
    }

    fn conceal(&mut self, samples: usize, _next: Option<&[u8]>, pcm: &mut Vec<i16>) {
        if self.concealed == 0 {
            self.pitch = pitch(&self.history);
        }
        pcm.extend(self.continuation(samples));
        self.concealed = self.concealed.saturating_add(samples);
    }
}

/// The lag at which the end of `history` resembles what came before most.
fn pitch(history: &[i16]) -> usize {
    const WINDOW: usize = 160;
    let newest = &history[history.len() - WINDOW..];
    let mut best = (f64::MIN, *PITCH.end());
    for lag in PITCH {
        let older = &history[history.len() - WINDOW - lag..history.len() - lag];
        let (mut cross, mut power) = (0i64, 1i64);
        for (a, b) in newest.iter().zip(older) {
            cross += i64::from(*a) * i64::from(*b);
            power += i64::from(*b) * i64::from(*b);
        }
        let likeness = cross as f64 / (power as f64).sqrt();
        if likeness > best.0 {
            best = (likeness, lag);
        }
    }
    best.1
}
