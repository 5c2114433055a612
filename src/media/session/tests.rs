use super::*;
use crate::media::codec::{self, find, pcmu};
use crate::media::hear::{Recording, compare};
use std::collections::BTreeMap;

const DTMF: u8 = 101;

fn config(name: &str) -> Config {
    let codec = find(name).unwrap();
    Config {
        codec,
        payload_type: codec.static_payload_type.unwrap_or(111),
        telephone_event: Some((DTMF, codec.clock_rate)),
        ptime_ms: 20,
        send: true,
        receive: true,
    }
}

fn session(config: Config, seed: u64) -> Session {
    Session::new(Instant::from_millis(5000), config, Rng::from_seed(seed)).unwrap()
}

/// The codecs that are built in.
fn names() -> impl Iterator<Item = &'static str> {
    codec::codecs().iter().map(|codec| codec.name)
}

/// What a path does to a datagram: `None` loses it, else microseconds on the way; may be called twice for a duplicate.
type Path<'a> = &'a mut dyn FnMut(&mut Rng) -> Option<u64>;

/// Two sessions and the paths between them, driven by one clock.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    /// Due time and order, to whom, whether RTCP.
    flying: BTreeMap<(u64, u64), (usize, bool, Bytes)>,
    serial: u64,
    rng: Rng,
    heard: [Vec<i16>; 2],
    digits: [String; 2],
    byes: [u32; 2],
    /// Every RTP packet comes twice.
    twice: bool,
}

impl Pair {
    fn new(config: [Config; 2]) -> Pair {
        Pair {
            ends: [session(config[0], 1), session(config[1], 2)],
            now: Instant::from_millis(5000),
            flying: BTreeMap::new(),
            serial: 0,
            rng: Rng::from_seed(3),
            heard: [Vec::new(), Vec::new()],
            digits: [String::new(), String::new()],
            byes: [0; 2],
            twice: false,
        }
    }

    /// One 20 ms frame: `said` goes in at end 0, the second end says nothing. Its clock is 7 ms apart.
    fn frame(&mut self, said: &[i16], path: Path<'_>) {
        let silence = vec![0; self.ends[1].frame_len()];
        self.ends[0].capture(self.now, said);
        self.ends[0].handle_timeout(self.now);
        self.collect(0, path);
        let played = self.ends[0].playout(self.now);
        self.heard[0].extend(played);
        self.deliver_until(self.now + Duration::from_millis(7), path);
        self.ends[1].capture(self.now, &silence);
        self.ends[1].handle_timeout(self.now);
        self.collect(1, path);
        let played = self.ends[1].playout(self.now);
        self.heard[1].extend(played);
        self.deliver_until(self.now + Duration::from_millis(13), path);
    }

    fn deliver_until(&mut self, until: Instant, path: Path<'_>) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= until.as_micros()) {
            let ((at, _), (to, control, datagram)) = entry.remove_entry();
            let at = Instant::from_micros(at);
            if control {
                self.ends[to].receive_rtcp(at, &datagram);
            } else {
                for _ in 0..=u32::from(self.twice) {
                    self.ends[to].receive_rtp(at, &datagram);
                }
            }
            self.collect(to, path);
        }
        self.now = until;
    }

    fn collect(&mut self, end: usize, path: Path<'_>) {
        while let Some(output) = self.ends[end].poll_output() {
            let (control, datagram) = match output {
                Output::Rtp(bytes) => (false, bytes),
                Output::Rtcp(bytes) => (true, bytes),
                Output::Dtmf { digit } => {
                    self.digits[end].push(digit);
                    continue;
                }
                Output::RemoteBye => {
                    self.byes[end] += 1;
                    continue;
                }
            };
            if let Some(delay) = path(&mut self.rng) {
                self.serial += 1;
                self.flying.insert((self.now.as_micros() + delay, self.serial), (1 - end, control, datagram));
            }
        }
    }

    fn say(&mut self, speech: &[i16], path: Path<'_>) {
        for frame in speech.chunks_exact(self.ends[0].frame_len()) {
            self.frame(frame, path);
        }
    }

    fn stats(&self, end: usize) -> Stats {
        self.ends[end].stats(self.now)
    }
}

