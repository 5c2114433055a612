//! The jitter buffer: holds packets just long enough that most of them come in time.
//!
//! It measures how much later than the fastest packet each one arrives, keeps a forgetting histogram
//! of that, and aims at the delay below which 97 % of the packets stay. A packet later than the aim
//! raises the aim at once; that sinks again by 40 ms a second. The delay in force follows the aim: it grows
//! when playout waits for a packet that may still come, and shrinks when whoever plays throws away a
//! packet that this buffer calls surplus (in silence, or in speech with a blend).
//!
//! With a codec that carries a copy of each packet in the next one, and a path that loses packets, it
//! stays behind by one more packet, so that the copy is at hand when it is needed.
//!
//! Time is continuous here, packets may be of any duration, and pauses of the sender (DTX, hold, DTMF)
//! end in a fresh start of the timeline. Left for later work: stretching and squeezing of speech, so
//! delay now changes by whole packets only.

use crate::core::Instant;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Packets held at most: 2.5 s at 20 ms.
const CAPACITY: usize = 128;
/// Delays are kept in steps of 2 ms up to 500 ms.
const BIN_US: i64 = 2_000;
const BINS: usize = 250;
const QUANTILE: f32 = 0.97;
/// Each packet fades the memory of all before it: half is forgotten in about 350 packets.
const FORGET: f32 = 0.998;
const FIRST_AIM_US: i64 = 10_000;
const LEAST_AIM_US: i64 = 5_000;
/// Nothing is played later than this after the fastest packet would have been.
const LONGEST_DELAY_US: i64 = 500_000;
/// A sender whose timestamps leap further than this has started anew.
const LEAP_US: i64 = 10_000_000;
const PEAK_FALL_US_PER_S: i64 = 40_000;
/// The share of lost packets is an average over about so many.
const LOSS_MEMORY: f32 = 128.0;
/// Shares at which waiting for the copy in the next packet begins and ends.
const LOSSY: f32 = 0.012;
const LOSSLESS: f32 = 0.004;
const SURPLUS_SLACK_US: i64 = 5_000;
/// After so many packets in a row beyond the longest delay the path itself has become slower.
const MISFITS: u32 = 10;

/// What became of a packet that was put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Waits to be played.
    Kept,
    /// The same timestamp is here already.
    Duplicate,
    /// Its place has been played or concealed.
    Late,
}

/// What to play next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pull {
    /// This payload.
    Play {
        /// As it came from the network.
        payload: Bytes,
        /// True when playout runs later than it has to: if this audio is dispensable, leave it out,
        /// call [`JitterBuffer::shed`] and pull again.
        surplus: bool,
    },
    /// Audio that is lost for good: conceal `ticks` of it.
    Lost {
        /// Length in RTP clock ticks.
        ticks: u32,
        /// The payload that directly follows the gap, if it is here.
        next: Option<Bytes>,
    },
    /// Nothing is due: bridge the time. What is missing may still come and will then be played.
    Nothing,
}

struct Held {
    payload: Bytes,
    duration: u32,
    arrived: Instant,
}

/// See the module. One for each stream that is received.
pub struct JitterBuffer {
    clock_rate: i64,
    redundancy: bool,
    /// By extended timestamp.
    held: BTreeMap<i64, Held>,
    /// Extended timestamp of the newest packet.
    newest: Option<i64>,
    /// Where playout stands; none before the first packet is due.
    position: Option<i64>,
    usual_duration: u32,
    fastest: Fastest,
    spread: Vec<f32>,
    loss: f32,
    lossy: bool,
    peak_us: i64,
    peak_at: Instant,
    misfits: u32,
    delay_us: f64,
    overflowed: u64,
    stale: u64,
    shed: u64,
}

impl JitterBuffer {
    /// An empty buffer for a stream with this RTP clock (Hz); `redundancy`: packets carry copies of the ones before.
    pub fn new(clock_rate: u32, redundancy: bool) -> Self {
        JitterBuffer {
            clock_rate: i64::from(clock_rate.max(1)),
            redundancy,
            held: BTreeMap::new(),
            newest: None,
            position: None,
            usual_duration: clock_rate / 50,
            fastest: Fastest::default(),
            spread: vec![0.0; BINS],
            loss: 0.0,
            lossy: false,
            peak_us: FIRST_AIM_US,
            peak_at: Instant::ZERO,
            misfits: 0,
            delay_us: 0.0,
            overflowed: 0,
            stale: 0,
            shed: 0,
        }
    }

    /// Takes a packet that arrived at `now`; `duration` in RTP clock ticks.
    pub fn insert(&mut self, now: Instant, timestamp: u32, duration: u32, payload: Bytes) -> Arrival {
        if self.newest.is_none() {
            self.peak_at = self.peak_at.max(now);
        }
        let ts = self.extend(timestamp);
        let transit = micros(now) - self.us(ts);
        let delay = transit - self.fastest.update(now, transit);
        if delay > LONGEST_DELAY_US {
            self.misfits += 1;
            if self.misfits >= MISFITS {
                self.fastest.restart(now, transit);
                self.misfits = 0;
            }
        } else {
            self.misfits = 0;
            self.measure(now, delay);
        }
        if self.position.is_some_and(|position| ts < position) {
            return Arrival::Late;
        }
        if self.held.contains_key(&ts) {
            return Arrival::Duplicate;
        }
        if self.held.len() >= CAPACITY {
            self.held.pop_first();
            self.overflowed += 1;
        }
        self.usual_duration = duration.max(1);
        self.held.insert(ts, Held { payload, duration: duration.max(1), arrived: now });
        Arrival::Kept
    }

