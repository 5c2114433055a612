//! How much of the sent speech was heard, and how late: from the two recordings and from the moments
//! on the machine's monotonic clock that both ends logged for the first samples of their recordings.

use super::report::Hearing;
use crate::app::Failure;
use crate::io::audio::Source;
use crate::io::audio::wav::WavReader;
use crate::media::hear::{Recording, compare};
use std::path::Path;

/// Samples and rate of a sound file.
#[derive(Debug, Clone)]
pub struct Sound {
    samples: Vec<i16>,
    rate: u32,
}

impl Sound {
    /// Reads a WAV file.
    ///
    /// # Errors
    /// It cannot be read or is no WAV file.
    pub fn read(path: &Path) -> Result<Sound, Failure> {
        let fault = |e| Failure::said(format!("cannot read the recording {e}"), "see the logs");
        let mut reader = WavReader::open(path).map_err(fault)?;
        let rate = reader.rate();
        Ok(Sound { samples: reader.read_all().map_err(fault)?, rate })
    }

    /// Seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate.max(1))
    }

    fn recording(&self) -> Recording<'_> {
        Recording { samples: &self.samples, rate: self.rate }
    }
}

/// What of `sent`, whose first sample was played at `source`, stands in `recorded`, whose first sample
/// was recorded at `sink`; both in microseconds of the monotonic clock.
pub fn hearing(sent: &Sound, source: Option<u64>, recorded: &Sound, sink: Option<u64>) -> Hearing {
    let heard = compare(sent.recording(), recorded.recording(), MOST_LAG_MS);
    let between = source.zip(sink).map(|(source, sink)| (sink as f64 - source as f64) / 1000.0);
    let delay_ms = between.filter(|_| heard.share > 0.0).map(|between| between + heard.lag_ms);
    Hearing { share: heard.share, delay_ms }
}

/// The moment, microseconds of the monotonic clock, that the latest line of `log` with `what` in it gives.
pub fn second_zero(log: &str, what: &str) -> Option<u64> {
    let line = log.lines().rev().find(|l| l.contains(what))?;
    let (_, rest) = line.split_once("monotonic_us=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the log calls the first sample played.
pub const SOURCE: &str = "second 0 of the audio source";
/// And the first sample recorded.
pub const SINK: &str = "second 0 of the audio sink";
const MOST_LAG_MS: u32 = 3000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_second_zero_counts() {
        let log = "INFO x: second 0 of the audio source call=1 monotonic_us=1000\n\
                   INFO x: second 0 of the audio sink call=1 monotonic_us=2000\n\
                   INFO x: second 0 of the audio source call=2 monotonic_us=3000 more\n";
        assert_eq!((second_zero(log, SOURCE), second_zero(log, SINK)), (Some(3000), Some(2000)));
        assert_eq!(second_zero("", SINK), None);
    }

    #[test]
    fn delay_is_the_lag_and_the_distance_of_the_two_beginnings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/speech.wav");
        let sent = Sound::read(Path::new(path)).unwrap();
        // The recorder began 100 ms late and the speech stands 40 ms into what it has: 140 ms.
        let late = usize::try_from(sent.rate / 25).unwrap();
        let mut samples = vec![0; late];
        samples.extend_from_slice(&sent.samples);
        let recorded = Sound { samples, rate: sent.rate };
        let h = hearing(&sent, Some(5_000_000), &recorded, Some(5_100_000));
        assert!(h.share > 0.99, "{h:?}");
        assert!((h.delay_ms.unwrap() - 140.0).abs() < 2.0, "{h:?}");
        // Half of it is silence.
        let half = recorded.samples.len() / 2;
        let mut torn = recorded.clone();
        torn.samples[half..].fill(0);
        let h = hearing(&sent, None, &torn, None);
        assert!(h.share > 0.2 && h.share < 0.8 && h.delay_ms.is_none(), "{h:?}");
        let silence = Sound { samples: vec![0; 1000], rate: 8000 };
        assert_eq!(hearing(&sent, Some(0), &silence, Some(0)), Hearing::default());
    }
}
