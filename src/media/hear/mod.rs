//! How much of what was said was heard: two recordings compared.
//!
//! Codecs change waveforms freely but keep the rise and fall of speech, so the comparison is of
//! envelopes: the energy in bands of 10 ms frames, on a logarithmic scale. The lag is the shift at which the envelopes
//! correlate best; a stretch of speech counts as heard if, at that lag, its own envelope correlates
//! well and is about as loud. This says whether speech came through, where, and with what delay; it is no measure of
//! beauty (PESQ and its like are).

use super::resample::Resampler;

/// Both recordings are brought to this rate.
const RATE: u32 = 8000;
/// Envelope step: 5 ms.
const STEP: usize = RATE as usize / 200;
/// Speech is judged in pieces of 200 ms.
const PIECE: usize = 40;
const LIKE: f64 = 0.6;
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
    let (spoken, echoed) = (envelope(&said), envelope(&heard));
    let loudest = spoken.iter().copied().fold(0.0, f64::max);
    if loudest < 10.0 || echoed.is_empty() {
        return Heard::default();
    }
    let widest = i64::from(max_lag_ms) / 5;
    let (lag, correlation) = (-widest..=widest)
        .map(|lag| (lag, likeness(&spoken, 0, spoken.len(), &echoed, lag)))
        .fold((0, f64::MIN), |best, next| if next.1 > best.1 { next } else { best });
    let (mut speech, mut good) = (0, 0);
    for start in (0..spoken.len()).step_by(PIECE) {
        let end = (start + PIECE).min(spoken.len());
        let voiced = spoken[start..end].iter().filter(|level| **level > loudest * SPEECH).count();
        if voiced < PIECE / 4 {
            continue;
        }
        speech += voiced;
        // A piece may have been moved a little by the jitter buffer.
        let local = (lag - 12..=lag + 12).map(|lag| (likeness(&spoken, start, end, &echoed, lag), lag));
        let (like, at) = local.fold((f64::MIN, lag), |best, next| if next.0 > best.0 { next } else { best });
        let level = |envelope: &[f64], shift: i64| -> f64 {
            (start..end).map(|i| sample(envelope, i as i64 + shift)).sum::<f64>()
        };
        if like > LIKE && level(&echoed, at) > level(&spoken, 0) * FAINTER {
            good += voiced;
        }
    }
    Heard {
        share: if speech == 0 { 0.0 } else { good as f64 / speech as f64 },
        lag_ms: fine_lag(&said, &heard, lag),
        correlation,
        speech_ms: speech as u64 * 5,
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

/// Root mean square of 10 ms windows, every 5 ms.
fn envelope(samples: &[i16]) -> Vec<f64> {
    let steps: Vec<f64> = samples
        .chunks(STEP)
        .map(|chunk| chunk.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / chunk.len() as f64)
        .collect();
    (0..steps.len()).map(|i| ((steps[i] + steps.get(i + 1).copied().unwrap_or_default()) / 2.0).sqrt()).collect()
}

fn sample(envelope: &[f64], at: i64) -> f64 {
    usize::try_from(at).ok().and_then(|at| envelope.get(at)).copied().unwrap_or_default()
}

/// Correlation of `said[start..end]` with `heard` shifted by `lag`, on a compressed scale so that soft sounds count too.
fn likeness(said: &[f64], start: usize, end: usize, heard: &[f64], lag: i64) -> f64 {
    let scale = |level: f64| (1.0 + level / 30.0).ln();
    let n = (end - start).max(1) as f64;
    let (mut a, mut b, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (i, level) in said.iter().enumerate().take(end).skip(start) {
        let (x, y) = (scale(*level), scale(sample(heard, i as i64 + lag)));
        (a, b, aa, bb, ab) = (a + x, b + y, aa + x * x, bb + y * y, ab + x * y);
    }
    let (va, vb) = (aa / n - (a / n).powi(2), bb / n - (b / n).powi(2));
    if va <= 1e-9 || vb <= 1e-9 { 0.0 } else { (ab / n - a / n * b / n) / (va * vb).sqrt() }
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
