//! The commands that the running program carries out.

use super::args::{CallArgs, LookupArgs, MessageArgs, PhoneAddArgs};
use super::{password, print};
use crate::app::Failure;
use crate::io::audio::SourceSpec;
use crate::io::control::Client;
use crate::node::control::{CallReport, Command, CommandError, Event, LookupReport, Reply};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One question, one answer.
pub async fn one(data: &Path, command: Command, json: bool) -> Result<(), Failure> {
    let reply = request(data, &command, json).await?;
    if json {
        print::out(&json!(reply).to_string());
    } else {
        print::out(print::reply(&reply).trim_end());
    }
    Ok(())
}

/// `lookup`: done when a contact was found.
pub async fn lookup(data: &Path, args: LookupArgs, json: bool) -> Result<(), Failure> {
    let command = Command::Lookup { target: args.target, iterative: args.iterative };
    let reply = request(data, &command, json).await?;
    let Reply::Lookup(report) = &reply else { return Err(unexpected()) };
    if json {
        print::out(&json!(report).to_string());
    } else if report.found {
        print::out(print::reply(&reply).trim_end());
    }
    if report.found { Ok(()) } else { Err(not_found(report)) }
}

/// `message`: done when it was delivered, or waits for somebody who is absent.
pub async fn message(data: &Path, args: MessageArgs, json: bool) -> Result<(), Failure> {
    let text = match args.text.as_slice() {
        [one] if one == "-" => io::read_to_string(io::stdin())
            .map_err(|e| Failure::said(format!("standard input: {e}"), "write the text as UTF-8"))?,
        words => words.join(" "),
    };
    let reply = request(data, &Command::Message { target: args.target, text }, json).await?;
    let Reply::Sent { sent } = &reply else { return Err(unexpected()) };
    if json {
        print::out(&json!(sent).to_string());
    } else {
        print::out(print::reply(&reply).trim_end());
    }
    Ok(())
}

/// `phone add`.
pub async fn phone_add(data: &Path, args: PhoneAddArgs, json: bool) -> Result<(), Failure> {
    // Before anybody types a password, see that there is somebody to take it.
    drop(Client::connect(data).await?);
    let (password, made) = password::choose(args.password_stdin, &args.user)?;
    let user = args.user.clone();
    let command = Command::PhoneAdd { user: args.user, label: args.label, password: password.clone() };
    let reply = request(data, &command, json).await?;
    let Reply::Done { done } = reply else { return Err(unexpected()) };
    match (json, made) {
        (true, true) => print::out(&json!({ "done": done, "user": user, "password": password }).to_string()),
        (true, false) => print::out(&json!({ "done": done, "user": user }).to_string()),
        (false, true) => print::out(&format!("{done}\npassword  {password}   (it is not shown again)")),
        (false, false) => print::out(&done),
    }
    // The account is made and its password printed by now, whatever becomes of this.
    for member in args.also {
        one(data, Command::PhoneShare { user: user.clone(), member }, json).await?;
    }
    Ok(())
}

/// `call`: done when it was answered. Ctrl-C hangs up and still brings the report.
pub async fn call(data: &Path, args: CallArgs, json: bool) -> Result<(), Failure> {
    let command = Command::Call {
        target: args.target.clone(),
        play: args.play.map(|p| source(&p)).transpose()?,
        record: args.record.map(|p| sink(&p)).transpose()?,
        duration: args.duration,
        account: args.account,
    };
    let mut client = Client::connect(data).await?;
    let bar = if json { ProgressBar::hidden() } else { spinner() };
    bar.set_message(format!("calling {}", args.target));
    let number = Cell::new(None);
    let on_event = |event: Event| {
        match &event {
            Event::Ringing { call } => {
                number.set(Some(*call));
                bar.set_message(format!("{} rings", args.target));
            }
            Event::Answered { call, codec, .. } => {
                number.set(Some(*call));
                bar.reset_elapsed();
                bar.set_message(format!("talking with {} ({codec}; Ctrl-C hangs up)", args.target));
            }
            Event::Held { here, there, .. } => bar.println(print::held(*here, *there)),
            Event::Dtmf { digit, .. } => bar.println(format!("digit {digit}")),
            _ => {}
        }
        if json {
            print::out(&json!(event).to_string());
        }
    };
    let reply = {
        let request = client.request(&command, on_event);
        tokio::pin!(request);
        let mut interrupted = false;
        loop {
            tokio::select! {
                reply = &mut request => break reply?,
                _ = tokio::signal::ctrl_c() => {
                    if interrupted {
                        return Err(Failure::said("interrupted", "chordial calls shows what is left"));
                    }
                    interrupted = true;
                    let mut second = Client::connect(data).await?;
                    second.request(&Command::Hangup { call: number.get() }, |_| {}).await?;
                }
            }
        }
    };
    bar.finish_and_clear();
    let Reply::Call(report) = reply else { return Err(unexpected()) };
    if json {
        print::out(&json!(report).to_string());
    }
    if report.result != "completed" {
        return Err(not_completed(&args.target, &report));
    }
    if !json {
        print::out(&print::call_line(&report));
    }
    Ok(())
}

