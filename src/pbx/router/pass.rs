//! What we write into messages to recognise them by: passes in Record-Route, and branches that tell loops.
//!
//! A **pass** is the user part of our Record-Route URI: a keyed hash over the Call-ID, and over the flow of that side
//! where the way back is only that flow (the flow token of RFC 5626 section 5.2). A request of a dialog that brings
//! it back was let through here before: it needs no credentials, and if its far side hangs on a stream or behind a
//! NAT it is put on that flow without any table. Whoever does not take part in the dialog cannot make one.
//!
//! The same over the flow alone is the user part of a **Path** (RFC 3327): who registered a phone through here reaches it by that.
//!
//! A **branch** carries a keyed hash over all that decides where a request goes (RFC 3261 section 16.6 step 8, with
//! the corrections of RFC 5393 section 4.2): a request that arrives with our hash in some Via has been here in the
//! same form and is a loop; one with another hash is a spiral.

use crate::core::{ConnId, Flow, Rng, Transport};
use crate::sip::msg::{HeaderName, MAGIC_COOKIE, Message};
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;

/// A pass that was ours.
pub(super) struct Pass {
    /// The flow of the side that it was written for.
    pub flow: Option<Flow>,
}

/// The secret behind passes and branches.
pub(super) struct Passes {
    dialogs: [u8; 32],
    loops: [u8; 32],
}

impl Passes {
    pub fn new(key: &[u8; 32]) -> Passes {
        let derive = |context| blake3::derive_key(context, key);
        Passes { dialogs: derive("chordial 2026 proxy dialog pass"), loops: derive("chordial 2026 proxy loop mark") }
    }

    /// The pass for one side of a dialog.
    pub fn write(&self, call_id: &str, flow: Option<&Flow>) -> String {
        let mut bytes = [0; PASS];
        let end = flow.map_or(0, |flow| write_flow(flow, &mut bytes));
        let (body, tail) = bytes.split_at_mut(end);
        tail[..SEAL].copy_from_slice(&self.seal(call_id, body));
        base64(&bytes[..end + SEAL])
    }

    /// Reads a pass for this Call-ID; none for any other text.
    pub fn read(&self, call_id: &str, text: &str) -> Option<Pass> {
        let bytes = unbase64(text)?;
        let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
        let ours: bool = self.seal(call_id, body).ct_eq(seal).into();
        if !ours {
            return None;
        }
        Some(Pass { flow: if body.is_empty() { None } else { Some(read_flow(body)?) } })
    }

    /// The pass of a phone's way to whoever holds its account: it leads to the phone's flow from outside of any dialog.
    pub fn write_way(&self, flow: &Flow) -> String {
        self.write(WAY, Some(flow))
    }

    /// Reads such a pass.
    pub fn read_way(&self, text: &str) -> Option<Flow> {
        self.read(WAY, text)?.flow
    }

    /// The mark of a request in the form in which it is about to be routed.
    pub fn mark(&self, request: &Message) -> String {
        let mut hash = blake3::Hasher::new_keyed(&self.loops);
        let mut add = |text: &str| {
            hash.update(&(text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        };
        add(request.request_uri());
        add(request.from_tag().unwrap_or_default());
        add(request.to_tag().unwrap_or_default());
        add(request.call_id().unwrap_or_default());
        add(request.header(HeaderName::CSeq).and_then(|v| v.split_whitespace().next()).unwrap_or_default());
        for name in [HeaderName::ProxyRequire, HeaderName::ProxyAuthorization, HeaderName::Route] {
            request.headers(name).for_each(&mut add);
        }
        base64(&hash.finalize().as_bytes()[..MARK])
    }

    /// The mark of an ACK for a 2xx, which is forwarded without state: the same for each retransmission.
    pub fn stateless(&self, request: &Message) -> String {
        let mut hash = blake3::Hasher::new_keyed(&self.loops);
        hash.update(request.headers(HeaderName::Via).next().unwrap_or_default().as_bytes());
        base64(&hash.finalize().as_bytes()[..MARK + SEAL])
    }

    fn seal(&self, call_id: &str, body: &[u8]) -> [u8; SEAL] {
        let mut hash = blake3::Hasher::new_keyed(&self.dialogs);
        hash.update(&[body.len() as u8]).update(body).update(call_id.as_bytes());
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&hash.finalize().as_bytes()[..SEAL]);
        seal
    }
}

/// A branch of ours: unique, with the mark of its request behind a dot.
pub(super) fn branch(rng: &mut Rng, mark: &str) -> String {
    format!("{MAGIC_COOKIE}{}.{mark}", base64(&rng.next_u64().to_be_bytes()))
}

/// True where some Via carries this mark.
pub(super) fn has_mark(request: &Message, mark: &str) -> bool {
    let marked = |via: &str| {
        via.match_indices(mark).any(|(at, _)| {
            let (before, after) = (via.get(..at).unwrap_or_default(), via.get(at + mark.len()..).unwrap_or_default());
            before.ends_with('.') && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c))
        })
    };
    request.headers(HeaderName::Via).any(marked)
}