/// Voiced syllables with pauses.
fn speech(rate: u32, seconds: usize) -> Vec<i16> {
    let mut rng = Rng::from_seed(9);
    let mut out = Vec::new();
    while out.len() < rate as usize * seconds {
        let length = (u64::from(rate) * (120 + rng.below(180)) / 1000) as usize;
        let (loud, pitch) = (3000.0 + rng.unit() * 5000.0, 100.0 + rng.unit() * 100.0);
        for i in 0..length {
            let swell = (std::f64::consts::PI * i as f64 / length as f64).sin();
            let turn = std::f64::consts::TAU * pitch * i as f64 / f64::from(rate);
            out.push((loud * swell * (1..6).map(|k| (turn * f64::from(k)).sin() / f64::from(k)).sum::<f64>()) as i16);
        }
        out.extend(std::iter::repeat_n(0, (u64::from(rate) * (30 + rng.below(200)) / 1000) as usize));
    }
    out.truncate(rate as usize * seconds);
    out
}

#[test]
fn a_clean_call_is_heard_whole() {
    for name in names() {
        let mut pair = Pair::new([config(name); 2]);
        let rate = pair.ends[0].sample_rate();
        let said = speech(rate, 8);
        pair.say(&said, &mut |_| Some(1500));
        let heard = compare(Recording { samples: &said, rate }, Recording { samples: &pair.heard[1], rate }, 500);
        assert!(heard.share > 0.97, "{name}: {heard:?}");
        // One frame in the jitter buffer, and what the codec looks ahead.
        assert!((19.0..28.0).contains(&heard.lag_ms), "{name}: {heard:?}");
        let (us, them) = (pair.stats(0), pair.stats(1));
        assert_eq!((us.sent, us.codec), (400, name));
        assert_eq!((them.received, them.lost, them.late, them.refused, them.encode_errors), (400, 0, 0, 0, 0));
        assert!(them.jitter_ms < 0.1, "{}", them.jitter_ms);
        let rtt = them.rtt_ms.unwrap();
        assert!((2.9..3.1).contains(&rtt), "{rtt} ms");
        assert_eq!(us.remote_lost, Some(0));
        assert!(us.reports.0 >= 2 && us.reports.1 >= 2);
    }
}

#[test]
fn a_bad_path_is_survived_and_counted() {
    for name in names() {
        let mut pair = Pair::new([config(name); 2]);
        let rate = pair.ends[0].sample_rate();
        let said = speech(rate, 20);
        let mut lost = 0;
        pair.say(&said, &mut |rng| {
            let gone = rng.below(100) < 5;
            lost += u32::from(gone);
            (!gone).then(|| 20_000 + rng.below(50_000))
        });
        let heard = compare(Recording { samples: &said, rate }, Recording { samples: &pair.heard[1], rate }, 1000);
        assert!(heard.share > 0.8, "{name}: {heard:?}");
        let them = pair.stats(1);
        assert!((25..80).contains(&them.lost), "{name}: {them:?}");
        assert!((997..=1000).contains(&(them.received + them.lost)), "{name}: {them:?}");
        assert!(them.late < 60 && them.reordered > 100, "{name}: {them:?}");
        assert!((10.0..25.0).contains(&them.jitter_ms), "{name}: {them:?}");
        assert!(them.concealed_ms >= them.lost * 15, "{name}: {them:?}");
        assert!((20.0..120.0).contains(&them.playout_delay_ms), "{name}: {them:?}");
        assert!(pair.stats(0).remote_lost.unwrap() > 0 && pair.stats(0).remote_jitter_ms.unwrap() > 5.0);
    }
}

#[test]
fn duplicates_are_played_once() {
    let said = speech(8000, 4);
    let run = |twice| {
        let mut pair = Pair::new([config("PCMU"); 2]);
        pair.twice = twice;
        pair.say(&said, &mut |_| Some(1000));
        (pair.stats(1).duplicates, pair.stats(1).lost, pair.heard[1].clone())
    };
    let (plain, doubled) = (run(false), run(true));
    assert_eq!((plain.0, doubled.0, doubled.1), (0, 200, 0));
    assert_eq!(plain.2, doubled.2);
}

