use super::*;
use crate::node::control::{CallReport, LookupReport, PeerStatus};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A node that answers some commands at once, holds calls until they are aborted, and reports aborts.
async fn node(mut requests: mpsc::Receiver<ControlRequest>, aborted: mpsc::Sender<RequestId>) {
    let mut held = Vec::new();
    while let Some(request) = requests.recv().await {
        match request {
            ControlRequest::Abort { request } => aborted.send(request).await.unwrap(),
            ControlRequest::Begin { request, command, replies } => match command {
                Command::Lookup { target, iterative } => {
                    let mode = if iterative { "iterative" } else { "recursive" };
                    let report = LookupReport { found: true, aor: target, mode: mode.into(), ..Default::default() };
                    replies.send(Update::Done(Ok(Reply::Lookup(report)))).await.unwrap();
                }
                Command::Peers => {
                    let peers = vec![PeerStatus { peer_id: "ab".into(), ..Default::default() }];
                    replies.send(Update::Done(Ok(Reply::Peers { peers }))).await.unwrap();
                }
                Command::Call { target, .. } if target == "hold" => {
                    replies.send(Update::Event(Event::Ringing { call: request.0 })).await.unwrap();
                    held.push(replies);
                }
                Command::Call { target, .. } => {
                    let call = request.0;
                    replies.send(Update::Event(Event::Ringing { call })).await.unwrap();
                    let answered = Event::Answered { call, setup_ms: 12.5, codec: "opus".into() };
                    replies.send(Update::Event(answered)).await.unwrap();
                    let report = CallReport { result: "completed".into(), with: target, call, ..Default::default() };
                    replies.send(Update::Done(Ok(Reply::Call(report)))).await.unwrap();
                }
                Command::Answer { .. } => {
                    let e = CommandError::new("no call is ringing", "see chordial calls");
                    replies.send(Update::Done(Err(e))).await.unwrap();
                }
                Command::Stop => {
                    replies.send(Update::Done(Ok(Reply::Done { done: "stopped".into() }))).await.unwrap();
                    return;
                }
                // Dropped unanswered.
                _ => {}
            },
        }
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
    aborted: mpsc::Receiver<RequestId>,
}

fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(dir.path()).unwrap();
    let (requests, receiver) = mpsc::channel(16);
    let (abort, aborted) = mpsc::channel(16);
    tokio::spawn(node(receiver, abort));
    Fixture { dir, server: tokio::spawn(server.serve(requests)), aborted }
}

