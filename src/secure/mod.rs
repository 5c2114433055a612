//! L2: what keeps a call's voice to its two ends. DTLS 1.2 (RFC 6347) on the socket of the voice agrees on keys, SRTP and SRTCP
//! (RFC 3711, RFC 7714) protect the packets, both as RFC 5764 joins them; [`Statement`] binds the DTLS certificate that
//! a description names to the device that sent the description.
//!
//! | file | what |
//! |---|---|
//! | `association` | one call's DTLS handshake and then its packets, driven like every machine |
//! | `srtp` | SRTP contexts of both directions, bounded |
//! | `statement` | a device's signature over Call-ID, tag, role, address and fingerprint |
//!
//! DTLS certificates are self-signed P-256 ones made anew at each start (by `io`); nothing but the fingerprint counts.
//!
//! Left out: SDES (RFC 4568), rekeying within a call (AES-GCM's bound of 2^48 packets is not reached by voice), DTLS over
//! a separate RTCP port: who is secured multiplexes (RFC 5761).

mod association;
mod srtp;
mod statement;
#[cfg(test)]
mod tests;

pub use association::{Association, Keys, State};
pub use statement::{Role, Statement};

use std::fmt;

/// SHA-256 over a certificate's DER, as `a=fingerprint` carries it (RFC 8122).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Fingerprint {
        use sha2::Digest;
        let mut out = [0; 32];
        out.copy_from_slice(&sha2::Sha256::digest(der));
        Fingerprint(out)
    }

    /// Reads the value of `a=fingerprint`; `None` for another hash than SHA-256 or a malformed value.
    pub fn parse(value: &str) -> Option<Fingerprint> {
        let (hash, digits) = value.trim().split_once(' ')?;
        if !hash.eq_ignore_ascii_case("sha-256") {
            return None;
        }
        let mut out = [0; 32];
        let mut pairs = digits.trim().split(':');
        for byte in &mut out {
            let pair = pairs.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Fingerprint(out))
    }
}

impl fmt::Display for Fingerprint {
    /// As `a=fingerprint` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha-256 ")?;
        for (n, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if n == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
