use super::*;
use crate::core::Rng;
use std::time::Duration;

const CLOCK: u32 = 48_000;
const TICKS: u32 = 960;

/// A packet on its way: number and when it arrives (microseconds).
type Trace = Vec<(u32, u64)>;

/// `count` packets, each 20 ms after the last, delayed by what `delay` says in microseconds; `None` is lost.
fn trace(count: u32, mut delay: impl FnMut(u32) -> Option<u64>) -> Trace {
    let mut packets: Trace =
        (0..count).filter_map(|n| delay(n).map(|delay| (n, 1_000_000 + u64::from(n) * 20_000 + delay))).collect();
    packets.sort_by_key(|(_, at)| *at);
    packets
}

#[derive(Default, Debug)]
struct Played {
    /// Packet numbers in the order in which they were played.
    order: Vec<u32>,
    /// For each, how long after being sent (not arrived) it was played, ms.
    delay_ms: Vec<f64>,
    concealed: u32,
    late: u32,
    duplicates: u32,
    shed: u32,
}

/// Plays a trace with a 20 ms clock whose ticks fall `phase` microseconds after the sender's. Every
/// surplus packet for which `silent` holds is left out.
fn play(trace: &Trace, phase: u64, silent: impl Fn(u32) -> bool) -> (Played, JitterBuffer) {
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let mut played = Played::default();
    let mut coming = trace.iter().peekable();
    let end = trace.last().map_or(0, |(_, at)| at + 1_000_000);
    let (mut now, mut begun) = (900_000 + phase, false);
    while now < end {
        while let Some((n, at)) = coming.next_if(|(_, at)| *at <= now) {
            let payload = Bytes::copy_from_slice(&n.to_be_bytes());
            // The timestamp wraps soon after the beginning.
            let timestamp = (u32::MAX - 5000).wrapping_add(n * TICKS);
            match buffer.insert(Instant::from_micros(*at), timestamp, TICKS, payload) {
                Arrival::Kept => {}
                Arrival::Late => played.late += 1,
                Arrival::Duplicate => played.duplicates += 1,
            }
        }
        loop {
            match buffer.pull(Instant::from_micros(now)) {
                Pull::Play { payload, surplus } => {
                    let n = u32::from_be_bytes(payload[..].try_into().unwrap());
                    begun = true;
                    if surplus && silent(n) {
                        buffer.shed();
                        played.shed += 1;
                        continue;
                    }
                    played.order.push(n);
                    played.delay_ms.push((now as f64 - 1_000_000.0 - f64::from(n) * 20_000.0) / 1000.0);
                }
                Pull::Lost { ticks, .. } => {
                    assert_eq!(ticks, TICKS);
                    played.concealed += 1;
                }
                Pull::Nothing => played.concealed += u32::from(begun && coming.peek().is_some()),
            }
            break;
        }
        now += 20_000;
    }
    (played, buffer)
}

fn ascending(order: &[u32]) -> bool {
    order.windows(2).all(|pair| pair[0] < pair[1])
}

#[test]
fn a_clean_path_is_played_whole_and_within_a_frame_of_the_aim() {
    for phase in [0, 3_000, 7_000, 12_000, 19_000] {
        let (played, buffer) = play(&trace(500, |_| Some(300)), phase, |_| true);
        assert_eq!(played.order, (0..500).collect::<Vec<_>>());
        assert_eq!(played.concealed, 0);
        let worst = played.delay_ms.iter().copied().fold(0.0, f64::max);
        assert!(worst <= 31.0, "{worst} ms");
        assert_eq!(buffer.aim(Instant::from_millis(20_000)), LEAST_AIM_US);
    }
}

#[test]
fn a_lost_packet_is_one_concealed_frame_and_no_delay() {
    let (played, _) = play(&trace(500, |n| (n % 10 != 7).then_some(300)), 3_000, |_| true);
    assert_eq!((played.order.len(), played.concealed, played.late), (450, 50, 0));
    assert!(ascending(&played.order));
    assert!(played.delay_ms.iter().all(|delay| *delay < 31.0));
}

#[test]
fn the_gap_names_the_packet_that_follows_it() {
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let at = |ms: u64| Instant::from_millis(1000 + ms);
    let packet = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
    buffer.insert(at(0), 0, TICKS, packet(0));
    assert!(matches!(buffer.pull(at(11)), Pull::Play { .. }));
    // The burst that was held up comes with its first packet missing.
    buffer.insert(at(42), 2 * TICKS, TICKS, packet(2));
    assert_eq!(buffer.pull(at(43)), Pull::Lost { ticks: TICKS, next: Some(packet(2)) });
    assert_eq!(buffer.insert(at(44), TICKS, TICKS, packet(1)), Arrival::Late);
    assert_eq!(buffer.insert(at(44), 2 * TICKS, TICKS, packet(2)), Arrival::Duplicate);
}

