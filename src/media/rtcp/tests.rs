use super::*;
use crate::rtp::rtcp::parse;

fn sent(packets: u32) -> Sent {
    Sent { packets, octets: packets * 80, rtp_time: packets * 960 }
}

#[test]
fn intervals_are_those_of_rfc_3550() {
    let mut rng = Rng::from_seed(4);
    let (mut total, mut firsts) = (0.0, 0.0);
    for _ in 0..500 {
        let zero = Instant::from_millis(1000);
        let mut reporter = Reporter::new(zero, "x", 8000, &mut rng);
        let first = reporter.next().since(zero).as_secs_f64();
        // Half of 5 s, randomised over [0.5, 1.5], compensated.
        assert!((1.02..=3.08).contains(&first), "{first}");
        firsts += first;
        let at = reporter.next();
        reporter.report(at, 1, sent(1), None, &mut rng);
        let second = reporter.next().since(at).as_secs_f64();
        assert!((2.05..=6.16).contains(&second), "{second}");
        total += second;
    }
    assert!((total / 500.0 - 4.1).abs() < 0.2 && (firsts / 500.0 - 2.05).abs() < 0.1);
}

#[test]
fn a_poor_session_reports_less_often() {
    let mut rng = Rng::from_seed(4);
    let zero = Instant::ZERO;
    let mut reporter = Reporter::new(zero, "x", 100, &mut rng);
    reporter.report(zero, 1, sent(0), None, &mut rng);
    // Two members, about 95 bytes each, at 5 bytes a second: about 40 s on average.
    assert!(reporter.next().since(zero).as_secs() > 12);
}

#[test]
fn who_sends_reports_as_a_sender() {
    let mut rng = Rng::from_seed(4);
    let now = Instant::from_millis(1500);
    let mut reporter = Reporter::new(now, "name", 8000, &mut rng);
    let silent = parse(&reporter.report(now, 7, sent(0), None, &mut rng)).unwrap();
    assert!(matches!(silent[0], Control::ReceiverReport { ssrc: 7, .. }));
    assert_eq!(silent[1], Control::SourceDescription { cnames: vec![(7, Bytes::from_static(b"name"))] });
    let talking = parse(&reporter.report(now, 7, sent(10), None, &mut rng)).unwrap();
    let Control::SenderReport { ntp, rtp_time, packets, octets, .. } = talking[0] else { panic!("{talking:?}") };
    assert_eq!((ntp, rtp_time, packets, octets), (0x1_8000_0000, 9600, 10, 800));
    let just_stopped = parse(&reporter.report(now, 7, sent(10), None, &mut rng)).unwrap();
    assert!(matches!(just_stopped[0], Control::SenderReport { .. }), "sent before the last report but one");
    let stopped = parse(&reporter.report(now, 7, sent(10), None, &mut rng)).unwrap();
    assert!(matches!(stopped[0], Control::ReceiverReport { .. }));
    let bye = parse(&reporter.goodbye(now, 7, sent(10), None)).unwrap();
    assert_eq!(bye[2], Control::Goodbye { sources: vec![7], reason: Bytes::new() });
}

#[test]
fn the_round_trip_is_measured() {
    let mut rng = Rng::from_seed(4);
    let mut ours = Reporter::new(Instant::ZERO, "a", 8000, &mut rng);
    let mut theirs = Reporter::new(Instant::ZERO, "b", 8000, &mut rng);
    let mut heard = Reception::new(7, 48_000, 0);
    heard.update(0);
    let at = Instant::from_millis;
    // 30 ms there, 1 s of waiting, 50 ms back.
    let report = ours.report(at(10_000), 7, sent(1), None, &mut rng);
    parse(&report).unwrap().iter().for_each(|c| theirs.receive(at(10_030), 8, c));
    let answer = theirs.report(at(11_030), 8, sent(1), Some(&mut heard), &mut rng);
    parse(&answer).unwrap().iter().for_each(|c| ours.receive(at(11_080), 7, c));
    let rtt = ours.round_trip().unwrap().as_micros();
    assert!((79_900..80_100).contains(&rtt), "{rtt} us");
    assert_eq!(ours.far_end().unwrap().lost, 0);
    // A report that claims to have been held longer than it was away measures nothing.
    parse(&answer).unwrap().iter().for_each(|c| ours.receive(at(10_500), 7, c));
    assert_eq!(ours.round_trip().unwrap().as_micros(), rtt);
}

mod reception {
    use super::*;
    use crate::media::reception::{Order, Reception};

    fn run(sequences: impl IntoIterator<Item = u16>) -> Reception {
        let mut sequences = sequences.into_iter().peekable();
        let mut source = Reception::new(1, 8000, *sequences.peek().unwrap());
        sequences.for_each(|sequence| {
            source.update(sequence);
        });
        source
    }

    #[test]
    fn the_sequence_wraps_without_loss() {
        let mut source = run((0..2000u16).map(|n| n.wrapping_add(65_000)));
        assert_eq!(source.lost(), 0);
        assert_eq!(source.report().highest, 65_000 + 1999);
    }

    #[test]
    fn loss_is_counted_as_in_section_a3() {
        let mut source = run((0..100).filter(|n| n % 4 != 3));
        let report = source.report();
        // The 25th loss, at 99, is not known yet.
        assert_eq!((source.lost(), report.lost, report.fraction_lost), (24, 24, ((24 * 256) / 99) as u8));
        for n in 100..200 {
            source.update(n);
        }
        assert_eq!(source.report().fraction_lost, (256 / 101) as u8);
    }

    #[test]
    fn duplicates_and_disorder() {
        let mut source = run([10, 11, 13]);
        let orders = [12, 12, 11, 14].map(|sequence| source.update(sequence));
        assert_eq!(orders, [Order::Reordered, Order::Duplicate, Order::Duplicate, Order::Newest]);
        assert_eq!(source.lost(), 0);
        assert_eq!(source.report().lost, -2, "A.3 counts duplicates as received");
        assert_eq!(source.update(14), Order::Duplicate);
        assert_eq!(source.update(15), Order::Newest);
    }

    #[test]
    fn a_leap_must_be_followed_up() {
        let mut source = run([10, 11, 12]);
        assert_eq!(source.update(40_000), Order::Leap);
        assert_eq!(source.update(13), Order::Newest, "a stray packet changes nothing");
        assert_eq!(source.update(50_000), Order::Leap);
        assert_eq!(source.update(50_001), Order::Newest);
        assert_eq!((source.lost(), source.report().highest), (0, 50_001));
        assert_eq!(source.update(50_000 - 200), Order::Leap, "too far behind");
    }

    #[test]
    fn jitter_is_that_of_section_a8() {
        let mut source = run([0]);
        // Packets alternately on time and 8 ms late: a difference of 64 ticks each time.
        let mut expected = 0.0;
        for n in 0..200u32 {
            let late = u64::from(n % 2) * 8;
            source.arrived(Instant::from_millis(u64::from(n) * 20 + late), n * 160 + 5);
            if n > 0 {
                expected += (64.0 - expected) / 16.0;
            }
        }
        assert!((source.jitter_ms() - expected / 8.0).abs() < 1e-6);
        assert_eq!(source.report().jitter, 63);
    }
}
