//! One call's voice: RTP and RTCP in and out, 20 ms frames of samples in and out.
//!
//! Driven like every machine: [`Session::capture`] takes a microphone frame every 20 ms and
//! [`Session::playout`] gives a loudspeaker frame, datagrams go in as they come, [`Session::poll_output`]
//! is emptied after each. Frames are 16-bit mono at [`Session::sample_rate`].
//!
//! What comes in is judged here: packets of other payload types are refused and counted; a new SSRC takes
//! over after two packets in sequence (RFC 3550 section A.1), so that one stray packet cannot cut a voice
//! off; our own SSRC from the other side makes us choose another (section 8.2). Which addresses packets
//! may come from is the business of the sockets' owner.
//!
//! The stream has a marker at each start of talk (after silence by hold or mute the timestamp has moved on).
//! Left out: receiving other codecs than the agreed one, comfort noise (RFC 3389), sending pauses (DTX).

mod receiver;
#[cfg(test)]
mod tests;

use super::codec::{Codec, CodecError, Encoder};
use super::dtmf::{Dialer, DtmfError};
use super::rtcp::{Reporter, Sent};
use crate::core::{Instant, Queue, Rng};
use crate::rtp::event::TelephoneEvent;
use crate::rtp::rtcp::Control;
use crate::rtp::{Packet, rtcp};
use bytes::Bytes;
use receiver::Receiver;
use std::time::Duration;

/// Duration of the frames that are captured and played.
pub const FRAME: Duration = Duration::from_millis(20);
/// Outputs that may wait. One frame makes a handful.
const OUTPUTS: usize = 64;
/// A collision with our own SSRC is answered at most this often: a loop would repeat it for ever.
const COLLISION_PAUSE: Duration = Duration::from_secs(5);

/// What SDP agreed on, and nothing about addresses.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Codec of both directions.
    pub codec: &'static Codec,
    /// Payload type of the codec.
    pub payload_type: u8,
    /// Payload type and RTP clock (Hz) of telephone-events, if agreed.
    pub telephone_event: Option<(u8, u32)>,
    /// Milliseconds of audio in a packet; what the codec cannot make becomes 20.
    pub ptime_ms: u8,
    /// Voice goes out; false while we are on hold or the other end does not listen.
    pub send: bool,
    /// Voice is played; false while the other end is on hold.
    pub receive: bool,
}

/// What a session wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to the other end's RTP address.
    Rtp(Bytes),
    /// Send to the other end's RTCP address.
    Rtcp(Bytes),
    /// The other end pressed a key.
    Dtmf {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// The other end's stream said BYE.
    RemoteBye,
}

/// Counters and measurements since the session began.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Stats {
    /// Name of the codec.
    pub codec: &'static str,
    /// RTP packets sent.
    pub sent: u64,
    /// Payload bytes sent.
    pub sent_octets: u64,
    /// RTP packets received from the source in use.
    pub received: u64,
    /// Payload bytes received.
    pub received_octets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after their place had been played.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets overtaken by a later one.
    pub reordered: u64,
    /// Datagrams refused: not RTP, another payload type, an unproven source, a malformed payload.
    pub refused: u64,
    /// Packets that the jitter buffer threw away because far too many or far too old ones came.
    pub discarded: u64,
    /// Audio made up in place of what did not come, milliseconds.
    pub concealed_ms: u64,
    /// Audio left out to reduce the delay, milliseconds.
    pub shed_ms: u64,
    /// Interarrival jitter (RFC 3550 section A.8), milliseconds.
    pub jitter_ms: f64,
    /// Round trip by RTCP, milliseconds.
    pub rtt_ms: Option<f64>,
    /// From a packet's arrival to its playout, milliseconds, smoothed.
    pub playout_delay_ms: f64,
    /// What the jitter buffer aims at, milliseconds after the fastest packet.
    pub target_delay_ms: f64,
    /// Packets that the other end reports as lost.
    pub remote_lost: Option<i64>,
    /// Interarrival jitter that the other end reports, milliseconds.
    pub remote_jitter_ms: Option<f64>,
    /// Digits received.
    pub digits: u64,
    /// Times that another source took over.
    pub source_changes: u64,
    /// Frames that the encoder refused.
    pub encode_errors: u64,
    /// RTCP compounds sent and received.
    pub reports: (u64, u64),
}

