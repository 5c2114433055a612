//! Is what was said what was heard? Loudness envelopes of two recordings, compared.

use std::fs;
use std::path::Path;

/// Mono samples.
pub struct Sound {
    /// Samples a second.
    pub rate: u32,
    /// 16-bit samples; of several channels, the first.
    pub samples: Vec<i16>,
}

impl Sound {
    /// Reads a WAV file of 16-bit PCM.
    pub fn read(path: &Path) -> Result<Sound, String> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if bytes.len() < 12 || &bytes[..4] != b"RIFF" || &bytes[8..12] != b"WAVE" {
            return Err(format!("{}: not a WAV file yet", path.display()));
        }
        let u16_at = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        let u32_at = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (mut at, mut channels, mut rate) = (12, 1, 0);
        while at + 8 <= bytes.len() {
            // A recording that was cut short has no true length in its header: take what is there.
            let length = (u32_at(at + 4) as usize).min(bytes.len() - at - 8);
            match &bytes[at..at + 4] {
                b"fmt " => {
                    assert_eq!(u16_at(at + 22), 16, "{}: bits a sample", path.display());
                    (channels, rate) = (u16_at(at + 10).max(1) as usize, u32_at(at + 12));
                }
                b"data" if rate > 0 => {
                    let data = &bytes[at + 8..at + 8 + length];
                    let samples = data.chunks_exact(2 * channels).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
                    return Ok(Sound { rate, samples });
                }
                _ => {}
            }
            at += 8 + length + length % 2;
        }
        Err(format!("{}: no samples", path.display()))
    }

    /// Writes a WAV file with every channel the same.
    pub fn write(&self, path: &Path, channels: u16) {
        let data = self.samples.len() as u32 * 2 * u32::from(channels);
        let mut bytes = Vec::with_capacity(44 + data as usize);
        bytes.extend(b"RIFF");
        bytes.extend((36 + data).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16u32.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(self.rate.to_le_bytes());
        bytes.extend((self.rate * 2 * u32::from(channels)).to_le_bytes());
        bytes.extend((2 * channels).to_le_bytes());
        bytes.extend(16u16.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        for sample in &self.samples {
            (0..channels).for_each(|_| bytes.extend(sample.to_le_bytes()));
        }
        fs::write(path, bytes).unwrap();
    }

    /// The same at another rate, by straight lines between the samples.
    pub fn at_rate(&self, rate: u32) -> Sound {
        let length = self.samples.len() as u64 * u64::from(rate) / u64::from(self.rate);
        let sample = |n: u64| {
            let at = n as f64 * f64::from(self.rate) / f64::from(rate);
            let (left, part) = (at as usize, at.fract());
            let value = |i: usize| f64::from(*self.samples.get(i).unwrap_or(&0));
            (value(left) * (1.0 - part) + value(left + 1) * part) as i16
        };
        Sound { rate, samples: (0..length).map(sample).collect() }
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// Root of the mean square of each 10 ms.
    fn envelope(&self) -> Vec<f64> {
        let block = (self.rate / 100).max(1) as usize;
        let rms = |s: &[i16]| (s.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / s.len() as f64).sqrt();
        self.samples.chunks_exact(block).map(rms).collect()
    }
}

/// Best correlation of the envelopes over shifts of up to 3 s either way, with at least 2 s of overlap. Speech that came
/// through a codec gives more than 0.9, other sounds less than 0.5.
pub fn likeness(sent: &Sound, heard: &Sound) -> f64 {
    const OVERLAP: usize = 200;
    let (sent, heard) = (sent.envelope(), heard.envelope());
    let mut best: f64 = 0.0;
    for shift in 0..=300 {
        for (a, b) in [(&sent[shift.min(sent.len())..], &heard[..]), (&sent[..], &heard[shift.min(heard.len())..])] {
            let n = a.len().min(b.len());
            if n >= OVERLAP {
                best = best.max(correlation(&a[..n], &b[..n]));
            }
        }
    }
    best
}

/// Fails unless `heard` holds what `sent` said.
#[track_caller]
pub fn assert_heard(who: &str, sent: &Sound, heard: &Sound) {
    let likeness = likeness(sent, heard);
    let peak = heard.samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
    let seconds = heard.seconds();
    assert!(likeness > 0.85, "{who} heard {seconds:.1} s, peak {peak}, likeness to what was said {likeness:.2}");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let spread = |x: &[f64], mean: f64| x.iter().map(|v| (v - mean).powi(2)).sum::<f64>().sqrt();
    let (spread_a, spread_b) = (spread(a, mean_a), spread(b, mean_b));
    if spread_a == 0.0 || spread_b == 0.0 {
        return 0.0;
    }
    a.iter().zip(b).map(|(x, y)| (x - mean_a) * (y - mean_b)).sum::<f64>() / (spread_a * spread_b)
}

#[test]
fn speech_is_told_from_other_sounds() {
    let speech = crate::phones::speech();
    let quieter: Vec<i16> = [0; 1600].into_iter().chain(speech.samples.iter().map(|s| s / 3)).collect();
    let later = Sound { rate: speech.rate, samples: quieter }.at_rate(48_000);
    assert!(likeness(&speech, &later) > 0.95);
    let mut backwards = Sound { rate: speech.rate, samples: speech.samples.clone() };
    backwards.samples.reverse();
    assert!(likeness(&speech, &backwards) < 0.7, "{}", likeness(&speech, &backwards));
    let silence = Sound { rate: 8000, samples: vec![0; 40_000] };
    assert_eq!(likeness(&speech, &silence), 0.0);
}
