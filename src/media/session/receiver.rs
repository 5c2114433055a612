//! The receiving half of a session: from packets to samples.

use super::{Config, Stats};
use crate::core::Instant;
use crate::media::codec::{Codec, CodecError, Decoder};
use crate::media::dtmf::Listener;
use crate::media::jitter::{Arrival, JitterBuffer, Pull};
use crate::media::reception::{Order, Reception};
use crate::rtp::Packet;
use crate::rtp::event::TelephoneEvent;
use std::collections::VecDeque;
use std::time::Duration;

/// Where two pieces of speech are joined with something left out between them.
const BLEND_MS: usize = 5;
/// Surplus audio is left out in silence; after this many surplus packets in a row, in speech as well.
const SURPLUS_PATIENCE: u32 = 100;
/// Root mean square of a frame that passes for silence whatever the speech is like (-54 dBFS).
const SILENCE: f64 = 65.0;

pub(super) struct Receiver {
    codec: &'static Codec,
    decoder: Box<dyn Decoder>,
    jitter: JitterBuffer,
    source: Option<Reception>,
    /// Another SSRC knocks: its name and the sequence number that would prove it.
    candidate: Option<(u32, u16)>,
    listener: Listener,
    /// Decoded and not yet played.
    ready: VecDeque<i16>,
    scratch: Vec<i16>,
    /// Root mean square of speech, a slow average of what is louder than silence.
    loudness: f64,
    surplus: u32,
    /// Something of the stream has been played since it began.
    begun: bool,
    lost_before: u64,
    concealed: u64,
    shed: u64,
}

impl Receiver {
    pub(super) fn new(config: &Config) -> Result<Self, CodecError> {
        Ok(Receiver {
            codec: config.codec,
            decoder: (config.codec.decoder)()?,
            jitter: JitterBuffer::new(config.codec.clock_rate, config.codec.redundancy),
            source: None,
            candidate: None,
            listener: Listener::default(),
            ready: VecDeque::new(),
            scratch: Vec::new(),
            loudness: 0.0,
            surplus: 0,
            begun: false,
            lost_before: 0,
            concealed: 0,
            shed: 0,
        })
    }

    /// Takes a packet in; a digit if it is the first of an event.
    pub(super) fn receive(&mut self, now: Instant, packet: Packet, config: &Config, stats: &mut Stats) -> Option<char> {
        let is_event = config.telephone_event.is_some_and(|(payload_type, _)| payload_type == packet.payload_type);
        let duration =
            if packet.payload_type == config.payload_type { (self.codec.duration)(&packet.payload) } else { None };
        if !is_event && duration.is_none() || !self.accept(&packet, stats) {
            stats.refused += 1;
            return None;
        }
        let source = self.source.as_mut()?;
        match source.update(packet.sequence) {
            Order::Leap => {
                stats.refused += 1;
                return None;
            }
            Order::Duplicate => {
                stats.duplicates += 1;
                stats.received += 1;
                return None;
            }
            Order::Reordered => stats.reordered += 1,
            Order::Newest => {}
        }
        stats.received += 1;
        stats.received_octets += packet.payload.len() as u64;
        if is_event {
            let event = TelephoneEvent::parse(&packet.payload).ok()?;
            return self.listener.receive(packet.timestamp, event);
        }
        source.arrived(now, packet.timestamp);
        if config.receive {
            match self.jitter.insert(now, packet.timestamp, duration?, packet.payload) {
                Arrival::Kept => {}
                Arrival::Duplicate => stats.duplicates += 1,
                Arrival::Late => stats.late += 1,
            }
        }
        None
    }

