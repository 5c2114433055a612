//! What is seen while the demo runs: a spinner with the step under way, and a line for each thing that
//! was checked; with `--json` a JSON line instead.

use crate::app::cli::{out, spinner};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

/// Something that had to happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it did.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// Seconds since the demo began.
    pub seconds: f64,
}

/// The screen.
#[derive(Debug)]
pub struct Show {
    json: bool,
    bar: ProgressBar,
    begun: Instant,
    step: String,
    checks: Vec<Check>,
}

impl Show {
    /// An empty one; the clock runs from here.
    pub fn new(json: bool) -> Show {
        let bar = if json { ProgressBar::hidden() } else { spinner() };
        Show { json, bar, begun: Instant::now(), step: "start".into(), checks: Vec::new() }
    }

    /// What is tried now.
    pub fn step(&mut self, text: impl Into<String>) {
        self.step = text.into();
        self.bar.set_message(self.step.clone());
    }

    /// What was found.
    pub fn check(&mut self, name: impl Into<String>, ok: bool, detail: impl Into<String>) {
        let check = Check { name: name.into(), ok, detail: detail.into(), seconds: self.seconds() };
        if self.json {
            out(&json!(check).to_string());
        } else {
            let mark = if ok { "✓" } else { "✗" };
            let line = format!("{:5.1} s  {mark} {:<44}  {}", check.seconds, check.name, check.detail);
            self.bar.suspend(|| out(line.trim_end()));
        }
        self.checks.push(check);
    }

    /// The spinner goes, the lines stay.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Seconds since the demo began.
    pub fn seconds(&self) -> f64 {
        (self.begun.elapsed().as_secs_f64() * 100.0).round() / 100.0
    }

    /// The step under way.
    pub fn current(&self) -> &str {
        &self.step
    }

    /// All that was checked.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }
}
