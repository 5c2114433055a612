//! WAV files: RIFF with 16-bit PCM, read strictly and written so that a killed process leaves a file
//! that plays.
//!
//! Read: 8 to 48 kHz, mono or stereo (mixed down), plain or extensible format header, any other chunks
//! skipped. Not read: other sample formats, RF64 and compressed data; the error names what was found.

use super::{AudioError, Sink, Source};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEADER: u32 = 44;
const PCM: u16 = 1;
const EXTENSIBLE: u16 = 0xfffe;

/// Reads a WAV file from its beginning to its end.
pub struct WavReader {
    path: PathBuf,
    file: BufReader<File>,
    rate: u32,
    channels: u16,
    /// Bytes of the data chunk not yet read.
    left: u64,
    total_frames: u64,
}

impl WavReader {
    /// Opens `path` and reads up to the first sample.
    pub fn open(path: &Path) -> Result<WavReader, AudioError> {
        let failed = |source| AudioError::File { path: path.to_owned(), doing: "open", source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::new(file);
        let wrong = |fault: String| AudioError::Format { path: path.to_owned(), fault };
        let short = || wrong("the file ends before its first sample".to_owned());
        let mut riff = [0; 12];
        take(&mut file, &mut riff, path)?.then_some(()).ok_or_else(|| wrong("it is not a WAV file".to_owned()))?;
        if &riff[..4] != b"RIFF" || &riff[8..] != b"WAVE" {
            return Err(wrong("it is not a WAV file".to_owned()));
        }
        let mut format = None;
        loop {
            let mut header = [0; 8];
            take(&mut file, &mut header, path)?.then_some(()).ok_or_else(short)?;
            let [a, b, c, d, length @ ..] = header;
            let length = u32::from_le_bytes(length);
            match &[a, b, c, d] {
                b"fmt " => format = Some(read_format(&mut file, length, path)?),
                b"data" => {
                    let (rate, channels) =
                        format.ok_or_else(|| wrong("samples come before their format".to_owned()))?;
                    // A recording that was cut off announces more, or with 0 and all ones: as much as is there.
                    let here = size.saturating_sub(file.stream_position().map_err(failed)?);
                    let announced = if length == 0 { u64::MAX } else { u64::from(length) };
                    let frame = u64::from(channels) * 2;
                    let left = announced.min(here) / frame * frame;
                    if left == 0 {
                        return Err(wrong("it holds no samples".to_owned()));
                    }
                    let path = path.to_owned();
                    return Ok(WavReader { path, file, rate, channels, left, total_frames: left / frame });
                }
                _ => {
                    // Chunks are padded to even lengths.
                    let skip = i64::from(length) + i64::from(length & 1);
                    file.seek_relative(skip).map_err(failed)?;
                }
            }
        }
    }

    /// All that is left, mono.
    pub fn read_all(&mut self) -> Result<Vec<i16>, AudioError> {
        let mut all = vec![0; (self.left / u64::from(self.channels) / 2) as usize];
        self.read(&mut all)?;
        Ok(all)
    }

    /// Duration of the whole file in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.total_frames * 1000 / u64::from(self.rate)
    }
}

impl Source for WavReader {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError> {
        let width = usize::from(self.channels) * 2;
        let frames = out.len().min((self.left / width as u64) as usize);
        let mut bytes = vec![0; frames * width];
        self.file.read_exact(&mut bytes).map_err(|source| {
            self.left = 0;
            AudioError::File { path: self.path.clone(), doing: "read", source }
        })?;
        self.left -= bytes.len() as u64;
        out.fill(0);
        for (sample, frame) in out.iter_mut().zip(bytes.chunks_exact(width)) {
            let sum: i32 = frame.chunks_exact(2).map(|s| i32::from(i16::from_le_bytes([s[0], s[1]]))).sum();
            *sample = (sum / i32::from(self.channels)) as i16;
        }
        Ok(frames == out.len())
    }
}

