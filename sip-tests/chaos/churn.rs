//! Kills and starts, calls and lookups.

use crate::office::{Office, unique};
use crate::process::{Process, run};
use crate::program::last_json;
use crate::tools::{DEADLINE, eventually};
use chordial::core::Rng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// From one kill to the next.
const KILL: Duration = Duration::from_secs(4);
/// From one call to the next.
const CALL: Duration = Duration::from_secs(1);
/// How long a killed peer stays dead, at least.
const DEAD: Duration = Duration::from_secs(5);
/// Calls that may be under way at once: more would measure the machine.
const CALLS: usize = 6;

/// What is known of the members, shared by those who kill, start and call.
struct Field {
    /// Running and registered.
    living: BTreeMap<usize, Process>,
    /// When it was killed last.
    killed: BTreeMap<usize, Instant>,
    /// Being started.
    starting: Option<usize>,
}

#[derive(Default)]
struct Tally {
    set_up: usize,
    excused: usize,
    failed: Vec<String>,
    setup_ms: Vec<f64>,
}

#[test]
fn calls_between_the_living_are_set_up_while_others_are_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let long = std::env::var("CHORDIAL_LONG").is_ok();
    let seconds = number("CHORDIAL_CHAOS").unwrap_or(if long { 60 } else { 20 });
    let size = number("CHORDIAL_CHAOS_PEERS").unwrap_or(if long { 30 } else { 12 }) as usize;
    let seed = number("CHORDIAL_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{size} peers, {seconds} s, CHORDIAL_CHAOS_SEED={seed}");
    let mut rng = Rng::from_seed(seed);
    let (office, founder) = Office::new(size);
    let mut living = BTreeMap::from([(0, founder)]);
    for n in 1..size {
        living.insert(n, office.start(n));
    }
    let field = Mutex::new(Field { living, killed: BTreeMap::new(), starting: None });
    let tally = Mutex::new(Tally::default());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut next_kill, mut next_call, mut kills, mut starts) = (Instant::now() + KILL, Instant::now(), 0, 0);
    thread::scope(|scope| {
        let mut calls: Vec<thread::ScopedJoinHandle<'_, ()>> = Vec::new();
        while Instant::now() < end {
            if next_kill <= Instant::now() {
                next_kill += KILL;
                kills += usize::from(kill_one(&mut field.lock().unwrap(), size, &mut rng));
                if let Some(again) = dead_one(&mut field.lock().unwrap(), size, &mut rng) {
                    starts += 1;
                    let (office, field) = (&office, &field);
                    scope.spawn(move || {
                        let process = office.start(again);
                        let mut field = field.lock().unwrap();
                        field.living.insert(again, process);
                        field.starting = None;
                    });
                }
            }
            if next_call <= Instant::now() {
                next_call += CALL;
                calls.retain(|c| !c.is_finished());
                if let Some((from, to)) = pair(&field.lock().unwrap(), &mut rng).filter(|_| calls.len() < CALLS) {
                    let (office, field, tally) = (&office, &field, &tally);
                    calls.push(scope.spawn(move || call(office, field, tally, from, to)));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let tally = tally.into_inner().unwrap();
    let mut setup = tally.setup_ms.clone();
    setup.sort_by(f64::total_cmp);
    let at = |share: f64| setup.get((setup.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    eprintln!(
        "{kills} kills, {starts} starts; {} calls set up (median {:.0} ms, 99 % {:.0} ms, longest {:.0} ms), {} failed, {} not counted because an end was killed",
        tally.set_up,
        at(0.5),
        at(0.99),
        setup.last().copied().unwrap_or(0.0),
        tally.failed.len(),
        tally.excused
    );
    assert!(kills > 0 && tally.set_up > 0, "nothing was tried");
    assert!(
        tally.failed.is_empty(),
        "{} calls between the living failed:\n{}",
        tally.failed.len(),
        tally.failed.join("\n")
    );

    // Nothing is lost: everybody who lives finds everybody who lives.
    let field = field.into_inner().unwrap();
    for &from in field.living.keys() {
        for &to in field.living.keys() {
            eventually(&format!("u{from:02} finds u{to:02}"), || {
                let outcome = office.run(from, &["lookup", &office.members[to].user, "--json"]);
                if last_json(&outcome)["found"] == true { Ok(()) } else { Err(outcome.stdout) }
            });
        }
    }
}

/// Kills somebody, as long as half of all live.
fn kill_one(field: &mut Field, size: usize, rng: &mut Rng) -> bool {
    if field.living.len() <= size / 2 {
        return false;
    }
    let at = rng.below(field.living.len() as u64) as usize;
    let victim = *field.living.keys().nth(at).unwrap();
    field.killed.insert(victim, Instant::now());
    field.living.remove(&victim).unwrap().kill();
    true
}

/// Somebody who has been dead long enough, to be started by the caller.
fn dead_one(field: &mut Field, size: usize, rng: &mut Rng) -> Option<usize> {
    if field.starting.is_some() {
        return None;
    }
    let long_dead =
        |n: &usize| !field.living.contains_key(n) && field.killed.get(n).is_some_and(|k| k.elapsed() > DEAD);
    let dead: Vec<usize> = (0..size).filter(long_dead).collect();
    field.starting = dead.get(rng.below(dead.len() as u64) as usize).copied();
    field.starting
}

/// Two who live.
fn pair(field: &Field, rng: &mut Rng) -> Option<(usize, usize)> {
    let living: Vec<usize> = field.living.keys().copied().collect();
    let from = *living.get(rng.below(living.len() as u64) as usize)?;
    let to = *living.get(rng.below(living.len() as u64) as usize)?;
    (from != to).then_some((from, to))
}

/// One call; it counts unless one of its ends was killed before it was over.
fn call(office: &Office, field: &Mutex<Field>, tally: &Mutex<Tally>, from: usize, to: usize) {
    let began = Instant::now();
    let callee = office.members[to].user.clone();
    let mut command = office.command(from, &["call", &callee, "--play", "null", "--duration", "0.2", "--json"]);
    let outcome = run(&unique("call"), &mut command, office.dir(), DEADLINE);
    let killed = |n: &usize| field.lock().unwrap().killed.get(n).is_some_and(|at| *at >= began);
    let mut tally = tally.lock().unwrap();
    if outcome.ok() {
        tally.set_up += 1;
        tally.setup_ms.extend(last_json(&outcome)["setup_ms"].as_f64());
    } else if [from, to].iter().any(killed) {
        tally.excused += 1;
    } else {
        let last = outcome.stdout.lines().last().unwrap_or_default().to_owned();
        tally.failed.push(format!("{callee} from u{from:02}: {last} {}", outcome.stderr.trim()));
    }
}
