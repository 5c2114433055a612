use super::*;

/// ITU-T G.711 tables 5 and 6: one period of the digital milliwatt, 1 kHz at 0 dBm0.
const MILLIWATT_MU: [u8; 8] = [0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e];
const MILLIWATT_A: [u8; 8] = [0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4];

/// Known pairs of both laws, by ITU-T G.711 tables 1 and 2 (value after quantizing, 16-bit scale).
#[test]
fn g711_known_values() {
    for (octet, sample) in [(0x80, 32124), (0x00, -32124), (0xff, 0), (0x7f, 0), (0xfe, 8), (0x8f, 16764), (0xf0, 120)]
    {
        assert_eq!(pcmu::decode(octet), sample, "mu {octet:#x}");
    }
    for (octet, sample) in [(0xaa, 32256), (0x2a, -32256), (0xd5, 8), (0x55, -8), (0xd4, 24), (0x80, 5504)] {
        assert_eq!(pcma::decode(octet), sample, "A {octet:#x}");
    }
    assert_eq!((pcmu::encode(0), pcmu::encode(i16::MAX), pcmu::encode(i16::MIN)), (0xff, 0x80, 0x00));
    assert_eq!((pcma::encode(0), pcma::encode(i16::MAX), pcma::encode(i16::MIN)), (0xd5, 0xaa, 0x2a));
    assert_eq!((pcma::encode(-1), pcmu::encode(-1)), (0x55, 0x7f));
}

#[test]
fn g711_digital_milliwatt() {
    // A sine at 0 dBm0 is 3.17 dB (mu) or 3.14 dB (A) below full scale.
    for (period, decode, full, below) in [
        (MILLIWATT_MU, pcmu::decode as fn(u8) -> i16, 8159.0 * 4.0, 3.172),
        (MILLIWATT_A, pcma::decode as fn(u8) -> i16, 4096.0 * 8.0, 3.139),
    ] {
        let power: f64 = period.iter().map(|o| f64::from(decode(*o)).powi(2)).sum::<f64>() / 8.0;
        let db = 10.0 * (power / (full * full / 2.0)).log10();
        assert!((db + below).abs() < 0.05, "{db:.2} dB");
    }
}

/// Every octet survives a decoding and encoding, every sample is met within half a step, and order is kept.
#[test]
fn g711_exhaustive() {
    for (encode, decode, zero) in [
        (pcmu::encode as fn(i16) -> u8, pcmu::decode as fn(u8) -> i16, Some(0x7f)),
        (pcma::encode as fn(i16) -> u8, pcma::decode as fn(u8) -> i16, None),
    ] {
        for octet in 0..=255 {
            // mu-law has two zeros; the negative one comes back as the positive.
            let expected = if Some(octet) == zero { 0xff } else { octet };
            assert_eq!(encode(decode(octet)), expected);
        }
        let mut before = i16::MIN;
        for sample in i16::MIN..=i16::MAX {
            let coded = decode(encode(sample));
            assert!(coded >= before, "order at {sample}");
            before = coded;
            let error = (i32::from(coded) - i32::from(sample)).abs();
            let magnitude = i32::from(sample).abs();
            let clipped = magnitude > 32124;
            assert!(error <= 8 + magnitude / 30 || clipped && error <= 700, "{sample} became {coded}");
        }
    }
}

#[test]
fn g711_concealment_goes_on_and_fades() {
    for codec in [pcmu::CODEC, pcma::CODEC] {
        let mut encoder = (codec.encoder)().unwrap();
        let mut decoder = (codec.decoder)().unwrap();
        let tone: Vec<i16> =
            (0..800).map(|i| (8000.0 * (std::f64::consts::TAU * 200.0 * f64::from(i) / 8000.0).sin()) as i16).collect();
        let (mut payload, mut pcm) = (Vec::new(), Vec::new());
        encoder.encode(&tone, &mut payload).unwrap();
        decoder.decode(&payload, &mut pcm).unwrap();
        pcm.clear();
        decoder.conceal(160, None, &mut pcm);
        for (i, sample) in pcm[..40].iter().enumerate() {
            let expected = 8000.0 * (std::f64::consts::TAU * 200.0 * (800 + i) as f64 / 8000.0).sin();
            assert!((f64::from(*sample) - expected).abs() < 1200.0, "{i}: {sample} for {expected}");
        }
        for _ in 0..3 {
            decoder.conceal(160, None, &mut pcm);
        }
        assert_eq!(pcm.len(), 640);
        assert!(pcm[480..].iter().all(|sample| *sample == 0), "silent after 60 ms");
        assert_eq!((codec.duration)(&payload[..160]), Some(160));
        assert_eq!((codec.duration)(b""), None);
    }
}