/// See the module.
pub struct Session {
    config: Config,
    rng: Rng,
    encoder: Box<dyn Encoder>,
    receiver: Receiver,
    reporter: Reporter,
    dialer: Option<Dialer>,
    ssrc: u32,
    sequence: u16,
    /// Of the first sample in `pending`.
    timestamp: u32,
    pending: Vec<i16>,
    talking: bool,
    muted: bool,
    collided: Option<Instant>,
    output: Queue<Output>,
    stats: Stats,
}

impl Session {
    /// A session that begins at `now`. Fails if the codec's library does.
    pub fn new(now: Instant, config: Config, mut rng: Rng) -> Result<Session, CodecError> {
        // A bare bit rate for the RTCP budget: 64 kbit/s and headers, close enough for either codec.
        let reporter = Reporter::new(now, &rng.token(12), 8000, &mut rng);
        let mut session = Session {
            encoder: (config.codec.encoder)()?,
            receiver: Receiver::new(&config)?,
            reporter,
            dialer: config.telephone_event.map(|(_, clock)| Dialer::new(clock)),
            ssrc: rng.next_u32(),
            sequence: (rng.next_u32() & 0x7fff) as u16,
            timestamp: rng.next_u32(),
            pending: Vec::new(),
            talking: false,
            muted: false,
            collided: None,
            output: Queue::new(OUTPUTS),
            stats: Stats { codec: config.codec.name, ..Stats::default() },
            config,
            rng,
        };
        session.config.ptime_ms = session.packet_ms();
        Ok(session)
    }

    /// Takes a datagram from the RTP port.
    pub fn receive_rtp(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(packet) = Packet::parse(datagram) else {
            self.stats.refused += 1;
            return;
        };
        if packet.ssrc == self.ssrc {
            self.stats.refused += 1;
            self.collide(now);
            return;
        }
        if let Some(digit) = self.receiver.receive(now, packet, &self.config, &mut self.stats) {
            self.stats.digits += 1;
            self.emit(Output::Dtmf { digit });
        }
    }

    /// Takes a datagram from the RTCP port (or an RTCP one from a shared port, see [`crate::rtp::is_rtcp`]).
    pub fn receive_rtcp(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(controls) = rtcp::parse(datagram) else {
            self.stats.refused += 1;
            return;
        };
        self.stats.reports.1 += 1;
        self.reporter.measure(datagram.len());
        let source = self.receiver.ssrc();
        for control in &controls {
            match control {
                Control::SenderReport { ssrc, .. } | Control::ReceiverReport { ssrc, .. }
                    if source.is_none_or(|source| source == *ssrc) =>
                {
                    self.reporter.receive(now, self.ssrc, control);
                    if let Some(far_end) = self.reporter.far_end() {
                        self.encoder.set_expected_loss(far_end.loss_percent.ceil() as u8);
                    }
                }
                Control::Goodbye { sources, .. } if source.is_some_and(|source| sources.contains(&source)) => {
                    self.emit(Output::RemoteBye);
                }
                _ => {}
            }
        }
    }

    /// Takes the next 20 ms from the microphone. Call it every 20 ms, also on hold: time goes on.
    pub fn capture(&mut self, now: Instant, frame: &[i16]) {
        let ticks = self.ticks(frame.len());
        if !self.config.send {
            self.timestamp = self.timestamp.wrapping_add(self.ticks(self.pending.len())).wrapping_add(ticks);
            self.pending.clear();
            self.talking = false;
            return;
        }
        let at = self.timestamp.wrapping_add(self.ticks(self.pending.len()));
        if let Some(packet) = self.dialer.as_mut().and_then(|dialer| dialer.next_packet(at)) {
            let payload_type = self.config.telephone_event.map_or(0, |(payload_type, _)| payload_type);
            let payload = Bytes::copy_from_slice(&TelephoneEvent::to_bytes(packet.event));
            self.send(packet.marker, payload_type, packet.timestamp, payload);
            self.timestamp = at.wrapping_add(ticks);
            self.pending.clear();
            self.talking = false;
            return;
        }
        if self.muted {
            self.pending.resize(self.pending.len() + frame.len(), 0);
        } else {
            self.pending.extend_from_slice(frame);
        }
        let length = self.config.codec.sample_rate as usize * usize::from(self.config.ptime_ms) / 1000;
        while self.pending.len() >= length {
            self.encode(length);
        }
        let _ = now;
    }