    /// What to play from `at` on: the time at which the first sample will be heard.
    pub fn pull(&mut self, at: Instant) -> Pull {
        let aim = self.aim(at);
        loop {
            let Some((&ts, held)) = self.held.first_key_value() else { return Pull::Nothing };
            // How much later than the fastest packet this one is if it plays now.
            let age = micros(at) - self.fastest.transit() - self.us(ts);
            let gap = self.position.map(|position| ts - position);
            if age > LONGEST_DELAY_US && self.held.len() > 1 {
                self.position = Some(ts + i64::from(held.duration));
                self.held.pop_first();
                self.stale += 1;
                continue;
            }
            match gap {
                Some(0) => return self.play(at, ts, age, aim),
                _ if age >= aim => {
                    self.missed(gap.is_some_and(|gap| gap <= 2 * i64::from(self.usual_duration)));
                    return self.play(at, ts, age, aim);
                }
                // What is missing before this packet may still come.
                Some(gap) if age + self.us(gap) >= aim => {
                    let ticks = gap.min(i64::from(self.usual_duration));
                    let next = (ticks == gap).then(|| held.payload.clone());
                    self.missed(true);
                    self.position = Some(ts - gap + ticks);
                    return Pull::Lost { ticks: ticks as u32, next };
                }
                _ => return Pull::Nothing,
            }
        }
    }

    /// Tells that a surplus payload was left out.
    pub fn shed(&mut self) {
        self.shed += 1;
    }

    /// Forgets the stream (a new source begins), not what was learnt about the path.
    pub fn restart(&mut self) {
        self.held.clear();
        self.newest = None;
        self.position = None;
        self.fastest = Fastest::default();
    }

    /// The delay aimed at, in microseconds after the fastest packet.
    pub fn aim(&self, now: Instant) -> i64 {
        let total: f32 = self.spread.iter().sum();
        let mut below = 0.0;
        let bin = self.spread.iter().position(|share| {
            below += share;
            below >= total * QUANTILE
        });
        let usual = if total > 0.0 { bin.map_or(0, |bin| (bin as i64 + 1) * BIN_US) } else { 0 };
        let copy = if self.lossy { self.us(i64::from(self.usual_duration)) } else { 0 };
        (usual.max(self.peak(now)).max(LEAST_AIM_US) + copy).min(LONGEST_DELAY_US)
    }

    /// Mean time from arrival to playout over the last packets, in microseconds.
    pub fn delay_us(&self) -> f64 {
        self.delay_us
    }

    /// Packets thrown away because they came far too late or in too great number, and surplus ones left out.
    pub fn discarded(&self) -> (u64, u64) {
        (self.overflowed + self.stale, self.shed)
    }

    fn play(&mut self, at: Instant, ts: i64, age: i64, aim: i64) -> Pull {
        let Some((_, held)) = self.held.pop_first() else { return Pull::Nothing };
        self.position = Some(ts + i64::from(held.duration));
        self.missed(false);
        let waited = at.since(held.arrived).as_micros() as f64;
        self.delay_us += (waited - self.delay_us) / if self.delay_us == 0.0 { 1.0 } else { 16.0 };
        let surplus = age - self.us(i64::from(held.duration)) >= aim + SURPLUS_SLACK_US && !self.held.is_empty();
        Pull::Play { payload: held.payload, surplus }
    }

    fn missed(&mut self, missed: bool) {
        self.loss += (f32::from(u8::from(missed)) - self.loss) / LOSS_MEMORY;
        self.lossy = self.redundancy && self.loss > if self.lossy { LOSSLESS } else { LOSSY };
    }

    fn measure(&mut self, now: Instant, delay: i64) {
        if delay > self.aim(now) {
            self.peak_us = delay;
            self.peak_at = now;
        }
        for share in &mut self.spread {
            *share *= FORGET;
        }
        let bin = usize::try_from(delay / BIN_US).unwrap_or_default().min(BINS - 1);
        self.spread[bin] += 1.0;
    }

    fn peak(&self, now: Instant) -> i64 {
        self.peak_us - now.since(self.peak_at).as_millis().min(1 << 32) as i64 * PEAK_FALL_US_PER_S / 1000
    }

    fn extend(&mut self, timestamp: u32) -> i64 {
        let Some(newest) = self.newest else {
            self.newest = Some(i64::from(timestamp));
            return i64::from(timestamp);
        };
        let ts = newest + i64::from(timestamp.wrapping_sub(newest as u32) as i32);
        if self.us(ts - newest).abs() > LEAP_US {
            self.restart();
            self.newest = Some(ts);
        } else {
            self.newest = Some(newest.max(ts));
        }
        ts
    }

    fn us(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000 / i128::from(self.clock_rate)) as i64
    }
}

/// The least transit time of the last four to eight seconds. Transit is arrival minus timestamp: its
/// zero means nothing, only differences do.
#[derive(Default)]
struct Fastest {
    current: Option<i64>,
    previous: Option<i64>,
    since: Instant,
}

impl Fastest {
    const WINDOW_US: u128 = 4_000_000;

    fn update(&mut self, now: Instant, transit: i64) -> i64 {
        let elapsed = now.since(self.since).as_micros();
        if elapsed >= Self::WINDOW_US {
            // After a long pause nothing that was learnt before it holds.
            self.previous = self.current.take().filter(|_| elapsed < 2 * Self::WINDOW_US);
            self.since = now;
        }
        self.current = Some(self.current.map_or(transit, |least| least.min(transit)));
        self.transit()
    }

    fn restart(&mut self, now: Instant, transit: i64) {
        *self = Fastest { current: Some(transit), previous: None, since: now };
    }

    fn transit(&self) -> i64 {
        self.current.into_iter().chain(self.previous).min().unwrap_or_default()
    }
}

fn micros(at: Instant) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
