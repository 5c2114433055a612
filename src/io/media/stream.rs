//! The ends of a call on this side: a source and a sink, brought to the sample rate of the session.

use crate::io::audio::{AudioError, Sink, Source};
use crate::media::resample::Resampler;
use std::collections::VecDeque;

/// A source that gives 20 ms at any rate, and never looks ahead: each frame is made of the 20 ms of the
/// source that end with it, as a microphone would have it.
pub(super) struct Feed {
    source: Box<dyn Source>,
    resampler: Resampler,
    rate: u32,
    ready: VecDeque<i16>,
    /// Fiftieths of source samples that are owed.
    owed: u32,
    ended: bool,
}

impl Feed {
    pub(super) fn new(source: Box<dyn Source>, rate: u32) -> Self {
        let mut feed = Feed {
            resampler: Resampler::new(source.rate(), rate),
            source,
            rate,
            ready: VecDeque::new(),
            owed: 0,
            ended: false,
        };
        feed.prime();
        feed
    }

    /// Goes on at another rate (another codec was agreed).
    pub(super) fn set_rate(&mut self, rate: u32) {
        if rate != self.rate {
            self.rate = rate;
            self.resampler = Resampler::new(self.source.rate(), rate);
            self.prime();
        }
    }

    /// 20 ms, and whether the source ended within them.
    pub(super) fn frame(&mut self) -> (Vec<i16>, Result<bool, AudioError>) {
        self.owed += self.source.rate();
        let mut piece = vec![0; (self.owed / 50) as usize];
        self.owed %= 50;
        let ended = if self.ended {
            Ok(false)
        } else {
            let result = self.source.read(&mut piece);
            self.ended = !matches!(result, Ok(true));
            result.map(|more| !more)
        };
        let mut out = Vec::new();
        self.resampler.process(&piece, &mut out);
        self.ready.extend(out);
        let length = self.rate as usize / 50;
        self.ready.resize(self.ready.len().max(length), 0);
        (self.ready.drain(..length).collect(), ended)
    }

    /// What the filter holds back is made up for by silence at the start, one sample more for uneven rates.
    fn prime(&mut self) {
        let delay = self.resampler.delay() as u64 * u64::from(self.rate) / u64::from(self.source.rate().max(1));
        self.ready.clear();
        if delay > 0 {
            self.ready.resize(delay as usize + 2, 0);
        }
    }
}

/// A sink that takes frames of any rate. A sink that fails once is left alone.
pub(super) struct Drain {
    sink: Option<Box<dyn Sink>>,
    resampler: Resampler,
    rate: u32,
}

impl Drain {
    pub(super) fn new(sink: Box<dyn Sink>, rate: u32) -> Self {
        Drain { resampler: Resampler::new(rate, sink.rate()), sink: Some(sink), rate }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        if let Some(sink) = self.sink.as_ref().filter(|_| rate != self.rate) {
            self.rate = rate;
            self.resampler = Resampler::new(rate, sink.rate());
        }
    }

    pub(super) fn write(&mut self, pcm: &[i16]) -> Result<(), AudioError> {
        let Some(sink) = self.sink.as_mut() else { return Ok(()) };
        let mut out = Vec::new();
        self.resampler.process(pcm, &mut out);
        let result = sink.write(&out);
        if result.is_err() {
            self.sink = None;
        }
        result
    }

    pub(super) fn finish(&mut self) -> Result<(), AudioError> {
        self.sink.take().map_or(Ok(()), |mut sink| sink.finish())
    }
}