/// Writes a 16-bit mono WAV file whose header is right at every full second and at the end.
pub struct WavWriter {
    path: PathBuf,
    file: File,
    rate: u32,
    /// Bytes of samples written.
    written: u32,
    /// Bytes of samples that the header announces.
    announced: u32,
}

impl WavWriter {
    /// Creates or replaces `path`.
    pub fn create(path: &Path, rate: u32) -> Result<WavWriter, AudioError> {
        let failed = |source| AudioError::File { path: path.to_owned(), doing: "create", source };
        let file = File::create(path).map_err(failed)?;
        let mut writer = WavWriter { path: path.to_owned(), file, rate, written: 0, announced: 0 };
        writer.file.write_all(&header(rate, 0)).map_err(failed)?;
        Ok(writer)
    }

    fn announce(&mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.rate, self.written))?;
        self.file.seek(SeekFrom::End(0))?;
        self.announced = self.written;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> AudioError {
        AudioError::File { path: self.path.clone(), doing: "write", source }
    }
}

impl Sink for WavWriter {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn write(&mut self, pcm: &[i16]) -> Result<(), AudioError> {
        let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let written = u32::try_from(bytes.len()).ok().and_then(|more| self.written.checked_add(more));
        let written = written.filter(|written| *written <= u32::MAX - HEADER);
        self.written = written.ok_or_else(|| AudioError::Full { path: self.path.clone() })?;
        self.file.write_all(&bytes).map_err(|source| self.failed(source))?;
        if self.written - self.announced >= self.rate * 2 {
            self.announce().map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), AudioError> {
        self.announce().map_err(|source| self.failed(source))
    }
}

impl Drop for WavWriter {
    fn drop(&mut self) {
        // Whoever wants to know of a failure calls `finish`.
        let _ = self.announce();
    }
}

/// Rate and channels of a `fmt ` chunk, which is consumed.
fn read_format(file: &mut BufReader<File>, length: u32, path: &Path) -> Result<(u32, u16), AudioError> {
    let wrong = |fault: String| AudioError::Format { path: path.to_owned(), fault };
    let broken = || wrong("its format header is broken".to_owned());
    if !(16..=64).contains(&length) {
        return Err(broken());
    }
    let mut chunk = vec![0; (length + (length & 1)) as usize];
    take(file, &mut chunk, path)?.then_some(()).ok_or_else(broken)?;
    let half = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    let (mut tag, channels, bits) = (half(0), half(2), half(14));
    if tag == EXTENSIBLE && chunk.len() >= 26 {
        tag = half(24);
    }
    if tag != PCM || bits != 16 {
        return Err(wrong(format!("its samples are of format {tag} with {bits} bits, only 16-bit PCM is played")));
    }
    if !(1..=2).contains(&channels) {
        return Err(wrong(format!("it has {channels} channels, only mono and stereo are played")));
    }
    if !(8000..=48_000).contains(&rate) {
        return Err(wrong(format!("its sample rate is {rate} Hz, only 8000 to 48000 are played")));
    }
    Ok((rate, channels))
}

/// Fills `out`; false if the file ends before.
fn take(file: &mut BufReader<File>, out: &mut [u8], path: &Path) -> Result<bool, AudioError> {
    match file.read_exact(out) {
        Ok(()) => Ok(true),
        Err(end) if end.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(AudioError::File { path: path.to_owned(), doing: "read", source }),
    }
}

fn header(rate: u32, data: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER as usize);
    out.extend(b"RIFF");
    out.extend((data + HEADER - 8).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16u32.to_le_bytes());
    out.extend(PCM.to_le_bytes());
    out.extend(1u16.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend((rate * 2).to_le_bytes());
    out.extend(2u16.to_le_bytes());
    out.extend(16u16.to_le_bytes());
    out.extend(b"data");
    out.extend(data.to_le_bytes());
    out
}
