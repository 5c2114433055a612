//! `chordial demo`: everything on one machine. Seven peers, each a process with its own sockets, form a
//! ring on loopback; a standard phone registers with one of them; they look each other up and talk; the peer that
//! holds a registration is killed without warning and the call is placed again. Then a report.
//!
//! Nothing in it is simulated: the peers are this program, started as a user would and driven through
//! their control sockets, and what was heard is computed from the recordings.

mod hearing;
mod play;
mod report;
mod ring;
mod ring_state;
mod show;
mod stage;

use super::Failure;
use super::cli::out;
use serde_json::json;
use show::Show;
use stage::Stage;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the demo. With `keep` everything that it made stays in that directory.
///
/// # Errors
/// The step that failed, and where the logs are.
pub async fn run(keep: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|source| Failure::System { what: "cannot find this program's own file", source })?;
    run_with(program, keep, json).await
}

async fn run_with(program: PathBuf, keep: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let kept = keep.is_some();
    let mut stage = Stage::new(program, keep)?;
    let mut show = Show::new(json);
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    let played = tokio::select! {
        biased;
        () = &mut interrupt => Err(None),
        played = play::play(&mut stage, &mut show) => played.map_err(Some),
    };
    // Ctrl-C reaches the children too, and one that ended by it is not what failed.
    let interrupted = match played {
        Ok(_) => false,
        Err(None) => true,
        Err(Some(_)) => tokio::time::timeout(Duration::from_millis(200), &mut interrupt).await.is_ok(),
    };
    show.end();
    let failed = |step: &str, why: String, stage: &mut Stage| {
        stage.keep();
        Failure::Demo { step: step.to_owned(), why, logs: stage.root().to_owned() }
    };
    let mut report = match played {
        Ok(report) => report,
        Err(Some(e)) if !interrupted => return Err(failed(show.current(), e.to_string(), &mut stage)),
        // Dropping the stage ends every child.
        Err(_) => return Err(Failure::said("the demo was interrupted", "its processes have ended with it")),
    };
    report.checks = show.checks().to_vec();
    report.seconds = show.seconds();
    let broken: Vec<_> = report.checks.iter().filter(|c| !c.ok).map(|c| c.name.clone()).collect();
    report.ok = broken.is_empty();
    if !json {
        out(report.text().trim_end());
        if kept {
            out(&format!("Recordings and logs are in {}.", stage.root().display()));
        }
    }
    if json {
        out(&json!(report).to_string());
    }
    match broken.as_slice() {
        [] => Ok(()),
        [one] => Err(failed(one, "it does not hold".into(), &mut stage)),
        [one, more @ ..] => Err(failed(one, format!("it does not hold, nor do {} more", more.len()), &mut stage)),
    }
}

/// Ctrl-C, or whoever else asks this process to end.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut other = async || match (&mut terminate, &mut hangup) {
        (Some(t), Some(h)) => {
            tokio::select! { _ = t.recv() => {}, _ = h.recv() => {} }
        }
        _ => std::future::pending().await,
    };
    tokio::select! { _ = tokio::signal::ctrl_c() => {}, () = other() => {} }
}
