//! The thread of a device: connects, carries sound between the server and the ring, and begins anew when the server went.

use super::connection::{Connection, Message};
use super::devices;
use super::elastic::Elastic;
use crate::io::audio::device::{self, DeviceError, Direction};
use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    ChannelMap, Command, CreatePlaybackStreamReply, CreateRecordStreamReply, PlaybackStreamParams, Prop, Props,
    RecordStreamParams, SampleFormat, SampleSpec,
};
use std::ffi::CString;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two attempts to get the device.
const RETRY: Duration = Duration::from_secs(1);
/// Latency asked for, milliseconds: PipeWire triples what it is told.
const LATENCY_MS: (u32, u32) = (20, 10);
/// Bytes of a sample.
const SAMPLE: u32 = 2;

/// What the media thread and the device's thread share.
pub(super) struct Shared {
    ring: Mutex<Elastic>,
    control: Mutex<Control>,
    wake: Condvar,
}

#[derive(Default)]
struct Control {
    stopped: bool,
    /// To wake the thread out of its reading.
    socket: Option<UnixStream>,
}

/// A device in use; dropping it lets it go.
pub(super) struct Stream(Arc<Shared>);

impl Stream {
    /// Begins to get the device, and does not wait for it.
    pub(super) fn open(direction: Direction, name: Option<&str>, rate: u32) -> Stream {
        let ring = Mutex::new(Elastic::new(rate));
        let shared = Arc::new(Shared { ring, control: Mutex::default(), wake: Condvar::new() });
        let worker = Worker { shared: shared.clone(), direction, name: name.map(str::to_owned), rate, told: None };
        let spawned = std::thread::Builder::new().name("sound".into()).spawn(move || worker.run());
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a sound device: silence instead");
        }
        Stream(shared)
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Elastic> {
        lock(&self.0.ring)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut control = lock(&self.0.control);
        control.stopped = true;
        if let Some(socket) = control.socket.take() {
            // Closed already: then the thread knows.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.wake.notify_all();
        let ring = lock(&self.0.ring);
        tracing::debug!(gaps = ring.gaps, cuts = ring.cuts, "sound device released");
    }
}

struct Worker {
    shared: Arc<Shared>,
    direction: Direction,
    name: Option<String>,
    rate: u32,
    /// The fault that was said last; not said twice.
    told: Option<String>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let Err(fault) = self.carry();
            let mut control = lock(&self.shared.control);
            if control.stopped {
                return;
            }
            control.socket = None;
            lock(&self.shared.ring).clear();
            let text = fault.to_string();
            if self.told.as_ref() != Some(&text) {
                let device = self.label();
                tracing::warn!("{device}: {text}; silence until it is there; {}", fault.next());
                self.told = Some(text);
            }
            let waited = self.shared.wake.wait_timeout_while(control, RETRY, |c| !c.stopped);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stopped {
                return;
            }
        }
    }

    fn label(&self) -> String {
        let kind = match self.direction {
            Direction::In => "microphone",
            Direction::Out => "loudspeaker",
        };
        self.name.as_ref().map_or(format!("default {kind}"), |name| format!("{kind} {name:?}"))
    }

    /// Gets the device and carries sound until that is not possible any more.
    fn carry(&mut self) -> Result<std::convert::Infallible, DeviceError> {
        let mut connection = Connection::open()?;
        {
            let mut control = lock(&self.shared.control);
            if control.stopped {
                return Err(DeviceError::Gone(self.label()));
            }
            control.socket = Some(connection.handle()?);
        }
        let known = devices(&mut connection)?;
        let latency_ms = if known.pipewire { LATENCY_MS.1 } else { LATENCY_MS.0 };
        let device = device::choose(&known.devices, self.direction, self.name.as_deref())?.clone();
        // Not by name where it is the default: then the server moves the stream when the default changes.
        let by_name =
            (self.name.is_some() || !device.default).then(|| CString::new(device.name.clone()).ok()).flatten();
        match self.direction {
            Direction::In => self.record(connection, by_name, &device.name, latency_ms),
            Direction::Out => self.play(connection, by_name, &device.name, latency_ms),
        }
    }

    fn record(
        &mut self,
        mut connection: Connection,
        name: Option<CString>,
        label: &str,
        latency_ms: u32,
    ) -> Result<std::convert::Infallible, DeviceError> {
        // Half of what playback asks for: a piece that is being filled is as late as it is long.
        let fragment_size = self.bytes(latency_ms / 2);
        let params = RecordStreamParams {
            sample_spec: self.format(),
            channel_map: ChannelMap::mono(),
            source_name: Some(name.unwrap_or_else(|| pulseaudio::protocol::DEFAULT_SOURCE.to_owned())),
            buffer_attr: BufferAttr { fragment_size, ..BufferAttr::default() },
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            props: self.props(c"Call, microphone"),
            ..RecordStreamParams::default()
        };
        let _: CreateRecordStreamReply = connection.ask(&Command::CreateRecordStream(params))?;
        self.opened(&connection, label)?;
        loop {
            match connection.receive()? {
                Message::Sound => {
                    let (samples, _) = connection.body.as_chunks::<2>();
                    lock(&self.shared.ring).push(samples.iter().map(|s| i16::from_le_bytes(*s)));
                }
                Message::Command { command: Command::RecordStreamKilled(_), .. } => {
                    return Err(DeviceError::Gone(label.to_owned()));
                }
                Message::Command { .. } => {}
            }
        }
    }

    fn play(
        &mut self,
        mut connection: Connection,
        name: Option<CString>,
        label: &str,
        latency_ms: u32,
    ) -> Result<std::convert::Infallible, DeviceError> {
        let buffer_attr = BufferAttr {
            target_length: self.bytes(latency_ms),
            // It starts at once and does not stop to fill up again: silence is for the ring to give.
            pre_buffering: 0,
            minimum_request_length: self.bytes(latency_ms / 4),
            ..BufferAttr::default()
        };
        let params = PlaybackStreamParams {
            sample_spec: self.format(),
            channel_map: ChannelMap::mono(),
            sink_name: Some(name.unwrap_or_else(|| pulseaudio::protocol::DEFAULT_SINK.to_owned())),
            buffer_attr,
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            props: self.props(c"Call, voice"),
            ..PlaybackStreamParams::default()
        };
        let reply: CreatePlaybackStreamReply = connection.ask(&Command::CreatePlaybackStream(params))?;
        self.opened(&connection, label)?;
        self.give(&mut connection, reply.channel, reply.requested_bytes)?;
        loop {
            match connection.receive()? {
                Message::Command { command: Command::Request(wanted), .. } if wanted.channel == reply.channel => {
                    self.give(&mut connection, reply.channel, wanted.length)?;
                }
                Message::Command { command: Command::PlaybackStreamKilled(_), .. } => {
                    return Err(DeviceError::Gone(label.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// Gives as much as the server asked for.
    fn give(&self, connection: &mut Connection, channel: u32, bytes: u32) -> Result<(), DeviceError> {
        // A server that wants a second at once gets it in silence at worst, never more.
        let mut pcm = vec![0; (bytes.min(self.bytes(1000)) / SAMPLE) as usize];
        lock(&self.shared.ring).pull(&mut pcm);
        let bytes: Vec<u8> = pcm.iter().flat_map(|s| s.to_le_bytes()).collect();
        if bytes.is_empty() { Ok(()) } else { connection.play(channel, &bytes) }
    }

    fn opened(&mut self, connection: &Connection, name: &str) -> Result<(), DeviceError> {
        let again = if self.told.take().is_some() { " again" } else { "" };
        tracing::info!("{}: {name} is in use{again}", self.label());
        connection.wait_without_end()
    }

    fn format(&self) -> SampleSpec {
        SampleSpec { format: SampleFormat::S16Le, channels: 1, sample_rate: self.rate }
    }

    fn props(&self, name: &std::ffi::CStr) -> Props {
        let mut props = Props::new();
        props.set(Prop::MediaName, name);
        // The server turns music down and may put its echo canceller in.
        props.set(Prop::MediaRole, c"phone");
        props
    }

    fn bytes(&self, ms: u32) -> u32 {
        self.rate * ms / 1000 * SAMPLE
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
