//! Machines in trouble: a disk that is full, a clock that is a day behind, one data directory on two machines.

use crate::office::{Office, unique};
use crate::process::Process;
use crate::program::last_json;
use crate::tools::{DEADLINE, eventually, free_ports, have, skip};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const PEERS: usize = 4;

fn office() -> (Office, Vec<Process>) {
    let (office, founder) = Office::new(PEERS);
    let mut living = vec![founder];
    living.extend((1..PEERS).map(|n| office.start(n)));
    (office, living)
}

/// Everybody finds everybody, and the neighbours call each other.
fn all_is_well(office: &Office) {
    for from in 0..PEERS {
        for to in 0..PEERS {
            eventually(&format!("u{from:02} finds u{to:02}"), || {
                let outcome = office.run(from, &["lookup", &office.members[to].user, "--json"]);
                if last_json(&outcome)["found"] == true { Ok(()) } else { Err(outcome.stdout) }
            });
        }
        let to = &office.members[(from + 1) % PEERS].user;
        eventually(&format!("u{from:02} calls {to}"), || {
            let outcome = office.run(from, &["call", to, "--duration", "1", "--json"]);
            if last_json(&outcome)["result"] == "completed" { Ok(()) } else { Err(outcome.stdout) }
        });
    }
}

/// Waits until `status` of a member warns with one of these words.
fn warns(office: &Office, n: usize, word: &str) -> Value {
    eventually(&format!("u{n:02} is told of \"{word}\""), || {
        let status = office.status(n)?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let told = warnings.iter().find(|w| w["what"].as_str().is_some_and(|w| w.contains(word)));
        let told = told.filter(|w| w["next"].as_str().is_some_and(|next| !next.is_empty()));
        told.cloned().ok_or_else(|| status["warnings"].to_string())
    })
}

/// A small file system of its own on a member's data directory, as long as it lives.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(on: &Path) -> Option<SmallDisk<'_>> {
        let aside = on.with_extension("aside");
        fs::rename(on, &aside).unwrap();
        fs::create_dir(on).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=700", "none"]).arg(on).status();
        let disk = mounted.is_ok_and(|s| s.success()).then_some(SmallDisk(on));
        let copied = Command::new("cp").arg("-a").arg(format!("{}/.", aside.display())).arg(on).status();
        assert!(copied.is_ok_and(|s| s.success()));
        disk
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut size = 1 << 20;
        for n in 0.. {
            let chunk = vec![0_u8; size];
            if fs::write(self.0.join(format!("filler-{n}")), chunk).is_err() {
                if size <= 4096 {
                    break;
                }
                size /= 4;
            }
        }
    }

    fn empty(&self) {
        for file in fs::read_dir(self.0).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("filler-") {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_stops_nobody() {
    let test = "a_full_disk_is_told_and_stops_nobody";
    if !have(test, &["mount", "cp"]) {
        return;
    }
    if let Err(why) = crate::lan::may_make() {
        skip(test, &why);
        return;
    }
    let (office, mut living) = office();
    living[2].kill();
    let disk = SmallDisk::mount(&office.members[2].data).expect("a tmpfs can be mounted");
    living[2] = office.start(2);
    all_is_well(&office);
    disk.fill();
    // Something to write: a member comes anew, and its records fall to its neighbours.
    living[3].kill();
    living[3] = office.start(3);
    let told = warns(&office, 2, "disk");
    eprintln!("told: {told}");
    all_is_well(&office);

    // With room again the warning goes, and what was taken meanwhile is written.
    disk.empty();
    eventually("the warning goes", || {
        let status = office.status(2)?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        if warnings.iter().all(|w| !w.to_string().contains("disk")) { Ok(()) } else { Err(format!("{warnings:?}")) }
    });
    living[2].kill();
    living[2] = office.start(2);
    all_is_well(&office);
    living[2].kill();
}

#[test]
fn a_clock_a_day_behind_is_told_and_stops_nobody() {
    let test = "a_clock_a_day_behind_is_told_and_stops_nobody";
    if !have(test, &["faketime"]) {
        return;
    }
    let (office, mut living) = office();
    living[2].kill();
    living[2] = office.start_under(2, &["faketime", "-f", "-1d"]);
    let told = warns(&office, 2, "clock");
    eprintln!("told: {told}");
    all_is_well(&office);
    // faketime is its parent, and the end of that one is not its end.
    office.done(2, &["stop"]);
}

#[test]
fn a_data_directory_on_two_machines_is_told() {
    let (office, _living) = office();
    // While the one runs, the other starts from a copy.
    let (first, copy) = (&office.members[3].data, office.dir().join("copy"));
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(first).unwrap().flatten().filter(|f| f.file_type().unwrap().is_file()) {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let base = free_ports(2);
    let mut command = crate::program::chordial();
    command.args(["start", "--headless", "--audio-in", "null", "--audio-out", "null", "--data"]).arg(&copy);
    command.args(["--sip-listen", &format!("127.0.0.1:{base}")]);
    command.args(["--overlay-listen", &format!("127.0.0.1:{}", base + 1)]).env("PULSE_SERVER", "none");
    let _second = Process::start(&unique("copy"), &mut command, office.dir());
    // At the latest when the member lists are compared, every two minutes.
    let until = Instant::now() + 4 * DEADLINE;
    let told = || office.status(3).is_ok_and(|s| s["warnings"].to_string().contains("copy"));
    while !told() && Instant::now() < until {
        thread::sleep(Duration::from_secs(1));
    }
    eprintln!("told: {}", warns(&office, 3, "copy"));
}
