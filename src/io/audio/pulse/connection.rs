//! A connection to the sound server: where its socket is, the greeting, one command and its answer, pieces of sound.

use crate::io::audio::device::DeviceError;
use pulseaudio::protocol::{self, Command, CommandReply, Prop, Props, ProtocolError, TagStructReader};
use std::ffi::CString;
use std::io::{Cursor, Error, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the server expects of a cookie. Without one, zeros: some servers ask for none.
const COOKIE: usize = 256;

/// A message of the server; the bytes of sound are in [`Connection::body`].
#[allow(clippy::large_enum_variant)] // one at a time, never kept
pub(super) enum Message {
    /// Recorded sound.
    Sound,
    /// A command. Of a reply, what follows begins at this place of the body.
    Command { number: u32, command: Command, rest: usize },
}

/// See the module.
pub(super) struct Connection {
    path: PathBuf,
    socket: UnixStream,
    version: u16,
    number: u32,
    pub(super) body: Vec<u8>,
}

impl Connection {
    /// Connects and greets.
    pub(super) fn open() -> Result<Connection, DeviceError> {
        let path = socket_path()?;
        let failed = |source| DeviceError::Server { path: path.clone(), source };
        let socket = UnixStream::connect(&path).map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut this = Connection { path, socket, version: protocol::MAX_VERSION, number: 0, body: Vec::new() };
        let mut cookie = cookie().unwrap_or_default();
        cookie.resize(COOKIE, 0);
        let hello = protocol::AuthParams { version: this.version, supports_shm: false, supports_memfd: false, cookie };
        let reply: protocol::AuthReply = this.ask(&Command::Auth(hello))?;
        this.version = this.version.min(reply.version);
        let mut props = Props::new();
        props.set(Prop::ApplicationName, c"Chordial");
        if let Ok(pid) = CString::new(std::process::id().to_string()) {
            props.set(Prop::ApplicationProcessId, pid);
        }
        let _: protocol::SetClientNameReply = this.ask(&Command::SetClientName(props))?;
        Ok(this)
    }

    /// A second handle, to shut the connection from another thread.
    pub(super) fn handle(&self) -> Result<UnixStream, DeviceError> {
        self.socket.try_clone().map_err(|source| self.failed(source))
    }

    /// From now on it may be silent as long as it likes.
    pub(super) fn wait_without_end(&self) -> Result<(), DeviceError> {
        self.socket.set_read_timeout(None).map_err(|source| self.failed(source))
    }

    /// One command and its answer. What else comes meanwhile is of no interest.
    pub(super) fn ask<R: CommandReply>(&mut self, command: &Command) -> Result<R, DeviceError> {
        self.number += 1;
        let sent = protocol::write_command_message(&mut self.socket, self.number, command, self.version);
        sent.map_err(|e| self.wrong(e))?;
        loop {
            match self.receive()? {
                Message::Command { number, command: Command::Reply, rest } if number == self.number => {
                    let mut reader = Cursor::new(self.body.get(rest..).unwrap_or_default());
                    let reply = TagStructReader::new(&mut reader, self.version).read();
                    return reply.map_err(|e| self.wrong(e));
                }
                Message::Command { number, command: Command::Error(fault), .. } if number == self.number => {
                    return Err(self.refused(fault.to_string()));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next message.
    pub(super) fn receive(&mut self) -> Result<Message, DeviceError> {
        let head = protocol::read_descriptor(&mut self.socket).map_err(|e| self.wrong(e))?;
        let length = head.length as usize;
        if length > protocol::MAX_MEMBLOCKQ_LENGTH {
            return Err(self.refused(format!("a message of {length} bytes")));
        }
        self.body.resize(length, 0);
        let read = self.socket.read_exact(&mut self.body);
        read.map_err(|source| self.failed(source))?;
        if head.channel != u32::MAX {
            return Ok(Message::Sound);
        }
        let mut reader = Cursor::new(self.body.as_slice());
        let read = Command::read_tag_prefixed(&mut reader, self.version);
        let rest = reader.position() as usize;
        match read {
            Ok((number, command)) => Ok(Message::Command { number, command, rest }),
            // Something newer than what is known here, and not an answer to us.
            Err(ProtocolError::Unimplemented(number, _)) => {
                Ok(Message::Command { number, command: Command::Stat, rest })
            }
            Err(e) => Err(self.wrong(e)),
        }
    }

    /// Gives the server sound to play.
    pub(super) fn play(&mut self, channel: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        protocol::write_memblock(&mut self.socket, channel, bytes, 0).map_err(|e| self.wrong(e))
    }

    fn failed(&self, source: Error) -> DeviceError {
        let source = match source.kind() {
            ErrorKind::UnexpectedEof => Error::new(source.kind(), "it closed the connection"),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::new(ErrorKind::TimedOut, "it does not answer"),
            _ => source,
        };
        DeviceError::Server { path: self.path.clone(), source }
    }

    fn refused(&self, fault: String) -> DeviceError {
        DeviceError::Refused { path: self.path.clone(), fault }
    }

    fn wrong(&self, fault: ProtocolError) -> DeviceError {
        match fault {
            ProtocolError::Io(source) => self.failed(source),
            fault => self.refused(fault.to_string()),
        }
    }
}

/// Where the server's socket is, by the environment as its own tools read it: `$PULSE_SERVER`, `$PULSE_RUNTIME_PATH`,
/// `$XDG_RUNTIME_DIR`, this user's place under `/run/user`, the system-wide server.
pub(crate) fn socket_path() -> Result<PathBuf, DeviceError> {
    let named = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(server) = named("PULSE_SERVER") {
        let text = server.to_string_lossy().into_owned();
        let path = text.strip_prefix("unix:").map_or(server, PathBuf::from);
        return match path.is_absolute() {
            true if path.exists() => Ok(path),
            true => Err(DeviceError::NoServer(path)),
            false => Err(DeviceError::Remote(text)),
        };
    }
    let user = std::fs::metadata("/proc/self").map(|m| PathBuf::from(format!("/run/user/{}", m.uid())));
    let places = [
        named("PULSE_RUNTIME_PATH").map(|dir| dir.join("native")),
        named("XDG_RUNTIME_DIR").map(|dir| dir.join("pulse/native")),
        user.ok().map(|dir| dir.join("pulse/native")),
        Some(PathBuf::from("/run/pulse/native")),
    ];
    let places: Vec<_> = places.into_iter().flatten().collect();
    let found = places.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| DeviceError::NoServer(places.into_iter().next().unwrap_or_default()))
}

fn cookie() -> Option<Vec<u8>> {
    let named = std::env::var_os("PULSE_COOKIE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let at_home = |rest: &str| home.as_deref().map(|home: &Path| home.join(rest));
    let places = [named, at_home(".config/pulse/cookie"), at_home(".pulse-cookie")];
    places.into_iter().flatten().find_map(|path| std::fs::read(path).ok())
}
