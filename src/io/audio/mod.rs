//! Where voice comes from and goes to, besides the network: sound devices, WAV files, a tone, nothing.
//!
//! Sources and sinks are clocked by whoever reads and writes them, 20 ms at a time in real time; none of
//! them waits. Sound devices have a clock of their own, and whatever it takes to live with two is theirs to do.

pub mod device;
#[cfg(target_os = "linux")]
mod pulse;
#[cfg(test)]
mod tests;
pub mod wav;

use crate::media::hear::{self, Heard, Recording};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Gives samples.
pub trait Source: Send {
    /// Samples a second.
    fn rate(&self) -> u32;
    /// Fills `out` with the next mono samples. False once nothing was left to give; the rest of `out` is silence then.
    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError>;
}

/// Takes samples.
pub trait Sink: Send {
    /// Samples a second.
    fn rate(&self) -> u32;
    /// Takes the next mono samples.
    fn write(&mut self, pcm: &[i16]) -> Result<(), AudioError>;
    /// Ends the recording in good order.
    fn finish(&mut self) -> Result<(), AudioError>;
}

/// Why a source or sink cannot be used. Each says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// Not one of the names that are known.
    #[error(
        "{0:?} is no audio source or sink: use auto, device, device:NAME, wav:FILE, tone or null (tone is a source only)"
    )]
    Unknown(String),
    /// A sound device cannot be used.
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    /// The file system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// `open`, `read`, `create`, `write`.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a WAV file that can be played.
    #[error("{}: {fault}; convert it, for example: sox IN -r 16000 -b 16 -c 1 OUT.wav", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The recording has reached what the format can hold.
    #[error("{}: a WAV file cannot be longer than 4 GiB; the recording ends here", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
    },
}

/// What to play to the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceSpec {
    /// The default microphone where there is a sound server, else silence.
    Auto,
    /// A microphone: the default one, or the one whose name or description holds this.
    Device(Option<String>),
    /// A WAV file, once, in real time; silence after its end.
    Wav(PathBuf),
    /// 440 Hz at -14 dBFS, without end.
    Tone,
    /// Silence.
    Null,
}

/// Where to put what the other end says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SinkSpec {
    /// The default loudspeaker where there is a sound server, else nowhere.
    Auto,
    /// A loudspeaker: the default one, or the one whose name or description holds this.
    Device(Option<String>),
    /// A WAV file, 16-bit mono at the rate of the call's codec; replaced if it exists.
    Wav(PathBuf),
    /// Nowhere.
    Null,
}

impl SourceSpec {
    /// Opens the source. A device is asked for this rate; whatever else has its own. A device is not waited for:
    /// as long as it is not there, it gives silence and says why in the log.
    pub fn open(&self, rate: u32) -> Result<Box<dyn Source>, AudioError> {
        Ok(match self {
            SourceSpec::Auto => device::auto_source(rate)?,
            SourceSpec::Device(name) => device::source(name.as_deref(), rate)?,
            SourceSpec::Wav(path) => Box::new(wav::WavReader::open(path)?),
            SourceSpec::Tone => Box::new(Tone { phase: 0 }),
            SourceSpec::Null => Box::new(Null),
        })
    }

    /// Finds what can be found wrong before a call. No device is opened.
    pub fn check(&self) -> Result<(), AudioError> {
        if let SourceSpec::Wav(path) = self {
            wav::WavReader::open(path)?;
        }
        Ok(())
    }
}

impl SinkSpec {
    /// Opens the sink for samples of this rate.
    pub fn open(&self, rate: u32) -> Result<Box<dyn Sink>, AudioError> {
        Ok(match self {
            SinkSpec::Auto => device::auto_sink(rate)?,
            SinkSpec::Device(name) => device::sink(name.as_deref(), rate)?,
            SinkSpec::Wav(path) => Box::new(wav::WavWriter::create(path, rate)?),
            SinkSpec::Null => Box::new(NullSink { rate }),
        })
    }
}

impl FromStr for SourceSpec {
    type Err = AudioError;
    fn from_str(text: &str) -> Result<Self, AudioError> {
        match text {
            "tone" => Ok(SourceSpec::Tone),
            "null" => Ok(SourceSpec::Null),
            "auto" => Ok(SourceSpec::Auto),
            _ => match named_device(text) {
                Some(name) => Ok(SourceSpec::Device(name)),
                None => file(text).map(SourceSpec::Wav),
            },
        }
    }
}

impl FromStr for SinkSpec {
    type Err = AudioError;
    fn from_str(text: &str) -> Result<Self, AudioError> {
        match text {
            "null" => Ok(SinkSpec::Null),
            "auto" => Ok(SinkSpec::Auto),
            _ => match named_device(text) {
                Some(name) => Ok(SinkSpec::Device(name)),
                None => file(text).map(SinkSpec::Wav),
            },
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSpec::Wav(path) => write!(f, "wav:{}", path.display()),
            SourceSpec::Tone => f.write_str("tone"),
            SourceSpec::Null => f.write_str("null"),
            SourceSpec::Auto => f.write_str("auto"),
            SourceSpec::Device(None) => f.write_str("device"),
            SourceSpec::Device(Some(name)) => write!(f, "device:{name}"),
        }
    }
}

impl fmt::Display for SinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkSpec::Wav(path) => write!(f, "wav:{}", path.display()),
            SinkSpec::Null => f.write_str("null"),
            SinkSpec::Auto => f.write_str("auto"),
            SinkSpec::Device(None) => f.write_str("device"),
            SinkSpec::Device(Some(name)) => write!(f, "device:{name}"),
        }
    }
}

/// How much of one WAV file is heard in another, see [`hear::compare`].
pub fn compare_files(sent: &Path, received: &Path, max_lag_ms: u32) -> Result<Heard, AudioError> {
    let (mut sent, mut received) = (wav::WavReader::open(sent)?, wav::WavReader::open(received)?);
    let (said, heard) = (sent.read_all()?, received.read_all()?);
    let said = Recording { samples: &said, rate: sent.rate() };
    Ok(hear::compare(said, Recording { samples: &heard, rate: received.rate() }, max_lag_ms))
}

fn file(text: &str) -> Result<PathBuf, AudioError> {
    match text.split_once(':') {
        Some(("wav", path)) if !path.is_empty() => Ok(Path::new(path).to_owned()),
        _ => Err(AudioError::Unknown(text.to_owned())),
    }
}

/// `device`, or `device:NAME` with a name.
fn named_device(text: &str) -> Option<Option<String>> {
    match text.split_once(':') {
        None if text == "device" => Some(None),
        Some(("device", name)) if !name.is_empty() => Some(Some(name.to_owned())),
        _ => None,
    }
}

struct Null;

impl Source for Null {
    fn rate(&self) -> u32 {
        8000
    }

    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError> {
        out.fill(0);
        Ok(true)
    }
}

struct NullSink {
    rate: u32,
}

impl Sink for NullSink {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn write(&mut self, _pcm: &[i16]) -> Result<(), AudioError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), AudioError> {
        Ok(())
    }
}

struct Tone {
    phase: u32,
}

impl Tone {
    const RATE: u32 = 16_000;
    const HZ: u32 = 440;
    const AMPLITUDE: f64 = 6500.0;
}

impl Source for Tone {
    fn rate(&self) -> u32 {
        Self::RATE
    }

    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError> {
        for sample in out {
            let turn = f64::from(self.phase) / f64::from(Self::RATE);
            *sample = (Self::AMPLITUDE * (std::f64::consts::TAU * turn).sin()) as i16;
            self.phase = (self.phase + Self::HZ) % Self::RATE;
        }
        Ok(true)
    }
}