    /// The next 20 ms for the loudspeaker. Call it every 20 ms.
    pub fn playout(&mut self, now: Instant) -> Vec<i16> {
        self.receiver.playout(now, self.config.receive, &mut self.stats)
    }

    /// Queues a DTMF digit to send as telephone-event; between 60 ms and 1 s long.
    pub fn send_dtmf(&mut self, digit: char, duration: Duration) -> Result<(), DtmfError> {
        self.dialer.as_mut().ok_or(DtmfError::NotAgreed)?.push(digit, duration)
    }

    /// Hold and resume.
    pub fn set_direction(&mut self, send: bool, receive: bool) {
        if !receive && self.config.receive {
            self.receiver.restart();
        }
        self.config.send = send;
        self.config.receive = receive;
    }

    /// Sends silence instead of the microphone.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// The last report and BYE, in the outputs; call it once, at the end.
    pub fn goodbye(&mut self, now: Instant) {
        let sent = self.sent();
        let bytes = self.reporter.goodbye(now, self.ssrc, sent, self.receiver.source());
        self.stats.reports.0 += 1;
        self.emit(Output::Rtcp(bytes));
    }

    /// Sends the report that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.reporter.next() {
            return;
        }
        let sent = self.sent();
        let bytes = self.reporter.report(now, self.ssrc, sent, self.receiver.source(), &mut self.rng);
        self.stats.reports.0 += 1;
        self.emit(Output::Rtcp(bytes));
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.reporter.next())
    }

    /// Samples a second of the frames.
    pub fn sample_rate(&self) -> u32 {
        self.config.codec.sample_rate
    }

    /// Samples in a frame of 20 ms.
    pub fn frame_len(&self) -> usize {
        self.config.codec.sample_rate as usize / 50
    }

    /// What was agreed.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters and measurements.
    pub fn stats(&self, now: Instant) -> Stats {
        let mut stats = self.stats;
        self.receiver.measure(now, &mut stats);
        stats.rtt_ms = self.reporter.round_trip().map(|rtt| rtt.as_secs_f64() * 1000.0);
        if let Some(far_end) = self.reporter.far_end() {
            stats.remote_lost = Some(i64::from(far_end.lost));
            let ms = f64::from(far_end.jitter) * 1000.0 / f64::from(self.config.codec.clock_rate);
            stats.remote_jitter_ms = Some(ms);
        }
        stats
    }

    fn encode(&mut self, length: usize) {
        let mut payload = Vec::new();
        let result = self.encoder.encode(&self.pending[..length], &mut payload);
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(self.ticks(length));
        self.pending.drain(..length);
        if result.is_err() || payload.is_empty() {
            self.stats.encode_errors += 1;
            self.talking = false;
            return;
        }
        let marker = !std::mem::replace(&mut self.talking, true);
        self.send(marker, self.config.payload_type, timestamp, payload.into());
    }

    fn send(&mut self, marker: bool, payload_type: u8, timestamp: u32, payload: Bytes) {
        self.stats.sent += 1;
        self.stats.sent_octets += payload.len() as u64;
        let packet = Packet { marker, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc, payload };
        self.sequence = self.sequence.wrapping_add(1);
        self.emit(Output::Rtp(packet.to_bytes()));
    }

    /// RFC 3550 section 8.2: say BYE under the old name and go on under a new one.
    fn collide(&mut self, now: Instant) {
        if self.collided.is_some_and(|at| now.since(at) < COLLISION_PAUSE) {
            return;
        }
        self.collided = Some(now);
        self.goodbye(now);
        self.ssrc = self.rng.next_u32();
        self.talking = false;
    }

    /// A full queue loses its newest: the driver did not empty it for a second.
    fn emit(&mut self, output: Output) {
        let _ = self.output.push(output);
    }

    fn sent(&self) -> Sent {
        Sent { packets: self.stats.sent as u32, octets: self.stats.sent_octets as u32, rtp_time: self.timestamp }
    }

    /// Samples to RTP ticks.
    fn ticks(&self, samples: usize) -> u32 {
        (samples as u64 * u64::from(self.config.codec.clock_rate) / u64::from(self.config.codec.sample_rate)) as u32
    }

    fn packet_ms(&self) -> u8 {
        if self.config.codec.ptimes.contains(&self.config.ptime_ms) { self.config.ptime_ms } else { 20 }
    }
}