#[test]
fn digits_arrive_once_each_even_when_packets_are_lost() {
    for name in names() {
        let mut pair = Pair::new([config(name); 2]);
        let rate = pair.ends[0].sample_rate();
        for digit in "1159#D*0".chars() {
            pair.ends[0].send_dtmf(digit, Duration::from_millis(100)).unwrap();
        }
        pair.say(&speech(rate, 4), &mut |rng| (rng.below(100) < 80).then_some(15_000));
        assert_eq!(pair.digits[1], "1159#D*0", "{name}");
        assert_eq!(pair.digits[0], "");
        assert_eq!(pair.stats(1).digits, 8);
    }
    let mut deaf = session(Config { telephone_event: None, ..config("PCMA") }, 1);
    assert_eq!(deaf.send_dtmf('1', FRAME), Err(DtmfError::NotAgreed));
}

/// All RTP packets that a session has ready.
fn packets(session: &mut Session) -> Vec<Packet> {
    std::iter::from_fn(|| session.poll_output())
        .filter_map(|output| match output {
            Output::Rtp(bytes) => Some(Packet::parse(&bytes).unwrap()),
            _ => None,
        })
        .collect()
}

#[test]
fn the_marker_stands_at_the_start_of_talk_and_time_goes_on_under_hold() {
    let mut session = session(config("PCMU"), 1);
    let now = Instant::from_millis(5000);
    let mut sent = Vec::new();
    for frame in 0..30 {
        session.set_direction(!(10..20).contains(&frame), true);
        session.capture(now, &[1000; 160]);
        sent.extend(packets(&mut session));
    }
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().enumerate().all(|(i, packet)| packet.marker == (i == 0 || i == 10)));
    let offsets: Vec<u32> = sent.iter().map(|packet| packet.timestamp.wrapping_sub(sent[0].timestamp) / 160).collect();
    assert_eq!(offsets, (0..10).chain(20..30).collect::<Vec<_>>());
    assert!(sent.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)));
}

#[test]
fn muted_is_silence_and_packet_times_are_kept() {
    let mut session = session(Config { ptime_ms: 40, ..config("PCMU") }, 1);
    session.set_muted(true);
    for _ in 0..5 {
        session.capture(Instant::from_millis(5000), &[9000; 160]);
    }
    let sent = packets(&mut session);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|packet| packet.payload.len() == 320 && packet.payload.iter().all(|o| *o == 0xff)));
    let odd = Session::new(Instant::ZERO, Config { ptime_ms: 25, ..config("PCMU") }, Rng::from_seed(1)).unwrap();
    assert_eq!(odd.config().ptime_ms, 20);
}

fn voice(ssrc: u32, sequence: u16, payload_type: u8) -> Bytes {
    let timestamp = u32::from(sequence) * 160;
    let payload = vec![pcmu::encode(8000); 160].into();
    Packet { marker: false, payload_type, sequence, timestamp, ssrc, payload }.to_bytes()
}

#[test]
fn another_source_takes_over_when_it_has_proved_itself() {
    let mut session = session(config("PCMU"), 1);
    let at = |n: u64| Instant::from_millis(5000 + n * 20);
    for n in 0..10 {
        session.receive_rtp(at(n), &voice(7, n as u16, 0));
    }
    session.receive_rtp(at(10), &voice(8, 500, 0));
    session.receive_rtp(at(10), &voice(7, 10, 0));
    session.receive_rtp(at(11), &voice(8, 501, 0));
    session.receive_rtp(at(11), &voice(7, 11, 0));
    assert_eq!((session.stats(at(11)).source_changes, session.stats(at(11)).refused), (0, 2));
    for n in 20..30 {
        session.receive_rtp(at(n), &voice(9, n as u16, 0));
    }
    let stats = session.stats(at(30));
    assert_eq!((stats.source_changes, stats.refused, stats.received, stats.lost), (1, 3, 12 + 9, 0));
}

