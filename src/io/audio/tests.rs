use super::wav::{WavReader, WavWriter};
use super::*;
use std::fs;

/// A WAV file in memory: format tag, channels, rate, bits, samples; `extra` goes between format and samples.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, extra: &[u8], samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    out.extend(tag.to_le_bytes());
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend((rate * u32::from(channels) * 2).to_le_bytes());
    out.extend((channels * 2).to_le_bytes());
    out.extend(bits.to_le_bytes());
    out.extend(extra);
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn open(bytes: &[u8]) -> Result<WavReader, AudioError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    fs::write(&path, bytes).unwrap();
    WavReader::open(&path)
}

#[test]
fn mono_and_stereo_are_read_and_other_chunks_skipped() {
    let mut mono = open(&wav(1, 1, 8000, 16, b"LIST\x03\0\0\0abc\0", &[1, -2, 300])).unwrap();
    assert_eq!((mono.rate(), mono.read_all().unwrap()), (8000, vec![1, -2, 300]));
    let mut stereo = open(&wav(1, 2, 44_100, 16, b"", &[10, 20, -30_000, -30_000, 32_767, 32_767])).unwrap();
    let mut out = [9; 5];
    assert_eq!((stereo.rate(), stereo.read(&mut out).unwrap()), (44_100, false));
    assert_eq!(out, [15, -30_000, 32_767, 0, 0], "the rest is silence");
}

#[test]
fn a_recording_that_was_cut_off_plays_as_far_as_it_goes() {
    let mut bytes = wav(1, 1, 16_000, 16, b"", &[5; 100]);
    bytes.truncate(bytes.len() - 51);
    assert_eq!(open(&bytes).unwrap().read_all().unwrap(), [5; 74]);
    let mut bytes = wav(1, 1, 16_000, 16, b"", &[5; 10]);
    bytes[40..44].fill(0);
    assert_eq!(open(&bytes).unwrap().read_all().unwrap(), [5; 10], "a writer that never came back to its header");
}

#[test]
fn each_fault_is_named_with_the_file() {
    for (bytes, fault) in [
        (wav(1, 3, 8000, 16, b"", &[1]), "3 channels"),
        (wav(1, 1, 96_000, 16, b"", &[1]), "96000 Hz"),
        (wav(1, 1, 4000, 16, b"", &[1]), "4000 Hz"),
        (wav(7, 1, 8000, 8, b"", &[1]), "format 7 with 8 bits"),
        (wav(3, 1, 8000, 32, b"", &[1]), "format 3 with 32 bits"),
        (wav(1, 1, 8000, 16, b"", &[]), "no samples"),
        (wav(1, 1, 8000, 16, b"", &[1])[..36].to_vec(), "ends before its first sample"),
        (wav(1, 1, 8000, 16, b"", &[1])[..30].to_vec(), "format header is broken"),
        (b"OggS and so on, long enough".to_vec(), "not a WAV file"),
        (b"".to_vec(), "not a WAV file"),
    ] {
        let message = open(&bytes).err().unwrap().to_string();
        assert!(message.contains(fault) && message.contains("a.wav"), "{message}");
    }
    let missing = "wav:/nowhere/x.wav".parse::<SourceSpec>().unwrap().open(8000).err().unwrap().to_string();
    assert!(missing.starts_with("/nowhere/x.wav: cannot open: "), "{missing}");
    let missing = "wav:/nowhere/x.wav".parse::<SinkSpec>().unwrap().open(8000).err().unwrap().to_string();
    assert!(missing.starts_with("/nowhere/x.wav: cannot create: "), "{missing}");
}

#[test]
fn names_of_sources_and_sinks() {
    assert_eq!("tone".parse::<SourceSpec>().unwrap(), SourceSpec::Tone);
    assert_eq!("wav:a:b.wav".parse::<SourceSpec>().unwrap().to_string(), "wav:a:b.wav");
    assert_eq!("null".parse::<SinkSpec>().unwrap(), SinkSpec::Null);
    assert_eq!("device".parse::<SourceSpec>().unwrap(), SourceSpec::Device(None));
    assert_eq!("device:a:b".parse::<SinkSpec>().unwrap(), SinkSpec::Device(Some("a:b".into())));
    for text in ["auto", "device", "device:USB Headset", "null", "wav:x"] {
        assert_eq!(text.parse::<SourceSpec>().unwrap().to_string(), text);
        assert_eq!(text.parse::<SinkSpec>().unwrap().to_string(), text);
    }
    for text in ["wav:", "tune", "", "device:", "devices"] {
        assert!(matches!(text.parse::<SourceSpec>(), Err(AudioError::Unknown(_))));
    }
    assert!(matches!("tone".parse::<SinkSpec>(), Err(AudioError::Unknown(_))));
}

/// The file as it stands on the disk while the writer lives is what a killed process leaves behind.
#[test]
fn a_killed_recording_plays_up_to_its_last_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.wav");
    let mut writer = WavWriter::create(&path, 8000).unwrap();
    for n in 0..125i16 {
        writer.write(&[n; 160]).unwrap();
    }
    let left_behind = fs::read(&path).unwrap();
    assert_eq!(u32::from_le_bytes(left_behind[40..44].try_into().unwrap()), 2 * 8000 * 2, "two seconds announced");
    assert_eq!(u32::from_le_bytes(left_behind[4..8].try_into().unwrap()), 2 * 8000 * 2 + 36);
    assert_eq!(left_behind.len(), 44 + 125 * 320);
    assert_eq!(open(&left_behind).unwrap().read_all().unwrap().len(), 16_000);
    writer.finish().unwrap();
    drop(writer);
    let whole = WavReader::open(&path).unwrap();
    assert_eq!((whole.rate(), whole.duration_ms()), (8000, 2500));
}

#[test]
fn the_speech_sample_is_what_it_should_be() {
    let mut sample = WavReader::open(Path::new("config/speech.wav")).unwrap();
    assert_eq!(sample.rate(), 16_000);
    assert!((5000..7000).contains(&sample.duration_ms()));
    let loudest = sample.read_all().unwrap().iter().map(|s| s.unsigned_abs()).max().unwrap();
    assert!((10_000..32_000).contains(&loudest));
}

#[test]
fn a_tone_does_not_end() {
    let mut tone = SourceSpec::Tone.open(8000).unwrap();
    let mut out = vec![0; 16_000];
    assert!(tone.read(&mut out).unwrap() && tone.read(&mut out).unwrap());
    let rises = out.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
    assert!((439..=440).contains(&rises), "{rises} Hz");
}
