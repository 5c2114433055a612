//! Port Control Protocol, version 2 (RFC 6887): the MAP request and its answer, for one TCP port of this machine. Without options and without
//! PEER, ANNOUNCE and authentication, which one mapping does not need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The router's UDP port, for PCP and NAT-PMP alike.
pub const PORT: u16 = 5351;
const VERSION: u8 = 2;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
/// TCP, in the registry of protocol numbers.
const TCP: u8 = 6;
/// A MAP request and its answer without options (sections 7.1, 7.2 and 11.1).
const LENGTH: usize = 60;
/// Largest message (section 7).
const LARGEST: usize = 1100;

/// Proves that whoever asks to change a mapping is who asked for it (section 11.1).
pub type Nonce = [u8; 12];

/// Why the router does not map (section 7.4), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks another version; one that answers with version 0 speaks NAT-PMP.
    Version,
    /// Its administrator does not want it.
    NotAuthorized,
    /// Another NAT lies between it and this machine.
    AddressMismatch,
    /// Any other result code.
    Code(u16),
}

/// What the router says to a MAP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The mapping, for so many seconds.
    Mapped {
        /// Address and port outside.
        external: SocketAddr,
        /// Seconds; 0 when it was removed.
        lifetime: u32,
    },
    /// None, and not before so many seconds.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Seconds for which that stands.
        lifetime: u32,
    },
}

/// A MAP request for TCP; `lifetime` 0 removes the mapping, and `external` is then meaningless.
pub fn request(nonce: &Nonce, internal: SocketAddr, external: SocketAddr, lifetime: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(LENGTH);
    out.extend([VERSION, MAP, 0, 0]);
    out.extend(lifetime.to_be_bytes());
    out.extend(as_v6(internal.ip()).octets());
    out.extend(nonce);
    out.extend([TCP, 0, 0, 0]);
    out.extend(internal.port().to_be_bytes());
    out.extend(external.port().to_be_bytes());
    out.extend(as_v6(external.ip()).octets());
    out
}

/// Reads an answer to the request with this nonce and port; `None` when it is none.
pub fn read(bytes: &[u8], nonce: &Nonce, internal: SocketAddr) -> Option<Answer> {
    if bytes.len() > LARGEST || bytes.len() < 4 || bytes[1] & RESPONSE == 0 {
        return None;
    }
    if bytes[0] != VERSION {
        // A NAT-PMP router, whose answer is as short as 8 bytes (section 9), or a later version.
        return Some(Answer::Refused { refusal: Refusal::Version, lifetime: 0 });
    }
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (code, lifetime) = (bytes[3], word(4)?);
    match code {
        0 => {}
        1 => return Some(Answer::Refused { refusal: Refusal::Version, lifetime }),
        _ if bytes[1] != RESPONSE | MAP => return None,
        2 => return Some(Answer::Refused { refusal: Refusal::NotAuthorized, lifetime }),
        12 => return Some(Answer::Refused { refusal: Refusal::AddressMismatch, lifetime }),
        code => return Some(Answer::Refused { refusal: Refusal::Code(code.into()), lifetime }),
    }
    let map = bytes.get(24..LENGTH).filter(|_| bytes[1] == RESPONSE | MAP && bytes.len().is_multiple_of(4))?;
    let port = |at: usize| u16::from_be_bytes([map[at], map[at + 1]]);
    if map[..12] != *nonce || map[12] != TCP || port(16) != internal.port() {
        return None;
    }
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&map[20..36]).ok()?);
    Some(Answer::Mapped { external: SocketAddr::new(IpAddr::from(ip).to_canonical(), port(18)), lifetime })
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Any external address will do (section 11.1: the IPv4 address of zeros, mapped).
pub fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::portmap::tests::{hex, mutated};

    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn internal() -> SocketAddr {
        "192.168.1.10:5061".parse().unwrap()
    }

    /// Figures 2, 3, 9 and 10 of RFC 6887, filled in by hand.
    #[test]
    fn the_request_and_the_answer_are_those_of_the_figures() {
        let asked = request(&NONCE, internal(), any(5061), 900);
        let figure = "02 01 0000 00000384 00000000000000000000ffff c0a8010a \
                      0102030405060708090a0b0c 06 000000 13c5 13c5 00000000000000000000ffff 00000000";
        assert_eq!(asked, hex(figure));
        let answer = "02 81 00 00 00000258 0001e240 000000000000000000000000 \
                      0102030405060708090a0b0c 06 000000 13c5 1f90 00000000000000000000ffff 05060708";
        let external = "5.6.7.8:8080".parse().unwrap();
        assert_eq!(read(&hex(answer), &NONCE, internal()), Some(Answer::Mapped { external, lifetime: 600 }));
    }

    #[test]
    fn refusals_and_strangers() {
        let refused = |code: u8, text: &str| {
            let bytes = hex(&text.replace("CC", &format!("{code:02x}")));
            read(&bytes, &NONCE, internal())
        };
        let short = "02 81 00 CC 0000001e 00000001 000000000000000000000000";
        let is = |refusal| Some(Answer::Refused { refusal, lifetime: 30 });
        assert_eq!(refused(2, short), is(Refusal::NotAuthorized));
        assert_eq!(refused(12, short), is(Refusal::AddressMismatch));
        assert_eq!(refused(8, short), is(Refusal::Code(8)));
        // What a NAT-PMP router says to version 2 (RFC 6886 section 3.5).
        let version = Some(Answer::Refused { refusal: Refusal::Version, lifetime: 0 });
        assert_eq!(read(&hex("00 81 0001 00000001"), &NONCE, internal()), version);
        // A success without its mapping, another's nonce, our own request.
        assert_eq!(refused(0, short), None);
        let other = "02 81 00 00 00000258 0001e240 000000000000000000000000 \
                     ff02030405060708090a0b0c 06 000000 13c5 1f90 00000000000000000000ffff 05060708";
        assert_eq!(read(&hex(other), &NONCE, internal()), None);
        assert_eq!(read(&request(&NONCE, internal(), any(1), 1), &NONCE, internal()), None);
    }

    #[test]
    fn mutated_answers_are_read_or_ignored() {
        let answer = hex("02 81 00 00 00000258 0001e240 000000000000000000000000 \
                          0102030405060708090a0b0c 06 000000 13c5 1f90 00000000000000000000ffff 05060708");
        mutated(&answer, |bytes| {
            if let Some(Answer::Mapped { external, .. }) = read(bytes, &NONCE, internal()) {
                let _ = external.to_string();
            }
        });
    }
}
