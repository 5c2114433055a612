//! Sound devices as the rest of the program sees them: which there are, which one is meant, what went wrong.
//!
//! On Linux they are those of the PulseAudio or PipeWire server (`super::pulse`). Elsewhere there are none yet:
//! naming one is an error, and `auto` is silence.

use super::{AudioError, Null, NullSink, Sink, Source};
use std::path::PathBuf;

/// Which way sound goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Microphones.
    In,
    /// Loudspeakers.
    Out,
}

/// A device that the sound server knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Which way.
    pub direction: Direction,
    /// The server's name for it, which is unique.
    pub name: String,
    /// Its name for people.
    pub description: String,
    /// The one that is used when none is named.
    pub default: bool,
    /// Not a microphone: it hears what a loudspeaker plays.
    pub monitor: bool,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no socket of a sound server.
    #[error("no sound server: there is no {}", .0.display())]
    NoServer(PathBuf),
    /// The sound server is not on this machine.
    #[error("the sound server {0:?} of $PULSE_SERVER is not a socket on this machine")]
    Remote(String),
    /// The server cannot be reached, or has gone.
    #[error("sound server {}: {source}", path.display())]
    Server {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server refused, or said what nobody understands.
    #[error("sound server {}: {fault}", path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// What it said.
        fault: String,
    },
    /// No device of this name.
    #[error("no {} matches {name:?}", match direction { Direction::In => "microphone", Direction::Out => "loudspeaker" })]
    NoDevice {
        /// Which way.
        direction: Direction,
        /// What was asked for.
        name: String,
    },
    /// No device at all, or, of microphones, only one that hears what the loudspeakers play.
    #[error("the sound server has no {}", match .0 { Direction::In => "microphone", Direction::Out => "loudspeaker" })]
    NoDefault(Direction),
    /// The server took the device away.
    #[error("the device {0} was taken away")]
    Gone(String),
    /// Not on this system.
    #[error("sound devices are used on Linux only in this version")]
    Unsupported,
}

impl DeviceError {
    /// What to do next.
    pub fn next(&self) -> &'static str {
        match self {
            DeviceError::NoServer(_) => "start PipeWire or PulseAudio, or set PULSE_SERVER=unix:PATH",
            DeviceError::Remote(_) => "set PULSE_SERVER=unix:PATH, or use wav:FILE or null",
            DeviceError::Server { .. } | DeviceError::Refused { .. } => "see that PipeWire or PulseAudio runs",
            DeviceError::NoDevice { .. } => "chordial audio lists the names",
            DeviceError::NoDefault(_) | DeviceError::Gone(_) => "plug one in; chordial audio lists what there is",
            DeviceError::Unsupported => "use wav:FILE, tone or null",
        }
    }
}

/// All devices, microphones first.
///
/// # Errors
/// There is no sound server, or it does not answer.
pub fn list() -> Result<Vec<Device>, DeviceError> {
    #[cfg(target_os = "linux")]
    return super::pulse::list();
    #[cfg(not(target_os = "linux"))]
    Err(DeviceError::Unsupported)
}

/// The device that `name` means: the one so named, else the first whose name or description holds it (letters of either
/// case; microphones before monitors); without a name the default one, which as a microphone must be no monitor.
///
/// # Errors
/// None fits.
pub fn choose<'a>(devices: &'a [Device], direction: Direction, name: Option<&str>) -> Result<&'a Device, DeviceError> {
    let of_kind = || devices.iter().filter(|d| d.direction == direction);
    let Some(name) = name else {
        let usable = || of_kind().filter(|d| !d.monitor);
        return usable().find(|d| d.default).or_else(|| usable().next()).ok_or(DeviceError::NoDefault(direction));
    };
    let wanted = name.to_lowercase();
    let holds = |d: &&Device| d.name.to_lowercase().contains(&wanted) || d.description.to_lowercase().contains(&wanted);
    let found = of_kind().find(|d| d.name == name);
    let found = found.or_else(|| of_kind().filter(holds).min_by_key(|d| d.monitor));
    found.ok_or_else(|| DeviceError::NoDevice { direction, name: name.to_owned() })
}

/// A microphone: the one named, or with `None` the default one.
pub(super) fn source(name: Option<&str>, rate: u32) -> Result<Box<dyn Source>, AudioError> {
    #[cfg(target_os = "linux")]
    return Ok(Box::new(super::pulse::Microphone::open(name, rate)));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (name, rate);
        Err(DeviceError::Unsupported.into())
    }
}

/// A loudspeaker: the one named, or with `None` the default one.
pub(super) fn sink(name: Option<&str>, rate: u32) -> Result<Box<dyn Sink>, AudioError> {
    #[cfg(target_os = "linux")]
    return Ok(Box::new(super::pulse::Loudspeaker::open(name, rate)));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (name, rate);
        Err(DeviceError::Unsupported.into())
    }
}

/// The default microphone where a sound server is, else silence.
pub(super) fn auto_source(rate: u32) -> Result<Box<dyn Source>, AudioError> {
    if is_there() { source(None, rate) } else { Ok(Box::new(Null)) }
}

/// The default loudspeaker where a sound server is, else nothing.
pub(super) fn auto_sink(rate: u32) -> Result<Box<dyn Sink>, AudioError> {
    if is_there() { sink(None, rate) } else { Ok(Box::new(NullSink { rate })) }
}

/// Whether a sound server has its socket here. It is not asked: that would take time where it hangs.
pub fn is_there() -> bool {
    #[cfg(target_os = "linux")]
    return super::pulse::socket_path().is_ok();
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(direction: Direction, name: &str, description: &str, default: bool, monitor: bool) -> Device {
        Device { direction, name: name.into(), description: description.into(), default, monitor }
    }

    #[test]
    fn a_device_is_found_by_name_or_part_of_its_description() {
        let all = [
            device(Direction::In, "usb.monitor", "Monitor of USB Headset", true, true),
            device(Direction::In, "usb.mic", "USB Headset", false, false),
            device(Direction::Out, "hdmi", "Screen", false, false),
            device(Direction::Out, "usb", "USB Headset", true, false),
        ];
        let name = |direction, name| choose(&all, direction, name).map(|d| d.name.as_str()).map_err(|e| e.to_string());
        assert_eq!(name(Direction::In, Some("headset")), Ok("usb.mic"), "a microphone before a monitor");
        assert_eq!(name(Direction::In, Some("usb.monitor")), Ok("usb.monitor"), "unless it is named");
        assert_eq!(name(Direction::In, None), Ok("usb.mic"), "a monitor is no microphone, even as the default");
        assert_eq!(name(Direction::Out, None), Ok("usb"));
        assert_eq!(name(Direction::Out, Some("SCREEN")), Ok("hdmi"));
        assert_eq!(name(Direction::Out, Some("mic")), Err("no loudspeaker matches \"mic\"".into()));
        let none = choose(&all[..1], Direction::In, None).unwrap_err().to_string();
        assert_eq!(none, "the sound server has no microphone");
    }
}
