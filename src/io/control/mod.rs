//! The control socket (SPEC section 8): how another process of the same user asks the running node.
//! A UNIX stream socket in the data directory carries [`Command`]s, [`Event`]s and [`Reply`]s as JSON,
//! one object a line.
//!
//! A request is a command, with an `id` of any JSON value if the client wants one back:
//! `{"id": 1, "command": "lookup", "target": "bob"}`. Its answer is any number of events
//! (`{"id": 1, "event": "ringing", "call": 3}`), then one `{"id": 1, "result": {...}}` or
//! `{"id": 1, "error": {"what": ..., "next": ...}}`. Requests of one connection run at the same time and are answered as
//! they complete. A client that goes away takes its requests with it.
//!
//! Who may connect: the user that the program runs as, by the socket's mode and again by the
//! credentials that the kernel vouches for. There is no remote control here.

mod client;
mod server;

pub use client::Client;
pub use server::Server;

use crate::node::control::{Command, CommandError, Event, Reply, RequestId};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::sync::mpsc;

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";

/// What the server asks of the node's driver.
#[derive(Debug)]
pub enum ControlRequest {
    /// Carry out a command.
    Begin {
        /// Names it from now on; never used twice.
        request: RequestId,
        /// The command.
        command: Command,
        /// Where events and the final answer go. It holds [`UPDATES`]; who must not wait sends by
        /// `try_send` and lets an event fall that does not fit. Dropping it unanswered is answered as a failure.
        replies: mpsc::Sender<Update>,
    },
    /// Whoever asked has gone; a call placed by this request is to be hung up. It may have ended meanwhile.
    Abort {
        /// As in [`ControlRequest::Begin`].
        request: RequestId,
    },
}

/// What the driver answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Something happened on the way.
    Event(Event),
    /// It is over.
    Done(Result<Reply, CommandError>),
}

/// Why the running program could not be asked, or could not be made askable.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("no chordial is running with data directory {}", data.display())]
    NotRunning {
        /// The data directory.
        data: PathBuf,
    },
    /// Somebody listens there already.
    #[error("another chordial runs with data directory {}", data.display())]
    InUse {
        /// The data directory.
        data: PathBuf,
    },
    /// The path does not fit into a socket address.
    #[error("{} is too long for a socket's path", path.display())]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The running program went away before it had answered.
    #[error("the running chordial ended before it had answered")]
    Gone,
    /// The other end does not speak this version of the protocol.
    #[error("the running chordial answered what this version does not understand: {0}")]
    Protocol(serde_json::Error),
    /// The running program could not do it.
    #[error("{0}")]
    Refused(CommandError),
}

impl ControlError {
    /// What to do next, for a person.
    pub fn next(&self) -> &str {
        match self {
            ControlError::NotRunning { .. } => "start one with chordial start",
            ControlError::InUse { .. } => "stop it with chordial stop, or choose another --data",
            ControlError::PathTooLong { .. } => "choose a shorter --data",
            ControlError::Io { .. } => "check who owns the data directory and its mode",
            ControlError::Gone => "see what it wrote last, and start it again with chordial start",
            ControlError::Protocol(_) => {
                "run the same version of both; chordial stop and chordial start renew the running one"
            }
            ControlError::Refused(e) => &e.next,
        }
    }
}

/// Takes one line without its end into `line`, which may hold the beginning of it from an
/// interrupted call. `false` at the end of the stream. Safe to interrupt.
///
/// # Errors
/// Those of the stream; `InvalidData` when the line is longer than `limit`.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        let taken = end.unwrap_or(bytes.len());
        line.extend_from_slice(&bytes[..taken]);
        let used = end.map_or(taken, |at| at + 1);
        reader.consume(used);
        if line.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
        }
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn fault(action: &'static str, path: &Path, source: io::Error) -> ControlError {
    match source.kind() {
        // What std says of a path above the size of `sun_path`.
        io::ErrorKind::InvalidInput => ControlError::PathTooLong { path: path.to_owned() },
        _ => ControlError::Io { action, path: path.to_owned(), source },
    }
}

/// Updates that wait for a client which does not read.
pub const UPDATES: usize = 256;
/// Longest request, bytes.
const REQUEST_LINE: usize = 64 * 1024;
/// Longest answer that a client reads, bytes.
const ANSWER_LINE: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
