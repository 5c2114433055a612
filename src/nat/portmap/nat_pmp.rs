//! NAT Port Mapping Protocol (RFC 6886), PCP's predecessor: the external address (section 3.2) and the mapping of a TCP port
//! (section 3.3). It shares the router's port 5351 with PCP and is told apart by its version, 0.

use std::net::Ipv4Addr;

const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_TCP: u8 = 2;
const RESPONSE: u8 = 0x80;

/// What the router says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its address outside.
    Address(Ipv4Addr),
    /// A port of it leads here.
    Mapped {
        /// Our port.
        internal: u16,
        /// The port outside.
        external: u16,
        /// Seconds; 0 when it was removed.
        lifetime: u32,
    },
    /// Result code 1 to 5 (section 3.5) or a later one.
    Refused(u16),
}

/// Asks for the external address.
pub fn address_request() -> Vec<u8> {
    vec![VERSION, ADDRESS]
}

/// Asks for a mapping; `lifetime` 0 and `external` 0 remove it (section 3.4).
pub fn map_request(internal: u16, external: u16, lifetime: u32) -> Vec<u8> {
    let mut out = vec![VERSION, MAP_TCP, 0, 0];
    out.extend(internal.to_be_bytes());
    out.extend(external.to_be_bytes());
    out.extend(lifetime.to_be_bytes());
    out
}

/// Reads an answer; `None` when it is none.
pub fn read(bytes: &[u8]) -> Option<Answer> {
    let [VERSION, opcode, high, low, rest @ ..] = bytes else { return None };
    let short = |at: usize| rest.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    match (opcode.checked_sub(RESPONSE)?, u16::from_be_bytes([*high, *low])) {
        (ADDRESS, 0) => Some(Answer::Address(Ipv4Addr::from(<[u8; 4]>::try_from(rest.get(4..8)?).ok()?))),
        (MAP_TCP, 0) => {
            let lifetime = u32::from_be_bytes(rest.get(8..12)?.try_into().ok()?);
            Some(Answer::Mapped { internal: short(4)?, external: short(6)?, lifetime })
        }
        (_, 0) => None,
        (_, code) => Some(Answer::Refused(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::portmap::tests::{hex, mutated};

    /// The figures of RFC 6886 sections 3.2 and 3.3, filled in by hand.
    #[test]
    fn requests_and_answers_are_those_of_the_figures() {
        assert_eq!(address_request(), hex("00 00"));
        assert_eq!(map_request(5061, 5061, 7200), hex("00 02 0000 13c5 13c5 00001c20"));
        assert_eq!(map_request(5061, 0, 0), hex("00 02 0000 13c5 0000 00000000"));
        assert_eq!(read(&hex("00 80 0000 0001e240 05060708")), Some(Answer::Address(Ipv4Addr::new(5, 6, 7, 8))));
        let mapped = Answer::Mapped { internal: 5061, external: 8080, lifetime: 3600 };
        assert_eq!(read(&hex("00 82 0000 0001e240 13c5 1f90 00000e10")), Some(mapped));
        assert_eq!(read(&hex("00 82 0002 0001e240 13c5 0000 00000000")), Some(Answer::Refused(2)));
        assert_eq!(read(&hex("00 80 0003")), Some(Answer::Refused(3)));
    }

    #[test]
    fn what_is_no_answer_is_ignored() {
        for bytes in
            ["", "00", "00 80", "00 00 0000 00000000 05060708", "00 82 0000 0001e240 13c5", "02 82 0000 0001e240"]
        {
            assert_eq!(read(&hex(bytes)), None, "{bytes}");
        }
        mutated(&hex("00 82 0000 0001e240 13c5 1f90 00000e10"), |bytes| drop(read(bytes).map(|a| format!("{a:?}"))));
    }
}
