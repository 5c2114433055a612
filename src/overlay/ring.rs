//! Arithmetic on the circle of identifiers (Chord paper, section 4: intervals are clockwise and wrap).
//!
//! The circle has 160 bits, one SHA-1 digest; [`IdSpace::new`] makes smaller ones, so that the 4-bit traces of
//! draft-zangrilli-p2psip-dsip-dhtchord-00 section 7.4 replay. In a smaller space an identifier is the low bits
//! of an [`Id`], all others zero.

use crate::core::Id;
use std::fmt;

/// The space of identifiers: how many bits an identifier has and how it is written in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdSpace {
    bits: u8,
}

impl IdSpace {
    /// SHA-1's: 160 bits, written as 40 lower-case hexadecimal digits.
    pub const SHA1: IdSpace = IdSpace { bits: 160 };

    /// A space of `bits` bits, clamped to 1..=160. Up to 64 bits an identifier is written as a decimal number,
    /// as the examples of the drafts do.
    pub const fn new(bits: u8) -> IdSpace {
        IdSpace {
            bits: if bits == 0 {
                1
            } else if bits > 160 {
                160
            } else {
                bits
            },
        }
    }

    /// Bits of an identifier.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// True when `id` lies in this space.
    pub fn contains(self, id: &Id) -> bool {
        self.mask(*id) == *id
    }

    /// `id` modulo the size of the space.
    pub fn mask(self, mut id: Id) -> Id {
        let unused = 160 - usize::from(self.bits);
        for (i, byte) in id.0.iter_mut().enumerate() {
            let zeroed = unused.saturating_sub(i * 8).min(8);
            *byte &= (0xffu16 >> zeroed) as u8;
        }
        id
    }

    /// The clockwise distance from `from` to `to`, as a number in the same form as an identifier.
    pub fn distance(self, from: &Id, to: &Id) -> Id {
        let mut out = [0u8; 20];
        let mut borrow = 0i16;
        for i in (0..20).rev() {
            let d = i16::from(to.0[i]) - i16::from(from.0[i]) - borrow;
            borrow = i16::from(d < 0);
            out[i] = d.rem_euclid(256) as u8;
        }
        self.mask(Id(out))
    }

    /// `id + 2^exponent`: where the interval of that finger begins.
    pub fn finger_start(self, id: &Id, exponent: u8) -> Id {
        let mut out = id.0;
        let mut at = 19usize.saturating_sub(usize::from(exponent / 8));
        let mut carry = 1u16 << (exponent % 8);
        loop {
            let sum = u16::from(out[at]) + carry;
            out[at] = sum as u8;
            carry = sum >> 8;
            if carry == 0 || at == 0 {
                break;
            }
            at -= 1;
        }
        self.mask(Id(out))
    }

    /// Where finger `step` begins with fingers of base 2^`width` (Chord paper, section 4, with a wider base: digit by
    /// digit). Step *n* is digit *n* mod (2^width - 1) + 1 at place *n* / (2^width - 1); `None` beyond the circle. With
    /// width 1 a step is an exponent.
    pub fn step_start(self, id: &Id, width: u8, step: u16) -> Option<Id> {
        let exponent = self.step_exponent(width, step)?;
        let (digit, place) = digit(width, step);
        let mut start = *id;
        for bit in (0..8).filter(|bit| digit >> bit & 1 == 1) {
            start = self.finger_start(&start, place + bit);
        }
        debug_assert!(exponent >= place);
        Some(start)
    }

    /// The highest power of two in the offset of finger `step`; `None` beyond the circle.
    pub fn step_exponent(self, width: u8, step: u16) -> Option<u8> {
        let (digit, place) = digit(width, step);
        let exponent = u16::from(place) + digit.ilog2() as u16;
        (exponent < u16::from(self.bits)).then_some(exponent as u8)
    }

    /// Steps of fingers of base 2^`width`, some of which lie beyond the circle.
    pub fn steps(self, width: u8) -> u16 {
        u16::from(self.bits).div_ceil(u16::from(width.max(1))) * ((1 << width.max(1)) - 1)
    }

    /// The identifier right before `id`.
    pub fn before(self, id: &Id) -> Id {
        let mut out = id.0;
        for byte in out.iter_mut().rev() {
            let (less, borrow) = byte.overflowing_sub(1);
            *byte = less;
            if !borrow {
                break;
            }
        }
        self.mask(Id(out))
    }

