//! Sample rate conversion: a polyphase bank of a Kaiser-windowed sinc, linear phase.
//!
//! Any pair of rates from 8 to 48 kHz whose ratio has small terms (8, 16, 24, 32, 44.1, 48 kHz do).
//! Passband flat to 0.1 dB up to 85 % of the smaller Nyquist frequency, stopband below -70 dB; the delay
//! is half the filter, see [`Resampler::delay`]. Streaming: any chunk sizes give the same samples.

/// Taps to each side of the centre, in samples of the lower rate.
const HALF: usize = 24;
/// Kaiser's beta for about 75 dB.
const BETA: f64 = 7.4;
/// -6 dB point relative to the smaller Nyquist frequency.
const CUTOFF: f64 = 0.91;

/// One direction of one stream.
pub struct Resampler {
    /// Output samples for each `down` input samples.
    up: usize,
    down: usize,
    /// `up` filters of `taps` coefficients, one for each position between two input samples.
    bank: Vec<f32>,
    taps: usize,
    /// The input still needed, oldest first.
    history: Vec<f32>,
    /// Position of the next output sample: input index into `history`, and phase.
    at: usize,
    phase: usize,
}

impl Resampler {
    /// From `from` Hz to `to` Hz. Equal rates copy. Rates of 0 count as 1.
    pub fn new(from: u32, to: u32) -> Self {
        let (from, to) = (from.max(1) as usize, to.max(1) as usize);
        let divisor = gcd(from, to);
        let (up, down) = (to / divisor, from / divisor);
        if up == down {
            return Resampler { up, down, bank: Vec::new(), taps: 0, history: Vec::new(), at: 0, phase: 0 };
        }
        // In input samples: when the rate falls, the filter has to be longer by as much.
        let scale = (to as f64 / from as f64).min(1.0);
        let half = (HALF as f64 / scale).ceil() as usize;
        let taps = 2 * half;
        let mut bank = Vec::with_capacity(up * taps);
        for phase in 0..up {
            let shift = phase as f64 / up as f64;
            let filter: Vec<f64> = (0..taps)
                .map(|tap| {
                    // Distance of input sample `tap` from the output sample, in input samples.
                    let x = tap as f64 - (half as f64 - 1.0) - shift;
                    let window = kaiser(x / half as f64);
                    window * sinc(x * scale * CUTOFF)
                })
                .collect();
            let sum: f64 = filter.iter().sum();
            bank.extend(filter.iter().map(|c| (c / sum) as f32));
        }
        // The first output sample falls on the first input sample.
        Resampler { up, down, bank, taps, history: vec![0.0; half - 1], at: 0, phase: 0 }
    }

    /// Takes `input`, appends what it makes possible to `output`.
    pub fn process(&mut self, input: &[i16], output: &mut Vec<i16>) {
        if self.taps == 0 {
            output.extend_from_slice(input);
            return;
        }
        self.history.extend(input.iter().map(|s| f32::from(*s)));
        while let Some(window) = self.history.get(self.at..self.at + self.taps) {
            let filter = &self.bank[self.phase * self.taps..][..self.taps];
            let sum: f32 = window.iter().zip(filter).map(|(s, c)| s * c).sum();
            output.push(sum.round().clamp(-32768.0, 32767.0) as i16);
            self.phase += self.down;
            self.at += self.phase / self.up;
            self.phase %= self.up;
        }
        let done = self.at.min(self.history.len());
        self.history.drain(..done);
        self.at -= done;
    }

    /// How many input samples must follow an instant before its output sample comes out.
    pub fn delay(&self) -> usize {
        self.taps / 2
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) }
}

fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 { 0.0 } else { bessel_i0(BETA * (1.0 - x * x).sqrt()) / bessel_i0(BETA) }
}

/// The modified Bessel function of order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-12 {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|i| (16000.0 * (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin()).round() as i16)
            .collect()
    }

    fn convert(from: u32, to: u32, input: &[i16]) -> Vec<i16> {
        let mut out = Vec::new();
        Resampler::new(from, to).process(input, &mut out);
        out
    }

    /// Signal to error ratio in dB against the ideal, away from the edges.
    fn quality(got: &[i16], ideal: &[i16]) -> f64 {
        let range = 400..got.len().min(ideal.len()) - 400;
        let (mut signal, mut error) = (0.0, 0.0);
        for (a, b) in got[range.clone()].iter().zip(&ideal[range]) {
            signal += f64::from(*b).powi(2);
            error += (f64::from(*a) - f64::from(*b)).powi(2);
        }
        10.0 * (signal / error.max(1.0)).log10()
    }

    #[test]
    fn a_tone_stays_a_tone_at_every_pair_of_rates() {
        for from in [8000, 16000, 24000, 32000, 44100, 48000] {
            for to in [8000, 16000, 24000, 44100, 48000] {
                for share in [0.05, 0.3, 0.8] {
                    let hz = share * f64::from(from.min(to)) / 2.0;
                    let got = convert(from, to, &tone(from, hz, from as usize / 4));
                    let db = quality(&got, &tone(to, hz, to as usize));
                    assert!(db > 55.0, "{from} to {to}, {hz} Hz: {db:.1} dB");
                }
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        for (from, to) in [(48000, 8000), (44100, 16000), (48000, 44100)] {
            let hz = f64::from(to) / 2.0 * 1.03;
            if hz < f64::from(from) / 2.0 {
                let got = convert(from, to, &tone(from, hz, from as usize / 4));
                let worst = got[400..got.len() - 400].iter().map(|s| s.unsigned_abs()).max().unwrap();
                assert!(worst < 30, "{from} to {to}: {worst} of 16000 left");
            }
        }
    }

    #[test]
    fn chunks_do_not_matter_and_nothing_drifts() {
        let input = tone(44100, 1000.0, 44100);
        let whole = convert(44100, 48000, &input);
        let mut resampler = Resampler::new(44100, 48000);
        let mut pieces = Vec::new();
        for chunk in input.chunks(441) {
            resampler.process(chunk, &mut pieces);
        }
        assert_eq!(pieces, whole);
        let missing = 48000 - whole.len();
        assert!(missing <= resampler.delay() * 2, "{missing} samples held back");
        assert_eq!(convert(8000, 8000, &input), input);
    }
}
