//! Between two clocks: that of a sound device and the engine's 20 ms.
//!
//! A bounded ring of samples. What it holds after each taking swings with the sizes of the pieces and with late threads;
//! the least of it over a quarter of a second is the true reserve. That is held at a target by reading up to 0.5 % faster
//! or slower (four-point Hermite interpolation), which nobody hears; so a drift of the clocks lets neither the delay
//! nor the gaps grow. When the ring runs dry, silence is given until the reserve is there again, and the target rises; it sinks
//! slowly while all goes well. What piles up after a stall is cut away at once.

use std::collections::VecDeque;

/// The least and the most of the reserve, milliseconds. The least is a piece and a little: one that used to come just before a frame may
/// come just after it.
const RESERVE_MS: (usize, usize) = (11, 40);
/// How much the reserve grows with each gap.
const GROWTH_MS: usize = 5;
/// The reserve may be larger by this before anything is done, milliseconds.
const SLACK_MS: usize = 4;
/// More than this above the target is cut away, milliseconds.
const EXCESS_MS: usize = 60;
/// More is never held, milliseconds.
const CAPACITY_MS: usize = 240;
/// Largest change of speed.
const BEND: f64 = 0.005;
/// A fault of the reserve is to be gone after this many seconds.
const MEND_S: f64 = 4.0;
/// So many seconds without a gap, and the target sinks by 1 ms.
const CALM_S: u32 = 30;
/// How often in a second the reserve is looked at.
const WINDOWS: u32 = 4;
/// Samples that interpolation needs about a position: one before, two after.
const TAPS: usize = 3;

/// See the module.
pub(super) struct Elastic {
    /// Samples in a millisecond, times 1000.
    rate: usize,
    ring: VecDeque<i16>,
    /// Position of the next sample to give, behind the second of the ring: 0 to 1.
    phase: f64,
    /// How far a sample given is from the next.
    step: f64,
    target: usize,
    /// Silence until the reserve is there.
    filling: bool,
    /// Least left over since `window` began, and how much was given since.
    least: usize,
    window: usize,
    calm: u32,
    /// Times that the ring ran dry.
    pub(super) gaps: u64,
    /// Times that a pile was cut away.
    pub(super) cuts: u64,
}

impl Elastic {
    pub(super) fn new(rate: u32) -> Elastic {
        let rate = rate.max(8000) as usize;
        Elastic {
            rate,
            ring: VecDeque::with_capacity(rate * CAPACITY_MS / 1000),
            phase: 0.0,
            step: 1.0,
            target: rate * RESERVE_MS.0 / 1000,
            filling: true,
            least: usize::MAX,
            window: 0,
            calm: 0,
            gaps: 0,
            cuts: 0,
        }
    }

    /// Takes what came.
    pub(super) fn push(&mut self, pcm: impl Iterator<Item = i16>) {
        self.ring.extend(pcm);
        let surplus = self.ring.len().saturating_sub(self.ms(CAPACITY_MS));
        if surplus > 0 {
            self.ring.drain(..surplus);
            // While nobody takes anything yet, the oldest is of no use to anybody.
            self.cuts += u64::from(!self.filling);
        }
    }

    /// Fills `out`, with silence where nothing is.
    pub(super) fn pull(&mut self, out: &mut [i16]) {
        let need = (self.phase + self.step * out.len() as f64).ceil() as usize + TAPS;
        if self.filling {
            if self.ring.len() < need + self.target {
                return out.fill(0);
            }
            let surplus = self.ring.len() - need - self.target;
            self.ring.drain(..surplus);
            (self.filling, self.phase, self.step) = (false, 0.0, 1.0);
            (self.least, self.window) = (usize::MAX, 0);
        }
        if self.ring.len() < need {
            self.gap(out);
            return;
        }
        for sample in out.iter_mut() {
            let at = self.phase as usize;
            *sample = self.between(at, self.phase - at as f64);
            self.phase += self.step;
        }
        let whole = self.phase as usize;
        self.ring.drain(..whole.min(self.ring.len()));
        self.phase -= whole as f64;
        self.least = self.least.min(self.ring.len().saturating_sub(TAPS));
        self.window += out.len();
        if self.window >= self.rate / WINDOWS as usize {
            self.steer();
        }
    }

