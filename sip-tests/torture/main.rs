//! The torture messages of RFC 4475 and RFC 5118, each with the RFC's verdict.
//!
//! The `.dat` files of RFC 4475 are byte for byte those of the archive in its appendix A (checked by digest), but for
//! `mismatch01`, which was written from the text of section 3.1.2.17. Those of RFC 5118 are the archive's with CRLF
//! for its LF, as they would stand on the wire.

use chordial::sip::msg::{Message, ParseError};

mod rfc4475;
mod rfc5118;
#[cfg(feature = "rsip")]
mod rsip;

/// What the RFC says of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Well formed: parses, validates, and is forwarded bit-identical.
    Valid,
    /// Answered with this status, or, being a response, dropped.
    Refused(u16),
    /// Not even readable far enough for an answer.
    Dropped,
}

struct Case {
    name: &'static str,
    section: &'static str,
    bytes: &'static [u8],
    verdict: Verdict,
}

fn judge(bytes: &[u8]) -> (Verdict, Option<ParseError>) {
    match Message::parse(bytes) {
        Err(fault) => (Verdict::Dropped, Some(fault)),
        Ok(message) => match message.validate() {
            Ok(()) => (Verdict::Valid, None),
            Err(fault) => (Verdict::Refused(fault.status()), Some(fault)),
        },
    }
}

fn find(cases: &[Case], name: &str) -> Message {
    let case = cases.iter().find(|case| case.name == name).expect(name);
    Message::parse(case.bytes).expect(name)
}

#[test]
fn every_verdict_is_the_rfcs() {
    let mut wrong = Vec::new();
    for case in rfc4475::CASES.iter().chain(rfc5118::CASES) {
        let (verdict, fault) = judge(&rfc5118::with_right_length(case));
        if verdict != case.verdict {
            wrong.push(format!("{} ({}): {verdict:?} {fault:?}, not {:?}", case.name, case.section, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever can be read at all is written as it came, faults and all.
#[test]
fn all_are_forwarded_unchanged() {
    for case in rfc4475::CASES.iter().chain(rfc5118::CASES) {
        let Ok(message) = Message::parse(case.bytes) else { continue };
        let out = message.to_bytes();
        assert!(case.bytes.starts_with(&out), "{}", case.name);
        // `dblreq` and the two of RFC 5118 with a short Content-Length have octets behind their body.
        if out.len() != case.bytes.len() {
            let declared = message.content_length().expect(case.name);
            assert_eq!(message.body().len(), declared, "{}", case.name);
        }
    }
}

/// An edit to one field leaves every other byte alone; a length is added where there is none, for the message may go on by a stream.
#[test]
fn an_edit_touches_its_field_only() {
    for case in rfc4475::CASES.iter().chain(rfc5118::CASES) {
        let Ok(message) = Message::parse(case.bytes) else { continue };
        let mut edited = message.clone();
        edited.push_front("Via", "SIP/2.0/UDP proxy.example.com;branch=z9hG4bKtorture");
        edited.push("X-Last", "here");
        let out = edited.to_bytes();
        assert_eq!(edited.remove_first_value("Via").as_deref(), edited_via(), "{}", case.name);
        assert!(edited.remove("x-last"));
        let mut else_alike = message.clone();
        if !else_alike.has("Content-Length") {
            else_alike.set_content_length();
        }
        assert_eq!(edited.to_bytes(), else_alike.to_bytes(), "{}", case.name);
        assert_eq!(out.len(), else_alike.to_bytes().len() + VIA_LINE.len() + "X-Last: here\r\n".len(), "{}", case.name);
    }
}

const VIA_LINE: &str = "Via: SIP/2.0/UDP proxy.example.com;branch=z9hG4bKtorture\r\n";

fn edited_via() -> Option<&'static str> {
    VIA_LINE.strip_prefix("Via: ").and_then(|line| line.strip_suffix("\r\n"))
}
