//! Differential test: where `rsip` reads a message at all, it reads in it what we read. Run with `--features rsip`.

use chordial::core::Rng;
use chordial::sip::msg::{HeaderName, Message, NameAddr};
use rsip::SipMessage;
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::HeadersExt;

use crate::{rfc4475, rfc5118};

/// Compares; false where `rsip` cannot read it.
fn agree(bytes: &[u8]) -> bool {
    let Ok(theirs) = SipMessage::try_from(bytes) else { return false };
    let ours = Message::parse(bytes).unwrap_or_else(|e| panic!("{e}: {}", bytes.escape_ascii()));
    let headers = match &theirs {
        SipMessage::Request(request) => {
            assert_eq!(ours.method().as_str(), request.method.to_string());
            assert!(ours.request_uri().eq_ignore_ascii_case(&request.uri.to_string()));
            &request.headers
        }
        SipMessage::Response(response) => {
            assert_eq!(ours.status(), response.status_code.code());
            &response.headers
        }
    };
    for ((name, value), header) in ours.fields().zip(headers.iter()) {
        let text = header.to_string();
        let (their_name, their_value) = text.split_once(':').expect("a header has a colon");
        assert!(name.eq_ignore_ascii_case(their_name), "{name} is not {their_name}");
        assert_eq!(value, their_value.trim(), "{name}");
    }
    assert_eq!(ours.fields().count(), headers.iter().count());
    typed(&ours, &theirs);
    true
}

/// The typed views, each where `rsip` gives one.
fn typed(ours: &Message, theirs: &SipMessage) {
    if let Ok(header) = theirs.via_header()
        && let Ok(via) = header.typed()
        // It reads the first of a list only by itself.
        && ours.vias().is_ok_and(|vias| vias.len() == ours.headers(HeaderName::Via).count())
    {
        let mine = ours.via().expect("rsip reads this Via");
        assert_eq!(mine.transport, via.transport.to_string());
        assert_eq!(mine.host, via.uri.host_with_port.host.to_string());
        assert_eq!(mine.branch(), via.branch().map(|branch| branch.value()));
    }
    if let Ok(cseq) = theirs.cseq_header().and_then(|header| header.typed()) {
        let mine = ours.cseq().expect("rsip reads this CSeq");
        assert_eq!((mine.number, mine.method.to_string()), (cseq.seq, cseq.method.to_string()));
    }
    if let Ok(from) = theirs.from_header().and_then(|header| header.typed()) {
        let mine = ours.from().expect("rsip reads this From");
        same_uri(&mine, &from.uri);
        assert_eq!(mine.tag(), from.tag().map(|tag| tag.value()));
        assert_eq!(ours.from_tag(), mine.tag());
    }
    if let Ok(to) = theirs.to_header().and_then(|header| header.typed()) {
        let mine = ours.to().expect("rsip reads this To");
        same_uri(&mine, &to.uri);
        assert_eq!(ours.to_tag(), to.tag().map(|tag| tag.value()));
    }
    if let Ok(call_id) = theirs.call_id_header() {
        assert_eq!(ours.call_id(), Some(call_id.value().trim()));
    }
    if let Ok(hops) = theirs.max_forwards_header().and_then(|header| header.num()) {
        assert!(hops > 255 || ours.max_forwards().map(u32::from) == Some(hops));
    }
}

/// It writes the value of `transport` in capitals.
fn same_uri(mine: &NameAddr, theirs: &rsip::Uri) {
    let (mine, theirs) = (mine.uri.to_string(), theirs.to_string());
    assert!(mine.eq_ignore_ascii_case(&theirs), "{mine} is not {theirs}");
}

#[test]
fn torture_messages() {
    let cases = || rfc4475::CASES.iter().chain(rfc5118::CASES);
    let read = cases().filter(|case| case.verdict == crate::Verdict::Valid && agree(case.bytes)).count();
    assert!(read >= 10, "rsip reads {read}");
}

