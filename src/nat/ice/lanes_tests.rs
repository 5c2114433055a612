//! Two ends with two ways between them, on a clock of milliseconds.

use super::lanes::{Figures, Lanes, Second};
use super::{Route, is_probe};
use crate::core::{Instant, Redacted, Rng};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Way and sender of a probe: how long it takes, or that it is lost.
type Net<'a> = dyn FnMut(Instant, usize, usize) -> Option<Duration> + 'a;

fn route(end: usize, way: usize) -> Route {
    let at = |end: usize| format!("10.{way}.0.{end}:4000").parse().unwrap();
    Route { socket: at(end), remote: at(1 - end), relay: None }
}

struct Pair {
    ends: [Lanes; 2],
    now: Instant,
    /// Due, to whom, probe.
    wire: Vec<(Instant, usize, Vec<u8>)>,
    /// All that was sent.
    seen: Vec<(usize, Vec<u8>)>,
}

impl Pair {
    fn new() -> Pair {
        let keys = ["one", "two"].map(|k| Redacted::new(k.to_owned()));
        // They have not begun at the same time, nor do they count from the same.
        let ends = [0, 1].map(|end| {
            let second = Second { route: route(end, 1), local: keys[end].clone(), remote: keys[1 - end].clone() };
            Lanes::new(Instant::from_millis(13 * end as u64), route(end, 0), second)
        });
        Pair { ends, now: Instant::ZERO, wire: Vec::new(), seen: Vec::new() }
    }

    /// Frames of 20 ms at both ends, the other one's 7 ms later.
    fn run(&mut self, time: Duration, net: &mut Net) {
        let until = self.now + time;
        while self.now < until {
            let now = self.now;
            for end in 0..2 {
                if now.as_millis() % 20 == 7 * end as u64 {
                    self.ends[end].handle_timeout(now);
                }
                while let Some(probe) = self.ends[end].poll_output() {
                    let way = usize::from(probe.route == route(end, 1));
                    self.seen.push((end, probe.bytes.clone()));
                    if let Some(late) = net(now, way, end) {
                        self.wire.push((now + late, 1 - end, probe.bytes));
                    }
                }
            }
            let (due, later) = std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= now);
            self.wire = later;
            for (_, end, bytes) in due {
                assert!(self.ends[end].handle(now, &bytes), "a probe of the other end's");
            }
            self.now += MS;
        }
    }

    fn figures(&self, end: usize) -> Figures {
        self.ends[end].figures(self.now)
    }
}

fn sound(_: Instant, _: usize, _: usize) -> Option<Duration> {
    Some(MS * 30)
}

#[test]
fn two_sound_ways_are_left_as_they_are_and_measured() {
    let mut pair = Pair::new();
    pair.run(MS * 60_000, &mut |_, way, _| Some(MS * [20, 90][way]));
    for end in 0..2 {
        let figures = pair.figures(end);
        assert_eq!((figures.on_second, figures.both, figures.moves, figures.copy_bytes), (false, false, 0, 0));
        assert_eq!(figures.loss, [0.0; 2]);
        let rtt = figures.rtt.map(|rtt| rtt.expect("measured").as_millis());
        // There by either way, back by the faster one.
        assert!((40..=42).contains(&rtt[0]) && (110..=112).contains(&rtt[1]), "{rtt:?}");
        // 20 probes a second on each way, 60 bytes and 28 of headers.
        assert!((208_000..=212_000).contains(&figures.probe_bytes), "{}", figures.probe_bytes);
    }
}

#[test]
fn each_packet_goes_both_ways_soon_after_a_cut_and_then_the_other_one_alone() {
    for late in [5_u32, 50, 150] {
        let mut pair = Pair::new();
        pair.run(MS * 5_000, &mut |_, _, _| Some(MS * late));
        let cut = pair.now;
        let mut doubled = None;
        let mut moved = None;
        for _ in 0..1_000 {
            pair.run(MS, &mut |_, way, _| (way == 1).then_some(MS * late));
            let (_, copy) = pair.ends[0].take(100);
            doubled = doubled.or(copy.map(|_| pair.now.since(cut)));
            moved = moved.or(pair.figures(0).on_second.then(|| pair.now.since(cut)));
        }
        let (doubled, moved) = (doubled.expect("both"), moved.expect("moved"));
        // Of the round trip the end knows nothing; the rest is a probe, a frame, the doubt.
        let most = MS * (2 * late + 145);
        assert!(
            doubled <= most && moved >= doubled + MS * 60 && moved < most + MS * 100,
            "{late}: {doubled:?} {moved:?}"
        );
        assert_eq!(pair.ends[0].take(100), (route(0, 1), None));
    }
}

#[test]
fn where_both_are_cut_or_an_end_stands_still_nothing_moves() {
    let mut pair = Pair::new();
    pair.run(MS * 5_000, &mut sound);
    pair.run(MS * 5_000, &mut |_, _, _| None);
    assert_eq!((pair.figures(0).moves, pair.figures(1).moves), (0, 0));
    assert!(!pair.figures(0).answered);
    pair.run(MS * 5_000, &mut sound);
    assert_eq!((pair.figures(0).moves, pair.figures(0).both), (0, false));
    assert!(pair.figures(0).answered);
}

#[test]
fn jitter_moves_nothing() {
    let (mut lot, mut pair) = (Rng::from_seed(1), Pair::new());
    pair.run(MS * 120_000, &mut |_, _, _| Some(MS * (20 + lot.below(40) as u32)));
    assert_eq!((pair.figures(0).moves, pair.figures(1).moves), (0, 0));
}

#[test]
fn what_was_replayed_forged_or_held_back_counts_for_nothing() {
    let mut pair = Pair::new();
    pair.run(MS * 3_000, &mut sound);
    for (_, end, bytes) in std::mem::take(&mut pair.wire) {
        pair.ends[end].handle(pair.now, &bytes);
    }
    let seen = std::mem::take(&mut pair.seen);
    let before = pair.figures(1);
    for (from, bytes) in &seen {
        assert!(is_probe(bytes));
        assert!(!pair.ends[1 - from].handle(pair.now, bytes), "a replay");
        assert!(!pair.ends[*from].handle(pair.now, bytes), "one's own, sent back");
    }
    for n in 0..seen[0].1.len() {
        let mut forged = seen[0].1.clone();
        forged[n] ^= 1;
        assert!(!pair.ends[1].handle(pair.now, &forged), "byte {n} changed");
    }
    assert_eq!(pair.figures(1), before);
    // A relay that keeps everything back for a second, and then lets it all go: the other way is taken meanwhile.
    let held = pair.now;
    pair.run(MS * 4_000, &mut |now, way, _| {
        let late = if way == 0 && now.since(held) < MS * 1_000 { MS * 1_030 - now.since(held) } else { MS * 30 };
        Some(late)
    });
    assert!((0..2).all(|end| pair.figures(end).moves >= 1));
}

#[test]
fn rubbish_is_no_probe() {
    let (mut rng, mut pair) = (Rng::from_seed(4), Pair::new());
    for length in 0..200 {
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes);
        assert!(!pair.ends[0].handle(Instant::ZERO, &bytes));
        if let Some(start) = bytes.get_mut(..8) {
            start.copy_from_slice(&[0, 0x11, 0, 40, 0x21, 0x12, 0xa4, 0x42]);
        }
        assert!(!pair.ends[0].handle(Instant::ZERO, &bytes));
    }
}