async fn raw(fixture: &Fixture, text: &str) -> (BufReader<UnixStream>, Vec<u8>) {
    let mut stream = UnixStream::connect(fixture.dir.path().join(SOCKET)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    (BufReader::new(stream), Vec::new())
}

async fn line(reader: &mut (BufReader<UnixStream>, Vec<u8>)) -> Value {
    reader.1.clear();
    assert!(read_line(&mut reader.0, &mut reader.1, 1 << 20).await.unwrap(), "the server closed");
    serde_json::from_slice(&reader.1).unwrap()
}

#[tokio::test]
async fn a_command_and_its_reply_cross_the_socket() {
    let f = start();
    let mut client = Client::connect(f.dir.path()).await.unwrap();
    let command = Command::Lookup { target: "bob".into(), iterative: true };
    let Reply::Lookup(report) = client.request(&command, |_| panic!("no event was sent")).await.unwrap() else {
        panic!("another reply")
    };
    assert_eq!((report.found, report.aor.as_str(), report.mode.as_str()), (true, "bob", "iterative"));
    let Reply::Peers { peers } = client.request(&Command::Peers, |_| {}).await.unwrap() else { panic!() };
    assert_eq!(peers.len(), 1);
}

#[tokio::test]
async fn events_come_before_the_result() {
    let f = start();
    let mut client = Client::connect(f.dir.path()).await.unwrap();
    let mut events = Vec::new();
    let command = Command::Call { target: "bob".into(), play: None, record: None, duration: None, account: None };
    let reply = client.request(&command, |e| events.push(e)).await.unwrap();
    assert!(matches!(reply, Reply::Call(r) if r.result == "completed" && r.with == "bob"));
    assert!(matches!(events[..], [Event::Ringing { .. }, Event::Answered { setup_ms: 12.5, .. }]), "{events:?}");
}

#[tokio::test]
async fn refusals_and_silence_are_errors_with_a_next_step() {
    let f = start();
    let mut client = Client::connect(f.dir.path()).await.unwrap();
    let e = client.request(&Command::Answer { call: None }, |_| {}).await.unwrap_err();
    assert_eq!((e.to_string().as_str(), e.next()), ("no call is ringing; see chordial calls", "see chordial calls"));
    let e = client.request(&Command::Status, |_| {}).await.unwrap_err();
    assert!(e.to_string().contains("is ending"), "{e}");
}

#[tokio::test]
async fn answers_come_in_the_order_of_completion_with_the_clients_id() {
    let f = start();
    let text = concat!(
        "{\"id\":\"a\",\"command\":\"call\",\"target\":\"hold\"}\n",
        "\n",
        "{\"id\":[2],\"command\":\"lookup\",\"target\":\"x\"}\n",
        "{\"command\":\"peers\"}\n",
        "{\"id\":4,\"command\":\"fly\"}\n",
        "not json\n",
    );
    let mut stream = raw(&f, text).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(line(&mut stream).await);
    }
    let find = |key: &str, id: Value| answers.iter().find(|a| a.get("id") == Some(&id) && a.get(key).is_some());
    assert_eq!(find("event", json!("a")).unwrap()["event"], "ringing");
    assert_eq!(find("result", json!([2])).unwrap()["result"]["found"], true);
    assert!(answers.iter().any(|a| a.get("id").is_none() && a["result"]["peers"].is_array()));
    let e = &find("error", json!(4)).unwrap()["error"];
    assert!(e["what"].as_str().unwrap().contains("fly") && !e["next"].as_str().unwrap().is_empty(), "{e}");
    assert!(answers.iter().any(|a| a["error"]["what"].as_str().is_some_and(|w| w.contains("not JSON"))));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_call_with_it() {
    let mut f = start();
    let mut stream = raw(&f, "{\"command\":\"call\",\"target\":\"hold\"}\n").await;
    let call = line(&mut stream).await["call"].as_u64().unwrap();
    drop(stream);
    assert_eq!(f.aborted.recv().await, Some(RequestId(call)));
    // So does one that had already said that it will ask nothing more.
    let mut stream = raw(&f, "{\"command\":\"call\",\"target\":\"hold\"}\n").await;
    stream.0.get_mut().shutdown().await.unwrap();
    let call = line(&mut stream).await["call"].as_u64().unwrap();
    drop(stream);
    assert_eq!(f.aborted.recv().await, Some(RequestId(call)));
}

#[tokio::test]
async fn a_client_that_only_ends_its_input_still_gets_its_answer() {
    let mut f = start();
    let mut stream = raw(&f, "{\"command\":\"call\",\"target\":\"bob\"}\n{\"command\":\"peers\"}\n").await;
    stream.0.get_mut().shutdown().await.unwrap();
    let mut text = String::new();
    stream.0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(f.aborted.try_recv().is_err());
}

#[tokio::test]
async fn a_line_without_end_closes_the_connection() {
    let f = start();
    let mut stream = raw(&f, "").await;
    let sent = stream.0.get_mut().write_all(&vec![b'x'; REQUEST_LINE + 10]).await;
    assert!(sent.is_ok());
    assert!(line(&mut stream).await["error"]["what"].as_str().unwrap().contains("64 KiB"));
    assert!(!read_line(&mut stream.0, &mut Vec::new(), 10).await.unwrap_or(false));
}

#[tokio::test]
async fn the_last_answer_arrives_and_the_socket_goes() {
    let f = start();
    let mut client = Client::connect(f.dir.path()).await.unwrap();
    assert!(matches!(client.request(&Command::Stop, |_| {}).await.unwrap(), Reply::Done { .. }));
    f.server.await.unwrap();
    assert!(!f.dir.path().join(SOCKET).exists());
    let e = Client::connect(f.dir.path()).await.unwrap_err();
    assert!(matches!(e, ControlError::NotRunning { .. }));
    let said = format!("no chordial is running with data directory {}", f.dir.path().display());
    assert_eq!((e.to_string(), e.next()), (said, "start one with chordial start"));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
    let server = Server::bind(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Server::bind(dir.path()).unwrap_err(), ControlError::InUse { .. }));
    drop(server);
    // What is no socket is nobody's to remove.
    std::fs::write(dir.path().join(SOCKET), b"precious").unwrap();
    assert!(matches!(Server::bind(dir.path()).unwrap_err(), ControlError::Io { .. }));
    assert_eq!(std::fs::read(dir.path().join(SOCKET)).unwrap(), b"precious");
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    assert!(matches!(Server::bind(&deep).unwrap_err(), ControlError::PathTooLong { .. }));
}

#[tokio::test]
async fn requests_end_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(dir.path()).unwrap();
    let (requests, mut receiver) = mpsc::channel(16);
    let serving = tokio::spawn(server.serve(requests));
    let mut client = Client::connect(dir.path()).await.unwrap();
    let asked = tokio::spawn(async move { client.request(&Command::Status, |_| {}).await });
    let first = receiver.recv().await.unwrap();
    drop(receiver);
    drop(first);
    assert!(matches!(asked.await.unwrap().unwrap_err(), ControlError::Refused(_)));
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("the server ends with the node").unwrap();
}
