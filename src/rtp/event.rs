//! telephone-event payloads (RFC 4733 section 2.3): the sixteen DTMF digits.
//!
//! Left out: tones (section 4), the line events of RFC 4734, and several events in one payload (2.5.1.5):
//! only the first block of a payload is read.

use super::RtpError;

/// One event block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelephoneEvent {
    /// Event code; 0 to 15 are the DTMF digits.
    pub event: u8,
    /// True in the packets that end the event.
    pub end: bool,
    /// Power below 0 dBm0, 0 to 63.
    pub volume: u8,
    /// Duration so far, in ticks of the RTP clock.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads the first block of a payload.
    pub fn parse(payload: &[u8]) -> Result<TelephoneEvent, RtpError> {
        let [event, flags, high, low, ..] = *payload else { return Err(RtpError::Short) };
        Ok(TelephoneEvent {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// Writes the four bytes.
    pub fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, u8::from(self.end) << 7 | self.volume & 0x3f, high, low]
    }
}

const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

/// The event code of a DTMF digit (`0`-`9`, `*`, `#`, `A`-`D` in either case).
pub fn code_of(digit: char) -> Option<u8> {
    let digit = u8::try_from(digit).ok()?.to_ascii_uppercase();
    DIGITS.iter().position(|d| *d == digit).and_then(|i| u8::try_from(i).ok())
}

/// The DTMF digit of an event code; `None` for all other events.
pub fn digit_of(code: u8) -> Option<char> {
    DIGITS.get(usize::from(code)).map(|d| char::from(*d))
}