    /// True when `id` is in the clockwise interval (`from`, `to`]; the whole circle when both ends are the same.
    pub fn in_open_closed(self, id: &Id, from: &Id, to: &Id) -> bool {
        if from < to { from < id && id <= to } else { id > from || id <= to }
    }

    /// True when `id` is in the clockwise interval (`from`, `to`); all but `from` when both ends are the same.
    pub fn in_open(self, id: &Id, from: &Id, to: &Id) -> bool {
        if from < to { from < id && id < to } else { (id > from || id < to) && id != from }
    }

    /// Where replica `number` of the resource `key` lies: the key itself for 0, else SHA-1 of the key's 20 bytes
    /// followed by the number as one byte, so that whoever has the key alone finds every replica.
    pub fn replica_position(self, key: &Id, number: u8) -> Id {
        if number == 0 {
            return *key;
        }
        let mut bytes = [0; 21];
        bytes[..20].copy_from_slice(&key.0);
        bytes[20] = number;
        self.mask(Id::sha1(&bytes))
    }

    /// Reads an identifier as a message carries it.
    pub fn parse(self, text: &str) -> Option<Id> {
        let id = if self.bits <= 64 {
            if text.is_empty() || text.len() > 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Id::from_u64(text.parse().ok()?)
        } else {
            Id::from_hex(text)?
        };
        self.contains(&id).then_some(id)
    }

    /// Writes an identifier as a message carries it.
    pub fn show(self, id: &Id) -> impl fmt::Display + use<> {
        Shown { space: self, id: *id }
    }
}

impl Default for IdSpace {
    fn default() -> Self {
        IdSpace::SHA1
    }
}

struct Shown {
    space: IdSpace,
    id: Id,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.space.bits <= 64 {
            let mut low = [0; 8];
            low.copy_from_slice(&self.id.0[12..]);
            write!(f, "{}", u64::from_be_bytes(low))
        } else {
            write!(f, "{}", self.id)
        }
    }
}

/// Digit (1 and above) and place (an exponent of two) of a step.
fn digit(width: u8, step: u16) -> (u16, u8) {
    let per = (1u16 << width.max(1)) - 1;
    (step % per + 1, u8::try_from(step / per * u16::from(width.max(1))).unwrap_or(u8::MAX - 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: IdSpace = IdSpace::new(4);

    fn id(n: u64) -> Id {
        Id::from_u64(n)
    }

    #[test]
    fn fingers_and_distances_wrap() {
        let starts: Vec<Id> = (0..4).map(|i| SMALL.finger_start(&id(10), i)).collect();
        assert_eq!(starts, [id(11), id(12), id(14), id(2)]);
        assert_eq!(SMALL.distance(&id(10), &id(3)), id(9));
        assert_eq!(SMALL.distance(&id(3), &id(10)), id(7));
        assert_eq!((SMALL.before(&id(0)), SMALL.before(&id(9))), (id(15), id(8)));
        let top = IdSpace::SHA1.finger_start(&Id([0xff; 20]), 0);
        assert_eq!(top, id(0));
        assert_eq!(IdSpace::SHA1.finger_start(&id(0), 159).0[0], 0x80);
    }

    #[test]
    fn intervals_wrap() {
        assert!(SMALL.in_open_closed(&id(2), &id(10), &id(3)));
        assert!(SMALL.in_open_closed(&id(3), &id(10), &id(3)));
        assert!(!SMALL.in_open_closed(&id(10), &id(10), &id(3)));
        assert!(SMALL.in_open_closed(&id(7), &id(5), &id(5)));
        assert!(!SMALL.in_open(&id(3), &id(10), &id(3)));
        assert!(!SMALL.in_open(&id(5), &id(5), &id(5)));
        assert!(SMALL.in_open(&id(6), &id(5), &id(5)));
    }

    #[test]
    fn text_both_ways() {
        assert_eq!(SMALL.parse("10"), Some(id(10)));
        assert_eq!(SMALL.parse("16"), None);
        assert_eq!(SMALL.show(&id(10)).to_string(), "10");
        let big = Id::sha1(b"x");
        assert_eq!(IdSpace::SHA1.parse(&IdSpace::SHA1.show(&big).to_string()), Some(big));
    }

    #[test]
    fn replicas_are_elsewhere() {
        let key = Id::sha1(b"sip:bob@example");
        assert_eq!(IdSpace::SHA1.replica_position(&key, 0), key);
        assert_ne!(IdSpace::SHA1.replica_position(&key, 1), key);
        assert!(SMALL.contains(&SMALL.replica_position(&id(8), 1)));
    }
}