#[test]
fn the_registry() {
    assert_eq!(find("pcmu").map(|codec| codec.static_payload_type), Some(Some(0)));
    assert_eq!(find("PCMA").map(|codec| codec.static_payload_type), Some(Some(8)));
    assert!(find("G729").is_none());
    let has_opus = cfg!(any(feature = "ropus", feature = "libopus", feature = "system-opus"));
    assert_eq!(find("OPUS").is_some(), has_opus);
    let engine = voice_engine();
    if cfg!(feature = "libopus") || cfg!(feature = "system-opus") {
        assert!(engine.starts_with("libopus 1."), "{engine}");
    } else {
        assert_eq!(engine, if has_opus { "ropus 0.12" } else { "none" });
    }
}

#[cfg(any(feature = "ropus", feature = "libopus", feature = "system-opus"))]
mod opus {
    use super::super::opus::{CODEC, duration};
    use super::*;
    use crate::core::Rng;

    fn voice(samples: usize, rate: f64) -> Vec<i16> {
        (0..samples)
            .map(|i| {
                let t = i as f64 / rate;
                let pitch = std::f64::consts::TAU * 140.0 * t;
                let swell = (std::f64::consts::TAU * 3.0 * t).sin().abs();
                let buzz: f64 = (1..12).map(|k| (pitch * f64::from(k)).sin() / f64::from(k)).sum();
                (buzz * swell * 6000.0) as i16
            })
            .collect()
    }

    fn packets(pcm: &[i16], loss: u8) -> Vec<Vec<u8>> {
        let mut encoder = (CODEC.encoder)().unwrap();
        encoder.set_expected_loss(loss);
        pcm.chunks_exact(960)
            .map(|frame| {
                let mut payload = Vec::new();
                encoder.encode(frame, &mut payload).unwrap();
                payload
            })
            .collect()
    }

    /// Energy of 20 ms frames, in dB.
    fn levels(pcm: &[i16]) -> Vec<f64> {
        pcm.chunks_exact(960)
            .map(|frame| 10.0 * (1.0 + frame.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 960.0).log10())
            .collect()
    }

