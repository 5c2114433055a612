use super::stream::{Drain, Feed};
use super::*;
use crate::io::audio::wav::WavReader;
use crate::io::audio::{Sink, Source, compare_files};
use crate::media::codec::{codecs, find};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn engine(seed: u64) -> (Engine, Receiver<Event>) {
    let (sender, receiver) = sync_channel(4096);
    let config = EngineConfig { bind: LOOPBACK, ports: None, threads: 1, keys: None, tcp: false, proxy: None };
    let on_event = Box::new(move |event| {
        let _ = sender.try_send(event);
    });
    (Engine::start(config, Rng::from_seed(seed), on_event).unwrap(), receiver)
}

fn voice(codec: &str, remote: &Local) -> Voice {
    let codec = find(codec).unwrap();
    let session = session::Config {
        codec,
        payload_type: codec.static_payload_type.unwrap_or(111),
        telephone_event: Some((101, codec.clock_rate)),
        ptime_ms: 20,
        send: true,
        receive: true,
    };
    Voice { remote: Remote { rtp: remote.rtp, rtcp: remote.rtcp, rtcp_mux: false }, session, secured: None, ice: false }
}

fn wait_for<T>(events: &Receiver<Event>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        let event = events.recv_timeout(PATIENCE).expect("the event comes");
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

/// The first two and a half seconds of the speech sample, as a file.
fn short_speech(path: &Path) {
    let mut reader = WavReader::open(Path::new("config/speech.wav")).unwrap();
    let mut samples = reader.read_all().unwrap();
    samples.truncate(40_000);
    let mut sink = SinkSpec::Wav(path.to_owned()).open(16_000).unwrap();
    sink.write(&samples).unwrap();
    sink.finish().unwrap();
}

/// Two engines on loopback and two calls, one for each of the first two codecs; speech one way, a key the other.
#[test]
fn two_calls_at_once_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let said_path = dir.path().join("said.wav");
    short_speech(&said_path);
    let (ours, our_events) = engine(1);
    let (theirs, their_events) = engine(2);
    let names: Vec<&str> = codecs().iter().take(2).map(|codec| codec.name).collect();
    let heard_path = |call: u64| dir.path().join(format!("heard-{call}.wav"));
    for (call, codec) in (0u64..).zip(&names) {
        let (here, there) = (ours.open(call, &[]).unwrap(), theirs.open(call, &[]).unwrap());
        let source = SourceSpec::Wav(said_path.clone());
        theirs.start_call(call, voice(codec, &here), &SourceSpec::Null, &SinkSpec::Wav(heard_path(call))).unwrap();
        ours.start_call(call, voice(codec, &there), &source, &SinkSpec::Null).unwrap();
        theirs.send_dtmf(call, "7", Duration::from_millis(100)).unwrap();
    }
    let (mut ended, mut digits, mut zeros) = (0, 0, BTreeMap::new());
    while ended < 2 {
        match our_events.recv_timeout(PATIENCE).expect("events come") {
            Event::SourceEnded { .. } => ended += 1,
            Event::Dtmf { digit: '7', .. } => digits += 1,
            Event::Started { call, source_zero, .. } => {
                zeros.insert(call, source_zero);
            }
            _ => {}
        }
    }
    assert_eq!(digits, 2);
    // What is on its way when the source ends is heard before the other end hangs up.
    let told = wait_for(&our_events, |event| match event {
        Event::Stats { call: 0, stats } => Some(stats),
        _ => None,
    });
    assert!(told.session.sent > 50 && ours.stats(0).is_some() && ours.stats(9).is_none());
    for call in [0, 1] {
        theirs.close(call).unwrap();
        ours.close(call).unwrap();
    }
    let mut left = 2;
    while left > 0 {
        let (call, stats) = wait_for(&their_events, |event| match event {
            Event::Ended { call, stats } => Some((call, stats)),
            _ => None,
        });
        left -= 1;
        let session = stats.session;
        assert!(session.received > 100 && session.lost == 0 && stats.strangers == 0, "{stats:?}");
        let heard = compare_files(&said_path, &heard_path(call), 1500).unwrap();
        // All of it on a quiet machine; a busy one lets frames come late.
        assert!(heard.share > 0.6, "{heard:?}, {stats:?}");
        let mouth_to_ear =
            heard.lag_ms + (stats.sink_zero.unwrap().as_micros() as f64 - zeros[&call].as_micros() as f64) / 1000.0;
        eprintln!("{}: mouth to ear {mouth_to_ear:.1} ms, {heard:?}", names[call as usize]);
        // Less is impossible; how much more is a matter of how busy the machine is.
        assert!(mouth_to_ear > 20.0, "{mouth_to_ear} ms");
    }
}