fn write_flow(flow: &Flow, out: &mut [u8; PASS]) -> usize {
    // Two bits below the families and one above them.
    let transport = match flow.transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 16,
    };
    let mut at = 1;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for address in [flow.remote, flow.local] {
        match address.ip() {
            IpAddr::V4(ip) => put(&ip.octets()),
            IpAddr::V6(ip) => put(&ip.octets()),
        }
        put(&address.port().to_be_bytes());
    }
    if let Some(conn) = flow.conn {
        put(&conn.0.to_be_bytes());
    }
    out[0] = transport | u8::from(flow.remote.is_ipv6()) << 2 | u8::from(flow.local.is_ipv6()) << 3;
    at
}

fn read_flow(bytes: &[u8]) -> Option<Flow> {
    let (first, mut rest) = bytes.split_first()?;
    let transport = match first & 19 {
        0 => Transport::Udp,
        1 => Transport::Tcp,
        2 => Transport::Tls,
        3 => Transport::Ws,
        16 => Transport::Wss,
        _ => return None,
    };
    let mut address = |v6: bool| -> Option<SocketAddr> {
        let ip = if v6 {
            let (ip, tail) = rest.split_first_chunk::<16>()?;
            rest = tail;
            IpAddr::from(*ip)
        } else {
            let (ip, tail) = rest.split_first_chunk::<4>()?;
            rest = tail;
            IpAddr::from(*ip)
        };
        let (port, tail) = rest.split_first_chunk::<2>()?;
        rest = tail;
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    };
    let (remote, local) = (address(first & 4 != 0)?, address(first & 8 != 0)?);
    let conn = match rest.len() {
        0 => None,
        _ => Some(ConnId(u64::from_be_bytes(rest.try_into().ok()?))),
    };
    Some(Flow { transport, local, remote, conn })
}

/// Base64 for URLs (RFC 4648 section 5) without padding: all of it may stand in a user part and in a token.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]));
        }
    }
    out
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    if text.len() > PASS * 4 / 3 + 1 || text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut have) = (0u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Some(out)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// In the place of a Call-ID; none can hold a line's end.
const WAY: &str = "\n";
/// Bytes of a pass that prove it.
const SEAL: usize = 8;
/// Bytes of a loop mark.
const MARK: usize = 6;
/// Most bytes of a pass: kind, two IPv6 addresses with ports, connection, seal.
const PASS: usize = 1 + 2 * 18 + 8 + SEAL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_holds_for_its_dialog_and_its_flow() {
        let passes = Passes::new(&[7; 32]);
        let v4 = ["192.0.2.1:5060".parse().unwrap(), "198.51.100.7:40000".parse().unwrap()];
        let v6 = ["[2001:db8::1]:5060".parse().unwrap(), "[2001:db8::2]:4".parse().unwrap()];
        for flow in [
            Flow::udp(v4[0], v4[1]),
            Flow::udp(v6[0], v6[1]),
            Flow::stream(Transport::Tcp, v4[0], v4[1], ConnId(u64::MAX)),
            Flow::stream(Transport::Tls, v6[0], v6[1], ConnId(3)),
            Flow::stream(Transport::Ws, v4[0], v6[1], ConnId(4)),
            Flow::stream(Transport::Wss, v6[0], v4[1], ConnId(5)),
        ] {
            let text = passes.write("call@host", Some(&flow));
            assert_eq!(passes.read("call@host", &text).unwrap().flow, Some(flow), "{text}");
            assert!(passes.read("call@hosu", &text).is_none());
            assert!(Passes::new(&[8; 32]).read("call@host", &text).is_none());
            let mut forged = text.into_bytes();
            forged[3] ^= 1;
            assert!(passes.read("call@host", std::str::from_utf8(&forged).unwrap()).is_none());
        }
        let plain = passes.write("call@host", None);
        assert_eq!(plain.len(), 11);
        assert_eq!(passes.read("call@host", &plain).unwrap().flow, None);
        let (flow, way) = (Flow::udp(v4[0], v4[1]), passes.write_way(&Flow::udp(v4[0], v4[1])));
        assert_eq!(passes.read_way(&way), Some(flow));
        assert!(passes.read("call@host", &way).is_none() && passes.read_way(&plain).is_none());
        for text in ["", "a", "bob", "AAAAAAAAAAA", &"A".repeat(500), "%41"] {
            assert!(passes.read("call@host", text).is_none(), "{text}");
        }
    }

    #[test]
    fn base64_as_in_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("fooba", "Zm9vYmE")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn marks_in_any_via() {
        let mut message = Message::request(crate::sip::msg::Method::Options, "sip:a@b");
        message.push("Via", "SIP/2.0/UDP a;branch=z9hG4bKx, SIP/2.0/UDP b;branch=z9hG4bKAAAA.abcdefgh;rport");
        assert!(has_mark(&message, "abcdefgh"));
        assert!(!has_mark(&message, "abcdefg"));
        assert!(!has_mark(&message, "bcdefgh"));
    }
}