#[test]
fn made_up_messages() {
    let mut rng = Rng::from_seed(4475);
    let mut read = 0;
    for _ in 0..3000 {
        read += u32::from(agree(&made_up(&mut rng)));
    }
    assert!(read > 1500, "rsip reads {read} of 3000");
}

#[test]
fn there_and_back() {
    let mut converted = 0;
    for case in rfc4475::CASES.iter().filter(|case| case.verdict == crate::Verdict::Valid) {
        let message = Message::parse(case.bytes).expect(case.name);
        let Ok(theirs) = SipMessage::try_from(&message) else { continue };
        converted += 1;
        let back = Message::try_from(&theirs).expect(case.name);
        let fields = |m: &Message| -> Vec<(String, String)> {
            let long = |name: &str| HeaderName::new(name).as_str().to_ascii_lowercase();
            m.fields().map(|(name, value)| (long(name), value.to_owned())).collect()
        };
        assert_eq!(fields(&back), fields(&message), "{}", case.name);
        assert_eq!(back.body(), message.body(), "{}", case.name);
        assert!(back.request_uri().eq_ignore_ascii_case(message.request_uri()), "{}", case.name);
        assert_eq!(back.status(), message.status(), "{}", case.name);
    }
    assert!(converted > 15, "{converted}");
}

fn pick<'a>(rng: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[rng.below(choices.len() as u64) as usize]
}

fn made_up(rng: &mut Rng) -> Vec<u8> {
    let method = pick(rng, &["INVITE", "ACK", "BYE", "REGISTER", "OPTIONS", "MESSAGE"]);
    let uri = |rng: &mut Rng| {
        let user = pick(rng, &["", "alice@", "bob:secret@", "+1-201-555@", "j.user@", "a_b*c@"]);
        let host = pick(rng, &["example.com", "192.0.2.7", "a-b.example.org"]);
        let port = pick(rng, &["", ":5060", ":15061"]);
        let params = pick(rng, &["", ";transport=tcp", ";lr", ";user=phone;x=y", ";maddr=192.0.2.1"]);
        format!("{}{user}{host}{port}{params}", pick(rng, &["sip:", "sips:"]))
    };
    let start = match rng.below(3) {
        0 => format!("SIP/2.0 {} Whatever it is", pick(rng, &["100", "180", "200", "404", "486", "603"])),
        _ => format!("{method} {} SIP/2.0", uri(rng)),
    };
    let display = |rng: &mut Rng| pick(rng, &["", "Bob ", "\"Alice B\" ", "\"A, \\\"B\\\"; C\" ", "\"\" "]);
    let mut lines = vec![start];
    for hop in 0..=rng.below(3) {
        let rest = pick(rng, &["", ";rport", ";received=192.0.2.4", ";rport=5062;ttl=3"]);
        lines.push(format!(
            "Via: SIP/2.0/{} h{hop}.example.com;branch=z9hG4bK{}{rest}",
            pick(rng, &["UDP", "TCP"]),
            hop
        ));
    }
    lines.push(format!("Max-Forwards: {}", rng.below(200)));
    lines.push(format!("From: {}<{}>;tag={}", display(rng), uri(rng), rng.token(4)));
    let tag = pick(rng, &["", ";tag=xyz"]);
    lines.push(format!("To: {}<{}>{tag}", display(rng), uri(rng)));
    lines.push(format!("Call-ID: {}@example.com", rng.token(8)));
    lines.push(format!("CSeq: {} {method}", rng.below(1 << 31)));
    lines.push(format!("Contact: {}<{}>{}", display(rng), uri(rng), pick(rng, &["", ";expires=60", ";q=0.5"])));
    lines.push(
        pick(rng, &["X-Any: thing", "Supported: 100rel, path", "Subject: a; b, c", "User-Agent: x/1 (y)"]).into(),
    );
    let body = pick(rng, &["", "v=0\r\n", "text \u{e9}"]);
    lines.push(format!("Content-Length: {}", body.len()));
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}