#[test]
fn hold_codec_change_and_mistakes() {
    let (engine, events) = engine(3);
    let (a, b) = (engine.open(1, &[]).unwrap(), engine.open(2, &[]).unwrap());
    assert!(matches!(engine.open(1, &[]), Err(EngineError::Open(1))));
    assert!(matches!(engine.close(7), Err(EngineError::Unknown(7))));
    let missing = SourceSpec::Wav("/nowhere/x.wav".into());
    let error = engine.start_call(1, voice("PCMU", &b), &missing, &SinkSpec::Null).unwrap_err();
    assert!(error.to_string().contains("/nowhere/x.wav"), "{error}");
    engine.start_call(1, voice("PCMU", &b), &SourceSpec::Tone, &SinkSpec::Null).unwrap();
    engine.start_call(2, voice("PCMU", &a), &SourceSpec::Tone, &SinkSpec::Null).unwrap();
    let again = engine.start_call(2, voice("PCMU", &a), &SourceSpec::Tone, &SinkSpec::Null);
    assert!(matches!(again, Err(EngineError::Running(2))));
    assert!(matches!(engine.send_dtmf(1, "12x", PATIENCE), Err(EngineError::Dtmf(DtmfError::Digit('x')))));
    let received = |wanted: &dyn Fn(&CallStats) -> bool| {
        wait_for(&events, |event| match event {
            Event::Stats { call: 2, stats } if wanted(&stats) => Some(*stats),
            _ => None,
        })
    };
    assert!(received(&|stats| stats.session.received > 0).remote == Some(a.rtp));
    let mut held = voice("PCMU", &b);
    (held.session.send, held.session.receive) = (false, false);
    engine.update(1, held).unwrap();
    // One report may have been on its way already.
    received(&|_| true);
    let before = received(&|_| true).session.received;
    assert_eq!(received(&|_| true).session.received, before, "nothing comes on hold");
    engine.update(1, voice("PCMA", &b)).unwrap();
    engine.update(2, voice("PCMA", &a)).unwrap();
    let after = received(&|stats| stats.session.codec == "PCMA" && stats.session.received > 0);
    assert_eq!(after.session.refused, 0);
    engine.close(1).unwrap();
    wait_for(&events, |event| matches!(event, Event::RemoteBye { call: 2 }).then_some(()));
    drop(engine);
    let ended = events.iter().any(|event| matches!(event, Event::Ended { call: 2, .. }));
    assert!(ended, "dropping the engine ends what is open");
}

#[test]
fn nobody_there_and_strangers_are_survived() {
    let (engine, events) = engine(4);
    let local = engine.open(1, &[]).unwrap();
    let nobody = {
        let gone = engine.open(2, &[]).unwrap();
        engine.close(2).unwrap();
        gone
    };
    wait_for(&events, |event| matches!(event, Event::Ended { call: 2, .. }).then_some(()));
    engine.start_call(1, voice("PCMU", &nobody), &SourceSpec::Tone, &SinkSpec::Null).unwrap();
    let stranger = std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap();
    wait_for(&events, |event| matches!(event, Event::Started { .. }).then_some(()));
    for _ in 0..20 {
        stranger.send_to(b"not RTP at all", local.rtp).unwrap();
        stranger.send_to(&[0x80; 40], local.rtcp).unwrap();
    }
    let stats = wait_for(&events, |event| match event {
        Event::Stats { stats, .. } if stats.session.sent > 60 => Some(stats),
        _ => None,
    });
    // RTCP of the same host is looked at and refused, RTP from elsewhere is not even looked at.
    assert_eq!((stats.strangers, stats.session.refused, stats.remote), (20, 20, None));
    let quiet = wait_for(&events, |event| match event {
        Event::Quiet { call: 1, quiet } => Some(quiet),
        _ => None,
    });
    assert!(quiet >= Duration::from_secs(5), "what is refused is no sign of the other end");
}

/// A source of a ramp, so that samples can be told apart.
struct Ramp(u32, i16);

impl Source for Ramp {
    fn rate(&self) -> u32 {
        self.0
    }

    fn read(&mut self, out: &mut [i16]) -> Result<bool, AudioError> {
        for sample in out.iter_mut() {
            *sample = self.1;
            self.1 = self.1.wrapping_add(1);
        }
        Ok(true)
    }
}

#[test]
fn frames_are_exact_at_every_rate_and_never_look_ahead() {
    for (from, to) in
        [(8000, 8000), (11_025, 48_000), (16_000, 48_000), (44_100, 48_000), (44_100, 8000), (48_000, 8000)]
    {
        let mut feed = Feed::new(Box::new(Ramp(from, 0)), to);
        let mut all = Vec::new();
        for n in 1..=30 {
            let (frame, ended) = feed.frame();
            assert_eq!(frame.len(), to as usize / 50);
            assert!(!ended.unwrap());
            all.extend(frame);
            let newest = f64::from(*all.last().unwrap());
            let spoken = f64::from(n * from / 50);
            assert!(newest <= spoken, "{from} to {to}: sample {newest} of {spoken} spoken");
            assert!(n < 3 || newest > spoken - f64::from(from) * 0.008, "{from} to {to}: {newest} of {spoken}");
        }
        assert!(all.windows(2).all(|pair| pair[1] >= pair[0] - 3), "{from} to {to}: silence within the sound");
        // A ramp stays a ramp: no sample is lost or made up where frames meet.
        let slope = f64::from(from) / f64::from(to);
        let steps = all[to as usize / 10..].windows(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0]));
        let worst = steps.map(|step| (step - slope).abs()).fold(0.0, f64::max);
        assert!(worst <= slope.max(1.0) + 0.5, "{from} to {to}: a step of {worst} off");
    }
}

#[test]
fn a_sink_that_fails_is_left_alone() {
    fn broken() -> AudioError {
        AudioError::File { path: "broken.wav".into(), doing: "write", source: std::io::Error::other("full") }
    }
    struct Broken;
    impl Sink for Broken {
        fn rate(&self) -> u32 {
            8000
        }
        fn write(&mut self, _pcm: &[i16]) -> Result<(), AudioError> {
            Err(broken())
        }
        fn finish(&mut self) -> Result<(), AudioError> {
            Err(broken())
        }
    }
    let mut drain = Drain::new(Box::new(Broken), 48_000);
    assert!(drain.write(&[0; 960]).is_err());
    assert!(drain.write(&[0; 960]).is_ok() && drain.finish().is_ok());
}
