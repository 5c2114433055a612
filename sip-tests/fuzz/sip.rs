//! 100,000 mutated messages into the SIP parser and the stream framer: no panic, and nothing that grows.
//!
//! The draws are seeded, so that a failure is found again; the seed and the round stand in the message.

use bytes::Bytes;
use chordial::core::{Rng, limits};
use chordial::sip::frame::{Frame, Framer};
use chordial::sip::msg::{HeaderName, Message, NameAddr, Params, Uri, Via};

const ROUNDS: u32 = 100_000;
const SEED: u64 = 0x5349_5020;

macro_rules! seeds {
    ($($name:literal)*) => { &[$(include_bytes!(concat!("../torture/rfc4475/", $name, ".dat"))),*] };
}

const SEEDS: &[&[u8]] = seeds! {
    "wsinv" "intmeth" "esc01" "escnull" "lwsdisp" "longreq" "dblreq" "semiuri" "transports" "mpart01" "unreason"
    "noreason" "badinv01" "ncl" "scalar02" "quotbal" "ltgtruri" "regbadct" "baddn" "badvers" "multi01" "mcl01"
    "unksm2" "bcast" "regescrt" "inv2543"
};

/// Pieces that a parser may trip over.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\"",
    b"\\",
    b"<",
    b">",
    b",",
    b";",
    b"=",
    b":",
    b"@",
    b"?",
    b"%",
    b"%0",
    b"[",
    b"]",
    b"[::",
    b"::",
    b"*",
    b" ",
    b"\t",
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"SIP/2.0",
    b"Content-Length: 5\r\n",
    b"l: 99999999999999999999\r\n",
    b"Via: ",
    b"v:",
    b"tag=",
    b"sip:",
    b"tel:",
    b"z9hG4bK",
    b"-1",
    b"4294967296",
];

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.below(40) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + rng.below(200) as usize).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(to..to, copy);
            }
            5 => {
                let other = SEEDS[rng.below(SEEDS.len() as u64) as usize];
                let from = rng.below(other.len() as u64) as usize;
                let to = (from + rng.below(120) as usize).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let piece = PIECES[rng.below(PIECES.len() as u64) as usize];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}

/// Asks for every view, and makes every edit.
fn exercise(message: &mut Message, seen: usize) {
    let unchanged = message.to_bytes();
    assert!(unchanged.len() <= seen);
    let again = Message::parse_bytes(unchanged.clone()).expect("what was read is read again");
    assert_eq!(again.to_bytes(), unchanged);
    assert_eq!(again.validate().is_ok(), message.validate().is_ok());
    let _ = (message.via(), message.vias(), message.from(), message.to(), message.cseq(), message.branch());
    let _ = (message.contacts(), message.routes(), message.record_routes(), message.has_star_contact());
    let _ = (message.max_forwards(), message.expires(), message.content_length(), message.content_is("a/b"));
    let _ = (message.from_tag(), message.to_tag(), message.call_id(), message.request_uri(), message.reason());
    let names: Vec<String> = message.fields().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let _ = (message.header_bytes(name), message.values(name).count());
    }
    if let Ok(uri) = Uri::parse(message.request_uri()) {
        let written = uri.to_string();
        let read = Uri::parse(&written).expect("a URI that was written is read");
        assert_eq!(read.to_string(), written);
        let _ = (uri.matches(&read), uri.canonical_aor(), uri.ip());
    }
    for value in [HeaderName::From, HeaderName::Contact, HeaderName::Via].into_iter().flat_map(|n| message.values(n)) {
        if let Ok(address) = NameAddr::parse(value) {
            NameAddr::parse(&address.to_string()).expect("a name-addr that was written is read");
            let _ = (address.q(), address.expires(), address.tag());
        }
        if let Ok(via) = Via::parse(value) {
            assert_eq!(Via::parse(&via.to_string()), Ok(via));
        }
        let _ = Params::parse(value);
    }
    let reply = Message::reply(message, 400, "Bad Request");
    assert!(reply.to_bytes().len() <= seen + 256);
    edit(message, seen);
}

fn edit(message: &mut Message, seen: usize) {
    message.push_front(HeaderName::Via, "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKfuzz");
    message.replace_first_value(HeaderName::Via, "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKfuzz2");
    message.remove_first_value(HeaderName::Via);
    message.remove_first_value(HeaderName::Route);
    message.replace_first_value(HeaderName::Contact, "<sip:a@b>");
    message.set_to_tag("fuzz");
    message.set(HeaderName::MaxForwards, 69);
    message.set_request_uri("sip:fuzz@127.0.0.1");
    message.set_body("text/plain", b"fuzz".to_vec());
    let out = message.to_bytes();
    assert!(out.len() <= seen + 512);
    // Not so where the index stopped at a limit, or a line has no name to find it by again.
    if let Ok(read) = Message::parse_bytes(out) {
        assert_eq!(read.method(), message.method());
    }
}

/// One stream for ever, as an attacker would hold it; a new one after each refusal.
fn frame(framer: &mut Framer, bytes: &[u8], rng: &mut Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(1 + rng.below(rest.len() as u64) as usize);
        rest = tail;
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(Frame::Message(message))) => assert!(message.len() <= limits::SIP_MESSAGE),
                Ok(Some(Frame::KeepAlive | Frame::Pong)) => {}
                Ok(None) => break,
                Err(_) => {
                    let _ = framer.failed_head().map(Message::parse_bytes);
                    *framer = Framer::new();
                    return;
                }
            }
        }
        assert!(framer.buffered() <= limits::SIP_MESSAGE);
    }
}

#[test]
fn mutated_messages() {
    let mut rng = Rng::from_seed(SEED);
    let mut framer = Framer::new();
    let (mut read, mut valid) = (0, 0);
    for round in 0..ROUNDS {
        let mut bytes = SEEDS[rng.below(SEEDS.len() as u64) as usize].to_vec();
        mutate(&mut rng, &mut bytes);
        let seen = bytes.len();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            frame(&mut framer, &bytes, &mut rng);
            match Message::parse_bytes(Bytes::from(bytes.clone())) {
                Ok(mut message) => {
                    let good = message.validate().is_ok();
                    exercise(&mut message, seen);
                    (1, u32::from(good))
                }
                Err(_) => (0, 0),
            }
        }));
        let Ok((was_read, was_valid)) = outcome else {
            panic!("seed {SEED:#x}, round {round}:\n{}", bytes.escape_ascii());
        };
        read += was_read;
        valid += was_valid;
    }
    // The mutations have to reach past the start line, or nothing was tried.
    assert!(read > ROUNDS / 2 && valid > ROUNDS / 50, "{read} read, {valid} valid");
}

/// A message that is edited for as long as the program runs stays as small as it is.
#[test]
fn edits_do_not_pile_up() {
    let mut message = Message::parse(SEEDS[0]).expect("wsinv");
    let once = message.to_bytes().len();
    for round in 0..100_000_u32 {
        message
            .replace_first_value(HeaderName::Via, format!("SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{:06}", round % 1000));
        message.set(HeaderName::MaxForwards, round % 100);
    }
    assert!(message.to_bytes().len() < once + 100);
    assert!(message.memory() < 64 * 1024, "{}", message.memory());
}
