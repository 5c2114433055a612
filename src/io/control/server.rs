//! The answering side, in the running program.

use super::{ControlError, ControlRequest, REQUEST_LINE, SOCKET, UPDATES, Update, fault, read_line};
use crate::node::control::{Command, CommandError, RequestId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// The listening socket; the file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Server {
    /// Listens in data directory `data`, whose lock the caller holds. What a killed program left
    /// there is replaced.
    ///
    /// # Errors
    /// [`ControlError::InUse`] when somebody answers there; [`ControlError::PathTooLong`], [`ControlError::Io`].
    pub fn bind(data: &Path) -> Result<Server, ControlError> {
        let path = data.join(SOCKET);
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(_) => return Err(ControlError::InUse { data: data.to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(&path) => {
                fs::remove_file(&path).map_err(|e| fault("replace", &path, e))?;
            }
            Err(e) => return Err(fault("listen on", &path, e)),
        }
        let listener = UnixListener::bind(&path).map_err(|e| fault("listen on", &path, e))?;
        let owner = fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).and_then(|()| fs::metadata(&path));
        let owner = owner.map_err(|e| fault("protect", &path, e))?.uid();
        Ok(Server { listener, path, owner })
    }

    /// Serves clients until the receiver of `node` is closed; then lets every client have what was
    /// already answered, and removes the socket.
    pub async fn serve(self, node: mpsc::Sender<ControlRequest>) {
        let next = Arc::new(AtomicU64::new(1));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // A program that opens more than that waits its turn in the listen queue.
            let place = tokio::select! {
                Ok(place) = places.clone().acquire_owned() => place,
                () = node.closed() => break,
            };
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        // Out of descriptors, or a client that went at once; neither is the end of the service.
                        tracing::warn!("control socket: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = node.closed() => break,
            };
            match stream.peer_cred() {
                Ok(cred) if cred.uid() == self.owner || cred.uid() == 0 => {}
                _ => {
                    tracing::warn!("control socket: refused a process of another user");
                    continue;
                }
            }
            while connections.try_join_next().is_some() {}
            let (node, next) = (node.clone(), next.clone());
            connections.spawn(async move {
                connection(stream, node, next).await;
                drop(place);
            });
        }
        let _ = tokio::time::timeout(LAST_WORDS, async { while connections.join_next().await.is_some() {} }).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

async fn connection(stream: UnixStream, node: mpsc::Sender<ControlRequest>, next: Arc<AtomicU64>) {
    let (reader, writer) = stream.into_split();
    let (lines, queue) = mpsc::channel(UPDATES);
    let writing = tokio::spawn(write(writer, queue));
    let mut requests = Requests { node, next, lines, running: JoinSet::new(), open: BTreeSet::new() };
    requests.run(BufReader::new(reader)).await;
    for request in std::mem::take(&mut requests.open) {
        let _ = requests.node.send(ControlRequest::Abort { request }).await;
    }
    drop(requests);
    let _ = writing.await;
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Value>) {
    while let Some(value) = queue.recv().await {
        if writer.write_all(format!("{value}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The requests of one connection.
struct Requests {
    node: mpsc::Sender<ControlRequest>,
    next: Arc<AtomicU64>,
    lines: mpsc::Sender<Value>,
    running: JoinSet<RequestId>,
    open: BTreeSet<RequestId>,
}

impl Requests {
    /// Returns when the client has gone, or has said all and was answered all.
    async fn run(&mut self, mut reader: BufReader<OwnedReadHalf>) {
        let mut line = Vec::new();
        loop {
            tokio::select! {
                more = read_line(&mut reader, &mut line, REQUEST_LINE) => match more {
                    Ok(true) => {
                        self.begin(&line).await;
                        line.clear();
                    }
                    Ok(false) => break,
                    Err(e) => {
                        if e.kind() == io::ErrorKind::InvalidData {
                            let e = CommandError::new("a request is longer than 64 KiB", "send a shorter one");
                            self.answer(&None, json!({ "error": e })).await;
                        }
                        return;
                    }
                },
                Some(done) = self.running.join_next() => self.ended(done),
                () = self.lines.closed() => return,
                () = self.node.closed(), if self.open.is_empty() => return,
            }
        }
        // The client has nothing more to ask (`nc -U` at the end of its input), or is gone altogether;
        // the kernel tells the two apart, but wakes nobody for it.
        while !self.open.is_empty() {
            tokio::select! {
                Some(done) = self.running.join_next() => self.ended(done),
                () = self.lines.closed() => return,
                () = tokio::time::sleep(HANGUP_POLL) => {
                    let stream: &UnixStream = reader.get_ref().as_ref();
                    if stream.ready(Interest::WRITABLE).await.is_ok_and(|r| r.is_write_closed()) {
                        return;
                    }
                }
            }
        }
    }

    async fn begin(&mut self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let mut value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(e) => return self.refuse(None, format!("a request is not JSON: {e}")).await,
        };
        let id = value.as_object_mut().and_then(|fields| fields.remove("id"));
        let command: Command = match serde_json::from_value(value) {
            Ok(command) => command,
            Err(e) => return self.refuse(id, format!("a request is not understood: {e}")).await,
        };
        if self.open.len() >= REQUESTS {
            return self.refuse(id, format!("{REQUESTS} requests are under way on this connection")).await;
        }
        let request = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (replies, updates) = mpsc::channel(UPDATES);
        let begun = self.node.send(ControlRequest::Begin { request, command, replies }).await;
        if begun.is_err() {
            return self.answer(&id, json!({ "error": ending() })).await;
        }
        self.open.insert(request);
        self.running.spawn(forward(request, id, updates, self.lines.clone()));
    }

    async fn refuse(&mut self, id: Option<Value>, what: String) {
        let e = CommandError::new(what, "see section 8 of SPEC.md for the requests");
        self.answer(&id, json!({ "error": e })).await;
    }

    async fn answer(&mut self, id: &Option<Value>, line: Value) {
        let _ = self.lines.send(with_id(line, id)).await;
    }

    fn ended(&mut self, done: Result<RequestId, tokio::task::JoinError>) {
        if let Ok(request) = done {
            self.open.remove(&request);
        }
    }
}

/// Passes one request's updates on until it is done.
async fn forward(
    request: RequestId,
    id: Option<Value>,
    mut updates: mpsc::Receiver<Update>,
    lines: mpsc::Sender<Value>,
) -> RequestId {
    loop {
        let (line, last) = match updates.recv().await {
            Some(Update::Event(event)) => (json!(event), false),
            Some(Update::Done(Ok(reply))) => (json!({ "result": reply }), true),
            Some(Update::Done(Err(error))) => (json!({ "error": error }), true),
            None => (json!({ "error": ending() }), true),
        };
        if lines.send(with_id(line, &id)).await.is_err() || last {
            return request;
        }
    }
}

fn ending() -> CommandError {
    CommandError::new("the running chordial is ending", "start it again with chordial start")
}

fn with_id(mut line: Value, id: &Option<Value>) -> Value {
    if let (Some(id), Value::Object(fields)) = (id, &mut line) {
        fields.insert("id".into(), id.clone());
    }
    line
}

/// Clients at a time.
const CONNECTIONS: usize = 64;
/// Requests at a time on one connection.
const REQUESTS: usize = 32;
/// How long the end of the program waits for its clients to read their answers.
const LAST_WORDS: Duration = Duration::from_secs(1);
const HANGUP_POLL: Duration = Duration::from_millis(200);
