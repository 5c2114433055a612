//! The commands against a control server that plays the running program.

use super::*;
use crate::io::control::{ControlRequest, Server, Update};
use crate::node::control::{CallReport, Command as Ask, CommandError, Event, LookupReport, Reply};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

struct Running {
    data: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Ask>>>,
}

/// A program that answers every command with what `answer` makes of it.
fn running(answer: fn(&Ask) -> Vec<Update>) -> Running {
    let data = tempfile::tempdir().unwrap();
    let server = Server::bind(data.path()).unwrap();
    let (sender, mut requests) = mpsc::channel(8);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(server.serve(sender));
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let ControlRequest::Begin { command, replies, .. } = request else { continue };
            for update in answer(&command) {
                replies.send(update).await.unwrap();
            }
            log.lock().unwrap().push(command);
        }
    });
    Running { data, asked }
}

fn done(reply: Reply) -> Update {
    Update::Done(Ok(reply))
}

#[tokio::test]
async fn a_lookup_is_done_when_something_was_found() {
    let program = running(|command| {
        let Ask::Lookup { target, .. } = command else { panic!("{command:?}") };
        let report = LookupReport { found: target == "bob", aor: format!("sip:{target}@demo"), ..Default::default() };
        vec![done(Reply::Lookup(report))]
    });
    let ask = |target: &str| LookupArgs { target: target.into(), iterative: false };
    ask::lookup(program.data.path(), ask("bob"), true).await.unwrap();
    let e = ask::lookup(program.data.path(), ask("eve"), true).await.unwrap_err().error();
    assert!(e.what.starts_with("nobody is registered as sip:eve@demo (0 peers asked"), "{e}");
}

#[tokio::test]
async fn a_call_is_done_when_it_was_answered() {
    let program = running(|command| {
        let Ask::Call { target, .. } = command else { panic!("{command:?}") };
        let result = if target == "bob" { "completed" } else { "busy" };
        let report = CallReport { result: result.into(), status: 486, ..Default::default() };
        vec![Update::Event(Event::Ringing { call: 1 }), done(Reply::Call(report))]
    });
    let ask = |target: &str| CallArgs {
        target: target.into(),
        play: Some("tone".into()),
        record: None,
        duration: Some(1.5),
        account: None,
    };
    ask::call(program.data.path(), ask("bob"), true).await.unwrap();
    let e = ask::call(program.data.path(), ask("eve"), false).await.unwrap_err().error();
    assert_eq!(e.what, "eve is busy (486)");
    let play = Some("tone".into());
    let expected = Ask::Call { target: "bob".into(), play, record: None, duration: Some(1.5), account: None };
    assert_eq!(program.asked.lock().unwrap()[0], expected);
}

#[tokio::test]
async fn a_refusal_keeps_the_programs_own_words() {
    let program = running(|_| vec![Update::Done(Err(CommandError::new("no call is ringing", "see chordial calls")))]);
    let e = ask::one(program.data.path(), Ask::Answer { call: None }, false).await.unwrap_err().error();
    assert_eq!((e.what.as_str(), e.next.as_str()), ("no call is ringing", "see chordial calls"));
    let nobody = tempfile::tempdir().unwrap();
    let e = ask::one(nobody.path(), Ask::Status, false).await.unwrap_err().error().to_string();
    let path = nobody.path().display();
    assert_eq!(e, format!("no chordial is running with data directory {path}; start one with chordial start"));
}

#[test]
fn where_the_data_directory_is() {
    let find = |vars: &[(&str, &str)]| {
        default_data(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    };
    let path = |vars| find(vars).unwrap().display().to_string();
    assert_eq!(path(&[("CHORDIAL_DATA", "/c"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), "/c");
    assert_eq!(path(&[("CHORDIAL_DATA", ""), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), "/x/chordial");
    assert_eq!(path(&[("HOME", "/h")]), "/h/.local/share/chordial");
    assert!(matches!(find(&[]), Err(Failure::NoHome)));
}

#[test]
fn what_is_wrong_with_a_start_is_said_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[sip]\nlistne = 1\n").unwrap();
    let line = |args: &StartArgs| start::prepare(&data, args).unwrap_err().error().to_string();
    let args = StartArgs { config: Some(file.clone()), ..Default::default() };
    assert!(line(&args).starts_with(&format!("{}: line 2: unknown field `listne`", file.display())));
    let args = StartArgs { config: Some(dir.path().join("none.toml")), ..Default::default() };
    assert!(line(&args).starts_with("cannot read "));
    let args = StartArgs { flags: vec![("sip-listen", "x".into())], ..Default::default() };
    assert!(line(&args).starts_with("--sip-listen: "));
    let args = StartArgs { flags: vec![("log", "=/=".into())], ..Default::default() };
    assert!(line(&args).starts_with("--log: "));
    assert!(!data.exists());
    // One program a data directory.
    let first = start::prepare(&data, &StartArgs::default()).unwrap();
    let second = line(&StartArgs::default());
    assert!(second.contains("is in use by another chordial") && second.contains("chordial stop"), "{second}");
    drop(first);
    start::prepare(&data, &StartArgs::default()).unwrap();
}
