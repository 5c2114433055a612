//! How much of what was said was heard: two recordings compared.
//!
//! Codecs change waveforms freely but keep the rise and fall of speech, so the comparison is of
//! envelopes: the level of 10 ms windows in three bands, on a logarithmic scale. The lag is the shift at which the
//! envelopes correlate best, refined by the waveforms. A piece of speech counts as heard if, near that lag,
//! its own envelope correlates well and it is about as loud. This says whether speech came through, how much of it and
//! with what delay; it is no measure of beauty (PESQ and its like are).

use super::resample::Resampler;
use std::ops::RangeInclusive;

/// Both recordings are brought to this rate.
const RATE: u32 = 8000;
/// Centre (Hz) and Q of the bands whose envelopes are compared: voice, and the two formants that tell vowels apart.
const BANDS: [(f64, f64); 3] = [(350.0, 0.8), (1100.0, 1.2), (2400.0, 1.5)];
/// Envelope step: 5 ms.
const STEP: usize = RATE as usize / 200;
/// Speech is judged in pieces of 600 ms.
const PIECE: usize = 120;
/// Correlation of the whole above which pieces of less, down to 150 ms, count as well.
const ALIKE: f64 = 0.4;
/// Correlation of a piece that is heard within 20 ms of where the piece before it was,
const NEAR: (i64, f64) = (4, 0.8);
/// and of one that moved up to 200 ms, which chance finds more easily.
const FAR: (i64, f64) = (40, 0.95);
/// A piece may come out this much fainter (12 dB) and still count.
const FAINTER: f64 = 0.25;
/// Louder than this share of the loudest frame is speech (-34 dB).
const SPEECH: f64 = 0.02;

/// A recording: samples and their rate in Hz.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// Mono samples.
    pub samples: &'a [i16],
    /// Samples a second.
    pub rate: u32,
}

/// What the comparison found.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Heard {
    /// Share of the sent speech that was heard, 0 to 1. 0 where nothing was said.
    pub share: f64,
    /// How much later the speech stands in the second recording, in milliseconds; negative if earlier.
    pub lag_ms: f64,
    /// Correlation of the two envelopes at that lag, -1 to 1.
    pub correlation: f64,
    /// Speech in the first recording, in milliseconds.
    pub speech_ms: u64,
}

/// Compares what was sent with what was recorded at the other end. Lags up to `max_lag_ms` either way are tried.
pub fn compare(sent: Recording<'_>, received: Recording<'_>, max_lag_ms: u32) -> Heard {
    let (said, heard) = (at_rate(sent), at_rate(received));
    let (spoken, echoed) = (Envelope::of(&said), Envelope::of(&heard));
    let loudest = spoken.level.iter().copied().fold(0.0, f64::max);
    let steps = spoken.level.len();
    if loudest < 10.0 || echoed.level.is_empty() {
        return Heard::default();
    }
    let mut judge = Judge { spoken, echoed, floor: loudest * SPEECH, tracked: 0, smallest: PIECE, speech: 0, good: 0 };
    let widest = i64::from(max_lag_ms) / 5;
    let (lag, correlation) = judge.best(-widest..=widest, 0, steps);
    judge.tracked = lag;
    // Short pieces are found by chance: they prove nothing unless the whole is alike.
    judge.smallest = if correlation > ALIKE { PIECE / 4 } else { PIECE };
    for start in (0..steps).step_by(PIECE) {
        judge.piece(start, (start + PIECE).min(steps));
    }
    Heard {
        share: if judge.speech == 0 { 0.0 } else { judge.good as f64 / judge.speech as f64 },
        lag_ms: fine_lag(&said, &heard, lag),
        correlation,
        speech_ms: judge.speech as u64 * 5,
    }
}

struct Judge {
    spoken: Envelope,
    echoed: Envelope,
    /// Level above which a step is speech.
    floor: f64,
    /// Where the last piece was found.
    tracked: i64,
    /// Pieces are not cut shorter than this many steps.
    smallest: usize,
    /// Steps of speech looked at, and those that were heard.
    speech: usize,
    good: usize,
}

impl Judge {
    /// Looks for a piece of what was said; what is not found as a whole (the delay changed within it) in
    /// halves and quarters, which have to be the more alike the shorter they are.
    fn piece(&mut self, start: usize, end: usize) {
        let voiced = self.spoken.level[start..end].iter().filter(|level| **level > self.floor).count();
        if voiced < (end - start) / 8 {
            return;
        }
        let strictness = (end - start) as f64 / PIECE as f64;
        let found = [NEAR, FAR].into_iter().find_map(|(reach, enough)| {
            let (at, like) = self.best(self.tracked - reach..=self.tracked + reach, start, end);
            (like > 1.0 - (1.0 - enough) * strictness).then_some(at)
        });
        if let Some(at) = found {
            self.tracked = at;
            let loudness =
                |level: &[f64], lag: i64| -> f64 { (start..end).map(|i| sample(level, i as i64 + lag)).sum() };
            let loud_enough = loudness(&self.echoed.level, at) > loudness(&self.spoken.level, 0) * FAINTER;
            self.speech += voiced;
            self.good += if loud_enough { voiced } else { 0 };
        } else if end - start > self.smallest {
            let middle = start + (end - start) / 2;
            self.piece(start, middle);
            self.piece(middle, end);
        } else {
            self.speech += voiced;
        }
    }

