//! The asking side.

use super::{ANSWER_LINE, ControlError, SOCKET, fault, read_line};
use crate::node::control::{Command, Event, Reply};
use serde_json::Value;
use std::io;
use std::path::Path;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A connection to the running program. Dropping it ends a call that was placed over it.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    next_id: u64,
    line: Vec<u8>,
}

impl Client {
    /// Connects to the program that runs with data directory `data`.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`], [`ControlError::PathTooLong`], [`ControlError::Io`].
    pub async fn connect(data: &Path) -> Result<Client, ControlError> {
        let path = data.join(SOCKET);
        let stream = UnixStream::connect(&path).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning { data: data.to_owned() }
            }
            _ => fault("connect to", &path, e),
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Client { reader: BufReader::new(reader), writer, next_id: 1, line: Vec::new() })
    }

    /// Asks for `command`, hands every event on the way to `on_event`, and waits for the answer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the program's own words; [`ControlError::Gone`], [`ControlError::Protocol`].
    pub async fn request(&mut self, command: &Command, mut on_event: impl FnMut(Event)) -> Result<Reply, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = serde_json::to_value(command).map_err(ControlError::Protocol)?;
        if let Value::Object(fields) = &mut request {
            fields.insert("id".into(), id.into());
        }
        self.writer.write_all(format!("{request}\n").as_bytes()).await.map_err(|_| ControlError::Gone)?;
        loop {
            self.line.clear();
            match read_line(&mut self.reader, &mut self.line, ANSWER_LINE).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Err(ControlError::Gone),
            }
            let mut answer: Value = serde_json::from_slice(&self.line).map_err(ControlError::Protocol)?;
            // An answer to an earlier request, whose caller stopped waiting.
            if answer.get("id").is_some_and(|i| i.as_u64() != Some(id)) {
                continue;
            }
            if let Some(result) = answer.get_mut("result") {
                return serde_json::from_value(result.take()).map_err(ControlError::Protocol);
            }
            if let Some(error) = answer.get_mut("error") {
                let error = serde_json::from_value(error.take()).map_err(ControlError::Protocol)?;
                return Err(ControlError::Refused(error));
            }
            // An event that only a newer program knows is no reason to stop.
            if let Ok(event) = serde_json::from_value(answer) {
                on_event(event);
            }
        }
    }
}