    /// Forgets what it holds; the device has gone.
    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.filling = true;
    }

    fn gap(&mut self, out: &mut [i16]) {
        tracing::debug!(wanted = out.len(), held = self.ring.len(), target = self.target, "a sound device ran dry");
        let left = self.ring.len().min(out.len());
        for (sample, held) in out.iter_mut().zip(self.ring.drain(..left)) {
            *sample = held;
        }
        out[left..].fill(0);
        self.filling = true;
        self.gaps += 1;
        self.calm = 0;
        self.target = (self.target + self.ms(GROWTH_MS)).min(self.ms(RESERVE_MS.1));
    }

    /// At the end of each window: faster, slower or just right.
    fn steer(&mut self) {
        let fault = self.least as f64 - self.target as f64;
        if fault > self.ms(EXCESS_MS) as f64 {
            tracing::debug!(samples = fault, "a pile of sound is cut away");
            self.ring.drain(..(fault as usize).min(self.ring.len()));
            self.cuts += 1;
            self.step = 1.0;
        } else if (0.0..=self.ms(SLACK_MS) as f64).contains(&fault) {
            self.step = 1.0;
        } else {
            self.step = 1.0 + (fault / (MEND_S * self.rate as f64)).clamp(-BEND, BEND);
        }
        (self.least, self.window) = (usize::MAX, 0);
        self.calm += 1;
        if self.calm >= CALM_S * WINDOWS {
            self.calm = 0;
            self.target = self.target.saturating_sub(self.ms(1)).max(self.ms(RESERVE_MS.0));
        }
    }

    /// The value at a place between the samples `at + 1` and `at + 2`.
    fn between(&self, at: usize, part: f64) -> i16 {
        let sample = |n: usize| self.ring.get(at + n).map_or(0.0, |s| f64::from(*s));
        if part == 0.0 {
            return self.ring.get(at + 1).copied().unwrap_or_default();
        }
        let (a, b, c, d) = (sample(0), sample(1), sample(2), sample(3));
        let slope = (c - a) / 2.0;
        let bend = a - 2.5 * b + 2.0 * c - d / 2.0;
        let twist = (d - a) / 2.0 + 1.5 * (b - c);
        (((twist * part + bend) * part + slope) * part + b).round().clamp(-32768.0, 32767.0) as i16
    }

    fn ms(&self, ms: usize) -> usize {
        self.rate * ms / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 48_000;

    /// An hour of a device whose clock is off: pieces of 10 ms come, frames of 20 ms go, each with some lateness.
    /// Gaps, cuts and the most that was held (ms) after the first minute.
    fn hour(off: f64) -> (u64, u64, f64) {
        let mut elastic = Elastic::new(RATE as u32);
        let (mut come, mut most, mut seed) = (0.0, 0, 1u32);
        let mut out = [0; RATE / 50];
        let mut base = (0, 0);
        for frame in 0..180_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let late = f64::from(seed >> 16) / 65_536.0 * 0.004;
            let now = f64::from(frame) * 0.02 + late;
            while come <= now {
                elastic.push(std::iter::repeat_n(100, RATE / 100));
                come += 0.01 * (1.0 + off);
            }
            elastic.pull(&mut out);
            if frame == 3000 {
                base = (elastic.gaps, elastic.cuts);
            }
            if frame > 3000 {
                most = most.max(elastic.ring.len());
            }
        }
        (elastic.gaps - base.0, elastic.cuts - base.1, most as f64 / 48.0)
    }

    #[test]
    fn an_hour_of_drift_brings_neither_gaps_nor_delay() {
        for off in [-0.001, -0.0001, 0.0, 0.0001, 0.001] {
            let (gaps, cuts, most) = hour(off);
            assert_eq!((gaps, cuts), (0, 0), "a clock off by {off}");
            assert!(most < 30.0, "{most} ms were held with a clock off by {off}");
        }
    }

    #[test]
    fn what_stalled_is_cut_and_a_dry_ring_refills() {
        let mut elastic = Elastic::new(48_000);
        let mut out = [0; 960];
        elastic.pull(&mut out);
        assert_eq!((elastic.gaps, out), (0, [0; 960]), "nothing has come yet: that is no gap");
        elastic.push(std::iter::repeat_n(7, 4800));
        elastic.pull(&mut out);
        assert_eq!(out, [7; 960]);
        assert!(elastic.ring.len() < 48 * 13, "what lay there before the beginning is left out");
        elastic.pull(&mut out);
        assert_eq!((elastic.gaps, out[0], out[959]), (1, 7, 0), "it ran dry");
        elastic.push(std::iter::repeat_n(7, 1000));
        elastic.pull(&mut out);
        assert_eq!(out, [0; 960], "20 ms without the reserve is not enough");
        elastic.push(std::iter::repeat_n(7, 100_000));
        assert!(elastic.ring.len() <= 48 * CAPACITY_MS);
        elastic.pull(&mut out);
        assert_eq!(out, [7; 960]);
    }

    #[test]
    fn a_tone_read_a_little_faster_stays_a_tone() {
        let mut elastic = Elastic::new(48_000);
        let wave = |t: f64| 10_000.0 * (t * std::f64::consts::TAU * 1000.0 / 48_000.0).sin();
        elastic.push((0..4800).map(|n| wave(f64::from(n)) as i16));
        elastic.filling = false;
        elastic.step = 1.004;
        let mut out = [0; 960];
        elastic.pull(&mut out);
        for (n, sample) in out.iter().enumerate() {
            let ideal = wave(1.0 + n as f64 * 1.004);
            assert!((f64::from(*sample) - ideal).abs() < 20.0, "sample {n}: {sample} for {ideal}");
        }
    }
}
