use super::*;
use crate::core::Rng;

/// Syllables of 120 to 300 ms with two formants each and pauses between them.
fn speech(seed: u64, rate: u32, seconds: usize) -> Vec<i16> {
    let mut rng = Rng::from_seed(seed);
    let mut out = Vec::new();
    while out.len() < rate as usize * seconds {
        let length = (rate as u64 * (120 + rng.below(180)) / 1000) as usize;
        let loud = 3000.0 + rng.unit() * 7000.0;
        let (pitch, low, high) = (90.0 + rng.unit() * 120.0, 250.0 + rng.unit() * 600.0, 900.0 + rng.unit() * 1800.0);
        for i in 0..length {
            let swell = (std::f64::consts::PI * i as f64 / length as f64).sin();
            let wave = |hz: f64| (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin();
            let voice = (0.6 + 0.4 * wave(pitch)) * (wave(low) + 0.5 * wave(high));
            out.push((loud * swell * voice) as i16);
        }
        let pause = rate as u64 * (20 + rng.below(200)) / 1000;
        out.extend(std::iter::repeat_n(0, pause as usize));
    }
    out.truncate(rate as usize * seconds);
    out
}

fn later(samples: &[i16], by: usize) -> Vec<i16> {
    std::iter::repeat_n(0, by).chain(samples.iter().copied()).collect()
}

fn at(samples: &[i16], rate: u32) -> Recording<'_> {
    Recording { samples, rate }
}

#[test]
fn the_same_speech_later_is_heard_whole() {
    let said = speech(1, 16_000, 5);
    for ms in [0, 48, 750] {
        let got = later(&said, 16 * ms);
        let heard = compare(at(&said, 16_000), at(&got, 16_000), 2000);
        assert!((heard.lag_ms - ms as f64).abs() < 0.3, "{heard:?} for {ms} ms");
        assert!(heard.share > 0.99 && heard.correlation > 0.98 && heard.speech_ms > 2500, "{heard:?}");
    }
    let cut = &said[1600..];
    let heard = compare(at(&said, 16_000), at(cut, 16_000), 2000);
    assert!((heard.lag_ms + 100.0).abs() < 0.3, "{heard:?}");
}

#[test]
fn rates_and_levels_may_differ() {
    let said = speech(2, 16_000, 4);
    let mut got = Vec::new();
    Resampler::new(16_000, 48_000).process(&later(&said, 800), &mut got);
    got.iter_mut().for_each(|sample| *sample /= 2);
    let heard = compare(at(&said, 16_000), at(&got, 48_000), 1000);
    assert!(heard.share > 0.98 && (heard.lag_ms - 50.0).abs() < 0.5, "{heard:?}");
}

#[test]
fn half_of_it_is_half_of_it() {
    let said = speech(3, 8_000, 8);
    let mut got = later(&said, 400);
    got[32_000..].fill(0);
    let heard = compare(at(&said, 8_000), at(&got, 8_000), 1000);
    assert!((0.35..0.6).contains(&heard.share), "{heard:?}");
}

/// A jitter buffer that grows by 80 ms in the middle of speech and later comes back costs little.
#[test]
fn a_delay_that_changes_is_followed() {
    let said = speech(6, 8_000, 6);
    let mut got = later(&said, 400);
    let gap = got[16_000 - 640..16_000].to_vec();
    got.splice(16_000..16_000, gap);
    got.drain(33_000..33_640);
    let heard = compare(at(&said, 8_000), at(&got, 8_000), 1000);
    assert!(heard.share > 0.85, "{heard:?}");
}

#[test]
fn something_else_is_not_it() {
    let said = speech(4, 8_000, 6);
    let other = compare(at(&said, 8_000), at(&speech(5, 8_000, 6), 8_000), 500);
    assert!(other.share < 0.3 && other.correlation < 0.5, "{other:?}");
    let silence = compare(at(&said, 8_000), at(&[0; 48_000], 8_000), 500);
    assert_eq!(silence.share, 0.0);
    let tone: Vec<i16> = (0..48_000).map(|i| ((f64::from(i) / 4.0).sin() * 8000.0) as i16).collect();
    let hum = compare(at(&said, 8_000), at(&tone, 8_000), 500);
    assert!(hum.share < 0.1, "{hum:?}");
    assert_eq!(compare(at(&[], 8_000), at(&said, 8_000), 500), Heard::default());
    assert_eq!(compare(at(&said, 8_000), at(&[], 8_000), 500).share, 0.0);
}
