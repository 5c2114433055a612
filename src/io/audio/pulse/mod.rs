//! Sound devices on Linux, by the native protocol of PulseAudio, which PipeWire's pulse server speaks too.
//!
//! Of the crate `pulseaudio` only the encoding is used. Its client would clear a MiB for every piece of 10 ms, says nobody
//! that the server has gone, and logs an error at every orderly end.
//!
//! A [`Microphone`] or [`Loudspeaker`] is opened when a call starts and let go when it is dropped. Each has a thread
//! with a connection of its own, so that neither the call nor its set-up ever waits for the server: while the server or the
//! device is not there the call has silence, a warning says so once, and every second it is tried again. The server is asked
//! for the session's sample rate and converts. `elastic` holds the two clocks together.
//!
//! What it adds: towards the network a piece of 10 ms and a reserve of 11 ms, from the network what the server is asked to
//! hold (20 ms; PipeWire 10, because it holds more than that) and the same reserve. The reserve grows where threads are late.
//!
//! Left out: servers on other machines (`tcp:`), volume and mute (the desktop's mixer has them), levels, echo cancellation
//! of our own, ringing and ringback tones. A stream on the default device follows when the server's default changes.

mod connection;
mod elastic;
mod stream;

use super::device::{Device, DeviceError, Direction};
use super::{AudioError, Sink, Source};
use connection::Connection;
use pulseaudio::protocol::{Command, ServerInfo, SinkInfo, SourceInfo};
use std::ffi::CString;
use stream::Stream;

pub(super) use connection::socket_path;

/// Gives what a microphone hears.
pub(super) struct Microphone {
    stream: Stream,
    rate: u32,
}

impl Microphone {
    /// The device of this name, or the default one, at `rate` samples a second.
    pub(super) fn open(name: Option<&str>, rate: u32) -> Microphone {
        Microphone { stream: Stream::open(Direction::In, name, rate), rate }
    }
}

impl Source for Microphone {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError> {
        self.stream.ring().pull(out);
        Ok(true)
    }
}

/// Plays.
pub(super) struct Loudspeaker {
    stream: Stream,
    rate: u32,
}

impl Loudspeaker {
    /// The device of this name, or the default one, at `rate` samples a second.
    pub(super) fn open(name: Option<&str>, rate: u32) -> Loudspeaker {
        Loudspeaker { stream: Stream::open(Direction::Out, name, rate), rate }
    }
}

impl Sink for Loudspeaker {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn write(&mut self, pcm: &[i16]) -> Result<(), AudioError> {
        self.stream.ring().push(pcm.iter().copied());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), AudioError> {
        Ok(())
    }
}

/// All devices of the server.
///
/// # Errors
/// No server, or no answer within 3 s.
pub(super) fn list() -> Result<Vec<Device>, DeviceError> {
    Ok(devices(&mut Connection::open()?)?.devices)
}

/// What the server told.
struct Known {
    devices: Vec<Device>,
    /// It is PipeWire.
    pipewire: bool,
}

fn devices(connection: &mut Connection) -> Result<Known, DeviceError> {
    let server: ServerInfo = connection.ask(&Command::GetServerInfo)?;
    let sources: Vec<SourceInfo> = connection.ask(&Command::GetSourceInfoList)?;
    let sinks: Vec<SinkInfo> = connection.ask(&Command::GetSinkInfoList)?;
    let text = |name: &CString| name.to_string_lossy().into_owned();
    let device =
        |direction, name: &CString, description: &Option<CString>, default: &Option<CString>, monitor| Device {
            direction,
            name: text(name),
            description: text(description.as_ref().unwrap_or(name)),
            default: default.as_ref() == Some(name),
            monitor,
        };
    let mut devices = Vec::with_capacity(sources.len() + sinks.len());
    for s in &sources {
        let monitor = s.monitor_of_sink_index.is_some();
        devices.push(device(Direction::In, &s.name, &s.description, &server.default_source_name, monitor));
    }
    for s in &sinks {
        devices.push(device(Direction::Out, &s.name, &s.description, &server.default_sink_name, false));
    }
    let pipewire = server.server_name.as_ref().is_some_and(|name| text(name).contains("PipeWire"));
    Ok(Known { devices, pipewire })
}