    #[test]
    fn speech_comes_through() {
        let pcm = voice(48_000, 48_000.0);
        let mut decoder = (CODEC.decoder)().unwrap();
        let mut out = Vec::new();
        let packets = packets(&pcm, 0);
        for packet in &packets {
            assert_eq!(duration(packet), Some(960));
            decoder.decode(packet, &mut out).unwrap();
        }
        assert_eq!(out.len(), 48_000);
        let octets: usize = packets.iter().map(Vec::len).sum();
        assert!((2000..8000).contains(&octets), "{octets} bytes for a second at 32 kbit/s");
        // The encoder looks 6.5 ms ahead.
        let (before, after) = (levels(&pcm), levels(&out[312..]));
        let worst = before.iter().zip(&after).skip(5).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 6.0, "levels differ by {worst:.1} dB");
    }

    #[test]
    fn what_is_lost_is_concealed_and_the_copy_in_the_next_packet_helps() {
        let pcm = voice(96_000, 48_000.0);
        let packets = packets(&pcm, 30);
        let mut whole = Vec::new();
        let mut decoder = (CODEC.decoder)().unwrap();
        packets.iter().for_each(|packet| decoder.decode(packet, &mut whole).unwrap());
        let run = |redundancy: bool| {
            let mut decoder = (CODEC.decoder)().unwrap();
            let mut out = Vec::new();
            for (i, packet) in packets.iter().enumerate() {
                if i % 5 == 4 {
                    let next = packets.get(i + 1).filter(|_| redundancy).map(Vec::as_slice);
                    decoder.conceal(960, next, &mut out);
                } else {
                    decoder.decode(packet, &mut out).unwrap();
                }
            }
            assert_eq!(out.len(), whole.len());
            out.iter().zip(&whole).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
        };
        let (plain, redundant) = (run(false), run(true));
        assert!(redundant < plain * 0.8, "error {redundant:.0} with the copy, {plain:.0} without");
    }

    #[test]
    fn odd_lengths_are_concealed_exactly() {
        let mut decoder = (CODEC.decoder)().unwrap();
        for samples in [1, 119, 960, 961, 5760, 12_345] {
            let mut out = Vec::new();
            decoder.conceal(samples, None, &mut out);
            assert_eq!(out.len(), samples);
        }
    }

    /// RFC 6716 section 3.1, tables 2 and 3.
    #[test]
    fn durations_from_the_first_bytes() {
        for (packet, expected) in [
            (&[0x00u8][..], Some(480)),
            (&[0x18], Some(2880)),
            (&[0x68], Some(960)),
            (&[0x80], Some(120)),
            (&[0xf9, 1], Some(1920)),
            (&[0xfb, 6], Some(5760)),
            (&[0xfb, 7], None),
            (&[0xfb, 0], None),
            (&[0xfb], None),
            (&[], None),
        ] {
            assert_eq!(duration(packet), expected, "{packet:x?}");
        }
    }

    #[cfg(feature = "ropus")]
    #[test]
    fn stereo_is_mixed_down() {
        let mut encoder = ::ropus::Encoder::builder(48_000, ::ropus::Channels::Stereo, ::ropus::Application::Audio)
            .bitrate(::ropus::Bitrate::Bits(96_000))
            .force_channels(::ropus::ForceChannels::Stereo)
            .build()
            .unwrap();
        let mut decoder = (CODEC.decoder)().unwrap();
        let (mut out, mut left) = (Vec::new(), Vec::new());
        for frame in 0..50 {
            let tone = (0..960).map(|i| (f64::from(frame * 960 + i) * 0.06).sin() * 10_000.0);
            left.extend(tone.clone().map(|sample| sample as i16));
            let pcm: Vec<i16> = tone.flat_map(|sample| [sample as i16, 0]).collect();
            let mut packet = [0; 1275];
            let length = encoder.encode(&pcm, &mut packet).unwrap();
            assert!(packet[0] & 4 != 0, "a stereo packet");
            decoder.decode(&packet[..length], &mut out).unwrap();
        }
        assert_eq!(out.len(), 48_000, "one channel comes out");
        // Half of the left channel and half of the silent right one: 6 dB less.
        let (left, mixed) = (levels(&left)[25], levels(&out)[25]);
        assert!((left - mixed - 6.0).abs() < 1.0, "{left:.1} dB became {mixed:.1} dB");
    }

    #[test]
    fn wrong_lengths_and_malformed_payloads_are_errors() {
        let mut encoder = (CODEC.encoder)().unwrap();
        let failed = encoder.encode(&[0; 100], &mut Vec::new());
        assert_eq!(failed, Err(CodecError::FrameLength { codec: "opus", samples: 100 }));
        let mut decoder = (CODEC.decoder)().unwrap();
        assert!(decoder.decode(b"", &mut Vec::new()).is_err());
        assert!(decoder.decode(&[0xfb, 0x3f, 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn no_mutation_panics_or_overflows() {
        let mut rng = Rng::from_seed(5);
        let packets = packets(&voice(48_000, 48_000.0), 20);
        let mut decoder = (CODEC.decoder)().unwrap();
        let mut out = Vec::new();
        for round in 0..4000 {
            let mut packet = packets[round % packets.len()].clone();
            for _ in 0..=rng.below(6) {
                let at = rng.below(packet.len() as u64) as usize;
                packet[at] = rng.next_u32() as u8;
            }
            packet.truncate(1 + rng.below(packet.len() as u64) as usize);
            out.clear();
            let decoded = decoder.decode(&packet, &mut out);
            assert!(out.len() <= 5760);
            if decoded.is_ok() {
                assert_eq!(Some(out.len() as u32), duration(&packet), "{:x?}", &packet[..2.min(packet.len())]);
            }
            decoder.conceal(960, Some(&packet), &mut out);
        }
    }
}
