//! DTMF as telephone-events: making them (RFC 4733 section 2.5.1) and taking each in once (2.5.2).
//!
//! A digit is at most one second long, so that its duration fits the 16-bit field at 48 kHz and no
//! segments (2.5.1.3) are needed.

use crate::core::Queue;
use crate::rtp::event::{TelephoneEvent, code_of, digit_of};
use std::time::Duration;

/// Digits waiting at most.
const QUEUE: usize = 64;
const SHORTEST: Duration = Duration::from_millis(60);
const LONGEST: Duration = Duration::from_secs(1);
/// The packet that ends an event is sent three times (2.5.1.4).
const ENDS: u8 = 3;
/// Audio frames between two digits, so that the far end can tell `11` from a long `1`: 60 ms.
const PAUSE_FRAMES: u8 = 3;
/// -10 dBm0, within what Q.24 asks of a receiver.
const VOLUME: u8 = 10;

/// Why a digit was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DtmfError {
    /// Not one of `0`-`9`, `*`, `#`, `A`-`D`.
    #[error("{0:?} is not a DTMF digit")]
    Digit(char),
    /// The other end did not agree to telephone-events.
    #[error("the other end takes no telephone-events")]
    NotAgreed,
    /// More digits wait than are held.
    #[error("too many digits wait to be sent")]
    Full,
}

/// One packet of an event to send in place of audio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventPacket {
    /// The first packet of an event.
    pub marker: bool,
    /// The RTP timestamp at which the event began.
    pub timestamp: u32,
    /// Its payload.
    pub event: TelephoneEvent,
}

/// Sends digits one after another, one packet each 20 ms frame.
pub struct Dialer {
    waiting: Queue<(u8, u32)>,
    clock_rate: u32,
    current: Option<Tone>,
    pause: u8,
}

struct Tone {
    code: u8,
    start: u32,
    total: u32,
    duration: u32,
    ends_left: u8,
}

impl Dialer {
    /// `clock_rate` (Hz) is that of the telephone-event payload type.
    pub fn new(clock_rate: u32) -> Self {
        Dialer { waiting: Queue::new(QUEUE), clock_rate, current: None, pause: 0 }
    }

    /// Queues a digit; its duration is brought between 60 ms and 1 s.
    pub fn push(&mut self, digit: char, duration: Duration) -> Result<(), DtmfError> {
        let code = code_of(digit).ok_or(DtmfError::Digit(digit))?;
        let ms = duration.clamp(SHORTEST, LONGEST).as_millis() as u64;
        let ticks = (ms * u64::from(self.clock_rate) / 1000) as u32;
        self.waiting.push((code, ticks)).map_err(|_| DtmfError::Full)
    }

    /// Called once for every 20 ms frame; `timestamp` is that of the frame. While it gives packets, no audio is sent.
    pub fn next_packet(&mut self, timestamp: u32) -> Option<EventPacket> {
        let mut marker = false;
        if self.current.is_none() {
            if self.pause > 0 {
                self.pause -= 1;
                return None;
            }
            let (code, total) = self.waiting.pop()?;
            self.current = Some(Tone { code, start: timestamp, total, duration: 0, ends_left: ENDS });
            marker = true;
        }
        let tone = self.current.as_mut()?;
        tone.duration = (tone.duration + self.clock_rate / 50).min(tone.total).min(0xffff);
        let end = tone.duration >= tone.total;
        let event = TelephoneEvent { event: tone.code, end, volume: VOLUME, duration: tone.duration as u16 };
        let packet = EventPacket { marker, timestamp: tone.start, event };
        if end {
            tone.ends_left -= 1;
            if tone.ends_left == 0 {
                self.current = None;
                self.pause = PAUSE_FRAMES;
            }
        }
        Some(packet)
    }
}

/// Tells new events from the repetitions of old ones by their timestamp.
#[derive(Default)]
pub struct Listener {
    last: Option<u32>,
}

impl Listener {
    /// The digit, if this packet is the first seen of a new event.
    pub fn receive(&mut self, timestamp: u32, event: TelephoneEvent) -> Option<char> {
        if self.last.is_some_and(|last| timestamp.wrapping_sub(last) as i32 <= 0) {
            return None;
        }
        self.last = Some(timestamp);
        digit_of(event.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_sent_with_its_end_three_times() {
        let mut dialer = Dialer::new(8000);
        dialer.push('5', Duration::from_millis(100)).unwrap();
        dialer.push('5', Duration::from_millis(1)).unwrap();
        let packets: Vec<_> = (0..16).map(|frame| dialer.next_packet(1000 + frame * 160)).collect();
        let first: Vec<_> = packets[..7].iter().flatten().collect();
        assert_eq!(first.len(), 7);
        assert!(first.iter().all(|p| p.timestamp == 1000 && p.event.event == 5));
        assert_eq!(first.iter().map(|p| p.event.duration).collect::<Vec<_>>(), [160, 320, 480, 640, 800, 800, 800]);
        assert_eq!(first.iter().filter(|p| p.event.end).count(), 3);
        assert_eq!(first.iter().map(|p| p.marker).collect::<Vec<_>>()[..2], [true, false]);
        assert!(packets[7..10].iter().all(Option::is_none), "a pause between the digits");
        assert!(packets[10].unwrap().marker);
        assert_eq!(packets[10..15].iter().flatten().count(), 5, "60 ms at least");
        assert_eq!(packets[15], None);
    }

    #[test]
    fn what_is_no_digit_or_too_much_is_refused() {
        let mut dialer = Dialer::new(48000);
        assert_eq!(dialer.push('x', LONGEST), Err(DtmfError::Digit('x')));
        for _ in 0..QUEUE {
            dialer.push('#', Duration::from_secs(9)).unwrap();
        }
        assert_eq!(dialer.push('#', LONGEST), Err(DtmfError::Full));
        let last = (0..50).filter_map(|frame| dialer.next_packet(frame * 960)).last().unwrap();
        assert!(last.event.end && last.event.duration == 48000);
    }

    #[test]
    fn each_event_is_heard_once() {
        let mut listener = Listener::default();
        let event = |end| TelephoneEvent { event: 1, end, volume: 10, duration: 160 };
        let near_wrap = u32::MAX - 100;
        assert_eq!(listener.receive(near_wrap, event(false)), Some('1'));
        assert_eq!(listener.receive(near_wrap, event(true)), None);
        assert_eq!(listener.receive(500, event(true)), Some('1'), "only the end of the second one came");
        assert_eq!(listener.receive(near_wrap, event(true)), None, "a late repetition of the first");
        assert_eq!(listener.receive(2000, TelephoneEvent { event: 16, ..event(true) }), None, "flash is no digit");
    }
}
