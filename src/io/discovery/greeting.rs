//! The two messages of SIP multicast: who of this overlay is here, and here is one.
//!
//! The question is a `REGISTER` without Contact to 224.0.1.75 (RFC 3261 section 10.2.6), which asks for bindings and makes none; its To names
//! the overlay by its tag and nobody at all. `Require: dht` keeps registrars and phones from taking it for theirs. It carries no
//! `maddr`, so that the answer returns to the one who asked and not to everybody (section 18.1.1 would have it the other way). The answer's Contact is the
//! peer's URI.

use crate::core::Id;
use crate::sip::msg::{HeaderName, Message, Method, NameAddr, Uri, Via};
use std::net::SocketAddr;

/// Largest message looked at.
pub(super) const LARGEST: usize = 1300;
const NOBODY: &str = "chordial.invalid";

/// The question; `token` is random and comes back with the answer.
pub(super) fn question(tag: &str, from: SocketAddr, token: &str) -> Message {
    let mut message = Message::request(Method::Register, "sip:224.0.1.75");
    let mut via = Via::new("UDP", &from.ip().to_string(), Some(from.port()), &format!("z9hG4bK{token}"));
    via.params.set_flag("rport");
    message.push(HeaderName::Via, via);
    message.push(HeaderName::MaxForwards, 0);
    message.push("Require", "dht");
    message.push(HeaderName::From, format_args!("<sip:peer@{NOBODY}>;tag={token}"));
    message.push(HeaderName::To, format_args!("<sip:{tag}@{NOBODY}>"));
    message.push(HeaderName::CallId, token);
    message.push(HeaderName::CSeq, "1 REGISTER");
    message.set_content_length();
    message
}

/// Reads a datagram that came to the group; `None` unless it asks for this overlay.
pub(super) fn asked(bytes: &[u8], tag: &str) -> Option<Message> {
    let message = Message::parse(bytes.get(..bytes.len().min(LARGEST + 1)).filter(|b| b.len() <= LARGEST)?).ok()?;
    let ours = message.is_request() && *message.method() == Method::Register && message.has_token("Require", "dht");
    let to = message.to().ok()?.uri;
    let to = Uri::parse(&to.to_string()).ok()?;
    let named = to.user_unescaped().is_some_and(|user| user == tag) && to.host == NOBODY;
    (ours && named && message.validate().is_ok()).then_some(message)
}

/// The answer of the peer `own`, which takes links at `at`.
pub(super) fn answer(question: &Message, own: Id, at: SocketAddr, token: &str) -> Message {
    let mut message = Message::reply(question, 200, "OK");
    message.set_to_tag(token);
    message.push("Contact", format_args!("<sip:peer@{at};transport=tls;peer-ID={own}>"));
    message.set_content_length();
    message
}

/// Reads an answer to the question of this token: who is where.
pub(super) fn answered(bytes: &[u8], token: &str) -> Option<(Id, SocketAddr)> {
    let message = Message::parse(Some(bytes).filter(|b| b.len() <= LARGEST)?).ok()?;
    if !message.is_response() || message.status() != 200 || message.call_id() != Some(token) {
        return None;
    }
    let contacts: Vec<NameAddr> = message.contacts().ok()?;
    let [contact] = contacts.as_slice() else { return None };
    let uri = Uri::parse(&contact.uri.to_string()).ok()?;
    let id = uri.params.get("peer-ID").and_then(Id::from_hex)?;
    Some((id, SocketAddr::new(uri.ip()?, uri.port.filter(|port| *port != 0)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;

    const TAG: &str = "0123456789abcdef";

    fn here() -> SocketAddr {
        "10.0.0.2:5061".parse().unwrap()
    }

    #[test]
    fn a_question_is_answered_by_its_own_overlay_alone() {
        let own = Id::sha1(b"peer");
        let bytes = question(TAG, "10.0.0.1:40000".parse().unwrap(), "token").to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("REGISTER sip:224.0.1.75 SIP/2.0\r\n") && !text.contains("Contact"), "{text}");
        assert!(asked(&bytes, "fedcba9876543210").is_none());
        let heard = asked(&bytes, TAG).expect("ours");
        let reply = answer(&heard, own, here(), "other").to_bytes();
        assert_eq!(answered(&reply, "token"), Some((own, here())));
        assert_eq!(answered(&reply, "another"), None);
        // Neither is taken for the other, nor is an answer much larger than its question.
        assert!(asked(&reply, TAG).is_none() && answered(&bytes, "token").is_none());
        assert!(reply.len() < bytes.len() * 2, "{} for {}", reply.len(), bytes.len());
    }

    #[test]
    fn other_sip_on_the_group_is_left_alone() {
        let plain = String::from_utf8(question(TAG, here(), "t").to_bytes().to_vec()).unwrap();
        for other in [
            plain.replace("Require: dht\r\n", ""),
            plain.replace("REGISTER", "OPTIONS"),
            plain.replace("chordial.invalid", "example.com"),
            plain.replace("Call-ID: t\r\n", ""),
            format!("{plain}{}", " ".repeat(LARGEST)),
            String::new(),
        ] {
            assert!(asked(other.as_bytes(), TAG).is_none(), "{other}");
        }
    }

    #[test]
    fn damaged_messages_are_read_or_ignored() {
        let question = question(TAG, here(), "token");
        let answer = answer(&question, Id::sha1(b"x"), here(), "other").to_bytes();
        let mut rng = Rng::from_seed(2);
        for good in [question.to_bytes(), answer] {
            for _ in 0..5000 {
                let mut bad = good.to_vec();
                for _ in 0..=rng.below(4) {
                    let at = rng.below(bad.len().max(1) as u64) as usize;
                    match rng.below(3) {
                        0 => bad.truncate(at),
                        1 if !bad.is_empty() => bad[at] = rng.next_u32() as u8,
                        _ => bad.insert(at, rng.next_u32() as u8),
                    }
                }
                let _ = (asked(&bad, TAG), answered(&bad, "token"));
            }
        }
    }
}
