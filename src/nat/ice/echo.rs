//! The probes of a call's two ways: Binding indications (RFC 8489 section 6) with one attribute of our own, authenticated by
//! MESSAGE-INTEGRITY-SHA256 cut to 16 bytes (section 14.6) under the receiver's password of the second ICE session. A program that does
//! not know them takes them for keep-alives (RFC 8445 section 11).
//!
//! The attribute: way (1 byte), which reports are there (1), milliseconds from the arrival of each way's newest probe to this
//! one (1 each), number (4), and for each way the lower half of the newest probe's number and a bit for each of the 16 before it (2 and 2).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const INDICATION: [u8; 2] = [0x00, 0x11];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Of the range that whoever does not know an attribute passes over.
const ECHO: [u8; 4] = [0xc0, 0xd1, 0, BODY as u8];
const INTEGRITY: [u8; 4] = [0x00, 0x1c, 0, PROOF as u8];
const HEADER: usize = 20;
const BODY: usize = 16;
const PROOF: usize = 16;
/// Of a probe.
const LENGTH: usize = HEADER + 4 + BODY + 4 + PROOF;

/// What came of the other end's probes on one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Lower half of the newest one's number.
    pub newest: u16,
    /// Those before it, bit 0 for the one right before.
    pub before: u16,
    /// How long ago the newest one came, at most 255.
    pub waited_ms: u8,
}

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    /// 0 or 1.
    pub lane: u8,
    /// Counts up on each way.
    pub number: u32,
    /// Of both ways.
    pub heard: [Option<Heard>; 2],
}

/// True for what may be a probe.
pub fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() == LENGTH
        && datagram[..2] == INDICATION
        && datagram[4..8] == COOKIE
        && datagram[HEADER..HEADER + 4] == ECHO
}

impl Echo {
    pub(super) fn write(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.extend_from_slice(&INDICATION);
        out.extend_from_slice(&((LENGTH - HEADER) as u16).to_be_bytes());
        out.extend_from_slice(&COOKIE);
        // An indication has no answer that a transaction would name: way and number, which no two probes share.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, self.lane]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&ECHO);
        let there = self.heard.iter().enumerate().map(|(n, h)| u8::from(h.is_some()) << n).sum();
        let heard = self.heard.map(|h| h.unwrap_or(Heard { newest: 0, before: 0, waited_ms: 0 }));
        out.extend_from_slice(&[self.lane, there, heard[0].waited_ms, heard[1].waited_ms]);
        out.extend_from_slice(&self.number.to_be_bytes());
        for heard in heard {
            out.extend_from_slice(&heard.newest.to_be_bytes());
            out.extend_from_slice(&heard.before.to_be_bytes());
        }
        if let Some(mac) = proof(key, &out) {
            out.extend_from_slice(&INTEGRITY);
            out.extend_from_slice(&mac.finalize().into_bytes()[..PROOF]);
        }
        out
    }

    /// None where it is no probe, or not of whoever has the key.
    pub(super) fn read(datagram: &[u8], key: &[u8]) -> Option<Echo> {
        if !is_probe(datagram) {
            return None;
        }
        let (said, integrity) = datagram.split_at(HEADER + 4 + BODY);
        if integrity[..4] != INTEGRITY {
            return None;
        }
        proof(key, said)?.verify_truncated_left(&integrity[4..]).ok()?;
        let body = &said[HEADER + 4..];
        let half = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let heard = |n: usize| {
            let there = body[1] >> n & 1 == 1;
            there.then(|| Heard { newest: half(8 + 4 * n), before: half(10 + 4 * n), waited_ms: body[2 + n] })
        };
        let number = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
        Some(Echo { lane: body[0], number, heard: [heard(0), heard(1)] })
    }
}

/// Over everything before the attribute, whose length the header counts already.
fn proof(key: &[u8], said: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(said);
    Some(mac)
}