#[test]
fn it_grows_to_cover_jitter_and_loses_little() {
    let mut rng = Rng::from_seed(2);
    let packets = trace(3000, |_| Some(rng.below(60_000)));
    let (played, buffer) = play(&packets, 7_000, |_| true);
    assert!(ascending(&played.order));
    let aim = buffer.aim(Instant::from_micros(packets.last().unwrap().1));
    assert!((50_000..75_000).contains(&aim), "aims at {aim} us for 60 ms of jitter");
    let bad = played.concealed + played.late;
    assert!(bad < 150, "{bad} of 3000 frames bad: {} concealed, {} late", played.concealed, played.late);
    let settled = &played.delay_ms[500..];
    let mean = settled.iter().sum::<f64>() / settled.len() as f64;
    assert!((50.0..95.0).contains(&mean), "mean delay {mean:.1} ms");
}

/// One packet in ten is late: that is no spike but the way of this path, and is remembered as such.
#[test]
fn what_is_usual_is_remembered_and_what_was_is_forgotten() {
    let packets = trace(3000, |n| Some(if n < 1000 && n % 10 == 0 { 40_000 } else { 300 }));
    let mut buffer = JitterBuffer::new(CLOCK, false);
    for (n, at) in packets {
        let now = Instant::from_micros(at);
        buffer.insert(now, n * TICKS, TICKS, Bytes::new());
        buffer.pull(now);
        match n {
            100 | 900 | 1140 => assert!((38_000..45_000).contains(&buffer.aim(now)), "{n}: {}", buffer.aim(now)),
            2999 => assert_eq!(buffer.aim(now), LEAST_AIM_US),
            _ => {}
        }
    }
}

#[test]
fn reordered_packets_are_put_right() {
    // Every fifth packet takes 25 ms longer, so it arrives after its successor.
    let (played, _) = play(&trace(1000, |n| Some(if n % 5 == 3 { 25_300 } else { 300 })), 3_000, |_| true);
    assert!(ascending(&played.order));
    assert!(played.order.len() >= 995, "{} of 1000 played", played.order.len());
}

#[test]
fn a_spike_delays_the_voice_and_silence_brings_it_back() {
    // Half a second in, the path stalls for 200 ms and then delivers everything at once.
    let stall = |n: u32| Some(if (25..35).contains(&n) { u64::from(35 - n) * 20_000 } else { 300 });
    let packets = trace(1500, stall);
    let (played, buffer) = play(&packets, 3_000, |n| n % 8 == 0);
    let during = played.order.iter().position(|n| *n == 40).unwrap();
    assert!(played.delay_ms[during] > 150.0, "grown to {} ms", played.delay_ms[during]);
    assert!(played.order.contains(&25) && played.order.contains(&34), "nothing of the stall is lost");
    let last = *played.delay_ms.last().unwrap();
    assert!(last < 31.0, "shrunk to {last} ms");
    assert_eq!(buffer.discarded().1, u64::from(played.shed));
    assert!((8..=11).contains(&played.shed), "{} frames left out", played.shed);
}

#[test]
fn without_silence_nothing_is_left_out() {
    let stall = |n: u32| Some(if (25..35).contains(&n) { u64::from(35 - n) * 20_000 } else { 300 });
    let (played, _) = play(&trace(500, stall), 3_000, |_| false);
    assert_eq!((played.order.len(), played.shed), (500, 0));
}

#[test]
fn a_path_that_became_slower_is_followed() {
    let packets = trace(2000, |n| Some(if n < 500 { 1_000 } else { 701_000 }));
    let (played, _) = play(&packets, 3_000, |n| n % 4 == 0);
    let after = played.order.iter().filter(|n| **n >= 500).count();
    assert!(after > 1400, "{after} of 1500 played after the change");
    let last = *played.delay_ms.last().unwrap();
    assert!((701.0..740.0).contains(&last), "{last} ms");
}