    fn best(&self, lags: RangeInclusive<i64>, start: usize, end: usize) -> (i64, f64) {
        lags.map(|lag| (lag, likeness(&self.spoken, start, end, &self.echoed, lag)))
            .fold((0, f64::MIN), |best, next| if next.1 > best.1 { next } else { best })
    }
}

fn at_rate(recording: Recording<'_>) -> Vec<i16> {
    let mut out = Vec::new();
    let mut resampler = Resampler::new(recording.rate, RATE);
    resampler.process(recording.samples, &mut out);
    // Pushes out what the filter still holds.
    resampler.process(&vec![0; resampler.delay()], &mut out);
    out
}

/// Level of 10 ms windows, every 5 ms.
struct Envelope {
    /// Root mean square of the whole.
    level: Vec<f64>,
    /// The same in each of the [`BANDS`], on a compressed scale so that soft sounds count too; silence is 0.
    scaled: [Vec<f64>; BANDS.len()],
}

impl Envelope {
    fn of(samples: &[i16]) -> Envelope {
        let plain: Vec<f64> = samples.iter().map(|sample| f64::from(*sample)).collect();
        let bands = BANDS.map(|(centre, q)| levels(&band_pass(&plain, centre, q)));
        let level = levels(&plain);
        let scaled = bands.map(|band| band.iter().map(|level| (1.0 + level / 30.0).ln()).collect());
        Envelope { level, scaled }
    }
}

fn levels(samples: &[f64]) -> Vec<f64> {
    let power: Vec<f64> =
        samples.chunks(STEP).map(|chunk| chunk.iter().map(|s| s * s).sum::<f64>() / chunk.len() as f64).collect();
    let next = power.iter().skip(1).chain(std::iter::once(&0.0));
    power.iter().zip(next).map(|(a, b)| ((a + b) / 2.0).sqrt()).collect()
}

/// A second-order resonance of gain 1 at its centre (Hz).
fn band_pass(samples: &[f64], centre: f64, q: f64) -> Vec<f64> {
    let turn = std::f64::consts::TAU * centre / f64::from(RATE);
    let alpha = turn.sin() / (2.0 * q);
    let (gain, a1, a2) = (alpha / (1.0 + alpha), -2.0 * turn.cos() / (1.0 + alpha), (1.0 - alpha) / (1.0 + alpha));
    let (mut x1, mut x2, mut y1, mut y2) = (0.0, 0.0, 0.0, 0.0);
    samples
        .iter()
        .map(|x| {
            let y = gain * (x - x2) - a1 * y1 - a2 * y2;
            (x2, x1, y2, y1) = (x1, *x, y1, y);
            y
        })
        .collect()
}

fn sample(series: &[f64], at: i64) -> f64 {
    usize::try_from(at).ok().and_then(|at| series.get(at)).copied().unwrap_or_default()
}

/// Correlation of `said` from `start` to `end` with `heard`, which is later by `lag` steps: over all bands
/// together, each about its own mean.
fn likeness(said: &Envelope, start: usize, end: usize, heard: &Envelope, lag: i64) -> f64 {
    let n = (end - start).max(1) as f64;
    let (mut va, mut vb, mut cov) = (0.0, 0.0, 0.0);
    for (said, heard) in said.scaled.iter().zip(&heard.scaled) {
        let (mut a, mut b, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (i, x) in said.iter().enumerate().take(end).skip(start) {
            let y = sample(heard, i as i64 + lag);
            (a, b, aa, bb, ab) = (a + x, b + y, aa + x * x, bb + y * y, ab + x * y);
        }
        va += aa / n - (a / n).powi(2);
        vb += bb / n - (b / n).powi(2);
        cov += ab / n - a / n * b / n;
    }
    if va <= 1e-9 || vb <= 1e-9 { 0.0 } else { cov / (va * vb).sqrt() }
}

/// Refines a lag in envelope steps to a sample, by the waveforms; codecs that keep no waveform leave the coarse one.
fn fine_lag(said: &[i16], heard: &[i16], coarse: i64) -> f64 {
    let around = coarse * STEP as i64;
    let reach = 2 * STEP as i64;
    let mut best = (0.0, around);
    for lag in around - reach..=around + reach {
        let (mut cross, mut power) = (0.0, 1.0);
        for (i, s) in said.iter().enumerate() {
            let at = i as i64 + lag;
            let h = usize::try_from(at).ok().and_then(|at| heard.get(at)).copied().unwrap_or_default();
            cross += f64::from(*s) * f64::from(h);
            power += f64::from(h) * f64::from(h);
        }
        let like = cross / f64::sqrt(power);
        if like > best.0 {
            best = (like, lag);
        }
    }
    best.1 as f64 * 1000.0 / f64::from(RATE)
}

#[cfg(test)]
mod tests;