/// Asks, with a spinner from the second second on.
pub(super) async fn request(data: &Path, command: &Command, json: bool) -> Result<Reply, Failure> {
    let mut client = Client::connect(data).await?;
    let request = client.request(command, |_| {});
    tokio::pin!(request);
    if let Ok(reply) = tokio::time::timeout(Duration::from_secs(1), &mut request).await {
        return Ok(reply?);
    }
    let bar = if json { ProgressBar::hidden() } else { spinner() };
    bar.set_message("waiting for the running chordial");
    let reply = request.await;
    bar.finish_and_clear();
    Ok(reply?)
}

/// A spinner on standard error, with seconds; invisible where that is no terminal.
pub fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    if io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}

/// What is to be played, if it can be.
fn source(text: &str) -> Result<String, Failure> {
    if text == "tone" || is_no_file(text) {
        return Ok(text.into());
    }
    let path = sound(text)?;
    // The running program opens it when the call is answered; who placed the call is told now.
    let opened = SourceSpec::Wav(path.clone()).check();
    opened.map_err(|e| Failure::said(format!("--play: {e}"), "name a WAV file of 16 bit PCM that can be read"))?;
    Ok(format!("wav:{}", path.display()))
}

/// Silence or a sound device, which need no path.
fn is_no_file(text: &str) -> bool {
    ["null", "auto", "device"].contains(&text) || text.starts_with("device:")
}

/// Where the other end is to be recorded, if there is such a place.
fn sink(text: &str) -> Result<String, Failure> {
    if is_no_file(text) {
        return Ok(text.into());
    }
    let path = sound(text)?;
    if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
        let what = format!("--record: {} is not a file in a directory that is there", path.display());
        return Err(Failure::said(what, "name a file to be written"));
    }
    Ok(format!("wav:{}", path.display()))
}

/// A file of the caller's directory as the running program, which has another one, finds it.
fn sound(text: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(text.strip_prefix("wav:").unwrap_or(text));
    std::path::absolute(&path).map_err(|source| Failure::File { action: "find", path, source })
}

pub(super) fn unexpected() -> Failure {
    Failure::said("the running chordial gave another answer than the one asked for", "run the same version of both")
}

fn not_found(report: &LookupReport) -> Failure {
    let asked: BTreeSet<&String> = report.peers_asked.iter().collect();
    let (asked, ms) = (asked.len(), report.ms);
    let peers = if asked == 1 { "peer" } else { "peers" };
    Failure::Reported(CommandError::new(
        format!("nobody is registered as {} ({asked} {peers} asked in {ms:.0} ms)", report.aor),
        "check the name; chordial status on that device shows whether it is registered",
    ))
}

fn not_completed(target: &str, report: &CallReport) -> Failure {
    let (what, next) = match report.result.as_str() {
        _ if report.status == 300 => ("is not one person", format!("chordial lookup {target} shows the keys")),
        "busy" => ("is busy", "try again later".to_owned()),
        "no-answer" => ("does not answer", "try again later".to_owned()),
        "rejected" => ("declined", "try again later".to_owned()),
        "not-found" => ("is not found", format!("chordial lookup {target} shows who was asked")),
        _ => ("could not be called", "chordial status shows the state of the overlay".to_owned()),
    };
    let why = match (report.status, report.reason.as_str()) {
        (0, "") => String::new(),
        (0, reason) => format!(" ({reason})"),
        (status, reason) => format!(" ({})", format!("{status} {reason}").trim()),
    };
    Failure::Reported(CommandError::new(format!("{target} {what}{why}"), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_named_for_another_directory() {
        assert_eq!(source("tone").unwrap(), "tone");
        let speech = std::env::current_dir().unwrap().join("config/speech.wav");
        assert_eq!(source("config/speech.wav").unwrap(), format!("wav:{}", speech.display()));
        assert_eq!(source(&format!("wav:{}", speech.display())).unwrap(), format!("wav:{}", speech.display()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(sink("a.wav").unwrap(), format!("wav:{}/a.wav", here.display()));
        assert_eq!(sink("wav:/tmp/a.wav").unwrap(), "wav:/tmp/a.wav");
    }

    #[test]
    fn a_sound_that_cannot_be_is_refused_before_anybody_rings() {
        let line = |e: Result<String, Failure>| e.unwrap_err().error().to_string();
        let e = line(source("/nonexistent/a.wav"));
        assert!(e.starts_with("--play: /nonexistent/a.wav: ") && e.ends_with("that can be read"), "{e}");
        assert!(line(source("Cargo.toml")).starts_with("--play: "));
        assert!(line(sink("/nonexistent/a.wav")).starts_with("--record: /nonexistent/a.wav is not"));
        assert!(line(sink("/tmp")).starts_with("--record: /tmp is not"));
    }

    #[test]
    fn what_a_failed_call_says() {
        let report = |result: &str, status, reason: &str| CallReport {
            result: result.into(),
            status,
            reason: reason.into(),
            ..Default::default()
        };
        let line = |r| not_completed("bob", &r).error().to_string();
        assert_eq!(line(report("busy", 486, "Busy Here")), "bob is busy (486 Busy Here); try again later");
        let said = "bob is not found (no such user); chordial lookup bob shows who was asked";
        assert_eq!(line(report("not-found", 0, "no such user")), said);
        assert!(line(report("failed", 0, "")).starts_with("bob could not be called; "));
    }
}