#[test]
fn a_pause_of_the_sender_is_no_loss() {
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let mut now = Instant::from_millis(500);
    buffer.insert(now, 0, TICKS, Bytes::from_static(b"a"));
    now += Duration::from_millis(12);
    assert!(matches!(buffer.pull(now), Pull::Play { .. }));
    for _ in 0..50 {
        now += Duration::from_millis(20);
        assert_eq!(buffer.pull(now), Pull::Nothing);
    }
    buffer.insert(now, 50 * TICKS, TICKS, Bytes::from_static(b"b"));
    let mut waited = 0;
    while buffer.pull(now) == Pull::Nothing {
        now += Duration::from_millis(20);
        waited += 1;
    }
    assert!(waited <= 2, "talk begins again after {waited} frames");
}

#[test]
fn a_sender_whose_clock_stood_still_is_heard_at_once() {
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let mut now = Instant::from_millis(1000);
    let mut played = Vec::new();
    for n in 0..100u32 {
        if n == 50 {
            now += Duration::from_secs(60);
        }
        buffer.insert(now, n * TICKS, TICKS, Bytes::copy_from_slice(&[n as u8]));
        now += Duration::from_millis(20);
        if let Pull::Play { payload, .. } = buffer.pull(now) {
            played.push(payload[0]);
        }
    }
    assert_eq!(played, (0..100).collect::<Vec<u8>>());
}

#[test]
fn a_stranger_cannot_make_it_grow() {
    let mut rng = Rng::from_seed(3);
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let mut now = Instant::from_millis(1);
    for _ in 0..50_000 {
        now += Duration::from_micros(rng.below(400));
        buffer.insert(now, rng.next_u32(), rng.below(6000) as u32, Bytes::new());
        assert!(buffer.held.len() <= CAPACITY);
        if rng.below(50) == 0 {
            buffer.pull(now);
        }
    }
    // Timestamps a little apart fill it up; the oldest go.
    for n in 0..1000 {
        buffer.insert(now, n * TICKS, TICKS, Bytes::new());
    }
    assert!(buffer.held.len() <= CAPACITY && buffer.discarded().0 > 0);
}

#[test]
fn the_sender_starting_anew_is_followed() {
    let mut buffer = JitterBuffer::new(CLOCK, false);
    let mut now = Instant::from_millis(1000);
    let mut played = 0;
    for n in 0..100u32 {
        let base = if n < 50 { 77 } else { 0x9000_0000 };
        buffer.insert(now, base + n * TICKS, TICKS, Bytes::new());
        now += Duration::from_millis(20);
        played += u32::from(matches!(buffer.pull(now), Pull::Play { .. }));
    }
    assert!(played >= 98, "{played} of 100 played");
}

/// Every loss finds the packet after it waiting, once the path is known to lose.
#[test]
fn a_copy_is_waited_for_only_where_packets_are_lost() {
    let (mut buffer, mut rng) = (JitterBuffer::new(CLOCK, true), Rng::from_seed(8));
    let (mut with_copy, mut without, mut delay) = (0, 0, Vec::new());
    for n in 0..4000u32 {
        let sent = Instant::from_micros(1_000_000 + u64::from(n) * 20_000);
        if n >= 1500 || rng.below(100) >= 10 {
            buffer.insert(
                sent + Duration::from_micros(300),
                n * TICKS,
                TICKS,
                Bytes::copy_from_slice(&n.to_be_bytes()),
            );
        }
        let now = sent + Duration::from_millis(5);
        loop {
            match buffer.pull(now) {
                Pull::Play { surplus: true, .. } if n % 5 == 0 => {
                    buffer.shed();
                    continue;
                }
                Pull::Play { payload, .. } => {
                    let played = u32::from_be_bytes(payload[..].try_into().unwrap());
                    delay.push((n - played) * 20 + 5);
                }
                Pull::Lost { next, .. } => *(if next.is_some() { &mut with_copy } else { &mut without }) += 1,
                Pull::Nothing => without += 1,
            }
            break;
        }
    }
    assert!(with_copy > 100 && without < 30, "{with_copy} with a copy, {without} without");
    assert_eq!(delay[1000], 45);
    assert_eq!(*delay.last().unwrap(), 25, "back when the loss is over");
}

/// Clocks that differ by 0.05 %, far more than real ones, for ten minutes.
#[test]
fn clocks_that_drift_cost_a_frame_now_and_then() {
    for drift in [-500i64, 500] {
        let packets: Trace =
            (0..30_000u64).map(|n| (n as u32, (1_000_000 + n as i64 * (20_000 + drift / 50)) as u64)).collect();
        let (played, _) = play(&packets, 3_000, |n| n % 10 == 0);
        // 300 ms of drift are 15 frames.
        assert!(played.concealed <= 18 && played.shed <= 18 && played.late == 0, "{drift}: {played:?}");
        assert!(played.concealed + played.shed >= 12);
    }
}