#[test]
fn what_was_not_agreed_is_refused() {
    let mut session = session(config("PCMU"), 1);
    let now = Instant::from_millis(5000);
    session.receive_rtp(now, &voice(7, 1, 8));
    session.receive_rtp(now, &voice(7, 2, 13));
    session.receive_rtp(now, &Packet { payload_type: 0, ssrc: 7, ..Packet::default() }.to_bytes());
    session.receive_rtcp(now, &[0x80, 201, 0, 9]);
    assert_eq!((session.stats(now).refused, session.stats(now).received), (4, 0));
    assert!(session.playout(now).iter().all(|sample| *sample == 0));
}

#[test]
fn our_own_source_coming_back_makes_us_choose_another() {
    let mut session = session(config("PCMU"), 1);
    let now = Instant::from_millis(5000);
    session.capture(now, &[0; 160]);
    let before = packets(&mut session)[0].ssrc;
    for n in 0..50 {
        session.receive_rtp(now, &voice(before, n, 0));
    }
    let byes = std::iter::from_fn(|| session.poll_output()).filter(|o| matches!(o, Output::Rtcp(_))).count();
    assert_eq!(byes, 1);
    session.capture(now, &[0; 160]);
    assert_ne!(packets(&mut session)[0].ssrc, before);
}

#[test]
fn on_hold_nothing_is_played_and_it_ends_cleanly() {
    let mut pair = Pair::new([config("PCMU"); 2]);
    let said = speech(8000, 6);
    pair.say(&said[..16_000], &mut |_| Some(1000));
    pair.ends[1].set_direction(false, false);
    pair.say(&said[16_000..32_000], &mut |_| Some(1000));
    assert!(pair.heard[1][16_000..32_000].iter().all(|sample| *sample == 0));
    pair.ends[1].set_direction(true, true);
    pair.say(&said[32_000..], &mut |_| Some(1000));
    let rate = 8000;
    let samples = &said[32_000..];
    let heard = compare(Recording { samples, rate }, Recording { samples: &pair.heard[1][32_000..], rate }, 300);
    assert!(heard.share > 0.9 && heard.lag_ms < 50.0, "{heard:?}");
    assert_eq!(pair.stats(1).sent, 200);
    pair.ends[0].goodbye(pair.now);
    pair.collect(0, &mut |_| Some(0));
    pair.deliver_until(pair.now + FRAME, &mut |_| Some(0));
    assert_eq!(pair.byes, [0, 1]);
}

#[test]
fn other_packet_times_are_played() {
    for (theirs, seconds) in [(10, 3), (40, 3), (60, 3)] {
        let sender = Config { ptime_ms: theirs, ..config("PCMA") };
        let mut pair = Pair::new([sender, config("PCMA")]);
        let said = speech(8000, seconds);
        pair.say(&said, &mut |_| Some(1000));
        let rate = 8000;
        let heard = compare(Recording { samples: &said, rate }, Recording { samples: &pair.heard[1], rate }, 500);
        assert!(heard.share > 0.95, "{theirs} ms: {heard:?}");
    }
}

#[test]
fn the_same_inputs_give_the_same_history() {
    let run = || {
        let mut pair = Pair::new([config("PCMU"); 2]);
        pair.say(&speech(8000, 5), &mut |rng| (rng.below(10) > 0).then(|| rng.below(40_000)));
        pair.heard[1].clone()
    };
    assert_eq!(run(), run());
}

#[test]
fn no_mutation_panics_or_makes_it_grow() {
    for name in names() {
        let mut rng = Rng::from_seed(6);
        let (mut sender, mut receiver) = (session(config(name), 1), session(config(name), 2));
        let frame = speech(sender.sample_rate(), 1)[..sender.frame_len()].to_vec();
        let mut now = Instant::from_millis(5000);
        for _ in 0..2000 {
            now += FRAME;
            sender.capture(now, &frame);
            sender.handle_timeout(now);
            receiver.handle_timeout(now);
            while let Some(output) = sender.poll_output() {
                let (Output::Rtp(bytes) | Output::Rtcp(bytes)) = output else { continue };
                for _ in 0..3 {
                    let mut bytes = bytes.to_vec();
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.next_u32() as u8;
                    receiver.receive_rtp(now, &bytes);
                    receiver.receive_rtcp(now, &bytes);
                }
            }
            assert_eq!(receiver.playout(now).len(), frame.len());
        }
    }
}