    /// 20 ms of sound from `now` on.
    pub(super) fn playout(&mut self, now: Instant, receive: bool, stats: &mut Stats) -> Vec<i16> {
        let rate = self.codec.sample_rate as usize;
        let length = rate / 50;
        if !receive {
            return vec![0; length];
        }
        while self.ready.len() < length {
            let queued = Duration::from_micros(self.ready.len() as u64 * 1_000_000 / rate as u64);
            self.scratch.clear();
            match self.jitter.pull(now + queued) {
                Pull::Play { payload, surplus } => {
                    if self.decoder.decode(&payload, &mut self.scratch).is_err() {
                        stats.refused += 1;
                        self.conceal(length, None);
                    } else if self.dispensable(surplus) {
                        self.jitter.shed();
                        self.shed += self.scratch.len() as u64;
                        self.blend();
                        continue;
                    }
                    self.begun = true;
                }
                Pull::Lost { ticks, next } => {
                    let samples = ticks as usize * rate / self.codec.clock_rate as usize;
                    self.conceal(samples.max(1), next.as_deref());
                }
                // Before the first word there is nothing to go on from.
                Pull::Nothing if !self.begun => self.scratch.resize(length - self.ready.len(), 0),
                Pull::Nothing => self.conceal(length - self.ready.len(), None),
            }
            self.ready.extend(&self.scratch);
        }
        self.ready.drain(..length).collect()
    }

    /// Forgets what is queued: receiving stops or a new stream begins.
    pub(super) fn restart(&mut self) {
        self.jitter.restart();
        self.ready.clear();
        self.begun = false;
        self.surplus = 0;
    }

    pub(super) fn source(&mut self) -> Option<&mut Reception> {
        self.source.as_mut()
    }

    pub(super) fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(Reception::ssrc)
    }

    pub(super) fn measure(&self, now: Instant, stats: &mut Stats) {
        let rate = u64::from(self.codec.sample_rate);
        stats.lost = self.lost_before + self.source.as_ref().map_or(0, Reception::lost);
        stats.jitter_ms = self.source.as_ref().map_or(0.0, Reception::jitter_ms);
        stats.playout_delay_ms = self.jitter.delay_us() / 1000.0;
        stats.target_delay_ms = self.jitter.aim(now) as f64 / 1000.0;
        stats.discarded = self.jitter.discarded().0;
        stats.concealed_ms = self.concealed * 1000 / rate;
        stats.shed_ms = self.shed * 1000 / rate;
    }

    /// True if the packet's source is, or has just become, the one that is listened to.
    fn accept(&mut self, packet: &Packet, stats: &mut Stats) -> bool {
        match &self.source {
            Some(source) if source.ssrc() == packet.ssrc => {
                self.candidate = None;
                return true;
            }
            Some(_) if self.candidate != Some((packet.ssrc, packet.sequence)) => {
                self.candidate = Some((packet.ssrc, packet.sequence.wrapping_add(1)));
                return false;
            }
            Some(source) => {
                self.lost_before += source.lost();
                stats.source_changes += 1;
                self.restart();
                if let Ok(decoder) = (self.codec.decoder)() {
                    self.decoder = decoder;
                }
            }
            None => {}
        }
        self.candidate = None;
        self.listener = Listener::default();
        self.source = Some(Reception::new(packet.ssrc, self.codec.clock_rate, packet.sequence));
        true
    }

    fn conceal(&mut self, samples: usize, next: Option<&[u8]>) {
        self.scratch.clear();
        self.decoder.conceal(samples, next, &mut self.scratch);
        self.concealed += samples as u64;
    }

    /// Whether the audio in `scratch` may be left out to catch up.
    fn dispensable(&mut self, surplus: bool) -> bool {
        let power: f64 = self.scratch.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        let level = (power / self.scratch.len().max(1) as f64).sqrt();
        if level > SILENCE {
            self.loudness += (level - self.loudness) / 64.0;
        }
        self.surplus = if surplus { self.surplus + 1 } else { 0 };
        let quiet = level <= SILENCE.max(self.loudness / 20.0);
        let now = surplus && (quiet || self.surplus > SURPLUS_PATIENCE);
        if now {
            self.surplus = 0;
        }
        now
    }

    /// Fades the end of what is queued over into the end of what is left out, which is where the next packet begins.
    fn blend(&mut self) {
        let length = (self.codec.sample_rate as usize * BLEND_MS / 1000).min(self.ready.len()).min(self.scratch.len());
        let (to, from) = (self.ready.len() - length, self.scratch.len() - length);
        for i in 0..length {
            let (old, new) = (i32::from(self.ready[to + i]), i32::from(self.scratch[from + i]));
            let (i, length) = (i as i32 + 1, length as i32);
            self.ready[to + i as usize - 1] = ((old * (length - i) + new * i) / length) as i16;
        }
    }
}
